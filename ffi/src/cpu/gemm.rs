//! The matrix product that every other operation builds on: C = epilogue(A B), fp32 accumulation, fp32 or bf16 operands of any strides.
//!
//! Method: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008). Operands are packed into panels
//! (`gemm_pack.rs`), a register tile (`gemm_kernel.rs`) multiplies one panel of A by panels of B, DEPTH units at a time.
//!
//! Each element of C is a sum of blocks of DEPTH units of k, each block summed in order from zero, blocks added in order (to what C
//! held, where they accumulate in f32). The cut depends on k alone; every other size below only says who computes an element when. So
//! bits depend neither on m and n (inference is batch-invariant) nor on the number of threads.

use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::gemm_epilogue::{Epilogue, Output, expected, finish};
use crate::cpu::gemm_int8::Scales;
use crate::cpu::gemm_kernel::{Expected, Tile, Unit, kernel, panels_at_once, tile};
use crate::cpu::gemm_pack::{Source, pack};
use crate::cpu::gemm_scratch::{B_SCRATCH, SUMS_SCRATCH, Scratch, Shared, TASK_SCRATCH};
use crate::cpu::isa::{Isa, has_int8_dot, isa};
use rayon::prelude::*;
use std::ops::Range;

/// Units of k that are summed from zero before they are added to the rest: a B panel of this depth stays in the L1 cache.
const DEPTH: usize = 256;
/// Units of k that are packed at once (a multiple of DEPTH).
const PASS: usize = 2048;
/// Units of k, of all panels in flight, that a product with few rows asks for before it needs them: the latency of main memory.
const AHEAD: usize = 64;
/// Units of a packed block of A (640 KiB: stays in the L2 cache of one core).
const A_BLOCK: usize = 160 * 1024;
/// Units of packed B that are in use at once (16 MiB: about a shared cache).
const B_BLOCK: usize = 4 << 20;
/// Elements of C whose sums are kept between passes over k.
const KEPT_SUMS: usize = 8 << 20;
/// Tasks per thread, so that a late thread costs little.
const TASKS_PER_THREAD: usize = 6;
/// Panels of A that a task has at least where there are enough: each panel of B that it reads is used so often. More of them where B comes
/// from further away than the L2 cache of one core.
const LEAST_PANELS: [usize; 2] = [3, 5];
/// Units of packed B up to which it is thought to stay in that cache (1 MiB).
const NEAR: usize = 256 * 1024;
/// Products with fewer multiplications run on the calling thread.
const SMALL: usize = 1 << 16;

/// A matrix operand: element (i, j) lies at `ptr + i * rs + j * cs`, strides in elements; dtype f32 or bf16.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub ptr: *const u8,
    pub rs: isize,
    pub cs: isize,
    pub dtype: i32,
}

impl View {
    /// Rows of `columns` elements without gaps.
    pub fn rows(ptr: *const u8, columns: usize, dtype: i32) -> Self {
        View { ptr, rs: columns as isize, cs: 1, dtype }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        View { rs: self.cs, cs: self.rs, ..self }
    }
}

// SAFETY: only read; the owner of the operand keeps it alive and unwritten during the product.
unsafe impl Sync for View {}

/// The right operand of a product.
#[derive(Clone, Copy, Debug)]
pub enum Right {
    /// k x n; `relu2`: max(h, 0)^2 of every element h takes its place.
    View { view: View, relu2: bool },
    /// What `pack_right` made of a k x n matrix whose elements counted as `dtype`.
    Packed { ptr: *const u32, dtype: i32 },
    /// Panels of quads (gemm_int8.rs); A is f32 in name, each element a quad, and sum (i, j) is worth what `scales` says.
    Quads { ptr: *const u32, scales: Scales },
}

/// C = epilogue(A B): A is m x k, B is k x n.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: View,
    pub b: Right,
    pub c: Output,
    pub epilogue: Epilogue,
    /// The result is known to be symmetric: tiles wholly below the diagonal are not computed (see `gemm_mirror.rs`).
    pub symmetric: bool,
}

// SAFETY: `product`'s contract covers all its threads; they write disjoint tiles of C.
unsafe impl Sync for Product {}

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
    let b = Right::View { view: b, relu2: false };
    let c = Output { ptr: c, ld: ldc, dtype: c_dtype };
    let epilogue = Epilogue::Plain { accumulate };
    // SAFETY: by contract.
    unsafe { product(isa(), &Product { m, n, k, a, b, c, epilogue, symmetric: false }) }
}

