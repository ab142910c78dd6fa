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

// Bytes that share a table of codes.
constexpr std::size_t block_bytes = 1 << 18;
// Of a block's bytes every fourth of these pieces is counted to make the codes.
constexpr std::size_t piece_bytes = 1 << 11;

using Bytes = std::span<const std::uint8_t>;

void align(BitWriter& out) {
    out.count = (out.count + 7) & ~7u;
    flush(out);
}

// Lengths of the codes of a Huffman tree no deeper than `longest`; 0 for what does not occur.
void code_lengths(std::span<const std::uint32_t> counts, int longest,
                  std::span<std::uint8_t> found) {
    std::fill(found.begin(), found.end(), std::uint8_t{0});
    std::vector<std::pair<std::uint32_t, int>> leaves;  // the rarest first
    for (std::size_t symbol = 0; symbol < counts.size(); ++symbol)
        if (counts[symbol] > 0) leaves.emplace_back(counts[symbol], static_cast<int>(symbol));
    std::sort(leaves.begin(), leaves.end());
    const std::size_t n = leaves.size();
    if (n == 1) found[static_cast<std::size_t>(leaves[0].second)] = 1;
    if (n < 2) return;

    // Nodes are made in the order of their weight: the lightest two are at the head of the leaves
    // or of the nodes made before.
    std::vector<std::uint64_t> weight(2 * n - 1);
    std::vector<std::size_t> parent(2 * n - 1);
    for (std::size_t i = 0; i < n; ++i) weight[i] = leaves[i].first;
    std::size_t leaf = 0, node = n;
    for (std::size_t made = n; made < 2 * n - 1; ++made) {
        for (int child = 0; child < 2; ++child) {
            const bool take_leaf = leaf < n && (node == made || weight[leaf] <= weight[node]);
            const std::size_t taken = take_leaf ? leaf++ : node++;
            weight[made] += weight[taken];
            parent[taken] = made;
        }
    }
    std::vector<int> depth(2 * n - 1);
    std::array<int, 64> at_depth{};
    for (std::size_t i = 2 * n - 2; i-- > 0;) {
        depth[i] = depth[parent[i]] + 1;
        if (i < n) ++at_depth[static_cast<std::size_t>(std::min(depth[i], longest))];
    }
    // Leaves that were too deep now take more room than there is, counted in deepest leaves:
    // another leaf goes one deeper, and one of the deepest becomes its sibling.
    std::int64_t room = std::int64_t{1} << longest;
    for (int d = 1; d <= longest; ++d)
        room -= std::int64_t{at_depth[static_cast<std::size_t>(d)]} << (longest - d);
    for (; room < 0; ++room) {
        int d = longest - 1;
        while (at_depth[static_cast<std::size_t>(d)] == 0) --d;
        --at_depth[static_cast<std::size_t>(d)];
        at_depth[static_cast<std::size_t>(d) + 1] += 2;
        --at_depth[static_cast<std::size_t>(longest)];
    }
    std::size_t i = 0;
    for (int d = longest; d > 0; --d)
        for (int left = at_depth[static_cast<std::size_t>(d)]; left > 0; --left)
            found[static_cast<std::size_t>(leaves[i++].second)] = static_cast<std::uint8_t>(d);
}

// Canonical codes of these lengths (RFC 1951, section 3.2.2), their first bit lowest.
void assign_codes(std::span<const std::uint8_t> code_lengths, std::span<Code> codes) {
    std::uint32_t next = 0;
    for (int length = 1; length < 16; ++length, next <<= 1) {
        for (std::size_t symbol = 0; symbol < code_lengths.size(); ++symbol) {
            if (code_lengths[symbol] != length) continue;
            std::uint32_t reversed = 0;
            for (int bit = 0; bit < length; ++bit)
                reversed |= (next >> bit & 1) << (length - 1 - bit);
            codes[symbol] = reversed << code_shift | static_cast<std::uint32_t>(length);
            ++next;
        }
    }
}

