/**
 * Attention of new tokens to a key/value cache: decoding and prompts in chunks.
 *
 *   query t of row b sits at p = positions[b] + t and sees keys p - window..p;  o = sum_j e^(s_j - m) v_j / l
 *
 * Batch-invariant: keys come in tiles at absolute multiples of 64. A tile by itself gives (m, l, o) of a query, products summed in the
 * order of the tensor cores' steps; `merge` joins the tiles in rising order. So the bits of a query depend on its position, not on B, T,
 * the capacity, the cut of the prompt, or on which of these kernels ran:
 *   few queries: tiles_kernel, a block of 4 warps for a tile and the queries of a key head, at most 16 rows (query heads of a group side
 *     by side); (m, l, o) go to scratch, merge_kernel joins them. All copies of a block are under way at once, five blocks a multiprocessor.
 *   many: chunk_kernel, a block for 64 such rows, 16 a warp, that walks the tiles and merges in registers.
 *   fp32 and heads above 128: plain_kernel, a block for a query, in fp32.
 *
 * Bound of decoding: bytes of the cache, 4 G D for each key (bf16); scratch adds 8 (D + 2) H / 64. Two launches and scratch pay since one
 * block for a key head reads 1 MB (2048 keys, D = 128) at some 80 GB/s, in 12 us, where 32 blocks share it. Bound of a chunk: tensor cores.
 */
#include "attention.cuh"
#include "cache.cuh"

namespace {

constexpr int KEYS = 64, THREADS = 128, FEW = 16; // keys of a tile; rows of a warp
constexpr int CHUNK = FEW * (THREADS / WARP);

template <int DP> constexpr size_t TILES_BYTES = (FEW + 2 * KEYS) * DP * sizeof(bf16);
template <int DP> constexpr size_t CHUNK_BYTES = (CHUNK + 4 * KEYS) * DP * sizeof(bf16);

/** A call: sizes, and how full the rows are. */
struct Call {
  AttentionSizes size;
  Progress progress;

  __device__ int group() const { return size.H / size.G; }
  __device__ int tiles() const { return (progress.capacity + KEYS - 1) / KEYS; }
  __device__ int firstKey(int position) const { return max(0, position - size.window); }
  /** First element of row b and key head g in the cache. */
  __device__ int64_t cached(int b, int g) const { return (int64_t(b) * size.G + g) * progress.capacity * size.D; }
};

/** The queries of a row and key head as rows of a tile: of each token the query heads of the group. `T`: bf16 or const bf16. */
template <class T> struct GroupRows {
  T* first; // token 0, first query head of the group
  int group, stride, D, from, end; // query heads; elements of a token; rows [from, end) are in the tile

  __device__ GroupRows(T* x, const Call& call, int b, int g, int from, int tokens)
      : first(x + (int64_t(b) * call.size.T * call.size.H + g * call.group()) * call.size.D), group(call.group()),
        stride(call.size.H * call.size.D), D(call.size.D), from(from), end(tokens * group) {}
  __device__ bool has(int row) const { return from + row < end; }
  __device__ T* operator()(int row) const {
    const int at = from + row;
    return first + int64_t(at / group) * stride + at % group * D;
  }
};

/** Scores of 16 rows with 8 N keys: one order of products for every kernel. */
template <int DP, int N> __device__ __forceinline__ void multiply_keys(Sums<N>& s, const bf16* q, int row, const bf16* k, int key) {
  s.clear();
#pragma unroll
  for (int step = 0; step < DP / 16; step++) {
    uint32_t a[4];
    load_a<DP>(a, q, row, step);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t b[2][2];
      load_b<DP>(b, k, key + 8 * n, step);
      for (int i = 0; i < 2; i++) mma_bf16(s.at[n + i], a, b[i]);
    }
  }
}

