//! Rotary position embedding followed by RMS normalisation of each head: what queries and keys go through in one pass.
//!
//!   fwd: r1 = x1 cos + x2 sin, r2 = x2 cos - x1 sin (halves of D; rotation by minus theta), rstd = 1 / sqrt(mean(r^2) + eps),
//!        y = scale r rstd
//!   bwd: xhat = y / scale, dr = scale rstd (dy - xhat mean(dy xhat)), dx1 = dr1 cos - dr2 sin, dx2 = dr1 sin + dr2 cos
//!
//! Token t of row b sits at position (positions ? positions[b] : 0) + t. Positions beyond the table take its last row: only padding
//! behind the valid tokens of a chunk can lie there. RoPE: arXiv 2104.09864; order and sign: nanochat/gpt.py.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::{fail, row_pieces};
use crate::cpu::rmsnorm::dot;
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// Loads N or, at the end of a half, `rest` elements.
///
/// # Safety
/// p is valid for min(N, rest) elements.
#[inline(always)]
unsafe fn load<V: Lanes, E: Element>(p: *const E, rest: usize) -> V {
    // SAFETY: as promised.
    unsafe { if rest >= V::N { E::load(p) } else { E::load_part(p, rest) } }
}

/// # Safety
/// As `load`.
#[inline(always)]
unsafe fn store<V: Lanes, E: Element>(v: V, p: *mut E, rest: usize) {
    // SAFETY: as promised.
    unsafe { if rest >= V::N { E::store(v, p) } else { E::store_part(v, p, rest) } }
}

/// Both halves of a head, rotated, at i.
///
/// # Safety
/// x has 2 * half elements, cos and sin have `half`.
#[inline(always)]
unsafe fn rotate<V: Lanes, E: Element>(x: *const E, cos: *const f32, sin: *const f32, half: usize, i: usize) -> (V, V) {
    let rest = half - i;
    // SAFETY: as promised.
    unsafe {
        let (x1, x2): (V, V) = (load(x.add(i), rest), load(x.add(half + i), rest));
        let (c, s): (V, V) = (load(cos.add(i), rest), load(sin.add(i), rest));
        (x1.mul(c).fma(x2, s), x2.mul(c).sub(x1.mul(s)))
    }
}

/// The H heads of one token, forward; `rstd` may be null; y may alias x.
struct Forward<E> {
    y: *mut E,
    rstd: *mut f32,
    x: *const E,
    cos: *const f32,
    sin: *const f32,
    H: usize,
    D: usize,
    eps: f32,
    scale: f32,
}

impl<E: Element> Kernel for Forward<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Forward { y, rstd, x, cos, sin, H, D, eps, scale } = self;
        let half = D / 2;
        for h in 0..H {
            // SAFETY: H heads of D elements in x and y, D / 2 in cos and sin, H in rstd.
            unsafe {
                let (y, x) = (y.add(h * D), x.add(h * D));
                let mut squares = (V::splat(0.0), V::splat(0.0));
                for i in (0..half).step_by(V::N) {
                    let (r1, r2) = rotate::<V, E>(x, cos, sin, half, i);
                    squares = (squares.0.fma(r1, r1), squares.1.fma(r2, r2));
                }
                let r = 1.0 / (squares.0.add(squares.1).sum() / D as f32 + eps).sqrt();
                if !rstd.is_null() {
                    rstd.add(h).write(r);
                }
                let factor = V::splat(scale * r);
                for i in (0..half).step_by(V::N) {
                    // Rotated again: from L1 that is cheaper than to keep it.
                    let (r1, r2) = rotate::<V, E>(x, cos, sin, half, i);
                    store(r1.mul(factor), y.add(i), half - i);
                    store(r2.mul(factor), y.add(half + i), half - i);
                }
            }
        }
    }
}

/// The H heads of one token, backward; dx may alias dy.
struct Backward<E> {
    dx: *mut E,
    dy: *const E,
    y: *const E,
    rstd: *const f32,
    cos: *const f32,
    sin: *const f32,
    H: usize,
    D: usize,
    scale: f32,
    accumulate: bool,
}

