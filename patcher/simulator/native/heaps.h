// The bookkeeping of torch's MPS allocator, without memory behind it: which heaps Metal would have made, which buffers
// lie in them, which are cached, and when an allocation fails.
//
// torch 2.13 keeps whole buffers (cached_buffers.h), torch 2.14 splits and merges the ranges of a heap
// (placed_ranges.h). What both have in common is here: pools and sizes of heaps, limits, words. The words are torch's as
// well: a buffer is what backs one storage, a heap is what Metal has given for several of them. What Metal decides and
// torch does not is marked "Metal:".
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace simulator {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kMaxSmall = kMiB;  // the largest "small" buffer
// Metal: what heapBufferSizeAndAlignWithLength answers on Apple silicon. One element takes 256 bytes ("Tried to allocate
// 256 bytes on shared pool", for instance https://github.com/pinokiocomputer/pinokio/issues/941).
constexpr size_t kAlignment = 256;
constexpr size_t kPage = 1 << 14;  // on Apple silicon

constexpr size_t align_up(size_t value, size_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// Buffers up to 1 MiB, larger ones, and numbers that an operator hands to the GPU.
enum class PoolKind { small, large, scalar };

// Heaps of 8 MiB, 32 MiB or 1 GiB for several buffers; or one that is made to measure.
enum class Tier { small, large, extra_large, alone };
Tier tier_of(size_t size, bool pressure);
// Of the heap that is made for a buffer of this (rounded) size.
size_t heap_size(size_t size, bool pressure);

struct Buffer {
  size_t size;  // rounded
  uint64_t id;
};

class Heaps {
 public:
  using Stat = c10::CachingAllocator::Stat;

  Heaps() = default;
  virtual ~Heaps() = default;
  Heaps(const Heaps&) = delete;
  Heaps& operator=(const Heaps&) = delete;

  // Metal: recommendedMaxWorkingSetSize and maxBufferLength, in bytes.
  void set_device(size_t working_set, size_t longest_buffer);
  // Multiples of the working set; 0 means none. RuntimeError beyond 0 to 2, or for a low one above the high one.
  void set_high_watermark(double ratio);
  void set_low_watermark(double ratio);

  // RuntimeError with torch's text when there is no room.
  Buffer* allocate(size_t bytes, bool scalar = false);
  // Into the pool, where it waits for the next allocation that it fits.
  void free(Buffer* buffer);
  // Gives back to Metal what no buffer in use needs.
  virtual void empty_cache() = 0;
  // What torch says when an allocation of this (rounded) size failed.
  std::string out_of_memory(size_t size) const;

  Stat allocated;  // bytes of buffers in use
  Stat reserved;   // bytes of heaps
  virtual size_t heap_count() const = 0;
  // Buffers that no storage uses.
  virtual size_t cached_count() const = 0;
  size_t working_set() const {
    return working_set_;
  }
  size_t longest_buffer() const {
    return longest_buffer_;
  }
  // 0 means none.
  size_t limit() const;
  // Metal: currentAllocatedSize. Nothing else is allocated here.
  size_t driver() const {
    return static_cast<size_t>(reserved.current);
  }

 protected:
  // The size of a buffer for so many bytes.
  virtual size_t rounded(size_t bytes, bool scalar) const = 0;
  // Null when there is no room.
  virtual Buffer* find(size_t size, PoolKind kind) = 0;
  virtual void keep(Buffer* buffer) = 0;
  bool over_limit(size_t size) const;
  bool near_low_watermark() const;

  size_t working_set_ = 0;
  size_t longest_buffer_ = SIZE_MAX;
  double high_ratio_ = 0;
  double low_ratio_ = 0;
  size_t high_limit_ = SIZE_MAX;
  size_t low_limit_ = SIZE_MAX;
};

// Those of a torch, by its major and minor number.
std::unique_ptr<Heaps> make_heaps(std::pair<unsigned, unsigned> torch);

}  // namespace simulator
