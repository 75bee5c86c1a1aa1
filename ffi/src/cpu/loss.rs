//! The end of a training step's forward pass in one op: lm_head, soft cap, cross-entropy and their gradients.
//!
//! loss = ln(sum_j e^l_j) - l_target; d loss / d h_j = (p_j - [j = target]) * (1 - (l_j / cap)^2); dx = dh w, dw = dh^T x
//! (lm_head.rs has h, l and p).
//! Rows that nobody asks for (target -1) at the ends of a chunk never reach a product; between others they count as zeros.
//! Only dw depends on the chunk: it is summed chunk by chunk.

use crate::abi::DTYPE_F32;
use crate::context::Context;
use crate::cpu::gemm::{View, gemm};
use crate::cpu::lm_head::{Head, Targets, set};
use crate::guard::{Error, entry};
use crate::memory::Memory;
use rayon::prelude::*;
use std::ffi::c_void;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_lm_head_loss(
    ctx: *mut Context,
    losses: *mut c_void,
    dx: *mut c_void,
    dw: *mut c_void,
    x: *mut c_void,
    w: *mut c_void,
    targets: *mut c_void,
    weights: *mut c_void,
    scratch: *mut c_void,
    rows: i32,
    C: i32,
    V: i32,
    Vp: i32,
    chunk: i32,
    softcap: f32,
    accumulate: i32,
    dtype_x: i32,
    dtype_w: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let head = Head::new(cx, x, w, scratch, [rows, C, V, Vp, chunk], softcap, dtype_x, dtype_w)?;
            let losses = cx.optional::<f32>(losses, head.rows, "losses")?;
            let dx = if dx.is_null() { None } else { Some(cx.tensor(dx, head.rows * head.C, dtype_x, "dx")?) };
            let dw = cx.optional::<f32>(dw, head.Vp * head.C, "dw")?;
            let targets = Targets(cx.memory(targets, head.rows, "targets")?);
            let weights = cx.optional::<f32>(weights, head.rows, "weights")?;
            if weights.is_none() && (dx.is_some() || dw.is_some()) {
                return Err(Error::invalid(
                    "Cannot compute the gradient of the loss: weights is null, expected f32 (rows)",
                ));
            }
            if head.quantised && (dx.is_some() || dw.is_some()) {
                return Err(Error::invalid("Cannot compute the gradient of the loss: w is i8, expected f32 or bf16"));
            }
            let accumulate = accumulate != 0;
            cx.enqueue("nc_lm_head_loss", move || loss(&head, losses, dx, dw, targets, weights, accumulate))
        })
    }
}

