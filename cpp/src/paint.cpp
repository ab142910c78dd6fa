#include "actgrid/paint.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "parallel.hpp"
#include "vector.hpp"

namespace actgrid {
namespace {

static_assert(std::endian::native == std::endian::little, "a word's low byte is its first pixel");

// A comparison with NaN is false, which is what makes NaN come out as 0 here.
template <bool flat, class Real>
inline std::uint8_t level(Real x, Real shift, Real scale, Real base) {
    Real v = (x - shift) * scale + base;
    // In a flat tile (scale 0) an infinity times zero is NaN, yet +inf must come out as 255.
    if constexpr (flat) v = x == std::numeric_limits<Real>::infinity() ? Real{255} : v;
    v = v > Real{0} ? v : Real{0};
    v = v < Real{255} ? v : Real{255};
    return static_cast<std::uint8_t>(v);
}

// The same for four lanes, each level in a word of its own.
template <bool flat, class Reals>
inline Vector<std::uint32_t, lanes> levels(Reals x, Reals shift, Reals scale, Reals base) {
    using Real = std::remove_cvref_t<decltype(x[0])>;
    const Reals zero{}, top = zero + Real{255};
    Reals v = (x - shift) * scale + base;
    if constexpr (flat) v = x == zero + std::numeric_limits<Real>::infinity() ? top : v;
    v = v > zero ? v : zero;
    v = v < top ? v : top;
    // By way of signed integers: no target lacks that conversion.
    return (Vector<std::uint32_t, lanes>)__builtin_convertvector(v, Vector<std::int32_t, lanes>);
}

template <class T>
struct Painter {
    using Real = Drawn<T>;
    using Reals = Vector<Real, lanes>;
    static constexpr std::ptrdiff_t size = sizeof(T);

    const Tiles& tiles;
    const Mapping& mapping;
    const Canvas& canvas;

    Real shift(std::ptrdiff_t i) const { return static_cast<Real>(mapping.shift[i]); }
    Real scale(std::ptrdiff_t i) const { return static_cast<Real>(mapping.scale[i]); }

    // `count` pixels of one row of one tile.
    template <bool flat>
    void row(const std::byte* source, std::ptrdiff_t step, std::uint8_t* target, Real shift,
             Real scale) const {
        const Real base = static_cast<Real>(mapping.base);
        for (std::ptrdiff_t column = 0; column < tiles.width; ++column)
            target[column] =
                level<flat>(widen<Real>(load<T>(source + column * step)), shift, scale, base);
    }

    void planar(std::ptrdiff_t channel, std::ptrdiff_t slice) const {
        const std::ptrdiff_t i = tiles.index(channel, slice);
        if (canvas.origin[i] < 0) return;
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            const std::byte* source = tiles.tile(channel, slice) + y * tiles.row_stride;
            std::uint8_t* target = canvas.levels + canvas.origin[i] + y * canvas.stride;
            // A step known while compiling is what lets the loop vectorise.
            if (Floating<T> && scale(i) == 0)
                row<true>(source, tiles.column_stride, target, shift(i), scale(i));
            else if (tiles.column_stride == size)
                row<false>(source, size, target, shift(i), scale(i));
            else
                row<false>(source, tiles.column_stride, target, shift(i), scale(i));
        }
    }

    // `count` pixels of a group of channels, from pixel x of row y on. The levels of up to four
    // pixels, side by side in the word of their lane, are the bytes that this lane's tile wants.
    template <bool flat>
    void word(std::ptrdiff_t channel, std::ptrdiff_t slice, std::ptrdiff_t y, std::ptrdiff_t x,
              std::ptrdiff_t count, Reals shifts, Reals scales) const {
        const Reals base = Reals{} + static_cast<Real>(mapping.base);
        const std::byte* source =
            tiles.tile(channel, slice) + y * tiles.row_stride + x * tiles.column_stride;
        const std::ptrdiff_t ahead = y + 1 < tiles.height ? tiles.row_stride : 0;
        Vector<std::uint32_t, lanes> words{};
        for (std::ptrdiff_t pixel = 0; pixel < count; ++pixel) {
            __builtin_prefetch(source + ahead + pixel * tiles.column_stride);
            words |= levels<flat>(load_lanes<Real, T>(source + pixel * tiles.column_stride), shifts,
                                  scales, base)
                     << static_cast<std::uint32_t>(8 * pixel);
        }
        const std::ptrdiff_t offset = y * canvas.stride + x;
        for (std::ptrdiff_t lane = 0; lane < lanes; ++lane) {
            const std::int64_t origin = canvas.origin[tiles.index(channel + lane, slice)];
            const std::uint32_t bytes = words[lane];
            if (origin >= 0)
                std::memcpy(canvas.levels + origin + offset, &bytes,
                            static_cast<std::size_t>(count));
        }
    }

    // Row y of the group of channels that starts at `channel`.
    template <bool flat>
    void group_row(std::ptrdiff_t channel, std::ptrdiff_t slice, std::ptrdiff_t y, Reals shifts,
                   Reals scales) const {
        constexpr std::ptrdiff_t full = sizeof(std::uint32_t);
        if (tiles.width < full) {
            word<flat>(channel, slice, y, 0, tiles.width, shifts, scales);
            return;
        }
        // The last word may overlap the one before: both hold the same levels there.
        for (std::ptrdiff_t x = 0; x < tiles.width; x += full)
            word<flat>(channel, slice, y, std::min(x, tiles.width - full), full, shifts, scales);
    }

    // Channels first .. last of one slice, neighbours in memory, a row of all of them at a time.
    void interleaved(std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) const {
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            for (std::ptrdiff_t channel = first; channel < last; channel += lanes) {
                Reals shifts, scales;
                bool flat = false;
                for (std::ptrdiff_t lane = 0; lane < lanes; ++lane) {
                    const std::ptrdiff_t i = tiles.index(channel + lane, slice);
                    shifts[lane] = shift(i);
                    scales[lane] = scale(i);
                    flat |= scale(i) == 0;
                }
                if (Floating<T> && flat)
                    group_row<true>(channel, slice, y, shifts, scales);
                else
                    group_row<false>(channel, slice, y, shifts, scales);
            }
        }
    }
};

}  // namespace

void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads) {
    with_element_type(tiles.dtype, [&]<class T>(T) {
        const Painter<T> painter{tiles, mapping, canvas};
        const bool interleaved = tiles.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T));
        for_channel_ranges(tiles, lanes, threads,
                           [&](std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) {
                               if (interleaved) {
                                   const std::ptrdiff_t whole =
                                       first + (last - first) / lanes * lanes;
                                   painter.interleaved(slice, first, whole);
                                   first = whole;
                               }
                               for (; first < last; ++first) painter.planar(first, slice);
                           });
    });
}

}  // namespace actgrid
