// What torch asks of every accelerator: devices, streams and events (guard), and the mps hooks.
#include "events.h"
#include "faults.h"
#include "fork.h"
#include "index_errors.h"
#include "meter.h"
#include "simulator.h"

#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/DeviceCapability.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <sstream>

namespace {

std::pair<unsigned, unsigned> macos_version{0, 0};
std::pair<unsigned, unsigned> torch_version{2, 14};

// The host waits for the device.
void synchronize() {
  simulator::check_fork();
  simulator::settle_pending_copies();
  if (simulator::meter::on()) {
    simulator::meter::synchronized();
  }
  simulator::index_errors::raise();
}

// torch keeps the event of a torch.Event behind a pointer; it is its number.
uint32_t number(const void* event) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(event));
}

c10::Stream default_stream() {
  return c10::Stream(c10::Stream::DEFAULT, simulator::device());
}

class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override {
    return simulator::kType;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    setDevice(device);
    return simulator::device();
  }
  c10::Device getDevice() const override {
    return simulator::device();
  }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.type() == simulator::kType, "expected an mps device, got ", device);
    TORCH_CHECK(device.index() <= 0, "there is one mps device, got ", device);
  }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override {
    return default_stream();
  }
  c10::Stream getDefaultStream(c10::Device) const override {
    return default_stream();
  }
  c10::Stream getNewStream(c10::Device, int) const override {
    return default_stream();
  }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    return default_stream();
  }
  c10::Stream exchangeStream(c10::Stream) const override {
    return default_stream();
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }
  c10::DeviceCapability getDeviceCapability(c10::Device) const override {
    c10::DeviceCapability capability;
    capability.capability_data.capability_bits = 0;
    // torch 2.13, ATen/mps/MPSGuardImpl.h
    for (const auto kind :
         {c10::kIndex_Byte, c10::kIndex_Char, c10::kIndex_Short, c10::kIndex_Int, c10::kIndex_Long, c10::kIndex_Half,
          c10::kIndex_Float, c10::kIndex_ComplexHalf, c10::kIndex_ComplexFloat, c10::kIndex_Bool, c10::kIndex_BFloat16,
          c10::kIndex_UInt16, c10::kIndex_UInt32, c10::kIndex_UInt64}) {
      capability.capability_data.capability_bits |= 1ULL << kind;
    }
    return capability;
  }
  void record(
      void** event, const c10::Stream& stream, const c10::DeviceIndex index, const c10::EventFlag flag) const override {
    TORCH_CHECK(
        index == -1 || index == stream.device_index(), "Event device index ", static_cast<int>(index),
        " does not match recording stream's device index ", static_cast<int>(stream.device_index()), ".");
    if (*event == nullptr) {
      const auto id = simulator::events::acquire(flag == c10::EventFlag::BACKEND_DEFAULT);
      *event = reinterpret_cast<void*>(static_cast<uintptr_t>(id));
    }
    simulator::events::record(number(*event));
  }
  void block(void* event, const c10::Stream&) const override {
    simulator::events::check(number(event));
  }
  bool queryEvent(void* event) const override {
    return simulator::events::query(number(event));
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    if (event != nullptr) {
      simulator::events::release(number(event));
    }
  }
  void synchronizeEvent(void* event) const override {
    simulator::events::check(number(event));
  }
  double elapsedTime(void* start, void* end, const c10::DeviceIndex) const override {
    TORCH_CHECK(start != nullptr && end != nullptr, "Both events must be recorded before calculating elapsed time.");
    return simulator::events::elapsed(number(start), number(end));
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    synchronize();
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    synchronize();
  }
};

C10_REGISTER_GUARD_IMPL(MPS, Guard)

// torch.mps.profiler: there are no signposts, but a trace is on or off.
std::atomic<bool> tracing{false};

// As MPSProfiler::StartTrace (aten/src/ATen/mps/MPSProfiler.mm): empty parts are passed over.
void start_trace(const std::string& mode) {
  TORCH_CHECK(!tracing, "Tracing Signposts is already enabled ");
  std::stringstream parts(mode);
  std::string part;
  while (std::getline(parts, part, ',')) {
    if (!part.empty()) {
      TORCH_CHECK(part == "interval" || part == "event", "Invalid Signpost trace mode: ", part);
      tracing = true;
    }
  }
}

}  // namespace

