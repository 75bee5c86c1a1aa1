/**
 * Causal attention in fp32 arithmetic, forward and backward: for fp32, and for bf16 with heads wider than the tensor cores' kernels take.
 *
 * Formulas as in attention.cu and attention_bwd.cu. A block owns N rows (queries, or keys for dk and dv) of a head and meets tiles of N
 * of the other kind in rising order; 8 threads share a row: each computes N / 8 of its scores and an eighth of its columns. Rows in shared
 * memory are 4 elements longer than DW, so that 8 rows read 16 bytes each without conflict. N is 32, or 16 for heads above 128.
 *
 * Bound: shared memory, 5 reads of 16 bytes for 16 multiply-adds; a path for checks and odd models, not for training at scale.
 */
#include "attention.cuh"

namespace {

template <int DW> struct Width {
  static constexpr int N = DW > 128 ? 16 : 32, THREADS = N * 8, STRIDE = DW + 4, TILE = N * STRIDE;
  static constexpr int SCORES = N / 8, QUARTERS = DW / 32; // scores of a thread, and its columns in groups of 4
};

/** Loads N rows as fp32; rows from rows.valid on and columns from D on are 0. */
template <int DW, class T> __device__ void load_f32(float* tile, Rows<const T> rows, int D) {
  using W = Width<DW>;
  for (int i = threadIdx.x; i < W::N * DW; i += W::THREADS) {
    const int row = i / DW, d = i % DW;
    tile[row * W::STRIDE + d] = rows.has(row) && d < D ? to_f32(rows(row)[d]) : 0;
  }
}

/** Products of a row with the thread's rows of another tile. */
template <int DW> __device__ void dots(float (&s)[Width<DW>::SCORES], const float* row, const float* tile) {
  using W = Width<DW>;
  const int c = threadIdx.x % 8;
  for (int i = 0; i < W::SCORES; i++) s[i] = 0;
  for (int d = 0; d < DW; d += 4) {
    const Vec<float> x = load_vec(row + d);
    for (int i = 0; i < W::SCORES; i++) {
      const Vec<float> y = load_vec(tile + (c + 8 * i) * W::STRIDE + d);
      for (int e = 0; e < 4; e++) s[i] = fmaf(x.at[e], y.at[e], s[i]);
    }
  }
}

/** y += w . tile for the thread's columns. */
template <int DW> __device__ void add_weighted(float (&y)[Width<DW>::QUARTERS][4], const float* w, const float* tile) {
  using W = Width<DW>;
  const int c = threadIdx.x % 8;
  for (int j = 0; j < W::N; j++) {
#pragma unroll
    for (int i = 0; i < W::QUARTERS; i++) {
      const Vec<float> x = load_vec(tile + j * W::STRIDE + 32 * i + 4 * c);
      for (int e = 0; e < 4; e++) y[i][e] = fmaf(w[j], x.at[e], y[i][e]);
    }
  }
}

/** Writes the thread's columns times a factor to a row. */
template <int DW, class T> __device__ void store_columns(T* row, const float (&y)[Width<DW>::QUARTERS][4], float factor, int D) {
#pragma unroll
  for (int i = 0; i < Width<DW>::QUARTERS; i++) {
    for (int e = 0; e < 4; e++) {
      const int d = 32 * i + 4 * int(threadIdx.x % 8) + e;
      if (d < D) row[d] = from_f32<T>(y[i][e] * factor);
    }
  }
}

template <int DW> __device__ void clear(float (&y)[Width<DW>::QUARTERS][4]) {
#pragma unroll
  for (int i = 0; i < Width<DW>::QUARTERS; i++) for (int e = 0; e < 4; e++) y[i][e] = 0;
}

/** Over the 8 threads of a row. */
__device__ __forceinline__ float row_max(float x) {
  x = quad_max(x);
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 4));
}
__device__ __forceinline__ float row_sum(float x) {
  x = quad_sum(x);
  return x + __shfl_xor_sync(ALL_LANES, x, 4);
}

