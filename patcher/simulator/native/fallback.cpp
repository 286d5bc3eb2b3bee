// Every operator without a kernel of its own runs torch's CPU kernel on the same memory.
#include "faults.h"
#include "index_errors.h"
#include "meter.h"
#include "numbers.h"
#include "rules.h"
#include "simulator.h"
#include "sparse.h"
#include "sparse_checks.h"
#include "widen.h"
#include "words.h"

#include <ATen/core/op_registration/adaption.h>
#include <ATen/core/stack.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

namespace simulator {
namespace {

constexpr size_t kNone = static_cast<size_t>(-1);

// What is worked out once per operator.
struct Operator {
  std::string name;
  bool has_cpu_kernel;
  size_t generator = kNone;                // position of the Generator argument
  std::vector<bool> accepts_cpu;           // arguments that stay on the CPU on a Mac as well
  std::unique_ptr<const rules::Verdict> rules;  // null: nothing to check
  Widening widening;                       // dtypes that run on float32 copies
  numbers::Before numbers = nullptr;       // what makes a Mac's numbers of the CPU's
  std::atomic<uint64_t> count{0};
};

struct Registry {
  std::mutex mutex;
  std::unordered_map<const c10::FunctionSchema*, std::unique_ptr<Operator>> operators;
};

Registry& registry() {
  static auto* instance = new Registry;  // leaked: backward threads may outlive static destructors
  return *instance;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::unique_ptr<Operator> describe(const c10::OperatorHandle& op) {
  auto result = std::make_unique<Operator>();
  const auto& schema = op.schema();
  result->name = schema.name();
  if (!schema.overload_name().empty()) {
    result->name += "." + schema.overload_name();
  }
  result->has_cpu_kernel = op.hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
      op.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd) ||
      op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) ||
      op.hasKernelForDispatchKey(c10::DispatchKey::SparseCPU);
  result->rules = rules::verdict(op);
  result->widening = widening(op);
  result->numbers = numbers::of(schema.name());
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto& argument = schema.arguments()[i];
    if (argument.type()->str().find("Generator") != std::string::npos) {
      result->generator = i;
    }
    result->accepts_cpu.push_back(argument.name() == "indices" || ends_with(argument.name(), "_lengths"));
  }
  return result;
}

Operator& lookup(const c10::OperatorHandle& op) {
  thread_local std::unordered_map<const c10::FunctionSchema*, Operator*> known;
  const auto* schema = &op.schema();
  const auto found = known.find(schema);
  if (found != known.end()) {
    return *found->second;
  }
  const std::lock_guard<std::mutex> lock(registry().mutex);
  auto& entry = registry().operators[schema];
  if (entry == nullptr) {
    entry = describe(op);
  }
  known.emplace(schema, entry.get());
  return *entry;
}

// Moves the arguments on a stack to the CPU.
class Arguments {
 public:
  Arguments(const c10::OperatorHandle& op, const Operator& description, SparseAliases& aliases)
      : op_(op), description_(description), aliases_(aliases) {}

  void move(c10::IValue& value, size_t position) {
    if (value.isTensor()) {
      value = tensor(value.toTensor(), position);
    } else if (value.isTensorList()) {
      value = list(value.toTensorList(), position);
    } else if (value.isOptionalTensorList()) {
      value = optional_list(value.toOptionalTensorList(), position);
    } else if (position == description_.generator) {
      value = cpu_generator(value.toOptional<at::Generator>());
    } else if (value.isDevice() && value.toDevice().type() == kType) {
      value = c10::Device(c10::DeviceType::CPU);
    }
  }

 private:
  at::Tensor tensor(const at::Tensor& tensor, size_t position) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.device().type() == kType) {
      return aliases_.to_cpu(tensor);
    }
    if (tensor.dim() != 0 && !description_.accepts_cpu[position]) {
      refuse(tensor, position);
    }
    return tensor;
  }
  c10::List<at::Tensor> list(const c10::List<at::Tensor>& tensors, size_t position) {
    c10::List<at::Tensor> result;
    result.reserve(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      result.push_back(tensor(tensors.get(i), position));
    }
    return result;
  }
  c10::List<std::optional<at::Tensor>> optional_list(
      const c10::List<std::optional<at::Tensor>>& tensors, size_t position) {
    c10::List<std::optional<at::Tensor>> result;
    result.reserve(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::optional<at::Tensor> item = tensors.get(i);
      result.push_back(item.has_value() ? std::optional<at::Tensor>(tensor(*item, position)) : std::nullopt);
    }
    return result;
  }
  [[noreturn]] void refuse(const at::Tensor& tensor, size_t position) const {
    TORCH_CHECK(
        false,
        "Expected all tensors to be on the same device, but found at least two devices, ", device(), " and ",
        tensor.device(), "! (when checking argument for argument ", op_.schema().arguments()[position].name(),
        " in method wrapper_MPS_", op_.schema().name().substr(op_.schema().name().find("::") + 2), ")");
  }

  const c10::OperatorHandle& op_;
  const Operator& description_;
  SparseAliases& aliases_;
};

