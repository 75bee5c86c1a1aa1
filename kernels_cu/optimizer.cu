/**
 * Optimizer steps over flat f32 tensors: AdamW, Muon's momentum and update.
 *
 * AdamW arXiv:1711.05101, algorithm 2 (decay first, bias-corrected moments, eps outside the corrected root); Muon as in
 * nanochat/muon.py (momentum is an average, Nesterov blend). Bound by memory: each array is read and written once, 16 bytes a thread;
 * the bf16 copy of the weights is written in the same pass. Rates come from the step block, so a recorded graph can be replayed with new
 * ones. A scale that is not finite means "skip this step".
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256, STEP = 4;

__device__ inline bool is_finite(float x) { return x - x == 0; }
/** Ends a decay at 0 instead of at denormal numbers, as on the CPU. */
__device__ inline float normal(float x) { return fabsf(x) < 1.17549435e-38f ? 0 : x; }

/** Calls f(i, n) for the pieces of up to STEP elements from i on that this thread owns. */
template <class F> __device__ inline void each_piece(int64_t n, F&& f) {
  const int64_t stride = int64_t(gridDim.x) * THREADS * STEP;
  for (int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * STEP; i < n; i += stride) f(i, n - i < STEP ? int(n - i) : STEP);
}

template <class T> struct alignas(STEP * sizeof(T)) Piece { T at[STEP]; };

/** Reads a piece, zeros behind its end; whole ones at once where `vector` says that all arrays are aligned. Constant bounds keep it in registers. */
template <class T> __device__ inline Piece<T> read(const T* x, int64_t i, int n, bool vector) {
  if (vector && n == STEP) return *reinterpret_cast<const Piece<T>*>(x + i);
  Piece<T> piece{};
#pragma unroll
  for (int j = 0; j < STEP; j++) if (j < n) piece.at[j] = x[i + j];
  return piece;
}
template <class T> __device__ inline void write(T* x, const Piece<T>& piece, int64_t i, int n, bool vector) {
  if (vector && n == STEP) {
    *reinterpret_cast<Piece<T>*>(x + i) = piece;
    return;
  }
#pragma unroll
  for (int j = 0; j < STEP; j++) if (j < n) x[i + j] = piece.at[j];
}

template <class Copy>
__global__ void __launch_bounds__(THREADS)
  adamw_kernel(float* p, float* m, float* v, Copy* copy, const float* g, const float* hyper, const float* scale, int64_t n, bool vector) {
  const float factor = scale ? *scale : 1;
  if (!is_finite(factor)) return;
  const float keep = 1 - hyper[NC_ADAMW_LR] * hyper[NC_ADAMW_WEIGHT_DECAY], eps = hyper[NC_ADAMW_EPS];
  const float beta1 = hyper[NC_ADAMW_BETA1], beta2 = hyper[NC_ADAMW_BETA2];
  const float step = hyper[NC_ADAMW_LR] / hyper[NC_ADAMW_BIAS_CORRECTION1], root = 1 / sqrtf(hyper[NC_ADAMW_BIAS_CORRECTION2]);
  each_piece(n, [&](int64_t i, int count) {
    Piece<float> pp = read(p, i, count, vector), pm = read(m, i, count, vector), pv = read(v, i, count, vector);
    const Piece<float> pg = read(g, i, count, vector);
    Piece<Copy> pc;
#pragma unroll
    for (int j = 0; j < STEP; j++) {
      const float gradient = pg.at[j] * factor;
      pm.at[j] = normal(beta1 * pm.at[j] + (1 - beta1) * gradient);
      pv.at[j] = normal(beta2 * pv.at[j] + (1 - beta2) * gradient * gradient);
      pp.at[j] = pp.at[j] * keep - step * pm.at[j] / (sqrtf(pv.at[j]) * root + eps);
      pc.at[j] = from_f32<Copy>(pp.at[j]);
    }
    write(p, pp, i, count, vector);
    write(m, pm, i, count, vector);
    write(v, pv, i, count, vector);
    if (copy) write(copy, pc, i, count, vector);
  });
}

template <class U>
__global__ void __launch_bounds__(THREADS)
  momentum_kernel(U* u, float* m, const float* g, const float* hyper, const float* scale, int64_t n, bool vector) {
  const float factor = scale ? *scale : 1, mu = hyper[NC_MUON_MOMENTUM];
  const bool skip = !is_finite(factor);
  each_piece(n, [&](int64_t i, int count) {
    Piece<U> pu;
    if (skip) {
#pragma unroll
      for (int j = 0; j < STEP; j++) pu.at[j] = from_f32<U>(0);
      return write(u, pu, i, count, vector);
    }
    Piece<float> pm = read(m, i, count, vector);
    const Piece<float> pg = read(g, i, count, vector);
#pragma unroll
    for (int j = 0; j < STEP; j++) {
      const float gradient = pg.at[j] * factor;
      pm.at[j] += (1 - mu) * (gradient - pm.at[j]);
      pu.at[j] = from_f32<U>(gradient + mu * (pm.at[j] - gradient));
    }
    write(m, pm, i, count, vector);
    write(u, pu, i, count, vector);
  });
}

