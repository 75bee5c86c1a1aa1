/**
 * Causal attention of whole sequences, forward (FlashAttention-2, arXiv 2307.08691, algorithm 1; online softmax, 1805.02867).
 *
 *   s_ij = scale q_i . k_j for keys j in i - window..i,  o_i = sum_j e^(s_ij - m_i) v_j / l_i,  lse_i = m_i + ln l_i
 *
 * A block has 4 warps and 128 queries of a head, a warp 32 of them, so that each fragment of k and v serves two products. Tiles of 32
 * keys (64 spill) come in rising order, the next one while one is computed with. Blocks of a head follow each other,
 * those that see the most keys first.
 *
 * Bound: the tensor cores, 4 D FLOPs for each pair of a query and a key it sees. Moved: q and o once; k and v once for each 128 queries,
 * mostly from L2. Shared memory gives a fragment of 512 bytes for 2.7 products (dev/bench/attention.md).
 */
#include "attention.cuh"

namespace {

constexpr int QUERIES = 128, KEYS = 32, THREADS = 128;
constexpr int PER_WARP = QUERIES / (THREADS / WARP), PARTS = PER_WARP / 16;

template <int DP> constexpr int STAGE = 2 * KEYS * DP; // elements of a tile of k and one of v
template <int DP> constexpr size_t SHARED_BYTES = (QUERIES * DP + 2 * STAGE<DP>) * sizeof(bf16);

/** The warp's rows of q k^T with a tile of keys. */
template <int DP> __device__ __forceinline__ void multiply_keys(Sums<KEYS / 8> (&s)[PARTS], const bf16* q, const bf16* k, int row) {
#pragma unroll
  for (int m = 0; m < PARTS; m++) s[m].clear();
#pragma unroll
  for (int step = 0; step < DP / 16; step++) {
    uint32_t a[PARTS][4];
    for (int m = 0; m < PARTS; m++) load_a<DP>(a[m], q, row + 16 * m, step);
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
      uint32_t b[2][2];
      load_b<DP>(b, k, 8 * n, step);
      for (int m = 0; m < PARTS; m++) for (int i = 0; i < 2; i++) mma_bf16(s[m].at[n + i], a[m], b[i]);
    }
  }
}

/** o += p v for the warp's rows. */
template <int DP> __device__ __forceinline__ void add_values(Sums<DP / 8> (&o)[PARTS], const Sums<KEYS / 8> (&p)[PARTS], const bf16* v) {
#pragma unroll
  for (int step = 0; step < KEYS / 16; step++) {
    uint32_t a[PARTS][4];
    for (int m = 0; m < PARTS; m++) p[m].operand(a[m], step);
#pragma unroll
    for (int n = 0; n < DP / 8; n += 2) {
      uint32_t b[2][2];
      load_b_across<DP>(b, v, 16 * step, n / 2);
      for (int m = 0; m < PARTS; m++) for (int i = 0; i < 2; i++) mma_bf16(o[m].at[n + i], a[m], b[i]);
    }
  }
}

/**
 * Scores in place of weights p = 2^(c s - c m) with the new maximum m; o shrinks by what m grew. top: m of the rows of this lane, sum:
 * its part of their l.
 */
template <int DP>
__device__ __forceinline__ void softmax(Sums<KEYS / 8> (&s)[PARTS], Sums<DP / 8> (&o)[PARTS], float (&top)[PARTS][2], float (&sum)[PARTS][2], float c) {
  float shrink[PARTS][2];
  bool grew = false;
#pragma unroll
  for (int m = 0; m < PARTS; m++) {
    for (int half = 0; half < 2; half++) {
      float most = top[m][half], l = 0;
      for (int n = 0; n < KEYS / 8; n++) most = fmaxf(most, fmaxf(s[m].at[n][2 * half], s[m].at[n][2 * half + 1]));
      most = quad_max(most);
      const float base = __fmul_rn(finite_base(most), c);
      shrink[m][half] = exp2_fast(__fmul_rn(top[m][half], c) - base); // exactly 1 where m did not grow
      grew |= most != top[m][half];
      top[m][half] = most;
      for (int n = 0; n < KEYS / 8; n++) {
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          s[m].at[n][i] = exp2_fast(fmaf(s[m].at[n][i], c, -base));
          l += s[m].at[n][i];
        }
      }
      sum[m][half] = fmaf(sum[m][half], shrink[m][half], l);
    }
  }
  if (!__any_sync(ALL_LANES, grew)) return; // mostly, after the first tiles
#pragma unroll
  for (int m = 0; m < PARTS; m++) {
    for (int n = 0; n < DP / 8; n++) for (int i = 0; i < 4; i++) o[m].at[n][i] *= shrink[m][i / 2];
  }
}

