#pragma once

#include <cstdint>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Mapping from values to levels, with one entry per tile in each array:
/// level = uint8(trunc(clip((x - shift) * scale + base, 0, 255))).
struct Mapping {
    const double* shift;
    const double* scale;
    const double* base;
};

/// A picture of 8-bit levels, and the position of each tile in it.
struct Canvas {
    std::uint8_t* levels;
    std::ptrdiff_t stride;       // number of bytes from one row to the next
    const std::int64_t* origin;  // per tile: offset of the top left pixel; negative if not drawn
};

/// Paints the levels of every tile with a nonnegative origin. Tiles must not overlap on the canvas.
void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads);

}  // namespace actgrid
