/**
 * Rotary position embedding followed by RMS normalisation of each head: what queries and keys go through in one pass.
 *
 *   fwd: r1 = x1 cos + x2 sin, r2 = x2 cos - x1 sin (halves of D; rotation by minus theta), rstd = 1 / sqrt(mean(r^2) + eps),
 *        y = scale r rstd
 *   bwd: xhat = y / scale, dr = scale rstd (dy - xhat mean(dy xhat)), dx1 = dr1 cos - dr2 sin, dx2 = dr1 sin + dr2 cos
 *
 * Token t of row b sits at position (positions ? positions[b] : 0) + t; beyond the table its last row counts. A head is computed by
 * `lanes` neighbours of a warp, each of which has N elements of both halves: 16 bytes where rows are aligned to them, so 8 lanes for a
 * head of 128 in bf16. Bound by memory: two elements moved each way, and the tables from the cache. RoPE: arXiv 2104.09864;
 * order and sign: nanochat/gpt.py.
 */
#include "context.cuh"

namespace {

constexpr int THREADS = 256;

/** What all heads share. */
struct Heads {
  int64_t count; // B T H
  int T, H, half, lanes, tableLength;
  float scale, eps;
  bool accumulate;
};

/** Sum over the lanes of a head, which are a power of two. */
__device__ inline float head_sum(float v, int lanes) {
  for (int o = lanes / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
  return v;
}

/** Row of the tables for a head. */
__device__ inline int64_t table_row(int64_t head, const int32_t* positions, const Heads& s) {
  const int64_t token = head / s.H;
  const int64_t position = (positions ? positions[token / s.T] : 0) + token % s.T;
  return position < s.tableLength ? position : s.tableLength - 1;
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS)
  forward_kernel(T* y, float* rstd, const T* x, const float* cos, const float* sin, const int32_t* positions, Heads s) {
  struct alignas(N * sizeof(T)) Elements { T at[N]; };
  const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, head = thread / s.lanes;
  const int first = int(thread % s.lanes) * N, D = 2 * s.half;
  const bool exists = head < s.count; // all lanes of a warp take part in the sums
  const int64_t row = exists ? table_row(head, positions, s) * s.half : 0;
  float sum = 0;
  for (int i = first; exists && i < s.half; i += s.lanes * N) {
    const Elements x1 = *reinterpret_cast<const Elements*>(x + head * D + i);
    const Elements x2 = *reinterpret_cast<const Elements*>(x + head * D + s.half + i);
    for (int j = 0; j < N; j++) {
      const float c = cos[row + i + j], d = sin[row + i + j], a = to_f32(x1.at[j]), b = to_f32(x2.at[j]);
      const float r1 = a * c + b * d, r2 = b * c - a * d;
      sum += r1 * r1 + r2 * r2;
    }
  }
  const float r = 1 / sqrtf(head_sum(sum, s.lanes) / D + s.eps);
  if (!exists) return;
  if (rstd && first == 0) rstd[head] = r;
  for (int i = first; i < s.half; i += s.lanes * N) {
    const Elements x1 = *reinterpret_cast<const Elements*>(x + head * D + i);
    const Elements x2 = *reinterpret_cast<const Elements*>(x + head * D + s.half + i);
    Elements y1, y2;
    for (int j = 0; j < N; j++) {
      const float c = cos[row + i + j], d = sin[row + i + j], a = to_f32(x1.at[j]), b = to_f32(x2.at[j]);
      y1.at[j] = from_f32<T>((a * c + b * d) * (s.scale * r));
      y2.at[j] = from_f32<T>((b * c - a * d) * (s.scale * r));
    }
    *reinterpret_cast<Elements*>(y + head * D + i) = y1;
    *reinterpret_cast<Elements*>(y + head * D + s.half + i) = y2;
  }
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS) backward_kernel(
  T* dx, const T* dy, const T* y, const float* rstd, const float* cos, const float* sin, const int32_t* positions, Heads s) {
  struct alignas(N * sizeof(T)) Elements { T at[N]; };
  const int64_t thread = int64_t(blockIdx.x) * THREADS + threadIdx.x, head = thread / s.lanes;
  const int first = int(thread % s.lanes) * N, D = 2 * s.half;
  const bool exists = head < s.count;
  float sum = 0;
  for (int i = first; exists && i < s.half; i += s.lanes * N) {
    for (const int64_t at : {head * D + i, head * D + s.half + i}) {
      const Elements g = *reinterpret_cast<const Elements*>(dy + at), v = *reinterpret_cast<const Elements*>(y + at);
      for (int j = 0; j < N; j++) sum += to_f32(g.at[j]) * to_f32(v.at[j]);
    }
  }
  const float mean = head_sum(sum, s.lanes) / (s.scale * D);
  if (!exists) return;
  const int64_t row = table_row(head, positions, s) * s.half;
  const float r = s.scale * rstd[head];
  for (int i = first; i < s.half; i += s.lanes * N) {
    const int64_t at1 = head * D + i, at2 = at1 + s.half;
    const Elements g1 = *reinterpret_cast<const Elements*>(dy + at1), g2 = *reinterpret_cast<const Elements*>(dy + at2);
    const Elements v1 = *reinterpret_cast<const Elements*>(y + at1), v2 = *reinterpret_cast<const Elements*>(y + at2);
    Elements d1, d2;
    if (s.accumulate) {
      d1 = *reinterpret_cast<const Elements*>(dx + at1);
      d2 = *reinterpret_cast<const Elements*>(dx + at2);
    }
    for (int j = 0; j < N; j++) {
      const float c = cos[row + i + j], d = sin[row + i + j];
      const float r1 = r * (to_f32(g1.at[j]) - to_f32(v1.at[j]) / s.scale * mean);
      const float r2 = r * (to_f32(g2.at[j]) - to_f32(v2.at[j]) / s.scale * mean);
      d1.at[j] = from_f32<T>((s.accumulate ? to_f32(d1.at[j]) : 0) + (r1 * c - r2 * d));
      d2.at[j] = from_f32<T>((s.accumulate ? to_f32(d2.at[j]) : 0) + (r1 * d + r2 * c));
    }
    *reinterpret_cast<Elements*>(dx + at1) = d1;
    *reinterpret_cast<Elements*>(dx + at2) = d2;
  }
}

/** Checks sizes; fills in how many lanes share a head. */
Heads heads(int32_t B, int32_t T, int32_t H, int32_t D, int32_t tableLength, int N) {
  if (D <= 0 || D % 2 != 0) refuse(NC_STATUS_INVALID, "Cannot rotate heads: D is %d, expected an even number above 0", D);
  if (tableLength <= 0) refuse(NC_STATUS_INVALID, "Cannot rotate heads: the table has %d rows, expected at least 1", tableLength);
  Heads s{};
  s.count = size(B, "B") * size(T, "T") * size(H, "H");
  s.T = T, s.H = H, s.half = D / 2, s.tableLength = tableLength;
  for (s.lanes = 1; s.lanes < WARP && s.lanes * N < s.half; s.lanes *= 2) {}
  return s;
}

template <class T> bool is_aligned(int32_t D, std::initializer_list<const void*> operands) {
  uint64_t bits = uint64_t(D / 2) * sizeof(T);
  for (const void* operand : operands) bits |= reinterpret_cast<uint64_t>(operand);
  return bits % 16 == 0;
}

unsigned blocks(const Heads& s) { return unsigned((s.count * s.lanes + THREADS - 1) / THREADS); }

} // namespace

int32_t nc_qk_rope_norm_fwd(nc_context* ctx, void* y, void* rstd, void* x, void* cos, void* sin, void* positions, int32_t B, int32_t T,
  int32_t H, int32_t D, int32_t tableLength, float eps, float scale, int32_t dtype) {
  return entry(ctx, "nc_qk_rope_norm_fwd", [&](Context& cx) {
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      const bool aligned = is_aligned<E>(D, {y, x});
      Heads s = heads(B, T, H, D, tableLength, aligned ? Vec<E>::N : 1);
      s.scale = scale, s.eps = eps;
      E* out = array<E>(cx, y, s.count * D, "y");
      const E* in = array<E>(cx, x, s.count * D, "x");
      float* r = optional<float>(cx, rstd, s.count, "rstd");
      const int64_t table = int64_t(tableLength) * s.half;
      const float *c = array<float>(cx, cos, table, "cos"), *d = array<float>(cx, sin, table, "sin");
      const int32_t* p = optional<int32_t>(cx, positions, B, "positions");
      if (s.count == 0) return;
      const Shape shape{blocks(s), THREADS};
      if (aligned) launch(cx, "nc_qk_rope_norm_fwd", forward_kernel<E, Vec<E>::N>, shape, out, r, in, c, d, p, s);
      else launch(cx, "nc_qk_rope_norm_fwd", forward_kernel<E, 1>, shape, out, r, in, c, d, p, s);
    });
  });
}

