/**
 * RMS normalisation without gain, arXiv 1910.07467; nanochat/gpt.py `norm`.
 *
 *   fwd: rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd, mean over the C elements of a row
 *   bwd: dx (+)= rstd (dy - xhat mean(dy xhat)), xhat = x rstd; dx may alias dy
 *
 * A warp computes a row, eight rows a block. Bound by memory: forward moves an element twice, backward three times. Rows of at most
 * 8 vectors a lane stay in registers between the sum and the result; longer or unaligned ones are read again, from the cache.
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int MOST_VECTORS = 8;

/** A row's elements in the registers of a warp: lane l holds vectors l, l + 32, ... */
template <class T, int VECTORS> struct Row {
  Vec<T> at[VECTORS];

  __device__ void load(const T* x, int C, int lane) {
    for (int v = 0; v < VECTORS; v++) {
      const int i = (v * WARP + lane) * Vec<T>::N;
      if (i < C) at[v] = load_vec(x + i);
    }
  }
};

template <class T, int VECTORS>
__global__ void __launch_bounds__(THREADS) forward_kernel(T* y, float* rstd, const T* x, int64_t rows, int C, float eps) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= rows) return;
  Row<T, VECTORS> in;
  in.load(x + row * C, C, lane);
  float sum = 0;
  for (int v = 0; v < VECTORS; v++) {
    if ((v * WARP + lane) * Vec<T>::N >= C) break;
    for (int j = 0; j < Vec<T>::N; j++) sum += to_f32(in.at[v].at[j]) * to_f32(in.at[v].at[j]);
  }
  const float r = 1 / sqrtf(warp_sum(sum) / C + eps);
  if (rstd && lane == 0) rstd[row] = r;
  for (int v = 0; v < VECTORS; v++) {
    const int i = (v * WARP + lane) * Vec<T>::N;
    if (i >= C) break;
    Vec<T> out;
    for (int j = 0; j < Vec<T>::N; j++) out.at[j] = from_f32<T>(to_f32(in.at[v].at[j]) * r);
    store_vec(y + row * C + i, out);
  }
}

/** As forward_kernel for rows of any length and alignment. */
template <class T>
__global__ void __launch_bounds__(THREADS) forward_any_kernel(T* y, float* rstd, const T* x, int64_t rows, int C, float eps) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= rows) return;
  x += row * C;
  float sum = 0;
  for (int i = lane; i < C; i += WARP) sum += to_f32(x[i]) * to_f32(x[i]);
  const float r = 1 / sqrtf(warp_sum(sum) / C + eps);
  if (rstd && lane == 0) rstd[row] = r;
  for (int i = lane; i < C; i += WARP) y[row * C + i] = from_f32<T>(to_f32(x[i]) * r);
}

template <class T, int VECTORS>
__global__ void __launch_bounds__(THREADS)
  backward_kernel(T* dx, const T* dy, const T* x, const float* rstd, int64_t rows, int C, bool accumulate) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= rows) return;
  Row<T, VECTORS> in, gradient;
  in.load(x + row * C, C, lane);
  gradient.load(dy + row * C, C, lane);
  const float r = rstd[row];
  float sum = 0;
  for (int v = 0; v < VECTORS; v++) {
    if ((v * WARP + lane) * Vec<T>::N >= C) break;
    for (int j = 0; j < Vec<T>::N; j++) sum += to_f32(gradient.at[v].at[j]) * to_f32(in.at[v].at[j]);
  }
  const float mean = warp_sum(sum) * r / C;
  for (int v = 0; v < VECTORS; v++) {
    const int i = (v * WARP + lane) * Vec<T>::N;
    if (i >= C) break;
    Vec<T> out;
    if (accumulate) out = load_vec(dx + row * C + i);
    for (int j = 0; j < Vec<T>::N; j++) {
      const float g = r * (to_f32(gradient.at[v].at[j]) - to_f32(in.at[v].at[j]) * r * mean);
      out.at[j] = from_f32<T>(accumulate ? to_f32(out.at[j]) + g : g);
    }
    store_vec(dx + row * C + i, out);
  }
}

