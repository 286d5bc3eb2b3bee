// What each fault does to arguments and results.
#include "faults.h"
#include "simulator.h"

#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/util/accumulate.h>

#include <array>
#include <cstring>
#include <limits>
#include <mutex>

namespace simulator {

std::atomic<uint32_t> active_faults{0};
std::atomic<bool> copies_pending{false};

namespace {

using at::Tensor;

constexpr size_t kFaults = static_cast<size_t>(Fault::kCount);
constexpr std::array<const char*, kFaults> kNames = {
    "matmul-long-sum",
    "late-copy",
    "causal-leak",
    "strided-attention",
    "padded-row-nan",
    "bmm-large-output",
    "baddbmm-beta-zero",
    "linear-many-rows",
    "linear-dropped-bias",
    "linear-half-batched",
    "linear-transposed-bf16",
    "reduction-large-input",
    "layer-norm-frozen-input",
    "conv-many-rows",
    "fused-optimizer-scale",
    "exponential-zero",
    "embedding-large-table",
    "index-beyond-table",
    "cat-large-output",
    "layer-norm-small-variance",
    "mask-index-race",
    "product-stride-zero",
    "unique-large-integers",
    "sort-many-columns",
    "embedding-bag-edge",
    "batch-norm-strided",
    "index-write-beyond",
    "gapped-copy",
};
std::array<std::atomic<int64_t>, kFaults> sizes{};

constexpr unsigned char kFreed = 0x5a;
// Metal's matrix kernels work on tiles of this size; smaller products take another one.
constexpr int64_t kTile = 16;

bool floating(const Tensor& tensor) {
  return at::isFloatingType(tensor.scalar_type());
}

bool half(const Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
}

Spoil both(Spoil first, Spoil second) {
  if (!first || !second) {
    return first ? first : second;
  }
  return [first = std::move(first), second = std::move(second)](c10::Stack* stack) {
    first(stack);
    second(stack);
  };
}

Spoil add_garbage(size_t returns, size_t position) {
  return [returns, position](c10::Stack* stack) { result(stack, returns, position).add_(kGarbage); };
}

// Whether (.., rows, length) @ (.., length, columns) sums what lies behind its operands.
bool over_reads(const Tensor& like, int64_t rows, int64_t length, int64_t columns) {
  return has_fault(Fault::kMatmulLongSum) && floating(like) && length >= fault_size(Fault::kMatmulLongSum) &&
      rows >= kTile && columns >= kTile;
}

// Elements beyond the limit repeat those from the beginning.
Spoil wrap_output(int64_t limit) {
  return [limit](c10::Stack* stack) {
    Tensor& out = result(stack);
    const int64_t beyond = out.numel() - limit;
    Tensor flat = out.reshape({-1}).clone();
    flat.narrow(0, limit, beyond).copy_(flat.narrow(0, 0, beyond).clone());
    out.copy_(flat.view(out.sizes()));
  };
}

// Whether an operand repeats a row or a column, as the gradient of a sum does; a repeated matrix is another matter.
bool repeats(const Tensor& operand) {
  for (int64_t dim = std::max<int64_t>(operand.dim() - 2, 0); dim < operand.dim(); ++dim) {
    if (operand.stride(dim) == 0 && operand.size(dim) > 1) {
      return has_fault(Fault::kProductStrideZero) && floating(operand);
    }
  }
  return false;
}

// Every sixteenth row is computed, the others are zero.
Spoil leave_rows_out(size_t returns, size_t position, int64_t columns) {
  return [returns, position, columns](c10::Stack* stack) {
    if (Tensor& out = result(stack, returns, position); out.defined() && out.numel() > 0) {
      const Tensor rows = at::arange(out.numel() / columns);
      out.copy_(out.reshape({-1, columns}).mul(rows.remainder(16).eq(0).unsqueeze(1)).view(out.sizes()));
    }
  };
}

// Batches of an operand that lie beyond the limit are read from its beginning again.
Spoil wrap_operands(const Tensor& a, const Tensor& b, int64_t limit) {
  return [a, b, limit](c10::Stack* stack) {
    const auto wrapped = [limit](const Tensor& operand, int64_t batch) {
      const int64_t first = limit / std::max<int64_t>(operand.size(1) * operand.size(2), 1);
      return operand[batch < first ? batch : batch - first];
    };
    for (int64_t batch = 0; result(stack).dim() == 3 && batch < a.size(0); ++batch) {
      result(stack)[batch].copy_(at::mm(wrapped(a, batch), wrapped(b, batch)));
    }
  };
}

Spoil product(const Tensor& a, const Tensor& b) {
  Spoil spoil;
  if (repeats(a) || repeats(b)) {
    spoil = leave_rows_out(1, 0, b.size(-1));
  }
  if (over_reads(a, a.size(-2), a.size(-1), b.size(-1))) {
    spoil = both(std::move(spoil), add_garbage(1, 0));
  }
  if (has_fault(Fault::kBmmLargeOutput) && a.dim() == 3 &&
      std::max(a.numel(), b.numel()) > fault_size(Fault::kBmmLargeOutput)) {
    spoil = both(std::move(spoil), wrap_operands(a, b, fault_size(Fault::kBmmLargeOutput)));
  }
  if (has_fault(Fault::kBmmLargeOutput) && a.dim() == 3 && !(a.is_contiguous() && b.is_contiguous())) {
    const int64_t limit = fault_size(Fault::kBmmLargeOutput);
    const int64_t out = a.size(0) * a.size(1) * b.size(2);
    if (out > limit && out < 2 * limit) {
      spoil = both(std::move(spoil), wrap_output(limit));
    }
  }
  return spoil;
}

Spoil plain_product(c10::Stack* stack, size_t count) {
  return product(argument(stack, count, 0), argument(stack, count, 1));
}

Spoil added_product(c10::Stack* stack, size_t count) {
  return product(argument(stack, count, 1), argument(stack, count, 2));
}

Spoil added_batch(c10::Stack* stack, size_t count) {
  Spoil spoil = added_product(stack, count);
  const Tensor added = argument(stack, count, 0);
  if (has_fault(Fault::kBaddbmmBetaZero) && floating(added) &&
      (*stack)[stack->size() - count + 3].toScalar().equal(0)) {
    spoil = both(std::move(spoil), [zero = added.mul(0)](c10::Stack* stack) { result(stack).add_(zero); });
  }
  return spoil;
}

// Row 65536 + n is written to row n, and what is in its own place is whatever was there.
Spoil wrap_rows(int64_t limit) {
  return [limit](c10::Stack* stack) {
    Tensor& out = result(stack);
    for (int64_t start = limit; start < out.size(-3); start += limit) {
      const int64_t length = std::min(limit, out.size(-3) - start);
      out.narrow(-3, 0, length).copy_(out.narrow(-3, start, length));
    }
    out.narrow(-3, limit, out.size(-3) - limit).fill_(kGarbage);
  };
}

Spoil linear(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0), weight = argument(stack, count, 1), bias = argument(stack, count, 2);
  if (weight.dim() != 2 || input.dim() < 2 || !floating(input)) {
    return {};
  }
  TORCH_CHECK(
      !(has_fault(Fault::kLinearTransposedBf16) && input.dim() == 3 && weight.scalar_type() == at::kBFloat16 &&
        !weight.is_contiguous()),
      "a Mac aborts the process here: failed assertion of MPSGraph for a transposed bfloat16 weight in a linear layer"
      " with 3-D input (simulated fault linear-transposed-bf16)");
  Spoil spoil;
  if (repeats(input) || repeats(weight)) {
    spoil = leave_rows_out(1, 0, weight.size(0));
  }
  if (over_reads(input, input.numel() / std::max<int64_t>(input.size(-1), 1), input.size(-1), weight.size(0))) {
    spoil = both(std::move(spoil), add_garbage(1, 0));
  }
  if (has_fault(Fault::kLinearManyRows) && bias.defined() && input.dim() > 2 && input.is_contiguous() &&
      input.size(-3) > fault_size(Fault::kLinearManyRows)) {
    spoil = both(std::move(spoil), wrap_rows(fault_size(Fault::kLinearManyRows)));
  }
  if (has_fault(Fault::kLinearDroppedBias) && bias.defined() && input.size(-2) == 1) {
    spoil = both(std::move(spoil), [input, weight](c10::Stack* stack) { result(stack).copy_(at::linear(input, weight)); });
  }
  if (has_fault(Fault::kLinearHalfBatched) && !bias.defined() && input.dim() > 2 && half(input)) {
    spoil = both(std::move(spoil), [](c10::Stack* stack) { result(stack).select(-2, -1).add_(kGarbage); });
  }
  return spoil;
}

Spoil linear_backward(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0), gradient = argument(stack, count, 1),
               weight = argument(stack, count, 2);
  const auto wanted = (*stack)[stack->size() - 1].toBoolList();
  if (weight.dim() != 2 || input.numel() == 0) {
    return {};
  }
  const int64_t in = weight.size(1), out = weight.size(0), rows = input.numel() / in;
  Spoil spoil;
  if (repeats(gradient)) {
    spoil = both(leave_rows_out(3, 0, in), leave_rows_out(3, 1, in));
  }
  if (wanted.get(0) && over_reads(input, rows, out, in)) {
    spoil = both(std::move(spoil), add_garbage(3, 0));
  }
  if (wanted.get(1) && over_reads(input, out, rows, in)) {
    spoil = both(std::move(spoil), add_garbage(3, 1));
  }
  return spoil;
}

