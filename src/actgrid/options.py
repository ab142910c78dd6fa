"""Every option once: its name, type, default, allowed values, one line of help.

Options are the keys of annotated `typing.TypedDict` classes, which group them. Python functions
take them as ``**options: Unpack[...]``, so that editors and type checkers know them, and
`actgrid.option_groups.takes_options` checks them. The command line, the HTTP API, the viewer and
the tables of the documentation are derived from the same definitions.
"""

from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypedDict

from actgrid.option_groups import UNSET, Option
from actgrid.option_types import (
    AnyOf,
    Baseline,
    ByteCount,
    Channels,
    Choice,
    Colormap,
    FileFormat,
    Flag,
    Integer,
    IntegerOrObject,
    NameOrPosition,
    Normalize,
    Number,
    Object,
    Size,
    Text,
)

# Positions of the channel axis.
DATA_FORMATS = ("channels_last", "channels_first")


class LevelMapOptions(TypedDict, total=False):
    """How values become levels and colours."""

    normalize: Annotated[
        str | tuple[str, float, float],
        Option(
            Normalize(),
            "standard",
            "How values become levels: standard, minmax, symmetric, percentile(lo, hi) or "
            "range(lo, hi).",
        ),
    ]
    cmap: Annotated[
        str, Option(Colormap(), "viridis", "Name of a colormap of matplotlib or the package cmap.")
    ]


class TileLevelOptions(LevelMapOptions, total=False):
    """How values become levels and colours."""

    scope: Annotated[
        str,
        Option(
            Choice(("channel", "layer")),
            "channel",
            "Statistics that normalize each tile: those of its channel, or of the whole layer.",
        ),
    ]


class GridOptions(TileLevelOptions, total=False):
    """How tiles are drawn and laid out."""

    columns: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Tiles in a row.",
            none="as many as bring the picture nearest to square",
        ),
    ]
    padding: Annotated[int, Option(Integer(0, 1024), 1, "Pixels between tiles, before zooming.")]
    zoom: Annotated[
        int,
        Option(
            Integer(1, 4096),
            1,
            "Integer factor by which the picture is enlarged (nearest neighbour).",
        ),
    ]
    background: Annotated[
        int, Option(Integer(0, 255), 0, "Level of the padding and of unused cells.")
    ]
    order: Annotated[
        str | Iterable[int],
        Option(
            Channels(("index", "mean", "std", "max", "zeros")),
            "index",
            "Order of the channels: index; mean, std, max or zeros (largest first); or the "
            "channels to draw, such as 3,0-2.",
        ),
    ]
    token_grid: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            None,
            "Height and width of the tiles that tokens of a sequence are drawn as.",
            none="a sequence is one picture, tokens by channels",
        ),
    ]


class BackendOptions(TypedDict, total=False):
    """Speed and memory."""

    backend: Annotated[
        str,
        Option(
            Choice(("auto", "native", "numba", "numpy")),
            "auto",
            "Implementation that draws: auto is the first available of native, numba and numpy.",
        ),
    ]


class DeviceBackendOptions(TypedDict, total=False):
    """Speed and memory."""

    backend: Annotated[
        str,
        Option(
            Choice(("auto", "native", "numba", "numpy", "tensorflow")),
            "auto",
            "Implementation that draws: tensorflow draws on the device of the model; auto is that "
            "on a GPU, else the first available of native, numba and numpy.",
        ),
    ]


class ThreadOptions(TypedDict, total=False):
    """Speed and memory."""

    threads: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Maximum number of threads that draw or measure.",
            none="one for each processor",
        ),
    ]


class RenderOptions(GridOptions, BackendOptions, ThreadOptions, total=False):
    """Options of drawing activations."""


class SampleOptions(TypedDict, total=False):
    """Which sample of a batch is shown."""

    sample: Annotated[int, Option(Integer(), 0, "Position of the sample in the batch.")]


class KindOptions(TypedDict, total=False):
    """What an array holds."""

    data_format: Annotated[
        str | None,
        Option(
            Choice(DATA_FORMATS),
            "channels_last",
            "Position of the channel axis: channels_last or channels_first.",
            none="that of the layer, where it is known, else channels_last",
        ),
    ]
    kind: Annotated[
        str | None,
        Option(
            Choice(("image", "volume", "sequence", "dense", "kernel")),
            None,
            "What the array is: image, volume, sequence, dense or kernel.",
            none="what is known of the layer, else decided by the rank",
        ),
    ]


