#pragma once

#include <cstdint>

#include "actgrid/tiles.hpp"

namespace actgrid {

/// Statistics of one tile over its finite values; NaN where it has none.
struct TileStats {
    double mean, std, min, max;
    std::int64_t zeros, nonfinite;
};

/// Measures every tile into `stats`, which holds tiles.count() entries. The result does not
/// depend on `threads`.
void measure(const Tiles& tiles, TileStats* stats, int threads);

}  // namespace actgrid
