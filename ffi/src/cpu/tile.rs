//! Small dense products and copies on tiles of attention, in f32.
//!
//!   Product: C[r][i] (+)= sum over k of A(r, k) B[k][i]
//!
//! A is read one element at a time (any strides, so a transpose costs nothing), B and C one vector at a time: vector lanes run along
//! i. Tiles are TILE wide in i, padded with zeros, and aligned to a cache line.
//!
//! On CPUs with bf16 dot products an operand word may hold a pair of bf16, neighbours in k, in place of one f32: depth and strides
//! then count words. A transpose of words moves pairs as it moves f32.

use crate::cpu::isa::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::Avx512;
use crate::cpu::simd::{Element, Kernel, Lanes, MAX_LANES, dispatch};
use crate::memory::Pages;
use std::cell::RefCell;
use std::ops::Range;

/// Queries of a query tile and keys of a key tile; a multiple of every lane count.
pub const TILE: usize = 64;
/// Widest head.
pub const MAX_D: usize = 256;

/// Start values of a product.
#[derive(Clone, Copy)]
pub enum Start {
    /// C = A B.
    Zero,
    /// C += A B.
    Keep,
    /// C[r][i] = C[r][i] * factor[i] + (A B)[r][i].
    Scaled(*const f32),
}

/// What is known of a product on the diagonal of causal attention: parts without effect are left out, to the block.
#[derive(Clone, Copy, PartialEq)]
pub enum Triangle {
    None,
    /// Nobody reads C[r][i] for i < r; it is unspecified there.
    Output,
    /// A(r, k) = 0 for elements k < r.
    Left,
    /// B[k][i] = 0 for elements k > i.
    Right,
}

/// C[r][i], r < rows, i < columns (rounded up to whole vectors), from A (rows x depth) and B (depth x columns).
pub struct Product {
    pub c: *mut f32,
    pub c_stride: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_depth: usize,
    pub b: *const f32,
    pub b_stride: usize,
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub start: Start,
    pub triangle: Triangle,
    /// Words of A and B are pairs of bf16; only where `pairs_usable` says so.
    pub pairs: bool,
}

/// One step of a sum over k.
trait Step<V> {
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn step(sum: V, a: V, b: V) -> V;
}

struct Floats;
impl<V: Lanes> Step<V> for Floats {
    #[inline(always)]
    unsafe fn step(sum: V, a: V, b: V) -> V {
        sum.fma(a, b)
    }
}

#[cfg(target_arch = "x86_64")]
struct Pairs;
#[cfg(target_arch = "x86_64")]
impl Step<Avx512> for Pairs {
    #[inline(always)]
    unsafe fn step(sum: Avx512, a: Avx512, b: Avx512) -> Avx512 {
        // SAFETY: by contract.
        unsafe { sum.add_pairs(a, b) }
    }
}

/// Whether products of bf16 pairs run here, for heads of D elements.
pub fn pairs_usable(D: usize) -> bool {
    isa() >= Isa::Avx512Bf16 && D.is_multiple_of(2)
}

/// Runs a product.
///
/// # Safety
/// The operands are valid for its sizes.
pub unsafe fn multiply(product: Product) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn pairs(product: Product) {
            // SAFETY: the features are enabled here.
            unsafe { product.all::<Avx512, Pairs>() }
        }
        if product.pairs {
            // SAFETY: `pairs` is set only where the CPU has them.
            return unsafe { pairs(product) };
        }
    }
    // SAFETY: by contract.
    unsafe { dispatch(product) }
}

impl Product {
    /// R rows by W vectors at (r, i), in registers.
    #[allow(clippy::needless_range_loop)] // y and x are places in C as much as in `sums`
    #[inline(always)]
    unsafe fn block<V: Lanes, S: Step<V>, const R: usize, const W: usize>(&self, r: usize, i: usize) {
        // SAFETY: the block lies inside C; A and B have the rows and columns it needs.
        unsafe {
            let c = self.c.add(r * self.c_stride + i);
            let mut sums = [[V::splat(0.0); W]; R];
            match self.start {
                Start::Zero => {}
                Start::Keep => {
                    for y in 0..R {
                        for x in 0..W {
                            sums[y][x] = V::load(c.add(y * self.c_stride + x * V::N));
                        }
                    }
                }
                Start::Scaled(factor) => {
                    for x in 0..W {
                        let factor = V::load(factor.add(i + x * V::N));
                        for y in 0..R {
                            sums[y][x] = V::load(c.add(y * self.c_stride + x * V::N)).mul(factor);
                        }
                    }
                }
            }
            let depth = self.depths(r, i + W * V::N);
            let mut a = self.a.add(r * self.a_row + depth.start * self.a_depth);
            let mut b = self.b.add(i + depth.start * self.b_stride);
            for _ in depth {
                let mut row = [V::splat(0.0); W];
                for x in 0..W {
                    row[x] = V::load(b.add(x * V::N));
                }
                for y in 0..R {
                    let value = V::splat(*a.add(y * self.a_row));
                    for x in 0..W {
                        sums[y][x] = S::step(sums[y][x], value, row[x]);
                    }
                }
                a = a.wrapping_add(self.a_depth);
                b = b.wrapping_add(self.b_stride);
            }
            for y in 0..R {
                for x in 0..W {
                    sums[y][x].store(c.add(y * self.c_stride + x * V::N));
                }
            }
        }
    }

