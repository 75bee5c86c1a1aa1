//! Gradients of causal attention (FlashAttention, arXiv 2205.14135, algorithm 4), from the saved log sums.
//!
//!   p_ij = e^(s_ij - lse_i), delta_i = do_i . o_i, ds_ij = p_ij (do_i . v_j - delta_i)
//!   dv_j = sum_i p_ij do_i, dk_j = scale sum_i ds_ij q_i, dq_i = scale sum_j ds_ij k_j
//!
//! A task is one key head of one row with all its query heads: it walks heads, query tiles and key tiles in rising order and adds
//! dk and dv in f32 scratch, so every sum has one order for any number of threads. Overwrites dq, dk, dv and delta.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::context::Memory;
use crate::cpu::attention::{LANE, Mask, Shape, row_length};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::pieces;
use crate::cpu::rmsnorm::dot;
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::cpu::tile::{
    PackRows, PackTransposed, Parts, Product, Start, TILE, UnpackRows, UnpackTransposed, with_scratch,
};
use crate::guard::{Result, entry};
use std::ffi::c_void;

/// p = e^(s - lse) in place of the scores s and ds = p (dp - delta) in place of dp, both (keys, TILE).
struct ScoreGradient {
    s: *mut f32,
    dp: *mut f32,
    lse: *const f32,
    delta: *const f32,
    queries: usize,
    keys: usize,
    mask: Option<Mask>,
}

impl Kernel for ScoreGradient {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let ScoreGradient { s, dp, lse, delta, queries, keys, mask } = self;
        // SAFETY: s and dp have keys * TILE elements; lse and delta have TILE.
        unsafe {
            for i in (0..queries).step_by(V::N) {
                let (lane, lse, delta) = (V::load(LANE.as_ptr().add(i)), V::load(lse.add(i)), V::load(delta.add(i)));
                for j in 0..keys {
                    let at = j * TILE + i;
                    let mut p = V::load(s.add(at)).sub(lse).exp();
                    let mut ds = p.mul(V::load(dp.add(at)).sub(delta));
                    if let Some(mask) = mask {
                        p = mask.apply(p, lane, j, V::splat(0.0));
                        ds = mask.apply(ds, lane, j, V::splat(0.0));
                    }
                    p.store(s.add(at));
                    ds.store(dp.add(at));
                }
            }
        }
    }
}

/// y[i] = x[i] . z[i] over rows of D elements `stride` apart.
struct RowDots<E> {
    y: *mut f32,
    x: *const E,
    z: *const E,
    stride: usize,
    rows: usize,
    D: usize,
}

impl<E: Element> Kernel for RowDots<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for i in 0..self.rows {
            // SAFETY: `rows` rows of D elements in x and z, `rows` elements in y.
            unsafe {
                *self.y.add(i) = dot::<V, E, E>(self.x.add(i * self.stride), self.z.add(i * self.stride), self.D);
            }
        }
    }
}

/// Operands of a call.
struct Operands<E> {
    dq: Memory<E>,
    dk: Memory<E>,
    dv: Memory<E>,
    delta: Memory<f32>,
    d_o: Memory<E>,
    q: Memory<E>,
    k: Memory<E>,
    v: Memory<E>,
    o: Memory<E>,
    lse: Memory<f32>,
}

/// One task: key head g of row b.
struct Task<'a, E> {
    shape: &'a Shape,
    operands: &'a Operands<E>,
    b: usize,
    g: usize,
    length: usize,
}

/// Scratch of a task.
struct Buffers {
    qt: *mut f32,  // (D, query), scaled
    dot: *mut f32, // (D, query)
    dqt: *mut f32, // (D, query)
    qn: *mut f32,  // (query, width), scaled
    don: *mut f32, // (query, width)
    st: *mut f32,  // (key, query)
    dpt: *mut f32, // (key, query)
    lse: *mut f32, // (query)
    delta: *mut f32,
    scale: *mut f32,
    kn: *mut f32, // (T, width)
    vn: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
}

impl Buffers {
    fn elements(shape: &Shape, length: usize) -> usize {
        3 * shape.D * TILE + 2 * TILE * shape.width() + 2 * TILE * TILE + 3 * TILE + 4 * length * shape.width()
    }

