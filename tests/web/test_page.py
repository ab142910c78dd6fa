"""The page in a browser, against a server that was started as a user would start it."""

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
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from playwright.sync_api import Browser, FrameLocator, Locator, Page, Route, expect

import actgrid
from actgrid.rendering.colormaps import palette

Array = npt.NDArray[Any]
Opened = Callable[..., AbstractContextManager[Page]]

# A convolution, and what is shown at first: its activation, as one card with it.
CONV, STEM, LAST, DENSE = "stem_conv", "stem_relu", "head_relu", "predictions"
CANVAS = "#layer .first canvas"
# The pixels of a rectangle of the canvas, as a PNG file in base64.
PIXELS = """(canvas, {x, y, width, height}) => {
  const copy = Object.assign(document.createElement("canvas"), {width, height});
  copy.getContext("2d").drawImage(canvas, -x, -y);
  return copy.toDataURL("image/png").split(",")[1];
}"""
# Whether a canvas shows what the state says, and that has these parts.
SHOWN = """([canvas, image, shown]) => {
  const state = window.actgrid?.state ?? {};
  const parts = [state.layer, state[image], state.normalize, state.scope];
  return shown.every((part) => parts.includes(part))
    && document.querySelector(canvas).dataset.shown === parts.join("|");
}"""
# An event that carries an image file, as the system makes it for a drop or a paste.
TRANSFER = """([kind, name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos: a cat, the cat upside down, and its negative."""
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
def network() -> Any:
    return actgrid.demo.model()


@pytest.fixture(scope="module")
def activations(network: Any, folder: Path) -> dict[str, Array]:
    """What some layers give for the first photo, computed without the viewer."""
    extractor = actgrid.Extractor(network, [CONV, STEM, LAST, DENSE])
    x = actgrid.load_images(folder / "cat.png", size=(224, 224), preprocess="none")
    return extractor(np.asarray(x, np.float32))


