// Tells Python about refusals while its frames are still there.
#include "witness.h"

#include <pybind11/pybind11.h>

#include <atomic>

namespace py = pybind11;

namespace simulator::witness {
namespace {

std::atomic<bool> wanted{false};

// Touched only with the GIL held; leaked, because operators may run while the interpreter goes away.
py::object& listener() {
  static auto* instance = new py::object;
  return *instance;
}

void set(py::object callable) {
  wanted = !callable.is_none();
  listener() = std::move(callable);
}

}  // namespace

void tell(const char* kind, const std::string& name) {
  if (!wanted || Py_IsInitialized() == 0) {
    return;
  }
  const py::gil_scoped_acquire gil;
  if (listener()) {
    const py::object called = listener();
    if (!called.is_none()) {
      called(kind, name);
    }
  }
}

void bind(py::module_& module) {
  module.def("set_witness", &set, py::arg("callable").none(true));
}

}  // namespace simulator::witness
