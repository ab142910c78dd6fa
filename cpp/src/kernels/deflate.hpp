// Bytes taken apart into literals and runs, counted or written as codes.
#pragma once

#include <bit>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

static_assert(std::endian::native == std::endian::little, "bits are written from the lowest on");

// Shorter runs take fewer bits as literals, which are short where runs are frequent.
constexpr int shortest_run = 5;
// A run that may have begun at the end of eight bytes is looked at if it has this many.
constexpr int begun_run = 4;

static inline std::uint64_t eight(const std::uint8_t* from) {
    return load<std::uint64_t>(reinterpret_cast<const std::byte*>(from));
}

// Calls literals(from, count), `count` being 8 wherever it can, and match(length) for runs of the
// byte before. The first byte is a literal.
template <class Literals, class Match>
static inline void scan(const std::uint8_t* at, const std::uint8_t* end, const Literals& literals,
                        const Match& match) {
    literals(at++, 1);
    while (end - at >= 8) {
        // Zero bytes where a byte equals the one before.
        const std::uint64_t changes = eight(at) ^ eight(at - 1);
        if (changes == 0) {
            const std::uint8_t* stop = at + 8;
            while (end - stop >= 8 && eight(stop) == eight(stop - 1)) stop += 8;
            while (stop < end && *stop == stop[-1]) ++stop;
            while (at < stop) {
                std::ptrdiff_t part = stop - at;
                if (part > longest_match) {
                    // What is left must not be too short for a match of its own.
                    part = part - longest_match < shortest_match ? longest_match - shortest_match
                                                                 : longest_match;
                }
                match(part);
                at += part;
            }
            continue;
        }
        if (const int equal = std::countr_zero(changes) / 8; equal >= shortest_run) {
            match(equal);
            at += equal;
            continue;
        }
        const int begun = std::countl_zero(changes) / 8;
        const int count = begun >= begun_run ? 8 - begun : 8;
        literals(at, count);
        at += count;
    }
    for (; at < end; ++at) literals(at, 1);
}

static void count_symbols(const std::uint8_t* bytes, std::size_t size, std::uint32_t* counts) {
    // Neighbouring literals are counted apart: adding to one number twice in a row takes long.
    std::uint32_t apart[4][literals] = {};
    scan(
        bytes, bytes + size,
        [&](const std::uint8_t* from, int count) {
            for (int i = 0; i < count; ++i) ++apart[i % 4][from[i]];
        },
        [&](std::ptrdiff_t length) {
            ++counts[match_lengths[static_cast<std::size_t>(length)].symbol];
        });
    for (int symbol = 0; symbol < literals; ++symbol)
        counts[symbol] += apart[0][symbol] + apart[1][symbol] + apart[2][symbol] + apart[3][symbol];
}

static void put_symbols(const std::uint8_t* bytes, std::size_t size, const Code* codes,
                        BitWriter& to) {
    BitWriter out = to;  // a local copy stays in registers
    scan(
        bytes, bytes + size,
        [&](const std::uint8_t* from, int count) {
            if (count == 8) {
                for (int i = 0; i < 4; ++i) put(out, codes[from[i]]);
                flush(out);
                for (int i = 4; i < 8; ++i) put(out, codes[from[i]]);
                flush(out);
                return;
            }
            for (int i = 0; i < count; ++i) {
                put(out, codes[from[i]]);
                if (i % 4 == 3) flush(out);
            }
            flush(out);
        },
        [&](std::ptrdiff_t length) {
            const MatchLength& found = match_lengths[static_cast<std::size_t>(length)];
            put(out, codes[found.symbol]);
            put(out, found.extra, found.extra_bits);
            put(out, 0, 1);  // distance 1, the only one
            flush(out);
        });
    to = out;
}

}  // namespace actgrid::ACTGRID_VARIANT
