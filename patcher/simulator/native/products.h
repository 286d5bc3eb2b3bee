// Matrix products in half precision, on hosts whose CPU has none.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/ScalarType.h>

#include <initializer_list>
#include <string>

namespace simulator::products {

// Whether an operator is a matrix product. Convolutions and attention have kernels of their own, and use Operands.
bool is_product(const c10::OperatorHandle& op);

// Whether a product of this dtype is computed from float32 copies of its operands, and rounded once, as on a Mac: for
// float16 and bfloat16, unless torch would hand it to oneDNN's kernels for that dtype. Without those, torch's own loops
// are up to 40 times slower than a product of float32.
bool in_float32(c10::ScalarType dtype);

// What decides: "host" is the above; "native" and "float32" hold for both dtypes on any host.
void set_mode(const std::string& mode);

// The operands of one product, in the dtype that it is computed in.
class Operands {
 public:
  // Those that must be of one dtype; where they are not, torch's kernel gets them as they are, and says so.
  Operands(std::initializer_list<at::Tensor> given);

  at::Tensor widen(const at::Tensor& operand) const;
  at::Tensor round(at::Tensor result) const;

 private:
  c10::ScalarType dtype_;
  bool wide_;
};

}  // namespace simulator::products
