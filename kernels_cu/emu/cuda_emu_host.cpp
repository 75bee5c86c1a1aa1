/**
 * The runtime's side of the emulation: memory, streams, events and graphs.
 *
 * A stream is a queue of work that runs when somebody waits for it, and no sooner: code that reads a result without waiting, or changes
 * pinned memory too early, gets wrong results here although it may be lucky on a card. A wait for an event runs the other stream just
 * as far as the event. While a thread captures, what the runtime forbids there fails and spoils the capture. Launches are checked against the smallest card: 1,024 threads, 65,535 blocks in y and z, EMU_SHARED_BYTES of
 * shared memory (99 KB), of which more than 48 KB must be asked for.
 */
#include "cuda_emu.h"

#include <sys/sysinfo.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

using Work = std::function<void()>;
using Clock = std::chrono::steady_clock;

struct Graph {
  std::vector<Work> work;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed; // of its capture
  bool isSpoiled = false;
};

struct Stream {
  std::deque<Work> queue;
  std::unique_ptr<Graph> capture; // while it records
};

struct Event {
  uint64_t recorded = 0, happened = 0;
  Stream* stream = nullptr; // of the last record
  bool isCaptured = false; // the last record is part of a capture
  Clock::time_point at;
};

namespace {

constexpr size_t GUARD_BYTES = 256; // around device memory
constexpr unsigned char GUARD = 0xa5;

std::recursive_mutex executing; // one piece of work runs at a time
std::mutex queues; // guards everything below
std::set<Stream*> streams;
std::map<char*, size_t> device, pinned;
std::map<const void*, size_t> asked; // shared memory that a kernel may have beyond 48 KB
std::string failure; // of the first piece of work that failed
thread_local cudaError_t lastError = cudaSuccess;
thread_local Graph* capturing = nullptr; // what this thread captures

size_t sharedLimit() {
  static const size_t limit = [] {
    const char* text = getenv("EMU_SHARED_BYTES");
    return text && *text ? size_t(atoll(text)) : size_t(99) << 10;
  }();
  return limit;
}

cudaError_t refuse(cudaError_t error, const std::string& why) {
  fprintf(stderr, "emulated CUDA: %s\n", why.c_str());
  return lastError = error;
}

/** Refuses, during a capture that is not relaxed, a call that may wait for the device. */
cudaError_t unsafe(const char* call) {
  if (!capturing || capturing->mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  capturing->isSpoiled = true;
  return refuse(cudaErrorStreamCaptureUnsupported, std::string(call) + " during a capture that is not relaxed");
}

/** Refuses to look at an event that belongs to a capture. */
cudaError_t captured(const Event* event) {
  return event->isCaptured ? refuse(cudaErrorCapturedEvent, "an event of a capture is asked for outside of it") : cudaSuccess;
}

void push(Stream* stream, Work work) {
  const std::lock_guard lock(queues);
  if (stream->capture) stream->capture->work.push_back(std::move(work));
  else stream->queue.push_back(std::move(work));
}

/** Runs the first piece of work of a stream; false where there is none. */
bool runOne(Stream* stream) {
  const std::lock_guard run(executing);
  Work work;
  {
    const std::lock_guard lock(queues);
    if (stream->queue.empty()) return false;
    work = std::move(stream->queue.front());
    stream->queue.pop_front();
    if (!failure.empty()) return true; // as on a card, nothing runs behind a failure
  }
  try {
    work();
  } catch (const std::exception& error) {
    const std::lock_guard lock(queues);
    failure = error.what();
    fprintf(stderr, "emulated CUDA: %s\n", failure.c_str());
  }
  return true;
}

cudaError_t state() {
  const std::lock_guard lock(queues);
  return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

/** Runs a stream until a record of an event has happened. */
void runUntil(Event* event, uint64_t record) {
  while (event->happened < record && runOne(event->stream)) {}
}

bool isGuarded(const char* at) {
  for (size_t i = 0; i < GUARD_BYTES; i++) if (static_cast<unsigned char>(at[i]) != GUARD) return false;
  return true;
}

char* allocate(size_t bytes) {
  const size_t whole = (bytes + 2 * GUARD_BYTES + 255) / 256 * 256;
  char* base = static_cast<char*>(aligned_alloc(256, whole));
  if (!base) return nullptr;
  memset(base, GUARD, GUARD_BYTES);
  memset(base + GUARD_BYTES, 0xff, bytes);
  memset(base + GUARD_BYTES + bytes, GUARD, GUARD_BYTES);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(base, GUARD_BYTES);
  __asan_poison_memory_region(base + GUARD_BYTES + bytes, GUARD_BYTES);
#endif
  return base + GUARD_BYTES;
}

void release(char* memory, size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(memory - GUARD_BYTES, bytes + 2 * GUARD_BYTES);
#endif
  const bool whole = isGuarded(memory - GUARD_BYTES) && isGuarded(memory + bytes);
  free(memory - GUARD_BYTES);
  if (!whole) throw std::runtime_error("something wrote outside a block of " + std::to_string(bytes) + " bytes of device memory");
}

bool isPinned(const void* memory) {
  const std::lock_guard lock(queues);
  const char* at = static_cast<const char*>(memory);
  auto above = pinned.upper_bound(const_cast<char*>(at));
  if (above == pinned.begin()) return false;
  --above;
  return at < above->first + above->second;
}

bool isDevice(const void* memory) {
  const std::lock_guard lock(queues);
  const char* at = static_cast<const char*>(memory);
  auto above = device.upper_bound(const_cast<char*>(at));
  if (above == device.begin()) return false;
  --above;
  return at < above->first + above->second;
}

} // namespace

cudaError_t enqueue(const char* name, const void* kernel, dim3 grid, dim3 size, size_t sharedBytes, cudaStream_t stream, Work body) {
  const std::string what = name;
  const uint64_t threads = uint64_t(size.x) * size.y * size.z;
  if (threads == 0 || threads > 1024 || size.z > 64) return refuse(cudaErrorInvalidValue, what + ": a block of " + std::to_string(threads) + " threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return refuse(cudaErrorInvalidValue,
      what + ": a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) + " blocks");
  }
  size_t allowed = 48 << 10;
  {
    const std::lock_guard lock(queues);
    if (auto found = asked.find(kernel); found != asked.end()) allowed = found->second;
  }
  if (capturing && capturing->isSpoiled) return lastError = cudaErrorStreamCaptureInvalidated;
  if (sharedBytes > allowed) {
    return refuse(cudaErrorInvalidValue, what + ": " + std::to_string(sharedBytes) + " bytes of shared memory, of which " + std::to_string(allowed) + " were asked for");
  }
  push(stream, [what, grid, size, sharedBytes, body = std::move(body)] { run(what.c_str(), grid, size, sharedBytes, body); });
  return cudaSuccess;
}

} // namespace emu

using namespace emu;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : refuse(cudaErrorInvalidDevice, "there is one device"); }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  struct sysinfo info;
  sysinfo(&info);
  *free = size_t(info.freeram + info.bufferram) * info.mem_unit;
  *total = size_t(info.totalram) * info.mem_unit;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  snprintf(properties->name, sizeof properties->name, "emulated CUDA device");
  size_t free;
  cudaMemGetInfo(&free, &properties->totalGlobalMem);
  properties->sharedMemPerBlockOptin = sharedLimit();
  properties->major = 8;
  properties->minor = 0;
  properties->multiProcessorCount = 4; // few, so that grids are cut as on a large card
  properties->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream) {
  if (stream->capture) return refuse(cudaErrorStreamCaptureUnsupported, "memory is allocated by a graph, which owns it then");
  char* block = allocate(bytes);
  if (!block) return lastError = cudaErrorMemoryAllocation;
  const std::lock_guard lock(queues);
  device[block] = bytes;
  *memory = block;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  if (stream->capture) return refuse(cudaErrorInvalidValue, "a graph frees memory that it did not allocate");
  push(stream, [memory] {
    size_t bytes;
    {
      const std::lock_guard lock(queues);
      const auto found = device.find(static_cast<char*>(memory));
      if (found == device.end()) throw std::runtime_error("memory is freed that is not allocated");
      bytes = found->second;
      device.erase(found);
    }
    release(static_cast<char*>(memory), bytes);
  });
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  static int only;
  *pool = &only;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) { // nothing is kept
  memset(value, 0, sizeof(uint64_t));
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return unsafe("cudaMemPoolTrimTo"); }
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (const cudaError_t error = unsafe("cudaMallocHost"); error != cudaSuccess) return error;
  char* block = allocate(bytes);
  if (!block) return lastError = cudaErrorMemoryAllocation;
  const std::lock_guard lock(queues);
  pinned[block] = bytes;
  *memory = block;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  if (const cudaError_t error = unsafe("cudaFreeHost"); error != cudaSuccess) return error;
  size_t bytes;
  {
    const std::lock_guard lock(queues);
    const auto found = pinned.find(static_cast<char*>(memory));
    if (found == pinned.end()) return lastError = cudaErrorInvalidValue;
    bytes = found->second;
    pinned.erase(found);
  }
  release(static_cast<char*>(memory), bytes);
  return cudaSuccess;
}

