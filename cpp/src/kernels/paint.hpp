// Kernels that map values to levels, for `lanes` channels at once or `lanes` values of one channel.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels.hpp"
#include "vector.hpp"

namespace actgrid::ACTGRID_VARIANT {

static_assert(std::endian::native == std::endian::little,
              "the low byte of a word is its first pixel");

constexpr int cache_line = 64;
// Maximum number of pixels per channel that are stored at once.
constexpr std::ptrdiff_t max_block_pixels = 16;

// The terms of the mapping from values to levels for a register of values.
template <class Real>
struct RegisterMapping {
    Register<Real> shift, scale, base;
};

// Maps numbers to levels, except that numbers below 0 and NaN may remain.
template <bool is_flat, class Real>
static inline Register<Real> map_to_levels(Register<Real> x, const RegisterMapping<Real>& mapping) {
    using Reals = Register<Real>;
    const Reals zero{}, top = zero + Real{255};
    Reals v = (x - mapping.shift) * mapping.scale + mapping.base;
    // In a flat tile (scale 0), infinity times zero is NaN, but +inf must become 255.
    if constexpr (is_flat) v = x == zero + std::numeric_limits<Real>::infinity() ? top : v;
    if constexpr (!converts_any_number) v = v > zero ? v : zero;
    return limit<Real>(v, top);
}

// Returns whether one of the tiles is flat (scale 0) and may contain infinities.
template <class T>
static inline bool has_flat_tiles(const TileTarget* targets, std::ptrdiff_t count) {
    if constexpr (Floating<T>) {
        for (std::ptrdiff_t i = 0; i < count; ++i)
            if (static_cast<PaintReal<T>>(targets[i].scale) == 0) return true;
    }
    return false;
}

// The mapping of `lanes` values, each of which may belong to another channel.
template <class T>
struct LaneMapping {
    using Real = PaintReal<T>;

    RegisterMapping<Real> registers[register_count<Real>];

    // Sets the mapping of all lanes to that of one tile.
    void set(const TileTarget& target) {
        for (RegisterMapping<Real>& mapping : registers)
            mapping = {Register<Real>{} + static_cast<Real>(target.shift),
                       Register<Real>{} + static_cast<Real>(target.scale),
                       Register<Real>{} + static_cast<Real>(target.base)};
    }

    // Sets the mapping of lane i to that of targets[(first + i) % count].
    void set(const TileTarget* targets, std::ptrdiff_t first, std::ptrdiff_t count) {
        Real shift[lanes], scale[lanes], base[lanes];
        std::ptrdiff_t i = first % count;
        for (int lane = 0; lane < lanes; ++lane) {
            shift[lane] = static_cast<Real>(targets[i].shift);
            scale[lane] = static_cast<Real>(targets[i].scale);
            base[lane] = static_cast<Real>(targets[i].base);
            if (++i == count) i = 0;
        }
        for (int reg = 0; reg < register_count<Real>; ++reg) {
            const auto load_numbers = [&](const Real* numbers) {
                return load_register<Real, Real>(reinterpret_cast<const std::byte*>(numbers), reg);
            };
            registers[reg] = {load_numbers(shift), load_numbers(scale), load_numbers(base)};
        }
    }

    // Maps `lanes` contiguous values to levels that `pack_bytes` must clip.
    template <bool is_flat>
    Integers map(const std::byte* source) const {
        const auto map_register = [&](int reg) {
            return convert<Vector<std::int32_t, lanes / register_count<Real>>>(
                map_to_levels<is_flat, Real>(load_register<Real, T>(source, reg), registers[reg]));
        };
        if constexpr (register_count<Real> == 1)
            return map_register(0);
        else
            return concatenate(map_register(0), map_register(1));
    }
};

// --- many channels that are contiguous in memory ---

using Words = Register<std::uint32_t>;

// A group of `lanes` channels.
template <class T>
struct ChannelGroup {
    LaneMapping<T> mapping;
    std::uint8_t* pixels[lanes];
    std::ptrdiff_t strides[lanes];
    std::ptrdiff_t offset;  // of the first channel, in bytes
    bool is_flat;

