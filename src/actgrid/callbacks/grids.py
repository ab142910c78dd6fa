"""`ActivationGrids`: the activations of a network while it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from actgrid.callbacks.pictures import PictureCallback
from actgrid.callbacks.samples import Samples, draw_samples, read_data
from actgrid.models.layers import Selection
from actgrid.models.types import LayersLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ActivationGridsOptions, RenderArrayOptions
from actgrid.rendering.backends import load_backend

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ActivationGrids", "check_layers", "drawing_options"]


@takes_options(ActivationGridsOptions, threads=1, data_format=None)
class ActivationGrids(PictureCallback):
    """Draws chosen layers for the same samples again and again while a model is trained.

    Parameters
    ----------
    data
        The model's input with its batch axis, already preprocessed, a handful of samples; a list
        or dict of them for several inputs; image files or Pillow images, which
        `actgrid.load_images` prepares for the model; or a dataset as ``fit`` takes it, such as
        ``validation.take(1)``, whose targets are left out. All samples are drawn. They are read
        once, here.
    layers
        Which layers, see `actgrid.Extractor`; None: every one with a spatial output.
    **options
        See `actgrid.options.ActivationGridsOptions`. `log_dir` gets an image summary for each
        layer, tagged with its path, of one picture for each sample: indexed PNG files. `folder`
        gets ``NN_LAYER/STEP.png``; of several samples ``NN_LAYER/SAMPLE_STEP.png``. Sorted by
        name, the steps of one sample follow each other. The same step of a later training replaces
        the earlier one's.

    Raises
    ------
    OptionError
        If an option cannot be used, there is neither `log_dir` nor `folder`, or `data` is an
        iterator or a dataset that never ends. Also a ValueError.
    DtypeError, ShapeError, MissingFileError
        If `data` are no numbers, are empty, or name a file that does not exist.
    OutputError
        If a folder cannot be made. Also an OSError.
    ActgridError
        When training begins: whatever `actgrid.Extractor`, `actgrid.load_images` and
        `actgrid.render` raise for this model.

    Warns
    -----
    RuntimeWarning
        If files cannot be written later on, as on a full disk: once, and training goes on. What
        can be written again is.

    Notes
    -----
    With ``every="epoch"`` the step is the epoch's index, from 0, as in Keras; with a number it is
    the number of batches that this callback has seen. Where Keras runs several batches in one
    execution, the model is looked at after the last of them.

    The layers are extracted by one compiled function, between two batches, by the thread that
    trains, as in inference: nothing of the model is changed, not even the state of stateful
    layers and of seeds. Another thread draws, encodes and writes what it has been given, in order;
    training waits only when three steps are to be written. Each step is flushed.
    Nothing is lost where training ends, raises or is interrupted: what was seen is still written,
    and the interpreter does not exit before.

    Examples
    --------
    >>> grids = actgrid.callbacks.ActivationGrids(x_test[:4], "conv*", log_dir="logs/grids")
    >>> model.fit(x_train, y_train, epochs=10, callbacks=[grids])

    In a loop of one's own:

    >>> with actgrid.callbacks.ActivationGrids(x_test[:4], folder="grids") as grids:
    ...     grids.set_model(model)
    ...     for step, (x, y) in enumerate(batches):
    ...         model.train_on_batch(x, y)
    ...         if step % 100 == 0:
    ...             grids(step)
    """

    def __init__(
        self, data: Any, layers: LayersLike = None, **options: Unpack[ActivationGridsOptions]
    ) -> None:
        super().__init__(options["every"], options["log_dir"], options["folder"])
        self._data, self._layers = read_data(data), check_layers(layers)
        self._options = drawing_options(options)

    def _prepare(self, model: Any) -> None:
        self._samples = Samples(model, self._data, self._layers)

    def _look(self, step: int | None) -> Any:
        (activations,) = self._samples.activations()
        return activations

    def _draw(self, seen: Any) -> dict[str, list[bytes]]:
        drawn = draw_samples(self._samples.layers, seen, **self._options)
        return {path: [grid.to_png(threads=1) for grid in grids] for path, grids in drawn.items()}


def drawing_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of drawing among those of a callback."""
    load_backend(options["backend"])
    return pick_options(options, RenderArrayOptions)


def check_layers(layers: LayersLike) -> LayersLike:
    """Return a choice of layers if it is of a kind that `actgrid.Extractor` takes.

    Raises
    ------
    OptionError
        If it is not. Also a ValueError.
    """
    layers = list(layers) if isinstance(layers, Iterator) else layers
    Selection(layers)
    return layers
