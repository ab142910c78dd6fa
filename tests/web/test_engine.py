"""Tests of the engine: activations, batches, number of runs and errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from packaging.version import Version
from PIL import Image

from actgrid import Extractor, load_images
from actgrid.errors import ImageError, ModelError, OptionError, ShapeError
from actgrid.models.functions import GraphFunction
from actgrid.web.cache import Cache
from actgrid.web.engine import Engine
from actgrid.web.images import ImageStore, StoredImage

Array = npt.NDArray[Any]

CACHE_BYTES = 64 << 20


@pytest.fixture(autouse=True)
def _seed_weights() -> None:
    keras.utils.set_random_seed(7)


def make_model(side: int | None = 16, batch: int | None = None) -> Any:
    """Return a network of eight layers; `side` None: images of any size."""
    return keras.Sequential(
        [
            keras.Input((side, side, 3), batch_size=batch),
            layers.Conv2D(4, 3, name="conv1"),
            layers.ReLU(name="relu1"),
            layers.Conv2D(6, 3, name="conv2"),
            layers.ReLU(name="relu2"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(5, 3, name="conv3"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


def make_images(count: int, height: int = 20, width: int = 24) -> list[StoredImage]:
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
    return [StoredImage(f"{image.shape}-{n}", "image", image) for n, image in enumerate(images)]


class EngineProbe:
    """An engine that records its runs.

    Attributes
    ----------
    runs
        Number of images and number of returned layers of each run.
    inputs
        All images that the model ran on.
    may_run
        Event for which each run waits.
    """

    def __init__(self, model: Any = None, cache_bytes: int = CACHE_BYTES, **options: Any) -> None:
        self.cache = Cache(cache_bytes)
        self.engine = Engine(make_model() if model is None else model, self.cache, **options)
        self.runs: list[tuple[int, int]] = []
        self.inputs: list[Array] = []
        self.may_run = threading.Event()
        self.may_run.set()
        run = self.engine._extractor._function.run

        def record_run(x: Any, transform: Any, *arguments: Any) -> Any:
            self.may_run.wait(20)
            self.runs.append((len(x), len(transform.paths)))
            self.inputs += list(x)
            return run(x, transform, *arguments)

        self.engine._extractor._function.run = record_run  # type: ignore[method-assign]

    def find_node(self, path: str) -> int:
        infos = self.engine.graph.infos
        return next(node for node, info in enumerate(infos) if info.path == path)


def compute_expected(model: Any, image: StoredImage, path: str, **options: Any) -> Array:
    x = load_images(image.source, model=model, **options)
    return Extractor(model, path)(x)[path]


async def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition was never met")


# --- activations and pictures ---


def test_activations_equal_extractor() -> None:
    probe = EngineProbe(make_model())
    (image,) = make_images(1)

    async def run() -> None:
        for node in probe.engine.drawable_nodes:
            info = probe.engine.graph.infos[node]
            activation = await probe.engine.get_activation(image, node)
            np.testing.assert_array_equal(
                activation, compute_expected(probe.engine.model, image, info.path), strict=True
            )
            assert not activation.flags.writeable
        await probe.engine.close()

    asyncio.run(run())


def test_picture_contains_pixels_before_preprocessing() -> None:
    probe = EngineProbe(make_model())
    (image,) = make_images(1)
    prepared = probe.engine.input.prepare(image.source)
    np.testing.assert_array_equal(prepared.x, load_images(image.source, model=probe.engine.model))
    # The preprocessing of this model only divides by 255.
    assert prepared.picture.shape == (16, 16, 3)
    assert prepared.picture.dtype == np.uint8
    np.testing.assert_allclose(prepared.picture, prepared.x[0] * 255, atol=0.5001)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_have_three_channels(channels: int) -> None:
    model = keras.Sequential([keras.Input((8, 8, channels)), layers.ReLU()])
    engine = Engine(model, Cache(CACHE_BYTES))
    prepared = engine.input.prepare(Image.new("RGB", (9, 9), (200, 100, 50)))
    assert prepared.picture.shape == (8, 8, 3)
    color = [125, 125, 125] if channels == 1 else [200, 100, 50]
    assert np.abs(prepared.picture.astype(int) - color).max() <= 1


def test_images_keep_size_up_to_limit_if_input_size_is_not_fixed() -> None:
    probe = EngineProbe(make_model(None))
    assert probe.engine.input.size is None
    small, large = make_images(1)[0], make_images(1, 40, 1200)[0]

    async def run() -> None:
        node = probe.find_node("relu2")
        assert (await probe.engine.get_activation(small, node)).shape == (1, 16, 20, 6)
        assert (await probe.engine.get_activation(large, node)).shape == (1, 13, 508, 6)
        assert probe.engine._extractor.trace_count <= 1
        await probe.engine.close()

    asyncio.run(run())
    assert EngineProbe(make_model(None), size=(18, 22)).engine.input.size == (18, 22)


def test_graph_shapes_use_given_size() -> None:
    probe = EngineProbe(make_model(None), size=(18, 22))
    assert probe.engine.graph.infos[probe.find_node("conv1")].shape == (None, 16, 20, 4)


# --- number of runs ---


def test_one_run_returns_all_layers() -> None:
    probe = EngineProbe()
    (image,) = make_images(1)

    async def run() -> None:
        async with probe.engine.hold_activations(image) as activations:
            assert list(activations) == probe.engine.drawable_nodes
        for node in probe.engine.drawable_nodes:
            await probe.engine.get_activation(image, node)
        async with probe.engine.hold_activations(image) as cached:
            assert all(cached[node] is activations[node] for node in cached)
        await probe.engine.close()

    asyncio.run(run())
    assert probe.runs == [(1, 8)]


def test_later_layers_are_computed_only_on_request() -> None:
    probe = EngineProbe()
    (image,) = make_images(1)

    async def run() -> None:
        for path in ("conv1", "relu1", "conv1", "relu2", "conv2", "head", "pool"):
            await probe.engine.get_activation(image, probe.find_node(path))
        await probe.engine.close()

    asyncio.run(run())
    assert probe.runs == [(1, 2), (1, 4), (1, 8)]


def test_run_of_early_layer_skips_later_layers() -> None:
    calls: list[int] = []

    class RecordCalls(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            def record(values: Any) -> Any:
                calls.append(1)
                return values

            y = tf.numpy_function(record, [x], x.dtype, stateful=False)
            return tf.ensure_shape(y, x.shape)

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.ReLU(name="early"), RecordCalls(name="late")]
    )
    probe = EngineProbe(model)
    (image,) = make_images(1)

    async def run() -> None:
        await probe.engine.get_activation(image, probe.find_node("early"))
        assert not calls
        await probe.engine.get_activation(image, probe.find_node("late"))
        assert calls
        await probe.engine.close()

    asyncio.run(run())


def test_full_run_replaces_short_run_until_it_is_compiled() -> None:
    probe = EngineProbe()
    (first, second) = make_images(2)

    async def run() -> None:
        may_compile = threading.Event()
        probe.engine._compile_thread.submit(may_compile.wait, 20)
        await probe.engine.start()
        assert probe.runs == [(1, 8)]
        await probe.engine.get_activation(first, probe.find_node("conv1"))
        assert probe.runs == [(1, 8)] * 2
        may_compile.set()
        await wait_until(lambda: len(probe.runs) == 5)
        assert sorted(probe.runs[2:]) == [(1, 2), (1, 4), (1, 6)]
        await probe.engine.get_activation(second, probe.find_node("conv1"))
        assert probe.runs[5:] == [(1, 2)]
        await probe.engine.close()

    asyncio.run(run())


def test_concurrent_requests_for_an_image_share_a_run() -> None:
    probe = EngineProbe()
    (image,) = make_images(1)

    async def run() -> None:
        nodes = [probe.find_node(path) for path in ("conv1", "head", "relu2", "conv1")]
        activations = await asyncio.gather(
            *(probe.engine.get_activation(image, node) for node in nodes)
        )
        assert activations[0] is activations[3]
        await probe.engine.close()

    asyncio.run(run())
    assert probe.runs == [(1, 8)]


def test_waiting_images_run_as_a_batch() -> None:
    probe = EngineProbe(batch_size=4)
    images = make_images(7)
    node = probe.find_node("head")

    async def run() -> None:
        await probe.engine.start()
        probe.engine._compile_thread.shutdown()
        probe.runs.clear()
        probe.may_run.clear()
        first = asyncio.ensure_future(probe.engine.get_activation(images[0], node))
        await wait_until(lambda: bool(probe.engine._running_requests))
        others = [
            asyncio.ensure_future(probe.engine.get_activation(image, node)) for image in images[1:]
        ]
        await wait_until(lambda: len(probe.engine._waiting_requests) == 6)
        probe.may_run.set()
        activations = await asyncio.gather(first, *others)
        for image, activation in zip(images, activations, strict=True):
            np.testing.assert_allclose(
                activation, compute_expected(probe.engine.model, image, "head"), rtol=1e-5
            )
            cached = probe.cache.find(("activation", image.id, probe.find_node("conv1")))
            assert cached.base is None or cached.base.nbytes == cached.nbytes  # not a view
        await probe.engine.close()

    asyncio.run(run())
    assert [count for count, _ in probe.runs] == [1, 4, 2]


def test_images_of_different_shapes_run_separately() -> None:
    probe = EngineProbe(make_model(None))
    first, second = make_images(1), make_images(1, 30, 30)
    later = [make_images(3)[1:], make_images(3, 30, 30)[1:], make_images(1, 24, 20)]
    node = probe.find_node("head")

    async def run() -> None:
        # The memory of a shape is known after its first image.
        for image in (*first, *second):
            await probe.engine.get_activation(image, node)
        probe.runs.clear()
        probe.may_run.clear()
        images = [image for pair in zip(*later[:2], strict=True) for image in pair] + later[2]
        requests = [
            asyncio.ensure_future(probe.engine.get_activation(image, node)) for image in images
        ]
        await wait_until(lambda: bool(probe.engine._running_requests))
        await wait_until(
            lambda: len(probe.engine._waiting_requests + probe.engine._running_requests) == 5
        )
        probe.may_run.set()
        for image, activation in zip(images, await asyncio.gather(*requests), strict=True):
            np.testing.assert_allclose(
                activation, compute_expected(probe.engine.model, image, "head"), rtol=1e-5
            )
        await probe.engine.close()

    asyncio.run(run())
    assert sum(count for count, _ in probe.runs) == 5
    assert len(probe.runs) in (3, 4)  # the first image may have run alone


def test_cancelled_requests_are_not_run() -> None:
    probe = EngineProbe()
    images = make_images(4)
    node = probe.find_node("head")

    async def run() -> None:
        await probe.engine.start()
        probe.engine._compile_thread.shutdown()
        probe.inputs.clear()
        probe.may_run.clear()
        requests = [asyncio.ensure_future(probe.engine.get_activation(images[0], node))]
        await wait_until(lambda: bool(probe.engine._running_requests))
        requests += [
            asyncio.ensure_future(probe.engine.get_activation(image, node)) for image in images[1:]
        ]
        duplicate = asyncio.ensure_future(probe.engine.get_activation(images[2], node))
        await wait_until(lambda: len(probe.engine._waiting_requests) == 3)
        requests[1].cancel()  # the only request for this image
        requests[2].cancel()  # `duplicate` requests the same image
        await asyncio.sleep(0)
        probe.may_run.set()
        await asyncio.gather(requests[0], requests[3], duplicate)
        await probe.engine.close()

    asyncio.run(run())
    expected = [
        probe.engine.input.prepare(image.source).x[0] for image in (images[0], images[2], images[3])
    ]
    assert sorted(x.tobytes() for x in probe.inputs) == sorted(x.tobytes() for x in expected)


def test_activations_of_a_batch_take_at_most_half_of_the_cache() -> None:
    probe = EngineProbe()
    images = make_images(6)
    node = probe.find_node("head")

    async def run() -> None:
        await probe.engine.start()
        probe.engine._compile_thread.shutdown()
        size = probe.engine._bytes_per_image[(1, 16, 16, 3), 3]
        activation = await probe.engine.get_activation(images[0], probe.find_node("conv1"))
        assert activation.nbytes == 14 * 14 * 4 * 4 < size
        probe.cache.max_bytes = 5 * size  # half of the cache holds two images
        probe.runs.clear()
        probe.may_run.clear()
        requests = [
            asyncio.ensure_future(probe.engine.get_activation(image, node)) for image in images
        ]
        await wait_until(
            lambda: len(probe.engine._waiting_requests + probe.engine._running_requests) == 6
        )
        probe.may_run.set()
        await asyncio.gather(*requests)
        assert probe.cache.size <= probe.cache.max_bytes
        await probe.engine.close()

    asyncio.run(run())
    assert max(count for count, _ in probe.runs) == 2


def test_no_run_starts_while_activations_are_held() -> None:
    probe = EngineProbe()
    first, second = make_images(2)

    async def run() -> None:
        async with probe.engine.hold_activations(first) as activations:
            size = sum(activation.nbytes for activation in activations.values())
            probe.cache.max_bytes = 2 * size - 1
            node = probe.find_node("head")
            request = asyncio.ensure_future(probe.engine.get_activation(second, node))
            await wait_until(lambda: bool(probe.engine._waiting_requests))
            for _ in range(5):
                await asyncio.sleep(0.002)
            assert len(probe.runs) == 1
        assert (await request).shape == (1, 3)
        await probe.engine.close()

    asyncio.run(run())
    assert len(probe.runs) == 2


def test_activations_larger_than_the_cache_are_returned() -> None:
    probe = EngineProbe(cache_bytes=100)
    (image,) = make_images(1)

    async def run() -> None:
        async with probe.engine.hold_activations(image) as activations:
            assert len(activations) == 8
        assert (await probe.engine.get_activation(image, probe.find_node("conv1"))).shape[3] == 4
        assert probe.cache.size <= 100
        await probe.engine.close()

    asyncio.run(run())


# --- kinds of models ---


class Positions(layers.Layer):  # type: ignore[misc]
    """A layer whose output does not depend on the batch."""

    def call(self, x: Any) -> Any:
        return tf.reshape(tf.range(8.0), (4, 2))


class Windows(layers.Layer):  # type: ignore[misc]
    """A layer that returns four rows for each image."""

    def call(self, x: Any) -> Any:
        parts = tf.reshape(x, (-1, 2, 4, 2, 4, 3))
        return tf.reshape(tf.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, 4, 4, 3))


def test_rows_of_a_batch_are_assigned_to_their_images() -> None:
    inputs = keras.Input((8, 8, 3))
    windows = Windows(name="windows")(inputs)
    model = keras.Model(inputs, [windows, Positions(name="positions")(inputs)])
    probe = EngineProbe(model)
    images = make_images(4, 8, 8)

    async def run() -> None:
        results = await asyncio.get_running_loop().run_in_executor(
            probe.engine._model_thread,
            probe.engine._run_model,
            [probe.engine.input.prepare(image.source).x for image in images],
            len(probe.engine._prefix_ends) - 1,
        )
        for image, result in zip(images, results, strict=True):
            x = probe.engine.input.prepare(image.source).x[0]
            activation = result[probe.find_node("windows")]
            np.testing.assert_array_equal(activation[1], x[:4, 4:])
            assert result[probe.find_node("positions")].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
        await probe.engine.close()

    asyncio.run(run())


def test_model_with_fixed_batch_size() -> None:
    probe = EngineProbe(make_model(batch=3), batch_size=8)
    images = make_images(4)

    async def run() -> None:
        await probe.engine.start()
        activations = await asyncio.gather(
            *(probe.engine.get_activation(image, probe.find_node("head")) for image in images)
        )
        for image, activation in zip(images, activations, strict=True):
            x = np.repeat(probe.engine.input.prepare(image.source).x, 3, axis=0)
            expected = Extractor(probe.engine.model, "head")(x)["head"][:1]
            np.testing.assert_allclose(activation, expected, rtol=1e-5)
        await probe.engine.close()

    asyncio.run(run())
    assert {count for count, _ in probe.runs} == {3}


def test_model_that_was_not_called_needs_size() -> None:
    class SubclassedModel(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="subclassed")
            self.conv = layers.Conv2D(4, 3, name="conv")

        def call(self, x: Any) -> Any:
            return self.conv(x)

    with pytest.raises(ModelError, match="'subclassed' is not known: give a size"):
        Engine(SubclassedModel(), Cache(CACHE_BYTES))
    engine = Engine(SubclassedModel(), Cache(CACHE_BYTES), size=12)
    assert [engine.graph.infos[node].shape for node in engine.drawable_nodes] == [(None, 10, 10, 4)]
    called_model = SubclassedModel()
    called_model(np.zeros((1, 9, 9, 3), np.float32))
    assert Engine(called_model, Cache(CACHE_BYTES)).input.size is None


def make_model_with_two_inputs() -> Any:
    a, b = keras.Input((8, 8, 3)), keras.Input((2,))
    return keras.Model([a, b], [layers.ReLU()(a), layers.ReLU()(b)])


def make_model_without_layers() -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, inputs)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (make_model_with_two_inputs, {}, ShapeError, "not one batch of images"),
        (
            lambda: keras.Sequential([keras.Input((2, 2, 2, 2, 2)), layers.ReLU()]),
            {},
            ShapeError,
            "images",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 7)), layers.ReLU()]),
            {},
            ShapeError,
            "no image has 7 channels",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, None, 3)), layers.ReLU()]),
            {},
            ShapeError,
            "give a size",
        ),
        (make_model, {"size": 20}, ShapeError, "takes an input of"),
        (make_model, {"fit": "squeeze"}, OptionError, "fit must be one of"),
        (make_model, {"preprocess": "vgg"}, OptionError, "preprocess must be"),
        (make_model, {"batch_size": 0}, OptionError, "batch_size must be at least 1"),
        (lambda: "keras:NoSuch", {}, ModelError, "NoSuch"),
        (make_model_without_layers, {}, ModelError, "no layer that can be drawn"),
    ],
)
def test_invalid_models_and_options_are_rejected(
    make: Callable[[], Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    if make is make_model_without_layers and Version(keras.__version__) < Version("3.12"):
        pytest.skip("this version of Keras has no models without layers")
    with pytest.raises(error, match=message):
        Engine(make(), Cache(CACHE_BYTES), **options)


def test_errors_are_raised_only_for_the_image_that_causes_them(tmp_path: Path) -> None:
    probe = EngineProbe(make_model(None))
    (tmp_path / "half.png").write_bytes(b"no image")
    broken, good = ImageStore(tmp_path).list_images(0, 1)[0], make_images(1)[0]
    tiny = make_images(1, 2, 2)[0]
    node = probe.find_node("head")

    async def run() -> None:
        results = await asyncio.gather(
            *(probe.engine.get_activation(image, node) for image in (broken, tiny, good)),
            return_exceptions=True,
        )
        assert isinstance(results[0], ImageError)
        assert isinstance(results[1], ModelError)
        assert isinstance(results[2], np.ndarray)
        assert await probe.engine.get_activation(good, node) is results[2]
        await probe.engine.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            tf.errors.ResourceExhaustedError,
            r"memory for inputs of shape \(1, 16, 16, 3\): use a smaller",
        ),
        (tf.errors.UnimplementedError, "this device cannot run the model: not on a CPU"),
    ],
)
def test_device_errors_become_model_errors(
    error: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = EngineProbe()

    def fail(*arguments: Any) -> Any:
        raise error(None, None, "not on a CPU")

    function = GraphFunction(lambda inputs: inputs)
    graph = Mock(side_effect=fail)  # fails when the graph runs
    function._function = Mock(get_concrete_function=Mock(return_value=graph))
    monkeypatch.setattr(
        probe.engine._extractor._function, "_get_function", lambda transform: function
    )

    async def run() -> None:
        with pytest.raises(ModelError, match=message):
            await probe.engine.get_activation(make_images(1)[0], probe.find_node("head"))
        with pytest.raises(ModelError, match=message):
            await probe.engine.start()
        await probe.engine.close()

    asyncio.run(run())


def test_close_cancels_all_requests() -> None:
    probe = EngineProbe()
    first, second = make_images(2)
    node = probe.find_node("head")

    async def run() -> None:
        probe.may_run.clear()
        running = asyncio.ensure_future(probe.engine.get_activation(first, node))
        await wait_until(lambda: bool(probe.engine._running_requests))
        waiting = asyncio.ensure_future(probe.engine.get_activation(second, node))
        await wait_until(lambda: bool(probe.engine._waiting_requests))
        await probe.engine.close()  # while the model runs
        for request in (running, waiting):
            with pytest.raises(asyncio.CancelledError):
                await request
        probe.may_run.set()
        probe.engine._model_thread.shutdown()

    asyncio.run(run())
    assert len(probe.runs) == 1
