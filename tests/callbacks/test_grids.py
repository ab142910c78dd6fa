"""The callback `ActivationGrids`: grids of activations during training."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.callbacks import ActivationGrids, ChannelHealth, Explanations, TrainingMovie
from actgrid.errors import ModelError, OptionError


class DrawEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Callback that draws the expected grids of each epoch by `render_model`."""

    def __init__(self, data: Any, layers: Any = None, **options: Any) -> None:
        super().__init__()
        self.data, self.layers, self.options = data, layers, options
        self.pngs: dict[str, dict[int, list[bytes]]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for sample in range(len(self.data)):
            options = self.options | {"sample": sample}
            grids = actgrid.render_model(self.model, self.data, self.layers, **options)
            for path, grid in grids.items():
                self.pngs.setdefault(path, {}).setdefault(epoch, []).append(grid.to_png())


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files in a folder by relative path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_grids_are_written_to_tensorboard_and_files(
    cnn: Any, x: Any, y: Any, tmp_path: Path, read_images: Any
) -> None:
    expected = DrawEpochs(x[:2])
    grids = ActivationGrids(x[:2], log_dir=tmp_path / "logs", folder=tmp_path / "files")
    cnn().fit(x, y, epochs=3, verbose=0, callbacks=[expected, grids])
    assert list(expected.pngs) == ["conv", "norm", "pool", "dropout"]
    assert expected.pngs["conv"][0] != expected.pngs["conv"][2]  # training changed the weights
    assert read_images(tmp_path / "logs") == expected.pngs
    assert read_files(tmp_path / "files") == {
        f"{index:02}_{path}/{sample}_{step:06}.png": png
        for index, (path, steps) in enumerate(expected.pngs.items())
        for step, pngs in steps.items()
        for sample, png in enumerate(pngs)
    }


def test_render_options_with_single_sample(
    cnn: Any, x: Any, y: Any, tmp_path: Path, read_images: Any
) -> None:
    options: dict[str, Any] = {"cmap": "magma", "zoom": 2, "order": [2, 0], "normalize": "minmax"}
    expected = DrawEpochs(x[:1], "conv", **options)
    options["order"] = iter(options["order"])
    grids = ActivationGrids(x[:1], "conv", folder=tmp_path, **options)
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[expected, grids])
    assert read_files(tmp_path) == {
        f"00_conv/{step:06}.png": expected.pngs["conv"][step][0] for step in (0, 1)
    }


def test_invalid_options_are_rejected(x: Any) -> None:
    with pytest.raises(OptionError, match=r"log_dir .*folder"):
        ActivationGrids(x)
    with pytest.raises(OptionError, match="unknown option 'sample'"):
        ActivationGrids(x, folder="out", sample=1)  # type: ignore[call-arg]


def run_steps(callback: Any, *steps: int) -> None:
    for step in steps:
        callback(step)
    callback.close()


def make_callbacks(x: Any, folder: Path) -> list[Any]:
    """Return an instance of each callback that writes all its outputs."""
    return [
        ActivationGrids(x[:2], every=2, log_dir=folder / "grids", folder=folder / "grids"),
        ChannelHealth(x, log_dir=folder / "health", batch_size=5),
        Explanations(x[:2], log_dir=folder / "maps", folder=folder / "maps"),
        TrainingMovie(x[:2], "conv", folder=folder / "movie"),
    ]


