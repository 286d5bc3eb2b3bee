// Matrix products in half precision, on hosts whose CPU has none.
#include "products.h"

#include <ATen/Context.h>

#include <algorithm>
#include <atomic>
#include <unordered_set>
#include <utility>

namespace simulator::products {
namespace {

enum class Mode { host, native, float32 };
std::atomic<Mode> chosen{Mode::host};

bool half(c10::ScalarType dtype) {
  return dtype == c10::ScalarType::Half || dtype == c10::ScalarType::BFloat16;
}

bool ask_torch(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<bool()>().call();
}

// torch 2.13, aten/src/ATen/native/mkldnn/Utils.h, mkldnn_bf16_device_check and mkldnn_fp16_device_check; whether
// torch.backends.mkldnn is on may change at any time.
bool host_has(c10::ScalarType dtype) {
  static const bool bf16 = ask_torch("mkldnn::_is_mkldnn_bf16_supported");
  static const bool fp16 = ask_torch("mkldnn::_is_mkldnn_fp16_supported");
  return at::globalContext().userEnabledMkldnn() && (dtype == c10::ScalarType::BFloat16 ? bf16 : fp16);
}

}  // namespace

bool is_product(const c10::OperatorHandle& op) {
  static const auto* names = new std::unordered_set<std::string>{
      "aten::addbmm", "aten::addbmm_", "aten::addmm", "aten::addmm_", "aten::addmv", "aten::addmv_", "aten::baddbmm",
      "aten::baddbmm_", "aten::bmm", "aten::dot", "aten::linear", "aten::linear_backward", "aten::mm", "aten::vdot"};
  return names->count(op.schema().name()) != 0;
}

bool in_float32(c10::ScalarType dtype) {
  if (!half(dtype)) {
    return false;
  }
  const Mode mode = chosen.load(std::memory_order_relaxed);
  return mode == Mode::host ? !host_has(dtype) : mode == Mode::float32;
}

void set_mode(const std::string& mode) {
  TORCH_CHECK_VALUE(
      mode == "host" || mode == "native" || mode == "float32", "expected host, native or float32, got ", mode);
  chosen = mode == "host" ? Mode::host : mode == "native" ? Mode::native : Mode::float32;
}

Operands::Operands(std::initializer_list<at::Tensor> given) : dtype_(given.begin()->scalar_type()) {
  wide_ = in_float32(dtype_) && std::all_of(given.begin(), given.end(), [this](const at::Tensor& tensor) {
            return !tensor.defined() || tensor.scalar_type() == dtype_;
          });
}

at::Tensor Operands::widen(const at::Tensor& operand) const {
  return wide_ && operand.defined() && operand.scalar_type() == dtype_ ? operand.to(at::kFloat) : operand;
}

at::Tensor Operands::round(at::Tensor result) const {
  return wide_ && result.defined() ? result.to(dtype_) : std::move(result);
}

}  // namespace simulator::products
