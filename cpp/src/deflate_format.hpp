// What deflate (RFC 1951) is made of: codes, lengths of matches, bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace actgrid {

constexpr int literals = 256, end_of_block = 256, first_length = 257, symbols = 286;
constexpr std::ptrdiff_t shortest_match = 3, longest_match = 258;
/// Four codes of this length and seven bits that wait fill 64 bits.
constexpr int longest_code = 14;

/// A code's bits, the first one lowest, above its length: adding a code to a position adds the
/// length, as far as a shift looks at it.
using Code = std::uint32_t;
constexpr int code_shift = 8;

/// A match's length as a symbol with further bits (section 3.2.5).
struct MatchLength {
    std::uint16_t symbol;
    std::uint8_t extra_bits, extra;
};

/// How many further bits tell the length that such a symbol stands for: none for the first eight,
/// then one more for every four.
constexpr int further_bits(int symbol) {
    const int group = symbol - first_length;
    return group < 8 || symbol == symbols - 1 ? 0 : group / 4 - 1;
}

constexpr std::array<MatchLength, longest_match + 1> match_lengths = [] {
    std::array<MatchLength, longest_match + 1> table{};
    std::size_t length = shortest_match;
    for (int symbol = first_length; symbol < symbols - 1; ++symbol) {
        const int bits = further_bits(symbol);
        for (int extra = 0; extra < 1 << bits && length < longest_match; ++extra, ++length)
            table[length] = {static_cast<std::uint16_t>(symbol), static_cast<std::uint8_t>(bits),
                             static_cast<std::uint8_t>(extra)};
    }
    table[longest_match] = {symbols - 1, 0, 0};
    return table;
}();

/// Where bits go, and those that do not fill a byte yet: the lower six bits of `count` tell how
/// many.
struct BitWriter {
    std::uint8_t* out;
    std::uint64_t waiting = 0;
    std::uint32_t count = 0;
};

// Between two flushes no more than 56 bits.
static inline void put(BitWriter& to, std::uint64_t bits, int count) {
    to.waiting |= bits << (to.count & 63);
    to.count += static_cast<std::uint32_t>(count);
}
static inline void put(BitWriter& to, Code code) {
    to.waiting |= std::uint64_t{code >> code_shift} << (to.count & 63);
    to.count += code;
}
static inline void flush(BitWriter& to) {
    std::memcpy(to.out, &to.waiting, sizeof to.waiting);
    to.out += (to.count & 63) >> 3;
    to.waiting >>= to.count & 56;
    to.count &= 7;
}

}  // namespace actgrid
