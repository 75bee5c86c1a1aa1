//! Packing: copies a strided operand of a product into panels (`gemm_kernel.rs` has their form), zero where a panel is not full.
//!
//! Any strides are read at full speed: where k is contiguous, square blocks are transposed in registers; where the panel direction is
//! contiguous, whole lines are copied. Nothing outside the operand is read.

use crate::abi::DTYPE_F32;
use crate::cpu::convert::bf16_from_f32;
use crate::cpu::gemm_kernel::Unit;
#[cfg(target_arch = "x86_64")]
use crate::cpu::gemm_lanes::{avx2, avx512};
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

impl Source {
    /// Bytes that `elements` take.
    #[inline(always)]
    fn step(&self, elements: isize) -> isize {
        elements * if self.dtype == DTYPE_F32 { 4 } else { 2 }
    }

    /// Where element (p, k) lies or would lie.
    #[inline(always)]
    fn place(&self, p: usize, k: usize) -> *const u8 {
        self.ptr.wrapping_offset(self.step(p as isize * self.ps + k as isize * self.ks))
    }
}

// SAFETY: only read; the owner of the operand keeps it alive and unwritten during the product.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// Depth (units) of a block that is packed for one panel before the next panel, where the panel direction is contiguous: the lines
/// of the operand stay in the nearest cache while neighbouring panels take their part, and are read in the order of memory.
const BLOCK: usize = 16;
/// Units ahead of which such lines are asked for (both tuned on a Xeon, LOG 2026-11-25).
const AHEAD: usize = 32;

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
    let block = if source.ks == 1 { (to - from).max(1) } else { BLOCK };
    for start in (from..to).step_by(block) {
        let end = to.min(start + block);
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
                    (Isa::Portable, 4) => portable::<4>(unit, dst, source, p * 4, start, end),
                    (Isa::Portable, 8) => portable::<8>(unit, dst, source, p * 8, start, end),
                    _ => unreachable!("no panels of width {width} for {}", isa.name()),
                }
            }
        }
    }
}

/// As the functions of `gemm_lanes.rs`; a call, so that its loops do not weigh on the one over panels.
#[inline(never)]
unsafe fn portable<const W: usize>(unit: Unit, dst: *mut u32, source: &Source, p0: usize, from: usize, to: usize) {
    // SAFETY: by the contract of `pack`.
    unsafe { any::<W, 4, [u32; 4]>(unit, dst, source, p0, from, to) }
}

/// Packs the panel that starts at line `p0`, units `from..to`, S lines at a time.
#[inline(always)]
pub unsafe fn any<const W: usize, const S: usize, L: Lanes<S>>(
    unit: Unit,
    mut dst: *mut u32,
    source: &Source,
    p0: usize,
    mut from: usize,
    to: usize,
) {
    let contiguous = source.ks == 1 || source.ps == 1;
    if unit.depth() == 1 && contiguous && p0 + W <= source.lines && to <= source.depth {
        let units = if source.ks == 1 { (to - from) / S * S } else { to - from };
        // SAFETY: W lines have these units; a unit is one element.
        unsafe {
            let (f32s, halves) =
                (|x: *const u8, n| L::load(x.cast(), n), |x: *const u8, n| L::load_half(x.cast(), n).shift_left());
            match (source.dtype == DTYPE_F32, source.relu2) {
                (true, false) => whole::<W, S, L>(dst, source, p0, from, units, f32s),
                (true, true) => whole::<W, S, L>(dst, source, p0, from, units, |x, n| f32s(x, n).relu2()),
                (false, false) => whole::<W, S, L>(dst, source, p0, from, units, halves),
                (false, true) => whole::<W, S, L>(dst, source, p0, from, units, |x, n| halves(x, n).relu2()),
            }
            dst = dst.add(units * W);
        }
        from += units;
    }
    for q in (0..W).step_by(S) {
        let lines = source.lines.saturating_sub(p0 + q);
        let used = S.min(W - q);
        // SAFETY: elements below `lines` and `depth` exist; dst has W units for each unit of depth.
        unsafe {
            let dst = dst.add(q);
            if source.ks == 1 {
                for u in (from..to).step_by(S) {
                    let mut rows = [L::zero(); S];
                    for (p, row) in rows.iter_mut().enumerate().take(lines.min(used)) {
                        *row = along::<S, L>(unit, source, p0 + q + p, u * unit.depth());
                        L::prefetch(source.place(p0 + q + p + W, u * unit.depth())); // for the next panel
                    }
                    L::transpose(&mut rows);
                    for (i, row) in rows.iter().enumerate().take(to - u) {
                        row.store(dst.add((u - from + i) * W), used);
                    }
                }
            } else {
                for u in from..to {
                    L::prefetch(source.place(p0 + q, (u + AHEAD) * unit.depth()));
                    let row = across::<S, L>(unit, source, p0 + q, lines.min(S), u * unit.depth());
                    row.store(dst.add((u - from) * W), used);
                }
            }
        }
    }
}

