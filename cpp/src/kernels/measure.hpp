// Kernels that accumulate statistics, for `lanes` channels at once or `lanes` pixels of a channel.
#pragma once

#include <algorithm>
#include <new>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

// Copy `lanes` numbers from and to arrays.
template <class V, class Real>
static inline void load_lanes(V* vectors, const Real* from) {
    std::memcpy(vectors, from, lanes * sizeof(Real));
}
template <class V, class Real>
static inline void store_lanes(const V* vectors, Real* to) {
    std::memcpy(to, vectors, lanes * sizeof(Real));
}

// Running totals of `lanes` channels, or of every lanes-th pixel of one channel.
template <class T>
struct LaneTotals {
    static constexpr int bound_registers = register_count<ExactReal<T>>;
    using Bound = Register<ExactReal<T>>;
    using Doubles = Register<double>;

    Doubles pivot[2], sum[2], square_sum[2];
    Bound min[bound_registers], max[bound_registers];
    Mask<ExactReal<T>> zeros[bound_registers];

    explicit LaneTotals(const double* pivots) : sum{}, square_sum{}, zeros{} {
        load_lanes(pivot, pivots);
        for (int reg = 0; reg < bound_registers; ++reg) {
            if constexpr (bound_registers == 2)
                min[reg] = pivot[reg];
            else
                min[reg] = narrow(pivot);
            max[reg] = min[reg];
        }
    }

    // Adds `count` groups of `lanes` elements, `step` bytes apart. Memory is prefetched
    // `prefetch_offset` bytes ahead.
    void add(const std::byte* group, std::ptrdiff_t step, std::ptrdiff_t count,
             std::ptrdiff_t prefetch_offset) {
        LaneTotals t = *this;  // a local copy stays in registers
        for (std::ptrdiff_t i = 0; i < count; ++i, group += step) {
            __builtin_prefetch(group + prefetch_offset);
            Bound x;
            for (int reg = 0; reg < bound_registers; ++reg) {
                x = load_register<ExactReal<T>, T>(group, reg);
                t.min[reg] = x < t.min[reg] ? x : t.min[reg];
                t.max[reg] = x > t.max[reg] ? x : t.max[reg];
                t.zeros[reg] -= x == 0;  // a true comparison yields -1
            }
            for (int reg = 0; reg < 2; ++reg) {
                Doubles d;
                if constexpr (sizeof(T) < 4)  // loading x again would repeat a costly conversion
                    d = widen_half_register(x, reg) - t.pivot[reg];
                else
                    d = load_register<double, T>(group, reg) - t.pivot[reg];
                t.sum[reg] += d;
                t.square_sum[reg] += d * d;
            }
        }
        *this = t;
    }

    // Writes the totals of each lane.
    void store(const Totals& totals) const {
        store_lanes(sum, totals.sum);
        store_lanes(square_sum, totals.square_sum);
        ExactReal<T> bound[lanes];
        std::conditional_t<bound_registers == 2, std::int64_t, std::int32_t> count[lanes];
        store_lanes(min, bound);
        for (int lane = 0; lane < lanes; ++lane) totals.min[lane] = bound[lane];
        store_lanes(max, bound);
        for (int lane = 0; lane < lanes; ++lane) totals.max[lane] = bound[lane];
        store_lanes(zeros, count);
        for (int lane = 0; lane < lanes; ++lane) totals.zeros[lane] = count[lane];
    }
};

