//! Small dense products and copies on tiles of attention, in f32.
//!
//!   Product: C[r][i] (+)= sum over k of A(r, k) B[k][i]
//!
//! A is read one element at a time (any strides, so a transpose costs nothing), B and C one vector at a time: vector lanes run along
//! i. Tiles are TILE wide in i, padded with zeros, and aligned to a cache line.

use crate::cpu::simd::{Element, Kernel, Lanes, MAX_LANES};
use std::cell::RefCell;

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
}

impl Product {
    /// R rows by W vectors at (r, i), in registers.
    #[allow(clippy::needless_range_loop)] // y and x are places in C as much as in `sums`
    #[inline(always)]
    unsafe fn block<V: Lanes, const R: usize, const W: usize>(&self, r: usize, i: usize) {
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
            let (mut a, mut b) = (self.a.add(r * self.a_row), self.b.add(i));
            for _ in 0..self.depth {
                let mut row = [V::splat(0.0); W];
                for x in 0..W {
                    row[x] = V::load(b.add(x * V::N));
                }
                for y in 0..R {
                    let value = V::splat(*a.add(y * self.a_row));
                    for x in 0..W {
                        sums[y][x] = sums[y][x].fma(value, row[x]);
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

    /// All rows of W vectors at i.
    #[inline(always)]
    unsafe fn columns<V: Lanes, const W: usize>(&self, i: usize) {
        const ROWS: usize = 4;
        let whole = self.rows - self.rows % ROWS;
        // SAFETY: rows inside C.
        unsafe {
            for r in (0..whole).step_by(ROWS) {
                self.block::<V, ROWS, W>(r, i);
            }
            for r in whole..self.rows {
                self.block::<V, 1, W>(r, i);
            }
        }
    }
}

impl Kernel for Product {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let (mut i, mut vectors) = (0, self.columns.div_ceil(V::N));
        // SAFETY: buffers are padded to whole vectors.
        unsafe {
            // As many columns as the register file takes beside 4 rows: 16 of 32 zmm, 8 of 16 ymm, 8 of 16 xmm.
            if V::N == 16 {
                while vectors >= 4 {
                    self.columns::<V, 4>(i);
                    (i, vectors) = (i + 4 * V::N, vectors - 4);
                }
            }
            while vectors >= 2 {
                self.columns::<V, 2>(i);
                (i, vectors) = (i + 2 * V::N, vectors - 2);
            }
            if vectors == 1 {
                self.columns::<V, 1>(i);
            }
        }
    }
}

/// y[d][i] = factor * x[i][d] for i < rows, zero for the other i < TILE; x rows are `stride` elements apart.
pub struct PackTransposed<E> {
    pub y: *mut f32,
    pub x: *const E,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
    pub factor: f32,
}

impl<E: Element> Kernel for PackTransposed<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let PackTransposed { y, x, stride, rows, D, factor } = self;
        // SAFETY: y has D * TILE elements, x has `rows` rows of D.
        unsafe {
            let factor = V::splat(factor);
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
                        column.mul(factor).store(y.add((d + c) * TILE + i));
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

/// y[i][d] = factor * x[i][d] for i < rows, d < D, zero for the rest of the `width` columns of y; x rows are `stride` apart.
pub struct PackRows<E> {
    pub y: *mut f32,
    pub x: *const E,
    pub stride: usize,
    pub rows: usize,
    pub D: usize,
    pub width: usize,
    pub factor: f32,
}

impl<E: Element> Kernel for PackRows<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let whole = self.D - self.D % V::N;
        // SAFETY: y has rows * width elements, x has `rows` rows of D.
        unsafe {
            let factor = V::splat(self.factor);
            for i in 0..self.rows {
                let (y, x) = (self.y.add(i * self.width), self.x.add(i * self.stride));
                for d in (0..whole).step_by(V::N) {
                    E::load::<V>(x.add(d)).mul(factor).store(y.add(d));
                }
                for d in whole..self.width {
                    *y.add(d) = if d < self.D { self.factor * (*x.add(d)).to_f32() } else { 0.0 };
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

/// A cache line: gives scratch its alignment.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "reached through the address of the vector")] [f32; 16]);

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Hands `body` the start of at least `n` aligned f32 with arbitrary contents; the memory is kept for the thread's next call.
pub fn with_scratch<T>(n: usize, body: impl FnOnce(*mut f32) -> T) -> T {
    SCRATCH.with_borrow_mut(|lines| {
        let needed = n.div_ceil(16);
        if lines.len() < needed {
            lines.resize(needed, Line([0.0; 16]));
        }
        body(lines.as_mut_ptr().cast())
    })
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
