//! Loops over single elements: cast, add, ReLU squared and its gradient.
//!
//!   cast: y = x      add: y = a + b      relu2: y = max(h, 0)^2, dh (+)= 2 max(h, 0) dy
//!
//! Bytes moved bound all of them. A NaN stays a NaN. ReLU squared: Primer, arXiv 2109.08668; nanochat/gpt.py.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32, DTYPE_I32, DTYPE_U16};
use crate::cpu::pieces::{PIECE, piece_mut, pieces};
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Error, Result, entry};
use crate::memory::Memory;
use std::ffi::c_void;

/// Widens an element count.
fn length(n: i64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("Cannot use {n} elements, expected at least 0")))
}

/// The error of an op that computes in f32 and bf16 only.
pub fn float_only<T>(action: &str, dtype: i32) -> Result<T> {
    Err(Error::invalid(format!("Cannot {action}: dtype {dtype}, expected f32 or bf16")))
}

/// One formula over elements; operand `b` and the old output are read where it says so.
trait Formula: Copy + Send + Sync + 'static {
    const BINARY: bool;
    const READS_OUTPUT: bool;
    fn apply<V: Lanes>(old: V, a: V, b: V) -> V;
}

/// y[i] = formula(y[i], a[i], b[i]).
struct Map<F, Y, A> {
    y: *mut Y,
    a: *const A,
    b: *const A,
    n: usize,
    formula: std::marker::PhantomData<F>,
}

impl<F: Formula, Y: Element, A: Element> Kernel for Map<F, Y, A> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Map { y, a, b, n, .. } = self;
        let whole = n - n % V::N;
        // SAFETY: the pointers are valid for n elements.
        unsafe {
            for i in (0..whole).step_by(V::N) {
                let x: V = A::load(a.add(i));
                let z = if F::BINARY { A::load(b.add(i)) } else { x };
                let old = if F::READS_OUTPUT { Y::load(y.add(i)) } else { x };
                Y::store(F::apply(old, x, z), y.add(i));
            }
            if whole < n {
                let rest = n - whole;
                let x: V = A::load_part(a.add(whole), rest);
                let z = if F::BINARY { A::load_part(b.add(whole), rest) } else { x };
                let old = if F::READS_OUTPUT { Y::load_part(y.add(whole), rest) } else { x };
                Y::store_part(F::apply(old, x, z), y.add(whole), rest);
            }
        }
    }
}

/// Enqueues a formula over n elements; `b` null for unary ones.
fn map<F: Formula, Y: Element, A: Element>(
    cx: &Context,
    name: &'static str,
    (y, a, b): (*mut c_void, *mut c_void, *mut c_void),
    n: usize,
) -> Result<()> {
    let (y, a): (Memory<Y>, Memory<A>) = (cx.memory(y, n, "output")?, cx.memory(a, n, "input")?);
    let b: Memory<A> = if F::BINARY { cx.memory(b, n, "second input")? } else { a };
    cx.enqueue(name, move || {
        pieces(n, PIECE, |begin, end| {
            // SAFETY: begin..end lies inside the checked operands; pieces are disjoint.
            unsafe {
                let (y, a, b) = (y.as_ptr().add(begin), a.as_ptr().add(begin), b.as_ptr().add(begin));
                dispatch(Map::<F, Y, A> { y, a, b, n: end - begin, formula: std::marker::PhantomData });
            }
        });
    })
}

#[derive(Clone, Copy)]
struct Identity;
impl Formula for Identity {
    const BINARY: bool = false;
    const READS_OUTPUT: bool = false;
    #[inline(always)]
    fn apply<V: Lanes>(_: V, x: V, _: V) -> V {
        x
    }
}

#[derive(Clone, Copy)]
struct Sum;
impl Formula for Sum {
    const BINARY: bool = true;
    const READS_OUTPUT: bool = false;
    #[inline(always)]
    fn apply<V: Lanes>(_: V, a: V, b: V) -> V {
        a.add(b)
    }
}

/// max(h, 0); NaN stays NaN.
#[inline(always)]
fn relu<V: Lanes>(h: V) -> V {
    // SAFETY: h is a value of V. `max` gives its second operand where one is NaN.
    unsafe { V::splat(0.0) }.max(h)
}

#[derive(Clone, Copy)]
struct Relu2;
impl Formula for Relu2 {
    const BINARY: bool = false;
    const READS_OUTPUT: bool = false;
    #[inline(always)]
    fn apply<V: Lanes>(_: V, h: V, _: V) -> V {
        let r = relu(h);
        r.mul(r)
    }
}

