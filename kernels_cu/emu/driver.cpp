/**
 * Calls every op of the emulated library for a sanitizer, which Deno cannot host: `deno run -A dev/build_cuda.ts emu --sanitize=thread`
 * builds a program of it. Sizes are small and awkward: odd rows, ends of tiles, operands that are not aligned. Each tensor is a block of
 * device memory by itself, with poison right before and behind it, and outputs are NaN before: what an op leaves or takes from memory
 * that nobody wrote shows. Whether results are right is asked by the conformance suite.
 */
#include "../nanochat.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

nc_context* ctx = nullptr;
std::string doing; // op and sizes, for messages
int calls = 0;

[[noreturn]] void stop(const char* why) {
  char text[1000] = "";
  nc_error(ctx, text, sizeof text);
  fprintf(stderr, "%s: %s: %s\n", doing.c_str(), why, text);
  exit(1);
}

void expect(int32_t status) {
  if (status != NC_STATUS_OK) stop("it failed");
}

int element_bytes(int32_t dtype) { return dtype == NC_DTYPE_F32 || dtype == NC_DTYPE_I32 ? 4 : dtype == NC_DTYPE_I8 ? 1 : 2; }

std::mt19937 source(1);

/** A tensor whose first element lies `offset` elements behind a multiple of 256 bytes. */
class Tensor {
 public:
  Tensor(int64_t n, int32_t dtype, int offset = 0) : n_(n), dtype_(dtype), offset_(int64_t(offset) * element_bytes(dtype)) {
    uint64_t address = 0;
    expect(nc_alloc(ctx, &address, offset_ + bytes()));
    base_ = reinterpret_cast<char*>(address);
    write(std::vector<char>(size_t(bytes()), char(0xff)).data());
  }
  Tensor(const Tensor&) = delete;
  ~Tensor() { expect(nc_free(ctx, base_)); }

  int64_t bytes() const { return n_ * element_bytes(dtype_); }
  operator void*() const { return base_ + offset_; }

  void write(const void* data) {
    if (n_ > 0) expect(nc_upload(ctx, *this, const_cast<void*>(data), bytes()));
  }
  Tensor& random(float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<char> data(static_cast<size_t>(bytes()));
    for (int64_t i = 0; i < n_; i++) {
      const float value = normal(source);
      uint32_t bits;
      memcpy(&bits, &value, 4);
      bits = dtype_ == NC_DTYPE_F32 ? bits : bits >> 16;
      memcpy(data.data() + i * element_bytes(dtype_), &bits, size_t(element_bytes(dtype_)));
    }
    write(data.data());
    return *this;
  }

  /** Waits, and stops where an element is NaN. */
  void check() const {
    if (n_ == 0) return;
    uint64_t host = 0;
    expect(nc_host_alloc(ctx, &host, bytes()));
    void* pinned = reinterpret_cast<void*>(host);
    expect(nc_copy(ctx, pinned, *this, bytes()));
    expect(nc_wait(ctx));
    std::vector<char> data(static_cast<size_t>(bytes()));
    expect(nc_host_read(ctx, data.data(), pinned, bytes()));
    expect(nc_free(ctx, pinned));
    for (int64_t i = 0; i < n_ && dtype_ <= NC_DTYPE_BF16; i++) {
      uint32_t bits = 0;
      memcpy(dtype_ == NC_DTYPE_F32 ? reinterpret_cast<char*>(&bits) : reinterpret_cast<char*>(&bits) + 2,
        data.data() + i * element_bytes(dtype_), size_t(element_bytes(dtype_)));
      float value;
      memcpy(&value, &bits, 4);
      if (std::isnan(value)) stop(("element " + std::to_string(i) + " is NaN").c_str());
    }
  }

 private:
  int64_t n_;
  int32_t dtype_;
  int64_t offset_;
  char* base_;
};

