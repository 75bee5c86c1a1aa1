//! A context: one in-order queue on a rayon pool, the memory it owns (`memory.rs`), its last error.
//!
//! Calls check their arguments and push a job; worker 0 of the pool runs the jobs in order, so a job's parallel loops use the pool
//! without a hop to another thread. While a graph is recorded, jobs are kept instead of run. After a job fails, later jobs are
//! skipped and every wait reports that first failure.

use crate::abi::{STATUS_OUT_OF_MEMORY, STATUS_PANIC};
use crate::guard::{Error, Result, caught};
use crate::memory::{Block, Blocks};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

/// Work of one call. `Fn`, because a recorded graph runs it many times.
pub type Job = Arc<dyn Fn() + Send + Sync>;

/// A queued piece of work with the name of its C function.
#[derive(Clone)]
pub struct Task {
    pub name: &'static str,
    pub job: Job,
}

/// What the queue does next.
pub(crate) enum Command {
    Run(Task),
    Free(Block),
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
    pub(crate) blocks: Mutex<Blocks>,
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

    pub(crate) fn send(&self, command: Command) -> Result<()> {
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
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = self.wait();
        let _ = self.send(Command::Quit);
        lock(&self.blocks).release_all();
    }
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
            Command::Free(block) => block.release(),
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
