// Conversion of array elements of every DType to floating-point numbers.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "actgrid/tiles.hpp"

namespace actgrid {

struct Float16 {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};

/// Element types that can hold NaN and infinities.
template <class T>
concept Floating = std::floating_point<T> || std::same_as<T, Float16> || std::same_as<T, BFloat16>;

/// The type in which levels are computed: float64 for 64-bit elements, float32 for all others.
template <class T>
using PaintReal = std::conditional_t<sizeof(T) == 8, double, float>;

/// The smallest type, float32 or float64, that represents every value of an element type exactly,
/// except 64-bit integers, which are rounded to float64.
template <class T>
using ExactReal = std::conditional_t<sizeof(T) <= 2 || std::same_as<T, float>, float, double>;

// All functions here are static, so that each variant of the kernels compiles its own copy. For an
// inline function with external linkage, the linker keeps one arbitrary copy, which might contain
// instructions that this processor lacks.

/// Reads a value from memory that may be unaligned.
template <class T>
static inline T load(const std::byte* address) {
    T value;
    std::memcpy(&value, address, sizeof value);
    return value;
}

/// Converts float16 bits, held in 32-bit integers (a scalar or a vector), to float32. Shifting
/// exponent and mantissa to their float32 positions gives a number that is too small by a factor of
/// 2^112, for subnormals too. Infinities and NaN are then given the largest exponent.
template <class Real, class Bits>
static inline Real widen_float16(Bits bits) {
    const Bits magnitude = (bits & 0x7fff) << 13;
    const Bits scaled = std::bit_cast<Bits>(std::bit_cast<Real>(magnitude) * 0x1p112f);
    const Bits special = magnitude >= 0x0f800000u ? Bits{} + 0x7f800000u : Bits{};
    return std::bit_cast<Real>(scaled | special | (bits & 0x8000) << 16);
}

/// Converts an element to a floating-point number.
template <class Real, class T>
static inline Real widen(T value) {
    if constexpr (std::same_as<T, BFloat16>) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
    } else if constexpr (std::same_as<T, Float16>) {
        return widen_float16<float>(std::uint32_t{value.bits});
    } else {
        return static_cast<Real>(value);
    }
}

/// Calls `action` with a zero of the C++ type that corresponds to `dtype`.
template <class Action>
static inline void dispatch_dtype(DType dtype, const Action& action) {
    switch (dtype) {
        case DType::float16:
            return action(Float16{});
        case DType::bfloat16:
            return action(BFloat16{});
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
