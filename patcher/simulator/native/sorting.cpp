// The order in which a Mac's sort leaves equal elements.
//
// The CPU's, where a stable one is not asked for, is std::sort's. torch 2.13: aten/src/ATen/native/mps/operations/Sort.mm chooses between two kernels. The radix sort (SortRadix.h) is
// stable. The merge sort (SortMerge.h) is stable but for its first step, a bitonic network over each 128 elements of a
// row, the last ones filled up. So a row is what a stable merge makes of these. Floats go to the radix sort, and in
// several blocks to the merge sort, as integers in which -0 lies before 0. The binaries of 2.13 and 2.14 have these
// kernels; 2.15 has one more, for floats in one block, that orders other elements in the same way.
#include "sorting.h"

#include <ATen/ATen.h>
#include <ATen/WrapDimUtils.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace simulator::sorting {
namespace {

using at::Tensor;

constexpr int64_t kNetwork = 128;  // elements that one SIMD group sorts: 32 lanes of 4
constexpr int64_t kPerThread = 4;
constexpr int64_t kPadding = -1;  // the index of what fills up the last 128

enum class Kernel { kRadix, kMergeKeys, kMergeValues };

int64_t blocks(int64_t size, int64_t block) {
  return (size + block - 1) / block;
}

// Sort.mm, select_tptg: elements that one threadgroup sorts.
int64_t elements_per_group(int64_t size, int64_t rows, int64_t bytes) {
  int64_t threads = blocks(size, kPerThread);
  if (rows <= 2 && size > 2048) {
    threads = std::min(threads, std::max<int64_t>(2048, blocks(size, 4 / rows)) / kPerThread);
  }
  threads = std::clamp<int64_t>(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(threads))), 32, 1024);
  if (bytes > 4) {
    threads = std::min<int64_t>(threads, rows <= 256 ? 512 : 256);
  }
  return threads * kPerThread;
}

// Sort.mm, should_use_radix: whether its passes are few beside the rounds of merging.
bool few_passes(int64_t size, int64_t rows, int64_t bytes, int64_t group) {
  if (rows >= 256) {
    return false;
  }
  const int64_t rounds = std::bit_width(static_cast<uint64_t>(blocks(size, group) - 1));
  return (bytes <= 2 ? 2 : 4) * 3 <= 2 * (1 + rounds) + 2;
}

Kernel kernel_for(const Tensor& self, int64_t size, int64_t rows, bool last_dim) {
  const int64_t bytes = self.element_size(), group = elements_per_group(size, rows, bytes);
  const bool halves = at::isReducedFloatingType(self.scalar_type());
  if (bytes <= 4 && ((halves && size >= 2048) || few_passes(size, rows, bytes, group))) {
    return Kernel::kRadix;
  }
  const bool keys = self.scalar_type() == at::kFloat && size > group && last_dim;
  return keys ? Kernel::kMergeKeys : Kernel::kMergeValues;
}

template <typename scalar_t>
constexpr bool kFloating = !std::is_integral_v<scalar_t>;

// A row's elements, by their indices, and which comes first.
template <typename scalar_t>
struct Order {
  const scalar_t* row;
  bool descending;
  bool keys;  // -0 lies before 0

  bool less(scalar_t a, scalar_t b) const {  // NaN lies last
    if constexpr (kFloating<scalar_t>) {
      if (a != a || b != b) {
        return a == a;
      }
      if (keys && a == b) {
        return std::signbit(static_cast<float>(a)) && !std::signbit(static_cast<float>(b));
      }
    }
    return a < b;
  }
  scalar_t value(int64_t index) const {
    return index == kPadding ? padding() : row[index];
  }
  // It sorts behind everything, and so does an element that equals it.
  scalar_t padding() const {
    if constexpr (kFloating<scalar_t>) {
      constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
      return static_cast<scalar_t>(descending ? -kInfinity : kNaN);
    } else {
      return descending ? std::numeric_limits<scalar_t>::lowest() : std::numeric_limits<scalar_t>::max();
    }
  }
  bool comes_first(int64_t first, int64_t second) const {
    const scalar_t a = value(first), b = value(second);
    return descending ? less(b, a) : less(a, b);
  }
  // Of an element and padding that are equal the element comes first.
  bool comes_before(int64_t first, int64_t second) const {
    return comes_first(first, second) ||
        (second == kPadding && first != kPadding && !comes_first(second, first));
  }
};

