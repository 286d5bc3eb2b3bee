// What the sparse kernels of mps refuse, besides the operators that have none.
#pragma once

#include "simulator.h"

#include <string>

namespace simulator::sparse_checks {

// Throws what a Mac's kernel of `name` ("aten::mul.Tensor") throws for the arguments on top of the stack.
void check(const std::string& name, const c10::Stack& stack, size_t arguments);
// Whether the kernel's result is coalesced where the CPU's is not: the sum of two sparse tensors with entries.
bool coalesces(const std::string& name, const c10::Stack& stack, size_t arguments);

}  // namespace simulator::sparse_checks
