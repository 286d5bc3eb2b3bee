// Integer functions, and abs. Comes before metal_math.h, whose vector templates use them.
#pragma once

namespace metal {

#define METAL_EACH_INTEGER(f) f(char) f(uchar) f(short) f(ushort) f(int) f(uint) f(long) f(ulong)

#define METAL_INTEGERS(T)                                                                                 \
  METAL_INLINE constexpr T min(T a, T b) { return b < a ? b : a; }                                        \
  METAL_INLINE constexpr T max(T a, T b) { return a < b ? b : a; }                                        \
  METAL_INLINE constexpr T clamp(T x, T low, T high) { return min(max(x, low), high); }                   \
  METAL_INLINE constexpr T abs(T a) { return a < T(0) ? T(-a) : a; }                                      \
  METAL_INLINE constexpr T absdiff(T a, T b) { return a < b ? T(b - a) : T(a - b); }                      \
  METAL_INLINE constexpr T popcount(T a) { return T(__builtin_popcountl((make_unsigned_t<T>)a)); }        \
  METAL_INLINE constexpr T clz(T a) {                                                                     \
    return a ? T(__builtin_clzl((make_unsigned_t<T>)a) - (64 - 8 * sizeof(T))) : T(8 * sizeof(T));        \
  }                                                                                                       \
  METAL_INLINE constexpr T ctz(T a) { return a ? T(__builtin_ctzl((make_unsigned_t<T>)a)) : T(8 * sizeof(T)); } \
  METAL_INLINE constexpr T rotate(T a, T by) {                                                            \
    const uint bits = 8 * sizeof(T), n = uint(by) & (bits - 1);                                           \
    const auto u = (make_unsigned_t<T>)a;                                                                 \
    return n ? T(u << n | u >> (bits - n)) : a;                                                           \
  }                                                                                                       \
  METAL_INLINE constexpr T reverse_bits(T a) {                                                            \
    T result = 0;                                                                                         \
    for (uint i = 0; i < 8 * sizeof(T); ++i) result = T(result << 1 | ((a >> i) & 1));                    \
    return result;                                                                                        \
  }                                                                                                       \
  METAL_INLINE constexpr T extract_bits(T a, uint offset, uint bits) {                                    \
    const uint all = 8 * sizeof(T);                                                                       \
    return bits == 0 ? T(0) : T(T(a << (all - bits - offset)) >> (all - bits));                           \
  }                                                                                                       \
  METAL_INLINE constexpr T insert_bits(T base, T insert, uint offset, uint bits) {                        \
    const ulong mask = (bits == 64 ? ~0ul : (1ul << bits) - 1) << offset;                                 \
    return T((ulong(base) & ~mask) | (ulong(insert) << offset & mask));                                   \
  }                                                                                                       \
  METAL_INLINE constexpr T addsat(T a, T b) {                                                             \
    T sum = 0;                                                                                            \
    if (!__builtin_add_overflow(a, b, &sum)) return sum;                                                  \
    return is_signed_v<T> && a < T(0) ? numeric_limits<T>::min() : numeric_limits<T>::max();              \
  }                                                                                                       \
  METAL_INLINE constexpr T subsat(T a, T b) {                                                             \
    T difference = 0;                                                                                     \
    if (!__builtin_sub_overflow(a, b, &difference)) return difference;                                    \
    return !is_signed_v<T> || a < T(0) ? numeric_limits<T>::min() : numeric_limits<T>::max();             \
  }                                                                                                       \
  METAL_INLINE constexpr T mulhi(T a, T b) { return T(((__int128)a * b) >> (8 * sizeof(T))); }            \
  METAL_INLINE constexpr T mad24(T a, T b, T c) { return T(a * b + c); }                                  \
  METAL_INLINE constexpr T mul24(T a, T b) { return T(a * b); }
METAL_EACH_INTEGER(METAL_INTEGERS)
#undef METAL_INTEGERS

METAL_INLINE constexpr bool min(bool a, bool b) { return a && b; }
METAL_INLINE constexpr bool max(bool a, bool b) { return a || b; }
METAL_INLINE float abs(float a) { return __builtin_fabsf(a); }
METAL_INLINE half abs(half a) { return half(__builtin_fabsf(a)); }
METAL_INLINE bfloat abs(bfloat a) { return bfloat(__builtin_fabsf(a)); }

#define METAL_BY_COMPONENT(name)                                              \
  template <class T, int N> METAL_INLINE constexpr vec<T, N> name(vec<T, N> v) { \
    for (int i = 0; i < N; ++i) v[i] = name(v[i]);                            \
    return v;                                                                 \
  }
METAL_BY_COMPONENT(abs) METAL_BY_COMPONENT(popcount) METAL_BY_COMPONENT(clz) METAL_BY_COMPONENT(ctz)
METAL_BY_COMPONENT(reverse_bits)
#undef METAL_BY_COMPONENT

}  // namespace metal
