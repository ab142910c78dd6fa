#pragma once

#include <span>

#include "actgrid/measure.hpp"
#include "actgrid/paint.hpp"
#include "actgrid/tiles.hpp"

namespace actgrid {

/// Normalizations that map each tile by its own statistics.
enum class Normalization { standard, minmax, symmetric, range };

/// The tiles of a layer, to be measured, mapped and painted.
struct DrawTask {
    Tiles tiles;
    Normalization normalization;
    double low, high;  // limits of Normalization::range
    TileStats stats;   // receives the statistics
    Canvas canvas;     // receives the picture
};

/// Measures and paints the tiles of every task. Large layers are drawn by several threads one after
/// another, small layers side by side. The result does not depend on `threads`.
void draw(std::span<const DrawTask> tasks, int threads);

}  // namespace actgrid
