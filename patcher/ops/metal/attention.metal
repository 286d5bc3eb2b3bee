// Attention, forward and backward: the formulas are in patcher/ops/blocked_attention.py.
//
// A simdgroup has eight rows (queries, or keys in the last kernel), four of them share a threadgroup. What the rows are
// multiplied by goes through threadgroup memory in tiles of TILE, and no matrix of L x S is ever written (Dao,
// "FlashAttention-2", 2023). All products and sums are in float.
//
// Before this text stand: T, the dtype; D and DV, the sizes of a head, multiples of 8; TILE, a multiple of 8; what there
// is, 0 or 1 each: SOFTCAP, DROPOUT, PACKED, BIASED, SINKING; and the dtypes BIAS and SINK where there are such.
#define ROWS 32
#define PAD 4
#define LOWEST (-3.4028234663852886e38f)
#define EACH _Pragma("clang loop unroll(full)")

struct Sizes {
  long heads, groups;          // query heads, and how many of them share a key head
  long queries, keys;          // L and S; of packed rows T and U
  long rows;                   // batch; of packed rows their number
  long left, right;            // keys that a query sees on either side of its own place
  long q[3], k[3], v[3], o[3]; // strides of batch, head and position
  long dout[3], dq[3], dk[3], dv[3];
  long bias[4];
  long key[2], threshold;      // of the generator; a word below the threshold drops
};

struct Numbers {
  float scale, softcap, kept;
};

typedef simdgroup_float8x8 Matrix;

// The lane holds (row, column) and (row, column + 1) of a matrix.
inline int row_of(uint lane) { return (lane >> 2 & 4) + (lane >> 1 & 3); }
inline int column_of(uint lane) { return (lane >> 3 & 1) * 4 + (lane & 1) * 2; }

inline Matrix zeros() { return make_filled_simdgroup_matrix<float, 8, 8>(0.0f); }

inline void accumulate(thread Matrix& sum, Matrix left, Matrix right) {
  simdgroup_multiply_accumulate(sum, left, right, sum);
}

inline float sum_of_row(float x) {
  x += simd_shuffle_xor(x, 1);
  return x + simd_shuffle_xor(x, 8);
}

inline float max_of_row(float x) {
  x = max(x, simd_shuffle_xor(x, 1));
  return max(x, simd_shuffle_xor(x, 8));
}

// Eight rows of eight columns from memory; rows that are not there are zero.
inline Matrix from_rows(device const T* row, bool there, int column) {
  Matrix made;
  made.thread_elements()[0] = there ? float(row[column]) : 0.0f;
  made.thread_elements()[1] = there ? float(row[column + 1]) : 0.0f;
  return made;
}

inline Matrix from_tile(threadgroup const T* tile, int width, int row, int column) {
  Matrix made;
  made.thread_elements()[0] = float(tile[row * width + column]);
  made.thread_elements()[1] = float(tile[row * width + column + 1]);
  return made;
}

// The same transposed: the lane's row is a column of the tile.
inline Matrix from_tile_transposed(threadgroup const T* tile, int width, int row, int column) {
  Matrix made;
  made.thread_elements()[0] = float(tile[column * width + row]);
  made.thread_elements()[1] = float(tile[(column + 1) * width + row]);
  return made;
}

// Rows first to first + TILE of a tensor; from end on they are zero.
template <int WIDTH>
inline void load_tile(threadgroup T* tile, device const T* from, long stride, int first, int end, uint id) {
  for (int at = id; at < TILE * WIDTH; at += 4 * ROWS) {
    const int row = at / WIDTH, column = at % WIDTH;
    tile[row * (WIDTH + PAD) + column] = first + row < end ? from[(first + row) * stride + column] : T(0);
  }
}

// The row of a batch that a threadgroup works on.
struct Row {
  int queries, keys;   // L and S
  int first_query, first_key;  // where it begins in a pack
  int left, right;

