/** Entry points of the runtime: devices, memory, copies, streams, events, graphs, timing. */
#include "blas.cuh"

#include <cstdlib>

namespace {

void write_text(void* out, int32_t capacity, const std::string& text) {
  if (capacity <= 0) return;
  size_t length = std::min(text.size(), size_t(capacity) - 1);
  while (length > 0 && length < text.size() && (text[length] & 0xc0) == 0x80) length--; // a character stays whole
  memcpy(out, text.data(), length);
  static_cast<char*>(out)[length] = 0;
}

void write_handle(void* out, const void* handle) {
  const uint64_t address = reinterpret_cast<uint64_t>(handle);
  memcpy(out, &address, sizeof address);
}

/** JSON text of a name that the driver gives. */
std::string quoted(const char* text) {
  std::string out = "\"";
  for (const char* c = text; *c; c++) {
    if (*c == '"' || *c == '\\') out += '\\';
    if (static_cast<unsigned char>(*c) >= 0x20) out += *c;
  }
  return out + '"';
}

std::string dotted(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

/** The pool that the device's memory comes from. */
cudaMemPool_t pool_of(const Context& cx) {
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, cx.device), "find the memory pool");
  return pool;
}

/** Bytes that the pool keeps for allocations to come. */
size_t kept_bytes(const Context& cx) {
  const cudaMemPool_t pool = pool_of(cx);
  uint64_t reserved = 0, used = 0;
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved), "describe the memory pool");
  check(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used), "describe the memory pool");
  return size_t(reserved - used);
}

/** Allocates on the main stream; where there is too little, once more without what the pool keeps. */
cudaError_t allocate(const Context& cx, void** memory, size_t bytes) {
  const cudaError_t error = cudaMallocAsync(memory, bytes, cx.main);
  if (error != cudaErrorMemoryAllocation) return error;
  cudaGetLastError();
  check(cudaStreamSynchronize(cx.main), "finish the queue");
  check(cudaMemPoolTrimTo(pool_of(cx), 0), "empty the memory pool");
  return cudaMallocAsync(memory, bytes, cx.main);
}

/** Opens a device, or says why there is none. */
Context* open(int32_t index) {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (error == cudaErrorInsufficientDriver && driver == 0) {
    refuse(NC_STATUS_UNSUPPORTED, "Cannot open a CUDA device: this machine has no NVIDIA driver, expected one for CUDA %s or newer",
      dotted(runtime).c_str());
  }
  if (error == cudaErrorInsufficientDriver) {
    refuse(NC_STATUS_UNSUPPORTED, "Cannot open a CUDA device: the driver is for CUDA %s, expected %s or newer", dotted(driver).c_str(),
      dotted(runtime).c_str());
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    refuse(NC_STATUS_UNSUPPORTED, "Cannot open a CUDA device: the driver sees none, expected an NVIDIA GPU of compute capability 8.0 or newer");
  }
  check(error, "open a CUDA device");
  if (index < 0 || index >= count) {
    refuse(NC_STATUS_INVALID, "Cannot open CUDA device %d, expected 0 to %d", index, count - 1);
  }
  auto cx = std::make_unique<Context>();
  cx->device = index;
  check(cudaSetDevice(index), "select the device");
  check(cudaGetDeviceProperties(&cx->properties, index), "describe the device");
  if (cx->properties.major < 8) {
    refuse(NC_STATUS_UNSUPPORTED, "Cannot use %s: its compute capability is %d.%d, expected 8.0 or newer", cx->properties.name,
      cx->properties.major, cx->properties.minor);
  }
  check(cudaStreamCreateWithFlags(&cx->main, cudaStreamNonBlocking), "make a stream");
  cx->stream = cx->main;
  uint64_t all = UINT64_MAX; // else each wait would give free memory back to the system
  check(cudaMemPoolSetAttribute(pool_of(*cx), cudaMemPoolAttrReleaseThreshold, &all), "keep free memory");
  check(cudaMallocAsync(reinterpret_cast<void**>(&cx->failure), sizeof(Failure), cx->main), "allocate device memory");
  check(cudaMallocAsync(reinterpret_cast<void**>(&cx->reduction), sizeof(Reduction), cx->main), "allocate device memory");
  check(cudaMallocHost(reinterpret_cast<void**>(&cx->failureHost), sizeof(Failure)), "allocate pinned memory");
  check(cudaMemsetAsync(cx->failure, 0, sizeof(Failure), cx->main), "clear memory");
  check(cudaMemsetAsync(cx->reduction, 0, sizeof(Reduction), cx->main), "clear memory");
  const char* sync = getenv("NC_SYNC");
  cx->synchronous = sync && *sync == '1';
  return cx.release();
}

