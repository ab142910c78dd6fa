#include "actgrid/overlay.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernels.hpp"
#include "split.hpp"

namespace actgrid {
namespace {

// The interpolation along one axis that is resized from `from` to `to` pixels.
class AxisInterpolation {
  public:
    AxisInterpolation(std::ptrdiff_t from, std::ptrdiff_t to)
        : first_(static_cast<std::size_t>(to)),
          second_(first_),
          run_end_(first_),
          weight_(first_.size()) {
        // The centre of output pixel i lies at (i + 0.5) * from / to - 0.5 in the input. Positions
        // are exact integers, in units of 1 / (2 * to) pixels.
        const std::ptrdiff_t units = 2 * to;
        for (std::ptrdiff_t i = to - 1; i >= 0; --i) {
            const std::ptrdiff_t position =
                std::clamp<std::ptrdiff_t>((2 * i + 1) * from - to, 0, (from - 1) * units);
            const auto pixel = static_cast<std::size_t>(i);
            first_[pixel] = static_cast<std::int32_t>(position / units);
            second_[pixel] = first_[pixel] + (position % units != 0);
            const bool has_same_neighbours = i + 1 < to && first_[pixel] == first_[pixel + 1] &&
                                             second_[pixel] == second_[pixel + 1];
            run_end_[pixel] =
                has_same_neighbours ? run_end_[pixel + 1] : static_cast<std::int32_t>(i + 1);
            weight_[pixel] = static_cast<float>(static_cast<double>(position % units) /
                                                static_cast<double>(units));
        }
    }

    Neighbours neighbours() const {
        return {first_.data(), second_.data(), run_end_.data(), weight_.data()};
    }

  private:
    std::vector<std::int32_t> first_, second_, run_end_;
    std::vector<float> weight_;
};

// Returns `count` contiguous maps as slices of tiles, which Split can divide into bands of rows.
Tiles make_tiles(std::ptrdiff_t count, std::ptrdiff_t height, std::ptrdiff_t width,
                 const float* values = nullptr) {
    constexpr std::ptrdiff_t size = sizeof(float);
    const std::ptrdiff_t map_bytes = height * width * size;
    return {reinterpret_cast<const std::byte*>(values),
            DType::float32,
            1,
            count,
            height,
            width,
            count * map_bytes,
            map_bytes,
            width * size,
            size};
}

// Computes single rows of resized maps.
class Resizer {
  public:
    Resizer(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width)
        : maps_(maps), width_(width), rows_(maps.height, height), columns_(maps.width, width) {}

    void resize_row(std::ptrdiff_t map, std::ptrdiff_t y, float* blended, float* resized) const {
        const float* values = maps_.values + map * maps_.height * maps_.width;
        const Neighbours rows = rows_.neighbours();
        active_kernels().resize_row(values + rows.first[y] * maps_.width,
                                    values + rows.second[y] * maps_.width, rows.weight[y],
                                    maps_.width, blended, columns_.neighbours(), width_, resized);
    }

  private:
    const Maps& maps_;
    std::ptrdiff_t width_;
    AxisInterpolation rows_, columns_;
};

}  // namespace

void resize(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width, float* resized,
            int threads) {
    const Resizer resizer(maps, height, width);
    const Tiles tiles = make_tiles(maps.count, height, width);
    Split(tiles).for_each_part(threads, [&](const Part& part) {
        std::vector<float> blended(static_cast<std::size_t>(maps.width));
        for (std::ptrdiff_t y = part.first_row; y < part.first_row + part.tiles.height; ++y)
            resizer.resize_row(part.slice, y, blended.data(),
                               resized + (part.slice * height + y) * width);
    });
}

void overlay(const Maps& map, const Colouring& colouring, const std::uint8_t* image,
             std::ptrdiff_t height, std::ptrdiff_t width, std::uint8_t* overlaid, int threads) {
    const Resizer resizer(map, height, width);
    // The kernel copies colours four bytes at a time, so the palette needs one spare byte.
    std::uint8_t palette[3 * 256 + 1] = {};
    std::copy_n(colouring.palette, 3 * 256, palette);
    const auto alpha = static_cast<float>(colouring.alpha);
    const Tiles tiles = make_tiles(1, height, width);
    Split(tiles).for_each_part(threads, [&](const Part& part) {
        const auto pixels = static_cast<std::size_t>(width);
        std::vector<float> blended(static_cast<std::size_t>(map.width)), values(pixels);
        std::vector<std::uint8_t> levels(pixels), colours(3 * pixels + 1);
        const Tiles row = make_tiles(1, 1, width, values.data());
        const TileTarget target{colouring.shift, colouring.scale, colouring.base, levels.data(),
                                width};
        for (std::ptrdiff_t y = part.first_row; y < part.first_row + part.tiles.height; ++y) {
            const std::ptrdiff_t start = 3 * width * y;
            resizer.resize_row(0, y, blended.data(), values.data());
            active_kernels().paint(row, &target);
            active_kernels().overlay_row(levels.data(), palette, alpha, image + start, width,
                                         colours.data(), overlaid + start);
        }
    });
}

}  // namespace actgrid
