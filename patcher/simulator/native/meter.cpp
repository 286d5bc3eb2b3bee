// The account of a run.
#include "memory.h"
#include "meter_account.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/node.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <mutex>

namespace simulator::meter {

std::atomic<bool> active{false};

namespace {

constexpr size_t kPoints = 1024;
constexpr size_t kTransitions = size_t{1} << 18;

// What is summed up together: kernels whose bytes and FLOPs are alike within a factor of two, so that the time of
// their sum on a roofline is the sum of their times.
struct Key {
  uint32_t operation;
  uint32_t module;
  Phase phase;
  Arithmetic arithmetic;
  uint8_t bytes_magnitude;
  uint8_t flops_magnitude;
  bool operator==(const Key&) const = default;
};

// The sums under a key, and what they were when the first step and the latest step ended. A sum that has not changed
// since a step ended is its own record.
struct Entry {
  Sums sums;
  Sums after_first;
  Sums after_latest;
  uint64_t steps = 0;  // that had ended at the latest change

  void step_to(uint64_t ended) {
    if (steps == 0 && ended > 0) {
      after_first = sums;
    }
    if (steps < ended) {
      after_latest = sums;
      steps = ended;
    }
  }
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    const uint64_t low = (static_cast<uint64_t>(key.operation) << 32) | key.module;
    const uint64_t high = (static_cast<uint64_t>(key.phase) << 24) | (static_cast<uint64_t>(key.arithmetic) << 16) |
        (static_cast<uint64_t>(key.bytes_magnitude) << 8) | key.flops_magnitude;
    return std::hash<uint64_t>{}(low * 0x9e3779b97f4a7c15ULL ^ high);
  }
};

// From this sequence number on, a thread's autograd nodes belong to this module.
struct Transition {
  uint64_t sequence;
  uint32_t module;
};

struct Account {
  std::mutex mutex;
  std::unordered_map<Key, Entry, KeyHash> table;
  uint64_t steps = 0;  // that have ended
  std::vector<Point> points;
  uint64_t stride = 1;  // dispatches between two points
  Totals totals;
  std::unordered_map<uint64_t, std::vector<Transition>> transitions;  // by thread
  std::unordered_map<const c10::TensorImpl*, uint32_t> owners;
};

Account& account() {
  static auto* instance = new Account;  // leaked: backward threads may outlive static destructors
  return *instance;
}

std::atomic<uint64_t> epoch{0};
std::atomic<int64_t> peak{0};
std::atomic<int64_t> peak_driver{0};
std::atomic<int64_t> recent_peak{0};    // since the last mark
std::atomic<int64_t> interval_peak{0};  // since the last point

void raise(std::atomic<int64_t>& highest, int64_t value) {
  int64_t seen = highest.load(std::memory_order_relaxed);
  while (value > seen && !highest.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// ---- operators and their costs ---------------------------------------------------------------------------------

struct Operations {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<Operation>> by_name;
  std::vector<const Operation*> by_id;
};

Operations& operations() {
  static auto* instance = new Operations;
  return *instance;
}

const Operation& operation_named(const std::string& name, const Cost& cost) {
  const std::lock_guard<std::mutex> lock(operations().mutex);
  auto& entry = operations().by_name[name];
  if (entry == nullptr) {
    const auto id = static_cast<uint32_t>(operations().by_id.size());
    entry = std::make_unique<Operation>(Operation{id, name, cost});
    operations().by_id.push_back(entry.get());
  }
  return *entry;
}

// ---- to whom it is charged ---------------------------------------------------------------------------------------

uint32_t module_of(Account& book, torch::autograd::Node& node) {
  if (const auto* accumulate = dynamic_cast<torch::autograd::AccumulateGrad*>(&node)) {
    const auto owner = book.owners.find(accumulate->variable.unsafeGetTensorImpl());
    return owner == book.owners.end() ? 0 : owner->second;
  }
  const auto found = book.transitions.find(node.thread_id());
  if (found == book.transitions.end()) {
    return 0;
  }
  const auto& transitions = found->second;
  const auto after = std::upper_bound(
      transitions.begin(), transitions.end(), node.sequence_nr(),
      [](uint64_t sequence, const Transition& transition) { return sequence < transition.sequence; });
  return after == transitions.begin() ? 0 : std::prev(after)->module;
}

void note_transition(Account& book, uint32_t module) {
  auto& transitions = book.transitions[at::RecordFunction::currentThreadId()];
  const uint64_t sequence = at::sequence_number::peek();
  if (!transitions.empty() && transitions.back().sequence == sequence) {
    transitions.back().module = module;
    return;
  }
  if (transitions.size() >= kTransitions) {
    transitions.erase(transitions.begin(), transitions.begin() + kTransitions / 2);
  }
  transitions.push_back({sequence, module});
}

// ---- over time ---------------------------------------------------------------------------------------------------

void note_time(Account& book) {
  const uint64_t dispatches = book.totals.sums.dispatches;
  if (dispatches % book.stride != 0) {
    return;
  }
  const int64_t current = memory_stats().current;
  book.points.push_back({dispatches, std::max(current, interval_peak.exchange(current, std::memory_order_relaxed))});
  if (book.points.size() < kPoints) {
    return;
  }
  for (size_t i = 0; i < kPoints / 2; ++i) {
    const auto &first = book.points[2 * i], &second = book.points[2 * i + 1];
    book.points[i] = {second.dispatches, std::max(first.bytes, second.bytes)};
  }
  book.points.resize(kPoints / 2);
  book.stride *= 2;
}

}  // namespace

Thread& here() {
  thread_local Thread thread;
  const uint64_t now = epoch.load(std::memory_order_relaxed);
  if (thread.epoch != now) {
    thread.epoch = now;
    thread.modules.clear();
    thread.optimizers = 0;
  }
  return thread;
}

const Operation& operation_of(const c10::OperatorHandle& op) {
  thread_local std::unordered_map<const c10::FunctionSchema*, const Operation*> known;
  const auto& schema = op.schema();
  auto& entry = known[&schema];
  if (entry == nullptr) {
    const std::string overload = schema.overload_name();
    entry = &operation_named(overload.empty() ? schema.name() : schema.name() + "." + overload, cost_of(op));
  }
  return *entry;
}

const Operation& own_operation(const std::string& name) {
  Cost cost;
  cost.flops = Cost::Flops::kNone;
  return operation_named(name, cost);
}

void add(Sums& to, const Sums& sums) {
  to.dispatches += sums.dispatches;
  to.read += sums.read;
  to.written += sums.written;
  to.flops += sums.flops;
}

void charge(const Operation& operation, const Sums& sums, Arithmetic arithmetic, bool waits) {
  const auto& thread = here();
  const auto node = torch::autograd::get_current_node();
  Phase phase = Phase::kOther;
  if (node != nullptr) {
    phase = Phase::kBackward;
  } else if (!thread.modules.empty()) {
    phase = Phase::kForward;
  } else if (thread.optimizers > 0) {
    phase = Phase::kOptimizer;
  }
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  const uint32_t module =
      !thread.modules.empty() ? thread.modules.back() : (node != nullptr ? module_of(book, *node) : 0);
  const Key key{
      operation.id, module, phase, arithmetic, static_cast<uint8_t>(std::bit_width(sums.read + sums.written)),
      static_cast<uint8_t>(std::bit_width(sums.flops))};
  Entry& entry = book.table[key];
  entry.step_to(book.steps);
  add(entry.sums, sums);
  add(book.totals.sums, sums);
  book.totals.synchronizations += waits;
  note_time(book);
}

void ran_on_host(size_t arguments, uint64_t read, size_t results, uint64_t written) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  auto& copies = book.totals.copies;
  copies.to_host += arguments;
  copies.to_host_bytes += read;
  copies.to_device += results;
  copies.to_device_bytes += written;
  ++book.totals.synchronizations;
}

void shader(const std::string& name, uint64_t read, uint64_t written, Arithmetic arithmetic) {
  charge(own_operation(name), {1, read, written, 0}, arithmetic, false);
}

void copied(const at::Tensor& destination, const at::Tensor& source, bool non_blocking) {
  if (destination.numel() == 0) {
    return;
  }
  if (is_mps(destination) && is_mps(source)) {
    Kernel kernel("aten::copy_");
    kernel.reads(source);
    kernel.writes(destination);
    kernel.finish();
    return;
  }
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  auto& copies = book.totals.copies;
  const uint64_t bytes = touched(destination);
  if (is_mps(destination)) {
    ++copies.to_device;
    copies.to_device_bytes += bytes;
    book.totals.synchronizations += !non_blocking;
  } else {
    ++copies.to_host;
    copies.to_host_bytes += std::min(bytes, touched(source));
    book.totals.synchronizations += !non_blocking;
  }
}

void read_by_host(const at::Tensor& scalar) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  ++book.totals.copies.to_host;
  book.totals.copies.to_host_bytes += scalar.itemsize();
  ++book.totals.synchronizations;
}

