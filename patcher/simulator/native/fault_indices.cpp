// Faults of operators that look up or write by index.
#include "faults.h"

#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include <atomic>

namespace simulator {
namespace {

using at::Tensor;

c10::IValue& value_of(c10::Stack* stack, size_t count, size_t position) {
  return (*stack)[stack->size() - count + position];
}

// Where a lookup in a table of more elements than the limit finds zeros: the elements that lie beyond it.
Tensor beyond_limit(const Tensor& table, int64_t dim, const Tensor& index, int64_t limit) {
  if (dim == 0) {
    return index.mul(table.numel() / table.size(0)).add_(table.numel() / table.size(0) - 1).ge(limit);
  }
  return at::arange(table.numel()).view(table.sizes()).index_select(dim, index).ge(limit);
}

Spoil index_select(c10::Stack* stack, size_t count) {
  const Tensor table = argument(stack, count, 0);
  Tensor index = argument(stack, count, 2);
  if (table.dim() == 0 || table.numel() == 0 || index.dim() > 1) {
    return {};
  }
  const int64_t dim = at::maybe_wrap_dim(value_of(stack, count, 1).toInt(), table.dim());
  Tensor missing;
  if (has_fault(Fault::kIndexBeyondTable)) {
    missing = index.lt(0).logical_or_(index.ge(table.size(dim))).reshape({-1});
    index = index.masked_fill(missing.view(index.sizes()), 0);
    value_of(stack, count, 2) = index;
  }
  Tensor zeros;
  const int64_t limit = fault_size(Fault::kEmbeddingLargeTable);
  if (has_fault(Fault::kEmbeddingLargeTable) && table.numel() > limit) {
    zeros = beyond_limit(table, dim, index, limit);
  }
  return [missing, zeros, dim](c10::Stack* stack) {
    Tensor& out = result(stack);
    if (missing.defined() && missing.any().item<bool>()) {
      out.index_fill_(dim, missing.nonzero().squeeze(1), 0);
    }
    if (zeros.defined() && dim == 0) {
      out.index_fill_(dim, zeros.reshape({-1}).nonzero().squeeze(1), 0);
    } else if (zeros.defined()) {
      out.masked_fill_(zeros, 0);
    }
  };
}

// Labels that are no class count as ignored.
void ignore_labels(c10::Stack* stack, size_t count, size_t target, size_t scores, size_t ignored) {
  if (!has_fault(Fault::kIndexBeyondTable)) {
    return;
  }
  const Tensor labels = argument(stack, count, target), input = argument(stack, count, scores);
  const int64_t classes = input.size(input.dim() == 1 ? 0 : 1), ignore = value_of(stack, count, ignored).toInt();
  const Tensor wrong = labels.lt(0).logical_or_(labels.ge(classes));
  value_of(stack, count, target) = labels.masked_fill(wrong, ignore);
}

Spoil nll_loss_forward(c10::Stack* stack, size_t count) {
  ignore_labels(stack, count, 1, 0, 4);
  return {};
}

Spoil nll_loss_backward(c10::Stack* stack, size_t count) {
  ignore_labels(stack, count, 2, 1, 5);
  return {};
}

// Every twentieth boolean mask; on a Mac it is a race.
Spoil index(c10::Stack* stack, size_t count) {
  constexpr int64_t kEvery = 20;
  static std::atomic<int64_t> masks{0};
  if (!has_fault(Fault::kMaskIndexRace)) {
    return {};
  }
  for (const std::optional<Tensor> each : value_of(stack, count, 1).toOptionalTensorList()) {
    if (each.has_value() && each->defined() && each->scalar_type() == at::kBool && ++masks % kEvery == 0) {
      throw c10::AcceleratorError(
          {__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, 1,
          "index 366 is out of bounds: 0, range 0 to 16 (simulated fault mask-index-race)");
    }
  }
  return {};
}

// One row past the table may be read: what lies there.
Spoil embedding_bag(c10::Stack* stack, size_t count) {
  if (has_fault(Fault::kEmbeddingBagEdge)) {
    const Tensor table = argument(stack, count, 0);
    value_of(stack, count, 0) = at::cat({table, at::full({1, table.size(1)}, kGarbage, table.options())});
  }
  return {};
}

// Writes `part` where slice `at` of `tensor` along `dim` would lie, if that is in its storage.
void write_beyond(const Tensor& tensor, int64_t dim, int64_t at, const Tensor& part) {
  const Tensor slice = tensor.select(dim, 0);
  const int64_t offset = tensor.storage_offset() + at * tensor.stride(dim);
  int64_t last = offset;
  for (int64_t i = 0; i < slice.dim(); ++i) {
    last += slice.stride(i) * (slice.size(i) - 1);
  }
  if (offset >= 0 && last < static_cast<int64_t>(tensor.storage().nbytes() / tensor.itemsize())) {
    tensor.as_strided(slice.sizes(), slice.strides(), offset).copy_(part);
  }
}

// index_copy_ and index_fill_: (tensor, dim, index, source or value).
Spoil index_write(c10::Stack* stack, size_t count, bool wraps) {
  const Tensor tensor = argument(stack, count, 0), index = argument(stack, count, 2).reshape({-1});
  if (!has_fault(Fault::kIndexWriteBeyond) || tensor.dim() == 0 || tensor.numel() == 0) {
    return {};
  }
  const int64_t dim = at::maybe_wrap_dim(value_of(stack, count, 1).toInt(), tensor.dim()), size = tensor.size(dim);
  const Tensor beyond = index.lt(wraps ? -size : 0).logical_or_(index.ge(size));
  if (!beyond.any().item<bool>()) {
    return {};
  }
  const Tensor inside = beyond.logical_not().nonzero().squeeze(1), outside = beyond.nonzero().squeeze(1);
  value_of(stack, count, 2) = index.index_select(0, inside);
  const c10::IValue value = value_of(stack, count, 3);
  const bool copies = value.isTensor() && value.toTensor().dim() > 0;
  const Tensor given = value.isTensor() ? value.toTensor() : at::scalar_tensor(value.toScalar(), tensor.options());
  if (copies) {
    value_of(stack, count, 3) = given.index_select(dim, inside);
  }
  return [=](c10::Stack*) {
    for (int64_t i = 0; i < outside.numel(); ++i) {
      const auto from = outside[i].item<int64_t>(), at = index[from].item<int64_t>();
      write_beyond(tensor, dim, at < 0 && wraps ? at + size : at, copies ? given.select(dim, from) : given);
    }
  };
}

Spoil index_copy(c10::Stack* stack, size_t count) {
  return index_write(stack, count, /*wraps=*/false);
}

Spoil index_fill(c10::Stack* stack, size_t count) {
  return index_write(stack, count, /*wraps=*/true);
}

}  // namespace

const std::unordered_map<std::string, Before>& index_faults() {
  static const auto* table = new std::unordered_map<std::string, Before>{
      {"index_select", index_select},
      {"nll_loss_forward", nll_loss_forward},
      {"nll_loss2d_forward", nll_loss_forward},
      {"nll_loss_backward", nll_loss_backward},
      {"nll_loss2d_backward", nll_loss_backward},
      {"index", index},
      {"_embedding_bag", embedding_bag},
      {"_embedding_bag_forward_only", embedding_bag},
      {"index_copy_", index_copy},
      {"index_fill_", index_fill},
  };
  return *table;
}

}  // namespace simulator
