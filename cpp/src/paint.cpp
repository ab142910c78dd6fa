#include "actgrid/paint.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "parallel.hpp"
#include "vector.hpp"

namespace actgrid {
namespace {

static_assert(std::endian::native == std::endian::little, "a word's low byte is its first pixel");

// The mapping of one tile (R a number) or of four lanes (R four numbers).
template <class R>
struct Line {
    R shift, scale, base;
};

// A comparison with NaN is false, which is what makes NaN come out as 0 here.
template <bool flat, class Real>
inline std::uint8_t level(Real x, const Line<Real>& line) {
    Real v = (x - line.shift) * line.scale + line.base;
    // In a flat tile (scale 0) an infinity times zero is NaN, yet +inf must come out as 255.
    if constexpr (flat) v = x == std::numeric_limits<Real>::infinity() ? Real{255} : v;
    v = v > Real{0} ? v : Real{0};
    v = v < Real{255} ? v : Real{255};
    return static_cast<std::uint8_t>(v);
}

// The same for four lanes, each level in a word of its own.
template <bool flat, class Reals>
inline Vector<std::uint32_t, lanes> levels(Reals x, const Line<Reals>& line) {
    using Real = std::remove_cvref_t<decltype(x[0])>;
    const Reals zero{}, top = zero + Real{255};
    Reals v = (x - line.shift) * line.scale + line.base;
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

    Line<Real> line(std::ptrdiff_t i) const {
        return {static_cast<Real>(mapping.shift[i]), static_cast<Real>(mapping.scale[i]),
                static_cast<Real>(mapping.base[i])};
    }

    template <bool flat>
    void row(const std::byte* source, std::ptrdiff_t step, std::uint8_t* target,
             const Line<Real>& line) const {
        for (std::ptrdiff_t column = 0; column < tiles.width; ++column)
            target[column] = level<flat>(widen<Real>(load<T>(source + column * step)), line);
    }

    void planar(std::ptrdiff_t channel, std::ptrdiff_t slice) const {
        const std::ptrdiff_t i = tiles.index(channel, slice);
        if (canvas.origin[i] < 0) return;
        const Line<Real> line = this->line(i);
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            const std::byte* source = tiles.tile(channel, slice) + y * tiles.row_stride;
            std::uint8_t* target = canvas.levels + canvas.origin[i] + y * canvas.stride;
            // A step known while compiling is what lets the loop vectorise.
            if (Floating<T> && line.scale == 0)
                row<true>(source, tiles.column_stride, target, line);
            else if (tiles.column_stride == size)
                row<false>(source, size, target, line);
            else
                row<false>(source, tiles.column_stride, target, line);
        }
    }

    // `count` pixels of a group of channels, from pixel x of row y on. The levels of up to four
    // pixels, side by side in the word of their lane, are the bytes that this lane's tile wants.
    template <bool flat>
    void word(std::ptrdiff_t channel, std::ptrdiff_t slice, std::ptrdiff_t y, std::ptrdiff_t x,
              std::ptrdiff_t count, const Line<Reals>& lines) const {
        const std::byte* source =
            tiles.tile(channel, slice) + y * tiles.row_stride + x * tiles.column_stride;
        const std::ptrdiff_t ahead = y + 1 < tiles.height ? tiles.row_stride : 0;
        Vector<std::uint32_t, lanes> words{};
        for (std::ptrdiff_t pixel = 0; pixel < count; ++pixel) {
            __builtin_prefetch(source + ahead + pixel * tiles.column_stride);
            words |= levels<flat>(load_lanes<Real, T>(source + pixel * tiles.column_stride), lines)
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
    void group_row(std::ptrdiff_t channel, std::ptrdiff_t slice, std::ptrdiff_t y,
                   const Line<Reals>& lines) const {
        constexpr std::ptrdiff_t full = sizeof(std::uint32_t);
        if (tiles.width < full) {
            word<flat>(channel, slice, y, 0, tiles.width, lines);
            return;
        }
        // The last word may overlap the one before: both hold the same levels there.
        for (std::ptrdiff_t x = 0; x < tiles.width; x += full)
            word<flat>(channel, slice, y, std::min(x, tiles.width - full), full, lines);
    }

    // Channels first .. last of one slice, neighbours in memory, a row of all of them at a time.
    void interleaved(std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) const {
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            for (std::ptrdiff_t channel = first; channel < last; channel += lanes) {
                Reals shifts{}, scales{}, bases{};
                bool flat = false;
                for (std::ptrdiff_t lane = 0; lane < lanes; ++lane) {
                    const Line<Real> one = line(tiles.index(channel + lane, slice));
                    shifts[lane] = one.shift;
                    scales[lane] = one.scale;
                    bases[lane] = one.base;
                    flat |= one.scale == 0;
                }
                const Line<Reals> lines{shifts, scales, bases};
                if (Floating<T> && flat)
                    group_row<true>(channel, slice, y, lines);
                else
                    group_row<false>(channel, slice, y, lines);
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