/** Settles the timings. */
void settle(Context& cx) {
  for (auto& [op, from, to] : cx.timings) {
    float ms = 0;
    check(cudaEventSynchronize(to), "finish an op"); // it may be of another stream
    check(cudaEventElapsedTime(&ms, from, to), "time an op");
    auto& [calls, total] = cx.profile[op];
    calls++;
    total += ms;
    cudaEventDestroy(from);
    cudaEventDestroy(to);
  }
  cx.timings.clear();
}

void check_failure(const Failure& failure) {
  switch (failure.code) {
    case FAILURE_NONE: return;
    case FAILURE_ID:
      refuse(NC_STATUS_PANIC, "Cannot look up an embedding: id %d at position %d, expected 0 to %d", failure.value, failure.position, failure.limit - 1);
    case FAILURE_ROW:
      refuse(NC_STATUS_PANIC, "Cannot gather rows: id %d at position %d, expected 0 to %d", failure.value, failure.position, failure.limit - 1);
    case FAILURE_CACHE_FULL:
      refuse(NC_STATUS_PANIC, "Cannot use the cache: a row has %d tokens, expected at most %d in all", failure.value, failure.limit);
    case FAILURE_COUNT:
      refuse(NC_STATUS_PANIC, "Cannot use the cache: a row has %d new tokens, expected 0 to %d", failure.value, failure.limit);
    case FAILURE_LENGTH:
      refuse(NC_STATUS_PANIC, "Cannot attend: a row has length %d, expected 0 to %d", failure.value, failure.limit);
    case FAILURE_LOGITS:
      refuse(NC_STATUS_NON_FINITE, "Cannot sample row %d: a logit is NaN or +inf, or all are -inf, expected finite ones", failure.value);
    case FAILURE_SETTING:
      refuse(NC_STATUS_INVALID, "Cannot sample row %d: a setting is out of range, expected temperature >= 0, top-k >= 0, 0 < top-p <= 1", failure.value);
    case FAILURE_BIAS_ID:
      refuse(NC_STATUS_INVALID, "Cannot sample row %d: a bias is of id %d, expected 0 to %d", failure.position, failure.value, failure.limit - 1);
    case FAILURE_BIASES: refuse(NC_STATUS_INVALID, "Cannot sample: a row has %d biases, expected at most %d and a range of those given", failure.value, failure.limit);
    case FAILURE_TARGET:
      refuse(NC_STATUS_DATA, "Cannot compute the loss: target %d is %d, expected -1 or an id below %d", failure.position, failure.value, failure.limit);
  }
  refuse(NC_STATUS_PANIC, "Cannot go on: a kernel reports failure %d", failure.code);
}

/** Enqueues a copy of the failure word to the host. */
void read_failure(Context& cx) {
  check(cudaMemcpyAsync(cx.failureHost, cx.failure, sizeof(Failure), cudaMemcpyDeviceToHost, cx.stream), "read the failure word");
}

/** Waits for the stream in use; reports the first failure of a kernel, which stays. */
void wait(Context& cx) {
  if (cx.recording) refuse(NC_STATUS_INVALID, "Cannot wait while a graph is recorded");
  read_failure(cx);
  check(cudaStreamSynchronize(cx.stream), "finish the queue");
  check_failure(*cx.failureHost);
}

