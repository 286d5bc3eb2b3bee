// Dtypes in which an operator runs on wider copies.
#include "widen.h"

#include "products.h"
#include "simulator.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/ScalarType.h>
#include <c10/util/SmallVector.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace simulator {
namespace {

constexpr uint64_t bit(c10::ScalarType dtype) {
  return uint64_t{1} << static_cast<unsigned>(dtype);
}
constexpr uint64_t kHalf = bit(c10::ScalarType::Half);
constexpr uint64_t kHalves = kHalf | bit(c10::ScalarType::BFloat16);
constexpr uint64_t kBool = bit(c10::ScalarType::Bool);
constexpr uint64_t kIntegers = bit(c10::ScalarType::Byte) | bit(c10::ScalarType::Char) | bit(c10::ScalarType::Short) |
    bit(c10::ScalarType::Int) | bit(c10::ScalarType::Long);

// Source: the `dtypesIfMPS` of torch 2.13.0's operator database (torch/testing/_internal/opinfo), where they name more
// than the CPU's `dtypes`, and the test against the CPU is expected to pass; tests/fidelity runs them.
const std::unordered_map<std::string, uint64_t>& table() {
  static const auto* instance = [] {
    auto* made = new std::unordered_map<std::string, uint64_t>;
    const auto add = [&](uint64_t dtypes, std::initializer_list<const char*> names) {
      for (const char* name : names) {
        (*made)[std::string("aten::") + name] |= dtypes;
      }
    };
    add(kHalves,
        {"_cdist_forward", "_cdist_backward", "avg_pool3d", "avg_pool3d_backward", "special_bessel_j0",
         "special_bessel_j1", "special_bessel_y0", "special_bessel_y1", "special_chebyshev_polynomial_t",
         "special_chebyshev_polynomial_u", "special_chebyshev_polynomial_v", "special_chebyshev_polynomial_w",
         "special_erfcx", "special_hermite_polynomial_h", "special_hermite_polynomial_he",
         "special_modified_bessel_i0", "special_modified_bessel_i1", "special_modified_bessel_k0",
         "special_modified_bessel_k1", "special_scaled_modified_bessel_k0", "special_scaled_modified_bessel_k1",
         "special_shifted_chebyshev_polynomial_t", "special_shifted_chebyshev_polynomial_u",
         "special_shifted_chebyshev_polynomial_v", "special_shifted_chebyshev_polynomial_w",
         "special_spherical_bessel_j0", "special_zeta"});
    add(kHalf | bit(c10::ScalarType::ComplexHalf), {"polar"});
    add(kBool,
        {"avg_pool3d", "bernoulli", "bernoulli_", "ceil", "ceil_", "dot", "floor", "floor_", "floor_divide",
         "floor_divide_", "fmod", "fmod_", "max_pool2d_with_indices_backward", "pow", "pow_", "reflection_pad1d",
         "reflection_pad2d", "reflection_pad3d", "remainder", "remainder_", "replication_pad1d", "replication_pad2d",
         "replication_pad3d", "silu", "silu_", "threshold", "threshold_", "trunc", "trunc_", "vdot"});
    add(kIntegers, {"histc"});
    if (mac_torch() >= std::make_pair(2u, 14u)) {  // common_mps.py of 2.14.1 expects it no longer to fail
      add(kBool, {"relu", "relu_"});
    }
    return made;
  }();
  return *instance;
}

// What SparseMPSTensorMath.mm computes with operators and kernels that take these dtypes, and SparseCPU's kernels refuse.
const std::unordered_map<std::string, uint64_t>& sparse_table() {
  static const auto* instance = new std::unordered_map<std::string, uint64_t>{
      {"aten::add", kHalf | kBool},
      {"aten::add_", kHalf | kBool},
      {"aten::ceil", kBool},
      {"aten::ceil_", kBool},
      {"aten::floor", kBool},
      {"aten::floor_", kBool},
      {"aten::trunc", kBool},
      {"aten::trunc_", kBool},
      {"aten::sub", kHalf},
      {"aten::sub_", kHalf},
      {"aten::mm", kHalves | kIntegers | kBool},
      {"aten::_sparse_sparse_matmul", kHalves | kIntegers | kBool},
      {"aten::_sparse_softmax", kHalves},
      {"aten::_sparse_log_softmax", kHalves},
      {"aten::_sparse_softmax_backward_data", kHalves},
      {"aten::_sparse_log_softmax_backward_data", kHalves},
  };
  return *instance;
}

uint64_t lookup(const std::unordered_map<std::string, uint64_t>& dtypes, const std::string& name) {
  const auto found = dtypes.find(name);
  return found == dtypes.end() ? 0 : found->second;
}

uint64_t dtypes_of(const c10::IValue& value) {
  uint64_t found = 0;
  if (value.isTensor()) {
    const at::Tensor& tensor = value.toTensor();
    found = tensor.defined() ? bit(tensor.scalar_type()) : 0;
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      found |= tensor.defined() ? bit(tensor.scalar_type()) : 0;
    }
  }
  return found;
}

// Copies of the tensors of one call in a wider dtype.
class Copies {
 public:
  Copies(uint64_t lacking, c10::ScalarType wide) : lacking_(lacking), wide_(wide) {}

