"""The replacement for keract, with the uses of its README, examples and tests."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from actgrid.compat import keract
from actgrid.errors import (
    FormatError,
    LayerError,
    MissingFileError,
    OptionError,
    OutputError,
    ShapeError,
)
from actgrid.models.compiled import CompiledFunction
from actgrid.models.model_cache import get_model_cache
from actgrid.rendering import palette

Array = npt.NDArray[Any]


def make_uniform(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(size=shape)


class Block(layers.Layer):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fc = layers.Dense(10, name="fc1")
        self.relu = layers.ReLU(name="relu")

    def call(self, x: Any) -> Any:
        return self.relu(self.fc(x))


class Inner(keras.Model):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fc = layers.Dense(10, name="fc1")
        self.relu = layers.ReLU(name="relu")

    def call(self, x: Any) -> Any:
        return self.relu(self.fc(x))


@pytest.fixture(scope="module")
def nested() -> Any:
    """Return a model that contains a model and a layer with inner layers."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10,), name="i1")
    x = Block(name="block")(Inner(name="model")(inputs))
    model = keras.Model(inputs, layers.Dense(1, name="fc1")(x))
    model.compile(loss="mse", optimizer="adam")
    return model


@pytest.fixture(scope="module")
def convolution() -> Any:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(5, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation="softmax", name="out"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


def test_keys_of_activations(nested: Any) -> None:
    x = make_uniform(32, 10)
    by_name = keract.get_activations(nested, x)
    assert list(by_name) == ["i1", "model", "block", "fc1"]
    assert by_name["i1"] is x
    inside = keract.get_activations(nested, x, nested=True)
    assert list(inside) == ["i1", "model/fc1", "model/relu", "block/fc1", "block/relu", "fc1"]
    full = keract.get_activations(nested, x, output_format="full", nested=True)
    assert [key.rsplit("/", 1)[0] for key in full] == ["i1:0", *list(inside)[1:]]
    assert list(full)[2] == "model/relu/Relu:0"
    numbered = keract.get_activations(nested, x, output_format="numbered")
    assert list(numbered) == [0, 1, 2, 3]
    assert [value.shape for value in numbered.values()] == [(32, 10)] * 3 + [(32, 1)]
    for array, numbered_array in zip(by_name.values(), numbered.values(), strict=True):
        np.testing.assert_array_equal(array, numbered_array)
    np.testing.assert_array_equal(inside["model/relu"], by_name["model"])


def test_layers_by_name(nested: Any) -> None:
    x = make_uniform(4, 10)
    assert list(keract.get_activations(nested, x, layer_names="block")) == ["block"]
    assert list(keract.get_activations(nested, x, layer_name="fc1")) == ["fc1"]
    assert list(keract.get_activations(nested, x, layer_names="i1")) == ["i1"]
    names = ["block/fc1", "block/relu"]
    result = keract.get_activations(nested, x, layer_names=names, nested=True)
    assert list(result) == names
    np.testing.assert_array_equal(result["block/relu"], np.maximum(result["block/fc1"], 0))
    with pytest.raises(KeyError, match=r"no layer is called 'unknown'; names: i1, model"):
        keract.get_activations(nested, x, layer_names="unknown")
    with pytest.raises(LayerError, match=r"did you mean block"):
        keract.get_activations(nested, x, layer_names="blok")
    with pytest.raises(LayerError, match="no layer is called 1"):
        keract.get_activations(nested, x, layer_names=1)  # type: ignore[arg-type]


def test_activations_match_predict(convolution: Any) -> None:
    x = make_uniform(2, 8, 8, 1).astype(np.float32)
    result = keract.get_activations(convolution, x)
    assert list(result) == ["image", "conv", "pool", "drop", "flat", "out"]
    np.testing.assert_allclose(result["out"], convolution.predict(x, verbose=0), rtol=1e-5)
    np.testing.assert_array_equal(
        result["drop"], result["pool"]
    )  # dropout is inactive at inference
    result["conv"][:] = 0  # scripts may write to the arrays
    assert result["pool"].max() > 0


def test_several_inputs_in_model_order() -> None:
    widths = {"i4": 40, "i3": 30, "i2": 20, "i1": 10}
    inputs = {name: keras.Input((width,), name=name) for name, width in widths.items()}
    joined = layers.Concatenate(name="concat")([inputs[name] for name in ("i1", "i4", "i3", "i2")])
    model = keras.Model(list(inputs.values()), layers.Dense(1, name="fc1")(joined))
    x = [make_uniform(1, width) for width in widths.values()]
    result = keract.get_activations(model, x)
    assert {name: result[name].shape[1] for name in widths} == widths
    np.testing.assert_allclose(result["concat"], np.hstack([x[3], *x[:3]]), rtol=1e-6)
    by_name = keract.get_activations(model, dict(zip(widths, x, strict=True)))
    np.testing.assert_array_equal(by_name["fc1"], result["fc1"])
    with pytest.raises(ShapeError, match=r"4 inputs \(.*\), not 2"):
        keract.get_activations(model, x[:2])


def test_layer_of_several_outputs() -> None:
    inputs = keras.Input((None,), name="input")
    words = layers.Embedding(100, 4, name="embedding")(inputs)
    lstm = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(words)
    model = keras.Model(inputs, layers.Dense(1, name="final_dense")(lstm[1]))
    sequence, state, cell = keract.get_activations(model, np.ones((16, 10)), "lstm")["lstm"]
    assert (sequence.shape, state.shape, cell.shape) == ((16, 10, 4), (16, 4), (16, 4))
    np.testing.assert_array_equal(sequence[:, -1], state)
    full = keract.get_activations(model, np.ones((1, 3)), "lstm", output_format="full")
    assert [key.count("lstm/") for key in full] == [3]


def test_layer_that_is_called_twice() -> None:
    inputs, layer = keras.Input((3,), name="i"), layers.Dense(3, name="fc")
    model = keras.Model(inputs, layer(layer(inputs)))
    result = keract.get_activations(model, np.ones((1, 3)))
    assert list(result) == ["i", "fc", "fc:1"]


def test_model_that_is_built_by_its_first_call() -> None:
    model = keras.Sequential([layers.Dense(3, name="hidden"), layers.Dense(2, name="out")])
    first, second = (list(keract.get_activations(model, make_uniform(4, 10))) for _ in range(2))
    assert first == second
    assert first[1:] == ["hidden", "out"]


def test_imports_of_the_inner_module(run_script: Callable[..., str]) -> None:
    script = "from actgrid.compat.keract import keract, get_activations\nprint(keract.__all__[0])"
    assert run_script(script) == "display_activations\n"
    for script in (
        "from actgrid.compat.keract.keract import get_activations as get",
        "import actgrid.compat.keract.keract as inner\nget = inner.get_activations",
        "import actgrid.compat.keract.keract\nget = actgrid.compat.keract.keract.get_activations",
        "from actgrid.compat import keract\nget = keract.keract.get_activations",
    ):
        assert run_script(f"{script}\nprint(get.__name__)") == "get_activations\n"


def test_nodes_to_evaluate(nested: Any) -> None:
    x = make_uniform(32, 10)
    layer = nested.layers[-1]
    nodes = [nested.layers[2].output, layer.kernel, layer.bias]
    result = keract.get_activations(nested, x, nodes_to_evaluate=nodes)
    assert list(result) == ["block:0", "fc1/kernel:0", "fc1/bias:0"]
    expected = result["block:0"] @ result["fc1/kernel:0"] + result["fc1/bias:0"]
    np.testing.assert_allclose(keract.get_activations(nested, x)["fc1"], expected, rtol=1e-5)
    listed = keract.get_activations(
        nested, x, nodes_to_evaluate=[[layer.output, nodes[0]], nodes[0]]
    )
    assert list(listed) == ["fc1:0_block:0", "block:0"]
    np.testing.assert_array_equal(listed["fc1:0_block:0"][1], listed["block:0"])
    assert list(keract.get_activations(nested, x, nodes_to_evaluate=nodes[0])) == ["block:0"]
    assert list(keract.get_activations(nested, x, nodes_to_evaluate=layer.bias)) == ["fc1/bias:0"]
    with pytest.raises(
        ShapeError, match=r"the model takes an input of \(None, 10\), not \(32, 9\)"
    ):
        keract.get_activations(nested, x[:, 1:], nodes_to_evaluate=nodes)
    with pytest.raises(ValueError, match="nodes_to_evaluate is empty"):
        keract.get_activations(nested, x, nodes_to_evaluate=[])
    with pytest.raises(OptionError, match="not both"):
        keract.get_activations(nested, x, nodes_to_evaluate=nodes, layer_names="fc1")
    with pytest.raises(LayerError, match="neither a symbolic tensor nor a weight"):
        keract.get_activations(nested, x, nodes_to_evaluate=["fc1"])
    with pytest.raises(LayerError, match="cannot be computed from the model's inputs"):
        keract.get_activations(nested, x, nodes_to_evaluate=[keras.Input((2,))])


def test_unknown_output_format_is_rejected(nested: Any) -> None:
    with pytest.raises(OptionError, match="simple, full, numbered, not 'short'"):
        keract.get_activations(nested, make_uniform(1, 10), output_format="short")


def test_model_is_traced_once(convolution: Any) -> None:
    for batch in (1, 2, 3):
        keract.get_activations(convolution, make_uniform(batch, 8, 8, 1))
    functions = [
        value
        for value in get_model_cache(convolution).values()
        if isinstance(value, CompiledFunction)
    ]
    assert [function.trace_count for function in functions] == [1]


def test_gradients_match_tape(convolution: Any) -> None:
    x = make_uniform(4, 8, 8, 1).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    with tf.GradientTape() as tape:
        conv = convolution.layers[0](tf.constant(x))
        out = conv
        for layer in convolution.layers[1:]:
            out = layer(out)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(y, out))
    kernels = [variable.value for variable in convolution.trainable_variables]
    expected = tape.gradient(loss, [conv, *kernels])

    weights = keract.get_gradients_of_trainable_weights(convolution, x, y)
    assert list(weights) == ["conv/kernel:0", "conv/bias:0", "out/kernel:0", "out/bias:0"]
    result = keract.get_gradients_of_activations(convolution, x, y)
    assert list(result) == list(keract.get_activations(convolution, x))[1:]
    gradients = result["conv"], *weights.values()
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_gradients_of_chosen_layers(nested: Any) -> None:
    x, y = make_uniform(32, 10), make_uniform(32)
    result = keract.get_gradients_of_activations(nested, x, y, nested=True)
    assert list(result) == ["model/fc1", "model/relu", "block/fc1", "block/relu", "fc1"]
    assert result["fc1"].shape == (32, 1)
    with pytest.raises(LayerError, match="at least one layer: got only inputs"):
        keract.get_gradients_of_activations(nested, x, y, layer_name="i1")
    numbered = keract.get_gradients_of_activations(nested, x, y, "block", "numbered")
    np.testing.assert_allclose(numbered[0], result["block/relu"], rtol=1e-5)
    weights = keract.get_gradients_of_trainable_weights(nested, x, y)
    assert {name: gradient.shape for name, gradient in weights.items()} == {
        "model/fc1/kernel:0": (10, 10),
        "model/fc1/bias:0": (10,),
        "block/fc1/kernel:0": (10, 10),
        "block/fc1/bias:0": (10,),
        "fc1/kernel:0": (10, 1),
        "fc1/bias:0": (1,),
    }


