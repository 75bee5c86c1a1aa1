/**
 * CUDA on a processor without a GPU: what the sources of this folder use of the language and of the runtime, for g++.
 *
 * A block runs at a time, each of its threads as a fiber that gives way where a thread of CUDA would wait: at a barrier and in a warp
 * collective. Streams are queues that run as late as the program allows (cuda_emu_host.cpp). It is stricter than a card:
 *   - shared memory is NaN before each block, and what lies behind it must stay untouched;
 *   - under ThreadSanitizer only __syncthreads and __syncwarp order the threads of a block; shuffles, mma and ldmatrix do not;
 *   - a barrier that not all threads of the block reach at the same line, a collective whose mask is not the set of its callers, and a
 *     launch that some supported card would refuse are errors, with the kernel, the block and the thread;
 *   - EMU_ORDER=forward|reverse|shuffle:SEED orders blocks and threads; warps|warps:SEED lets a warp run as far as it can before the next
 *     one (it misses no barrier that lies between warps). Results must not depend on it.
 * Kernels declare shared memory by SHARED (a type with its bounds) and DYNAMIC_SHARED, and are started by `launch` of context.cuh.
 */
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__) || defined(EMU_TSAN) // EMU_TSAN: of a file that is not instrumented itself
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __constant__ static const
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emu {

/** What a thread waits for. */
enum class Wait { NONE, BARRIER, WARP, DONE };

/** While it lives, a sanitizer of races does not look: what the emulation itself keeps is shared by design. */
struct Unseen {
#if defined(__SANITIZE_THREAD__) || defined(EMU_TSAN)
  Unseen() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  ~Unseen() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  Unseen() {}
#endif
  Unseen(const Unseen&) = delete;
};

/** Computes a warp collective when its last lane has come: `payload[lane]` is what each lane of `mask` gave. */
using Resolve = void (*)(void* const payload[32], uint32_t mask);

/** One thread of the block that runs. */
struct Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  Wait wait = Wait::NONE;
  unsigned tid = 0;
  dim3 index;
  const char* file = nullptr; // of the barrier
  int line = 0;
  uint32_t mask = 0; // of the collective
  Resolve resolve = nullptr;
  void* payload = nullptr;
  std::deque<std::vector<std::pair<void*, const void*>>> copies; // asynchronous ones by group, the open group last
  void* sanitizer = nullptr; // the fiber as a sanitizer knows it
  unsigned barriers = 0, warpBarriers = 0; // passed so far; what comes before one and what comes behind it have clocks of their own
  char clocks[2] = {}; // addresses for a sanitizer
};

/** The block that runs. */
struct Block {
  Fiber* fiber = nullptr;
  dim3 index, size, grid;
  char* dynamic = nullptr; // shared memory of the launch
  uint64_t epoch = 0; // counts blocks: shared memory of another block is poisoned at its first use
};
extern Block block;

/** Gives way until the reason is gone. */
void give_way(Wait reason);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

inline void barrier(const char* file, int line) {
  block.fiber->file = file;
  block.fiber->line = line;
  give_way(Wait::BARRIER);
}

/** Waits for the lanes of the mask, and orders what they did before and do behind. */
void warp_barrier(uint32_t mask);

/** Waits for all lanes of the mask, the last of which computes for all. */
inline void collective(uint32_t mask, Resolve resolve, void* payload) {
  Fiber& fiber = *block.fiber;
  fiber.mask = mask;
  fiber.resolve = resolve;
  fiber.payload = payload;
  give_way(Wait::WARP);
}

/** Static shared memory of one declaration. */
template <class T> class Shared {
 public:
  T& get() {
    const Unseen unseen;
    if (epoch_ != block.epoch) {
      epoch_ = block.epoch;
      memset(static_cast<void*>(&value_), 0xff, sizeof value_);
    }
    return value_;
  }

 private:
  uint64_t epoch_ = 0;
  alignas(128) T value_;
};

/** A value that a shuffle exchanges. */
template <class T> struct Exchange {
  T value, result;
  int source; // lane; negative = its own
};

template <class T> T exchange(uint32_t mask, T value, int source) {
  static_assert(sizeof(T) <= 8);
  Exchange<T> mine{value, value, source};
  collective(mask, [](void* const payload[32], uint32_t lanes) {
    for (int lane = 0; lane < 32; lane++) {
      if (!(lanes >> lane & 1)) continue;
      auto* to = static_cast<Exchange<T>*>(payload[lane]);
      if (to->source < 0) continue;
      if (!(lanes >> to->source & 1)) fail("lane %d reads lane %d by a shuffle, which takes no part", lane, to->source);
      to->result = static_cast<Exchange<T>*>(payload[to->source])->value;
    }
  }, &mine);
  return mine.result;
}

inline int lane() { return int(block.fiber->tid & 31); }

/** Runs `body` for every thread of every block; called by the queue. */
void run(const char* name, dim3 grid, dim3 size, size_t sharedBytes, const std::function<void()>& body);

} // namespace emu

