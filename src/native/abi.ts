/**
 * The one description of the C interface that both native libraries implement (`ffi/` in Rust, `kernels_cu/` in CUDA).
 *
 * From this table come: the `dlopen` types (load.ts), `kernels_cu/nanochat.h` and `ffi/src/abi.rs` (`deno task gen`), and the ABI hash
 * that load.ts compares. Argument order is fixed: ctx, outputs, inputs, saved values, sizes, scalars, dtypes.
 *
 * Conventions
 * - Every function returns a status (0 = ok); the message is read with `nc_error`. Ops check, enqueue and return; results are
 *   visible after a wait. Functions marked `nonblocking` run on another thread and are awaited.
 * - `ptr` is an address that the library gave out (device memory, pinned memory, a mapped file or an object); null where a row says
 *   "or null". `buf` is a JavaScript buffer, read or written before the call returns, never kept.
 * - Dimensions are i32; byte counts and offsets are i64 (bigint).
 * - Values that change from step to step are read from device memory (the step block), never passed by value, so that a recorded
 *   graph can be replayed: pointers named `hyper`, `scale`, `positions`, `counts`, `seeds` point there.
 * - "accumulate" 0 overwrites an output, 1 adds to it.
 */

/** Argument kinds of the C interface. */
export type ArgKind = "ptr" | "buf" | "i32" | "i64" | "u64" | "f32" | "f64";

/** One C function. */
export interface AbiRow {
  /** What the function computes: shapes, formula, who overwrites. */
  readonly doc: string;
  /** "name: kind" in C order. */
  readonly args: readonly `${string}: ${ArgKind}`[];
  /** Only this library implements the row. */
  readonly lib?: "cpu";
  /** Runs on a thread of its own; the caller awaits a promise. */
  readonly nonblocking?: true;
}

/** Element types, by code. */
export const DTYPE = { f32: 0, bf16: 1, f16: 2, i32: 3, u16: 4, i8: 5, e4m3: 6, e5m2: 7 } as const;
/** Size of an element in bytes, by name. */
export const DTYPE_BYTES = { f32: 4, bf16: 2, f16: 2, i32: 4, u16: 2, i8: 1, e4m3: 1, e5m2: 1 } as const;
/** Status codes. `SKIPPED`: an earlier call on this queue failed, so this one did not run. */
export const STATUS = {
  OK: 0,
  INVALID: 1, // an argument is wrong
  OUT_OF_MEMORY: 2,
  IO: 3, // the operating system refused
  DATA: 4, // foreign bytes are malformed
  UNSUPPORTED: 5, // this library or machine cannot do it
  DEVICE: 6, // the device failed
  PANIC: 7, // a defect of ours; the message names it
  NOT_READY: 8, // an event has not happened yet
  NON_FINITE: 9, // a NaN or infinity where none may be
} as const;
/** Operand layouts of a weight: rows as stored, or the packed form that `nc_pack` makes for the forward or the input-gradient product. */
export const LAYOUT = { ROWS: 0, PACKED: 1 } as const;
/** What `nc_pack` prepares a weight (N, K) for: y = x W^T (FORWARD) or dx = dy W (BACKWARD). */
export const PACK = { FORWARD: 0, BACKWARD: 1 } as const;
/** Epilogues of a product. RELU2: y = max(h, 0)^2, with h stored in `aux` where aux is given. */
export const EPILOGUE = { NONE: 0, RELU2: 1 } as const;
/** Slots (f32) of an AdamW group's `hyper` block: p is updated with lr / bc1 etc. (see nc_adamw). */
export const ADAMW_HYPER = {
  lr: 0,
  beta1: 1,
  beta2: 2,
  eps: 3,
  weightDecay: 4,
  biasCorrection1: 5,
  biasCorrection2: 6,
} as const;
/** Slots (f32) of a Muon group's `hyper` block. */
export const MUON_HYPER = { lr: 0, momentum: 1, weightDecay: 2 } as const;
/** Kinds of communicator. */
export const COMM = { SELF: 0, MPI: 1, NCCL: 2 } as const;

/** Version of the interface's meaning: raised when a row keeps its signature and changes what it does. */
export const ABI_VERSION = 1;

