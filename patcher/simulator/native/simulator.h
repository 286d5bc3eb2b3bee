// The simulated mps device: what its source files share.
//
// A tensor of this device is ordinary host memory whose storage is labelled "mps:0". An operator runs torch's CPU
// kernel on the same bytes: the arguments are aliased as CPU tensors for the length of the call, and memory that the
// kernel has allocated is relabelled, not copied (alias.cpp, fallback.cpp).
#pragma once

#include "memory.h"

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Allocator.h>
#include <c10/core/Storage.h>
#include <c10/util/SmallVector.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace simulator {

constexpr c10::DeviceType kType = c10::DeviceType::MPS;
inline c10::Device device() {
  return c10::Device(kType, 0);
}

// ---- what torch asks of an accelerator (guard_hooks.cpp) --------------------------------------------------------

void set_macos(unsigned major, unsigned minor);
std::pair<unsigned, unsigned> macos();
// The torch that the Mac has, by its major and minor number; to be set before anything is on the device.
void set_mac_torch(unsigned major, unsigned minor);
std::pair<unsigned, unsigned> mac_torch();
// Also where torch has already been asked about mps and remembers that there is none; false says that it had.
bool put_hooks_in_place();

// ---- random numbers (generator.cpp) -----------------------------------------------------------------------------

const at::Generator& default_generator();
at::Generator new_generator();
// The CPU generator whose state an mps generator owns; none given means the default mps generator.
at::Generator cpu_generator(const std::optional<at::Generator>& generator);
// Advances the offset of an mps generator by what an operator has drawn from it.
void count_draws(const std::string& op, const std::optional<at::Generator>& generator, const at::Tensor& drawn);

// ---- the same bytes as CPU tensors (alias.cpp) -------------------------------------------------------------------

// Aliases made for one operator call. Tensors that share storage on mps share it on the CPU, and the same tensor
// gives the same alias, so that a kernel's overlap checks see what they would see on the CPU.
class Aliases {
 public:
  at::Tensor to_cpu(const at::Tensor& tensor);
  // The mps tensor for a kernel's result: an argument, a view of one, or new memory, which is relabelled.
  at::Tensor to_mps(at::Tensor result);
  // Carries over what the kernel has resized.
  void write_back();

  // Whether all arguments so far are.
  bool contiguous() const;

 private:
  struct TensorPair {
    at::Tensor mps;
    at::Tensor cpu;
  };
  struct StoragePair {
    c10::Storage mps;
    c10::Storage cpu;
    void* data;  // where the alias pointed before the kernel ran
  };
  const c10::Storage& storage_alias(const c10::Storage& mps);
  const TensorPair* find_mps(const c10::TensorImpl* impl) const;
  const TensorPair* find_cpu(const c10::TensorImpl* impl) const;
  const StoragePair* find_cpu_storage(const c10::StorageImpl* impl) const;

  c10::SmallVector<TensorPair, 6> tensors_;
  c10::SmallVector<StoragePair, 6> storages_;
  // Only for long tensor lists, where a linear search would be quadratic.
  std::unordered_map<const void*, size_t> tensor_index_;
  std::unordered_map<const void*, size_t> storage_index_;
};

bool is_mps(const at::Tensor& tensor);
// A CPU tensor over the same memory, which it keeps alive.
at::Tensor cpu_alias(const at::Tensor& tensor);
c10::Storage cpu_alias(const c10::Storage& storage);
// TypeError for the dtypes that an mps tensor cannot have, in the Mac's words.
void check_dtype(c10::ScalarType dtype);
// RuntimeError for more dimensions than an mps tensor can have.
void check_rank(int64_t rank);

// ---- dispatch (fallback.cpp) -------------------------------------------------------------------------------------

// The kernel behind every operator that has none of its own.
void fallback(const c10::OperatorHandle& op, c10::Stack* stack);
// Routes operators to the fallback whose composite form is slower or differs from a Mac's kernel.
void register_direct();
std::vector<std::pair<std::string, uint64_t>> operator_counts();
void reset_operator_counts();

}  // namespace simulator
