#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Returns the buffer size in bytes that `deflate` needs for `size` bytes of input.
std::size_t deflate_capacity(std::size_t size);

/// Compresses data as a raw deflate stream (RFC 1951) and returns the number of bytes written.
/// The only matches are runs of one byte value: painted levels are noise between flat areas, in
/// which a search for longer patterns saves almost nothing. If `last` is false, the output ends at
/// a byte boundary so that another stream can be appended.
std::size_t deflate(const std::uint8_t* data, std::size_t size, bool last, std::uint8_t* out);

/// Estimates the number of bytes that `deflate` would write, from the entropy of the symbols. This
/// is much faster than compressing.
std::size_t estimate_deflated(const std::uint8_t* data, std::size_t size);

}  // namespace actgrid
