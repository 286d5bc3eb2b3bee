// The known silent bugs of PyTorch's mps backend, switched on one by one (patcher/simulator/faults.py describes them).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/boxing/KernelFunction.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace simulator {

enum class Fault : uint32_t {
  kMatmulLongSum,
  kLateCopy,
  kCausalLeak,
  kStridedAttention,
  kPaddedRowNan,
  kBmmLargeOutput,
  kBaddbmmBetaZero,
  kLinearManyRows,
  kLinearDroppedBias,
  kLinearHalfBatched,
  kLinearTransposedBf16,
  kReductionLargeInput,
  kLayerNormFrozenInput,
  kConvManyRows,
  kFusedOptimizerScale,
  kExponentialZero,
  kEmbeddingLargeTable,
  kIndexBeyondTable,
  kCatLargeOutput,
  kLayerNormSmallVariance,
  kMaskIndexRace,
  kProductStrideZero,
  kUniqueLargeIntegers,
  kSortManyColumns,
  kEmbeddingBagEdge,
  kBatchNormStrided,
  kIndexWriteBeyond,
  kGappedCopy,
  kCount
};

// One bit for each fault.
extern std::atomic<uint32_t> active_faults;
inline bool faults_active() {
  return active_faults.load(std::memory_order_relaxed) != 0;
}
bool has_fault(Fault fault);

std::vector<std::string> fault_names();
// Replaces what is active: names, each with the size from which it shows. Throws for a name that does not exist.
void set_faults(const std::map<std::string, int64_t>& faults);

// Called with the arguments of an operator, on the CPU and on top of the stack, before its kernel runs: changes them,
// or says what is to be done to the results, which are then on top of the stack.
using Spoil = std::function<void(c10::Stack*)>;
Spoil faults_before(const std::string& op, c10::Stack* stack, size_t count);

// The same for operators that look up or write by index (fault_indices.cpp). `table` is of names without namespace and
// overload.
using Before = Spoil (*)(c10::Stack*, size_t);
const std::unordered_map<std::string, Before>& index_faults();

// What faults look at and change.
int64_t fault_size(Fault fault);
at::Tensor argument(const c10::Stack* stack, size_t count, size_t position);
at::Tensor& result(c10::Stack* stack, size_t returns = 1, size_t position = 0);
// What lies in memory where nothing of ours is: large enough to be seen, and finite, as most of it is on a Mac.
constexpr double kGarbage = 1024;

// A copy to the host that takes two views with the same gaps for memory without gaps; false where it is made rightly.
bool copy_through_gaps(const at::Tensor& destination, const at::Tensor& source);

// Non-blocking copies to the device that have not happened yet.
extern std::atomic<bool> copies_pending;
bool postpone_copy(const at::Tensor& destination, const at::Tensor& source);
void settle_copies();
inline void settle_pending_copies() {
  if (copies_pending.load(std::memory_order_relaxed)) {
    settle_copies();
  }
}

// What attention takes for its arguments, and what it makes of rows that see nothing.
void spoil_attention(at::Tensor& query, at::Tensor& key, at::Tensor& value, std::optional<at::Tensor>& mask, bool& causal);
at::Tensor spoil_attended(at::Tensor attended, const std::optional<at::Tensor>& mask);

// The weight gradient of a convolution over `batch` samples, given what it is over the first n of them.
at::Tensor spoil_convolution_weight(
    at::Tensor right, const at::Tensor& input, const std::function<at::Tensor(int64_t)>& over_first);

}  // namespace simulator