/// What the units of a product with these operand dtypes are: pairs where the CPU multiplies bf16, else everything is widened.
fn unit(isa: Isa, dtypes: [i32; 2]) -> Unit {
    if isa == Isa::Avx512Bf16 && dtypes == [DTYPE_BF16; 2] { Unit::Pair } else { Unit::Single }
}

/// Units (of 4 bytes) of the packed form of a k x n right operand that meets left operands of the same dtype.
pub fn packed_units(isa: Isa, k: usize, n: usize, dtype: i32) -> usize {
    let nr = tile(isa).nr;
    n.next_multiple_of(nr) * k.div_ceil(unit(isa, [dtype; 2]).depth())
}

/// Packs a k x n right operand once, for many products with left operands of type `dtype`.
///
/// # Safety
/// The view's elements exist; dst has `packed_units` units and nobody else uses it.
pub unsafe fn pack_right(isa: Isa, dst: *mut u32, view: View, k: usize, n: usize, dtype: i32) {
    let (unit, nr) = (unit(isa, [dtype; 2]), tile(isa).nr);
    // SAFETY: by contract.
    unsafe { pack_panels(isa, unit, dst, &columns(view, k, n, false), 0..n.div_ceil(nr), 0..k.div_ceil(unit.depth())) }
}

fn columns(view: View, k: usize, n: usize, relu2: bool) -> Source {
    Source { ptr: view.ptr, ps: view.cs, ks: view.rs, lines: n, depth: k, dtype: view.dtype, relu2 }
}

/// Packs columns in parallel: panels of `units.len() * nr` units, one after the other.
unsafe fn pack_panels(isa: Isa, unit: Unit, dst: *mut u32, source: &Source, panels: Range<usize>, units: Range<usize>) {
    const PANELS: usize = 4; // whole cache lines of an operand whose rows run across panels
    const UNITS: usize = 512;
    let nr = tile(isa).nr;
    let stride = units.len() * nr;
    let (wide, deep) = (panels.len().div_ceil(PANELS), units.len().div_ceil(UNITS));
    let dst = Shared(dst);
    (0..wide * deep).into_par_iter().for_each(|job| {
        let p = panels.start + job / deep * PANELS;
        let from = units.start + job % deep * UNITS;
        let (last, to) = (panels.end.min(p + PANELS), units.end.min(from + UNITS));
        // SAFETY: jobs write disjoint parts of dst; the rest by contract.
        unsafe {
            let dst = dst.get().add((p - panels.start) * stride + (from - units.start) * nr);
            pack(isa, unit, nr, dst, stride, source, p..last, from, to);
        }
    });
}

