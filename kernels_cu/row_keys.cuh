/**
 * Orders the entries of a row, and finds its best ones: an entry and its index make a key of 64 bits, larger where it is preferred, and
 * no two keys are equal. For blocks of ROW_THREADS that compute one row each.
 */
#pragma once
#include "context.cuh"

constexpr int ROW_THREADS = 1024, ROW_WARPS = ROW_THREADS / WARP;

using u64 = unsigned long long;

/** Key of an entry: larger first, the lower id first among equals. */
__device__ inline u64 key_of(float logit, int id) {
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit); // -0 equals 0
  const uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return u64(rising) << 32 | uint32_t(~id);
}
__device__ inline int id_of(u64 key) { return int(~uint32_t(key)); }

/** The largest value of a block, in every thread. */
__device__ inline u64 block_max_key(u64 v, u64* slots) {
  for (int o = WARP / 2; o > 0; o >>= 1) {
    const u64 other = __shfl_xor_sync(ALL_LANES, v, o);
    v = other > v ? other : v;
  }
  if (threadIdx.x % WARP == 0) slots[threadIdx.x / WARP] = v;
  __syncthreads();
  v = slots[threadIdx.x % WARP];
  for (int o = WARP / 2; o > 0; o >>= 1) {
    const u64 other = __shfl_xor_sync(ALL_LANES, v, o);
    v = other > v ? other : v;
  }
  __syncthreads();
  return v;
}

/** Key of the best entry of a row below `limit` (exclusive); `row.at(i)` gives entry i. A NaN or +inf is reported where `failure` is given. */
template <class Row> __device__ u64 best_key(const Row& row, int V, u64 limit, u64* slots, Failure* failure) {
  u64 best = 0;
  for (int i = threadIdx.x; i < V; i += ROW_THREADS) {
    const float v = row.at(i);
    if (failure && !(v < INFINITY)) report(failure, FAILURE_LOGITS, int(blockIdx.x), 0);
    const u64 key = key_of(v, i);
    if (key < limit && key > best) best = key;
  }
  return block_max_key(best, slots);
}
