"""As few runs of the model as can be."""

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
from PIL import Image

from actgrid import Extractor, load_images
from actgrid.errors import ImageError, ModelError, OptionError, ShapeError
from actgrid.models.functions import GraphFunction
from actgrid.web.cache import Cache
from actgrid.web.engine import Engine
from actgrid.web.images import ImageStore, StoredImage

Array = npt.NDArray[Any]

ROOM = 64 << 20


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(7)


def network(side: int | None = 16, batch: int | None = None) -> Any:
    """Eight layers of four depths, some of which look at an image of any size."""
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


def pictures(count: int, height: int = 20, width: int = 24) -> list[StoredImage]:
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
    return [StoredImage(f"{image.shape}-{n}", "image", image) for n, image in enumerate(images)]


class Watched:
    """An engine whose runs are counted: how many images each was of, and how many layers came."""

    def __init__(self, model: Any = None, room: int = ROOM, **options: Any) -> None:
        self.cache = Cache(room)
        self.engine = Engine(network() if model is None else model, self.cache, **options)
        self.runs: list[tuple[int, int]] = []
        self.seen: list[Array] = []
        self.go_on = threading.Event()
        self.go_on.set()
        run = self.engine._extractor._function.run

        def counted(x: Any, transform: Any, *arguments: Any) -> Any:
            self.go_on.wait(20)
            self.runs.append((len(x), len(transform.paths)))
            self.seen += list(x)
            return run(x, transform, *arguments)

        self.engine._extractor._function.run = counted  # type: ignore[method-assign]

    def node(self, path: str) -> int:
        return next(n for n, info in enumerate(self.engine.graph.infos) if info.path == path)


def expected(model: Any, image: StoredImage, path: str, **options: Any) -> Array:
    x = load_images(image.source, model=model, **options)
    return Extractor(model, path)(x)[path]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came")


# --- what is given ---


def test_gives_what_an_extractor_does() -> None:
    watched = Watched(network())
    (image,) = pictures(1)

    async def run() -> None:
        for node in watched.engine.drawn:
            info = watched.engine.graph.infos[node]
            found = await watched.engine.activation(image, node)
            np.testing.assert_array_equal(
                found, expected(watched.engine.model, image, info.path), strict=True
            )
            assert not found.flags.writeable
        await watched.engine.close()

    asyncio.run(run())


def test_the_picture_is_what_the_model_sees() -> None:
    watched = Watched(network())
    (image,) = pictures(1)
    prepared = watched.engine.prepare(image.source)
    np.testing.assert_array_equal(prepared.x, load_images(image.source, model=watched.engine.model))
    # Nothing but x / 255 is done to the pixels.
    assert prepared.picture.shape == (16, 16, 3)
    assert prepared.picture.dtype == np.uint8
    np.testing.assert_allclose(prepared.picture, prepared.x[0] * 255, atol=0.5001)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_shown_in_colour(channels: int) -> None:
    model = keras.Sequential([keras.Input((8, 8, channels)), layers.ReLU()])
    engine = Engine(model, Cache(ROOM))
    prepared = engine.prepare(Image.new("RGB", (9, 9), (200, 100, 50)))
    assert prepared.picture.shape == (8, 8, 3)
    shown = [125, 125, 125] if channels == 1 else [200, 100, 50]
    assert np.abs(prepared.picture.astype(int) - shown).max() <= 1


def test_images_for_a_model_of_any_size_keep_theirs_within_limits() -> None:
    watched = Watched(network(None))
    assert watched.engine.size is None
    small, large = pictures(1)[0], pictures(1, 40, 1200)[0]

    async def run() -> None:
        node = watched.node("relu2")
        assert (await watched.engine.activation(small, node)).shape == (1, 16, 20, 6)
        assert (await watched.engine.activation(large, node)).shape == (1, 13, 508, 6)
        assert watched.engine._extractor.trace_count <= 1
        await watched.engine.close()

    asyncio.run(run())
    assert Watched(network(None), size=(18, 22)).engine.size == (18, 22)


def test_a_size_that_was_asked_for_is_what_the_graph_says() -> None:
    watched = Watched(network(None), size=(18, 22))
    assert watched.engine.graph.infos[watched.node("conv1")].shape == (None, 16, 20, 4)


# --- how often the model runs ---


def test_one_run_gives_all_layers() -> None:
    watched = Watched()
    (image,) = pictures(1)

    async def run() -> None:
        async with watched.engine.everything(image) as activations:
            assert list(activations) == watched.engine.drawn
        for node in watched.engine.drawn:
            await watched.engine.activation(image, node)
        async with watched.engine.everything(image) as again:
            assert all(again[node] is activations[node] for node in again)
        await watched.engine.close()

    asyncio.run(run())
    assert watched.runs == [(1, 8)]