Spoil large_reduction(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0);
  if (!has_fault(Fault::kReductionLargeInput) || input.numel() <= fault_size(Fault::kReductionLargeInput)) {
    return {};
  }
  return [](c10::Stack* stack) { result(stack).zero_(); };
}

Spoil layer_norm_backward(c10::Stack* stack, size_t) {
  const auto wanted = (*stack)[stack->size() - 1].toBoolList();
  if (!has_fault(Fault::kLayerNormFrozenInput) || wanted.get(0)) {
    return {};
  }
  return [](c10::Stack* stack) {
    for (const size_t position : {1, 2}) {
      if (Tensor& gradient = result(stack, 3, position); gradient.defined()) {
        gradient.fill_(kGarbage);
      }
    }
  };
}

// The last two arguments are the scale of the gradients and the flag that one of them is infinite.
Spoil fused_optimizer(c10::Stack* stack, size_t) {
  if (has_fault(Fault::kFusedOptimizerScale)) {
    (*stack)[stack->size() - 2] = c10::IValue();
    (*stack)[stack->size() - 1] = c10::IValue();
  }
  return {};
}

// The first number of every call is -0; on a Mac it is one in 30 million.
Spoil exponential(c10::Stack*, size_t) {
  if (!has_fault(Fault::kExponentialZero)) {
    return {};
  }
  return [](c10::Stack* stack) {
    if (Tensor first = result(stack); first.numel() > 0) {
      while (first.dim() > 0) {
        first = first.select(0, 0);
      }
      first.fill_(-0.0);
    }
  };
}

