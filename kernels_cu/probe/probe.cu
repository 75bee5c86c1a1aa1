/**
 * `probe` of dev/gpu_check.sh: what each wrapper of ptx.cuh gives for random fragments, as text. The same program compiled for a card
 * and against the emulation must print the same; sums are of small integers, which every order of addition keeps exact.
 *
 * A warp a block. No bound: it runs once.
 */
#include "../context.cuh"
#include "../ptx.cuh"

#include <cmath>
#include <cstdio>

namespace {

constexpr int WARPS = 4, WORDS = 22;
constexpr const char* NAMES[] = {"mma_bf16", "mma_i8", "ldmatrix_x4", "ldmatrix_x4_trans", "cp_async16"};

/** Mixes three numbers to 32 random bits. */
__device__ __forceinline__ uint32_t random_bits(uint32_t warp, uint32_t lane, uint32_t at) {
  uint32_t z = (warp * 32 + lane) * 64 + at + 1;
  for (const uint32_t factor : {0x7feb352du, 0x846ca68bu}) {
    z ^= z >> 16;
    z *= factor;
  }
  return z ^ z >> 15;
}

/** y (WARPS, 32, WORDS); x (32, 4). */
__global__ void __launch_bounds__(32) probe_kernel(uint32_t* y, const uint32_t* x) {
  SHARED(uint32_t, tiles, [32][4]);
  SHARED(uint32_t, copied, [32][4]);
  const uint32_t lane = threadIdx.x, warp = blockIdx.x;
  uint32_t* out = y + (warp * 32 + lane) * WORDS;
  const auto integer = [&](uint32_t at) { return float(int(random_bits(warp, lane, at) % 17) - 8); };
  uint32_t a[4], b[2], loaded[4];
  float sums[4];
  int32_t counts[4];
  for (int i = 0; i < 4; i++) a[i] = pack_bf16(integer(2 * i), integer(2 * i + 1));
  for (int i = 0; i < 2; i++) b[i] = pack_bf16(integer(8 + 2 * i), integer(9 + 2 * i));
  for (int i = 0; i < 4; i++) sums[i] = integer(12 + i);
  mma_bf16(sums, a, b);
  for (int i = 0; i < 4; i++) out[i] = __float_as_uint(sums[i]);
  for (int i = 0; i < 4; i++) a[i] = random_bits(warp, lane, 16 + i);
  for (int i = 0; i < 2; i++) b[i] = random_bits(warp, lane, 20 + i);
  for (int i = 0; i < 4; i++) counts[i] = int32_t(random_bits(warp, lane, 22 + i) >> 8);
  mma_i8(counts, a, b);
  for (int i = 0; i < 4; i++) out[4 + i] = uint32_t(counts[i]);
  for (int i = 0; i < 4; i++) tiles[lane][i] = random_bits(warp, lane, 26 + i);
  __syncthreads();
  ldmatrix_x4(loaded, tiles[lane]);
  for (int i = 0; i < 4; i++) out[8 + i] = loaded[i];
  ldmatrix_x4_trans(loaded, tiles[31 - lane]);
  for (int i = 0; i < 4; i++) out[12 + i] = loaded[i];
  for (int i = 0; i < 4; i++) copied[lane][i] = ~0u;
  cp_async16(copied[lane], x + 4 * lane, lane % 3 != 0);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; i++) out[16 + i] = copied[31 - lane][i];
  const float exponent = float(int(random_bits(warp, lane, 30) % 4096) - 2048) / 64;
  out[20] = __float_as_uint(exponent);
  out[21] = __float_as_uint(exp2_fast(exponent));
}

void expect_ok(Context* cx, int32_t status) {
  if (status == NC_STATUS_OK) return;
  fprintf(stderr, "%s\n", last_error(cx).c_str());
  exit(1);
}

} // namespace

int main() {
  uint64_t handle = 0, device = 0, input = 0, host = 0;
  expect_ok(nullptr, nc_context_create(&handle, 0, 0));
  auto* cx = reinterpret_cast<Context*>(handle);
  constexpr int64_t BYTES = WARPS * 32 * WORDS * 4;
  expect_ok(cx, nc_alloc(cx, &device, BYTES));
  uint32_t words[32 * 4];
  for (uint32_t i = 0; i < 32 * 4; i++) words[i] = i * 0x9e3779b9u;
  expect_ok(cx, nc_alloc(cx, &input, sizeof words));
  expect_ok(cx, nc_upload(cx, reinterpret_cast<void*>(input), words, sizeof words));
  expect_ok(cx, nc_host_alloc(cx, &host, BYTES));
  expect_ok(cx, entry(cx, "probe", [&](Context& c) {
    launch(c, "probe", probe_kernel, {WARPS, 32}, reinterpret_cast<uint32_t*>(device), reinterpret_cast<const uint32_t*>(input));
  }));
  expect_ok(cx, nc_copy(cx, reinterpret_cast<void*>(host), reinterpret_cast<void*>(device), BYTES));
  expect_ok(cx, nc_wait(cx));
  const auto* y = reinterpret_cast<const uint32_t*>(host);
  double worst = 0;
  for (int at = 0; at < WARPS * 32; at++, y += WORDS) {
    for (int i = 0; i < 5; i++) {
      printf("%s warp %d lane %d: %08x %08x %08x %08x\n", NAMES[i], at / 32, at % 32, y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3]);
    }
    float x, power;
    memcpy(&x, y + 20, 4);
    memcpy(&power, y + 21, 4);
    const double exact = exp2(double(x)), ulp = ldexp(1.0, ilogb(exact) - 23);
    worst = std::max(worst, fabs(power - exact) / ulp);
  }
  printf("exp2_fast is within 2 units in the last place: %s\n", worst <= 2 ? "yes" : "NO");
  return 0;
}
