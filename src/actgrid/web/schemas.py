"""Pydantic models of the JSON responses, for the OpenAPI description."""

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
# None stands for NaN and infinity.
Numbers = list[float | None]


class Problem(BaseModel):
    """Response for a request that failed."""

    detail: str = Field(description="The value that is invalid, and the expected values.")


class Image(BaseModel):
    """An image of the viewer."""

    id: str
    name: str
    uploaded: bool = Field(
        description="Whether the image was uploaded. Only uploads can be removed."
    )


class Images(BaseModel):
    """A part of the list of images."""

    total: int = Field(description="Number of all images.")
    images: list[Image]


class Class(BaseModel):
    """A class and its score or probability."""

    index: int
    name: str | None
    value: float | None


class Classes(BaseModel):
    """Description of the classes with the highest scores, in descending order."""

    kind: Literal["probability", "score"]
    top: list[Class]


class Tiles(BaseModel):
    """Layout of the tiles in a picture without padding.

    Tile t is in row t // columns and column t % columns, and shows channel t // slices.
    """

    count: int = Field(description="Number of tiles.")
    columns: int = Field(description="Number of tiles in a row.")
    height: int = Field(description="Height of a tile in the picture, in pixels.")
    width: int = Field(description="Width of a tile in the picture, in pixels.")
    slices: int = Field(
        description="Number of tiles of each channel; more than 1 for volumes and kernels."
    )
    joined: bool = Field(description="Whether the tiles are parts of one picture.")
    step: int = Field(
        description="Distance of the sampled pixels in a tile; more than 1 for very large layers."
    )


class ChannelStats(BaseModel):
    """Statistics of each channel or dense unit over its finite values."""

    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers
    zero_fraction: Numbers
    nonfinite: list[int]
    dead: list[int] = Field(
        description="Indices of channels whose values are all the same finite value."
    )


class Layer(BaseModel):
    """Description of a layer's activation for an image: statistics and tile layout."""

    path: str
    shape: list[int] = Field(description="Shape of the activation without the batch axis.")
    stats: ChannelStats
    tiles: Tiles


class LayerSummary(BaseModel):
    """Summary of the activation of a layer for an image."""

    dead: int | None = Field(description="Number of dead channels; null for dense layers.")
    min: float | None
    max: float | None
    mean: float | None
    nonfinite: int


class Layers(BaseModel):
    """Summaries of all nodes of the model for an image.

    In layers.png, the thumbnail of node i is in row i // columns and column i % columns.
    """

    side: int = Field(description="Width and height of a thumbnail in pixels.")
    columns: int = Field(description="Number of thumbnails in a row.")
    layers: list[LayerSummary | None] = Field(
        description="Summary of each node; null for nodes that cannot be drawn."
    )


class Histograms(BaseModel):
    """Histogram of the finite values of each channel, with bins of equal width."""

    bins: int = Field(description="Number of bins.")
    low: Numbers = Field(description="Minimum of each channel.")
    high: Numbers = Field(description="Maximum of each channel.")
    counts: list[list[int]] = Field(
        description="Number of values in each bin, by channel. Units of a dense layer share one "
        "histogram."
    )


class Heatmap(BaseModel):
    """Description of a heatmap: its target class, score and layer."""

    method: str
    target: int | None = Field(description="Index of the explained class.")
    label: str | None = Field(description="Name of the explained class.")
    score: float | None = Field(description="Score of the explained class.")
    is_logit: bool = Field(description="Whether the score is a logit.")
    signed: bool = Field(description="Whether the attributions can be negative.")
    layer: str | None = Field(description="Path of the layer, for methods that use a layer.")
    cmap: str = Field(description="Recommended colormap.")
    zero_reason: str | None = Field(
        description="Reason if the attribution is zero everywhere; otherwise null."
    )


class Progress(BaseModel):
    """Progress of a long computation."""

    state: Literal["none", "waiting", "running", "ready"] = Field(
        description="`none`: no client has requested the result. `waiting`: the computation has "
        "not started. `running`: it has started. `ready`: the result is cached."
    )
    done: int = Field(ge=0, description="Number of finished samples or steps.")
    total: int = Field(ge=0, description="Number of all samples or steps; 0 until it is known.")


