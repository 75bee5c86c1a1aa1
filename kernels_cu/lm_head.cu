/**
 * The end of the model, `chunk` rows at a time: logits, soft cap, cross-entropy and its gradient; and scores without gradients.
 *
 *   h = x w^T (rows, V); l = cap tanh(h / cap); p = softmax(l); loss = -log p[target]
 *   dh_j = weight (p_j - [j = target]) (1 - (l_j / cap)^2); dx = dh w; dw (+)= dh^T x
 *
 * In bf16 h is rounded to bf16 once, everything up to dh is f32, and dh is bf16 for the products that follow; dh takes the place of h. A
 * block of 1,024 threads computes a row: one reading for the largest and the sum, which are kept together (online softmax,
 * arXiv:1805.02867), a second one for dh, then one writing. Beside the products, bound by memory: 3 x 2 bytes a logit in bf16. Scores use
 * products and sums of one order, so a row has the same bits whatever the others are.
 */
#include "matmul.cuh"
#include "row_keys.cuh"

namespace {

constexpr int64_t SPARE_BYTES = 64 << 10; // at the end of the caller's scratch

/** tanh and exp as exact as f32 is, or for logits that were rounded to bf16: to about 2^-21. */
template <class T> __device__ inline float tanh_of(float x);
template <> __device__ inline float tanh_of<float>(float x) { return tanhf(x); }
template <> __device__ inline float tanh_of<bf16>(float x) { return 1 - __fdividef(2.0f, 1 + __expf(2 * x)); }
template <class T> __device__ inline float exp_of(float x);
template <> __device__ inline float exp_of<float>(float x) { return expf(x); }
template <> __device__ inline float exp_of<bf16>(float x) { return __expf(x); }

/** A row of h, capped as it is read. */
template <class T> struct Capped {
  const T* h;
  float cap, inverse;
  __device__ float at(int i) const { return cap * tanh_of<T>(to_f32(h[i]) * inverse); }
};

/** Largest entry of a row and the sum of e^(entry - largest), in every thread. */
struct Softmax {
  float largest, sum;
};
template <class T> __device__ Softmax softmax(const Capped<T>& row, int V, float* slots) {
  float largest = -row.cap, sum = 0; // no logit is smaller
  for (int i = threadIdx.x; i < V; i += ROW_THREADS) {
    const float l = row.at(i);
    if (l > largest) {
      sum *= exp_of<T>(largest - l);
      largest = l;
    }
    sum += exp_of<T>(l - largest);
  }
  const float most = block_max(largest, slots);
  sum = block_sum(sum * exp_of<T>(largest - most), slots);
  return {most, sum};
}

__device__ inline float negative_log(float l, const Softmax& s) { return float(double(s.largest) - l + log(double(s.sum))); }

/** Target of a row; -1 also where it is no id, which is reported. */
__device__ inline int target_of(const int32_t* targets, int64_t row, int V, Failure* failure) {
  const int32_t target = targets ? targets[row] : -1;
  if (target >= -1 && target < V) return target;
  if (threadIdx.x == 0) report(failure, FAILURE_TARGET, target, V, row);
  return -1;
}

/** Losses of a chunk's rows and, with weights, dh in the place of h; the padding's dh is 0. */
template <class T>
__global__ void __launch_bounds__(ROW_THREADS) loss_kernel(float* losses, T* h, const int32_t* targets, const float* weights, int64_t first,
  int V, int Vp, float cap, bool differentiate, Failure* failure) {
  SHARED(float, slots, [ROW_WARPS]);
  const int64_t row = first + blockIdx.x;
  T* own = h + int64_t(blockIdx.x) * Vp;
  const int target = target_of(targets, row, V, failure);
  const float weight = weights ? weights[row] : 0;
  if (target < 0 || (!losses && weight == 0)) {
    if (losses && threadIdx.x == 0) losses[row] = 0;
    for (int i = threadIdx.x; differentiate && i < Vp; i += ROW_THREADS) own[i] = from_f32<T>(0);
    return;
  }
  const Capped<T> logits{own, cap, 1 / cap};
  const Softmax s = softmax(logits, V, slots);
  if (losses && threadIdx.x == 0) losses[row] = negative_log(logits.at(target), s);
  if (!differentiate) return;
  __syncthreads(); // the loss is read before its logit is overwritten
  const float share = 1 / s.sum;
  for (int i = threadIdx.x; i < Vp; i += ROW_THREADS) {
    float dh = 0;
    if (i < V) {
      const float l = logits.at(i), t = l * logits.inverse;
      dh = weight * (exp_of<T>(l - s.largest) * share - float(i == target)) * (1 - t * t);
    }
    own[i] = from_f32<T>(dh);
  }
}

/** Where nc_lm_head_score puts what it finds; each null or of all rows. */
struct Scores {
  float* losses;
  int32_t *argmax, *topIds;
  float* topLogprobs;
  int topK;
};

template <class T>
__global__ void __launch_bounds__(ROW_THREADS)
  score_kernel(Scores out, const T* h, const int32_t* targets, int64_t first, int V, int Vp, float cap, Failure* failure) {
  SHARED(float, slots, [ROW_WARPS]);
  SHARED(u64, keys, [ROW_WARPS]);
  const int64_t row = first + blockIdx.x;
  const Capped<T> logits{h + int64_t(blockIdx.x) * Vp, cap, 1 / cap};
  const int target = target_of(targets, row, V, failure);
  const Softmax s = softmax(logits, V, slots);
  if (out.losses && threadIdx.x == 0) out.losses[row] = target < 0 ? 0 : negative_log(logits.at(target), s);
  const int count = out.topIds || out.topLogprobs ? out.topK : 0;
  u64 key = ~0ull;
  for (int i = 0; i < count || (i == 0 && out.argmax); i++) {
    key = best_key(logits, V, key, keys, nullptr);
    if (threadIdx.x != 0) continue;
    if (i == 0 && out.argmax) out.argmax[row] = id_of(key);
    if (i >= count) continue;
    if (out.topIds) out.topIds[row * out.topK + i] = id_of(key);
    if (out.topLogprobs) out.topLogprobs[row * out.topK + i] = -negative_log(logits.at(id_of(key)), s);
  }
}

/** The checked operands of both entries. */
struct Head {
  const char *x, *w;
  char* scratch; // h and dh of a chunk
  int64_t rows, C, V, Vp, chunk;
  float cap;
  int32_t dtype;
  bool isInt8;

