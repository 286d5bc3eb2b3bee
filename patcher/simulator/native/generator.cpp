// Random numbers: an mps generator owns a CPU generator, which the CPU kernels draw from.
#include "simulator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Utils.h>

#include <cstring>
#include <map>

namespace simulator {
namespace {

// Of 32 bits, in one step of a Philox.
constexpr uint64_t kNumbers = 4;

// The Mac's generator is a Philox, whose numbers follow from a seed and an offset, which counts what was drawn (four
// numbers of 32 bits each); the CPU's is a Mersenne Twister, which does not count. So its state is kept wherever an
// offset was asked for; of another offset the numbers are those that as many draws of uniform numbers would have left.
class GeneratorImpl final : public c10::GeneratorImpl {
 public:
  explicit GeneratorImpl(at::Generator state)
      : c10::GeneratorImpl(simulator::device(), c10::DispatchKeySet(c10::DispatchKey::MPS)),
        state_(std::move(state)) {}

  void set_current_seed(uint64_t seed) override {
    offset_ = 0;
    kept_.clear();
    state_.set_current_seed(seed);
  }
  void set_offset(uint64_t offset) override {
    const auto kept = kept_.find(offset);
    if (kept != kept_.end()) {
      twister().set_state(*kept->second);
    } else {
      skip(offset);
    }
    offset_ = offset;
  }
  uint64_t get_offset() const override {
    if (kept_.size() >= kKept) {
      kept_.erase(kept_.begin());
    }
    kept_.insert_or_assign(offset_, twister().get_state());
    return offset_;
  }
  void advance(uint64_t draws) {
    offset_ += draws;
  }
  uint64_t current_seed() const override {
    return state_.current_seed();
  }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom());
    return current_seed();
  }
  // The CPU's state and the offset: longer than a Mac's, and like it of another size than the CPU's.
  void set_state(const c10::TensorImpl& state) override {
    at::detail::check_rng_state(state);
    const at::Tensor kept(twister().get_state());
    TORCH_CHECK(state.numel() == kept.numel() + static_cast<int64_t>(sizeof offset_), "RNG state is wrong size");
    const auto* bytes = static_cast<const uint8_t*>(state.data());
    std::memcpy(kept.mutable_data_ptr(), bytes, kept.nbytes());
    kept_.clear();
    twister().set_state(*kept.unsafeGetTensorImpl());
    std::memcpy(&offset_, bytes + kept.nbytes(), sizeof offset_);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    const at::Tensor twisted(twister().get_state());
    at::Tensor state = at::detail::empty_cpu(
        {twisted.numel() + static_cast<int64_t>(sizeof offset_)}, at::kByte, {}, {}, {}, {});
    auto* bytes = static_cast<uint8_t*>(state.mutable_data_ptr());
    std::memcpy(bytes, twisted.const_data_ptr(), twisted.nbytes());
    std::memcpy(bytes + twisted.nbytes(), &offset_, sizeof offset_);
    return state.getIntrusivePtr();
  }
  const at::Generator& state() const {
    return state_;
  }

 private:
  static constexpr size_t kKept = 64;

  at::CPUGeneratorImpl& twister() const {
    return *static_cast<at::CPUGeneratorImpl*>(state_.unsafeGetGeneratorImpl());
  }
  void skip(uint64_t offset) {
    constexpr uint64_t kMost = 1000003;
    state_.set_current_seed(current_seed());
    for (uint64_t i = 0; i < offset % kMost * kNumbers; ++i) {
      twister().random();
    }
  }
  GeneratorImpl* clone_impl() const override {
    auto* copy = new GeneratorImpl(state_.clone());
    copy->offset_ = offset_;
    copy->kept_ = kept_;
    return copy;
  }
  at::Generator state_;
  uint64_t offset_ = 0;
  mutable std::map<uint64_t, c10::intrusive_ptr<c10::TensorImpl>> kept_;
};

const at::Generator& given_or_default(const std::optional<at::Generator>& generator) {
  const at::Generator& given = generator.has_value() && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(
      given.device().type() == kType,
      "Expected a 'mps' device type for generator but found '", given.device().type(), "'");
  return given;
}

// By how much a Mac's kernel advances the offset: Distributions.mm.
uint64_t draws_of(const std::string& op, const at::Tensor& drawn) {
  constexpr uint64_t kGamma = 32, kShort = 384, kLong = 1 << 15;
  const auto begins = [&](const char* name) { return op.rfind(std::string("aten::") + name, 0) == 0; };
  const uint64_t count = drawn.numel() * (drawn.is_complex() ? 2 : 1);
  const auto shared = [](uint64_t numbers, uint64_t by) { return (numbers + by - 1) / by; };
  if (begins("_standard_gamma") || begins("_sample_dirichlet") || begins("poisson") || begins("binomial")) {
    return kGamma * count;
  }
  if (begins("bernoulli") && op != "aten::bernoulli_.float" && op != "aten::bernoulli.p") {
    return count;
  }
  if (begins("randperm")) {
    const bool whole = drawn.scalar_type() == at::kInt || drawn.scalar_type() == at::kLong;
    return count <= kShort && whole && count > 0 ? shared(count - 1, kNumbers)
                                                : shared(count, kNumbers) + (count >= kLong ? count : 0);
  }
  return shared(count, begins("random") && drawn.itemsize() == sizeof(int64_t) ? kNumbers / 2 : kNumbers);
}

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
  return static_cast<const GeneratorImpl*>(given_or_default(generator).unsafeGetGeneratorImpl())->state();
}

void count_draws(const std::string& op, const std::optional<at::Generator>& generator, const at::Tensor& drawn) {
  static_cast<GeneratorImpl*>(given_or_default(generator).unsafeGetGeneratorImpl())->advance(draws_of(op, drawn));
}

}  // namespace simulator
