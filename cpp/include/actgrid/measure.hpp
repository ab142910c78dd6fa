#pragma once

#include <cstdint>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Output arrays for the statistics of tiles over their finite values, with tiles.count() entries
/// each. Mean, std, min and max are NaN for a tile without finite values.
struct TileStats {
    double *mean, *std, *min, *max;
    std::int64_t *zeros, *nonfinite;
};

/// Computes the statistics of every tile. The result does not depend on `threads`.
void measure(const Tiles& tiles, const TileStats& stats, int threads);

}  // namespace actgrid
