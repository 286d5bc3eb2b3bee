// The check mode: a kernel compiled with clang's thread sanitizer calls the functions at the end of this file before
// each access to memory. They keep, for every byte of the buffers and of threadgroup memory, who touched it last.
#include "runtime.h"

#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <map>
#include <set>

namespace metal_cpu {

namespace {

constexpr uint16_t kNobody = 0, kManyLanes = 0xfffe, kMany = 0xffff;

// Threads are numbered from 1. `epoch` counts barriers and groups, `meeting` what a simdgroup did together.
struct Access {
  uint32_t epoch = 0;
  uint16_t thread = kNobody;
  uint16_t simdgroup = 0;
  uint32_t meeting = 0;
};

struct Byte {
  Access write, read;
};

struct Region {
  Extent* extent;
  std::vector<Byte> shadow;
};

// Bytes of device memory by what a simdgroup does at once: lanes that touch the same bytes with the same instruction, each
// for the same time in this group, touch them once, as a GPU fetches them once.
class Traffic {
 public:
  void group_begins() {
    times_.clear();
    met_.clear();
  }
  void touch(Extent& extent, const Lane& lane, const char* address, size_t bytes, bool write, const void* from) {
    const uint64_t time = ++times_[{uint64_t(lane.index_in_group), uint64_t(from)}];
    if (met_.insert({uint64_t(lane.simdgroup), uint64_t(from), time, uint64_t(address)}).second) {
      (write ? extent.written : extent.read) += bytes;
    }
  }

 private:
  std::map<std::array<uint64_t, 2>, uint64_t> times_;
  std::set<std::array<uint64_t, 4>> met_;
};

struct Pending {
  char* address = nullptr;
  unsigned bytes = 0;
  char before[16];
  char message[kMessageBytes];
};

bool in_library(const void* address) {
  Dl_info info;
  return dladdr(address, &info) != 0;
}

}  // namespace

class Checker {
 public:
  explicit Checker(const Launch& launch) : meetings_(kLanes, 0), counted_(launch.counted) {
    for (unsigned i = 0; i < launch.buffer_count; ++i) {
      Extent& extent = launch.buffers[i];
      buffers_.push_back({&extent, std::vector<Byte>(extent.bytes)});
    }
  }

  void group_begins() {
    ++epoch_;
    group_epoch_ = epoch_;
    threadgroup_.assign(kArenaBytes, Byte{});
    traffic_.group_begins();
  }
  void barrier() { ++epoch_; }
  void meeting(unsigned simdgroup) { ++meetings_[simdgroup]; }

  void access(Worker& worker, char* address, size_t bytes, bool write, void* from) {
    settle(worker);
    if (is_private(worker, address)) {
      return;
    }
    const bool group_memory = address >= worker.arena && address < worker.arena + kArenaBytes;
    Byte* shadow = group_memory ? in_threadgroup(worker, address, bytes) : in_buffers(worker, address, bytes, write, from);
    if (shadow == nullptr) {
      if (!group_memory && in_library(address)) {
        return;  // a constant of the shader
      }
      complain(worker, write, group_memory, bytes, from, "is out of bounds");
      stop_thread();  // the access itself could end the process
    }
    if (!write && group_memory && never_written(shadow, bytes)) {
      complain(worker, write, group_memory, bytes, from, "finds what nobody has written");
      return;
    }
    for (size_t i = 0; i < bytes; ++i) {
      touch(worker, shadow[i], address, bytes, write, group_memory, from);
    }
  }

  // Two threads that write the same value, as is often done on purpose, do no harm.
  void settle(Worker& worker) {
    if (pending_.address != nullptr && memcmp(pending_.address, pending_.before, pending_.bytes) != 0) {
      report(*worker.launch, "%s", pending_.message);
    }
    pending_.address = nullptr;
  }

 private:
  static bool is_private(const Worker& worker, const char* address) {
    const char* stack = worker.current->stack;
    const auto* fibers = reinterpret_cast<const char*>(worker.fibers.data());
    const auto* meetings = reinterpret_cast<const char*>(worker.meetings.data());
    return (address >= stack && address < stack + kStackBytes) ||
           (address >= fibers && address < fibers + worker.fibers.size() * sizeof(Fiber)) ||
           (address >= meetings && address < meetings + worker.meetings.size() * sizeof(Meeting));
  }

  Byte* in_threadgroup(const Worker& worker, const char* address, size_t bytes) {
    for (const Variable& variable : worker.variables) {
      if (address >= variable.address && address + bytes <= variable.address + variable.bytes) {
        return &threadgroup_[address - worker.arena];
      }
    }
    return nullptr;
  }

  Byte* in_buffers(const Worker& worker, const char* address, size_t bytes, bool write, const void* from) {
    for (Region& region : buffers_) {
      Extent& extent = *region.extent;
      if (address >= extent.address && address + bytes <= extent.address + extent.bytes) {
        if (counted_) {
          traffic_.touch(extent, worker.current->lane, address, bytes, write, from);
        }
        return &region.shadow[address - extent.address];
      }
    }
    return nullptr;
  }

  static bool never_written(const Byte* shadow, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) {
      if (shadow[i].write.thread != kNobody) {
        return false;
      }
    }
    return true;
  }

