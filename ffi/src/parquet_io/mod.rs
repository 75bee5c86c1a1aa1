//! Parquet files behind the C interface: `read.rs` row groups into Arrow-layout buffers, `pages.rs` and `thrift.rs` the checks before
//! that, `write.rs` shards.
//!
//! A decoded row group waits in a handle; the other side asks for the layout, allocates one buffer and has it filled, so that no memory
//! of this library leaves it. All entries work on the calling thread (the slow ones are `nonblocking`), none on the queue.

mod foreign;
mod pages;
mod read;
mod schema;
mod thrift;
mod write;

pub use read::{Column, ParquetFile};
pub use schema::{Kind, Node};
pub use write::ShardWriter;

use crate::abi::STATUS_DATA;
use crate::bpe::{EncodedHandle, EncoderHandle};
use crate::context::{Context, lock};
use crate::guard::{Error, Result, entry};
use crate::runtime::{Handle, physical_cores, write_handle, write_text};
use std::ffi::c_void;
use std::sync::Mutex;

/// Buffers begin at multiples of this (Arrow's recommendation).
const ALIGN: usize = 64;
/// Numbers per node in `nc_parquet_layout`: length, nulls, then start and bytes of validity, offsets and values.
const LAYOUT_FIELDS: usize = 8;

type Chunk = Vec<Column>;

fn buffers(column: &Column) -> [&[u8]; 3] {
    // SAFETY: i32 has no padding and any bytes are valid u8; the slice covers the same memory.
    let offsets = unsafe { std::slice::from_raw_parts(column.offsets.as_ptr().cast::<u8>(), column.offsets.len() * 4) };
    [&column.validity, offsets, &column.values]
}

/// Calls `place` with node, buffer number, start and bytes of every buffer; returns the bytes in all.
fn layout<'a>(chunk: &'a Chunk, mut place: impl FnMut(usize, usize, usize, &'a [u8])) -> usize {
    let mut end = 0;
    for (i, column) in chunk.iter().enumerate() {
        for (b, bytes) in buffers(column).into_iter().enumerate() {
            place(i, b, end, bytes);
            end = (end + bytes.len()).next_multiple_of(ALIGN);
        }
    }
    end
}

