"""Benchmarks from image files to a picture file of each layer."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import actgrid
from actgrid.bench import Run
from actgrid.options import DrawingOptions
from actgrid.runs.manifest import Record
from actgrid.runs.processing import ProcessingOptions
from actgrid.runs.run_spec import RunSpec
from actgrid.runs.sources import find_items
from benchmarks.suite import Group, Target
from benchmarks.workload import COLUMNS, IMAGES, Array, folder, photos, textbook, vgg16

__all__ = ["FILES", "PEERS", "draw_photos", "forward_photos"]


def load_photo(file: Path) -> Array:
    return actgrid.load_images(file, model=vgg16().model)


def forward_photos() -> Run:
    """Prepare the forward pass alone, on images that are already loaded."""
    extractor, batches = vgg16(), [load_photo(file) for file in photos()]

    def run() -> None:
        for batch in batches:
            extractor(batch)

    return run


def draw_photos() -> Run:
    """Prepare a run of actgrid from the files of photos to picture files."""
    drawing: DrawingOptions = {"columns": COLUMNS, "padding": 0}
    spec = RunSpec(None, ProcessingOptions(drawing), str(folder() / "actgrid"))

    def run() -> None:
        events = spec.process(vgg16(), find_items(photos()).start())
        assert (
            sum(len(event.files) == 19 for event in events if isinstance(event, Record)) == IMAGES
        )

    return run


@cache
def make_output_model() -> tuple[list[str], Any]:
    """Return the names of the layers, and a Keras model with all their outputs."""
    import keras

    model = vgg16().model
    layers = [layer for layer in model.layers if "conv" in layer.name or "pool" in layer.name]
    outputs = [layer.output for layer in layers]
    return [layer.name for layer in layers], keras.Model(model.inputs, outputs)


def draw_with_matplotlib() -> Run:
    """Prepare the way of the textbook and tutorials: predict, loop, imshow, savefig."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, model = make_output_model()
    output = folder() / "tutorial"
    output.mkdir(exist_ok=True)

    def run() -> None:
        activations = model.predict(load_photo(photos()[0]), verbose=0)
        for name, activation in zip(names, activations, strict=True):
            display = textbook(activation)
            size = activation.shape[1]
            pyplot.figure(figsize=(display.shape[1] / size, display.shape[0] / size))
            pyplot.title(name)
            pyplot.grid(False)
            pyplot.imshow(display, aspect="auto", cmap="viridis")
            pyplot.savefig(output / f"{name}.png")
            pyplot.close()

    return run


def draw_with_tf_explain() -> Run:
    """Prepare ExtractActivations of tf-explain, which runs the model for each layer."""
    from tf_explain.core.activations import ExtractActivations

    explainer = ExtractActivations()
    names, _ = make_output_model()

    def run() -> None:
        batch = load_photo(photos()[0])
        with contextlib.redirect_stdout(io.StringIO()):  # Keras's progress bars
            for name in names:
                picture = explainer.explain((batch, None), vgg16().model, [name])
                explainer.save(picture, str(folder() / "tf-explain"), f"{name}.png")

    return run


FILES = Group(
    "image to 18 files, VGG16, one of 20 images",
    {"forward pass alone": forward_photos, "actgrid": draw_photos},
    (Target("image to files over forward alone", "actgrid", "forward pass alone", 1.35, 1.15),),
    count={"forward pass alone": IMAGES, "actgrid": IMAGES},
)

PEERS = Group(
    "image to 18 files, VGG16, one image",
    {
        "actgrid": draw_photos,
        "textbook loop + matplotlib": draw_with_matplotlib,
        "tf-explain": draw_with_tf_explain,
    },
    (
        Target(
            "textbook + matplotlib over ours",
            "textbook loop + matplotlib",
            "actgrid",
            50,
            70,
            True,
        ),
        Target("tf-explain over ours", "tf-explain", "actgrid", 15, 20, True),
    ),
    count={"actgrid": IMAGES},
)
