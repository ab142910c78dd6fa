// The Python module actgrid._core, whose functions check their arguments and call the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "actgrid/deflate.hpp"
#include "actgrid/draw.hpp"
#include "actgrid/measure.hpp"
#include "actgrid/overlay.hpp"
#include "actgrid/paint.hpp"
#include "actgrid/percentiles.hpp"
#include "actgrid/png.hpp"
#include "actgrid/simd.hpp"

namespace py = pybind11;

namespace {

using Float64Array = py::array_t<double, py::array::c_style>;
using Int64Array = py::array_t<std::int64_t, py::array::c_style>;

actgrid::DType get_dtype(const py::array& array) {
    using actgrid::DType;
    struct SupportedType {
        char kind;
        py::ssize_t size;
        DType dtype;
    };
    static constexpr SupportedType supported_types[] = {
        {'f', 4, DType::float32}, {'f', 2, DType::float16}, {'f', 8, DType::float64},
        {'i', 1, DType::int8},    {'i', 2, DType::int16},   {'i', 4, DType::int32},
        {'i', 8, DType::int64},   {'u', 1, DType::uint8},   {'u', 2, DType::uint16},
        {'u', 4, DType::uint32},  {'u', 8, DType::uint64},  {'b', 1, DType::uint8},
    };
    const py::dtype dtype = array.dtype();
    const char order = dtype.byteorder();
    if (order != '>')
        for (const SupportedType& type : supported_types)
            if (dtype.kind() == type.kind && dtype.itemsize() == type.size) return type.dtype;
    // bfloat16 is an extension type (ml_dtypes) that only its name identifies.
    const auto name = dtype.attr("name").cast<std::string>();
    if (name == "bfloat16" && order != '>') return DType::bfloat16;
    throw py::type_error("tiles of dtype " + name + " are not supported");
}

actgrid::Tiles make_tiles(const py::array& array) {
    if (array.ndim() != 4) throw py::value_error("tiles must be (channels, slices, height, width)");
    if (array.size() == 0) throw py::value_error("tiles must not be empty");
    return {static_cast<const std::byte*>(array.data()),
            get_dtype(array),
            array.shape(0),
            array.shape(1),
            array.shape(2),
            array.shape(3),
            array.strides(0),
            array.strides(1),
            array.strides(2),
            array.strides(3)};
}

// Arrays for the statistics of tiles, (channels, slices).
class StatsArrays {
  public:
    explicit StatsArrays(const actgrid::Tiles& tiles)
        : StatsArrays(std::array<py::ssize_t, 2>{tiles.channels, tiles.slices}) {}

    actgrid::TileStats get_pointers() {
        return {mean_.mutable_data(), std_.mutable_data(),   min_.mutable_data(),
                max_.mutable_data(),  zeros_.mutable_data(), nonfinite_.mutable_data()};
    }

    // Returns (mean, std, min, max, zero_fraction, nonfinite).
    py::tuple make_tuple(const actgrid::Tiles& tiles) const {
        Float64Array zero_fraction({tiles.channels, tiles.slices});
        for (std::ptrdiff_t i = 0; i < tiles.count(); ++i)
            zero_fraction.mutable_data()[i] =
                static_cast<double>(zeros_.data()[i]) /
                static_cast<double>(tiles.pixels() - nonfinite_.data()[i]);
        return py::make_tuple(mean_, std_, min_, max_, zero_fraction, nonfinite_);
    }

  private:
    explicit StatsArrays(const std::array<py::ssize_t, 2>& shape)
        : mean_(shape), std_(shape), min_(shape), max_(shape), zeros_(shape), nonfinite_(shape) {}

