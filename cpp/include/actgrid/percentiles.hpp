#pragma once

#include <array>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Works out two percentiles, 0 to 100, of the finite values of every tile, or with `pooled` of
/// all tiles together: those of numpy.percentile's "linear" method. `found` holds tiles.count()
/// entries, or one; {0, 0} where there is no finite value.
void percentiles(const Tiles& tiles, std::array<double, 2> limits, bool pooled,
                 std::array<double, 2>* found, int threads);

}  // namespace actgrid
