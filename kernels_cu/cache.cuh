/** How full the rows of a key/value cache are, and how many new tokens a call brings. */
#pragma once
#include "context.cuh"

struct Progress {
  const int32_t *positions, *counts; // (B)
  int T, capacity;

  Progress(Context& cx, void* positions, void* counts, int B, int T, int capacity)
      : positions(array<int32_t>(cx, positions, B, "positions")), counts(array<int32_t>(cx, counts, B, "counts")), T(T), capacity(capacity) {
    size(T, "T"), size(capacity, "capacity");
  }

  /** Position of row b's first new token. */
  __device__ int position(int b) const { return positions[b]; }

  /** New tokens of row b; where they are too many, `reports` says whether this thread reports it, and they count as none. */
  __device__ int count(int b, Failure* failure, bool reports) const {
    const int count = counts[b], position = positions[b];
    const bool possible = count >= 0 && count <= T;
    if (possible && (count == 0 || (position >= 0 && position <= capacity - count))) return count;
    if (reports && possible) report(failure, FAILURE_CACHE_FULL, int(min(int64_t(position) + count, int64_t(0x7fffffff))), capacity);
    else if (reports) report(failure, FAILURE_COUNT, count, T);
    return 0;
  }
};
