// Elements of the deflate format (RFC 1951): codes, match lengths and a bit writer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace actgrid {

constexpr int literal_count = 256, end_of_block = 256, first_length_symbol = 257,
              symbol_count = 286;
constexpr std::ptrdiff_t min_match_length = 3, max_match_length = 258;
/// Four codes of this length and seven pending bits fit into 64 bits.
constexpr int max_code_length = 14;

/// A Huffman code: the length in the low 8 bits, and above it the bits of the code, the first bit
/// lowest. Adding a Code to a bit count adds the length, because shifts use the low bits only.
using Code = std::uint32_t;
constexpr int code_shift = 8;

/// The encoding of a match length: a symbol and extra bits (section 3.2.5).
struct MatchLength {
    std::uint16_t symbol;
    std::uint8_t extra_bit_count, extra_bits;
};

/// Returns the number of extra bits after a length symbol: 0 for the first eight symbols, then one
/// more for each group of four symbols.
constexpr int count_extra_bits(int symbol) {
    const int group = symbol - first_length_symbol;
    return group < 8 || symbol == symbol_count - 1 ? 0 : group / 4 - 1;
}

constexpr std::array<MatchLength, max_match_length + 1> match_lengths = [] {
    std::array<MatchLength, max_match_length + 1> table{};
    std::size_t length = min_match_length;
    for (int symbol = first_length_symbol; symbol < symbol_count - 1; ++symbol) {
        const int extra_bit_count = count_extra_bits(symbol);
        for (int extra_bits = 0; extra_bits < 1 << extra_bit_count && length < max_match_length;
             ++extra_bits, ++length)
            table[length] = {static_cast<std::uint16_t>(symbol),
                             static_cast<std::uint8_t>(extra_bit_count),
                             static_cast<std::uint8_t>(extra_bits)};
    }
    table[max_match_length] = {symbol_count - 1, 0, 0};
    return table;
}();

/// Writes bits to memory. The low six bits of `bit_count` are the number of pending bits;
/// `put_code` adds whole codes to it, so higher bits are undefined until the next flush.
struct BitWriter {
    std::uint8_t* out;
    std::uint64_t pending_bits = 0;
    std::uint32_t bit_count = 0;
};

// At most 56 bits may be put between two flushes.
[[gnu::always_inline]] static inline void put_bits(BitWriter& writer, std::uint64_t bits,
                                                   int count) {
    writer.pending_bits |= bits << (writer.bit_count & 63);
    writer.bit_count += static_cast<std::uint32_t>(count);
}
[[gnu::always_inline]] static inline void put_code(BitWriter& writer, Code code) {
    writer.pending_bits |= std::uint64_t{code >> code_shift} << (writer.bit_count & 63);
    writer.bit_count += code;
}
[[gnu::always_inline]] static inline void flush(BitWriter& writer) {
    std::memcpy(writer.out, &writer.pending_bits, sizeof writer.pending_bits);
    writer.out += (writer.bit_count & 63) >> 3;
    writer.pending_bits >>= writer.bit_count & 56;
    writer.bit_count &= 7;
}

}  // namespace actgrid
