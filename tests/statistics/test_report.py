from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, Page

from actgrid.errors import OptionError, OutputError
from actgrid.models import LayerInfo
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats
from actgrid.statistics.report import make_report, save_report
from actgrid.statistics.top_images import find_top_images

Array = npt.NDArray[Any]
Opened = Callable[[Path], AbstractContextManager[Page]]

NASTY = "</script><img src=x onerror='document.title=1'>&\"<b>"
IMAGES = [f"{NASTY}/{index}.jpg" for index in range(20)]
COUNTS = {"conv": 120, NASTY: 5, "dense": 7}


def make_infos() -> dict[str, LayerInfo]:
    def make_info(path: str, *shape: int) -> LayerInfo:
        return LayerInfo(path, "Conv2D", (None, *shape), "float32", "channels_last", 9, 0)

    return {
        "conv": make_info("conv", 6, 6, COUNTS["conv"]),
        NASTY: make_info(NASTY, 3, 3, COUNTS[NASTY]),
        "dense": make_info("dense", COUNTS["dense"]),
    }


def make_activations(count: int = 20) -> dict[str, Array]:
    """Return activations with dead, nearly dead and non-finite channels."""
    rng = np.random.default_rng(4)
    conv = rng.gamma(1, 1, (count, 6, 6, COUNTS["conv"])).astype(np.float32)
    conv *= rng.gamma(2, 1, COUNTS["conv"]).astype(np.float32)
    conv[..., [3, 50, 119]] = 0
    conv[..., 7] = -np.abs(conv[..., 7])
    conv[..., 9] = np.nan
    other = rng.standard_normal((count, 3, 3, COUNTS[NASTY])).astype(np.float32)
    dense = rng.standard_normal((count, COUNTS["dense"])).astype(np.float32)
    dense[:, 2] = 5
    return {"conv": conv, NASTY: other, "dense": dense}


def measure() -> DatasetStats:
    stats = DatasetStats(top=3)
    stats.update(make_activations(), make_infos(), IMAGES)
    return stats


class FixedExtractor:
    """An extractor of given activations: its input selects the images."""

    layers = make_infos()

    def __call__(self, x: Array) -> dict[str, Array]:
        return {path: values[x[:, 0]] for path, values in make_activations().items()}


def load(index: int) -> tuple[Array, Array]:
    pixels = np.random.default_rng(index).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    return pixels, np.array([[index]])


def draw_pictures(stats: DatasetStats, **options: Any) -> Any:
    extractor: Any = FixedExtractor()
    return find_top_images(extractor, stats, load, {}, channels=4, cell=32, **options)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stats = measure()
    path = tmp_path_factory.mktemp("report") / "report.html"
    save_report(path, stats, model=NASTY, about=NASTY, top_images=draw_pictures(stats))
    return path


@pytest.fixture
def page(opened: Opened, report: Path) -> Iterator[Page]:
    with opened(report) as page:
        yield page


def read_texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def choose(page: Page, layer: int | str) -> None:
    page.click(f"tr[data-layer='{layer}'] button")


def read_channels(page: Page, column: int = 1) -> list[int]:
    return [int(text) for text in read_texts(page, f"#channels tr.channel td:nth-child({column})")]


def read_all_channels(page: Page) -> list[int]:
    """Return the channels on all pages of the table."""
    found = read_channels(page)
    while page.is_enabled("#next"):
        page.click("#next")
        found += read_channels(page)
    return found


def test_layers_and_counts(page: Page) -> None:
    stats = measure()
    known = list(stats.layers.values())
    rows = [read_texts(page, f"tr[data-layer='{at}'] td") for at in ("all", *range(len(known)))]
    totals = [
        sum(counts)
        for counts in zip(
            *(
                (layer.count.size, layer.dead.sum(), layer.find_nearly_dead().sum())
                for layer in known
            ),
            strict=True,
        )
    ]
    assert rows[0] == ["all layers", *(str(count) for count in totals)]
    for row, layer in zip(rows[1:], known, strict=True):
        assert row[0] == layer.info.path
        counts = layer.count.size, layer.dead.sum(), layer.find_nearly_dead().sum()
        assert row[1:] == [str(count) for count in counts]
    assert totals == [132, 4, 2]
    assert read_texts(page, "#cards b") == ["20", "3", "132", "4", "2"]


def test_names_are_escaped(page: Page) -> None:
    assert page.inner_text("#title") == f"{NASTY}: channels over 20 images"
    assert page.title() == f"{NASTY}: channels over 20 images"
    assert page.inner_text("#about") == NASTY
    choose(page, 1)
    assert page.inner_text("#layer") == NASTY
    assert page.locator("b").count() == 5  # only those in the cards
    assert page.locator("img:not([src^='data:'])").count() == 0


STATISTICS = ["mean", "std", "min", "max", "zeros", "activatingImages", "nonfinite"]


