"""Activation maximization, as in tf-keras-vis."""

from __future__ import annotations

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

from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization
from actgrid.compat.tf_keras_vis.activation_maximization.callbacks import (
    Callback,
    GifGenerator2D,
    PrintLogger,
    Progress,
)
from actgrid.compat.tf_keras_vis.activation_maximization.input_modifiers import (
    Jitter,
    Rotate,
    Rotate2D,
    Scale,
)
from actgrid.compat.tf_keras_vis.activation_maximization.regularizers import Norm, TotalVariation2D
from actgrid.compat.tf_keras_vis.utils import regularizers as old_regularizers
from actgrid.compat.tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
from actgrid.errors import ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]
UNREGULARIZED: dict[str, Any] = {"input_modifiers": None, "regularizers": None}


def test_step_of_optimizer(network: Any, images: Array) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())
    norm = Norm(weight=2.0, p=2)
    with tf.GradientTape() as tape:
        tensor = tf.constant(images)
        tape.watch(tensor)
        loss = norm(tensor) - tf.gather(maximize.model(tensor), [0, 1, 2], batch_dims=1)
    gradient = tape.gradient(loss, tensor).numpy()
    result = maximize(
        CategoricalScore([0, 1, 2]),
        images,
        input_range=None,
        input_modifiers=[],
        regularizers=[norm],
        steps=1,
        optimizer=keras.optimizers.SGD(0.5),
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, images - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_score_increases(network: Any) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())
    keras.utils.set_random_seed(20)
    seeds = tf.random.uniform((4, 10, 10, 3), 0, 255)
    result = maximize(CategoricalScore([0, 1, 2, 3]), seeds, steps=30)
    assert result.shape == (4, 10, 10, 3)
    assert result.dtype == np.int64
    assert (result.min(), result.max()) >= (0, 0)
    assert result.max() <= 255
    before, after = (np.diag(maximize.model(np.float32(x))) for x in (seeds, result))
    assert (after > before + 10).all()


def test_input_range(network: Any) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())

    def run(input_range: Any) -> Any:
        keras.utils.set_random_seed(21)
        return maximize(CategoricalScore(1), input_range=input_range, steps=1, **UNREGULARIZED)

    assert run((0, 255)).shape == (1, 10, 10, 3)
    small = run((-1.0, 1.0))
    assert small.dtype == np.float32
    assert (small.min(), small.max()) == (-1, 1)
    # The first steps of RMSprop change each value by about 30.
    for input_range in (None, (None, None), (10.0, None), (None, 10.0)):
        values = run(input_range)
        low, high = input_range or (None, None)
        assert values.min() < -3 if low is None else values.min() == low
        assert values.max() > 3 if high is None else values.max() == high
    for invalid in ((0, 1, 2), [(0, 1), (0, 1)], 255):
        with pytest.raises(OptionError, match="input_range must be"):
            run(invalid)
    model = keras.Sequential([keras.Input((None, None, 3)), layers.GlobalMaxPooling2D()])
    with pytest.raises(OptionError, match="pass seed_input"):
        ActivationMaximization(model)(CategoricalScore(0))


def test_optimizer_can_be_reused(network: Any, images: Array) -> None:
    maximize, adam = ActivationMaximization(network), keras.optimizers.Adam(3.0)
    result = [
        maximize(CategoricalScore(1), images, steps=2, optimizer=adam, **UNREGULARIZED)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*result)
    with pytest.raises(OptionError, match=r"optimizer must be a keras\.optimizers\.Optimizer"):
        maximize(CategoricalScore(1), images, optimizer="adam")
    with pytest.raises(OptionError, match="steps must be at least 1"):
        maximize(CategoricalScore(1), images, steps=0)
    with pytest.raises(ModelError, match="no gradient with respect to every input"):
        maximize(lambda output: tf.ones(3), images, **UNREGULARIZED)


def test_modifiers_of_inputs_gradients_and_results(network: Any, images: Array) -> None:
    result = ActivationMaximization(network)(
        CategoricalScore(1),
        images,
        input_range=None,
        steps=2,
        input_modifiers=[lambda x: x * 2, lambda x: x + 1],
        regularizers=None,
        gradient_modifier=tf.zeros_like,
        optimizer=keras.optimizers.SGD(1.0),
        activation_modifiers=lambda x: -x,
    )
    np.testing.assert_allclose(result, -((images * 2 + 1) * 2 + 1), rtol=1e-6)