#define threadIdx (emu::block.fiber->index)
#define blockIdx (emu::block.index)
#define blockDim (emu::block.size)
#define gridDim (emu::block.grid)
#define SHARED(type, name, bounds)      \
  using name##_t = type bounds;         \
  static emu::Shared<name##_t> name##_s; \
  name##_t& name = name##_s.get()
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emu::block.dynamic)
#define __syncthreads() emu::barrier(__FILE__, __LINE__)

inline void __syncwarp(uint32_t mask = ~0u) { emu::warp_barrier(mask); }

template <class T> T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
  return emu::exchange(mask, value, (emu::lane() & ~(width - 1)) + (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32) {
  const int lane = emu::lane(), source = lane ^ bits;
  return emu::exchange(mask, value, (source & ~(width - 1)) <= (lane & ~(width - 1)) ? source : -1);
}
template <class T> T __shfl_down_sync(uint32_t mask, T value, int by, int width = 32) {
  const int lane = emu::lane(), source = lane + by;
  return emu::exchange(mask, value, (source & ~(width - 1)) == (lane & ~(width - 1)) ? source : -1);
}
template <class T> T __shfl_up_sync(uint32_t mask, T value, int by, int width = 32) {
  const int lane = emu::lane(), source = lane - by;
  return emu::exchange(mask, value, source >= (lane & ~(width - 1)) ? source : -1);
}
inline uint32_t __ballot_sync(uint32_t mask, int vote) {
  struct Vote { int vote; uint32_t result; } mine{vote, 0};
  emu::collective(mask, [](void* const payload[32], uint32_t lanes) {
    uint32_t result = 0;
    for (int lane = 0; lane < 32; lane++) {
      if (lanes >> lane & 1) result |= uint32_t(static_cast<Vote*>(payload[lane])->vote != 0) << lane;
    }
    for (int lane = 0; lane < 32; lane++) if (lanes >> lane & 1) static_cast<Vote*>(payload[lane])->result = result;
  }, &mine);
  return mine.result;
}
inline int __any_sync(uint32_t mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(uint32_t mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

// Atomics of integers, which order nothing else, as on a card.
template <class T> T atomicAdd(T* address, T value) { return __atomic_fetch_add(address, value, __ATOMIC_RELAXED); }
template <class T> T atomicMin(T* address, T value) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < old && !__atomic_compare_exchange_n(address, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return old;
}
template <class T> T atomicCAS(T* address, T expected, T value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence() {}

// The C library declares some of these names for itself, hence macros.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __exp2f(x) exp2f(x)
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdividef(float a, float b) { return a / b; }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(uint32_t(x)); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline float __uint_as_float(uint32_t x) { float y; memcpy(&y, &x, 4); return y; }
inline uint32_t __float_as_uint(float x) { uint32_t y; memcpy(&y, &x, 4); return y; }
template <class T> T __ldg(const T* p) { return *p; }
using std::max;
using std::min;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

/** bfloat16 with the rounding of the card: to nearest, ties to even; every NaN becomes 0x7fff. */
struct __nv_bfloat16 { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// ---- the runtime's functions that context.cu calls ---------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorCapturedEvent = 907,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3, cudaMemcpyDefault = 4 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4, cudaMemPoolAttrReservedMemCurrent, cudaMemPoolAttrReservedMemHigh, cudaMemPoolAttrUsedMemCurrent };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum : unsigned { cudaStreamNonBlocking = 1, cudaEventDefault = 0 };
enum : unsigned { cudaEventRecordDefault = 0, cudaEventRecordExternal = 1, cudaEventWaitDefault = 0, cudaEventWaitExternal = 1 };

namespace emu {
struct Stream;
struct Event;
struct Graph;
} // namespace emu
using cudaStream_t = emu::Stream*;
using cudaEvent_t = emu::Event*;
using cudaGraph_t = emu::Graph*;
using cudaGraphExec_t = emu::Graph*;
using cudaMemPool_t = int*;

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlockOptin;
  int major, minor, multiProcessorCount, maxThreadsPerBlock;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy2DAsync(
  void* to, size_t toPitch, const void* from, size_t fromPitch, size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

namespace emu {

/** Queues a launch after checking it as the strictest card would. */
cudaError_t enqueue(const char* name, const void* kernel, dim3 grid, dim3 size, size_t sharedBytes, cudaStream_t stream,
  std::function<void()> body);

/** Queues a kernel with copies of its arguments, converted to its parameters' types. */
template <class... P, class... A>
cudaError_t launch(
  const char* name, void (*kernel)(P...), dim3 grid, dim3 size, size_t sharedBytes, cudaStream_t stream, A&&... arguments) {
  std::tuple<std::decay_t<P>...> values(std::forward<A>(arguments)...);
  return enqueue(name, reinterpret_cast<const void*>(kernel), grid, size, sharedBytes, stream,
    [kernel, values] { std::apply(kernel, values); });
}

} // namespace emu
