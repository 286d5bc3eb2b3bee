// Keywords, scalar types, constants and type traits.
#pragma once

// A CPU has one address space. `threadgroup` declarations were rewritten before this file is seen (translate.py); what
// is left of the address spaces qualifies pointers.
#define device
#define thread
#define threadgroup
#define threadgroup_imageblock
#define ray_data
#define constant const
#define kernel
#define METAL_INLINE inline __attribute__((always_inline))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __bf16 bfloat;
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef __UINTPTR_TYPE__ uintptr_t;

#define INFINITY __builtin_inff()
#define HUGE_VALF __builtin_inff()
#define NAN __builtin_nanf("")
#define MAXFLOAT 0x1.fffffep127f
#define FLT_MAX 0x1.fffffep127f
#define FLT_MIN 0x1p-126f
#define FLT_EPSILON 0x1p-23f
#define HALF_MAX (half(65504.0f))
#define HALF_MIN (half(0x1p-14f))
#define HALF_EPSILON (half(0x1p-10f))
#define CHAR_BIT 8
#define CHAR_MAX 127
#define CHAR_MIN (-128)
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-INT_MAX - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define LONG_MIN (-LONG_MAX - 1)
#define ULONG_MAX 18446744073709551615ul
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.43429448190325182765f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.78539816339744830962f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define assert(condition) ((void)0)

