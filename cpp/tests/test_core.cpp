// Tests of the library by itself: values worked out by hand, every layout and element type.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if __has_include(<sys/wait.h>)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "actgrid/deflate.hpp"
#include "actgrid/filter.hpp"
#include "actgrid/measure.hpp"
#include "actgrid/overlay.hpp"
#include "actgrid/paint.hpp"
#include "actgrid/percentiles.hpp"
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

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance; }

// Values of (channels, height, width) stored in one of three ways.
enum class Order { channels_last, channels_first, reversed };

template <class T>
struct Stored {
    std::vector<T> values;
    actgrid::Tiles tiles;
};

template <class T, class Value>
Stored<T> store(actgrid::DType dtype, Order order, std::ptrdiff_t channels, std::ptrdiff_t height,
                std::ptrdiff_t width, const Value& value) {
    constexpr std::ptrdiff_t size = sizeof(T);
    Stored<T> stored{std::vector<T>(static_cast<std::size_t>(channels * height * width)), {}};
    actgrid::Tiles& tiles = stored.tiles;
    tiles = {nullptr, dtype, channels, 1, height, width, 0, 0, 0, 0};
    if (order == Order::channels_last) {
        tiles.channel_stride = size;
        tiles.column_stride = channels * size;
        tiles.row_stride = width * tiles.column_stride;
    } else {
        tiles.column_stride = size;
        tiles.row_stride = width * size;
        tiles.channel_stride = height * tiles.row_stride;
    }
    const std::ptrdiff_t sign = order == Order::reversed ? -1 : 1;
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

std::vector<Stats> measured(const actgrid::Tiles& tiles, int threads = 1) {
    const auto count = static_cast<std::size_t>(tiles.count());
    std::vector<double> mean(count), std(count), min(count), max(count);
    std::vector<std::int64_t> zeros(count), nonfinite(count);
    actgrid::measure(
        tiles, {mean.data(), std.data(), min.data(), max.data(), zeros.data(), nonfinite.data()},
        threads);
    std::vector<Stats> stats;
    for (std::size_t i = 0; i < count; ++i)
        stats.push_back({mean[i], std[i], min[i], max[i], zeros[i], nonfinite[i]});
    return stats;
}

constexpr Order orders[] = {Order::channels_last, Order::channels_first, Order::reversed};

// Channel c holds c, c + 1, ..., its mean and variance are those of a run of whole numbers.
template <class T>
void test_ramp(actgrid::DType dtype) {
    const std::ptrdiff_t height = 3, width = 5, n = height * width;
    for (Order order : orders) {
        for (std::ptrdiff_t channels : {1, 3, 4, 11, 16, 17, 35}) {
            const auto stored = store<T>(dtype, order, channels, height, width,
                                         [&](auto c, auto y, auto x) { return c + y * width + x; });
            const auto stats = measured(stored.tiles);
            for (std::ptrdiff_t c = 0; c < channels; ++c) {
                const auto& s = stats[static_cast<std::size_t>(c)];
                const auto first = static_cast<double>(c);
                CHECK(near(s.mean, first + (n - 1) / 2.0, 1e-12));
                CHECK(near(s.std, std::sqrt((n * n - 1) / 12.0), 1e-12));
                CHECK(s.min == first && s.max == first + n - 1);
                CHECK(s.zeros == (c == 0) && s.nonfinite == 0);
            }
        }
    }
}

void test_half_precision() {
    // 1, -2, 65504 (largest) and the smallest subnormal in float16; 1 and -2 in bfloat16.
    const std::uint16_t half[] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00};
    const double values[] = {1, -2, 65504, 0x1p-24};
    for (Order order : orders) {
        const auto stored = store<std::uint16_t>(actgrid::DType::float16, order, 6, 2, 2,
                                                 [&](auto c, auto, auto) { return half[c]; });
        const auto stats = measured(stored.tiles);
        for (std::size_t c = 0; c < 4; ++c)
            CHECK(stats[c].mean == values[c] && stats[c].std == 0 && stats[c].nonfinite == 0);
        CHECK(stats[4].nonfinite == 4 && stats[5].nonfinite == 4 && std::isnan(stats[4].mean));
        const std::uint16_t brain[] = {0x3f80, 0xc000, 0x7f80, 0x7fc0};
        const auto other = store<std::uint16_t>(actgrid::DType::bfloat16, order, 4, 2, 2,
                                                [&](auto c, auto, auto) { return brain[c]; });
        const auto read = measured(other.tiles);
        CHECK(read[0].mean == 1 && read[1].mean == -2);
        CHECK(read[2].nonfinite == 4 && read[3].nonfinite == 4);
    }
}

