"""Attributions of sequences, volumes, tables, several inputs and texts.

Values are compared with gradients of a tape that is written by hand, with sums, and with models
whose attributions are known.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from tests.attribution.packages import skip_without_packages

import actgrid
from actgrid.attribution import ZeroAttributionWarning
from actgrid.attribution.methods import get_methods
from actgrid.errors import LayerError, OptionError, ShapeError
from actgrid.rendering import (
    SequenceAttribution,
    TableAttribution,
    TextAttribution,
    VolumeAttribution,
)

Array = npt.NDArray[Any]

# Methods that explain networks without attention.
GENERAL_METHODS = [
    name for name, method in get_methods().items() if "attention" not in method.needs
]
QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "iscam": {"steps": 2},
    "rise": {"samples": 20, "grid_size": 3},
    "sobol": {"samples": 4, "grid_size": 2},
    "hsic": {"samples": 20, "grid_size": 3},
    **{method: {"samples": 20, "segments": 4} for method in ("lime", "kernel_shap")},
    **{
        method: {"samples": 2}
        for method in (
            *("smoothgrad", "vargrad", "smoothgrad_squared", "gradient_shap"),
            *("expected_gradients", "smooth_gradcam++", "sscam"),
        )
    },
}

RNG = np.random.default_rng(0)
SIDES = {"table": (), "sequence": (12,), "image": (6, 5), "volume": (4, 5, 6)}
AXES = {
    "table": ("feature",),
    "sequence": ("time",),
    "image": ("height", "width"),
    "volume": ("depth", "height", "width"),
}
CLASSES = {
    "table": TableAttribution,
    "sequence": SequenceAttribution,
    "image": actgrid.Heatmap,
    "volume": VolumeAttribution,
}


def make_model(kind: str, channels: int = 2) -> Any:
    keras.utils.set_random_seed(7)
    sides = SIDES[kind]
    hidden = (
        [layers.Dense(8, activation="tanh")]
        if kind == "table"
        else [
            getattr(layers, f"Conv{len(sides)}D")(4, 3, padding="same", activation="tanh"),
            getattr(layers, f"GlobalAveragePooling{len(sides)}D")(),
        ]
    )
    return keras.Sequential(
        [keras.Input((*sides, channels)), *hidden, layers.Dense(3, kernel_initializer="normal")]
    )


def make_x(kind: str, channels: int = 2, samples: int = 2) -> Array:
    return RNG.normal(size=(samples, *SIDES[kind], channels)).astype(np.float32)


def differentiate(model: Any, x: Any, target: int) -> Array:
    """Return the gradient of a class with respect to the input, by a tape."""
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        score = tf.reduce_sum(model(tensor)[:, target])
    return np.asarray(tape.gradient(score, tensor))


@pytest.mark.parametrize("kind", SIDES)
def test_gradients_equal_those_of_a_tape(kind: str) -> None:
    model, x = make_model(kind), make_x(kind)
    gradient = differentiate(model, x, 1)
    expected = gradient if kind == "table" else np.abs(gradient).max(-1)
    saliency = actgrid.explain(model, x, "saliency", target=1)
    assert type(saliency) is CLASSES[kind]
    assert saliency.axes == AXES[kind]
    np.testing.assert_allclose(saliency.values, np.abs(expected), rtol=1e-3, atol=1e-7)
    product = actgrid.explain(model, x, "gradient_x_input", target=1)
    summed = gradient * x if kind == "table" else (gradient * x).sum(-1)
    np.testing.assert_allclose(product.values, summed, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", SIDES)
def test_integrated_gradients_sum_to_the_change_of_the_score(kind: str) -> None:
    model, x = make_model(kind), make_x(kind)
    result = actgrid.explain(model, x, "integrated_gradients", target=2, complete=False)
    change = np.asarray(model(x))[:, 2] - np.asarray(model(np.zeros_like(x)))[:, 2]
    np.testing.assert_allclose(result.values.reshape(2, -1).sum(1), change, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["sequence", "image", "volume"])
def test_reduce_none_keeps_the_channels(kind: str) -> None:
    model, x = make_model(kind, 3), make_x(kind, 3)
    result = actgrid.explain(model, x, "saliency", target=0, reduce="none")
    assert result.axes == (*AXES[kind], "channel")
    np.testing.assert_allclose(result.values, differentiate(model, x, 0), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["sequence", "image", "volume"])
@pytest.mark.parametrize("method", ["gradcam", "layercam", "gradcam++", "scorecam", "cam"])
def test_class_activation_maps_of_all_ranks(kind: str, method: str) -> None:
    model, x = make_model(kind), make_x(kind)
    result = actgrid.explain(model, x, method, target=1)
    assert result.layer == model.layers[0].name
    assert result.values.shape == (2, *SIDES[kind])
    features = np.asarray(model.layers[0](x))
    weights = model.layers[-1].get_weights()[0][:, 1]
    if method in ("gradcam", "cam"):
        # The gradient of the mean is the weight of the dense layer over the number of positions.
        expected = features @ weights
        if method == "gradcam":
            expected = np.maximum(expected, 0) / np.prod(SIDES[kind])
        np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-6)


def make_sum_model(shape: tuple[int, ...], weights: Array) -> Any:
    """Return a model whose only score is the sum of its inputs times weights."""
    model = keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(1, use_bias=False)]
    )
    model.layers[-1].set_weights([weights.reshape(-1, 1)])
    return model


@pytest.mark.parametrize("kind", SIDES)
def test_occlusion_of_single_positions_is_their_contribution(kind: str) -> None:
    shape = (*SIDES[kind], 2)
    weights = RNG.normal(size=shape).astype(np.float32)
    model, x = make_sum_model(shape, weights), make_x(kind)
    result = actgrid.explain(
        model, x, "occlusion", target=lambda y: y[:, 0], patch=1, stride=1, baseline=0
    )
    contributions = x * weights
    expected = contributions if kind == "table" else contributions.sum(-1)
    np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_occlusion_windows_cover_all_steps(
    steps: int, channels: int, patch: int, stride: int
) -> None:
    patch = min(patch, steps)
    stride = min(stride, patch)
    model = make_sum_model((steps, channels), np.ones((steps, channels), np.float32))
    x = np.ones((1, steps, channels), np.float32)
    result = actgrid.explain(
        model, x, "occlusion", target=lambda y: y[:, 0], patch=patch, stride=stride, baseline=0
    )
    # Each window of equal values decreases the score equally.
    np.testing.assert_allclose(result.values, np.full((1, steps), patch * channels), rtol=1e-4)


@pytest.mark.parametrize("kind", SIDES)
def test_rise_and_lime_find_the_position_that_counts(kind: str) -> None:
    shape = (*SIDES[kind], 2)
    weights = np.zeros(shape, np.float32)
    position = (1,) if kind == "table" else tuple(side // 2 for side in SIDES[kind])
    weights[position] = 5
    model, x = make_sum_model(shape, weights), np.ones((1, *shape), np.float32)
    cases: list[tuple[str, Any]] = [
        ("rise", {"samples": 400, "grid_size": 3, "baseline": 0}),
        ("lime", {"samples": 200, "segments": 12, "baseline": 0}),
    ]
    for method, options in cases:
        result = actgrid.explain(model, x, method, target=lambda y: y[:, 0], **options)
        values = result.values[0]
        assert values.shape == (SIDES[kind] or (2,))
        assert values[position] > values.mean()
        if method == "lime":
            assert values[position] == values.max()


def test_lime_segments_of_sequences_are_intervals_and_of_volumes_blocks() -> None:
    result = actgrid.explain(make_model("sequence"), make_x("sequence"), "lime", segments=4)
    segments = result.details["segments"][0]
    assert (np.diff(segments) >= 0).all()
    assert np.unique(segments).size == 4
    result = actgrid.explain(make_model("volume"), make_x("volume"), "lime", segments=8)
    segments = result.details["segments"][0]
    assert segments.shape == SIDES["volume"]
    for segment in np.unique(segments):
        places = np.argwhere(segments == segment)
        assert len(places) == np.prod(places.max(0) - places.min(0) + 1)


def test_channels_first_sequences_and_volumes() -> None:
    for kind, rank in (("sequence", 1), ("volume", 3)):
        x = make_x(kind)
        last = keras.Sequential(
            [keras.Input(x.shape[1:]), getattr(layers, f"GlobalAveragePooling{rank}D")()]
        )
        first = keras.Sequential(
            [
                keras.Input((2, *SIDES[kind])),
                getattr(layers, f"GlobalAveragePooling{rank}D")(data_format="channels_first"),
            ]
        )
        for method in ("gradient_x_input", "occlusion"):
            np.testing.assert_allclose(
                actgrid.explain(first, np.moveaxis(x, -1, 1), method, target=0).values,
                actgrid.explain(last, x, method, target=0).values,
                rtol=1e-4,
                atol=1e-6,
            )


class Subclassed(keras.Model):  # type: ignore[misc]
    """A model whose input is not known before its first call."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.conv = getattr(layers, f"Conv{rank}D")(3, 3, padding="same")
        self.pool = getattr(layers, f"GlobalAveragePooling{rank}D")()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(self.pool(self.conv(x)))


