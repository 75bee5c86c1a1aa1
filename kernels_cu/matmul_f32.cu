/**
 * Products of operands of f32, or of two types: 64 x 64 elements of C a block, 4 x 4 a thread, by multiply-adds in fp32.
 *
 * Bound: the multiply-adds, 16 for two reads of 16 bytes of shared memory. For checks in fp32; training in fp32 has cuBLASLt.
 */
#include "matmul_tile.cuh"

#include <algorithm>

namespace {

constexpr int FMA_TILE = 64, FMA_DEPTH = 16, FMA_THREADS = 256, FMA_STRIDE = FMA_TILE + 4;

template <class T>
__device__ __forceinline__ void load_lines(float* tile, const Operand& operand, int64_t first, int k0, int end, bool relu2) {
  const T* data = static_cast<const T*>(operand.data) + blockIdx.z * operand.batchStride;
  const bool alongK = operand.kStride == 1;
#pragma unroll
  for (int i = 0; i < FMA_DEPTH * FMA_TILE / FMA_THREADS; i++) {
    const int e = threadIdx.x + i * FMA_THREADS;
    const int k = alongK ? e % FMA_DEPTH : e / FMA_TILE, l = alongK ? e / FMA_DEPTH : e % FMA_TILE;
    float v = 0;
    if (first + l < operand.lines && k0 + k < end) v = to_f32(data[(first + l) * operand.lineStride + (k0 + k) * operand.kStride]);
    if (relu2) v = rounded<T>(relu(v) * relu(v));
    tile[k * FMA_STRIDE + l] = v;
  }
}

/** 64 x 64 elements of C, 4 x 4 a thread. `slice`: elements of K that are summed from zero. */
template <class A, class B>
__global__ void __launch_bounds__(FMA_THREADS) fma_kernel(Operand a, Operand b, int K, int slice, bool relu2B, Target t) {
  DYNAMIC_SHARED(float, shared);
  float *as = shared, *bs = shared + FMA_DEPTH * FMA_STRIDE;
  const Position at = position((t.M + FMA_TILE - 1) / FMA_TILE, (t.N + FMA_TILE - 1) / FMA_TILE);
  const int64_t i0 = at.row * FMA_TILE, j0 = at.column * FMA_TILE;
  if (t.symmetric && j0 < i0) return;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  float totals[4][4] = {};
  for (int from = 0; from < K; from += slice) {
    const int end = min(K, from + slice);
    float sums[4][4] = {};
    for (int k0 = from; k0 < end; k0 += FMA_DEPTH) {
      __syncthreads();
      load_lines<A>(as, a, i0, k0, end, false);
      load_lines<B>(bs, b, j0, k0, end, relu2B);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < FMA_DEPTH; k++) {
        const Vec<float> x = load_vec(as + k * FMA_STRIDE + row), y = load_vec(bs + k * FMA_STRIDE + column);
#pragma unroll
        for (int e = 0; e < 16; e++) sums[e / 4][e % 4] = fmaf(x.at[e / 4], y.at[e % 4], sums[e / 4][e % 4]);
      }
    }
#pragma unroll
    for (int e = 0; e < 16; e++) totals[e / 4][e % 4] += sums[e / 4][e % 4];
  }
  for (int mirrored = 0; mirrored < (t.symmetric && i0 != j0 ? 2 : 1); mirrored++) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 16; e++) {
      const int r = row + e / 4, c = column + e % 4;
      shared[mirrored ? c * FMA_STRIDE + r : r * FMA_STRIDE + c] = totals[e / 4][e % 4];
    }
    __syncthreads();
    write_tile<FMA_TILE, FMA_TILE, FMA_STRIDE, FMA_THREADS>(t, shared, mirrored ? j0 : i0, mirrored ? i0 : j0, t.symmetric && i0 == j0);
  }
}

} // namespace

void multiply_f32(const Job& job, int32_t dtypeA, int32_t dtypeB) {
  const Shape shape{{squares(job.t, FMA_TILE), 1, unsigned(job.batch)}, FMA_THREADS, FMA_TILE * FMA_STRIDE * sizeof(float)};
  const int64_t slice = std::max<int64_t>(1, pieces(pieces(job.K, FMA_DEPTH), SLICES)) * FMA_DEPTH;
  const auto run = [&](auto kernel) { launch(job.cx, job.name, kernel, shape, job.a, job.b, job.K, slice, job.relu2B, job.t); };
  if (dtypeA == NC_DTYPE_F32 && dtypeB == NC_DTYPE_F32) run(fma_kernel<float, float>);
  else if (dtypeA == NC_DTYPE_F32) run(fma_kernel<float, bf16>);
  else run(fma_kernel<bf16, float>);
}
