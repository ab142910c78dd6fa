#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// A contiguous (count, height, width) array of maps.
struct Maps {
    const float* values;
    std::ptrdiff_t count, height, width;
};

/// Resizes maps bilinearly. Pixels are squares, and the outermost values extend to the edges.
/// `resized` receives maps.count x height x width values.
void resize(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width, float* resized,
            int threads);

/// Mapping from the values of a map to colours, and the weight of the colours in an overlay. The
/// colour of a value is the palette entry of its level,
/// uint8(trunc(clip((value - shift) * scale + base, 0, 255))).
struct Colouring {
    double shift, scale, base;
    const std::uint8_t* palette;  // 256 x RGB
    double alpha;                 // weight of the colour: 0 shows the image only, 1 the colour only
};

/// Resizes one map to an RGB image, height x width x 3, and blends its colours with the image. Each
/// component of `overlaid` is trunc(image + (colour - image) * alpha + 0.5). `overlaid` may be the
/// same memory as `image`.
void overlay(const Maps& map, const Colouring& colouring, const std::uint8_t* image,
             std::ptrdiff_t height, std::ptrdiff_t width, std::uint8_t* overlaid, int threads);

}  // namespace actgrid
