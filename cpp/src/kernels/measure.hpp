// Adding up values: `lanes` channels side by side, or `lanes` pixels of one channel.
#pragma once

#include <algorithm>
#include <new>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

// Numbers of `lanes` channels, from and to arrays.
template <class V, class Real>
static inline void load_parts(V* vectors, const Real* from) {
    std::memcpy(vectors, from, lanes * sizeof(Real));
}
template <class V, class Real>
static inline void store_parts(const V* vectors, Real* to) {
    std::memcpy(to, vectors, lanes * sizeof(Real));
}

// Running totals of a group of lanes.
template <class T>
struct LaneTotals {
    static constexpr int bounds = parts<Exact<T>>;
    using Bound = Register<Exact<T>>;
    using Doubles = Register<double>;

    Doubles pivot[2], sum[2], square[2];
    Bound low[bounds], high[bounds];
    Truth<Exact<T>> zeros[bounds];

    explicit LaneTotals(const double* pivots) : sum{}, square{}, zeros{} {
        load_parts(pivot, pivots);
        for (int part = 0; part < bounds; ++part) {
            if constexpr (bounds == 2)
                low[part] = pivot[part];
            else
                low[part] = narrow(pivot);
            high[part] = low[part];
        }
    }

    // Adds `count` groups, `step` bytes apart, and asks for what lies `ahead` bytes further on.
    void add(const std::byte* group, std::ptrdiff_t step, std::ptrdiff_t count,
             std::ptrdiff_t ahead) {
        LaneTotals t = *this;  // a local copy stays in registers
        for (std::ptrdiff_t i = 0; i < count; ++i, group += step) {
            __builtin_prefetch(group + ahead);
            Bound x;
            for (int part = 0; part < bounds; ++part) {
                x = load_part<Exact<T>, T>(group, part);
                t.low[part] = x < t.low[part] ? x : t.low[part];
                t.high[part] = x > t.high[part] ? x : t.high[part];
                t.zeros[part] -= x == 0;  // true is -1
            }
            for (int part = 0; part < 2; ++part) {
                Doubles d;
                if constexpr (sizeof(T) < 4)  // what took work to widen is not read anew
                    d = widen_part(x, part) - t.pivot[part];
                else
                    d = load_part<double, T>(group, part) - t.pivot[part];
                t.sum[part] += d;
                t.square[part] += d * d;
            }
        }
        *this = t;
    }

    // The totals of the lanes, each that of a channel.
    void store(const Totals& totals) const {
        store_parts(sum, totals.sum);
        store_parts(square, totals.square);
        Exact<T> bound[lanes];
        std::conditional_t<bounds == 2, std::int64_t, std::int32_t> count[lanes];
        store_parts(low, bound);
        for (int lane = 0; lane < lanes; ++lane) totals.low[lane] = bound[lane];
        store_parts(high, bound);
        for (int lane = 0; lane < lanes; ++lane) totals.high[lane] = bound[lane];
        store_parts(zeros, count);
        for (int lane = 0; lane < lanes; ++lane) totals.zeros[lane] = count[lane];
    }
};