  int64_t bytes() const { return dtype == NC_DTYPE_F32 ? 4 : 2; }
  View x_rows(int64_t first) const { return rows_view(x + first * C * bytes(), dtype, C); }
  View w_rows() const { return rows_view(w, dtype, C); }

  /** Enqueues h of n rows. The padding's columns are computed too: whole rows are aligned. */
  void multiply_rows(Context& cx, const char* name, int64_t first, int64_t n, bool invariant) const {
    Product product{n, Vp, C, x_rows(first), w_rows().transposed(), {scratch, dtype, Vp}};
    if (isInt8) multiply_int8(cx, name, product, w, Vp);
    else if (invariant) multiply(cx, name, product);
    else multiply_fast(cx, name, product);
  }
};

Head head(Context& cx, void* x, void* w, void* scratch, int32_t rows, int32_t C, int32_t V, int32_t Vp, int32_t chunk, float cap,
  int32_t dtypeX, int32_t dtypeW) {
  const bool isInt8 = dtypeW == NC_DTYPE_I8;
  if ((dtypeX != dtypeW && !isInt8) || (dtypeX != NC_DTYPE_F32 && dtypeX != NC_DTYPE_BF16)) {
    refuse(NC_STATUS_INVALID, "Cannot apply lm_head: x has dtype %d and w %d, expected both f32 or both bf16, or w i8", dtypeX, dtypeW);
  }
  if (V < 1 || Vp < V || chunk < 1) {
    refuse(NC_STATUS_INVALID, "Cannot apply lm_head: V = %d, Vp = %d, chunk = %d, expected 1 <= V <= Vp and chunk >= 1", V, Vp, chunk);
  }
  if (!(cap > 0 && cap < INFINITY)) refuse(NC_STATUS_INVALID, "Cannot apply lm_head: softcap is %g, expected a positive number", double(cap));
  const int64_t n = size(rows, "rows"), width = size(C, "C"), bytes = dtypeX == NC_DTYPE_F32 ? 4 : 2;
  const int64_t weightBytes = isInt8 ? int8_bytes(Vp, width) : Vp * width * bytes;
  return {array<char>(cx, x, n * width * bytes, "x"), array<char>(cx, w, weightBytes, "w"),
    array<char>(cx, scratch, int64_t(chunk) * Vp * (4 + bytes) + SPARE_BYTES, "scratch"), n, width, V, Vp, chunk, cap, dtypeX, isInt8};
}

} // namespace

