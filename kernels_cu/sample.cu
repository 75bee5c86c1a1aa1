/**
 * Draws one token per row from logits, and lists the most probable ones.
 *
 *   temperature 0: the largest logit, lowest id among equals
 *   else: weights exp((logit - max) / temperature) of the topK largest logits (exactly topK, lowest ids among equals; 0 = all), of these
 *   the smallest set with at least topP of their mass (largest first, lowest ids among equals; 1 = all); with u uniform from
 *   Philox(seed; draw, sample), the first id, in rising order, whose running sum exceeds u times the total.
 *   logprob = log softmax(logits)[id], at temperature 1 over the whole vocabulary.
 *
 * A block computes a row alone, so a row's result does not depend on the others. Weights are integers in units of 2^-40 of the largest:
 * their sums are exact, so threads may add them in any order. A logit and its id make a key of 64 bits, larger where it is preferred;
 * keys differ, so "the topK largest" and "the smallest set of mass" are both the keys from one on, which is found 8 bits at a time by
 * counting or weighing the 256 groups that agree in the bits found so far. The row is read from the L2 cache about ten times.
 */
#include "row_keys.cuh"

namespace {

constexpr int THREADS = ROW_THREADS, WARPS = ROW_WARPS;
constexpr int GROUPS = 256; // of 8 bits
constexpr float UNIT = 1099511627776.0f; // 2^40, the weight of the largest logit
constexpr int MOST_SLOTS = 8192; // of the table of a row's biases in shared memory: 64 KB

/** A row's logits with the biases of its request added. */
struct Logits {
  const float* x;
  const int32_t* ids; // of the table in shared memory: -1 = free
  const float* values;
  int slots;

  __device__ float at(int i) const {
    float v = x[i];
    if (slots == 0) return v;
    for (int slot = i & (slots - 1);; slot = (slot + 1) & (slots - 1)) {
      if (ids[slot] == i) return v + values[slot];
      if (ids[slot] < 0) return v;
    }
  }
};

/** ln of the sum of exp(logit - max) over a row, in f64 in one order. */
__device__ inline double log_total(const float* x, int V, float max, double* slots) {
  double sum = 0;
  for (int i = threadIdx.x; i < V; i += THREADS) sum += double(expf(x[i] - max));
  return log(block_sum(sum, slots));
}

/** The four words of Philox4x32-10 begin with this one (ffi/src/cpu/philox.rs). */
__device__ inline uint32_t philox(u64 seed, uint32_t draw, uint32_t sample) {
  uint32_t x0 = draw, x1 = sample, x2 = 0, x3 = 0, k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    const u64 p = u64(0xd2511f53u) * x0, q = u64(0xcd9e8d57u) * x2;
    x0 = uint32_t(q >> 32) ^ x1 ^ k0;
    x1 = uint32_t(q);
    x2 = uint32_t(p >> 32) ^ x3 ^ k1;
    x3 = uint32_t(p);
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return x0;
}

/** One row's settings and where its columns lie. */
struct Columns {
  const u64* seeds;
  const int32_t *samples, *draws;
  const float* temperatures;
  const int32_t* topK;
  const float* topP;
  const int32_t *biasStarts, *biasIds;
  const float* biasValues;
  int biases;
};

/** Shared memory of a draw. */
struct Draw {
  u64 groups[GROUPS]; // counts or weights
  u64 keys[WARPS];
  u64 sums[WARPS];
  double doubles[WARPS];
  u64 found, rest; // of a pass
};

/** Weight of a logit. */
__device__ inline u64 weight(float logit, float max, float scale) { return u64(expf((logit - max) * scale) * UNIT); }

/**
 * Lowest key of the smallest set of keys >= `floor`, largest first, whose measure reaches `target`: their number, or their weight.
 * The measure of all of them is at least `target`.
 */
template <class Measure>
__device__ u64 threshold(const Logits& row, int V, u64 floor, u64 target, Measure measure, Draw* shared) {
  u64 prefix = 0; // the bits that are found
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < GROUPS; i += THREADS) shared->groups[i] = 0;
    __syncthreads();
    const u64 mask = shift == 56 ? 0 : ~0ull << (shift + 8);
    for (int i = threadIdx.x; i < V; i += THREADS) {
      const float v = row.at(i);
      const u64 key = key_of(v, i);
      if (key >= floor && (key & mask) == prefix) atomicAdd(&shared->groups[key >> shift & 255], measure(v));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      u64 rest = target;
      int group = GROUPS - 1;
      while (group > 0 && shared->groups[group] < rest) rest -= shared->groups[group--];
      shared->found = prefix | u64(group) << shift;
      shared->rest = rest;
    }
    __syncthreads();
    prefix = shared->found;
    target = shared->rest;
    __syncthreads();
  }
  return prefix;
}

