// Tests of the C++ library against hand-computed values, for every memory layout and element type.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if __has_include(<sys/wait.h>)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "actgrid/deflate.hpp"
#include "actgrid/draw.hpp"
#include "actgrid/measure.hpp"
#include "actgrid/overlay.hpp"
#include "actgrid/paint.hpp"
#include "actgrid/percentiles.hpp"
#include "actgrid/png.hpp"
#include "actgrid/simd.hpp"
#include "pool.hpp"

namespace {

int failures = 0;

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            ++failures;                                                         \
        }                                                                       \
    } while (false)

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

bool is_near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance; }

// Memory layouts of a (channels, height, width) array. `reversed` is channels first, with negative
// strides.
enum class Layout { channels_last, channels_first, reversed };

template <class T>
struct StoredTiles {
    std::vector<T> values;
    actgrid::Tiles tiles;
};

template <class T, class Value>
StoredTiles<T> store_tiles(actgrid::DType dtype, Layout layout, std::ptrdiff_t channels,
                           std::ptrdiff_t height, std::ptrdiff_t width, const Value& value) {
    constexpr std::ptrdiff_t size = sizeof(T);
    StoredTiles<T> stored{std::vector<T>(static_cast<std::size_t>(channels * height * width)), {}};
    actgrid::Tiles& tiles = stored.tiles;
    tiles = {nullptr, dtype, channels, 1, height, width, 0, 0, 0, 0};
    if (layout == Layout::channels_last) {
        tiles.channel_stride = size;
        tiles.column_stride = channels * size;
        tiles.row_stride = width * tiles.column_stride;
    } else {
        tiles.column_stride = size;
        tiles.row_stride = width * size;
        tiles.channel_stride = height * tiles.row_stride;
    }
    const std::ptrdiff_t sign = layout == Layout::reversed ? -1 : 1;
    std::ptrdiff_t start = 0;
    for (auto [count, stride] :
         {std::pair{channels, &tiles.channel_stride}, std::pair{height, &tiles.row_stride},
          std::pair{width, &tiles.column_stride}}) {
        *stride *= sign;
        if (sign < 0) start -= (count - 1) * *stride;
    }
    tiles.data = reinterpret_cast<const std::byte*>(stored.values.data()) + start;
    for (std::ptrdiff_t c = 0; c < channels; ++c)
        for (std::ptrdiff_t y = 0; y < height; ++y)
            for (std::ptrdiff_t x = 0; x < width; ++x)
                stored.values[static_cast<std::size_t>((start + c * tiles.channel_stride +
                                                        y * tiles.row_stride +
                                                        x * tiles.column_stride) /
                                                       size)] = static_cast<T>(value(c, y, x));
    return stored;
}

struct Stats {
    double mean, std, min, max;
    std::int64_t zeros, nonfinite;
};

std::vector<Stats> measure_tiles(const actgrid::Tiles& tiles, int threads = 1) {
    const auto count = static_cast<std::size_t>(tiles.count());
    std::vector<double> mean(count), std(count), min(count), max(count);
    std::vector<std::int64_t> zeros(count), nonfinite(count);
    actgrid::measure(
        tiles, {mean.data(), std.data(), min.data(), max.data(), zeros.data(), nonfinite.data()},
        threads);
    std::vector<Stats> stats;
    stats.reserve(count);
    for (std::size_t i = 0; i < count; ++i)
        stats.push_back({mean[i], std[i], min[i], max[i], zeros[i], nonfinite[i]});
    return stats;
}

constexpr Layout layouts[] = {Layout::channels_last, Layout::channels_first, Layout::reversed};

// Channel c holds consecutive integers c, c + 1, ..., whose mean and variance have closed forms.
template <class T>
void test_measure_ramp(actgrid::DType dtype) {
    const std::ptrdiff_t height = 3, width = 5, n = height * width;
    for (Layout layout : layouts) {
        for (std::ptrdiff_t channels : {1, 3, 4, 11, 16, 17, 35}) {
            const auto stored =
                store_tiles<T>(dtype, layout, channels, height, width,
                               [&](auto c, auto y, auto x) { return c + y * width + x; });
            const auto stats = measure_tiles(stored.tiles);
            for (std::ptrdiff_t c = 0; c < channels; ++c) {
                const auto& s = stats[static_cast<std::size_t>(c)];
                const auto first = static_cast<double>(c);
                CHECK(is_near(s.mean, first + (n - 1) / 2.0, 1e-12));
                CHECK(is_near(s.std, std::sqrt((n * n - 1) / 12.0), 1e-12));
                CHECK(s.min == first && s.max == first + n - 1);
                CHECK(s.zeros == (c == 0) && s.nonfinite == 0);
            }
        }
    }
}

