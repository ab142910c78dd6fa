#include "actgrid/deflate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "deflate_format.hpp"
#include "kernels/kernels.hpp"

namespace actgrid {
namespace {

// Number of bytes that are encoded with the same table of codes.
constexpr std::size_t block_bytes = 1 << 18;
// The codes of a block are computed from every fourth piece of this many bytes.
constexpr std::size_t sample_bytes = 1 << 11;

using Bytes = std::span<const std::uint8_t>;

void align_to_byte(BitWriter& out) {
    out.bit_count = (out.bit_count + 7) & ~7u;
    flush(out);
}

// Computes the code lengths of a Huffman tree no deeper than `max_length`. Symbols that do not
// occur get length 0.
void compute_code_lengths(std::span<const std::uint32_t> counts, int max_length,
                          std::span<std::uint8_t> lengths) {
    std::ranges::fill(lengths, std::uint8_t{0});
    std::vector<std::pair<std::uint32_t, int>> leaves;  // (count, symbol), the rarest symbol first
    for (std::size_t symbol = 0; symbol < counts.size(); ++symbol)
        if (counts[symbol] > 0) leaves.emplace_back(counts[symbol], static_cast<int>(symbol));
    std::ranges::sort(leaves);
    const std::size_t n = leaves.size();
    if (n == 1) lengths[static_cast<std::size_t>(leaves[0].second)] = 1;
    if (n < 2) return;

    // Inner nodes are created in ascending order of weight. The two lightest nodes are therefore at
    // the front of the remaining leaves or of the remaining inner nodes.
    std::vector<std::uint64_t> weights(2 * n - 1);
    std::vector<std::size_t> parents(2 * n - 1);
    for (std::size_t i = 0; i < n; ++i) weights[i] = leaves[i].first;
    std::size_t next_leaf = 0, next_inner = n;
    for (std::size_t node = n; node < 2 * n - 1; ++node) {
        for (int i = 0; i < 2; ++i) {
            const bool is_leaf =
                next_leaf < n && (next_inner == node || weights[next_leaf] <= weights[next_inner]);
            const std::size_t child = is_leaf ? next_leaf++ : next_inner++;
            weights[node] += weights[child];
            parents[child] = node;
        }
    }
    std::vector<int> depths(2 * n - 1);
    std::array<int, 64> leaf_counts{};  // by depth
    for (std::size_t i = 2 * n - 2; i-- > 0;) {
        depths[i] = depths[parents[i]] + 1;
        if (i < n) ++leaf_counts[static_cast<std::size_t>(std::min(depths[i], max_length))];
    }
    // Moving the leaves that were too deep up to `max_length` oversubscribes the tree.
    // `free_leaves` counts the leaves of that depth that could still be added. For each missing
    // one, another leaf moves one level down, and a leaf of depth `max_length` becomes its sibling.
    std::int64_t free_leaves = std::int64_t{1} << max_length;
    for (int depth = 1; depth <= max_length; ++depth)
        free_leaves -= std::int64_t{leaf_counts[static_cast<std::size_t>(depth)]}
                       << (max_length - depth);
    for (; free_leaves < 0; ++free_leaves) {
        int depth = max_length - 1;
        while (leaf_counts[static_cast<std::size_t>(depth)] == 0) --depth;
        --leaf_counts[static_cast<std::size_t>(depth)];
        leaf_counts[static_cast<std::size_t>(depth) + 1] += 2;
        --leaf_counts[static_cast<std::size_t>(max_length)];
    }
    std::size_t i = 0;
    for (int depth = max_length; depth > 0; --depth)
        for (int left = leaf_counts[static_cast<std::size_t>(depth)]; left > 0; --left)
            lengths[static_cast<std::size_t>(leaves[i++].second)] =
                static_cast<std::uint8_t>(depth);
}

// Assigns the canonical codes of these lengths (RFC 1951, section 3.2.2), with the first bit
// lowest.
void assign_codes(std::span<const std::uint8_t> lengths, std::span<Code> codes) {
    std::uint32_t next_code = 0;
    for (int length = 1; length < 16; ++length, next_code <<= 1) {
        for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
            if (lengths[symbol] != length) continue;
            std::uint32_t reversed = 0;
            for (int bit = 0; bit < length; ++bit)
                reversed |= (next_code >> bit & 1) << (length - 1 - bit);
            codes[symbol] = reversed << code_shift | static_cast<std::uint32_t>(length);
            ++next_code;
        }
    }
}

// Writes the header of a block: its code lengths, which are themselves Huffman coded (section
// 3.2.7). The only distance is 1, which is distance code 0.
void put_block_header(BitWriter& out, bool last, std::span<const std::uint8_t> lengths) {
    constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                 11, 4,  12, 3, 13, 2, 14, 1, 15};
    constexpr int repeat = 16, few_zeros = 17, many_zeros = 18;
    struct Item {
        std::uint8_t symbol, extra_bits, extra_bit_count;
    };
    std::size_t used_symbols = symbol_count;
    while (lengths[used_symbols - 1] == 0) --used_symbols;
    std::vector<std::uint8_t> all_lengths(
        lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(used_symbols));
    all_lengths.push_back(1);  // the length of the distance code
    std::vector<Item> items;
    std::array<std::uint32_t, 19> counts{};
    const auto add_item = [&](int symbol, std::size_t extra_bits, int extra_bit_count) {
        items.push_back({static_cast<std::uint8_t>(symbol), static_cast<std::uint8_t>(extra_bits),
                         static_cast<std::uint8_t>(extra_bit_count)});
        ++counts[static_cast<std::size_t>(symbol)];
    };
    for (std::size_t i = 0; i < all_lengths.size();) {
        std::size_t run_length = 1;
        while (i + run_length < all_lengths.size() && all_lengths[i + run_length] == all_lengths[i])
            ++run_length;
        if (all_lengths[i] == 0 && run_length >= 3) {
            run_length = std::min<std::size_t>(run_length, 138);
            if (run_length < 11)
                add_item(few_zeros, run_length - 3, 3);
            else
                add_item(many_zeros, run_length - 11, 7);
        } else if (i > 0 && all_lengths[i - 1] == all_lengths[i] && run_length >= 3) {
            run_length = std::min<std::size_t>(run_length, 6);
            add_item(repeat, run_length - 3, 2);
        } else {
            run_length = 1;
            add_item(all_lengths[i], 0, 0);
        }
        i += run_length;
    }
    std::array<std::uint8_t, 19> item_lengths{};
    std::array<Code, 19> item_codes{};
    compute_code_lengths(counts, 7, item_lengths);
    assign_codes(item_lengths, item_codes);
    std::size_t length_count = order.size();
    while (length_count > 4 && item_lengths[order[length_count - 1]] == 0) --length_count;
    put_bits(out, last, 1);
    put_bits(out, 2, 2);
    put_bits(out, used_symbols - first_length_symbol, 5);
    put_bits(out, 0, 5);
    put_bits(out, length_count - 4, 4);
    flush(out);
    for (std::size_t i = 0; i < length_count; ++i) {
        put_bits(out, item_lengths[order[i]], 3);
        flush(out);
    }
    for (const Item& item : items) {
        put_code(out, item_codes[item.symbol]);
        put_bits(out, item.extra_bits, item.extra_bit_count);
        flush(out);
    }
}

