// Kernels that resize maps and blend them with images, in loops that the compiler vectorizes.
#pragma once

#include <cstring>

#include "kernels.hpp"

namespace actgrid::ACTGRID_VARIANT {

// Equal values are returned as they are: the arithmetic would turn two infinities into NaN.
static inline float interpolate(float a, float b, float weight) {
    const float blended = a * (1 - weight) + b * weight;
    return a == b ? a : blended;
}

static void resize_row(const float* above, const float* below, float weight, std::ptrdiff_t count,
                       float* blended, const Neighbours& columns, std::ptrdiff_t width,
                       float* resized) {
    for (std::ptrdiff_t x = 0; x < count; ++x) blended[x] = interpolate(above[x], below[x], weight);
    for (std::ptrdiff_t x = 0; x < width;) {
        const float a = blended[columns.first[x]], b = blended[columns.second[x]];
        for (const std::ptrdiff_t run_end = columns.run_end[x]; x < run_end; ++x)
            resized[x] = interpolate(a, b, columns.weight[x]);
    }
}

static void overlay_row(const std::uint8_t* levels, const std::uint8_t* palette, float alpha,
                        const std::uint8_t* image, std::ptrdiff_t width, std::uint8_t* colours,
                        std::uint8_t* overlaid) {
    // Copying 4 bytes is faster than copying 3. The next pixel overwrites the fourth byte.
    for (std::ptrdiff_t x = 0; x < width; ++x)
        std::memcpy(colours + 3 * x, palette + 3 * levels[x], 4);
    for (std::ptrdiff_t i = 0; i < 3 * width; ++i) {
        const auto difference = static_cast<float>(colours[i] - image[i]);
        const float blended = static_cast<float>(image[i]) + difference * alpha + 0.5f;
        overlaid[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(blended));
    }
}

}  // namespace actgrid::ACTGRID_VARIANT