const runtime = {
  nc_abi_hash: { doc: "Writes the 32 hex digits of the ABI hash.", args: ["hash: buf"] },
  nc_context_create: {
    doc:
      "Opens device number `device` with a queue of its own and writes the handle to context[0] (u64). threads: size of the CPU thread pool, 0 = physical cores that the process may use.",
    args: ["context: buf", "device: i32", "threads: i32"],
  },
  nc_context_free: { doc: "Finishes the queue, frees all memory of the context and the context.", args: ["ctx: ptr"] },
  nc_error: {
    doc:
      "Copies the context's last error message (UTF-8, zero-terminated, cut to capacity) into text; ctx may be null after nc_context_create failed.",
    args: ["ctx: ptr", "text: buf", "capacity: i32"],
  },
  nc_device_info: {
    doc: "Writes a JSON object about the device (name, isa, threads, features; zero-terminated, cut to capacity).",
    args: ["ctx: ptr", "text: buf", "capacity: i32"],
  },
  nc_memory_info: {
    doc: "Writes i64 values: bytes allocated now, peak of it, total memory of the device, memory free on the device.",
    args: ["ctx: ptr", "info: buf"],
  },
  nc_alloc: {
    doc: "Allocates zeroed device memory, 64-byte aligned; address to out[0] (u64).",
    args: ["ctx: ptr", "out: buf", "bytes: i64"],
  },
  nc_free: {
    doc: "Frees memory of nc_alloc or nc_host_alloc after the work queued before it.",
    args: ["ctx: ptr", "memory: ptr"],
  },
  nc_host_alloc: {
    doc: "Allocates pinned host memory; address to out[0] (u64).",
    args: ["ctx: ptr", "out: buf", "bytes: i64"],
  },
  nc_host_write: {
    doc: "Copies a JavaScript buffer into pinned host memory at once.",
    args: ["ctx: ptr", "host: ptr", "data: buf", "bytes: i64"],
  },
  nc_host_read: {
    doc: "Copies pinned host memory into a JavaScript buffer at once.",
    args: ["ctx: ptr", "data: buf", "host: ptr", "bytes: i64"],
  },
  nc_upload: {
    doc: "Takes a copy of a JavaScript buffer and enqueues its transfer to device memory.",
    args: ["ctx: ptr", "y: ptr", "data: buf", "bytes: i64"],
  },
  nc_copy: {
    doc: "Enqueues a copy between device, pinned and mapped memory (any direction).",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "bytes: i64"],
  },
  nc_copy_2d: {
    doc: "Enqueues a copy of `rows` pieces of `rowBytes`, each `yStride` / `xStride` bytes after the one before.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "rows: i64", "rowBytes: i64", "yStride: i64", "xStride: i64"],
  },
  nc_fill: {
    doc: "Enqueues y[i] = value for n elements.",
    args: ["ctx: ptr", "y: ptr", "n: i64", "value: f64", "dtype: i32"],
  },
  nc_wait: {
    doc: "Waits until everything enqueued so far is done; reports the first failure of the queue.",
    nonblocking: true,
    args: ["ctx: ptr"],
  },
  nc_stream_create: {
    doc: "Creates a further in-order queue (on the CPU: an alias of the one queue); handle to out[0].",
    args: ["ctx: ptr", "out: buf"],
  },
  nc_stream_free: { doc: "Frees a stream after its work.", args: ["ctx: ptr", "stream: ptr"] },
  nc_stream_use: {
    doc: "Later calls of this context enqueue on `stream` (null = the main queue).",
    args: ["ctx: ptr", "stream: ptr"],
  },
  nc_event_create: { doc: "Creates an event; handle to out[0].", args: ["ctx: ptr", "out: buf"] },
  nc_event_free: { doc: "Frees an event.", args: ["ctx: ptr", "event: ptr"] },
  nc_event_record: { doc: "Enqueues the event on the stream in use.", args: ["ctx: ptr", "event: ptr"] },
  nc_event_query: {
    doc: "OK when the last record of the event has happened, else NOT_READY.",
    args: ["ctx: ptr", "event: ptr"],
  },
  nc_event_wait: {
    doc: "Waits for the last record of the event; reports the first failure of the queue.",
    nonblocking: true,
    args: ["ctx: ptr", "event: ptr"],
  },
  nc_event_elapsed: {
    doc: "Milliseconds between two events that have happened, to ms[0] (f64).",
    args: ["ctx: ptr", "ms: buf", "from: ptr", "to: ptr"],
  },
  nc_stream_wait_event: {
    doc: "The stream in use waits for the event before it goes on.",
    args: ["ctx: ptr", "event: ptr"],
  },
  nc_graph_begin: { doc: "Starts recording: calls are checked and kept instead of executed.", args: ["ctx: ptr"] },
  nc_graph_end: { doc: "Ends recording; the graph's handle to out[0].", args: ["ctx: ptr", "out: buf"] },
  nc_graph_launch: {
    doc: "Enqueues everything recorded, in order, with the same addresses.",
    args: ["ctx: ptr", "graph: ptr"],
  },
  nc_graph_free: { doc: "Frees a graph after its launches.", args: ["ctx: ptr", "graph: ptr"] },
  nc_progress: {
    doc:
      "Reads the progress of the context's running long call: i64 done, i64 total (0 = unknown). May be called while a nonblocking call runs.",
    args: ["ctx: ptr", "progress: buf"],
  },
  nc_profile: {
    doc:
      "mode 1: clear and start timing every op; 0: stop. Writes the figures so far as JSON [{op, calls, ms}] (zero-terminated, cut to capacity).",
    args: ["ctx: ptr", "text: buf", "capacity: i32", "mode: i32"],
  },
} as const satisfies Record<string, AbiRow>;

