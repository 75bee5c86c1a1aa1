//! Products with int8 weights: y = epilogue(x W^T), W quantised once, x when it is multiplied.
//!
//! A row r of K elements, of W or of x, becomes q = round(r (127 / max |r|)), ties to even, with s = max |r| / 127. Then
//!
//!   h[i][j] = float(sum_k qx[i][k] qw[j][k]) sx[i] sw[j],   all in f32, from left to right
//!
//! The sum is an integer: y has the same bits for every instruction set, number of rows and threads. `vpdpbusd` multiplies bytes without
//! a sign by bytes with one, so W is stored as u = qw + 128 and 128 sum_k qx is taken off the sum, which may wrap on the way.
//!
//! A packed weight (N, K) is panels of quads, four bytes along K each, and behind them sw. A row with infinity or NaN gives
//! NaN; one whose elements are all smaller than 2^-120 counts as zero.

use crate::abi::DTYPE_F32;
use crate::cpu::convert::f32_from_bf16;
use crate::cpu::gemm::{Product, Right, View, product};
use crate::cpu::gemm_epilogue::{Epilogue, Output};
use crate::cpu::gemm_kernel::{Unit, tile};
use crate::cpu::gemm_pack::{Source, pack};
use crate::cpu::gemm_scratch::{B_SCRATCH, Scratch, Shared, TASK_SCRATCH};
use crate::cpu::isa::{Isa, by_isa};
use rayon::prelude::*;

/// Longest rows whose sums fit an i32: 127 * 127 * 2^17 < 2^31.
pub const MOST_DEPTH: usize = 1 << 17;
/// Elements of x that a task quantises at least.
const LEAST: usize = 1 << 14;
/// What is added to qw.
const OFFSET: i32 = 128;
/// A row of smaller numbers counts as zero: 2^-120.
const SMALLEST: f32 = f32::from_bits(7 << 23);
/// Adding it to a small number leaves an integer, rounded to even, in the low bits: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// What a row of x lost when it became integers.
#[derive(Clone, Copy, Debug)]
pub struct RowScale {
    scale: f32,
    /// OFFSET times the sum of the row.
    offset: i32,
}

/// From integer sums to h: scales of the rows of A and of the columns of B.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    rows: *const RowScale,
    columns: *const f32,
}

impl Scales {
    /// Turns integer sums, `ld` elements a row, into f32.
    ///
    /// # Safety
    /// The rows and columns from i0 and j0 on have scales, the sums are nobody else's.
    pub unsafe fn apply(&self, sums: *mut f32, ld: usize, (i0, rows): (usize, usize), (j0, columns): (usize, usize)) {
        for i in 0..rows {
            // SAFETY: by contract.
            let (row, sums, columns) = unsafe {
                let sums = std::slice::from_raw_parts_mut(sums.add(i * ld), columns);
                (self.rows.add(i0 + i).read(), sums, std::slice::from_raw_parts(self.columns.add(j0), columns))
            };
            scale_row(sums, columns, row.scale, row.offset);
        }
    }
}

by_isa! {
    fn scale_row(sums: &mut [f32], columns: &[f32], scale: f32, offset: i32) {
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = (sum.to_bits() as i32).wrapping_sub(offset) as f32 * scale * column;
        }
    }
}

/// Quantises a row to q, zeros behind it; gives its scale.
#[inline(always)]
fn quantise(q: &mut [i8], len: usize, at: impl Fn(usize) -> f32) -> f32 {
    // The bits of positive numbers are in their order, infinity and NaN above them.
    let largest = (0..len).fold(0, |most, i| (at(i).to_bits() & 0x7fff_ffff).max(most));
    let largest = f32::from_bits(largest);
    if largest < SMALLEST {
        q.fill(0);
        return 0.0;
    }
    if !largest.is_finite() {
        q.fill(0);
        return f32::NAN;
    }
    let inverse = 127.0 / largest;
    for (i, q) in q[..len].iter_mut().enumerate() {
        *q = (at(i) * inverse + ROUND).to_bits() as i8;
    }
    q[len..].fill(0);
    largest / 127.0
}

by_isa! {
    fn quantise_f32(q: &mut [i8], x: &[f32]) -> f32 {
        quantise(q, x.len(), |i| x[i])
    }
}

by_isa! {
    fn quantise_bf16(q: &mut [i8], x: &[u16]) -> f32 {
        quantise(q, x.len(), |i| f32_from_bf16(x[i]))
    }
}