def compute_expected_order(layer: LayerStats, statistic: str, descending: bool) -> list[int]:
    names = {"zeros": "zero_fraction", "activatingImages": "activating_images"}
    values = getattr(layer, names.get(statistic, statistic)).astype(np.float32)
    order = np.argsort(-values if descending else values, kind="stable")  # NaN is sorted last
    return [int(channel) for channel in order]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_clicking_a_heading_sorts(page: Page, statistic: str) -> None:
    layer = measure().layers["conv"]
    choose(page, 0)
    assert read_all_channels(page) == list(range(120))
    heading = f"[data-key={statistic}]"
    page.click(heading)
    assert page.get_attribute(f"th:has({heading})", "aria-sort") == "descending"
    assert read_all_channels(page) == compute_expected_order(layer, statistic, True)
    page.click(heading)
    assert page.get_attribute(f"th:has({heading})", "aria-sort") == "ascending"
    assert page.locator("th[aria-sort]").count() == 1
    assert read_all_channels(page) == compute_expected_order(layer, statistic, False)
    page.click("[data-key=channel]")
    assert read_all_channels(page) == list(range(120))


def test_keyboard_sorts_and_selects(page: Page) -> None:
    page.focus("tr[data-layer='2'] button")
    page.keyboard.press("Enter")
    assert page.inner_text("#layer") == "dense"
    page.focus("[data-key=max]")
    page.keyboard.press("Space")
    assert read_channels(page) == compute_expected_order(measure().layers["dense"], "max", True)
    page.keyboard.press("Space")  # the heading keeps the focus
    assert read_channels(page) == compute_expected_order(measure().layers["dense"], "max", False)


def test_all_layers_are_sorted_together(page: Page) -> None:
    stats = measure()
    page.click("[data-key=mean]")
    found = list(
        zip(
            read_texts(page, "#channels td:nth-child(1)"),
            read_channels(page, 2),
            strict=True,
        )
    )
    every = [
        (-float(np.float32(mean)), at, path, channel)
        for at, (path, layer) in enumerate(stats.layers.items())
        for channel, mean in enumerate(layer.mean)
        if np.isfinite(mean)
    ]
    assert found == [(path, channel) for _, _, path, channel in sorted(every)[:50]]
    assert page.inner_text("#page") == "1 to 50 of 132"


def test_filter_of_dead_channels(page: Page) -> None:
    choose(page, 0)
    page.select_option("#state", "2")
    assert read_channels(page) == [3, 50, 119]
    assert read_texts(page, ".tag") == ["dead"] * 3
    page.select_option("#state", "1")
    assert read_channels(page) == [7, 9]
    page.select_option("#state", "0")
    assert page.inner_text("#page") == "1 to 50 of 115"


def read_bars(page: Page) -> list[int]:
    return [
        int(layer.get_attribute("data-count") or "")
        for layer in page.locator("#histogram g.bin").all()
    ]


@pytest.mark.parametrize("statistic", ["mean", "std", "min", "max", "zeros", "activatingImages"])
def test_the_histogram(page: Page, statistic: str) -> None:
    stats = measure()
    choose(page, 0)
    page.select_option("#statistic", statistic)
    layer = stats.layers["conv"]
    values = {
        "zeros": layer.zero_fraction,
        "activatingImages": layer.activating_images / layer.images,
    }.get(statistic, getattr(layer, statistic, None))
    assert values is not None
    values = values.astype(np.float32).astype(np.float64)
    values = values[np.isfinite(values)]
    limits = (
        (0.0, 1.0) if statistic in ("zeros", "activatingImages") else (values.min(), values.max())
    )
    assert read_bars(page) == np.histogram(values, 48, limits)[0].tolist()
    missing = layer.count.size - values.size
    assert page.inner_text("#left-out") == (
        f"{missing} channels without a finite value are omitted" if missing else ""
    )


def test_another_layer_or_statistic_changes_the_histogram(page: Page) -> None:
    seen = []
    for layer in ("all", 0, 1, 2):
        choose(page, layer)
        for statistic in ("mean", "std"):
            page.select_option("#statistic", statistic)
            seen.append(page.inner_html("#histogram"))
    assert len(set(seen)) == len(seen)
    assert sum(read_bars(page)) == 7


def test_pictures_are_shown(page: Page) -> None:
    stats = measure()
    tops = draw_pictures(stats)
    for at, (path, top) in enumerate(tops.items()):
        choose(page, at)
        strips = page.locator("#pictures .strip")
        assert strips.count() == 4
        shown = [int(strip.get_attribute("data-channel") or "") for strip in strips.all()]
        assert shown == top.channels.tolist()
        images = page.locator("#pictures img")
        assert images.count() == 16
        widths = images.evaluate_all(
            "images => Promise.all(images.map(async (image) =>"
            " { image.loading = 'eager'; await image.decode(); return image.naturalWidth; }))"
        )
        assert widths == [4 * 32] * 16
        names = [image.name for image in top.images[0]]
        titles = [item.get_attribute("title") for item in strips.first.locator("li").all()[1:]]
        assert [str(title).rsplit(": ", 1)[0] for title in titles] == names
        assert path in stats.layers


