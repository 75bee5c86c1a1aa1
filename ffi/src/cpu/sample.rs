//! Draws one token per row from logits.
//!
//!   temperature 0: the largest logit, lowest id among equals
//!   else: weights exp((logit - max) / temperature) of the topK largest logits (exactly topK, lowest ids among equals; 0 = all), of
//!   these the smallest set with at least topP of their mass (largest first, lowest ids among equals; 1 = all); with u uniform from
//!   Philox(seed; draw, sample), the first id, in rising order, whose running sum exceeds u times the total.
//!   logprob = log softmax(logits)[id], at temperature 1 over the whole vocabulary.
//!
//! A row may be drawn from changed logits (penalties, biases): a short list of ids and of what is added to theirs. The
//! log-probability stays that of the logits as they are.
//!
//! Each row is computed alone and in one order, so its result does not depend on the other rows. A NaN or +inf among the logits
//! fails the queue.

use crate::Context;
use crate::cpu::isa::by_isa;
use crate::cpu::philox::uniform;
use crate::cpu::pieces::{fail, pieces};
use crate::cpu::simd::{Kernel, Lanes, dispatch};
use crate::guard::{Result, entry};
use crate::memory::{Memory, count};
use std::cell::RefCell;
use std::ffi::c_void;

/// y[i] = exp((x[i] - max) * factor); gives the sum, f64 over vectors of partial sums in order.
struct Weights<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    max: f32,
    factor: f32,
}

impl Kernel for Weights<'_> {
    type Output = f64;
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> f64 {
        let Weights { y, x, max, factor } = self;
        let whole = x.len() - x.len() % V::N;
        let (y, x, n) = (y.as_mut_ptr(), x.as_ptr(), x.len());
        let mut total = 0.0;
        // SAFETY: y and x have n elements.
        unsafe {
            let (max, factor) = (V::splat(max), V::splat(factor));
            for i in (0..whole).step_by(V::N) {
                let w = V::load(x.add(i)).sub(max).mul(factor).exp();
                w.store(y.add(i));
                total += f64::from(w.sum());
            }
            if whole < n {
                V::load_part(x.add(whole), n - whole).sub(max).mul(factor).exp().store_part(y.add(whole), n - whole);
                total += (whole..n).map(|i| f64::from(*y.add(i))).sum::<f64>();
            }
        }
        total
    }
}

/// Ids that top-p sorts first.
const FIRST_HEAD: usize = 256;
/// Lanes of a running maximum.
const LANES: usize = 16;
/// Logits whose maxima are noted lane by lane: sets of every LANES-th logit that hold none of the k largest are passed over.
const GROUP: usize = 16 * LANES;

/// Scratch of a thread, kept between calls.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    ids: Vec<u32>,
    changed: Vec<f32>,
    /// Largest logit of each lane of each group, and a copy to select from.
    maxima: [Vec<f32>; 2],
    /// Logits that top-k kept, then their weights.
    kept: [Vec<f32>; 2],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

by_isa! {
    /// Notes the largest logit of each lane of each group; tells whether all are numbers below infinity.
    fn note_maxima(maxima: &mut [f32], logits: &[f32]) -> bool {
        let mut wrong = [0u32; LANES];
        for (largest, group) in maxima.as_chunks_mut::<LANES>().0.iter_mut().zip(logits.chunks(GROUP)) {
            *largest = [f32::NEG_INFINITY; LANES];
            let (lines, rest) = group.as_chunks::<LANES>();
            for x in lines {
                for i in 0..LANES {
                    largest[i] = if x[i] > largest[i] { x[i] } else { largest[i] };
                    wrong[i] |= u32::from(x[i].is_nan() | (x[i] == f32::INFINITY));
                }
            }
            for (i, &x) in rest.iter().enumerate() {
                largest[i] = if x > largest[i] { x } else { largest[i] };
                wrong[i] |= u32::from(x.is_nan() | (x == f32::INFINITY));
            }
        }
        wrong.iter().all(|&wrong| wrong == 0)
    }
}

/// Lowest id of the largest logit; fails the queue if a logit is NaN or +inf.
fn argmax(maxima: &mut Vec<f32>, logits: &[f32], row: usize) -> usize {
    maxima.resize(logits.len().div_ceil(GROUP) * LANES, 0.0);
    if !note_maxima(maxima, logits) {
        let wrong = logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY).unwrap_or(0);
        fail(format!("Cannot sample row {row}: logit {wrong} is {}, expected a finite number", logits[wrong]));
    }
    let largest = maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        fail(format!("Cannot sample row {row}: every logit is -inf, expected one finite number"));
    }
    let start = maxima.iter().position(|&x| x == largest).unwrap_or(0) / LANES * GROUP;
    start + logits[start..].iter().position(|&x| x == largest).unwrap_or(0)
}

