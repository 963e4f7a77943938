// Matrix times a few rows, for Q4_K, Q6_K, Q4_0 and Q8_0 weights in ggml's repacked layouts
// (AVX-512 VNNI).
//
// One kernel serves every number of rows, and each row is added up in the same order whatever rows
// come with it: its results are the same bits alone, in a draft of ten, or in a prompt. Weights are
// unpacked once for up to sixteen rows, so that a pass over a few rows costs little more than the
// reading of the weights, which a pass over one row has to pay as well.
//
// Layout (repack.h): eight columns side by side (Q8_0: twice four); 64 bytes hold 8 bytes of each.
// VPDPBUSD with 8 bytes of a row, broadcast, leaves two 32-bit sums a column (lanes 2c and 2c + 1).
// Sums over 32 (Q4_K) or 16 (Q6_K) weights fit into 16 bits, so two of them go with two scales into
// VPDPWSSD.
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)
#define EDGESPEC_ROWS 1

#include <immintrin.h>
#include <algorithm>
#include <cstring>
#include <vector>

#define EDGESPEC_INLINE static inline __attribute__((always_inline))

namespace edgespec {

constexpr int TILE = 16;        // rows that share one unpacking of the weights
constexpr int CACHED_ROWS = 64; // rows of quantized input that stay in the second-level cache
constexpr int AHEAD = 4096;     // bytes of weights asked for before they are needed

// Asks for line `line` of what comes AHEAD bytes after `from`. Processors do so by themselves while
// memory is read straight on, but Q6_K keeps the halves of a weight apart, and the more rows share a
// weight, the less of the memory ahead the loads in flight can see. Lines of a block are asked for
// one by one, first to last, between its products: there is room for so many misses at a time (24 on
// Zen 4), and once it is used up everything waits.
EDGESPEC_INLINE void fetch_line(const void * from, int line) {
    _mm_prefetch((const char *) from + AHEAD + 64 * line, _MM_HINT_T0);
}

// All lines of a small block.
template <typename T> EDGESPEC_INLINE void fetch_ahead(const T * from) {
    for (size_t line = 0; 64 * line < sizeof(T); line++) {
        fetch_line(from, line);
    }
}

EDGESPEC_INLINE __m512i eight_bytes(const void * from) {
    int64_t value;
    memcpy(&value, from, sizeof(value));
    return _mm512_set1_epi64(value);
}

// 16-bit lanes from two 32-bit sums that fit: low halves of `even`, low halves of `odd`, in turn.
EDGESPEC_INLINE __m512i in_turn(__m512i even, __m512i odd) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, even, _mm512_slli_epi32(odd, 16));
}

// Bytes a0..a7 b0..b7 become pairs (a0, b0) of 16 bits, in a 32-bit lane for each column.
EDGESPEC_INLINE __m256i pairs_unsigned(__m128i two) {
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(two, _mm_srli_si128(two, 8)));
}

EDGESPEC_INLINE __m256i pairs_signed(__m128i two) {
    return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(two, _mm_srli_si128(two, 8)));
}

EDGESPEC_INLINE __m512i each_twice(__m256i columns) {
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_epi32(twice, _mm512_castsi256_si512(columns));
}

EDGESPEC_INLINE __m512 halves_twice(const ggml_half * columns) {
    const __m256 floats = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) columns));
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(floats));
}

// Adds lanes 2c and 2c + 1 of `sums` and stores eight columns.
EDGESPEC_INLINE void store_columns(float * to, __m512 sums) {
    const __m512 swapped = _mm512_permute_ps(sums, 0xB1);
    const __m512i even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512 added = _mm512_add_ps(sums, swapped);
    _mm256_storeu_ps(to, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, added)));
}

// One super-block of one row, as a kernel reads it. Rows of a tile lie side by side, so that the
// kernels need one pointer for all of them.
struct alignas(64) q4_row {
    int8_t quants[QK_K];
    int16_t sums[8];  // of 32 values each, in the order 0 1 4 5 2 3 6 7
    float scale;
};

struct alignas(64) q6_row {
    int8_t quants[QK_K];
    int32_t starts[32];  // -32 times the sums of values 0-3 8-11 and 4-7 12-15 of each 16
    float scale;
};

