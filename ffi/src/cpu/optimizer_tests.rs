//! Tests of the optimizer steps.

use super::*;
use crate::cpu::testing::{Rig, assert_close, from_bf16, random, to_bf16};

const N: usize = 3 * CHUNK + 77;

fn as_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// lr, beta1, beta2, eps, weight decay, 1 - beta1^3, 1 - beta2^3.
fn adamw_hyper() -> Vec<f32> {
    vec![0.02, 0.8, 0.95, 1e-10, 0.1, 1.0 - 0.8f32.powi(3), 1.0 - 0.95f32.powi(3)]
}

/// Runs AdamW on seeded tensors of N elements and gives p, m, v and the bf16 copy.
fn run_adamw(threads: usize, scale: f32) -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<u16>) {
    let rig = Rig::new(threads);
    let (p, m) = (rig.put(&random(N, 0, 1.0)), rig.put(&random(N, 1, 0.1)));
    let v: Vec<f32> = random(N, 2, 0.1).iter().map(|x| x * x).collect();
    let (v, g, copy) = (rig.put(&v), rig.put(&random(N, 3, 0.1)), rig.put(&vec![0u16; N]));
    let (hyper, scale) = (rig.put(&adamw_hyper()), rig.put(&[scale]));
    // SAFETY: a live context and its memory.
    rig.ok(unsafe { nc_adamw(rig.ctx(), p, m, v, copy, g, hyper, scale, N as i64, DTYPE_BF16) });
    (rig.get(p, N), rig.get(m, N), rig.get(v, N), rig.get(copy, N))
}

#[test]
fn nc_adamw_matches_the_loop() {
    let (p, m, v, copy) = run_adamw(2, 0.5);
    let h = adamw_hyper().iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (lr, b1, b2, eps, decay, bc1, bc2) = (h[0], h[1], h[2], h[3], h[4], h[5], h[6]);
    let (mut ep, mut em) = (as_f64(&random(N, 0, 1.0)), as_f64(&random(N, 1, 0.1)));
    let mut ev: Vec<f64> = random(N, 2, 0.1).iter().map(|x| f64::from(x * x)).collect();
    for (i, g) in as_f64(&random(N, 3, 0.1)).into_iter().enumerate() {
        let g = g * 0.5;
        em[i] = b1 * em[i] + (1.0 - b1) * g;
        ev[i] = b2 * ev[i] + (1.0 - b2) * g * g;
        ep[i] = ep[i] * (1.0 - lr * decay) - lr / bc1 * em[i] / (ev[i].sqrt() / bc2.sqrt() + eps);
    }
    assert_close("m", &m, &em, 1e-7);
    assert_close("v", &v, &ev, 1e-8);
    assert_close("p", &p, &ep, 1e-5);
    assert_eq!(copy, to_bf16(&p));
}

#[test]
fn nc_adamw_lets_averages_without_gradients_end_at_zero() {
    let rig = Rig::new(1);
    let zeros = || rig.put(&[0f32; N]);
    let (p, m, v) = (zeros(), rig.put(&[1.2 * f32::MIN_POSITIVE; N]), rig.put(&[f32::MIN_POSITIVE; N]));
    let (g, copy, hyper, scale) = (zeros(), rig.put(&[0u16; N]), rig.put(&adamw_hyper()), rig.put(&[1f32]));
    // SAFETY: a live context and its memory.
    rig.ok(unsafe { nc_adamw(rig.ctx(), p, m, v, copy, g, hyper, scale, N as i64, DTYPE_BF16) });
    assert_eq!((rig.get(m, N), rig.get(v, N)), (vec![0f32; N], vec![0f32; N]));
}

#[test]
fn nc_adamw_has_the_same_bits_for_any_threads() {
    assert_eq!(run_adamw(1, 1.0), run_adamw(3, 1.0));
}

#[test]
fn nc_adamw_skips_a_step_whose_scale_is_not_finite() {
    let (p, m, _, copy) = run_adamw(2, f32::NAN);
    assert_eq!((p, m), (random(N, 0, 1.0), random(N, 1, 0.1)));
    assert!(copy.iter().all(|&x| x == 0));
}

