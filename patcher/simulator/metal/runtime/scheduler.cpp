// Runs the threads of each threadgroup, and lets them meet: at simdgroup operations and at barriers.
#include "runtime.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace metal_cpu {

namespace {

constexpr size_t kGapBytes = 256;  // between threadgroup variables of a checked kernel: an index off by some hits it

thread_local Worker* running = nullptr;

void run_fiber() {
  running->entry(running->arguments);
  stop_thread();
}

void give_way(State state, const Site& site) {
  Fiber& fiber = *running->current;
  fiber.state = state;
  fiber.site = site;
  switch_to(fiber.context, running->main);
}

void resume(Worker& worker, Fiber& fiber) {
  if (fiber.state == State::fresh) {
    if (worker.stacks.empty()) {
      worker.stacks.push_back(new_stack());
    }
    fiber.stack = worker.stacks.back();
    worker.stacks.pop_back();
    prepare(fiber.context, fiber.stack, &run_fiber);
  }
  fiber.state = State::ready;
  worker.current = &fiber;
  switch_to(worker.main, fiber.context);
  if (worker.checker != nullptr) {
    checker_settle(worker);
  }
  worker.current = nullptr;
  if (fiber.state == State::done) {
    worker.stacks.push_back(fiber.stack);
  }
}

// Lets the lanes that wait at the first place in the source go on, with what all of them have brought.
bool resolve_meeting(Worker& worker, unsigned simdgroup, unsigned begin, unsigned end) {
  const Fiber* first = nullptr;
  for (unsigned i = begin; i < end; ++i) {
    const Fiber& fiber = worker.fibers[i];
    if (fiber.state == State::meeting && (first == nullptr || fiber.site < first->site)) {
      first = &fiber;
    }
  }
  if (first == nullptr) {
    return false;
  }
  const Site site = first->site;
  if (worker.checker != nullptr) {
    checker_meeting(*worker.checker, simdgroup);
  }
  Meeting& meeting = worker.meetings[simdgroup];
  meeting.mask = 0;
  for (unsigned i = begin; i < end; ++i) {
    Fiber& fiber = worker.fibers[i];
    if (fiber.state == State::meeting && fiber.site == site) {
      meeting.mask |= 1u << (i - begin);
      meeting.values[i - begin] = fiber.values[fiber.slot];
      fiber.meeting = &meeting;
      fiber.state = State::ready;
    }
  }
  return true;
}

// Until each of its threads has returned or waits at a barrier.
void run_simdgroup(Worker& worker, unsigned simdgroup, unsigned begin, unsigned end) {
  const bool backwards = worker.launch->backwards != 0;
  do {
    for (unsigned i = begin; i < end; ++i) {
      Fiber& fiber = worker.fibers[backwards ? end - 1 - (i - begin) : i];
      if (fiber.state == State::fresh || fiber.state == State::ready) {
        resume(worker, fiber);
      }
    }
  } while (resolve_meeting(worker, simdgroup, begin, end));
}

// Opens the barrier that all threads have reached; false when all have returned.
bool open_barrier(Worker& worker, unsigned threads) {
  const Fiber* first = nullptr;
  unsigned waiting = 0;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = worker.fibers[i];
    if (fiber.state != State::barrier) {
      continue;
    }
    if (first == nullptr) {
      first = &fiber;
    } else if (!(fiber.site == first->site)) {
      report(*worker.launch, "the threads of a threadgroup wait at different barriers: %s:%d and %s:%d", first->site.file,
             first->site.line, fiber.site.file, fiber.site.line);
    }
    fiber.state = State::ready;
    ++waiting;
  }
  if (waiting != 0 && waiting != threads) {
    report(*worker.launch, "the barrier at %s:%d was reached by %u of %u threads; the others have returned",
           first->site.file, first->site.line, waiting, threads);
  }
  if (worker.checker != nullptr) {
    checker_barrier(*worker.checker);
  }
  return waiting != 0;
}

void run_group(Worker& worker, unsigned threads) {
  worker.variables.clear();
  worker.arena_used = 0;
  if (worker.checker != nullptr) {
    checker_group_begins(*worker.checker);
  }
  const unsigned simdgroups = (threads + kLanes - 1) / kLanes;
  do {
    for (unsigned i = 0; i < simdgroups; ++i) {
      const unsigned simdgroup = worker.launch->backwards ? simdgroups - 1 - i : i;
      run_simdgroup(worker, simdgroup, simdgroup * kLanes, std::min(threads, (simdgroup + 1) * kLanes));
    }
  } while (open_barrier(worker, threads));
}

