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


class Truth(keras.callbacks.Callback):  # type: ignore[misc]
    """What each epoch's grids are, drawn at once."""

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


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_every_layer_epoch_and_sample_to_tensorboard_and_files(
    cnn: Any, x: Any, y: Any, tmp_path: Path, images: Any
) -> None:
    truth = Truth(x[:2])
    grids = ActivationGrids(x[:2], log_dir=tmp_path / "logs", folder=tmp_path / "files")
    cnn().fit(x, y, epochs=3, verbose=0, callbacks=[truth, grids])
    assert list(truth.pngs) == ["conv", "norm", "pool", "dropout"]
    assert truth.pngs["conv"][0] != truth.pngs["conv"][2]  # it has learned
    assert images(tmp_path / "logs") == truth.pngs
    assert files(tmp_path / "files") == {
        f"{number:02}_{path}/{sample}_{step:06}.png": png
        for number, (path, steps) in enumerate(truth.pngs.items())
        for step, pngs in steps.items()
        for sample, png in enumerate(pngs)
    }


def test_options_of_rendering_and_one_sample(
    cnn: Any, x: Any, y: Any, tmp_path: Path, images: Any
) -> None:
    options: dict[str, Any] = {"cmap": "magma", "zoom": 2, "order": [2, 0], "normalize": "minmax"}
    truth = Truth(x[:1], "conv", **options)
    options["order"] = iter(options["order"])
    grids = ActivationGrids(x[:1], "conv", folder=tmp_path, **options)
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[truth, grids])
    found = files(tmp_path)
    assert found == {f"00_conv/{step:06}.png": truth.pngs["conv"][step][0] for step in (0, 1)}


def test_what_cannot_be_given(x: Any) -> None:
    with pytest.raises(OptionError, match=r"log_dir .*folder"):
        ActivationGrids(x)
    with pytest.raises(OptionError, match="no option 'sample'"):
        ActivationGrids(x, folder="out", sample=1)  # type: ignore[call-arg]


def draw(callback: Any, *steps: int) -> None:
    for step in steps:
        callback(step)
    callback.close()


def watching(x: Any, folder: Path) -> list[Any]:
    """Return all callbacks, which write all that they can."""
    return [
        ActivationGrids(x[:2], every=2, log_dir=folder / "grids", folder=folder / "grids"),
        ChannelHealth(x, log_dir=folder / "health", batch_size=5),
        Explanations(x[:2], log_dir=folder / "maps", folder=folder / "maps"),
        TrainingMovie(x[:2], "conv", folder=folder / "movie"),
    ]


def test_training_is_the_same_with_and_without(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    def trained(callbacks: list[Any]) -> tuple[list[Any], Any]:
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

    (alone, history), (watched, same) = trained([]), trained(watching(x, tmp_path))
    assert history == same
    for one, other in zip(alone, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_state_of_layers_and_seeds_stays(tmp_path: Path) -> None:
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
    assert any(np.any(one) for one in before[-3:])
    for callback in (
        ActivationGrids(x, ["noise", "lstm"], folder=tmp_path),
        ChannelHealth(np.concatenate([x, x]), ["noise", "lstm"]),
    ):
        callback.set_model(model)
        draw(callback, 0, 1)
    for variable, kept in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), kept)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(
    policy: str, cnn: Any, x: Any, y: Any, tmp_path: Path, numbers: Any
) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = cnn()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    truth = Truth(x[:2])
    callbacks = watching(x, tmp_path)
    callbacks[0] = ActivationGrids(x[:2], folder=tmp_path / "files")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[truth, *callbacks])
    assert files(tmp_path / "files")["00_conv/1_000001.png"] == truth.pngs["conv"][1][1]
    assert actgrid.Extractor(model)(x)["conv"].dtype.name == policy.removeprefix("mixed_")
    assert callbacks[1].history["conv/nonfinite"] == [0, 0]
    assert len(numbers(tmp_path / "maps")["gradcam"]) == 2


