//! Attention of new tokens to a key/value cache (prefill in chunks, decoding).
//!
//!   query t of row b sits at p = positions[b] + t and sees keys p - window..=p;  o = sum_j e^(s_j - m) v_j / l
//!
//! Batch-invariant: a query is computed alone, from key tiles at absolute multiples of TILE in rising order, so its bits depend on
//! its own q, its position and the cache, not on B, T, the cut of the prompt or the number of threads.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::attention::Shape;
use crate::cpu::elementwise::float_only;
use crate::cpu::kv_cache::Progress;
use crate::cpu::pieces::{PIECE, pieces};
use crate::cpu::rmsnorm::dot;
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::cpu::tile::{MAX_D, TILE};
use crate::guard::{Result, entry};
use crate::memory::{Memory, count};
use std::ffi::c_void;

/// Products (of a query and a key element) below which one thread does all: about 10 us.
const INLINE: usize = 256 << 10;

/// A zeroed, aligned row.
#[repr(align(64))]
struct Row<const N: usize>([f32; N]);

/// One query on keys first..=position of its head.
struct Query<E> {
    o: *mut E,
    q: *const E,
    k: *const E, // key 0 of the head; rows of D, contiguous
    v: *const E,
    first: usize,
    position: usize,
    scale: f32,
    D: usize,
}

impl<E: Element> Query<E> {
    /// acc = acc * shrink + sum of p[j] v[j] over the rows of a tile, W vectors at d.
    #[inline(always)]
    unsafe fn add_values<V: Lanes, const W: usize>(&self, acc: *mut f32, shrink: V, p: &[f32], v: *const E, d: usize) {
        // SAFETY: d + W * N <= D rounded up to N only for the tail, which is handled by load_part.
        unsafe {
            let mut sums = [shrink; W];
            for (x, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(acc.add(d + x * V::N)).mul(shrink);
            }
            for (j, &p) in p.iter().enumerate() {
                let (p, v) = (V::splat(p), v.add(j * self.D + d));
                for (x, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.fma(p, E::load(v.add(x * V::N)));
                }
            }
            for (x, sum) in sums.iter().enumerate() {
                sum.store(acc.add(d + x * V::N));
            }
        }
    }

    /// The same for the last D % N columns.
    #[inline(always)]
    unsafe fn add_values_tail<V: Lanes>(&self, acc: *mut f32, shrink: V, p: &[f32], v: *const E, d: usize) {
        // SAFETY: acc is padded to whole vectors; rows of v have D - d elements at d.
        unsafe {
            let mut sum = V::load(acc.add(d)).mul(shrink);
            for (j, &p) in p.iter().enumerate() {
                sum = sum.fma(V::splat(p), E::load_part(v.add(j * self.D + d), self.D - d));
            }
            sum.store(acc.add(d));
        }
    }
}

impl<E: Element> Kernel for Query<E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Query { o, q, k, v, first, position, scale, D } = self;
        let mut query = Row([0.0f32; MAX_D]);
        let mut acc = Row([0.0f32; MAX_D]);
        // SAFETY: D <= MAX_D; keys first..=position exist in the cache.
        unsafe {
            for d in 0..D {
                query.0[d] = scale * (*q.add(d)).to_f32();
            }
            let acc = acc.0.as_mut_ptr();
            let mut m = f32::NEG_INFINITY;
            let mut l = V::splat(0.0);
            for tile in first / TILE..=position / TILE {
                let (begin, end) = (first.max(tile * TILE), (position + 1).min((tile + 1) * TILE));
                // Scores at their place in the tile; keys that are not seen get the weight e^-inf = 0.
                let mut p = Row([f32::NEG_INFINITY; TILE]);
                for j in begin..end {
                    p.0[j % TILE] = dot::<V, f32, E>(query.0.as_ptr(), k.add(j * D), D);
                }
                let mut largest = V::splat(m);
                for i in (0..TILE).step_by(V::N) {
                    largest = largest.max(V::load(p.0.as_ptr().add(i)));
                }
                let (old, base) = (m, largest.max_lane().max(f32::MIN));
                m = base;
                let base = V::splat(base);
                let shrink = V::splat(old).sub(base).exp();
                l = l.mul(shrink);
                for i in (0..TILE).step_by(V::N) {
                    let at = p.0.as_mut_ptr().add(i);
                    let weights = V::load(at).sub(base).exp();
                    weights.store(at);
                    l = l.add(weights);
                }
                let (p, v) = (&p.0[begin % TILE..][..end - begin], v.add(begin * D));
                let mut d = 0;
                while d + 8 * V::N <= D {
                    self.add_values::<V, 8>(acc, shrink, p, v, d);
                    d += 8 * V::N;
                }
                while d + 2 * V::N <= D {
                    self.add_values::<V, 2>(acc, shrink, p, v, d);
                    d += 2 * V::N;
                }
                while d + V::N <= D {
                    self.add_values::<V, 1>(acc, shrink, p, v, d);
                    d += V::N;
                }
                if d < D {
                    self.add_values_tail(acc, shrink, p, v, d);
                }
            }
            let factor = 1.0 / l.sum();
            for d in 0..D {
                *o.add(d) = E::from_f32(*acc.add(d) * factor);
            }
        }
    }
}

