// What Python sees of the device's memory, and the allocator's bookkeeping by itself, for its tests.
#include "memory_module.h"

#include "heaps.h"
#include "memory.h"

#include <unordered_map>

namespace py = pybind11;

namespace simulator {
namespace {

py::dict memory() {
  const auto stats = memory_stats();
  py::dict result;
  result["current"] = stats.current;
  result["peak"] = stats.peak;
  result["blocks"] = stats.blocks;
  result["limit"] = stats.limit;
  result["allocated"] = stats.allocated;
  result["peak_allocated"] = stats.peak_allocated;
  result["driver"] = stats.driver;
  result["peak_driver"] = stats.peak_driver;
  result["heaps"] = stats.heaps;
  result["cached_buffers"] = stats.cached_buffers;
  result["refused"] = stats.refused;
  return result;
}

// Buffers are named by number.
class Bookkeeping {
 public:
  Bookkeeping(
      std::pair<unsigned, unsigned> torch, size_t working_set, size_t longest_buffer, double high, double low)
      : heaps_(make_heaps(torch)) {
    heaps_->set_device(working_set, longest_buffer);
    heaps_->set_high_watermark(high);
    heaps_->set_low_watermark(low);
  }
  std::pair<uint64_t, size_t> allocate(size_t bytes, bool scalar) {
    Buffer* buffer = heaps_->allocate(bytes, scalar);
    buffers_[buffer->id] = buffer;
    return {buffer->id, buffer->size};
  }
  void free(uint64_t id) {
    heaps_->free(buffers_.at(id));
    buffers_.erase(id);
  }
  void empty_cache() {
    heaps_->empty_cache();
  }
  void set_high_watermark(double ratio) {
    heaps_->set_high_watermark(ratio);
  }
  std::string out_of_memory(size_t size) const {
    return heaps_->out_of_memory(size);
  }
  py::dict stats() const {
    py::dict result;
    result["allocated"] = heaps_->allocated.current;
    result["driver"] = heaps_->driver();
    result["heaps"] = heaps_->heap_count();
    result["cached_buffers"] = heaps_->cached_count();
    return result;
  }

 private:
  std::unique_ptr<Heaps> heaps_;
  std::unordered_map<uint64_t, Buffer*> buffers_;
};

}  // namespace

void bind_memory(py::module_& module) {
  module.def(
      "set_memory_limits", &set_memory_limits, py::arg("recommended"), py::arg("longest_buffer"), py::arg("high"),
      py::arg("low"));
  module.def("memory", &memory);
  module.def("reset_peak_memory", &reset_peak_memory);
  py::class_<Bookkeeping>(module, "Bookkeeping")
      .def(
          py::init<std::pair<unsigned, unsigned>, size_t, size_t, double, double>(), py::arg("torch"),
          py::arg("working_set"), py::arg("longest_buffer"), py::arg("high"), py::arg("low"))
      .def("allocate", &Bookkeeping::allocate, py::arg("bytes"), py::arg("scalar") = false)
      .def("free", &Bookkeeping::free)
      .def("empty_cache", &Bookkeeping::empty_cache)
      .def("set_high_watermark", &Bookkeeping::set_high_watermark)
      .def("out_of_memory", &Bookkeeping::out_of_memory)
      .def("stats", &Bookkeeping::stats);
}

}  // namespace simulator
