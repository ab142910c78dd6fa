#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Pictures of numbers, one after the other, row by row.
struct Maps {
    const float* values;
    std::ptrdiff_t count, height, width;
};

/// Resizes pictures bilinearly: pixels are squares, the outermost values reach to the edges.
/// `resized` holds maps.count x height x width numbers.
void resize(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width, float* resized,
            int threads);

/// How much of a colour lies over a picture, and which colour: that of the value's level, which is
/// uint8(trunc(clip((value - shift) * scale + base, 0, 255))).
struct Colouring {
    double shift, scale, base;
    const std::uint8_t* palette;  // 256 x RGB
    double alpha;                 // 0: the picture alone, 1: the colours alone
};

/// Lays one map, resized, over an RGB picture, height x width x 3: each component becomes
/// trunc(image + (colour - image) * alpha + 0.5). `overlaid` may be `image`.
void overlay(const Maps& map, const Colouring& colouring, const std::uint8_t* image,
             std::ptrdiff_t height, std::ptrdiff_t width, std::uint8_t* overlaid, int threads);

}  // namespace actgrid
