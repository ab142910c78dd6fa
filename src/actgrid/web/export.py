"""`actgrid.export_site`: the viewer as files for any web server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from actgrid.attribution.methods import find_method
from actgrid.encoding import writable_folder, write_file
from actgrid.errors import OptionError
from actgrid.models import Extractor, load_model
from actgrid.models.extraction import trace_layers
from actgrid.models.tracing import trace_inputs
from actgrid.models.types import LayersLike, ModelLike
from actgrid.progress import progress as shown
from actgrid.rendering.normalize import SCOPES, parse_normalize
from actgrid.web.app import page_files
from actgrid.web.serving import make_viewer
from actgrid.web.viewer import Viewer

__all__ = ["export_site"]

# Path of a file, and what returns its content, perhaps to be awaited: bytes, or what becomes JSON.
_Resource = tuple[str, Callable[[], Any]]
# At once: enough that the processors are never idle, few enough that one image's layers stay.
_WRITERS = 4


def export_site(
    model: ModelLike,
    images: Any,
    output: str | Path,
    layers: LayersLike = None,
    *,
    normalize: str | Sequence[str] = "standard",
    scope: str | Sequence[str] = "channel",
    methods: str | Sequence[str] = "gradcam",
    progress: bool = False,
    **options: Any,
) -> Path:
    """Write the viewer as files: the same page with the data in it, for any web server.

    Nothing runs there: what the page offers is what was written.

    Parameters
    ----------
    model, images
        As for `actgrid.serve`.
    output
        A folder, made if need be. ``index.html`` comes last, when all else is there.
    layers
        Whose channels can be looked at, see `actgrid.Extractor`; None: all that can be drawn. The
        graph shows every layer.
    normalize, scope
        Those that can be chosen, see `actgrid.render`: each of the one with each of the other.
    methods
        The heatmaps of the predicted class that can be chosen, see `actgrid.explain`; none for a
        model that has no classes.
    progress
        Show a progress bar, on a terminal.
    options
        As for `actgrid.serve`.

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
    >>> actgrid.export_site("demo", "photos/", "site", "*_relu", normalize=["standard", "minmax"])
    PosixPath('site')
    """
    renderings = [(one, each) for one in _several(normalize) for each in _several(scope)]
    for one, each in renderings:
        parse_normalize(one)
        if each not in SCOPES:
            raise OptionError(f"scope must be one of {', '.join(SCOPES)}, not {each!r}")
    wanted = [find_method(method).name for method in _several(methods)]
    network = load_model(model)
    viewer = make_viewer(network, images, **options)
    if not len(viewer.images):
        raise OptionError("no images were given: a site shows those that it was written with")
    about = viewer.about()
    drawn = {node["path"] for node in about["nodes"] if node["drawn"]}
    if layers is not None:
        drawn &= set(trace_layers(Extractor(network, layers), trace_inputs(network, None)))
    about |= {
        "live": False,
        "nodes": [node | {"drawn": node["path"] in drawn} for node in about["nodes"]],
        "normalizations": list(_several(normalize)),
        "scopes": list(_several(scope)),
        "methods": [method for method in about["methods"] if method["name"] in wanted],
        "targets": False,
        "uploads": None,
        "maximize": False,
    }
    folder = writable_folder(output)
    resources = list(_resources(viewer, about, renderings))
    with shown(len(resources), "exporting", progress) as advance:
        asyncio.run(_write(viewer, folder, resources, advance))
    # What has the page's data first, and the page itself when everything it asks for is there.
    for name, content in sorted(page_files().items(), key=lambda file: file[0] == "index.html"):
        write_file(folder / name, content)
    return folder


def _several(option: str | Sequence[str]) -> Sequence[str]:
    return [option] if isinstance(option, str) else option


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
            writable_folder(file.parent)
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