void test_measure_half_precision() {
    // float16: 1, -2, 65504 (the largest number), the smallest subnormal, infinity and NaN.
    const std::uint16_t float16_bits[] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00};
    const double values[] = {1, -2, 65504, 0x1p-24};
    for (Layout layout : layouts) {
        const auto stored =
            store_tiles<std::uint16_t>(actgrid::DType::float16, layout, 6, 2, 2,
                                       [&](auto c, auto, auto) { return float16_bits[c]; });
        const auto stats = measure_tiles(stored.tiles);
        for (std::size_t c = 0; c < 4; ++c)
            CHECK(stats[c].mean == values[c] && stats[c].std == 0 && stats[c].nonfinite == 0);
        CHECK(stats[4].nonfinite == 4 && stats[5].nonfinite == 4 && std::isnan(stats[4].mean));
        // bfloat16: 1, -2, infinity and NaN.
        const std::uint16_t bfloat16_bits[] = {0x3f80, 0xc000, 0x7f80, 0x7fc0};
        const auto bfloat16_tiles =
            store_tiles<std::uint16_t>(actgrid::DType::bfloat16, layout, 4, 2, 2,
                                       [&](auto c, auto, auto) { return bfloat16_bits[c]; });
        const auto bfloat16_stats = measure_tiles(bfloat16_tiles.tiles);
        CHECK(bfloat16_stats[0].mean == 1 && bfloat16_stats[1].mean == -2);
        CHECK(bfloat16_stats[2].nonfinite == 4 && bfloat16_stats[3].nonfinite == 4);
    }
}

void test_measure_large_mean() {
    // A million pixels of 1e4 +- 1e-2: half of them above the mean, half below.
    for (Layout layout : layouts) {
        const auto stored =
            store_tiles<double>(actgrid::DType::float64, layout, 4, 1000, 1000,
                                [](auto, auto, auto x) { return x % 2 ? 1e4 + 1e-2 : 1e4 - 1e-2; });
        for (const auto& s : measure_tiles(stored.tiles)) {
            CHECK(is_near(s.mean, 1e4, 1e-8));
            CHECK(is_near(s.std, 1e-2, 1e-10));
        }
    }
}

void test_measure_nonfinite() {
    const double values[] = {nan, 1, inf, 3, -inf, 0};
    for (Layout layout : layouts) {
        const auto stored =
            store_tiles<float>(actgrid::DType::float32, layout, 5, 2, 3,
                               [&](auto, auto y, auto x) { return values[y * 3 + x]; });
        for (const auto& s : measure_tiles(stored.tiles)) {
            CHECK(is_near(s.mean, 4.0 / 3, 1e-12) && is_near(s.std, std::sqrt(14.0 / 9), 1e-12));
            CHECK(s.min == 0 && s.max == 3 && s.zeros == 1 && s.nonfinite == 3);
        }
    }
}

