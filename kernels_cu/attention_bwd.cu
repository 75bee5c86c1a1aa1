/**
 * Gradients of causal attention (FlashAttention-2, arXiv 2307.08691, algorithm 2) from the saved log sums, without atomics.
 *
 *   p_ij = e^(s_ij - lse_i), delta_i = do_i . o_i, ds_ij = p_ij (do_i . v_j - delta_i)
 *   dv_j = sum_i p_ij do_i, dk_j = scale sum_i ds_ij q_i, dq_i = scale sum_j ds_ij k_j
 *
 * Three launches: delta, a group of 8 lanes for a row; dk and dv, a block of 4 warps for 64 keys of a key head, which walks its query
 * heads and their tiles of 64 queries in rising order; dq, a block for 64 queries of a head, which walks the keys. That computes the scores
 * twice, 7 products in place of 5, and each sum has one order. A warp owns 16 keys (scores transposed) or 16 queries, so that p and ds
 * pass from one product into the next in registers. The next tiles arrive while those at hand are computed with.
 *
 * Bound: the tensor cores, 14 D FLOPs for each pair of a query and a key it sees; shared memory comes close, 9 (dk, dv) and 8 (dq)
 * fragments of 512 bytes for 16 products. Moved: q, dO once for each 64 keys and k, v for each 64 queries, mostly from L2; the rest once.
 */
#include "attention.cuh"

