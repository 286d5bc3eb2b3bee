// Memory of the simulated device: host memory, with the account that torch's MPS allocator would keep (heaps.h).
//
// A storage's bytes are a block of the host's allocator, often one that a CPU kernel has allocated, and go back to it
// when the storage is released: the account is of a Mac's memory, not of the host's.
#include "fork.h"
#include "heaps.h"
#include "meter.h"
#include "simulator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <pthread.h>

#include <algorithm>
#include <string>
#include <unordered_set>

namespace simulator {
namespace {

struct Account {
  std::mutex mutex;
  std::unique_ptr<Heaps> heaps;
  std::string refusal;  // of watermarks that torch would not start with
  int64_t current = 0;
  int64_t peak = 0;
  int64_t blocks = 0;
  int64_t refused = 0;
};

Account& account() {
  static auto* instance = new Account{{}, make_heaps({2, 14})};  // leaked: storages may outlive static destructors
  return *instance;
}

// A forked child releases the tensors that it has inherited: no other thread may hold the account while it is made.
const int fork_safe = pthread_atfork(
    [] { account().mutex.lock(); }, [] { account().mutex.unlock(); }, [] { account().mutex.unlock(); });

// Context of every DataPtr of the device.
struct Held {
  c10::DataPtr memory;
  size_t nbytes;
  Buffer* buffer;
};

Buffer* enter(size_t nbytes) {
  check_fork();
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  TORCH_CHECK(book.refusal.empty(), book.refusal);
  Buffer* buffer = nullptr;
  try {
    buffer = book.heaps->allocate(nbytes);
  } catch (const c10::Error&) {
    ++book.refused;
    throw;
  }
  book.current += static_cast<int64_t>(nbytes);
  book.peak = std::max(book.peak, book.current);
  ++book.blocks;
  if (meter::on()) {
    meter::allocated(book.current, static_cast<int64_t>(book.heaps->driver()));
  }
  return buffer;
}

void leave(Buffer* buffer, size_t nbytes) {
  if (in_forked_child) {
    return;  // a thread that the child has not got may hold the lock
  }
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  book.heaps->free(buffer);
  book.current -= static_cast<int64_t>(nbytes);
  --book.blocks;
}

void release(void* context) {
  auto* held = static_cast<Held*>(context);
  leave(held->buffer, held->nbytes);
  delete held;
}

// Memory of the host for a buffer; where the host has none, that is an mps device without memory.
c10::DataPtr host_memory(Buffer* buffer, size_t nbytes) {
  try {
    return c10::GetDefaultCPUAllocator()->allocate(nbytes);
  } catch (const c10::Error& error) {
    leave(buffer, nbytes);
    TORCH_CHECK(false, "the host of the simulated mps device is out of memory: ", error.what_without_backtrace());
  }
}

c10::DataPtr labelled(c10::DataPtr memory, size_t nbytes, Buffer* buffer) {
  void* data = memory.get();
  return {data, new Held{std::move(memory), nbytes, buffer}, &release, device()};
}

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t nbytes) override {
    if (nbytes == 0) {
      return {nullptr, device()};
    }
    Buffer* buffer = enter(nbytes);
    return labelled(host_memory(buffer, nbytes), nbytes, buffer);
  }
  void copy_data(void* destination, const void* source, size_t count) const override {
    default_copy_data(destination, source, count);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t) override {
    empty_memory_cache();
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  // torch fills in these two and leaves the others at 0 (MPSAllocator.mm, getDeviceStats).
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    c10::CachingDeviceAllocator::DeviceStats stats;
    const std::lock_guard<std::mutex> lock(account().mutex);
    stats.allocated_bytes[all] = account().heaps->allocated;
    stats.reserved_bytes[all] = account().heaps->reserved;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {
    const std::lock_guard<std::mutex> lock(account().mutex);
    account().heaps->allocated.reset_accumulated();
    account().heaps->reserved.reset_accumulated();
  }
  void resetPeakStats(c10::DeviceIndex) override {
    reset_peak_memory();
  }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override {
    const size_t total = recommended_max_memory();
    const auto used = static_cast<size_t>(memory_stats().driver);
    return {total > used ? total - used : 0, total};
  }
};

// Pinned memory is memory of the device that the CPU uses; its addresses are remembered.
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
    c10::DataPtr memory = allocator().allocate(nbytes);
    void* data = memory.get();
    if (data == nullptr) {
      return {nullptr, c10::Device(c10::DeviceType::CPU)};
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
  Buffer* buffer = enter(nbytes);
  return labelled(std::move(memory), nbytes, buffer);
}

MemoryStats memory_stats() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  return {
      book.current,
      book.peak,
      book.blocks,
      static_cast<int64_t>(book.heaps->limit()),
      book.heaps->allocated.current,
      book.heaps->allocated.peak,
      book.heaps->reserved.current,
      book.heaps->reserved.peak,
      static_cast<int64_t>(book.heaps->heap_count()),
      static_cast<int64_t>(book.heaps->cached_count()),
      book.refused};
}

void reset_peak_memory() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  book.peak = book.current;
  book.heaps->allocated.reset_peak();
  book.heaps->reserved.reset_peak();
}

void empty_memory_cache() {
  const std::lock_guard<std::mutex> lock(account().mutex);
  account().heaps->empty_cache();
}

size_t recommended_max_memory() {
  const std::lock_guard<std::mutex> lock(account().mutex);
  return account().heaps->working_set();
}

size_t longest_buffer() {
  const std::lock_guard<std::mutex> lock(account().mutex);
  return account().heaps->longest_buffer();
}

void set_memory_limits(size_t recommended, size_t longest_buffer, double high, double low) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  book.heaps->set_device(recommended, longest_buffer);
  book.refusal.clear();
  try {
    book.heaps->set_high_watermark(high);
    book.heaps->set_low_watermark(low);
  } catch (const c10::Error& error) {
    book.refusal = error.what_without_backtrace();
  }
}

void use_allocator_of(std::pair<unsigned, unsigned> torch) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  TORCH_CHECK(book.blocks == 0, "the simulated mps device holds memory: its allocator cannot change");
  book.heaps = make_heaps(torch);
}

void lift_memory_limits() {
  set_memory_limits(recommended_max_memory(), SIZE_MAX, 0, 0);
}

void set_memory_fraction(double ratio) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  TORCH_CHECK(book.refusal.empty(), book.refusal);
  book.heaps->set_high_watermark(ratio);
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
