// Attention over keys in BF16 and values in F16: part of EdgeSpec.
//
// ggml takes such a cache cell by cell, with a scalar exponential and half-precision sums for each; its
// tiled kernel takes neither mixed types nor few rows, and says other bits. This one goes through the
// cells that a row attends to, sixty-four at a time, whichever cells of the cache they are: so a row
// gets the same bits alone, among others, read in pieces, and in a cache that others share
// (docs/decisions/0028). Up to MOST_ROWS rows of one head that attend to the same cells first, as the
// tokens of a prompt do, and heads that share keys, take values out of F16 once for all.
//
// Included by ops.cpp where row_attention.py found what it expects.

#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define EDGESPEC_ATTENTION 1

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

namespace edgespec {

static constexpr int TILE = 64;       // cells at a time
static constexpr int MOST_VALUES = 256;  // of a head
static constexpr int MOST_ROWS = 3;      // together: eight registers of sums each

static bool attends(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    return q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_BF16 && v->type == GGML_TYPE_F16 &&
           k->ne[0] % 32 == 0 && k->ne[0] <= 512 && v->ne[0] % 16 == 0 && v->ne[0] <= MOST_VALUES;
}

// A query in the form that keys are multiplied with.
struct query {
#if defined(__AVX512BF16__)
    __m512bh parts[16];

    void read(const float * values, int size) {
        for (int i = 0; i < size / 32; i++) {
            parts[i] = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + 32 * i + 16),
                                           _mm512_loadu_ps(values + 32 * i));
        }
    }

    template <int PARTS> inline __m512 times(const ggml_bf16_t * key, int parts_of_any) const {
        const int count = PARTS ? PARTS : parts_of_any;
        __m512 sum = _mm512_setzero_ps();
        for (int i = 0; i < count; i++) {
            sum = _mm512_dpbf16_ps(sum, parts[i], (__m512bh) _mm512_loadu_si512(key + 32 * i));
        }
        return sum;
    }
#else
    __m512 parts[32];

    void read(const float * values, int size) {
        for (int i = 0; i < size / 16; i++) {
            parts[i] = _mm512_loadu_ps(values + 16 * i);
        }
    }

    template <int PARTS> inline __m512 times(const ggml_bf16_t * key, int parts_of_any) const {
        const int count = 2 * (PARTS ? PARTS : parts_of_any);
        __m512 sum = _mm512_setzero_ps();
        for (int i = 0; i < count; i++) {
            const __m256i half = _mm256_loadu_si256((const __m256i *) (key + 16 * i));
            const __m512 part = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
            sum = _mm512_fmadd_ps(parts[i], part, sum);
        }
        return sum;
    }
#endif
};

// The cells that a row attends to, in their order, and what is added to their scores.
struct cells {
    std::vector<int32_t> places;
    std::vector<float> biases;
    int count = 0;

    void find(const ggml_fp16_t * mask, float slope, int num_cells) {
        if ((int) places.size() < num_cells + 16) {
            places.resize(num_cells + 16);
            biases.resize(num_cells + 16);
        }
        count = 0;
        const __m512 hidden = _mm512_set1_ps(-INFINITY);
        __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (int i = 0; i < num_cells; i += 16) {
            const int left = num_cells - i;
            const __mmask16 valid = left < 16 ? (__mmask16) ((1u << left) - 1) : (__mmask16) 0xffff;
            __mmask16 seen = valid;
            __m512 bias = _mm512_setzero_ps();
            if (mask) {
                bias = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(valid, mask + i));
                seen = _mm512_mask_cmp_ps_mask(valid, bias, hidden, _CMP_NEQ_OQ);
                bias = _mm512_mul_ps(bias, _mm512_set1_ps(slope));
            }
            if (seen) {  // compressing into memory takes Zen 4 a hundred cycles, into a register two
                _mm512_storeu_si512(places.data() + count, _mm512_maskz_compress_epi32(seen, place));
                _mm512_storeu_ps(biases.data() + count, _mm512_maskz_compress_ps(seen, bias));
                count += __builtin_popcount(seen);
            }
            place = _mm512_add_epi32(place, _mm512_set1_epi32(16));
        }
    }

    bool is_beginning_of(const cells & other) const {
        return count <= other.count &&
               memcmp(places.data(), other.places.data(), count * sizeof(int32_t)) == 0;
    }
};

