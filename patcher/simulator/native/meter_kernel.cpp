// One dispatch: what it reads, writes and computes.
#include "meter_account.h"

#include <algorithm>

namespace simulator::meter {
namespace {

Arithmetic arithmetic_of(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Half:
    case c10::ScalarType::ComplexHalf:
      return Arithmetic::kFloat16;
    case c10::ScalarType::BFloat16:
      return Arithmetic::kBFloat16;
    case c10::ScalarType::Float:
    case c10::ScalarType::ComplexFloat:
      return Arithmetic::kFloat32;
    default:
      return Arithmetic::kNone;
  }
}

}  // namespace

Kernel::Kernel(const c10::OperatorHandle& op, const c10::Stack& stack, bool on_host)
    : enclosing_(here().kernel),
      operation_(operation_of(op)),
      synchronizes_(operation_.cost.synchronizes),
      on_host_(on_host) {
  here().kernel = this;
  if (operation_.cost.is_free) {
    return;
  }
  const auto& declared = op.schema().arguments();
  const size_t first = stack.size() - declared.size();
  for (size_t i = 0; i < declared.size(); ++i) {
    argument(declared[i], stack[first + i]);
  }
  work(op.schema(), stack, first);
}

Kernel::Kernel(const char* name)
    : enclosing_(here().kernel), operation_(own_operation(name)), synchronizes_(false), on_host_(false) {
  here().kernel = this;
}

Kernel::~Kernel() {
  here().kernel = enclosing_;
}

void Kernel::argument(const c10::Argument& declared, const c10::IValue& value) {
  if (value.isTensor()) {
    tensor_argument(declared, value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorList()) {
      tensor_argument(declared, tensor);
    }
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
      if (tensor.has_value()) {
        tensor_argument(declared, *tensor);
        // The host counts the true ones before it can launch the rest (native/mps/operations/Indexing.mm).
        const bool is_mask = tensor->defined() &&
            (tensor->scalar_type() == c10::ScalarType::Bool || tensor->scalar_type() == c10::ScalarType::Byte);
        synchronizes_ = synchronizes_ || is_mask;
      }
    }
  }
}

void Kernel::tensor_argument(const c10::Argument& declared, const at::Tensor& tensor) {
  if (!is_mps(tensor)) {
    return;
  }
  // The fused optimizers declare that they write the gradients: only where a GradScaler's scale is to be taken out.
  const bool is_written =
      declared.alias_info() != nullptr && declared.alias_info()->isWrite() && declared.name() != "grads";
  if (is_written) {
    writes(tensor);
  }
  if (!is_written || !(declared.is_out() || operation_.cost.keeps_nothing)) {
    reads(tensor);
  }
}

void Kernel::reads(const at::Tensor& tensor) {
  if (!is_mps(tensor) || !tensor.has_storage()) {
    return;
  }
  const auto dtype = arithmetic_of(tensor.scalar_type());
  arithmetic_ = std::max(arithmetic_, dtype);
  const uint64_t bytes = touched(tensor);
  const auto* storage = tensor.storage().unsafeGetStorageImpl();
  const bool is_known = std::any_of(read_.begin(), read_.end(), [&](const Touched& known) {
    return known.storage == storage && known.offset == tensor.storage_offset() && known.bytes == bytes;
  });
  if (!is_known) {
    read_.push_back({storage, tensor.storage_offset(), bytes});
    largest_read_ = std::max(largest_read_, static_cast<uint64_t>(tensor.numel()));
  }
}

void Kernel::writes(const at::Tensor& tensor) {
  if (!is_mps(tensor) || !tensor.has_storage()) {
    return;
  }
  arithmetic_ = std::max(arithmetic_, arithmetic_of(tensor.scalar_type()));
  written_.push_back({tensor.storage().unsafeGetStorageImpl(), tensor.storage_offset(), touched(tensor)});
  output_elements_ += static_cast<uint64_t>(tensor.numel());
}

void Kernel::results(const c10::IValue& value) {
  if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorList()) {
      results(tensor);
    }
  }
  if (!value.isTensor() || !is_mps(value.toTensor()) || !value.toTensor().has_storage()) {
    return;
  }
  const at::Tensor& tensor = value.toTensor();
  const auto is_same = [storage = tensor.storage().unsafeGetStorageImpl()](const Touched& known) {
    return known.storage == storage;
  };
  if (std::any_of(written_.begin(), written_.end(), is_same)) {
    return;
  }
  if (std::any_of(read_.begin(), read_.end(), is_same)) {
    has_view_ = true;
  } else {
    writes(tensor);
  }
}

void Kernel::work(const c10::FunctionSchema& schema, const c10::Stack& stack, size_t first) {
  if (operation_.cost.flops == Cost::Flops::kLinearBackward) {
    linear_backward(stack, first);
    return;
  }
  if (operation_.cost.flops != Cost::Flops::kMatmul) {
    return;
  }
  const auto& arguments = schema.arguments();
  // What is added comes first: addmm(self, mat1, mat2), but mm(self, mat2).
  const bool adds = schema.name().find("add") != std::string::npos;
  const at::Tensor& left = stack[first + adds].toTensor();
  const at::Tensor& right = stack[first + adds + 1].toTensor();
  const bool is_linear = arguments[1].name() == "weight";
  const int64_t columns = right.dim() == 1 ? 1 : (is_linear ? right.size(0) : right.size(-1));
  add_flops(matmul_flops(left, static_cast<uint64_t>(columns)));
}

