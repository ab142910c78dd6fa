"""The function `actgrid.export_site`, which writes the viewer as a static site."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import orjson

from actgrid.attribution.methods import find_method
from actgrid.encoding import make_folder, write_file
from actgrid.errors import OptionError, ShapeError
from actgrid.models import Extractor, load_model
from actgrid.models.extraction import trace_layers
from actgrid.models.tracing import prepare_trace_inputs
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExportOptions, ViewerImageOptions
from actgrid.progress import show_progress
from actgrid.rendering import ORDERS
from actgrid.web.images import ImageStore
from actgrid.web.page_files import read_page_files
from actgrid.web.samples import make_reader
from actgrid.web.viewer import Viewer

__all__ = ["export_site"]

# Path of a file, and a function that returns its content or an awaitable of its content: bytes, or
# a value for JSON.
_Resource = tuple[str, Callable[[], Any]]
# Number of concurrent writers: enough to keep the processors busy, and few enough that the
# activations of the current image stay in the cache.
_WRITERS = 4


@takes_options(ExportOptions)
def export_site(
    model: ModelLike,
    images: Any,
    layers: LayersLike = None,
    *,
    output: str | Path,
    **options: Unpack[ExportOptions],
) -> Path:
    """Write the viewer as a static site: the page, pictures and statistics as files.

    Any web server can serve the site. The page shows only the images, layers, normalizations and
    methods that were written, because no model runs on the server.

    Parameters
    ----------
    model : keras.Model or str or pathlib.Path
        A Keras model whose only input is a batch of images, or a model specification, see
        `actgrid.load_model`.
    images : str, pathlib.Path, PIL.Image.Image, array or iterable of these
        The images, see `actgrid.serve`.
    layers : str, int, type, callable or sequence of these, optional
        Layers whose channels the page shows, see `actgrid.Extractor`; None: all layers that can be
        drawn. The graph contains all layers in either case.
    output : str or pathlib.Path
        The folder, created if missing. ``index.html`` is written last, after all other files.
    **options
        See `actgrid.options.ExportOptions`. Each `normalize` is written with each `scope`. A model
        without classes has no heatmaps.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    OptionError
        If there are no images, or an option is invalid. Also a ValueError.
    OutputError
        If a file cannot be written. Also an OSError.
    LayerError
        If no layer matches an item of `layers`. Also a KeyError.
    ActgridError
        Errors of `actgrid.serve` and `actgrid.explain`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> images = np.zeros((1, 8, 8, 3), np.uint8)
    >>> site = actgrid.export_site(model, images, "conv", output="site", preprocess="unit")
    >>> sorted(path.name for path in site.glob("*.html"))
    ['index.html']
    """
    normalizations, scopes = _as_list(options["normalize"]), _as_list(options["scope"])
    methods = [find_method(method).name for method in _as_list(options["method"])]
    loaded = load_model(model)
    store = ImageStore(images, reader=make_reader(loaded, options))
    viewer = Viewer(loaded, store, **pick_options(options, ViewerImageOptions))
    if not len(viewer.images):
        raise OptionError("no images were given: a site needs at least one image")
    model_info = viewer.get_model_info()
    drawable_paths = {node["path"] for node in model_info["nodes"] if node["is_drawable"]}
    if layers is not None:
        drawable_paths &= set(
            trace_layers(Extractor(loaded, layers), prepare_trace_inputs(loaded, None))
        )
    model_info |= {
        "is_live": False,
        "nodes": [
            node | {"is_drawable": node["path"] in drawable_paths} for node in model_info["nodes"]
        ],
        "controls": _restrict_controls(
            model_info["controls"], normalize=normalizations, scope=scopes, order=list(ORDERS)
        ),
        "methods": [method for method in model_info["methods"] if method["name"] in methods],
        "targets": False,
        "uploads": None,
        "maximize": False,
        "switches": False,
    }
    folder = make_folder(output)
    renderings = list(product(normalizations, scopes))
    resources = list(_iterate_resources(viewer, model_info, renderings))
    with show_progress(len(resources), "exporting", options["progress"]) as advance:
        asyncio.run(_write_resources(viewer, folder, resources, advance))
    # The page is written last, because it loads all other files.
    for name, content in sorted(
        read_page_files().items(), key=lambda file: file[0] == "index.html"
    ):
        write_file(folder / name, content)
    return folder


def _as_list(option: str | Sequence[str]) -> list[str]:
    return [option] if isinstance(option, str) else list(option)


def _restrict_controls(controls: dict[str, Any], **choices: list[str]) -> dict[str, Any]:
    """Return definitions of the page's controls with fewer choices of some controls."""
    layer = controls["layer"] | {
        name: controls["layer"][name] | {"choices": words, "default": words[0]}
        for name, words in choices.items()
    }
    return controls | {"layer": layer}


