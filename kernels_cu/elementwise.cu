/**
 * Loops over single elements: fill, cast, add, ReLU squared and its gradient, soft-capping.
 *
 *   fill: y = value      cast: y = x      add: y = a + b      relu2: y = max(h, 0)^2, dh (+)= 2 max(h, 0) dy
 *   softcap: y = cap tanh(x / cap) of the first V columns
 *
 * Bytes moved bound all of them: each element is read and written once, 16 bytes a thread where all operands are aligned to it.
 * ReLU squared: Primer, arXiv 2109.08668; nanochat/gpt.py. A NaN stays a NaN.
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256;

/** y[i] = f(y[i], a[i], b[i]) for n elements; VECTOR: 16 bytes of Y and as many elements of A at a time. */
template <class F, class Y, class A, bool VECTOR>
__global__ void __launch_bounds__(THREADS) map_kernel(Y* y, const A* a, const A* b, int64_t n) {
  constexpr int STEP = VECTOR ? Vec<Y>::N : 1;
  struct alignas(VECTOR ? sizeof(A) * STEP : sizeof(A)) Operand { A at[STEP]; };
  struct alignas(VECTOR ? 16 : sizeof(Y)) Result { Y at[STEP]; };
  const int64_t stride = int64_t(gridDim.x) * THREADS * STEP;
  for (int64_t i = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * STEP; i < n; i += stride) {
    if (i + STEP > n) { // the last elements, fewer than a vector
      for (int64_t j = i; j < n; j++) y[j] = from_f32<Y>(F::apply(F::OLD ? to_f32(y[j]) : 0, to_f32(a[j]), F::BINARY ? to_f32(b[j]) : 0));
      return;
    }
    const Operand av = *reinterpret_cast<const Operand*>(a + i);
    const Operand bv = F::BINARY ? *reinterpret_cast<const Operand*>(b + i) : av;
    Result yv;
    if (F::OLD) yv = *reinterpret_cast<const Result*>(y + i);
    for (int j = 0; j < STEP; j++) {
      yv.at[j] = from_f32<Y>(F::apply(F::OLD ? to_f32(yv.at[j]) : 0, to_f32(av.at[j]), to_f32(bv.at[j])));
    }
    *reinterpret_cast<Result*>(y + i) = yv;
  }
}

struct Identity {
  static constexpr bool BINARY = false, OLD = false;
  __device__ static float apply(float, float x, float) { return x; }
};
struct Sum {
  static constexpr bool BINARY = true, OLD = false;
  __device__ static float apply(float, float a, float b) { return a + b; }
};
__device__ inline float relu(float h) { return h > 0 || h != h ? h : 0; }
struct Relu2 {
  static constexpr bool BINARY = false, OLD = false;
  __device__ static float apply(float, float h, float) { return relu(h) * relu(h); }
};
template <bool ACCUMULATE> struct Relu2Gradient {
  static constexpr bool BINARY = true, OLD = ACCUMULATE;
  __device__ static float apply(float old, float dy, float h) { return (ACCUMULATE ? old : 0) + 2 * relu(h) * dy; }
};

template <class F, class Y, class A> void map(Context& cx, const char* name, void* y, void* a, void* b, int64_t n) {
  Y* out = array<Y>(cx, y, n, "output");
  const A* first = array<A>(cx, a, n, "input");
  const A* second = F::BINARY ? array<A>(cx, b, n, "second input") : nullptr;
  if (n == 0) return;
  constexpr int STEP = Vec<Y>::N;
  const uint64_t bits = reinterpret_cast<uint64_t>(y) % 16 | (reinterpret_cast<uint64_t>(a) | reinterpret_cast<uint64_t>(second)) % (sizeof(A) * STEP);
  const Shape shape{blocks_for(n, THREADS * STEP), THREADS};
  if (bits == 0) launch(cx, name, map_kernel<F, Y, A, true>, shape, out, first, second, n);
  else launch(cx, name, map_kernel<F, Y, A, false>, shape, out, first, second, n);
}

/** Copies integers to wider ones, or fills: y[i] = x ? x[i] : value. */
template <class Y, class X> __global__ void __launch_bounds__(THREADS) widen_kernel(Y* y, const X* x, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) y[i] = Y(x[i]);
}
template <class Y> __global__ void __launch_bounds__(THREADS) fill_kernel(Y* y, Y value, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) y[i] = value;
}

template <class X>
__global__ void __launch_bounds__(THREADS) softcap_kernel(float* y, const X* x, int64_t rows, int V, int stride, float cap) {
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < rows * V; i += int64_t(gridDim.x) * THREADS) {
    y[i] = cap * tanhf(to_f32(x[i / V * stride + i % V]) / cap);
  }
}