def test_callbacks_are_called_at_every_step(network: Any, images: Array) -> None:
    events: list[Any] = []

    class RecordingCallback(Callback):
        def on_begin(self, **kwargs: Any) -> None:
            events.append(kwargs["steps"])

        def __call__(self, i: int, *args: Any, **kwargs: Any) -> None:
            values, grads, scores, outputs = args
            events.append(
                (
                    i,
                    values[0].shape,
                    grads[0].shape,
                    scores[0].shape,
                    outputs[0].shape,
                    [name for name, _ in kwargs["regularizations"]],
                    len(kwargs["overall_score"]),
                )
            )
            if i == 1:
                raise RuntimeError("stop")

        def on_end(self) -> None:
            events.append("end")

    maximize = ActivationMaximization(network)
    with pytest.raises(RuntimeError, match="stop"):
        maximize(CategoricalScore(1), images, steps=5, callbacks=RecordingCallback())
    shapes = ((3, 10, 10, 3), (3, 10, 10, 3), (3,), (3, 4), ["TotalVariation2D", "Norm"], 3)
    assert events == [5, (0, *shapes), (1, *shapes), "end"]


def test_output_of_callbacks(
    network: Any, images: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ascent"
    maximize = ActivationMaximization(network)
    callbacks = [PrintLogger(interval=2), Progress(), GifGenerator2D(str(file))]
    maximize(CategoricalScore(1), images, steps=4, callbacks=callbacks)
    output = capsys.readouterr().out
    assert "Steps: 002\tScores: [[" in output
    assert "Steps: 004" in output
    assert "Steps: 003" not in output
    assert "Score: " in output
    assert "TotalVariation2D: " in output
    with Image.open(tmp_path / "ascent.gif") as movie:
        assert (getattr(movie, "n_frames", 1), movie.size) == (4, (10, 10))


def test_several_inputs_by_name() -> None:
    keras.utils.set_random_seed(22)
    a, b = keras.Input((5, 5, 1), name="a"), keras.Input((6, 6, 1), name="b")
    x = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    model = keras.Model([a, b], layers.Dense(2)(x))
    names: list[str] = []

    class RecordNames(Callback):
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            names.extend(name for name, _ in kwargs["regularizations"])

    maximize = ActivationMaximization(model)
    options: dict[str, Any] = {"steps": 1, "callbacks": [RecordNames()]}
    result = maximize(
        CategoricalScore(1),
        input_range=[(0, 255), (-1.0, 1.0)],
        input_modifiers={"a": Jitter(2)},
        regularizers=[[Norm(1.0)], [TotalVariation2D(1.0), Norm(2.0)]],
        activation_modifiers={"b": lambda x: x * 0},
        **options,
    )
    assert [array.shape for array in result] == [(1, 5, 5, 1), (1, 6, 6, 1)]
    assert [array.dtype for array in result] == [np.int64, np.float32]
    assert not result[1].any()
    assert names == ["Norm(a)", "TotalVariation2D(b)", "Norm(b)"]
    for option in ("input_modifiers", "regularizers", "activation_modifiers"):
        with pytest.raises(OptionError, match=f"{option}: the model has no input c; inputs: a, b"):
            maximize(CategoricalScore(1), **{option: {"c": None}})  # type: ignore[arg-type]
    with pytest.raises(
        OptionError, match="input_modifiers must have at most one entry for each of 2 inputs: got 3"
    ):
        maximize(CategoricalScore(1), input_modifiers=[[], [], []])


def test_vector_inputs() -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2, name="out")])
    seeds = np.full((3, 5), 0.5, np.float32)
    result = ActivationMaximization(model)(
        CategoricalScore(1), seeds, (0.0, 1.0), None, [Norm(1.0)], steps=2
    )
    assert result.shape == (3, 5)
    score = model(result)[:, 1] - model(seeds)[:, 1]
    assert (score.numpy() > 0).all()
    with pytest.raises(ShapeError, match=r"the model takes an input of \(None, 5\), not \(3, 4\)"):
        ActivationMaximization(model)(CategoricalScore(1), seeds[:, 1:], **UNREGULARIZED)


