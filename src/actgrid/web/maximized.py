"""Images of the viewer that maximize a channel."""

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
# Where the model does not fix the size of images, synthesized ones have this height and width.
_SIDE = 224


class MaximizedImages:
    """Synthesizes images that maximize the channels of a model's layers."""

    def __init__(
        self,
        engine: Engine,
        viewed: ViewedModel,
        computations: Computations,
        preprocess: str | Callable[[Any], Any],
    ) -> None:
        self._engine, self._viewed = engine, viewed
        self._computations, self._preprocess = computations, preprocess

    def key(self, layer: int, channel: int, steps: int, seed: int) -> _Key:
        """Return what an image is kept by: all that it depends on, checked.

        Raises
        ------
        NotFoundError
            If there is no such layer or channel.
        OptionError
            If `steps` or `seed` cannot be used.
        """
        info = self._viewed.infos[self._viewed.drawable_layer(layer)]
        if not 0 <= channel < (info.channels or math.inf):
            raise NotFoundError(f"{info.path} has no channel {channel}: it has {info.channels}")
        steps = check_option(MaximizeOptions, "steps", steps)
        return "maximized", layer, channel, steps, check_option(MaximizeOptions, "seed", seed)

    def progress(self, key: _Key) -> dict[str, Any]:
        """Return how far the computation of an image is."""
        return self._computations.progress(key)

    async def get(self, key: _Key) -> bytes:
        """Return an image as an RGB PNG file."""
        _, layer, channel, steps, seed = key

        def climb(task: LongTask) -> bytes:
            finished = itertools.count(1)
            found = maximize(
                self._engine.model,
                self._viewed.infos[layer].path,
                channel,
                steps=steps,
                size=self._engine.size or _SIDE,
                preprocess=self._preprocess,
                seed=seed,
                progress=lambda: task.report(next(finished), steps),
            )
            return found.to_png()

        return await self._computations.get(key, climb)
