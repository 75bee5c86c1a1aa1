//! Text to token ids, with the results of tiktoken: a piece that is a token is that token; else the adjacent pair whose joined bytes
//! have the lowest id is joined, leftmost first, until no pair is a token.
//!
//! Id = rank, so "which token do these two make" and "how early is it joined" are one table. Short pieces are merged in place by
//! scanning, long ones with a heap in n log n, and what a thread merged lately is kept in a small table of its own.

use super::key::{INLINE, pack};
use super::split::Splitter;
use super::vocab::{NONE, Vocabulary};
use crate::abi::STATUS_DATA;
use crate::context::lock;
use crate::guard::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;

/// Pieces up to this length are merged by scanning: the scan of so few ranks costs less than a heap.
const SCAN: usize = 48;
/// Entries of a thread's table of merged pieces, 32 bytes each.
const CACHE: usize = 1 << 14;
/// Ids that an entry holds; pieces with more are merged anew each time.
const CACHED_IDS: usize = 4;

/// A piece of up to 15 bytes and its ids, NONE behind the last.
#[derive(Clone, Copy)]
struct Entry {
    key: u128, // 0 = free
    ids: [u32; CACHED_IDS],
}

const FREE: Entry = Entry { key: 0, ids: [NONE; CACHED_IDS] };

/// What one thread keeps between pieces.
pub struct Scratch {
    entries: Vec<Entry>,
    nodes: Vec<Node>,
    heap: BinaryHeap<Reverse<u64>>,
}

#[derive(Clone, Copy)]
struct Node {
    id: u32,
    joined: u32, // id that this node and the next make, NONE if none
    prev: u32,
    next: u32,
}

/// A vocabulary ready to encode and decode. Shared by threads.
pub struct Encoder {
    splitter: Splitter,
    pub vocab: Vocabulary,
    scratch: Mutex<Vec<Scratch>>,
}

impl Encoder {
    /// `bytes`, `offsets` and `mergeable` as for `Vocabulary::new`.
    pub fn new(pattern: &str, bytes: &[u8], offsets: &[i32], mergeable: usize) -> Result<Self> {
        let vocab = Vocabulary::new(bytes, offsets, mergeable)?;
        Ok(Encoder { splitter: Splitter::new(pattern)?, vocab, scratch: Mutex::default() })
    }

    /// Splitter of this vocabulary.
    pub fn splitter(&self) -> &Splitter {
        &self.splitter
    }

    /// Lends the calling thread its tables; give them back with `put_scratch`, so that the next call finds them warm.
    pub fn take_scratch(&self) -> Scratch {
        lock(&self.scratch).pop().unwrap_or_else(|| Scratch {
            entries: vec![FREE; CACHE],
            nodes: Vec::new(),
            heap: BinaryHeap::new(),
        })
    }

    pub fn put_scratch(&self, mut scratch: Scratch) {
        if scratch.nodes.capacity() > 1 << 20 {
            (scratch.nodes, scratch.heap) = (Vec::new(), BinaryHeap::new());
        }
        lock(&self.scratch).push(scratch);
    }

    /// Appends the ids of `text` (UTF-8, special names are plain text) to `out`.
    pub fn encode_into(&self, text: &[u8], out: &mut Vec<u32>) -> Result<()> {
        let mut scratch = self.take_scratch();
        let done = self.encode_with(text, &mut scratch, out);
        self.put_scratch(scratch);
        done
    }

    /// `encode_into` with tables that the caller holds.
    pub fn encode_with(&self, text: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) -> Result<()> {
        let text = utf8(text)?;
        let bytes = text.as_bytes();
        self.splitter.split(text, |start, end| {
            if end - start > INLINE {
                let id = self.vocab.lookup_long(&bytes[start..end]);
                if id != NONE {
                    out.push(id);
                } else {
                    self.merge(&bytes[start..end], scratch, out);
                }
                return;
            }
            let key = pack(bytes, start, end);
            let hash = self.vocab.hash.key(key);
            let id = self.vocab.lookup_key(key, hash);
            if id != NONE {
                out.push(id);
                return;
            }
            let at = (hash >> 32) as usize & (CACHE - 1);
            let entry = &scratch.entries[at];
            if entry.key == key {
                let ids = entry.ids;
                for id in ids.into_iter().take_while(|&id| id != NONE) {
                    out.push(id);
                }
                return;
            }
            let first = out.len();
            self.merge(&bytes[start..end], scratch, out);
            let made = &out[first..];
            if made.len() <= CACHED_IDS {
                let mut ids = [NONE; CACHED_IDS];
                ids[..made.len()].copy_from_slice(made);
                scratch.entries[at] = Entry { key, ids };
            }
        })
    }

