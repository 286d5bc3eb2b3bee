// The bookkeeping of torch's MPS allocator, without memory behind it: which heaps Metal would have made, which buffers
// lie in them, which are cached, and when an allocation fails.
//
// The rules are those of torch 2.13.0: ATen/mps/MPSAllocator.h, which the wheel brings along, and MPSAllocator.mm. The
// words are torch's as well: a buffer is what backs one storage, a heap is what Metal has given for several of them.
// What Metal decides and torch does not is marked "Metal:".
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace simulator {

struct Heap;
struct Buffer;

struct BySize {
  using is_transparent = void;
  bool operator()(const Buffer* a, const Buffer* b) const;
  bool operator()(const Buffer* a, size_t size) const;
};
struct ByAvailable {
  using is_transparent = void;
  bool operator()(const Heap* a, const Heap* b) const;
  bool operator()(const Heap* a, size_t size) const;
};
using Cached = std::set<Buffer*, BySize>;
using HeapSet = std::set<Heap*, ByAvailable>;

// Buffers up to 1 MiB, larger ones, and numbers that an operator hands to the GPU.
enum class PoolKind { small, large, scalar };

struct Pool {
  PoolKind kind;
  HeapSet heaps;
  Cached cached;            // free buffers
  size_t cached_bytes = 0;
  uint64_t clock = 0;       // searches so far: the age of a cached buffer is the clock less its value when it was freed
};

struct Buffer {
  size_t size;  // rounded
  Heap* heap;
  size_t offset;
  uint64_t id;
  uint64_t freed_at = 0;      // the pool's clock
  Cached::node_type node{};  // of the set of cached buffers, while the buffer is not in it
};

struct Heap {
  struct Range {
    size_t begin, end;
  };
  Pool* pool;
  size_t total;
  bool is_split;  // holds several buffers
  uint64_t id;
  size_t available;  // the longest buffer that still fits
  size_t buffers = 0;
  std::vector<Range> free;  // by address

  size_t take(size_t size);
  void give_back(size_t offset, size_t size);

 private:
  void measure();
};

class Heaps {
 public:
  using Stat = c10::CachingAllocator::Stat;

  Heaps();
  ~Heaps();
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
  void empty_cache();
  // What torch says when an allocation of this (rounded) size failed.
  std::string out_of_memory(size_t size) const;

  Stat allocated;  // bytes of buffers in use
  Stat reserved;   // bytes of heaps
  size_t heap_count() const;
  size_t cached_count() const;
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

  static size_t rounded(size_t bytes);

 private:
  struct Request {
    size_t size;
    Pool& pool;
    bool pressure;
    Buffer* found = nullptr;
  };
  Pool& pool_for(size_t size, bool scalar);
  bool over_limit(size_t size) const;
  bool near_low_watermark() const;
  bool reuse(Request& request);
  bool make(Request& request);
  Heap* heap_for(const Request& request);
  void release(Buffer* buffer, bool remove_empty_heap = true);
  void release_all(Pool& pool);
  bool release_enough(Request& request);
  void collect_garbage(const Request& request);

  std::vector<std::unique_ptr<Pool>> pools_;
  size_t working_set_ = 0;
  size_t longest_buffer_ = SIZE_MAX;
  double high_ratio_ = 0;
  double low_ratio_ = 0;
  size_t high_limit_ = SIZE_MAX;
  size_t low_limit_ = SIZE_MAX;
  uint64_t made_ = 0;  // buffers and heaps so far
};

}  // namespace simulator
