// What a Mac says where the CPU's kernel, which computes here, has no such dtype.
#include "words.h"
#include "rules.h"

#include <c10/util/Exception.h>

#include <optional>
#include <regex>
#include <vector>

namespace simulator::words {
namespace {

Kernels& kernels() {
  static auto* instance = new Kernels;  // leaked: backward threads may outlive static destructors
  return *instance;
}

// Division has kernels by the CPU's name for it.
std::vector<std::string> families(const std::string& op, const std::string& cpu_name) {
  static const auto* by_cpu_name = new std::unordered_map<std::string, std::string>{
      {"div_cpu", "div_true"}, {"div_floor_cpu", "div_floor"}, {"div_trunc_cpu", "div_trunc"}};
  const std::string base = kernel_name(op);
  const bool decimals = base == "round" && op.find(".decimals") != std::string::npos;
  const auto known = by_cpu_name->find(cpu_name);
  return {known != by_cpu_name->end() ? known->second : "", decimals ? "round_decimals" : base, base + "_forward"};
}

const Kernels::value_type* kernel_of(const std::string& op, const std::string& cpu_name) {
  for (const auto& family : families(op, cpu_name)) {
    if (const auto found = kernels().find(family); found != kernels().end()) {
      return &*found;
    }
  }
  return nullptr;
}

void reword_dtype(const std::string& op, const std::string& cpu_name, const std::string& dtype, bool contiguous) {
  const std::string metal = metal_name(dtype);
  const auto* kernel = kernel_of(op, cpu_name);
  if (kernel != nullptr && !metal.empty() && kernel->second.count(metal) == 0) {
    rules::count_refused("kernel-dtype");
    TORCH_CHECK(
        false, "Failed to create function state object for: ", kernel->first, contiguous ? "_dense_" : "_strided_",
        metal, "_", metal);
  }
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op, " is not implemented for '", dtype, "' on the simulated mps device: the kernels that it computes with"
      " lack that dtype; ", kernel != nullptr ? "a Mac's have it" : "whether a Mac's have it, or what it says, is not known");
}

}  // namespace

std::string kernel_name(const std::string& op) {
  static const std::regex decoration("^aten::_?(?:special_|linalg_)?|_?(?:\\..*)?$");
  return std::regex_replace(op, decoration, "");
}

// OperationUtils.mm, scalarToMetalTypeString.
std::string metal_name(const std::string& dtype) {
  static const auto* names = new std::unordered_map<std::string, std::string>{
      {"Bool", "bool"},     {"Byte", "uchar"},   {"Char", "char"},     {"Short", "short"},       {"Int", "int"},
      {"Long", "long"},     {"UInt16", "ushort"}, {"UInt32", "uint"},  {"UInt64", "ulong"},      {"Half", "half"},
      {"Float", "float"},   {"BFloat16", "bfloat"}, {"ComplexHalf", "half2"}, {"ComplexFloat", "float2"}};
  const auto found = names->find(dtype);
  return found == names->end() ? "" : found->second;
}

void set_kernels(Kernels given) {
  kernels() = std::move(given);
}

void reword(const std::string& op, const std::string& told, bool contiguous) {
  static const std::regex of_dtype("\"(\\S+)\" not implemented for '(\\w+)'");
  static const std::regex of_type("\\bCPU(\\w+Type)\\b");
  std::smatch found;
  if (std::regex_search(told, found, of_dtype) && found[1] != "check_uniform_bounds") {  // which every device says
    reword_dtype(op, found[1], found[2], contiguous);
  }
  if (std::regex_search(told, of_type)) {
    TORCH_CHECK(false, std::regex_replace(told, of_type, "MPS$1"));
  }
  TORCH_CHECK(
      told.find("on CPU") == std::string::npos, op, " on the simulated mps device: the kernels that it computes with say \"",
      told, "\"; what a Mac says is not known");
}

}  // namespace simulator::words