    Float64Array mean_, std_, min_, max_;
    Int64Array zeros_, nonfinite_;
};

py::tuple measure(const py::array& array, int threads) {
    const actgrid::Tiles tiles = make_tiles(array);
    StatsArrays stats(tiles);
    const actgrid::TileStats pointers = stats.get_pointers();
    {
        const py::gil_scoped_release released;
        actgrid::measure(tiles, pointers, threads);
    }
    return stats.make_tuple(tiles);
}

py::tuple percentiles(const py::array& array, double low, double high, bool pooled, int threads) {
    const actgrid::Tiles tiles = make_tiles(array);
    for (const double limit : {low, high})
        if (!(limit >= 0 && limit <= 100))
            throw py::value_error("percentiles lie between 0 and 100");
    const auto count = static_cast<std::size_t>(pooled ? 1 : tiles.count());
    std::vector<std::array<double, 2>> results(count);
    {
        const py::gil_scoped_release released;
        actgrid::percentiles(tiles, {low, high}, pooled, results.data(), threads);
    }
    const std::array<py::ssize_t, 2> shape{pooled ? 1 : tiles.channels, pooled ? 1 : tiles.slices};
    Float64Array lows(shape), highs(shape);
    for (std::size_t i = 0; i < count; ++i) {
        lows.mutable_data()[i] = results[i][0];
        highs.mutable_data()[i] = results[i][1];
    }
    return py::make_tuple(lows, highs);
}

using UInt8Canvas = py::array_t<std::uint8_t>;

// Returns a canvas on which every tile fits at its origin.
actgrid::Canvas make_canvas(const actgrid::Tiles& tiles, const Int64Array& origin,
                            UInt8Canvas& canvas) {
    if (origin.size() != tiles.count())
        throw py::value_error("origin must have one entry per tile");
    if (canvas.ndim() != 2 || canvas.size() == 0 || canvas.strides(1) != 1 ||
        canvas.strides(0) < canvas.shape(1))
        throw py::value_error("canvas must be rows of neighbouring bytes");
    const std::ptrdiff_t stride = canvas.strides(0);
    for (py::ssize_t i = 0; i < origin.size(); ++i) {
        const std::int64_t offset = origin.data()[i];
        if (offset >= 0 && (offset / stride > canvas.shape(0) - tiles.height ||
                            offset % stride > canvas.shape(1) - tiles.width))
            throw py::value_error("a tile does not fit on the canvas at its origin");
    }
    return {canvas.mutable_data(), stride, origin.data()};
}

actgrid::Normalization get_normalization(const std::string& name) {
    using actgrid::Normalization;
    if (name == "standard") return Normalization::standard;
    if (name == "minmax") return Normalization::minmax;
    if (name == "symmetric") return Normalization::symmetric;
    if (name == "range") return Normalization::range;
    throw py::value_error("normalization " + name + " is not supported");
}

// Draws layers, each given as (tiles, origin, canvas); returns the statistics of each layer.
py::list draw(const std::vector<std::tuple<py::array, Int64Array, UInt8Canvas>>& layers,
              const std::string& normalization_name, double low, double high, int threads) {
    const actgrid::Normalization normalization = get_normalization(normalization_name);
    std::vector<actgrid::DrawTask> tasks;
    std::vector<StatsArrays> stats;
    for (auto [array, origin, canvas] : layers) {
        const actgrid::Tiles tiles = make_tiles(array);
        stats.emplace_back(tiles);
        tasks.push_back({tiles, normalization, low, high, stats.back().get_pointers(),
                         make_canvas(tiles, origin, canvas)});
    }
    {
        const py::gil_scoped_release released;
        actgrid::draw(tasks, threads);
    }
    py::list results;
    for (std::size_t i = 0; i < tasks.size(); ++i)
        results.append(stats[i].make_tuple(tasks[i].tiles));
    return results;
}

void paint(const py::array& array, const Float64Array& shift, const Float64Array& scale,
           const Float64Array& base, const Int64Array& origin, UInt8Canvas canvas, int threads) {
    const actgrid::Tiles tiles = make_tiles(array);
    for (const py::ssize_t entries : {shift.size(), scale.size(), base.size()})
        if (entries != tiles.count())
            throw py::value_error("shift, scale and base must have one entry per tile");
    const actgrid::Mapping mapping{shift.data(), scale.data(), base.data()};
    const actgrid::Canvas output = make_canvas(tiles, origin, canvas);
    const py::gil_scoped_release released;
    actgrid::paint(tiles, mapping, output, threads);
}

// A view of the bytes of a Python object, which it keeps alive.
class BufferView {
  public:
    explicit BufferView(const py::buffer& buffer) {
        if (PyObject_GetBuffer(buffer.ptr(), &view_, PyBUF_SIMPLE) != 0)
            throw py::error_already_set();
    }
    ~BufferView() { PyBuffer_Release(&view_); }
    BufferView(const BufferView&) = delete;
    BufferView& operator=(const BufferView&) = delete;

    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view_.len); }

  private:
    Py_buffer view_;
};

// Calls compress(out) with a buffer of `capacity` bytes. Each thread reuses its buffer: allocating
// memory takes longer than writing to it.
template <class Compress>
auto with_buffer(std::size_t capacity, const Compress& compress) {
    static thread_local std::vector<std::uint8_t> out;
    const py::gil_scoped_release released;
    out.resize(std::max(out.size(), capacity));
    return std::pair(out.data(), compress(out.data()));
}