#[derive(Clone, Copy)]
struct Relu2Gradient<const ACCUMULATE: bool>;
impl<const ACCUMULATE: bool> Formula for Relu2Gradient<ACCUMULATE> {
    const BINARY: bool = true;
    const READS_OUTPUT: bool = ACCUMULATE;
    #[inline(always)]
    fn apply<V: Lanes>(old: V, dy: V, h: V) -> V {
        let r = relu(h);
        let g = r.add(r).mul(dy);
        if ACCUMULATE { old.add(g) } else { g }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_cast(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    dtypeY: i32,
    dtypeX: i32,
) -> i32 {
    let operands = (y, x, std::ptr::null_mut());
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let (name, n) = ("nc_cast", length(n)?);
            match (dtypeY, dtypeX) {
                (DTYPE_F32, DTYPE_F32) => map::<Identity, f32, f32>(cx, name, operands, n),
                (DTYPE_F32, DTYPE_BF16) => map::<Identity, f32, u16>(cx, name, operands, n),
                (DTYPE_BF16, DTYPE_F32) => map::<Identity, u16, f32>(cx, name, operands, n),
                (DTYPE_BF16, DTYPE_BF16) => widen::<u16, u16>(cx, y, x, n),
                (DTYPE_I32, DTYPE_I32) => widen::<i32, i32>(cx, y, x, n),
                (DTYPE_I32, DTYPE_U16) => widen::<i32, u16>(cx, y, x, n),
                _ => Err(Error::invalid(format!(
                    "Cannot cast: dtype {dtypeX} to {dtypeY}, expected f32 or bf16 to either, or i32 or u16 to i32"
                ))),
            }
        })
    }
}

