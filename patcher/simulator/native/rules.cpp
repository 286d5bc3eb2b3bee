// What a Mac's mps device refuses, and what it sends to the CPU.
#include "rules.h"
#include "witness.h"
#include "words.h"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <optional>
#include <sstream>

namespace simulator::rules {
namespace {

struct State {
  Data data;
  std::atomic<bool> cpu_fallback{false};
  std::mutex mutex;
  Counts missing, fell_back, refused;
  std::unordered_set<std::string> said;  // rules that have warned
  std::atomic<uint64_t> float64{0};
};

State& state() {
  static auto* instance = new State;  // leaked: backward threads may outlive static destructors
  return *instance;
}

uint64_t bit(c10::ScalarType dtype) {
  return uint64_t{1} << static_cast<int>(dtype);
}

std::string full_name(const c10::OperatorHandle& op) {
  return c10::toString(op.operator_name());
}

void count(Counts& counts, const std::string& name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  ++counts[name];
}

Counts copy_of(const Counts& counts) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  return counts;
}

void count_on_cpu(const std::string& name) {
  count(state().fell_back, name);
  witness::tell("fell_back", name);
}

// As TORCH_WARN_ONCE, by the name of what is said. Without a place torch adds none to the message.
void warn_once(
    const std::string& name, const std::string& message, const std::optional<c10::SourceLocation>& place = {}) {
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (!state().said.insert(name).second && !c10::WarningUtils::get_warnAlways()) {
      return;
    }
  }
  c10::warn(c10::Warning(
      c10::UserWarning(), place.value_or(c10::SourceLocation{}), message, /*verbatim=*/!place.has_value()));
}

// torch's own text and place: MPSFallback.mm, mps_fallback. Only the first operator of a process is ever named.
void warn_of_fallback(const std::string& name) {
  const c10::SourceLocation place{
      "mps_fallback", "/Users/runner/work/pytorch/pytorch/pytorch/aten/src/ATen/mps/MPSFallback.mm", 14};
  warn_once(
      "mps_fallback",
      "The operator '" + name + "' is not currently supported on the MPS backend and will fall back to run on the CPU."
      " This may have performance implications.",
      place);
}

// Above zero while the parts of an operator run that is one kernel on a Mac, or wholly on the CPU: no rule is for them.
thread_local int parts = 0;

// ---- rules -------------------------------------------------------------------------------------------------------

std::string text_of(const c10::IValue& value) {
  if (value.isNone()) {
    return "None";
  }
  if (value.isBool()) {
    return value.toBool() ? "True" : "False";
  }
  if (value.isComplexDouble()) {
    return value.toComplexDouble().imag() != 0 ? "complex" : "real";
  }
  if (value.isString()) {
    return value.toStringRef();
  }
  if (value.isTensor()) {
    return value.toTensor().defined() ? "Tensor" : "None";
  }
  std::ostringstream text;
  text << value;
  return text.str();
}

// Calls `visit(tensor, position)` for every tensor on mps, also in lists.
template <class Visit>
void each_tensor(const c10::OperatorHandle& op, const c10::Stack& stack, Visit visit) {
  const size_t total = op.schema().arguments().size();
  const size_t first = stack.size() - total;
  for (size_t i = 0; i < total; ++i) {
    const c10::IValue& value = stack[first + i];
    if (value.isTensor()) {
      if (is_mps(value.toTensor())) {
        visit(value.toTensor(), i);
      }
    } else if (value.isTensorList() || value.isOptionalTensorList()) {
      for (const c10::IValue& item : value.toListRef()) {
        if (item.isTensor() && is_mps(item.toTensor())) {
          visit(item.toTensor(), i);
        }
      }
    }
  }
}

int64_t matrix_bytes(const at::Tensor& tensor) {
  return tensor.dim() < 2 ? 0 : tensor.size(-2) * tensor.size(-1) * static_cast<int64_t>(tensor.itemsize());
}