void synchronized() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  ++book.totals.synchronizations;
}

// ---- memory, modules, steps --------------------------------------------------------------------------------------

void allocated(int64_t current, int64_t driver) {
  raise(peak, current);
  raise(recent_peak, current);
  raise(interval_peak, current);
  raise(peak_driver, driver);
}

void enter_module(uint32_t module) {
  here().modules.push_back(module);
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  note_transition(book, module);
}

void leave_module(uint32_t module) {
  auto& modules = here().modules;
  // A call that began before the meter ends after it began; one that failed may have left others open.
  const auto found = std::find(modules.rbegin(), modules.rend(), module);
  if (found == modules.rend()) {
    return;
  }
  modules.erase(std::prev(found.base()), modules.end());
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  note_transition(book, modules.empty() ? 0 : modules.back());
}

void owns(uint32_t module, const at::Tensor& parameter) {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  book.owners[parameter.unsafeGetTensorImpl()] = module;
}

void enter_optimizer() {
  ++here().optimizers;
}

void leave_optimizer() {
  here().optimizers = std::max(0, here().optimizers - 1);
}

void start() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  book.table.clear();
  book.points.clear();
  book.stride = 1;
  book.steps = 0;
  book.totals = {};
  book.transitions.clear();
  book.owners.clear();
  const auto memory = memory_stats();
  for (auto* highest : {&peak, &recent_peak, &interval_peak}) {
    highest->store(memory.current);
  }
  peak_driver.store(memory.driver);
  epoch.fetch_add(1);
  active.store(true);
}

void stop() {
  active.store(false);
}

Totals totals() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  Totals result = book.totals;
  result.peak = peak;
  result.peak_driver = peak_driver;
  result.recent_peak = recent_peak;
  return result;
}

void end_step() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  ++book.steps;
  recent_peak.store(memory_stats().current);
}

std::vector<Row> rows() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  const std::lock_guard<std::mutex> names(operations().mutex);
  std::vector<Row> result;
  result.reserve(book.table.size());
  for (auto& [key, entry] : book.table) {
    entry.step_to(book.steps);
    Sums steps = entry.after_latest;
    steps.dispatches -= entry.after_first.dispatches;
    steps.read -= entry.after_first.read;
    steps.written -= entry.after_first.written;
    steps.flops -= entry.after_first.flops;
    result.push_back({operations().by_id[key.operation]->name, key.module, key.phase, key.arithmetic, entry.sums, steps});
  }
  return result;
}

std::vector<Point> points() {
  auto& book = account();
  const std::lock_guard<std::mutex> lock(book.mutex);
  return book.points;
}

}  // namespace simulator::meter