EDGESPEC_INLINE void prepare(const block_q8_K & from, q4_row & to) {
    memcpy(to.quants, from.qs, QK_K);
    const __m128i low = _mm_loadu_si128((const __m128i *) from.bsums);
    const __m128i high = _mm_loadu_si128((const __m128i *) (from.bsums + 8));
    const __m128i sums = _mm_hadd_epi16(low, high);
    _mm_storeu_si128((__m128i *) to.sums, _mm_shuffle_epi32(sums, _MM_SHUFFLE(3, 1, 2, 0)));
    to.scale = from.d;
}

EDGESPEC_INLINE void prepare(const block_q8_K & from, q6_row & to) {
    memcpy(to.quants, from.qs, QK_K);
    const __m512i ones = _mm512_set1_epi8(1);
    for (int part = 0; part < 4; part++) {
        const __m512i quants = _mm512_loadu_si512(from.qs + 64 * part);
        const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, quants);
        // Of each four sums, 0 + 2 and 1 + 3.
        const __m512i twos = _mm512_add_epi32(fours, _mm512_shuffle_epi32(fours, _MM_PERM_BADC));
        const __m512i order = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 13, 12, 9, 8, 5, 4, 1, 0);
        const __m512i starts = _mm512_slli_epi32(_mm512_permutexvar_epi32(order, twos), 5);
        const __m256i minus = _mm256_sub_epi32(_mm256_setzero_si256(), _mm512_castsi512_si256(starts));
        _mm256_storeu_si256((__m256i *) (to.starts + 8 * part), minus);
    }
    to.scale = from.d;
}

struct q4_K {
    using block = block_q4_Kx8;
    using value = block_q8_K;
    using row = q4_row;
    static constexpr int SIZE = QK_K;
    static constexpr int BLOCKS = 1;  // blocks side by side that hold eight columns