class Kernel(BaseModel):
    """Value range and tile layout of a layer's kernel; channels are output channels."""

    path: str
    shape: list[int]
    min: float | None
    max: float | None
    cmap: str = Field(description="Recommended colormap.")
    tiles: Tiles


class TopImage(BaseModel):
    """An image of a dataset that activates a channel most."""

    name: str
    image: str | None = Field(
        description="Id of the image; null if the image is not an image of the viewer."
    )
    maximum: float | None = Field(description="Maximum activation of the channel.")


class Dataset(BaseModel):
    """Statistics of each channel over a dataset."""

    images: int = Field(description="Number of images in the dataset.")
    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers
    zero_fraction: Numbers
    activating_images: list[int] = Field(
        description="Number of images with a value above zero in the channel."
    )
    dead: list[int] = Field(
        description="Indices of channels whose values are all the same finite value."
    )
    top: list[list[TopImage]] = Field(
        description="Images that activate each channel most, in descending order."
    )


class Node(BaseModel):
    """A node of the model: an input, or a call of a layer."""

    path: str
    name: str
    type: str
    shape: list[int | None]
    dtype: str
    kind: Kind | None
    channels: int | None
    parameters: int
    is_drawable: bool = Field(description="Whether activations of the node are available.")
    kernel: bool = Field(description="Whether a kernel of the node is available.")
    has_statistics: bool = Field(
        description="Whether dataset statistics of the node are available."
    )
    group: int | None = Field(description="Index of the innermost group that contains the node.")


class Group(BaseModel):
    """A group of nodes that the page folds into one card."""

    name: str
    kind: Literal["model", "branches", "unit"]
    title: str
    parent: int | None = Field(description="Index of the group that contains this group.")


class ModelClasses(BaseModel):
    """The classes of the model's output."""

    node: int = Field(description="Index of the node whose values are the scores.")
    count: int = Field(description="Number of classes.")
    labels: list[str] | None = Field(description="Names of the classes.")


class Method(BaseModel):
    """An attribution method."""

    name: str
    summary: str
    source: str = Field(description="Author, year and title of the paper.")
    layer: bool = Field(description="Whether the method uses a layer, which can be chosen.")


class Control(BaseModel):
    """A control of the page, with the definition of its option."""

    choices: list[str] = Field(description="Choices that the page offers; empty for other values.")
    choices_with_limits: list[str] = Field(
        description="Choices with two limits, such as `range(0, 6)`."
    )
    default: str | int | float | None
    help: str
    empty_meaning: str = Field(
        description="Meaning of an empty value; empty if a value is required."
    )


class Controls(BaseModel):
    """The controls of the page's panels, by the names of their options."""

    layer: dict[str, Control]
    heatmap: dict[str, Control]


class DatasetSize(BaseModel):
    """Description of the dataset over which statistics were computed."""

    images: int = Field(description="Number of images in the dataset.")


class Uploads(BaseModel):
    """Limits of uploaded image files."""

    bytes: int = Field(description="Maximum size of a file in bytes.")
    pixels: int = Field(description="Maximum number of pixels.")


class Model(BaseModel):
    """The graph of the model, and the available resources and options.

    Layers are identified by their index in `nodes`, which are in topological order.
    """

    name: str
    version: str = Field(description="Version of actgrid.")
    is_live: bool = Field(description="Whether a server runs the model; false for exported pages.")
    parameters: int = Field(description="Number of parameters of the model.")
    nodes: list[Node]
    edges: list[tuple[int, int]] = Field(description="Pairs of nodes: from, to.")
    inputs: list[int] = Field(description="Indices of the nodes.")
    outputs: list[int] = Field(description="Indices of the nodes.")
    groups: list[Group]
    classes: ModelClasses | None
    controls: Controls
    methods: list[Method]
    targets: bool = Field(
        description="Whether classes other than the predicted class can be explained."
    )
    dataset: DatasetSize | None
    uploads: Uploads | None = Field(description="Null if uploads are not accepted.")
    maximize: bool = Field(description="Whether maximized images are available.")
    colormaps: dict[str, str] = Field(
        description="Colormaps by name: 256 RGB entries, encoded in Base64."
    )
