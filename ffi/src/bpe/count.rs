//! The multiset of pieces that training works on: memory grows with the number of different pieces, not with the text.
//!
//! Open addressing over compact keys; pieces above 15 bytes lie in one byte arena and are found by their hash.

use super::key::{Hash, INLINE, pack, unpack};

/// Marks, in a key's top byte, a long piece: hash in the low 64 bits, index into `longs` above it.
const LONG: u128 = 0xff << 120;

#[derive(Clone, Copy)]
struct Slot {
    key: u128, // 0 = free
    count: u64,
}

pub struct Counts {
    hash: Hash,
    slots: Vec<Slot>,
    used: usize,
    longs: Vec<(usize, usize)>,
    arena: Vec<u8>,
}

impl Default for Counts {
    fn default() -> Self {
        let slots = vec![Slot { key: 0, count: 0 }; 1 << 12];
        Counts { hash: Hash::new(), slots, used: 0, longs: Vec::new(), arena: Vec::new() }
    }
}

impl Counts {
    /// Number of different pieces.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Counts `text[start..end]`, at least one byte, `times` more.
    #[inline]
    pub fn add(&mut self, text: &[u8], start: usize, end: usize, times: u64) {
        if end - start > INLINE {
            self.add_long(&text[start..end], times);
            return;
        }
        let key = pack(text, start, end);
        let mask = self.slots.len() - 1;
        let mut at = self.hash.key(key) as usize & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.key == key {
                slot.count += times;
                return;
            }
            if slot.key == 0 {
                *slot = Slot { key, count: times };
                self.grow();
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn add_long(&mut self, piece: &[u8], times: u64) {
        let hash = self.hash.bytes(piece);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.key == 0 {
                break;
            }
            if slot.key >> 120 == 0xff && slot.key as u64 == hash && self.long(slot.key) == piece {
                self.slots[at].count += times;
                return;
            }
            at = (at + 1) & mask;
        }
        let key = LONG | (self.longs.len() as u128) << 64 | u128::from(hash);
        self.longs.push((self.arena.len(), piece.len()));
        self.arena.extend_from_slice(piece);
        self.slots[at] = Slot { key, count: times };
        self.grow();
    }

    fn long(&self, key: u128) -> &[u8] {
        let (start, len) = self.longs[((key & !LONG) >> 64) as usize];
        &self.arena[start..start + len]
    }

    /// Counts a new piece and keeps the table at most half full.
    fn grow(&mut self) {
        self.used += 1;
        if self.used * 2 <= self.slots.len() {
            return;
        }
        let mask = self.slots.len() * 2 - 1;
        let old = std::mem::replace(&mut self.slots, vec![Slot { key: 0, count: 0 }; mask + 1]);
        for slot in old.into_iter().filter(|slot| slot.key != 0) {
            let hash = if slot.key >> 120 == 0xff { slot.key as u64 } else { self.hash.key(slot.key) };
            let mut at = hash as usize & mask;
            while self.slots[at].key != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }

    /// Calls `visit(piece, count)` for every different piece, in no particular order.
    pub fn each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for slot in self.slots.iter().filter(|slot| slot.key != 0) {
            if slot.key >> 120 == 0xff {
                visit(self.long(slot.key), slot.count);
            } else {
                let (bytes, len) = unpack(slot.key);
                visit(&bytes[..len], slot.count);
            }
        }
    }

    /// Adds all counts of another multiset.
    pub fn merge(&mut self, other: &Counts) {
        other.each(|piece, count| self.add(piece, 0, piece.len(), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn counts_match_a_map(pieces in prop::collection::vec("[ab]{1,4}|[a-c]{10,40}", 0..400)) {
            let (mut counts, mut half) = (Counts::default(), Counts::default());
            let mut expected = BTreeMap::<Vec<u8>, u64>::new();
            for (i, piece) in pieces.iter().enumerate() {
                let side = if i % 2 == 0 { &mut counts } else { &mut half };
                side.add(piece.as_bytes(), 0, piece.len(), 1);
                *expected.entry(piece.clone().into_bytes()).or_default() += 1;
            }
            counts.merge(&half);
            let mut found = BTreeMap::new();
            counts.each(|piece, count| assert!(found.insert(piece.to_vec(), count).is_none()));
            prop_assert_eq!(counts.len(), expected.len());
            prop_assert_eq!(found, expected);
        }
    }
}
