// The same bytes as a CPU tensor, and back.
#include "faults.h"
#include "fork.h"
#include "rules.h"
#include "simulator.h"
#include "witness.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>

namespace simulator {
namespace {

// Tensor lists longer than this are searched by hash.
constexpr size_t kLinearSearch = 24;

void release_storage(void* context) {
  c10::raw::intrusive_ptr::decref(static_cast<c10::StorageImpl*>(context));
}

at::Tensor tensor_over(const c10::Storage& storage, c10::DispatchKey key, const at::Tensor& like) {
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage), c10::DispatchKeySet(key), like.dtype());
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  impl->_set_conj(like.is_conj());
  impl->_set_neg(like.is_neg());
  return tensor;
}

// Labels the memory of a CPU storage as mps memory, in place.
void relabel(c10::StorageImpl& storage) {
  const size_t nbytes = storage.nbytes();
  storage.set_data_ptr_noswap(adopt(std::move(storage.mutable_data_ptr()), nbytes));
  storage.set_allocator(&allocator());
}

bool same_geometry(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes().equals(b.sizes()) && a.strides().equals(b.strides()) && a.storage_offset() == b.storage_offset();
}

}  // namespace

bool is_mps(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

void check_dtype(c10::ScalarType dtype) {
  if (dtype == c10::ScalarType::Double || dtype == c10::ScalarType::ComplexDouble) {
    rules::count_float64();
    witness::tell("float64", c10::toString(dtype));
  }
  TORCH_CHECK_TYPE(
      dtype != c10::ScalarType::Double,
      "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
      "Please use float32 instead.");
  TORCH_CHECK_TYPE(
      dtype != c10::ScalarType::ComplexDouble,
      "Trying to convert ComplexDouble to the MPS backend but it does not have support for that dtype.");
  if (dtype == c10::ScalarType::BFloat16 && macos().first != 0 && macos().first < 14) {
    rules::count_refused("bfloat16");
    TORCH_CHECK_TYPE(false, "MPS BFloat16 is only supported on MacOS 14 or newer");
  }
}

// aten/src/ATen/mps/EmptyTensor.cpp, empty_mps.
void check_rank(int64_t rank) {
  if (rank > 16) {
    rules::count_refused("dimensions");
    TORCH_CHECK(false, "MPS supports tensors with dimensions <= 16, but got ", rank, ".");
  }
}

c10::Storage cpu_alias(const c10::Storage& storage) {
  check_fork();
  settle_pending_copies();
  auto* impl = storage.unsafeGetStorageImpl();
  void* data = impl->mutable_data();
  c10::raw::intrusive_ptr::incref(impl);
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(),
      impl->nbytes(),
      c10::DataPtr(data, impl, &release_storage, c10::Device(c10::DeviceType::CPU)),
      c10::GetDefaultCPUAllocator(),
      /*resizable=*/true));
}

at::Tensor cpu_alias(const at::Tensor& tensor) {
  if (!is_mps(tensor)) {
    return tensor;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      tensor.has_storage(), "the simulated mps device has no ", tensor.layout(), " tensors");
  return tensor_over(cpu_alias(tensor.storage()), c10::DispatchKey::CPU, tensor);
}

const Aliases::TensorPair* Aliases::find_mps(const c10::TensorImpl* impl) const {
  if (tensors_.size() > kLinearSearch) {
    const auto found = tensor_index_.find(impl);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
  }
  for (const auto& pair : tensors_) {
    if (pair.mps.unsafeGetTensorImpl() == impl) {
      return &pair;
    }
  }
  return nullptr;
}

const Aliases::TensorPair* Aliases::find_cpu(const c10::TensorImpl* impl) const {
  for (const auto& pair : tensors_) {
    if (pair.cpu.unsafeGetTensorImpl() == impl) {
      return &pair;
    }
  }
  return nullptr;
}

const Aliases::StoragePair* Aliases::find_cpu_storage(const c10::StorageImpl* impl) const {
  for (const auto& pair : storages_) {
    if (pair.cpu.unsafeGetStorageImpl() == impl) {
      return &pair;
    }
  }
  return nullptr;
}