/** Hides the keys that the rows of this lane do not see, key `j0` being the first of the scores. position: of the two rows. */
template <int N> __device__ __forceinline__ void hide(Sums<N>& s, const int (&position)[2], int j0, int window) {
#pragma unroll
  for (int n = 0; n < N; n++) {
    for (int i = 0; i < 4; i++) {
      const int ahead = position[i / 2] - (j0 + 8 * n + int(threadIdx.x) % 4 * 2 + i % 2);
      if (ahead < 0 || ahead > window) s.at[n][i] = -INFINITY;
    }
  }
}

/** Largest score of a row, times c: for every lane of its quad. */
template <int N> __device__ __forceinline__ float largest(const Sums<N>& s, int half) {
  float m = -INFINITY;
#pragma unroll
  for (int n = 0; n < N; n++) m = fmaxf(m, fmaxf(s.at[n][2 * half], s.at[n][2 * half + 1]));
  return quad_max(m);
}

/** Weights 2^(c s - m) in place of scores. */
template <int N> __device__ __forceinline__ void weigh(Sums<N>& s, const float (&m)[2], float c) {
#pragma unroll
  for (int n = 0; n < N; n++) for (int i = 0; i < 4; i++) s.at[n][i] = exp2_fast(fmaf(s.at[n][i], c, -finite_base(m[i / 2])));
}

/** l of 16 rows: the sum of their rounded weights over a tile, by the tensor cores too. */
__device__ __forceinline__ void add_weights(float (&l)[4], const uint32_t (&p)[KEYS / 16][4]) {
  const uint32_t ones[2] = {0x3f803f80, 0x3f803f80};
#pragma unroll
  for (int step = 0; step < KEYS / 16; step++) mma_bf16(l, p[step], ones);
}

/** o of 16 rows and columns 16 slice.. over a tile. */
template <int DP> __device__ __forceinline__ void multiply_values(Sums<2>& o, const uint32_t (&p)[KEYS / 16][4], const bf16* v, int slice) {
  o.clear();
#pragma unroll
  for (int step = 0; step < KEYS / 16; step++) {
    uint32_t b[2][2];
    load_b_across<DP>(b, v, 16 * step, slice);
    for (int i = 0; i < 2; i++) mma_bf16(o.at[i], p[step], b[i]);
  }
}

/** The maximum of what was merged, and by what it and the next tile's sums shrink. */
struct Merge {
  float m, before, next;

  __device__ __forceinline__ Merge(float merged, float tile) : m(fmaxf(merged, tile)) {
    before = exp2_fast(merged - finite_base(m));
    next = exp2_fast(tile - finite_base(m));
  }
  __device__ __forceinline__ float operator()(float merged, float tile) const { return fmaf(merged, before, __fmul_rn(tile, next)); }
};