/// Computes a product on the current rayon pool.
///
/// # Safety
/// The CPU has `isa`. All elements of the operands and of the matrices that the epilogue names exist; C overlaps no operand except
/// as the epilogue says; nobody else uses C meanwhile.
pub unsafe fn product(isa: Isa, product: &Product) {
    let &Product { m, n, k, a, b, c, epilogue, .. } = product;
    let b_dtype = match b {
        Right::View { view, .. } => view.dtype,
        Right::Packed { dtype, .. } => dtype,
        Right::Quads { .. } => DTYPE_F32,
    };
    for dtype in [a.dtype, b_dtype, c.dtype] {
        assert!(dtype == DTYPE_F32 || dtype == DTYPE_BF16, "dtype {dtype}, expected f32 or bf16");
    }
    if m == 0 || n == 0 {
        return;
    }
    let quads = matches!(b, Right::Quads { .. });
    let unit = if quads { Unit::Quad { dot: has_int8_dot(isa) } } else { unit(isa, [a.dtype, b_dtype]) };
    let tile = tile(isa);
    let units = k.div_ceil(unit.depth());
    // Several passes collect their sums in C where its elements are plain f32 sums, else in memory of their own.
    let plain = c.dtype == DTYPE_F32 && epilogue.is_plain() && !quads;
    let pass = if plain || units > 2 * PASS { PASS } else { 2 * PASS };
    let kept = !plain && units > pass;
    let (tall, wide) = (m.div_ceil(tile.mr), n.div_ceil(tile.nr));
    let mut chunk = B_BLOCK / (units.clamp(1, pass) * tile.nr);
    if kept {
        chunk = chunk.min(KEPT_SUMS / (tall * tile.mr * tile.nr));
    }
    let chunk = chunk.clamp(1, wide);
    let mut b_scratch = Scratch::take(&B_SCRATCH);
    let mut sums_scratch = Scratch::take(&SUMS_SCRATCH);
    for first in (0..wide).step_by(chunk) {
        let panels = first..wide.min(first + chunk);
        let columns_kept = panels.len() * tile.nr;
        let kept = kept.then(|| (Shared(sums_scratch.room(tall * tile.mr * columns_kept).cast::<f32>()), columns_kept));
        let mut from = 0;
        loop {
            let to = units.min(from + pass);
            // SAFETY: by contract; the scratch has the units that are packed.
            let (b, b_stride) = unsafe {
                match b {
                    Right::Packed { ptr, .. } | Right::Quads { ptr, .. } => {
                        (ptr.add((panels.start * units + from) * tile.nr), units * tile.nr)
                    }
                    Right::View { view, relu2 } => {
                        let dst = b_scratch.room(panels.len() * (to - from) * tile.nr);
                        pack_panels(isa, unit, dst, &columns(view, k, n, relu2), panels.clone(), from..to);
                        (dst.cast_const(), (to - from) * tile.nr)
                    }
                }
            };
            let pass = Pass {
                product,
                isa,
                unit,
                tile,
                plain,
                kept,
                panels: panels.clone(),
                units: from..to,
                last: to == units,
                b: Shared(b.cast_mut()),
                b_stride,
            };
            // SAFETY: as above.
            unsafe { pass.run(tall) };
            from = to;
            if pass.last {
                break;
            }
        }
    }
    b_scratch.give(&B_SCRATCH);
    sums_scratch.give(&SUMS_SCRATCH);
}

/// One pass over a part of k for a chunk of columns whose panels are packed.
struct Pass<'a> {
    product: &'a Product,
    isa: Isa,
    unit: Unit,
    tile: Tile,
    plain: bool,
    kept: Option<(Shared<f32>, usize)>,
    panels: Range<usize>,
    units: Range<usize>,
    last: bool,
    b: Shared<u32>,
    b_stride: usize,
}

