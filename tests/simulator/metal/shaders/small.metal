#include <metal_atomic>
#include <metal_stdlib>
using namespace metal;

struct Affine {
  float scale;
  int shift[2];
};
enum class Mode : int { add = 1, multiply };
constant float table[3] = {1, 10, 100};

inline float chosen(float a, float b, Mode mode) {
  return mode == Mode::add ? a + b : a * b;
}
// The same for two address spaces.
inline float first_of(const device float* values) { return values[0]; }
inline float first_of(const threadgroup float* values) { return values[0]; }

kernel void full(device float* out, constant float& value, uint i [[thread_position_in_grid]]) { out[i] = value; }

kernel void scaled(device float* out, constant Affine& affine, device const float* in, uint i [[thread_position_in_grid]]) {
  out[i] = in[i] * affine.scale + affine.shift[i % 2] + table[i % 3];
}

kernel void swizzles(device float4* y, constant float4* x, constant float2& ab, uint i [[thread_position_in_grid]]) {
  float4 v = x[i];
  v.xy *= ab.x;
  v.zw = v.wz * ab.y;
  y[i] = fma(v, float4(2), y[i].xxzz) + float4(v.rgb, 1.0);
}

kernel void histogram(device atomic_uint* bins, constant int* x, uint i [[thread_position_in_grid]]) {
  atomic_fetch_add_explicit(&bins[x[i]], 1u, memory_order_relaxed);
}

kernel void float_sum(device atomic<float>* out, constant float* x, uint i [[thread_position_in_grid]]) {
  atomic_fetch_add_explicit(out, x[i], memory_order_relaxed);
  atomic_fetch_max_explicit(reinterpret_cast<device atomic_int*>(out + 1), int(i), memory_order_relaxed);
}

kernel void lanes(device float* out, constant float* in, uint i [[thread_position_in_grid]], ushort lane [[thread_index_in_simdgroup]]) {
  const float x = in[i];
  device float* row = out + i * 16;
  row[0] = simd_sum(x);
  row[1] = simd_max(x);
  row[2] = simd_prefix_inclusive_sum(x);
  row[3] = simd_prefix_exclusive_sum(x);
  row[4] = simd_shuffle_down(x, 3);
  row[5] = simd_shuffle_up(x, 3);
  row[6] = simd_shuffle_xor(x, 5);
  row[7] = simd_shuffle(x, 31 - lane);
  row[8] = simd_shuffle_rotate_down(x, 1);
  row[9] = simd_broadcast_first(x);
  row[10] = float(ulong(simd_ballot(x > 0)));
  row[11] = simd_shuffle_and_fill_down(x, -x, 2);
  row[12] = quad_sum(x);
  row[13] = quad_shuffle_xor(x, 1);
  row[14] = simd_all(x > -100) && !simd_any(x > 100);
  if (lane % 2) {
    row[15] = simd_sum(x);  // of the lanes that are here
  } else {
    row[15] = simd_min(x);
  }
}

kernel void places(device uint* out, uint3 grid [[thread_position_in_grid]], uint3 size [[threads_per_grid]],
                   uint3 local [[thread_position_in_threadgroup]], uint3 group [[threadgroup_position_in_grid]],
                   ushort3 groups [[threadgroups_per_grid]], uint3 threads [[threads_per_threadgroup]],
                   uint index [[thread_index_in_threadgroup]]) {
  device uint* row = out + ((grid.z * size.y + grid.y) * size.x + grid.x) * 8;
  row[0] = group.x * 10000 + group.y * 100 + group.z;
  row[1] = local.x * 10000 + local.y * 100 + local.z;
  row[2] = groups.x * 10000 + groups.y * 100 + groups.z;
  row[3] = threads.x * 10000 + threads.y * 100 + threads.z;
  row[4] = index;
}

kernel void through_addresses(constant const device float* const* inputs, device float* out, uint i [[thread_position_in_grid]]) {
  out[i] = inputs[0][i] + inputs[1][i];
}

kernel void overloads(device float* out, device const float* in, uint i [[thread_position_in_grid]]) {
  threadgroup float copy[4];
  copy[0] = 2 * first_of(in);
  out[i] = chosen(first_of(copy), first_of(in), Mode::multiply) + half(0.5h) + as_type<float>(0x3f800000);
}

kernel void too_much(device float* out, uint i [[thread_position_in_grid]]) {
  threadgroup float memory[8193];
  memory[i] = i;
  out[i] = memory[i];
}

kernel void left_early(device float* out, uint i [[thread_position_in_grid]]) {
  if (i < 7) return;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  out[i] = 1;
}

constant int factor [[function_constant(0)]];
constant bool negated [[function_constant(1)]];
kernel void constants(device float* out, uint i [[thread_position_in_grid]]) { out[i] = negated ? -factor : factor; }
