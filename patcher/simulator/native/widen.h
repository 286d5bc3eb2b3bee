// Dtypes in which an operator runs on wider copies: those that only an mps kernel takes, and products in half precision.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>

namespace simulator {

struct Widening {
  uint64_t lacking = 0;  // dtypes, one bit per ScalarType, that an mps kernel takes and the CPU's refuses
  uint64_t lacking_sparse = 0;  // of the kernels for sparse tensors
  bool product = false;  // see products.h
};
Widening widening(const c10::OperatorHandle& op);

// Runs torch's CPU kernel on the CPU tensors on the stack, or on float32 copies of them, with results rounded to their
// dtype: a product where products::in_float32, another operator where the kernel refuses a dtype that it lacks.
void run_cpu_kernel(const c10::OperatorHandle& op, const Widening& widening, c10::Stack* stack);
// The same with torch's kernel for sparse CPU tensors, and float64 copies: integers below 2^53 stay exact.
void run_sparse_kernel(const c10::OperatorHandle& op, const Widening& widening, c10::Stack* stack);

}  // namespace simulator
