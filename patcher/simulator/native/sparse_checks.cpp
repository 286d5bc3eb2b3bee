// Source: PyTorch's aten/src/ATen/native/sparse/mps/SparseMPSTensorMath.mm, whose texts are in the wheels' binaries.
// Which dtypes a Metal kernel has is what the wheels' Metal libraries have functions for (torch 2.13.0 and 2.14.1 alike).
#include "sparse_checks.h"

#include "rules.h"
#include "words.h"

#include <ATen/Functions.h>
#include <ATen/ScalarOps.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <unordered_map>
#include <vector>

namespace simulator::sparse_checks {
namespace {

using c10::ScalarType;

constexpr uint64_t bit(ScalarType dtype) {
  return uint64_t{1} << static_cast<unsigned>(dtype);
}
constexpr uint64_t kFloating = bit(ScalarType::Float) | bit(ScalarType::Half) | bit(ScalarType::BFloat16);
constexpr uint64_t kLongOrFloating = kFloating | bit(ScalarType::Long) | bit(ScalarType::ComplexFloat);
constexpr uint64_t kNumbers = kLongOrFloating | bit(ScalarType::Int) | bit(ScalarType::Short) | bit(ScalarType::Char) |
    bit(ScalarType::Byte);

#define REFUSE_UNLESS(holds, ...)                    \
  do {                                               \
    if (!(holds)) {                                  \
      rules::count_refused("sparse-kernel");         \
      TORCH_CHECK(false, __VA_ARGS__);               \
    }                                                \
  } while (false)

// A Metal function is looked up by its name when the kernel is first needed.
void need_kernel(const char* kernel, ScalarType dtype, uint64_t dtypes) {
  REFUSE_UNLESS(
      (dtypes & bit(dtype)) != 0, "Failed to create function state object for: ", kernel, "_",
      words::metal_name(c10::toString(dtype)));
}

class Call {
 public:
  Call(const c10::Stack& stack, size_t arguments) : stack_(stack), first_(stack.size() - arguments) {}
  const at::Tensor& tensor(size_t position) const {
    return stack_[first_ + position].toTensor();
  }
  int64_t integer(size_t position) const {
    return stack_[first_ + position].toInt();
  }

