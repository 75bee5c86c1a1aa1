/**
 * Linear layers: y = x W^T with x (M,K) and w (N,K), its two gradients, and the packed form of weights.
 *
 * All three are one product (matmul.cuh) of views: y = x (w)^T, dx = dy w, dw = (dy)^T x. Weights as rows are those of training, whose
 * products may take any order; packed ones are those of inference, whose products are batch-invariant. A packed weight of f32 or bf16 is
 * its rows, each of which starts at a multiple of 16 bytes; there is no packed form for BACKWARD.
 */
#include "matmul.cuh"

namespace {

int64_t element_bytes(int32_t dtype) { return dtype == NC_DTYPE_F32 ? 4 : 2; }

/** A dtype that this library computes with. */
void storage(const char* doing, int32_t dtype) {
  if (dtype == NC_DTYPE_F32 || dtype == NC_DTYPE_BF16) return;
  refuse(NC_STATUS_UNSUPPORTED, "Cannot %s: dtype %d, expected f32 (%d) or bf16 (%d)", doing, dtype, NC_DTYPE_F32, NC_DTYPE_BF16);
}

/** Both operands of a product: the same dtype, f32 or bf16. */
void operands(const char* doing, int32_t a, int32_t b, const void* scaleA, const void* scaleB) {
  if (scaleA || scaleB) refuse(NC_STATUS_UNSUPPORTED, "Cannot %s: operands have scales, expected none; fp8 is not written yet", doing);
  if (a != b) refuse(NC_STATUS_INVALID, "Cannot %s: dtypes %d and %d of the operands, expected equal ones", doing, a, b);
  storage(doing, a);
}

bool is_relu2(const char* doing, int32_t code) {
  if (code == NC_EPILOGUE_NONE || code == NC_EPILOGUE_RELU2) return code == NC_EPILOGUE_RELU2;
  refuse(NC_STATUS_INVALID, "Cannot %s: epilogue %d, expected NONE (0) or RELU2 (1)", doing, code);
}

/** Checks n elements of a dtype. */
void* tensor(Context& cx, void* address, int64_t n, int32_t dtype, const char* name) {
  return array<char>(cx, address, n * element_bytes(dtype), name);
}

/** Elements between the rows of a packed weight. */
int64_t packed_stride(int64_t K, int32_t dtype) {
  const int64_t whole = 16 / element_bytes(dtype);
  return (K + whole - 1) / whole * whole;
}

int64_t packed_bytes(int32_t N, int32_t K, int32_t direction, int32_t dtype) {
  const int64_t n = size(N, "N"), k = size(K, "K");
  if (direction != NC_PACK_FORWARD && direction != NC_PACK_BACKWARD) {
    refuse(NC_STATUS_INVALID, "Cannot pack: direction %d, expected FORWARD (0) or BACKWARD (1)", direction);
  }
  if (dtype == NC_DTYPE_I8 && direction == NC_PACK_FORWARD) return int8_bytes(n, k);
  storage("pack", dtype);
  return direction == NC_PACK_FORWARD ? n * packed_stride(k, dtype) * element_bytes(dtype) : 0;
}

/** y (rows, stride) = x (rows, columns) with zeros behind. */
template <class Y, class X>
__global__ void __launch_bounds__(256) pack_kernel(Y* y, const X* x, int64_t rows, int64_t columns, int64_t stride) {
  for (int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x; i < rows * stride; i += int64_t(gridDim.x) * 256) {
    const int64_t row = i / stride, column = i % stride;
    y[i] = from_f32<Y>(column < columns ? to_f32(x[row * columns + column]) : 0);
  }
}

} // namespace

int32_t nc_linear_fwd(nc_context* ctx, void* y, void* aux, void* x, void* w, void* residual, void* scaleX, void* scaleW, int32_t M, int32_t N,
  int32_t K, int32_t epilogue, int32_t layoutW, int32_t dtypeY, int32_t dtypeX, int32_t dtypeW) {
  return entry(ctx, "nc_linear_fwd", [&](Context& cx) {
    const char* doing = "apply linear";
    const bool isInt8 = dtypeW == NC_DTYPE_I8, isPacked = layoutW == NC_LAYOUT_PACKED;
    operands(doing, dtypeX, isInt8 ? dtypeX : dtypeW, scaleX, scaleW);
    storage(doing, dtypeY);
    const bool relu2 = is_relu2(doing, epilogue);
    if (relu2 && residual) refuse(NC_STATUS_INVALID, "Cannot %s: RELU2 with a residual, expected one of them", doing);
    if (!relu2 && aux) refuse(NC_STATUS_INVALID, "Cannot %s: aux without RELU2, expected null", doing);
    if (!isPacked && layoutW != NC_LAYOUT_ROWS) {
      refuse(NC_STATUS_INVALID, "Cannot %s: layout %d, expected ROWS (0) or PACKED (1)", doing, layoutW);
    }
    if (isInt8 && !isPacked) refuse(NC_STATUS_INVALID, "Cannot %s: layout %d of i8, expected PACKED (1)", doing, layoutW);
    const int64_t m = size(M, "M"), n = size(N, "N"), k = size(K, "K");
    const int64_t stride = isPacked && !isInt8 ? packed_stride(k, dtypeW) : k;
    const int64_t bytes = isInt8 ? int8_bytes(n, k) : n * stride * element_bytes(dtypeW);
    const void* weight = array<char>(cx, w, bytes, "w");
    Product product{m, n, k, rows_view(tensor(cx, x, m * k, dtypeX, "x"), dtypeX, k), rows_view(weight, dtypeW, stride).transposed(),
      {tensor(cx, y, m * n, dtypeY, "y"), dtypeY, n}};
    product.epilogue = relu2 ? Epilogue::RELU2 : residual ? Epilogue::RESIDUAL : Epilogue::STORE;
    if (void* other = relu2 ? aux : residual) product.other = tensor(cx, other, m * n, dtypeY, relu2 ? "aux" : "residual");
    if (isInt8) multiply_int8(cx, "nc_linear_fwd", product, weight, n);
    else if (isPacked) multiply(cx, "nc_linear_fwd", product);
    else multiply_fast(cx, "nc_linear_fwd", product);
  });
}

