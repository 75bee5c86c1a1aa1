/**
 * cuBLASLt, opened where it is at hand: the products of training.
 *
 * It is looked for as NANOCHAT_CUBLASLT (the file or its folder), by the loader's own path, in the toolkit and in the wheels of python
 * environments. Where there is none, or NC_BLAS=0, the products of matmul.cuh do all the work. Its heuristic chooses an algorithm by shape;
 * NC_BLAS_CHOICES names a file that keeps the fastest of several, each timed when its shape first comes. NC_BLAS=deterministic takes the
 * first that does not split K. The emulation has a twin of the library, which takes the same column-major terms and computes with plain
 * loops, so that a mistake in them shows.
 */
#pragma once
#include "matmul.cuh"

/** A column-major operand or result; element (i, j) lies at i + j * ld. */
struct BlasMatrix {
  const void* data;
  int32_t dtype;
  int64_t ld, batchStride;
  bool transposed; // of operands: op(A) is the transposed matrix
};

/** D (m,n) = alpha op(A) op(B) + beta C, op(A) (m,k), op(B) (k,n); C and D have one type. */
struct BlasProduct {
  int64_t m, n, k, batch;
  BlasMatrix a, b, c, d;
  float alpha, beta;
};

/** Enqueues a product; false where there is no library, or it has nothing for this product. */
bool blas_multiply(Context& cx, const char* name, const BlasProduct& product);

/** Says what multiplies in training, for the device's description. */
std::string blas_feature();