/** Pageable memory is read at once, and written only after a wait; pinned memory when the copy runs. */
cudaError_t cudaMemcpy2DAsync(
  void* to, size_t toPitch, const void* from, size_t fromPitch, size_t width, size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (stream->capture && ((!isDevice(from) && !isPinned(from)) || (!isDevice(to) && !isPinned(to)))) {
    return refuse(cudaErrorStreamCaptureUnsupported, "a copy between pageable memory is captured");
  }
  const auto copy = [](char* to, size_t toPitch, const char* from, size_t fromPitch, size_t width, size_t height) {
    for (size_t row = 0; row < height; row++) memcpy(to + row * toPitch, from + row * fromPitch, width);
  };
  const auto* source = static_cast<const char*>(from);
  auto* target = static_cast<char*>(to);
  if (!isDevice(from) && !isPinned(from)) {
    std::vector<char> kept(width * height);
    copy(kept.data(), width, source, fromPitch, width, height);
    push(stream, [=, kept = std::move(kept)] { copy(target, toPitch, kept.data(), width, width, height); });
    return cudaSuccess;
  }
  push(stream, [=] { copy(target, toPitch, source, fromPitch, width, height); });
  return isDevice(to) || isPinned(to) ? cudaSuccess : cudaStreamSynchronize(stream);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  push(stream, [=] { memset(memory, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new Stream;
  const std::lock_guard lock(queues);
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  cudaStreamSynchronize(stream);
  {
    const std::lock_guard lock(queues);
    streams.erase(stream);
  }
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture) {
    stream->capture->isSpoiled = true;
    return refuse(cudaErrorStreamCaptureUnsupported, "a stream is waited for while it is captured");
  }
  if (const cudaError_t error = unsafe("cudaStreamSynchronize"); error != cudaSuccess) return error;
  while (runOne(stream)) {}
  return state();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  if (stream->capture && flags == cudaEventWaitExternal) {
    push(stream, [event] { runUntil(event, event->recorded); });
    return cudaSuccess;
  }
  if (stream->capture && !event->isCaptured) {
    return refuse(cudaErrorStreamCaptureIsolation, "a capture waits for an event from outside of it");
  }
  if (event->recorded == 0 || event->stream == stream) return cudaSuccess; // in order anyway
  push(stream, [event, record = event->recorded] { runUntil(event, record); });
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const std::lock_guard lock(queues);
  if (stream->capture) return lastError = cudaErrorStreamCaptureInvalidated;
  stream->capture = std::make_unique<Graph>();
  stream->capture->mode = mode;
  capturing = stream->capture.get();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(queues);
  if (!stream->capture) return lastError = cudaErrorStreamCaptureInvalidated;
  capturing = nullptr;
  if (stream->capture->isSpoiled) {
    stream->capture.reset();
    return refuse(cudaErrorStreamCaptureInvalidated, "a capture was spoiled by a call that is forbidden in it");
  }
  *graph = stream->capture.release();
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (event->happened < event->recorded) runUntil(event, event->recorded);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault); }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  event->stream = stream;
  event->isCaptured = stream->capture && flags == cudaEventRecordDefault;
  if (event->isCaptured) return cudaSuccess; // it orders the work of a capture, which has an order here
  if (stream->capture) { // each launch of the graph records it
    push(stream, [event] {
      event->happened = ++event->recorded;
      event->at = Clock::now();
    });
    return cudaSuccess;
  }
  const uint64_t record = ++event->recorded;
  push(stream, [event, record] {
    event->happened = std::max(event->happened, record);
    event->at = Clock::now();
  });
  return cudaSuccess;
}
/** Runs one piece of work first, so that whoever asks again and again gets there. */
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t error = unsafe("cudaEventQuery"); error != cudaSuccess) return error;
  if (const cudaError_t error = captured(event); error != cudaSuccess) return error;
  if (event->happened < event->recorded) runOne(event->stream);
  if (const cudaError_t error = state(); error != cudaSuccess) return error;
  return event->happened < event->recorded ? lastError = cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t error = unsafe("cudaEventSynchronize"); error != cudaSuccess) return error;
  if (const cudaError_t error = captured(event); error != cudaSuccess) return error;
  if (event->recorded > 0) runUntil(event, event->recorded);
  return state();
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  for (const Event* event : {from, to}) if (const cudaError_t error = captured(event); error != cudaSuccess) return error;
  if (from->recorded == 0 || to->recorded == 0) return lastError = cudaErrorInvalidValue;
  if (from->happened < from->recorded || to->happened < to->recorded) return cudaErrorNotReady;
  *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const Work& work : executable->work) push(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (size_t(value) > sharedLimit()) {
    return refuse(cudaErrorInvalidValue, std::to_string(value) + " bytes of shared memory, of which the smallest card has " + std::to_string(sharedLimit()));
  }
  const std::lock_guard lock(queues);
  asked[kernel] = size_t(value);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = lastError;
  lastError = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) {
    const std::lock_guard lock(queues);
    static thread_local std::string text;
    text = failure;
    return text.c_str();
  }
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: return "unknown error";
  }
}
