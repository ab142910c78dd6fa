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
from actgrid.rendering.backends import backend_problems
from actgrid.rendering.stats import arrays_of
from actgrid.statistics.dataset import DatasetStats, add_image, bytes_of, top_thresholds
from actgrid.statistics.layer_stats import TopImage
from actgrid.statistics.measurements import measure_batch, measure_sample

Array = npt.NDArray[Any]
NAMES = ("count", "mean", "std", "min", "max", "zero_fraction", "nonfinite", "activated")
BACKENDS = [name for name, problem in backend_problems().items() if problem is None]


def info(
    path: str, activation: Array | tuple[int, ...], data_format: str = "channels_last"
) -> LayerInfo:
    shape = activation if isinstance(activation, tuple) else activation.shape
    return LayerInfo(path, "Conv2D", (None, *shape[1:]), "float32", data_format, 0, 0)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def of(activation: Array, top: int = 9, **options: Any) -> Any:
    """Return the statistics of the one layer that is given."""
    stats = DatasetStats(top=top)
    stats.update({"layer": activation}, {"layer": info("layer", activation, **options)})
    return stats.layers["layer"]


def assert_same(found: DatasetStats, truth: DatasetStats) -> None:
    """Means and deviations agree to 1e-6, everything else exactly."""
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
        for name in ("top_max", "top_index", "top_place"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(other, name), err_msg=name)
        for channel in range(layer.count.size):
            assert layer.top(channel) == other.top(channel)


# What is measured


def test_two_images_by_hand() -> None:
    images = np.zeros((2, 1, 2, 3), np.float32)
    images[0, 0, :, 0] = [1, 3]
    images[1, 0, :, 0] = [0, 4]
    images[:, 0, :, 1] = -1
    images[1, 0, 1, 2] = np.nan
    layer = of(images, top=1)
    assert layer.images == 2
    np.testing.assert_array_equal(layer.count, [4, 4, 3])
    np.testing.assert_array_equal(layer.mean, [2, -1, 0])
    np.testing.assert_allclose(layer.std, [np.sqrt(2.5), 0, 0])
    np.testing.assert_array_equal(layer.min, [0, -1, 0])
    np.testing.assert_array_equal(layer.max, [4, -1, 0])
    np.testing.assert_array_equal(layer.zero_fraction, [0.25, 0, 1])
    np.testing.assert_array_equal(layer.nonfinite, [0, 0, 1])
    np.testing.assert_array_equal(layer.activated, [2, 0, 0])
    np.testing.assert_array_equal(layer.dead, [False, True, False])
    assert layer.top(0) == [TopImage(1, "000001", 4.0, (0, 1))]
    assert layer.top(1) == [TopImage(0, "000000", -1.0, (0, 0))]


def test_a_large_mean_with_a_small_deviation_is_not_cancelled() -> None:
    images = (1e4 + 1e-2 * random(40, 8, 8, 1)).astype(np.float32)
    layer = of(images)
    truth = images.astype(np.float64)
    assert layer.mean[0] == pytest.approx(truth.mean(), rel=1e-12)
    assert layer.std[0] == pytest.approx(truth.std(), rel=1e-9)


