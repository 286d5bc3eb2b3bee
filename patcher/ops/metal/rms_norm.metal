// RMSNorm: see patcher/ops/rms_norm.py. X, W, G and D are the types of rows, weight, gradient and its result.
// A threadgroup has a row. Rows that are wider than HELD * threads are read once more for what is written.

struct Norm {
    long columns;
    long x_stride;       // of rows, in elements
    long g_stride;
    long out_stride;
    long unit_offset;    // 1: the weight is w + 1
    long saved_is_output;
};

inline float factor_of(W weight, bool unit_offset) {
    return unit_offset ? float(weight) + 1.0f : float(weight);
}

kernel void forward(
    device const X* x, device const W* weight, device X* y, device float* rstd, constant Norm& norm,
    constant float& eps, uint row [[threadgroup_position_in_grid]], uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = norm.columns;
    const bool wide = columns > HELD * threads;
    x += row * norm.x_stride;
    y += row * norm.out_stride;
    float held[HELD];
    float squares = 0.0f;
    for (uint start = 0; start < columns; start += HELD * threads) {
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            held[k] = i < columns ? float(x[i]) : 0.0f;
            squares += held[k] * held[k];
        }
    }
    const float scale = precise::rsqrt(group_sum(squares, partial, tid, threads) / float(columns) + eps);
    if (tid == 0) {
        rstd[row] = scale;
    }
    for (uint start = 0; start < columns; start += HELD * threads) {
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            if (i < columns) {
                const float normed = (wide ? float(x[i]) : held[k]) * scale;
                y[i] = norm.unit_offset ? X(normed * (float(weight[i]) + 1.0f))
                                        : X(float(W(float(W(normed)) * float(weight[i]))));
            }
        }
    }
}

kernel void backward(
    device const G* grad, device const X* saved, device const W* weight, device const float* rstd, device D* out,
    constant Norm& norm, uint row [[threadgroup_position_in_grid]], uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = norm.columns;
    const bool wide = columns > HELD * threads;
    const float scale = rstd[row];
    grad += row * norm.g_stride;
    saved += row * norm.x_stride;
    out += row * norm.out_stride;
    float scaled[HELD], normed[HELD];
    float products = 0.0f;
    for (uint turn = 0; turn < 2; ++turn) {
        const float projection = turn ? group_sum(products, partial, tid, threads) / float(columns) : 0.0f;
        for (uint start = 0; start < columns; start += HELD * threads) {
            for (uint k = 0; k < HELD; ++k) {
                const uint i = column(start, k, tid, threads);
                if (i >= columns) {
                    continue;
                }
                if (turn == 0 || wide) {
                    const float factor = factor_of(weight[i], norm.unit_offset);
                    scaled[k] = float(grad[i]) * factor;
                    normed[k] = norm.saved_is_output ? float(saved[i]) / factor : float(saved[i]) * scale;
                }
                if (turn == 0) {
                    products += scaled[k] * normed[k];
                } else {
                    out[i] = D((scaled[k] - normed[k] * projection) * scale);
                }
            }
        }
    }
}

/// 32 columns a threadgroup of 32 x 32 threads, each of which adds up every 32nd row of one of them.
kernel void weight_gradient(
    device const G* grad, device const X* saved, device const W* weight, device const float* rstd, device W* out,
    constant Norm& norm, constant long& rows, uint group [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]]
) {
    threadgroup float sums[32][33];
    const uint lane = tid % 32, line = tid / 32;
    const uint i = group * 32 + lane;
    float sum = 0.0f;
    if (i < norm.columns) {
        const float factor = factor_of(weight[i], norm.unit_offset);
        for (long row = line; row < rows; row += 32) {
            const float kept = float(saved[row * norm.x_stride + i]);
            const float normed = norm.saved_is_output ? kept / factor : kept * rstd[row];
            sum += float(grad[row * norm.g_stride + i]) * (norm.unit_offset ? normed : float(W(normed)));
        }
    }
    sums[line][lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float total = simd_sum(sums[lane][line]);
    if (lane == 0 && group * 32 + line < norm.columns) {
        out[group * 32 + line] = W(total);
    }
}

/// residual = x + residual in x's type, x = norm(residual) * weight in fp32, both in place.
kernel void add_forward(
    device X* x, device G* residual, device const W* weight, constant Norm& norm, constant long& add,
    constant float& eps, uint row [[threadgroup_position_in_grid]], uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = norm.columns;
    const bool wide = columns > HELD * threads;
    x += row * norm.x_stride;
    residual += row * norm.g_stride;
    float held[HELD];
    float squares = 0.0f;
    for (uint start = 0; start < columns; start += HELD * threads) {
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            if (i < columns) {
                held[k] = add ? float(X(float(x[i]) + float(residual[i]))) : float(x[i]);
                residual[i] = G(held[k]);
                squares += held[k] * held[k];
            }
        }
    }
    const float scale = precise::rsqrt(group_sum(squares, partial, tid, threads) / float(columns) + eps);
    for (uint start = 0; start < columns; start += HELD * threads) {
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            if (i < columns) {
                const float normed = (wide ? float(residual[i]) : held[k]) * scale;
                x[i] = X(float(X(normed)) * float(weight[i]));
            }
        }
    }
}
