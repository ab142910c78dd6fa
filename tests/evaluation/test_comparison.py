"""Tables of maps of several methods, by `compare_methods`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import actgrid
from actgrid.errors import LayerError, OptionError, ShapeError, TargetError


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            keras.layers.Rescaling(1 / 64, -2),
            keras.layers.Conv2D(6, 3, activation="relu", name="first"),
            keras.layers.Conv2D(6, 3, activation="relu", name="second"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.float32]:
    random = np.random.default_rng(5)
    return random.integers(0, 256, (3, 12, 10, 3)).astype(np.float32)


def get_cells(sheet: Any) -> npt.NDArray[np.uint8]:
    """Return the pictures of a sheet, (rows, columns, height, width, 3)."""
    pictures: npt.NDArray[np.uint8] = sheet.pictures
    return pictures.reshape(-1, sheet.columns, *pictures.shape[1:])


def test_rows_are_images_and_columns_are_methods(model: Any, images: Any) -> None:
    methods = ["occlusion", "gradcam", "saliency"]
    sheet = actgrid.compare_methods(model, images, methods, metrics=[], alpha=0.7, clip=90)
    assert sheet.titles == ("image", *methods)
    pictures = get_cells(sheet)
    assert pictures.shape == (3, 4, 12, 10, 3)
    np.testing.assert_array_equal(pictures[:, 0], images)
    for column, method in enumerate(methods, 1):
        # Occlusion has negative values: all methods have its scale, with zero in the middle.
        heatmap = actgrid.explain(model, images, method).with_sign(True)
        overlay = heatmap.overlay(alpha=0.7, clip=90)
        np.testing.assert_array_equal(pictures[:, column], overlay.pictures)


def test_captions_show_class_and_score(model: Any, images: Any) -> None:
    labels = ["ant", "bee", "cat", "dog"]
    heatmap = actgrid.explain(model, images, labels=labels)
    assert heatmap.labels is not None
    assert heatmap.score is not None
    expected = [
        f"{name} {score:.4g}" for name, score in zip(heatmap.labels, heatmap.score, strict=True)
    ]
    methods = ["gradcam", "saliency"]
    sheet = actgrid.compare_methods(model, images, methods, metrics=[], labels=labels)
    assert sheet.captions[::3] == tuple(expected)
    assert {*sheet.captions[1::3], *sheet.captions[2::3]} == {""}
    indices = actgrid.compare_methods(model, images, ["gradcam"], [2, 0, 1]).captions[::2]
    assert [caption.split()[0] for caption in indices] == ["2", "0", "1"]


def test_all_methods_explain_the_predicted_class(model: Any, images: Any) -> None:
    predicted = model.predict(images, verbose=0).argmax(1)
    assert len(set(predicted)) > 1
    methods = ["gradcam", "occlusion"]
    by_prediction = actgrid.compare_methods(model, images, methods, batch_size=2)
    by_class = actgrid.compare_methods(model, images, methods, predicted, batch_size=2)
    np.testing.assert_array_equal(by_prediction.pictures, by_class.pictures)
    assert by_prediction.captions == by_class.captions


def test_targets_as_class_list_and_function(model: Any, images: Any) -> None:
    def other(outputs: Any) -> Any:
        return outputs[:, 3]

    for target in (3, [0, None, 2], other):
        sheet = actgrid.compare_methods(model, images, ["saliency"], target)
        overlay = actgrid.explain(model, images, "saliency", target).overlay()
        np.testing.assert_array_equal(get_cells(sheet)[:, 1], overlay.pictures)
    assert np.allclose(
        [float(caption) for caption in sheet.captions[::2]],
        model.predict(images, verbose=0)[:, 3],
        rtol=1e-3,
    )


def test_options_and_layer_are_passed_to_their_methods(model: Any, images: Any) -> None:
    methods: dict[str, dict[str, Any]] = {
        "occlusion": {"patch": 5, "baseline": 0},
        "layercam": {},
        "smoothgrad": {"seed": 7},
    }
    sheet = actgrid.compare_methods(model, images, methods, layer="first", metrics=[], cmap="magma")
    assert sheet.titles == ("image", *methods)
    pictures = get_cells(sheet)
    for column, (method, options) in enumerate(methods.items(), 1):
        layer = "first" if method == "layercam" else None
        heatmap = actgrid.explain(model, images, method, layer=layer, **options).with_sign(True)
        np.testing.assert_array_equal(
            pictures[:, column], heatmap.overlay(cmap="magma").pictures, err_msg=method
        )


def test_single_image_with_default_methods(model: Any, images: Any) -> None:
    sheet = actgrid.compare_methods(model, images[0])
    assert len(sheet) == sheet.columns == 5
    names = ["gradcam", "integrated_gradients", "occlusion", "smoothgrad"]
    assert sorted(sheet.attributions) == names
    assert sheet.evaluation is not None
    assert sheet.evaluation.metrics == ("deletion", "insertion")
    single = actgrid.compare_methods(model, images[:1], "gradcam", metrics=[])
    assert single.titles == ("image", "gradcam")
    assert single.evaluation is None


def test_methods_are_ranked_and_their_scores_are_shown(model: Any, images: Any) -> None:
    methods = ["saliency", "gradcam", "occlusion"]
    metrics = {"insertion": {"steps": 6}, "sparseness": {}}
    sheet = actgrid.compare_methods(model, images, methods, metrics=metrics)
    target = actgrid.explain(model, images).target
    evaluation = actgrid.evaluate(model, images, methods, metrics, target)
    assert list(sheet.attributions) == sheet.ranking == evaluation.ranking
    assert sheet.titles == (
        "image",
        *(f"{rank}. {name}" for rank, name in enumerate(evaluation.ranking, 1)),
    )
    captions = np.array(sheet.captions).reshape(3, 4)
    for column, name in enumerate(evaluation.ranking, 1):
        row = evaluation.names.index(name)
        for sample in range(3):
            insertion = evaluation.values["insertion"][row, sample]
            sparseness = evaluation.values["sparseness"][row, sample]
            assert captions[sample, column] == (
                f"insertion {insertion:.3g}  sparseness {sparseness:.3g}"
            )


def test_several_targets_have_a_row_each(model: Any, images: Any) -> None:
    sheet = actgrid.compare_methods(model, images[:1], ["saliency"], [3, 1], metrics=[])
    assert [caption.split()[0] for caption in sheet.captions[::2]] == ["3", "1"]
    expected = actgrid.explain(model, images[:1], "saliency", [3, 1]).overlay().pictures
    np.testing.assert_array_equal(get_cells(sheet)[:, 1], expected)
    both = actgrid.compare_methods(model, images[:2], ["saliency"], [[3, 1], [0, 2]], metrics=[])
    assert len(both) == 8


def test_agreement_of_the_methods(model: Any, images: Any) -> None:
    sheet = actgrid.compare_methods(model, images, ["saliency", "smoothgrad"], metrics=[])
    expected = actgrid.measure_agreement(
        {name: actgrid.explain(model, images, name) for name in ("saliency", "smoothgrad")}
    )
    np.testing.assert_allclose(sheet.agreement.values, expected.values)


def test_colour_bar_is_that_of_the_maps(model: Any, images: Any) -> None:
    unsigned = actgrid.compare_methods(model, images, ["saliency"], metrics=[])
    signed = actgrid.compare_methods(model, images, ["saliency", "occlusion"], metrics=[])
    assert (unsigned.cmap, unsigned.signed) == ("viridis", False)
    assert (signed.cmap, signed.signed) == ("RdBu_r", True)
    table = actgrid.rendering.lay_out_sheet(
        signed.pictures, columns=3, titles=signed.titles, captions=signed.captions
    ).to_rgb()
    picture = signed.to_rgb()
    np.testing.assert_array_equal(picture[: len(table)], table)
    bar = picture[len(table) + 10].astype(int)
    (columns,) = np.nonzero((bar != 255).any(1))
    assert tuple(bar[columns[0]]) == tuple(actgrid.rendering.palette("RdBu_r")[0])
    assert tuple(bar[columns[-1]]) == tuple(actgrid.rendering.palette("RdBu_r")[255])


def test_files_are_loaded_once_and_drawn_unmodified(
    images: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For a model without preprocessing of its own, pixels are divided by 255.
    model = keras.Sequential(
        [keras.Input((12, 10, 3)), keras.layers.Conv2D(3, 3), keras.layers.Flatten()]
    )
    files = []
    for index, pixels in enumerate(images):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
    opened = []
    original_open = Image.open

    def record_open(file: Any, *arguments: Any) -> Any:
        opened.append(file)
        return original_open(file, *arguments)

    monkeypatch.setattr(Image, "open", record_open)
    sheet = actgrid.compare_methods(model, files, ["gradcam", "saliency"], metrics=[])
    assert opened == files
    np.testing.assert_array_equal(get_cells(sheet)[:, 0], images)
    prepared = actgrid.load_images(files, model=model)
    np.testing.assert_array_equal(prepared, np.float32(images) / np.float32(255))
    heatmap = actgrid.explain(model, prepared, "saliency")
    expected = actgrid.Heatmap(heatmap.values, images=images.astype(np.uint8), signed=False)
    np.testing.assert_array_equal(get_cells(sheet)[:, 2], expected.overlay().pictures)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": ["deletoin"]}, OptionError, "did you mean deletion"),
        ({"metrics": ["energy"]}, OptionError, "energy needs the explained objects"),
        ({"methods": ["gradcan"]}, OptionError, "did you mean gradcam"),
        ({"methods": []}, OptionError, "at least one"),
        ({"methods": [["gradcam"]]}, OptionError, "method must be one of"),
        ({"methods": {"occlusion": {"path": 2}}}, OptionError, "'path'.*did you mean patch"),
        (
            {"methods": {"gradcam": {"patch": 2}}},
            OptionError,
            "gradcam: unknown option 'patch'",
        ),
        ({"methods": {"gradcam": None}}, OptionError, "options of gradcam must be a dict"),
        ({"methods": ["saliency"], "layer": "first"}, OptionError, "leave layer out"),
        ({"layer": "third"}, LayerError, "third"),
        ({"target": 4}, TargetError, "no class 4"),
        ({"target": "ant"}, TargetError, "names of the model's classes are not known"),
        ({"alpha": 2}, OptionError, "alpha"),
        ({"cmap": "virids"}, OptionError, "viridis"),
        ({"batch_size": 0}, OptionError, "batch_size"),
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected(
    model: Any, images: Any, arguments: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        actgrid.compare_methods(model, images, **arguments)


def test_images_of_five_channels_are_rejected() -> None:
    model = keras.Sequential([keras.Input((6, 6, 5)), keras.layers.Flatten()])
    with pytest.raises(ShapeError, match="must have 1, 3 or 4 channels to be drawn"):
        actgrid.compare_methods(model, np.ones((1, 6, 6, 5)), ["saliency"])


def test_files_of_channels_first_model_are_drawn_unmodified(images: Any, tmp_path: Any) -> None:
    flatten = keras.layers.Flatten(data_format="channels_first")
    model = keras.Sequential([keras.Input((3, 12, 10)), flatten])
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for file, pixels in zip(files, images, strict=True):
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    sheet = actgrid.compare_methods(model, files, ["saliency"], 0)
    np.testing.assert_array_equal(get_cells(sheet)[:, 0], images)


def test_gray_images_are_drawn_gray() -> None:
    model = keras.Sequential(
        [keras.Input((8, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    images = np.random.default_rng(0).random((2, 8, 6, 1), np.float32)
    pictures = get_cells(actgrid.compare_methods(model, images, ["saliency"]))
    assert pictures.shape == (2, 2, 8, 6, 3)
    np.testing.assert_allclose(pictures[:, 0], np.repeat(images, 3, -1) * 255, atol=0.5)
