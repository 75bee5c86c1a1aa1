/**
 * Runs the blocks of a launch: threads as fibers with stacks of their own, switched by hand, in an order that EMU_ORDER chooses.
 *
 * A pass lets every thread that may go on run until it gives way. Then warps whose collective is complete are resolved, and the barrier
 * opens once every thread stands at it. Where nothing can go on, the block is in a deadlock, which is reported. With EMU_ORDER=warps a
 * pass takes each warp as far as it gets, over its collectives, before the next one starts.
 */
#include "cuda_emu.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

Block block;

namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 64; // behind dynamic shared memory
constexpr unsigned char GUARD = 0xa5;

extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emu_switch,.-emu_switch
)");

std::vector<std::unique_ptr<Fiber>> pool; // fibers are kept: making their stacks is what costs
std::vector<Fiber*> fibers; // of the block, by thread
void* scheduler = nullptr; // stack pointer of `run`
const std::function<void()>* body = nullptr;
const char* kernel = "";
std::string failure; // the first one; a fiber cannot throw through the scheduler
#if defined(EMU_TSAN)
void* schedulerFiber = nullptr;
char schedulerClock; // what the scheduler did is known to its fibers, but not the other way round: that would order them
char clocks[2]; // of barriers
#endif
#if defined(__SANITIZE_ADDRESS__)
const void* schedulerStack = nullptr;
size_t schedulerStackBytes = 0;
#endif

void enter(Fiber& fiber) {
  block.fiber = &fiber;
#if defined(EMU_TSAN)
  __tsan_release(&schedulerClock);
  __tsan_switch_to_fiber(fiber.sanitizer, 1); // 1: the switch itself orders nothing
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack, STACK_BYTES);
#endif
  emu_switch(&scheduler, fiber.sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void leave(Fiber& fiber) {
#if defined(EMU_TSAN)
  if (fiber.wait == Wait::DONE) __tsan_release(&fiber);
  __tsan_switch_to_fiber(schedulerFiber, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fiber.wait == Wait::DONE ? nullptr : &fiber.sanitizer, schedulerStack, schedulerStackBytes);
#endif
  emu_switch(&fiber.sp, scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.sanitizer, nullptr, nullptr);
#endif
#if defined(EMU_TSAN)
  __tsan_acquire(&schedulerClock);
#endif
}

void entry() {
#if defined(EMU_TSAN)
  __tsan_acquire(&schedulerClock);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &schedulerStack, &schedulerStackBytes);
#endif
  try {
    (*body)();
  } catch (const std::exception& error) { // it cannot unwind into the scheduler, whose stack is another one
    failure = error.what();
  }
  block.fiber->wait = Wait::DONE;
  leave(*block.fiber);
  abort(); // nobody returns to a thread that has ended
}

std::string where(const Fiber& fiber) {
  char text[160];
  snprintf(text, sizeof text, "block (%u, %u, %u), thread %u", block.index.x, block.index.y, block.index.z, fiber.tid);
  return text;
}

void start(Fiber& fiber, unsigned tid) {
  void** sp = reinterpret_cast<void**>(fiber.stack + STACK_BYTES);
  *--sp = nullptr; // keeps the stack aligned as a call would
  *--sp = reinterpret_cast<void*>(&entry);
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  fiber.sp = sp;
  fiber.wait = Wait::NONE;
  fiber.tid = tid;
  fiber.copies.assign(1, {});
  fiber.index = dim3(tid % block.size.x, tid / block.size.x % block.size.y, tid / (block.size.x * block.size.y));
  fiber.barriers = fiber.warpBarriers = 0;
#if defined(EMU_TSAN)
  if (!fiber.sanitizer) fiber.sanitizer = __tsan_create_fiber(0);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, STACK_BYTES); // the frame of the thread before, which never returned
#endif
}

