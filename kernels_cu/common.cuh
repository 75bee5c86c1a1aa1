/**
 * What kernels share: element types, loads and stores of 16 bytes, sums over a warp and a block.
 *
 * The same source is compiled by nvcc for a card and by g++ for the emulation (emu/cuda_emu.h); it differs in this file and in ptx.cuh
 * alone. Shared memory is declared by SHARED and DYNAMIC_SHARED.
 */
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define SHARED(type, name, bounds) __shared__ __align__(128) type name bounds
#define DYNAMIC_SHARED(type, name)                           \
  extern __shared__ __align__(128) unsigned char shared_bytes[]; \
  type* name = reinterpret_cast<type*>(shared_bytes)
#else
#include "emu/cuda_emu.h"
#endif
#include <cmath>
#include <cstdint>

using bf16 = __nv_bfloat16;

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __bfloat162float(x); }

template <class T> __host__ __device__ __forceinline__ T from_f32(float x);
template <> __host__ __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __host__ __device__ __forceinline__ bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }

/** 16 bytes of elements in registers. */
template <class T> struct alignas(16) Vec {
  static constexpr int N = 16 / sizeof(T);
  T at[N];
};

template <class T> __device__ __forceinline__ Vec<T> load_vec(const T* p) { return *reinterpret_cast<const Vec<T>*>(p); }
template <class T> __device__ __forceinline__ void store_vec(T* p, const Vec<T>& v) { *reinterpret_cast<Vec<T>*>(p) = v; }

/** Sum over the lanes of a warp, in every lane; the order depends on nothing. */
template <class T> __device__ __forceinline__ T warp_sum(T v) {
  for (int o = WARP / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL_LANES, v, o);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
  for (int o = WARP / 2; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, o));
  return v;
}

/** Sum over a block of whole warps, in every thread. `slots` is shared memory for a value a warp, free again at the next barrier. */
template <class T> __device__ __forceinline__ T block_sum(T v, T* slots) {
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  v = warp_sum(v);
  if (lane == 0) slots[warp] = v;
  __syncthreads();
  v = lane < warps ? slots[lane] : T(0);
  v = warp_sum(v);
  __syncthreads();
  return v;
}

/** Maximum over a block of whole warps, in every thread. */
__device__ __forceinline__ float block_max(float v, float* slots) {
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  v = warp_max(v);
  if (lane == 0) slots[warp] = v;
  __syncthreads();
  v = lane < warps ? slots[lane] : -INFINITY;
  v = warp_max(v);
  __syncthreads();
  return v;
}
