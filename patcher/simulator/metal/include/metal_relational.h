// Functions of any arithmetic type, and of booleans.
#pragma once

namespace metal {

#define METAL_EACH_ARITHMETIC(f) METAL_EACH_INTEGER(f) f(float) f(half) f(bfloat)
#define METAL_OF_THREE(T)                                                                           \
  METAL_INLINE T min3(T a, T b, T c) { return min(a, min(b, c)); }                                  \
  METAL_INLINE T max3(T a, T b, T c) { return max(a, max(b, c)); }                                  \
  METAL_INLINE T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }               \
  METAL_INLINE constexpr T select(T a, T b, bool second) { return second ? b : a; }
METAL_EACH_ARITHMETIC(METAL_OF_THREE)
#undef METAL_OF_THREE
METAL_INLINE constexpr bool select(bool a, bool b, bool second) { return second ? b : a; }
template <class T, int N>
METAL_INLINE constexpr vec<T, N> select(vec<T, N> a, cpu_given<vec<T, N>> b, vec<bool, N> second) {
  for (int i = 0; i < N; ++i) a[i] = second[i] ? b[i] : a[i];
  return a;
}
template <class T, int N>
METAL_INLINE constexpr vec<T, N> select(vec<T, N> a, cpu_given<vec<T, N>> b, bool second) {
  return second ? b : a;
}

METAL_INLINE constexpr bool all(bool b) { return b; }
METAL_INLINE constexpr bool any(bool b) { return b; }
template <int N>
METAL_INLINE constexpr bool all(vec<bool, N> v) {
  bool result = true;
  for (int i = 0; i < N; ++i) result = result && v[i];
  return result;
}
template <int N>
METAL_INLINE constexpr bool any(vec<bool, N> v) {
  return !all(!v);
}

}  // namespace metal