@given(st.data())
def test_it_is_what_numpy_says_of_all_images_together(data: Any) -> None:
    count = data.draw(st.integers(1, 7))
    values = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 6.0, np.nan, np.inf, -np.inf])
    flat = data.draw(st.lists(values, min_size=count * 8, max_size=count * 8))
    images = np.array(flat, np.float32).reshape(count, 2, 2, 2)
    top = data.draw(st.integers(1, 3))
    layer = of(images, top=top)
    for channel in range(2):
        one = images[..., channel]
        finite = one[np.isfinite(one)].astype(np.float64)
        assert layer.count[channel] == finite.size
        assert layer.nonfinite[channel] == one.size - finite.size
        maxima = [pixels[np.isfinite(pixels)].max(initial=-np.inf) for pixels in one]
        assert layer.activated[channel] == sum(maximum > 0 for maximum in maxima)
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
        found = layer.top(channel)
        assert [(-image.maximum, image.index) for image in found] == best
        for image in found:
            assert image.place == tuple(np.argwhere(one[image.index] == image.maximum)[0])


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
    activation = (random(*shape) * 20 + 30).astype(dtype)
    about = info("layer", activation, data_format)
    found = measure_batch(about, activation, batch=3, backend=backend)
    last = np.moveaxis(activation, 1, -1) if data_format == "channels_first" else activation
    for sample, layer in enumerate(found):
        one = last[sample].astype(np.float64)
        axes = tuple(range(one.ndim - 1))
        assert layer.shape == shape[1:]
        np.testing.assert_allclose(layer.stats.mean, one.mean(axes))
        np.testing.assert_allclose(layer.stats.std, one.std(axes), atol=1e-9)
        np.testing.assert_array_equal(layer.stats.max, one.max(axes))
        np.testing.assert_array_equal(layer.channels, range(4))
        assert layer.places.shape == (4, one.ndim - 1)
        for channel, place in enumerate(layer.places):
            first = np.argwhere(one[..., channel] == one[..., channel].max())[0]
            np.testing.assert_array_equal(place, first)
        grid = draw_layer(about, activation, batch=3, sample=sample, backend=backend)
        drawn = measure_sample(about, activation, sample, grid.stats)
        for mine, theirs in zip(arrays_of(layer.stats), arrays_of(drawn.stats), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(layer.places, drawn.places)


def test_the_place_is_found_far_inside_a_large_image() -> None:
    activation = random(1, 300, 400, 3)
    activation[0, 299, 399, 0] = 100
    activation[0, 150, 7, 1] = 100
    activation[0, 200, 7, 1] = 100
    (layer,) = measure_batch(info("layer", activation), activation, batch=1)
    assert layer.places[:2].tolist() == [[299, 399], [150, 7]]
    assert layer.places[2].tolist() == list(
        np.unravel_index(activation[0, ..., 2].argmax(), (300, 400))
    )


def test_only_what_reaches_the_floor_is_looked_for() -> None:
    activation = np.array([1, 2, 3, np.nan], np.float32).reshape(1, 1, 1, 4)
    threshold = np.array([2, 2, 2, 2.0])
    (layer,) = measure_batch(info("layer", activation), activation, batch=1, threshold=threshold)
    assert layer.channels.tolist() == [1, 2]


def test_a_layer_that_gives_one_output_for_the_batch_gives_it_for_each_image() -> None:
    activation = random(1, 4, 4, 2)
    about = info("layer", activation)
    found = measure_batch(about, activation, batch=3)
    assert len(found) == 3
    drawn = measure_sample(about, activation, 2, render(activation).stats)
    np.testing.assert_array_equal(found[2].places, drawn.places)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 4, 4, 2), "empty"), ((2, 4, 4, 2), "no activation of 3 images")],
)
def test_what_is_not_of_the_batch_is_refused(shape: tuple[int, ...], message: str) -> None:
    activation = np.zeros(shape, np.float32)
    with pytest.raises(ShapeError, match=message):
        measure_batch(info("layer", activation), activation, batch=3)


def test_dead_and_nearly_dead() -> None:
    images = np.zeros((200, 2, 2, 4), np.float32)
    images[:, 0, 0, 0] = 1
    images[7, 0, 0, 1] = 1  # one image of 200
    images[:3, 0, 0, 2] = 1  # three of them
    layer = of(images)
    assert layer.dead.tolist() == [False, False, False, True]
    assert layer.nearly_dead().tolist() == [False, True, False, False]
    assert layer.nearly_dead(0.02).tolist() == [False, True, True, False]
    with pytest.raises(OptionError, match="share must be a number from 0 to 1, not 2"):
        layer.nearly_dead(2)


# Many images


def two_layers(count: int = 12) -> tuple[dict[str, Array], dict[str, LayerInfo]]:
    # Few different values: equal maxima are common.
    conv = np.round(random(count, 4, 5, 6) * 2)
    conv[::3, ..., 1] = np.nan
    conv[..., 2] = 0
    dense = np.round(random(count, 3, seed=1))
    activations = {"conv": conv, "dense": dense}
    return activations, {path: info(path, values) for path, values in activations.items()}