/** (m, l, o) of single tiles of keys: scratch (B, T, H, tiles, D + 2) holds o, m, l. */
template <int DP, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) tiles_kernel(float* scratch, const bf16* q, const bf16* k, const bf16* v, Call call, int slots, Failure* failure) {
  SHARED(bf16, weights, [FEW * KEYS]);
  SHARED(float, tops, [THREADS / WARP][FEW]);
  DYNAMIC_SHARED(bf16, shared);
  bf16 *sharedQ = shared, *sharedK = sharedQ + FEW * DP, *sharedV = sharedK + KEYS * DP;
  const int D = call.size.D, G = call.size.G, tiles = call.tiles(), slot = int(blockIdx.x) % slots;
  const int g = int(blockIdx.x) / slots % G, b = int(blockIdx.x) / slots / G;
  const int count = call.progress.count(b, failure, g == 0 && slot == 0 && threadIdx.x == 0), start = call.progress.position(b);
  if (count == 0) return;
  const int last = start + count - 1, first = call.firstKey(start) / KEYS;
  if (first + slot > last / KEYS) return;
  const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, t = lane % 4;
  const float c = call.size.scale * LOG2E;
  const GroupRows<const bf16> queries(q, call, b, g, 0, count);
  int position[2];
  for (int half = 0; half < 2; half++) position[half] = start + (lane / 4 + 8 * half) / call.group();
  load_tile<DP, FEW, THREADS, ALIGNED>(sharedQ, D, queries);

  for (int tile = first + slot; tile <= last / KEYS; tile += slots) {
    const int j0 = tile * KEYS;
    const int64_t at = call.cached(b, g) + int64_t(j0) * D;
    __syncthreads(); // the tile before has been used
    load_tile<DP, KEYS, THREADS, ALIGNED>(sharedK, D, Rows<const bf16>{k + at, D, last + 1 - j0});
    cp_async_commit();
    load_tile<DP, KEYS, THREADS, ALIGNED>(sharedV, D, Rows<const bf16>{v + at, D, last + 1 - j0});
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads(); // q and k are there
    Sums<2> s; // (16 rows, 16 keys of this warp)
    multiply_keys<DP>(s, sharedQ, 0, sharedK, 16 * warp);
    hide(s, position, j0 + 16 * warp, call.size.window);
    float m[2];
    for (int half = 0; half < 2; half++) {
      m[half] = largest(s, half);
      if (t == 0) tops[warp][lane / 4 + 8 * half] = m[half];
    }
    __syncthreads();
    for (int half = 0; half < 2; half++) {
      for (int i = 0; i < THREADS / WARP; i++) m[half] = fmaxf(m[half], tops[i][lane / 4 + 8 * half]);
      m[half] = __fmul_rn(m[half], c);
    }
    weigh(s, m, c);
    for (int n = 0; n < 2; n++) {
      for (int half = 0; half < 2; half++) {
        *reinterpret_cast<uint32_t*>(weights + swizzled<KEYS>(lane / 4 + 8 * half, 2 * warp + n) + 2 * t) =
          pack_bf16(s.at[n][2 * half], s.at[n][2 * half + 1]);
      }
    }
    cp_async_wait<0>();
    __syncthreads(); // weights and v are there
    uint32_t p[KEYS / 16][4];
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) load_a<KEYS>(p[step], weights, 0, step);
    float* out[2]; // of the two rows of this lane
    for (int half = 0; half < 2; half++) {
      const int row = lane / 4 + 8 * half, h = g * call.group() + row % call.group();
      const int64_t query = (int64_t(b) * call.size.T + row / call.group()) * call.size.H + h;
      out[half] = queries.has(row) ? scratch + (query * tiles + tile) * (D + 2) : nullptr;
    }
    if (warp == 0) {
      float l[4] = {0, 0, 0, 0};
      add_weights(l, p);
      for (int half = 0; half < 2; half++) {
        if (t == 0 && out[half]) *reinterpret_cast<float2*>(out[half] + D) = make_float2(m[half], l[2 * half]);
      }
    }
    for (int slice = warp; slice < DP / 16; slice += THREADS / WARP) {
      Sums<2> o;
      multiply_values<DP>(o, p, sharedV, slice);
      for (int n = 0; n < 2; n++) {
        const int d = 16 * slice + 8 * n + 2 * t;
        for (int half = 0; half < 2; half++) {
          if (out[half] && d < D) *reinterpret_cast<float2*>(out[half] + d) = make_float2(o.at[n][2 * half], o.at[n][2 * half + 1]);
        }
      }
    }
  }
}

/** o of a query from its tiles in scratch; a block for each. */
__global__ void __launch_bounds__(TENSOR_D) merge_kernel(bf16* o, const float* scratch, Call call, Failure* failure) {
  const int D = call.size.D, tiles = call.tiles();
  const int64_t query = blockIdx.x; // (b, t, h)
  const int b = int(query / call.size.H / call.size.T), t = int(query / call.size.H % call.size.T), d = int(threadIdx.x);
  if (d >= D) return;
  if (t >= call.progress.count(b, failure, false)) {
    o[query * D + d] = from_f32<bf16>(0);
    return;
  }
  const int position = call.progress.position(b) + t;
  float m = -INFINITY, l = 0, sum = 0;
#pragma unroll 4
  for (int tile = call.firstKey(position) / KEYS; tile <= position / KEYS; tile++) {
    const float* part = scratch + (query * tiles + tile) * (D + 2);
    const Merge merge(m, part[D]);
    m = merge.m;
    l = merge(l, part[D + 1]);
    sum = merge(sum, part[d]);
  }
  o[query * D + d] = from_f32<bf16>(sum * (1 / l));
}