def test_regularizer_reads_variables_at_each_call(network: Any, images: Array) -> None:
    factor = 0.0
    maximize = ActivationMaximization(network)

    def regularizer(values: Any) -> Any:
        return factor * tf.reduce_sum(values, (1, 2, 3))

    options: dict[str, Any] = {"input_range": None, "input_modifiers": None, "steps": 1}
    options["optimizer"] = keras.optimizers.SGD(1.0)
    unregularized = maximize(CategoricalScore(1), images, regularizers=regularizer, **options)
    factor = 2.0
    regularized = maximize(CategoricalScore(1), images, regularizers=regularizer, **options)
    np.testing.assert_allclose(unregularized - regularized, 2.0, atol=1e-5)
    for name in ("input_modifiers", "regularizers"):
        with pytest.raises(OptionError, match=f"{name} must be functions of an input, not 3"):
            maximize(CategoricalScore(1), images, **{name: [3]})  # type: ignore[arg-type]


def test_input_modifiers() -> None:
    images = np.random.default_rng(23).random((2, 9, 9, 3), np.float32)
    rolled = np.asarray(Jitter(3)(images))
    shifts = [
        (down, right)
        for down in range(-3, 3)
        for right in range(-3, 3)
        if (np.roll(images, (down, right), (1, 2)) == rolled).all()
    ]
    assert len(shifts) == 1
    assert Jitter(0)(images) is images
    rotated = Rotate2D(degree=5)(images)
    assert rotated.shape == images.shape
    assert 0 < np.abs(rotated - images).mean() < np.abs(images[:, ::-1] - images).mean()
    np.testing.assert_allclose(Rotate(degree=0)(images), images, atol=1e-5)
    np.testing.assert_allclose(Scale(1.0, 1.0)(images), images, atol=1e-5)
    corners = np.asarray(Scale(2.0, 2.0)(images))[:, ::2, ::2]
    np.testing.assert_allclose(corners, images[:, 2:7, 2:7], atol=1e-5)
    with pytest.raises(OptionError, match=r"axes must be \(1, 2\)"):
        Rotate(axes=(1, 3))
    with pytest.raises(ShapeError, match="images must be"):
        Scale()(images[0])
    with pytest.raises(ShapeError, match="images must be"):
        Jitter()(images[0, 0])


def test_regularizers() -> None:
    images = tf.constant([[[[0.0], [1.0]], [[3.0], [6.0]]], [[[2.0], [2.0]], [[2.0], [2.0]]]])
    np.testing.assert_allclose(TotalVariation2D(weight=2)(images), [2 * 12 / 4, 0])
    np.testing.assert_allclose(Norm(weight=3, p=1)(images), [3 * 10 / 4, 3 * 2])
    np.testing.assert_allclose(Norm(weight=3, p=2)(images), [3 * np.sqrt(46 / 4), 3 * 2])
    assert Norm(1.0, p=1) == Norm(1.0, p=1) != Norm(1.0, p=2)
    with pytest.raises(ShapeError, match="images must be"):
        TotalVariation2D()(images[0])


README = """
import numpy as np
import tensorflow as tf
from tensorflow.keras.applications import VGG16
from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization
from actgrid.compat.tf_keras_vis.activation_maximization.callbacks import Progress
from actgrid.compat.tf_keras_vis.activation_maximization.input_modifiers import Jitter, Rotate2D
from actgrid.compat.tf_keras_vis.activation_maximization.regularizers import (
    Norm, TotalVariation2D)
from actgrid.compat.tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from actgrid.compat.tf_keras_vis.utils.model_modifiers import (
    ExtractIntermediateLayer, ReplaceToLinear)
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore

model = VGG16(weights=None, input_shape=(32, 32, 3))
activation_maximization = \\
   ActivationMaximization(model,
                          model_modifier=[ExtractIntermediateLayer('block1_conv2'),
                                          ReplaceToLinear()],
                          clone=False)
activations = \\
   activation_maximization(CategoricalScore(20),
                           steps=3,
                           input_modifiers=[Jitter(jitter=16), Rotate2D(degree=1)],
                           regularizers=[TotalVariation2D(weight=1.0),
                                         Norm(weight=0.3, p=1)],
                           optimizer=tf.keras.optimizers.RMSprop(1.0, 0.999),
                           callbacks=[Progress()])
print(activations.shape)

gradcam = GradcamPlusPlus(model, model_modifier=ReplaceToLinear(), clone=True)
cam = gradcam(CategoricalScore(20), np.random.uniform(size=(2, 32, 32, 3)))
print(cam.shape)
"""

