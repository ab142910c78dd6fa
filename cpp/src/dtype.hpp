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

/// A type that holds every value of an element: float32 where it can.
template <class T>
using Exact = std::conditional_t<sizeof(T) <= 2 || std::same_as<T, float>, float, double>;

// Functions here are static: each variant of the kernels compiles its own. Of a function that
// they shared the linker would keep any one, and it might need a newer processor.

/// Reads from memory that may be unaligned.
template <class T>
static inline T load(const std::byte* address) {
    T value;
    std::memcpy(&value, address, sizeof value);
    return value;
}

/// float16 as float32, of one number's bits in 32, or of a vector's. Exponent and mantissa moved
/// to float32's places are 2^112 too small, subnormals too; infinities and NaN then need the
/// largest exponent.
template <class Real, class Bits>
static inline Real widen_half(Bits bits) {
    const Bits magnitude = (bits & 0x7fff) << 13;
    const Bits scaled = std::bit_cast<Bits>(std::bit_cast<Real>(magnitude) * 0x1p112f);
    const Bits special = magnitude >= 0x0f800000u ? Bits{} + 0x7f800000u : Bits{};
    return std::bit_cast<Real>(scaled | special | (bits & 0x8000) << 16);
}

template <class Real, class T>
static inline Real widen(T value) {
    if constexpr (std::same_as<T, BFloat>) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
    } else if constexpr (std::same_as<T, Half>) {
        return widen_half<float>(std::uint32_t{value.bits});
    } else {
        return static_cast<Real>(value);
    }
}

/// Calls action with a value of the element type that `dtype` names.
template <class Action>
static inline void with_element_type(DType dtype, const Action& action) {
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