/** Rows of a chunk, 16 a warp, over all their keys. */
template <int DP, bool ALIGNED>
__global__ void __launch_bounds__(THREADS) chunk_kernel(bf16* o, const bf16* q, const bf16* k, const bf16* v, Call call, Failure* failure) {
  DYNAMIC_SHARED(bf16, shared);
  bf16 *sharedQ = shared, *stages = sharedQ + CHUNK * DP;
  const int D = call.size.D, G = call.size.G, group = call.group(), parts = (call.size.T * group + CHUNK - 1) / CHUNK;
  const int from = (parts - 1 - int(blockIdx.x) % parts) * CHUNK; // of its rows; those that see the most keys first
  const int g = int(blockIdx.x) / parts % G, b = int(blockIdx.x) / parts / G;
  const int count = call.progress.count(b, failure, g == 0 && from == 0 && threadIdx.x == 0), start = call.progress.position(b);
  const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, row = 16 * warp;
  const GroupRows<const bf16> queries(q, call, b, g, from, count);
  const GroupRows<bf16> out(o, call, b, g, from, call.size.T);
  if (!queries.has(0)) { // idle
    for (int i = int(threadIdx.x); i < CHUNK * D; i += THREADS) if (out.has(i / D)) out(i / D)[i % D] = from_f32<bf16>(0);
    return;
  }

  const float c = call.size.scale * LOG2E;
  const int last = start + (min(from + CHUNK, queries.end) - 1) / group; // key
  const int first = start + (from + row) / group; // position of the warp's first row
  int position[2];
  for (int half = 0; half < 2; half++) position[half] = start + (from + row + lane / 4 + 8 * half) / group;
  const int64_t at = call.cached(b, g);
  const auto load = [&](int j0, int stage) {
    const Rows<const bf16> keys{k + at + int64_t(j0) * D, D, last + 1 - j0}, values{v + at + int64_t(j0) * D, D, last + 1 - j0};
    load_tile<DP, KEYS, THREADS, ALIGNED>(stages + stage * 2 * KEYS * DP, D, keys);
    load_tile<DP, KEYS, THREADS, ALIGNED>(stages + (stage * 2 + 1) * KEYS * DP, D, values);
    cp_async_commit();
  };
  load_tile<DP, CHUNK, THREADS, ALIGNED>(sharedQ, D, queries);
  int j0 = call.firstKey(start + from / group) / KEYS * KEYS;
  load(j0, 0);
  Sums<2> sums[DP / 16];
  for (int slice = 0; slice < DP / 16; slice++) sums[slice].clear();
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int stage = 0; j0 <= last; j0 += KEYS, stage ^= 1) {
    cp_async_wait<0>();
    __syncthreads(); // this tile is there, and the one before has been used
    if (j0 + KEYS <= last) load(j0 + KEYS, stage ^ 1);
    const bf16 *sharedK = stages + stage * 2 * KEYS * DP, *sharedV = sharedK + KEYS * DP;
    Sums<KEYS / 8> s;
    multiply_keys<DP>(s, sharedQ, row, sharedK, 0);
    if (j0 + KEYS - 1 > first || j0 < first + CHUNK - call.size.window) hide(s, position, j0, call.size.window);
    float m[2];
    for (int half = 0; half < 2; half++) m[half] = __fmul_rn(largest(s, half), c);
    weigh(s, m, c);
    uint32_t p[KEYS / 16][4];
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) s.operand(p[step], step);
    float l[4] = {0, 0, 0, 0};
    add_weights(l, p);
    const Merge merge[2] = {{top[0], m[0]}, {top[1], m[1]}};
    for (int half = 0; half < 2; half++) {
      top[half] = merge[half].m;
      sum[half] = merge[half](sum[half], l[2 * half]);
    }
