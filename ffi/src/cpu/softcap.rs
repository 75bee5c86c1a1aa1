//! Logit soft-capping: y = cap tanh(x / cap) of the first V columns of rows xStride apart, in f32; nanochat/gpt.py.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::elementwise::float_only;
use crate::cpu::math::tanh;
use crate::cpu::pieces::{PIECE, piece_mut, pieces};
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// y[i] = cap tanh(x[i] / cap): plain loops that the compiler turns into vector code.
struct Cap<'a, E> {
    y: &'a mut [f32],
    x: &'a [E],
    cap: f32,
}

impl<E: Element> Kernel for Cap<'_, E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = self.cap * tanh(V::FUSED, x.to_f32() / self.cap);
        }
    }
}

fn forward<E: Element>(
    cx: &Context,
    (y, x): (*mut c_void, *mut c_void),
    [rows, V, stride]: [i32; 3],
    cap: f32,
) -> Result<()> {
    if stride < V {
        return Err(Error::invalid(format!("Cannot cap logits: rows are {stride} apart, expected at least {V}")));
    }
    if cap.is_nan() || cap <= 0.0 {
        return Err(Error::invalid(format!("Cannot cap logits: cap {cap}, expected a positive number")));
    }
    let y: Memory<f32> = cx.memory(y, count(&[rows, V])?, "y")?;
    let span = if rows == 0 { 0 } else { count(&[rows - 1, stride])? + V as usize };
    let x: Memory<E> = cx.memory(x, span, "x")?;
    let (rows, V, stride) = (rows as usize, V as usize, stride as usize);
    cx.enqueue("nc_softcap_fwd", move || {
        let per_row = V.div_ceil(PIECE); // pieces of a row
        pieces(rows * per_row, 1, |piece, _| {
            let (r, begin) = (piece / per_row, piece % per_row * PIECE);
            let end = V.min(begin + PIECE);
            let x = &x.get()[r * stride + begin..r * stride + end];
            // SAFETY: pieces are disjoint.
            unsafe { dispatch(Cap { y: piece_mut(&y, r * V + begin, r * V + end), x, cap }) };
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_softcap_fwd(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    rows: i32,
    V: i32,
    xStride: i32,
    cap: f32,
    dtypeX: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtypeX {
            DTYPE_F32 => forward::<f32>(cx, (y, x), [rows, V, xStride], cap),
            DTYPE_BF16 => forward::<u16>(cx, (y, x), [rows, V, xStride], cap),
            _ => float_only("cap logits", dtypeX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::STATUS_INVALID;
    use crate::cpu::testing::{Rig, close, elements, widen};

    #[test]
    fn softcap_matches_the_loop() {
        for (rows, V, stride) in [(0usize, 5usize, 8usize), (3, 7, 10), (2, 20_001, 20_032), (1, 1, 1)] {
            let rig = Rig::new(2);
            let x: Vec<f32> = elements::<f32>(rows * stride, 1).iter().map(|x| x * 60.0).collect();
            let half: Vec<u16> = x.iter().map(|&x| u16::from_f32(x)).collect();
            let (y, z) = (rig.junk::<f32>(rows * V), rig.junk::<f32>(rows * V));
            unsafe {
                let (r, v, s) = (rows as i32, V as i32, stride as i32);
                rig.ok(nc_softcap_fwd(rig.ctx(), y, rig.put(&x), r, v, s, 15.0, DTYPE_F32));
                rig.ok(nc_softcap_fwd(rig.ctx(), z, rig.put(&half), r, v, s, 15.0, DTYPE_BF16));
            }
            let expected = |x: &[f64]| -> Vec<f64> {
                (0..rows * V).map(|i| 15.0 * (x[i / V * stride + i % V] / 15.0).tanh()).collect()
            };
            close("y", &rig.get::<f32>(y, rows * V), &expected(&widen(&x)), 1);
            close("y of bf16", &rig.get::<f32>(z, rows * V), &expected(&widen(&half)), 1);
        }
    }

    #[test]
    fn softcap_keeps_a_nan_visible_and_refuses_bad_sizes() {
        let rig = Rig::new(1);
        let x = rig.put(&[f32::NAN, f32::INFINITY, -1e9]);
        unsafe { rig.ok(nc_softcap_fwd(rig.ctx(), x, x, 1, 3, 3, 15.0, DTYPE_F32)) };
        let y: Vec<f32> = rig.get(x, 3);
        assert!(y[0].is_nan() && y[1] == 15.0 && y[2] == -15.0, "{y:?}");
        rig.fails(unsafe { nc_softcap_fwd(rig.ctx(), x, x, 1, 3, 2, 15.0, DTYPE_F32) }, STATUS_INVALID);
        rig.fails(unsafe { nc_softcap_fwd(rig.ctx(), x, x, 1, 3, 3, 0.0, DTYPE_F32) }, STATUS_INVALID);
    }
}
