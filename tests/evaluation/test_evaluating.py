"""Arguments and results of `actgrid.evaluate`."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import actgrid
from actgrid.errors import (
    CapabilityError,
    DtypeError,
    OptionError,
    ShapeError,
    UnknownOptionError,
)
from actgrid.models import LayerInfo

Array = npt.NDArray[Any]


def test_methods_maps_and_attributions_are_equivalent(network: Any, samples: Array) -> None:
    heatmap = actgrid.explain(network, samples, "occlusion", patch=4)
    by_gradient = actgrid.explain(network, samples, "saliency")
    entries = {"occlusion": {"patch": 4}, "maps": heatmap.values, "heatmap": heatmap}
    evaluation = actgrid.evaluate(
        network, samples, entries, ["deletion", "energy"], masks=heatmap.values > 0, steps=5
    )
    assert evaluation.names == ("occlusion", "maps", "heatmap")
    assert evaluation.metrics == ("deletion", "energy")
    for values in evaluation.values.values():
        np.testing.assert_array_equal(values[0], values[1])
        np.testing.assert_array_equal(values[0], values[2])
    listed = actgrid.evaluate(network, samples, [heatmap, by_gradient], steps=3)
    assert listed.names == ("occlusion", "saliency")
    by_name = actgrid.evaluate(network, samples, ["saliency", "gradcam"], steps=3)
    assert by_name.names == ("saliency", "gradcam")
    assert actgrid.evaluate(network, samples, heatmap, steps=3).names == ("occlusion",)
    assert actgrid.evaluate(network, samples, {"mine": "saliency"}, steps=3).names == ("mine",)


def test_frame_has_a_row_for_each_image_and_a_column_for_each_metric(
    network: Any, samples: Array
) -> None:
    evaluation = actgrid.evaluate(network, samples, "gradcam", ["deletion", "sparseness"])
    frame = evaluation.to_frame()
    assert frame.index.names == ["image"]
    assert frame.index.tolist() == [0, 1, 2]
    assert frame.columns.tolist() == ["deletion", "sparseness"]
    np.testing.assert_array_equal(frame["deletion"], evaluation.values["deletion"][0])
    several = actgrid.evaluate(
        network, samples[:1], ["gradcam", "saliency"], ["sparseness"], target=[3, 0]
    ).to_frame()
    assert several.index.names == ["attribution", "image", "target"]
    assert several.index.tolist() == [
        ("gradcam", 0, "3"),
        ("gradcam", 0, "0"),
        ("saliency", 0, "3"),
        ("saliency", 0, "0"),
    ]


def test_metrics_of_the_same_runs_share_them(
    network: Any, samples: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    for module in ("subset_metrics", "masked_scores"):
        name = f"actgrid.evaluation.{module}.score_masked_images"
        score = importlib.import_module(f"actgrid.evaluation.{module}").score_masked_images

        def count_runs(*arguments: Any, score: Any = score, **options: Any) -> Any:
            runs.append(arguments[2])
            return score(*arguments, **options)

        monkeypatch.setattr(name, count_runs)
    names = ["mu_fidelity", "infidelity", "average_drop", "average_increase", "average_gain"]
    for baseline in (0, np.zeros(3)):  # an array cannot be compared with that of another metric
        together = actgrid.evaluate(network, samples, "gradcam", names, baseline=baseline).values
        assert runs == ([200, 1] if np.ndim(baseline) == 0 else [200, 200, 1, 1, 1])
        runs.clear()
        for name in names:
            alone = actgrid.evaluate(network, samples, "gradcam", [name], baseline=baseline)
            np.testing.assert_array_equal(alone.values[name], together[name])
        runs.clear()


def test_batches_do_not_change_values(network: Any, samples: Array) -> None:
    names = ["deletion", "mu_fidelity", "road", "average_drop"]
    by_one, by_two = (
        actgrid.evaluate(network, samples, ["gradcam"], names, batch_size=size, steps=4)
        for size in (32, 2)
    )
    for name in names:
        np.testing.assert_allclose(by_two.values[name], by_one.values[name], rtol=1e-4, atol=1e-6)


def test_classes_of_given_attributions_are_evaluated(network: Any, samples: Array) -> None:
    heatmap = actgrid.explain(network, samples, target=[1, 0, 3])
    by_map = actgrid.evaluate(network, samples, heatmap, steps=4)
    by_target = actgrid.evaluate(network, samples, heatmap.values, target=[1, 0, 3], steps=4)
    assert by_map.targets == ("1", "0", "3")
    np.testing.assert_array_equal(by_map.values["deletion"], by_target.values["deletion"])
    other = actgrid.explain(network, samples, target=[1, 0, 2])
    with pytest.raises(OptionError, match=r"the same classes: a explains \[1, 0, 3\], and b"):
        actgrid.evaluate(network, samples, {"a": heatmap, "b": other})


def test_target_function(network: Any, samples: Array) -> None:
    def score(outputs: Any) -> Any:
        return outputs[:, 0] - outputs[:, 1]

    evaluation = actgrid.evaluate(
        network, samples, "saliency", ["deletion"], target=score, steps=1, baseline=0
    )
    outputs = np.asarray(network(samples))
    (background,) = np.asarray(network(np.zeros((1, 16, 12, 3))))
    ends = np.stack([outputs[:, 0] - outputs[:, 1], [background[0] - background[1]] * 3], 1)
    np.testing.assert_allclose(evaluation.curves["deletion"].values[0], ends, atol=1e-5)
    assert evaluation.targets == ("score",) * 3


def test_ranks_follow_the_direction_of_each_metric() -> None:
    values = {
        "deletion": np.array([[0.1, 0.3], [0.5, 0.5], [np.nan, np.nan]]),
        "insertion": np.array([[0.2, 0.2], [0.2, 0.2], [0.1, 0.9]]),
    }
    images = np.arange(2)
    evaluation = actgrid.Evaluation(("a", "b", "c"), values, {}, images, ("x", "x"))
    assert evaluation.ranks["deletion"].tolist() == [1, 2, 3]
    assert evaluation.ranks["insertion"].tolist() == [2.5, 2.5, 1]
    assert evaluation.ranking == ["a", "c", "b"]
    np.testing.assert_allclose(evaluation.means["deletion"], [0.2, 0.5, np.nan])


def test_picture(network: Any, samples: Array) -> None:
    evaluation = actgrid.evaluate(network, samples, ["gradcam", "saliency"], steps=3)
    table = actgrid.evaluate(network, samples, ["gradcam", "saliency"], ["sparseness"])
    assert evaluation.to_rgb().shape[0] > table.to_rgb().shape[0] + 200
    assert repr(evaluation) == "<Evaluation of gradcam, saliency by deletion, insertion, 3 maps>"


def test_tables_sequences_and_texts() -> None:
    random = np.random.default_rng(0)
    metrics = ["deletion", "insertion", "mu_fidelity", "complexity"]
    table = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
    x = random.normal(size=(4, 5)).astype(np.float32)
    evaluation = actgrid.evaluate(table, x, ["gradient_x_input", "occlusion"], metrics)
    assert evaluation.values["deletion"].shape == (2, 4)
    # Occlusion of single features is exact for the first feature that is hidden.
    assert (evaluation.values["mu_fidelity"] > 0.9).all()
    sequence = keras.Sequential(
        [keras.Input((30, 2)), keras.layers.Conv1D(4, 3), keras.layers.GlobalAveragePooling1D()]
    )
    signals = random.normal(size=(2, 30, 2)).astype(np.float32)
    result = actgrid.evaluate(sequence, signals, "saliency", [*metrics, "road"])
    assert np.isfinite(result.values["road"]).all()
    tokens = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(10, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    indices = random.integers(0, 10, (2, 6))
    text = actgrid.evaluate(tokens, indices, "gradient_x_input", metrics, steps=6)
    assert text.curves["deletion"].values.shape == (1, 2, 7)


def test_several_outputs_are_evaluated_together() -> None:
    inputs = keras.Input((8, 8, 3))
    keras.utils.set_random_seed(0)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    heads = {name: keras.layers.Dense(3, name=name)(features) for name in ("kind", "age")}
    model = keras.Model(inputs, heads)
    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    target = {"kind": 1, "age": 2}
    evaluation = actgrid.evaluate(model, x, "saliency", target=target, steps=2)
    assert evaluation.images.tolist() == [0, 0, 1, 1]
    for output, index in (("kind", 0), ("age", 1)):
        single = actgrid.evaluate(model, x, "saliency", target={output: target[output]}, steps=2)
        np.testing.assert_allclose(
            evaluation.values["deletion"][0, index::2], single.values["deletion"][0], rtol=1e-5
        )


def test_networks_that_are_not_keras_models() -> None:
    class Brightness:
        """Network whose only output is the mean of the first image row."""

        name, inputs, outputs = "brightness", (), ("output",)

        def list_layers(self, x: Any = None) -> list[LayerInfo]:
            return [LayerInfo("output", "Mean", (None, 3), "float32", "channels_last", 0, 0)]

        def run(self, x: Any, paths: Any) -> dict[str, Array]:
            return {"output": np.asarray(x)[:, :1].mean((1, 2))}

        def fingerprint(self) -> str:
            return "0"

    x = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    maps = np.zeros((2, 8, 8))
    maps[:, 0] = 1
    with pytest.raises(CapabilityError, match="randomization needs the weights"):
        actgrid.evaluate(Brightness(), x, {"rise": {"samples": 10}}, ["randomization"], target=0)
    evaluation = actgrid.evaluate(Brightness(), x, maps, target=0, steps=8, baseline=0)
    assert evaluation.curves["deletion"].values[0, :, 1].max() < 1e-6


@pytest.mark.parametrize(
    ("attributions", "metrics", "options", "error", "message"),
    [
        ("gradcm", ["deletion"], {}, OptionError, "did you mean gradcam"),
        ("gradcam", ["deletio"], {}, OptionError, "did you mean deletion"),
        ("gradcam", [], {}, OptionError, "at least one metric"),
        ({}, ["deletion"], {}, OptionError, "at least one entry"),
        ("gradcam", ["deletion"], {"samples": 3}, OptionError, "unknown option 'samples'"),
        ("gradcam", ["deletion"], {"stpes": 3}, UnknownOptionError, "steps"),
        ("gradcam", {"deletion": {"samples": 3}}, {}, OptionError, "deletion: unknown option"),
        ("gradcam", {"deletion": 5}, {}, OptionError, "options of deletion must be a dict"),
        ("gradcam", ["deletion"], {"steps": 0}, OptionError, "steps"),
        ("gradcam", ["road"], {"fractions": (0.5, 0.2)}, OptionError, "increasing numbers"),
        (np.ones((3, 4, 4)), ["sensitivity"], {}, OptionError, "name the method of attribution"),
        ("gradcam", ["energy"], {}, OptionError, "pass masks"),
        ("gradcam", ["energy"], {"boxes": [(0, 0, 2, 2)]}, ShapeError, "each of 3 samples"),
        ("gradcam", ["energy"], {"masks": np.ones((2, 4, 4))}, ShapeError, "masks must be"),
        ("gradcam", ["energy"], {"masks": np.zeros((4, 4))}, OptionError, "at least one position"),
        ("gradcam", ["energy"], {"boxes": [(5, 5, 5, 9)] * 3}, OptionError, "at least one"),
        (np.ones((2, 4, 4)), ["deletion"], {}, ShapeError, "must be 3 maps"),
        (np.ones((3, 4)), ["deletion"], {}, ShapeError, r"must be \(N, height, width\)"),
        (np.full((3, 4, 4), np.nan), ["deletion"], {}, OptionError, "must be finite"),
        (np.full((3, 4, 4), "a"), ["deletion"], {}, DtypeError, "real numbers"),
        ({"gradcam": {"patch": 3}}, ["deletion"], {}, OptionError, "unknown option 'patch'"),
    ],
)
def test_errors(
    network: Any,
    samples: Array,
    attributions: Any,
    metrics: Any,
    options: Any,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        actgrid.evaluate(network, samples, attributions, metrics, **options)


def test_road_needs_positions() -> None:
    table = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(ShapeError, match="road needs an input with positions"):
        actgrid.evaluate(table, np.ones((1, 5)), np.ones((1, 5)), ["road"])


def test_maps_with_channels_are_added_up(network: Any, samples: Array) -> None:
    by_channel = actgrid.explain(network, samples, "gradient_x_input", reduce="none")
    summed = actgrid.explain(network, samples, "gradient_x_input")
    values = [
        actgrid.evaluate(network, samples, attribution, steps=4).values["deletion"]
        for attribution in (by_channel, summed)
    ]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)
