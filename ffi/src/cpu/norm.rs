//! The gradient's norm and what follows from it: sum of squares, clip factor, and the search for the first NaN or infinity.
//!
//! torch.nn.utils.clip_grad_norm_: scale = min(1, maxNorm / (norm + 1e-6)), norm over all parameters together.

use crate::Context;
use crate::cpu::convert::f32_from_bf16;
use crate::cpu::isa::by_isa;
use crate::cpu::optimizer::{CHUNK, Floats, floats, len};
use crate::guard::entry;
use rayon::prelude::*;
use std::ffi::c_void;

by_isa! {
    fn squares(x: &[f32]) -> f64 {
        const LANES: usize = 32;
        let mut sums = [0f64; LANES];
        let (blocks, rest) = x.as_chunks::<LANES>();
        for block in blocks {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}

/// Sums halves that are cut at multiples of CHUNK: the tree depends on the length alone, not on the threads.
fn sum_squares(x: &[f32]) -> f64 {
    if x.len() <= CHUNK {
        return squares(x);
    }
    let (left, right) = x.split_at((x.len().div_ceil(CHUNK) / 2) * CHUNK);
    let (left, right) = rayon::join(|| sum_squares(left), || sum_squares(right));
    left + right
}

by_isa! {
    fn any_non_finite(x: &[f32]) -> bool {
        x.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest)) >= 0x7f80_0000
    }
}

by_isa! {
    /// As `any_non_finite`, for bf16.
    fn any_non_finite_bf16(x: &[u16]) -> bool {
        x.iter().fold(0, |largest, x| (x & 0x7fff).max(largest)) >= 0x7f80
    }
}

/// Index of the first element for which `bad` holds; `any_bad` tells whether a chunk has one.
fn first_bad<T: Sync>(x: &[T], any_bad: impl Fn(&[T]) -> bool + Sync, bad: impl Fn(&T) -> bool + Sync) -> i64 {
    x.par_chunks(CHUNK)
        .enumerate()
        .find_first(|(_, chunk)| any_bad(chunk))
        .and_then(|(i, chunk)| Some(i * CHUNK + chunk.iter().position(bad)?))
        .map_or(-1, |i| i as i64)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_sum_squares(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    accumulate: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let (y, x) = (cx.memory::<f64>(y, 1, "y")?, cx.memory::<f32>(x, len(n)?, "x")?);
            cx.enqueue("nc_sum_squares", move || {
                let before = if accumulate != 0 { y.get()[0] } else { 0.0 };
                y.get_mut()[0] = before + sum_squares(x.get());
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_clip_scale(
    ctx: *mut Context,
    y: *mut c_void,
    sum: *mut c_void,
    max_norm: *mut c_void,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let y = cx.memory::<f32>(y, 2, "y")?;
            let (sum, max_norm) = (cx.memory::<f64>(sum, 1, "sum")?, cx.memory::<f32>(max_norm, 1, "maxNorm")?);
            cx.enqueue("nc_clip_scale", move || {
                let (norm, limit) = (sum.get()[0].sqrt(), f64::from(max_norm.get()[0]));
                let scale = if !norm.is_finite() {
                    f64::NAN
                } else if limit <= 0.0 {
                    1.0
                } else {
                    (limit / (norm + 1e-6)).min(1.0)
                };
                y.get_mut().copy_from_slice(&[scale as f32, norm as f32]);
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_first_non_finite(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let (y, x) = (cx.memory::<i64>(y, 1, "y")?, floats(cx, x, len(n)?, dtype, "x")?);
            cx.enqueue("nc_first_non_finite", move || {
                y.get_mut()[0] = match x {
                    Floats::F32(x) => first_bad(x.get(), any_non_finite, |x| !x.is_finite()),
                    Floats::Bf16(x) => first_bad(x.get(), any_non_finite_bf16, |&x| !f32_from_bf16(x).is_finite()),
                };
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{DTYPE_BF16, DTYPE_F32};
    use crate::cpu::testing::{Rig, random, to_bf16};

    fn norm2(threads: usize, x: &[f32], before: f64, accumulate: i32) -> f64 {
        let rig = Rig::new(threads);
        let (y, pointer) = (rig.put(&[before]), rig.put(x));
        // SAFETY: a live context and its memory.
        rig.ok(unsafe { nc_sum_squares(rig.ctx(), y, pointer, x.len() as i64, accumulate) });
        rig.get::<f64>(y, 1)[0]
    }

    #[test]
    fn nc_sum_squares_matches_the_loop() {
        for n in [0, 1, 31, CHUNK, 5 * CHUNK + 13] {
            let x = random(n, 0, 3.0);
            let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let actual = norm2(2, &x, 7.0, 0);
            assert!((actual - expected).abs() <= 1e-12 * expected, "{n}: {actual} {expected}");
            assert_eq!(norm2(1, &x, 7.0, 1), 7.0 + actual);
            assert_eq!(norm2(3, &x, 0.0, 0), actual);
        }
    }

    fn clip(sum: f64, limit: f32) -> (f32, f32) {
        let rig = Rig::new(1);
        let (y, sum, limit) = (rig.put(&[0f32; 2]), rig.put(&[sum]), rig.put(&[limit]));
        // SAFETY: a live context and its memory.
        rig.ok(unsafe { nc_clip_scale(rig.ctx(), y, sum, limit) });
        let y = rig.get::<f32>(y, 2);
        (y[0], y[1])
    }

    #[test]
    fn nc_clip_scale_follows_the_norm() {
        assert_eq!(clip(16.0, 1.0), ((1.0 / (4.0 + 1e-6)) as f32, 4.0));
        assert_eq!(clip(0.25, 1.0), (1.0, 0.5));
        assert_eq!(clip(16.0, 0.0), (1.0, 4.0));
        for sum in [f64::NAN, f64::INFINITY] {
            assert!(clip(sum, 1.0).0.is_nan() && clip(sum, 0.0).0.is_nan());
        }
    }

    #[test]
    fn nc_first_non_finite_finds_the_first_one() {
        let n = 4 * CHUNK + 5;
        for at in [vec![], vec![0], vec![n - 1], vec![CHUNK + 3, 3 * CHUNK], vec![2 * CHUNK, 2 * CHUNK + 1]] {
            let mut x = random(n, 1, 1e30);
            at.iter().enumerate().for_each(|(i, &at)| x[at] = if i == 0 { f32::NEG_INFINITY } else { f32::NAN });
            let expected = at.first().map_or(-1, |&i| i as i64);
            let rig = Rig::new(3);
            let (y, wide, half) = (rig.put(&[0i64]), rig.put(&x), rig.put(&to_bf16(&x)));
            for (x, dtype) in [(wide, DTYPE_F32), (half, DTYPE_BF16)] {
                // SAFETY: a live context and its memory.
                rig.ok(unsafe { nc_first_non_finite(rig.ctx(), y, x, n as i64, dtype) });
                assert_eq!(rig.get::<i64>(y, 1), [expected]);
            }
        }
    }
}