    /// Joins the bytes of a piece as far as they go.
    fn merge(&self, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        if piece.len() <= SCAN {
            self.merge_short(piece, NONE, out);
        } else {
            self.merge_long(piece, NONE, scratch, out);
        }
    }

    /// By scanning all joins for the lowest, which is quadratic, so for pieces of up to SCAN bytes. Joins to ids of at least `limit`
    /// are left out.
    fn merge_short(&self, piece: &[u8], limit: u32, out: &mut Vec<u32>) {
        let allowed = |id: u32| if id < limit { id } else { NONE };
        let (mut ids, mut joins) = ([0; SCAN], [NONE; SCAN]);
        let mut n = piece.len();
        for i in 0..n {
            ids[i] = self.vocab.byte(piece[i]);
            if i + 1 < n {
                joins[i] = allowed(self.vocab.join_bytes(piece[i], piece[i + 1]));
            }
        }
        loop {
            let (mut best, mut at) = (NONE, 0);
            for (i, &id) in joins[..n - 1].iter().enumerate() {
                if id < best {
                    (best, at) = (id, i);
                }
            }
            if best == NONE {
                break;
            }
            ids[at] = best;
            ids.copy_within(at + 2..n, at + 1);
            joins.copy_within(at + 1..n, at);
            n -= 1;
            joins[at] = if at + 1 < n { allowed(self.vocab.join(best, ids[at + 1])) } else { NONE };
            if at > 0 {
                joins[at - 1] = allowed(self.vocab.join(ids[at - 1], best));
            }
        }
        out.extend_from_slice(&ids[..n]);
    }

    /// The same with a heap of (joined id, place) and a linked list, n log n.
    fn merge_long(&self, piece: &[u8], limit: u32, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let allowed = |id: u32| if id < limit { id } else { NONE };
        let Scratch { nodes, heap, .. } = scratch;
        nodes.clear();
        heap.clear();
        let n = piece.len();
        let mut entries = std::mem::take(heap).into_vec();
        for i in 0..n {
            let joined = match piece.get(i + 1) {
                Some(&next) => allowed(self.vocab.join_bytes(piece[i], next)),
                None => NONE,
            };
            let next = if i + 1 < n { i as u32 + 1 } else { NONE };
            nodes.push(Node {
                id: self.vocab.byte(piece[i]),
                joined,
                prev: if i > 0 { i as u32 - 1 } else { NONE },
                next,
            });
            if joined != NONE {
                entries.push(Reverse(u64::from(joined) << 32 | i as u64));
            }
        }
        *heap = entries.into();
        while let Some(Reverse(entry)) = heap.pop() {
            let (joined, at) = ((entry >> 32) as u32, entry as u32 as usize);
            if nodes[at].joined != joined {
                continue; // changed since, or swallowed: then NONE
            }
            let gone = nodes[at].next as usize;
            let next = nodes[gone].next;
            nodes[at].id = joined;
            nodes[at].next = next;
            nodes[gone].joined = NONE;
            nodes[at].joined = NONE;
            if next != NONE {
                nodes[next as usize].prev = at as u32;
                let id = allowed(self.vocab.join(joined, nodes[next as usize].id));
                nodes[at].joined = id;
                if id != NONE {
                    heap.push(Reverse(u64::from(id) << 32 | at as u64));
                }
            }
            let prev = nodes[at].prev;
            if prev != NONE {
                let id = allowed(self.vocab.join(nodes[prev as usize].id, joined));
                nodes[prev as usize].joined = id;
                if id != NONE {
                    heap.push(Reverse(u64::from(id) << 32 | u64::from(prev)));
                }
            }
        }
        let mut at = 0;
        loop {
            out.push(nodes[at].id);
            match nodes[at].next {
                NONE => break,
                next => at = next as usize,
            }
        }
    }

    /// The two ids that a mergeable token is joined from, or none for a token that no merge makes (the bytes).
    pub fn parents(&self, id: u32) -> Option<(u32, u32)> {
        let (token, mut parts) = (self.vocab.token(id), Vec::new());
        if token.len() <= SCAN {
            self.merge_short(token, id, &mut parts);
        } else {
            let mut scratch = self.take_scratch();
            self.merge_long(token, id, &mut scratch, &mut parts);
            self.put_scratch(scratch);
        }
        match parts[..] {
            [left, right] => Some((left, right)),
            _ => None,
        }
    }
}

