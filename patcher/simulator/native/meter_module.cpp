// What patcher/simulator/meter.py calls.
#include "meter.h"

#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>

namespace py = pybind11;

namespace simulator::meter {
namespace {

py::dict all_totals() {
  const Totals now = totals();
  py::dict result;
  result["dispatches"] = now.sums.dispatches;
  result["bytes_read"] = now.sums.read;
  result["bytes_written"] = now.sums.written;
  result["flops"] = now.sums.flops;
  result["to_device"] = now.copies.to_device;
  result["to_device_bytes"] = now.copies.to_device_bytes;
  result["to_host"] = now.copies.to_host;
  result["to_host_bytes"] = now.copies.to_host_bytes;
  result["synchronizations"] = now.synchronizations;
  result["peak"] = now.peak;
  result["peak_driver"] = now.peak_driver;
  result["recent_peak"] = now.recent_peak;
  return result;
}

py::tuple as_tuple(const Sums& sums) {
  return py::make_tuple(sums.dispatches, sums.read, sums.written, sums.flops);
}

py::list all_rows() {
  py::list result;
  for (const auto& row : rows()) {
    result.append(py::make_tuple(
        row.op, row.module, static_cast<int>(row.phase), static_cast<int>(row.arithmetic), as_tuple(row.sums),
        as_tuple(row.steps)));
  }
  return result;
}

py::list all_points() {
  py::list result;
  for (const auto& point : points()) {
    result.append(py::make_tuple(point.dispatches, point.bytes));
  }
  return result;
}

void parameter_of(uint32_t module, const py::object& parameter) {
  TORCH_CHECK_TYPE(THPVariable_Check(parameter.ptr()), "expected a tensor");
  owns(module, THPVariable_Unpack(parameter.ptr()));
}

}  // namespace

void bind(pybind11::module_& module) {
  module.def("meter_start", &start);
  module.def("meter_stop", &stop);
  module.def("meter_totals", &all_totals);
  module.def("meter_rows", &all_rows);
  module.def("meter_points", &all_points);
  module.def("meter_end_step", &end_step);
  module.def("meter_enter_module", &enter_module);
  module.def("meter_leave_module", &leave_module);
  module.def("meter_owns", &parameter_of);
  module.def("meter_enter_optimizer", &enter_optimizer);
  module.def("meter_leave_optimizer", &leave_optimizer);
  module.def("meter_shader", [](const std::string& name, uint64_t read, uint64_t written, int arithmetic) {
    if (on()) {
      shader(name, read, written, static_cast<Arithmetic>(arithmetic));
    }
  });
}

}  // namespace simulator::meter