  // Keys that query i sees: from x on, below y.
  int2 seen(int i) const {
    const int at = i + keys - queries;
    return int2(max(0, at - left), min(keys, at + right + 1));
  }
  // Queries that see key j, likewise.
  int2 seeing(int j) const {
    const int at = j + queries - keys;
    return int2(max(0, at - right), min(queries, at + left + 1));
  }
};

#if PACKED
inline Row row_at(constant Sizes& n, device const int* starts_q, device const int* starts_k, uint at) {
  const int q = starts_q[at], k = starts_k[at];
  return Row{starts_q[at + 1] - q, starts_k[at + 1] - k, q, k, int(n.left), int(n.right)};
}

// Zeros from row first to end, of which each threadgroup along x has every so many.
template <int WIDTH>
inline void clear_rows(device T* to, long stride, int first, int end, uint3 group, uint3 groups, uint id) {
  for (int start = first + group.x * ROWS; start < end; start += groups.x * ROWS) {
    for (int at = id; at < ROWS * WIDTH; at += 4 * ROWS)
      if (start + at / WIDTH < end) to[(start + at / WIDTH) * stride + at % WIDTH] = T(0);
  }
}
#else
inline Row row_at(constant Sizes& n) {
  return Row{int(n.queries), int(n.keys), 0, 0, int(n.left), int(n.right)};
}
#endif

#if DROPOUT
// Philox4x32-10: patcher/ops/philox.py.
inline uint4 philox(uint4 counter, uint2 key) {
  for (int i = 0; i < 10; ++i) {
    const uint a = counter.x, c = counter.z;
    counter = uint4(mulhi(0xCD9E8D57u, c) ^ counter.y ^ key.x, 0xCD9E8D57u * c,
                    mulhi(0xD2511F53u, a) ^ counter.w ^ key.y, 0xD2511F53u * a);
    key += uint2(0x9E3779B9u, 0xBB67AE85u);
  }
  return counter;
}

inline float kept(constant Sizes& n, constant Numbers& f, uint batch, uint head, uint i, uint j) {
  const uint4 words = philox(uint4(j >> 2, i, head, batch), uint2(n.key[0], n.key[1]));
  return long(words[j & 3]) < n.threshold ? 0.0f : f.kept;
}
#endif

#if BIASED
#define BIAS_PARAMETER , device const BIAS* bias
#define BIAS_ARGUMENT(b, h) , bias + (b) * n.bias[0] + (h) * n.bias[1]
#else
#define BIAS_PARAMETER
#define BIAS_ARGUMENT(b, h)
#endif
#if SINKING
#define SINK_PARAMETER , device const SINK* sinks
#define FIRST_MAXIMUM float(sinks[head])
#define FIRST_TOTAL 1.0f
#else
#define SINK_PARAMETER
#define FIRST_MAXIMUM LOWEST
#define FIRST_TOTAL 0.0f
#endif
#if PACKED
#define PACK_PARAMETERS , device const int* starts_q, device const int* starts_k
#define ROW_AT(at) row_at(n, starts_q, starts_k, at)
#else
#define PACK_PARAMETERS
#define ROW_AT(at) row_at(n)
#endif

// What the softmax sees of a product, and the derivative with respect to the scaled product.
inline float2 logit(float product, constant Sizes& n, constant Numbers& f, int i, int j BIAS_PARAMETER) {
  float z = product * f.scale, slope = 1.0f;
#if SOFTCAP
  const float t = precise::tanh(z / f.softcap);
  z = t * f.softcap;
  slope = 1.0f - t * t;
#endif
#if BIASED
  const BIAS b = bias[i * n.bias[2] + j * n.bias[3]];
  z = is_same_v<BIAS, bool> ? (b ? z : -INFINITY) : z + float(b);
#endif
  return float2(z, slope);
}