/** Pinned memory for an upload: what an earlier one has finished with, else new. */
Context::Staged stage(Context& cx, size_t bytes) {
  for (size_t i = 0; i < cx.staging.size(); i++) {
    Context::Staged& each = cx.staging[i];
    if (each.bytes < bytes || each.bytes > 4 * bytes + 4096) continue;
    const cudaError_t error = cudaEventQuery(each.free);
    if (error == cudaErrorNotReady) {
      cudaGetLastError(); // it is remembered like an error
      continue;
    }
    check(error, "ask for an event");
    const Context::Staged found = each;
    cx.staging.erase(cx.staging.begin() + long(i));
    return found;
  }
  Context::Staged made{nullptr, std::max<size_t>(bytes, 256), nullptr};
  check(cudaMallocHost(&made.memory, made.bytes), "allocate pinned memory");
  check(cudaEventCreateWithFlags(&made.free, cudaEventDefault), "make an event");
  return made;
}

} // namespace

int32_t nc_abi_hash(void* hash) {
  memcpy(hash, NC_ABI_HASH, 32);
  return NC_STATUS_OK;
}

int32_t nc_context_create(void* context, int32_t device, int32_t) {
  struct Arguments { void* out; int32_t device; } arguments{context, device};
  return guarded_orphan([](void* state) {
    const auto& [out, index] = *static_cast<Arguments*>(state);
    write_handle(out, open(index));
  }, &arguments);
}

int32_t nc_context_free(nc_context* ctx) {
  if (!ctx) return control(ctx, "nc_context_free", [](Context&) {});
  cudaSetDevice(ctx->device);
  cudaStreamSynchronize(ctx->main);
  for (const auto& [memory, bytes] : ctx->blocks) cudaFreeAsync(memory, ctx->main);
  for (const auto& [stream, memory] : ctx->workspaces) cudaFreeAsync(memory, ctx->main);
  cudaFreeAsync(ctx->failure, ctx->main);
  cudaFreeAsync(ctx->reduction, ctx->main);
  for (const auto& [memory, bytes] : ctx->pinned) cudaFreeHost(memory);
  for (const auto& each : ctx->staging) {
    cudaEventDestroy(each.free);
    cudaFreeHost(each.memory);
  }
  cudaFreeHost(ctx->failureHost);
  for (const auto& each : ctx->timings) {
    cudaEventDestroy(each.from);
    cudaEventDestroy(each.to);
  }
  cudaStreamDestroy(ctx->main);
  delete ctx;
  return NC_STATUS_OK;
}

int32_t nc_error(nc_context* ctx, void* text, int32_t capacity) {
  write_text(text, capacity, last_error(ctx));
  return NC_STATUS_OK;
}

int32_t nc_device_info(nc_context* ctx, void* text, int32_t capacity) {
  return control(ctx, "nc_device_info", [&](Context& cx) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    const cudaDeviceProp& p = cx.properties;
    char features[200];
    snprintf(features, sizeof features, "\"sm_%d%d\",\"%d multiprocessors\",\"driver for CUDA %s\"", p.major, p.minor, p.multiProcessorCount,
      dotted(driver).c_str());
    write_text(text, capacity, "{\"kind\":\"cuda\",\"name\":" + quoted(p.name) + ",\"features\":[" + features + "," + quoted(blas_feature().c_str()) + "]}");
  });
}

int32_t nc_memory_info(nc_context* ctx, void* info) {
  return control(ctx, "nc_memory_info", [&](Context& cx) {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "ask for the device's memory");
    const int64_t values[] = {cx.allocated, cx.peak, int64_t(total), int64_t(free + kept_bytes(cx))};
    memcpy(info, values, sizeof values);
  });
}

int32_t nc_alloc(nc_context* ctx, void* out, int64_t bytes) {
  return control(ctx, "nc_alloc", [&](Context& cx) {
    if (bytes < 0) refuse(NC_STATUS_INVALID, "Cannot allocate %lld bytes, expected at least 0", (long long)bytes);
    if (cx.recording) refuse(NC_STATUS_INVALID, "Cannot allocate %lld bytes while a graph is recorded", (long long)bytes);
    const size_t whole = bytes > 0 ? size_t(bytes) : 1;
    void* memory = nullptr;
    if (const cudaError_t error = allocate(cx, &memory, whole); error != cudaSuccess) {
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      cudaGetLastError();
      refuse(error == cudaErrorMemoryAllocation ? NC_STATUS_OUT_OF_MEMORY : NC_STATUS_DEVICE,
        "Cannot allocate %lld bytes on the device: %s, %zu bytes are free", (long long)bytes, cudaGetErrorString(error), free);
    }
    check(cudaMemsetAsync(memory, 0, whole, cx.main), "clear memory");
    if (cx.stream != cx.main) check(cudaStreamSynchronize(cx.main), "allocate device memory");
    const std::lock_guard lock(cx.memory);
    cx.blocks[static_cast<char*>(memory)] = whole;
    cx.allocated += int64_t(whole);
    cx.peak = std::max(cx.peak, cx.allocated);
    write_handle(out, memory);
  });
}

