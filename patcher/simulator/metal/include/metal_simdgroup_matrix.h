// 8x8 matrices held by a simdgroup, two elements a lane; products accumulate in float.
#pragma once

namespace metal {

template <class T, int rows = 8, int columns = 8>
class simdgroup_matrix {
 public:
  static_assert(rows == 8 && columns == 8, "a simdgroup matrix is 8x8");
  typedef vec<T, 2> storage_type;

  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T diagonal) {
    elements_[0] = row() == column() ? diagonal : T(0);
    elements_[1] = row() == column() + 1 ? diagonal : T(0);
  }
  METAL_INLINE storage_type& thread_elements() { return elements_; }
  METAL_INLINE const storage_type& thread_elements() const { return elements_; }

  // The lane holds (row, column) and (row, column + 1).
  METAL_INLINE static uint row() { const uint lane = cpu_lane(); return (lane >> 2 & 4) + (lane >> 1 & 3); }
  METAL_INLINE static uint column() { const uint lane = cpu_lane(); return (lane >> 3 & 1) * 4 + (lane & 1) * 2; }
  METAL_INLINE static uint holder(uint row, uint column) {
    return (row & 4) << 2 | (column & 4) << 1 | (row & 3) << 1 | (column >> 1 & 1);
  }

 private:
  storage_type elements_;
};
typedef simdgroup_matrix<float> simdgroup_float8x8;
typedef simdgroup_matrix<half> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat> simdgroup_bfloat8x8;

template <class T, int rows = 8, int columns = 8>
METAL_INLINE simdgroup_matrix<T, rows, columns> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, rows, columns> result;
  result.thread_elements() = vec<T, 2>(value);
  return result;
}

template <class T>
METAL_INLINE ulong cpu_simdgroup_element(int i, ulong stride, ulong2 origin, bool transposed) {
  const ulong row = simdgroup_matrix<T>::row(), column = simdgroup_matrix<T>::column() + i;
  return ((transposed ? column : row) + origin.y) * stride + (transposed ? row : column) + origin.x;
}
template <class T, class P>
METAL_INLINE void simdgroup_load(simdgroup_matrix<T>& matrix, const P* source, ulong stride = 8,
                                 ulong2 origin = ulong2(0), bool transposed = false) {
  for (int i = 0; i < 2; ++i)
    matrix.thread_elements()[i] = T(source[cpu_simdgroup_element<T>(i, stride, origin, transposed)]);
}
template <class T, class P>
METAL_INLINE void simdgroup_store(simdgroup_matrix<T> matrix, P* target, ulong stride = 8, ulong2 origin = ulong2(0),
                                  bool transposed = false) {
  for (int i = 0; i < 2; ++i)
    target[cpu_simdgroup_element<T>(i, stride, origin, transposed)] = P(matrix.thread_elements()[i]);
}

// d = a b + c
template <class D, class A, class B, class C>
METAL_INLINE void simdgroup_multiply_accumulate(simdgroup_matrix<D>& d, simdgroup_matrix<A> a, simdgroup_matrix<B> b,
                                                simdgroup_matrix<C> c, METAL_SITE) {
  struct Factors {
    vec<A, 2> a;
    vec<B, 2> b;
  };
  const cpu_lanes<Factors> all(Factors{a.thread_elements(), b.thread_elements()}, site);
  const uint row = simdgroup_matrix<D>::row(), column = simdgroup_matrix<D>::column();
  float sums[2] = {float(c.thread_elements()[0]), float(c.thread_elements()[1])};
  for (uint k = 0; k < 8; ++k) {
    const float left = float(all.at(simdgroup_matrix<D>::holder(row, k)).a[k & 1]);
    const vec<B, 2> right = all.at(simdgroup_matrix<D>::holder(k, column)).b;
    for (int i = 0; i < 2; ++i) sums[i] = __builtin_fmaf(left, float(right[i]), sums[i]);
  }
  d.thread_elements() = vec<D, 2>(D(sums[0]), D(sums[1]));
}
template <class D, class A, class B>
METAL_INLINE void simdgroup_multiply(simdgroup_matrix<D>& d, simdgroup_matrix<A> a, simdgroup_matrix<B> b, METAL_SITE) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D>(D(0)), site);
}

}  // namespace metal
