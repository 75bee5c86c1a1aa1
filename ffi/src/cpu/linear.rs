//! Linear layers: y = x W^T with x (M,K) and w (N,K), its two gradients, and the packed form of weights.
//!
//! All three are one product (`gemm.rs`) of views: y = x (w)^T, dx = dy w, dw = (dy)^T x.

use crate::abi::{DTYPE_BF16, DTYPE_F32, DTYPE_I8, EPILOGUE_NONE, EPILOGUE_RELU2, LAYOUT_PACKED, LAYOUT_ROWS};
use crate::abi::{PACK_BACKWARD, PACK_FORWARD, STATUS_UNSUPPORTED};
use crate::context::Context;
use crate::cpu::gemm::{Product, Right, View, pack_right, packed_units, product};
use crate::cpu::gemm_epilogue::{Epilogue, Output};
use crate::cpu::gemm_int8::{MOST_DEPTH, Quantised, pack_quantised, product_int8, quantised_units};
use crate::cpu::isa::isa;
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// Units of a weight (n, k) in int8, which has one layout.
pub(super) fn int8_units(doing: &str, n: usize, k: usize) -> Result<usize> {
    if k > MOST_DEPTH {
        return Err(Error::invalid(format!("Cannot {doing}: K is {k}, expected at most {MOST_DEPTH} for i8")));
    }
    Ok(quantised_units(isa(), n, k))
}

/// Both operands of a product: the same dtype, f32 or bf16.
fn operands(doing: &str, a: i32, b: i32, scales: [*mut c_void; 2]) -> Result<()> {
    if scales.iter().any(|s| !s.is_null()) {
        let message = format!("Cannot {doing}: operands have scales, expected none; fp8 needs a GPU");
        return Err(Error::new(STATUS_UNSUPPORTED, message));
    }
    if a != b {
        return Err(Error::invalid(format!("Cannot {doing}: dtypes {a} and {b} of the operands, expected equal ones")));
    }
    storage(doing, a)
}

/// A dtype that this library computes with.
fn storage(doing: &str, dtype: i32) -> Result<()> {
    if dtype == DTYPE_F32 || dtype == DTYPE_BF16 {
        return Ok(());
    }
    let message = format!("Cannot {doing}: dtype {dtype}, expected f32 ({DTYPE_F32}) or bf16 ({DTYPE_BF16})");
    Err(Error::new(STATUS_UNSUPPORTED, message))
}

/// Whether an epilogue or prologue code asks for ReLU squared.
fn is_relu2(doing: &str, code: i32) -> Result<bool> {
    match code {
        EPILOGUE_NONE => Ok(false),
        EPILOGUE_RELU2 => Ok(true),
        _ => Err(Error::invalid(format!("Cannot {doing}: epilogue {code}, expected NONE (0) or RELU2 (1)"))),
    }
}

fn size(dim: i32) -> Result<usize> {
    count(&[dim])
}

/// A weight as rows, packed, or packed and quantised.
enum Weight {
    Rows(Memory<u8>),
    Packed(Memory<u32>),
    Int8(Memory<u32>),
}

impl Weight {
    /// Checks a weight (N,K) that is multiplied as a depth x width right operand.
    fn check(
        cx: &Context,
        doing: &str,
        w: *mut c_void,
        depth: usize,
        width: usize,
        layout: i32,
        dtype: i32,
    ) -> Result<Self> {
        match layout {
            LAYOUT_PACKED if dtype == DTYPE_I8 => {
                Ok(Weight::Int8(cx.memory(w, int8_units(doing, width, depth)?, "w")?))
            }
            _ if dtype == DTYPE_I8 => {
                Err(Error::invalid(format!("Cannot {doing}: layout {layout} of i8, expected PACKED (1)")))
            }
            LAYOUT_ROWS => Ok(Weight::Rows(cx.tensor(w, depth.saturating_mul(width), dtype, "w")?)),
            LAYOUT_PACKED => Ok(Weight::Packed(cx.memory(w, packed_units(isa(), depth, width, dtype), "w")?)),
            _ => Err(Error::invalid(format!("Cannot {doing}: layout {layout}, expected ROWS (0) or PACKED (1)"))),
        }
    }