const random = {
  nc_normal: {
    doc:
      "y[i] = mean + std * z of counter offset + i, f32 (n): Philox4x32-10 and Box-Muller; the same bits for any threads and splits.",
    lib: "cpu",
    args: ["ctx: ptr", "y: ptr", "n: i64", "seed: u64", "offset: u64", "mean: f32", "std: f32"],
  },
  nc_uniform: {
    doc: "y[i] = low + (high - low) * u of counter offset + i, u in [0, 1), f32 (n): Philox4x32-10.",
    lib: "cpu",
    args: ["ctx: ptr", "y: ptr", "n: i64", "seed: u64", "offset: u64", "low: f32", "high: f32"],
  },
} as const satisfies Record<string, AbiRow>;

const optimizer = {
  nc_adamw: {
    doc:
      "One AdamW step on p, m, v f32 (n): g *= scale[0]; p *= 1 - lr*wd; m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g^2; p -= (lr/bc1) * m / (sqrt(v)/sqrt(bc2) + eps), bc = 1 - b^t. hyper f32: ADAMW_HYPER. copy (or null) = p in dtypeCopy. A scale that is not finite changes nothing; a null one is 1.",
    args: [
      "ctx: ptr",
      "p: ptr",
      "m: ptr",
      "v: ptr",
      "copy: ptr",
      "g: ptr",
      "hyper: ptr",
      "scale: ptr",
      "n: i64",
      "dtypeCopy: i32",
    ],
  },
  nc_muon_momentum: {
    doc:
      "m += (1-mu) * (g*s - m); u = g*s + mu * (m - g*s); m, g f32 (n), u in dtypeU, s = scale[0] or 1. hyper f32: MUON_HYPER. A scale that is not finite leaves m and makes u 0.",
    args: ["ctx: ptr", "u: ptr", "m: ptr", "g: ptr", "hyper: ptr", "scale: ptr", "n: i64", "dtypeU: i32"],
  },
  nc_muon_update: {
    doc:
      "p = p * (1 - lr*wd) - lr * factor * o, p f32 (n); copy (or null) = p in dtypeCopy. hyper f32: MUON_HYPER. A scale that is not finite changes nothing.",
    args: [
      "ctx: ptr",
      "p: ptr",
      "copy: ptr",
      "o: ptr",
      "hyper: ptr",
      "scale: ptr",
      "n: i64",
      "factor: f32",
      "dtypeO: i32",
      "dtypeCopy: i32",
    ],
  },
  nc_sum_squares: {
    doc: "y f64[1] (+)= sum of x^2, x f32 (n), summed in f64 in a fixed order.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "n: i64", "accumulate: i32"],
  },
  nc_clip_scale: {
    doc:
      "y f32[2] = {scale, norm}: norm = sqrt(sum f64[1]), scale = min(1, maxNorm / (norm + 1e-6)), 1 where maxNorm f32[1] <= 0, NaN where the norm is not finite.",
    args: ["ctx: ptr", "y: ptr", "sum: ptr", "maxNorm: ptr"],
  },
  nc_first_non_finite: {
    doc: "y i64[1] = index of the first NaN or infinity of x (n), -1 if none.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "n: i64", "dtype: i32"],
  },
} as const satisfies Record<string, AbiRow>;

const comm = {
  nc_comm_create: {
    doc:
      "Joins `world` ranks as `rank` by a communicator of `kind` (COMM) named by id (idBytes bytes made by rank 0; unused for self); handle to out[0] (u64).",
    args: ["ctx: ptr", "out: buf", "id: buf", "idBytes: i32", "rank: i32", "world: i32", "kind: i32"],
  },
  nc_comm_free: { doc: "Leaves a communicator.", args: ["ctx: ptr", "comm: ptr"] },
  nc_all_reduce: {
    doc: "y (n) = sum (average 1: mean) over the ranks of x (n); y may be x.",
    args: ["ctx: ptr", "comm: ptr", "y: ptr", "x: ptr", "n: i64", "average: i32", "dtype: i32"],
  },
  nc_reduce_scatter: {
    doc: "y (n) = this rank's piece of the sum (average 1: mean) over the ranks of x (world, n).",
    args: ["ctx: ptr", "comm: ptr", "y: ptr", "x: ptr", "n: i64", "average: i32", "dtype: i32"],
  },
  nc_all_gather: {
    doc: "y (world, n) = x (n) of every rank; x may be this rank's piece of y.",
    args: ["ctx: ptr", "comm: ptr", "y: ptr", "x: ptr", "n: i64", "dtype: i32"],
  },
  nc_broadcast: {
    doc: "y (n) = y of rank `root` on every rank.",
    args: ["ctx: ptr", "comm: ptr", "y: ptr", "n: i64", "root: i32", "dtype: i32"],
  },
  nc_barrier: { doc: "Enqueues a point that no rank passes before all have come.", args: ["ctx: ptr", "comm: ptr"] },
} as const satisfies Record<string, AbiRow>;