 private:
  const c10::Stack& stack_;
  size_t first_;
};

void check_mul_dense(const at::Tensor& dense, const at::Tensor& sparse) {
  if (dense.numel() == 1 || sparse._nnz() == 0) {
    return;
  }
  REFUSE_UNLESS(
      dense.sizes().equals(sparse.sizes()), "mul(dense, sparse): sizes must match exactly (no broadcasting): ",
      dense.sizes(), " vs ", sparse.sizes());
  need_kernel("dense_sparse_mul_kernel", at::result_type(dense, sparse), kLongOrFloating);
}

void check_mul(const Call& call) {
  const at::Tensor &self = call.tensor(0), &other = call.tensor(1);
  if (!self.is_sparse() || !other.is_sparse()) {
    self.is_sparse() ? check_mul_dense(other, self) : check_mul_dense(self, other);
    return;
  }
  REFUSE_UNLESS(
      self.sparse_dim() == other.sparse_dim(), "mul(sparse, sparse): must have same sparse_dim, got ",
      self.sparse_dim(), " vs ", other.sparse_dim());
  const auto dim = self.sparse_dim();
  REFUSE_UNLESS(
      self.sizes().slice(0, dim).equals(other.sizes().slice(0, dim)),
      "mul(sparse, sparse): sparse sizes must match exactly.");
  if (dim > 0 && self._nnz() > 0 && other._nnz() > 0) {
    need_kernel("fused_gather_mul_kernel", at::result_type(self, other), kNumbers);
  }
}

void check_add(const Call& call) {
  const at::Tensor &self = call.tensor(0), &other = call.tensor(1);
  if (!self.is_sparse() || !other.is_sparse()) {
    return;  // the CPU's words are the same
  }
  REFUSE_UNLESS(
      self.sizes().equals(other.sizes()), "add: expected 'self' and 'other' to have same size, but ", self.sizes(),
      " != ", other.sizes());
}

void check_addmm(const at::Tensor& sparse, const at::Tensor& dense, ScalarType dtype) {
  REFUSE_UNLESS(sparse.sparse_dim() == 2, "addmm: sparse_dim must be 2, got ", sparse.sparse_dim());
  REFUSE_UNLESS(sparse.dense_dim() == 0, "addmm: sparse values must be 0-dense-dim, got ", sparse.dense_dim());
  REFUSE_UNLESS(dense.dim() == 2, "addmm: 'dense' must be 2D, got ", dense.dim());
  REFUSE_UNLESS(
      dense.size(0) == sparse.size(1), "addmm: dense (mat2) dim0 must be ", sparse.size(1), ", got ", dense.size(0));
  if (sparse._nnz() > 0 && dense.size(1) > 0) {
    const auto both = c10::promoteTypes(sparse.scalar_type(), dense.scalar_type());
    need_kernel("spmm_addmm_coo", c10::promoteTypes(dtype, both), kNumbers);
  }
}

void check_addmm_call(const Call& call) {
  if (call.tensor(1).is_sparse() && !call.tensor(2).is_sparse()) {
    check_addmm(call.tensor(1), call.tensor(2), call.tensor(0).scalar_type());
  }
}

void check_matmul(const at::Tensor& self, const at::Tensor& other) {
  REFUSE_UNLESS(
      self.dim() == 2 && other.dim() == 2, "sparse_sparse_matmul_mps: both inputs must be 2D matrices");
  REFUSE_UNLESS(
      self.dense_dim() == 0 && other.dense_dim() == 0,
      "sparse_sparse_matmul_mps: only scalar values supported (dense_dim == 0)");
  REFUSE_UNLESS(
      self.size(1) == other.size(0), "mat1 and mat2 shapes cannot be multiplied (", self.size(0), "x", self.size(1),
      " and ", other.size(0), "x", other.size(1), ")");
  REFUSE_UNLESS(
      self.scalar_type() == other.scalar_type(), "sparse_sparse_matmul_mps: mat1 dtype ", self.scalar_type(),
      " does not match mat2 dtype ", other.scalar_type());
}

void check_mm(const Call& call) {
  const at::Tensor &self = call.tensor(0), &other = call.tensor(1);
  if (self.is_sparse() && other.is_sparse()) {
    check_matmul(self, other);
  } else if (self.is_sparse() && other.dim() == 2) {
    check_addmm(self, other, other.scalar_type());
  } else if (other.is_sparse() && self.dim() == 2) {
    check_addmm(other.transpose(0, 1), self.t(), self.scalar_type());
  }
}

// mv_sparse, the same on every device, looks at the sizes before it calls addmm.
void check_mv(const Call& call) {
  const at::Tensor &self = call.tensor(0), &vector = call.tensor(1);
  if (self.dim() == 2 && vector.dim() == 1 && self.size(1) == vector.size(0)) {
    check_addmm(self, vector.unsqueeze(-1), vector.scalar_type());
  }
}

void check_matmul_call(const Call& call) {
  check_matmul(call.tensor(0), call.tensor(1));
}

void check_bmm(const Call& call) {
  const at::Tensor &self = call.tensor(0), &other = call.tensor(1);
  REFUSE_UNLESS(
      self.dense_dim() == 0, "bmm_sparse: Tensor 'self' must have 0 dense dims, but has ", self.dense_dim());
  REFUSE_UNLESS(
      self.sparse_dim() == 3, "bmm_sparse: Tensor 'self' must have 3 sparse dims, but has ", self.sparse_dim());
  REFUSE_UNLESS(other.dim() == 3, "bmm_sparse: Tensor 'mat2' must have 3 dims, but has ", other.dim());
  REFUSE_UNLESS(self.size(0) == other.size(0), "bmm_sparse: 'self.size(0)' and 'mat2.size(0)' must match");
  REFUSE_UNLESS(self.size(2) == other.size(1), "bmm_sparse: 'self.size(2)' and 'mat2.size(1)' must match");
  if (self._nnz() == 0) {
    return;
  }
  need_kernel("spmm_bmm_coo_rows_grouped", self.scalar_type(), kNumbers);
  // The kernel is chosen by the dtype of the values, and is given float32 copies of them.
  REFUSE_UNLESS(
      self.scalar_type() == ScalarType::Float, "bmm of a sparse tensor of ", self.scalar_type(),
      ": on a Mac the kernel reads float32 copies of the values as ", self.scalar_type(),
      " (garbage). Convert both tensors to float32");
}

void check_index_select(const Call& call) {
  const at::Tensor& self = call.tensor(0);
  const at::Tensor& index = call.tensor(2);
  REFUSE_UNLESS(
      index.dim() == 1 && index.scalar_type() == ScalarType::Long && index.layout() == at::kStrided,
      "index_select() argument index must be 1-D strided (non-sparse) long-tensor.");
  if (self.dim() == 0 || index.numel() == 0) {
    return;
  }
  const int64_t dim = c10::maybe_wrap_dim(call.integer(1), self.dim());
  const int64_t size = self.size(dim);
  if (dim < self.sparse_dim() && size > 0) {
    REFUSE_UNLESS(
        index.min().item<int64_t>() >= -size && index.max().item<int64_t>() < size,
        "index_select(): index out of bounds for dimension with size ", size);
  }
}

void check_softmax(const Call& call) {
  const at::Tensor& self = call.tensor(0);
  if (self._nnz() > 0 && self.dim() > 0 && c10::maybe_wrap_dim(call.integer(1), self.dim()) < self.sparse_dim()) {
    need_kernel("softmax_sparse_forward", self.scalar_type(), kFloating);
  }
}

using Check = void (*)(const Call&);

const std::unordered_map<std::string, Check>& checks() {
  static const auto* instance = new std::unordered_map<std::string, Check>{
      {"aten::mul.Tensor", &check_mul},       {"aten::mul_.Tensor", &check_mul},
      {"aten::mul.out", &check_mul},          {"aten::add.Tensor", &check_add},
      {"aten::add_.Tensor", &check_add},      {"aten::add.out", &check_add},
      {"aten::sub.Tensor", &check_add},       {"aten::sub_.Tensor", &check_add},
      {"aten::sub.out", &check_add},          {"aten::addmm", &check_addmm_call},
      {"aten::addmm_", &check_addmm_call},    {"aten::addmm.out", &check_addmm_call},
      {"aten::mm", &check_mm},                {"aten::mm.out", &check_mm},
      {"aten::mv", &check_mv},                {"aten::bmm", &check_bmm},
      {"aten::bmm.out", &check_bmm},          {"aten::index_select", &check_index_select},
      {"aten::_sparse_sparse_matmul", &check_matmul_call},
      {"aten::_sparse_softmax", &check_softmax},
      {"aten::_sparse_log_softmax", &check_softmax},
  };
  return *instance;
}

}  // namespace

void check(const std::string& name, const c10::Stack& stack, size_t arguments) {
  const auto found = checks().find(name);
  if (found != checks().end()) {
    found->second(Call(stack, arguments));
  }
}

bool coalesces(const std::string& name, const c10::Stack& stack, size_t arguments) {
  const auto found = checks().find(name);
  if (found == checks().end() || found->second != &check_add) {
    return false;
  }
  const Call call(stack, arguments);
  const at::Tensor &self = call.tensor(0), &other = call.tensor(1);
  return self.is_sparse() && other.is_sparse() && self._nnz() > 0 && other._nnz() > 0;
}

}  // namespace simulator::sparse_checks
