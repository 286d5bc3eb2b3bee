#include <metal_simdgroup_matrix>
#include <metal_stdlib>
using namespace metal;

// C[M, N] = A[M, K] B[K, N]; a threadgroup of four simdgroups makes a tile of 32 x 32, each simdgroup 16 x 16 of it.
constant constexpr uint tile = 32, depth = 16;

template <typename T>
[[kernel]] void gemm(
    device T* c [[buffer(0)]],
    const device T* a [[buffer(1)]],
    const device T* b [[buffer(2)]],
    constant uint3& mnk [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint tid [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup T a_tile[tile * depth];
  threadgroup T b_tile[depth * tile];
  threadgroup float c_tile[tile * tile];
  const uint3 origin = uint3(group.y, group.x, 0) * tile;
  const uint row = simdgroup / 2 * 16, column = simdgroup % 2 * 16;
  simdgroup_matrix<float, 8, 8> sums[2][2];
  for (int i = 0; i < 4; i++) {
    sums[i / 2][i % 2] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  for (uint k = 0; k < mnk.z; k += depth) {
    for (uint i = tid; i < tile * depth; i += 128) {
      const uint2 at(origin.x + i / depth, k + i % depth);
      a_tile[i] = all(at < mnk.xz) ? a[at.x * mnk.z + at.y] : T(0);
      const uint2 from(k + i / tile, origin.y + i % tile);
      b_tile[i] = all(from < mnk.zy) ? b[from.x * mnk.y + from.y] : T(0);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint d = 0; d < depth; d += 8) {
      simdgroup_matrix<T, 8, 8> left[2], right[2];
      for (int i = 0; i < 2; i++) {
        simdgroup_load(left[i], a_tile + (row + 8 * i) * depth + d, depth);
        simdgroup_load(right[i], b_tile + d * tile + column + 8 * i, tile);
      }
      for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
          simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
        }
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 2; j++) {
      simdgroup_store(sums[i][j], c_tile + (row + 8 * i) * tile + column + 8 * j, tile);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = tid; i < tile * tile; i += 128) {
    const uint2 at = origin.xy + uint2(i / tile, i % tile);
    if (all(at < mnk.xy)) {
      c[at.x * mnk.y + at.y] = T(c_tile[i]);
    }
  }
}
template [[host_name("gemm_float")]] [[kernel]] decltype(gemm<float>) gemm<float>;
template [[host_name("gemm_half")]] [[kernel]] decltype(gemm<half>) gemm<half>;
template [[host_name("gemm_bfloat")]] [[kernel]] decltype(gemm<bfloat>) gemm<bfloat>;
