/**
 * Rows of a table by index: embedding lookup and its gradient, row gather.
 *
 *   fwd: y[r] = w[ids[r]]      bwd: dw[ids[r]] (+)= dy[r], summed in the order of r      gather: y[i] = x[index[i]]
 *
 * Lookup and gather: a warp a row, bound by memory, an element read and written once. The gradient needs no atomics and no sorting: a
 * block owns VOCABULARY rows of the table and COLUMNS of its columns, walks all ids in order, keeps the positions of its own in shared
 * memory, and a thread adds up its column. The ids are read once a block, from the L2 cache.
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int VOCABULARY = 64, COLUMNS = THREADS;

template <class Y, class W>
__global__ void __launch_bounds__(THREADS)
  lookup_kernel(Y* y, const W* w, const int32_t* ids, int64_t rows, int C, int V, Failure* failure) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= rows) return;
  const int32_t id = ids[row];
  if (id < 0 || id >= V) {
    if (lane == 0) report(failure, FAILURE_ID, id, V, row);
    return;
  }
  constexpr int N = 4; // elements of a load of 8 or 16 bytes
  struct alignas(N * sizeof(Y)) To { Y at[N]; };
  struct alignas(N * sizeof(W)) From { W at[N]; };
  const W* from = w + int64_t(id) * C;
  Y* to = y + row * C;
  const bool aligned = C % N == 0 && reinterpret_cast<uint64_t>(y) % sizeof(To) == 0 && reinterpret_cast<uint64_t>(w) % sizeof(From) == 0;
  if (!aligned) {
    for (int c = lane; c < C; c += WARP) to[c] = from_f32<Y>(to_f32(from[c]));
    return;
  }
  for (int c = lane * N; c < C; c += WARP * N) {
    const From in = *reinterpret_cast<const From*>(from + c);
    To out;
    for (int j = 0; j < N; j++) out.at[j] = from_f32<Y>(to_f32(in.at[j]));
    *reinterpret_cast<To*>(to + c) = out;
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
  gradient_kernel(float* dw, const T* dy, const int32_t* ids, int64_t rows, int C, int V, bool accumulate, Failure* failure) {
  SHARED(int32_t, found, [THREADS]); // rows of this tile whose id is ours, in order
  SHARED(int32_t, counts, [WARPS]);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int firstId = int(blockIdx.x) * VOCABULARY, column = int(blockIdx.y) * COLUMNS + int(threadIdx.x);
  const bool owns = column < C;
  if (!accumulate && owns) {
    for (int id = firstId; id < firstId + VOCABULARY && id < V; id++) dw[int64_t(id) * C + column] = 0;
  }
  for (int64_t tile = 0; tile < rows; tile += THREADS) {
    const int64_t row = tile + threadIdx.x;
    const int32_t id = row < rows ? ids[row] : -1;
    if (row < rows && (id < 0 || id >= V)) report(failure, FAILURE_ID, id, V, row);
    const bool ours = row < rows && id >= firstId && id < firstId + VOCABULARY && id < V;
    const uint32_t votes = __ballot_sync(ALL_LANES, ours);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < WARPS; w++) {
      if (w < warp) before += counts[w];
      total += counts[w];
    }
    if (ours) found[before + __popc(votes & ((1u << lane) - 1))] = int32_t(row - tile);
    __syncthreads();
    if (owns) {
      for (int i = 0; i < total; i++) {
        const int64_t at = tile + found[i];
        dw[int64_t(ids[at]) * C + column] += to_f32(dy[at * C + column]);
      }
    }
    __syncthreads();
  }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
  gather_kernel(T* y, const T* x, const int32_t* index, int64_t n, int C, int nX, Failure* failure) {
  const int lane = threadIdx.x % WARP;
  const int64_t row = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
  if (row >= n) return;
  const int32_t from = index[row];
  if (from < 0 || from >= nX) {
    if (lane == 0) report(failure, FAILURE_ROW, from, nX, row);
    return;
  }
  for (int c = lane; c < C; c += WARP) y[row * C + c] = x[int64_t(from) * C + c];
}

template <class F> void with_floats(int32_t dtypeY, int32_t dtypeW, F&& f) {
  with_float(dtypeY, [&](auto y) { with_float(dtypeW, [&](auto w) { f(y, w); }); });
}

} // namespace

int32_t nc_embedding_fwd(
  nc_context* ctx, void* y, void* w, void* ids, int32_t rows, int32_t C, int32_t V, int32_t dtypeY, int32_t dtypeW) {
  return entry(ctx, "nc_embedding_fwd", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), width = size(C, "C"), vocabulary = size(V, "V");
    with_floats(dtypeY, dtypeW, [&](auto typeY, auto typeW) {
      using Y = decltype(typeY);
      using W = decltype(typeW);
      Y* out = array<Y>(cx, y, n * width, "y");
      const W* table = array<W>(cx, w, vocabulary * width, "w");
      const int32_t* which = array<int32_t>(cx, ids, n, "ids");
      if (n == 0) return;
      const Shape shape{unsigned((n + WARPS - 1) / WARPS), THREADS};
      launch(cx, "nc_embedding_fwd", lookup_kernel<Y, W>, shape, out, table, which, n, C, V, cx.failure);
    });
  });
}

int32_t nc_embedding_bwd(
  nc_context* ctx, void* dw, void* dy, void* ids, int32_t rows, int32_t C, int32_t V, int32_t accumulate, int32_t dtype) {
  return entry(ctx, "nc_embedding_bwd", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), width = size(C, "C"), vocabulary = size(V, "V");
    with_float(dtype, [&](auto type) {
      using T = decltype(type);
      float* out = array<float>(cx, dw, vocabulary * width, "dw");
      const T* gradient = array<T>(cx, dy, n * width, "dy");
      const int32_t* which = array<int32_t>(cx, ids, n, "ids");
      if (vocabulary == 0 || width == 0) return;
      const dim3 grid(unsigned((vocabulary + VOCABULARY - 1) / VOCABULARY), unsigned((width + COLUMNS - 1) / COLUMNS));
      launch(cx, "nc_embedding_bwd", gradient_kernel<T>, {grid, THREADS}, out, gradient, which, n, C, V, accumulate != 0, cx.failure);
    });
  });
}

int32_t nc_gather_rows(nc_context* ctx, void* y, void* x, void* index, int32_t n, int32_t C, int32_t nX, int32_t dtype) {
  return entry(ctx, "nc_gather_rows", [&](Context& cx) {
    const int64_t rows = size(n, "n"), width = size(C, "C"), from = size(nX, "nX");
    const auto gather = [&](auto type) {
      using T = decltype(type);
      T* out = array<T>(cx, y, rows * width, "y");
      const T* in = array<T>(cx, x, from * width, "x");
      const int32_t* which = array<int32_t>(cx, index, rows, "index");
      if (rows == 0) return;
      launch(cx, "nc_gather_rows", gather_kernel<T>, {unsigned((rows + WARPS - 1) / WARPS), THREADS}, out, in, which, rows, C, nX, cx.failure);
    };
    if (dtype == NC_DTYPE_F32 || dtype == NC_DTYPE_I32) gather(uint32_t());
    else if (dtype == NC_DTYPE_BF16) gather(uint16_t());
    else refuse(NC_STATUS_INVALID, "Cannot gather rows: dtype %d, expected f32, bf16 or i32", dtype);
  });
}