    // Adds one super-block's products to `sums`, 16 lanes a row.
    template <int NR>
    EDGESPEC_INLINE void add(const block * weights_at, int, const row * rows, __m512 * sums) {
        const block & weights = *weights_at;
        __m256i scales[4], minima[4];
        unpack_scales(weights.scales, scales, minima);
        const __m512i nibble = _mm512_set1_epi8(0x0F);
        __m512i products[NR];
        for (int r = 0; r < NR; r++) {
            products[r] = _mm512_setzero_si512();
        }
        static_assert(sizeof(block) == 18 * 64);
        for (int j = 0; j < 4; j++) {
            __m512i low[4], high[4];
            for (int i = 0; i < 4; i++) {
                fetch_line(weights_at, 5 * j + i);
                const __m512i packed = _mm512_loadu_si512(weights.qs + 256 * j + 64 * i);
                low[i] = _mm512_and_si512(packed, nibble);
                high[i] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
            }
            if (j < 3) {
                fetch_line(weights_at, 5 * j + 4);
            }
            const __m512i scale = each_twice(scales[j]);
            for (int r = 0; r < NR; r++) {
                const int8_t * from = rows[r].quants + 64 * j;
                __m512i even = _mm512_setzero_si512(), odd = even;
                for (int i = 0; i < 4; i++) {
                    even = _mm512_dpbusd_epi32(even, low[i], eight_bytes(from + 8 * i));
                    odd = _mm512_dpbusd_epi32(odd, high[i], eight_bytes(from + 32 + 8 * i));
                }
                products[r] = _mm512_dpwssd_epi32(products[r], in_turn(even, odd), scale);
            }
        }
        // Lane 2c has sub-blocks 0 to 3 of the minima, lane 2c + 1 those from 4 to 7.
        const __m512i first = alternate(minima[0], minima[2]);
        const __m512i second = alternate(minima[1], minima[3]);
        const __m512 d = halves_twice(weights.d);
        const __m512 dmin = halves_twice(weights.dmin);
        for (int r = 0; r < NR; r++) {
            const int16_t * of_row = rows[r].sums;
            __m512i least = _mm512_setzero_si512();
            least = _mm512_dpwssd_epi32(least, first, eight_bytes(of_row));
            least = _mm512_dpwssd_epi32(least, second, eight_bytes(of_row + 4));
            const __m512 scale = _mm512_set1_ps(rows[r].scale);
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[r]), _mm512_mul_ps(d, scale), sums[r]);
            sums[r] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(least), _mm512_mul_ps(dmin, scale), sums[r]);
        }
    }

    EDGESPEC_INLINE __m512i alternate(__m256i even, __m256i odd) {
        const __m512i order = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        return _mm512_permutex2var_epi32(_mm512_castsi256_si512(even), order, _mm512_castsi256_si512(odd));
    }

    // 6-bit scales and minima, 12 bytes for the eight columns of each of eight sub-blocks, to pairs
    // of sub-blocks (2j, 2j + 1) of 16 bits in a lane for each column.
    EDGESPEC_INLINE void unpack_scales(const uint8_t * packed, __m256i * scales, __m256i * minima) {
        const __m512i front = _mm512_loadu_si512(packed);
        const __m512i back = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) (packed + 64)));
        const __m512i third = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 21, 18, 15, 12, 9, 6, 3, 0);
        const __m512i one = _mm512_set1_epi32(1);
        const __m512i order1 = _mm512_add_epi32(third, one), order2 = _mm512_add_epi32(order1, one);
        const __m256i word0 = _mm512_castsi512_si256(_mm512_permutex2var_epi32(front, third, back));
        const __m256i word1 = _mm512_castsi512_si256(_mm512_permutex2var_epi32(front, order1, back));
        const __m256i word2 = _mm512_castsi512_si256(_mm512_permutex2var_epi32(front, order2, back));
        const __m256i six = _mm256_set1_epi8(0x3F), four = _mm256_set1_epi8(0x0F), top = _mm256_set1_epi8(0x30);
        const __m256i scales03 = _mm256_and_si256(word0, six);
        const __m256i minima03 = _mm256_and_si256(word1, six);
        const __m256i scales47 = _mm256_or_si256(_mm256_and_si256(word2, four),
                                                 _mm256_and_si256(_mm256_srli_epi16(word0, 2), top));
        const __m256i minima47 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(word2, 4), four),
                                                 _mm256_and_si256(_mm256_srli_epi16(word1, 2), top));
        spread(_mm256_unpacklo_epi32(scales03, scales47), _mm256_unpackhi_epi32(scales03, scales47), scales);
        spread(_mm256_unpacklo_epi32(minima03, minima47), _mm256_unpackhi_epi32(minima03, minima47), minima);
    }

    // `low` holds sub-blocks 0 1 | 4 5, `high` 2 3 | 6 7, eight bytes each.
    EDGESPEC_INLINE void spread(__m256i low, __m256i high, __m256i * pairs) {
        pairs[0] = pairs_unsigned(_mm256_castsi256_si128(low));
        pairs[1] = pairs_unsigned(_mm256_castsi256_si128(high));
        pairs[2] = pairs_unsigned(_mm256_extracti128_si256(low, 1));
        pairs[3] = pairs_unsigned(_mm256_extracti128_si256(high, 1));
    }
};

struct q6_K {
    using block = block_q6_Kx8;
    using value = block_q8_K;
    using row = q6_row;
    static constexpr int SIZE = QK_K;
    static constexpr int BLOCKS = 1;

