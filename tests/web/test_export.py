from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.errors import LayerError, OptionError
from actgrid.web.page_files import page_files


@pytest.fixture(scope="module")
def site(model: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    stats = actgrid.measure_images(model, photos, "conv")
    return actgrid.export_site(
        model,
        photos,
        ["conv", "last"],
        output=folder,
        normalize=["standard", "minmax"],
        scope=["channel", "layer"],
        method=["gradcam", "saliency"],
        statistics=stats,
    )


def about(site: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site / "api" / "model.json").read_bytes())
    return found


def test_the_page_is_there(site: Path) -> None:
    for name, content in page_files().items():
        assert (site / name).read_bytes() == content


def test_what_it_offers_is_what_was_written(site: Path) -> None:
    found = about(site)
    assert not found["live"]
    assert found["controls"]["layer"]["normalize"]["words"] == ["standard", "minmax"]
    assert found["controls"]["layer"]["scope"]["words"] == ["channel", "layer"]
    assert [method["name"] for method in found["methods"]] == ["saliency", "gradcam"]
    assert (found["targets"], found["uploads"], found["maximize"]) == (False, None, False)
    drawn = [index for index, node in enumerate(found["nodes"]) if node["drawn"]]
    assert [found["nodes"][index]["path"] for index in drawn] == ["conv", "last"]
    images = json.loads((site / "api" / "images.json").read_bytes())
    assert [image["name"] for image in images["images"]] == [f"photo{i}.png" for i in range(3)]
    assert not any(image["uploaded"] for image in images["images"])
    for image in images["images"]:
        place = site / "api" / "images" / image["id"]
        wanted = {"thumbnail.jpg", "picture.png", "classes.json", "layers.json", "layers.png"}
        for layer in drawn:
            wanted |= {f"layers/{layer}.json", f"layers/{layer}/histograms.json"}
            for normalize in found["controls"]["layer"]["normalize"]["words"]:
                wanted |= {
                    f"layers/{layer}/{normalize}/{scope}.png"
                    for scope in found["controls"]["layer"]["scope"]["words"]
                }
        for method in ("gradcam", "saliency"):
            wanted |= {f"heatmaps/{method}/predicted.{suffix}" for suffix in ("json", "png")}
        written = {file.relative_to(place).as_posix() for file in place.rglob("*.*")}
        assert written == wanted
    kernels = {file.relative_to(site).as_posix() for file in site.glob("api/layers/*/*")}
    assert kernels == {
        f"api/layers/{layer}/kernel.{s}" for layer in drawn for s in ("json", "png")
    } | {f"api/layers/{drawn[0]}/dataset.json"}


def test_levels_are_those_that_actgrid_draws(
    site: Path, model: Any, photos: Path, assert_levels_agree: Any
) -> None:
    (image,) = (
        one["id"]
        for one in json.loads((site / "api" / "images.json").read_bytes())["images"]
        if one["name"] == "photo1.png"
    )
    file = site / "api" / "images" / image / "layers" / "1" / "minmax" / "layer.png"
    tiles = json.loads((file.parents[1].parent / "1.json").read_bytes())["tiles"]
    truth = actgrid.render_model(
        model,
        str(photos / "photo1.png"),
        "conv",
        normalize="minmax",
        scope="layer",
        padding=0,
        columns=tiles["columns"],
    )["conv"]
    assert_levels_agree(np.asarray(Image.open(file)), truth.levels)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served by Python's own web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_any_web_server_will_do(address: str, site: Path) -> None:
    assert httpx.get(address).content == page_files()["index.html"]
    model = httpx.get(f"{address}api/model.json")
    assert model.json() == about(site)
    # What the page asks of a server that knows more is understood.
    images = httpx.get(f"{address}api/images.json", params={"offset": 0, "limit": 100})
    assert images.json()["total"] == 3


def test_a_site_may_be_written_again(site: Path, model: Any, photos: Path) -> None:
    before = {file: file.read_bytes() for file in site.rglob("*.png")}
    actgrid.export_site(model, photos / "photo0.png", "conv", output=site)
    assert [node["path"] for node in about(site)["nodes"] if node["drawn"]] == ["conv"]
    assert before.keys() <= set(site.rglob("*.png"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"images": []}, OptionError, "no images were given"),
        ({"normalize": "minmx"}, OptionError, "did you mean minmax"),
        ({"scope": "all"}, OptionError, "scope must be one of"),
        ({"method": "gradcm"}, OptionError, "did you mean gradcam"),
        ({"layers": "cnv"}, LayerError, "did you mean conv"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_written(
    model: Any,
    photos: Path,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        actgrid.export_site(model, **{"images": photos, "output": tmp_path / "site"} | options)
    assert not (tmp_path / "site").exists()