@pytest.mark.parametrize("kind", ["sequence", "image", "volume"])
def test_subclassed_models_that_were_not_called(kind: str) -> None:
    x = make_x(kind)
    model = Subclassed(len(SIDES[kind]))
    result = actgrid.explain(model, x, "gradient_x_input", target=1)
    expected = (differentiate(model, x, 1) * x).sum(-1)
    np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-6)


def make_recurrent(layer: Any) -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((10, 3)), layer, layers.GlobalAveragePooling1D(), layers.Dense(2)]
    )


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: layers.LSTM(4, return_sequences=True),
        lambda: layers.GRU(4, return_sequences=True),
        lambda: layers.SimpleRNN(4, return_sequences=True),
        lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        lambda: layers.TimeDistributed(layers.Dense(4)),
        lambda: layers.SeparableConv1D(4, 3, padding="same"),
    ],
)
@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_default_layers_of_sequence_models(make_layer: Any) -> None:
    model = make_recurrent(make_layer())
    x = RNG.normal(size=(1, 10, 3)).astype(np.float32)
    result = actgrid.explain(model, x, "layercam", target=0)
    assert result.values.shape == (1, 10)
    assert str(result.layer).startswith(model.layers[0].name)


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_default_layer_of_a_video_is_before_its_recurrent_layer() -> None:
    model = keras.Sequential(
        [
            keras.Input((5, 8, 8, 1)),
            layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu"), name="frames"),
            layers.TimeDistributed(layers.GlobalAveragePooling2D()),
            layers.LSTM(4),
            layers.Dense(2),
        ]
    )
    result = actgrid.explain(model, RNG.random((1, 5, 8, 8, 1)), "layercam", target=0)
    assert result.values.shape == (1, 5, 6, 6)
    assert str(result.layer).startswith("frames")


