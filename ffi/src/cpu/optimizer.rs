//! Optimizer steps over flat f32 tensors: AdamW, Muon's momentum and update.
//!
//! Formulas: AdamW arXiv:1711.05101, algorithm 2 (decay first, bias-corrected moments, eps outside the corrected root); Muon as in
//! nanochat/muon.py (momentum is an average, Nesterov blend). Each step reads and writes every array once; rates come from the step
//! block (`hyper`, `scale`), so a recorded graph can be replayed with new ones. A scale that is not finite means "skip this step".

use crate::Context;
use crate::abi::{
    ADAMW_BETA1, ADAMW_BETA2, ADAMW_BIAS_CORRECTION1, ADAMW_BIAS_CORRECTION2, ADAMW_EPS, ADAMW_LR, ADAMW_WEIGHT_DECAY,
    DTYPE_BF16, DTYPE_F32, MUON_LR, MUON_MOMENTUM, MUON_WEIGHT_DECAY,
};
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::isa::by_isa;
use crate::guard::{Error, Result, entry};
use crate::memory::Memory;
use rayon::prelude::*;
use std::ffi::c_void;

/// Elements that one thread takes at a time: four f32 arrays of this length fit in a level-2 cache.
pub(crate) const CHUNK: usize = 8 << 10;
const ADAMW_SLOTS: usize = 7;
const MUON_SLOTS: usize = 3;

/// The rates of one AdamW step, folded once per call.
#[derive(Clone, Copy)]
struct AdamW {
    scale: f32,
    keep: f32, // 1 - lr * weight decay
    beta1: f32,
    beta2: f32,
    step: f32, // lr / bc1
    root: f32, // 1 / sqrt(bc2)
    eps: f32,
}

impl AdamW {
    fn new(hyper: &[f32], scale: f32) -> Self {
        let slot = |i: i32| hyper[i as usize];
        AdamW {
            scale,
            keep: 1.0 - slot(ADAMW_LR) * slot(ADAMW_WEIGHT_DECAY),
            beta1: slot(ADAMW_BETA1),
            beta2: slot(ADAMW_BETA2),
            step: slot(ADAMW_LR) / slot(ADAMW_BIAS_CORRECTION1),
            root: 1.0 / slot(ADAMW_BIAS_CORRECTION2).sqrt(),
            eps: slot(ADAMW_EPS),
        }
    }
}

by_isa! {
    fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], h: AdamW) {
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * h.scale;
            *m = normal(h.beta1 * *m + (1.0 - h.beta1) * g);
            *v = normal(h.beta2 * *v + (1.0 - h.beta2) * g * g);
            *p = *p * h.keep - h.step * *m / (v.sqrt() * h.root + h.eps);
        }
    }
}

/// Ends a decay at 0 instead of at denormal numbers: the averages of a token that is not seen for long stay there, and some processors
/// take many times as long for them.
#[inline(always)]
fn normal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

by_isa! {
    /// u is the Nesterov blend g + mu (m - g) of the updated average m.
    fn momentum(u: &mut [f32], m: &mut [f32], g: &[f32], mu: f32, scale: f32) {
        for ((u, m), g) in u.iter_mut().zip(m).zip(g) {
            let g = g * scale;
            *m += (1.0 - mu) * (g - *m);
            *u = g + mu * (*m - g);
        }
    }
}

by_isa! {
    /// As `momentum`, u in bf16.
    fn momentum_bf16(u: &mut [u16], m: &mut [f32], g: &[f32], mu: f32, scale: f32) {
        for ((u, m), g) in u.iter_mut().zip(m).zip(g) {
            let g = g * scale;
            *m += (1.0 - mu) * (g - *m);
            *u = bf16_from_f32(g + mu * (*m - g));
        }
    }
}

by_isa! {
    fn descend(p: &mut [f32], o: &[f32], keep: f32, step: f32) {
        for (p, o) in p.iter_mut().zip(o) {
            *p = *p * keep - step * o;
        }
    }
}

by_isa! {
    /// As `descend`, o in bf16.
    fn descend_bf16(p: &mut [f32], o: &[u16], keep: f32, step: f32) {
        for (p, o) in p.iter_mut().zip(o) {
            *p = *p * keep - step * f32_from_bf16(*o);
        }
    }
}

by_isa! {
    fn narrow(y: &mut [u16], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = bf16_from_f32(*x);
        }
    }
}

/// An f32 or bf16 array.
#[derive(Clone, Copy)]
pub(crate) enum Floats {
    F32(Memory<f32>),
    Bf16(Memory<u16>),
}

pub(crate) fn floats(cx: &Context, pointer: *mut c_void, n: usize, dtype: i32, name: &str) -> Result<Floats> {
    match dtype {
        DTYPE_F32 => Ok(Floats::F32(cx.memory(pointer, n, name)?)),
        DTYPE_BF16 => Ok(Floats::Bf16(cx.memory(pointer, n, name)?)),
        _ => Err(Error::invalid(format!("Cannot use {name}: dtype {dtype}, expected f32 or bf16"))),
    }
}

fn optional_floats(cx: &Context, pointer: *mut c_void, n: usize, dtype: i32, name: &str) -> Result<Option<Floats>> {
    if pointer.is_null() { Ok(None) } else { floats(cx, pointer, n, dtype, name).map(Some) }
}

