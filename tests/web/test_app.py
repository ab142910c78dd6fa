"""The HTTP API as its clients see it: a real server, a small model."""

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
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.models.images import load_with_pixels
from actgrid.rendering import palette
from actgrid.web import app
from actgrid.web.page_files import page_files
from actgrid.web.routes import images as image_routes
from actgrid.web.serving import make_viewer

Ask = Callable[..., httpx.Response]
Client = httpx.Client


@pytest.fixture(scope="module")
def about(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/model.json").json()
    return found


@pytest.fixture(scope="module")
def images(client: Client) -> dict[str, str]:
    """The ids of the folder's images, by name."""
    listed = client.get("/api/images.json").json()
    return {image["name"]: image["id"] for image in listed["images"]}


@pytest.fixture(scope="module")
def number(about: dict[str, Any]) -> dict[str, int]:
    """The numbers of the layers, by path."""
    return {node["path"]: index for index, node in enumerate(about["nodes"])}


def pixels(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return np.asarray(Image.open(io.BytesIO(response.content)))


def detail(response: httpx.Response, status: int) -> str:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    text = response.json()["detail"]
    assert text
    return str(text)


def test_the_model(about: dict[str, Any]) -> None:
    assert about["name"] == "small"
    assert about["live"]
    nodes = {node["path"]: node for node in about["nodes"]}
    assert list(nodes) == ["image", "conv", "depthwise", "add", "last", "pool", "head"]
    assert nodes["conv"]["shape"] == [None, 16, 12, 6]
    assert [path for path, node in nodes.items() if node["kernel"]] == [
        *("conv", "depthwise", "last", "head")
    ]
    assert not nodes["image"]["drawn"]
    assert [1, 3] in about["edges"]
    assert about["groups"] == [
        {"name": "add", "kind": "branches", "title": "2 layers, 2 branches", "parent": None}
    ]
    assert about["classes"] == {"node": 6, "count": 3, "labels": ["cat", "dog", "bird"]}
    assert "gradcam" in [method["name"] for method in about["methods"]]


def test_images_some_at_a_time(client: Client) -> None:
    listed = client.get("/api/images.json", params={"offset": 1, "limit": 1}).json()
    assert listed["total"] >= 3
    assert [image["name"] for image in listed["images"]] == ["photo1.png"]


def test_an_image_as_the_model_sees_it(
    client: Client, images: dict[str, str], model: Any, photos: Path
) -> None:
    seen, _ = load_with_pixels(photos / "photo1.png", model=model)
    found = pixels(client.get(f"/api/images/{images['photo1.png']}/picture.png"))
    np.testing.assert_array_equal(found, np.rint(seen[0]).astype(np.uint8))
    thumbnail = client.get(f"/api/images/{images['photo1.png']}/thumbnail.jpg")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert max(pixels(thumbnail).shape[:2]) <= 128


@pytest.mark.parametrize("path", ["conv", "add", "last", "head"])
def test_the_service_draws_as_actgrid_does(
    client: Client,
    images: dict[str, str],
    number: dict[str, int],
    model: Any,
    photos: Path,
    path: str,
    assert_levels_agree: Any,
) -> None:
    place = f"/api/images/{images['photo0.png']}/layers/{number[path]}.png"
    options: dict[str, Any] = {"normalize": "minmax", "scope": "layer", "zoom": 3, "cmap": "magma"}
    truth = actgrid.render_model(model, str(photos / "photo0.png"), path)[path]
    assert_levels_agree(pixels(client.get(place)), truth.levels)
    drawn = actgrid.render_model(model, str(photos / "photo0.png"), path, **options)[path]
    found = Image.open(io.BytesIO(client.get(place, params=options).content)).convert("RGB")
    assert_levels_agree(np.asarray(found), drawn.to_rgb(), palette("magma"))


@pytest.mark.parametrize("scope", ["channel", "layer"])
@pytest.mark.parametrize("normalize", ["standard", "percentile(5, 95)", "range(-1, 1)"])
def test_levels_are_the_tiles_that_actgrid_draws(
    client: Client,
    images: dict[str, str],
    number: dict[str, int],
    model: Any,
    photos: Path,
    normalize: str,
    scope: str,
    assert_levels_agree: Any,
) -> None:
    place = f"/api/images/{images['photo2.png']}/layers/{number['last']}"
    tiles = client.get(f"{place}.json").json()["tiles"]
    levels = pixels(client.get(f"{place}/{normalize}/{scope}.png"))
    truth = actgrid.render_model(
        model, str(photos / "photo2.png"), "last", normalize=normalize, scope=scope
    )["last"]
    height, width = tiles["height"], tiles["width"]
    assert (tiles["count"], tiles["slices"], tiles["step"]) == (9, 1, 1)
    for channel in range(9):
        row, column = divmod(channel, tiles["columns"])
        tile = levels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert_levels_agree(tile, truth.tile(channel))


def test_statistics(
    client: Client, images: dict[str, str], number: dict[str, int], model: Any, photos: Path
) -> None:
    place = f"/api/images/{images['photo0.png']}/layers/{number['conv']}"
    found = client.get(f"{place}.json").json()
    truth = actgrid.render_model(model, str(photos / "photo0.png"), "conv")["conv"].stats
    for name in ("mean", "std", "min", "max", "zero_fraction"):
        np.testing.assert_allclose(found["stats"][name], getattr(truth, name), 1e-5, 1e-6)
    assert found["shape"] == [16, 12, 6]
    histograms = client.get(f"{place}/histograms.json").json()
    assert np.shape(histograms["counts"]) == (6, histograms["bins"])
    assert np.sum(histograms["counts"], 1).tolist() == [16 * 12] * 6


def test_classes_and_heatmap(
    client: Client, images: dict[str, str], model: Any, photos: Path
) -> None:
    image = images["photo0.png"]
    found = client.get(f"/api/images/{image}/classes.json").json()
    x = actgrid.load_images(photos / "photo0.png", model=model)
    probabilities = model.predict(x, verbose=0)[0]
    assert found["kind"] == "probability"
    assert [one["index"] for one in found["top"]] == np.argsort(-probabilities).tolist()
    np.testing.assert_allclose(
        [one["value"] for one in found["top"]], np.sort(probabilities)[::-1], 1e-4
    )
    heatmap = client.get(f"/api/images/{image}/heatmaps/gradcam/2.json").json()
    assert (heatmap["target"], heatmap["label"], heatmap["layer"]) == (2, "bird", "last")
    levels = pixels(client.get(f"/api/images/{image}/heatmaps/gradcam/2.png"))
    assert levels.shape == (16, 12)


def test_kernels(client: Client, number: dict[str, int], model: Any) -> None:
    about = client.get(f"/api/layers/{number['conv']}/kernel.json").json()
    kernel = model.get_layer("conv").kernel.numpy()
    assert about["shape"] == list(kernel.shape)
    np.testing.assert_allclose([about["min"], about["max"]], [kernel.min(), kernel.max()], 1e-5)
    tiles = about["tiles"]
    assert (tiles["count"], tiles["slices"], tiles["height"], tiles["width"]) == (18, 3, 3, 3)
    levels = pixels(client.get(f"/api/layers/{number['conv']}/kernel.png"))
    truth = actgrid.render_weights(model, "conv", scope="layer")["conv/kernel"]
    row, column = divmod(4 * 3 + 2, tiles["columns"])
    found = levels[row * 3 : row * 3 + 3, column * 3 : column * 3 + 3]
    np.testing.assert_array_equal(found, truth.tile(4, 2))


def test_an_image_that_maximises(client: Client, number: dict[str, int]) -> None:
    place = f"/api/layers/{number['last']}/channels/3/maximized.png"
    one = pixels(client.get(place, params={"steps": 3}))
    assert one.shape == (16, 12, 3)
    other = pixels(client.get(place, params={"steps": 3, "seed": 1}))
    assert (one != other).any()


# What is not there


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
def test_what_is_not_there_is_said_so(
    client: Client, images: dict[str, str], number: dict[str, int], path: str
) -> None:
    detail(client.get(path.format(image=images["photo0.png"], add=number["add"])), 404)


def test_what_has_no_route_is_said_so(client: Client, images: dict[str, str]) -> None:
    message = detail(client.get("/api/image.json"), 404)
    assert (
        message == "there is no resource /api/image.json; /api/openapi.json lists those of the API"
    )
    for method, path, allowed in [
        ("POST", "/api/model.json", "GET, HEAD"),
        ("GET", "/api/images", "POST"),
        ("PUT", f"/api/images/{images['photo0.png']}", "DELETE"),
    ]:
        response = client.request(method, path)
        message = detail(response, 405)
        assert message.startswith(f"{method} cannot be used on {path}; methods are ")
        assert sorted(response.headers["allow"].split(", ")) == allowed.split(", ")
        assert response.headers["allow"] in message


@pytest.mark.parametrize("path", ["/nowhere", "/../app.py", "/%2e%2e/app.py", "/page/index.html"])
def test_only_the_pages_own_files_are_served(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "words"),
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
def test_what_cannot_be_used_is_said_so(
    client: Client, images: dict[str, str], number: dict[str, int], path: str, words: str
) -> None:
    path = f"/api/images/{images['photo0.png']}/" + path.format(conv=number["conv"])
    assert words in detail(client.get(path), 422)


# HEAD, and targets by name


def test_head_answers_as_get_does(
    client: Client, images: dict[str, str], number: dict[str, int]
) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    known = {"image": images["photo0.png"], "layer": number["conv"], "channel": 1}
    known |= {"method": "gradcam", "target": "dog", "normalize": "minmax", "scope": "layer"}
    places = [path.format(**known) for path, methods in described.items() if "get" in methods]
    assert len(places) == 19
    places += ["/", "/main.js", "/style.css", "/api/openapi.json", "/nowhere", "/api/nowhere"]
    places += [f"/api/images/{known['image']}/layers/999.json", "/api/images/xyz/picture.png"]
    statuses = set()
    for place in places:
        head, get = client.head(place), client.get(place)
        assert head.content == b""
        assert head.status_code == get.status_code
        for response in (head, get):
            response.headers.pop("date")
        assert head.headers == get.headers, place
        statuses.add(get.status_code)
    assert statuses == {200, 404, 422}
    assert client.head("/api/images").status_code == 405


def test_head_without_the_token_is_refused(view: actgrid.web.View) -> None:
    response = httpx.head(view.url.partition("?")[0] + "api/model.json")
    assert (response.status_code, response.content) == (401, b"")


@pytest.mark.parametrize("name", ["dog", "DOG", "%20Dog%20", "1"])
def test_a_heatmap_of_a_class_by_name(client: Client, images: dict[str, str], name: str) -> None:
    place = f"/api/images/{images['photo0.png']}/heatmaps/gradcam"
    assert client.get(f"{place}/{name}.json").json() == client.get(f"{place}/1.json").json()
    assert client.get(f"{place}/{name}.png").content == client.get(f"{place}/1.png").content


def test_a_heatmaps_layer_by_path(
    client: Client, images: dict[str, str], number: dict[str, int]
) -> None:
    place = f"/api/images/{images['photo0.png']}/heatmaps/gradcam/dog.json"
    by_path = client.get(place, params={"layer": "conv"}).json()
    assert by_path == client.get(place, params={"layer": number["conv"]}).json()
    assert by_path["layer"] == "conv"


def test_names_of_classes_may_hold_anything(model: Any, photos: Path) -> None:
    with actgrid.view(model, photos, labels=["a/b.json", "ü #?", "12"]) as view:
        base, _, token = view.url.partition("?token=")
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}) as client:
            image = client.get("/api/images.json").json()["images"][0]["id"]
            for name, target in [("a%2Fb.json", 0), ("%C3%BC%20%23%3F", 1), ("2", 2)]:
                place = f"/api/images/{image}/heatmaps/gradcam/{name}"
                assert client.get(f"{place}.json", timeout=60).json()["target"] == target
                assert client.get(f"{place}/progress.json").json()["state"] == "ready"
            # Digits are a number.
            assert client.get(f"/api/images/{image}/heatmaps/gradcam/12.json").status_code == 422