def test_models_without_a_suitable_layer_say_so() -> None:
    with pytest.raises(ShapeError, match=r"need an input with positions.*not \(2, 2\).*occlusion"):
        actgrid.explain(make_model("table"), make_x("table"), "gradcam")
    pooled = keras.Sequential([keras.Input((9, 2)), layers.GlobalAveragePooling1D()])
    with pytest.raises(LayerError, match="no layer with a spatial output"):
        actgrid.explain(pooled, RNG.random((1, 9, 2)), "gradcam", target=0)


# --- several inputs ---


def make_two_inputs() -> Any:
    keras.utils.set_random_seed(5)
    photo = keras.Input((6, 6, 3), name="photo")
    age = keras.Input((4,), name="age")
    features = layers.GlobalAveragePooling2D()(
        layers.Conv2D(4, 3, activation="tanh", name="conv")(photo)
    )
    joined = layers.Concatenate()([features, layers.Dense(3, activation="tanh")(age)])
    return keras.Model({"photo": photo, "age": age}, layers.Dense(2)(joined))


TWO = {
    "photo": RNG.random((3, 6, 6, 3)).astype(np.float32),
    "age": RNG.random((3, 4)).astype(np.float32),
}


def test_all_inputs_are_explained_in_one_pass() -> None:
    model = make_two_inputs()
    results = actgrid.explain(model, TWO, "gradient_x_input", target=1, inputs="all")
    assert {name: type(result) for name, result in results.items()} == {
        "age": TableAttribution,
        "photo": actgrid.Heatmap,
    }
    tensors = {name: tf.constant(array) for name, array in TWO.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        score = tf.reduce_sum(model(tensors)[:, 1])
    gradients = tape.gradient(score, tensors)
    for name, result in results.items():
        product = np.asarray(gradients[name]) * TWO[name]
        expected = product.sum(-1) if name == "photo" else product
        np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("complete", [True, False])
def test_integrated_gradients_complete_over_all_inputs(complete: bool) -> None:
    model = make_two_inputs()
    results = actgrid.explain(
        model, TWO, "integrated_gradients", target=0, inputs="all", complete=complete
    )
    zeros = {name: np.zeros_like(array) for name, array in TWO.items()}
    change = np.asarray(model(TWO))[:, 0] - np.asarray(model(zeros))[:, 0]
    total = sum(result.values.reshape(3, -1).sum(1) for result in results.values())
    np.testing.assert_allclose(np.asarray(total), change, rtol=1e-3, atol=1e-5)


def test_inputs_are_chosen_by_name_and_position() -> None:
    model = make_two_inputs()
    by_name = actgrid.explain(model, TWO, "occlusion", target=0, inputs="age", patch=1, stride=1)
    by_position = actgrid.explain(model, TWO, "occlusion", target=0, inputs=[0], patch=1, stride=1)
    assert list(by_name) == list(by_position) == ["age"]
    np.testing.assert_array_equal(by_name["age"].values, by_position["age"].values)
    default = actgrid.explain(model, TWO, "saliency", target=0)
    assert default.axes == ("height", "width")
    with pytest.raises(OptionError, match=r"no input 'agee' \(did you mean age\?\)"):
        actgrid.explain(model, TWO, "saliency", inputs=["agee"])
    with pytest.raises(OptionError, match="different inputs"):
        actgrid.explain(model, TWO, "saliency", inputs=["age", "age"])
    with pytest.raises(OptionError, match="inputs or image_input, not both"):
        actgrid.explain(model, TWO, "saliency", inputs="all", image_input=0)
    with pytest.raises(ShapeError, match="input 'age': class activation maps need"):
        actgrid.explain(model, TWO, "gradcam", inputs="all")


def test_pixels_are_for_images() -> None:
    with pytest.raises(OptionError, match=r"pixels are drawn under the maps of images, .*\(2, 12"):
        actgrid.explain(
            make_model("sequence"), make_x("sequence"), "saliency", pixels=np.zeros((2, 4, 4, 3))
        )


def test_comparison_of_methods_on_sequences() -> None:
    methods = ["saliency", "occlusion"]
    sheet = actgrid.compare_methods(
        make_model("sequence"), make_x("sequence"), methods, target=0, metrics=[]
    )
    assert sheet.titles == ("input", "saliency", "occlusion")
    assert len(sheet) == 6


def test_columns_of_a_table_are_named() -> None:
    names = ["age", "income"]
    model, x = make_model("table"), make_x("table")
    result = actgrid.explain(model, x, "saliency", tokens=names)
    assert result.names == (("age", "income"),) * 2
    pandas = pytest.importorskip("pandas")
    result = actgrid.explain(model, pandas.DataFrame(x, columns=names), "saliency")
    assert result.names == (("age", "income"),) * 2
    with pytest.raises(ShapeError, match="must name the 2 columns of the table: got 1"):
        actgrid.explain(model, x, "saliency", tokens=["age"])


def test_texts_and_tables_are_explained_together() -> None:
    text, age = keras.Input((1,), dtype="string", name="text"), keras.Input((3,), name="age")
    vectorization = layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=4)
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(4, 3)(vectorization(text)))
    joined = layers.Concatenate()([embedded, age])
    model = keras.Model({"text": text, "age": age}, layers.Dense(2)(joined))
    x = {"text": np.array([["good"], ["bad bad"]]), "age": RNG.random((2, 3), np.float32)}
    results = actgrid.explain(model, x, "integrated_gradients", target=0, inputs="all")
    assert results["text"].names == (("good", "", "", ""), ("bad", "bad", "", ""))
    tensors = {name: tf.constant(array) for name, array in x.items()}
    # The model is linear in the embedding and the table, and has no bias.
    total = sum(result.values.sum(1) for result in results.values())
    np.testing.assert_allclose(np.asarray(total), np.asarray(model(tensors))[:, 0], rtol=1e-4)


