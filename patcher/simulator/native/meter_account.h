// What the account of a run (meter.cpp) and the one who fills it (meter_kernel.cpp) share.
#pragma once

#include "meter.h"

namespace simulator::meter {

struct Operation {
  uint32_t id;
  std::string name;
  Cost cost;
};

const Operation& operation_of(const c10::OperatorHandle& op);
// A kernel of the simulator's own.
const Operation& own_operation(const std::string& name);

struct Thread {
  uint64_t epoch = 0;
  std::vector<uint32_t> modules;
  int optimizers = 0;
  Kernel* kernel = nullptr;
};

Thread& here();

void add(Sums& to, const Sums& sums);
// Puts a kernel down for the module and phase that this thread is in.
void charge(const Operation& operation, const Sums& sums, Arithmetic arithmetic, bool waits);
// An operator without a kernel for mps: its arguments go to the host, its results come back, and both sides wait.
void ran_on_host(size_t arguments, uint64_t read, size_t results, uint64_t written);

}  // namespace simulator::meter