def test_deeper_layers_are_run_only_when_they_are_needed() -> None:
    watched = Watched()
    (image,) = pictures(1)

    async def run() -> None:
        for path in ("conv1", "relu1", "conv1", "relu2", "conv2", "head", "pool"):
            await watched.engine.activation(image, watched.node(path))
        await watched.engine.close()

    asyncio.run(run())
    assert watched.runs == [(1, 2), (1, 4), (1, 8)]


def test_a_short_run_runs_no_later_layer() -> None:
    reached: list[int] = []

    class Told(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            def tell(values: Any) -> Any:
                reached.append(1)
                return values

            told = tf.numpy_function(tell, [x], x.dtype, stateful=False)
            return tf.ensure_shape(told, x.shape)

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU(name="early"), Told(name="late")])
    watched = Watched(model)
    (image,) = pictures(1)

    async def run() -> None:
        await watched.engine.activation(image, watched.node("early"))
        assert not reached
        await watched.engine.activation(image, watched.node("late"))
        assert reached
        await watched.engine.close()

    asyncio.run(run())


def test_once_started_a_longer_run_does_until_the_shorter_one_is_compiled() -> None:
    watched = Watched()
    (one, other) = pictures(2)

    async def run() -> None:
        blocked = threading.Event()
        watched.engine._compiler.submit(blocked.wait, 20)
        await watched.engine.start()
        assert watched.runs == [(1, 8)]
        await watched.engine.activation(one, watched.node("conv1"))
        assert watched.runs == [(1, 8)] * 2
        blocked.set()
        await until(lambda: len(watched.runs) == 5)
        assert sorted(watched.runs[2:]) == [(1, 2), (1, 4), (1, 6)]
        await watched.engine.activation(other, watched.node("conv1"))
        assert watched.runs[5:] == [(1, 2)]
        await watched.engine.close()

    asyncio.run(run())


def test_those_who_ask_together_share_a_run() -> None:
    watched = Watched()
    (image,) = pictures(1)

    async def run() -> None:
        nodes = [watched.node(path) for path in ("conv1", "head", "relu2", "conv1")]
        found = await asyncio.gather(*(watched.engine.activation(image, node) for node in nodes))
        assert found[0] is found[3]
        await watched.engine.close()

    asyncio.run(run())
    assert watched.runs == [(1, 8)]


def test_images_that_wait_run_together() -> None:
    watched = Watched(batch_size=4)
    images = pictures(7)
    node = watched.node("head")

    async def run() -> None:
        await watched.engine.start()
        watched.engine._compiler.shutdown()
        watched.runs.clear()
        watched.go_on.clear()
        first = asyncio.ensure_future(watched.engine.activation(images[0], node))
        await until(lambda: bool(watched.engine._running))
        others = [
            asyncio.ensure_future(watched.engine.activation(image, node)) for image in images[1:]
        ]
        await until(lambda: len(watched.engine._waiting) == 6)
        watched.go_on.set()
        found = await asyncio.gather(first, *others)
        for image, activation in zip(images, found, strict=True):
            np.testing.assert_allclose(
                activation, expected(watched.engine.model, image, "head"), rtol=1e-5
            )
            kept = watched.cache.find(("activation", image.id, watched.node("conv1")))
            assert kept.base is None or kept.base.nbytes == kept.nbytes  # memory of its own
        await watched.engine.close()

    asyncio.run(run())
    assert [count for count, _ in watched.runs] == [1, 4, 2]


def test_images_of_several_shapes_run_apart() -> None:
    watched = Watched(network(None))
    first, second = pictures(1), pictures(1, 30, 30)
    later = [pictures(3)[1:], pictures(3, 30, 30)[1:], pictures(1, 24, 20)]
    node = watched.node("head")

    async def run() -> None:
        # What a shape takes is known from its first image on.
        for image in (*first, *second):
            await watched.engine.activation(image, node)
        watched.runs.clear()
        watched.go_on.clear()
        images = [image for pair in zip(*later[:2], strict=True) for image in pair] + later[2]
        asked = [asyncio.ensure_future(watched.engine.activation(i, node)) for i in images]
        await until(lambda: bool(watched.engine._running))
        await until(lambda: len(watched.engine._waiting + watched.engine._running) == 5)
        watched.go_on.set()
        for image, activation in zip(images, await asyncio.gather(*asked), strict=True):
            np.testing.assert_allclose(
                activation, expected(watched.engine.model, image, "head"), rtol=1e-5
            )
        await watched.engine.close()

    asyncio.run(run())
    assert sum(count for count, _ in watched.runs) == 5
    assert len(watched.runs) in (3, 4)  # the first may have been alone


