// What the MPS allocators of all torch releases have in common.
#include "heaps.h"

#include "cached_buffers.h"
#include "placed_ranges.h"

#include <c10/util/Exception.h>

namespace simulator {
namespace {

constexpr size_t kMinExtraLarge = 10 * kMiB;  // from here on buffers get heaps of kExtraLargeHeap
constexpr size_t kRoundAlone = 2 * kMiB;      // the size of a heap for one buffer is a multiple of this
constexpr size_t kSmallHeap = 8 * kMiB;
constexpr size_t kLargeHeap = 32 * kMiB;
constexpr size_t kExtraLargeHeap = 1024 * kMiB;
constexpr double kHighestRatio = 2.0;

using c10::CachingAllocator::format_size;

}  // namespace

Tier tier_of(size_t size, bool pressure) {
  if (size <= kMaxSmall) {
    return Tier::small;
  }
  if (size < kMinExtraLarge) {
    return Tier::large;
  }
  return size < kExtraLargeHeap / 2 && !pressure ? Tier::extra_large : Tier::alone;
}

size_t heap_size(size_t size, bool pressure) {
  switch (tier_of(size, pressure)) {
    case Tier::small:
      return kSmallHeap;
    case Tier::large:
      return kLargeHeap;
    case Tier::extra_large:
      return kExtraLargeHeap;
    default:
      return align_up(size, kRoundAlone);
  }
}

std::unique_ptr<Heaps> make_heaps(std::pair<unsigned, unsigned> torch) {
  if (torch < std::make_pair(2u, 14u)) {
    return std::make_unique<CachedBuffers>();
  }
  return std::make_unique<PlacedRanges>();
}

void Heaps::set_device(size_t working_set, size_t longest_buffer) {
  working_set_ = working_set;
  longest_buffer_ = longest_buffer;
}

void Heaps::set_high_watermark(double ratio) {
  TORCH_CHECK(ratio >= 0 && ratio <= kHighestRatio, "invalid high watermark ratio ", ratio);
  high_ratio_ = ratio;
  high_limit_ = ratio == 0 ? SIZE_MAX : static_cast<size_t>(ratio * static_cast<double>(working_set_));
}

void Heaps::set_low_watermark(double ratio) {
  const double highest = high_ratio_ == 0 ? kHighestRatio : high_ratio_;
  TORCH_CHECK(ratio >= 0 && ratio <= highest, "invalid low watermark ratio ", ratio);
  low_ratio_ = ratio;
  low_limit_ = ratio == 0 ? SIZE_MAX : static_cast<size_t>(ratio * static_cast<double>(working_set_));
}

size_t Heaps::limit() const {
  return high_limit_ == SIZE_MAX ? 0 : high_limit_;
}

// The heap that would have to be made does not count, only the buffer: with a heap of 1 GiB the driver may end up over
// the limit, as on a Mac.
bool Heaps::over_limit(size_t size) const {
  return high_limit_ != SIZE_MAX && driver() + size > high_limit_;
}

bool Heaps::near_low_watermark() const {
  if (low_ratio_ == 0) {
    return false;
  }
  const auto left = static_cast<int64_t>(low_limit_) - static_cast<int64_t>(driver());
  return left < static_cast<int64_t>(kMiB);  // torch counts whole MiB
}

std::string Heaps::out_of_memory(size_t size) const {
  std::string text = c10::str("MPS backend out of memory (MPS allocated: ", format_size(driver()),
      ", other allocations: ", format_size(0));
  if (high_ratio_ > 0) {
    return c10::str(text, ", max allowed: ", format_size(high_limit_), "). Tried to allocate ", format_size(size),
        " on shared pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations"
        " (may cause system failure).");
  }
  return c10::str(text, "). Tried to allocate ", format_size(size), " on shared pool.");
}

Buffer* Heaps::allocate(size_t bytes, bool scalar) {
  TORCH_CHECK(bytes < longest_buffer_, "Invalid buffer size: ", format_size(bytes));
  const size_t size = rounded(bytes, scalar);
  const auto kind = scalar ? PoolKind::scalar : size <= kMaxSmall ? PoolKind::small : PoolKind::large;
  Buffer* buffer = find(size, kind);
  TORCH_CHECK(buffer != nullptr, out_of_memory(size));
  allocated.increase(size_t{buffer->size});
  return buffer;
}

void Heaps::free(Buffer* buffer) {
  allocated.decrease(size_t{buffer->size});
  keep(buffer);
}

}  // namespace simulator
