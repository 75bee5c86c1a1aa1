/** Products of training: cuBLASLt by column-major terms, or its twin in the emulation; what neither has is multiplied by matmul.cu. */
#include "blas.cuh"
#include "matmul_tile.cuh"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>


namespace {

/** What NC_BLAS asks for: "0" or "deterministic", or nothing. */
bool is_mode(const char* mode) {
  const char* text = getenv("NC_BLAS");
  return text && strcmp(text, mode) == 0;
}
bool is_off() { return is_mode("0"); }

} // namespace

#ifdef __CUDACC__
#include "blas_library.cuh"

namespace {

void expect(cublasStatus_t status, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS) refuse(NC_STATUS_DEVICE, "Cannot %s: cuBLASLt reports status %d", doing, int(status));
}

cudaDataType data_type(int32_t dtype) { return dtype == NC_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF; }

/** What a plan is found by: sizes, types, strides and alignments, without beta. */
using Key = std::array<int64_t, 20>;
using Algorithm = cublasLtMatmulAlgo_t;

/**
 * The file NC_BLAS_CHOICES, where the fastest algorithm of each shape is kept: a line with library and device, then a line a shape, the
 * numbers of its key and those of the algorithm, which only the same library understands.
 */
class Choices {
 public:
  explicit Choices(const std::string& head) {
    const char* text = getenv("NC_BLAS_CHOICES");
    if (!text || !*text || is_mode("deterministic")) return;
    path_ = text;
    std::ifstream file(path_);
    std::string line;
    if (std::getline(file, line) && line == head) {
      while (std::getline(file, line)) read(line);
      return;
    }
    std::ofstream made(path_);
    if (!(made << head << '\n')) refuse(NC_STATUS_IO, "Cannot write \"%s\", which NC_BLAS_CHOICES names", path_.c_str());
  }

  bool isOpen() const { return !path_.empty(); }
  const Algorithm* find(const Key& key) const {
    const auto found = known_.find(key);
    return found == known_.end() ? nullptr : &found->second;
  }
  void keep(const Key& key, const Algorithm& algorithm) {
    known_[key] = algorithm;
    std::string line;
    for (const int64_t each : key) line += std::to_string(each) + " ";
    for (const uint64_t each : algorithm.data) line += std::to_string(each) + " ";
    line.back() = '\n';
    std::ofstream(path_, std::ios::app) << line; // one write: ranks may share the file
  }

 private:
  void read(const std::string& line) {
    std::istringstream numbers(line);
    Key key;
    Algorithm algorithm;
    for (int64_t& each : key) numbers >> each;
    for (uint64_t& each : algorithm.data) numbers >> each;
    if (numbers) known_[key] = algorithm;
  }

  std::string path_;
  std::map<Key, Algorithm> known_;
};

/** What cuBLASLt keeps of a shape: descriptors, and algorithms, the most promising first. */
struct Plan {
  const BlasLibrary& lt;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  std::vector<Algorithm> algorithms;

  explicit Plan(const BlasLibrary& lt) : lt(lt) {}
  Plan(const Plan&) = delete;
  ~Plan() {
    for (const cublasLtMatrixLayout_t each : {a, b, c, d}) if (each) lt.destroyLayout(each);
    if (desc) lt.destroyDesc(desc);
  }
};

/** Largest power of two, at most 256, that divides all addresses of a batch. */
uint32_t alignment(const BlasMatrix& x) {
  const uint64_t bits = reinterpret_cast<uint64_t>(x.data) | uint64_t(x.batchStride) * (x.dtype == NC_DTYPE_F32 ? 4 : 2) | 256;
  return uint32_t(bits & (~bits + 1));
}

