#include "actgrid/simd.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#ifdef ACTGRID_X86_VARIANTS
#include <cpuid.h>
#endif

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

#ifdef ACTGRID_X86_VARIANTS
struct InstructionSets {
    bool avx2 = false;
    bool avx512 = false;
};

// Returns which of the instruction sets that CMakeLists.txt enables for the variants the processor
// and the operating system support (Intel, Software Developer's Manual, volume 1, chapters 14 and
// 15). __builtin_cpu_supports needs a runtime library that clang-cl does not link.
InstructionSets detect_instruction_sets() {
    const auto contains = [](unsigned bits, unsigned required) {
        return (bits & required) == required;
    };
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return {};
    if (!contains(ecx, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return {};
    // The registers that the operating system saves when it switches threads.
    constexpr unsigned ymm_state = 0x06, zmm_state = 0xe6;
    unsigned saved, saved_high;
    __asm__("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return {};
    constexpr unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    InstructionSets supported;
    supported.avx2 = contains(saved, ymm_state) && contains(ebx, bit_AVX2 | bit_BMI2);
    supported.avx512 = supported.avx2 && contains(saved, zmm_state) && contains(ebx, avx512);
    return supported;
}
#endif

std::vector<const Kernels*> get_available_variants() {
    std::vector<const Kernels*> variants{&ACTGRID_BASELINE::kernels};
#ifdef ACTGRID_X86_VARIANTS
    static const InstructionSets supported = detect_instruction_sets();
    if (supported.avx2) variants.push_back(&avx2::kernels);
    if (supported.avx512) variants.push_back(&avx512::kernels);
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
    const char* name = std::getenv("ACTGRID_SIMD");  // NOLINT(concurrency-mt-unsafe)
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
