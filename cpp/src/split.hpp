// Splitting of tiles into parts for the kernels. The parts do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "actgrid/tiles.hpp"
#include "kernels/kernels.hpp"
#include "pool.hpp"

namespace actgrid {

/// Number of values below which waking a thread costs more time than it saves.
constexpr std::ptrdiff_t min_parallel_values = 1 << 17;

/// A part of the tiles: a band of rows of consecutive channels of one slice.
struct Part {
    Tiles tiles;
    std::ptrdiff_t slice, first_channel, band, first_row;
};

/// The division of tiles into parts: by slice, by block of channels and by band of rows.
class Split {
  public:
    explicit Split(const Tiles& tiles) : tiles_(tiles) {
        // If each channel is contiguous, a part has few channels and all rows. If pixels hold all
        // channels side by side, a part has many channels and few rows.
        const std::ptrdiff_t pixel_stride =
            tiles.width > 1 ? tiles.column_stride : tiles.row_stride;
        const bool is_planar = std::abs(pixel_stride) < std::abs(tiles.channel_stride);
        block_channels_ =
            is_planar
                ? std::clamp<std::ptrdiff_t>(part_values / tiles.pixels(), 1, target_part_channels)
                : std::clamp<std::ptrdiff_t>(part_values / tiles.width / min_interleaved_channels *
                                                 min_interleaved_channels,
                                             min_interleaved_channels, target_part_channels);
        blocks_ = std::max<std::ptrdiff_t>(1, tiles.channels / block_channels_);
        // A last block of too few channels is merged into the block before.
        if (tiles.channels - blocks_ * block_channels_ >=
            (is_planar ? 1 : min_interleaved_channels))
            ++blocks_;
        const std::ptrdiff_t channels = std::min(tiles.channels, block_channels_);
        const auto count_bands = [&](std::ptrdiff_t rows) {
            return (tiles.height + rows - 1) / rows;
        };
        band_rows_ =
            std::clamp<std::ptrdiff_t>(part_values / (channels * tiles.width), 1, tiles.height);
        band_rows_ = count_bands(count_bands(band_rows_));  // bands of nearly equal height
        bands_ = count_bands(band_rows_);
    }

    /// Returns the number of bands of rows in each tile.
    std::ptrdiff_t bands() const { return bands_; }

    /// Calls task(part) for each part on up to `threads` threads.
    template <class Task>
    void for_each_part(int threads, const Task& task) const {
        if (tiles_.count() * tiles_.pixels() < min_parallel_values) threads = 1;
        parallel_for(tiles_.slices * blocks_ * bands_, threads, [&](std::ptrdiff_t i) {
            const std::ptrdiff_t band = i % bands_, block = i / bands_ % blocks_;
            const std::ptrdiff_t slice = i / bands_ / blocks_;
            const std::ptrdiff_t first_channel = block * block_channels_;
            const std::ptrdiff_t first_row = band * band_rows_;
            Part part{tiles_, slice, first_channel, band, first_row};
            part.tiles.data = tiles_.tile(first_channel, slice) + first_row * tiles_.row_stride;
            part.tiles.slices = 1;
            part.tiles.channels =
                block + 1 < blocks_ ? block_channels_ : tiles_.channels - first_channel;
            part.tiles.height = std::min(band_rows_, tiles_.height - first_row);
            task(part);
        });
    }

  private:
    // Approximate number of values in a part, large enough to outweigh the cost of dispatching it.
    static constexpr std::ptrdiff_t part_values = 1 << 17;

    const Tiles& tiles_;
    std::ptrdiff_t block_channels_, blocks_, band_rows_, bands_;
};

}  // namespace actgrid
