#include "pack.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "dtype.hpp"
#include "kernels/kernels.hpp"

namespace actgrid {
namespace {

struct Axis {
    std::ptrdiff_t count, stride;
};

// Copies elements to contiguous memory. The inner axis varies fastest.
template <class T>
void copy_elements(const std::byte* from, Axis outer, Axis middle, Axis inner, std::byte* to) {
    for (std::ptrdiff_t i = 0; i < outer.count; ++i) {
        for (std::ptrdiff_t j = 0; j < middle.count; ++j) {
            const std::byte* element = from + i * outer.stride + j * middle.stride;
            for (std::ptrdiff_t k = 0; k < inner.count; ++k, element += inner.stride) {
                const T value = load<T>(element);
                std::memcpy(to, &value, sizeof value);
                to += sizeof value;
            }
        }
    }
}

}  // namespace

Tiles pack(const Tiles& tiles) {
    Tiles packed = tiles;
    dispatch_dtype(tiles.dtype, [&]<class T>(T) {
        constexpr std::ptrdiff_t size = sizeof(T);
        const std::ptrdiff_t pixel_stride =
            tiles.width > 1 ? tiles.column_stride : tiles.row_stride;
        const bool has_enough_channels = tiles.channels >= min_interleaved_channels;
        const bool is_dense = pixel_stride == tiles.channels * size;  // no gap between pixels
        if (((has_enough_channels || is_dense) && tiles.channel_stride == size) ||
            pixel_stride == size)
            return;

        static thread_local std::vector<std::byte> buffer;
        buffer.resize(std::max(buffer.size(),
                               static_cast<std::size_t>(tiles.channels * tiles.pixels() * size)));
        packed.data = buffer.data();
        const Axis channels{tiles.channels, tiles.channel_stride};
        const Axis rows{tiles.height, tiles.row_stride}, columns{tiles.width, tiles.column_stride};
        if (has_enough_channels && std::abs(tiles.channel_stride) < std::abs(pixel_stride)) {
            copy_elements<T>(tiles.data, rows, columns, channels, buffer.data());
            packed.channel_stride = size;
            packed.column_stride = tiles.channels * size;
            packed.row_stride = tiles.width * packed.column_stride;
        } else {
            copy_elements<T>(tiles.data, channels, rows, columns, buffer.data());
            packed.column_stride = size;
            packed.row_stride = tiles.width * size;
            packed.channel_stride = tiles.pixels() * size;
        }
    });
    return packed;
}

}  // namespace actgrid
