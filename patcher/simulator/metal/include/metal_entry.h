// How a launcher passes a kernel its arguments (translate.py writes the calls).
#pragma once

namespace metal_cpu {

// A buffer's address, for whatever pointer or reference the kernel declares.
struct Pointer {
  void* address;
  template <class T> operator T*() const { return static_cast<T*>(address); }
};
struct Reference {
  void* address;
  template <class T> operator T&() const { return *static_cast<T*>(address); }
};

template <class T>
METAL_INLINE T position(const uint* of) {
  if constexpr (metal::cpu_is_vector_v<T>) {
    T result(0);
    for (int i = 0; i < metal::cpu_vector_traits<T>::size; ++i) result[i] = metal::cpu_element_t<T>(of[i]);
    return result;
  } else {
    return T(of[0]);
  }
}

}  // namespace metal_cpu
