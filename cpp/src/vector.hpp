// Four neighbouring elements at a time, in the compilers' portable vector types.
#pragma once

#include "dtype.hpp"

namespace actgrid {

template <class T, int N>
struct VectorType {
    typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N>
using Vector = typename VectorType<T, N>::type;

/// Elements handled together: a 128-bit register of float32, which every target has.
constexpr std::ptrdiff_t lanes = 4;

/// Four neighbouring elements as numbers.
template <class Real, class T>
inline Vector<Real, lanes> load_lanes(const std::byte* address) {
    if constexpr (std::same_as<T, Half> || std::same_as<T, BFloat>) {
        const auto part = [&](std::ptrdiff_t lane) {
            return widen<Real>(load<T>(address + lane * static_cast<std::ptrdiff_t>(sizeof(T))));
        };
        return Vector<Real, lanes>{part(0), part(1), part(2), part(3)};
    } else {
        return __builtin_convertvector((load<Vector<T, lanes>>(address)), Vector<Real, lanes>);
    }
}

}  // namespace actgrid