    /// The right operand; `view` makes it of the rows.
    fn right(&self, dtype: i32, view: impl Fn(*const u8) -> View) -> Right {
        match self {
            Weight::Rows(w) => Right::View { view: view(w.as_ptr()), relu2: false },
            Weight::Packed(w) => Right::Packed { ptr: w.as_ptr(), dtype },
            Weight::Int8(_) => unreachable!("i8 has a product of its own, and no gradient"),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_linear_fwd(
    ctx: *mut Context,
    y: *mut c_void,
    aux: *mut c_void,
    x: *mut c_void,
    w: *mut c_void,
    residual: *mut c_void,
    scale_x: *mut c_void,
    scale_w: *mut c_void,
    M: i32,
    N: i32,
    K: i32,
    epilogue: i32,
    layout_w: i32,
    dtype_y: i32,
    dtype_x: i32,
    dtype_w: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            let doing = "apply linear";
            operands(doing, dtype_x, if dtype_w == DTYPE_I8 { dtype_x } else { dtype_w }, [scale_x, scale_w])?;
            storage(doing, dtype_y)?;
            let relu2 = is_relu2(doing, epilogue)?;
            if relu2 && !residual.is_null() {
                return Err(Error::invalid(format!("Cannot {doing}: RELU2 with a residual, expected one of them")));
            }
            if !relu2 && !aux.is_null() {
                return Err(Error::invalid(format!("Cannot {doing}: aux without RELU2, expected null")));
            }
            let (m, n, k) = (size(M)?, size(N)?, size(K)?);
            let of_y = count(&[M, N])?;
            let y = cx.tensor(y, of_y, dtype_y, "y")?;
            let x = cx.tensor(x, count(&[M, K])?, dtype_x, "x")?;
            let w = Weight::check(cx, doing, w, k, n, layout_w, dtype_w)?;
            let optional = |pointer: *mut c_void, name| -> Result<Option<Memory<u8>>> {
                if pointer.is_null() { Ok(None) } else { cx.tensor(pointer, of_y, dtype_y, name).map(Some) }
            };
            let (aux, residual) = (optional(aux, "aux")?, optional(residual, "residual")?);
            cx.enqueue("nc_linear_fwd", move || {
                let epilogue = match &residual {
                    _ if relu2 => Epilogue::Relu2 { aux: aux.map_or(std::ptr::null_mut(), |aux| aux.as_ptr()) },
                    Some(residual) => Epilogue::Residual { residual: residual.as_ptr() },
                    None => Epilogue::Plain { accumulate: false },
                };
                let a = View::rows(x.as_ptr(), k, dtype_x);
                let c = Output { ptr: y.as_ptr(), ld: n, dtype: dtype_y };
                if let Weight::Int8(w) = &w {
                    let w = Quantised { ptr: w.as_ptr(), width: n };
                    return product_int8(isa(), (m, n, k), a, w, c, epilogue);
                }
                let b = w.right(dtype_w, |w| View::rows(w, k, dtype_w).transposed());
                product(isa(), &Product { m, n, k, a, b, c, epilogue, symmetric: false });
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_linear_bwd_x(
    ctx: *mut Context,
    dx: *mut c_void,
    dy: *mut c_void,
    w: *mut c_void,
    aux: *mut c_void,
    scale_dy: *mut c_void,
    scale_w: *mut c_void,
    M: i32,
    N: i32,
    K: i32,
    epilogue: i32,
    accumulate: i32,
    layout_w: i32,
    dtype_dx: i32,
    dtype_dy: i32,
    dtype_w: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            let doing = "apply the input gradient of linear";
            operands(doing, dtype_dy, dtype_w, [scale_dy, scale_w])?;
            storage(doing, dtype_dx)?;
            let relu2 = is_relu2(doing, epilogue)?;
            if relu2 == aux.is_null() {
                return Err(Error::invalid(format!("Cannot {doing}: expected aux with RELU2, and with RELU2 alone")));
            }
            let accumulate = accumulate != 0;
            let (m, n, k) = (size(M)?, size(N)?, size(K)?);
            let dx = cx.tensor(dx, count(&[M, K])?, dtype_dx, "dx")?;
            let dy = cx.tensor(dy, count(&[M, N])?, dtype_dy, "dy")?;
            let w = Weight::check(cx, doing, w, n, k, layout_w, dtype_w)?;
            let aux = if relu2 { Some(cx.tensor(aux, count(&[M, K])?, dtype_dx, "aux")?) } else { None };
            cx.enqueue("nc_linear_bwd_x", move || {
                let epilogue = match &aux {
                    Some(aux) => Epilogue::Relu2Backward { aux: aux.as_ptr(), accumulate },
                    None => Epilogue::Plain { accumulate },
                };
                let a = View::rows(dy.as_ptr(), n, dtype_dy);
                let b = w.right(dtype_w, |w| View::rows(w, k, dtype_w));
                let c = Output { ptr: dx.as_ptr(), ld: k, dtype: dtype_dx };
                product(isa(), &Product { m, n: k, k: n, a, b, c, epilogue, symmetric: false });
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_linear_bwd_w(
    ctx: *mut Context,
    dw: *mut c_void,
    dy: *mut c_void,
    x: *mut c_void,
    scale_dy: *mut c_void,
    scale_x: *mut c_void,
    M: i32,
    N: i32,
    K: i32,
    prologue: i32,
    accumulate: i32,
    dtype_dy: i32,
    dtype_x: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            let doing = "apply the weight gradient of linear";
            operands(doing, dtype_dy, dtype_x, [scale_dy, scale_x])?;
            let relu2 = is_relu2(doing, prologue)?;
            let (m, n, k) = (size(M)?, size(N)?, size(K)?);
            let dw = cx.memory::<f32>(dw, count(&[N, K])?, "dw")?;
            let dy = cx.tensor(dy, count(&[M, N])?, dtype_dy, "dy")?;
            let x = cx.tensor(x, count(&[M, K])?, dtype_x, "x")?;
            cx.enqueue("nc_linear_bwd_w", move || {
                let a = View::rows(dy.as_ptr(), n, dtype_dy).transposed();
                let b = Right::View { view: View::rows(x.as_ptr(), k, dtype_x), relu2 };
                let c = Output { ptr: dw.as_ptr().cast(), ld: k, dtype: DTYPE_F32 };
                let epilogue = Epilogue::Plain { accumulate: accumulate != 0 };
                product(isa(), &Product { m: n, n: k, k: m, a, b, c, epilogue, symmetric: false });
            })
        })
    }
}

/// Units of the packed form of a weight (n, k) in a direction.
fn units(n: i32, k: i32, direction: i32, dtype: i32) -> Result<usize> {
    let (depth, width) = directed(n, k, direction)?;
    if dtype == DTYPE_I8 && direction == PACK_FORWARD {
        return int8_units("pack", width, depth);
    }
    storage("pack", dtype)?;
    Ok(packed_units(isa(), depth, width, dtype))
}

/// (depth, width) of the right operand that a weight (N,K) is in a direction.
fn directed(n: i32, k: i32, direction: i32) -> Result<(usize, usize)> {
    match direction {
        PACK_FORWARD => Ok((size(k)?, size(n)?)),
        PACK_BACKWARD => Ok((size(n)?, size(k)?)),
        _ => Err(Error::invalid(format!("Cannot pack: direction {direction}, expected FORWARD (0) or BACKWARD (1)"))),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_pack_bytes(
    ctx: *mut Context,
    bytes: *mut u8,
    N: i32,
    K: i32,
    direction: i32,
    dtype: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let size = 4 * units(N, K, direction, dtype)? as i64;
            bytes.cast::<i64>().write_unaligned(size);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_pack(
    ctx: *mut Context,
    packed: *mut c_void,
    w: *mut c_void,
    N: i32,
    K: i32,
    direction: i32,
    dtype_packed: i32,
    dtype_w: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            let packed = cx.memory::<u32>(packed, units(N, K, direction, dtype_packed)?, "packed")?;
            storage("pack", dtype_w)?;
            let (depth, width) = directed(N, K, direction)?;
            let columns = size(K)?;
            let w = cx.tensor(w, count(&[N, K])?, dtype_w, "w")?;
            cx.enqueue("nc_pack", move || {
                let rows = View::rows(w.as_ptr(), columns, dtype_w);
                if dtype_packed == DTYPE_I8 {
                    return pack_quantised(isa(), packed.as_ptr(), rows, width, depth);
                }
                let view = if direction == PACK_FORWARD { rows.transposed() } else { rows };
                pack_right(isa(), packed.as_ptr(), view, depth, width, dtype_packed);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::Rig;
    use crate::nc_fill;

    const NULL: *mut c_void = std::ptr::null_mut();

    #[test]
    fn linear_and_its_gradients_equal_the_plain_loop() {
        let rig = Rig::new(2);
        let ctx = rig.ctx();
        let (M, N, K) = (5usize, 7usize, 3usize);
        let value = |i: usize| ((i * 37 + 11) % 17) as f32 - 8.0; // small integers: exact in fp32
        let x: Vec<f32> = (0..M * K).map(value).collect();
        let w: Vec<f32> = (0..N * K).map(|i| value(i + 5)).collect();
        let dy: Vec<f32> = (0..M * N).map(|i| value(i + 3)).collect();
        let (px, pw, pdy) = (rig.put(&x), rig.put(&w), rig.put(&dy));
        let (m, n, k) = (M as i32, N as i32, K as i32);
        let y = rig.put(&vec![0f32; M * N]);
        let aux = rig.put(&vec![0f32; M * N]);
        let dx = rig.put(&vec![0f32; M * K]);
        let dw = rig.put(&vec![0f32; N * K]);
        for direction in [PACK_FORWARD, PACK_BACKWARD] {
            let mut bytes = 0i64;
            let out = std::ptr::from_mut(&mut bytes).cast();
            rig.ok(unsafe { nc_pack_bytes(ctx, out, n, k, direction, 0) });
            let packed = rig.cx.alloc(bytes).unwrap();
            rig.ok(unsafe { nc_pack(ctx, packed, pw, n, k, direction, 0, 0) });
            for (layout, weight) in [(LAYOUT_ROWS, pw), (LAYOUT_PACKED, packed)] {
                if direction == PACK_FORWARD {
                    let status = unsafe {
                        nc_linear_fwd(ctx, y, aux, px, weight, NULL, NULL, NULL, m, n, k, 1, layout, 0, 0, 0)
                    };
                    rig.ok(status);
                    let h = |i: usize| (0..K).map(|p| x[i / N * K + p] * w[i % N * K + p]).sum::<f32>();
                    assert_eq!(rig.get::<f32>(aux, M * N), (0..M * N).map(h).collect::<Vec<_>>());
                    assert_eq!(rig.get::<f32>(y, M * N), (0..M * N).map(|i| h(i).max(0.0).powi(2)).collect::<Vec<_>>());
                } else {
                    let status = unsafe {
                        nc_linear_bwd_x(ctx, dx, pdy, weight, px, NULL, NULL, m, n, k, 1, 0, layout, 0, 0, 0)
                    };
                    rig.ok(status);
                    let g = |i: usize| (0..N).map(|p| dy[i / K * N + p] * w[p * K + i % K]).sum::<f32>();
                    let expected: Vec<f32> = (0..M * K).map(|i| g(i) * 2.0 * x[i].max(0.0)).collect();
                    assert_eq!(rig.get::<f32>(dx, M * K), expected);
                }
            }
        }
        for accumulate in [0, 1] {
            rig.ok(unsafe { nc_linear_bwd_w(ctx, dw, pdy, px, NULL, NULL, m, n, k, 1, accumulate, 0, 0) });
        }
        let square = |x: f32| x.max(0.0).powi(2);
        let g = |i: usize| (0..M).map(|p| dy[p * N + i / K] * square(x[p * K + i % K])).sum::<f32>();
        assert_eq!(rig.get::<f32>(dw, N * K), (0..N * K).map(|i| 2.0 * g(i)).collect::<Vec<_>>());
    }

    #[test]
    fn linear_refuses_what_it_cannot_do() {
        let rig = Rig::new(1);
        let ctx = rig.ctx();
        let p = rig.put(&[0f32; 64]);
        let run = |aux, residual, scale, sizes: [i32; 3], epilogue, layout, dtypes: [i32; 3]| unsafe {
            let ([m, n, k], [dy, dx, dw]) = (sizes, dtypes);
            nc_linear_fwd(ctx, p, aux, p, p, residual, scale, NULL, m, n, k, epilogue, layout, dy, dx, dw)
        };
        let fine = [4, 4, 4];
        assert_eq!(run(NULL, NULL, p, fine, 0, 0, [0; 3]), STATUS_UNSUPPORTED);
        assert_eq!(run(NULL, NULL, NULL, fine, 0, 0, [0, 6, 6]), STATUS_UNSUPPORTED);
        for (aux, residual, sizes, epilogue, layout, dtypes) in [
            (NULL, NULL, fine, 0, 0, [0, 0, 1]),
            (NULL, NULL, fine, 2, 0, [0; 3]),
            (NULL, NULL, fine, 0, 2, [0; 3]),
            (p, NULL, fine, 0, 0, [0; 3]),
            (NULL, p, fine, 1, 0, [0; 3]),
            (NULL, NULL, [-1, 4, 4], 0, 0, [0; 3]),
            (NULL, NULL, [16, 16, 16], 0, 0, [0; 3]),
        ] {
            let status = run(aux, residual, NULL, sizes, epilogue, layout, dtypes);
            assert_eq!(status, crate::abi::STATUS_INVALID, "{sizes:?} {epilogue} {layout} {dtypes:?}");
        }
        assert_eq!(run(NULL, NULL, NULL, [0, 4, 4], 0, 0, [0; 3]), 0);
        rig.ok(unsafe { nc_fill(ctx, p, 64, 1.0, 0) });
        rig.cx.wait().unwrap();
    }
}
