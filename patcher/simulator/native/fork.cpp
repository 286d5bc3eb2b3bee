#include "fork.h"

#include "simulator.h"

#include <c10/util/Exception.h>
#include <pthread.h>
#include <torch/csrc/utils/device_lazy_init.h>

namespace simulator {

bool in_forked_child = false;

void refuse_in_forked_child() {
  TORCH_CHECK(
      false,
      "the mps device was used in a forked child process. A Mac hangs here, or kills the process without a message"
      " (SIGSEGV, XPC_ERROR_CONNECTION_INVALID): Metal does not survive fork(). Start the process with the 'spawn'"
      " method (DataLoader: num_workers=0, or multiprocessing_context=\"spawn\"), or keep the child to CPU tensors.");
}

void watch_forks() {
  torch::utils::register_fork_handler_for_device_init(kType);
  pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });
}

}  // namespace simulator
