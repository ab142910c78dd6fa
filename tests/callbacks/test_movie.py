"""The callback `TrainingMovie`: animations of activations during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image, ImageSequence

import actgrid
from actgrid.callbacks import TrainingMovie
from actgrid.errors import OptionError


class DrawEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Callback that draws the expected grids of each epoch by `render_model`."""

    def __init__(self, data: Any, **options: Any) -> None:
        super().__init__()
        self.data, self.options = data, options
        self.frames: dict[tuple[str, int], list[Any]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for sample in range(len(self.data)):
            options = self.options | {"sample": sample}
            grids = actgrid.render_model(self.model, self.data, **options)
            for path, grid in grids.items():
                self.frames.setdefault((path, sample), []).append(grid.to_rgb())


def read_frames(path: Path) -> list[Any]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def run_step(movie: TrainingMovie, step: int) -> None:
    movie(step)
    movie.close()


@pytest.mark.parametrize("format", ["webp", "gif"])
def test_movies_have_an_exact_frame_for_each_epoch(
    format: str,  # noqa: A002
    cnn: Any,
    x: Any,
    y: Any,
    tmp_path: Path,
) -> None:
    expected = DrawEpochs(x[:2], cmap="magma", zoom=2)
    movie = TrainingMovie(x[:2], None, folder=tmp_path, format=format, cmap="magma", zoom=2)
    model = cnn()
    model.fit(x, y, epochs=3, verbose=0, callbacks=[expected, movie])
    model.fit(x, y, initial_epoch=3, epochs=5, verbose=0, callbacks=[expected, movie])
    files = {
        f"{index:02}_{path}_{sample}.{format}": expected.frames[path, sample]
        for index, path in enumerate(("conv", "norm", "pool", "dropout"))
        for sample in (0, 1)
    }
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    for name, expected_frames in files.items():
        assert len(expected_frames) == 5
        np.testing.assert_array_equal(read_frames(tmp_path / name), expected_frames)


def test_frame_times_with_single_sample(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    movie = TrainingMovie(
        x[:1],
        "conv",
        folder=tmp_path / "movies",
        every=2,
        frame_milliseconds=50,
        last_frame_milliseconds=70,
        loop=2,
    )
    cnn().fit(x, y, batch_size=2, verbose=0, callbacks=[movie])
    with Image.open(tmp_path / "movies" / "00_conv.webp") as image:
        times = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            times.append(frame.info["duration"])
        assert times == [50, 50, 70]
        assert image.info["loop"] == 2


def test_file_is_complete_after_each_step(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    movie, model = TrainingMovie(x[:1], "conv", folder=tmp_path), cnn()
    movie.set_model(model)
    for step in range(3):
        run_step(movie, step)
        assert len(read_frames(tmp_path / "00_conv.webp")) == step + 1
    movie.set_model(cnn())
    run_step(movie, 0)
    assert len(read_frames(tmp_path / "00_conv.webp")) == 1


def test_unwritten_frame_is_in_a_later_file(cnn: Any, x: Any, tmp_path: Path) -> None:
    movie = TrainingMovie(x[:1], "conv", folder=tmp_path / "out")
    movie.set_model(cnn())
    (tmp_path / "out" / "00_conv.webp").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="TrainingMovie: cannot write"):
        run_step(movie, 0)
    (tmp_path / "out" / "00_conv.webp").rmdir()
    run_step(movie, 1)
    assert len(read_frames(tmp_path / "out" / "00_conv.webp")) == 2


def test_invalid_options_are_rejected(x: Any, tmp_path: Path) -> None:
    for options in (
        {"format": "mp4"},
        {"frame_milliseconds": 0},
        {"last_frame_milliseconds": -1},
        {"loop": 0.5},
    ):
        with pytest.raises(OptionError):
            TrainingMovie(x, None, folder=tmp_path, **options)
    with pytest.raises(OptionError, match="unknown option 'sample'"):
        TrainingMovie(x, None, folder=tmp_path, sample=0)  # type: ignore[call-arg]


def test_too_large_picture_is_rejected_before_training(tmp_path: Path) -> None:
    wide = keras.Sequential([keras.Input((1, 16_384, 1)), keras.layers.Conv2D(1, 1)])
    movie = TrainingMovie(np.ones((1, 1, 16_384, 1)), None, folder=tmp_path)
    movie.set_model(wide)
    with pytest.raises(OptionError, match="cannot be saved as WEBP"):
        movie.on_train_begin()
