"""Type aliases for arguments: model, input, layers, target."""

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
    """Protocol of a Keras layer, model or operation: the members that actgrid uses."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer and return its output."""

    def get_config(self) -> Any:
        """Return the configuration of the layer, from which Keras can create it again."""


# Anything that `actgrid.load_model` accepts: a Keras model, a network of another kind, a function
# of a batch, the path of a file or folder, or a specification such as "keras:VGG16" or "demo".
ModelLike: TypeAlias = KerasLayer | Network | Callable[[Any], Any] | str | os.PathLike[str]

# A single layer: its path, a Keras layer, or an index into `model.layers`.
LayerLike: TypeAlias = str | int | KerasLayer

# A selection of layers: paths, globs, layers, layer classes, indices, predicates, or a list of
# these. None selects every layer with a spatial output.
LayersLike: TypeAlias = (
    LayerLike
    | type
    | Callable[[Any], object]
    | Iterable[LayerLike | type | Callable[[Any], object]]
    | None
)

# Image sources: a file, a folder, a glob, a Pillow image, an array of pixels 0 to 255, or a list of
# these.
ImageSources: TypeAlias = (
    str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Iterable["ImageSources"]
)

# The input of a model, with its batch axis: an array or tensor, or a list or dict of them for
# several inputs. Functions that prepare images also accept image files and Pillow images.
ModelInput: TypeAlias = (
    npt.ArrayLike
    | os.PathLike[str]
    | Image.Image
    | Sequence["ModelInput | None"]
    | Mapping[Any, "ModelInput | None"]
)

# An explanation target: a class index or name, a function of the output, a list of these with an
# entry for each image, or a dict of these by output name. None selects the predicted class.
TargetLike: TypeAlias = (
    int
    | str
    | Callable[..., Any]
    | npt.NDArray[Any]
    | Sequence["TargetLike"]
    | Mapping[Any, "TargetLike"]
    | None
)
