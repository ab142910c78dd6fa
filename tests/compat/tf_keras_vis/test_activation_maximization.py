"""Gradient ascent on the input, step by step."""

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
from actgrid.compat.tf_keras_vis.utils import regularizers as older
from actgrid.compat.tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
from actgrid.errors import ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]
PLAIN: dict[str, Any] = {"input_modifiers": None, "regularizers": None}


def test_a_step_is_that_of_the_optimizer(network: Any, images: Array) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())
    norm = Norm(weight=2.0, p=2)
    with tf.GradientTape() as tape:
        taken = tf.constant(images)
        tape.watch(taken)
        loss = norm(taken) - tf.gather(maximize.model(taken), [0, 1, 2], batch_dims=1)
    slope = tape.gradient(loss, taken).numpy()
    found = maximize(
        CategoricalScore([0, 1, 2]),
        images,
        input_range=None,
        input_modifiers=[],
        regularizers=[norm],
        steps=1,
        optimizer=keras.optimizers.SGD(0.5),
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images - 0.5 * slope, rtol=1e-4, atol=1e-6)


def test_the_score_rises(network: Any) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())
    keras.utils.set_random_seed(20)
    seeds = tf.random.uniform((4, 10, 10, 3), 0, 255)
    found = maximize(CategoricalScore([0, 1, 2, 3]), seeds, steps=30)
    assert found.shape == (4, 10, 10, 3)
    assert found.dtype == np.int64
    assert (found.min(), found.max()) >= (0, 0)
    assert found.max() <= 255
    before, after = (np.diag(maximize.model(np.float32(x))) for x in (seeds, found))
    assert (after > before + 10).all()


def test_where_it_begins_and_what_it_is_cut_to(network: Any) -> None:
    maximize = ActivationMaximization(network, ReplaceToLinear())

    def found(given: Any) -> Any:
        keras.utils.set_random_seed(21)
        return maximize(CategoricalScore(1), input_range=given, steps=1, **PLAIN)

    assert found((0, 255)).shape == (1, 10, 10, 3)
    small = found((-1.0, 1.0))
    assert small.dtype == np.float32
    assert (small.min(), small.max()) == (-1, 1)
    # Steps of RMSprop move each value by some 30 at first.
    for given in (None, (None, None), (10.0, None), (None, 10.0)):
        values = found(given)
        low, high = given or (None, None)
        assert values.min() < -3 if low is None else values.min() == low
        assert values.max() > 3 if high is None else values.max() == high
    for wrong in ((0, 1, 2), [(0, 1), (0, 1)], 255):
        with pytest.raises(OptionError, match="input_range must be"):
            found(wrong)
    whole = keras.Sequential([keras.Input((None, None, 3)), layers.GlobalMaxPooling2D()])
    with pytest.raises(OptionError, match="give a seed_input"):
        ActivationMaximization(whole)(CategoricalScore(0))


def test_an_optimizer_may_be_given_again(network: Any, images: Array) -> None:
    maximize, adam = ActivationMaximization(network), keras.optimizers.Adam(3.0)
    found = [
        maximize(CategoricalScore(1), images, steps=2, optimizer=adam, **PLAIN) for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)
    with pytest.raises(OptionError, match="optimizer must be one of"):
        maximize(CategoricalScore(1), images, optimizer="adam")
    with pytest.raises(OptionError, match="steps must be at least 1"):
        maximize(CategoricalScore(1), images, steps=0)
    with pytest.raises(ModelError, match="does not depend on every input"):
        maximize(lambda output: tf.ones(3), images, **PLAIN)


def test_modifiers_of_inputs_gradients_and_results(network: Any, images: Array) -> None:
    found = ActivationMaximization(network)(
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
    np.testing.assert_allclose(found, -((images * 2 + 1) * 2 + 1), rtol=1e-6)


def test_callbacks_see_every_step(network: Any, images: Array) -> None:
    seen: list[Any] = []

    class Watcher(Callback):
        def on_begin(self, **kwargs: Any) -> None:
            seen.append(kwargs["steps"])

        def __call__(self, i: int, *args: Any, **kwargs: Any) -> None:
            values, grads, scores, outputs = args
            seen.append(
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
                raise RuntimeError("enough")

        def on_end(self) -> None:
            seen.append("end")

    maximize = ActivationMaximization(network)
    with pytest.raises(RuntimeError, match="enough"):
        maximize(CategoricalScore(1), images, steps=5, callbacks=Watcher())
    one = ((3, 10, 10, 3), (3, 10, 10, 3), (3,), (3, 4), ["TotalVariation2D", "Norm"], 3)
    assert seen == [5, (0, *one), (1, *one), "end"]


def test_what_callbacks_print_and_write(
    network: Any, images: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "climb"
    maximize = ActivationMaximization(network)
    watchers = [PrintLogger(interval=2), Progress(), GifGenerator2D(str(file))]
    maximize(CategoricalScore(1), images, steps=4, callbacks=watchers)
    printed = capsys.readouterr().out
    assert "Steps: 002\tScores: [[" in printed
    assert "Steps: 004" in printed
    assert "Steps: 003" not in printed
    assert "Score: " in printed
    assert "TotalVariation2D: " in printed
    with Image.open(tmp_path / "climb.gif") as movie:
        assert (movie.n_frames, movie.size) == (4, (10, 10))


def test_several_inputs_by_name() -> None:
    keras.utils.set_random_seed(22)
    a, b = keras.Input((5, 5, 1), name="a"), keras.Input((6, 6, 1), name="b")
    x = layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(b)])
    model = keras.Model([a, b], layers.Dense(2)(x))
    seen: list[str] = []

    class Names(Callback):
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            seen.extend(name for name, _ in kwargs["regularizations"])

    maximize = ActivationMaximization(model)
    options: dict[str, Any] = {"steps": 1, "callbacks": [Names()]}
    found = maximize(
        CategoricalScore(1),
        input_range=[(0, 255), (-1.0, 1.0)],
        input_modifiers={"a": Jitter(2)},
        regularizers=[[Norm(1.0)], [TotalVariation2D(1.0), Norm(2.0)]],
        activation_modifiers={"b": lambda x: x * 0},
        **options,
    )
    assert [one.shape for one in found] == [(1, 5, 5, 1), (1, 6, 6, 1)]
    assert [one.dtype for one in found] == [np.int64, np.float32]
    assert not found[1].any()
    assert seen == ["Norm(a)", "TotalVariation2D(b)", "Norm(b)"]
    for name in ("input_modifiers", "regularizers", "activation_modifiers"):
        with pytest.raises(OptionError, match=f"{name}: the model has no input c, but a, b"):
            maximize(CategoricalScore(1), **{name: {"c": None}})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="input_modifiers are for 3 inputs"):
        maximize(CategoricalScore(1), input_modifiers=[[], [], []])


