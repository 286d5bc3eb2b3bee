// Operators whose kernel on a Mac gives other numbers than the CPU's, by an order of work that its source shows.
#pragma once

#include <ATen/core/stack.h>

#include <cstddef>
#include <functional>
#include <string>

namespace simulator::numbers {

// What is done to the results of torch's CPU kernel, which are on top of the stack; empty for nothing.
using After = std::function<void(c10::Stack*)>;
// Looks at the arguments of a call, which are on the CPU and on top of the stack, before that kernel runs.
using Before = After (*)(const c10::Stack& stack, size_t count);

// By an operator's name without its overload, such as "aten::sort"; null where a Mac's numbers are taken for the CPU's.
Before of(const std::string& name);

}  // namespace simulator::numbers