int32_t nc_free(nc_context* ctx, void* memory) {
  return control(ctx, "nc_free", [&](Context& cx) {
    bool isPinned = false;
    size_t bytes = 0;
    {
      const std::lock_guard lock(cx.memory);
      isPinned = cx.pinned.count(static_cast<char*>(memory)) > 0;
      auto& table = isPinned ? cx.pinned : cx.blocks;
      const auto found = table.find(static_cast<char*>(memory));
      if (found == table.end()) refuse(NC_STATUS_INVALID, "Cannot free %p: this context did not allocate it", memory);
      bytes = found->second;
      table.erase(found);
      cx.allocated -= isPinned ? 0 : int64_t(bytes);
    }
    if (cx.recording) { // a graph frees only what it allocates; of pinned memory it may still read
      if (isPinned) cx.recordedStaging.emplace_back(memory, bytes);
      else cx.freed.push_back(memory);
      return;
    }
    if (!isPinned) {
      check(cudaFreeAsync(memory, cx.stream), "free device memory");
      return;
    }
    Context::Staged kept{memory, bytes, nullptr}; // for the next upload or read: pinning memory takes the system long
    check(cudaEventCreateWithFlags(&kept.free, cudaEventDefault), "make an event");
    check(cudaEventRecord(kept.free, cx.stream), "record an event");
    cx.staging.push_back(kept);
  });
}

int32_t nc_host_alloc(nc_context* ctx, void* out, int64_t bytes) {
  return control(ctx, "nc_host_alloc", [&](Context& cx) {
    if (bytes < 0) refuse(NC_STATUS_INVALID, "Cannot allocate %lld bytes, expected at least 0", (long long)bytes);
    const Context::Staged staged = stage(cx, size_t(bytes));
    cudaEventDestroy(staged.free);
    memset(staged.memory, 0, staged.bytes);
    const std::lock_guard lock(cx.memory);
    cx.pinned[static_cast<char*>(staged.memory)] = staged.bytes;
    write_handle(out, staged.memory);
  });
}

int32_t nc_host_write(nc_context* ctx, void* host, void* data, int64_t bytes) {
  return control(ctx, "nc_host_write", [&](Context& cx) {
    if (bytes > 0) memcpy(array<char>(cx, host, bytes, "host"), data, size_t(bytes));
  });
}

int32_t nc_host_read(nc_context* ctx, void* data, void* host, int64_t bytes) {
  return control(ctx, "nc_host_read", [&](Context& cx) {
    if (bytes > 0) memcpy(data, array<char>(cx, host, bytes, "host"), size_t(bytes));
  });
}

int32_t nc_upload(nc_context* ctx, void* y, void* data, int64_t bytes) {
  return entry(ctx, "nc_upload", [&](Context& cx) {
    char* to = array<char>(cx, y, bytes, "y");
    if (bytes == 0) return;
    Context::Staged staged = stage(cx, size_t(bytes));
    memcpy(staged.memory, data, size_t(bytes));
    check(cudaMemcpyAsync(to, staged.memory, size_t(bytes), cudaMemcpyHostToDevice, cx.stream), "upload");
    if (cx.recording) { // the graph reads it at each launch
      cudaEventDestroy(staged.free);
      cx.recordedStaging.emplace_back(staged.memory, staged.bytes);
      return;
    }
    check(cudaEventRecord(staged.free, cx.stream), "record an event");
    cx.staging.push_back(staged);
  });
}

