"""Keras callback that draws grids of activations during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

from actgrid.callbacks.pictures import PictureCallback
from actgrid.callbacks.samples import Samples, draw_samples, read_data
from actgrid.errors import OptionError
from actgrid.models.layers import Selection
from actgrid.models.types import LayersLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ActivationGridsOptions, RenderArrayOptions
from actgrid.rendering import RELEVANCE
from actgrid.rendering.backends import load_backend

__all__ = ["ActivationGrids", "check_layers", "pick_render_options"]


@takes_options(ActivationGridsOptions, threads=1, data_format=None)
class ActivationGrids(PictureCallback):
    """Keras callback that draws the activations of fixed samples during training.

    Parameters
    ----------
    data : array_like, dict, list, image sources or dataset
        The samples: the model's input with its batch axis, already preprocessed; a list or dict of
        arrays for several inputs; image files or Pillow images, which `actgrid.load_images`
        prepares for the model; or a dataset as ``fit`` takes it, such as ``validation.take(1)``,
        whose targets are ignored. The data are read once, when the callback is created, and all
        samples are drawn.
    layers : str, int, type, callable, list or None, optional
        The layers to draw, see `actgrid.Extractor`. None: all layers with a spatial output.
    **options
        See `actgrid.options.ActivationGridsOptions`. `log_dir` receives an image summary for each
        layer, with the layer path as tag and an indexed PNG for each sample. `folder` receives
        files ``NN_LAYER/STEP.png``, or ``NN_LAYER/SAMPLE_STEP.png`` for several samples. Sorted by
        name, the files of a sample are in the order of the steps. A later training replaces files
        of equal step.

    Raises
    ------
    OptionError
        If an option is invalid, `log_dir`, `folder` and `sinks` are all None, or `data` is an
        iterator or an infinite dataset. Also a ValueError.
    DtypeError
        If `data` is not numeric. Also a TypeError.
    ShapeError
        If `data` is empty. Also a ValueError.
    MissingFileError
        If an image file does not exist. Also a FileNotFoundError.
    OutputError
        If a folder cannot be created. Also an OSError.
    ActgridError
        If the layers cannot be extracted or drawn; raised when training begins.

    Warns
    -----
    RuntimeWarning
        If an output cannot be written during training, for instance on a full disk. The warning is
        issued once, training continues, and later steps are written if possible.

    Notes
    -----
    With ``every="epoch"`` the step is the index of the epoch, from 0, as in Keras. With a number,
    the step is the number of batches since the callback was created. If Keras runs several batches
    in one execution, the model is observed after the last of these batches.

    The training thread extracts the activations between two batches with one compiled function, in
    inference mode. The model is not changed, including the state of stateful layers and of random
    seeds. Another thread draws, encodes and writes the steps in order. Training waits only if three
    steps are pending. Each step is flushed. If training ends, fails or is interrupted, pending
    steps are written before the interpreter exits.

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
    >>> grids = actgrid.callbacks.ActivationGrids(x[:1], "conv*", folder="grids")
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[grids])
    >>> from pathlib import Path
    >>> sorted(path.as_posix() for path in Path("grids").rglob("*.png"))
    ['grids/00_conv/000000.png', 'grids/00_conv/000001.png']

    In a custom training loop:

    >>> with actgrid.callbacks.ActivationGrids(x[:1], folder="loop") as grids:
    ...     grids.set_model(model)
    ...     for step in range(20):
    ...         loss = model.train_on_batch(x, y)
    ...         if step % 10 == 0:
    ...             grids(step)
    """

    def __init__(
        self, data: Any, layers: LayersLike = None, **options: Unpack[ActivationGridsOptions]
    ) -> None:
        super().__init__(options)
        self._data, self._layers = read_data(data), check_layers(layers)
        self._options = pick_render_options(options)

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers)

    def _observe(self, step: int | None) -> Any:
        (activations,) = self._samples.extract()
        return activations

    def _draw(self, observation: Any) -> dict[str, list[bytes]]:
        layers = draw_samples(self._samples.layers, observation, **self._options)
        return {path: [grid.to_png(threads=1) for grid in grids] for path, grids in layers.items()}


def pick_render_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options of `actgrid.render` among the options of a callback.

    The rendering backend is loaded, so that an unavailable backend raises an error at once.

    Returns
    -------
    dict
        Option name -> value.

    Raises
    ------
    OptionError
        If the channels are to be sorted by relevance.
    """
    if options["order"] == RELEVANCE:
        raise OptionError(
            "order='relevance' is not supported by callbacks: pass another order, or a sequence of "
            "channels such as actgrid.render_model(...)[layer].channels"
        )
    load_backend(options["backend"])
    return pick_options(options, RenderArrayOptions)


def check_layers(layers: LayersLike) -> LayersLike:
    """Check the type of the option `layers`, and convert an iterator to a list.

    Returns
    -------
    object
        The value, with an iterator as a list.

    Raises
    ------
    OptionError
        If `actgrid.Extractor` does not take a value of this type. Also a ValueError.
    """
    layers = list(layers) if isinstance(layers, Iterator) else layers
    Selection(layers)
    return layers
