"""Benchmarks of the viewer: time from click to pixels, load test, page size."""

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
_CLIENTS, _SECONDS = 20, 30
# Seconds after which every kind of request has been made: memory should not grow from then on.
_WARMUP_SECONDS = 15
# Clicks on a card of the graph, and resolves with the milliseconds until its channels are drawn.
_CLICK = """path => new Promise(resolve => {
  const canvas = document.querySelector("#layer canvas");
  const card = document.querySelector(`[data-path="${CSS.escape(path)}"]`);
  const start = performance.now();
  const check = () => {
    if (canvas.dataset.shown?.startsWith(path + "|"))
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    else requestAnimationFrame(check);
  };
  card.click();
  check();
})"""


@contextmanager
def start_viewer() -> Iterator[tuple[str, int]]:
    """Start `actgrid serve`; yield its address and the id of its process."""
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


class ClickTimes(NamedTuple):
    """Milliseconds from a click to pixels for each layer, on first and second click."""

    cold: list[float]
    warm: list[float]


@cache
def measure_clicks() -> ClickTimes:
    """Click on every layer of the embedded network twice, and time each click."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    with start_viewer() as (address, _), sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, names)), None)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}#open=*")
        page.wait_for_selector("#layer canvas[data-shown]")
        page.wait_for_load_state("networkidle")
        paths = page.eval_on_selector_all(
            "[data-path]", "cards => cards.map(card => card.dataset.path)"
        )
        layer_paths = paths[2:]  # without the input, and the first layer, which is already shown
        times = ClickTimes(
            *([page.evaluate(_CLICK, path) for path in layer_paths] for _ in range(2))
        )
        browser.close()
    return times


def click_case(select: Callable[[ClickTimes], list[float]]) -> Callable[[], Callable[[], float]]:
    def prepare() -> Callable[[], float]:
        import playwright.sync_api  # noqa: F401  (raises ImportError if it is missing)

        return lambda: float(np.percentile(select(measure_clicks()), 95))

    return prepare


class LoadResult(NamedTuple):
    """The result of a load test: number of requests, errors, latency and memory.

    `latency` is the 95th percentile in milliseconds. `growth` is the final memory over that after
    the warm-up. `peak` is in MB.
    """

    requests: int
    problems: Counter[str]
    latency: float
    growth: float
    peak: float


def read_memory(process: int, field: str = "VmRSS") -> float:
    """Return the memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


@cache
def measure_load() -> LoadResult:
    """Send random requests from many clients at the same time for half a minute."""
    with start_viewer() as (address, process):
        return asyncio.run(_send_requests(address, process))


async def _send_requests(address: str, process: int) -> LoadResult:
    import httpx

    limits = httpx.Limits(max_connections=_CLIENTS)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        model = (await client.get("api/model.json")).json()
        images = (await client.get("api/images.json")).json()["images"]
        layers = [index for index, node in enumerate(model["nodes"]) if node["is_drawable"]]
        kernels = [index for index, node in enumerate(model["nodes"]) if node["kernel"]]
        upload = photos()[0].read_bytes()
        problems: Counter[str] = Counter()
        times: list[float] = []
        end = time.perf_counter() + _SECONDS

        def choose_url(chance: random.Random) -> str:
            image, layer = chance.choice(images)["id"], chance.choice(layers)
            place = f"api/images/{image}"
            normalize = chance.choice(model["controls"]["layer"]["normalize"]["choices"])
            scope = chance.choice(model["controls"]["layer"]["scope"]["choices"])
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

        async def run_client(number: int) -> None:
            chance = random.Random(number)
            while (start := time.perf_counter()) < end:
                try:
                    if chance.random() < 0.02:
                        response = await client.post("api/images", content=upload)
                    else:
                        response = await client.get(choose_url(chance))
                    if response.is_error:
                        problems[f"{response.status_code} {response.text[:80]}"] += 1
                except httpx.HTTPError as error:
                    problems[repr(error)] += 1
                times.append(time.perf_counter() - start)

        async def measure_warm_memory() -> float:
            await asyncio.sleep(_WARMUP_SECONDS)
            return read_memory(process)

        warm_memory = asyncio.create_task(measure_warm_memory())
        await asyncio.gather(*map(run_client, range(_CLIENTS)))
        return LoadResult(
            len(times),
            problems,
            float(np.percentile(times, 95)) * 1e3,
            read_memory(process) / await warm_memory,
            read_memory(process, "VmHWM"),
        )


def load_case(select: Callable[[LoadResult], float]) -> Callable[[], Callable[[], float]]:
    def prepare() -> Callable[[], float]:
        import httpx  # noqa: F401  (raises ImportError if it is missing)

        if not Path("/proc/self/status").exists():
            raise ImportError("only Linux reports the memory of a process")
        return lambda: select(measure_load())

    return prepare


def prepare_page_size() -> Callable[[], float]:
    from actgrid.web.page_files import read_page_files

    return lambda: sum(map(len, read_page_files().values())) / 1e3


def maximum(name: str, must: float, unit: str) -> Target:
    """Return an upper bound on the value of a case itself."""
    return Target(name, name, name, must, compare=lambda value, _: value, unit=unit)


_COLD = "click on a layer not seen before, to pixels, 95th percentile, ms"
_WARM = "click on a layer seen before, to pixels, 95th percentile, ms"
_PROBLEMS = f"{_CLIENTS} clients for {_SECONDS} s: errors"
_GROWTH = f"the same: memory at the end over that after {_WARMUP_SECONDS} s"
_PAGE_SIZE = "the page without images, kB"

VIEWER = Group(
    "the viewer, embedded network, headless Chromium",
    {
        _COLD: click_case(lambda times: times.cold),
        _WARM: click_case(lambda times: times.warm),
        _PROBLEMS: load_case(lambda result: result.problems.total()),
        "the same: requests": load_case(lambda result: result.requests),
        "the same: 95th percentile of a request, ms": load_case(lambda result: result.latency),
        "the same: peak memory, MB": load_case(lambda result: result.peak),
        _GROWTH: load_case(lambda result: result.growth),
        _PAGE_SIZE: prepare_page_size,
    },
    (
        maximum(_COLD, 300, "ms"),
        maximum(_WARM, 60, "ms"),
        maximum(_PROBLEMS, 0, "errors"),
        maximum(_GROWTH, 1.1, "x"),
        maximum(_PAGE_SIZE, 300, "kB"),
    ),
    unit="",
    max_rounds=1,
)