bool too_large(const Rule& rule, const at::Tensor& tensor) {
  if (rule.dim_over >= 0 && tensor.dim() <= rule.dim_over) {
    return false;
  }
  if (rule.numel_over >= 0 && tensor.numel() <= rule.numel_over) {
    return false;
  }
  if (rule.sides_over >= 0 &&
      (tensor.dim() < 2 || std::min(tensor.size(-2), tensor.size(-1)) <= rule.sides_over)) {
    return false;
  }
  if (rule.matrix_bytes_over >= 0 && matrix_bytes(tensor) <= rule.matrix_bytes_over) {
    return false;
  }
  if (rule.size_over >= 0) {
    for (const int64_t size : tensor.sizes()) {
      if (size > rule.size_over) {
        return true;
      }
    }
    return false;
  }
  return true;
}

unsigned macos_number() {
  const auto [major, minor] = macos();
  return major * 100 + minor;
}

// AdaptivePooling.mm, set_kernel_params: both sizes larger or both smaller, and one a multiple of the other.
bool divide(c10::IntArrayRef sizes, const std::vector<int64_t>& others) {
  const size_t first = sizes.size() - others.size();
  bool larger = true, smaller = true;
  for (size_t i = 0; i < others.size(); ++i) {
    const int64_t size = sizes[first + i], other = others[i];
    larger = larger && other != 0 && size % other == 0;
    smaller = smaller && size != 0 && other % size == 0;
  }
  return larger || smaller;
}

std::vector<int64_t> sizes_in(const c10::IValue& value) {
  if (value.isIntList()) {
    return value.toIntVector();
  }
  std::vector<int64_t> sizes;
  for (const auto& size : value.toSymIntVector()) {
    sizes.push_back(size.guard_int(__FILE__, __LINE__));
  }
  return sizes;
}

const c10::IValue* argument_named(const std::string& name, const c10::OperatorHandle& op, const c10::Stack& stack) {
  const auto& arguments = op.schema().arguments();
  const size_t first = stack.size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() == name) {
      return &stack[first + i];
    }
  }
  return nullptr;
}

bool matches(const c10::IValue& value, const std::string& wanted) {
  if (wanted == "negative" || wanted == "nonzero") {
    const bool number = value.isInt() || value.isDouble();
    return number && (wanted == "negative" ? value.toScalar().toDouble() < 0 : value.toScalar().toDouble() != 0);
  }
  return text_of(value) == wanted;
}

bool applies(const Rule& rule, const c10::OperatorHandle& op, const c10::Stack& stack) {
  if (rule.before_macos != 0 && macos_number() >= rule.before_macos) {
    return false;
  }
  if (rule.when.empty()) {
    return true;
  }
  const c10::IValue* value = argument_named(rule.when, op, stack);
  return value != nullptr && matches(*value, rule.equals);
}

std::string filled(std::string text, const std::vector<std::pair<std::string, std::string>>& values) {
  for (const auto& [key, value] : values) {
    for (size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + value.size())) {
      text.replace(at, key.size(), value);
    }
  }
  return text;
}

std::string message_of(
    const Rule& rule, const c10::OperatorHandle& op, const at::Tensor& tensor, size_t position, uint64_t dtypes) {
  std::ostringstream sizes, all;
  sizes << tensor.sizes();
  const char* comma = "";
  for (int i = 0; i < static_cast<int>(c10::ScalarType::NumOptions); ++i) {
    if (dtypes >> i & 1) {
      all << comma << c10::toString(static_cast<c10::ScalarType>(i));
      comma = ", ";
    }
  }
  return filled(
      rule.message,
      {{"{op}", full_name(op)},
       {"{name}", words::kernel_name(full_name(op))},
       {"{metal}", words::metal_name(c10::toString(tensor.scalar_type()))},
       {"{argument}", op.schema().arguments()[position].name()},
       {"{dtype}", c10::toString(tensor.scalar_type())},
       {"{dtypes}", all.str()},
       {"{size}", sizes.str()},
       {"{numel}", std::to_string(tensor.numel())},
       {"{dim}", std::to_string(tensor.dim())},
       {"{bytes}", std::to_string(matrix_bytes(tensor))},
       {"{twice_bytes}", std::to_string(2 * matrix_bytes(tensor))}});
}

[[noreturn]] void refuse(const Rule& rule, const std::string& message) {
  count_refused(rule.name);
  if (rule.error == "TypeError") {
    TORCH_CHECK_TYPE(false, message);
  }
  if (rule.error == "NotImplementedError") {
    TORCH_CHECK_NOT_IMPLEMENTED(false, message);
  }
  if (rule.error == "SyntaxError") {
    throw c10::SyntaxError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, message);
  }
  TORCH_CHECK(false, message);
}