# Long computations


def test_progress_of_a_heatmap(client: Client, images: dict[str, str]) -> None:
    place = f"/api/images/{images['photo1.png']}/heatmaps"

    def progress(heatmap: str) -> Any:
        return client.get(f"{place}/{heatmap}/progress.json").json()

    nothing = {"state": "none", "done": 0, "total": 0}
    assert progress("rise/0") == nothing
    seen: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as pool:
        future = pool.submit(client.get, f"{place}/rise/0.json")
        while not future.done():
            seen.append(progress("rise/cat"))
            sleep(0.02)
        assert future.result().status_code == 200
    running = [
        report for report in seen if report["state"] == "running" and report["total"] == 2000
    ]
    assert running
    done = [report["done"] for report in running]
    assert done == sorted(done)
    assert {report["state"] for report in seen} <= {"none", "waiting", "running", "ready"}
    assert progress("rise/0") == nothing | {"state": "ready"}
    assert progress("rise/1") == nothing
    assert "did you mean rise" in detail(client.get(f"{place}/rize/0/progress.json"), 422)


def test_progress_of_an_image_that_maximises(client: Client, number: dict[str, int]) -> None:
    place = f"/api/layers/{number['last']}/channels/5/maximized"
    options = {"steps": 400, "seed": 1}
    seen: list[dict[str, Any]] = []
    with ThreadPoolExecutor() as pool:
        future = pool.submit(client.get, f"{place}.png", params=options)
        while not future.done():
            seen.append(client.get(f"{place}/progress.json", params=options).json())
            sleep(0.02)
        assert future.result().status_code == 200
    assert any(report["state"] == "running" and 0 < report["done"] < 400 for report in seen)
    assert {report["total"] for report in seen if report["done"]} == {400}
    assert client.get(f"{place}/progress.json").json()["state"] == "none"  # of 64 steps


