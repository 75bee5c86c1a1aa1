//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! Every number is a function of (seed, counter) alone, so the same seed gives the same bits for any number of threads and any split.
//! The third counter word names the stream, so that the users of one seed never share a block:
//! 0 = sampling (draw, sample), 1 = nc_normal and 2 = nc_uniform (element number lo, hi).

use crate::Context;
use crate::cpu::isa::by_isa;
use crate::cpu::math::{cos_turn, ln};
use crate::guard::{Error, Result, entry};
use crate::memory::Memory;
use rayon::prelude::*;
use std::ffi::c_void;

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;
const STREAM_NORMAL: u32 = 1;
const STREAM_UNIFORM: u32 = 2;
/// Elements that one thread takes at a time.
const CHUNK: usize = 16 << 10;

/// The four random words of a counter under a key.
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (p, q) = (u64::from(MULTIPLIERS[0]) * u64::from(x0), u64::from(MULTIPLIERS[1]) * u64::from(x2));
        (x0, x1, x2, x3) = ((q >> 32) as u32 ^ x1 ^ k0, q as u32, (p >> 32) as u32 ^ x3 ^ k1, p as u32);
        (k0, k1) = (k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1]));
    }
    [x0, x1, x2, x3]
}

/// The uniform number in [0, 1) of draw `draw` of sample `sample` under a seed.
pub fn uniform(seed: u64, draw: u32, sample: u32) -> f32 {
    unit(philox4x32([draw, sample, 0, 0], words(seed))[0])
}