    template <int NR>
    EDGESPEC_INLINE void add(const block * weights_at, int, const row * rows, __m512 * sums) {
        const block & weights = *weights_at;
        const __m512i nibble = _mm512_set1_epi8(0x0F), top = _mm512_set1_epi8(0x30);
        __m512i products[NR];
        for (int r = 0; r < NR; r++) {
            products[r] = _mm512_setzero_si512();
        }
        static_assert(sizeof(block) > 26 * 64 && sizeof(block) <= 27 * 64);
        for (int half = 0; half < 2; half++) {
            // `pair` 0 holds values 0-31 and 64-95 of this half in its nibbles, 1 the others.
            for (int pair = 0; pair < 2; pair++) {
                __m512i low[4], high[4];
                for (int i = 0; i < 4; i++) {
                    fetch_line(weights_at, 14 * half + 7 * pair + 2 * i);
                    if (i < 3) {
                        fetch_line(weights_at, 14 * half + 7 * pair + 2 * i + 1);
                    }
                    const __m512i packed = _mm512_loadu_si512(weights.ql + 512 * half + 256 * pair + 64 * i);
                    const __m512i bits = _mm512_loadu_si512(weights.qh + 256 * half + 64 * i);
                    const __m512i of_low = pair == 0 ? _mm512_slli_epi16(bits, 4) : _mm512_slli_epi16(bits, 2);
                    const __m512i of_high = pair == 0 ? bits : _mm512_srli_epi16(bits, 2);
                    low[i] = _mm512_or_si512(_mm512_and_si512(packed, nibble), _mm512_and_si512(of_low, top));
                    high[i] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble),
                                              _mm512_and_si512(of_high, top));
                }
                add_32<NR>(weights, low, 4 * half + pair, rows, products);
                add_32<NR>(weights, high, 4 * half + pair + 2, rows, products);
            }
        }
        const __m512 d = halves_twice(weights.d);
        for (int r = 0; r < NR; r++) {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(rows[r].scale));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[r]), scale, sums[r]);
        }
    }

    // Values 32 * part to 32 * part + 31: two groups of 16, each with a scale of its own.
    template <int NR>
    EDGESPEC_INLINE void add_32(const block & weights, const __m512i * quants, int part,
                              const row * rows, __m512i * products) {
        const __m128i two = _mm_loadu_si128((const __m128i *) (weights.scales + 16 * part));
        const __m512i scale = each_twice(pairs_signed(two));
        for (int r = 0; r < NR; r++) {
            const int8_t * from = rows[r].quants + 32 * part;
            const int32_t * starts = rows[r].starts + 4 * part;
            __m512i even = eight_bytes(starts), odd = eight_bytes(starts + 2);
            even = _mm512_dpbusd_epi32(even, quants[0], eight_bytes(from));
            odd = _mm512_dpbusd_epi32(odd, quants[2], eight_bytes(from + 16));
            even = _mm512_dpbusd_epi32(even, quants[1], eight_bytes(from + 8));
            odd = _mm512_dpbusd_epi32(odd, quants[3], eight_bytes(from + 24));
            products[r] = _mm512_dpwssd_epi32(products[r], in_turn(even, odd), scale);
        }
    }
};

// One block of 32 values of one row; `starts` undoes the offset that makes the weights unsigned.
template <int OFFSET> struct alignas(16) small_row {
    int8_t quants[QK8_0];
    int32_t starts[2];  // -OFFSET times the sums of values 0-3 and of values 4-7 of each 8
    float scale;
};

template <int OFFSET> EDGESPEC_INLINE void prepare(const block_q8_0 & from, small_row<OFFSET> & to) {
    memcpy(to.quants, from.qs, QK8_0);
    const __m256i quants = _mm256_loadu_si256((const __m256i *) from.qs);
    const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), quants);
    const __m128i eights = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
    const __m128i sums = _mm_add_epi32(eights, _mm_shuffle_epi32(eights, _MM_SHUFFLE(1, 0, 3, 2)));
    const __m128i starts = _mm_mullo_epi32(sums, _mm_set1_epi32(-OFFSET));
    _mm_storel_epi64((__m128i *) to.starts, starts);
    to.scale = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(from.d)));
}

// Adds 32 values of each row: `quants[i]` holds values 8i to 8i + 7 of eight columns, unsigned.
template <int NR, int OFFSET>
EDGESPEC_INLINE void add_small(const __m512i * quants, __m512 d, const small_row<OFFSET> * rows, __m512 * sums) {
    for (int r = 0; r < NR; r++) {
        __m512i products = eight_bytes(rows[r].starts);
        for (int i = 0; i < 4; i++) {
            products = _mm512_dpbusd_epi32(products, quants[i], eight_bytes(rows[r].quants + 8 * i));
        }
        const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(rows[r].scale));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sums[r]);
    }
}

struct q4_0 {
    using block = block_q4_0x8;
    using value = block_q8_0;
    using row = small_row<8>;
    static constexpr int SIZE = QK4_0;
    static constexpr int BLOCKS = 1;