int32_t nc_copy(nc_context* ctx, void* y, void* x, int64_t bytes) {
  return entry(ctx, "nc_copy", [&](Context& cx) {
    char* to = array<char>(cx, y, bytes, "y");
    const char* from = array<char>(cx, x, bytes, "x");
    if (bytes > 0) check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDefault, cx.stream), "copy");
  });
}

int32_t nc_copy_2d(nc_context* ctx, void* y, void* x, int64_t rows, int64_t rowBytes, int64_t yStride, int64_t xStride) {
  return entry(ctx, "nc_copy_2d", [&](Context& cx) {
    if (rows < 0 || rowBytes < 0 || yStride < rowBytes || xStride < rowBytes) {
      refuse(NC_STATUS_INVALID, "Cannot copy %lld rows of %lld bytes with strides %lld and %lld, expected strides of at least a row",
        (long long)rows, (long long)rowBytes, (long long)yStride, (long long)xStride);
    }
    if (rows == 0 || rowBytes == 0) return;
    char* to = array<char>(cx, y, (rows - 1) * yStride + rowBytes, "y");
    const char* from = array<char>(cx, x, (rows - 1) * xStride + rowBytes, "x");
    check(cudaMemcpy2DAsync(to, size_t(yStride), from, size_t(xStride), size_t(rowBytes), size_t(rows), cudaMemcpyDefault, cx.stream), "copy");
  });
}

int32_t nc_wait(nc_context* ctx) {
  return control(ctx, "nc_wait", [](Context& cx) { wait(cx); });
}

int32_t nc_stream_create(nc_context* ctx, void* out) {
  return control(ctx, "nc_stream_create", [&](Context&) {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
    write_handle(out, stream);
  });
}

int32_t nc_stream_free(nc_context* ctx, void* stream) {
  return control(ctx, "nc_stream_free", [&](Context& cx) {
    if (cx.stream == static_cast<cudaStream_t>(stream)) cx.stream = cx.main;
    check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "finish a stream");
    if (const auto found = cx.workspaces.find(static_cast<cudaStream_t>(stream)); found != cx.workspaces.end()) {
      check(cudaFreeAsync(found->second, cx.main), "free a workspace");
      cx.workspaces.erase(found);
    }
    check(cudaStreamDestroy(static_cast<cudaStream_t>(stream)), "free a stream");
  });
}

int32_t nc_stream_use(nc_context* ctx, void* stream) {
  return control(ctx, "nc_stream_use", [&](Context& cx) { cx.stream = stream ? static_cast<cudaStream_t>(stream) : cx.main; });
}

int32_t nc_event_create(nc_context* ctx, void* out) {
  return control(ctx, "nc_event_create", [&](Context&) {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDefault), "make an event");
    write_handle(out, event);
  });
}

int32_t nc_event_free(nc_context* ctx, void* event) {
  return control(ctx, "nc_event_free", [&](Context&) { check(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "free an event"); });
}

int32_t nc_event_record(nc_context* ctx, void* event) {
  return control(ctx, "nc_event_record", [&](Context& cx) {
    read_failure(cx); // for nc_event_wait
    const unsigned flags = cx.recording ? cudaEventRecordExternal : cudaEventRecordDefault; // in a graph each launch records it
    check(cudaEventRecordWithFlags(static_cast<cudaEvent_t>(event), cx.stream, flags), "record an event");
  });
}

int32_t nc_event_query(nc_context* ctx, void* event) {
  return control(ctx, "nc_event_query", [&](Context&) {
    const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (error == cudaErrorNotReady) {
      cudaGetLastError();
      refuse(NC_STATUS_NOT_READY, "Cannot report the event: it has not happened yet");
    }
    check(error, "ask for an event");
  });
}

int32_t nc_event_wait(nc_context* ctx, void* event) {
  return control(ctx, "nc_event_wait", [&](Context& cx) {
    check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "wait for an event");
    check_failure(*cx.failureHost);
  });
}