/** Integers on the device. */
class Integers : public Tensor {
 public:
  explicit Integers(const std::vector<int32_t>& values, int32_t dtype = NC_DTYPE_I32) : Tensor(int64_t(values.size()), dtype) { write(values.data()); }
};

/** Integers below a limit. */
std::vector<int32_t> below(int64_t n, int32_t limit) {
  std::vector<int32_t> values(static_cast<size_t>(n));
  for (int32_t& value : values) value = int32_t(source() % uint32_t(limit));
  return values;
}

template <class... N> void op(const char* name, N... sizes) {
  doing = name;
  ((doing += " " + std::to_string(sizes)), ...);
  calls++;
}

constexpr int32_t F32 = NC_DTYPE_F32, BF16 = NC_DTYPE_BF16;

void elementwise(int64_t n, int32_t dtype, int offset) {
  op("elementwise", n, dtype, offset);
  Tensor y(n, dtype, offset), a(n, dtype, offset), b(n, dtype), f(n, F32), h(n, BF16);
  a.random(), b.random();
  expect(nc_add(ctx, y, a, b, n, dtype)), y.check();
  expect(nc_relu2_fwd(ctx, y, a, n, dtype)), y.check();
  expect(nc_relu2_bwd(ctx, y, a, b, n, 1, dtype)), y.check();
  expect(nc_cast(ctx, f, a, n, F32, dtype)), f.check();
  expect(nc_cast(ctx, h, a, n, BF16, dtype)), h.check();
  expect(nc_fill(ctx, y, n, 3, dtype)), y.check();
  Tensor sum(1, F32), first(2, NC_DTYPE_I32), square(2, NC_DTYPE_I32), scale(2, F32);
  expect(nc_weighted_sum(ctx, sum, f, f, n, 0)), sum.check();
  expect(nc_sum_squares(ctx, square, f, n, 0));
  expect(nc_clip_scale(ctx, scale, square, sum)), scale.check();
  expect(nc_first_non_finite(ctx, first, a, n, dtype)), first.check();
}

void rows(int32_t n, int32_t C, int32_t V, int32_t dtype) {
  op("rows", n, C, V, dtype);
  Tensor w(int64_t(V) * C, dtype), y(int64_t(n) * C, dtype), z(int64_t(n) * C, dtype), rstd(n, F32), dw(int64_t(V) * C, F32);
  Integers ids(below(n, V));
  expect(nc_embedding_fwd(ctx, y, w.random(), ids, n, C, V, dtype, dtype)), y.check();
  expect(nc_embedding_bwd(ctx, dw, y, ids, n, C, V, 0, dtype)), dw.check();
  expect(nc_gather_rows(ctx, z, w, ids, n, C, V, dtype)), z.check();
  expect(nc_rmsnorm_fwd(ctx, z, rstd, y, n, C, 1e-6f, dtype)), z.check();
  expect(nc_rmsnorm_bwd(ctx, z, z, y, rstd, n, C, 0, dtype)), z.check();
  expect(nc_rmsnorm_bwd(ctx, z, y, y, rstd, n, C, 1, dtype)), z.check();
}

void attention(int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t window, int32_t dtype, int offset, bool padded) {
  op("attention", B, T, H, G, D, window, dtype, offset, int(padded));
  const int64_t queries = int64_t(B) * T * H * D, keys = int64_t(B) * T * G * D, table = int64_t(T) * D / 2;
  Tensor q(queries, dtype, offset), k(keys, dtype, offset), v(keys, dtype), o(queries, dtype, offset), lse(int64_t(B) * H * T, F32);
  Tensor dq(queries, dtype, offset), dk(keys, dtype, offset), dv(keys, dtype), dO(queries, dtype), delta(int64_t(B) * H * T, F32);
  Tensor rstd(int64_t(B) * T * H, F32), cos(table, F32), sin(table, F32);
  Integers lengths(below(B, T + 1));
  void* valid = padded ? static_cast<void*>(lengths) : nullptr;
  q.random(), k.random(), v.random(), dO.random(), cos.random(), sin.random();
  expect(nc_qk_rope_norm_fwd(ctx, q, rstd, q, cos, sin, nullptr, B, T, H, D, T, 1e-6f, 1.2f, dtype)), q.check();
  expect(nc_attention_fwd(ctx, o, lse, q, k, v, valid, B, T, H, G, D, window, 0.1f, dtype)), o.check(), lse.check();
  expect(nc_attention_bwd(ctx, dq, dk, dv, delta, dO, q, k, v, o, lse, valid, B, T, H, G, D, window, 0.1f, dtype));
  dq.check(), dk.check(), dv.check();
  expect(nc_qk_rope_norm_bwd(ctx, dq, dq, q, rstd, cos, sin, nullptr, B, T, H, D, T, 1.2f, 0, dtype)), dq.check();
}

