// Vectors of the register width of the instruction set, in the vector types of GCC and Clang.
#pragma once

#include <array>
#include <utility>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "../dtype.hpp"
#include "kernels.hpp"

#ifndef ACTGRID_VARIANT
#error "ACTGRID_VARIANT must be the name of the variant to compile"
#endif

namespace actgrid::ACTGRID_VARIANT {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

/// Number of elements that are processed at once: the float32 capacity of a register.
constexpr int lanes = register_bytes / 4;

/// Returns the number of groups of `lanes` channels. The last group may overlap the group before.
static inline std::ptrdiff_t count_groups(std::ptrdiff_t channels) {
    return (channels + lanes - 1) / lanes;
}
/// Returns the index of the first channel of a group.
static inline std::ptrdiff_t get_first_channel(std::ptrdiff_t group, std::ptrdiff_t channels) {
    return group * lanes < channels - lanes ? group * lanes : channels - lanes;
}
constexpr std::ptrdiff_t max_groups = (max_part_channels + lanes - 1) / lanes;

template <class T, int N>
struct VectorType {
    // NOLINTNEXTLINE(modernize-use-using): GCC ignores the attribute in an alias.
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vector = typename VectorType<T, N>::type;

template <class V>
using Element = std::remove_cvref_t<decltype(V{}[0])>;

/// Number of registers that hold `lanes` numbers: 1 for 4-byte numbers, 2 for 8-byte numbers.
template <class Real>
constexpr int register_count = sizeof(Real) / 4;
template <class Real>
using Register = Vector<Real, lanes / register_count<Real>>;

/// The result of comparing two registers: integers of the same width, -1 for true, 0 for false.
template <class Real>
using Mask = Register<std::conditional_t<sizeof(Real) == 8, std::int64_t, std::int32_t>>;

/// Selects numbers by index from the concatenation of `a` and `b`, at most as many as `a` has.
template <class V, int... I>
static inline auto shuffle(V a, V b, std::integer_sequence<int, I...>) {
    using Selected = Vector<Element<V>, sizeof...(I)>;
#if defined(__clang__) || __GNUC__ >= 12
    return (Selected)__builtin_shufflevector(a, b, I...);
#else
    const V numbers = __builtin_shuffle(a, b, decltype(a == b){I...});
    Selected selected;
    std::memcpy(&selected, &numbers, sizeof selected);
    return selected;
#endif
}

/// Converts the elements of a vector to another type.
template <class To, class From>
static inline To convert(From from) {
    // For these conversions GCC generates code that is four times slower. The unmasked AVX-512
    // intrinsics cause warnings in the headers of GCC.
#ifdef __AVX512F__
    if constexpr (std::same_as<From, Vector<float, 8>> && std::same_as<To, Vector<double, 8>>)
        return _mm512_maskz_cvtps_pd(0xff, from);
    if constexpr (std::same_as<From, Vector<std::uint16_t, 16>>)
        return (To)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)from);
    if constexpr (std::same_as<From, Vector<std::uint8_t, 16>> && sizeof(To) == 64)
        return (To)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)from);
    if constexpr (std::same_as<From, Vector<std::int8_t, 16>> && sizeof(To) == 64)
        return (To)_mm512_maskz_cvtepi8_epi32(0xffff, (__m128i)from);
#endif
#ifdef __AVX2__
    if constexpr (std::same_as<From, Vector<float, 4>> && std::same_as<To, Vector<double, 4>>)
        return _mm256_cvtps_pd(from);
    if constexpr (std::same_as<From, Vector<std::uint16_t, 8>>)
        return (To)_mm256_cvtepu16_epi32((__m128i)from);
    if constexpr (std::same_as<From, Vector<std::uint8_t, 8>> && sizeof(To) == 32)
        return (To)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(std::bit_cast<long long>(from)));
    if constexpr (std::same_as<From, Vector<std::int8_t, 8>> && sizeof(To) == 32)
        return (To)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(std::bit_cast<long long>(from)));
#endif
#if !defined(__clang__) && __GNUC__ >= 12
    // GCC converts other vectors well only if they fill a register and double their width.
    using Number = Element<From>;
    constexpr int size = sizeof(From), count = size / sizeof(Number), full = 16 / sizeof(Number);
    if constexpr (sizeof(To) == 4 * size)
        return convert<To>(convert<Vector<std::int16_t, count>>(from));
    if constexpr (sizeof(To) == 2 * size && size < 16 &&
                  std::floating_point<Number> == std::floating_point<Element<To>>) {
        using Integer = std::conditional_t<size == 8, std::uint64_t, std::uint32_t>;
        const Vector<Integer, 16 / size> filled{std::bit_cast<Integer>(from)};
        const auto wide = __builtin_convertvector(std::bit_cast<Vector<Number, full>>(filled),
                                                  Vector<Element<To>, full>);
        return shuffle(wide, wide, std::make_integer_sequence<int, count>{});
    }