/// The common case of `any` without its questions: W lines of single units, contiguous in one direction; `load` reads up to S elements.
/// Where k is contiguous, `units` is a multiple of S.
#[inline(always)]
unsafe fn whole<const W: usize, const S: usize, L: Lanes<S>>(
    dst: *mut u32,
    source: &Source,
    p0: usize,
    from: usize,
    units: usize,
    load: impl Fn(*const u8, usize) -> L,
) {
    // Bytes between units and between lines.
    let (deep, wide) = (source.step(source.ks), source.step(source.ps));
    let start = source.place(p0, from);
    if source.ks != 1 {
        for u in 0..units {
            for q in (0..W).step_by(S) {
                let x = start.wrapping_offset(u as isize * deep + source.step(q as isize));
                let used = S.min(W - q);
                L::prefetch(x.wrapping_offset(AHEAD as isize * deep));
                // SAFETY: by the contract of `any`; lines are neighbours in memory.
                unsafe { load(x, used).store(dst.add(u * W + q), used) };
            }
        }
        return;
    }
    for q in (0..W).step_by(S) {
        let used = S.min(W - q);
        for u in (0..units).step_by(S) {
            let mut rows = [L::zero(); S];
            for (p, row) in rows.iter_mut().enumerate().take(used) {
                let x = start.wrapping_offset((q + p) as isize * wide + source.step(u as isize));
                *row = load(x, S);
                L::prefetch(x.wrapping_offset(W as isize * wide)); // for the next panel
            }
            L::transpose(&mut rows);
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: by the contract of `any`; units are neighbours in memory.
                unsafe { row.store(dst.add((u + i) * W + q), used) };
            }
        }
    }
}

/// S units of line `p` from depth `k` on, where k is contiguous.
#[inline(always)]
unsafe fn along<const S: usize, L: Lanes<S>>(unit: Unit, source: &Source, p: usize, k: usize) -> L {
    let left = source.depth.saturating_sub(k);
    let start = p as isize * source.ps + k as isize;
    // SAFETY: line p has `left` more elements at depth k.
    let row = unsafe {
        match (source.dtype == DTYPE_F32, unit) {
            (true, Unit::Single | Unit::Quad { .. }) => L::load(source.ptr.cast::<u32>().offset(start), left.min(S)),
            (false, Unit::Single | Unit::Quad { .. }) => {
                L::load_half(source.ptr.cast::<u16>().offset(start), left.min(S)).shift_left()
            }
            (false, Unit::Pair) if left >= 2 * S => {
                // Two neighbours in memory are the pair (little-endian).
                L::load(source.ptr.cast::<u16>().offset(start).cast(), S)
            }
            (f32s, Unit::Pair) => {
                let mut units = [0; S];
                for i in 0..left.min(2 * S) {
                    let x = if f32s {
                        bf16_from_f32(source.ptr.cast::<f32>().offset(start).add(i).read())
                    } else {
                        source.ptr.cast::<u16>().offset(start).add(i).read()
                    };
                    units[i / 2] |= u32::from(x) << (i % 2 * 16);
                }
                L::load(units.as_ptr(), S)
            }
        }
    };
    mapped(unit, source.relu2, row)
}

/// The unit at depth `k` of lines p..p + n, n <= S.
#[inline(always)]
unsafe fn across<const S: usize, L: Lanes<S>>(unit: Unit, source: &Source, p: usize, n: usize, k: usize) -> L {
    let start = p as isize * source.ps + k as isize * source.ks;
    // SAFETY: lines p..p + n exist at depth k, and at k + 1 if `k + 1 < depth`.
    let row = unsafe {
        match unit {
            Unit::Single | Unit::Quad { .. } => line::<S, L>(source, start, n),
            Unit::Pair => {
                let low = half::<S, L>(source, start, n);
                if k + 1 < source.depth {
                    let high = half::<S, L>(source, start + source.ks, n);
                    low.or(high.shift_left())
                } else {
                    low
                }
            }
        }
    };
    mapped(unit, source.relu2, row)
}

/// n elements from `start` on, ps apart, as f32.
#[inline(always)]
unsafe fn line<const S: usize, L: Lanes<S>>(source: &Source, start: isize, n: usize) -> L {
    // SAFETY: by the contract of `across`.
    unsafe {
        match source.dtype {
            DTYPE_F32 => singles::<S, L>(source, start, n),
            _ => halves::<S, L>(source, start, n).shift_left(),
        }
    }
}

/// n elements from `start` on, ps apart, as bf16 in the low halves.
#[inline(always)]
unsafe fn half<const S: usize, L: Lanes<S>>(source: &Source, start: isize, n: usize) -> L {
    // SAFETY: by the contract of `across`.
    unsafe {
        match source.dtype {
            DTYPE_F32 => singles::<S, L>(source, start, n).round(),
            _ => halves::<S, L>(source, start, n),
        }
    }
}

