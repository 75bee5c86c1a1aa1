/**
 * Rows as integers of 8 bits: q = round(x (127 / max |x|)), ties to even, with the scale max |x| / 127; every step in f32 as on the CPU, so
 * that products have the same bits there. A block a row, which it reads twice, the second time from the cache; bytes moved bound it.
 */
#include "matmul_tile.cuh"

namespace {

constexpr int THREADS = 128;

/** q (rows, stride) = round(x (127 / max |x|)) by rows, zeros behind them; scales (rows) = max |x| / 127. A block a row. */
template <class X>
__global__ void __launch_bounds__(THREADS) quantise_kernel(int8_t* q, float* scales, const X* x, int64_t xStride, int64_t K, int64_t stride) {
  constexpr float SMALLEST = 0x1p-120f, ROUND = 0x1.8p23f; // adding ROUND leaves an integer, rounded to even, in the low bits
  SHARED(uint32_t, slots, [THREADS / WARP]);
  const X* row = x + blockIdx.x * xStride;
  uint32_t bits = 0; // of positive numbers they are in their order, infinity and NaN above them
  for (int64_t k = threadIdx.x; k < K; k += THREADS) bits = max(bits, __float_as_uint(to_f32(row[k])) & 0x7fffffffu);
  for (int o = WARP / 2; o > 0; o >>= 1) bits = max(bits, __shfl_xor_sync(ALL_LANES, bits, o));
  if (threadIdx.x % WARP == 0) slots[threadIdx.x / WARP] = bits;
  __syncthreads();
  for (const uint32_t each : slots) bits = max(bits, each);
  const float largest = __uint_as_float(bits);
  const bool isFinite = bits < 0x7f800000u, isZero = largest < SMALLEST || !isFinite;
  const float inverse = isZero ? 0 : 127 / largest;
  uint32_t* words = reinterpret_cast<uint32_t*>(q + blockIdx.x * stride);
  for (int64_t word = threadIdx.x; word < stride / 4; word += THREADS) {
    uint32_t four = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t k = word * 4 + i;
      const float v = k < K && !isZero ? to_f32(row[k]) : 0;
      four |= (__float_as_uint(__fadd_rn(__fmul_rn(v, inverse), ROUND)) & 0xffu) << (8 * i);
    }
    words[word] = four;
  }
  if (threadIdx.x == 0) scales[blockIdx.x] = isFinite ? isZero ? 0 : largest / 127 : NAN;
}

} // namespace

void quantise(Context& cx, const char* name, int8_t* q, float* scales, const View& x, int64_t rows, int64_t K) {
  if (K > 1 << 17) refuse(NC_STATUS_INVALID, "Cannot multiply: K is %lld, expected at most %d for i8, whose sums are integers of 32 bits", (long long)K, 1 << 17);
  with_float(x.dtype, [&](auto type) {
    using X = decltype(type);
    launch(cx, name, quantise_kernel<X>, {unsigned(rows), THREADS}, q, scales, static_cast<const X*>(x.data), x.rowStride, K, int8_stride(K));
  });
}

int64_t int8_bytes(int64_t N, int64_t K) { return N * (int8_stride(K) + int64_t(sizeof(float))); }

void pack_int8(Context& cx, const char* name, void* packed, const void* w, int64_t N, int64_t K, int32_t dtype) {
  int8_t* q = static_cast<int8_t*>(packed);
  quantise(cx, name, q, reinterpret_cast<float*>(q + N * int8_stride(K)), {w, dtype, K, 1}, N, K);
}