template <class Y, class X> void widen(Context& cx, void* y, void* x, int64_t n) {
  Y* out = array<Y>(cx, y, n, "y");
  const X* in = array<X>(cx, x, n, "x");
  if (n > 0) launch(cx, "nc_cast", widen_kernel<Y, X>, {blocks_for(n, THREADS), THREADS}, out, in, n);
}
template <class Y> void fill(Context& cx, void* y, int64_t n, Y value) {
  Y* out = array<Y>(cx, y, n, "y");
  if (n > 0) launch(cx, "nc_fill", fill_kernel<Y>, {blocks_for(n, THREADS), THREADS}, out, value, n);
}

} // namespace

int32_t nc_fill(nc_context* ctx, void* y, int64_t n, double value, int32_t dtype) {
  return entry(ctx, "nc_fill", [&](Context& cx) {
    switch (dtype) {
      case NC_DTYPE_F32: return fill(cx, y, n, float(value));
      case NC_DTYPE_BF16: return fill(cx, y, n, from_f32<bf16>(float(value)));
      case NC_DTYPE_I32: return fill(cx, y, n, int32_t(value));
      case NC_DTYPE_U16: return fill(cx, y, n, uint16_t(value));
      case NC_DTYPE_I8: return fill(cx, y, n, int8_t(value));
    }
    refuse(NC_STATUS_INVALID, "Cannot fill: dtype %d, expected f32, bf16, i32, u16 or i8", dtype);
  });
}

int32_t nc_cast(nc_context* ctx, void* y, void* x, int64_t n, int32_t dtypeY, int32_t dtypeX) {
  return entry(ctx, "nc_cast", [&](Context& cx) {
    switch (dtypeY * 16 + dtypeX) {
      case NC_DTYPE_F32 * 16 + NC_DTYPE_F32: return map<Identity, float, float>(cx, "nc_cast", y, x, nullptr, n);
      case NC_DTYPE_F32 * 16 + NC_DTYPE_BF16: return map<Identity, float, bf16>(cx, "nc_cast", y, x, nullptr, n);
      case NC_DTYPE_BF16 * 16 + NC_DTYPE_F32: return map<Identity, bf16, float>(cx, "nc_cast", y, x, nullptr, n);
      case NC_DTYPE_BF16 * 16 + NC_DTYPE_BF16: return widen<uint16_t, uint16_t>(cx, y, x, n);
      case NC_DTYPE_I32 * 16 + NC_DTYPE_I32: return widen<int32_t, int32_t>(cx, y, x, n);
      case NC_DTYPE_I32 * 16 + NC_DTYPE_U16: return widen<int32_t, uint16_t>(cx, y, x, n);
    }
    refuse(NC_STATUS_INVALID, "Cannot cast: dtype %d to %d, expected f32 or bf16 to either, or i32 or u16 to i32", dtypeX, dtypeY);
  });
}

int32_t nc_add(nc_context* ctx, void* y, void* a, void* b, int64_t n, int32_t dtype) {
  return entry(ctx, "nc_add", [&](Context& cx) {
    with_float(dtype, [&](auto type) { map<Sum, decltype(type), decltype(type)>(cx, "nc_add", y, a, b, n); });
  });
}

int32_t nc_relu2_fwd(nc_context* ctx, void* y, void* h, int64_t n, int32_t dtype) {
  return entry(ctx, "nc_relu2_fwd", [&](Context& cx) {
    with_float(dtype, [&](auto type) { map<Relu2, decltype(type), decltype(type)>(cx, "nc_relu2_fwd", y, h, nullptr, n); });
  });
}

int32_t nc_relu2_bwd(nc_context* ctx, void* dh, void* dy, void* h, int64_t n, int32_t accumulate, int32_t dtype) {
  return entry(ctx, "nc_relu2_bwd", [&](Context& cx) {
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      if (accumulate) map<Relu2Gradient<true>, T, T>(cx, "nc_relu2_bwd", dh, dy, h, n);
      else map<Relu2Gradient<false>, T, T>(cx, "nc_relu2_bwd", dh, dy, h, n);
    });
  });
}

int32_t nc_softcap_fwd(nc_context* ctx, void* y, void* x, int32_t rows, int32_t V, int32_t xStride, float cap, int32_t dtypeX) {
  return entry(ctx, "nc_softcap_fwd", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), width = size(V, "V");
    if (xStride < V) refuse(NC_STATUS_INVALID, "Cannot cap logits: rows are %d apart, expected at least %d", xStride, V);
    if (!(cap > 0)) refuse(NC_STATUS_INVALID, "Cannot cap logits: cap %g, expected a positive number", double(cap));
    with_float(dtypeX, [&](auto type) {
      using X = decltype(type);
      float* out = array<float>(cx, y, n * width, "y");
      const X* in = array<X>(cx, x, n == 0 ? 0 : (n - 1) * xStride + width, "x");
      if (n * width == 0) return;
      launch(cx, "nc_softcap_fwd", softcap_kernel<X>, {blocks_for(n * width, THREADS), THREADS}, out, in, n, V, xStride, cap);
    });
  });
}
