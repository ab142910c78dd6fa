"""`TrainingMovie`: the activations of a network, one frame for each step of its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actgrid.callbacks.base import Sink, TrainingCallback
from actgrid.callbacks.grids import check_layers, drawing_options
from actgrid.callbacks.pictures import numbered_samples
from actgrid.callbacks.samples import Samples, draw_samples, read_data
from actgrid.encoding import Animation, check_animation, writable_folder, write_file
from actgrid.figures.files import numbered_files
from actgrid.models.types import LayersLike
from actgrid.option_groups import takes_options
from actgrid.options import MovieOptions
from actgrid.rendering import palette

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TrainingMovie"]


@takes_options(MovieOptions, threads=1, data_format=None)
class TrainingMovie(TrainingCallback):
    """Makes an animated picture of each layer, with a frame for each step of a training.

    Parameters
    ----------
    data, layers
        As in `ActivationGrids`.
    folder
        For the files, ``NN_LAYER.webp``; of several samples ``NN_LAYER_SAMPLE.webp``. Those of
        this name are replaced.
    **options
        See `actgrid.options.MovieOptions`. Each step writes the files anew, as they are then: take
        hundreds of steps, not many thousands. GIF counts in hundredths of a second.

    Raises
    ------
    OptionError
        If an option cannot be used. Also a ValueError.
    ActgridError
        As `ActivationGrids`; when training begins also OptionError for a picture that is too
        large for the format, which for WebP has at most 16,383 pixels on a side.

    Warns
    -----
    RuntimeWarning
        As `ActivationGrids`. Frames that could not be written are in the file of a later step.

    Notes
    -----
    Frames are encoded once, without loss, and have the colours of the colormap exactly. After
    each step the file is whole, so that nothing is lost where training is cut off. The object
    holds the encoded frames: in a second training they go on, with another model they begin anew.

    Examples
    --------
    >>> movie = actgrid.callbacks.TrainingMovie(x_test[:1], "conv*", folder="movie", zoom=4)
    >>> model.fit(x_train, y_train, epochs=30, callbacks=[movie])
    """

    def __init__(
        self,
        data: Any,
        layers: LayersLike = None,
        *,
        folder: str | Path,
        **options: Unpack[MovieOptions],
    ) -> None:
        super().__init__(options["every"])
        self._suffix = f".{options['format']}"
        self._times = {
            "milliseconds": options["milliseconds"],
            "hold": options["hold"],
            "loop": options["loop"],
        }
        check_animation(self._suffix, **self._times)
        self._data, self._layers = read_data(data), check_layers(layers)
        self._folder = writable_folder(folder)
        self._options = drawing_options(options)

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers)
        self._movies = _Movies(self._suffix)

    def _look(self, step: int | None) -> Any:
        (activations,) = self._samples.activations()
        return activations

    def _draw(self, seen: Any) -> dict[str, list[Animation]]:
        """Return movies of one frame for each sample of each layer."""
        drawn = draw_samples(self._samples.layers, seen, **self._options)
        movies: dict[str, list[Animation]] = {}
        for path, grids in drawn.items():
            movies[path] = []
            for grid in grids:
                movie = Animation(self._suffix, palette(grid.cmap), **self._times)
                movie.append(grid.levels)
                movies[path].append(movie)
        return movies

    def _open(self) -> list[Sink]:
        self._movies.folder = writable_folder(self._folder)
        return [self._movies]


class _Movies:
    """Movies that grow, and their files."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._movies: dict[str, Animation] = {}
        self.folder = Path()

    def write(self, step: int, drawn: dict[str, list[Animation]]) -> None:
        grown = []
        for name, movies in zip(numbered_files(list(drawn), ""), drawn.values(), strict=True):
            for sample, movie in zip(numbered_samples(len(movies)), movies, strict=True):
                file = f"{name}{'_' if sample else ''}{sample}{self._suffix}"
                if file in self._movies:
                    self._movies[file].extend(movie)
                else:
                    self._movies[file] = movie
                grown.append(file)
        writable_folder(self.folder)
        for file in grown:
            write_file(self.folder / file, *self._movies[file].pieces())

    def close(self) -> None:
        pass
