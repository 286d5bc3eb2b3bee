// Floating point functions. half and bfloat are computed in float and rounded once; vectors by component.
#pragma once

namespace metal {

#define METAL_FLOATS1(name, expression)                                                       \
  METAL_INLINE float name(float x) { return expression; }                                     \
  METAL_INLINE half name(half h) { const float x = h; return half(expression); }              \
  METAL_INLINE bfloat name(bfloat h) { const float x = h; return bfloat(expression); }        \
  template <class T, int N> METAL_INLINE vec<T, N> name(vec<T, N> v) {                        \
    for (int i = 0; i < N; ++i) v[i] = name(v[i]);                                            \
    return v;                                                                                 \
  }
#define METAL_FLOATS2(name, expression)                                                       \
  METAL_INLINE float name(float x, float y) { return expression; }                            \
  METAL_INLINE half name(half a, half b) { const float x = a, y = b; return half(expression); } \
  METAL_INLINE bfloat name(bfloat a, bfloat b) { const float x = a, y = b; return bfloat(expression); } \
  template <class T, int N> METAL_INLINE vec<T, N> name(vec<T, N> a, cpu_given<vec<T, N>> b) {    \
    for (int i = 0; i < N; ++i) a[i] = name(a[i], b[i]);                                      \
    return a;                                                                                 \
  }
#define METAL_FLOATS3(name, expression)                                                       \
  METAL_INLINE float name(float x, float y, float z) { return expression; }                   \
  METAL_INLINE half name(half a, half b, half c) { const float x = a, y = b, z = c; return half(expression); } \
  METAL_INLINE bfloat name(bfloat a, bfloat b, bfloat c) {                                    \
    const float x = a, y = b, z = c;                                                          \
    return bfloat(expression);                                                                \
  }                                                                                           \
  template <class T, int N>                                                                   \
  METAL_INLINE vec<T, N> name(vec<T, N> a, cpu_given<vec<T, N>> b, cpu_given<vec<T, N>> c) {          \
    for (int i = 0; i < N; ++i) a[i] = name(a[i], b[i], c[i]);                                \
    return a;                                                                                 \
  }
#define METAL_PREDICATE(name, expression)                                                     \
  METAL_INLINE bool name(float x) { return expression; }                                      \
  METAL_INLINE bool name(half h) { const float x = h; return expression; }                    \
  METAL_INLINE bool name(bfloat h) { const float x = h; return expression; }                  \
  template <class T, int N> METAL_INLINE vec<bool, N> name(vec<T, N> v) {                     \
    vec<bool, N> result(false);                                                               \
    for (int i = 0; i < N; ++i) result[i] = name(v[i]);                                       \
    return result;                                                                            \
  }

METAL_FLOATS1(sqrt, __builtin_sqrtf(x))
METAL_FLOATS1(rsqrt, 1.0f / __builtin_sqrtf(x))
METAL_FLOATS1(exp, __builtin_expf(x))
METAL_FLOATS1(exp2, __builtin_exp2f(x))
METAL_FLOATS1(exp10, __builtin_powf(10.0f, x))
METAL_FLOATS1(log, __builtin_logf(x))
METAL_FLOATS1(log2, __builtin_log2f(x))
METAL_FLOATS1(log10, __builtin_log10f(x))
METAL_FLOATS1(sin, __builtin_sinf(x))
METAL_FLOATS1(cos, __builtin_cosf(x))
METAL_FLOATS1(tan, __builtin_tanf(x))
METAL_FLOATS1(asin, __builtin_asinf(x))
METAL_FLOATS1(acos, __builtin_acosf(x))
METAL_FLOATS1(atan, __builtin_atanf(x))
METAL_FLOATS1(sinh, __builtin_sinhf(x))
METAL_FLOATS1(cosh, __builtin_coshf(x))
METAL_FLOATS1(tanh, __builtin_tanhf(x))
METAL_FLOATS1(asinh, __builtin_asinhf(x))
METAL_FLOATS1(acosh, __builtin_acoshf(x))
METAL_FLOATS1(atanh, __builtin_atanhf(x))
// Exact reduction first: the sine of pi times a whole number is zero.
METAL_INLINE float cpu_half_turns(float x) { return x - 2.0f * __builtin_rintf(0.5f * x); }
METAL_FLOATS1(sinpi, __builtin_sinf(M_PI_F * cpu_half_turns(x)))
METAL_FLOATS1(cospi, __builtin_cosf(M_PI_F * cpu_half_turns(x)))
METAL_FLOATS1(tanpi, __builtin_tanf(M_PI_F * cpu_half_turns(x)))
METAL_FLOATS1(floor, __builtin_floorf(x))
METAL_FLOATS1(ceil, __builtin_ceilf(x))
METAL_FLOATS1(trunc, __builtin_truncf(x))
METAL_FLOATS1(rint, __builtin_rintf(x))
METAL_FLOATS1(round, __builtin_roundf(x))
METAL_FLOATS1(fabs, __builtin_fabsf(x))
METAL_FLOATS1(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))
METAL_FLOATS1(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))
METAL_FLOATS1(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f)

