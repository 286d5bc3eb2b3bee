// Linear layers are one operator on a Mac, forward and backward; on the CPU they are products and sums.
#include "simulator.h"

#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <array>
#include <tuple>
#include <utility>

namespace simulator {
namespace {

using at::Tensor;

Tensor rows_of(const Tensor& tensor, int64_t columns) {
  return tensor.dim() == 2 ? tensor : tensor.reshape({columns == 0 ? 0 : tensor.numel() / columns, columns});
}

// The kernel that torch has for mps, and the CPU has not: what autograd makes of the products on the CPU.
std::tuple<Tensor, Tensor, Tensor> gradients_of_linear(
    const Tensor& input, const Tensor& gradient, const Tensor& weight, std::array<bool, 3> wanted) {
  if (weight.dim() == 1) {
    auto [to_input, to_weight, to_bias] =
        gradients_of_linear(input, gradient.unsqueeze(-1), weight.unsqueeze(0), wanted);
    return {to_input, to_weight.defined() ? to_weight.squeeze(0) : to_weight, to_bias};
  }
  const Tensor x = rows_of(input, weight.size(1)), g = rows_of(gradient, weight.size(0));
  Tensor to_input, to_weight, to_bias;
  if (wanted[0]) {
    to_input = at::mm(g, weight).view(input.sizes());
  }
  if (wanted[1]) {
    to_weight = at::mm(g.t(), x);
  }
  if (wanted[2]) {
    to_bias = g.sum(0);
  }
  return {to_input, to_weight, to_bias};
}

// From torch 2.14 on it calls mm on the device (Linear.mm, mps_linear_backward), before it is one graph of MPSGraph.
void linear_backward(const c10::OperatorHandle& op, c10::Stack* stack) {
  if (mac_torch() < std::make_pair(2u, 14u)) {
    fallback(op, stack);
  } else {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, CPU, library) {
  library.impl("linear_backward", simulator::gradients_of_linear);
}

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  library.impl("linear", torch::CppFunction::makeFromBoxedFunction<&simulator::fallback>());
  library.impl("linear_backward", torch::CppFunction::makeFromBoxedFunction<&simulator::linear_backward>());
}