void cached(int32_t B, int32_t T, int32_t H, int32_t G, int32_t D, int32_t capacity, int32_t window, int32_t dtype, bool split) {
  op("cached attention", B, T, H, G, D, capacity, window, dtype, int(split));
  const int64_t keys = int64_t(B) * T * G * D, cache = int64_t(B) * G * capacity * D, queries = int64_t(B) * T * H;
  Tensor q(queries * D, dtype), o(queries * D, dtype), k(keys, dtype), v(keys, dtype), kCache(cache, dtype), vCache(cache, dtype);
  Tensor scratch(queries * ((capacity + 63) / 64) * (D + 2), F32);
  Integers positions(below(B, capacity - T + 1)), counts(below(B, T + 1));
  q.random(), k.random(), v.random(), kCache.random(), vCache.random();
  expect(nc_kv_append(ctx, kCache, vCache, k, v, positions, counts, B, T, G, D, capacity, dtype)), kCache.check();
  expect(nc_attention_cached_fwd(ctx, o, q, kCache, vCache, positions, counts, split ? static_cast<void*>(scratch) : nullptr, B, T, H, G, D,
    capacity, window, 0.1f, dtype));
  o.check();
}

void linear(int32_t M, int32_t N, int32_t K, int32_t dtype, int offset) {
  op("linear", M, N, K, dtype, offset);
  const int64_t m = M, n = N, k = K;
  Tensor x(m * k, dtype, offset), w(n * k, dtype, offset), y(m * n, dtype, offset), h(m * n, dtype), dx(m * k, dtype), dw(n * k, F32);
  x.random(), w.random();
  expect(nc_linear_fwd(ctx, y, nullptr, x, w, nullptr, nullptr, nullptr, M, N, K, NC_EPILOGUE_NONE, NC_LAYOUT_ROWS, dtype, dtype, dtype)), y.check();
  expect(nc_linear_fwd(ctx, y, h, x, w, nullptr, nullptr, nullptr, M, N, K, NC_EPILOGUE_RELU2, NC_LAYOUT_ROWS, dtype, dtype, dtype)), y.check();
  expect(nc_linear_bwd_x(ctx, dx, y, w, nullptr, nullptr, nullptr, M, N, K, NC_EPILOGUE_NONE, 0, NC_LAYOUT_ROWS, dtype, dtype, dtype)), dx.check();
  expect(nc_linear_bwd_x(ctx, dx, y, w, x, nullptr, nullptr, M, N, K, NC_EPILOGUE_RELU2, 1, NC_LAYOUT_ROWS, dtype, dtype, dtype)), dx.check();
  expect(nc_linear_bwd_w(ctx, dw, y, x, nullptr, nullptr, M, N, K, NC_EPILOGUE_RELU2, 0, dtype, dtype)), dw.check();
  for (const int32_t packedType : {dtype, int32_t(NC_DTYPE_I8)}) {
    int64_t bytes = 0;
    expect(nc_pack_bytes(ctx, &bytes, N, K, NC_PACK_FORWARD, packedType));
    Tensor packed(bytes, NC_DTYPE_I8);
    expect(nc_pack(ctx, packed, w, N, K, NC_PACK_FORWARD, packedType, dtype));
    expect(nc_linear_fwd(ctx, y, nullptr, x, packed, h, nullptr, nullptr, M, N, K, NC_EPILOGUE_NONE, NC_LAYOUT_PACKED, dtype, dtype, packedType));
    y.check();
  }
}

