//! Tests of attention, forward and backward, and the plain loops that specify it.

use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::attention::{Shape, nc_attention_fwd};
use crate::cpu::attention_bwd::nc_attention_bwd;
use crate::cpu::simd::Element;
use crate::cpu::testing::{Rig, close, elements, same_on_any_pool, widen};
use std::ptr::null_mut;

/// The plain loops in f64, specification and test twin of forward and backward.
pub mod plain {
    use crate::cpu::attention::Shape;

    pub struct Result {
        pub o: Vec<f64>,
        pub lse: Vec<f64>,
        pub dq: Vec<f64>,
        pub dk: Vec<f64>,
        pub dv: Vec<f64>,
    }

    #[allow(clippy::needless_range_loop)] // b is a place in every operand
    pub fn attention(shape: &Shape, q: &[f64], k: &[f64], v: &[f64], d_o: &[f64], lengths: &[i32]) -> Result {
        let Shape { B, T, H, G, D, scale, .. } = *shape;
        let scale = f64::from(scale);
        let mut y = Result {
            o: vec![0.0; q.len()],
            lse: vec![0.0; B * H * T],
            dq: vec![0.0; q.len()],
            dk: vec![0.0; k.len()],
            dv: vec![0.0; k.len()],
        };
        let dot = |x: &[f64], z: &[f64]| x.iter().zip(z).map(|(x, z)| x * z).sum::<f64>();
        for b in 0..B {
            for h in 0..H {
                for i in 0..lengths[b] as usize {
                    let row = ((b * T + i) * H + h) * D..((b * T + i) * H + h + 1) * D;
                    let key = |j: usize| ((b * T + j) * G + h * G / H) * D;
                    let keys = shape.first_key(i)..i + 1;
                    let s: Vec<f64> =
                        keys.clone().map(|j| scale * dot(&q[row.clone()], &k[key(j)..key(j) + D])).collect();
                    let m = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let l: f64 = s.iter().map(|s| (s - m).exp()).sum();
                    y.lse[(b * H + h) * T + i] = m + l.ln();
                    for (j, s) in keys.clone().zip(&s) {
                        for d in 0..D {
                            y.o[row.start + d] += (s - m).exp() / l * v[key(j) + d];
                        }
                    }
                    let delta = dot(&d_o[row.clone()], &y.o[row.clone()]);
                    for (j, s) in keys.zip(&s) {
                        let p = (s - m).exp() / l;
                        let ds = p * (dot(&d_o[row.clone()], &v[key(j)..key(j) + D]) - delta);
                        for d in 0..D {
                            y.dv[key(j) + d] += p * d_o[row.start + d];
                            y.dk[key(j) + d] += scale * ds * q[row.start + d];
                            y.dq[row.start + d] += scale * ds * k[key(j) + d];
                        }
                    }
                }
            }
        }
        y
    }
}

/// Forward and backward of one case: o, lse, dq, dk, dv.
type Outputs<E> = (Vec<E>, Vec<f32>, Vec<E>, Vec<E>, Vec<E>);

fn run<E: Element>(
    rig: &Rig,
    [B, T, H, G, D]: [i32; 5],
    window: i32,
    lengths: Option<&[i32]>,
    [q, k, v, d_o]: [&[E]; 4],
) -> Outputs<E> {
    let dtype = if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 };
    let scale = 1.0 / (D as f32).sqrt();
    let statistics = (B * H * T) as usize;
    let lengths = lengths.map_or(null_mut(), |lengths| rig.put(lengths));
    let (pq, pk, pv, pdo) = (rig.put(q), rig.put(k), rig.put(v), rig.put(d_o));
    let (o, lse) = (rig.junk::<E>(q.len()), rig.junk::<f32>(statistics));
    let (dq, dk, dv) = (rig.junk::<E>(q.len()), rig.junk::<E>(k.len()), rig.junk::<E>(k.len()));
    let delta = rig.junk::<f32>(statistics);
    unsafe {
        let ctx = rig.ctx();
        rig.ok(nc_attention_fwd(ctx, o, lse, pq, pk, pv, lengths, B, T, H, G, D, window, scale, dtype));
        rig.ok(nc_attention_bwd(
            ctx, dq, dk, dv, delta, pdo, pq, pk, pv, o, lse, lengths, B, T, H, G, D, window, scale, dtype,
        ));
    }
    let (nQ, nK) = (q.len(), k.len());
    (rig.get(o, nQ), rig.get(lse, statistics), rig.get(dq, nQ), rig.get(dk, nK), rig.get(dv, nK))
}