def test_loss_includes_all_outputs_and_regularization() -> None:
    inputs = keras.Input((4,))
    a = layers.Dense(1, name="a", kernel_regularizer=keras.regularizers.L2(0.5))(inputs)
    model = keras.Model(inputs, [a, layers.Dense(2, name="b")(inputs)])
    model.compile(loss=["mse", "mse"], optimizer="adam", loss_weights=[2.0, 3.0])
    x = make_uniform(6, 4).astype(np.float32)
    y = [make_uniform(6, 1).astype(np.float32), make_uniform(6, 2).astype(np.float32)]
    result = keract.get_gradients_of_trainable_weights(model, x, y)
    kernel, bias = model.get_layer("a").get_weights()
    error = x @ kernel + bias - y[0]
    expected = 2 * 2 * x.T @ error / len(x) + kernel
    np.testing.assert_allclose(result["a/kernel:0"], expected, rtol=1e-4)
    with pytest.raises(ShapeError, match=r"does not fit the model's loss"):
        keract.get_gradients_of_trainable_weights(model, x, [y[0], make_uniform(6, 5)])


def test_recompiled_model_uses_its_new_loss(convolution: Any) -> None:
    model = keras.Sequential.from_config(convolution.get_config())
    x, y = make_uniform(2, 8, 8, 1), np.eye(3)[:2]
    with pytest.raises(OptionError, match="compile the model first"):
        keract.get_gradients_of_trainable_weights(model, x, y)
    result = []
    for loss in ("mse", "mae"):
        model.compile(loss=loss, optimizer="adam")
        result.append(keract.get_gradients_of_trainable_weights(model, x, y)["out/bias:0"])
    assert np.abs(result[0] - result[1]).max() > 1e-3