namespace {

constexpr int TILE = 64, THREADS = 128; // rows of every tile: 16 a warp
constexpr int DELTA_THREADS = 256, DELTA_LANES = 8;

template <int DP> constexpr int PAIR = 2 * TILE * DP; // elements of a tile of q and one of dO, or of k and v
template <int DP> constexpr size_t KEYS_BYTES = 3 * PAIR<DP> * sizeof(bf16) + 4 * TILE * sizeof(float);
template <int DP> constexpr size_t QUERIES_BYTES = 2 * PAIR<DP> * sizeof(bf16);

/** delta = rowsum(dO o) of (b, t, h), 0 for padding; VECTOR: 16 bytes at a time. */
template <class T, bool VECTOR>
__global__ void __launch_bounds__(DELTA_THREADS) delta_kernel(float* delta, const T* dO, const T* o, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  constexpr int STEP = VECTOR ? Vec<T>::N : 1;
  const int64_t rows = int64_t(size.B) * size.T * size.H, step = int64_t(gridDim.x) * DELTA_THREADS / DELTA_LANES;
  const int lane = threadIdx.x % DELTA_LANES;
  for (int64_t first = int64_t(blockIdx.x) * DELTA_THREADS / DELTA_LANES; first < rows; first += step) {
    const int64_t row = first + threadIdx.x / DELTA_LANES;
    const int b = int(min(row, rows - 1) / size.H / size.T), t = int(row / size.H % size.T), h = int(row % size.H);
    float sum = 0;
    if (row < rows && t < row_length(lengths, b, size.T, failure)) {
      for (int d = lane * STEP; d < size.D; d += DELTA_LANES * STEP) {
        const T *x = dO + row * size.D + d, *y = o + row * size.D + d;
        if constexpr (VECTOR) {
          const Vec<T> xs = load_vec(x), ys = load_vec(y);
          for (int i = 0; i < STEP; i++) sum = fmaf(to_f32(xs.at[i]), to_f32(ys.at[i]), sum);
        } else {
          sum = fmaf(to_f32(*x), to_f32(*y), sum);
        }
      }
    }
    sum = quad_sum(sum);
    sum += __shfl_xor_sync(ALL_LANES, sum, 4);
    if (lane == 0 && row < rows) delta[(int64_t(b) * size.H + h) * size.T + t] = sum;
  }
}

/** The warp's 16 rows of x, from a tile, times the 64 rows of y: (16, 64). */
template <int DP> __device__ __forceinline__ void multiply_rows(Sums<TILE / 8>& s, const bf16* x, const bf16* y, int row) {
  s.clear();
#pragma unroll
  for (int step = 0; step < DP / 16; step++) {
    uint32_t a[4];
    load_a<DP>(a, x, row, step);
#pragma unroll
    for (int n = 0; n < TILE / 8; n += 2) {
      uint32_t b[2][2];
      load_b<DP>(b, y, 8 * n, step);
      for (int i = 0; i < 2; i++) mma_bf16(s.at[n + i], a, b[i]);
    }
  }
}

/** y += w x: (16, DP) += (16, 64) (64, DP). */
template <int DP> __device__ __forceinline__ void add_product(Sums<DP / 8>& y, const Sums<TILE / 8>& w, const bf16* x) {
#pragma unroll
  for (int step = 0; step < TILE / 16; step++) {
    uint32_t a[4];
    w.operand(a, step);
#pragma unroll
    for (int n = 0; n < DP / 8; n += 2) {
      uint32_t b[2][2];
      load_b_across<DP>(b, x, 16 * step, n / 2);
      for (int i = 0; i < 2; i++) mma_bf16(y.at[n + i], a, b[i]);
    }
  }
}

/** dk and dv of a tile of keys. */
template <int DP, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) keys_kernel(bf16* dk, bf16* dv, const bf16* dO, const bf16* q, const bf16* k, const bf16* v,
  const float* lse, const float* delta, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  DYNAMIC_SHARED(bf16, shared);
  bf16 *sharedK = shared, *sharedV = sharedK + TILE * DP, *stages = sharedV + TILE * DP;
  float* statistics = reinterpret_cast<float*>(stages + 2 * PAIR<DP>); // of each stage lse log2(e) and delta, TILE each
  const int T = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const int tiles = (T + TILE - 1) / TILE, j0 = int(blockIdx.x) % tiles * TILE; // early keys, which most queries see, first
  const int g = int(blockIdx.x) / tiles % G, b = int(blockIdx.x) / tiles / G;
  const int length = row_length(lengths, b, T, failure);
  const int64_t at = ((int64_t(b) * T + j0) * G + g) * D;
  const int stride = G * D, strideQuery = H * D, out = min(T - j0, TILE);
  if (length <= j0) { // padding
    zero_rows<THREADS>(Rows<bf16>{dk + at, stride, out}, D);
    zero_rows<THREADS>(Rows<bf16>{dv + at, stride, out}, D);
    return;
  }

  const int lane = int(threadIdx.x) % WARP, row = int(threadIdx.x) / WARP * 16, t = lane % 4;
  const float c = size.scale * LOG2E;
  const int end = min(length, j0 + TILE + window); // of the queries that see some key
  const int firstHead = g * (H / G), endHead = firstHead + H / G;
  // Thread i brings lse of query i0 + i, thread TILE + i its delta: read a tile ahead, written when the tile at hand is done with.
  const auto statistic = [&](int h, int i0) {
    const int i = i0 + int(threadIdx.x) % TILE;
    const bool isDelta = threadIdx.x >= TILE;
    if (i >= end) return isDelta ? 0 : INFINITY; // nobody: p = 2^-inf = 0
    const int64_t from = (int64_t(b) * H + h) * T + i;
    return isDelta ? delta[from] : lse[from] * LOG2E;
  };
  const auto load = [&](int h, int i0, int stage) {
    const int64_t from = ((int64_t(b) * T + i0) * H + h) * D;
    bf16* to = stages + stage * PAIR<DP>;
    load_tile<DP, TILE, THREADS, ALIGNED>(to, D, Rows<const bf16>{q + from, strideQuery, end - i0});
    load_tile<DP, TILE, THREADS, ALIGNED>(to + TILE * DP, D, Rows<const bf16>{dO + from, strideQuery, end - i0});
    cp_async_commit();
  };
  load_tile<DP, TILE, THREADS, ALIGNED>(sharedK, D, Rows<const bf16>{k + at, stride, length - j0});
  load_tile<DP, TILE, THREADS, ALIGNED>(sharedV, D, Rows<const bf16>{v + at, stride, length - j0});
  load(firstHead, j0, 0);
  statistics[threadIdx.x] = statistic(firstHead, j0);
  Sums<DP / 8> dKey, dValue;
  dKey.clear();
  dValue.clear();
  for (int h = firstHead, i0 = j0, stage = 0; h < endHead; stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads(); // this tile is there, and the one before has been used
    const int nextTile = i0 + TILE < end ? i0 + TILE : j0, nextHead = nextTile == j0 ? h + 1 : h;
    float next = 0;
    if (nextHead < endHead) {
      load(nextHead, nextTile, stage ^ 1);
      next = statistic(nextHead, nextTile);
    }
    const bf16 *sharedQ = stages + stage * PAIR<DP>, *sharedO = sharedQ + TILE * DP;
    const float *logSums = statistics + stage * 2 * TILE, *shifts = logSums + TILE;
    Sums<TILE / 8> p, ds; // (key, query)
    multiply_rows<DP>(p, sharedK, sharedQ, row);
    multiply_rows<DP>(ds, sharedV, sharedO, row);
    const int ahead = i0 - j0 + 2 * t - row - lane / 4; // first query of this lane - its first key
    const bool cut = i0 == j0 || i0 + TILE - 1 - j0 > window;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
      for (int i = 0; i < 4; i++) {
        const int query = 8 * n + 2 * t + i % 2, lead = ahead + 8 * n + i % 2 - i / 2 * 8;
        float weight = exp2_fast(fmaf(p.at[n][i], c, -logSums[query]));
        if (cut && (lead < 0 || lead > window)) weight = 0;
        p.at[n][i] = weight;
        ds.at[n][i] = weight * (ds.at[n][i] - shifts[query]);
      }
    }
    add_product<DP>(dValue, p, sharedO);
    add_product<DP>(dKey, ds, sharedQ);
    statistics[(stage ^ 1) * 2 * TILE + threadIdx.x] = next;
    h = nextHead, i0 = nextTile;
  }
  __syncwarp(); // k and v of the warp's rows have been used by all its lanes; the gradients take their place
  dKey.template store<DP>(sharedK, row, size.scale, size.scale);
  dValue.template store<DP>(sharedV, row, 1, 1);
  __syncwarp();
  store_rows<DP, 16, ALIGNED>(sharedK, row, D, Rows<bf16>{dk + at, stride, out});
  store_rows<DP, 16, ALIGNED>(sharedV, row, D, Rows<bf16>{dv + at, stride, out});
}