  bool conflicts(const Access& earlier, const Lane& lane, bool group_memory) const {
    if (earlier.thread == kNobody) {
      return false;
    }
    if (earlier.epoch < group_epoch_) {
      return !group_memory;  // another group: nothing orders them
    }
    if (earlier.thread == lane.index_in_group + 1 || earlier.epoch != epoch_) {
      return false;
    }
    const bool together = earlier.thread != kMany && earlier.simdgroup == lane.simdgroup;
    return !(together && earlier.meeting != meetings_[lane.simdgroup]);
  }

  void touch(Worker& worker, Byte& byte, char* address, size_t bytes, bool write, bool group_memory, void* from) {
    const Lane& lane = worker.current->lane;
    const bool after_write = conflicts(byte.write, lane, group_memory);
    const bool after_read = write && conflicts(byte.read, lane, group_memory);
    const Access now{epoch_, uint16_t(lane.index_in_group + 1), uint16_t(lane.simdgroup), meetings_[lane.simdgroup]};
    if (after_read || (after_write && !write) || (after_write && bytes > sizeof pending_.before)) {
      complain(worker, write, group_memory, bytes, from,
               after_write ? "races with a write of another thread" : "races with a read of another thread");
    } else if (after_write && pending_.address == nullptr) {
      pending_.address = address;
      pending_.bytes = bytes;
      memcpy(pending_.before, address, bytes);
      describe(pending_.message, worker, write, group_memory, bytes, from, "races with a write of another thread");
    }
    if (write) {
      byte.write = now;
    } else {
      byte.read = merged(byte.read, now);
    }
  }

  // Remembers that more than one thread has read.
  Access merged(const Access& earlier, Access now) const {
    if (earlier.thread == kNobody || earlier.epoch != epoch_ || earlier.thread == now.thread) {
      return now;
    }
    const bool together = earlier.thread != kMany && earlier.simdgroup == now.simdgroup;
    if (!together) {
      now.thread = kMany;
    } else if (earlier.meeting == now.meeting) {
      now.thread = kManyLanes;
    }
    return now;
  }

  static void describe(char* text, const Worker& worker, bool write, bool group_memory, size_t bytes, void* from,
                       const char* what) {
    const Lane& lane = worker.current->lane;
    Dl_info info{};
    dladdr(from, &info);
    const auto offset = static_cast<char*>(from) - static_cast<char*>(info.dli_fbase) - 1;
    snprintf(text, kMessageBytes, "@%zx: a %s of %zu bytes of %s memory by thread (%u, %u, %u) %s", size_t(offset),
             write ? "write" : "read", bytes, group_memory ? "threadgroup" : "device", lane.position_in_grid[0],
             lane.position_in_grid[1], lane.position_in_grid[2], what);
  }

  static void complain(Worker& worker, bool write, bool group_memory, size_t bytes, void* from, const char* what) {
    char text[kMessageBytes];
    describe(text, worker, write, group_memory, bytes, from, what);
    report(*worker.launch, "%s", text);
  }

  std::vector<Region> buffers_;
  std::vector<Byte> threadgroup_;
  std::vector<uint32_t> meetings_;
  bool counted_;
  Traffic traffic_;
  uint32_t epoch_ = 0, group_epoch_ = 0;
  Pending pending_;
};

Checker* new_checker(const Launch& launch) { return new Checker(launch); }
void delete_checker(Checker* checker) { delete checker; }
void checker_group_begins(Checker& checker) { checker.group_begins(); }
void checker_barrier(Checker& checker) { checker.barrier(); }
void checker_meeting(Checker& checker, unsigned simdgroup) { checker.meeting(simdgroup); }
void checker_settle(Worker& worker) { worker.checker->settle(worker); }

namespace {

void access(void* address, size_t bytes, bool write, void* from) {
  Worker* worker = current_worker();
  if (worker != nullptr && worker->current != nullptr && worker->checker != nullptr) {
    worker->checker->access(*worker, static_cast<char*>(address), bytes, write, from);
  }
}

}  // namespace

}  // namespace metal_cpu

#define EXPORT extern "C" __attribute__((visibility("default")))
#define FROM __builtin_return_address(0)
#define HOOKS(n)                                                                                      \
  EXPORT void __tsan_read##n(void* p) { metal_cpu::access(p, n, false, FROM); }                       \
  EXPORT void __tsan_write##n(void* p) { metal_cpu::access(p, n, true, FROM); }                       \
  EXPORT void __tsan_unaligned_read##n(void* p) { metal_cpu::access(p, n, false, FROM); }             \
  EXPORT void __tsan_unaligned_write##n(void* p) { metal_cpu::access(p, n, true, FROM); }             \
  EXPORT void __tsan_read_write##n(void* p) {                                                         \
    metal_cpu::access(p, n, false, FROM);                                                             \
    metal_cpu::access(p, n, true, FROM);                                                              \
  }                                                                                                   \
  EXPORT void __tsan_unaligned_read_write##n(void* p) { __tsan_read_write##n(p); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)

EXPORT void __tsan_init() {}
EXPORT void* __tsan_memcpy(void* target, const void* source, size_t bytes) {
  metal_cpu::access(const_cast<void*>(source), bytes, false, FROM);
  metal_cpu::access(target, bytes, true, FROM);
  return memcpy(target, source, bytes);
}
EXPORT void* __tsan_memmove(void* target, const void* source, size_t bytes) {
  metal_cpu::access(const_cast<void*>(source), bytes, false, FROM);
  metal_cpu::access(target, bytes, true, FROM);
  return memmove(target, source, bytes);
}
EXPORT void* __tsan_memset(void* target, int value, size_t bytes) {
  metal_cpu::access(target, bytes, true, FROM);
  return memset(target, value, bytes);
}