def read_pixels(path: Path) -> Array:
    return np.asarray(Image.open(path).convert("RGB"))


def test_pictures_are_saved_as_numbered_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.arange(18, dtype=np.float32).reshape(1, 3, 3, 2)
    activations = {
        "two": np.zeros((2, 3, 3, 1)),
        "conv/Relu:0": values,
        "dense": np.arange(6.0)[None],
        "steps": make_uniform(1, 5, 3),
        7: make_uniform(1, 2, 3, 3, 2),
        "lstm": [np.ones((1, 2)), np.ones((1, 4))],
    }
    folder = tmp_path / "new" / "folder"
    keract.display_activations(activations, save=True, directory=folder, cmap="gray")
    names = ["0_conv", "1_dense", "2_steps", "3_7", "4_lstm", "5_lstm[1]"]
    assert sorted(path.stem for path in folder.iterdir()) == names
    assert capsys.readouterr().out.splitlines()[:2] == [
        "two (2, 3, 3, 1) -> skipped: not a single sample",
        "conv/Relu:0 (1, 3, 3, 2)",
    ]
    # Two tiles, one above the other, each normalized by its minimum and maximum.
    picture = read_pixels(folder / "0_conv.png")[..., 0]
    zoom = 2400 // 7
    assert picture.shape == (7 * zoom, 3 * zoom)
    levels = picture[zoom // 2 :: zoom, zoom // 2 :: zoom]
    expected = np.trunc(np.arange(9).reshape(3, 3) * 255 / 8 + 0.5)
    np.testing.assert_array_equal(levels[:3], expected)
    np.testing.assert_array_equal(levels[4:], expected)


def test_dense_activations_and_data_formats(tmp_path: Path) -> None:
    dense = {"d": np.arange(32.0)[None]}
    keract.display_activations(dense, save=True, directory=tmp_path, fig_size=(3.2, 3.2))
    assert read_pixels(tmp_path / "0_d.png").shape[:2] == (10, 320)
    keract.display_activations(
        dense, save=True, directory=tmp_path, fig_size=(0.1, 0.1), reshape_1d_layers=True
    )
    assert read_pixels(tmp_path / "0_d.png").shape[:2] == (8, 4)
    image = make_uniform(1, 4, 5, 6)
    small = {"save": True, "fig_size": (0.01, 0.01)}
    keract.display_activations({"a": image}, directory=tmp_path, **small)  # type: ignore[arg-type]
    keract.display_activations(
        {"a": np.moveaxis(image, -1, 1)},
        directory=tmp_path / "first",
        data_format="channels_first",
        **small,  # type: ignore[arg-type]
    )
    last, first = read_pixels(tmp_path / "0_a.png"), read_pixels(tmp_path / "first" / "0_a.png")
    assert last.shape == (3 * 4 + 2, 2 * 5 + 1, 3)
    np.testing.assert_array_equal(last, first)
    with pytest.raises(OptionError, match="data_format must be one of"):
        keract.display_activations(dense, data_format="last")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        keract.display_activations(dense, save=True, directory=tmp_path / "file")


def test_heatmaps_are_drawn_over_the_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.array([0.0, 1.0, 2.0, 4.0], np.float32).reshape(1, 2, 2, 1)
    image = np.full((1, 2, 2, 1), 100.0)
    keract.display_heatmaps(
        {"conv": values, "dense": np.ones((1, 3))}, image, directory=tmp_path, save=True
    )
    assert [path.name for path in tmp_path.iterdir()] == ["0_conv.png"]
    assert "skipped: no spatial axes" in capsys.readouterr().out
    levels = np.trunc(values[0, :, :, 0] * 255 / 4 + 0.5).astype(int)
    expected = 0.7 * 100 + 0.3 * palette("jet")[levels].astype(float)
    result = read_pixels(tmp_path / "0_conv.png")[300::600, 300::600].astype(float)
    assert np.abs(result - expected).max() <= 1


def test_images_under_heatmaps(tmp_path: Path) -> None:
    maps = {"conv": make_uniform(1, 4, 4, 7), "steps": make_uniform(1, 4, 2)}
    result = []
    for name, image in {
        "of 255": make_uniform(8, 8, 3) * 255,
        "of 1": make_uniform(8, 8, 3),
    }.items():
        keract.display_heatmaps(maps, np.rint(image * 255) / 255, tmp_path / name, save=True)
        result.append(read_pixels(tmp_path / name / "0_conv.png").astype(int))
        assert (tmp_path / name / "1_steps.png").exists()
    assert np.abs(result[0] - result[1]).max() <= 1
    # Images are shrunk so that 26 columns fit the figure.
    keract.display_heatmaps(
        {"a": make_uniform(1, 4, 4, 650)}, np.ones((200, 300)), tmp_path, save=True
    )
    assert 2300 < read_pixels(tmp_path / "0_a.png").shape[1] < 2520
    with pytest.raises(ShapeError, match=r"input_image must be \(H, W, 3\) or \(H, W\)"):
        keract.display_heatmaps(maps, np.ones((2, 8, 8, 3)))
    with pytest.raises(ShapeError, match="input_image"):
        keract.display_heatmaps(maps, np.ones((1, 8, 8, 3)), fix=False)
    with pytest.raises(ShapeError, match="3 or 4 axes for heatmaps, not 5"):
        keract.display_heatmaps({"volume": make_uniform(1, 2, 2, 2, 2)}, np.ones((8, 8)))


def test_gradients_of_kernels_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gradients = {"conv/kernel:0": make_uniform(3, 2, 4, 5), "conv/bias:0": make_uniform(5)}
    keract.display_gradients_of_trainable_weights(gradients, directory=tmp_path, save=True)
    assert [path.name for path in tmp_path.iterdir()] == ["0_conv.png"]
    height, width = 5 * 4 - 1, 4 * 3 - 1  # a row for each output channel
    zoom = 1200 // height
    assert read_pixels(tmp_path / "0_conv.png").shape[:2] == (height * zoom, width * zoom)
    assert "conv/bias:0 (5,) -> skipped" in capsys.readouterr().out


def test_json_files_round_trip(tmp_path: Path, nested: Any) -> None:
    activations = keract.get_activations(nested, make_uniform(2, 10))
    file = tmp_path / "activations.json"
    keract.persist_to_json_file(activations, file)
    result = keract.load_activations_from_json_file(str(file))
    assert list(result) == list(activations)
    for name, array in result.items():
        np.testing.assert_array_equal(array, activations[name])
    keract.persist_to_json_file({0: np.array([np.nan, np.inf]), "l": [np.ones(2)] * 2}, file)
    assert list(json.loads(file.read_text())) == ["0", "l", "l[1]"]
    np.testing.assert_array_equal(
        keract.load_activations_from_json_file(file)["0"], [np.nan, np.inf]
    )
    with pytest.raises(MissingFileError, match="there is no file"):
        keract.load_activations_from_json_file(tmp_path / "none.json")
    for text in ("{", "[1]", '{"a": [[1], [1, 2]]}'):
        file.write_text(text)
        with pytest.raises(FormatError, match="has no activations in JSON"):
            keract.load_activations_from_json_file(file)


def test_pictures_are_shown_by_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    shown_pictures: list[Any] = []

    def record_figure() -> None:
        figure = pyplot.gcf()
        (image,) = figure.axes[0].get_images()
        shown_pictures.append(
            (figure.get_suptitle(), tuple(figure.get_size_inches()), image.get_array())
        )

    monkeypatch.setattr(pyplot, "show", record_figure)
    keract.display_activations({"conv": make_uniform(1, 2, 2, 1)}, fig_size=(2, 1))
    ((title, inches, array),) = shown_pictures
    assert (title, inches, array.shape) == ("conv", (2, 1), (100, 100, 3))
    assert not pyplot.get_fignums()


def test_pictures_are_shown_in_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_pictures: list[Any] = []
    shell = types.SimpleNamespace(kernel=True)
    ipython = types.SimpleNamespace(
        get_ipython=lambda: shell, display=types.SimpleNamespace(display=shown_pictures.append)
    )
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    keract.display_heatmaps({"conv": make_uniform(1, 2, 2, 1)}, np.ones((4, 4)))
    assert shown_pictures[0].to_png().startswith(b"\x89PNG")


def test_pictures_are_shown_by_the_system_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_pictures: list[Any] = []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(
        Image.Image, "show", lambda self, title: shown_pictures.append((title, self.mode))
    )
    keract.display_activations({"conv": make_uniform(1, 2, 2, 1)})
    assert shown_pictures == [("conv", "P")]


@pytest.mark.parametrize("name", ["tf.compat.v1", "tensorflow.compat.v1"])
def test_eager_execution_stays_enabled(name: str) -> None:
    module: Any = tf.compat.v1
    if name == "tensorflow.compat.v1":
        module = importlib.import_module(name)  # as Keras's TensorBoard callback does
        assert tf.compat.v1 is module
    assert module.disable_eager_execution.__module__ == "actgrid.compat.keract.eager"
    with pytest.warns(UserWarning, match="because Keras 3 needs it"):
        module.disable_eager_execution()
    assert tf.executing_eagerly()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [("", "True"), ("tf.constant(1)", "remove tf.compat.v1.disable_eager_execution()")],
)
def test_eager_execution_is_enabled_again(statement: str, expected: str) -> None:
    script = f"""
import tensorflow as tf
tf.compat.v1.disable_eager_execution()
{statement}
from actgrid.errors import ModelError
try:
    from actgrid.compat import keract
    print(tf.executing_eagerly())
except ModelError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert expected in process.stdout, process.stderr


README = """
import numpy as np
from tensorflow.keras import Input, Model
from tensorflow.keras.layers import Dense, concatenate
from actgrid.compat.keract import get_activations

