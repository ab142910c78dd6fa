"""Tests of the viewer in a real JupyterLab, driven by Chromium, and of saved notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CODE = """\
import keras, actgrid
old = globals().get("view")
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
PICTURE = "figure[id^=actgrid-] img[alt^='The layers of small for photo0.png']"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[tuple[str, Path]]:
    """Start JupyterLab in a folder with a notebook; yield its address and the folder."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "photos").symlink_to(photos)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
    }
    sources = {"view": CODE, "print": "print('old view:', old)"}
    cells = [cell | {"id": name, "source": source} for name, source in sources.items()]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}}
    (folder / "view.ipynb").write_text(json.dumps(notebook | {"cells": cells}))
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
        yield json.loads(found[0].read_text())["url"], folder
        process.terminate()


def open_notebook(browser: Any, url: str) -> Any:
    """Open the notebook in a new page of JupyterLab."""
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{url}lab/tree/view.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("window.jupyterapp.commands.hasCommand('notebook:run-all-cells')")
    return page


def start_command(page: Any, command: str) -> None:
    page.evaluate(f"void window.jupyterapp.commands.execute('{command}')")


def run_cells(page: Any) -> Any:
    """Run the cells of the notebook, and return the frame of the viewer."""
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    start_command(page, "notebook:run-all-cells")
    frame = page.frame_locator("iframe[title='Viewer of actgrid']")
    frame.locator("canvas.grid[data-shown^='conv|']").wait_for()
    return frame


@pytest.mark.slow
def test_view_in_jupyterlab(browser: Any, lab: tuple[str, Path]) -> None:
    url, folder = lab
    page = open_notebook(browser, url)
    frame = run_cells(page)
    frame.locator("button.pick[data-path='last']").first.dispatch_event("click")
    frame.locator("canvas.grid[data-shown^='last|']").wait_for()
    page.locator(PICTURE).wait_for(state="hidden")

    # A cell that runs again ends the view that it replaces.
    page.get_by_text("old view: None").wait_for()
    run_cells(page)
    page.get_by_text("old view: <View of small, closed>").wait_for()

    # The kernel ends: the frame says so.
    start_command(page, "docmanager:save")
    page.evaluate("void window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.get_by_text("The kernel does not answer").wait_for()
    page.locator("iframe[title='Viewer of actgrid'][inert]").wait_for()
    page.context.close()

    # The saved notebook has the picture, and nothing that gives access to the kernel.
    saved = (folder / "view.ipynb").read_text()
    assert "token" not in saved
    assert "127.0.0.1" not in saved
    assert len(saved) < 300_000
    reopened = open_notebook(browser, url)
    reopened.locator(PICTURE).wait_for()
    reopened.context.close()
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "view.ipynb"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    page = browser.new_page()
    page.route(
        "**", lambda route: route.abort() if "http" in route.request.url else route.continue_()
    )
    page.goto((folder / "view.html").as_uri())
    page.locator(PICTURE).wait_for()
    page.close()
