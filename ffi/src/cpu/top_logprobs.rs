//! The most probable next tokens of rows of logits, with the log-probabilities that nc_sample gives them.

use crate::context::Context;
use crate::cpu::pieces::{fail, pieces};
use crate::cpu::sample::{log_total, logprob};
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count};
use std::cell::RefCell;
use std::ffi::c_void;

/// Keeps the k largest logits and their ids, best first, the lower id first among equals.
pub(super) fn top(best: &mut Vec<(f32, i32)>, logits: &[f32], k: usize) {
    best.clear();
    for (id, &logit) in logits.iter().enumerate() {
        if best.len() == k {
            if best.last().is_none_or(|&(worst, _)| logit <= worst) {
                continue;
            }
            best.pop();
        }
        let at = best.partition_point(|&(other, _)| other >= logit);
        best.insert(at, (logit, id as i32));
    }
}

/// Scratch of a thread, kept between calls.
#[derive(Default)]
struct Scratch {
    best: Vec<(f32, i32)>,
    weights: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Writes the best ids of a row and their log-probabilities.
fn write_row(ids: &mut [i32], logprobs: &mut [f32], logits: &[f32]) {
    SCRATCH.with_borrow_mut(|Scratch { best, weights }| {
        top(best, logits, ids.len());
        let max = best[0].0;
        let total = log_total(weights, logits, max);
        for (i, &(logit, id)) in best.iter().enumerate() {
            ids[i] = id;
            logprobs[i] = logprob(logit, max, total);
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_top_logprobs(
    ctx: *mut Context,
    ids: *mut c_void,
    logprobs: *mut c_void,
    logits: *mut c_void,
    counts: *mut c_void,
    rows: i32,
    V: i32,
    topK: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| -> Result<()> {
            if !(0..=V).contains(&topK) {
                return Err(Error::invalid(format!("Cannot find the best {topK} ids, expected 0 to V = {V}")));
            }
            let (n, size, found) = (count(&[rows])?, count(&[rows, V])?, count(&[rows, topK])?);
            let (ids, logprobs): (Memory<i32>, Memory<f32>) =
                (cx.memory(ids, found, "ids")?, cx.memory(logprobs, found, "logprobs")?);
            let logits: Memory<f32> = cx.memory(logits, size, "logits")?;
            let counts: Memory<i32> = cx.memory(counts, n, "counts")?;
            let (V, k) = (V as usize, topK as usize);
            cx.enqueue("nc_top_logprobs", move || {
                pieces(n, 1, |r, _| {
                    let wanted = counts.get()[r];
                    if !(0..=topK).contains(&wanted) {
                        fail(format!("Cannot find the best {wanted} ids of row {r}, expected 0 to {k}"));
                    }
                    if wanted > 0 {
                        let of = r * k..r * k + wanted as usize;
                        let logits = &logits.get()[r * V..(r + 1) * V];
                        write_row(&mut ids.get_mut()[of.clone()], &mut logprobs.get_mut()[of], logits);
                    }
                });
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::STATUS_PANIC;
    use crate::cpu::testing::{Rig, elements};

    fn call(rig: &Rig, logits: &[f32], counts: &[i32], k: usize) -> (i32, *mut c_void, *mut c_void) {
        let n = counts.len();
        let (ids, logprobs) = (rig.put(&vec![-7i32; n * k]), rig.put(&vec![0.5f32; n * k]));
        let (given, wanted) = (rig.put(logits), rig.put(counts));
        let V = (logits.len() / n) as i32;
        // SAFETY: a live context and its memory.
        let status = unsafe { nc_top_logprobs(rig.ctx(), ids, logprobs, given, wanted, n as i32, V, k as i32) };
        (status, ids, logprobs)
    }

    #[test]
    fn top_logprobs_match_the_sorted_loop() {
        let rig = Rig::new(2);
        for (V, k) in [(1, 1), (5, 5), (1000, 20), (1003, 3)] {
            let counts = [k as i32, 0, 1, k as i32];
            // Many equal logits: the lower id comes first.
            let logits: Vec<f32> = elements::<f32>(4 * V, 1).iter().map(|x| (x * 30.0).round() / 5.0).collect();
            let (status, ids, logprobs) = call(&rig, &logits, &counts, k);
            rig.ok(status);
            let (ids, logprobs) = (rig.get::<i32>(ids, 4 * k), rig.get::<f32>(logprobs, 4 * k));
            for (row, &wanted) in counts.iter().enumerate() {
                let l = &logits[row * V..(row + 1) * V];
                let mut order: Vec<usize> = (0..V).collect();
                order.sort_by(|&a, &b| l[b].total_cmp(&l[a]).then(a.cmp(&b)));
                let lse = l.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
                for i in 0..k {
                    let (id, logprob) = (ids[row * k + i], logprobs[row * k + i]);
                    if i >= wanted as usize {
                        assert_eq!((id, logprob), (-7, 0.5), "nothing is written that was not asked for");
                        continue;
                    }
                    assert_eq!(id, order[i] as i32, "row {row}");
                    assert!((f64::from(logprob) - (f64::from(l[order[i]]) - lse)).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn top_logprobs_refuses_more_than_there_is_room_for() {
        for wanted in [3, -1] {
            let rig = Rig::new(1);
            let message = rig.fails(call(&rig, &[0.0; 8], &[1, wanted], 2).0, STATUS_PANIC);
            assert!(message.contains(&format!("the best {wanted} ids of row 1, expected 0 to 2")), "{message}");
        }
        let rig = Rig::new(1);
        assert_ne!(call(&rig, &[0.0; 4], &[1, 1], 3).0, 0);
        assert!(rig.cx.error().contains("expected 0 to V = 2"), "{}", rig.cx.error());
    }
}
