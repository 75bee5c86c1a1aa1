//! A vocabulary as tables: bytes to id, two ids to the id that they make, id to bytes.
//!
//! Ids are ranks, so the table of joins is at once the order in which BPE joins. Every token may come from any two tokens that it can
//! be cut into: tiktoken looks at the joined bytes and not at how training made them.

use super::key::{Hash, INLINE, pack};
use crate::abi::STATUS_INVALID;
use crate::guard::{Error, Result};
use std::collections::HashMap;

/// No token.
pub const NONE: u32 = u32::MAX;
/// Bytes that decoding copies at once.
const COPY: usize = 16;

/// The tables; shared by threads.
pub struct Vocabulary {
    bytes: Vec<u8>, // of all tokens, in id order, specials by name; COPY zeros behind
    offsets: Vec<u32>,
    mergeable: usize,
    pub hash: Hash,
    byte_ids: [u32; 256],
    byte_pairs: Vec<u32>,    // by two bytes
    short: Vec<(u128, u32)>, // tokens up to 15 bytes by key; 0 = free
    long: HashMap<Box<[u8]>, u32>,
    longest: usize,
    pairs: Vec<(u64, u32)>, // (left << 32 | right, joined id)
}

impl Vocabulary {
    /// Builds the tables. Token i has the bytes `bytes[offsets[i]..offsets[i + 1]]`; the first `mergeable` ones are joined from
    /// text, the others only decoded.
    pub fn new(bytes: &[u8], offsets: &[i32], mergeable: usize) -> Result<Self> {
        let invalid = |what: String| Error::new(STATUS_INVALID, format!("Cannot build the tokenizer: {what}"));
        let offsets: Vec<u32> = offsets
            .iter()
            .map(|&o| u32::try_from(o).map_err(|_| invalid(format!("offset {o}, expected at least 0"))))
            .collect::<Result<_>>()?;
        let ordered =
            offsets.windows(2).all(|w| w[0] <= w[1]) && offsets.last().is_some_and(|&e| e as usize <= bytes.len());
        if !ordered || mergeable >= offsets.len() {
            return Err(invalid("token offsets do not lie in order inside the bytes".into()));
        }
        let mut vocabulary = Vocabulary {
            bytes: [bytes, &[0; COPY]].concat(),
            offsets,
            mergeable,
            hash: Hash::new(),
            byte_ids: [NONE; 256],
            byte_pairs: vec![NONE; 1 << 16],
            short: vec![(0, NONE); (mergeable * 2).next_power_of_two()],
            long: HashMap::new(),
            longest: 0,
            pairs: Vec::new(),
        };
        for id in 0..mergeable as u32 {
            vocabulary.insert(id).map_err(|what| invalid(format!("token {id} {what}")))?;
        }
        if let Some(byte) = vocabulary.byte_ids.iter().position(|&id| id == NONE) {
            return Err(invalid(format!("byte {byte} is no token, expected all 256 bytes in the vocabulary")));
        }
        vocabulary.find_pairs();
        Ok(vocabulary)
    }