impl<E: Element> Kernel for Backward<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Backward { dx, dy, y, rstd, cos, sin, H, D, scale, accumulate } = self;
        let half = D / 2;
        for h in 0..H {
            // SAFETY: H heads of D elements in dx, dy and y, D / 2 in cos and sin, H in rstd.
            unsafe {
                let (dx, dy, y) = (dx.add(h * D), dy.add(h * D), y.add(h * D));
                let r = *rstd.add(h);
                // dr = dy a + y k, a = scale rstd, k = -rstd mean(dy y) / scale
                let k = V::splat(-r * (dot::<V, E, E>(dy, y, D) / D as f32) / scale);
                let a = V::splat(scale * r);
                for i in (0..half).step_by(V::N) {
                    let rest = half - i;
                    let dr1 = load::<V, E>(y.add(i), rest).mul(k).fma(load(dy.add(i), rest), a);
                    let dr2 = load::<V, E>(y.add(half + i), rest).mul(k).fma(load(dy.add(half + i), rest), a);
                    let (c, s): (V, V) = (load(cos.add(i), rest), load(sin.add(i), rest));
                    let (mut dx1, mut dx2) = (dr1.mul(c).sub(dr2.mul(s)), dr1.mul(s).fma(dr2, c));
                    if accumulate {
                        dx1 = dx1.add(load(dx.add(i), rest));
                        dx2 = dx2.add(load(dx.add(half + i), rest));
                    }
                    store(dx1, dx.add(i), rest);
                    store(dx2, dx.add(half + i), rest);
                }
            }
        }
    }
}

/// Where a token's cosines and sines are.
#[derive(Clone, Copy)]
struct Table {
    cos: Memory<f32>,
    sin: Memory<f32>,
    positions: Option<Memory<i32>>,
    T: usize,
    half: usize,
    length: usize,
}

impl Table {
    fn new(
        cx: &Context,
        (cos, sin, positions): (*mut c_void, *mut c_void, *mut c_void),
        [B, T, D, length]: [i32; 4],
    ) -> Result<Self> {
        if D % 2 != 0 {
            return Err(Error::invalid(format!("Cannot rotate heads: D is {D}, expected an even size")));
        }
        let n = count(&[length, D / 2])?;
        let positions: Option<Memory<i32>> = cx.optional(positions, count(&[B])?, "positions")?;
        if positions.is_none() && T > length || length == 0 && B > 0 && T > 0 {
            return Err(Error::invalid(format!(
                "Cannot rotate heads: the table has {length} positions, expected at least {T}"
            )));
        }
        let (cos, sin) = (cx.memory(cos, n, "cos")?, cx.memory(sin, n, "sin")?);
        Ok(Table { cos, sin, positions, T: T as usize, half: D as usize / 2, length: length as usize })
    }

    /// Fails the queue unless every row starts inside the table (or right behind it, where a full row sits idle).
    fn check(&self) {
        for (b, &position) in self.positions.iter().flat_map(|positions| positions.get()).enumerate() {
            if position < 0 || position as usize > self.length {
                let limit = self.length;
                fail(format!("Cannot rotate heads: row {b} is at position {position}, expected 0 to {limit}"));
            }
        }
    }

    /// Cosines and sines of token `i` of B*T.
    fn at(&self, i: usize) -> (*const f32, *const f32) {
        let first = self.positions.map_or(0, |positions| positions.get()[i / self.T] as usize);
        let offset = (first + i % self.T).min(self.length - 1) * self.half;
        (self.cos.get()[offset..].as_ptr(), self.sin.get()[offset..].as_ptr())
    }
}

