#pragma once

#include <array>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Computes two percentiles, 0 to 100, of the finite values of each tile, as numpy.percentile does
/// with method="linear". If `pooled` is true, the values of all tiles are taken together. `results`
/// receives tiles.count() entries, or one entry if pooled. Without finite values, an entry is
/// {0, 0}.
void percentiles(const Tiles& tiles, std::array<double, 2> limits, bool pooled,
                 std::array<double, 2>* results, int threads);

}  // namespace actgrid