def added(order: Any, activations: dict[str, Array], infos: dict[str, LayerInfo]) -> DatasetStats:
    stats = DatasetStats(top=4)
    for index in order:
        one = {path: values[index : index + 1] for path, values in activations.items()}
        stats.update(one, infos, [f"{index}.jpg"], start=index)
    return stats


@given(st.permutations(range(12)), st.integers(0, 12), st.booleans())
def test_neither_order_nor_merging_matters(order: list[int], cut: int, swapped: bool) -> None:
    activations, infos = two_layers()
    whole = DatasetStats(top=4)
    whole.update(activations, infos, [f"{index}.jpg" for index in range(12)])
    parts = [added(order[:cut], activations, infos), added(order[cut:], activations, infos)]
    first, second = reversed(parts) if swapped else parts
    first.merge(second)
    assert_same(first, whole)


def test_the_same_order_makes_the_same_bytes() -> None:
    activations, infos = two_layers()
    found = [bytes_of(added(range(12), activations, infos)) for _ in range(2)]
    assert found[0] == found[1]


def test_a_stale_floor_changes_nothing() -> None:
    activations, infos = two_layers()
    truth, stale = DatasetStats(top=2), DatasetStats(top=2)
    for index in range(12):
        one = [
            measure_batch(infos[path], values[index : index + 1], batch=1)[0]
            for path, values in activations.items()
        ]
        add_image(stale, index, str(index), one)
        floored = [
            measure_sample(layer.info, activations[layer.info.path], index, layer.stats, threshold)
            for layer in one
            for threshold in [top_thresholds(truth, index).get(layer.info.path)]
        ]
        add_image(truth, index, str(index), floored)
    assert_same(stale, truth)


def test_an_equal_maximum_reaches_the_floor_only_with_a_lower_index() -> None:
    stats = DatasetStats(top=1)
    activation = np.full((1, 2, 2, 1), 6, np.float32)
    about = {"layer": info("layer", activation)}
    assert top_thresholds(stats) == {}
    stats.update({"layer": activation}, about, start=5)
    lower, higher = (top_thresholds(stats, index)["layer"] for index in (4, 6))
    assert lower[0] == 6 < higher[0]
    assert (
        len(measure_batch(about["layer"], activation, batch=1, threshold=higher)[0].channels) == 0
    )
    stats.update({"layer": activation}, about, start=4)
    assert stats.layers["layer"].top_index.tolist() == [[4]]


def test_names_of_images_at_no_top_are_forgotten() -> None:
    activation = np.zeros((5000, 1, 1, 1), np.float32)
    activation[:, 0, 0, 0] = np.arange(5000)
    stats = DatasetStats(top=2)
    stats.update({"layer": activation}, {"layer": info("layer", activation)})
    assert len(stats._accumulator.names) <= 1024
    assert [image.name for image in stats.layers["layer"].top(0)] == ["004999", "004998"]


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
    images = random(5, 8, 8, 3)
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
    assert stats.layers["dense"].top(2)[0].index == best
    assert repr(stats) == "<DatasetStats 5 images, 2 layers, 9 channels>"


# What does not fit


def test_other_names_than_images_are_refused() -> None:
    activation = random(2, 4, 4, 2)
    with pytest.raises(OptionError, match="3 names were given for 2 images"):
        DatasetStats().update(
            {"layer": activation}, {"layer": info("layer", activation)}, ["a", "b", "c"]
        )


@pytest.mark.parametrize("top", [0, 1.5, "many"])
def test_top_must_be_a_positive_integer(top: Any) -> None:
    with pytest.raises(OptionError, match="top must be"):
        DatasetStats(top=top)