    /// # Safety
    /// `start` has room for `elements` f32.
    unsafe fn new(start: *mut f32, shape: &Shape, length: usize) -> Self {
        let (mut parts, D, width) = (Parts(start), shape.D, shape.width());
        // SAFETY: the parts add up to `elements`; each is a multiple of 16 long.
        unsafe {
            Buffers {
                qt: parts.take(D * TILE),
                dot: parts.take(D * TILE),
                dqt: parts.take(D * TILE),
                qn: parts.take(TILE * width),
                don: parts.take(TILE * width),
                st: parts.take(TILE * TILE),
                dpt: parts.take(TILE * TILE),
                lse: parts.take(TILE),
                delta: parts.take(TILE),
                scale: parts.take(TILE),
                kn: parts.take(length * width),
                vn: parts.take(length * width),
                dk: parts.take(length * width),
                dv: parts.take(length * width),
            }
        }
    }
}

impl<E: Element> Task<'_, E> {
    /// # Safety
    /// The operands are valid for the shape; the task's parts of the outputs are its own.
    unsafe fn run(&self) {
        let Shape { T, H, G, D, scale, .. } = *self.shape;
        let (width, length, x) = (self.shape.width(), self.length, self.operands);
        let first = (self.b * T * G + self.g) * D; // token 0 of this key head
        // SAFETY: all offsets lie inside the operands; scratch is as large as its parts.
        unsafe {
            with_scratch(Buffers::elements(self.shape, length), |start| {
                let y = Buffers::new(start, self.shape, length);
                for (y, x) in [(y.kn, x.k), (y.vn, x.v)] {
                    let x = x.as_ptr().add(first);
                    dispatch(PackRows { y, x, stride: G * D, rows: length, D, width, factor: 1.0 });
                }
                std::slice::from_raw_parts_mut(y.dk, length * width).fill(0.0);
                std::slice::from_raw_parts_mut(y.dv, length * width).fill(0.0);
                std::slice::from_raw_parts_mut(y.scale, TILE).fill(scale);
                let group = H / G;
                for h in self.g * group..(self.g + 1) * group {
                    for q0 in (0..T).step_by(TILE) {
                        self.query_tile(&y, h, q0);
                    }
                }
                for (to, from) in [(x.dk, y.dk), (x.dv, y.dv)] {
                    let to = to.as_ptr().add(first);
                    dispatch(UnpackRows { y: to, x: from, stride: G * D, rows: length, D, width });
                    for t in length..T {
                        std::slice::from_raw_parts_mut(to.add(t * G * D), D).fill(E::default());
                    }
                }
            });
        }
    }

    /// dq of queries q0.. of head h, and their part of dk and dv.
    ///
    /// # Safety
    /// As `run`.
    unsafe fn query_tile(&self, y: &Buffers, h: usize, q0: usize) {
        let Shape { T, H, D, scale, window, .. } = *self.shape;
        let (width, x) = (self.shape.width(), self.operands);
        let rows = TILE.min(T - q0);
        let queries = rows.min(self.length.saturating_sub(q0));
        let at = ((self.b * T + q0) * H + h) * D;
        let statistics = (self.b * H + h) * T + q0;
        // SAFETY: as in `run`.
        unsafe {
            let dq = x.dq.as_ptr().add(at);
            for i in queries..rows {
                std::slice::from_raw_parts_mut(dq.add(i * H * D), D).fill(E::default());
                *x.delta.as_ptr().add(statistics + i) = 0.0;
            }
            if queries == 0 {
                return;
            }
            let (q, d_o, o) = (x.q.as_ptr().add(at), x.d_o.as_ptr().add(at), x.o.as_ptr().add(at));
            let stride = H * D;
            dispatch(PackTransposed { y: y.qt, x: q, stride, rows: queries, D, factor: scale });
            dispatch(PackTransposed { y: y.dot, x: d_o, stride, rows: queries, D, factor: 1.0 });
            dispatch(PackRows { y: y.qn, x: q, stride, rows: queries, D, width, factor: scale });
            dispatch(PackRows { y: y.don, x: d_o, stride, rows: queries, D, width, factor: 1.0 });
            dispatch(RowDots { y: y.delta, x: d_o, z: o, stride, rows: queries, D });
            std::ptr::copy_nonoverlapping(y.delta, x.delta.as_ptr().add(statistics), queries);
            std::ptr::copy_nonoverlapping(x.lse.as_ptr().add(statistics), y.lse, queries);
            for i in queries..TILE {
                // Lanes without a query get the weight e^-inf = 0.
                *y.lse.add(i) = f32::INFINITY;
                *y.delta.add(i) = 0.0;
            }
            let end = q0 + queries;
            let mut start = Start::Zero;
            let mut j0 = self.shape.first_key(q0) / TILE * TILE;
            while j0 < end {
                let keys = TILE.min(end - j0);
                let (k, v) = (y.kn.add(j0 * width), y.vn.add(j0 * width));
                let scores = Product {
                    c: y.st, // (key, query)
                    c_stride: TILE,
                    a: k,
                    a_row: width,
                    a_depth: 1,
                    b: y.qt,
                    b_stride: TILE,
                    rows: keys,
                    depth: D,
                    columns: queries,
                    start: Start::Zero,
                };
                dispatch(Product { c: y.dpt, a: v, b: y.dot, ..scores });
                dispatch(scores);
                let mask = Mask { ahead: q0 as isize - j0 as isize, window };
                let mask = mask.cuts(queries, keys).then_some(mask);
                dispatch(ScoreGradient { s: y.st, dp: y.dpt, lse: y.lse, delta: y.delta, queries, keys, mask });
                let d_values = Product {
                    c: y.dv.add(j0 * width), // (key, width)
                    c_stride: width,
                    a: y.st,
                    a_row: TILE,
                    a_depth: 1,
                    b: y.don,
                    b_stride: width,
                    rows: keys,
                    depth: queries,
                    columns: D,
                    start: Start::Keep,
                };
                dispatch(Product { c: y.dk.add(j0 * width), a: y.dpt, b: y.qn, ..d_values });
                dispatch(d_values);
                dispatch(Product {
                    c: y.dqt, // (d, query)
                    c_stride: TILE,
                    a: k,
                    a_row: 1,
                    a_depth: width,
                    b: y.dpt,
                    b_stride: TILE,
                    rows: D,
                    depth: keys,
                    columns: queries,
                    start,
                });
                start = Start::Keep;
                j0 += TILE;
            }
            dispatch(UnpackTransposed { y: dq, x: y.dqt, factor: y.scale, stride, rows: queries, D });
        }
    }
}

