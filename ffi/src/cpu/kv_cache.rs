//! Writes the keys and values of new tokens into a layer's cache (B, G, capacity, D).
//!
//! Token t < counts[b] of row b goes to position positions[b] + t; rows with count 0 are idle.

use crate::Context;
use crate::cpu::pieces::{fail, piece_mut, row_pieces};
use crate::guard::{Error, Result, entry};
use crate::memory::{Memory, count, element_bytes};
use std::ffi::c_void;

/// How many tokens each row holds and how many new ones a call brings.
#[derive(Clone, Copy)]
pub struct Progress {
    positions: Memory<i32>,
    counts: Memory<i32>,
    T: usize,
    capacity: usize,
}

impl Progress {
    pub fn new(cx: &Context, positions: *mut c_void, counts: *mut c_void, [B, T, capacity]: [i32; 3]) -> Result<Self> {
        let rows = count(&[B])?;
        if capacity < 0 || T < 0 {
            return Err(Error::invalid(format!(
                "Cannot use a cache: T {T}, capacity {capacity}, expected sizes of at least 0"
            )));
        }
        let (positions, counts) = (cx.memory(positions, rows, "positions")?, cx.memory(counts, rows, "counts")?);
        Ok(Progress { positions, counts, T: T as usize, capacity: capacity as usize })
    }

    /// Fails the queue unless all rows fit into the cache.
    pub fn check(&self, action: &str) {
        let (T, capacity) = (self.T, self.capacity);
        for (b, (&position, &count)) in self.positions.get().iter().zip(self.counts.get()).enumerate() {
            if count < 0 || count as usize > T {
                fail(format!("Cannot {action}: row {b} has {count} new tokens, expected 0 to {T}"));
            }
            if count > 0 && (position < 0 || i64::from(position) + i64::from(count) > capacity as i64) {
                fail(format!(
                    "Cannot {action}: row {b} has {count} new tokens at position {position}, expected at most {capacity} in all"
                ));
            }
        }
    }

    /// Position of row b's first new token and their number.
    pub fn row(&self, b: usize) -> (usize, usize) {
        let count = self.counts.get()[b] as usize;
        (if count == 0 { 0 } else { self.positions.get()[b] as usize }, count)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_kv_append(
    ctx: *mut Context,
    kCache: *mut c_void,
    vCache: *mut c_void,
    k: *mut c_void,
    v: *mut c_void,
    positions: *mut c_void,
    counts: *mut c_void,
    B: i32,
    T: i32,
    G: i32,
    D: i32,
    capacity: i32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let (cached, new) = (count(&[B, G, capacity, D])?, count(&[B, T, G, D])?);
            let caches = [cx.tensor(kCache, cached, dtype, "kCache")?, cx.tensor(vCache, cached, dtype, "vCache")?];
            let chunks = [cx.tensor(k, new, dtype, "k")?, cx.tensor(v, new, dtype, "v")?];
            let progress = Progress::new(cx, positions, counts, [B, T, capacity])?;
            let head = D as usize * element_bytes(dtype)?;
            let (B, T, G, capacity) = (B as usize, T as usize, G as usize, capacity as usize);
            cx.enqueue("nc_kv_append", move || {
                progress.check("append to the cache");
                row_pieces(B * T, 2 * G * head, |begin, end| {
                    for i in begin..end {
                        let (b, t) = (i / T, i % T);
                        let (position, count) = progress.row(b);
                        if t >= count {
                            continue;
                        }
                        for (cache, chunk) in caches.iter().zip(&chunks) {
                            for g in 0..G {
                                let at = ((b * G + g) * capacity + position + t) * head;
                                let from = (i * G + g) * head;
                                piece_mut(cache, at, at + head).copy_from_slice(&chunk.get()[from..from + head]);
                            }
                        }
                    }
                });
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{DTYPE_BF16, STATUS_PANIC};
    use crate::cpu::testing::Rig;

    #[test]
    fn kv_append_places_only_the_valid_tokens() {
        let rig = Rig::new(2);
        let [B, T, G, D, capacity] = [3usize, 2, 2, 3, 5];
        let k: Vec<u16> = (0..(B * T * G * D) as u16).map(|i| i + 1000).collect();
        let v: Vec<u16> = k.iter().map(|k| k + 1000).collect();
        let (positions, counts) = ([1i32, 4, 99], [2i32, 1, 0]);
        let n = B * G * capacity * D;
        let (pk, pv) = (rig.put(&vec![0u16; n]), rig.put(&vec![0u16; n]));
        unsafe {
            rig.ok(nc_kv_append(
                rig.ctx(),
                pk,
                pv,
                rig.put(&k),
                rig.put(&v),
                rig.put(&positions),
                rig.put(&counts),
                B as i32,
                T as i32,
                G as i32,
                D as i32,
                capacity as i32,
                DTYPE_BF16,
            ));
        }
        let mut expected = vec![0u16; n];
        for b in 0..B {
            for t in 0..counts[b] as usize {
                for g in 0..G {
                    for d in 0..D {
                        let at = ((b * G + g) * capacity + positions[b] as usize + t) * D + d;
                        expected[at] = k[((b * T + t) * G + g) * D + d];
                    }
                }
            }
        }
        assert_eq!(rig.get::<u16>(pk, n), expected);
        let values: Vec<u16> = expected.iter().map(|&x| if x == 0 { 0 } else { x + 1000 }).collect();
        assert_eq!(rig.get::<u16>(pv, n), values);
    }

    #[test]
    fn kv_append_refuses_to_pass_the_capacity() {
        let rig = Rig::new(1);
        let (x, cache) = (rig.put(&[0u16; 4]), rig.put(&[0u16; 8]));
        let (positions, counts) = (rig.put(&[3i32]), rig.put(&[2i32]));
        let status =
            unsafe { nc_kv_append(rig.ctx(), cache, cache, x, x, positions, counts, 1, 2, 1, 2, 4, DTYPE_BF16) };
        let message = rig.fails(status, STATUS_PANIC);
        assert!(message.contains("row 0 has 2 new tokens at position 3, expected at most 4 in all"), "{message}");
    }
}