/// Checks UTF-8.
pub fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|e| {
        let message = format!("Cannot read the text: byte {} is not UTF-8", e.valid_up_to());
        Error::new(STATUS_DATA, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpe::count::Counts;
    use crate::bpe::train::train;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    const PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

    /// A vocabulary of runs, syllables and multi-byte characters.
    static ENCODER: LazyLock<Encoder> = LazyLock::new(|| {
        let mut counts = Counts::default();
        for (i, piece) in
            ["aaaaaaaaaaaaaaaa", "banana", " bandana", "abcabcabc", " été", "語語彙", "        ", "ababab"]
                .iter()
                .enumerate()
        {
            counts.add(piece.as_bytes(), 0, piece.len(), 3 + i as u64);
        }
        encoder(&train(&counts, 60, |_| ()).unwrap())
    });

    fn encoder(merges: &[(u32, u32)]) -> Encoder {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
        for &(l, r) in merges {
            tokens.push([&tokens[l as usize][..], &tokens[r as usize]].concat());
        }
        let mergeable = tokens.len();
        tokens.push(b"<|bos|>".to_vec());
        let mut offsets = vec![0];
        offsets.extend(tokens.iter().scan(0, |at, t| {
            *at += t.len() as i32;
            Some(*at)
        }));
        Encoder::new(PATTERN, &tokens.concat(), &offsets, mergeable).unwrap()
    }

    /// The definition: join the pair with the lowest id, leftmost first, until there is none.
    fn naive(encoder: &Encoder, text: &str) -> Vec<u32> {
        let id = |bytes: &[u8]| (0..encoder.vocab.mergeable() as u32).find(|&id| encoder.vocab.token(id) == bytes);
        let mut ids = Vec::new();
        encoder
            .splitter
            .split(text, |start, end| {
                let piece = &text.as_bytes()[start..end];
                if let Some(id) = id(piece) {
                    return ids.push(id);
                }
                let mut parts: Vec<Vec<u8>> = piece.iter().map(|&b| vec![b]).collect();
                while let Some((_, at)) =
                    (0..parts.len() - 1).filter_map(|i| Some((id(&parts[i..i + 2].concat())?, i))).min()
                {
                    let right = parts.remove(at + 1);
                    parts[at].extend(right);
                }
                ids.extend(parts.iter().map(|part| id(part).unwrap()));
            })
            .unwrap();
        ids
    }

    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[ab]{1,80}",
            "(ban|ana|dana| ){1,8}",
            "[語彙é]{1,30}",
            " {1,20}",
            "[a-c]{1,12}",
            "<\\|bos\\|>",
            any::<char>().prop_map(String::from)
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(crate::bpe::cases(600))]

        #[test]
        fn encode_matches_the_definition(text in text()) {
            let mut ids = vec![7];
            ENCODER.encode_into(text.as_bytes(), &mut ids).unwrap();
            prop_assert_eq!(&ids[1..], &naive(&ENCODER, &text)[..]);
            let mut bytes = vec![0; text.len()];
            ENCODER.vocab.decode_into(&ids[1..], &mut bytes).unwrap();
            prop_assert_eq!(bytes, text.into_bytes());
        }

        #[test]
        fn both_merges_agree(piece in "[abcn é語]{1,16}") {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            ENCODER.merge_short(piece.as_bytes(), NONE, &mut short);
            ENCODER.merge_long(piece.as_bytes(), NONE, &mut ENCODER.take_scratch(), &mut long);
            prop_assert_eq!(short, long);
        }
    }

    #[test]
    fn parents_are_the_merges() {
        let merges = [(97, 98), (256, 99), (97, 97), (258, 258), (32, 257)];
        let encoder = encoder(&merges);
        for (m, &pair) in merges.iter().enumerate() {
            assert_eq!(encoder.parents(256 + m as u32), Some(pair));
        }
        assert_eq!(encoder.parents(98), None);
    }

    #[test]
    fn encode_refuses_what_is_not_utf8() {
        let error = ENCODER.encode_into(b"abc\xff", &mut Vec::new()).unwrap_err();
        assert_eq!((error.status, error.message.contains("byte 3")), (STATUS_DATA, true));
    }
}