// SortMerge.h, simd_bitonic_sort4. Equal elements change places between neighbours of one lane where it sorts upwards,
// and between lanes where it sorts downwards.
template <typename scalar_t>
void sort_network(const Order<scalar_t>& order, std::array<int64_t, kNetwork>& places) {
  for (int64_t length = 2; length <= kNetwork; length *= 2) {
    for (int64_t offset = length / 2; offset > 0; offset /= 2) {
      for (int64_t low = 0; low < kNetwork; ++low) {
        const int64_t high = low ^ offset;
        if (high < low) {
          continue;
        }
        const bool upwards = (low & length) == 0, one_lane = offset < kPerThread;
        const bool wrong = order.comes_before(places[high], places[low]);
        const bool right = order.comes_before(places[low], places[high]);
        const bool equal_swap = one_lane == upwards;
        if ((upwards ? wrong : right) || (!wrong && !right && equal_swap)) {
          std::swap(places[low], places[high]);
        }
      }
    }
  }
}

template <typename scalar_t>
void merge_sort(const Order<scalar_t>& order, std::vector<int64_t>& indices) {
  const int64_t size = static_cast<int64_t>(indices.size());
  std::array<int64_t, kNetwork> places;
  for (int64_t start = 0; start < size; start += kNetwork) {
    for (int64_t i = 0; i < kNetwork; ++i) {
      places[i] = start + i < size ? start + i : kPadding;
    }
    sort_network(order, places);
    std::copy_n(places.begin(), std::min(kNetwork, size - start), indices.begin() + start);
  }
  std::stable_sort(indices.begin(), indices.end(), [&](int64_t a, int64_t b) { return order.comes_first(a, b); });
}

// Whether the CPU's results, sorted, have two neighbours that are equal.
template <typename scalar_t>
bool has_equals(const scalar_t* sorted, int64_t size) {
  for (int64_t i = 1; i < size; ++i) {
    if (sorted[i - 1] == sorted[i] || (sorted[i - 1] != sorted[i - 1] && sorted[i] != sorted[i])) {
      return true;
    }
  }
  return false;
}

template <typename scalar_t>
void order_rows(const Tensor& rows, bool descending, Kernel kernel, Tensor& values, Tensor& indices) {
  const int64_t size = rows.size(1);
  std::vector<int64_t> order(size);
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const scalar_t* elements = rows.const_data_ptr<scalar_t>() + row * size;
    scalar_t* sorted = values.mutable_data_ptr<scalar_t>() + row * size;
    if (!has_equals(sorted, size)) {
      continue;
    }
    const Order<scalar_t> by{elements, descending, kernel != Kernel::kMergeValues};
    std::iota(order.begin(), order.end(), 0);
    if (kernel == Kernel::kRadix) {
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return by.comes_first(a, b); });
    } else {
      merge_sort(by, order);
    }
    std::copy(order.begin(), order.end(), indices.mutable_data_ptr<int64_t>() + row * size);
    std::transform(order.begin(), order.end(), sorted, [&](int64_t index) { return elements[index]; });
  }
}

}  // namespace

void order_equals(const Tensor& self, int64_t dim, bool descending, Tensor& values, Tensor& indices) {
  dim = at::maybe_wrap_dim(dim, self.dim());
  if (self.dim() == 0 || self.size(dim) <= 1 || self.numel() == 0) {
    return;
  }
  const int64_t size = self.size(dim), count = self.numel() / size;
  const Kernel kernel = kernel_for(self, size, count, dim == self.dim() - 1);
  const Tensor last = self.movedim(dim, -1);
  const auto rows_of = [&](const Tensor& tensor) { return tensor.movedim(dim, -1).contiguous().view({count, size}); };
  const Tensor rows = rows_of(self);
  Tensor row_values = rows_of(values).clone(), row_indices = rows_of(indices).clone();
  AT_DISPATCH_ALL_TYPES_AND3(at::kHalf, at::kBFloat16, at::kBool, self.scalar_type(), "sort", [&] {
    order_rows<scalar_t>(rows, descending, kernel, row_values, row_indices);
  });
  values.copy_(row_values.view(last.sizes()).movedim(-1, dim));
  indices.copy_(row_indices.view(last.sizes()).movedim(-1, dim));
}

}  // namespace simulator::sorting
