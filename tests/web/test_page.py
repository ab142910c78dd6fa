"""Tests of the page in a browser, with a viewer started by the command line."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import keras
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Browser, FrameLocator, Locator, Page, Route, expect

import actgrid
from actgrid.rendering.colormaps import palette

Array = npt.NDArray[Any]
OpenPage = Callable[..., AbstractContextManager[Page]]

# Layers of the demo model. The page shows the activation of the first convolution initially.
CONV, STEM, LAST, DENSE = "stem_conv", "stem_relu", "head_relu", "predictions"
CANVAS = "#layer .first .grid"
# Returns the pixels of a rectangle of a canvas as a PNG file in base64.
READ_PIXELS = """(canvas, {x, y, width, height}) => {
  const copy = Object.assign(document.createElement("canvas"), {width, height});
  copy.getContext("2d").drawImage(canvas, -x, -y);
  return copy.toDataURL("image/png").split(",")[1];
}"""
# Returns whether a canvas shows the current state, and the state contains the expected values.
IS_SHOWN = """([canvas, image, expected]) => {
  const state = window.actgrid?.state ?? {};
  const values = [state.layer, state[image], state.normalize, state.scope];
  return expected.every((value) => values.includes(value))
    && document.querySelector(canvas).dataset.shown === values.join("|");
}"""
# Dispatches an event with an image file, such as a drop or a paste.
DISPATCH_TRANSFER = """([kind, name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder of three photos: a cat, the cat upside down and its negative."""
    folder: Path = tmp_path_factory.mktemp("photos")
    cat = actgrid.demo.photo()
    for name, photo in {
        "cat.png": cat,
        "flipped.png": ImageOps.flip(cat),
        "negative.png": ImageOps.invert(cat),
    }.items():
        photo.save(folder / name)
    return folder


@pytest.fixture(scope="module")
def demo_model() -> Any:
    return actgrid.demo.model()


@pytest.fixture(scope="module")
def activations(demo_model: Any, folder: Path) -> dict[str, Array]:
    """Compute the activations of some layers for the first photo, without the viewer."""
    extractor = actgrid.Extractor(demo_model, [CONV, STEM, LAST, DENSE])
    x = actgrid.load_images(folder / "cat.png", size=(224, 224), preprocess="none")
    return extractor(np.asarray(x, np.float32))


@pytest.fixture(scope="module")
def url(
    demo_model: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory, start_python: Any
) -> Iterator[str]:
    """Serve the demo with statistics of one layer; yield the address of the viewer."""
    stats = tmp_path_factory.mktemp("stats") / "stats.npz"
    actgrid.measure_images(demo_model, folder, CONV, top_channels="all").save(stats)
    command = ["-m", "actgrid", "serve", "demo", folder, "--port", 0, "--statistics", stats]
    with start_python(*command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        match = next(filter(None, (re.search(r"http://\S+/", line) for line in server.stdout)))
        yield match[0]
        server.terminate()


@pytest.fixture(scope="module")
def shared_page(browser: Browser) -> Iterator[Page]:
    """Open the page that most tests share, each with its own link."""
    page = browser.new_context().new_page()
    yield page
    page.context.close()


@pytest.fixture
def open_page(browser: Browser, shared_page: Page, url: str) -> OpenPage:
    """Open the page; check that it logs no problem and calls no other server.

    Messages that match `allowed_problems` are ignored. With `fresh`, or with options of a browser
    context, a new page is opened instead of the shared page.
    """

    @contextmanager
    def open_page(
        link: str = "#",
        base: str = url,
        allowed_problems: str | None = None,
        fresh: bool = False,
        **options: Any,
    ) -> Iterator[Page]:
        width, height = options.pop("size", (1280, 860))
        fresh = fresh or bool(options) or base != url
        page = shared_page
        if fresh:
            page = options.pop("browser", browser).new_context(**options).new_page()
        page.set_default_timeout(10_000)
        page.set_viewport_size({"width": width, "height": height})
        problems: list[str] = []
        requests: list[str] = []
        listeners: dict[Any, Callable[[Any], None]] = {
            # With the address, because the text of a failed request does not name it.
            "console": lambda message: problems.append(f"{message.text} {message.location['url']}"),
            "pageerror": lambda error: problems.append(str(error)),
            "request": lambda request: requests.append(request.url),
        }
        for event, listener in listeners.items():
            page.on(event, listener)
        page.goto(base + link)
        has_passed = False
        try:
            yield page
            has_passed = True
        finally:
            for event, listener in listeners.items():
                page.remove_listener(event, listener)
            if fresh:
                page.context.close()
            elif not has_passed:
                page.goto("about:blank")
        assert [
            problem
            for problem in problems
            if allowed_problems is None or not re.search(allowed_problems, problem)
        ] == []
        assert [url for url in requests if not url.startswith((base, "blob:", "data:"))] == []

    return open_page


@pytest.fixture
def open_view(open_page: OpenPage) -> OpenPage:
    """Open the page of a model; options except `page_options` are those of `actgrid.view`."""

    @contextmanager
    def open_view(
        model: Any,
        images: Any,
        link: str = "",
        page_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[Page]:
        with actgrid.view(model, images, **options) as view:
            base, _, token = view.url.partition("?")
            with open_page(f"?{token}{link}", base=base, **page_options or {}) as page:
                yield page

    return open_view


def get_image_ids(page: Page) -> list[str]:
    """Return the ids of the images, in the order of the list."""
    page.locator(".thumb").first.wait_for()
    return [str(thumb.get_attribute("data-image")) for thumb in page.locator(".thumb").all()]


def wait_for(page: Page, *values: str, canvas: str = CANVAS) -> None:
    """Wait until a canvas shows the given layer, image, normalization and scope."""
    image = "compare" if ".second" in canvas else "image"
    page.wait_for_function(IS_SHOWN, arg=[canvas, image, values], timeout=20_000)


def follow_link(page: Page, link: str) -> None:
    """Go to another hash of the page, without a reload."""
    page.goto(page.url.partition("#")[0] + link)


def wait_for_all(page: Page) -> None:
    """Wait until all resources of the initial view are loaded."""
    expect(page.locator(".thumb img[src]").first).to_be_visible()
    expect(page.locator(".thumb img:not([src])")).to_have_count(0)
    expect(page.locator("#images img.current[src]")).to_be_visible()
    expect(page.locator("#images .top-classes li")).to_have_count(5)
    # A function, because the page forbids to evaluate expressions again and again.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.card .thumbnail')]"
        ".every((canvas) => canvas.dataset.shown)"
    )


def get_state(page: Page) -> dict[str, Any]:
    state: dict[str, Any] = page.evaluate("actgrid.state")
    return state


def parse_hash(page: Page) -> dict[str, str]:
    """Return the parameters in the hash of the address."""
    return {name: value[0] for name, value in parse_qs(urlsplit(page.url).fragment).items()}


def read_tile(page: Page, channel: int, canvas: str = CANVAS) -> Array:
    """Read the tile of a channel from the screen, (height, width, 3) uint8."""
    box = page.locator(canvas).bounding_box()
    rect = page.evaluate("(channel) => actgrid.tileRect(channel)", channel)
    assert box is not None
    position = {"x": round(rect["x"] - box["x"]), "y": round(rect["y"] - box["y"])}
    size = {"width": round(rect["width"]), "height": round(rect["height"])}
    return decode_png(page.locator(canvas).evaluate(READ_PIXELS, position | size))


def decode_png(text: str) -> Array:
    """Decode a PNG file in base64 to (height, width, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def choose(page: Page, panel: str, name: str, value: str) -> None:
    page.locator(panel).get_by_label(name, exact=True).select_option(value)


def find_card(page: Page, name: str) -> Locator:
    return page.locator(".cards .card").filter(has=page.get_by_text(name, exact=True))


def encode_png(color: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


def download_picture(page: Page, click: Callable[[], None]) -> Array:
    """Return the picture that is downloaded after a click, (height, width, 3) uint8."""
    with page.expect_download() as download:
        click()
    assert download.value.suggested_filename.endswith(".png")
    return np.asarray(Image.open(download.value.path()).convert("RGB"))


def test_initial_view_shows_network_image_and_classes(open_page: OpenPage) -> None:
    with open_page("", fresh=True) as page:
        wait_for(page, STEM)
        expect(page.get_by_role("heading", level=1)).to_have_text("efficientnet_lite0")
        expect(page.locator("#about")).to_have_text("143 layers · 4,694,024 parameters")
        expect(page.locator("#layer h2")).to_have_text(STEM)
        expect(page.locator("#images h2")).to_have_text("cat.png")
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        classes = page.locator("#images .top-classes li")
        expect(classes).to_have_count(5)
        expect(classes.first).to_contain_text("cat")
        first = page.locator(".cards .card").first
        expect(first).to_contain_text("Input")
        expect(find_card(page, STEM)).to_contain_text("112 \u00d7 112 \u00d7 32")
        expect(find_card(page, STEM)).to_have_class(re.compile("current"))
        # The hash omits default values.
        assert urlsplit(page.url).fragment == ""
        assert page.title() == f"{STEM} · efficientnet_lite0 · actgrid"


def test_every_card_has_a_thumbnail(open_page: OpenPage) -> None:
    count_colours = """(cards) => cards.map((card) => new Set(new Uint32Array(
        card.getContext("2d").getImageData(0, 0, card.width, card.height).data.buffer)).size)"""
    with open_page() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        colours = page.locator(".card .thumbnail").evaluate_all(count_colours)
        assert len(colours) > 15
        assert min(colours) > 1


@pytest.fixture
def assert_enlarged_levels_agree(assert_levels_agree: Any) -> Callable[..., None]:
    """Check that pixels of the page equal levels enlarged by an integer factor."""

    def assert_agree(pixels: Array, levels: Array, cmap: str, zoom: int) -> None:
        small = pixels[::zoom, ::zoom]
        np.testing.assert_array_equal(pixels, small.repeat(zoom, 0).repeat(zoom, 1))
        assert_levels_agree(small, palette(cmap)[levels], palette(cmap))

    return assert_agree


def test_tile_equals_render(
    open_page: OpenPage, activations: dict[str, Array], assert_enlarged_levels_agree: Any
) -> None:
    zoom = 1
    with open_page() as page:
        for normalize, scope in [
            ("standard", "channel"),
            ("minmax", "layer"),
            ("symmetric", "channel"),
            ("percentile(2, 98)", "channel"),
            ("range(-1, 2.5)", "layer"),
        ]:
            link = f"#cmap=magma&normalize={normalize}&scope={scope}&view=56,56,{zoom}"
            follow_link(page, link)
            wait_for(page, STEM, normalize, scope)
            grid = actgrid.render(activations[STEM], normalize=normalize, scope=scope)
            assert_enlarged_levels_agree(read_tile(page, 0), grid.tile(0), "magma", zoom)
            zoom += 1


def read_channel_order(page: Any, count: int) -> Array:
    """Return the channels of the shown grid in the order of their tiles."""
    rects = page.evaluate(
        "(count) => Array.from({ length: count }, (_, channel) => actgrid.tileRect(channel))", count
    )
    return np.array(
        sorted(range(count), key=lambda channel: (rects[channel]["y"], rects[channel]["x"]))
    )


@pytest.mark.parametrize("order", ["index", "mean", "std", "max", "zeros"])
def test_saved_grid_equals_render(
    open_page: OpenPage, activations: dict[str, Array], order: str, assert_levels_agree: Any
) -> None:
    with open_page() as page:
        for layer in (STEM, LAST, DENSE):
            follow_link(page, f"#layer={layer}&order={order}&cmap=inferno")
            wait_for(page, layer)
            picture = download_picture(page, page.locator("#layer").get_by_text("Save").click)
            values = activations[layer]
            channels = read_channel_order(page, values.shape[-1])
            # The page treats each unit of a dense layer as a channel. Its statistics are rounded,
            # and come from a run of its own: nearly equal channels may change places.
            units = values.reshape(1, 1, 1, -1) if layer == DENSE else values
            stats = actgrid.render(units).stats
            if order == "index":
                np.testing.assert_array_equal(channels, np.arange(len(channels)))
            else:
                keys = getattr(stats, "zero_fraction" if order == "zeros" else order)[channels]
                assert (np.diff(keys) <= (0.03 if order == "zeros" else 1e-4)).all()
            grid = actgrid.render(values, cmap="inferno", order=channels)
            assert_levels_agree(picture, grid.to_rgb(), palette("inferno"))


@pytest.mark.parametrize("target", [285, None])
def test_channels_are_sorted_by_relevance_for_the_target(
    open_page: OpenPage,
    activations: dict[str, Array],
    demo_model: Any,
    target: int | None,
) -> None:
    logits = demo_model.get_layer(DENSE)
    pooled = activations[LAST][0].mean((0, 1))
    index = int(activations[DENSE][0].argmax()) if target is None else target
    relevance = pooled * logits.kernel.numpy()[:, index]
    with open_page() as page:
        follow_link(page, f"#layer={LAST}" + (f"&target={target}" if target else ""))
        wait_for(page, LAST)
        path = f"/relevance/{target or 'predicted'}.json"
        with page.expect_response(lambda response: response.url.endswith(path)):
            choose(page, "#layer", "Order", "relevance")
        page.wait_for_function(
            "(best) => { const rect = actgrid.tileRect(best), first = actgrid.tileRect(0);"
            " return rect.x <= first.x && rect.y <= first.y; }",
            arg=int(relevance.argmax()),
        )
        channels = read_channel_order(page, relevance.size)
        # The activations of the page come from a run of its own.
        assert (np.diff(relevance[channels]) <= 1e-4 * np.abs(relevance).max()).all()
        rect = page.evaluate("(best) => actgrid.tileRect(best)", int(channels[0]))
        page.mouse.move(rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2)
        tip = page.locator("#layer .first .tip")
        expect(tip).to_contain_text(f"Channel {channels[0]}")
        expect(tip).to_contain_text("relevance")


def test_grid_is_limited_to_the_canvas_size(open_page: OpenPage) -> None:
    with open_page() as page:
        width, height, columns = page.evaluate("""async () => {
          const { Grid } = await import(new URL("levels.js", document.baseURI));
          const channels = [...Array(4096).keys()];
          const tiles = { count: 4096, columns: 64, height: 28, width: 28, slices: 1 };
          const grid = new Grid(tiles, channels, 1);
          return [grid.width, grid.height, grid.columns];
        }""")
        assert columns == 4
        assert width == 4 * 29 - 1
        assert height == 1024 * 29 - 1


def test_colormap_order_and_columns_send_no_requests(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        before = read_tile(page, 5)
        choose(page, "#layer", "Colormap", "gray")
        gray = read_tile(page, 5)
        assert (gray[..., 0] == gray[..., 2]).all()
        assert (gray != before).any()
        choose(page, "#layer", "Order", "mean")
        page.locator("#layer").get_by_label("Columns").fill("2")
        expect(page).to_have_url(re.compile("columns=2"))
        first, third = (page.evaluate("(c) => actgrid.tileRect(c)", c) for c in (0, 1))
        assert first != third
        assert requests == []
        assert parse_hash(page) == {"cmap": "gray", "order": "mean", "columns": "2"}


def test_normalization_and_scope(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM, "standard", "channel")
        choose(page, "#layer", "Scope", "layer")
        wait_for(page, STEM, "standard", "layer")
        choose(page, "#layer", "Normalization", "percentile")
        wait_for(page, STEM, "percentile(1, 99)", "layer")
        page.get_by_label("Low", exact=True).fill("10")
        page.get_by_label("Low", exact=True).press("Enter")
        wait_for(page, STEM, "percentile(10, 99)", "layer")
        page.get_by_label("High", exact=True).fill("5")
        page.get_by_label("High", exact=True).press("Enter")
        expect(page.get_by_label("High", exact=True)).to_have_attribute("aria-invalid", "true")
        choose(page, "#layer", "Normalization", "range")
        shown = re.compile(r"[|]range\(-?[\d.]+, [\d.]+\)[|]layer$")
        expect(page.locator(CANVAS)).to_have_attribute("data-shown", shown)


def test_colour_bar_shows_values_of_the_end_colours(
    open_page: OpenPage, activations: dict[str, Array]
) -> None:
    x = activations[STEM][0]
    with open_page("#normalize=minmax") as page:
        wait_for(page, STEM, "minmax", "channel")
        ends = page.locator("#layer .first .colour-scale .value")
        expect(ends).to_have_text(["minimum of each tile", "maximum of each tile"])
        choose(page, "#layer", "Normalization", "standard")
        expect(ends).to_have_text(["mean \u2212 2 std of each tile", "mean + 2 std of each tile"])
        choose(page, "#layer", "Normalization", "minmax")
        choose(page, "#layer", "Scope", "layer")
        expect(ends).to_have_text(["0", format(x.max(), ".4g")])
        follow_link(page, "#normalize=minmax&channel=1")
        ends = page.locator("#channel .colour-scale .value")
        expect(ends).to_have_text([format(x[..., 1].min(), ".4g"), format(x[..., 1].max(), ".4g")])
        # The bar has the colours of the colormap from left to right.
        box = {"x": 0, "y": 0, "width": 256, "height": 1}
        bar = decode_png(page.locator("#channel .bar").first.evaluate(READ_PIXELS, box))
        np.testing.assert_array_equal(bar[0], palette("viridis"))


def test_show_dead_or_live_channels(open_page: OpenPage, activations: dict[str, Array]) -> None:
    flat = activations[LAST][0].reshape(-1, activations[LAST].shape[-1])
    dead = np.flatnonzero(flat.min(0) == flat.max(0))
    live = np.flatnonzero(flat.min(0) != flat.max(0))
    rect = "(channel) => actgrid.tileRect(channel)"
    with open_page(f"#layer={LAST}") as page:
        wait_for(page, LAST)
        expect(page.locator("#layer header")).to_contain_text(f"{len(dead)} of 1280 dead")
        choose(page, "#layer", "Show", "dead")
        assert page.evaluate(rect, int(live[0])) is None
        assert page.evaluate(rect, int(dead[0]))
        choose(page, "#layer", "Show", "live")
        assert page.evaluate(rect, int(live[0]))
        assert page.evaluate(rect, int(dead[0])) is None
        follow_link(page, "#layer=rescaling&show=dead")
        expect(page.locator("#layer .first .note")).to_contain_text("has no dead channels")


def test_dead_and_nonfinite_channels_have_different_marks(open_view: OpenPage) -> None:
    """Check a dead channel, one with NaN, one that only looks dead, and an ordinary channel."""
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 1, name="conv")])
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[:4] = 200
    kernel = np.reshape([0, 1, 1e-6, 1], (1, 1, 1, 4))
    model.get_layer("conv").set_weights([kernel, np.array([2, np.nan, 5, 0])])
    link = "#columns=4&cmap=gray&normalize=range(-999, 999)"
    with open_view(model, pixels, link, preprocess="none") as page:
        page.locator("#layer .grid[data-shown]").wait_for()
        dead, nonfinite, flat, ordinary = (read_tile(page, channel)[..., 0] for channel in range(4))
        height, width = dead.shape
        # A cross: the middle and the ends of both diagonals are white, the edges have one colour.
        ends = round(0.14 * height), round(0.86 * height)
        places = [(height // 2, width // 2), *((y, x) for y in ends for x in ends)]
        assert min(dead[place] for place in places) > 250
        assert len(np.unique(dead[2 : height // 10, width // 2])) == 1
        # A triangle in the upper right corner.
        assert nonfinite[round(0.2 * height), round(0.8 * width)] == 255
        assert nonfinite[round(0.8 * height), round(0.2 * width)] == 0
        assert [len(np.unique(tile)) for tile in (flat, ordinary)] == [1, 2]
        expect(page.locator("#layer .legend .mark")).to_have_text(
            [re.compile("dead: all values are equal"), re.compile("some values are not finite")]
        )
        page.locator(CANVAS).press("Home")
        expect(page.locator("#layer .first .tip")).to_contain_text("dead: all values are equal")
        page.locator(CANVAS).press("End")
        expect(page.locator("#layer .first .tip")).not_to_contain_text("dead")


def test_tiles_of_the_output_have_class_names(
    open_page: OpenPage, activations: dict[str, Array]
) -> None:
    scores = activations[DENSE][0]
    best = np.argsort(-scores, kind="stable")
    names = actgrid.demo.labels()
    with open_page(f"#layer={DENSE}") as page:
        wait_for(page, DENSE)
        classes = page.locator("#layer .top-classes button")
        expect(classes).to_have_text([re.compile(f"^{names[index]}") for index in best[:5]])
        tip = page.locator("#layer .first .tip")
        classes.nth(1).hover()
        expect(tip.locator("b")).to_have_text(f"Unit {best[1]}: {names[best[1]]}")
        expect(tip.locator("dd")).to_have_text([format(scores[best[1]], ".4g"), "2 of 1000"])
        page.mouse.move(0, 0)
        expect(tip).to_be_hidden()
        classes.first.focus()
        expect(page.locator("#status")).to_contain_text(f"Unit {best[0]}: {names[best[0]]}")
        page.locator(CANVAS).press("End")
        expect(tip.locator("b")).to_have_text(f"Unit 999: {names[999]}")
        classes.first.click()
        expect(page.locator("#channel h2")).to_have_text(f"Unit {best[0]}: {names[best[0]]}")
        follow_link(page, f"#layer={LAST}")
        wait_for(page, LAST)
        expect(page.locator("#layer .top-classes")).to_be_hidden()


def test_hover_shows_statistics_and_click_opens_channel(
    open_page: OpenPage, activations: dict[str, Array]
) -> None:
    channel = 6
    values = activations[CONV][0, ..., channel]
    with open_page(f"#layer={CONV}") as page:
        wait_for(page, CONV)
        rect = page.evaluate("(channel) => actgrid.tileRect(channel)", channel)
        x, y = rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2
        page.mouse.move(x, y)
        tip = page.locator("#layer .first .tip")
        expect(tip).to_contain_text(f"Channel {channel}")
        expect(tip).to_contain_text(f"{float(f'{values.max():.4g}'):g}")
        page.mouse.click(x, y)
        panel = page.locator("#channel")
        expect(panel.locator("h2")).to_have_text(f"Channel {channel}")
        assert parse_hash(page) == {"layer": CONV, "channel": str(channel)}
        expect(panel.locator(".stats").first).to_contain_text(f"{float(f'{values.std():.4g}'):g}")
        # The histogram of the previous test may be shown until then.
        expect(panel.locator(".histogram")).not_to_have_class(re.compile("stale"))
        expect(panel.locator(".histogram rect:not(.hit)")).to_have_count(32)
        counts = np.histogram(values, 32)[0]
        heights = panel.locator(".histogram rect:not(.hit)").evaluate_all(
            "(bars) => bars.map((bar) => Number(bar.getAttribute('height')))"
        )
        assert int(np.argmax(heights)) == int(np.argmax(counts))
        kernel = panel.locator(".kernel canvas")
        expect(kernel).to_be_visible()
        assert np.unique(read_canvas(kernel).reshape(-1, 3), axis=0).shape[0] > 5
        expect(panel.locator(".across").first.locator("button")).to_have_count(3)
        expect(panel).to_contain_text("Across the dataset")
        expect(panel).to_contain_text("Top images")


def read_canvas(canvas: Locator) -> Array:
    """Read all pixels of a canvas, (height, width, 3) uint8."""
    size = canvas.evaluate("({width, height}) => ({width, height})")
    return decode_png(canvas.evaluate(READ_PIXELS, {"x": 0, "y": 0, **size}))


def test_enlarged_channel_equals_render(
    open_page: OpenPage, activations: dict[str, Array], assert_enlarged_levels_agree: Any
) -> None:
    grid = actgrid.render(activations[STEM])
    with open_page("#channel=9") as page:
        tile = page.locator("#channel .figures .tile").first
        expect(tile).to_have_attribute("data-shown", re.compile(f"^{STEM}[|]9[|]"))
        assert_enlarged_levels_agree(read_canvas(tile), grid.tile(9), "viridis", 4)
        overlay = page.locator("#channel .figures .tile").nth(1)
        before = read_canvas(overlay)
        page.locator("#channel").get_by_label("Overlay alpha").fill("0")
        expect(page).to_have_url(re.compile("blend=0(&|$)"))
        assert (read_canvas(overlay) != before).any()
        picture = download_picture(page, page.locator("#channel").get_by_text("Save").click)
        assert picture.shape == (520, 968, 3)


def test_channel_view_selects_other_images(open_page: OpenPage) -> None:
    with open_page("#channel=9") as page:
        rows = page.locator("#channel .across").first.locator("button")
        expect(rows).to_have_count(3)
        values = [
            float(text.replace("\u2212", "-")) for text in rows.locator(".value").all_inner_texts()
        ]
        assert values == sorted(values, reverse=True)
        other = rows.filter(has_text="negative.png")
        image = other.get_attribute("data-image")
        other.click()
        expect(page.locator("#images h2")).to_have_text("negative.png")
        assert parse_hash(page) == {"channel": "9", "image": image}


def test_maximize_channel(open_page: OpenPage) -> None:
    with open_page("#layer=block1_dw_conv&channel=3") as page:
        page.get_by_role("button", name="Compute").click()
        picture = page.get_by_role("img", name="Image that maximizes channel 3")
        expect(picture).to_be_visible(timeout=30_000)
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") >= 64
        # The dataset statistics contain another layer only.
        expect(page.get_by_text("Across images")).to_be_visible()
        expect(page.get_by_text("Across the dataset")).to_be_hidden()


def test_groups_expand_and_collapse(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        cards = page.locator(".cards .card")
        collapsed_count = cards.count()
        page.get_by_role("button", name="Expand block2_add", exact=True).click()
        expect(page.locator(".box .head")).to_have_count(1)
        assert parse_hash(page) == {"open": "block2_add"}
        expect(page.get_by_role("button", name="Collapse block2_add", exact=True)).to_be_focused()
        page.get_by_role("button", name="Expand all").click()
        expect(cards).to_have_count(143 + 1)
        assert parse_hash(page) == {"open": "*"}
        boxes = cards.evaluate_all(
            "(cards) => cards.map((card) => new DOMMatrix(card.style.transform))"
            ".map(({e, f}) => [e, f])"
        )
        for index, (x, y) in enumerate(boxes):  # cards do not overlap
            assert all(abs(x - a) >= 232 or abs(y - b) >= 58 for a, b in boxes[index + 1 :])
        page.get_by_role("button", name="Collapse all").click()
        expect(cards).to_have_count(collapsed_count)
        page.go_back()
        expect(cards).to_have_count(143 + 1)


def test_find_layers(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        search_box = page.get_by_role("searchbox", name="Find layers")
        search_box.fill("block3_dw")
        results = page.locator(".results .card")
        expect(results).to_have_count(3)
        search_box.fill("depthwiseconv2d")
        expect(results).to_have_count(16)
        search_box.fill("block3_dw_bn")
        search_box.press("Enter")
        wait_for(page, "block3_dw_bn")
        expect(search_box).to_have_value("")
        expect(find_card(page, "block3_dw_bn")).to_be_in_viewport()


def test_link_restores_the_view(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        image = get_image_ids(page)[1]
        page.get_by_role("button", name="flipped.png", exact=True).click()
        wait_for(page, STEM, image)
        choose(page, "#layer", "Normalization", "minmax")
        wait_for(page, STEM, "minmax")
        canvas = page.locator(CANVAS)
        canvas.focus()
        page.keyboard.press("+")
        page.mouse.move(640, 500)
        page.mouse.down()
        page.mouse.move(600, 460, steps=3)
        page.mouse.up()
        expect(page).to_have_url(re.compile("view="))
        before, state = read_layer_canvas(page), get_state(page)
        page.reload()
        wait_for(page, STEM, image, "minmax")
        assert get_state(page).keys() == state.keys()
        np.testing.assert_array_equal(read_layer_canvas(page), before)
        page.go_back()
        wait_for(page, STEM, image, "standard")
        page.go_back()
        wait_for(page, STEM, get_image_ids(page)[0])
        page.go_forward()
        wait_for(page, STEM, image)


def read_layer_canvas(page: Page) -> Array:
    """Read all pixels of the canvas of the layer view."""
    return read_canvas(page.locator(CANVAS))


def test_wheel_and_double_click_zoom_around_the_pointer(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        rect = page.evaluate("actgrid.tileRect(9)")
        x, y = rect["x"] + 3, rect["y"] + 3
        page.mouse.move(x, y)
        page.mouse.wheel(0, -600)
        larger = page.evaluate("actgrid.tileRect(9)")
        assert larger["width"] > 2 * rect["width"]
        assert larger["x"] <= x <= larger["x"] + larger["width"]
        page.mouse.dblclick(x, y)
        expect(page.locator("#channel")).to_be_hidden()
        assert page.evaluate("actgrid.tileRect(9)")["width"] == pytest.approx(2 * larger["width"])
        page.get_by_role("button", name="fit").or_(page.locator(".zoom .scale")).first.click()
        assert page.evaluate("actgrid.tileRect(9)") == rect


def test_invalid_link_falls_back_to_defaults(open_page: OpenPage) -> None:
    link = "#layer=nowhere&image=abc123&normalize=magic&cmap=mud&tab=tea&open=what&columns=0&x=1"
    link += "&compare=../model.json&view=-9,1e9,1e300&order=-1"
    with open_page(link, allowed_problems="404|422", fresh=True) as page:
        wait_for(page, STEM)
        toasts = page.locator("#toasts")
        for text in (
            "layer nowhere",
            "image abc123",
            "magic",
            "mud",
            "tab=tea",
            "what",
            "x=1",
            "../",
        ):
            expect(toasts).to_contain_text(text)
        expect(page.locator("#images h2")).to_have_text("cat.png")
        assert page.evaluate("actgrid.tileRect(30)")["width"] == 96 * 112  # the maximum scale
        page.locator(CANVAS).press("0")
        expect(page).to_have_url(re.compile(r"/$"))


def test_keyboard_navigation(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(find_card(page, STEM).locator(".pick")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("+")
        expect(page.locator(".box")).to_have_count(1)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        wait_for(page, "block0_dw_conv")
        expect(page.locator("#status")).to_contain_text("block0_dw_conv: DepthwiseConv2D")
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('canvas.grid')"):
                break
        expect(page.locator(CANVAS)).to_be_focused()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#status")).to_contain_text("Channel 2")
        page.keyboard.press("Enter")
        expect(page.locator("#channel h2")).to_have_text("Channel 2")
        expect(page.locator("#channel .figures .tile").first).to_have_attribute(
            "data-shown", re.compile("[|]2[|]")
        )
        page.keyboard.press("ArrowRight")
        expect(page.locator("#channel h2")).to_have_text("Channel 3")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#channel h2")).to_have_text("Channel 2")
        page.keyboard.press("Escape")
        expect(page.locator(CANVAS)).to_be_focused()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.locator("#tab-layer").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tab-heatmap")).to_be_focused()
        expect(page.locator("#heatmap")).to_be_visible()


def test_controls_have_accessible_names(open_page: OpenPage) -> None:
    find_unnamed = """(controls) => controls.filter((control) => !control.labels?.length
        && !control.textContent.trim() && !control.getAttribute("aria-label") && !control.title)
        .map((control) => control.outerHTML)"""
    with open_page() as page:
        wait_for(page, STEM)
        for link in ("#", "#channel=2", "#tab=heatmap"):
            follow_link(page, link)
            page.locator("canvas[data-shown]:visible").first.wait_for()
            controls = page.locator("button, select, input, canvas[tabindex]")
            assert controls.evaluate_all(find_unnamed) == []


def test_compare_two_images(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        first, other, *_ = get_image_ids(page)
        page.get_by_role("button", name="Compare with flipped.png").click()
        second = "#layer .second .grid"
        wait_for(page, STEM, other, canvas=second)
        wait_for(page, STEM, first)
        assert parse_hash(page) == {"compare": other}
        before = read_canvas(page.locator(second))
        page.locator(CANVAS).focus()
        page.keyboard.press("+")
        expect(page.locator(".zoom .scale")).to_contain_text("%")
        expect(page).to_have_url(re.compile("view="))
        assert (read_canvas(page.locator(second)) != before).any()  # both images are zoomed
        picture = download_picture(page, page.locator("#layer").get_by_text("Save").click)
        assert picture.shape[1] > 2 * 6 * 112
        # Both images show each channel at the same position.
        choose(page, "#layer", "Order", "max")
        get_x = "([canvas]) => canvas.getBoundingClientRect().x"
        distance = page.locator(second).evaluate_all(get_x)
        distance -= page.locator(CANVAS).evaluate_all(get_x)
        rect = page.evaluate("actgrid.tileRect(6)")
        for offset in (0, distance):
            page.mouse.move(rect["x"] + rect["width"] / 2 + offset, rect["y"] + rect["height"] / 2)
            side = ".second" if offset else ".first"
            expect(page.locator(f"#layer {side} .tip")).to_contain_text("Channel 6")
        page.get_by_role("button", name="Stop comparing").click()
        expect(page.locator(second)).to_be_hidden()


@pytest.fixture(scope="module")
def two_models(model: Any) -> tuple[Any, Any]:
    """Return two models with the layers conv and last; the second has no layer add."""
    keras.utils.set_random_seed(5)
    image = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    x = keras.layers.Conv2D(5, 3, name="last")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(3, activation="softmax", name="head")(x)
    return model, keras.Model(image, outputs, name="second")


def test_two_models_side_by_side(
    open_view: OpenPage, two_models: tuple[Any, Any], photos: Path
) -> None:
    photo = photos / "photo0.png"
    x = [actgrid.load_images(photo, model=model) for model in two_models]
    values, probabilities = (
        [
            keras.Model(model.input, model.get_layer(path).output).predict(image, verbose=0)[0]
            for model, image in zip(two_models, x, strict=True)
        ]
        for path in ("conv", "head")
    )
    labels = ["cat", "dog", "bird"]
    link = "#tab=models&normalize=minmax&scope=layer&layer=conv&columns=3"
    options = {"labels": labels, "compare_with": two_models[1]}
    with open_view(two_models[0], photo, link, **options) as page:
        names = page.locator("#models .caption")
        expect(names).to_have_text(["small", "second", "small \u2212 second"])
        page.locator("#models .difference .grid[data-shown]").wait_for()
        for index, scores in enumerate(probabilities):
            items = page.locator("#models .top-classes").nth(index).locator(".label")
            expect(items).to_have_text([labels[i] for i in np.argsort(-scores)])
        # Both models have one scale, and the difference has its own with zero in the middle.
        low, high = min(map(np.min, values)), max(map(np.max, values))
        ends = page.locator("#models .colour-scale .value")
        difference = values[0] - values[1]
        limit = np.abs(difference).max()
        bounds = [low, high, low, high, -limit, limit]
        shown = [float(text.replace("\u2212", "-")) for text in ends.all_text_contents()]
        np.testing.assert_allclose(shown, bounds, 1e-3, 1e-6)
        for name, tiles, cmap, span in (
            ("first", values[0], "viridis", (low, high)),
            ("second", values[1], "viridis", (low, high)),
            ("difference", difference, "RdBu_r", (-limit, limit)),
        ):
            grid = page.locator(f"#models .{name} .grid")
            expected = np.rint((tiles[..., 2] - span[0]) / (span[1] - span[0]) * 255).astype(int)
            box = page.evaluate(
                """(name) => { const canvas = document.querySelector(`#models .${name} .grid`);
                return [canvas.width, canvas.height]; }""",
                name,
            )
            pixels = decode_png(
                grid.evaluate(READ_PIXELS, {"x": 0, "y": 0, "width": box[0], "height": box[1]})
            )
            assert_tile_is_drawn(pixels, palette(cmap)[expected], column=2)
        # Largest difference first, in all grids.
        page.get_by_role("button", name="Largest difference first").click()
        page.locator("#models .second .grid").press("Home")
        order = np.argsort(-np.abs(difference).max((0, 1)))
        tip = page.locator("#models .second .tip")
        expect(tip.locator("b")).to_have_text(f"Channel {order[0]}")
        expect(tip).to_contain_text(format(limit, ".4g"))
        follow_link(page, "#tab=models&layer=add")
        note = page.locator("#models .second .note")
        expect(note).to_have_text("second has no layer add that can be drawn.")
        expect(page.locator("#models .first .grid")).to_have_attribute(
            "data-shown", re.compile("add")
        )
        follow_link(page, "#tab=models&layer=last")
        note = page.locator("#models .difference .note")
        expect(note).to_contain_text(
            "the shapes differ: 14 \u00d7 10 \u00d7 9 and 14 \u00d7 10 \u00d7 5"
        )


def assert_tile_is_drawn(pixels: Array, tile: Array, column: int) -> None:
    """Check that a picture of 3 columns shows a tile, enlarged, in its first row."""
    drawn = np.argwhere(pixels.any(2))
    (top, left), (_, right) = drawn.min(0), drawn.max(0)
    height, width = tile.shape[:2]
    scale = (right + 1 - left) / (3 * width + 2)
    rows = top + ((np.arange(height) + 0.5) * scale).astype(int)
    columns = left + ((column * (width + 1) + np.arange(width) + 0.5) * scale).astype(int)
    shown = pixels[np.ix_(rows, columns)].astype(int)
    # A level may differ by 1.
    assert np.abs(shown - tile).max() <= 8


def test_one_model_has_no_tab_for_two(open_page: OpenPage) -> None:
    with open_page("#tab=models") as page:
        wait_for(page, STEM)
        expect(page.locator("#tab-models")).to_be_hidden()
        expect(page.locator(".toast")).to_contain_text("tab models does not exist")
        page.locator(".toast button").click()


# Clicks a button, and resolves with the milliseconds until another list of classes is drawn.
MEASURE_CLICK = """(button) => new Promise((resolve) => {
  const list = document.querySelector("#images .top-classes");
  const start = performance.now();
  new MutationObserver(() => requestAnimationFrame(() => resolve(performance.now() - start)))
    .observe(list, { childList: true });
  button.click();
})"""


def test_switched_off_channels_change_the_classes_at_once(
    open_page: OpenPage, demo_model: Any, folder: Path
) -> None:
    names = actgrid.demo.labels()
    x = actgrid.load_images(folder / "cat.png", model=demo_model)
    stem = keras.Model(demo_model.input, demo_model.get_layer(STEM).output)
    rest = keras.Model(demo_model.get_layer(STEM).output, demo_model.output)
    values = stem.predict(x, verbose=0)
    before = rest.predict(values, verbose=0)[0]
    first = int(np.argmax(before))

    def format_change(channels: list[int]) -> str:
        masked = values.copy()
        masked[..., channels] = 0
        after = rest.predict(masked, verbose=0)[0]
        return f"{100 * before[first]:.1f}% \u2192 {100 * after[first]:.1f}%"

    with open_page("#channel=9") as page:
        switch = page.get_by_role("button", name="Switch channel off")
        expect(switch).to_have_attribute("aria-pressed", "false")
        switch.focus()
        switch.press("Enter")
        expect(switch).to_have_attribute("aria-pressed", "true")
        row = page.locator("#images .top-classes li", has_text=names[first])
        expect(row.locator(".value")).to_have_text(format_change([9]))
        effect = page.locator("#switched .effect")
        expect(effect).to_have_text(f"{names[first]} {format_change([9])}")
        # The function is compiled now, and other channels of the layer need no new trace.
        times = []
        for channel in (1, 2, 19):
            follow_link(page, f"#channel={channel}&off={get_state(page)['off']}")
            expect(page.locator("#channel h2")).to_have_text(f"Channel {channel}")
            page.wait_for_timeout(300)
            times.append(switch.evaluate(MEASURE_CLICK))
        assert min(times) < 150
        off = [1, 2, 9, 19]
        assert get_state(page)["off"] == "4:1,2,9,19"
        expect(effect).to_have_text(f"{names[first]} {format_change(off)}")
        page.get_by_role("button", name=f"Switch on {STEM} 2", exact=True).click()
        expect(effect).to_have_text(f"{names[first]} {format_change([1, 9, 19])}")
        page.keyboard.press("Escape")
        page.locator("#tab-layer").click()
        wait_for(page, STEM)
        expect(page.locator("#layer .first .legend")).to_contain_text("switched off")
        page.get_by_role("button", name="Switch all on").click()
        expect(page.locator("#switched")).to_be_hidden()
        expect(row.locator(".value")).to_have_text(f"{100 * before[first]:.1f}%")
        assert get_state(page)["off"] is None


def test_key_switches_the_channel_and_invalid_channels_are_ignored(open_page: OpenPage) -> None:
    with open_page("#channel=3&off=4:99") as page:
        expect(page.locator(".toast")).to_contain_text("channel 4:99 does not exist")
        page.locator(".toast button").click()
        page.locator("#channel canvas[data-shown]").wait_for()
        page.keyboard.press("o")
        expect(page.get_by_role("button", name=f"Switch on {STEM} 3")).to_be_visible()
        page.keyboard.press("o")
        expect(page.locator("#switched")).to_be_hidden()
        # Nothing follows the scores of the classes.
        follow_link(page, f"#layer={DENSE}&channel=3")
        expect(page.locator("#channel h2")).to_contain_text("Unit 3")
        expect(page.get_by_role("button", name="Switch channel off")).to_be_hidden()


def test_heatmaps(open_page: OpenPage) -> None:
    with open_page("#tab=heatmap") as page:
        panel = page.locator("#heatmap")
        shown = panel.locator(".large canvas")
        expect(shown).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted"), timeout=20_000
        )
        expect(panel.locator("h2")).to_contain_text("cat")
        expect(panel.locator("header")).to_contain_text("logit")
        expect(panel.locator("header")).to_contain_text("layer")
        predicted = read_canvas(shown)
        target = panel.get_by_label("Target")
        target.fill("golden retriever")
        target.press("Enter")
        expect(panel.locator("h2")).to_have_text("golden retriever")
        expect(shown).to_have_attribute("data-shown", re.compile("gradcam[|]207"))
        assert (read_canvas(shown) != predicted).any()
        choose(page, "#heatmap", "Method", "saliency")
        expect(shown).to_have_attribute("data-shown", re.compile("saliency[|]207"), timeout=20_000)
        choose(page, "#heatmap", "Colormap", "magma")
        panel.get_by_label("Alpha").fill("1")
        expect(page).to_have_url(re.compile("alpha=1"))
        picture = download_picture(page, panel.get_by_text("Save").click)
        assert picture.shape == (224, 224, 3)
        colours = {tuple(colour) for colour in palette("magma").tolist()}
        assert set(map(tuple, picture.reshape(-1, 3).tolist())) <= colours
        options = {"method": "saliency", "target": "207", "colours": "magma", "alpha": "1"}
        assert parse_hash(page) == {"tab": "heatmap"} | options
        find_card(page, "block0_dw_relu").locator(".pick").click()
        wait_for(page, "block0_dw_relu")


def test_unknown_target_shows_error_with_close_names(open_page: OpenPage) -> None:
    with open_page("#tab=heatmap", allowed_problems="422", fresh=True) as page:
        panel = page.locator("#heatmap")
        shown = panel.locator(".large canvas")
        predicted = re.compile("gradcam[|]predicted")
        expect(shown).to_have_attribute("data-shown", predicted, timeout=20_000)
        target = panel.get_by_label("Target")
        error = panel.get_by_role("alert")
        for text, message in [
            ("golden retriver", "No class is called 'golden retriver' (did you mean golden retrie"),
            ("crane", "2 classes are called 'crane': give an index, 134 or 517"),
            ("1000", "There is no class 1000: the model has 1000, 0 to 999"),
            ("207 golden", "No class is called '207 golden'"),
        ]:
            target.fill(text)
            target.press("Enter")
            expect(error).to_contain_text(message)
            expect(target).to_have_attribute("aria-invalid", "true")
            assert parse_hash(page) == {"tab": "heatmap"}
        expect(shown).to_have_attribute("data-shown", predicted)  # the heatmap does not change
        target.fill("207 golden retriever")
        target.press("Enter")
        expect(error).to_have_count(0)
        expect(panel.locator("h2")).to_have_text("golden retriever")
        assert parse_hash(page) == {"tab": "heatmap", "target": "207"}


# Returns whether a progress resource reports that no computation is running.
IS_IDLE = """async (url) => {
  const { state } = await (await fetch(url)).json();
  return state === "none";
}"""


def test_heatmap_shows_progress_and_can_be_cancelled(open_page: OpenPage, url: str) -> None:
    with open_page("#tab=heatmap&method=rise", fresh=True) as page:
        panel = page.locator("#heatmap")
        progress_url = (
            f"{url}api/images/{get_image_ids(page)[0]}/heatmaps/rise/predicted/progress.json"
        )
        progress = panel.locator(".progress")
        expect(progress).to_contain_text(re.compile(r"\d+\.\d% \(\d+ of 2,000\)"), timeout=30_000)
        report = httpx.get(progress_url).json()
        assert (report["state"], report["total"]) == ("running", 2000)
        # The server computes a quick heatmap for another client at the same time.
        image = get_image_ids(page)[1]
        response = httpx.get(f"{url}api/images/{image}/heatmaps/gradcam/3.json", timeout=60)
        assert response.status_code == 200
        assert httpx.get(progress_url).json()["state"] == "running"
        progress.get_by_role("button", name="Cancel").click()
        expect(panel.locator(".note")).to_contain_text("The computation was cancelled.")
        expect(progress).to_be_hidden()
        page.wait_for_function(IS_IDLE, arg=progress_url)
        # Other changes do not restart the cancelled computation.
        choose(page, "#heatmap", "Colormap", "magma")
        expect(panel.locator(".note")).to_be_visible()
        assert httpx.get(progress_url).json()["state"] == "none"
        panel.get_by_role("button", name="Compute").click()
        expect(progress).to_contain_text("of 2,000", timeout=30_000)
        choose(page, "#heatmap", "Method", "gradcam")
        expect(panel.locator(".large canvas")).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted"), timeout=30_000
        )
        expect(progress).to_be_hidden()


def read_map(canvas: Locator) -> Array:
    """Return the RGB pixels of a canvas."""
    return read_canvas(canvas)[..., :3].astype(int)


def test_methods_are_compared_in_one_colour_scale(
    open_page: OpenPage, demo_model: Any, folder: Path
) -> None:
    link = "#tab=methods&methods=gradcam,gradient_x_input&alpha=1"
    with open_page(link, fresh=True) as page:
        figures = page.locator("#methods .comparison figure")
        expect(figures).to_have_count(3)
        for figure, method in zip(
            (figures.nth(1), figures.nth(2)), ("gradcam", "gradient_x_input"), strict=True
        ):
            expect(figure.locator("canvas")).to_have_attribute(
                "data-shown", re.compile(f"{method}[|]predicted"), timeout=30_000
            )
            expect(figure).to_contain_text(
                re.compile(r"deletion [\d.]+ · insertion"), timeout=30_000
            )
        expect(figures.nth(1).locator("b")).to_have_text(re.compile("^[12][.] gradcam"))
        expect(page.locator("#methods h2")).to_contain_text("cat")
        # One map is signed: both have its colours, and zero is the colour in the middle.
        x = actgrid.load_images(folder / "cat.png", model=demo_model)
        lut = palette("RdBu_r").astype(int)
        for index, method in ((1, "gradcam"), (2, "gradient_x_input")):
            heatmap = actgrid.explain(demo_model, x, method)
            levels = heatmap.levels()[0].astype(int)
            if not heatmap.signed:
                levels = 128 + levels // 2
            shown = read_map(figures.nth(index).locator("canvas"))
            factor = shown.shape[0] // levels.shape[0]
            np.testing.assert_allclose(shown[::factor, ::factor], lut[levels], atol=2)
        expect(page.locator("#methods .colour-scale")).to_contain_text("against the class")
        figures.nth(2).get_by_role("button", name="Remove gradient_x_input").click()
        expect(figures).to_have_count(2)
        assert parse_hash(page)["methods"] == "gradcam"
        expect(page.locator("#methods .colour-scale")).to_contain_text("smallest")
        page.locator("#methods").get_by_role("button", name="Scores").click()
        expect(figures.nth(1)).to_contain_text("deletion")  # known scores stay
        choose(page, "#methods", "Methods", "saliency")
        expect(figures.nth(2).locator("canvas")).to_have_attribute(
            "data-shown", re.compile("saliency[|]predicted"), timeout=30_000
        )
        expect(figures.nth(2)).not_to_contain_text("deletion")
        expect(figures.nth(2).locator(".progress")).to_be_hidden()
        target = page.locator("#methods").get_by_label("Target")
        target.fill("golden retriever")
        target.press("Enter")
        expect(figures.nth(2).locator("canvas")).to_have_attribute(
            "data-shown", re.compile("saliency[|]207"), timeout=30_000
        )
        picture = download_picture(page, page.locator("#methods").get_by_text("Save").click)
        assert picture.shape[1] > 600


def test_slow_method_can_be_cancelled_while_others_are_compared(
    open_page: OpenPage, url: str
) -> None:
    with open_page("#tab=methods&methods=rise,saliency&scores=off", fresh=True) as page:
        rise, saliency = (page.locator("#methods figure").nth(index) for index in (1, 2))
        expect(rise.locator(".progress")).to_contain_text("of 2,000", timeout=30_000)
        expect(saliency.locator(".progress")).to_contain_text("Waiting")
        image = get_image_ids(page)[0]
        rise.get_by_role("button", name="Cancel").click()
        expect(rise.locator(".note")).to_contain_text("The computation was cancelled.")
        expect(saliency.locator("canvas")).to_have_attribute(
            "data-shown", re.compile("saliency[|]predicted"), timeout=30_000
        )
        page.wait_for_function(
            IS_IDLE, arg=f"{url}api/images/{image}/heatmaps/rise/predicted/progress.json"
        )
        rise.get_by_role("button", name="Compute").click()
        expect(rise.locator(".progress")).to_contain_text("of 2,000", timeout=30_000)
        page.locator("#tab-layer").click()  # a view that is not seen computes nothing
        page.wait_for_function(
            IS_IDLE, arg=f"{url}api/images/{image}/heatmaps/rise/predicted/progress.json"
        )


def test_maximize_shows_progress_and_can_be_cancelled(open_page: OpenPage, url: str) -> None:
    progress_url = re.compile(r"/channels/7/maximized/progress\.json")
    with open_page(f"#layer={LAST}&channel=7", fresh=True) as page:
        section = page.locator("#channel .part").filter(has_text="Activation maximization")
        section.get_by_role("button", name="Compute").click()
        with page.expect_response(progress_url, timeout=30_000) as response:
            expect(section.locator(".progress")).to_contain_text(
                re.compile(r"% \(\d+ of 64\)"), timeout=60_000
            )
        section.get_by_role("button", name="Cancel").click()
        expect(section.get_by_role("button", name="Compute")).to_be_visible()
        page.wait_for_function(IS_IDLE, arg=response.value.url)


def test_remove_uploaded_images_only(open_page: OpenPage, url: str) -> None:
    with open_page(fresh=True) as page:
        wait_for(page, STEM)
        initial_ids = set(get_image_ids(page))
        initial_count = len(initial_ids)
        for color in ("maroon", "orchid"):
            page.locator("input[type=file]").set_input_files(
                {"name": f"{color}.png", "mimeType": "image/png", "buffer": encode_png(color)}
            )
            expect(page.locator("#images h2")).to_have_text(f"{color}.png")
        expect(page.locator("#images")).to_contain_text(f"{initial_count + 2} images")
        image = str(get_state(page)["image"])
        wait_for(page, STEM, image)
        page.wait_for_timeout(500)  # the thumbnails load, which are missing afterwards
        # Remove the selected image, then an image that is not selected.
        page.get_by_role("button", name="Remove orchid.png", exact=True).click()
        expect(page.locator("#images h2")).not_to_have_text("orchid.png")
        wait_for(page, STEM, str(get_state(page)["image"]))
        assert get_state(page)["image"] != image
        page.get_by_role("button", name="cat.png", exact=True).click()
        page.get_by_role("button", name="Compare with maroon.png", exact=True).click()
        wait_for(page, STEM, canvas="#layer .second .grid")
        page.get_by_role("button", name="Remove maroon.png", exact=True).click()
        expect(page.locator("#layer .second")).to_be_hidden()
        expect(page.locator("#images h2")).to_have_text("cat.png")
        expect(page.locator("#images")).to_contain_text(f"{initial_count} images")
        assert set(get_image_ids(page)) == initial_ids
        assert httpx.get(f"{url}api/images/{image}/picture.png").status_code == 404
        for name in ("cat.png", "flipped.png", "negative.png"):
            expect(page.get_by_role("button", name=f"Remove {name}")).to_have_count(0)
        page.reload()
        wait_for(page, STEM)
        assert set(get_image_ids(page)) == initial_ids


# Dispatches a drop event with a file of `size` zero bytes.
DROP_ZEROS = """(size) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(size)], `${size}.png`));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


def test_upload_limits_are_shown_and_checked(open_page: OpenPage) -> None:
    with open_page(allowed_problems="422", fresh=True) as page:
        expect(page.locator(".upload")).to_contain_text(
            "PNG, JPEG, WebP, GIF or BMP of at most 32 MiB and 50,000,000 pixels"
        )
        wait_for(page, STEM)
        toast = page.locator(".toast.error")
        page.evaluate(DROP_ZEROS, 2**25 + 1)  # rejected without an upload
        expect(toast).to_contain_text(
            "33554433.png has 33,554,433 bytes; the limit is 33,554,432 (32 MiB)."
        )
        page.evaluate(DROP_ZEROS, 2**25)
        expect(toast.last).to_contain_text("33554432.png: the image is no PNG, JPEG")


def test_percentages_have_one_format(open_page: OpenPage) -> None:
    with open_page() as page:
        texts = page.evaluate("""async () => {
          const { formatPercent } = await import(new URL("dom.js", document.baseURI));
          const fractions = [0, 0.0001, 0.0005, 0.05, 0.12345, 0.99949, 0.9996, 1, 15, null];
          return fractions.map(formatPercent);
        }""")
        assert texts == [
            *("0.0%", "<0.1%", "0.1%", "5.0%", "12.3%", "99.9%", ">99.9%", "100.0%", "1500.0%"),
            "\u2013",
        ]
        wait_for(page, STEM)
        wait_for_all(page)
        follow_link(page, "#channel=3")
        page.locator("#channel .stats dd").first.wait_for()
        page.locator("#channel").get_by_label("Statistic").select_option("zero_fraction")
        expect(page.locator("#channel .across .value").first).to_contain_text("%")
        text = page.locator("body").inner_text()
        percentages = re.findall(r"[\d.]+%", text)
        assert len(percentages) >= 8
        assert all(re.fullmatch(r"\d+\.\d%", text) for text in percentages), percentages


def test_card_shows_the_layer_that_it_opens(open_page: OpenPage) -> None:
    with open_page(size=(1280, 900)) as page:
        wait_for(page, STEM)
        wait_for_all(page)
        expect(find_card(page, STEM)).to_have_class(re.compile("current"))
        cards = page.locator(".cards .card .pick:enabled")
        paths = cards.evaluate_all("(cards) => cards.map((card) => card.dataset.path)")
        assert STEM in paths
        assert CONV not in paths
        for path in paths:
            pick = page.locator(f'.cards .pick[data-path="{path}"]')
            pick.click()
            wait_for(page, path)
            expect(page.locator("#layer h2")).to_have_text(path)
            assert pick.locator("b").inner_text() == path.rsplit("/", 1)[-1]
            heading = page.locator("#layer header").inner_text()
            heading_match = re.search(r"(\d+) of \d+ dead", heading)
            card_match = re.search(r"(\d+) dead", pick.inner_text())
            heading_dead = heading_match and heading_match[1]
            assert heading_dead == (card_match and card_match[1]), path


def test_card_of_closed_group_shows_the_current_layer(open_page: OpenPage) -> None:
    with open_page(f"#layer={CONV}", fresh=True) as page:
        wait_for(page, CONV)
        wait_for_all(page)
        current = page.locator(".card.current")
        expect(current.locator("b")).to_have_text(CONV)
        expect(current).to_contain_text("1 dead")
        expect(page.locator("#layer header")).to_contain_text("1 of 32 dead")
        find_card(page, "block0_dw_relu").locator(".pick").click()
        wait_for(page, "block0_dw_relu")
        expect(find_card(page, STEM)).to_have_count(1)
        expect(find_card(page, CONV)).to_have_count(0)
        page.go_back()
        wait_for(page, CONV)
        expect(current.locator("b")).to_have_text(CONV)


# Returns the controls that are partly outside of the window, covered, or too small for their text.
FIND_CUT_OFF = """() => [...document.querySelectorAll(
  "button, select, input, summary, a, progress")]
  .filter((control) => control.checkVisibility() && !control.matches(".visually-hidden")
    && !control.closest(".scroller"))
  .filter((control) => {
    const { left, right, top, bottom } = control.getBoundingClientRect();
    const context = document.createElement("canvas").getContext("2d");
    const style = getComputedStyle(control);
    const isSelect = control.matches("select");
    context.font = style.font;
    const value = control.value && control.type !== "range" ? String(control.value)
      : control.placeholder ?? "";
    const texts = isSelect ? [...control.options].slice(0, 20).map(({ text }) => text) : [value];
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const iconWidth = isSelect || control.type === "search" ? 20 : 0;
    const maxWidth = control.clientWidth - padding - iconWidth;
    const isTooWide = control.matches("select, input") && !control.matches("[aria-label=Layer]")
      && Math.max(...texts.map((text) => context.measureText(text).width)) > maxWidth;
    const topmost = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    return left < 0 || right > innerWidth || top < 0 || bottom > innerHeight || isTooWide
      || !(control.contains(topmost) || topmost?.closest("label")?.contains(control))
      || control.matches("button") && control.scrollWidth > control.clientWidth;
  }).map((control) => `${control.ariaLabel ?? control.textContent}: ${control.clientWidth}`)"""


@pytest.mark.parametrize(
    "link",
    [
        *("#", "#normalize=range(-0.5, 6)", "#channel=3", "#channel=3&layer=stem_conv"),
        *("#tab=heatmap", "#tab=heatmap&method=integrated_gradients&target=207"),
        *("#pane=graph", "#pane=graph&open=*", "#pane=images"),
    ],
)
def test_controls_fit_on_a_phone(open_page: OpenPage, link: str) -> None:
    with open_page(link, size=(360, 740)) as page:
        page.locator("#images .thumb").first.wait_for(state="attached")
        if "graph" not in link and "images" not in link:
            page.locator("canvas[data-shown]:visible").first.wait_for(timeout=30_000)
        assert page.evaluate(FIND_CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        for scroller in page.locator(".scroller:visible").all():
            is_wide = "(element) => element.scrollWidth > element.clientWidth"
            assert "open=*" in link or not scroller.evaluate(is_wide)
        if link == "#":
            page.locator("#layer .first .grid").wait_for()
            expect(page.locator("#layer").get_by_label("Columns")).to_be_in_viewport(ratio=1)


def test_upload_image(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        page.locator("input[type=file]").set_input_files(
            {"name": "red.png", "mimeType": "image/png", "buffer": encode_png("red")}
        )
        expect(page.locator("#images h2")).to_have_text("red.png")
        wait_for(page, STEM, str(get_state(page)["image"]))
        expect(page.locator(".thumb").first).to_have_attribute(
            "data-image", str(get_state(page)["image"])
        )


@pytest.mark.parametrize(("kind", "color"), [("paste", "navy"), ("drop", "olive")])
def test_paste_or_drop_image(open_page: OpenPage, kind: str, color: str) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        file = [f"{color}.png", base64.b64encode(encode_png(color)).decode()]
        if kind == "drop":
            page.evaluate(DISPATCH_TRANSFER, ["dragenter", *file])
            expect(page.locator("body")).to_have_class(re.compile("dropping"))
        page.evaluate(DISPATCH_TRANSFER, [kind, *file])
        expect(page.locator("#images h2")).to_have_text(f"{color}.png")
        expect(page.locator("body")).not_to_have_class(re.compile("dropping"))
        wait_for(page, STEM, str(get_state(page)["image"]))


def test_invalid_upload_shows_error(open_page: OpenPage) -> None:
    with open_page(allowed_problems="422") as page:
        wait_for(page, STEM)
        page.locator("input[type=file]").set_input_files(
            {"name": "note.png", "mimeType": "image/png", "buffer": b"no picture"}
        )
        expect(page.locator(".toast.error")).to_contain_text("note.png")
        expect(page.locator("#images h2")).to_have_text("cat.png")


def test_webcam_adds_image(browser: Browser, open_page: OpenPage) -> None:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    webcam_browser = browser.browser_type.launch(
        executable_path=executable, args=["--no-sandbox", *flags]
    )
    with open_page(browser=webcam_browser) as page:
        wait_for(page, STEM)
        page.get_by_role("button", name="Webcam").click()
        dialog = page.get_by_role("dialog", name="Webcam")
        dialog.get_by_role("button", name="Take picture").click()
        expect(page.locator("#images h2")).to_have_text("webcam.jpg")
        expect(dialog).to_have_count(0)
        wait_for(page, STEM, str(get_state(page)["image"]))
    webcam_browser.close()


def test_narrow_window_shows_one_pane(open_page: OpenPage) -> None:
    panes = {"graph": "Network", "view": "View", "images": "Images"}
    with open_page("#open=block2_add", size=(360, 740)) as page:
        for pane, name in panes.items():
            page.get_by_role("button", name=name, exact=True).click()
            expect(page.locator(f"#{pane}")).to_be_visible()
            for other in panes.keys() - {pane}:
                expect(page.locator(f"#{other}")).to_be_hidden()
            assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.get_by_role("button", name="Network", exact=True).click()
        find_card(page, STEM).locator(".pick").click()
        wait_for(page, "stem_relu")
        box = page.locator(CANVAS).bounding_box()
        assert box is not None
        assert box["width"] == 360
        assert box["height"] > 300
        expect(page.get_by_role("button", name="Zoom in")).to_be_in_viewport()


def test_touch_zoom_and_pan(open_page: OpenPage) -> None:
    with open_page(size=(414, 896), has_touch=True) as page:
        wait_for(page, STEM)
        before = page.evaluate("actgrid.tileRect(9)")
        session = page.context.new_cdp_session(page)

        def touch_at(kind: str, *points: tuple[float, float]) -> None:
            touch_points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touch_points})

        touch_at("touchStart", (160, 450))
        touch_at("touchStart", (160, 450), (240, 450))
        for distance in (20, 40):
            touch_at("touchMove", (160 - distance, 450), (240 + distance, 450))
        touch_at("touchEnd")
        page.wait_for_function("(width) => actgrid.tileRect(9).width > width", arg=before["width"])
        zoomed = page.evaluate("actgrid.tileRect(9)")
        assert zoomed["width"] == pytest.approx(2 * before["width"], rel=0.01)
        touch_at("touchStart", (200, 450))
        for down in (20, 60):
            touch_at("touchMove", (200, 450 + down))
        touch_at("touchEnd")
        page.wait_for_function("(top) => actgrid.tileRect(9).y >= top", arg=zoomed["y"] + 59)
        assert page.evaluate("actgrid.tileRect(9)")["width"] == zoomed["width"]
        expect(page.locator("#channel")).to_be_hidden()


def test_last_of_many_clicks_wins(open_page: OpenPage) -> None:
    click_all = """(cards) => cards.filter((card) => !card.disabled).map((card) => {
        card.click();
        return card.dataset.path;
    })"""
    with open_page("#open=*") as page:
        wait_for(page, STEM)
        aborted: list[str] = []
        page.on("requestfailed", lambda request: aborted.append(request.url))
        paths = page.locator(".cards .pick").evaluate_all(click_all)
        assert len(paths) == 143
        wait_for(page, paths[-1])
        assert len(aborted) > 100
        expect(page.locator("#layer h2")).to_have_text(paths[-1])


def test_light_and_dark_theme(open_page: OpenPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"

    def measure_brightness(page: Page) -> float:
        components = re.findall(r"\d+", page.evaluate(background))
        return float(np.mean([int(component) for component in components]))

    with open_page(color_scheme="dark") as page:
        assert measure_brightness(page) < 60
        page.get_by_role("button", name="Theme: auto").click()
        assert measure_brightness(page) > 200
        page.reload()
        assert measure_brightness(page) > 200
    with open_page(color_scheme="light") as page:
        assert measure_brightness(page) > 200


def test_server_error_message_is_shown(open_page: OpenPage) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=422, json={"detail": "the input does not fit the model"})

    with open_page(allowed_problems="422") as page:
        wait_for(page, STEM)
        page.route("**/layers/*/minmax/*.png", refuse)
        choose(page, "#layer", "Normalization", "minmax")
        note = page.locator("#layer .first .note")
        expect(note).to_contain_text("the input does not fit the model")
        page.unroute("**/layers/*/minmax/*.png")
        note.get_by_role("button", name="Try again").click()
        wait_for(page, STEM, "minmax")


def test_retry_after_lost_connection(open_page: OpenPage) -> None:
    with open_page(allowed_problems="ERR_FAILED", fresh=True) as page:
        wait_for(page, STEM)
        page.route("**/api/**", lambda route: route.abort())
        find_card(page, "block0_dw_relu").locator(".pick").click()
        banner = page.get_by_role("alert")
        expect(banner).to_contain_text("does not answer")
        page.unroute("**/api/**")
        banner.get_by_role("button", name="Try again").click()
        wait_for(page, "block0_dw_relu")
        expect(banner).to_be_hidden()


def test_save_network_picture(open_page: OpenPage) -> None:
    with open_page() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        picture = download_picture(page, page.locator("#graph").get_by_text("Save").click)
        assert picture.shape[0] > 5 * picture.shape[1] > 2000
        assert len(np.unique(picture.astype(int) @ (1, 256, 65536))) > 200


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder with the web server of Python; yield the address."""

    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


# A normalization that must be escaped in a URL.
PERCENTILE = "percentile(5, 95)"


@pytest.fixture(scope="module")
def site(model: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Export a small model and serve it from a subfolder of a plain web server."""
    folder = tmp_path_factory.mktemp("web")
    options: dict[str, Any] = {"normalize": ["minmax", PERCENTILE], "method": "gradcam"}
    with ThreadPoolExecutor() as executor:  # the event loop of the browser uses this thread
        executor.submit(
            actgrid.export_site, model, photos, output=folder / "some/where", **options
        ).result()

    with serve_folder(folder) as address:
        yield f"{address}some/where/"


COMMAND = "python -m http.server --directory"


@pytest.mark.parametrize("has_scripts", [True, False])
def test_export_opened_as_file_explains_how_to_serve_it(
    model: Any, photos: Path, tmp_path: Path, browser: Browser, has_scripts: bool
) -> None:
    with ThreadPoolExecutor() as executor:
        site_folder = executor.submit(
            actgrid.export_site, model, photos / "photo0.png", "conv", output=tmp_path
        ).result()
    context = browser.new_context(java_script_enabled=has_scripts)
    page = context.new_page()
    page.goto((site_folder / "index.html").as_uri())
    expect(page.get_by_text(COMMAND)).to_be_visible()
    expect(page.get_by_text("only from a web server, not from a file")).to_be_visible()
    context.close()


def test_served_page_hides_the_file_explanation(open_page: OpenPage) -> None:
    with open_page(fresh=True) as page:
        wait_for(page, STEM)
        expect(page.get_by_text(COMMAND)).to_have_count(0)


def test_export_on_a_plain_web_server(site: str, open_page: OpenPage) -> None:
    with open_page(base=site) as page:
        wait_for(page, "conv", "minmax")
        assert parse_hash(page) == {}
        options = page.locator("#layer").get_by_label("Normalization").locator("option")
        expect(options).to_have_text(["minmax", PERCENTILE])
        expect(page.get_by_text("Add images")).to_have_count(0)
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        choose(page, "#layer", "Normalization", PERCENTILE)
        wait_for(page, "conv", PERCENTILE)
        assert parse_hash(page) == {"normalize": PERCENTILE}
        page.get_by_role("button", name="photo1.png", exact=True).click()
        wait_for(page, "conv", get_image_ids(page)[1], PERCENTILE)
        page.locator("#tab-heatmap").click()
        expect(page.locator("#heatmap .large canvas")).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted")
        )
        expect(page.locator("#heatmap").get_by_label("Target", exact=True)).to_have_count(0)
        page.locator("#tab-methods").click()
        figure = page.locator("#methods figure").nth(1)
        expect(figure.locator("canvas")).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted")
        )
        expect(figure.locator(".progress")).to_be_hidden()
        expect(page.locator("#methods").get_by_text("Scores")).to_be_hidden()
        page.goto(f"{site}#layer=last&channel=2")
        expect(page.locator("#channel .across button")).to_have_count(3)
        expect(page.get_by_role("button", name="Compute")).to_have_count(0)


def test_token_in_the_address_is_sent(model: Any, photos: Path, open_page: OpenPage) -> None:
    with actgrid.view(model, photos, labels=["cat", "dog", "bird"]) as view:
        base, _, token = view.url.partition("?")
        with open_page(f"?{token}", base=base) as page:
            wait_for(page, "conv")
            expect(page.locator(".thumb img[src]")).to_have_count(3)
            labels = page.locator("#images .top-classes .label")
            assert set(labels.all_inner_texts()) == {"cat", "dog", "bird"}


@pytest.fixture(scope="module")
def protected_viewer(model: Any, photos: Path) -> Iterator[tuple[str, str]]:
    """Serve a viewer; yield its address without the token, and the token."""
    with actgrid.view(model, photos, labels=["cat", "dog", "bird"]) as view:
        base, _, token = view.url.partition("?token=")
        yield base, token


def enter_token(page: Page | FrameLocator, token: str) -> None:
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Open", exact=True).click()


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_missing_or_wrong_token_opens_form(
    protected_viewer: tuple[str, str], open_page: OpenPage, query: str
) -> None:
    base, token = protected_viewer
    link = "#layer=last&order=mean"
    with open_page(query + link, base=base, allowed_problems="401") as page:
        dialog = page.get_by_role("dialog", name="Access")
        expect(dialog).to_contain_text("printed where the server was started")
        error = dialog.locator(".error")
        expect(error).to_have_text("The token of this page is wrong." if query else "")
        enter_token(page, "guess")
        expect(error).to_have_text("This token is wrong.")
        enter_token(page, "schl\u00fcssel")
        expect(error).to_contain_text("no spaces or accents")
        dialog.get_by_label("Token").fill(token)
        dialog.get_by_label("Token").press("Enter")
        expect(dialog).to_have_count(0)
        # The delayed requests are sent, and the page shows the view of the link.
        wait_for(page, "last")
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        assert get_state(page)["order"] == "mean"
        page.locator("#layer").get_by_label("Columns").fill("2")
        expect(page).to_have_url(f"{base}{link}&columns=2")
        page.reload()
        wait_for(page, "last")
        page.go_back()
        assert token not in page.url


def test_token_form_accepts_a_full_address(
    protected_viewer: tuple[str, str], open_page: OpenPage
) -> None:
    base, token = protected_viewer
    with open_page("", base=base, allowed_problems="401") as page:
        enter_token(page, f" {base}?token={token}#tab=heatmap ")
        wait_for(page, "conv")


def test_changed_token_opens_form_again(model: Any, open_page: OpenPage) -> None:
    photo = actgrid.demo.photo()
    with actgrid.view(model, photo) as view:
        base, _, token = view.url.partition("?token=")
        with open_page(f"?token={token}", base=base, allowed_problems="401") as page:
            wait_for(page, "conv")
            # Simulate a restart of the server with another token.
            app: Any = view._app
            app.user_middleware[0].kwargs["token"] = "other"
            app.middleware_stack = None
            choose(page, "#layer", "Normalization", "minmax")
            expect(page.get_by_role("dialog", name="Access")).to_contain_text("is wrong")
            enter_token(page, "other")
            wait_for(page, "conv", "minmax")
            assert token not in page.url


def test_retry_reopens_closed_token_form(
    protected_viewer: tuple[str, str], open_page: OpenPage
) -> None:
    base, token = protected_viewer
    with open_page("#layer=last", base=base, allowed_problems="401") as page:
        page.get_by_role("dialog", name="Access").press("Escape")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("requires a token")
        alert.get_by_role("button", name="Try again").click()
        enter_token(page, token)
        wait_for(page, "last")


def test_drop_image_into_empty_viewer(model: Any, open_page: OpenPage) -> None:
    with actgrid.view(model, []) as view:
        base, _, token = view.url.partition("?")
        with open_page(f"?{token}", base=base) as page:
            expect(page.locator("#layer .first .note")).to_contain_text("no images yet")
            page.evaluate(
                DISPATCH_TRANSFER,
                ["drop", "lime.png", base64.b64encode(encode_png("lime")).decode()],
            )
            wait_for(page, "conv", get_image_ids(page)[0])
            expect(page.locator("#layer .first .note")).to_be_hidden()
