// Copying of strided values to contiguous memory, so that the kernels need few memory layouts.
#pragma once

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Returns tiles of one slice in a layout that the kernels accept: either the channels of a pixel
/// or the pixels of a row are contiguous. Tiles in another layout are copied to a buffer of the
/// calling thread, which the next call overwrites.
Tiles pack(const Tiles& tiles);

}  // namespace actgrid