impl Pass<'_> {
    /// Cuts the chunk into tasks: blocks of rows (a block of packed A fits the L2 cache) by groups of columns.
    unsafe fn run(&self, tall: usize) {
        let wide = self.panels.len();
        let threads = rayon::current_num_threads();
        let work = self.product.m * wide * self.tile.nr * self.units.len().max(1);
        let tasks = if work < SMALL { 1 } else { threads * TASKS_PER_THREAD };
        let least = LEAST_PANELS[usize::from(wide * self.tile.nr * self.units.len() > NEAR)];
        let fitting = (A_BLOCK / (self.units.len().max(1) * self.tile.mr)).clamp(4, 16);
        let blocks = tall.div_ceil(fitting).max(tasks.min(tall / least));
        // Few rows are one block: their time is that of reading B, which each block does.
        let few = tall < LEAST_PANELS[0];
        let blocks = if few { 1 } else { blocks.next_multiple_of(if tasks > 1 { threads } else { 1 }).min(tall) };
        // Every group packs its rows again, so that columns are only cut where rows are too few for the threads.
        let groups = if blocks < 2 * threads { tasks.div_ceil(blocks) } else { 1 };
        let groups = groups.min(wide.div_ceil(panels_at_once(self.isa, self.product.m))).max(1);
        let cut = |total: usize, parts: usize, i: usize| total * i / parts..total * (i + 1) / parts;
        let task = |i: usize| {
            let group = cut(wide, groups, i / blocks);
            let group = self.panels.start + group.start..self.panels.start + group.end;
            // SAFETY: by the contract of `product`; tasks cover disjoint tiles.
            unsafe { self.task(cut(tall, blocks, i % blocks), group) };
        };
        if blocks * groups == 1 {
            task(0);
        } else {
            (0..blocks * groups).into_par_iter().with_max_len(1).for_each(task);
        }
    }

    /// Computes the tiles of a range of A panels and a range of B panels.
    unsafe fn task(&self, rows: Range<usize>, group: Range<usize>) {
        let &Product { m, n, k, a, b: right, c, epilogue, .. } = self.product;
        let Tile { mr, nr } = self.tile;
        let depth = self.units.len();
        let at_once = if rows.len() == 1 { panels_at_once(self.isa, (m - rows.start * mr).min(mr)) } else { 1 };
        let mut scratch = Scratch::take(&TASK_SCRATCH);
        let a_units = rows.len() * mr * depth;
        let sums_ld = at_once * nr;
        let packed = scratch.room(a_units.next_multiple_of(16) + rows.len() * mr * sums_ld);
        // SAFETY: the scratch has room for both.
        let own_sums = unsafe { packed.add(a_units.next_multiple_of(16)).cast::<f32>() };
        let source = Source { ptr: a.ptr, ps: a.rs, ks: a.cs, lines: m, depth: k, dtype: a.dtype, relu2: false };
        // SAFETY: by the contract of `product`.
        unsafe {
            let (from, to) = (self.units.start, self.units.end);
            pack(self.isa, self.unit, mr, packed, mr * depth, &source, rows.clone(), from, to);
        }
        let streams = rows.len() == 1;
        let more = self.units.start > 0;
        let accumulates = more || matches!(epilogue, Epilogue::Plain { accumulate: true });
        let mut j = group.start;
        while j < group.end {
            let count = if group.end - j >= at_once { at_once } else { 1 };
            let columns = (count * nr).min(n - j * nr);
            let mut start = 0;
            loop {
                let end = depth.min(start + DEPTH);
                let ends = end == depth;
                // SAFETY: the panels of the group are packed.
                let panel = |j: usize| unsafe { self.b.get().add((j - self.panels.start) * self.b_stride) };
                let b = panel(j).wrapping_add(start * nr);
                let next = if ends { panel((j + count).min(group.end - 1)) } else { b.wrapping_add(DEPTH * nr) };
                for i in rows.clone() {
                    let height = mr.min(m - i * mr);
                    if self.product.symmetric && (j + count) * nr <= i * mr {
                        continue;
                    }
                    let run = kernel(self.isa, self.unit, height, count, streams);
                    // The first kernels of a column bring the next block of B closer.
                    let ahead = if streams {
                        b.wrapping_add(AHEAD / count * nr)
                    } else {
                        next.wrapping_add((i - rows.start) * (end - start) * 16)
                    };
                    let ahead = ahead.cast_const();
                    // SAFETY: tile (i, j) lies in C, in the kept sums or in the scratch.
                    unsafe {
                        let a = packed.add((i - rows.start) * mr * depth + start * mr);
                        let to_c = ends || self.plain;
                        let expected = if to_c { expected(&epilogue, &c, i * mr, j * nr, nr) } else { Expected::NONE };
                        let run = |sums, ld, add| {
                            run(end - start, a, b, self.b_stride, sums, ld, add, ahead, &expected);
                        };
                        let own = own_sums.add((i - rows.start) * mr * sums_ld);
                        if self.plain {
                            // Block by block into C, through memory of our own where the panel is wider than C.
                            let add = accumulates || start > 0;
                            if columns == count * nr {
                                run(c.ptr.cast::<f32>().add(i * mr * c.ld + j * nr), c.ld, add);
                            } else {
                                run(own, sums_ld, false);
                                let epilogue = Epilogue::Plain { accumulate: add };
                                finish(self.isa, &epilogue, &c, own, sums_ld, (i * mr, height), (j * nr, columns));
                            }
                            continue;
                        }
                        let (sums, ld, add) = match self.kept {
                            Some((sums, ld)) => {
                                (sums.get().add(i * mr * ld + (j - self.panels.start) * nr), ld, more || start > 0)
                            }
                            None => (own, sums_ld, start > 0),
                        };
                        run(sums, ld, add);
                        if ends && self.last {
                            if let Right::Quads { scales, .. } = right {
                                scales.apply(sums, ld, (i * mr, height), (j * nr, columns));
                            }
                            finish(self.isa, &epilogue, &c, sums, ld, (i * mr, height), (j * nr, columns));
                        }
                    }
                }
                start = end;
                if ends {
                    break;
                }
            }
            j += count;
        }
        scratch.give(&TASK_SCRATCH);
    }
}
