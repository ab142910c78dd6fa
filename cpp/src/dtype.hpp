// Reading elements of every DType as numbers.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "actgrid/tiles.hpp"

namespace actgrid {

struct Half {
    std::uint16_t bits;
};
struct BFloat {
    std::uint16_t bits;
};

/// Element types that can hold NaN and infinities.
template <class T>
concept Floating = std::floating_point<T> || std::same_as<T, Half> || std::same_as<T, BFloat>;

/// The type to draw in: float64 for 64-bit elements, float32 for all others.
template <class T>
using Drawn = std::conditional_t<sizeof(T) == 8, double, float>;

template <class Real, class T>
inline Real widen(T value) {
    if constexpr (std::same_as<T, BFloat>) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
    } else if constexpr (std::same_as<T, Half>) {
        // Exponent and mantissa moved to float32's places are 2^112 too small, subnormals too;
        // infinities and NaN then need the largest exponent. No branch, so that it vectorises.
        const std::uint32_t magnitude = static_cast<std::uint32_t>(value.bits & 0x7fff) << 13;
        const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000) << 16;
        const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
        const std::uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
    } else {
        return static_cast<Real>(value);
    }
}

/// Reads from memory that may be unaligned.
template <class T>
inline T load(const std::byte* address) {
    T value;
    std::memcpy(&value, address, sizeof value);
    return value;
}

/// Calls action with a value of the element type that `dtype` names.
template <class Action>
void with_element_type(DType dtype, const Action& action) {
    switch (dtype) {
        case DType::float16:
            return action(Half{});
        case DType::bfloat16:
            return action(BFloat{});
        case DType::float32:
            return action(float{});
        case DType::float64:
            return action(double{});
        case DType::int8:
            return action(std::int8_t{});
        case DType::int16:
            return action(std::int16_t{});
        case DType::int32:
            return action(std::int32_t{});
        case DType::int64:
            return action(std::int64_t{});
        case DType::uint8:
            return action(std::uint8_t{});
        case DType::uint16:
            return action(std::uint16_t{});
        case DType::uint32:
            return action(std::uint32_t{});
        case DType::uint64:
            return action(std::uint64_t{});
    }
}

}  // namespace actgrid
