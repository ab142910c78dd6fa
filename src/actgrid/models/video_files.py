"""Read videos from animations (GIF, WebP, APNG) and folders of frames."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from actgrid.errors import FormatError, ShapeError
from actgrid.models.file_checks import check_file, check_size, is_directory, raise_format_errors
from actgrid.models.image_pixels import Pixels, choose_target_size, convert_to_planes, fit_planes
from actgrid.models.image_sources import find_image_suffixes, raise_image_errors

__all__ = ["count_frames", "is_frame_folder", "list_frames", "read_video"]


def read_video(
    path: Path,
    channels: int,
    count: int | None,
    fixed_size: tuple[int | None, int | None],
    fit: str,
) -> tuple[Pixels, int]:
    """Read the frames of a video, and resize them.

    If the video has more frames than `count`, frames at even intervals are chosen, from the first
    to the last.

    Parameters
    ----------
    path
        An animation, or a folder of frames in the order of the numbers in their names.
    channels
        Number of channels: 1, 3 or 4.
    count
        Number of frames. None: all frames.
    fixed_size
        Height and width of the frames. None in place of a side: it keeps the aspect ratio, or, if
        both are None, the size.
    fit
        ``"stretch"``, ``"crop"`` or ``"pad"``, as for images.

    Returns
    -------
    tuple
        The frames, (frames, H, W, channels) float32 from 0 to 255, and the number of frames of the
        video.

    Raises
    ------
    ImageError
        If a frame cannot be read.
    ShapeError
        If the video has fewer frames than `count`, or its frames differ in size.
    """
    if is_directory(path):
        files = list_frames(path)
        total = len(files)
        positions = _choose_positions(path, len(files), count)
        sources = [files[position] for position in positions]
        frames = []
        for source in sources:
            check_file(source)
            planes = convert_to_planes(source, channels)
            frames.append(
                fit_planes(
                    planes, choose_target_size(planes[0].height, planes[0].width, *fixed_size), fit
                )
            )
            check_size(path, frames[0].nbytes * len(sources))
    else:
        frames, total = _read_animation(path, channels, count, fixed_size, fit)
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        listed = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise ShapeError(f"{path} has frames of different sizes ({listed}): set size")
    return np.stack(frames), total


def _read_animation(
    path: Path,
    channels: int,
    count: int | None,
    fixed_size: tuple[int | None, int | None],
    fit: str,
) -> tuple[list[Pixels], int]:
    """Read the chosen frames of an animation, see `read_video`."""
    check_file(path)
    frames: list[Pixels] = []
    with raise_image_errors(path), Image.open(path) as image:
        start = _get_first_frame(image)
        total = getattr(image, "n_frames", 1) - start
        positions = _choose_positions(path, total, count)
        size = choose_target_size(image.height, image.width, *fixed_size)
        height, width = size or (image.height, image.width)
        check_size(path, len(positions) * height * width * channels * 4)
        for position in positions:
            image.seek(start + position)
            frames.append(fit_planes(convert_to_planes(image, channels), size, fit))
    return frames, total


def _get_first_frame(image: Image.Image) -> int:
    """Return the position of the first frame of an animation.

    An APNG file can begin with a picture for programs that show no animations.
    """
    return int(bool(image.info.get("default_image")))


def _choose_positions(path: Path, total: int, count: int | None) -> list[int]:
    """Return the positions of `count` of the frames of a video, at even intervals."""
    if count is None or count == total:
        return list(range(total))
    if total < count:
        raise ShapeError(f"{path} has {total} frames; the model takes {count}")
    return [int(position) for position in np.rint(np.linspace(0, total - 1, count))]


def count_frames(path: Path) -> int:
    """Return the number of frames of an image file; 0 if it cannot be read as an image."""
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1)) - _get_first_frame(image)
    except Exception:  # Pillow may raise any exception for damaged files
        return 0


def is_frame_folder(path: Path) -> bool:
    """Return whether a folder holds frames: image files with a single picture each.

    Only the first file is opened, because a folder of frames can be large.
    """
    try:
        frames = list_frames(path)
    except FormatError:
        return False
    return count_frames(frames[0]) == 1


def list_frames(folder: Path) -> list[Path]:
    """List the image files of a folder in the order of the numbers in their names.

    Subfolders and hidden files are skipped.

    Raises
    ------
    FormatError
        If the folder has no image files.
    """
    suffixes = find_image_suffixes()
    with raise_format_errors(folder, "a folder of frames"):
        files = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
        ]
    if not files:
        raise FormatError(f"{folder} contains no image files: expected the frames of a video")
    return sorted(files, key=_split_numbers)


def _split_numbers(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isdigit() else (-1, part) for part in parts]
