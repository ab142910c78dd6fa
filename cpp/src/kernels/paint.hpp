// Mapping values to levels: `lanes` channels side by side, or `lanes` pixels of one channel.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

static_assert(std::endian::native == std::endian::little, "a word's low byte is its first pixel");

// Pixels that one store writes, at most.
constexpr int block_pixels = 16;
constexpr int cache_line = 64;

// What maps `lanes` elements, or `N` lanes' worth of them in one vector.
template <class V>
struct Line {
    V shift, scale, base;
};

// Levels of a vector of numbers. A comparison with NaN is false: that makes NaN come out as 0.
template <bool flat, class Reals>
static inline Reals level(Reals x, const Line<Reals>& line) {
    using Real = std::remove_cvref_t<decltype(x[0])>;
    const Reals zero{}, top = zero + Real{255};
    Reals v = (x - line.shift) * line.scale + line.base;
    // In a flat tile (scale 0) an infinity times zero is NaN, yet +inf must come out as 255.
    if constexpr (flat) v = x == zero + std::numeric_limits<Real>::infinity() ? top : v;
    v = v > zero ? v : zero;
    return v < top ? v : top;
}

using Words = Register<std::uint32_t>;

// A group of neighbouring channels.
template <class T>
struct Group {
    using Real = Drawn<T>;
    static constexpr std::ptrdiff_t size = sizeof(T);

    Line<Register<Real>> lines[parts<Real>];
    std::uint8_t* pixels[lanes];
    std::ptrdiff_t strides[lanes];
    std::ptrdiff_t offset;  // of its first channel in memory
    bool flat;

    void set(const Target* targets, std::ptrdiff_t first) {
        Real shift[lanes], scale[lanes], base[lanes];
        offset = first * size;
        flat = false;
        for (int lane = 0; lane < lanes; ++lane) {
            const Target& target = targets[first + lane];
            shift[lane] = static_cast<Real>(target.shift);
            scale[lane] = static_cast<Real>(target.scale);
            base[lane] = static_cast<Real>(target.base);
            flat |= Floating<T> && scale[lane] == 0;
            pixels[lane] = target.pixels;
            strides[lane] = target.stride;
        }
        for (int part = 0; part < parts<Real>; ++part) {
            constexpr int wide = lanes / parts<Real>;
            using Numbers = Register<Real>;
            const auto of = [&](const Real* numbers) {
                return load<Numbers>(reinterpret_cast<const std::byte*>(numbers + part * wide));
            };
            lines[part] = {of(shift), of(scale), of(base)};
        }
    }

    void next_row() {
        for (int lane = 0; lane < lanes; ++lane) pixels[lane] += strides[lane];
    }

    // The levels of one pixel, each in a word of its own.
    template <bool is_flat>
    Words levels(const std::byte* source) const {
        // By way of signed integers: no target lacks that conversion.
        const auto integers = [&](int part) {
            return convert<Vector<std::int32_t, lanes / parts<Real>>>(
                level<is_flat>(load_part<Real, T>(source, part), lines[part]));
        };
        if constexpr (parts<Real> == 1)
            return (Words)integers(0);
        else
            return (Words)join(integers(0), integers(1));
    }

    // The levels of `count` <= 4 pixels side by side in the word of their lane.
    template <bool is_flat>
    Words word(const std::byte* source, std::ptrdiff_t step, std::ptrdiff_t ahead,
               std::ptrdiff_t count) const {
        Words word{};
        for (std::ptrdiff_t pixel = 0; pixel < count; ++pixel, source += step) {
            __builtin_prefetch(source + ahead);
            word |= levels<is_flat>(source) << static_cast<std::uint32_t>(8 * pixel);
        }
        return word;
    }

    // `count` pixels from pixel x of a row on: 16, 8, or any number up to 4.
    template <bool is_flat>
    void block(const std::byte* source, std::ptrdiff_t step, std::ptrdiff_t ahead, std::ptrdiff_t x,
               std::ptrdiff_t count) const {
        source += offset;
        if (x % cache_line == 0)  // where the next row goes, before it is written to
            for (int lane = 0; lane < lanes; ++lane)
                __builtin_prefetch(pixels[lane] + strides[lane] + x, 1);
        if (count == block_pixels) {
            const Words a = word<is_flat>(source, step, ahead, 4);
            const Words b = word<is_flat>(source + 4 * step, step, ahead, 4);
            const Words c = word<is_flat>(source + 8 * step, step, ahead, 4);
            const Words d = word<is_flat>(source + 12 * step, step, ahead, 4);
            store<16>(a, b, c, d, x);
        } else if (count == 8) {
            const Words a = word<is_flat>(source, step, ahead, 4);
            const Words b = word<is_flat>(source + 4 * step, step, ahead, 4);
            store<8>(a, b, a, b, x);
        } else {
            const Words a = word<is_flat>(source, step, ahead, count);
            for (int lane = 0; lane < lanes; ++lane) {
                const std::uint32_t bytes = a[lane];
                std::memcpy(pixels[lane] + x, &bytes, static_cast<std::size_t>(count));
            }
        }
    }

