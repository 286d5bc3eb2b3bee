// How many bytes and FLOPs an operator costs.
#include "meter.h"

#include <ATen/core/enum_tag.h>

#include <algorithm>
#include <string_view>

namespace simulator::meter {
namespace {

using Flops = Cost::Flops;
using Access = Cost::Access;

struct Row {
  Flops flops;
  uint64_t factor;
};

// By name without namespace, overload and the underscore of the in-place form. Operators that are not here cost one
// FLOP for each element that they write, and those that torch tags as reductions one for each that they read.
const std::unordered_map<std::string_view, Row>& table() {
  static const auto* entries = new std::unordered_map<std::string_view, Row>{
      {"mm", {Flops::kMatmul, 1}},
      {"addmm", {Flops::kMatmul, 1}},
      {"_addmm_activation", {Flops::kMatmul, 1}},
      {"bmm", {Flops::kMatmul, 1}},
      {"baddbmm", {Flops::kMatmul, 1}},
      {"addbmm", {Flops::kMatmul, 1}},
      {"mv", {Flops::kMatmul, 1}},
      {"addmv", {Flops::kMatmul, 1}},
      {"dot", {Flops::kPerInput, 2}},
      {"vdot", {Flops::kPerInput, 2}},
      {"addr", {Flops::kPerOutput, 2}},
      {"linear", {Flops::kMatmul, 1}},
      {"linear_backward", {Flops::kLinearBackward, 1}},
      {"convolution", {Flops::kConvolution, 1}},
      {"convolution_overrideable", {Flops::kConvolution, 1}},
      {"convolution_backward", {Flops::kConvolutionBackward, 1}},
      {"convolution_backward_overrideable", {Flops::kConvolutionBackward, 1}},
      // Maximum, difference, exponential, sum, quotient.
      {"_softmax", {Flops::kPerInput, 5}},
      {"_log_softmax", {Flops::kPerInput, 5}},
      {"_softmax_backward_data", {Flops::kPerOutput, 4}},
      {"_log_softmax_backward_data", {Flops::kPerOutput, 4}},
      // Mean, variance, normalised, weight and bias; the backward has two sums per row and two over the rows.
      {"native_layer_norm", {Flops::kPerInput, 7}},
      {"native_layer_norm_backward", {Flops::kPerInput, 12}},
      {"native_group_norm", {Flops::kPerInput, 7}},
      {"native_group_norm_backward", {Flops::kPerInput, 12}},
      {"native_batch_norm", {Flops::kPerInput, 7}},
      {"native_batch_norm_backward", {Flops::kPerInput, 12}},
      {"_fused_rms_norm", {Flops::kPerInput, 4}},
      {"_fused_rms_norm_backward", {Flops::kPerInput, 10}},
      {"var", {Flops::kPerInput, 3}},
      {"std", {Flops::kPerInput, 3}},
      {"var_mean", {Flops::kPerInput, 3}},
      {"linalg_vector_norm", {Flops::kPerInput, 2}},
      {"addcmul", {Flops::kPerOutput, 3}},
      {"addcdiv", {Flops::kPerOutput, 3}},
      {"lerp", {Flops::kPerOutput, 3}},
      {"_fused_adam", {Flops::kPerOutput, 4}},
      {"_fused_adamw", {Flops::kPerOutput, 4}},
      {"_fused_sgd", {Flops::kPerOutput, 2}},
      // They move numbers and compute none.
      {"copy", {Flops::kNone, 0}},
      {"clone", {Flops::kNone, 0}},
      {"contiguous", {Flops::kNone, 0}},
      {"_to_copy", {Flops::kNone, 0}},
      {"cat", {Flops::kNone, 0}},
      {"stack", {Flops::kNone, 0}},
      {"repeat", {Flops::kNone, 0}},
      {"repeat_interleave", {Flops::kNone, 0}},
      {"constant_pad_nd", {Flops::kNone, 0}},
      {"roll", {Flops::kNone, 0}},
      {"flip", {Flops::kNone, 0}},
      {"index", {Flops::kNone, 0}},
      {"_index_put_impl", {Flops::kNone, 0}},
      {"index_put", {Flops::kNone, 0}},
      {"index_select", {Flops::kNone, 0}},
      {"index_copy", {Flops::kNone, 0}},
      {"index_fill", {Flops::kNone, 0}},
      {"gather", {Flops::kNone, 0}},
      {"scatter", {Flops::kNone, 0}},
      {"take", {Flops::kNone, 0}},
      {"masked_select", {Flops::kNone, 0}},
      {"masked_fill", {Flops::kNone, 0}},
      {"masked_scatter", {Flops::kNone, 0}},
      {"where", {Flops::kNone, 0}},
      {"triu", {Flops::kNone, 0}},
      {"tril", {Flops::kNone, 0}},
      {"slice_backward", {Flops::kNone, 0}},
      {"select_backward", {Flops::kNone, 0}},
      {"nonzero", {Flops::kNone, 0}},
      {"sort", {Flops::kNone, 0}},
      {"topk", {Flops::kNone, 0}},
      {"fill", {Flops::kNone, 0}},
      {"zero", {Flops::kNone, 0}},
      {"eye", {Flops::kNone, 0}},
      {"arange", {Flops::kNone, 0}},
      {"range", {Flops::kNone, 0}},
      {"linspace", {Flops::kNone, 0}},
      {"bernoulli", {Flops::kNone, 0}},
      {"uniform", {Flops::kNone, 0}},
      {"normal", {Flops::kNone, 0}},
      {"random", {Flops::kNone, 0}},
      {"randperm", {Flops::kNone, 0}},
      {"exponential", {Flops::kNone, 0}},
      {"multinomial", {Flops::kNone, 0}},
  };
  return *entries;
}

bool among(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view base_name(const std::string& qualified) {
  std::string_view name = qualified;
  if (const auto colons = name.find("::"); colons != std::string_view::npos) {
    name.remove_prefix(colons + 2);
  }
  if (name.size() > 1 && name.back() == '_') {
    name.remove_suffix(1);
  }
  return name;
}

bool returns_view(const c10::FunctionSchema& schema) {
  return !schema.returns().empty() && schema.returns()[0].alias_info() != nullptr &&
      !schema.returns()[0].alias_info()->isWrite();
}

bool has_tag(const c10::OperatorHandle& op, at::Tag tag) {
  const auto tags = op.getTags();
  return std::find(tags.begin(), tags.end(), tag) != tags.end();
}

uint64_t product(c10::IntArrayRef sizes, size_t from = 0) {
  uint64_t result = 1;
  for (size_t i = from; i < sizes.size(); ++i) {
    result *= static_cast<uint64_t>(sizes[i]);
  }
  return result;
}

}  // namespace

uint64_t touched(const at::Tensor& tensor) {
  if (tensor.numel() == 0 || !tensor.has_storage() || tensor._is_zerotensor()) {
    return 0;
  }
  if (tensor.is_contiguous()) {
    return static_cast<uint64_t>(tensor.numel()) * tensor.itemsize();
  }
  uint64_t elements = 1;
  uint64_t extent = 1;  // windows overlap (unfold): no more than lies between the first element and the last
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.stride(i) != 0) {
      elements *= static_cast<uint64_t>(tensor.size(i));
      extent += static_cast<uint64_t>((tensor.size(i) - 1) * tensor.stride(i));
    }
  }
  return std::min(elements, extent) * tensor.itemsize();
}

