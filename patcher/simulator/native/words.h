// What a Mac says where the CPU's kernel, which computes here, has no such dtype.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

namespace simulator::words {

// The Metal kernels of TensorIterator, and what each reads by Metal's name: "hypot" reads "float", "half", "bfloat".
using Kernels = std::unordered_map<std::string, std::unordered_set<std::string>>;

// "zeta" of "aten::special_zeta.out", and "uchar" of "Byte"; empty for a dtype that Metal has not.
std::string kernel_name(const std::string& op);
std::string metal_name(const std::string& dtype);

// To be called once, before the first operator runs.
void set_kernels(Kernels kernels);

// Raises in a Mac's words what the CPU's kernel of `op` has said, where that is of a dtype or of the CPU. Where the Mac's
// words are not known, they are not made up. Returns for what is neither.
void reword(const std::string& op, const std::string& told, bool contiguous);

}  // namespace simulator::words
