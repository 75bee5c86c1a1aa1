//! RMS normalisation without gain, arXiv 1910.07467; nanochat/gpt.py `norm`.
//!
//!   fwd: rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd, mean over the C elements of a row
//!   bwd: dx (+)= rstd (dy - xhat mean(dy xhat)), xhat = x rstd; dx may alias dy

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::row_pieces;
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// Sum over i of a[i] b[i], in four independent vector sums.
///
/// # Safety
/// a and b are valid for n elements.
#[inline(always)]
pub unsafe fn dot<V: Lanes, A: Element, B: Element>(a: *const A, b: *const B, n: usize) -> f32 {
    // SAFETY: every load lies inside the n elements.
    unsafe {
        let mut sums = [V::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * V::N <= n {
            for (j, sum) in sums.iter_mut().enumerate() {
                let at = i + j * V::N;
                *sum = sum.fma(A::load(a.add(at)), B::load(b.add(at)));
            }
            i += 4 * V::N;
        }
        while i + V::N <= n {
            sums[0] = sums[0].fma(A::load(a.add(i)), B::load(b.add(i)));
            i += V::N;
        }
        if i < n {
            sums[1] = sums[1].fma(A::load_part(a.add(i), n - i), B::load_part(b.add(i), n - i));
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

/// Rows of the forward pass; `rstd` may be null.
struct Forward<E> {
    y: *mut E,
    rstd: *mut f32,
    x: *const E,
    rows: usize,
    C: usize,
    eps: f32,
}

impl<E: Element> Kernel for Forward<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Forward { y, rstd, x, rows, C, eps } = self;
        let whole = C - C % V::N;
        for r in 0..rows {
            // SAFETY: r * C + C elements exist in x and y, `rows` in rstd.
            unsafe {
                let (y, x) = (y.add(r * C), x.add(r * C));
                let scale = 1.0 / (dot::<V, E, E>(x, x, C) / C as f32 + eps).sqrt();
                if !rstd.is_null() {
                    rstd.add(r).write(scale);
                }
                let scale = V::splat(scale);
                for i in (0..whole).step_by(V::N) {
                    E::store(E::load::<V>(x.add(i)).mul(scale), y.add(i));
                }
                if whole < C {
                    let rest = C - whole;
                    E::store_part(E::load_part::<V>(x.add(whole), rest).mul(scale), y.add(whole), rest);
                }
            }
        }
    }
}

/// Rows of the backward pass.
struct Backward<E> {
    dx: *mut E,
    dy: *const E,
    x: *const E,
    rstd: *const f32,
    rows: usize,
    C: usize,
    accumulate: bool,
}

impl<E: Element> Kernel for Backward<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Backward { dx, dy, x, rstd, rows, C, accumulate } = self;
        let whole = C - C % V::N;
        for r in 0..rows {
            // SAFETY: r * C + C elements exist in each operand, `rows` in rstd.
            unsafe {
                let (dx, dy, x) = (dx.add(r * C), dy.add(r * C), x.add(r * C));
                let s = *rstd.add(r);
                // dx = dy s + x k, k = -s^3 mean(dy x)
                let k = V::splat(-s * s * s * (dot::<V, E, E>(dy, x, C) / C as f32));
                let s = V::splat(s);
                for i in (0..whole).step_by(V::N) {
                    let mut g = E::load::<V>(x.add(i)).mul(k).fma(E::load(dy.add(i)), s);
                    if accumulate {
                        g = g.add(E::load(dx.add(i)));
                    }
                    E::store(g, dx.add(i));
                }
                if whole < C {
                    let rest = C - whole;
                    let mut g = E::load_part::<V>(x.add(whole), rest).mul(k).fma(E::load_part(dy.add(whole), rest), s);
                    if accumulate {
                        g = g.add(E::load_part(dx.add(whole), rest));
                    }
                    E::store_part(g, dx.add(whole), rest);
                }
            }
        }
    }
}

