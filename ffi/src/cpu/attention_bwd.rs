//! Gradients of causal attention (FlashAttention, arXiv 2205.14135, algorithm 4), from the saved log sums.
//!
//!   p_ij = e^(s_ij - lse_i), delta_i = do_i . o_i, ds_ij = p_ij (do_i . v_j - delta_i)
//!   dv_j = sum_i p_ij do_i, dk_j = scale sum_i ds_ij q_i, dq_i = scale sum_j ds_ij k_j
//!
//! A task walks query heads, query tiles and key tiles in rising order and adds in f32 scratch. One task per key head of a row gives
//! all three gradients with five products a pair of tiles. Where these are too few for the threads, one task per query tile gives dq
//! and then one per key tile dk and dv, with seven. Every sum has the same order either way: the bits do not depend on the threads.
//! Overwrites dq, dk, dv and delta.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::attention::{LANE, Mask, Shape, pack_transposed, row_length};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::pieces;
use crate::cpu::rmsnorm::dot;
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::cpu::tile::{
    PackRows, PairRows, Parts, Product, Start, TILE, Triangle, UnpackRows, UnpackTransposed, multiply, pairs_usable,
    with_scratch,
};
use crate::guard::{Result, entry};
use crate::memory::Memory;
use std::ffi::c_void;
use std::ops::Range;