fn backward<E: Element>(
    cx: &Context,
    [dq, dk, dv, delta]: [*mut c_void; 4],
    [d_o, q, k, v, o, lse, lengths]: [*mut c_void; 7],
    shape: Shape,
) -> Result<()> {
    let (nQ, nK) = shape.sizes();
    let statistics = shape.B * shape.H * shape.T;
    let operands: Operands<E> = Operands {
        dq: cx.memory(dq, nQ, "dq")?,
        dk: cx.memory(dk, nK, "dk")?,
        dv: cx.memory(dv, nK, "dv")?,
        delta: cx.memory(delta, statistics, "delta")?,
        d_o: cx.memory(d_o, nQ, "dO")?,
        q: cx.memory(q, nQ, "q")?,
        k: cx.memory(k, nK, "k")?,
        v: cx.memory(v, nK, "v")?,
        o: cx.memory(o, nQ, "o")?,
        lse: cx.memory(lse, statistics, "lse")?,
    };
    let lengths: Option<Memory<i32>> = cx.optional(lengths, shape.B, "lengths")?;
    cx.enqueue("nc_attention_bwd", move || {
        pieces(shape.B * shape.G, 1, |piece, _| {
            let (b, g) = (piece / shape.G, piece % shape.G);
            let length = row_length(&lengths, b, shape.T);
            // SAFETY: the operands were checked against the shape; tasks write disjoint heads.
            unsafe { Task { shape: &shape, operands: &operands, b, g, length }.run() };
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_attention_bwd(
    ctx: *mut Context,
    dq: *mut c_void,
    dk: *mut c_void,
    dv: *mut c_void,
    delta: *mut c_void,
    dO: *mut c_void,
    q: *mut c_void,
    k: *mut c_void,
    v: *mut c_void,
    o: *mut c_void,
    lse: *mut c_void,
    lengths: *mut c_void,
    B: i32,
    T: i32,
    H: i32,
    G: i32,
    D: i32,
    window: i32,
    scale: f32,
    dtype: i32,
) -> i32 {
    let (outputs, inputs) = ([dq, dk, dv, delta], [dO, q, k, v, o, lse, lengths]);
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let shape = Shape::new([B, T, H, G, D], window, scale)?;
            match dtype {
                DTYPE_F32 => backward::<f32>(cx, outputs, inputs, shape),
                DTYPE_BF16 => backward::<u16>(cx, outputs, inputs, shape),
                _ => float_only("differentiate attention", dtype),
            }
        })
    }
}
