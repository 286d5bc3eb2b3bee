// Which heaps and buffers torch's MPS allocator would hold.
#include "heaps.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>

namespace simulator {
namespace {

constexpr size_t kMiB = 1 << 20;
constexpr size_t kMaxSmall = kMiB;             // the largest "small" buffer
constexpr size_t kMinExtraLarge = 10 * kMiB;   // from here on buffers get heaps of kExtraLargeHeap
constexpr size_t kRoundAlone = 2 * kMiB;       // the size of a heap for one buffer is a multiple of this
constexpr size_t kSmallHeap = 8 * kMiB;
constexpr size_t kLargeHeap = 32 * kMiB;
constexpr size_t kExtraLargeHeap = 1024 * kMiB;
constexpr double kHighestRatio = 2.0;

// Metal: what heapBufferSizeAndAlignWithLength answers on Apple silicon. One element takes 256 bytes ("Tried to allocate
// 256 bytes on shared pool", for instance https://github.com/pinokiocomputer/pinokio/issues/941).
constexpr size_t kAlignment = 256;
// The page on Apple silicon. torch asks a heap for its longest free piece that starts on a page.
constexpr size_t kPage = 1 << 14;

constexpr size_t align_up(size_t value, size_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

using c10::CachingAllocator::format_size;

}  // namespace

// Metal gives buffers and heaps addresses of its own choice, by which torch breaks ties; here the oldest comes first.
bool BySize::operator()(const Buffer* a, const Buffer* b) const {
  return a->size != b->size ? a->size < b->size : a->id < b->id;
}
bool BySize::operator()(const Buffer* a, size_t size) const {
  return a->size < size;
}
bool ByAvailable::operator()(const Heap* a, const Heap* b) const {
  return a->available != b->available ? a->available < b->available : a->id < b->id;
}
bool ByAvailable::operator()(const Heap* a, size_t size) const {
  return a->available < size;
}

// ---- one heap ----------------------------------------------------------------------------------------------------

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

// ---- limits ------------------------------------------------------------------------------------------------------

Heaps::Heaps() {
  for (const auto kind : {PoolKind::small, PoolKind::large, PoolKind::scalar}) {
    pools_.push_back(std::make_unique<Pool>(Pool{kind}));
  }
}

Heaps::~Heaps() {
  empty_cache();
  for (const auto& pool : pools_) {
    for (auto* heap : pool->heaps) {
      delete heap;
    }
  }
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

// ---- allocation --------------------------------------------------------------------------------------------------

size_t Heaps::rounded(size_t bytes) {
  return align_up(bytes, kAlignment);
}

Pool& Heaps::pool_for(size_t size, bool scalar) {
  const auto kind = scalar ? PoolKind::scalar : size <= kMaxSmall ? PoolKind::small : PoolKind::large;
  return *pools_[static_cast<size_t>(kind)];
}

Buffer* Heaps::allocate(size_t bytes, bool scalar) {
  TORCH_CHECK(bytes < longest_buffer_, "Invalid buffer size: ", format_size(bytes));
  const size_t size = rounded(bytes);
  Pool& pool = pool_for(size, scalar);
  Request request{size, pool, pool.kind == PoolKind::large && near_low_watermark()};
  bool found = reuse(request);
  if (!found) {
    if (request.pressure && size < pool.cached_bytes) {
      collect_garbage(request);
    }
    found = make(request) || reuse(request) || (release_enough(request) && make(request));
    if (!found) {
      empty_cache();
      found = make(request);
    }
  }
  TORCH_CHECK(found, out_of_memory(size));
  allocated.increase(size_t{request.found->size});
  return request.found;
}

// The smallest cached buffer that is long enough. One that is more than 32 MiB too long is left alone if a heap has
// room, and broken up if none has.
bool Heaps::reuse(Request& request) {
  Pool& pool = request.pool;
  if (over_limit(request.size)) {
    return false;
  }
  if (low_ratio_ > 0 && pool.kind == PoolKind::large) {
    ++pool.clock;
  }
  const auto fit = pool.cached.lower_bound(request.size);
  if (fit == pool.cached.end()) {
    return false;
  }
  Buffer* buffer = *fit;
  if (buffer->size > request.size + kLargeHeap) {
    if (pool.heaps.lower_bound(request.size) == pool.heaps.end()) {
      release(buffer, /*remove_empty_heap=*/false);
      request.pressure = false;
    }
    return false;
  }
  buffer->node = pool.cached.extract(fit);
  pool.cached_bytes -= buffer->size;
  request.found = buffer;
  return true;
}

// A new buffer, in the heap with the least room that is enough.
bool Heaps::make(Request& request) {
  if (over_limit(request.size)) {
    return false;
  }
  Heap* heap = heap_for(request);
  const size_t offset = heap->take(request.size);
  heap->pool->heaps.insert(heap);
  request.found = new Buffer{request.size, heap, offset, ++made_};
  return true;
}

// Taken out of the set: its room is about to change.
Heap* Heaps::heap_for(const Request& request) {
  Pool& pool = request.pool;
  const auto fit = pool.heaps.lower_bound(request.size);
  if (fit != pool.heaps.end()) {
    Heap* heap = *fit;
    pool.heaps.erase(fit);
    return heap;
  }
  size_t total = align_up(request.size, kRoundAlone);
  bool is_split = true;
  if (request.size <= kMaxSmall) {
    total = kSmallHeap;
  } else if (request.size < kMinExtraLarge) {
    total = kLargeHeap;
  } else if (request.size < kExtraLargeHeap / 2 && !request.pressure) {
    total = kExtraLargeHeap;
  } else {
    is_split = false;
  }
  reserved.increase(size_t{total});
  return new Heap{&pool, total, is_split, ++made_, total, 0, {{0, total}}};
}

void Heaps::free(Buffer* buffer) {
  Pool& pool = *buffer->heap->pool;
  buffer->freed_at = pool.clock;
  if (buffer->node.empty()) {
    pool.cached.insert(buffer);
  } else {
    pool.cached.insert(std::move(buffer->node));
  }
  pool.cached_bytes += buffer->size;
  allocated.decrease(size_t{buffer->size});
}

// ---- giving back to Metal ------------------------------------------------------------------------------------------

void Heaps::release(Buffer* buffer, bool remove_empty_heap) {
  Heap* heap = buffer->heap;
  Pool& pool = *heap->pool;
  pool.cached_bytes -= buffer->size;
  pool.cached.erase(buffer);
  pool.heaps.erase(heap);
  heap->give_back(buffer->offset, buffer->size);
  delete buffer;
  if (remove_empty_heap && heap->buffers == 0) {
    reserved.decrease(size_t{heap->total});
    delete heap;
  } else {
    pool.heaps.insert(heap);
  }
}

void Heaps::release_all(Pool& pool) {
  while (!pool.cached.empty()) {
    release(*pool.cached.begin());
  }
}

void Heaps::empty_cache() {
  for (const auto& pool : pools_) {
    release_all(*pool);
  }
}

// One cached buffer that is long enough, else the longest ones until they are as long together.
bool Heaps::release_enough(Request& request) {
  Cached& cached = request.pool.cached;
  if (cached.empty()) {
    return false;
  }
  const auto fit = cached.lower_bound(request.size);
  if (fit != cached.end()) {
    release(*fit);
    return true;
  }
  size_t released = 0;
  while (released < request.size && !cached.empty()) {
    Buffer* longest = *std::prev(cached.end());
    released += longest->size;
    release(longest);
  }
  return released >= request.size;
}

// Cached buffers that have waited for longer than the average go, shortest first, until the driver is at the low
// watermark. The heaps that are split stay, even when they are empty.
void Heaps::collect_garbage(const Request& request) {
  if (driver() < low_limit_) {
    return;
  }
  const size_t target = driver() - low_limit_;
  Pool& pool = request.pool;
  const auto age = [&pool](const Buffer* buffer) { return static_cast<double>(pool.clock - buffer->freed_at); };
  double total_age = 0;
  for (const auto* buffer : pool.cached) {
    total_age += age(buffer);
  }
  size_t reclaimed = 0;
  bool progress = true;
  while (reclaimed < target && progress && !pool.cached.empty()) {
    const double threshold = total_age / static_cast<double>(pool.cached.size());
    progress = false;
    for (auto next = pool.cached.begin(); next != pool.cached.end() && reclaimed < target;) {
      Buffer* buffer = *next++;
      if (age(buffer) >= threshold) {
        progress = true;
        reclaimed += buffer->size;
        total_age -= age(buffer);
        release(buffer, /*remove_empty_heap=*/!buffer->heap->is_split);
      }
    }
  }
}

size_t Heaps::heap_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool->heaps.size();
  }
  return count;
}

size_t Heaps::cached_count() const {
  size_t count = 0;
  for (const auto& pool : pools_) {
    count += pool->cached.size();
  }
  return count;
}

}  // namespace simulator
