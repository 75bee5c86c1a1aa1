//! Pieces of text as compact keys: up to 15 bytes and their length in one u128, so that comparing and hashing is one operation.

use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// Longest piece that fits a key.
pub const INLINE: usize = 15;

/// The key of `text[start..end]`, which has 1 to 15 bytes: the bytes low end first, the length in the top byte. Never 0.
#[inline(always)]
pub fn pack(text: &[u8], start: usize, end: usize) -> u128 {
    let len = end - start;
    let word = if let Some(bytes) = text.get(start..start + 16) {
        u128::from_le_bytes(bytes.try_into().expect("16 bytes"))
    } else {
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&text[start..end]);
        u128::from_le_bytes(bytes)
    };
    (word & (u128::MAX >> (128 - 8 * len))) | ((len as u128) << 120)
}

/// The bytes of a key.
pub fn unpack(key: u128) -> ([u8; 16], usize) {
    (key.to_le_bytes(), (key >> 120) as usize)
}

/// Random numbers of this process, so that no prepared text can make keys collide.
fn seeds() -> (u64, u64) {
    static SEEDS: OnceLock<(u64, u64)> = OnceLock::new();
    *SEEDS.get_or_init(|| {
        let draw = || std::hash::RandomState::new().build_hasher().finish();
        (draw(), draw() | 1)
    })
}

/// A hash function with this process's seeds: multiply to 128 bits, fold.
#[derive(Clone, Copy)]
pub struct Hash {
    low: u64,
    high: u64,
}

impl Hash {
    pub fn new() -> Self {
        let (low, high) = seeds();
        Hash { low, high }
    }

    #[inline(always)]
    fn fold(a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    }

    #[inline(always)]
    pub fn key(self, key: u128) -> u64 {
        Self::fold(key as u64 ^ self.low, (key >> 64) as u64 ^ self.high)
    }

    /// Hash of a pair of token ids.
    #[inline(always)]
    pub fn pair(self, pair: u64) -> u64 {
        Self::fold(pair ^ self.low, self.high)
    }

    /// Hash of bytes of any length.
    pub fn bytes(self, bytes: &[u8]) -> u64 {
        let mut state = self.low ^ bytes.len() as u64;
        for part in bytes.chunks(INLINE) {
            let key = pack(part, 0, part.len());
            state = Self::fold(key as u64 ^ state, (key >> 64) as u64 ^ self.high);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_keeps_bytes_and_length() {
        let text = b"abcdefghijklmnopqrstuvwxyz\0\0";
        for start in 0..text.len() {
            for end in start + 1..=text.len().min(start + INLINE) {
                let (bytes, len) = unpack(pack(text, start, end));
                assert_eq!(&bytes[..len], &text[start..end]);
            }
        }
        assert_ne!(pack(b"a\0", 0, 1), pack(b"a\0", 0, 2));
    }
}