/** dq of a tile of queries; q and dO stay in registers. */
template <int DP, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) queries_kernel(bf16* dq, const bf16* dO, const bf16* q, const bf16* k, const bf16* v,
  const float* lse, const float* delta, const int32_t* lengths, AttentionSizes size, Failure* failure) {
  DYNAMIC_SHARED(bf16, stages);
  const int T = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const int tiles = (T + TILE - 1) / TILE, i0 = (tiles - 1 - int(blockIdx.x) % tiles) * TILE; // late queries, which see most keys, first
  const int b = int(blockIdx.x) / tiles / H, h = int(blockIdx.x) / tiles % H;
  const int length = row_length(lengths, b, T, failure), end = min(length, i0 + TILE);
  const int64_t at = ((int64_t(b) * T + i0) * H + h) * D;
  const int stride = H * D, strideKey = G * D;
  const Rows<bf16> out{dq + at, stride, min(T - i0, TILE)};
  if (end <= i0) { // padding
    zero_rows<THREADS>(out, D);
    return;
  }

  const int lane = int(threadIdx.x) % WARP, row = int(threadIdx.x) / WARP * 16, g = lane / 4, t = lane % 4;
  const float c = size.scale * LOG2E;
  const int first = max(0, i0 - window) / TILE, steps = (end + TILE - 1) / TILE - first;
  const auto load = [&](int step) {
    const int j0 = (first + step) * TILE;
    const int64_t from = ((int64_t(b) * T + j0) * G + int64_t(h) * G / H) * D;
    bf16* to = stages + step % 2 * PAIR<DP>;
    load_tile<DP, TILE, THREADS, ALIGNED>(to, D, Rows<const bf16>{k + from, strideKey, end - j0});
    load_tile<DP, TILE, THREADS, ALIGNED>(to + TILE * DP, D, Rows<const bf16>{v + from, strideKey, end - j0});
    cp_async_commit();
  };
  bf16* own = stages + PAIR<DP>; // the second stage, not in use yet
  load_tile<DP, TILE, THREADS, ALIGNED>(own, D, Rows<const bf16>{q + at, stride, end - i0});
  load_tile<DP, TILE, THREADS, ALIGNED>(own + TILE * DP, D, Rows<const bf16>{dO + at, stride, end - i0});
  cp_async_commit();
  load(0);
  float logSum[2], shift[2];
  for (int half = 0; half < 2; half++) {
    const int i = i0 + row + g + 8 * half;
    const int64_t from = (int64_t(b) * H + h) * T + i;
    logSum[half] = i < end ? lse[from] * LOG2E : INFINITY; // nobody: p = 2^-inf = 0
    shift[half] = i < end ? delta[from] : 0;
  }
  cp_async_wait<1>();
  __syncthreads();
  uint32_t query[DP / 16][4], slope[DP / 16][4];
#pragma unroll
  for (int step = 0; step < DP / 16; step++) {
    load_a<DP>(query[step], own, row, step);
    load_a<DP>(slope[step], own + TILE * DP, row, step);
  }

  Sums<DP / 8> sums;
  sums.clear();
  for (int step = 0; step < steps; step++) {
    cp_async_wait<0>();
    __syncthreads(); // this tile is there, and the one before (at first q and dO) has been used
    if (step + 1 < steps) load(step + 1);
    const bf16 *sharedK = stages + step % 2 * PAIR<DP>, *sharedV = sharedK + TILE * DP;
    const int j0 = (first + step) * TILE;
    Sums<TILE / 8> p, ds;
    p.clear();
    ds.clear();
#pragma unroll
    for (int deep = 0; deep < DP / 16; deep++) {
#pragma unroll
      for (int n = 0; n < TILE / 8; n += 2) {
        uint32_t keys[2][2], values[2][2];
        load_b<DP>(keys, sharedK, 8 * n, deep);
        load_b<DP>(values, sharedV, 8 * n, deep);
        for (int i = 0; i < 2; i++) {
          mma_bf16(p.at[n + i], query[deep], keys[i]);
          mma_bf16(ds.at[n + i], slope[deep], values[i]);
        }
      }
    }
    const int ahead = i0 - j0 + row + g - 2 * t; // first query of this lane - its first key
    const bool cut = i0 == j0 || i0 + TILE - 1 - j0 > window;
#pragma unroll
    for (int n = 0; n < TILE / 8; n++) {
      for (int i = 0; i < 4; i++) {
        const int lead = ahead + i / 2 * 8 - 8 * n - i % 2;
        float weight = exp2_fast(fmaf(p.at[n][i], c, -logSum[i / 2]));
        if (cut && (lead < 0 || lead > window)) weight = 0;
        ds.at[n][i] = weight * (ds.at[n][i] - shift[i / 2]);
      }
    }
    add_product<DP>(sums, ds, sharedK);
  }
  bf16* result = stages + steps % 2 * PAIR<DP>; // the stage that nobody reads now
  sums.template store<DP>(result, row, size.scale, size.scale);
  __syncwarp();
  store_rows<DP, 16, ALIGNED>(result, row, D, out);
}

