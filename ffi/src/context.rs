//! A context: one in-order queue on a rayon pool, the memory it owns, its last error.
//!
//! Calls check their arguments and push a job; worker 0 of the pool runs the jobs in order, so a job's parallel loops use the pool
//! without a hop to another thread. While a graph is recorded, jobs are kept instead of run. After a job fails, later jobs are
//! skipped and every wait reports that first failure.

use crate::abi::{DTYPE_BYTES, STATUS_OUT_OF_MEMORY, STATUS_PANIC};
use crate::guard::{Error, Result, caught};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

/// Alignment of every allocation, in bytes (one cache line, one AVX-512 register).
pub const ALIGN: usize = 64;

/// Work of one call. `Fn`, because a recorded graph runs it many times.
pub type Job = Arc<dyn Fn() + Send + Sync>;

/// A queued piece of work with the name of its C function.
#[derive(Clone)]
pub struct Task {
    pub name: &'static str,
    pub job: Job,
}

enum Command {
    Run(Task),
    Free(Block, usize),
    Signal(Arc<Signal>, u64),
    Quit,
}

/// A point in the queue that somebody can wait for: counts its records and remembers when the last one happened.
#[derive(Default)]
pub struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    requested: u64,
    happened: u64,
    at: Option<Instant>,
}

impl Signal {
    pub fn request(&self) -> u64 {
        let mut state = lock(&self.state);
        state.requested += 1;
        state.requested
    }

    pub fn fire(&self, number: u64) {
        let mut state = lock(&self.state);
        state.happened = state.happened.max(number);
        state.at = Some(Instant::now());
        self.changed.notify_all();
    }

    pub fn ready(&self) -> bool {
        let state = lock(&self.state);
        state.happened >= state.requested
    }

    pub fn wait(&self) {
        let mut state = lock(&self.state);
        let target = state.requested;
        while state.happened < target {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    pub fn at(&self) -> Option<Instant> {
        lock(&self.state).at
    }
}

/// Locks and ignores poisoning: every critical section here leaves its data whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

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

#[derive(Clone, Copy)]
struct Block {
    bytes: usize,
    kind: BlockKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Heap,
    MappedFile, // read-only
}

impl Block {
    /// Gives the memory back to the system.
    fn release(self, address: usize) {
        match self.kind {
            BlockKind::Heap => {
                let layout = Layout::from_size_align(self.bytes, ALIGN).expect("layout was valid at allocation");
                // SAFETY: `address` came from alloc_zeroed with this layout and left the table exactly once.
                unsafe { dealloc(address as *mut u8, layout) };
            }
            // SAFETY: `adopt` took over a mapping of this size; it left the table exactly once.
            BlockKind::MappedFile => unsafe {
                libc::munmap(address as *mut c_void, self.bytes);
            },
        }
    }
}

#[derive(Default)]
struct Blocks {
    by_address: BTreeMap<usize, Block>,
    allocated: i64,
    peak: i64,
}

/// Time spent per op while profiling.
pub type Profile = BTreeMap<&'static str, (u64, f64)>;

/// State shared between the caller's side and the queue's side.
pub struct Shared {
    failure: Mutex<Option<Error>>,
    pub profile: Mutex<Profile>,
    pub profiling: AtomicBool,
}

impl Shared {
    fn run(&self, task: &Task) {
        if lock(&self.failure).is_some() {
            return;
        }
        let start = self.profiling.load(Ordering::Relaxed).then(Instant::now);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (task.job)())) {
            *lock(&self.failure) = Some(caught(payload, &format!("finish {}", task.name)));
        }
        if let Some(start) = start {
            let mut profile = lock(&self.profile);
            let row = profile.entry(task.name).or_default();
            row.0 += 1;
            row.1 += start.elapsed().as_secs_f64() * 1e3;
        }
    }
}

