// multinomial is made of other operators on a Mac, so that their random numbers and their faults are its own.
//
// torch 2.13: aten/src/ATen/native/mps/operations/Distributions.mm, multinomial_out_mps.
#include "simulator.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <limits>

namespace simulator {
namespace {

using at::Tensor;

constexpr int64_t kCategories = int64_t{1} << 24;  // float32 counts to there

void check_probabilities(const Tensor& self) {
  const bool valid = self.max().lt(std::numeric_limits<double>::infinity()).logical_and(self.min().ge(0)).item<bool>();
  TORCH_CHECK(valid, "probability tensor contains either `inf`, `nan` or element < 0");
  const bool empty = self.sum(-1).eq(0).sum().item<bool>();
  TORCH_CHECK(!empty, "invalid multinomial distribution (sum of probabilities <= 0)");
}

// The largest of p / q with q from an exponential distribution: one draw, or several without replacement.
Tensor draw(const Tensor& self, int64_t samples, const std::optional<at::Generator>& generator) {
  check_probabilities(self);
  Tensor race = at::empty_like(self).exponential_(1, generator);
  at::div_out(race, self, race);
  return samples == 1 ? race.argmax(-1, /*keepdim=*/true) : std::get<1>(race.topk(samples));
}

// multinomial(self, num_samples, replacement, generator, out). What it refuses, the CPU's kernel refuses likewise.
void multinomial(const c10::OperatorHandle& op, c10::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const auto argument = [&](size_t position) -> const c10::IValue& { return (*stack)[stack->size() - count + position]; };
  const Tensor self = argument(0).toTensor();
  const int64_t samples = argument(1).toInt();
  const bool drawn = (self.dim() == 1 || self.dim() == 2) && self.numel() > 0 && self.size(-1) <= kCategories &&
      at::isFloatingType(self.scalar_type()) &&
      (samples == 1 || (!argument(2).toBool() && samples > 0 && samples <= self.size(-1)));
  if (!drawn || (count > 4 && argument(4).toTensor().scalar_type() != at::kLong)) {
    fallback(op, stack);
    return;
  }
  Tensor result = draw(self, samples, argument(3).toOptional<at::Generator>());
  if (count > 4) {
    result = argument(4).toTensor().resize_(result.sizes()).copy_(result);
  }
  torch::jit::drop(*stack, count);
  stack->emplace_back(std::move(result));
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  library.impl("multinomial", torch::CppFunction::makeFromBoxedFunction<&simulator::multinomial>());
  library.impl("multinomial.out", torch::CppFunction::makeFromBoxedFunction<&simulator::multinomial>());
}
