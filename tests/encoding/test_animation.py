"""Tests of `actgrid.encoding.Animation`."""

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


def encode_animation(
    frames: list[Levels], suffix: str, cmap: str = "viridis", **options: Any
) -> bytes:
    animation = Animation(suffix, palette(cmap), **options)
    for levels in frames:
        animation.append(levels)
    return b"".join(animation.encode_pieces())


def decode_frames(file: bytes) -> list[Levels]:
    with Image.open(io.BytesIO(file)) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def make_noise(*shape: int) -> Levels:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@FORMATS
@given(
    shape=st.tuples(*[st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)]),
    cmap=st.sampled_from(["viridis", "gray", "RdBu_r"]),
    max_level=st.sampled_from([0, 1, 255]),
    data=st.data(),
)
def test_pixels_are_palette_colours(
    suffix: str, shape: tuple[int, int, int], cmap: str, max_level: int, data: Any
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    frames = list(rng.integers(0, max_level + 1, shape, np.uint8))
    decoded = decode_frames(encode_animation(frames, suffix, cmap))
    assert len(decoded) == len(frames)
    for levels, pixels in zip(frames, decoded, strict=True):
        np.testing.assert_array_equal(pixels, palette(cmap)[levels])


@FORMATS
def test_all_levels_in_large_frames(suffix: str) -> None:
    frames = [np.arange(256, dtype=np.uint8).repeat(301).reshape(-1, 301), make_noise(256, 301)]
    decoded = decode_frames(encode_animation(frames, suffix, "gray"))
    np.testing.assert_array_equal(decoded, np.stack(frames)[..., None].repeat(3, -1))


@FORMATS
def test_repeated_frames_are_kept(suffix: str) -> None:
    levels = make_noise(9, 11)
    assert len(decode_frames(encode_animation([levels] * 5, suffix))) == 5


@FORMATS
def test_durations(suffix: str) -> None:
    frames = [make_noise(6, 7)] * 3
    with Image.open(
        io.BytesIO(
            encode_animation(frames, suffix, frame_milliseconds=120, last_frame_milliseconds=1500)
        )
    ) as image:
        durations = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            durations.append(frame.info["duration"])
    assert durations == [120, 120, 1500]
    with Image.open(
        io.BytesIO(encode_animation(frames[:1], suffix, frame_milliseconds=50))
    ) as image:
        image.load()
        assert getattr(image, "n_frames", 1) == 1


def test_gif_rounds_to_hundredths_of_a_second() -> None:
    for frame_milliseconds, expected in ((4, 10), (33, 30), (37, 40)):
        file = encode_animation(
            [make_noise(6, 7)] * 2, ".gif", frame_milliseconds=frame_milliseconds
        )
        with Image.open(io.BytesIO(file)) as image:
            assert image.info["duration"] == expected


# For GIF files, Pillow reports the number of repetitions after the first time.
@pytest.mark.parametrize(
    ("suffix", "loop", "expected"),
    [(".webp", 0, 0), (".webp", 3, 3), (".gif", 0, 0), (".gif", 3, 2), (".gif", 1, None)],
)
def test_loop_count(suffix: str, loop: int, expected: int | None) -> None:
    with Image.open(
        io.BytesIO(encode_animation([make_noise(4, 4)] * 2, suffix, loop=loop))
    ) as image:
        assert image.info.get("loop") == expected


@FORMATS
def test_file_is_valid_after_every_frame(suffix: str) -> None:
    frames = [make_noise(5, 6), make_noise(5, 6)[::-1], make_noise(5, 6)[:, ::-1]]
    animation = Animation(suffix, palette("viridis"))
    for count, levels in enumerate(frames, 1):
        animation.append(levels)
        decoded = decode_frames(b"".join(animation.encode_pieces()))
        np.testing.assert_array_equal(decoded, palette("viridis")[np.stack(frames[:count])])
        assert len(animation) == count


@FORMATS
def test_frames_of_different_size_raise(suffix: str) -> None:
    animation = Animation(suffix, palette("viridis"))
    with pytest.raises(ShapeError, match="has no frames"):
        animation.encode_pieces()
    animation.append(make_noise(4, 5))
    with pytest.raises(ShapeError, match=r"\(4, 5\) of the first frame, not \(5, 4\)"):
        animation.append(make_noise(5, 4))
    assert len(decode_frames(b"".join(animation.encode_pieces()))) == 1


def test_invalid_options_raise() -> None:
    colours = palette("viridis")
    with pytest.raises(OptionError, match=r"\.webp or \.gif, not '\.mp4'"):
        Animation(".mp4", colours)
    for options in (
        {"frame_milliseconds": 0},
        {"last_frame_milliseconds": 0},
        {"loop": -1},
        {"frame_milliseconds": 1.5},
    ):
        with pytest.raises(OptionError, match=f"{next(iter(options))} must be an integer"):
            Animation(".webp", colours, **options)
    with pytest.raises(OptionError, match=r"655,350 for \.gif"):
        Animation(".gif", colours, last_frame_milliseconds=655_351)
    for suffix, side in ((".webp", 16_384), (".gif", 65_536)):
        with pytest.raises(OptionError, match=f"cannot be saved as {suffix[1:].upper()}"):
            Animation(suffix, colours).append(np.zeros((1, side), np.uint8))
