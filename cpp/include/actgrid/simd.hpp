#pragma once

#include <string>
#include <vector>

namespace actgrid {

/// Returns the names of the kernel variants that this processor can run, from slowest to fastest:
/// "sse2", "avx2" and "avx512" on x86-64, "neon" on 64-bit ARM, "generic" elsewhere.
std::vector<std::string> simd_variants();

/// Returns the name of the active kernel variant. This is the fastest one, unless use_simd_variant
/// or the environment variable ACTGRID_SIMD selects another one.
std::string simd_variant();

/// Selects the kernel variant for all later calls. Throws std::invalid_argument if `name` is not in
/// simd_variants().
void use_simd_variant(const std::string& name);

}  // namespace actgrid