void test_large_mean() {
    // 1e4 +- 1e-2, a million pixels: half above, half below.
    for (Order order : orders) {
        const auto stored =
            store<double>(actgrid::DType::float64, order, 4, 1000, 1000,
                          [](auto, auto, auto x) { return x % 2 ? 1e4 + 1e-2 : 1e4 - 1e-2; });
        for (const auto& s : measured(stored.tiles)) {
            CHECK(near(s.mean, 1e4, 1e-8));
            CHECK(near(s.std, 1e-2, 1e-10));
        }
    }
}

void test_nonfinite() {
    const double values[] = {nan, 1, inf, 3, -inf, 0};
    for (Order order : orders) {
        const auto stored = store<float>(actgrid::DType::float32, order, 5, 2, 3,
                                         [&](auto, auto y, auto x) { return values[y * 3 + x]; });
        for (const auto& s : measured(stored.tiles)) {
            CHECK(near(s.mean, 4.0 / 3, 1e-12) && near(s.std, std::sqrt(14.0 / 9), 1e-12));
            CHECK(s.min == 0 && s.max == 3 && s.zeros == 1 && s.nonfinite == 3);
        }
    }
}

void test_paint() {
    // Channel c, row y, column x has level 40 c + 10 y + x, at most 255; the last three columns are
    // special.
    const std::ptrdiff_t height = 3, width = 9;
    const auto value = [&](auto c, auto y, auto x) {
        if (x == 6) return nan;
        if (x == 7) return inf;
        if (x == 8) return -inf;
        return static_cast<double>(4 * c + y) + 0.1 * static_cast<double>(x);
    };
    for (Order order : orders) {
        for (std::ptrdiff_t channels : {1, 4, 6, 16, 21}) {
            const auto stored =
                store<float>(actgrid::DType::float32, order, channels, height, width, value);
            const auto count = static_cast<std::size_t>(channels);
            const std::vector<double> shift(count, 0), scale(count, 10), base(count, 0.5);
            // Channel 0 is not drawn where there are others; a pixel lies between tiles.
            std::vector<std::int64_t> origin(count);
            const std::ptrdiff_t stride = channels * (width + 1);
            for (std::size_t c = 0; c < count; ++c)
                origin[c] = static_cast<std::int64_t>(c) * (width + 1);
            if (channels > 1) origin[0] = -1;
            std::vector<std::uint8_t> levels(static_cast<std::size_t>(stride * height), 7);
            actgrid::paint(stored.tiles, {shift.data(), scale.data(), base.data()},
                           {levels.data(), stride, origin.data()}, 2);
            for (std::ptrdiff_t y = 0; y < height; ++y) {
                for (std::ptrdiff_t at = 0; at < stride; ++at) {
                    const std::ptrdiff_t c = at / (width + 1), x = at % (width + 1);
                    const bool drawn = x < width && origin[static_cast<std::size_t>(c)] >= 0;
                    const std::ptrdiff_t expected =
                        !drawn  ? 7
                        : x < 6 ? std::min<std::ptrdiff_t>(40 * c + 10 * y + x, 255)
                                : (x == 7 ? 255 : 0);
                    CHECK(levels[static_cast<std::size_t>(y * stride + at)] == expected);
                }
            }
        }
    }
}