// torch looks the class up in its registry under exactly this name.
struct MPSHooks final : at::MPSHooksInterface {
  void init() const override {}
  bool hasMPS() const override {
    return true;
  }
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool isOnMacOSorNewer(unsigned major, unsigned minor) const override {
    return std::make_pair(major, minor) <= macos_version;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return 1;
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return 0;
  }
  void setCurrentDevice(c10::DeviceIndex index) const override {
    TORCH_CHECK(index == 0, "there is one mps device, got index ", static_cast<int>(index));
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    setCurrentDevice(index);
    return 0;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override {
    return 0;
  }

  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return simulator::default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return simulator::new_generator();
  }

  at::Allocator* getMPSDeviceAllocator() const override {
    return &simulator::allocator();
  }
  at::Allocator* getPinnedMemoryAllocator() const override {
    return simulator::pinned_allocator();
  }
  bool isPinnedPtr(const void* data) const override {
    return simulator::is_pinned(data);
  }
  c10::Device getDeviceFromPtr(void*) const override {
    return simulator::device();
  }
  void emptyCache() const override {
    simulator::check_fork();
    simulator::empty_memory_cache();
  }
  size_t getCurrentAllocatedMemory() const override {
    return static_cast<size_t>(simulator::memory_stats().allocated);
  }
  size_t getDriverAllocatedMemory() const override {
    return static_cast<size_t>(simulator::memory_stats().driver);
  }
  size_t getRecommendedMaxMemory() const override {
    return simulator::recommended_max_memory();
  }
  size_t getMaxBufferLength() const override {
    return simulator::longest_buffer();
  }
  void setMemoryFraction(double ratio) const override {
    simulator::set_memory_fraction(ratio);
  }

  void deviceSynchronize() const override {
    synchronize();
  }
  void commitStream() const override {
    simulator::check_fork();
  }
  void profilerStartTrace(const std::string& mode, bool) const override {
    start_trace(mode);
  }
  void profilerStopTrace() const override {
    tracing = false;
  }

  uint32_t acquireEvent(bool timing) const override {
    return simulator::events::acquire(timing);
  }
  void releaseEvent(uint32_t id) const override {
    simulator::events::release(id);
  }
  void recordEvent(uint32_t id) const override {
    simulator::events::record(id);
  }
  void waitForEvent(uint32_t id) const override {
    simulator::events::check(id);
  }
  void synchronizeEvent(uint32_t id) const override {
    simulator::events::check(id);
  }
  bool queryEvent(uint32_t id) const override {
    return simulator::events::query(id);
  }
  double elapsedTimeOfEvents(uint32_t start, uint32_t end) const override {
    return simulator::events::elapsed(start, end);
  }
};

namespace simulator {
std::pair<unsigned, unsigned> macos() {
  return macos_version;
}

void set_macos(unsigned major, unsigned minor) {
  macos_version = {major, minor};
}

void set_mac_torch(unsigned major, unsigned minor) {
  torch_version = {major, minor};
  use_allocator_of(torch_version);
}

std::pair<unsigned, unsigned> mac_torch() {
  return torch_version;
}

bool put_hooks_in_place() {
  auto& hooks = const_cast<at::MPSHooksInterface&>(at::detail::getMPSHooks());
  if (hooks.hasMPS()) {
    return true;
  }
  // torch was asked about mps before and keeps the placeholder that it made then (ATen/detail/MPSHooksInterface.cpp,
  // a function-local static that owns it). Neither class has data: the placeholder becomes ours where it lies.
  static_assert(sizeof(::MPSHooks) == sizeof(at::MPSHooksInterface));
  hooks.~MPSHooksInterface();
  new (&hooks)::MPSHooks;
  return false;
}
}  // namespace simulator

namespace at {
C10_REGISTER_CLASS(MPSHooksRegistry, MPSHooks, ::MPSHooks)
}