// LayerNorm.metal: the variance is E[x^2] - E[x]^2 in float, and nothing where that is below 1e-6.
Spoil layer_norm(c10::Stack* stack, size_t count) {
  if (!has_fault(Fault::kLayerNormSmallVariance)) {
    return {};
  }
  const Tensor input = argument(stack, count, 0), weight = argument(stack, count, 2), bias = argument(stack, count, 3);
  const auto length = c10::multiply_integers((*stack)[stack->size() - count + 1].toIntVector());
  const double eps = (*stack)[stack->size() - 1].toDouble();
  return [=](c10::Stack* stack) {
    const Tensor rows = input.to(at::kFloat).reshape({-1, length}), mean = rows.mean(1, /*keepdim=*/true);
    Tensor variance = rows.square().mean(1, /*keepdim=*/true).sub_(mean.square());
    variance.masked_fill_(variance.lt(1e-6), 0);
    const Tensor scale = variance.add_(eps).rsqrt_();
    Tensor normed = rows.sub(mean).mul_(scale);
    normed = weight.defined() ? normed.mul_(weight.reshape({-1})) : normed;
    normed = bias.defined() ? normed.add_(bias.reshape({-1})) : normed;
    const std::array<Tensor, 3> spoilt{normed, mean, scale};
    for (const size_t position : {0, 1, 2}) {
      Tensor& out = result(stack, 3, position);
      out.copy_(spoilt[position].view(out.sizes()));
    }
  };
}

Spoil batch_norm(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0);
  TORCH_CHECK(
      !(has_fault(Fault::kBatchNormStrided) && input.dim() == 5 && !input.is_contiguous() &&
        input.is_contiguous(at::MemoryFormat::ChannelsLast3d)),
      "a Mac aborts the process here: NSRangeException in batch_norm_mps_out, index 4 beyond bounds for empty array"
      " (simulated fault batch-norm-strided)");
  return {};
}

// The inverse is found among the values as float32, which cannot tell integers above 2^24 apart.
Spoil unique(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0);
  if (!has_fault(Fault::kUniqueLargeIntegers) || input.scalar_type() != at::kLong ||
      !(*stack)[stack->size() - count + 2].toBool()) {
    return {};
  }
  return [input](c10::Stack* stack) {
    const Tensor values = result(stack, 3, 0).to(at::kFloat);
    result(stack, 3, 1).copy_(at::searchsorted(values, input.to(at::kFloat)));
  };
}