class ArrayOptions(SampleOptions, KindOptions, total=False):
    """Which part of an array is drawn, and what it holds."""


class RenderArrayOptions(RenderOptions, ArrayOptions, total=False):
    """Options of `actgrid.render`."""


class RenderModelOptions(
    GridOptions, DeviceBackendOptions, ThreadOptions, ArrayOptions, total=False
):
    """Options of `actgrid.render_model`."""


class FileOptions(TypedDict, total=False):
    """Output files."""

    format: Annotated[
        str, Option(FileFormat(), "png", "Image format of the pictures: png, webp, jpg, tiff.")
    ]
    compression: Annotated[
        str,
        Option(Choice(("fast", "small", "none")), "fast", "Compression of PNG files."),
    ]


class WeightFileOptions(RenderOptions, FileOptions, total=False):
    """Options of drawing weights to files."""


class RenderFileOptions(RenderArrayOptions, FileOptions, total=False):
    """Options of drawing activations to files."""


class ModelOptions(TypedDict, total=False):
    """How the model is loaded."""

    weights: Annotated[
        str | Path,
        Option(
            Text(
                "imagenet|random|FILE",
                "imagenet, random (which Keras calls None) or a weights file",
                ("imagenet", "random"),
            ),
            "imagenet",
            "Weights of a keras:NAME model: imagenet, random, or a weights file.",
        ),
    ]
    safe_mode: Annotated[
        bool,
        Option(
            Flag(),
            True,
            "Refuse model files that hold code (Lambda layers) and SavedModels whose operations "
            "access files, the network or Python.",
        ),
    ]


class LayerOptions(TypedDict, total=False):
    """Which layers are shown."""

    layers: Annotated[
        Any,
        Option(
            Object("a layer path, glob, Keras layer class, index or function", "LAYER"),
            None,
            "Layer path, glob, Keras layer class or index into model.layers.",
            none="every layer with a spatial output",
            is_repeatable=True,
        ),
    ]


class PreparationOptions(TypedDict, total=False):
    """Size and scaling of the model's input."""

    size: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            None,
            "Height and width of the input in pixels, or one number for both.",
            none="the size that the model fixes, else that of each image",
        ),
    ]
    preprocess: Annotated[
        str | Callable[[Any], Any],
        Option(
            Object(
                "auto, none, unit, a name in keras.applications, or a function",
                "NAME",
                ("auto", "none", "unit"),
            ),
            "auto",
            "Scaling of pixels 0 to 255: none; unit (divided by 255); the name of a network in "
            "keras.applications; auto: what the model needs. For render_images and measure_images "
            "of arrays in Python also prepared: they are the model's input as they are.",
        ),
    ]


class InputOptions(PreparationOptions, total=False):
    """How images become the model's input."""

    fit: Annotated[
        str,
        Option(
            Choice(("crop", "pad", "stretch")),
            "crop",
            "How images of another shape are fitted: the middle is cropped, the image is padded, "
            "or stretched.",
        ),
    ]


class BatchOptions(TypedDict, total=False):
    """Speed and memory."""

    batch_size: Annotated[
        int, Option(Integer(1), 8, "Maximum number of samples in one run of the model.")
    ]


class TopOptions(TypedDict, total=False):
    """Statistics of channels."""

    top: Annotated[
        int, Option(Integer(1, 10_000), 9, "Number of top images to keep for each channel.")
    ]


class StatisticsOptions(TopOptions, total=False):
    """Statistics of channels."""

    top_channels: Annotated[
        int | str,
        Option(
            AnyOf(("all",), Integer(1)),
            8,
            "Number of channels of each layer whose top images are shown, those with the largest "
            "values; all takes 0.1 MB of memory for each.",
        ),
    ]


class StreamOptions(TypedDict, total=False):
    """How a run over many images goes on."""

    shard_size: Annotated[
        int,
        Option(
            Integer(1),
            100,
            "Number of images in a shard: a tar file, a task of Ray, a step of statistics.",
        ),
    ]
    on_error: Annotated[
        str | None,
        Option(
            Choice(("skip", "raise")),
            None,
            "skip: record an image that cannot be used, and go on; raise: stop.",
            none="raise for single files, else skip",
        ),
    ]
    resume: Annotated[
        bool, Option(Flag(), False, "Continue an earlier run of the same options, if there is one.")
    ]
    overwrite: Annotated[
        bool,
        Option(Flag(), False, "Replace the run in the output: the files it recorded are removed."),
    ]
    engine: Annotated[
        Any,
        Option(
            Object("local, ray or a RayEngine", "local|ray", ("local", "ray")),
            "local",
            "What does the work: this process (local), or Ray.",
        ),
    ]


