// Gated linear units: see patcher/ops/gated_linear_unit.py. E, G and D are the types of the activation's input, the
// factor and the gradient, P that of products of G and D; H, Q and R those of what is written, in their order.
// A thread has four elements in a row.

#include <c10/metal/special_math.h>

constant constexpr uint EACH = 4;
constant constexpr uint SILU = 0, GELU = 1;  // 2 is GELU with tanh
constant constexpr float CUBIC = 0.044715f, SQRT_HALF = 0.70710678118654752f, SQRT_8_OVER_PI = 1.5957691216057308f,
                         INVERSE_SQRT_2_PI = 0.39894228040143268f;

struct Unit {
    long columns;
    long activation;
    long strides[6];  // of rows
};

inline float sigmoid(float x) {
    return 1.0f / (1.0f + precise::exp(-x));
}

/// What multiplies `e`, and the slope of their product.
inline float2 gate(float e, uint activation) {
    if (activation == SILU) {
        const float s = sigmoid(e);
        return float2(s, ((1.0f - s) * e + 1.0f) * s);
    }
    if (activation == GELU) {
        const float cdf = (c10::metal::erf(e * SQRT_HALF) + 1.0f) * 0.5f;
        return float2(cdf, precise::exp(e * e * -0.5f) * e * INVERSE_SQRT_2_PI + cdf);
    }
    const float v = (e * e * CUBIC + 1.0f) * e * SQRT_8_OVER_PI;
    const float t = sigmoid(v);
    return float2(t, (sigmoid(-v) * ((e * e * (3.0f * CUBIC) + 1.0f) * e * SQRT_8_OVER_PI) + 1.0f) * t);
}

kernel void forward(
    device const E* e, device const G* g, device E* h, constant Unit& unit, uint2 place [[thread_position_in_grid]]
) {
    e += place.y * unit.strides[0];
    g += place.y * unit.strides[1];
    h += place.y * unit.strides[2];
    for (uint k = 0; k < EACH; ++k) {
        const uint i = place.x * EACH + k;
        if (i < unit.columns) {
            const float value = float(e[i]);
            h[i] = E(float(G(float(G(gate(value, unit.activation).x * value)) * float(g[i]))));
        }
    }
}

kernel void backward(
    device const D* grad, device const E* e, device const G* g, device H* h, device Q* grad_g, device R* grad_e,
    constant Unit& unit, uint2 place [[thread_position_in_grid]]
) {
    grad += place.y * unit.strides[0];
    e += place.y * unit.strides[1];
    g += place.y * unit.strides[2];
    h += place.y * unit.strides[3];
    grad_g += place.y * unit.strides[4];
    grad_e += place.y * unit.strides[5];
    for (uint k = 0; k < EACH; ++k) {
        const uint i = place.x * EACH + k;
        if (i < unit.columns) {
            const float flowing = float(grad[i]), value = float(e[i]), factor = float(g[i]);
            const float2 made = gate(value, unit.activation);
            const float f = float(D(made.x * value));
            h[i] = H(float(P(f * factor)));
            grad_g[i] = Q(float(D(flowing * f)));
            grad_e[i] = R(float(D(made.y * float(P(flowing * factor)))));
        }
    }
}
