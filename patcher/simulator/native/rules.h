// What a Mac's mps device refuses, and what it sends to the CPU.
//
// The rules are data (patcher/simulator/rules/); they are worked out once per operator, when it runs first.
#pragma once

#include "simulator.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace pybind11 {
class module_;
}

namespace simulator::rules {

using Counts = std::map<std::string, uint64_t>;

// A call that a Mac refuses. Every condition that is set must hold, for one tensor on mps among the arguments.
struct Rule {
  std::string name;
  std::string error;          // Python's name of the exception; "UserWarning": it is said once, and the CPU computes
  std::string message;        // {op}, {name}, {metal} (see words.h), {argument}, {dtype}, {dtypes}, {size}, {numel},
                              // {dim}, {bytes}, {twice_bytes} (of a matrix) are filled in
  std::vector<std::string> arguments;  // names of those that are looked at; none: every tensor
  uint64_t dtypes = 0;        // one bit per ScalarType; 0: any
  int64_t dim_over = -1;      // more dimensions than this
  int64_t size_over = -1;     // a dimension longer than this
  int64_t numel_over = -1;    // more elements than this
  int64_t sides_over = -1;    // matrices of which both sides are longer than this
  int64_t matrix_bytes_over = -1;  // matrices of more bytes than this
  int64_t unequal_dim = -1;   // the looked-at tensors differ in the size of this dimension
  std::string divisible;      // name of a list of sizes: they and the last sizes of the tensor must divide each other
  bool mixed = false;         // floating point tensors of more than one dtype among the looked-at arguments
  bool channels_last = false; // four dimensions, the channels next to each other
  std::vector<std::string> except;  // operators that a rule of every operator is not for
  unsigned before_macos = 0;  // major * 100 + minor
  std::string when;           // name of another argument ...
  std::string equals;         // ... and its value, as text; or "complex", "negative", "nonzero"
};

// What is known of one operator.
struct Verdict {
  bool missing = false;   // no mps kernel: NotImplementedError, or the CPU under PYTORCH_ENABLE_MPS_FALLBACK
  bool on_cpu = false;    // always on the CPU, with the warning
  uint64_t watched = 0;   // dtypes that some rule refuses
  bool mixed = false;
  bool sizes = false;
  std::vector<Rule> rules;
};

struct Data {
  std::unordered_set<std::string> present;  // operators with an mps kernel, with their namespace
  std::unordered_set<std::string> on_cpu;
  std::unordered_map<std::string, std::vector<Rule>> refusals;  // "*": of every operator
  std::string commit;
  bool cpu_fallback = false;
};

// To be called once, before the first operator runs.
void set_data(Data data);
void set_cpu_fallback(bool enabled);
bool cpu_fallback();

bool is_present(const c10::OperatorHandle& op);
// Null where the operator has no rule.
std::unique_ptr<const Verdict> verdict(const c10::OperatorHandle& op);
// Throws what a Mac throws; counts and warns where the operator goes to the CPU, and returns whether it does.
bool check(const Verdict& verdict, const c10::OperatorHandle& op, const c10::Stack& stack);
// A copy converts on the GPU where its source is there, which does not know float8.
void check_copy(const at::Tensor& destination, const at::Tensor& source);
// NotImplementedError in the Mac's words.
[[noreturn]] void throw_missing(const c10::OperatorHandle& op);
// Registers a check in front of composite operators that have a kernel of their own on a Mac.
void guard_composites();

// Of attempts since the start or the last reset.
Counts missing();
Counts fell_back();
Counts refused();
uint64_t float64_attempts();
void count_float64();
void count_refused(const std::string& rule);
void reset();

// rules_module.cpp: the functions that patcher/simulator/rules/__init__.py calls.
void bind(pybind11::module_& module);

}  // namespace simulator::rules