def test_what_nobody_waits_for_any_more_is_not_run() -> None:
    watched = Watched()
    images = pictures(4)
    node = watched.node("head")

    async def run() -> None:
        await watched.engine.start()
        watched.engine._compiler.shutdown()
        watched.seen.clear()
        watched.go_on.clear()
        asked = [asyncio.ensure_future(watched.engine.activation(images[0], node))]
        await until(lambda: bool(watched.engine._running))
        asked += [asyncio.ensure_future(watched.engine.activation(i, node)) for i in images[1:]]
        twice = asyncio.ensure_future(watched.engine.activation(images[2], node))
        await until(lambda: len(watched.engine._waiting) == 3)
        asked[1].cancel()  # nobody else asked for that one
        asked[2].cancel()  # but for this one `twice` did
        await asyncio.sleep(0)
        watched.go_on.set()
        await asyncio.gather(asked[0], asked[3], twice)
        await watched.engine.close()

    asyncio.run(run())
    ran = [images[0], images[2], images[3]]
    inputs = [watched.engine.prepare(image.source).x[0] for image in ran]
    assert sorted(x.tobytes() for x in watched.seen) == sorted(x.tobytes() for x in inputs)


def test_a_batch_takes_no_more_than_half_of_the_cache() -> None:
    watched = Watched()
    images = pictures(6)
    node = watched.node("head")

    async def run() -> None:
        await watched.engine.start()
        watched.engine._compiler.shutdown()
        size = watched.engine._bytes[(1, 16, 16, 3), 3]
        found = await watched.engine.activation(images[0], watched.node("conv1"))
        assert found.nbytes == 14 * 14 * 4 * 4 < size
        watched.cache.most_bytes = 5 * size  # half of which is two and a half
        watched.runs.clear()
        watched.go_on.clear()
        asked = [asyncio.ensure_future(watched.engine.activation(i, node)) for i in images]
        await until(lambda: len(watched.engine._waiting + watched.engine._running) == 6)
        watched.go_on.set()
        await asyncio.gather(*asked)
        assert watched.cache.size <= watched.cache.most_bytes
        await watched.engine.close()

    asyncio.run(run())
    assert max(count for count, _ in watched.runs) == 2


def test_no_run_begins_while_much_is_held() -> None:
    watched = Watched()
    one, other = pictures(2)

    async def run() -> None:
        async with watched.engine.everything(one) as activations:
            size = sum(activation.nbytes for activation in activations.values())
            watched.cache.most_bytes = 2 * size - 1
            node = watched.node("head")
            waits = asyncio.ensure_future(watched.engine.activation(other, node))
            await until(lambda: bool(watched.engine._waiting))
            for _ in range(5):
                await asyncio.sleep(0.002)
            assert len(watched.runs) == 1
        assert (await waits).shape == (1, 3)
        await watched.engine.close()

    asyncio.run(run())
    assert len(watched.runs) == 2


def test_layers_that_do_not_fit_the_cache_are_given_all_the_same() -> None:
    watched = Watched(room=100)
    (image,) = pictures(1)

    async def run() -> None:
        async with watched.engine.everything(image) as activations:
            assert len(activations) == 8
        assert (await watched.engine.activation(image, watched.node("conv1"))).shape[3] == 4
        assert watched.cache.size <= 100
        await watched.engine.close()

    asyncio.run(run())


# --- models of many kinds ---


class Positions(layers.Layer):  # type: ignore[misc]
    """Gives the same for a whole batch."""

    def call(self, x: Any) -> Any:
        return tf.reshape(tf.range(8.0), (4, 2))


class Windows(layers.Layer):  # type: ignore[misc]
    """Gives four rows for each image."""

    def call(self, x: Any) -> Any:
        parts = tf.reshape(x, (-1, 2, 4, 2, 4, 3))
        return tf.reshape(tf.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, 4, 4, 3))


def test_each_image_of_a_batch_gets_its_own_rows() -> None:
    inputs = keras.Input((8, 8, 3))
    windows = Windows(name="windows")(inputs)
    model = keras.Model(inputs, [windows, Positions(name="positions")(inputs)])
    watched = Watched(model)
    images = pictures(4, 8, 8)

    async def run() -> None:
        results = await asyncio.get_running_loop().run_in_executor(
            watched.engine._thread,
            watched.engine._activations,
            [watched.engine.prepare(image.source).x for image in images],
            len(watched.engine._ends) - 1,
        )
        for image, result in zip(images, results, strict=True):
            x = watched.engine.prepare(image.source).x[0]
            found = result[watched.node("windows")]
            np.testing.assert_array_equal(found[1], x[:4, 4:])
            assert result[watched.node("positions")].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
        await watched.engine.close()

    asyncio.run(run())