i1 = Input(shape=(10,), name='i1')
i2 = Input(shape=(10,), name='i2')
a = Dense(1, name='fc1')(i1)
b = Dense(1, name='fc2')(i2)
c = concatenate([a, b], name='concat')
d = Dense(1, name='out')(c)
model = Model(inputs=[i1, i2], outputs=[d])
x = [np.random.uniform(size=(32, 10)), np.random.uniform(size=(32, 10))]
activations = get_activations(model, x, auto_compile=True)
[print(k, '->', v.shape, '- Numpy array') for (k, v) in activations.items()]
"""

SEVERAL_INPUTS = """
import numpy as np
import tensorflow as tf
from tensorflow.keras.layers import Add, Dense, Input
from tensorflow.keras.models import Model
from actgrid.compat import keract

tf.compat.v1.disable_eager_execution()

a, b = Input(shape=(10,)), Input(shape=(10,))
last = Dense(1, activation='sigmoid', name='last_layer')(Add()([a, b]))
m1 = Model(inputs=[a, b], outputs=last)
m1.compile(optimizer='adam', loss='mse')
inputs = [np.random.uniform(size=(5, 10)), np.random.uniform(size=(5, 10))]
out = np.random.uniform(size=(5, 1))
for result in (
    keract.get_activations(m1, inputs),
    keract.get_gradients_of_trainable_weights(m1, inputs, out),
    keract.get_gradients_of_activations(m1, inputs, out),
    keract.get_activations(m1, inputs, layer_names='last_layer'),
    keract.get_gradients_of_activations(m1, inputs, out, layer_names='last_layer'),
):
    print(*(value.shape for value in result.values()))