def test_a_computation_ends_with_its_last_client(client: Client, images: dict[str, str]) -> None:
    place = f"/api/images/{images['photo2.png']}/heatmaps/rise/2"

    def state() -> str:
        return str(client.get(f"{place}/progress.json").json()["state"])

    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{place}.json", timeout=httpx.Timeout(60, read=0.2))
    for _ in range(200):
        if state() == "none":
            break
        sleep(0.02)
    assert state() == "none"


# Removing


def test_an_upload_is_removed_with_all_that_was_made_of_it(
    model: Any, photos: Path, number: dict[str, int]
) -> None:
    viewer = make_viewer(model, photos)
    data = saved(Image.effect_noise((30, 30), 80), "PNG")

    async def main() -> None:
        transport = httpx.ASGITransport(app.make_app(viewer))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            before = (await client.get("/api/images.json")).json()
            assert [image["uploaded"] for image in before["images"]] == [False] * 3
            kept, size = len(viewer._cache), viewer._cache.size
            added = (await client.post("/api/images", content=data)).json()
            assert added["uploaded"]
            place = f"/api/images/{added['id']}"
            for path in (
                *("thumbnail.jpg", "picture.png", "classes.json", "layers.json", "layers.png"),
                *(f"layers/{number['conv']}.json", f"layers/{number['conv']}/minmax/layer.png"),
                *("heatmaps/gradcam/predicted.json", f"layers/{number['conv']}.png?zoom=2"),
            ):
                assert (await client.get(f"{place}/{path}")).status_code == 200
            assert len(viewer._cache) > kept + 8
            response = await client.delete(place)
            assert (response.status_code, response.content) == (204, b"")
            assert (len(viewer._cache), viewer._cache.size) == (kept, size)
            assert (await client.get("/api/images.json")).json() == before
            for path in ("thumbnail.jpg", "layers.json", "heatmaps/gradcam/predicted.json"):
                assert (await client.get(f"{place}/{path}")).status_code == 404
            assert "no such image" in detail(await client.delete(place), 404)
            # The same bytes may come again.
            assert (await client.post("/api/images", content=data)).json() == added

    asyncio.run(main())


