"""Create an attribution of the class that draws its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actgrid.rendering.attribution import Attribution
from actgrid.rendering.heatmap import Heatmap
from actgrid.rendering.sequence_attribution import SequenceAttribution
from actgrid.rendering.table_attribution import TableAttribution
from actgrid.rendering.text_attribution import TextAttribution
from actgrid.rendering.volume_attribution import VolumeAttribution

__all__ = ["make_attribution"]

_CLASSES: dict[tuple[str, ...], type[Attribution]] = {
    ("depth", "height", "width"): VolumeAttribution,
    ("feature",): TableAttribution,
    ("time",): SequenceAttribution,
    ("time", "channel"): SequenceAttribution,
    ("token",): TextAttribution,
}


def make_attribution(values: object, axes: Sequence[str], **arguments: Any) -> Attribution:
    """Create an attribution of the class that draws the given axes.

    Parameters
    ----------
    values : array_like
        (N, ...) real numbers: a map for each sample.
    axes : sequence of str
        Name of each axis of a map: ``("height", "width")`` for a `Heatmap`, ``("time",)`` or
        ``("time", "channel")`` for sequences, ``("depth", "height", "width")`` for volumes,
        ``("feature",)`` for tables, ``("token",)`` for texts. Maps with other axes are drawn
        without their input.
    **arguments : object
        Further arguments of `Attribution` or `Heatmap`.

    Returns
    -------
    Attribution
        The attribution.

    Raises
    ------
    ShapeError, OptionError
        If an array has the wrong shape, or an option is invalid. Both are ValueErrors.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> make_attribution(np.ones((2, 30)), ("time",))
    <SequenceAttribution 2 maps of 30 time>
    """
    names = tuple(axes)
    if names == ("height", "width"):
        return Heatmap(values, **arguments)
    return _CLASSES.get(names, Attribution)(values, names, **arguments)
