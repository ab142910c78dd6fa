"""Pydantic models of the JSON responses, for the OpenAPI description."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "Ablation",
    "Attention",
    "Classes",
    "ColorRange",
    "Dataset",
    "Difference",
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
    "Relevance",
]

Kind = Literal["image", "volume", "sequence", "dense", "attention", "heads"]
InputKind = Literal["image", "sequence", "volume", "table", "text"]
# None stands for NaN and infinity.
Numbers = list[float | None]


class Problem(BaseModel):
    """JSON response for a request that failed, with a message about the reason."""

    detail: str = Field(description="The value that is invalid, and the expected values.")


class Image(BaseModel):
    """JSON object with the id and name of an image that the viewer can show."""

    id: str
    name: str
    uploaded: bool = Field(
        description="Whether the image was uploaded. Only uploads can be removed."
    )


class Images(BaseModel):
    """JSON response with a part of the list of images, and their total number."""

    total: int = Field(description="Number of all images.")
    images: list[Image]


class Class(BaseModel):
    """JSON object with the index, name and score (or probability) of a class."""

    index: int
    name: str | None
    value: float | None


class Classes(BaseModel):
    """JSON response with the classes of an image, from the highest score down."""

    kind: Literal["probability", "score"]
    top: list[Class]


class AblatedClass(Class):
    """JSON object with the score of a class before and after channels are switched off."""

    before: float | None = Field(description="Score before; `value` is the score after.")


class Ablation(BaseModel):
    """JSON response with the scores of classes while channels of some layers are switched off.

    The classes are those with the highest scores before or after, from the highest score after
    down.
    """

    kind: Literal["probability", "score"]
    top: list[AblatedClass]


class Tiles(BaseModel):
    """JSON object with the layout of the channel tiles in a picture without padding.

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
    """JSON object with mean, std, minimum, maximum and zeros of each channel or unit.

    The statistics are those of the finite values of a layer's activation for one image.
    """

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
    """JSON response with channel statistics and tile layout of a layer for an image."""

    path: str
    shape: list[int] = Field(description="Shape of the activation without the batch axis.")
    stats: ChannelStats
    tiles: Tiles


class ColorRange(BaseModel):
    """JSON response with the values of the lowest and the highest colour of a layer's tiles.

    These are the values that levels 0 and 255 stand for. Values beyond have the same colours.
    """

    low: Numbers = Field(
        description="Value of level 0 of each tile; a single value if all tiles have the same "
        "scale. Equal to `high` for a tile that is drawn in one colour."
    )
    high: Numbers = Field(description="Value of level 255, as `low`.")
    low_meaning: str = Field(description="Meaning of `low`, such as `minimum`.")
    high_meaning: str = Field(description="Meaning of `high`, such as `maximum`.")


class Difference(Layer):
    """JSON response with the differences between two models in a layer for an image.

    The statistics are those of the activation of the model minus that of the second model.
    """

    largest: Numbers = Field(description="Largest absolute difference of each channel.")
    limit: float | None = Field(
        description="Largest absolute difference of all channels. Levels 0 and 255 of "
        "difference.png stand for -limit and limit."
    )
    cmap: str = Field(description="Recommended colormap.")


class Relevance(BaseModel):
    """JSON response with the contribution of the channels of a layer to the score of a class."""

    path: str
    relevance: Numbers = Field(
        description="Sum over the positions of the activation times the gradient of the score."
    )


class LayerSummary(BaseModel):
    """JSON object that summarizes the activation of a layer for an image."""

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
    """JSON response with a histogram of the finite values of each channel of a layer.

    The bins of a histogram have equal width.
    """

    bins: int = Field(description="Number of bins.")
    low: Numbers = Field(description="Minimum of each channel.")
    high: Numbers = Field(description="Maximum of each channel.")
    counts: list[list[int]] = Field(
        description="Number of values in each bin, by channel. Units of a dense layer share one "
        "histogram."
    )


class TokenGrid(BaseModel):
    """JSON object with the grid of image patches that the tokens of a transformer form.

    The patches are in row-major order.
    """

    height: int = Field(description="Number of patches in a column.")
    width: int = Field(description="Number of patches in a row.")
    leading: int = Field(description="Number of tokens before the patches, such as class tokens.")
    trailing: int = Field(description="Number of tokens after the patches.")


class Attention(BaseModel):
    """JSON response with the heads, queries and keys of a layer's attention for an image.

    Level l of head h, query q and key k in attention.bin stands for the attention weight
    l / 255 * maxima[h][q].
    """

    path: str = Field(description="Path of the attention scores.")
    heads: int = Field(description="Number of heads.")
    queries: list[str] = Field(
        description="Names of the queries: tokens of a text, `row,column` of patches, or positions."
        " Empty for padding."
    )
    keys: list[str] = Field(description="Names of the keys, as those of the queries.")
    query_grid: TokenGrid | None = Field(description="Grid of patches that the queries form.")
    key_grid: TokenGrid | None = Field(description="Grid of patches that the keys form.")
    maxima: list[list[float]] = Field(
        description="Largest attention weight of each query, by head."
    )


class Slices(BaseModel):
    """JSON object with the positions of the slices of a volume in the picture of its heatmap.

    Slice i is in row i // columns and column i % columns.
    """

    count: int = Field(description="Number of slices.")
    columns: int = Field(description="Number of slices in a row.")
    height: int = Field(description="Height of a slice in pixels.")
    width: int = Field(description="Width of a slice in pixels.")