def test_callbacks_do_not_change_training(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    def train(callbacks: list[Any]) -> tuple[list[Any], Any]:
        keras.utils.set_random_seed(3)
        model = cnn()
        history = model.fit(
            *(x, y),
            batch_size=4,
            epochs=3,
            verbose=0,
            validation_data=(x, y),
            callbacks=callbacks,
        )
        return [variable.numpy() for variable in model.variables], history.history

    expected, expected_history = train([])
    variables, history = train(make_callbacks(x, tmp_path))
    assert history == expected_history
    for variable, expected_variable in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(variable, expected_variable)


def test_state_of_layers_and_seeds_is_not_changed(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable()
    class AlwaysNoise(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="noise")
            self.seed = keras.random.SeedGenerator(7)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    inputs = keras.Input((5, 2), batch_size=3)
    recurrent = layers.LSTM(4, stateful=True, return_sequences=True, name="lstm")
    model = keras.Model(inputs, recurrent(AlwaysNoise()(inputs)))
    x = np.random.default_rng(0).random((3, 5, 2), np.float32)
    model.predict(x, verbose=0)
    before = [variable.numpy() for variable in model.variables]
    assert any(np.any(value) for value in before[-3:])
    for callback in (
        ActivationGrids(x, ["noise", "lstm"], folder=tmp_path),
        ChannelHealth(np.concatenate([x, x]), ["noise", "lstm"]),
    ):
        callback.set_model(model)
        run_steps(callback, 0, 1)
    for variable, initial in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), initial)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(
    policy: str, cnn: Any, x: Any, y: Any, tmp_path: Path, read_numbers: Any
) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = cnn()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = DrawEpochs(x[:2])
    callbacks = make_callbacks(x, tmp_path)
    callbacks[0] = ActivationGrids(x[:2], folder=tmp_path / "files")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[expected, *callbacks])
    assert read_files(tmp_path / "files")["00_conv/1_000001.png"] == expected.pngs["conv"][1][1]
    assert actgrid.Extractor(model)(x)["conv"].dtype.name == policy.removeprefix("mixed_")
    assert callbacks[1].history["conv/nonfinite"] == [0, 0]
    assert len(read_numbers(tmp_path / "maps")["gradcam"]) == 2