def test_mirrored_strategy(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = cnn()
    truth = Truth(x[:2])
    grids = ActivationGrids(x[:2], folder=tmp_path / "files")
    callbacks = [truth, grids, *watching(x, tmp_path)]
    model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    assert files(tmp_path / "files")["00_conv/1_000001.png"] == truth.pngs["conv"][1][1]


def test_a_subclassed_model_that_is_not_built(x: Any, y: Any, tmp_path: Path) -> None:
    class Small(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = layers.Conv2D(3, 3, name="conv")
            self.pool = layers.GlobalAveragePooling2D()
            self.classes = layers.Dense(3, activation="softmax")

        def call(self, inputs: Any) -> Any:
            return self.classes(self.pool(self.conv(inputs)))

    for folder, fitted in ((tmp_path / "fit", True), (tmp_path / "hand", False)):
        model = Small()
        model.compile("sgd", "sparse_categorical_crossentropy")
        grids = ActivationGrids(x[:1], folder=folder)
        if fitted:
            model.fit(x, y, verbose=0, callbacks=[grids])
        else:
            grids.set_model(model)
            draw(grids, 0)
        assert list(files(folder)) == ["00_conv/000000.png"]


def test_several_inputs(tmp_path: Path) -> None:
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    both = layers.Concatenate(name="both")([left, right])
    model = keras.Model({"left": left, "right": right}, layers.Conv2D(2, 3, name="conv")(both))
    data = {"left": np.zeros((2, 6, 6, 1)), "right": np.ones((2, 6, 6, 1))}
    grids = ActivationGrids(data, folder=tmp_path)
    health = ChannelHealth(data, "both", batch_size=1)
    for callback in (grids, health):
        callback.set_model(model)
        draw(callback, 0)
    assert sorted({name.split("/")[0] for name in files(tmp_path)}) == ["00_both", "01_conv"]
    assert health.history["both/dead_channels"] == [2]
    assert health.history["both/mean_zero_fraction"] == [0.5]


def test_a_part_of_a_model_that_is_not_called_itself(x: Any, tmp_path: Path) -> None:
    """As of generative adversarial networks."""

    class Pair(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.maker = keras.Sequential(
                [keras.Input((4, 4, 2)), layers.Conv2DTranspose(3, 5, name="made")]
            )

        def train_step(self, data: Any) -> dict[str, Any]:
            return {"loss": keras.ops.mean(self.maker(keras.ops.ones((1, 4, 4, 2))))}

    model, data = Pair(), np.ones((1, 4, 4, 2))
    model.compile("sgd")
    grids = ActivationGrids(data, folder=tmp_path)
    with pytest.raises(ModelError, match=r"does not have a `call\(\)` method"):
        model.fit(x, verbose=0, callbacks=[grids])
    grids.set_model(model.maker)
    drawing = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: grids(epoch))
    model.fit(x, epochs=2, verbose=0, callbacks=[drawing])
    grids.close()
    assert sorted(files(tmp_path)) == ["00_made/000000.png", "00_made/000001.png"]


def test_image_files_are_prepared_for_the_model(cnn: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    model = cnn()
    grids = ActivationGrids([tmp_path / "photo.png"], "conv", folder=tmp_path / "out")
    grids.set_model(model)
    draw(grids, 12)
    truth = actgrid.render_model(model, tmp_path / "photo.png", "conv")["conv"].to_png()
    assert files(tmp_path / "out") == {"00_conv/000012.png": truth}


def test_the_model_is_traced_once(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    grids = ActivationGrids(x[:2], folder=tmp_path)
    health, model = ChannelHealth(x, batch_size=5), cnn()
    for _ in range(2):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[grids, health])
    assert grids._samples._extractor.trace_count == 1
    assert health._samples._extractor.trace_count == 1


def test_a_folder_that_goes_away(cnn: Any, x: Any, tmp_path: Path, images: Any) -> None:
    """The disk's own failures are not to be had here: a file is where the folder was."""
    grids = ActivationGrids(x[:1], "conv", folder=tmp_path / "out", log_dir=tmp_path / "logs")
    grids.set_model(cnn())
    draw(grids, 0)
    (tmp_path / "out" / "00_conv" / "000000.png").unlink()
    (tmp_path / "out" / "00_conv").rmdir()
    (tmp_path / "out" / "00_conv").write_text("")
    with pytest.warns(RuntimeWarning, match=r"ActivationGrids: cannot make .*00_conv") as told:
        draw(grids, 1, 2, 3)
    assert len(told) == 1
    (tmp_path / "out" / "00_conv").unlink()
    draw(grids, 4)
    assert list(files(tmp_path / "out")) == ["00_conv/000004.png"]

    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Tensors(".", "conv")] == [0, 1, 2, 3, 4]


def test_beside_keras_own_tensorboard(
    cnn: Any, x: Any, y: Any, tmp_path: Path, images: Any
) -> None:
    grids = ActivationGrids(x[:1], "conv", log_dir=tmp_path)
    keras_own = keras.callbacks.TensorBoard(tmp_path)
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[keras_own, grids])
    assert list(images(tmp_path)["conv"]) == [0, 1]
    assert any((tmp_path / "train").iterdir())


def test_tensorboard_serves_our_pictures(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    truth, grids = Truth(x[:2], "conv"), ActivationGrids(x[:2], "conv", log_dir=tmp_path / "run")
    cnn().fit(x, y, epochs=2, verbose=0, callbacks=[truth, grids])
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path)]
    command += ["--port", "0", "--host", "127.0.0.1", "--load_fast=false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        assert server.stderr is not None
        watchdog = threading.Timer(60, server.kill)
        watchdog.start()
        try:
            told = (re.search(rb"http://\S+:\d+/", line) for line in server.stderr)
            address = next(filter(None, told))[0].decode() + "data/plugin/images/"

            def asked(what: str, **query: object) -> bytes:
                url = f"{address}{what}?{urllib.parse.urlencode(query)}"
                with urllib.request.urlopen(url, timeout=30) as answer:
                    found: bytes = answer.read()
                    return found

            while not (tags := json.loads(asked("tags"))):
                time.sleep(0.1)  # it has not read the folder yet
            assert list(tags["run"]) == ["conv"]
            samples = [
                [
                    asked(f"individualImage?{one['query']}".rstrip("?"))
                    for one in json.loads(asked("images", run="run", tag="conv", sample=sample))
                ]
                for sample in (0, 1)
            ]
        finally:
            watchdog.cancel()
            server.kill()
    assert samples == [[truth.pngs["conv"][step][sample] for step in (0, 1)] for sample in (0, 1)]
    assert Image.open(io.BytesIO(samples[0][0])).mode == "P"
