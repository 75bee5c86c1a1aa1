/**
 * Our own products; the interface and the order of the sums are in matmul.cuh.
 *
 * Three kernels. `tile`: squares of 128 or 64 elements of C a block, operands through a pipeline of cp.async stages, mma.sync; bound by
 * the tensor cores where M and N are large. `thin`: few rows (decoding), a warp of the block for each slice of K, so that a block asks
 * for a strip of the weight at once; bound by the N K elements of the weight, each of which is read once for every 32 rows. `fma`: f32,
 * and operands of two types, 64 x 64 a block. All three add up SLICES sums of mma steps (or of single terms) in the same order.
 */
#include "matmul_tile.cuh"

#include <algorithm>
#include <type_traits>

namespace {

// ---- squares of C ------------------------------------------------------------------------------------------------------------------

/**
 * How a block cuts its square of C: warps down and across. SLICED: in the order of matmul.cuh, which needs a second set of sums; the
 * registers left allow a warp 64 x 32 elements of C. Without, it has 64 x 64, for which it reads a third less of shared memory.
 */
template <int SIZE_, int DOWN_, int ACROSS_, bool SLICED_> struct Square {
  static constexpr int SIZE = SIZE_, DOWN = DOWN_, ACROSS = ACROSS_, THREADS = DOWN * ACROSS * WARP, STAGES = 4;
  static constexpr int ROWS = SIZE / DOWN, COLUMNS = SIZE / ACROSS, SUMS_STRIDE = SIZE + 8;
  static constexpr bool SLICED = SLICED_;
};
template <bool SLICED> using Large = std::conditional_t<SLICED, Square<128, 2, 4, true>, Square<128, 2, 2, false>>;
template <bool SLICED> using Small = Square<64, 2, 2, SLICED>;

/** A stage's share of a warp's sums. */
template <class T, class S, class TileA, class TileB, bool KA, bool KB, int MI, int NI>
__device__ __forceinline__ void add_stage(S (&sums)[MI][NI][4], const char* a, const char* b, int row, int column, bool relu2B) {
  uint32_t as[2][MI][4], bs[2][NI / 2][2][2]; // by step
#pragma unroll
  for (int step = 0; step < 2; step++) {
#pragma unroll
    for (int m = 0; m < MI; m++) load_a<TileA>(as[step][m], a, row + m * 16, step, KA);
#pragma unroll
    for (int n = 0; n < NI / 2; n++) load_b<TileB>(bs[step][n], b, column + n * 16, step, KB);
  }
  if (relu2B) {
#pragma unroll
    for (int n = 0; n < NI * 4; n++) {
      uint32_t& bits = bs[n / (NI * 2)][n / 4 % (NI / 2)][n / 2 % 2][n % 2];
      bits = relu2_pair(bits);
    }
  }
#pragma unroll
  for (int step = 0; step < 2; step++) {
#pragma unroll
    for (int m = 0; m < MI; m++) {
#pragma unroll
      for (int n = 0; n < NI; n++) Mma<T>::add(sums[m][n], as[step][m], bs[step][n / 2][n % 2]);
    }
  }
}

/** Writes a warp's sums into a tile of floats; TRANSPOSED: (column, row) instead of (row, column). */
template <bool TRANSPOSED, int STRIDE, class S, int MI, int NI>
__device__ __forceinline__ void spread(float* tile, const S (&sums)[MI][NI][4], int row, int column) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int m = 0; m < MI; m++) {
#pragma unroll
    for (int n = 0; n < NI; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int r = row + m * 16 + lane / 4 + e / 2 * 8, c = column + n * 8 + lane % 4 * 2 + e % 2;
        tile[TRANSPOSED ? c * STRIDE + r : r * STRIDE + c] = float(sums[m][n][e]);
      }
    }
  }
}

