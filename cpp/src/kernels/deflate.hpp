// Kernels that split bytes into literals and runs, and count or encode them.
#pragma once

#include <bit>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

static_assert(std::endian::native == std::endian::little, "BitWriter writes the low byte first");

// Shorter runs take fewer bits as literals, because frequent literals have short codes.
constexpr int min_run_length = 5;
// Minimum number of equal bytes at the end of an 8-byte word for which the next word starts at the
// first of them, so that a run across both words is found.
constexpr int min_trailing_run = 4;

static inline std::uint64_t load_eight_bytes(const std::uint8_t* from) {
    return load<std::uint64_t>(reinterpret_cast<const std::byte*>(from));
}

// Calls put_literals(from, count) for literals, 8 at a time where possible, and put_match(length)
// for runs that repeat the byte before them. The first byte is a literal. Inlined always, because
// GCC stops inlining when a file grows large: calls take 25% more time.
template <class PutLiterals, class PutMatch>
[[gnu::always_inline]] static inline void scan_runs(const std::uint8_t* at, const std::uint8_t* end,
                                                    const PutLiterals& put_literals,
                                                    const PutMatch& put_match) {
    put_literals(at++, 1);
    while (end - at >= 8) {
        // A byte of `changes` is zero if that byte equals the byte before it.
        const std::uint64_t changes = load_eight_bytes(at) ^ load_eight_bytes(at - 1);
        if (changes == 0) {
            const std::uint8_t* run_end = at + 8;
            while (end - run_end >= 8 && load_eight_bytes(run_end) == load_eight_bytes(run_end - 1))
                run_end += 8;
            while (run_end < end && *run_end == run_end[-1]) ++run_end;
            while (at < run_end) {
                std::ptrdiff_t length = run_end - at;
                if (length > max_match_length) {
                    // The rest must be long enough for another match.
                    length = length - max_match_length < min_match_length
                                 ? max_match_length - min_match_length
                                 : max_match_length;
                }
                put_match(length);
                at += length;
            }
            continue;
        }
        if (const int equal = std::countr_zero(changes) / 8; equal >= min_run_length) {
            put_match(equal);
            at += equal;
            continue;
        }
        const int trailing = std::countl_zero(changes) / 8;
        const int count = trailing >= min_trailing_run ? 8 - trailing : 8;
        put_literals(at, count);
        at += count;
    }
    for (; at < end; ++at) put_literals(at, 1);
}

static void count_symbols(const std::uint8_t* bytes, std::size_t size, std::uint32_t* counts) {
    // Consecutive literals use separate tables, because incrementing a counter twice in a row is
    // slow.
    std::uint32_t partial_counts[4][literal_count] = {};
    scan_runs(
        bytes, bytes + size,
        [&](const std::uint8_t* from, int count) {
            for (int i = 0; i < count; ++i) ++partial_counts[i % 4][from[i]];
        },
        [&](std::ptrdiff_t length) {
            ++counts[match_lengths[static_cast<std::size_t>(length)].symbol];
        });
    for (int symbol = 0; symbol < literal_count; ++symbol)
        counts[symbol] += partial_counts[0][symbol] + partial_counts[1][symbol] +
                          partial_counts[2][symbol] + partial_counts[3][symbol];
}

static void put_symbols(const std::uint8_t* bytes, std::size_t size, const Code* codes,
                        BitWriter& writer) {
    BitWriter out = writer;  // a local copy stays in registers
    scan_runs(
        bytes, bytes + size,
        [&](const std::uint8_t* from, int count) __attribute__((always_inline)) {
            if (count == 8) {
                for (int i = 0; i < 4; ++i) put_code(out, codes[from[i]]);
                flush(out);
                for (int i = 4; i < 8; ++i) put_code(out, codes[from[i]]);
                flush(out);
                return;
            }
            for (int i = 0; i < count; ++i) {
                put_code(out, codes[from[i]]);
                if (i % 4 == 3) flush(out);
            }
            flush(out);
        },
        [&](std::ptrdiff_t length) __attribute__((always_inline)) {
            const MatchLength& match = match_lengths[static_cast<std::size_t>(length)];
            put_code(out, codes[match.symbol]);
            put_bits(out, match.extra_bits, match.extra_bit_count);
            put_bits(out, 0, 1);  // distance 1, the only distance
            flush(out);
        });
    writer = out;
}

}  // namespace actgrid::ACTGRID_VARIANT
