// Operations among the lanes of a simdgroup (32) and of a quad (4).
#pragma once

#define METAL_SITE metal_cpu::Site site = metal_cpu::Site::here()

namespace metal {

// The values of the lanes that are at the same place. A lane that is not there, or out of range, gives zero.
template <class T>
struct cpu_lanes {
  static_assert(sizeof(T) <= 64, "at most 64 bytes a lane");
  const metal_cpu::Meeting* meeting;
  METAL_INLINE cpu_lanes(const T& value, const metal_cpu::Site& site)
      : meeting(metal_cpu::metal_cpu_meet(&value, sizeof(T), &site)) {}
  METAL_INLINE bool present(uint lane) const { return lane < 32 && (meeting->mask >> lane & 1); }
  METAL_INLINE T at(uint lane) const { return present(lane) ? *static_cast<const T*>(meeting->values[lane]) : zero(); }
  METAL_INLINE uint first() const { return __builtin_ctz(meeting->mask); }
  METAL_INLINE static T zero() {
    T nothing;
    __builtin_memset(&nothing, 0, sizeof nothing);
    return nothing;
  }
  template <class F>
  METAL_INLINE T fold(F f, uint begin = 0, uint end = 32) const {
    T result = zero();
    bool empty = true;
    for (uint lane = begin; lane < end; ++lane) {
      if (!present(lane)) continue;
      const T value = *static_cast<const T*>(meeting->values[lane]);
      result = empty ? value : T(f(result, value));
      empty = false;
    }
    return result;
  }
};

METAL_INLINE uint cpu_lane() { return metal_cpu::metal_cpu_lane()->lane; }
METAL_INLINE uint cpu_quad() { return cpu_lane() & ~3u; }

#define METAL_REDUCTION(name, expression)                                                                      \
  template <class T> METAL_INLINE T simd_##name(T value, METAL_SITE) {                                        \
    return cpu_lanes<T>(value, site).fold([](T a, T b) { return expression; });                                   \
  }                                                                                                            \
  template <class T> METAL_INLINE T quad_##name(T value, METAL_SITE) {                                        \
    return cpu_lanes<T>(value, site).fold([](T a, T b) { return expression; }, cpu_quad(), cpu_quad() + 4);       \
  }
METAL_REDUCTION(sum, a + b) METAL_REDUCTION(product, a* b) METAL_REDUCTION(min, metal::min(a, b))
METAL_REDUCTION(max, metal::max(a, b)) METAL_REDUCTION(and, a& b) METAL_REDUCTION(or, a | b) METAL_REDUCTION(xor, a ^ b)
#undef METAL_REDUCTION

#define METAL_PREFIX(name, expression, identity)                                                               \
  template <class T> METAL_INLINE T simd_prefix_inclusive_##name(T value, METAL_SITE) {                       \
    return cpu_lanes<T>(value, site).fold([](T a, T b) { return expression; }, 0, cpu_lane() + 1);                \
  }                                                                                                            \
  template <class T> METAL_INLINE T simd_prefix_exclusive_##name(T value, METAL_SITE) {                       \
    const cpu_lanes<T> all(value, site);                                                                           \
    const bool none = (all.meeting->mask & ((1u << cpu_lane()) - 1)) == 0;                                    \
    return none ? T(identity) : all.fold([](T a, T b) { return expression; }, 0, cpu_lane());                 \
  }                                                                                                            \
  template <class T> METAL_INLINE T quad_prefix_inclusive_##name(T value, METAL_SITE) {                       \
    return cpu_lanes<T>(value, site).fold([](T a, T b) { return expression; }, cpu_quad(), cpu_lane() + 1);       \
  }
METAL_PREFIX(sum, a + b, 0) METAL_PREFIX(product, a* b, 1)
#undef METAL_PREFIX

