//! Scores of the model's head without gradients: losses, best ids and their log-probabilities, batch-invariant (lm_head.rs).

use crate::context::Context;
use crate::cpu::lm_head::{Head, Row, Targets, set};
use crate::cpu::top_logprobs::top;
use crate::guard::{Error, entry};
use crate::memory::Memory;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ffi::c_void;

/// Where nc_lm_head_score puts what it finds.
#[derive(Clone, Copy)]
struct Scores {
    losses: Option<Memory<f32>>,
    argmax: Option<Memory<i32>>,
    top_ids: Option<Memory<i32>>,
    top_logprobs: Option<Memory<f32>>,
    k: usize,
}

thread_local! {
    /// The best (logit, id) of a row, best first.
    static BEST: RefCell<Vec<(f32, i32)>> = const { RefCell::new(Vec::new()) };
}

impl Scores {
    fn store(&self, index: usize, row: &Row, target: Option<usize>) {
        if let Some(target) = target {
            set(self.losses, index, row.loss(target));
        }
        if self.argmax.is_some() {
            let id = row.l.iter().position(|&l| l == row.largest).unwrap_or(0);
            set(self.argmax, index, id as i32);
        }
        if self.top_ids.is_some() || self.top_logprobs.is_some() {
            BEST.with_borrow_mut(|best| {
                top(best, row.l, self.k);
                for (i, &(_, id)) in best.iter().enumerate() {
                    set(self.top_ids, index * self.k + i, id);
                    set(self.top_logprobs, index * self.k + i, -row.loss(id as usize));
                }
            });
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_lm_head_score(
    ctx: *mut Context,
    losses: *mut c_void,
    argmax: *mut c_void,
    top_ids: *mut c_void,
    top_logprobs: *mut c_void,
    x: *mut c_void,
    w: *mut c_void,
    targets: *mut c_void,
    scratch: *mut c_void,
    rows: i32,
    C: i32,
    V: i32,
    Vp: i32,
    chunk: i32,
    top_k: i32,
    softcap: f32,
    dtype_x: i32,
    dtype_w: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let head = Head::new(cx, x, w, scratch, [rows, C, V, Vp, chunk], softcap, dtype_x, dtype_w)?;
            if !(0..=V).contains(&top_k) {
                return Err(Error::invalid(format!("Cannot find the best {top_k} ids, expected 0 to V = {V}")));
            }
            let k = top_k as usize;
            let scores = Scores {
                losses: cx.optional(losses, head.rows, "losses")?,
                argmax: cx.optional(argmax, head.rows, "argmax")?,
                top_ids: cx.optional(top_ids, head.rows * k, "topIds")?,
                top_logprobs: cx.optional(top_logprobs, head.rows * k, "topLogprobs")?,
                k,
            };
            let targets = cx.optional::<i32>(targets, head.rows, "targets")?.map(Targets);
            if targets.is_none() && scores.losses.is_some() {
                return Err(Error::invalid("Cannot compute losses: targets is null, expected i32 (rows)"));
            }
            cx.enqueue("nc_lm_head_score", move || score(&head, &scores, targets))
        })
    }
}

fn score(head: &Head, scores: &Scores, targets: Option<Targets>) {
    if let Some(targets) = targets {
        targets.check(head.V);
    }
    if let Some(losses) = scores.losses {
        losses.get_mut().fill(0.0);
    }
    let target = |row: usize| targets.and_then(|targets| targets.of(row));
    let all = scores.argmax.is_some() || scores.top_ids.is_some() || scores.top_logprobs.is_some();
    head.chunks(
        |row| all || target(row).is_some(),
        |rows| {
            head.multiply(&rows);
            (0..rows.len()).into_par_iter().for_each(|i| {
                let index = rows.start + i;
                scores.store(index, &head.row(i), target(index));
            });
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{DTYPE_BF16, DTYPE_F32};
    use crate::cpu::lm_head::cases::{CAP, Case};
    use crate::cpu::testing::{Rig, assert_close};
    use std::ops::Range;

    /// losses, argmax, top ids and top log-probabilities of some rows.
    fn run_score(
        case: &Case,
        rows: Range<usize>,
        threads: usize,
        chunk: usize,
        k: usize,
    ) -> (Vec<f32>, Vec<i32>, Vec<i32>, Vec<f32>) {
        let (rig, n) = (Rig::new(threads), rows.len());
        let (losses, argmax) = (rig.put(&vec![f32::NAN; n]), rig.put(&vec![-7i32; n]));
        let (ids, logprobs) = (rig.put(&vec![-7i32; n * k]), rig.put(&vec![f32::NAN; n * k]));
        let (x, w) = (case.put(&rig, &case.x[rows.start * case.C..rows.end * case.C]), case.put(&rig, &case.w));
        let (targets, scratch) = (rig.put(&case.targets[rows]), case.scratch(&rig, chunk));
        let [n_i32, C, V, Vp, chunk, k_i32] = [n, case.C, case.V, case.Vp, chunk, k].map(|n| n as i32);
        // SAFETY: a live context and its memory.
        rig.ok(unsafe {
            nc_lm_head_score(
                rig.ctx(),
                losses,
                argmax,
                ids,
                logprobs,
                x,
                w,
                targets,
                scratch,
                n_i32,
                C,
                V,
                Vp,
                chunk,
                k_i32,
                CAP,
                case.dtype,
                case.dtype,
            )
        });
        (rig.get(losses, n), rig.get(argmax, n), rig.get(ids, n * k), rig.get(logprobs, n * k))
    }

    #[test]
    fn nc_lm_head_score_matches_the_loop() {
        let case = Case::new([23, 30, 130, 192], DTYPE_F32);
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (x, w, k) = (wide(&case.x), wide(&case.w), 5);
        let (losses, argmax, ids, logprobs) = run_score(&case, 0..23, 2, 8, k);
        assert_close("losses", &losses, &case.reference().0, case.tolerances().0);
        for row in 0..23 {
            let l = case.logits(&x, &w, row);
            let lse = l.iter().map(|l| l.exp()).sum::<f64>().ln();
            let mut order: Vec<usize> = (0..130).collect();
            order.sort_by(|&a, &b| l[b].total_cmp(&l[a]));
            assert_eq!(argmax[row], order[0] as i32);
            for i in 0..k {
                assert_eq!(ids[row * k + i], order[i] as i32, "row {row}");
                assert!((f64::from(logprobs[row * k + i]) - (l[order[i]] - lse)).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nc_lm_head_score_prefers_the_lower_id_among_equals() {
        let mut case = Case::new([3, 8, 130, 192], DTYPE_F32);
        case.w.fill(0.25);
        let (_, argmax, ids, _) = run_score(&case, 0..3, 2, 2, 4);
        assert_eq!((argmax, ids), (vec![0; 3], [0, 1, 2, 3].repeat(3)));
    }

    #[test]
    fn nc_lm_head_score_is_batch_invariant() {
        for dtype in [DTYPE_F32, DTYPE_BF16] {
            let case = Case::new([21, 64, 500, 512], dtype);
            let (losses, argmax, ids, logprobs) = run_score(&case, 0..21, 3, 16, 3);
            for row in 0..21 {
                let alone = run_score(&case, row..row + 1, 1, 1, 3);
                let three = row * 3..row * 3 + 3;
                assert_eq!(alone.0, losses[row..row + 1]);
                assert_eq!(alone.1, argmax[row..row + 1]);
                assert_eq!((&alone.2[..], &alone.3[..]), (&ids[three.clone()], &logprobs[three]));
            }
        }
    }
}