by_isa! {
    fn sum(q: &[i8]) -> i32 {
        q.iter().map(|&q| i32::from(q)).sum()
    }
}

/// Quantises row `i` of a view with rows of k elements without gaps into `quads` quads.
unsafe fn quantise_row(q: &mut [i8], x: &View, i: usize, k: usize) -> f32 {
    let start = i as isize * x.rs;
    // SAFETY: the caller's row i has k elements.
    unsafe {
        if x.dtype == DTYPE_F32 {
            quantise_f32(q, std::slice::from_raw_parts(x.ptr.cast::<f32>().offset(start), k))
        } else {
            quantise_bf16(q, std::slice::from_raw_parts(x.ptr.cast::<u16>().offset(start), k))
        }
    }
}

/// Units (of 4 bytes) of a packed weight (n, k).
pub fn quantised_units(isa: Isa, n: usize, k: usize) -> usize {
    n.next_multiple_of(tile(isa).nr) * (k.div_ceil(4) + 1)
}

/// Quantises and packs a weight (n, k) of f32 or bf16 rows.
///
/// # Safety
/// The CPU has `isa`; the view's elements exist; dst has `quantised_units` units and nobody else uses it.
pub unsafe fn pack_quantised(isa: Isa, dst: *mut u32, w: View, n: usize, k: usize) {
    let (nr, quads) = (tile(isa).nr, k.div_ceil(4));
    let dst = Shared(dst);
    let panels = n.div_ceil(nr);
    (0..panels).into_par_iter().for_each(|p| {
        let mut scratch = Scratch::take(&TASK_SCRATCH);
        let rows = scratch.room(nr * quads);
        // SAFETY: each task writes its own panel and scales; the rest by contract.
        unsafe {
            let scales = dst.get().add(panels * nr * quads).cast::<f32>();
            let bytes = std::slice::from_raw_parts_mut(rows.cast::<i8>(), nr * quads * 4);
            for j in 0..nr {
                let q = &mut bytes[j * quads * 4..][..quads * 4];
                let exists = p * nr + j < n;
                let scale = if exists { quantise_row(q, &w, p * nr + j, k) } else { 0.0 };
                if !exists {
                    q.fill(0);
                }
                q.iter_mut().for_each(|q| *q ^= OFFSET as i8); // adds it modulo 256
                scales.add(p * nr + j).write(scale);
            }
            let source = Source {
                ptr: rows.cast(),
                ps: quads as isize,
                ks: 1,
                lines: nr,
                depth: quads,
                dtype: DTYPE_F32,
                relu2: false,
            };
            pack(isa, Unit::Single, nr, dst.get().add(p * nr * quads), nr * quads, &source, 0..1, 0, quads);
        }
        scratch.give(&TASK_SCRATCH);
    });
}

/// A weight (width, k) that `pack_quantised` made.
#[derive(Clone, Copy)]
pub struct Quantised {
    pub ptr: *const u32,
    pub width: usize,
}

/// C = epilogue(x W^T) with the first n rows of W; x is m rows of k elements, f32 or bf16.
///
/// # Safety
/// As `product`; w.width >= n.
pub unsafe fn product_int8(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    x: View,
    w: Quantised,
    c: Output,
    epilogue: Epilogue,
) {
    let quads = k.div_ceil(4);
    let mut scratch = Scratch::take(&B_SCRATCH); // the product packs no B
    let rows = scratch.room(m * (quads + 2));
    // SAFETY: the scratch has m rows of quads and m scales of two units behind them; the rest by contract.
    unsafe {
        let scales = Shared(rows.add(m * quads).cast::<RowScale>());
        let rows = Shared(rows);
        (0..m).into_par_iter().with_min_len(LEAST / k.max(1) + 1).for_each(|i| {
            let q = std::slice::from_raw_parts_mut(rows.get().add(i * quads).cast::<i8>(), quads * 4);
            let scale = quantise_row(q, &x, i, k);
            scales.get().add(i).write(RowScale { scale, offset: OFFSET * sum(q) });
        });
        let a = View::rows(rows.get().cast::<u8>(), quads, DTYPE_F32);
        let columns = w.ptr.add(w.width.next_multiple_of(tile(isa).nr) * quads).cast::<f32>();
        let b = Right::Quads { ptr: w.ptr, scales: Scales { rows: scales.get(), columns } };
        product(isa, &Product { m, n, k: quads, a, b, c, epilogue, symmetric: false });
    }
    scratch.give(&B_SCRATCH);
}

#[cfg(test)]
#[path = "gemm_int8_tests.rs"]
mod tests;
