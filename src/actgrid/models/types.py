"""Types of arguments that public functions share: model, input, layers, target."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt
from PIL import Image

from actgrid.models.network import Network

__all__ = [
    "ImageSources",
    "KerasLayer",
    "LayerLike",
    "LayersLike",
    "ModelInput",
    "ModelLike",
    "TargetLike",
]


class KerasLayer(Protocol):
    """A Keras layer, model or operation, as far as its type needs to be known here."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the layer's output."""

    def get_config(self) -> Any:
        """Return the layer's configuration."""


# A model, or what `actgrid.load_model` makes a model of: a Keras model, a network of another kind,
# the path of a file or folder, or a specification such as "keras:VGG16" or "demo".
ModelLike: TypeAlias = KerasLayer | Network | str | os.PathLike[str]

# One layer: its path, a Keras layer, or an index into `model.layers`.
LayerLike: TypeAlias = str | int | KerasLayer

# Layers: paths, globs, layers, classes of layers, indices, predicates, or several of these. None
# stands for every layer with a spatial output.
LayersLike: TypeAlias = (
    LayerLike
    | type
    | Callable[[Any], object]
    | Iterable[LayerLike | type | Callable[[Any], object]]
    | None
)

# Images: a file, a folder, a glob, a Pillow image, an array of pixels 0 to 255, or several.
ImageSources: TypeAlias = (
    str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Iterable["ImageSources"]
)

# The input of a model, with its batch axis: an array or tensor, or a list or dict of them for
# several inputs. Functions that prepare images also take image files and Pillow images.
ModelInput: TypeAlias = (
    npt.ArrayLike
    | os.PathLike[str]
    | Image.Image
    | Sequence["ModelInput | None"]
    | Mapping[Any, "ModelInput | None"]
)

# What is explained: a class or its name, a function of the output, a list of these for several
# images, or a dict of these by output. None stands for the predicted class.
TargetLike: TypeAlias = (
    int
    | str
    | Callable[..., Any]
    | npt.NDArray[Any]
    | Sequence["TargetLike"]
    | Mapping[Any, "TargetLike"]
    | None
)