template <int DP, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) forward_kernel(bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v,
  const int32_t* lengths, AttentionSizes size, Failure* failure) {
  DYNAMIC_SHARED(bf16, shared);
  bf16 *sharedQ = shared, *stages = sharedQ + QUERIES * DP;
  const int T = size.T, H = size.H, G = size.G, D = size.D, window = size.window;
  const int tiles = (T + QUERIES - 1) / QUERIES, tile = tiles - 1 - int(blockIdx.x) % tiles;
  const int b = int(blockIdx.x) / tiles / H, h = int(blockIdx.x) / tiles % H, q0 = tile * QUERIES;
  const int length = row_length(lengths, b, T, failure), end = min(length, q0 + QUERIES); // end of valid queries, and of their keys
  const int64_t at = ((int64_t(b) * T + q0) * H + h) * D, atKey = (int64_t(b) * T * G + int64_t(h) * G / H) * D;
  const int stride = H * D, strideKey = G * D;
  const Rows<bf16> out{o + at, stride, min(T - q0, QUERIES)};
  float* logSum = lse ? lse + (int64_t(b) * H + h) * T + q0 : nullptr;
  if (end <= q0) { // padding
    zero_rows<THREADS>(out, D);
    if (logSum && int(threadIdx.x) < out.valid) logSum[threadIdx.x] = 0;
    return;
  }

  const int lane = int(threadIdx.x) % WARP, row = int(threadIdx.x) / WARP * PER_WARP, g = lane / 4, t = lane % 4;
  const int first = q0 + row, last = first + PER_WARP - 1; // queries of the warp
  const float c = size.scale * LOG2E;
  Sums<DP / 8> sums[PARTS];
  float top[PARTS][2], sum[PARTS][2];
#pragma unroll
  for (int m = 0; m < PARTS; m++) {
    sums[m].clear();
    for (int half = 0; half < 2; half++) top[m][half] = -INFINITY, sum[m][half] = 0;
  }
  const auto load = [&](int j0, int stage) {
    load_tile<DP, KEYS, THREADS, ALIGNED>(stages + stage * STAGE<DP>, D, Rows<const bf16>{k, strideKey, end - j0});
    load_tile<DP, KEYS, THREADS, ALIGNED>(stages + stage * STAGE<DP> + KEYS * DP, D, Rows<const bf16>{v, strideKey, end - j0});
    k += int64_t(KEYS) * strideKey, v += int64_t(KEYS) * strideKey;
    cp_async_commit();
  };
  int j0 = max(0, q0 - window) / KEYS * KEYS;
  k += atKey + int64_t(j0) * strideKey, v += atKey + int64_t(j0) * strideKey;
  load_tile<DP, QUERIES, THREADS, ALIGNED>(sharedQ, D, Rows<const bf16>{q + at, stride, end - q0});
  load(j0, 0);
  for (int stage = 0; j0 < end; j0 += KEYS, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads(); // this tile is there, and the one before has been used
    if (j0 + KEYS < end) load(j0 + KEYS, stage ^ 1);
    if (first >= end || j0 > last || j0 + KEYS <= first - window) continue; // the warp sees none of these keys
    const bf16 *sharedK = stages + stage * STAGE<DP>, *sharedV = sharedK + KEYS * DP;
    Sums<KEYS / 8> s[PARTS];
    multiply_keys<DP>(s, sharedQ, sharedK, row);
    if (j0 + KEYS - 1 > first || j0 < last - window) {
#pragma unroll
      for (int m = 0; m < PARTS; m++) {
        for (int n = 0; n < KEYS / 8; n++) {
          for (int i = 0; i < 4; i++) {
            const int ahead = first + 16 * m + g + i / 2 * 8 - (j0 + 8 * n + 2 * t + i % 2); // query - key
            if (ahead < 0 || ahead > window) s[m].at[n][i] = -INFINITY;
          }
        }
      }
    }
    softmax<DP>(s, sums, top, sum, c);
    add_values<DP>(sums, s, sharedV);
  }

  __syncwarp(); // q of the warp's rows has been used by all its lanes; o takes its place
#pragma unroll
  for (int m = 0; m < PARTS; m++) {
    float factor[2];
    for (int half = 0; half < 2; half++) {
      const int i = row + 16 * m + g + 8 * half;
      const float l = quad_sum(sum[m][half]);
      const bool valid = q0 + i < end;
      factor[half] = valid ? 1 / l : 0;
      if (logSum && t == 0 && i < out.valid) logSum[i] = valid ? (top[m][half] * c + log2f(l)) * LN2 : 0;
    }
    sums[m].template store<DP>(sharedQ, row + 16 * m, factor[0], factor[1]);
  }
  __syncwarp();
  store_rows<DP, PER_WARP, ALIGNED>(sharedQ, row, D, out);
}

} // namespace

int32_t nc_attention_fwd(nc_context* ctx, void* o, void* lse, void* q, void* k, void* v, void* lengths, int32_t B, int32_t T, int32_t H,
  int32_t G, int32_t D, int32_t window, float scale, int32_t dtype) {
  return entry(ctx, "nc_attention_fwd", [&](Context& cx) {
    const AttentionSizes s = attention_sizes(B, T, H, G, D, window, scale);
    float* logSum = optional<float>(cx, lse, int64_t(B) * H * T, "lse");
    const int32_t* valid = optional<int32_t>(cx, lengths, B, "lengths");
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      E *out = array<E>(cx, o, s.queries(), "o"), *query = array<E>(cx, q, s.queries(), "q");
      E *key = array<E>(cx, k, s.keys(), "k"), *value = array<E>(cx, v, s.keys(), "v");
      if (s.queries() == 0) return;
      if constexpr (std::is_same_v<E, bf16>) {
        if (D <= TENSOR_D) {
          return with_width(D, D % 8 == 0 && all_aligned(o, q, k, v), [&](auto width, auto aligned) {
            constexpr int DP = decltype(width)::value;
            launch(cx, "nc_attention_fwd", forward_kernel<DP, decltype(aligned)::value>,
              {attention_blocks(s, H, QUERIES), THREADS, SHARED_BYTES<DP>}, out, logSum, query, key, value, valid, s, cx.failure);
          });
        }
      }
      attention_f32_fwd(cx, out, logSum, query, key, value, valid, s);
    });
  });
}