int32_t nc_lm_head_loss(nc_context* ctx, void* losses, void* dx, void* dw, void* x, void* w, void* targets, void* weights, void* scratch,
  int32_t rows, int32_t C, int32_t V, int32_t Vp, int32_t chunk, float softcap, int32_t accumulate, int32_t dtypeX, int32_t dtypeW) {
  return entry(ctx, "nc_lm_head_loss", [&](Context& cx) {
    const char* name = "nc_lm_head_loss";
    const Head s = head(cx, x, w, scratch, rows, C, V, Vp, chunk, softcap, dtypeX, dtypeW);
    float* out = optional<float>(cx, losses, s.rows, "losses");
    char* gradient = optional<char>(cx, dx, s.rows * s.C * s.bytes(), "dx");
    float* weightGradient = optional<float>(cx, dw, s.Vp * s.C, "dw");
    const int32_t* wanted = array<int32_t>(cx, targets, s.rows, "targets");
    const float* factors = optional<float>(cx, weights, s.rows, "weights");
    const bool differentiate = gradient || weightGradient;
    if (differentiate && !factors) {
      refuse(NC_STATUS_INVALID, "Cannot compute the gradient of the loss: weights is null, expected f32 (rows)");
    }
    if (differentiate && s.isInt8) refuse(NC_STATUS_INVALID, "Cannot compute the gradient of the loss: w is i8, expected f32 or bf16");
    if (weightGradient && s.rows == 0 && !accumulate) {
      check(cudaMemsetAsync(weightGradient, 0, size_t(s.Vp * s.C) * 4, cx.stream), "clear memory");
    }
    for (int64_t first = 0; first < s.rows; first += s.chunk) {
      const int64_t n = s.rows - first < s.chunk ? s.rows - first : s.chunk;
      s.multiply_rows(cx, name, first, n, false);
      with_float(dtypeX, [&](auto type) {
        using T = decltype(type);
        launch(cx, name, loss_kernel<T>, {unsigned(n), ROW_THREADS}, out, reinterpret_cast<T*>(s.scratch), wanted, factors, first, V, Vp,
          softcap, differentiate, cx.failure);
      });
      const View dh = rows_view(s.scratch, s.dtype, s.Vp);
      if (weightGradient) {
        Product product{s.Vp, s.C, n, dh.transposed(), s.x_rows(first), {weightGradient, NC_DTYPE_F32, s.C}};
        if (accumulate || first > 0) product.epilogue = Epilogue::ACCUMULATE;
        multiply_fast(cx, name, product);
      }
      if (gradient) {
        multiply_fast(cx, name, {n, s.C, s.Vp, dh, s.w_rows(), {gradient + first * s.C * s.bytes(), s.dtype, s.C}});
      }
    }
  });
}

int32_t nc_lm_head_score(nc_context* ctx, void* losses, void* argmax, void* topIds, void* topLogprobs, void* x, void* w, void* targets,
  void* scratch, int32_t rows, int32_t C, int32_t V, int32_t Vp, int32_t chunk, int32_t topK, float softcap, int32_t dtypeX, int32_t dtypeW) {
  return entry(ctx, "nc_lm_head_score", [&](Context& cx) {
    const char* name = "nc_lm_head_score";
    const Head s = head(cx, x, w, scratch, rows, C, V, Vp, chunk, softcap, dtypeX, dtypeW);
    if (topK < 0 || topK > V) refuse(NC_STATUS_INVALID, "Cannot find the best %d ids, expected 0 to V = %d", topK, V);
    const Scores out{optional<float>(cx, losses, s.rows, "losses"), optional<int32_t>(cx, argmax, s.rows, "argmax"),
      optional<int32_t>(cx, topIds, s.rows * topK, "topIds"), optional<float>(cx, topLogprobs, s.rows * topK, "topLogprobs"), topK};
    if (out.losses && !targets) refuse(NC_STATUS_INVALID, "Cannot score: losses are asked for without targets, expected i32 (rows)");
    const int32_t* wanted = optional<int32_t>(cx, targets, s.rows, "targets");
    for (int64_t first = 0; first < s.rows; first += s.chunk) {
      const int64_t n = s.rows - first < s.chunk ? s.rows - first : s.chunk;
      s.multiply_rows(cx, name, first, n, true);
      with_float(dtypeX, [&](auto type) {
        using T = decltype(type);
        launch(cx, name, score_kernel<T>, {unsigned(n), ROW_THREADS}, out, reinterpret_cast<const T*>(s.scratch), wanted, first, V, Vp, softcap,
          cx.failure);
      });
    }
  });
}
