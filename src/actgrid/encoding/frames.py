"""Encode RGB frames as an animation with Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.errors import OptionError, ShapeError

__all__ = ["encode_frames"]

# Pillow's options by file suffix. Lossless frames keep the colours of a colormap.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".gif": {"format": "GIF", "disposal": 1},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "lossless": True, "method": 2, "quality": 0},
}


def encode_frames(
    path: str | Path,
    frames: npt.NDArray[np.uint8],
    *,
    frame_milliseconds: int = 200,
    loop: int = 0,
) -> bytes:
    """Encode RGB frames as an animated WebP, GIF or PNG file, without writing it.

    Parameters
    ----------
    path : str or pathlib.Path
        File name, of which only the suffix is used: .webp, .gif or .png.
    frames : numpy.ndarray
        (K, height, width, 3) uint8.
    frame_milliseconds : int, default 200
        Duration of each frame. GIF rounds it to hundredths of a second, and has 256 colours for
        each frame.
    loop : int, default 0
        How often the animation is played; 0 for endless.

    Returns
    -------
    bytes
        The file. Pillow joins equal neighbouring frames to a longer one.

    Raises
    ------
    OptionError
        If the suffix is unknown. Also a ValueError.
    ShapeError
        If the frames have another shape. Also a ValueError.

    Examples
    --------
    >>> from actgrid.encoding import encode_frames
    >>> frames = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 128, 255)])
    >>> encode_frames("frames.gif", frames)[:6]
    b'GIF89a'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _OPTIONS:
        raise OptionError(
            f"an animation must be a file with the suffix {', '.join(_OPTIONS)}, not {suffix!r}"
        )
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ShapeError(f"frames must be (K, height, width, 3), not {frames.shape}")
    first, *others = map(Image.fromarray, frames)
    options = dict(_OPTIONS[suffix])
    # The loop of GIF files counts the repetitions after the first time; without it there is none.
    if suffix != ".gif":
        options["loop"] = loop
    elif loop != 1:
        options["loop"] = max(loop - 1, 0)
    file = io.BytesIO()
    first.save(file, save_all=True, append_images=others, duration=frame_milliseconds, **options)
    return file.getvalue()
