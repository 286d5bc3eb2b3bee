// The MPS allocator of torch from 2.14 on: the ranges of a heap are split for what is asked for, and merged again.
//
// The rules are those of torch 2.14.1: ATen/mps/MPSAllocator.h, which the wheel brings along, and MPSAllocator.mm, read in
// a version near it and compared with the code in the wheel's binary.
#pragma once

#include "heaps.h"

#include <array>
#include <memory>
#include <set>
#include <vector>

namespace simulator {
namespace placed {

struct Heap;

// Part of a heap. The ranges of a heap follow each other without gaps.
struct Range : Buffer {
  Range(size_t size, size_t offset, Heap* heap) : Buffer{size, 0}, offset(offset), heap(heap) {}
  size_t offset;
  Heap* heap;
  Range* next = nullptr;
  bool in_use = false;
  // A buffer lies on it, which may be a cached one; `id` is the buffer's.
  bool placed() const {
    return id != 0;
  }
  struct BySize {
    using is_transparent = void;
    bool operator()(const Range* a, const Range* b) const;
    bool operator()(const Range* a, size_t size) const;
  };
};

struct Pool {
  size_t min_split;  // a shorter rest is left with the buffer
  std::vector<std::unique_ptr<Heap>> heaps;  // by age
  std::set<Range*, Range::BySize> free;
  std::set<Range*, Range::BySize> cached;  // those of `free` with a buffer
  size_t free_bytes = 0;

  void insert(Range* range);
  void erase(Range* range);
};

struct Heap {
  Heap(Pool* pool, size_t total, uint64_t id);
  ~Heap();
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;
  bool unused() const {
    return free_bytes == total;
  }

  Pool* pool;
  size_t total;
  uint64_t id;
  size_t free_bytes;
  size_t longest_run;  // no more than this lies free in one piece
  Range* first;        // by offset
};

}  // namespace placed

class PlacedRanges final : public Heaps {
 public:
  PlacedRanges();
  void empty_cache() override;
  size_t heap_count() const override;
  size_t cached_count() const override;

 protected:
  size_t rounded(size_t bytes, bool scalar) const override;
  Buffer* find(size_t size, PoolKind kind) override;
  void keep(Buffer* buffer) override;

 private:
  placed::Range* take(placed::Pool& pool, size_t size);
  placed::Range* make(placed::Pool& pool, size_t size, bool pressure);
  placed::Range* split(placed::Pool& pool, placed::Range* range, size_t size);
  placed::Range* merge(placed::Pool& pool, placed::Range* first, placed::Range* last);
  placed::Range* coalesce(placed::Pool& pool, size_t size);
  size_t release(placed::Pool& pool, size_t target);

  std::array<placed::Pool, 3> pools_;
  uint64_t heaps_made_ = 0;
  uint64_t buffers_made_ = 0;
};

}  // namespace simulator
