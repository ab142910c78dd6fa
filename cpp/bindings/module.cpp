// actgrid._core: the C++ library as Python sees it. Checks arguments, knows nothing else.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "actgrid/deflate.hpp"
#include "actgrid/filter.hpp"
#include "actgrid/measure.hpp"
#include "actgrid/overlay.hpp"
#include "actgrid/paint.hpp"
#include "actgrid/percentiles.hpp"
#include "actgrid/simd.hpp"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Integers = py::array_t<std::int64_t, py::array::c_style>;

actgrid::DType dtype_of(const py::array& array) {
    using actgrid::DType;
    struct Known {
        char kind;
        py::ssize_t size;
        DType dtype;
    };
    static constexpr Known all[] = {
        {'f', 4, DType::float32}, {'f', 2, DType::float16}, {'f', 8, DType::float64},
        {'i', 1, DType::int8},    {'i', 2, DType::int16},   {'i', 4, DType::int32},
        {'i', 8, DType::int64},   {'u', 1, DType::uint8},   {'u', 2, DType::uint16},
        {'u', 4, DType::uint32},  {'u', 8, DType::uint64},  {'b', 1, DType::uint8},
    };
    const py::dtype dtype = array.dtype();
    const char order = dtype.byteorder();
    if (order != '>')
        for (const Known& known : all)
            if (dtype.kind() == known.kind && dtype.itemsize() == known.size) return known.dtype;
    // NumPy knows bfloat16 by its name only.
    const auto name = dtype.attr("name").cast<std::string>();
    if (name == "bfloat16" && order != '>') return DType::bfloat16;
    throw py::type_error("tiles of dtype " + name + " are not supported");
}

actgrid::Tiles tiles_of(const py::array& array) {
    if (array.ndim() != 4) throw py::value_error("tiles must be (channels, slices, height, width)");
    if (array.size() == 0) throw py::value_error("tiles must not be empty");
    return {static_cast<const std::byte*>(array.data()),
            dtype_of(array),
            array.shape(0),
            array.shape(1),
            array.shape(2),
            array.shape(3),
            array.strides(0),
            array.strides(1),
            array.strides(2),
            array.strides(3)};
}

py::tuple measure(const py::array& array, int threads) {
    const actgrid::Tiles tiles = tiles_of(array);
    const std::array<py::ssize_t, 2> shape{tiles.channels, tiles.slices};
    Doubles mean(shape), std(shape), min(shape), max(shape);
    Integers zeros(shape), nonfinite(shape);
    const actgrid::TileStats stats{mean.mutable_data(),  std.mutable_data(),
                                   min.mutable_data(),   max.mutable_data(),
                                   zeros.mutable_data(), nonfinite.mutable_data()};
    {
        const py::gil_scoped_release released;
        actgrid::measure(tiles, stats, threads);
    }
    return py::make_tuple(mean, std, min, max, zeros, nonfinite);
}

py::tuple percentiles(const py::array& array, double low, double high, bool pooled, int threads) {
    const actgrid::Tiles tiles = tiles_of(array);
    for (const double limit : {low, high})
        if (!(limit >= 0 && limit <= 100))
            throw py::value_error("percentiles lie between 0 and 100");
    const auto count = static_cast<std::size_t>(pooled ? 1 : tiles.count());
    std::vector<std::array<double, 2>> found(count);
    {
        const py::gil_scoped_release released;
        actgrid::percentiles(tiles, {low, high}, pooled, found.data(), threads);
    }
    const std::array<py::ssize_t, 2> shape{pooled ? 1 : tiles.channels, pooled ? 1 : tiles.slices};
    Doubles lows(shape), highs(shape);
    for (std::size_t i = 0; i < count; ++i) {
        lows.mutable_data()[i] = found[i][0];
        highs.mutable_data()[i] = found[i][1];
    }
    return py::make_tuple(lows, highs);
}

void paint(const py::array& array, const Doubles& shift, const Doubles& scale, const Doubles& base,
           const Integers& origin, py::array_t<std::uint8_t> canvas, int threads) {
    const actgrid::Tiles tiles = tiles_of(array);
    for (const py::ssize_t entries : {shift.size(), scale.size(), base.size(), origin.size()})
        if (entries != tiles.count())
            throw py::value_error("shift, scale, base and origin must have one entry per tile");
    if (canvas.ndim() != 2 || canvas.size() == 0 || canvas.strides(1) != 1 ||
        canvas.strides(0) < canvas.shape(1))
        throw py::value_error("canvas must be rows of neighbouring bytes");
    const std::ptrdiff_t stride = canvas.strides(0);
    for (py::ssize_t i = 0; i < origin.size(); ++i) {
        const std::int64_t start = origin.data()[i];
        if (start >= 0 && (start / stride > canvas.shape(0) - tiles.height ||
                           start % stride > canvas.shape(1) - tiles.width))
            throw py::value_error("a tile does not fit on the canvas at its origin");
    }
    const actgrid::Mapping mapping{shift.data(), scale.data(), base.data()};
    const actgrid::Canvas target{canvas.mutable_data(), stride, origin.data()};
    const py::gil_scoped_release released;
    actgrid::paint(tiles, mapping, target, threads);
}

