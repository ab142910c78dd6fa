"""Which pixels of a model's input each place of an activation sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

from actgrid.models.data_formats import input_data_format
from actgrid.models.extraction import choose_calls, trace_inputs
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import map_tensors
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.loading import load_model
from actgrid.models.tracing import trace_model

__all__ = ["Box", "ReceptiveField", "receptive_fields"]

Length: TypeAlias = int | Fraction
# top, left, bottom, right; the last two are the first row and column outside.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that each place of an activation sees, in the model's input.

    Lengths are whole numbers, or fractions where layers enlarge.

    Attributes
    ----------
    size
        (height, width) of what one place sees.
    stride
        (y, x): how far apart what two neighbours see is.
    start
        (y, x): where what place (0, 0) sees begins; negative in the padding.

    Examples
    --------
    >>> field = ReceptiveField(size=(3, 3), stride=(2, 2), start=(-1, -1))
    >>> field.window((0, 4))
    (-1, 7, 2, 10)
    >>> field.box((0, 4), (224, 224))
    (0, 7, 2, 10)
    """

    size: tuple[Length, Length]
    stride: tuple[Length, Length]
    start: tuple[Length, Length]

    def window(self, place: Sequence[int]) -> Box:
        """Return what the place (y, x) sees, as if the image went on beyond its edges."""
        at_y, at_x = (
            start + int(at) * stride
            for at, stride, start in zip(place, self.stride, self.start, strict=True)
        )
        height, width = self.size
        # Of the pixels at the bounds none is seen in part.
        return math.ceil(at_y), math.ceil(at_x), math.floor(at_y + height), math.floor(at_x + width)

    def box(self, place: Sequence[int], size: tuple[int, int]) -> Box:
        """Return what the place (y, x) sees of an image of this (height, width).

        It is empty where that is padding alone.
        """
        height, width = size
        top, left, bottom, right = self.window(place)
        return (
            min(max(top, 0), height),
            min(max(left, 0), width),
            min(max(bottom, 0), height),
            min(max(right, 0), width),
        )


def receptive_fields(
    model: object, layers: object = None, x: Any = None
) -> dict[str, ReceptiveField | None]:
    """Return the receptive field of each layer's output, in pixels of the model's input.

    They are computed from the operations that TensorFlow runs, so that models of any kind are
    followed alike; see Araujo, Norris and Sim, *Computing Receptive Fields of Convolutional Neural
    Networks*, Distill 2019 (https://distill.pub/2019/computing-receptive-fields).

    Parameters
    ----------
    model
        A Keras model, or anything that `load_model` takes.
    layers
        Which layers, see `actgrid.Extractor`; None: every one with a spatial output.
    x
        An input, for a model whose input has no fixed size, which decides how much a strided
        layer pads.

    Returns
    -------
    dict
        Layer path -> ReceptiveField, in the order in which the layers run. None where a place
        sees the whole image (after global pooling, dense layers, attention), where what it sees
        cannot be followed (operations that are not known, branches of different strides), and
        where the output or the model's input is no image.

    Raises
    ------
    LayerError, ModelError
        As from an extractor, and if the model's input is not known.

    Notes
    -----
    What is the same at every place and comes from the whole image is left out: the gates of
    squeeze-and-excitation, the statistics of group normalization. Padding that mirrors pixels
    counts as padding.

    Examples
    --------
    >>> fields = receptive_fields("keras:VGG16")
    >>> fields["block5_conv3"].size
    (196, 196)
    """
    tf = tensorflow()
    loaded: Any = load_model(model)
    selection = Selection(layers)
    # With one image in the batch every shape is known, also where layers move axes about.
    inputs = map_tensors(
        lambda one: tf.TensorSpec((1, *one.shape[1:]), one.dtype) if one.shape.rank else one,
        trace_inputs(loaded, x),
    )
    fields: dict[str, ReceptiveField | None] = {}

    def trace(inputs: Any) -> None:
        calls = choose_calls(loaded, trace_model(loaded, inputs).calls, selection)
        states = _followed(
            tf.compat.v1.get_default_graph(), _start(loaded, tf.nest.flatten(inputs))
        )
        for call in calls:
            fields[call.info.path] = _field(call.info, states.get(call.tensor.name))

    GraphFunction(trace).trace(inputs)
    return fields


