// Which heaps and buffers the MPS allocator of torch up to 2.13 would hold.
#include "cached_buffers.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace simulator {
namespace cached {

// Metal gives buffers and heaps addresses of its own choice, by which torch breaks ties; here the oldest comes first.
bool Block::BySize::operator()(const Block* a, const Block* b) const {
  return a->size != b->size ? a->size < b->size : a->id < b->id;
}
bool Block::BySize::operator()(const Block* a, size_t size) const {
  return a->size < size;
}
bool ByAvailable::operator()(const Heap* a, const Heap* b) const {
  return a->available != b->available ? a->available < b->available : a->id < b->id;
}
bool ByAvailable::operator()(const Heap* a, size_t size) const {
  return a->available < size;
}

// Metal: a buffer is put where it finds room first. Apple does not say where its heaps put them.
size_t Heap::take(size_t size) {
  const auto place =
      std::find_if(free.begin(), free.end(), [size](const Range& range) { return range.end - range.begin >= size; });
  TORCH_INTERNAL_ASSERT(place != free.end(), "a heap with room for ", available, " bytes has none for ", size);
  const size_t offset = place->begin;
  place->begin += size;
  if (place->begin == place->end) {
    free.erase(place);
  }
  ++buffers;
  measure();
  return offset;
}

void Heap::give_back(size_t offset, size_t size) {
  auto next = std::find_if(free.begin(), free.end(), [offset](const Range& range) { return range.begin > offset; });
  const bool joins_next = next != free.end() && next->begin == offset + size;
  const bool joins_last = next != free.begin() && std::prev(next)->end == offset;
  if (joins_last && joins_next) {
    std::prev(next)->end = next->end;
    free.erase(next);
  } else if (joins_last) {
    std::prev(next)->end = offset + size;
  } else if (joins_next) {
    next->begin = offset;
  } else {
    free.insert(next, {offset, offset + size});
  }
  --buffers;
  measure();
}

// maxAvailableSizeWithAlignment:vm_page_size
void Heap::measure() {
  available = 0;
  for (const auto& range : free) {
    const size_t begin = align_up(range.begin, kPage);
    available = std::max(available, begin < range.end ? range.end - begin : 0);
  }
}

}  // namespace cached

using cached::Block;
using cached::Heap;
using cached::Pool;

constexpr size_t kTooLong = 32 * kMiB;  // a buffer that is longer than asked for by more than this is not reused

CachedBuffers::CachedBuffers() : pools_{Pool{PoolKind::small}, Pool{PoolKind::large}, Pool{PoolKind::scalar}} {}

CachedBuffers::~CachedBuffers() {
  CachedBuffers::empty_cache();
  for (auto& pool : pools_) {
    for (auto* heap : pool.heaps) {
      delete heap;
    }
  }
}

size_t CachedBuffers::rounded(size_t bytes, bool) const {
  return align_up(bytes, kAlignment);
}

Buffer* CachedBuffers::find(size_t size, PoolKind kind) {
  Pool& pool = pools_[static_cast<size_t>(kind)];
  Request request{size, pool, kind == PoolKind::large && near_low_watermark()};
  if (reuse(request)) {
    return request.found;
  }
  if (request.pressure && size < pool.free_bytes) {
    collect_garbage(request);
  }
  if (make(request) || reuse(request) || (release_enough(request) && make(request))) {
    return request.found;
  }
  empty_cache();
  return make(request) ? request.found : nullptr;
}

// The smallest cached buffer that is long enough. One that is more than 32 MiB too long is left alone if a heap has
// room, and broken up if none has.
bool CachedBuffers::reuse(Request& request) {
  Pool& pool = request.pool;
  if (over_limit(request.size)) {
    return false;
  }
  if (low_ratio_ > 0 && pool.kind == PoolKind::large) {
    ++pool.clock;
  }
  const auto fit = pool.free.lower_bound(request.size);
  if (fit == pool.free.end()) {
    return false;
  }
  Block* block = *fit;
  if (block->size > request.size + kTooLong) {
    if (pool.heaps.lower_bound(request.size) == pool.heaps.end()) {
      release(block, /*remove_empty_heap=*/false);
      request.pressure = false;
    }
    return false;
  }
  block->node = pool.free.extract(fit);
  pool.free_bytes -= block->size;
  request.found = block;
  return true;
}