cublasLtMatrixLayout_t layout(const BlasLibrary& lt, const BlasMatrix& x, int64_t rows, int64_t columns, int64_t batch) {
  cublasLtMatrixLayout_t made = nullptr;
  if (x.transposed) std::swap(rows, columns);
  expect(lt.createLayout(&made, data_type(x.dtype), uint64_t(rows), uint64_t(columns), x.ld), "describe a matrix");
  if (batch > 1) {
    const int32_t count = int32_t(batch);
    lt.setLayout(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    lt.setLayout(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &x.batchStride, sizeof x.batchStride);
  }
  return made;
}

/** Asks the heuristic for algorithms. Sums of parts of K stay in fp32; there are no parts where the order must not depend on the device. */
std::unique_ptr<Plan> plan(const BlasLibrary& lt, cublasLtHandle_t handle, const BlasProduct& p, int most) {
  auto made = std::make_unique<Plan>(lt);
  expect(lt.createDesc(&made->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
  for (const auto& [attribute, transposed] : {std::pair(CUBLASLT_MATMUL_DESC_TRANSA, p.a.transposed), std::pair(CUBLASLT_MATMUL_DESC_TRANSB, p.b.transposed)}) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    expect(lt.setDesc(made->desc, attribute, &operation, sizeof operation), "describe a product");
  }
  made->a = layout(lt, p.a, p.m, p.k, p.batch);
  made->b = layout(lt, p.b, p.k, p.n, p.batch);
  made->c = layout(lt, p.c, p.m, p.n, p.batch);
  made->d = layout(lt, p.d, p.m, p.n, p.batch);
  cublasLtMatmulPreference_t preference = nullptr;
  expect(lt.createPreference(&preference), "describe a preference");
  const uint64_t bytes = WORKSPACE_BYTES;
  const uint32_t reduction = is_mode("deterministic") ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  lt.setPreference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  lt.setPreference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
  const std::pair<cublasLtMatmulPreferenceAttributes_t, const BlasMatrix&> matrices[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.a},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.b}, {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.c}, {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.d}};
  for (const auto& [attribute, matrix] : matrices) {
    const uint32_t value = alignment(matrix);
    lt.setPreference(preference, attribute, &value, sizeof value);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(size_t(most), cublasLtMatmulHeuristicResult_t{});
  int count = 0;
  const cublasStatus_t status = lt.heuristic(handle, made->desc, made->a, made->b, made->c, made->d, preference, most, results.data(), &count);
  lt.destroyPreference(preference);
  for (int i = 0; i < count && status == CUBLAS_STATUS_SUCCESS; i++) {
    if (results[size_t(i)].state == CUBLAS_STATUS_SUCCESS) made->algorithms.push_back(results[size_t(i)].algo);
  }
  return made;
}

} // namespace

/** What a context keeps of the library. */
struct Blas {
  const BlasLibrary& lt;
  Choices choices;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans;

  Blas(const BlasLibrary& lt, const char* device) : lt(lt), choices("cublasLt " + std::to_string(lt.version()) + " " + device) {
    expect(lt.create(&handle), "open cuBLASLt");
  }
  Blas(const Blas&) = delete;
  ~Blas() {
    plans.clear();
    lt.destroy(handle);
  }

  cublasStatus_t run(Context& cx, const Plan& plan, const BlasProduct& p, const Algorithm& algorithm) const {
    return lt.matmul(handle, plan.desc, &p.alpha, p.a.data, plan.a, p.b.data, plan.b, &p.beta, p.c.data, plan.c, const_cast<void*>(p.d.data), plan.d,
      &algorithm, workspace(cx), WORKSPACE_BYTES, cx.stream);
  }

  /** Times the algorithms of a plan on the product itself, which may be repeated, and keeps the fastest. */
  void search(Context& cx, Plan& plan, const BlasProduct& p, const Key& key) {
    constexpr int RUNS = 3;
    cudaEvent_t from = nullptr, to = nullptr;
    check(cudaEventCreateWithFlags(&from, cudaEventDefault), "make an event");
    check(cudaEventCreateWithFlags(&to, cudaEventDefault), "make an event");
    std::vector<Algorithm> fastest;
    float least = INFINITY;
    for (const Algorithm& each : plan.algorithms) {
      if (run(cx, plan, p, each) != CUBLAS_STATUS_SUCCESS) continue; // it warms up
      float ms = 0;
      check(cudaEventRecord(from, cx.stream), "record an event");
      for (int i = 0; i < RUNS; i++) run(cx, plan, p, each);
      check(cudaEventRecord(to, cx.stream), "record an event");
      check(cudaEventSynchronize(to), "time a product");
      check(cudaEventElapsedTime(&ms, from, to), "time a product");
      if (ms >= least) continue;
      least = ms;
      fastest = {each};
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    plan.algorithms = fastest;
    if (!fastest.empty()) choices.keep(key, fastest[0]);
  }
};

std::string blas_feature() {
  if (is_off()) return "own products: NC_BLAS=0";
  const BlasSearch& found = blas_library();
  return found.isThere ? "cublasLt " + blas_version(found.lt.version()) + " at " + found.path : "own products: " + found.problem;
}

bool blas_multiply(Context& cx, const char* name, const BlasProduct& p) {
  if (is_off()) return false;
  const BlasSearch& found = blas_library();
  if (!found.isThere) {
    if (const char* given = getenv("NANOCHAT_CUBLASLT"); given && *given) {
      refuse(NC_STATUS_UNSUPPORTED, "Cannot open cuBLASLt: %s; NANOCHAT_CUBLASLT names it", found.problem.c_str());
    }
    return false;
  }
  if (!cx.blas) cx.blas = std::make_shared<Blas>(found.lt, cx.properties.name);
  Blas& blas = *cx.blas;
  Key key{p.m, p.n, p.k, p.batch};
  size_t at = 4;
  for (const BlasMatrix* each : {&p.a, &p.b, &p.c, &p.d}) {
    for (const int64_t value : {int64_t(each->dtype) * 2 + each->transposed, each->ld, each->batchStride, int64_t(alignment(*each))}) key[at++] = value;
  }
  std::unique_ptr<Plan>& plan = blas.plans[key];
  if (!plan) {
    constexpr int CANDIDATES = 8;
    plan = ::plan(found.lt, blas.handle, p, blas.choices.isOpen() ? CANDIDATES : 1);
    if (const Algorithm* kept = blas.choices.find(key)) plan->algorithms = {*kept};
  }
  const bool repeatable = p.beta == 0 || p.c.data != p.d.data;
  if (plan->algorithms.size() > 1 && repeatable && !cx.recording) blas.search(cx, *plan, p, key);
  if (plan->algorithms.empty()) return false;
  const cublasStatus_t status = blas.run(cx, *plan, p, plan->algorithms[0]);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
    plan->algorithms.clear();
    return false;
  }
  expect(status, name);
  after_launch(cx, cudaSuccess, name);
  return true;
}

