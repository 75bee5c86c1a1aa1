//! `Lanes` on x86-64: AVX2 with FMA, and AVX-512.

use crate::cpu::simd::{Lanes, MAX_LANES};
use std::arch::x86_64::*;

/// Eight lanes of AVX2 with FMA.
#[derive(Clone, Copy)]
pub struct Avx2(__m256);

impl Avx2 {
    /// The nearest bf16 in the upper half of each lane; the lower half is junk.
    #[inline(always)]
    fn rounded(self) -> __m256i {
        // SAFETY: a value proves AVX2.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            _mm256_blendv_epi8(rounded, quiet, nan)
        }
    }
}

// SAFETY (all blocks of this implementation): a value or the caller's promise proves AVX2 and FMA; pointers as in the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Lanes for Avx2 {
    const N: usize = 8;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Avx2(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Avx2(unsafe { _mm256_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm256_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            Avx2(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        unsafe {
            let high = _mm256_srli_epi32::<16>(self.rounded());
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(high, high));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, high: Self, p: *mut f32) {
        unsafe {
            let low = _mm256_srli_epi32::<16>(self.rounded());
            _mm256_storeu_si256(p.cast(), _mm256_blend_epi16::<0xaa>(low, high.rounded()));
        }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_div_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        Avx2(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Avx2(unsafe { _mm256_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn where_le(self, b: Self, yes: Self, no: Self) -> Self {
        Avx2(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LE_OQ>(self.0, b.0)) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Avx2(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        unsafe {
            let n = _mm256_cvtps_epi32(_mm256_max_ps(n.0, _mm256_set1_ps(-127.0)));
            let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)));
            Avx2(_mm256_mul_ps(self.0, _mm256_castsi256_ps(power)))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
    #[inline(always)]
    fn max_lane(self) -> f32 {
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; MAX_LANES]) {
        unsafe {
            // Quads of four rows: column c of quad g, for the columns 4 L + c of lane L.
            for quad in rows[..8].chunks_exact_mut(4) {
                let (a, b, c, d) = (quad[0].0, quad[1].0, quad[2].0, quad[3].0);
                let (ab, AB) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd, CD) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                quad[0] = Avx2(_mm256_shuffle_ps::<0x44>(ab, cd));
                quad[1] = Avx2(_mm256_shuffle_ps::<0xee>(ab, cd));
                quad[2] = Avx2(_mm256_shuffle_ps::<0x44>(AB, CD));
                quad[3] = Avx2(_mm256_shuffle_ps::<0xee>(AB, CD));
            }
            for c in 0..4 {
                let (a, b) = (rows[c].0, rows[4 + c].0);
                rows[c] = Avx2(_mm256_permute2f128_ps::<0x20>(a, b));
                rows[4 + c] = Avx2(_mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}

/// Sixteen lanes of AVX-512 (F, BW, VL, DQ).
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

impl Avx512 {
    /// The nearest bf16 in the upper half of each lane; the lower half is junk.
    #[inline(always)]
    fn rounded(self) -> __m512i {
        // SAFETY: a value proves AVX-512.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000))
        }
    }

    /// self + a.low * b.low + a.high * b.high, where each lane of a and b is a pair of bf16.
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    #[inline(always)]
    pub unsafe fn add_pairs(self, a: Self, b: Self) -> Self {
        // SAFETY: by contract; __m512bh is the same 64 bytes.
        unsafe {
            let a = std::mem::transmute::<__m512, __m512bh>(a.0);
            let b = std::mem::transmute::<__m512, __m512bh>(b.0);
            Avx512(_mm512_dpbf16_ps(self.0, a, b))
        }
    }
}

// SAFETY (all blocks of this implementation): a value or the caller's promise proves AVX-512; pointers as in the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Lanes for Avx512 {
    const N: usize = 16;
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Avx512(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Avx512(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        Avx512(unsafe { _mm512_maskz_loadu_ps((1u16 << n) - 1, p) })
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, (1u16 << n) - 1, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(self.rounded()))) }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, high: Self, p: *mut f32) {
        unsafe {
            let low = _mm512_srli_epi32::<16>(self.rounded());
            _mm512_storeu_si512(p.cast(), _mm512_mask_blend_epi16(0xaaaa_aaaa, low, high.rounded()));
        }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_div_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        Avx512(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        Avx512(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn where_le(self, b: Self, yes: Self, no: Self) -> Self {
        Avx512(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, b.0), no.0, yes.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        Avx512(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        Avx512(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let half = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            Avx2(half).sum()
        }
    }
    #[inline(always)]
    fn max_lane(self) -> f32 {
        unsafe {
            let half = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            Avx2(half).max_lane()
        }
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; MAX_LANES]) {
        unsafe {
            for quad in rows.chunks_exact_mut(4) {
                let (a, b, c, d) = (quad[0].0, quad[1].0, quad[2].0, quad[3].0);
                let (ab, AB) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd, CD) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quad[0] = Avx512(_mm512_shuffle_ps::<0x44>(ab, cd));
                quad[1] = Avx512(_mm512_shuffle_ps::<0xee>(ab, cd));
                quad[2] = Avx512(_mm512_shuffle_ps::<0x44>(AB, CD));
                quad[3] = Avx512(_mm512_shuffle_ps::<0xee>(AB, CD));
            }
            // Lanes of 128 bits: 0x88 takes the even ones of both, 0xdd the odd ones.
            for c in 0..4 {
                let (a, b, c2, d) = (rows[c].0, rows[4 + c].0, rows[8 + c].0, rows[12 + c].0);
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c2, d), _mm512_shuffle_f32x4::<0xdd>(c2, d));
                rows[c] = Avx512(_mm512_shuffle_f32x4::<0x88>(even, even2));
                rows[4 + c] = Avx512(_mm512_shuffle_f32x4::<0x88>(odd, odd2));
                rows[8 + c] = Avx512(_mm512_shuffle_f32x4::<0xdd>(even, even2));
                rows[12 + c] = Avx512(_mm512_shuffle_f32x4::<0xdd>(odd, odd2));
            }
        }
    }
}
