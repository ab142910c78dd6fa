"""Tests of the viewer's attention weights in the API, the page and the exported site."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import actgrid
from actgrid.errors import NotFoundError, ShapeError
from actgrid.models.vocabularies import Tokenizer
from actgrid.web import attention as attention_module
from actgrid.web import engine as engine_module
from actgrid.web.images import ImageStore
from actgrid.web.samples import make_reader
from actgrid.web.viewer import Viewer

Array = npt.NDArray[Any]

VOCABULARY = ["", "[UNK]", "the", "cat", "sleeps", "on", "a", "sofa"]
TEXT = "the cat sleeps on a sofa"


class ClassToken(layers.Layer):  # type: ignore[misc]
    """Adds a class token before the patches, and embeddings of the positions."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[2]), initializer="random_normal")
        self.positions = self.add_weight(
            shape=(1, shape[1] + 1, shape[2]), initializer="random_normal"
        )

    def call(self, x: Any) -> Any:
        token = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
        return keras.ops.concatenate([token, x], axis=1) + self.positions


def add_block(x: Any, name: str) -> Any:
    y = layers.LayerNormalization(name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(2, 8, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(32, activation="gelu", name=f"{name}_dense1")(y)
    y = layers.Dense(16, name=f"{name}_dense2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def sharpen(model: Any) -> Any:
    """Enlarge the weights of queries and keys, so that the attention is far from uniform."""
    for weight in model.weights:
        if weight.path.endswith(("query/kernel", "key/kernel")):
            weight.assign(3 * weight)
    return model


@pytest.fixture(scope="module")
def vit() -> Any:
    """Return a ViT of 4 x 4 patches with a class token and two heads."""
    keras.utils.set_random_seed(4)
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 8, strides=8, name="patches")(image)
    x = layers.Reshape((16, 16), name="tokens")(x)
    x = ClassToken(name="class_token")(x)
    for name in ("first", "second"):
        x = add_block(x, name)
    x = layers.Flatten(name="flat")(x)
    return sharpen(
        keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x), name="vit")
    )


@pytest.fixture(scope="module")
def text_model() -> Any:
    keras.utils.set_random_seed(5)
    words = layers.Input((8,), dtype="int32", name="words")
    x = add_block(layers.Embedding(8, 16, name="embedding")(words), "block")
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return sharpen(keras.Model(words, layers.Dense(2, activation="softmax", name="head")(x)))


@pytest.fixture(scope="module")
def pixels() -> Array:
    return np.random.default_rng(8).integers(0, 256, (1, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def scores(vit: Any, pixels: Array) -> dict[str, Array]:
    """Return the attention scores (heads, queries, keys) of the ViT for the image."""
    x = pixels.astype(np.float32) / 255
    return {
        path: attention[0] for path, attention in actgrid.Extractor(vit, "*/attention")(x).items()
    }


def make_viewer(model: Any, pixels: Array) -> tuple[Viewer, str]:
    viewer = Viewer(model, ImageStore(pixels), preprocess="unit")
    return viewer, viewer.images.list_images(0, 1)[0].id


def find_node(viewer: Viewer, path: str) -> int:
    return [node["path"] for node in viewer.get_model_info()["nodes"]].index(path)


def decode(description: dict[str, Any], levels: bytes) -> Array:
    """Return the weights (heads, queries, keys) that quantized attention stands for."""
    shape = description["heads"], len(description["queries"]), len(description["keys"])
    maxima = np.array(description["maxima"], np.float32)[..., None]
    return np.frombuffer(levels, np.uint8).reshape(shape) * maxima / 255


def assert_quantized(weights: Any, expected: Array) -> None:
    """Check that weights differ from the expected weights by at most half a level."""
    half_level = expected.max(-1, keepdims=True) / 510
    assert (np.abs(np.array(weights) - expected) <= 1.01 * half_level + 1e-6).all()


def assert_quantized_mean(weights: Any, heads: Array) -> None:
    """Check that weights are the mean of all heads, (heads, keys), up to half a level."""
    half_level = heads.max(-1).mean() / 510
    assert (np.abs(np.array(weights) - heads.mean(0)) <= 1.01 * half_level + 1e-6).all()


def test_attention_equals_extractor(vit: Any, pixels: Array, scores: dict[str, Array]) -> None:
    viewer, image = make_viewer(vit, pixels)

    async def request() -> None:
        for name in ("first", "second"):
            path = f"{name}_attention/attention"
            # The output of a block has the attention of the layer inside of the block.
            for part in ("attention", "add2"):
                node = find_node(viewer, f"{name}_{part}")
                description = await viewer.get_attention(image, node)
                levels = await viewer.get_attention_levels(image, node)
                assert description["path"] == path
                assert_quantized(decode(description, levels), scores[path])
        names = ["class", *(f"{row},{column}" for row in range(4) for column in range(4))]
        assert description["queries"] == description["keys"] == names
        grid = {"height": 4, "width": 4, "leading": 1, "trailing": 0}
        assert description["query_grid"] == description["key_grid"] == grid
        with pytest.raises(NotFoundError, match="head has no attention"):
            await viewer.get_attention(image, find_node(viewer, "head"))
        await viewer.close()

    asyncio.run(request())


def test_model_info_names_the_attention_of_nodes(vit: Any, pixels: Array) -> None:
    viewer, _ = make_viewer(vit, pixels)
    nodes = viewer.get_model_info()["nodes"]
    attention = {node["path"]: node["attention"] for node in nodes if node["attention"]}
    expected = {}
    for name in ("first", "second"):
        layer = find_node(viewer, f"{name}_attention")
        path = f"{name}_attention/attention"
        for part in ("attention", "add2"):
            expected[f"{name}_{part}"] = {"layer": layer, "path": path, "heads": 2}
    assert attention == expected


def test_large_attention_is_rejected(
    vit: Any, pixels: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine_module, attention_module):
        monkeypatch.setattr(module, "MAX_ATTENTION_VALUES", 577)
    viewer, image = make_viewer(vit, pixels)

    async def request() -> None:
        message = "got 2 heads x 17 queries x 17 keys; expected at most 577 values"
        with pytest.raises(ShapeError, match=message):
            await viewer.get_attention(image, find_node(viewer, "first_attention"))
        await viewer.close()

    asyncio.run(request())


def split_into_windows(x: Any) -> Any:
    """Return the tokens of 2 x 2 windows of an 8 x 8 grid as samples."""
    x = keras.ops.reshape(x, (-1, 2, 4, 2, 4, 16))
    return keras.ops.reshape(keras.ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 16))


def test_attention_inside_windows_is_rejected(pixels: Array) -> None:
    image = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 4, strides=4, name="patches")(image)
    x = layers.Lambda(split_into_windows, name="windows")(x)
    x = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    x = layers.Reshape((256,), name="flat")(x)
    model = keras.Model(image, layers.Dense(2, name="head")(x))
    viewer, image_id = make_viewer(model, pixels)

    async def request() -> None:
        with pytest.raises(ShapeError, match="got 4 windows; expected attention over the whole"):
            await viewer.get_attention(image_id, find_node(viewer, "attention"))
        await viewer.close()

    asyncio.run(request())