  c10::IValue widen(const c10::IValue& value, const c10::Argument& argument) {
    if (value.isTensor()) {
      return wide(value.toTensor(), argument);
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> result;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        result.push_back(wide(tensor, argument));
      }
      return result;
    }
    return value;
  }
  // Puts what an in-place or out variant has written into the tensors that were given to it.
  void write_back() const {
    for (const auto& pair : pairs_) {
      if (!pair.written) {
        continue;
      }
      if (!pair.given.sizes().equals(pair.wide.sizes())) {
        pair.given.resize_(pair.wide.sizes());
      }
      pair.given.copy_(pair.wide);
    }
  }
  at::Tensor narrow(const at::Tensor& result) const {
    if (!result.defined()) {
      return result;
    }
    for (const auto& pair : pairs_) {
      if (pair.wide.is_same(result)) {
        return pair.given;
      }
    }
    if (result.scalar_type() == c10::toComplexType(wide_)) {
      return result.to(c10::toComplexType(dtype_));
    }
    return result.scalar_type() == wide_ ? result.to(dtype_) : result;
  }

 private:
  struct Pair {
    at::Tensor given;
    at::Tensor wide;
    bool written;
  };
  at::Tensor wide(const at::Tensor& tensor, const c10::Argument& argument) {
    if (!tensor.defined() || (bit(tensor.scalar_type()) & lacking_) == 0) {
      return tensor;
    }
    const bool written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    for (auto& pair : pairs_) {
      if (pair.given.is_same(tensor)) {
        pair.written |= written;
        return pair.wide;
      }
    }
    dtype_ = c10::toRealValueType(tensor.scalar_type());
    const auto wider = tensor.is_complex() ? c10::toComplexType(wide_) : wide_;
    pairs_.push_back(
        {tensor, argument.is_out() ? at::empty_like(tensor, tensor.options().dtype(wider)) : tensor.to(wider), written});
    return pairs_.back().wide;
  }

  uint64_t lacking_;
  c10::ScalarType wide_;
  c10::ScalarType dtype_ = c10::ScalarType::Float;  // of the results
  c10::SmallVector<Pair, 4> pairs_;
};

void run_wide(
    const c10::OperatorHandle& op,
    c10::DispatchKey key,
    uint64_t dtypes,
    const std::vector<c10::IValue>& arguments,
    c10::Stack* stack) {
  Copies copies(dtypes, key == c10::DispatchKey::CPU ? c10::ScalarType::Float : c10::ScalarType::Double);
  const auto& schema = op.schema();
  for (size_t i = 0; i < arguments.size(); ++i) {
    stack->push_back(copies.widen(arguments[i], schema.arguments()[i]));
  }
  op.redispatchBoxed(c10::DispatchKeySet(key), stack);
  copies.write_back();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = copies.narrow(value.toTensor());
    }
  }
}

uint64_t dtypes_on(const c10::Stack& stack, size_t first) {
  uint64_t dtypes = 0;
  for (size_t i = first; i < stack.size(); ++i) {
    dtypes |= dtypes_of(stack[i]);
  }
  return dtypes;
}

// Before it has written anything. relu says it of bool in words of its own.
bool lacks_dtype(const c10::Error& error) {
  return dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr ||
      std::string_view(error.what_without_backtrace()).find("Boolean inputs not supported") != std::string_view::npos;
}

// The kernel itself is asked first. What else it refuses, such as operands of two dtypes, stays refused.
void run_or_widen(
    const c10::OperatorHandle& op, c10::DispatchKey key, uint64_t lacking, c10::Stack* stack) {
  const size_t first = stack->size() - op.schema().arguments().size();
  if (lacking == 0) {
    op.redispatchBoxed(c10::DispatchKeySet(key), stack);
    return;
  }
  const std::vector<c10::IValue> arguments(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
  try {
    op.redispatchBoxed(c10::DispatchKeySet(key), stack);
  } catch (const c10::Error& error) {
    if (!lacks_dtype(error)) {
      throw;
    }
    stack->resize(first);
    run_wide(op, key, lacking, arguments, stack);
  }
}

// Operands of two dtypes are refused by torch's kernel.
bool product_in_float32(uint64_t dtypes) {
  for (const auto dtype : {c10::ScalarType::Half, c10::ScalarType::BFloat16}) {
    if (dtypes == bit(dtype)) {
      return products::in_float32(dtype);
    }
  }
  return false;
}

}  // namespace

Widening widening(const c10::OperatorHandle& op) {
  const auto& name = op.schema().name();
  return {lookup(table(), name), lookup(sparse_table(), name), products::is_product(op)};
}

void run_cpu_kernel(const c10::OperatorHandle& op, const Widening& widening, c10::Stack* stack) {
  const size_t first = stack->size() - op.schema().arguments().size();
  uint64_t dtypes = 0;
  if (widening.lacking != 0 || widening.product) {
    dtypes = dtypes_on(*stack, first);
  }
  if (widening.product && product_in_float32(dtypes)) {
    const std::vector<c10::IValue> arguments(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
    stack->resize(first);
    run_wide(op, c10::DispatchKey::CPU, dtypes, arguments, stack);
    return;
  }
  run_or_widen(op, c10::DispatchKey::CPU, dtypes & widening.lacking, stack);
}

void run_sparse_kernel(const c10::OperatorHandle& op, const Widening& widening, c10::Stack* stack) {
  const uint64_t dtypes =
      widening.lacking_sparse == 0 ? 0 : dtypes_on(*stack, stack->size() - op.schema().arguments().size());
  run_or_widen(op, c10::DispatchKey::SparseCPU, dtypes & widening.lacking_sparse, stack);
}

}  // namespace simulator
