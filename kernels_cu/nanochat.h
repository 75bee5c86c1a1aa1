/* Generated from src/native/abi.ts by dev/gen_abi.ts; do not edit. */
#pragma once
#include <stdint.h>

#define NC_ABI_VERSION 1
#define NC_ABI_HASH "2e576f6503885da5f0496cc691be427c"
#define NC_DTYPE_F32 0
#define NC_DTYPE_BF16 1
#define NC_DTYPE_F16 2
#define NC_DTYPE_I32 3
#define NC_DTYPE_U16 4
#define NC_DTYPE_I8 5
#define NC_DTYPE_E4M3 6
#define NC_DTYPE_E5M2 7
#define NC_STATUS_OK 0
#define NC_STATUS_INVALID 1
#define NC_STATUS_OUT_OF_MEMORY 2
#define NC_STATUS_IO 3
#define NC_STATUS_DATA 4
#define NC_STATUS_UNSUPPORTED 5
#define NC_STATUS_DEVICE 6
#define NC_STATUS_PANIC 7
#define NC_STATUS_NOT_READY 8
#define NC_STATUS_NON_FINITE 9
#define NC_LAYOUT_ROWS 0
#define NC_LAYOUT_PACKED 1
#define NC_PACK_FORWARD 0
#define NC_PACK_BACKWARD 1
#define NC_EPILOGUE_NONE 0
#define NC_EPILOGUE_RELU2 1
#define NC_ADAMW_LR 0
#define NC_ADAMW_BETA1 1
#define NC_ADAMW_BETA2 2
#define NC_ADAMW_EPS 3
#define NC_ADAMW_WEIGHT_DECAY 4
#define NC_ADAMW_BIAS_CORRECTION1 5
#define NC_ADAMW_BIAS_CORRECTION2 6
#define NC_MUON_LR 0
#define NC_MUON_MOMENTUM 1
#define NC_MUON_WEIGHT_DECAY 2
#define NC_COMM_SELF 0
#define NC_COMM_MPI 1
#define NC_COMM_NCCL 2

