//! BPE training on a multiset of pieces (nanochat rustbpe; Sennrich et al., arXiv 1508.07909).
//!
//! All pieces lie behind each other in one array with a node a byte. Every node knows the pair it starts, every pair the places
//! where it was seen, so a merge touches only its own occurrences:
//!
//! - All pairs with a new token are made in the step that makes the token. So a pair's places are complete, and in text order,
//!   when its step ends, and its count can only fall afterwards: that is what lets the heap be refreshed lazily.
//! - A merged occurrence removes one node and makes at most two pair occurrences: all steps together are linear in the bytes of
//!   the different pieces, plus the heap.

use super::count::Counts;
use crate::abi::STATUS_INVALID;
use crate::guard::{Error, Result};
use dary_heap::{OctonaryHeap, PeekMut};
use std::cmp::Reverse;

const NONE: u32 = u32::MAX;
/// Token of the nodes between pieces.
const BORDER: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    token: u32,
    prev: u32,
    pair: u32, // the pair that starts here; NONE at the end of a piece and where a token swallowed this node
    piece: u32,
}

struct Pair {
    count: i64,
    left: u32,
    right: u32,
    start: usize, // places[start..start + len]
    len: u32,
}

/// Largest count first; on ties the smallest (left, right).
type Entry = (i64, Reverse<(u32, u32)>, u32);

struct Trainer {
    nodes: Vec<Node>,
    weights: Vec<i64>, // by piece
    lens: Vec<u32>,    // by token, in nodes
    pairs: Vec<Pair>,
    places: Vec<u32>,
    heap: OctonaryHeap<Entry>,
    before: Vec<u32>,       // before[x]: pair (x, new token) of the step under way
    after: Vec<u32>,        // after[x]: pair (new token, x)
    fresh: Vec<(u32, u32)>, // (pair, place) of the step under way
}

/// Makes up to `limit` merges; fewer where no pair is left. Merge m joins its two ids to id 256 + m. `progress(m)` is called now and
/// then.
pub fn train(counts: &Counts, limit: usize, progress: impl Fn(usize)) -> Result<Vec<(u32, u32)>> {
    let mut trainer = Trainer::new(counts, limit)?;
    let mut merges = Vec::with_capacity(limit.min(1 << 20));
    while merges.len() < limit {
        let Some(mut top) = trainer.heap.peek_mut() else { break };
        let (count, Reverse(pair), index) = *top;
        let now = trainer.pairs[index as usize].count;
        if now <= 0 {
            PeekMut::pop(top);
        } else if now != count {
            top.0 = now; // sinks to its place when `top` goes
        } else {
            PeekMut::pop(top);
            trainer.merge(index, 256 + merges.len() as u32);
            merges.push(pair);
            if merges.len().is_multiple_of(256) {
                progress(merges.len());
            }
        }
    }
    Ok(merges)
}

impl Trainer {
    fn new(counts: &Counts, limit: usize) -> Result<Self> {
        let (mut nodes, mut weights) = (vec![border()], Vec::new());
        let mut total: u128 = 0;
        // Pieces of one byte have no pair.
        counts.each(|piece, count| {
            if piece.len() < 2 || nodes.len() + piece.len() >= NONE as usize {
                total += if piece.len() < 2 { 0 } else { piece.len() as u128 };
                return;
            }
            total += piece.len() as u128;
            for &byte in piece {
                let prev = nodes.len() as u32 - 1;
                nodes.push(Node { token: u32::from(byte), prev, pair: NONE, piece: weights.len() as u32 });
            }
            nodes.push(border());
            weights.push(count as i64);
        });
        if total + weights.len() as u128 + 1 != nodes.len() as u128 {
            return Err(Error::new(
                STATUS_INVALID,
                format!("Cannot train: the different pieces have {total} bytes, expected less than {NONE}"),
            ));
        }
        let vocab = 256 + limit;
        let mut trainer = Trainer {
            nodes,
            weights,
            lens: vec![1; 256],
            pairs: Vec::new(),
            places: Vec::new(),
            heap: OctonaryHeap::new(),
            before: vec![NONE; vocab],
            after: vec![NONE; vocab],
            fresh: Vec::new(),
        };
        trainer.first_pairs();
        Ok(trainer)
    }

    /// Finds the pairs of single bytes.
    fn first_pairs(&mut self) {
        let mut index = vec![NONE; 1 << 16];
        for i in 0..self.nodes.len() - 1 {
            let (left, right) = (self.nodes[i].token, self.nodes[i + 1].token);
            if left == BORDER || right == BORDER {
                continue;
            }
            let slot = &mut index[(left << 8 | right) as usize];
            if *slot == NONE {
                *slot = self.pairs.len() as u32;
                self.pairs.push(Pair { count: 0, left, right, start: 0, len: 0 });
            }
            let pair = *slot;
            self.pairs[pair as usize].count += self.weights[self.nodes[i].piece as usize];
            self.pairs[pair as usize].len += 1;
            self.nodes[i].pair = pair;
            self.fresh.push((pair, i as u32));
        }
        self.settle(0);
    }