// Whether the operator runs on the CPU by this rule.
bool check_rule(const Rule& rule, const c10::OperatorHandle& op, const c10::Stack& stack) {
  uint64_t floating = 0;
  std::optional<int64_t> size;
  bool on_cpu = false;
  each_tensor(op, stack, [&](const at::Tensor& tensor, size_t position) {
    const auto& names = rule.arguments;
    if (!names.empty() &&
        std::find(names.begin(), names.end(), op.schema().arguments()[position].name()) == names.end()) {
      return;
    }
    const auto dtype = tensor.scalar_type();
    if (rule.dtypes != 0 && (rule.dtypes & bit(dtype)) == 0) {
      return;
    }
    if (!too_large(rule, tensor)) {
      return;
    }
    if (!rule.divisible.empty()) {
      const c10::IValue* others = argument_named(rule.divisible, op, stack);
      if (others == nullptr || divide(tensor.sizes(), sizes_in(*others))) {
        return;
      }
    }
    if (rule.channels_last && tensor.suggest_memory_format() != c10::MemoryFormat::ChannelsLast) {
      return;
    }
    if (rule.mixed) {
      if (!c10::isFloatingType(dtype) || tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
        return;
      }
      floating |= bit(dtype);
      if ((floating & (floating - 1)) == 0) {
        return;
      }
    }
    if (rule.unequal_dim >= 0) {
      const int64_t found = tensor.dim() > rule.unequal_dim ? tensor.size(rule.unequal_dim) : 0;
      if (size.value_or(found) == found) {
        size = found;
        return;
      }
    }
    if (!applies(rule, op, stack)) {
      return;
    }
    const std::string message = message_of(rule, op, tensor, position, rule.mixed ? floating : bit(dtype));
    if (rule.error != "UserWarning") {
      refuse(rule, message);
    }
    on_cpu = true;
    warn_once(rule.name, message);
  });
  return on_cpu;
}

// ---- composite operators that have a kernel of their own on a Mac -------------------------------------------------

struct Parts {
  Parts() {
    ++parts;
  }
  ~Parts() {
    --parts;
  }
};

// The composite kernel is what the table holds for the CPU; it runs with the arguments as they are.
void guarded(const c10::OperatorHandle& op, c10::Stack* stack) {
  thread_local std::unordered_map<const c10::FunctionSchema*, std::unique_ptr<const Verdict>> known;
  auto& known_verdict = known[&op.schema()];
  if (known_verdict == nullptr) {
    known_verdict = verdict(op);
    TORCH_INTERNAL_ASSERT(known_verdict != nullptr);
  }
  check(*known_verdict, op, *stack);
  const Parts running;
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}

}  // namespace

void set_data(Data data) {
  state().cpu_fallback = data.cpu_fallback;
  state().data = std::move(data);
}

void set_cpu_fallback(bool enabled) {
  state().cpu_fallback = enabled;
}

bool cpu_fallback() {
  return state().cpu_fallback;
}

bool is_present(const c10::OperatorHandle& op) {
  return state().data.present.count(full_name(op)) != 0;
}

std::unique_ptr<const Verdict> verdict(const c10::OperatorHandle& op) {
  const Data& data = state().data;
  const std::string name = full_name(op);
  auto result = std::make_unique<Verdict>();
  result->on_cpu = data.on_cpu.count(name) != 0;
  result->missing = !result->on_cpu && !is_present(op);
  const auto found = data.refusals.find(name);
  if (found != data.refusals.end() && !result->missing && !result->on_cpu) {
    result->rules = found->second;
  }
  const auto everywhere = data.refusals.find("*");
  if (everywhere != data.refusals.end() && !result->missing && !result->on_cpu) {
    for (const Rule& rule : everywhere->second) {
      if (std::find(rule.except.begin(), rule.except.end(), name) == rule.except.end()) {
        result->rules.push_back(rule);
      }
    }
  }
  for (const Rule& rule : result->rules) {
    const bool sized = !rule.divisible.empty() || rule.dim_over >= 0 || rule.size_over >= 0 || rule.numel_over >= 0 ||
        rule.sides_over >= 0 || rule.matrix_bytes_over >= 0 || rule.unequal_dim >= 0 || rule.channels_last;
    result->sizes = result->sizes || sized;
    result->mixed = result->mixed || rule.mixed;
    if (!sized && !rule.mixed) {
      result->watched |= rule.dtypes != 0 ? rule.dtypes : ~uint64_t{0};
    }
  }
  if (result->missing || result->on_cpu || !result->rules.empty()) {
    return result;
  }
  return nullptr;
}

