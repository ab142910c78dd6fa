// Kernels that map values to levels, for `lanes` channels at once or `lanes` pixels of one channel.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

static_assert(std::endian::native == std::endian::little,
              "the low byte of a word is its first pixel");

// Maximum number of pixels per channel that are stored at once.
constexpr int max_block_pixels = 16;
constexpr int cache_line = 64;

// Vectors of the terms of the mapping from values to levels.
template <class V>
struct VectorMapping {
    V shift, scale, base;
};

// Maps a vector of numbers to levels. Comparisons with NaN are false, so that NaN becomes 0.
template <bool is_flat, class Reals>
static inline Reals map_to_levels(Reals x, const VectorMapping<Reals>& mapping) {
    using Real = std::remove_cvref_t<decltype(x[0])>;
    const Reals zero{}, top = zero + Real{255};
    Reals v = (x - mapping.shift) * mapping.scale + mapping.base;
    // In a flat tile (scale 0), infinity times zero is NaN, but +inf must become 255.
    if constexpr (is_flat) v = x == zero + std::numeric_limits<Real>::infinity() ? top : v;
    v = v > zero ? v : zero;
    return v < top ? v : top;
}

using Words = Register<std::uint32_t>;

// A group of `lanes` channels that are contiguous in memory.
template <class T>
struct ChannelGroup {
    using Real = PaintReal<T>;
    static constexpr std::ptrdiff_t size = sizeof(T);

    VectorMapping<Register<Real>> mappings[register_count<Real>];
    std::uint8_t* pixels[lanes];
    std::ptrdiff_t strides[lanes];
    std::ptrdiff_t offset;  // of the first channel, in bytes
    bool has_flat_tiles;

    void set(const TileTarget* targets, std::ptrdiff_t first_channel) {
        Real shift[lanes], scale[lanes], base[lanes];
        offset = first_channel * size;
        has_flat_tiles = false;
        for (int lane = 0; lane < lanes; ++lane) {
            const TileTarget& target = targets[first_channel + lane];
            shift[lane] = static_cast<Real>(target.shift);
            scale[lane] = static_cast<Real>(target.scale);
            base[lane] = static_cast<Real>(target.base);
            has_flat_tiles |= Floating<T> && scale[lane] == 0;
            pixels[lane] = target.pixels;
            strides[lane] = target.stride;
        }
        for (int reg = 0; reg < register_count<Real>; ++reg) {
            constexpr int count = lanes / register_count<Real>;
            using Numbers = Register<Real>;
            const auto load_numbers = [&](const Real* numbers) {
                return load<Numbers>(reinterpret_cast<const std::byte*>(numbers + reg * count));
            };
            mappings[reg] = {load_numbers(shift), load_numbers(scale), load_numbers(base)};
        }
    }

    void next_row() {
        for (int lane = 0; lane < lanes; ++lane) pixels[lane] += strides[lane];
    }

    // Computes the levels of one pixel, one 32-bit word per channel.
    template <bool is_flat>
    Words compute_levels(const std::byte* source) const {
        // All instruction sets can convert floats to signed integers. Few can convert to unsigned.
        const auto compute_integers = [&](int reg) {
            return convert<Vector<std::int32_t, lanes / register_count<Real>>>(
                map_to_levels<is_flat>(load_register<Real, T>(source, reg), mappings[reg]));
        };
        if constexpr (register_count<Real> == 1)
            return (Words)compute_integers(0);
        else
            return (Words)concatenate(compute_integers(0), compute_integers(1));
    }

    // Computes the levels of `count` <= 4 pixels, packed into one word per channel.
    template <bool is_flat>
    Words compute_words(const std::byte* source, std::ptrdiff_t step,
                        std::ptrdiff_t prefetch_offset, std::ptrdiff_t count) const {
        Words words{};
        for (std::ptrdiff_t pixel = 0; pixel < count; ++pixel, source += step) {
            __builtin_prefetch(source + prefetch_offset);
            words |= compute_levels<is_flat>(source) << static_cast<std::uint32_t>(8 * pixel);
        }
        return words;
    }

