// Idioms of kernels in the wild: quantised blocks, structures with methods, attributes in all places, two-dimensional
// threadgroup memory, variadic instantiation, control flow.
#include <metal_stdlib>
#include <metal_simdgroup>
#include <simd/simd.h>
#pragma METAL internals : enable
using namespace metal;
#define UNROLL _Pragma("clang loop unroll(full)")
struct NibbleBlock {
  half scale;
  uint8_t codes[16];
};
static_assert(sizeof(NibbleBlock) == 18, "no padding");
// Half a block as a matrix: the low or the high four bits of its sixteen bytes, read two bytes at a time.
template <typename Matrix>
void unpack(device const NibbleBlock* block, bool high, thread Matrix& values) {
  device const ushort* pairs = reinterpret_cast<device const ushort*>(block) + 1;
  for (ushort i = 0; i < 16; i++) {
    const ushort code = pairs[i / 2] >> (i % 2 * 8 + (high ? 4 : 0)) & 15;
    values[i / 4][i % 4] = float(block->scale) * (float(code) - 8.h);
  }
}
kernel void unpack_blocks(device float* out, device const NibbleBlock* in, uint i [[thread_position_in_grid]]) {
  float4x4 values;
  unpack(in + i / 2, i % 2 == 1, values);
  UNROLL for (short k = 0; k < 16; ++k) {
    out[i * 16 + k] = values[k / 4][k % 4];
  }
}
template <typename T> struct Acc {
  T total; 
  METAL_FUNC Acc() : total(0) {}
  METAL_FUNC void add(T x) thread { total += x; }
  METAL_FUNC T get() const { return total; }
  static METAL_FUNC T init() { return T(0); }
  template <typename U> METAL_FUNC U as() const { return static_cast<U>(total); }
};
struct Params { int M, N; float alpha; int2 pad; };
constant bool do_x [[function_constant(20)]];
constant const float kTable[2] = {0.5f, 2.0f};
template <typename T, int BM, bool flag = false>
[[kernel, max_total_threads_per_threadgroup(64)]] void many(
   const device T* a [[buffer(0)]], device T* out [[buffer(1)]], const constant Params* params [[buffer(2)]],
   const constant int* shape [[buffer(3)]], const constant int64_t& stride [[buffer(4)]],
   uint simd_lane_id [[thread_index_in_simdgroup]], uint simd_group_id [[simdgroup_index_in_threadgroup]],
   uint3 tid [[threadgroup_position_in_grid]], uint3 lid [[thread_position_in_threadgroup]]) {
  (void)simd_group_id;
  threadgroup T tile[BM][BM + 1];
  threadgroup T* flat = &tile[0][0];
  Acc<float> acc;
  const uint n = params->M * params->N;
  if constexpr (flag) { acc.add(1); }
  for (uint i = lid.x; i < BM * (BM + 1); i += 64) flat[i] = T(0);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lid.x < n) { acc.add(float(a[lid.x * stride]) * params->alpha * kTable[lid.x & 1]); }
  half h = simd_sum(half(acc.get()));
  vec<T, 4> v = *reinterpret_cast<const device vec<T, 4>*>(a);
  packed_float3 p = packed_float3(float3(1, 2, 3)); float3 q = p; q += float3(p) * 2.0f; p.x = 4;
  float e = metal::precise::exp(0.0f) + fast::exp2(1.0f) + metal::fmax(0.f, -1.f) + length(q) * 0 + dot(float2(1, 2), float2(3, 4)) * 0;
  uint packed = as_type<uint>(half2(1, 2)); half2 un = as_type<half2>(packed);
  out[lid.x] = T(float(h) * 0 + acc.template as<float>() + e - 3 + select(0.0f, 1.0f, un.y == 2.0h) - 1 + (any(v != v) ? 1 : 0)) + T(shape[0] * 0 + int(clamp(5, 0, 0)) + abs(-0) + sign(0.0f));
}
#define inst(name, T, BM, ...) template [[host_name(name)]] [[kernel]] decltype(many<T, BM, ##__VA_ARGS__>) many<T, BM, ##__VA_ARGS__>;
inst("many_f" "_8", float, 8)
inst("many_h_8_true", half, 8, true)
inst("many_b_8", bfloat, 8, false)
struct PerThread { float m = -INFINITY; float s = 0; };
kernel void loops(device float* o, uint i [[thread_position_in_grid]], uint simd_size [[threads_per_simdgroup]], uint sgs [[simdgroups_per_threadgroup]]) {
  PerThread t; float r[4] = {0, 1, 2, 3}; auto f = r[i % 4]; thread float* pr = r;
  switch (i % 3) { case 0: f += 1; break; default: f -= 1; }
  while (f > 100) { f /= 2; }
  do { f += 0; } while (false);
  const auto g = bool2(true, false); uchar4 c = uchar4(255); c.xyz += uchar3(1);
  o[i] = f + pr[0] + (t.m < 0 ? 0 : 1) + (all(g) ? 100 : 0) + c.x + simd_size * 0 + sgs * 0 + popcount(7u) * 0 + (1.0h > 2.0h) + isnan(NAN) * 0;
}