# --- texts ---

TEXTS = ["the film was a masterpiece", "a dull mess"]
VOCABULARY = ["", "[UNK]", "the", "film", "was", "a", "masterpiece", "dull", "mess"]


def make_text_model(takes_strings: bool) -> Any:
    keras.utils.set_random_seed(9)
    vectorization = layers.TextVectorization(vocabulary=VOCABULARY[2:], output_sequence_length=6)
    embedding = layers.Embedding(len(VOCABULARY), 5, name="embedding")
    head = [layers.Conv1D(4, 3, activation="tanh", padding="same"), layers.GlobalMaxPooling1D()]
    first = (
        [keras.Input((1,), dtype="string"), vectorization]
        if takes_strings
        else [keras.Input((6,), dtype="int32")]
    )
    return keras.Sequential([*first, embedding, *head, layers.Dense(2)])


INDICES = np.array([[2, 3, 4, 5, 6, 0], [5, 7, 8, 0, 0, 0]])


def differentiate_embedding(model: Any, target: int) -> tuple[Array, Array]:
    """Return the embeddings of INDICES, and the gradient with respect to them."""
    position = [layer.name for layer in model.layers].index("embedding")
    embeddings = tf.constant(model.layers[position](INDICES))
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = embeddings
        for layer in model.layers[position + 1 :]:
            value = layer(value)
        score = tf.reduce_sum(value[:, target])
    return np.asarray(embeddings), np.asarray(tape.gradient(score, embeddings))