class _CannotFollow(Exception):  # noqa: N818
    """What an operation reads depends on more than places, or on what is not known."""


@dataclass(frozen=True)
class _Span:
    """Along one axis: index i reads the input from ``start + i * stride`` on, `size` pixels.

    Between SpaceToBatchND and BatchToSpaceND, which make dilated convolutions out of others,
    neighbours are `dilation` indices apart.
    """

    size: Fraction = Fraction(1)
    stride: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    dilation: int = 1

    def read(
        self, step: Fraction | int, first: Fraction | int, last: Fraction | int | None = None
    ) -> _Span:
        """Return the span of what reads, for index i, from ``i * step + first`` to ``... + last``.

        Of these only the whole numbers are read.
        """
        if self.dilation > 1 and step != 1:
            raise _CannotFollow
        last = first if last is None else last
        apart = self.stride * self.dilation
        return replace(
            self,
            size=self.size + apart * (last - first),
            stride=self.stride * step,
            start=self.start + apart * first,
        )

    def read_floor(self, step: Fraction, first: Fraction, more: tuple[int, int] = (0, 0)) -> _Span:
        """Return the span of what reads about ``floor(i * step + first)``: `more` on either side.

        Bounds are as close as one line below and one above all these floors can be.
        """
        whole = math.lcm(step.denominator, first.denominator)
        shared = math.gcd(int(step * whole), whole)
        least = int(first * whole) % shared
        return self.read(
            step,
            first - Fraction(whole - shared + least, whole) - more[0],
            first - Fraction(least, whole) + more[1],
        )

    def union(self, other: _Span) -> _Span:
        if (self.stride, self.dilation) != (other.stride, other.dilation):
            raise _CannotFollow
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return replace(self, start=start, size=end - start)


@dataclass(frozen=True)
class _Places:
    """A tensor that has places of the image along two of its axes.

    Where `width` is set, rows follow each other along one axis, which is both.
    """

    spans: tuple[_Span, _Span]
    axes: tuple[int, int]
    width: int | None = None

    def moved(self, axes: Callable[[int], int]) -> _Places:
        """Return the same along other axes."""
        y, x = self.axes
        return replace(self, axes=(axes(y), axes(x)))

    def read(self, axes: tuple[int, int], how: Callable[[_Span, int], _Span]) -> _Places:
        """Return what reads along these axes: `how` takes a span and 0 or 1."""
        if self.axes != axes or self.width is not None:
            raise _CannotFollow
        y, x = self.spans
        return replace(self, spans=(how(y, 0), how(x, 1)))

    def union(self, other: _Places) -> _Places:
        if (self.axes, self.width) != (other.axes, other.width):
            raise _CannotFollow
        (y, x), (other_y, other_x) = self.spans, other.spans
        return replace(self, spans=(y.union(other_y), x.union(other_x)))


class _Whole:
    """A tensor that depends on the image in any other way."""


_WHOLE = _Whole()
# Of a tensor; None where it does not depend on the image.
_State: TypeAlias = "_Places | _Whole | None"
_States: TypeAlias = "dict[str, _Places | _Whole]"


def _start(model: Any, inputs: Sequence[Any]) -> _States:
    """Return the states of a model's inputs."""
    images = [
        position
        for position, tensor in enumerate(inputs)
        if tensor is not None and tensor.shape.rank == 4
    ]
    states: _States = {one.name: _WHOLE for one in inputs if one is not None}
    if len(images) == 1:
        (position,) = images
        first = input_data_format(model, position) == "channels_first"
        axes = (2, 3) if first else (1, 2)
        states[inputs[position].name] = _Places((_Span(), _Span()), axes)
    return states


def _field(info: LayerInfo, state: _State) -> ReceptiveField | None:
    axes = (2, 3) if info.data_format == "channels_first" else (1, 2)
    if (
        not isinstance(state, _Places)
        or len(info.shape) != 4
        or state.axes != axes
        or any(span.dilation > 1 for span in state.spans)
    ):
        return None

    def both(name: str) -> tuple[Length, Length]:
        y, x = (getattr(span, name) for span in state.spans)
        return _plain(y), _plain(x)

    return ReceptiveField(both("size"), both("stride"), both("start"))


