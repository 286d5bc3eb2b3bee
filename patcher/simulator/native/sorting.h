// The order in which a Mac's sort leaves equal elements.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace simulator::sorting {

// Puts equal elements into the order of torch's Metal kernels.
//
// What is sorted is `self` along `dim`; `values` and `indices` are the CPU's results, and are changed where they lie. All
// are on the CPU.
void order_equals(const at::Tensor& self, int64_t dim, bool descending, at::Tensor& values, at::Tensor& indices);

}  // namespace simulator::sorting
