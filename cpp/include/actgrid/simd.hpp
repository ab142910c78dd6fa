#pragma once

#include <string>
#include <vector>

namespace actgrid {

/// The variants of the kernels that this processor can run, the fastest last: "sse2", "avx2" and
/// "avx512" on x86-64, "neon" on 64-bit ARM, "generic" elsewhere.
std::vector<std::string> simd_variants();

/// The variant in use: the fastest, unless another was chosen or ACTGRID_SIMD in the environment
/// names one that there is.
std::string simd_variant();

/// Chooses a variant for all calls from now on. Throws std::invalid_argument if it is none of
/// simd_variants().
void use_simd_variant(const std::string& name);

}  // namespace actgrid
