// Operators that a Mac has for a dtype and the CPU has not.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>

namespace simulator {

// The dtypes, one bit per ScalarType, that an mps kernel takes and the CPU's of the same operator refuses.
uint64_t lacking_on_cpu(const c10::OperatorHandle& op);

// Runs torch's CPU kernel on the CPU tensors on the stack. Where it refuses them, and one is of a `lacking` dtype, it
// runs on float32 copies, and the results are rounded to that dtype.
void run_on_cpu(const c10::OperatorHandle& op, uint64_t lacking, c10::Stack* stack);

}  // namespace simulator