Cost cost_of(const c10::OperatorHandle& op) {
  Cost cost;
  const auto& schema = op.schema();
  const std::string_view name = base_name(schema.name());
  const auto found = table().find(name);
  if (found != table().end()) {
    cost.flops = found->second.flops;
    cost.factor = found->second.factor;
  } else if (has_tag(op, at::Tag::reduction)) {
    cost.flops = Flops::kPerInput;
  }
  cost.is_free = returns_view(schema) ||
      among(name, {"resize", "set", "empty_like", "new_empty", "_local_scalar_dense", "is_set_to", "is_pinned",
                   "_resize_output"});
  cost.keeps_nothing = among(
      name, {"copy", "fill", "zero", "bernoulli", "uniform", "normal", "random", "exponential", "cauchy", "log_normal",
             "geometric"});
  const bool indexed = among(name, {"index", "index_put", "_index_put_impl"});
  cost.synchronizes =
      !indexed && (has_tag(op, at::Tag::data_dependent_output) || has_tag(op, at::Tag::dynamic_output_shape));
  if (among(name, {"index", "index_select", "gather", "take", "embedding"})) {
    cost.access = Access::kGather;
  } else if (
      schema.is_mutable() &&
      among(name, {"index_put", "_index_put_impl", "index_copy", "index_add", "index_fill", "scatter", "scatter_add",
                   "scatter_reduce", "put", "index_reduce"})) {
    cost.access = Access::kScatter;
  }
  return cost;
}

uint64_t matmul_flops(const at::Tensor& left, uint64_t columns) {
  return 2 * static_cast<uint64_t>(left.numel()) * columns;
}

uint64_t convolution_flops(
    const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, bool transposed) {
  const auto& positions = transposed ? input : output;
  return 2 * static_cast<uint64_t>(input.size(0)) * product(positions.sizes(), 2) * product(weight.sizes());
}

}  // namespace simulator::meter