int32_t nc_linear_bwd_x(nc_context* ctx, void* dx, void* dy, void* w, void* aux, void* scaleDy, void* scaleW, int32_t M, int32_t N, int32_t K,
  int32_t epilogue, int32_t accumulate, int32_t layoutW, int32_t dtypeDx, int32_t dtypeDy, int32_t dtypeW) {
  return entry(ctx, "nc_linear_bwd_x", [&](Context& cx) {
    const char* doing = "apply the input gradient of linear";
    operands(doing, dtypeDy, dtypeW, scaleDy, scaleW);
    storage(doing, dtypeDx);
    const bool relu2 = is_relu2(doing, epilogue);
    if (relu2 != (aux != nullptr)) refuse(NC_STATUS_INVALID, "Cannot %s: expected aux with RELU2, and with RELU2 alone", doing);
    if (layoutW != NC_LAYOUT_ROWS) refuse(NC_STATUS_INVALID, "Cannot %s: layout %d, expected ROWS (0)", doing, layoutW);
    const int64_t m = size(M, "M"), n = size(N, "N"), k = size(K, "K");
    Product product{m, k, n, rows_view(tensor(cx, dy, m * n, dtypeDy, "dy"), dtypeDy, n), rows_view(tensor(cx, w, n * k, dtypeW, "w"), dtypeW, k),
      {tensor(cx, dx, m * k, dtypeDx, "dx"), dtypeDx, k}};
    if (relu2) {
      product.epilogue = accumulate ? Epilogue::RELU2_BACKWARD_ACCUMULATE : Epilogue::RELU2_BACKWARD;
      product.other = tensor(cx, aux, m * k, dtypeDx, "aux");
    } else if (accumulate) {
      product.epilogue = Epilogue::ACCUMULATE;
    }
    multiply_fast(cx, "nc_linear_bwd_x", product);
  });
}

int32_t nc_linear_bwd_w(nc_context* ctx, void* dw, void* dy, void* x, void* scaleDy, void* scaleX, int32_t M, int32_t N, int32_t K,
  int32_t prologue, int32_t accumulate, int32_t dtypeDy, int32_t dtypeX) {
  return entry(ctx, "nc_linear_bwd_w", [&](Context& cx) {
    const char* doing = "apply the weight gradient of linear";
    operands(doing, dtypeDy, dtypeX, scaleDy, scaleX);
    const bool relu2 = is_relu2(doing, prologue);
    const int64_t m = size(M, "M"), n = size(N, "N"), k = size(K, "K");
    Product product{n, k, m, rows_view(tensor(cx, dy, m * n, dtypeDy, "dy"), dtypeDy, n).transposed(),
      rows_view(tensor(cx, x, m * k, dtypeX, "x"), dtypeX, k), {array<float>(cx, dw, n * k, "dw"), NC_DTYPE_F32, k}};
    product.relu2B = relu2;
    if (accumulate) product.epilogue = Epilogue::ACCUMULATE;
    multiply_fast(cx, "nc_linear_bwd_w", product);
  });
}

int32_t nc_pack_bytes(nc_context* ctx, void* bytes, int32_t N, int32_t K, int32_t direction, int32_t dtype) {
  return entry(ctx, "nc_pack_bytes", [&](Context&) {
    const int64_t value = packed_bytes(N, K, direction, dtype);
    memcpy(bytes, &value, sizeof value);
  });
}

int32_t nc_pack(nc_context* ctx, void* packed, void* w, int32_t N, int32_t K, int32_t direction, int32_t dtypePacked, int32_t dtypeW) {
  return entry(ctx, "nc_pack", [&](Context& cx) {
    void* out = array<char>(cx, packed, packed_bytes(N, K, direction, dtypePacked), "packed");
    storage("pack", dtypeW);
    if (direction == NC_PACK_BACKWARD) refuse(NC_STATUS_UNSUPPORTED, "Cannot pack: direction BACKWARD, which has no packed form here");
    const int64_t n = size(N, "N"), k = size(K, "K");
    void* rows = tensor(cx, w, n * k, dtypeW, "w");
    if (n == 0 || k == 0) return;
    if (dtypePacked == NC_DTYPE_I8) return pack_int8(cx, "nc_pack", out, rows, n, k, dtypeW);
    const int64_t stride = packed_stride(k, dtypePacked);
    with_float(dtypePacked, [&](auto typeY) {
      with_float(dtypeW, [&](auto typeX) {
        using Y = decltype(typeY);
        using X = decltype(typeX);
        launch(cx, "nc_pack", pack_kernel<Y, X>, {blocks_for(n * stride, 256), 256}, static_cast<Y*>(out), static_cast<const X*>(rows), n, k, stride);
      });
    });
  });
}