int32_t nc_event_elapsed(nc_context* ctx, void* ms, void* from, void* to) {
  return control(ctx, "nc_event_elapsed", [&](Context&) {
    float elapsed = 0;
    const cudaError_t error = cudaEventElapsedTime(&elapsed, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to));
    if (error != cudaSuccess) {
      cudaGetLastError();
      refuse(NC_STATUS_NOT_READY, "Cannot time two events: %s", error == cudaErrorNotReady ? "one has not happened yet" : "one was never recorded");
    }
    const double value = elapsed;
    memcpy(ms, &value, sizeof value);
  });
}

int32_t nc_stream_wait_event(nc_context* ctx, void* event) {
  return control(ctx, "nc_stream_wait_event", [&](Context& cx) {
    const unsigned flags = cx.recording ? cudaEventWaitExternal : cudaEventWaitDefault;
    check(cudaStreamWaitEvent(cx.stream, static_cast<cudaEvent_t>(event), flags), "wait for an event");
  });
}

int32_t nc_graph_begin(nc_context* ctx) {
  return control(ctx, "nc_graph_begin", [](Context& cx) {
    if (cx.recording) refuse(NC_STATUS_INVALID, "Cannot record a graph: one is being recorded");
    workspace(cx);
    // Relaxed: uploads ask for events and pin memory meanwhile, and the first launch of a kernel loads it.
    check(cudaStreamBeginCapture(cx.stream, cudaStreamCaptureModeRelaxed), "record a graph");
    cx.recording = true;
  });
}

int32_t nc_graph_end(nc_context* ctx, void* out) {
  return control(ctx, "nc_graph_end", [&](Context& cx) {
    if (!cx.recording) refuse(NC_STATUS_INVALID, "Cannot end a graph: none is being recorded");
    cx.recording = false;
    cudaGraph_t graph = nullptr;
    auto recorded = std::make_unique<RecordedGraph>();
    recorded->staging.swap(cx.recordedStaging);
    check(cudaStreamEndCapture(cx.stream, &graph), "end a graph");
    for (void* memory : cx.freed) check(cudaFreeAsync(memory, cx.stream), "free device memory");
    cx.freed.clear();
    const cudaError_t error = cudaGraphInstantiate(&recorded->executable, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "make a graph");
    write_handle(out, recorded.release());
  });
}

int32_t nc_graph_launch(nc_context* ctx, void* graph) {
  return entry(ctx, "nc_graph_launch", [&](Context& cx) {
    if (!graph) refuse(NC_STATUS_INVALID, "Cannot launch a graph: it is null, expected a handle");
    check(cudaGraphLaunch(static_cast<RecordedGraph*>(graph)->executable, cx.stream), "launch a graph");
  });
}

int32_t nc_graph_free(nc_context* ctx, void* graph) {
  return control(ctx, "nc_graph_free", [&](Context& cx) {
    if (!graph) refuse(NC_STATUS_INVALID, "Cannot free a graph: it is null, expected a handle");
    const std::unique_ptr<RecordedGraph> recorded(static_cast<RecordedGraph*>(graph));
    check(cudaStreamSynchronize(cx.stream), "finish a graph");
    check(cudaGraphExecDestroy(recorded->executable), "free a graph");
    for (const auto& [memory, bytes] : recorded->staging) cudaFreeHost(memory);
  });
}

/** No call of this library takes long. */
int32_t nc_progress(nc_context* ctx, void* progress) {
  return control(ctx, "nc_progress", [&](Context&) { memset(progress, 0, 2 * sizeof(int64_t)); });
}

int32_t nc_profile(nc_context* ctx, void* text, int32_t capacity, int32_t mode) {
  return control(ctx, "nc_profile", [&](Context& cx) {
    check(cudaStreamSynchronize(cx.stream), "finish the queue");
    cx.profiling = mode != 0;
    if (!cx.timings.empty()) settle(cx);
    std::string json = "[";
    for (const auto& [op, row] : cx.profile) {
      char each[200];
      snprintf(each, sizeof each, "%s{\"op\":\"%s\",\"calls\":%lld,\"ms\":%.6f}", json.size() > 1 ? "," : "", op.c_str(),
        (long long)row.first, row.second);
      json += each;
    }
    write_text(text, capacity, json + "]");
    if (mode == 1) cx.profile.clear();
  });
}