@pytest.fixture(scope="module")
def url(
    network: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory, start_python: Any
) -> Iterator[str]:
    """The address of the demo, served by the command; statistics are of one layer."""
    stats = tmp_path_factory.mktemp("stats") / "stats.npz"
    actgrid.measure_images(network, folder, CONV, top_channels="all").save(stats)
    command = ["-m", "actgrid", "serve", "demo", folder, "--port", 0, "--statistics", stats]
    with start_python(*command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = next(filter(None, (re.search(r"http://\S+/", line) for line in server.stdout)))
        yield found[0]
        server.terminate()


@pytest.fixture(scope="module")
def desk(browser: Browser) -> Iterator[Page]:
    """The page that most tests look at, one after the other, each by a link of its own."""
    page = browser.new_context().new_page()
    yield page
    page.context.close()


@pytest.fixture
def opened(browser: Browser, desk: Page, url: str) -> Opened:
    """Open the page; at the end nothing has gone wrong, and only its server was asked.

    `fresh`: it is loaded anew; as it is with options of a browser's context, too.
    """

    @contextmanager
    def opened(
        link: str = "#",
        base: str = url,
        wrong: str | None = None,
        fresh: bool = False,
        **options: Any,
    ) -> Iterator[Page]:
        width, height = options.pop("size", (1280, 860))
        fresh = fresh or bool(options) or base != url
        page = desk
        if fresh:
            page = options.pop("browser", browser).new_context(**options).new_page()
        page.set_default_timeout(10_000)
        page.set_viewport_size({"width": width, "height": height})
        problems: list[str] = []
        asked: list[str] = []
        listeners: dict[Any, Callable[[Any], None]] = {
            "console": lambda message: problems.append(message.text),
            "pageerror": lambda error: problems.append(str(error)),
            "request": lambda request: asked.append(request.url),
        }
        for event, listener in listeners.items():
            page.on(event, listener)
        page.goto(base + link)
        done = False
        try:
            yield page
            done = True
        finally:
            for event, listener in listeners.items():
                page.remove_listener(event, listener)
            if fresh:
                page.context.close()
            elif not done:
                page.goto("about:blank")
        assert [one for one in problems if wrong is None or not re.search(wrong, one)] == []
        elsewhere = [one for one in asked if not one.startswith((base, "blob:", "data:"))]
        assert elsewhere == []

    return opened


def ids(page: Page) -> list[str]:
    """The ids of the images, in the order of the strip."""
    page.locator(".thumb").first.wait_for()
    return [str(thumb.get_attribute("data-image")) for thumb in page.locator(".thumb").all()]


def wait_for(page: Page, *shown: str, canvas: str = CANVAS) -> None:
    """Wait until what is looked at (this layer, image, normalisation, scope) is on the canvas."""
    image = "compare" if ".second" in canvas else "image"
    page.wait_for_function(SHOWN, arg=[canvas, image, shown], timeout=20_000)


def look(page: Page, link: str) -> None:
    """Follow a link to another view; the page stays."""
    page.goto(page.url.partition("#")[0] + link)


def wait_for_all(page: Page) -> None:
    """Wait until all that a view at first asks for is there: the page asks for no more."""
    expect(page.locator(".thumb img[src]").first).to_be_visible()
    expect(page.locator(".thumb img:not([src])")).to_have_count(0)
    expect(page.locator("#images img.current[src]")).to_be_visible()
    expect(page.locator(".top-classes li")).to_have_count(5)
    page.wait_for_function(
        "[...document.querySelectorAll('.card .thumbnail')].every((one) => one.dataset.shown)"
    )


def state(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("actgrid.state")
    return found


def address(page: Page) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(urlsplit(page.url).fragment).items()}


def tile_pixels(page: Page, channel: int, canvas: str = CANVAS) -> Array:
    """Read a channel's tile as it is on the screen, (height, width, 3) uint8."""
    box = page.locator(canvas).bounding_box()
    rect = page.evaluate("(channel) => actgrid.tileRect(channel)", channel)
    assert box is not None
    place = {"x": round(rect["x"] - box["x"]), "y": round(rect["y"] - box["y"])}
    size = {"width": round(rect["width"]), "height": round(rect["height"])}
    return decoded(page.locator(canvas).evaluate(PIXELS, place | size))


def decoded(text: str) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def choose(page: Page, panel: str, name: str, value: str) -> None:
    page.locator(panel).get_by_label(name, exact=True).select_option(value)


def card(page: Page, name: str) -> Locator:
    return page.locator(".field-of-cards .card").filter(has=page.get_by_text(name, exact=True))


def png(color: str = "teal") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


def saved(page: Page, press: Callable[[], None]) -> Array:
    """Return the picture that a button saves."""
    with page.expect_download() as download:
        press()
    assert download.value.suggested_filename.endswith(".png")
    return np.asarray(Image.open(download.value.path()).convert("RGB"))


def test_the_network_the_image_and_its_classes_are_seen_at_once(opened: Opened) -> None:
    with opened("", fresh=True) as page:
        wait_for(page, STEM)
        expect(page.get_by_role("heading", level=1)).to_have_text("efficientnet_lite0")
        expect(page.locator("#layer h2")).to_have_text(STEM)
        expect(page.locator("#images h2")).to_have_text("cat.png")
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        classes = page.locator(".top-classes li")
        expect(classes).to_have_count(5)
        expect(classes.first).to_contain_text("cat")
        first = page.locator(".field-of-cards .card").first
        expect(first).to_contain_text("Input")
        expect(card(page, STEM)).to_contain_text("112 \u00d7 112 \u00d7 32")
        expect(card(page, STEM)).to_have_class(re.compile("current"))
        # At first nothing is said that goes without saying.
        assert urlsplit(page.url).fragment == ""
        assert page.title() == f"{STEM} · efficientnet_lite0 · actgrid"


def test_every_card_has_a_thumbnail(opened: Opened) -> None:
    many = """(cards) => cards.map((card) => new Set(new Uint32Array(
        card.getContext("2d").getImageData(0, 0, card.width, card.height).data.buffer)).size)"""
    with opened() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        colours = page.locator(".card .thumbnail").evaluate_all(many)
        assert len(colours) > 15
        assert min(colours) > 1


@pytest.fixture
def assert_agrees_enlarged(assert_levels_agree: Any) -> Callable[..., None]:
    """Compare pixels of the page with levels that are enlarged by a whole number."""

    def assert_agree(pixels: Array, levels: Array, cmap: str, zoom: int) -> None:
        small = pixels[::zoom, ::zoom]
        np.testing.assert_array_equal(pixels, small.repeat(zoom, 0).repeat(zoom, 1))
        assert_levels_agree(small, palette(cmap)[levels], palette(cmap))

    return assert_agree


def test_a_drawn_channel_has_the_pixels_of_render(
    opened: Opened, activations: dict[str, Array], assert_agrees_enlarged: Any
) -> None:
    zoom = 1
    with opened() as page:
        for normalize, scope, wanted in [
            ("standard", "channel", "standard"),
            ("minmax", "layer", "minmax"),
            ("symmetric", "channel", "symmetric"),
            ("percentile(2, 98)", "channel", "percentile(2, 98)"),
            ("range(-1, 2.5)", "layer", "range(-1, 2.5)"),
        ]:
            link = f"#cmap=magma&normalize={normalize}&scope={scope}&view=56,56,{zoom}"
            look(page, link)
            wait_for(page, STEM, normalize, scope)
            grid = actgrid.render(activations[STEM], normalize=wanted, scope=scope)
            assert_agrees_enlarged(tile_pixels(page, 0), grid.tile(0), "magma", zoom)
            zoom += 1


@pytest.mark.parametrize("order", ["index", "mean", "std", "max", "zeros"])
def test_the_saved_grid_is_the_picture_of_render(
    opened: Opened, activations: dict[str, Array], order: str, assert_levels_agree: Any
) -> None:
    with opened() as page:
        for layer in (STEM, LAST, DENSE):
            look(page, f"#layer={layer}&order={order}&cmap=inferno")
            wait_for(page, layer)
            picture = saved(page, page.locator("#layer").get_by_text("Save").click)
            if layer == DENSE:  # a unit is a channel of the page
                units = activations[DENSE].reshape(1, 1, 1, -1)
                numbers = actgrid.render(units, order=order).channels
                grid = actgrid.render(activations[DENSE], cmap="inferno", order=numbers)
            else:
                grid = actgrid.render(activations[layer], cmap="inferno", order=order)
            assert_levels_agree(picture, grid.to_rgb(), palette("inferno"))


def test_a_grid_is_never_longer_than_a_canvas_can_be(opened: Opened) -> None:
    with opened() as page:
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


def test_colours_order_and_columns_ask_for_nothing(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        before = tile_pixels(page, 5)
        choose(page, "#layer", "Colours", "gray")
        gray = tile_pixels(page, 5)
        assert (gray[..., 0] == gray[..., 2]).all()
        assert (gray != before).any()
        choose(page, "#layer", "Order by", "mean")
        page.locator("#layer").get_by_label("Columns").fill("2")
        expect(page).to_have_url(re.compile("columns=2"))
        first, third = (page.evaluate("(c) => actgrid.tileRect(c)", c) for c in (0, 1))
        assert first != third
        assert asked == []
        assert address(page) == {"cmap": "gray", "order": "mean", "columns": "2"}


def test_normalisation_and_scope(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM, "standard", "channel")
        choose(page, "#layer", "Scaled by", "layer")
        wait_for(page, STEM, "standard", "layer")
        choose(page, "#layer", "Normalise", "percentile")
        wait_for(page, STEM, "percentile(1, 99)", "layer")
        page.get_by_label("from", exact=True).fill("10")
        page.get_by_label("from", exact=True).press("Enter")
        wait_for(page, STEM, "percentile(10, 99)", "layer")
        page.get_by_label("to", exact=True).fill("5")
        page.get_by_label("to", exact=True).press("Enter")
        expect(page.get_by_label("to", exact=True)).to_have_attribute("aria-invalid", "true")
        choose(page, "#layer", "Normalise", "range")
        shown = re.compile(r"[|]range\(-?[\d.]+, [\d.]+\)[|]layer$")
        expect(page.locator(CANVAS)).to_have_attribute("data-shown", shown)


def test_only_dead_or_only_live_channels(opened: Opened, activations: dict[str, Array]) -> None:
    flat = activations[LAST][0].reshape(-1, activations[LAST].shape[-1])
    dead = np.flatnonzero(flat.min(0) == flat.max(0))
    live = np.flatnonzero(flat.min(0) != flat.max(0))
    rect = "(channel) => actgrid.tileRect(channel)"
    with opened(f"#layer={LAST}") as page:
        wait_for(page, LAST)
        expect(page.locator("#layer header")).to_contain_text(f"{len(dead)} of 1280 dead")
        choose(page, "#layer", "Show", "dead")
        assert page.evaluate(rect, int(live[0])) is None
        assert page.evaluate(rect, int(dead[0]))
        choose(page, "#layer", "Show", "live")
        assert page.evaluate(rect, int(live[0]))
        assert page.evaluate(rect, int(dead[0])) is None
        look(page, "#layer=rescaling&show=dead")
        expect(page.locator("#layer .first .note")).to_contain_text("No dead channels")


def test_pointing_tells_and_a_click_opens_a_channel(
    opened: Opened, activations: dict[str, Array], network: Any
) -> None:
    channel = 6
    values = activations[CONV][0, ..., channel]
    with opened(f"#layer={CONV}") as page:
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
        assert address(page) == {"layer": CONV, "channel": str(channel)}
        expect(panel.locator(".stats").first).to_contain_text(f"{float(f'{values.std():.4g}'):g}")
        expect(panel.locator(".histogram rect:not(.hit)")).to_have_count(32)
        counts = np.histogram(values, 32)[0]
        heights = panel.locator(".histogram rect:not(.hit)").evaluate_all(
            "(bars) => bars.map((bar) => Number(bar.getAttribute('height')))"
        )
        assert int(np.argmax(heights)) == int(np.argmax(counts))
        kernel = panel.locator(".kernel canvas")
        expect(kernel).to_be_visible()
        assert np.unique(canvas_pixels(kernel).reshape(-1, 3), axis=0).shape[0] > 5
        expect(panel.locator(".across").first.locator("button")).to_have_count(3)
        expect(panel).to_contain_text("Across the dataset")
        expect(panel).to_contain_text("Largest values in")


def canvas_pixels(canvas: Locator) -> Array:
    """Read all of a canvas, (height, width, 3) uint8."""
    size = canvas.evaluate("({width, height}) => ({width, height})")
    return decoded(canvas.evaluate(PIXELS, {"x": 0, "y": 0, **size}))


def test_a_large_channel_has_the_pixels_of_render(
    opened: Opened, activations: dict[str, Array], assert_agrees_enlarged: Any
) -> None:
    grid = actgrid.render(activations[STEM])
    with opened("#channel=9") as page:
        tile = page.locator("#channel .figures canvas").first
        expect(tile).to_have_attribute("data-shown", re.compile(f"^{STEM}[|]9[|]"))
        assert_agrees_enlarged(canvas_pixels(tile), grid.tile(9), "viridis", 4)
        over = page.locator("#channel .figures canvas").nth(1)
        before = canvas_pixels(over)
        page.locator("#channel").get_by_label("Map over image").fill("0")
        expect(page).to_have_url(re.compile("blend=0(&|$)"))
        assert (canvas_pixels(over) != before).any()
        picture = saved(page, page.locator("#channel").get_by_text("Save").click)
        assert picture.shape == (520, 968, 3)


def test_other_images_from_a_channel(opened: Opened) -> None:
    with opened("#channel=9") as page:
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
        assert address(page) == {"channel": "9", "image": image}


def test_what_excites_a_channel_on_request(opened: Opened) -> None:
    with opened("#layer=block1_dw_conv&channel=3") as page:
        page.get_by_role("button", name="Compute it").click()
        picture = page.get_by_role("img", name="Image that excites channel 3")
        expect(picture).to_be_visible(timeout=30_000)
        assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") >= 64
        # Statistics of images are of another layer alone.
        expect(page.get_by_text("Across the images")).to_be_visible()
        expect(page.get_by_text("Across the dataset")).to_be_hidden()


def test_groups_open_and_fold(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        cards = page.locator(".field-of-cards .card")
        folded = cards.count()
        page.get_by_role("button", name="Open block2_add", exact=True).click()
        expect(page.locator(".box .head")).to_have_count(1)
        assert address(page) == {"open": "block2_add"}
        expect(page.get_by_role("button", name="Fold block2_add", exact=True)).to_be_focused()
        page.get_by_role("button", name="Open all").click()
        expect(cards).to_have_count(143 + 1)
        assert address(page) == {"open": "*"}
        boxes = cards.evaluate_all(
            "(cards) => cards.map((card) => new DOMMatrix(card.style.transform))"
            ".map(({e, f}) => [e, f])"
        )
        for at, (x, y) in enumerate(boxes):  # none lies on another
            assert all(abs(x - a) >= 232 or abs(y - b) >= 58 for a, b in boxes[at + 1 :])
        page.get_by_role("button", name="Fold all").click()
        expect(cards).to_have_count(folded)
        page.go_back()
        expect(cards).to_have_count(143 + 1)


def test_layers_are_found(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        finder = page.get_by_role("searchbox", name="Find layers")
        finder.fill("block3_dw")
        found = page.locator(".found .card")
        expect(found).to_have_count(3)
        finder.fill("depthwiseconv2d")
        expect(found).to_have_count(16)
        finder.fill("block3_dw_bn")
        finder.press("Enter")
        wait_for(page, "block3_dw_bn")
        expect(finder).to_have_value("")
        expect(card(page, "block3_dw_bn")).to_be_in_viewport()


def test_a_link_opens_the_same_view(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        image = ids(page)[1]
        page.get_by_role("button", name="flipped.png", exact=True).click()
        wait_for(page, STEM, image)
        choose(page, "#layer", "Normalise", "minmax")
        wait_for(page, STEM, "minmax")
        canvas = page.locator(CANVAS)
        canvas.focus()
        page.keyboard.press("+")
        page.mouse.move(640, 500)
        page.mouse.down()
        page.mouse.move(600, 460, steps=3)
        page.mouse.up()
        expect(page).to_have_url(re.compile("view="))
        before, looked = tile_pixels_at(page), state(page)
        page.reload()
        wait_for(page, STEM, image, "minmax")
        assert state(page).keys() == looked.keys()
        np.testing.assert_array_equal(tile_pixels_at(page), before)
        page.go_back()
        wait_for(page, STEM, image, "standard")
        page.go_back()
        wait_for(page, STEM, ids(page)[0])
        page.go_forward()
        wait_for(page, STEM, image)


def tile_pixels_at(page: Page) -> Array:
    """All pixels of the layer's canvas."""
    return canvas_pixels(page.locator(CANVAS))


def test_wheel_and_double_click_magnify_around_the_pointer(opened: Opened) -> None:
    with opened() as page:
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


def test_a_link_that_names_what_is_not_there_falls_back(opened: Opened) -> None:
    link = "#layer=nowhere&image=abc123&normalize=magic&cmap=mud&tab=tea&open=what&columns=0&x=1"
    link += "&compare=../model.json&view=-9,1e9,1e300&order=-1"
    with opened(link, wrong="404|422", fresh=True) as page:
        wait_for(page, STEM)
        told = page.locator("#toasts")
        for part in (
            "layer nowhere",
            "image abc123",
            "magic",
            "mud",
            "tab=tea",
            "what",
            "x=1",
            "../",
        ):
            expect(told).to_contain_text(part)
        expect(page.locator("#images h2")).to_have_text("cat.png")
        assert page.evaluate("actgrid.tileRect(30)")["width"] == 96 * 112  # the largest there is
        page.locator(CANVAS).press("0")
        expect(page).to_have_url(re.compile(r"/$"))


def test_everything_by_keyboard(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(card(page, STEM).locator(".pick")).to_be_focused()
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
        expect(page.locator("#channel .figures canvas").first).to_have_attribute(
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


def test_controls_have_names(opened: Opened) -> None:
    nameless = """(all) => all.filter((one) => !one.labels?.length && !one.textContent.trim()
        && !one.getAttribute("aria-label") && !one.title).map((one) => one.outerHTML)"""
    with opened() as page:
        wait_for(page, STEM)
        for link in ("#", "#channel=2", "#tab=heatmap"):
            look(page, link)
            page.locator("canvas[data-shown]:visible").first.wait_for()
            controls = page.locator("button, select, input, canvas[tabindex]")
            assert controls.evaluate_all(nameless) == []


def test_two_images_side_by_side(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        first, other, *_ = ids(page)
        page.get_by_role("button", name="Compare with flipped.png").click()
        second = "#layer .second canvas"
        wait_for(page, STEM, other, canvas=second)
        wait_for(page, STEM, first)
        assert address(page) == {"compare": other}
        before = canvas_pixels(page.locator(second))
        page.locator(CANVAS).focus()
        page.keyboard.press("+")
        expect(page.locator(".zoom .scale")).to_contain_text("%")
        expect(page).to_have_url(re.compile("view="))
        assert (canvas_pixels(page.locator(second)) != before).any()  # it moved along
        picture = saved(page, page.locator("#layer").get_by_text("Save").click)
        assert picture.shape[1] > 2 * 6 * 112
        # The same channels stand at the same places.
        choose(page, "#layer", "Order by", "max")
        over = "([canvas]) => canvas.getBoundingClientRect().x"
        apart = page.locator(second).evaluate_all(over) - page.locator(CANVAS).evaluate_all(over)
        rect = page.evaluate("actgrid.tileRect(6)")
        for left in (0, apart):
            page.mouse.move(rect["x"] + rect["width"] / 2 + left, rect["y"] + rect["height"] / 2)
            side = ".second" if left else ".first"
            expect(page.locator(f"#layer {side} .tip")).to_contain_text("Channel 6")
        page.get_by_role("button", name="Stop comparing").click()
        expect(page.locator(second)).to_be_hidden()


def test_heatmaps(opened: Opened) -> None:
    with opened("#tab=heatmap") as page:
        panel = page.locator("#heatmap")
        shown = panel.locator(".large canvas")
        expect(shown).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted"), timeout=20_000
        )
        expect(panel.locator("h2")).to_contain_text("cat")
        expect(panel.locator("header")).to_contain_text("logit")
        expect(panel.locator("header")).to_contain_text("layer")
        predicted = canvas_pixels(shown)
        target = panel.get_by_label("Class")
        target.fill("golden retriever")
        target.press("Enter")
        expect(panel.locator("h2")).to_have_text("golden retriever")
        expect(shown).to_have_attribute("data-shown", re.compile("gradcam[|]207"))
        assert (canvas_pixels(shown) != predicted).any()
        choose(page, "#heatmap", "Method", "saliency")
        expect(shown).to_have_attribute("data-shown", re.compile("saliency[|]207"), timeout=20_000)
        choose(page, "#heatmap", "Colours", "magma")
        panel.get_by_label("Map over image").fill("1")
        expect(page).to_have_url(re.compile("alpha=1"))
        picture = saved(page, panel.get_by_text("Save").click)
        assert picture.shape == (224, 224, 3)
        colours = {tuple(colour) for colour in palette("magma").tolist()}
        assert set(map(tuple, picture.reshape(-1, 3).tolist())) <= colours
        options = {"method": "saliency", "target": "207", "colours": "magma", "alpha": "1"}
        assert address(page) == {"tab": "heatmap"} | options
        card(page, "block0_dw_relu").locator(".pick").click()
        wait_for(page, "block0_dw_relu")


def test_a_mistyped_class_is_told_with_names_that_are_close(opened: Opened) -> None:
    with opened("#tab=heatmap", wrong="422", fresh=True) as page:
        panel = page.locator("#heatmap")
        shown = panel.locator(".large canvas")
        predicted = re.compile("gradcam[|]predicted")
        expect(shown).to_have_attribute("data-shown", predicted, timeout=20_000)
        target = panel.get_by_label("Class")
        problem = panel.get_by_role("alert")
        for typed, words in [
            ("golden retriver", "No class is called 'golden retriver' (did you mean golden retrie"),
            ("crane", "2 classes are called 'crane': give an index, 134 or 517"),
            ("1000", "There is no class 1000: the model has 1000, 0 to 999"),
            ("207 golden", "No class is called '207 golden'"),
        ]:
            target.fill(typed)
            target.press("Enter")
            expect(problem).to_contain_text(words)
            expect(target).to_have_attribute("aria-invalid", "true")
            assert address(page) == {"tab": "heatmap"}
        expect(shown).to_have_attribute("data-shown", predicted)  # which stays as it was
        target.fill("207 golden retriever")
        target.press("Enter")
        expect(problem).to_have_count(0)
        expect(panel.locator("h2")).to_have_text("golden retriever")
        assert address(page) == {"tab": "heatmap", "target": "207"}


# Whether nobody computes what a resource tells the progress of.
NOT_COMPUTED = """async (place) => {
  const { state } = await (await fetch(place)).json();
  return state === "none";
}"""


def test_a_long_computation_shows_progress_and_is_cancelled(opened: Opened, url: str) -> None:
    with opened("#tab=heatmap&method=rise", fresh=True) as page:
        panel = page.locator("#heatmap")
        place = f"{url}api/images/{ids(page)[0]}/heatmaps/rise/predicted/progress.json"
        progress = panel.locator(".progress")
        expect(progress).to_contain_text(re.compile(r"\d+\.\d% \(\d+ of 2,000\)"), timeout=30_000)
        report = httpx.get(place).json()
        assert (report["state"], report["total"]) == ("running", 2000)
        # Another tab gets a quick heatmap meanwhile.
        image = ids(page)[1]
        quick = httpx.get(f"{url}api/images/{image}/heatmaps/gradcam/3.json", timeout=60)
        assert quick.status_code == 200
        assert httpx.get(place).json()["state"] == "running"
        progress.get_by_role("button", name="Cancel").click()
        expect(panel.locator(".note")).to_contain_text("The computation was cancelled.")
        expect(progress).to_be_hidden()
        page.wait_for_function(
            NOT_COMPUTED,
            arg=place,
        )
        # It stays so while other things are changed, until it is wanted again.
        choose(page, "#heatmap", "Colours", "magma")
        expect(panel.locator(".note")).to_be_visible()
        assert httpx.get(place).json()["state"] == "none"
        panel.get_by_role("button", name="Compute").click()
        expect(progress).to_contain_text("of 2,000", timeout=30_000)
        choose(page, "#heatmap", "Method", "gradcam")
        expect(panel.locator(".large canvas")).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted"), timeout=30_000
        )
        expect(progress).to_be_hidden()


def test_maximising_shows_progress_and_is_cancelled(opened: Opened, url: str) -> None:
    place = re.compile(r"/channels/7/maximized/progress\.json")
    with opened(f"#layer={LAST}&channel=7", fresh=True) as page:
        part = page.locator("#channel .part").filter(has_text="Image that excites it most")
        part.get_by_role("button", name="Compute it").click()
        with page.expect_response(place, timeout=30_000) as polled:
            expect(part.locator(".progress")).to_contain_text(
                re.compile(r"% \(\d+ of 64\)"), timeout=60_000
            )
        part.get_by_role("button", name="Cancel").click()
        expect(part.get_by_role("button", name="Compute it")).to_be_visible()
        page.wait_for_function(
            NOT_COMPUTED,
            arg=polled.value.url,
        )


def test_an_uploaded_image_is_removed_and_no_other(opened: Opened, url: str) -> None:
    with opened(fresh=True) as page:
        wait_for(page, STEM)
        given = set(ids(page))
        before = len(given)
        for color in ("maroon", "orchid"):
            page.locator("input[type=file]").set_input_files(
                {"name": f"{color}.png", "mimeType": "image/png", "buffer": png(color)}
            )
            expect(page.locator("#images h2")).to_have_text(f"{color}.png")
        expect(page.locator("#images")).to_contain_text(f"{before + 2} images")
        first = str(state(page)["image"])
        wait_for(page, STEM, first)
        # One that is looked at, and one that is not.
        page.get_by_role("button", name="Remove orchid.png", exact=True).click()
        expect(page.locator("#images h2")).not_to_have_text("orchid.png")
        wait_for(page, STEM, str(state(page)["image"]))
        assert state(page)["image"] != first
        page.get_by_role("button", name="cat.png", exact=True).click()
        page.get_by_role("button", name="Compare with maroon.png", exact=True).click()
        wait_for(page, STEM, canvas="#layer .second canvas")
        page.get_by_role("button", name="Remove maroon.png", exact=True).click()
        expect(page.locator("#layer .second")).to_be_hidden()
        expect(page.locator("#images h2")).to_have_text("cat.png")
        expect(page.locator("#images")).to_contain_text(f"{before} images")
        assert set(ids(page)) == given
        assert httpx.get(f"{url}api/images/{first}/picture.png").status_code == 404
        for name in ("cat.png", "flipped.png", "negative.png"):
            expect(page.get_by_role("button", name=f"Remove {name}")).to_have_count(0)
        page.reload()
        wait_for(page, STEM)
        assert set(ids(page)) == given


# An event that carries a file of so many zeros.
DROP_ZEROS = """(size) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(size)], `${size}.png`));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


def test_the_limits_of_uploads_are_told_before(opened: Opened) -> None:
    with opened(wrong="422", fresh=True) as page:
        expect(page.locator(".upload")).to_contain_text(
            "PNG, JPEG, WebP, GIF or BMP of at most 32 MiB and 50,000,000 pixels"
        )
        wait_for(page, STEM)
        toast = page.locator(".toast.error")
        page.evaluate(DROP_ZEROS, 2**25 + 1)  # is not even sent
        expect(toast).to_contain_text(
            "33554433.png has 33,554,433 bytes; the limit is 33,554,432 (32 MiB)."
        )
        page.evaluate(DROP_ZEROS, 2**25)
        expect(toast.last).to_contain_text("33554432.png: the image is no PNG, JPEG")


def test_percentages_have_one_format(opened: Opened) -> None:
    with opened() as page:
        texts = page.evaluate("""async () => {
          const { percent } = await import(new URL("dom.js", document.baseURI));
          return [0, 0.0001, 0.0005, 0.05, 0.12345, 0.99949, 0.9996, 1, 15, null].map(percent);
        }""")
        assert texts == [
            *("0.0%", "<0.1%", "0.1%", "5.0%", "12.3%", "99.9%", ">99.9%", "100.0%", "1500.0%"),
            "\u2013",
        ]
        wait_for(page, STEM)
        wait_for_all(page)
        look(page, "#channel=3")
        page.locator("#channel .stats dd").first.wait_for()
        page.locator("#channel").get_by_label("Statistic").select_option("zero_fraction")
        expect(page.locator("#channel .across .value").first).to_contain_text("%")
        text = page.locator("body").inner_text()
        found = re.findall(r"[\d.]+%", text)
        assert len(found) >= 8
        assert all(re.fullmatch(r"\d+\.\d%", percentage) for percentage in found), found


def test_a_card_is_the_layer_that_it_opens(opened: Opened) -> None:
    with opened(size=(1280, 900)) as page:
        wait_for(page, STEM)
        wait_for_all(page)
        expect(card(page, STEM)).to_have_class(re.compile("current"))
        cards = page.locator(".field-of-cards .card .pick:enabled")
        paths = cards.evaluate_all("(all) => all.map((one) => one.dataset.path)")
        assert STEM in paths
        assert CONV not in paths
        for path in paths:
            pick = page.locator(f'.field-of-cards .pick[data-path="{path}"]')
            pick.click()
            wait_for(page, path)
            expect(page.locator("#layer h2")).to_have_text(path)
            assert pick.locator("b").inner_text() == path.rsplit("/", 1)[-1]
            heading = page.locator("#layer header").inner_text()
            in_pane = re.search(r"(\d+) of \d+ dead", heading)
            on_card = re.search(r"(\d+) dead", pick.inner_text())
            assert (in_pane and in_pane[1]) == (on_card and on_card[1]), path


def test_a_folded_card_is_the_layer_inside_that_is_looked_at(opened: Opened) -> None:
    with opened(f"#layer={CONV}", fresh=True) as page:
        wait_for(page, CONV)
        wait_for_all(page)
        current = page.locator(".card.current")
        expect(current.locator("b")).to_have_text(CONV)
        expect(current).to_contain_text("1 dead")
        expect(page.locator("#layer header")).to_contain_text("1 of 32 dead")
        card(page, "block0_dw_relu").locator(".pick").click()
        wait_for(page, "block0_dw_relu")
        expect(card(page, STEM)).to_have_count(1)
        expect(card(page, CONV)).to_have_count(0)
        page.go_back()
        wait_for(page, CONV)
        expect(current.locator("b")).to_have_text(CONV)


# Controls that are not wholly in the window, or whose text does not fit.
CUT_OFF = """() => [...document.querySelectorAll("button, select, input, summary, a, progress")]
  .filter((one) => one.checkVisibility() && !one.matches(".unseen") && !one.closest(".scroller"))
  .filter((one) => {
    const { left, right, top, bottom } = one.getBoundingClientRect();
    const context = document.createElement("canvas").getContext("2d");
    const style = getComputedStyle(one);
    context.font = style.font;
    const texts = one.matches("select") ? [...one.options].slice(0, 20).map(({ text }) => text)
      : [one.value && one.type !== "range" ? String(one.value) : one.placeholder ?? ""];
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const sign = one.matches("select") ? 20 : one.type === "search" ? 20 : 0;
    const room = one.clientWidth - padding - sign;
    const wide = one.matches("select, input") && !one.matches("[aria-label=Layer]")
      && Math.max(...texts.map((text) => context.measureText(text).width)) > room;
    const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    return left < 0 || right > innerWidth || top < 0 || bottom > innerHeight || wide
      || !(one.contains(hit) || hit?.closest("label")?.contains(one))
      || one.matches("button") && one.scrollWidth > one.clientWidth;
  }).map((one) => `${one.ariaLabel ?? one.textContent}: ${one.clientWidth}`)"""


@pytest.mark.parametrize(
    "link",
    [
        *("#", "#normalize=range(-0.5, 6)", "#channel=3", "#channel=3&layer=stem_conv"),
        *("#tab=heatmap", "#tab=heatmap&method=integrated_gradients&target=207"),
        *("#pane=graph", "#pane=graph&open=*", "#pane=images"),
    ],
)
def test_no_control_is_cut_off_on_a_phone(opened: Opened, link: str) -> None:
    with opened(link, size=(360, 740)) as page:
        page.locator("#images .thumb").first.wait_for(state="attached")
        if "graph" not in link and "images" not in link:
            page.locator("canvas[data-shown]:visible").first.wait_for(timeout=30_000)
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        for scroller in page.locator(".scroller:visible").all():
            sideways = "(one) => one.scrollWidth > one.clientWidth"
            assert "open=*" in link or not scroller.evaluate(sideways)
        if link == "#":
            page.locator("#layer .first canvas").wait_for()
            expect(page.locator("#layer").get_by_label("Columns")).to_be_in_viewport(ratio=1)


def test_an_image_is_uploaded(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        page.locator("input[type=file]").set_input_files(
            {"name": "red.png", "mimeType": "image/png", "buffer": png("red")}
        )
        expect(page.locator("#images h2")).to_have_text("red.png")
        wait_for(page, STEM, str(state(page)["image"]))
        expect(page.locator(".thumb").first).to_have_attribute(
            "data-image", str(state(page)["image"])
        )


@pytest.mark.parametrize(("kind", "color"), [("paste", "navy"), ("drop", "olive")])
def test_an_image_is_pasted_or_dropped(opened: Opened, kind: str, color: str) -> None:
    with opened() as page:
        wait_for(page, STEM)
        file = [f"{color}.png", base64.b64encode(png(color)).decode()]
        if kind == "drop":
            page.evaluate(TRANSFER, ["dragenter", *file])
            expect(page.locator("body")).to_have_class(re.compile("dropping"))
        page.evaluate(TRANSFER, [kind, *file])
        expect(page.locator("#images h2")).to_have_text(f"{color}.png")
        expect(page.locator("body")).not_to_have_class(re.compile("dropping"))
        wait_for(page, STEM, str(state(page)["image"]))


def test_what_is_no_image_is_refused_with_the_reason(opened: Opened) -> None:
    with opened(wrong="422") as page:
        wait_for(page, STEM)
        page.locator("input[type=file]").set_input_files(
            {"name": "note.png", "mimeType": "image/png", "buffer": b"no picture"}
        )
        expect(page.locator(".toast.error")).to_contain_text("note.png")
        expect(page.locator("#images h2")).to_have_text("cat.png")


def test_the_webcam_takes_an_image(browser: Browser, opened: Opened) -> None:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    filming = browser.browser_type.launch(executable_path=found, args=["--no-sandbox", *fake])
    with opened(browser=filming) as page:
        wait_for(page, STEM)
        page.get_by_role("button", name="Webcam").click()
        dialog = page.get_by_role("dialog", name="Webcam")
        dialog.get_by_role("button", name="Take picture").click()
        expect(page.locator("#images h2")).to_have_text("webcam.jpg")
        expect(dialog).to_have_count(0)
        wait_for(page, STEM, str(state(page)["image"]))
    filming.close()


def test_at_the_width_of_a_phone(opened: Opened) -> None:
    panes = {"graph": "Network", "view": "View", "images": "Images"}
    with opened("#open=block2_add", size=(360, 740)) as page:
        for pane, name in panes.items():
            page.get_by_role("button", name=name, exact=True).click()
            expect(page.locator(f"#{pane}")).to_be_visible()
            for other in panes.keys() - {pane}:
                expect(page.locator(f"#{other}")).to_be_hidden()
            assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.get_by_role("button", name="Network", exact=True).click()
        card(page, STEM).locator(".pick").click()
        wait_for(page, "stem_relu")
        box = page.locator(CANVAS).bounding_box()
        assert box is not None
        assert box["width"] == 360
        assert box["height"] > 300
        expect(page.get_by_role("button", name="Larger")).to_be_in_viewport()


def test_two_fingers_magnify_and_one_moves(opened: Opened) -> None:
    with opened(size=(414, 896), has_touch=True) as page:
        wait_for(page, STEM)
        before = page.evaluate("actgrid.tileRect(9)")
        touch = page.context.new_cdp_session(page)

        def fingers(kind: str, *points: tuple[float, float]) -> None:
            there = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": there})

        fingers("touchStart", (160, 450))
        fingers("touchStart", (160, 450), (240, 450))
        for far in (20, 40):
            fingers("touchMove", (160 - far, 450), (240 + far, 450))
        fingers("touchEnd")
        page.wait_for_function("(wide) => actgrid.tileRect(9).width > wide", arg=before["width"])
        wide = page.evaluate("actgrid.tileRect(9)")
        assert wide["width"] == pytest.approx(2 * before["width"], rel=0.01)
        fingers("touchStart", (200, 450))
        for down in (20, 60):
            fingers("touchMove", (200, 450 + down))
        fingers("touchEnd")
        page.wait_for_function("(top) => actgrid.tileRect(9).y >= top", arg=wide["y"] + 59)
        assert page.evaluate("actgrid.tileRect(9)")["width"] == wide["width"]
        expect(page.locator("#channel")).to_be_hidden()


def test_of_many_clicks_the_last_one_counts(opened: Opened) -> None:
    click = """(cards) => cards.filter((one) => !one.disabled).map((one) => {
        one.click();
        return one.dataset.path;
    })"""
    with opened("#open=*") as page:
        wait_for(page, STEM)
        broken: list[str] = []
        page.on("requestfailed", lambda request: broken.append(request.url))
        paths = page.locator(".field-of-cards .pick").evaluate_all(click)
        assert len(paths) == 143
        wait_for(page, paths[-1])
        assert len(broken) > 100
        expect(page.locator("#layer h2")).to_have_text(paths[-1])


def test_light_and_dark(opened: Opened) -> None:
    background = "getComputedStyle(document.body).backgroundColor"

    def brightness(page: Page) -> float:
        return float(np.mean([int(part) for part in re.findall(r"\d+", page.evaluate(background))]))

    with opened(color_scheme="dark") as page:
        assert brightness(page) < 60
        page.get_by_role("button", name="Colours of the page: auto").click()
        assert brightness(page) > 200
        page.reload()
        assert brightness(page) > 200
    with opened(color_scheme="light") as page:
        assert brightness(page) > 200


def test_errors_say_what_the_server_said(opened: Opened) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=422, json={"detail": "the model does not like it"})

    with opened(wrong="422") as page:
        wait_for(page, STEM)
        page.route("**/layers/*/minmax/*.png", refuse)
        choose(page, "#layer", "Normalise", "minmax")
        note = page.locator("#layer .first .note")
        expect(note).to_contain_text("the model does not like it")
        page.unroute("**/layers/*/minmax/*.png")
        note.get_by_role("button", name="Try again").click()
        wait_for(page, STEM, "minmax")


def test_a_lost_server_can_be_tried_again(opened: Opened) -> None:
    with opened(wrong="ERR_FAILED", fresh=True) as page:
        wait_for(page, STEM)
        page.route("**/api/**", lambda route: route.abort())
        card(page, "block0_dw_relu").locator(".pick").click()
        banner = page.get_by_role("alert")
        expect(banner).to_contain_text("does not answer")
        page.unroute("**/api/**")
        banner.get_by_role("button", name="Try again").click()
        wait_for(page, "block0_dw_relu")
        expect(banner).to_be_hidden()


def test_a_picture_of_the_network(opened: Opened) -> None:
    with opened() as page:
        wait_for(page, STEM)
        wait_for_all(page)
        picture = saved(page, page.locator("#graph").get_by_text("Save").click)
        assert picture.shape[0] > 5 * picture.shape[1] > 2000
        assert len(np.unique(picture.astype(int) @ (1, 256, 65536))) > 200


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder by Python's own web server; yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


# A normalization whose text is escaped in addresses.
PERCENTILE = "percentile(5, 95)"


@pytest.fixture(scope="module")
def site(model: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An export of a small model behind a plain web server, below a path."""
    folder = tmp_path_factory.mktemp("web")
    options: dict[str, Any] = {"normalize": ["minmax", PERCENTILE], "method": "gradcam"}
    with ThreadPoolExecutor() as elsewhere:  # the browser's event loop runs in this thread
        elsewhere.submit(
            actgrid.export_site, model, photos, output=folder / "some/where", **options
        ).result()

    with web_server(folder) as address:
        yield f"{address}some/where/"


WORDS = "python -m http.server --directory"


@pytest.mark.parametrize("scripts", [True, False])
def test_an_export_opened_as_a_file_says_what_serves_it(
    model: Any, photos: Path, tmp_path: Path, browser: Browser, scripts: bool
) -> None:
    with ThreadPoolExecutor() as elsewhere:
        place = elsewhere.submit(
            actgrid.export_site, model, photos / "photo0.png", "conv", output=tmp_path
        ).result()
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto((place / "index.html").as_uri())
    expect(page.get_by_text(WORDS)).to_be_visible()
    expect(page.get_by_text("only from a web server, not from a file")).to_be_visible()
    context.close()


def test_a_served_page_does_not_say_what_serves_it(opened: Opened) -> None:
    with opened(fresh=True) as page:
        wait_for(page, STEM)
        expect(page.get_by_text(WORDS)).to_have_count(0)


def test_an_export_on_any_web_server(site: str, opened: Opened) -> None:
    with opened(base=site) as page:
        wait_for(page, "conv", "minmax")
        assert address(page) == {}
        options = page.locator("#layer").get_by_label("Normalise").locator("option")
        expect(options).to_have_text(["minmax", PERCENTILE])
        expect(page.get_by_text("Add images")).to_have_count(0)
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        choose(page, "#layer", "Normalise", PERCENTILE)
        wait_for(page, "conv", PERCENTILE)
        assert address(page) == {"normalize": PERCENTILE}
        page.get_by_role("button", name="photo1.png", exact=True).click()
        wait_for(page, "conv", ids(page)[1], PERCENTILE)
        page.locator("#tab-heatmap").click()
        expect(page.locator("#heatmap .large canvas")).to_have_attribute(
            "data-shown", re.compile("gradcam[|]predicted")
        )
        expect(page.locator("#heatmap").get_by_label("Class", exact=True)).to_have_count(0)
        page.goto(f"{site}#layer=last&channel=2")
        expect(page.locator("#channel .across button")).to_have_count(3)
        expect(page.get_by_text("Compute it")).to_be_hidden()


def test_a_token_of_the_address_is_given_to_the_server(
    model: Any, photos: Path, opened: Opened
) -> None:
    with actgrid.view(model, photos, labels=["cat", "dog", "bird"]) as view:
        base, _, token = view.url.partition("?")
        with opened(f"?{token}", base=base) as page:
            wait_for(page, "conv")
            expect(page.locator(".thumb img[src]")).to_have_count(3)
            labels = page.locator(".top-classes .label")
            assert set(labels.all_inner_texts()) == {"cat", "dog", "bird"}


@pytest.fixture(scope="module")
def guarded(model: Any, photos: Path) -> Iterator[tuple[str, str]]:
    """The address of a viewer without its token, and the token."""
    with actgrid.view(model, photos, labels=["cat", "dog", "bird"]) as view:
        base, _, token = view.url.partition("?token=")
        yield base, token


def type_token(page: Page | FrameLocator, token: str) -> None:
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Open", exact=True).click()


@pytest.mark.parametrize("given", ["", "?token=wrong"])
def test_a_token_that_is_missing_or_wrong_is_asked_for(
    guarded: tuple[str, str], opened: Opened, given: str
) -> None:
    base, token = guarded
    link = "#layer=last&order=mean"
    with opened(given + link, base=base, wrong="401") as page:
        dialog = page.get_by_role("dialog", name="Access")
        expect(dialog).to_contain_text("printed where the server was started")
        problem = dialog.locator(".error")
        expect(problem).to_have_text("The token of this page is wrong." if given else "")
        type_token(page, "guess")
        expect(problem).to_have_text("This token is wrong.")
        type_token(page, "schl\u00fcssel")
        expect(problem).to_contain_text("no spaces or accents")
        dialog.get_by_label("Token").fill(token)
        dialog.get_by_label("Token").press("Enter")
        expect(dialog).to_have_count(0)
        # All that was asked for meanwhile comes, and the view is that of the link.
        wait_for(page, "last")
        expect(page.locator(".thumb img[src]")).to_have_count(3)
        assert state(page)["order"] == "mean"
        page.locator("#layer").get_by_label("Columns").fill("2")
        expect(page).to_have_url(f"{base}{link}&columns=2")
        page.reload()
        wait_for(page, "last")
        page.go_back()
        assert token not in page.url


def test_a_whole_address_is_taken_for_its_token(guarded: tuple[str, str], opened: Opened) -> None:
    base, token = guarded
    with opened("", base=base, wrong="401") as page:
        type_token(page, f" {base}?token={token}#tab=heatmap ")
        wait_for(page, "conv")


def test_a_token_that_becomes_wrong_is_asked_for_again(model: Any, opened: Opened) -> None:
    photo = actgrid.demo.photo()
    with actgrid.view(model, photo) as view:
        base, _, token = view.url.partition("?token=")
        with opened(f"?token={token}", base=base, wrong="401") as page:
            wait_for(page, "conv")
            # As after a restart of the server with another token.
            app: Any = view._server.config.app
            app.user_middleware[0].kwargs["token"] = "other"
            app.middleware_stack = None
            choose(page, "#layer", "Normalise", "minmax")
            expect(page.get_by_role("dialog", name="Access")).to_contain_text("is wrong")
            type_token(page, "other")
            wait_for(page, "conv", "minmax")
            assert token not in page.url


def test_a_token_is_typed_in_the_frame_of_a_notebook(
    guarded: tuple[str, str], browser: Browser, tmp_path: Path
) -> None:
    base, token = guarded
    sandbox = "allow-scripts allow-same-origin"  # without forms, as some notebooks have it
    cell = f'<iframe src="{base}" width="900" height="700" sandbox="{sandbox}"></iframe>'
    (tmp_path / "index.html").write_text(cell)
    page = browser.new_page()
    with web_server(tmp_path) as notebook:
        page.goto(notebook)
    frame = page.frame_locator("iframe")
    type_token(frame, token)
    expect(frame.locator("#layer .first canvas[data-shown]")).to_be_visible()
    expect(frame.get_by_role("dialog")).to_have_count(0)
    page.close()


def test_a_closed_token_form_can_be_opened_again(guarded: tuple[str, str], opened: Opened) -> None:
    base, token = guarded
    with opened("#layer=last", base=base, wrong="401") as page:
        page.get_by_role("dialog", name="Access").press("Escape")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("asks for a token")
        alert.get_by_role("button", name="Try again").click()
        type_token(page, token)
        wait_for(page, "last")


def test_without_images_one_is_dropped(model: Any, opened: Opened) -> None:
    with actgrid.view(model, []) as view:
        base, _, token = view.url.partition("?")
        with opened(f"?{token}", base=base) as page:
            expect(page.locator("#layer .first .note")).to_contain_text("no images yet")
            page.evaluate(TRANSFER, ["drop", "lime.png", base64.b64encode(png("lime")).decode()])
            wait_for(page, "conv", ids(page)[0])
            expect(page.locator("#layer .first .note")).to_be_hidden()
