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

// Totals of every channel, slice by slice, band by band.
class AllTotals {
  public:
    AllTotals(std::ptrdiff_t bands, std::ptrdiff_t tiles)
        : count_(bands * tiles),
          tiles_(tiles),
          sums_(static_cast<std::size_t>(4 * count_)),
          zeros_(static_cast<std::size_t>(count_)) {}

    Totals band(std::ptrdiff_t band) {
        double* sum = sums_.data();
        return Totals{sum, sum + count_, sum + 2 * count_, sum + 3 * count_, zeros_.data()} +
               band * tiles_;
    }

    // Adds the totals of all other bands to those of the first.
    Totals merged(std::ptrdiff_t bands) {
        const Totals all = band(0);
        for (std::ptrdiff_t b = 1; b < bands; ++b) {
            const Totals more = band(b);
            for (std::ptrdiff_t i = 0; i < tiles_; ++i) {
                all.sum[i] += more.sum[i];
                all.square[i] += more.square[i];
                all.low[i] = std::min(all.low[i], more.low[i]);
                all.high[i] = std::max(all.high[i], more.high[i]);
                all.zeros[i] += more.zeros[i];
            }
        }
        return all;
    }

  private:
    std::ptrdiff_t count_, tiles_;
    std::vector<double> sums_;
    std::vector<std::int64_t> zeros_;
};

// The entry at `to` of the statistics, from the entry at `from` of the totals.
void finish(const TileStats& stats, std::ptrdiff_t to, double pivot, const Totals& totals,
            std::ptrdiff_t from, std::ptrdiff_t finite) {
    const double n = static_cast<double>(finite), low = totals.low[from], high = totals.high[from];
    const double offset = totals.sum[from] / n;
    const double square = totals.square[from] / n;  // infinite where values are beyond 1e154
    const double variance = std::isinf(square) ? square : std::max(square - offset * offset, 0.0);
    stats.mean[to] = pivot + offset;
    // A constant tile has no deviation at all, not one of the rounding's size.
    stats.std[to] = low == high ? 0 : std::sqrt(variance);
    stats.min[to] = low;
    stats.max[to] = high;
    stats.zeros[to] = totals.zeros[from];
    stats.nonfinite[to] = 0;
}

// The slow, careful way, for a tile that holds NaN or infinities.
template <class T>
void measure_finite(const Tiles& tiles, const std::byte* tile, const TileStats& stats,
                    std::ptrdiff_t to) {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    double pivot = nan, sum = 0, square = 0, low = nan, high = nan;
    std::int64_t zeros = 0;
    std::ptrdiff_t finite = 0;
    for (std::ptrdiff_t row = 0; row < tiles.height; ++row) {
        for (std::ptrdiff_t column = 0; column < tiles.width; ++column) {
            const double x = widen<double>(
                load<T>(tile + row * tiles.row_stride + column * tiles.column_stride));
            if (!std::isfinite(x)) continue;
            if (finite++ == 0) pivot = low = high = x;
            const double d = x - pivot;
            sum += d;
            square += d * d;
            low = std::min(low, x);
            high = std::max(high, x);
            zeros += x == 0;
        }
    }
    // Without a finite value 0 / 0 and the rest come to NaN.
    finish(stats, to, pivot, {&sum, &square, &low, &high, &zeros}, 0, finite);
    stats.nonfinite[to] = tiles.pixels() - finite;
}

}  // namespace

void measure(const Tiles& tiles, const TileStats& stats, int threads) {
    const Kernels& kernel = kernels();
    const Split split(tiles);
    AllTotals all(split.bands(), tiles.count());
    std::vector<double> pivots(static_cast<std::size_t>(tiles.count()));
    with_element_type(tiles.dtype, [&]<class T>(T) {
        const auto place = [&](std::ptrdiff_t slice, std::ptrdiff_t channel) {
            return slice * tiles.channels + channel;
        };
        for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice)
            for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel)
                pivots[static_cast<std::size_t>(place(slice, channel))] =
                    widen<double>(load<T>(tiles.tile(channel, slice)));
        split.for_parts(threads, [&](const Part& part) {
            const std::ptrdiff_t first = place(part.slice, part.channel);
            kernel.measure(packed(part.tiles), pivots.data() + first, all.band(part.band) + first);
        });
        const Totals totals = all.merged(split.bands());
        for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice) {
            for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel) {
                const std::ptrdiff_t from = place(slice, channel), to = tiles.index(channel, slice);
                // NaN and infinities, if there were any, are in the sum of squares.
                if (Floating<T> && !std::isfinite(totals.square[from]))
                    measure_finite<T>(tiles, tiles.tile(channel, slice), stats, to);
                else
                    finish(stats, to, pivots[static_cast<std::size_t>(from)], totals, from,
                           tiles.pixels());
            }
        }
    });
}

}  // namespace actgrid
