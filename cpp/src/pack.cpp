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

// Copies elements along three axes, the last one fastest.
template <class T>
void copy(const std::byte* from, Axis outer, Axis middle, Axis inner, std::byte* to) {
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

Tiles packed(const Tiles& part) {
    Tiles ready = part;
    with_element_type(part.dtype, [&]<class T>(T) {
        constexpr std::ptrdiff_t size = sizeof(T);
        const std::ptrdiff_t step = part.width > 1 ? part.column_stride : part.row_stride;
        const bool many = part.channels >= least_channels;
        if ((many && part.channel_stride == size) || step == size) return;

        static thread_local std::vector<std::byte> memory;
        memory.resize(std::max(memory.size(),
                               static_cast<std::size_t>(part.channels * part.pixels() * size)));
        ready.data = memory.data();
        const Axis channels{part.channels, part.channel_stride};
        const Axis rows{part.height, part.row_stride}, columns{part.width, part.column_stride};
        if (many && std::abs(part.channel_stride) < std::abs(step)) {
            copy<T>(part.data, rows, columns, channels, memory.data());
            ready.channel_stride = size;
            ready.column_stride = part.channels * size;
            ready.row_stride = part.width * ready.column_stride;
        } else {
            copy<T>(part.data, channels, rows, columns, memory.data());
            ready.column_stride = size;
            ready.row_stride = part.width * size;
            ready.channel_stride = part.pixels() * size;
        }
    });
    return ready;
}

}  // namespace actgrid
