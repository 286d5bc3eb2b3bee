// A tile of logits in a softmax: see patcher/ops/softmax_tile.py. X and B are the types of tile and bias.

#include <c10/metal/utils.h>

constant constexpr uint EACH = 4;
constant constexpr float NOTHING = -INFINITY;

struct Tile {
    long columns;
    long has_bias;
    long weights;  // whether the tile becomes weights
    long z;        // which sums are wanted
    long z_exp;
    long square;
};

struct How {
    float factor;   // slope of z at 0
    float softcap;  // 0: none
    float inner;    // scale / softcap
    float outer;    // softcap / temperature
};

/// z of a product and, of its slope, what the softcap makes of it.
inline float2 transformed(float y, constant How& how) {
    if (how.softcap == 0.0f) {
        return float2(y * how.factor, 1.0f);
    }
    const float t = precise::tanh(y * how.inner);
    return float2(t * how.outer, 1.0f - t * t);
}

/// A threadgroup has a row. Rows that are wider than HELD * threads are read twice.
kernel void fold(
    device X* y, device const long* places, device const B* bias, device float* maximum, device float* total,
    device float* sum_z, device float* sum_z_exp, device float* sum_square, device float* rescale,
    constant Tile& tile, constant How& how, uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = tile.columns;
    const bool wide = columns > HELD * threads;
    const long label = places[row] - long(row) * tile.columns;  // beyond the row where it is in another tile
    y += ulong(row) * tile.columns;
    float2 held[HELD];
    float top = NOTHING, all = 0.0f, total_z = 0.0f, exps = 0.0f, z_exps = 0.0f, squares = 0.0f;
    for (uint turn = 0; turn < 2; ++turn) {
        for (uint start = 0; start < columns; start += HELD * threads) {
            for (uint k = 0; k < HELD; ++k) {
                const uint i = column(start, k, tid, threads);
                if (i >= columns) {
                    continue;
                }
                if (turn == 0 || wide) {
                    held[k] = transformed(float(y[i]) + (tile.has_bias ? float(bias[i]) : 0.0f), how);
                }
                const float z = held[k].x;
                const bool is_label = long(i) == label;
                if (turn == 0) {
                    total_z += z;
                    top = is_label ? top : max(top, z);
                } else {
                    const float exp = is_label ? 0.0f : precise::exp(z - all);
                    exps += exp;
                    z_exps += is_label ? 0.0f : z * exp;
                    squares += exp * exp;
                    if (tile.weights) {
                        y[i] = X(exp * held[k].y);
                    }
                }
            }
        }
        if (turn == 0) {
            all = max(maximum[row], group_max(top, partial, tid, threads));
        }
    }
    const float shrunk = precise::exp(maximum[row] - all);
    exps = group_sum(exps, partial, tid, threads);
    if (tile.z) {
        total_z = group_sum(total_z, partial, tid, threads);
    }
    if (tile.z_exp) {
        z_exps = group_sum(z_exps, partial, tid, threads);
    }
    if (tile.square) {
        squares = group_sum(squares, partial, tid, threads);
    }
    threadgroup_barrier(mem_flags::mem_device);  // each thread has read the maximum
    if (tid == 0) {
        maximum[row] = all;
        rescale[row] = shrunk;
        total[row] = total[row] * shrunk + exps;
        if (tile.z) {
            sum_z[row] += total_z;
        }
        if (tile.z_exp) {
            sum_z_exp[row] = sum_z_exp[row] * shrunk + z_exps;
        }
        if (tile.square) {
            sum_square[row] = sum_square[row] * shrunk * shrunk + squares;
        }
    }
}

/// A thread has four elements of a row.
kernel void gradient(
    device X* y, device const long* places, device const B* bias, device const float* log_z,
    device const float* at_label, device const float* a, device const float* b, constant Tile& tile,
    constant How& how, constant float& c, constant long2& given, uint2 place [[thread_position_in_grid]]
) {
    const uint row = place.y;
    const long label = places[row] - long(row) * tile.columns;
    const float constant_ = given.x ? a[row] : 1.0f, of_log_p = given.y ? b[row] : 0.0f;
    y += ulong(row) * tile.columns;
    for (uint k = 0; k < EACH; ++k) {
        const uint i = place.x * EACH + k;
        if (i < tile.columns) {
            const float2 z = transformed(float(y[i]) + (tile.has_bias ? float(bias[i]) : 0.0f), how);
            const float log_p = z.x - log_z[row];
            const float value = precise::exp(log_p) * (constant_ + of_log_p * log_p) - c;
            y[i] = X((long(i) == label ? at_label[row] : value) * z.y * how.factor);
        }
    }
}