template <class E>
void write_delta(Context& cx, float* delta, const E* dO, const E* o, const int32_t* lengths, const AttentionSizes& s) {
  const Shape shape{blocks_for(int64_t(s.B) * s.T * s.H, DELTA_THREADS / DELTA_LANES), DELTA_THREADS};
  const bool vector = s.D % Vec<E>::N == 0 && all_aligned(dO, o);
  launch(cx, "nc_attention_bwd", vector ? delta_kernel<E, true> : delta_kernel<E, false>, shape, delta, dO, o, lengths, s, cx.failure);
}

} // namespace

int32_t nc_attention_bwd(nc_context* ctx, void* dq, void* dk, void* dv, void* delta, void* dO, void* q, void* k, void* v, void* o, void* lse,
  void* lengths, int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t window, float scale, int32_t dtype) {
  return entry(ctx, "nc_attention_bwd", [&](Context& cx) {
    const AttentionSizes s = attention_sizes(B, T, H, G, D, window, scale);
    const int64_t statistics = int64_t(B) * H * T;
    float *shift = array<float>(cx, delta, statistics, "delta"), *logSum = array<float>(cx, lse, statistics, "lse");
    const int32_t* valid = optional<int32_t>(cx, lengths, B, "lengths");
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      E *dQuery = array<E>(cx, dq, s.queries(), "dq"), *dKey = array<E>(cx, dk, s.keys(), "dk"), *dValue = array<E>(cx, dv, s.keys(), "dv");
      E *dOut = array<E>(cx, dO, s.queries(), "dO"), *out = array<E>(cx, o, s.queries(), "o");
      E *query = array<E>(cx, q, s.queries(), "q"), *key = array<E>(cx, k, s.keys(), "k"), *value = array<E>(cx, v, s.keys(), "v");
      if (s.queries() == 0) return;
      write_delta(cx, shift, dOut, out, valid, s);
      if constexpr (std::is_same_v<E, bf16>) {
        if (D <= TENSOR_D) {
          return with_width(D, D % 8 == 0 && all_aligned(dq, dk, dv, dO, q, k, v), [&](auto width, auto aligned) {
            constexpr int DP = decltype(width)::value;
            constexpr bool ALIGNED = decltype(aligned)::value;
            launch(cx, "nc_attention_bwd", keys_kernel<DP, ALIGNED>, {attention_blocks(s, G, TILE), THREADS, KEYS_BYTES<DP>}, dKey, dValue,
              dOut, query, key, value, logSum, shift, valid, s, cx.failure);
            launch(cx, "nc_attention_bwd", queries_kernel<DP, ALIGNED>, {attention_blocks(s, H, TILE), THREADS, QUERIES_BYTES<DP>}, dQuery,
              dOut, query, key, value, logSum, shift, valid, s, cx.failure);
          });
        }
      }
      attention_f32_bwd(cx, dQuery, dKey, dValue, dOut, query, key, value, logSum, shift, valid, s);
    });
  });
}
