#include "actgrid/measure.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dtype.hpp"
#include "kernels/kernels.hpp"
#include "pack.hpp"
#include "split.hpp"

namespace actgrid {
namespace {

// The totals of every tile in every band of rows.
class BandTotals {
  public:
    BandTotals(std::ptrdiff_t bands, std::ptrdiff_t tiles)
        : count_(bands * tiles),
          tiles_(tiles),
          sums_(static_cast<std::size_t>(4 * count_)),
          zeros_(static_cast<std::size_t>(count_)) {}

    // Returns the totals of one band. Entries are ordered by slice, then channel.
    Totals band(std::ptrdiff_t band) {
        double* sums = sums_.data();
        return Totals{sums, sums + count_, sums + 2 * count_, sums + 3 * count_, zeros_.data()} +
               band * tiles_;
    }

    // Merges the totals of all bands into the first band, and returns them.
    Totals merge(std::ptrdiff_t bands) {
        const Totals merged = band(0);
        for (std::ptrdiff_t b = 1; b < bands; ++b) {
            const Totals other = band(b);
            for (std::ptrdiff_t i = 0; i < tiles_; ++i) merge_total(merged + i, other + i);
        }
        return merged;
    }

  private:
    std::ptrdiff_t count_, tiles_;
    std::vector<double> sums_;
    std::vector<std::int64_t> zeros_;
};

// Returns whether the sums of values and squares of some tile lose the variance to rounding. The
// relative error of the variance is at most 3 * 2^-53 * n * mean square / variance for sums of n
// values. A sum has at most 2^17 values, so that the bound is 5e-7 where this returns false.
bool has_large_mean(const Totals& totals, std::ptrdiff_t tiles, std::ptrdiff_t pixels) {
    constexpr double min_relative_variance = 1e-4;  // relative to the square of the mean
    const auto n = static_cast<double>(pixels);
    for (std::ptrdiff_t i = 0; i < tiles; ++i) {
        const double mean = totals.sum[i] / n, square = totals.square_sum[i] / n;
        if (square - mean * mean < min_relative_variance * mean * mean &&
            totals.min[i] < totals.max[i])
            return true;
    }
    return false;
}

// Computes entry `tile` of the statistics from entry `entry` of the totals.
void write_stats(const TileStats& stats, std::ptrdiff_t tile, double pivot, const Totals& totals,
                 std::ptrdiff_t entry, std::ptrdiff_t finite_count) {
    const auto n = static_cast<double>(finite_count);
    const double min = totals.min[entry], max = totals.max[entry];
    const double offset = totals.sum[entry] / n;
    const double square = totals.square_sum[entry] / n;  // infinite if values exceed 1e154
    const double variance = std::isinf(square) ? square : std::max(square - offset * offset, 0.0);
    // The statistics of a constant tile have no rounding errors.
    stats.mean[tile] = min == max ? min : pivot + offset;
    stats.std[tile] = min == max ? 0 : std::sqrt(variance);
    stats.min[tile] = min;
    stats.max[tile] = max;
    stats.zeros[tile] = totals.zeros[entry];
    stats.nonfinite[tile] = 0;
}

// Measures a tile that contains NaN or infinities. This is slower than the kernels.
template <class T>
void measure_finite_values(const Tiles& tiles, const std::byte* data, const TileStats& stats,
                           std::ptrdiff_t tile) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    double pivot = nan, sum = 0, square_sum = 0, min = nan, max = nan;
    std::int64_t zeros = 0;
    std::ptrdiff_t finite_count = 0;
    for (std::ptrdiff_t row = 0; row < tiles.height; ++row) {
        for (std::ptrdiff_t column = 0; column < tiles.width; ++column) {
            const auto x = widen<double>(
                load<T>(data + row * tiles.row_stride + column * tiles.column_stride));
            if (!std::isfinite(x)) continue;
            if (finite_count++ == 0) pivot = min = max = x;
            const double d = x - pivot;
            sum += d;
            square_sum += d * d;
            min = std::min(min, x);
            max = std::max(max, x);
            zeros += x == 0;
        }
    }
    // Without finite values, all statistics are NaN.
    write_stats(stats, tile, pivot, {&sum, &square_sum, &min, &max, &zeros}, 0, finite_count);
    stats.nonfinite[tile] = tiles.pixels() - finite_count;
}

}  // namespace

void measure(const Tiles& tiles, const TileStats& stats, int threads) {
    const Kernels& kernels = active_kernels();
    const Split split(tiles);
    BandTotals band_totals(split.bands(), tiles.count());
    const auto compute_totals = [&](const double* pivots) {
        split.for_each_part(threads, [&](const Part& part) {
            const std::ptrdiff_t first = part.slice * tiles.channels + part.first_channel;
            kernels.measure(pack(part.tiles), pivots ? pivots + first : nullptr,
                            band_totals.band(part.band) + first);
        });
        return band_totals.merge(split.bands());
    };
    Totals totals = compute_totals(nullptr);
    std::vector<double> pivots(static_cast<std::size_t>(tiles.count()));
    if (has_large_mean(totals, tiles.count(), tiles.pixels())) {
        for (double& pivot : pivots)
            pivot = totals.sum[&pivot - pivots.data()] / static_cast<double>(tiles.pixels());
        totals = compute_totals(pivots.data());
    }
    dispatch_dtype(tiles.dtype, [&]<class T>(T) {
        for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice) {
            for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel) {
                const std::ptrdiff_t entry = slice * tiles.channels + channel;
                const std::ptrdiff_t tile = tiles.index(channel, slice);
                // NaN and infinities make the sum of squares nonfinite.
                if (Floating<T> && !std::isfinite(totals.square_sum[entry]))
                    measure_finite_values<T>(tiles, tiles.tile(channel, slice), stats, tile);
                else
                    write_stats(stats, tile, pivots[static_cast<std::size_t>(entry)], totals, entry,
                                tiles.pixels());
            }
        }
    });
}

}  // namespace actgrid
