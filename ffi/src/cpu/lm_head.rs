//! The head of the model, shared by the loss and the scores: logits of `chunk` rows at a time, soft cap, softmax, gradient of a row.
//!
//! h = x w^T (rows, V); l = cap * tanh(h / cap); p = softmax(l) (nanochat/gpt.py, forward).
//! In bf16 h is rounded to bf16 once, everything up to dh is f32, and dh is bf16 for the products that follow.
//! Every row is computed from its own logits in a fixed order, so it does not depend on its neighbours, the chunks or the threads.

use crate::abi::{DTYPE_BF16, DTYPE_F32, DTYPE_I8, STATUS_DATA};
use crate::context::Context;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::gemm::{View, gemm};
use crate::cpu::gemm_epilogue::{Epilogue, Output};
use crate::cpu::gemm_int8::{Quantised, product_int8};
use crate::cpu::isa::{by_isa, isa};
use crate::cpu::linear::int8_units;
use crate::cpu::math::{exp, tanh};
use crate::guard::{Error, Result};
use crate::memory::{Memory, count, element_bytes};
use std::ffi::c_void;
use std::ops::Range;

/// Spare bytes at the end of the caller's scratch.
pub(super) const SCRATCH_SPARE: usize = 64 << 10;
const LANES: usize = 32;
/// Elements whose sum is kept in f32 before it joins the f64 total.
const SUM_BLOCK: usize = 1024;

#[inline(always)]
fn cap_logit(fused: bool, h: f32, cap: f32, inverse: f32) -> f32 {
    cap * tanh(fused, h * inverse)
}

/// Keeps the larger number lane by lane: a loop over one running maximum would not become vector code.
#[inline(always)]
fn raise(largest: &mut [f32; LANES], l: &[f32]) {
    for (largest, &l) in largest.iter_mut().zip(l) {
        *largest = if l > *largest { l } else { *largest };
    }
}

by_isa! {
    /// Turns raw logits into capped ones and gives the largest.
    fn cap_row fused FUSED(l: &mut [f32], cap: f32) -> f32 {
        let inverse = 1.0 / cap;
        let mut largest = [-cap; LANES];
        let (lines, rest) = l.as_chunks_mut::<LANES>();
        for line in lines {
            for l in line.iter_mut() {
                *l = cap_logit(FUSED, *l, cap, inverse);
            }
            raise(&mut largest, line);
        }
        for l in rest.iter_mut() {
            *l = cap_logit(FUSED, *l, cap, inverse);
        }
        raise(&mut largest, rest);
        largest.into_iter().fold(-cap, f32::max)
    }
}

by_isa! {
    /// As `cap_row`, from bf16.
    fn cap_row_bf16(l: &mut [f32], h: &[u16], cap: f32) -> f32 {
        for (l, &h) in l.iter_mut().zip(h) {
            *l = f32_from_bf16(h);
        }
        cap_row(l, cap)
    }
}