    /// Joins every occurrence of a pair, left to right, to the token `new`.
    fn merge(&mut self, index: u32, new: u32) {
        let Pair { left, right, start, len, .. } = self.pairs[index as usize];
        let (left_len, right_len) = (self.lens[left as usize], self.lens[right as usize]);
        self.lens.push(left_len + right_len);
        let first = self.pairs.len();
        for k in start..start + len as usize {
            let at = self.places[k] as usize;
            if self.nodes[at].pair != index {
                continue; // changed since, or swallowed by the occurrence before
            }
            let Node { prev, piece, .. } = self.nodes[at];
            let weight = self.weights[piece as usize];
            let second = at + left_len as usize;
            let next = second + right_len as usize;
            let before = self.nodes[prev as usize];
            if before.token != BORDER {
                self.pairs[before.pair as usize].count -= weight;
                let pair = find(&mut self.before[before.token as usize], &mut self.pairs, before.token, new);
                self.place(pair, prev, weight);
            }
            let behind = self.nodes[second].pair;
            self.nodes[second].pair = NONE;
            self.nodes[at].token = new;
            self.nodes[at].pair = NONE;
            if behind != NONE {
                self.pairs[behind as usize].count -= weight;
                // Never `new` itself: what lies to the right is still unmerged in this step.
                let token = self.nodes[next].token;
                self.nodes[next].prev = at as u32;
                let pair = find(&mut self.after[token as usize], &mut self.pairs, new, token);
                self.place(pair, at as u32, weight);
            }
        }
        for pair in &self.pairs[first..] {
            if pair.right == new {
                self.before[pair.left as usize] = NONE;
            } else {
                self.after[pair.right as usize] = NONE;
            }
        }
        self.settle(first);
    }

    fn place(&mut self, pair: u32, at: u32, weight: i64) {
        let made = &mut self.pairs[pair as usize];
        made.count += weight;
        made.len += 1;
        self.nodes[at as usize].pair = pair;
        self.fresh.push((pair, at));
    }

    /// Files the places of the step's pairs, from pair number `first` on, and puts these pairs into the heap.
    fn settle(&mut self, first: usize) {
        let mut start = self.places.len();
        self.places.resize(start + self.fresh.len(), 0);
        for pair in &mut self.pairs[first..] {
            pair.start = start;
            start += pair.len as usize;
            pair.len = 0;
        }
        for &(pair, at) in &self.fresh {
            let pair = &mut self.pairs[pair as usize];
            self.places[pair.start + pair.len as usize] = at;
            pair.len += 1;
        }
        self.fresh.clear();
        for (i, pair) in self.pairs.iter().enumerate().skip(first).filter(|(_, pair)| pair.count > 0) {
            self.heap.push((pair.count, Reverse((pair.left, pair.right)), i as u32));
        }
    }
}

fn border() -> Node {
    Node { token: BORDER, prev: NONE, pair: NONE, piece: NONE }
}

/// The pair kept in `slot`, made if there is none.
fn find(slot: &mut u32, pairs: &mut Vec<Pair>, left: u32, right: u32) -> u32 {
    if *slot == NONE {
        *slot = pairs.len() as u32;
        pairs.push(Pair { count: 0, left, right, start: 0, len: 0 });
    }
    *slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The definition: count all pairs anew before every merge.
    fn naive(pieces: &BTreeMap<Vec<u8>, u64>, limit: usize) -> Vec<(u32, u32)> {
        let mut words: Vec<(Vec<u32>, i64)> =
            pieces.iter().map(|(p, &n)| (p.iter().map(|&b| u32::from(b)).collect(), n as i64)).collect();
        let mut merges = Vec::new();
        while merges.len() < limit {
            let mut counts = BTreeMap::<(u32, u32), i64>::new();
            for (word, n) in &words {
                for pair in word.windows(2) {
                    *counts.entry((pair[0], pair[1])).or_default() += n;
                }
            }
            let Some((&best, _)) = counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))) else { break };
            let new = 256 + merges.len() as u32;
            for (word, _) in &mut words {
                let (mut out, mut i) = (Vec::new(), 0);
                while i < word.len() {
                    let joined = i + 1 < word.len() && (word[i], word[i + 1]) == best;
                    out.push(if joined { new } else { word[i] });
                    i += if joined { 2 } else { 1 };
                }
                *word = out;
            }
            merges.push(best);
        }
        merges
    }

    fn trained(pieces: &BTreeMap<Vec<u8>, u64>, limit: usize) -> Vec<(u32, u32)> {
        let mut counts = Counts::default();
        for (piece, &n) in pieces {
            counts.add(piece, 0, piece.len(), n);
        }
        train(&counts, limit, |_| ()).unwrap()
    }

    proptest! {
        #![proptest_config(crate::bpe::cases(400))]

        #[test]
        fn train_matches_the_definition(
            pieces in prop::collection::btree_map("[ab]{1,9}|[a-e]{1,24}".prop_map(String::into_bytes), 1u64..9, 0..30),
            limit in 0usize..80,
        ) {
            prop_assert_eq!(trained(&pieces, limit), naive(&pieces, limit));
        }
    }

    #[test]
    fn train_counts_in_64_bits() {
        let pieces = BTreeMap::from([(b"ab".to_vec(), 3 << 40), (b"bc".to_vec(), (3 << 40) + 1)]);
        assert_eq!(trained(&pieces, 9), [(98, 99), (97, 98)]);
    }

    #[test]
    fn train_does_linear_work_on_one_long_piece() {
        // Rescanning a piece for each of its merges would take some 10^10 steps here.
        let mut state = 1u32;
        let piece: Vec<u8> = (0..1_000_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b'a' + (state >> 28) as u8
            })
            .collect();
        let mut counts = Counts::default();
        counts.add(&piece, 0, piece.len(), 1);
        let mut trainer = Trainer::new(&counts, 20_000).unwrap();
        let mut made = 0;
        while made < 20_000 {
            let (count, _, index) = trainer.heap.pop().unwrap();
            let now = trainer.pairs[index as usize].count;
            if now == count {
                trainer.merge(index, 256 + made);
                made += 1;
            } else if now > 0 {
                let pair = &trainer.pairs[index as usize];
                trainer.heap.push((now, Reverse((pair.left, pair.right)), index));
            }
        }
        assert!(trainer.places.len() <= 3 * piece.len(), "{} places", trainer.places.len());
    }
}
