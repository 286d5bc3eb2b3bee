// Memory of the simulated device: host memory, and the account that torch's MPS allocator would keep of it.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

namespace simulator {

struct MemoryStats {
  int64_t current;          // bytes of live storages, as they were asked for
  int64_t peak;             // highest value of `current` since the start or the last reset
  int64_t blocks;           // live storages with at least one byte
  int64_t limit;            // of `driver`; 0 means none
  int64_t allocated;        // bytes of the buffers of live storages: torch.mps.current_allocated_memory()
  int64_t peak_allocated;
  int64_t driver;           // bytes of Metal's heaps, caches included: torch.mps.driver_allocated_memory()
  int64_t peak_driver;
  int64_t heaps;
  int64_t cached_buffers;
  int64_t refused;          // allocations that failed, since the start
};

c10::DeviceAllocator& allocator();
// Accounts for `memory`, which holds `nbytes` on the host, and labels it as mps memory. Throws when over the limit.
c10::DataPtr adopt(c10::DataPtr memory, size_t nbytes);
MemoryStats memory_stats();
void reset_peak_memory();
void empty_memory_cache();
size_t recommended_max_memory();
size_t longest_buffer();
// Before anything is allocated: the account is that of this torch's allocator.
void use_allocator_of(std::pair<unsigned, unsigned> torch);
// Sizes in bytes, watermarks as multiples of `recommended`; 0 means none. Watermarks that do not fit together are
// refused by the first allocation, as torch does, not here.
void set_memory_limits(size_t recommended, size_t longest_buffer, double high, double low);
void lift_memory_limits();
void set_memory_fraction(double ratio);
c10::Allocator* pinned_allocator();
bool is_pinned(const void* data);

}  // namespace simulator