void test_paint() {
    // Channel c, row y, column x has level 40 c + 10 y + x, at most 255. The last three columns are
    // NaN and infinities.
    const std::ptrdiff_t height = 3, width = 9;
    const auto value = [&](auto c, auto y, auto x) {
        if (x == 6) return nan;
        if (x == 7) return inf;
        if (x == 8) return -inf;
        return static_cast<double>(4 * c + y) + 0.1 * static_cast<double>(x);
    };
    for (Layout layout : layouts) {
        for (std::ptrdiff_t channels : {1, 4, 6, 16, 21}) {
            const auto stored =
                store_tiles<float>(actgrid::DType::float32, layout, channels, height, width, value);
            const auto count = static_cast<std::size_t>(channels);
            const std::vector<double> shift(count, 0), scale(count, 10), base(count, 0.5);
            // Channel 0 is not drawn if there are other channels. Tiles are one pixel apart.
            std::vector<std::int64_t> origin(count);
            const std::ptrdiff_t stride = channels * (width + 1);
            for (std::size_t c = 0; c < count; ++c)
                origin[c] = static_cast<std::int64_t>(c) * (width + 1);
            if (channels > 1) origin[0] = -1;
            std::vector<std::uint8_t> levels(static_cast<std::size_t>(stride * height), 7);
            actgrid::paint(stored.tiles, {shift.data(), scale.data(), base.data()},
                           {levels.data(), stride, origin.data()}, 2);
            for (std::ptrdiff_t y = 0; y < height; ++y) {
                for (std::ptrdiff_t column = 0; column < stride; ++column) {
                    const std::ptrdiff_t c = column / (width + 1), x = column % (width + 1);
                    const bool is_drawn = x < width && origin[static_cast<std::size_t>(c)] >= 0;
                    const std::ptrdiff_t expected =
                        !is_drawn ? 7
                        : x < 6   ? std::min<std::ptrdiff_t>(40 * c + 10 * y + x, 255)
                                  : (x == 7 ? 255 : 0);
                    CHECK(levels[static_cast<std::size_t>(y * stride + column)] == expected);
                }
            }
        }
    }
}

void test_paint_flat_tiles() {
    const double values[] = {5, nan, inf, -inf};
    for (Layout layout : layouts) {
        const auto stored = store_tiles<float>(actgrid::DType::float32, layout, 4, 1, 4,
                                               [&](auto, auto, auto x) { return values[x]; });
        const std::vector<double> shift(4, 5), scale(4, 0), base(4, 128);
        const std::vector<std::int64_t> origin{0, 4, 8, 12};
        std::vector<std::uint8_t> levels(16);
        actgrid::paint(stored.tiles, {shift.data(), scale.data(), base.data()},
                       {levels.data(), 16, origin.data()}, 1);
        for (std::size_t c = 0; c < 4; ++c) {
            CHECK(levels[4 * c] == 128 && levels[4 * c + 1] == 0);
            CHECK(levels[4 * c + 2] == 255 && levels[4 * c + 3] == 0);
        }
    }
}

void test_measure_threads() {
    const auto stored = store_tiles<float>(
        actgrid::DType::float32, Layout::channels_last, 70, 80, 90, [](auto c, auto y, auto x) {
            return std::sin(static_cast<double>(c * 7200 + y * 90 + x));
        });
    const auto expected = measure_tiles(stored.tiles, 1);
    for (int threads : {2, 3, 50}) {
        const auto stats = measure_tiles(stored.tiles, threads);
        for (std::size_t i = 0; i < expected.size(); ++i)
            CHECK(stats[i].mean == expected[i].mean && stats[i].std == expected[i].std);
    }
}

void test_percentiles() {
    // Channel c holds 100 c + 0, 1, ..., 20, and a NaN and an infinity, which are ignored.
    for (Layout layout : layouts) {
        const auto stored = store_tiles<float>(
            actgrid::DType::float32, layout, 18, 1, 23, [](auto c, auto, auto x) {
                return x == 5   ? nan
                       : x == 9 ? -inf
                                : static_cast<double>(100 * c + x - (x > 5) - (x > 9));
            });
        std::vector<std::array<double, 2>> results(18);
        actgrid::percentiles(stored.tiles, {25, 99}, false, results.data(), 2);
        for (std::size_t c = 0; c < results.size(); ++c) {
            const auto first = 100 * static_cast<double>(c);
            CHECK(is_near(results[c][0], first + 5, 1e-9));
            CHECK(is_near(results[c][1], first + 19.8, 1e-9));
        }
        actgrid::percentiles(stored.tiles, {0, 100}, true, results.data(), 1);
        CHECK(results[0][0] == 0 && results[0][1] == 1720);
    }
    const auto nonfinite = store_tiles<float>(actgrid::DType::float32, Layout::channels_last, 1, 1,
                                              2, [](auto, auto, auto) { return nan; });
    std::array<double, 2> result{1, 1};
    actgrid::percentiles(nonfinite.tiles, {1, 99}, false, &result, 1);
    CHECK(result[0] == 0 && result[1] == 0);
}

