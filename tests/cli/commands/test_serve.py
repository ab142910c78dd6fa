"""Tests of the command `actgrid serve`."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

Run = Callable[..., Any]


@contextmanager
def start_server(
    start: Callable[..., Any], *arguments: object, **environment: str
) -> Iterator[tuple[Any, str]]:
    """Start `actgrid serve` in a process; yield the process and the printed address."""
    process = start("serve", *arguments, "--port", 0, env={**os.environ, **environment})
    try:
        line = process.stdout.readline()
        address = re.match(r"the viewer is at (http://\S+)", line)
        assert address is not None, (line, process.stderr.read())
        yield process, address[1]
    finally:
        process.kill()
        process.communicate()


def test_serve_runs_until_interrupted(
    start: Callable[..., Any], model_file: Path, photo: Path
) -> None:
    with start_server(start, model_file, photo.parent) as (process, address):
        assert httpx.get(address).text.startswith("<!doctype html>")
        listed = httpx.get(f"{address}api/images.json").json()
        assert [image["name"] for image in listed["images"]] == ["cat.jpg"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_serve_compares_with_a_second_model(
    start: Callable[..., Any], run: Run, model_file: Path, photo: Path
) -> None:
    with start_server(start, model_file, photo, "--compare-with", model_file) as (_, address):
        model = httpx.get(f"{address}api/model.json").json()
        assert model["other"]["name"] == model["name"]
        image = httpx.get(f"{address}api/images.json").json()["images"][0]["id"]
        layer = [node["is_drawable"] for node in model["nodes"]].index(True)
        url = f"{address}api/images/{image}/layers/{layer}/difference.json"
        assert httpx.get(url, timeout=60).json()["limit"] == 0
    result = run("serve", model_file, photo, "--compare-with", "none.keras")
    result.assert_one_clear_line("no model file none.keras")


LOADING = """
import pathlib
import time

def make():
    pathlib.Path("begun").touch()
    time.sleep(60)
"""
STARTING = """
import keras
import pathlib
import tensorflow as tf
import time

def wait(x):
    pathlib.Path("begun").touch()
    time.sleep(60)
    return x

class Slow(keras.layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(wait, [x], x.dtype), x.shape)