@pytest.mark.parametrize("takes_strings", [True, False])
def test_texts_are_explained_at_their_embeddings(takes_strings: bool) -> None:
    model = make_text_model(takes_strings)
    x: Any = TEXTS if takes_strings else INDICES
    tokens = None if takes_strings else VOCABULARY
    result = actgrid.explain(model, x, "gradient_x_input", target=1, tokens=tokens)
    assert type(result) is TextAttribution
    assert result.axes == ("token",)
    assert result.names is not None
    assert [name for name in result.names[0] if name] == TEXTS[0].split()
    embeddings, gradient = differentiate_embedding(model, 1)
    np.testing.assert_allclose(result.values, (gradient * embeddings).sum(-1), rtol=1e-3, atol=1e-6)
    integrated = actgrid.explain(
        model, x, "integrated_gradients", target=0, tokens=tokens, complete=False
    )
    position = [layer.name for layer in model.layers].index("embedding")
    baseline: Any = np.zeros_like(embeddings)
    for layer in model.layers[position + 1 :]:
        baseline = layer(baseline)
    change = np.asarray(integrated.score) - np.asarray(baseline)[:, 0]
    np.testing.assert_allclose(integrated.values.sum(1), change, rtol=1e-2, atol=1e-4)


# The models have no ReLU for guided backpropagation.
@pytest.mark.parametrize("method", [name for name in GENERAL_METHODS if "guided" not in name])
@pytest.mark.parametrize("kind", ["table", "sequence", "volume"])
def test_every_method_on_every_kind_of_input(method: str, kind: str) -> None:
    skip_without_packages(method)
    model, x = make_model(kind), make_x(kind)
    if kind == "table" and get_methods()[method].takes_layer:
        with pytest.raises(ShapeError, match="class activation maps need an input with positions"):
            actgrid.explain(model, x, method)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroAttributionWarning)
        result = actgrid.explain(model, x, method, 1, **QUICK.get(method, {}))
    assert isinstance(result, CLASSES[kind])
    assert result.values.shape == (2, *(SIDES[kind] or (2,)))
    assert np.isfinite(result.values).all()


