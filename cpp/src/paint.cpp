#include "actgrid/paint.hpp"

#include <vector>

#include "kernels/kernels.hpp"
#include "pack.hpp"
#include "split.hpp"

namespace actgrid {

void paint(const Tiles& tiles, const Mapping& mapping, const Canvas& canvas, int threads) {
    const Kernels& kernels = active_kernels();
    Split(tiles).for_each_part(threads, [&](const Part& part) {
        // Kernels write every tile. The levels of a tile without an origin go to a row that is
        // overwritten by the next row (stride 0) and then discarded.
        std::vector<std::uint8_t> discarded_row;
        TileTarget targets[max_part_channels];
        bool has_drawn_tiles = false;
        for (std::ptrdiff_t c = 0; c < part.tiles.channels; ++c) {
            const std::ptrdiff_t i = tiles.index(part.first_channel + c, part.slice);
            targets[c] = {mapping.shift[i], mapping.scale[i], mapping.base[i], nullptr, 0};
            if (canvas.origin[i] >= 0) {
                targets[c].pixels =
                    canvas.levels + canvas.origin[i] + part.first_row * canvas.stride;
                targets[c].stride = canvas.stride;
                has_drawn_tiles = true;
            } else {
                discarded_row.resize(static_cast<std::size_t>(tiles.width));
                targets[c].pixels = discarded_row.data();
            }
        }
        if (has_drawn_tiles) kernels.paint(pack(part.tiles), targets);
    });
}

}  // namespace actgrid