// Fills in who the threads of group number `group` are; returns how many they are. Groups at the edge are smaller.
unsigned place(Worker& worker, uint64_t group, const unsigned* grid, const unsigned* size, const unsigned* groups) {
  unsigned at[3] = {unsigned(group % groups[0]), unsigned(group / groups[0] % groups[1]),
                    unsigned(group / groups[0] / groups[1])};
  unsigned extent[3];
  for (int d = 0; d < 3; ++d) {
    extent[d] = std::min(size[d], grid[d] - at[d] * size[d]);
  }
  const unsigned threads = extent[0] * extent[1] * extent[2];
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = worker.fibers[i];
    fiber.state = State::fresh;
    fiber.slot = 0;
    Lane& lane = fiber.lane;
    const unsigned position[3] = {i % extent[0], i / extent[0] % extent[1], i / extent[0] / extent[1]};
    for (int d = 0; d < 3; ++d) {
      lane.position_in_group[d] = position[d];
      lane.position_in_grid[d] = at[d] * size[d] + position[d];
      lane.group_position[d] = at[d];
      lane.group_size[d] = extent[d];
      lane.dispatch_group_size[d] = size[d];
      lane.grid_size[d] = grid[d];
      lane.groups[d] = groups[d];
    }
    lane.index_in_group = i;
    lane.lane = i % kLanes;
    lane.simdgroup = i / kLanes;
    lane.simdgroups = (threads + kLanes - 1) / kLanes;
  }
  return threads;
}

Worker& worker_of_this_thread() {
  thread_local Worker worker;
  if (worker.arena == nullptr) {
    worker.arena = static_cast<char*>(aligned_alloc(64, kArenaBytes));
  }
  return worker;
}

}  // namespace

Worker* current_worker() {
  return running;
}

void report(Launch& launch, const char* format, ...) {
  if (launch.message[0] != '\0') {
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(launch.message, kMessageBytes, format, arguments);
  va_end(arguments);
}

void stop_thread() {
  running->current->state = State::done;
  switch_to(running->current->context, running->main);
  __builtin_unreachable();
}

}  // namespace metal_cpu

using namespace metal_cpu;

extern "C" {

__attribute__((visibility("default"))) const Lane* metal_cpu_lane() {
  return &current_worker()->current->lane;
}

__attribute__((visibility("default"))) const Meeting* metal_cpu_meet(const void* value, unsigned bytes, const Site* site) {
  Fiber& fiber = *current_worker()->current;
  fiber.slot ^= 1;
  memcpy(fiber.values[fiber.slot], value, bytes);
  give_way(State::meeting, *site);
  return fiber.meeting;
}

__attribute__((visibility("default"))) void metal_cpu_barrier(const Site* site) {
  give_way(State::barrier, *site);
}

// The group's copy of a threadgroup variable. It starts as NaN, so that reading what nobody wrote is seen.
__attribute__((visibility("default"))) void* metal_cpu_threadgroup(unsigned id, size_t bytes, size_t alignment) {
  Worker& worker = *current_worker();
  for (const Variable& variable : worker.variables) {
    if (variable.id == id) {
      return variable.address;
    }
  }
  alignment = std::max<size_t>(alignment, 16);
  const size_t begin = (worker.arena_used + alignment - 1) / alignment * alignment;
  Launch& launch = *worker.launch;
  const size_t used = begin + bytes - (launch.checked ? worker.variables.size() * kGapBytes : 0);
  if (used > launch.threadgroup_limit) {
    report(launch, "Threadgroup memory size (%zu) exceeds the maximum threadgroup memory allowed (%u)", used,
           launch.threadgroup_limit);
  }
  if (begin + bytes > kArenaBytes) {
    stop_thread();
  }
  worker.arena_used = begin + bytes;
  launch.threadgroup_used = std::max<unsigned>(launch.threadgroup_used, used);
  memset(worker.arena + begin, 0xff, bytes);
  worker.variables.push_back({id, worker.arena + begin, bytes});
  worker.arena_used += launch.checked ? kGapBytes : 0;
  return worker.arena + begin;
}

__attribute__((visibility("default"))) void metal_cpu_run(void (*entry)(void**), void** arguments, const unsigned* grid,
                                                          const unsigned* size, Launch* launch) {
  unsigned groups[3];
  for (int d = 0; d < 3; ++d) {
    groups[d] = (grid[d] + size[d] - 1) / size[d];
  }
  const uint64_t total = uint64_t{groups[0]} * groups[1] * groups[2];
  const unsigned threads = size[0] * size[1] * size[2];
  Worker& worker = worker_of_this_thread();
  if (worker.fibers.size() < threads) {
    worker.fibers.resize(threads);
    worker.meetings.resize((threads + kLanes - 1) / kLanes);
  }
  worker.entry = entry;
  worker.arguments = arguments;
  worker.launch = launch;
  worker.checker = launch->checked ? new_checker(*launch) : nullptr;
  running = &worker;
  for (uint64_t i = 0; i < total && launch->message[0] == '\0'; ++i) {
    run_group(worker, place(worker, launch->backwards ? total - 1 - i : i, grid, size, groups));
  }
  running = nullptr;
  if (worker.checker != nullptr) {
    delete_checker(worker.checker);
    worker.checker = nullptr;
  }
}

// float to bfloat, round to nearest even: clang's code calls it. The result travels in the low half of a float register.
__attribute__((visibility("default"))) float __truncsfbf2(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  bits = nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  memcpy(&value, &bits, sizeof bits);
  return value;
}

}  // extern "C"
