"""Definitions of all options: name, type, default, allowed values and help text.

Options are the keys of annotated `typing.TypedDict` classes, the option groups. A Python function
takes the options of a group as ``**options: Unpack[group]``, which editors and type checkers
understand, and `actgrid.option_groups.takes_options` checks the values. The command line, the HTTP
API, the viewer and the tables of the documentation are derived from the same definitions.
"""

import math
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
    Fractions,
    Integer,
    IntegerOrObject,
    Lengths,
    NameOrPosition,
    Normalize,
    Number,
    Object,
    Size,
    Text,
)

# The two positions of the channel axis.
DATA_FORMATS = ("channels_last", "channels_first")


class LevelMapOptions(TypedDict, total=False):
    """Options for levels and colours."""

    normalize: Annotated[
        str | tuple[str, float, float],
        Option(
            Normalize(),
            "standard",
            "Mapping of values to levels: standard, minmax, symmetric, percentile(lo, hi) or "
            "range(lo, hi).",
        ),
    ]
    cmap: Annotated[
        str, Option(Colormap(), "viridis", "Name of a colormap in matplotlib or the package cmap.")
    ]


class TileLevelOptions(LevelMapOptions, total=False):
    """Options for levels and colours."""

    scope: Annotated[
        str,
        Option(
            Choice(("channel", "layer")),
            "channel",
            "Statistics that normalize a tile: of its channel, or of the whole layer.",
        ),
    ]


class GridOptions(TileLevelOptions, total=False):
    """Options for tiles and their layout."""

    columns: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Number of tiles in a row.",
            none="the number that makes the picture nearest to square",
        ),
    ]
    padding: Annotated[
        int,
        Option(Integer(0, 1024), 1, "Width of the gap between tiles in pixels, before zooming."),
    ]
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
            Channels(("index", "mean", "std", "max", "zeros", "relevance")),
            "index",
            "Order of the channels: index; mean, std, max or zeros (largest first); relevance "
            "(largest contribution to the score of a class first, for activations of a model); or "
            "a list of the channels to draw, such as 3,0-2.",
        ),
    ]
    token_grid: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            None,
            "Height and width of the grid in which the tokens of a sequence are drawn.",
            none="the grid of the patch embedding if it is known, otherwise one tile of tokens by "
            "channels",
        ),
    ]


class BackendOptions(TypedDict, total=False):
    """Options for speed and memory."""

    backend: Annotated[
        str,
        Option(
            Choice(("auto", "native", "numba", "numpy")),
            "auto",
            "Rendering implementation: auto uses the first available of native, numba and numpy.",
        ),
    ]


class DeviceBackendOptions(TypedDict, total=False):
    """Options for speed and memory."""

    backend: Annotated[
        str,
        Option(
            Choice(("auto", "native", "numba", "numpy", "tensorflow")),
            "auto",
            "Rendering implementation: tensorflow renders on the device of the model; auto uses it "
            "on a GPU, otherwise the first available of native, numba and numpy.",
        ),
    ]


class ThreadOptions(TypedDict, total=False):
    """Options for speed and memory."""

    threads: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Maximum number of threads for drawing and measuring.",
            none="one thread per processor",
        ),
    ]


class RenderOptions(GridOptions, BackendOptions, ThreadOptions, total=False):
    """Options for drawing activations."""


class SampleOptions(TypedDict, total=False):
    """Options for selecting a sample of a batch."""

    sample: Annotated[int, Option(Integer(), 0, "Position of the sample in the batch.")]


class KindOptions(TypedDict, total=False):
    """Options for interpreting the axes of an array."""

    data_format: Annotated[
        str | None,
        Option(
            Choice(DATA_FORMATS),
            "channels_last",
            "Position of the channel axis: channels_last or channels_first.",
            none="the data format of the layer if it is known, otherwise channels_last",
        ),
    ]
    kind: Annotated[
        str | None,
        Option(
            Choice(("image", "volume", "sequence", "dense", "kernel", "attention", "heads")),
            None,
            "Meaning of the array's axes: image, volume, sequence, dense or kernel; attention for "
            "attention scores, heads for values that are split into attention heads.",
            none="the kind of the layer if it is known, otherwise determined by the rank",
        ),
    ]


class ArrayOptions(SampleOptions, KindOptions, total=False):
    """Options for selecting a sample and interpreting the axes of an array."""


class RenderArrayOptions(RenderOptions, ArrayOptions, total=False):
    """Options for `actgrid.render`."""


class FileOptions(TypedDict, total=False):
    """Options for output files."""

    format: Annotated[
        str, Option(FileFormat(), "png", "Image format of the pictures: png, webp, jpg, tiff.")
    ]
    compression: Annotated[
        str,
        Option(Choice(("fast", "small", "none")), "fast", "Compression of PNG files."),
    ]


class WeightFileOptions(RenderOptions, FileOptions, total=False):
    """Options for drawing weights to files."""


class RenderFileOptions(RenderArrayOptions, FileOptions, total=False):
    """Options for drawing activations to files."""


class ModelOptions(TypedDict, total=False):
    """Options for loading the model."""

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
            "Refuse model files that contain code (Lambda layers), SavedModels with operations "
            "that access files, the network or Python, and ONNX files with weights outside their "
            "folder.",
        ),
    ]


class LoadedModelOptions(ModelOptions, total=False):
    """Options for loading the model."""

    edits: Annotated[
        Any,
        Option(
            Text("EDIT"),
            None,
            "Change of a layer's output: LAYER:CHANNELS=VALUE, such as conv1:3,0-2=0, or "
            "LAYER=VALUE for all channels. VALUE is a number, mean, or a factor such as x0.5. Of "
            "two models, the second is changed.",
            none="nothing is changed",
            is_repeatable=True,
        ),
    ]


