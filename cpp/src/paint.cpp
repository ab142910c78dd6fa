#include "actgrid/paint.hpp"

#include <vector>

#include "kernels/kernels.hpp"
#include "pack.hpp"
#include "split.hpp"

namespace actgrid {

void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads) {
    const Kernels& kernel = kernels();
    Split(tiles).for_parts(threads, [&](const Part& part) {
        // What is not drawn is written too, row over row, to where nobody looks.
        std::vector<std::uint8_t> nowhere;
        Target targets[most_channels];
        bool any = false;
        for (std::ptrdiff_t c = 0; c < part.tiles.channels; ++c) {
            const std::ptrdiff_t i = tiles.index(part.channel + c, part.slice);
            targets[c] = {mapping.shift[i], mapping.scale[i], mapping.base[i], nullptr, 0};
            if (canvas.origin[i] >= 0) {
                targets[c].pixels = canvas.levels + canvas.origin[i] + part.row * canvas.stride;
                targets[c].stride = canvas.stride;
                any = true;
            } else {
                nowhere.resize(static_cast<std::size_t>(tiles.width));
                targets[c].pixels = nowhere.data();
            }
        }
        if (any) kernel.paint(packed(part.tiles), targets);
    });
}

}  // namespace actgrid