namespace metal {

template <class T, T v>
struct integral_constant {
  static constexpr T value = v;
  typedef T value_type;
  typedef integral_constant type;
  constexpr operator T() const { return v; }
  constexpr T operator()() const { return v; }
};
template <bool b> using bool_constant = integral_constant<bool, b>;
typedef bool_constant<true> true_type;
typedef bool_constant<false> false_type;

template <bool, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool b, class T = void> using enable_if_t = typename enable_if<b, T>::type;

template <bool, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
template <bool b, class T, class F> using conditional_t = typename conditional<b, T, F>::type;

template <class A, class B> constexpr bool is_same_v = __is_same(A, B);
template <class A, class B> struct is_same : bool_constant<is_same_v<A, B>> {};

template <class T> struct remove_const { typedef T type; };
template <class T> struct remove_const<const T> { typedef T type; };
template <class T> struct remove_volatile { typedef T type; };
template <class T> struct remove_volatile<volatile T> { typedef T type; };
template <class T> struct remove_cv { typedef typename remove_const<typename remove_volatile<T>::type>::type type; };
template <class T> struct remove_reference { typedef T type; };
template <class T> struct remove_reference<T&> { typedef T type; };
template <class T> struct remove_reference<T&&> { typedef T type; };
template <class T> struct remove_pointer { typedef T type; };
template <class T> struct remove_pointer<T*> { typedef T type; };
template <class T> struct remove_addrspace { typedef T type; };
template <class T> using remove_const_t = typename remove_const<T>::type;
template <class T> using remove_cv_t = typename remove_cv<T>::type;
template <class T> using remove_reference_t = typename remove_reference<T>::type;
template <class T> using remove_pointer_t = typename remove_pointer<T>::type;
template <class T> using remove_addrspace_t = T;
template <class T> using decay_t = remove_cv_t<remove_reference_t<T>>;
template <class T> struct decay { typedef decay_t<T> type; };
template <class T> struct type_identity { typedef T type; };
// A parameter of this type takes no part in template argument deduction.
template <class T> using cpu_given = typename type_identity<T>::type;
template <class T> T&& declval() noexcept;
template <class...> using void_t = void;

template <class F, class... A> struct result_of;
template <class F, class... A> struct result_of<F(A...)> { typedef decltype(declval<F>()(declval<A>()...)) type; };
template <class F> using result_of_t = typename result_of<F>::type;
template <class F, class... A> using invoke_result_t = decltype(declval<F>()(declval<A>()...));

template <class...> struct disjunction : false_type {};
template <class A, class... R>
struct disjunction<A, R...> : bool_constant<bool(A::value) || disjunction<R...>::value> {};
template <class...> struct conjunction : true_type {};
template <class A, class... R>
struct conjunction<A, R...> : bool_constant<bool(A::value) && conjunction<R...>::value> {};
template <class A> struct negation : bool_constant<!bool(A::value)> {};

template <class T> using uniform = T;
template <class T> constexpr T make_uniform(T value) { return value; }

template <class T, int N> struct vec;
template <class T> struct cpu_vector_traits {
  typedef T element;
  static constexpr int size = 1;
};
template <class T, int N> struct cpu_vector_traits<vec<T, N>> {
  typedef T element;
  static constexpr int size = N;
};
template <class T> using cpu_element_t = typename cpu_vector_traits<remove_cv_t<T>>::element;
template <class T> constexpr bool cpu_is_vector_v = cpu_vector_traits<remove_cv_t<T>>::size > 1;

// In Metal these are also true of vectors.
template <class T> constexpr bool is_floating_point_v =
    is_same_v<cpu_element_t<T>, float> || is_same_v<cpu_element_t<T>, half> || is_same_v<cpu_element_t<T>, bfloat>;
template <class T> constexpr bool is_integral_v = __is_integral(cpu_element_t<T>);
template <class T> constexpr bool is_signed_v = is_floating_point_v<T> || __is_signed(cpu_element_t<T>);
template <class T> constexpr bool is_unsigned_v = __is_unsigned(cpu_element_t<T>);
template <class T> constexpr bool is_arithmetic_v = is_floating_point_v<T> || is_integral_v<T>;
template <class T> constexpr bool is_scalar_v =
    !cpu_is_vector_v<T> && (is_arithmetic_v<T> || __is_enum(T) || __is_pointer(T));
template <class T> constexpr bool is_pointer_v = __is_pointer(T);
template <class T> constexpr bool is_enum_v = __is_enum(T);
template <class T> constexpr bool is_const_v = __is_const(T);
template <class A, class B> constexpr bool is_convertible_v = __is_convertible_to(A, B);
template <class A, class B> constexpr bool is_base_of_v = __is_base_of(A, B);

#define METAL_TRAIT(name) template <class T> struct name : bool_constant<name##_v<T>> {};
METAL_TRAIT(is_floating_point) METAL_TRAIT(is_integral) METAL_TRAIT(is_signed) METAL_TRAIT(is_unsigned)
METAL_TRAIT(is_arithmetic) METAL_TRAIT(is_scalar) METAL_TRAIT(is_pointer) METAL_TRAIT(is_enum) METAL_TRAIT(is_const)
#undef METAL_TRAIT
template <class A, class B> struct is_convertible : bool_constant<is_convertible_v<A, B>> {};
template <class A, class B> struct is_base_of : bool_constant<is_base_of_v<A, B>> {};

// What static_cast becomes: clang does not convert half to bfloat and back.
template <class A, class B> constexpr bool cpu_are_halves_v =
    (is_same_v<A, half> && is_same_v<B, bfloat>) || (is_same_v<A, bfloat> && is_same_v<B, half>);
template <class To, class From> requires cpu_are_halves_v<To, From>
METAL_INLINE constexpr To cpu_cast(From from) { return To(float(from)); }
template <class To, class From>
  requires(!cpu_are_halves_v<To, remove_cv_t<remove_reference_t<From>>> && requires(From&& from) { static_cast<To>(static_cast<From&&>(from)); })
METAL_INLINE constexpr To cpu_cast(From&& from) { return static_cast<To>(static_cast<From&&>(from)); }

template <class T> struct make_unsigned { typedef __make_unsigned(T) type; };
template <class T> struct make_signed { typedef __make_signed(T) type; };
template <class T> using make_unsigned_t = typename make_unsigned<T>::type;
template <class T> using make_signed_t = typename make_signed<T>::type;

}  // namespace metal

constexpr half operator""h(long double value) { return half(value); }
constexpr half operator""h(unsigned long long value) { return half(value); }
constexpr half operator""H(long double value) { return half(value); }
constexpr bfloat operator""bf(long double value) { return bfloat(float(value)); }
constexpr bfloat operator""BF(long double value) { return bfloat(float(value)); }