/** Where the rows of one head lie; a block of the grid is one tile of one head of one row. */
struct Place {
  int b, h, i0, length;
  int stride; // of its rows
  int64_t row; // first element of the head in the tensor, token 0

  __device__ Place(const AttentionSizes& s, int heads, int N, const int32_t* lengths, Failure* failure) {
    const int tiles = (s.T + N - 1) / N;
    b = int(blockIdx.x) / tiles / heads, h = int(blockIdx.x) / tiles % heads, i0 = int(blockIdx.x) % tiles * N;
    length = row_length(lengths, b, s.T, failure);
    stride = heads * s.D;
    row = (int64_t(b) * s.T * heads + h) * s.D;
  }
};

template <int DW, class T>
__global__ void __launch_bounds__(Width<DW>::THREADS) forward_kernel(
  T* o, float* lse, const T* q, const T* k, const T* v, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  using W = Width<DW>;
  DYNAMIC_SHARED(float, shared);
  float *sharedQ = shared, *sharedK = sharedQ + W::TILE, *sharedV = sharedK + W::TILE, *weights = sharedV + W::TILE;
  const Place at(size, size.H, W::N, lengths, failure);
  const int tokens = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const float scale = size.scale;
  const int r = threadIdx.x / 8, c = threadIdx.x % 8, i = at.i0 + r, end = min(at.length, at.i0 + W::N);
  const int strideKey = G * D;
  const int64_t key = (int64_t(at.b) * tokens * G + int64_t(at.h) * G / H) * D;
  load_f32<DW>(sharedQ, Rows<const T>{q + at.row + int64_t(at.i0) * at.stride, at.stride, end - at.i0}, D);
  float sums[W::QUARTERS][4], top = -INFINITY, sum = 0;
  clear<DW>(sums);
  for (int j0 = max(0, at.i0 - window) / W::N * W::N; j0 < end; j0 += W::N) {
    __syncthreads(); // the tile before has been used
    load_f32<DW>(sharedK, Rows<const T>{k + key + int64_t(j0) * strideKey, strideKey, end - j0}, D);
    load_f32<DW>(sharedV, Rows<const T>{v + key + int64_t(j0) * strideKey, strideKey, end - j0}, D);
    __syncthreads();
    float s[W::SCORES], m = top, l = 0;
    dots<DW>(s, sharedQ + r * W::STRIDE, sharedK);
    for (int n = 0; n < W::SCORES; n++) {
      const int ahead = i - (j0 + c + 8 * n);
      s[n] = ahead < 0 || ahead > window ? -INFINITY : s[n] * scale;
      m = fmaxf(m, s[n]);
    }
    m = row_max(m);
    const float base = finite_base(m), shrink = expf(top - base);
    for (int n = 0; n < W::SCORES; n++) {
      const float p = expf(s[n] - base);
      weights[r * (W::N + 1) + c + 8 * n] = p;
      l += p;
    }
    top = m;
    sum = fmaf(sum, shrink, l);
#pragma unroll
    for (int n = 0; n < W::QUARTERS; n++) for (int e = 0; e < 4; e++) sums[n][e] *= shrink;
    __syncwarp(); // a row belongs to one warp
    add_weighted<DW>(sums, weights + r * (W::N + 1), sharedV);
  }
  const bool valid = i < end;
  const float l = row_sum(sum);
  if (i >= tokens) return;
  store_columns<DW>(o + at.row + int64_t(i) * at.stride, sums, valid ? 1 / l : 0, D);
  if (lse && c == 0) lse[(int64_t(at.b) * H + at.h) * tokens + i] = valid ? top + logf(l) : 0;
}