#ifdef __cplusplus
extern "C" {
#endif
#define NC_API __attribute__((visibility("default")))
typedef struct nc_context nc_context;

/* Writes the 32 hex digits of the ABI hash. */
NC_API int32_t nc_abi_hash(void* hash);

/* Opens device number `device` with a queue of its own and writes the handle to context[0] (u64). threads: size of the CPU thread pool, 0 = physical cores that the process may use. */
NC_API int32_t nc_context_create(void* context, int32_t device, int32_t threads);

/* Finishes the queue, frees all memory of the context and the context. */
NC_API int32_t nc_context_free(nc_context* ctx);

/* Copies the context's last error message (UTF-8, zero-terminated, cut to capacity) into text; ctx may be null after nc_context_create failed. */
NC_API int32_t nc_error(nc_context* ctx, void* text, int32_t capacity);

/* Writes a JSON object about the device (name, isa, threads, features; zero-terminated, cut to capacity). */
NC_API int32_t nc_device_info(nc_context* ctx, void* text, int32_t capacity);

/* Writes i64 values: bytes allocated now, peak of it, total memory of the device, memory free on the device. */
NC_API int32_t nc_memory_info(nc_context* ctx, void* info);

/* Allocates zeroed device memory, 64-byte aligned; address to out[0] (u64). */
NC_API int32_t nc_alloc(nc_context* ctx, void* out, int64_t bytes);

/* Frees memory of nc_alloc or nc_host_alloc after the work queued before it. */
NC_API int32_t nc_free(nc_context* ctx, void* memory);

/* Allocates pinned host memory; address to out[0] (u64). */
NC_API int32_t nc_host_alloc(nc_context* ctx, void* out, int64_t bytes);

/* Copies a JavaScript buffer into pinned host memory at once. */
NC_API int32_t nc_host_write(nc_context* ctx, void* host, void* data, int64_t bytes);

/* Copies pinned host memory into a JavaScript buffer at once. */
NC_API int32_t nc_host_read(nc_context* ctx, void* data, void* host, int64_t bytes);

/* Takes a copy of a JavaScript buffer and enqueues its transfer to device memory. */
NC_API int32_t nc_upload(nc_context* ctx, void* y, void* data, int64_t bytes);

/* Enqueues a copy between device, pinned and mapped memory (any direction). */
NC_API int32_t nc_copy(nc_context* ctx, void* y, void* x, int64_t bytes);

/* Enqueues a copy of `rows` pieces of `rowBytes`, each `yStride` / `xStride` bytes after the one before. */
NC_API int32_t nc_copy_2d(nc_context* ctx, void* y, void* x, int64_t rows, int64_t rowBytes, int64_t yStride, int64_t xStride);

/* Enqueues y[i] = value for n elements. */
NC_API int32_t nc_fill(nc_context* ctx, void* y, int64_t n, double value, int32_t dtype);

/* Waits until everything enqueued so far is done; reports the first failure of the queue. */
NC_API int32_t nc_wait(nc_context* ctx);

/* Creates a further in-order queue (on the CPU: an alias of the one queue); handle to out[0]. */
NC_API int32_t nc_stream_create(nc_context* ctx, void* out);

/* Frees a stream after its work. */
NC_API int32_t nc_stream_free(nc_context* ctx, void* stream);

/* Later calls of this context enqueue on `stream` (null = the main queue). */
NC_API int32_t nc_stream_use(nc_context* ctx, void* stream);

/* Creates an event; handle to out[0]. */
NC_API int32_t nc_event_create(nc_context* ctx, void* out);

/* Frees an event. */
NC_API int32_t nc_event_free(nc_context* ctx, void* event);

/* Enqueues the event on the stream in use. */
NC_API int32_t nc_event_record(nc_context* ctx, void* event);

/* OK when the last record of the event has happened, else NOT_READY. */
NC_API int32_t nc_event_query(nc_context* ctx, void* event);

/* Waits for the last record of the event; reports the first failure of the queue. */
NC_API int32_t nc_event_wait(nc_context* ctx, void* event);

/* Milliseconds between two events that have happened, to ms[0] (f64). */
NC_API int32_t nc_event_elapsed(nc_context* ctx, void* ms, void* from, void* to);

/* The stream in use waits for the event before it goes on. */
NC_API int32_t nc_stream_wait_event(nc_context* ctx, void* event);

/* Starts recording: calls are checked and kept instead of executed. */
NC_API int32_t nc_graph_begin(nc_context* ctx);

/* Ends recording; the graph's handle to out[0]. */
NC_API int32_t nc_graph_end(nc_context* ctx, void* out);

/* Enqueues everything recorded, in order, with the same addresses. */
NC_API int32_t nc_graph_launch(nc_context* ctx, void* graph);

/* Frees a graph after its launches. */
NC_API int32_t nc_graph_free(nc_context* ctx, void* graph);

/* Reads the progress of the context's running long call: i64 done, i64 total (0 = unknown). May be called while a nonblocking call runs. */
NC_API int32_t nc_progress(nc_context* ctx, void* progress);

/* mode 1: clear and start timing every op; 0: stop. Writes the figures so far as JSON [{op, calls, ms}] (zero-terminated, cut to capacity). */
NC_API int32_t nc_profile(nc_context* ctx, void* text, int32_t capacity, int32_t mode);

/* y = x: f32 or bf16 to either, i32 or u16 to i32. */
NC_API int32_t nc_cast(nc_context* ctx, void* y, void* x, int64_t n, int32_t dtypeY, int32_t dtypeX);

/* y = a + b; y may alias a. */
NC_API int32_t nc_add(nc_context* ctx, void* y, void* a, void* b, int64_t n, int32_t dtype);

/* y = max(h, 0)^2. */
NC_API int32_t nc_relu2_fwd(nc_context* ctx, void* y, void* h, int64_t n, int32_t dtype);

/* dh (+)= 2 max(h, 0) dy. */
NC_API int32_t nc_relu2_bwd(nc_context* ctx, void* dh, void* dy, void* h, int64_t n, int32_t accumulate, int32_t dtype);

/* y (rows, C) = w[ids], w (V, C), ids i32; an id outside [0, V) fails the queue. */
NC_API int32_t nc_embedding_fwd(nc_context* ctx, void* y, void* w, void* ids, int32_t rows, int32_t C, int32_t V, int32_t dtypeY, int32_t dtypeW);

/* dw f32 (V, C): dw[ids[r]] (+)= dy[r], in the order of r; dy of dtype. */
NC_API int32_t nc_embedding_bwd(nc_context* ctx, void* dw, void* dy, void* ids, int32_t rows, int32_t C, int32_t V, int32_t accumulate, int32_t dtype);

/* y[i] = x[index[i]], rows of C elements, index i32 (n) below nX. */
NC_API int32_t nc_gather_rows(nc_context* ctx, void* y, void* x, void* index, int32_t n, int32_t C, int32_t nX, int32_t dtype);

/* rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd, mean over C; rstd f32 (rows) or null. */
NC_API int32_t nc_rmsnorm_fwd(nc_context* ctx, void* y, void* rstd, void* x, int32_t rows, int32_t C, float eps, int32_t dtype);

/* dx (+)= rstd (dy - xhat mean(dy xhat)), xhat = x rstd; dx may alias dy. */
NC_API int32_t nc_rmsnorm_bwd(nc_context* ctx, void* dx, void* dy, void* x, void* rstd, int32_t rows, int32_t C, int32_t accumulate, int32_t dtype);

/* x, y (B, T, H, D); r1 = x1 cos + x2 sin, r2 = x2 cos - x1 sin (halves of D), rstd = 1 / sqrt(mean(r^2) + eps) per head, y = scale r rstd; y may alias x. Token t of row b sits at position (positions[b] or 0 if null) + t of the f32 tables (tableLength, D / 2); beyond the table (padding) its last row counts. rstd f32 (B, T, H) or null. */
NC_API int32_t nc_qk_rope_norm_fwd(nc_context* ctx, void* y, void* rstd, void* x, void* cos, void* sin, void* positions, int32_t B, int32_t T, int32_t H, int32_t D, int32_t tableLength, float eps, float scale, int32_t dtype);

/* From the output y: xhat = y / scale, dr = scale rstd (dy - xhat mean(dy xhat)), dx1 (+)= dr1 cos - dr2 sin, dx2 (+)= dr1 sin + dr2 cos; dx may alias dy. */
NC_API int32_t nc_qk_rope_norm_bwd(nc_context* ctx, void* dx, void* dy, void* y, void* rstd, void* cos, void* sin, void* positions, int32_t B, int32_t T, int32_t H, int32_t D, int32_t tableLength, float scale, int32_t accumulate, int32_t dtype);

/* Causal attention: o, q (B, T, H, D); k, v (B, T, G, D); head h on key head floor(h G / H); window w >= 0: query i sees keys i - w to i, -1 = all before it; lse f32 (B, H, T) or null = log of the sum of e^(scale q.k). lengths i32 (B) or null: tokens from lengths[b] on are padding, with o and lse 0, and take no part. */
NC_API int32_t nc_attention_fwd(nc_context* ctx, void* o, void* lse, void* q, void* k, void* v, void* lengths, int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t window, float scale, int32_t dtype);

/* Overwrites dq, dk, dv (0 for padding) and delta f32 (B, H, T) = rowsum(dO o), from o and lse of nc_attention_fwd. */
NC_API int32_t nc_attention_bwd(nc_context* ctx, void* dq, void* dk, void* dv, void* delta, void* dO, void* q, void* k, void* v, void* o, void* lse, void* lengths, int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t window, float scale, int32_t dtype);

/* Attention to a cache (B, G, capacity, D) that already holds this chunk: o, q (B, T, H, D); query t < counts[b] of row b sees keys up to positions[b] + t (window as in nc_attention_fwd), other rows of o are 0. positions, counts i32 (B). The bits of a query depend on its position alone. scratch: B * T * H * ceil(capacity / 64) * (D + 2) * 4 bytes, in which CUDA splits the keys of a few queries over the device, or null; the bits are the same. */
NC_API int32_t nc_attention_cached_fwd(nc_context* ctx, void* o, void* q, void* kCache, void* vCache, void* positions, void* counts, void* scratch, int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t capacity, int32_t window, float scale, int32_t dtype);

/* Writes tokens t < counts[b] of k, v (B, T, G, D) into the caches (B, G, capacity, D) at positions[b] + t; beyond the capacity fails the queue. */
NC_API int32_t nc_kv_append(nc_context* ctx, void* kCache, void* vCache, void* k, void* v, void* positions, void* counts, int32_t B, int32_t T, int32_t G, int32_t D, int32_t capacity, int32_t dtype);

/* y f32 (rows, V) = cap tanh(x / cap) of the first V columns of x, rows xStride elements apart. */
NC_API int32_t nc_softcap_fwd(nc_context* ctx, void* y, void* x, int32_t rows, int32_t V, int32_t xStride, float cap, int32_t dtypeX);

/* y f32[1] (+)= sum of w x over n, f32 with f64 sums in a fixed order; w null = ones. */
NC_API int32_t nc_weighted_sum(nc_context* ctx, void* y, void* x, void* w, int64_t n, int32_t accumulate);

/* Draws ids i32 (rows) from logits f32 (rows, V). seeds u64, samples, draws, topK i32, temperatures, topP f32, one each a row. temperature 0: the largest logit, lowest id among equals. Else softmax(logits / temperature) over exactly topK (0 = all) largest, lowest ids among equals, of these the smallest set with mass >= topP (1 = all), drawn in the order of ids with the uniform number of Philox4x32-10 (key = seed, counter = (draw, sample, 0, 0)). logprobs f32 (rows) or null: log-softmax of the id over all V at temperature 1. biasStarts i32 (rows + 1) or null: row r is drawn from its logits with biasValues f32 added at the biasIds i32 (biases each) from biasStarts[r] to biasStarts[r + 1]; logprobs ignore them. NaN or +inf fails the queue. */
NC_API int32_t nc_sample(nc_context* ctx, void* ids, void* logprobs, void* logits, void* seeds, void* samples, void* draws, void* temperatures, void* topK, void* topP, void* biasStarts, void* biasIds, void* biasValues, int32_t rows, int32_t V, int32_t biases);

/* The most probable tokens of logits f32 (rows, V): ids i32 (rows, topK), best first, the lower id first among equals, and logprobs f32 (rows, topK), log-softmax over all V as in nc_sample. Of row r the first counts[r] are written, counts i32 (rows). */
NC_API int32_t nc_top_logprobs(nc_context* ctx, void* ids, void* logprobs, void* logits, void* counts, int32_t rows, int32_t V, int32_t topK);

/* h = x W^T, x (M,K), w (N,K). epilogue NONE: y = h + residual (residual of dtypeY or null, may be y itself); RELU2: aux = h (dtypeY, or null), y = max(h, 0)^2. x and w have one dtype, or w is i8 (PACKED): x is quantised row by row as w was (nc_pack), the sum of integers multiplied by the scale of x's row, then of w's. layoutW PACKED: w is what nc_pack made for FORWARD. scaleX, scaleW: f32[1] factors of fp8 operands, else null. PACKED is batch-invariant: a row of y has the same bits for every M; on the CPU ROWS has these bits too, on CUDA it is for training and takes any order. */
NC_API int32_t nc_linear_fwd(nc_context* ctx, void* y, void* aux, void* x, void* w, void* residual, void* scaleX, void* scaleW, int32_t M, int32_t N, int32_t K, int32_t epilogue, int32_t layoutW, int32_t dtypeY, int32_t dtypeX, int32_t dtypeW);

/* dx (+)= dy W, dy (M,N), w (N,K), dx (M,K). epilogue RELU2: the product is first multiplied by 2 max(aux, 0), aux (M,K) of dtypeDx, the h of the layer below. layoutW PACKED: w is what nc_pack made for BACKWARD. Scales as in nc_linear_fwd. */
NC_API int32_t nc_linear_bwd_x(nc_context* ctx, void* dx, void* dy, void* w, void* aux, void* scaleDy, void* scaleW, int32_t M, int32_t N, int32_t K, int32_t epilogue, int32_t accumulate, int32_t layoutW, int32_t dtypeDx, int32_t dtypeDy, int32_t dtypeW);

/* dw (+)= dy^T x, dy (M,N), x (M,K), dw f32 (N,K). prologue RELU2: x holds h and max(h, 0)^2 takes its place. Scales as in nc_linear_fwd. */
NC_API int32_t nc_linear_bwd_w(nc_context* ctx, void* dw, void* dy, void* x, void* scaleDy, void* scaleX, int32_t M, int32_t N, int32_t K, int32_t prologue, int32_t accumulate, int32_t dtypeDy, int32_t dtypeX);

/* Writes the size in bytes of the packed form of a weight (N,K) to bytes[0] (i64); 0 = this library has no packed form. */
NC_API int32_t nc_pack_bytes(nc_context* ctx, void* bytes, int32_t N, int32_t K, int32_t direction, int32_t dtype);

/* Packs a weight w (N,K), f32 or bf16 rows, for products with operands of dtypePacked: FORWARD for nc_linear_fwd, BACKWARD for nc_linear_bwd_x. i8 (FORWARD): each row becomes round(w * (127 / max |w|)), ties to even, and its scale max |w| / 127, which the packed form holds too. */
NC_API int32_t nc_pack(nc_context* ctx, void* packed, void* w, int32_t N, int32_t K, int32_t direction, int32_t dtypePacked, int32_t dtypeW);

/* o = orthogonalised x by `steps` Newton-Schulz iterations (quintic, as in Muon), each of `batch` matrices (rows, cols) by itself; x, o of dtype f32 or bf16, o may be x. bf16: every operation rounds to bf16, products sum in fp32; where n >= 4 m only x and o are bf16, and the steps run on x x^T in fp32. scratch: batch * (m*n + 2*m*m) * 4 + 4096 bytes with m = min and n = max of rows and cols. A zero matrix stays zero. */
NC_API int32_t nc_newton_schulz(nc_context* ctx, void* o, void* x, void* scratch, int32_t batch, int32_t rows, int32_t cols, int32_t steps, int32_t dtype);

/* Soft-capped cross-entropy of l = softcap * tanh((x w^T)[:, :V] / softcap), x (rows,C), w (Vp,C): losses f32 (rows) or null = -log p(target), 0 where target (i32) is -1. dx (rows,C) or null is overwritten and dw f32 (Vp,C) or null (+)= with the gradient of sum weights[t] * losses[t] (weights f32 (rows), null without dx and dw); rows V.. of dw are 0. w is of dtypeX or, without dx and dw, what nc_pack made in i8. scratch: chunk * Vp * (4 + size of dtypeX) + 65536 bytes. */
NC_API int32_t nc_lm_head_loss(nc_context* ctx, void* losses, void* dx, void* dw, void* x, void* w, void* targets, void* weights, void* scratch, int32_t rows, int32_t C, int32_t V, int32_t Vp, int32_t chunk, float softcap, int32_t accumulate, int32_t dtypeX, int32_t dtypeW);

/* Without gradients, each output or null: losses as nc_lm_head_loss (needs targets), argmax i32 (rows), the topK best ids i32 (rows,topK) and their log-probabilities f32 (rows,topK); the lower id wins among equals. The same bits whatever the other rows. w and scratch as nc_lm_head_loss. */
NC_API int32_t nc_lm_head_score(nc_context* ctx, void* losses, void* argmax, void* topIds, void* topLogprobs, void* x, void* w, void* targets, void* scratch, int32_t rows, int32_t C, int32_t V, int32_t Vp, int32_t chunk, int32_t topK, float softcap, int32_t dtypeX, int32_t dtypeW);

/* One AdamW step on p, m, v f32 (n): g *= scale[0]; p *= 1 - lr*wd; m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g^2; p -= (lr/bc1) * m / (sqrt(v)/sqrt(bc2) + eps), bc = 1 - b^t. hyper f32: ADAMW_HYPER. copy (or null) = p in dtypeCopy. A scale that is not finite changes nothing; a null one is 1. */
NC_API int32_t nc_adamw(nc_context* ctx, void* p, void* m, void* v, void* copy, void* g, void* hyper, void* scale, int64_t n, int32_t dtypeCopy);

/* m += (1-mu) * (g*s - m); u = g*s + mu * (m - g*s); m, g f32 (n), u in dtypeU, s = scale[0] or 1. hyper f32: MUON_HYPER. A scale that is not finite leaves m and makes u 0. */
NC_API int32_t nc_muon_momentum(nc_context* ctx, void* u, void* m, void* g, void* hyper, void* scale, int64_t n, int32_t dtypeU);

/* p = p * (1 - lr*wd) - lr * factor * o, p f32 (n); copy (or null) = p in dtypeCopy. hyper f32: MUON_HYPER. A scale that is not finite changes nothing. */
NC_API int32_t nc_muon_update(nc_context* ctx, void* p, void* copy, void* o, void* hyper, void* scale, int64_t n, float factor, int32_t dtypeO, int32_t dtypeCopy);

/* y f64[1] (+)= sum of x^2, x f32 (n), summed in f64 in a fixed order. */
NC_API int32_t nc_sum_squares(nc_context* ctx, void* y, void* x, int64_t n, int32_t accumulate);

/* y f32[2] = {scale, norm}: norm = sqrt(sum f64[1]), scale = min(1, maxNorm / (norm + 1e-6)), 1 where maxNorm f32[1] <= 0, NaN where the norm is not finite. */
NC_API int32_t nc_clip_scale(nc_context* ctx, void* y, void* sum, void* maxNorm);

/* y i64[1] = index of the first NaN or infinity of x (n), -1 if none. */
NC_API int32_t nc_first_non_finite(nc_context* ctx, void* y, void* x, int64_t n, int32_t dtype);

/* Joins `world` ranks as `rank` by a communicator of `kind` (COMM) named by id (idBytes bytes made by rank 0; unused for self); handle to out[0] (u64). */
NC_API int32_t nc_comm_create(nc_context* ctx, void* out, void* id, int32_t idBytes, int32_t rank, int32_t world, int32_t kind);

/* Leaves a communicator. */
NC_API int32_t nc_comm_free(nc_context* ctx, void* comm);

/* y (n) = sum (average 1: mean) over the ranks of x (n); y may be x. */
NC_API int32_t nc_all_reduce(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t average, int32_t dtype);

/* y (n) = this rank's piece of the sum (average 1: mean) over the ranks of x (world, n). */
NC_API int32_t nc_reduce_scatter(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t average, int32_t dtype);

/* y (world, n) = x (n) of every rank; x may be this rank's piece of y. */
NC_API int32_t nc_all_gather(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t dtype);

/* y (n) = y of rank `root` on every rank. */
NC_API int32_t nc_broadcast(nc_context* ctx, void* comm, void* y, int64_t n, int32_t root, int32_t dtype);

/* Enqueues a point that no rank passes before all have come. */
NC_API int32_t nc_barrier(nc_context* ctx, void* comm);

#ifdef __cplusplus
}
#endif
