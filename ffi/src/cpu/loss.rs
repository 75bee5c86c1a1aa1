//! The end of the model in one op: lm_head, soft cap, cross-entropy and their gradients, `chunk` rows of logits at a time.
//!
//! h = x w^T (rows, V); l = cap * tanh(h / cap); loss = ln(sum_j e^l_j) - l_target (nanochat/gpt.py, forward).
//! d loss / d h_j = (p_j - [j = target]) * (1 - (l_j / cap)^2), p = softmax(l); dx = dh w, dw = dh^T x.
//! In bf16 h is rounded to bf16 once, everything up to dh is f32, and dh is bf16 for the two products.
//! Rows that nobody asks for (target -1) at the ends of a chunk never reach a product; between others they count as zeros.
//! Every row is computed from its own logits in a fixed order, so results do not depend on neighbours, chunks or threads, except dw,
//! which is summed chunk by chunk.

use crate::abi::{DTYPE_BF16, DTYPE_F32, STATUS_DATA};
use crate::context::{Context, Memory, count, element_bytes};
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::gemm::{View, gemm};
use crate::cpu::isa::by_isa;
use crate::cpu::math::{exp, tanh};
use crate::guard::{Error, Result, entry};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::Range;

/// Spare bytes at the end of the caller's scratch.
const SCRATCH_SPARE: usize = 64 << 10;
const LANES: usize = 32;
/// Elements whose sum is kept in f32 before it joins the f64 total.
const SUM_BLOCK: usize = 1024;

