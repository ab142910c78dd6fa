"""Settings for the whole suite."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from actgrid.bench import Run

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Examples include the first call of freshly compiled numba code: no deadline holds for those.
settings.register_profile(
    "actgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("actgrid")


@dataclass
class Clock:
    """Stands in for `time.perf_counter` where actgrid.bench measures: only work moves it on."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float) -> Run:
        """Return a run that takes so long, one time after the other, over and over."""
        times = itertools.cycle(seconds)

        def run() -> None:
            self.now += next(times)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("actgrid.bench.measuring.perf_counter", clock)
    return clock


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium is installed")
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def opened(browser: Any) -> Callable[[Path], AbstractContextManager[Any]]:
    """Open a page of a file; at the end nothing has gone wrong and nothing was asked for."""

    @contextmanager
    def opened(path: Path) -> Iterator[Any]:
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        yield page
        requested = [problem for problem in problems if not problem.startswith("data:")]
        context.close()
        assert requested == [path.as_uri()]

    return opened
