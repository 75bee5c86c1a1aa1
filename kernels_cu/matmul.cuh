/**
 * Our own products: C = epilogue(alpha A B), A (M,K), B (K,N), C (M,N), fp32 sums.
 *
 * Operands are views, each of them rows or columns without gaps, so that x W^T, dy W and dy^T x are one product. In inference an element
 * is added up in an order that depends on K alone: K is cut into SLICES equal parts, each summed from zero in order, and their sums are
 * added in order. So a row of C has the same bits for every M and N (inference is batch-invariant). Training does not need it.
 *
 *   multiply(cx, "nc_linear_fwd", {M, N, K, rows_view(x, dtype, K), rows_view(w, dtype, K).transposed(), {y, dtype, N}});
 */
#pragma once
#include "context.cuh"

/** A matrix operand: element (i, j) lies at i * rowStride + j * columnStride elements, of which one is 1; f32 or bf16. */
struct View {
  const void* data;
  int32_t dtype;
  int64_t rowStride, columnStride;
  int64_t batchStride = 0; // elements between the matrices of a batch; 0 = all use the same

  View transposed() const { return {data, dtype, columnStride, rowStride, batchStride}; }
};

/** Rows of `stride` elements each, of which an operand uses the first. */
inline View rows_view(const void* data, int32_t dtype, int64_t stride, int64_t batchStride = 0) {
  return {data, dtype, stride, 1, batchStride};
}

/** The result: rows `stride` elements apart, f32 or bf16. */
struct Output {
  void* data;
  int32_t dtype;
  int64_t stride;
  int64_t batchStride = 0;
};

enum class Epilogue : int32_t {
  STORE, // c = h, the sum times alpha
  ACCUMULATE, // c = c + h
  RESIDUAL, // c = h + other; other may be C itself
  RELU2, // other = h if it is given; c = max(h, 0)^2 of the h that other holds
  RELU2_BACKWARD, // c = h * 2 max(other, 0)
  RELU2_BACKWARD_ACCUMULATE, // c = c + h * 2 max(other, 0)
  BLEND, // c = beta other + h, each term rounded to C's type as separate operations would
};

struct Product {
  int64_t M, N, K;
  View a, b;
  Output c;
  Epilogue epilogue = Epilogue::STORE;
  void* other = nullptr; // type and row stride of C
  int64_t otherBatchStride = 0;
  float alpha = 1, beta = 0;
  int64_t batch = 1;
  bool relu2B = false; // max(b, 0)^2 of every element b of B takes its place
  bool symmetric = false; // C is known to be symmetric: half of it is computed and mirrored, to equal bits; not for ACCUMULATE in place
};

/**
 * Enqueues a product in the order above: for inference. C overlaps no operand, except as its epilogue says. Operands of f32, or of two
 * types, are multiplied in f32; those of bf16 must run along K, as in x W^T.
 */
void multiply(Context& cx, const char* name, const Product& product);

/** As `multiply`, for operands of any direction and in an order of its own: what training uses where cuBLASLt has nothing. */
void multiply_freely(Context& cx, const char* name, const Product& product);

/** As `multiply_freely`, by cuBLASLt where it is at hand and has the product: for training. */
void multiply_fast(Context& cx, const char* name, const Product& product);

/** Bytes of a weight (N,K) as `pack_int8` makes it. */
int64_t int8_bytes(int64_t N, int64_t K);

/**
 * Quantises a weight w (N,K), rows of f32 or bf16 without gaps: each row becomes round(w (127 / max |w|)), ties to even, with the scale
 * max |w| / 127. A row with infinity or NaN gets the scale NaN; one whose elements are all smaller than 2^-120 counts as zero.
 */
void pack_int8(Context& cx, const char* name, void* packed, const void* w, int64_t N, int64_t K, int32_t dtype);

/** C = epilogue(x W^T), w as `pack_int8` made it of `rowsW` rows, of which the first N count; x, rows without gaps, is quantised as w was. */
void multiply_int8(Context& cx, const char* name, const Product& product, const void* w, int64_t rowsW);