def make():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 3)(Slow()(image)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("code", [LOADING, STARTING], ids=["loading", "starting"])
def test_signal_stops_serve_while_model_loads(
    start: Callable[..., Any], tmp_path: Path, code: str, number: signal.Signals
) -> None:
    (tmp_path / "slow_model.py").write_text(code)
    with start("serve", "slow_model:make", "--port", 0, cwd=tmp_path) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert_process_ends(process, number)


def assert_process_ends(process: Any, number: signal.Signals) -> None:
    """Check that a process ends silently with code 0 in two seconds after a signal."""
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 2
    assert (process.returncode, out, err) == (0, "", "")


@contextmanager
def open_request(address: str, method: str, path: str, more: str = "\r\n\r\n") -> Iterator[None]:
    """Send a request without reading the response; close the connection at the end."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        connection.sendall(f"{method} /{path} HTTP/1.1\r\nHost: localhost{more}".encode())
        yield


def wait_for_progress(address: str, place: str, state: str = "running") -> None:
    for _ in range(1200):
        progress = httpx.get(f"{address}{place}/progress.json").json()
        if progress["state"] == state and (state != "running" or progress["done"]):
            return
        time.sleep(0.05)
    raise AssertionError(f"the computation was never {state}")


@pytest.fixture(scope="module")
def demo(start: Callable[..., Any]) -> Iterator[tuple[Any, str, str]]:
    """Serve the embedded model; yield process, address and the URL of its heatmaps."""
    with start_server(start, "demo") as (process, address):
        (image,) = httpx.get(f"{address}api/images.json").json()["images"]
        yield process, address, f"api/images/{image['id']}/heatmaps"


def get_cpu_seconds(process: Any) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SLOW = ["rise", "occlusion", "integrated_gradients", "smoothgrad", "scorecam", "lime", "maximize"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("method", SLOW)
def test_cancelled_heatmap_uses_no_processor_time(demo: tuple[Any, str, str], method: str) -> None:
    process, address, heatmaps = demo
    if method == "lime":
        pytest.importorskip("skimage")
    place, resource = f"{heatmaps}/{method}/5", f"{heatmaps}/{method}/5.json"
    if method == "maximize":
        place, resource = ("api/layers/3/channels/1/maximized" + end for end in ("", ".png"))
    with open_request(address, "GET", resource):
        wait_for_progress(address, place)
    wait_for_progress(address, place, "none")
    time.sleep(1)  # a batch that has started still ends
    before = get_cpu_seconds(process)
    time.sleep(1)
    assert get_cpu_seconds(process) - before < 0.2


def test_quick_requests_do_not_wait_for_slow_heatmaps(demo: tuple[Any, str, str]) -> None:
    _, address, heatmaps = demo
    image = heatmaps.rpartition("/")[0]
    slow = [f"{heatmaps}/rise/{target}" for target in (7, 8)]
    with httpx.Client(base_url=address, timeout=120) as client, ExitStack() as requests:
        assert client.get(f"{heatmaps}/gradcam/1.json").status_code == 200  # compiles the function
        for place in slow:
            requests.enter_context(open_request(address, "GET", f"{place}.json"))
        for place in slow:
            wait_for_progress(address, place)
        for path in (
            *(f"{heatmaps}/gradcam/2.json", f"{heatmaps}/saliency/2.png"),
            *(f"{image}/layers/40/minmax/layer.png", f"{image}/layers.json"),
        ):
            start = time.monotonic()
            assert client.get(path).status_code == 200
            # Each slow heatmap takes half a minute.
            assert time.monotonic() - start < 8
        for place in slow:
            progress = client.get(f"{place}/progress.json").json()
            assert progress["state"] == "running"
            assert 0 < progress["done"] < progress["total"] == 2000


def test_signal_stops_serve_during_heatmap_and_stalled_upload(start: Callable[..., Any]) -> None:
    with start_server(start, "demo") as (process, address):
        (image,) = httpx.get(f"{address}api/images.json").json()["images"]
        place = f"api/images/{image['id']}/heatmaps/rise/9"
        half = "\r\nContent-Length: 9\r\n\r\nhalf"
        with (
            open_request(address, "GET", f"{place}.json"),
            open_request(address, "POST", "api/images", half),
        ):
            wait_for_progress(address, place)
            assert_process_ends(process, signal.SIGTERM)


def test_token_from_environment_variable(start: Callable[..., Any], model_file: Path) -> None:
    with start_server(start, model_file, "--host", "0.0.0.0", ACTGRID_TOKEN="sesame") as (
        _,
        address,
    ):
        assert address.endswith("?token=sesame")
        place = re.sub(r"//[^:]+:(\d+)/.*", r"//127.0.0.1:\1/api/model.json", address)
        assert httpx.get(place).status_code == 401
        headers = {"authorization": "Bearer sesame"}
        assert httpx.get(place, headers=headers).json()["name"] == "small"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["there is no image nowhere"]),
        (["--statistics", "nowhere"], ["there is no file nowhere"]),
        (["--labels", "nowhere"], ["there is no file nowhere"]),
        (["--fit", "shrink"], ["--fit must be one of"]),
        (["--size", "large"], ["--size must be HxW"]),
        (["--port", "99999"], ["--port must be at most 65,535"]),
        (["--token", "open sesame"], ["without spaces"]),
    ],
)
def test_serve_prints_errors_in_one_line(
    run: Run, model_file: Path, arguments: list[str], words: list[str]
) -> None:
    run("serve", model_file, *arguments).assert_one_clear_line(*words)