template <class O, class Copy>
__global__ void __launch_bounds__(THREADS)
  update_kernel(float* p, Copy* copy, const O* o, const float* hyper, const float* scale, int64_t n, float factor, bool vector) {
  if (scale && !is_finite(*scale)) return;
  const float lr = hyper[NC_MUON_LR], keep = 1 - lr * hyper[NC_MUON_WEIGHT_DECAY], step = lr * factor;
  each_piece(n, [&](int64_t i, int count) {
    Piece<float> pp = read(p, i, count, vector);
    const Piece<O> po = read(o, i, count, vector);
    Piece<Copy> pc;
#pragma unroll
    for (int j = 0; j < STEP; j++) {
      pp.at[j] = pp.at[j] * keep - step * to_f32(po.at[j]);
      pc.at[j] = from_f32<Copy>(pp.at[j]);
    }
    write(p, pp, i, count, vector);
    if (copy) write(copy, pc, i, count, vector);
  });
}

bool aligned(std::initializer_list<const void*> arrays) {
  uint64_t bits = 0;
  for (const void* each : arrays) bits |= reinterpret_cast<uint64_t>(each);
  return bits % 16 == 0;
}

Shape shape(int64_t n) { return {blocks_for(n, THREADS * STEP), THREADS}; }

} // namespace

int32_t nc_adamw(nc_context* ctx, void* p, void* m, void* v, void* copy, void* g, void* hyper, void* scale, int64_t n, int32_t dtypeCopy) {
  return entry(ctx, "nc_adamw", [&](Context& cx) {
    with_float(copy ? dtypeCopy : NC_DTYPE_F32, [&](auto type) {
      using Copy = decltype(type);
      float *weights = array<float>(cx, p, n, "p"), *mean = array<float>(cx, m, n, "m"), *square = array<float>(cx, v, n, "v");
      Copy* half = optional<Copy>(cx, copy, n, "copy");
      const float *gradient = array<float>(cx, g, n, "g"), *rates = array<float>(cx, hyper, 7, "hyper");
      const float* factor = optional<float>(cx, scale, 1, "scale");
      if (n == 0) return;
      launch(cx, "nc_adamw", adamw_kernel<Copy>, shape(n), weights, mean, square, half, gradient, rates, factor, n, aligned({p, m, v, copy, g}));
    });
  });
}

int32_t nc_muon_momentum(nc_context* ctx, void* u, void* m, void* g, void* hyper, void* scale, int64_t n, int32_t dtypeU) {
  return entry(ctx, "nc_muon_momentum", [&](Context& cx) {
    with_float(dtypeU, [&](auto type) {
      using U = decltype(type);
      U* out = array<U>(cx, u, n, "u");
      float* mean = array<float>(cx, m, n, "m");
      const float *gradient = array<float>(cx, g, n, "g"), *rates = array<float>(cx, hyper, 3, "hyper");
      const float* factor = optional<float>(cx, scale, 1, "scale");
      if (n == 0) return;
      launch(cx, "nc_muon_momentum", momentum_kernel<U>, shape(n), out, mean, gradient, rates, factor, n, aligned({u, m, g}));
    });
  });
}

int32_t nc_muon_update(nc_context* ctx, void* p, void* copy, void* o, void* hyper, void* scale, int64_t n, float factor, int32_t dtypeO,
  int32_t dtypeCopy) {
  return entry(ctx, "nc_muon_update", [&](Context& cx) {
    with_float(dtypeO, [&](auto typeO) {
      with_float(copy ? dtypeCopy : NC_DTYPE_F32, [&](auto typeCopy) {
        using O = decltype(typeO);
        using Copy = decltype(typeCopy);
        float* weights = array<float>(cx, p, n, "p");
        Copy* half = optional<Copy>(cx, copy, n, "copy");
        const O* direction = array<O>(cx, o, n, "o");
        const float *rates = array<float>(cx, hyper, 3, "hyper"), *limit = optional<float>(cx, scale, 1, "scale");
        if (n == 0) return;
        launch(cx, "nc_muon_update", update_kernel<O, Copy>, shape(n), weights, half, direction, rates, limit, n, factor, aligned({p, copy, o}));
      });
    });
  });
}
