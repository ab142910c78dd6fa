// PNG's filter "Paeth", pixel by pixel: the compiler makes vectors of it.
#pragma once

#include "kernels.hpp"

namespace actgrid::ACTGRID_VARIANT {

static void filter_paeth(const std::uint8_t* row, const std::uint8_t* above, std::ptrdiff_t width,
                         std::uint8_t* filtered) {
    filtered[0] = static_cast<std::uint8_t>(row[0] - above[0]);
    for (std::ptrdiff_t x = 1; x < width; ++x) {
        using Number = std::int16_t;
        const Number a = row[x - 1], b = above[x], c = above[x - 1];
        const auto size = [](int n) { return static_cast<Number>(n < 0 ? -n : n); };
        const Number from_a = size(b - c), from_b = size(a - c), from_c = size(a + b - 2 * c);
        const Number nearer = from_b <= from_c ? b : c;
        const Number least = from_b <= from_c ? from_b : from_c;
        filtered[x] = static_cast<std::uint8_t>(row[x] - (from_a <= least ? a : nearer));
    }
}

}  // namespace actgrid::ACTGRID_VARIANT