by_isa! {
    /// sum_j e^(l_j - largest)
    fn sum_exp fused FUSED(l: &[f32], largest: f32) -> f64 {
        let mut total = 0.0;
        for block in l.chunks(SUM_BLOCK) {
            let mut sums = [0f32; LANES];
            let (lines, rest) = block.as_chunks::<LANES>();
            for line in lines {
                for (sum, &l) in sums.iter_mut().zip(line) {
                    *sum += exp(FUSED, l - largest);
                }
            }
            for (sum, &l) in sums.iter_mut().zip(rest) {
                *sum += exp(FUSED, l - largest);
            }
            total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        total
    }
}

by_isa! {
    /// As `sum_exp`, and replaces l_j by e^(l_j - largest) * (1 - (l_j / cap)^2): dh but for a factor of the row.
    fn sum_exp_and_bend fused FUSED(l: &mut [f32], largest: f32, cap: f32) -> f64 {
        let inverse = 1.0 / cap;
        let mut total = 0.0;
        for block in l.chunks_mut(SUM_BLOCK) {
            let mut sums = [0f32; LANES];
            let (lines, rest) = block.as_chunks_mut::<LANES>();
            for line in lines {
                for (sum, l) in sums.iter_mut().zip(line) {
                    let e = exp(FUSED, *l - largest);
                    *sum += e;
                    *l = e * slope(*l, inverse);
                }
            }
            for (sum, l) in sums.iter_mut().zip(rest) {
                let e = exp(FUSED, *l - largest);
                *sum += e;
                *l = e * slope(*l, inverse);
            }
            total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        total
    }
}

/// dl/dh of the soft cap.
#[inline(always)]
fn slope(l: f32, inverse: f32) -> f32 {
    let t = l * inverse;
    1.0 - t * t
}

by_isa! {
    fn scale_row(dh: &mut [f32], factor: f32) {
        for dh in dh {
            *dh *= factor;
        }
    }
}

by_isa! {
    /// As `scale_row`, from `bent` into bf16.
    fn scale_row_bf16(dh: &mut [u16], bent: &[f32], factor: f32) {
        for (dh, &bent) in dh.iter_mut().zip(bent) {
            *dh = bf16_from_f32(factor * bent);
        }
    }
}

/// A row after the soft cap: its logits, the largest of them, sum_j e^(l_j - largest).
pub(super) struct Row {
    pub(super) l: &'static mut [f32],
    pub(super) largest: f32,
    pub(super) sum: f64,
}

impl Row {
    /// -log p(id)
    pub(super) fn loss(&self, id: usize) -> f32 {
        negative_log(self.l[id], self.largest, self.sum)
    }
}

/// -log p of a logit.
fn negative_log(l: f32, largest: f32, sum: f64) -> f32 {
    (f64::from(largest) - f64::from(l) + sum.ln()) as f32
}

/// The checked operands of both entries.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) x: Memory<u8>,
    pub(super) w: Memory<u8>,
    pub(super) scratch: Memory<u8>,
    pub(super) rows: usize,
    pub(super) C: usize,
    pub(super) V: usize,
    pub(super) Vp: usize,
    pub(super) chunk: usize,
    pub(super) cap: f32,
    pub(super) dtype: i32,
    /// w is what nc_pack made of it in i8.
    pub(super) quantised: bool,
}

impl Head {
    pub(super) fn new(
        cx: &Context,
        x: *mut c_void,
        w: *mut c_void,
        scratch: *mut c_void,
        [rows, C, V, Vp, chunk]: [i32; 5],
        cap: f32,
        dtype_x: i32,
        dtype_w: i32,
    ) -> Result<Self> {
        let quantised = dtype_w == DTYPE_I8;
        if (dtype_x != dtype_w && !quantised) || (dtype_x != DTYPE_F32 && dtype_x != DTYPE_BF16) {
            return Err(Error::invalid(format!(
                "Cannot apply lm_head: x has dtype {dtype_x} and w {dtype_w}, expected both f32 or both bf16, or w i8"
            )));
        }
        if V < 1 || Vp < V || chunk < 1 {
            return Err(Error::invalid(format!(
                "Cannot apply lm_head: V = {V}, Vp = {Vp}, chunk = {chunk}, expected 1 <= V <= Vp and chunk >= 1"
            )));
        }
        if !(cap > 0.0 && cap.is_finite()) {
            return Err(Error::invalid(format!("Cannot apply lm_head: softcap is {cap}, expected a positive number")));
        }
        let bytes = count(&[chunk, Vp])?.saturating_mul(4 + element_bytes(dtype_x)?).saturating_add(SCRATCH_SPARE);
        let of_w = count(&[Vp, C])?;
        let of_w = if quantised { 4 * int8_units("apply lm_head", Vp as usize, count(&[C])?)? } else { of_w };
        Ok(Head {
            x: cx.tensor(x, count(&[rows, C])?, dtype_x, "x")?,
            w: cx.tensor(w, of_w, dtype_w, "w")?,
            scratch: cx.memory(scratch, bytes, "scratch")?,
            rows: count(&[rows])?,
            C: count(&[C])?,
            V: V as usize,
            Vp: Vp as usize,
            chunk: chunk as usize,
            cap,
            dtype: dtype_x,
            quantised,
        })
    }

    /// f32 logits of the chunk's row i; dh of an f32 model takes their place.
    fn f32_row(&self, i: usize) -> &'static mut [f32] {
        // SAFETY: the first chunk * Vp * 4 bytes of scratch, 64-byte aligned; one task at a time works on a row.
        unsafe { std::slice::from_raw_parts_mut(self.scratch.as_ptr().cast::<f32>().add(i * self.Vp), self.V) }
    }

    /// The bf16 half of the scratch, behind the f32 logits.
    fn bf16_area(&self) -> *mut u8 {
        // SAFETY: inside scratch: the spare bytes cover the rounding.
        unsafe { self.scratch.as_ptr().add((self.chunk * self.Vp * 4).next_multiple_of(64)) }
    }

    /// bf16 h of the chunk's row i; dh takes their place.
    fn bf16_row(&self, i: usize) -> &'static mut [u16] {
        // SAFETY: chunk * Vp * 2 bytes of the bf16 area belong to the rows; one task at a time works on a row.
        unsafe { std::slice::from_raw_parts_mut(self.bf16_area().cast::<u16>().add(i * self.Vp), self.V) }
    }

    /// The area of h and dh.
    pub(super) fn area(&self) -> *mut u8 {
        if self.dtype == DTYPE_F32 { self.scratch.as_ptr() } else { self.bf16_area() }
    }

    pub(super) fn x_rows(&self, first: usize) -> View {
        View::rows(self.x.get()[self.offset(first)..].as_ptr(), self.C, self.dtype)
    }

    pub(super) fn w_rows(&self) -> View {
        View::rows(self.w.as_ptr(), self.C, self.dtype)
    }

    /// Byte offset of a row of x or dx.
    pub(super) fn offset(&self, row: usize) -> usize {
        row * self.C * if self.dtype == DTYPE_F32 { 4 } else { 2 }
    }

    /// h of `rows`, into the scratch.
    pub(super) fn multiply(&self, rows: &Range<usize>) {
        let x = self.x_rows(rows.start);
        if self.quantised {
            let w = Quantised { ptr: self.w.as_ptr().cast(), width: self.Vp };
            let c = Output { ptr: self.area(), ld: self.Vp, dtype: self.dtype };
            let epilogue = Epilogue::Plain { accumulate: false };
            // SAFETY: as below.
            return unsafe { product_int8(isa(), (rows.len(), self.V, self.C), x, w, c, epilogue) };
        }
        let w = self.w_rows().transposed();
        // SAFETY: rows <= chunk rows of scratch; operands are inside their checked memory.
        unsafe { gemm(self.area(), self.dtype, self.Vp, x, w, rows.len(), self.V, self.C, false) }
    }

    /// Caps the chunk's row i; gives the logits and the largest.
    fn cap(&self, i: usize) -> (&'static mut [f32], f32) {
        let l = self.f32_row(i);
        let largest =
            if self.dtype == DTYPE_F32 { cap_row(l, self.cap) } else { cap_row_bf16(l, self.bf16_row(i), self.cap) };
        (l, largest)
    }

    /// Caps the chunk's row i and sums its exponentials.
    pub(super) fn row(&self, i: usize) -> Row {
        let (l, largest) = self.cap(i);
        let sum = sum_exp(l, largest);
        Row { l, largest, sum }
    }

    /// Gives the loss of the chunk's row i and turns the row into dh.
    pub(super) fn differentiate(&self, i: usize, target: usize, weight: f32) -> f32 {
        let (l, largest) = self.cap(i);
        let hit = l[target];
        let sum = sum_exp_and_bend(l, largest, self.cap);
        let share = (1.0 / sum) as f32;
        // Once a row: in the form that every CPU has.
        let at_target = weight * (exp(false, hit - largest) * share - 1.0) * slope(hit, 1.0 / self.cap);
        if self.dtype == DTYPE_F32 {
            scale_row(l, weight * share);
            l[target] = at_target;
        } else {
            let dh = self.bf16_row(i);
            scale_row_bf16(dh, l, weight * share);
            dh[target] = bf16_from_f32(at_target);
        }
        negative_log(hit, largest, sum)
    }

    /// Zeroes dh of the chunk's row i.
    pub(super) fn clear(&self, i: usize) {
        if self.dtype == DTYPE_F32 { self.f32_row(i).fill(0.0) } else { self.bf16_row(i).fill(0) }
    }

    /// Calls `work` for chunks that begin and end with an active row; rows between chunks are inactive.
    pub(super) fn chunks(&self, active: impl Fn(usize) -> bool, mut work: impl FnMut(Range<usize>)) {
        let mut next = 0;
        while let Some(first) = (next..self.rows).find(|&row| active(row)) {
            let end = self.rows.min(first + self.chunk);
            let last = (first..end).rfind(|&row| active(row)).unwrap_or(first);
            work(first..last + 1);
            next = end;
        }
    }
}

/// Targets of the rows: ids below V, or -1 for a row without one.
#[derive(Clone, Copy)]
pub(super) struct Targets(pub(super) Memory<i32>);

impl Targets {
    /// Ends the job unless every target is an id or -1.
    pub(super) fn check(self, V: usize) {
        if let Some((row, id)) =
            self.0.get().iter().enumerate().find(|&(_, &id)| id < -1 || (id >= 0 && id as usize >= V))
        {
            let message = format!("Cannot compute the loss: target {row} is {id}, expected -1 or an id below {V}");
            Error::new(STATUS_DATA, message).fail();
        }
    }

    pub(super) fn of(self, row: usize) -> Option<usize> {
        usize::try_from(self.0.get()[row]).ok()
    }
}

/// Stores an element that no other task touches.
pub(super) fn set<T>(y: Option<Memory<T>>, i: usize, value: T) {
    if let Some(y) = y {
        assert!(i < y.len());
        // SAFETY: inside y.
        unsafe { y.as_ptr().add(i).write(value) }
    }
}

#[cfg(test)]
#[path = "lm_head_cases.rs"]
pub(super) mod cases;
