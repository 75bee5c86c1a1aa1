/**
 * Sums over a whole tensor and what follows from them: weighted sum, sum of squares, clip factor, first NaN or infinity.
 *
 *   y (+)= sum of w x      y (+)= sum of x^2      scale = min(1, maxNorm / (norm + 1e-6)) (torch.nn.utils.clip_grad_norm_)
 *
 * One launch: each block sums its elements in f64 and leaves the sum in the context's memory; the block that finishes last adds these up
 * in order. The number of blocks depends on n alone, so the bits do too. Bound by memory: an element is read once.
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int64_t EACH = 16 << 10; // elements of a block at least

/** x^2, or w x where there are weights, or x. */
struct Square {
  const float* x;
  __device__ double at(int64_t i) const { return double(x[i]) * x[i]; }
};
struct Weighted {
  const float *x, *w;
  __device__ double at(int64_t i) const { return w ? double(x[i]) * w[i] : x[i]; }
};

template <class F, class Y>
__global__ void __launch_bounds__(THREADS) sum_kernel(Y* y, F f, int64_t n, bool accumulate, Reduction* scratch) {
  SHARED(double, slots, [WARPS]);
  SHARED(int, isLast, [1]);
  double sum = 0;
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) sum += f.at(i);
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) {
    scratch->partial[blockIdx.x] = sum;
    __threadfence();
    isLast[0] = atomicAdd(&scratch->finished, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!isLast[0]) return;
  __threadfence();
  double total = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) total += *static_cast<volatile double*>(&scratch->partial[i]);
  total = block_sum(total, slots);
  if (threadIdx.x == 0) {
    *y = Y(accumulate ? double(*y) + total : total);
    scratch->finished = 0; // for the next launch
  }
}

template <class F, class Y> void sum(Context& cx, const char* name, Y* y, F f, int64_t n, bool accumulate) {
  const Shape shape{blocks_for(n, EACH, Reduction::MOST), THREADS};
  launch(cx, name, sum_kernel<F, Y>, shape, y, f, n, accumulate, cx.reduction);
}

__global__ void __launch_bounds__(1) clip_kernel(float* y, const double* sum, const float* maxNorm) {
  const double norm = sqrt(*sum), limit = *maxNorm;
  double scale = 1;
  if (!(norm <= 1.7976931348623157e308)) scale = NAN;
  else if (limit > 0) scale = fmin(limit / (norm + 1e-6), 1.0);
  y[0] = float(scale);
  y[1] = float(norm);
}

constexpr int64_t NONE = 0x7fffffffffffffff;

__global__ void __launch_bounds__(1) first_start_kernel(long long* y) { *y = NONE; }
template <class T> __global__ void __launch_bounds__(THREADS) first_kernel(long long* y, const T* x, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) {
    const float v = to_f32(x[i]);
    if (!(v - v == 0)) {
      atomicMin(y, static_cast<long long>(i));
      return; // later ones of this thread are larger
    }
  }
}
__global__ void __launch_bounds__(1) first_end_kernel(long long* y) {
  if (*y == NONE) *y = -1;
}

} // namespace

int32_t nc_weighted_sum(nc_context* ctx, void* y, void* x, void* w, int64_t n, int32_t accumulate) {
  return entry(ctx, "nc_weighted_sum", [&](Context& cx) {
    const Weighted f{array<float>(cx, x, n, "x"), optional<float>(cx, w, n, "w")};
    sum(cx, "nc_weighted_sum", array<float>(cx, y, 1, "y"), f, n, accumulate != 0);
  });
}

int32_t nc_sum_squares(nc_context* ctx, void* y, void* x, int64_t n, int32_t accumulate) {
  return entry(ctx, "nc_sum_squares", [&](Context& cx) {
    sum(cx, "nc_sum_squares", array<double>(cx, y, 1, "y"), Square{array<float>(cx, x, n, "x")}, n, accumulate != 0);
  });
}

int32_t nc_clip_scale(nc_context* ctx, void* y, void* sum, void* maxNorm) {
  return entry(ctx, "nc_clip_scale", [&](Context& cx) {
    launch(cx, "nc_clip_scale", clip_kernel, {1, 1}, array<float>(cx, y, 2, "y"), array<double>(cx, sum, 1, "sum"),
      array<float>(cx, maxNorm, 1, "maxNorm"));
  });
}

int32_t nc_first_non_finite(nc_context* ctx, void* y, void* x, int64_t n, int32_t dtype) {
  return entry(ctx, "nc_first_non_finite", [&](Context& cx) {
    auto* first = array<long long>(cx, y, 1, "y");
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      const T* in = array<T>(cx, x, n, "x");
      launch(cx, "nc_first_non_finite", first_start_kernel, {1, 1}, first);
      if (n > 0) launch(cx, "nc_first_non_finite", first_kernel<T>, {blocks_for(n, EACH, 4096), THREADS}, first, in, n);
      launch(cx, "nc_first_non_finite", first_end_kernel, {1, 1}, first);
    });
  });
}