/// The part of `x` that chunk `i` covers, to write.
fn part<T>(x: Memory<T>, i: usize) -> &'static mut [T] {
    let n = x.len().min((i + 1) * CHUNK) - i * CHUNK;
    // SAFETY: inside x, and chunks do not overlap.
    unsafe { std::slice::from_raw_parts_mut(x.as_ptr().add(i * CHUNK), n) }
}

/// The part of `x` that chunk `i` covers, to read.
fn read<T>(x: Memory<T>, i: usize) -> &'static [T] {
    &x.get()[i * CHUNK..x.len().min((i + 1) * CHUNK)]
}

impl Floats {
    /// Stores chunk `i` of the weights, which the caller has just left in the cache.
    fn store(self, i: usize, p: &[f32]) {
        match self {
            Floats::F32(y) => part(y, i).copy_from_slice(p),
            Floats::Bf16(y) => narrow(part(y, i), p),
        }
    }
}

pub(crate) fn len(n: i64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("Cannot use n = {n}, expected at least 0")))
}

fn factor_of(scale: Option<Memory<f32>>) -> f32 {
    scale.map_or(1.0, |scale| scale.get()[0])
}

/// Runs `work(i)` for every chunk of n elements.
fn each_chunk(n: usize, work: impl Fn(usize) + Sync + Send) {
    (0..n.div_ceil(CHUNK)).into_par_iter().for_each(work);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_adamw(
    ctx: *mut Context,
    p: *mut c_void,
    m: *mut c_void,
    v: *mut c_void,
    copy: *mut c_void,
    g: *mut c_void,
    hyper: *mut c_void,
    scale: *mut c_void,
    n: i64,
    dtype_copy: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let n = len(n)?;
            let (p, m, v) = (cx.memory::<f32>(p, n, "p")?, cx.memory::<f32>(m, n, "m")?, cx.memory::<f32>(v, n, "v")?);
            let copy = optional_floats(cx, copy, n, dtype_copy, "copy")?;
            let (g, hyper) = (cx.memory::<f32>(g, n, "g")?, cx.memory::<f32>(hyper, ADAMW_SLOTS, "hyper")?);
            let scale = cx.optional::<f32>(scale, 1, "scale")?;
            cx.enqueue("nc_adamw", move || {
                let factor = factor_of(scale);
                if !factor.is_finite() {
                    return;
                }
                let h = AdamW::new(hyper.get(), factor);
                each_chunk(n, |i| {
                    let p = part(p, i);
                    adamw(p, part(m, i), part(v, i), read(g, i), h);
                    if let Some(copy) = copy {
                        copy.store(i, p);
                    }
                });
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_muon_momentum(
    ctx: *mut Context,
    u: *mut c_void,
    m: *mut c_void,
    g: *mut c_void,
    hyper: *mut c_void,
    scale: *mut c_void,
    n: i64,
    dtype_u: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let n = len(n)?;
            let u = floats(cx, u, n, dtype_u, "u")?;
            let (m, g) = (cx.memory::<f32>(m, n, "m")?, cx.memory::<f32>(g, n, "g")?);
            let (hyper, scale) =
                (cx.memory::<f32>(hyper, MUON_SLOTS, "hyper")?, cx.optional::<f32>(scale, 1, "scale")?);
            cx.enqueue("nc_muon_momentum", move || {
                let (factor, mu) = (factor_of(scale), hyper.get()[MUON_MOMENTUM as usize]);
                each_chunk(n, |i| match u {
                    Floats::F32(u) if !factor.is_finite() => part(u, i).fill(0.0),
                    Floats::Bf16(u) if !factor.is_finite() => part(u, i).fill(0),
                    Floats::F32(u) => momentum(part(u, i), part(m, i), read(g, i), mu, factor),
                    Floats::Bf16(u) => momentum_bf16(part(u, i), part(m, i), read(g, i), mu, factor),
                });
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_muon_update(
    ctx: *mut Context,
    p: *mut c_void,
    copy: *mut c_void,
    o: *mut c_void,
    hyper: *mut c_void,
    scale: *mut c_void,
    n: i64,
    factor: f32,
    dtype_o: i32,
    dtype_copy: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let n = len(n)?;
            let p = cx.memory::<f32>(p, n, "p")?;
            let copy = optional_floats(cx, copy, n, dtype_copy, "copy")?;
            let o = floats(cx, o, n, dtype_o, "o")?;
            let (hyper, scale) =
                (cx.memory::<f32>(hyper, MUON_SLOTS, "hyper")?, cx.optional::<f32>(scale, 1, "scale")?);
            cx.enqueue("nc_muon_update", move || {
                if !factor_of(scale).is_finite() {
                    return;
                }
                let lr = hyper.get()[MUON_LR as usize];
                let (keep, step) = (1.0 - lr * hyper.get()[MUON_WEIGHT_DECAY as usize], lr * factor);
                each_chunk(n, |i| {
                    let p = part(p, i);
                    match o {
                        Floats::F32(o) => descend(p, read(o, i), keep, step),
                        Floats::Bf16(o) => descend_bf16(p, read(o, i), keep, step),
                    }
                    if let Some(copy) = copy {
                        copy.store(i, p);
                    }
                });
            })
        })
    }
}

#[cfg(test)]
#[path = "optimizer_tests.rs"]
mod tests;
