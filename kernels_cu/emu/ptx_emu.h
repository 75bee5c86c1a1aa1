/**
 * Twins of ptx.cuh for the emulation. A warp's instruction is computed when its last lane has come, from the registers of all. A copy
 * that is under way makes its target NaN at once and lands when its thread waits for it, so that who reads too early sees it.
 */
#pragma once
#include <deque>
#include <stdexcept>
#include <vector>

namespace emu {

/** Element (row, column) of a fragment that lanes hold as 4-byte registers of `per` neighbours each. */
template <class T> T neighbour(uint32_t bits, int at) {
  T value;
  memcpy(&value, reinterpret_cast<const char*>(&bits) + at * sizeof(T), sizeof(T));
  return value;
}

/** c += A B of one warp: T operands, S sums, K terms; fragments as ptx.cuh describes, with 4 / sizeof(T) neighbours in a register. */
template <class T, class S, class Widen> void multiply(S (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Widen) {
  struct Registers { S* c; const uint32_t *a, *b; } mine{c, a, b};
  collective(~0u, [](void* const payload[32], uint32_t mask) {
    if (mask != ~0u) fail("a product of a warp is called by a part of it (%08x)", mask);
    constexpr int PER = 4 / sizeof(T), K = 8 * PER;
    const auto of = [&](int lane) { return *static_cast<Registers*>(payload[lane]); };
    const auto A = [&](int m, int k) { return Widen()(neighbour<T>(of(m % 8 * 4 + k % (4 * PER) / PER).a[m / 8 + 2 * (k / (4 * PER))], k % PER)); };
    const auto B = [&](int k, int n) { return Widen()(neighbour<T>(of(n * 4 + k % (4 * PER) / PER).b[k / (4 * PER)], k % PER)); };
    S a[16][K], b[K][8];
    for (int m = 0; m < 16; m++) for (int k = 0; k < K; k++) a[m][k] = A(m, k);
    for (int k = 0; k < K; k++) for (int n = 0; n < 8; n++) b[k][n] = B(k, n);
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < 4; i++) {
        const int m = lane / 4 + 8 * (i / 2), n = lane % 4 * 2 + i % 2;
        S sum = of(lane).c[i];
        for (int k = 0; k < K; k++) sum += a[m][k] * b[k][n];
        of(lane).c[i] = sum;
      }
    }
  }, &mine);
}

template <bool TRANS> void load_matrices(uint32_t (&r)[4], const void* row) {
  struct Registers { uint32_t* r; uint16_t row[8]; } mine{r, {}};
  if (reinterpret_cast<uint64_t>(row) % 16 != 0) throw std::runtime_error("ldmatrix reads an address that is no multiple of 16");
  memcpy(mine.row, row, sizeof mine.row);
  collective(~0u, [](void* const payload[32], uint32_t mask) {
    if (mask != ~0u) fail("ldmatrix is called by a part of a warp (%08x)", mask);
    uint16_t tiles[4][8][8];
    for (int lane = 0; lane < 32; lane++) memcpy(tiles[lane / 8][lane % 8], static_cast<Registers*>(payload[lane])->row, 16);
    for (int lane = 0; lane < 32; lane++) {
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 4; i++) {
        const uint16_t low = TRANS ? tiles[i][2 * t][g] : tiles[i][g][2 * t], high = TRANS ? tiles[i][2 * t + 1][g] : tiles[i][g][2 * t + 1];
        static_cast<Registers*>(payload[lane])->r[i] = uint32_t(high) << 16 | low;
      }
    }
  }, &mine);
}

} // namespace emu

inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Widen { float operator()(__nv_bfloat16 x) const { return __bfloat162float(x); } };
  emu::multiply<__nv_bfloat16>(c, a, b, Widen());
}
inline void mma_i8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct Widen { int32_t operator()(int8_t x) const { return x; } };
  emu::multiply<int8_t>(c, a, b, Widen());
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { emu::load_matrices<false>(r, row); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { emu::load_matrices<true>(r, row); }

namespace emu {

/** Fills 16 bytes by plain stores: a sanitizer of races sees these, and not a memset that the compiler expands. */
inline void fill16(void* to, uint64_t bits) {
  using Word __attribute__((may_alias)) = uint64_t;
  for (int i = 0; i < 2; i++) static_cast<Word*>(to)[i] = bits;
}

} // namespace emu

inline void cp_async16(void* shared, const void* global, bool valid) {
  if ((reinterpret_cast<uint64_t>(shared) | (valid ? reinterpret_cast<uint64_t>(global) : 0)) % 16 != 0) {
    throw std::runtime_error("cp.async copies between addresses that are no multiples of 16");
  }
  emu::fill16(shared, ~0ull); // as if it were written at any time from now on
  const emu::Unseen unseen;
  emu::block.fiber->copies.back().push_back({shared, valid ? global : nullptr});
}
inline void cp_async_commit() { emu::block.fiber->copies.emplace_back(); }
template <int N> void cp_async_wait() {
  auto& groups = emu::block.fiber->copies; // the last one is open
  while (groups.size() > N + 1) {
    for (const auto& [shared, global] : groups.front()) {
      if (global) memcpy(shared, global, 16);
      else emu::fill16(shared, 0);
    }
    groups.pop_front();
  }
}

inline float exp2_fast(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0 : y;
}
