"""Drawn data sets: to train on where the real ones are not to be had.

Each picture is drawn anew: another place, size, turn, colour and background. Networks learn them in
seconds, and what they look for can be told from their activations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["CLASSES", "PETS", "SHAPES", "THINGS", "digits", "drawn", "write_folder"]

Pictures = npt.NDArray[np.uint8]

_SMOOTH = 4  # pictures are drawn so many times larger


def _around(points: int, *radii: float) -> list[tuple[float, float]]:
    """Return points around the middle, the first of them on top."""
    angles = [2 * math.pi * index / points for index in range(points)]
    return [
        (radii[index % len(radii)] * math.sin(angle), -radii[index % len(radii)] * math.cos(angle))
        for index, angle in enumerate(angles)
    ]


# What is drawn: polygons and ellipses (left, top, right, bottom) between -1 and 1, and of which of
# the picture's colours: the main one, a second one, dark, the background.
_PARTS: dict[str, list[tuple[Sequence[Any], int]]] = {
    "circle": [((-0.9, -0.9, 0.9, 0.9), 0)],
    "square": [([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], 0)],
    "triangle": [(_around(3, 1), 0)],
    "star": [(_around(10, 1, 0.42), 0)],
    "ring": [((-0.9, -0.9, 0.9, 0.9), 0), ((-0.5, -0.5, 0.5, 0.5), 3)],
    "house": [
        ([(-0.7, -0.1), (0.7, -0.1), (0.7, 0.9), (-0.7, 0.9)], 0),
        ([(-0.95, -0.1), (0, -0.95), (0.95, -0.1)], 1),
        ([(-0.2, 0.3), (0.2, 0.3), (0.2, 0.9), (-0.2, 0.9)], 2),
    ],
    "tree": [
        ([(-0.15, 0.3), (0.15, 0.3), (0.15, 0.95), (-0.15, 0.95)], 2),
        ((-0.7, -0.95, 0.7, 0.45), 0),
    ],
    "boat": [
        ([(-0.95, 0.4), (0.95, 0.4), (0.6, 0.9), (-0.6, 0.9)], 0),
        ([(0.05, -0.95), (0.05, 0.3), (0.75, 0.3)], 1),
        ([(-0.05, -0.7), (-0.05, 0.3), (-0.6, 0.3)], 1),
    ],
    "car": [
        ([(-0.55, -0.5), (0.45, -0.5), (0.7, 0), (-0.75, 0)], 1),
        ([(-0.95, 0), (0.95, 0), (0.95, 0.45), (-0.95, 0.45)], 0),
        ((-0.7, 0.2, -0.2, 0.7), 2),
        ((0.2, 0.2, 0.7, 0.7), 2),
    ],
    "sun": [(_around(24, 1, 0.55), 1), ((-0.55, -0.55, 0.55, 0.55), 0)],
    "cat": [
        ([(-0.75, -0.2), (-0.75, -1), (-0.1, -0.6)], 1),
        ([(0.75, -0.2), (0.75, -1), (0.1, -0.6)], 1),
        ((-0.8, -0.7, 0.8, 0.8), 0),
        ((-0.45, -0.25, -0.15, 0.1), 2),
        ((0.15, -0.25, 0.45, 0.1), 2),
        ([(-0.12, 0.25), (0.12, 0.25), (0, 0.4)], 2),
        *(
            ([(side * 0.2, y), (side * 1, y - 0.1 + tilt), (side * 1, y - 0.05 + tilt)], 2)
            for side in (-1, 1)
            for y, tilt in ((0.35, -0.02), (0.45, 0.18))
        ),
    ],
    "dog": [
        ((-0.7, -0.7, 0.7, 0.75), 0),
        ((-1, -0.65, -0.5, 0.5), 1),
        ((0.5, -0.65, 1, 0.5), 1),
        ((-0.4, 0.05, 0.4, 0.9), 1),
        ((-0.4, -0.3, -0.15, -0.02), 2),
        ((0.15, -0.3, 0.4, -0.02), 2),
        ((-0.2, 0.12, 0.2, 0.4), 2),
    ],
}
SHAPES = ("circle", "square", "triangle")
THINGS = ("boat", "car", "house", "sun", "tree")
PETS = ("cat", "dog")
CLASSES = tuple(sorted({*SHAPES, *THINGS, "star", "ring"}))


def _colours(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return four colours that can be told from each other: see `_PARTS`."""
    light, main = rng.integers(150, 256, 3), rng.integers(30, 230, 3)
    while np.abs(light - main).sum() < 200:
        light, main = rng.integers(150, 256, 3), rng.integers(30, 230, 3)
    return [tuple(map(int, one)) for one in (main, main * 0.7, main * 0.25, light)]


def _draw(name: str, size: int, rng: np.random.Generator) -> Pictures:
    """Return one picture, (size, size, 3)."""
    side = size * _SMOOTH
    colours = _colours(rng)
    image = Image.new("RGB", (side, side), colours[3])
    draw = ImageDraw.Draw(image)
    reach = side * rng.uniform(0.25, 0.36)

    def placed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(side / 2 + x * reach, side / 2 + y * reach) for x, y in points]

    for part, colour in _PARTS[name]:
        if isinstance(part[0], tuple):
            draw.polygon(placed(part), fill=colours[colour])
        else:
            left, top, right, bottom = part
            draw.ellipse(placed([(left, top), (right, bottom)]), fill=colours[colour])
    image = image.rotate(
        rng.uniform(-25, 25),
        Image.Resampling.BILINEAR,
        translate=tuple(rng.uniform(-0.1, 0.1, 2) * side),
        fillcolor=colours[3],
    )
    noise = rng.normal(0, 8, (size, size, 3))
    return (np.asarray(image.reduce(_SMOOTH)) + noise).clip(0, 255).astype(np.uint8)


def drawn(
    classes: Sequence[str], count: int, size: int, seed: int = 0
) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Return `count` pictures, (count, size, size, 3) uint8, and their classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    return np.stack([_draw(classes[int(label)], size, rng) for label in labels]), labels


def digits(count: int, seed: int = 0) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Return printed digits as MNIST has written ones, (count, 28, 28) uint8, and what they are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    pictures = []
    for label in labels:
        image = Image.new("L", (28 * _SMOOTH, 28 * _SMOOTH))
        font = ImageFont.load_default(int(rng.integers(70, 100)))
        middle = 14 * _SMOOTH
        weight = int(rng.integers(0, 4))
        ImageDraw.Draw(image).text(
            (middle, middle), str(label), 255, font, anchor="mm", stroke_width=weight
        )
        move = tuple(rng.uniform(-8, 8, 2))
        image = image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, translate=move)
        pictures.append(np.asarray(image.reduce(_SMOOTH)))
    return np.stack(pictures), labels


def write_folder(folder: Path, classes: Sequence[str], count: int, size: int) -> Path:
    """Write pictures as ``folder/class/000.png``, as a data set of files mostly is."""
    pictures, labels = drawn(classes, count * len(classes), size)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        where = folder / classes[label]
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(where / f"{number // len(classes):03}.png")
    return folder
