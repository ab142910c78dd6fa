"""Keras callback that makes movies of activation maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from actgrid.callbacks.base import TrainingCallback
from actgrid.callbacks.folder_sink import number_samples
from actgrid.callbacks.grids import check_layers, pick_render_options
from actgrid.callbacks.samples import Samples, draw_samples, read_data
from actgrid.encoding import Animation, check_animation, make_folder, write_file
from actgrid.figures.files import number_files
from actgrid.models.types import LayersLike
from actgrid.option_groups import takes_options
from actgrid.options import MovieOptions
from actgrid.rendering import palette

__all__ = ["TrainingMovie"]


@takes_options(MovieOptions, threads=1, data_format=None)
class TrainingMovie(TrainingCallback):
    """Keras callback that makes an animation of each layer, a frame for each step.

    Parameters
    ----------
    data : array_like, dict, list, image sources or dataset
        The samples, as in `ActivationGrids`.
    layers : str, int, type, callable, list or None, optional
        The layers to draw, see `actgrid.Extractor`. None: all layers with a spatial output.
    folder : str or Path
        Output folder for files ``NN_LAYER.webp``, or ``NN_LAYER_SAMPLE.webp`` for several samples.
        Existing files of these names are replaced.
    **options
        See `actgrid.options.MovieOptions`. Each step rewrites the complete files, which suits
        hundreds of steps rather than thousands. GIF rounds times to hundredths of a second.

    Raises
    ------
    OptionError
        If an option is invalid; or, when training begins, if a picture is too large for the format
        (for WebP at most 16,383 pixels on a side). Also a ValueError.
    ActgridError
        If `data` is invalid or the layers cannot be extracted or drawn, as in `ActivationGrids`.

    Warns
    -----
    RuntimeWarning
        If a file cannot be written, as in `ActivationGrids`. The frames are in the file of the
        next step that can be written.

    Notes
    -----
    Frames are encoded once, losslessly, with the exact colours of the colormap. After each step the
    file is complete, so no frame is lost if training is interrupted. The callback keeps the encoded
    frames: a second training appends frames, and another model starts a new movie.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(8, 16, 16, 3), np.arange(8) % 2
    >>> movie = actgrid.callbacks.TrainingMovie(x[:1], "conv*", folder="movie", zoom=4)
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[movie])
    >>> from pathlib import Path
    >>> [path.as_posix() for path in Path("movie").iterdir()]
    ['movie/00_conv.webp']
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
            "frame_milliseconds": options["frame_milliseconds"],
            "last_frame_milliseconds": options["last_frame_milliseconds"],
            "loop": options["loop"],
        }
        check_animation(self._suffix, **self._times)
        self._data, self._layers = read_data(data), check_layers(layers)
        self._folder = make_folder(folder)
        self._options = pick_render_options(options)

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers)
        self._movies: dict[str, Animation] = {}

    def _observe(self, step: int | None) -> Any:
        (activations,) = self._samples.extract()
        return activations

    def _draw(self, observation: Any) -> dict[str, list[Animation]]:
        """Draw the activations of one step as animations of a single frame.

        Returns
        -------
        dict
            Layer path -> animation for each sample.
        """
        layers = draw_samples(self._samples.layers, observation, **self._options)
        movies: dict[str, list[Animation]] = {}
        for path, grids in layers.items():
            movies[path] = []
            for grid in grids:
                movie = Animation(self._suffix, palette(grid.cmap), **self._times)
                movie.append(grid.levels)
                movies[path].append(movie)
        return movies

    def _open_outputs(self) -> None:
        make_folder(self._folder)

    def _write(self, step: int, content: dict[str, list[Animation]]) -> None:
        self._attempt(self._append_frames, content)

    def _append_frames(self, content: dict[str, list[Animation]]) -> None:
        """Append the frames of a step to the movies, and write their files."""
        changed_files = []
        for name, movies in zip(number_files(list(content), ""), content.values(), strict=True):
            for sample, movie in zip(number_samples(len(movies)), movies, strict=True):
                file = f"{name}{'_' if sample else ''}{sample}{self._suffix}"
                if file in self._movies:
                    self._movies[file].extend(movie)
                else:
                    self._movies[file] = movie
                changed_files.append(file)
        make_folder(self._folder)
        for file in changed_files:
            write_file(self._folder / file, *self._movies[file].encode_pieces())
