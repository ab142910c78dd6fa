"""A pair of models as one network: layers of both, and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import LayerError, ModelError, OptionError, suggest
from actgrid.models import Extractor, LayerInfo, list_layers, load_model
from actgrid.models.extraction import get_extractor, trace_layers
from actgrid.models.inputs import free_batch_axis, map_tensors, prepare_inputs
from actgrid.models.network import InputInfo
from actgrid.models.networks import get_network
from actgrid.models.tracing import find_input_specs
from actgrid.models.types import LayersLike, ModelLike
from actgrid.statistics.kernel_alignment import compute_alignment_terms

__all__ = [
    "ALIGNMENT",
    "DIFFERENCE",
    "SIGNED_DIFFERENCE",
    "A",
    "B",
    "LayerPair",
    "ModelPair",
    "join_input",
]

Array = npt.NDArray[Any]

# Prefixes of the paths of a pair: the output in each model, the difference of the outputs, absolute
# and signed, and the terms of their alignment.
A, B, DIFFERENCE, ALIGNMENT = "a/", "b/", "difference/", "alignment/"
SIGNED_DIFFERENCE = "signed_difference/"


class LayerPair(NamedTuple):
    """Record of two corresponding layers.

    Attributes
    ----------
    a, b
        Descriptions of the layer in each model.
    """

    a: LayerInfo
    b: LayerInfo

    @property
    def has_other_format(self) -> bool:
        """Return whether only the second model puts the channels first, or only the first."""
        kinds = {"sequence", "image", "volume"}
        return (
            self.a.data_format != self.b.data_format
            and len(self.a.shape) == len(self.b.shape)
            and len(self.a.shape) in (3, 4, 5)
            and self.a.kind == self.b.kind in kinds
        )

    def arrange(self, values: Array) -> Array:
        """Return outputs of the second layer in the data format of the first layer."""
        if not self.has_other_format:
            return values
        return np.moveaxis(values, self.b.channel_axis, self.a.channel_axis)

    def describe_arranged(self) -> LayerInfo:
        """Return the description of outputs that `arrange` returned."""
        if not self.has_other_format:
            return self.b
        shape = list(self.b.shape)
        shape.insert(self.a.channel_axis, shape.pop(self.b.channel_axis))
        return replace(
            self.b, shape=tuple(shape), data_format=self.a.data_format, axes=(), grids=()
        )

    @property
    def has_equal_shapes(self) -> bool:
        """Return whether the outputs of both layers have equal shapes and channel axes.

        The position of the channel axis does not matter.
        """
        b = self.describe_arranged()
        return self.a.shape[1:] == b.shape[1:] and self.a.channel_axis == b.channel_axis

    def list_infos(self) -> list[LayerInfo]:
        """Return the descriptions of the outputs of the pair, see `ModelPair`."""
        path = self.a.path
        infos = [
            replace(self.a, path=A + path),
            replace(self.describe_arranged(), path=B + path),
            LayerInfo(ALIGNMENT + path, "CKA", (None, 3), "float64", "channels_last", 0, None),
        ]
        if self.has_equal_shapes:
            prefixes = DIFFERENCE, SIGNED_DIFFERENCE
            infos += [replace(self.a, path=prefix + path) for prefix in prefixes]
        return infos


class ModelPair:
    """Two models as one `Network` that computes the outputs of corresponding layers.

    Its outputs are, for each pair of layers and the path of the layer in the first model:

    ``a/PATH``, ``b/PATH``
        The outputs in each model, in the data format of the first model.
    ``difference/PATH``
        The absolute difference of the outputs, if their shapes are equal.
    ``signed_difference/PATH``
        The output of the first model minus that of the second, if their shapes are equal.
    ``alignment/PATH``
        (N, 3): the terms of the CKA of the batch, equal for each sample.

    Statistics of these outputs over images are those of a comparison.

    Parameters
    ----------
    a, b
        The models, as for `actgrid.load_model`.
    layers
        The layers of the first model, see `actgrid.Extractor`; or a dict from layer paths of the
        first model to those of the second. None: all layers with outputs that can be drawn,
        if the second model has a layer of the same path.
    names
        Names of the models. None: the names of their files, or the names of the models.
    """

    inputs: Sequence[InputInfo] = ()
    outputs: Sequence[str] = ()

    def __init__(
        self,
        a: ModelLike,
        b: ModelLike,
        layers: LayersLike | Mapping[str, str] = None,
        names: tuple[str, str] | None = None,
    ) -> None:
        self.a, self.b = load_model(a), load_model(b)
        name, other = names or (_name_model(a, self.a), _name_model(b, self.b))
        self.names = (name, other) if name != other else (f"{name} (a)", f"{other} (b)")
        if isinstance(layers, Mapping):
            paths = [*layers, *layers.values()]
            if not paths or not all(isinstance(path, str) for path in paths):
                raise OptionError(
                    "layers must be a dict from layer paths of the first model to those of the "
                    f"second: got {layers!r}"
                )
        self._layers = layers
        self._pairs: list[LayerPair] = []

    @property
    def name(self) -> str:
        """Names of both models."""
        return " and ".join(self.names)

    @property
    def pairs(self) -> list[LayerPair]:
        """The corresponding layers; empty before the models are described or run."""
        return list(self._pairs)

    def describe(self) -> None:
        """Find the corresponding layers now, if the inputs of both models are known.

        Raises
        ------
        LayerError
            If layers do not exist, or no layers correspond.
        """
        specs = {A: self._find_specs(self.a), B: self._find_specs(self.b)}
        if all(spec is not None for spec in specs.values()):
            self._match(specs)

    @staticmethod
    def _find_specs(model: Any) -> Any:
        network = get_network(model)
        if network is model:  # no Keras model: its layers are known from a list or a run
            return None
        return find_input_specs(model)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        """List the outputs of the pair.

        Parameters
        ----------
        x
            Inputs of both models, see `join_input`.
        """
        if not self._pairs:
            if x is None:
                raise ModelError("the layers of a pair of models are known only with an input")
            self._match(_split_input(x))
        return [info for pair in self._pairs for info in pair.list_infos()]

    def run_layers(self, x: Any) -> dict[LayerPair, tuple[Array, Array]]:
        """Run both models, and return the outputs of each pair of layers."""
        inputs = _split_input(x)
        values_a = self._get_extractor(A)(inputs[A])
        values_b = self._get_extractor(B)(inputs[B])
        return {
            pair: (values_a[pair.a.path], pair.arrange(values_b[pair.b.path]))
            for pair in self._pairs
        }

    def run(self, x: Any, paths: Sequence[str]) -> dict[str, Array]:
        """Run both models, and return the outputs of the pair: path -> array."""
        layers = self.run_layers(x)
        batch = max(len(a) for a, _ in layers.values())
        outputs: dict[str, Array] = {}
        for pair, values in layers.items():
            path, (a, b) = pair.a.path, map(_convert, values)
            outputs |= {A + path: a, B + path: b}
            if pair.has_equal_shapes and a.shape[1:] == b.shape[1:]:
                with np.errstate(invalid="ignore", over="ignore"):
                    difference = np.subtract(a, b)
                outputs |= {
                    SIGNED_DIFFERENCE + path: difference,
                    DIFFERENCE + path: np.abs(difference),
                }
            terms = np.full(3, np.nan)
            if len(a) == len(b) == batch:
                terms = compute_alignment_terms(a, b)
            outputs[ALIGNMENT + path] = np.tile(terms, (batch, 1))
        return {path: outputs[path] for path in paths}

    def fingerprint(self) -> str:
        """Return a text that is the same for equal models and equal layers."""
        prints = (get_network(model).fingerprint() for model in (self.a, self.b))
        layers = [(pair.a.path, pair.b.path) for pair in self._pairs]
        return f"{'-'.join(prints)} {layers or self._layers}"

    def _get_extractor(self, prefix: str) -> Extractor:
        if prefix == A:
            return get_extractor(self.a, [pair.a.path for pair in self._pairs])
        return get_extractor(self.b, list(dict.fromkeys(pair.b.path for pair in self._pairs)))

    def _match(self, inputs: Mapping[str, Any]) -> None:
        """Find the corresponding layers.

        Parameters
        ----------
        inputs
            Inputs of each model, as arrays or TensorSpecs.
        """
        known = self._list_infos(self.b, inputs[B])
        if isinstance(self._layers, Mapping):
            paths = dict(self._layers)
            infos = self._trace(self.a, list(paths), inputs[A])
            pairs = [(info, paths.get(path, path)) for path, info in infos.items()]
        elif self._layers is not None:
            infos = self._trace(self.a, self._layers, inputs[A])
            pairs = [(info, path) for path, info in infos.items()]
        else:
            infos = self._list_visible(self.a, inputs[A])
            renamed = self._pair_outputs(known)
            pairs = [(info, renamed.get(path, path)) for path, info in infos.items()]
        if self._layers is None or not _are_exact(self._layers):
            drawable = {path for path, info in known.items() if 2 <= len(info.shape) <= 5}
            pairs = [(info, other) for info, other in pairs if other in drawable]
        for _, other in pairs:
            if other not in known:
                raise LayerError(
                    f"the second model has no layer {other!r}{suggest(other, list(known))}; pass "
                    "layers as a dict from layers of the first model to those of the second"
                )
        if not pairs:
            raise LayerError(
                "no layers of the models have the same path: got "
                f"{_list_examples(infos)} and {_list_examples(known)}; pass layers as a dict from "
                "layers of the first model to those of the second"
            )
        self._pairs = [LayerPair(info, known[other]) for info, other in pairs]

    def _pair_outputs(self, known: Mapping[str, LayerInfo]) -> dict[str, str]:
        """Return outputs of the first model that correspond to others only by their order."""
        outputs_a, outputs_b = get_network(self.a).outputs, get_network(self.b).outputs
        if len(outputs_a) != len(outputs_b):
            return {}
        pairs = zip(outputs_a, outputs_b, strict=True)
        return {path: other for path, other in pairs if path not in known}

    def _list_visible(self, model: Any, inputs: Any) -> dict[str, LayerInfo]:
        """Return the layers that are compared by default, in the order in which they run.

        These are the layers with a spatial output, and all layers without layers inside that return
        a vector of each sample.
        """
        infos = self._list_infos(model, inputs)
        try:
            spatial = self._trace(model, None, inputs)
        except LayerError:  # no layer has a spatial output
            spatial = {}
        vectors = {
            path
            for path, info in infos.items()
            if len(info.shape) == 2 and not any(other.startswith(f"{path}/") for other in infos)
        }
        return {path: info for path, info in infos.items() if path in vectors or path in spatial}

    @staticmethod
    def _trace(model: Any, layers: LayersLike, inputs: Any) -> dict[str, LayerInfo]:
        """Return the descriptions of selected layers of a model."""
        extractor = get_extractor(model, layers)
        specs = map_tensors(free_batch_axis, prepare_inputs(extractor.model, inputs))
        infos = trace_layers(extractor, specs)
        if not infos:  # a network whose layers are known only after a run
            extractor(inputs)
            infos = extractor.layers
        return infos

    def _list_infos(self, model: Any, inputs: Any) -> dict[str, LayerInfo]:
        """Return the descriptions of all layers of a model, and of its attention scores."""
        infos = {info.path: info for info in list_layers(model, inputs)}
        try:
            return infos | self._trace(model, None, inputs)
        except LayerError:  # no layer has a spatial output
            return infos


def _name_model(spec: ModelLike, model: Any) -> str:
    """Return the name of the file of a model, or the name of the model."""
    is_path = isinstance(spec, (str, Path))
    return Path(spec).name if is_path else str(get_network(model).name)  # type: ignore[arg-type]


def join_input(a: Any, b: Any) -> dict[str, Any]:
    """Join an input of each model of a pair to the input of the pair.

    Parameters
    ----------
    a, b
        An array, or a dict of arrays by the name of the input.
    """
    joined: dict[str, Any] = {}
    for prefix, x in ((A, a), (B, b)):
        entries = x if isinstance(x, Mapping) else {"": x}
        joined |= {prefix + name: value for name, value in entries.items()}
    return joined


def _split_input(x: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of each model from the input of the pair."""
    inputs: dict[str, Any] = {}
    for prefix in (A, B):
        entries = {
            name.removeprefix(prefix): value for name, value in x.items() if name.startswith(prefix)
        }
        inputs[prefix] = entries[""] if list(entries) == [""] else entries
    return inputs


def _convert(values: Array) -> Array:
    """Return activations as floating-point numbers that can be subtracted."""
    if values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float64 if values.dtype.kind in "iub" else np.float32)


def _are_exact(layers: Any) -> bool:
    """Return whether layers are given by their paths alone, or as a dict."""
    if isinstance(layers, Mapping):
        return True
    items = [layers] if isinstance(layers, str) or not isinstance(layers, Sequence) else layers
    return all(isinstance(item, str) and not set(item) & set("*?") for item in items)


def _list_examples(paths: Mapping[str, Any]) -> str:
    names = list(paths)
    return ", ".join(names[:4] or ["none"]) + (", ..." if len(names) > 4 else "")
