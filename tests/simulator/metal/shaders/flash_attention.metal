#include <metal_simdgroup_matrix>
#include <metal_stdlib>
using namespace metal;

// Causal attention without the matrix of scores. q, k, v, out: [heads, n, D]. A threadgroup of two simdgroups takes 16
// queries of a head, each simdgroup 8 of them, and goes through the keys 8 at a time with a running maximum and sum.
template <typename T, int D>
kernel void attention(
    device T* out [[buffer(0)]],
    const device T* q [[buffer(1)]],
    const device T* k [[buffer(2)]],
    const device T* v [[buffer(3)]],
    constant uint& n [[buffer(4)]],
    constant float& scale [[buffer(5)]],
    uint2 group [[threadgroup_position_in_grid]],
    uint tid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]) {
  threadgroup float queries[16 * D], keys[8 * D], values[8 * D];
  threadgroup float all_scores[2 * 64], all_scales[2 * 64];
  threadgroup float* scores = all_scores + simdgroup * 64;
  threadgroup float* scales = all_scales + simdgroup * 64;
  threadgroup float* own_queries = queries + simdgroup * 8 * D;
  const uint first = group.x * 16;
  const ulong head = ulong(group.y) * n * D;

  for (uint i = tid; i < 16 * D; i += 64) {
    queries[i] = first + i / D < n ? float(q[head + first * D + i]) * scale : 0.0f;
  }
  simdgroup_float8x8 sums[D / 8];
  for (int d = 0; d < D / 8; d++) {
    sums[d] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  const uint row = lane / 4, column = lane % 4 * 2, query = first + simdgroup * 8 + row;
  float largest = -INFINITY, total = 0;

  for (uint key = 0; key < min(n, first + 16); key += 8) {
    for (uint i = tid; i < 8 * D; i += 64) {
      const bool inside = key + i / D < n;
      keys[i] = inside ? float(k[head + key * D + i]) : 0.0f;
      values[i] = inside ? float(v[head + key * D + i]) : 0.0f;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    simdgroup_float8x8 score = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (int d = 0; d < D; d += 8) {
      simdgroup_float8x8 left, right;
      simdgroup_load(left, own_queries + d, D);
      simdgroup_load(right, keys + d, D, ulong2(0, 0), true);
      simdgroup_multiply_accumulate(score, left, right, score);
    }
    simdgroup_store(score, scores, 8);
    simdgroup_barrier(mem_flags::mem_threadgroup);

    float2 x = float2(scores[row * 8 + column], scores[row * 8 + column + 1]);
    x = select(x, float2(-INFINITY), uint2(key + column) + uint2(0, 1) > uint2(min(query, n - 1)));
    const float before = largest;
    largest = max(largest, quad_max(max(x.x, x.y)));
    const float shrink = exp(before - largest);
    x = exp(x - largest);
    total = total * shrink + quad_sum(x.x + x.y);
    scores[row * 8 + column] = x.x;
    scores[row * 8 + column + 1] = x.y;
    scales[row * 8 + column] = column == row ? shrink : 0.0f;
    scales[row * 8 + column + 1] = column + 1 == row ? shrink : 0.0f;
    simdgroup_barrier(mem_flags::mem_threadgroup);

    simdgroup_float8x8 weights, diagonal;
    simdgroup_load(weights, scores, 8);
    simdgroup_load(diagonal, scales, 8);
    for (int d = 0; d < D / 8; d++) {
      simdgroup_float8x8 value;
      simdgroup_load(value, values + d * 8, D);
      simdgroup_multiply(sums[d], diagonal, sums[d]);
      simdgroup_multiply_accumulate(sums[d], weights, value, sums[d]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  for (int d = 0; d < D / 8; d++) {
    simdgroup_store(sums[d], own_queries + d * 8, D);
  }
  scales[lane] = 0.0f;
  simdgroup_barrier(mem_flags::mem_threadgroup);
  if (lane % 4 == 0) {
    scales[row] = 1.0f / total;
  }
  simdgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = lane; i < 8 * D; i += 32) {
    if (first + simdgroup * 8 + i / D < n) {
      out[head + (first + simdgroup * 8) * D + i] = T(own_queries[i] * scales[i / D]);
    }
  }
}
template [[host_name("attention_float_32")]] kernel decltype(attention<float, 32>) attention<float, 32>;
template [[host_name("attention_half_64")]] kernel decltype(attention<half, 64>) attention<half, 64>;
