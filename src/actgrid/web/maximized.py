"""Images of the viewer that maximize a channel (activation maximization)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from actgrid.attribution import maximize
from actgrid.errors import NotFoundError
from actgrid.option_groups import check_option
from actgrid.options import MaximizeOptions
from actgrid.web.computations import Computations
from actgrid.web.engine import Engine
from actgrid.web.scheduling import LongTask
from actgrid.web.viewed import ViewedModel

__all__ = ["MaximizedImages"]

_Key = tuple[str, int, int, int, int]
# Height and width of images for a model whose input size is not fixed.
_SIDE = 224


class MaximizedImages:
    """Synthesizes and caches images that maximize the channels of a model's layers.

    Parameters
    ----------
    engine
        Engine that runs the model.
    viewed
        Nodes of the model.
    computations
        Runs the optimization and caches the images.
    preprocess
        See `actgrid.maximize`.
    """

    def __init__(
        self,
        engine: Engine,
        viewed: ViewedModel,
        computations: Computations,
        preprocess: str | Callable[[Any], Any],
    ) -> None:
        self._engine, self._viewed = engine, viewed
        self._computations, self._preprocess = computations, preprocess

    def make_key(self, layer: int, channel: int, steps: int, seed: int) -> _Key:
        """Check the parameters of a maximized image, and return its cache key.

        Raises
        ------
        NotFoundError
            If the layer or channel does not exist.
        OptionError
            If `steps` or `seed` is invalid.
        """
        info = self._viewed.infos[self._viewed.check_drawable(layer)]
        if not 0 <= channel < (info.channels or math.inf):
            raise NotFoundError(f"{info.path} has no channel {channel}: it has {info.channels}")
        steps = check_option(MaximizeOptions, "steps", steps)
        return "maximized", layer, channel, steps, check_option(MaximizeOptions, "seed", seed)

    def get_progress(self, key: _Key) -> dict[str, Any]:
        """Return the progress of the computation of a maximized image, for JSON."""
        return self._computations.get_progress(key)

    async def get(self, key: _Key) -> bytes:
        """Return an image that maximizes a channel as an RGB PNG file."""
        _, layer, channel, steps, seed = key

        def compute(task: LongTask) -> bytes:
            finished_steps = itertools.count(1)
            image = maximize(
                self._engine.model,
                self._viewed.infos[layer].path,
                channel,
                steps=steps,
                size=self._engine.input.size or _SIDE,
                preprocess=self._preprocess,
                seed=seed,
                progress=lambda: task.report(next(finished_steps), steps),
            )
            return image.to_png()

        return await self._computations.get(key, compute)
