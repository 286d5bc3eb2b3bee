// Cross entropy: see patcher/ops/cross_entropy.py. X is the type of logits, L of labels, G of what flows back.

#include <c10/metal/expm1f.h>
#include <c10/metal/utils.h>

constant constexpr long IGNORED = -100;
constant constexpr uint EACH = 4;

struct Loss {
    long vocabulary;
    long stride;       // of rows of logits
    long grad_stride;  // of what flows back
};

/// The tanh of a logit, where there is a softcap; else z itself.
inline float bent(float logit, float softcap, float scale) {
    const float z = scale == 0.0f ? logit : logit * scale;
    return softcap == 0.0f ? z : precise::tanh(z / softcap);
}

/// z, of a logit.
inline float transformed(float logit, float softcap, float scale) {
    return bent(logit, softcap, scale) * (softcap == 0.0f ? 1.0f : softcap);
}

/// A threadgroup has a row, which it reads once: sums are of exp(z - top), and shrink where top grows.
kernel void forward(
    device const X* logits, device const L* labels, device float* losses, device float* logsumexp,
    constant Loss& loss, constant float* how, uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]], uint threads [[threads_per_threadgroup]]
) {
    threadgroup float partial[32];
    const uint vocabulary = loss.vocabulary;
    const float softcap = how[0], scale = how[1];
    logits += row * loss.stride;
    const bool counted = long(labels[row]) != IGNORED;
    const uint label = counted ? uint(labels[row]) : 0;
    float top = -INFINITY, sum = 0.0f;
    for (uint start = 0; start < vocabulary; start += HELD * threads) {
        float z[HELD];
        float largest = top;
        for (uint k = 0; k < HELD; ++k) {
            const uint i = column(start, k, tid, threads);
            z[k] = i < vocabulary ? transformed(float(logits[i]), softcap, scale) : -INFINITY;
            largest = max(largest, z[k]);
        }
        const float shift = largest == -INFINITY ? 0.0f : largest;
        sum *= precise::exp(top - shift);
        for (uint k = 0; k < HELD; ++k) {
            sum += column(start, k, tid, threads) == label ? 0.0f : precise::exp(z[k] - shift);
        }
        top = largest;
    }
    float all = group_max(top, partial, tid, threads);
    all = all == -INFINITY ? 0.0f : all;
    const float others = group_sum(sum == 0.0f ? 0.0f : sum * precise::exp(top - all), partial, tid, threads);
    if (tid == 0) {
        const float at_label = transformed(float(logits[label]), softcap, scale);
        const float lead = all + precise::log(others) - at_label;
        losses[row] = counted ? (lead > 20.0f ? lead : c10::metal::log1p(precise::exp(lead))) : 0.0f;
        logsumexp[row] = precise::log(others + precise::exp(at_label - all)) + all;
    }
}

/// A thread has four logits of a row.
kernel void backward(
    device const G* grad, device const X* logits, device const L* labels, device const float* losses,
    device const float* logsumexp, device X* out, constant Loss& loss, constant float* how,
    uint2 place [[thread_position_in_grid]]
) {
    const uint row = place.y;
    const float softcap = how[0], scale = how[1];
    const long label = labels[row];
    const float weight = label == IGNORED ? 0.0f : float(grad[row * loss.grad_stride]) * (scale == 0.0f ? 1.0f : scale);
    const uint marked = label == IGNORED ? 0 : uint(label);
    logits += row * loss.stride;
    out += row * loss.vocabulary;
    for (uint k = 0; k < EACH; ++k) {
        const uint i = place.x * EACH + k;
        if (i < loss.vocabulary) {
            const float tanh = bent(float(logits[i]), softcap, scale);
            const float z = softcap == 0.0f ? tanh : tanh * softcap;
            float dz = i == marked ? c10::metal::expm1f(-losses[row]) : precise::exp(z - logsumexp[row]);
            if (softcap != 0.0f) {
                dz *= 1.0f - tanh * tanh;
            }
            out[i] = X(dz * weight);
        }
    }
}
