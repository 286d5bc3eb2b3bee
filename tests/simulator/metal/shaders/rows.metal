#include <metal_stdlib>
using namespace metal;

// Root-mean-square norm of each row; one threadgroup a row, sums by simdgroup and then through threadgroup memory.
template <typename T>
kernel void rms_norm(
    device T* out [[buffer(0)]],
    const device T* in [[buffer(1)]],
    constant uint& n [[buffer(2)]],
    constant float& eps [[buffer(3)]],
    uint tid [[thread_position_in_threadgroup]],
    uint row [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]) {
  threadgroup float partial[32], scale;
  float sum = 0;
  for (uint i = tid; i < n; i += threads) {
    const float x = in[row * n + i];
    sum += x * x;
  }
  sum = simd_sum(sum);
  if (lane == 0) {
    partial[simdgroup] = sum;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (simdgroup == 0) {
    const float total = simd_sum(lane < (threads + 31) / 32 ? partial[lane] : 0.0);
    if (lane == 0) {
      scale = rsqrt(total / n + eps);
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = tid; i < n; i += threads) {
    out[row * n + i] = T(float(in[row * n + i]) * scale);
  }
}
template [[host_name("rms_norm_float")]] [[kernel]] decltype(rms_norm<float>) rms_norm<float>;
template [[host_name("rms_norm_bfloat")]] kernel decltype(rms_norm<bfloat>) rms_norm<bfloat>;
#define INSTANTIATE(name, T)                                                                                         \
  template [[host_name(name "_" #T)]] kernel void rms_norm<T>(                                                       \
      device T * out [[buffer(0)]], const device T* in [[buffer(1)]], constant uint& n [[buffer(2)]],                \
      constant float& eps [[buffer(3)]], uint tid [[thread_position_in_threadgroup]],                                \
      uint row [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]],                            \
      uint simdgroup [[simdgroup_index_in_threadgroup]], uint threads [[threads_per_threadgroup]]);
INSTANTIATE("rms_norm", half)

// Softmax of each row, with a tree in threadgroup memory.
[[max_total_threads_per_threadgroup(128)]] kernel void softmax(
    device float* out,
    constant float* in,
    constant long& n,
    uint2 position [[thread_position_in_grid]],
    ushort2 group [[thread_position_in_threadgroup]]) {
  threadgroup float shared[128];
  const uint tid = group.x;
  constant float* row = in + position.y * n;
  float largest = -INFINITY;
  for (long i = tid; i < n; i += 128) {
    largest = max(largest, row[i]);
  }
  shared[tid] = largest;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 64; step > 0; step /= 2) {
    if (tid < step) {
      shared[tid] = max(shared[tid], shared[tid + step]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  largest = shared[0];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  float sum = 0;
  for (long i = tid; i < n; i += 128) {
    sum += exp(row[i] - largest);
  }
  shared[tid] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint step = 64; step > 0; step /= 2) {
    if (tid < step) {
      shared[tid] += shared[tid + step];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (long i = tid; i < n; i += 128) {
    out[position.y * n + i] = exp(row[i] - largest) / shared[0];
  }
}
