// The input of the core: a view of the caller's memory as channels x slices x height x width.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Element types. Boolean arrays are read as uint8.
enum class DType {
    float16,
    bfloat16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
};

/// A strided view of tiles. Strides are in bytes and may be negative, zero or unaligned.
struct Tiles {
    const std::byte* data;
    DType dtype;
    std::ptrdiff_t channels, slices, height, width;
    std::ptrdiff_t channel_stride, slice_stride, row_stride, column_stride;

    std::ptrdiff_t count() const { return channels * slices; }
    std::ptrdiff_t pixels() const { return height * width; }

    /// Returns the index of a tile in arrays with one entry per tile, ordered channel by channel.
    std::ptrdiff_t index(std::ptrdiff_t channel, std::ptrdiff_t slice) const {
        return channel * slices + slice;
    }
    /// Returns the address of the first element of a tile.
    const std::byte* tile(std::ptrdiff_t channel, std::ptrdiff_t slice) const {
        return data + channel * channel_stride + slice * slice_stride;
    }
};

}  // namespace actgrid