/** Resolves the collectives of a warp whose lanes have all come; tells whether there was one. */
bool resolveWarp(size_t first) {
  bool resolved = false;
  const size_t end = std::min(first + 32, fibers.size());
  for (size_t i = first; i < end; i++) {
    Fiber& fiber = *fibers[i];
    if (fiber.wait != Wait::WARP) continue;
    if (!(fiber.mask >> (i - first) & 1)) fail("a collective has mask %08x, in which its own lane is not", fiber.mask);
    const uint32_t whole = end - first == 32 ? ~0u : (1u << (end - first)) - 1;
    const uint32_t mask = fiber.mask & whole; // a mask may name lanes beyond a small block
    void* payload[32] = {};
    bool complete = true;
    for (size_t lane = 0; lane < end - first; lane++) {
      if (!(mask >> lane & 1)) continue;
      const Fiber& other = *fibers[first + lane];
      if (other.wait == Wait::DONE) {
        fail("a collective has mask %08x, but lane %zu has ended (%s)", fiber.mask, lane, where(other).c_str());
      }
      if (other.wait != Wait::WARP) complete = false;
      else if (other.mask != fiber.mask || other.resolve != fiber.resolve) {
        fail("lanes %zu and %zu meet in different collectives or masks (%08x, %08x)", i - first, lane, fiber.mask, other.mask);
      }
      payload[lane] = other.payload;
    }
    if (!complete) continue;
    {
      const Unseen unseen;
      fiber.resolve(payload, mask);
    }
    for (size_t lane = 0; lane < end - first; lane++) {
      if (mask >> lane & 1) fibers[first + lane]->wait = Wait::NONE;
    }
    resolved = true;
  }
  return resolved;
}

/** Opens the barrier if all threads stand at it. */
bool openBarrier() {
  size_t waiting = 0;
  for (const Fiber* fiber : fibers) waiting += fiber->wait == Wait::BARRIER;
  if (waiting < fibers.size()) return false;
  for (const Fiber* fiber : fibers) {
    if (fiber->line != fibers[0]->line || fiber->file != fibers[0]->file) {
      fail("threads meet at different barriers: %s:%d and %s:%d", fibers[0]->file, fibers[0]->line, fiber->file, fiber->line);
    }
  }
  for (Fiber* fiber : fibers) fiber->wait = Wait::NONE;
  return true;
}

void deadlock() {
  for (const Fiber* fiber : fibers) {
    if (fiber->wait == Wait::BARRIER) {
      fail("%s waits at %s:%d for threads that never come", where(*fiber).c_str(), fiber->file, fiber->line);
    }
  }
  for (const Fiber* fiber : fibers) {
    if (fiber->wait == Wait::WARP) {
      fail("%s waits in a collective of mask %08x for lanes that never come", where(*fiber).c_str(), fiber->mask);
    }
  }
}

/** What EMU_ORDER says: the numbers of threads and blocks, and whether a warp runs as far as it can before the next one. */
struct Order {
  bool reversed = false, shuffled = false, byWarps = false;
  unsigned seed = 0;
};

const Order& chosenOrder() {
  static const Order order = [] {
    const char* text = getenv("EMU_ORDER");
    const std::string name = text ? text : "";
    Order chosen;
    chosen.reversed = name == "reverse";
    chosen.byWarps = name.rfind("warps", 0) == 0;
    chosen.shuffled = name.rfind("shuffle:", 0) == 0 || name.rfind("warps:", 0) == 0;
    if (chosen.shuffled) chosen.seed = unsigned(atoi(name.c_str() + name.find(':') + 1));
    return chosen;
  }();
  return order;
}

/** Runs those of the threads that may go on, until each gives way; tells whether there was one. */
bool runThreads(const unsigned* threads, size_t n) {
  bool ran = false;
  for (size_t i = 0; i < n; i++) {
    if (fibers[threads[i]]->wait != Wait::NONE) continue;
    enter(*fibers[threads[i]]);
    if (!failure.empty()) throw std::runtime_error(failure);
    ran = true;
  }
  return ran;
}

void runBlock(const std::vector<unsigned>& order) {
  for (size_t i = 0; i < fibers.size(); i++) start(*fibers[i], unsigned(i));
  for (;;) {
    bool ran = false, resolved = false;
    if (chosenOrder().byWarps) { // the order keeps the lanes of a warp together
      for (size_t i = 0; i < order.size(); i += 32) {
        do ran |= runThreads(&order[i], std::min<size_t>(32, order.size() - i));
        while (resolveWarp(order[i] & ~31u));
      }
    } else {
      ran = runThreads(order.data(), order.size());
      for (size_t first = 0; first < fibers.size(); first += 32) resolved |= resolveWarp(first);
    }
    if (resolved || openBarrier()) continue;
    if (std::all_of(fibers.begin(), fibers.end(), [](const Fiber* fiber) { return fiber->wait == Wait::DONE; })) break;
    if (!ran) deadlock();
  }
  for (const Fiber* fiber : fibers) {
#if defined(EMU_TSAN)
    __tsan_acquire(const_cast<Fiber*>(fiber)); // the next block comes behind this one
#endif
    if (fiber->copies.size() > 1 || !fiber->copies.front().empty()) fail("%s ends with copies under way", where(*fiber).c_str());
  }
}

