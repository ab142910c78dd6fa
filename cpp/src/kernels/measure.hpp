// Kernels that accumulate statistics, for `lanes` channels at once or `lanes` pixels of a channel.
#pragma once

#include <algorithm>
#include <limits>
#include <new>
#include <numeric>

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

// Maximum number of channels for which several pixels are measured as one.
constexpr std::ptrdiff_t max_joined_channels = 2 * min_interleaved_channels;

// Returns tiles with their rows joined to one row, if the distance between pixels allows it.
static inline Tiles join_rows(Tiles tiles) {
    const bool is_column = tiles.width == 1;
    if (is_column) tiles.column_stride = tiles.row_stride;
    if (is_column || tiles.row_stride == tiles.width * tiles.column_stride) {
        tiles.width = tiles.pixels();
        tiles.height = 1;
    }
    return tiles;
}

// Adds a value to the totals of one channel.
static inline void add_value(const Totals& total, double x, double pivot) {
    const double d = x - pivot;
    *total.sum += d;
    *total.square_sum += d * d;
    *total.min = std::min(*total.min, x);
    *total.max = std::max(*total.max, x);
    *total.zeros += x == 0;
}

// Adds 1 for each lane that is 0 to counts.
template <class Bound, class Counts>
static inline Counts count_zeros(Bound x, Counts counts) {
#ifdef __AVX512F__
    // GCC needs one more instruction for the generic code.
    if constexpr (sizeof(Element<Bound>) == 4)
        return (Counts)_mm512_mask_sub_epi32((__m512i)counts,
                                             _mm512_cmp_ps_mask(x, Bound{}, _CMP_EQ_OQ),
                                             (__m512i)counts, (__m512i)(Counts{} - 1));
    else
        return (Counts)_mm512_mask_sub_epi64((__m512i)counts,
                                             _mm512_cmp_pd_mask(x, Bound{}, _CMP_EQ_OQ),
                                             (__m512i)counts, (__m512i)(Counts{} - 1));
#else
    return counts - (x == 0);  // a true comparison yields -1
#endif
}

// Running totals of `lanes` channels, or of every lanes-th pixel of one channel. The sums are of
// differences from pivots, or of the values themselves if `has_pivots` is false.
template <class T, bool has_pivots>
struct LaneTotals {
    static constexpr int bound_registers = register_count<ExactReal<T>>;
    using Bound = Register<ExactReal<T>>;
    using Doubles = Register<double>;

    Doubles pivot[2], sum[2] = {}, square_sum[2] = {};
    Bound min[bound_registers], max[bound_registers];
    Mask<ExactReal<T>> zeros[bound_registers] = {};

    // `pivots` is not read if `has_pivots` is false.
    explicit LaneTotals(const double* pivots) {
        if constexpr (has_pivots) load_lanes(pivot, pivots);
        constexpr auto infinity = std::numeric_limits<ExactReal<T>>::infinity();
        for (int reg = 0; reg < bound_registers; ++reg) {
            min[reg] = Bound{} + infinity;
            max[reg] = Bound{} - infinity;
        }
    }

    // Adds `count` groups of `lanes` elements, `step` bytes apart. For each group, the cache line
    // at `prefetched` is prefetched, and `prefetched` moves on by one group.
    void add(const std::byte* group, std::ptrdiff_t step, std::ptrdiff_t count,
             const std::byte* prefetched) {
        // Sums of up to 256 bytes and of their squares are exact in float32, without a conversion
        // of each byte to float64.
        constexpr std::ptrdiff_t max_byte_count = 256;
        if constexpr (sizeof(T) == 1 && !has_pivots) {
            for (; count > max_byte_count; count -= max_byte_count) {
                add_groups<float>(group, step, max_byte_count, prefetched);
                group += max_byte_count * step;
                prefetched += max_byte_count * lanes;
            }
            add_groups<float>(group, step, count, prefetched);
        } else {
            add_groups<double>(group, step, count, prefetched);
        }
    }

