// The Python module: what patcher/simulator/device.py calls.
#include "faults.h"
#include "fork.h"
#include "index_errors.h"
#include "memory_module.h"
#include "meter.h"
#include "products.h"
#include "rules.h"
#include "simulator.h"
#include "sparse.h"
#include "witness.h"

#include <ATen/ops/ones.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Storage.h>
#include <torch/csrc/StorageMethods.h>

namespace py = pybind11;

namespace {

py::dict operator_counts() {
  py::dict result;
  for (const auto& [name, count] : simulator::operator_counts()) {
    result[py::str(name)] = count;
  }
  return result;
}

// What computes matrix products in half precision.
py::dict products() {
  py::dict result;
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    result[dtype == at::kHalf ? "float16" : "bfloat16"] =
        simulator::products::in_float32(dtype) ? "float32" : "native";
  }
  return result;
}

py::object host_alias(const py::object& storage) {
  TORCH_CHECK_TYPE(THPStorage_Check(storage.ptr()), "expected a torch.UntypedStorage");
  const c10::Storage source = THPStorage_Unpack(storage.ptr());
  // MPSAllocator.mm, getHostAliasStorage
  TORCH_CHECK_VALUE(
      source.device().type() == simulator::kType,
      "getHostAliasStorage: expected an MPS storage, got device=", source.device());
  return py::reinterpret_steal<py::object>(THPStorage_Wrap(simulator::cpu_alias(source)));
}

// Returns when torch's backward thread has let go of everything that came before: it works in order, and this piece
// of work holds no Python object.
void drain_backward() {
  const py::gil_scoped_release no_gil;
  simulator::lift_memory_limits();
  at::ones({}, at::TensorOptions(simulator::kType)).set_requires_grad(true).backward();
}

}  // namespace

PYBIND11_MODULE(_simulated_mps, module) {
  module.attr("in_time") = simulator::put_hooks_in_place();
  simulator::watch_forks();
  module.def("allocator_address", [] { return reinterpret_cast<intptr_t>(&simulator::allocator()); });
  simulator::bind_memory(module);
  module.def("set_macos", &simulator::set_macos, py::arg("major"), py::arg("minor"));
  module.def("set_mac_torch", &simulator::set_mac_torch, py::arg("major"), py::arg("minor"));
  module.def("operator_counts", &operator_counts);
  module.def("reset_operator_counts", &simulator::reset_operator_counts);
  module.def("host_alias", &host_alias);
  module.def("report_error", &simulator::index_errors::keep, py::arg("told"));
  module.def("register_sparse", &simulator::register_sparse, py::arg("names"));
  module.def("fault_names", &simulator::fault_names);
  module.def("set_faults", &simulator::set_faults, py::arg("faults"));
  module.def("products", &products);
  module.def("set_products", &simulator::products::set_mode, py::arg("mode"));
  module.def("drain_backward", &drain_backward);
  simulator::meter::bind(module);
  simulator::rules::bind(module);
  simulator::witness::bind(module);
}