/// A path given as UTF-8 bytes.
unsafe fn path<'a>(bytes: *const u8, length: i64) -> Result<&'a str> {
    let length = usize::try_from(length).map_err(|_| Error::invalid("Cannot use a path of negative length"))?;
    // SAFETY: the caller passes a buffer of that length.
    let bytes = if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(bytes, length) } };
    std::str::from_utf8(bytes).map_err(|_| Error::invalid("Cannot use a path: it is not UTF-8"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_open(ctx: *mut Context, out: *mut u8, name: *mut u8, nameBytes: i64) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let file = ParquetFile::open(path(name, nameBytes)?)?;
            let description = file.json().len() + 1;
            write_handle(out, Handle::give(file));
            out.cast::<u64>().add(1).write_unaligned(description as u64);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_describe(
    ctx: *mut Context,
    text: *mut u8,
    file: *mut c_void,
    capacity: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            write_text(text, capacity, &Handle::<ParquetFile>::get(file, "file")?.json());
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_free(ctx: *mut Context, file: *mut c_void) -> i32 {
    unsafe { entry(ctx, |_| Handle::<ParquetFile>::take(file, "file").map(drop)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_read(
    ctx: *mut Context,
    out: *mut u8,
    file: *mut c_void,
    rowGroup: i32,
    field: i32,
    raw: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let chunk: Chunk = Handle::<ParquetFile>::get(file, "file")?.read(rowGroup, field, raw != 0)?;
            give_chunk(out, chunk);
            Ok(())
        })
    }
}

/// Writes handle, nodes and bytes of a chunk into `out` (3 x u64).
///
/// # Safety
/// `out` has room for 24 bytes.
unsafe fn give_chunk(out: *mut u8, chunk: Chunk) {
    let (nodes, bytes) = (chunk.len(), layout(&chunk, |_, _, _, _| ()));
    // SAFETY: by contract.
    unsafe {
        write_handle(out, Handle::give(chunk));
        out.cast::<u64>().add(1).write_unaligned(nodes as u64);
        out.cast::<u64>().add(2).write_unaligned(bytes as u64);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_layout(ctx: *mut Context, numbers: *mut u8, chunk: *mut c_void) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let chunk = Handle::<Chunk>::get(chunk, "chunk")?;
            let numbers = numbers.cast::<i64>();
            for (i, column) in chunk.iter().enumerate() {
                numbers.add(i * LAYOUT_FIELDS).write_unaligned(column.length as i64);
                numbers.add(i * LAYOUT_FIELDS + 1).write_unaligned(column.nulls as i64);
            }
            layout(chunk, |i, b, start, bytes| {
                let at = numbers.add(i * LAYOUT_FIELDS + 2 + 2 * b);
                at.write_unaligned(start as i64);
                at.add(1).write_unaligned(bytes.len() as i64);
            });
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_fill(ctx: *mut Context, data: *mut u8, chunk: *mut c_void, bytes: i64) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let chunk = Handle::<Chunk>::take(chunk, "chunk")?;
            let needed = layout(&chunk, |_, _, _, _| ());
            if usize::try_from(bytes).ok() != Some(needed) {
                let message = format!("Cannot fill the table: the buffer has {bytes} bytes, expected {needed}");
                return Err(Error::invalid(message));
            }
            layout(&chunk, |_, _, start, bytes| {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(start), bytes.len());
            });
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_parquet_encode_text(
    ctx: *mut Context,
    out: *mut u8,
    file: *mut c_void,
    tokenizer: *mut c_void,
    rowGroup: i32,
    field: i32,
    prepend: i32,
    threads: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoder = EncoderHandle::get(tokenizer, "tokenizer")?.clone();
            let file = Handle::<ParquetFile>::get(file, "file")?;
            let context = |e: Error| Error::new(e.status, file.place(rowGroup, &e.message));
            let chunk = file.read(rowGroup, field, false)?;
            let [text] = &chunk[..] else {
                return Err(context(Error::invalid("its column is nested, expected text")));
            };
            if text.nulls > 0 {
                let row = (0..text.length).find(|i| text.validity[i / 8] >> (i % 8) & 1 == 0).unwrap_or(0);
                return Err(context(Error::new(STATUS_DATA, format!("row {row} is null, expected a text"))));
            }
            let threads = usize::try_from(threads).ok().filter(|&n| n > 0).unwrap_or_else(physical_cores);
            let prepend = u32::try_from(prepend).ok();
            let encoded = encoder.encode_batch(&text.values, &text.offsets, prepend, None, threads).map_err(context)?;
            let (ids, documents) = (encoded.ends.last().copied().unwrap_or(0), encoded.ends.len());
            write_handle(out, EncodedHandle::give(encoded));
            out.cast::<u64>().add(1).write_unaligned(ids as u64);
            out.cast::<u64>().add(2).write_unaligned(documents as u64);
            Ok(())
        })
    }
}

/// A writer behind its handle; taken out when it is finished or after an error.
type Writer = Mutex<Option<ShardWriter>>;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_shard_create(
    ctx: *mut Context,
    out: *mut u8,
    name: *mut u8,
    nameBytes: i64,
    level: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let writer = ShardWriter::create(path(name, nameBytes)?, level)?;
            write_handle(out, Handle::<Writer>::give(Mutex::new(Some(writer))));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_shard_write(
    ctx: *mut Context,
    shard: *mut c_void,
    text: *mut u8,
    ends: *mut u8,
    documents: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let mut writer = lock(Handle::<Writer>::get(shard, "shard")?);
            let count = usize::try_from(documents)
                .map_err(|_| Error::invalid(format!("Cannot write {documents} documents, expected at least 0")))?;
            let ends: Vec<i64> = (0..count).map(|i| ends.cast::<i64>().add(i).read_unaligned()).collect();
            let bytes = ends.last().copied().unwrap_or(0).max(0) as usize;
            let text = if bytes == 0 { &[] } else { std::slice::from_raw_parts(text, bytes) };
            match writer.as_mut() {
                Some(open) => open.row_group(text, &ends),
                None => Err(Error::invalid("Cannot write the shard: it is finished")),
            }
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_shard_finish(ctx: *mut Context, shard: *mut c_void) -> i32 {
    unsafe {
        entry(ctx, |_| match lock(Handle::<Writer>::get(shard, "shard")?).take() {
            Some(writer) => writer.finish(),
            None => Err(Error::invalid("Cannot finish the shard: it is finished already")),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_shard_free(ctx: *mut Context, shard: *mut c_void) -> i32 {
    unsafe { entry(ctx, |_| Handle::<Writer>::take(shard, "shard").map(drop)) }
}