#[inline(always)]
fn cap_logit(h: f32, cap: f32, inverse: f32) -> f32 {
    cap * tanh(h * inverse)
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
    fn cap_row(l: &mut [f32], cap: f32) -> f32 {
        let inverse = 1.0 / cap;
        let mut largest = [-cap; LANES];
        let (lines, rest) = l.as_chunks_mut::<LANES>();
        for line in lines {
            for l in line.iter_mut() {
                *l = cap_logit(*l, cap, inverse);
            }
            raise(&mut largest, line);
        }
        for l in rest.iter_mut() {
            *l = cap_logit(*l, cap, inverse);
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
    fn sum_exp(l: &[f32], largest: f32) -> f64 {
        let mut total = 0.0;
        for block in l.chunks(SUM_BLOCK) {
            let mut sums = [0f32; LANES];
            let (lines, rest) = block.as_chunks::<LANES>();
            for line in lines {
                for (sum, &l) in sums.iter_mut().zip(line) {
                    *sum += exp(l - largest);
                }
            }
            for (sum, &l) in sums.iter_mut().zip(rest) {
                *sum += exp(l - largest);
            }
            total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        total
    }
}

by_isa! {
    /// As `sum_exp`, and replaces l_j by e^(l_j - largest) * (1 - (l_j / cap)^2): dh but for a factor of the row.
    fn sum_exp_and_bend(l: &mut [f32], largest: f32, cap: f32) -> f64 {
        let inverse = 1.0 / cap;
        let mut total = 0.0;
        for block in l.chunks_mut(SUM_BLOCK) {
            let mut sums = [0f32; LANES];
            let (lines, rest) = block.as_chunks_mut::<LANES>();
            for line in lines {
                for (sum, l) in sums.iter_mut().zip(line) {
                    let e = exp(*l - largest);
                    *sum += e;
                    *l = e * slope(*l, inverse);
                }
            }
            for (sum, l) in sums.iter_mut().zip(rest) {
                let e = exp(*l - largest);
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
struct Row {
    l: &'static mut [f32],
    largest: f32,
    sum: f64,
}

impl Row {
    /// -log p(id)
    fn loss(&self, id: usize) -> f32 {
        negative_log(self.l[id], self.largest, self.sum)
    }
}

/// -log p of a logit.
fn negative_log(l: f32, largest: f32, sum: f64) -> f32 {
    (f64::from(largest) - f64::from(l) + sum.ln()) as f32
}

/// The checked operands of both entries.
#[derive(Clone, Copy)]
struct Head {
    x: Memory<u8>,
    w: Memory<u8>,
    scratch: Memory<u8>,
    rows: usize,
    C: usize,
    V: usize,
    Vp: usize,
    chunk: usize,
    cap: f32,
    dtype: i32,
}

impl Head {
    fn new(
        cx: &Context,
        x: *mut c_void,
        w: *mut c_void,
        scratch: *mut c_void,
        [rows, C, V, Vp, chunk]: [i32; 5],
        cap: f32,
        dtype_x: i32,
        dtype_w: i32,
    ) -> Result<Self> {
        if dtype_x != dtype_w || (dtype_x != DTYPE_F32 && dtype_x != DTYPE_BF16) {
            return Err(Error::invalid(format!(
                "Cannot apply lm_head: x has dtype {dtype_x} and w {dtype_w}, expected both f32 or both bf16"
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
        Ok(Head {
            x: cx.tensor(x, count(&[rows, C])?, dtype_x, "x")?,
            w: cx.tensor(w, count(&[Vp, C])?, dtype_w, "w")?,
            scratch: cx.memory(scratch, bytes, "scratch")?,
            rows: count(&[rows])?,
            C: count(&[C])?,
            V: V as usize,
            Vp: Vp as usize,
            chunk: chunk as usize,
            cap,
            dtype: dtype_x,
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
    fn area(&self) -> *mut u8 {
        if self.dtype == DTYPE_F32 { self.scratch.as_ptr() } else { self.bf16_area() }
    }

    fn x_rows(&self, first: usize) -> View {
        View::rows(self.x.get()[self.offset(first)..].as_ptr(), self.C, self.dtype)
    }

    fn w_rows(&self) -> View {
        View::rows(self.w.as_ptr(), self.C, self.dtype)
    }

    /// Byte offset of a row of x or dx.
    fn offset(&self, row: usize) -> usize {
        row * self.C * if self.dtype == DTYPE_F32 { 4 } else { 2 }
    }

    /// h of `rows`, into the scratch.
    fn multiply(&self, rows: &Range<usize>) {
        let (x, w) = (self.x_rows(rows.start), self.w_rows().transposed());
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
    fn row(&self, i: usize) -> Row {
        let (l, largest) = self.cap(i);
        let sum = sum_exp(l, largest);
        Row { l, largest, sum }
    }

    /// Gives the loss of the chunk's row i and turns the row into dh.
    fn differentiate(&self, i: usize, target: usize, weight: f32) -> f32 {
        let (l, largest) = self.cap(i);
        let hit = l[target];
        let sum = sum_exp_and_bend(l, largest, self.cap);
        let share = (1.0 / sum) as f32;
        let at_target = weight * (exp(hit - largest) * share - 1.0) * slope(hit, 1.0 / self.cap);
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
    fn clear(&self, i: usize) {
        if self.dtype == DTYPE_F32 { self.f32_row(i).fill(0.0) } else { self.bf16_row(i).fill(0) }
    }

    /// Calls `work` for chunks that begin and end with an active row; rows between chunks are inactive.
    fn chunks(&self, active: impl Fn(usize) -> bool, mut work: impl FnMut(Range<usize>)) {
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
struct Targets(Memory<i32>);

impl Targets {
    /// Ends the job unless every target is an id or -1.
    fn check(self, V: usize) {
        if let Some((row, id)) =
            self.0.get().iter().enumerate().find(|&(_, &id)| id < -1 || (id >= 0 && id as usize >= V))
        {
            let message = format!("Cannot compute the loss: target {row} is {id}, expected -1 or an id below {V}");
            Error::new(STATUS_DATA, message).fail();
        }
    }

    fn of(self, row: usize) -> Option<usize> {
        usize::try_from(self.0.get()[row]).ok()
    }
}

/// Stores an element that no other task touches.
fn set<T>(y: Option<Memory<T>>, i: usize, value: T) {
    if let Some(y) = y {
        assert!(i < y.len());
        // SAFETY: inside y.
        unsafe { y.as_ptr().add(i).write(value) }
    }
}

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

/// Keeps the k largest logits, the lower id first among equals.
fn top(best: &mut Vec<(f32, i32)>, l: &[f32], k: usize) {
    best.clear();
    for (id, &l) in l.iter().enumerate() {
        if best.len() == k {
            if best.last().is_none_or(|&(worst, _)| l <= worst) {
                continue;
            }
            best.pop();
        }
        let at = best.partition_point(|&(other, _)| other >= l);
        best.insert(at, (l, id as i32));
    }
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
    use crate::abi::STATUS_INVALID;
    use crate::cpu::testing::{Rig, assert_close, from_bf16, random, rounded, to_bf16};

    const CAP: f32 = 15.0;

    /// Inputs of one case; x and w are exact in `dtype`.
    struct Case {
        rows: usize,
        C: usize,
        V: usize,
        Vp: usize,
        dtype: i32,
        x: Vec<f32>,
        w: Vec<f32>,
        targets: Vec<i32>,
        weights: Vec<f32>,
    }

    struct Results {
        losses: Vec<f32>,
        dx: Vec<f32>,
        dw: Vec<f32>,
    }

    impl Case {
        fn new([rows, C, V, Vp]: [usize; 4], dtype: i32) -> Self {
            let exact = |x: Vec<f32>| if dtype == DTYPE_F32 { x } else { rounded(&x) };
            // Logits of a few units and more: the soft cap bends them.
            let (x, w) = (exact(random(rows * C, 0, 2.0)), exact(random(Vp * C, 1, 6.0 / (C as f32).sqrt())));
            let ids = random(rows, 2, 0.5);
            let targets =
                ids.iter().enumerate().map(|(i, u)| if i % 5 == 3 { -1 } else { ((u + 0.5) * V as f32) as i32 });
            Case { rows, C, V, Vp, dtype, x, w, targets: targets.collect(), weights: random(rows, 3, 0.5) }
        }

        fn put(&self, rig: &Rig, x: &[f32]) -> *mut c_void {
            if self.dtype == DTYPE_F32 { rig.put(x) } else { rig.put(&to_bf16(x)) }
        }

        fn scratch(&self, rig: &Rig, chunk: usize) -> *mut c_void {
            let bytes = chunk * self.Vp * (4 + element_bytes(self.dtype).unwrap()) + SCRATCH_SPARE;
            rig.put(&vec![0xffu8; bytes])
        }

        /// Runs the op on poisoned outputs (or on dw = 1 when accumulating).
        fn run(&self, threads: usize, chunk: usize, accumulate: bool) -> Results {
            let rig = Rig::new(threads);
            let nan = |n: usize| vec![f32::NAN; n];
            let losses = rig.put(&nan(self.rows));
            let dx = self.put(&rig, &nan(self.rows * self.C));
            let dw = rig.put(&if accumulate { vec![1.0; self.Vp * self.C] } else { nan(self.Vp * self.C) });
            let (x, w) = (self.put(&rig, &self.x), self.put(&rig, &self.w));
            let (targets, weights) = (rig.put(&self.targets), rig.put(&self.weights));
            let scratch = self.scratch(&rig, chunk);
            let [rows, C, V, Vp, chunk] = [self.rows, self.C, self.V, self.Vp, chunk].map(|n| n as i32);
            let (add, dtype) = (i32::from(accumulate), self.dtype);
            // SAFETY: a live context and its memory.
            rig.ok(unsafe {
                nc_lm_head_loss(
                    rig.ctx(),
                    losses,
                    dx,
                    dw,
                    x,
                    w,
                    targets,
                    weights,
                    scratch,
                    rows,
                    C,
                    V,
                    Vp,
                    chunk,
                    CAP,
                    add,
                    dtype,
                    dtype,
                )
            });
            let n = self.rows * self.C;
            Results {
                losses: rig.get(losses, self.rows),
                dx: if dtype == DTYPE_F32 { rig.get(dx, n) } else { from_bf16(&rig.get(dx, n)) },
                dw: rig.get(dw, self.Vp * self.C),
            }
        }

        /// Capped logits of a row in f64 (h rounded to bf16 in a bf16 model).
        fn logits(&self, x: &[f64], w: &[f64], row: usize) -> Vec<f64> {
            (0..self.V)
                .map(|j| {
                    let h: f64 = (0..self.C).map(|c| x[row * self.C + c] * w[j * self.C + c]).sum();
                    let h = if self.dtype == DTYPE_BF16 { f64::from(rounded(&[h as f32])[0]) } else { h };
                    f64::from(CAP) * (h / f64::from(CAP)).tanh()
                })
                .collect()
        }

        /// The losses and the gradients by plain loops in f64.
        fn reference(&self) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let (x, w) = (wide(&self.x), wide(&self.w));
            let (mut losses, mut dx, mut dw) =
                (vec![0.0; self.rows], vec![0.0; self.rows * self.C], vec![0.0; self.Vp * self.C]);
            for row in 0..self.rows {
                let Ok(target) = usize::try_from(self.targets[row]) else { continue };
                let l = self.logits(&x, &w, row);
                let sum: f64 = l.iter().map(|l| l.exp()).sum();
                losses[row] = sum.ln() - l[target];
                for (j, l) in l.iter().enumerate() {
                    let hit = if j == target { 1.0 } else { 0.0 };
                    let t = l / f64::from(CAP);
                    let dh = f64::from(self.weights[row]) * (l.exp() / sum - hit) * (1.0 - t * t);
                    for c in 0..self.C {
                        dx[row * self.C + c] += dh * w[j * self.C + c];
                        dw[j * self.C + c] += dh * x[row * self.C + c];
                    }
                }
            }
            (losses, dx, dw)
        }

        /// Tolerances of losses and gradients. f32: unit roundoff times magnitude (30 logits, 8 gradients) times the random walk of C
        /// terms. bf16: dh is rounded once more, and an h next to a rounding border may land on its other side.
        fn tolerances(&self) -> (f64, f64) {
            let walk = 2f64.powi(-24) * (self.C as f64).sqrt();
            if self.dtype == DTYPE_F32 { (30.0 * walk, 8.0 * walk) } else { (2f64.powi(-5), 2f64.powi(-6)) }
        }
    }

    const SHAPES: [[usize; 4]; 4] = [[37, 30, 130, 192], [64, 64, 500, 512], [1, 8, 1, 64], [9, 16, 1500, 1536]];

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
