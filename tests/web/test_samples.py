"""The viewer of models that take sequences, volumes, tables and texts."""

from __future__ import annotations

import asyncio
import io
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import FormatError, OptionError
from actgrid.rendering import TextAttribution, VolumeAttribution
from actgrid.web.serving import make_viewer
from actgrid.web.viewer import Viewer

T = TypeVar("T")

RNG = np.random.default_rng(0)


def make_model(kind: str) -> Any:
    keras.utils.set_random_seed(0)
    body = {
        "sequence": [keras.Input((600, 1)), layers.Conv1D(3, 5, activation="tanh", name="conv")],
        "volume": [keras.Input((5, 8, 6, 1)), layers.Conv3D(2, 3, padding="same", name="conv")],
        "table": [keras.Input((3,)), layers.Dense(4, activation="tanh")],
        "text": [
            keras.Input((1,), dtype="string"),
            layers.TextVectorization(vocabulary=["good", "film"], output_sequence_length=4),
            layers.Embedding(4, 3, name="embedding"),
        ],
    }[kind]
    pooling = {
        "sequence": [layers.GlobalAveragePooling1D()],
        "volume": [layers.GlobalAveragePooling3D()],
        "table": [],
        "text": [layers.GlobalAveragePooling1D()],
    }[kind]
    return keras.Sequential([*body, *pooling, layers.Dense(2)])


SAMPLES: dict[str, Any] = {
    "sequence": np.sin(np.arange(600) / 9).astype(np.float32)[None, :, None],
    "volume": RNG.random((1, 5, 8, 6, 1), np.float32),
    "table": RNG.random((1, 3), np.float32),
    "text": "Good film",
}


def use_viewer(viewer: Viewer, use: Callable[[Viewer], Awaitable[T]]) -> T:
    async def main() -> T:
        try:
            return await use(viewer)
        finally:
            await viewer.close()

    return asyncio.run(main())


