//! Causal attention of whole sequences, forward: FlashAttention (arXiv 2205.14135) on TILE x TILE tiles, online softmax (1805.02867).
//!
//!   s_ij = scale q_i . k_j for keys j in (i - window)..=i,  o_i = sum_j e^(s_ij - m_i) v_j / l_i,  lse_i = m_i + ln l_i
//!
//! q, o (B, T, H, D); k, v (B, T, G, D); head h uses key head floor(h G / H); lse (B, H, T). Queries lie along vector lanes: scores
//! and outputs of a tile are kept transposed (key or d, query), so that maxima, sums and rescaling of the softmax never cross lanes.
//! A task is one query tile of one head; its key tiles come in rising order.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::{fail, pieces};
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::cpu::tile::{
    MAX_D, PackRows, PackTransposed, PairRows, Parts, Product, Start, TILE, Triangle, UnpackTransposed, multiply,
    pairs_usable, with_scratch,
};
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// Sizes and options that forward and backward share.
#[derive(Clone, Copy)]
pub struct Shape {
    pub B: usize,
    pub T: usize,
    pub H: usize,
    pub G: usize,
    pub D: usize,
    /// Keys before the query that it sees; None = all.
    pub window: Option<usize>,
    pub scale: f32,
}

impl Shape {
    pub fn new([B, T, H, G, D]: [i32; 5], window: i32, scale: f32) -> Result<Self> {
        count(&[B, T, H, D])?;
        if G < 1 || H % G != 0 {
            return Err(Error::invalid(format!(
                "Cannot attend: {H} query heads on {G} key heads, expected a multiple of them"
            )));
        }
        if D < 1 || D as usize > MAX_D {
            return Err(Error::invalid(format!("Cannot attend: head size {D}, expected 1 to {MAX_D}")));
        }
        if window < -1 {
            return Err(Error::invalid(format!("Cannot attend: window {window}, expected at least 0, or -1 for all")));
        }
        let window = usize::try_from(window).ok();
        Ok(Shape { B: B as usize, T: T as usize, H: H as usize, G: G as usize, D: D as usize, window, scale })
    }

    /// Elements of q and of k.
    pub fn sizes(&self) -> (usize, usize) {
        (self.B * self.T * self.H * self.D, self.B * self.T * self.G * self.D)
    }

    /// First key that query i sees.
    pub fn first_key(&self, i: usize) -> usize {
        self.window.map_or(0, |window| i.saturating_sub(window))
    }

    /// Head size rounded up to a cache line.
    pub fn width(&self) -> usize {
        self.D.next_multiple_of(16)
    }
}

/// Valid tokens of row b; fails the queue when the number is impossible.
pub fn row_length(lengths: &Option<Memory<i32>>, b: usize, T: usize) -> usize {
    let Some(lengths) = lengths else { return T };
    let length = lengths.get()[b];
    if length < 0 || length as usize > T {
        fail(format!("Cannot attend: row {b} has length {length}, expected 0 to {T}"));
    }
    length as usize
}

/// Which scores of a tile count: key j0 + j is seen by query q0 + i where key <= query and key >= query - window.
#[derive(Clone, Copy)]
pub struct Mask {
    /// q0 - j0.
    pub ahead: isize,
    pub window: Option<usize>,
}

impl Mask {
    /// True when some pair of the tile is hidden.
    pub fn cuts(&self, queries: usize, keys: usize) -> bool {
        let (queries, keys) = (queries as isize, keys as isize);
        keys - 1 > self.ahead || self.window.is_some_and(|window| self.ahead + queries - 1 > window as isize)
    }

    /// `s` where key j is seen by the queries `i` (lane numbers plus the vector's first), else `hidden`.
    #[inline(always)]
    pub fn apply<V: Lanes>(&self, s: V, i: V, j: usize, hidden: V) -> V {
        // SAFETY: s is a value of V. Offsets are below 2^24, so f32 holds them exactly.
        unsafe {
            let lead = i.add(V::splat((self.ahead - j as isize) as f32)); // query - key
            let s = V::splat(0.0).where_le(lead, s, hidden);
            match self.window {
                Some(window) => lead.where_le(V::splat(window as f32), s, hidden),
                None => s,
            }
        }
    }
}

/// Numbers 0, 1, 2, ... to load as lane numbers.
pub static LANE: [f32; TILE] = {
    let mut lanes = [0.0; TILE];
    let mut i = 0;
    while i < TILE {
        lanes[i] = i as f32;
        i += 1;
    }
    lanes
};

/// Turns products q.k (keys, TILE) into weights e^(scale q.k - m) with the new running maximum m, in place: as f32, or as words of
/// two keys each in the first half of the rows. Updates m, l and gives the factor of what was summed before.
struct Softmax {
    s: *mut f32,
    scale: f32,
    pairs: bool,
    m: *mut f32,
    l: *mut f32,
    factor: *mut f32,
    queries: usize,
    keys: usize,
    mask: Option<Mask>,
}