// The sixteen sums of sixteen vectors.
static inline __m512 sums_of(const __m512 * from) {
    __m512 pairs[8], fours[4];
    for (int i = 0; i < 8; i++) {
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(from[2 * i], from[2 * i + 1]),
                                 _mm512_unpackhi_ps(from[2 * i], from[2 * i + 1]));
    }
    for (int i = 0; i < 4; i++) {
        const __m512d low = _mm512_castps_pd(pairs[2 * i]), high = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                 _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    }
    const __m512 first = _mm512_add_ps(_mm512_shuffle_f32x4(fours[0], fours[1], 0x88),
                                       _mm512_shuffle_f32x4(fours[0], fours[1], 0xdd));
    const __m512 second = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2], fours[3], 0x88),
                                        _mm512_shuffle_f32x4(fours[2], fours[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88),
                         _mm512_shuffle_f32x4(first, second, 0xdd));
}

// What a row has gathered so far: a sum of values weighted by exp(score - most), and of the weights.
struct gathered {
    float sums[MOST_VALUES];
    float most, weight;

    void rescale(float now, int size) {
        if (now > most) {
            const float by = expf(most - now);
            const __m512 factor = _mm512_set1_ps(by);
            for (int i = 0; i < size; i += 16) {
                _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), factor));
            }
            weight *= by;
            most = now;
        }
    }
};

// Adds the weighted values of cells to the sums of ROWS rows; REGISTERS of 16 sums of each stay in
// registers meanwhile. The order of a row's sums does not depend on how many rows there are.
template <int REGISTERS, int ROWS>
static inline void add_values(float * const * sums, const float * const * weights,
                              const int32_t * places, int count, const char * values,
                              size_t stride) {
    __m512 sum[ROWS][REGISTERS];
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < REGISTERS; i++) {
            sum[row][i] = _mm512_loadu_ps(sums[row] + 16 * i);
        }
    }
    for (int cell = 0; cell < count; cell++) {
        const char * value = values + places[cell] * stride;
        __m512 weight[ROWS];
        for (int row = 0; row < ROWS; row++) {
            weight[row] = _mm512_set1_ps(weights[row][cell]);
        }
        for (int i = 0; i < REGISTERS; i++) {
            const __m512 part = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (value + 32 * i)));
            for (int row = 0; row < ROWS; row++) {
                sum[row][i] = _mm512_fmadd_ps(weight[row], part, sum[row][i]);
            }
        }
    }
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < REGISTERS; i++) {
            _mm512_storeu_ps(sums[row] + 16 * i, sum[row][i]);
        }
    }
}

struct head {
    const char * keys;
    const char * values;
    size_t key_stride, value_stride;
    int key_size, value_size;
    float scale, softcap;
};

// Scores of sixteen cells at most; those beyond are minus infinity.
template <int PARTS>
static inline __m512 scores_of(const head & of, const query & asks, const int32_t * places,
                               const float * biases, int count) {
    __m512 products[16];
    for (int i = 0; i < 16; i++) {
        const int32_t place = places[i < count ? i : count - 1];
        products[i] = asks.times<PARTS>((const ggml_bf16_t *) (of.keys + place * of.key_stride),
                                       of.key_size / 32);
    }
    __m512 score = _mm512_mul_ps(sums_of(products), _mm512_set1_ps(of.scale));
    if (of.softcap != 0.0f) {
        float each[16];
        _mm512_storeu_ps(each, score);
        for (float & one : each) {
            one = of.softcap * tanhf(one);
        }
        score = _mm512_loadu_ps(each);
    }
    const __mmask16 valid = count < 16 ? (__mmask16) ((1u << count) - 1) : (__mmask16) 0xffff;
    score = _mm512_add_ps(score, _mm512_maskz_loadu_ps(valid, biases));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), valid, score);
}

// A row of queries, the cells it attends to, what it gathered, and weights of its cells in a tile.
struct row {
    query asks;
    cells seen;
    gathered into;
    alignas(64) float weights[TILE];

