"""`actgrid serve` and `actgrid export`."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., Any]


@contextmanager
def served(
    start: Callable[..., Any], *arguments: object, **environment: str
) -> Iterator[tuple[Any, str]]:
    """Start the command as a user would; yield the process and the address that it prints."""
    process = start("serve", *arguments, "--port", 0, env={**os.environ, **environment})
    try:
        line = process.stdout.readline()
        address = re.match(r"the viewer is at (http://\S+)", line)
        assert address is not None, (line, process.stderr.read())
        yield process, address[1]
    finally:
        process.kill()
        process.communicate()


def test_served_until_interrupted(start: Callable[..., Any], model_file: Path, photo: Path) -> None:
    with served(start, model_file, "--images", photo.parent) as (process, address):
        assert httpx.get(address).text.startswith("<!doctype html>")
        listed = httpx.get(f"{address}api/images.json").json()
        assert [image["name"] for image in listed["images"]] == ["cat.jpg"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_token_from_the_environment(start: Callable[..., Any], model_file: Path) -> None:
    with served(start, model_file, "--host", "0.0.0.0", ACTGRID_TOKEN="sesame") as (_, address):
        assert address.endswith("?token=sesame")
        place = re.sub(r"//[^:]+:(\d+)/.*", r"//127.0.0.1:\1/api/model.json", address)
        assert httpx.get(place).status_code == 401
        headers = {"authorization": "Bearer sesame"}
        assert httpx.get(place, headers=headers).json()["name"] == "small"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "nowhere"], ["there is no image nowhere"]),
        (["--stats", "nowhere"], ["there is no file nowhere"]),
        (["--labels", "nowhere"], ["there is no file nowhere"]),
        (["--fit", "shrink"], ["fit must be one of"]),
        (["--size", "large"], ["--size must be HxW"]),
        (["--port", "99999"], ["port must be 0 to 65535"]),
        (["--token", "open sesame"], ["without spaces"]),
    ],
)
def test_what_cannot_be_served_is_one_line(
    run: Run, model_file: Path, arguments: list[str], words: list[str]
) -> None:
    run("serve", model_file, *arguments).assert_one_clear_line(*words)


def test_a_site(run: Run, model_file: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    result = run("export", model_file, photo, "-o", out, "--layers", "conv", "--scope", "layer")
    assert result.code == 0
    assert result.out.splitlines()[0].startswith(f"{out}: ")
    assert (out / "index.html").exists()
    assert [path.parent.name for path in out.glob("api/images/*/layers/*/*/layer.png")] == [
        "standard"
    ]


def test_a_site_of_no_such_layer_is_one_line(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    result = run("export", model_file, photo, "-o", tmp_path / "site", "--layers", "cnv")
    result.assert_one_clear_line("no layer is called 'cnv'", "did you mean conv")
