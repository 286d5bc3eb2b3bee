"""Metal functions that programs call; a shader gets those that it uses."""

from __future__ import annotations

from collections.abc import Collection

HEAD = """#include <metal_stdlib>
using namespace metal;
"""

HEADERS = {"erf": "special_math", "erfinv": "special_math", "log_gamma": "special_math"}
HEADERS |= {"log1p": "utils", "expm1f": "expm1f"}
"""Functions of torch's own headers, ``c10::metal``, and where they are."""

FUNCTIONS = {
    "to_long": """// Out of range, and of NaN: the least integer.
inline long to_long(float x) {
  return x >= -9223372036854775808.0f && x < 9223372036854775808.0f ? long(x) : long(0x8000000000000000ul);
}
""",
    "to_ulong": """inline ulong to_ulong(float x) {
  return x >= 9223372036854775808.0f ? ulong(to_long(x - 9223372036854775808.0f)) ^ 0x8000000000000000ul
                                     : ulong(to_long(x));
}
""",
    "towards_zero": """template <typename T>
inline T towards_zero(float x) {
  const T nearest = T(x);
  return fabs(float(nearest)) > fabs(x) ? as_type<T>(ushort(as_type<ushort>(nearest) - 1)) : nearest;
}
""",
    "shift_left": """template <typename T, typename W>
inline T shift_left(T x, T by) {
  return ulong(by) >= 8 * sizeof(T) ? T(0) : T(W(x) << W(by));
}
""",
    "shift_right": """template <typename T>
inline T shift_right(T x, T by) {
  return ulong(by) >= 8 * sizeof(T) ? (x < T(0) ? T(-1) : T(0)) : T(x >> by);
}
""",
    "quotient": """// Truncated; by 0 it is unspecified, and no error.
template <typename T, typename W>
inline T quotient(T x, T y) {
  if (T(-1) < T(0) && y == T(-1)) return T(W(0) - W(x));
  return y == T(0) ? x : T(x / y);
}
""",
    "rest": """template <typename T>
inline T rest(T x, T y) {
  if (y == T(0)) return x;
  return T(-1) < T(0) && y == T(-1) ? T(0) : T(x % y);
}
""",
    "turns": """// How often a loop over [start, stop) runs.
template <typename T, typename W>
inline W turns(T start, T stop, T step) {
  if (step > T(0)) return start < stop ? W((W(stop) - W(start) - W(1)) / W(step) + W(1)) : W(0);
  return step < T(0) && start > stop ? W((W(start) - W(stop) - W(1)) / (W(0) - W(step)) + W(1)) : W(0);
}
""",
    "hypotenuse": """inline float hypotenuse(float x, float y) {
  const float a = fabs(x), b = fabs(y), m = fmax(a, b), n = fmin(a, b);
  if (isinf(a) || isinf(b)) return INFINITY;
  return m == 0.0f || isnan(x) || isnan(y) ? x * x + y * y : m * precise::sqrt(1.0f + (n / m) * (n / m));
}
""",
    "compare_exchange": """inline uint compare_exchange(device atomic_uint* place, uint expected, uint desired) {
  uint found = expected;
  while (!atomic_compare_exchange_weak_explicit(place, &found, desired, memory_order_relaxed, memory_order_relaxed)) {
    if (found != expected) return found;
  }
  return expected;
}
""",
    "atomic_max_float": """inline float atomic_max_float(device atomic_uint* place, float x) {
  uint found = atomic_load_explicit(place, memory_order_relaxed);
  while (true) {
    const uint before = compare_exchange(place, found, as_type<uint>(fmax(as_type<float>(found), x)));
    if (before == found) return as_type<float>(before);
    found = before;
  }
}
""",
    "atomic_min_float": """inline float atomic_min_float(device atomic_uint* place, float x) {
  uint found = atomic_load_explicit(place, memory_order_relaxed);
  while (true) {
    const uint before = compare_exchange(place, found, as_type<uint>(fmin(as_type<float>(found), x)));
    if (before == found) return as_type<float>(before);
    found = before;
  }
}
""",
}

NEEDS = {
    "to_ulong": ("to_long",),
    "atomic_max_float": ("compare_exchange",),
    "atomic_min_float": ("compare_exchange",),
}


def text(used: Collection[str]) -> str:
    """What a shader begins with that calls the functions ``used``."""
    wanted = {*used, *(other for name in used for other in NEEDS.get(name, ()))}
    headers = sorted({HEADERS[name] for name in wanted if name in HEADERS})
    includes = "".join(f"#include <c10/metal/{header}.h>\n" for header in headers)
    return includes + HEAD + "\n" + "\n".join(body for name, body in FUNCTIONS.items() if name in wanted)