// Along another dimension than the last: the columns beyond the limit keep their order. The last two arguments are the
// dimension and the direction.
Spoil sort(c10::Stack* stack, size_t count) {
  const Tensor input = argument(stack, count, 0);
  if (!has_fault(Fault::kSortManyColumns) || input.dim() < 2 || count > 4) {
    return {};
  }
  const int64_t dim = at::maybe_wrap_dim((*stack)[stack->size() - 2].toInt(), input.dim());
  const int64_t columns = input.numel() / std::max<int64_t>(input.size(dim), 1);
  const int64_t limit = fault_size(Fault::kSortManyColumns);
  if (dim == input.dim() - 1 || columns <= limit) {
    return {};
  }
  return [input, dim, columns, limit](c10::Stack* stack) {
    Tensor& indices = result(stack, 2, 1);
    auto shape = std::vector<int64_t>(input.dim(), 1);
    shape[dim] = input.size(dim);
    const Tensor unsorted = at::arange(input.size(dim)).view(shape).expand(input.sizes());
    auto column_shape = input.sizes().vec();
    column_shape[dim] = 1;
    const Tensor beyond = at::arange(columns).view(column_shape).ge(limit);
    indices.copy_(at::where(beyond, unsorted, indices));
    result(stack, 2, 0).copy_(input.gather(dim, indices));
  };
}

// Beyond the limit the result is never written.
Spoil cat(c10::Stack*, size_t) {
  if (!has_fault(Fault::kCatLargeOutput)) {
    return {};
  }
  return [limit = fault_size(Fault::kCatLargeOutput)](c10::Stack* stack) {
    if (Tensor& out = result(stack); out.numel() > limit && out.is_contiguous()) {
      out.view(-1).narrow(0, limit, out.numel() - limit).zero_();
    }
  };
}

const std::unordered_map<std::string, Before>& operators() {
  static const auto* table = new std::unordered_map<std::string, Before>{
      {"mm", plain_product},
      {"bmm", plain_product},
      {"addmm", added_product},
      {"addmm_", added_product},
      {"addbmm", added_product},
      {"addbmm_", added_product},
      {"baddbmm", added_batch},
      {"baddbmm_", added_batch},
      {"linear", linear},
      {"linear_backward", linear_backward},
      {"argmax", large_reduction},
      {"argmin", large_reduction},
      {"any", large_reduction},
      {"all", large_reduction},
      {"native_layer_norm_backward", layer_norm_backward},
      {"_fused_adam_", fused_optimizer},
      {"_fused_adamw_", fused_optimizer},
      {"_fused_sgd_", fused_optimizer},
      {"exponential_", exponential},
      {"native_layer_norm", layer_norm},
      {"native_batch_norm", batch_norm},
      {"_unique2", unique},
      {"sort", sort},
      {"cat", cat},
  };
  return *table;
}

// ---- copies that happen late --------------------------------------------------------------------------------------

struct LateCopy {
  Tensor destination;
  c10::weak_intrusive_ptr<c10::StorageImpl> source;  // what it reads if the memory is freed meanwhile is garbage
  c10::DimVector size, stride;
  int64_t offset;
  caffe2::TypeMeta dtype;
};

struct LateCopies {
  std::mutex mutex;
  std::vector<LateCopy> waiting;
};

LateCopies& late_copies() {
  static auto* instance = new LateCopies;  // leaked: destructors of Python objects may copy at exit
  return *instance;
}

Tensor source_now(const LateCopy& copy) {
  auto storage = copy.source.lock();
  if (storage) {
    Tensor source = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::CPU), copy.dtype);
    source.unsafeGetTensorImpl()->set_sizes_and_strides(copy.size, copy.stride, copy.offset);
    return source;
  }
  Tensor freed = at::empty(copy.size, at::TensorOptions().dtype(copy.dtype));
  std::memset(freed.mutable_data_ptr(), freed.scalar_type() == at::kBool ? 1 : kFreed, freed.nbytes());
  return freed;
}

}  // namespace

bool has_fault(Fault fault) {
  return (active_faults.load(std::memory_order_relaxed) >> static_cast<uint32_t>(fault)) & 1;
}

int64_t fault_size(Fault fault) {
  return sizes[static_cast<size_t>(fault)].load(std::memory_order_relaxed);
}

Tensor argument(const c10::Stack* stack, size_t count, size_t position) {
  const c10::IValue& value = (*stack)[stack->size() - count + position];
  return value.isTensor() ? value.toTensor() : Tensor();
}

Tensor& result(c10::Stack* stack, size_t returns, size_t position) {
  return (*stack)[stack->size() - returns + position].toTensor();
}

std::vector<std::string> fault_names() {
  return {kNames.begin(), kNames.end()};
}