// Returns bytes of which the encoder samples only zeros, although the others are noise: frequent
// symbols then get the longest codes.
std::vector<std::uint8_t> make_unrepresentative_data(std::size_t size) {
    std::vector<std::uint8_t> data(size);
    std::uint32_t noise = 1;
    for (std::size_t i = 0; i < size; ++i) {
        noise = noise * 1664525 + 1013904223;
        if (i / 2048 % 4 != 0) data[i] = static_cast<std::uint8_t>(noise >> 24);
    }
    return data;
}

// Tests that the output fits into deflate_capacity. Python tests check that zlib can decompress it.
void test_deflate() {
    for (std::size_t size : {1u, 7u, 8u, 9u, 300u, 16384u, 16385u, 262144u, 262145u, 700000u}) {
        for (const auto& data :
             {std::vector<std::uint8_t>(size, 7), make_unrepresentative_data(size)}) {
            for (bool last : {false, true}) {
                std::vector<std::uint8_t> out(actgrid::deflate_capacity(size));
                const auto out_size = actgrid::deflate(data.data(), size, last, out.data());
                CHECK(out_size > 0 && out_size <= size + size / 1000 + 20);
                CHECK(last || (out[out_size - 2] == 0xff && out[out_size - 1] == 0xff));
            }
        }
    }
    // Empty data is encoded as one empty stored block (RFC 1951, section 3.2.4).
    for (const std::uint8_t last : {std::uint8_t{0}, std::uint8_t{1}}) {
        std::vector<std::uint8_t> out(actgrid::deflate_capacity(0));
        CHECK(actgrid::deflate(nullptr, 0, last, out.data()) == 5);
        out.resize(5);
        CHECK(out == std::vector<std::uint8_t>({last, 0, 0, 0xff, 0xff}));
    }
}

// Tests that the compressed rows fit into deflate_capacity, and their checksum. The best filter for
// two random levels is "none". Python tests check that zlib can decompress the rows.
void test_compress_rows() {
    for (const std::ptrdiff_t height : {1, 2, 77}) {
        const std::ptrdiff_t stride = 501;
        std::vector<std::uint8_t> rows(static_cast<std::size_t>(height * stride));
        std::minstd_rand random(1);
        for (std::size_t i = 0; i < rows.size(); ++i)
            rows[i] = i % 501 == 0 || random() % 65536 < 32768 ? 0 : 200;
        std::vector<std::uint8_t> out(actgrid::deflate_capacity(rows.size()));
        const actgrid::CompressedRows compressed =
            actgrid::compress_rows(rows.data(), height, stride, true, out.data());
        CHECK(compressed.size > 0 && compressed.size <= out.size());
        std::uint32_t low = 1, high = 0;
        for (const std::uint8_t byte : rows) {
            low = (low + byte) % 65521;
            high = (high + low) % 65521;
        }
        CHECK(compressed.adler32 == (high << 16 | low));
    }
}

// Layers of 2 channels, both ramps, are drawn on one row for each layer. Large layers are split
// among threads, and small layers are distributed to threads.
void test_draw() {
    for (const int threads : {1, 3}) {
        std::vector<StoredTiles<float>> layers;
        for (const std::ptrdiff_t width : {256, 100'000, 2, 300, 150'000, 64, 128})
            layers.push_back(store_tiles<float>(
                actgrid::DType::float32, Layout::channels_last, 2, 1, width,
                [&](auto c, auto, auto x) { return static_cast<float>(c + (x % 256)); }));
        std::vector<actgrid::DrawTask> tasks;
        std::vector<std::vector<std::uint8_t>> canvases;
        std::vector<std::array<double, 8>> sums(layers.size());
        std::vector<std::array<std::int64_t, 4>> counts(layers.size());
        std::vector<std::array<std::int64_t, 2>> origins;
        for (const auto& layer : layers) {
            canvases.emplace_back(static_cast<std::size_t>(2 * layer.tiles.width));
            origins.push_back({0, layer.tiles.width});
        }
        for (std::size_t i = 0; i < layers.size(); ++i) {
            double* sum = sums[i].data();
            tasks.push_back({layers[i].tiles,
                             actgrid::Normalization::range,
                             0,
                             255,
                             {sum, sum + 2, sum + 4, sum + 6, counts[i].data(), &counts[i][2]},
                             {canvases[i].data(), 2 * layers[i].tiles.width, origins[i].data()}});
        }
        actgrid::draw(tasks, threads);
        for (std::size_t i = 0; i < layers.size(); ++i) {
            const auto width = static_cast<std::size_t>(layers[i].tiles.width);
            CHECK(sums[i][4] == 0 && sums[i][5] == 1);  // the minima
            bool is_ramp = true;
            for (std::size_t x = 0; x < width; ++x)
                is_ramp &= canvases[i][x] == x % 256 &&
                           canvases[i][width + x] == std::min<std::size_t>(x % 256 + 1, 255);
            CHECK(is_ramp);
        }
    }
}

