/**
 * The instructions that CUDA C++ has no words for, one wrapper each. Their emulated twins are in emu/ptx_emu.h; `probe` of
 * dev/gpu_check.sh compares the two on a card.
 *
 * Fragments of a warp's product of 16 x 8 with 16 terms (PTX ISA, "Matrix Fragments for mma.m16n8k16"), with g = lane / 4, t = lane % 4;
 * a register holds two neighbours, the lower column or row in its lower half:
 *   A (16, 16) by rows:    a[0] (g, 2t)  a[1] (g + 8, 2t)  a[2] (g, 2t + 8)  a[3] (g + 8, 2t + 8)
 *   B (16, 8) by columns:  b[0] (2t, g)  b[1] (2t + 8, g)
 *   C (16, 8):             c[0] (g, 2t)  c[1] (g, 2t + 1)  c[2] (g + 8, 2t)  c[3] (g + 8, 2t + 1)
 */
#pragma once
#include "common.cuh"

#ifndef __CUDACC__
#include "emu/ptx_emu.h"
#else

/** c += A B in fp32, operands bf16. */
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** c += A B in i32, operands i8, 32 terms: as mma_bf16 with four neighbours in a register instead of two. */
__device__ __forceinline__ void mma_i8(int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/** Loads four tiles of 8 x 8 elements of 2 bytes: lane l gives the address of row l % 8 of tile l / 8, 16-byte aligned, in shared memory. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row))) : "memory");
}

/** As ldmatrix_x4, each tile transposed. */
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row))) : "memory");
}

/** Starts a copy of 16 bytes into shared memory; where not `valid`, zeros come instead and nothing is read. */
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(uint32_t(__cvta_generic_to_shared(shared))), "l"(global),
               "r"(valid ? 16 : 0) : "memory");
}

/** Closes the group of copies that this thread has started since the last one. */
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/** Waits until at most N groups of this thread are under way; other threads see them after a barrier. */
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/** 2^x within two units in the last place; subnormal results are 0. */
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

/** Two floats as neighbours of a register, the first in the lower half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  union { bf16 at[2]; uint32_t bits; } pair{};
  pair.at[0] = from_f32<bf16>(low);
  pair.at[1] = from_f32<bf16>(high);
  return pair.bits;
}
