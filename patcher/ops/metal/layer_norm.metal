// LayerNorm: see patcher/ops/layer_norm.py. X, W, B and G are the types of rows, weight, bias and gradient.
// A threadgroup has a row. Rows that are wider than HELD * threads are read again for the variance and the result.

struct Norm {
    long columns;
    long x_stride, g_stride;  // of rows
    long biased;
};

kernel void forward(
    device const X* x, device const W* weight, device const B* bias, device X* y, device float* means,
    device float* rstds, constant Norm& norm, constant float& eps, uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = norm.columns;
    const bool wide = columns > HELD * threads;
    x += row * norm.x_stride;
    y += row * norm.columns;
    float held[HELD];
    float sum = 0.0f, mean = 0.0f, rstd = 0.0f;
    for (uint turn = 0; turn < 3; ++turn) {
        if (turn == 1) {
            mean = group_sum(sum, partial, tid, threads) / float(columns);
        } else if (turn == 2) {
            rstd = precise::rsqrt(group_sum(sum, partial, tid, threads) / float(columns) + eps);
        }
        sum = 0.0f;
        for (uint start = 0; start < columns; start += HELD * threads) {
            for (uint k = 0; k < HELD; ++k) {
                const uint i = column(start, k, tid, threads);
                if (i >= columns) {
                    continue;
                }
                if (turn == 0 || wide) {
                    held[k] = float(x[i]);
                }
                const float centred = held[k] - mean;
                if (turn < 2) {
                    sum += turn ? centred * centred : centred;
                } else {
                    y[i] = X(centred * rstd * float(weight[i]) + (norm.biased ? float(bias[i]) : 0.0f));
                }
            }
        }
    }
    if (tid == 0) {
        means[row] = mean;
        rstds[row] = rstd;
    }
}

kernel void backward(
    device const G* grad, device const X* x, device const W* weight, device const float* means,
    device const float* rstds, device G* out, constant Norm& norm, uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint columns = norm.columns;
    const bool wide = columns > HELD * threads;
    const float mean = means[row], rstd = rstds[row];
    grad += row * norm.g_stride;
    x += row * norm.x_stride;
    out += row * norm.columns;
    float scaled[HELD], normed[HELD];
    float sum = 0.0f, products = 0.0f, offset = 0.0f, projection = 0.0f;
    for (uint turn = 0; turn < 2; ++turn) {
        if (turn) {
            offset = group_sum(sum, partial, tid, threads) / float(columns);
            projection = group_sum(products, partial, tid, threads) / float(columns);
        }
        for (uint start = 0; start < columns; start += HELD * threads) {
            for (uint k = 0; k < HELD; ++k) {
                const uint i = column(start, k, tid, threads);
                if (i >= columns) {
                    continue;
                }
                if (turn == 0 || wide) {
                    scaled[k] = float(grad[i]) * float(weight[i]);
                    normed[k] = (float(x[i]) - mean) * rstd;
                }
                if (turn == 0) {
                    sum += scaled[k];
                    products += scaled[k] * normed[k];
                } else {
                    out[i] = G((scaled[k] - offset - normed[k] * projection) * rstd);
                }
            }
        }
    }
}

/// 32 columns a threadgroup of 32 x 32 threads, each of which adds up every 32nd row of one of them.
kernel void parameter_gradients(
    device const G* grad, device const X* x, device const float* means, device const float* rstds,
    device float* grad_weight, device float* grad_bias, constant Norm& norm, constant long& rows,
    uint group [[threadgroup_position_in_grid]], uint tid [[thread_position_in_threadgroup]]
) {
    threadgroup float products[32][33], sums[32][33];
    const uint lane = tid % 32, line = tid / 32;
    const uint i = group * 32 + lane;
    float product = 0.0f, sum = 0.0f;
    if (i < norm.columns) {
        for (long row = line; row < rows; row += 32) {
            const float flowing = float(grad[row * norm.g_stride + i]);
            product += flowing * ((float(x[row * norm.x_stride + i]) - means[row]) * rstds[row]);
            sum += flowing;
        }
    }
    products[line][lane] = product;
    sums[line][lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    product = simd_sum(products[lane][line]);
    sum = simd_sum(sums[lane][line]);
    if (lane == 0 && group * 32 + line < norm.columns) {
        grad_weight[group * 32 + line] = product;
        grad_bias[group * 32 + line] = sum;
    }
}
