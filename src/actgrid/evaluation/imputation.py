"""Noisy linear imputation: replace hidden values by means of their neighbours."""

from __future__ import annotations

from typing import Any

from actgrid.models.frameworks import tensorflow

__all__ = ["impute"]

# Conjugate gradients end at this norm of the residual, relative to the initial image's norm.
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 500


def impute(values: Any, keep: Any) -> Any:
    """Replace hidden values so that each is the weighted mean of its neighbours.

    The neighbours along an axis have twice the weight of diagonal neighbours. The linear equations
    are solved by conjugate gradients, from an initial guess at coarser resolutions.

    Parameters
    ----------
    values
        (N, *sides, C) float32.
    keep
        (N, *sides, 1) float32: 1 at known and 0 at hidden positions.

    Returns
    -------
    tensor
        (N, *sides, C): known values are unchanged. 0 if no position is known.

    References
    ----------
    Rong and others, 2022, A Consistent and Efficient Evaluation Strategy for Attribution Methods.
    """
    tf = tensorflow()
    axes = list(range(1, values.shape.rank - 1))
    hidden = 1.0 - keep
    total_weight = _sum_neighbours(tf.ones_like(keep), axes)

    def apply_equations(guess: Any) -> Any:
        return hidden * (total_weight * guess - _sum_neighbours(hidden * guess, axes))

    def add_dots(first: Any, second: Any) -> Any:
        return tf.reduce_sum(first * second, axes, keepdims=True)

    right_side = hidden * _sum_neighbours(keep * values, axes)
    guess = hidden * _fill_from_coarse(keep * values, keep, axes)
    residual = right_side - apply_equations(guess)
    limit = _TOLERANCE**2 * add_dots(right_side, right_side) + 1e-12

    def is_unfinished(step: Any, guess: Any, residual: Any, direction: Any, square: Any) -> Any:
        return (step < _MAX_ITERATIONS) & tf.reduce_any(square > limit)

    def iterate(step: Any, guess: Any, residual: Any, direction: Any, square: Any) -> Any:
        product = apply_equations(direction)
        length = tf.math.divide_no_nan(square, add_dots(direction, product))
        guess += length * direction
        residual -= length * product
        new_square = add_dots(residual, residual)
        direction = residual + tf.math.divide_no_nan(new_square, square) * direction
        return step + 1, guess, residual, direction, new_square

    state = tf.constant(0), guess, residual, residual, add_dots(residual, residual)
    solution = tf.while_loop(is_unfinished, iterate, state)[1]
    return keep * values + hidden * solution


def _sum_neighbours(values: Any, axes: list[int]) -> Any:
    """Return the weighted sum of the neighbours of each position; beyond the edges are none."""
    tf = tensorflow()
    total = values
    for axis in axes:
        paddings = [[1, 1] if other == axis else [0, 0] for other in range(values.shape.rank)]
        padded = tf.pad(total, paddings)
        count = tf.shape(values)[axis]
        before, after = (tf.gather(padded, tf.range(count) + start, axis=axis) for start in (0, 2))
        total = 2.0 * total + before + after
    return total - 2.0 ** len(axes) * values


def _fill_from_coarse(known: Any, keep: Any, axes: list[int], depth: int = 10) -> Any:
    """Return values in which hidden positions have the mean of a coarser resolution.

    Parameters
    ----------
    known
        (N, *sides, C): the values, 0 at hidden positions.
    keep
        (N, *sides, 1): weight of each position.
    depth
        Maximum number of coarser resolutions; each halves the sides.
    """
    tf = tensorflow()
    mean = tf.math.divide_no_nan(known, keep)
    sides = tf.shape(known)[1:-1]
    if depth == 0:
        return mean
    coarse_known, coarse_keep = (_halve(tensor, axes) for tensor in (known, keep))
    coarse = _fill_from_coarse(coarse_known, coarse_keep, axes, depth - 1)
    for index, axis in enumerate(axes):
        coarse = tf.gather(coarse, tf.range(sides[index]) // 2, axis=axis)
    return tf.where(keep > 0, mean, coarse)


def _halve(values: Any, axes: list[int]) -> Any:
    """Return the sums of pairs of neighbours along each axis."""
    tf = tensorflow()
    for axis in axes:
        count = tf.shape(values)[axis]
        first = tf.gather(values, tf.range(0, count, 2), axis=axis)
        paddings = [
            [0, count % 2] if other == axis else [0, 0] for other in range(values.shape.rank)
        ]
        second = tf.gather(tf.pad(values, paddings), tf.range(1, count + 1, 2), axis=axis)
        values = first + second
    return values
