#pragma once

#include <cstdint>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Statistics of tiles over their finite values, an array of tiles.count() entries each; NaN where
/// a tile has none.
struct TileStats {
    double *mean, *std, *min, *max;
    std::int64_t *zeros, *nonfinite;
};

/// Measures every tile. The result does not depend on `threads`.
void measure(const Tiles& tiles, const TileStats& stats, int threads);

}  // namespace actgrid
