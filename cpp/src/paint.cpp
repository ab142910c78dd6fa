#include "actgrid/paint.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <span>
#include <vector>

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
    // Where a row of each lane's tile goes.
    using Targets = std::array<std::uint8_t*, lanes>;
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

    void planar(std::ptrdiff_t slice, std::ptrdiff_t channel) const {
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

    // A group of channels: how their values map, and where their tiles begin.
    struct Group {
        Line<Reals> lines{};
        Targets targets{};
        std::array<std::ptrdiff_t, lanes> strides{};
        bool flat = false;
    };

    Group group(std::ptrdiff_t slice, std::ptrdiff_t channel, std::uint8_t* nowhere) const {
        Reals shifts{}, scales{}, bases{};
        Group group;
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::ptrdiff_t i =
                tiles.index(channel + static_cast<std::ptrdiff_t>(lane), slice);
            const Line<Real> one = line(i);
            shifts[lane] = one.shift;
            scales[lane] = one.scale;
            bases[lane] = one.base;
            group.flat |= Floating<T> && one.scale == 0;
            // What is not drawn is written too, row over row, to where nobody looks.
            const bool drawn = canvas.origin[i] >= 0;
            group.targets[lane] = drawn ? canvas.levels + canvas.origin[i] : nowhere;
            group.strides[lane] = drawn ? canvas.stride : 0;
        }
        group.lines = {shifts, scales, bases};
        return group;
    }

    // `count` pixels of a group of channels, from pixel x of a row on. The levels of up to four
    // pixels, side by side in the word of their lane, are the bytes that this lane's tile wants.
    template <bool flat>
    void word(const Group& group, const std::byte* source, std::ptrdiff_t ahead, std::ptrdiff_t x,
              std::ptrdiff_t count) const {
        Vector<std::uint32_t, lanes> words{};
        for (std::ptrdiff_t pixel = 0; pixel < count; ++pixel, source += tiles.column_stride) {
            __builtin_prefetch(source + ahead);
            words |= levels<flat>(load_lanes<Real, T>(source), group.lines)
                     << static_cast<std::uint32_t>(8 * pixel);
        }
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::uint32_t bytes = words[lane];
            std::memcpy(group.targets[lane] + x, &bytes, static_cast<std::size_t>(count));
        }
    }

    // The same for groups that share a cache line.
    void words(std::span<const Group> groups, const std::byte* source, std::ptrdiff_t ahead,
               std::ptrdiff_t x, std::ptrdiff_t count) const {
        source += x * tiles.column_stride;
        for (const Group& group : groups) {
            if (group.flat)
                word<true>(group, source, ahead, x, count);
            else
                word<false>(group, source, ahead, x, count);
            source += lanes * size;
        }
    }

    // Channels first .. last of one slice, neighbours in memory, a row of all of them at a time.
    void interleaved(std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) const {
        constexpr std::ptrdiff_t full = sizeof(std::uint32_t);
        constexpr std::size_t cache_line = 64;
        constexpr std::size_t together = std::max<std::size_t>(1, cache_line / (lanes * size));
        std::vector<std::uint8_t> nowhere(static_cast<std::size_t>(tiles.width));
        std::vector<Group> all;
        for (std::ptrdiff_t channel = first; channel < last; channel += lanes)
            all.push_back(group(slice, channel, nowhere.data()));
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            const std::ptrdiff_t ahead = y + 1 < tiles.height ? tiles.row_stride : 0;
            const std::byte* source = tiles.tile(first, slice) + y * tiles.row_stride;
            for (std::size_t i = 0; i < all.size(); i += together) {
                const std::span<Group> groups(&all[i], std::min(together, all.size() - i));
                if (tiles.width < full)
                    words(groups, source, ahead, 0, tiles.width);
                else  // the last word may overlap the one before, with the same levels there
                    for (std::ptrdiff_t x = 0; x < tiles.width; x += full)
                        words(groups, source, ahead, std::min(x, tiles.width - full), full);
                source += static_cast<std::ptrdiff_t>(groups.size()) * lanes * size;
                for (Group& group : groups)
                    for (std::size_t lane = 0; lane < lanes; ++lane)
                        group.targets[lane] += group.strides[lane];
            }
        }
    }
};

}  // namespace

void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads) {
    with_element_type(tiles.dtype, [&]<class T>(T) {
        const Painter<T> painter{tiles, mapping, canvas};
        const bool interleaved = tiles.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T));
        for_channels(
            tiles, interleaved, lanes, threads,
            [&](std::ptrdiff_t slice, std::ptrdiff_t first, std::ptrdiff_t last) {
                painter.interleaved(slice, first, last);
            },
            [&](std::ptrdiff_t slice, std::ptrdiff_t channel) { painter.planar(slice, channel); });
    });
}

}  // namespace actgrid