impl Kernel for Softmax {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Softmax { s, scale, pairs, m, l, factor, queries, keys, mask } = self;
        // SAFETY: s has keys * TILE elements; m, l and factor have TILE.
        unsafe {
            let scale = V::splat(scale);
            for i in (0..queries).step_by(V::N) {
                let lane = V::load(LANE.as_ptr().add(i));
                let old = V::load(m.add(i));
                let mut largest = old;
                for j in 0..keys {
                    let mut x = V::load(s.add(j * TILE + i)).mul(scale);
                    if let Some(mask) = mask {
                        x = mask.apply(x, lane, j, V::splat(f32::NEG_INFINITY));
                    }
                    x.store(s.add(j * TILE + i));
                    largest = largest.max(x);
                }
                // Finite where nothing is seen yet, so that e^(-inf - m) is 0 and not NaN.
                let base = V::splat(f32::MIN).max(largest);
                let mut sum = V::splat(0.0);
                if pairs {
                    for j in (0..keys).step_by(2) {
                        let low = V::load(s.add(j * TILE + i)).sub(base).exp();
                        let mut high = V::splat(0.0);
                        if j + 1 < keys {
                            high = V::load(s.add((j + 1) * TILE + i)).sub(base).exp();
                        }
                        low.store_pairs(high, s.add(j / 2 * TILE + i));
                        sum = sum.add(low).add(high);
                    }
                } else {
                    for j in 0..keys {
                        let p = V::load(s.add(j * TILE + i)).sub(base).exp();
                        p.store(s.add(j * TILE + i));
                        sum = sum.add(p);
                    }
                }
                let shrink = old.sub(base).exp();
                sum.fma(V::load(l.add(i)), shrink).store(l.add(i));
                shrink.store(factor.add(i));
                largest.store(m.add(i));
            }
        }
    }
}

/// One task: queries q0.. of head h of row b.
struct Task<'a, E> {
    shape: &'a Shape,
    o: *mut E,
    lse: *mut f32,
    q: *const E,
    k: *const E,
    v: *const E,
    b: usize,
    h: usize,
    q0: usize,
    length: usize,
}

impl<E: Element> Task<'_, E> {
    /// # Safety
    /// The operands are valid for the shape; the task's part of o and lse is its own.
    unsafe fn run(&self) {
        let Shape { T, H, G, D, scale, .. } = *self.shape;
        let rows = TILE.min(T - self.q0);
        let queries = rows.min(self.length.saturating_sub(self.q0));
        let token = self.b * T + self.q0;
        // SAFETY: all offsets lie inside the operands; scratch is as large as its parts.
        unsafe {
            let o = self.o.add((token * H + self.h) * D);
            for i in queries..rows {
                std::slice::from_raw_parts_mut(o.add(i * H * D), D).fill(E::default());
            }
            let lse = (!self.lse.is_null()).then(|| self.lse.add((self.b * H + self.h) * T + self.q0));
            if let Some(lse) = lse {
                std::slice::from_raw_parts_mut(lse.add(queries), rows - queries).fill(0.0);
            }
            if queries == 0 {
                return;
            }
            let scratch = 2 * D * TILE + TILE * TILE + 2 * TILE * self.shape.width() + 3 * TILE;
            with_scratch(scratch, |start| {
                let mut parts = Parts(start);
                let (qt, ot, st) = (parts.take(D * TILE), parts.take(D * TILE), parts.take(TILE * TILE));
                let kv = [parts.take(TILE * self.shape.width()), parts.take(TILE * self.shape.width())];
                let (m, l, factor) = (parts.take(TILE), parts.take(TILE), parts.take(TILE));
                std::slice::from_raw_parts_mut(m, TILE).fill(f32::NEG_INFINITY);
                std::slice::from_raw_parts_mut(l, TILE).fill(0.0);
                std::slice::from_raw_parts_mut(ot, D * TILE).fill(0.0);
                let q = self.q.add((token * H + self.h) * D);
                let pairs = !E::IS_F32 && pairs_usable(D);
                pack_transposed(qt, q, H * D, queries, D, pairs);

                let end = self.q0 + queries; // keys before it are seen by some query
                let mut j0 = self.shape.first_key(self.q0) / TILE * TILE;
                while j0 < end {
                    let keys = TILE.min(end - j0);
                    let at = ((self.b * T + j0) * G + self.h * G / H) * D;
                    let (k, v) = (self.k.add(at), self.v.add(at));
                    let ((k, k_stride), (v, v_stride)) = if pairs {
                        let (y, stride, width) = (kv[1], G * D, self.shape.width());
                        dispatch(PairRows { y, x: v.cast(), stride, rows: keys, D, width });
                        ((k.cast(), stride / 2), (y.cast_const(), width))
                    } else {
                        (widen(k, kv[0], self.shape, keys), widen(v, kv[1], self.shape, keys))
                    };
                    let on = |triangle| if j0 == self.q0 { triangle } else { Triangle::None };
                    multiply(Product {
                        c: st, // (key, query)
                        c_stride: TILE,
                        a: k,
                        a_row: k_stride,
                        a_depth: 1,
                        b: qt,
                        b_stride: TILE,
                        rows: keys,
                        depth: if pairs { D / 2 } else { D },
                        columns: queries,
                        start: Start::Zero,
                        triangle: on(Triangle::Output),
                        pairs,
                    });
                    let mask = Mask { ahead: self.q0 as isize - j0 as isize, window: self.shape.window };
                    let mask = mask.cuts(queries, keys).then_some(mask);
                    dispatch(Softmax { s: st, scale, pairs, m, l, factor, queries, keys, mask });
                    multiply(Product {
                        c: ot, // (d, query)
                        c_stride: TILE,
                        a: v,
                        a_row: 1,
                        a_depth: v_stride,
                        b: st,
                        b_stride: TILE,
                        rows: D,
                        depth: if pairs { keys.div_ceil(2) } else { keys },
                        columns: queries,
                        start: Start::Scaled(factor),
                        triangle: on(Triangle::Right),
                        pairs,
                    });
                    j0 += TILE;
                }
                for i in 0..queries {
                    if let Some(lse) = lse {
                        *lse.add(i) = *m.add(i) + (*l.add(i)).ln();
                    }
                    *factor.add(i) = 1.0 / *l.add(i);
                }
                dispatch(UnpackTransposed { y: o, x: ot, factor, stride: H * D, rows: queries, D });
            });
        }
    }
}

