"""Positional arguments of the commands: the model and its images."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Image",
    "Images",
    "Input",
    "ListedImages",
    "Model",
    "OptionalImages",
    "OptionalModel",
    "OtherInput",
    "OtherModel",
]

_MODEL = (
    "A .keras, .h5, .tflite or .onnx file, a SavedModel folder, keras:NAME (such as keras:VGG16), "
    "demo, or package.module:function, which returns a model or takes a batch."
)
# The word `demo` takes precedence over a file of that name, for models as for images.
_DEMO = "demo: the embedded photo (./demo for a file or folder called demo)."


def _make_argument(metavar: str, help_text: str) -> typer.models.ArgumentInfo:
    info: typer.models.ArgumentInfo = typer.Argument(
        metavar=metavar, help=help_text, show_default=False
    )
    return info


Model = Annotated[str, _make_argument("MODEL", _MODEL)]
OtherModel = Annotated[str, _make_argument("OTHER_MODEL", "The model to compare with, as MODEL.")]
OptionalModel = Annotated[str | None, _make_argument("MODEL", _MODEL)]
_IMAGES = f"Image files, folders of them, or globs; {_DEMO}"
Images = Annotated[list[str], _make_argument("IMAGE", _IMAGES)]
OptionalImages = Annotated[list[str] | None, _make_argument("IMAGE", _IMAGES)]
ListedImages = Annotated[
    list[str],
    _make_argument("IMAGE", f"Image files, folders of them, globs or .txt lists of paths; {_DEMO}"),
]
Input = Annotated[
    str, _make_argument("INPUT", f"Image, file of texts or arrays, or a text; {_DEMO}")
]
OtherInput = Annotated[
    str, _make_argument("SOURCE", "Input whose activations are inserted, as INPUT.")
]
Image = Annotated[str | None, _make_argument("IMAGE", f"Image file; {_DEMO}")]
