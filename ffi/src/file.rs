//! Files: read-only mappings that ops can read, SHA-256 of memory by blocks, atomic writes of memory, free space of a disk.
//!
//! A file is written whole or not at all: `<path>.<pid>.tmp` is written, synchronized, renamed to `path`, and the folder is
//! synchronized; after a failure the temporary file is gone and `path` is what it was. Hashes (FIPS 180-4) are of blocks of
//! `blockBytes`, the last one shorter, so that any number of cores can make and check them.

use crate::abi::STATUS_IO;
use crate::context::Context;
use crate::guard::{Error, Result, entry};
use crate::memory::Memory;
use crate::runtime::write_handle;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::ffi::{CString, OsStr, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

const HASH_BYTES: usize = 32;
/// Bytes given to the system at a time: the step of the progress figure.
const WRITE_BYTES: usize = 4 << 20;

/// Maps a whole file.
fn map(path: &Path) -> Result<(*mut c_void, usize)> {
    let fail = |e: io::Error| io_error("map", path, &e);
    let file = File::open(path).map_err(fail)?;
    let info = file.metadata().map_err(fail)?;
    if !info.is_file() || info.len() == 0 {
        let what = if info.is_file() { "an empty file" } else { "not a regular file" };
        return Err(Error::new(STATUS_IO, format!("Cannot map {path:?}: it is {what}, expected a file with data")));
    }
    let bytes = usize::try_from(info.len())
        .map_err(|_| Error::new(STATUS_IO, format!("Cannot map {path:?}: larger than the address space")))?;
    // SAFETY: a fresh mapping of a readable file; the descriptor may be closed afterwards.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED { Err(fail(io::Error::last_os_error())) } else { Ok((address, bytes)) }
}

fn io_error(action: &str, path: &Path, error: &io::Error) -> Error {
    let text = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("the disk is full ({error})"),
        io::ErrorKind::NotFound => format!("file or folder missing ({error})"),
        _ => error.to_string(),
    };
    Error::new(STATUS_IO, format!("Cannot {action} {path:?}: {text}"))
}

/// Bytes of a file that is made of pieces of memory.
struct Pieces<'a> {
    pieces: Vec<&'a [u8]>,
    starts: Vec<usize>,
    total: usize,
}

impl<'a> Pieces<'a> {
    fn new(pieces: Vec<&'a [u8]>) -> Self {
        let mut total = 0;
        let mut start = |piece: &&[u8]| {
            total += piece.len();
            total - piece.len()
        };
        let starts = pieces.iter().map(&mut start).collect();
        Pieces { pieces, starts, total }
    }

    /// The parts of the pieces that bytes `from..to` consist of.
    fn range(&self, from: usize, to: usize) -> impl Iterator<Item = &'a [u8]> {
        let first = self.starts.partition_point(|&start| start <= from).saturating_sub(1);
        let pieces = self.pieces[first..].iter().zip(&self.starts[first..]);
        pieces.take_while(move |&(_, &start)| start < to).map(move |(piece, &start)| {
            let clamp = |at: usize| at.saturating_sub(start).min(piece.len());
            &piece[clamp(from)..clamp(to)]
        })
    }

    /// Writes the hash of every block; stops early once `stop` is set.
    fn hash(&self, hashes: &mut [u8], block: usize, stop: &AtomicBool) {
        hashes.par_chunks_mut(HASH_BYTES).enumerate().for_each(|(i, hash)| {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let mut sha = Sha256::new();
            let end = self.total.min((i + 1).saturating_mul(block));
            self.range(i * block, end).for_each(|part| sha.update(part));
            hash.copy_from_slice(&sha.finalize());
        });
    }

    /// Writes all bytes in order and counts them in `done`.
    fn write(&self, file: &mut File, done: &AtomicI64) -> io::Result<()> {
        for piece in &self.pieces {
            for part in piece.chunks(WRITE_BYTES) {
                file.write_all(part)?;
                done.fetch_add(part.len() as i64, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Writes the pieces to `path` in one step for every reader, and their block hashes beside it.
fn write_file(path: &Path, pieces: &Pieces, hashes: &mut [u8], block: usize, done: &AtomicI64) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary).map_err(|e| io_error("create", &temporary, &e))?;
    let stop = AtomicBool::new(false);
    let write = || {
        let written = pieces.write(&mut file, done).and_then(|()| file.sync_all());
        stop.store(written.is_err(), Ordering::Relaxed);
        written
    };
    let (written, ()) = rayon::join(write, || pieces.hash(hashes, block, &stop));
    let placed = written.and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = placed {
        let removed = std::fs::remove_file(&temporary);
        let mut failure = io_error("write", path, &error);
        if let Err(error) = removed {
            failure.message.push_str(&format!("; {temporary:?} could not be removed: {error}"));
        }
        return Err(failure);
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| io_error("synchronize", folder, &e))
}

fn size(bytes: i64, name: &str) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::invalid(format!("Cannot use {name} = {bytes}, expected at least 0")))
}