def test_texts_have_names_of_tokens(text_model: Any) -> None:
    tokenizer = Tokenizer(VOCABULARY)
    options = {"tokens": tokenizer, "size": None, "preprocess": "auto", "fit": "crop"}
    viewer = Viewer(text_model, ImageStore(TEXT, reader=make_reader(text_model, options)))
    (image,) = viewer.images.list_images(0, 1)

    async def request() -> None:
        node = find_node(viewer, "block_attention")
        description = await viewer.get_attention(image.id, node)
        levels = await viewer.get_attention_levels(image.id, node)
        assert description["queries"] == description["keys"] == [*TEXT.split(), "", ""]
        assert description["query_grid"] is None
        x = [[*map(VOCABULARY.index, TEXT.split()), 0, 0]]
        expected = actgrid.Extractor(text_model, "block_attention/attention")(x)
        assert_quantized(decode(description, levels), next(iter(expected.values()))[0])
        await viewer.close()

    asyncio.run(request())


@contextmanager
def open_page(browser: Browser, url: str, link: str) -> Iterator[Page]:
    """Open a page of 1280 x 860 pixels, and check that it logs no problem."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url + link)
    yield page
    page.close()
    assert problems == []


def get_shown(page: Page) -> dict[str, Any]:
    page.locator(".attention[data-shown]").wait_for()
    shown: dict[str, Any] = page.evaluate("actgrid.attention")
    return shown


def get_patch_position(page: Page, row: int, column: int) -> Any:
    """Return the centre of a patch of the ViT on the picture."""
    box = page.locator(".patches").bounding_box()
    assert box is not None
    return {"x": (column + 0.5) * box["width"] / 4, "y": (row + 0.5) * box["height"] / 4}


def check_patches(page: Page, scores: Array) -> None:
    """Check the weights that the page shows for hovered, selected and neighbouring patches."""
    page.get_by_role("tab", name="Heads").click()
    assert get_shown(page)["query"] == 0  # the class token
    reading = page.locator(".reading")
    expect(reading).to_contain_text("Attention from class")
    page.get_by_role("button", name="head 1").click()
    page.locator(".patches").hover(position=get_patch_position(page, 2, 1))
    expect(reading).to_contain_text("Attention from 2,1")
    shown = get_shown(page)
    assert (shown["head"], shown["query"]) == (1, 10)
    assert_quantized(shown["weights"], scores[1, 10])
    text = reading.text_content()
    assert text is not None
    weight = float(text.split("to class: ")[1].split(" ")[0])
    assert weight == pytest.approx(scores[1, 10, 0], abs=float(scores[1, 10].max()) / 500)
    page.get_by_role("button", name="mean").click()
    expect(reading).to_contain_text("Attention from class")
    page.locator(".patches").click(position=get_patch_position(page, 0, 3))
    page.mouse.move(0, 0)
    assert page.evaluate("actgrid.state.query") == 4
    page.locator(".patches").press("ArrowDown")
    expect(reading).to_contain_text("Attention from 1,3")
    shown = get_shown(page)
    assert (shown["head"], shown["query"]) == (None, 8)
    assert_quantized_mean(shown["weights"], scores[:, 8])
    page.locator(".attended", has_text="class").click()
    expect(reading).to_contain_text("Attention from class")


@pytest.fixture(scope="module")
def vit_url(vit: Any, pixels: Array) -> Iterator[str]:
    with actgrid.view(vit, pixels, preprocess="unit") as view:
        yield view.url


def test_page_shows_attention_of_patches(
    browser: Browser, vit_url: str, scores: dict[str, Array]
) -> None:
    with open_page(browser, vit_url, "#layer=second_add2") as page:
        check_patches(page, scores["second_attention/attention"])


def test_overlay_has_the_colours_of_the_weights(
    browser: Browser, vit_url: str, scores: dict[str, Array]
) -> None:
    link = "#layer=first_attention&tab=heads&head=0&query=6&alpha=1&cmap=gray"
    with open_page(browser, vit_url, link) as page:
        get_shown(page)
        png = page.locator(".patches").evaluate(
            """(canvas) => canvas.toDataURL("image/png").split(",")[1]"""
        )
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"))
        # The lines between patches and the mark of the query are not in the middle of the patches.
        side = picture.shape[0] // 4
        colours = picture[side // 2 :: side, side // 2 :: side].ravel()
        weights = scores["first_attention/attention"][0, 6, 1:]
        np.testing.assert_allclose(colours, 255 * weights / weights.max(), atol=2)


def test_link_to_the_heads_of_a_layer_without_attention(browser: Browser, vit_url: str) -> None:
    with open_page(browser, vit_url, "#layer=head&tab=heads") as page:
        expect(page.locator("#layer h2")).to_have_text("head")
        expect(page.get_by_role("tab", name="Heads")).to_be_hidden()
        expect(page.locator(".toast")).to_contain_text("tab heads does not exist")


def test_page_shows_attention_of_tokens(browser: Browser, text_model: Any) -> None:
    tokenizer = Tokenizer(VOCABULARY)
    x = [[*map(VOCABULARY.index, TEXT.split()), 0, 0]]
    (expected,) = actgrid.Extractor(text_model, "block_attention/attention")(x).values()
    with (
        actgrid.view(text_model, TEXT, tokens=tokenizer) as view,
        open_page(browser, view.url, "#layer=block_attention&tab=heads") as page,
    ):
        get_shown(page)
        tokens = page.locator(".token-line .attended")
        expect(tokens).to_have_text(TEXT.split())
        tokens.nth(2).hover()
        expect(page.locator(".reading")).to_contain_text("Attention from sleeps")
        shown = get_shown(page)
        assert_quantized_mean(shown["weights"], expected[0, :, 2])
        assert page.locator(".arcs path.near").count() > 0
        tokens.first.focus()
        tokens.first.press("ArrowRight")
        expect(tokens.nth(1)).to_be_focused()
        expect(page.locator(".reading")).to_contain_text("Attention from cat")


@pytest.fixture(scope="module")
def site(vit: Any, pixels: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site")
    file = folder / "photo.png"
    Image.fromarray(pixels[0]).save(file)
    with ThreadPoolExecutor(1) as thread:  # the thread of the browser has a running event loop
        site: Path = thread.submit(
            actgrid.export_site,
            vit,
            file,
            ["second_attention", "second_add2"],
            output=folder / "site",
            preprocess="unit",
            method=["saliency"],
        ).result()
    return site


def test_site_contains_the_attention_of_a_layer_once(site: Path) -> None:
    nodes = json.loads((site / "api" / "model.json").read_bytes())["nodes"]
    layer = str([node["path"] for node in nodes].index("second_attention"))
    files = sorted(site.glob("api/images/*/layers/*/attention.*"))
    assert [(file.parent.name, file.name) for file in files] == [
        (layer, "attention.bin"),
        (layer, "attention.json"),
    ]
    assert files[0].stat().st_size == 2 * 17 * 17


def test_site_shows_attention(browser: Browser, site: Path, scores: dict[str, Array]) -> None:
    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with open_page(browser, url, "#layer=second_add2") as page:
            check_patches(page, scores["second_attention/attention"])
        server.shutdown()
