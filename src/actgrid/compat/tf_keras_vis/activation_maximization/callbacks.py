"""What is called at each step of `ActivationMaximization`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from actgrid.encoding import write_file
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["Callback", "GifGenerator2D", "PrintLogger", "Progress"]


class Callback:
    """Does nothing: a base for callbacks."""

    def on_begin(self, **kwargs: Any) -> None:
        """Do something at the beginning.

        Parameters
        ----------
        kwargs
            The arguments of the call, such as ``steps``.
        """

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Do something at the end of a step.

        Parameters
        ----------
        i
            The step, from 0.
        values
            What the inputs are: a list of arrays.
        grads
            Gradients, of the inputs' shapes.
        scores
            Of each output.
        model_outputs
            The outputs, in a list.
        kwargs
            ``regularizations``, a list of (name, value), and ``overall_score``, a list.
        """

    def on_end(self) -> None:
        """Do something at the end, also after an error."""


class PrintLogger(Callback):
    """Prints scores and regularization.

    Parameters
    ----------
    interval
        At every so many steps.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Print a line."""
        if (i + 1) % self.interval == 0:
            terms = [(name, _plain(value)) for name, value in kwargs["regularizations"]]
            print(
                f"Steps: {i + 1:03d}\tScores: {[_plain(score) for score in scores]},"
                f"\tRegularization: {terms}"
            )


class Progress(Callback):
    """Shows Keras's progress bar."""

    def on_begin(self, **kwargs: Any) -> None:
        """Begin at 0 of so many steps."""
        self.progbar = keras().utils.Progbar(kwargs.get("steps"))

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Move it on."""
        names = ["Score"] if len(scores) == 1 else [f"Score[{j}]" for j in range(len(scores))]
        shown = [*zip(names, scores, strict=True), *kwargs["regularizations"]]
        self.progbar.update(i + 1, [(name, float(np.mean(value))) for name, value in shown])


class GifGenerator2D(Callback):
    """Writes an animation of the first image.

    Parameters
    ----------
    path
        Of the file; ``.gif`` is put to it where it is missing. Of several inputs each has its own,
        ``name-1.gif`` being that of the second; tf-keras-vis left the last one's only.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.frames: list[list[Image.Image]] = []

    def on_begin(self, **kwargs: Any) -> None:
        """Begin anew."""
        self.frames = []

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Keep the image, with the step in its corner."""
        self.frames = self.frames or [[] for _ in values]
        for frames, value in zip(self.frames, values, strict=True):
            pixels = np.clip(np.asarray(value)[0], 0, 255).astype(np.uint8)
            frame = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, _rgb(pixels))))
            ImageDraw.Draw(frame).text((10, 10), f"Step {i + 1}")
            frames.append(frame)

    def on_end(self) -> None:
        """Write the files."""
        path = self.path if self.path.suffix == ".gif" else Path(f"{self.path}.gif")
        for number, frames in enumerate(self.frames):
            buffer = io.BytesIO()
            frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0)
            name = f"{path.stem}-{number}.gif" if number else path.name
            write_file(path.with_name(name), buffer.getvalue())


def _rgb(pixels: Any) -> tuple[int, int, int]:
    height, width = pixels.shape[:2]
    return height, width, 3


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if tensorflow().is_tensor(value) else value
