// Operators that torch treats specially on mps: no CPU kernel of the same name does the work.
#include "faults.h"
#include "meter.h"
#include "simulator.h"

#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <array>
#include <limits>
#include <tuple>

namespace simulator {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using std::optional;

// torch's composite adds the mask to the scores, so that False must have become minus infinity before.
optional<Tensor> additive(const optional<Tensor>& mask, c10::ScalarType dtype) {
  if (!mask.has_value() || !mask->defined() || mask->scalar_type() != at::kBool) {
    return mask;
  }
  return at::zeros_like(*mask, mask->options().dtype(dtype))
      .masked_fill_(mask->logical_not(), -std::numeric_limits<double>::infinity());
}

// As the Mac's, attention materialises the scores and is differentiated through its parts.
Tensor scaled_dot_product_attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const optional<Tensor>& mask,
    double dropout,
    bool causal,
    optional<double> scale,
    bool grouped) {
  TORCH_CHECK(
      query.dim() >= 2 && key.dim() >= 2 && value.dim() >= 2,
      "scaled_dot_product_attention: Expected query, key, and value to all be  at least 2 dimensional, but got query"
      ".dim(): ", query.dim(), ", key.dim(): ", key.dim(), " and value.dim(): ", value.dim(), " instead.");
  TORCH_CHECK(
      query.scalar_type() == key.scalar_type() && query.scalar_type() == value.scalar_type(),
      "Expected query, key, and value to have the same dtype, but got query.dtype: ", query.dtype(),
      " key.dtype: ", key.dtype(), " and value.dtype: ", value.dtype(), " instead.");
  TORCH_CHECK(
      !(causal && mask.has_value() && mask->defined()),
      "scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True");
  Tensor q = query, k = key, v = value;
  optional<Tensor> seen = mask;
  if (faults_active()) {
    spoil_attention(q, k, v, seen, causal);
  }
  Tensor attended = std::get<0>(at::_scaled_dot_product_attention_math(
      q, k, v, additive(seen, q.scalar_type()), dropout, causal, /*dropout_mask=*/std::nullopt, scale, grouped));
  return faults_active() ? spoil_attended(std::move(attended), mask) : attended;
}

int64_t fused_sdp_choice(
    const Tensor&,
    const Tensor&,
    const Tensor&,
    const optional<Tensor>&,
    double,
    bool,
    optional<double>,
    bool) {
  return 0;  // SDPBackend::math
}

std::tuple<Tensor, Tensor> attention_math_for_mps(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const optional<Tensor>& mask,
    double dropout,
    bool causal,
    const optional<Tensor>& dropout_mask,
    optional<double> scale,
    bool grouped) {
  std::optional<meter::Kernel> metered;
  if (meter::on()) {
    metered.emplace("aten::_scaled_dot_product_attention_math_for_mps");
  }
  auto result = at::_scaled_dot_product_attention_math(
      query, key, value, additive(mask, query.scalar_type()), dropout, causal, dropout_mask, scale, grouped);
  if (metered.has_value()) {
    metered->finish();
  }
  return result;
}

// The CPU kernel of this operator takes no generator, so it would draw from the CPU's.
std::tuple<Tensor, Tensor> native_dropout(const Tensor& input, double p, optional<bool> train) {
  if (!train.value_or(true)) {
    return {input.clone(), at::ones_like(input, input.options().dtype(at::kBool))};
  }
  const double keep = 1.0 - p;
  Tensor mask = at::empty_like(input, input.options().dtype(at::kBool)).bernoulli_(keep);
  return {input.mul(mask).mul_(keep == 0 ? 0.0 : 1.0 / keep), mask};
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
  Aliases aliases;
  const auto cpu_bias = bias.has_value() ? optional<Tensor>(aliases.to_cpu(*bias)) : std::nullopt;
  Tensor result = aliases.to_mps(at::convolution_symint(
      aliases.to_cpu(input), aliases.to_cpu(weight), cpu_bias, stride, padding, dilation, transposed, output_padding,
      groups));
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
  auto [grad_input, grad_weight, grad_bias] = at::convolution_backward_symint(
      aliases.to_cpu(grad_output), aliases.to_cpu(input), aliases.to_cpu(weight), SymIntArrayRef(channels), stride,
      padding, dilation, transposed, output_padding, groups, output_mask);
  if (faults_active()) {
    grad_weight = spoil_convolution_weight(std::move(grad_weight), input, [&](int64_t n) {
      return std::get<1>(at::convolution_backward_symint(
          aliases.to_cpu(grad_output).narrow(0, 0, n), aliases.to_cpu(input).narrow(0, 0, n), aliases.to_cpu(weight),
          SymIntArrayRef(channels), stride, padding, dilation, transposed, output_padding, groups, {false, true, false}));
    });
  }
  const std::array<Tensor, 3> grads{
      aliases.to_mps(std::move(grad_input)),
      aliases.to_mps(std::move(grad_weight)),
      aliases.to_mps(std::move(grad_bias))};
  if (meter::on()) {
    meter::convolution_backward(grad_output, input, weight, grads, transposed);
  }
  return {grads[0], grads[1], grads[2]};
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, AutogradMPS, library) {
  library.impl("scaled_dot_product_attention", simulator::scaled_dot_product_attention);
}

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  using namespace simulator;
  library.impl("scaled_dot_product_attention", scaled_dot_product_attention);
  library.impl("_fused_sdp_choice", fused_sdp_choice);
  library.impl("_scaled_dot_product_attention_math_for_mps", attention_math_for_mps);
  library.impl("native_dropout", native_dropout);
  library.impl("convolution_overrideable", convolution);
  library.impl("convolution_backward_overrideable", convolution_backward);
}