#[inline(always)]
fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The upper 24 bits as a multiple of 2^-24 in [0, 1).
#[inline(always)]
fn unit(x: u32) -> f32 {
    (x >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[inline(always)]
fn block(seed: u64, index: u64, stream: u32) -> [u32; 4] {
    let [lo, hi] = words(index);
    philox4x32([lo, hi, stream, 0], words(seed))
}

/// Box-Muller: sqrt(-2 ln u) cos(2 pi v), u in (0, 1], v in [0, 1).
#[inline(always)]
fn normal(seed: u64, index: u64) -> f32 {
    let [x0, x1, ..] = block(seed, index, STREAM_NORMAL);
    let u = x0 as f32 * (1.0 / 4_294_967_296.0) + 1.0 / 8_589_934_592.0;
    (-2.0 * ln(u)).max(0.0).sqrt() * cos_turn(unit(x1))
}

by_isa! {
    fn normals(y: &mut [f32], seed: u64, first: u64, mean: f32, std: f32) {
        for (i, y) in y.iter_mut().enumerate() {
            *y = mean + std * normal(seed, first.wrapping_add(i as u64));
        }
    }
}

by_isa! {
    fn uniforms(y: &mut [f32], seed: u64, first: u64, low: f32, high: f32) {
        for (i, y) in y.iter_mut().enumerate() {
            let [x0, ..] = block(seed, first.wrapping_add(i as u64), STREAM_UNIFORM);
            *y = low + (high - low) * unit(x0);
        }
    }
}

/// Checks the output and enqueues `fill(chunk, number of its first element)` over it.
fn enqueue_fill(
    cx: &Context,
    name: &'static str,
    y: *mut c_void,
    n: i64,
    fill: impl Fn(&mut [f32], u64) + Send + Sync + 'static,
) -> Result<()> {
    let n = usize::try_from(n).map_err(|_| Error::invalid(format!("Cannot draw {n} numbers, expected at least 0")))?;
    let y: Memory<f32> = cx.memory(y, n, "y")?;
    cx.enqueue(name, move || {
        y.get_mut().par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| fill(y, (i * CHUNK) as u64));
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_normal(
    ctx: *mut Context,
    y: *mut c_void,
    n: i64,
    seed: u64,
    offset: u64,
    mean: f32,
    std: f32,
) -> i32 {
    let fill = move |y: &mut [f32], first: u64| normals(y, seed, offset.wrapping_add(first), mean, std);
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| enqueue_fill(cx, "nc_normal", y, n, fill)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_uniform(
    ctx: *mut Context,
    y: *mut c_void,
    n: i64,
    seed: u64,
    offset: u64,
    low: f32,
    high: f32,
) -> i32 {
    let fill = move |y: &mut [f32], first: u64| uniforms(y, seed, offset.wrapping_add(first), low, high);
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| enqueue_fill(cx, "nc_uniform", y, n, fill)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the authors' Random123 library, kat_vectors: philox4x32 10.
    #[test]
    fn philox4x32_matches_the_known_answers() {
        let all = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([all; 4], [all; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected, "{counter:x?}");
        }
        assert_eq!(uniform(0, 0, 0), (0x6627_e8d5u32 >> 8) as f32 / 16_777_216.0);
    }

    fn draw(threads: usize, n: usize, offset: u64, kind: usize) -> Vec<f32> {
        let cx = Context::new(threads).unwrap();
        let y = cx.alloc(n as i64 * 4).unwrap();
        let ctx = std::ptr::from_ref(&cx).cast_mut();
        // SAFETY: a live context and its memory.
        let status = unsafe {
            if kind == 0 {
                nc_normal(ctx, y, n as i64, 42, offset, 1.0, 2.0)
            } else {
                nc_uniform(ctx, y, n as i64, 42, offset, -3.0, 5.0)
            }
        };
        assert_eq!(status, 0, "{}", cx.error());
        cx.wait().unwrap();
        cx.memory::<f32>(y, n, "y").unwrap().get().to_vec()
    }

    #[test]
    fn streams_have_the_same_bits_for_any_threads_and_splits() {
        for kind in [0, 1] {
            let whole = draw(1, 40_000, (1 << 32) - 5, kind);
            assert_eq!(whole, draw(3, 40_000, (1 << 32) - 5, kind));
            assert_eq!(whole[1_003..2_010], draw(2, 1_007, (1 << 32) + 998, kind)[..]);
        }
    }

    #[test]
    fn nc_normal_matches_the_double_precision_formula() {
        let (y, seed) = (draw(2, 10_000, 0, 0), 42);
        for (i, &y) in y.iter().enumerate() {
            let [x0, x1, ..] = block(seed, i as u64, STREAM_NORMAL);
            let u = (f64::from(x0) + 0.5) / 4_294_967_296.0;
            let v = f64::from(x1 >> 8) / 16_777_216.0;
            let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            assert!((f64::from(y) - (1.0 + 2.0 * z)).abs() < 4e-6, "{i}: {y} {z}");
        }
    }

    /// Moments against their standard errors (5 sigma).
    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let n = 1 << 20;
        let moments = |y: &[f32]| {
            let mean = y.iter().map(|&y| f64::from(y)).sum::<f64>() / n as f64;
            (mean, y.iter().map(|&y| (f64::from(y) - mean).powi(2)).sum::<f64>() / n as f64)
        };
        let (mean, variance) = moments(&draw(2, n, 0, 0));
        assert!((mean - 1.0).abs() < 5.0 * 2.0 / 1024.0, "{mean}");
        assert!((variance - 4.0).abs() < 5.0 * 4.0 * 2f64.sqrt() / 1024.0, "{variance}");
        let y = draw(2, n, 0, 1);
        let (mean, variance) = moments(&y);
        assert!(y.iter().all(|y| (-3.0..5.0).contains(y)));
        assert!((mean - 1.0).abs() < 5.0 * (64f64 / 12.0).sqrt() / 1024.0, "{mean}");
        assert!((variance / (64.0 / 12.0) - 1.0).abs() < 0.01, "{variance}");
    }

    #[test]
    fn nc_normal_names_a_wrong_size() {
        let cx = Context::new(1).unwrap();
        // SAFETY: a live context; the null output is what is tested.
        let status = unsafe { nc_normal(std::ptr::from_ref(&cx).cast_mut(), std::ptr::null_mut(), 4, 0, 0, 0.0, 1.0) };
        assert_ne!(status, 0);
        assert!(cx.error().starts_with("Cannot use y: 4 elements"), "{}", cx.error());
    }
}
