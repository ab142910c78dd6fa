// Interface of the kernels: the loops over values, compiled once for each instruction set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "../deflate_format.hpp"
#include "actgrid/tiles.hpp"

namespace actgrid {

/// Maximum number of channels in a part, except that the last part of a slice may have up to
/// `min_interleaved_channels` - 1 more, so that no part has too few channels.
constexpr std::ptrdiff_t target_part_channels = 512;
/// Minimum number of channels for the kernels that process several channels at once: the largest
/// number of lanes in any variant.
constexpr std::ptrdiff_t min_interleaved_channels = 16;
/// Maximum number of channels that a kernel receives.
constexpr std::ptrdiff_t max_part_channels = target_part_channels + min_interleaved_channels - 1;

/// Running totals, with one entry per channel in each array. The sums are of differences from a
/// pivot.
struct Totals {
    double *sum, *square_sum, *min, *max;
    std::int64_t* zeros;

    Totals operator+(std::ptrdiff_t channels) const {
        return {sum + channels, square_sum + channels, min + channels, max + channels,
                zeros + channels};
    }
};

/// Sets the first entry to the totals of no values.
static inline void clear_total(const Totals& total) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    *total.sum = *total.square_sum = 0;
    *total.min = infinity;
    *total.max = -infinity;
    *total.zeros = 0;
}

/// Adds the first entry of `other` to the first entry of `total`.
static inline void merge_total(const Totals& total, const Totals& other) {
    // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): groups cover all channels
    *total.sum += *other.sum;
    *total.square_sum += *other.square_sum;
    *total.min = std::min(*total.min, *other.min);
    *total.max = std::max(*total.max, *other.max);
    *total.zeros += *other.zeros;
}

/// Mapping of one tile from values to levels, and the memory to which its levels are written.
struct TileTarget {
    double shift, scale, base;
    std::uint8_t* pixels;
    std::ptrdiff_t stride;
};

/// Linear interpolation along one axis, with one entry per output pixel in each array: the indices
/// of the two input neighbours, the weight of the second, and the end of the run of output pixels
/// that have the same neighbours.
struct Neighbours {
    const std::int32_t *first, *second, *run_end;
    const float* weight;
};

/// The sum of bytes, and the sum of each byte times the number of bytes from it to the end.
struct ByteSums {
    std::uint32_t sum, weighted_sum;
};

/// The kernels of one variant. Tiles have one slice, at most `max_part_channels` channels and a
/// layout that `pack` returns.
struct Kernels {
    const char* name;
    /// Computes the totals of each tile, relative to its pivot, or to 0 if `pivots` is null, which
    /// is faster. If a tile contains NaN or an infinity, its sum of squares is not finite.
    void (*measure)(const Tiles& tiles, const double* pivots, const Totals& totals);
    /// Writes the levels of each tile to its target.
    void (*paint)(const Tiles& tiles, const TileTarget* targets);
    /// Adds the number of occurrences of each deflate symbol in the encoding of `bytes` to
    /// `counts`.
    void (*count_symbols)(const std::uint8_t* bytes, std::size_t size, std::uint32_t* counts);
    /// Encodes `bytes` with the given codes.
    void (*put_symbols)(const std::uint8_t* bytes, std::size_t size, const Code* codes,
                        BitWriter& writer);
    /// Sums at most 4,096 bytes, so that the sums fit into 32 bits.
    ByteSums (*sum_bytes)(const std::uint8_t* bytes, std::uint32_t size);
    /// Applies the PNG filter "Paeth" to one row, given the row above.
    void (*filter_paeth)(const std::uint8_t* row, const std::uint8_t* above, std::ptrdiff_t width,
                         std::uint8_t* filtered);
    /// Computes one row of a resized map from the input rows above and below, of `count` values
    /// each. `blended` is a scratch buffer of `count` values.
    void (*resize_row)(const float* above, const float* below, float weight, std::ptrdiff_t count,
                       float* blended, const Neighbours& columns, std::ptrdiff_t width,
                       float* resized);
    /// Blends the colours of levels with one row of an RGB image. `colours` is a scratch buffer of
    /// 3 * width + 1 bytes, and `palette` has one spare byte at its end, because colours are copied
    /// four bytes at a time.
    void (*overlay_row)(const std::uint8_t* levels, const std::uint8_t* palette, float alpha,
                        const std::uint8_t* image, std::ptrdiff_t width, std::uint8_t* colours,
                        std::uint8_t* overlaid);
};

/// Returns the kernels of the active variant.
const Kernels& active_kernels();

}  // namespace actgrid