fn check<E: Element>(rig: &Rig, sizes: [i32; 5], window: i32, lengths: Option<&[i32]>) {
    let [B, T, H, G, D] = sizes.map(|n| n as usize);
    let (nQ, nK) = (B * T * H * D, B * T * G * D);
    let (q, k, v, d_o) = (elements::<E>(nQ, 1), elements::<E>(nK, 2), elements::<E>(nK, 3), elements::<E>(nQ, 4));
    let (o, lse, dq, dk, dv) = run(rig, sizes, window, lengths, [&q, &k, &v, &d_o]);
    let shape = Shape::new(sizes, window, 1.0 / (D as f32).sqrt()).unwrap();
    let all = vec![T as i32; B];
    let expected = plain::attention(&shape, &widen(&q), &widen(&k), &widen(&v), &widen(&d_o), lengths.unwrap_or(&all));
    let name = |x: &str| format!("{x} of {sizes:?} window {window} lengths {lengths:?}");
    close(&name("o"), &o, &expected.o, T);
    close(&name("lse"), &lse, &expected.lse, T.max(D));
    // The gradients see o rounded to the type.
    close(&name("dq"), &dq, &expected.dq, T.max(D) * 4);
    close(&name("dk"), &dk, &expected.dk, T.max(D) * 4);
    close(&name("dv"), &dv, &expected.dv, T.max(D) * 4);
}

#[test]
fn attention_matches_the_loop() {
    let rig = Rig::new(2);
    for sizes in [[2, 13, 3, 1, 10], [1, 1, 1, 1, 2], [1, 130, 4, 2, 32], [2, 64, 4, 1, 7], [1, 70, 2, 2, 128]] {
        for window in [-1, 0, 5, 64, 100] {
            check::<f32>(&rig, sizes, window, None);
            check::<u16>(&rig, sizes, window, None);
        }
    }
    check::<f32>(&rig, [1, 65, 1, 1, 256], -1, None);
    check::<f32>(&rig, [3, 100, 2, 1, 33], -1, Some(&[100, 0, 65]));
    check::<u16>(&rig, [3, 100, 2, 1, 33], 20, Some(&[1, 99, 64]));
    check::<u16>(&rig, [3, 100, 2, 1, 34], 20, Some(&[1, 99, 65]));
    check::<u16>(&rig, [2, 131, 2, 2, 64], -1, Some(&[0, 131]));
}

fn same_bits<E: Element + PartialEq>() {
    // One key head on several threads takes the other plan of the backward pass.
    for (sizes, window) in [([2, 150, 4, 2, 32], -1), ([1, 200, 2, 1, 24], -1), ([1, 200, 1, 1, 24], 70)] {
        let [B, T, H, G, D] = sizes.map(|n| n as usize);
        let (nQ, nK) = (B * T * H * D, B * T * G * D);
        let [q, d_o] = [1, 4].map(|stream| elements::<E>(nQ, stream));
        let [k, v] = [2, 3].map(|stream| elements::<E>(nK, stream));
        for lengths in [None, Some(&[131, 150][..B])] {
            same_on_any_pool(|rig| run(rig, sizes, window, lengths, [&q, &k, &v, &d_o]));
        }
    }
}

#[test]
fn attention_gives_the_same_bits_on_any_pool() {
    same_bits::<f32>();
    same_bits::<u16>();
}

#[test]
fn attention_matches_the_loop_with_one_task_per_tile() {
    let rig = Rig::new(8);
    check::<f32>(&rig, [1, 200, 2, 1, 32], -1, None);
    check::<u16>(&rig, [1, 200, 2, 1, 10], 70, None);
    check::<f32>(&rig, [2, 140, 1, 1, 16], -1, Some(&[30, 129]));
}

#[test]
fn attention_keeps_a_nan_visible() {
    let rig = Rig::new(2);
    let (mut k, q) = (elements::<f32>(70 * 8, 2), elements::<f32>(70 * 8, 1));
    k[3 * 8] = f32::NAN;
    let (o, _, dq, _, _) = run(&rig, [1, 70, 1, 1, 8], -1, None, [&q, &k, &q, &q]);
    assert!(o[..3 * 8].iter().all(|x| x.is_finite()));
    assert!(o[3 * 8..].iter().all(|x| x.is_nan()));
    assert!(dq[69 * 8].is_nan());
}

#[test]
fn attention_reports_an_impossible_length() {
    let rig = Rig::new(1);
    let (x, lengths) = (rig.put(&[0f32; 4]), rig.put(&[3i32]));
    unsafe {
        rig.ok(nc_attention_fwd(rig.ctx(), x, null_mut(), x, x, x, lengths, 1, 2, 1, 1, 2, -1, 1.0, DTYPE_F32));
    }
    let message = rig.cx.wait().unwrap_err().message;
    assert!(message.contains("row 0 has length 3, expected 0 to 2"), "{message}");
}