// Value of one other lane, computed from the lane's own number `lane` and the argument `by`.
#define METAL_SHUFFLE(name, from)                                                       \
  template <class T> METAL_INLINE T name(T value, ushort by, METAL_SITE) {             \
    const cpu_lanes<T> all(value, site);                                                    \
    const uint lane = cpu_lane();                                                       \
    (void)lane;                                                                         \
    return all.at(from);                                                                \
  }
METAL_SHUFFLE(simd_broadcast, by)
METAL_SHUFFLE(simd_shuffle, by)
METAL_SHUFFLE(simd_shuffle_xor, lane ^ by)
METAL_SHUFFLE(simd_shuffle_down, lane + by)
METAL_SHUFFLE(simd_shuffle_up, lane - by)
METAL_SHUFFLE(simd_shuffle_rotate_down, (lane + by) & 31)
METAL_SHUFFLE(simd_shuffle_rotate_up, (lane - by) & 31)
METAL_SHUFFLE(quad_broadcast, cpu_quad() + by)
METAL_SHUFFLE(quad_shuffle, cpu_quad() + by)
METAL_SHUFFLE(quad_shuffle_xor, cpu_quad() + ((lane ^ by) & 3))
METAL_SHUFFLE(quad_shuffle_down, (lane & 3) + by < 4 ? lane + by : 32)
METAL_SHUFFLE(quad_shuffle_up, (lane & 3) >= by ? lane - by : 32)
METAL_SHUFFLE(quad_shuffle_rotate_down, cpu_quad() + ((lane + by) & 3))
METAL_SHUFFLE(quad_shuffle_rotate_up, cpu_quad() + ((lane - by) & 3))
#undef METAL_SHUFFLE

// Lanes past the end continue in the other argument.
template <class T>
struct cpu_filled {
  T value, filling;
};
template <class T>
METAL_INLINE T simd_shuffle_and_fill_down(T value, T filling, ushort by, METAL_SITE) {
  const cpu_lanes<cpu_filled<T>> all({value, filling}, site);
  const uint from = cpu_lane() + by;
  return from < 32 ? all.at(from).value : all.at(from - 32).filling;
}
template <class T>
METAL_INLINE T simd_shuffle_and_fill_up(T value, T filling, ushort by, METAL_SITE) {
  const cpu_lanes<cpu_filled<T>> all({value, filling}, site);
  const uint lane = cpu_lane();
  return lane >= by ? all.at(lane - by).value : all.at(32 + lane - by).filling;
}
template <class T>
METAL_INLINE T simd_broadcast_first(T value, METAL_SITE) {
  const cpu_lanes<T> all(value, site);
  return all.at(all.first());
}

class simd_vote {
 public:
  typedef ulong vote_t;
  explicit constexpr simd_vote(vote_t votes = 0) : votes_(votes) {}
  explicit constexpr operator vote_t() const { return votes_; }
  constexpr bool all() const { return votes_ == 0xffffffffu; }
  constexpr bool any() const { return votes_ != 0; }

 private:
  vote_t votes_;
};
METAL_INLINE simd_vote simd_ballot(bool vote, METAL_SITE) {
  const cpu_lanes<bool> all(vote, site);
  ulong votes = 0;
  for (uint lane = 0; lane < 32; ++lane) votes |= ulong(all.at(lane)) << lane;
  return simd_vote(votes);
}
METAL_INLINE simd_vote simd_active_threads_mask(METAL_SITE) { return simd_vote(cpu_lanes<bool>(true, site).meeting->mask); }
METAL_INLINE bool simd_any(bool vote, METAL_SITE) { return ulong(simd_ballot(vote, site)) != 0; }
METAL_INLINE bool simd_all(bool vote, METAL_SITE) { return ulong(simd_ballot(!vote, site)) == 0; }
METAL_INLINE bool simd_is_first(METAL_SITE) { return cpu_lanes<bool>(true, site).first() == cpu_lane(); }
METAL_INLINE bool simd_is_helper_thread() { return false; }

}  // namespace metal
