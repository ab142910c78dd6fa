"""Keras callback that draws attribution maps during training."""

from __future__ import annotations

from typing import Any, Unpack, cast

from actgrid.attribution.default_methods import DEFAULT_METHOD
from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.callbacks.pictures import PictureCallback
from actgrid.callbacks.samples import read_data
from actgrid.encoding import encode
from actgrid.models.types import LayerLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExplanationsOptions, MethodOptions, OverlayOptions, RequestOptions
from actgrid.rendering import Heatmap

__all__ = ["Explanations"]


@takes_options(ExplanationsOptions, batch_size=32)
class Explanations(PictureCallback):
    """Keras callback that draws attribution maps of fixed samples during training.

    Parameters
    ----------
    data : array_like, dict, list, image sources or dataset
        The samples to explain, as in `ActivationGrids`.
    method : str, optional
        Attribution method, as in `actgrid.explain`. None: gradcam.
    target : int, str, callable, list or dict, optional
        The class or function to explain, as in `actgrid.explain`. None: the class that the model
        predicts at each step, which may change during training.
    layer : str, int or keras.Layer, optional
        Layer for class activation maps, as in `actgrid.explain`. None: the default layer.
    **options
        See `actgrid.options.ExplanationsOptions`. Outputs in `log_dir` and `folder` are named as
        in `ActivationGrids`, with the method instead of the layer: the tag in TensorBoard is
        ``"gradcam"``, files are ``00_gradcam/STEP.png``. Maps of images that do not have 1, 3 or 4
        channels are drawn without the image.

    Raises
    ------
    OptionError
        If an option is invalid, or `log_dir`, `folder` and `sinks` are all None. Also a ValueError.
    ActgridError
        If `data` is invalid, as in `ActivationGrids`; or, when training begins, if
        `actgrid.explain` cannot explain the images.

    Warns
    -----
    RuntimeWarning
        If an output cannot be written, as in `ActivationGrids`.

    Notes
    -----
    The training thread computes the maps between two batches. Another thread draws and writes
    them, as in `ActivationGrids`. Methods that run the model hundreds of times for each image,
    such as ``rise`` or ``lime``, slow training down.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> x, y = np.random.rand(8, 16, 16, 3), np.arange(8) % 2
    >>> maps = actgrid.callbacks.Explanations(x[:1], "saliency", target=1, folder="maps")
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[maps])
    >>> from pathlib import Path
    >>> sorted(path.as_posix() for path in Path("maps").rglob("*.png"))
    ['maps/00_saliency/000000.png', 'maps/00_saliency/000001.png']
    """

    def __init__(
        self,
        data: Any,
        method: str | None = None,
        target: TargetLike = None,
        layer: LayerLike | None = None,
        **options: Unpack[ExplanationsOptions],
    ) -> None:
        super().__init__(options)
        self._method = find_method(DEFAULT_METHOD if method is None else method)
        self._layer, self._options = layer, pick_options(options, MethodOptions)
        check_options([self._method], layer, self._options)
        self._data = read_data(data)
        self._target, self._request_options = target, pick_options(options, RequestOptions)
        self._overlay = cast(OverlayOptions, pick_options(options, OverlayOptions))

    def _prepare(self, model: Any) -> None:
        self._request = prepare_request(
            model, self._data.to_inputs(model), self._target, **self._request_options
        )

    def _observe(self, step: int | None) -> Any:
        return self._request.explain(self._method, self._layer, self._options)

    def _draw(self, observation: Any) -> dict[str, list[bytes]]:
        attribution = observation
        if isinstance(attribution, Heatmap) and attribution.images is None:
            cmap = self._overlay["cmap"]
            grids = [
                heatmap.to_grid(threads=1, cmap=cmap or heatmap.cmap) for heatmap in attribution
            ]
            return {self._method.name: [grid.to_png(threads=1) for grid in grids]}
        pictures = attribution.overlay(**self._overlay, threads=1).pictures
        return {
            self._method.name: [b"".join(encode("picture.png", picture)) for picture in pictures]
        }