def test_statistics_of_other_layers_are_not_merged() -> None:
    def stats(**channels: int) -> DatasetStats:
        made = DatasetStats()
        activations = {path: random(1, 2, 2, count) for path, count in channels.items()}
        made.update(activations, {path: info(path, one) for path, one in activations.items()})
        return made

    for other, message in [
        (stats(conv=3), "with layer pool, what is added is without it"),
        (stats(conv=3, pool=3, last=1), "without layer last, what is added is with it"),
        (stats(conv=3, pool=4), "layer pool has 3 channels here, 4 in what is added"),
        (stats(pool=3, conv=3), "in another order"),
    ]:
        mine = stats(conv=3, pool=3)
        before = bytes_of(mine)
        with pytest.raises(ShapeError, match=message):
            mine.merge(other)
        assert bytes_of(mine) == before
    with pytest.raises(OptionError, match="top=9 and with top=4 cannot be merged"):
        mine.merge(DatasetStats(top=4))


def test_an_empty_one_merges_both_ways() -> None:
    activations, infos = two_layers()
    truth, empty = added(range(12), activations, infos), DatasetStats(top=4)
    empty.merge(truth)
    assert_same(empty, truth)
    truth.merge(DatasetStats(top=4))
    assert_same(truth, empty)
    # It is a copy: what is added to one does not show in the other.
    empty.update({path: values[:1] for path, values in activations.items()}, infos)
    assert truth.images == 12
    assert truth.layers["conv"].count[0] == 240


# Files


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    activations, infos = two_layers()
    stats = added(range(12), activations, infos)
    stats.update({path: one[:1] for path, one in activations.items()}, infos, ["\udcff<é>.jpg"])
    file = tmp_path / "stats.npz"
    stats.save(file)
    loaded = DatasetStats.load(file)
    assert_same(loaded, stats)
    assert bytes_of(loaded) == file.read_bytes()
    more = {path: one[:1] for path, one in activations.items()}
    for one in (loaded, stats):
        one.update(more, infos)
    assert bytes_of(loaded) == bytes_of(stats)


def test_numpy_reads_the_file(tmp_path: Path) -> None:
    activations, infos = two_layers()
    added(range(12), activations, infos).save(tmp_path / "stats.npz")
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as file:
        assert file["mean"].shape == (9,)
        assert file["top_place"].shape == (9, 4, 3)
        about = json.loads(file["about"].tobytes())
    assert about["channels"] == [6, 3]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed(**arrays: Any) -> bytes:
    activations, infos = two_layers()
    data = bytes_of(added(range(2), activations, infos))
    with np.load(io.BytesIO(data)) as file:
        return npz(**(dict(file) | arrays))


OTHERS = {
    "nothing": lambda: b"",
    "text": lambda: b"not at all",
    "an array": lambda: npz(x=np.zeros(3))[:40],
    "other arrays": lambda: npz(x=np.zeros(3)),
    "objects": lambda: changed(mean=np.array([{}] * 9, object)),
    "fewer channels": lambda: changed(mean=np.zeros(8)),
    "another dtype": lambda: changed(mean=np.zeros(9, np.float32)),
    "another format": lambda: changed(about=np.frombuffer(b'{"format": "x"}', np.uint8)),
    "half of it": lambda: changed()[:900],
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_another_file_is_refused(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "stats.npz"
    file.write_bytes(make())
    with pytest.raises(FormatError, match=r"stats\.npz: these are no statistics that actgrid"):
        DatasetStats.load(file)


def test_no_file_is_said_so(tmp_path: Path) -> None:
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
    stats.update({"conv": images}, {"conv": info("conv", images)})
    summary = stats.summary(share=0.5)
    assert summary == {
        "images": 2,
        "top": 2,
        "nearly_dead_share": 0.5,
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


def test_statistics_are_a_frame_with_a_row_for_each_channel_of_each_layer() -> None:
    activations, infos = two_layers()
    stats = added(range(12), activations, infos)
    frame = stats.to_frame()
    assert frame.index.names == ["layer", "channel"]
    assert len(frame) == sum(layer.count.size for layer in stats.layers.values())
    for path, layer in stats.layers.items():
        part = frame.loc[path]
        assert part.index.tolist() == list(range(layer.count.size))
        for name in ("count", "mean", "std", "min", "max", "zero_fraction", "activated", "dead"):
            np.testing.assert_array_equal(part[name], getattr(layer, name))
    assert DatasetStats().to_frame().empty