py::bytes make_bytes(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

py::bytes deflate(const py::buffer& buffer, bool last) {
    const BufferView bytes(buffer);
    const auto [out, size] = with_buffer(
        actgrid::deflate_capacity(bytes.size()),
        [&](std::uint8_t* to) { return actgrid::deflate(bytes.data(), bytes.size(), last, to); });
    return make_bytes(out, size);
}

using UInt8Array = py::array_t<std::uint8_t, py::array::c_style>;

py::tuple compress_rows(const UInt8Array& rows, bool last) {
    if (rows.ndim() != 2 || rows.shape(0) < 1 || rows.shape(1) < 2)
        throw py::value_error("rows must be (height, 1 + width)");
    const std::uint8_t* data = rows.data();
    const py::ssize_t height = rows.shape(0), stride = rows.shape(1);
    const auto [out, result] = with_buffer(
        actgrid::deflate_capacity(static_cast<std::size_t>(height * stride)),
        [&](std::uint8_t* to) { return actgrid::compress_rows(data, height, stride, last, to); });
    return py::make_tuple(make_bytes(out, result.size), result.adler32);
}

using Float32Array = py::array_t<float, py::array::c_style>;

// Returns a (height, width) or (maps, height, width) array as maps.
actgrid::Maps make_maps(const Float32Array& values) {
    const py::ssize_t rank = values.ndim();
    if (rank < 2 || values.size() == 0) throw py::value_error("values must not be empty");
    return {values.data(), rank == 3 ? values.shape(0) : 1, values.shape(rank - 2),
            values.shape(rank - 1)};
}

void resize(const Float32Array& values, Float32Array resized, int threads) {
    if (values.ndim() != 3 || resized.ndim() != 3 || resized.shape(0) != values.shape(0) ||
        resized.size() == 0)
        throw py::value_error("values and resized must be (maps, height, width), of as many maps");
    const actgrid::Maps maps = make_maps(values);
    float* out = resized.mutable_data();
    const py::gil_scoped_release released;
    actgrid::resize(maps, resized.shape(1), resized.shape(2), out, threads);
}

void overlay(const Float32Array& values, double shift, double scale, double base,
             const UInt8Array& palette, const UInt8Array& image, double alpha, UInt8Array overlaid,
             int threads) {
    if (values.ndim() != 2) throw py::value_error("values must be (height, width)");
    const actgrid::Maps map = make_maps(values);
    if (palette.ndim() != 2 || palette.shape(0) != 256 || palette.shape(1) != 3)
        throw py::value_error("palette must be (256, 3)");
    if (image.ndim() != 3 || overlaid.ndim() != 3 || image.shape(2) != 3 || image.size() == 0 ||
        !std::equal(image.shape(), image.shape() + 3, overlaid.shape()))
        throw py::value_error("image and overlaid must be of one shape, (height, width, 3)");
    if (!(alpha >= 0 && alpha <= 1)) throw py::value_error("alpha lies between 0 and 1");
    std::uint8_t* out = overlaid.mutable_data();
    const py::gil_scoped_release released;
    actgrid::overlay(map, {shift, scale, base, palette.data(), alpha}, image.data(), image.shape(0),
                     image.shape(1), out, threads);
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    module.doc() = "The compiled core of actgrid.";
    actgrid::simd_variant();  // selects the kernel variant before other threads exist
    module.def("measure", &measure, py::arg("tiles"), py::arg("threads"));
    module.def("paint", &paint, py::arg("tiles"), py::arg("shift"), py::arg("scale"),
               py::arg("base"), py::arg("origin"), py::arg("canvas").noconvert(),
               py::arg("threads"));
    module.def("draw", &draw, py::arg("layers").noconvert(), py::arg("normalization"),
               py::arg("low"), py::arg("high"), py::arg("threads"));
    module.def("resize", &resize, py::arg("values").noconvert(), py::arg("resized").noconvert(),
               py::arg("threads"));
    module.def("overlay", &overlay, py::arg("values").noconvert(), py::arg("shift"),
               py::arg("scale"), py::arg("base"), py::arg("palette").noconvert(),
               py::arg("image").noconvert(), py::arg("alpha"), py::arg("overlaid").noconvert(),
               py::arg("threads"));
    module.def("compress_rows", &compress_rows, py::arg("rows").noconvert(), py::arg("last"));
    module.def("deflate", &deflate, py::arg("data"), py::arg("last"));
    module.def("percentiles", &percentiles, py::arg("tiles"), py::arg("low"), py::arg("high"),
               py::arg("pooled"), py::arg("threads"));
    module.def("simd_variants", &actgrid::simd_variants);
    module.def("simd_variant", &actgrid::simd_variant);
    module.def("use_simd_variant", &actgrid::use_simd_variant, py::arg("name"));
}
