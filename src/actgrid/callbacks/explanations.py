"""`Explanations`: heatmaps of a network while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actgrid.attribution.explaining import Labels, ask
from actgrid.attribution.methods import check_options, find_method
from actgrid.callbacks.pictures import PictureCallback
from actgrid.callbacks.samples import read_data
from actgrid.encoding import encode
from actgrid.models.types import LayerLike, TargetLike
from actgrid.option_groups import complete_options
from actgrid.option_types import integer_option
from actgrid.options import OverlayOptions

__all__ = ["Explanations"]


class Explanations(PictureCallback):
    """Explains the same images again and again while a model is trained.

    Parameters
    ----------
    data, method, target, layer, labels, image_input, batch_size, options
        As in `actgrid.explain`; `data` also as in `ActivationGrids`. A target of None explains
        for each image the class that is predicted at that time, which changes as the model learns;
        name one to follow it.
    every, log_dir, folder
        As in `ActivationGrids`, with the method's name in the layer's place: the tag in
        TensorBoard is ``"gradcam"``, files are ``00_gradcam/STEP.png``.
    alpha, cmap, clip
        How the maps are drawn over the images, see `actgrid.Heatmap.overlay`. Of inputs with too
        many channels to be seen as images, the bare maps are drawn.

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
        *,
        every: str | int = "epoch",
        log_dir: str | Path | None = None,
        folder: str | Path | None = None,
        labels: Labels = None,
        image_input: int | str | None = None,
        batch_size: int = 32,
        alpha: float = 0.5,
        cmap: str | None = None,
        clip: float = 99,
        **options: Any,
    ) -> None:
        super().__init__(every, log_dir, folder)
        self._method = find_method(method)
        check_options([self._method], layer, options)
        self._layer, self._options = layer, options
        integer_option("batch_size", batch_size, 1)
        self._data = read_data(data)
        self._question_of = (target, labels, image_input, batch_size)
        overlay = {"alpha": alpha, "cmap": cmap, "clip": clip}
        self._overlay = complete_options(OverlayOptions, overlay)

    def _prepare(self, model: Any) -> None:
        self._question = ask(model, self._data.inputs(model), *self._question_of)

    def _look(self, step: int | None) -> Any:
        return self._question.explain(self._method, self._layer, self._options)

    def _draw(self, seen: Any) -> dict[str, list[bytes]]:
        if seen.images is None:
            cmap = self._overlay["cmap"]
            options = {"threads": 1} | ({} if cmap is None else {"cmap": cmap})
            return {self._method.name: [one.to_grid(**options).to_png(threads=1) for one in seen]}
        pictures = seen.overlay(**self._overlay, threads=1).pictures
        return {self._method.name: [b"".join(encode("picture.png", one)) for one in pictures]}
