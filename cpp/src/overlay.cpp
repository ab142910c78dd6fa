#include "actgrid/overlay.hpp"

#include <algorithm>
#include <vector>

#include "kernels/kernels.hpp"
#include "split.hpp"

namespace actgrid {
namespace {

// The neighbours of each pixel along an axis that goes from one number of pixels to another.
class Axis {
  public:
    Axis(std::ptrdiff_t from, std::ptrdiff_t to)
        : first_(static_cast<std::size_t>(to)),
          second_(first_),
          end_(first_),
          part_(first_.size()) {
        // A pixel's centre, i + 0.5, lies at (i + 0.5) * from / to - 0.5: in 2 * to-ths, exactly.
        const std::ptrdiff_t whole = 2 * to;
        for (std::ptrdiff_t i = to - 1; i >= 0; --i) {
            const std::ptrdiff_t at =
                std::clamp<std::ptrdiff_t>((2 * i + 1) * from - to, 0, (from - 1) * whole);
            const auto place = static_cast<std::size_t>(i);
            first_[place] = static_cast<std::int32_t>(at / whole);
            second_[place] = first_[place] + (at % whole != 0);
            const bool alike = i + 1 < to && first_[place] == first_[place + 1] &&
                               second_[place] == second_[place + 1];
            end_[place] = alike ? end_[place + 1] : static_cast<std::int32_t>(i + 1);
            part_[place] =
                static_cast<float>(static_cast<double>(at % whole) / static_cast<double>(whole));
        }
    }

    Neighbours all() const { return {first_.data(), second_.data(), end_.data(), part_.data()}; }

  private:
    std::vector<std::int32_t> first_, second_, end_;
    std::vector<float> part_;
};

// The rows of `count` pictures of this size as tiles, to be split into bands.
Tiles rows_of(std::ptrdiff_t count, std::ptrdiff_t height, std::ptrdiff_t width,
              const float* numbers = nullptr) {
    constexpr std::ptrdiff_t size = sizeof(float);
    const std::ptrdiff_t picture = height * width * size;
    return {reinterpret_cast<const std::byte*>(numbers),
            DType::float32,
            1,
            count,
            height,
            width,
            count * picture,
            picture,
            width * size,
            size};
}

// Resizes single rows.
class Resizer {
  public:
    Resizer(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width)
        : maps_(maps), width_(width), rows_(maps.height, height), columns_(maps.width, width) {}

    void row(std::ptrdiff_t map, std::ptrdiff_t y, float* mixed, float* resized) const {
        const float* values = maps_.values + map * maps_.height * maps_.width;
        const Neighbours rows = rows_.all();
        kernels().resize_row(values + rows.first[y] * maps_.width,
                             values + rows.second[y] * maps_.width, rows.part[y], maps_.width,
                             mixed, columns_.all(), width_, resized);
    }

  private:
    const Maps& maps_;
    std::ptrdiff_t width_;
    Axis rows_, columns_;
};

}  // namespace

void resize(const Maps& maps, std::ptrdiff_t height, std::ptrdiff_t width, float* resized,
            int threads) {
    const Resizer resizer(maps, height, width);
    const Tiles all = rows_of(maps.count, height, width);
    Split(all).for_parts(threads, [&](const Part& part) {
        std::vector<float> mixed(static_cast<std::size_t>(maps.width));
        for (std::ptrdiff_t y = part.row; y < part.row + part.tiles.height; ++y)
            resizer.row(part.slice, y, mixed.data(), resized + (part.slice * height + y) * width);
    });
}

void overlay(const Maps& map, const Colouring& colouring, const std::uint8_t* image,
             std::ptrdiff_t height, std::ptrdiff_t width, std::uint8_t* overlaid, int threads) {
    const Resizer resizer(map, height, width);
    // Colours are copied four bytes at a time.
    std::uint8_t palette[3 * 256 + 1] = {};
    std::copy_n(colouring.palette, 3 * 256, palette);
    const auto alpha = static_cast<float>(colouring.alpha);
    const Tiles all = rows_of(1, height, width);
    Split(all).for_parts(threads, [&](const Part& part) {
        const auto pixels = static_cast<std::size_t>(width);
        std::vector<float> mixed(static_cast<std::size_t>(map.width)), values(pixels);
        std::vector<std::uint8_t> levels(pixels), colours(3 * pixels + 1);
        const Tiles row = rows_of(1, 1, width, values.data());
        const Target target{colouring.shift, colouring.scale, colouring.base, levels.data(), width};
        for (std::ptrdiff_t y = part.row; y < part.row + part.tiles.height; ++y) {
            const std::ptrdiff_t start = 3 * width * y;
            resizer.row(0, y, mixed.data(), values.data());
            kernels().paint(row, &target);
            kernels().overlay_row(levels.data(), palette, alpha, image + start, width,
                                  colours.data(), overlaid + start);
        }
    });
}

}  // namespace actgrid
