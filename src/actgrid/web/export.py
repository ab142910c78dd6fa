"""`actgrid.export_site`: the viewer as files for any web server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from actgrid.attribution.methods import find_method
from actgrid.encoding import make_folder, write_file
from actgrid.errors import OptionError
from actgrid.models import Extractor, load_model
from actgrid.models.extraction import trace_layers
from actgrid.models.tracing import prepare_trace_inputs
from actgrid.models.types import LayersLike, ModelLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import ExportOptions, ViewerImageOptions
from actgrid.progress import show_progress
from actgrid.web.images import ImageStore
from actgrid.web.page_files import page_files
from actgrid.web.viewer import Viewer

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["export_site"]

# Path of a file, and what returns its content, perhaps to be awaited: bytes, or what becomes JSON.
_Resource = tuple[str, Callable[[], Any]]
# At once: enough that the processors are never idle, few enough that one image's layers stay.
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
    """Write the viewer as files: the same page with the data in it, for any web server.

    Nothing runs there: what the page offers is what was written.

    Parameters
    ----------
    model, images
        As for `actgrid.serve`.
    layers
        Layers whose channels can be looked at, see `actgrid.Extractor`; None: all that can be
        drawn. The graph shows every layer.
    output
        A folder, made if need be. ``index.html`` is written last, when all else is there.
    **options
        Options of the page, see `actgrid.options.ExportOptions`. Each `normalize` is written with
        each `scope`; a model without classes has no heatmaps.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OptionError
        If there is no image, or an option cannot be used. Also a ValueError.
    OutputError
        If a file cannot be written. Also an OSError.
    LayerError
        If no layer matches an item of `layers`. Also a KeyError.
    ActgridError
        Whatever `actgrid.serve` and `actgrid.explain` raise.

    Examples
    --------
    >>> actgrid.export_site("demo", "photos/", "*_relu", output="site")
    PosixPath('site')
    """
    normalizations, scopes = _several(options["normalize"]), _several(options["scope"])
    methods = [find_method(method).name for method in _several(options["method"])]
    network = load_model(model)
    store = ImageStore(images)
    viewer = Viewer(network, store, **pick_options(options, ViewerImageOptions))
    if not len(viewer.images):
        raise OptionError("no images were given: a site shows those that it was written with")
    about = viewer.about()
    drawn = {node["path"] for node in about["nodes"] if node["drawn"]}
    if layers is not None:
        drawn &= set(trace_layers(Extractor(network, layers), prepare_trace_inputs(network, None)))
    about |= {
        "live": False,
        "nodes": [node | {"drawn": node["path"] in drawn} for node in about["nodes"]],
        "controls": _offered(about["controls"], normalize=normalizations, scope=scopes),
        "methods": [method for method in about["methods"] if method["name"] in methods],
        "targets": False,
        "uploads": None,
        "maximize": False,
    }
    folder = make_folder(output)
    renderings = list(product(normalizations, scopes))
    resources = list(_resources(viewer, about, renderings))
    with show_progress(len(resources), "exporting", options["progress"]) as advance:
        asyncio.run(_write(viewer, folder, resources, advance))
    # What has the page's data first, and the page itself when everything it asks for is there.
    for name, content in sorted(page_files().items(), key=lambda file: file[0] == "index.html"):
        write_file(folder / name, content)
    return folder


def _several(option: str | Sequence[str]) -> list[str]:
    return [option] if isinstance(option, str) else list(option)


def _offered(controls: dict[str, Any], **words: list[str]) -> dict[str, Any]:
    """Return the controls of the page, those of a layer with nothing but the words written."""
    layer = controls["layer"] | {
        name: controls["layer"][name] | {"words": known, "default": known[0]}
        for name, known in words.items()
    }
    return controls | {"layer": layer}


def _resources(
    viewer: Viewer, about: dict[str, Any], renderings: list[tuple[str, str]]
) -> Iterator[_Resource]:
    """Yield all that the page asks for, under the paths that it asks for."""
    nodes = about["nodes"]
    drawn = [layer for layer, node in enumerate(nodes) if node["drawn"]]
    listed = viewer.images.listed(0, len(viewer.images))
    for image in (one.id for one in listed):
        place = f"images/{image}"
        yield f"{place}/thumbnail.jpg", partial(viewer.thumbnail, image)
        yield f"{place}/picture.png", partial(viewer.picture, image)
        yield f"{place}/layers.json", partial(viewer.layers, image)
        yield f"{place}/layers.png", partial(viewer.layers_sprite, image)
        if about["classes"]:
            yield f"{place}/classes.json", partial(viewer.classes, image)
        for layer in drawn:
            yield f"{place}/layers/{layer}.json", partial(viewer.layer, image, layer)
            yield (
                f"{place}/layers/{layer}/histograms.json",
                partial(viewer.histograms, image, layer),
            )
            for normalize, scope in renderings:
                yield (
                    f"{place}/layers/{layer}/{normalize}/{scope}.png",
                    partial(viewer.levels, image, layer, normalize, scope),
                )
        for method in (one["name"] for one in about["methods"]):
            heatmap = f"{place}/heatmaps/{method}/predicted"
            yield f"{heatmap}.json", partial(viewer.heatmap, image, method, None)
            yield f"{heatmap}.png", partial(viewer.heatmap_levels, image, method, None)
    for layer in drawn:
        if nodes[layer]["kernel"]:
            yield f"layers/{layer}/kernel.json", partial(viewer.kernel, layer)
            yield f"layers/{layer}/kernel.png", partial(viewer.kernel_levels, layer)
        if nodes[layer]["measured"]:
            yield f"layers/{layer}/dataset.json", partial(viewer.dataset, layer)
    named = [{"id": image.id, "name": image.name, "uploaded": False} for image in listed]
    yield "images.json", partial(dict, total=len(named), images=named)
    yield "model.json", partial(dict, about)


async def _write(
    viewer: Viewer, folder: Path, resources: list[_Resource], advance: Callable[[], None]
) -> None:
    """Write the resources, a few at a time, in their order: an image's follow each other."""
    left = iter(resources)

    async def write() -> None:
        for path, get in left:
            content = get()
            if inspect.isawaitable(content):
                content = await content
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