#[inline(always)]
unsafe fn singles<const S: usize, L: Lanes<S>>(source: &Source, start: isize, n: usize) -> L {
    // SAFETY: by the contract of `across`.
    unsafe {
        let x = source.ptr.cast::<u32>().offset(start);
        if source.ps == 1 {
            return L::load(x, n);
        }
        let mut units = [0; S];
        for (i, unit) in units.iter_mut().enumerate().take(n) {
            *unit = x.offset(i as isize * source.ps).read();
        }
        L::load(units.as_ptr(), S)
    }
}

#[inline(always)]
unsafe fn halves<const S: usize, L: Lanes<S>>(source: &Source, start: isize, n: usize) -> L {
    // SAFETY: by the contract of `across`.
    unsafe {
        let x = source.ptr.cast::<u16>().offset(start);
        if source.ps == 1 {
            return L::load_half(x, n);
        }
        let mut units = [0; S];
        for (i, unit) in units.iter_mut().enumerate().take(n) {
            *unit = u32::from(x.offset(i as isize * source.ps).read());
        }
        L::load(units.as_ptr(), S)
    }
}

/// ReLU squared of the elements in the units, if asked for.
#[inline(always)]
fn mapped<const S: usize, L: Lanes<S>>(unit: Unit, relu2: bool, row: L) -> L {
    match (relu2, unit) {
        (false, _) => row,
        (true, Unit::Single | Unit::Quad { .. }) => row.relu2(),
        (true, Unit::Pair) => {
            let (low, high) = (row.shift_left().relu2().round(), row.relu2_of_high().round());
            low.or(high.shift_left())
        }
    }
}

/// S units in a register (or an array). Methods are only called on CPUs that have the instructions, hence not `unsafe` one by one.
pub trait Lanes<const S: usize>: Copy {
    fn zero() -> Self;
    /// The first n units at x, zeros after them; nothing else is read.
    unsafe fn load(x: *const u32, n: usize) -> Self;
    /// The first n halves at x as the low halves of units.
    unsafe fn load_half(x: *const u16, n: usize) -> Self;
    /// Writes the first n units.
    unsafe fn store(self, y: *mut u32, n: usize);
    /// Writes the low halves of the first n units.
    unsafe fn store_half(self, y: *mut u16, n: usize);
    /// The low half moved to the high half.
    fn shift_left(self) -> Self;
    fn or(self, other: Self) -> Self;
    /// f32 units rounded to bf16 in the low half, as `bf16_from_f32`.
    fn round(self) -> Self;
    /// max(x, 0)^2 of f32 units.
    fn relu2(self) -> Self;
    /// `relu2` of the bf16 in the high halves, as f32.
    fn relu2_of_high(self) -> Self;
    fn transpose(rows: &mut [Self; S]);
    /// Brings the line of an address, valid or not, closer.
    fn prefetch(_place: *const u8) {}
}

impl<const S: usize> Lanes<S> for [u32; S] {
    #[inline(always)]
    fn zero() -> Self {
        [0; S]
    }
    #[inline(always)]
    unsafe fn load(x: *const u32, n: usize) -> Self {
        // SAFETY: by contract.
        std::array::from_fn(|i| if i < n { unsafe { x.add(i).read_unaligned() } } else { 0 })
    }
    #[inline(always)]
    unsafe fn load_half(x: *const u16, n: usize) -> Self {
        // SAFETY: by contract.
        std::array::from_fn(|i| if i < n { u32::from(unsafe { x.add(i).read() }) } else { 0 })
    }
    #[inline(always)]
    unsafe fn store(self, y: *mut u32, n: usize) {
        // SAFETY: by contract.
        unsafe { y.copy_from_nonoverlapping(self.as_ptr(), n) };
    }
    #[inline(always)]
    unsafe fn store_half(self, y: *mut u16, n: usize) {
        for (i, &x) in self.iter().enumerate().take(n) {
            // SAFETY: by contract.
            unsafe { y.add(i).write(x as u16) };
        }
    }
    #[inline(always)]
    fn shift_left(self) -> Self {
        self.map(|x| x << 16)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] | other[i])
    }
    #[inline(always)]
    fn round(self) -> Self {
        self.map(|x| u32::from(bf16_from_f32(f32::from_bits(x))))
    }
    #[inline(always)]
    fn relu2(self) -> Self {
        self.map(|x| (f32::from_bits(x).max(0.0) * f32::from_bits(x).max(0.0)).to_bits())
    }
    #[inline(always)]
    fn relu2_of_high(self) -> Self {
        self.map(|x| x & 0xffff_0000).relu2()
    }
    #[inline(always)]
    fn transpose(rows: &mut [Self; S]) {
        let x = *rows;
        *rows = std::array::from_fn(|i| std::array::from_fn(|j| x[j][i]));
    }
}
