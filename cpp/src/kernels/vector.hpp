// Registers of the instruction set being compiled for, in the compilers' portable vector types.
#pragma once

#include <array>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "../dtype.hpp"
#include "kernels.hpp"

#ifndef ACTGRID_VARIANT
#error "ACTGRID_VARIANT names the variant that this is compiled for"
#endif

namespace actgrid::ACTGRID_VARIANT {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

/// Elements handled together: as many as a register has float32.
constexpr int lanes = register_bytes / 4;

/// Neighbouring channels are taken in groups of `lanes`; the last one may overlap the one before.
static inline std::ptrdiff_t group_count(std::ptrdiff_t channels) {
    return (channels + lanes - 1) / lanes;
}
static inline std::ptrdiff_t first_channel(std::ptrdiff_t group, std::ptrdiff_t channels) {
    return group * lanes < channels - lanes ? group * lanes : channels - lanes;
}
constexpr std::ptrdiff_t most_groups = (most_channels + lanes - 1) / lanes;

template <class T, int N>
struct VectorType {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vector = typename VectorType<T, N>::type;

template <class V>
using Element = std::remove_cvref_t<decltype(V{}[0])>;

/// `lanes` numbers of 4 bytes take one register, of 8 bytes two.
template <class Real>
constexpr int parts = sizeof(Real) / 4;
template <class Real>
using Register = Vector<Real, lanes / parts<Real>>;

/// Integers as wide as a float: what comparing yields.
template <class Real>
using Truth = Register<std::conditional_t<sizeof(Real) == 8, std::int64_t, std::int32_t>>;

/// The numbers of `a`, then of `b`, at these positions, at most as many as `a` has.
template <class V, int... I>
static inline auto shuffle(V a, V b, std::integer_sequence<int, I...>) {
    using Picked = Vector<Element<V>, sizeof...(I)>;
#if defined(__clang__) || __GNUC__ >= 12
    return (Picked)__builtin_shufflevector(a, b, I...);
#else
    const V numbers = __builtin_shuffle(a, b, decltype(a == b){I...});
    Picked picked;
    std::memcpy(&picked, &numbers, sizeof picked);
    return picked;
#endif
}

/// The same numbers in another type.
template <class To, class From>
static inline To convert(From from) {
    // Where GCC would take registers apart: four times slower. The masked forms are for GCC too,
    // which warns of the others in its own headers.
#ifdef __AVX512F__
    if constexpr (std::same_as<From, Vector<float, 8>> && std::same_as<To, Vector<double, 8>>)
        return _mm512_maskz_cvtps_pd(0xff, from);
    if constexpr (std::same_as<From, Vector<std::uint16_t, 16>>)
        return (To)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)from);
#endif
#ifdef __AVX2__
    if constexpr (std::same_as<To, Vector<std::uint8_t, 8>>) {
        const __m128i low = _mm256_castsi256_si128((__m256i)from);
        const __m128i words = _mm_packs_epi32(low, _mm256_extracti128_si256((__m256i)from, 1));
        return (To)_mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    }
    if constexpr (std::same_as<From, Vector<float, 4>> && std::same_as<To, Vector<double, 4>>)
        return _mm256_cvtps_pd(from);
    if constexpr (std::same_as<From, Vector<std::uint16_t, 8>>)
        return (To)_mm256_cvtepu16_epi32((__m128i)from);
#endif
#if !defined(__clang__) && __GNUC__ >= 12
    // Of other vectors GCC widens those that fill a register, to twice the width.
    using Number = Element<From>;
    constexpr int size = sizeof(From), count = size / sizeof(Number), full = 16 / sizeof(Number);
    if constexpr (sizeof(To) == 4 * size)
        return convert<To>(convert<Vector<std::int16_t, count>>(from));
    if constexpr (sizeof(To) == 2 * size && size < 16 &&
                  std::floating_point<Number> == std::floating_point<Element<To>>) {
        using Whole = std::conditional_t<size == 8, std::uint64_t, std::uint32_t>;
        const Vector<Whole, 16 / size> filled{std::bit_cast<Whole>(from)};
        const auto wide = __builtin_convertvector(std::bit_cast<Vector<Number, full>>(filled),
                                                  Vector<Element<To>, full>);
        return shuffle(wide, wide, std::make_integer_sequence<int, count>{});
    }
#endif
    return __builtin_convertvector(from, To);
}

