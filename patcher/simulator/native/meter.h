// An account of what runs on the simulated device: dispatches, bytes, FLOPs, by operator, module and phase, and memory
// over time. Off until `start`; then every kernel that a Mac would launch is put down.
#pragma once

#include "simulator.h"

#include <array>
#include <atomic>

namespace pybind11 {
class module_;
}

namespace simulator::meter {

// The type that a kernel computes in: the widest floating one among its tensors.
enum class Arithmetic : uint8_t { kNone, kFloat16, kBFloat16, kFloat32 };
enum class Phase : uint8_t { kOther, kForward, kBackward, kOptimizer };

struct Sums {
  uint64_t dispatches = 0;
  uint64_t read = 0;     // bytes
  uint64_t written = 0;  // bytes
  uint64_t flops = 0;
};

extern std::atomic<bool> active;
// The price of a meter that is off.
inline bool on() {
  return active.load(std::memory_order_relaxed);
}

// ---- how much (meter_cost.cpp) -----------------------------------------------------------------------------------

// Bytes of the distinct elements of a tensor: an expanded dimension is one element long.
uint64_t touched(const at::Tensor& tensor);

// What is worked out once per operator.
struct Cost {
  enum class Flops : uint8_t { kNone, kPerOutput, kPerInput, kMatmul, kConvolution, kConvolutionBackward, kLinearBackward };
  enum class Access : uint8_t { kWhole, kGather, kScatter };
  Flops flops = Flops::kPerOutput;
  uint64_t factor = 1;           // FLOPs per element
  Access access = Access::kWhole;
  bool is_free = false;          // no kernel: views, allocation
  bool keeps_nothing = false;    // an in-place operator that does not read what it overwrites
  bool synchronizes = false;     // the host waits for the result
};
Cost cost_of(const c10::OperatorHandle& op);
// FLOPs as torch.utils.flop_counter counts them: two for a multiply-add, none for the bias.
uint64_t matmul_flops(const at::Tensor& left, uint64_t columns);
uint64_t convolution_flops(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& output, bool transposed);

// ---- the account (meter.cpp) -------------------------------------------------------------------------------------

struct Operation;  // an operator, or a kernel of the simulator's own

// One dispatch. What runs between construction and `finish` is part of it. Without `finish` (an exception) nothing is
// put down.
class Kernel {
 public:
  // Of an operator, whose arguments lie on top of the stack; `on_host` where a Mac sends it to the CPU.
  Kernel(const c10::OperatorHandle& op, const c10::Stack& stack, bool on_host = false);
  explicit Kernel(const char* name);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  void reads(const at::Tensor& tensor);
  void writes(const at::Tensor& tensor);
  void add_flops(uint64_t flops) {
    sums_.flops += flops;
  }
  // The results lie on top of the stack.
  void finish(const c10::OperatorHandle& op, const c10::Stack& stack);
  void finish();

 private:
  struct Touched {
    const c10::StorageImpl* storage;
    int64_t offset;
    uint64_t bytes;
  };
  void argument(const c10::Argument& declared, const c10::IValue& value);
  void tensor_argument(const c10::Argument& declared, const at::Tensor& tensor);
  void results(const c10::IValue& value);
  void work(const c10::FunctionSchema& schema, const c10::Stack& stack, size_t first);
  void linear_backward(const c10::Stack& stack, size_t first);
  void access_rows();
  void put_down();

  Kernel* enclosing_;
  const Operation& operation_;
  Sums sums_;
  Arithmetic arithmetic_ = Arithmetic::kNone;
  bool synchronizes_;
  bool on_host_;
  uint64_t launches_ = 1;        // of kernels, by this one operator
  bool has_view_ = false;        // a result is an argument's own memory
  bool has_parts_ = false;       // other kernels ran inside
  uint64_t largest_read_ = 0;    // elements
  uint64_t output_elements_ = 0;
  c10::SmallVector<Touched, 6> read_;
  c10::SmallVector<Touched, 6> written_;
};

// A kernel of torch.mps.compile_shader. Its FLOPs are not known.
void shader(const std::string& name, uint64_t read, uint64_t written, Arithmetic arithmetic);
// A copy that has happened: a kernel on the device, or a transfer between host and device, which is not a dispatch.
void copied(const at::Tensor& destination, const at::Tensor& source, bool non_blocking);
// One number for the host, which waits for it.
void read_by_host(const at::Tensor& scalar);
void synchronized();
void convolution(
    const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& output,
    bool transposed);
void convolution_backward(
    const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight,
    const std::array<at::Tensor, 3>& grads, bool transposed);
// From the allocator: bytes held now.
void allocated(int64_t current, int64_t driver);

// Modules are numbers here; 0 is no module. Forward calls nest per thread.
void enter_module(uint32_t module);
void leave_module(uint32_t module);
// A parameter's own module, for what is added up into its gradient.
void owns(uint32_t module, const at::Tensor& parameter);
void enter_optimizer();
void leave_optimizer();

struct Row {
  std::string op;
  uint32_t module;
  Phase phase;
  Arithmetic arithmetic;
  Sums sums;
  Sums steps;  // from the end of the first step to the end of the latest
};
struct Point {
  uint64_t dispatches;  // so far
  int64_t bytes;        // the most that was held since the point before
};
struct Copies {
  uint64_t to_device = 0, to_device_bytes = 0, to_host = 0, to_host_bytes = 0;
};
struct Totals {
  Sums sums;
  Copies copies;
  uint64_t synchronizations = 0;
  int64_t peak = 0;
  int64_t peak_driver = 0;
  int64_t recent_peak = 0;  // since the latest step ended
};

void bind(pybind11::module_& module);  // meter_module.cpp
void start();
void stop();
Totals totals();
void end_step();
std::vector<Row> rows();
std::vector<Point> points();

}  // namespace simulator::meter
