"""Tests of uploads as request body and as form, and of their limits."""

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

MAX_BYTES = 5000
MAX_PIXELS = 600
Send = Callable[..., httpx.Response]


def make_png(width: int = 4, height: int = 4, size: int | None = None, color: str = "red") -> bytes:
    """Return a PNG file, padded with zeros to `size` bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, "PNG")
    data = buffer.getvalue()
    return data if size is None else data + bytes(size - len(data))


@pytest.fixture(scope="module")
def limited_client(model: Any) -> Iterator[httpx.Client]:
    """Yield a client of a viewer that accepts only small uploads."""
    with actgrid.view(model, upload_bytes=MAX_BYTES, upload_pixels=MAX_PIXELS) as view:
        base, _, token = view.url.partition("?token=")
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
            yield client


def send_body(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/images", content=data)


def send_body_in_pieces(client: httpx.Client, data: bytes) -> httpx.Response:
    pieces = (data[start : start + 1000] for start in range(0, len(data), 1000))
    return client.post("/api/images", content=pieces)


def send_form(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/api/images", files={"file": ("a.png", data)})


def send_form_in_pieces(client: httpx.Client, data: bytes) -> httpx.Response:
    request = client.build_request("POST", "/api/images", files={"file": ("a.png", data)})
    body = request.read()
    pieces = (body[start : start + 777] for start in range(0, len(body), 777))
    headers = {"content-type": request.headers["content-type"]}
    return client.post("/api/images", content=pieces, headers=headers)


SENDERS = [send_body, send_body_in_pieces, send_form, send_form_in_pieces]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize(("excess", "status"), [(-1, 201), (0, 201), (1, 413)])
def test_byte_limit_is_inclusive(
    limited_client: httpx.Client, send: Send, excess: int, status: int
) -> None:
    response = send(limited_client, make_png(size=MAX_BYTES + excess))
    assert response.status_code == status
    if status == 413:
        assert (
            response.json()["detail"] == "the image has more than 5,000 bytes, which is the limit"
        )


@pytest.mark.parametrize("send", [send_body, send_form])
@pytest.mark.parametrize(
    ("width", "height", "status"), [(599, 1, 201), (20, 30, 201), (601, 1, 413), (1, 601, 413)]
)
def test_pixel_limit_is_inclusive(
    limited_client: httpx.Client, send: Send, width: int, height: int, status: int
) -> None:
    response = send(limited_client, make_png(width, height))
    assert response.status_code == status
    if status == 413:
        assert f"{width} x {height} pixels; the limit is 600" in response.json()["detail"]


@pytest.mark.parametrize("send", SENDERS)
def test_too_large_body_is_rejected(limited_client: httpx.Client, send: Send) -> None:
    assert send(limited_client, bytes(1 << 20)).status_code == 413


def test_default_limits_are_documented(client: httpx.Client) -> None:
    uploads = client.get("/api/model.json").json()["uploads"]
    suffixes = [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"]
    assert uploads == {"bytes": 32 * 1024 * 1024, "pixels": 50_000_000, "suffixes": suffixes}
    text = (Path(__file__).parents[2] / "docs" / "viewer.md").read_text()
    assert re.search(r"at most 32 MiB \(33,554,432 bytes; [^)]*\)\s+and\s+50,000,000 pixels", text)


def test_upload_pixels_cannot_exceed_limit_of_pillow(model: Any) -> None:
    with pytest.raises(actgrid.errors.OptionError, match="at most 89478485, the largest image"):
        actgrid.view(model, upload_pixels=100_000_000)


def test_form_and_body_give_the_same_image(limited_client: httpx.Client) -> None:
    data = make_png(color="plum")
    added = send_form(limited_client, data)
    assert added.status_code == 201
    assert added.json() == {
        "id": send_body(limited_client, data).json()["id"],
        "name": "a.png",
        "uploaded": True,
    }
    other = limited_client.post(
        "/api/images",
        params={"name": "b.png"},
        files={"picture": ("a.png", make_png(color="pink"))},
    )
    assert other.json()["name"] == "b.png"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_upload_with_curl(limited_client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(make_png(color="tan"))
    command = [
        "curl",
        "-s",
        "-F",
        f"file=@{tmp_path / 'cat.png'}",
        f"{limited_client.base_url}api/images",
    ]
    header = f"authorization: {limited_client.headers['authorization']}"
    process = subprocess.run([*command, "-H", header], capture_output=True, text=True, check=True)
    assert '"name":"cat.png","uploaded":true' in process.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"files": [("a", ("a.png", make_png())), ("b", ("b.png", make_png()))]},
            "2 files and 0 other",
        ),
        ({"files": {"a": ("a.png", make_png())}, "data": {"name": "x"}}, "1 files and 1 other"),
        ({"files": [("a", (None, "x"))]}, "0 files and 1 other"),
        ({"files": [("a", (f"{n}.png", make_png())) for n in range(30)]}, "cannot be read"),
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
def test_invalid_forms_are_rejected(
    limited_client: httpx.Client, options: dict[str, Any], message: str
) -> None:
    before = limited_client.get("/api/images.json").json()["total"]
    response = limited_client.post("/api/images", **options)
    assert response.status_code == 422
    assert message in response.json()["detail"]
    assert response.json()["detail"].endswith("as curl -F file=@cat.jpg does")
    assert limited_client.get("/api/images.json").json()["total"] == before


def test_form_with_invalid_image_is_rejected(limited_client: httpx.Client) -> None:
    response = send_form(limited_client, b"no picture")
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "the image is no PNG, JPEG, WebP, GIF or BMP",
    )


def test_uploads_create_no_temporary_files(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a temporary file was created")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert send_form(client, make_png(size=3 << 20)).status_code == 201