def test_images_that_were_not_uploaded_stay(client: Client, images: dict[str, str]) -> None:
    response = client.delete(f"/api/images/{images['photo0.png']}")
    message = detail(response, 409)
    assert message.startswith(
        "photo0.png cannot be removed: the viewer was started with this image"
    )
    assert images["photo0.png"] in client.get("/api/images.json").text


@pytest.mark.parametrize("seconds", [0, 0.003, 0.01, 0.05])
def test_what_is_on_its_way_for_a_removed_image_is_not_kept(
    model: Any, photos: Path, seconds: float
) -> None:
    async def main() -> None:
        viewer = make_viewer(model, photos)
        image = viewer.images.add(saved(Image.effect_noise((30, 30), 80), "PNG"), "noise").id
        futures = [
            asyncio.ensure_future(computation)
            for computation in (viewer.layers(image), viewer.heatmap(image, "occlusion", None))
        ]
        await asyncio.sleep(seconds)
        viewer.remove(image)
        await asyncio.gather(*futures, return_exceptions=True)
        assert len(viewer._cache) == 0
        await viewer.close()

    asyncio.run(main())


# Uploads


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks, whatever they say."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_an_upload_is_looked_at_like_any_other(
    client: Client, number: dict[str, int], model: Any, assert_levels_agree: Any
) -> None:
    photo = actgrid.demo.photo()
    data = saved(photo, "PNG")
    response = client.post("/api/images", params={"name": "my cat.png"}, content=data)
    assert response.status_code == 201
    added = response.json()
    assert added["name"] == "my cat.png"
    assert client.post("/api/images", content=data).json()["id"] == added["id"]
    assert added["id"] in [one["id"] for one in client.get("/api/images.json").json()["images"]]
    levels = pixels(client.get(f"/api/images/{added['id']}/layers/{number['conv']}.png"))
    truth = actgrid.render_model(model, photo, "conv")["conv"].levels
    assert_levels_agree(levels, truth)


