// Bringing values that lie apart together, so that kernels need not mind.
#pragma once

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Returns a part, tiles of one slice, as the kernels take it: with channels that are neighbours in
/// memory, or else with pixels that are. What has neither is copied to memory that this thread uses
/// again at the next call.
Tiles packed(const Tiles& part);

}  // namespace actgrid