    // Weighs `count` cells from `start` on; sums so far are brought to the same scale.
    template <int PARTS> void weigh(const head & of, int start, int count) {
        __m512 scores[TILE / 16];
        float most = -INFINITY;
        for (int i = 0; i < TILE / 16; i++) {
            const int left = count - 16 * i;
            scores[i] = left > 0 ? scores_of<PARTS>(of, asks, seen.places.data() + start + 16 * i,
                                                    seen.biases.data() + start + 16 * i,
                                                    left < 16 ? left : 16)
                                 : _mm512_set1_ps(-INFINITY);
            most = fmaxf(most, _mm512_reduce_max_ps(scores[i]));
        }
        into.rescale(most, of.value_size);
        const __m512 top = _mm512_set1_ps(into.most);
        __m512 weight = _mm512_setzero_ps();
        for (int i = 0; i < TILE / 16; i++) {
            const __m512 each = ggml_v_expf(_mm512_sub_ps(scores[i], top));
            _mm512_store_ps(weights + 16 * i, each);
            weight = _mm512_add_ps(weight, each);
        }
        into.weight += _mm512_reduce_add_ps(weight);
    }
};

// Adds the values of cells `from` to `to` of the tile at `start` to what ROWS rows gathered.
template <int ROWS>
static void gather(const head & of, row * rows, int start, int from, int to) {
    const int32_t * places = rows[0].seen.places.data() + start + from;
    float * sums[ROWS];
    const float * weights[ROWS];
    for (int i = 0; i < ROWS; i++) {
        sums[i] = rows[i].into.sums;
        weights[i] = rows[i].weights + from;
    }
    int done = 0;
    const auto next = [&](int size) {
        for (float *& sum : sums) {
            sum += size;
        }
        done += size;
    };
    while (of.value_size - done >= 128) {
        add_values<8, ROWS>(sums, weights, places, to - from, of.values + 2 * done, of.value_stride);
        next(128);
    }
    while (done < of.value_size) {
        add_values<1, ROWS>(sums, weights, places, to - from, of.values + 2 * done, of.value_stride);
        next(16);
    }
}

// Rows of which each attends to the cells of the one before, and then perhaps to more.
template <int PARTS>
static void attend_rows(const head & of, row * rows, int num_rows) {
    for (int start = 0; start < rows[num_rows - 1].seen.count; start += TILE) {
        int counts[MOST_ROWS];
        for (int i = 0; i < num_rows; i++) {
            counts[i] = std::min(std::max(rows[i].seen.count - start, 0), TILE);
            if (counts[i] > 0) {
                rows[i].weigh<PARTS>(of, start, counts[i]);
            }
        }
        switch (num_rows) {
            case 3: gather<3>(of, rows, start, 0, counts[0]); break;
            case 2: gather<2>(of, rows, start, 0, counts[0]); break;
            default: gather<1>(of, rows, start, 0, counts[0]);
        }
        for (int i = 1; i < num_rows; i++) {
            gather<1>(of, rows + i, start, counts[0], counts[i]);
        }
    }
}