/// Rows of q or dO as (D, TILE) f32, or as (D / 2, TILE) words of two elements each.
///
/// # Safety
/// x has `rows` rows of D, `stride` apart; y has D * TILE elements.
pub unsafe fn pack_transposed<E: Element>(y: *mut f32, x: *const E, stride: usize, rows: usize, D: usize, pairs: bool) {
    // SAFETY: as promised; a row of D bf16 is one of D / 2 words.
    unsafe {
        if pairs {
            dispatch(PackTransposed { y, x: x.cast::<f32>(), stride: stride / 2, rows, D: D / 2 });
        } else {
            dispatch(PackTransposed { y, x, stride, rows, D });
        }
    }
}

/// Rows of k or v as f32 and their distance: f32 in place, bf16 widened into `scratch`.
///
/// # Safety
/// x has `rows` rows of D, G * D apart; scratch has room for rows * width.
unsafe fn widen<E: Element>(x: *const E, scratch: *mut f32, shape: &Shape, rows: usize) -> (*const f32, usize) {
    let (stride, width) = (shape.G * shape.D, shape.width());
    if E::IS_F32 {
        return (x.cast(), stride);
    }
    // SAFETY: as promised.
    unsafe { dispatch(PackRows { y: scratch, x, stride, rows, D: shape.D, width }) };
    (scratch, width)
}

fn forward<E: Element>(
    cx: &Context,
    (o, lse): (*mut c_void, *mut c_void),
    [q, k, v, lengths]: [*mut c_void; 4],
    shape: Shape,
) -> Result<()> {
    let (nQ, nK) = shape.sizes();
    let (o, q): (Memory<E>, Memory<E>) = (cx.memory(o, nQ, "o")?, cx.memory(q, nQ, "q")?);
    let (k, v): (Memory<E>, Memory<E>) = (cx.memory(k, nK, "k")?, cx.memory(v, nK, "v")?);
    let lse: Option<Memory<f32>> = cx.optional(lse, shape.B * shape.H * shape.T, "lse")?;
    let lengths: Option<Memory<i32>> = cx.optional(lengths, shape.B, "lengths")?;
    let tiles = shape.T.div_ceil(TILE);
    cx.enqueue("nc_attention_fwd", move || {
        pieces(shape.B * shape.H * tiles, 1, |piece, _| {
            // Tiles of one head follow each other, so that its keys stay in the cache; those that see the most keys come first.
            let (head, tile) = (piece / tiles, tiles - 1 - piece % tiles);
            let (b, h) = (head / shape.H, head % shape.H);
            let task = Task {
                shape: &shape,
                o: o.as_ptr(),
                lse: lse.map_or(std::ptr::null_mut(), |lse| lse.as_ptr()),
                q: q.as_ptr(),
                k: k.as_ptr(),
                v: v.as_ptr(),
                b,
                h,
                q0: tile * TILE,
                length: row_length(&lengths, b, shape.T),
            };
            // SAFETY: the operands were checked against the shape; tasks write disjoint rows.
            unsafe { task.run() };
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_attention_fwd(
    ctx: *mut Context,
    o: *mut c_void,
    lse: *mut c_void,
    q: *mut c_void,
    k: *mut c_void,
    v: *mut c_void,
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
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let shape = Shape::new([B, T, H, G, D], window, scale)?;
            match dtype {
                DTYPE_F32 => forward::<f32>(cx, (o, lse), [q, k, v, lengths], shape),
                DTYPE_BF16 => forward::<u16>(cx, (o, lse), [q, k, v, lengths], shape),
                _ => float_only("attend", dtype),
            }
        })
    }
}
