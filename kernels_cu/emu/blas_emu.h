/** The twin of cuBLASLt: takes the same column-major terms and adds up with a plain loop. */
#pragma once
#include "../blas.cuh"

namespace emu {

/** An element of D a thread. */
template <class X, class Y> __global__ void twin_kernel(BlasProduct p) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, i = at % p.m, j = at / p.m;
  if (j >= p.n) return;
  const auto element = [&](const BlasMatrix& x, int64_t row, int64_t column) {
    const int64_t r = x.transposed ? column : row, c = x.transposed ? row : column;
    return to_f32(static_cast<const X*>(x.data)[blockIdx.z * x.batchStride + r + c * x.ld]);
  };
  float sum = 0;
  for (int64_t k = 0; k < p.k; k++) sum += element(p.a, i, k) * element(p.b, k, j);
  float y = p.alpha * sum;
  if (p.beta != 0) y += p.beta * to_f32(static_cast<const Y*>(p.c.data)[blockIdx.z * p.c.batchStride + i + j * p.c.ld]);
  static_cast<Y*>(const_cast<void*>(p.d.data))[blockIdx.z * p.d.batchStride + i + j * p.d.ld] = from_f32<Y>(y);
}

/** As strict as the heuristic may be: leading dimensions and addresses that are multiples of 16 bytes. */
inline bool suits(const BlasMatrix& x) {
  const int64_t size = x.dtype == NC_DTYPE_F32 ? 4 : 2;
  return reinterpret_cast<uint64_t>(x.data) % 16 == 0 && x.ld * size % 16 == 0;
}

inline bool blas_twin(Context& cx, const char* name, const BlasProduct& p) {
  if (!suits(p.a) || !suits(p.b) || !suits(p.c) || !suits(p.d)) return false;
  const Shape shape{{blocks_for(p.m * p.n, 128, INT32_MAX), 1, unsigned(p.batch)}, 128};
  with_float(p.a.dtype, [&](auto operand) {
    with_float(p.d.dtype, [&](auto result) { launch(cx, name, twin_kernel<decltype(operand), decltype(result)>, shape, p); });
  });
  return true;
}

} // namespace emu