class LayerOptions(TypedDict, total=False):
    """Options for selecting layers."""

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
    """Options for the size and scaling of the model's input."""

    size: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            None,
            "Height and width of the input in pixels, or one number for both.",
            none="the input size of the model if it is fixed, otherwise the size of each image",
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
            "Scaling of pixels from 0 to 255: none; unit (divided by 255); the name of a network "
            "in keras.applications; auto: the scaling that the model needs. render_images and "
            "measure_images in Python also take prepared: arrays are passed to the model "
            "unchanged.",
        ),
    ]


class InputOptions(PreparationOptions, total=False):
    """Options for preparing images."""

    fit: Annotated[
        str,
        Option(
            Choice(("crop", "pad", "stretch")),
            "crop",
            "How images of another aspect ratio are fitted: crop to the centre, pad, or stretch.",
        ),
    ]


class BatchOptions(TypedDict, total=False):
    """Options for speed and memory."""

    batch_size: Annotated[int, Option(Integer(1), 8, "Maximum number of samples in a batch.")]


class TopOptions(TypedDict, total=False):
    """Options for statistics of channels."""

    top: Annotated[
        int, Option(Integer(1, 10_000), 9, "Number of top images to keep for each channel.")
    ]


class StatisticsOptions(TopOptions, total=False):
    """Options for statistics of channels."""

    top_channels: Annotated[
        int | str,
        Option(
            AnyOf(("all",), Integer(1)),
            8,
            "Number of channels of each layer whose top images are shown, largest values first; "
            "all needs 0.1 MB of memory for each channel.",
        ),
    ]


class StreamOptions(TypedDict, total=False):
    """Options for running over many images."""

    shard_size: Annotated[
        int,
        Option(
            Integer(1),
            100,
            "Number of images in a shard: a tar file, a Ray task, a saved step of the statistics.",
        ),
    ]
    on_error: Annotated[
        str | None,
        Option(
            Choice(("skip", "raise")),
            None,
            "What to do if an image cannot be used: skip (record the error and continue) or raise "
            "(stop).",
            none="raise if all images are files given by name, otherwise skip",
        ),
    ]
    resume: Annotated[
        bool,
        Option(Flag(), False, "Continue an earlier run with the same options, if there is one."),
    ]
    overwrite: Annotated[
        bool,
        Option(
            Flag(),
            False,
            "Replace an earlier run in the output, and remove the files that it recorded.",
        ),
    ]
    engine: Annotated[
        Any,
        Option(
            Object("local, ray or a RayEngine", "local|ray", ("local", "ray")),
            "local",
            "Where the images are processed: in this process (local) or by Ray.",
        ),
    ]


class RayOptions(TypedDict, total=False):
    """Options for running with Ray."""

    actors: Annotated[
        int, Option(Integer(1), 2, "Number of worker processes; each loads the model.")
    ]
    num_gpus: Annotated[float, Option(Number(), 0, "GPUs of each actor, such as 1 or 0.5.")]
    address: Annotated[
        str | None,
        Option(
            Text("ADDRESS"),
            None,
            "Address of a Ray cluster to join; auto: the cluster that is already running.",
            none="a new Ray instance on this machine",
        ),
    ]


class FileLayoutOptions(TypedDict, total=False):
    """Options for output files."""

    sink: Annotated[
        str,
        Option(
            Choice(("folders", "tar")),
            "folders",
            "Layout of the output: folders (a folder for each image) or tar (WebDataset shards).",
        ),
    ]
    stats_files: Annotated[
        bool,
        Option(Flag(), True, "Write stats.json: the statistics of the channels for each image."),
    ]


class SinkOptions(FileLayoutOptions, total=False):
    """Options for output files."""

    statistics: Annotated[
        bool,
        Option(Flag(), False, "Also measure statistics of the channels, like actgrid measure."),
    ]


class ProgressOptions(TypedDict, total=False):
    """Options for the display of progress."""

    progress: Annotated[bool, Option(Flag(), False, "Show a progress bar on the terminal.")]


class VocabularyOptions(TypedDict, total=False):
    """Options for the tokens of texts."""

    tokens: Annotated[
        Any,
        Option(
            Object(
                "a TextVectorization layer, a tokenizer, a vocabulary, a function of an index, a "
                "list of strings for each sample, or of a table's columns",
                "FILE",
            ),
            None,
            "Strings of the tokens: a TextVectorization layer, a tokenizer or a vocabulary in "
            "Python; a text file with a token on each line, in the order of the indices.",
            none="the vocabulary of a TextVectorization layer in the model, or numbers",
        ),
    ]


class TokenSampleOptions(SampleOptions, VocabularyOptions, total=False):
    """Options for looking at the tokens of one sample."""


class LogitLensOptions(TokenSampleOptions, total=False):
    """Options for `actgrid.compute_logit_lens`."""

    output_head: Annotated[
        Any,
        Option(
            Object("a layer path, a layer, a function, or a list of these", "LAYER"),
            None,
            "Layer that converts a state of the residual stream to logits: an output layer, or an "
            "embedding whose table is used; several are applied in order.",
            none="all that the model computes after its last residual addition",
            is_repeatable=True,
        ),
    ]
    top_k: Annotated[
        int,
        Option(Integer(1), 5, "Number of best predictions of each state and position."),
    ]


class MeasureImagesOptions(
    InputOptions,
    VocabularyOptions,
    BatchOptions,
    ThreadOptions,
    StatisticsOptions,
    StreamOptions,
    ProgressOptions,
    total=False,
):
    """Options for `actgrid.measure_images`."""


class SortOptions(TypedDict, total=False):
    """Options for tables of the differences of two models."""

    sort_by: Annotated[
        str,
        Option(
            Choice(("difference", "relative_difference", "max_difference", "correlation")),
            "difference",
            "Column by which the channels are sorted: largest differences, or lowest correlations, "
            "first.",
        ),
    ]


class CompareModelsOptions(MeasureImagesOptions, total=False):
    """Options for `actgrid.compare_models`."""


