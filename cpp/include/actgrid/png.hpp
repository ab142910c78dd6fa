#pragma once

#include <cstddef>
#include <cstdint>

namespace actgrid {

/// Size and Adler-32 checksum (RFC 1950) of compressed rows. The checksum is that of the rows after
/// filtering and before compression.
struct CompressedRows {
    std::size_t size;
    std::uint32_t adler32;
};

/// Filters and compresses rows of 8-bit pixels, each after a byte for the filter type, as in PNG
/// image data (https://www.w3.org/TR/png-3/, sections 9 and 10). All rows get the filter that
/// compresses a sample of them best: none, "sub" or "Paeth". The data are a raw deflate stream, see
/// `deflate`, of at most `deflate_capacity(height * stride)` bytes. `stride` is the number of bytes
/// of a row.
CompressedRows compress_rows(const std::uint8_t* rows, std::ptrdiff_t height, std::ptrdiff_t stride,
                             bool last, std::uint8_t* out);

}  // namespace actgrid
