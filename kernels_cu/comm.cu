/** Collective operations: so far a world of one rank, in which every collective is a copy. */
#include "context.cuh"

namespace {

/** The communicator of the one rank. */
struct Alone {
  uint64_t magic;
  static constexpr uint64_t MAGIC = 0x6e63636f6d6d3031;
};

void check_comm(void* comm) {
  if (!comm || static_cast<Alone*>(comm)->magic != Alone::MAGIC) {
    refuse(NC_STATUS_INVALID, "Cannot use comm: not a live handle of its kind");
  }
}

int64_t element_bytes(int32_t dtype) {
  switch (dtype) {
    case NC_DTYPE_F32: case NC_DTYPE_I32: return 4;
    case NC_DTYPE_BF16: case NC_DTYPE_F16: case NC_DTYPE_U16: return 2;
    case NC_DTYPE_I8: case NC_DTYPE_E4M3: case NC_DTYPE_E5M2: return 1;
  }
  refuse(NC_STATUS_INVALID, "Cannot use dtype %d, expected one of the interface", dtype);
}

int32_t copy(Context* ctx, const char* name, void* comm, void* y, void* x, int64_t n, int32_t dtype) {
  return entry(ctx, name, [&](Context& cx) {
    check_comm(comm);
    const int64_t bytes = n * element_bytes(dtype);
    char *to = array<char>(cx, y, bytes, "y"), *from = array<char>(cx, x, bytes, "x");
    if (bytes > 0 && to != from) check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDefault, cx.stream), "copy");
  });
}

} // namespace

int32_t nc_comm_create(nc_context* ctx, void* out, void*, int32_t, int32_t rank, int32_t world, int32_t kind) {
  return entry(ctx, "nc_comm_create", [&](Context&) {
    if (kind != NC_COMM_SELF || world > 1) {
      refuse(NC_STATUS_UNSUPPORTED,
        "Cannot join %d ranks by communicator kind %d: this library offers a world of one rank, expected kind %d (self) and world 1", world,
        kind, NC_COMM_SELF);
    }
    if (world != 1 || rank != 0) refuse(NC_STATUS_INVALID, "Cannot be rank %d of %d, expected rank 0 of 1", rank, world);
    const uint64_t address = reinterpret_cast<uint64_t>(new Alone{Alone::MAGIC});
    memcpy(out, &address, sizeof address);
  });
}

int32_t nc_comm_free(nc_context* ctx, void* comm) {
  return entry(ctx, "nc_comm_free", [&](Context&) {
    check_comm(comm);
    delete static_cast<Alone*>(comm);
  });
}

int32_t nc_all_reduce(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t, int32_t dtype) {
  return copy(ctx, "nc_all_reduce", comm, y, x, n, dtype);
}

int32_t nc_reduce_scatter(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t, int32_t dtype) {
  return copy(ctx, "nc_reduce_scatter", comm, y, x, n, dtype);
}

int32_t nc_all_gather(nc_context* ctx, void* comm, void* y, void* x, int64_t n, int32_t dtype) {
  return copy(ctx, "nc_all_gather", comm, y, x, n, dtype);
}

int32_t nc_broadcast(nc_context* ctx, void* comm, void* y, int64_t n, int32_t root, int32_t dtype) {
  if (root != 0) {
    return entry(ctx, "nc_broadcast", [&](Context&) {
      refuse(NC_STATUS_INVALID, "Cannot broadcast from rank %d, expected rank 0 of 1", root);
    });
  }
  return copy(ctx, "nc_broadcast", comm, y, y, n, dtype);
}

int32_t nc_barrier(nc_context* ctx, void* comm) {
  return entry(ctx, "nc_barrier", [&](Context&) { check_comm(comm); });
}