// A new buffer, in the heap with the least room that is enough.
bool CachedBuffers::make(Request& request) {
  if (over_limit(request.size)) {
    return false;
  }
  Heap* heap = heap_for(request);
  const size_t offset = heap->take(request.size);
  heap->pool->heaps.insert(heap);
  request.found = new Block(request.size, ++made_, heap, offset);
  return true;
}

// Taken out of the set: its room is about to change.
Heap* CachedBuffers::heap_for(const Request& request) {
  Pool& pool = request.pool;
  const auto fit = pool.heaps.lower_bound(request.size);
  if (fit != pool.heaps.end()) {
    Heap* heap = *fit;
    pool.heaps.erase(fit);
    return heap;
  }
  const size_t total = heap_size(request.size, request.pressure);
  const bool is_split = tier_of(request.size, request.pressure) != Tier::alone;
  reserved.increase(size_t{total});
  return new Heap{&pool, total, is_split, ++made_, total, 0, {{0, total}}};
}

void CachedBuffers::keep(Buffer* buffer) {
  auto* block = static_cast<Block*>(buffer);
  Pool& pool = *block->heap->pool;
  block->freed_at = pool.clock;
  if (block->node.empty()) {
    pool.free.insert(block);
  } else {
    pool.free.insert(std::move(block->node));
  }
  pool.free_bytes += block->size;
}

// ---- giving back to Metal ------------------------------------------------------------------------------------------

void CachedBuffers::release(Block* block, bool remove_empty_heap) {
  Heap* heap = block->heap;
  Pool& pool = *heap->pool;
  pool.free_bytes -= block->size;
  pool.free.erase(block);
  pool.heaps.erase(heap);
  heap->give_back(block->offset, block->size);
  delete block;
  if (remove_empty_heap && heap->buffers == 0) {
    reserved.decrease(size_t{heap->total});
    delete heap;
  } else {
    pool.heaps.insert(heap);
  }
}

void CachedBuffers::empty_cache() {
  for (auto& pool : pools_) {
    while (!pool.free.empty()) {
      release(*pool.free.begin());
    }
  }
}

// One cached buffer that is long enough, else the longest ones until they are as long together.
bool CachedBuffers::release_enough(Request& request) {
  cached::Free& free = request.pool.free;
  if (free.empty()) {
    return false;
  }
  const auto fit = free.lower_bound(request.size);
  if (fit != free.end()) {
    release(*fit);
    return true;
  }
  size_t released = 0;
  while (released < request.size && !free.empty()) {
    Block* longest = *std::prev(free.end());
    released += longest->size;
    release(longest);
  }
  return released >= request.size;
}

// Cached buffers that have waited for longer than the average go, shortest first, until the driver is at the low
// watermark. The heaps that are split stay, even when they are empty.
void CachedBuffers::collect_garbage(const Request& request) {
  if (driver() < low_limit_) {
    return;
  }
  const size_t target = driver() - low_limit_;
  Pool& pool = request.pool;
  const auto age = [&pool](const Block* block) { return static_cast<double>(pool.clock - block->freed_at); };
  double total_age = 0;
  for (const auto* block : pool.free) {
    total_age += age(block);
  }
  size_t reclaimed = 0;
  bool progress = true;
  while (reclaimed < target && progress && !pool.free.empty()) {
    const double threshold = total_age / static_cast<double>(pool.free.size());
    progress = false;
    for (auto next = pool.free.begin(); next != pool.free.end() && reclaimed < target;) {
      Block* block = *next++;
      if (age(block) >= threshold) {
        progress = true;
        reclaimed += block->size;
        total_age -= age(block);
        release(block, /*remove_empty_heap=*/!block->heap->is_split);
      }
    }
  }
}

size_t CachedBuffers::heap_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool.heaps.size();
  }
  return count;
}

size_t CachedBuffers::cached_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool.free.size();
  }
  return count;
}

}  // namespace simulator
