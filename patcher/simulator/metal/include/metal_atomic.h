// Atomic operations. Threads take turns on the CPU (only whole threadgroups may run at the same time).
#pragma once

namespace metal {

template <class T>
struct atomic {
  T value;
};
template <class T> using _atomic = atomic<T>;
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<bool> atomic_bool;
typedef atomic<float> atomic_float;
typedef atomic<ulong> atomic_ulong;

template <class T>
METAL_INLINE T* cpu_plain(const volatile atomic<T>* object) { return const_cast<T*>(&object->value); }

template <class T>
METAL_INLINE T atomic_load_explicit(const volatile atomic<T>* object, memory_order) {
  T result;
  __atomic_load(cpu_plain(object), &result, __ATOMIC_SEQ_CST);
  return result;
}
template <class T>
METAL_INLINE void atomic_store_explicit(volatile atomic<T>* object, cpu_given<T> value, memory_order) {
  __atomic_store(cpu_plain(object), &value, __ATOMIC_SEQ_CST);
}
template <class T>
METAL_INLINE T atomic_exchange_explicit(volatile atomic<T>* object, cpu_given<T> value, memory_order) {
  T result;
  __atomic_exchange(cpu_plain(object), &value, &result, __ATOMIC_SEQ_CST);
  return result;
}
template <class T>
METAL_INLINE bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* object, T* expected, cpu_given<T> desired,
                                                        memory_order, memory_order) {
  return __atomic_compare_exchange(cpu_plain(object), expected, &desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

// Metal Shading Language Specification, 6.15.4: of 64 bits there are a minimum and a maximum, which give nothing back.
template <class T>
concept cpu_fetched = sizeof(T) == 4 || sizeof(T) == 1;

#define METAL_FETCH(name, expression)                                                                      \
  template <cpu_fetched T>                                                                                 \
  METAL_INLINE T atomic_fetch_##name##_explicit(volatile atomic<T>* object, cpu_given<T> b, memory_order order) { \
    T a = atomic_load_explicit(object, order);                                                             \
    while (!atomic_compare_exchange_weak_explicit(object, &a, T(expression), order, order)) {              \
    }                                                                                                      \
    return a;                                                                                              \
  }
METAL_FETCH(add, a + b) METAL_FETCH(sub, a - b) METAL_FETCH(and, a& b) METAL_FETCH(or, a | b) METAL_FETCH(xor, a ^ b)
METAL_FETCH(min, metal::min(a, b)) METAL_FETCH(max, metal::max(a, b))
#undef METAL_FETCH

#define METAL_LIMIT(name, better)                                                                          \
  METAL_INLINE void atomic_##name##_explicit(volatile atomic_ulong* object, ulong b, memory_order order) { \
    ulong a = *cpu_plain(object);                                                                          \
    while (better && !__atomic_compare_exchange(cpu_plain(object), &a, &b, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) { \
    }                                                                                                      \
  }
METAL_LIMIT(min, b < a) METAL_LIMIT(max, b > a)
#undef METAL_LIMIT

}  // namespace metal
