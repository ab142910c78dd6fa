"""Attributions of volumes and videos, drawn over slices, cuts and frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode_frames, write_file
from actgrid.errors import OptionError
from actgrid.option_checks import check_integer
from actgrid.option_groups import takes_options
from actgrid.options import FrameOptions, HeatmapOptions
from actgrid.rendering.attribution import Attribution, resize_maps
from actgrid.rendering.backends import load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.input_pictures import to_pictures
from actgrid.rendering.sheet import Sheet, lay_out_sheet

__all__ = ["VolumeAttribution"]

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

# Shortest side of the pictures of slices in pixels: smaller slices are enlarged by an integer.
_MIN_SIDE = 96
_AXES = ("depth", "height", "width")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class VolumeAttribution(Attribution):  # numpydoc ignore=PR01
    """Attributions of volumes or videos, (N, D, H, W, C), drawn over slices of the input.

    The parameters and attributes are those of `Attribution`, with the axes ``("depth", "height",
    "width")``. The overlay of a volume has three orthogonal cuts through the voxel with the largest
    absolute value. `slices` draws all slices, and `save_animation` shows one after another, such as
    the frames of a video.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> volume = np.random.rand(1, 8, 16, 16, 1)
    >>> attribution = make_attribution(
    ...     volume[..., 0] ** 4, ("depth", "height", "width"), inputs=volume
    ... )
    >>> len(attribution.slices())
    8
    >>> attribution.save_animation("volume.gif")
    """

    @takes_options(HeatmapOptions)
    def slices(self, axis: str = "depth", **options: Unpack[HeatmapOptions]) -> Sheet:
        """Draw every slice along an axis, with its map in colour over it.

        Parameters
        ----------
        axis : {"depth", "height", "width"}, default "depth"
            Axis along which the volumes are cut.
        **options
            See `actgrid.options.HeatmapOptions`.

        Returns
        -------
        Sheet
            The slices of all volumes, one volume after another, with their numbers as captions.

        Raises
        ------
        OptionError
            If an option is invalid. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> volumes = make_attribution(np.random.rand(1, 4, 8, 8), ("depth", "height", "width"))
        >>> len(volumes.slices("height"))
        8
        """
        position = _AXES.index(_check_axis(axis))
        pictures: list[Pixels] = []
        for volume in self._overlay_volumes(*self._get_drawing(options)):
            pictures += list(_enlarge(np.moveaxis(volume, position, 0)))
        count = len(pictures) // len(self)
        captions = [f"{axis} {index}" for _ in self for index in range(count)]
        return lay_out_sheet(pictures, columns=options["columns"], captions=captions)

    @takes_options(HeatmapOptions)
    def cuts(
        self, position: Sequence[int] | None = None, **options: Unpack[HeatmapOptions]
    ) -> Sheet:
        """Draw three orthogonal cuts through a voxel of each volume.

        Parameters
        ----------
        position : sequence of int, optional
            Index of the voxel of the input along depth, height and width. None: the voxel with the
            largest absolute value of each map.
        **options
            See `actgrid.options.HeatmapOptions`.

        Returns
        -------
        Sheet
            A picture of each volume: the cuts at the voxel's depth, height and width.

        Raises
        ------
        OptionError
            If the voxel is outside the volume, or an option is invalid. Also a ValueError.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> volumes = make_attribution(np.random.rand(1, 4, 8, 8), ("depth", "height", "width"))
        >>> volumes.cuts((0, 3, 3)).save("cuts.png")
        """
        pictures = self._draw_cuts(position, *self._get_drawing(options))
        return lay_out_sheet(pictures, columns=options["columns"])

    @takes_options(FrameOptions)
    def save_animation(self, path: str | Path, **options: Unpack[FrameOptions]) -> None:
        """Write the slices along the depth as an animation, such as the frames of a video.

        Parameters
        ----------
        path : str or pathlib.Path
            File to write: .webp, .gif or .png (animated PNG). Several volumes are side by side.
        **options
            See `actgrid.options.FrameOptions`.

        Raises
        ------
        OptionError
            If the suffix is unknown, or an option is invalid. Also a ValueError.
        OutputError
            If the file cannot be written. Also an OSError.

        Examples
        --------
        >>> from actgrid.rendering import make_attribution
        >>> volumes = make_attribution(np.random.rand(1, 4, 8, 8), ("depth", "height", "width"))
        >>> volumes.save_animation("volume.webp", frame_milliseconds=80)
        """
        volumes = self._overlay_volumes(*self._get_drawing(options))
        frames = np.concatenate([_enlarge(volume) for volume in volumes], 2)
        data = encode_frames(
            path,
            frames,
            frame_milliseconds=options["frame_milliseconds"],
            loop=options["loop"],
        )
        write_file(path, data)

    def _draw_input_pictures(self) -> Pixels:
        sides = self._require_inputs().shape[1:4]
        return self._draw_cuts([side // 2 for side in sides], 0, self.cmap, 99, 1)

    def _draw_pictures(self, alpha: float, cmap: str, clip: float, threads: int) -> Pixels:
        return self._draw_cuts(None, alpha, cmap, clip, threads)

    def _draw_cuts(
        self, position: Sequence[int] | None, alpha: float, cmap: str, clip: float, threads: int
    ) -> Pixels:
        pictures = []
        volumes = self._overlay_volumes(alpha, cmap, clip, threads)
        for values, volume in zip(self.values, volumes, strict=True):
            depth, height, width = _find_voxel(values, volume.shape[:3], position)
            cuts = [volume[depth], volume[:, height], volume[:, :, width]]
            pictures.append(_join_cuts([_enlarge(cut[None])[0] for cut in cuts]))
        return np.stack(pictures)

    def _overlay_volumes(
        self, alpha: float, cmap: str, clip: float, threads: int
    ) -> Iterator[Pixels]:
        """Return an iterator over the volumes with their maps in colour, (D, H, W, 3)."""
        backend, colours = load_backend(), palette(cmap)
        for row, mapping in enumerate(self._iterate_mappings(clip)):
            if self.inputs is None:
                pictures = np.zeros((*self.values.shape[1:], 3), np.uint8)
                opacity = 1.0
            else:
                pictures, opacity = _draw_volume(self.inputs[row]), alpha
            maps = _resample_depth(self.values[row], len(pictures))
            overlaid = np.empty_like(pictures)
            for values, picture, overlay in zip(maps, pictures, overlaid, strict=True):
                backend.overlay(values, mapping, colours, picture, opacity, overlay, threads)
            yield overlaid


def _check_axis(axis: object) -> str:
    if axis not in _AXES:
        raise OptionError(f"axis must be one of {', '.join(_AXES)}, not {axis!r}")
    return str(axis)


def _draw_volume(volume: Array) -> Pixels:
    """Convert a volume (D, H, W, C) to pictures of its slices, (D, H, W, 3)."""
    depth, height, width, channels = volume.shape
    if channels not in (1, 3, 4):
        volume = volume.mean(-1, keepdims=True)
    # All slices have one range of values.
    pictures = to_pictures(volume.reshape(1, depth * height, width, -1))
    assert pictures is not None
    return pictures.reshape(depth, height, width, 3)


def _resample_depth(maps: Array, depth: int) -> Array:
    """Resize maps (d, h, w) to (depth, h, w) linearly."""
    if len(maps) == depth:
        return maps
    lines = maps.reshape(1, len(maps), -1)
    return resize_maps(lines, depth, lines.shape[2], 1).reshape(depth, *maps.shape[1:])


def _find_voxel(
    values: Array, sides: tuple[int, ...], position: Sequence[int] | None
) -> tuple[int, ...]:
    """Return the voxel of a volume through which it is cut."""
    if position is not None:
        if len(position) != len(sides):
            raise OptionError(f"position must have {len(sides)} indices, not {position!r}")
        return tuple(
            check_integer("position", index, 0, side - 1)
            for index, side in zip(position, sides, strict=True)
        )
    largest = np.unravel_index(np.argmax(np.nan_to_num(np.abs(values))), values.shape)
    # The centre of the map's voxel in the volume.
    return tuple(
        min(side - 1, int((index + 0.5) * side / length))
        for index, side, length in zip(largest, sides, values.shape, strict=True)
    )


def _enlarge(pictures: Pixels) -> Pixels:
    """Enlarge pictures (K, height, width, 3) by an integer, if they are very small."""
    zoom = -(-_MIN_SIDE // max(pictures.shape[1:3]))
    return pictures.repeat(zoom, 1).repeat(zoom, 2)


def _join_cuts(cuts: Sequence[Pixels]) -> Pixels:
    """Join pictures of different heights side by side, on white ground."""
    height = max(len(cut) for cut in cuts)
    padded = [
        np.pad(cut, ((0, height - len(cut)), (0, 4), (0, 0)), constant_values=255) for cut in cuts
    ]
    return np.concatenate(padded, 1)[:, :-4]
