//! Vector code: `Lanes`, a few f32 operations with one implementation per instruction set, and the dispatch of kernels over them.
//!
//! A kernel is a struct that holds its operands; its `run` is written once, generic over `Lanes`, and compiled per instruction set:
//!
//!   dispatch(Kernel { .. }) = match isa() { Avx512 -> kernel.run::<Avx512>(), Avx2 -> kernel.run::<Avx2>(), _ -> kernel.run::<Plain>() }
//!
//! `run` and all it calls are `#[inline(always)]`, so that they are compiled inside the function that enables the features. Code
//! between two dispatches (rayon loops) stays outside. Elements are f32, or bf16 (as u16), widened when loaded.

use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::isa::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The most lanes of any implementation.
pub const MAX_LANES: usize = 16;

/// A vector of f32. A value exists only where its instructions do: `splat` and the loads are the unsafe ways to make one.
///
/// # Safety
/// Implementations may assume that the CPU has their instructions in every method.
pub unsafe trait Lanes: Copy {
    /// Number of lanes, at most MAX_LANES.
    const N: usize;

    /// # Safety
    /// The CPU has the instructions of this type (so in every unsafe method here); pointers are valid for N elements.
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn load_bf16(p: *const u16) -> Self;
    unsafe fn store_bf16(self, p: *mut u16);
    /// Stores a word per lane: the bf16 of self in its low half, that of `high` in its high half.
    unsafe fn store_pairs(self, high: Self, p: *mut f32);
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// a * b + self.
    fn fma(self, a: Self, b: Self) -> Self;
    /// Larger of the two; `b` where one is NaN.
    fn max(self, b: Self) -> Self;
    /// Smaller of the two; `b` where one is NaN.
    fn min(self, b: Self) -> Self;
    /// `yes` in the lanes where self <= b, else `no`.
    fn where_le(self, b: Self, yes: Self, no: Self) -> Self;
    fn round(self) -> Self;
    /// self * 2^n for integral n in [-150, 127]; 0 below the normal range.
    fn scale(self, n: Self) -> Self;
    /// Sum of the lanes as a balanced tree.
    fn sum(self) -> f32;
    /// Largest lane.
    fn max_lane(self) -> f32;
    /// Exchanges lanes and places of the first N vectors: afterwards lane i of rows[j] is what lane j of rows[i] was.
    fn transpose(rows: &mut [Self; MAX_LANES]);

    /// e^x, 0 below -104, relative error below 2e-7 for x <= 88; NaN stays NaN.
    ///
    /// x = n ln 2 + r, |r| <= ln(2)/2; e^r = 1 + r + r^2 q(r), q interpolated at Chebyshev nodes (error of e^r below 1e-8).
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: self is a value of this type.
        unsafe {
            let x = Self::splat(-104.0).max(Self::splat(88.5).min(self));
            let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            let r = x.fma(n, Self::splat(-0.693_359_4)).fma(n, Self::splat(2.121_944_4e-4));
            let q = Self::splat(0.008_363_233).fma(r, Self::splat(0.001_392_625_1));
            let q = Self::splat(0.041_666_554).fma(r, q);
            let q = Self::splat(0.166_666_57).fma(r, q);
            let q = Self::splat(0.5).fma(r, q);
            let p = Self::splat(1.0).add(r.fma(r.mul(r), q));
            p.scale(n)
        }
    }

    /// The first n < N elements, 0 in the other lanes.
    ///
    /// # Safety
    /// As `splat`; p is valid for n elements.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self {
        let mut buffer = [0.0f32; MAX_LANES];
        // SAFETY: n < N <= MAX_LANES.
        unsafe {
            std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
            Self::load(buffer.as_ptr())
        }
    }

    /// # Safety
    /// As `load_part`.
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, n: usize) {
        let mut buffer = [0.0f32; MAX_LANES];
        // SAFETY: n < N <= MAX_LANES.
        unsafe {
            self.store(buffer.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
        }
    }
}

/// Eight lanes in plain Rust, for any CPU; multiplies and adds are rounded apart.
#[derive(Clone, Copy)]
pub struct Plain([f32; 8]);

