//! Tests of rotation and norm of queries and keys.

use super::*;
use crate::abi::{STATUS_INVALID, STATUS_PANIC};
use crate::cpu::testing::{Rig, close, close_at, elements, widen};
use std::ptr::null_mut;

const EPS: f32 = f32::EPSILON;

/// One head in f64: y and rstd.
fn plain(x: &[f64], cos: &[f64], sin: &[f64], scale: f64) -> (Vec<f64>, f64) {
    let half = x.len() / 2;
    let mut r = vec![0.0; 2 * half];
    for i in 0..half {
        r[i] = x[i] * cos[i] + x[half + i] * sin[i];
        r[half + i] = x[half + i] * cos[i] - x[i] * sin[i];
    }
    let rstd = 1.0 / (r.iter().map(|r| r * r).sum::<f64>() / x.len() as f64 + f64::from(EPS)).sqrt();
    (r.iter().map(|r| scale * r * rstd).collect(), rstd)
}

fn check<E: Element>([B, T, H, D]: [usize; 4], positions: Option<&[i32]>) {
    let rig = Rig::new(2);
    let dtype = if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 };
    let (n, heads, length, scale) = (B * T * H * D, B * T * H, T + 9, 1.2f32);
    let (x, dy, old) = (elements::<E>(n, 1), elements::<E>(n, 2), elements::<E>(n, 3));
    let (cos, sin) = (elements::<f32>(length * D / 2, 4), elements::<f32>(length * D / 2, 5));
    let (px, pdy, pcos, psin) = (rig.put(&x), rig.put(&dy), rig.put(&cos), rig.put(&sin));
    let ppos = positions.map_or(null_mut(), |positions| rig.put(positions));
    let (y, rstd, dx, sum) = (rig.junk::<E>(n), rig.junk::<f32>(heads), rig.junk::<E>(n), rig.put(&old));
    unsafe {
        let (ctx, [b, t, h, d, l]) = (rig.ctx(), [B, T, H, D, length].map(|n| n as i32));
        rig.ok(nc_qk_rope_norm_fwd(ctx, y, rstd, px, pcos, psin, ppos, b, t, h, d, l, EPS, scale, dtype));
        rig.ok(nc_qk_rope_norm_bwd(ctx, dx, pdy, y, rstd, pcos, psin, ppos, b, t, h, d, l, scale, 0, dtype));
        rig.ok(nc_qk_rope_norm_bwd(ctx, sum, pdy, y, rstd, pcos, psin, ppos, b, t, h, d, l, scale, 1, dtype));
    }
    let (x, dy, old, cos, sin) = (widen(&x), widen(&dy), widen(&old), widen(&cos), widen(&sin));
    let (mut expected, mut expected_rstd, mut gradient) = (vec![], vec![], vec![]);
    for head in 0..heads {
        let token = head / H;
        let position = positions.map_or(0, |p| p[token / T] as usize) + token % T;
        let table = position * D / 2..(position + 1) * D / 2;
        let (cos, sin) = (&cos[table.clone()], &sin[table]);
        let (x, dy) = (&x[head * D..][..D], &dy[head * D..][..D]);
        let (y, rstd) = plain(x, cos, sin, f64::from(scale));
        expected.extend(y);
        expected_rstd.push(rstd);
        for i in 0..D {
            let value = |delta: f64| {
                let mut x = x.to_vec();
                x[i] += delta;
                plain(&x, cos, sin, f64::from(scale)).0.iter().zip(dy).map(|(y, dy)| y * dy).sum::<f64>()
            };
            gradient.push((value(1e-5) - value(-1e-5)) / 2e-5);
        }
    }
    close("y", &rig.get::<E>(y, n), &expected, D);
    close("rstd", &rig.get::<f32>(rstd, heads), &expected_rstd, D);
    // dy rstd, of this size, cancels in dx; the gradient is taken through y, which is rounded to the type.
    let largest = 2.0 * expected_rstd.iter().copied().fold(0.0, f64::max);
    close_at("dx", &rig.get::<E>(dx, n), &gradient, D, largest);
    let total: Vec<f64> = gradient.iter().zip(&old).map(|(g, old)| g + old).collect();
    close_at("dx sum", &rig.get::<E>(sum, n), &total, D, largest);
}

#[test]
fn qk_rope_norm_matches_the_loop_and_finite_differences() {
    for sizes in [[1, 1, 1, 2], [2, 3, 3, 10], [1, 5, 2, 32], [2, 2, 1, 64], [1, 2, 2, 128]] {
        check::<f32>(sizes, None);
        check::<u16>(sizes, None);
    }
    check::<f32>([2, 3, 2, 10], Some(&[4, 9]));
    check::<u16>([2, 3, 2, 32], Some(&[0, 7]));
}

#[test]
fn qk_rope_norm_refuses_what_it_cannot_place() {
    let rig = Rig::new(1);
    let (x, table) = (rig.put(&[1f32; 64]), rig.put(&[1f32; 8]));
    let call = |positions, T, D| unsafe {
        nc_qk_rope_norm_fwd(rig.ctx(), x, null_mut(), x, table, table, positions, 1, T, 1, D, 4, EPS, 1.0, DTYPE_F32)
    };
    assert!(rig.fails(call(null_mut(), 5, 4), STATUS_INVALID).contains("4 positions, expected at least 5"));
    assert!(rig.fails(call(null_mut(), 2, 3), STATUS_INVALID).contains("D is 3, expected an even size"));
    let message = rig.fails(call(rig.put(&[-1i32]), 1, 4), STATUS_PANIC);
    assert!(message.contains("row 0 is at position -1, expected 0 to 4"), "{message}");
}
