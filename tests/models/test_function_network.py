"""Functions of a batch are explained as networks whose only layers are their outputs."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import actgrid
from actgrid.errors import CapabilityError, ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]

_IMAGES = np.random.default_rng(0).random((3, 12, 8, 3)).astype(np.float32)
_WEIGHTS = np.random.default_rng(1).normal(size=(12, 8, 3, 4)).astype(np.float32)


def _predict(batch: Array) -> Array:
    scores: Array = np.einsum("nhwc,hwck->nk", batch, _WEIGHTS)
    return scores


def test_occlusion_is_that_of_a_loop() -> None:
    found = actgrid.explain(_predict, _IMAGES, "occlusion", 2, patch=4, stride=4, baseline=0)
    expected = np.zeros((3, 12, 8))
    for row in range(0, 12, 4):
        for column in range(0, 8, 4):
            hidden = _IMAGES.copy()
            hidden[:, row : row + 4, column : column + 4] = 0
            decrease = (_predict(_IMAGES) - _predict(hidden))[:, 2]
            expected[:, row : row + 4, column : column + 4] = decrease[:, None, None]
    assert found.score is not None
    np.testing.assert_allclose(found.score, _predict(_IMAGES)[:, 2], rtol=1e-5)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert not found.is_logit


class _Callable:
    def __call__(self, batch: Array) -> Array:
        return _predict(batch)

    def scores(self, batch: Array, scale: float = 1) -> Array:
        return _predict(batch) * scale


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda batch: _predict(batch).tolist(), "<lambda>"),
        (_Callable(), "_Callable"),
        (_Callable().scores, "scores"),
        (functools.partial(_Callable().scores, scale=1), "scores"),
        (lambda *args: _predict(*args), "<lambda>"),
        (tf.function(lambda batch: tf.einsum("nhwc,hwck->nk", batch, _WEIGHTS)), None),
        (lambda batch: (_predict(batch),), "<lambda>"),
        (lambda batch: {"scores": _predict(batch)}, "<lambda>"),
    ],
)
def test_kinds_of_functions(function: Callable[..., Any], name: str | None) -> None:
    network = actgrid.load_model(function)
    assert name is None or network.name == name
    (scores,) = actgrid.Extractor(function, layers="*")(_IMAGES).values()
    np.testing.assert_allclose(scores, _predict(_IMAGES), rtol=1e-4, atol=1e-4)


class _Tensor:
    """A tensor like that of PyTorch, which converts no tensor with a gradient."""

    def __init__(self, array: Array, has_gradient: bool = True) -> None:
        self.array, self.has_gradient, self.shape = array, has_gradient, array.shape

    def detach(self) -> _Tensor:
        return _Tensor(self.array, has_gradient=False)

    def cpu(self) -> _Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        if self.has_gradient:
            raise RuntimeError("use tensor.detach().numpy() instead")
        return self.array


def test_tensors_with_gradients() -> None:
    found = actgrid.Extractor(lambda batch: _Tensor(_predict(batch)), layers="*")(_IMAGES)
    np.testing.assert_array_equal(found["output"], _predict(_IMAGES))


class _OtherTensor:
    """A tensor whose only conversion is the method `numpy`."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def numpy(self) -> Array:
        return self.array


def test_tensors_that_only_a_method_converts() -> None:
    found = actgrid.Extractor(lambda batch: _OtherTensor(_predict(batch)), layers="*")(_IMAGES)
    np.testing.assert_array_equal(found["output"], _predict(_IMAGES))