"""

RECURRENT = """
import numpy as np
from tensorflow.keras.layers import LSTM, Dense
from tensorflow.keras.models import Sequential
from actgrid.compat import keract

model = Sequential()
model.add(LSTM(16, input_shape=(28, 28)))
model.add(Dense(10, activation='softmax'))
model.compile(loss='categorical_crossentropy', optimizer='adam', metrics=['accuracy'])
x, y = np.random.uniform(size=(8, 28, 28)), np.eye(10)[:8]
for result in (
    keract.get_activations(model, x),
    keract.get_gradients_of_trainable_weights(model, x, y),
    keract.get_gradients_of_activations(model, x, y),
):
    print(*(value.shape for value in result.values()))
"""

MNIST = """
import numpy as np
from tensorflow import keras
from tensorflow.keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from tensorflow.keras.models import Sequential
from actgrid.compat.keract import display_activations, display_heatmaps, get_activations

model = Sequential()
model.add(Conv2D(32, kernel_size=(3, 3), activation='relu', input_shape=(28, 28, 1)))
model.add(Conv2D(64, (3, 3), activation='relu'))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Dropout(0.25))
model.add(Flatten())
model.add(Dense(128, activation='relu'))
model.add(Dropout(0.5))
model.add(Dense(10, activation='softmax'))
model.compile(loss=keras.losses.categorical_crossentropy,
              optimizer=keras.optimizers.Adadelta(), metrics=['accuracy'])
