//! Packing: copies a strided operand of a product into panels (`gemm_kernel.rs` has their form), zero where a panel is not full.
//!
//! Any strides are read at full speed: where k is contiguous, square blocks are transposed in registers; where the panel direction is
//! contiguous, whole lines are copied. Nothing outside the operand is read.

use crate::abi::DTYPE_F32;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::gemm_kernel::Unit;
use crate::cpu::isa::Isa;

/// An operand to pack: `lines` rows of A or columns of B, `ps` elements apart, each with `depth` elements, `ks` apart.
#[derive(Clone, Copy)]
pub struct Source {
    pub ptr: *const u8,
    pub ps: isize,
    pub ks: isize,
    pub lines: usize,
    pub depth: usize,
    pub dtype: i32,
    /// Packs max(h, 0)^2 of every element h.
    pub relu2: bool,
}

// SAFETY: only read; the owner of the operand keeps it alive and unwritten during the product.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// Depth (units) of a block that is packed for one panel before the next panel: its lines stay in the nearest cache and in the page table
/// cache while neighbouring panels take their part.
const BLOCK: usize = 64;

/// Packs panels `panels` of width W over units `from..to`; panel p goes to `dst + (p - panels.start) * stride`.
///
/// # Safety
/// The CPU has `isa`; the source has its elements; dst has `stride` units a panel and stride >= (to - from) * width.
pub unsafe fn pack(
    isa: Isa,
    unit: Unit,
    width: usize,
    dst: *mut u32,
    stride: usize,
    source: &Source,
    panels: std::ops::Range<usize>,
    from: usize,
    to: usize,
) {
    let first = panels.start;
    for start in (from..to).step_by(BLOCK) {
        let end = to.min(start + BLOCK);
        for p in panels.clone() {
            // SAFETY: by contract; start >= from.
            unsafe {
                let dst = dst.add((p - first) * stride + (start - from) * width);
                match (isa, width) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512 | Isa::Avx512Bf16, 12) => avx512::<12>(unit, dst, source, p * 12, start, end),
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512 | Isa::Avx512Bf16, 32) => avx512::<32>(unit, dst, source, p * 32, start, end),
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, 6) => avx2::<6>(unit, dst, source, p * 6, start, end),
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, 16) => avx2::<16>(unit, dst, source, p * 16, start, end),
                    (Isa::Portable, 4) => any::<4, 4>(unit, dst, source, p * 4, start, end, transpose),
                    (Isa::Portable, 8) => any::<8, 4>(unit, dst, source, p * 8, start, end, transpose),
                    _ => unreachable!("no panels of width {width} for {}", isa.name()),
                }
            }
        }
    }
}

/// A square block of units.
type Block<const S: usize> = [[u32; S]; S];

/// Packs the panel that starts at line `p0`, units `from..to`, in squares of S.
#[inline(always)]
unsafe fn any<const W: usize, const S: usize>(
    unit: Unit,
    dst: *mut u32,
    source: &Source,
    p0: usize,
    from: usize,
    to: usize,
    transpose: unsafe fn(&Block<S>) -> Block<S>,
) {
    let step = if source.ks == 1 { S } else { 1 };
    for u in (from..to).step_by(step) {
        for q in (0..W).step_by(S) {
            let lines = source.lines.saturating_sub(p0 + q);
            let used = S.min(W - q);
            // SAFETY: elements below `lines` and `depth` exist; dst has W units for each unit of depth.
            unsafe {
                let dst = dst.add((u - from) * W + q);
                if source.ks == 1 {
                    let mut block = [[0; S]; S];
                    for (p, row) in block.iter_mut().enumerate().take(lines.min(used)) {
                        *row = along(unit, source, p0 + q + p, u * unit.depth());
                    }
                    let block = transpose(&block);
                    for (i, row) in block.iter().enumerate().take(to - u) {
                        dst.add(i * W).copy_from_nonoverlapping(row.as_ptr(), used);
                    }
                } else {
                    let row = across::<S>(unit, source, p0 + q, lines, u * unit.depth());
                    dst.copy_from_nonoverlapping(row.as_ptr(), used);
                }
            }
        }
    }
}

/// S units of line `p` from depth `k` on, where k is contiguous.
#[inline(always)]
unsafe fn along<const S: usize>(unit: Unit, source: &Source, p: usize, k: usize) -> [u32; S] {
    let left = source.depth.saturating_sub(k);
    let start = p as isize * source.ps + k as isize;
    let mut row = [0; S];
    // SAFETY: line p has `left` more elements at depth k.
    unsafe {
        match (source.dtype == DTYPE_F32, unit) {
            (true, Unit::Single) => {
                let x = source.ptr.cast::<f32>().offset(start);
                fill(&mut row, left, |i| x.add(i).read().to_bits());
            }
            (false, Unit::Single) => {
                let x = source.ptr.cast::<u16>().offset(start);
                fill(&mut row, left, |i| u32::from(x.add(i).read()) << 16);
            }
            (true, Unit::Pair) => {
                let x = source.ptr.cast::<f32>().offset(start);
                let at = |i: usize| u32::from(bf16_from_f32(x.add(i).read()));
                fill(&mut row, left / 2, |i| at(2 * i) | at(2 * i + 1) << 16);
                if left < 2 * S && left % 2 == 1 {
                    row[left / 2] = at(left - 1);
                }
            }
            (false, Unit::Pair) => {
                let x = source.ptr.cast::<u16>().offset(start);
                // One read of two neighbours is the pair itself (little-endian).
                fill(&mut row, left / 2, |i| x.add(2 * i).cast::<u32>().read_unaligned());
                if left < 2 * S && left % 2 == 1 {
                    row[left / 2] = u32::from(x.add(left - 1).read());
                }
            }
        }
    }
    finish(unit, source.relu2, row)
}