    // Transposes blocks of 4 x 4 words, so that the words of each lane lie side by side.
    template <int bytes>
    void store(Words a, Words b, Words c, Words d, std::ptrdiff_t x) const {
        const Words ab = pick<0, 4, 1, 5>(a, b), cd = pick<0, 4, 1, 5>(c, d);
        const Words ab2 = pick<2, 6, 3, 7>(a, b), cd2 = pick<2, 6, 3, 7>(c, d);
        const Words rows[] = {pick<0, 1, 4, 5>(ab, cd), pick<2, 3, 6, 7>(ab, cd),
                              pick<0, 1, 4, 5>(ab2, cd2), pick<2, 3, 6, 7>(ab2, cd2)};
        for (int row = 0; row < 4; ++row)
            for (int block = 0; block < lanes / 4; ++block)
                std::memcpy(pixels[4 * block + row] + x,
                            reinterpret_cast<const std::byte*>(&rows[row]) + 16 * block, bytes);
    }
};

// Calls action(x, count) for blocks of 16, 8 or at most 4 pixels that cover a row. The last one
// may overlap the one before it, with the same levels there.
template <class Action>
static inline void for_blocks(std::ptrdiff_t width, const Action& action) {
    for (std::ptrdiff_t x = 0; x < width;) {
        const std::ptrdiff_t left = width - x;
        std::ptrdiff_t count = left > 8 ? 16 : left > 4 ? 8 : 4;
        while (count > 4 && count > width) count /= 2;
        count = std::min(count, width);
        x = std::min(x, width - count);
        action(x, count);
        x += count;
    }
}

// Channels that are neighbours in memory; the last group may overlap the one before.
template <class T>
static void paint_interleaved(const Tiles& part, const Target* targets) {
    const std::ptrdiff_t count = group_count(part.channels);
    Group<T> groups[most_groups];
    for (std::ptrdiff_t g = 0; g < count; ++g)
        groups[g].set(targets, first_channel(g, part.channels));
    // What is asked for ahead: two blocks of pixels further, in the next row if need be.
    const std::ptrdiff_t step = part.column_stride, ahead = 2 * block_pixels * step;
    for (std::ptrdiff_t y = 0; y < part.height; ++y) {
        const std::byte* source = part.data + y * part.row_stride;
        for_blocks(part.width, [&](std::ptrdiff_t x, std::ptrdiff_t pixels) {
            for (std::ptrdiff_t g = 0; g < count; ++g) {
                if (groups[g].flat)
                    groups[g].template block<true>(source + x * step, step, ahead, x, pixels);
                else
                    groups[g].template block<false>(source + x * step, step, ahead, x, pixels);
            }
        });
        for (std::ptrdiff_t g = 0; g < count; ++g) groups[g].next_row();
    }
}

// Rows of neighbouring pixels of one channel.
struct Rows {
    const std::byte* source;
    std::ptrdiff_t stride, width, height;
};

// `N` pixels at a time; the last ones of a row may overlap those before.
template <bool flat, int N, class T>
static void paint_rows(Rows rows, const Target& target, std::uint8_t* pixels) {
    using Real = Drawn<T>;
    constexpr std::ptrdiff_t size = sizeof(T);
    if constexpr (N > 4) {
        if (rows.width < N) return paint_rows<flat, N / 2, T>(rows, target, pixels);
    }
    using Reals = Vector<Real, N>;
    const Line<Reals> line{Reals{} + static_cast<Real>(target.shift),
                           Reals{} + static_cast<Real>(target.scale),
                           Reals{} + static_cast<Real>(target.base)};
    const auto levels = [&](Reals x) {
        return convert<Vector<std::uint8_t, N>>(
            convert<Vector<std::int32_t, N>>(level<flat>(x, line)));
    };
    for (std::ptrdiff_t y = 0; y < rows.height; ++y) {
        if (rows.width < N) {
            Reals x{};
            for (std::ptrdiff_t i = 0; i < rows.width; ++i)
                x[i] = widen<Real>(load<T>(rows.source + i * size));
            const auto bytes = levels(x);
            std::memcpy(pixels, &bytes, static_cast<std::size_t>(rows.width));
        } else {
            for (std::ptrdiff_t x = 0; x < rows.width; x += N) {
                const std::ptrdiff_t at = std::min(x, rows.width - N);
                const auto bytes = levels(load_vector<Real, T, N>(rows.source + at * size));
                std::memcpy(pixels + at, &bytes, N);
            }
        }
        rows.source += rows.stride;
        pixels += target.stride;
    }
}

template <class T>
static void paint_planar(const Rows& rows, const Target& target, std::uint8_t* pixels) {
    constexpr int N = lanes / parts<Drawn<T>> < 4 ? 4 : lanes / parts<Drawn<T>>;
    if (Floating<T> && static_cast<Drawn<T>>(target.scale) == 0)
        paint_rows<true, N, T>(rows, target, pixels);
    else
        paint_rows<false, N, T>(rows, target, pixels);
}

template <class T>
static void paint(const Tiles& part, const Target* targets) {
    if (part.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T)) && part.channels >= lanes) {
        paint_interleaved<T>(part, targets);
        return;
    }
    for (std::ptrdiff_t channel = 0; channel < part.channels; ++channel)
        paint_planar<T>(
            {part.data + channel * part.channel_stride, part.row_stride, part.width, part.height},
            targets[channel], targets[channel].pixels);
}

}  // namespace actgrid::ACTGRID_VARIANT