fn forward<E: Element>(
    cx: &Context,
    (y, rstd, x): (*mut c_void, *mut c_void, *mut c_void),
    tables: (*mut c_void, *mut c_void, *mut c_void),
    [B, T, H, D, length]: [i32; 5],
    (eps, scale): (f32, f32),
) -> Result<()> {
    let n = count(&[B, T, H, D])?;
    let (y, x): (Memory<E>, Memory<E>) = (cx.memory(y, n, "y")?, cx.memory(x, n, "x")?);
    let rstd: Option<Memory<f32>> = cx.optional(rstd, count(&[B, T, H])?, "rstd")?;
    let table = Table::new(cx, tables, [B, T, D, length])?;
    let (tokens, H, D) = (count(&[B, T])?, H as usize, D as usize);
    cx.enqueue("nc_qk_rope_norm_fwd", move || {
        table.check();
        row_pieces(tokens, H * D, |begin, end| {
            for i in begin..end {
                let (cos, sin) = table.at(i);
                // SAFETY: token i exists in each operand and belongs to this piece.
                unsafe {
                    let rstd = rstd.map_or(std::ptr::null_mut(), |rstd| rstd.as_ptr().add(i * H));
                    let (y, x) = (y.as_ptr().add(i * H * D), x.as_ptr().add(i * H * D));
                    dispatch(Forward { y, rstd, x, cos, sin, H, D, eps, scale });
                }
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_qk_rope_norm_fwd(
    ctx: *mut Context,
    y: *mut c_void,
    rstd: *mut c_void,
    x: *mut c_void,
    cos: *mut c_void,
    sin: *mut c_void,
    positions: *mut c_void,
    B: i32,
    T: i32,
    H: i32,
    D: i32,
    tableLength: i32,
    eps: f32,
    scale: f32,
    dtype: i32,
) -> i32 {
    let (operands, tables, sizes) = ((y, rstd, x), (cos, sin, positions), [B, T, H, D, tableLength]);
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => forward::<f32>(cx, operands, tables, sizes, (eps, scale)),
            DTYPE_BF16 => forward::<u16>(cx, operands, tables, sizes, (eps, scale)),
            _ => float_only("rotate heads", dtype),
        })
    }
}

fn backward<E: Element>(
    cx: &Context,
    (dx, dy, y, rstd): (*mut c_void, *mut c_void, *mut c_void, *mut c_void),
    tables: (*mut c_void, *mut c_void, *mut c_void),
    [B, T, H, D, length]: [i32; 5],
    (scale, accumulate): (f32, bool),
) -> Result<()> {
    if scale == 0.0 {
        return Err(Error::invalid("Cannot differentiate the rotation of heads: scale 0, expected another value"));
    }
    let n = count(&[B, T, H, D])?;
    let dx: Memory<E> = cx.memory(dx, n, "dx")?;
    let (dy, y): (Memory<E>, Memory<E>) = (cx.memory(dy, n, "dy")?, cx.memory(y, n, "y")?);
    let rstd: Memory<f32> = cx.memory(rstd, count(&[B, T, H])?, "rstd")?;
    let table = Table::new(cx, tables, [B, T, D, length])?;
    let (tokens, H, D) = (count(&[B, T])?, H as usize, D as usize);
    cx.enqueue("nc_qk_rope_norm_bwd", move || {
        table.check();
        row_pieces(tokens, H * D, |begin, end| {
            for i in begin..end {
                let (cos, sin) = table.at(i);
                let at = i * H * D;
                // SAFETY: token i exists in each operand and belongs to this piece.
                unsafe {
                    let (dx, dy, y) = (dx.as_ptr().add(at), dy.as_ptr().add(at), y.as_ptr().add(at));
                    let rstd = rstd.as_ptr().add(i * H);
                    dispatch(Backward { dx, dy, y, rstd, cos, sin, H, D, scale, accumulate });
                }
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_qk_rope_norm_bwd(
    ctx: *mut Context,
    dx: *mut c_void,
    dy: *mut c_void,
    y: *mut c_void,
    rstd: *mut c_void,
    cos: *mut c_void,
    sin: *mut c_void,
    positions: *mut c_void,
    B: i32,
    T: i32,
    H: i32,
    D: i32,
    tableLength: i32,
    scale: f32,
    accumulate: i32,
    dtype: i32,
) -> i32 {
    let (operands, tables, sizes) = ((dx, dy, y, rstd), (cos, sin, positions), [B, T, H, D, tableLength]);
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => backward::<f32>(cx, operands, tables, sizes, (scale, accumulate != 0)),
            DTYPE_BF16 => backward::<u16>(cx, operands, tables, sizes, (scale, accumulate != 0)),
            _ => float_only("differentiate the rotation of heads", dtype),
        })
    }
}

#[cfg(test)]
#[path = "qk_rope_norm_tests.rs"]
mod tests;
