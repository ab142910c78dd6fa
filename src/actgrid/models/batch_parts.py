"""Split the input of a network: its arrays, and parts of the size that the network takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["list_arrays", "run_in_parts"]

Array = npt.NDArray[Any]


def list_arrays(x: Any) -> Sequence[Any]:
    """Return the arrays of an input, or of several inputs."""
    return x if isinstance(x, (list, tuple)) else [x]


def run_in_parts(
    compute: Callable[[list[Array]], Sequence[Array]],
    arrays: Sequence[Array],
    takes_batch: Sequence[bool],
    part_size: int,
) -> list[Array]:
    """Run a network with a fixed batch size on a batch of any size.

    Parameters
    ----------
    compute
        Function of the inputs of a part that returns the outputs.
    arrays
        Inputs for the whole batch.
    takes_batch
        For each input, whether the network takes it with a batch axis. Without one, the network
        takes a single sample.
    part_size
        Number of samples that the network takes.

    Returns
    -------
    list of numpy.ndarray
        Outputs for the whole batch. An output without a batch axis gets one.

    Raises
    ------
    ValueError
        If the shape of an output depends on the sample.
    """
    count = len(arrays[0])
    if count == 0:  # the outputs for some sample have the other sides
        sample = [np.zeros((1, *array.shape[1:]), array.dtype) for array in arrays]
        return [result[:0] for result in run_in_parts(compute, sample, takes_batch, part_size)]
    parts: list[list[Array]] = []
    for start in range(0, count, part_size):
        # The last part is filled up with the last sample.
        rows = np.minimum(np.arange(start, start + part_size), count - 1)
        inputs = [
            array[rows] if has_axis else array[start]
            for array, has_axis in zip(arrays, takes_batch, strict=True)
        ]
        samples = min(part_size, count - start)
        parts.append(
            [
                result[:samples]
                if result.shape[:1] == (part_size,)
                else np.stack([result] * samples)
                for result in compute(inputs)
            ]
        )
    return [_join_parts(results) for results in zip(*parts, strict=True)]


def _join_parts(parts: Sequence[Array]) -> Array:
    shapes = list(dict.fromkeys(part.shape[1:] for part in parts))
    if len(shapes) > 1:
        raise ValueError(
            f"a layer has outputs of the shapes {shapes[0]} and {shapes[1]} for two samples, which "
            "cannot form a batch: expected one sample at a time, or other layers"
        )
    return np.concatenate(parts)
