#pragma once

#include <cstdint>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// level = uint8(trunc(clip((x - shift) * scale + base, 0, 255))), one of each per tile.
struct Mapping {
    const double* shift;
    const double* scale;
    const double* base;
};

/// A picture of 8-bit levels and where each tile goes on it.
struct Canvas {
    std::uint8_t* levels;
    std::ptrdiff_t stride;       // bytes from one row to the next
    const std::int64_t* origin;  // per tile: offset of its top left pixel, negative: not drawn
};

/// Draws every tile that has an origin. Tiles on the canvas must not overlap.
void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads);

}  // namespace actgrid