class ComparedGridOptions(TypedDict, total=False):
    """Options for grids of two models."""

    shown_channels: Annotated[
        int | None,
        Option(
            Integer(1),
            16,
            "Number of channels that are drawn, those with the largest difference.",
            none="all channels",
        ),
    ]


class RenderComparisonOptions(ComparedGridOptions, SampleOptions, total=False):
    """Options for `actgrid.render_comparison`."""


class RunOptions(
    InputOptions,
    VocabularyOptions,
    BatchOptions,
    ThreadOptions,
    StreamOptions,
    FileLayoutOptions,
    total=False,
):
    """Options for `actgrid.runs.Run`."""


class TargetOptions(TypedDict, total=False):
    """Options for the method, target and layer of an explanation."""

    method: Annotated[
        str | None,
        Option(
            Object("the name of an attribution method", "METHOD"),
            None,
            "Attribution method; actgrid explain --list lists all methods.",
            none="gradcam; scorecam or occlusion for networks without gradients",
            is_repeatable=True,
        ),
    ]
    target: Annotated[
        Any,
        Option(
            Object("a class name or index, a function, or a dict of them by output", "CLASS"),
            None,
            "Class name or index. For a model with several outputs: OUTPUT=CLASS on the command "
            "line, {output: class} in Python. A model with a single sigmoid output has the "
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
            "Layer whose activations methods such as gradcam use: its path, or index into "
            "model.layers.",
            none="the last layer with trained weights and a spatial output between the image and "
            "the score, before any upsampling",
        ),
    ]


class LabelOptions(TypedDict, total=False):
    """Options for class names."""

    labels: Annotated[
        Any,
        Option(
            Object("a list of names, imagenet, or a text file with a name on each line", "FILE"),
            None,
            "Class names: a list in Python, a text file with a name on each line, or imagenet. For "
            "a model with several outputs: OUTPUT=FILE on the command line, a dict by output in "
            "Python.",
            none="the ImageNet names for complete networks of keras.applications and for demo",
            is_repeatable=True,
        ),
    ]


class RelevanceOptions(LabelOptions, total=False):
    """Options for sorting channels by relevance."""

    target: Annotated[
        Any,
        Option(
            Object("a class name or index, a function, or a dict with one output", "CLASS"),
            None,
            "Class by whose score order=relevance sorts the channels: its name or index. For a "
            "model with several outputs: OUTPUT=CLASS on the command line, {output: class} in "
            "Python.",
            none="the predicted class of each sample",
        ),
    ]


class ChannelRelevanceOptions(LabelOptions, VocabularyOptions, BatchOptions, total=False):
    """Options for `actgrid.measure_channel_relevance`."""


class LayerGridOptions(GridOptions, RelevanceOptions, total=False):
    """Options for drawing layers of a model as grids."""


class RenderModelOptions(
    LayerGridOptions, DeviceBackendOptions, ThreadOptions, ArrayOptions, total=False
):
    """Options for `actgrid.render_model`."""


class DrawingOptions(LayerGridOptions, BackendOptions, FileOptions, total=False):
    """Options for the pictures of a run."""


class RenderImagesOptions(DrawingOptions, SinkOptions, MeasureImagesOptions, total=False):
    """Options for `actgrid.render_images`."""


class ImageInputOptions(TypedDict, total=False):
    """Options for selecting the image input of a model."""

    image_input: Annotated[
        int | str | None,
        Option(
            NameOrPosition("INPUT", "the name or position of an input"),
            None,
            "Name or position of the explained or maximized input.",
            none="the first image in explain, or the first input with the most axes; the only "
            "image that inputs lacks in maximize",
        ),
    ]


class ClipOptions(TypedDict, total=False):
    """Options for the value range of a heatmap."""

    clip: Annotated[
        float,
        Option(Number(0, 100), 99, "Percentile of the map's values that is drawn as the maximum."),
    ]


class OverlayOptions(ClipOptions, total=False):
    """Options for drawing heatmaps over images."""

    alpha: Annotated[float, Option(Number(0, 1), 0.5, "Opacity of the colours; 1 hides the image.")]
    cmap: Annotated[
        str | None,
        Option(
            Colormap(),
            None,
            "Colormap of the heatmap: a name in matplotlib or the package cmap.",
            none="viridis, or RdBu_r for signed maps",
        ),
    ]


class ColumnOptions(TypedDict, total=False):
    """Options for the layout of pictures."""

    columns: Annotated[
        int | None,
        Option(
            Integer(1),
            None,
            "Number of pictures in a row.",
            none="the number that makes the sheet nearest to square",
        ),
    ]


class SheetOptions(ColumnOptions, total=False):
    """Options for the layout of pictures."""

    padding: Annotated[
        int, Option(Integer(0, 1024), 1, "Width of the gap between pictures in pixels.")
    ]


class ContourOptions(ClipOptions, ColumnOptions, ThreadOptions, total=False):
    """Options for `Heatmap.contours`."""


class HeatmapOptions(OverlayOptions, ColumnOptions, ThreadOptions, total=False):
    """Options for `Heatmap.overlay`."""


class AnimationOptions(TypedDict, total=False):
    """Options for animations."""

    frame_milliseconds: Annotated[
        int, Option(Integer(1, 655_350), 200, "Duration of each frame in milliseconds.")
    ]
    loop: Annotated[
        int, Option(Integer(0, 65_535), 0, "Number of repetitions of the animation; 0: endless.")
    ]


class FrameOptions(OverlayOptions, AnimationOptions, ThreadOptions, total=False):
    """Options for `VolumeAttribution.save_animation`."""


class LevelOptions(ClipOptions, ThreadOptions, total=False):
    """Options for `Heatmap.levels`."""