int32_t nc_qk_rope_norm_bwd(nc_context* ctx, void* dx, void* dy, void* y, void* rstd, void* cos, void* sin, void* positions, int32_t B,
  int32_t T, int32_t H, int32_t D, int32_t tableLength, float scale, int32_t accumulate, int32_t dtype) {
  return entry(ctx, "nc_qk_rope_norm_bwd", [&](Context& cx) {
    with_float(dtype, [&](auto type) {
      using E = decltype(type);
      const bool aligned = is_aligned<E>(D, {dx, dy, y});
      Heads s = heads(B, T, H, D, tableLength, aligned ? Vec<E>::N : 1);
      s.scale = scale, s.accumulate = accumulate != 0;
      E* out = array<E>(cx, dx, s.count * D, "dx");
      const E *g = array<E>(cx, dy, s.count * D, "dy"), *v = array<E>(cx, y, s.count * D, "y");
      const float* r = array<float>(cx, rstd, s.count, "rstd");
      const int64_t table = int64_t(tableLength) * s.half;
      const float *c = array<float>(cx, cos, table, "cos"), *d = array<float>(cx, sin, table, "sin");
      const int32_t* p = optional<int32_t>(cx, positions, B, "positions");
      if (s.count == 0) return;
      const Shape shape{blocks(s), THREADS};
      if (aligned) launch(cx, "nc_qk_rope_norm_bwd", backward_kernel<E, Vec<E>::N>, shape, out, g, v, r, c, d, p, s);
      else launch(cx, "nc_qk_rope_norm_bwd", backward_kernel<E, 1>, shape, out, g, v, r, c, d, p, s);
    });
  });
}