    // Adds groups with sums in numbers of type Sum.
    template <class Sum>
    void add_groups(const std::byte* group, std::ptrdiff_t step, std::ptrdiff_t count,
                    const std::byte* prefetched) {
        // Local totals stay in registers. There are two of each sum, because an addition must wait
        // for the previous addition to the same sum.
        constexpr int sum_registers = register_count<Sum>;
        Register<Sum> sums[2][sum_registers] = {}, square_sums[2][sum_registers] = {};
        Bound mins[bound_registers], maxs[bound_registers];
        Mask<ExactReal<T>> zero_counts[bound_registers];
        for (int reg = 0; reg < bound_registers; ++reg) {
            mins[reg] = min[reg];
            maxs[reg] = max[reg];
            zero_counts[reg] = zeros[reg];
        }
        const auto add_group = [&](int i) {
            __builtin_prefetch(prefetched);
            Bound x;
            for (int reg = 0; reg < bound_registers; ++reg) {
                x = load_register<ExactReal<T>, T>(group, reg);
                mins[reg] = x < mins[reg] ? x : mins[reg];
                maxs[reg] = x > maxs[reg] ? x : maxs[reg];
                zero_counts[reg] = count_zeros(x, zero_counts[reg]);
            }
            for (int reg = 0; reg < sum_registers; ++reg) {
                Register<Sum> d;
                if constexpr (std::same_as<Sum, float>)
                    d = x;
                else if constexpr (sizeof(T) < 4)  // loading x again would convert it again
                    d = widen_half_register(x, reg);
                else
                    d = load_register<double, T>(group, reg);
                if constexpr (has_pivots) d -= pivot[reg];
                sums[i][reg] += d;
                square_sums[i][reg] = multiply_add(d, d, square_sums[i][reg]);
            }
            group += step;
            prefetched += lanes * static_cast<int>(sizeof(T));
        };
        for (; count >= 2; count -= 2) {
            add_group(0);
            add_group(1);
        }
        if (count > 0) add_group(0);
        for (int reg = 0; reg < 2; ++reg) {
            for (int i = 0; i < 2; ++i) {
                if constexpr (std::same_as<Sum, float>) {
                    sum[reg] += widen_half_register(sums[i][0], reg);
                    square_sum[reg] += widen_half_register(square_sums[i][0], reg);
                } else {
                    sum[reg] += sums[i][reg];
                    square_sum[reg] += square_sums[i][reg];
                }
            }
        }
        for (int reg = 0; reg < bound_registers; ++reg) {
            min[reg] = mins[reg];
            max[reg] = maxs[reg];
            zeros[reg] = zero_counts[reg];
        }
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
template <class T, bool has_pivots>
static void measure_interleaved(const Tiles& tiles, const double* pivots, const Totals& totals) {
    // Size of the pieces in which pixels are read: large enough to keep the totals in registers for
    // several pixels, small enough for two pieces to stay in the L1 cache. While a piece is
    // measured, the next piece is prefetched in the order of its memory.
    constexpr std::ptrdiff_t max_piece_bytes = 1 << 14;
    constexpr std::ptrdiff_t size = sizeof(T);
    const std::ptrdiff_t groups = count_groups(tiles.channels);
    const auto find_first_channel = [&](std::ptrdiff_t group) {
        return get_first_channel(group, tiles.channels);
    };
    // Uninitialized storage for the maximum number of groups. Only the groups in use are
    // constructed.
    using GroupTotals = LaneTotals<T, has_pivots>;
    alignas(GroupTotals) std::byte storage[max_groups][sizeof(GroupTotals)];
    const auto get_totals = [&](std::ptrdiff_t group) -> GroupTotals& {
        return *std::launder(reinterpret_cast<GroupTotals*>(storage[group]));
    };
    for (std::ptrdiff_t g = 0; g < groups; ++g)
        new (storage[g]) GroupTotals(has_pivots ? pivots + find_first_channel(g) : nullptr);
    const std::ptrdiff_t step = tiles.column_stride;
    const std::ptrdiff_t piece =
        std::max<std::ptrdiff_t>(1, max_piece_bytes / (size * tiles.channels));
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        for (std::ptrdiff_t x = 0; x < tiles.width; x += piece) {
            const std::byte* start = tiles.data + y * tiles.row_stride + x * step;
            const std::ptrdiff_t count = std::min(piece, tiles.width - x);
            const std::byte* prefetched = start + (count < piece ? 0 : piece * step);
            for (std::ptrdiff_t g = 0; g < groups; ++g) {
                get_totals(g).add(start + find_first_channel(g) * size, step, count, prefetched);
                prefetched += count * lanes * size;
            }
        }
    }
    for (std::ptrdiff_t g = 0; g < groups; ++g) get_totals(g).store(totals + find_first_channel(g));
}

// Measures few channels that are contiguous in memory, in pixels without gaps: several pixels are
// measured as one pixel of as many more channels, which fill groups of `lanes`.
template <class T, bool has_pivots>
static void measure_joined_pixels(const Tiles& tiles, const double* pivots, const Totals& totals) {
    constexpr std::ptrdiff_t size = sizeof(T), max_channels = max_joined_channels * lanes;
    const std::ptrdiff_t channels = tiles.channels;
    const std::ptrdiff_t factor = lanes / std::gcd(channels, std::ptrdiff_t{lanes});
    Tiles joined = tiles;
    joined.channels *= factor;
    joined.column_stride *= factor;
    joined.width /= factor;
    double joined_pivots[max_channels] = {}, sums[4][max_channels];
    std::int64_t zeros[max_channels];
    if constexpr (has_pivots)
        for (std::ptrdiff_t i = 0; i < joined.channels; ++i)
            joined_pivots[i] = pivots[i % channels];
    const Totals joined_totals{sums[0], sums[1], sums[2], sums[3], zeros};
    measure_interleaved<T, has_pivots>(joined, joined_pivots, joined_totals);
    for (std::ptrdiff_t channel = 0; channel < channels; ++channel) {
        const Totals total = totals + channel;
        clear_total(total);
        for (std::ptrdiff_t i = channel; i < joined.channels; i += channels)
            merge_total(total, joined_totals + i);
    }
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        for (std::ptrdiff_t x = joined.width * factor; x < tiles.width; ++x) {
            const std::byte* pixel = tiles.data + y * tiles.row_stride + x * tiles.column_stride;
            for (std::ptrdiff_t channel = 0; channel < channels; ++channel)
                add_value(totals + channel, widen<double>(load<T>(pixel + channel * size)),
                          has_pivots ? pivots[channel] : 0);
        }
    }
}

