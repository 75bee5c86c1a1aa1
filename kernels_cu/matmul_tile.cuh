/**
 * What the kernels of matmul.cu are made of: operands in global memory, stages of them in shared memory, fragments of those, and the
 * way from sums to C.
 *
 * A stage holds STAGE_BYTES of K, two steps of mma, of some lines of an operand (rows of A, columns of B): line by line where they run
 * along K, else as rows of K with all lines beside each other. 16 bytes of padding a row keep ldmatrix free of bank conflicts.
 */
#pragma once
#include "matmul.cuh"
#include "ptx.cuh"

constexpr int SLICES = 8; // parts of K whose sums are added at the end
constexpr int STAGE_BYTES = 64;
constexpr int PADDING = 16;

/** An operand as kernels see it: line l (row of A, column of B), elements along K. */
struct Operand {
  const void* data;
  int64_t lines, lineStride, kStride, batchStride;
  bool aligned; // all pieces of 16 bytes lie wholly inside or outside, at multiples of 16 bytes
};

/** What a kernel needs to turn sums into C. */
struct Target {
  void *c, *other;
  const float *rowScales, *columnScales; // of int8 operands
  int64_t M, N, stride, batchStride, otherBatchStride;
  float alpha, beta;
  Epilogue epilogue;
  bool isBf16, aligned, symmetric;
};

__device__ __forceinline__ float relu(float h) { return h > 0 || h != h ? h : 0; }

/** max(h, 0)^2 of two neighbours. */
__device__ __forceinline__ uint32_t relu2_pair(uint32_t bits) {
  const float low = relu(__uint_as_float(bits << 16)), high = relu(__uint_as_float(bits & 0xffff0000u));
  return pack_bf16(low * low, high * high);
}

// ---- from global to shared memory --------------------------------------------------------------------------------------------------

/** Copies LINES lines of an operand, STAGE_BYTES of K at a time, by THREADS threads. */
template <class T, int LINES, bool ALONG_K, int THREADS> class Loader {
 public:
  static constexpr int PIECE = 16 / sizeof(T), PIECES = LINES * 4 / THREADS, K = STAGE_BYTES / sizeof(T);
  static constexpr int ROW_BYTES = ALONG_K ? STAGE_BYTES + PADDING : LINES * int(sizeof(T)) + PADDING;
  static constexpr int BYTES = ALONG_K ? LINES * ROW_BYTES : K * ROW_BYTES;
  static constexpr int ACROSS = ALONG_K ? 4 : LINES / PIECE, DOWN = THREADS / ACROSS; // threads beside each other in a row of the stage
  static_assert(LINES * 4 % THREADS == 0 && THREADS % ACROSS == 0 && (ALONG_K || sizeof(T) == 2));

  __device__ __forceinline__ Loader(const Operand& operand, int64_t first, int k0, int end, int thread)
      : operand_(operand), thread_(thread), lines_(int(min(operand.lines - first, int64_t(LINES)))), k_(k0), end_(end) {
    from_ = batch() + (first + line(0)) * operand.lineStride + (k0 + k(0)) * operand.kStride;
  }

  /** Starts the next copy. */
  __device__ __forceinline__ void load(char* stage) {
    const int64_t step = DOWN * (ALONG_K ? operand_.lineStride : operand_.kStride); // between pieces
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
      char* to = stage + (ALONG_K ? line(i) * ROW_BYTES + k(i) * int(sizeof(T)) : k(i) * ROW_BYTES + line(i) * int(sizeof(T)));
      const bool inside = line(i) < lines_ && k_ + k(i) < end_;
      const T* from = from_ + i * step;
      if (operand_.aligned) cp_async16(to, inside ? from : batch(), inside);
      else copy(to, from, i);
    }
    from_ += K * operand_.kStride;
    k_ += K;
  }

 private:
  __device__ __forceinline__ const T* batch() const { return static_cast<const T*>(operand_.data) + blockIdx.z * operand_.batchStride; }
  /** Line and k of a piece within the stage; pieces of a thread differ in one of them. */
  __device__ __forceinline__ int line(int i) const {
    return ALONG_K ? thread_ / ACROSS + i * DOWN : thread_ % ACROSS * PIECE;
  }
  __device__ __forceinline__ int k(int i) const {
    return ALONG_K ? thread_ % ACROSS * PIECE : thread_ / ACROSS + i * DOWN;
  }
  __device__ __forceinline__ void copy(char* to, const T* from, int i) const {
    Vec<T> v{};
#pragma unroll
    for (int e = 0; e < PIECE; e++) {
      const bool inside = ALONG_K ? line(i) < lines_ && k_ + k(i) + e < end_ : line(i) + e < lines_ && k_ + k(i) < end_;
      if (inside) v.at[e] = from[e];
    }
    store_vec(reinterpret_cast<T*>(to), v);
  }

  const Operand& operand_;
  const T* from_; // of the first piece
  int thread_, lines_, k_, end_;
};

