"""What the API's answers look like, for its description."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "Classes",
    "Dataset",
    "Heatmap",
    "Histograms",
    "Image",
    "Images",
    "Kernel",
    "Layer",
    "Layers",
    "Model",
    "Problem",
    "Progress",
]

Kind = Literal["image", "volume", "sequence", "dense"]
# None stands for NaN and infinities.
Numbers = list[float | None]


class Problem(BaseModel):
    """What was wrong, what was found, and what would do."""

    detail: str


class Image(BaseModel):
    """An image that can be looked at."""

    id: str
    name: str
    uploaded: bool = Field(description="The image was uploaded, so that it can be removed.")


class Images(BaseModel):
    """Some of the images."""

    total: int
    images: list[Image]


class Class(BaseModel):
    """A class and what the model gives it."""

    index: int
    name: str | None
    value: float | None


class Classes(BaseModel):
    """The likeliest classes, the likeliest first."""

    kind: Literal["probability", "score"]
    top: list[Class]


class Tiles(BaseModel):
    """Where tiles are in a picture of levels without padding.

    Tile t is in row t // columns, column t % columns, and shows channel t // slices.
    """

    count: int
    columns: int
    height: int
    width: int
    slices: int = Field(description="Tiles of each channel: of a volume, a kernel.")
    joined: bool = Field(description="The tiles are parts of one picture.")
    step: int = Field(description="Only every so many-th pixel is there, of very large layers.")


class ChannelStats(BaseModel):
    """Statistics of each channel over its finite values; of a dense layer each unit's value."""

    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers
    zero_fraction: Numbers
    nonfinite: list[int]
    dead: list[int] = Field(description="Channels whose values are all the same finite value.")


class Layer(BaseModel):
    """What a layer gives for an image."""

    path: str
    shape: list[int] = Field(description="Without the batch axis.")
    stats: ChannelStats
    tiles: Tiles


class LayerSummary(BaseModel):
    """How a layer fares for an image."""

    dead: int | None = Field(description="Dead channels; null for dense layers.")
    min: float | None
    max: float | None
    mean: float | None
    nonfinite: int


class Layers(BaseModel):
    """How each node of the model fares for an image; null for those that are not drawn.

    In layers.png node i is in row i // columns, column i % columns, `side` pixels wide and high.
    """

    side: int
    columns: int
    layers: list[LayerSummary | None]


class Histograms(BaseModel):
    """How many values of each channel lie in each of so many equal parts from low to high."""

    bins: int
    low: Numbers
    high: Numbers
    counts: list[list[int]]


class Heatmap(BaseModel):
    """What a heatmap is of."""

    method: str
    target: int | None
    label: str | None
    score: float | None
    is_logit: bool
    signed: bool
    layer: str | None
    cmap: str = Field(description="The colormap that suits it.")
    zero_reason: str | None = Field(description="Why the map is zero everywhere, if it is.")


class Progress(BaseModel):
    """How far a long computation is."""

    state: Literal["none", "waiting", "running", "ready"] = Field(
        description="`none`: nobody asks for the result. `waiting`: the computation has not begun. "
        "`ready`: the result is kept and comes at once."
    )
    done: int = Field(ge=0, description="Finished samples or steps.")
    total: int = Field(ge=0, description="All samples or steps; 0 until that is known.")


class Kernel(BaseModel):
    """A layer's kernel; channels are output channels."""

    path: str
    shape: list[int]
    min: float | None
    max: float | None
    cmap: str = Field(description="The colormap that suits it.")
    tiles: Tiles


class TopImage(BaseModel):
    """An image that excites a channel; `id` is null where it is none of those at hand."""

    name: str
    image: str | None
    maximum: float | None


class Dataset(BaseModel):
    """Statistics of each channel over a dataset."""

    images: int
    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers
    zero_fraction: Numbers
    activating_images: list[int] = Field(
        description="Number of images with a value above zero in the channel."
    )
    dead: list[int]
    top: list[list[TopImage]]


class Node(BaseModel):
    """An input of the model, or what a layer gives."""

    path: str
    name: str
    type: str
    shape: list[int | None]
    dtype: str
    kind: Kind | None
    channels: int | None
    parameters: int
    drawn: bool = Field(description="Its activations can be asked for.")
    kernel: bool = Field(description="It has a kernel that can be asked for.")
    measured: bool = Field(description="There are statistics of it over a dataset.")
    group: int | None = Field(description="The innermost group that it is in.")


class Group(BaseModel):
    """Nodes that are shown as one until it is opened."""

    name: str
    kind: Literal["model", "branches", "unit"]
    title: str
    parent: int | None


class ModelClasses(BaseModel):
    """The classes of the model's output."""

    node: int
    count: int
    labels: list[str] | None


class Method(BaseModel):
    """A way to explain a class."""

    name: str
    summary: str
    source: str
    layer: bool = Field(description="It looks at a layer, which may be chosen.")


class Control(BaseModel):
    """A control of the page: an option, as actgrid.options defines it."""

    words: list[str] = Field(description="Words that the page offers; empty for other values.")
    limited: list[str] = Field(description="Words that take two limits, as in `range(0, 6)`.")
    default: str | int | float | None
    help: str
    none: str = Field(description="What no value stands for; empty if there is always a value.")


class Controls(BaseModel):
    """The controls of the views of the page, by the names of options."""

    layer: dict[str, Control]
    heatmap: dict[str, Control]


class DatasetSize(BaseModel):
    """Of what dataset there are statistics."""

    images: int


class Uploads(BaseModel):
    """What images may be added."""

    bytes: int = Field(description="Largest file.")
    pixels: int = Field(description="Largest image.")


class Model(BaseModel):
    """The model, and what can be asked for. Nodes are in the order in which they run."""

    name: str
    version: str
    live: bool
    parameters: int
    nodes: list[Node]
    edges: list[tuple[int, int]]
    inputs: list[int]
    outputs: list[int]
    groups: list[Group]
    classes: ModelClasses | None
    controls: Controls
    methods: list[Method]
    targets: bool = Field(description="Any class can be explained, not only the predicted one.")
    dataset: DatasetSize | None
    uploads: Uploads | None
    maximize: bool
    colormaps: dict[str, str] = Field(description="Base64 of 256 x 3 bytes RGB.")
