"""Uploads: bodies and forms, and their limits to the byte and the pixel."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import actgrid

LIMIT = 5000  # bytes
PIXELS = 600
Send = Callable[..., httpx.Response]


def png(width: int = 4, height: int = 4, size: int | None = None, color: str = "red") -> bytes:
    """Return a PNG file, padded with zeros after its end to a number of bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, "PNG")
    data = buffer.getvalue()
    return data if size is None else data + bytes(size - len(data))


@pytest.fixture(scope="module")
def limited(model: Any) -> Iterator[httpx.Client]:
    """Ask a viewer that takes small uploads."""
    with actgrid.view(model, upload_bytes=LIMIT, upload_pixels=PIXELS) as view:
        base, _, token = view.url.partition("?token=")
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            yield client


def raw(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/images", content=data)


def raw_in_pieces(client: httpx.Client, data: bytes) -> httpx.Response:
    pieces = (data[start : start + 1000] for start in range(0, len(data), 1000))
    return client.post("/api/images", content=pieces)


def form(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/images", files={"file": ("a.png", data)})


def form_in_pieces(client: httpx.Client, data: bytes) -> httpx.Response:
    request = client.build_request("POST", "/api/images", files={"file": ("a.png", data)})
    body = request.read()
    pieces = (body[start : start + 777] for start in range(0, len(body), 777))
    kind = {"content-type": request.headers["content-type"]}
    return client.post("/api/images", content=pieces, headers=kind)


WAYS = [raw, raw_in_pieces, form, form_in_pieces]


@pytest.mark.parametrize("send", WAYS)
@pytest.mark.parametrize(("beyond", "status"), [(-1, 201), (0, 201), (1, 413)])
def test_bytes_are_limited_exactly(
    limited: httpx.Client, send: Send, beyond: int, status: int
) -> None:
    response = send(limited, png(size=LIMIT + beyond))
    assert response.status_code == status
    if status == 413:
        assert (
            response.json()["detail"] == "the image has more than 5,000 bytes, which is the limit"
        )


@pytest.mark.parametrize("send", [raw, form])
@pytest.mark.parametrize(
    ("width", "height", "status"), [(599, 1, 201), (20, 30, 201), (601, 1, 413), (1, 601, 413)]
)
def test_pixels_are_limited_exactly(
    limited: httpx.Client, send: Send, width: int, height: int, status: int
) -> None:
    response = send(limited, png(width, height))
    assert response.status_code == status
    if status == 413:
        assert f"{width} x {height} pixels; at most 600 are taken" in response.json()["detail"]


@pytest.mark.parametrize("send", WAYS)
def test_a_body_without_end_is_not_read_to_its_end(limited: httpx.Client, send: Send) -> None:
    assert send(limited, bytes(1 << 20)).status_code == 413


def test_the_limits_are_the_documented_ones(client: httpx.Client) -> None:
    uploads = client.get("/api/model.json").json()["uploads"]
    assert uploads == {"bytes": 32 * 1024 * 1024, "pixels": 50_000_000}
    text = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text()
    assert re.search(r"at most 32 MiB \(33,554,432 bytes; [^)]*\)\s+and 50,000,000 pixels", text)


def test_more_pixels_than_pillow_opens_cannot_be_allowed(model: Any) -> None:
    with pytest.raises(actgrid.errors.OptionError, match="at most 89478485, the largest image"):
        actgrid.view(model, upload_pixels=100_000_000)


def test_a_form_gives_the_same_image_as_its_file(limited: httpx.Client) -> None:
    data = png(color="plum")
    added = form(limited, data)
    assert added.status_code == 201
    assert added.json() == {
        "id": raw(limited, data).json()["id"],
        "name": "a.png",
        "uploaded": True,
    }
    other = limited.post(
        "/api/images", params={"name": "b.png"}, files={"picture": ("a.png", png(color="pink"))}
    )
    assert other.json()["name"] == "b.png"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_sends_a_form(limited: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(png(color="tan"))
    command = ["curl", "-s", "-F", f"file=@{tmp_path / 'cat.png'}", f"{limited.base_url}api/images"]
    header = f"authorization: {limited.headers['authorization']}"
    done = subprocess.run([*command, "-H", header], capture_output=True, text=True, check=True)
    assert '"name":"cat.png","uploaded":true' in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"files": [("a", ("a.png", png())), ("b", ("b.png", png()))]}, "2 files and 0 other"),
        ({"files": {"a": ("a.png", png())}, "data": {"name": "x"}}, "1 files and 1 other"),
        ({"files": [("a", (None, "x"))]}, "0 files and 1 other"),
        ({"files": [("a", (f"{n}.png", png())) for n in range(30)]}, "cannot be read"),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data"}}, "boundary"),
        (
            {
                "content": b"nonsense",
                "headers": {"content-type": "multipart/form-data; boundary=x"},
            },
            "cannot be",
        ),
        (
            {
                "content": b'--x\r\nContent-Disposition: form-data; filename="a"\r\n\r\na\r\n--x--',
                "headers": {"content-type": "multipart/form-data; boundary=x"},
            },
            '"name" must be provided',
        ),
    ],
)
def test_a_form_holds_one_file_and_nothing_else(
    limited: httpx.Client, options: dict[str, Any], words: str
) -> None:
    before = limited.get("/api/images.json").json()["total"]
    response = limited.post("/api/images", **options)
    assert response.status_code == 422
    assert words in response.json()["detail"]
    assert response.json()["detail"].endswith("as curl -F file=@cat.jpg does")
    assert limited.get("/api/images.json").json()["total"] == before


def test_what_is_no_image_is_refused_in_a_form(limited: httpx.Client) -> None:
    response = form(limited, b"no picture")
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "the image is no PNG, JPEG, WebP, GIF or BMP",
    )


def test_uploads_do_not_touch_the_disk(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert form(client, png(size=3 << 20)).status_code == 201
