"""The viewer: from a click to pixels on the screen, many clients at once, and the page's weight."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.suite import Group, Target
from benchmarks.workload import folder, photos

__all__ = ["VIEWER"]

_IMAGES = 8
_CLIENTS, _SECONDS = 20, 60
# Memory is compared from here on: by then everything has been asked for.
_SETTLED = 30
# Clicks on a card of the graph, and resolves with the milliseconds until its channels are seen.
_CLICK = """path => new Promise(resolve => {
  const canvas = document.querySelector("#layer canvas");
  const card = document.querySelector(`[data-path="${CSS.escape(path)}"]`);
  const start = performance.now();
  const seen = () => {
    if (canvas.dataset.shown?.startsWith(path + "|"))
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    else requestAnimationFrame(seen);
  };
  card.click();
  seen();
})"""


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Start the viewer as a user would; yield its address and process."""
    images = folder() / "viewer"
    images.mkdir(exist_ok=True)
    for photo in photos()[:_IMAGES]:
        shutil.copy(photo, images)
    command = [sys.executable, "-m", "actgrid", "serve", "demo", str(images)]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, line
        yield address[0], process.pid
    finally:
        process.terminate()
        process.wait()


class Clicks(NamedTuple):
    """Milliseconds from a click on a layer to its pixels, layer by layer."""

    cold: list[float]
    warm: list[float]


@cache
def clicks() -> Clicks:
    """Click on every layer of the embedded network, twice."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    with served() as (address, _), sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, names)), None)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}#open=*")
        page.wait_for_selector("#layer canvas[data-shown]")
        page.wait_for_load_state("networkidle")
        paths = page.eval_on_selector_all(
            "[data-path]", "cards => cards.map(card => card.dataset.path)"
        )
        drawn = paths[2:]  # the input is not drawn, and the first layer is already shown
        found = Clicks(*([page.evaluate(_CLICK, path) for path in drawn] for _ in range(2)))
        browser.close()
    return found


def percentile(times: Callable[[Clicks], list[float]]) -> Callable[[], Callable[[], float]]:
    def prepare() -> Callable[[], float]:
        import playwright.sync_api  # noqa: F401  (that it is missing is said before)

        return lambda: float(np.percentile(times(clicks()), 95))

    return prepare


class Load(NamedTuple):
    """What many clients at once did, and what it cost."""

    requests: int
    problems: Counter[str]
    latency: float
    growth: float
    peak: float


def memory(process: int, what: str = "VmRSS") -> float:
    """Return a process's memory in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


@cache
def load() -> Load:
    """Ask for anything, in many clients at once, for a minute."""
    with served() as (address, process):
        return asyncio.run(_loaded(address, process))


async def _loaded(address: str, process: int) -> Load:
    import httpx

    limits = httpx.Limits(max_connections=_CLIENTS)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        model = (await client.get("api/model.json")).json()
        images = (await client.get("api/images.json")).json()["images"]
        drawn = [index for index, node in enumerate(model["nodes"]) if node["drawn"]]
        kernels = [index for index, node in enumerate(model["nodes"]) if node["kernel"]]
        upload = photos()[0].read_bytes()
        problems: Counter[str] = Counter()
        times: list[float] = []
        end = time.perf_counter() + _SECONDS

        def wish(chance: random.Random) -> str:
            image, layer = chance.choice(images)["id"], chance.choice(drawn)
            place = f"api/images/{image}"
            normalize = chance.choice(model["controls"]["layer"]["normalize"]["words"])
            scope = chance.choice(model["controls"]["layer"]["scope"]["words"])
            return chance.choices(
                [
                    f"{place}/layers/{layer}/{normalize}/{scope}.png",
                    f"{place}/layers/{layer}.json",
                    f"{place}/layers.json",
                    f"{place}/layers.png",
                    f"{place}/layers/{layer}.png?order=std",
                    f"{place}/layers/{layer}/histograms.json",
                    f"{place}/heatmaps/gradcam/{chance.randrange(1000)}.png",
                    f"api/layers/{chance.choice(kernels)}/kernel.png",
                    "",
                ],
                [8, 8, 2, 2, 2, 1, 1, 1, 1],
            )[0]

        async def person(number: int) -> None:
            chance = random.Random(number)
            while (start := time.perf_counter()) < end:
                try:
                    if chance.random() < 0.02:
                        response = await client.post("api/images", content=upload)
                    else:
                        response = await client.get(wish(chance))
                    if response.is_error:
                        problems[f"{response.status_code} {response.text[:80]}"] += 1
                except httpx.HTTPError as error:
                    problems[repr(error)] += 1
                times.append(time.perf_counter() - start)

        async def watch() -> float:
            await asyncio.sleep(_SETTLED)
            return memory(process)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*map(person, range(_CLIENTS)))
        return Load(
            len(times),
            problems,
            float(np.percentile(times, 95)) * 1e3,
            memory(process) / await watching,
            memory(process, "VmHWM"),
        )


def figure(of: Callable[[Load], float]) -> Callable[[], Callable[[], float]]:
    def prepare() -> Callable[[], float]:
        import httpx  # noqa: F401  (that it is missing is said before)

        if not Path("/proc/self/status").exists():
            raise ImportError("only Linux tells a process's memory")
        return lambda: of(load())

    return prepare


def weight() -> Callable[[], float]:
    from actgrid.web.page_files import page_files

    return lambda: sum(map(len, page_files().values())) / 1e3


def most(name: str, must: float, unit: str) -> Target:
    """Return the bound of a figure by itself."""
    return Target(name, name, name, must, how=lambda value, _: value, unit=unit)


_COLD = "click on a layer not seen before, to pixels, 95th percentile, ms"
_WARM = "click on a layer seen before, to pixels, 95th percentile, ms"
_PROBLEMS = f"{_CLIENTS} clients for {_SECONDS} s: errors"
_GROWTH = f"the same: memory at the end over that after {_SETTLED} s"
_WEIGHT = "the page without images, kB"

VIEWER = Group(
    "the viewer, embedded network, headless Chromium",
    {
        _COLD: percentile(lambda clicks: clicks.cold),
        _WARM: percentile(lambda clicks: clicks.warm),
        _PROBLEMS: figure(lambda load: load.problems.total()),
        "the same: requests": figure(lambda load: load.requests),
        "the same: 95th percentile of a request, ms": figure(lambda load: load.latency),
        "the same: peak memory, MB": figure(lambda load: load.peak),
        _GROWTH: figure(lambda load: load.growth),
        _WEIGHT: weight,
    },
    (
        most(_COLD, 300, "ms"),
        most(_WARM, 60, "ms"),
        most(_PROBLEMS, 0, "errors"),
        most(_GROWTH, 1.1, "x"),
        most(_WEIGHT, 200, "kB"),
    ),
    unit="",
    most_rounds=1,
)
