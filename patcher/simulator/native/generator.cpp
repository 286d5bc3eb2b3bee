// Random numbers: an mps generator owns a CPU generator, which the CPU kernels draw from.
#include "simulator.h"

#include <ATen/CPUGeneratorImpl.h>

namespace simulator {
namespace {

class GeneratorImpl final : public c10::GeneratorImpl {
 public:
  explicit GeneratorImpl(at::Generator state)
      : c10::GeneratorImpl(simulator::device(), c10::DispatchKeySet(c10::DispatchKey::MPS)),
        state_(std::move(state)) {}

  void set_current_seed(uint64_t seed) override {
    offset_ = 0;
    state_.set_current_seed(seed);
  }
  // The Mac's generator is a Philox, which counts what it has drawn; the CPU's is a Mersenne Twister, which does not.
  // An offset skips numbers, but is not what another generator would have drawn by then.
  void set_offset(uint64_t offset) override {
    constexpr uint64_t kMost = 1000003;
    set_current_seed(current_seed());
    auto* cpu = static_cast<at::CPUGeneratorImpl*>(state_.unsafeGetGeneratorImpl());
    for (uint64_t i = 0; i < offset % kMost; ++i) {
      cpu->random();
    }
    offset_ = offset;
  }
  uint64_t get_offset() const override {
    return offset_;
  }
  uint64_t current_seed() const override {
    return state_.current_seed();
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return current_seed();
  }
  void set_state(const c10::TensorImpl& state) override {
    state_.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return state_.unsafeGetGeneratorImpl()->get_state();
  }
  const at::Generator& state() const {
    return state_;
  }

 private:
  GeneratorImpl* clone_impl() const override {
    auto* copy = new GeneratorImpl(state_.clone());
    copy->offset_ = offset_;
    return copy;
  }
  at::Generator state_;
  uint64_t offset_ = 0;
};

at::Generator make(uint64_t seed) {
  return at::make_generator<GeneratorImpl>(at::detail::createCPUGenerator(seed));
}

}  // namespace

const at::Generator& default_generator() {
  // Leaked: Python objects may hold it after static destructors have run.
  static const auto* generator = new at::Generator(make(c10::detail::getNonDeterministicRandom()));
  return *generator;
}

at::Generator new_generator() {
  return make(c10::default_rng_seed_val);
}

at::Generator cpu_generator(const std::optional<at::Generator>& generator) {
  const at::Generator& given = generator.has_value() && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(
      given.device().type() == kType,
      "Expected a 'mps' device type for generator but found '", given.device().type(), "'");
  return static_cast<const GeneratorImpl*>(given.unsafeGetGeneratorImpl())->state();
}

}  // namespace simulator