/// bfloat16 numbers, given as their bits, as float32: the upper half of those bits.
template <class Floats, class Bits>
static inline Floats convert_bfloat(Bits bits) {
#ifdef __AVX512BW__
    if constexpr (sizeof(Bits) == 32) {
        const auto places = (__m512i)Vector<std::uint16_t, 32>{0, 0,  0, 1,  0, 2,  0, 3,  0, 4, 0,
                                                               5, 0,  6, 0,  7, 0,  8, 0,  9, 0, 10,
                                                               0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
        const __m512i wide = _mm512_castsi256_si512((__m256i)bits);
        return (Floats)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, places, wide);
    }
#endif
    return std::bit_cast<Floats>(convert<Vector<std::uint32_t, sizeof(Bits) / 2>>(bits) << 16);
}

#ifdef __F16C__
/// Hides from Clang where numbers come from: rather than these it would compare the float16 ones,
/// one by one.
template <class V>
static inline V hide_origin(V numbers) {
#ifdef __clang__
    asm("" : "+v"(numbers));
#endif
    return numbers;
}
#endif

/// float16 numbers, given as their bits, as float32.
template <class Floats, class Bits>
static inline Floats convert_half(Bits bits) {
#ifdef __AVX512F__
    if constexpr (sizeof(Bits) == 32)
        return hide_origin(_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits));
#endif
#ifdef __F16C__
    if constexpr (sizeof(Bits) == 16) return hide_origin(_mm256_cvtph_ps((__m128i)bits));
#endif
    return widen_half<Floats>(convert<Vector<std::uint32_t, sizeof(Bits) / 2>>(bits));
}

/// Two registers of doubles as one of floats.
static inline Register<float> narrow(const Register<double> (&wide)[2]) {
    using Part = Vector<float, lanes / 2>;
    const std::array<Part, 2> halves{convert<Part>(wide[0]), convert<Part>(wide[1])};
    return std::bit_cast<Register<float>>(halves);
}

/// The numbers of `a`, then those of `b`.
template <class V, int... I>
static inline auto join(V a, V b, std::integer_sequence<int, I...>) {
    using Joined = Vector<Element<V>, sizeof...(I)>;
#if defined(__clang__) || __GNUC__ >= 12
    return (Joined)__builtin_shufflevector(a, b, I...);
#else
    return std::bit_cast<Joined>(std::array<V, 2>{a, b});
#endif
}
template <class V>
static inline auto join(V a, V b) {
    return join(a, b, std::make_integer_sequence<int, 2 * sizeof(V) / sizeof(Element<V>)>{});
}

/// A half of a register of floats, the first or the second, as doubles.
template <int... I>
static inline Register<double> widen_part(Register<float> from, int part,
                                          std::integer_sequence<int, I...>) {
    const auto numbers =
        part == 0 ? shuffle(from, from, std::integer_sequence<int, I...>{})
                  : shuffle(from, from, std::integer_sequence<int, (I + lanes / 2)...>{});
    return convert<Register<double>>(numbers);
}
static inline Register<double> widen_part(Register<float> from, int part) {
    return widen_part(from, part, std::make_integer_sequence<int, lanes / 2>{});
}

/// N neighbouring elements as numbers.
template <class Real, class T, int N>
static inline Vector<Real, N> load_vector(const std::byte* address) {
    using Reals = Vector<Real, N>;
    if constexpr (std::same_as<T, Half> || std::same_as<T, BFloat>) {
        using Floats = Vector<float, N>;
        const auto bits = load<Vector<std::uint16_t, N>>(address);
        if constexpr (std::same_as<T, Half>)
            return convert<Reals>(convert_half<Floats>(bits));
        else
            return convert<Reals>(convert_bfloat<Floats>(bits));
    } else if constexpr (sizeof(T) < 4) {
        // By way of 32 bits, the only integers that every target converts.
        return convert<Reals>(convert<Vector<std::int32_t, N>>(load<Vector<T, N>>(address)));
    } else {
        return convert<Reals>(load<Vector<T, N>>(address));
    }
}

/// One part of `lanes` neighbouring elements, as numbers.
template <class Real, class T>
static inline Register<Real> load_part(const std::byte* address, int part) {
    constexpr int n = lanes / parts<Real>;
    return load_vector<Real, T, n>(address + part * n * static_cast<int>(sizeof(T)));
}

// From every block of four 32-bit numbers of `a` and of `b`: two of each.
template <int a0, int a1, int a2, int a3, class V, int... I>
static inline V pick(V a, V b, std::integer_sequence<int, I...>) {
    constexpr int from[] = {a0, a1, a2, a3};
    // 0 to 3 are of a, 4 to 7 of b.
    return shuffle(a, b,
                   std::integer_sequence<int, (I / 4 * 4 + from[I % 4] % 4 +
                                               (from[I % 4] < 4 ? 0 : lanes))...>{});
}
template <int a0, int a1, int a2, int a3, class V>
static inline V pick(V a, V b) {
    return pick<a0, a1, a2, a3>(a, b, std::make_integer_sequence<int, lanes>{});
}

}  // namespace actgrid::ACTGRID_VARIANT