def _iterate_resources(
    viewer: Viewer, model_info: dict[str, Any], renderings: list[tuple[str, str]]
) -> Iterator[_Resource]:
    """Yield all resources of the HTTP API that the page loads, with their paths."""
    nodes = model_info["nodes"]
    drawable = [layer for layer, node in enumerate(nodes) if node["is_drawable"]]
    # The output of a transformer block shares the files of the layer that computes the attention.
    attention = sorted(
        {
            nodes[layer]["attention"]["layer"]
            for layer in drawable
            if nodes[layer]["attention"] is not None
        }
    )
    stored_images = viewer.images.list_images(0, len(viewer.images))
    for image in (stored.id for stored in stored_images):
        prefix = f"images/{image}"
        yield f"{prefix}/thumbnail.jpg", partial(viewer.get_thumbnail, image)
        yield f"{prefix}/picture.png", partial(viewer.get_picture, image)
        yield f"{prefix}/layers.json", partial(viewer.get_layers, image)
        yield f"{prefix}/layers.png", partial(viewer.get_layers_sprite, image)
        if model_info["classes"]:
            yield f"{prefix}/classes.json", partial(viewer.get_classes, image)
        for layer in drawable:
            yield f"{prefix}/layers/{layer}.json", partial(viewer.get_layer, image, layer)
            yield (
                f"{prefix}/layers/{layer}/histograms.json",
                partial(viewer.get_histograms, image, layer),
            )
            for normalize, scope in renderings:
                levels = f"{prefix}/layers/{layer}/{normalize}/{scope}"
                yield f"{levels}.png", partial(viewer.get_levels, image, layer, normalize, scope)
                yield f"{levels}.json", partial(viewer.get_range, image, layer, normalize, scope)
        for layer in attention:
            yield (
                f"{prefix}/layers/{layer}/attention.json",
                partial(viewer.get_attention, image, layer),
            )
            yield (
                f"{prefix}/layers/{layer}/attention.bin",
                partial(viewer.get_attention_levels, image, layer),
            )
        for method in (entry["name"] for entry in model_info["methods"]):
            heatmap = f"{prefix}/heatmaps/{method}/predicted"
            yield f"{heatmap}.json", partial(viewer.get_heatmap, image, method, None)
            yield f"{heatmap}.png", partial(viewer.get_heatmap_levels, image, method, None)
    for layer in drawable:
        if nodes[layer]["kernel"]:
            yield f"layers/{layer}/kernel.json", partial(viewer.get_kernel, layer)
            yield f"layers/{layer}/kernel.png", partial(viewer.get_kernel_levels, layer)
        if nodes[layer]["has_statistics"]:
            yield f"layers/{layer}/dataset.json", partial(viewer.get_dataset_stats, layer)
    entries = [{"id": image.id, "name": image.name, "uploaded": False} for image in stored_images]
    yield "images.json", partial(dict, total=len(entries), images=entries)
    yield "model.json", partial(dict, model_info)


async def _write_resources(
    viewer: Viewer, folder: Path, resources: list[_Resource], advance: Callable[[], None]
) -> None:
    """Write resources to files in their order, several at a time."""
    remaining = iter(resources)

    async def write() -> None:
        for path, get in remaining:
            try:
                content = get()
                if inspect.isawaitable(content):
                    content = await content
            except ShapeError:
                # The size of some attention is known only after the model has run.
                if "/attention." not in path:
                    raise
                advance()
                continue
            if not isinstance(content, bytes):
                content = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
            file = folder / "api" / path
            make_folder(file.parent)
            write_file(file, content)
            advance()

    try:
        await viewer.start()
        writers = [asyncio.ensure_future(write()) for _ in range(_WRITERS)]
        try:
            await asyncio.gather(*writers)
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)
    finally:
        await viewer.close()