const file = {
  nc_file_map: {
    doc:
      "Maps a file read-only and writes its address and size in bytes to out[0..1] (u64). Ops may read the mapping like device memory and must not write it.",
    lib: "cpu",
    args: ["ctx: ptr", "out: buf", "path: buf", "pathBytes: i32"],
  },
  nc_file_unmap: {
    doc: "Ends a mapping behind the work queued before it.",
    lib: "cpu",
    args: ["ctx: ptr", "address: ptr"],
  },
  nc_sha256: {
    doc:
      "Writes the SHA-256 (32 bytes) of every block of blockBytes bytes of memory (the last one shorter), after waiting for the queue.",
    lib: "cpu",
    nonblocking: true,
    args: ["ctx: ptr", "hashes: buf", "memory: ptr", "bytes: i64", "blockBytes: i64"],
  },
  nc_file_write: {
    doc:
      "Waits for the queue, writes head and then the segments (u64 pairs address, bytes of device memory) to path: through a temporary file, synchronized and renamed, so that path is either whole or untouched. Writes the SHA-256 of every block of blockBytes of the file; nc_progress counts bytes. The buffers and the memory must stay as they are until the call ends.",
    lib: "cpu",
    nonblocking: true,
    args: [
      "ctx: ptr",
      "hashes: buf",
      "path: buf",
      "pathBytes: i32",
      "head: buf",
      "headBytes: i64",
      "segments: buf",
      "nSegments: i32",
      "blockBytes: i64",
    ],
  },
  nc_disk_free: {
    doc: "Writes the bytes that this user may still write to the disk of an existing file or folder, to out[0] (i64).",
    lib: "cpu",
    args: ["ctx: ptr", "out: buf", "path: buf", "pathBytes: i32"],
  },
  nc_limit_process: {
    doc:
      "Limits another process of this user with prlimit(2): dataBytes of private writable memory (RLIMIT_DATA) and cpuSeconds of processor time (RLIMIT_CPU), then SIGKILL. Limits are only lowered. UNSUPPORTED where the system has no such call. ctx may be null.",
    lib: "cpu",
    args: ["ctx: ptr", "pid: i32", "dataBytes: i64", "cpuSeconds: i32"],
  },
} as const satisfies Record<string, AbiRow>;

const loss = {
  nc_lm_head_loss: {
    doc:
      "Soft-capped cross-entropy of l = softcap * tanh((x w^T)[:, :V] / softcap), x (rows,C), w (Vp,C): losses f32 (rows) or null = -log p(target), 0 where target (i32) is -1. dx (rows,C) or null is overwritten and dw f32 (Vp,C) or null (+)= with the gradient of sum weights[t] * losses[t] (weights f32 (rows), null without dx and dw); rows V.. of dw are 0. w is of dtypeX or, without dx and dw, what nc_pack made in i8. scratch: chunk * Vp * (4 + size of dtypeX) + 65536 bytes.",
    args: [
      "ctx: ptr",
      "losses: ptr",
      "dx: ptr",
      "dw: ptr",
      "x: ptr",
      "w: ptr",
      "targets: ptr",
      "weights: ptr",
      "scratch: ptr",
      "rows: i32",
      "C: i32",
      "V: i32",
      "Vp: i32",
      "chunk: i32",
      "softcap: f32",
      "accumulate: i32",
      "dtypeX: i32",
      "dtypeW: i32",
    ],
  },
  nc_lm_head_score: {
    doc:
      "Without gradients, each output or null: losses as nc_lm_head_loss (needs targets), argmax i32 (rows), the topK best ids i32 (rows,topK) and their log-probabilities f32 (rows,topK); the lower id wins among equals. The same bits whatever the other rows. w and scratch as nc_lm_head_loss.",
    args: [
      "ctx: ptr",
      "losses: ptr",
      "argmax: ptr",
      "topIds: ptr",
      "topLogprobs: ptr",
      "x: ptr",
      "w: ptr",
      "targets: ptr",
      "scratch: ptr",
      "rows: i32",
      "C: i32",
      "V: i32",
      "Vp: i32",
      "chunk: i32",
      "topK: i32",
      "softcap: f32",
      "dtypeX: i32",
      "dtypeW: i32",
    ],
  },
} as const satisfies Record<string, AbiRow>;