#endif
    return __builtin_convertvector(from, To);
}

/// Converts the bits of bfloat16 numbers to float32: they are the upper half of its bits.
template <class Floats, class Bits>
static inline Floats convert_bfloat16(Bits bits) {
#ifdef __AVX512BW__
    if constexpr (sizeof(Bits) == 32) {
        const auto indices = (__m512i)Vector<std::uint16_t, 32>{
            0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
            0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
        const __m512i wide = _mm512_castsi256_si512((__m256i)bits);
        return (Floats)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, indices, wide);
    }
#endif
    return std::bit_cast<Floats>(convert<Vector<std::uint32_t, sizeof(Bits) / 2>>(bits) << 16);
}

#ifdef __F16C__
/// Hides the origin of numbers from Clang, which would otherwise compare the original float16
/// numbers one by one.
template <class V>
static inline V hide_origin(V numbers) {
#ifdef __clang__
    asm("" : "+v"(numbers));
#endif
    return numbers;
}
#endif

/// Converts the bits of float16 numbers to float32.
template <class Floats, class Bits>
static inline Floats convert_float16(Bits bits) {
#ifdef __AVX512F__
    if constexpr (sizeof(Bits) == 32)
        return hide_origin(_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits));
#endif
#ifdef __F16C__
    if constexpr (sizeof(Bits) == 16) return hide_origin(_mm256_cvtph_ps((__m128i)bits));
#endif
    return widen_float16<Floats>(convert<Vector<std::uint32_t, sizeof(Bits) / 2>>(bits));
}

/// Returns a * b + c, rounded once for float64 where the instruction set has such an instruction.
template <class V>
static inline V multiply_add(V a, V b, V c) {
#if defined(__AVX512F__)
    if constexpr (std::same_as<V, Register<double>>) return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    if constexpr (std::same_as<V, Register<double>>) return _mm256_fmadd_pd(a, b, c);
#endif
    return a * b + c;
}

/// Concatenates two vectors.
template <class V, int... I>
static inline auto concatenate(V a, V b, std::integer_sequence<int, I...>) {
    using Concatenated = Vector<Element<V>, sizeof...(I)>;
#if defined(__clang__) || __GNUC__ >= 12
    return (Concatenated)__builtin_shufflevector(a, b, I...);
#else
    return std::bit_cast<Concatenated>(std::array<V, 2>{a, b});
#endif
}
template <class V>
static inline auto concatenate(V a, V b) {
    return concatenate(a, b, std::make_integer_sequence<int, 2 * sizeof(V) / sizeof(Element<V>)>{});
}

/// Converts the first (`half` = 0) or second half of a register of floats to doubles.
template <int... I>
static inline Register<double> widen_half_register(Register<float> from, int half,
                                                   std::integer_sequence<int, I...>) {
    const auto numbers =
        half == 0 ? shuffle(from, from, std::integer_sequence<int, I...>{})
                  : shuffle(from, from, std::integer_sequence<int, (I + lanes / 2)...>{});
    return convert<Register<double>>(numbers);
}
static inline Register<double> widen_half_register(Register<float> from, int half) {
    return widen_half_register(from, half, std::make_integer_sequence<int, lanes / 2>{});
}

/// Loads N contiguous elements and converts them to floating-point numbers.
template <class Real, class T, int N>
static inline Vector<Real, N> load_vector(const std::byte* address) {
    using Reals = Vector<Real, N>;
    if constexpr (std::same_as<T, Float16> || std::same_as<T, BFloat16>) {
        using Floats = Vector<float, N>;
        const auto bits = load<Vector<std::uint16_t, N>>(address);
        if constexpr (std::same_as<T, Float16>)
            return convert<Reals>(convert_float16<Floats>(bits));
        else
            return convert<Reals>(convert_bfloat16<Floats>(bits));
    } else if constexpr (sizeof(T) < 4) {
        // All instruction sets can convert 32-bit integers to floats. Few can convert smaller ones.
        return convert<Reals>(convert<Vector<std::int32_t, N>>(load<Vector<T, N>>(address)));
    } else {
        return convert<Reals>(load<Vector<T, N>>(address));
    }
}

