from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from actgrid import Extractor, render
from actgrid.errors import FormatError, MissingFileError, OptionError, OutputError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.rendering.backends import find_backend_problems
from actgrid.rendering.stats import list_stat_arrays
from actgrid.statistics.dataset import DatasetStats, add_image, get_top_thresholds, stats_to_bytes
from actgrid.statistics.layer_stats import TopImage
from actgrid.statistics.measurements import measure_batch, measure_sample

Array = npt.NDArray[Any]
NAMES = ("count", "mean", "std", "min", "max", "zero_fraction", "nonfinite", "activating_images")
BACKENDS = [name for name, problem in find_backend_problems().items() if problem is None]


def make_info(
    path: str, activation: Array | tuple[int, ...], data_format: str = "channels_last"
) -> LayerInfo:
    shape = activation if isinstance(activation, tuple) else activation.shape
    return LayerInfo(path, "Conv2D", (None, *shape[1:]), "float32", data_format, 0, 0)


def make_random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def measure(activation: Array, top: int = 9, **options: Any) -> Any:
    """Return the statistics of a single layer."""
    stats = DatasetStats(top=top)
    stats.update({"layer": activation}, {"layer": make_info("layer", activation, **options)})
    return stats.layers["layer"]


def assert_same(found: DatasetStats, truth: DatasetStats) -> None:
    """Check that means and deviations agree to 1e-6, and all other values exactly."""
    assert (found.images, found.top) == (truth.images, truth.top)
    assert list(found.layers) == list(truth.layers)
    for path, layer in found.layers.items():
        other = truth.layers[path]
        assert layer.info == other.info
        for name in NAMES:
            mine, theirs = getattr(layer, name), getattr(other, name)
            if name in ("mean", "std"):
                np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-12)
            else:
                np.testing.assert_array_equal(mine, theirs, err_msg=name)
        for name in ("top_max", "top_index", "top_position"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(other, name), err_msg=name)
        for channel in range(layer.count.size):
            assert layer.get_top_images(channel) == other.get_top_images(channel)


# --- measurement


def test_statistics_of_two_images_computed_by_hand() -> None:
    images = np.zeros((2, 1, 2, 3), np.float32)
    images[0, 0, :, 0] = [1, 3]
    images[1, 0, :, 0] = [0, 4]
    images[:, 0, :, 1] = -1
    images[1, 0, 1, 2] = np.nan
    layer = measure(images, top=1)
    assert layer.images == 2
    np.testing.assert_array_equal(layer.count, [4, 4, 3])
    np.testing.assert_array_equal(layer.mean, [2, -1, 0])
    np.testing.assert_allclose(layer.std, [np.sqrt(2.5), 0, 0])
    np.testing.assert_array_equal(layer.min, [0, -1, 0])
    np.testing.assert_array_equal(layer.max, [4, -1, 0])
    np.testing.assert_array_equal(layer.zero_fraction, [0.25, 0, 1])
    np.testing.assert_array_equal(layer.nonfinite, [0, 0, 1])
    np.testing.assert_array_equal(layer.activating_images, [2, 0, 0])
    np.testing.assert_array_equal(layer.dead, [False, True, False])
    assert layer.get_top_images(0) == [TopImage(1, "000001", 4.0, (0, 1))]
    assert layer.get_top_images(1) == [TopImage(0, "000000", -1.0, (0, 0))]


def test_small_deviation_around_large_mean_is_accurate() -> None:
    images = (1e4 + 1e-2 * make_random(40, 8, 8, 1)).astype(np.float32)
    layer = measure(images)
    truth = images.astype(np.float64)
    assert layer.mean[0] == pytest.approx(truth.mean(), rel=1e-12)
    assert layer.std[0] == pytest.approx(truth.std(), rel=1e-9)


