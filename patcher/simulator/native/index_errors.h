// Errors, such as indices out of bounds, of which a Mac's kernels tell the host when it next waits for the GPU.
//
// torch 2.13: aten/src/ATen/native/mps/kernels/{Indexing,ScatterGather,EmbeddingBag}.metal (TORCH_REPORT_ERROR) and
// aten/src/ATen/mps/MPSStream.mm (checkLastError); pull request 166615.
#pragma once

#include <ATen/core/stack.h>

#include <functional>
#include <string>

namespace simulator::index_errors {

// Runs the CPU kernel of `op` on the last `count` values of the stack. Where an operator whose kernel reports to the host
// later meets an index out of bounds, the error is kept, and the kernel runs with the nearest index that is right.
void run(const std::string& op, c10::Stack* stack, size_t count, const std::function<void()>& kernel);

// Keeps what a kernel reports; of several reports the first.
void keep(const std::string& told);

// Raises AcceleratorError for the first error since the last call. To be called where the host waits for the GPU.
void raise();

}  // namespace simulator::index_errors
