"""Tests of the HTTP API through a running server with a small model."""

from __future__ import annotations

import asyncio
import io
import re
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.models.images import load_with_pixels
from actgrid.rendering import palette
from actgrid.web import app
from actgrid.web.page_files import read_page_files
from actgrid.web.routes import images as image_routes
from actgrid.web.serving import make_viewer

SendRequest = Callable[..., httpx.Response]
Client = httpx.Client


@pytest.fixture(scope="module")
def model_info(client: Client) -> dict[str, Any]:
    description: dict[str, Any] = client.get("/api/model.json").json()
    return description


@pytest.fixture(scope="module")
def images(client: Client) -> dict[str, str]:
    """Return the ids of the images by name."""
    response = client.get("/api/images.json").json()
    return {image["name"]: image["id"] for image in response["images"]}


@pytest.fixture(scope="module")
def node_index(model_info: dict[str, Any]) -> dict[str, int]:
    """Return the indices of the layers by path."""
    return {node["path"]: index for index, node in enumerate(model_info["nodes"])}


def decode_pixels(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def read_detail(response: httpx.Response, status: int) -> str:
    """Check the status of an error response, and return its message."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    text = response.json()["detail"]
    assert text
    return str(text)


def test_model_json_describes_graph_classes_and_methods(model_info: dict[str, Any]) -> None:
    assert model_info["name"] == "small"
    assert model_info["is_live"]
    nodes = {node["path"]: node for node in model_info["nodes"]}
    assert list(nodes) == ["image", "conv", "depthwise", "add", "last", "pool", "head"]
    assert nodes["conv"]["shape"] == [None, 16, 12, 6]
    assert [path for path, node in nodes.items() if node["kernel"]] == [
        *("conv", "depthwise", "last", "head")
    ]
    assert not nodes["image"]["is_drawable"]
    assert [1, 3] in model_info["edges"]
    assert model_info["groups"] == [
        {"name": "add", "kind": "branches", "title": "2 layers, 2 branches", "parent": None}
    ]
    assert model_info["classes"] == {"node": 6, "count": 3, "labels": ["cat", "dog", "bird"]}
    assert "gradcam" in [method["name"] for method in model_info["methods"]]


def test_images_json_returns_requested_range(client: Client) -> None:
    response = client.get("/api/images.json", params={"offset": 1, "limit": 1}).json()
    assert response["total"] >= 3
    assert [image["name"] for image in response["images"]] == ["photo1.png"]


def test_picture_shows_resized_image(
    client: Client, images: dict[str, str], model: Any, photos: Path
) -> None:
    expected, _ = load_with_pixels(photos / "photo1.png", model=model)
    picture = decode_pixels(client.get(f"/api/images/{images['photo1.png']}/picture.png"))
    np.testing.assert_array_equal(picture, np.rint(expected[0]).astype(np.uint8))
    thumbnail = client.get(f"/api/images/{images['photo1.png']}/thumbnail.jpg")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert max(decode_pixels(thumbnail).shape[:2]) <= 128


@pytest.mark.parametrize("path", ["conv", "add", "last", "head"])
def test_rendered_layer_equals_render_model(
    client: Client,
    images: dict[str, str],
    node_index: dict[str, int],
    model: Any,
    photos: Path,
    path: str,
    assert_levels_agree: Any,
) -> None:
    url = f"/api/images/{images['photo0.png']}/layers/{node_index[path]}.png"
    options: dict[str, Any] = {"normalize": "minmax", "scope": "layer", "zoom": 3, "cmap": "magma"}
    expected = actgrid.render_model(model, str(photos / "photo0.png"), path)[path]
    assert_levels_agree(decode_pixels(client.get(url)), expected.levels)
    expected = actgrid.render_model(model, str(photos / "photo0.png"), path, **options)[path]
    picture = Image.open(io.BytesIO(client.get(url, params=options).content)).convert("RGB")
    assert_levels_agree(np.asarray(picture), expected.to_rgb(), palette("magma"))


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("normalize", ["standard", "percentile(5, 95)", "range(-1, 1)"])
def test_levels_contain_tiles_of_render_model(
    client: Client,
    images: dict[str, str],
    node_index: dict[str, int],
    model: Any,
    photos: Path,
    normalize: str,
    scope: str,
    assert_levels_agree: Any,
) -> None:
    url = f"/api/images/{images['photo2.png']}/layers/{node_index['last']}"
    tiles = client.get(f"{url}.json").json()["tiles"]
    levels = decode_pixels(client.get(f"{url}/{normalize}/{scope}.png"))
    expected = actgrid.render_model(
        model, str(photos / "photo2.png"), "last", normalize=normalize, scope=scope
    )["last"]
    height, width = tiles["height"], tiles["width"]
    assert (tiles["count"], tiles["slices"], tiles["step"]) == (9, 1, 1)
    for channel in range(9):
        row, column = divmod(channel, tiles["columns"])
        tile = levels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert_levels_agree(tile, expected.tile(channel))


NORMALIZED_RANGES: dict[str, Callable[[Any], tuple[float, float]]] = {
    "standard": (lambda x: (x.mean() - 127.5 / 64 * x.std(), x.mean() + 127.5 / 64 * x.std())),
    "minmax": (lambda x: (x.min(), x.max())),
    "symmetric": (lambda x: (-np.abs(x).max(), np.abs(x).max())),
    "percentile(5, 95)": (lambda x: (np.percentile(x, 5), np.percentile(x, 95))),
    "range(-1, 2)": (lambda x: (-1, 2)),
}


@pytest.mark.parametrize("normalize", NORMALIZED_RANGES)
def test_range_contains_the_values_of_the_end_colours(
    client: Client,
    images: dict[str, str],
    node_index: dict[str, int],
    model: Any,
    photos: Path,
    normalize: str,
) -> None:
    url = f"/api/images/{images['photo0.png']}/layers/{node_index['last']}/{normalize}"
    inner = keras.Model(model.input, model.get_layer("last").output)
    x = inner.predict(actgrid.load_images(photos / "photo0.png", model=model), verbose=0)[0]
    compute_range = NORMALIZED_RANGES[normalize]
    for scope, tiles in {"layer": [x], "channel": np.moveaxis(x, 2, 0)}.items():
        color_range = client.get(f"{url}/{scope}.json").json()
        expected = np.array([compute_range(tile.astype(np.float64)) for tile in tiles])
        if normalize.startswith("range"):
            expected = expected[:1]
        np.testing.assert_allclose(color_range["low"], expected[:, 0], 1e-4, 1e-6)
        np.testing.assert_allclose(color_range["high"], expected[:, 1], 1e-4, 1e-6)


def test_layer_statistics_and_histograms(
    client: Client, images: dict[str, str], node_index: dict[str, int], model: Any, photos: Path
) -> None:
    url = f"/api/images/{images['photo0.png']}/layers/{node_index['conv']}"
    layer = client.get(f"{url}.json").json()
    expected = actgrid.render_model(model, str(photos / "photo0.png"), "conv")["conv"].stats
    for name in ("mean", "std", "min", "max", "zero_fraction"):
        np.testing.assert_allclose(layer["stats"][name], getattr(expected, name), 1e-5, 1e-6)
    assert layer["shape"] == [16, 12, 6]
    histograms = client.get(f"{url}/histograms.json").json()
    assert np.shape(histograms["counts"]) == (6, histograms["bins"])
    assert np.sum(histograms["counts"], 1).tolist() == [16 * 12] * 6


@pytest.mark.parametrize("target", ["dog", "2", "predicted"])
def test_relevance_and_grid_sorted_by_it(
    client: Client,
    images: dict[str, str],
    node_index: dict[str, int],
    model: Any,
    photos: Path,
    target: str,
    assert_levels_agree: Any,
) -> None:
    x = actgrid.load_images(photos / "photo0.png", model=model)
    classes = {"dog": 1, "2": 2, "predicted": int(model(x).numpy()[0].argmax())}
    weights = model.get_layer("head").kernel.numpy()[:, classes[target]]
    expected = actgrid.Extractor(model, "pool")(x)["pool"][0] * weights
    url = f"/api/images/{images['photo0.png']}/layers"
    for path in ("last", "pool"):
        response = client.get(f"{url}/{node_index[path]}/relevance/{target}.json").json()
        assert response["path"] == path
        np.testing.assert_allclose(response["relevance"], expected, rtol=1e-3, atol=1e-6)
    last = client.get(
        f"{url}/{node_index['last']}.png", params={"order": "relevance", "target": target}
    )
    grid = actgrid.render_model(model, x, "last", order=np.argsort(-expected))["last"]
    assert_levels_agree(decode_pixels(last), grid.levels)


def test_a_target_without_order_relevance_is_rejected(
    client: Client, images: dict[str, str], node_index: dict[str, int]
) -> None:
    url = f"/api/images/{images['photo0.png']}/layers/{node_index['last']}"
    message = read_detail(client.get(f"{url}.png?order=mean&target=1"), 422)
    assert message.startswith("target is only used with order='relevance'")
    assert "no class is called 'cow'" in read_detail(client.get(f"{url}/relevance/cow.json"), 422)


def test_classes_and_heatmap(
    client: Client, images: dict[str, str], model: Any, photos: Path
) -> None:
    image = images["photo0.png"]
    classes = client.get(f"/api/images/{image}/classes.json").json()
    x = actgrid.load_images(photos / "photo0.png", model=model)
    probabilities = model.predict(x, verbose=0)[0]
    assert classes["kind"] == "probability"
    assert [entry["index"] for entry in classes["top"]] == np.argsort(-probabilities).tolist()
    np.testing.assert_allclose(
        [entry["value"] for entry in classes["top"]], np.sort(probabilities)[::-1], 1e-4
    )
    heatmap = client.get(f"/api/images/{image}/heatmaps/gradcam/2.json").json()
    assert (heatmap["target"], heatmap["label"], heatmap["layer"]) == (2, "bird", "last")
    levels = decode_pixels(client.get(f"/api/images/{image}/heatmaps/gradcam/2.png"))
    assert levels.shape == (16, 12)


def test_scores_equal_evaluate(
    client: Client, images: dict[str, str], model: Any, photos: Path
) -> None:
    image = images["photo0.png"]
    url = f"/api/images/{image}/scores/occlusion/bird"
    assert client.get(f"{url}/progress.json").json()["state"] == "none"
    scores = client.get(f"{url}.json").json()
    assert client.get(f"{url}/progress.json").json()["state"] == "ready"
    assert (scores["method"], scores["target"]) == ("occlusion", 2)
    x = actgrid.load_images(photos / "photo0.png", model=model)
    evaluation = actgrid.evaluate(model, x, "occlusion", target=2, steps=20)
    assert [score["metric"] for score in scores["scores"]] == ["deletion", "insertion"]
    assert [score["better"] for score in scores["scores"]] == ["lower", "higher"]
    np.testing.assert_allclose(
        [score["value"] for score in scores["scores"]],
        [evaluation.means[name][0] for name in ("deletion", "insertion")],
        rtol=1e-4,
    )
    wrong = client.get(f"/api/images/{image}/scores/gradcm/predicted.json")
    assert (wrong.status_code, "did you mean gradcam" in wrong.text) == (422, True)


def test_kernel_levels_equal_render_weights(
    client: Client, node_index: dict[str, int], model: Any
) -> None:
    kernel_info = client.get(f"/api/layers/{node_index['conv']}/kernel.json").json()
    kernel = model.get_layer("conv").kernel.numpy()
    assert kernel_info["shape"] == list(kernel.shape)
    np.testing.assert_allclose(
        [kernel_info["min"], kernel_info["max"]], [kernel.min(), kernel.max()], 1e-5
    )
    tiles = kernel_info["tiles"]
    assert (tiles["count"], tiles["slices"], tiles["height"], tiles["width"]) == (18, 3, 3, 3)
    levels = decode_pixels(client.get(f"/api/layers/{node_index['conv']}/kernel.png"))
    expected = actgrid.render_weights(model, "conv", scope="layer")["conv/kernel"]
    row, column = divmod(4 * 3 + 2, tiles["columns"])
    tile = levels[row * 3 : row * 3 + 3, column * 3 : column * 3 + 3]
    np.testing.assert_array_equal(tile, expected.tile(4, 2))


def test_maximized_image_depends_on_seed(client: Client, node_index: dict[str, int]) -> None:
    url = f"/api/layers/{node_index['last']}/channels/3/maximized.png"
    first = decode_pixels(client.get(url, params={"steps": 3}))
    assert first.shape == (16, 12, 3)
    second = decode_pixels(client.get(url, params={"steps": 3, "seed": 1}))
    assert (first != second).any()


# Missing resources and invalid parameters


@pytest.mark.parametrize(
    "path",
    [
        "/api/images/0123456789abcdef/picture.png",
        "/api/images/0123456789abcdef/layers.json",
        "/api/images/{image}/layers/999.json",
        "/api/images/{image}/layers/0.json",  # the input
        "/api/layers/{add}/kernel.json",
        "/api/layers/{add}/dataset.json",
        "/api/layers/{add}/channels/6/maximized.png",
    ],
)
def test_missing_resources_return_404(
    client: Client, images: dict[str, str], node_index: dict[str, int], path: str
) -> None:
    read_detail(client.get(path.format(image=images["photo0.png"], add=node_index["add"])), 404)


def test_unknown_paths_and_methods_are_rejected(client: Client, images: dict[str, str]) -> None:
    message = read_detail(client.get("/api/image.json"), 404)
    assert message == "there is no resource /api/image.json; /api/openapi.json lists all resources"
    for method, path, allowed in [
        ("POST", "/api/model.json", "GET, HEAD"),
        ("GET", "/api/images", "POST"),
        ("PUT", f"/api/images/{images['photo0.png']}", "DELETE"),
    ]:
        response = client.request(method, path)
        message = read_detail(response, 405)
        assert message.startswith(f"{path} does not support {method}; expected ")
        assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")
        assert response.headers["allow"] in message


@pytest.mark.parametrize("path", ["/nowhere", "/../app.py", "/%2e%2e/app.py", "/page/index.html"])
def test_only_files_of_the_page_are_served(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("layers/{conv}/nonsense/channel.png", "normalize must be one of"),
        ("layers/{conv}/standard/nonsense.png", "scope must be one of"),
        ("layers/{conv}/range(3, 1)/channel.png", "first limit must be below"),
        ("layers/{conv}.png?cmap=virids", "did you mean viridis"),
        ("layers/{conv}.png?order=nonsense", "order"),
        ("layers/{conv}.png?zoom=0", "zoom"),
        ("heatmaps/gradcm/predicted.json", "did you mean gradcam"),
        ("heatmaps/gradcam/3.json", "the model has 3"),
        ("heatmaps/gradcam/ct.json", "no class is called 'ct' (did you mean cat?)"),
        ("heatmaps/gradcam/predicted.json?layer=lst", "'lst' (did you mean last"),
        ("heatmaps/saliency/0.json?layer=1", "leave layer out"),
    ],
)
def test_invalid_parameters_are_rejected(
    client: Client, images: dict[str, str], node_index: dict[str, int], path: str, message: str
) -> None:
    path = f"/api/images/{images['photo0.png']}/" + path.format(conv=node_index["conv"])
    assert message in read_detail(client.get(path), 422)


# HEAD, and targets by name


def test_head_returns_status_and_headers_of_get(
    client: Client, images: dict[str, str], node_index: dict[str, int]
) -> None:
    operations = client.get("/api/openapi.json").json()["paths"]
    parameters = {"image": images["photo0.png"], "layer": node_index["conv"], "channel": 1}
    parameters |= {"method": "gradcam", "target": "dog", "normalize": "minmax", "scope": "layer"}
    urls = [path.format(**parameters) for path, methods in operations.items() if "get" in methods]
    urls = [f"{url}?channels=1:0" if "ablation" in url else url for url in urls]
    assert len(urls) == 28
    urls += ["/", "/main.js", "/style.css", "/api/openapi.json", "/nowhere", "/api/nowhere"]
    urls += [f"/api/images/{parameters['image']}/layers/999.json", "/api/images/xyz/picture.png"]
    statuses = set()
    for url in urls:
        head, get = client.head(url), client.get(url)
        assert head.content == b""
        assert head.status_code == get.status_code
        for response in (head, get):
            response.headers.pop("date")
        assert head.headers == get.headers, url
        statuses.add(get.status_code)
    assert statuses == {200, 404, 422}
    assert client.head("/api/images").status_code == 405


def test_head_without_token_is_rejected(view: actgrid.web.View) -> None:
    response = httpx.head(view.url.partition("?")[0] + "api/model.json")
    assert (response.status_code, response.content) == (401, b"")


@pytest.mark.parametrize("name", ["dog", "DOG", "%20Dog%20", "1"])
def test_heatmap_target_by_class_name(client: Client, images: dict[str, str], name: str) -> None:
    url = f"/api/images/{images['photo0.png']}/heatmaps/gradcam"
    assert client.get(f"{url}/{name}.json").json() == client.get(f"{url}/1.json").json()
    assert client.get(f"{url}/{name}.png").content == client.get(f"{url}/1.png").content


def test_heatmap_layer_by_path(
    client: Client, images: dict[str, str], node_index: dict[str, int]
) -> None:
    url = f"/api/images/{images['photo0.png']}/heatmaps/gradcam/dog.json"
    by_path = client.get(url, params={"layer": "conv"}).json()
    assert by_path == client.get(url, params={"layer": node_index["conv"]}).json()
    assert by_path["layer"] == "conv"


def test_class_names_with_special_characters(model: Any, photos: Path) -> None:
    with actgrid.view(model, photos, labels=["a/b.json", "ü #?", "12"]) as view:
        base, _, token = view.url.partition("?token=")
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}) as client:
            image = client.get("/api/images.json").json()["images"][0]["id"]
            for name, target in [("a%2Fb.json", 0), ("%C3%BC%20%23%3F", 1), ("2", 2)]:
                url = f"/api/images/{image}/heatmaps/gradcam/{name}"
                assert client.get(f"{url}.json", timeout=60).json()["target"] == target
                assert client.get(f"{url}/progress.json").json()["state"] == "ready"
            # A name of digits is parsed as an index.
            assert client.get(f"/api/images/{image}/heatmaps/gradcam/12.json").status_code == 422


# Long computations


def test_heatmap_progress(client: Client, images: dict[str, str]) -> None:
    url = f"/api/images/{images['photo1.png']}/heatmaps"

    def get_progress(heatmap: str) -> Any:
        return client.get(f"{url}/{heatmap}/progress.json").json()

    no_progress = {"state": "none", "done": 0, "total": 0}
    assert get_progress("rise/0") == no_progress
    reports: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as pool:
        future = pool.submit(client.get, f"{url}/rise/0.json")
        while not future.done():
            reports.append(get_progress("rise/cat"))
            sleep(0.02)
        assert future.result().status_code == 200
    running = [
        report for report in reports if report["state"] == "running" and report["total"] == 2000
    ]
    assert running
    done = [report["done"] for report in running]
    assert done == sorted(done)
    assert {report["state"] for report in reports} <= {"none", "waiting", "running", "ready"}
    assert get_progress("rise/0") == no_progress | {"state": "ready"}
    assert get_progress("rise/1") == no_progress
    assert "did you mean rise" in read_detail(client.get(f"{url}/rize/0/progress.json"), 422)


def test_maximized_image_progress(client: Client, node_index: dict[str, int]) -> None:
    url = f"/api/layers/{node_index['last']}/channels/5/maximized"
    options = {"steps": 400, "seed": 1}
    reports: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as pool:
        future = pool.submit(client.get, f"{url}.png", params=options)
        while not future.done():
            reports.append(client.get(f"{url}/progress.json", params=options).json())
            sleep(0.02)
        assert future.result().status_code == 200
    assert any(report["state"] == "running" and 0 < report["done"] < 400 for report in reports)
    assert {report["total"] for report in reports if report["done"]} == {400}
    assert (
        client.get(f"{url}/progress.json").json()["state"] == "none"
    )  # for the default number of steps


def test_computation_ends_when_its_last_client_disconnects(
    client: Client, images: dict[str, str]
) -> None:
    url = f"/api/images/{images['photo2.png']}/heatmaps/rise/2"

    def get_state() -> str:
        return str(client.get(f"{url}/progress.json").json()["state"])

    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{url}.json", timeout=httpx.Timeout(60, read=0.2))
    for _ in range(200):
        if get_state() == "none":
            break
        sleep(0.02)
    assert get_state() == "none"


# Removing


def test_delete_removes_upload_and_cached_results(
    model: Any, photos: Path, node_index: dict[str, int]
) -> None:
    viewer = make_viewer(model, photos)
    data = encode_image(Image.effect_noise((30, 30), 80), "PNG")

    async def main() -> None:
        transport = httpx.ASGITransport(app.make_app(viewer))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            before = (await client.get("/api/images.json")).json()
            assert [image["uploaded"] for image in before["images"]] == [False] * 3
            entry_count, size = len(viewer._cache), viewer._cache.size
            added = (await client.post("/api/images", content=data)).json()
            assert added["uploaded"]
            url = f"/api/images/{added['id']}"
            for path in (
                *("thumbnail.jpg", "picture.png", "classes.json", "layers.json", "layers.png"),
                *(
                    f"layers/{node_index['conv']}.json",
                    f"layers/{node_index['conv']}/minmax/layer.png",
                ),
                *("heatmaps/gradcam/predicted.json", f"layers/{node_index['conv']}.png?zoom=2"),
            ):
                assert (await client.get(f"{url}/{path}")).status_code == 200
            assert len(viewer._cache) > entry_count + 8
            response = await client.delete(url)
            assert (response.status_code, response.content) == (204, b"")
            assert (len(viewer._cache), viewer._cache.size) == (entry_count, size)
            assert (await client.get("/api/images.json")).json() == before
            for path in ("thumbnail.jpg", "layers.json", "heatmaps/gradcam/predicted.json"):
                assert (await client.get(f"{url}/{path}")).status_code == 404
            assert "there is no image" in read_detail(await client.delete(url), 404)
            # The same image can be uploaded again.
            assert (await client.post("/api/images", content=data)).json() == added

    asyncio.run(main())


def test_given_images_cannot_be_removed(client: Client, images: dict[str, str]) -> None:
    response = client.delete(f"/api/images/{images['photo0.png']}")
    message = read_detail(response, 409)
    assert message.startswith(
        "photo0.png cannot be removed: the viewer was started with this image"
    )
    assert images["photo0.png"] in client.get("/api/images.json").text


@pytest.mark.parametrize("seconds", [0, 0.003, 0.01, 0.05])
def test_running_computations_of_removed_image_are_not_cached(
    model: Any, photos: Path, seconds: float
) -> None:
    async def main() -> None:
        viewer = make_viewer(model, photos)
        image = viewer.images.add(encode_image(Image.effect_noise((30, 30), 80), "PNG"), "noise").id
        futures = [
            asyncio.ensure_future(computation)
            for computation in (
                viewer.get_layers(image),
                viewer.get_heatmap(image, "occlusion", None),
            )
        ]
        await asyncio.sleep(seconds)
        viewer.remove(image)
        await asyncio.gather(*futures, return_exceptions=True)
        assert len(viewer._cache) == 0
        await viewer.close()

    asyncio.run(main())


# Uploads


def make_png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file with the given chunks, which may be invalid."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def make_header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)


def encode_image(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def test_upload_is_rendered_like_given_images(
    client: Client, node_index: dict[str, int], model: Any, assert_levels_agree: Any
) -> None:
    photo = actgrid.demo.photo()
    data = encode_image(photo, "PNG")
    response = client.post("/api/images", params={"name": "my cat.png"}, content=data)
    assert response.status_code == 201
    added = response.json()
    assert added["name"] == "my cat.png"
    assert client.post("/api/images", content=data).json()["id"] == added["id"]
    assert added["id"] in [image["id"] for image in client.get("/api/images.json").json()["images"]]
    levels = decode_pixels(client.get(f"/api/images/{added['id']}/layers/{node_index['conv']}.png"))
    expected = actgrid.render_model(model, photo, "conv")["conv"].levels
    assert_levels_agree(levels, expected)


INVALID_UPLOADS = {
    "nothing": (b"", 422),
    "text": (b"hello", 422),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 422),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422),
    "pdf": (b"%PDF-1.4\n", 422),
    "truncated": (encode_image(Image.new("RGB", (64, 64), "red"), "PNG")[:60], 422),
    "truncated jpeg": (encode_image(Image.effect_noise((64, 64), 50), "JPEG")[:400], 422),
    "too many pixels": (make_png(make_header(60_000, 60_000), (b"IDAT", zlib.compress(b""))), 413),
    "bomb": (
        make_png(
            make_header(10_000, 10_000),
            (b"IDAT", zlib.compress(bytes(10_000_000), 9)),
            (b"IEND", b""),
        ),
        413,
    ),
    "huge text": (
        make_png(
            make_header(2, 2),
            (b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000), 9)),
            (b"IDAT", zlib.compress(bytes(6))),
            (b"IEND", b""),
        ),
        422,
    ),
    "no sides": (make_png(make_header(0, 0), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")), 422),
}


@pytest.mark.parametrize(("data", "status"), INVALID_UPLOADS.values(), ids=INVALID_UPLOADS)
def test_invalid_uploads_are_rejected(client: Client, data: bytes, status: int) -> None:
    before = client.get("/api/images.json").json()["total"]
    read_detail(client.post("/api/images", content=data), status)
    assert client.get("/api/images.json").json()["total"] == before


def test_upload_with_too_many_bytes_is_rejected(model: Any) -> None:
    with actgrid.view(model, upload_bytes=1000) as view:
        token = view.url.rpartition("token=")[2]
        url = view.url.rpartition("?")[0] + "api/images"
        headers = {"authorization": f"Bearer {token}"}

        def generate_pieces() -> Iterator[bytes]:
            for _ in range(50):
                yield bytes(100)

        for content in (bytes(2000), generate_pieces()):
            response = httpx.post(url, content=content, headers=headers)
            assert "1,000 bytes" in read_detail(response, 413)


def test_upload_that_does_not_end_times_out(
    model: Any, send_request: SendRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_routes, "_MAX_UPLOAD_SECONDS", 0.1)

    async def send_half() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    application = app.make_app(make_viewer(model))
    response = send_request(application, "/api/images", "POST", content=send_half())
    assert "the upload took more than" in read_detail(response, 408)


def test_concurrent_uploads_are_limited(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_routes, "_MAX_UPLOADS", 1)
    data = encode_image(Image.new("RGB", (4, 4)), "PNG")

    async def main() -> None:
        is_read, may_continue = asyncio.Event(), asyncio.Event()

        async def send_later() -> AsyncIterator[bytes]:
            is_read.set()
            await may_continue.wait()
            yield data

        transport = httpx.ASGITransport(app.make_app(make_viewer(model)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.create_task(client.post("/api/images", content=send_later()))
            await is_read.wait()  # the server reads a body only after it has accepted the upload
            second = asyncio.create_task(client.post("/api/images", content=data))
            done, _ = await asyncio.wait([second], timeout=0.3)
            assert not done
            may_continue.set()
            assert {(await first).status_code, (await second).status_code} == {201}

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\0b", "C:\\x.png", "<script>", "x" * 900]
)
def test_names_of_uploads_are_not_used_as_paths(client: Client, name: str) -> None:
    data = encode_image(Image.new("L", (9, 9), len(name)), "PNG")
    added = client.post("/api/images", params={"name": name}, content=data)
    assert added.status_code == 201
    assert len(added.json()["name"]) <= 200
    assert "\0" not in added.json()["name"]
    assert client.get(f"/api/images/{added.json()['id']}/thumbnail.jpg").status_code == 200


# The page


def test_page_is_small_and_loads_no_external_files(client: Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    files = read_page_files()
    assert sum(map(len, files.values())) < 300_000
    for name, content in files.items():
        response = client.get("/" if name == "index.html" else f"/{name}")
        assert response.content == content
        assert b"//cdn" not in content
        media_type = {".js": "text/javascript", ".css": "text/css"}.get(Path(name).suffix, "")
        assert response.headers["content-type"].startswith(media_type)


def test_documentation_lists_all_routes(client: Client) -> None:
    operations = {
        (method.upper(), path)
        for path, methods in client.get("/api/openapi.json").json()["paths"].items()
        for method in methods
    }
    documentation = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+) \| `(/api/[^`]+)` \| \S.* \|$", documentation, re.MULTILINE)
    assert len(rows) == len(set(rows)) == 30
    assert operations == {*rows, *(("HEAD", path) for method, path in rows if method == "GET")}


def test_openapi_describes_all_routes(client: Client) -> None:
    description = client.get("/api/openapi.json").json()
    paths = description["paths"]
    assert {"/api/images", "/api/images/{image}/layers/{layer}.png"} <= paths.keys()
    assert all(
        operation.get("summary") and operation.get("description")
        for operations in paths.values()
        for operation in operations.values()
    )
