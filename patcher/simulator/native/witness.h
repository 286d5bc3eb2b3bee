// Tells Python about every call that a Mac refuses or sends to the CPU, at the moment of the call, while the Python
// frames that led to it are still there.
#pragma once

#include <string>

namespace pybind11 {
class module_;
}

namespace simulator::witness {

// `kind` is "float64", "missing", "fell_back" or "refused"; `name` is the operator's or the rule's. To be called without
// a lock held: it takes the GIL and runs Python. Does nothing where nobody has asked.
void tell(const char* kind, const std::string& name);

// set_witness(callable or None), called as callable(kind, name).
void bind(pybind11::module_& module);

}  // namespace simulator::witness