class RayOptions(TypedDict, total=False):
    """Where Ray does the work."""

    actors: Annotated[
        int, Option(Integer(1), 2, "Number of processes, each with the model, that work.")
    ]
    num_gpus: Annotated[float, Option(Number(), 0, "GPUs of each actor, such as 1 or 0.5.")]
    address: Annotated[
        str | None,
        Option(
            Text("ADDRESS"),
            None,
            "Address of a Ray cluster to join; auto for the one at hand.",
            none="Ray on this machine alone",
        ),
    ]


class FileLayoutOptions(TypedDict, total=False):
    """Output files."""

    sink: Annotated[
        str,
        Option(
            Choice(("folders", "tar")),
            "folders",
            "folders: one for each image; tar: WebDataset shards.",
        ),
    ]


class SinkOptions(FileLayoutOptions, total=False):
    """Output files."""

    statistics: Annotated[
        bool, Option(Flag(), False, "Also measure the channels over all images, as measure does.")
    ]


class ProgressOptions(TypedDict, total=False):
    """What is shown meanwhile."""

    progress: Annotated[bool, Option(Flag(), False, "Show a progress bar, on a terminal.")]


class MeasureImagesOptions(
    InputOptions,
    BatchOptions,
    ThreadOptions,
    StatisticsOptions,
    StreamOptions,
    ProgressOptions,
    total=False,
):
    """Options of `actgrid.measure_images`."""


class DrawingOptions(GridOptions, BackendOptions, FileOptions, total=False):
    """Options of the pictures of a run."""


class RenderImagesOptions(DrawingOptions, SinkOptions, MeasureImagesOptions, total=False):
    """Options of `actgrid.render_images`."""


class RunOptions(
    InputOptions, BatchOptions, ThreadOptions, StreamOptions, FileLayoutOptions, total=False
):
    """Options of `actgrid.runs.Run`."""


class TargetOptions(TypedDict, total=False):
    """What is explained."""

    method: Annotated[
        str,
        Option(
            Object("the name of an attribution method", "METHOD"),
            "gradcam",
            "Attribution method; actgrid explain --list lists all.",
            is_repeatable=True,
        ),
    ]
    target: Annotated[
        Any,
        Option(
            Object("a class name or index, a function, or these by output", "CLASS"),
            None,
            "Class name or index. For one of several outputs of the model: OUTPUT=CLASS on the "
            "command line, {output: class} in Python. A model that ends in one sigmoid has the "
            "classes 0 and 1.",
            none="the predicted class",
            is_repeatable=True,
        ),
    ]
    layer: Annotated[
        Any,
        Option(
            Object("a layer path, or an index into model.layers", "LAYER"),
            None,
            "Layer that methods such as gradcam explain by: its path, or index into model.layers.",
            none="the last layer between image and score that has a height, a width and learned "
            "weights, before any upsampling",
        ),
    ]


class LabelOptions(TypedDict, total=False):
    """What the classes are called."""

    labels: Annotated[
        Any,
        Option(
            Object("a list of names, imagenet, or a text file with a name on each line", "FILE"),
            None,
            "Names of the classes: a list in Python, a text file with a name on each line, or "
            "imagenet. Of several outputs of the model: OUTPUT=FILE on the command line, a dict by "
            "output in Python.",
            none="those of ImageNet for whole networks of keras.applications and for demo",
            is_repeatable=True,
        ),
    ]


class ImageInputOptions(TypedDict, total=False):
    """Which of several inputs is the image."""

    image_input: Annotated[
        int | str | None,
        Option(
            NameOrPosition("INPUT", "the name or position of an input"),
            None,
            "Name or position of the input that is the image.",
            none="the only one that is an image",
        ),
    ]


class ClipOptions(TypedDict, total=False):
    """Which values of a heatmap are told apart."""

    clip: Annotated[
        float,
        Option(Number(0, 100), 99, "Percentile of a map that is drawn as its largest value."),
    ]