kernel void attention_forward(device const T* q, device const T* k, device const T* v, device T* out,
                              device float* maximum, device float* total, constant Sizes& n, constant Numbers& f
                              BIAS_PARAMETER SINK_PARAMETER PACK_PARAMETERS,
                              uint3 group [[threadgroup_position_in_grid]],
                   uint3 groups [[threadgroups_per_grid]], uint id [[thread_index_in_threadgroup]],
                              uint lane [[thread_index_in_simdgroup]]) {
  threadgroup T tile_k[TILE * (D + PAD)];
  threadgroup T tile_v[TILE * (DV + PAD)];
  const uint head = group.y, batch = PACKED ? 0 : group.z;
#if PACKED
  if (group.z == uint(n.rows)) {  // what lies behind the last row
    const int behind = starts_q[n.rows];
    clear_rows<DV>(out + head * n.o[1], n.o[2], behind, n.queries, group, groups, id);
    for (int i = behind + group.x * 4 * ROWS + id; i < n.queries; i += groups.x * 4 * ROWS) {
      maximum[head * n.queries + i] = FIRST_MAXIMUM;
      total[head * n.queries + i] = 1.0f;
    }
    return;
  }
#endif
  const Row row = ROW_AT(group.z);
  const int first = group.x * ROWS, r = row_of(lane), c = column_of(lane);
  if (first >= row.queries) return;
  const int i = first + id / 32 * 8 + r;
  const bool there = i < row.queries;
  const device T* own = q + batch * n.q[0] + head * n.q[1] + (row.first_query + i) * n.q[2];
  k += batch * n.k[0] + head / n.groups * n.k[1] + row.first_key * n.k[2];
  v += batch * n.v[0] + head / n.groups * n.v[1] + row.first_key * n.v[2];

  Matrix o[DV / 8];
  EACH for (int d = 0; d < DV / 8; ++d) o[d] = zeros();
  float m = FIRST_MAXIMUM, l = FIRST_TOTAL;
  const int2 seen = row.seen(i);
  const int end = row.seen(min(first + ROWS, row.queries) - 1).y;
  for (int start = row.seen(first).x; start < end; start += TILE) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    load_tile<D>(tile_k, k, n.k[2], start, end, id);
    load_tile<DV>(tile_v, v, n.v[2], start, end, id);
    threadgroup_barrier(mem_flags::mem_threadgroup);

    Matrix s[TILE / 8];
    EACH for (int t = 0; t < TILE / 8; ++t) s[t] = zeros();
    for (int d = 0; d < D; d += 8) {
      const Matrix left = from_rows(own, there, d + c);
      EACH for (int t = 0; t < TILE / 8; ++t)
        accumulate(s[t], left, from_tile_transposed(tile_k, D + PAD, d + r, t * 8 + c));
    }
    float largest = m;
    EACH for (int t = 0; t < TILE / 8; ++t) {
      EACH for (int e = 0; e < 2; ++e) {
        const int j = start + t * 8 + c + e;
        float z = LOWEST;
        if (there && j >= seen.x && j < seen.y)
          z = logit(s[t].thread_elements()[e], n, f, i, j BIAS_ARGUMENT(batch, head)).x;
        s[t].thread_elements()[e] = z;
        largest = max(largest, z);
      }
    }
    largest = max_of_row(largest);
    const float shrunk = exp(m - largest);
    m = largest;
    float sum = 0.0f;
    EACH for (int t = 0; t < TILE / 8; ++t) {
      EACH for (int e = 0; e < 2; ++e) {
        const int j = start + t * 8 + c + e;
        float p = there && j >= seen.x && j < seen.y ? exp(s[t].thread_elements()[e] - m) : 0.0f;
        sum += p;
#if DROPOUT
        p *= kept(n, f, batch, head, row.first_query + i, row.first_key + j);
#endif
        s[t].thread_elements()[e] = p;
      }
    }
    l = l * shrunk + sum_of_row(sum);
    EACH for (int d = 0; d < DV / 8; ++d) {
      o[d].thread_elements()[0] *= shrunk;
      o[d].thread_elements()[1] *= shrunk;
      EACH for (int t = 0; t < TILE / 8; ++t)
        accumulate(o[d], s[t], from_tile(tile_v, DV + PAD, t * 8 + r, d * 8 + c));
    }
  }
  if (!there) return;
  l = l == 0.0f ? 1.0f : l;
  device T* to = out + batch * n.o[0] + head * n.o[1] + (row.first_query + i) * n.o[2];
  EACH for (int d = 0; d < DV / 8; ++d) {
    EACH for (int e = 0; e < 2; ++e) to[d * 8 + c + e] = T(o[d].thread_elements()[e] / l);
  }
  if (c == 0) {
    const long at = (batch * n.heads + head) * n.queries + row.first_query + i;
    maximum[at] = m;
    total[at] = l;
  }
}