TUTORIAL = """
import tensorflow as tf
from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization

def loss(output):
  return (output[0, 0], output[1, 1], output[2, 2])

def model_modifier(m):
    m.layers[-1].activation = tf.keras.activations.linear

visualize_activation = ActivationMaximization(model, model_modifier)
seed_input = tf.random.uniform((3, 10, 10, 3), 0, 255)
activations = visualize_activation(loss, seed_input=seed_input, steps=3, input_range=(30, 150))
print(activations.shape, activations.min() >= 30, activations.max() <= 150)
"""


OLDER = """
import tensorflow as tf
from tensorflow.keras import backend as K
from actgrid.compat.tf_keras_vis.activation_maximization import ActivationMaximization
from actgrid.compat.tf_keras_vis.utils.callbacks import GifGenerator, OptimizerCallback, Print
from actgrid.compat.tf_keras_vis.utils.input_modifiers import Jitter, Rotate
from actgrid.compat.tf_keras_vis.utils.losses import CategoricalLoss
from actgrid.compat.tf_keras_vis.utils.regularizers import L2Norm, TotalVariation

class NamesCallback(OptimizerCallback):
    def on_begin(self):
        print('begin')
    def __call__(self, i, values, grads, losses, model_outputs, **kwargs):
        print([name for name, _ in kwargs['regularizations']])

def model_modifier(m):
    m.layers[-1].activation = tf.keras.activations.linear

activation_maximization = ActivationMaximization(model, model_modifier)
loss = lambda x: K.mean(x[:, 2])
activation = activation_maximization(loss,
                                     steps=2,
                                     input_modifiers=[Jitter(jitter=2), Rotate(degree=2)],
                                     regularizers=[TotalVariation(10.), L2Norm(10.)],
                                     callbacks=[Print(interval=2), GifGenerator('result'),
                                                NamesCallback()])
print(activation[0].shape)
print(activation_maximization(CategoricalLoss(2), steps=1).shape)
"""


def test_example_of_older_version(
    run_script: Callable[..., str], network: Any, tmp_path: Path
) -> None:
    begin, names, steps, *rest = run_script(OLDER, model=network).splitlines()
    assert (begin, names) == ("begin", "['TotalVariation', 'L2Norm']")
    assert steps.startswith("Steps: 002\tScores: [")
    assert rest == [names, "(10, 10, 3)", "(1, 10, 10, 3)"]
    with Image.open(tmp_path / "result.gif") as animation:
        assert animation.size == (10, 10)


def test_regularizers_of_older_versions() -> None:
    images = tf.constant([[[[0.0], [1.0]], [[3.0], [6.0]]], [[[2.0], [2.0]], [[2.0], [2.0]]]])
    np.testing.assert_allclose(old_regularizers.TotalVariation(weight=2)(images), [2 * 12 / 8, 0])
    np.testing.assert_allclose(
        old_regularizers.L2Norm(weight=3)(images), [3 * np.sqrt(46) / 4, 3 * 4 / 4]
    )
    np.testing.assert_allclose(old_regularizers.Norm(weight=3, p=1)(images), [3 * 10 / 4, 3 * 2])


def test_examples_of_readme(run_script: Callable[..., str]) -> None:
    output = run_script(README)
    assert "(1, 32, 32, 3)" in output
    assert output.splitlines()[-1] == "(2, 32, 32)"


def test_example_of_tutorial(run_script: Callable[..., str], network: Any) -> None:
    assert run_script(TUTORIAL, model=network).strip() == "(3, 10, 10, 3) True True"
