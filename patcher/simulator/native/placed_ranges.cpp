// Which heaps and buffers the MPS allocator of torch from 2.14 on would hold.
//
// No operator is under way when a storage is released here, so every free range may be split, merged or given back. On a
// Mac one that a command buffer still uses may not.
#include "placed_ranges.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace simulator {
namespace placed {

// Heaps of equal ranges have addresses of Metal's choice, by which torch breaks ties; here the oldest comes first.
bool Range::BySize::operator()(const Range* a, const Range* b) const {
  if (a->size != b->size) {
    return a->size < b->size;
  }
  return a->heap != b->heap ? a->heap->id < b->heap->id : a->offset < b->offset;
}
bool Range::BySize::operator()(const Range* a, size_t size) const {
  return a->size < size;
}

void Pool::insert(Range* range) {
  free.insert(range);
  if (range->placed()) {
    cached.insert(range);
  }
}

void Pool::erase(Range* range) {
  free.erase(range);
  cached.erase(range);
}

Heap::Heap(Pool* pool, size_t total, uint64_t id)
    : pool(pool), total(total), id(id), free_bytes(total), longest_run(total), first(new Range(total, 0, this)) {}

Heap::~Heap() {
  for (Range* range = first; range != nullptr;) {
    delete std::exchange(range, range->next);
  }
}

}  // namespace placed

PlacedRanges::PlacedRanges() : pools_{placed::Pool{kAlignment}, placed::Pool{kMaxSmall}, placed::Pool{kAlignment}} {}

// Beyond 1 MiB in steps of a 32nd of the power of two below, at least a page: a tensor that grows finds the range of the
// last one. Not where that would need a larger kind of heap, or be too long for Metal.
size_t PlacedRanges::rounded(size_t bytes, bool scalar) const {
  const size_t size = align_up(bytes, kAlignment);
  if (scalar || size <= kMaxSmall) {
    return size;
  }
  size_t power = kMiB;
  while (power <= size / 2) {
    power *= 2;
  }
  const size_t stepped = align_up(size, std::max(power / 32, kPage));
  const bool fits = stepped < longest_buffer_ && tier_of(stepped, false) == tier_of(size, false);
  return fits ? stepped : size;
}

Buffer* PlacedRanges::find(size_t size, PoolKind kind) {
  placed::Pool& pool = pools_[static_cast<size_t>(kind)];
  const bool pressure = kind == PoolKind::large && near_low_watermark();
  placed::Range* found = take(pool, size);
  if (found == nullptr) {
    if (pressure && size < pool.free_bytes && driver() >= low_limit_) {
      release(pool, driver() - low_limit_);
    }
    found = make(pool, size, pressure);
  }
  if (found == nullptr) {
    found = take(pool, size);
  }
  if (found == nullptr && release(pool, size) > 0) {
    found = make(pool, size, pressure);
  }
  if (found == nullptr) {
    empty_cache();
    found = take(pool, size);
  }
  if (found == nullptr) {
    found = make(pool, size, pressure);
  }
  if (found != nullptr) {
    found->in_use = true;
  }
  return found;
}

// A cached buffer that is at most a little too long, else the shortest free range that is long enough, else several
// that lie side by side.
placed::Range* PlacedRanges::take(placed::Pool& pool, size_t size) {
  if (over_limit(size)) {
    return nullptr;
  }
  const auto buffer = pool.cached.lower_bound(size);
  if (buffer != pool.cached.end() && (*buffer)->size - size < pool.min_split) {
    return split(pool, *buffer, size);
  }
  const auto range = pool.free.lower_bound(size);
  return range != pool.free.end() ? split(pool, *range, size) : coalesce(pool, size);
}

placed::Range* PlacedRanges::make(placed::Pool& pool, size_t size, bool pressure) {
  if (over_limit(size)) {
    return nullptr;
  }
  const size_t total = heap_size(size, pressure);
  pool.heaps.push_back(std::make_unique<placed::Heap>(&pool, total, ++heaps_made_));
  reserved.increase(size_t{total});
  pool.free_bytes += total;
  placed::Range* whole = pool.heaps.back()->first;
  pool.insert(whole);
  return split(pool, whole, size);
}

// The beginning of a free range. A rest that is long enough to be of use becomes a range of its own.
placed::Range* PlacedRanges::split(placed::Pool& pool, placed::Range* range, size_t size) {
  placed::Heap& heap = *range->heap;
  pool.erase(range);
  pool.free_bytes -= range->size;
  heap.free_bytes -= range->size;
  const size_t left = range->size - size;
  if (left >= pool.min_split) {
    auto* rest = new placed::Range(left, range->offset + size, &heap);
    rest->next = std::exchange(range->next, rest);
    range->size = size;
    range->id = 0;
    pool.insert(rest);
    pool.free_bytes += left;
    heap.free_bytes += left;
  }
  if (!range->placed()) {
    range->id = ++buffers_made_;
  }
  heap.longest_run = std::min(heap.longest_run, heap.free_bytes);
  return range;
}

// Of free ranges side by side the first, as long as all. Their buffers go.
placed::Range* PlacedRanges::merge(placed::Pool& pool, placed::Range* first, placed::Range* last) {
  if (first == last) {
    return first;
  }
  pool.erase(first);
  first->id = 0;
  placed::Range* const after = last->next;
  while (first->next != after) {
    placed::Range* absorbed = first->next;
    pool.erase(absorbed);
    first->size += absorbed->size;
    first->next = absorbed->next;
    delete absorbed;
  }
  pool.insert(first);
  return first;
}

placed::Range* PlacedRanges::coalesce(placed::Pool& pool, size_t size) {
  for (const auto& heap : pool.heaps) {
    if (heap->longest_run < size) {
      continue;
    }
    size_t longest = 0, run = 0;
    placed::Range* begin = nullptr;
    for (placed::Range* range = heap->first; range != nullptr; range = range->next) {
      if (range->in_use) {
        run = 0;
        begin = nullptr;
        continue;
      }
      begin = begin == nullptr ? range : begin;
      run += range->size;
      longest = std::max(longest, run);
      if (run >= size) {
        return split(pool, merge(pool, begin, range), size);
      }
    }
    heap->longest_run = longest;
  }
  return nullptr;
}

void PlacedRanges::keep(Buffer* buffer) {
  auto* range = static_cast<placed::Range*>(buffer);
  placed::Heap& heap = *range->heap;
  range->in_use = false;
  heap.pool->insert(range);
  heap.pool->free_bytes += range->size;
  heap.free_bytes += range->size;
  heap.longest_run = heap.free_bytes;
}

// Heaps that nothing lies in, oldest first, until they are as long together; their bytes.
size_t PlacedRanges::release(placed::Pool& pool, size_t target) {
  size_t released = 0;
  for (auto next = pool.heaps.begin(); next != pool.heaps.end() && released < target;) {
    placed::Heap& heap = **next;
    if (!heap.unused()) {
      ++next;
      continue;
    }
    for (placed::Range* range = heap.first; range != nullptr; range = range->next) {
      pool.erase(range);
    }
    released += heap.total;
    pool.free_bytes -= heap.total;
    reserved.decrease(size_t{heap.total});
    next = pool.heaps.erase(next);
  }
  return released;
}

void PlacedRanges::empty_cache() {
  for (auto& pool : pools_) {
    release(pool, std::numeric_limits<size_t>::max());
  }
}

size_t PlacedRanges::heap_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool.heaps.size();
  }
  return count;
}

size_t PlacedRanges::cached_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool.cached.size();
  }
  return count;
}

}  // namespace simulator