class OverlayOptions(ClipOptions, total=False):
    """How heatmaps are drawn over images."""

    alpha: Annotated[float, Option(Number(0, 1), 0.5, "Opacity of the colours; 1 hides the image.")]
    cmap: Annotated[
        str | None,
        Option(
            Colormap(),
            None,
            "Colormap of the heatmap: a name of matplotlib or the package cmap.",
            none="viridis, or RdBu_r for signed maps",
        ),
    ]


class ColumnOptions(TypedDict, total=False):
    """How many pictures are side by side."""

    columns: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Pictures in a row.",
            none="as many as bring the sheet nearest to square",
        ),
    ]


class SheetOptions(ColumnOptions, total=False):
    """How pictures are laid out."""

    padding: Annotated[int, Option(Integer(0, 1024), 1, "Pixels between pictures.")]


class ContourOptions(ClipOptions, ColumnOptions, ThreadOptions, total=False):
    """Options of `Heatmap.contours`."""


class HeatmapOptions(OverlayOptions, ColumnOptions, ThreadOptions, total=False):
    """Options of `Heatmap.overlay`."""


class LevelOptions(ClipOptions, ThreadOptions, total=False):
    """Options of `Heatmap.levels`."""


class StyleOptions(TypedDict, total=False):
    """What is drawn of heatmaps."""

    style: Annotated[
        str,
        Option(
            Choice(("overlay", "contours", "map")),
            "overlay",
            "overlay: colours over the image; contours: lines; map: the map without the image.",
        ),
    ]


class SeedOptions(TypedDict, total=False):
    """Random numbers."""

    seed: Annotated[int, Option(Integer(0, 2**31 - 1), 0, "Seed of the random numbers.")]


class MaximizeOptions(SeedOptions, total=False):
    """How images are synthesized."""

    steps: Annotated[int, Option(Integer(1, 4096), 128, "Number of optimization steps.")]
    parametrization: Annotated[
        str,
        Option(
            Choice(("fourier", "pixel")),
            "fourier",
            "What is optimized: spatial frequencies with the colours of photos, or pixels.",
        ),
    ]
    learning_rate: Annotated[float, Option(Number(), 0.05, "Learning rate of Adam.")]
    total_variation: Annotated[
        float,
        Option(
            Number(),
            0.0,
            "Weight of the differences between neighbouring pixels, which are penalized.",
        ),
    ]
    jitter: Annotated[
        float,
        Option(Number(), 0.07, "Largest random shift, as a fraction of the shorter side."),
    ]
    rotate: Annotated[float, Option(Number(), 10, "Largest random rotation in degrees.")]
    scale: Annotated[
        float,
        Option(Number(0, 0.99), 0.2, "Largest random change of size, as a fraction."),
    ]


class RgbOptions(TypedDict, total=False):
    """How images of many channels are shown."""

    rgb_channels: Annotated[
        Sequence[int] | None,
        Option(
            Channels(),
            None,
            "Channels of the images drawn as red, green and blue, such as 3,2,1.",
            none="those of an RGB image; other images are drawn as gray tiles, one a channel",
        ),
    ]


class ChannelOptions(RgbOptions, total=False):
    """Which channels are maximized, and how they are shown."""

    channels: Annotated[
        Any,
        Option(
            Channels(takes_names=True),
            None,
            "Channels to maximize, such as 3,0-2, or the name of a class.",
            none="all channels",
        ),
    ]


class MaximizeImageOptions(
    MaximizeOptions,
    PreparationOptions,
    LabelOptions,
    ImageInputOptions,
    RgbOptions,
    SheetOptions,
    BatchOptions,
    total=False,
):
    """Options of `actgrid.maximize`."""


class DiagramOptions(TypedDict, total=False):
    """How the boxes of a diagram are drawn."""

    side: Annotated[
        int, Option(Integer(12, 1024), 160, "Length of the longest side of a box in pixels.")
    ]
    width: Annotated[
        int, Option(Integer(1, 1 << 16), 1600, "Width in pixels after which a new row begins.")
    ]
    names: Annotated[bool, Option(Flag(), True, "Write names and shapes under the boxes.")]
    legend: Annotated[bool, Option(Flag(), True, "Show which colour is which layer type.")]


class ModelDiagramOptions(DiagramOptions, LevelMapOptions, SampleOptions, total=False):
    """Options of `actgrid.diagram`."""


