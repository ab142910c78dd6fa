"""Pictures of attributions of sequences, volumes, tables and texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import actgrid
from actgrid.encoding import encode_frames
from actgrid.errors import OptionError, ShapeError
from actgrid.rendering import (
    SequenceAttribution,
    TextAttribution,
    VolumeAttribution,
    make_attribution,
)
from actgrid.rendering.colormaps import palette

RNG = np.random.default_rng(0)
VOLUME = ("depth", "height", "width")


def count_colour(picture: Any, colour: Any) -> int:
    return int((picture == np.asarray(colour, np.uint8)).all(-1).sum())


@pytest.mark.parametrize("steps", [50, 900, 2500, 12_000])
def test_bands_show_the_attribution_of_every_step(steps: int) -> None:
    values = np.zeros((1, steps), np.float32)
    values[0, steps // 3] = 1
    signal = np.sin(np.arange(steps) / 9)[None, :, None]
    attribution = make_attribution(values, ("time",), inputs=signal)
    assert isinstance(attribution, SequenceAttribution)
    picture = attribution.overlay(clip=100).pictures[0]
    assert picture.shape[1] <= 56 + 960
    # The only step with an attribution is a column of 18 pixels in the last colour.
    width = max(1, 960 // steps)
    assert count_colour(picture, palette("viridis")[255]) == 18 * width
    alone = attribution.draw_inputs().pictures[0]
    assert count_colour(alone, palette("viridis")[255]) == 0
    assert alone.shape[1] == picture.shape[1]


def test_channels_have_their_own_bands() -> None:
    values = np.zeros((1, 100, 3), np.float32)
    values[0, :, 1] = 1
    attribution = make_attribution(values, ("time", "channel"), inputs=RNG.normal(size=(1, 100, 3)))
    picture = attribution.overlay(clip=100).pictures[0]
    assert count_colour(picture, palette("viridis")[255]) == 8 * 100 * (960 // 100)
    many = make_attribution(values[..., 0], ("time",), inputs=RNG.normal(size=(1, 100, 40)))
    assert many.overlay().pictures.shape[0] == 1


def test_overlay_of_volumes_cuts_at_the_largest_value() -> None:
    values = np.zeros((1, 4, 5, 6), np.float32)
    values[0, 2, 3, 1] = 7
    inputs = RNG.random((1, 4, 5, 6, 1))
    volume = make_attribution(values, VOLUME, inputs=inputs)
    assert isinstance(volume, VolumeAttribution)
    default = volume.overlay().pictures
    np.testing.assert_array_equal(default, volume.cuts((2, 3, 1)).pictures)
    assert (default != volume.cuts((0, 0, 0)).pictures).any()
    with pytest.raises(OptionError, match="position must be at most 4, not 5"):
        volume.cuts((0, 5, 0))
    with pytest.raises(OptionError, match="must have 3 indices"):
        volume.cuts((0, 5))


@pytest.mark.parametrize(("axis", "count"), [("depth", 4), ("height", 5), ("width", 6)])
def test_slices_along_each_axis(axis: str, count: int) -> None:
    values = RNG.random((2, 4, 5, 6)).astype(np.float32)
    sheet = VolumeAttribution(values, VOLUME, inputs=RNG.random((2, 4, 5, 6, 3))).slices(axis)
    assert len(sheet) == 2 * count
    assert sheet.captions[1] == f"{axis} 1"
    with pytest.raises(OptionError, match="axis must be one of depth, height, width"):
        VolumeAttribution(values, VOLUME).slices("time")


def test_slices_show_the_map_over_the_input() -> None:
    values = RNG.random((1, 3, 4, 4)).astype(np.float32)
    inputs = RNG.integers(0, 256, (1, 3, 4, 4, 3)).astype(np.uint8)
    volume = VolumeAttribution(values, VOLUME, inputs=inputs)
    bare = volume.slices(alpha=0.0).pictures
    zoom = bare.shape[1] // 4
    np.testing.assert_array_equal(bare[:, ::zoom, ::zoom], inputs[0])
    coloured = volume.slices(alpha=1.0, clip=100).pictures[:, ::zoom, ::zoom]
    levels = (values[0] - values.min()) / (values.max() - values.min()) * 255
    expected = palette("viridis")[levels.astype(np.uint8)].astype(int)
    assert np.abs(coloured.astype(int) - expected).max() <= 12


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_have_a_frame_for_each_slice(tmp_path: Path, suffix: str) -> None:
    values = RNG.random((1, 5, 24, 32)).astype(np.float32)
    volume = make_attribution(values, VOLUME, inputs=RNG.random((1, 5, 24, 32, 3)))
    assert isinstance(volume, VolumeAttribution)
    path = tmp_path / f"video{suffix}"
    volume.save_animation(path, frame_milliseconds=120)
    slices = volume.slices().pictures
    with Image.open(path) as image:
        frames = [
            (np.asarray(frame.convert("RGB")), frame.info.get("duration"))
            for frame in ImageSequence.Iterator(image)
        ]
    assert len(frames) == 5
    for (frame, duration), expected in zip(frames, slices, strict=True):
        assert duration in (None, 120)
        if suffix != ".gif":  # with 256 colours
            np.testing.assert_array_equal(frame, expected)
    with pytest.raises(OptionError, match="must be"):
        volume.save_animation(tmp_path / "video.mp4")
    with pytest.raises(ShapeError, match="frames must be"):
        encode_frames(path, slices[0])
    assert not (tmp_path / "video.mp4").exists()


def test_tokens_are_coloured_and_escaped() -> None:
    names = [["good", "<b>", "bad", ""]]
    text = make_attribution(
        [[1.0, 0.0, -1.0, 0.0]], ("token",), names=names, signed=True, score=[2.5], labels=["yes"]
    )
    assert isinstance(text, TextAttribution)
    page = text.to_html(clip=100)
    assert page == text.to_html(clip=100, cmap="RdBu_r")
    spans = re.findall(r'background:rgb\((.*?)\).*?title="(.*?)">(.*?)</span>', page)
    red, middle, blue = (palette("RdBu_r")[level].tolist() for level in (255, 128, 0))
    assert [(list(map(int, colour.split(","))), value, name) for colour, value, name in spans] == [
        (red, "1", "good"),
        (middle, "0", "&lt;b&gt;"),
        (blue, "-1", "bad"),
    ]
    assert "yes 2.5" in page
    described = text.describe_tokens(clip=100)[0]
    assert [token["text"] for token in described] == ["good", "<b>", "bad"]
    assert described[0]["background"] == "#{:02x}{:02x}{:02x}".format(*red)
    ansi = text.to_ansi(clip=100)
    assert f"\x1b[48;2;{red[0]};{red[1]};{red[2]}mgood\x1b[0m" in ansi
    hostile = make_attribution([[1.0]], ("token",), names=[["\x1b[2Jx"]])
    assert isinstance(hostile, TextAttribution)
    assert "\x1b[2J" not in hostile.to_ansi()


def test_bars_are_sorted_by_magnitude() -> None:
    values = [[0.5, -2.0, 1.0]]
    text = make_attribution(values, ("token",), names=["a", "b", "c"])
    assert isinstance(text, TextAttribution)
    assert len(text.bars(2)) == 1
    table = make_attribution(values, ("feature",), names=["a", "b", "c"], inputs=values)
    picture = table.overlay(clip=100).pictures[0]
    # The bar of b is on the left of zero and as wide as those of the two others on the right.
    rows = [22 * row + 11 for row in range(3)]
    widths = [int((picture[row, 208:550] != 255).any(-1).sum()) for row in rows]
    assert widths[0] > widths[1] > widths[2]
    many = make_attribution(RNG.normal(size=(1, 40)), ("feature",))
    assert many.overlay().pictures.shape[1] == 25 * 22


def test_repr_and_slicing_keep_the_facts() -> None:
    attribution = make_attribution(
        RNG.random((3, 20)),
        ("time",),
        inputs=RNG.random((3, 20, 1)),
        labels=["a", "b", "c"],
        score=[1, 2, 3],
        target=[0, 1, 2],
        method="saliency",
        details={"delta": [0.1, 0.2, 0.3]},
    )
    assert repr(attribution) == "<SequenceAttribution 3 maps of 20 time, saliency, a, b, c>"
    second = attribution[1]
    assert repr(second) == "<SequenceAttribution 1 map of 20 time, saliency, b>"
    assert second.details == {"delta": [0.2]}
    np.testing.assert_array_equal(second.values, attribution.values[1:2])
    assert [item.labels for item in attribution] == [("a",), ("b",), ("c",)]


def test_invalid_attributions_are_rejected() -> None:
    with pytest.raises(ShapeError, match="values"):
        make_attribution(np.zeros((2, 3, 4)), ("time",))
    with pytest.raises(ShapeError, match="inputs must have 2 samples, not 3"):
        make_attribution(np.zeros((2, 3)), ("time",), inputs=np.zeros((3, 3, 1)))
    with pytest.raises(ShapeError, match="names must have an entry for each of 2 samples"):
        make_attribution(np.zeros((2, 3)), ("token",), names=[["a"]])
    with pytest.raises(OptionError, match="no inputs to draw"):
        make_attribution(np.zeros((2, 3)), ("time",)).draw_inputs()
    other = make_attribution(np.zeros((2, 3)), ("frequency",))
    assert type(other) is actgrid.Attribution
    assert other.overlay().pictures.shape[0] == 2
