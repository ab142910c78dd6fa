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


class Truth(keras.callbacks.Callback):  # type: ignore[misc]
    """The grids of every epoch, drawn at once."""

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


def frames(path: Path) -> list[Any]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def film(movie: TrainingMovie, step: int) -> None:
    movie(step)
    movie.close()


@pytest.mark.parametrize("format", ["webp", "gif"])
def test_a_frame_of_every_epoch_with_the_colours_of_the_grid(
    format: str,  # noqa: A002
    cnn: Any,
    x: Any,
    y: Any,
    tmp_path: Path,
) -> None:
    truth = Truth(x[:2], cmap="magma", zoom=2)
    movie = TrainingMovie(x[:2], None, folder=tmp_path, format=format, cmap="magma", zoom=2)
    model = cnn()
    model.fit(x, y, epochs=3, verbose=0, callbacks=[truth, movie])
    model.fit(x, y, initial_epoch=3, epochs=5, verbose=0, callbacks=[truth, movie])
    files = {
        f"{number:02}_{path}_{sample}.{format}": truth.frames[path, sample]
        for number, path in enumerate(("conv", "norm", "pool", "dropout"))
        for sample in (0, 1)
    }
    assert {path.name for path in tmp_path.iterdir()} == set(files)
    for name, wanted in files.items():
        assert len(wanted) == 5
        np.testing.assert_array_equal(frames(tmp_path / name), wanted)


def test_one_sample_every_few_batches_and_times(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    movie = TrainingMovie(
        x[:1], "conv", folder=tmp_path / "movies", every=2, milliseconds=50, hold=70, loop=2
    )
    cnn().fit(x, y, batch_size=2, verbose=0, callbacks=[movie])
    with Image.open(tmp_path / "movies" / "00_conv.webp") as image:
        times = []
        for frame in ImageSequence.Iterator(image):
            frame.load()
            times.append(frame.info["duration"])
        assert times == [50, 50, 70]
        assert image.info["loop"] == 2


def test_the_file_is_whole_after_every_step(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    movie, model = TrainingMovie(x[:1], "conv", folder=tmp_path), cnn()
    movie.set_model(model)
    for step in range(3):
        film(movie, step)
        assert len(frames(tmp_path / "00_conv.webp")) == step + 1
    movie.set_model(cnn())
    film(movie, 0)
    assert len(frames(tmp_path / "00_conv.webp")) == 1


def test_a_frame_that_could_not_be_written_comes_later(cnn: Any, x: Any, tmp_path: Path) -> None:
    movie = TrainingMovie(x[:1], "conv", folder=tmp_path / "out")
    movie.set_model(cnn())
    (tmp_path / "out" / "00_conv.webp").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="TrainingMovie: cannot write"):
        film(movie, 0)
    (tmp_path / "out" / "00_conv.webp").rmdir()
    film(movie, 1)
    assert len(frames(tmp_path / "out" / "00_conv.webp")) == 2


def test_what_cannot_be_given(x: Any, tmp_path: Path) -> None:
    for options in ({"format": "mp4"}, {"milliseconds": 0}, {"hold": -1}, {"loop": 0.5}):
        with pytest.raises(OptionError):
            TrainingMovie(x, None, folder=tmp_path, **options)
    with pytest.raises(OptionError, match="no option 'sample'"):
        TrainingMovie(x, None, folder=tmp_path, sample=0)  # type: ignore[call-arg]


def test_a_picture_that_is_too_large_is_known_before_training(tmp_path: Path) -> None:
    wide = keras.Sequential([keras.Input((1, 16_384, 1)), keras.layers.Conv2D(1, 1)])
    movie = TrainingMovie(np.ones((1, 1, 16_384, 1)), None, folder=tmp_path)
    movie.set_model(wide)
    with pytest.raises(OptionError, match="cannot be saved as WEBP"):
        movie.on_train_begin()