    void set(const TileTarget* targets, std::ptrdiff_t first_channel) {
        offset = first_channel * static_cast<std::ptrdiff_t>(sizeof(T));
        is_flat = has_flat_tiles<T>(targets + first_channel, lanes);
        mapping.set(targets + first_channel, 0, lanes);
        for (int lane = 0; lane < lanes; ++lane) {
            pixels[lane] = targets[first_channel + lane].pixels;
            strides[lane] = targets[first_channel + lane].stride;
        }
    }

    // Prefetches the next row of the output. Narrow tiles that are side by side share cache lines.
    void prefetch_next_row(std::ptrdiff_t x, std::ptrdiff_t width) const {
        const std::ptrdiff_t step = std::max<std::ptrdiff_t>(cache_line / width, 1);
        for (std::ptrdiff_t lane = 0; lane < lanes; lane += step)
            __builtin_prefetch(pixels[lane] + strides[lane] + x, 1);
    }

    void next_row() {
        for (int lane = 0; lane < lanes; ++lane) pixels[lane] += strides[lane];
    }

    // Computes the levels of `count` <= 4 pixels, packed into one word per channel.
    template <bool is_flat>
    Words compute_words(const std::byte* source, std::ptrdiff_t step, const std::byte*& prefetched,
                        int count = 4) const {
        Integers levels[4];
        for (int pixel = 0; pixel < 4; ++pixel) {
            __builtin_prefetch(prefetched);
            prefetched += lanes * static_cast<int>(sizeof(T));
            levels[pixel] = mapping.template map<is_flat>(source);
            if (pixel + 1 < count) source += step;
        }
        return (Words)transpose_bytes(pack_bytes(levels[0], levels[1], levels[2], levels[3]));
    }