class StepOptions(TypedDict, total=False):
    """When a training callback looks at the model, and where its results go."""

    every: Annotated[
        str | int,
        Option(
            AnyOf(("epoch",), Integer(1)),
            "epoch",
            "When the model is looked at: after every epoch, or after this number of batches.",
        ),
    ]


class WatchOptions(StepOptions, total=False):
    """When a training callback looks at the model, and where its results go."""

    log_dir: Annotated[
        str | Path | None,
        Option(
            Object("a folder or URL", "FOLDER"),
            None,
            "Folder for TensorBoard, best one of its own.",
            none="nothing is written for TensorBoard",
        ),
    ]


class WatchFileOptions(WatchOptions, total=False):
    """When a training callback looks at the model, and where its results go."""

    folder: Annotated[
        str | Path | None,
        Option(
            Object("a folder", "FOLDER"),
            None,
            "Folder for picture files.",
            none="no files are written",
        ),
    ]


class MethodOptions(TypedDict, total=False):
    """Options of attribution methods, each of which takes some."""

    seed: Annotated[
        int, Option(Integer(0, 2**31 - 1), UNSET, "Seed of the method's random numbers.")
    ]
    # More points would not be told apart, and Gauss-Legendre takes time with their cube.
    steps: Annotated[int, Option(Integer(2, 1024), UNSET, "Number of points on the path.")]
    samples: Annotated[int, Option(Integer(1), UNSET, "Number of random samples.")]
    noise: Annotated[
        float,
        Option(Number(), UNSET, "Standard deviation of the noise, as a fraction of the range."),
    ]
    baseline: Annotated[
        Any,
        Option(
            Baseline(("mean",)),
            UNSET,
            "Value of pixels that are hidden or where a path begins: a number, one for each "
            "channel such as 0,0.5,1, or mean.",
            none="the mean colour of each segment (lime alone)",
        ),
    ]
    quadrature: Annotated[
        str,
        Option(
            Choice(("gauss-legendre", "trapezoid")),
            UNSET,
            "Rule by which the integral is computed.",
        ),
    ]
    complete: Annotated[
        bool,
        Option(
            Flag(),
            UNSET,
            "Spread what the quadrature misses, so that values sum to the rise of the score.",
        ),
    ]
    reduce: Annotated[
        str,
        Option(Choice(("max", "norm", "sum")), UNSET, "How the values of the colours become one."),
    ]
    token_grid: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            UNSET,
            "Height and width of the grid of a layer's tokens.",
            none="square, without leading class tokens",
        ),
    ]
    max_channels: Annotated[
        int | None,
        Option(
            Integer(1),
            UNSET,
            "Maximum number of channels, those of the largest standard deviation.",
            none="all channels",
        ),
    ]
    weighting: Annotated[
        str,
        Option(Choice(("softmax", "probability")), UNSET, "How scores become channel weights."),
    ]
    patch: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            UNSET,
            "Height and width of the patch that hides pixels.",
            none="a seventh of the image's shorter side",
        ),
    ]
    stride: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            UNSET,
            "Pixels between neighbouring patches, down and across.",
            none="half a patch",
        ),
    ]
    grid_size: Annotated[
        int, Option(Integer(1), UNSET, "Number of cells of a random mask along each side.")
    ]
    keep_probability: Annotated[
        float,
        Option(Number(0, 1, is_open=True), UNSET, "Probability that a cell of a mask is seen."),
    ]
    segments: Annotated[
        Any,
        Option(
            IntegerOrObject(2, "a function of an image or an array of labels"),
            UNSET,
            "Number of superpixels.",
        ),
    ]
    kernel_width: Annotated[
        float, Option(Number(0, is_open=True), UNSET, "Width of the kernel that weights samples.")
    ]
    ridge: Annotated[float, Option(Number(), UNSET, "Strength of the ridge penalty.")]
    features: Annotated[int, Option(Integer(1), UNSET, "Number of superpixels in the mask.")]


class PixelOptions(TypedDict, total=False):
    """What heatmaps are drawn over."""

    pixels: Annotated[
        Any,
        Option(
            Object("uint8 pixels of the images, (N, H, W, 3)", "FILE"),
            None,
            "Images that the maps are drawn over.",
            none="the photos in their own size, or the input",
        ),
    ]


class RequestOptions(LabelOptions, ImageInputOptions, BatchOptions, PixelOptions, total=False):
    """What explanations are made of, whatever the method."""