void test_flat_tiles() {
    const double values[] = {5, nan, inf, -inf};
    for (Order order : orders) {
        const auto stored = store<float>(actgrid::DType::float32, order, 4, 1, 4,
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

void test_threads() {
    const auto stored = store<float>(
        actgrid::DType::float32, Order::channels_last, 70, 80, 90, [](auto c, auto y, auto x) {
            return std::sin(static_cast<double>(c * 7200 + y * 90 + x));
        });
    const auto one = measured(stored.tiles, 1);
    for (int threads : {2, 3, 50}) {
        const auto many = measured(stored.tiles, threads);
        for (std::size_t i = 0; i < one.size(); ++i)
            CHECK(one[i].mean == many[i].mean && one[i].std == many[i].std);
    }
}

void test_percentiles() {
    // 0, 1, ..., 20 of every channel, with a NaN and an infinity that do not count.
    for (Order order : orders) {
        const auto stored =
            store<float>(actgrid::DType::float32, order, 18, 1, 23, [](auto c, auto, auto x) {
                return x == 5   ? nan
                       : x == 9 ? -inf
                                : static_cast<double>(100 * c + x - (x > 5) - (x > 9));
            });
        std::vector<std::array<double, 2>> found(18);
        actgrid::percentiles(stored.tiles, {25, 99}, false, found.data(), 2);
        for (std::size_t c = 0; c < found.size(); ++c) {
            const auto first = 100 * static_cast<double>(c);
            CHECK(near(found[c][0], first + 5, 1e-9) && near(found[c][1], first + 19.8, 1e-9));
        }
        actgrid::percentiles(stored.tiles, {0, 100}, true, found.data(), 1);
        CHECK(found[0][0] == 0 && found[0][1] == 1720);
    }
    const auto none = store<float>(actgrid::DType::float32, Order::channels_last, 1, 1, 2,
                                   [](auto, auto, auto) { return nan; });
    std::array<double, 2> found{1, 1};
    actgrid::percentiles(none.tiles, {1, 99}, false, &found, 1);
    CHECK(found[0] == 0 && found[1] == 0);
}

// Bytes of which none that are counted tell of the rest: the longest codes, for what is frequent.
std::vector<std::uint8_t> unlike_its_sample(std::size_t size) {
    std::vector<std::uint8_t> data(size);
    std::uint32_t noise = 1;
    for (std::size_t i = 0; i < size; ++i) {
        noise = noise * 1664525 + 1013904223;
        if (i / 2048 % 4 != 0) data[i] = static_cast<std::uint8_t>(noise >> 24);
    }
    return data;
}

// What zlib reads of it is tested from Python; here that it keeps to the room it asked for.
void test_deflate() {
    for (std::size_t size : {1u, 7u, 8u, 9u, 300u, 16384u, 16385u, 262144u, 262145u, 700000u}) {
        for (const auto& data : {std::vector<std::uint8_t>(size, 7), unlike_its_sample(size)}) {
            for (bool last : {false, true}) {
                std::vector<std::uint8_t> out(actgrid::deflate_capacity(size));
                const auto used = actgrid::deflate(data.data(), size, last, out.data());
                CHECK(used > 0 && used <= size + size / 1000 + 20);
                CHECK(last || (out[used - 2] == 0xff && out[used - 1] == 0xff));
            }
        }
    }
    // Nothing at all is an empty block, stored (RFC 1951, section 3.2.4).
    for (const std::uint8_t last : {0, 1}) {
        std::vector<std::uint8_t> out(actgrid::deflate_capacity(0));
        CHECK(actgrid::deflate(nullptr, 0, last, out.data()) == 5);
        out.resize(5);
        CHECK(out == std::vector<std::uint8_t>({last, 0, 0, 0xff, 0xff}));
    }
}

void test_filter() {
    // Below 0, 1, 2, ... lie 2, 3, 4, ...: the neighbour to the left is nearest to what is
    // expected, and one less; the first pixel has none but the one above. The first row is not
    // written.
    for (std::size_t width = 1; width < 140; ++width) {
        std::vector<std::uint8_t> rows(2 * width), filtered(2 * width, 9);
        std::vector<std::uint8_t> expected(2 * width, 9);
        for (std::size_t x = 0; x < width; ++x) {
            rows[x] = static_cast<std::uint8_t>(x);
            rows[width + x] = static_cast<std::uint8_t>(x + 2);
            expected[width + x] = x == 0 ? 2 : 1;
        }
        const auto stride = static_cast<std::ptrdiff_t>(width);
        actgrid::filter_paeth(rows.data(), 2, stride, stride, filtered.data());
        CHECK(filtered == expected);
    }
}

// 2 x 2 to 4 x 4: centres lie a quarter and three quarters of the way, or beyond the outermost.
void test_resize() {
    const auto infinite = std::numeric_limits<float>::infinity();
    const float values[] = {0, 4, 8, 12, 5, 5, 5, 5, -infinite, -infinite, infinite, infinite};
    const float expected[] = {0, 1, 3, 4, 2, 3, 5, 6, 6, 7, 9, 10, 8, 9, 11, 12};
    std::vector<float> resized(48);
    actgrid::resize({values, 3, 2, 2}, 4, 4, resized.data(), 2);
    for (std::size_t i = 0; i < 16; ++i) {
        CHECK(resized[i] == expected[i] && resized[16 + i] == 5);
        const float third = resized[32 + i];
        CHECK(i < 4 ? third == -infinite : i < 12 ? std::isnan(third) : third == infinite);
    }
    // To the same size nothing changes; to half of it, where pixels are the middle of four.
    actgrid::resize({expected, 1, 4, 4}, 4, 4, resized.data(), 1);
    CHECK(std::equal(expected, expected + 16, resized.begin()));
    actgrid::resize({expected, 1, 4, 4}, 2, 2, resized.data(), 1);
    CHECK(resized[0] == 1.5 && resized[1] == 4.5 && resized[2] == 7.5 && resized[3] == 10.5);
}

void test_overlay() {
    // Level i has the colour (i, 255 - i, 7). The map goes from 0 on the left to 1 on the right.
    std::vector<std::uint8_t> palette;
    for (int i = 0; i < 256; ++i)
        for (int component : {i, 255 - i, 7})
            palette.push_back(static_cast<std::uint8_t>(component));
    const float map[] = {0, 1};
    for (std::ptrdiff_t width : {1, 2, 4, 31, 700}) {
        const std::ptrdiff_t height = 300;
        std::vector<std::uint8_t> image(static_cast<std::size_t>(3 * height * width), 101);
        const auto overlaid = [&](double alpha, int threads) {
            std::vector<std::uint8_t> out(image.size());
            actgrid::overlay({map, 1, 1, 2}, {0, 255, 0.5, palette.data(), alpha}, image.data(),
                             height, width, out.data(), threads);
            return out;
        };
        CHECK(overlaid(0, 1) == image);
        const auto colours = overlaid(1, 1), half = overlaid(0.5, 1);
        CHECK(overlaid(0.5, 3) == half);
        for (std::size_t i = 0; i < image.size(); ++i)
            CHECK(half[i] == static_cast<std::uint8_t>((101 + colours[i]) / 2.0 + 0.5));
        for (std::size_t i = 0; i < image.size(); i += 3)
            CHECK(colours[i] + colours[i + 1] == 255 && colours[i + 2] == 7);
        if (width == 4)  // 0, 1/4, 3/4 and 1 of 255
            CHECK(colours[0] == 0 && colours[3] == 64 && colours[6] == 191 && colours[9] == 255);
    }
}

// What a task throws reaches the caller, whichever thread it ran on, and no thread is left.
void test_exceptions() {
    for (int threads : {1, 2, 8}) {
        std::atomic<int> ran{0};
        bool caught = false;
        try {
            actgrid::parallel_for(100, threads, [&](std::ptrdiff_t i) {
                ++ran;
                if (i >= 3) throw std::bad_alloc();
            });
        } catch (const std::bad_alloc&) {
            caught = true;
        }
        CHECK(caught && ran >= 4 && ran < 100);
    }
}

// Many threads at once, each of which shares its work out: what the thread sanitizer watches.
void test_many_callers() {
    const auto stored = store<float>(
        actgrid::DType::float32, Order::channels_last, 40, 100, 60,
        [](auto c, auto y, auto x) { return static_cast<double>(c * 6000 + y * 60 + x); });
    const auto expected = measured(stored.tiles);
    std::vector<std::thread> callers;
    std::atomic<int> wrong{0};
    for (int caller = 0; caller < 6; ++caller) {
        callers.emplace_back([&] {
            const std::vector<double> shift(40, 0), scale(40, 1e-3), base(40, 0.5);
            std::vector<std::int64_t> origin(40);
            for (std::size_t c = 0; c < 40; ++c) origin[c] = static_cast<std::int64_t>(c) * 60;
            std::vector<std::uint8_t> levels(240000);
            for (int round = 0; round < 20; ++round) {
                const auto found = measured(stored.tiles, 3);
                actgrid::paint(stored.tiles, {shift.data(), scale.data(), base.data()},
                               {levels.data(), 2400, origin.data()}, 4);
                std::vector<std::array<double, 2>> limits(40);
                actgrid::percentiles(stored.tiles, {0, 100}, false, limits.data(), 2);
                for (std::size_t c = 0; c < 40; ++c)
                    if (found[c].mean != expected[c].mean || levels[c * 60] != c * 6 ||
                        limits[c][0] != expected[c].min || limits[c][1] != expected[c].max)
                        ++wrong;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(wrong == 0);
}

// A forked child has none of its parent's threads.
void test_fork() {
#if __has_include(<sys/wait.h>)
    const auto stored = store<float>(actgrid::DType::float32, Order::channels_last, 64, 64, 64,
                                     [](auto c, auto, auto) { return static_cast<double>(c); });
    const auto right = [&] { return measured(stored.tiles, 4)[63].mean == 63; };
    CHECK(right());
    const pid_t child = fork();
    if (child == 0) _exit(right() ? 0 : 1);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(right());
#endif
}

}  // namespace

int main() {
    CHECK(!actgrid::simd_variants().empty());
    for (const std::string& variant : actgrid::simd_variants()) {
        std::printf("%s\n", variant.c_str());
        actgrid::use_simd_variant(variant);
        CHECK(actgrid::simd_variant() == variant);
        test_ramp<std::int8_t>(actgrid::DType::int8);
        test_ramp<std::int16_t>(actgrid::DType::int16);
        test_ramp<std::int32_t>(actgrid::DType::int32);
        test_ramp<std::int64_t>(actgrid::DType::int64);
        test_ramp<std::uint8_t>(actgrid::DType::uint8);
        test_ramp<std::uint16_t>(actgrid::DType::uint16);
        test_ramp<std::uint32_t>(actgrid::DType::uint32);
        test_ramp<std::uint64_t>(actgrid::DType::uint64);
        test_ramp<float>(actgrid::DType::float32);
        test_ramp<double>(actgrid::DType::float64);
        test_half_precision();
        test_large_mean();
        test_nonfinite();
        test_paint();
        test_flat_tiles();
        test_threads();
        test_deflate();
        test_filter();
        test_resize();
        test_overlay();
    }
    test_percentiles();
    test_exceptions();
    test_many_callers();
    test_fork();
    std::printf("%s\n", failures == 0 ? "all passed" : "failed");
    return failures == 0 ? 0 : 1;
}
