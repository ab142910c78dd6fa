// The loops over values, compiled once for each instruction set: what they take and give.
#pragma once

#include <cstddef>
#include <cstdint>

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

/// Both functions take tiles of one slice, at most `most_channels` of them.
struct Kernels {
    const char* name;
    /// Works out the totals of each tile, by its pivot. Those of a tile that holds a NaN or
    /// infinity have a sum of squares that is not finite.
    void (*measure)(const Tiles& part, const double* pivots, const Totals& totals);
    void (*paint)(const Tiles& part, const Target* targets);
};

/// The kernels in use.
const Kernels& kernels();

}  // namespace actgrid
