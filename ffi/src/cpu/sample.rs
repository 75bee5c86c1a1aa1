//! Draws one token per row from logits.
//!
//!   temperature 0: the largest logit, lowest id among equals
//!   else: weights exp((logit - max) / temperature) of the topK largest logits (exactly topK, lowest ids among equals; 0 = all), of
//!   these the smallest set with at least topP of their mass (largest first, lowest ids among equals; 1 = all); with u uniform from
//!   Philox(seed; draw, sample), the first id, in rising order, whose running sum exceeds u times the total.
//!   logprob = log softmax(logits)[id], at temperature 1 over the whole vocabulary.
//!
//! Each row is computed alone and in one order, so its result does not depend on the other rows. A NaN or +inf among the logits
//! fails the queue.

use crate::Context;
use crate::context::{Memory, count};
use crate::cpu::philox::uniform;
use crate::cpu::pieces::{fail, pieces};
use crate::cpu::simd::{Kernel, Lanes, dispatch};
use crate::guard::{Result, entry};
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

/// Scratch of a thread, kept between calls.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    ids: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lowest id of the largest logit; fails the queue if a logit is NaN or +inf.
fn argmax(logits: &[f32], row: usize) -> usize {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x.is_nan() || x == f32::INFINITY {
            fail(format!("Cannot sample row {row}: logit {i} is {x}, expected a finite number"));
        }
        if x > logits[best] {
            best = i;
        }
    }
    if logits[best] == f32::NEG_INFINITY {
        fail(format!("Cannot sample row {row}: every logit is -inf, expected one finite number"));
    }
    best
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

/// Chooses an id with the weights of `scratch`, cut to top-k and top-p.
fn choose(scratch: &mut Scratch, logits: &[f32], request: &Request, max: f32) -> usize {
    let Scratch { weights, ids } = scratch;
    // SAFETY: both slices have V elements.
    let mut total = unsafe { dispatch(Weights { y: weights, x: logits, max, factor: 1.0 / request.temperature }) };
    let u = f64::from(uniform(request.seed, request.draw as u32, request.sample as u32));
    let V = logits.len();
    let k = if request.top_k == 0 { V } else { V.min(request.top_k as usize) };
    if k == V && request.top_p >= 1.0 {
        return walk(weights, 0..V, u * total);
    }
    // Order by logit, not by weight: weights may be equal (0) where logits are not.
    let order = |a: &u32, b: &u32| {
        let (x, y) = (logits[*a as usize], logits[*b as usize]);
        y.partial_cmp(&x).expect("NaN was refused").then(a.cmp(b))
    };
    ids.clear();
    ids.extend(0..V as u32);
    if k < V {
        ids.select_nth_unstable_by(k - 1, order);
        ids.truncate(k);
    }
    if request.top_p < 1.0 {
        ids.sort_unstable_by(order);
        total = ids.iter().map(|&i| f64::from(weights[i as usize])).sum();
        let target = f64::from(request.top_p) * total;
        let mut mass = 0.0;
        let kept = ids.iter().position(|&i| {
            mass += f64::from(weights[i as usize]);
            mass >= target
        });
        ids.truncate(kept.map_or(ids.len(), |last| last + 1));
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

/// Samples one row: the id and its log-probability.
fn sample_row(row: usize, logits: &[f32], request: &Request, with_logprob: bool) -> (usize, f32) {
    request.check(row);
    let best = argmax(logits, row);
    let max = logits[best];
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.weights.resize(logits.len(), 0.0);
        let id = if request.temperature == 0.0 { best } else { choose(scratch, logits, request, max) };
        if !with_logprob {
            return (id, 0.0);
        }
        // SAFETY: both slices have V elements.
        let total = unsafe { dispatch(Weights { y: &mut scratch.weights, x: logits, max, factor: 1.0 }) };
        (id, (f64::from(logits[id]) - f64::from(max) - total.ln()) as f32)
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
    rows: i32,
    V: i32,
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
                    let (id, logprob) = sample_row(r, &logits.get()[r * V..(r + 1) * V], &request, logprobs.is_some());
                    ids.as_ptr().add(r).write(id as i32);
                    if let Some(logprobs) = logprobs {
                        logprobs.as_ptr().add(r).write(logprob);
                    }
                });
            })
        })
    }
}
