/** Products of training: cuBLASLt by column-major terms, or its twin in the emulation; what neither has is multiplied by matmul.cu. */
#include "blas.cuh"
#include "matmul_tile.cuh"

#include <algorithm>
#include <array>
#include <cstdlib>

#ifdef __CUDACC__
#include <cublasLt.h>
#include <dlfcn.h>
#include <glob.h>
#endif

namespace {

bool is_off() {
  const char* text = getenv("NC_BLAS");
  return text && *text == '0';
}

} // namespace

#ifdef __CUDACC__

namespace {

constexpr const char* FILE_NAME = "libcublasLt.so.13";
constexpr size_t OLDEST = 130000; // of the header that this is compiled with

/** The functions that are used, of the library that was found. */
struct Library {
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) createDesc;
  decltype(&cublasLtMatmulDescDestroy) destroyDesc;
  decltype(&cublasLtMatmulDescSetAttribute) setDesc;
  decltype(&cublasLtMatrixLayoutCreate) createLayout;
  decltype(&cublasLtMatrixLayoutDestroy) destroyLayout;
  decltype(&cublasLtMatrixLayoutSetAttribute) setLayout;
  decltype(&cublasLtMatmulPreferenceCreate) createPreference;
  decltype(&cublasLtMatmulPreferenceDestroy) destroyPreference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) setPreference;
};

/** What became of the search. */
struct Found {
  Library lt{};
  bool isThere = false;
  std::string path, problem; // why there is none, and where it was looked for
};

/** Files that match a pattern of the shell. */
std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

/** Where the library may be, best first; a name without a folder is left to the loader. */
std::vector<std::string> places() {
  const auto variable = [](const char* name) { const char* text = getenv(name); return std::string(text ? text : ""); };
  if (const std::string given = variable("NANOCHAT_CUBLASLT"); !given.empty()) return {given, given + "/" + FILE_NAME};
  std::vector<std::string> list{FILE_NAME};
  for (const std::string& home : {variable("CUDA_HOME"), variable("CUDA_PATH"), std::string("/usr/local/cuda")}) {
    if (!home.empty()) list.push_back(home + "/lib64/" + FILE_NAME);
  }
  std::vector<std::string> prefixes;
  if (const std::string environment = variable("VIRTUAL_ENV"); !environment.empty()) prefixes.push_back(environment);
  if (const std::string home = variable("HOME"); !home.empty()) prefixes.push_back(home + "/.local");
  const std::string path = variable("PATH") + ":";
  for (size_t from = 0, to; (to = path.find(':', from)) != std::string::npos; from = to + 1) { // .../bin/python3 has .../lib/python3.x
    const std::string folder = path.substr(from, to - from);
    if (folder.size() > 4 && folder.compare(folder.size() - 4, 4, "/bin") == 0 && !matches(folder + "/python3").empty()) {
      prefixes.push_back(folder.substr(0, folder.size() - 4));
    }
  }
  for (const std::string& prefix : prefixes) {
    for (const char* packages : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages", "/lib/python3/dist-packages"}) {
      for (const char* folder : {"/nvidia/cu13/lib/", "/nvidia/cublas/lib/"}) {
        for (const std::string& file : matches(prefix + packages + folder + FILE_NAME)) list.push_back(file);
      }
    }
  }
  return list;
}

/** Fills the table from an open library; false where a function is missing. */
bool bind(void* handle, Library& lt) {
  bool whole = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
    whole = whole && function;
  };
  find(lt.version, "cublasLtGetVersion");
  find(lt.create, "cublasLtCreate");
  find(lt.destroy, "cublasLtDestroy");
  find(lt.matmul, "cublasLtMatmul");
  find(lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(lt.createDesc, "cublasLtMatmulDescCreate");
  find(lt.destroyDesc, "cublasLtMatmulDescDestroy");
  find(lt.setDesc, "cublasLtMatmulDescSetAttribute");
  find(lt.createLayout, "cublasLtMatrixLayoutCreate");
  find(lt.destroyLayout, "cublasLtMatrixLayoutDestroy");
  find(lt.setLayout, "cublasLtMatrixLayoutSetAttribute");
  find(lt.createPreference, "cublasLtMatmulPreferenceCreate");
  find(lt.destroyPreference, "cublasLtMatmulPreferenceDestroy");
  find(lt.setPreference, "cublasLtMatmulPreferenceSetAttribute");
  return whole;
}

std::string dotted(size_t version) { return std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100); }

Found look_for() {
  Found found;
  std::string looked, older;
  for (const std::string& place : places()) {
    looked += (looked.empty() ? "" : ", ") + place;
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) continue;
    if (bind(handle, found.lt) && found.lt.version() >= OLDEST) {
      found.isThere = true;
      found.path = place;
      return found;
    }
    older += " " + place + " is " + (found.lt.version ? "version " + dotted(found.lt.version()) : "none") + ", expected " + dotted(OLDEST) +
      " or newer;";
    dlclose(handle);
  }
  found.problem = older + " " + FILE_NAME + " not found as " + looked;
  found.problem.erase(0, found.problem.find_first_not_of(' '));
  return found;
}

/** The library of this process. */
const Found& library() {
  static const Found found = look_for();
  return found;
}

void expect(cublasStatus_t status, const char* doing) {
  if (status != CUBLAS_STATUS_SUCCESS) refuse(NC_STATUS_DEVICE, "Cannot %s: cuBLASLt reports status %d", doing, int(status));
}

cudaDataType data_type(int32_t dtype) { return dtype == NC_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF; }