def _plain(number: Fraction) -> Length:
    return int(number) if number.denominator == 1 else number


def _followed(graph: Any, states: _States) -> _States:
    """Return the states of all tensors of a graph that depend on those given."""
    for operation in graph.get_operations():
        given = [states.get(tensor.name) for tensor in operation.inputs]
        if not any(given):
            continue
        found: Sequence[_State]
        try:
            found = _OPERATIONS[operation.type](operation, given)
        except (KeyError, _CannotFollow):
            found = [_WHOLE] * len(operation.outputs)
        for tensor, state in zip(operation.outputs, found, strict=True):
            if state:
                states[tensor.name] = state
    return states


# What each operation does. All raise _CannotFollow for what they cannot tell.


def _only(given: Sequence[_State], position: int = 0) -> _Places:
    """Return the state of the one input that depends on the image."""
    state = given[position]
    if not isinstance(state, _Places) or any(
        other for at, other in enumerate(given) if at != position
    ):
        raise _CannotFollow
    return state


def _constant(tensor: Any) -> Any:
    """Return the value of a tensor as a list or number."""
    value = tensorflow().get_static_value(tensor)
    if value is None:
        raise _CannotFollow
    return value.tolist()


def _shape(tensor: Any) -> list[int | None]:
    if tensor.shape.rank is None:
        raise _CannotFollow
    shape: list[int | None] = tensor.shape.as_list()
    return shape


def _known(sides: Sequence[int | None]) -> list[int]:
    if None in sides:
        raise _CannotFollow
    return list(sides)  # type: ignore[arg-type]


def _element_wise(operation: Any, given: Sequence[_State]) -> list[_State]:
    shape = _shape(operation.outputs[0])
    places: _Places | None = None
    for tensor, state in zip(operation.inputs, given, strict=True):
        if isinstance(state, _Places):
            moved = _broadcast(state, _shape(tensor), shape)
            places = moved if places is None else places.union(moved)
    if places is None:
        raise _CannotFollow
    for tensor, state in zip(operation.inputs, given, strict=True):
        if state is _WHOLE and not _same_everywhere(_shape(tensor), shape, places.axes):
            raise _CannotFollow
    return [places] * len(operation.outputs)


def _broadcast(places: _Places, sides: list[int | None], to: list[int | None]) -> _Places:
    shift = len(to) - len(sides)
    if any(sides[axis] == 1 != to[axis + shift] for axis in places.axes):
        raise _CannotFollow
    return places.moved(lambda axis: axis + shift)


def _same_everywhere(sides: list[int | None], to: list[int | None], axes: tuple[int, int]) -> bool:
    """Tell whether a tensor has one value for all of many places."""
    shift = len(to) - len(sides)
    return any(to[axis] != 1 for axis in axes) and all(
        axis < shift or sides[axis - shift] == 1 for axis in axes
    )


def _each(operation: Any, given: Sequence[_State]) -> Sequence[_State]:
    return given


def _no_part(operation: Any, given: Sequence[_State]) -> list[_State]:
    """Return the state of what knows shapes only."""
    return [None] * len(operation.outputs)


def _window_axes(operation: Any) -> tuple[int, int]:
    """Return which axes a convolution or a pooling goes along."""
    return (2, 3) if operation.get_attr("data_format") == b"NCHW" else (1, 2)


def _pads(operation: Any, shape: list[int | None], kernel: int, stride: int, axis: int) -> int:
    """Return how many pixels are added before the first; `kernel` with its holes."""
    padding = operation.get_attr("padding")
    if padding == b"EXPLICIT":
        return int(operation.get_attr("explicit_paddings")[2 * axis])
    if padding == b"VALID":
        return 0
    total = kernel - 1
    if stride > 1:
        (length,) = _known([shape[axis]])
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2