METAL_FLOATS2(atan2, __builtin_atan2f(x, y))
METAL_FLOATS2(pow, __builtin_powf(x, y))
METAL_FLOATS2(powr, __builtin_powf(x, y))
METAL_FLOATS2(fmod, __builtin_fmodf(x, y))
METAL_FLOATS2(remainder, __builtin_remainderf(x, y))
METAL_FLOATS2(fmin, __builtin_fminf(x, y))
METAL_FLOATS2(fmax, __builtin_fmaxf(x, y))
METAL_FLOATS2(fdim, __builtin_fdimf(x, y))
METAL_FLOATS2(copysign, __builtin_copysignf(x, y))
METAL_FLOATS2(nextafter, __builtin_nextafterf(x, y))
METAL_FLOATS2(divide, x / y)
METAL_FLOATS2(step, y < x ? 0.0f : 1.0f)
METAL_FLOATS2(min, __builtin_fminf(x, y))
METAL_FLOATS2(max, __builtin_fmaxf(x, y))

METAL_FLOATS3(fma, __builtin_fmaf(x, y, z))
METAL_FLOATS3(mix, x + (y - x) * z)
METAL_FLOATS3(clamp, __builtin_fminf(__builtin_fmaxf(x, y), z))
METAL_INLINE float cpu_smooth(float t) { return t * t * (3.0f - 2.0f * t); }
METAL_FLOATS3(smoothstep, cpu_smooth(__builtin_fminf(__builtin_fmaxf((z - x) / (y - x), 0.0f), 1.0f)))
METAL_FLOATS3(fmin3, __builtin_fminf(x, __builtin_fminf(y, z)))
METAL_FLOATS3(fmax3, __builtin_fmaxf(x, __builtin_fmaxf(y, z)))
METAL_FLOATS3(fmedian3, __builtin_fmaxf(__builtin_fminf(x, y), __builtin_fminf(__builtin_fmaxf(x, y), z)))

METAL_PREDICATE(isnan, __builtin_isnan(x))
METAL_PREDICATE(isinf, __builtin_isinf(x) != 0)
METAL_PREDICATE(isfinite, __builtin_isfinite(x))
METAL_PREDICATE(isnormal, __builtin_isnormal(x))
METAL_PREDICATE(signbit, __builtin_signbit(x) != 0)
METAL_INLINE bool isunordered(float x, float y) { return __builtin_isunordered(x, y); }
METAL_INLINE bool isordered(float x, float y) { return !__builtin_isunordered(x, y); }

// ---- functions with a second result or an integer

#define METAL_WITH_RESULT(T)                                                                              \
  METAL_INLINE T sincos(T x, T& cosine) { cosine = cos(x); return sin(x); }                               \
  METAL_INLINE T modf(T x, T& whole) { whole = trunc(x); return copysign(isinf(x) ? T(0) : T(x - whole), x); } \
  METAL_INLINE T frexp(T x, int& exponent) { return T(__builtin_frexpf(float(x), &exponent)); }           \
  METAL_INLINE T ldexp(T x, int exponent) { return T(__builtin_ldexpf(float(x), exponent)); }             \
  METAL_INLINE int ilogb(T x) { return __builtin_ilogbf(float(x)); }
METAL_WITH_RESULT(float) METAL_WITH_RESULT(half) METAL_WITH_RESULT(bfloat)
template <class T, int N>
METAL_INLINE vec<T, N> sincos(vec<T, N> v, vec<T, N>& cosine) {
  cosine = cos(v);
  return sin(v);
}

// ---- geometry

template <class T, int N>
METAL_INLINE T dot(vec<T, N> a, cpu_given<vec<T, N>> b) {
  T sum = T(a[0] * b[0]);
  for (int i = 1; i < N; ++i) sum = T(sum + a[i] * b[i]);
  return sum;
}
template <class T, int N> METAL_INLINE T length_squared(vec<T, N> v) { return dot(v, v); }
template <class T, int N> METAL_INLINE T length(vec<T, N> v) { return sqrt(dot(v, v)); }
template <class T, int N> METAL_INLINE T distance(vec<T, N> a, vec<T, N> b) { return length(a - b); }
template <class T, int N> METAL_INLINE vec<T, N> normalize(vec<T, N> v) { return v * vec<T, N>(rsqrt(dot(v, v))); }
template <class T>
METAL_INLINE vec<T, 3> cross(vec<T, 3> a, vec<T, 3> b) {
  return vec<T, 3>(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}

// Here there is one precision: that of the C library.
namespace precise { using namespace metal; }
namespace fast { using namespace metal; }

}  // namespace metal