def test_the_names_of_a_channels_top_images_are_shown(page: Page) -> None:
    stats = measure()
    tops = draw_pictures(stats)
    choose(page, 0)
    drawn = set(tops["conv"].channels.tolist())
    plain = next(channel for channel in range(120) if channel not in drawn | {3, 7, 9, 50, 119})
    page.select_option("#state", "0")
    button = page.locator(f"#channels tr.channel:has(td:first-child:text-is('{plain}')) button")
    button.click()
    names = [image.name for image in stats.layers["conv"].get_top_images(plain)]
    assert read_texts(page, "tr.more li") == names
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert page.locator("tr.more").count() == 0


def test_a_channel_without_finite_values(page: Page) -> None:
    choose(page, 0)
    page.click("[data-key=nonfinite]")
    row = read_texts(page, "#channels tr:first-child td")
    assert row[:2] == ["9", "\N{EN DASH}"]
    assert row[-1] == ""  # no image activates the channel


def test_pictures_beyond_limit_are_omitted_and_counted(opened: Opened, tmp_path: Path) -> None:
    stats = measure()
    path = tmp_path / "report.html"
    complete = make_report(stats, model="m", top_images=draw_pictures(stats))
    save_report(path, stats, model="m", top_images=draw_pictures(stats), picture_bytes=20_000)
    with opened(path) as page:
        some = page.inner_text("#pictures-note")
        match = re.search(r"(\d+) channels have pictures\. Pictures of (\d+)", some)
        assert match
        shown, left = map(int, match.groups())
        assert shown + left == 12
        assert 0 < shown < 12
        # The first channels of all layers come before the second channels.
        found = []
        for at in range(3):
            choose(page, at)
            found.append(page.locator("#pictures .strip").count())
        assert sum(found) == shown
        assert max(found) - min(found) <= 1
    pictures = sum(map(len, re.findall(rb'data:image/[^"]+', path.read_bytes())))
    assert pictures <= 20_000 < len(complete)
    bare = make_report(stats, model="m")
    assert b"data:image" not in bare


def test_page_without_pictures(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    save_report(path, measure(), model="m")
    with opened(path) as page:
        assert not page.is_visible("#top")


def test_too_many_names_are_limited(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = DatasetStats(top=3)
    layer = {"dense": make_activations()["dense"][:, :1]}
    stats.update(layer, {"dense": make_infos()["dense"]}, [f"{i:0100}" for i in range(20)])
    path = tmp_path / "report.html"
    for limit, depth in ((10_000, 3), (250, 2), (110, 1), (50, 0)):
        monkeypatch.setattr("actgrid.statistics.report._MAX_NAME_BYTES", limit)
        save_report(path, stats, model="m")
        with opened(path) as page:
            note = page.inner_text("#names-note")
            if depth == 3:
                assert note == ""
            elif depth:
                assert note.startswith(
                    f"Only the first {depth} of 3 images of each channel are named"
                )
            else:
                assert note.startswith(
                    "The names of the images that activate each channel most are omitted"
                )
            buttons = page.locator("td.names button")
            assert buttons.count() == (1 if depth else 0)
            if depth:
                names = [image.name for image in stats.layers["dense"].get_top_images(0)[:depth]]
                assert (buttons.get_attribute("title") or "").split("\n") == names


def test_report_without_images(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    save_report(path, DatasetStats(), model="m")
    with opened(path) as page:
        assert page.inner_text("#title") == "m: channels over 0 images"
        assert page.inner_text("#page") == "none"


def test_dark_mode(browser: Browser, report: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert grounds[0] != grounds[1]


def test_a_narrow_window_does_not_scroll_sideways(browser: Browser, report: Path) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(report.as_uri())
    choose(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.close()


def test_undecodable_file_names(opened: Opened, tmp_path: Path) -> None:
    stats = DatasetStats(top=1)
    stats.update(
        {"dense": make_activations()["dense"][:1]}, {"dense": make_infos()["dense"]}, ["\udcff.jpg"]
    )
    path = tmp_path / "report.html"
    save_report(path, stats, model="\udcff")
    with opened(path) as page:
        assert page.locator("td.names button").first.inner_text() == "▸ \udcff.jpg"


def test_equal_statistics_give_equal_pages() -> None:
    assert make_report(measure(), model="m") == make_report(measure(), model="m")


def test_the_page_stays_small() -> None:
    """The page has the channels of the embedded model and nine names for each."""
    stats = DatasetStats(top=9)
    values = np.random.default_rng(0).standard_normal((12, 62_243)).astype(np.float32)
    about = LayerInfo("dense", "Dense", (None, 62_243), "float32", "channels_last", 0, 0)
    stats.update({"dense": values}, {"dense": about})
    page = make_report(stats, model="m")
    assert len(page) < 4_000_000
    (data,) = re.findall(rb'id="data">(.*?)</script>', page, re.DOTALL)
    assert len(json.loads(data)["names"]) == 12


def test_invalid_arguments_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="picture_bytes must be at least 0, not -1"):
        make_report(measure(), model="m", picture_bytes=-1)
    with pytest.raises(OptionError, match="fraction must be a number from 0 to 1"):
        make_report(measure(), model="m", nearly_dead_fraction=3)
    with pytest.raises(OutputError, match="cannot write"):
        save_report(tmp_path / "none" / "report.html", measure(), model="m")
