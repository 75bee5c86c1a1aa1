//! Loops over single elements: cast, add, ReLU squared and its gradient.
//!
//!   cast: y = x      add: y = a + b      relu2: y = max(h, 0)^2, dh (+)= 2 max(h, 0) dy
//!
//! Bytes moved bound all of them. A NaN stays a NaN. ReLU squared: Primer, arXiv 2109.08668; nanochat/gpt.py.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32, DTYPE_I32, DTYPE_U16};
use crate::context::Memory;
use crate::cpu::pieces::{PIECE, piece_mut, pieces};
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Error, Result, entry};
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