fn forward<E: Element>(
    cx: &Context,
    [o, q, kCache, vCache]: [*mut c_void; 4],
    progress: Progress,
    shape: Shape,
    capacity: i32,
) -> Result<()> {
    let (n, _) = shape.sizes();
    let cached = count(&[shape.B as i32, shape.G as i32, capacity, shape.D as i32])?;
    let (o, q): (Memory<E>, Memory<E>) = (cx.memory(o, n, "o")?, cx.memory(q, n, "q")?);
    let (k, v): (Memory<E>, Memory<E>) = (cx.memory(kCache, cached, "kCache")?, cx.memory(vCache, cached, "vCache")?);
    let capacity = capacity as usize;
    cx.enqueue("nc_attention_cached_fwd", move || {
        progress.check("attend to the cache");
        let Shape { B, T, H, G, D, scale, .. } = shape;
        let longest = (0..B).map(|b| progress.row(b)).map(|(position, count)| position + count).max().unwrap_or(0);
        // Queries of one head follow each other, so that its keys stay in the cache. Little work is not worth a hand-over.
        let step = (2 * PIECE / (longest * D).max(1)).max(1);
        let step = if B * H * T * longest * D <= INLINE { B * H * T } else { step };
        pieces(B * H * T, step, |begin, end| {
            for i in begin..end {
                let (b, h, t) = (i / (H * T), i / T % H, i % T);
                let (position, count) = progress.row(b);
                let at = ((b * T + t) * H + h) * D;
                // SAFETY: offsets lie inside the checked operands; a query is written by one piece.
                unsafe {
                    let o = o.as_ptr().add(at);
                    if t >= count {
                        std::slice::from_raw_parts_mut(o, D).fill(E::default());
                        continue;
                    }
                    let head = (b * G + h * G / H) * capacity * D;
                    dispatch(Query {
                        o,
                        q: q.as_ptr().add(at),
                        k: k.as_ptr().add(head),
                        v: v.as_ptr().add(head),
                        first: shape.first_key(position + t),
                        position: position + t,
                        scale,
                        D,
                    });
                }
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_attention_cached_fwd(
    ctx: *mut Context,
    o: *mut c_void,
    q: *mut c_void,
    kCache: *mut c_void,
    vCache: *mut c_void,
    positions: *mut c_void,
    counts: *mut c_void,
    _scratch: *mut c_void, // for CUDA
    B: i32,
    T: i32,
    H: i32,
    G: i32,
    D: i32,
    capacity: i32,
    window: i32,
    scale: f32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let shape = Shape::new([B, T, H, G, D], window, scale)?;
            let progress = Progress::new(cx, positions, counts, [B, T, capacity])?;
            match dtype {
                DTYPE_F32 => forward::<f32>(cx, [o, q, kCache, vCache], progress, shape, capacity),
                DTYPE_BF16 => forward::<u16>(cx, [o, q, kCache, vCache], progress, shape, capacity),
                _ => float_only("attend to the cache", dtype),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::attention_tests::plain;
    use crate::cpu::kv_cache::nc_kv_append;
    use crate::cpu::testing::{Rig, close, elements, widen};

    /// Sizes of a model's attention with one sequence of `length` tokens.
    #[derive(Clone, Copy)]
    struct Case {
        H: usize,
        G: usize,
        D: usize,
        length: usize,
        window: i32,
    }

    impl Case {
        fn scale(&self) -> f32 {
            1.0 / (self.D as f32).sqrt()
        }

        /// q, k, v of all tokens.
        fn inputs<E: Element>(&self) -> [Vec<E>; 3] {
            let Case { H, G, D, length, .. } = *self;
            [elements(length * H * D, 1), elements(length * G * D, 2), elements(length * G * D, 3)]
        }

        /// Feeds the sequence to row `row` of a batch of B in chunks of the given sizes, padded to the longest; the other rows
        /// hold other tokens at other positions. Gives o of all tokens.
        fn run<E: Element>(&self, rig: &Rig, B: usize, row: usize, chunks: &[usize]) -> Vec<E> {
            let Case { H, G, D, length, window } = *self;
            let dtype = if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 };
            let T = *chunks.iter().max().unwrap();
            let capacity = length + 8;
            let [q, k, v] = self.inputs::<E>();
            let caches = [rig.junk::<E>(B * G * capacity * D), rig.junk::<E>(B * G * capacity * D)];
            let (mut o, mut position) = (vec![], 0);
            for &chunk in chunks {
                // Row r takes the tokens of the row of the test, shifted by its distance to it.
                let spread = |x: &[E], heads: usize, stream: u32| -> Vec<E> {
                    let mut y = elements::<E>(B * T * heads * D, stream);
                    let width = heads * D;
                    y[row * T * width..][..chunk * width].copy_from_slice(&x[position * width..][..chunk * width]);
                    y
                };
                let positions: Vec<i32> =
                    (0..B).map(|r| if r == row { position as i32 } else { (r % 3) as i32 }).collect();
                let counts: Vec<i32> =
                    (0..B).map(|r| if r == row { chunk as i32 } else { (r % 4).min(T) as i32 }).collect();
                let [pq, pk, pv] = [rig.put(&spread(&q, H, 7)), rig.put(&spread(&k, G, 8)), rig.put(&spread(&v, G, 9))];
                let (pp, pc, po) = (rig.put(&positions), rig.put(&counts), rig.junk::<E>(B * T * H * D));
                let [b, t, h, g, d, c] = [B, T, H, G, D, capacity].map(|n| n as i32);
                unsafe {
                    let ctx = rig.ctx();
                    rig.ok(nc_kv_append(ctx, caches[0], caches[1], pk, pv, pp, pc, b, t, g, d, c, dtype));
                    rig.ok(nc_attention_cached_fwd(
                        ctx,
                        po,
                        pq,
                        caches[0],
                        caches[1],
                        pp,
                        pc,
                        std::ptr::null_mut(),
                        b,
                        t,
                        h,
                        g,
                        d,
                        c,
                        window,
                        self.scale(),
                        dtype,
                    ));
                }
                let out: Vec<E> = rig.get(po, B * T * H * D);
                let first = row * T * H * D;
                o.extend_from_slice(&out[first..first + chunk * H * D]);
                assert!(out[first + chunk * H * D..(row + 1) * T * H * D].iter().all(|x| x.to_f32() == 0.0));
                position += chunk;
            }
            assert_eq!(position, length);
            o
        }
    }

    fn cuts(length: usize) -> Vec<Vec<usize>> {
        let mut odd = vec![37; length / 37];
        odd.push(length % 37);
        odd.retain(|&n| n > 0);
        vec![vec![length], vec![1; length], odd, vec![length - 1, 1], vec![1, length - 1]]
    }

    fn check<E: Element>(case: Case) {
        let Case { H, G, D, length, window } = case;
        let first = case.run::<E>(&Rig::new(1), 1, 0, &[length]);
        let [q, k, v] = case.inputs::<E>();
        let shape = Shape::new([1, length, H, G, D].map(|n| n as i32), window, case.scale()).unwrap();
        let (q, k, v) = (widen(&q), widen(&k), widen(&v));
        let expected = plain::attention(&shape, &q, &k, &v, &q, &[length as i32]).o;
        close("o", &first, &expected, length.max(D));
        let bits = |o: &[E]| o.iter().map(|x| x.to_f32().to_bits()).collect::<Vec<_>>();
        for (threads, B, row) in [(1, 1, 0), (2, 1, 0), (3, 3, 1), (2, 16, 15), (2, 3, 2)] {
            let rig = Rig::new(threads);
            for chunks in cuts(length) {
                let o = case.run::<E>(&rig, B, row, &chunks);
                assert!(
                    bits(&o) == bits(&first),
                    "batch {B}, row {row}, {} chunks, window {window}: other bits than alone at once",
                    chunks.len()
                );
            }
        }
    }

    #[test]
    fn cached_attention_matches_the_loop_and_is_batch_invariant() {
        for (H, G, D) in [(2, 2, 32), (4, 2, 10), (3, 1, 64), (1, 1, 128), (2, 1, 33)] {
            for window in [-1, 0, 70] {
                check::<f32>(Case { H, G, D, length: 150, window });
            }
            check::<u16>(Case { H, G, D, length: 131, window: -1 });
        }
    }
}
