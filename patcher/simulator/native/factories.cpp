// Tensors that are made, viewed, resized and copied without computing anything.
#include "faults.h"
#include "fork.h"
#include "index_errors.h"
#include "meter.h"
#include "rules.h"
#include "simulator.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/SymIntArrayRef.h>
#include <torch/library.h>

#include <cstring>

namespace simulator {
namespace {

using at::Tensor;
using c10::IntArrayRef;

c10::ScalarType checked_dtype(std::optional<c10::ScalarType> dtype) {
  const auto chosen = dtype.value_or(c10::get_default_dtype_as_scalartype());
  check_dtype(chosen);
  return chosen;
}

void check_device(std::optional<c10::Device> device) {
  check_fork();
  TORCH_CHECK(
      !device.has_value() || device->index() <= 0, "there is one mps device, got ", device.value_or(simulator::device()));
}

// torch.use_deterministic_algorithms() fills new memory with NaN, on a Mac as well.
Tensor filled_if_deterministic(Tensor tensor) {
  const auto& context = at::globalContext();
  if (C10_UNLIKELY(context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) {
    at::native::fill_empty_deterministic_(tensor);
  }
  return tensor;
}

Tensor empty(
    IntArrayRef size,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout>,
    std::optional<c10::Device> device,
    std::optional<bool>,
    std::optional<c10::MemoryFormat> format) {
  check_device(device);
  check_rank(static_cast<int64_t>(size.size()));
  return filled_if_deterministic(at::detail::empty_generic(
      size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::MPS), checked_dtype(dtype), format));
}

Tensor empty_strided(
    IntArrayRef size,
    IntArrayRef stride,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout>,
    std::optional<c10::Device> device,
    std::optional<bool>) {
  check_device(device);
  return filled_if_deterministic(at::detail::empty_strided_generic(
      size, stride, &allocator(), c10::DispatchKeySet(c10::DispatchKey::MPS), checked_dtype(dtype)));
}

// A tensor of zeros that torch's autograd makes without memory.
class NoMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t) override {
    return {nullptr, simulator::device()};
  }
  void copy_data(void*, const void*, size_t) const override {}
};

Tensor efficient_zeros(
    IntArrayRef size,
    std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout>,
    std::optional<c10::Device> device,
    std::optional<bool>) {
  static auto* nothing = new NoMemory;
  check_device(device);
  const auto keys = c10::DispatchKeySet(c10::DispatchKey::MPS) | c10::DispatchKeySet(c10::DispatchKey::ZeroTensor);
  return at::detail::empty_generic(size, nothing, keys, checked_dtype(dtype), std::nullopt);
}

void grow(c10::StorageImpl& storage, size_t nbytes) {
  c10::DataPtr memory = allocator().allocate(nbytes);
  if (storage.data() != nullptr) {
    std::memcpy(memory.get(), storage.data(), std::min(nbytes, storage.nbytes()));
  }
  storage.set_data_ptr_noswap(std::move(memory));
  storage.set_nbytes(nbytes);
}

const Tensor& resize_(const Tensor& self, IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  const size_t nbytes =
      at::detail::computeStorageNbytesContiguous(size, impl->itemsize(), static_cast<size_t>(impl->storage_offset()));
  auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
  if (nbytes > storage->nbytes()) {
    grow(*storage, nbytes);
  }
  if (!impl->sizes().equals(size)) {
    impl->set_sizes_contiguous(size);
  }
  if (format.has_value() && *format != c10::MemoryFormat::Preserve) {
    impl->empty_tensor_restride(*format);
  }
  return self;
}

Tensor& set_storage(Tensor& self, c10::Storage source, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  TORCH_CHECK(
      source.device().type() == kType && self.device().type() == kType,
      "Attempted to set the storage of a tensor on device \"", self.device(), "\" to a storage on different device \"",
      source.device(), "\".  This is no longer allowed; the devices must match.");
  TORCH_CHECK(offset >= 0, "Tensor: invalid storage offset ", offset);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  if (stride.data() == nullptr || (stride.empty() && !size.empty())) {
    impl->set_storage_offset(offset);
    impl->set_sizes_contiguous(size);
  } else {
    impl->set_sizes_and_strides(size, stride, offset);
  }
  const size_t nbytes = at::detail::computeStorageNbytes(
      impl->sizes(), impl->strides(), impl->itemsize(), static_cast<size_t>(offset));
  auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
  if (nbytes > storage->nbytes()) {
    grow(*storage, nbytes);
  }
  return self;
}

Tensor& set_whole_storage(Tensor& self, c10::Storage source) {
  const auto length = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return set_storage(self, std::move(source), 0, {length}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor& set_empty(Tensor& self) {
  c10::Storage nothing(
      c10::Storage::use_byte_size_t(), 0, allocator().allocate(0), &allocator(), /*resizable=*/true);
  return set_storage(self, std::move(nothing), 0, {0}, {});
}

// Either side may be on the CPU. There is no asynchrony: `non_blocking` copies have happened on return, unless the
// fault that lets them read their source later is switched on.
Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  if (self.is_same(source)) {
    return self;
  }
  if (source._is_zerotensor()) {
    return self.zero_();
  }
  rules::check_copy(self, source);
  if (faults_active() && ((non_blocking && postpone_copy(self, source)) || copy_through_gaps(self, source))) {
    return self;
  }
  Aliases aliases;
  aliases.to_cpu(self).copy_(aliases.to_cpu(source));
  if (meter::on()) {
    meter::copied(self, source, non_blocking);
  }
  if (!non_blocking && !is_mps(self)) {
    index_errors::raise();
  }
  return self;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& destination) {
  destination.resize_(self.sizes());
  destination.copy_(self);
  return destination;
}

c10::Scalar local_scalar_dense(const Tensor& self) {
  if (meter::on()) {
    meter::read_by_host(self);
  }
  index_errors::raise();
  if (c10::isFloat8Type(self.scalar_type())) {
    rules::count_refused("float8");
    TORCH_CHECK_NOT_IMPLEMENTED(false, "\"_local_scalar_dense_mps\" not implemented for '", self.scalar_type(), "'");
  }
  return at::_local_scalar_dense(cpu_alias(self));
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  using namespace simulator;
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_efficientzerotensor", efficient_zeros);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("unfold", at::native::unfold);
  library.impl("resize_", resize_);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("set_.source_Tensor", set_tensor);
  library.impl("set_", set_empty);
  library.impl("copy_", copy_);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar_dense);
}
