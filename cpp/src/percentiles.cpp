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

// Channels whose values are gathered together: those of one cache line.
constexpr std::ptrdiff_t together = 16;

// How many values there are for each of the highest bits that they begin with.
template <class Real>
class Histogram {
  public:
    explicit Histogram(std::span<const Real> values) : values_(values) {
        for (const Real value : values_) ++counts_[bin(value)];
    }

    // A percentile: the values of the bins around it are picked out, and selected among.
    double percentile(double limit) {
        const double at = static_cast<double>(values_.size() - 1) * (limit / 100);
        auto rank = static_cast<std::size_t>(at);
        const double part = at - static_cast<double>(rank);
        std::size_t first = 0;
        while (rank >= counts_[first]) rank -= counts_[first++];
        // The next value up may be in another bin.
        std::size_t last = first, picked = counts_[first];
        while (part > 0 && picked <= rank + 1) picked += counts_[++last];
        picked_.clear();
        for (const Real value : values_)
            if (const std::size_t one = bin(value); first <= one && one <= last)
                picked_.push_back(value);
        const auto nth = picked_.begin() + static_cast<std::ptrdiff_t>(rank);
        std::nth_element(picked_.begin(), nth, picked_.end());
        const double a = static_cast<double>(*nth);
        if (part == 0) return a;
        const double b = static_cast<double>(*std::min_element(nth + 1, picked_.end()));
        // From the nearer end, as NumPy does.
        return part < 0.5 ? a + (b - a) * part : b - (b - a) * (1 - part);
    }

  private:
    static constexpr int bin_bits = 12;

    // Bits that order as numbers do: of negative ones all are turned over.
    static std::size_t bin(Real value) {
        using Bits = std::conditional_t<sizeof(Real) == 8, std::uint64_t, std::uint32_t>;
        constexpr int size = 8 * sizeof(Real);
        const auto bits = std::bit_cast<Bits>(value);
        const Bits turned = bits >> (size - 1) ? ~bits : bits | Bits{1} << (size - 1);
        return static_cast<std::size_t>(turned >> (size - bin_bits));
    }

    std::span<const Real> values_;
    std::array<std::size_t, std::size_t{1} << bin_bits> counts_{};
    std::vector<Real> picked_;
};

template <class Real>
std::array<double, 2> both(std::span<const Real> values, std::array<double, 2> limits) {
    if (values.empty()) return {0, 0};
    Histogram<Real> histogram(values);
    return {histogram.percentile(limits[0]), histogram.percentile(limits[1])};
}

// Puts the finite values of `count` channels one after the other to where `ends` point, which
// move on.
template <class T>
void gather(const Tiles& tiles, std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t count,
            Exact<T>** ends, std::ptrdiff_t step) {
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        for (std::ptrdiff_t x = 0; x < tiles.width; ++x) {
            const std::byte* pixel =
                tiles.tile(first, slice) + y * tiles.row_stride + x * tiles.column_stride;
            for (std::ptrdiff_t c = 0; c < count; ++c, pixel += tiles.channel_stride) {
                // Written in any case, kept if finite: there is room for all.
                Exact<T>*& end = ends[c * step];
                *end = widen<Exact<T>>(load<T>(pixel));
                end += std::isfinite(*end);
            }
        }
    }
}

}  // namespace

void percentiles(const Tiles& tiles, std::array<double, 2> limits, bool pooled,
                 std::array<double, 2>* found, int threads) {
    with_element_type(tiles.dtype, [&]<class T>(T) {
        using Real = Exact<T>;
        const std::ptrdiff_t pixels = tiles.pixels();
        if (pooled) {
            std::vector<Real> values(static_cast<std::size_t>(tiles.count() * pixels + 1));
            Real* end = values.data();
            for (std::ptrdiff_t slice = 0; slice < tiles.slices; ++slice)
                gather<T>(tiles, slice, 0, tiles.channels, &end, 0);
            found[0] = both(std::span<const Real>(values.data(), end), limits);
            return;
        }
        const std::ptrdiff_t blocks = (tiles.channels + together - 1) / together;
        parallel_for(blocks * tiles.slices, threads, [&](std::ptrdiff_t i) {
            const std::ptrdiff_t slice = i / blocks, first = i % blocks * together;
            const std::ptrdiff_t count = std::min(together, tiles.channels - first);
            // A value that is not kept may be written after the last one.
            std::vector<Real> values(static_cast<std::size_t>(count * (pixels + 1)));
            Real* ends[together];
            for (std::ptrdiff_t c = 0; c < count; ++c) ends[c] = &values[0] + c * (pixels + 1);
            gather<T>(tiles, slice, first, count, ends, 1);
            for (std::ptrdiff_t c = 0; c < count; ++c)
                found[tiles.index(first + c, slice)] =
                    both(std::span<const Real>(&values[0] + c * (pixels + 1), ends[c]), limits);
        });
    });
}

}  // namespace actgrid
