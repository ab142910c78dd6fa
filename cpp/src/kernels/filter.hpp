// Kernel of the PNG filter "Paeth", a loop over pixels that the compiler vectorizes.
#pragma once

#include "kernels.hpp"

namespace actgrid::ACTGRID_VARIANT {

static void filter_paeth(const std::uint8_t* row, const std::uint8_t* above, std::ptrdiff_t width,
                         std::uint8_t* filtered) {
    filtered[0] = static_cast<std::uint8_t>(row[0] - above[0]);
    for (std::ptrdiff_t x = 1; x < width; ++x) {
        using Int16 = std::int16_t;
        const Int16 a = row[x - 1], b = above[x], c = above[x - 1];
        const auto absolute = [](int n) { return static_cast<Int16>(n < 0 ? -n : n); };
        const Int16 distance_a = absolute(b - c), distance_b = absolute(a - c);
        const Int16 distance_c = absolute(a + b - 2 * c);
        const Int16 nearer_of_bc = distance_b <= distance_c ? b : c;
        const Int16 min_distance_bc = distance_b <= distance_c ? distance_b : distance_c;
        filtered[x] =
            static_cast<std::uint8_t>(row[x] - (distance_a <= min_distance_bc ? a : nearer_of_bc));
    }
}

}  // namespace actgrid::ACTGRID_VARIANT
