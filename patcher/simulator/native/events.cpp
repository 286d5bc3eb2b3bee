#include "events.h"

#include "faults.h"
#include "fork.h"

#include <c10/util/Exception.h>

#include <chrono>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace simulator::events {
namespace {

using Clock = std::chrono::steady_clock;

// Everything has happened when the call returns, so an event is the time at which it was recorded. Copies that a fault
// makes late have not.
struct Event {
  bool timing = false;
  bool recorded = false;
  Clock::time_point time;
};

struct Table {
  std::mutex mutex;
  std::unordered_map<uint32_t, Event> in_use;
  std::vector<uint32_t> returned;  // numbers that are given out again
  uint32_t last = 0;
};

Table& table() {
  static auto* instance = new Table;  // leaked: events are released by Python destructors, also at exit
  return *instance;
}

Event& find(uint32_t id) {
  const auto found = table().in_use.find(id);
  TORCH_CHECK(found != table().in_use.end(), "Invalid Event ID: ", id);
  return found->second;
}

}  // namespace

uint32_t acquire(bool timing) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  uint32_t id = 0;
  if (table().returned.empty()) {
    id = ++table().last;
  } else {
    id = table().returned.back();
    table().returned.pop_back();
  }
  table().in_use[id].timing = timing;
  return id;
}

void release(uint32_t id) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  find(id);
  table().in_use.erase(id);
  table().returned.push_back(id);
}

void record(uint32_t id) {
  check_fork();
  const std::lock_guard<std::mutex> lock(table().mutex);
  auto& event = find(id);
  event.recorded = true;
  event.time = Clock::now();
}

void check(uint32_t id) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  find(id);
}

bool query(uint32_t id) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  return find(id).recorded && !copies_pending.load(std::memory_order_relaxed);
}

double elapsed(uint32_t start, uint32_t end) {
  const std::lock_guard<std::mutex> lock(table().mutex);
  const Event& first = find(start);
  const Event& last = find(end);
  // A Mac waits here for ever for an event that was never recorded, or that keeps no time.
  TORCH_CHECK(first.timing && last.timing, "Events were not created with argument 'enable_timing=True'");
  TORCH_CHECK(first.recorded && last.recorded, "Both events must be recorded before calculating elapsed time.");
  TORCH_CHECK(last.time > first.time, "End event ", end, " was not recorded after start event ", start);
  return std::chrono::duration<double, std::milli>(last.time - first.time).count();
}

}  // namespace simulator::events
