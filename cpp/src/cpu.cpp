#include "actgrid/cpu.hpp"

namespace actgrid {

std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    // The builtin takes literals only.
    if (__builtin_cpu_supports("sse2")) found.emplace_back("sse2");
    if (__builtin_cpu_supports("avx")) found.emplace_back("avx");
    if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
    if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
    if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512f");
    if (__builtin_cpu_supports("avx512bw")) found.emplace_back("avx512bw");
#elif defined(__x86_64__) || defined(_M_X64)
    found.emplace_back("sse2");
#elif defined(__aarch64__) || defined(_M_ARM64)
    found.emplace_back("neon");
#endif
    return found;
}

}  // namespace actgrid
