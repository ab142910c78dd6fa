"""Generate data sets of drawings, which replace missing real data sets.

Position, size, rotation, colours and background of each drawing are random. Networks learn the
classes in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["CLASSES", "PETS", "SHAPES", "THINGS", "draw", "draw_digits", "write_folder"]

Pictures = npt.NDArray[np.uint8]

_SUPERSAMPLING = 4  # drawings are scaled down by this factor, for smooth edges


def _make_star(points: int, *radii: float) -> list[tuple[float, float]]:
    """Return points around the centre at alternating radii, starting at the top."""
    angles = [2 * math.pi * index / points for index in range(points)]
    return [
        (radii[index % len(radii)] * math.sin(angle), -radii[index % len(radii)] * math.cos(angle))
        for index, angle in enumerate(angles)
    ]


# Class -> its parts: a polygon or ellipse (left, top, right, bottom) in coordinates from -1 to 1,
# and the index of its colour: main, secondary, dark, background.
_PARTS: dict[str, list[tuple[Sequence[Any], int]]] = {
    "circle": [((-0.9, -0.9, 0.9, 0.9), 0)],
    "square": [([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], 0)],
    "triangle": [(_make_star(3, 1), 0)],
    "star": [(_make_star(10, 1, 0.42), 0)],
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
    "sun": [(_make_star(24, 1, 0.55), 1), ((-0.55, -0.55, 0.55, 0.55), 0)],
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


def _choose_colours(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return four different random colours: main, secondary, dark, background."""
    light, main = rng.integers(150, 256, 3), rng.integers(30, 230, 3)
    while np.abs(light - main).sum() < 200:
        light, main = rng.integers(150, 256, 3), rng.integers(30, 230, 3)
    return [tuple(map(int, colour)) for colour in (main, main * 0.7, main * 0.25, light)]


def _draw_picture(name: str, size: int, rng: np.random.Generator) -> Pictures:
    """Draw one picture (size, size, 3) of a class."""
    side = size * _SUPERSAMPLING
    colours = _choose_colours(rng)
    image = Image.new("RGB", (side, side), colours[3])
    canvas = ImageDraw.Draw(image)
    radius = side * rng.uniform(0.25, 0.36)

    def transform(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(side / 2 + x * radius, side / 2 + y * radius) for x, y in points]

    for part, colour in _PARTS[name]:
        if isinstance(part[0], tuple):
            canvas.polygon(transform(part), fill=colours[colour])
        else:
            left, top, right, bottom = part
            canvas.ellipse(transform([(left, top), (right, bottom)]), fill=colours[colour])
    image = image.rotate(
        rng.uniform(-25, 25),
        Image.Resampling.BILINEAR,
        translate=tuple(rng.uniform(-0.1, 0.1, 2) * side),
        fillcolor=colours[3],
    )
    noise = rng.normal(0, 8, (size, size, 3))
    return (np.asarray(image.reduce(_SUPERSAMPLING)) + noise).clip(0, 255).astype(np.uint8)


def draw(
    classes: Sequence[str], count: int, size: int, seed: int = 0
) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Draw pictures (count, size, size, 3) uint8; return them and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    return np.stack([_draw_picture(classes[int(label)], size, rng) for label in labels]), labels


def draw_digits(count: int, seed: int = 0) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Draw printed digits (count, 28, 28) uint8; return them and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    pictures = []
    for label in labels:
        image = Image.new("L", (28 * _SUPERSAMPLING, 28 * _SUPERSAMPLING))
        font = ImageFont.load_default(int(rng.integers(70, 100)))
        centre = 14 * _SUPERSAMPLING
        weight = int(rng.integers(0, 4))
        ImageDraw.Draw(image).text(
            (centre, centre), str(label), 255, font, anchor="mm", stroke_width=weight
        )
        offset = tuple(rng.uniform(-8, 8, 2))
        image = image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, translate=offset)
        pictures.append(np.asarray(image.reduce(_SUPERSAMPLING)))
    return np.stack(pictures), labels


def write_folder(folder: Path, classes: Sequence[str], count: int, size: int) -> Path:
    """Draw pictures of classes, and write them as ``folder/class/000.png``."""
    pictures, labels = draw(classes, count * len(classes), size)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        class_folder = folder / classes[label]
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(class_folder / f"{number // len(classes):03}.png")
    return folder
