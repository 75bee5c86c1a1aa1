//! Register tiles of the matrix product: acc (R, P * NR) (+)= A panel (R, units) times P panels of B (units, NR).
//!
//! Panels hold 4-byte units, depth first: `a[k * MR + i]`, `b[p * stride + k * NR + j]`. A unit is one f32, or two bf16 or four bytes that
//! lie next to each other along k (`vdpbf16ps` and `vpdpbusd` multiply and add such groups). Every sum starts at zero, runs over k in order
//! and is then stored or added, so an element has the same bits in every tile shape (R, P) of one instruction set; sums of bytes are
//! integers, and the same in all instruction sets.

use crate::cpu::isa::Isa;

/// What a 4-byte unit of a panel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One f32.
    Single,
    /// Two bf16, neighbours along k.
    Pair,
    /// Four bytes, neighbours along k: i8 in A and u8 in B, packed as f32 are. Acc holds i32. `dot`: by `vpdpbusd`.
    Quad { dot: bool },
}

impl Unit {
    /// Elements of an operand along k in a unit; the operands of quads count these as their elements (gemm_int8.rs).
    pub fn depth(self) -> usize {
        match self {
            Unit::Single | Unit::Quad { .. } => 1,
            Unit::Pair => 2,
        }
    }
}

/// Rows of an A panel and columns of a B panel.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    pub mr: usize,
    pub nr: usize,
}

/// The panel sizes of an instruction set: as many accumulators as fit in its registers.
pub fn tile(isa: Isa) -> Tile {
    match isa {
        Isa::Portable => Tile { mr: 4, nr: 8 },
        Isa::Avx2 => Tile { mr: 6, nr: 16 },
        Isa::Avx512 | Isa::Avx512Bf16 => Tile { mr: 12, nr: 32 },
    }
}

/// Rows of up to two matrices with the shape of the sums, at `places` (null = none), `stride` bytes apart, `lines` cache lines for each
/// B panel.
pub struct Expected {
    pub places: [*const u8; 2],
    pub stride: usize,
    pub lines: usize,
}

impl Expected {
    pub const NONE: Expected = Expected { places: [std::ptr::null(); 2], stride: 0, lines: 0 };
}

/// (units, a, b, elements from one B panel to the next, acc, elements from one acc row to the next, add to acc, ahead, expected): memory
/// from `ahead` on is brought closer, a line of 16 units with each unit of depth, or if the kernel streams, as much of each panel as is
/// read. Meanwhile the `expected` lines, which what follows will write or read, are brought closer row by row.
///
/// # Safety
/// The CPU has the instruction set; panels and acc have the elements that the tile shape covers.
pub type Kernel = unsafe fn(usize, *const u32, *const u32, usize, *mut f32, usize, bool, *const u32, &Expected);

/// How many B panels a kernel for `rows` rows can take at once: the fewer the rows, the more panels are in flight, because few rows
/// are bound by the memory that the panels stream from.
pub fn panels_at_once(isa: Isa, rows: usize) -> usize {
    match (isa, rows) {
        (Isa::Portable, _) => 1,
        (Isa::Avx2, 1..=3) => 2,
        (Isa::Avx2, _) => 1,
        (_, 1..=3) => 4,
        (_, 4..=6) => 2,
        _ => 1,
    }
}

macro_rules! pick {
    ($name:ident, $panels:literal, $streams:expr, $rows:expr, $($r:literal)*) => {
        match ($rows, $streams) {
            $(($r, false) => $name::<$r, $panels, false> as Kernel,)*
            $(($r, true) => $name::<$r, $panels, true> as Kernel,)*
            _ => unreachable!("no kernel for {} rows and {} panels", $rows, $panels),
        }
    };
}

/// The kernels of a function of 256-bit vectors.
macro_rules! pick_256 {
    ($name:ident, $panels:expr, $streams:expr, $rows:expr) => {
        match $panels {
            1 => pick!($name, 1, $streams, $rows, 1 2 3 4 5 6),
            _ => pick!($name, 2, $streams, $rows, 1 2 3),
        }
    };
}

/// The kernels of a function of 512-bit vectors.
macro_rules! pick_512 {
    ($name:ident, $panels:expr, $streams:expr, $rows:expr) => {
        match $panels {
            1 => pick!($name, 1, $streams, $rows, 1 2 3 4 5 6 7 8 9 10 11 12),
            2 => pick!($name, 2, $streams, $rows, 1 2 3 4 5 6),
            _ => pick!($name, 4, $streams, $rows, 1 2 3),
        }
    };
}