fn forward<E: Element>(
    cx: &Context,
    (y, rstd, x): (*mut c_void, *mut c_void, *mut c_void),
    (rows, C): (i32, i32),
    eps: f32,
) -> Result<()> {
    let n = count(&[rows, C])?;
    let (y, x): (Memory<E>, Memory<E>) = (cx.memory(y, n, "y")?, cx.memory(x, n, "x")?);
    let (rows, C) = (rows as usize, C as usize);
    let rstd: Option<Memory<f32>> = cx.optional(rstd, rows, "rstd")?;
    cx.enqueue("nc_rmsnorm_fwd", move || {
        row_pieces(rows, C, |begin, end| {
            // SAFETY: rows begin..end exist in each operand and belong to this piece.
            unsafe {
                let rstd = rstd.map_or(std::ptr::null_mut(), |rstd| rstd.as_ptr().add(begin));
                let (y, x) = (y.as_ptr().add(begin * C), x.as_ptr().add(begin * C));
                dispatch(Forward { y, rstd, x, rows: end - begin, C, eps });
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_rmsnorm_fwd(
    ctx: *mut Context,
    y: *mut c_void,
    rstd: *mut c_void,
    x: *mut c_void,
    rows: i32,
    C: i32,
    eps: f32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => forward::<f32>(cx, (y, rstd, x), (rows, C), eps),
            DTYPE_BF16 => forward::<u16>(cx, (y, rstd, x), (rows, C), eps),
            _ => float_only("apply rmsnorm", dtype),
        })
    }
}

fn backward<E: Element>(
    cx: &Context,
    (dx, dy, x, rstd): (*mut c_void, *mut c_void, *mut c_void, *mut c_void),
    (rows, C): (i32, i32),
    accumulate: bool,
) -> Result<()> {
    let n = count(&[rows, C])?;
    let dx: Memory<E> = cx.memory(dx, n, "dx")?;
    let (dy, x): (Memory<E>, Memory<E>) = (cx.memory(dy, n, "dy")?, cx.memory(x, n, "x")?);
    let (rows, C) = (rows as usize, C as usize);
    let rstd: Memory<f32> = cx.memory(rstd, rows, "rstd")?;
    cx.enqueue("nc_rmsnorm_bwd", move || {
        row_pieces(rows, C, |begin, end| {
            // SAFETY: rows begin..end exist in each operand and belong to this piece.
            unsafe {
                let (dx, dy, x) = (dx.as_ptr().add(begin * C), dy.as_ptr().add(begin * C), x.as_ptr().add(begin * C));
                dispatch(Backward { dx, dy, x, rstd: rstd.as_ptr().add(begin), rows: end - begin, C, accumulate });
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_rmsnorm_bwd(
    ctx: *mut Context,
    dx: *mut c_void,
    dy: *mut c_void,
    x: *mut c_void,
    rstd: *mut c_void,
    rows: i32,
    C: i32,
    accumulate: i32,
    dtype: i32,
) -> i32 {
    let operands = (dx, dy, x, rstd);
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => backward::<f32>(cx, operands, (rows, C), accumulate != 0),
            DTYPE_BF16 => backward::<u16>(cx, operands, (rows, C), accumulate != 0),
            _ => float_only("differentiate rmsnorm", dtype),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Rig, close, close_at, elements, same_on_any_pool, widen};
    use std::ptr::null_mut;

    const EPS: f32 = f32::EPSILON;

    fn plain_forward(x: &[f64], C: usize) -> (Vec<f64>, Vec<f64>) {
        let rstd: Vec<f64> = x
            .chunks(C)
            .map(|x| 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / C as f64 + f64::from(EPS)).sqrt())
            .collect();
        (x.iter().enumerate().map(|(i, x)| x * rstd[i / C]).collect(), rstd)
    }

    /// Gradient of sum(dy * y) by central differences.
    fn difference(x: &[f64], dy: &[f64], C: usize) -> Vec<f64> {
        let h = 1e-5;
        (0..x.len())
            .map(|i| {
                let row = i / C * C..i / C * C + C;
                let value = |delta: f64| {
                    let mut x = x[row.clone()].to_vec();
                    x[i - row.start] += delta;
                    plain_forward(&x, C).0.iter().zip(&dy[row.clone()]).map(|(y, dy)| y * dy).sum::<f64>()
                };
                (value(h) - value(-h)) / (2.0 * h)
            })
            .collect()
    }

    fn check<E: Element>(rows: usize, C: usize) {
        let rig = Rig::new(2);
        let dtype = if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 };
        let n = rows * C;
        let (x, dy, old) = (elements::<E>(n, 1), elements::<E>(n, 2), elements::<E>(n, 3));
        let (px, pdy) = (rig.put(&x), rig.put(&dy));
        let (y, rstd, dx, sum) = (rig.junk::<E>(n), rig.junk::<f32>(rows), rig.junk::<E>(n), rig.put(&old));
        unsafe {
            let (ctx, rows, C) = (rig.ctx(), rows as i32, C as i32);
            rig.ok(nc_rmsnorm_fwd(ctx, y, null_mut(), px, rows, C, EPS, dtype));
            rig.ok(nc_rmsnorm_fwd(ctx, y, rstd, px, rows, C, EPS, dtype));
            rig.ok(nc_rmsnorm_bwd(ctx, dx, pdy, px, rstd, rows, C, 0, dtype));
            rig.ok(nc_rmsnorm_bwd(ctx, sum, pdy, px, rstd, rows, C, 1, dtype));
        }
        let (x, dy, old) = (widen(&x), widen(&dy), widen(&old));
        let (expected, expected_rstd) = plain_forward(&x, C);
        close("y", &rig.get::<E>(y, n), &expected, C);
        close("rstd", &rig.get::<f32>(rstd, rows), &expected_rstd, C);
        let gradient = difference(&x, &dy, C);
        // dy rstd, of this size, cancels in dx.
        let largest = expected_rstd.iter().copied().fold(0.0, f64::max);
        close_at("dx", &rig.get::<E>(dx, n), &gradient, C, largest);
        let total: Vec<f64> = gradient.iter().zip(&old).map(|(g, old)| g + old).collect();
        close_at("dx sum", &rig.get::<E>(sum, n), &total, C, largest);
    }

    #[test]
    fn rmsnorm_matches_the_loop_and_finite_differences() {
        for (rows, C) in [(0, 8), (3, 1), (5, 30), (2, 64), (7, 129), (2, 200)] {
            check::<f32>(rows, C);
            check::<u16>(rows, C);
        }
    }

    #[test]
    fn rmsnorm_has_the_same_bits_on_any_pool() {
        same_on_any_pool(|rig| {
            let (rows, C) = (300, 130);
            let (x, y) = (rig.put(&elements::<f32>(rows * C, 1)), rig.junk::<f32>(rows * C));
            unsafe { rig.ok(nc_rmsnorm_fwd(rig.ctx(), y, null_mut(), x, rows as i32, C as i32, EPS, DTYPE_F32)) };
            rig.get::<u32>(y, rows * C)
        });
    }
}