// ---- from shared memory to registers -----------------------------------------------------------------------------------------------

/** A (16 lines from `line` on) for one step. */
template <class Tile> __device__ __forceinline__ void load_a(uint32_t (&a)[4], const char* stage, int line, int step, bool alongK) {
  const int lane = threadIdx.x % WARP;
  if (alongK) ldmatrix_x4(a, stage + (line + lane % 16) * Tile::ROW_BYTES + step * 32 + lane / 16 * 16);
  else ldmatrix_x4_trans(a, stage + (step * 16 + lane % 8 + lane / 16 * 8) * Tile::ROW_BYTES + (line + lane / 8 % 2 * 8) * 2);
}

/** B (16 lines from `line` on, a fragment for 8 each) for one step. */
template <class Tile> __device__ __forceinline__ void load_b(uint32_t (&b)[2][2], const char* stage, int line, int step, bool alongK) {
  const int lane = threadIdx.x % WARP;
  uint32_t r[4];
  if (alongK) ldmatrix_x4(r, stage + (line + lane % 8 + lane / 16 * 8) * Tile::ROW_BYTES + step * 32 + lane / 8 % 2 * 16);
  else ldmatrix_x4_trans(r, stage + (step * 16 + lane % 16) * Tile::ROW_BYTES + (line + lane / 16 * 8) * 2);
  for (int i = 0; i < 4; i++) b[i / 2][i % 2] = r[i];
}

/** Product of a step, and what its sums are. */
template <class T> struct Mma;
template <> struct Mma<bf16> {
  using Sum = float;
  __device__ static __forceinline__ void add(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_bf16(c, a, b); }
};
template <> struct Mma<int8_t> {
  using Sum = int32_t;
  __device__ static __forceinline__ void add(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_i8(c, a, b); }
};

// ---- from sums to C ----------------------------------------------------------------------------------------------------------------

template <class C> __device__ __forceinline__ float rounded(float x) { return to_f32(from_f32<C>(x)); }

__device__ __forceinline__ bool reads_c(Epilogue e) { return e == Epilogue::ACCUMULATE || e == Epilogue::RELU2_BACKWARD_ACCUMULATE; }
__device__ __forceinline__ bool reads_other(Epilogue e) { return e > Epilogue::ACCUMULATE && e != Epilogue::RELU2; }

/** c of h, with the old c and the other operand where the epilogue reads them; RELU2 leaves in `other` what is to be stored there. */
template <class C> __device__ __forceinline__ float finished(const Target& t, float h, float old, float& other) {
  switch (t.epilogue) {
    case Epilogue::STORE: return h;
    case Epilogue::ACCUMULATE: return old + h;
    case Epilogue::RESIDUAL: return h + other;
    case Epilogue::RELU2: {
      other = rounded<C>(h);
      const float r = relu(other);
      return r * r;
    }
    case Epilogue::RELU2_BACKWARD: return h * (2 * relu(other));
    case Epilogue::RELU2_BACKWARD_ACCUMULATE: return old + h * (2 * relu(other));
    case Epilogue::BLEND: return rounded<C>(t.beta * other) + rounded<C>(h);
  }
  return h;
}

