#include "sparse.h"

#include <ATen/Functions.h>
#include <ATen/SparseTensorImpl.h>
#include <torch/library.h>

#include <string>

namespace simulator {
namespace {

at::SparseTensorImpl* sparse_impl(const at::Tensor& tensor) {
  return static_cast<at::SparseTensorImpl*>(tensor.unsafeGetTensorImpl());
}

at::Tensor make(c10::DispatchKey key, const at::SparseTensorImpl& like, at::Tensor indices, at::Tensor values) {
  at::Tensor result = at::detail::make_tensor<at::SparseTensorImpl>(c10::DispatchKeySet(key), values.dtype());
  auto* impl = sparse_impl(result);
  impl->raw_resize_(like.sparse_dim(), like.dense_dim(), like.sizes());
  impl->set_indices_and_values_unsafe(indices, values);
  impl->set_coalesced(like.coalesced());
  return result;
}

void fallback_to_sparse(const c10::OperatorHandle& op, c10::Stack* stack) {
  run_on_cpu(op, stack, c10::DispatchKey::SparseCPU);
}

bool has_sparse_kernel(const std::string& name) {
  const auto op = c10::Dispatcher::singleton().findSchema({"aten::" + name, ""});
  return op.has_value() && op->hasKernelForDispatchKey(c10::DispatchKey::SparseCPU);
}

// torch 2.14 has this operator for sparse tensors, and the torch that computes here has not. Zeros add nothing to a norm
// of all elements whose order is positive: it is that of the values.
at::Tensor vector_norm(
    const at::Tensor& self,
    const at::Scalar& ord,
    at::OptionalIntArrayRef dim,
    bool keepdim,
    std::optional<at::ScalarType> dtype) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !dim.has_value() && !keepdim && ord.toDouble() > 0,
      "the simulated mps device computes linalg.vector_norm of a sparse tensor over all dimensions and for a positive"
      " order only");
  return at::linalg_vector_norm(self.coalesce().values(), ord, std::nullopt, false, dtype);
}

}  // namespace

at::Tensor SparseAliases::to_cpu(const at::Tensor& tensor) {
  if (!tensor.is_sparse() || !is_mps(tensor)) {
    return aliases_.to_cpu(tensor);
  }
  for (const auto& pair : pairs_) {
    if (pair.mps.is_same(tensor)) {
      return pair.cpu;
    }
  }
  const auto& impl = *sparse_impl(tensor);
  at::Tensor cpu =
      make(c10::DispatchKey::SparseCPU, impl, aliases_.to_cpu(impl.indices()), aliases_.to_cpu(impl.values()));
  pairs_.push_back({tensor, cpu});
  return cpu;
}

at::Tensor SparseAliases::to_mps(at::Tensor result) {
  if (!result.defined() || !result.is_sparse() || !result.device().is_cpu()) {
    return aliases_.to_mps(std::move(result));
  }
  for (const auto& pair : pairs_) {
    if (pair.cpu.is_same(result)) {
      return pair.mps;
    }
  }
  const auto& impl = *sparse_impl(result);
  return make(c10::DispatchKey::SparseMPS, impl, aliases_.to_mps(impl.indices()), aliases_.to_mps(impl.values()));
}

void SparseAliases::write_back() {
  for (const auto& pair : pairs_) {
    const auto& cpu = *sparse_impl(pair.cpu);
    auto* mps = sparse_impl(pair.mps);
    if (!cpu.sizes().equals(mps->sizes()) || cpu.sparse_dim() != mps->sparse_dim()) {
      mps->raw_resize_(cpu.sparse_dim(), cpu.dense_dim(), cpu.sizes());
    }
    mps->set_indices_and_values_unsafe(aliases_.to_mps(cpu.indices()), aliases_.to_mps(cpu.values()));
    mps->set_coalesced(cpu.coalesced());
  }
}

void coalesce_in_place(const at::Tensor& tensor) {
  const at::Tensor merged = tensor.coalesce();
  auto* impl = sparse_impl(tensor);
  impl->set_indices_and_values_unsafe(sparse_impl(merged)->indices(), sparse_impl(merged)->values());
  impl->set_coalesced(true);
}

void register_sparse(const std::vector<std::string>& names) {
  static auto* library =
      new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::SparseMPS, __FILE__, __LINE__);
  for (const auto& name : names) {
    if (name == "linalg_vector_norm" && !has_sparse_kernel(name)) {
      library->impl(name.c_str(), &vector_norm);
    } else {
      library->impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback_to_sparse>());
    }
  }
}

}  // namespace simulator