// Writes the head of a block: the lengths of its codes, themselves coded (section 3.2.7). The
// only distance is 1, which is distance code 0.
void put_head(BitWriter& out, bool last, std::span<const std::uint8_t> lengths) {
    constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                 11, 4,  12, 3, 13, 2, 14, 1, 15};
    constexpr int repeat = 16, few_zeros = 17, many_zeros = 18;
    struct Item {
        std::uint8_t symbol, extra, extra_bits;
    };
    std::size_t used = symbols;
    while (lengths[used - 1] == 0) --used;
    std::vector<std::uint8_t> all(lengths.begin(),
                                  lengths.begin() + static_cast<std::ptrdiff_t>(used));
    all.push_back(1);
    std::vector<Item> items;
    std::array<std::uint32_t, 19> counts{};
    const auto add = [&](int symbol, std::size_t extra, int bits) {
        items.push_back({static_cast<std::uint8_t>(symbol), static_cast<std::uint8_t>(extra),
                         static_cast<std::uint8_t>(bits)});
        ++counts[static_cast<std::size_t>(symbol)];
    };
    for (std::size_t i = 0; i < all.size();) {
        std::size_t same = 1;
        while (i + same < all.size() && all[i + same] == all[i]) ++same;
        if (all[i] == 0 && same >= 3) {
            same = std::min<std::size_t>(same, 138);
            if (same < 11)
                add(few_zeros, same - 3, 3);
            else
                add(many_zeros, same - 11, 7);
        } else if (i > 0 && all[i - 1] == all[i] && same >= 3) {
            same = std::min<std::size_t>(same, 6);
            add(repeat, same - 3, 2);
        } else {
            same = 1;
            add(all[i], 0, 0);
        }
        i += same;
    }
    std::array<std::uint8_t, 19> item_lengths{};
    std::array<Code, 19> item_codes{};
    code_lengths(counts, 7, item_lengths);
    assign_codes(item_lengths, item_codes);
    std::size_t shown = order.size();
    while (shown > 4 && item_lengths[order[shown - 1]] == 0) --shown;
    put(out, last, 1);
    put(out, 2, 2);
    put(out, used - first_length, 5);
    put(out, 0, 5);
    put(out, shown - 4, 4);
    flush(out);
    for (std::size_t i = 0; i < shown; ++i) {
        put(out, item_lengths[order[i]], 3);
        flush(out);
    }
    for (const Item& item : items) {
        put(out, item_codes[item.symbol]);
        put(out, item.extra, item.extra_bits);
        flush(out);
    }
}

void put_stored(BitWriter& out, bool last, Bytes bytes) {
    constexpr std::size_t most = 0xffff;
    do {
        const Bytes part = bytes.first(std::min(bytes.size(), most));
        bytes = bytes.subspan(part.size());
        put(out, last && bytes.empty(), 3);
        align(out);
        put(out, part.size(), 16);
        put(out, part.size() ^ most, 16);
        flush(out);
        out.out = std::copy(part.begin(), part.end(), out.out);
    } while (!bytes.empty());
}

// The lengths of codes that suit a block, by what a part of it holds.
void choose_lengths(Bytes bytes, std::span<std::uint8_t> found) {
    std::array<std::uint32_t, symbols> counts{};
    if (bytes.size() <= 8 * piece_bytes) {
        kernels().count_symbols(bytes.data(), bytes.size(), counts.data());
    } else {
        counts.fill(1);  // what is not counted may occur all the same
        for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), 4 * piece_bytes)))
            kernels().count_symbols(bytes.data(), std::min(bytes.size(), piece_bytes),
                                    counts.data());
    }
    counts[end_of_block] = 1;
    code_lengths(counts, longest_code, found);
}

void put_block(BitWriter& to, bool last, Bytes bytes) {
    std::array<std::uint8_t, symbols> lengths;
    std::array<Code, symbols> codes{};
    choose_lengths(bytes, lengths);
    assign_codes(lengths, codes);
    BitWriter out = to;
    put_head(out, last, lengths);
    kernels().put_symbols(bytes.data(), bytes.size(), codes.data(), out);
    put(out, codes[end_of_block]);
    flush(out);
    if (out.out > to.out + bytes.size())
        put_stored(to, last, bytes);  // what was counted was not like the rest, or all is noise
    else
        to = out;
}

}  // namespace

std::size_t deflate_capacity(std::size_t size) {
    // A block may outgrow its bytes before it is stored instead.
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
    if (!last || size == 0) put_stored(out, last, {});
    align(out);
    return static_cast<std::size_t>(out.out - start);
}

std::size_t estimate_deflated(const std::uint8_t* data, std::size_t size) {
    std::array<std::uint32_t, symbols> counts{};
    if (size > 0) kernels().count_symbols(data, size, counts.data());
    double total = 0, bits = 0;
    for (const std::uint32_t count : counts) total += count;
    for (int symbol = 0; symbol < symbols; ++symbol) {
        const double count = counts[static_cast<std::size_t>(symbol)];
        if (count > 0) bits += count * std::log2(total / count);
        // The further bits of a match, and its distance.
        if (symbol >= first_length) bits += count * (further_bits(symbol) + 1);
    }
    return static_cast<std::size_t>(bits / 8);
}

}  // namespace actgrid
