// What torch asks of every accelerator: devices, streams and events (guard), and the mps hooks.
#include "meter.h"
#include "simulator.h"

#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/DeviceCapability.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>
#include <mutex>

namespace {

std::pair<unsigned, unsigned> macos_version{0, 0};

using Clock = std::chrono::steady_clock;

// Everything has happened when the call returns, so an event is the time at which it was recorded.
struct Event {
  Clock::time_point recorded;
  bool is_recorded = false;
};

void note_synchronization() {
  if (simulator::meter::on()) {
    simulator::meter::synchronized();
  }
}

double milliseconds(const Event& start, const Event& end) {
  TORCH_CHECK(start.is_recorded && end.is_recorded, "Both events must be recorded before calculating elapsed time.");
  return std::chrono::duration<double, std::milli>(end.recorded - start.recorded).count();
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
    for (const auto kind :
         {c10::kIndex_Byte, c10::kIndex_Char, c10::kIndex_Short, c10::kIndex_Int, c10::kIndex_Long, c10::kIndex_Half,
          c10::kIndex_Float, c10::kIndex_ComplexHalf, c10::kIndex_ComplexFloat, c10::kIndex_Bool,
          c10::kIndex_BFloat16}) {
      capability.capability_data.capability_bits |= 1ULL << kind;
    }
    return capability;
  }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new Event;
    }
    *static_cast<Event*>(*event) = {Clock::now(), true};
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void synchronizeEvent(void*) const override {}
  double elapsedTime(void* start, void* end, const c10::DeviceIndex) const override {
    TORCH_CHECK(start != nullptr && end != nullptr, "Both events must be recorded before calculating elapsed time.");
    return milliseconds(*static_cast<Event*>(start), *static_cast<Event*>(end));
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {
    note_synchronization();
  }
};

C10_REGISTER_GUARD_IMPL(MPS, Guard)

// torch.mps.Event names its events by number.
struct EventTable {
  std::mutex mutex;
  std::unordered_map<uint32_t, Event> events;
  uint32_t last = 0;
};

EventTable& event_table() {
  static auto* table = new EventTable;  // leaked: events are released by Python destructors, also at exit
  return *table;
}

Event& find_event(uint32_t id) {
  const auto found = event_table().events.find(id);
  TORCH_CHECK(found != event_table().events.end(), "there is no mps event ", id);
  return found->second;
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
    note_synchronization();
  }
  void commitStream() const override {}
  void profilerStartTrace(const std::string& mode, bool) const override {
    TORCH_CHECK(
        mode == "interval" || mode == "event" || mode == "interval,event" || mode == "event,interval",
        "Invalid Signpost trace mode: ", mode, " (accepted: interval, event, or both separated by a comma)");
  }
  void profilerStopTrace() const override {}

  uint32_t acquireEvent(bool) const override {
    const std::lock_guard<std::mutex> lock(event_table().mutex);
    const uint32_t id = ++event_table().last;
    event_table().events.emplace(id, Event{});
    return id;
  }
  void releaseEvent(uint32_t id) const override {
    const std::lock_guard<std::mutex> lock(event_table().mutex);
    event_table().events.erase(id);
  }
  void recordEvent(uint32_t id) const override {
    const std::lock_guard<std::mutex> lock(event_table().mutex);
    find_event(id) = {Clock::now(), true};
  }
  void waitForEvent(uint32_t id) const override {
    const std::lock_guard<std::mutex> lock(event_table().mutex);
    find_event(id);
  }
  void synchronizeEvent(uint32_t id) const override {
    waitForEvent(id);
  }
  bool queryEvent(uint32_t id) const override {
    waitForEvent(id);
    return true;
  }
  double elapsedTimeOfEvents(uint32_t start, uint32_t end) const override {
    const std::lock_guard<std::mutex> lock(event_table().mutex);
    return milliseconds(find_event(start), find_event(end));
  }
};

namespace simulator {
void set_macos(unsigned major, unsigned minor) {
  macos_version = {major, minor};
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
