// numeric_limits
#pragma once

namespace metal {

template <class T>
struct numeric_limits {
  static constexpr bool is_specialized = true, is_integer = true, has_infinity = false, has_quiet_NaN = false;
  static constexpr bool is_signed = is_signed_v<T>;
  static constexpr int digits = sizeof(T) * 8 - is_signed;
  static constexpr T max() { return is_signed ? T((1ul << (sizeof(T) * 8 - 1)) - 1) : T(~0ul); }
  static constexpr T min() { return is_signed ? T(-max() - 1) : T(0); }
  static constexpr T lowest() { return min(); }
  static constexpr T infinity() { return T(0); }
  static constexpr T quiet_NaN() { return T(0); }
  static constexpr T epsilon() { return T(0); }
};
template <>
struct numeric_limits<bool> {
  static constexpr bool is_specialized = true, is_integer = true, is_signed = false, has_infinity = false;
  static constexpr int digits = 1;
  static constexpr bool max() { return true; }
  static constexpr bool min() { return false; }
  static constexpr bool lowest() { return false; }
};

#define METAL_FLOAT_LIMITS(T, largest, smallest, step, bits)                                      \
  template <>                                                                                     \
  struct numeric_limits<T> {                                                                      \
    static constexpr bool is_specialized = true, is_integer = false, is_signed = true;            \
    static constexpr bool has_infinity = true, has_quiet_NaN = true;                              \
    static constexpr int digits = bits;                                                           \
    static constexpr T max() { return T(largest); }                                               \
    static constexpr T min() { return T(smallest); }                                              \
    static constexpr T lowest() { return T(-largest); }                                           \
    static constexpr T infinity() { return T(INFINITY); }                                         \
    static constexpr T quiet_NaN() { return T(NAN); }                                             \
    static constexpr T epsilon() { return T(step); }                                              \
  };
METAL_FLOAT_LIMITS(float, 0x1.fffffep127f, 0x1p-126f, 0x1p-23f, 24)
METAL_FLOAT_LIMITS(half, 65504.0f, 0x1p-14f, 0x1p-10f, 11)
METAL_FLOAT_LIMITS(bfloat, 0x1.fep127f, 0x1p-126f, 0x1p-7f, 8)

}  // namespace metal