void head(int32_t n, int32_t C, int32_t V, int32_t Vp, int32_t chunk, int32_t topK, int32_t dtype) {
  op("lm_head", n, C, V, Vp, chunk, topK, dtype);
  Tensor x(int64_t(n) * C, dtype), w(int64_t(Vp) * C, dtype), losses(n, F32), dx(int64_t(n) * C, dtype), dw(int64_t(Vp) * C, F32), weights(n, F32);
  Tensor scratch((int64_t(chunk) * Vp * (4 + element_bytes(dtype)) + 3) / 4 + 16384, F32), logprobs(int64_t(n) * topK, F32);
  std::vector<int32_t> wanted = below(n, V);
  wanted[0] = -1;
  Integers targets(wanted), argmax(below(n, V)), ids(below(int64_t(n) * topK, V));
  expect(nc_lm_head_loss(ctx, losses, dx, dw, x.random(), w.random(), targets, weights.random(), scratch, n, C, V, Vp, chunk, 15, 0, dtype, dtype));
  losses.check(), dx.check(), dw.check();
  expect(nc_lm_head_score(ctx, losses, argmax, ids, logprobs, x, w, targets, scratch, n, C, V, Vp, chunk, topK, 15, dtype, dtype));
  losses.check(), logprobs.check();
}

void sample(int32_t n, int32_t V, float temperature, int32_t k, float p) {
  op("sample", n, V, temperature, k, p);
  Tensor logits(int64_t(n) * V, F32), logprobs(n, F32), top(int64_t(n) * 3, F32), values(4, F32), temperatures(n, F32), topP(n, F32);
  Integers seeds(below(2 * n, 1 << 30)), samples(below(n, 9)), draws(below(n, 9)), topK(std::vector<int32_t>(size_t(n), k)), ids(below(n, V));
  std::vector<int32_t> starts(size_t(n) + 1, 4);
  starts[0] = 0;
  Integers biasStarts(starts), biasIds(below(4, V)), counts(std::vector<int32_t>(size_t(n), 3)), topIds(below(3 * n, V));
  temperatures.write(std::vector<float>(size_t(n), temperature).data());
  topP.write(std::vector<float>(size_t(n), p).data());
  expect(nc_sample(ctx, ids, logprobs, logits.random(3), seeds, samples, draws, temperatures, topK, topP, biasStarts, biasIds, values.random(), n, V, 4));
  logprobs.check();
  expect(nc_top_logprobs(ctx, topIds, top, logits, counts, n, V, 3)), top.check();
  Tensor capped(int64_t(n) * (V - 1), F32);
  expect(nc_softcap_fwd(ctx, capped, logits, n, V - 1, V, 15, F32)), capped.check();
}

void optimizer(int64_t n, int offset) {
  op("optimizer", n, offset);
  Tensor p(n, F32, offset), m(n, F32), v(n, F32), g(n, F32, offset), copy(n, BF16, offset), u(n, BF16, offset), scale(1, F32), hyper(7, F32);
  const float one = 1, rates[] = {0.01f, 0.9f, 0.99f, 1e-8f, 0.1f, 0.5f, 0.5f};
  scale.write(&one), hyper.write(rates);
  expect(nc_fill(ctx, v, n, 0.5, F32));
  expect(nc_adamw(ctx, p.random(), m.random(), v, copy, g.random(), hyper, scale, n, BF16)), p.check(), copy.check();
  expect(nc_muon_momentum(ctx, u, m, g, hyper, scale, n, BF16)), u.check();
  expect(nc_muon_update(ctx, p, copy, u, hyper, scale, n, 0.5f, BF16, BF16)), p.check(), copy.check();
}

