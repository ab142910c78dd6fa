// The kernels of one variant. CMake compiles this file once for each instruction set, with a
// different ACTGRID_VARIANT.
#include "checksum.hpp"
#include "deflate.hpp"
#include "filter.hpp"
#include "kernels.hpp"
#include "measure.hpp"
#include "overlay.hpp"
#include "paint.hpp"

#define ACTGRID_TEXT_OF(name) #name
#define ACTGRID_TEXT(name) ACTGRID_TEXT_OF(name)

namespace actgrid::ACTGRID_VARIANT {

extern const Kernels kernels;
const Kernels kernels{
    ACTGRID_TEXT(ACTGRID_VARIANT),
    [](const Tiles& tiles, const double* pivots, const Totals& totals) {
        dispatch_dtype(tiles.dtype, [&]<class T>(T) {
            if (pivots)
                measure<T, true>(tiles, pivots, totals);
            else
                measure<T, false>(tiles, pivots, totals);
        });
    },
    [](const Tiles& tiles, const TileTarget* targets) {
        dispatch_dtype(tiles.dtype, [&]<class T>(T) { paint<T>(tiles, targets); });
    },
    &count_symbols,
    &put_symbols,
    &sum_bytes,
    &filter_paeth,
    &resize_row,
    &overlay_row,
};

}  // namespace actgrid::ACTGRID_VARIANT
