// Splitting tiles into parts for the kernels, the same parts whatever the number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "actgrid/tiles.hpp"
#include "kernels/kernels.hpp"
#include "pool.hpp"

namespace actgrid {

/// A band of rows of neighbouring channels of one slice.
struct Part {
    Tiles tiles;
    std::ptrdiff_t slice, channel, band, row;
};

/// How tiles are split: by slices, by channels, by bands of rows.
class Split {
  public:
    explicit Split(const Tiles& tiles) : tiles_(tiles) {
        // Where the pixels of a channel lie together, few whole channels; else all of a few rows.
        const std::ptrdiff_t step = tiles.width > 1 ? tiles.column_stride : tiles.row_stride;
        const bool planar = std::abs(step) < std::abs(tiles.channel_stride);
        channels_ = planar
                        ? std::clamp<std::ptrdiff_t>(part_values / tiles.pixels(), 1, part_channels)
                        : std::clamp<std::ptrdiff_t>(
                              part_values / tiles.width / least_channels * least_channels,
                              least_channels, part_channels);
        blocks_ = std::max<std::ptrdiff_t>(1, tiles.channels / channels_);
        // No part of few channels that are neighbours.
        if (tiles.channels - blocks_ * channels_ >= (planar ? 1 : least_channels)) ++blocks_;
        const std::ptrdiff_t channels = std::min(tiles.channels, channels_);
        const auto count = [&](std::ptrdiff_t rows) { return (tiles.height + rows - 1) / rows; };
        rows_ = std::clamp<std::ptrdiff_t>(part_values / (channels * tiles.width), 1, tiles.height);
        rows_ = count(count(rows_));  // about as many in each
        bands_ = count(rows_);
    }

    /// Bands of rows in each tile.
    std::ptrdiff_t bands() const { return bands_; }

    /// Calls task(part) for each part, on up to `threads` threads.
    template <class Task>
    void for_parts(int threads, const Task& task) const {
        if (tiles_.count() * tiles_.pixels() < worthwhile) threads = 1;
        parallel_for(tiles_.slices * blocks_ * bands_, threads, [&](std::ptrdiff_t i) {
            const std::ptrdiff_t band = i % bands_, block = i / bands_ % blocks_;
            const std::ptrdiff_t slice = i / bands_ / blocks_;
            const std::ptrdiff_t channel = block * channels_, row = band * rows_;
            Part part{tiles_, slice, channel, band, row};
            part.tiles.data = tiles_.tile(channel, slice) + row * tiles_.row_stride;
            part.tiles.slices = 1;
            part.tiles.channels = block + 1 < blocks_ ? channels_ : tiles_.channels - channel;
            part.tiles.height = std::min(rows_, tiles_.height - row);
            task(part);
        });
    }

  private:
    // Values of a part, about: enough to outweigh handing it out.
    static constexpr std::ptrdiff_t part_values = 1 << 17;
    // Below this many values waking a thread costs more than it saves.
    static constexpr std::ptrdiff_t worthwhile = 1 << 17;

    const Tiles& tiles_;
    std::ptrdiff_t channels_, blocks_, rows_, bands_;
};

}  // namespace actgrid
