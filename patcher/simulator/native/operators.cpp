// Operators that torch treats specially on mps: no CPU kernel of the same name does the work.
#include "faults.h"
#include "meter.h"
#include "products.h"
#include "rules.h"
#include "simulator.h"

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <torch/library.h>

#include <array>
#include <tuple>

namespace simulator {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using std::optional;

// The CPU kernel of this operator takes no generator, so it would draw from the CPU's.
std::tuple<Tensor, Tensor> native_dropout(const Tensor& input, double p, optional<bool> train) {
  if (!train.value_or(true)) {
    return {input.clone(), at::ones_like(input, input.options().dtype(at::kBool))};
  }
  const double keep = 1.0 - p;
  Tensor mask = at::empty_like(input, input.options().dtype(at::kBool)).bernoulli_(keep);
  return {input.mul(mask).mul_(keep == 0 ? 0.0 : 1.0 / keep), mask};
}

// The rules for convolutions are kept under the name of the operator that a build without mps has for them.
void check_convolution(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, bool transposed) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_overrideable", "");
  static const auto verdict = rules::verdict(op);
  if (verdict != nullptr) {
    const c10::IValue none;
    rules::check(*verdict, op, {input, weight, bias, none, none, none, transposed, none, none});
  }
}

// A build without mps sends convolutions of unknown devices to these two operators.
Tensor convolution(
    const Tensor& input,
    const Tensor& weight,
    const optional<Tensor>& bias,
    SymIntArrayRef stride,
    SymIntArrayRef padding,
    SymIntArrayRef dilation,
    bool transposed,
    SymIntArrayRef output_padding,
    SymInt groups) {
  check_convolution(input, weight, bias, transposed);
  Aliases aliases;
  const products::Operands operands{input, weight, bias.value_or(Tensor())};
  const auto cpu = [&](const Tensor& tensor) { return operands.widen(aliases.to_cpu(tensor)); };
  const auto cpu_bias = bias.has_value() ? optional<Tensor>(cpu(*bias)) : std::nullopt;
  Tensor result = aliases.to_mps(operands.round(at::convolution_symint(
      cpu(input), cpu(weight), cpu_bias, stride, padding, dilation, transposed, output_padding, groups)));
  if (meter::on()) {
    meter::convolution(input, weight, bias, result, transposed);
  }
  return result;
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad_output,
    const Tensor& input,
    const Tensor& weight,
    SymIntArrayRef stride,
    SymIntArrayRef padding,
    SymIntArrayRef dilation,
    bool transposed,
    SymIntArrayRef output_padding,
    SymInt groups,
    std::array<bool, 3> output_mask) {
  Aliases aliases;
  const SymInt channels = transposed ? weight.sym_size(1) * groups : weight.sym_size(0);
  const products::Operands operands{grad_output, input, weight};
  const Tensor grad = operands.widen(aliases.to_cpu(grad_output)), x = operands.widen(aliases.to_cpu(input)),
               w = operands.widen(aliases.to_cpu(weight));
  auto [grad_input, grad_weight, grad_bias] = at::convolution_backward_symint(
      grad, x, w, SymIntArrayRef(channels), stride, padding, dilation, transposed, output_padding, groups, output_mask);
  if (faults_active()) {
    grad_weight = spoil_convolution_weight(std::move(grad_weight), input, [&](int64_t n) {
      return std::get<1>(at::convolution_backward_symint(
          grad.narrow(0, 0, n), x.narrow(0, 0, n), w, SymIntArrayRef(channels), stride, padding, dilation, transposed,
          output_padding, groups, {false, true, false}));
    });
  }
  const std::array<Tensor, 3> grads{
      aliases.to_mps(operands.round(std::move(grad_input))),
      aliases.to_mps(operands.round(std::move(grad_weight))),
      aliases.to_mps(operands.round(std::move(grad_bias)))};
  if (meter::on()) {
    meter::convolution_backward(grad_output, input, weight, grads, transposed);
  }
  return {grads[0], grads[1], grads[2]};
}

// Of a bool matrix it is an integer, as a sum is (ReduceOps.mm, trace_mps); the CPU has none.
void trace(const c10::OperatorHandle& op, c10::Stack* stack) {
  c10::IValue& matrix = stack->back();
  if (matrix.toTensor().scalar_type() == at::kBool) {
    matrix = matrix.toTensor().view(at::kByte);
  }
  fallback(op, stack);
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  using namespace simulator;
  library.impl("native_dropout", native_dropout);
  library.impl("trace", torch::CppFunction::makeFromBoxedFunction<&trace>());
  library.impl("convolution_overrideable", convolution);
  library.impl("convolution_backward_overrideable", convolution_backward);
}