    /// The words of the sums that count for rows from r on and columns before `end`.
    #[inline(always)]
    fn depths(&self, r: usize, end: usize) -> Range<usize> {
        let word = if self.pairs { 2 } else { 1 }; // elements
        match self.triangle {
            Triangle::None | Triangle::Output => 0..self.depth,
            Triangle::Left => (r / word).min(self.depth)..self.depth,
            Triangle::Right => 0..end.div_ceil(word).min(self.depth),
        }
    }

    /// All rows of W vectors at i, R at a time.
    #[inline(always)]
    unsafe fn columns<V: Lanes, S: Step<V>, const R: usize, const W: usize>(&self, i: usize) {
        let end = i + W * V::N;
        let rows = if self.triangle == Triangle::Output { self.rows.min(end) } else { self.rows };
        let whole = rows - rows % R;
        // SAFETY: rows inside C.
        unsafe {
            for r in (0..whole).step_by(R) {
                self.block::<V, S, R, W>(r, i);
            }
            for r in whole..rows {
                self.block::<V, S, 1, W>(r, i);
            }
        }
    }

    #[inline(always)]
    unsafe fn all<V: Lanes, S: Step<V>>(&self) {
        let (mut i, mut vectors) = (0, self.columns.div_ceil(V::N));
        // SAFETY: buffers are padded to whole vectors.
        unsafe {
            // Blocks that the register file takes: 16 sums in 32 zmm, 8 in 16 ymm or xmm. Narrow ones follow a diagonal more closely.
            if V::N == 16 {
                let narrow = matches!(self.triangle, Triangle::Output | Triangle::Right);
                while vectors >= 4 && !narrow {
                    self.columns::<V, S, 4, 4>(i);
                    (i, vectors) = (i + 4 * V::N, vectors - 4);
                }
                while vectors >= 2 {
                    self.columns::<V, S, 8, 2>(i);
                    (i, vectors) = (i + 2 * V::N, vectors - 2);
                }
            }
            while vectors >= 2 {
                self.columns::<V, S, 4, 2>(i);
                (i, vectors) = (i + 2 * V::N, vectors - 2);
            }
            if vectors == 1 {
                self.columns::<V, S, 4, 1>(i);
            }
        }
    }
}

impl Kernel for Product {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: by contract.
        unsafe { self.all::<V, Floats>() }
    }
}

/// y[d][i] = x[i][d] for i < rows, zero for the other i < TILE; x rows are `stride` elements apart.
pub struct PackTransposed<E> {
    pub y: *mut f32,
    pub x: *const E,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
}

impl<E: Element> Kernel for PackTransposed<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let PackTransposed { y, x, stride, rows, D } = self;
        // SAFETY: y has D * TILE elements, x has `rows` rows of D.
        unsafe {
            for i in (0..TILE).step_by(V::N) {
                let valid = rows.saturating_sub(i).min(V::N);
                for d in (0..D).step_by(V::N) {
                    let columns = V::N.min(D - d);
                    let mut block = [V::splat(0.0); MAX_LANES];
                    for (r, row) in block[..valid].iter_mut().enumerate() {
                        let x = x.add((i + r) * stride + d);
                        *row = if columns == V::N { E::load::<V>(x) } else { E::load_part(x, columns) };
                    }
                    V::transpose(&mut block);
                    for (c, column) in block[..columns].iter().enumerate() {
                        column.store(y.add((d + c) * TILE + i));
                    }
                }
            }
        }
    }
}

/// y[i][d] = factor[i] * x[d][i] for i < rows: the way back; y rows are `stride` elements apart.
pub struct UnpackTransposed<E> {
    pub y: *mut E,
    pub x: *const f32,
    pub factor: *const f32,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
}