/// p = e^(scale q.k - lse) in place of the products s and ds = scale p (dp - delta) in place of dp, both (keys, TILE).
/// With `pairs` rows hold bf16 in their first half instead, and `ds` takes ds as words of two keys each, (keys / 2, TILE).
struct ScoreGradient {
    s: *mut f32,
    dp: *mut f32,
    ds: *mut f32,
    scale: f32,
    pairs: bool,
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
        let ScoreGradient { s, dp, ds: words, scale, pairs, lse, delta, queries, keys, mask } = self;
        // SAFETY: s and dp have keys * TILE elements, ds half as many (rounded up to rows); lse and delta have TILE.
        unsafe {
            let scale = V::splat(scale);
            for i in (0..queries).step_by(V::N) {
                let (lane, lse, delta) = (V::load(LANE.as_ptr().add(i)), V::load(lse.add(i)), V::load(delta.add(i)));
                let mut low = V::splat(0.0);
                for j in 0..keys {
                    let at = j * TILE + i;
                    let mut p = V::load(s.add(at)).mul(scale).sub(lse).exp();
                    let mut ds = p.mul(V::load(dp.add(at)).sub(delta)).mul(scale);
                    if let Some(mask) = mask {
                        p = mask.apply(p, lane, j, V::splat(0.0));
                        ds = mask.apply(ds, lane, j, V::splat(0.0));
                    }
                    if !pairs {
                        p.store(s.add(at));
                        ds.store(dp.add(at));
                        continue;
                    }
                    // Lanes i.. go to the words i / 2.., which were read before.
                    p.store_bf16(s.add(j * TILE).cast::<u16>().add(i));
                    ds.store_bf16(dp.add(j * TILE).cast::<u16>().add(i));
                    if j % 2 == 1 {
                        low.store_pairs(ds, words.add(j / 2 * TILE + i));
                    } else if j + 1 == keys {
                        ds.store_pairs(V::splat(0.0), words.add(j / 2 * TILE + i));
                    }
                    low = ds;
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

/// Whether products run on pairs of bf16.
fn pairs<E: Element>(D: usize) -> bool {
    !E::IS_F32 && pairs_usable(D)
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

/// One task: pairs of tiles of one row and key head.
struct Task<'a, E> {
    shape: &'a Shape,
    operands: &'a Operands<E>,
    b: usize,
    length: usize,
    /// Query heads, all of one key head.
    heads: Range<usize>,
    /// Tokens whose dq and delta the task writes, where `dq`, or whose pairs it visits.
    queries: Range<usize>,
    /// Tokens whose dk and dv the task writes, where `dkv`, or whose pairs it visits; begins at a tile.
    keys: Range<usize>,
    dq: bool,
    dkv: bool,
}

/// Scratch of a task.
struct Buffers {
    qt: *mut f32,    // (D, query), or words of two elements (D / 2, query)
    dot: *mut f32,   // the same of dO
    dqt: *mut f32,   // (D, query)
    qn: *mut f32,    // (query, width), or words of two queries (query / 2, width)
    don: *mut f32,   // the same of dO
    st: *mut f32,    // (key, query)
    dpt: *mut f32,   // (key, query)
    dst: *mut f32,   // words of two keys (key / 2, query)
    lse: *mut f32,   // (query)
    delta: *mut f32, // (query)
    one: *mut f32,   // (query)
    kn: *mut f32,    // (keys of the task, width), or words of two keys (keys / 2, width)
    vn: *mut f32,    // (keys of the task, width)
    dk: *mut f32,    // (keys of the task, width)
    dv: *mut f32,    // (keys of the task, width)
}

impl Buffers {
    fn elements(shape: &Shape, keys: usize) -> usize {
        3 * shape.D * TILE + 2 * TILE * shape.width() + 3 * TILE * TILE + 3 * TILE + 4 * keys * shape.width()
    }

    /// # Safety
    /// `start` has room for `elements` f32.
    unsafe fn new(start: *mut f32, shape: &Shape, keys: usize) -> Self {
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
                dst: parts.take(TILE * TILE),
                lse: parts.take(TILE),
                delta: parts.take(TILE),
                one: parts.take(TILE),
                kn: parts.take(keys * width),
                vn: parts.take(keys * width),
                dk: parts.take(keys * width),
                dv: parts.take(keys * width),
            }
        }
    }
}

impl<E: Element> Task<'_, E> {
    /// # Safety
    /// The operands are valid for the shape; the task's parts of the outputs are its own.
    unsafe fn run(&self) {
        let Shape { T, H, G, D, .. } = *self.shape;
        let (width, x) = (self.shape.width(), self.operands);
        let keys = self.keys.end.min(self.length).saturating_sub(self.keys.start); // valid ones
        let first = ((self.b * T + self.keys.start) * G + self.heads.start * G / H) * D;
        // SAFETY: all offsets lie inside the operands; scratch is as large as its parts.
        unsafe {
            with_scratch(Buffers::elements(self.shape, keys), |start| {
                let y = Buffers::new(start, self.shape, keys);
                let (k, v) = (x.k.as_ptr().wrapping_add(first), x.v.as_ptr().wrapping_add(first));
                if pairs::<E>(D) {
                    dispatch(PairRows { y: y.kn, x: k.cast(), stride: G * D, rows: keys, D, width });
                } else {
                    dispatch(PackRows { y: y.kn, x: k, stride: G * D, rows: keys, D, width });
                    dispatch(PackRows { y: y.vn, x: v, stride: G * D, rows: keys, D, width });
                }
                std::slice::from_raw_parts_mut(y.one, TILE).fill(1.0);
                if self.dkv {
                    std::slice::from_raw_parts_mut(y.dk, keys * width).fill(0.0);
                    std::slice::from_raw_parts_mut(y.dv, keys * width).fill(0.0);
                }
                for h in self.heads.clone() {
                    for q0 in self.queries.clone().step_by(TILE) {
                        self.query_tile(&y, h, q0);
                    }
                }
                if !self.dkv {
                    return;
                }
                for (to, from) in [(x.dk, y.dk), (x.dv, y.dv)] {
                    let to = to.as_ptr().wrapping_add(first);
                    dispatch(UnpackRows { y: to, x: from, stride: G * D, rows: keys, D, width });
                    for j in keys..self.keys.len() {
                        std::slice::from_raw_parts_mut(to.add(j * G * D), D).fill(E::default());
                    }
                }
            });
        }
    }

    /// The pairs of the queries q0.. of head h with the task's keys.
    ///
    /// # Safety
    /// As `run`.
    unsafe fn query_tile(&self, y: &Buffers, h: usize, q0: usize) {
        let Shape { T, H, G, D, scale, window, .. } = *self.shape;
        let (width, x) = (self.shape.width(), self.operands);
        let rows = TILE.min(T - q0);
        let queries = rows.min(self.length.saturating_sub(q0));
        let at = ((self.b * T + q0) * H + h) * D;
        let statistics = (self.b * H + h) * T + q0;
        // SAFETY: as in `run`.
        unsafe {
            let dq = x.dq.as_ptr().add(at);
            if self.dq {
                for i in queries..rows {
                    std::slice::from_raw_parts_mut(dq.add(i * H * D), D).fill(E::default());
                    *x.delta.as_ptr().add(statistics + i) = 0.0;
                }
            }
            let (begin, end) = (self.shape.first_key(q0) / TILE * TILE, self.keys.end.min(q0 + queries));
            let begin = begin.max(self.keys.start);
            if queries == 0 || begin >= end {
                return;
            }
            let (q, d_o, o) = (x.q.as_ptr().add(at), x.d_o.as_ptr().add(at), x.o.as_ptr().add(at));
            let stride = H * D;
            let pairs = pairs::<E>(D);
            pack_transposed(y.qt, q, stride, queries, D, pairs);
            pack_transposed(y.dot, d_o, stride, queries, D, pairs);
            if pairs {
                dispatch(PairRows { y: y.qn, x: q.cast(), stride, rows: queries, D, width });
                dispatch(PairRows { y: y.don, x: d_o.cast(), stride, rows: queries, D, width });
            } else {
                dispatch(PackRows { y: y.qn, x: q, stride, rows: queries, D, width });
                dispatch(PackRows { y: y.don, x: d_o, stride, rows: queries, D, width });
            }
            dispatch(RowDots { y: y.delta, x: d_o, z: o, stride, rows: queries, D });
            if self.dq {
                std::ptr::copy_nonoverlapping(y.delta, x.delta.as_ptr().add(statistics), queries);
            }
            std::ptr::copy_nonoverlapping(x.lse.as_ptr().add(statistics), y.lse, queries);
            for i in queries..TILE {
                // Lanes without a query get the weight e^-inf = 0.
                *y.lse.add(i) = f32::INFINITY;
                *y.delta.add(i) = 0.0;
            }
            let mut start = Start::Zero;
            for j0 in (begin..end).step_by(TILE) {
                let keys = TILE.min(end - j0);
                let row = (j0 - self.keys.start) * width;
                // Rows of k and v with elements of a key side by side, and k with keys along the sum.
                let (k, v, key_stride, k_deep) = if pairs {
                    let at = ((self.b * T + j0) * G + h * G / H) * D;
                    let (k, v) = (x.k.as_ptr().add(at), x.v.as_ptr().add(at));
                    (k.cast(), v.cast(), G * D / 2, y.kn.add(row / 2))
                } else {
                    (y.kn.add(row), y.vn.add(row), width, y.kn.add(row))
                };
                let on = |triangle| if j0 == q0 { triangle } else { Triangle::None };
                let scores = Product {
                    c: y.st, // (key, query)
                    c_stride: TILE,
                    a: k,
                    a_row: key_stride,
                    a_depth: 1,
                    b: y.qt,
                    b_stride: TILE,
                    rows: keys,
                    depth: if pairs { D / 2 } else { D },
                    columns: queries,
                    start: Start::Zero,
                    triangle: on(Triangle::Output),
                    pairs,
                };
                multiply(Product { c: y.dpt, a: v, b: y.dot, ..scores });
                multiply(scores);
                let mask = Mask { ahead: q0 as isize - j0 as isize, window };
                let mask = mask.cuts(queries, keys).then_some(mask);
                let (s, dp, ds, lse, delta) = (y.st, y.dpt, y.dst, y.lse, y.delta);
                dispatch(ScoreGradient { s, dp, ds, scale, pairs, lse, delta, queries, keys, mask });
                if self.dkv {
                    let d_values = Product {
                        c: y.dv.add(row), // (key, width)
                        c_stride: width,
                        a: y.st,
                        a_row: TILE,
                        a_depth: 1,
                        b: y.don,
                        b_stride: width,
                        rows: keys,
                        depth: if pairs { queries.div_ceil(2) } else { queries },
                        columns: D,
                        start: Start::Keep,
                        triangle: on(Triangle::Left),
                        pairs,
                    };
                    multiply(Product { c: y.dk.add(row), a: y.dpt, b: y.qn, ..d_values });
                    multiply(d_values);
                }
                if self.dq {
                    multiply(Product {
                        c: y.dqt, // (d, query)
                        c_stride: TILE,
                        a: k_deep,
                        a_row: 1,
                        a_depth: width,
                        b: if pairs { y.dst } else { y.dpt },
                        b_stride: TILE,
                        rows: D,
                        depth: if pairs { keys.div_ceil(2) } else { keys },
                        columns: queries,
                        start,
                        triangle: on(Triangle::Right),
                        pairs,
                    });
                    start = Start::Keep;
                }
            }
            if self.dq {
                dispatch(UnpackTransposed { y: dq, x: y.dqt, factor: y.one, stride, rows: queries, D });
            }
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
        let Shape { B, T, H, G, .. } = shape;
        let (group, tiles) = (H / G, T.div_ceil(TILE));
        let task = |b: usize| Task {
            shape: &shape,
            operands: &operands,
            b,
            length: row_length(&lengths, b, T),
            heads: 0..0,
            queries: 0..T,
            keys: 0..T,
            dq: true,
            dkv: true,
        };
        let tile = |i: usize| i * TILE..T.min((i + 1) * TILE);
        // SAFETY (all three): the operands were checked against the shape; tasks write disjoint parts.
        if fills(B * G, rayon::current_num_threads()) {
            pieces(B * G, 1, |piece, _| {
                let (b, g) = (piece / G, piece % G);
                unsafe { Task { heads: g * group..(g + 1) * group, ..task(b) }.run() };
            });
            return;
        }
        // Of a head, long tasks first: late queries see many keys, early keys are seen by many queries.
        pieces(B * H * tiles, 1, |piece, _| {
            let (i, b, h) = (tiles - 1 - piece % tiles, piece / tiles / H, piece / tiles % H);
            unsafe { Task { heads: h..h + 1, queries: tile(i), keys: 0..tile(i).end, dkv: false, ..task(b) }.run() };
        });
        pieces(B * G * tiles, 1, |piece, _| {
            let (i, b, g) = (piece % tiles, piece / tiles / G, piece / tiles % G);
            let (heads, keys) = (g * group..(g + 1) * group, tile(i));
            unsafe { Task { heads, queries: keys.start..T, keys, dq: false, ..task(b) }.run() };
        });
    })
}

/// True when `tasks` equal tasks keep the threads busy enough: seven products instead of five must not be the better deal.
fn fills(tasks: usize, threads: usize) -> bool {
    5 * tasks.div_ceil(threads) * threads <= 7 * tasks
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
