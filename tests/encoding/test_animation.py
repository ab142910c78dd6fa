from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from actgrid.encoding import Animation
from actgrid.errors import OptionError, ShapeError
from actgrid.rendering import palette

Levels = npt.NDArray[np.uint8]
FORMATS = pytest.mark.parametrize("suffix", [".webp", ".gif"])


def animated(frames: list[Levels], suffix: str, cmap: str = "viridis", **options: Any) -> bytes:
    movie = Animation(suffix, palette(cmap), **options)
    for levels in frames:
        movie.append(levels)
    return b"".join(movie.pieces())


def decoded(file: bytes) -> list[Levels]:
    with Image.open(io.BytesIO(file)) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def noise(*shape: int) -> Levels:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@FORMATS
@given(
    shape=st.tuples(*[st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)]),
    cmap=st.sampled_from(["viridis", "gray", "RdBu_r"]),
    most=st.sampled_from([0, 1, 255]),
    data=st.data(),
)
def test_every_pixel_is_the_palettes(
    suffix: str, shape: tuple[int, int, int], cmap: str, most: int, data: Any
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    frames = list(rng.integers(0, most + 1, shape, np.uint8))
    found = decoded(animated(frames, suffix, cmap))
    assert len(found) == len(frames)
    for levels, pixels in zip(frames, found, strict=True):
        np.testing.assert_array_equal(pixels, palette(cmap)[levels])


@FORMATS
def test_all_levels_in_a_picture_of_many_blocks(suffix: str) -> None:
    frames = [np.arange(256, dtype=np.uint8).repeat(301).reshape(-1, 301), noise(256, 301)]
    found = decoded(animated(frames, suffix, "gray"))
    np.testing.assert_array_equal(found, np.stack(frames)[..., None].repeat(3, -1))


@FORMATS
def test_a_frame_like_the_one_before_stays_a_frame(suffix: str) -> None:
    levels = noise(9, 11)
    assert len(decoded(animated([levels] * 5, suffix))) == 5


@FORMATS
def test_durations(suffix: str) -> None:
    frames = [noise(6, 7)] * 3
    with Image.open(io.BytesIO(animated(frames, suffix, milliseconds=120, hold=1500))) as image:
        times = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            times.append(frame.info["duration"])
    assert times == [120, 120, 1500]
    with Image.open(io.BytesIO(animated(frames[:1], suffix, milliseconds=50))) as image:
        image.load()
        assert getattr(image, "n_frames", 1) == 1


def test_gif_counts_in_hundredths_of_a_second() -> None:
    for milliseconds, found in ((4, 10), (33, 30), (37, 40)):
        file = animated([noise(6, 7)] * 2, ".gif", milliseconds=milliseconds)
        with Image.open(io.BytesIO(file)) as image:
            assert image.info["duration"] == found


# What Pillow calls a loop is, in a GIF, how often the movie is played after the first time.
@pytest.mark.parametrize(
    ("suffix", "loop", "found"),
    [(".webp", 0, 0), (".webp", 3, 3), (".gif", 0, 0), (".gif", 3, 2), (".gif", 1, None)],
)
def test_how_often_it_is_played(suffix: str, loop: int, found: int | None) -> None:
    with Image.open(io.BytesIO(animated([noise(4, 4)] * 2, suffix, loop=loop))) as image:
        assert image.info.get("loop") == found


@FORMATS
def test_the_file_is_whole_after_every_frame(suffix: str) -> None:
    frames = [noise(5, 6), noise(5, 6)[::-1], noise(5, 6)[:, ::-1]]
    movie = Animation(suffix, palette("viridis"))
    for count, levels in enumerate(frames, 1):
        movie.append(levels)
        found = decoded(b"".join(movie.pieces()))
        np.testing.assert_array_equal(found, palette("viridis")[np.stack(frames[:count])])
        assert len(movie) == count


@FORMATS
def test_frames_have_one_size(suffix: str) -> None:
    movie = Animation(suffix, palette("viridis"))
    with pytest.raises(ShapeError, match="a frame at least"):
        movie.pieces()
    movie.append(noise(4, 5))
    with pytest.raises(ShapeError, match=r"\(4, 5\), not of \(5, 4\)"):
        movie.append(noise(5, 4))
    assert len(decoded(b"".join(movie.pieces()))) == 1


def test_what_cannot_be() -> None:
    colours = palette("viridis")
    with pytest.raises(OptionError, match=r"\.webp or \.gif, not '\.mp4'"):
        Animation(".mp4", colours)
    for options in ({"milliseconds": 0}, {"hold": 0}, {"loop": -1}, {"milliseconds": 1.5}):
        with pytest.raises(OptionError, match=f"{next(iter(options))} must be an integer"):
            Animation(".webp", colours, **options)
    with pytest.raises(OptionError, match=r"655,350 for \.gif"):
        Animation(".gif", colours, hold=655_351)
    for suffix, side in ((".webp", 16_384), (".gif", 65_536)):
        with pytest.raises(OptionError, match=f"cannot be saved as {suffix[1:].upper()}"):
            Animation(suffix, colours).append(np.zeros((1, side), np.uint8))