// Channels that are neighbours in memory, a group of lanes at a time; the last group may overlap
// the one before, and comes to the same totals.
template <class T>
static void measure_interleaved(const Tiles& part, const double* pivots, const Totals& totals) {
    // Pixels are taken in pieces of this many bytes: long enough to keep totals in registers for a
    // while, short enough for what is asked for ahead to stay in the cache.
    constexpr std::ptrdiff_t piece_bytes = 1 << 13;
    constexpr std::ptrdiff_t size = sizeof(T);
    const std::ptrdiff_t groups = group_count(part.channels);
    const auto first = [&](std::ptrdiff_t group) { return first_channel(group, part.channels); };
    // Room for the most groups; only those that there are come to life.
    alignas(LaneTotals<T>) std::byte room[most_groups][sizeof(LaneTotals<T>)];
    const auto at = [&](std::ptrdiff_t group) {
        return std::launder(reinterpret_cast<LaneTotals<T>*>(room[group]));
    };
    for (std::ptrdiff_t g = 0; g < groups; ++g) new (room[g]) LaneTotals<T>(pivots + first(g));
    // Rows that follow each other in memory are one long row, as are rows of one pixel.
    const bool dense = part.row_stride == part.width * part.column_stride || part.width == 1;
    const std::ptrdiff_t rows = dense ? 1 : part.height;
    const std::ptrdiff_t length = dense ? part.pixels() : part.width;
    const std::ptrdiff_t step = part.width == 1 ? part.row_stride : part.column_stride;
    const std::ptrdiff_t piece = std::max<std::ptrdiff_t>(1, piece_bytes / (size * part.channels));
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
        for (std::ptrdiff_t pixel = 0; pixel < length; pixel += piece) {
            const std::byte* start = part.data + row * part.row_stride + pixel * step;
            const std::ptrdiff_t count = std::min(piece, length - pixel);
            const std::ptrdiff_t ahead = count < piece ? 0 : piece * step;
            for (std::ptrdiff_t g = 0; g < groups; ++g)
                at(g)->add(start + first(g) * size, step, count, ahead);
        }
    }
    for (std::ptrdiff_t g = 0; g < groups; ++g) at(g)->store(totals + first(g));
}

// One channel's totals, added to by runs of neighbouring pixels.
template <class T>
struct ChannelTotals {
    LaneTotals<T> groups;
    double pivot, sum = 0, square = 0, low, high;
    std::int64_t zeros = 0;

    explicit ChannelTotals(const double (&pivots)[lanes])
        : groups(pivots), pivot(pivots[0]), low(pivot), high(pivot) {}

    void add(const std::byte* start, std::ptrdiff_t count) {
        constexpr std::ptrdiff_t size = sizeof(T), ahead = 1 << 12;  // bytes: a page
        groups.add(start, lanes * size, count / lanes, ahead);
        for (std::ptrdiff_t i = count / lanes * lanes; i < count; ++i) {
            const double x = widen<double>(load<T>(start + i * size)), d = x - pivot;
            sum += d;
            square += d * d;
            low = std::min(low, x);
            high = std::max(high, x);
            zeros += x == 0;
        }
    }

    void store(const Totals& totals) {
        double sums[lanes], squares[lanes], lows[lanes], highs[lanes];
        std::int64_t counts[lanes];
        groups.store({sums, squares, lows, highs, counts});
        // By halves: side by side, and each sum of few terms.
        for (int half = lanes / 2; half > 0; half /= 2) {
            for (int lane = 0; lane < half; ++lane) {
                sums[lane] += sums[lane + half];
                squares[lane] += squares[lane + half];
                lows[lane] = std::min(lows[lane], lows[lane + half]);
                highs[lane] = std::max(highs[lane], highs[lane + half]);
                counts[lane] += counts[lane + half];
            }
        }
        *totals.sum = sum + sums[0];
        *totals.square = square + squares[0];
        *totals.low = std::min(low, lows[0]);
        *totals.high = std::max(high, highs[0]);
        *totals.zeros = zeros + counts[0];
    }
};

// Channel after channel, the pixels of each row neighbours in memory.
template <class T>
static void measure_planar(const Tiles& part, const double* pivots, const Totals& totals) {
    const bool dense = part.row_stride == part.width * static_cast<std::ptrdiff_t>(sizeof(T));
    const std::ptrdiff_t rows = dense ? 1 : part.height;
    const std::ptrdiff_t length = dense ? part.pixels() : part.width;
    for (std::ptrdiff_t channel = 0; channel < part.channels; ++channel) {
        double pivot[lanes];
        for (double& one : pivot) one = pivots[channel];
        ChannelTotals<T> found(pivot);
        const std::byte* row = part.data + channel * part.channel_stride;
        for (std::ptrdiff_t y = 0; y < rows; ++y, row += part.row_stride) found.add(row, length);
        found.store(totals + channel);
    }
}

template <class T>
static void measure(const Tiles& part, const double* pivots, const Totals& totals) {
    if (part.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T)) && part.channels >= lanes)
        measure_interleaved<T>(part, pivots, totals);
    else
        measure_planar<T>(part, pivots, totals);
}

}  // namespace actgrid::ACTGRID_VARIANT
