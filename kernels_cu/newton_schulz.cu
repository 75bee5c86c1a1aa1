/**
 * Newton-Schulz orthogonalisation, the heart of Muon: O = U V^T of X = U S V^T, roughly (singular values end near 1).
 *
 *   X = X / (|X|_F + 1e-7);  repeat: A = X X^T, B = b A + (c A) A, X = a X + B X
 *
 * (a, b, c) = (3.4445, -4.7750, 2.0315) is the quintic of nanochat/muon.py. A matrix with more rows than columns uses A = X^T X and
 * X = a X + X B, which is the same on the transposed matrix; so nothing is ever transposed in memory. A and B are symmetric: one half is
 * computed where the product allows it. bf16 rounds after every operation, as PyTorch does; products sum in fp32. All matrices of a batch
 * go through each product together. The CPU's way through the Gram matrix of long bf16 matrices would need fp32 products, which tensor
 * cores do not have.
 */
#include "matmul.cuh"

#include <algorithm>

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr float A = 3.4445f, B = -4.7750f, C = 2.0315f, EPS = 1e-7f;
constexpr int64_t PARTS = 64; // of a norm at most
constexpr int64_t SPARE_SUMS = 4096 / 8 - 1; // sums for which the scratch has room at its end

template <class T> __device__ inline float rounded(float x) { return to_f32(from_f32<T>(x)); }

/** Leaves the sum of squares of part blockIdx.x of matrix blockIdx.y. */
template <class T>
__global__ void __launch_bounds__(THREADS) norm_kernel(double* sums, const T* x, int64_t n) {
  SHARED(double, slots, [WARPS]);
  const T* own = x + int64_t(blockIdx.y) * n;
  double sum = 0;
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) {
    sum += double(to_f32(own[i])) * to_f32(own[i]);
  }
  sum = block_sum(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

/** y = x / (|x| + eps), the norm from the sums of its parts; y may be x. */
template <class T>
__global__ void __launch_bounds__(THREADS)
  normalize_kernel(T* y, int64_t yStride, const T* x, int64_t n, const double* sums, int parts) {
  double total = 0;
  for (int i = 0; i < parts; i++) total += sums[blockIdx.y * parts + i];
  const float divisor = rounded<T>(rounded<T>(float(sqrt(total))) + EPS);
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) {
    y[blockIdx.y * yStride + i] = from_f32<T>(to_f32(x[blockIdx.y * n + i]) / divisor);
  }
}

/** y = factor x for a batch. */
template <class T>
__global__ void __launch_bounds__(THREADS) scale_kernel(T* y, int64_t yStride, const T* x, int64_t xStride, int64_t n, float factor) {
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) {
    y[blockIdx.y * yStride + i] = from_f32<T>(factor * to_f32(x[blockIdx.y * xStride + i]));
  }
}

/** A batch of matrices somewhere. */
template <class T> struct Batch {
  T* data;
  int64_t stride; // elements
};

template <class T>
void orthogonalize(Context& cx, T* o, T* x, char* scratch, int64_t batch, int64_t rows, int64_t cols, int32_t steps, int32_t dtype) {
  const char* name = "nc_newton_schulz";
  const int64_t m = rows < cols ? rows : cols, n = rows * cols, need = (n + 2 * m * m) * 4, stride = need / int64_t(sizeof(T));
  const bool wide = rows <= cols;
  const Batch<T> result{o, n}, other{reinterpret_cast<T*>(scratch), stride};
  const Batch<T> a{other.data + n, stride}, b{other.data + n + m * m, stride};
  // The two buffers of X take turns so that the last step writes o.
  Batch<T> from = steps % 2 == 0 ? result : other, to = steps % 2 == 0 ? other : result;

  double* sums = reinterpret_cast<double*>(scratch + (batch * need + 7) / 8 * 8); // the spare bytes hold those of some matrices
  const int64_t parts = std::clamp<int64_t>(SPARE_SUMS / batch, 1, PARTS), group = SPARE_SUMS / parts;
  for (int64_t first = 0; first < batch; first += group) {
    const unsigned count = unsigned(std::min(group, batch - first));
    launch(cx, name, norm_kernel<T>, {dim3(unsigned(parts), count), THREADS}, sums, x + first * n, n);
    launch(cx, name, normalize_kernel<T>, {dim3(blocks_for(n, THREADS * 8, 1024), count), THREADS}, from.data + first * from.stride, from.stride,
      x + first * n, n, sums, int(parts));
  }

  const auto view = [&](const Batch<T>& of, int64_t width) { return rows_view(of.data, dtype, width, of.stride); };
  for (int32_t step = 0; step < steps; step++) {
    const View X = view(from, cols);
    Product square{m, m, wide ? cols : rows, wide ? X : X.transposed(), wide ? X.transposed() : X, {a.data, dtype, m, a.stride}};
    square.batch = batch, square.symmetric = true;
    multiply_fast(cx, name, square);
    launch(cx, name, scale_kernel<T>, {dim3(blocks_for(m * m, THREADS * 4, 1024), unsigned(batch)), THREADS}, to.data, to.stride, a.data, a.stride,
      m * m, C);
    Product blend{m, m, m, view(to, m), view(a, m), {b.data, dtype, m, b.stride}, Epilogue::BLEND, a.data, a.stride};
    blend.beta = B, blend.batch = batch, blend.symmetric = true;
    multiply_fast(cx, name, blend);
    const View factor = view(b, m);
    Product next{rows, cols, m, wide ? factor : X, wide ? X : factor, {to.data, dtype, cols, to.stride}, Epilogue::BLEND, from.data, from.stride};
    next.beta = A, next.batch = batch;
    multiply_fast(cx, name, next);
    std::swap(from, to);
  }
}

} // namespace

int32_t nc_newton_schulz(nc_context* ctx, void* o, void* x, void* scratch, int32_t batch, int32_t rows, int32_t cols, int32_t steps, int32_t dtype) {
  return entry(ctx, "nc_newton_schulz", [&](Context& cx) {
    const int64_t count = size(batch, "batch"), height = size(rows, "rows"), width = size(cols, "cols"), n = height * width;
    size(steps, "steps");
    const int64_t small = height < width ? height : width;
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      T *out = array<T>(cx, o, count * n, "o"), *in = array<T>(cx, x, count * n, "x");
      char* spare = array<char>(cx, scratch, count * (n + 2 * small * small) * 4 + 4096, "scratch");
      if (count * n > 0) orthogonalize(cx, out, in, spare, count, height, width, steps, dtype);
    });
  });
}