/// The unit at depth `k` of S lines from `p` on, of which `lines` exist.
#[inline(always)]
unsafe fn across<const S: usize>(unit: Unit, source: &Source, p: usize, lines: usize, k: usize) -> [u32; S] {
    let start = p as isize * source.ps + k as isize * source.ks;
    let (ps, ks) = (source.ps, source.ks);
    let pair = k + 1 < source.depth;
    let mut row = [0; S];
    // SAFETY: lines p..p + lines exist at depth k, and at k + 1 if `pair`.
    unsafe {
        match (source.dtype == DTYPE_F32, unit) {
            (true, Unit::Single) => {
                let x = source.ptr.cast::<f32>().offset(start);
                fill_strided(&mut row, lines, ps, |i| x.offset(i).read().to_bits());
            }
            (false, Unit::Single) => {
                let x = source.ptr.cast::<u16>().offset(start);
                fill_strided(&mut row, lines, ps, |i| u32::from(x.offset(i).read()) << 16);
            }
            (true, Unit::Pair) => {
                let x = source.ptr.cast::<f32>().offset(start);
                let at = |i: isize| u32::from(bf16_from_f32(x.offset(i).read()));
                if pair {
                    fill_strided(&mut row, lines, ps, |i| at(i) | at(i + ks) << 16);
                } else {
                    fill_strided(&mut row, lines, ps, at);
                }
            }
            (false, Unit::Pair) => {
                let x = source.ptr.cast::<u16>().offset(start);
                let at = |i: isize| u32::from(x.offset(i).read());
                if pair {
                    fill_strided(&mut row, lines, ps, |i| at(i) | at(i + ks) << 16);
                } else {
                    fill_strided(&mut row, lines, ps, at);
                }
            }
        }
    }
    finish(unit, source.relu2, row)
}

/// row[i] = value(i) for i below `count`; the full case is a loop of fixed length, which becomes vector code.
#[inline(always)]
fn fill<const S: usize>(row: &mut [u32; S], count: usize, value: impl Fn(usize) -> u32) {
    if count >= S {
        for (i, unit) in row.iter_mut().enumerate() {
            *unit = value(i);
        }
    } else {
        for (i, unit) in row.iter_mut().enumerate().take(count) {
            *unit = value(i);
        }
    }
}

/// As `fill`, with offsets i * ps.
#[inline(always)]
fn fill_strided<const S: usize>(row: &mut [u32; S], count: usize, ps: isize, value: impl Fn(isize) -> u32) {
    if ps == 1 {
        fill(row, count, |i| value(i as isize));
    } else {
        for (i, unit) in row.iter_mut().enumerate().take(count) {
            *unit = value(i as isize * ps);
        }
    }
}

#[inline(always)]
fn finish<const S: usize>(unit: Unit, relu2: bool, row: [u32; S]) -> [u32; S] {
    let square = |x: f32| x.max(0.0) * x.max(0.0);
    match (relu2, unit) {
        (false, _) => row,
        (true, Unit::Single) => row.map(|x| square(f32::from_bits(x)).to_bits()),
        (true, Unit::Pair) => row.map(|x| {
            let part = |x: u32| u32::from(bf16_from_f32(square(f32_from_bf16(x as u16))));
            part(x) | part(x >> 16) << 16
        }),
    }
}

fn transpose<const S: usize>(x: &Block<S>) -> Block<S> {
    std::array::from_fn(|i| std::array::from_fn(|j| x[j][i]))
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const W: usize>(unit: Unit, dst: *mut u32, source: &Source, p0: usize, from: usize, to: usize) {
    // SAFETY: by the contract of `pack`.
    unsafe { any::<W, 8>(unit, dst, source, p0, from, to, transpose_8) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn avx512<const W: usize>(unit: Unit, dst: *mut u32, source: &Source, p0: usize, from: usize, to: usize) {
    // SAFETY: by the contract of `pack`.
    unsafe { any::<W, 16>(unit, dst, source, p0, from, to, transpose_16) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_8(x: &Block<8>) -> Block<8> {
    // SAFETY: a block is eight registers of eight units.
    let x: [__m256i; 8] = unsafe { std::mem::transmute_copy(x) };
    let (mut s, mut t, mut y) = (x, x, x);
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
        y[i] = _mm256_permute2x128_si256::<0x20>(t[i], t[i + 4]);
        y[i + 4] = _mm256_permute2x128_si256::<0x31>(t[i], t[i + 4]);
    }
    // SAFETY: as above.
    unsafe { std::mem::transmute_copy(&y) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_16(x: &Block<16>) -> Block<16> {
    // SAFETY: a block is sixteen registers of sixteen units.
    let x: [__m512i; 16] = unsafe { std::mem::transmute_copy(x) };
    let (mut s, mut t, mut u, mut y) = (x, x, x, x);
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
        y[j] = _mm512_shuffle_i32x4::<0x88>(u[j], u[8 + j]);
        y[8 + j] = _mm512_shuffle_i32x4::<0xdd>(u[j], u[8 + j]);
        y[4 + j] = _mm512_shuffle_i32x4::<0x88>(u[4 + j], u[12 + j]);
        y[12 + j] = _mm512_shuffle_i32x4::<0xdd>(u[4 + j], u[12 + j]);
    }
    // SAFETY: as above.
    unsafe { std::mem::transmute_copy(&y) }
}
