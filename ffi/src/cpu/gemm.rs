//! The matrix product that every other operation builds on: C (+)= A B with fp32 accumulation.
//!
//! Each element of C is summed over k in a fixed order that depends on k alone, never on m, n or the number of threads.

use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use rayon::prelude::*;

/// A matrix operand: element (i, j) lies at `ptr + i * rs + j * cs`, strides in elements; dtype f32 or bf16.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub ptr: *const u8,
    pub rs: isize,
    pub cs: isize,
    pub dtype: i32,
}

// SAFETY: a view only reads, and whoever makes it keeps the elements alive and unwritten during the product.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Rows of `columns` elements without gaps.
    pub fn rows(ptr: *const u8, columns: usize, dtype: i32) -> Self {
        View { ptr, rs: columns as isize, cs: 1, dtype }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        View { rs: self.cs, cs: self.rs, ..self }
    }

    /// # Safety
    /// Element (i, j) exists.
    unsafe fn at(&self, i: usize, j: usize) -> f32 {
        let offset = i as isize * self.rs + j as isize * self.cs;
        // SAFETY: by contract.
        unsafe {
            match self.dtype {
                DTYPE_F32 => self.ptr.cast::<f32>().offset(offset).read(),
                _ => f32_from_bf16(self.ptr.cast::<u16>().offset(offset).read()),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Output(*mut u8);
// SAFETY: the tasks write disjoint tiles.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// C (+)= A B on the current rayon pool: `a` is m x k, `b` is k x n, C is row-major f32 or bf16 with `ldc` elements a row.
///
/// # Safety
/// All elements of the operands exist, C overlaps neither of them, and nobody else uses C meanwhile.
pub unsafe fn gemm(
    c: *mut u8,
    c_dtype: i32,
    ldc: usize,
    a: View,
    b: View,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    for dtype in [c_dtype, a.dtype, b.dtype] {
        assert!(dtype == DTYPE_F32 || dtype == DTYPE_BF16, "dtype {dtype}, expected f32 or bf16");
    }
    const ROWS: usize = 8;
    const COLUMNS: usize = 64;
    let c = Output(c);
    let (tall, wide) = (m.div_ceil(ROWS), n.div_ceil(COLUMNS));
    (0..tall * wide).into_par_iter().for_each(|tile| {
        let c = c;
        let (i0, j0) = (tile / wide * ROWS, tile % wide * COLUMNS);
        let (rows, columns) = (ROWS.min(m - i0), COLUMNS.min(n - j0));
        let mut sums = [[0f32; COLUMNS]; ROWS];
        // SAFETY: indices stay below m, n and k; this task alone writes the tile.
        unsafe {
            for p in 0..k {
                let mut line = [0f32; COLUMNS];
                for (j, value) in line[..columns].iter_mut().enumerate() {
                    *value = b.at(p, j0 + j);
                }
                for (i, sums) in sums[..rows].iter_mut().enumerate() {
                    let x = a.at(i0 + i, p);
                    for (sum, y) in sums.iter_mut().zip(&line) {
                        *sum += x * y;
                    }
                }
            }
            for (i, sums) in sums[..rows].iter().enumerate() {
                for (j, &sum) in sums[..columns].iter().enumerate() {
                    let at = (i0 + i) * ldc + j0 + j;
                    if c_dtype == DTYPE_F32 {
                        let y = c.0.cast::<f32>().add(at);
                        *y = if accumulate { *y + sum } else { sum };
                    } else {
                        let y = c.0.cast::<u16>().add(at);
                        *y = bf16_from_f32(if accumulate { f32_from_bf16(*y) + sum } else { sum });
                    }
                }
            }
        }
    });
}