    // Paints `count` pixels (16, 8 or at most 4) of the current row, starting at column x.
    template <bool is_flat>
    void paint_block(const std::byte* source, std::ptrdiff_t step, std::ptrdiff_t prefetch_offset,
                     std::ptrdiff_t x, std::ptrdiff_t count) const {
        source += offset;
        if (x % cache_line == 0)  // prefetch the output of the next row
            for (int lane = 0; lane < lanes; ++lane)
                __builtin_prefetch(pixels[lane] + strides[lane] + x, 1);
        if (count == max_block_pixels) {
            const Words a = compute_words<is_flat>(source, step, prefetch_offset, 4);
            const Words b = compute_words<is_flat>(source + 4 * step, step, prefetch_offset, 4);
            const Words c = compute_words<is_flat>(source + 8 * step, step, prefetch_offset, 4);
            const Words d = compute_words<is_flat>(source + 12 * step, step, prefetch_offset, 4);
            store<16>(a, b, c, d, x);
        } else if (count == 8) {
            const Words a = compute_words<is_flat>(source, step, prefetch_offset, 4);
            const Words b = compute_words<is_flat>(source + 4 * step, step, prefetch_offset, 4);
            store<8>(a, b, a, b, x);
        } else {
            const Words a = compute_words<is_flat>(source, step, prefetch_offset, count);
            for (int lane = 0; lane < lanes; ++lane) {
                const std::uint32_t bytes = a[lane];
                std::memcpy(pixels[lane] + x, &bytes, static_cast<std::size_t>(count));
            }
        }
    }

    // Stores four words per channel, after transposing blocks of 4 x 4 words so that the words of
    // each channel are contiguous.
    template <int bytes>
    void store(Words a, Words b, Words c, Words d, std::ptrdiff_t x) const {
        const Words ab_low = shuffle_blocks<0, 4, 1, 5>(a, b);
        const Words cd_low = shuffle_blocks<0, 4, 1, 5>(c, d);
        const Words ab_high = shuffle_blocks<2, 6, 3, 7>(a, b);
        const Words cd_high = shuffle_blocks<2, 6, 3, 7>(c, d);
        const Words rows[] = {shuffle_blocks<0, 1, 4, 5>(ab_low, cd_low),
                              shuffle_blocks<2, 3, 6, 7>(ab_low, cd_low),
                              shuffle_blocks<0, 1, 4, 5>(ab_high, cd_high),
                              shuffle_blocks<2, 3, 6, 7>(ab_high, cd_high)};
        for (int row = 0; row < 4; ++row)
            for (int block = 0; block < lanes / 4; ++block)
                std::memcpy(pixels[4 * block + row] + x,
                            reinterpret_cast<const std::byte*>(&rows[row]) + 16 * block, bytes);
    }
};

// Calls action(x, count) for blocks of 16, 8 or at most 4 pixels that cover a row. The last block
// may overlap the block before; both write the same levels.
template <class Action>
static inline void for_each_block(std::ptrdiff_t width, const Action& action) {
    for (std::ptrdiff_t x = 0; x < width;) {
        const std::ptrdiff_t remaining = width - x;
        std::ptrdiff_t count = remaining > 8 ? 16 : remaining > 4 ? 8 : 4;
        while (count > 4 && count > width) count /= 2;
        count = std::min(count, width);
        x = std::min(x, width - count);
        action(x, count);
        x += count;
    }
}