// The gradient of the queries, and of each query delta = dout . out.
kernel void attention_dq(device const T* q, device const T* k, device const T* v, device const T* out,
                         device const T* dout, device const float* maximum, device const float* total,
                         device float* delta, device T* dq, constant Sizes& n, constant Numbers& f
                         BIAS_PARAMETER PACK_PARAMETERS,
                         uint3 group [[threadgroup_position_in_grid]],
                   uint3 groups [[threadgroups_per_grid]], uint id [[thread_index_in_threadgroup]],
                         uint lane [[thread_index_in_simdgroup]]) {
  threadgroup T tile_k[TILE * (D + PAD)];
  threadgroup T tile_v[TILE * (DV + PAD)];
  const uint head = group.y, batch = PACKED ? 0 : group.z;
#if PACKED
  if (group.z == uint(n.rows)) {
    const int behind = starts_q[n.rows];
    clear_rows<D>(dq + head * n.dq[1], n.dq[2], behind, n.queries, group, groups, id);
    for (int i = behind + group.x * 4 * ROWS + id; i < n.queries; i += groups.x * 4 * ROWS)
      delta[head * n.queries + i] = 0.0f;
    return;
  }
#endif
  const Row row = ROW_AT(group.z);
  const int first = group.x * ROWS, r = row_of(lane), c = column_of(lane);
  if (first >= row.queries) return;
  const int i = first + id / 32 * 8 + r;
  const bool there = i < row.queries;
  const long position = row.first_query + i, at = (batch * n.heads + head) * n.queries + position;
  const device T* own = q + batch * n.q[0] + head * n.q[1] + position * n.q[2];
  const device T* own_out = out + batch * n.o[0] + head * n.o[1] + position * n.o[2];
  const device T* own_dout = dout + batch * n.dout[0] + head * n.dout[1] + position * n.dout[2];
  k += batch * n.k[0] + head / n.groups * n.k[1] + row.first_key * n.k[2];
  v += batch * n.v[0] + head / n.groups * n.v[1] + row.first_key * n.v[2];

  const float m = there ? maximum[at] : 0.0f, l = there ? total[at] : 1.0f;
  float own_delta = 0.0f;
  for (int d = c; there && d < DV; d += 8)
    own_delta += float(own_out[d]) * float(own_dout[d]) + float(own_out[d + 1]) * float(own_dout[d + 1]);
  own_delta = sum_of_row(own_delta);
  if (there && c == 0) delta[at] = own_delta;

  Matrix sums[D / 8];
  EACH for (int d = 0; d < D / 8; ++d) sums[d] = zeros();
  const int2 seen = row.seen(i);
  const int end = row.seen(min(first + ROWS, row.queries) - 1).y;
  for (int start = row.seen(first).x; start < end; start += TILE) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    load_tile<D>(tile_k, k, n.k[2], start, end, id);
    load_tile<DV>(tile_v, v, n.v[2], start, end, id);
    threadgroup_barrier(mem_flags::mem_threadgroup);

    Matrix s[TILE / 8], dp[TILE / 8];
    EACH for (int t = 0; t < TILE / 8; ++t) s[t] = dp[t] = zeros();
    for (int d = 0; d < D; d += 8) {
      const Matrix left = from_rows(own, there, d + c);
      EACH for (int t = 0; t < TILE / 8; ++t)
        accumulate(s[t], left, from_tile_transposed(tile_k, D + PAD, d + r, t * 8 + c));
    }
    for (int d = 0; d < DV; d += 8) {
      const Matrix left = from_rows(own_dout, there, d + c);
      EACH for (int t = 0; t < TILE / 8; ++t)
        accumulate(dp[t], left, from_tile_transposed(tile_v, DV + PAD, d + r, t * 8 + c));
    }
    EACH for (int t = 0; t < TILE / 8; ++t) {
      EACH for (int e = 0; e < 2; ++e) {
        const int j = start + t * 8 + c + e;
        float ds = 0.0f;
        if (there && j >= seen.x && j < seen.y) {
          const float2 z = logit(s[t].thread_elements()[e], n, f, i, j BIAS_ARGUMENT(batch, head));
          float grad = dp[t].thread_elements()[e];
#if DROPOUT
          grad *= kept(n, f, batch, head, position, row.first_key + j);
#endif
          ds = exp(z.x - m) * (grad - own_delta) * z.y;
        }
        s[t].thread_elements()[e] = ds;
      }
    }
    EACH for (int d = 0; d < D / 8; ++d) {
      EACH for (int t = 0; t < TILE / 8; ++t)
        accumulate(sums[d], s[t], from_tile(tile_k, D + PAD, t * 8 + r, d * 8 + c));
    }
  }
  if (!there) return;
  device T* to = dq + batch * n.dq[0] + head * n.dq[1] + position * n.dq[2];
  EACH for (int d = 0; d < D / 8; ++d) {
    EACH for (int e = 0; e < 2; ++e) to[d * 8 + c + e] = T(sums[d].thread_elements()[e] / l * f.scale);
  }
}

