"""The inputs of a model whose image is optimized."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import names_of, position_of
from actgrid.models.refusals import reason
from actgrid.models.tracing import known_specs
from actgrid.option_checks import integer_option

__all__ = ["MaximizationInputs"]


@dataclass(frozen=True)
class MaximizationInputs:
    """The inputs of a model: which is the image, and the values of the others.

    Attributes
    ----------
    specs
        The model's inputs as TensorSpecs, in its structure; that of an RGB image of any size for a
        model that does not say.
    position
        Of the image, in the order of TensorFlow's nests.
    others
        (1, ...) tensors in that order, without the image.
    """

    specs: Any
    position: int
    others: tuple[Any, ...]

    @classmethod
    def of(
        cls, model: Any, values: Mapping[str, Any] | None, chosen: int | str | None
    ) -> MaximizationInputs:
        """Return a model's inputs, of which all but the image are given by name.

        Raises
        ------
        OptionError, ShapeError
            If that leaves no single image.
        """
        tf = tensorflow()
        specs = known_specs(model)
        if specs is None:
            specs = tf.TensorSpec((None, None, None, 3), "float32")
        flat, names = tf.nest.flatten(specs), names_of(model, specs)
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            raise OptionError(
                f"inputs must be a dict of the model's inputs beside the image, of the names "
                f"{', '.join(names)}; not {reprlib.repr(values)}"
            )
        values = {names[position_of(model, specs, name)]: values[name] for name in values}
        position = cls._position(model, specs, names, values, chosen)
        missing = [
            name for place, name in enumerate(names) if place != position and name not in values
        ]
        if missing:
            raise OptionError(
                f"the model also takes {', '.join(missing)}: give a sample of each by name, "
                f"inputs={{{missing[0]!r}: ...}} (--inputs FILE.npz)"
            )
        others = [
            _one_sample(name, values[name], spec)
            for place, (name, spec) in enumerate(zip(names, flat, strict=True))
            if place != position
        ]
        return cls(specs, position, tuple(others))

    @staticmethod
    def _position(
        model: Any,
        specs: Any,
        names: list[str],
        values: Mapping[str, Any],
        chosen: int | str | None,
    ) -> int:
        flat = tensorflow().nest.flatten(specs)
        if isinstance(chosen, str):
            places = [position_of(model, specs, chosen)]
        elif chosen is not None:
            places = [integer_option("image_input", chosen, 0, len(flat) - 1)]
        else:
            places = [place for place, name in enumerate(names) if name not in values]
            images = [place for place in places if len(flat[place].shape) == 4]
            if len(images) > 1:
                found = ", ".join(names[place] for place in images)
                raise OptionError(
                    f"the model takes several images ({found}): give all but one by inputs=, or "
                    "say image_input="
                )
            places = images or places
        if len(places) != 1 or len(flat[places[0]].shape) != 4:
            shapes = ", ".join(str(tuple(spec.shape)) for spec in flat)
            raise ShapeError(f"the model takes {shapes}, not a batch of images")
        return places[0]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Shape of the image, with its batch axis."""
        return tuple(tensorflow().nest.flatten(self.specs)[self.position].shape)

    def with_image(self, image: Any) -> Any:
        """Return what the model takes: an image for each sample, with the other inputs."""
        tf = tensorflow()
        tensors = [tf.repeat(other, len(image), 0) for other in self.others]
        tensors.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.specs, tensors)


def _one_sample(name: str, value: Any, spec: Any) -> Any:
    """Return one sample of an input, with its batch axis, as a tensor of its type."""
    tf = tensorflow()
    try:
        tensor = tf.convert_to_tensor(np.asarray(value))
        tensor = tf.cast(tensor, spec.dtype)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise OptionError(f"inputs: {name!r} must be {spec.dtype.name}: {reason(error)}") from error
    if spec.shape.rank is not None and len(tensor.shape) == spec.shape.rank - 1:
        tensor = tensor[None]
    if not len(tensor.shape) or len(tensor) != 1:
        raise ShapeError(
            f"inputs: {name!r} must be one sample, {(1, *spec.shape[1:])}, not "
            f"{tuple(tensor.shape)}"
        )
    return tensor