/** The first id, rising, at which the running weight of keys >= `floor` exceeds `target`. */
__device__ int walk(const Logits& row, int V, u64 floor, u64 target, float max, float scale, Draw* shared) {
  // Warp w has the ids from w * span on, so that its sum is a range of the running sum.
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, span = (V + WARPS - 1) / WARPS;
  const int begin = warp * span, end = begin + span < V ? begin + span : V;
  const auto weigh = [&](int i) {
    if (i >= end) return u64(0);
    const float v = row.at(i);
    return key_of(v, i) >= floor ? weight(v, max, scale) : 0;
  };
  u64 sum = 0;
  for (int i = begin; i < end; i += WARP) sum += weigh(i + lane);
  sum = warp_sum(sum);
  if (lane == 0) shared->sums[warp] = sum;
  if (threadIdx.x == 0) shared->found = 0;
  __syncthreads();
  u64 before = 0;
  for (int w = 0; w < warp; w++) before += shared->sums[w];
  if (before <= target && target < before + sum) { // one warp
    for (int i = begin; i < end; i += WARP) {
      const u64 own = weigh(i + lane);
      u64 running = own;
      for (int o = 1; o < WARP; o <<= 1) {
        const u64 lower = __shfl_up_sync(ALL_LANES, running, o);
        if (lane >= o) running += lower;
      }
      const uint32_t beyond = __ballot_sync(ALL_LANES, before + running > target);
      if (beyond) {
        if (lane == 0) shared->found = u64(i + __ffs(int(beyond)) - 1);
        break;
      }
      before += __shfl_sync(ALL_LANES, running, WARP - 1);
    }
  }
  __syncthreads();
  const int id = int(shared->found);
  __syncthreads();
  return id;
}

/** Draws an id from a row whose best key is known. */
__device__ int draw(const Logits& row, int V, u64 best, const Columns& c, Draw* shared) {
  const int r = int(blockIdx.x);
  const float temperature = c.temperatures[r];
  if (temperature == 0) return id_of(best);
  const float max = row.at(id_of(best)), scale = 1 / temperature;
  u64 floor = 0;
  const int topK = c.topK[r];
  if (topK > 0 && topK < V) floor = threshold(row, V, 0, u64(topK), [](float) { return u64(1); }, shared);
  const auto mass = [&] {
    u64 sum = 0;
    for (int i = threadIdx.x; i < V; i += THREADS) {
      const float v = row.at(i);
      if (key_of(v, i) >= floor) sum += weight(v, max, scale);
    }
    return block_sum(sum, shared->sums);
  };
  u64 total = mass();
  if (c.topP[r] < 1) {
    const u64 target = u64(ceil(double(c.topP[r]) * double(total)));
    floor = threshold(row, V, floor, target < total ? target : total, [&](float v) { return weight(v, max, scale); }, shared);
    total = mass();
  }
  const u64 u = philox(c.seeds[r], uint32_t(c.draws[r]), uint32_t(c.samples[r])) >> 8; // u / 2^24 in [0, 1)
  const u64 target = (total >> 24) * u + (((total & 0xffffff) * u) >> 24);
  return walk(row, V, floor, target, max, scale, shared);
}

/** Fills the table of a row's biases; values of an id that stands there twice add up, in order. Tells whether they fit. */
__device__ bool tabulate(const Columns& c, int V, int slots, int32_t* ids, float* values, Failure* failure) {
  const int r = int(blockIdx.x), from = c.biasStarts[r], to = c.biasStarts[r + 1];
  if (from < 0 || to < from || to > c.biases || to - from > slots / 4 * 3) {
    report(failure, FAILURE_BIASES, to - from, slots / 4 * 3);
    return false;
  }
  if (from == to) return false;
  for (int i = threadIdx.x; i < slots; i += THREADS) ids[i] = -1, values[i] = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = from; i < to; i++) {
      const int32_t id = c.biasIds[i];
      if (id < 0 || id >= V) {
        report(failure, FAILURE_BIAS_ID, id, V, r);
        continue;
      }
      int slot = id & (slots - 1);
      while (ids[slot] >= 0 && ids[slot] != id) slot = (slot + 1) & (slots - 1);
      ids[slot] = id;
      values[slot] += c.biasValues[i];
    }
  }
  __syncthreads();
  return true;
}

