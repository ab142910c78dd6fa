"""`Explanations`: heatmaps of a network while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import prepare_request
from actgrid.callbacks.pictures import PictureCallback
from actgrid.callbacks.samples import read_data
from actgrid.encoding import encode
from actgrid.models.types import LayerLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExplanationsOptions, MethodOptions, OverlayOptions, RequestOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Explanations"]


@takes_options(ExplanationsOptions, batch_size=32)
class Explanations(PictureCallback):
    """Explains the same images again and again while a model is trained.

    Parameters
    ----------
    data, method, target, layer
        As in `actgrid.explain`; `data` also as in `ActivationGrids`. A target of None explains
        for each image the class that is predicted at that time, which changes as the model learns;
        name a class to follow it.
    **options
        See `actgrid.options.ExplanationsOptions`. `log_dir` and `folder` are as in
        `ActivationGrids`, with the method's name in the layer's place: the tag in TensorBoard is
        ``"gradcam"``, files are ``00_gradcam/STEP.png``. Of inputs with too many channels to be
        seen as images, the bare maps are drawn.

    Raises
    ------
    OptionError
        If an option cannot be used, or there is neither `log_dir` nor `folder`. Also a ValueError.
    ActgridError
        As `ActivationGrids`; when training begins: whatever `actgrid.explain` raises for these
        images and options.

    Warns
    -----
    RuntimeWarning
        As `ActivationGrids`.

    Notes
    -----
    The maps are made between two batches, by the thread that trains, and drawn and written by
    another, as in `ActivationGrids`. Methods that run a model hundreds of times for each image,
    such as ``rise`` or ``lime``, hold training up for as long as that takes.

    Examples
    --------
    >>> maps = actgrid.callbacks.Explanations(x_test[:4], target=3, log_dir="logs/gradcam")
    >>> model.fit(x_train, y_train, epochs=10, callbacks=[maps])
    """

    def __init__(
        self,
        data: Any,
        method: str = "gradcam",
        target: TargetLike = None,
        layer: LayerLike | None = None,
        **options: Unpack[ExplanationsOptions],
    ) -> None:
        super().__init__(options["every"], options["log_dir"], options["folder"])
        self._method = find_method(method)
        self._layer, self._options = layer, pick_options(options, MethodOptions)
        check_options([self._method], layer, self._options)
        self._data = read_data(data)
        self._target, self._request_options = target, pick_options(options, RequestOptions)
        self._overlay = cast(OverlayOptions, pick_options(options, OverlayOptions))

    def _prepare(self, model: Any) -> None:
        self._request = prepare_request(
            model, self._data.inputs(model), self._target, **self._request_options
        )

    def _look(self, step: int | None) -> Any:
        return self._request.explain(self._method, self._layer, self._options)

    def _draw(self, seen: Any) -> dict[str, list[bytes]]:
        if seen.images is None:
            cmap = self._overlay["cmap"]
            options = {"threads": 1} | ({} if cmap is None else {"cmap": cmap})
            return {self._method.name: [one.to_grid(**options).to_png(threads=1) for one in seen]}
        pictures = seen.overlay(**self._overlay, threads=1).pictures
        return {self._method.name: [b"".join(encode("picture.png", one)) for one in pictures]}