/** Writes N neighbours of row i of C from column j on; `sums(n)` are their sums. VECTOR: 16 bytes at a time. */
template <class C, int N, class Sums> __device__ __forceinline__ void write(const Target& t, int64_t i, int64_t j, Sums&& sums) {
  struct alignas(N * sizeof(C)) Run { C at[N]; };
  const int64_t at = i * t.stride + j;
  C* c = static_cast<C*>(t.c) + blockIdx.z * t.batchStride + at;
  C* other = t.other ? static_cast<C*>(t.other) + blockIdx.z * t.otherBatchStride + at : nullptr;
  Run olds{}, others{}, results;
  if (reads_c(t.epilogue)) olds = *reinterpret_cast<const Run*>(c);
  if (reads_other(t.epilogue)) others = *reinterpret_cast<const Run*>(other);
  const float rowScale = t.rowScales ? t.rowScales[i] : 1;
  for (int n = 0; n < N; n++) {
    float h = sums(n);
    if (t.rowScales) h = h * rowScale * t.columnScales[j + n];
    float with = to_f32(others.at[n]);
    results.at[n] = from_f32<C>(finished<C>(t, h * t.alpha, to_f32(olds.at[n]), with));
    others.at[n] = from_f32<C>(with);
  }
  if (t.epilogue == Epilogue::RELU2 && t.other) *reinterpret_cast<Run*>(other) = others;
  *reinterpret_cast<Run*>(c) = results;
}

/** Writes a tile of ROWS x COLUMNS sums, STRIDE floats a row, whose first is C[i0][j0]. MIRROR: the lower half comes from the upper one. */
template <class C, int ROWS, int COLUMNS, int STRIDE, int THREADS>
__device__ __forceinline__ void write_tile(const Target& t, const float* sums, int64_t i0, int64_t j0, bool mirror) {
  constexpr int N = 16 / sizeof(C);
  for (int e = threadIdx.x; e < ROWS * COLUMNS / N; e += THREADS) {
    const int r = e / (COLUMNS / N), c = e % (COLUMNS / N) * N;
    if (i0 + r >= t.M || j0 + c >= t.N) continue;
    const auto sum = [&](int n) { return mirror && r > c + n ? sums[(c + n) * STRIDE + r] : sums[r * STRIDE + c + n]; };
    if (t.aligned) write<C, N>(t, i0 + r, j0 + c, sum);
    else for (int n = 0; n < N && j0 + c + n < t.N; n++) write<C, 1>(t, i0 + r, j0 + c + n, [&](int) { return sum(n); });
  }
}

template <int ROWS, int COLUMNS, int STRIDE, int THREADS>
__device__ __forceinline__ void write_tile(const Target& t, const float* sums, int64_t i0, int64_t j0, bool mirror = false) {
  if (t.isBf16) write_tile<bf16, ROWS, COLUMNS, STRIDE, THREADS>(t, sums, i0, j0, mirror);
  else write_tile<float, ROWS, COLUMNS, STRIDE, THREADS>(t, sums, i0, j0, mirror);
}

/** Position of a block's tile: blocks that run together share rows and columns. */
struct Position {
  int64_t row, column;
};
__device__ __forceinline__ Position position(int64_t rows, int64_t columns) {
  constexpr int GROUP = 8; // rows of tiles
  const int64_t index = blockIdx.x, group = index / (GROUP * columns), first = group * GROUP;
  const int64_t height = min(rows - first, int64_t(GROUP)), within = index - first * columns;
  return {first + within % height, within / height};
}

// ---- on the host -------------------------------------------------------------------------------------------------------------------

inline int64_t element_bytes(int32_t dtype) { return dtype == NC_DTYPE_F32 ? 4 : dtype == NC_DTYPE_BF16 ? 2 : 1; }

inline int64_t pieces(int64_t n, int64_t each) { return (n + each - 1) / each; }

/** A product whose operands and target are ready. */
struct Job {
  Context& cx;
  const char* name;
  Operand a, b;
  int64_t K, batch;
  bool relu2B;
  Target t;
};

/** Squares of C. */
inline unsigned squares(const Target& t, int size) { return unsigned(pieces(t.M, size) * pieces(t.N, size)); }

/** Multiplies operands of f32, or of two types. */
void multiply_f32(const Job& job, int32_t dtypeA, int32_t dtypeB);

/** Bytes between rows of int8. */
inline int64_t int8_stride(int64_t K) { return pieces(K, 16) * 16; }

/** Quantises rows of f32 or bf16 as `pack_int8` does: q (rows, stride) with zeros behind K, scales (rows). */
void quantise(Context& cx, const char* name, int8_t* q, float* scales, const View& x, int64_t rows, int64_t K);
