#include "actgrid/percentiles.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "dtype.hpp"
#include "pool.hpp"

namespace actgrid {
namespace {

// Channels whose values are gathered together: those of one cache line.
constexpr std::ptrdiff_t together = 16;

// A percentile by selection; `values` are not empty and are reordered.
template <class Real>
double percentile(std::vector<Real>& values, double limit) {
    const double at = static_cast<double>(values.size() - 1) * (limit / 100);
    const auto below = static_cast<std::ptrdiff_t>(at);
    const double part = at - static_cast<double>(below);
    const auto nth = values.begin() + below;
    std::nth_element(values.begin(), nth, values.end());
    const double a = static_cast<double>(*nth);
    if (part == 0) return a;
    const double b = static_cast<double>(*std::min_element(nth + 1, values.end()));
    // From the nearer end, as NumPy does.
    return part < 0.5 ? a + (b - a) * part : b - (b - a) * (1 - part);
}

template <class Real>
std::array<double, 2> both(std::vector<Real>& values, std::array<double, 2> limits) {
    if (values.empty()) return {0, 0};
    return {percentile(values, limits[0]), percentile(values, limits[1])};
}

// Adds the finite values of `count` channels to a vector each.
template <class T, class Vectors>
void gather(const Tiles& tiles, std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t count,
            const Vectors& values) {
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        for (std::ptrdiff_t x = 0; x < tiles.width; ++x) {
            const std::byte* pixel =
                tiles.tile(first, slice) + y * tiles.row_stride + x * tiles.column_stride;
            for (std::ptrdiff_t c = 0; c < count; ++c, pixel += tiles.channel_stride) {
                const auto value = widen<Exact<T>>(load<T>(pixel));
                if (std::isfinite(value)) values(c).push_back(value);
            }
        }
    }
}

}  // namespace

void percentiles(const Tiles& tiles, std::array<double, 2> limits, bool pooled,
                 std::array<double, 2>* found, int threads) {
    with_element_type(tiles.dtype, [&]<class T>(T) {
        using Values = std::vector<Exact<T>>;
        const std::ptrdiff_t blocks = (tiles.channels + together - 1) / together;
        if (pooled) {
            Values values;
            values.reserve(static_cast<std::size_t>(tiles.count() * tiles.pixels()));
            for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice)
                gather<T>(tiles, slice, 0, tiles.channels,
                          [&](std::ptrdiff_t) -> Values& { return values; });
            found[0] = both(values, limits);
            return;
        }
        parallel_for(blocks * tiles.slices, threads, [&](std::ptrdiff_t i) {
            const std::ptrdiff_t slice = i / blocks, first = i % blocks * together;
            const std::ptrdiff_t count = std::min(together, tiles.channels - first);
            std::vector<Values> values(static_cast<std::size_t>(count));
            for (Values& one : values) one.reserve(static_cast<std::size_t>(tiles.pixels()));
            gather<T>(tiles, slice, first, count, [&](std::ptrdiff_t c) -> Values& {
                return values[static_cast<std::size_t>(c)];
            });
            for (std::ptrdiff_t c = 0; c < count; ++c)
                found[tiles.index(first + c, slice)] =
                    both(values[static_cast<std::size_t>(c)], limits);
        });
    });
}

}  // namespace actgrid