/// Loads register number `reg` of `lanes` contiguous elements, converted to floating-point numbers.
template <class Real, class T>
static inline Register<Real> load_register(const std::byte* address, int reg) {
    constexpr int n = lanes / register_count<Real>;
    return load_vector<Real, T, n>(address + reg * n * static_cast<int>(sizeof(T)));
}

/// Returns numbers, or `top` where they exceed it. NaN is kept.
template <class Real>
static inline Register<Real> limit(Register<Real> numbers, Register<Real> top) {
    // GCC compiles the generic code to a comparison and a selection, which are slower.
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == 4)
        return _mm512_maskz_min_ps(0xffff, top, numbers);
    else
        return _mm512_maskz_min_pd(0xff, top, numbers);
#elif defined(__AVX2__)
    if constexpr (sizeof(Real) == 4)
        return _mm256_min_ps(top, numbers);
    else
        return _mm256_min_pd(top, numbers);
#elif defined(__SSE2__)
    if constexpr (sizeof(Real) == 4)
        return _mm_min_ps(top, numbers);
    else
        return _mm_min_pd(top, numbers);
#else
    return numbers > top ? top : numbers;
#endif
}

using Integers = Register<std::int32_t>;
using Bytes = Vector<std::uint8_t, register_bytes>;

#ifdef __SSE2__
/// Whether the conversion of a float to an integer is defined for NaN and for numbers that are too
/// small: both become the smallest integer.
constexpr bool converts_any_number = true;
#else
constexpr bool converts_any_number = false;
#endif

/// Converts four registers of integers to bytes: integers below 0 become 0, above 255 become 255.
/// The bytes of four lanes of `a`, `b`, `c` and `d` are followed by those of the next four lanes.
static inline Bytes pack_bytes(Integers a, Integers b, Integers c, Integers d) {
#if defined(__AVX512BW__)
    const auto low = _mm512_packs_epi32((__m512i)a, (__m512i)b);
    return (Bytes)_mm512_packus_epi16(low, _mm512_packs_epi32((__m512i)c, (__m512i)d));
#elif defined(__AVX2__)
    const auto low = _mm256_packs_epi32((__m256i)a, (__m256i)b);
    return (Bytes)_mm256_packus_epi16(low, _mm256_packs_epi32((__m256i)c, (__m256i)d));
#elif defined(__SSE2__)
    const auto low = _mm_packs_epi32((__m128i)a, (__m128i)b);
    return (Bytes)_mm_packus_epi16(low, _mm_packs_epi32((__m128i)c, (__m128i)d));
#else
    const auto clip = [](Integers numbers) {
        const Integers zero{}, top = zero + 255;
        const Integers positive = numbers > zero ? numbers : zero;
        return convert<Vector<std::uint8_t, lanes>>(positive < top ? positive : top);
    };
    return concatenate(concatenate(clip(a), clip(b)), concatenate(clip(c), clip(d)));
#endif
}

// Selects, for every block of four 32-bit numbers, four of the eight numbers in that block of `a`
// (indices 0 to 3) and of `b` (indices 4 to 7).
template <int i0, int i1, int i2, int i3, class V, int... I>
static inline V shuffle_blocks(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int indices[] = {i0, i1, i2, i3};
    return shuffle(a, b,
                   std::integer_sequence<int, (I / 4 * 4 + indices[I % 4] % 4 +
                                               (indices[I % 4] < 4 ? 0 : lanes))...>{});
}
template <int i0, int i1, int i2, int i3, class V>
static inline V shuffle_blocks(V a, V b) {
    return shuffle_blocks<i0, i1, i2, i3>(a, b, std::make_integer_sequence<int, lanes>{});
}

/// Transposes every block of 4 x 4 bytes.
template <int... I>
static inline Bytes transpose_bytes(Bytes bytes, std::integer_sequence<int, I...>) {
    if constexpr (register_bytes == 16) {
        // Interleaving the halves of a register twice needs SSE2 only.
        const Bytes once =
            shuffle(bytes, bytes, std::integer_sequence<int, (I / 2 + I % 2 * 8)...>{});
        return shuffle(once, once, std::integer_sequence<int, (I / 2 + I % 2 * 8)...>{});
    } else {
        return shuffle(bytes, bytes,
                       std::integer_sequence<int, (I / 16 * 16 + I % 4 * 4 + I / 4 % 4)...>{});
    }
}
static inline Bytes transpose_bytes(Bytes bytes) {
    return transpose_bytes(bytes, std::make_integer_sequence<int, register_bytes>{});
}

}  // namespace actgrid::ACTGRID_VARIANT