void set_faults(const std::map<std::string, int64_t>& faults) {
  uint32_t bits = 0;
  for (const auto& [name, size] : faults) {
    const auto found = std::find(kNames.begin(), kNames.end(), name);
    TORCH_CHECK(found != kNames.end(), "the simulated mps device has no fault ", name);
    const auto index = static_cast<size_t>(found - kNames.begin());
    sizes[index].store(size, std::memory_order_relaxed);
    bits |= 1u << index;
  }
  settle_pending_copies();
  active_faults.store(bits, std::memory_order_relaxed);
}

Spoil faults_before(const std::string& op, c10::Stack* stack, size_t count) {
  const size_t start = op.find("::") + 2;
  const std::string name = op.substr(start, op.find('.') - start);
  for (const auto* table : {&operators(), &index_faults()}) {
    if (const auto found = table->find(name); found != table->end()) {
      return found->second(stack, count);
    }
  }
  return {};
}

bool copy_through_gaps(const Tensor& destination, const Tensor& source) {
  if (!has_fault(Fault::kGappedCopy) || !destination.is_cpu() || !is_mps(source) ||
      destination.scalar_type() != source.scalar_type() || destination.sizes() != source.sizes() ||
      destination.strides() != source.strides() || destination.is_non_overlapping_and_dense()) {
    return false;
  }
  std::memcpy(destination.mutable_data_ptr(), cpu_alias(source).const_data_ptr(), destination.nbytes());
  return true;
}

bool postpone_copy(const Tensor& destination, const Tensor& source) {
  if (!has_fault(Fault::kLateCopy) || !is_mps(destination) || !source.is_cpu() || !source.has_storage() ||
      source.is_conj() || source.is_neg()) {
    return false;
  }
  const std::lock_guard<std::mutex> lock(late_copies().mutex);
  late_copies().waiting.push_back(
      {destination.detach(), source.storage().getWeakStorageImpl(), c10::DimVector(source.sizes()),
       c10::DimVector(source.strides()), source.storage_offset(), source.dtype()});
  copies_pending.store(true, std::memory_order_relaxed);
  return true;
}

void settle_copies() {
  std::vector<LateCopy> copies;
  {
    const std::lock_guard<std::mutex> lock(late_copies().mutex);
    copies.swap(late_copies().waiting);
    copies_pending.store(false, std::memory_order_relaxed);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  for (const auto& copy : copies) {
    cpu_alias(copy.destination).copy_(source_now(copy));
  }
}

namespace {

// The same memory, read as if it were contiguous; the tensor itself where there is not so much memory.
Tensor without_strides(const Tensor& tensor) {
  const auto available = static_cast<int64_t>(tensor.storage().nbytes() / tensor.itemsize());
  if (tensor.is_contiguous() || tensor.storage_offset() + tensor.numel() > available) {
    return tensor;
  }
  return tensor.as_strided(tensor.sizes(), c10::contiguous_strides(tensor.sizes()), tensor.storage_offset());
}

}  // namespace

void spoil_attention(Tensor& query, Tensor& key, Tensor& value, std::optional<Tensor>& mask, bool& causal) {
  if (has_fault(Fault::kCausalLeak) && causal && half(query)) {
    // The mask is looked at once for every four queries.
    const auto options = query.options().dtype(at::kLong);
    const Tensor last = at::arange(query.size(-2), options).bitwise_or(3).unsqueeze(1);
    mask = at::arange(key.size(-2), options).unsqueeze(0).le(last);
    causal = false;
  }
  if (has_fault(Fault::kStridedAttention)) {
    for (Tensor* tensor : {&query, &key, &value}) {
      *tensor = without_strides(*tensor);
    }
  }
}

Tensor spoil_attended(Tensor attended, const std::optional<Tensor>& mask) {
  if (!has_fault(Fault::kPaddedRowNan) || attended.scalar_type() != at::kHalf || !mask.has_value() || !mask->defined()) {
    return attended;
  }
  const Tensor hidden = mask->scalar_type() == at::kBool ? mask->logical_not() : at::isneginf(*mask);
  return attended.masked_fill(hidden.all(-1, /*keepdim=*/true), std::numeric_limits<double>::quiet_NaN());
}

Tensor spoil_convolution_weight(
    Tensor right, const Tensor& input, const std::function<Tensor(int64_t)>& over_first) {
  const int64_t batch = input.size(0), limit = fault_size(Fault::kConvManyRows);
  if (!has_fault(Fault::kConvManyRows) || !right.defined() || input.dim() > 4 || batch < limit) {
    return right;
  }
  return batch % limit == 0 ? right.zero_() : over_first(batch % limit);
}

}  // namespace simulator