/// Collects ids of all logits that may be among the k largest: those that reach the k-th largest of the maxima.
fn collect(ids: &mut Vec<u32>, [maxima, copy]: &mut [Vec<f32>; 2], logits: &[f32], k: usize) {
    let mut least = f32::NEG_INFINITY;
    if k <= maxima.len() {
        copy.clone_from(maxima);
        least = *copy.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
    }
    for (set, _) in maxima.iter().enumerate().filter(|&(_, &largest)| largest >= least) {
        let start = set / LANES * GROUP;
        for i in (start + set % LANES..logits.len().min(start + GROUP)).step_by(LANES) {
            if logits[i] >= least {
                ids.push(i as u32);
            }
        }
    }
}

/// ln of sum_i exp(logits[i] - max): what a logit less max is above its log-probability.
pub(super) fn log_total(weights: &mut Vec<f32>, logits: &[f32], max: f32) -> f64 {
    weights.resize(logits.len(), 0.0);
    // SAFETY: both slices have V elements.
    unsafe { dispatch(Weights { y: weights, x: logits, max, factor: 1.0 }) }.ln()
}

/// log p of a logit.
pub(super) fn logprob(logit: f32, max: f32, log_total: f64) -> f32 {
    (f64::from(logit) - f64::from(max) - log_total) as f32
}

/// Ids of the rows and what is added to their logits before a token is drawn: row r has those of starts[r]..starts[r + 1].
#[derive(Clone, Copy)]
struct Biases {
    starts: Memory<i32>,
    ids: Memory<i32>,
    values: Memory<f32>,
}

impl Biases {
    /// Those of a row.
    fn of(&self, row: usize) -> (&[i32], &[f32]) {
        let [from, to] = [0, 1].map(|i| self.starts.get()[row + i]);
        let range = from as usize..to as usize;
        match (self.ids.get().get(range.clone()), self.values.get().get(range)) {
            (Some(ids), Some(values)) => (ids, values),
            _ => fail(format!(
                "Cannot sample row {row}: its biases are {from} to {to}, expected a range of the {} given",
                self.ids.len()
            )),
        }
    }
}

/// y = logits with the values added to those of the ids.
fn add_biases(y: &mut Vec<f32>, logits: &[f32], (ids, values): (&[i32], &[f32]), row: usize) {
    y.clear();
    y.extend_from_slice(logits);
    for (&id, &value) in ids.iter().zip(values) {
        match y.get_mut(id as usize) {
            Some(y) => *y += value,
            None => fail(format!("Cannot sample row {row}: a bias is of id {id}, expected 0 to {}", logits.len() - 1)),
        }
    }
}

/// What one row asks for.
struct Request {
    seed: u64,
    draw: i32,
    sample: i32,
    temperature: f32,
    top_k: i32,
    top_p: f32,
}

impl Request {
    fn check(&self, row: usize) {
        let Request { temperature, top_k, top_p, .. } = *self;
        if !temperature.is_finite() || temperature < 0.0 {
            fail(format!("Cannot sample row {row}: temperature {temperature}, expected a number of at least 0"));
        }
        if top_k < 0 {
            fail(format!("Cannot sample row {row}: top-k {top_k}, expected at least 0"));
        }
        if temperature > 0.0 && !(top_p > 0.0 && top_p <= 1.0) {
            fail(format!("Cannot sample row {row}: top-p {top_p}, expected above 0 and at most 1"));
        }
    }
}

/// Chooses an id with weights cut to top-k and top-p; the scratch has the maxima of the logits, `max` is the largest.
fn choose(scratch: &mut Scratch, logits: &[f32], request: &Request, max: f32) -> usize {
    let Scratch { weights, ids, maxima, kept, .. } = scratch;
    let factor = 1.0 / request.temperature;
    let u = f64::from(uniform(request.seed, request.draw as u32, request.sample as u32));
    let V = logits.len();
    let k = if request.top_k == 0 { V } else { V.min(request.top_k as usize) };
    if k == V {
        // SAFETY: both slices have V elements.
        let total = unsafe { dispatch(Weights { y: weights, x: logits, max, factor }) };
        if request.top_p >= 1.0 {
            return walk(weights, 0..V, u * total);
        }
    }
    // Order by logit, not by weight: weights may be equal (0) where logits are not.
    let order = |a: &u32, b: &u32| {
        let (x, y) = (logits[*a as usize], logits[*b as usize]);
        y.partial_cmp(&x).expect("NaN was refused").then(a.cmp(b))
    };
    ids.clear();
    if k == V {
        ids.extend(0..V as u32);
    } else {
        collect(ids, maxima, logits, k);
    }
    if ids.len() > k {
        ids.select_nth_unstable_by(k - 1, order);
        ids.truncate(k);
    }
    if k < V {
        let [x, y] = kept;
        x.clear();
        x.extend(ids.iter().map(|&i| logits[i as usize]));
        y.resize(k, 0.0);
        // SAFETY: both slices have k elements.
        unsafe { dispatch(Weights { y, x, max, factor }) };
        ids.iter().zip(y.iter()).for_each(|(&i, &y)| weights[i as usize] = y);
    }
    if request.top_p < 1.0 {
        let total: f64 = ids.iter().map(|&i| f64::from(weights[i as usize])).sum();
        let target = f64::from(request.top_p) * total;
        // Usually a few ids hold the mass: sort ever larger heads of the list instead of all of it.
        let (mut kept, mut mass, mut sorted) = (0, 0.0, 0);
        while kept < ids.len() && mass < target {
            if kept == sorted {
                let head = FIRST_HEAD.max(8 * sorted).min(ids.len() - sorted);
                if head < ids.len() - sorted {
                    ids[sorted..].select_nth_unstable_by(head, order);
                }
                ids[sorted..sorted + head].sort_unstable_by(order);
                sorted += head;
            }
            mass += f64::from(weights[ids[kept] as usize]);
            kept += 1;
        }
        ids.truncate(kept);
    }
    ids.sort_unstable();
    let total: f64 = ids.iter().map(|&i| f64::from(weights[i as usize])).sum();
    walk(weights, ids.iter().map(|&i| i as usize), u * total)
}