// Resizing 2 x 2 to 4 x 4: pixel centres lie at 1/4 and 3/4 between input centres, or beyond them.
void test_resize() {
    const auto infinity = std::numeric_limits<float>::infinity();
    const float values[] = {0, 4, 8, 12, 5, 5, 5, 5, -infinity, -infinity, infinity, infinity};
    const float expected[] = {0, 1, 3, 4, 2, 3, 5, 6, 6, 7, 9, 10, 8, 9, 11, 12};
    std::vector<float> resized(48);
    actgrid::resize({values, 3, 2, 2}, 4, 4, resized.data(), 2);
    for (std::size_t i = 0; i < 16; ++i) {
        CHECK(resized[i] == expected[i] && resized[16 + i] == 5);
        const float value = resized[32 + i];
        CHECK(i < 4 ? value == -infinity : i < 12 ? std::isnan(value) : value == infinity);
    }
    // Resizing to the same size changes nothing. At half the size, each pixel is the mean of four.
    actgrid::resize({expected, 1, 4, 4}, 4, 4, resized.data(), 1);
    CHECK(std::equal(expected, expected + 16, resized.begin()));
    actgrid::resize({expected, 1, 4, 4}, 2, 2, resized.data(), 1);
    CHECK(resized[0] == 1.5 && resized[1] == 4.5 && resized[2] == 7.5 && resized[3] == 10.5);
}

void test_overlay() {
    // Level i has the colour (i, 255 - i, 7). The map increases from 0 on the left to 1 on the
    // right.
    std::vector<std::uint8_t> palette;
    for (int i = 0; i < 256; ++i)
        for (int component : {i, 255 - i, 7})
            palette.push_back(static_cast<std::uint8_t>(component));
    const float map[] = {0, 1};
    for (std::ptrdiff_t width : {1, 2, 4, 31, 700}) {
        const std::ptrdiff_t height = 300;
        std::vector<std::uint8_t> image(static_cast<std::size_t>(3 * height * width), 101);
        const auto overlay_map = [&](double alpha, int threads) {
            std::vector<std::uint8_t> out(image.size());
            actgrid::overlay({map, 1, 1, 2}, {0, 255, 0.5, palette.data(), alpha}, image.data(),
                             height, width, out.data(), threads);
            return out;
        };
        CHECK(overlay_map(0, 1) == image);
        const auto colours = overlay_map(1, 1), blended = overlay_map(0.5, 1);
        CHECK(overlay_map(0.5, 3) == blended);
        for (std::size_t i = 0; i < image.size(); ++i)
            CHECK(blended[i] == static_cast<std::uint8_t>((101 + colours[i]) / 2.0 + 0.5));
        for (std::size_t i = 0; i < image.size(); i += 3)
            CHECK(colours[i] + colours[i + 1] == 255 && colours[i + 2] == 7);
        if (width == 4)  // 255 times 0, 1/4, 3/4 and 1
            CHECK(colours[0] == 0 && colours[3] == 64 && colours[6] == 191 && colours[9] == 255);
    }
}