impl Plain {
    #[inline(always)]
    fn map(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Plain(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

// SAFETY: needs no special instructions.
unsafe impl Lanes for Plain {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; 8])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller gives N readable elements.
        Plain(unsafe { p.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller gives N writable elements.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller gives N readable elements.
        Plain(unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(f32_from_bf16))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        // SAFETY: the caller gives N writable elements.
        unsafe { p.cast::<[u16; 8]>().write_unaligned(self.0.map(bf16_from_f32)) }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, high: Self, p: *mut f32) {
        let pair = |low, high| u32::from(bf16_from_f32(low)) | u32::from(bf16_from_f32(high)) << 16;
        let words: [u32; 8] = std::array::from_fn(|i| pair(self.0[i], high.0[i]));
        // SAFETY: the caller gives N writable elements.
        unsafe { p.cast::<[u32; 8]>().write_unaligned(words) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.map(b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.map(b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.map(b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.map(b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        self.add(a.mul(b))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.map(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.map(b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn where_le(self, b: Self, yes: Self, no: Self) -> Self {
        Plain(std::array::from_fn(|i| if self.0[i] <= b.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    fn round(self) -> Self {
        // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer for |x| < 2^22.
        Plain(self.0.map(|x| (x + 12_582_912.0) - 12_582_912.0))
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.map(n, |x, n| x * f32::from_bits(((n.max(-127.0) as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn max_lane(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; MAX_LANES]) {
        let old = *rows;
        for (i, row) in rows[..8].iter_mut().enumerate() {
            for (j, lane) in row.0.iter_mut().enumerate() {
                *lane = old[j].0[i];
            }
        }
    }
}

/// Eight lanes of AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(__m256);

#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
// SAFETY (all blocks of this implementation): a value or the caller's promise proves AVX2 and FMA; pointers as in the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Lanes for Avx2 {
    const N: usize = 8;

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
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
// SAFETY (all blocks of this implementation): a value or the caller's promise proves AVX-512; pointers as in the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Lanes for Avx512 {
    const N: usize = 16;

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

/// An activation type: f32, or bf16 stored as u16.
pub trait Element: Copy + Default + Send + Sync + 'static {
    const IS_F32: bool;
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
    /// # Safety
    /// As `Lanes::load`.
    unsafe fn load<V: Lanes>(p: *const Self) -> V;
    /// # Safety
    /// As `Lanes::store`.
    unsafe fn store<V: Lanes>(v: V, p: *mut Self);

    /// The first n < N elements, 0 in the other lanes.
    ///
    /// # Safety
    /// As `Lanes::load_part`.
    #[inline(always)]
    unsafe fn load_part<V: Lanes>(p: *const Self, n: usize) -> V {
        let mut buffer = [Self::default(); MAX_LANES];
        // SAFETY: n < N <= MAX_LANES.
        unsafe {
            std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n);
            Self::load(buffer.as_ptr())
        }
    }

    /// # Safety
    /// As `Lanes::store_part`.
    #[inline(always)]
    unsafe fn store_part<V: Lanes>(v: V, p: *mut Self, n: usize) {
        let mut buffer = [Self::default(); MAX_LANES];
        // SAFETY: n < N <= MAX_LANES.
        unsafe {
            Self::store(v, buffer.as_mut_ptr());
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n);
        }
    }
}

impl Element for f32 {
    const IS_F32: bool = true;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load(p) }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes>(v: V, p: *mut Self) {
        // SAFETY: as promised by the caller.
        unsafe { v.store(p) }
    }
    #[inline(always)]
    unsafe fn load_part<V: Lanes>(p: *const Self, n: usize) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_part(p, n) }
    }
    #[inline(always)]
    unsafe fn store_part<V: Lanes>(v: V, p: *mut Self, n: usize) {
        // SAFETY: as promised by the caller.
        unsafe { v.store_part(p, n) }
    }
}

impl Element for u16 {
    const IS_F32: bool = false;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32_from_bf16(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        bf16_from_f32(x)
    }
    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: as promised by the caller.
        unsafe { V::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes>(v: V, p: *mut Self) {
        // SAFETY: as promised by the caller.
        unsafe { v.store_bf16(p) }
    }
}

/// Work that is compiled for each instruction set. `run` must be `#[inline(always)]`.
pub trait Kernel {
    type Output;
    /// # Safety
    /// The CPU has the instructions of V; the operands are valid as the kernel documents.
    unsafe fn run<V: Lanes>(self) -> Self::Output;
}

/// Runs a kernel with the instruction set in use.
///
/// # Safety
/// The kernel's operands are valid.
#[inline]
pub unsafe fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: isa() is at most what the CPU has.
    unsafe { dispatch_on(isa(), kernel) }
}

/// Runs a kernel with a given instruction set.
///
/// # Safety
/// As `dispatch`, and the CPU has the instructions.
#[inline]
pub unsafe fn dispatch_on<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the features are enabled here.
            unsafe { kernel.run::<Avx2>() }
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the features are enabled here.
            unsafe { kernel.run::<Avx512>() }
        }
        match isa {
            Isa::Portable => {}
            // SAFETY: the caller knows that the CPU has them.
            Isa::Avx2 => return unsafe { avx2(kernel) },
            // SAFETY: as above.
            Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { avx512(kernel) },
        }
    }
    let _ = isa;
    // SAFETY: plain lanes need no special instructions.
    unsafe { kernel.run::<Plain>() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::detected;

    struct Exp<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Exp<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Lanes>(self) {
            for (x, y) in self.0.chunks_exact(V::N).zip(self.1.chunks_exact_mut(V::N)) {
                unsafe { V::load(x.as_ptr()).exp().store(y.as_mut_ptr()) };
            }
        }
    }

    #[test]
    fn exp_matches_double_precision() {
        let x: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 * (175.0 / 160_000.0)).collect();
        for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
            let mut y = vec![0.0; x.len()];
            unsafe { dispatch_on(isa, Exp(&x, &mut y)) };
            for (&x, &y) in x.iter().zip(&y) {
                let exact = f64::from(x).exp();
                assert!(
                    ((f64::from(y) - exact) / exact).abs() < 2e-7,
                    "{} exp({x}) = {y}, expected {exact}",
                    isa.name()
                );
            }
            let mut special = [f32::NEG_INFINITY; 16];
            special[1] = f32::NAN;
            special[2] = -200.0;
            special[3] = 0.0;
            let mut y = [7.0; 16];
            unsafe { dispatch_on(isa, Exp(&special, &mut y)) };
            assert!(y[0] == 0.0 && y[1].is_nan() && y[2] == 0.0 && y[3] == 1.0, "{} {y:?}", isa.name());
        }
    }

    struct Transpose<'a>(&'a [f32], &'a mut [f32]);
    impl Kernel for Transpose<'_> {
        type Output = usize;
        #[inline(always)]
        unsafe fn run<V: Lanes>(self) -> usize {
            unsafe {
                let mut rows = [V::splat(0.0); MAX_LANES];
                for (row, x) in rows.iter_mut().zip(self.0.chunks_exact(V::N)).take(V::N) {
                    *row = V::load(x.as_ptr());
                }
                V::transpose(&mut rows);
                for (row, y) in rows.iter().zip(self.1.chunks_exact_mut(V::N)).take(V::N) {
                    row.store(y.as_mut_ptr());
                }
            }
            V::N
        }
    }

    #[test]
    fn transpose_exchanges_lanes_and_places() {
        let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
        for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
            let mut y = vec![0.0; 256];
            let n = unsafe { dispatch_on(isa, Transpose(&x, &mut y)) };
            for i in 0..n {
                for j in 0..n {
                    assert_eq!(y[i * n + j], x[j * n + i], "{} ({i}, {j})", isa.name());
                }
            }
        }
    }

    struct Convert<'a>(&'a [f32], &'a mut [u16], &'a mut [f32], &'a mut [f32]);
    impl Kernel for Convert<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<V: Lanes>(self) {
            for i in (0..self.0.len()).step_by(V::N) {
                unsafe {
                    let x = V::load(self.0[i..].as_ptr());
                    x.store_bf16(self.1[i..].as_mut_ptr());
                    V::load_bf16(self.1[i..].as_ptr()).store(self.2[i..].as_mut_ptr());
                    x.store_pairs(V::splat(-3.0), self.3[i..].as_mut_ptr());
                }
            }
        }
    }

    #[test]
    fn bf16_lanes_match_the_scalar_conversion() {
        let mut x: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).collect();
        x[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, -0.0, f32::from_bits(0x7f80_0001)]);
        for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
            let (mut y, mut z, mut pairs) = (vec![0u16; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
            unsafe { dispatch_on(isa, Convert(&x, &mut y, &mut z, &mut pairs)) };
            for i in 0..x.len() {
                assert_eq!(y[i], bf16_from_f32(x[i]), "{} {}", isa.name(), x[i]);
                assert_eq!(z[i].to_bits(), f32_from_bf16(y[i]).to_bits());
                assert_eq!(pairs[i].to_bits(), u32::from(y[i]) | u32::from(bf16_from_f32(-3.0)) << 16);
            }
        }
    }
}