/// The first id whose running sum exceeds `target`; the last one with a weight where rounding leaves none.
fn walk(weights: &[f32], ids: impl Iterator<Item = usize>, target: f64) -> usize {
    let (mut sum, mut last) = (0.0, 0);
    for i in ids {
        if weights[i] > 0.0 {
            sum += f64::from(weights[i]);
            last = i;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// Draws an id from logits whose largest has the id `best`.
fn draw(scratch: &mut Scratch, logits: &[f32], best: usize, request: &Request) -> usize {
    if request.temperature == 0.0 { best } else { choose(scratch, logits, request, logits[best]) }
}

/// Samples one row: the id and its log-probability.
fn sample_row(
    row: usize,
    logits: &[f32],
    request: &Request,
    biases: (&[i32], &[f32]),
    with_logprob: bool,
) -> (usize, f32) {
    request.check(row);
    SCRATCH.with_borrow_mut(|scratch| {
        let best = argmax(&mut scratch.maxima[0], logits, row);
        scratch.weights.resize(logits.len(), 0.0);
        let id = if biases.0.is_empty() {
            draw(scratch, logits, best, request)
        } else {
            let mut changed = std::mem::take(&mut scratch.changed);
            add_biases(&mut changed, logits, biases, row);
            let best = argmax(&mut scratch.maxima[0], &changed, row);
            let id = draw(scratch, &changed, best, request);
            scratch.changed = changed;
            id
        };
        if !with_logprob {
            return (id, 0.0);
        }
        let max = logits[best];
        (id, logprob(logits[id], max, log_total(&mut scratch.weights, logits, max)))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_sample(
    ctx: *mut Context,
    ids: *mut c_void,
    logprobs: *mut c_void,
    logits: *mut c_void,
    seeds: *mut c_void,
    samples: *mut c_void,
    draws: *mut c_void,
    temperatures: *mut c_void,
    topK: *mut c_void,
    topP: *mut c_void,
    biasStarts: *mut c_void,
    biasIds: *mut c_void,
    biasValues: *mut c_void,
    rows: i32,
    V: i32,
    biases: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| -> Result<()> {
            let (n, size) = (count(&[rows])?, count(&[rows, V])?);
            let (ids, logits): (Memory<i32>, Memory<f32>) =
                (cx.memory(ids, n, "ids")?, cx.memory(logits, size, "logits")?);
            let logprobs: Option<Memory<f32>> = cx.optional(logprobs, n, "logprobs")?;
            let seeds: Memory<u64> = cx.memory(seeds, n, "seeds")?;
            let samples: Memory<i32> = cx.memory(samples, n, "samples")?;
            let draws: Memory<i32> = cx.memory(draws, n, "draws")?;
            let temperatures: Memory<f32> = cx.memory(temperatures, n, "temperatures")?;
            let (top_k, top_p): (Memory<i32>, Memory<f32>) = (cx.memory(topK, n, "topK")?, cx.memory(topP, n, "topP")?);
            let biases = match (cx.optional(biasStarts, n + 1, "biasStarts")?, count(&[biases])?) {
                (None, _) => None,
                (Some(starts), biases) => {
                    let ids = cx.memory(biasIds, biases, "biasIds")?;
                    Some(Biases { starts, ids, values: cx.memory(biasValues, biases, "biasValues")? })
                }
            };
            let V = V as usize;
            cx.enqueue("nc_sample", move || {
                if V == 0 && n > 0 {
                    fail("Cannot sample: the vocabulary is empty, expected at least one id".to_string());
                }
                pieces(n, 1, |r, _| {
                    let request = Request {
                        seed: seeds.get()[r],
                        draw: draws.get()[r],
                        sample: samples.get()[r],
                        temperature: temperatures.get()[r],
                        top_k: top_k.get()[r],
                        top_p: top_p.get()[r],
                    };
                    let own = biases.as_ref().map_or((&[][..], &[][..]), |biases| biases.of(r));
                    let logits = &logits.get()[r * V..(r + 1) * V];
                    let (id, logprob) = sample_row(r, logits, &request, own, logprobs.is_some());
                    ids.as_ptr().add(r).write(id as i32);
                    if let Some(logprobs) = logprobs {
                        logprobs.as_ptr().add(r).write(logprob);
                    }
                });
            })
        })
    }
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