__global__ void __launch_bounds__(THREADS)
  sample_kernel(int32_t* ids, float* logprobs, const float* logits, Columns c, int V, int slots, Failure* failure) {
  SHARED(Draw, shared, [1]);
  DYNAMIC_SHARED(int32_t, table); // ids, then values
  const int r = int(blockIdx.x);
  const float *x = logits + int64_t(r) * V, temperature = c.temperatures[r];
  const bool isValid = temperature >= 0 && temperature < INFINITY && c.topK[r] >= 0 && (temperature == 0 || (c.topP[r] > 0 && c.topP[r] <= 1));
  if (!isValid) {
    if (threadIdx.x == 0) report(failure, FAILURE_SETTING, r, 0);
    return;
  }
  const Logits plain{x, nullptr, nullptr, 0};
  const u64 best = best_key(plain, V, ~0ull, shared->keys, failure);
  if (!(x[id_of(best)] > -INFINITY)) { // NaN, or nothing that could be drawn
    if (threadIdx.x == 0) report(failure, FAILURE_LOGITS, r, 0);
    return;
  }
  float* values = reinterpret_cast<float*>(table + slots);
  const bool isBiased = slots > 0 && tabulate(c, V, slots, table, values, failure);
  const Logits row = isBiased ? Logits{x, table, values, slots} : plain;
  const u64 first = isBiased ? best_key(row, V, ~0ull, shared->keys, failure) : best;
  const int id = draw(row, V, first, c, shared);
  const float max = x[id_of(best)];
  const double total = logprobs ? log_total(x, V, max, shared->doubles) : 0;
  if (threadIdx.x != 0) return;
  ids[r] = id;
  if (logprobs) logprobs[r] = float(double(x[id]) - max - total);
}

__global__ void __launch_bounds__(THREADS)
  top_kernel(int32_t* ids, float* logprobs, const float* logits, const int32_t* counts, int V, int topK, Failure* failure) {
  SHARED(Draw, shared, [1]);
  const int r = int(blockIdx.x), count = counts[r] < topK ? counts[r] : topK;
  if (count <= 0) return;
  const Logits row{logits + int64_t(r) * V, nullptr, nullptr, 0};
  u64 key = best_key(row, V, ~0ull, shared->keys, failure);
  const float max = row.at(id_of(key));
  const double total = log_total(row.x, V, max, shared->doubles);
  for (int i = 0; i < count; i++) {
    if (i > 0) key = best_key(row, V, key, shared->keys, failure);
    if (threadIdx.x != 0) continue;
    ids[int64_t(r) * topK + i] = id_of(key);
    logprobs[int64_t(r) * topK + i] = float(double(row.at(id_of(key))) - max - total);
  }
}

/** Slots for the biases of a row of which all rows together have n: a power of two. */
int slots_for(int n) {
  int slots = n > 0 ? 16 : 0;
  while (slots > 0 && slots < 2 * n && slots < MOST_SLOTS) slots *= 2;
  return slots;
}

} // namespace

int32_t nc_sample(nc_context* ctx, void* ids, void* logprobs, void* logits, void* seeds, void* samples, void* draws, void* temperatures,
  void* topK, void* topP, void* biasStarts, void* biasIds, void* biasValues, int32_t rows, int32_t V, int32_t biases) {
  return entry(ctx, "nc_sample", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), vocabulary = size(V, "V");
    int32_t* out = array<int32_t>(cx, ids, n, "ids");
    float* logs = optional<float>(cx, logprobs, n, "logprobs");
    const float* x = array<float>(cx, logits, n * vocabulary, "logits");
    const int64_t listed = biasStarts ? size(biases, "biases") : 0;
    const Columns columns{
      array<u64>(cx, seeds, n, "seeds"), array<int32_t>(cx, samples, n, "samples"), array<int32_t>(cx, draws, n, "draws"),
      array<float>(cx, temperatures, n, "temperatures"), array<int32_t>(cx, topK, n, "topK"), array<float>(cx, topP, n, "topP"),
      optional<int32_t>(cx, biasStarts, n + 1, "biasStarts"), array<int32_t>(cx, biasIds, listed, "biasIds"),
      array<float>(cx, biasValues, listed, "biasValues"), int(listed),
    };
    if (n == 0) return;
    if (vocabulary == 0) refuse(NC_STATUS_INVALID, "Cannot sample: V is 0, expected at least 1");
    const int slots = slots_for(int(listed));
    launch(cx, "nc_sample", sample_kernel, {unsigned(n), THREADS, size_t(slots) * 8}, out, logs, x, columns, V, slots, cx.failure);
  });
}

int32_t nc_top_logprobs(nc_context* ctx, void* ids, void* logprobs, void* logits, void* counts, int32_t rows, int32_t V, int32_t topK) {
  return entry(ctx, "nc_top_logprobs", [&](Context& cx) {
    const int64_t n = size(rows, "rows"), vocabulary = size(V, "V"), most = size(topK, "topK");
    if (most > vocabulary) refuse(NC_STATUS_INVALID, "Cannot list the best %d ids, expected 0 to V = %d", topK, V);
    int32_t* out = array<int32_t>(cx, ids, n * most, "ids");
    float* logs = array<float>(cx, logprobs, n * most, "logprobs");
    const float* x = array<float>(cx, logits, n * vocabulary, "logits");
    const int32_t* wanted = array<int32_t>(cx, counts, n, "counts");
    if (n * most > 0) launch(cx, "nc_top_logprobs", top_kernel, {unsigned(n), THREADS}, out, logs, x, wanted, V, topK, cx.failure);
  });
}