@pytest.mark.parametrize(
    "method",
    [
        *("gradcam", "hirescam", "eigencam", "ablationcam", "sscam", "occlusion", "rise", "lime"),
        *("kernel_shap", "sobol", "hsic", "smoothgrad", "vargrad", "expected_gradients"),
        *("deeplift", "lrp"),
    ],
)
@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
def test_methods_give_each_token_a_value(method: str) -> None:
    skip_without_packages(method)
    options: Any = QUICK.get(method, {})
    result = actgrid.explain(make_text_model(True), TEXTS, method, **options)
    assert result.values.shape == (2, 6)


def test_shorter_maps_of_layers_are_resized_to_the_tokens() -> None:
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 5),
            layers.Conv1D(4, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    result = actgrid.explain(model, INDICES, "cam", target=0, tokens=VOCABULARY)
    assert result.values.shape == (2, 6)


class Tokenizer:
    """A tokenizer with the methods of those of keras-hub."""

    def __call__(self, texts: list[str]) -> list[list[int]]:
        rows = [[VOCABULARY.index(word) for word in text.split()] for text in texts]
        return [row + [0] * (6 - len(row)) for row in rows]

    def id_to_token(self, index: int) -> str:
        return VOCABULARY[index]


@pytest.mark.parametrize(
    "tokens",
    [
        VOCABULARY,
        dict(enumerate(VOCABULARY)),
        {name: index for index, name in enumerate(VOCABULARY)},
        VOCABULARY.__getitem__,
        Tokenizer(),
        [text.split() for text in TEXTS],
        layers.TextVectorization(vocabulary=VOCABULARY[2:]),
    ],
    ids=["list", "index", "token", "function", "tokenizer", "strings", "layer"],
)
def test_tokens_are_named(tokens: Any) -> None:
    result = actgrid.explain(make_text_model(False), INDICES, "saliency", tokens=tokens)
    assert result.names is not None
    assert [[name for name in row if name] for row in result.names] == [
        text.split() for text in TEXTS
    ]


def test_texts_for_a_model_of_indices_need_a_tokenizer() -> None:
    model = make_text_model(False)
    by_indices = actgrid.explain(model, INDICES, "saliency")
    by_texts = actgrid.explain(model, TEXTS, "saliency", tokens=Tokenizer())
    np.testing.assert_array_equal(by_indices.values, by_texts.values)
    assert by_indices.names is None
    with pytest.raises(OptionError, match="takes indices of tokens: give tokens"):
        actgrid.explain(model, TEXTS, "saliency", tokens=VOCABULARY)


def test_embedding_layer_is_chosen_by_path() -> None:
    model = make_text_model(False)
    default = actgrid.explain(model, INDICES, "saliency")
    chosen = actgrid.explain(model, INDICES, "saliency", embedding="embedding")
    np.testing.assert_array_equal(default.values, chosen.values)
    with pytest.raises(LayerError, match="did you mean embedding"):
        actgrid.explain(model, INDICES, "saliency", embedding="embeddings")


def test_integers_that_look_up_nothing_are_numbers() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    result = actgrid.explain(model, INDICES, "gradient_x_input", target=0)
    assert result.axes == ("feature",)
    weights = model.layers[0].get_weights()[0][:, 0]
    np.testing.assert_allclose(result.values, INDICES * weights, rtol=1e-3, atol=1e-6)
