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
pub use crate::cpu::simd_x86::{Avx2, Avx512};

/// The most lanes of any implementation.
pub const MAX_LANES: usize = 16;

/// Below it e^x counts as 0. It would soon be denormal, for which a vector takes Intel's cores 280 cycles instead of 12, and hidden
/// scores of attention are -inf.
const LOWEST_EXP: f32 = -87.25;

/// A vector of f32. A value exists only where its instructions do: `splat` and the loads are the unsafe ways to make one.
///
/// # Safety
/// Implementations may assume that the CPU has their instructions in every method.
pub unsafe trait Lanes: Copy {
    /// Number of lanes, at most MAX_LANES.
    const N: usize;
    /// Whether `fma` rounds once.
    const FUSED: bool;

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

    /// e^x, 0 below LOWEST_EXP, relative error below 2e-7 for x <= 88; NaN stays NaN.
    ///
    /// x = n ln 2 + r, |r| <= ln(2)/2; e^r = 1 + r + r^2 q(r), q interpolated at Chebyshev nodes (error of e^r below 1e-8).
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: self is a value of this type.
        unsafe {
            let lowest = Self::splat(LOWEST_EXP);
            let x = lowest.max(Self::splat(88.5).min(self));
            let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            let r = x.fma(n, Self::splat(-0.693_359_4)).fma(n, Self::splat(2.121_944_4e-4));
            let q = Self::splat(0.008_363_233).fma(r, Self::splat(0.001_392_625_1));
            let q = Self::splat(0.041_666_554).fma(r, q);
            let q = Self::splat(0.166_666_57).fma(r, q);
            let q = Self::splat(0.5).fma(r, q);
            let p = Self::splat(1.0).add(r.fma(r.mul(r), q));
            self.where_le(lowest, Self::splat(0.0), p.scale(n))
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
    const FUSED: bool = false;

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
