/**
 * What the attention kernels share: sizes and their checks, tiles in shared memory, fragments of them, and how a row of scores becomes
 * weights.
 *
 * A tile of bf16 has rows of DP elements, D rounded up to a width with kernels of its own, zeros behind D. Its chunks of 16 bytes are
 * swizzled so that eight neighbouring rows at one column lie in different banks: ldmatrix and the writes of a warp have no conflicts.
 */
#pragma once
#include "context.cuh"
#include "ptx.cuh"

#include <type_traits>

/** Sizes and options, as nc_attention_fwd has them; without a window all keys lie inside it. */
struct AttentionSizes {
  int B, T, H, G, D, window;
  float scale;

  /** Elements of q and of k. */
  int64_t queries() const { return int64_t(B) * T * H * D; }
  int64_t keys() const { return int64_t(B) * T * G * D; }
};

constexpr int MOST_D = 256, TENSOR_D = 128; // widest head; widest on the tensor cores
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

/** Checks the sizes of an attention. */
inline AttentionSizes attention_sizes(int B, int T, int H, int G, int D, int window, float scale) {
  size(B, "B"), size(T, "T"), size(H, "H");
  if (G < 1 || H % G != 0) refuse(NC_STATUS_INVALID, "Cannot attend: %d query heads on %d key heads, expected a multiple of them", H, G);
  if (D < 2 || D > MOST_D || D % 2 != 0) refuse(NC_STATUS_INVALID, "Cannot attend: head size %d, expected an even one up to %d", D, MOST_D);
  if (window < -1) refuse(NC_STATUS_INVALID, "Cannot attend: window %d, expected at least 0, or -1 for all", window);
  if (!(scale > 0)) refuse(NC_STATUS_INVALID, "Cannot attend: scale %g, expected more than 0", double(scale));
  return {B, T, H, G, D, window < 0 || window > 1 << 30 ? 1 << 30 : window, scale};
}

/** Blocks of a one-dimensional grid: one for each `each` tokens of each head of each row. */
inline unsigned attention_blocks(const AttentionSizes& s, int heads, int each) {
  const int64_t perRow = int64_t(heads) * ((int64_t(s.T) + each - 1) / each), most = 0x7fffffff;
  if (perRow > most || s.B * perRow > most) {
    refuse(NC_STATUS_INVALID, "Cannot attend: B %d with %d heads and T %d, expected fewer tokens", s.B, heads, s.T);
  }
  return unsigned(s.B * perRow);
}

/** Calls `run` with the width that tiles of head size D get, as a constant, and with whether rows are aligned. */
template <class F> void with_width(int D, bool aligned, F&& run) {
  const auto with = [&](auto width) {
    if (aligned) run(width, std::true_type());
    else run(width, std::false_type());
  };
  if (D <= 16) with(std::integral_constant<int, 16>());
  else if (D <= 32) with(std::integral_constant<int, 32>());
  else if (D <= 64) with(std::integral_constant<int, 64>());
  else if (D <= 96) with(std::integral_constant<int, 96>());
  else with(std::integral_constant<int, 128>());
}

/** Forward and backward in fp32 arithmetic, for fp32 and for wide heads (attention_f32.cu). */
template <class T>
void attention_f32_fwd(Context& cx, T* o, float* lse, const T* q, const T* k, const T* v, const int32_t* lengths, const AttentionSizes& s);
template <class T>
void attention_f32_bwd(Context& cx, T* dq, T* dk, T* dv, const T* dO, const T* q, const T* k, const T* v, const float* lse,
  const float* delta, const int32_t* lengths, const AttentionSizes& s);

/** Valid tokens of row b; an impossible number is reported and counts as none. */
__device__ inline int row_length(const int32_t* lengths, int b, int T, Failure* failure) {
  if (!lengths) return T;
  const int length = lengths[b];
  if (length >= 0 && length <= T) return length;
  if (threadIdx.x == 0) report(failure, FAILURE_LENGTH, length, T);
  return 0;
}

/** Where a chunk of 8 elements of a row lies in a tile. */
template <int DP> __device__ __forceinline__ int swizzled(int row, int chunk) {
  constexpr int CHUNKS = DP / 8;
  static_assert(CHUNKS == 2 || CHUNKS % 4 == 0, "banks of this width are not worked out");
  const int by = CHUNKS % 8 == 0 ? row & 7 : CHUNKS % 4 == 0 ? row >> 1 & 3 : row >> 2 & 1;
  return row * DP + (chunk ^ by) * 8;
}

/** The same for chunk 2 step + `half`. In rows of a power of two the step is an exclusive or with a constant, which costs no register. */
template <int DP> __device__ __forceinline__ int swizzled_step(int row, int step, int half) {
  if (DP % 96 == 0) return swizzled<DP>(row, 2 * step + half);
  return swizzled<DP>(row, half) ^ 16 * step;
}

/**
 * Starts loading the rows of a tile by all threads; `at(row)` is where a row of D elements begins, of zeros
 * unless `at.has(row)`. An aligned
 * row comes by cp.async, to be committed and waited for; another one is written at once.
 */
