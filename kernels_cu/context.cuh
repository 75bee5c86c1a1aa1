/**
 * The host's side of every entry point: the context with its stream and memory, checks of arguments, launches, and the wrapper that
 * turns whatever is thrown into a status (STYLE, "The native boundary").
 */
#pragma once
#include "common.cuh"
#include "nanochat.h"

#include <cstdarg>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

/** What stops an entry point: a status and a message for `nc_error`. */
struct Error {
  int32_t status;
  std::string message;
};

/** Throws an Error with a formatted message. */
[[noreturn]] void refuse(int32_t status, const char* format, ...) __attribute__((format(printf, 2, 3)));

/** Throws where a call of the runtime failed. */
void check(cudaError_t error, const char* doing);

/** Why a kernel gave up; the values beside it go into the message. */
enum FailureCode : int32_t { FAILURE_NONE, FAILURE_ID, FAILURE_ROW, FAILURE_CACHE_FULL, FAILURE_COUNT, FAILURE_LENGTH, FAILURE_LOGITS, FAILURE_SETTING, FAILURE_BIAS_ID, FAILURE_BIASES, FAILURE_TARGET };

/** Where kernels report the first value that they cannot compute with; read at the next wait. */
struct Failure {
  int32_t code, value, limit, position;
};

/** Reports a failure from a kernel; the first one stays. */
__device__ inline void report(Failure* failure, FailureCode code, int32_t value, int32_t limit, int64_t position = 0) {
  if (atomicCAS(&failure->code, int32_t(FAILURE_NONE), int32_t(code)) != FAILURE_NONE) return;
  failure->value = value;
  failure->limit = limit;
  failure->position = int32_t(position);
}

/** Memory of the context for a sum over many blocks. Streams must not sum at the same time. */
struct Reduction {
  static constexpr int MOST = 1024;
  double partial[MOST];
  unsigned finished;
};

/** A recorded graph with the pinned memory that its copies read. */
struct RecordedGraph {
  cudaGraphExec_t executable = nullptr;
  std::vector<std::pair<void*, size_t>> staging;
};

struct Blas; // blas.cu

/** The handle behind `ctx`: one device, its streams, and everything allocated through it. Serves one caller at a time. */
struct nc_context {
  int device = 0;
  cudaDeviceProp properties{};
  cudaStream_t main = nullptr, stream = nullptr; // in use
  std::mutex errorLock; // a wait runs on a thread of its own
  std::string error; // last message
  Failure* failure = nullptr; // device
  Failure* failureHost = nullptr; // pinned
  Reduction* reduction = nullptr; // device
  bool synchronous = false; // NC_SYNC=1: waits after every launch
  bool recording = false;

  std::map<cudaStream_t, char*> workspaces; // see `workspace`
  std::shared_ptr<Blas> blas; // made by the first product of training

  std::mutex memory; // a wait on another thread reads the table
  std::map<char*, size_t> blocks; // device memory
  std::map<char*, size_t> pinned; // of nc_host_alloc
  int64_t allocated = 0, peak = 0;

  struct Staged {
    void* memory;
    size_t bytes;
    cudaEvent_t free; // happens when its copy has read it
  };
  std::vector<Staged> staging; // pinned memory of uploads, used again
  std::vector<std::pair<void*, size_t>> recordedStaging; // of the graph that is being recorded
  std::vector<void*> freed; // device memory that was freed while a graph was recorded

  struct Timing {
    std::string op;
    cudaEvent_t from, to;
  };
  bool profiling = false;
  std::vector<Timing> timings;
  std::map<std::string, std::pair<int64_t, double>> profile; // op -> calls, ms

  /** Checks that `bytes` from an address on lie in memory of this context. */
  void checkMemory(const void* address, int64_t bytes, const char* name);
};

using Context = nc_context;

/** Checks n elements at an address and gives them their type. */
template <class T> T* array(Context& cx, void* address, int64_t n, const char* name) {
  cx.checkMemory(address, n * int64_t(sizeof(T)), name);
  return static_cast<T*>(address);
}

/** As `array`, for an argument that may be null. */
template <class T> T* optional(Context& cx, void* address, int64_t n, const char* name) {
  return address ? array<T>(cx, address, n, name) : nullptr;
}

constexpr int64_t WORKSPACE_BYTES = 32 << 20;

/**
 * Gives the memory in which an op on the stream in use may keep what nobody needs behind it: its address never changes, so that recorded
 * graphs may use it. It is the context's own because products have no scratch argument; it is allocated at its first use, or before a
 * recording.
 */
char* workspace(Context& cx);

/** Whether all addresses are multiples of 16 bytes. */
template <class... P> bool all_aligned(P*... address) { return ((reinterpret_cast<uintptr_t>(address) % 16 == 0) && ...); }

/** Checks a dimension. */
int64_t size(int32_t value, const char* name);

/** Calls `run` with a value of the element type that a dtype code names: f32 or bf16. */
template <class F> void with_float(int32_t dtype, F&& run) {
  if (dtype == NC_DTYPE_F32) run(float());
  else if (dtype == NC_DTYPE_BF16) run(bf16());
  else refuse(NC_STATUS_UNSUPPORTED, "dtype code %d is given, expected f32 or bf16", dtype);
}

/** Shape of a launch. */
struct Shape {
  dim3 grid, block;
  size_t sharedBytes = 0;
};

void before_launch(Context& cx, const void* kernel, const Shape& shape, const char* name);
void after_launch(Context& cx, cudaError_t error, const char* name);

/** Launches a kernel on the stream in use, its arguments converted to its parameters' types. */
template <class... P, class... A>
void launch(Context& cx, const char* name, void (*kernel)(P...), const Shape& shape, A&&... arguments) {
  before_launch(cx, reinterpret_cast<const void*>(kernel), shape, name);
#ifdef __CUDACC__
  std::tuple<P...> values(std::forward<A>(arguments)...);
  std::apply([&](P&... each) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&each))...};
    after_launch(cx, cudaLaunchKernel(reinterpret_cast<const void*>(kernel), shape.grid, shape.block, pointers, shape.sharedBytes, cx.stream), name);
  }, values);
#else
  after_launch(cx, emu::launch(name, kernel, shape.grid, shape.block, shape.sharedBytes, cx.stream, std::forward<A>(arguments)...), name);
#endif
}

/** Blocks that cover n with `each` a block, at most `most`: kernels stride over the rest. */
inline unsigned blocks_for(int64_t n, int64_t each, int64_t most = 65535) {
  const int64_t blocks = (n + each - 1) / each;
  return unsigned(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/** Runs the body of an entry point and returns its status; times it where the context profiles and it is an op. */
int32_t guarded(Context* cx, const char* name, void (*body)(void*, Context&), void* state, bool isOp = true);

/** As `guarded`, for the entry point that makes the context. */
int32_t guarded_orphan(void (*body)(void*), void* state);

/** The last message of a context, or of what failed without one. */
std::string last_error(Context* cx);

template <class F> int32_t entry(Context* cx, const char* name, F&& body) {
  return guarded(cx, name, [](void* state, Context& context) { (*static_cast<std::decay_t<F>*>(state))(context); }, &body);
}

/** As `entry`, for what is no op: it may wait on a thread of its own, and begins or ends recordings, so no events surround it. */
template <class F> int32_t control(Context* cx, const char* name, F&& body) {
  return guarded(cx, name, [](void* state, Context& context) { (*static_cast<std::decay_t<F>*>(state))(context); }, &body, false);
}