@given(st.data())
def test_statistics_equal_numpy_over_all_images(data: Any) -> None:
    count = data.draw(st.integers(1, 7))
    values = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 6.0, np.nan, np.inf, -np.inf])
    flat = data.draw(st.lists(values, min_size=count * 8, max_size=count * 8))
    images = np.array(flat, np.float32).reshape(count, 2, 2, 2)
    top = data.draw(st.integers(1, 3))
    layer = measure(images, top=top)
    for channel in range(2):
        channel_values = images[..., channel]
        finite = channel_values[np.isfinite(channel_values)].astype(np.float64)
        assert layer.count[channel] == finite.size
        assert layer.nonfinite[channel] == channel_values.size - finite.size
        maxima = [pixels[np.isfinite(pixels)].max(initial=-np.inf) for pixels in channel_values]
        assert layer.activating_images[channel] == sum(maximum > 0 for maximum in maxima)
        if finite.size:
            assert layer.mean[channel] == pytest.approx(finite.mean())
            assert layer.std[channel] == pytest.approx(finite.std())
            assert (layer.min[channel], layer.max[channel]) == (finite.min(), finite.max())
            assert layer.zero_fraction[channel] == pytest.approx((finite == 0).mean())
        else:
            for name in ("mean", "std", "min", "max", "zero_fraction"):
                assert np.isnan(getattr(layer, name)[channel])
        best = sorted(
            (-maximum, index) for index, maximum in enumerate(maxima) if np.isfinite(maximum)
        )[:top]
        found = layer.get_top_images(channel)
        assert [(-image.maximum, image.index) for image in found] == best
        for image in found:
            assert image.position == tuple(
                np.argwhere(channel_values[image.index] == image.maximum)[0]
            )


KINDS: dict[str, tuple[tuple[int, ...], str]] = {
    "image": ((3, 5, 7, 4), "channels_last"),
    "image, channels first": ((3, 4, 5, 7), "channels_first"),
    "one pixel": ((3, 1, 1, 4), "channels_last"),
    "volume": ((3, 2, 5, 7, 4), "channels_last"),
    "volume, channels first": ((3, 4, 2, 5, 7), "channels_first"),
    "sequence": ((3, 9, 4), "channels_last"),
    "sequence, channels first": ((3, 4, 9), "channels_first"),
    "dense": ((3, 4), "channels_last"),
}
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, np.uint16, np.int64]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("shape", "data_format"), KINDS.values(), ids=KINDS)
def test_every_kind_and_dtype(
    shape: tuple[int, ...], data_format: str, dtype: Any, backend: str
) -> None:
    activation = (make_random(*shape) * 20 + 30).astype(dtype)
    about = make_info("layer", activation, data_format)
    found = measure_batch(about, activation, batch=3, backend=backend)
    last = np.moveaxis(activation, 1, -1) if data_format == "channels_first" else activation
    for sample, layer in enumerate(found):
        values = last[sample].astype(np.float64)
        axes = tuple(range(values.ndim - 1))
        assert layer.shape == shape[1:]
        np.testing.assert_allclose(layer.stats.mean, values.mean(axes))
        np.testing.assert_allclose(layer.stats.std, values.std(axes), atol=1e-9)
        np.testing.assert_array_equal(layer.stats.max, values.max(axes))
        np.testing.assert_array_equal(layer.channels, range(4))
        assert layer.positions.shape == (4, values.ndim - 1)
        for channel, place in enumerate(layer.positions):
            first = np.argwhere(values[..., channel] == values[..., channel].max())[0]
            np.testing.assert_array_equal(place, first)
        grid = draw_layer(about, activation, batch=3, sample=sample, backend=backend)
        drawn = measure_sample(about, activation, sample, grid.stats)
        for mine, theirs in zip(
            list_stat_arrays(layer.stats), list_stat_arrays(drawn.stats), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(layer.positions, drawn.positions)


def test_position_of_maximum_in_large_image() -> None:
    activation = make_random(1, 300, 400, 3)
    activation[0, 299, 399, 0] = 100
    activation[0, 150, 7, 1] = 100
    activation[0, 200, 7, 1] = 100
    (layer,) = measure_batch(make_info("layer", activation), activation, batch=1)
    assert layer.positions[:2].tolist() == [[299, 399], [150, 7]]
    assert layer.positions[2].tolist() == list(
        np.unravel_index(activation[0, ..., 2].argmax(), (300, 400))
    )


def test_positions_are_found_only_above_threshold() -> None:
    activation = np.array([1, 2, 3, np.nan], np.float32).reshape(1, 1, 1, 4)
    threshold = np.array([2, 2, 2, 2.0])
    (layer,) = measure_batch(
        make_info("layer", activation), activation, batch=1, threshold=threshold
    )
    assert layer.channels.tolist() == [1, 2]


def test_single_output_for_batch_counts_for_each_image() -> None:
    activation = make_random(1, 4, 4, 2)
    about = make_info("layer", activation)
    found = measure_batch(about, activation, batch=3)
    assert len(found) == 3
    drawn = measure_sample(about, activation, 2, render(activation).stats)
    np.testing.assert_array_equal(found[2].positions, drawn.positions)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 4, 4, 2), "empty"), ((2, 4, 4, 2), "does not contain 3 images")],
)
def test_activation_of_wrong_batch_is_rejected(shape: tuple[int, ...], message: str) -> None:
    activation = np.zeros(shape, np.float32)
    with pytest.raises(ShapeError, match=message):
        measure_batch(make_info("layer", activation), activation, batch=3)


