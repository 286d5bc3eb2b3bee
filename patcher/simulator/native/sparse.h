// Sparse COO tensors on mps, which torch 2.13 has on a Mac: dense indices and values on the device.
#pragma once

#include "simulator.h"

namespace simulator {

// The sparse arguments and results of one operator call; their indices and values go through `Aliases`.
class SparseAliases {
 public:
  explicit SparseAliases(Aliases& aliases) : aliases_(aliases) {}
  // Dense tensors too.
  at::Tensor to_cpu(const at::Tensor& tensor);
  at::Tensor to_mps(at::Tensor result);
  // Gives sparse arguments the indices, values and sizes that the kernel has given their aliases.
  void write_back();

 private:
  struct Pair {
    at::Tensor mps;
    at::Tensor cpu;
  };
  Aliases& aliases_;
  std::vector<Pair> pairs_;
};

// Gives a sparse CPU tensor the indices and values of its coalesced form.
void coalesce_in_place(const at::Tensor& tensor);
// As `fallback`, which is this for dense tensors: runs the operator's kernel for `key`, CPU or SparseCPU.
void run_on_cpu(const c10::OperatorHandle& op, c10::Stack* stack, c10::DispatchKey key);
// Routes these operators (aten, with their overload: "add.Tensor") to the CPU's sparse kernels.
void register_sparse(const std::vector<std::string>& names);

}  // namespace simulator
