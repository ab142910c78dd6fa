"""Targets that compare an output, such as an autoencoder's, with an input or an array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError, TargetError
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import flatten_with_paths
from actgrid.targets.class_scores import get_single_output
from actgrid.targets.frozen_arrays import FrozenArray, freeze_array

__all__ = ["reconstruction"]


def reconstruction(
    original: npt.ArrayLike | None = None,
    *,
    input_key: str | int | None = None,
    negate: bool = True,
) -> Callable[..., Any]:
    """Return a target: minus the mean squared error of a reconstruction.

    For autoencoders, denoising and super-resolution. The score is ``-mean((output - original) **
    2)`` for each sample. Positive attributions mark parts of the input that improve the
    reconstruction.

    Parameters
    ----------
    original : array_like, optional
        The array to compare the output with, in the shape and units of the output without its batch
        axis. None: the model's input in the same run of the model. A method that modifies the
        input, such as occlusion or integrated gradients, then compares the reconstruction of each
        modified input with this modified input, and gradients include the change of the input. With
        an array, the reconstruction of each modified input is compared with the array.
    input_key : str or int, optional
        The input to compare the output with, for a model with several inputs: its key in a dict of
        inputs, or its position in a list. None: the only input with the shape of the output.
    negate : bool, optional
        Whether the score is minus the error. False: the error, for anomaly detection. Positive
        attributions then mark parts of the input that increase the error.

    Returns
    -------
    callable
        Target for `actgrid.explain`: a function from the output, (N, ...), and the input (if
        `original` is None) to scores (N,). Equal arguments return equal targets.

    Raises
    ------
    OptionError
        If `original` is not finite, or given together with `input_key`. Also a ValueError.
    DtypeError
        If `original` is not an array of real numbers or booleans. Also a TypeError.

    Notes
    -----
    `actgrid.explain` raises a ShapeError if the shapes differ, and a TargetError if the model has
    no such input, or several inputs have the shape of the output.

    The input is compared as the model receives it. If the model rescales its input, such as from 0
    to 255 to 0 to 1, but not its output, write a target function that rescales the input too. For
    originals of several samples, pass a list: ``target=[reconstruction(image) for image in
    images]``. The model is compiled for each of these targets.

    A target function that has two required arguments receives the output and the input. The
    following function is equivalent to ``reconstruction()`` for images::

        def score(output, image):
            return -tf.reduce_mean((output - image) ** 2, (1, 2, 3))

    Examples
    --------
    >>> import keras
    >>> autoencoder = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(2, 3, strides=2, padding="same", activation="relu"),
    ...     keras.layers.Conv2DTranspose(1, 3, strides=2, padding="same"),
    ... ])
    >>> image = np.random.default_rng(0).random((1, 8, 8, 1))
    >>> target = actgrid.targets.reconstruction()
    >>> heatmap = actgrid.explain(autoencoder, image, "occlusion", target, patch=2)
    >>> error = ((autoencoder.predict(image, verbose=0) - image) ** 2).mean()
    >>> bool(np.allclose(heatmap.score, -error))
    True
    """
    if original is None:
        if input_key is not None and not isinstance(input_key, (str, int)):
            raise OptionError(
                f"input_key must be the key or position of an input, not {input_key!r}"
            )
        return _InputReconstruction(input_key, bool(negate))
    if input_key is not None:
        raise OptionError(
            f"input_key={input_key!r} and original exclude each other: the output is compared with "
            "an input or with the array"
        )
    return _ArrayReconstruction(freeze_array("original", original), bool(negate))


@dataclass(frozen=True)
class _InputReconstruction:
    """Target function of `reconstruction` that compares the output with an input.

    Attributes
    ----------
    input_key
        Key or position of the input; None: the only input with the shape of the output.
    negate
        Whether the score is minus the error.
    """

    input_key: str | int | None
    negate: bool

    @property
    def __name__(self) -> str:
        """Label of the map."""
        return "reconstruction" if self.negate else "reconstruction error"

    def __call__(self, outputs: Any, inputs: Any) -> Any:
        """Return the scores, (N,), of an output and the model's inputs."""
        output = get_single_output(outputs, "reconstruction")
        return _compute_score(output, self._choose_input(output, inputs), self.negate)

    def _choose_input(self, output: Any, inputs: Any) -> Any:
        """Return the input to compare the output with."""
        leaves = [(path, leaf) for path, leaf in flatten_with_paths(inputs) if leaf is not None]
        shapes = ", ".join(
            f"{'/'.join(map(str, path)) or 'input'} {tuple(leaf.shape)}" for path, leaf in leaves
        )
        if self.input_key is not None:
            chosen = [leaf for path, leaf in leaves if path == (self.input_key,)]
            if not chosen:
                raise TargetError(
                    f"input_key={self.input_key!r} is not an input of the model; inputs: {shapes}"
                )
        elif len(leaves) == 1:
            chosen = [leaves[0][1]]
        else:
            chosen = [leaf for _, leaf in leaves if leaf.shape[1:] == output.shape[1:]]
            if len(chosen) != 1:
                raise TargetError(
                    f"reconstruction needs one input in the shape of the output, "
                    f"{tuple(output.shape)}: got {len(chosen)} among {shapes}; choose the input "
                    "with input_key"
                )
        if not output.shape[1:].is_compatible_with(chosen[0].shape[1:]):
            raise ShapeError(
                f"the output must have the shape of the input: got the output "
                f"{tuple(output.shape)} and the input {tuple(chosen[0].shape)}; pass the array to "
                "compare the output with, as original"
            )
        return chosen[0]


@dataclass(frozen=True)
class _ArrayReconstruction:
    """Target function of `reconstruction` that compares the output with an array.

    Attributes
    ----------
    original
        The array, in the shape of the output without its batch axis, or with a batch axis of 1.
    negate
        Whether the score is minus the error.
    """

    original: FrozenArray
    negate: bool

    @property
    def __name__(self) -> str:
        """Label of the map."""
        return "reconstruction" if self.negate else "reconstruction error"

    def __call__(self, outputs: Any) -> Any:
        """Return the scores, (N,), of an output."""
        output = get_single_output(outputs, "reconstruction")
        original = self.original.to_numpy()
        if original.ndim == output.shape.rank and len(original) == 1:
            original = original[0]
        if not output.shape[1:].is_compatible_with(original.shape):
            raise ShapeError(
                f"original must have the shape of one sample of the output, "
                f"{tuple(output.shape[1:])}: got {self.original.shape}"
            )
        return _compute_score(output, original[None], self.negate)


def _compute_score(output: Any, original: Any, negate: bool) -> Any:
    """Return the mean squared error of each sample, (N,), or minus this error."""
    tf = tensorflow()
    difference = tf.cast(output, tf.float32) - tf.cast(original, tf.float32)
    error = tf.reduce_mean(difference**2, list(range(1, output.shape.rank)))
    return -error if negate else error