class StyleOptions(TypedDict, total=False):
    """Options for the style of heatmaps."""

    style: Annotated[
        str,
        Option(
            Choice(("overlay", "contours", "map", "slices", "animation", "bars")),
            "overlay",
            "Style of the picture: overlay (colours over the image), contours (lines over the "
            "image), map (the map without the image); for volumes slices (all slices) or animation "
            "(png, webp, gif); for texts bars.",
        ),
    ]


class AttentionStyleOptions(TypedDict, total=False):
    """Options for pictures of attention."""

    attention_style: Annotated[
        str,
        Option(
            Choice(("heads", "matrix", "arcs", "query")),
            "heads",
            "Picture of each layer: heads (all heads as tiles), matrix (with the names of the "
            "tokens), arcs (over the text), query (what one token or patch attends to).",
        ),
    ]
    head: Annotated[
        Any,
        Option(
            NameOrPosition("HEAD", "mean, max or the position of a head"),
            "mean",
            "Head that is drawn as matrix, arcs or query: its position, or mean or max over all.",
        ),
    ]
    query: Annotated[
        Any,
        Option(
            NameOrPosition("QUERY", "a position, the name of a token, or ROW,COLUMN of a patch"),
            0,
            "Token or patch whose attention is drawn with the style query.",
        ),
    ]


class StreamStyleOptions(TypedDict, total=False):
    """Options for pictures of a residual stream."""

    stream_style: Annotated[
        str,
        Option(
            Choice(("norms", "lens")),
            "norms",
            "Picture: norms (norm and change of direction by layer and token) or lens (what the "
            "model would predict from each layer).",
        ),
    ]


class SeedOptions(TypedDict, total=False):
    """Options for random numbers."""

    seed: Annotated[int, Option(Integer(0, 2**31 - 1), 0, "Seed of the random numbers.")]


class MaximizeOptions(SeedOptions, total=False):
    """Options for activation maximization."""

    steps: Annotated[int, Option(Integer(1, 4096), 256, "Number of optimization steps.")]
    parametrization: Annotated[
        str,
        Option(
            Choice(("fourier", "maco", "pixel")),
            "fourier",
            "Parameters that are optimized: fourier (Fourier coefficients of decorrelated "
            "colours), maco (their phases, with the magnitudes of natural photos) or pixel (pixel "
            "values).",
        ),
    ]
    learning_rate: Annotated[float, Option(Number(), 0.05, "Learning rate of Adam.")]
    total_variation: Annotated[
        float,
        Option(
            Number(),
            0.0,
            "Weight of the total variation penalty: absolute differences of neighbouring pixels.",
        ),
    ]
    jitter: Annotated[
        float,
        Option(Number(), 0.1, "Maximum random shift, as a fraction of the shorter side."),
    ]
    rotate: Annotated[float, Option(Number(), 10, "Maximum random rotation in degrees.")]
    scale: Annotated[
        float,
        Option(Number(0, 0.99), 0.4, "Maximum random change of scale, as a fraction."),
    ]
    crop: Annotated[
        float | None,
        Option(
            Number(0.05, 1),
            None,
            "Mean side of random crops, as a fraction of the side of the image.",
            none="0.75 for maco, otherwise 1",
        ),
    ]
    noise: Annotated[
        float | None,
        Option(
            Number(),
            None,
            "Standard deviation of random noise, as a fraction of the range of pixel values.",
            none="0.03 for maco, otherwise 0",
        ),
    ]
    variants: Annotated[
        int,
        Option(Integer(1, 256), 1, "Number of images of each channel, each from other noise."),
    ]
    diversity: Annotated[
        float,
        Option(
            Number(),
            1.0,
            "Weight of the differences between the variants of a channel: of the cosine "
            "similarity of the Gram matrices of their activations.",
        ),
    ]


class RgbOptions(TypedDict, total=False):
    """Options for drawing images of several channels."""

    rgb_channels: Annotated[
        Sequence[int] | None,
        Option(
            Channels(),
            None,
            "Channels that are drawn as red, green and blue, such as 3,2,1.",
            none="0,1,2 for three or four channels; otherwise each channel is a gray tile",
        ),
    ]