fn loss(
    head: &Head,
    losses: Option<Memory<f32>>,
    dx: Option<Memory<u8>>,
    dw: Option<Memory<f32>>,
    targets: Targets,
    weights: Option<Memory<f32>>,
    accumulate: bool,
) {
    targets.check(head.V);
    let differentiate = dx.is_some() || dw.is_some();
    let weight = |row: usize| weights.map_or(0.0, |weights| weights.get()[row]);
    let active = |row: usize| targets.of(row).is_some() && (losses.is_some() || weight(row) != 0.0);
    let mut accumulate = accumulate;
    if let Some(losses) = losses {
        losses.get_mut().fill(0.0);
    }
    let mut done = 0;
    head.chunks(active, |rows| {
        head.multiply(&rows);
        (0..rows.len()).into_par_iter().for_each(|i| {
            let row = rows.start + i;
            match targets.of(row).filter(|_| active(row)) {
                Some(target) if differentiate => set(losses, row, head.differentiate(i, target, weight(row))),
                Some(target) => set(losses, row, head.row(i).loss(target)),
                None => head.clear(i),
            }
        });
        let dh = View::rows(head.area(), head.Vp, head.dtype);
        let (n, C, V) = (rows.len(), head.C, head.V);
        if let Some(dw) = dw {
            // SAFETY: dh (n, V) and x (n, C) are inside their memory, dw has Vp >= V rows.
            unsafe {
                let dw = dw.as_ptr().cast();
                gemm(dw, DTYPE_F32, C, dh.transposed(), head.x_rows(rows.start), V, C, n, accumulate);
            }
            accumulate = true;
        }
        if let Some(dx) = dx {
            dx.get_mut()[head.offset(done)..head.offset(rows.start)].fill(0);
            // SAFETY: dh (n, V) and w (V, C) are inside their memory, dx has the rows.
            unsafe {
                let dx = dx.as_ptr().add(head.offset(rows.start));
                gemm(dx, head.dtype, C, dh, head.w_rows(), n, C, V, false);
            }
        }
        done = rows.end;
    });
    if let Some(dx) = dx {
        dx.get_mut()[head.offset(done)..].fill(0);
    }
    if let Some(dw) = dw {
        // Rows of the padding have no gradient; without any active row nothing has been written yet.
        let written = if done > 0 || accumulate { head.V * head.C } else { 0 };
        dw.get_mut()[written..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{DTYPE_BF16, STATUS_DATA, STATUS_INVALID};
    use crate::cpu::lm_head::cases::{CAP, Case, SHAPES};
    use crate::cpu::testing::{Rig, assert_close};

    #[test]
    fn nc_lm_head_loss_matches_the_loop() {
        for shape in SHAPES {
            for dtype in [DTYPE_F32, DTYPE_BF16] {
                let case = Case::new(shape, dtype);
                let (losses, dx, dw) = case.reference();
                let (loss_tolerance, tolerance) = case.tolerances();
                let results = case.run(2, 16, false);
                assert_close("losses", &results.losses, &losses, loss_tolerance);
                assert_close("dx", &results.dx, &dx, tolerance);
                assert_close("dw", &results.dw, &dw, tolerance);
                assert!(results.dw[case.V * case.C..].iter().all(|&dw| dw == 0.0), "padding rows");
                let added = case.run(2, 16, true);
                let one_more: Vec<f64> = dw.iter().map(|dw| dw + 1.0).collect();
                assert_close("dw + 1", &added.dw[..case.V * case.C], &one_more[..case.V * case.C], tolerance + 1e-6);
            }
        }
    }

    #[test]
    fn nc_lm_head_loss_gradients_match_finite_differences() {
        let mut case = Case::new([7, 12, 130, 192], DTYPE_F32);
        let results = case.run(1, 3, false);
        let objective = |case: &Case| -> f64 {
            let (losses, _, _) = case.reference();
            losses.iter().zip(&case.weights).map(|(loss, &weight)| loss * f64::from(weight)).sum()
        };
        let step = 1.0 / 256.0; // a power of two: x + step is exact enough in f32
        for i in [0, 13, 40, 83] {
            let at = case.x[i];
            case.x[i] = at + step;
            let (above, high) = (objective(&case), f64::from(case.x[i]));
            case.x[i] = at - step;
            let slope = (above - objective(&case)) / (high - f64::from(case.x[i]));
            case.x[i] = at;
            assert!((f64::from(results.dx[i]) - slope).abs() < 1e-4, "dx[{i}] {} {slope}", results.dx[i]);
        }
        let likely = usize::try_from(case.targets[0]).unwrap() * case.C;
        for i in [0, 100, likely, likely + 5] {
            let at = case.w[i];
            case.w[i] = at + step;
            let (above, high) = (objective(&case), f64::from(case.w[i]));
            case.w[i] = at - step;
            let slope = (above - objective(&case)) / (high - f64::from(case.w[i]));
            case.w[i] = at;
            assert!((f64::from(results.dw[i]) - slope).abs() < 1e-4, "dw[{i}] {} {slope}", results.dw[i]);
        }
    }

    #[test]
    fn nc_lm_head_loss_has_the_same_bits_for_any_threads() {
        for dtype in [DTYPE_F32, DTYPE_BF16] {
            let case = Case::new([50, 32, 500, 512], dtype);
            let (one, three) = (case.run(1, 16, false), case.run(3, 16, false));
            assert_eq!((one.losses, one.dx, one.dw), (three.losses, three.dx, three.dw));
        }
    }

    #[test]
    fn nc_lm_head_loss_rows_do_not_depend_on_the_chunk() {
        let case = Case::new([50, 32, 500, 512], DTYPE_F32);
        let (small, large) = (case.run(2, 1, false), case.run(2, 64, false));
        assert_eq!((&small.losses, &small.dx), (&large.losses, &large.dx));
        let dw: Vec<f64> = small.dw.iter().map(|&dw| f64::from(dw)).collect();
        assert_close("dw", &large.dw, &dw, 1e-5);
    }

    #[test]
    fn nc_lm_head_loss_gives_zeros_without_targets() {
        let mut case = Case::new([10, 8, 130, 192], DTYPE_BF16);
        case.targets.fill(-1);
        let results = case.run(2, 4, false);
        assert!(results.losses.iter().chain(&results.dx).chain(&results.dw).all(|&y| y == 0.0));
        assert!(case.run(2, 4, true).dw[..130 * 8].iter().all(|&y| y == 1.0));
    }

    #[test]
    fn nc_lm_head_loss_keeps_nan_visible() {
        let mut case = Case::new([4, 8, 130, 192], DTYPE_F32);
        case.x[0] = f32::NAN;
        let losses = case.run(1, 4, false).losses;
        assert!(losses[0].is_nan() && losses[1].is_finite());
    }

    #[test]
    fn nc_lm_head_loss_names_a_target_out_of_range() {
        for bad in [130, -2] {
            let (rig, mut case) = (Rig::new(1), Case::new([4, 8, 130, 192], DTYPE_F32));
            case.targets[2] = bad;
            let (none, x, w) = (std::ptr::null_mut(), rig.put(&case.x), rig.put(&case.w));
            let (targets, losses, scratch) = (rig.put(&case.targets), rig.put(&[0f32; 4]), case.scratch(&rig, 4));
            // SAFETY: a live context and its memory.
            let message = unsafe {
                let status = nc_lm_head_loss(
                    rig.ctx(),
                    losses,
                    none,
                    none,
                    x,
                    w,
                    targets,
                    none,
                    scratch,
                    4,
                    8,
                    130,
                    192,
                    4,
                    CAP,
                    0,
                    0,
                    0,
                );
                rig.fails(status, STATUS_DATA)
            };
            assert_eq!(message, format!("Cannot compute the loss: target 2 is {bad}, expected -1 or an id below 130"));
        }
    }

    #[test]
    fn nc_lm_head_loss_names_wrong_arguments() {
        let (rig, case) = (Rig::new(1), Case::new([4, 8, 130, 192], DTYPE_F32));
        let (none, x, w) = (std::ptr::null_mut(), rig.put(&case.x), rig.put(&case.w));
        let (targets, scratch) = (rig.put(&case.targets), case.scratch(&rig, 4));
        let call = |dx, V, chunk, cap, dtype_w| {
            // SAFETY: a live context and its memory.
            let status = unsafe {
                nc_lm_head_loss(
                    rig.ctx(),
                    none,
                    dx,
                    none,
                    x,
                    w,
                    targets,
                    none,
                    scratch,
                    4,
                    8,
                    V,
                    192,
                    chunk,
                    cap,
                    0,
                    0,
                    dtype_w,
                )
            };
            rig.fails(status, STATUS_INVALID)
        };
        assert!(call(none, 193, 4, CAP, 0).contains("expected 1 <= V <= Vp"));
        assert!(call(none, 130, 4, 0.0, 0).contains("softcap is 0"));
        assert!(call(none, 130, 4, CAP, 1).contains("both f32 or both bf16"));
        assert!(call(none, 130, 400, CAP, 0).starts_with("Cannot use scratch"));
        assert!(call(x, 130, 4, CAP, 0).contains("weights is null"));
    }
}
