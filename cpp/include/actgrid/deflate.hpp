#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Room that `deflate` needs for its output.
std::size_t deflate_capacity(std::size_t size);

/// Writes data as raw deflate (RFC 1951) and returns how many bytes that took. The only matches
/// are runs of one byte: of drawn levels, which are noise between flat areas, a search for others
/// finds next to nothing. Without `last` the output ends at a whole byte for more to follow.
std::size_t deflate(const std::uint8_t* data, std::size_t size, bool last, std::uint8_t* out);

/// About how many bytes `deflate` would take, by how often each symbol occurs: much faster.
std::size_t estimate_deflated(const std::uint8_t* data, std::size_t size);

}  // namespace actgrid
