"""Callbacks of `ActivationMaximization`, which are called at each step."""

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
    """Base class of the callbacks of `ActivationMaximization`; its methods do nothing."""

    def on_begin(self, **kwargs: Any) -> None:
        """Handle the start of the optimization; the base class does nothing.

        Parameters
        ----------
        **kwargs : object
            Arguments of the call of `ActivationMaximization`, such as ``steps``.
        """

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Handle the end of a step of the optimization; the base class does nothing.

        Parameters
        ----------
        i : int
            Index of the step, from 0.
        values : list of ndarray
            Current inputs.
        grads : list of tensor
            Gradients, with the shapes of the inputs.
        scores : list of tensor
            Scores of each output.
        model_outputs : list of tensor
            Outputs of the model.
        **kwargs : object
            ``regularizations``, a list of (name, value), and ``overall_score``, a list.
        """

    def on_end(self) -> None:
        """Handle the end of the optimization, also after an error; do nothing here."""


class PrintLogger(Callback):
    """Callback that prints scores and regularizations during activation maximization.

    Parameters
    ----------
    interval : int, optional
        Number of steps between two lines.
    """

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Print the scores and regularizations in a line every `interval` steps."""
        if (i + 1) % self.interval == 0:
            terms = [(name, _to_python(value)) for name, value in kwargs["regularizations"]]
            print(
                f"Steps: {i + 1:03d}\tScores: {[_to_python(score) for score in scores]},"
                f"\tRegularization: {terms}"
            )


class Progress(Callback):
    """Callback that shows the progress bar of Keras during activation maximization."""

    def on_begin(self, **kwargs: Any) -> None:
        """Create the progress bar of the optimization."""
        self.progbar = keras().utils.Progbar(kwargs.get("steps"))

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Update the progress bar with the scores and regularizations of a step."""
        names = ["Score"] if len(scores) == 1 else [f"Score[{j}]" for j in range(len(scores))]
        values_by_name = [*zip(names, scores, strict=True), *kwargs["regularizations"]]
        means = [(name, float(np.mean(value))) for name, value in values_by_name]
        self.progbar.update(i + 1, means)


class GifGenerator2D(Callback):
    """Callback that writes an animation of the first image.

    Parameters
    ----------
    path : str or Path
        Path of the file; ``.gif`` is appended if necessary. Further inputs have files
        ``name-1.gif``, ..., whereas tf-keras-vis writes only the last input.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.frames: list[list[Image.Image]] = []

    def on_begin(self, **kwargs: Any) -> None:
        """Delete the frames of an earlier optimization."""
        self.frames = []

    def __call__(
        self, i: int, values: Any, grads: Any, scores: Any, model_outputs: Any, **kwargs: Any
    ) -> None:
        """Append the images of a step to the frames of the animations, with a label."""
        self.frames = self.frames or [[] for _ in values]
        for frames, value in zip(self.frames, values, strict=True):
            pixels = np.clip(np.asarray(value)[0], 0, 255).astype(np.uint8)
            frame = Image.fromarray(
                np.ascontiguousarray(np.broadcast_to(pixels, _get_rgb_shape(pixels)))
            )
            ImageDraw.Draw(frame).text((10, 10), f"Step {i + 1}")
            frames.append(frame)

    def on_end(self) -> None:
        """Write the frames to an animated GIF file for each model input."""
        path = self.path if self.path.suffix == ".gif" else Path(f"{self.path}.gif")
        for index, frames in enumerate(self.frames):
            buffer = io.BytesIO()
            frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0)
            name = f"{path.stem}-{index}.gif" if index else path.name
            write_file(path.with_name(name), buffer.getvalue())


def _get_rgb_shape(pixels: Any) -> tuple[int, int, int]:
    height, width = pixels.shape[:2]
    return height, width, 3


def _to_python(value: Any) -> Any:
    """Convert a tensor to a number or nested lists; return other values unchanged."""
    return np.asarray(value).tolist() if tensorflow().is_tensor(value) else value