/// The handle behind `ctx`.
pub struct Context {
    pool: Arc<rayon::ThreadPool>,
    beside: OnceLock<rayon::ThreadPool>,
    queue: Mutex<Sender<Command>>,
    pub shared: Arc<Shared>,
    blocks: Mutex<Blocks>,
    recording: Mutex<Option<Vec<Task>>>,
    error: Mutex<String>,
    done: Arc<Signal>,
    pub progress_done: AtomicI64,
    pub progress_total: AtomicI64,
}

impl Context {
    /// Starts the pool and the queue. `threads` 0 = physical cores that the process may use.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = if threads == 0 { crate::runtime::physical_cores() } else { threads };
        let pool = Arc::new(start_pool(threads, "nanochat")?);
        let shared = Arc::new(Shared {
            failure: Mutex::new(None),
            profile: Mutex::default(),
            profiling: AtomicBool::new(false),
        });
        let (sender, receiver) = channel();
        let worker = shared.clone();
        pool.spawn(move || drain(&receiver, &worker));
        Ok(Context {
            pool,
            beside: OnceLock::new(),
            queue: Mutex::new(sender),
            shared,
            blocks: Mutex::default(),
            recording: Mutex::new(None),
            error: Mutex::default(),
            done: Arc::default(),
            progress_done: AtomicI64::new(0),
            progress_total: AtomicI64::new(0),
        })
    }

    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` now, beside the queue, on a pool of its own (tokenizer and file jobs; called from `nonblocking` entries).
    ///
    /// Worker 0 of the queue's pool never returns to rayon, so with one thread that pool could not run `work` at all.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let start = || start_pool(self.threads(), "nanochat-side").unwrap_or_else(|error| error.fail());
        self.beside.get_or_init(start).install(work)
    }

    pub fn set_error(&self, message: String) {
        *lock(&self.error) = message;
    }

    pub fn error(&self) -> String {
        lock(&self.error).clone()
    }

    /// Enqueues a job, or keeps it while a graph is recorded.
    pub fn enqueue(&self, name: &'static str, job: impl Fn() + Send + Sync + 'static) -> Result<()> {
        let task = Task { name, job: Arc::new(job) };
        if let Some(tasks) = lock(&self.recording).as_mut() {
            tasks.push(task);
            return Ok(());
        }
        self.send(Command::Run(task))
    }

    fn send(&self, command: Command) -> Result<()> {
        lock(&self.queue)
            .send(command)
            .map_err(|_| Error::new(STATUS_PANIC, "Cannot enqueue: the queue has ended, expected a running one"))
    }

    /// Records `signal` behind everything enqueued so far.
    pub fn signal(&self, signal: &Arc<Signal>) -> Result<()> {
        let number = signal.request();
        let fired = signal.clone();
        if let Some(tasks) = lock(&self.recording).as_mut() {
            tasks.push(Task { name: "nc_event_record", job: Arc::new(move || fired.fire(number)) });
            return Ok(());
        }
        self.send(Command::Signal(fired, number))
    }

    /// Waits for everything enqueued so far.
    pub fn wait(&self) -> Result<()> {
        self.signal(&self.done)?;
        self.done.wait();
        self.failure()
    }

    /// The first failure of a queued job, if any.
    pub fn failure(&self) -> Result<()> {
        lock(&self.shared.failure).clone().map_or(Ok(()), Err)
    }

    pub fn begin_recording(&self) -> Result<()> {
        let mut recording = lock(&self.recording);
        if recording.is_some() {
            return Err(Error::invalid("Cannot begin a graph: one is being recorded, expected none"));
        }
        *recording = Some(Vec::new());
        Ok(())
    }

    pub fn end_recording(&self) -> Result<Vec<Task>> {
        lock(&self.recording)
            .take()
            .ok_or_else(|| Error::invalid("Cannot end a graph: none is being recorded, expected nc_graph_begin first"))
    }

    /// Allocates zeroed, aligned memory.
    pub fn alloc(&self, bytes: i64) -> Result<*mut c_void> {
        let size = usize::try_from(bytes)
            .map_err(|_| Error::invalid(format!("Cannot allocate {bytes} bytes, expected a size of at least 0")))?
            .max(1)
            .next_multiple_of(ALIGN);
        let layout = Layout::from_size_align(size, ALIGN)
            .map_err(|_| Error::invalid(format!("Cannot allocate {bytes} bytes: larger than the address space")))?;
        // SAFETY: the layout has a size above 0.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            let message = format!("Cannot allocate {bytes} bytes: the system has no more memory");
            return Err(Error::new(STATUS_OUT_OF_MEMORY, message));
        }
        let mut blocks = lock(&self.blocks);
        blocks.by_address.insert(pointer as usize, Block { bytes: size, kind: BlockKind::Heap });
        blocks.allocated += size as i64;
        blocks.peak = blocks.peak.max(blocks.allocated);
        Ok(pointer.cast())
    }

    /// Frees memory of `alloc` behind the work enqueued so far.
    pub fn free(&self, pointer: *mut c_void) -> Result<()> {
        self.give_back(pointer, BlockKind::Heap)
    }

    /// Takes over a read-only mapping of a file, so that ops may read it.
    pub fn adopt(&self, pointer: *const c_void, bytes: usize) {
        let block = Block { bytes, kind: BlockKind::MappedFile };
        lock(&self.blocks).by_address.insert(pointer as usize, block);
    }

    /// Ends a mapping of `adopt` behind the work enqueued so far.
    pub fn unmap(&self, pointer: *mut c_void) -> Result<()> {
        self.give_back(pointer, BlockKind::MappedFile)
    }

    fn give_back(&self, pointer: *mut c_void, kind: BlockKind) -> Result<()> {
        let address = pointer as usize;
        let mut blocks = lock(&self.blocks);
        let Some(block) = blocks.by_address.get(&address).copied().filter(|block| block.kind == kind) else {
            let what = if kind == BlockKind::Heap { "an allocation" } else { "a mapped file" };
            return Err(Error::invalid(format!("Cannot free {address:#x}: not {what} of this context")));
        };
        blocks.by_address.remove(&address);
        if kind == BlockKind::Heap {
            blocks.allocated -= block.bytes as i64;
        }
        drop(blocks);
        self.send(Command::Free(block, address))
    }

    /// Bytes allocated now and at most so far.
    pub fn usage(&self) -> (i64, i64) {
        let blocks = lock(&self.blocks);
        (blocks.allocated, blocks.peak)
    }

    /// Checks that `len` elements of T at `pointer` lie inside one allocation of this context.
    pub fn memory<T>(&self, pointer: *mut c_void, len: usize, name: &str) -> Result<Memory<T>> {
        let address = pointer as usize;
        let bytes = len.checked_mul(size_of::<T>());
        let blocks = lock(&self.blocks);
        let inside = bytes.is_some_and(|bytes| {
            blocks.by_address.range(..=address).next_back().is_some_and(|(start, block)| {
                address - start <= block.bytes && bytes <= block.bytes - (address - start)
            })
        });
        if !inside {
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

impl Drop for Context {
    fn drop(&mut self) {
        let _ = self.wait();
        let _ = self.send(Command::Quit);
        for (&address, block) in &lock(&self.blocks).by_address {
            block.release(address);
        }
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

fn start_pool(threads: usize, name: &'static str) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        .build()
        .map_err(|e| Error::new(STATUS_OUT_OF_MEMORY, format!("Cannot start {threads} threads: {e}")))
}

fn drain(receiver: &Receiver<Command>, shared: &Shared) {
    while let Ok(command) = receiver.recv() {
        match command {
            Command::Run(task) => shared.run(&task),
            Command::Free(block, address) => block.release(address),
            Command::Signal(signal, number) => signal.fire(number),
            Command::Quit => return,
        }
    }
}

/// Runs the tasks of a graph in order, each timed and guarded like a single call.
pub fn replay(shared: &Shared, tasks: &[Task]) {
    for task in tasks {
        shared.run(task);
    }
}
