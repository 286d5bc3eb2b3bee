// Switching between stacks.
#include "runtime.h"

#include <sys/mman.h>

#include <new>

#if !defined(__x86_64__) || defined(METAL_CPU_PORTABLE)
#include <ucontext.h>
#endif

namespace metal_cpu {

char* new_stack() {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::bad_alloc();
  }
  mprotect(memory, 4096, PROT_NONE);  // an overflow is a fault, not silent damage
  return static_cast<char*>(memory);
}

#if defined(__x86_64__) && !defined(METAL_CPU_PORTABLE)

extern "C" void metal_cpu_switch(void** save, void* stack_pointer);
asm(R"(
.text
.globl metal_cpu_switch
.type metal_cpu_switch, @function
metal_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size metal_cpu_switch, . - metal_cpu_switch
)");

void prepare(Context& context, char* stack, void (*run)()) {
  // Stacks are a power of two apart: without the shift their tops would all share the same cache sets.
  const size_t shift = (reinterpret_cast<uintptr_t>(stack) / kStackBytes * 320) & 8191 & ~size_t{63};
  auto top = reinterpret_cast<void**>(stack + kStackBytes - shift);
  *--top = nullptr;  // `run` has no caller; the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(run);
  for (int i = 0; i < 6; ++i) {
    *--top = nullptr;
  }
  context.stack_pointer = top;
}

void switch_to(Context& from, Context& to) {
  metal_cpu_switch(&from.stack_pointer, to.stack_pointer);
}

#else  // slower: each switch is two system calls

namespace {
ucontext_t& native(Context& context) {
  if (context.stack_pointer == nullptr) {
    context.stack_pointer = new ucontext_t;
  }
  return *static_cast<ucontext_t*>(context.stack_pointer);
}
}  // namespace

void prepare(Context& context, char* stack, void (*run)()) {
  ucontext_t& own = native(context);
  getcontext(&own);
  own.uc_stack.ss_sp = stack + 4096;
  own.uc_stack.ss_size = kStackBytes - 4096;
  own.uc_link = nullptr;
  makecontext(&own, run, 0);
}

void switch_to(Context& from, Context& to) {
  swapcontext(&native(from), &native(to));
}

#endif

}  // namespace metal_cpu