const parquet = {
  nc_parquet_open: {
    lib: "cpu",
    doc:
      "Opens a Parquet file (path in UTF-8) and reads its footer; handle to out[0] (u64), capacity that nc_parquet_describe needs to out[1].",
    args: ["ctx: ptr", "out: buf", "path: buf", "pathBytes: i64"],
  },
  nc_parquet_describe: {
    lib: "cpu",
    doc:
      "Writes JSON {createdBy, sizeBytes, rowGroups: [{rows, bytes}], fields: [{name, type, nullable, children}]} (zero-terminated, cut to capacity).",
    args: ["ctx: ptr", "text: buf", "file: ptr", "capacity: i32"],
  },
  nc_parquet_free: { lib: "cpu", doc: "Closes a Parquet file.", args: ["ctx: ptr", "file: ptr"] },
  nc_parquet_read: {
    lib: "cpu",
    nonblocking: true,
    doc:
      "Decodes a field (or all, field -1) of a row group; to out (u64): handle of the chunk, its nodes, its bytes. raw 1: text is not checked to be UTF-8.",
    args: ["ctx: ptr", "out: buf", "file: ptr", "rowGroup: i32", "field: i32", "raw: i32"],
  },
  nc_parquet_layout: {
    lib: "cpu",
    doc:
      "Writes 8 numbers (i64) for each node of a chunk, depth first: length, nulls, then start and bytes of validity, offsets (i32) and values; starts are multiples of 64.",
    args: ["ctx: ptr", "numbers: buf", "chunk: ptr"],
  },
  nc_parquet_fill: {
    lib: "cpu",
    doc: "Copies a chunk's buffers into data at the starts of nc_parquet_layout and frees the chunk.",
    args: ["ctx: ptr", "data: buf", "chunk: ptr", "bytes: i64"],
  },
  nc_parquet_encode_text: {
    lib: "cpu",
    nonblocking: true,
    doc:
      "Encodes the texts of a row group on `threads` threads (0 = physical cores), with the id `prepend` (-1 = none) before each. Writes handle (for nc_bpe_encoded_read), ids and documents to out (u64).",
    args: [
      "ctx: ptr",
      "out: buf",
      "file: ptr",
      "tokenizer: ptr",
      "rowGroup: i32",
      "field: i32",
      "prepend: i32",
      "threads: i32",
    ],
  },
  nc_shard_create: {
    lib: "cpu",
    doc: "Starts a Parquet file with one text column at `<path>.tmp`, zstd of the given level; handle to out[0] (u64).",
    args: ["ctx: ptr", "out: buf", "path: buf", "pathBytes: i64", "level: i32"],
  },
  nc_shard_write: {
    lib: "cpu",
    nonblocking: true,
    doc: "Appends a row group: document i is text[ends[i - 1]..ends[i]], ends in i64.",
    args: ["ctx: ptr", "shard: ptr", "text: buf", "ends: buf", "documents: i64"],
  },
  nc_shard_finish: {
    lib: "cpu",
    nonblocking: true,
    doc: "Writes the footer, syncs, renames to the path, syncs the folder.",
    args: ["ctx: ptr", "shard: ptr"],
  },
  nc_shard_free: {
    lib: "cpu",
    doc: "Frees a writer; an unfinished file is removed.",
    args: ["ctx: ptr", "shard: ptr"],
  },
} as const satisfies Record<string, AbiRow>;

const products = {
  nc_linear_fwd: {
    doc:
      "h = x W^T, x (M,K), w (N,K). epilogue NONE: y = h + residual (residual of dtypeY or null, may be y itself); RELU2: aux = h (dtypeY, or null), y = max(h, 0)^2. x and w have one dtype, or w is i8 (PACKED): x is quantised row by row as w was (nc_pack), the sum of integers multiplied by the scale of x's row, then of w's. layoutW PACKED: w is what nc_pack made for FORWARD. scaleX, scaleW: f32[1] factors of fp8 operands, else null. PACKED is batch-invariant: a row of y has the same bits for every M; on the CPU ROWS has these bits too, on CUDA it is for training and takes any order.",
    args: [
      "ctx: ptr",
      "y: ptr",
      "aux: ptr",
      "x: ptr",
      "w: ptr",
      "residual: ptr",
      "scaleX: ptr",
      "scaleW: ptr",
      "M: i32",
      "N: i32",
      "K: i32",
      "epilogue: i32",
      "layoutW: i32",
      "dtypeY: i32",
      "dtypeX: i32",
      "dtypeW: i32",
    ],
  },
  nc_linear_bwd_x: {
    doc:
      "dx (+)= dy W, dy (M,N), w (N,K), dx (M,K). epilogue RELU2: the product is first multiplied by 2 max(aux, 0), aux (M,K) of dtypeDx, the h of the layer below. layoutW PACKED: w is what nc_pack made for BACKWARD. Scales as in nc_linear_fwd.",
    args: [
      "ctx: ptr",
      "dx: ptr",
      "dy: ptr",
      "w: ptr",
      "aux: ptr",
      "scaleDy: ptr",
      "scaleW: ptr",
      "M: i32",
      "N: i32",
      "K: i32",
      "epilogue: i32",
      "accumulate: i32",
      "layoutW: i32",
      "dtypeDx: i32",
      "dtypeDy: i32",
      "dtypeW: i32",
    ],
  },
  nc_linear_bwd_w: {
    doc:
      "dw (+)= dy^T x, dy (M,N), x (M,K), dw f32 (N,K). prologue RELU2: x holds h and max(h, 0)^2 takes its place. Scales as in nc_linear_fwd.",
    args: [
      "ctx: ptr",
      "dw: ptr",
      "dy: ptr",
      "x: ptr",
      "scaleDy: ptr",
      "scaleX: ptr",
      "M: i32",
      "N: i32",
      "K: i32",
      "prologue: i32",
      "accumulate: i32",
      "dtypeDy: i32",
      "dtypeX: i32",
    ],
  },
  nc_pack_bytes: {
    doc:
      "Writes the size in bytes of the packed form of a weight (N,K) to bytes[0] (i64); 0 = this library has no packed form.",
    args: ["ctx: ptr", "bytes: buf", "N: i32", "K: i32", "direction: i32", "dtype: i32"],
  },
  nc_pack: {
    doc:
      "Packs a weight w (N,K), f32 or bf16 rows, for products with operands of dtypePacked: FORWARD for nc_linear_fwd, BACKWARD for nc_linear_bwd_x. i8 (FORWARD): each row becomes round(w * (127 / max |w|)), ties to even, and its scale max |w| / 127, which the packed form holds too.",
    args: [
      "ctx: ptr",
      "packed: ptr",
      "w: ptr",
      "N: i32",
      "K: i32",
      "direction: i32",
      "dtypePacked: i32",
      "dtypeW: i32",
    ],
  },
  nc_newton_schulz: {
    doc:
      "o = orthogonalised x by `steps` Newton-Schulz iterations (quintic, as in Muon), each of `batch` matrices (rows, cols) by itself; x, o of dtype f32 or bf16, o may be x. bf16: every operation rounds to bf16, products sum in fp32; where n >= 4 m only x and o are bf16, and the steps run on x x^T in fp32. scratch: batch * (m*n + 2*m*m) * 4 + 4096 bytes with m = min and n = max of rows and cols. A zero matrix stays zero.",
    args: [
      "ctx: ptr",
      "o: ptr",
      "x: ptr",
      "scratch: ptr",
      "batch: i32",
      "rows: i32",
      "cols: i32",
      "steps: i32",
      "dtype: i32",
    ],
  },
} as const satisfies Record<string, AbiRow>;