HOSTILE = {
    "nothing": (b"", 422),
    "text": (b"hello", 422),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 422),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422),
    "pdf": (b"%PDF-1.4\n", 422),
    "truncated": (saved(Image.new("RGB", (64, 64), "red"), "PNG")[:60], 422),
    "truncated jpeg": (saved(Image.effect_noise((64, 64), 50), "JPEG")[:400], 422),
    "too many pixels": (png(header(60_000, 60_000), (b"IDAT", zlib.compress(b""))), 413),
    "bomb": (
        png(header(10_000, 10_000), (b"IDAT", zlib.compress(bytes(10_000_000), 9)), (b"IEND", b"")),
        413,
    ),
    "huge text": (
        png(
            header(2, 2),
            (b"zTXt", b"k\0\0" + zlib.compress(bytes(20_000_000), 9)),
            (b"IDAT", zlib.compress(bytes(6))),
            (b"IEND", b""),
        ),
        422,
    ),
    "no sides": (png(header(0, 0), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")), 422),
}


@pytest.mark.parametrize(("data", "status"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_uploads_are_refused(client: Client, data: bytes, status: int) -> None:
    before = client.get("/api/images.json").json()["total"]
    detail(client.post("/api/images", content=data), status)
    assert client.get("/api/images.json").json()["total"] == before


def test_an_upload_of_too_many_bytes(model: Any) -> None:
    with actgrid.view(model, upload_bytes=1000) as view:
        token = view.url.rpartition("token=")[2]
        place = view.url.rpartition("?")[0] + "api/images"
        headers = {"authorization": f"Bearer {token}"}

        def pieces() -> Iterator[bytes]:
            for _ in range(50):
                yield bytes(100)

        for content in (bytes(2000), pieces()):
            response = httpx.post(place, content=content, headers=headers)
            assert "1,000 bytes" in detail(response, 413)


def test_an_upload_that_does_not_end_is_given_up(
    model: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_routes, "_SECONDS", 0.1)

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    served = app.make_app(make_viewer(model))
    answer = ask(served, "/api/images", "POST", content=half())
    assert "did not come" in detail(answer, 408)


def test_so_many_uploads_are_read_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_routes, "_UPLOADS", 1)
    data = saved(Image.new("RGB", (4, 4)), "PNG")

    async def main() -> None:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await go_on.wait()
            yield data

        transport = httpx.ASGITransport(app.make_app(make_viewer(model)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.create_task(client.post("/api/images", content=slow()))
            second = asyncio.create_task(client.post("/api/images", content=data))
            done, _ = await asyncio.wait([second], timeout=0.3)
            assert not done
            go_on.set()
            assert {(await first).status_code, (await second).status_code} == {201}

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a\0b", "C:\\x.png", "<script>", "x" * 900]
)
def test_names_of_uploads_are_only_shown(client: Client, name: str) -> None:
    data = saved(Image.new("L", (9, 9), len(name)), "PNG")
    added = client.post("/api/images", params={"name": name}, content=data)
    assert added.status_code == 201
    assert len(added.json()["name"]) <= 200
    assert "\0" not in added.json()["name"]
    assert client.get(f"/api/images/{added.json()['id']}/thumbnail.jpg").status_code == 200


# The page


def test_the_page_is_light_and_asks_for_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    files = page_files()
    assert sum(map(len, files.values())) < 200_000
    for name, content in files.items():
        served = client.get("/" if name == "index.html" else f"/{name}")
        assert served.content == content
        assert b"//cdn" not in content
        kind = {".js": "text/javascript", ".css": "text/css"}.get(Path(name).suffix, "")
        assert served.headers["content-type"].startswith(kind)


def test_the_documented_routes_are_those_of_the_description(client: Client) -> None:
    described = {
        (method.upper(), path)
        for path, operations in client.get("/api/openapi.json").json()["paths"].items()
        for method in operations
    }
    documentation = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+) \| `(/api/[^`]+)` \| \S.* \|$", documentation, re.MULTILINE)
    assert len(rows) == len(set(rows)) == 21
    assert described == {*rows, *(("HEAD", path) for method, path in rows if method == "GET")}


def test_the_description_lists_every_route(client: Client) -> None:
    described = client.get("/api/openapi.json").json()
    assert {"/api/images", "/api/images/{image}/layers/{layer}.png"} <= described["paths"].keys()
    assert all(
        one.get("summary") and one.get("description")
        for operations in described["paths"].values()
        for one in operations.values()
    )