// Paints channels that are contiguous in memory. The last group may overlap the group before.
template <class T>
static void paint_interleaved(const Tiles& tiles, const TileTarget* targets) {
    const std::ptrdiff_t count = count_groups(tiles.channels);
    ChannelGroup<T> groups[max_groups];
    for (std::ptrdiff_t g = 0; g < count; ++g)
        groups[g].set(targets, get_first_channel(g, tiles.channels));
    // Prefetch two blocks of pixels ahead.
    const std::ptrdiff_t step = tiles.column_stride, prefetch_offset = 2 * max_block_pixels * step;
    for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
        const std::byte* source = tiles.data + y * tiles.row_stride;
        for_each_block(tiles.width, [&](std::ptrdiff_t x, std::ptrdiff_t pixels) {
            for (std::ptrdiff_t g = 0; g < count; ++g) {
                if (groups[g].has_flat_tiles)
                    groups[g].template paint_block<true>(source + x * step, step, prefetch_offset,
                                                         x, pixels);
                else
                    groups[g].template paint_block<false>(source + x * step, step, prefetch_offset,
                                                          x, pixels);
            }
        });
        for (std::ptrdiff_t g = 0; g < count; ++g) groups[g].next_row();
    }
}

// The rows of one channel, each of contiguous pixels.
struct Rows {
    const std::byte* source;
    std::ptrdiff_t stride, width, height;
};

// Paints `N` pixels at a time. The last N pixels of a row may overlap the N pixels before.
template <bool is_flat, int N, class T>
static void paint_rows(Rows rows, const TileTarget& target, std::uint8_t* pixels) {
    using Real = PaintReal<T>;
    constexpr std::ptrdiff_t size = sizeof(T);
    if constexpr (N > 4) {
        if (rows.width < N) return paint_rows<is_flat, N / 2, T>(rows, target, pixels);
    }
    using Reals = Vector<Real, N>;
    const VectorMapping<Reals> mapping{Reals{} + static_cast<Real>(target.shift),
                                       Reals{} + static_cast<Real>(target.scale),
                                       Reals{} + static_cast<Real>(target.base)};
    const auto compute_levels = [&](Reals x) {
        return convert<Vector<std::uint8_t, N>>(
            convert<Vector<std::int32_t, N>>(map_to_levels<is_flat>(x, mapping)));
    };
    for (std::ptrdiff_t y = 0; y < rows.height; ++y) {
        if (rows.width < N) {
            Reals x{};
            for (std::ptrdiff_t i = 0; i < rows.width; ++i)
                x[i] = widen<Real>(load<T>(rows.source + i * size));
            const auto bytes = compute_levels(x);
            std::memcpy(pixels, &bytes, static_cast<std::size_t>(rows.width));
        } else {
            for (std::ptrdiff_t x = 0; x < rows.width; x += N) {
                const std::ptrdiff_t column = std::min(x, rows.width - N);
                const auto bytes =
                    compute_levels(load_vector<Real, T, N>(rows.source + column * size));
                std::memcpy(pixels + column, &bytes, N);
            }
        }
        rows.source += rows.stride;
        pixels += target.stride;
    }
}

// Paints one channel.
template <class T>
static void paint_planar(const Rows& rows, const TileTarget& target, std::uint8_t* pixels) {
    constexpr int N =
        lanes / register_count<PaintReal<T>> < 4 ? 4 : lanes / register_count<PaintReal<T>>;
    if (Floating<T> && static_cast<PaintReal<T>>(target.scale) == 0)
        paint_rows<true, N, T>(rows, target, pixels);
    else
        paint_rows<false, N, T>(rows, target, pixels);
}

template <class T>
static void paint(const Tiles& tiles, const TileTarget* targets) {
    if (tiles.channel_stride == static_cast<std::ptrdiff_t>(sizeof(T)) && tiles.channels >= lanes) {
        paint_interleaved<T>(tiles, targets);
        return;
    }
    for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel)
        paint_planar<T>({tiles.data + channel * tiles.channel_stride, tiles.row_stride, tiles.width,
                         tiles.height},
                        targets[channel], targets[channel].pixels);
}

}  // namespace actgrid::ACTGRID_VARIANT