const ops = {
  nc_cast: {
    doc: "y = x: f32 or bf16 to either, i32 or u16 to i32.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "n: i64", "dtypeY: i32", "dtypeX: i32"],
  },
  nc_add: {
    doc: "y = a + b; y may alias a.",
    args: ["ctx: ptr", "y: ptr", "a: ptr", "b: ptr", "n: i64", "dtype: i32"],
  },
  nc_relu2_fwd: {
    doc: "y = max(h, 0)^2.",
    args: ["ctx: ptr", "y: ptr", "h: ptr", "n: i64", "dtype: i32"],
  },
  nc_relu2_bwd: {
    doc: "dh (+)= 2 max(h, 0) dy.",
    args: ["ctx: ptr", "dh: ptr", "dy: ptr", "h: ptr", "n: i64", "accumulate: i32", "dtype: i32"],
  },
  nc_embedding_fwd: {
    doc: "y (rows, C) = w[ids], w (V, C), ids i32; an id outside [0, V) fails the queue.",
    args: [
      "ctx: ptr",
      "y: ptr",
      "w: ptr",
      "ids: ptr",
      "rows: i32",
      "C: i32",
      "V: i32",
      "dtypeY: i32",
      "dtypeW: i32",
    ],
  },
  nc_embedding_bwd: {
    doc: "dw f32 (V, C): dw[ids[r]] (+)= dy[r], in the order of r; dy of dtype.",
    args: [
      "ctx: ptr",
      "dw: ptr",
      "dy: ptr",
      "ids: ptr",
      "rows: i32",
      "C: i32",
      "V: i32",
      "accumulate: i32",
      "dtype: i32",
    ],
  },
  nc_gather_rows: {
    doc: "y[i] = x[index[i]], rows of C elements, index i32 (n) below nX.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "index: ptr", "n: i32", "C: i32", "nX: i32", "dtype: i32"],
  },
  nc_rmsnorm_fwd: {
    doc: "rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd, mean over C; rstd f32 (rows) or null.",
    args: ["ctx: ptr", "y: ptr", "rstd: ptr", "x: ptr", "rows: i32", "C: i32", "eps: f32", "dtype: i32"],
  },
  nc_rmsnorm_bwd: {
    doc: "dx (+)= rstd (dy - xhat mean(dy xhat)), xhat = x rstd; dx may alias dy.",
    args: [
      "ctx: ptr",
      "dx: ptr",
      "dy: ptr",
      "x: ptr",
      "rstd: ptr",
      "rows: i32",
      "C: i32",
      "accumulate: i32",
      "dtype: i32",
    ],
  },
  nc_qk_rope_norm_fwd: {
    doc:
      "x, y (B, T, H, D); r1 = x1 cos + x2 sin, r2 = x2 cos - x1 sin (halves of D), rstd = 1 / sqrt(mean(r^2) + eps) per head, y = scale r rstd; y may alias x. Token t of row b sits at position (positions[b] or 0 if null) + t of the f32 tables (tableLength, D / 2); beyond the table (padding) its last row counts. rstd f32 (B, T, H) or null.",
    args: [
      "ctx: ptr",
      "y: ptr",
      "rstd: ptr",
      "x: ptr",
      "cos: ptr",
      "sin: ptr",
      "positions: ptr",
      "B: i32",
      "T: i32",
      "H: i32",
      "D: i32",
      "tableLength: i32",
      "eps: f32",
      "scale: f32",
      "dtype: i32",
    ],
  },
  nc_qk_rope_norm_bwd: {
    doc:
      "From the output y: xhat = y / scale, dr = scale rstd (dy - xhat mean(dy xhat)), dx1 (+)= dr1 cos - dr2 sin, dx2 (+)= dr1 sin + dr2 cos; dx may alias dy.",
    args: [
      "ctx: ptr",
      "dx: ptr",
      "dy: ptr",
      "y: ptr",
      "rstd: ptr",
      "cos: ptr",
      "sin: ptr",
      "positions: ptr",
      "B: i32",
      "T: i32",
      "H: i32",
      "D: i32",
      "tableLength: i32",
      "scale: f32",
      "accumulate: i32",
      "dtype: i32",
    ],
  },
  nc_attention_fwd: {
    doc:
      "Causal attention: o, q (B, T, H, D); k, v (B, T, G, D); head h on key head floor(h G / H); window w >= 0: query i sees keys i - w to i, -1 = all before it; lse f32 (B, H, T) or null = log of the sum of e^(scale q.k). lengths i32 (B) or null: tokens from lengths[b] on are padding, with o and lse 0, and take no part.",
    args: [
      "ctx: ptr",
      "o: ptr",
      "lse: ptr",
      "q: ptr",
      "k: ptr",
      "v: ptr",
      "lengths: ptr",
      "B: i32",
      "T: i32",
      "H: i32",
      "G: i32",
      "D: i32",
      "window: i32",
      "scale: f32",
      "dtype: i32",
    ],
  },
  nc_attention_bwd: {
    doc:
      "Overwrites dq, dk, dv (0 for padding) and delta f32 (B, H, T) = rowsum(dO o), from o and lse of nc_attention_fwd.",
    args: [
      "ctx: ptr",
      "dq: ptr",
      "dk: ptr",
      "dv: ptr",
      "delta: ptr",
      "dO: ptr",
      "q: ptr",
      "k: ptr",
      "v: ptr",
      "o: ptr",
      "lse: ptr",
      "lengths: ptr",
      "B: i32",
      "T: i32",
      "H: i32",
      "G: i32",
      "D: i32",
      "window: i32",
      "scale: f32",
      "dtype: i32",
    ],
  },
  nc_attention_cached_fwd: {
    doc:
      "Attention to a cache (B, G, capacity, D) that already holds this chunk: o, q (B, T, H, D); query t < counts[b] of row b sees keys up to positions[b] + t (window as in nc_attention_fwd), other rows of o are 0. positions, counts i32 (B). The bits of a query depend on its position alone. scratch: B * T * H * ceil(capacity / 64) * (D + 2) * 4 bytes, in which CUDA splits the keys of a few queries over the device, or null; the bits are the same.",
    args: [
      "ctx: ptr",
      "o: ptr",
      "q: ptr",
      "kCache: ptr",
      "vCache: ptr",
      "positions: ptr",
      "counts: ptr",
      "scratch: ptr",
      "B: i32",
      "T: i32",
      "H: i32",
      "G: i32",
      "D: i32",
      "capacity: i32",
      "window: i32",
      "scale: f32",
      "dtype: i32",
    ],
  },
  nc_kv_append: {
    doc:
      "Writes tokens t < counts[b] of k, v (B, T, G, D) into the caches (B, G, capacity, D) at positions[b] + t; beyond the capacity fails the queue.",
    args: [
      "ctx: ptr",
      "kCache: ptr",
      "vCache: ptr",
      "k: ptr",
      "v: ptr",
      "positions: ptr",
      "counts: ptr",
      "B: i32",
      "T: i32",
      "G: i32",
      "D: i32",
      "capacity: i32",
      "dtype: i32",
    ],
  },
  nc_softcap_fwd: {
    doc: "y f32 (rows, V) = cap tanh(x / cap) of the first V columns of x, rows xStride elements apart.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "rows: i32", "V: i32", "xStride: i32", "cap: f32", "dtypeX: i32"],
  },
  nc_weighted_sum: {
    doc: "y f32[1] (+)= sum of w x over n, f32 with f64 sums in a fixed order; w null = ones.",
    args: ["ctx: ptr", "y: ptr", "x: ptr", "w: ptr", "n: i64", "accumulate: i32"],
  },
  nc_sample: {
    doc:
      "Draws ids i32 (rows) from logits f32 (rows, V). seeds u64, samples, draws, topK i32, temperatures, topP f32, one each a row. temperature 0: the largest logit, lowest id among equals. Else softmax(logits / temperature) over exactly topK (0 = all) largest, lowest ids among equals, of these the smallest set with mass >= topP (1 = all), drawn in the order of ids with the uniform number of Philox4x32-10 (key = seed, counter = (draw, sample, 0, 0)). logprobs f32 (rows) or null: log-softmax of the id over all V at temperature 1. biasStarts i32 (rows + 1) or null: row r is drawn from its logits with biasValues f32 added at the biasIds i32 (biases each) from biasStarts[r] to biasStarts[r + 1]; logprobs ignore them. NaN or +inf fails the queue.",
    args: [
      "ctx: ptr",
      "ids: ptr",
      "logprobs: ptr",
      "logits: ptr",
      "seeds: ptr",
      "samples: ptr",
      "draws: ptr",
      "temperatures: ptr",
      "topK: ptr",
      "topP: ptr",
      "biasStarts: ptr",
      "biasIds: ptr",
      "biasValues: ptr",
      "rows: i32",
      "V: i32",
      "biases: i32",
    ],
  },
  nc_top_logprobs: {
    doc:
      "The most probable tokens of logits f32 (rows, V): ids i32 (rows, topK), best first, the lower id first among equals, and logprobs f32 (rows, topK), log-softmax over all V as in nc_sample. Of row r the first counts[r] are written, counts i32 (rows).",
    args: [
      "ctx: ptr",
      "ids: ptr",
      "logprobs: ptr",
      "logits: ptr",
      "counts: ptr",
      "rows: i32",
      "V: i32",
      "topK: i32",
    ],
  },
} as const satisfies Record<string, AbiRow>;