#pragma unroll
    for (int slice = 0; slice < DP / 16; slice++) {
      Sums<2> next;
      multiply_values<DP>(next, p, sharedV, slice);
      for (int n = 0; n < 2; n++) for (int i = 0; i < 4; i++) sums[slice].at[n][i] = merge[i / 2](sums[slice].at[n][i], next.at[n][i]);
    }
  }
  float factor[2];
  for (int half = 0; half < 2; half++) factor[half] = queries.has(row + lane / 4 + 8 * half) ? 1 / sum[half] : 0;
  __syncwarp(); // q of the warp's rows has been used by all its lanes; o takes its place
  Sums<DP / 8> result;
#pragma unroll
  for (int n = 0; n < DP / 8; n++) for (int i = 0; i < 4; i++) result.at[n][i] = sums[n / 2].at[n % 2][i];
  result.template store<DP>(sharedQ, row, factor[0], factor[1]);
  __syncwarp();
  store_rows<DP, 16, ALIGNED>(sharedQ, row, D, out);
}

/** A query by itself in fp32, over its tiles in rising order. A block for each; a thread for each of its columns. */
template <class T>
__global__ void __launch_bounds__(THREADS) plain_kernel(T* o, const T* q, const T* k, const T* v, Call call, Failure* failure) {
  SHARED(float, scaled, [MOST_D]);
  SHARED(float, scores, [KEYS]);
  SHARED(float, weights, [KEYS]);
  constexpr int COLUMNS = MOST_D / THREADS, LANES = 8; // lanes that share a key
  const int D = call.size.D, H = call.size.H, G = call.size.G;
  const int64_t query = blockIdx.x; // (b, t, h)
  const int b = int(query / H / call.size.T), t = int(query / H % call.size.T), h = int(query % H), x = int(threadIdx.x);
  if (t >= call.progress.count(b, failure, t == 0 && h == 0 && x == 0)) {
    for (int d = x; d < D; d += THREADS) o[query * D + d] = from_f32<T>(0);
    return;
  }
  for (int d = x; d < D; d += THREADS) scaled[d] = call.size.scale * to_f32(q[query * D + d]);
  const int position = call.progress.position(b) + t, first = call.firstKey(position), warp = x / WARP, lane = x % WARP;
  const int64_t at = call.cached(b, int(int64_t(h) * G / H));
  float m = -INFINITY, l = 0, sums[COLUMNS] = {};
  for (int j0 = first / KEYS * KEYS; j0 <= position; j0 += KEYS) {
    const int begin = max(first, j0), end = min(position + 1, j0 + KEYS);
    __syncthreads(); // q is there, and the weights before have been used
    for (int j = j0 + x / LANES; j < j0 + KEYS; j += THREADS / LANES) {
      const bool sees = j >= begin && j < end;
      float dot = 0;
      if (sees) for (int d = x % LANES; d < D; d += LANES) dot = fmaf(scaled[d], to_f32(k[at + int64_t(j) * D + d]), dot);
      dot = quad_sum(dot);
      dot += __shfl_xor_sync(ALL_LANES, dot, 4);
      if (x % LANES == 0) scores[j - j0] = sees ? dot : -INFINITY;
    }
    __syncthreads();
    const float low = scores[lane], high = scores[lane + WARP], most = fmaxf(m, warp_max(fmaxf(low, high)));
    const float base = finite_base(most), shrink = expf(m - base), lowWeight = expf(low - base), highWeight = expf(high - base);
    m = most;
    l = fmaf(l, shrink, warp_sum(lowWeight + highWeight));
    if (warp == 0) weights[lane] = lowWeight, weights[lane + WARP] = highWeight;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
      const int d = x + i * THREADS;
      if (d >= D) continue;
      sums[i] *= shrink;
      for (int j = begin; j < end; j++) sums[i] = fmaf(weights[j - j0], to_f32(v[at + int64_t(j) * D + d]), sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < COLUMNS; i++) if (x + i * THREADS < D) o[query * D + x + i * THREADS] = from_f32<T>(sums[i] / l);
}

/** Attention on the tensor cores: by tiles where there is scratch and the queries of a key head are few. */
template <int DP, bool ALIGNED>
void attend(Context& cx, bf16* o, float* scratch, const bf16* q, const bf16* k, const bf16* v, const Call& call) {
  const AttentionSizes& s = call.size;
  const int64_t heads = int64_t(s.B) * s.G, rows = int64_t(s.T) * (s.H / s.G);
  if (!scratch || rows > FEW) {
    launch(cx, "nc_attention_cached_fwd", chunk_kernel<DP, ALIGNED>, {blocks_for(heads * ((rows + CHUNK - 1) / CHUNK), 1, 0x7fffffff), THREADS, CHUNK_BYTES<DP>},
      o, q, k, v, call, cx.failure);
    return;
  }
  // As many blocks as are there at a time, times a few; a block takes every slots-th tile. Their number is not in the result.
  const int64_t tiles = (call.progress.capacity + KEYS - 1) / KEYS, wanted = int64_t(cx.properties.multiProcessorCount) * 24 / heads;
  const int slots = int(std::max<int64_t>(1, std::min(tiles, wanted)));
  launch(cx, "nc_attention_cached_fwd", tiles_kernel<DP, ALIGNED>, {blocks_for(heads * slots, 1, 0x7fffffff), THREADS, TILES_BYTES<DP>}, scratch,
    q, k, v, call, slots, cx.failure);
  launch(cx, "nc_attention_cached_fwd", merge_kernel, {blocks_for(int64_t(s.B) * s.T * s.H, 1, 0x7fffffff), TENSOR_D}, o, scratch, call, cx.failure);
}

} // namespace