// The bytes of an object, for as long as this lives.
class View {
  public:
    explicit View(const py::buffer& buffer) {
        if (PyObject_GetBuffer(buffer.ptr(), &view_, PyBUF_SIMPLE) != 0)
            throw py::error_already_set();
    }
    ~View() { PyBuffer_Release(&view_); }
    View(const View&) = delete;
    View& operator=(const View&) = delete;

    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view_.len); }

  private:
    Py_buffer view_;
};

std::size_t estimate_deflated(const py::buffer& buffer) {
    const View bytes(buffer);
    const py::gil_scoped_release released;
    return actgrid::estimate_deflated(bytes.data(), bytes.size());
}

py::bytes deflate(const py::buffer& buffer, bool last) {
    const View bytes(buffer);
    // Kept by each thread: fresh memory for each picture takes longer than to write to it.
    static thread_local std::vector<std::uint8_t> out;
    std::size_t used = 0;
    {
        const py::gil_scoped_release released;
        out.resize(std::max(out.size(), actgrid::deflate_capacity(bytes.size())));
        used = actgrid::deflate(bytes.data(), bytes.size(), last, out.data());
    }
    return {reinterpret_cast<const char*>(out.data()), used};
}

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;

void filter_paeth(const Bytes& rows, Bytes filtered) {
    if (rows.ndim() != 2 || filtered.ndim() != 2 || rows.shape(0) != filtered.shape(0) ||
        rows.shape(1) != filtered.shape(1) || rows.shape(1) < 2)
        throw py::value_error("rows and filtered must be of one shape, (height, 1 + width)");
    std::uint8_t* out = filtered.mutable_data();
    const py::gil_scoped_release released;
    // The first byte of each row tells the filter.
    actgrid::filter_paeth(rows.data() + 1, rows.shape(0), rows.shape(1) - 1, rows.shape(1),
                          out + 1);
}

using Floats = py::array_t<float, py::array::c_style>;

// Of one map or several.
actgrid::Maps maps_of(const Floats& values) {
    const py::ssize_t rank = values.ndim();
    if (rank < 2 || values.size() == 0) throw py::value_error("values must not be empty");
    return {values.data(), rank == 3 ? values.shape(0) : 1, values.shape(rank - 2),
            values.shape(rank - 1)};
}

void resize(const Floats& values, Floats resized, int threads) {
    if (values.ndim() != 3 || resized.ndim() != 3 || resized.shape(0) != values.shape(0) ||
        resized.size() == 0)
        throw py::value_error("values and resized must be (maps, height, width), of as many maps");
    const actgrid::Maps maps = maps_of(values);
    float* out = resized.mutable_data();
    const py::gil_scoped_release released;
    actgrid::resize(maps, resized.shape(1), resized.shape(2), out, threads);
}

void overlay(const Floats& values, double shift, double scale, double base, const Bytes& palette,
             const Bytes& image, double alpha, Bytes overlaid, int threads) {
    if (values.ndim() != 2) throw py::value_error("values must be (height, width)");
    const actgrid::Maps map = maps_of(values);
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
    actgrid::simd_variant();  // chosen now, before there are threads
    module.def("measure", &measure, py::arg("tiles"), py::arg("threads"));
    module.def("paint", &paint, py::arg("tiles"), py::arg("shift"), py::arg("scale"),
               py::arg("base"), py::arg("origin"), py::arg("canvas").noconvert(),
               py::arg("threads"));
    module.def("filter_paeth", &filter_paeth, py::arg("rows").noconvert(),
               py::arg("filtered").noconvert());
    module.def("resize", &resize, py::arg("values").noconvert(), py::arg("resized").noconvert(),
               py::arg("threads"));
    module.def("overlay", &overlay, py::arg("values").noconvert(), py::arg("shift"),
               py::arg("scale"), py::arg("base"), py::arg("palette").noconvert(),
               py::arg("image").noconvert(), py::arg("alpha"), py::arg("overlaid").noconvert(),
               py::arg("threads"));
    module.def("estimate_deflated", &estimate_deflated, py::arg("data"));
    module.def("deflate", &deflate, py::arg("data"), py::arg("last"));
    module.def("percentiles", &percentiles, py::arg("tiles"), py::arg("low"), py::arg("high"),
               py::arg("pooled"), py::arg("threads"));
    module.def("simd_variants", &actgrid::simd_variants);
    module.def("simd_variant", &actgrid::simd_variant);
    module.def("use_simd_variant", &actgrid::use_simd_variant, py::arg("name"));
}