impl<E: Element> Kernel for UnpackTransposed<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let UnpackTransposed { y, x, factor, stride, rows, D } = self;
        // SAFETY: x has D * TILE elements, factor TILE, y has `rows` rows of D.
        unsafe {
            for i in (0..rows).step_by(V::N) {
                let factor = V::load(factor.add(i));
                for d in (0..D).step_by(V::N) {
                    let columns = V::N.min(D - d);
                    let mut block = [V::splat(0.0); MAX_LANES];
                    for (c, column) in block[..columns].iter_mut().enumerate() {
                        *column = V::load(x.add((d + c) * TILE + i)).mul(factor);
                    }
                    V::transpose(&mut block);
                    for (r, &row) in block[..V::N.min(rows - i)].iter().enumerate() {
                        let y = y.add((i + r) * stride + d);
                        if columns == V::N { E::store(row, y) } else { E::store_part(row, y, columns) }
                    }
                }
            }
        }
    }
}

/// y[i][d] = x[i][d] for i < rows, d < D, zero for the rest of the `width` columns of y; x rows are `stride` apart.
pub struct PackRows<E> {
    pub y: *mut f32,
    pub x: *const E,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
    pub width: usize,
}

impl<E: Element> Kernel for PackRows<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let whole = self.D - self.D % V::N;
        // SAFETY: y has rows * width elements, x has `rows` rows of D.
        unsafe {
            for i in 0..self.rows {
                let (y, x) = (self.y.add(i * self.width), self.x.add(i * self.stride));
                for d in (0..whole).step_by(V::N) {
                    E::load::<V>(x.add(d)).store(y.add(d));
                }
                for d in whole..self.width {
                    *y.add(d) = if d < self.D { (*x.add(d)).to_f32() } else { 0.0 };
                }
            }
        }
    }
}

/// Words (x[2 p][d], x[2 p + 1][d]) at y[p][d], for rows of bf16; a missing last row counts as zeros. x rows are `stride` apart.
pub struct PairRows {
    pub y: *mut f32,
    pub x: *const u16,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
    pub width: usize,
}

impl Kernel for PairRows {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let PairRows { y, x, stride, rows, D, width } = self;
        // SAFETY: y has rows / 2 (rounded up) rows of `width`, x has `rows` rows of D.
        unsafe {
            for p in 0..rows.div_ceil(2) {
                let (y, low, high) = (y.add(p * width), x.add(2 * p * stride), x.wrapping_add((2 * p + 1) * stride));
                let paired = 2 * p + 1 < rows;
                for d in (0..D).step_by(V::N) {
                    let n = V::N.min(D - d);
                    let a = if n == V::N { V::load_bf16(low.add(d)) } else { u16::load_part(low.add(d), n) };
                    let b = match (paired, n == V::N) {
                        (true, true) => V::load_bf16(high.add(d)),
                        (true, false) => u16::load_part(high.add(d), n),
                        _ => V::splat(0.0),
                    };
                    a.store_pairs(b, y.add(d)); // rounding changes no bf16
                }
            }
        }
    }
}

/// y[i][d] = x[i][d] for i < rows, d < D; y rows are `stride` elements apart, x rows `width`.
pub struct UnpackRows<E> {
    pub y: *mut E,
    pub x: *const f32,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
    pub width: usize,
}

impl<E: Element> Kernel for UnpackRows<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let whole = self.D - self.D % V::N;
        // SAFETY: x has rows * width elements, y has `rows` rows of D.
        unsafe {
            for i in 0..self.rows {
                let (y, x) = (self.y.add(i * self.stride), self.x.add(i * self.width));
                for d in (0..whole).step_by(V::N) {
                    E::store(V::load(x.add(d)), y.add(d));
                }
                for d in whole..self.D {
                    *y.add(d) = E::from_f32(*x.add(d));
                }
            }
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Pages> = RefCell::default();
}

/// Hands `body` the start of at least `n` aligned f32 with arbitrary contents; the memory is kept for the thread's next call.
pub fn with_scratch<T>(n: usize, body: impl FnOnce(*mut f32) -> T) -> T {
    SCRATCH.with_borrow_mut(|pages| body(pages.at_least(n * 4).cast()))
}

/// Cuts scratch into aligned parts.
pub struct Parts(pub *mut f32);

impl Parts {
    /// The next part of n elements.
    ///
    /// # Safety
    /// The scratch has room for all parts taken, each rounded up to 16 elements.
    pub unsafe fn take(&mut self, n: usize) -> *mut f32 {
        let part = self.0;
        // SAFETY: as promised.
        self.0 = unsafe { part.add(n.next_multiple_of(16)) };
        part
    }
}
