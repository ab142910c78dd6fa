"""Scores of the classes while channels of some layers are switched off."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import NotFoundError, OptionError
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import as_tensors
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.tracing import flatten_outputs
from actgrid.web.engine import Engine
from actgrid.web.layers import TOP_CLASSES, describe_classes
from actgrid.web.viewed import ViewedModel

__all__ = ["Ablation"]

Array = npt.NDArray[Any]
# Channels that are switched off: node -> channels.
Channels = Mapping[int, tuple[int, ...]]

_LAYER = r"[0-9]{1,9}:[0-9]{1,9}(?:,[0-9]{1,9})*"


@dataclass(frozen=True)
class _MaskedOutput:
    """Function of the input and a mask for each layer that returns the output of the model.

    The masks are inputs, so that other channels of the same layers need no new trace.

    Parameters
    ----------
    layers
        Path and channel axis of each layer.
    """

    layers: tuple[tuple[str, int], ...]

    def __call__(self, model: Any, inputs: Any, *masks: Any) -> Any:
        def make_replacement(axis: int, mask: Any) -> Callable[[Any], Any]:
            def switch_off(output: Any) -> Any:
                tf = tensorflow()
                shape = [1] * len(output.shape)
                shape[axis] = -1
                # Not a product, because NaN times 0 is NaN.
                masked = tf.where(tf.reshape(mask, shape), output, tf.zeros((), output.dtype))
                masked.set_shape(output.shape)
                return masked

            return switch_off

        replacements = {
            path: make_replacement(axis, mask)
            for (path, axis), mask in zip(self.layers, masks, strict=True)
        }
        return flatten_outputs(trace_network(model, inputs, replacements).results)[0]


class Ablation:
    """Computes the scores of the classes with switched-off channels, whose values are zero.

    Parameters
    ----------
    engine
        Engine that runs the model.
    viewed
        Nodes and classes of the model.
    """

    def __init__(self, engine: Engine, viewed: ViewedModel) -> None:
        self._engine, self._viewed = engine, viewed

    def parse_channels(self, text: str) -> dict[int, tuple[int, ...]]:
        """Parse channels of layers, such as ``"4:0,3;9:1"``, and check that they exist.

        Raises
        ------
        OptionError
            If the text has another form. Also a ValueError.
        NotFoundError
            If a layer or channel does not exist. Also a LookupError.
        """
        if not re.fullmatch(f"{_LAYER}(?:;{_LAYER})*", text):
            raise OptionError(
                "channels must name a layer and its channels, or several joined by semicolons: got "
                f"{text[:80]!r}; expected a form like '4:0,3;9:1'"
            )
        channels: dict[int, set[int]] = {}
        for part in text.split(";"):
            layer, _, numbers = part.partition(":")
            node = self._viewed.check_drawable(int(layer))
            info = self._viewed.infos[node]
            count = info.channels
            if count is None:
                raise NotFoundError(f"the layer {info.path} has no fixed number of channels")
            indices = set(map(int, numbers.split(",")))
            if max(indices) >= count:
                raise NotFoundError(
                    f"the layer {info.path} has no channel {max(indices)}: channels are 0 to "
                    f"{count - 1}"
                )
            channels.setdefault(node, set()).update(indices)
        return {node: tuple(sorted(channels[node])) for node in sorted(channels)}

    def compute_scores(self, x: Array, channels: Channels) -> Array:
        """Run the model on an input with switched-off channels, and return the scores.

        Parameters
        ----------
        x
            Input of the model, a batch of one sample.

        Raises
        ------
        LayerError
            If channels of a layer cannot be switched off. Also a KeyError.
        """
        check_compiled(get_network(self._engine.model), "switching channels off")
        tf = tensorflow()
        infos = [self._viewed.infos[node] for node in channels]
        masks = []
        for info, indices in zip(infos, channels.values(), strict=True):
            mask = np.ones(info.channels or 0, np.bool_)
            mask[list(indices)] = False
            masks.append(tf.constant(mask))
        body = _MaskedOutput(tuple((info.path, info.channel_axis) for info in infos))
        function = compile_function(self._engine.model, body)
        batch = np.concatenate([x] * (self._engine.input.spec.shape[0] or 1))
        scores: Array = function(as_tensors(batch), *masks).numpy()[0]
        return scores

    def describe(self, before: Array, after: Array) -> dict[str, Any]:
        """Return the classes with the highest scores before or after the change, for JSON.

        Parameters
        ----------
        before, after
            Scores of the output of the model.
        """
        before, after = (self._viewed.complete_scores(scores) for scores in (before, after))
        best = {*np.argsort(-before)[:TOP_CLASSES].tolist()}
        best |= {*np.argsort(-after)[:TOP_CLASSES].tolist()}
        indices = sorted(best, key=lambda index: -after[index])
        described, new = (
            describe_classes(scores, indices, self._viewed.labels) for scores in (before, after)
        )
        top = [
            entry | {"before": old["value"]}
            for entry, old in zip(new["top"], described["top"], strict=True)
        ]
        return {"kind": described["kind"], "top": top}
