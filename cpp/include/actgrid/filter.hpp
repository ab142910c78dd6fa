#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Filters rows of 8-bit pixels as PNG's "Paeth" does (https://www.w3.org/TR/png-3/, section 9.4):
/// each pixel becomes its difference from what its neighbours to the left, above and above left
/// let expect. The first row is not written: it has none above. Strides are in bytes.
void filter_paeth(const std::uint8_t* pixels, std::ptrdiff_t height, std::ptrdiff_t width,
                  std::ptrdiff_t stride, std::uint8_t* filtered);

}  // namespace actgrid
