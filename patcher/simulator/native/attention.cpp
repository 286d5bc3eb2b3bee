// scaled_dot_product_attention chooses and allocates as on a Mac.
//
// torch 2.13: aten/src/ATen/native/transformers/attention.cpp (scaled_dot_product_attention) and
// aten/src/ATen/native/mps/operations/Attention.mm (_scaled_dot_product_attention_math_mps). Under autograd, and for
// non-contiguous inputs before macOS 15, it is torch's composite of matmul and softmax. Otherwise one of four kernels
// runs, none of which has dropout; the numbers are those of the CPU's kernel, and what the Mac's kernel allocates is
// allocated. A boolean mask that comes to the general kernel itself is added to the scores, as on a Mac.
#include "faults.h"
#include "meter.h"
#include "products.h"
#include "rules.h"
#include "simulator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/_scaled_dot_product_attention_math_for_mps.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <array>
#include <limits>
#include <tuple>

namespace simulator {
namespace {

using at::Tensor;
using std::optional;

// False in a mask means minus infinity in what is added to the scores.
optional<Tensor> additive(const optional<Tensor>& mask, c10::ScalarType dtype) {
  if (!mask.has_value() || !mask->defined()) {
    return std::nullopt;
  }
  if (mask->scalar_type() != at::kBool) {
    return mask;
  }
  return at::zeros_like(*mask, mask->options().dtype(dtype))
      .masked_fill_(mask->logical_not(), -std::numeric_limits<double>::infinity());
}

void check_inputs(const Tensor& query, const Tensor& key, const Tensor& value, const optional<Tensor>& mask, bool causal) {
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
}

bool has_gradient(const Tensor& query, const Tensor& key, const Tensor& value) {
  return at::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad());
}

bool may_be_fused(const Tensor& query, const Tensor& key, const Tensor& value) {
  return macos() >= std::make_pair(15U, 0U) ||
      (query.is_contiguous() && key.is_contiguous() && value.is_contiguous());
}

Tensor scaled_dot_product_attention(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const optional<Tensor>& mask,
    double dropout,
    bool causal,
    optional<double> scale,
    bool grouped) {
  check_inputs(query, key, value, mask, causal);
  Tensor q = query, k = key, v = value;
  optional<Tensor> seen = mask;
  if (faults_active()) {
    spoil_attention(q, k, v, seen, causal);
  }
  const auto added = additive(seen, q.scalar_type());
  const bool fused = !has_gradient(q, k, v) && q.dim() >= 3 && may_be_fused(q, k, v);
  Tensor attended = fused
      ? std::get<0>(at::_scaled_dot_product_attention_math_for_mps(
            q, k, v, added, dropout, causal, /*dropout_mask=*/std::nullopt, scale, grouped))
      : std::get<0>(at::_scaled_dot_product_attention_math(
            q, k, v, added, dropout, causal, /*dropout_mask=*/std::nullopt, scale, grouped));
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

enum class Kernel { general, vector, vector_2pass, prefill };

// Attention.mm, _scaled_dot_product_attention_math_mps.
Kernel choose(const Tensor& query, const Tensor& key, const Tensor& value, const optional<Tensor>& mask, bool causal) {
  const int64_t length = query.size(-2), keys = key.size(-2), head = query.size(-1);
  const auto one_of = [&](std::initializer_list<int64_t> sizes) {
    return head == value.size(-1) && std::find(sizes.begin(), sizes.end(), head) != sizes.end();
  };
  const bool mask_fits = !mask.has_value() || mask->scalar_type() == at::kBool ||
      mask->scalar_type() == query.scalar_type();
  if (length <= 8 && length <= keys && mask_fits && one_of({64, 96, 128, 256}) && !(causal && mask.has_value())) {
    const bool many = keys >= 1024 || (key.size(-3) < query.size(-3) && keys >= 4096);
    return many ? Kernel::vector_2pass : Kernel::vector;
  }
  if (length > 8 && keys > 0 && mask_fits && one_of({32, 64, 72, 80, 96, 128, 256})) {
    return Kernel::prefill;
  }
  return Kernel::general;
}

std::vector<int64_t> with_last(const Tensor& query, std::initializer_list<int64_t> last) {
  std::vector<int64_t> sizes(query.sizes().begin(), query.sizes().end() - 2);
  sizes.insert(sizes.end(), last);
  return sizes;
}

// In half precision the general kernel works on this many queries at a time.
constexpr int64_t kQueriesAtOnce = 3068;

bool in_chunks(const Tensor& query) {
  const bool half = query.scalar_type() == at::kHalf || query.scalar_type() == at::kBFloat16;
  return half && query.size(-2) > kQueriesAtOnce;
}

// What the Mac's kernel allocates besides its result, for the length of the call; memory that is never touched.
std::vector<Tensor> scratch(Kernel kernel, const Tensor& query, const Tensor& key, const Tensor& value) {
  const int64_t length = query.size(-2), keys = key.size(-2), head = query.size(-1), blocks = 32;
  std::vector<Tensor> held;
  const auto hold = [&](std::vector<int64_t> sizes, c10::ScalarType dtype) {
    held.push_back(at::empty(sizes, query.options().dtype(dtype)));
  };
  const auto dtype = query.scalar_type();
  if (kernel != Kernel::general) {
    for (const Tensor* tensor : {&query, &key, &value}) {
      if (tensor->stride(-1) != 1) {
        hold(tensor->sizes().vec(), dtype);
      }
    }
  } else if (key.size(-3) != query.size(-3)) {
    hold(with_last(query, {keys, head}), dtype);
    hold(with_last(query, {keys, value.size(-1)}), dtype);
  }
  if (kernel == Kernel::vector) {
    hold(with_last(query, {length, keys}), dtype);
  } else if (kernel == Kernel::vector_2pass) {
    hold(with_last(query, {length, blocks, head}), dtype);
    hold(with_last(query, {length, blocks}), at::kFloat);
    hold(with_last(query, {length, blocks}), at::kFloat);
  } else if (kernel == Kernel::general && in_chunks(query)) {
    hold(with_last(query, {kQueriesAtOnce, keys}), dtype);
    hold(with_last(query, {kQueriesAtOnce, value.size(-1)}), dtype);
  }
  return held;
}

// Two products of queries with keys or values; what is held besides is written and read again.
void account(
    meter::Kernel& kernel,
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const optional<Tensor>& mask,
    const Tensor& result,
    const std::vector<Tensor>& held) {
  for (const Tensor* tensor : {&query, &key, &value}) {
    kernel.reads(*tensor);
  }
  if (mask.has_value()) {
    kernel.reads(*mask);
  }
  for (const Tensor& tensor : held) {
    kernel.writes(tensor);
    kernel.reads(tensor);
  }
  kernel.writes(result);
  const auto keys = static_cast<uint64_t>(key.size(-2));
  kernel.add_flops(2 * keys * static_cast<uint64_t>(query.numel() + result.numel()));
}

void finish(std::optional<meter::Kernel>& metered) {
  if (metered.has_value()) {
    metered->finish();
  }
}

std::tuple<Tensor, Tensor> attention_math_for_mps(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const optional<Tensor>& mask,
    double dropout,
    bool causal,
    const optional<Tensor>& /*dropout_mask*/,
    optional<double> scale,
    bool /*grouped*/) {
  for (const Tensor* tensor : {&query, &key, &value}) {
    if (!c10::isFloatingType(tensor->scalar_type())) {
      rules::count_refused("attention");
      TORCH_CHECK_NOT_IMPLEMENTED(
          false, "scaled_dot_product_attention for MPS does not support dtype ", tensor->scalar_type());
    }
  }
  TORCH_CHECK_NOT_IMPLEMENTED(dropout == 0, "scaled_dot_product_attention for MPS does not support dropout.");
  TORCH_CHECK(query.dim() >= 3 && key.dim() >= 3 && value.dim() >= 3, "expected query, key and value with heads");
  TORCH_CHECK(
      query.size(-3) % key.size(-3) == 0, "For GQA, the query tensor's head dimension (", query.size(-3),
      ") must be divisible by the key tensor's head dimension (", key.size(-3), ").");
  std::optional<meter::Kernel> metered;
  if (meter::on()) {
    metered.emplace("aten::_scaled_dot_product_attention_math_for_mps");
  }
  const Kernel kernel = choose(query, key, value, mask, causal);
  Tensor result = at::empty(with_last(query, {query.size(-2), value.size(-1)}), query.options());
  const std::vector<Tensor> held = scratch(kernel, query, key, value);
  if (metered.has_value()) {
    account(*metered, query, key, value, mask, result, held);
  }
  Aliases aliases;
  const products::Operands operands{query, key, value};
  const auto cpu = [&](const Tensor& tensor) { return operands.widen(aliases.to_cpu(tensor)); };
  const Tensor q = cpu(query), k = cpu(key), v = cpu(value);
  const auto cpu_mask = mask.has_value() ? optional<Tensor>(cpu(*mask)) : std::nullopt;
  const bool grouped = query.size(-3) != key.size(-3);
  if (kernel == Kernel::general) {
    auto [computed, scores] = at::_scaled_dot_product_attention_math(
        q, k, v, cpu_mask, /*dropout_p=*/0, causal, /*dropout_mask=*/std::nullopt, scale, grouped);
    aliases.to_cpu(result).copy_(computed);
    if (in_chunks(query)) {
      finish(metered);
      return {result, at::empty({0}, query.options())};
    }
    Tensor weights = at::empty(with_last(query, {query.size(-2), key.size(-2)}), query.options());
    aliases.to_cpu(weights).copy_(scores);
    if (metered.has_value()) {
      metered->writes(weights);
    }
    finish(metered);
    return {result, weights};
  }
  aliases.to_cpu(result).copy_(
      at::scaled_dot_product_attention(q, k, v, cpu_mask, /*dropout_p=*/0, causal, scale, grouped));
  finish(metered);
  return {result, result};
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
}