class ChannelOptions(RgbOptions, total=False):
    """Options for selecting channels to maximize."""

    channels: Annotated[
        Any,
        Option(
            Channels(takes_names=True),
            None,
            "Channels to maximize, such as 3,0-2, or a class name.",
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
    """Options for `actgrid.maximize`."""


class ConceptOptions(SeedOptions, total=False):
    """Options for finding concepts."""

    concepts: Annotated[int, Option(Integer(1), 10, "Number of concepts.")]
    crop_size: Annotated[
        float,
        Option(Number(0.01, 1), 0.3, "Side of a crop, as a fraction of each side of the image."),
    ]
    samples: Annotated[
        int,
        Option(
            Integer(1),
            32,
            "Number of random masks from which the importance of a concept is estimated.",
        ),
    ]
    crops: Annotated[int, Option(Integer(1), 8, "Number of crops that are drawn for a concept.")]


class FindConceptsOptions(
    ConceptOptions, LabelOptions, ImageInputOptions, BatchOptions, total=False
):
    """Options for `actgrid.find_concepts`."""


class ConceptVectorOptions(SeedOptions, total=False):
    """Options for concept activation vectors."""

    repeats: Annotated[
        int,
        Option(
            Integer(2),
            20,
            "Number of concept activation vectors of each concept, each from random parts of the "
            "images.",
        ),
    ]


class ConceptImageOptions(TypedDict, total=False):
    """Options for the images that define concepts."""

    concept: Annotated[
        Any,
        Option(
            Text("NAME=FOLDER"),
            Parameter.empty,
            "Name of a concept, and an image file, folder or glob of its images.",
            is_repeatable=True,
        ),
    ]
    random: Annotated[
        Any,
        Option(
            Text("FOLDER"),
            Parameter.empty,
            "Image file, folder or glob of random images, which the concepts are compared with.",
            is_repeatable=True,
        ),
    ]


class ConceptSensitivityOptions(
    ConceptVectorOptions, LabelOptions, ImageInputOptions, BatchOptions, total=False
):
    """Options for `actgrid.measure_concept_sensitivity`."""


class DiagramOptions(TypedDict, total=False):
    """Options for drawing the boxes of a diagram."""

    side: Annotated[
        int, Option(Integer(12, 1024), 160, "Length of the longest side of a box in pixels.")
    ]
    width: Annotated[
        int, Option(Integer(1, 1 << 16), 1600, "Width in pixels after which a new row begins.")
    ]
    names: Annotated[bool, Option(Flag(), True, "Write layer names and shapes under the boxes.")]
    legend: Annotated[bool, Option(Flag(), True, "Show a legend of colours and layer types.")]


class ModelDiagramOptions(DiagramOptions, LevelMapOptions, SampleOptions, total=False):
    """Options for `actgrid.diagram`."""


class StepOptions(TypedDict, total=False):
    """Options for the schedule of a training callback."""

    every: Annotated[
        str | int,
        Option(
            AnyOf(("epoch",), Integer(1)),
            "epoch",
            "Interval between results: epoch, or a number of batches.",
        ),
    ]


class OutputOptions(TypedDict, total=False):
    """Options for the outputs of a training callback."""

    log_dir: Annotated[
        str | Path | None,
        Option(
            Object("a folder or URL", "FOLDER"),
            None,
            "TensorBoard log folder, preferably separate from other logs.",
            none="nothing is written for TensorBoard",
        ),
    ]
    folder: Annotated[
        str | Path | None,
        Option(
            Object("a folder", "FOLDER"),
            None,
            "Folder for files: PNG files of pictures, JSON lines of numbers.",
            none="no files are written",
        ),
    ]
    sinks: Annotated[
        Any,
        Option(
            Object("wandb, mlflow, a run, a sink, or a list of these", "NAME", ("wandb", "mlflow")),
            None,
            "Further outputs: wandb or mlflow for the active run of Weights & Biases or MLflow, a "
            "run of these, or an object with the methods of actgrid.callbacks.Sink.",
            none="there are no further outputs",
        ),
    ]


class WatchOptions(StepOptions, OutputOptions, total=False):
    """Options for the schedule and outputs of a training callback."""


class MethodOptions(TypedDict, total=False):
    """Options for attribution methods."""

    seed: Annotated[
        int, Option(Integer(0, 2**31 - 1), UNSET, "Seed of the method's random numbers.")
    ]
    # The time to compute Gauss-Legendre points grows with the cube of their number.
    steps: Annotated[
        int,
        Option(
            Integer(2, 1024),
            UNSET,
            "Number of points on the integration path, or of fractions of a mask (iscam).",
        ),
    ]
    samples: Annotated[int, Option(Integer(1), UNSET, "Number of random samples.")]
    noise: Annotated[
        float,
        Option(
            Number(),
            UNSET,
            "Standard deviation of the noise, as a fraction of the value range of the input, or of "
            "the channel (sscam).",
        ),
    ]
    baseline: Annotated[
        Any,
        Option(
            Baseline(("mean",)),
            UNSET,
            "Value of hidden positions, or start of the integration path: a number, a number for "
            "each channel such as 0,0.5,1, or mean.",
            none="the mean of each segment (lime only)",
        ),
    ]
    background: Annotated[
        Any,
        Option(
            Object("samples of the input, (B, ...), or a .npy file of samples", "FILE"),
            UNSET,
            "Background samples from which the paths to the input start.",
            none="one sample of zeros",
        ),
    ]
    rule: Annotated[
        str,
        Option(
            Choice(("epsilon", "gamma", "composite")),
            UNSET,
            "Relevance rule of layers with weights; composite depends on the place of the layer.",
        ),
    ]
    epsilon: Annotated[
        float,
        Option(
            Number(),
            UNSET,
            "Stabilizer of the epsilon rule, as a fraction of the root mean square of a layer's "
            "outputs.",
        ),
    ]
    gamma: Annotated[
        float,
        Option(
            Number(),
            UNSET,
            "Factor by which the gamma rule increases contributions of the output's sign.",
        ),
    ]
    quadrature: Annotated[
        str,
        Option(
            Choice(("gauss-legendre", "trapezoid")),
            UNSET,
            "Quadrature rule of the integral.",
        ),
    ]
    complete: Annotated[
        bool,
        Option(
            Flag(),
            UNSET,
            "Distribute the quadrature error over the map, so that its sum is the difference of "
            "the scores.",
        ),
    ]
    reduce: Annotated[
        str,
        Option(
            Choice(("max", "norm", "sum", "none")),
            UNSET,
            "Reduction over the channels of the input; none keeps a value for each channel.",
        ),
    ]
    token_grid: Annotated[
        int | tuple[int, int] | None,
        Option(
            Size(),
            UNSET,
            "Height and width of the grid that the tokens of the layer form, without class tokens.",
            none="the grid of the patch embedding, or the height and width of the layer",
        ),
    ]
    head_fusion: Annotated[
        str,
        Option(
            Choice(("mean", "max", "min")),
            UNSET,
            "Combination of the attention of the heads of a layer.",
        ),
    ]
    max_channels: Annotated[
        int | None,
        Option(
            Integer(1),
            UNSET,
            "Maximum number of channels to use, largest standard deviation first.",
            none="all channels",
        ),
    ]
    weighting: Annotated[
        str,
        Option(
            Choice(("softmax", "probability")), UNSET, "Conversion of scores to channel weights."
        ),
    ]
    patch: Annotated[
        int | tuple[int, ...] | None,
        Option(
            Lengths(),
            UNSET,
            "Lengths of the occluding patch along the axes of the input, such as height and width.",
            none="a seventh of an image's shorter side, a 25th of a sequence, a quarter of a "
            "volume's shortest side, one feature of a table",
        ),
    ]
    stride: Annotated[
        int | tuple[int, ...] | None,
        Option(
            Lengths(),
            UNSET,
            "Maximum distance of neighbouring patches along each axis.",
            none="half the length of the patch",
        ),
    ]
    grid_size: Annotated[
        int, Option(Integer(1), UNSET, "Number of cells along each side of a random mask.")
    ]
    keep_probability: Annotated[
        float,
        Option(
            Number(0, 1, is_open=True),
            UNSET,
            "Probability that a cell of a mask keeps its positions visible.",
        ),
    ]
    segments: Annotated[
        Any,
        Option(
            IntegerOrObject(2, "a function of a sample, or an array of labels"),
            UNSET,
            "Number of superpixels of an image, parts of a sequence, or blocks of a volume.",
        ),
    ]
    kernel_width: Annotated[
        float,
        Option(
            Number(0, is_open=True),
            UNSET,
            "Width of the exponential kernel that weights the samples.",
        ),
    ]
    ridge: Annotated[float, Option(Number(), UNSET, "Strength of the ridge (L2) penalty.")]
    features: Annotated[int, Option(Integer(1), UNSET, "Number of segments in the resulting mask.")]


class MetricOptions(TypedDict, total=False):
    """Options for metrics of attribution maps."""

    steps: Annotated[
        int,
        Option(Integer(1), UNSET, "Number of steps in which positions are hidden or shown."),
    ]
    baseline: Annotated[
        Any,
        Option(
            Baseline(("mean",)),
            UNSET,
            "Value of hidden positions: a number, a number for each channel such as 0,0.5,1, or "
            "mean.",
        ),
    ]
    score_type: Annotated[
        str,
        Option(
            Choice(("probability", "logit")),
            UNSET,
            "Score that is observed. The logit is also used if the model does not end in a softmax "
            "or sigmoid.",
        ),
    ]
    fractions: Annotated[
        Any,
        Option(
            Fractions(), UNSET, "Fractions of the positions that are removed, such as 0.2,0.5,0.8."
        ),
    ]
    samples: Annotated[int, Option(Integer(2), UNSET, "Number of random sets of hidden cells.")]
    grid_size: Annotated[
        int, Option(Integer(1), UNSET, "Number of cells along each axis that are hidden at random.")
    ]
    hidden_fraction: Annotated[
        float,
        Option(Number(0, 1, is_open=True), UNSET, "Fraction of the cells that are hidden."),
    ]
    perturbations: Annotated[int, Option(Integer(1), UNSET, "Number of random input changes.")]
    radius: Annotated[
        float,
        Option(
            Number(0, is_open=True),
            UNSET,
            "Largest change of a value, as a fraction of the range of the input's values.",
        ),
    ]
    randomizations: Annotated[
        int, Option(Integer(1), UNSET, "Number of models with more and more randomized layers.")
    ]
    tolerance: Annotated[
        int,
        Option(
            Integer(0),
            UNSET,
            "Distance in positions up to which the largest attribution may lie outside an object.",
        ),
    ]
    seed: Annotated[
        int, Option(Integer(0, 2**31 - 1), UNSET, "Seed of the metric's random numbers.")
    ]


class MetricListOptions(TypedDict, total=False):
    """Options for selecting metrics."""

    metric: Annotated[
        str | Sequence[str] | None,
        Option(
            Object("the name of a metric", "METRIC"),
            None,
            "Metric of the attribution maps; actgrid evaluate --list lists all metrics.",
            none="deletion and insertion",
            is_repeatable=True,
        ),
    ]


class MetricTableOptions(TypedDict, total=False):
    """Options for listing metrics."""

    list: Annotated[
        bool, Option(Flag(), False, "List the metrics and exit; no model or image is needed.")
    ]


class RegionOptions(TypedDict, total=False):
    """Options for the regions of explained objects."""

    masks: Annotated[
        Any,
        Option(
            Object("an array, nonzero in the object", "FILE"),
            None,
            "Masks of the explained objects, (N, height, width) of any size, nonzero in an object. "
            "On the command line an image or .npy file for each image.",
            none="the regions are not known",
            is_repeatable=True,
        ),
    ]
    boxes: Annotated[
        Any,
        Option(
            Object("boxes: top, left, bottom, right", "BOX"),
            None,
            "Boxes of the explained objects, (top, left, bottom, right) in pixels of the model "
            "input: for each image one, or a list of them. On the command line such as "
            "10,20,90,120, one for each image.",
            none="the regions are not known",
            is_repeatable=True,
        ),
    ]


class PixelOptions(TypedDict, total=False):
    """Options for the image under a heatmap."""

    pixels: Annotated[
        Any,
        Option(
            Object("uint8 pixels of the images, (N, H, W, 3)", "FILE"),
            None,
            "Images over which the maps are drawn.",
            none="the photos in their original size, or the input of the model",
        ),
    ]


class TokenOptions(VocabularyOptions, total=False):
    """Options for explaining texts."""

    embedding: Annotated[
        Any,
        Option(
            Object("a layer path, or a dict of layer paths by input", "LAYER"),
            None,
            "Layer whose output is explained for an input of tokens, which have no gradient, or in "
            "place of an image, such as a patch embedding.",
            none="the first layer that converts the tokens to floating-point numbers",
        ),
    ]


class ExplainedInputOptions(TypedDict, total=False):
    """Options for selecting the inputs to explain."""

    inputs: Annotated[
        Any,
        Option(
            Object("all, the name or position of an input, or a list of these", "INPUT", ("all",)),
            None,
            "Inputs to explain, each by its name or position, or all of them. Each input has its "
            "own picture.",
            none="the first image, or the first input with the most axes",
            is_repeatable=True,
        ),
    ]


class RequestOptions(
    LabelOptions, ImageInputOptions, BatchOptions, PixelOptions, TokenOptions, total=False
):
    """Options for explanations by any attribution method."""


class ExplainOptions(RequestOptions, MethodOptions, total=False):
    """Options for `actgrid.explain`."""


class CompareOptions(RequestOptions, OverlayOptions, ProgressOptions, total=False):
    """Options for `actgrid.compare_methods`."""


class EvaluateOptions(
    LabelOptions,
    ImageInputOptions,
    BatchOptions,
    TokenOptions,
    RegionOptions,
    MetricOptions,
    ProgressOptions,
    total=False,
):
    """Options for `actgrid.evaluate`."""


class ScoreOptions(LabelOptions, ImageInputOptions, BatchOptions, TokenOptions, total=False):
    """Options for scores of targets."""


class ReferenceOptions(TypedDict, total=False):
    """Options for inputs whose activations are inserted."""

    reference: Annotated[
        Any,
        Option(
            Object("an input of the model, or images", "IMAGE"),
            None,
            "Input of the model for the values mean and reference.",
            none="there is no reference",
        ),
    ]


class PatchOptions(ReferenceOptions, BatchOptions, total=False):
    """Options for `actgrid.patch`."""


class AblationValueOptions(ReferenceOptions, total=False):
    """Options for the values of switched-off channels."""

    value: Annotated[
        float | str,
        Option(
            AnyOf(("mean", "reference"), Number(-math.inf)),
            0.0,
            "Value that replaces a channel: a number, mean (its mean over the positions of each "
            "sample, or over the reference inputs) or reference (its values for the reference "
            "input).",
        ),
    ]
    channels: Annotated[
        Any,
        Option(Channels(), None, "Channels that are replaced, such as 3,0-2.", none="all channels"),
    ]


class AblationOptions(ScoreOptions, AblationValueOptions, ProgressOptions, total=False):
    """Options for `actgrid.ablate_channels`."""


class PatchingUnitOptions(TypedDict, total=False):
    """Options for activation patching."""

    unit: Annotated[
        str,
        Option(
            Choice(("layer", "channel")),
            "layer",
            "What is inserted at a time: the whole output of a layer, or one channel of it.",
        ),
    ]


class ActivationPatchingOptions(ScoreOptions, PatchingUnitOptions, ProgressOptions, total=False):
    """Options for `actgrid.patch_activations`."""


class AgreementOptions(TypedDict, total=False):
    """Options for the agreement of attribution maps."""

    measure: Annotated[
        str,
        Option(
            Choice(("spearman", "pearson", "overlap")),
            "spearman",
            "Similarity of two maps: rank correlation, correlation, or overlap of the largest "
            "values.",
        ),
    ]
    fraction: Annotated[
        float,
        Option(
            Number(0, 1, is_open=True),
            0.1,
            "Fraction of the positions, those of the largest values, whose overlap is measured.",
        ),
    ]


class ExplanationsOptions(
    WatchOptions,
    RequestOptions,
    OverlayOptions,
    MethodOptions,
    total=False,
):
    """Options for `actgrid.callbacks.Explanations`."""


class ActivationGridsOptions(WatchOptions, RenderOptions, KindOptions, total=False):
    """Options for `actgrid.callbacks.ActivationGrids`."""


class HealthOptions(WatchOptions, BatchOptions, total=False):
    """Options for `actgrid.callbacks.ChannelHealth`."""

    max_lost_fraction: Annotated[
        float,
        Option(
            Number(0, 1),
            0.5,
            "Fraction of initially active channels that may die in a layer before a warning.",
        ),
    ]


class ModelDriftOptions(WatchOptions, BatchOptions, ComparedGridOptions, total=False):
    """Options for `actgrid.callbacks.ModelDrift`."""


class MovieOptions(StepOptions, RenderOptions, KindOptions, total=False):
    """Options for `actgrid.callbacks.TrainingMovie`."""

    format: Annotated[
        str, Option(Choice(("webp", "gif")), "webp", "Format of the animation: webp or gif.")
    ]
    frame_milliseconds: Annotated[
        int, Option(Integer(1, 655_350), 200, "Duration of each frame in milliseconds.")
    ]
    last_frame_milliseconds: Annotated[
        int, Option(Integer(1, 655_350), 1000, "Duration of the last frame in milliseconds.")
    ]
    loop: Annotated[
        int, Option(Integer(0, 65_535), 0, "Number of repetitions of the movie; 0: endless.")
    ]


class ViewerOptions(TypedDict, total=False):
    """Options for statistics and memory of the viewer."""

    statistics: Annotated[
        Any,
        Option(
            Object(
                "the output folder or stats.npz of actgrid measure, or a DatasetStats", "FOLDER"
            ),
            None,
            "Dataset statistics to show: the output folder or stats.npz of actgrid measure.",
            none="no statistics are shown",
        ),
    ]
    cache_bytes: Annotated[
        int, Option(ByteCount(), 512 << 20, "Maximum memory of cached activations in bytes.")
    ]


class SecondModelOptions(TypedDict, total=False):
    """Options for a second model in the viewer."""

    compare_with: Annotated[
        Any,
        Option(
            Object("a Keras model or a model specification", "MODEL"),
            None,
            "Second model, whose layers and classes are shown beside those of the first.",
            none="one model is shown",
        ),
    ]


class UploadOptions(TypedDict, total=False):
    """Options for uploading images."""

    upload_bytes: Annotated[
        int, Option(ByteCount(), 32 << 20, "Maximum size of an uploaded image file in bytes.")
    ]
    upload_pixels: Annotated[
        int, Option(Integer(1), 50_000_000, "Maximum number of pixels of an uploaded image.")
    ]


class ServerOptions(TypedDict, total=False):
    """Options for serving the page."""

    host: Annotated[
        str,
        Option(
            Text("ADDRESS"),
            "127.0.0.1",
            "Address to listen at; an address that other machines can reach needs a token.",
        ),
    ]
    port: Annotated[int, Option(Integer(0, 65535), 8000, "Port to listen at; 0: any free port.")]
    token: Annotated[
        str | None,
        Option(
            Text("TOKEN"),
            None,
            "Token that requests must contain.",
            none="a random token if other machines can reach the address",
        ),
    ]
    allowed_hosts: Annotated[
        Sequence[str],
        Option(
            Object("a list of names", "NAME"),
            (),
            "Further host names under which requests without a token are accepted.",
            is_repeatable=True,
        ),
    ]


class CellOptions(TypedDict, total=False):
    """Options for the notebook cell."""

    height: Annotated[int, Option(Integer(1), 800, "Height of the notebook cell in pixels.")]


class SiteOptions(TypedDict, total=False):
    """Options for the contents of the exported page."""

    normalize: Annotated[
        str | Sequence[str],
        Option(
            Normalize(),
            "standard",
            "Normalization that can be chosen on the page: standard, minmax, symmetric, "
            "percentile(lo, hi) or range(lo, hi).",
            is_repeatable=True,
        ),
    ]
    scope: Annotated[
        str | Sequence[str],
        Option(
            Choice(("channel", "layer")),
            "channel",
            "Statistics that normalize the tiles of the page: of each channel, or of the whole "
            "layer.",
            is_repeatable=True,
        ),
    ]
    method: Annotated[
        str | Sequence[str],
        Option(
            Object("the name of an attribution method", "METHOD"),
            "gradcam",
            "Attribution method whose heatmaps of the predicted class are in the page.",
            is_repeatable=True,
        ),
    ]


class MaximizedLayerOptions(TypedDict, total=False):
    """Options for selecting the layer to maximize."""

    layer: Annotated[
        Any,
        Option(
            Object("a layer path, or an index into model.layers", "LAYER"),
            Parameter.empty,
            "Layer whose channels are maximized: its path, or index into model.layers.",
        ),
    ]


class InputFileOptions(TypedDict, total=False):
    """Options for the other inputs of the model."""

    inputs: Annotated[
        Path | None,
        Option(
            Text("FILE"),
            None,
            "A .npz file with one sample of each other input of the model, by input name.",
            none="the image is the only input",
        ),
    ]


class FolderOptions(TypedDict, total=False):
    """Options for output files."""

    output: Annotated[
        str,
        Option(
            Text("FOLDER"), Parameter.empty, "Folder for the files; created if it does not exist."
        ),
    ]


class DestinationOptions(TypedDict, total=False):
    """Options for output files."""

    output: Annotated[
        str,
        Option(
            Text("OUTPUT"),
            Parameter.empty,
            "Folder, created if it does not exist, or fsspec URL such as s3://bucket/run.",
        ),
    ]


class PictureFileOptions(TypedDict, total=False):
    """Options for output files."""

    output: Annotated[
        str,
        Option(
            Text("FILE"), Parameter.empty, "File for the picture; its suffix is the image format."
        ),
    ]


class JsonOptions(TypedDict, total=False):
    """Options for printed output."""

    json: Annotated[bool, Option(Flag(), False, "Print JSON instead of text.")]


class EventOptions(TypedDict, total=False):
    """Options for printed output."""

    json: Annotated[bool, Option(Flag(), False, "Print events as JSON lines instead of text.")]


class ListOptions(TypedDict, total=False):
    """Options for listing attribution methods."""

    list: Annotated[
        bool,
        Option(
            Flag(), False, "List the attribution methods and exit; no model or image is needed."
        ),
    ]


class OpenOptions(TypedDict, total=False):
    """Options for opening the page."""

    open: Annotated[bool, Option(Flag(), False, "Open the page in a browser.")]


class BenchOptions(TypedDict, total=False):
    """Options for measuring and comparing."""

    save: Annotated[
        Path | None,
        Option(Text("FILE"), None, "JSON file for the measured figures.", none="nothing is saved"),
    ]
    against: Annotated[
        Path | None,
        Option(
            Text("OTHER"),
            None,
            "Build to compare with: a wheel, a checkout, an environment, a folder that contains "
            "the package, or an interpreter; or a file that --save wrote.",
            none="nothing is compared",
        ),
    ]
    tolerance: Annotated[
        float,
        Option(
            Number(),
            0.15,
            "Smallest slowdown that is reported, as a fraction: 0.15 is 15%.",
        ),
    ]
    rounds: Annotated[
        int,
        Option(
            Integer(1),
            25,
            "Maximum number of rounds; each round starts new processes.",
        ),
    ]
    quick: Annotated[
        bool, Option(Flag(), False, "Measure only rendering and encoding, without TensorFlow.")
    ]


class GeneralOptions(TypedDict, total=False):
    """Options for every command."""

    version: Annotated[bool, Option(Flag(), False, "Print the version.")]
    quiet: Annotated[
        bool, Option(Flag(), False, "Print only errors, and results only with --json.")
    ]
    verbose: Annotated[
        bool,
        Option(
            Flag(),
            False,
            "Print log messages on standard error, and the traceback of an unexpected error.",
        ),
    ]


class ViewerImageOptions(
    InputOptions, VocabularyOptions, BatchOptions, LabelOptions, ViewerOptions, total=False
):
    """Options for the images, statistics and memory of the viewer."""


class PageOptions(ViewerImageOptions, SecondModelOptions, UploadOptions, total=False):
    """Options for the contents and uploads of the viewer's page."""


class ServeOptions(ServerOptions, PageOptions, total=False):
    """Options for `actgrid.serve`."""


class ViewOptions(CellOptions, PageOptions, total=False):
    """Options for `actgrid.view`."""


class ExportOptions(SiteOptions, ViewerImageOptions, ProgressOptions, total=False):
    """Options for `actgrid.export_site`."""


# Defaults for signed data: zero has the middle colour of a diverging colormap, as has the padding.
SIGNED: RenderOptions = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}
