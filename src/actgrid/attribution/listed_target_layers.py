"""Choice of the layer of class activation maps in networks outside TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from actgrid.attribution.methods import list_layerless_methods
from actgrid.attribution.target_layers import TokenLayerError
from actgrid.errors import LayerError
from actgrid.models.layers import LayerInfo
from actgrid.models.network import Network, has_edges

__all__ = ["find_target_layer"]

# Parts of the names of operations that only move, drop, merge or repeat values, in lower case.
_MOVING = (
    *("crop", "depthtospace", "expanddims", "extract", "flatten", "pad", "pool", "reshape"),
    *("resize", "slice", "spacetodepth", "squeeze", "tile", "transpose", "unsqueeze", "upsample"),
)
# The same of operations that mix the positions of flattened values, or move them.
_MIXING = (
    *("attention", "einsum", "fullyconnected", "gather", "gemm", "gru", "lstm", "matmul", "rnn"),
    *("softmax", "transpose"),
)


def find_target_layer(
    network: Network,
    infos: Sequence[LayerInfo],
    rank: int,
    explained: str | None = None,
    output: str | None = None,
) -> LayerInfo:
    """Return the layer of a network that suits class activation maps.

    It is the last layer with floating-point values at more than one position and with as many axes
    as the explained input. If the network lists its connections, the layer must also lie between
    the input and the output, must come from trained weights and must not only move values; if the
    output has spatial axes, the last layer with weights must follow. Its positions must be those of
    the input, and not heads and tokens of attention, for example.

    Parameters
    ----------
    infos
        The layers of the network, in order.
    rank
        Number of axes of the explained input.
    explained
        Name of the explained input; None: it is not known.
    output
        Path of the layer whose output is explained; None: all outputs.

    Raises
    ------
    TokenLayerError
        If the network works on tokens of an image. Also a LayerError.
    LayerError
        If no layer is suitable.
    """
    candidates = [info for info in infos if _has_positions(info) and len(info.shape) == rank]
    if has_edges(network):
        edges = network.list_edges()
        outputs = list(network.outputs) if output is None else [output]
        names = {info.name for info in network.inputs} if explained is None else {explained}
        backward = [(target, source) for source, target in edges]
        trained = {info.path for info in infos if info.parameters}
        has_spatial_output = any(info.path in outputs and _has_positions(info) for info in infos)
        if has_spatial_output:
            # The layers before those with weights that compute the output.
            outputs = [path for path in _collect(backward, outputs) if path in trained]
            before_output = _collect(backward, _list_sources(edges, outputs))
        else:
            before_output = _collect(backward, outputs)
        suitable = before_output & _collect(edges, names) & _collect(edges, trained)
        candidates = [
            info for info in candidates if info.path in suitable and not _only_moves(info)
        ]
        if any(len(info.shape) == rank for info in network.inputs if info.name in names):
            positioned = _find_positioned_layers(infos, edges, names, rank)
            candidates = [info for info in candidates if info.path in positioned]
            tokens = {info.path for info in infos if len(info.shape) == 3 and _has_positions(info)}
            # One convolution of an image makes the tokens.
            convolutions = [
                info for info in infos if info.path in positioned and "conv" in info.type.lower()
            ]
            if rank == 4 and tokens & suitable and len(convolutions) < 2:
                embedding = (
                    f", or layer={candidates[-1].path!r}, the patch embedding" if candidates else ""
                )
                raise TokenLayerError(
                    "the model works on tokens: pass token_grid=(h, w), the number of patches in "
                    f"height and width, to use its last layer of tokens{embedding}; or use a "
                    f"method that needs no layer: {list_layerless_methods(network)}"
                )
    if not candidates:
        raise LayerError(
            "the model has no layer with a spatial output that corresponds to the input: choose a "
            f"layer, or use a method that needs no layer: "
            f"{list_layerless_methods(network)}"
        )
    return candidates[-1]


def _find_positioned_layers(
    infos: Sequence[LayerInfo], edges: Iterable[tuple[str, str]], names: set[str], rank: int
) -> set[str]:
    """Return the paths of the layers whose positions correspond to those of the input.

    They have the axes of the input, and come from it through layers of this kind. Between two of
    them there may be layers with other axes, such as a normalization of groups, if they do not mix
    or move positions and if the positions before and after are as many.

    Parameters
    ----------
    names
        Names of the explained inputs.
    rank
        Number of axes of these inputs.
    """
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        sources.setdefault(target, []).append(source)
    positioned, detours = set(names), set[str]()
    known_sides: set[tuple[int | None, ...]] = set()
    for info in infos:
        kind = info.type.replace("_", "").lower()
        before = set(sources.get(info.path, []))
        is_mixing = any(part in kind for part in _MIXING)
        if len(info.shape) != rank:
            if before & (positioned | detours) and not is_mixing:
                detours.add(info.path)
        elif (before & positioned and not ("matmul" in kind and len(before) > 1)) or (
            before & detours and not is_mixing and _get_sides(info) in known_sides
        ):
            positioned.add(info.path)
            known_sides.add(_get_sides(info))
    return positioned


def _get_sides(info: LayerInfo) -> tuple[int | None, ...]:
    return info.shape[2:] if info.data_format == "channels_first" else info.shape[1:-1]


def _collect(edges: Iterable[tuple[str, str]], starts: Iterable[str]) -> set[str]:
    """Return the names that edges (source, target) connect to a start, with the starts."""
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
    visited: set[str] = set()
    pending = list(starts)
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            pending += targets.get(name, [])
    return visited


def _list_sources(edges: Iterable[tuple[str, str]], targets: Iterable[str]) -> list[str]:
    chosen = set(targets)
    return [source for source, target in edges if target in chosen]


def _has_positions(info: LayerInfo) -> bool:
    """Return whether a layer has floating-point values at more than one position."""
    if not info.is_spatial or "float" not in info.dtype:
        return False
    return any(side != 1 for side in _get_sides(info))


def _only_moves(info: LayerInfo) -> bool:
    name = info.type.replace("_", "").lower()
    return not info.parameters and any(part in name for part in _MOVING)