/** The numbers below n in the order that EMU_ORDER asks for; by warps, threads stay within theirs. */
template <class T> std::vector<T> ordered(size_t n, bool areThreads) {
  static std::mt19937 random(chosenOrder().seed);
  std::vector<T> numbers(n);
  for (size_t i = 0; i < n; i++) numbers[i] = T(i);
  if (chosenOrder().reversed) std::reverse(numbers.begin(), numbers.end());
  if (!chosenOrder().shuffled) return numbers;
  std::shuffle(numbers.begin(), numbers.end(), random);
  if (areThreads && chosenOrder().byWarps) { // as their first lanes come
    std::vector<size_t> place((n + 31) / 32, n);
    for (size_t i = 0; i < n; i++) place[numbers[i] / 32] = std::min(place[numbers[i] / 32], i);
    std::stable_sort(numbers.begin(), numbers.end(), [&](T a, T b) { return place[a / 32] < place[b / 32]; });
  }
  return numbers;
}

} // namespace

void give_way(Wait reason) {
  Fiber& fiber = *block.fiber;
  fiber.wait = reason;
#if defined(EMU_TSAN)
  char* clock = &clocks[fiber.barriers % 2];
  if (reason == Wait::BARRIER) __tsan_release(clock);
#endif
  leave(fiber);
#if defined(EMU_TSAN)
  if (reason == Wait::BARRIER) __tsan_acquire(clock);
#endif
  if (reason == Wait::BARRIER) fiber.barriers++;
}

void warp_barrier(uint32_t mask) {
  Fiber& fiber = *block.fiber;
#if defined(EMU_TSAN)
  const unsigned at = fiber.warpBarriers % 2;
  __tsan_release(&fiber.clocks[at]);
#endif
  collective(mask, [](void* const*, uint32_t) {}, nullptr);
#if defined(EMU_TSAN)
  const unsigned first = fiber.tid & ~31u;
  for (unsigned lane = 0; lane < 32 && first + lane < fibers.size(); lane++) {
    if (mask >> lane & 1) __tsan_acquire(&fibers[first + lane]->clocks[at]);
  }
#endif
  fiber.warpBarriers++;
}

void fail(const char* format, ...) {
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw std::runtime_error(std::string(kernel) + ": " + text);
}

void run(const char* name, dim3 grid, dim3 size, size_t sharedBytes, const std::function<void()>& threadBody) {
  kernel = name;
  body = &threadBody;
  failure.clear();
  block.grid = grid;
  block.size = size;
  const size_t threads = size_t(size.x) * size.y * size.z;
  while (pool.size() < threads) {
    auto fiber = std::make_unique<Fiber>();
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("no memory for the stacks of emulated threads");
    fiber->stack = static_cast<char*>(stack);
    pool.push_back(std::move(fiber));
  }
  fibers.clear();
  for (size_t i = 0; i < threads; i++) fibers.push_back(pool[i].get());
#if defined(EMU_TSAN)
  schedulerFiber = __tsan_get_current_fiber();
#endif
  // A step beyond it is seen at once by a sanitizer, to which the guard is poison, else at the end of the block.
  std::unique_ptr<char, decltype(&free)> shared(
    static_cast<char*>(aligned_alloc(128, (sharedBytes + GUARD_BYTES + 127) / 128 * 128)), &free);
  block.dynamic = shared.get();
  const std::vector<unsigned> order = ordered<unsigned>(threads, true);
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (const uint64_t i : ordered<uint64_t>(blocks, false)) {
    block.index = dim3(unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / (uint64_t(grid.x) * grid.y)));
    block.epoch++;
    memset(block.dynamic, 0xff, sharedBytes);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(block.dynamic + sharedBytes, GUARD_BYTES);
    runBlock(order);
    __asan_unpoison_memory_region(block.dynamic + sharedBytes, GUARD_BYTES);
#else
    memset(block.dynamic + sharedBytes, GUARD, GUARD_BYTES);
    runBlock(order);
    for (size_t at = 0; at < GUARD_BYTES; at++) {
      if (static_cast<unsigned char>(block.dynamic[sharedBytes + at]) != GUARD) {
        fail("block (%u, %u, %u) wrote behind its %zu bytes of shared memory", block.index.x, block.index.y, block.index.z, sharedBytes);
      }
    }
#endif
  }
}

} // namespace emu
