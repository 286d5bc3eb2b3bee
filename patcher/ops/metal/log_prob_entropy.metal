// Log-probability of a token and entropy: see patcher/ops/log_prob_entropy.py. X is the type of logits, L of tokens.

constant constexpr uint EACH = 4;

struct Rows {
    long vocabulary, count;  // tokens, and rows of one sample
    long sample, stride;     // strides of samples and rows of logits
    long masked;             // 1: rows whose mask is 0 give 0
    long probs, entropy;     // which gradients there are
};

/// A threadgroup has a row, which it reads once: sums are of exp(z - top), and shrink where top grows.
kernel void forward(
    device const X* logits, device const L* index, device const bool* mask, device float* log_probs,
    device float* entropy, device float* log_zs, device float* expecteds, constant Rows& rows,
    constant float& temperature, uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint vocabulary = rows.vocabulary, count = rows.count;
    logits += row / count * rows.sample + row % count * rows.stride;
    const bool counted = !rows.masked || mask[row];
    float top = -INFINITY, sum = 0.0f, weighted = 0.0f;
    for (uint start = 0; counted && start < vocabulary; start += HELD * threads) {
        float z[HELD];
        float largest = top;
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            z[k] = i < vocabulary ? float(logits[i]) / temperature : -INFINITY;
            largest = max(largest, z[k]);
        }
        const float shift = largest == -INFINITY ? 0.0f : largest;
        const float less = precise::exp(top - shift);
        sum *= less;
        weighted *= less;
        for (uint k = 0; k < HELD; ++k) {
            if (column(start, k, tid, threads) < vocabulary) {
                const float p = precise::exp(z[k] - shift);
                sum += p;
                weighted += p * z[k];
            }
        }
        top = largest;
    }
    float all = group_max(top, partial, tid, threads);
    all = all == -INFINITY ? 0.0f : all;
    const float less = top == -INFINITY ? 0.0f : precise::exp(top - all);
    const float total = group_sum(sum * less, partial, tid, threads);
    const float expected = group_sum(weighted * less, partial, tid, threads) / total;
    if (tid == 0) {
        const float log_z = all + precise::log(total);
        log_probs[row] = counted ? float(logits[index[row]]) / temperature - log_z : 0.0f;
        entropy[row] = counted ? log_z - expected : 0.0f;
        log_zs[row] = counted ? log_z : 0.0f;
        expecteds[row] = counted ? expected : 0.0f;
    }
}

/// A thread has four logits of a row.
kernel void backward(
    device const float* grad_log_probs, device const float* grad_entropy, device const X* logits,
    device const L* index, device const bool* mask, device const float* log_zs, device const float* expecteds,
    device X* out, constant Rows& rows, constant float& temperature, uint2 place [[thread_position_in_grid]]
) {
    const uint row = place.y, count = rows.count, vocabulary = rows.vocabulary;
    logits += row / count * rows.sample + row % count * rows.stride;
    out += long(row) * rows.vocabulary;
    const bool counted = !rows.masked || mask[row];
    const float of_probs = rows.probs ? grad_log_probs[row] : 0.0f;
    const float of_entropy = rows.entropy ? grad_entropy[row] : 0.0f;
    for (uint k = 0; k < EACH; ++k) {
        const uint i = place.x * EACH + k;
        if (i >= vocabulary) {
            return;
        }
        const float z = float(logits[i]) / temperature;
        const float p = precise::exp(z - log_zs[row]);
        float grad = rows.probs ? (i == uint(index[row]) ? of_probs : 0.0f) - p * of_probs : 0.0f;
        grad += rows.entropy ? p * of_entropy * (expecteds[row] - z) : 0.0f;
        out[i] = counted ? X(grad / temperature) : X(0.0f);
    }
}
