// The calls into the runtime (runtime/scheduler.cpp), barriers.
#pragma once

namespace metal_cpu {

// Shared with runtime/runtime.h: where a thread is in its group and in the grid.
struct Lane {
  uint position_in_grid[3], position_in_group[3], group_position[3];
  uint group_size[3], dispatch_group_size[3], grid_size[3], groups[3];
  uint index_in_group, lane, simdgroup, simdgroups;
};

// Where a collective operation stands in the source: lanes meet at the same place.
struct Site {
  int line, column;
  const char* file;
  static constexpr Site here(int line = __builtin_LINE(), int column = __builtin_COLUMN(),
                             const char* file = __builtin_FILE()) {
    return Site{line, column, file};
  }
};

// What the lanes of a simdgroup that met have brought along.
struct Meeting {
  uint mask;
  const void* values[32];
};

extern "C" {
const Lane* metal_cpu_lane();
const Meeting* metal_cpu_meet(const void* value, uint bytes, const Site* site) __attribute__((convergent));
void metal_cpu_barrier(const Site* site) __attribute__((convergent));
void* metal_cpu_threadgroup(uint variable, ulong bytes, ulong alignment);
}

template <class T, uint variable>
METAL_INLINE T& threadgroup_variable() {
  return *static_cast<T*>(metal_cpu_threadgroup(variable, sizeof(T), alignof(T)));
}

}  // namespace metal_cpu

namespace metal {

enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_device_and_threadgroup = 3,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
};
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
enum memory_order { memory_order_relaxed, memory_order_acquire, memory_order_release, memory_order_acq_rel, memory_order_seq_cst };
enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };

METAL_INLINE void threadgroup_barrier(mem_flags, metal_cpu::Site site = metal_cpu::Site::here()) {
  metal_cpu::metal_cpu_barrier(&site);
}
METAL_INLINE void simdgroup_barrier(mem_flags, metal_cpu::Site site = metal_cpu::Site::here()) {
  const char nothing = 0;
  metal_cpu::metal_cpu_meet(&nothing, 1, &site);
}
METAL_INLINE void atomic_thread_fence(mem_flags, memory_order = memory_order_seq_cst, thread_scope = thread_scope_device) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

struct os_log {
  constexpr os_log(const char* = "", const char* = "") {}
  template <class... A> void log(const char*, A...) const {}
  template <class... A> void log_debug(const char*, A...) const {}
  template <class... A> void log_info(const char*, A...) const {}
  template <class... A> void log_error(const char*, A...) const {}
};

}  // namespace metal
