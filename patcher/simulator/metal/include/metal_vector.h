// Vectors with swizzles, packed vectors, matrices, arrays.
#pragma once

namespace metal {

// ---- swizzles: `v.zyx` reads and writes components, by clang's property declarations (-fdeclspec)

#define METAL_SWIZZLE2(a, b)                                        \
  __declspec(property(get = get_##a##b, put = put_##a##b)) vec<T, 2> a##b; \
  constexpr vec<T, 2> get_##a##b() const { return vec<T, 2>(a, b); } \
  constexpr void put_##a##b(vec<T, 2> v) { a = v.x; b = v.y; }
#define METAL_SWIZZLE3(a, b, c)                                           \
  __declspec(property(get = get_##a##b##c, put = put_##a##b##c)) vec<T, 3> a##b##c; \
  constexpr vec<T, 3> get_##a##b##c() const { return vec<T, 3>(a, b, c); } \
  constexpr void put_##a##b##c(vec<T, 3> v) { a = v.x; b = v.y; c = v.z; }
#define METAL_SWIZZLE4(a, b, c, d)                                              \
  __declspec(property(get = get_##a##b##c##d, put = put_##a##b##c##d)) vec<T, 4> a##b##c##d; \
  constexpr vec<T, 4> get_##a##b##c##d() const { return vec<T, 4>(a, b, c, d); } \
  constexpr void put_##a##b##c##d(vec<T, 4> v) { a = v.x; b = v.y; c = v.z; d = v.w; }

// METAL_EACH<n>_<k>(f, given...): f(chosen..., one of the first n components) with k components still to be chosen.
#define METAL_EACH2_1(f, ...) f(__VA_ARGS__, x) f(__VA_ARGS__, y)
#define METAL_EACH3_1(f, ...) METAL_EACH2_1(f, __VA_ARGS__) f(__VA_ARGS__, z)
#define METAL_EACH4_1(f, ...) METAL_EACH3_1(f, __VA_ARGS__) f(__VA_ARGS__, w)
#define METAL_EACH2_2(f, ...) METAL_EACH2_1(f, __VA_ARGS__, x) METAL_EACH2_1(f, __VA_ARGS__, y)
#define METAL_EACH3_2(f, ...) \
  METAL_EACH3_1(f, __VA_ARGS__, x) METAL_EACH3_1(f, __VA_ARGS__, y) METAL_EACH3_1(f, __VA_ARGS__, z)
#define METAL_EACH4_2(f, ...)                                         \
  METAL_EACH4_1(f, __VA_ARGS__, x) METAL_EACH4_1(f, __VA_ARGS__, y) \
  METAL_EACH4_1(f, __VA_ARGS__, z) METAL_EACH4_1(f, __VA_ARGS__, w)
#define METAL_EACH2_3(f, ...) METAL_EACH2_2(f, __VA_ARGS__, x) METAL_EACH2_2(f, __VA_ARGS__, y)
#define METAL_EACH3_3(f, ...) \
  METAL_EACH3_2(f, __VA_ARGS__, x) METAL_EACH3_2(f, __VA_ARGS__, y) METAL_EACH3_2(f, __VA_ARGS__, z)
#define METAL_EACH4_3(f, ...)                                         \
  METAL_EACH4_2(f, __VA_ARGS__, x) METAL_EACH4_2(f, __VA_ARGS__, y) \
  METAL_EACH4_2(f, __VA_ARGS__, z) METAL_EACH4_2(f, __VA_ARGS__, w)

#define METAL_SWIZZLES_FROM(n, a) \
  METAL_EACH##n##_1(METAL_SWIZZLE2, a) METAL_EACH##n##_2(METAL_SWIZZLE3, a) METAL_EACH##n##_3(METAL_SWIZZLE4, a)
#define METAL_SWIZZLES2 METAL_SWIZZLES_FROM(2, x) METAL_SWIZZLES_FROM(2, y)
#define METAL_SWIZZLES3 METAL_SWIZZLES_FROM(3, x) METAL_SWIZZLES_FROM(3, y) METAL_SWIZZLES_FROM(3, z)
#define METAL_SWIZZLES4 \
  METAL_SWIZZLES_FROM(4, x) METAL_SWIZZLES_FROM(4, y) METAL_SWIZZLES_FROM(4, z) METAL_SWIZZLES_FROM(4, w)

// The names of colours, of which only those in order are provided as swizzles.
#define METAL_COLOUR(name, component) \
  __declspec(property(get = get_##name, put = put_##name)) T name; \
  constexpr T get_##name() const { return cpu_component; } \
  constexpr void put_##name(T v) { component = v; }
#define METAL_COLOURS2 METAL_COLOUR(r, x) METAL_COLOUR(g, y) __declspec(property(get = get_xy, put = put_xy)) vec<T, 2> rg;
#define METAL_COLOURS3 \
  METAL_COLOURS2 METAL_COLOUR(b, z) __declspec(property(get = get_xyz, put = put_xyz)) vec<T, 3> rgb;
#define METAL_COLOURS4 \
  METAL_COLOURS3 METAL_COLOUR(a, w) __declspec(property(get = get_xyzw, put = put_xyzw)) vec<T, 4> rgba;

// ---- what vectors of every size have

template <class T, int N> constexpr T cpu_component(const vec<T, N>& v, int i) { return v[i]; }
template <class T> constexpr T cpu_component(const T& v, int) { return v; }
struct cpu_splat {};

#define METAL_CONSTRUCTORS(N)                                                                       \
  vec() = default;                                                                                  \
  template <class U, enable_if_t<is_scalar_v<U> && is_convertible_v<U, T>, int> = 0>                \
  constexpr vec(U value) : vec(cpu_splat{}, T(value)) {}                                                \
  template <class U, enable_if_t<!is_same_v<U, T>, int> = 0>                                        \
  explicit constexpr vec(const vec<U, N>& other) : vec(cpu_splat{}, T(0)) {                             \
    for (int i = 0; i < N; ++i) (*this)[i] = T(other[i]);                                           \
  }                                                                                                 \
  template <class A, class B, class... R>                                                           \
  constexpr vec(const A& first, const B& second, const R&... rest) : vec(cpu_splat{}, T(0)) {           \
    static_assert(cpu_vector_traits<A>::size + cpu_vector_traits<B>::size + (0 + ... + cpu_vector_traits<R>::size) == N, \
                  "a vector is constructed from as many components as it has");                     \
    int at = 0;                                                                                     \
    append(at, first);                                                                              \
    append(at, second);                                                                             \
    (append(at, rest), ...);                                                                        \
  }                                                                                                 \
  template <class A>                                                                                \
  constexpr void append(int& at, const A& value) {                                                  \
    for (int i = 0; i < cpu_vector_traits<A>::size; ++i) (*this)[at++] = T(cpu_component(value, i));        \
  }

#define METAL_OPERATOR(op)                                      \
  friend constexpr vec operator op(vec a, vec b) {              \
    for (int i = 0; i < size; ++i) a[i] = T(a[i] op b[i]);      \
    return a;                                                   \
  }                                                             \
  constexpr vec& operator op##=(vec b) { return *this = *this op b; }
#define METAL_COMPARISON(op)                                    \
  friend constexpr vec<bool, size> operator op(vec a, vec b) {  \
    vec<bool, size> result(false);                              \
    for (int i = 0; i < size; ++i) result[i] = a[i] op b[i];    \
    return result;                                              \
  }
#define METAL_OPERATORS(N)                                                                                   \
  static constexpr int size = N;                                                                             \
  METAL_OPERATOR(+) METAL_OPERATOR(-) METAL_OPERATOR(*) METAL_OPERATOR(/) METAL_OPERATOR(%)                  \
  METAL_OPERATOR(&) METAL_OPERATOR(|) METAL_OPERATOR(^) METAL_OPERATOR(<<) METAL_OPERATOR(>>)                \
  METAL_COMPARISON(==) METAL_COMPARISON(!=) METAL_COMPARISON(<) METAL_COMPARISON(>) METAL_COMPARISON(<=)     \
  METAL_COMPARISON(>=) METAL_COMPARISON(&&) METAL_COMPARISON(||)                                             \
  friend constexpr vec operator+(vec a) { return a; }                                                        \
  friend constexpr vec operator-(vec a) { for (int i = 0; i < N; ++i) a[i] = T(-a[i]); return a; }           \
  friend constexpr vec operator~(vec a) { for (int i = 0; i < N; ++i) a[i] = T(~a[i]); return a; }           \
  friend constexpr vec<bool, N> operator!(vec a) {                                                           \
    vec<bool, N> result(false);                                                                              \
    for (int i = 0; i < N; ++i) result[i] = !a[i];                                                           \
    return result;                                                                                           \
  }                                                                                                          \
  constexpr vec& operator++() { return *this += vec(T(1)); }                                                 \
  constexpr vec& operator--() { return *this -= vec(T(1)); }

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
  T x, y;
  constexpr vec(cpu_splat, T value) : x(value), y(value) {}
  constexpr T& operator[](int i) { return i == 0 ? x : y; }
  constexpr const T& operator[](int i) const { return i == 0 ? x : y; }
  METAL_CONSTRUCTORS(2) METAL_OPERATORS(2) METAL_SWIZZLES2 METAL_COLOURS2
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
  T x, y, z;
  constexpr vec(cpu_splat, T value) : x(value), y(value), z(value) {}
  constexpr T& operator[](int i) { return i == 0 ? x : i == 1 ? y : z; }
  constexpr const T& operator[](int i) const { return i == 0 ? x : i == 1 ? y : z; }
  METAL_CONSTRUCTORS(3) METAL_OPERATORS(3) METAL_SWIZZLES3 METAL_COLOURS3
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
  T x, y, z, w;
  constexpr vec(cpu_splat, T value) : x(value), y(value), z(value), w(value) {}
  constexpr T& operator[](int i) { return i == 0 ? x : i == 1 ? y : i == 2 ? z : w; }
  constexpr const T& operator[](int i) const { return i == 0 ? x : i == 1 ? y : i == 2 ? z : w; }
  METAL_CONSTRUCTORS(4) METAL_OPERATORS(4) METAL_SWIZZLES4 METAL_COLOURS4
};

// ---- packed vectors have the alignment of a scalar

template <class T, int N> struct cpu_packed_storage;
template <class T> struct cpu_packed_storage<T, 2> { T x, y; };
template <class T> struct cpu_packed_storage<T, 3> { T x, y, z; };
template <class T> struct cpu_packed_storage<T, 4> { T x, y, z, w; };

template <class T, int N>
struct packed_vec : cpu_packed_storage<T, N> {
  packed_vec() = default;
  constexpr packed_vec(vec<T, N> v) { for (int i = 0; i < N; ++i) (*this)[i] = v[i]; }
  constexpr operator vec<T, N>() const {
    vec<T, N> v(T(0));
    for (int i = 0; i < N; ++i) v[i] = (*this)[i];
    return v;
  }
  constexpr T& operator[](int i) { return (&this->x)[i]; }
  constexpr const T& operator[](int i) const { return (&this->x)[i]; }
};

// ---- matrices: columns of vectors

template <class T, int C, int R>
struct matrix {
  vec<T, R> columns[C];
  matrix() = default;
  explicit constexpr matrix(T diagonal) {
    for (int i = 0; i < C; ++i)
      for (int j = 0; j < R; ++j) columns[i][j] = i == j ? diagonal : T(0);
  }
  template <class... A, enable_if_t<sizeof...(A) == C && (C > 1), int> = 0>
  constexpr matrix(A... a) : columns{a...} {}
  constexpr vec<T, R>& operator[](int i) { return columns[i]; }
  constexpr const vec<T, R>& operator[](int i) const { return columns[i]; }
  friend constexpr vec<T, R> operator*(const matrix& m, vec<T, C> v) {
    vec<T, R> result(T(0));
    for (int i = 0; i < C; ++i) result += m.columns[i] * v[i];
    return result;
  }
  friend constexpr matrix operator+(matrix a, const matrix& b) {
    for (int i = 0; i < C; ++i) a.columns[i] += b.columns[i];
    return a;
  }
  friend constexpr matrix operator*(matrix a, T b) {
    for (int i = 0; i < C; ++i) a.columns[i] *= b;
    return a;
  }
};
template <class T, int C, int R, int K>
constexpr matrix<T, K, R> operator*(const matrix<T, C, R>& a, const matrix<T, K, C>& b) {
  matrix<T, K, R> result;
  for (int i = 0; i < K; ++i) result[i] = a * b[i];
  return result;
}
template <class T, int C, int R>
constexpr matrix<T, R, C> transpose(const matrix<T, C, R>& m) {
  matrix<T, R, C> result;
  for (int i = 0; i < C; ++i)
    for (int j = 0; j < R; ++j) result[j][i] = m[i][j];
  return result;
}

template <class T, size_t N>
struct array {
  T elements[N];
  constexpr T& operator[](size_t i) { return elements[i]; }
  constexpr const T& operator[](size_t i) const { return elements[i]; }
  constexpr size_t size() const { return N; }
  constexpr T* data() { return elements; }
  constexpr const T* data() const { return elements; }
  constexpr T* begin() { return elements; }
  constexpr T* end() { return elements + N; }
  constexpr const T* begin() const { return elements; }
  constexpr const T* end() const { return elements + N; }
};

}  // namespace metal

#define METAL_VECTOR_NAMES(t)                                                                   \
  typedef metal::vec<t, 2> t##2; typedef metal::vec<t, 3> t##3; typedef metal::vec<t, 4> t##4; \
  typedef metal::packed_vec<t, 2> packed_##t##2; typedef metal::packed_vec<t, 3> packed_##t##3; \
  typedef metal::packed_vec<t, 4> packed_##t##4;
METAL_VECTOR_NAMES(bool) METAL_VECTOR_NAMES(char) METAL_VECTOR_NAMES(uchar) METAL_VECTOR_NAMES(short)
METAL_VECTOR_NAMES(ushort) METAL_VECTOR_NAMES(int) METAL_VECTOR_NAMES(uint) METAL_VECTOR_NAMES(long)
METAL_VECTOR_NAMES(ulong) METAL_VECTOR_NAMES(half) METAL_VECTOR_NAMES(bfloat) METAL_VECTOR_NAMES(float)

#define METAL_MATRIX_NAMES(t)                                                                              \
  typedef metal::matrix<t, 2, 2> t##2x2; typedef metal::matrix<t, 2, 3> t##2x3; typedef metal::matrix<t, 2, 4> t##2x4; \
  typedef metal::matrix<t, 3, 2> t##3x2; typedef metal::matrix<t, 3, 3> t##3x3; typedef metal::matrix<t, 3, 4> t##3x4; \
  typedef metal::matrix<t, 4, 2> t##4x2; typedef metal::matrix<t, 4, 3> t##4x3; typedef metal::matrix<t, 4, 4> t##4x4;
METAL_MATRIX_NAMES(float) METAL_MATRIX_NAMES(half)

template <class To, class From>
constexpr To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
  return __builtin_bit_cast(To, value);
}