def test_long_floats() -> None:
    heatmap = actgrid.explain(
        lambda batch: _predict(batch).astype(np.longdouble), _IMAGES, "occlusion", 2
    )
    assert heatmap.score is not None
    np.testing.assert_allclose(heatmap.score, _predict(_IMAGES)[:, 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype", "count"),
    [
        ((5, 12, 1), "float32", 5),
        ((5, 12, 3), "float64", 5),
        ((5, 12, 7), "uint8", 5),
        ((6, 12, 3), "uint8", 1),
    ],
)
def test_arrays_of_three_axes(shape: tuple[int, ...], dtype: str, count: int) -> None:
    """They are sequences, but bytes in the shape of an image are an image."""
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    explained = actgrid.explain(lambda batch: batch.mean((1, 2)), x, "occlusion", 0)
    assert len(explained) == count
    image = _IMAGES[0]
    heatmap = actgrid.explain(lambda batch: batch.mean((1, 2, 3)), image, "occlusion")
    assert heatmap.values.shape == (1, 12, 8)  # the function takes no sequences


def test_several_outputs() -> None:
    def predict(batch: Array) -> dict[str, Array]:
        return {"classes": _predict(batch), "mean": batch.mean((1, 2, 3))}

    options: dict[str, Any] = {"patch": 4, "stride": 4}
    found = actgrid.explain(predict, _IMAGES, "occlusion", target={"classes": 1}, **options)
    expected = actgrid.explain(_predict, _IMAGES, "occlusion", target=1, **options)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    pair = actgrid.list_layers(lambda batch: list(predict(batch).values()), _IMAGES)
    assert [(info.path, info.shape) for info in pair] == [
        ("output_0", (None, 4)),
        ("output_1", (None,)),
    ]


def test_a_list_of_rows_is_one_output() -> None:
    (info,) = actgrid.list_layers(lambda batch: list(_predict(batch)), _IMAGES)
    assert (info.path, info.shape) == ("output", (None, 4))
    for length in (1, 2, 3, 4):  # also rows whose length is the batch size

        def predict(batch: Array, length: int = length) -> list[Array]:
            return list(_predict(batch)[:, :length])

        found = actgrid.Extractor(predict, layers="*")(_IMAGES)
        np.testing.assert_array_equal(found["output"], _predict(_IMAGES)[:, :length])
        heatmap = actgrid.explain(predict, _IMAGES, "occlusion", 0, patch=4, stride=4)
        assert heatmap.score is not None
        np.testing.assert_allclose(heatmap.score, _predict(_IMAGES)[:, 0], rtol=1e-5)
    (info,) = actgrid.list_layers(lambda batch: [_predict(batch)[:, 0]], _IMAGES)
    assert (info.path, info.shape) == ("output", (None,))


def test_lists_are_batches() -> None:
    lists: list[Any] = [list(_IMAGES), tuple(map(tf.constant, _IMAGES)), _IMAGES.tolist()]
    for x in lists:
        heatmap = actgrid.explain(_predict, x, "occlusion", 2, patch=4, stride=4)
        assert heatmap.score is not None
        np.testing.assert_allclose(heatmap.score, _predict(_IMAGES)[:, 2], rtol=1e-5)
    with pytest.raises(ShapeError, match="takes one array: got a list of 2 arrays"):
        actgrid.explain(_predict, [_IMAGES, _IMAGES], "occlusion")


def test_functions_may_change_their_batch() -> None:
    """A function gets a copy of the batch, so that changes have no effect elsewhere."""

    def change(batch: Array) -> Array:
        batch -= 0.5
        return _predict(batch)

    images = _IMAGES.copy()
    for method in ("occlusion", "rise"):
        options: dict[str, Any] = {"baseline": 0} if method == "occlusion" else {"samples": 20}
        found = actgrid.explain(change, images, method, 2, **options)
        expected = actgrid.explain(
            lambda batch: _predict(batch - 0.5), images, method, 2, **options
        )
        np.testing.assert_array_equal(found.values, expected.values)
    scores = actgrid.Extractor(change, layers="*")(images)["output"]
    np.testing.assert_array_equal(scores, _predict(_IMAGES - np.float32(0.5)))
    assert len(actgrid.list_layers(change, images)) == 1
    np.testing.assert_array_equal(images, _IMAGES)


@pytest.mark.parametrize(
    ("dtype", "seen"), [("uint8", "uint8"), ("float32", "float32"), ("float64", "float32")]
)
def test_dtype_of_the_input_is_kept(dtype: str, seen: str) -> None:
    dtypes = set()

    def predict(batch: Array) -> Array:
        dtypes.add(batch.dtype.name)
        return np.asarray(batch.mean((1, 2, 3)))

    images = (_IMAGES * 255).astype(dtype)
    actgrid.explain(predict, images, "occlusion", baseline="mean", patch=4, stride=4)
    assert dtypes == {seen}


@pytest.mark.parametrize("method", ["rise", "lime", "kernel_shap", "sobol", "hsic"])
def test_other_methods(method: str) -> None:
    if method in ("lime", "kernel_shap"):
        pytest.importorskip("skimage")
    options: dict[str, Any] = {"sobol": {"samples": 4}, "hsic": {"samples": 40}}.get(
        method, {"samples": 60}
    )
    found = actgrid.explain(_predict, _IMAGES, method, target=1, **options)
    assert found.values.shape == (3, 12, 8)
    assert np.ptp(found.values[0]) > 0


@pytest.mark.parametrize("method", ["occlusion", "rise", "lime"])
def test_function_around_a_keras_model(method: str) -> None:
    """The function returns probabilities, which are explained as they are."""
    model = keras.Sequential(
        [
            keras.Input((12, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    if method == "lime":
        pytest.importorskip("skimage")
    options: dict[str, Any] = {} if method == "occlusion" else {"samples": 40}
    found = actgrid.explain(model.predict_on_batch, _IMAGES, method, target=3, **options)
    expected = actgrid.explain(
        model, _IMAGES, method, target=lambda outputs: outputs[:, 3], **options
    )
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
    (scores,) = actgrid.Extractor(model.predict_on_batch, layers="*")(_IMAGES).values()
    np.testing.assert_allclose(found.score, scores[:, 3], atol=1e-6)


def test_image_files(tmp_path: Path) -> None:
    """The function gets the image in its own size, divided by 255."""
    shapes = set()

    def predict(batch: Array) -> Array:
        shapes.add(batch.shape[1:])
        return np.asarray(batch.max((1, 2, 3)))

    actgrid.demo.photo().resize((30, 20)).save(tmp_path / "small.png")
    heatmap = actgrid.explain(predict, tmp_path / "small.png", "occlusion")
    assert shapes == {(20, 30, 3)}
    assert heatmap.score is not None
    assert heatmap.score.max() <= 1


def test_files_of_arrays(tmp_path: Path) -> None:
    def add(batch: Array) -> Array:
        return np.stack([batch.sum(1), -batch.sum(1)], 1)

    np.save(tmp_path / "rows.npy", np.array([[1, 2, 3], [4, 5, 6]]))
    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")
    for path in (tmp_path / "rows.npy", tmp_path / "rows.csv"):
        table = actgrid.explain(add, path, "occlusion", 0, baseline=0)
        np.testing.assert_array_equal(table.values, [[1, 2, 3], [4, 5, 6]])
        stats = actgrid.measure_images(add, path, layers="output")
        np.testing.assert_array_equal(stats.layers["output"].mean, [10.5, -10.5])
    actgrid.demo.photo().save(tmp_path / "photo.png")
    with pytest.raises(OptionError, match="files of arrays cannot be in one run"):
        actgrid.measure_images(add, [path, tmp_path / "photo.png"], layers="output")


def test_outputs_only() -> None:
    with pytest.raises(ModelError, match="are not known before it has run; in Python"):
        actgrid.list_layers(_predict)
    pixels = (_IMAGES * 255).astype(np.uint8)
    stats = actgrid.measure_images(_predict, list(pixels), layers="output")
    expected = _predict(pixels / np.float32(255)).mean(0)
    np.testing.assert_allclose(stats.layers["output"].mean, expected, rtol=1e-4)
    comparison = actgrid.compare_methods(_predict, _IMAGES, methods=["occlusion"])
    assert "occlusion" in repr(comparison)


@pytest.mark.parametrize(
    "call",
    [
        lambda: actgrid.explain(_predict, _IMAGES, "saliency"),
        lambda: actgrid.maximize(_predict, 0),
        lambda: actgrid.render_weights(_predict),
        lambda: actgrid.diagram(_predict),
        lambda: actgrid.patch(_predict, {"output": 0}),
    ],
)
def test_missing_capabilities(call: Callable[[], object]) -> None:
    with pytest.raises(CapabilityError, match=r"the network '_predict' of class FunctionNetwork"):
        call()


def _fail(batch: Array) -> Array:
    raise KeyError("weights")


def _fail_for_batches(batch: Array) -> Array:
    if len(batch) > 1:
        raise RuntimeError("out of memory")
    return _predict(batch)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_fail, r"^the function _fail cannot be run on an array \(1, 12, 8, 3\) of float32: Key"),
        (_fail_for_batches, r"^the function _fail_for_batches cannot be run .*: out of memory$"),
        (lambda batch: _predict(batch)[:, 0].sum(), r"^the function <lambda> must return values"),
        (
            lambda batch: {},
            r"^the function <lambda> must return at least one array: got an empty",
        ),
        (
            lambda batch: [],
            r"^the function <lambda> must return at least one array: got an empty",
        ),
        (lambda batch: [1, [2, 3]], r"^the function <lambda> must return numbers: got a list, whi"),
        (
            lambda batch: _predict(batch)[:, : len(batch)],
            r"^the function <lambda> must return values of one shape for each sample: got shape "
            r"\(3, 3\) for 3 samples, and \(1, 1\) for one$",
        ),
        (
            lambda batch: {str(len(batch)): _predict(batch)},
            r"must always return the same outputs: got 3 for 3 samples, and 1 for one$",
        ),
        (lambda batch: _predict(batch)[:1], r"got shape \(1, 4\) for 3 samples$"),
        (lambda batch: ["cat"] * len(batch), r"<lambda> must return numbers: got an array of <U3$"),
        (lambda batch: None, r"<lambda> must return numbers: got an array of object$"),
    ],
)
def test_wrong_results(function: Callable[[Array], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        actgrid.explain(function, _IMAGES, "occlusion")


def test_several_inputs_are_refused() -> None:
    for call in (actgrid.list_layers, lambda f, x: actgrid.explain(f, x, "occlusion")):
        with pytest.raises(ShapeError, match="takes one array: got a dict of 1 arr"):
            call(_predict, {"a": _IMAGES})
    with pytest.raises(ShapeError, match="_predict takes one array: got a dict of 2 arrays"):
        actgrid.explain(_predict, {"a": _IMAGES, "b": _IMAGES}, "occlusion")


class _Estimator:
    def predict(self, x: Array) -> Array:
        return x

    def predict_proba(self, x: Array) -> Array:
        return x


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_Estimator(), "not _Estimator: give its method predict or predict_proba"),
        (lambda: None, "the function <lambda>: give the model that it returns, or a function of"),
        (lambda a, b: None, "the function <lambda>, which requires 2 arguments: give a function"),
        (lambda a, *, b: None, "the function <lambda>, which requires more than one batch: give"),
    ],
)
def test_other_callables_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        actgrid.load_model(value)


def test_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores_of_batches.py").write_text(
        "def predict(batch):\n    return batch.mean((1, 2))\n\n\ndef make():\n    return predict\n"
        "def decorate(function):\n    return lambda *args, **options: function(*args, **options)\n"
        "decorated_predict, decorated_make = decorate(predict), decorate(make)\n"
        "def both(a, b):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("predict", "make", "decorated_predict", "decorated_make"):
        heatmap = actgrid.explain(f"scores_of_batches:{name}", _IMAGES, "occlusion", target=1)
        assert heatmap.score is not None
        np.testing.assert_allclose(heatmap.score, _IMAGES.mean((1, 2))[:, 1], rtol=1e-5)
    with pytest.raises(ModelError, match="_batches:both requires 2 arguments; expected a"):
        actgrid.load_model("scores_of_batches:both")
    sys.modules.pop("scores_of_batches")


def test_fingerprint() -> None:
    """Functions with values of their own are never equal."""

    def make(scale: float) -> Callable[[Array], Array]:
        return lambda batch: _predict(batch) * scale

    def fingerprint(function: Callable[[Array], Any]) -> str:
        text: str = actgrid.load_model(function).fingerprint()
        return text

    assert fingerprint(_predict) == fingerprint(_predict) != fingerprint(_fail)
    assert fingerprint(make(1)) != fingerprint(make(2))