/** As backward_kernel for rows of any length and alignment. */
template <class T>
__global__ void __launch_bounds__(THREADS)
  backward_any_kernel(T* dx, const T* dy, const T* x, const float* rstd, int64_t rows, int C, bool accumulate) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= rows) return;
  x += row * C, dy += row * C, dx += row * C;
  const float r = rstd[row];
  float sum = 0;
  for (int i = lane; i < C; i += WARP) sum += to_f32(dy[i]) * to_f32(x[i]);
  const float mean = warp_sum(sum) * r / C;
  for (int i = lane; i < C; i += WARP) {
    const float g = r * (to_f32(dy[i]) - to_f32(x[i]) * r * mean);
    dx[i] = from_f32<T>(accumulate ? to_f32(dx[i]) + g : g);
  }
}

/** Vectors of a row that a lane holds; 0 where the row has to be read twice. */
template <class T> int vectors(int64_t C, std::initializer_list<const void*> operands) {
  uint64_t bits = uint64_t(C * int64_t(sizeof(T)));
  for (const void* operand : operands) bits |= reinterpret_cast<uint64_t>(operand);
  if (bits % 16 != 0) return 0;
  const int64_t each = (C / Vec<T>::N + WARP - 1) / WARP;
  return each <= MOST_VECTORS ? int(each) : 0;
}

/** Calls f with the number of vectors as a type. */
template <class F> void with_vectors(int n, F&& f) {
  if (n <= 1) f(std::integral_constant<int, 1>());
  else if (n <= 2) f(std::integral_constant<int, 2>());
  else if (n <= 4) f(std::integral_constant<int, 4>());
  else f(std::integral_constant<int, MOST_VECTORS>());
}

} // namespace

int32_t nc_rmsnorm_fwd(nc_context* ctx, void* y, void* rstd, void* x, int32_t rows, int32_t C, float eps, int32_t dtype) {
  return entry(ctx, "nc_rmsnorm_fwd", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), width = size(C, "C");
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      T* out = array<T>(cx, y, n * width, "y");
      const T* in = array<T>(cx, x, n * width, "x");
      float* r = optional<float>(cx, rstd, n, "rstd");
      if (n == 0 || width == 0) return;
      const Shape shape{unsigned((n + WARPS - 1) / WARPS), THREADS};
      const int held = vectors<T>(width, {y, x});
      if (held == 0) return launch(cx, "nc_rmsnorm_fwd", forward_any_kernel<T>, shape, out, r, in, n, C, eps);
      with_vectors(held, [&](auto v) { launch(cx, "nc_rmsnorm_fwd", forward_kernel<T, v>, shape, out, r, in, n, C, eps); });
    });
  });
}

int32_t nc_rmsnorm_bwd(
  nc_context* ctx, void* dx, void* dy, void* x, void* rstd, int32_t rows, int32_t C, int32_t accumulate, int32_t dtype) {
  return entry(ctx, "nc_rmsnorm_bwd", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), width = size(C, "C");
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      T* out = array<T>(cx, dx, n * width, "dx");
      const T *gradient = array<T>(cx, dy, n * width, "dy"), *in = array<T>(cx, x, n * width, "x");
      const float* r = array<float>(cx, rstd, n, "rstd");
      if (n == 0 || width == 0) return;
      const Shape shape{unsigned((n + WARPS - 1) / WARPS), THREADS};
      const int held = vectors<T>(width, {dx, dy, x});
      const bool adds = accumulate != 0;
      if (held == 0) return launch(cx, "nc_rmsnorm_bwd", backward_any_kernel<T>, shape, out, gradient, in, r, n, C, adds);
      with_vectors(held, [&](auto v) { launch(cx, "nc_rmsnorm_bwd", backward_kernel<T, v>, shape, out, gradient, in, r, n, C, adds); });
    });
  });
}
