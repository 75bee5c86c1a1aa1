//! The vector registers behind packing (`gemm_pack.rs`) on x86-64.

use crate::cpu::gemm_kernel::Unit;
use crate::cpu::gemm_pack::{Lanes, Source, any};
use std::arch::x86_64::*;

/// # Safety
/// The CPU has AVX2; the rest as `gemm_pack::pack`.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn avx2<const W: usize>(unit: Unit, dst: *mut u32, source: &Source, p0: usize, from: usize, to: usize) {
    // SAFETY: by contract.
    unsafe { any::<W, 8, __m256i>(unit, dst, source, p0, from, to) }
}

/// # Safety
/// The CPU has AVX-512 (F, BW, VL, DQ); the rest as `gemm_pack::pack`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub unsafe fn avx512<const W: usize>(unit: Unit, dst: *mut u32, source: &Source, p0: usize, from: usize, to: usize) {
    // SAFETY: by contract.
    unsafe { any::<W, 16, __m512i>(unit, dst, source, p0, from, to) }
}

/// Quiet bit of a bf16 NaN.
const QUIET: i32 = 0x40;

impl Lanes<8> for __m256i {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: here and below: only reached through `avx2`.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(x: *const u32, n: usize) -> Self {
        unsafe { if n >= 8 { _mm256_loadu_si256(x.cast()) } else { _mm256_maskload_epi32(x.cast(), first(n)) } }
    }
    #[inline(always)]
    unsafe fn load_half(x: *const u16, n: usize) -> Self {
        unsafe {
            if n >= 8 {
                return _mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()));
            }
            let mut part = [0u16; 8];
            for (i, half) in part.iter_mut().enumerate().take(n) {
                *half = x.add(i).read();
            }
            _mm256_cvtepu16_epi32(_mm_loadu_si128(part.as_ptr().cast()))
        }
    }
    #[inline(always)]
    unsafe fn store(self, y: *mut u32, n: usize) {
        unsafe {
            if n >= 8 {
                _mm256_storeu_si256(y.cast(), self);
            } else {
                _mm256_maskstore_epi32(y.cast(), first(n), self);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, y: *mut u16, n: usize) {
        let mut units = [0u32; 8];
        unsafe {
            _mm256_storeu_si256(units.as_mut_ptr().cast(), self);
            units.store_half(y, n);
        }
    }
    #[inline(always)]
    fn shift_left(self) -> Self {
        unsafe { _mm256_slli_epi32::<16>(self) }
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        unsafe { _mm256_or_si256(self, other) }
    }
    #[inline(always)]
    fn round(self) -> Self {
        unsafe {
            let high = _mm256_srli_epi32::<16>(self);
            let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(self, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let x = _mm256_castsi256_ps(self);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
            let quiet = _mm256_or_si256(high, _mm256_set1_epi32(QUIET));
            _mm256_blendv_epi8(_mm256_srli_epi32::<16>(up), quiet, nan)
        }
    }
    #[inline(always)]
    fn relu2(self) -> Self {
        unsafe {
            let x = _mm256_max_ps(_mm256_castsi256_ps(self), _mm256_setzero_ps());
            _mm256_castps_si256(_mm256_mul_ps(x, x))
        }
    }
    #[inline(always)]
    fn relu2_of_high(self) -> Self {
        unsafe { _mm256_and_si256(self, _mm256_set1_epi32(0xffff_0000u32 as i32)) }.relu2()
    }
    #[inline(always)]
    fn prefetch(place: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 8]) {
        let x = *rows;
        let (mut s, mut t) = (x, x);
        unsafe {
            for i in 0..4 {
                s[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
                s[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..2 {
                for j in 0..2 {
                    t[4 * i + 2 * j] = _mm256_unpacklo_epi64(s[4 * i + j], s[4 * i + 2 + j]);
                    t[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(s[4 * i + j], s[4 * i + 2 + j]);
                }
            }
            for i in 0..4 {
                rows[i] = _mm256_permute2x128_si256::<0x20>(t[i], t[i + 4]);
                rows[i + 4] = _mm256_permute2x128_si256::<0x31>(t[i], t[i + 4]);
            }
        }
    }
}

/// A mask of the first n of 8 lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

impl Lanes<16> for __m512i {
    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: here and below: only reached through `avx512`.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(x: *const u32, n: usize) -> Self {
        unsafe { if n >= 16 { _mm512_loadu_si512(x.cast()) } else { _mm512_maskz_loadu_epi32(bits(n), x.cast()) } }
    }
    #[inline(always)]
    unsafe fn load_half(x: *const u16, n: usize) -> Self {
        unsafe {
            let halves =
                if n >= 16 { _mm256_loadu_si256(x.cast()) } else { _mm256_maskz_loadu_epi16(bits(n), x.cast()) };
            _mm512_cvtepu16_epi32(halves)
        }
    }
    #[inline(always)]
    unsafe fn store(self, y: *mut u32, n: usize) {
        unsafe {
            if n >= 16 {
                _mm512_storeu_si512(y.cast(), self);
            } else {
                _mm512_mask_storeu_epi32(y.cast(), bits(n), self);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, y: *mut u16, n: usize) {
        unsafe {
            let halves = _mm512_cvtepi32_epi16(self);
            if n >= 16 {
                _mm256_storeu_si256(y.cast(), halves);
            } else {
                _mm256_mask_storeu_epi16(y.cast(), bits(n), halves);
            }
        }
    }
    #[inline(always)]
    fn shift_left(self) -> Self {
        unsafe { _mm512_slli_epi32::<16>(self) }
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        unsafe { _mm512_or_si512(self, other) }
    }
    #[inline(always)]
    fn round(self) -> Self {
        unsafe {
            let high = _mm512_srli_epi32::<16>(self);
            let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(self, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let x = _mm512_castsi512_ps(self);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
            let quiet = _mm512_or_si512(high, _mm512_set1_epi32(QUIET));
            _mm512_mask_blend_epi32(nan, _mm512_srli_epi32::<16>(up), quiet)
        }
    }
    #[inline(always)]
    fn relu2(self) -> Self {
        unsafe {
            let x = _mm512_max_ps(_mm512_castsi512_ps(self), _mm512_setzero_ps());
            _mm512_castps_si512(_mm512_mul_ps(x, x))
        }
    }
    #[inline(always)]
    fn relu2_of_high(self) -> Self {
        unsafe { _mm512_and_si512(self, _mm512_set1_epi32(0xffff_0000u32 as i32)) }.relu2()
    }
    #[inline(always)]
    fn prefetch(place: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; 16]) {
        let x = *rows;
        let (mut s, mut t, mut u) = (x, x, x);
        unsafe {
            for i in 0..8 {
                s[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
                s[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..4 {
                for j in 0..2 {
                    t[4 * i + 2 * j] = _mm512_unpacklo_epi64(s[4 * i + j], s[4 * i + 2 + j]);
                    t[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(s[4 * i + j], s[4 * i + 2 + j]);
                }
            }
            // t[4 i + j] now holds, in its four 128-bit lanes l, column 4 l + j of rows 4 i .. 4 i + 4.
            for j in 0..4 {
                u[j] = _mm512_shuffle_i32x4::<0x88>(t[j], t[4 + j]);
                u[4 + j] = _mm512_shuffle_i32x4::<0xdd>(t[j], t[4 + j]);
                u[8 + j] = _mm512_shuffle_i32x4::<0x88>(t[8 + j], t[12 + j]);
                u[12 + j] = _mm512_shuffle_i32x4::<0xdd>(t[8 + j], t[12 + j]);
            }
            for j in 0..4 {
                rows[j] = _mm512_shuffle_i32x4::<0x88>(u[j], u[8 + j]);
                rows[8 + j] = _mm512_shuffle_i32x4::<0xdd>(u[j], u[8 + j]);
                rows[4 + j] = _mm512_shuffle_i32x4::<0x88>(u[4 + j], u[12 + j]);
                rows[12 + j] = _mm512_shuffle_i32x4::<0xdd>(u[4 + j], u[12 + j]);
            }
        }
    }
}

/// A mask of the first n < 16 lanes.
#[inline(always)]
fn bits(n: usize) -> u16 {
    (1 << n) - 1
}