// Measures channels that are contiguous in memory, in groups of `lanes`. The last group may overlap
// the group before; both compute the same totals for the shared channels.
template <class T>
static void measure_interleaved(const Tiles& tiles, const double* pivots, const Totals& totals) {
    // Size of the pieces in which pixels are read: large enough to keep the totals in registers for
    // many pixels, small enough for the prefetched memory to stay in the cache.
    constexpr std::ptrdiff_t max_piece_bytes = 1 << 13;
    constexpr std::ptrdiff_t size = sizeof(T);
    const std::ptrdiff_t groups = count_groups(tiles.channels);
    const auto find_first_channel = [&](std::ptrdiff_t group) {
        return get_first_channel(group, tiles.channels);
    };
    // Uninitialized storage for the maximum number of groups. Only the groups in use are
    // constructed.
    alignas(LaneTotals<T>) std::byte storage[max_groups][sizeof(LaneTotals<T>)];
    const auto get_totals = [&](std::ptrdiff_t group) -> LaneTotals<T>& {
        return *std::launder(reinterpret_cast<LaneTotals<T>*>(storage[group]));
    };
    for (std::ptrdiff_t g = 0; g < groups; ++g)
        new (storage[g]) LaneTotals<T>(pivots + find_first_channel(g));
    // Contiguous rows are treated as one long row, and so are rows of one pixel.
    const bool is_contiguous =
        tiles.row_stride == tiles.width * tiles.column_stride || tiles.width == 1;
    const std::ptrdiff_t rows = is_contiguous ? 1 : tiles.height;
    const std::ptrdiff_t length = is_contiguous ? tiles.pixels() : tiles.width;
    const std::ptrdiff_t step = tiles.width == 1 ? tiles.row_stride : tiles.column_stride;
    const std::ptrdiff_t piece =
        std::max<std::ptrdiff_t>(1, max_piece_bytes / (size * tiles.channels));
    for (std::ptrdiff_t row = 0; row < rows; ++row) {
        for (std::ptrdiff_t pixel = 0; pixel < length; pixel += piece) {
            const std::byte* start = tiles.data + row * tiles.row_stride + pixel * step;
            const std::ptrdiff_t count = std::min(piece, length - pixel);
            const std::ptrdiff_t prefetch_offset = count < piece ? 0 : piece * step;
            for (std::ptrdiff_t g = 0; g < groups; ++g)
                get_totals(g).add(start + find_first_channel(g) * size, step, count,
                                  prefetch_offset);
        }
    }
    for (std::ptrdiff_t g = 0; g < groups; ++g) get_totals(g).store(totals + find_first_channel(g));
}

// Running totals of one channel, over runs of contiguous pixels.
template <class T>
struct ChannelTotals {
    LaneTotals<T> lane_totals;
    double pivot, sum = 0, square_sum = 0, min, max;
    std::int64_t zeros = 0;

    explicit ChannelTotals(const double (&pivots)[lanes])
        : lane_totals(pivots), pivot(pivots[0]), min(pivot), max(pivot) {}

    void add(const std::byte* start, std::ptrdiff_t count) {
        constexpr std::ptrdiff_t size = sizeof(T), prefetch_offset = 1 << 12;  // one page
        lane_totals.add(start, lanes * size, count / lanes, prefetch_offset);
        for (std::ptrdiff_t i = count / lanes * lanes; i < count; ++i) {
            const double x = widen<double>(load<T>(start + i * size)), d = x - pivot;
            sum += d;
            square_sum += d * d;
            min = std::min(min, x);
            max = std::max(max, x);
            zeros += x == 0;
        }
    }

    void store(const Totals& totals) {
        double sums[lanes], square_sums[lanes], mins[lanes], maxs[lanes];
        std::int64_t counts[lanes];
        lane_totals.store({sums, square_sums, mins, maxs, counts});
        // Pairwise summation: the additions are independent, and rounding errors stay small.
        for (int half = lanes / 2; half > 0; half /= 2) {
            for (int lane = 0; lane < half; ++lane) {
                sums[lane] += sums[lane + half];
                square_sums[lane] += square_sums[lane + half];
                mins[lane] = std::min(mins[lane], mins[lane + half]);
                maxs[lane] = std::max(maxs[lane], maxs[lane + half]);
                counts[lane] += counts[lane + half];
            }
        }
        *totals.sum = sum + sums[0];
        *totals.square_sum = square_sum + square_sums[0];
        *totals.min = std::min(min, mins[0]);
        *totals.max = std::max(max, maxs[0]);
        *totals.zeros = zeros + counts[0];
    }
};

// Measures channels one by one, for pixels that are contiguous in each row.
template <class T>
static void measure_planar(const Tiles& tiles, const double* pivots, const Totals& totals) {
    const bool is_contiguous =
        tiles.row_stride == tiles.width * static_cast<std::ptrdiff_t>(sizeof(T));
    const std::ptrdiff_t rows = is_contiguous ? 1 : tiles.height;
    const std::ptrdiff_t length = is_contiguous ? tiles.pixels() : tiles.width;
    for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel) {
        double lane_pivots[lanes];
        for (double& lane_pivot : lane_pivots) lane_pivot = pivots[channel];
        ChannelTotals<T> channel_totals(lane_pivots);
        const std::byte* row = tiles.data + channel * tiles.channel_stride;
        for (std::ptrdiff_t y = 0; y < rows; ++y, row += tiles.row_stride)
            channel_totals.add(row, length);
        channel_totals.store(totals + channel);
    }
}

template <class T>
static void measure(const Tiles& tiles, const double* pivots, const Totals& totals) {
    if (tiles.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T)) && tiles.channels >= lanes)
        measure_interleaved<T>(tiles, pivots, totals);
    else
        measure_planar<T>(tiles, pivots, totals);
}

}  // namespace actgrid::ACTGRID_VARIANT