// Tests that an exception from a task on any thread reaches the caller, and that later tasks do not
// start.
void test_parallel_for_exceptions() {
    for (int threads : {1, 2, 8}) {
        std::atomic<int> started_tasks{0};
        bool is_caught = false;
        try {
            actgrid::parallel_for(100, threads, [&](std::ptrdiff_t i) {
                ++started_tasks;
                if (i >= 3) throw std::bad_alloc();
            });
        } catch (const std::bad_alloc&) {
            is_caught = true;
        }
        CHECK(is_caught && started_tasks >= 4 && started_tasks < 100);
    }
}

// Tests concurrent callers that each use several threads. The thread sanitizer checks for data
// races.
void test_concurrent_callers() {
    const auto stored = store_tiles<float>(
        actgrid::DType::float32, Layout::channels_last, 40, 100, 60,
        [](auto c, auto y, auto x) { return static_cast<double>(c * 6000 + y * 60 + x); });
    const auto expected = measure_tiles(stored.tiles);
    std::vector<std::thread> callers;
    callers.reserve(6);
    std::atomic<int> mismatches{0};
    for (int caller = 0; caller < 6; ++caller) {
        callers.emplace_back([&] {
            const std::vector<double> shift(40, 0), scale(40, 1e-3), base(40, 0.5);
            std::vector<std::int64_t> origin(40);
            for (std::size_t c = 0; c < 40; ++c) origin[c] = static_cast<std::int64_t>(c) * 60;
            std::vector<std::uint8_t> levels(240000);
            for (int round = 0; round < 20; ++round) {
                const auto stats = measure_tiles(stored.tiles, 3);
                actgrid::paint(stored.tiles, {shift.data(), scale.data(), base.data()},
                               {levels.data(), 2400, origin.data()}, 4);
                std::vector<std::array<double, 2>> limits(40);
                actgrid::percentiles(stored.tiles, {0, 100}, false, limits.data(), 2);
                for (std::size_t c = 0; c < 40; ++c)
                    if (stats[c].mean != expected[c].mean || levels[c * 60] != c * 6 ||
                        limits[c][0] != expected[c].min || limits[c][1] != expected[c].max)
                        ++mismatches;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(mismatches == 0);
}

// Tests that the thread pool works in a forked child, which has none of the threads of its parent.
void test_fork() {
#if __has_include(<sys/wait.h>)
    const auto stored =
        store_tiles<float>(actgrid::DType::float32, Layout::channels_last, 64, 64, 64,
                           [](auto c, auto, auto) { return static_cast<double>(c); });
    const auto measures_correctly = [&] { return measure_tiles(stored.tiles, 4)[63].mean == 63; };
    CHECK(measures_correctly());
    const pid_t child = fork();
    if (child == 0) _exit(measures_correctly() ? 0 : 1);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(measures_correctly());
#endif
}

}  // namespace

int main() {
    CHECK(!actgrid::simd_variants().empty());
    for (const std::string& variant : actgrid::simd_variants()) {
        std::printf("%s\n", variant.c_str());
        actgrid::use_simd_variant(variant);
        CHECK(actgrid::simd_variant() == variant);
        test_measure_ramp<std::int8_t>(actgrid::DType::int8);
        test_measure_ramp<std::int16_t>(actgrid::DType::int16);
        test_measure_ramp<std::int32_t>(actgrid::DType::int32);
        test_measure_ramp<std::int64_t>(actgrid::DType::int64);
        test_measure_ramp<std::uint8_t>(actgrid::DType::uint8);
        test_measure_ramp<std::uint16_t>(actgrid::DType::uint16);
        test_measure_ramp<std::uint32_t>(actgrid::DType::uint32);
        test_measure_ramp<std::uint64_t>(actgrid::DType::uint64);
        test_measure_ramp<float>(actgrid::DType::float32);
        test_measure_ramp<double>(actgrid::DType::float64);
        test_measure_half_precision();
        test_measure_large_mean();
        test_measure_nonfinite();
        test_paint();
        test_paint_flat_tiles();
        test_measure_threads();
        test_deflate();
        test_compress_rows();
        test_draw();
        test_resize();
        test_overlay();
    }
    test_percentiles();
    test_parallel_for_exceptions();
    test_concurrent_callers();
    test_fork();
    std::printf("%s\n", failures == 0 ? "all passed" : "failed");
    return failures == 0 ? 0 : 1;
}