#else
#include "emu/blas_emu.h"

struct Blas {};

std::string blas_feature() { return is_off() ? "own products: NC_BLAS=0" : "a twin of cublasLt"; }

bool blas_multiply(Context& cx, const char* name, const BlasProduct& p) { return !is_off() && emu::blas_twin(cx, name, p); }

#endif

namespace {

constexpr int THREADS = 256;

/** Finishes a product h (n elements) that cuBLASLt left where `h` points: what its epilogues lack. */
template <class C> __global__ void __launch_bounds__(THREADS) finish_kernel(Target t, const C* h, int64_t n) {
  constexpr int N = 16 / sizeof(C);
  for (int64_t at = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * N; at < n; at += int64_t(gridDim.x) * THREADS * N) {
    const Vec<C> sums = load_vec(h + at);
    write<C, N>(t, 0, at, [&](int i) { return to_f32(sums.at[i]); });
  }
}

void finish(Context& cx, const char* name, const Product& p, const void* h, void* other) {
  const int64_t n = p.M * p.N;
  const Target t{p.c.data, other, nullptr, nullptr, 1, n, n, 0, 0, 1, 0, p.epilogue, p.c.dtype == NC_DTYPE_BF16, true, false};
  with_float(p.c.dtype, [&](auto type) {
    using C = decltype(type);
    launch(cx, name, finish_kernel<C>, {blocks_for(n, THREADS * 16 / int64_t(sizeof(C))), THREADS}, t, static_cast<const C*>(h), n);
  });
}

bool is_aligned(const void* data) { return reinterpret_cast<uint64_t>(data) % 16 == 0; }

/** An operand (rows, columns) of row-major terms as the transposed one of column-major terms. */
BlasMatrix turned(const View& x) {
  const bool isRows = x.columnStride == 1 && x.rowStride != 1;
  return {x.data, x.dtype, std::max<int64_t>(1, isRows ? x.rowStride : x.columnStride), x.batchStride, !isRows};
}

/** Tries cuBLASLt: row-major C = A B is column-major C^T = B^T A^T in the same memory. */
bool try_blas(Context& cx, const char* name, const Product& p) {
  const bool isMultiplied = p.epilogue == Epilogue::RELU2 || p.epilogue == Epilogue::RELU2_BACKWARD; // by an own kernel behind it
  if (p.epilogue > Epilogue::RELU2_BACKWARD || p.relu2B || p.symmetric || p.K == 0) return false;
  if (p.a.rowStride == p.a.columnStride || p.b.rowStride == p.b.columnStride) return false; // vectors, which have no leading dimension
  if (p.a.dtype != p.b.dtype || (p.a.dtype == NC_DTYPE_F32 && p.c.dtype != NC_DTYPE_F32)) return false;
  if (isMultiplied && (p.batch != 1 || p.c.stride != p.N || p.N % 8 != 0 || !is_aligned(p.c.data) || !is_aligned(p.other))) return false;
  const BlasMatrix c{p.c.data, p.c.dtype, p.c.stride, p.c.batchStride, false};
  BlasProduct product{p.N, p.M, p.K, p.batch, turned(p.b), turned(p.a), c, c, p.alpha, 0};
  if (p.epilogue == Epilogue::ACCUMULATE) product.beta = 1;
  if (p.epilogue == Epilogue::RESIDUAL) {
    product.beta = 1;
    product.c.data = p.other;
    product.c.batchStride = p.otherBatchStride;
  }
  if (p.epilogue == Epilogue::RELU2 && p.other) product.c.data = product.d.data = p.other;
  if (!blas_multiply(cx, name, product)) return false;
  if (isMultiplied) finish(cx, name, p, product.d.data, p.epilogue == Epilogue::RELU2 ? nullptr : p.other);
  return true;
}

} // namespace

void multiply_fast(Context& cx, const char* name, const Product& p) {
  if (p.M == 0 || p.N == 0 || p.batch == 0) return;
  if (!try_blas(cx, name, p)) multiply_freely(cx, name, p);
}