int32_t nc_attention_cached_fwd(nc_context* ctx, void* o, void* q, void* kCache, void* vCache, void* positions, void* counts, void* scratch,
  int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t capacity, int32_t window, float scale, int32_t dtype) {
  return entry(ctx, "nc_attention_cached_fwd", [&](Context& cx) {
    const Call call{attention_sizes(B, T, H, G, D, window, scale), Progress(cx, positions, counts, B, T, capacity)};
    const int64_t queries = int64_t(B) * T * H, tiles = (int64_t(capacity) + KEYS - 1) / KEYS, cached = int64_t(B) * G * capacity * D;
    float* parts = optional<float>(cx, scratch, queries * tiles * (D + 2), "scratch");
    if (queries > 0x7fffffff) refuse(NC_STATUS_INVALID, "Cannot attend to the cache: %lld queries, expected fewer", (long long)queries);
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      E *out = array<E>(cx, o, queries * D, "o"), *query = array<E>(cx, q, queries * D, "q");
      E *key = array<E>(cx, kCache, cached, "kCache"), *value = array<E>(cx, vCache, cached, "vCache");
      if (queries == 0) return;
      if constexpr (std::is_same_v<E, bf16>) {
        if (D <= TENSOR_D) {
          return with_width(D, D % 8 == 0 && all_aligned(out, query, key, value), [&](auto width, auto aligned) {
            attend<decltype(width)::value, decltype(aligned)::value>(cx, out, parts, query, key, value, call);
          });
        }
      }
      launch(cx, "nc_attention_cached_fwd", plain_kernel<E>, {unsigned(queries), THREADS}, out, query, key, value, call, cx.failure);
    });
  });
}
