// Rows of resized maps, and their colours over a picture: the compiler makes vectors of them.
#pragma once

#include <cstring>

#include "kernels.hpp"

namespace actgrid::ACTGRID_VARIANT {

// Equal values need no arithmetic, which would turn two infinities into NaN.
static inline float between(float a, float b, float part) {
    const float mixed = a * (1 - part) + b * part;
    return a == b ? a : mixed;
}

static void resize_row(const float* above, const float* below, float part, std::ptrdiff_t count,
                       float* mixed, const Neighbours& columns, std::ptrdiff_t width,
                       float* resized) {
    for (std::ptrdiff_t x = 0; x < count; ++x) mixed[x] = between(above[x], below[x], part);
    for (std::ptrdiff_t x = 0; x < width;) {
        const float a = mixed[columns.first[x]], b = mixed[columns.second[x]];
        for (const std::ptrdiff_t end = columns.end[x]; x < end; ++x)
            resized[x] = between(a, b, columns.part[x]);
    }
}

static void overlay_row(const std::uint8_t* levels, const std::uint8_t* palette, float alpha,
                        const std::uint8_t* image, std::ptrdiff_t width, std::uint8_t* colours,
                        std::uint8_t* overlaid) {
    // The fourth byte is written over by the next pixel.
    for (std::ptrdiff_t x = 0; x < width; ++x)
        std::memcpy(colours + 3 * x, palette + 3 * levels[x], 4);
    for (std::ptrdiff_t i = 0; i < 3 * width; ++i) {
        const auto difference = static_cast<float>(colours[i] - image[i]);
        const float mixed = static_cast<float>(image[i]) + difference * alpha + 0.5f;
        overlaid[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(mixed));
    }
}

}  // namespace actgrid::ACTGRID_VARIANT
