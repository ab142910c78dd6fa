"""Model inputs of activation maximization: an optimized image and constants."""

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
from actgrid.models.inputs import find_input_position, list_input_names
from actgrid.models.model_errors import summarize_error
from actgrid.models.tracing import find_input_specs
from actgrid.option_checks import check_integer

__all__ = ["MaximizationInputs"]


@dataclass(frozen=True)
class MaximizationInputs:
    """The inputs of a model: the image to optimize, and constant other inputs.

    Attributes
    ----------
    specs
        Structure of TensorSpecs of the model's inputs. A model of unknown inputs is assumed to take
        one RGB image of any size.
    position
        Index of the image among the flattened inputs (order of `tf.nest.flatten`).
    others
        (1, ...) tensors: the other inputs, in the same order.
    """

    specs: Any
    position: int
    others: tuple[Any, ...]

    @classmethod
    def from_options(
        cls, model: Any, values: Mapping[str, Any] | None, image_input: int | str | None
    ) -> MaximizationInputs:
        """Create the instance from the options `inputs` and `image_input` of `maximize`.

        Parameters
        ----------
        values
            One sample of each input other than the image, by name.
        image_input
            Name or index of the image; None: the only image that `values` leaves out.

        Returns
        -------
        MaximizationInputs
            The position of the image to optimize, and constant tensors of the other inputs.

        Raises
        ------
        OptionError
            If an input is missing or unknown, or the image is ambiguous.
        ShapeError
            If the model takes no batch of images, or a sample has the wrong shape.
        """
        tf = tensorflow()
        specs = find_input_specs(model)
        if specs is None:
            specs = tf.TensorSpec((None, None, None, 3), "float32")
        flat, names = tf.nest.flatten(specs), list_input_names(model, specs)
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            raise OptionError(
                f"inputs must be a dict of the model's inputs other than the image, by name "
                f"({', '.join(names)}), not {reprlib.repr(values)}"
            )
        values = {names[find_input_position(model, specs, name)]: values[name] for name in values}
        position = cls._find_image(model, specs, names, values, image_input)
        missing = [
            name for index, name in enumerate(names) if index != position and name not in values
        ]
        if missing:
            raise OptionError(
                f"the model also takes {', '.join(missing)}: pass a sample of each by name, "
                f"inputs={{{missing[0]!r}: ...}} (--inputs FILE.npz)"
            )
        others = [
            _to_sample(name, values[name], spec)
            for index, (name, spec) in enumerate(zip(names, flat, strict=True))
            if index != position
        ]
        return cls(specs, position, tuple(others))

    @staticmethod
    def _find_image(
        model: Any,
        specs: Any,
        names: list[str],
        values: Mapping[str, Any],
        image_input: int | str | None,
    ) -> int:
        """Return the position of the image to optimize among the model's flattened inputs."""
        flat = tensorflow().nest.flatten(specs)
        if isinstance(image_input, str):
            candidates = [find_input_position(model, specs, image_input)]
        elif image_input is not None:
            candidates = [check_integer("image_input", image_input, 0, len(flat) - 1)]
        else:
            candidates = [index for index, name in enumerate(names) if name not in values]
            images = [index for index in candidates if len(flat[index].shape) == 4]
            if len(images) > 1:
                image_names = ", ".join(names[index] for index in images)
                raise OptionError(
                    f"the model takes several images ({image_names}): pass all but one in inputs, "
                    "or choose one by image_input"
                )
            candidates = images or candidates
        if len(candidates) != 1 or len(flat[candidates[0]].shape) != 4:
            shapes = ", ".join(str(tuple(spec.shape)) for spec in flat)
            raise ShapeError(f"the model takes {shapes}, not a batch of images")
        return candidates[0]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Shape of the image input, with its batch axis; None for free axes."""
        return tuple(tensorflow().nest.flatten(self.specs)[self.position].shape)

    def with_image(self, image: Any) -> Any:
        """Return the structure of the model's inputs for a batch of images, (N, ...)."""
        tf = tensorflow()
        tensors = [tf.repeat(other, len(image), 0) for other in self.others]
        tensors.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.specs, tensors)


def _to_sample(name: str, value: Any, spec: Any) -> Any:
    """Convert a value to one sample of an input, a tensor (1, ...) of its dtype."""
    tf = tensorflow()
    try:
        tensor = tf.convert_to_tensor(np.asarray(value))
        tensor = tf.cast(tensor, spec.dtype)
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise OptionError(
            f"inputs: {name!r} must be {spec.dtype.name}: {summarize_error(error)}"
        ) from error
    if spec.shape.rank is not None and len(tensor.shape) == spec.shape.rank - 1:
        tensor = tensor[None]
    if not len(tensor.shape) or len(tensor) != 1:
        raise ShapeError(
            f"inputs: {name!r} must be one sample, {(1, *spec.shape[1:])}, not "
            f"{tuple(tensor.shape)}"
        )
    return tensor