def test_a_model_of_one_batch_size_is_run_on_that() -> None:
    watched = Watched(network(batch=3), batch_size=8)
    images = pictures(4)

    async def run() -> None:
        await watched.engine.start()
        found = await asyncio.gather(
            *(watched.engine.activation(image, watched.node("head")) for image in images)
        )
        for image, activation in zip(images, found, strict=True):
            x = np.repeat(watched.engine.prepare(image.source).x, 3, axis=0)
            wanted = Extractor(watched.engine.model, "head")(x)["head"][:1]
            np.testing.assert_allclose(activation, wanted, rtol=1e-5)
        await watched.engine.close()

    asyncio.run(run())
    assert {count for count, _ in watched.runs} == {3}


def test_a_model_that_was_never_called_needs_a_size() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="own")
            self.conv = layers.Conv2D(4, 3, name="conv")

        def call(self, x: Any) -> Any:
            return self.conv(x)

    with pytest.raises(ModelError, match="'own' is not known: give a size"):
        Engine(Own(), Cache(ROOM))
    engine = Engine(Own(), Cache(ROOM), size=12)
    assert [engine.graph.infos[node].shape for node in engine.drawn] == [(None, 10, 10, 4)]
    called = Own()
    called(np.zeros((1, 9, 9, 3), np.float32))
    assert Engine(called, Cache(ROOM)).size is None  # it takes images of any size


def two_inputs() -> Any:
    a, b = keras.Input((8, 8, 3)), keras.Input((2,))
    return keras.Model([a, b], [layers.ReLU()(a), layers.ReLU()(b)])


def no_layers() -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, inputs)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (two_inputs, {}, ShapeError, "not one batch of images"),
        (lambda: keras.Sequential([keras.Input((5,)), layers.ReLU()]), {}, ShapeError, "images"),
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
        (network, {"size": 20}, ShapeError, "takes an input of"),
        (network, {"fit": "squeeze"}, OptionError, "fit must be one of"),
        (network, {"preprocess": "vgg"}, OptionError, "preprocess must be"),
        (network, {"batch_size": 0}, OptionError, "batch_size must be at least 1"),
        (lambda: "keras:NoSuch", {}, ModelError, "NoSuch"),
        (no_layers, {}, ModelError, "no layer that can be drawn"),
    ],
)
def test_what_cannot_be_looked_at_is_told_at_once(
    make: Callable[[], Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Engine(make(), Cache(ROOM), **options)


def test_what_goes_wrong_reaches_those_who_asked_and_no_others(tmp_path: Path) -> None:
    watched = Watched(network(None))
    (tmp_path / "half.png").write_bytes(b"no image")
    broken, good = ImageStore(tmp_path).listed(0, 1)[0], pictures(1)[0]
    tiny = pictures(1, 2, 2)[0]
    node = watched.node("head")

    async def run() -> None:
        found = await asyncio.gather(
            *(watched.engine.activation(image, node) for image in (broken, tiny, good)),
            return_exceptions=True,
        )
        assert isinstance(found[0], ImageError)
        assert isinstance(found[1], ModelError)
        assert isinstance(found[2], np.ndarray)
        assert await watched.engine.activation(good, node) is found[2]
        await watched.engine.close()

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
def test_what_a_device_cannot_do_is_told(
    error: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()

    def fail(*arguments: Any) -> Any:
        raise error(None, None, "not on a CPU")

    function = GraphFunction(lambda inputs: inputs)
    graph = Mock(side_effect=fail)  # which is made, and fails when it is run
    function._function = Mock(get_concrete_function=Mock(return_value=graph))
    monkeypatch.setattr(
        watched.engine._extractor._function, "_get_function", lambda transform: function
    )

    async def run() -> None:
        with pytest.raises(ModelError, match=message):
            await watched.engine.activation(pictures(1)[0], watched.node("head"))
        with pytest.raises(ModelError, match=message):
            await watched.engine.start()
        await watched.engine.close()

    asyncio.run(run())


def test_closing_cancels_who_waits() -> None:
    watched = Watched()
    one, other = pictures(2)
    node = watched.node("head")

    async def run() -> None:
        watched.go_on.clear()
        runs = asyncio.ensure_future(watched.engine.activation(one, node))
        await until(lambda: bool(watched.engine._running))
        waits = asyncio.ensure_future(watched.engine.activation(other, node))
        await until(lambda: bool(watched.engine._waiting))
        await watched.engine.close()  # while the model still runs
        for cancelled in (runs, waits):
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        watched.go_on.set()
        watched.engine._thread.shutdown()

    asyncio.run(run())
    assert len(watched.runs) == 1
