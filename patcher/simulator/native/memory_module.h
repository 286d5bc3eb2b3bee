#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace simulator {

void bind_memory(pybind11::module_& module);

}  // namespace simulator
