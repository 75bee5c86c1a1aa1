/** The context: errors, checks of memory, what happens before and after a launch, timing. */
#include "context.cuh"

#include <cstdlib>
#include <exception>

namespace {
std::mutex orphanLock;
std::string orphan; // message of the last entry point that had no context to keep it in
} // namespace

void refuse(int32_t status, const char* format, ...) {
  char text[1000];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error{status, text};
}

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  const std::string what = cudaGetErrorString(error);
  cudaGetLastError(); // it would be reported again by the next launch
  const int32_t status = error == cudaErrorMemoryAllocation ? NC_STATUS_OUT_OF_MEMORY : NC_STATUS_DEVICE;
  throw Error{status, std::string("Cannot ") + doing + ": " + what};
}

int64_t size(int32_t value, const char* name) {
  if (value < 0) refuse(NC_STATUS_INVALID, "Cannot use a size: %s is %d, expected at least 0", name, value);
  return value;
}

char* workspace(Context& cx) {
  char*& memory = cx.workspaces[cx.stream];
  if (memory) return memory;
  if (cx.recording) refuse(NC_STATUS_INVALID, "Cannot use a workspace: the stream in use has none yet, and a graph is recorded");
  void* made = nullptr;
  check(cudaMallocAsync(&made, WORKSPACE_BYTES, cx.stream), "allocate a workspace");
  return memory = static_cast<char*>(made);
}

void nc_context::checkMemory(const void* address, int64_t bytes, const char* name) {
  if (bytes < 0) refuse(NC_STATUS_INVALID, "Cannot use %s: it has %lld bytes, expected at least 0", name, (long long)bytes);
  if (bytes == 0) return;
  if (!address) refuse(NC_STATUS_INVALID, "Cannot use %s: it is null, expected memory of this context", name);
  const std::lock_guard lock(memory);
  char* at = static_cast<char*>(const_cast<void*>(address));
  for (const auto* table : {&blocks, &pinned}) {
    auto above = table->upper_bound(at);
    if (above == table->begin()) continue;
    --above;
    if (at + bytes <= above->first + above->second) return;
  }
  refuse(NC_STATUS_INVALID, "Cannot use %s: %lld bytes at %p are not inside memory of this context", name, (long long)bytes, address);
}

void before_launch(Context& cx, const void* kernel, const Shape& shape, const char* name) {
  if (shape.sharedBytes > cx.properties.sharedMemPerBlockOptin) {
    refuse(NC_STATUS_UNSUPPORTED, "Cannot launch %s: it needs %zu bytes of shared memory a block, this device has %zu", name,
      shape.sharedBytes, size_t(cx.properties.sharedMemPerBlockOptin));
  }
  if (shape.sharedBytes > 48 << 10) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.sharedBytes)), name);
  }
}

void after_launch(Context& cx, cudaError_t error, const char* name) {
  check(error, (std::string("launch ") + name).c_str());
  if (cx.synchronous && !cx.recording) check(cudaStreamSynchronize(cx.stream), (std::string("run ") + name).c_str());
}

int32_t guarded(Context* cx, const char* name, void (*body)(void*, Context&), void* state, bool isOp) {
  std::string message;
  int32_t status = NC_STATUS_OK;
  try {
    if (!cx) refuse(NC_STATUS_INVALID, "Cannot run: context is null, expected a handle");
    check(cudaSetDevice(cx->device), "select the device");
    const bool timed = isOp && cx->profiling && !cx->recording;
    Context::Timing timing{name, nullptr, nullptr};
    if (timed) {
      check(cudaEventCreateWithFlags(&timing.from, cudaEventDefault), "make an event");
      check(cudaEventCreateWithFlags(&timing.to, cudaEventDefault), "make an event");
      check(cudaEventRecord(timing.from, cx->stream), "record an event");
    }
    body(state, *cx);
    if (timed) {
      check(cudaEventRecord(timing.to, cx->stream), "record an event");
      cx->timings.push_back(timing);
    }
  } catch (const Error& error) {
    status = error.status;
    message = error.message;
  } catch (const std::bad_alloc&) {
    status = NC_STATUS_OUT_OF_MEMORY;
    message = std::string("Cannot run ") + name + ": the host has no memory left";
  } catch (const std::exception& error) {
    status = NC_STATUS_PANIC;
    message = std::string("Cannot run ") + name + ": " + error.what();
  }
  if (status != NC_STATUS_OK) {
    const std::lock_guard lock(cx ? cx->errorLock : orphanLock);
    (cx ? cx->error : orphan) = message;
  }
  return status;
}

int32_t guarded_orphan(void (*body)(void*), void* state) {
  try {
    body(state);
    return NC_STATUS_OK;
  } catch (const Error& error) {
    const std::lock_guard lock(orphanLock);
    orphan = error.message;
    return error.status;
  } catch (const std::exception& error) {
    const std::lock_guard lock(orphanLock);
    orphan = std::string("Cannot open the device: ") + error.what();
    return NC_STATUS_PANIC;
  }
}

std::string last_error(Context* cx) {
  const std::lock_guard lock(cx ? cx->errorLock : orphanLock);
  return cx ? cx->error : orphan;
}
