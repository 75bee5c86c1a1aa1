//! The pages of a column chunk, checked before the `parquet` crate decodes them: sizes and counts that a file claims are held against
//! the bytes at hand, so that no damaged page makes a decoder reserve more memory than the file accounts for.

use super::foreign::{data, foreign, general};
use super::thrift::{delta_run, page_header};
use crate::Error;
use crate::abi::STATUS_IO;
use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::{Buf, Bytes};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Unpacked bytes of a column that are believed without the column's own total.
const SMALL_COLUMN: i64 = 1 << 20;

/// The column chunk in memory behind a page reader, its page headers checked.
pub fn open_pages(
    file: &File,
    size: u64,
    chunk: &ColumnChunkMetaData,
    rows: usize,
) -> Result<Box<dyn PageReader>, Error> {
    let (start, length) = chunk.byte_range();
    if start.checked_add(length).is_none_or(|end| end > size) {
        let end = start.saturating_add(length);
        return Err(data(format!("it ends at byte {end}, expected at most the file's size {}", size)));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, start).map_err(|e| Error::new(STATUS_IO, e.to_string()))?;
    check_pages(&bytes, chunk)?;
    let window = Window { start, bytes: bytes.into() };
    let pages = SerializedPageReader::new(Arc::new(window), chunk, rows, None).map_err(foreign)?;
    Ok(Box::new(CheckedPages {
        pages: Box::new(pages),
        rep: chunk.column_descr().max_rep_level() > 0,
        def: chunk.column_descr().max_def_level() > 0,
    }))
}

/// Walks the page headers of a column chunk and holds their sizes against the bytes at hand and the chunk's totals.
fn check_pages(bytes: &[u8], chunk: &ColumnChunkMetaData) -> Result<(), Error> {
    let (mut at, mut page, mut values, mut total) = (0usize, 0usize, 0i64, 0i64);
    while at < bytes.len() {
        let header = page_header(&bytes[at..]).ok_or_else(|| data(format!("the header of page {page} is damaged")))?;
        let left = (bytes.len() - at - header.length) as i64;
        if !(0..=left).contains(&header.compressed_bytes) || header.uncompressed_bytes < 0 || header.values < 0 {
            return Err(data(format!("page {page} claims {} bytes, expected at most {left}", header.compressed_bytes)));
        }
        total = total.saturating_add(header.uncompressed_bytes).saturating_add(header.length as i64);
        let plausible = chunk.uncompressed_size().max(SMALL_COLUMN);
        if total > plausible {
            return Err(data(format!("page {page} unpacks to {total} bytes, expected at most {plausible}")));
        }
        values = values.saturating_add(header.values);
        if values > chunk.num_values() {
            return Err(data(format!("its pages hold {values} values, expected {}", chunk.num_values())));
        }
        at += header.length + header.compressed_bytes as usize;
        page += 1;
    }
    Ok(())
}

/// A part of the file that was read into memory, addressed by file offset.
struct Window {
    start: u64,
    bytes: Bytes,
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let at = usize::try_from(start.wrapping_sub(self.start)).unwrap_or(usize::MAX);
        if at > self.bytes.len() {
            return Err(general(format!("offset {start} lies outside of the column")));
        }
        Ok(self.bytes.slice(at..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let rest = self.get_read(start)?.into_inner();
        if length > rest.len() {
            return Err(general(format!("{length} bytes at offset {start} reach outside of the column")));
        }
        Ok(rest.slice(..length))
    }
}

/// Refuses pages whose contents claim more values than the bytes can hold, before the crate's decoders reserve memory for them.
struct CheckedPages {
    pages: Box<dyn PageReader>,
    rep: bool,
    def: bool,
}

impl CheckedPages {
    fn check(&self, page: &Page) -> ParquetResult<()> {
        if let Page::DictionaryPage { buf, num_values, .. } = page {
            // A value takes at least one byte, whatever its type.
            if *num_values as usize > buf.len() {
                return Err(general(format!("a dictionary of {} bytes claims {num_values} values", buf.len())));
            }
            return Ok(());
        }
        let encoding = page.encoding();
        let delta = [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];
        if !delta.contains(&encoding) {
            return Ok(());
        }
        let limit = u64::from(page.num_values());
        let wrong = || general("a page of differences is damaged".to_string());
        let values = self.values(page).ok_or_else(wrong)?;
        let (count, length) = delta_run(values).ok_or_else(wrong)?;
        let second = match encoding {
            Encoding::DELTA_BYTE_ARRAY => delta_run(&values[length..]).ok_or_else(wrong)?.0,
            _ => 0,
        };
        if count > limit || second > limit {
            return Err(general(format!("a page of {limit} values claims {}", count.max(second))));
        }
        Ok(())
    }

    /// The bytes behind the levels.
    fn values<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let bytes: &[u8] = page.buffer();
        match page {
            Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
                bytes.get((*rep_levels_byte_len as usize).checked_add(*def_levels_byte_len as usize)?..)
            }
            _ => {
                let mut at = 0usize;
                for present in [self.rep, self.def] {
                    if present {
                        let length: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                        at = at.checked_add(4)?.checked_add(u32::from_le_bytes(length) as usize)?;
                    }
                }
                bytes.get(at..)
            }
        }
    }
}

impl Iterator for CheckedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.pages.at_record_boundary()
    }
}
