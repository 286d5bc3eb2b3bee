// What the kernels of all ops stand on; it comes before each op's source.
#include <metal_stdlib>
using namespace metal;

/// Elements of a row that a thread holds in registers.
constant constexpr uint HELD = 8;

/// The column of a thread's k-th element in the panel of HELD * threads columns that begins at `start`.
inline uint column(uint start, uint k, uint tid, uint threads) {
    return start + (k / 4 * threads + tid) * 4 + k % 4;
}

/// The sum over a threadgroup of whole simdgroups, for each of its threads. `partial` has room for 32 numbers.
inline float group_sum(float value, threadgroup float* partial, uint tid, uint threads) {
    value = simd_sum(value);
    if (threads <= 32) {
        return value;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (tid % 32 == 0) {
        partial[tid / 32] = value;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(tid % 32 < threads / 32 ? partial[tid % 32] : 0.0f);
}

/// The largest number of a threadgroup of whole simdgroups, for each of its threads.
inline float group_max(float value, threadgroup float* partial, uint tid, uint threads) {
    value = simd_max(value);
    if (threads <= 32) {
        return value;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (tid % 32 == 0) {
        partial[tid / 32] = value;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_max(tid % 32 < threads / 32 ? partial[tid % 32] : -INFINITY);
}
