#include "actgrid/simd.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels/kernels.hpp"

namespace actgrid {

// One namespace for each compilation of kernels/variant.cpp.
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

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found{&ACTGRID_BASELINE::kernels};
#ifdef ACTGRID_X86_VARIANTS
    // What the build allows the compiler to use in each variant.
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::kernels);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&avx512::kernels);
#endif
    return found;
}

// The variant of this name; null if this processor has none.
const Kernels* find(const std::string& name) {
    for (const Kernels* variant : available())
        if (name == variant->name) return variant;
    return nullptr;
}

const Kernels* first_choice() {
    const char* wanted = std::getenv("ACTGRID_SIMD");
    const Kernels* found = wanted ? find(wanted) : nullptr;
    return found ? found : available().back();
}

std::atomic<const Kernels*>& in_use() {
    static std::atomic<const Kernels*> chosen{first_choice()};
    return chosen;
}

}  // namespace

const Kernels& kernels() { return *in_use().load(std::memory_order_relaxed); }

std::vector<std::string> simd_variants() {
    std::vector<std::string> names;
    for (const Kernels* variant : available()) names.emplace_back(variant->name);
    return names;
}

std::string simd_variant() { return kernels().name; }

void use_simd_variant(const std::string& name) {
    const Kernels* found = find(name);
    if (!found) throw std::invalid_argument("this processor has no " + name);
    in_use() = found;
}

}  // namespace actgrid
