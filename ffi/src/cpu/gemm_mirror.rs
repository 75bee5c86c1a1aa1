//! The lower triangle of a symmetric matrix from its upper one, after a product that computed the upper one alone.

use crate::abi::DTYPE_F32;
use crate::cpu::gemm_epilogue::Output;
use crate::cpu::gemm_pack::Lanes;
use crate::cpu::gemm_scratch::Shared;
use crate::cpu::isa::Isa;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of one task; a multiple of every lane count.
const ROWS: usize = 128;

/// C[i][j] = C[j][i] below the diagonal of an n x n matrix, for the result of a `symmetric` product.
///
/// # Safety
/// The CPU has `isa`; C has n rows of n elements and nobody else uses it.
pub unsafe fn mirror(isa: Isa, c: &Output, n: usize) {
    let (ptr, ld, dtype) = (Shared(c.ptr), c.ld, c.dtype);
    (0..n.div_ceil(ROWS)).into_par_iter().for_each(|task| {
        let (c, rows) = (Output { ptr: ptr.get(), ld, dtype }, task * ROWS..n.min((task + 1) * ROWS));
        // SAFETY: by contract; tasks write below the diagonal of their own rows and read above it.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Avx512Bf16 => avx512(&c, rows, n),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2(&c, rows, n),
                _ => any::<4, [u32; 4]>(&c, rows, n),
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn avx512(c: &Output, rows: Range<usize>, n: usize) {
    // SAFETY: by the contract of `mirror`.
    unsafe { any::<16, std::arch::x86_64::__m512i>(c, rows, n) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(c: &Output, rows: Range<usize>, n: usize) {
    // SAFETY: by the contract of `mirror`.
    unsafe { any::<8, std::arch::x86_64::__m256i>(c, rows, n) }
}

/// Fills `rows` block by block: S x S elements from above the diagonal, transposed in registers.
#[inline(always)]
unsafe fn any<const S: usize, L: Lanes<S>>(c: &Output, rows: Range<usize>, n: usize) {
    let at = |i: usize, j: usize| i * c.ld + j;
    let f32s = c.dtype == DTYPE_F32;
    for i in rows.clone().step_by(S) {
        let height = S.min(n - i);
        for j in (0..=i).step_by(S) {
            let mut block = [L::zero(); S];
            for (k, row) in block.iter_mut().enumerate().take(n - j) {
                // SAFETY: rows j.. and columns i..i + height exist.
                *row = unsafe {
                    if f32s {
                        L::load(c.ptr.cast::<u32>().add(at(j + k, i)), height)
                    } else {
                        L::load_half(c.ptr.cast::<u16>().add(at(j + k, i)), height)
                    }
                };
            }
            L::transpose(&mut block);
            for (k, row) in block.iter().enumerate().take(height) {
                // A block on the diagonal keeps what lies above it.
                let width = if i == j { k } else { S };
                // SAFETY: rows i..i + height and columns j..j + width exist.
                unsafe {
                    if f32s {
                        row.store(c.ptr.cast::<u32>().add(at(i + k, j)), width);
                    } else {
                        row.store_half(c.ptr.cast::<u16>().add(at(i + k, j)), width);
                    }
                }
            }
        }
    }
}