def test_seeds_that_are_no_images() -> None:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2, name="out")])
    seeds = np.full((3, 5), 0.5, np.float32)
    found = ActivationMaximization(model)(
        CategoricalScore(1), seeds, (0.0, 1.0), None, [Norm(1.0)], steps=2
    )
    assert found.shape == (3, 5)
    score = model(found)[:, 1] - model(seeds)[:, 1]
    assert (score.numpy() > 0).all()
    with pytest.raises(ShapeError, match=r"the model takes an input of \(None, 5\), not \(3, 4\)"):
        ActivationMaximization(model)(CategoricalScore(1), seeds[:, 1:], **PLAIN)


def test_a_regularizer_reads_its_variables_at_each_call(network: Any, images: Array) -> None:
    factor = 0.0
    maximize = ActivationMaximization(network)

    def regularizer(values: Any) -> Any:
        return factor * tf.reduce_sum(values, (1, 2, 3))

    options: dict[str, Any] = {"input_range": None, "input_modifiers": None, "steps": 1}
    options["optimizer"] = keras.optimizers.SGD(1.0)
    free = maximize(CategoricalScore(1), images, regularizers=regularizer, **options)
    factor = 2.0
    bound = maximize(CategoricalScore(1), images, regularizers=regularizer, **options)
    np.testing.assert_allclose(free - bound, 2.0, atol=1e-5)
    for name in ("input_modifiers", "regularizers"):
        with pytest.raises(OptionError, match=f"{name} must be functions of an input, not 3"):
            maximize(CategoricalScore(1), images, **{name: [3]})  # type: ignore[arg-type]


def test_input_modifiers() -> None:
    images = np.random.default_rng(23).random((2, 9, 9, 3), np.float32)
    moved = np.asarray(Jitter(3)(images))
    shifts = [
        (down, right)
        for down in range(-3, 3)
        for right in range(-3, 3)
        if (np.roll(images, (down, right), (1, 2)) == moved).all()
    ]
    assert len(shifts) == 1
    assert Jitter(0)(images) is images
    turned = Rotate2D(degree=5)(images)
    assert turned.shape == images.shape
    assert 0 < np.abs(turned - images).mean() < np.abs(images[:, ::-1] - images).mean()
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

class Watcher(OptimizerCallback):
    def on_begin(self):
        print('begun')
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
                                     callbacks=[Print(interval=2), GifGenerator('found'),
                                                Watcher()])
print(activation[0].shape)
print(activation_maximization(CategoricalLoss(2), steps=1).shape)
"""


def test_the_example_of_an_older_version(
    run_script: Callable[..., str], network: Any, tmp_path: Path
) -> None:
    begun, names, steps, *rest = run_script(OLDER, model=network).splitlines()
    assert (begun, names) == ("begun", "['TotalVariation', 'L2Norm']")
    assert steps.startswith("Steps: 002\tScores: [")
    assert rest == [names, "(10, 10, 3)", "(1, 10, 10, 3)"]
    with Image.open(tmp_path / "found.gif") as animation:
        assert animation.size == (10, 10)


def test_regularizers_of_older_versions() -> None:
    images = tf.constant([[[[0.0], [1.0]], [[3.0], [6.0]]], [[[2.0], [2.0]], [[2.0], [2.0]]]])
    np.testing.assert_allclose(older.TotalVariation(weight=2)(images), [2 * 12 / 8, 0])
    np.testing.assert_allclose(older.L2Norm(weight=3)(images), [3 * np.sqrt(46) / 4, 3 * 4 / 4])
    np.testing.assert_allclose(older.Norm(weight=3, p=1)(images), [3 * 10 / 4, 3 * 2])


def test_the_readmes_examples(run_script: Callable[..., str]) -> None:
    printed = run_script(README)
    assert "(1, 32, 32, 3)" in printed
    assert printed.splitlines()[-1] == "(2, 32, 32)"


def test_the_example_of_a_tutorial(run_script: Callable[..., str], network: Any) -> None:
    assert run_script(TUTORIAL, model=network).strip() == "(3, 10, 10, 3) True True"
