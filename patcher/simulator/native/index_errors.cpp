// Errors of indices are kept until the host waits.
#include "index_errors.h"

#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <unordered_map>

namespace simulator::index_errors {
namespace {

using at::Tensor;

std::atomic<bool> pending{false};
std::mutex guarding;
std::string message;

Tensor within(const Tensor& index, int64_t lowest, int64_t size) {
  return index.clamp(lowest, size - 1);
}

// gather and scatter: (self, dim, index, ...).
void clamp_along(c10::IValue* values) {
  const Tensor self = values[0].toTensor();
  const int64_t dim = at::maybe_wrap_dim(values[1].toInt(), self.dim());
  values[2] = within(values[2].toTensor(), 0, self.dim() == 0 ? 1 : self.size(dim));
}

// index and index_put_: (self, indices, ...). A mask takes as many dimensions as it has.
void clamp_each(c10::IValue* values) {
  const Tensor self = values[0].toTensor();
  const auto indices = values[1].toOptionalTensorList();
  c10::List<std::optional<Tensor>> clamped;
  int64_t dim = 0;
  for (const std::optional<Tensor> index : indices) {
    const bool given = index.has_value() && index->defined();
    const bool mask = given && (index->scalar_type() == at::kBool || index->scalar_type() == at::kByte);
    clamped.push_back(
        !given || mask ? index : std::optional<Tensor>(within(*index, -self.size(dim), self.size(dim))));
    dim += mask ? index->dim() : 1;
  }
  values[1] = clamped;
}

// embedding_bag: (weight, indices, ...).
void clamp_rows(c10::IValue* values) {
  values[1] = within(values[1].toTensor(), 0, values[0].toTensor().size(0));
}

using Clamp = void (*)(c10::IValue*);

const std::unordered_map<std::string, Clamp>& reporting() {
  static const auto* table = new std::unordered_map<std::string, Clamp>{
      {"index", clamp_each},
      {"index_put_", clamp_each},
      {"_index_put_impl_", clamp_each},
      {"gather", clamp_along},
      {"scatter", clamp_along},
      {"scatter_", clamp_along},
      {"scatter_add", clamp_along},
      {"scatter_add_", clamp_along},
      {"scatter_reduce", clamp_along},
      {"scatter_reduce_", clamp_along},
      {"_embedding_bag", clamp_rows},
      {"_embedding_bag_forward_only", clamp_rows},
  };
  return *table;
}

// What the Mac's kernel says, given what the CPU's said; empty for an error of another kind.
std::string words(const std::string& told) {
  long long place = 0, found = 0, size = 0;
  constexpr const char* kBag = "Index %lld of input takes value %lld which is not in the valid range [0, %lld)";
  if (std::sscanf(told.c_str(), kBag, &place, &found, &size) == 3) {
    return "Index " + std::to_string(place) + " is out of bounds: " + std::to_string(found) + ", range 0 to " +
        std::to_string(size);
  }
  return told.find("is out of bounds for dimension") == std::string::npos ? "" : told;
}

}  // namespace

void keep(const std::string& told) {
  const std::lock_guard<std::mutex> lock(guarding);
  if (!pending) {
    message = told;
    pending = true;
  }
}

void run(const std::string& op, c10::Stack* stack, size_t count, const std::function<void()>& kernel) {
  const size_t start = op.find("::") + 2;
  const auto found = reporting().find(op.substr(start, op.find('.') - start));
  if (found == reporting().end()) {
    kernel();
    return;
  }
  c10::Stack arguments(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end());
  const size_t below = stack->size() - count;
  try {
    kernel();
  } catch (const c10::Error& error) {
    const std::string told = words(error.what_without_backtrace());
    if (told.empty()) {
      throw;
    }
    found->second(arguments.data());
    stack->resize(below);
    stack->insert(stack->end(), arguments.begin(), arguments.end());
    kernel();
    keep(told);
  }
}

void raise() {
  if (!pending) {
    return;
  }
  const std::lock_guard<std::mutex> lock(guarding);
  pending = false;
  throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, 1, message);
}

}  // namespace simulator::index_errors
