#include "actgrid/measure.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "parallel.hpp"
#include "vector.hpp"

namespace actgrid {
namespace {

// Values are taken in pieces of this many bytes, so that a piece read for the first channels is
// still in the cache for the last ones.
constexpr std::ptrdiff_t piece_bytes = 1 << 13;

// Running totals of one channel. Sums are of differences from a pivot, a value of the channel
// itself: the variance then loses at most log2(pixels) bits to cancellation, whatever the mean.
struct Totals {
    double pivot, sum = 0, square = 0, low, high;
    std::int64_t zeros = 0;

    explicit Totals(double first) : pivot(first), low(first), high(first) {}

    void add(double x) {
        const double d = x - pivot;
        sum += d;
        square += d * d;
        low = std::min(low, x);
        high = std::max(high, x);
        zeros += x == 0;
    }

    // Adds what was counted, with the same pivot, of other values of the channel.
    void merge(const Totals& other) {
        sum += other.sum;
        square += other.square;
        low = std::min(low, other.low);
        high = std::max(high, other.high);
        zeros += other.zeros;
    }

    TileStats stats(std::ptrdiff_t finite, std::ptrdiff_t nonfinite) const {
        const double n = static_cast<double>(finite);
        const double offset = sum / n;
        // A constant channel has no deviation at all, not one of the rounding's size.
        // Squares of values beyond 1e154 overflow, and so does the deviation then.
        const double variance = low == high             ? 0
                                : std::isfinite(square) ? square / n - offset * offset
                                                        : square;
        return {pivot + offset, std::sqrt(std::max(variance, 0.0)), low, high, zeros, nonfinite};
    }
};

// The totals of four lanes, which are four channels or four neighbouring pixels of one.
struct LaneTotals {
    // Half a group of doubles fills a 128-bit register.
    using Doubles = Vector<double, 2>;
    Doubles pivot[2], sum[2] = {}, square[2] = {}, low[2], high[2];
    Vector<std::int64_t, 2> zeros[2] = {};

    explicit LaneTotals(Vector<double, lanes> first) {
        for (int half : {0, 1}) pivot[half] = low[half] = high[half] = part(first, half);
    }

    static Doubles part(Vector<double, lanes> group, int half) {
        return half == 0 ? Doubles{group[0], group[1]} : Doubles{group[2], group[3]};
    }

    // Adds `count` groups, `step` bytes apart, and asks for what lies `ahead` bytes further on.
    template <class T>
    void add(const std::byte* group, std::ptrdiff_t step, std::ptrdiff_t count,
             std::ptrdiff_t ahead) {
        LaneTotals t = *this;  // a local copy stays in registers
        for (std::ptrdiff_t i = 0; i < count; ++i, group += step) {
            __builtin_prefetch(group + ahead);
            const Vector<double, lanes> values = load_lanes<double, T>(group);
            for (int half : {0, 1}) {
                const Doubles x = part(values, half);
                const Doubles d = x - t.pivot[half];
                t.sum[half] += d;
                t.square[half] += d * d;
                t.low[half] = x < t.low[half] ? x : t.low[half];
                t.high[half] = x > t.high[half] ? x : t.high[half];
                t.zeros[half] -= x == 0;  // true is -1
            }
        }
        *this = t;
    }