/** dq of a tile of queries. */
template <int DW, class T>
__global__ void __launch_bounds__(Width<DW>::THREADS) queries_kernel(T* dq, const T* dO, const T* q, const T* k, const T* v, const float* lse,
  const float* delta, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  using W = Width<DW>;
  DYNAMIC_SHARED(float, shared);
  float *sharedQ = shared, *sharedO = sharedQ + W::TILE, *sharedK = sharedO + W::TILE, *sharedV = sharedK + W::TILE;
  float* weights = sharedV + W::TILE;
  const Place at(size, size.H, W::N, lengths, failure);
  const int tokens = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const float scale = size.scale;
  const int r = threadIdx.x / 8, c = threadIdx.x % 8, i = at.i0 + r, end = min(at.length, at.i0 + W::N);
  const int strideKey = G * D;
  const int64_t key = (int64_t(at.b) * tokens * G + int64_t(at.h) * G / H) * D;
  const int64_t statistic = (int64_t(at.b) * H + at.h) * tokens + i;
  load_f32<DW>(sharedQ, Rows<const T>{q + at.row + int64_t(at.i0) * at.stride, at.stride, end - at.i0}, D);
  load_f32<DW>(sharedO, Rows<const T>{dO + at.row + int64_t(at.i0) * at.stride, at.stride, end - at.i0}, D);
  const float logSum = i < end ? lse[statistic] : INFINITY, shift = i < end ? delta[statistic] : 0;
  float sums[W::QUARTERS][4];
  clear<DW>(sums);
  for (int j0 = max(0, at.i0 - window) / W::N * W::N; j0 < end; j0 += W::N) {
    __syncthreads(); // the tile before has been used
    load_f32<DW>(sharedK, Rows<const T>{k + key + int64_t(j0) * strideKey, strideKey, end - j0}, D);
    load_f32<DW>(sharedV, Rows<const T>{v + key + int64_t(j0) * strideKey, strideKey, end - j0}, D);
    __syncthreads();
    float s[W::SCORES], dp[W::SCORES];
    dots<DW>(s, sharedQ + r * W::STRIDE, sharedK);
    dots<DW>(dp, sharedO + r * W::STRIDE, sharedV);
    for (int n = 0; n < W::SCORES; n++) {
      const int ahead = i - (j0 + c + 8 * n);
      const float p = ahead < 0 || ahead > window ? 0 : expf(s[n] * scale - logSum);
      weights[r * (W::N + 1) + c + 8 * n] = p * (dp[n] - shift);
    }
    __syncwarp(); // a row belongs to one warp
    add_weighted<DW>(sums, weights + r * (W::N + 1), sharedK);
  }
  if (i < tokens) store_columns<DW>(dq + at.row + int64_t(i) * at.stride, sums, scale, D);
}

/** dk and dv of a tile of keys: query heads, and for each its query tiles, in rising order. */
template <int DW, class T>
__global__ void __launch_bounds__(Width<DW>::THREADS) keys_kernel(T* dk, T* dv, const T* dO, const T* q, const T* k, const T* v,
  const float* lse, const float* delta, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  using W = Width<DW>;
  DYNAMIC_SHARED(float, shared);
  float *sharedQ = shared, *sharedO = sharedQ + W::TILE, *sharedK = sharedO + W::TILE, *sharedV = sharedK + W::TILE;
  float *weights = sharedV + W::TILE, *slopes = weights + W::N * (W::N + 1);
  const Place at(size, size.G, W::N, lengths, failure);
  const int tokens = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const float scale = size.scale;
  const int r = threadIdx.x / 8, c = threadIdx.x % 8, j = at.i0 + r, keys = at.length - at.i0;
  const int strideQuery = H * D;
  load_f32<DW>(sharedK, Rows<const T>{k + at.row + int64_t(at.i0) * at.stride, at.stride, keys}, D);
  load_f32<DW>(sharedV, Rows<const T>{v + at.row + int64_t(at.i0) * at.stride, at.stride, keys}, D);
  float dKey[W::QUARTERS][4], dValue[W::QUARTERS][4];
  clear<DW>(dKey);
  clear<DW>(dValue);
  const int end = keys <= 0 ? 0 : min(at.length, at.i0 + W::N + window); // of the queries that see some key
  for (int h = at.h * (H / G); h < (at.h + 1) * (H / G); h++) {
    const int64_t query = (int64_t(at.b) * tokens * H + h) * D, statistic = (int64_t(at.b) * H + h) * tokens;
    for (int i0 = at.i0; i0 < end; i0 += W::N) {
      __syncthreads(); // the tile before has been used
      load_f32<DW>(sharedQ, Rows<const T>{q + query + int64_t(i0) * strideQuery, strideQuery, end - i0}, D);
      load_f32<DW>(sharedO, Rows<const T>{dO + query + int64_t(i0) * strideQuery, strideQuery, end - i0}, D);
      __syncthreads();
      float s[W::SCORES], dp[W::SCORES];
      dots<DW>(s, sharedK + r * W::STRIDE, sharedQ);
      dots<DW>(dp, sharedV + r * W::STRIDE, sharedO);
      for (int n = 0; n < W::SCORES; n++) {
        const int i = i0 + c + 8 * n, ahead = i - j;
        const bool seen = i < end && j < at.length && ahead >= 0 && ahead <= window;
        const float p = seen ? expf(s[n] * scale - lse[statistic + i]) : 0;
        weights[r * (W::N + 1) + c + 8 * n] = p;
        slopes[r * (W::N + 1) + c + 8 * n] = seen ? p * (dp[n] - delta[statistic + i]) : 0;
      }
      __syncwarp(); // a row belongs to one warp
      add_weighted<DW>(dValue, weights + r * (W::N + 1), sharedO);
      add_weighted<DW>(dKey, slopes + r * (W::N + 1), sharedQ);
    }
  }
  if (j >= tokens) return;
  store_columns<DW>(dk + at.row + int64_t(j) * at.stride, dKey, scale, D);
  store_columns<DW>(dv + at.row + int64_t(j) * at.stride, dValue, 1, D);
}

