// Pinned memory as torch.accelerator sees it: there is a list of host allocators, and it asks the accelerator's for
// empty_host_cache() without looking whether there is one.
#include "simulator.h"

#include <ATen/core/CachingHostAllocator.h>

namespace simulator {
namespace {

class HostAllocator final : public at::HostAllocator {
 public:
  c10::DataPtr allocate(size_t nbytes) override {
    return pinned_allocator()->allocate(nbytes);
  }
  void copy_data(void* destination, const void* source, size_t count) const override {
    default_copy_data(destination, source, count);
  }
  bool record_event(void*, void*, c10::Stream) override {
    return true;  // nothing is in flight
  }
  void empty_cache() override {}
  at::HostStats get_stats() override {
    return {};
  }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};

HostAllocator* host_instance() {
  static auto* allocator = new HostAllocator;
  return allocator;
}

const at::HostAllocatorRegistry<kType> host_registered(host_instance());

}  // namespace
}  // namespace simulator