class ExplainOptions(RequestOptions, MethodOptions, total=False):
    """Options of `actgrid.explain`."""


class CompareOptions(RequestOptions, OverlayOptions, total=False):
    """Options of `actgrid.compare_methods`."""


class ExplanationsOptions(
    WatchFileOptions,
    RequestOptions,
    OverlayOptions,
    MethodOptions,
    total=False,
):
    """Options of `actgrid.callbacks.Explanations`."""


class ActivationGridsOptions(WatchFileOptions, RenderOptions, KindOptions, total=False):
    """Options of `actgrid.callbacks.ActivationGrids`."""


class HealthOptions(WatchOptions, BatchOptions, total=False):
    """Options of `actgrid.callbacks.ChannelHealth`."""

    lost: Annotated[
        float,
        Option(
            Number(0, 1),
            0.5,
            "Fraction of its living channels that a layer may lose before a warning is given.",
        ),
    ]


class MovieOptions(StepOptions, RenderOptions, KindOptions, total=False):
    """Options of `actgrid.callbacks.TrainingMovie`."""

    format: Annotated[
        str, Option(Choice(("webp", "gif")), "webp", "Format of the animation: webp or gif.")
    ]
    milliseconds: Annotated[
        int, Option(Integer(1, 655_350), 200, "Milliseconds that each frame is shown.")
    ]
    hold: Annotated[
        int, Option(Integer(1, 655_350), 1000, "Milliseconds that the last frame is shown.")
    ]
    loop: Annotated[
        int, Option(Integer(0, 65_535), 0, "Number of times the movie is played; 0: for ever.")
    ]


class ViewerOptions(TypedDict, total=False):
    """What the viewer shows and keeps."""

    statistics: Annotated[
        Any,
        Option(
            Object("the folder or stats.npz of measure, or a DatasetStats", "FOLDER"),
            None,
            "Statistics over a dataset to show as well, as measure writes them.",
            none="no statistics are shown",
        ),
    ]
    cache_bytes: Annotated[
        int, Option(ByteCount(), 512 << 20, "Memory for activations that are kept.")
    ]


class UploadOptions(TypedDict, total=False):
    """What images the page can add."""

    upload_bytes: Annotated[
        int, Option(ByteCount(), 32 << 20, "Largest image file that can be added.")
    ]
    upload_pixels: Annotated[
        int, Option(Integer(1), 50_000_000, "Largest number of pixels of an image that is added.")
    ]


class ServerOptions(TypedDict, total=False):
    """Where the page is served."""

    host: Annotated[
        str,
        Option(
            Text("ADDRESS"),
            "127.0.0.1",
            "Address to listen at; an address that others can reach needs a token.",
        ),
    ]
    port: Annotated[int, Option(Integer(0, 65535), 8000, "Port to listen at; 0: any free port.")]
    token: Annotated[
        str | None,
        Option(
            Text("TOKEN"),
            None,
            "Token that requests must bring.",
            none="a random one if others can reach the address",
        ),
    ]
    allowed_hosts: Annotated[
        Sequence[str],
        Option(
            Object("a list of names", "NAME"),
            (),
            "Further names of this server, where there is no token.",
            is_repeatable=True,
        ),
    ]


class CellOptions(TypedDict, total=False):
    """Where the page is shown."""

    height: Annotated[int, Option(Integer(1), 800, "Height of the notebook cell in pixels.")]
    address: Annotated[
        str | None,
        Option(
            Text("ADDRESS"),
            None,
            "Address at which the browser reaches this machine's ports, such as /proxy/{port}/ "
            "with the package jupyter-server-proxy.",
            none="the browser is on this machine",
        ),
    ]


class SiteOptions(TypedDict, total=False):
    """What the exported page offers."""

    normalize: Annotated[
        str | Sequence[str],
        Option(
            Normalize(),
            "standard",
            "Normalization that the page offers: standard, minmax, symmetric, "
            "percentile(lo, hi) or range(lo, hi).",
            is_repeatable=True,
        ),
    ]
    scope: Annotated[
        str | Sequence[str],
        Option(
            Choice(("channel", "layer")),
            "channel",
            "Statistics by which the page's tiles are normalized: those of each channel, or of "
            "the whole layer.",
            is_repeatable=True,
        ),
    ]
    method: Annotated[
        str | Sequence[str],
        Option(
            Object("the name of an attribution method", "METHOD"),
            "gradcam",
            "Attribution method whose heatmaps of the predicted class the page offers.",
            is_repeatable=True,
        ),
    ]