/// The kernel for `rows` rows and `panels` panels (1 or `panels_at_once`). `streams`: B is read once, from far away.
pub fn kernel(isa: Isa, unit: Unit, rows: usize, panels: usize, streams: bool) -> Kernel {
    match (isa, unit) {
        (Isa::Portable, Unit::Single) => pick!(portable, 1, streams, rows, 1 2 3 4),
        (Isa::Portable, Unit::Quad { .. }) => pick!(portable_int8, 1, streams, rows, 1 2 3 4),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Unit::Single) => pick_256!(avx2, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Unit::Quad { dot: false }) => pick_256!(avx2_int8, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, Unit::Quad { dot: true }) => pick_256!(avx2_vnni, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Unit::Single) => pick_512!(avx512, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Unit::Quad { dot: false }) => pick_512!(avx512_int8, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Avx512Bf16, Unit::Quad { dot: true }) => pick_512!(avx512_vnni, panels, streams, rows),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512Bf16, Unit::Pair) => pick_512!(avx512_bf16, panels, streams, rows),
        _ => unreachable!("no kernel for {} with {unit:?} and {panels} panels", isa.name()),
    }
}

/// The specification of all kernels, and the one for CPUs without code of their own.
unsafe fn portable<const R: usize, const P: usize, const STREAMS: bool>(
    units: usize,
    a: *const u32,
    b: *const u32,
    stride: usize,
    acc: *mut f32,
    ld: usize,
    add: bool,
    _ahead: *const u32,
    _expected: &Expected,
) {
    const MR: usize = 4;
    const NR: usize = 8;
    let mut sums = [[[0f32; NR]; P]; R];
    // SAFETY: by the contract of `Kernel`.
    unsafe {
        for k in 0..units {
            let x = a.add(k * MR).cast::<f32>();
            for p in 0..P {
                let y = b.add(p * stride + k * NR).cast::<[f32; NR]>().read();
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(i).read();
                    for (sum, y) in sums[p].iter_mut().zip(y) {
                        *sum += x * y;
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.as_flattened().iter().enumerate() {
                let y = acc.add(i * ld + j);
                *y = if add { *y + sum } else { sum };
            }
        }
    }
}

/// `portable` for quads: the specification of all kernels of bytes.
unsafe fn portable_int8<const R: usize, const P: usize, const STREAMS: bool>(
    units: usize,
    a: *const u32,
    b: *const u32,
    stride: usize,
    acc: *mut f32,
    ld: usize,
    add: bool,
    _ahead: *const u32,
    _expected: &Expected,
) {
    const MR: usize = 4;
    const NR: usize = 8;
    let mut sums = [[[0i32; NR]; P]; R];
    // SAFETY: by the contract of `Kernel`.
    unsafe {
        for k in 0..units {
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = a.add(k * MR + i).cast::<[i8; 4]>().read();
                for (p, sums) in sums.iter_mut().enumerate() {
                    let y = b.add(p * stride + k * NR).cast::<[[u8; 4]; NR]>().read();
                    for (sum, y) in sums.iter_mut().zip(y) {
                        for q in 0..4 {
                            *sum = sum.wrapping_add(i32::from(x[q]) * i32::from(y[q]));
                        }
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.as_flattened().iter().enumerate() {
                let y = acc.cast::<i32>().add(i * ld + j);
                *y = if add { sum.wrapping_add(*y) } else { sum };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! vector_kernel {
    ($name:ident, $features:literal, $mr:literal, $lanes:literal, $zero:path, $load:path, $store:path, $set:path, $sum:expr, $multiply:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const R: usize, const P: usize, const STREAMS: bool>(
            units: usize,
            mut a: *const u32,
            mut b: *const u32,
            stride: usize,
            acc: *mut f32,
            ld: usize,
            add: bool,
            mut ahead: *const u32,
            expected: &Expected,
        ) {
            let mut sums = [[[$zero(); 2]; P]; R];
            // SAFETY: by the contract of `Kernel`.
            unsafe {
                for i in 0..R {
                    for place in expected.places {
                        if !place.is_null() {
                            for line in 0..P * expected.lines {
                                let line = place.wrapping_add(i * expected.stride + line * 64);
                                _mm_prefetch::<_MM_HINT_ET0>(line.cast());
                            }
                        }
                    }
                    let part = units * (i + 1) / R - units * i / R;
                    for _ in 0..part {
                        let mut line = [[$zero(); 2]; P];
                        for (p, line) in line.iter_mut().enumerate() {
                            let y = b.add(p * stride).cast::<f32>();
                            *line = [$load(y), $load(y.add($lanes))];
                        }
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let x = $set(a.add(i).cast::<f32>().read());
                            for (sums, line) in sums.iter_mut().zip(&line) {
                                sums[0] = $multiply(sums[0], x, line[0]);
                                sums[1] = $multiply(sums[1], x, line[1]);
                            }
                        }
                        if STREAMS {
                            for p in 0..P {
                                let line = ahead.wrapping_add(p * stride);
                                _mm_prefetch::<_MM_HINT_T0>(line.cast());
                                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(16).cast());
                            }
                            ahead = ahead.wrapping_add(2 * $lanes);
                        } else {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            ahead = ahead.wrapping_add(16);
                        }
                        a = a.add($mr);
                        b = b.add(2 * $lanes);
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.as_flattened().iter().enumerate() {
                        let y = acc.add(i * ld + j * $lanes);
                        $store(y, if add { $sum($load(y), sum) } else { sum });
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

#[cfg(target_arch = "x86_64")]
vector_kernel!(
    avx2,
    "avx2,fma",
    6,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    |sum, x, y| _mm256_fmadd_ps(x, y, sum)
);
#[cfg(target_arch = "x86_64")]
vector_kernel!(
    avx512,
    "avx512f,avx512bw,avx512vl,avx512dq",
    12,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    |sum, x, y| _mm512_fmadd_ps(x, y, sum)
);
#[cfg(target_arch = "x86_64")]
vector_kernel!(
    avx512_bf16,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16",
    12,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    |sum, x, y| _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(x), transmute::<__m512, __m512bh>(y))
);

/// The kernels of quads, by `vpdpbusd` and without it. Vectors of i32 pass through the same code as those of f32.
#[cfg(target_arch = "x86_64")]
macro_rules! quad_kernels {
    ($plain:ident, $dot:ident, $features:literal, $dot_features:literal, $mr:literal, $lanes:literal, $zero:path, $load:path, $store:path,
     $set:path, $ints:path, $floats:path, $add:path, $and:path, $mask:path, $left:ident, $right:ident, $right_zero:ident, $multiply:path,
     $dot_product:path) => {
        vector_kernel!(
            $plain,
            $features,
            $mr,
            $lanes,
            $zero,
            $load,
            $store,
            $set,
            |a, b| $floats($add($ints(a), $ints(b))),
            |sum, x, y| {
                // Even and odd bytes become i16, whose products `vpmaddwd` adds in pairs without saturation.
                let (x, y) = ($ints(x), $ints(y));
                let even = $multiply($right::<8>($left::<8>(x)), $and(y, $mask(0xff)));
                let odd = $multiply($right::<8>(x), $right_zero::<8>(y));
                $floats($add($ints(sum), $add(even, odd)))
            }
        );
        vector_kernel!(
            $dot,
            $dot_features,
            $mr,
            $lanes,
            $zero,
            $load,
            $store,
            $set,
            |a, b| $floats($add($ints(a), $ints(b))),
            |sum, x, y| $floats($dot_product($ints(sum), $ints(y), $ints(x)))
        );
    };
}
#[cfg(target_arch = "x86_64")]
quad_kernels!(
    avx2_int8,
    avx2_vnni,
    "avx2,fma",
    "avx2,fma,avxvnni",
    6,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_castps_si256,
    _mm256_castsi256_ps,
    _mm256_add_epi32,
    _mm256_and_si256,
    _mm256_set1_epi16,
    _mm256_slli_epi16,
    _mm256_srai_epi16,
    _mm256_srli_epi16,
    _mm256_madd_epi16,
    _mm256_dpbusd_avx_epi32
);
#[cfg(target_arch = "x86_64")]
quad_kernels!(
    avx512_int8,
    avx512_vnni,
    "avx512f,avx512bw,avx512vl,avx512dq",
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni",
    12,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_castps_si512,
    _mm512_castsi512_ps,
    _mm512_add_epi32,
    _mm512_and_si512,
    _mm512_set1_epi16,
    _mm512_slli_epi16,
    _mm512_srai_epi16,
    _mm512_srli_epi16,
    _mm512_madd_epi16,
    _mm512_dpbusd_epi32
);