/** Calls `run` with the width for head size D; bf16 comes here for wide heads alone. */
template <class T, class F> void with_f32_width(int D, F&& run) {
  if constexpr (std::is_same_v<T, float>) {
    if (D <= 64) return run(std::integral_constant<int, 64>());
    if (D <= 128) return run(std::integral_constant<int, 128>());
  }
  run(std::integral_constant<int, 256>());
}

/** Blocks of a launch with tiles and score matrices in shared memory. */
template <int DW> Shape shape_of(const AttentionSizes& s, int heads, int tiles, int matrices) {
  using W = Width<DW>;
  return {attention_blocks(s, heads, W::N), W::THREADS, (tiles * W::TILE + matrices * W::N * (W::N + 1)) * sizeof(float)};
}

} // namespace

template <class T>
void attention_f32_fwd(Context& cx, T* o, float* lse, const T* q, const T* k, const T* v, const int32_t* lengths, const AttentionSizes& s) {
  with_f32_width<T>(s.D, [&](auto width) {
    constexpr int DW = decltype(width)::value;
    launch(cx, "nc_attention_fwd", forward_kernel<DW, T>, shape_of<DW>(s, s.H, 3, 1), o, lse, q, k, v, lengths, s, cx.failure);
  });
}

template <class T>
void attention_f32_bwd(Context& cx, T* dq, T* dk, T* dv, const T* dO, const T* q, const T* k, const T* v, const float* lse,
  const float* delta, const int32_t* lengths, const AttentionSizes& s) {
  with_f32_width<T>(s.D, [&](auto width) {
    constexpr int DW = decltype(width)::value;
    launch(cx, "nc_attention_bwd", keys_kernel<DW, T>, shape_of<DW>(s, s.G, 4, 2), dk, dv, dO, q, k, v, lse, delta, lengths, s, cx.failure);
    launch(cx, "nc_attention_bwd", queries_kernel<DW, T>, shape_of<DW>(s, s.H, 4, 1), dq, dO, q, k, v, lse, delta, lengths, s, cx.failure);
  });
}

#define INSTANTIATE(T)                                                                                                             \
  template void attention_f32_fwd(Context&, T*, float*, const T*, const T*, const T*, const int32_t*, const AttentionSizes&);      \
  template void attention_f32_bwd(Context&, T*, T*, T*, const T*, const T*, const T*, const T*, const float*, const float*, const int32_t*, \
    const AttentionSizes&);
INSTANTIATE(float)
INSTANTIATE(bf16)
