#include "actgrid/filter.hpp"

#include "kernels/kernels.hpp"

namespace actgrid {

void filter_paeth(const std::uint8_t* pixels, std::ptrdiff_t height, std::ptrdiff_t width,
                  std::ptrdiff_t stride, std::uint8_t* filtered) {
    for (std::ptrdiff_t y = 1; y < height; ++y) {
        const std::uint8_t* row = pixels + y * stride;
        active_kernels().filter_paeth(row, row - stride, width, filtered + y * stride);
    }
}

}  // namespace actgrid
