// Kernel of the checksum Adler-32, a loop over bytes that the compiler vectorizes.
#pragma once

#include "kernels.hpp"

namespace actgrid::ACTGRID_VARIANT {

static ByteSums sum_bytes(const std::uint8_t* bytes, std::uint32_t size) {
    std::uint32_t sum = 0, weighted_sum = 0;
    for (std::uint32_t i = 0; i < size; ++i) {
        sum += bytes[i];
        weighted_sum += (size - i) * bytes[i];
    }
    return {sum, weighted_sum};
}

}  // namespace actgrid::ACTGRID_VARIANT
