"""Tests of networks of other kinds than Keras models."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import orjson
import pytest
import tensorflow as tf
from PIL import Image

import actgrid
from actgrid import Extractor, LayerInfo
from actgrid.attribution.default_methods import find_compared_methods, find_default_method
from actgrid.errors import (
    CapabilityError,
    LayerError,
    ModelError,
    OptionError,
    ShapeError,
    TargetError,
)
from actgrid.models.calls import Trace
from actgrid.models.extraction import run_transform
from actgrid.models.graph import build_layer_graph
from actgrid.models.network import InputInfo
from actgrid.models.networks import get_network, list_network_kinds
from actgrid.models.receptive_fields import compute_receptive_fields
from actgrid.web.cache import Cache
from actgrid.web.engine import Engine

Array = npt.NDArray[Any]

WEIGHTS = np.random.default_rng(3).normal(size=(3, 2)).astype(np.float32)


def make_info(path: str, index: int, *sides: int | None, kind: str) -> LayerInfo:
    return LayerInfo(path, kind, (None, *sides), "float32", "channels_last", 0, index)


class Edges:
    """A NumPy network on images (N, 8, 6, 3): differences of rows, and two scores."""

    name = "edges"
    inputs: Sequence[InputInfo] = (InputInfo("image", (None, 8, 6, 3)),)
    outputs: Sequence[str] = ("scores",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [
            make_info("rows", 0, 7, 6, 3, kind="Difference"),
            make_info("half", 1, 7, 3, 3, kind="Slice"),
            make_info("scores", 2, 2, kind="Product"),
        ]

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        assert type(x) is np.ndarray
        assert x.dtype == np.float32
        assert not x.flags.writeable  # a network cannot change the input of its user
        self.batches.append(len(x))
        return {path: value for path, value in compute(x).items() if path in paths}

    def fingerprint(self) -> str:
        return "edges-1"


def compute(x: Array) -> dict[str, Array]:
    rows = x[:, 1:] - x[:, :-1]
    scores = np.square(x).mean((1, 2)) @ WEIGHTS
    return {"rows": rows, "half": rows[:, :, ::2], "scores": scores}


class Compiled:
    """A `tf.function` with the same scores and unknown shapes."""

    name = "compiled"
    inputs: Sequence[InputInfo] = ()
    outputs: Sequence[str] = ("scores",)

    def __init__(self) -> None:
        self.function = tf.function(self._compute)

    @staticmethod
    def _compute(x: Any) -> dict[str, Any]:
        squares = tf.square(x)
        return {"squares": squares, "scores": tf.reduce_mean(squares, (1, 2)) @ WEIGHTS}

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        if x is None:
            raise ModelError("the shapes of compiled are not known: give an input")
        outputs = self.function(x)
        return [
            make_info(path, index, *outputs[path].shape[1:], kind="Function")
            for index, path in enumerate(["squares", "scores"])
        ]

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Any]:
        outputs = self.function(x)
        return {path: outputs[path] for path in paths}

    def fingerprint(self) -> str:
        return "compiled-1"


class Differentiable(Compiled):
    """The same network, with operations that TensorFlow can differentiate."""

    def trace(self, inputs: Any, training: bool = False) -> Trace:
        return Trace(self._compute(inputs)["scores"], [])


def make_pixels(count: int = 2) -> Array:
    return np.random.default_rng(5).normal(size=(count, 8, 6, 3)).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    levels = np.random.default_rng(7).integers(0, 256, (3, 8, 6, 3), np.uint8)
    for number, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def load_scaled_photos(folder: Path) -> Array:
    """Return the photos as model inputs: pixels divided by 255, as assumed."""
    images = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    make_pixels: Array = np.stack(images).astype(np.float32) / np.float32(255)
    return make_pixels


# --- layers and activations


def test_list_layers_with_and_without_input() -> None:
    assert [layer.path for layer in actgrid.list_layers(Edges())] == ["rows", "half", "scores"]
    with pytest.raises(ModelError, match="give an input"):
        actgrid.list_layers(Compiled())
    layers = actgrid.list_layers(Compiled(), make_pixels())
    assert [(layer.path, layer.shape) for layer in layers] == [
        ("squares", (None, 8, 6, 3)),
        ("scores", (None, 2)),
    ]


@pytest.mark.parametrize(
    ("layers", "paths"),
    [
        (None, ["rows", "half"]),
        ("*", ["rows", "half", "scores"]),
        (["scores", 0], ["rows", "scores"]),
        (["rows", -1], ["rows", "scores"]),
        (lambda layer: layer.type == "Slice", ["half"]),
        (type("Product", (), {}), ["scores"]),
    ],
)
def test_extractor_returns_outputs_of_the_network(layers: Any, paths: list[str]) -> None:
    x = make_pixels()
    extractor = Extractor(Edges(), layers)
    activations = extractor(x)
    assert list(activations) == paths
    assert list(extractor.layers) == paths
    for path, activation in activations.items():
        np.testing.assert_array_equal(activation, compute(x)[path])
        assert not activation.flags.writeable


def test_tensorflow_network_returns_arrays() -> None:
    x = make_pixels()
    activations = Extractor(Compiled(), "*")(x)
    np.testing.assert_allclose(activations["squares"], np.square(x), rtol=1e-6)
    np.testing.assert_allclose(activations["scores"], compute(x)["scores"], rtol=1e-5)


def test_inputs_are_prepared_as_for_keras_models() -> None:
    x = make_pixels().astype(np.float64)
    extractor = Extractor(Edges(), "rows")
    expected = compute(x.astype(np.float32))["rows"]
    np.testing.assert_array_equal(extractor({"image": x})["rows"], expected)
    np.testing.assert_array_equal(extractor(tf.constant(x, tf.float32))["rows"], expected)
    with pytest.raises(ShapeError, match=r"takes an input of \(None, 8, 6, 3\), not \(8, 6, 3\)"):
        extractor(x[0])
    with pytest.raises(OptionError, match="no input 'photo'"):
        extractor({"photo": x})


def test_unknown_layers_raise() -> None:
    with pytest.raises(LayerError, match=r"no layer is called 'row' \(did you mean rows"):
        Extractor(Edges(), "row")(make_pixels())
    with pytest.raises(LayerError, match="layer index out of range: got 7; the model has 3 layers"):
        Extractor(Edges(), 7)(make_pixels())


def test_failing_network_raises_model_error() -> None:
    class Failing(Edges):
        def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
            raise ValueError("the session is closed")

    with pytest.raises(
        ModelError, match=r"cannot be run on inputs of shape \(2, 8, 6, 3\): the session is closed"
    ):
        Extractor(Failing())(make_pixels())
    with pytest.raises(ModelError, match=r"the session is closed"):
        actgrid.explain(Failing(), make_pixels(), "occlusion")


# --- pictures and statistics


def test_render_model_draws_network_layers() -> None:
    x = make_pixels()
    grids = actgrid.render_model(Edges(), x, sample=1, normalize="minmax", zoom=2)
    assert list(grids) == ["rows", "half"]
    for path, grid in grids.items():
        expected = actgrid.render(compute(x)[path], sample=1, normalize="minmax", zoom=2)
        np.testing.assert_array_equal(grid.levels, expected.levels)


def test_render_and_measure_photos(photos: Path, tmp_path: Path) -> None:
    network, x = Edges(), load_scaled_photos(photos)
    summary = actgrid.render_images(network, photos, output=tmp_path / "out", batch_size=2)
    assert (summary.images, summary.failed) == (3, 0)
    # The last, smaller batch is not padded.
    assert network.batches == [2, 1]
    for number, folder in enumerate(sorted((tmp_path / "out").glob("*/"))):
        expected = actgrid.render(compute(x)["rows"], sample=number)
        (file,) = folder.glob("*_rows.png")
        picture = np.asarray(Image.open(file))
        np.testing.assert_array_equal(picture, expected.levels)
    run = orjson.loads((tmp_path / "out" / "run.json").read_bytes())
    assert run["model"] == {"name": "edges", "fingerprint": "edges-1"}
    stats = actgrid.measure_images(network, photos, "*", output=tmp_path / "stats")
    assert list(stats.layers) == ["rows", "half", "scores"]
    for path, layer in stats.layers.items():
        values = compute(x)[path].astype(np.float64)
        axes = tuple(range(values.ndim - 1))
        np.testing.assert_allclose(layer.mean, values.mean(axes), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(layer.std, values.std(axes), rtol=1e-5)
    assert (tmp_path / "stats" / "report.html").exists()


# --- explanations


@pytest.mark.parametrize("network", [Edges(), Compiled()], ids=["numpy", "tensorflow"])
def test_occlusion_is_the_decrease_of_the_score(network: Any) -> None:
    x = make_pixels()
    options: Any = {"patch": (4, 3), "stride": (4, 3), "baseline": 0.5}
    heatmap = actgrid.explain(network, x, "occlusion", [1, 0], batch_size=3, **options)
    scores = compute(x)["scores"][[0, 1], [1, 0]]
    np.testing.assert_allclose(np.asarray(heatmap.score), scores, rtol=1e-5)
    for top in (0, 4):
        for left in (0, 3):
            occluded = x.copy()
            occluded[:, top : top + 4, left : left + 3] = 0.5
            decrease = scores - compute(occluded)["scores"][[0, 1], [1, 0]]
            patch = heatmap.values[:, top : top + 4, left : left + 3]
            expected = np.broadcast_to(decrease[:, None, None], patch.shape)
            np.testing.assert_allclose(patch, expected, rtol=1e-4, atol=1e-5)


class Gated:
    """A NumPy network with two inputs, an image and a gate, and two outputs."""

    name = "gated"
    inputs: Sequence[InputInfo] = (
        InputInfo("gate", (None, 2)),
        InputInfo("image", (None, 3, 4, 4), data_format="channels_first"),
    )
    outputs: Sequence[str] = ("sums", "means")

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [make_info("sums", 0, 2, kind="Sum"), make_info("means", 1, 3, kind="Mean")]

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        gate, image = x
        return {"sums": gate * image.sum((1, 2, 3))[:, None], "means": image.mean((2, 3))}

    def fingerprint(self) -> str:
        return "gated-1"


def test_explain_network_with_several_inputs_and_outputs() -> None:
    image = np.random.default_rng(2).normal(size=(2, 3, 4, 4)).astype(np.float32)
    gate = np.array([[1, 2], [3, -4]], np.float32)
    x = {"image": image, "gate": gate}
    options: Any = {"patch": 2, "stride": 2, "baseline": 0}
    heatmap = actgrid.explain(Gated(), x, "occlusion", {"sums": 1}, **options)
    patches = image.reshape(2, 3, 2, 2, 2, 2).sum((1, 3, 5)) * gate[:, 1, None, None]
    expected = patches.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(heatmap.values, expected, rtol=1e-4, atol=1e-5)
    heatmap = actgrid.explain(Gated(), x, "occlusion", {"means": None}, **options)
    np.testing.assert_array_equal(heatmap.target, image.mean((2, 3)).argmax(1))
    with pytest.raises(TargetError, match="the model has 2 outputs, 'sums', 'means'"):
        actgrid.explain(Gated(), x, "occlusion", 1)
    with pytest.raises(ShapeError, match="the model also takes the inputs 'gate'"):
        Extractor(Gated(), "sums")({"image": image})


def test_explained_network_can_be_pickled() -> None:
    network, x = Edges(), make_pixels()
    expected = actgrid.explain(network, x, "occlusion")
    restored = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(actgrid.explain(restored, x, "occlusion").values, expected.values)


def test_perturbation_methods_take_photos(photos: Path) -> None:
    files = sorted(photos.iterdir())
    heatmap = actgrid.explain(Edges(), files, "rise", samples=20)
    assert heatmap.values.shape == (3, 8, 6)
    np.testing.assert_array_equal(
        heatmap.target, compute(load_scaled_photos(photos))["scores"].argmax(1)
    )


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("saliency", "gradients"),
        ("integrated_gradients", "gradients"),
        ("gradcam", "gradients"),
        ("ablationcam", "layers whose outputs can be replaced"),
    ],
)
def test_unsupported_methods_name_missing_capability(method: str, needs: str) -> None:
    match = (
        f"{method} needs {needs}, which the network 'edges' of class Edges does not provide: use "
        "one of eigencam, scorecam, sscam, iscam, occlusion, rise, lime, kernel_shap, sobol, hsic, "
        "or a Keras model"
    )
    with pytest.raises(CapabilityError, match=match):
        actgrid.explain(Edges(), make_pixels(), method)
    with pytest.raises(CapabilityError, match=match):
        actgrid.compare_methods(Edges(), make_pixels(), ["occlusion", method])


def test_gradients_of_differentiable_network() -> None:
    x = make_pixels(1)
    heatmap = actgrid.explain(Differentiable(), x, "saliency", 1, reduce="sum")
    expected = (2 * x * WEIGHTS[:, 1]).sum(-1) / 48
    np.testing.assert_allclose(heatmap.values, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(CapabilityError, match="gradcam needs a spatial layer, which"):
        actgrid.explain(Differentiable(), x, "gradcam")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (actgrid.maximize, ("rows",), "maximize needs layers"),
        (actgrid.gradients, (make_pixels(), 0), "gradients needs layers"),
        (actgrid.diagram, (), "diagram needs layers and their connections"),
        (build_layer_graph, (), "the graph of layers needs layers and their connections"),
        (compute_receptive_fields, (), "compute_receptive_fields needs layers"),
        (partial(Engine, cache=Cache(1)), (), "the viewer needs layers and their connections"),
        (actgrid.render_weights, (), "render_weights needs the weights"),
    ],
)
def test_functions_that_need_keras_raise(function: Any, arguments: Any, message: str) -> None:
    with pytest.raises(CapabilityError, match=f"^{message}.*the network 'edges'.*Keras model"):
        function(Edges(), *arguments)
    with pytest.raises(CapabilityError, match="training=True is not supported"):
        Extractor(Edges(), training=True)


# --- layers, connections and class activation maps outside TensorFlow


class Connected(Edges):
    """The same network, which lists its connections."""

    name = "connected"

    def list_edges(self) -> list[tuple[str, str]]:
        return [("image", "rows"), ("rows", "half"), ("image", "scores")]


class Deep:
    """A NumPy network with two weighted layers, a pooling and a softmax."""

    name = "deep"
    inputs: Sequence[InputInfo] = (InputInfo("image", (None, 8, 6, 3)),)
    outputs: Sequence[str] = ("scores",)

    def __init__(self) -> None:
        self.requested: list[Sequence[str]] = []

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        shapes = {"early": (8, 6, 3), "late": (8, 6, 2), "pool": (4, 6, 2), "unused": (8, 6, 1)}
        kinds = {"early": "CONV_2D", "late": "CONV_2D", "pool": "MAX_POOL_2D", "unused": "CONV_2D"}
        weights = {"early": 9, "late": 6, "pool": 0, "unused": 3}
        return [
            *(
                LayerInfo(path, kinds[path], (None, *sides), "float32", "channels_last", count, i)
                for i, ((path, sides), count) in enumerate(
                    zip(shapes.items(), weights.values(), strict=True)
                )
            ),
            make_info("scores", 4, 2, kind="SOFTMAX"),
        ]

    def list_edges(self) -> list[tuple[str, str]]:
        path = ["image", "early", "late", "pool", "scores"]
        return [*pairwise(path), ("image", "unused")]

    def list_logits(self) -> dict[str, tuple[str, str]]:
        return {"scores": ("logits", "softmax")}

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        self.requested.append(paths)
        values = compute_deep(x)
        return {path: values[path] for path in paths}

    def fingerprint(self) -> str:
        return "deep-1"


def compute_deep(x: Array) -> dict[str, Array]:
    early = np.abs(x)
    late = early @ np.abs(WEIGHTS)
    pool = late.reshape(-1, 4, 2, 6, 2).max(2)
    logits = pool.mean((1, 2)) * np.array([3, -2], np.float32)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    scores = exponents / exponents.sum(1, keepdims=True)
    unused = x[..., :1]
    return {"early": early, "late": late, "pool": pool, "unused": unused, "logits": logits} | {
        "scores": scores
    }


@dataclass(frozen=True)
class Largest:
    """Transform that returns the largest value of some layers times a factor."""

    paths: frozenset[str]

    def __call__(self, info: LayerInfo, tensor: Any, factor: Any) -> Any:
        return tf.reduce_max(tensor) * factor if info.path in self.paths else ()


def test_transform_runs_only_the_layers_that_it_keeps() -> None:
    network = Deep()
    extractor = Extractor(network, "*")
    for count in (2, 1):
        x = make_pixels(count)
        transform = Largest(frozenset(["late", "pool"]))
        results = run_transform(extractor, x, transform, tf.constant(2.0))
        assert list(results) == ["early", "late", "pool", "unused", "scores"]
        assert results["early"] == results["scores"] == ()
        largest = 2 * compute_deep(x)["late"].max()
        assert [float(results["late"]), float(results["pool"])] == pytest.approx([largest] * 2)
    assert network.requested == [["late", "pool"]] * 2


def test_backend_tensorflow_draws_network_layers() -> None:
    x = make_pixels()
    expected = actgrid.render_model(Edges(), x, sample=1)
    grids = actgrid.render_model(Edges(), x, sample=1, backend="tensorflow")
    assert list(grids) == list(expected)
    for path, grid in grids.items():
        assert np.abs(grid.levels.astype(int) - expected[path].levels).max() <= 1


def test_graph_and_diagram_of_connected_network() -> None:
    graph = build_layer_graph(Connected())
    assert [(info.path, info.type) for info in graph.infos] == [
        ("image", "Input"),
        ("rows", "Difference"),
        ("half", "Slice"),
        ("scores", "Product"),
    ]
    assert graph.edges == ((0, 1), (1, 2), (0, 3))
    assert (graph.inputs, graph.outputs, graph.attention) == ((0,), (3,), ())
    boxes = actgrid.diagram(Connected()).boxes
    assert [box.shape for box in boxes] == [(8, 6, 3), (7, 6, 3), (7, 3, 3), (2,)]
    x = make_pixels()
    _, box = actgrid.diagram(Connected(), x, "rows", sample=1, cmap="gray").boxes
    strength = np.sqrt(np.square(compute(x)["rows"][1]).mean(-1))
    assert box.face is not None
    np.testing.assert_allclose(
        box.face[..., 0], 255 * (strength - strength.min()) / np.ptp(strength), atol=1
    )


def test_scores_are_logits_if_the_network_knows_them() -> None:
    x = make_pixels()
    heatmap = actgrid.explain(Deep(), x, "occlusion", 1, patch=4, stride=4)
    values = compute_deep(x)
    np.testing.assert_allclose(np.asarray(heatmap.score), values["logits"][:, 1], rtol=1e-5)
    assert heatmap.is_logit


def test_eigencam_and_scorecam_use_the_last_weighted_layer_before_the_head() -> None:
    network, x = Deep(), make_pixels(3)
    late = compute_deep(x)["late"]
    heatmap = actgrid.explain(network, x, "eigencam")
    assert heatmap.layer == "late"
    for values, channels in zip(heatmap.values, late.reshape(3, 48, 2), strict=True):
        left, singular, _ = np.linalg.svd(channels.astype(np.float64), full_matrices=False)
        expected = np.abs(left[:, 0] * singular[0]).reshape(8, 6)
        np.testing.assert_allclose(values, expected, rtol=1e-4)
    # Only the chosen layer is computed, besides the output.
    assert network.requested[-1] == ["logits", "late"]

    heatmap = actgrid.explain(network, x, "scorecam", 0)
    assert heatmap.layer == "late"
    low, high = late.min((1, 2), keepdims=True), late.max((1, 2), keepdims=True)
    masks = (late - low) / (high - low)
    logits = np.stack(
        [compute_deep(x * masks[..., [channel]])["logits"][:, 0] for channel in range(2)], 1
    )
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.einsum("nhwc,nc->nhw", late, weights)
    np.testing.assert_allclose(heatmap.values, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "layer", "expected"),
    [
        (Deep(), "early", "early"),
        (Deep(), "e*", "early"),
        (Edges(), None, "half"),
        (Edges(), "rows", "rows"),
    ],
)
def test_layer_of_class_activation_maps(network: Any, layer: Any, expected: str) -> None:
    heatmap = actgrid.explain(network, make_pixels(1), "eigencam", layer=layer)
    assert heatmap.layer == expected


def test_unsuitable_layers_raise() -> None:
    with pytest.raises(ShapeError, match="layer scores has no height and width"):
        actgrid.explain(Deep(), make_pixels(1), "eigencam", layer="scores")
    with pytest.raises(LayerError, match="layer must be one layer, not 2: early, late"):
        actgrid.explain(Deep(), make_pixels(1), "eigencam", layer="*a*")
    with pytest.raises(LayerError, match="the model has no layer with a spatial output"):
        actgrid.explain(Connected(), make_pixels(1), "eigencam")


class Tokens(Connected):
    """A transformer: patches, tokens, and attention with the axes (heads, tokens)."""

    def __init__(self) -> None:
        self.shapes = {
            "patches": ("Conv", (None, 2, 3, 4)),
            "tokens": ("Reshape", (None, 6, 4)),
            "query": ("MatMul", (None, 2, 6, 2)),
            "attention": ("MatMul", (None, 2, 6, 6)),
            "product": ("MatMul", (None, 2, 6, 2)),
            "mixed": ("MatMul", (None, 6, 4)),
            "scores": ("MatMul", (None, 2)),
        }

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [
            LayerInfo(path, kind, shape, "float32", "channels_last", 8 * (kind != "Reshape"), index)
            for index, (path, (kind, shape)) in enumerate(self.shapes.items())
        ]

    def list_edges(self) -> list[tuple[str, str]]:
        chain = ["image", *self.shapes]
        return [*pairwise(chain), ("query", "product")]


@pytest.mark.parametrize("method", ["eigencam", "scorecam"])
def test_attention_of_a_transformer_is_no_map(method: str) -> None:
    match = r"works on tokens: pass token_grid=\(h, w\).* or layer='patches', the patch embedding"
    with pytest.raises(LayerError, match=match) as error:
        actgrid.explain(Tokens(), make_pixels(1), method)
    # The message names methods that work for the network.
    assert str(error.value).endswith("layer: occlusion, rise, lime, kernel_shap, sobol, hsic")


def compute_scores(batch: np.ndarray) -> np.ndarray:
    return np.stack([batch.mean((1, 2, 3)), batch.max((1, 2, 3))], 1)


@pytest.mark.parametrize(
    ("network", "method", "compared"),
    [
        (Deep(), "scorecam", {"scorecam", "eigencam", "occlusion", "rise"}),
        (Tokens(), "occlusion", {"occlusion", "rise"}),
        (compute_scores, "occlusion", {"occlusion", "rise"}),
    ],
)
def test_default_methods_work_for_the_network(
    network: Any, method: str, compared: set[str]
) -> None:
    assert find_default_method(network).name == method
    assert {entry.name for entry in find_compared_methods(network)} == compared


def test_functions_choose_methods_that_work() -> None:
    network, x = Deep(), make_pixels(1)
    assert actgrid.explain(network, x).method == "scorecam"
    sheet = actgrid.compare_methods(network, x, metrics=[])
    assert set(sheet.attributions) == {"scorecam", "eigencam", "occlusion", "rise"}


def test_concepts_need_layers_inside_tensorflow() -> None:
    match = "the analysis of concepts needs layers .* expected a Keras model or a SavedModel"
    with pytest.raises(CapabilityError, match=match):
        actgrid.find_concepts(Edges(), make_pixels(2))


def test_example_of_the_docs_runs(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    levels = np.random.default_rng(1).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(levels).save("cat.jpg")
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    names: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], names)
    assert names["grids"]["rows"].levels.shape == (2 * 63 + 1, 2 * 64 + 1)
    assert names["heatmap"].values.shape == (1, 64, 64)
    assert len(list(Path("out").glob("*/*_rows.png"))) == 3


# --- kinds of networks


@pytest.fixture
def network_kind_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Add a network kind, whose files contain a factor, as a module."""
    package = importlib.import_module("actgrid.models")
    (tmp_path / "factor_network.py").write_text(
        """
from pathlib import Path

import numpy as np

from actgrid.models.layers import LayerInfo
from actgrid.models.network import InputInfo, NetworkKind


class FactorNetwork:
    name = "factor"
    inputs = (InputInfo("image", (None, 4, 4, 1)),)
    outputs = ("product",)

    def __init__(self, factor):
        self.factor = factor

    def list_layers(self, x=None):
        shape = (None, 4, 4, 1)
        return [LayerInfo("product", "Factor", shape, "float32", "channels_last", 1, 0)]

    def run(self, x, paths):
        return {"product": x * np.float32(self.factor)}

    def fingerprint(self):
        return f"factor {self.factor}"


def wrap(model):
    return FactorNetwork(model.value) if type(model).__name__ == "Factor" else None


def load(path, safe_mode):
    return FactorNetwork(float(path.read_text()))


KIND = NetworkKind(wrap, lambda path: path.suffix == ".factor", load)
"""
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    list_network_kinds.cache_clear()
    yield tmp_path
    list_network_kinds.cache_clear()


def test_network_kind_is_loaded_from_one_file(network_kind_folder: Path) -> None:
    path = network_kind_folder / "model.factor"
    path.write_text("2.5")
    x = np.arange(32, dtype=np.float32).reshape(2, 4, 4, 1)
    np.testing.assert_array_equal(Extractor(path)(x)["product"], x * 2.5)
    model: Any = type("Factor", (), {"value": 3.0})()
    assert type(actgrid.load_model(model)).__name__ == "FactorNetwork"
    np.testing.assert_array_equal(Extractor(model)(x)["product"], x * 3)
    photo = Image.fromarray(np.full((4, 4), 51, np.uint8))
    loaded = actgrid.load_images(photo, model)
    np.testing.assert_allclose(loaded, np.full((1, 4, 4, 1), 0.2), rtol=1e-6)
    (grid,) = actgrid.render_model(model, photo, normalize="range(0, 1)").values()
    assert grid.levels.tolist() == [[153] * 4] * 4
    stats = actgrid.measure_images(model, [np.full((4, 4), 51, np.uint8)] * 2)
    assert stats.layers["product"].max.tolist() == pytest.approx([0.6])
    # Keras models are still recognized.
    assert get_network(keras.Sequential(name="empty")).name == "empty"


def test_keras_model_fulfils_the_protocol() -> None:
    inputs = keras.Input((3, 6, 6), name="image")
    hidden = keras.layers.Permute((2, 3, 1), name="last")(inputs)
    outputs = keras.layers.Dense(2, name="scores")(keras.layers.Flatten(name="flat")(hidden))
    model = keras.Model(inputs, outputs, name="small")
    network: Any = get_network(model)
    assert network.name == "small"
    assert network.inputs == [InputInfo("image", (None, 3, 6, 6), "float32", "channels_first")]
    assert network.outputs == ["scores"]
    assert [layer.path for layer in network.list_layers()] == ["last", "flat", "scores"]
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    results = network.run(x, ["last", "scores"])
    np.testing.assert_array_equal(results["last"], x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(results["scores"], model.predict(x, verbose=0), rtol=1e-5)
    assert [weight.path for weight in network.weights()] == ["scores/kernel", "scores/bias"]
    assert len(network.fingerprint()) == 32