// One attention: where its tensors are, and how ggml numbers its rows.
struct attention {
    const ggml_tensor * dst;
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];
    const ggml_tensor * mask = dst->src[3];
    const ggml_tensor * sinks = dst->src[4];
    float scale, softcap, m0, m1, max_bias;
    uint32_t num_slopes;

    explicit attention(const ggml_tensor * to) : dst(to) {
        memcpy(&scale, (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));
        memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));
        if (softcap != 0.0f) {
            scale /= softcap;
        }
        num_slopes = 1u << (uint32_t) floor(log2((uint32_t) q->ne[2]));
        m0 = powf(2.0f, -max_bias / num_slopes);
        m1 = powf(2.0f, -(max_bias / 2.0f) / num_slopes);
    }

    // Which query of which head of which sequence a row is.
    struct place {
        int64_t q1, q2, q3;
    };

    place place_of(int64_t ir) const {
        const int64_t q3 = ir / (q->ne[2] * q->ne[1]), rest = ir - q3 * q->ne[2] * q->ne[1];
        return {rest % q->ne[1], rest / q->ne[1], q3};
    }

    head head_of(const place & at) const {
        const int64_t k2 = at.q2 / (q->ne[2] / k->ne[2]), k3 = at.q3 / (q->ne[3] / k->ne[3]);
        const int64_t v2 = at.q2 / (q->ne[2] / v->ne[2]), v3 = at.q3 / (q->ne[3] / v->ne[3]);
        return {(const char *) k->data + k2 * k->nb[2] + k3 * k->nb[3],
                (const char *) v->data + v2 * v->nb[2] + v3 * v->nb[3],
                k->nb[1],
                v->nb[1],
                (int) k->ne[0],
                (int) v->ne[0],
                scale,
                softcap};
    }

    void begin(row & row, const place & at) const {
        const uint32_t h = at.q2;
        const float slope = max_bias <= 0.0f ? 1.0f
                            : h < num_slopes ? powf(m0, h + 1)
                                             : powf(m1, 2 * (h - num_slopes) + 1);
        const char * row_mask = !mask ? nullptr
                                      : (const char *) mask->data + at.q1 * mask->nb[1] +
                                            (at.q2 % mask->ne[2]) * mask->nb[2] +
                                            (at.q3 % mask->ne[3]) * mask->nb[3];
        row.seen.find((const ggml_fp16_t *) row_mask, slope, k->ne[1]);
        row.asks.read((const float *) ((const char *) q->data + at.q1 * q->nb[1] +
                                       at.q2 * q->nb[2] + at.q3 * q->nb[3]),
                      k->ne[0]);
        row.into.most = -INFINITY;
        row.into.weight = 0.0f;
        memset(row.into.sums, 0, v->ne[0] * sizeof(float));
    }

    void finish(row & row, const place & at) const {
        gathered & into = row.into;
        if (sinks) {
            const float sink = ((const float *) sinks->data)[at.q2];
            into.rescale(sink, v->ne[0]);
            into.weight += expf(sink - into.most);
        }
        const __m512 share = _mm512_set1_ps(into.weight == 0.0f ? 0.0f : 1.0f / into.weight);
        float * to = (float *) ((char *) dst->data +
                                (at.q3 * dst->ne[2] * dst->ne[1] + at.q2 + at.q1 * dst->ne[1]) *
                                    dst->nb[1]);
        for (int i = 0; i < v->ne[0]; i += 16) {
            _mm512_storeu_ps(to + i, _mm512_mul_ps(_mm512_loadu_ps(into.sums + i), share));
        }
    }
};

// Rows ir0 to ir1 of all heads and queries, as ggml numbers them.
static void attend(const ggml_tensor * dst, int64_t ir0, int64_t ir1) {
    static thread_local row rows[MOST_ROWS];
    const attention all(dst);
    int num_rows = 0, num_begun = 0;  // the last one begun may belong to the next rows
    for (int64_t ir = ir0; ir < ir1; ir += num_rows) {
        attention::place places[MOST_ROWS];
        head of = all.head_of(all.place_of(ir));
        for (num_rows = 0; num_rows < MOST_ROWS && ir + num_rows < ir1; num_rows++) {
            places[num_rows] = all.place_of(ir + num_rows);
            if (num_rows >= num_begun) {
                all.begin(rows[num_rows], places[num_rows]);
                num_begun = num_rows + 1;
            }
            const head next = all.head_of(places[num_rows]);
            if (num_rows && (next.keys != of.keys || next.values != of.values ||
                             !rows[num_rows - 1].seen.is_beginning_of(rows[num_rows].seen))) {
                break;
            }
        }
        switch (of.key_size) {
            case 64: attend_rows<2>(of, rows, num_rows); break;
            case 128: attend_rows<4>(of, rows, num_rows); break;
            case 256: attend_rows<8>(of, rows, num_rows); break;
            default: attend_rows<0>(of, rows, num_rows);
        }
        for (int i = 0; i < num_rows; i++) {
            all.finish(rows[i], places[i]);
        }
        if (num_begun > num_rows) {
            std::swap(rows[0], rows[num_rows]);
        }
        num_begun -= num_rows;
    }
}

}  // namespace edgespec
#endif
