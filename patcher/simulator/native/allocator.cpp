// Memory of the simulated device: host memory with an exact account and an optional limit.
#include "meter.h"
#include "simulator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstring>
#include <iomanip>
#include <mutex>
#include <sstream>
#include <unordered_set>

namespace simulator {
namespace {

std::atomic<int64_t> current_bytes{0};
std::atomic<int64_t> peak_bytes{0};
std::atomic<int64_t> live_blocks{0};
std::atomic<int64_t> peak_blocks{0};
std::atomic<int64_t> total_bytes{0};   // ever allocated
std::atomic<int64_t> total_blocks{0};  // ever allocated
std::atomic<int64_t> refusals{0};
std::atomic<int64_t> limit_bytes{0};
std::atomic<size_t> recommended_bytes{0};

// Context of every DataPtr of the device.
struct Block {
  c10::DataPtr memory;
  size_t nbytes;
};

void raise_peak(std::atomic<int64_t>& peak, int64_t value) {
  int64_t seen = peak.load(std::memory_order_relaxed);
  while (value > seen && !peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

std::string format_size(int64_t size) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2);
  const auto bytes = static_cast<double>(size);
  if (size <= 1024) {
    out << size << " bytes";
  } else if (size <= 1024 * 1024) {
    out << bytes / 1024 << " KiB";
  } else if (size <= 1024 * 1024 * 1024) {
    out << bytes / (1024 * 1024) << " MiB";
  } else {
    out << bytes / (1024 * 1024 * 1024) << " GiB";
  }
  return out.str();
}

void reserve(size_t nbytes) {
  const auto wanted = static_cast<int64_t>(nbytes);
  const int64_t now = current_bytes.fetch_add(wanted, std::memory_order_relaxed) + wanted;
  const int64_t limit = limit_bytes.load(std::memory_order_relaxed);
  if (limit != 0 && now > limit) {
    current_bytes.fetch_sub(wanted, std::memory_order_relaxed);
    refusals.fetch_add(1, std::memory_order_relaxed);
    // The wording of torch's MPSAllocator, which scripts search for.
    TORCH_CHECK(
        false,
        "MPS backend out of memory (MPS allocated: ", format_size(now - wanted),
        ", other allocations: ", format_size(0),
        ", max allowed: ", format_size(limit),
        "). Tried to allocate ", format_size(wanted),
        " on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations"
        " (may cause system failure).");
  }
  raise_peak(peak_bytes, now);
  if (meter::on()) {
    meter::allocated(now, now);
  }
  raise_peak(peak_blocks, live_blocks.fetch_add(1, std::memory_order_relaxed) + 1);
  total_bytes.fetch_add(wanted, std::memory_order_relaxed);
  total_blocks.fetch_add(1, std::memory_order_relaxed);
}

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  current_bytes.fetch_sub(static_cast<int64_t>(block->nbytes), std::memory_order_relaxed);
  live_blocks.fetch_sub(1, std::memory_order_relaxed);
  delete block;
}

c10::DataPtr labelled(c10::DataPtr memory, size_t nbytes) {
  void* data = memory.get();
  return {data, new Block{std::move(memory), nbytes}, &release, device()};
}

void fill(c10::CachingAllocator::StatArray& stat, int64_t current, int64_t peak, int64_t allocated) {
  auto& all = stat[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  all.current = current;
  all.peak = peak;
  all.allocated = allocated;
  all.freed = allocated - current;
}

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t nbytes) override {
    if (nbytes == 0) {
      return {nullptr, device()};
    }
    reserve(nbytes);
    return labelled(c10::GetDefaultCPUAllocator()->allocate(nbytes), nbytes);
  }
  void copy_data(void* destination, const void* source, size_t count) const override {
    default_copy_data(destination, source, count);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* bytes : {&stats.allocated_bytes, &stats.reserved_bytes, &stats.active_bytes, &stats.requested_bytes}) {
      fill(*bytes, current_bytes, peak_bytes, total_bytes);
    }
    for (auto* count : {&stats.allocation, &stats.segment, &stats.active}) {
      fill(*count, live_blocks, peak_blocks, total_blocks);
    }
    stats.num_ooms = refusals;
    stats.num_device_alloc = total_blocks;
    stats.num_device_free = total_blocks - live_blocks;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {
    total_bytes = current_bytes.load();
    total_blocks = live_blocks.load();
    refusals = 0;
  }
  void resetPeakStats(c10::DeviceIndex) override {
    reset_peak_memory();
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override {
    const auto total = static_cast<int64_t>(recommended_max_memory());
    return {static_cast<size_t>(std::max<int64_t>(0, total - current_bytes)), static_cast<size_t>(total)};
  }
};

// Pinned memory is plain CPU memory whose addresses are remembered.
struct Pinned {
  std::mutex mutex;
  std::unordered_set<const void*> addresses;
};

Pinned& pinned() {
  static auto* instance = new Pinned;  // leaked: tensors may outlive static destructors
  return *instance;
}

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t nbytes) override {
    c10::DataPtr memory = c10::GetDefaultCPUAllocator()->allocate(nbytes);
    void* data = memory.get();
    if (data == nullptr) {
      return memory;
    }
    {
      const std::lock_guard<std::mutex> lock(pinned().mutex);
      pinned().addresses.insert(data);
    }
    return {data, new c10::DataPtr(std::move(memory)), &unpin, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* destination, const void* source, size_t count) const override {
    default_copy_data(destination, source, count);
  }

 private:
  static void unpin(void* context) {
    auto* memory = static_cast<c10::DataPtr*>(context);
    {
      const std::lock_guard<std::mutex> lock(pinned().mutex);
      pinned().addresses.erase(memory->get());
    }
    delete memory;
  }
};

Allocator* instance() {
  static auto* allocator = new Allocator;  // leaked: storages may outlive static destructors
  return allocator;
}

const c10::AllocatorRegisterer<kType> registered(instance());

}  // namespace

c10::DeviceAllocator& allocator() {
  return *instance();
}

c10::DataPtr adopt(c10::DataPtr memory, size_t nbytes) {
  if (nbytes == 0) {
    return {nullptr, device()};
  }
  reserve(nbytes);
  return labelled(std::move(memory), nbytes);
}

MemoryStats memory_stats() {
  return {current_bytes, peak_bytes, live_blocks, limit_bytes};
}

void reset_peak_memory() {
  peak_bytes = current_bytes.load();
  peak_blocks = live_blocks.load();
}

size_t recommended_max_memory() {
  return recommended_bytes;
}

void set_memory_limit(size_t recommended, double ratio) {
  recommended_bytes = recommended;
  set_memory_fraction(ratio);
}

void set_memory_fraction(double ratio) {
  limit_bytes = static_cast<int64_t>(ratio * static_cast<double>(recommended_bytes.load()));
}

c10::Allocator* pinned_allocator() {
  static auto* allocator = new PinnedAllocator;
  return allocator;
}

bool is_pinned(const void* data) {
  const std::lock_guard<std::mutex> lock(pinned().mutex);
  return pinned().addresses.count(data) != 0;
}

}  // namespace simulator