def read_picture(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_have_pictures_layers_and_heatmaps(kind: str) -> None:
    model = make_model(kind)

    async def use(viewer: Viewer) -> Any:
        (image,) = viewer.images.list_images(0, 10)
        await viewer.start()
        return (
            viewer.get_model_info(),
            await viewer.get_thumbnail(image.id),
            await viewer.get_picture(image.id),
            await viewer.get_classes(image.id),
            (await viewer.get_layers(image.id))["layers"],
            await viewer.get_heatmap(image.id, "occlusion", None, None),
            await viewer.get_heatmap_levels(image.id, "occlusion", None, None),
        )

    info, thumbnail, picture, classes, summaries, heatmap, drawing = use_viewer(
        make_viewer(model, SAMPLES[kind]), use
    )
    assert info["input_kind"] == heatmap["kind"] == kind
    assert not info["maximize"]
    assert ".npy" in info["uploads"]["suffixes"]
    assert read_picture(thumbnail).shape[0] <= 128
    expected = actgrid.explain(
        model, [SAMPLES[kind]] if kind == "text" else SAMPLES[kind], "occlusion"
    )
    assert heatmap["score"] == pytest.approx(float(np.asarray(expected.score)[0]), rel=1e-4)
    assert classes["top"][0]["index"] == heatmap["target"]
    assert sum(summary is not None for summary in summaries) >= 2
    shown = read_picture(drawing)
    if isinstance(expected, VolumeAttribution):
        slices = expected.slices().pictures
        layout = heatmap["slices"]
        assert layout["count"] == len(slices) == 5
        height, width, columns = layout["height"], layout["width"], layout["columns"]
        for index, each in enumerate(slices):
            y, x = height * (index // columns), width * (index % columns)
            np.testing.assert_array_equal(shown[y : y + height, x : x + width], each)
    else:
        assert heatmap["slices"] is None
        np.testing.assert_array_equal(shown, expected.overlay().to_rgb())
    if isinstance(expected, TextAttribution):
        assert [token["text"] for token in heatmap["tokens"]] == ["good", "film"]
    else:
        assert heatmap["tokens"] is None
        np.testing.assert_array_equal(
            read_picture(picture).shape[2], expected.draw_inputs().pictures[0].shape[2]
        )


def test_long_sequences_are_sent_in_one_piece() -> None:
    """The page cuts the picture into strips by itself."""
    model = make_model("sequence")

    async def use(viewer: Viewer) -> Any:
        (image,) = viewer.images.list_images(0, 10)
        node = [entry["path"] for entry in viewer.get_model_info()["nodes"]].index("conv")
        return (
            (await viewer.get_layer(image.id, node))["tiles"],
            await viewer.get_levels(image.id, node, "minmax", "channel"),
        )

    tiles, levels = use_viewer(make_viewer(model, SAMPLES["sequence"]), use)
    assert (tiles["height"], tiles["width"], tiles["count"]) == (596, 1, 3)
    conv = keras.Model(model.inputs[0], model.get_layer("conv").output)
    expected = actgrid.render(
        np.asarray(conv(SAMPLES["sequence"])), kind="sequence", normalize="minmax", columns=1
    )
    with Image.open(io.BytesIO(levels)) as picture:
        shown = np.asarray(picture).astype(int)
    assert shown.shape == (596, 3)
    assert np.abs(shown - expected.levels).max() <= 1


def test_texts_may_be_long_or_files(tmp_path: Any) -> None:
    model, text = make_model("text"), "good film " * 200
    (tmp_path / "reviews.txt").write_text("good\nfilm\n")
    viewer = make_viewer(model, [text, str(tmp_path / "reviews.txt")])
    names = [image.name for image in viewer.images.list_images(0, 10)]
    assert names == [f"{text[:60]}…", "reviews[0].txt", "reviews[1].txt"]
    asyncio.run(viewer.close())
    by_file = actgrid.explain(model, str(tmp_path / "reviews.txt"), "saliency", target=0)
    by_texts = actgrid.explain(model, ["good", "film"], "saliency", target=0)
    np.testing.assert_array_equal(by_file.values, by_texts.values)
    assert actgrid.explain(model, text, "saliency", target=0).values.shape == (1, 4)


def test_uploads_of_samples() -> None:
    viewer = make_viewer(make_model("table"))
    csv = viewer.images.add(b"1,2,3\n", "row.csv")
    assert csv.name == "row.csv"
    file = io.BytesIO()
    np.save(file, np.ones(3, np.float32))
    viewer.images.add(file.getvalue(), "row.npy")
    assert len(viewer.images) == 2
    with pytest.raises(OptionError, match=r"one of the suffixes \.npy, \.csv, \.tsv, not '\.npz'"):
        viewer.images.add(b"PK", "row.npz")
    with pytest.raises(FormatError, match=r"the file, line 2, column 3: got 'x'"):
        viewer.images.add(b"1,2,3\n1,2,x\n", "broken.csv")
    asyncio.run(viewer.close())


@pytest.fixture(scope="module")
def volume_url(tmp_path_factory: pytest.TempPathFactory, start_python: Any) -> Any:
    """Serve a model of volumes with one volume; yield the address of the viewer."""
    folder = tmp_path_factory.mktemp("volume")
    make_model("volume").save(folder / "volume.keras")
    np.save(folder / "head.npy", SAMPLES["volume"])
    command = ["-m", "actgrid", "serve", folder / "volume.keras", folder / "head.npy", "--port", 0]
    with start_python(*command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        yield line.split()[4]
        server.terminate()


def test_slices_of_a_volume_are_scrubbed_on_the_page(browser: Any, volume_url: str) -> None:
    page = browser.new_context().new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(volume_url)
    page.wait_for_selector("#layer .first canvas[data-shown]")
    page.get_by_role("tab", name="Heatmap").click()
    slider = page.get_by_role("slider", name="Slice")
    slider.wait_for()
    assert slider.get_attribute("max") == "4"
    read = "document.querySelector('#heatmap .large canvas').toDataURL()"
    pictures = []
    for index in range(5):
        slider.fill(str(index))
        assert page.get_by_text(f"slice {index} of 5").is_visible()
        pictures.append(page.evaluate(read))
    assert len(set(pictures)) == 5
    assert not errors
    page.context.close()