fn block_size(bytes: i64) -> Result<usize> {
    match usize::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(Error::invalid(format!("Cannot hash by blocks of {bytes} bytes, expected at least 1"))),
    }
}

/// # Safety
/// `buffer` has `bytes` bytes, which stay alive and unwritten during 'a.
unsafe fn input<'a>(buffer: *mut u8, bytes: usize) -> &'a [u8] {
    // SAFETY: by contract; an empty JavaScript buffer may come as null.
    if bytes == 0 { &[] } else { unsafe { std::slice::from_raw_parts(buffer, bytes) } }
}

/// # Safety
/// As `input`, to write.
unsafe fn output<'a>(buffer: *mut u8, bytes: usize) -> &'a mut [u8] {
    // SAFETY: by contract.
    if bytes == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(buffer, bytes) } }
}

/// # Safety
/// As `input`.
unsafe fn path_of<'a>(path: *mut u8, bytes: i32) -> Result<&'a Path> {
    // SAFETY: by contract.
    let bytes = unsafe { input(path, size(i64::from(bytes), "pathBytes")?) };
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_file_map(ctx: *mut Context, out: *mut u8, path: *mut u8, path_bytes: i32) -> i32 {
    // SAFETY: null or a live handle; path has `path_bytes` bytes and out 16.
    unsafe {
        entry(ctx, |cx| {
            let (address, bytes) = map(path_of(path, path_bytes)?)?;
            cx.adopt(address, bytes);
            write_handle(out, address);
            out.cast::<u64>().add(1).write_unaligned(bytes as u64);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_file_unmap(ctx: *mut Context, address: *mut c_void) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| cx.unmap(address)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_sha256(
    ctx: *mut Context,
    hashes: *mut u8,
    memory: *mut c_void,
    bytes: i64,
    block_bytes: i64,
) -> i32 {
    // SAFETY: null or a live handle; hashes has 32 bytes for every block.
    unsafe {
        entry(ctx, |cx| {
            let (bytes, block) = (size(bytes, "bytes")?, block_size(block_bytes)?);
            let memory = cx.memory::<u8>(memory, bytes, "memory")?;
            cx.wait()?;
            let pieces = Pieces::new(vec![memory.get()]);
            let hashes = output(hashes, bytes.div_ceil(block) * HASH_BYTES);
            cx.install(|| pieces.hash(hashes, block, &AtomicBool::new(false)));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_file_write(
    ctx: *mut Context,
    hashes: *mut u8,
    path: *mut u8,
    path_bytes: i32,
    head: *mut u8,
    head_bytes: i64,
    segments: *mut u8,
    n_segments: i32,
    block_bytes: i64,
) -> i32 {
    // SAFETY: null or a live handle; the buffers have the sizes given beside them and hashes 32 bytes for every block.
    unsafe {
        entry(ctx, |cx| {
            let (path, block) = (path_of(path, path_bytes)?, block_size(block_bytes)?);
            let mut pieces = vec![input(head, size(head_bytes, "headBytes")?)];
            for i in 0..size(i64::from(n_segments), "nSegments")? {
                let pair = segments.cast::<u64>().add(2 * i);
                let (address, bytes) = (pair.read_unaligned(), pair.add(1).read_unaligned());
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                let segment: Memory<u8> = cx.memory(address as *mut c_void, bytes, &format!("segment {i}"))?;
                pieces.push(segment.get());
            }
            pieces.retain(|piece| !piece.is_empty());
            let pieces = Pieces::new(pieces);
            cx.wait()?;
            cx.progress_done.store(0, Ordering::Relaxed);
            cx.progress_total.store(pieces.total as i64, Ordering::Relaxed);
            let hashes = output(hashes, pieces.total.div_ceil(block) * HASH_BYTES);
            cx.install(|| write_file(path, &pieces, hashes, block, &cx.progress_done))
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_disk_free(ctx: *mut Context, out: *mut u8, path: *mut u8, path_bytes: i32) -> i32 {
    // SAFETY: null or a live handle; path has `path_bytes` bytes and out 8.
    unsafe {
        entry(ctx, |_| {
            let path = path_of(path, path_bytes)?;
            let name = CString::new(path.as_os_str().as_bytes())
                .map_err(|_| Error::invalid(format!("Cannot look up {path:?}: it holds a zero byte")))?;
            let mut info: libc::statvfs = std::mem::zeroed();
            if libc::statvfs(name.as_ptr(), &mut info) != 0 {
                return Err(io_error("look up the disk of", path, &io::Error::last_os_error()));
            }
            let free = (info.f_bavail as u64).saturating_mul(info.f_frsize as u64);
            out.cast::<i64>().write_unaligned(i64::try_from(free).unwrap_or(i64::MAX));
            Ok(())
        })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