def _window(operation: Any, places: _Places, kernel: Sequence[int], holes: bool) -> list[_State]:
    axes = _window_axes(operation)
    shape, strides = _shape(operation.inputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations") if holes else [1] * 4

    def read(span: _Span, at: int) -> _Span:
        axis = axes[at]
        length = (kernel[at] - 1) * dilations[axis] + 1
        pads = _pads(operation, shape, length, strides[axis], axis)
        return span.read(strides[axis], -pads, length - 1 - pads)

    return [places.read(axes, read)] * len(operation.outputs)


def _convolution(operation: Any, given: Sequence[_State]) -> list[_State]:
    kernel = _known(_shape(operation.inputs[1])[:2])
    return _window(operation, _only(given), kernel, holes=True)


def _pooling(operation: Any, given: Sequence[_State]) -> list[_State]:
    sides = operation.get_attr("ksize")
    kernel = [sides[axis] for axis in _window_axes(operation)]
    return _window(operation, _only(given), kernel, holes=False)


def _transposed_convolution(operation: Any, given: Sequence[_State]) -> list[_State]:
    axes = _window_axes(operation)
    kernel = _known(_shape(operation.inputs[1])[:2])
    shape, strides = _shape(operation.outputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations")

    def read(span: _Span, at: int) -> _Span:
        # Index i of the input goes to those from i * stride - pads on.
        axis = axes[at]
        stride, length = strides[axis], (kernel[at] - 1) * dilations[axis] + 1
        pads = _pads(operation, shape, length, stride, axis)
        return span.read(
            Fraction(1, stride), Fraction(pads - length + 1, stride), Fraction(pads, stride)
        )

    return [_only(given, 2).read(axes, read)]


def _padded(operation: Any, given: Sequence[_State]) -> list[_State]:
    places, pads = _only(given), _constant(operation.inputs[1])
    return [places.read(places.axes, lambda span, at: span.read(1, -pads[places.axes[at]][0]))]


def _space_to_batch(operation: Any, given: Sequence[_State]) -> list[_State]:
    block, pads = (_constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise _CannotFollow

    def read(span: _Span, at: int) -> _Span:
        if span.dilation > 1:
            raise _CannotFollow
        return replace(span.read(1, -pads[at][0]), dilation=block[at])

    return [_only(given).read((1, 2), read)]


def _batch_to_space(operation: Any, given: Sequence[_State]) -> list[_State]:
    block, crops = (_constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise _CannotFollow

    def read(span: _Span, at: int) -> _Span:
        if span.dilation != block[at]:
            raise _CannotFollow
        return replace(span, dilation=1).read(1, crops[at][0])

    return [_only(given).read((1, 2), read)]


def _strided_slice(operation: Any, given: Sequence[_State]) -> list[_State]:
    places, shape = _only(given), _shape(operation.inputs[0])
    if places.width is not None:
        raise _CannotFollow
    begin, steps = (_constant(operation.inputs[at]) for at in (1, 3))

    def masked(name: str, bit: int) -> bool:
        return bool(operation.get_attr(f"{name}_mask") >> bit & 1)

    if any(masked("new_axis", bit) for bit in range(len(begin))):
        raise _CannotFollow
    spans = dict(zip(places.axes, places.spans, strict=True))
    moves: dict[int, int] = {}
    axis = kept = 0
    for bit in range(len(begin)):
        skipped = 1
        if masked("ellipsis", bit):
            skipped = len(shape) - len(begin) + 1
        elif axis in spans:
            if masked("shrink_axis", bit) or steps[bit] < 1:
                raise _CannotFollow
            first = 0 if masked("begin", bit) else begin[bit]
            if first < 0:
                first = max(first + _known([shape[axis]])[0], 0)
            spans[axis] = spans[axis].read(steps[bit], first)
        elif masked("shrink_axis", bit):
            axis += 1
            continue
        moves |= {axis + offset: kept + offset for offset in range(skipped)}
        axis, kept = axis + skipped, kept + skipped
    moves |= {axis + offset: kept + offset for offset in range(len(shape) - axis)}
    y, x = places.axes
    return [replace(places, spans=(spans[y], spans[x])).moved(moves.__getitem__)]


def _slice(operation: Any, given: Sequence[_State]) -> list[_State]:
    places, begin = _only(given), _constant(operation.inputs[1])
    if places.width is not None:
        return [_whole_axes(places, _shape(operation.inputs[0]), _shape(operation.outputs[0]))]
    return [places.read(places.axes, lambda span, at: span.read(1, begin[places.axes[at]]))]


def _whole_axes(places: _Places, before: list[int | None], after: list[int | None]) -> _Places:
    """Return places that are unchanged if their axes are."""
    if any(before[axis] != after[axis] for axis in places.axes):
        raise _CannotFollow
    return places


def _same_places(operation: Any, given: Sequence[_State], position: int = 0) -> list[_State]:
    """Return the state of what keeps axes, and the length of those that places are along."""
    places, before = _only(given, position), _shape(operation.inputs[position])
    return [_whole_axes(places, before, _shape(tensor)) for tensor in operation.outputs]


def _split(operation: Any, given: Sequence[_State]) -> list[_State]:
    return _same_places(operation, given, 1)


def _across_channels(operation: Any, given: Sequence[_State]) -> list[_State]:
    places = _only(given)
    if len(_shape(operation.inputs[0])) - 1 in places.axes:
        raise _CannotFollow
    return [places]


def _concatenation(operation: Any, given: Sequence[_State]) -> list[_State]:
    *tensors, axis = operation.inputs
    found: _Places | None = None
    for tensor, state in zip(tensors, given, strict=False):
        if state is None:
            continue
        if not isinstance(state, _Places):
            raise _CannotFollow
        if _constant(axis) % len(_shape(tensor)) in state.axes:
            raise _CannotFollow
        found = state if found is None else found.union(state)
    return [found]


def _stacked(operation: Any, given: Sequence[_State]) -> list[_State]:
    rank = len(_shape(operation.outputs[0]))
    new = operation.get_attr("axis") % rank
    found: _Places | None = None
    for state in given:
        if state is None:
            continue
        if not isinstance(state, _Places):
            raise _CannotFollow
        moved = state.moved(lambda axis: axis + (axis >= new))
        found = moved if found is None else found.union(moved)
    return [found]


def _unstacked(operation: Any, given: Sequence[_State]) -> list[_State]:
    places = _only(given)
    gone = operation.get_attr("axis") % len(_shape(operation.inputs[0]))
    return [_without(places, [gone])] * len(operation.outputs)


def _without(places: _Places, gone: Sequence[int]) -> _Places:
    """Return places along the axes that are left."""
    if set(gone) & set(places.axes):
        raise _CannotFollow
    return places.moved(lambda axis: axis - sum(one < axis for one in gone))


def _reduction(operation: Any, given: Sequence[_State]) -> list[_State]:
    places, axes = _only(given), _constant(operation.inputs[1])
    rank = len(_shape(operation.inputs[0]))
    gone = {axis % rank for axis in ([axes] if isinstance(axes, int) else axes)}
    found = _without(places, sorted(gone))
    return [places if operation.get_attr("keep_dims") else found]


def _transposition(operation: Any, given: Sequence[_State]) -> list[_State]:
    return [_only(given).moved(_constant(operation.inputs[1]).index)]


def _expansion(operation: Any, given: Sequence[_State]) -> list[_State]:
    new = _constant(operation.inputs[1])
    new = (new[0] if isinstance(new, list) else new) % len(_shape(operation.outputs[0]))
    return [_only(given).moved(lambda axis: axis + (axis >= new))]


def _squeeze(operation: Any, given: Sequence[_State]) -> list[_State]:
    shape = _shape(operation.inputs[0])
    gone = [axis % len(shape) for axis in operation.get_attr("squeeze_dims")]
    return [_without(_only(given), gone or [axis for axis, side in enumerate(shape) if side == 1])]


def _gathered(operation: Any, given: Sequence[_State]) -> list[_State]:
    places, axis = _only(given), _constant(operation.inputs[2])
    axis %= len(_shape(operation.inputs[0]))
    if axis in places.axes or operation.get_attr("batch_dims"):
        raise _CannotFollow
    more = len(_shape(operation.inputs[1])) - 1
    return [places.moved(lambda at: at + more * (at > axis))]


def _depth_to_space(operation: Any, given: Sequence[_State]) -> list[_State]:
    step = Fraction(1, operation.get_attr("block_size"))
    read = _only(given).read(_window_axes(operation), lambda span, at: span.read_floor(step, _ZERO))
    return [read]


def _space_to_depth(operation: Any, given: Sequence[_State]) -> list[_State]:
    block = operation.get_attr("block_size")
    axes = _window_axes(operation)
    return [_only(given).read(axes, lambda span, at: span.read(block, 0, block - 1))]


_ZERO, _HALF = Fraction(0), Fraction(1, 2)


def _resizing(more: tuple[int, int], nearest: bool = False) -> Callable[..., list[_State]]:
    """Return what a resize reads about the floor of where a pixel's centre comes from."""

    def resize(operation: Any, given: Sequence[_State]) -> list[_State]:
        before, after = (
            _known(_shape(tensor)[1:3]) for tensor in (operation.inputs[0], operation.outputs[0])
        )
        corners, centres = (
            operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")
        )
        if nearest and corners:
            raise _CannotFollow  # it rounds

        def read(span: _Span, at: int) -> _Span:
            old, new = before[at], after[at]
            if old == new:
                return span
            step = Fraction(old - 1, max(new - 1, 1)) if corners else Fraction(old, new)
            first = (_HALF * step - (0 if nearest else _HALF)) if centres else _ZERO
            exact = step.denominator == first.denominator == 1
            return span.read_floor(step, first, (0, 0) if exact else more)

        return [_only(given).read((1, 2), read)]

    return resize


def _matrix_product(operation: Any, given: Sequence[_State]) -> list[_State]:
    places = _only(given)
    rank = len(_shape(operation.inputs[0]))
    turned = "transpose_a" if operation.type == "MatMul" else "adj_x"
    if operation.get_attr(turned) or rank - 1 in places.axes:
        raise _CannotFollow
    shift = len(_shape(operation.outputs[0])) - rank
    return [places.moved(lambda axis: axis + shift)]


def _einsum(operation: Any, given: Sequence[_State]) -> list[_State]:
    position = next(at for at, state in enumerate(given) if state)
    places = _only(given, position)
    terms, product = operation.get_attr("equation").decode().split("->")
    labels = terms.split(",")
    if "." in terms:
        raise _CannotFollow

    def move(axis: int) -> int:
        label = labels[position][axis]
        if label not in product or terms.count(label) > 1:
            raise _CannotFollow
        return int(product.index(label))

    return [places.moved(move)]


def _reshaping(operation: Any, given: Sequence[_State]) -> list[_State]:
    places = _only(given)
    before, after = _shape(operation.inputs[0]), _shape(operation.outputs[0])
    if before == after:
        return [places]
    found: dict[int, tuple[int, _Span]] = {}
    width: int | None = None
    spans = dict(zip(places.axes, places.spans, strict=True))
    for old, new in _groups(_known(before), _known(after)):
        here = [axis for axis in old if axis in spans]
        if not here:
            continue
        if places.width is not None:
            # Rows that followed each other along one axis.
            if len(old) > 1:
                raise _CannotFollow
            if len(new) == 2 and after[new[1]] == places.width:
                return [_Places(places.spans, (new[0], new[1]))]
            if len(new) != 1:
                raise _CannotFollow
            return [replace(places, axes=(new[0], new[0]))]
        if old == list(places.axes) and len(new) == 1:
            return [_Places(places.spans, (new[0], new[0]), before[old[1]])]
        if len(here) > 1 or old[0] not in spans:
            raise _CannotFollow
        span = spans[old[0]]
        if len(old) == 1:  # an axis is cut into several: the first still counts places
            within = math.prod(_known([after[axis] for axis in new[1:]]))
            found[old[0]] = new[0], span.read(within, 0, within - 1) if within > 1 else span
        elif len(new) == 1:  # each place is repeated, or places interleave
            within = math.prod(_known([before[axis] for axis in old[1:]]))
            found[old[0]] = new[0], span.read_floor(Fraction(1, within), _ZERO)
        else:
            raise _CannotFollow
    if set(found) != set(places.axes):
        raise _CannotFollow  # an axis of one pixel, which cannot be told from any other
    (y, y_span), (x, x_span) = (found[axis] for axis in places.axes)
    return [_Places((y_span, x_span), (y, x), width)]


def _groups(before: list[int], after: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which axes become which when an array is reshaped, without those of length 1."""
    old = [axis for axis, side in enumerate(before) if side != 1]
    new = [axis for axis, side in enumerate(after) if side != 1]
    while old and new:
        first, second = [old.pop(0)], [new.pop(0)]
        sizes = before[first[0]], after[second[0]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                first.append(old.pop(0))
                sizes = sizes[0] * before[first[-1]], sizes[1]
            else:
                second.append(new.pop(0))
                sizes = sizes[0], sizes[1] * after[second[-1]]
        yield first, second


def _batch_norm(operation: Any, given: Sequence[_State]) -> list[_State]:
    if operation.get_attr("is_training"):
        raise _CannotFollow
    return [_only(given), *[None] * (len(operation.outputs) - 1)]


def _function_call(operation: Any, given: Sequence[_State]) -> list[_State]:
    graph = operation.graph._get_function(operation.get_attr("f").name).graph
    states = {
        tensor.name: state for tensor, state in zip(graph.inputs, given, strict=True) if state
    }
    states = _followed(graph, states)
    return [states.get(tensor.name) for tensor in graph.outputs]


# Operations whose every output value comes from the input values at the same place.
_ELEMENT_WISE = [
    *("Abs", "Acos", "Add", "AddN", "AddV2", "Asin", "Asinh", "Atan", "Atan2", "Atanh"),
    *("BiasAdd", "BroadcastTo", "Cast", "Ceil", "CheckNumerics", "ClipByValue", "Cos"),
    *("Cosh", "Digamma", "Div", "DivNoNan", "Elu", "EnsureShape", "Equal", "Erf", "Erfc"),
    *("Erfinv", "Exp", "Expm1", "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars"),
    *("Floor", "FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Identity", "Inv"),
    *("IsFinite", "IsInf", "IsNan", "LeakyRelu", "Less", "LessEqual", "Lgamma", "Log"),
    *("Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mod", "Mul"),
    *("MulNoNan", "Neg", "NotEqual", "Pow", "PreventGradient", "RealDiv", "Reciprocal"),
    *("Relu", "Relu6", "Rint", "Round", "Rsqrt", "Select", "SelectV2", "Selu", "Sigmoid"),
    *("Sign", "Sin", "Sinh", "Snapshot", "Softplus", "Softsign", "Sqrt", "Square"),
    *("SquaredDifference", "StopGradient", "Sub", "Tan", "Tanh", "TruncateDiv", "Xdivy"),
    *("Xlog1py", "Xlogy"),
]

_OPERATIONS: dict[str, Callable[[Any, Sequence[_State]], Sequence[_State]]] = {
    **dict.fromkeys(_ELEMENT_WISE, _element_wise),
    **dict.fromkeys(["IdentityN"], _each),
    **dict.fromkeys(["Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike"], _no_part),
    **dict.fromkeys(["Conv2D", "DepthwiseConv2dNative"], _convolution),
    **dict.fromkeys(["MaxPool", "AvgPool"], _pooling),
    "Conv2DBackpropInput": _transposed_convolution,
    **dict.fromkeys(["Pad", "PadV2", "MirrorPad"], _padded),
    "SpaceToBatchND": _space_to_batch,
    "BatchToSpaceND": _batch_to_space,
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    **dict.fromkeys(["SplitV", "Tile"], _same_places),
    "Split": _split,
    **dict.fromkeys(["Softmax", "LogSoftmax", "LRN"], _across_channels),
    "ConcatV2": _concatenation,
    "Pack": _stacked,
    "Unpack": _unstacked,
    **dict.fromkeys(["Mean", "Sum", "Max", "Min", "Prod", "Any", "All"], _reduction),
    "Transpose": _transposition,
    "ExpandDims": _expansion,
    "Squeeze": _squeeze,
    "GatherV2": _gathered,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ResizeNearestNeighbor": _resizing((0, 0), nearest=True),
    "ResizeBilinear": _resizing((0, 1)),
    "ResizeBicubic": _resizing((1, 2)),
    **dict.fromkeys(["MatMul", "BatchMatMulV2"], _matrix_product),
    "Einsum": _einsum,
    "Reshape": _reshaping,
    **dict.fromkeys(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"], _batch_norm),
    **dict.fromkeys(["PartitionedCall", "StatefulPartitionedCall"], _function_call),
}