void put_stored_block(BitWriter& out, bool last, Bytes bytes) {
    constexpr std::size_t max_size = 0xffff;
    do {
        const Bytes part = bytes.first(std::min(bytes.size(), max_size));
        bytes = bytes.subspan(part.size());
        put_bits(out, last && bytes.empty(), 3);
        align_to_byte(out);
        put_bits(out, part.size(), 16);
        put_bits(out, part.size() ^ max_size, 16);
        flush(out);
        out.out = std::ranges::copy(part, out.out).out;
    } while (!bytes.empty());
}

// Computes the code lengths of a block from a sample of its bytes.
void choose_code_lengths(Bytes bytes, std::span<std::uint8_t> lengths) {
    std::array<std::uint32_t, symbol_count> counts{};
    if (bytes.size() <= 8 * sample_bytes) {
        active_kernels().count_symbols(bytes.data(), bytes.size(), counts.data());
    } else {
        counts.fill(1);  // symbols outside of the sample may occur in the block
        for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), 4 * sample_bytes)))
            active_kernels().count_symbols(bytes.data(), std::min(bytes.size(), sample_bytes),
                                           counts.data());
    }
    counts[end_of_block] = 1;
    compute_code_lengths(counts, max_code_length, lengths);
}

void put_block(BitWriter& writer, bool last, Bytes bytes) {
    std::array<std::uint8_t, symbol_count> lengths;
    std::array<Code, symbol_count> codes{};
    choose_code_lengths(bytes, lengths);
    assign_codes(lengths, codes);
    BitWriter out = writer;
    put_block_header(out, last, lengths);
    active_kernels().put_symbols(bytes.data(), bytes.size(), codes.data(), out);
    put_code(out, codes[end_of_block]);
    flush(out);
    if (out.out > writer.out + bytes.size())
        // The sample is not representative, or the bytes are noise.
        put_stored_block(writer, last, bytes);
    else
        writer = out;
}

}  // namespace

std::size_t deflate_capacity(std::size_t size) {
    // A block that grows when encoded is stored uncompressed instead, but only after encoding.
    return size + size / 1000 + 2 * std::min(size, block_bytes) + 1024;
}

std::size_t deflate(const std::uint8_t* data, std::size_t size, bool last, std::uint8_t* start) {
    BitWriter out{start};
    Bytes bytes(data, size);
    while (!bytes.empty()) {
        const Bytes block = bytes.first(std::min(bytes.size(), block_bytes));
        bytes = bytes.subspan(block.size());
        put_block(out, last && bytes.empty(), block);
    }
    if (!last || size == 0) put_stored_block(out, last, {});
    align_to_byte(out);
    return static_cast<std::size_t>(out.out - start);
}

std::size_t estimate_deflated(const std::uint8_t* data, std::size_t size) {
    std::array<std::uint32_t, symbol_count> counts{};
    if (size > 0) active_kernels().count_symbols(data, size, counts.data());
    double total = 0, bits = 0;
    for (const std::uint32_t count : counts) total += count;
    for (int symbol = 0; symbol < symbol_count; ++symbol) {
        const double count = counts[static_cast<std::size_t>(symbol)];
        if (count > 0) bits += count * std::log2(total / count);
        // The extra bits of a match, and one bit for its distance.
        if (symbol >= first_length_symbol) bits += count * (count_extra_bits(symbol) + 1);
    }
    return static_cast<std::size_t>(bits / 8);
}

}  // namespace actgrid