/// Runs Muon's momentum on seeded tensors and gives u (widened) and m.
fn run_momentum(threads: usize, scale: f32, dtype: i32) -> (Vec<f32>, Vec<f32>) {
    let rig = Rig::new(threads);
    let (m, g) = (rig.put(&random(N, 1, 1.0)), rig.put(&random(N, 2, 1.0)));
    let (u, hyper, scale) = (rig.put(&vec![1f32; N]), rig.put(&[0.02f32, 0.95, 0.0]), rig.put(&[scale]));
    // SAFETY: a live context and its memory.
    rig.ok(unsafe { nc_muon_momentum(rig.ctx(), u, m, g, hyper, scale, N as i64, dtype) });
    let u = if dtype == DTYPE_F32 { rig.get(u, N) } else { from_bf16(&rig.get(u, N)) };
    (u, rig.get(m, N))
}

#[test]
fn nc_muon_momentum_matches_the_loop() {
    for (dtype, tolerance) in [(DTYPE_F32, 1e-6), (DTYPE_BF16, 1.5 / 256.0)] {
        let (u, m) = run_momentum(2, 0.25, dtype);
        let (mut em, mut eu) = (as_f64(&random(N, 1, 1.0)), as_f64(&random(N, 2, 1.0)));
        for (m, u) in em.iter_mut().zip(&mut eu) {
            let g = *u * 0.25;
            *m += 0.05 * (g - *m);
            *u = g + 0.95 * (*m - g);
        }
        assert_close("m", &m, &em, 1e-6);
        assert_close("u", &u, &eu, tolerance);
        assert_eq!((u, m), run_momentum(3, 0.25, dtype));
    }
}

#[test]
fn nc_muon_momentum_gives_zero_when_the_scale_is_not_finite() {
    for dtype in [DTYPE_F32, DTYPE_BF16] {
        let (u, m) = run_momentum(2, f32::INFINITY, dtype);
        assert!(u.iter().all(|&u| u == 0.0));
        assert_eq!(m, random(N, 1, 1.0));
    }
}

#[test]
fn nc_muon_update_matches_the_loop() {
    for (dtype, scale) in [(DTYPE_F32, 1f32), (DTYPE_BF16, 1.0), (DTYPE_F32, f32::NAN)] {
        let rig = Rig::new(2);
        let (before, o) = (random(N, 4, 1.0), to_bf16(&random(N, 5, 1.0)));
        let (p, copy) = (rig.put(&before), rig.put(&vec![0f32; N]));
        let update = if dtype == DTYPE_F32 { rig.put(&from_bf16(&o)) } else { rig.put(&o) };
        let (hyper, factor) = (rig.put(&[0.02f32, 0.95, 0.1]), rig.put(&[scale]));
        // SAFETY: a live context and its memory.
        rig.ok(unsafe { nc_muon_update(rig.ctx(), p, copy, update, hyper, factor, N as i64, 2.0, dtype, DTYPE_F32) });
        let p: Vec<f32> = rig.get(p, N);
        if scale.is_nan() {
            assert_eq!(p, before);
            continue;
        }
        let expected: Vec<f64> = as_f64(&before)
            .into_iter()
            .zip(as_f64(&from_bf16(&o)))
            .map(|(p, o)| p * (1.0 - 0.02 * 0.1) - 0.02 * 2.0 * o)
            .collect();
        assert_close("p", &p, &expected, 3e-7);
        assert_eq!(p, rig.get::<f32>(copy, N));
    }
}

#[test]
fn steps_accept_empty_tensors_and_name_a_wrong_dtype() {
    let rig = Rig::new(1);
    let (x, hyper) = (rig.put(&[0f32; 8]), rig.put(&adamw_hyper()));
    let none = std::ptr::null_mut();
    // SAFETY: a live context and its memory.
    unsafe {
        rig.ok(nc_adamw(rig.ctx(), x, x, x, none, x, hyper, none, 0, DTYPE_F32));
        let message = rig.fails(nc_muon_momentum(rig.ctx(), x, x, x, hyper, none, 8, 3), 1);
        assert_eq!(message, "Cannot use u: dtype 3, expected f32 or bf16");
    }
}
