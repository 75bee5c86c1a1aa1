/**
 * Writes the keys and values of new tokens into a layer's cache (B, G, capacity, D).
 *
 * Token t < counts[b] of row b goes to position positions[b] + t. A thread moves 16 bytes of k and of v, single elements where rows are
 * not aligned. Bound: bytes moved, each element read and written once; a decode step is shorter than its launch.
 */
#include "cache.cuh"

namespace {

constexpr int THREADS = 256;

template <class T, bool VECTOR>
__global__ void __launch_bounds__(THREADS) append_kernel(
  T* kCache, T* vCache, const T* k, const T* v, Progress progress, int B, int T_, int G, int D, Failure* failure) {
  constexpr int STEP = VECTOR ? Vec<T>::N : 1;
  const int64_t each = D / STEP, n = int64_t(B) * T_ * G * each;
  for (int64_t i = int64_t(blockIdx.x) * THREADS + threadIdx.x; i < n; i += int64_t(gridDim.x) * THREADS) {
    const int64_t row = i / each, d = i % each * STEP; // row of k: (b, t, g)
    const int g = int(row % G), t = int(row / G % T_), b = int(row / G / T_);
    const int position = progress.position(b), count = progress.count(b, failure, g == 0 && t == 0 && d == 0);
    if (t >= count) continue;
    const int64_t to = ((int64_t(b) * G + g) * progress.capacity + position + t) * D + d;
    if (VECTOR) {
      store_vec(kCache + to, load_vec(k + row * D + d));
      store_vec(vCache + to, load_vec(v + row * D + d));
    } else {
      kCache[to] = k[row * D + d];
      vCache[to] = v[row * D + d];
    }
  }
}

} // namespace

int32_t nc_kv_append(nc_context* ctx, void* kCache, void* vCache, void* k, void* v, void* positions, void* counts, int32_t B, int32_t T,
  int32_t G, int32_t D, int32_t capacity, int32_t dtype) {
  return entry(ctx, "nc_kv_append", [&](Context& cx) {
    const Progress progress(cx, positions, counts, B, T, capacity);
    const int64_t rows = size(B, "B") * size(G, "G"), cached = rows * capacity * size(D, "D"), n = rows * T * D;
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      E *keys = array<E>(cx, kCache, cached, "kCache"), *values = array<E>(cx, vCache, cached, "vCache");
      E *key = array<E>(cx, k, n, "k"), *value = array<E>(cx, v, n, "v");
      if (n == 0) return;
      const bool vector = D % Vec<E>::N == 0 && all_aligned(keys, values, key, value);
      launch(cx, "nc_kv_append", vector ? append_kernel<E, true> : append_kernel<E, false>,
        {blocks_for(vector ? n / Vec<E>::N : n, THREADS), THREADS}, keys, values, key, value, progress, B, T, G, D, cx.failure);
    });
  });
}