def test_mirrored_strategy(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = cnn()
    expected = DrawEpochs(x[:2])
    grids = ActivationGrids(x[:2], folder=tmp_path / "files")
    callbacks = [expected, grids, *make_callbacks(x, tmp_path)]
    model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    assert read_files(tmp_path / "files")["00_conv/1_000001.png"] == expected.pngs["conv"][1][1]


def test_subclassed_model_that_is_not_built(x: Any, y: Any, tmp_path: Path) -> None:
    class Small(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(3, 3, name="conv")
            self.pool = layers.GlobalAveragePooling2D()
            self.classes = layers.Dense(3, activation="softmax")

        def call(self, inputs: Any) -> Any:
            return self.classes(self.pool(self.conv(inputs)))

    for folder, uses_fit in ((tmp_path / "fit", True), (tmp_path / "hand", False)):
        model = Small()
        model.compile("sgd", "sparse_categorical_crossentropy")
        grids = ActivationGrids(x[:1], folder=folder)
        if uses_fit:
            model.fit(x, y, verbose=0, callbacks=[grids])
        else:
            grids.set_model(model)
            run_steps(grids, 0)
        assert list(read_files(folder)) == ["00_conv/000000.png"]


def test_several_inputs(tmp_path: Path) -> None:
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    joined = layers.Concatenate(name="joined")([left, right])
    model = keras.Model({"left": left, "right": right}, layers.Conv2D(2, 3, name="conv")(joined))
    data = {"left": np.zeros((2, 6, 6, 1)), "right": np.ones((2, 6, 6, 1))}
    grids = ActivationGrids(data, folder=tmp_path)
    health = ChannelHealth(data, "joined", batch_size=1)
    for callback in (grids, health):
        callback.set_model(model)
        run_steps(callback, 0)
    assert sorted({name.split("/")[0] for name in read_files(tmp_path)}) == ["00_joined", "01_conv"]
    assert health.history["joined/dead_channels"] == [2]
    assert health.history["joined/mean_zero_fraction"] == [0.5]


def test_part_of_a_model_without_call(x: Any, tmp_path: Path) -> None:
    """Check a generator that only `train_step` calls, as in GANs."""

    class Pair(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.generator = keras.Sequential(
                [keras.Input((4, 4, 2)), layers.Conv2DTranspose(3, 5, name="up")]
            )

        def train_step(self, data: Any) -> dict[str, Any]:
            return {"loss": keras.ops.mean(self.generator(keras.ops.ones((1, 4, 4, 2))))}

    model, data = Pair(), np.ones((1, 4, 4, 2))
    model.compile("sgd")
    grids = ActivationGrids(data, folder=tmp_path)
    with pytest.raises(ModelError, match=r"does not have a `call\(\)` method"):
        model.fit(x, verbose=0, callbacks=[grids])
    grids.set_model(model.generator)
    drawing = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: grids(epoch))
    model.fit(x, epochs=2, verbose=0, callbacks=[drawing])
    grids.close()
    assert sorted(read_files(tmp_path)) == ["00_up/000000.png", "00_up/000001.png"]


def test_image_files_are_prepared_for_the_model(cnn: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    model = cnn()
    grids = ActivationGrids([tmp_path / "photo.png"], "conv", folder=tmp_path / "out")
    grids.set_model(model)
    run_steps(grids, 12)
    expected = actgrid.render_model(model, tmp_path / "photo.png", "conv")["conv"].to_png()
    assert read_files(tmp_path / "out") == {"00_conv/000012.png": expected}


def test_model_is_traced_once(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    grids = ActivationGrids(x[:2], folder=tmp_path)
    health, model = ChannelHealth(x, batch_size=5), cnn()
    for _ in range(2):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[grids, health])
    assert grids._samples._extractor.trace_count == 1
    assert health._samples._extractor.trace_count == 1


def test_output_that_fails_during_training(
    cnn: Any, x: Any, tmp_path: Path, read_images: Any
) -> None:
    """Replace the folder by a file, to simulate a failure of the disk."""
    grids = ActivationGrids(x[:1], "conv", folder=tmp_path / "out", log_dir=tmp_path / "logs")
    grids.set_model(cnn())
    run_steps(grids, 0)
    (tmp_path / "out" / "00_conv" / "000000.png").unlink()
    (tmp_path / "out" / "00_conv").rmdir()
    (tmp_path / "out" / "00_conv").write_text("")
    with pytest.warns(RuntimeWarning, match=r"ActivationGrids: cannot make .*00_conv") as records:
        run_steps(grids, 1, 2, 3)
    assert len(records) == 1
    (tmp_path / "out" / "00_conv").unlink()
    run_steps(grids, 4)
    assert list(read_files(tmp_path / "out")) == ["00_conv/000004.png"]

    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Tensors(".", "conv")] == [0, 1, 2, 3, 4]


def test_same_folder_as_keras_tensorboard(
    cnn: Any, x: Any, y: Any, tmp_path: Path, read_images: Any
) -> None:
    grids = ActivationGrids(x[:1], "conv", log_dir=tmp_path)
    tensorboard = keras.callbacks.TensorBoard(tmp_path)
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[tensorboard, grids])
    assert list(read_images(tmp_path)["conv"]) == [0, 1]
    assert any((tmp_path / "train").iterdir())


def test_tensorboard_serves_the_pictures(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    expected, grids = (
        DrawEpochs(x[:2], "conv"),
        ActivationGrids(x[:2], "conv", log_dir=tmp_path / "run"),
    )
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[expected, grids])
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path)]
    command += ["--port", "0", "--host", "127.0.0.1", "--load_fast=false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        assert server.stderr is not None
        watchdog = threading.Timer(60, server.kill)
        watchdog.start()
        try:
            matches = (re.search(rb"http://\S+:\d+/", line) for line in server.stderr)
            address = next(filter(None, matches))[0].decode() + "data/plugin/images/"

            def fetch(path: str, **query: object) -> bytes:
                url = f"{address}{path}?{urllib.parse.urlencode(query)}"
                with urllib.request.urlopen(url, timeout=30) as response:
                    content: bytes = response.read()
                    return content

            while not (tags := json.loads(fetch("tags"))):
                time.sleep(0.1)  # TensorBoard has not read the folder yet
            assert list(tags["run"]) == ["conv"]
            samples = [
                [
                    fetch(f"individualImage?{image['query']}".rstrip("?"))
                    for image in json.loads(fetch("images", run="run", tag="conv", sample=sample))
                ]
                for sample in (0, 1)
            ]
        finally:
            watchdog.cancel()
            server.kill()
    assert samples == [
        [expected.pngs["conv"][step][sample] for step in (0, 1)] for sample in (0, 1)
    ]
    assert Image.open(io.BytesIO(samples[0][0])).mode == "P"


def test_grids_of_training_cannot_be_sorted_by_relevance(x: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'relevance' is not supported by callbacks: pass"):
        ActivationGrids(x[:1], folder=tmp_path, order="relevance")
    with pytest.raises(OptionError, match="'relevance' is not supported by callbacks: pass"):
        TrainingMovie(x[:1], folder=tmp_path, order="relevance")