x_test = np.random.uniform(size=(128, 28, 28, 1)).astype('float32')
for layer_name, layer_activations in get_activations(model, x_test).items():
    print(layer_activations.shape)
a = get_activations(model, x_test[0:1])
display_activations(a, cmap='gray', save=True, directory='activations')
display_heatmaps(a, x_test[0:1] * 255, save=True, directory='heatmaps')
"""


def test_example_of_readme(run_script: Callable[..., str]) -> None:
    assert run_script(README).splitlines() == [
        "i1 -> (32, 10) - Numpy array",
        "i2 -> (32, 10) - Numpy array",
        "fc1 -> (32, 1) - Numpy array",
        "fc2 -> (32, 1) - Numpy array",
        "concat -> (32, 2) - Numpy array",
        "out -> (32, 1) - Numpy array",
    ]


def test_example_of_several_inputs(run_script: Callable[..., str]) -> None:
    layer_by_layer = "(5, 10) (5, 1)"
    assert run_script(SEVERAL_INPUTS).splitlines() == [
        f"(5, 10) (5, 10) {layer_by_layer}",
        "(10, 1) (1,)",
        layer_by_layer,
        "(5, 1)",
        "(5, 1)",
    ]


def test_example_of_recurrent_network(run_script: Callable[..., str]) -> None:
    layer_by_layer = "(8, 16) (8, 10)"
    weights = "(28, 64) (16, 64) (64,) (16, 10) (10,)"
    output = run_script(RECURRENT).splitlines()
    assert output == [f"(8, 28, 28) {layer_by_layer}", weights, layer_by_layer]


def test_example_of_mnist(run_script: Callable[..., str], tmp_path: Path) -> None:
    output = run_script(MNIST).splitlines()
    shapes = ["28, 28, 1", "26, 26, 32", "24, 24, 64", "12, 12, 64", "12, 12, 64"]
    shapes += ["9216", "128", "128", "10"]
    assert output[:9] == [f"(128, {shape})" for shape in shapes]
    assert len(list((tmp_path / "activations").iterdir())) == 9
    assert len(list((tmp_path / "heatmaps").iterdir())) == 5