void results_to_mps(c10::IValue& value, SparseAliases& aliases) {
  if (value.isTensor()) {
    value = aliases.to_mps(std::move(value).toTensor());
  } else if (value.isTensorList()) {
    std::vector<at::Tensor> tensors = std::move(value).toTensorVector();
    c10::List<at::Tensor> result;
    result.reserve(tensors.size());
    for (auto& tensor : tensors) {
      result.push_back(aliases.to_mps(std::move(tensor)));
    }
    value = std::move(result);
  }
}

}  // namespace

void fallback(const c10::OperatorHandle& op, c10::Stack* stack) {
  run_on_cpu(op, stack, c10::DispatchKey::CPU);
}

void run_on_cpu(const c10::OperatorHandle& op, c10::Stack* stack, c10::DispatchKey key) {
  Operator& description = lookup(op);
  description.count.fetch_add(1, std::memory_order_relaxed);
  bool on_host = description.rules != nullptr && (description.rules->missing || description.rules->on_cpu);
  if (description.rules != nullptr && key == c10::DispatchKey::CPU) {
    on_host = rules::check(*description.rules, op, *stack);
  }
  if (!description.has_cpu_kernel) {
    rules::throw_missing(op);
  }

  std::optional<meter::Kernel> metered;
  if (meter::on()) {
    metered.emplace(op, *stack, on_host);
  }
  const size_t count = op.schema().arguments().size();
  const size_t first = stack->size() - count;
  bool coalesces = false;
  if (key == c10::DispatchKey::SparseCPU) {
    sparse_checks::check(description.name, *stack, count);
    coalesces = sparse_checks::coalesces(description.name, *stack, count);
  }
  Aliases aliases;
  SparseAliases sparse(aliases);
  Arguments arguments(op, description, sparse);
  const c10::IValue generator = description.generator == kNone ? c10::IValue() : (*stack)[first + description.generator];
  for (size_t i = 0; i < count; ++i) {
    arguments.move((*stack)[first + i], i);
  }
  const bool other_numbers = description.numbers != nullptr && key == c10::DispatchKey::CPU && !on_host;
  const numbers::After macs = other_numbers ? description.numbers(*stack, count) : numbers::After();
  const Spoil spoil = faults_active() ? faults_before(description.name, stack, count) : Spoil();
  {
    // Autocast for the CPU is none of this tensor's business.
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    try {
      if (key == c10::DispatchKey::CPU) {
        index_errors::run(description.name, stack, count, [&] { run_cpu_kernel(op, description.widening, stack); });
      } else {
        run_sparse_kernel(op, description.widening, stack);
        if (coalesces) {
          coalesce_in_place(stack->back().toTensor());
        }
      }
    } catch (const c10::Error& error) {
      if (!on_host) {
        words::reword(description.name, error.what_without_backtrace(), aliases.contiguous());
      }
      throw;
    }
  }
  if (description.generator != kNone && (*stack)[first].isTensor()) {
    count_draws(description.name, generator.toOptional<at::Generator>(), (*stack)[first].toTensor());
  }
  if (macs) {
    macs(stack);
  }
  if (spoil) {
    spoil(stack);
  }
  aliases.write_back();
  sparse.write_back();
  for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i) {
    results_to_mps((*stack)[i], sparse);
  }
  if (metered.has_value()) {
    metered->finish(op, *stack);
  }
}

void register_direct() {
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::MPS, __FILE__, __LINE__);
  const auto direct = [](const std::string& name) {
    library->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
  };
  // A Mac's build has kernels for these; without one their composite forms would run, which round differently.
  for (const char* name : {"native_layer_norm", "native_group_norm", "addr", "addr.out", "mish_backward"}) {
    direct(name);
  }
  // A structured operator has a composite form, which would allocate the result and come back through its out
  // variant. One call is enough; where a Mac has no kernel, it is the out variant that is missing.
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name :
       dispatcher.getRegistrationsForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional)) {
    const auto op = dispatcher.findSchema(name);
    if (name.getNamespace() == std::optional<std::string_view>("aten") && op.has_value() &&
        op->hasKernelForDispatchKey(c10::DispatchKey::CPU) && !op->hasKernelForDispatchKey(c10::DispatchKey::MPS) &&
        rules::is_present(*op)) {
      direct(name.overload_name.empty() ? name.name : name.name + "." + name.overload_name);
    }
  }
}

std::vector<std::pair<std::string, uint64_t>> operator_counts() {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  std::vector<std::pair<std::string, uint64_t>> counts;
  for (const auto& [schema, op] : registry().operators) {
    if (const uint64_t count = op->count.load(std::memory_order_relaxed)) {
      counts.emplace_back(op->name, count);
    }
  }
  std::sort(counts.begin(), counts.end());
  return counts;
}

void reset_operator_counts() {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  for (const auto& [schema, op] : registry().operators) {
    op->count.store(0, std::memory_order_relaxed);
  }
}

}  // namespace simulator

TORCH_LIBRARY_IMPL(_, MPS, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&simulator::fallback>());
}
