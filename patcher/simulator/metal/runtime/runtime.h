// What the files of the runtime share. A threadgroup runs on one operating system thread; each of its threads is a
// fiber, which gives way where it has to wait for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace metal_cpu {

constexpr unsigned kLanes = 32;
constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kArenaBytes = 128 << 10;
constexpr size_t kMessageBytes = 512;

// ---- shared with include/metal_execution.h

struct Lane {
  unsigned position_in_grid[3], position_in_group[3], group_position[3];
  unsigned group_size[3], dispatch_group_size[3], grid_size[3], groups[3];
  unsigned index_in_group, lane, simdgroup, simdgroups;
};

struct Site {
  int line, column;
  const char* file;
  bool operator==(const Site& other) const {
    return line == other.line && column == other.column && (file == other.file || !strcmp(file, other.file));
  }
  bool operator<(const Site& other) const { return line != other.line ? line < other.line : column < other.column; }
};

struct Meeting {
  unsigned mask;
  const void* values[kLanes];
};

// ---- shared with runtime.py

struct Extent {
  char* address;
  size_t bytes;
  uint64_t read, written;  // result of a counted launch: bytes, without atomic accesses
};

struct Launch {
  unsigned backwards;           // 1: groups, simdgroups and lanes are taken in the opposite order
  unsigned threadgroup_limit;   // bytes
  unsigned threadgroup_used;    // result: the most that a group has used, bytes
  unsigned checked;             // 1: the kernel was compiled for the checker
  unsigned counted;             // 1: bytes of buffers that a checked kernel touches are counted
  Extent* buffers;              // what a checked kernel may touch
  unsigned buffer_count;
  char message[kMessageBytes];  // result: the first error
};

// ---- fibers (fiber.cpp)

struct Context {
  void* stack_pointer = nullptr;
};
char* new_stack();
// `run` is entered when the context is first switched to, and must not return.
void prepare(Context& context, char* stack, void (*run)());
void switch_to(Context& from, Context& to);

// ---- threads of a group (scheduler.cpp)

enum class State { fresh, ready, meeting, barrier, done };

struct Fiber {
  Lane lane;
  Context context;
  char* stack;
  State state;
  Site site;
  const Meeting* meeting;
  unsigned slot;  // a lane may still read what was brought to the last meeting
  alignas(64) char values[2][64];
};

struct Variable {
  unsigned id;
  char* address;
  size_t bytes;
};

class Checker;

struct Worker {
  Context main;
  Fiber* current = nullptr;
  std::vector<Fiber> fibers;
  std::vector<Meeting> meetings;
  std::vector<char*> stacks;
  std::vector<Variable> variables;
  char* arena = nullptr;
  size_t arena_used = 0;
  void (*entry)(void**) = nullptr;
  void** arguments = nullptr;
  Launch* launch = nullptr;
  Checker* checker = nullptr;  // of a checked launch
};

Worker* current_worker();
// Keeps the first message of a launch.
void report(Launch& launch, const char* format, ...) __attribute__((format(printf, 2, 3)));
// Ends the running thread.
[[noreturn]] void stop_thread();

// ---- races, bounds, uninitialised memory (checker.cpp)

Checker* new_checker(const Launch& launch);
void delete_checker(Checker* checker);
// What orders accesses: a group begins, all its threads have met at a barrier, lanes of a simdgroup have met.
void checker_group_begins(Checker& checker);
void checker_barrier(Checker& checker);
void checker_meeting(Checker& checker, unsigned simdgroup);
// The running thread gives way: a write that it was making is complete.
void checker_settle(Worker& worker);

}  // namespace metal_cpu
