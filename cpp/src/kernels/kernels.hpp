// The loops over values, compiled once for each instruction set: what they take and give.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../deflate_format.hpp"
#include "actgrid/tiles.hpp"

namespace actgrid {

/// Channels that a kernel is given at once, at most: the last part of many may have up to
/// `least_channels` - 1 more, so that none has fewer.
constexpr std::ptrdiff_t part_channels = 512;
/// The most lanes that any variant's registers have.
constexpr std::ptrdiff_t least_channels = 16;
constexpr std::ptrdiff_t most_channels = part_channels + least_channels - 1;

/// Totals of channels, an array of each. Sums are of differences from a pivot, a value of the
/// channel itself: the variance then loses at most log2(pixels) bits to cancellation, whatever the
/// mean.
struct Totals {
    double *sum, *square, *low, *high;
    std::int64_t* zeros;

    Totals operator+(std::ptrdiff_t channels) const {
        return {sum + channels, square + channels, low + channels, high + channels,
                zeros + channels};
    }
};

/// How a tile's values map to levels, and where it goes.
struct Target {
    double shift, scale, base;
    std::uint8_t* pixels;
    std::ptrdiff_t stride;
};

/// Where the pixels of a resized row lie among those it is made of: between two neighbours, so far
/// from the first; and up to where pixels lie between the same two.
struct Neighbours {
    const std::int32_t *first, *second, *end;
    const float* part;
};

/// Tiles are of one slice, at most `most_channels` of them, and as `packed` gives them.
struct Kernels {
    const char* name;
    /// Works out the totals of each tile, by its pivot. Those of a tile that holds a NaN or
    /// infinity have a sum of squares that is not finite.
    void (*measure)(const Tiles& part, const double* pivots, const Totals& totals);
    void (*paint)(const Tiles& part, const Target* targets);
    /// Adds to `counts`, one for each of deflate's symbols, those that bytes are written as.
    void (*count_symbols)(const std::uint8_t* bytes, std::size_t size, std::uint32_t* counts);
    void (*put_symbols)(const std::uint8_t* bytes, std::size_t size, const Code* codes,
                        BitWriter& to);
    /// Filters one row, given the row above it.
    void (*filter_paeth)(const std::uint8_t* row, const std::uint8_t* above, std::ptrdiff_t width,
                         std::uint8_t* filtered);
    /// Makes one row of a resized map of the `count` values above and below it, by way of `mixed`.
    void (*resize_row)(const float* above, const float* below, float part, std::ptrdiff_t count,
                       float* mixed, const Neighbours& columns, std::ptrdiff_t width,
                       float* resized);
    /// Lays the colours of levels over one row of an RGB picture, by way of `colours`, which has
    /// room for one byte more, as `palette` has.
    void (*overlay_row)(const std::uint8_t* levels, const std::uint8_t* palette, float alpha,
                        const std::uint8_t* image, std::ptrdiff_t width, std::uint8_t* colours,
                        std::uint8_t* overlaid);
};

/// The kernels in use.
const Kernels& kernels();

}  // namespace actgrid
