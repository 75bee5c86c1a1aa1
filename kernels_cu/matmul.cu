/**
 * Our own products; the interface and the order of the sums are in matmul.cuh.
 *
 * Two kernels for bf16 and int8, and matmul_f32.cu. `tile`: squares of 128 or 64 elements of C a block, operands through a pipeline of
 * cp.async stages, mma.sync; bound by the tensor cores where M and N are large. `thin`: few rows (decoding), a warp of the block for each
 * slice of K, so that a block asks for a strip of the weight at once; bound by the N K elements of the weight, each of which is read once
 * for every 32 rows. Both add up SLICES sums of mma steps in the same order.
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

// ---- choice ------------------------------------------------------------------------------------------------------------------------

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

void run(Context& cx, const char* name, const Product& p, bool inOrder) {
  if (p.M == 0 || p.N == 0 || p.batch == 0) return;
  if (p.K > INT32_MAX / 2) refuse(NC_STATUS_INVALID, "Cannot multiply %s: K is %lld, expected at most %d", name, (long long)p.K, INT32_MAX / 2);
  for (const int32_t dtype : {p.a.dtype, p.b.dtype}) with_float(dtype, [](auto) {});
  const Job job{cx, name, operand(p.a, p.M, p.a.rowStride, p.a.columnStride, p.K), operand(p.b, p.N, p.b.columnStride, p.b.rowStride, p.K), p.K,
    p.batch, p.relu2B, target(p)};
  if (p.a.dtype != NC_DTYPE_BF16 || p.b.dtype != NC_DTYPE_BF16) return multiply_f32(job, p.a.dtype, p.b.dtype);
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