    template <int NR>
    EDGESPEC_INLINE void add(const block * weights_at, int, const row * rows, __m512 * sums) {
        fetch_ahead(weights_at);
        const __m512i nibble = _mm512_set1_epi8(0x0F), offset = _mm512_set1_epi8((char) 0x88);
        __m512i quants[4];
        for (int i = 0; i < 2; i++) {  // repacking made the nibbles signed: 0x88 takes that back
            const __m512i packed = _mm512_xor_si512(_mm512_loadu_si512(weights_at->qs + 64 * i), offset);
            quants[i] = _mm512_and_si512(packed, nibble);
            quants[i + 2] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
        }
        add_small<NR>(quants, halves_twice(weights_at->d), rows, sums);
    }
};

struct q8_0 {
    using block = block_q8_0x4;
    using value = block_q8_0;
    using row = small_row<128>;
    static constexpr int SIZE = QK8_0;
    static constexpr int BLOCKS = 2;

    template <int NR>
    EDGESPEC_INLINE void add(const block * weights_at, int num_blocks, const row * rows, __m512 * sums) {
        const block & first = weights_at[0], & second = weights_at[num_blocks];
        fetch_ahead(&first);
        fetch_ahead(&second);
        const __m512i offset = _mm512_set1_epi8((char) 0x80);
        __m512i quants[4];
        for (int i = 0; i < 4; i++) {
            const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) (first.qs + 32 * i)));
            const __m256i high = _mm256_loadu_si256((const __m256i *) (second.qs + 32 * i));
            quants[i] = _mm512_xor_si512(_mm512_inserti64x4(low, high, 1), offset);
        }
        ggml_half d[8];
        memcpy(d, first.d, 8);
        memcpy(d + 4, second.d, 8);
        add_small<NR>(quants, halves_twice(d), rows, sums);
    }
};

// Eight columns times NR rows, which lie side by side: super-block b of row r is rows[b * NR + r].
template <typename K, int NR>
__attribute__((noinline)) static void eight_columns(int num_blocks, const typename K::block * weights, const typename K::row * rows,
                          float * to, size_t stride) {
    __m512 sums[NR];
    for (int r = 0; r < NR; r++) {
        sums[r] = _mm512_setzero_ps();
    }
    for (int b = 0; b < num_blocks; b++) {
        K::template add<NR>(weights + b, num_blocks, rows + b * NR, sums);
    }
    for (int r = 0; r < NR; r++) {
        store_columns(to + r * stride, sums[r]);
    }
}

// The kernel for `num_rows` rows, at most NR.
template <typename K, int NR = TILE>
static void tile(int num_rows, int num_blocks, const typename K::block * weights,
                 const typename K::row * rows, float * to, size_t stride) {
    if constexpr (NR > 1) {
        if (num_rows < NR) {
            return tile<K, NR - 1>(num_rows, num_blocks, weights, rows, to, stride);
        }
    }
    eight_columns<K, NR>(num_blocks, weights, rows, to, stride);
}

// `num_columns` columns of `size` weights times `num_rows` quantized rows, one after another.
// Result (row, column) goes to to[row * stride + column].
template <typename K>
static void multiply(int size, float * to, size_t stride, const void * weights, const void * values,
                     int num_rows, int num_columns) {
    const int num_blocks = size / K::SIZE;
    const auto * columns = (const typename K::block *) weights;
    const auto * from = (const typename K::value *) values;
    static thread_local std::vector<typename K::row> rows;
    for (int start = 0; start < num_rows; start += CACHED_ROWS) {
        const int count = std::min(num_rows - start, CACHED_ROWS);
        rows.resize((size_t) count * num_blocks);
        for (int r = 0; r < count; r++) {
            const int first = r - r % TILE, width = std::min(count - first, TILE);
            for (int b = 0; b < num_blocks; b++) {
                prepare(from[(size_t) (start + r) * num_blocks + b],
                        rows[(size_t) first * num_blocks + b * width + r % TILE]);
            }
        }
        for (int x = 0; x < num_columns / 8; x++) {
            for (int r = 0; r < count; r += TILE) {
                tile<K>(std::min(count - r, TILE), num_blocks, columns + (size_t) x * num_blocks * K::BLOCKS,
                        rows.data() + (size_t) r * num_blocks, to + (start + r) * stride + 8 * x, stride);
            }
        }
    }
}

}  // namespace edgespec
#endif