def test_dead_and_nearly_dead() -> None:
    images = np.zeros((200, 2, 2, 4), np.float32)
    images[:, 0, 0, 0] = 1
    images[7, 0, 0, 1] = 1  # one image of 200
    images[:3, 0, 0, 2] = 1  # three of them
    layer = measure(images)
    assert layer.dead.tolist() == [False, False, False, True]
    assert layer.find_nearly_dead().tolist() == [False, True, False, False]
    assert layer.find_nearly_dead(0.02).tolist() == [False, True, True, False]
    with pytest.raises(OptionError, match="fraction must be a number from 0 to 1, not 2"):
        layer.find_nearly_dead(2)


# --- many images


def make_two_layers(count: int = 12) -> tuple[dict[str, Array], dict[str, LayerInfo]]:
    # Few different values, so that maxima are often equal.
    conv = np.round(make_random(count, 4, 5, 6) * 2)
    conv[::3, ..., 1] = np.nan
    conv[..., 2] = 0
    dense = np.round(make_random(count, 3, seed=1))
    activations = {"conv": conv, "dense": dense}
    return activations, {path: make_info(path, values) for path, values in activations.items()}


def add_all(order: Any, activations: dict[str, Array], infos: dict[str, LayerInfo]) -> DatasetStats:
    stats = DatasetStats(top=4)
    for index in order:
        batch = {path: values[index : index + 1] for path, values in activations.items()}
        stats.update(batch, infos, [f"{index}.jpg"], start=index)
    return stats


@given(st.permutations(range(12)), st.integers(0, 12), st.booleans())
def test_result_does_not_depend_on_order_or_merging(
    order: list[int], cut: int, swapped: bool
) -> None:
    activations, infos = make_two_layers()
    all_stats = DatasetStats(top=4)
    all_stats.update(activations, infos, [f"{index}.jpg" for index in range(12)])
    parts = [add_all(order[:cut], activations, infos), add_all(order[cut:], activations, infos)]
    first, second = reversed(parts) if swapped else parts
    first.merge(second)
    assert_same(first, all_stats)


def test_same_order_gives_same_bytes() -> None:
    activations, infos = make_two_layers()
    found = [stats_to_bytes(add_all(range(12), activations, infos)) for _ in range(2)]
    assert found[0] == found[1]


def test_earlier_threshold_gives_same_result() -> None:
    activations, infos = make_two_layers()
    truth, stale = DatasetStats(top=2), DatasetStats(top=2)
    for index in range(12):
        measured = [
            measure_batch(infos[path], values[index : index + 1], batch=1)[0]
            for path, values in activations.items()
        ]
        add_image(stale, index, str(index), measured)
        floored = [
            measure_sample(layer.info, activations[layer.info.path], index, layer.stats, threshold)
            for layer in measured
            for threshold in [get_top_thresholds(truth, index).get(layer.info.path)]
        ]
        add_image(truth, index, str(index), floored)
    assert_same(stale, truth)


def test_equal_maximum_enters_only_with_lower_index() -> None:
    stats = DatasetStats(top=1)
    activation = np.full((1, 2, 2, 1), 6, np.float32)
    about = {"layer": make_info("layer", activation)}
    assert get_top_thresholds(stats) == {}
    stats.update({"layer": activation}, about, start=5)
    lower, higher = (get_top_thresholds(stats, index)["layer"] for index in (4, 6))
    assert lower[0] == 6 < higher[0]
    assert (
        len(measure_batch(about["layer"], activation, batch=1, threshold=higher)[0].channels) == 0
    )
    stats.update({"layer": activation}, about, start=4)
    assert stats.layers["layer"].top_index.tolist() == [[4]]