// linear_backward(self, grad_output, weight, output_mask): a product, a product and a sum
// (ATen/native/mps/operations/Linear.mm).
void Kernel::linear_backward(const c10::Stack& stack, size_t first) {
  const at::Tensor &input = stack[first].toTensor(), &gradient = stack[first + 1].toTensor();
  const at::Tensor& weight = stack[first + 2].toTensor();
  const auto wanted = stack[first + 3].toBoolList();
  const uint64_t product = matmul_flops(input, weight.dim() == 1 ? 1 : static_cast<uint64_t>(weight.size(0)));
  add_flops((wanted.get(0) ? product : 0) + (wanted.get(1) ? product : 0));
  add_flops(wanted.get(2) ? static_cast<uint64_t>(gradient.numel()) : 0);
  launches_ = static_cast<uint64_t>(wanted.get(0)) + wanted.get(1) + wanted.get(2);
}

// What is picked by index is touched only where it is picked. The tensor picked from comes first.
void Kernel::access_rows() {
  const auto sum = [](const auto& list) {
    uint64_t bytes = 0;
    for (const Touched& one : list) {
      bytes += one.bytes;
    }
    return bytes;
  };
  if (operation_.cost.access == Cost::Access::kGather && !read_.empty()) {
    read_[0].bytes = std::min(read_[0].bytes, sum(written_));
  } else if (operation_.cost.access == Cost::Access::kScatter && !written_.empty() && !read_.empty()) {
    // read_[0] is the tensor itself; the last is what is put in.
    const uint64_t put = read_.size() > 1 ? read_.back().bytes : read_[0].bytes;
    written_[0].bytes = std::min(written_[0].bytes, put);
    read_[0].bytes = std::min(read_[0].bytes, put);
  }
}

void Kernel::finish(const c10::OperatorHandle& op, const c10::Stack& stack) {
  if (operation_.cost.is_free) {
    return;
  }
  for (size_t i = stack.size() - op.schema().returns().size(); i < stack.size(); ++i) {
    results(stack[i]);
  }
  if (written_.empty() && has_view_) {
    return;
  }
  if (operation_.cost.flops == Cost::Flops::kPerInput) {
    add_flops(operation_.cost.factor * largest_read_);
  } else if (operation_.cost.flops == Cost::Flops::kPerOutput) {
    add_flops(operation_.cost.factor * output_elements_);
  }
  access_rows();
  put_down();
}

void Kernel::finish() {
  put_down();
}

void Kernel::put_down() {
  if (!has_parts_ && output_elements_ == 0 && (!written_.empty() || read_.empty())) {
    if (synchronizes_) {
      synchronized();
    }
    return;  // nothing to compute: no kernel is launched
  }
  for (const auto& one : read_) {
    sums_.read += one.bytes;
  }
  for (const auto& one : written_) {
    sums_.written += one.bytes;
  }
  if (arithmetic_ == Arithmetic::kNone) {
    sums_.flops = 0;  // integers
  }
  if (enclosing_ != nullptr) {
    sums_.dispatches = 0;
    add(enclosing_->sums_, sums_);
    enclosing_->has_parts_ = true;
    enclosing_->arithmetic_ = std::max(enclosing_->arithmetic_, arithmetic_);
    enclosing_->synchronizes_ = enclosing_->synchronizes_ || synchronizes_;
    return;
  }
  if (on_host_) {
    ran_on_host(read_.size(), sums_.read, written_.size(), sums_.written);
    return;
  }
  sums_.dispatches = launches_;
  charge(operation_, sums_, arithmetic_, synchronizes_);
}

void convolution(
    const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& output,
    bool transposed) {
  Kernel kernel("aten::convolution_overrideable");
  kernel.reads(input);
  kernel.reads(weight);
  if (bias.has_value()) {
    kernel.reads(*bias);
  }
  kernel.writes(output);
  kernel.add_flops(convolution_flops(input, weight, output, transposed));
  kernel.finish();
}

void convolution_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight,
    const std::array<at::Tensor, 3>& grads, bool transposed) {
  // The same multiplications as in the forward, once for each gradient.
  const uint64_t flops = convolution_flops(input, weight, grad_output, transposed);
  const char* const names[] = {"input", "weight", "bias"};
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) {
      continue;
    }
    Kernel kernel((std::string("aten::convolution_backward_overrideable.") + names[i]).c_str());
    kernel.reads(grad_output);
    if (i == 0) {
      kernel.reads(weight);
    } else if (i == 1) {
      kernel.reads(input);
    }
    kernel.writes(grads[i]);
    kernel.add_flops(i < 2 ? flops : static_cast<uint64_t>(grad_output.numel()));
    kernel.finish();
  }
}

}  // namespace simulator::meter