    // Paints `count` pixels (16, 8 or at most 4) of the current row, starting at column x.
    template <bool is_flat>
    void paint_block(const std::byte* source, std::ptrdiff_t step, const std::byte*& prefetched,
                     std::ptrdiff_t x, int count) const {
        if (count == max_block_pixels) {
            const Words a = compute_words<is_flat>(source, step, prefetched);
            const Words b = compute_words<is_flat>(source + 4 * step, step, prefetched);
            const Words c = compute_words<is_flat>(source + 8 * step, step, prefetched);
            const Words d = compute_words<is_flat>(source + 12 * step, step, prefetched);
            store<16>(a, b, c, d, x);
        } else if (count == 8) {
            const Words a = compute_words<is_flat>(source, step, prefetched);
            const Words b = compute_words<is_flat>(source + 4 * step, step, prefetched);
            store<8>(a, b, a, b, x);
        } else {
            std::uint8_t bytes[lanes][4];
            const Words words = compute_words<is_flat>(source, step, prefetched, count);
            std::memcpy(bytes, &words, sizeof bytes);
            for (int lane = 0; lane < lanes; ++lane) {
                if (count == 4)
                    std::memcpy(pixels[lane] + x, bytes[lane], 4);
                else
                    std::copy_n(bytes[lane], count, pixels[lane] + x);
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

    // Paints columns `first` to `end` of the current row in blocks of 16, 8 or at most 4 pixels.
    // The last block may overlap pixels before it, of which it writes the same levels.
    template <bool is_flat>
    void paint_columns(const std::byte* row, const Tiles& tiles, const std::byte*& prefetched,
                       std::ptrdiff_t first, std::ptrdiff_t end) const {
        for (std::ptrdiff_t x = first; x < end;) {
            const std::ptrdiff_t remaining = end - x;
            int count = remaining > 8 ? 16 : remaining > 4 ? 8 : 4;
            while (count > 4 && count > tiles.width) count /= 2;
            count = static_cast<int>(std::min<std::ptrdiff_t>(count, tiles.width));
            if (x % cache_line == 0) prefetch_next_row(x, tiles.width);
            x = std::min(x, tiles.width - count);
            paint_block<is_flat>(row + offset + x * tiles.column_stride, tiles.column_stride,
                                 prefetched, x, count);
            x += count;
        }
    }
};

// Paints channels that are contiguous in memory. The last group may overlap the group before.
template <class T>
static void paint_interleaved(const Tiles& tiles, const TileTarget* targets) {
    // Size of the pieces of pixels that are painted group by group, small enough for two pieces to
    // stay in the L1 cache. While a piece is painted, the next piece is prefetched in the order of
    // its memory.
    constexpr std::ptrdiff_t max_piece_bytes = 1 << 13;
    const std::ptrdiff_t count = count_groups(tiles.channels);
    ChannelGroup<T> groups[max_groups];
    for (std::ptrdiff_t g = 0; g < count; ++g)
        groups[g].set(targets, get_first_channel(g, tiles.channels));
    const std::ptrdiff_t piece =
        max_piece_bytes / (static_cast<std::ptrdiff_t>(sizeof(T)) * tiles.channels);
    const std::ptrdiff_t piece_width =
        std::max(piece / max_block_pixels * max_block_pixels, max_block_pixels);
    const std::ptrdiff_t piece_height = std::max<std::ptrdiff_t>(piece / tiles.width, 1);
    const std::ptrdiff_t piece_bytes = piece_width < tiles.width ? piece_width * tiles.column_stride
                                                                 : piece_height * tiles.row_stride;
    for (std::ptrdiff_t y = 0; y < tiles.height; y += piece_height) {
        const std::ptrdiff_t end_row = std::min(y + piece_height, tiles.height);
        for (std::ptrdiff_t x = 0; x < tiles.width; x += piece_width) {
            const std::ptrdiff_t end = std::min(x + piece_width, tiles.width);
            const std::byte* prefetched =
                tiles.data + y * tiles.row_stride + x * tiles.column_stride + piece_bytes;
            for (std::ptrdiff_t g = 0; g < count; ++g) {
                ChannelGroup<T>& group = groups[g];
                const std::byte* row = tiles.data + y * tiles.row_stride;
                for (std::ptrdiff_t i = y; i < end_row; ++i, row += tiles.row_stride) {
                    if (group.is_flat)
                        group.template paint_columns<true>(row, tiles, prefetched, x, end);
                    else
                        group.template paint_columns<false>(row, tiles, prefetched, x, end);
                    if (end == tiles.width) group.next_row();
                }
            }
        }
    }
}

// --- values of one channel, or of few channels, that are contiguous in memory ---

// Returns the bytes in the order of the registers that `pack_bytes` packed.
template <int... I>
static inline Bytes order_packed(Bytes bytes, std::integer_sequence<int, I...>) {
    constexpr int blocks = lanes / 4;
    const auto words = (Words)bytes;
    return (Bytes)shuffle(words, words,
                          std::integer_sequence<int, (I % blocks * 4 + I / blocks)...>{});
}

// Maps 4 * lanes contiguous values to levels. Register i of values has mapping
// mappings[i % mapping_count].
template <bool is_flat, class T>
[[gnu::always_inline]] static inline Bytes map_values(const std::byte* source,
                                                      const LaneMapping<T>* mappings,
                                                      std::ptrdiff_t mapping_count,
                                                      std::ptrdiff_t& next_mapping) {
    Integers levels[4];
    for (int reg = 0; reg < 4; ++reg) {
        levels[reg] = mappings[next_mapping].template map<is_flat>(
            source + reg * lanes * static_cast<int>(sizeof(T)));
        if (++next_mapping == mapping_count) next_mapping = 0;
    }
    return order_packed(pack_bytes(levels[0], levels[1], levels[2], levels[3]),
                        std::make_integer_sequence<int, lanes>{});
}

// Maps contiguous values to levels. Writes up to `register_bytes` - 1 bytes after the levels.
template <bool is_flat, class T>
[[gnu::always_inline]] static inline void map_run(const std::byte* source, std::ptrdiff_t count,
                                                  const LaneMapping<T>* mappings,
                                                  std::ptrdiff_t mapping_count,
                                                  std::uint8_t* levels) {
    constexpr std::ptrdiff_t size = sizeof(T), step = register_bytes;
    std::ptrdiff_t mapping = 0;
    for (; count >= step; count -= step, source += step * size, levels += step) {
        const Bytes bytes = map_values<is_flat>(source, mappings, mapping_count, mapping);
        std::memcpy(levels, &bytes, sizeof bytes);
    }
    if (count > 0) {
        std::byte last_values[step * size] = {};
        std::memcpy(last_values, source, static_cast<std::size_t>(count * size));
        const Bytes bytes = map_values<is_flat>(last_values, mappings, mapping_count, mapping);
        std::memcpy(levels, &bytes, sizeof bytes);
    }
}

// Copies `count` bytes as pieces of N bytes, or of fewer bytes if there are not as many. The last
// piece may overlap the piece before.
template <std::ptrdiff_t N = 32>
static inline void copy_pieces(const std::uint8_t* from, std::ptrdiff_t count, std::uint8_t* to) {
    if constexpr (N > 1) {
        if (count < N) return copy_pieces<N / 2>(from, count, to);
    }
    for (std::ptrdiff_t x = 0; x < count; x += N) {
        const std::ptrdiff_t start = std::min(x, count - N);
        std::memcpy(to + start, from + start, N);
    }
}

// Number of levels that are computed before they are copied to the canvas: enough for the first
// levels to have left the store buffer of the processor.
constexpr std::ptrdiff_t buffer_size = 4096;

// Returns how many rows of tiles, whose pixels have no gaps between them, fill the buffer.
static inline std::ptrdiff_t count_buffer_rows(const Tiles& tiles, std::ptrdiff_t channels) {
    return tiles.row_stride == tiles.width * tiles.column_stride
               ? std::max<std::ptrdiff_t>(buffer_size / (tiles.width * channels), 1)
               : 1;
}

// Paints channels whose pixels are contiguous in each row.
template <bool is_flat, class T>
static void paint_planar(const Tiles& tiles, std::ptrdiff_t channel, const TileTarget& target) {
    constexpr std::ptrdiff_t size = sizeof(T);
    const std::byte* row = tiles.data + channel * tiles.channel_stride;
    std::uint8_t* pixels = target.pixels;
    LaneMapping<T> mapping;
    mapping.set(target);
    if (tiles.width >= register_bytes) {
        for (std::ptrdiff_t y = 0; y < tiles.height; ++y) {
            for (std::ptrdiff_t x = 0; x < tiles.width; x += register_bytes) {
                const std::ptrdiff_t column = std::min(x, tiles.width - register_bytes);
                map_run<is_flat>(row + column * size, register_bytes, &mapping, 1, pixels + column);
            }
            row += tiles.row_stride;
            pixels += target.stride;
        }
        return;
    }
    // Narrow rows are mapped together.
    std::uint8_t levels[buffer_size + register_bytes];
    const std::ptrdiff_t rows = count_buffer_rows(tiles, 1);
    for (std::ptrdiff_t y = 0; y < tiles.height; y += rows, row += rows * tiles.row_stride) {
        const std::ptrdiff_t count = std::min(rows, tiles.height - y);
        map_run<is_flat>(row, count * tiles.width, &mapping, 1, levels);
        for (std::ptrdiff_t i = 0; i < count; ++i, pixels += target.stride)
            copy_pieces(levels + i * tiles.width, tiles.width, pixels);
    }
}

// Transposes 16 vectors of 16 bytes: each round interleaves the halves of the vectors, and rotates
// the bits of the index of each byte.
using Bytes16 = Vector<std::uint8_t, 16>;
template <int... I>
static inline void interleave_halves(Bytes16 (&vectors)[16], std::integer_sequence<int, I...>) {
    const Bytes16 interleaved[16] = {
        (I % 2 == 0 ? shuffle(vectors[I / 2], vectors[I / 2 + 8],
                              std::integer_sequence<int, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                                    6, 22, 7, 23>{})
                    : shuffle(vectors[I / 2], vectors[I / 2 + 8],
                              std::integer_sequence<int, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13,
                                                    29, 14, 30, 15, 31>{}))...};
    ((vectors[I] = interleaved[I]), ...);
}

// Maximum number of channels whose levels are separated after mapping.
constexpr int max_separated_channels = 16;

// Copies a row of levels, each pixel with its channels side by side, to the rows of its tiles.
template <int max_channels>
static void separate_channels(const std::uint8_t* levels, std::ptrdiff_t channels,
                              std::ptrdiff_t width, std::uint8_t* const* rows) {
    for (std::ptrdiff_t x = 0; x < width; x += 16) {
        const std::ptrdiff_t start = std::max<std::ptrdiff_t>(std::min(x, width - 16), 0);
        Bytes16 vectors[16];
        for (int i = 0; i < 16; ++i)
            std::memcpy(&vectors[i], levels + (start + i) * channels, sizeof vectors[i]);
        for (int round = 0; round < 4; ++round)
            interleave_halves(vectors, std::make_integer_sequence<int, 16>{});
        // The number of rounds is constant so that the compiler keeps the vectors in registers.
        for (int c = 0; c < max_channels; ++c) {
            if (c == channels) break;
            std::uint8_t row[16];
            std::memcpy(row, &vectors[c], sizeof row);
            if (width >= 16)
                std::memcpy(rows[c] + start, row, sizeof row);
            else
                copy_pieces(row, width, rows[c]);
        }
    }
}

// Paints few channels that are contiguous in memory, in pixels without gaps.
template <bool is_flat, class T>
static void paint_joined_pixels(const Tiles& tiles, const TileTarget* targets,
                                const LaneMapping<T>* mappings) {
    const std::ptrdiff_t channels = tiles.channels;
    // The last levels are read together with those of 16 further pixels.
    std::uint8_t levels[buffer_size + 16 * max_separated_channels + register_bytes];
    std::uint8_t* rows[max_separated_channels];
    const std::ptrdiff_t height = count_buffer_rows(tiles, channels);
    const std::ptrdiff_t max_width = buffer_size / channels;
    for (std::ptrdiff_t y = 0; y < tiles.height; y += height) {
        const std::ptrdiff_t end_row = std::min(y + height, tiles.height);
        for (std::ptrdiff_t x = 0; x < tiles.width; x += max_width) {
            const std::ptrdiff_t width = std::min(max_width, tiles.width - x);
            map_run<is_flat>(tiles.data + y * tiles.row_stride + x * tiles.column_stride,
                             (end_row - y) * width * channels, mappings, channels, levels);
            for (std::ptrdiff_t row = y; row < end_row; ++row) {
                const std::uint8_t* row_levels = levels + (row - y) * width * channels;
                for (std::ptrdiff_t c = 0; c < channels; ++c)
                    rows[c] = targets[c].pixels + row * targets[c].stride + x;
                if (channels <= 4)
                    separate_channels<4>(row_levels, channels, width, rows);
                else if (channels <= 8)
                    separate_channels<8>(row_levels, channels, width, rows);
                else
                    separate_channels<max_separated_channels>(row_levels, channels, width, rows);
            }
        }
    }
}

template <class T>
static void paint(const Tiles& tiles, const TileTarget* targets) {
    constexpr std::ptrdiff_t size = sizeof(T);
    Tiles columns = tiles;
    if (tiles.width == 1) columns.column_stride = columns.row_stride;
    const bool is_interleaved = tiles.channel_stride == size && tiles.channels > 1;
    if (is_interleaved && tiles.channels % lanes != 0 && tiles.channels <= max_separated_channels &&
        columns.column_stride == tiles.channels * size) {
        LaneMapping<T> mappings[max_separated_channels];
        for (std::ptrdiff_t i = 0; i < tiles.channels; ++i)
            mappings[i].set(targets, i * lanes, tiles.channels);
        if (has_flat_tiles<T>(targets, tiles.channels))
            paint_joined_pixels<true>(columns, targets, mappings);
        else
            paint_joined_pixels<false>(columns, targets, mappings);
    } else if (is_interleaved && tiles.channels >= lanes) {
        paint_interleaved<T>(tiles, targets);
    } else {
        for (std::ptrdiff_t channel = 0; channel < tiles.channels; ++channel) {
            if (has_flat_tiles<T>(targets + channel, 1))
                paint_planar<true, T>(columns, channel, targets[channel]);
            else
                paint_planar<false, T>(columns, channel, targets[channel]);
        }
    }
}

}  // namespace actgrid::ACTGRID_VARIANT
