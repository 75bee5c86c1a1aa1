//! The memory of a context: allocations and mapped files, and the checks that an operand lies inside one.

use crate::abi::{DTYPE_BYTES, STATUS_OUT_OF_MEMORY};
use crate::context::{Command, Context, lock};
use crate::guard::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// Alignment of every allocation, in bytes (one cache line, one AVX-512 register).
const ALIGN: usize = 64;
/// Allocations from here on are mappings of their own, for which large pages are asked for: 2 MiB, the size of one.
const MAPPED: usize = 2 << 20;

/// A checked address inside one allocation (or a mapped file). Copied into jobs.
///
/// Two jobs never run at once and each op documents which operands may alias, so handing out slices is sound as long as a job asks
/// for disjoint ones.
#[derive(Clone, Copy)]
pub struct Memory<T> {
    pointer: *mut T,
    len: usize,
}

// SAFETY: jobs of a context run one at a time; the parallel loops inside a job split the slices.
unsafe impl<T> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Memory<T> {}

impl<T> Memory<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_ptr(&self) -> *mut T {
        self.pointer
    }

    /// The elements, to read.
    pub fn get(&self) -> &'static [T] {
        // SAFETY: checked against a live allocation when made; the queue frees memory only after the jobs before it.
        unsafe { std::slice::from_raw_parts(self.pointer, self.len) }
    }

    /// The elements, to write.
    #[allow(clippy::mut_from_ref)]
    pub fn get_mut(&self) -> &'static mut [T] {
        // SAFETY: as in `get`; the op that asks is the only one running.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.len) }
    }
}

/// Memory that a context owns.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    address: usize,
    bytes: usize,
    kind: BlockKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Allocation,
    MappedFile, // read-only
}

impl Block {
    /// Zeroed memory, or none where the system has no more.
    fn allocate(bytes: usize) -> Option<Self> {
        let pointer = if bytes < MAPPED {
            // SAFETY: the layout has a size above 0.
            unsafe { alloc_zeroed(Self::layout(bytes)?) }
        } else {
            map(bytes)?
        };
        (!pointer.is_null()).then_some(Block { address: pointer as usize, bytes, kind: BlockKind::Allocation })
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, ALIGN).ok()
    }

    /// Gives the memory back to the system.
    pub(crate) fn release(self) {
        match Self::layout(self.bytes) {
            Some(layout) if self.kind == BlockKind::Allocation && self.bytes < MAPPED => {
                // SAFETY: the address came from alloc_zeroed with this layout and left the table exactly once.
                unsafe { dealloc(self.address as *mut u8, layout) };
            }
            // SAFETY: `map` made or `adopt` took over a mapping of this size; it left the table exactly once.
            _ => unsafe {
                libc::munmap(self.address as *mut c_void, self.bytes);
            },
        }
    }
}

/// Zeroed pages, large ones where the system has them: a product walks through matrices with strides of many small pages, and finding
/// these took longer than the data (LOG 2026-11-25).
fn map(bytes: usize) -> Option<*mut u8> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which touches no other memory.
    let pointer = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    if pointer == libc::MAP_FAILED {
        return None;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: our own mapping; a hint that may fail.
    unsafe {
        libc::madvise(pointer, bytes, libc::MADV_HUGEPAGE);
    }
    Some(pointer.cast())
}

/// Memory for a thread's own use, in large pages where the system has them.
#[derive(Default)]
pub(crate) struct Pages {
    address: usize,
    bytes: usize,
}

impl Pages {
    /// At least `bytes` bytes with unspecified content.
    pub(crate) fn at_least(&mut self, bytes: usize) -> *mut u8 {
        if self.bytes < bytes {
            *self = Pages::default(); // the old content is of no use: it is freed first
            let bytes = bytes.next_multiple_of(MAPPED);
            let Some(start) = map(bytes) else {
                std::alloc::handle_alloc_error(Layout::from_size_align(bytes, ALIGN).unwrap_or(Layout::new::<u8>()))
            };
            *self = Pages { address: start as usize, bytes };
        }
        self.address as *mut u8
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: a mapping of `at_least`, which nobody else has.
            unsafe { libc::munmap(self.address as *mut c_void, self.bytes) };
        }
    }
}

/// The blocks of a context.
#[derive(Default)]
pub(crate) struct Blocks {
    by_address: BTreeMap<usize, Block>,
    allocated: i64,
    peak: i64,
}

impl Blocks {
    fn add(&mut self, block: Block) {
        self.by_address.insert(block.address, block);
        if block.kind == BlockKind::Allocation {
            self.allocated += block.bytes as i64;
            self.peak = self.peak.max(self.allocated);
        }
    }

    /// Takes out the block that begins at `address`.
    fn remove(&mut self, address: usize, kind: BlockKind) -> Option<Block> {
        let block = self.by_address.get(&address).copied().filter(|block| block.kind == kind)?;
        self.by_address.remove(&address);
        if kind == BlockKind::Allocation {
            self.allocated -= block.bytes as i64;
        }
        Some(block)
    }

    /// Whether `bytes` from `address` on lie inside one block.
    fn hold(&self, address: usize, bytes: usize) -> bool {
        self.by_address
            .range(..=address)
            .next_back()
            .is_some_and(|(start, block)| address - start <= block.bytes && bytes <= block.bytes - (address - start))
    }

    /// Gives everything back; nobody may use it any more.
    pub(crate) fn release_all(&mut self) {
        for block in std::mem::take(&mut self.by_address).into_values() {
            block.release();
        }
    }
}

