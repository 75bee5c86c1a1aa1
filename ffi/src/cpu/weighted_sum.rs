//! y[0] (+)= sum over i of w[i] x[i], f32 in, f64 inside, in a fixed order: sixteen interleaved sums, then those in order.

use crate::Context;
use crate::guard::{Error, Result, entry};
use crate::memory::Memory;
use std::ffi::c_void;

const SUMS: usize = 16;

fn weighted_sum(x: &[f32], w: Option<&[f32]>) -> f64 {
    let mut sums = [0.0f64; SUMS];
    match w {
        Some(w) => {
            for (x, w) in x.chunks(SUMS).zip(w.chunks(SUMS)) {
                for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                    *sum += f64::from(x) * f64::from(w);
                }
            }
        }
        None => {
            for x in x.chunks(SUMS) {
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum += f64::from(x);
                }
            }
        }
    }
    sums.iter().sum()
}

fn enqueue(cx: &Context, (y, x, w): (*mut c_void, *mut c_void, *mut c_void), n: i64, accumulate: bool) -> Result<()> {
    let n = usize::try_from(n).map_err(|_| Error::invalid(format!("Cannot sum {n} elements, expected at least 0")))?;
    let y: Memory<f32> = cx.memory(y, 1, "y")?;
    let x: Memory<f32> = cx.memory(x, n, "x")?;
    let w: Option<Memory<f32>> = cx.optional(w, n, "w")?;
    cx.enqueue("nc_weighted_sum", move || {
        let sum = weighted_sum(x.get(), w.as_ref().map(|w| w.get()));
        let y = &mut y.get_mut()[0];
        *y = if accumulate { (f64::from(*y) + sum) as f32 } else { sum as f32 };
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_weighted_sum(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    w: *mut c_void,
    n: i64,
    accumulate: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| enqueue(cx, (y, x, w), n, accumulate != 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Rig, elements};
    use std::ptr::null_mut;

    #[test]
    fn weighted_sum_matches_the_loop() {
        for n in [0usize, 1, 16, 1003] {
            let rig = Rig::new(1);
            let (x, w) = (elements::<f32>(n, 1), elements::<f32>(n, 2));
            let y = rig.put(&[0.5f32, 7.0]);
            let (px, pw) = (rig.put(&x), rig.put(&w));
            let expected: f64 = x.iter().zip(&w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            unsafe { rig.ok(nc_weighted_sum(rig.ctx(), y, px, pw, n as i64, 1)) };
            assert!((f64::from(rig.get::<f32>(y, 1)[0]) - expected - 0.5).abs() < 1e-5);
            unsafe { rig.ok(nc_weighted_sum(rig.ctx(), y, px, null_mut(), n as i64, 0)) };
            let expected: f64 = x.iter().map(|&x| f64::from(x)).sum();
            assert!((f64::from(rig.get::<f32>(y, 1)[0]) - expected).abs() < 1e-5);
        }
    }
}
