"""Tests of the viewer in a real JupyterLab, driven by Chromium, and of the saved notebook."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import actgrid
from actgrid.rendering import PictureDict

pytestmark = pytest.mark.slow

CODE = """\
import keras, actgrid
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((16, 16, 3)),
    keras.layers.Conv2D(4, 3, name="conv"),
    keras.layers.Conv2D(6, 3, name="last"),
], name="small")
view = actgrid.view(model, "photos", preprocess="unit", height=600)
view
"""
TOKEN = "secret"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[tuple[str, Path]]:
    """Start JupyterLab in a folder with a notebook; yield its address and the folder."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "photos").symlink_to(photos)
    cell = nbformat.v4.new_code_cell(CODE)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "view.ipynb")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(folder / ".jupyter" / name) for name in names}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    command += ["--expose-app-in-browser", f"--IdentityProvider.token={TOKEN}"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=log) as process,
    ):
        runtime = folder / ".jupyter" / "JUPYTER_RUNTIME_DIR"
        deadline = time.monotonic() + 60
        while not (found := list(runtime.glob("jpserver-*.json"))):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        url = json.loads(found[0].read_text())["url"]
        yield url, folder
        process.terminate()


@pytest.fixture
def page(browser: Any, lab: tuple[str, Path]) -> Iterator[Any]:
    """Open the notebook in JupyterLab."""
    url, _ = lab
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(f"{url}lab/tree/view.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("window.jupyterapp?.commands.hasCommand('notebook:run-all-cells')")
    yield page
    context.close()


def run_command(page: Any, command: str) -> None:
    page.evaluate(f"window.jupyterapp.commands.execute('{command}')")


def run_cell(page: Any) -> Any:
    """Run the notebook's cell, and return the frame of the viewer."""
    run_command(page, "notebook:run-all-cells")
    frame = page.frame_locator("iframe[title='Viewer of actgrid']")
    frame.locator("#title").get_by_text("small").wait_for(timeout=90_000)
    return frame


def wait_for_layer(frame: Any, name: str) -> None:
    canvas = frame.locator("#layer canvas.grid").first
    canvas.and_(frame.locator(f"[data-shown^='{name}|']")).wait_for(timeout=30_000)


def test_page_in_jupyterlab(page: Any, lab: tuple[str, Path], expect_hidden: Callable[..., None]) -> None:
    _, folder = lab
    frame = run_cell(page)
    wait_for_layer(frame, "conv")
    frame.get_by_title(re.compile("^last")).first.click()
    wait_for_layer(frame, "last")
    expect_hidden(page.locator("figure[id^=actgrid-]"))
    # A cell that runs again ends the view that it replaces.
    page.evaluate(
        "window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource("
        f"{json.dumps(CODE + 'previous = globals().get(chr(95) + chr(104))')})"
    )
    save(page, folder)


@pytest.fixture
def expect_hidden() -> Callable[..., None]:
    return lambda locator: locator.wait_for(state="hidden")


def save(page: Any, folder: Path) -> dict[str, Any]:
    run_command(page, "docmanager:save")
    page.wait_for_timeout(1000)
    text = (folder / "view.ipynb").read_text()
    assert "token" not in text
    result: dict[str, Any] = json.loads(text)
    return result
