#include "actgrid/draw.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dtype.hpp"
#include "pool.hpp"
#include "split.hpp"

namespace actgrid {
namespace {

struct Terms {
    double shift, scale, base;
};

double replace_nonfinite(double value) { return std::isfinite(value) ? value : 0; }

// Computes the terms of the mapping of a tile, by the arithmetic of rendering/normalize.py. `Real`
// is the type in which values are mapped to levels.
template <class Real>
Terms compute_terms(const DrawTask& task, std::ptrdiff_t tile) {
    const double low = replace_nonfinite(task.stats.min[tile]);
    const double high = replace_nonfinite(task.stats.max[tile]);
    double shift = 0, span = 0, gain = 255, base = 0.5;
    switch (task.normalization) {
        case Normalization::standard:
            shift = replace_nonfinite(task.stats.mean[tile]);
            span = task.stats.std[tile];
            gain = 64;
            base = 128;
            break;
        case Normalization::minmax:
            shift = low;
            span = high - low;
            break;
        case Normalization::symmetric:
            span = std::max(std::abs(low), std::abs(high));
            gain = 127.5;
            base = 128;
            break;
        case Normalization::range:
            shift = task.low;
            span = task.high - task.low;
            break;
    }
    // Division by a tiny span must stay finite in the type `Real`.
    constexpr double largest = std::numeric_limits<Real>::max();
    const double scale = span > 0 ? std::min(gain / span, largest) : 0;
    // The base compensates the rounding error of the shift.
    const double rounded = static_cast<Real>(std::clamp(shift, -largest, largest));
    return {rounded, scale, base - (shift - rounded) * scale};
}

void draw_task(const DrawTask& task, int threads) {
    measure(task.tiles, task.stats, threads);
    const auto count = static_cast<std::size_t>(task.tiles.count());
    std::vector<double> shift(count), scale(count), base(count);
    dispatch_dtype(task.tiles.dtype, [&]<class T>(T) {
        for (std::size_t i = 0; i < count; ++i) {
            const Terms terms = compute_terms<PaintReal<T>>(task, static_cast<std::ptrdiff_t>(i));
            shift[i] = terms.shift;
            scale[i] = terms.scale;
            base[i] = terms.base;
        }
    });
    paint(task.tiles, {shift.data(), scale.data(), base.data()}, task.canvas, threads);
}

}  // namespace

void draw(std::span<const DrawTask> tasks, int threads) {
    std::vector<const DrawTask*> small_tasks;
    for (const DrawTask& task : tasks) {
        if (task.tiles.count() * task.tiles.pixels() < min_parallel_values)
            small_tasks.push_back(&task);
        else
            draw_task(task, threads);
    }
    parallel_for(static_cast<std::ptrdiff_t>(small_tasks.size()), threads, [&](std::ptrdiff_t i) {
        draw_task(*small_tasks[static_cast<std::size_t>(i)], 1);
    });
}

}  // namespace actgrid