// Measures channels one by one, for pixels that are contiguous in each row.
template <class T, bool has_pivots>
static void measure_planar(const Tiles& tiles, const double* pivots, const Totals& totals) {
    constexpr std::ptrdiff_t size = sizeof(T), prefetch_offset = 1 << 12;  // one page
    const std::ptrdiff_t grouped_width = tiles.width / lanes * lanes;
    for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel) {
        const double pivot = has_pivots ? pivots[channel] : 0;
        double lane_pivots[lanes];
        for (double& lane_pivot : lane_pivots) lane_pivot = pivot;
        LaneTotals<T, has_pivots> lane_totals(lane_pivots);
        const Totals total = totals + channel;
        clear_total(total);
        const std::byte* row = tiles.data + channel * tiles.channel_stride;
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y, row += tiles.row_stride) {
            lane_totals.add(row, lanes * size, grouped_width / lanes, row + prefetch_offset);
            for (std::ptrdiff_t x = grouped_width; x < tiles.width; ++x)
                add_value(total, widen<double>(load<T>(row + x * size)), pivot);
        }
        double sums[lanes], square_sums[lanes], mins[lanes], maxs[lanes];
        std::int64_t zeros[lanes];
        const Totals lane_total{sums, square_sums, mins, maxs, zeros};
        lane_totals.store(lane_total);
        // Pairwise summation: the additions are independent, and rounding errors stay small.
        for (int half = lanes / 2; half > 0; half /= 2) {
            for (int lane = 0; lane < half; ++lane) {
                sums[lane] += sums[lane + half];
                square_sums[lane] += square_sums[lane + half];
                mins[lane] = std::min(mins[lane], mins[lane + half]);
                maxs[lane] = std::max(maxs[lane], maxs[lane + half]);
                zeros[lane] += zeros[lane + half];
            }
        }
        merge_total(total, lane_total);
    }
}

template <class T, bool has_pivots>
static void measure(const Tiles& tiles, const double* pivots, const Totals& totals) {
    constexpr std::ptrdiff_t size = sizeof(T);
    const Tiles joined = join_rows(tiles);
    const bool is_interleaved = joined.channel_stride == size && joined.channels > 1;
    if (is_interleaved && joined.column_stride == joined.channels * size &&
        joined.channels % lanes != 0 && joined.channels <= max_joined_channels)
        measure_joined_pixels<T, has_pivots>(joined, pivots, totals);
    else if (is_interleaved && joined.channels >= lanes)
        measure_interleaved<T, has_pivots>(joined, pivots, totals);
    else
        measure_planar<T, has_pivots>(joined, pivots, totals);
}

}  // namespace actgrid::ACTGRID_VARIANT
