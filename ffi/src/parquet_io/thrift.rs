//! A walker over Thrift's compact protocol, run before the `parquet` crate parses the same bytes.
//!
//! The crate reserves memory for lengths and counts as they are written in the file. The walker refuses a length, count or nesting
//! that the bytes at hand cannot hold, so that a damaged footer or page header costs no memory. Layout: Apache Thrift, compact
//! protocol specification; field numbers: `parquet.thrift`, struct PageHeader.

/// Deeper nesting than any Parquet structure has.
const MAX_DEPTH: usize = 16;

/// Sizes and counts of one page header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageHeader {
    /// Length of the header itself in bytes.
    pub length: usize,
    pub uncompressed_bytes: i64,
    pub compressed_bytes: i64,
    /// Values of a data page (levels, nulls included); 0 for other pages.
    pub values: i64,
}

/// Checks the structure at the start of `bytes`; returns its length.
pub fn check_struct(bytes: &[u8]) -> Option<usize> {
    let mut walker = Walker { bytes, at: 0 };
    walker.structure(&mut Vec::new(), &mut |_, _| ())?;
    Some(walker.at)
}

/// Reads the page header at the start of `bytes`.
pub fn page_header(bytes: &[u8]) -> Option<PageHeader> {
    let mut header = PageHeader::default();
    let mut walker = Walker { bytes, at: 0 };
    walker.structure(&mut Vec::new(), &mut |path, value| match path {
        [2] => header.uncompressed_bytes = value,
        [3] => header.compressed_bytes = value,
        [5, 1] | [8, 1] => header.values = value, // DataPageHeader, DataPageHeaderV2
        _ => (),
    })?;
    header.length = walker.at;
    Some(header)
}

/// Count of values and length in bytes of a DELTA_BINARY_PACKED run at the start of `bytes` (parquet-format, Encodings.md).
pub fn delta_run(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut walker = Walker { bytes, at: 0 };
    let (block, minis, count) = (walker.varint()?, walker.varint()?, walker.varint()?);
    walker.varint()?; // first value
    if minis == 0 || block == 0 || !block.is_multiple_of(minis) {
        return None;
    }
    let per_mini = block / minis;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        walker.varint()?; // smallest delta
        let widths = walker.take(usize::try_from(minis).ok()?)?;
        for &width in widths {
            if left == 0 {
                break; // the remaining miniblocks have no body
            }
            walker.take(usize::try_from(per_mini.checked_mul(u64::from(width))?.div_ceil(8)).ok()?)?;
            left = left.saturating_sub(per_mini);
        }
    }
    Some((count, walker.at))
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walker<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn structure(&mut self, path: &mut Vec<i16>, visit: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        if path.len() > MAX_DEPTH {
            return None;
        }
        path.push(0);
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                break;
            }
            let delta = i16::from(head >> 4);
            let id = if delta == 0 {
                i16::try_from(self.zigzag()?).ok()?
            } else {
                path.last().copied()?.checked_add(delta)?
            };
            *path.last_mut()? = id;
            if kind > 2 {
                self.value(kind, path, visit)?; // 1 and 2 are booleans held by the type itself
            }
        }
        path.pop();
        Some(())
    }

    fn value(&mut self, kind: u8, path: &mut Vec<i16>, visit: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        match kind {
            1..=3 => drop(self.byte()?), // a boolean inside a list, i8
            4..=6 => {
                let value = self.zigzag()?;
                visit(path, value);
            }
            7 => drop(self.take(8)?),
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)?;
            }
            9 | 10 => self.list(path, visit)?,
            11 => self.map(path, visit)?,
            12 => self.structure(path, visit)?,
            _ => return None,
        }
        Some(())
    }

    fn list(&mut self, path: &mut Vec<i16>, visit: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        let head = self.byte()?;
        let short = u64::from(head >> 4);
        let count = if short == 15 { self.varint()? } else { short };
        self.repeat(count, path, visit, &[head & 0x0f])
    }

    fn map(&mut self, path: &mut Vec<i16>, visit: &mut dyn FnMut(&[i16], i64)) -> Option<()> {
        let count = self.varint()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        self.repeat(count, path, visit, &[kinds >> 4, kinds & 0x0f])
    }

    fn repeat(
        &mut self,
        count: u64,
        path: &mut Vec<i16>,
        visit: &mut dyn FnMut(&[i16], i64),
        kinds: &[u8],
    ) -> Option<()> {
        // Every element takes at least one byte.
        if count > (self.bytes.len() - self.at) as u64 || path.len() > MAX_DEPTH {
            return None;
        }
        path.push(-1); // values inside a list have no path of their own
        for _ in 0..count {
            for &kind in kinds {
                self.value(kind, path, visit)?;
            }
        }
        path.pop();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_header_reads_sizes_and_values() {
        // type 0, uncompressed 300, compressed 200, data page header { values 7, encoding 0 }
        let bytes = [0x15, 0, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c, 0x15, 14, 0x15, 0, 0, 0, 99];
        let expected = PageHeader { length: 15, uncompressed_bytes: 300, compressed_bytes: 200, values: 7 };
        assert_eq!(page_header(&bytes), Some(expected));
    }

    #[test]
    fn check_struct_refuses_counts_and_lengths_that_do_not_fit() {
        assert_eq!(check_struct(&[0x18, 2, b'a', b'b', 0]), Some(5));
        assert_eq!(check_struct(&[0x18, 0xff, 0xff, 0xff, 0x7f, 0]), None);
        assert_eq!(check_struct(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0]), None);
        assert_eq!(check_struct(&[0x1c; 64]), None);
        assert_eq!(check_struct(&[]), None);
    }

    #[test]
    fn delta_run_counts_values_and_bytes() {
        // block 128, 4 miniblocks, 3 values, first 1; one block: delta 1, widths 0
        let bytes = [0x80, 0x01, 4, 3, 2, 2, 0, 0, 0, 0, 42];
        assert_eq!(delta_run(&bytes), Some((3, 10)));
        assert_eq!(delta_run(&[0x80, 0x01, 0, 3, 2]), None);
        assert_eq!(delta_run(&[0x80, 0x01, 4, 0xff, 0xff, 0xff, 0x7f, 2]), None);
    }
}
