// Compiled once for each instruction set, each time with another ACTGRID_VARIANT.
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
    [](const Tiles& part, const double* pivots, const Totals& totals) {
        with_element_type(part.dtype, [&]<class T>(T) { measure<T>(part, pivots, totals); });
    },
    [](const Tiles& part, const Target* targets) {
        with_element_type(part.dtype, [&]<class T>(T) { paint<T>(part, targets); });
    },
    &count_symbols,
    &put_symbols,
    &filter_paeth,
    &resize_row,
    &overlay_row,
};

}  // namespace actgrid::ACTGRID_VARIANT