void newton_schulz(int32_t batch, int32_t rows, int32_t cols, int32_t dtype) {
  op("newton_schulz", batch, rows, cols, dtype);
  const int64_t n = int64_t(rows) * cols, m = rows < cols ? rows : cols;
  Tensor x(batch * n, dtype), o(batch * n, dtype), scratch(batch * (n + 2 * m * m) + 1024, F32);
  expect(nc_newton_schulz(ctx, o, x.random(), scratch, batch, rows, cols, 3, dtype)), o.check();
}

/** A recording with an upload, an event and memory that is freed meanwhile, replayed; under it every call must be legal. */
void graph() {
  op("graph");
  uint64_t handle = 0, event = 0;
  expect(nc_event_create(ctx, &event));
  void* happened = reinterpret_cast<void*>(event);
  Tensor y(1000, F32), x(1000, F32);
  x.random();
  const std::vector<float> data(1000, 2);
  auto fleeting = std::make_unique<Tensor>(1000, F32);
  expect(nc_graph_begin(ctx));
  x.write(data.data());
  expect(nc_add(ctx, y, x, x, 1000, F32));
  fleeting.reset();
  expect(nc_event_record(ctx, happened));
  expect(nc_graph_end(ctx, &handle));
  void* recorded = reinterpret_cast<void*>(handle);
  for (int i = 0; i < 2; i++) expect(nc_graph_launch(ctx, recorded));
  y.check();
  expect(nc_event_wait(ctx, happened));
  expect(nc_graph_free(ctx, recorded));
  expect(nc_event_free(ctx, happened));
}

} // namespace

int main() {
  uint64_t handle = 0;
  doing = "nc_context_create";
  expect(nc_context_create(&handle, 0, 0));
  ctx = reinterpret_cast<nc_context*>(handle);
  for (const int32_t dtype : {F32, BF16}) {
    elementwise(1, dtype, 0), elementwise(2051, dtype, 0), elementwise(517, dtype, 1);
    rows(19, 64, 70, dtype), rows(5, 33, 9, dtype), rows(300, 24, 130, dtype);
    linear(3, 5, 7, dtype, 0), linear(70, 72, 80, dtype, 0), linear(33, 65, 31, dtype, 1), linear(130, 136, 72, dtype, 0);
    head(7, 16, 61, 64, 3, 2, dtype), head(5, 9, 33, 37, 5, 1, dtype);
    attention(2, 70, 2, 1, 16, 9, dtype, 0, true), attention(1, 33, 3, 3, 6, -1, dtype, 1, false), attention(1, 130, 1, 1, 32, 40, dtype, 0, false);
    cached(2, 1, 4, 2, 16, 130, -1, dtype, true), cached(2, 3, 2, 1, 10, 70, 20, dtype, true), cached(1, 40, 2, 2, 32, 100, -1, dtype, false);
    newton_schulz(2, 16, 24, dtype), newton_schulz(3, 33, 10, dtype);
  }
  attention(1, 70, 1, 1, 64, -1, BF16, 0, false), attention(1, 66, 2, 1, 96, 30, BF16, 0, true), attention(1, 66, 1, 1, 128, -1, BF16, 0, false);
  attention(1, 20, 1, 1, 160, -1, BF16, 0, false);
  cached(24, 1, 2, 2, 16, 320, -1, BF16, true); // more tiles than blocks
  cached(1, 1, 2, 1, 128, 200, -1, BF16, true), cached(1, 70, 1, 1, 64, 80, 16, BF16, false), cached(1, 2, 1, 1, 160, 70, -1, BF16, true);
  sample(3, 100, 0, 0, 1), sample(2, 1500, 1, 40, 0.9f), sample(2, 1100, 0.7f, 0, 0.5f);
  optimizer(2050, 0), optimizer(515, 1);
  graph();
  doing = "nc_context_free";
  expect(nc_context_free(ctx));
  printf("%d groups of calls\n", calls);
}