/** The tokenizer. Texts come as Arrow columns: UTF-8 bytes and n + 1 offsets (i32). */
const bpe = {
  nc_bpe_trainer_create: {
    lib: "cpu",
    doc:
      "Creates a trainer; handle to out[0]. Documents are cut to docCap code points; the one that makes the sum of code points exceed maxChars is the last.",
    args: ["ctx: ptr", "out: buf", "pattern: buf", "patternBytes: i64", "docCap: i64", "maxChars: i64"],
  },
  nc_bpe_trainer_feed: {
    lib: "cpu",
    nonblocking: true,
    doc:
      "Splits and counts documents. state (i64): code points and documents taken so far, different pieces (an upper bound), 1 when maxChars is exceeded.",
    args: [
      "ctx: ptr",
      "state: buf",
      "trainer: ptr",
      "text: buf",
      "offsets: buf",
      "textBytes: i64",
      "documents: i64",
      "threads: i32",
    ],
  },
  nc_bpe_trainer_train: {
    lib: "cpu",
    nonblocking: true,
    doc: "Makes up to `limit` merges (progress: nc_progress) and writes their number to mergeCount[0] (i64).",
    args: ["ctx: ptr", "mergeCount: buf", "trainer: ptr", "limit: i32"],
  },
  nc_bpe_trainer_merges: {
    lib: "cpu",
    doc: "Copies the merges: two ids (u32) each; merge m makes id 256 + m.",
    args: ["ctx: ptr", "merges: buf", "trainer: ptr", "count: i64"],
  },
  nc_bpe_trainer_free: { lib: "cpu", doc: "Frees a trainer.", args: ["ctx: ptr", "trainer: ptr"] },
  nc_bpe_create: {
    lib: "cpu",
    nonblocking: true,
    doc:
      "Builds a tokenizer; handle to out[0]. Token i has tokens[offsets[i] .. offsets[i + 1]]; the first `mergeable` ids are joined from text, the others (special names, gaps) only decoded.",
    args: [
      "ctx: ptr",
      "out: buf",
      "pattern: buf",
      "tokens: buf",
      "offsets: buf",
      "patternBytes: i64",
      "tokensBytes: i64",
      "vocab: i32",
      "mergeable: i32",
    ],
  },
  nc_bpe_free: { lib: "cpu", doc: "Frees a tokenizer.", args: ["ctx: ptr", "tokenizer: ptr"] },
  nc_bpe_merges: {
    lib: "cpu",
    doc: "Writes, for every mergeable id, the two ids (i32) that it is joined from, -1 -1 where no merge makes it.",
    args: ["ctx: ptr", "merges: buf", "tokenizer: ptr"],
  },
  nc_bpe_encode_text: {
    lib: "cpu",
    doc:
      "Encodes one short text at once. ids (u32) has a place for every byte of the text; their number to count[0] (i32).",
    args: ["ctx: ptr", "ids: buf", "count: buf", "tokenizer: ptr", "text: buf", "textBytes: i64"],
  },
  nc_bpe_encode: {
    lib: "cpu",
    nonblocking: true,
    doc:
      "Encodes documents on `threads` threads (0 = physical cores), with the id `prepend` before and `append` behind each (-1 = none). Writes the result's handle to out[0] and its number of ids to out[1].",
    args: [
      "ctx: ptr",
      "out: buf",
      "tokenizer: ptr",
      "text: buf",
      "offsets: buf",
      "textBytes: i64",
      "documents: i64",
      "prepend: i32",
      "append: i32",
      "threads: i32",
    ],
  },
  nc_bpe_encoded_read: {
    lib: "cpu",
    doc:
      "Copies the ids (u32) and, per document, the number of ids up to its end (i64), and frees the result, also where it fails.",
    args: ["ctx: ptr", "ids: buf", "ends: buf", "encoded: ptr", "total: i64", "documents: i64"],
  },
  nc_bpe_decode: {
    lib: "cpu",
    doc: "Joins the bytes of ids (u32) into text, which has exactly their size.",
    args: ["ctx: ptr", "text: buf", "tokenizer: ptr", "ids: buf", "textBytes: i64", "count: i64"],
  },
} as const satisfies Record<string, AbiRow>;

/** The table: every function of the C interface. */
export const abi = {
  ...runtime,
  ...ops,
  ...products,
  ...parquet,
  ...random,
  ...loss,
  ...optimizer,
  ...comm,
  ...file,
  ...bpe,
} as const satisfies Record<string, AbiRow>;

/** Names of the C functions. */
export type AbiName = keyof typeof abi;