/// Enqueues y[i] = x[i] for types that lose nothing.
fn widen<Y, X>(cx: &Context, y: *mut c_void, x: *mut c_void, n: usize) -> Result<()>
where
    Y: From<X> + Send + Sync + 'static,
    X: Copy + Send + Sync + 'static,
{
    let (y, x): (Memory<Y>, Memory<X>) = (cx.memory(y, n, "y")?, cx.memory(x, n, "x")?);
    cx.enqueue("nc_cast", move || {
        pieces(n, PIECE, |begin, end| {
            // SAFETY: pieces are disjoint.
            let y = unsafe { piece_mut(&y, begin, end) };
            for (y, &x) in y.iter_mut().zip(&x.get()[begin..end]) {
                *y = x.into();
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_add(
    ctx: *mut Context,
    y: *mut c_void,
    a: *mut c_void,
    b: *mut c_void,
    n: i64,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => map::<Sum, f32, f32>(cx, "nc_add", (y, a, b), length(n)?),
            DTYPE_BF16 => map::<Sum, u16, u16>(cx, "nc_add", (y, a, b), length(n)?),
            _ => float_only("add", dtype),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_relu2_fwd(ctx: *mut Context, y: *mut c_void, h: *mut c_void, n: i64, dtype: i32) -> i32 {
    let operands = (y, h, std::ptr::null_mut());
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => map::<Relu2, f32, f32>(cx, "nc_relu2_fwd", operands, length(n)?),
            DTYPE_BF16 => map::<Relu2, u16, u16>(cx, "nc_relu2_fwd", operands, length(n)?),
            _ => float_only("apply relu2", dtype),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_relu2_bwd(
    ctx: *mut Context,
    dh: *mut c_void,
    dy: *mut c_void,
    h: *mut c_void,
    n: i64,
    accumulate: i32,
    dtype: i32,
) -> i32 {
    let (name, operands) = ("nc_relu2_bwd", (dh, dy, h));
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match (dtype, accumulate != 0) {
            (DTYPE_F32, false) => map::<Relu2Gradient<false>, f32, f32>(cx, name, operands, length(n)?),
            (DTYPE_F32, true) => map::<Relu2Gradient<true>, f32, f32>(cx, name, operands, length(n)?),
            (DTYPE_BF16, false) => map::<Relu2Gradient<false>, u16, u16>(cx, name, operands, length(n)?),
            (DTYPE_BF16, true) => map::<Relu2Gradient<true>, u16, u16>(cx, name, operands, length(n)?),
            _ => float_only("differentiate relu2", dtype),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Rig, close, elements, widen};

    fn dtype<E: Element>() -> i32 {
        if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 }
    }

    fn formulas<E: Element>(n: usize) {
        let rig = Rig::new(2);
        let (a, b, old) = (elements::<E>(n, 1), elements::<E>(n, 2), elements::<E>(n, 3));
        let (pa, pb, y, sum, dh, dh_sum) =
            (rig.put(&a), rig.put(&b), rig.junk::<E>(n), rig.put(&a), rig.junk::<E>(n), rig.put(&old));
        let (ctx, count) = (rig.ctx(), n as i64);
        unsafe {
            rig.ok(nc_relu2_fwd(ctx, y, pa, count, dtype::<E>()));
            rig.ok(nc_add(ctx, sum, sum, pb, count, dtype::<E>()));
            rig.ok(nc_relu2_bwd(ctx, dh, pb, pa, count, 0, dtype::<E>()));
            rig.ok(nc_relu2_bwd(ctx, dh_sum, pb, pa, count, 1, dtype::<E>()));
        }
        let (a, b, old) = (widen(&a), widen(&b), widen(&old));
        let each = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<_>>();
        close("relu2", &rig.get::<E>(y, n), &each(&|i| a[i].max(0.0).powi(2)), 1);
        close("add", &rig.get::<E>(sum, n), &each(&|i| a[i] + b[i]), 1);
        close("dh", &rig.get::<E>(dh, n), &each(&|i| 2.0 * a[i].max(0.0) * b[i]), 1);
        close("dh sum", &rig.get::<E>(dh_sum, n), &each(&|i| old[i] + 2.0 * a[i].max(0.0) * b[i]), 1);
    }

    #[test]
    fn elementwise_ops_match_the_loop() {
        for n in [0, 1, 15, 16, 17, 100, 40_003] {
            formulas::<f32>(n);
            formulas::<u16>(n);
        }
    }

    #[test]
    fn cast_converts_between_types() {
        let rig = Rig::new(2);
        let n = 20_005;
        let x = elements::<f32>(n, 1);
        let (px, half, back, same) = (rig.put(&x), rig.junk::<u16>(n), rig.junk::<f32>(n), rig.junk::<u16>(n));
        let tokens: Vec<u16> = (0..n).map(|i| (i * 7) as u16).collect();
        let (narrow, wide) = (rig.put(&tokens), rig.junk::<i32>(n));
        unsafe {
            let ctx = rig.ctx();
            rig.ok(nc_cast(ctx, half, px, n as i64, DTYPE_BF16, DTYPE_F32));
            rig.ok(nc_cast(ctx, back, half, n as i64, DTYPE_F32, DTYPE_BF16));
            rig.ok(nc_cast(ctx, same, half, n as i64, DTYPE_BF16, DTYPE_BF16));
            rig.ok(nc_cast(ctx, wide, narrow, n as i64, DTYPE_I32, DTYPE_U16));
            assert_ne!(nc_cast(ctx, half, px, n as i64, DTYPE_U16, DTYPE_F32), 0);
        }
        let expected: Vec<u16> = x.iter().map(|&x| u16::from_f32(x)).collect();
        assert_eq!(rig.get::<u16>(half, n), expected);
        assert_eq!(rig.get::<u16>(same, n), expected);
        assert_eq!(rig.get::<f32>(back, n), expected.iter().map(|x| x.to_f32()).collect::<Vec<_>>());
        assert_eq!(rig.get::<i32>(wide, n), tokens.iter().map(|&x| i32::from(x)).collect::<Vec<_>>());
    }

    #[test]
    fn relu2_keeps_a_nan_visible() {
        let rig = Rig::new(1);
        let (x, y) = (rig.put(&[f32::NAN, -1.0, f32::NAN, 2.0]), rig.junk::<f32>(4));
        unsafe { rig.ok(nc_relu2_fwd(rig.ctx(), y, x, 4, DTYPE_F32)) };
        let y: Vec<f32> = rig.get(y, 4);
        assert!(y[0].is_nan() && y[2].is_nan() && y[1] == 0.0 && y[3] == 4.0, "{y:?}");
        unsafe { rig.ok(nc_relu2_bwd(rig.ctx(), x, x, x, 4, 0, DTYPE_F32)) };
        let dx: Vec<f32> = rig.get(x, 4);
        assert!(dx[0].is_nan() && dx[1] == 0.0, "{dx:?}");
    }
}
