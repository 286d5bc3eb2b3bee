// Padding with a constant makes a contiguous tensor on a Mac; the CPU keeps channels_last.
//
// torch 2.13: aten/src/ATen/native/mps/operations/Pad.mm, constant_pad_nd_mps; where it only cuts, it copies a view. 2.15 has
// a Metal kernel of its own (constant_pad_nd in its binary), and its tests of modules expect channels_last to be kept.
#include "simulator.h"

#include <ATen/ops/constant_pad_nd_native.h>
#include <torch/library.h>

#include <algorithm>

namespace simulator {
namespace {

at::Tensor constant_pad_nd(const at::Tensor& self, at::IntArrayRef pad, const at::Scalar& value) {
  at::Tensor padded = at::native::constant_pad_nd(self, pad, value);
  if (mac_torch() >= std::make_pair(2u, 15u)) {
    return padded;
  }
  return std::any_of(pad.begin(), pad.end(), [](int64_t each) { return each > 0; }) ? padded.contiguous() : padded;
}

}  // namespace
}  // namespace simulator

TORCH_LIBRARY_IMPL(aten, MPS, library) {
  library.impl("constant_pad_nd", simulator::constant_pad_nd);
}
