"""The functions `actgrid.compare_models` and `actgrid.render_comparison`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import numpy.typing as npt
import orjson

from actgrid.errors import OptionError, RunError
from actgrid.figures.compared_grids import ComparedGrids, compare_activations
from actgrid.figures.files import number_files
from actgrid.models import load_images
from actgrid.models.image_inputs import find_image_input
from actgrid.models.image_sources import are_images
from actgrid.models.inputs import get_fixed_batch_size
from actgrid.models.networks import get_network
from actgrid.models.preprocessing import Preprocessing, find_pair_preprocessing
from actgrid.models.sample_files import load_samples
from actgrid.models.types import LayersLike, ModelInput, ModelLike
from actgrid.option_checks import check_sample
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import CompareModelsOptions, RenderComparisonOptions, RunOptions
from actgrid.rendering import PictureDict
from actgrid.runs.images import process_run
from actgrid.runs.results import REPORT, SUMMARY, TOP, make_reloader
from actgrid.runs.run_spec import ImageLoader
from actgrid.runs.runs import Run
from actgrid.runs.sample_items import find_run_items
from actgrid.runs.sources import Item
from actgrid.runs.stores import find_local_folder
from actgrid.statistics.comparison_report import make_comparison_report
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.model_comparison import COMPARISON, ModelComparison
from actgrid.statistics.model_pair import ModelPair, join_input

__all__ = ["ComparisonRun", "compare_models", "render_comparison"]

Array = npt.NDArray[Any]

# Number of layers that the report shows with pictures, those with the largest differences.
_SHOWN_LAYERS = 12


@dataclass(frozen=True)
class _PairLoader(ImageLoader):
    """Loads images as inputs of both models of a `ModelPair`."""

    def check(self, model: Any, are_files: bool = False) -> None:
        for loader, side in zip(self._list_loaders(model), (model.a, model.b), strict=True):
            loader.check(side, are_files)

    def load(self, model: Any, item: Item) -> Any:
        loader, other = self._list_loaders(model)
        x = loader.load(model.a, item)
        return join_input(x, x if self._loads_alike(model) else other.load(model.b, item))

    def load_with_pixels(self, model: Any, item: Item) -> tuple[npt.NDArray[Any], Any]:
        loader, other = self._list_loaders(model)
        pixels, x = loader.load_with_pixels(model.a, item)
        return pixels, join_input(x, other.load(model.b, item))

    def input_spec(self, model: Any) -> Any:
        return None

    def _list_loaders(self, pair: ModelPair) -> list[ImageLoader]:
        """Return the loader for each model."""
        if self.is_prepared:
            return [ImageLoader(self.size, self.preprocess, self.fit)] * 2
        choices = find_pair_preprocessing(self.preprocess, (pair.a, pair.b))
        return [ImageLoader(self.size, choice.function, self.fit) for choice in choices]

    def _loads_alike(self, pair: ModelPair) -> bool:
        """Return whether both models take the same array for an image."""
        if self.is_prepared:
            return True
        sides = (pair.a, pair.b)
        (_, *shape), (_, *other_shape) = map(find_image_input, sides)
        choice, other = find_pair_preprocessing(self.preprocess, sides)
        return shape == other_shape and choice.name == other.name


class ComparisonRun(Run):
    """Run that compares two models over many images; see `Run`.

    Parameters
    ----------
    pair : ModelPair
        The models and their layers.
    images
        The images, see `actgrid.compare_models`.
    output : str or pathlib.Path
        A folder, or an fsspec URL.
    **options
        See `actgrid.options.CompareModelsOptions`.

    Examples
    --------
    >>> import keras
    >>> from actgrid.runs.comparing import ComparisonRun
    >>> from actgrid.statistics.model_pair import ModelPair
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> images = np.zeros((4, 8, 8, 3), np.uint8)
    >>> with ComparisonRun(ModelPair(model, model, None), images, output="out") as run:
    ...     records = list(run)
    ...     run.finish()
    >>> run.comparison.images
    4
    """

    _loader_class = _PairLoader

    def __init__(
        self,
        pair: ModelPair,
        images: Any,
        *,
        output: str | Path,
        **options: Unpack[CompareModelsOptions],
    ) -> None:
        self._pair = pair
        pair.describe()
        images, preprocess = _read_arrays(images)
        if preprocess is not None and options.get("preprocess", "auto") == "auto":
            options["preprocess"] = preprocess
        sizes = [get_fixed_batch_size(model) for model in (pair.a, pair.b)]
        if any(size is not None for size in sizes):
            options["batch_size"] = min(size for size in sizes if size is not None)
        run_options = cast(RunOptions, pick_options(options, RunOptions))
        settings = {"size": None, "preprocess": "auto", "fit": "crop", "tokens": None, **options}
        items = find_run_items(images, find_local_folder(output), lambda: pair.a, settings)
        top = options.get("top", 9)
        super().__init__(pair, items, ["*"], output=output, top=top, **run_options)

    @property
    def activity(self) -> str:
        """The activity of the run: ``"comparing"``."""
        return "comparing"

    @property
    def model(self) -> Any:
        """The first model."""
        return self._pair.a

    @property
    def comparison(self) -> ModelComparison:
        """The comparison over the images that were processed so far."""
        statistics = self.summary().statistics
        assert statistics is not None
        return self._make_comparison(statistics)

    def _make_comparison(self, statistics: DatasetStats) -> ModelComparison:
        names = self._pair.names
        paths = {pair.a.path: pair.b.path for pair in self._pair.pairs}
        return ModelComparison(statistics, names, paths)

    def _write_results(self, statistics: DatasetStats, channels: int | None) -> None:
        comparison = self._make_comparison(statistics)
        summary = comparison.summary()
        self.store.write(SUMMARY, orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        self.store.write(COMPARISON, comparison.to_bytes())
        if not comparison.images:
            return
        pictures = self._draw_pictures(comparison, channels)
        files = number_files(list(pictures), ".png")
        for file, picture in zip(files, pictures.values(), strict=True):
            self.store.write(TOP + file, picture.to_png())
        self.store.write(REPORT, make_comparison_report(comparison, pictures))

    def _draw_pictures(
        self, comparison: ModelComparison, channels: int | None
    ) -> PictureDict[ComparedGrids]:
        """Draw the layers that differ most, each for the image in which it differs most."""
        layers = comparison.layers
        sizes = {
            path: float(np.nanmedian(layer.relative_difference))
            for path, layer in layers.items()
            if not np.isnan(layer.relative_difference).all()
        }
        worst = sorted(filter(sizes.get, sizes), key=lambda path: -sizes[path])[:_SHOWN_LAYERS]
        reload = make_reloader(self.items, partial(self.loader.load_with_pixels, self._pair))
        indices = {}
        for path in worst:
            channel = int(np.nanargmax(np.nan_to_num(layers[path].difference)))
            if images := layers[path].get_top_images(channel):
                indices[path] = images[0].index
        drawn: dict[str, ComparedGrids] = {}
        for index in sorted(set(indices.values())):
            if (loaded := reload(index)) is None:
                continue
            paths = [path for path in worst if indices.get(path) == index]
            drawn |= _draw_pair(self._pair, loaded[1], paths, channels)
        return PictureDict((path, drawn[path]) for path in layers if path in drawn)


@takes_options(CompareModelsOptions)
def compare_models(
    a: ModelLike,
    b: ModelLike,
    images: Any,
    layers: LayersLike | Mapping[str, str] = None,
    *,
    output: str | Path | None = None,
    **options: Unpack[CompareModelsOptions],
) -> ModelComparison:
    """Compare the channels of two models over many images.

    For every channel of every layer, the comparison has the difference and the correlation of the
    values, and whether the channel died; for every layer the centered kernel alignment (CKA). The
    images are streamed, and a run with an output folder can be resumed.

    Parameters
    ----------
    a, b : keras.Model or str or pathlib.Path
        The models, or anything that `actgrid.load_model` takes: two checkpoints of a training, a
        model before and after pruning or quantization, a model and its exported file.
    images : str, pathlib.Path, PIL.Image.Image, array, dict, tf.data.Dataset or iterable
        The images, see `actgrid.render_images`. An array or tensor of floating-point numbers,
        (N, ...), or a dict of arrays by the name of the input, is the input of both models, already
        preprocessed; an array of integers, (N, H, W, C), has pixels.
    layers : str, int, type, callable, sequence of these, dict or None, optional
        The layers of the first model, see `actgrid.Extractor`. Layers of the same path correspond.
        A dict from layer paths of the first model to layer paths of the second compares layers of
        different paths. None: all layers whose outputs are images, volumes, sequences or vectors;
        layers that the second model lacks are left out, and outputs of different paths correspond
        by their order.
    output : str or pathlib.Path or None
        A folder or URL. It receives ``report.html``, ``comparison.npz``, ``summary.json``, pictures
        of the layers that differ most, ``top/NN_layer.png``, and the manifest of
        `actgrid.render_images`. None: no files are written.
    **options
        See `actgrid.options.CompareModelsOptions`. Images are preprocessed for each model.
        `top` is the number of images that are kept for each channel in which it differs most.

    Returns
    -------
    ModelComparison
        The comparison. ``to_frame()`` has a row for each channel, worst first. It is a picture of
        the CKA and the relative difference of each layer.

    Raises
    ------
    LayerError
        If a layer does not exist, or no layers correspond. Also a KeyError.
    RunError
        If no image could be used and there is no `output`. Also a ValueError.
    ActgridError
        Errors of `actgrid.measure_images`.

    Notes
    -----
    CKA is linear, of the outputs at all positions, and estimated without bias from each batch of
    `batch_size` images (minibatch CKA); the estimates are averaged. Larger batches have a smaller
    variance. It needs batches of at least four images.

    References
    ----------
    Kornblith et al., Similarity of Neural Network Representations Revisited, 2019,
    https://arxiv.org/abs/1905.00414.
    Nguyen et al., Do Wide and Deep Networks Learn the Same Things?, 2021,
    https://arxiv.org/abs/2010.15327.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(name="mean"),
    ... ])
    >>> pruned = keras.models.clone_model(model)
    >>> kernel, bias = model.get_layer("conv").get_weights()
    >>> kernel[..., 2] = 0
    >>> pruned.get_layer("conv").set_weights([kernel, bias])
    >>> x = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)
    >>> comparison = actgrid.compare_models(model, pruned, x)
    >>> comparison.to_frame()[["layer", "channel", "dead_b"]].head(2).values.tolist()
    [['conv', 2, True], ['mean', 2, True]]
    """
    pair = ModelPair(a, b, layers)
    if output is None and (options["resume"] or options["overwrite"]):
        raise OptionError("resume and overwrite require output, the folder of the run")
    progress, top_channels = options["progress"], options["top_channels"]
    if output is not None:
        run = ComparisonRun(pair, images, output=output, **options)
        process_run(run, progress, top_channels)
        return run.comparison
    with tempfile.TemporaryDirectory(prefix="actgrid-") as folder:
        run = ComparisonRun(pair, images, output=folder, **options)
        if not process_run(run, progress, is_temporary=True).images:
            raise RunError("none of 0 images could be used")
        return run.comparison


@takes_options(RenderComparisonOptions)
def render_comparison(
    a: ModelLike,
    b: ModelLike,
    x: ModelInput,
    layers: LayersLike | Mapping[str, str] = None,
    **options: Unpack[RenderComparisonOptions],
) -> PictureDict[ComparedGrids]:
    """Draw the activations of two models for one input, and their difference, side by side.

    Parameters
    ----------
    a, b : keras.Model or str or pathlib.Path
        The models, as for `actgrid.compare_models`.
    x : array_like, dict, list or image sources
        The input of both models with its batch axis, already preprocessed; or image files or
        Pillow images, which `actgrid.load_images` prepares for each model.
    layers : str, int, type, callable, sequence of these, dict or None, optional
        The layers, as for `actgrid.compare_models`.
    **options
        See `actgrid.options.RenderComparisonOptions`.

    Returns
    -------
    PictureDict of str to ComparedGrids
        Path of the layer in the first model -> picture of three grids: each model, and the first
        minus the second. A channel has one scale in all three. The channels with the largest
        difference come first.

    Raises
    ------
    LayerError
        If a layer does not exist, or no layers correspond. Also a KeyError.
    ActgridError
        Errors of `actgrid.render_model`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(1, name="relu")])
    >>> x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    >>> pictures = actgrid.render_comparison(model, other, x)
    >>> pictures["relu"].save("relu.png")
    """
    pair = ModelPair(a, b, layers)
    pair.describe()
    sides = (pair.a, pair.b)
    choices = find_pair_preprocessing("auto", sides) if are_images(x) else [None, None]
    inputs = join_input(*map(_load_input, sides, [x, x], choices))
    return _draw_pair(pair, inputs, None, options["shown_channels"], options["sample"])


def _load_input(model: Any, x: Any, preprocessing: Preprocessing | None) -> Any:
    """Return an input of a model, an array or a dict of arrays by the name of the input."""
    if (samples := load_samples(x, model)) is not None:
        return samples.batch
    if preprocessing is not None:
        return load_images(x, model=model, preprocess=preprocessing.function)
    if isinstance(x, (list, tuple)) and len(infos := get_network(model).inputs) == len(x) > 1:
        return {info.name: value for info, value in zip(infos, x, strict=True)}
    return x


def _draw_pair(
    pair: ModelPair,
    inputs: Any,
    paths: list[str] | None,
    shown_channels: int | None,
    sample: int = 0,
) -> PictureDict[ComparedGrids]:
    """Draw layers of a pair of models for one sample.

    Parameters
    ----------
    inputs
        Inputs of both models, see `join_input`.
    paths
        Paths of the layers in the first model; None: all.
    """
    pair.list_layers(inputs)
    pictures: PictureDict[ComparedGrids] = PictureDict()
    names = pair.names
    for layer, (a, b) in pair.run_layers(inputs).items():
        if paths is None or layer.a.path in paths:
            rows = [check_sample(sample, len(array)) if len(array) > 1 else 0 for array in (a, b)]
            arrays = [array[row][None] for array, row in zip((a, b), rows, strict=True)]
            pictures[layer.a.path] = compare_activations(
                layer.a, arrays[0], layer.describe_arranged(), arrays[1], names, shown_channels
            )
    return pictures


def _read_arrays(images: Any) -> tuple[Any, str | None]:
    """Return images in a form that `find_run_items` takes, and their preprocessing.

    Arrays of floating-point numbers, and dicts of arrays, are inputs of the models.
    """
    if isinstance(images, Mapping):
        return images, "prepared"
    dtype = getattr(images, "dtype", None)
    if dtype is not None and hasattr(images, "__array__"):
        array = np.asarray(images)
        is_pixels = array.dtype.kind in "iub" and array.ndim == 4
        return list(array), None if is_pixels else "prepared"
    return images, None