impl Context {
    /// Allocates zeroed, aligned memory.
    pub fn alloc(&self, bytes: i64) -> Result<*mut c_void> {
        let size = usize::try_from(bytes)
            .map_err(|_| Error::invalid(format!("Cannot allocate {bytes} bytes, expected a size of at least 0")))?
            .max(1)
            .next_multiple_of(ALIGN);
        let Some(block) = Block::allocate(size) else {
            let message = format!("Cannot allocate {bytes} bytes: the system has no more memory");
            return Err(Error::new(STATUS_OUT_OF_MEMORY, message));
        };
        lock(&self.blocks).add(block);
        Ok(block.address as *mut c_void)
    }

    /// Frees memory of `alloc` behind the work enqueued so far.
    pub fn free(&self, pointer: *mut c_void) -> Result<()> {
        self.give_back(pointer, BlockKind::Allocation)
    }

    /// Takes over a read-only mapping of a file, so that ops may read it.
    pub fn adopt(&self, pointer: *const c_void, bytes: usize) {
        lock(&self.blocks).add(Block { address: pointer as usize, bytes, kind: BlockKind::MappedFile });
    }

    /// Ends a mapping of `adopt` behind the work enqueued so far.
    pub fn unmap(&self, pointer: *mut c_void) -> Result<()> {
        self.give_back(pointer, BlockKind::MappedFile)
    }

    fn give_back(&self, pointer: *mut c_void, kind: BlockKind) -> Result<()> {
        let address = pointer as usize;
        let Some(block) = lock(&self.blocks).remove(address, kind) else {
            let what = if kind == BlockKind::Allocation { "an allocation" } else { "a mapped file" };
            return Err(Error::invalid(format!("Cannot free {address:#x}: not {what} of this context")));
        };
        self.send(Command::Free(block))
    }

    /// Bytes allocated now and at most so far.
    pub fn usage(&self) -> (i64, i64) {
        let blocks = lock(&self.blocks);
        (blocks.allocated, blocks.peak)
    }

    /// Checks that `len` elements of T at `pointer` lie inside one allocation of this context.
    pub fn memory<T>(&self, pointer: *mut c_void, len: usize, name: &str) -> Result<Memory<T>> {
        let address = pointer as usize;
        let inside = |bytes| lock(&self.blocks).hold(address, bytes);
        if !len.checked_mul(size_of::<T>()).is_some_and(inside) {
            return Err(Error::invalid(format!(
                "Cannot use {name}: {len} elements at {address:#x} are not inside an allocation of this context"
            )));
        }
        if !address.is_multiple_of(align_of::<T>()) {
            return Err(Error::invalid(format!(
                "Cannot use {name}: address {address:#x} is not a multiple of {}",
                align_of::<T>()
            )));
        }
        Ok(Memory { pointer: pointer.cast(), len })
    }

    /// `memory`, or none for a null pointer.
    pub fn optional<T>(&self, pointer: *mut c_void, len: usize, name: &str) -> Result<Option<Memory<T>>> {
        if pointer.is_null() { Ok(None) } else { self.memory(pointer, len, name).map(Some) }
    }

    /// Checks `len` elements of the given dtype, as bytes.
    pub fn tensor(&self, pointer: *mut c_void, len: usize, dtype: i32, name: &str) -> Result<Memory<u8>> {
        let size = element_bytes(dtype)?;
        if !(pointer as usize).is_multiple_of(size) {
            return Err(Error::invalid(format!("Cannot use {name}: its address is not a multiple of {size}")));
        }
        self.memory(pointer, len.saturating_mul(size), name)
    }
}

/// Size in bytes of an element of a dtype code.
pub fn element_bytes(dtype: i32) -> Result<usize> {
    usize::try_from(dtype)
        .ok()
        .and_then(|code| DTYPE_BYTES.get(code).copied())
        .ok_or_else(|| Error::invalid(format!("Cannot use dtype {dtype}, expected a code of abi.ts")))
}

/// Widens dimensions and multiplies them.
pub fn count(dims: &[i32]) -> Result<usize> {
    let mut product: usize = 1;
    for &dim in dims {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::invalid(format!("Cannot use dimension {dim}, expected at least 0")))?;
        product = product
            .checked_mul(dim)
            .ok_or_else(|| Error::invalid(format!("Cannot use dimensions {dims:?}: their product overflows")))?;
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alloc_gives_zeroed_aligned_memory_of_any_size_and_takes_it_back() {
        let cx = Context::new(1).unwrap();
        for bytes in [0, 1, MAPPED - ALIGN, MAPPED, 3 * MAPPED + 1] {
            let pointer = cx.alloc(bytes as i64).unwrap();
            assert!((pointer as usize).is_multiple_of(ALIGN), "{bytes} bytes");
            let memory = cx.memory::<u8>(pointer, bytes, "x").unwrap();
            assert!(memory.get().iter().all(|&x| x == 0), "{bytes} bytes");
            memory.get_mut().fill(1);
            let size = bytes.max(1).next_multiple_of(ALIGN);
            assert!(cx.memory::<u8>(pointer, size + 1, "x").is_err());
            assert_eq!(cx.usage().0, size as i64);
            cx.free(pointer).unwrap();
            cx.wait().unwrap();
            assert_eq!(cx.usage().0, 0);
            assert!(cx.memory::<u8>(pointer, 1, "x").is_err());
        }
        assert!(cx.alloc(i64::MAX - 4096).is_err());
    }
}