    fn insert(&mut self, id: u32) -> std::result::Result<(), &'static str> {
        let (start, end) = (self.offsets[id as usize] as usize, self.offsets[id as usize + 1] as usize);
        if start == end {
            return Err("is empty, expected at least one byte");
        }
        if self.lookup(&self.bytes[start..end]) != NONE {
            return Err("appears twice, expected different tokens");
        }
        self.longest = self.longest.max(end - start);
        if end - start == 1 {
            self.byte_ids[self.bytes[start] as usize] = id;
        }
        if end - start > INLINE {
            self.long.insert(self.bytes[start..end].into(), id);
            return Ok(());
        }
        let key = pack(&self.bytes, start, end);
        let mask = self.short.len() - 1;
        let mut at = self.hash.key(key) as usize & mask;
        while self.short[at].0 != 0 {
            at = (at + 1) & mask;
        }
        self.short[at] = (key, id);
        Ok(())
    }

    /// Fills the table of joins: every way to cut a token into two tokens.
    fn find_pairs(&mut self) {
        let mut found = Vec::with_capacity(self.mergeable * 4);
        for id in 0..self.mergeable as u32 {
            let token = self.token(id);
            for cut in 1..token.len() {
                let left = self.lookup(&token[..cut]);
                if left == NONE {
                    continue;
                }
                let right = self.lookup(&token[cut..]);
                if right != NONE {
                    found.push((u64::from(left) << 32 | u64::from(right), id));
                }
            }
            if let &[a, b] = token {
                self.byte_pairs[usize::from(a) << 8 | usize::from(b)] = id;
            }
        }
        let mask = (found.len() * 2).next_power_of_two() - 1;
        self.pairs = vec![(u64::MAX, NONE); mask + 1];
        for (pair, id) in found {
            let mut at = self.hash.pair(pair) as usize & mask;
            while self.pairs[at].0 != u64::MAX {
                at = (at + 1) & mask;
            }
            self.pairs[at] = (pair, id);
        }
    }

    /// Id of a mergeable token, NONE if the bytes are none.
    fn lookup(&self, piece: &[u8]) -> u32 {
        if piece.len() > INLINE {
            return self.lookup_long(piece);
        }
        let key = pack(piece, 0, piece.len());
        self.lookup_key(key, self.hash.key(key))
    }

    #[inline(always)]
    pub fn lookup_key(&self, key: u128, hash: u64) -> u32 {
        let mask = self.short.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let (found, id) = self.short[at];
            if found == key || found == 0 {
                return id;
            }
            at = (at + 1) & mask;
        }
    }

    pub fn lookup_long(&self, piece: &[u8]) -> u32 {
        if piece.len() > self.longest { NONE } else { self.long.get(piece).copied().unwrap_or(NONE) }
    }

    /// Id of a byte.
    #[inline]
    pub fn byte(&self, byte: u8) -> u32 {
        self.byte_ids[usize::from(byte)]
    }

    /// Id that two bytes make, NONE if none.
    #[inline]
    pub fn join_bytes(&self, left: u8, right: u8) -> u32 {
        self.byte_pairs[usize::from(left) << 8 | usize::from(right)]
    }

    /// Id that two adjacent tokens make, NONE if none.
    #[inline]
    pub fn join(&self, left: u32, right: u32) -> u32 {
        let pair = u64::from(left) << 32 | u64::from(right);
        let mask = self.pairs.len() - 1;
        let mut at = self.hash.pair(pair) as usize & mask;
        loop {
            let (found, id) = self.pairs[at];
            if found == pair || found == u64::MAX {
                return id;
            }
            at = (at + 1) & mask;
        }
    }

    /// Number of ids, specials and gaps included.
    pub fn vocab_size(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes of a token; none for an id that is not in use.
    pub fn token(&self, id: u32) -> &[u8] {
        &self.bytes[self.offsets[id as usize] as usize..self.offsets[id as usize + 1] as usize]
    }

    /// Number of mergeable tokens.
    pub fn mergeable(&self) -> usize {
        self.mergeable
    }

    /// Joins the bytes of `ids` into `out`, which has exactly their size; specials give their names.
    pub fn decode_into(&self, ids: &[u32], out: &mut [u8]) -> Result<()> {
        let invalid = |what: String| Error::new(STATUS_INVALID, format!("Cannot decode: {what}"));
        let vocab = self.vocab_size();
        let mut at = 0;
        for &id in ids {
            let i = id as usize;
            let (start, end) =
                if i < vocab { (self.offsets[i] as usize, self.offsets[i + 1] as usize) } else { (0, 0) };
            if start == end {
                return Err(invalid(format!("{} is no token, expected one of {vocab}", id as i32)));
            }
            let len = end - start;
            // A copy of fixed size is one register; what it writes too much the next token overwrites.
            if len <= COPY && at + COPY <= out.len() {
                out[at..at + COPY].copy_from_slice(&self.bytes[start..start + COPY]);
            } else if at + len <= out.len() {
                out[at..at + len].copy_from_slice(&self.bytes[start..end]);
            } else {
                return Err(invalid("the text is longer than the buffer".into()));
            }
            at += len;
        }
        if at == out.len() { Ok(()) } else { Err(invalid("the text is shorter than the buffer".into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_needs_all_bytes_once() {
        let offsets: Vec<i32> = (0..=255).collect();
        let bytes: Vec<u8> = (0..255).collect();
        let error = Vocabulary::new(&bytes, &offsets, 255).err().unwrap();
        assert!(error.message.contains("byte 255 is no token"), "{error}");
        let error = Vocabulary::new(b"aa", &[0, 1, 2], 2).err().unwrap();
        assert!(error.message.contains("token 1 appears twice"), "{error}");
    }
}