def test_names_of_other_images_are_removed() -> None:
    activation = np.zeros((5000, 1, 1, 1), np.float32)
    activation[:, 0, 0, 0] = np.arange(5000)
    stats = DatasetStats(top=2)
    stats.update({"layer": activation}, {"layer": make_info("layer", activation)})
    assert len(stats._accumulator.names) <= 1024
    assert [image.name for image in stats.layers["layer"].get_top_images(0)] == ["004999", "004998"]


def test_a_real_model() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, name="dense"),
        ]
    )
    extractor = Extractor(model, ["conv", "dense"])
    images = make_random(5, 8, 8, 3)
    stats = DatasetStats(top=3)
    for start in range(0, 5, 2):
        activations = extractor(images[start : start + 2])
        stats.update(activations, extractor.layers)
    truth = extractor(images)
    assert stats.images == 5
    assert {path: layer.count.size for path, layer in stats.layers.items()} == {
        "conv": 4,
        "dense": 5,
    }
    np.testing.assert_allclose(stats.layers["conv"].mean, truth["conv"].mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(stats.layers["dense"].std, truth["dense"].std(0), rtol=1e-5)
    best = int(truth["dense"][:, 2].argmax())
    assert stats.layers["dense"].get_top_images(2)[0].index == best
    assert repr(stats) == "<DatasetStats 5 images, 2 layers, 9 channels>"


# --- errors


def test_number_of_names_must_match() -> None:
    activation = make_random(2, 4, 4, 2)
    with pytest.raises(OptionError, match="got 3 names for 2 images"):
        DatasetStats().update(
            {"layer": activation}, {"layer": make_info("layer", activation)}, ["a", "b", "c"]
        )


@pytest.mark.parametrize("top", [0, 1.5, "many"])
def test_top_must_be_a_positive_integer(top: Any) -> None:
    with pytest.raises(OptionError, match="top must be"):
        DatasetStats(top=top)


def test_statistics_of_other_layers_are_rejected() -> None:
    def make_stats(**channels: int) -> DatasetStats:
        new_stats = DatasetStats()
        activations = {path: make_random(1, 2, 2, count) for path, count in channels.items()}
        new_stats.update(
            activations, {path: make_info(path, values) for path, values in activations.items()}
        )
        return new_stats

    for other, message in [
        (make_stats(conv=3), "layer pool is in these statistics, and not in the added"),
        (
            make_stats(conv=3, pool=3, last=1),
            "layer last is not in these statistics, and in the added",
        ),
        (
            make_stats(conv=3, pool=4),
            "layer pool has 3 channels in these statistics, 4 in the added",
        ),
        (make_stats(pool=3, conv=3), "in another order"),
    ]:
        mine = make_stats(conv=3, pool=3)
        before = stats_to_bytes(mine)
        with pytest.raises(ShapeError, match=message):
            mine.merge(other)
        assert stats_to_bytes(mine) == before
    with pytest.raises(OptionError, match="top=9 and top=4 cannot be merged"):
        mine.merge(DatasetStats(top=4))


def test_merging_with_empty_statistics() -> None:
    activations, infos = make_two_layers()
    truth, empty = add_all(range(12), activations, infos), DatasetStats(top=4)
    empty.merge(truth)
    assert_same(empty, truth)
    truth.merge(DatasetStats(top=4))
    assert_same(truth, empty)
    # The loaded statistics are independent of the saved ones.
    empty.update({path: values[:1] for path, values in activations.items()}, infos)
    assert truth.images == 12
    assert truth.layers["conv"].count[0] == 240


# --- files


def test_save_and_load(tmp_path: Path) -> None:
    activations, infos = make_two_layers()
    stats = add_all(range(12), activations, infos)
    stats.update(
        {path: values[:1] for path, values in activations.items()}, infos, ["\udcff<é>.jpg"]
    )
    file = tmp_path / "stats.npz"
    stats.save(file)
    loaded = DatasetStats.load(file)
    assert_same(loaded, stats)
    assert stats_to_bytes(loaded) == file.read_bytes()
    more = {path: values[:1] for path, values in activations.items()}
    for statistics in (loaded, stats):
        statistics.update(more, infos)
    assert stats_to_bytes(loaded) == stats_to_bytes(stats)


def test_numpy_reads_the_file(tmp_path: Path) -> None:
    activations, infos = make_two_layers()
    add_all(range(12), activations, infos).save(tmp_path / "stats.npz")
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as file:
        assert file["mean"].shape == (9,)
        assert file["top_position"].shape == (9, 4, 3)
        about = json.loads(file["about"].tobytes())
    assert about["channels"] == [6, 3]


def make_npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def change_npz(**arrays: Any) -> bytes:
    activations, infos = make_two_layers()
    data = stats_to_bytes(add_all(range(2), activations, infos))
    with np.load(io.BytesIO(data)) as file:
        return make_npz(**(dict(file) | arrays))


OTHERS = {
    "nothing": lambda: b"",
    "text": lambda: b"not at all",
    "an array": lambda: make_npz(x=np.zeros(3))[:40],
    "other arrays": lambda: make_npz(x=np.zeros(3)),
    "objects": lambda: change_npz(mean=np.array([{}] * 9, object)),
    "fewer channels": lambda: change_npz(mean=np.zeros(8)),
    "another dtype": lambda: change_npz(mean=np.zeros(9, np.float32)),
    "another format": lambda: change_npz(about=np.frombuffer(b'{"format": "x"}', np.uint8)),
    "half of it": lambda: change_npz()[:900],
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_file_of_another_format_is_rejected(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "stats.npz"
    file.write_bytes(make())
    with pytest.raises(
        FormatError, match=r"stats\.npz: not a statistics file of this version of actgrid"
    ):
        DatasetStats.load(file)


def test_earlier_format_version_is_rejected(tmp_path: Path) -> None:
    about = json.dumps({"format": "actgrid dataset statistics 1"}).encode()
    file = tmp_path / "stats.npz"
    file.write_bytes(make_npz(about=np.frombuffer(about, np.uint8), deviation=np.zeros(3)))
    with pytest.raises(FormatError, match=r"format version 1, expected 2: measure the images"):
        DatasetStats.load(file)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no file"):
        DatasetStats.load(tmp_path / "stats.npz")
    with pytest.raises(MissingFileError, match=r"there is no file .*stats\.npz"):
        DatasetStats.load(tmp_path)
    (tmp_path / "stats.npz").mkdir()
    with pytest.raises(FormatError, match="cannot read"):
        DatasetStats.load(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        DatasetStats().save(tmp_path / "none" / "stats.npz")


def test_summary() -> None:
    images = np.zeros((2, 2, 2, 3), np.float32)
    images[:, 0, 0, 1] = -1
    images[:, 0, 0, 2] = 1
    stats = DatasetStats(top=2)
    stats.update({"conv": images}, {"conv": make_info("conv", images)})
    summary = stats.summary(nearly_dead_fraction=0.5)
    assert summary == {
        "images": 2,
        "top": 2,
        "nearly_dead_fraction": 0.5,
        "totals": {"layers": 1, "channels": 3, "dead": 1, "nearly_dead": 1, "nonfinite": 0},
        "layers": [
            {
                "path": "conv",
                "type": "Conv2D",
                "channels": 3,
                "dead": 1,
                "nearly_dead": 1,
                "nonfinite": 0,
                "dead_channels": [0],
                "nearly_dead_channels": [1],
            }
        ],
    }
    assert json.loads(json.dumps(summary)) == summary


def test_to_frame() -> None:
    activations, infos = make_two_layers()
    stats = add_all(range(12), activations, infos)
    frame = stats.to_frame()
    assert frame.index.names == ["layer", "channel"]
    assert len(frame) == sum(layer.count.size for layer in stats.layers.values())
    for path, layer in stats.layers.items():
        part = frame.loc[path]
        assert part.index.tolist() == list(range(layer.count.size))
        for name in (
            "count",
            "mean",
            "std",
            "min",
            "max",
            "zero_fraction",
            "activating_images",
            "dead",
        ):
            np.testing.assert_array_equal(part[name], getattr(layer, name))
    assert DatasetStats().to_frame().empty
