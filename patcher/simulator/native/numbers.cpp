// Operators whose kernel on a Mac gives other numbers than the CPU's.
#include "numbers.h"

#include "faults.h"
#include "simulator.h"
#include "sorting.h"

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>

#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

namespace simulator::numbers {
namespace {

using at::Tensor;

bool before(unsigned major, unsigned minor) {
  return mac_torch() < std::make_pair(major, minor);
}

// sort.stable(self, *, stable, dim, descending), and the same with out=. A stable order is the same everywhere.
After sort(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  if (given[1].toOptional<bool>().value_or(false)) {
    return {};
  }
  return [self = given[0].toTensor(), dim = given[2].toInt(), descending = given[3].toBool()](c10::Stack* results) {
    sorting::order_equals(self, dim, descending, result(results, 2, 0), result(results, 2, 1));
  };
}

// pow with a tensor for the exponent. Before 2.15, which has a Metal kernel, it is MPSGraph's power (BinaryOps.mm,
// pow_tensor_tensor_out_mps), of which PyTorch's list says that zero to a negative integer power is undefined; the CPU
// and the Metal kernel give 0. The largest number stands for it here.
After power(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  if (!before(2, 15) || !given[1].isTensor()) {
    return {};
  }
  const Tensor base = given[0].isTensor() ? given[0].toTensor() : c10::scalar_to_tensor(given[0].toScalar());
  const Tensor exponent = given[1].toTensor();
  if (!at::isIntegralType(at::result_type(base, exponent), /*includeBool=*/false)) {
    return {};
  }
  Tensor undefined = base.eq(0).logical_and(exponent.lt(0));
  return [undefined](c10::Stack* results) {
    Tensor& powers = result(results);
    AT_DISPATCH_INTEGRAL_TYPES(powers.scalar_type(), "pow", [&] {
      powers.masked_fill_(undefined, static_cast<int64_t>(std::numeric_limits<scalar_t>::max()));
    });
  };
}

bool rounds_each_step(const Tensor& tensor) {
  return before(2, 15) && tensor.numel() > 0 && at::isReducedFloatingType(tensor.scalar_type());
}

// _log_softmax(self, dim, half_to_float). Activation.mm, log_softmax_mps_out: six operations of MPSGraph, and so as many
// roundings in half precision. 2.15 has a Metal kernel that rounds once.
After log_softmax(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  const Tensor self = given[0].toTensor();
  if (!rounds_each_step(self)) {
    return {};
  }
  return [self, dim = given[1].toInt()](c10::Stack* results) {
    const Tensor shifted = self - self.amax(dim, true);
    result(results).copy_(shifted - shifted.exp().sum(dim, true).log_());
  };
}

// _log_softmax_backward_data(grad_output, output, dim, input_dtype): log_softmax_backward_mps_out, four operations.
After log_softmax_backward(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  const Tensor gradient = given[0].toTensor(), output = given[1].toTensor();
  if (!rounds_each_step(output)) {
    return {};
  }
  return [gradient, output, dim = given[2].toInt()](c10::Stack* results) {
    result(results).copy_(gradient - output.exp().mul_(gradient.sum(dim, true)));
  };
}

// nanmedian.dim_values(self, dim, keepdim). In 2.13 ReduceOps.mm, median_out_mps_common, looks up the element before the
// first where a row is all NaN, and MPSGraph has zero beyond a row; the CPU, and the Metal kernel of 2.14, give NaN.
After nanmedian(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  const Tensor self = given[0].toTensor();
  if (!before(2, 14) || count < 3 || self.dim() == 0 || !self.is_floating_point()) {
    return {};
  }
  return [nothing = self.isnan().all(given[1].toInt(), given[2].toBool())](c10::Stack* results) {
    result(results, 2, 0).masked_fill_(nothing, 0);
    result(results, 2, 1).masked_fill_(nothing, 0);
  };
}

// _cdist_backward(grad, x1, x2, p, cdist). For p = inf the gradient goes to where the difference equals the distance;
// in half precision Distance.mm, cdist_backward_kernel_mps, computes that once more, in float32.
After cdist_backward(const c10::Stack& stack, size_t count) {
  const c10::IValue* given = &stack[stack.size() - count];
  const Tensor x1 = given[1].toTensor();
  if (!at::isReducedFloatingType(x1.scalar_type()) || !std::isinf(given[3].toDouble())) {
    return {};
  }
  return [gradient = given[0].toTensor(), x1, x2 = given[2].toTensor()](c10::Stack* results) {
    const Tensor first = x1.to(at::kFloat), second = x2.to(at::kFloat);
    constexpr double p = std::numeric_limits<double>::infinity();
    result(results).copy_(at::_cdist_backward(
        gradient.to(at::kFloat).contiguous(), first, second, p, at::_cdist_forward(first, second, p, std::nullopt)));
  };
}

}  // namespace

Before of(const std::string& name) {
  static const auto* table = new std::unordered_map<std::string, Before>{
      {"aten::sort", sort},
      {"aten::pow", power},
      {"aten::pow_", power},
      {"aten::_log_softmax", log_softmax},
      {"aten::_log_softmax_backward_data", log_softmax_backward},
      {"aten::nanmedian", nanmedian},
      {"aten::_cdist_backward", cdist_backward},
  };
  const auto found = table->find(name);
  return found == table->end() ? nullptr : found->second;
}

}  // namespace simulator::numbers
