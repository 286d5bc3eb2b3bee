// The MPS allocator of torch up to 2.13: a buffer that a storage has released waits, whole, for the next that it fits.
//
// The rules are those of torch 2.13.0: ATen/mps/MPSAllocator.h, which the wheel brings along, and MPSAllocator.mm.
#pragma once

#include "heaps.h"

#include <array>
#include <set>
#include <vector>

namespace simulator {
namespace cached {

struct Heap;

struct Block : Buffer {
  Block(size_t size, uint64_t id, Heap* heap, size_t offset) : Buffer{size, id}, heap(heap), offset(offset) {}
  Heap* heap;
  size_t offset;
  uint64_t freed_at = 0;  // the pool's clock
  struct BySize {
    using is_transparent = void;
    bool operator()(const Block* a, const Block* b) const;
    bool operator()(const Block* a, size_t size) const;
  };
  std::set<Block*, BySize>::node_type node{};  // of the set of free blocks, while the block is not in it
};
using Free = std::set<Block*, Block::BySize>;

struct ByAvailable {
  using is_transparent = void;
  bool operator()(const Heap* a, const Heap* b) const;
  bool operator()(const Heap* a, size_t size) const;
};

struct Pool {
  PoolKind kind;
  std::set<Heap*, ByAvailable> heaps;
  Free free;
  size_t free_bytes = 0;
  uint64_t clock = 0;  // searches so far: the age of a free block is the clock less its value when it was freed
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

}  // namespace cached

class CachedBuffers final : public Heaps {
 public:
  CachedBuffers();
  ~CachedBuffers() override;
  void empty_cache() override;
  size_t heap_count() const override;
  size_t cached_count() const override;

 protected:
  size_t rounded(size_t bytes, bool scalar) const override;
  Buffer* find(size_t size, PoolKind kind) override;
  void keep(Buffer* buffer) override;

 private:
  struct Request {
    size_t size;
    cached::Pool& pool;
    bool pressure;
    cached::Block* found = nullptr;
  };
  bool reuse(Request& request);
  bool make(Request& request);
  cached::Heap* heap_for(const Request& request);
  void release(cached::Block* block, bool remove_empty_heap = true);
  bool release_enough(Request& request);
  void collect_garbage(const Request& request);

  std::array<cached::Pool, 3> pools_;
  uint64_t made_ = 0;  // buffers and heaps so far
};

}  // namespace simulator