/** What cuBLASLt keeps of a shape: descriptors, and the algorithm where it has one. */
struct Plan {
  const Library& lt;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool isThere = false;

  explicit Plan(const Library& lt) : lt(lt) {}
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

cublasLtMatrixLayout_t layout(const Library& lt, const BlasMatrix& x, int64_t rows, int64_t columns, int64_t batch) {
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

/** Asks the heuristic for the first algorithm; sums between parts of K stay in fp32. */
std::unique_ptr<Plan> plan(const Library& lt, cublasLtHandle_t handle, const BlasProduct& p) {
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
  const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  lt.setPreference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  lt.setPreference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
  const std::pair<cublasLtMatmulPreferenceAttributes_t, const BlasMatrix&> matrices[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.a},
    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.b}, {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.c}, {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.d}};
  for (const auto& [attribute, matrix] : matrices) {
    const uint32_t value = alignment(matrix);
    lt.setPreference(preference, attribute, &value, sizeof value);
  }
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status = lt.heuristic(handle, made->desc, made->a, made->b, made->c, made->d, preference, 1, &result, &count);
  lt.destroyPreference(preference);
  made->isThere = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  made->algorithm = result.algo;
  return made;
}

} // namespace

/** What a context keeps of the library. */
struct Blas {
  using Key = std::array<int64_t, 21>;
  const Library& lt;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans;

  explicit Blas(const Library& lt) : lt(lt) { expect(lt.create(&handle), "open cuBLASLt"); }
  Blas(const Blas&) = delete;
  ~Blas() {
    plans.clear();
    lt.destroy(handle);
  }
};

std::string blas_feature() {
  if (is_off()) return "own products: NC_BLAS=0";
  const Found& found = library();
  return found.isThere ? "cublasLt " + dotted(found.lt.version()) + " at " + found.path : "own products: " + found.problem;
}

bool blas_multiply(Context& cx, const char* name, const BlasProduct& p) {
  if (is_off()) return false;
  const Found& found = library();
  if (!found.isThere) {
    if (const char* given = getenv("NANOCHAT_CUBLASLT"); given && *given) {
      refuse(NC_STATUS_UNSUPPORTED, "Cannot open cuBLASLt: %s; NANOCHAT_CUBLASLT names it", found.problem.c_str());
    }
    return false;
  }
  if (!cx.blas) cx.blas = std::make_shared<Blas>(found.lt);
  Blas::Key key{p.m, p.n, p.k, p.batch};
  size_t at = 4;
  for (const BlasMatrix* each : {&p.a, &p.b, &p.c, &p.d}) {
    for (const int64_t value : {int64_t(each->dtype) * 2 + each->transposed, each->ld, each->batchStride, int64_t(alignment(*each))}) key[at++] = value;
  }
  key[at] = p.beta != 0;
  std::unique_ptr<Plan>& plan = cx.blas->plans[key];
  if (!plan) plan = ::plan(found.lt, cx.blas->handle, p);
  if (!plan->isThere) return false;
  const cublasStatus_t status = found.lt.matmul(cx.blas->handle, plan->desc, &p.alpha, p.a.data, plan->a, p.b.data, plan->b, &p.beta, p.c.data,
    plan->c, const_cast<void*>(p.d.data), plan->d, &plan->algorithm, workspace(cx), WORKSPACE_BYTES, cx.stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return plan->isThere = false;
  expect(status, name);
  after_launch(cx, cudaSuccess, name);
  return true;
}

#else

namespace {

/** An element of D a thread. */
template <class X, class Y> __global__ void twin_kernel(BlasProduct p) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, i = at % p.m, j = at / p.m;
  if (j >= p.n) return;
  const auto element = [&](const BlasMatrix& x, int64_t row, int64_t column) {
    const int64_t r = x.transposed ? column : row, c = x.transposed ? row : column;
    return to_f32(static_cast<const X*>(x.data)[blockIdx.z * x.batchStride + r + c * x.ld]);
  };
  float sum = 0;
  for (int64_t k = 0; k < p.k; k++) sum += element(p.a, i, k) * element(p.b, k, j);
  float y = p.alpha * sum;
  if (p.beta != 0) y += p.beta * to_f32(static_cast<const Y*>(p.c.data)[blockIdx.z * p.c.batchStride + i + j * p.c.ld]);
  static_cast<Y*>(const_cast<void*>(p.d.data))[blockIdx.z * p.d.batchStride + i + j * p.d.ld] = from_f32<Y>(y);
}

/** As strict as the heuristic may be: leading dimensions and addresses that are multiples of 16 bytes. */
bool suits(const BlasMatrix& x) {
  const int64_t size = x.dtype == NC_DTYPE_F32 ? 4 : 2;
  return reinterpret_cast<uint64_t>(x.data) % 16 == 0 && x.ld * size % 16 == 0;
}

} // namespace

struct Blas {};

std::string blas_feature() { return is_off() ? "own products: NC_BLAS=0" : "a twin of cublasLt"; }

bool blas_multiply(Context& cx, const char* name, const BlasProduct& p) {
  if (is_off() || !suits(p.a) || !suits(p.b) || !suits(p.c) || !suits(p.d)) return false;
  const Shape shape{{blocks_for(p.m * p.n, 128, INT32_MAX), 1, unsigned(p.batch)}, 128};
  with_float(p.a.dtype, [&](auto operand) {
    with_float(p.d.dtype, [&](auto result) { launch(cx, name, twin_kernel<decltype(operand), decltype(result)>, shape, p); });
  });
  return true;
}

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
