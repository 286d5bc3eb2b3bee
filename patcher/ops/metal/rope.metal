// Rotary embedding: see patcher/ops/rope.py. X and O are the types of heads and results, S and N of cosines and sines,
// C of the computation, I of positions. A thread has a pair of a head, of the queries or of the keys after them.

struct Heads {
    long batch, head, token, element;  // strides
};

struct Rope {
    long half_size, tokens, q_heads;
    long cos_stride, sin_stride;  // of a table's rows
    long indexed, transpose;
    Heads q, q_out, k, k_out;
};

/// Where a head begins.
inline long begin(constant Heads& heads, uint batch, uint head, uint token) {
    return batch * heads.batch + head * heads.head + token * heads.token;
}

/// A pair rotated, or rotated back: one product is rounded, the other one and the sum are not.
inline void rotate(float first, float second, float c, float s, bool transpose, thread C& out0, thread C& out1) {
    s = transpose ? -s : s;
    out0 = C(first * c - float(C(second * s)));
    out1 = transpose ? C(second * c + float(C(first * s))) : C(first * s + float(C(second * c)));
}

kernel void rotated(
    device const X* q, device O* q_out, device const X* k, device O* k_out, device const S* cosines,
    device const N* sines, device const I* positions, constant Rope& rope, uint3 place [[thread_position_in_grid]]
) {
    const uint tokens = rope.tokens, j = place.x, batch = place.z / tokens, token = place.z % tokens;
    const bool query = place.y < rope.q_heads;
    const uint head = query ? place.y : place.y - rope.q_heads;
    constant Heads& from = query ? rope.q : rope.k;
    constant Heads& to = query ? rope.q_out : rope.k_out;
    device const X* x = (query ? q : k) + begin(from, batch, head, token);
    device O* out = (query ? q_out : k_out) + begin(to, batch, head, token);
    const long row = rope.indexed ? long(positions[place.z]) : long(token);
    const float c = float(C(cosines[row * rope.cos_stride + j])), s = float(C(sines[row * rope.sin_stride + j]));
    C out0, out1;
    rotate(
        float(C(x[j * from.element])), float(C(x[(j + rope.half_size) * from.element])), c, s, rope.transpose, out0,
        out1
    );
    out[j * to.element] = O(out0);
    out[(j + rope.half_size) * to.element] = O(out1);
}