class MaximizedLayerOptions(TypedDict, total=False):
    """What is maximized."""

    layer: Annotated[
        Any,
        Option(
            Object("a layer path, or an index into model.layers", "LAYER"),
            Parameter.empty,
            "Layer whose channels are maximized: its path, or index into model.layers.",
        ),
    ]


class InputFileOptions(TypedDict, total=False):
    """The other inputs of the model."""

    inputs: Annotated[
        Path | None,
        Option(
            Text("FILE"),
            None,
            "A .npz file with one sample of each other input of the model, by name.",
            none="the image is the only input",
        ),
    ]


class FolderOptions(TypedDict, total=False):
    """Output files."""

    output: Annotated[
        str, Option(Text("FOLDER"), Parameter.empty, "Folder for the files, made if need be.")
    ]


class DestinationOptions(TypedDict, total=False):
    """Output files."""

    output: Annotated[
        str,
        Option(
            Text("OUTPUT"),
            Parameter.empty,
            "Folder, made if need be, or URL of fsspec such as s3://bucket/run.",
        ),
    ]


class PictureFileOptions(TypedDict, total=False):
    """Output files."""

    output: Annotated[
        str,
        Option(
            Text("FILE"), Parameter.empty, "File for the picture; its suffix is the image format."
        ),
    ]


class JsonOptions(TypedDict, total=False):
    """What the command prints."""

    json: Annotated[bool, Option(Flag(), False, "Print JSON instead of text.")]


class EventOptions(TypedDict, total=False):
    """What the command prints."""

    json: Annotated[
        bool, Option(Flag(), False, "Print events as JSON, one on each line, instead of text.")
    ]


class ListOptions(TypedDict, total=False):
    """What is listed."""

    list: Annotated[
        bool, Option(Flag(), False, "List the attribution methods; nothing else is needed.")
    ]


class OpenOptions(TypedDict, total=False):
    """Where the page is opened."""

    open: Annotated[bool, Option(Flag(), False, "Open the page in a browser.")]


class BenchOptions(TypedDict, total=False):
    """What is measured and compared."""

    save: Annotated[
        Path | None,
        Option(Text("FILE"), None, "JSON file to save the figures in.", none="nothing is saved"),
    ]
    against: Annotated[
        Path | None,
        Option(
            Text("OTHER"),
            None,
            "Build to compare with: a wheel, a checkout, an environment, a folder that holds the "
            "package, or an interpreter; or a file that --save wrote.",
            none="nothing is compared",
        ),
    ]
    tolerance: Annotated[
        float,
        Option(
            Number(),
            0.15,
            "Slowdown that is not reported, as a fraction: 0.15 is 15%.",
        ),
    ]
    rounds: Annotated[
        int,
        Option(
            Integer(1),
            25,
            "Maximum number of rounds, each of new processes; clear cases need fewer.",
        ),
    ]
    quick: Annotated[
        bool, Option(Flag(), False, "Measure only drawing and encoding, without TensorFlow.")
    ]


class GeneralOptions(TypedDict, total=False):
    """Options of every command."""

    version: Annotated[bool, Option(Flag(), False, "Print the version.")]
    quiet: Annotated[
        bool, Option(Flag(), False, "Print errors, and results only as JSON (--json).")
    ]
    verbose: Annotated[
        bool,
        Option(
            Flag(),
            False,
            "Print log messages on standard error, and the traceback of an unexpected error.",
        ),
    ]


class ViewerImageOptions(InputOptions, BatchOptions, LabelOptions, ViewerOptions, total=False):
    """How the viewer runs the model on images, and what it keeps."""


class PageOptions(ViewerImageOptions, UploadOptions, total=False):
    """What the page shows and takes."""


class ServeOptions(ServerOptions, PageOptions, total=False):
    """Options of `actgrid.serve`."""


class ViewOptions(CellOptions, PageOptions, total=False):
    """Options of `actgrid.view`."""


class ExportOptions(SiteOptions, ViewerImageOptions, ProgressOptions, total=False):
    """Options of `actgrid.export_site`."""


# Defaults for data that has a sign: zero is the middle of a diverging colormap, which is also the
# colour of the padding.
SIGNED: RenderOptions = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}