template <int DP, int ROWS, int THREADS, bool ALIGNED, class At>
__device__ __forceinline__ void load_tile(bf16* tile, int D, At at) {
  constexpr int CHUNKS = DP / 8;
#pragma unroll 1 // addresses of all rounds at once cost registers
  for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; i++) {
    const int index = i * THREADS + int(threadIdx.x), row = index / CHUNKS, chunk = index % CHUNKS;
    if (ROWS * CHUNKS % THREADS != 0 && row >= ROWS) break;
    const bf16* from = at(row) + chunk * 8;
    const bool has = at.has(row);
    bf16* to = tile + swizzled<DP>(row, chunk);
    if (ALIGNED) {
      cp_async16(to, from, has && chunk * 8 < D);
    } else {
      Vec<bf16> values;
      for (int j = 0; j < 8; j++) values.at[j] = has && chunk * 8 + j < D ? from[j] : from_f32<bf16>(0);
      store_vec(to, values);
    }
  }
}

/** `at` of load_tile and store_rows for rows `stride` apart, of which `valid` exist. */
template <class T> struct Rows {
  T* first;
  int stride, valid;
  __device__ __forceinline__ bool has(int row) const { return row < valid; }
  __device__ __forceinline__ T* operator()(int row) const { return first + int64_t(row) * stride; }
};

/** Writes ROWS rows of a tile from row `first` on, by one warp, where `at.has(row)`. */
template <int DP, int ROWS, bool ALIGNED, class At>
__device__ __forceinline__ void store_rows(const bf16* tile, int first, int D, At at) {
  constexpr int CHUNKS = DP / 8;
  for (int i = int(threadIdx.x) % WARP; i < ROWS * CHUNKS; i += WARP) {
    const int row = first + i / CHUNKS, chunk = i % CHUNKS;
    if (!at.has(row) || chunk * 8 >= D) continue;
    bf16* to = at(row);
    const Vec<bf16> values = load_vec(tile + swizzled<DP>(row, chunk));
    if (ALIGNED) store_vec(to + chunk * 8, values);
    else for (int j = 0; j < 8 && chunk * 8 + j < D; j++) to[chunk * 8 + j] = values.at[j];
  }
}

/** Zeros rows of D elements by all threads. */
template <int THREADS, class T> __device__ void zero_rows(Rows<T> rows, int D) {
  for (int64_t i = threadIdx.x; i < int64_t(rows.valid) * D; i += THREADS) rows(int(i / D))[i % D] = from_f32<T>(0);
}

/** Sums over (16, 8 N) of a product, as fragments. */
template <int N> struct Sums {
  float at[N][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < N; n++) for (int i = 0; i < 4; i++) at[n][i] = 0;
  }

  /** Columns 16 step.. as operand A of another product. */
  __device__ __forceinline__ void operand(uint32_t (&a)[4], int step) const {
    for (int i = 0; i < 4; i++) a[i] = pack_bf16(at[2 * step + i / 2][i % 2 * 2], at[2 * step + i / 2][i % 2 * 2 + 1]);
  }

  /** Writes the sums times a factor for the upper and the lower 8 rows into a tile, from row `row` on. */
  template <int DP> __device__ __forceinline__ void store(bf16* tile, int row, float upper, float lower) const {
    const int lane = int(threadIdx.x) % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < N; n++) {
      const uint32_t first = pack_bf16(at[n][0] * upper, at[n][1] * upper), second = pack_bf16(at[n][2] * lower, at[n][3] * lower);
      *reinterpret_cast<uint32_t*>(tile + swizzled<DP>(row + g, n) + 2 * t) = first;
      *reinterpret_cast<uint32_t*>(tile + swizzled<DP>(row + g + 8, n) + 2 * t) = second;
    }
  }
};

/** Operand A: rows row.. of a tile, columns 16 step... */
template <int DP> __device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16* tile, int row, int step) {
  const int lane = int(threadIdx.x) % WARP;
  ldmatrix_x4(a, tile + swizzled_step<DP>(row + lane % 16, step, lane / 16));
}

/** Two neighbours of operand B, of 8 columns each: the columns are rows row.. of a tile, the terms its columns 16 step... */
template <int DP> __device__ __forceinline__ void load_b(uint32_t (&b)[2][2], const bf16* tile, int row, int step) {
  const int lane = int(threadIdx.x) % WARP;
  uint32_t r[4];
  ldmatrix_x4(r, tile + swizzled_step<DP>(row + lane % 8 + lane / 16 * 8, step, lane / 8 % 2));
  for (int i = 0; i < 4; i++) b[i / 2][i % 2] = r[i];
}

/** Two neighbours of operand B: the terms are rows row.. of a tile, the columns its columns 16 step... */
template <int DP> __device__ __forceinline__ void load_b_across(uint32_t (&b)[2][2], const bf16* tile, int row, int step) {
  const int lane = int(threadIdx.x) % WARP;
  uint32_t r[4];
  ldmatrix_x4_trans(r, tile + swizzled_step<DP>(row + lane % 16, step, lane / 16));
  for (int i = 0; i < 4; i++) b[i / 2][i % 2] = r[i];
}

/** Largest value and sum over the four lanes that hold a row of a fragment. */
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(ALL_LANES, x, 1);
  return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

/** What is taken from exponents: the maximum m, or 0 where nothing is seen yet, so that 2^(-inf - base) is 0 and not NaN. */
__device__ __forceinline__ float finite_base(float m) { return m == -INFINITY ? 0 : m; }
