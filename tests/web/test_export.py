"""Tests of the static site that `actgrid.export_site` writes."""

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
from actgrid.rendering import ORDERS
from actgrid.web.page_files import read_page_files


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


def read_model_info(site: Path) -> dict[str, Any]:
    model_info: dict[str, Any] = json.loads((site / "api" / "model.json").read_bytes())
    return model_info


def test_site_contains_page_files(site: Path) -> None:
    for name, content in read_page_files().items():
        assert (site / name).read_bytes() == content


def test_site_contains_all_offered_resources(site: Path) -> None:
    model_info = read_model_info(site)
    assert not model_info["is_live"]
    assert model_info["controls"]["layer"]["normalize"]["choices"] == ["standard", "minmax"]
    assert model_info["controls"]["layer"]["scope"]["choices"] == ["channel", "layer"]
    assert model_info["controls"]["layer"]["order"]["choices"] == list(ORDERS)  # no relevance
    assert [method["name"] for method in model_info["methods"]] == ["saliency", "gradcam"]
    assert (model_info["targets"], model_info["uploads"], model_info["maximize"]) == (
        False,
        None,
        False,
    )
    drawable = [index for index, node in enumerate(model_info["nodes"]) if node["is_drawable"]]
    assert [model_info["nodes"][index]["path"] for index in drawable] == ["conv", "last"]
    images = json.loads((site / "api" / "images.json").read_bytes())
    assert [image["name"] for image in images["images"]] == [f"photo{i}.png" for i in range(3)]
    assert not any(image["uploaded"] for image in images["images"])
    for image in images["images"]:
        folder = site / "api" / "images" / image["id"]
        expected = {"thumbnail.jpg", "picture.png", "classes.json", "layers.json", "layers.png"}
        for layer in drawable:
            expected |= {f"layers/{layer}.json", f"layers/{layer}/histograms.json"}
            for normalize in model_info["controls"]["layer"]["normalize"]["choices"]:
                expected |= {
                    f"layers/{layer}/{normalize}/{scope}.{suffix}"
                    for scope in model_info["controls"]["layer"]["scope"]["choices"]
                    for suffix in ("json", "png")
                }
        for method in ("gradcam", "saliency"):
            expected |= {f"heatmaps/{method}/predicted.{suffix}" for suffix in ("json", "png")}
        written = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
        assert written == expected
    kernels = {file.relative_to(site).as_posix() for file in site.glob("api/layers/*/*")}
    assert kernels == {
        f"api/layers/{layer}/kernel.{suffix}" for layer in drawable for suffix in ("json", "png")
    } | {f"api/layers/{drawable[0]}/dataset.json"}


def test_written_levels_equal_render_model(
    site: Path, model: Any, photos: Path, assert_levels_agree: Any
) -> None:
    (image,) = (
        entry["id"]
        for entry in json.loads((site / "api" / "images.json").read_bytes())["images"]
        if entry["name"] == "photo1.png"
    )
    file = site / "api" / "images" / image / "layers" / "1" / "minmax" / "layer.png"
    tiles = json.loads((file.parents[1].parent / "1.json").read_bytes())["tiles"]
    expected = actgrid.render_model(
        model,
        str(photos / "photo1.png"),
        "conv",
        normalize="minmax",
        scope="layer",
        padding=0,
        columns=tiles["columns"],
    )["conv"]
    assert_levels_agree(np.asarray(Image.open(file)), expected.levels)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Serve the site with the web server of the standard library, and return its URL."""

    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_site_works_on_any_web_server(address: str, site: Path) -> None:
    assert httpx.get(address).content == read_page_files()["index.html"]
    model = httpx.get(f"{address}api/model.json")
    assert model.json() == read_model_info(site)
    # A static server ignores the query parameters of the page.
    images = httpx.get(f"{address}api/images.json", params={"offset": 0, "limit": 100})
    assert images.json()["total"] == 3


def test_site_can_be_overwritten(site: Path, model: Any, photos: Path) -> None:
    before = {file: file.read_bytes() for file in site.rglob("*.png")}
    actgrid.export_site(model, photos / "photo0.png", "conv", output=site)
    assert [node["path"] for node in read_model_info(site)["nodes"] if node["is_drawable"]] == [
        "conv"
    ]
    assert before.keys() <= set(site.rglob("*.png"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"images": []}, OptionError, "no images were given"),
        ({"normalize": "minmx"}, OptionError, "did you mean minmax"),
        ({"scope": "all"}, OptionError, "scope must be one of"),
        ({"method": "gradcm"}, OptionError, "did you mean gradcam"),
        ({"layers": "cnv"}, LayerError, "did you mean conv"),
    ],
)
def test_invalid_options_raise_before_files_are_written(
    model: Any,
    photos: Path,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        actgrid.export_site(model, **{"images": photos, "output": tmp_path / "site"} | options)
    assert not (tmp_path / "site").exists()