class Token(BaseModel):
    """JSON object with a token of a text, its attribution and its colours."""

    text: str
    value: float | None
    background: str = Field(description="Colour of the attribution, such as `#ff0000`.")
    color: str = Field(description="Colour in which the text is readable.")


class Heatmap(BaseModel):
    """JSON response with the target class, score and layer of a heatmap."""

    kind: InputKind
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
    slices: Slices | None = Field(description="Slices in the picture of a volume's heatmap.")
    tokens: list[Token] | None = Field(description="Tokens of a text, without padding.")


class Score(BaseModel):
    """JSON object with the value of a metric for a heatmap."""

    metric: str
    value: float | None = Field(description="Value; null if the metric is not defined.")
    better: Literal["higher", "lower", ""] = Field(description="Direction of better values.")
    summary: str


class Scores(BaseModel):
    """JSON response with the metrics of a heatmap."""

    method: str
    target: int | None = Field(description="Index of the explained class.")
    scores: list[Score]


class Progress(BaseModel):
    """JSON response with the state and progress of a long computation."""

    state: Literal["none", "waiting", "running", "ready"] = Field(
        description="`none`: no client has requested the result. `waiting`: the computation has "
        "not started. `running`: it has started. `ready`: the result is cached."
    )
    done: int = Field(ge=0, description="Number of finished samples or steps.")
    total: int = Field(ge=0, description="Number of all samples or steps; 0 until it is known.")


class Kernel(BaseModel):
    """JSON response with the value range and tile layout of the kernel of a layer.

    The channels of the tile layout are the output channels of the kernel.
    """

    path: str
    shape: list[int]
    min: float | None
    max: float | None
    cmap: str = Field(description="Recommended colormap.")
    tiles: Tiles


class TopImage(BaseModel):
    """JSON object with one of the dataset's images that activate a channel most."""

    name: str
    image: str | None = Field(
        description="Id of the image; null if the image is not an image of the viewer."
    )
    maximum: float | None = Field(description="Maximum activation of the channel.")


class Dataset(BaseModel):
    """JSON response with statistics of each channel of a layer over a dataset.

    They come from the saved results of `actgrid measure`.
    """

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


class NodeAttention(BaseModel):
    """JSON object with the attention that can be requested for a node."""

    layer: int = Field(description="Index of the node that computes the attention.")
    path: str = Field(description="Path of the attention scores.")
    heads: int | None = Field(description="Number of heads; null if it is not known.")


class Node(BaseModel):
    """JSON object with a node of the model's graph: an input or a call of a layer."""

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
    attention: NodeAttention | None = Field(
        description="Attention of the node, or of the composite layer or transformer block whose "
        "output the node is; null if there is none."
    )
    group: int | None = Field(description="Index of the innermost group that contains the node.")


class Group(BaseModel):
    """JSON object with a group of nodes that the page can collapse into one card."""

    name: str
    kind: Literal["model", "block", "branches", "unit"]
    title: str
    parent: int | None = Field(description="Index of the group that contains this group.")


class ModelClasses(BaseModel):
    """JSON object with the classes of the model's output."""

    node: int = Field(description="Index of the node whose values are the scores.")
    count: int = Field(description="Number of classes.")
    labels: list[str] | None = Field(description="Names of the classes.")


class Method(BaseModel):
    """JSON object with an attribution method that the page offers."""

    name: str
    summary: str
    source: str = Field(description="Author, year and title of the paper.")
    layer: bool = Field(description="Whether the method uses a layer, which can be chosen.")
    is_compared: bool = Field(description="Whether the page compares the method at first.")


class Control(BaseModel):
    """JSON object with choices, default and help text of a control of the page."""

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
    """JSON object with the controls of the layer panel and the heatmap panel."""

    layer: dict[str, Control]
    heatmap: dict[str, Control]


class DatasetSize(BaseModel):
    """JSON object with the size of the dataset over which statistics were computed."""

    images: int = Field(description="Number of images in the dataset.")


class Uploads(BaseModel):
    """JSON object with the limits of uploaded files."""

    bytes: int = Field(description="Maximum size of a file in bytes.")
    pixels: int = Field(description="Maximum number of pixels of an image.")
    suffixes: list[str] = Field(description="Suffixes of the accepted files, such as `.png`.")


class OtherModel(BaseModel):
    """JSON object with the second model, which is compared with the first.

    Its resources have the paths of those of the first model, with `/api/other` in place of `/api`.
    """

    name: str
    parameters: int = Field(description="Number of parameters of the model.")
    layers: list[int | None] = Field(
        description="For each node, the index of the node with the same path in the second model; "
        "null if there is none that can be drawn."
    )
    has_classes: bool
    shared_scale: str = Field(
        description="Name of the normalization that takes two values, for pictures of both models "
        "in one colour scale."
    )


class Model(BaseModel):
    """The graph of the model, and the available resources and options.

    Layers are identified by their index in `nodes`, which are in topological order.
    """

    name: str
    version: str = Field(description="Version of actgrid.")
    is_live: bool = Field(description="Whether a server runs the model; false for exported pages.")
    parameters: int = Field(description="Number of parameters of the model.")
    input_kind: InputKind = Field(description="Kind of the samples that the model takes.")
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
    other: OtherModel | None = Field(description="Second model; null if there is none.")
    maximize: bool = Field(description="Whether maximized images are available.")
    switches: bool = Field(description="Whether channels can be switched off.")
    colormaps: dict[str, str] = Field(
        description="Colormaps by name: 256 RGB entries, encoded in Base64."
    )
