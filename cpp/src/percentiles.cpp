#include "actgrid/percentiles.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "dtype.hpp"
#include "pool.hpp"

namespace actgrid {
namespace {

// Number of channels whose values are gathered together: one cache line of float32.
constexpr std::ptrdiff_t block_channels = 16;

// Histogram of values, whose bins are given by the highest bits of the values.
template <class Real>
class Histogram {
  public:
    explicit Histogram(std::span<const Real> values) : values_(values) {
        for (const Real value : values_) ++counts_[find_bin(value)];
    }

    // Computes a percentile, by a selection among the values of the bins around it.
    double compute_percentile(double limit) {
        const double position = static_cast<double>(values_.size() - 1) * (limit / 100);
        auto rank = static_cast<std::size_t>(position);
        const double fraction = position - static_cast<double>(rank);
        std::size_t first_bin = 0;
        while (rank >= counts_[first_bin]) rank -= counts_[first_bin++];
        // The next larger value may be in another bin.
        std::size_t last_bin = first_bin, count = counts_[first_bin];
        while (fraction > 0 && count <= rank + 1) count += counts_[++last_bin];
        candidates_.clear();
        for (const Real value : values_)
            if (const std::size_t bin = find_bin(value); first_bin <= bin && bin <= last_bin)
                candidates_.push_back(value);
        const auto nth = candidates_.begin() + static_cast<std::ptrdiff_t>(rank);
        std::nth_element(candidates_.begin(), nth, candidates_.end());
        const auto a = static_cast<double>(*nth);
        if (fraction == 0) return a;
        const auto b = static_cast<double>(*std::min_element(nth + 1, candidates_.end()));
        // NumPy interpolates from the nearer value.
        return fraction < 0.5 ? a + (b - a) * fraction : b - (b - a) * (1 - fraction);
    }

  private:
    static constexpr int bin_bits = 12;

    // Bits sort as the numbers do after inverting the sign bit, or all bits of negative numbers.
    static std::size_t find_bin(Real value) {
        using Bits = std::conditional_t<sizeof(Real) == 8, std::uint64_t, std::uint32_t>;
        constexpr int size = 8 * sizeof(Real);
        const auto bits = std::bit_cast<Bits>(value);
        const Bits sortable = bits >> (size - 1) ? ~bits : bits | Bits{1} << (size - 1);
        return static_cast<std::size_t>(sortable >> (size - bin_bits));
    }

    std::span<const Real> values_;
    std::array<std::size_t, std::size_t{1} << bin_bits> counts_{};
    std::vector<Real> candidates_;
};

template <class Real>
std::array<double, 2> compute_percentiles(std::span<const Real> values,
                                          std::array<double, 2> limits) {
    if (values.empty()) return {0, 0};
    Histogram<Real> histogram(values);
    return {histogram.compute_percentile(limits[0]), histogram.compute_percentile(limits[1])};
}

// Appends the finite values of `count` channels to arrays, and moves their `ends` forward. The end
// of the array for channel c is ends[c * end_step].
template <class T>
void gather_finite_values(const Tiles& tiles, std::ptrdiff_t slice, std::ptrdiff_t first_channel,
                          std::ptrdiff_t count, ExactReal<T>** ends, std::ptrdiff_t end_step) {
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        for (std::ptrdiff_t x = 0; x < tiles.width; ++x) {
            const std::byte* pixel =
                tiles.tile(first_channel, slice) + y * tiles.row_stride + x * tiles.column_stride;
            for (std::ptrdiff_t c = 0; c < count; ++c, pixel += tiles.channel_stride) {
                // Writing every value and advancing only after finite ones avoids a branch.
                ExactReal<T>*& end = ends[c * end_step];
                *end = widen<ExactReal<T>>(load<T>(pixel));
                end += std::isfinite(*end);
            }
        }
    }
}

}  // namespace

void percentiles(const Tiles& tiles, std::array<double, 2> limits, bool pooled,
                 std::array<double, 2>* results, int threads) {
    dispatch_dtype(tiles.dtype, [&]<class T>(T) {
        using Real = ExactReal<T>;
        const std::ptrdiff_t pixels = tiles.pixels();
        if (pooled) {
            std::vector<Real> values(static_cast<std::size_t>(tiles.count() * pixels + 1));
            Real* end = values.data();
            for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice)
                gather_finite_values<T>(tiles, slice, 0, tiles.channels, &end, 0);
            results[0] = compute_percentiles(std::span<const Real>(values.data(), end), limits);
            return;
        }
        const std::ptrdiff_t blocks = (tiles.channels + block_channels - 1) / block_channels;
        parallel_for(blocks * tiles.slices, threads, [&](std::ptrdiff_t i) {
            const std::ptrdiff_t slice = i / blocks, first_channel = i % blocks * block_channels;
            const std::ptrdiff_t count = std::min(block_channels, tiles.channels - first_channel);
            // Each array has a spare entry, as a nonfinite value may be written after the last
            // entry.
            std::vector<Real> values(static_cast<std::size_t>(count * (pixels + 1)));
            Real* ends[block_channels];
            for (std::ptrdiff_t c = 0; c < count; ++c) ends[c] = &values[0] + c * (pixels + 1);
            gather_finite_values<T>(tiles, slice, first_channel, count, ends, 1);
            for (std::ptrdiff_t c = 0; c < count; ++c)
                results[tiles.index(first_channel + c, slice)] = compute_percentiles(
                    std::span<const Real>(&values[0] + c * (pixels + 1), ends[c]), limits);
        });
    });
}

}  // namespace actgrid
