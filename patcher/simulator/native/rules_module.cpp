// The Python face of the rules.
#include "rules.h"
#include "words.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Dtype.h>

namespace py = pybind11;

namespace simulator::rules {
namespace {

uint64_t bits_of(const py::handle& dtypes) {
  uint64_t bits = 0;
  for (const py::handle& dtype : dtypes) {
    TORCH_CHECK_TYPE(THPDtype_Check(dtype.ptr()), "expected a torch.dtype");
    bits |= uint64_t{1} << static_cast<int>(reinterpret_cast<THPDtype*>(dtype.ptr())->scalar_type);
  }
  return bits;
}

Rule rule_of(const py::dict& fields) {
  Rule rule;
  rule.name = fields["name"].cast<std::string>();
  rule.error = fields["error"].cast<std::string>();
  rule.message = fields["message"].cast<std::string>();
  rule.arguments = fields["arguments"].cast<std::vector<std::string>>();
  rule.dtypes = bits_of(fields["dtypes"]);
  rule.dim_over = fields["dim_over"].cast<int64_t>();
  rule.size_over = fields["size_over"].cast<int64_t>();
  rule.numel_over = fields["numel_over"].cast<int64_t>();
  rule.sides_over = fields["sides_over"].cast<int64_t>();
  rule.matrix_bytes_over = fields["matrix_bytes_over"].cast<int64_t>();
  rule.unequal_dim = fields["unequal_dim"].cast<int64_t>();
  rule.divisible = fields["divisible"].cast<std::string>();
  rule.mixed = fields["mixed"].cast<bool>();
  rule.channels_last = fields["channels_last"].cast<bool>();
  rule.except = fields["except_"].cast<std::vector<std::string>>();
  rule.before_macos = fields["before_macos"].cast<unsigned>();
  rule.when = fields["when"].cast<std::string>();
  rule.equals = fields["equals"].cast<std::string>();
  return rule;
}

void load(
    const std::vector<std::string>& present,
    const std::vector<std::string>& on_cpu,
    const py::list& refusals,
    const std::string& commit,
    bool cpu_fallback,
    words::Kernels kernels) {
  Data data;
  data.present.insert(present.begin(), present.end());
  data.on_cpu.insert(on_cpu.begin(), on_cpu.end());
  for (const py::handle& item : refusals) {
    const auto fields = item.cast<py::dict>();
    const Rule rule = rule_of(fields);
    for (const py::handle& op : fields["operators"]) {
      data.refusals[op.cast<std::string>()].push_back(rule);
    }
  }
  data.commit = commit;
  data.cpu_fallback = cpu_fallback;
  set_data(std::move(data));
  words::set_kernels(std::move(kernels));
  register_direct();
  guard_composites();
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "load_rules", &load, py::arg("present"), py::arg("on_cpu"), py::arg("refusals"), py::arg("commit"),
      py::arg("cpu_fallback"), py::arg("kernels"));
  module.def("set_cpu_fallback", &set_cpu_fallback);
  module.def("cpu_fallback", &cpu_fallback);
  module.def("rules_missing", &missing);
  module.def("rules_fell_back", &fell_back);
  module.def("rules_refused", &refused);
  module.def("rules_float64", &float64_attempts);
  module.def("rules_reset", &reset);
}

}  // namespace simulator::rules