    Totals lane(std::ptrdiff_t i) const {
        const std::ptrdiff_t half = i / 2, at = i % 2;
        Totals totals(pivot[half][at]);
        totals.sum = sum[half][at];
        totals.square = square[half][at];
        totals.low = low[half][at];
        totals.high = high[half][at];
        totals.zeros = zeros[half][at];
        return totals;
    }
};

// The slow, careful way, for a tile that holds NaN or infinities.
template <class T>
TileStats measure_finite(const Tiles& tiles, const std::byte* tile) {
    std::optional<Totals> totals;
    std::ptrdiff_t finite = 0;
    for (std::ptrdiff_t row = 0; row < tiles.height; ++row) {
        for (std::ptrdiff_t column = 0; column < tiles.width; ++column) {
            const double x = widen<double>(
                load<T>(tile + row * tiles.row_stride + column * tiles.column_stride));
            if (!std::isfinite(x)) continue;
            ++finite;
            if (!totals) totals.emplace(x);
            totals->add(x);
        }
    }
    const std::ptrdiff_t nonfinite = tiles.pixels() - finite;
    if (totals) return totals->stats(finite, nonfinite);
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    return {nan, nan, nan, nan, 0, nonfinite};
}

// NaN and infinities, if there were any, are in the sum of squares.
template <class T>
TileStats finish(const Tiles& tiles, const Totals& totals, const std::byte* tile) {
    if (Floating<T> && !std::isfinite(totals.square)) return measure_finite<T>(tiles, tile);
    return totals.stats(tiles.pixels(), 0);
}

// One channel, by rows: in groups where its pixels are neighbours in memory, else one by one.
template <class T>
TileStats measure_planar(const Tiles& tiles, const std::byte* tile) {
    constexpr std::ptrdiff_t size = sizeof(T);
    const double first = widen<double>(load<T>(tile));
    Totals totals(first);
    LaneTotals grouped(Vector<double, lanes>{first, first, first, first});
    const std::ptrdiff_t groups = tiles.column_stride == size ? tiles.width / lanes : 0;
    for (std::ptrdiff_t row = 0; row < tiles.height; ++row) {
        const std::byte* start = tile + row * tiles.row_stride;
        grouped.add<T>(start, lanes * size, groups, 0);
        for (std::ptrdiff_t column = groups * lanes; column < tiles.width; ++column)
            totals.add(widen<double>(load<T>(start + column * tiles.column_stride)));
    }
    for (std::ptrdiff_t lane = 0; lane < lanes; ++lane) totals.merge(grouped.lane(lane));
    return finish<T>(tiles, totals, tile);
}

// Channels first .. last of one slice, neighbours in memory, in groups.
template <class T>
void measure_interleaved(const Tiles& tiles, std::ptrdiff_t slice, std::ptrdiff_t first,
                         std::ptrdiff_t last, TileStats* stats) {
    constexpr std::ptrdiff_t group_bytes = lanes * static_cast<std::ptrdiff_t>(sizeof(T));
    const std::byte* origin = tiles.tile(first, slice);
    std::vector<LaneTotals> groups;
    for (std::ptrdiff_t channel = first; channel < last; channel += lanes)
        groups.emplace_back(load_lanes<double, T>(tiles.tile(channel, slice)));
    // Rows that follow each other in memory are one long row.
    const bool dense = tiles.row_stride == tiles.width * tiles.column_stride;
    const std::ptrdiff_t rows = dense ? 1 : tiles.height;
    const std::ptrdiff_t length = dense ? tiles.pixels() : tiles.width;
    const std::ptrdiff_t piece = std::max<std::ptrdiff_t>(
        1, piece_bytes / (group_bytes * static_cast<std::ptrdiff_t>(groups.size())));
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
        for (std::ptrdiff_t pixel = 0; pixel < length; pixel += piece) {
            const std::byte* start = origin + row * tiles.row_stride + pixel * tiles.column_stride;
            const std::ptrdiff_t count = std::min(piece, length - pixel);
            const std::ptrdiff_t ahead = count < piece ? 0 : piece * tiles.column_stride;
            for (LaneTotals& group : groups) {
                group.add<T>(start, tiles.column_stride, count, ahead);
                start += group_bytes;
            }
        }
    }
    for (std::ptrdiff_t channel = first; channel < last; ++channel) {
        const LaneTotals& group = groups[static_cast<std::size_t>((channel - first) / lanes)];
        stats[tiles.index(channel, slice)] =
            finish<T>(tiles, group.lane((channel - first) % lanes), tiles.tile(channel, slice));
    }
}

}  // namespace

void measure(const Tiles& tiles, TileStats* stats, int threads) {
    with_element_type(tiles.dtype, [&]<class T>(T) {
        const bool interleaved = tiles.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T));
        for_channels(
            tiles, interleaved, lanes, threads,
            [&](std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) {
                measure_interleaved<T>(tiles, slice, first, last, stats);
            },
            [&](std::ptrdiff_t slice, std::ptrdiff_t channel) {
                stats[tiles.index(channel, slice)] =
                    measure_planar<T>(tiles, tiles.tile(channel, slice));
            });
    });
}

}  // namespace actgrid