const c10::Storage& Aliases::storage_alias(const c10::Storage& mps) {
  const auto* impl = mps.unsafeGetStorageImpl();
  if (storages_.size() > kLinearSearch) {
    const auto found = storage_index_.find(impl);
    if (found != storage_index_.end()) {
      return storages_[found->second].cpu;
    }
  } else {
    for (const auto& pair : storages_) {
      if (pair.mps.unsafeGetStorageImpl() == impl) {
        return pair.cpu;
      }
    }
  }
  c10::Storage cpu = cpu_alias(mps);
  void* data = cpu.mutable_data();
  storages_.push_back({mps, std::move(cpu), data});
  if (storages_.size() > kLinearSearch) {
    for (size_t i = storage_index_.size(); i < storages_.size(); ++i) {
      storage_index_.emplace(storages_[i].mps.unsafeGetStorageImpl(), i);
    }
  }
  return storages_.back().cpu;
}

at::Tensor Aliases::to_cpu(const at::Tensor& tensor) {
  if (!is_mps(tensor)) {
    return tensor;
  }
  if (const auto* known = find_mps(tensor.unsafeGetTensorImpl())) {
    return known->cpu;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      tensor.has_storage(), "the simulated mps device has no ", tensor.layout(), " tensors");
  at::Tensor cpu = tensor_over(storage_alias(tensor.storage()), c10::DispatchKey::CPU, tensor);
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    cpu.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  tensors_.push_back({tensor, cpu});
  if (tensors_.size() > kLinearSearch) {
    for (size_t i = tensor_index_.size(); i < tensors_.size(); ++i) {
      tensor_index_.emplace(tensors_[i].mps.unsafeGetTensorImpl(), i);
    }
  }
  return cpu;
}

at::Tensor Aliases::to_mps(at::Tensor result) {
  if (!result.defined() || !result.device().is_cpu()) {
    return result;
  }
  if (const auto* argument = find_cpu(result.unsafeGetTensorImpl())) {
    return argument->mps;
  }
  check_dtype(result.scalar_type());
  TORCH_CHECK_NOT_IMPLEMENTED(
      result.has_storage(), "the simulated mps device has no ", result.layout(), " tensors");
  if (const auto* viewed = find_cpu_storage(result.storage().unsafeGetStorageImpl())) {
    return tensor_over(viewed->mps, c10::DispatchKey::MPS, result);
  }
  check_rank(result.dim());
  if (result.use_count() > 1 || result.storage().use_count() > 1) {
    // Somebody else holds this memory, for instance a CPU scalar that went in and came out.
    result = result.clone();
  }
  relabel(*result.storage().unsafeGetStorageImpl());
  at::Tensor mps = tensor_over(result.storage(), c10::DispatchKey::MPS, result);
  if (result.unsafeGetTensorImpl()->is_wrapped_number()) {
    mps.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  return mps;
}

bool Aliases::contiguous() const {
  return std::all_of(tensors_.begin(), tensors_.end(), [](const TensorPair& pair) { return pair.mps.is_contiguous(); });
}

void Aliases::write_back() {
  for (auto& pair : storages_) {
    auto* cpu = pair.cpu.unsafeGetStorageImpl();
    if (cpu->data() == pair.data) {
      continue;
    }
    const size_t nbytes = cpu->nbytes();
    auto* mps = pair.mps.unsafeGetStorageImpl();
    // The kernel has replaced the memory of the alias: the storage takes it over, and all its views follow.
    mps->set_data_ptr_noswap(adopt(std::move(cpu->mutable_data_ptr()), nbytes));
    mps->set_nbytes(nbytes);
  }
  for (const auto& pair : tensors_) {
    if (!same_geometry(pair.mps, pair.cpu)) {
      pair.mps.unsafeGetTensorImpl()->set_sizes_and_strides(
          pair.cpu.sizes(), pair.cpu.strides(), pair.cpu.storage_offset());
    }
  }
}

}  // namespace simulator
