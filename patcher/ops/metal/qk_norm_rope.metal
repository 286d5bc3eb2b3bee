// RMSNorm of every head, then rotary embedding: see patcher/ops/qk_norm_rope.py. X is the type of heads, W of weights, G
// of gradients, S and N of cosines and sines, C of the rotation, I of positions. A simdgroup has a head, of the queries
// or of the keys after them; a lane holds pairs of it. Heads that are wider than it holds are read once more.

struct Heads {
    long heads;
    long batch, token, head, element;      // strides
    long g_batch, g_token, g_head, g_element;
    long weight_element;
};

struct Both {
    long head, tokens;
    long cos_stride, sin_stride;  // of a table's rows
    long indexed;
    Heads q, k;
};

/// Where a simdgroup is.
struct Place {
    bool query;
    uint head, row, batch, token;

    Place(constant Both& both, uint3 at) {
        const uint tokens = both.tokens, q_heads = both.q.heads;
        query = at.y < q_heads;
        head = query ? at.y : at.y - q_heads;
        row = at.z;
        batch = row / tokens;
        token = row % tokens;
    }
};

inline void rotate(float first, float second, float c, float s, bool transpose, thread C& out0, thread C& out1) {
    s = transpose ? -s : s;
    out0 = C(first * c - float(C(second * s)));
    out1 = transpose ? C(second * c + float(C(first * s))) : C(first * s + float(C(second * c)));
}

kernel void forward(
    device const X* q, device const X* k, device const W* q_weight, device const W* k_weight, device const S* cosines,
    device const N* sines, device const I* positions, device X* q_out, device X* k_out, device float* q_rstd,
    device float* k_rstd, constant Both& both, constant float* eps, uint3 at [[thread_position_in_grid]]
) {
    const Place place(both, at);
    constant Heads& heads = place.query ? both.q : both.k;
    const uint lane = at.x, half_size = both.head / 2;
    const bool wide = half_size > HELD * 32;
    device const X* x = (place.query ? q : k) + place.batch * heads.batch + place.token * heads.token
        + place.head * heads.head;
    device const W* weight = place.query ? q_weight : k_weight;
    const long number = long(place.row) * heads.heads + place.head;
    float first[HELD], second[HELD];
    float squares = 0.0f;
    for (uint start = 0; start < half_size; start += HELD * 32) {
        for (uint n = 0; n < HELD; ++n) {
            const uint j = start + n * 32 + lane;
            if (j < half_size) {
                first[n] = float(x[j * heads.element]);
                second[n] = float(x[(j + half_size) * heads.element]);
                squares += first[n] * first[n] + second[n] * second[n];
            }
        }
    }
    const float scale = precise::rsqrt(simd_sum(squares) / float(both.head) + eps[place.query ? 0 : 1]);
    if (lane == 0) {
        (place.query ? q_rstd : k_rstd)[number] = scale;
    }
    device X* out = (place.query ? q_out : k_out) + number * both.head;
    const long row = both.indexed ? long(positions[place.row]) : long(place.token);
    for (uint start = 0; start < half_size; start += HELD * 32) {
        for (uint n = 0; n < HELD; ++n) {
            const uint j = start + n * 32 + lane;
            if (j < half_size) {
                const float a = wide ? float(x[j * heads.element]) : first[n];
                const float b = wide ? float(x[(j + half_size) * heads.element]) : second[n];
                const float w0 = float(weight[j * heads.weight_element]);
                const float w1 = float(weight[(j + half_size) * heads.weight_element]);
                const float y0 = float(C(X(float(W(float(W(a * scale)) * w0)))));
                const float y1 = float(C(X(float(W(float(W(b * scale)) * w1)))));
                const float c = float(C(cosines[row * both.cos_stride + j]));
                const float s = float(C(sines[row * both.sin_stride + j]));
                C out0, out1;
                rotate(y0, y1, c, s, false, out0, out1);
                out[j] = X(out0);
                out[j + half_size] = X(out1);
            }
        }
    }
}

/// The gradients of heads: rotated back and rounded, then through the norm.
kernel void backward(
    device const G* q_grad, device const G* k_grad, device const X* q, device const X* k, device const W* q_weight,
    device const W* k_weight, device const float* q_rstd, device const float* k_rstd, device const S* cosines,
    device const N* sines, device const I* positions, device G* q_out, device G* k_out, constant Both& both,
    uint3 at [[thread_position_in_grid]]
) {
    const Place place(both, at);
    constant Heads& heads = place.query ? both.q : both.k;
    const uint lane = at.x, half_size = both.head / 2;
    const bool wide = half_size > HELD * 32;
    device const X* x = (place.query ? q : k) + place.batch * heads.batch + place.token * heads.token
        + place.head * heads.head;
    device const G* grad = (place.query ? q_grad : k_grad) + place.batch * heads.g_batch + place.token * heads.g_token
        + place.head * heads.g_head;
    device const W* weight = place.query ? q_weight : k_weight;
    const long number = long(place.row) * heads.heads + place.head;
    const float scale = (place.query ? q_rstd : k_rstd)[number];
    device G* out = (place.query ? q_out : k_out) + number * both.head;
    const long row = both.indexed ? long(positions[place.row]) : long(place.token);
    float scaled0[HELD], scaled1[HELD], normed0[HELD], normed1[HELD];
    float products = 0.0f;
    for (uint turn = 0; turn < 2; ++turn) {
        const float projection = turn ? simd_sum(products) / float(both.head) : 0.0f;
        for (uint start = 0; start < half_size; start += HELD * 32) {
            for (uint n = 0; n < HELD; ++n) {
                const uint j = start + n * 32 + lane;
                if (j >= half_size) {
                    continue;
                }
                if (turn == 0 || wide) {
                    const float c = float(C(cosines[row * both.cos_stride + j]));
                    const float s = float(C(sines[row * both.sin_stride + j]));
                    C back0, back1;
                    rotate(
                        float(C(grad[j * heads.g_element])), float(C(grad[(j + half_size) * heads.g_element])), c, s,
                        true, back0, back1
                    );
                    scaled0[n] = float(G(back0)) * float(weight[j * heads.weight_element]);
                    scaled1[n] = float(G(back1)) * float(weight[(j + half_size) * heads.weight_element]);
                    normed0[n] = float(x[j * heads.element]) * scale;
                    normed1[n] = float(x[(j + half_size) * heads.element]) * scale;
                }
                if (turn == 0) {
                    products += scaled0[n] * normed0[n] + scaled1[n] * normed1[n];
                } else {
                    out[j] = G((scaled0[n] - normed0[n] * projection) * scale);
                    out[j + half_size] = G((scaled1[n] - normed1[n] * projection) * scale);
                }
            }
        }
    }
}
