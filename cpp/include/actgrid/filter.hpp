#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Applies the PNG filter "Paeth" (https://www.w3.org/TR/png-3/, section 9.4) to rows of 8-bit
/// pixels: each pixel is replaced by its difference from a prediction, which is the left, upper or
/// upper left neighbour. The first row has no row above and is not written. `stride` is the number
/// of bytes from one row to the next, in the input and in the output.
void filter_paeth(const std::uint8_t* pixels, std::ptrdiff_t height, std::ptrdiff_t width,
                  std::ptrdiff_t stride, std::uint8_t* filtered);

}  // namespace actgrid
