#include "actgrid/png.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "actgrid/deflate.hpp"
#include "kernels/kernels.hpp"

namespace actgrid {
namespace {

enum Filter : std::uint8_t { no_filter = 0, sub = 1, paeth = 4 };

// Number of bytes that are filtered with each filter to choose the best.
constexpr std::ptrdiff_t sample_bytes = 1 << 13;
// Number of bytes whose checksum is computed with 32-bit integers at once.
constexpr std::size_t checksum_bytes = 1 << 12;
constexpr std::uint32_t adler_base = 65521;

// A part of a picture: rows of `stride` bytes, each with a byte for the filter type.
struct Rows {
    const std::uint8_t* data;
    std::ptrdiff_t height, stride;

    std::size_t size() const { return static_cast<std::size_t>(height * stride); }
};

// Applies the filter "sub" to a row: each pixel is replaced by its difference from the left pixel.
void filter_sub(const std::uint8_t* pixels, std::ptrdiff_t width, std::uint8_t* filtered) {
    filtered[0] = pixels[0];
    for (std::ptrdiff_t x = 1; x < width; ++x)
        filtered[x] = static_cast<std::uint8_t>(pixels[x] - pixels[x - 1]);
}

// Returns the rows with a filter applied: the rows themselves, or rows in `buffer`. The filter
// "Paeth" needs the row above, so that the first row gets the filter "sub".
Rows apply_filter(Filter filter, const Rows& rows, std::vector<std::uint8_t>& buffer) {
    if (filter == no_filter) return rows;
    buffer.resize(std::max(buffer.size(), rows.size()));
    for (std::ptrdiff_t y = 0; y < rows.height; ++y) {
        const std::uint8_t* row = rows.data + y * rows.stride;
        std::uint8_t* filtered = buffer.data() + y * rows.stride;
        filtered[0] = y > 0 ? filter : sub;
        if (filtered[0] == sub)
            filter_sub(row + 1, rows.stride - 1, filtered + 1);
        else
            active_kernels().filter_paeth(row + 1, row + 1 - rows.stride, rows.stride - 1,
                                          filtered + 1);
    }
    return {buffer.data(), rows.height, rows.stride};
}

// Returns the filter that compresses a sample of adjacent rows best.
Filter choose_filter(const Rows& rows, std::vector<std::uint8_t>& buffer) {
    const std::ptrdiff_t count =
        std::min(rows.height, std::max<std::ptrdiff_t>(2, sample_bytes / rows.stride));
    const Rows sample{rows.data + (rows.height - count) / 2 * rows.stride, count, rows.stride};
    Filter best = no_filter;
    std::size_t best_size = estimate_deflated(sample.data, sample.size());
    for (const Filter filter : {sub, paeth}) {
        const Rows filtered = apply_filter(filter, sample, buffer);
        const std::size_t size = estimate_deflated(filtered.data, filtered.size());
        if (size < best_size) {
            best = filter;
            best_size = size;
        }
    }
    return best;
}

std::uint32_t compute_adler32(std::span<const std::uint8_t> bytes) {
    std::uint32_t low = 1, high = 0;
    while (!bytes.empty()) {
        const auto block = bytes.first(std::min(bytes.size(), checksum_bytes));
        bytes = bytes.subspan(block.size());
        // The second sum contains each byte as often as it was in the first sum.
        const auto size = static_cast<std::uint32_t>(block.size());
        const ByteSums sums = active_kernels().sum_bytes(block.data(), size);
        high = static_cast<std::uint32_t>((high + std::uint64_t{size} * low + sums.weighted_sum) %
                                          adler_base);
        low = (low + sums.sum) % adler_base;
    }
    return high << 16 | low;
}

}  // namespace

CompressedRows compress_rows(const std::uint8_t* data, std::ptrdiff_t height, std::ptrdiff_t stride,
                             bool last, std::uint8_t* out) {
    // Each thread reuses its buffer: allocating memory takes longer than writing to it.
    static thread_local std::vector<std::uint8_t> buffer;
    const Rows rows{data, height, stride};
    const Rows filtered = apply_filter(choose_filter(rows, buffer), rows, buffer);
    return {deflate(filtered.data, filtered.size(), last, out),
            compute_adler32({filtered.data, filtered.size()})};
}

}  // namespace actgrid