/** A square of C. `slice`: stages of K that are summed from zero where the sums are sliced. */
template <class T, class Cut, bool KA, bool KB>
__global__ void __launch_bounds__(Cut::THREADS) tile_kernel(Operand a, Operand b, int K, int slice, bool relu2B, Target t) {
  constexpr int SIZE = Cut::SIZE, STAGES = Cut::STAGES, MI = Cut::ROWS / 16, NI = Cut::COLUMNS / 8;
  using LoaderA = Loader<T, SIZE, KA, Cut::THREADS>;
  using LoaderB = Loader<T, SIZE, KB, Cut::THREADS>;
  using S = typename Mma<T>::Sum;
  constexpr int STAGE = LoaderA::BYTES + LoaderB::BYTES;
  DYNAMIC_SHARED(char, shared);
  const Position at = position((t.M + SIZE - 1) / SIZE, (t.N + SIZE - 1) / SIZE);
  const int64_t i0 = at.row * SIZE, j0 = at.column * SIZE;
  if (t.symmetric && j0 < i0) return;
  const int warp = threadIdx.x / WARP, row = warp / Cut::ACROSS * Cut::ROWS, column = warp % Cut::ACROSS * Cut::COLUMNS;
  const bool busy = i0 + row < t.M && j0 + column < t.N;
  LoaderA loadA(a, i0, 0, K, threadIdx.x);
  LoaderB loadB(b, j0, 0, K, threadIdx.x);
  const int stages = (K + LoaderA::K - 1) / LoaderA::K;
  const auto load = [&](int stage) {
    if (stage < stages) {
      char* to = shared + stage % STAGES * STAGE;
      loadA.load(to);
      loadB.load(to + LoaderA::BYTES);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; stage++) load(stage);
  S sums[MI][NI][4] = {};
  S totals[Cut::SLICED ? MI : 1][NI][4] = {};
  int left = slice;
  for (int stage = 0; stage < stages; stage++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    load(stage + STAGES - 1);
    const char* from = shared + stage % STAGES * STAGE;
    if (busy) add_stage<T, S, LoaderA, LoaderB, KA, KB>(sums, from, from + LoaderA::BYTES, row, column, relu2B);
    if constexpr (Cut::SLICED) {
      if (--left > 0 && stage + 1 < stages) continue;
      left = slice;
#pragma unroll
      for (int i = 0; i < MI * NI * 4; i++) {
        S& sum = sums[i / 4 / NI][i / 4 % NI][i % 4];
        totals[i / 4 / NI][i / 4 % NI][i % 4] += sum;
        sum = 0;
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  float* tile = reinterpret_cast<float*>(shared);
  const auto spread_sums = [&](auto transposed) {
    if constexpr (Cut::SLICED) spread<transposed.value, Cut::SUMS_STRIDE>(tile, totals, row, column);
    else spread<transposed.value, Cut::SUMS_STRIDE>(tile, sums, row, column);
  };
  spread_sums(std::false_type());
  __syncthreads();
  write_tile<SIZE, SIZE, Cut::SUMS_STRIDE, Cut::THREADS>(t, tile, i0, j0, t.symmetric && i0 == j0);
  if (!t.symmetric || i0 == j0) return;
  __syncthreads();
  spread_sums(std::true_type());
  __syncthreads();
  write_tile<SIZE, SIZE, Cut::SUMS_STRIDE, Cut::THREADS>(t, tile, j0, i0);
}

// ---- few rows ----------------------------------------------------------------------------------------------------------------------

/** A strip of C, ROWS x COLUMNS, both operands along K: warp w sums slice w, the block adds the slices. */
template <class T, int ROWS, int COLUMNS> struct Strip {
  using LoaderA = Loader<T, ROWS, true, WARP>;
  using LoaderB = Loader<T, COLUMNS, true, WARP>;
  static constexpr int THREADS = SLICES * WARP, STAGE = LoaderA::BYTES + LoaderB::BYTES;
  static constexpr int FITTING = (96 << 10) / (SLICES * STAGE), STAGES = FITTING < 6 ? FITTING : 6;
  static constexpr int SHARED_BYTES = SLICES * STAGES * STAGE;
};

template <class T, int ROWS, int COLUMNS>
__global__ void __launch_bounds__(SLICES * WARP) thin_kernel(Operand a, Operand b, int K, int slice, Target t) {
  using Cut = Strip<T, ROWS, COLUMNS>;
  using S = typename Mma<T>::Sum;
  constexpr int STAGES = Cut::STAGES, STAGE = Cut::STAGE, DEPTH = Cut::LoaderA::K;
  DYNAMIC_SHARED(char, shared);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int64_t i0 = int64_t(blockIdx.y) * ROWS, j0 = int64_t(blockIdx.x) * COLUMNS;
  const int first = warp * slice * DEPTH, stages = max(0, min(slice, (K - first + DEPTH - 1) / DEPTH));
  char* own = shared + warp * STAGES * STAGE;
  typename Cut::LoaderA loadA(a, i0, first, K, lane);
  typename Cut::LoaderB loadB(b, j0, first, K, lane);
  const auto load = [&](int stage) {
    if (stage < stages) {
      char* to = own + stage % STAGES * STAGE;
      loadA.load(to);
      loadB.load(to + Cut::LoaderA::BYTES);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; stage++) load(stage);
  S sums[ROWS / 16][COLUMNS / 8][4] = {};
  for (int stage = 0; stage < stages; stage++) {
    cp_async_wait<STAGES - 2>();
    __syncwarp();
    load(stage + STAGES - 1);
    const char* from = own + stage % STAGES * STAGE;
    uint32_t as[2][ROWS / 16][4], bs[COLUMNS / 8][4]; // b of both steps
#pragma unroll
    for (int m = 0; m < ROWS / 8; m++) load_a<typename Cut::LoaderA>(as[m % 2][m / 2], from, m / 2 * 16, m % 2, true);
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) {
      ldmatrix_x4(bs[n], from + Cut::LoaderA::BYTES + (n * 8 + lane % 8) * Cut::LoaderB::ROW_BYTES + lane / 8 * 16);
    }
#pragma unroll
    for (int step = 0; step < 2; step++) {
#pragma unroll
      for (int n = 0; n < COLUMNS / 8; n++) {
        const uint32_t b[2] = {bs[n][step * 2], bs[n][step * 2 + 1]};
#pragma unroll
        for (int m = 0; m < ROWS / 16; m++) Mma<T>::add(sums[m][n], as[step][m], b);
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  S(*slices)[ROWS][COLUMNS] = reinterpret_cast<S(*)[ROWS][COLUMNS]>(shared);
#pragma unroll
  for (int m = 0; m < ROWS / 16; m++) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) {
      for (int e = 0; e < 4; e++) slices[warp][m * 16 + lane / 4 + e / 2 * 8][n * 8 + lane % 4 * 2 + e % 2] = sums[m][n][e];
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < ROWS * COLUMNS; e += Cut::THREADS) {
    const int r = e / COLUMNS, c = e % COLUMNS;
    if (i0 + r >= t.M || j0 + c >= t.N) continue;
    S total = 0;
    for (int w = 0; w < SLICES; w++) total += slices[w][r][c];
    const auto sum = [&](int) { return float(total); };
    if (t.isBf16) write<bf16, 1>(t, i0 + r, j0 + c, sum);
    else write<float, 1>(t, i0 + r, j0 + c, sum);
  }
}

// ---- f32 ---------------------------------------------------------------------------------------------------------------------------

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

// ---- int8 --------------------------------------------------------------------------------------------------------------------------

constexpr int QUANTISE_THREADS = 128;

/** Bytes between rows of int8. */
int64_t int8_stride(int64_t K) { return (K + 15) / 16 * 16; }

/** q (rows, stride) = round(x (127 / max |x|)) by rows, zeros behind them; scales (rows) = max |x| / 127. A block a row. */
template <class X>
__global__ void __launch_bounds__(QUANTISE_THREADS) quantise_kernel(int8_t* q, float* scales, const X* x, int64_t xStride, int64_t K, int64_t stride) {
  constexpr float SMALLEST = 0x1p-120f, ROUND = 0x1.8p23f; // adding ROUND leaves an integer, rounded to even, in the low bits
  SHARED(uint32_t, slots, [QUANTISE_THREADS / WARP]);
  const X* row = x + blockIdx.x * xStride;
  uint32_t bits = 0; // of positive numbers they are in their order, infinity and NaN above them
  for (int64_t k = threadIdx.x; k < K; k += QUANTISE_THREADS) bits = max(bits, __float_as_uint(to_f32(row[k])) & 0x7fffffffu);
  for (int o = WARP / 2; o > 0; o >>= 1) bits = max(bits, __shfl_xor_sync(ALL_LANES, bits, o));
  if (threadIdx.x % WARP == 0) slots[threadIdx.x / WARP] = bits;
  __syncthreads();
  for (const uint32_t each : slots) bits = max(bits, each);
  const float largest = __uint_as_float(bits);
  const bool isFinite = bits < 0x7f800000u, isZero = largest < SMALLEST || !isFinite;
  const float inverse = isZero ? 0 : 127 / largest;
  uint32_t* words = reinterpret_cast<uint32_t*>(q + blockIdx.x * stride);
  for (int64_t word = threadIdx.x; word < stride / 4; word += QUANTISE_THREADS) {
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

/** Quantises rows of f32 or bf16. */
void quantise(Context& cx, const char* name, int8_t* q, float* scales, const View& x, int64_t rows, int64_t K) {
  if (K > 1 << 17) refuse(NC_STATUS_INVALID, "Cannot multiply: K is %lld, expected at most %d for i8, whose sums are integers of 32 bits", (long long)K, 1 << 17);
  with_float(x.dtype, [&](auto type) {
    using X = decltype(type);
    launch(cx, name, quantise_kernel<X>, {unsigned(rows), QUANTISE_THREADS}, q, scales, static_cast<const X*>(x.data), x.rowStride, K, int8_stride(K));
  });
}

// ---- choice ------------------------------------------------------------------------------------------------------------------------

int64_t element_bytes(int32_t dtype) { return dtype == NC_DTYPE_F32 ? 4 : dtype == NC_DTYPE_BF16 ? 2 : 1; }

int64_t pieces(int64_t n, int64_t each) { return (n + each - 1) / each; }

bool is_aligned(const void* data, std::initializer_list<int64_t> bytes) {
  int64_t bits = int64_t(reinterpret_cast<uint64_t>(data));
  for (const int64_t each : bytes) bits |= each;
  return bits % 16 == 0;
}

/** Lines of an operand: rows of A, or columns of B. */
Operand operand(const View& view, int64_t lines, int64_t lineStride, int64_t kStride, int64_t K) {
  if (lineStride != 1 && kStride != 1) refuse(NC_STATUS_INVALID, "Cannot multiply: an operand has strides %lld and %lld, expected one of them to be 1",
    (long long)lineStride, (long long)kStride);
  const int64_t size = element_bytes(view.dtype), extent = kStride == 1 ? K : lines, stride = kStride == 1 ? lineStride : kStride;
  return {view.data, lines, lineStride, kStride, view.batchStride, is_aligned(view.data, {extent * size, stride * size, view.batchStride * size})};
}

Target target(const Product& p) {
  with_float(p.c.dtype, [](auto) {});
  const int64_t size = element_bytes(p.c.dtype);
  const bool aligned = is_aligned(p.c.data, {p.N * size, p.c.stride * size, p.c.batchStride * size}) && is_aligned(p.other, {p.otherBatchStride * size});
  return {p.c.data, p.other, nullptr, nullptr, p.M, p.N, p.c.stride, p.c.batchStride, p.otherBatchStride, p.alpha, p.beta, p.epilogue,
    p.c.dtype == NC_DTYPE_BF16, aligned, p.symmetric};
}

/** A product whose operands and target are ready. */
struct Job {
  Context& cx;
  const char* name;
  Operand a, b;
  int64_t K, batch;
  bool relu2B;
  Target t;
};

unsigned squares(const Target& t, int size) { return unsigned(pieces(t.M, size) * pieces(t.N, size)); }

template <class T, class Cut, bool KA, bool KB> void run_tile(const Job& job) {
  constexpr int STAGE = Loader<T, Cut::SIZE, KA, Cut::THREADS>::BYTES + Loader<T, Cut::SIZE, KB, Cut::THREADS>::BYTES;
  constexpr int SUMS = Cut::SIZE * Cut::SUMS_STRIDE * int(sizeof(float));
  const int64_t slice = std::max<int64_t>(1, pieces(pieces(job.K * int64_t(sizeof(T)), STAGE_BYTES), SLICES));
  const Shape shape{{squares(job.t, Cut::SIZE), 1, unsigned(job.batch)}, Cut::THREADS, size_t(std::max(STAGE * Cut::STAGES, SUMS))};
  launch(job.cx, job.name, tile_kernel<T, Cut, KA, KB>, shape, job.a, job.b, job.K, slice, job.relu2B, job.t);
}

template <class T, bool SLICED, bool KA, bool KB> void run_tile(const Job& job) {
  if (squares(job.t, Large<SLICED>::SIZE) * job.batch >= job.cx.properties.multiProcessorCount) run_tile<T, Large<SLICED>, KA, KB>(job);
  else run_tile<T, Small<SLICED>, KA, KB>(job);
}

template <class T, int ROWS, int COLUMNS> void run_thin(const Job& job) {
  const int64_t slice = std::max<int64_t>(1, pieces(pieces(job.K * int64_t(sizeof(T)), STAGE_BYTES), SLICES));
  using Cut = Strip<T, ROWS, COLUMNS>;
  const Shape shape{{unsigned(pieces(job.t.N, COLUMNS)), unsigned(pieces(job.t.M, ROWS)), unsigned(job.batch)}, Cut::THREADS, Cut::SHARED_BYTES};
  launch(job.cx, job.name, thin_kernel<T, ROWS, COLUMNS>, shape, job.a, job.b, job.K, slice, job.t);
}

/** Runs `thin` where it is the faster one: few rows, or so few tiles that most multiprocessors would have none. */
template <class T> bool thin_fits(const Job& job) {
  if (job.a.kStride != 1 || job.b.kStride != 1 || job.relu2B || job.t.symmetric || job.t.M > 128) return false;
  const int64_t processors = job.cx.properties.multiProcessorCount;
  if (job.t.M > 32 && squares(job.t, Small<true>::SIZE) * job.batch >= processors) return false;
  const int64_t strips = job.batch * job.t.N / (2 * processors); // columns that leave two strips each
  if (job.t.M > 16) run_thin<T, 32, 16>(job);
  else if (strips >= 32) run_thin<T, 16, 32>(job);
  else if (strips >= 16 || job.t.M > 8) run_thin<T, 16, 16>(job); // x should not outweigh the weight
  else run_thin<T, 16, 8>(job);
  return true;
}

/** Operands of f32, or of two types. */
void run_fma(const Job& job, int32_t dtypeA, int32_t dtypeB) {
  const Shape shape{{squares(job.t, FMA_TILE), 1, unsigned(job.batch)}, FMA_THREADS, FMA_TILE * FMA_STRIDE * sizeof(float)};
  const int64_t slice = std::max<int64_t>(1, pieces(pieces(job.K, FMA_DEPTH), SLICES)) * FMA_DEPTH;
  const auto run = [&](auto kernel) { launch(job.cx, job.name, kernel, shape, job.a, job.b, job.K, slice, job.relu2B, job.t); };
  if (dtypeA == NC_DTYPE_F32 && dtypeB == NC_DTYPE_F32) run(fma_kernel<float, float>);
  else if (dtypeA == NC_DTYPE_F32) run(fma_kernel<float, bf16>);
  else run(fma_kernel<bf16, float>);
}

void run(Context& cx, const char* name, const Product& p, bool inOrder) {
  if (p.M == 0 || p.N == 0 || p.batch == 0) return;
  if (p.K > INT32_MAX / 2) refuse(NC_STATUS_INVALID, "Cannot multiply %s: K is %lld, expected at most %d", name, (long long)p.K, INT32_MAX / 2);
  for (const int32_t dtype : {p.a.dtype, p.b.dtype}) with_float(dtype, [](auto) {});
  const Job job{cx, name, operand(p.a, p.M, p.a.rowStride, p.a.columnStride, p.K), operand(p.b, p.N, p.b.columnStride, p.b.rowStride, p.K), p.K,
    p.batch, p.relu2B, target(p)};
  if (p.a.dtype != NC_DTYPE_BF16 || p.b.dtype != NC_DTYPE_BF16) return run_fma(job, p.a.dtype, p.b.dtype);
  const bool ka = job.a.kStride == 1, kb = job.b.kStride == 1;
  if (inOrder) {
    if (!ka || !kb) refuse(NC_STATUS_UNSUPPORTED, "Cannot multiply %s in the order of inference: expected bf16 operands along K", name);
    if (!thin_fits<bf16>(job)) run_tile<bf16, true, true, true>(job);
  } else if (ka && kb) {
    run_tile<bf16, false, true, true>(job);
  } else if (ka) {
    run_tile<bf16, false, true, false>(job);
  } else if (kb) {
    run_tile<bf16, false, false, true>(job);
  } else {
    run_tile<bf16, false, false, false>(job);
  }
}

} // namespace

void multiply(Context& cx, const char* name, const Product& product) { run(cx, name, product, true); }

void multiply_freely(Context& cx, const char* name, const Product& product) { run(cx, name, product, false); }

int64_t int8_bytes(int64_t N, int64_t K) { return N * (int8_stride(K) + int64_t(sizeof(float))); }

void pack_int8(Context& cx, const char* name, void* packed, const void* w, int64_t N, int64_t K, int32_t dtype) {
  int8_t* q = static_cast<int8_t*>(packed);
  quantise(cx, name, q, reinterpret_cast<float*>(q + N * int8_stride(K)), {w, dtype, K, 1}, N, K);
}

void multiply_int8(Context& cx, const char* name, const Product& p, const void* w, int64_t rowsW) {
  if (p.M == 0 || p.N == 0) return;
  if (p.batch != 1) refuse(NC_STATUS_INVALID, "Cannot multiply: a batch of %lld products of int8, expected one", (long long)p.batch);
  const int64_t depth = int8_stride(p.K), most = std::max<int64_t>(1, WORKSPACE_BYTES / (depth + int64_t(sizeof(float))) / 16 * 16);
  const int8_t* weight = static_cast<const int8_t*>(w);
  int8_t* q = reinterpret_cast<int8_t*>(workspace(cx)); // rows of x, which wait there for their product, and their scales
  for (int64_t first = 0; first < p.M; first += most) { // rows do not depend on each other
    Product part = p;
    part.M = std::min(most, p.M - first);
    float* scales = reinterpret_cast<float*>(q + part.M * depth);
    const int64_t bytesC = first * p.c.stride * element_bytes(p.c.dtype);
    part.c.data = static_cast<char*>(p.c.data) + bytesC;
    if (p.other) part.other = static_cast<char*>(p.other) + bytesC;
    part.a.data = static_cast<const char*>(p.a.data) + first * p.a.rowStride * element_bytes(p.a.dtype);
    quantise(cx, name, q, scales, part.a, part.M, p.K);
    Job job{cx, name, operand({q, NC_DTYPE_I8, depth, 1}, part.M, depth, 1, depth), operand({w, NC_DTYPE_I8, depth, 1}, p.N, depth, 1, depth), depth,
      1, false, target(part)};
    job.t.rowScales = scales;
    job.t.columnScales = reinterpret_cast<const float*>(weight + rowsW * depth);
    if (!thin_fits<int8_t>(job)) run_tile<int8_t, false, true, true>(job); // integers have one sum
  }
}
