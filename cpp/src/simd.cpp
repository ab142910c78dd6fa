#include "actgrid/simd.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels/kernels.hpp"

namespace actgrid {

// Each compilation of kernels/variant.cpp defines its kernels in a namespace of its own.
#define ACTGRID_DECLARE(variant)  \
    namespace variant {           \
    extern const Kernels kernels; \
    }
ACTGRID_DECLARE(ACTGRID_BASELINE)
#ifdef ACTGRID_X86_VARIANTS
ACTGRID_DECLARE(avx2)
ACTGRID_DECLARE(avx512)
#endif

namespace {

std::vector<const Kernels*> get_available_variants() {
    std::vector<const Kernels*> variants{&ACTGRID_BASELINE::kernels};
#ifdef ACTGRID_X86_VARIANTS
    // These are the instruction sets that CMakeLists.txt enables for each variant.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        variants.push_back(&avx2::kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        variants.push_back(&avx512::kernels);
#endif
    return variants;
}

// Returns the variant of this name, or null if it is not available on this processor.
const Kernels* find_variant(const std::string& name) {
    for (const Kernels* variant : get_available_variants())
        if (name == variant->name) return variant;
    return nullptr;
}

const Kernels* select_initial_variant() {
    const char* name = std::getenv("ACTGRID_SIMD");
    const Kernels* variant = name ? find_variant(name) : nullptr;
    return variant ? variant : get_available_variants().back();
}

std::atomic<const Kernels*>& active_variant() {
    static std::atomic<const Kernels*> variant{select_initial_variant()};
    return variant;
}

}  // namespace

const Kernels& active_kernels() { return *active_variant().load(std::memory_order_relaxed); }

std::vector<std::string> simd_variants() {
    std::vector<std::string> names;
    for (const Kernels* variant : get_available_variants()) names.emplace_back(variant->name);
    return names;
}

std::string simd_variant() { return active_kernels().name; }

void use_simd_variant(const std::string& name) {
    const Kernels* variant = find_variant(name);
    if (!variant) throw std::invalid_argument("this processor has no " + name);
    active_variant() = variant;
}

}  // namespace actgrid
