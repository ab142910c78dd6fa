// actgrid._core: the C++ library as Python sees it. Checks arguments, knows nothing else.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "actgrid/cpu.hpp"
#include "actgrid/measure.hpp"
#include "actgrid/paint.hpp"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Integers = py::array_t<std::int64_t, py::array::c_style>;

actgrid::DType dtype_of(const py::array& array) {
    static constexpr std::array<std::pair<const char*, actgrid::DType>, 13> names{{
        {"float16", actgrid::DType::float16},
        {"bfloat16", actgrid::DType::bfloat16},
        {"float32", actgrid::DType::float32},
        {"float64", actgrid::DType::float64},
        {"int8", actgrid::DType::int8},
        {"int16", actgrid::DType::int16},
        {"int32", actgrid::DType::int32},
        {"int64", actgrid::DType::int64},
        {"uint8", actgrid::DType::uint8},
        {"uint16", actgrid::DType::uint16},
        {"uint32", actgrid::DType::uint32},
        {"uint64", actgrid::DType::uint64},
        {"bool", actgrid::DType::uint8},
    }};
    const auto wanted = array.dtype().attr("name").cast<std::string>();
    for (const auto& [name, dtype] : names)
        if (wanted == name && array.dtype().attr("isnative").cast<bool>()) return dtype;
    throw py::type_error("tiles of dtype " + wanted + " are not supported");
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
    std::vector<actgrid::TileStats> stats(static_cast<std::size_t>(tiles.count()));
    {
        const py::gil_scoped_release released;
        actgrid::measure(tiles, stats.data(), threads);
    }
    const auto column = [&]<class T>(T actgrid::TileStats::* field) {
        py::array_t<T> values({tiles.channels, tiles.slices});
        for (py::ssize_t i = 0; i < tiles.count(); ++i)
            values.mutable_data()[i] = stats[static_cast<std::size_t>(i)].*field;
        return values;
    };
    return py::make_tuple(column(&actgrid::TileStats::mean), column(&actgrid::TileStats::std),
                          column(&actgrid::TileStats::min), column(&actgrid::TileStats::max),
                          column(&actgrid::TileStats::zeros),
                          column(&actgrid::TileStats::nonfinite));
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
        if (start >= 0 && (start / stride + tiles.height > canvas.shape(0) ||
                           start % stride + tiles.width > canvas.shape(1)))
            throw py::value_error("a tile does not fit on the canvas at its origin");
    }
    const actgrid::Mapping mapping{shift.data(), scale.data(), base.data()};
    const actgrid::Canvas target{canvas.mutable_data(), stride, origin.data()};
    const py::gil_scoped_release released;
    actgrid::paint(tiles, mapping, target, threads);
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    module.doc() = "The compiled core of actgrid.";
    module.def("measure", &measure, py::arg("tiles"), py::arg("threads"));
    module.def("paint", &paint, py::arg("tiles"), py::arg("shift"), py::arg("scale"),
               py::arg("base"), py::arg("origin"), py::arg("canvas").noconvert(),
               py::arg("threads"));
    module.def("cpu_features", &actgrid::cpu_features);
}