// The gradients of keys and values; a matrix has keys as rows and queries as columns.
kernel void attention_dkv(device const T* q, device const T* k, device const T* v, device const T* dout,
                          device const float* maximum, device const float* total, device const float* delta,
                          device T* dk, device T* dv, constant Sizes& n, constant Numbers& f
                          BIAS_PARAMETER PACK_PARAMETERS,
                          uint3 group [[threadgroup_position_in_grid]],
                   uint3 groups [[threadgroups_per_grid]], uint id [[thread_index_in_threadgroup]],
                          uint lane [[thread_index_in_simdgroup]]) {
  threadgroup T tile_q[TILE * (D + PAD)];
  threadgroup T tile_dout[TILE * (DV + PAD)];
  threadgroup float tile_m[TILE];
  threadgroup float tile_l[TILE];
  threadgroup float tile_delta[TILE];
  const uint kv_head = group.y, batch = PACKED ? 0 : group.z;
#if PACKED
  if (group.z == uint(n.rows)) {
    clear_rows<D>(dk + kv_head * n.dk[1], n.dk[2], starts_k[n.rows], n.keys, group, groups, id);
    clear_rows<DV>(dv + kv_head * n.dv[1], n.dv[2], starts_k[n.rows], n.keys, group, groups, id);
    return;
  }
#endif
  const Row row = ROW_AT(group.z);
  const int first = group.x * ROWS, r = row_of(lane), c = column_of(lane);
  if (first >= row.keys) return;
  const int j = first + id / 32 * 8 + r;
  const bool there = j < row.keys;
  const device T* own_k = k + batch * n.k[0] + kv_head * n.k[1] + (row.first_key + j) * n.k[2];
  const device T* own_v = v + batch * n.v[0] + kv_head * n.v[1] + (row.first_key + j) * n.v[2];

  Matrix sums_k[D / 8], sums_v[DV / 8];
  EACH for (int d = 0; d < D / 8; ++d) sums_k[d] = zeros();
  EACH for (int d = 0; d < DV / 8; ++d) sums_v[d] = zeros();
  const int2 seeing = row.seeing(j);
  const int begin = row.seeing(first).x, end = row.seeing(min(first + ROWS, row.keys) - 1).y;
  for (uint head = kv_head * n.groups; head < (kv_head + 1) * n.groups; ++head) {
    const device T* from_q = q + batch * n.q[0] + head * n.q[1] + row.first_query * n.q[2];
    const device T* from_dout = dout + batch * n.dout[0] + head * n.dout[1] + row.first_query * n.dout[2];
    const long stats = (batch * n.heads + head) * n.queries + row.first_query;
    for (int start = begin; start < end; start += TILE) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      load_tile<D>(tile_q, from_q, n.q[2], start, end, id);
      load_tile<DV>(tile_dout, from_dout, n.dout[2], start, end, id);
      if (id < TILE) {
        const bool real = start + int(id) < end;
        tile_m[id] = real ? maximum[stats + start + id] : 0.0f;
        tile_l[id] = real ? total[stats + start + id] : 1.0f;
        tile_delta[id] = real ? delta[stats + start + id] : 0.0f;
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);

      Matrix s[TILE / 8], dp[TILE / 8];
      EACH for (int t = 0; t < TILE / 8; ++t) s[t] = dp[t] = zeros();
      for (int d = 0; d < D; d += 8) {
        const Matrix left = from_rows(own_k, there, d + c);
        EACH for (int t = 0; t < TILE / 8; ++t)
          accumulate(s[t], left, from_tile_transposed(tile_q, D + PAD, d + r, t * 8 + c));
      }
      for (int d = 0; d < DV; d += 8) {
        const Matrix left = from_rows(own_v, there, d + c);
        EACH for (int t = 0; t < TILE / 8; ++t)
          accumulate(dp[t], left, from_tile_transposed(tile_dout, DV + PAD, d + r, t * 8 + c));
      }
      EACH for (int t = 0; t < TILE / 8; ++t) {
        EACH for (int e = 0; e < 2; ++e) {
          const int column = t * 8 + c + e, i = start + column;
          float p = 0.0f, ds = 0.0f;
          if (there && i >= seeing.x && i < seeing.y) {
            const float2 z = logit(s[t].thread_elements()[e], n, f, i, j BIAS_ARGUMENT(batch, head));
            p = exp(z.x - tile_m[column]) / tile_l[column];
#if DROPOUT
            const float factor = kept(n, f, batch, head, row.first_query + i, row.first_key + j);
#else
            const float factor = 1.0f;
#endif
            ds = p * (dp[t].thread_elements()[e] * factor - tile_delta[column]) * z.y;
            p *= factor;
          }
          s[t].thread_elements()[e] = ds;
          dp[t].thread_elements()[e] = p;
        }
      }
      EACH for (int d = 0; d < DV / 8; ++d) {
        EACH for (int t = 0; t < TILE / 8; ++t)
          accumulate(sums_v[d], dp[t], from_tile(tile_dout, DV + PAD, t * 8 + r, d * 8 + c));
      }
      EACH for (int d = 0; d < D / 8; ++d) {
        EACH for (int t = 0; t < TILE / 8; ++t)
          accumulate(sums_k[d], s[t], from_tile(tile_q, D + PAD, t * 8 + r, d * 8 + c));
      }
    }
  }
  if (!there) return;
  device T* to_k = dk + batch * n.dk[0] + kv_head * n.dk[1] + (row.first_key + j) * n.dk[2];
  device T* to_v = dv + batch * n.dv[0] + kv_head * n.dv[1] + (row.first_key + j) * n.dv[2];
  EACH for (int d = 0; d < D / 8; ++d) {
    EACH for (int e = 0; e < 2; ++e) to_k[d * 8 + c + e] = T(sums_k[d].thread_elements()[e] * f.scale);
  }
  EACH for (int d = 0; d < DV / 8; ++d) {
    EACH for (int e = 0; e < 2; ++e) to_v[d * 8 + c + e] = T(sums_v[d].thread_elements()[e]);
  }
}