// torch's own text: aten/src/ATen/mps/MPSFallback.mm, mps_error_fallback.
void throw_missing(const c10::OperatorHandle& op) {
  const std::string name = full_name(op);
  count(state().missing, name);
  witness::tell("missing", name);
  TORCH_CHECK_NOT_IMPLEMENTED(
      false,
      "The operator '", name, "' is not currently implemented for the MPS device. If you want this op to be considered"
      " for addition please comment on https://github.com/pytorch/pytorch/issues/141287 and mention use-case, that"
      " resulted in missing op as well as commit hash ", state().data.commit,
      ". As a temporary fix, you can set the environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a"
      " fallback for this op. WARNING: this will be slower than running natively on MPS.");
}

bool check(const Verdict& verdict, const c10::OperatorHandle& op, const c10::Stack& stack) {
  if (verdict.missing || verdict.on_cpu) {
    if (parts == 0) {
      if (verdict.missing && !state().cpu_fallback) {
        throw_missing(op);
      }
      const std::string name = full_name(op);
      count_on_cpu(name);
      warn_of_fallback(name);
    }
    return true;
  }
  bool on_cpu = false;
  uint64_t dtypes = 0;
  each_tensor(op, stack, [&](const at::Tensor& tensor, size_t) { dtypes |= bit(tensor.scalar_type()); });
  const bool several = (dtypes & (dtypes - 1)) != 0;
  if (parts == 0 && ((dtypes & verdict.watched) != 0 || (verdict.mixed && several) || verdict.sizes)) {
    for (const Rule& rule : verdict.rules) {
      on_cpu = check_rule(rule, op, stack) || on_cpu;
    }
  }
  if (on_cpu) {
    count_on_cpu(full_name(op));
  }
  return on_cpu;
}

void check_copy(const at::Tensor& destination, const at::Tensor& source) {
  if (destination.scalar_type() == source.scalar_type() || !is_mps(source)) {
    return;
  }
  for (const auto dtype : {source.scalar_type(), destination.scalar_type()}) {
    if (c10::isFloat8Type(dtype)) {
      count_refused("float8");
      TORCH_CHECK_TYPE(
          false, "Trying to convert ", dtype, " to the MPS backend but it does not have support for that dtype.");
    }
  }
}

void guard_composites() {
  static auto* at_backend = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::MPS, __FILE__, __LINE__);
  static auto* at_autograd =
      new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::AutogradMPS, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  const auto guard = [&](const std::string& full) {
    const size_t dot = full.find('.');
    const auto op =
        dispatcher.findSchema({full.substr(0, dot), dot == std::string::npos ? "" : full.substr(dot + 1)});
    if (full.rfind("aten::", 0) != 0 || !op.has_value() || op->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
        op->hasKernelForDispatchKey(c10::DispatchKey::MPS)) {
      return;
    }
    const bool implicit = op->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
    if (!implicit && !op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd)) {
      return;
    }
    const std::string name = full.substr(6);
    at_backend->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&guarded>());
    if (implicit) {
      at_autograd->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&guarded>());
    }
  };
  for (const auto& [name, refusals] : state().data.refusals) {
    guard(name);
  }
  for (const auto& name : state().data.on_cpu) {
    guard(name);
  }
}

Counts missing() {
  return copy_of(state().missing);
}

Counts fell_back() {
  return copy_of(state().fell_back);
}

Counts refused() {
  return copy_of(state().refused);
}

uint64_t float64_attempts() {
  return state().float64;
}

void count_float64() {
  ++state().float64;
}

void count_refused(const std::string& rule) {
  count(state().refused, rule);
  witness::tell("refused", rule);
}

void reset() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().missing.clear();
  state().fell_back.clear();
  state().refused.clear();
  state().float64 = 0;
}

}  // namespace simulator::rules
