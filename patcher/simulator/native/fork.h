// A process that was forked from one with an mps device cannot use it.
#pragma once

#include <c10/macros/Macros.h>

namespace simulator {

extern bool in_forked_child;
[[noreturn]] void refuse_in_forked_child();

// Where a Mac would touch the GPU.
inline void check_fork() {
  if (C10_UNLIKELY(in_forked_child)) {
    refuse_in_forked_child();
  }
}

// Watches for forks from now on; torch.mps._is_in_bad_fork() then answers in the child, as on a Mac.
void watch_forks();

}  // namespace simulator
