"""Tests of the image store: given images, uploads, broken files and thumbnails."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from actgrid import load_images
from actgrid.errors import (
    ActgridError,
    ImageError,
    MissingFileError,
    NotFoundError,
    OptionError,
    ShapeError,
    TooLargeError,
)
from actgrid.web.images import ImageStore, compute_scaled_size, make_thumbnail, read_image

MEGABYTE = 1 << 20


def make_picture(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def encode_picture(
    image_format: str = "PNG", image: Image.Image | None = None, **options: Any
) -> bytes:
    buffer = io.BytesIO()
    (image or make_picture()).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "dogs").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.jpg", "dogs/rex.bmp"]):
        make_picture(seed=seed).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


# --- given images ---


@pytest.mark.parametrize("images", ["", [""]])
def test_empty_path_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Any
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="the path of an image is empty"):
        ImageStore(images)


def test_images_of_a_folder_are_sorted(folder: Path) -> None:
    store = ImageStore(folder)
    images = store.list_images(0, 10)
    assert [image.name for image in images] == ["a.jpg", "b.png", "dogs/rex.bmp"]
    assert len(store) == 3
    for image in images:
        assert store[image.id] is image
        assert len(image.id) == 16
        assert set(image.id) <= set("0123456789abcdef")
    # Ids depend only on the names relative to the folder.
    moved = ImageStore(folder.rename(folder.parent / "elsewhere"))
    assert [image.id for image in moved.list_images(0, 10)] == [image.id for image in images]


def test_list_images_returns_a_range(folder: Path) -> None:
    store = ImageStore(folder)
    upload = store.add(encode_picture(), "new")
    names = ["a.jpg", "b.png", "dogs/rex.bmp", "new"]
    for offset in range(6):
        for limit in range(6):
            page = [image.name for image in store.list_images(offset, limit)]
            assert page == names[offset : offset + limit]
    assert store.list_images(3, 1) == [upload]


def test_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        (tmp_path / f"{number:03}.png").touch()

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    store = ImageStore(tmp_path)
    assert len(store) == 500
    assert store.list_images(499, 5)[0].name == "499.png"


def test_sources_are_those_of_load_images(folder: Path) -> None:
    array = np.zeros((2, 4, 5, 3), np.uint8)
    sources = [folder / "a.jpg", str(folder / "*.png"), make_picture(), array, array[0]]
    store = ImageStore(sources)
    names = [image.name for image in store.list_images(0, 10)]
    assert names == ["a.jpg", "b.png", "image", "image (2)", "image (3)", "image (4)"]
    for image in store.list_images(0, 10):
        assert load_images(image.source).shape[3] == 3
    assert [image.name for image in ImageStore(Image.open(folder / "b.png")).list_images(0, 1)] == [
        "b.png"
    ]


def test_names_are_unique_and_files_are_not_repeated(folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    make_picture(seed=9).save(other / "a.jpg")
    store = ImageStore([folder, other, folder / "a.jpg", folder])
    images = store.list_images(0, 10)
    assert [image.name for image in images] == ["a.jpg", "b.png", "dogs/rex.bmp", "a.jpg (2)"]
    assert images[3].source == other / "a.jpg"


def test_store_without_sources_is_empty() -> None:
    store = ImageStore()
    assert (len(store), store.list_images(0, 10)) == (0, [])


@pytest.mark.parametrize("image", ["", "../../etc/passwd", "a.jpg", "0" * 16])
def test_unknown_id_raises(folder: Path, image: str) -> None:
    with pytest.raises(NotFoundError, match="there is no image with the id"):
        ImageStore(folder)[image]


def test_find_by_name_and_by_path(folder: Path) -> None:
    store = ImageStore(folder)
    for name in ("dogs/rex.bmp", "photos/dogs/rex.bmp", str(folder / "dogs" / "rex.bmp")):
        image = store.find_by_name(name)
        assert image is not None
        assert image.name == "dogs/rex.bmp"
    assert store.find_by_name("000017") is None
    assert store.find_by_name("") is None


def test_invalid_sources_and_limits_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no image"):
        ImageStore(tmp_path / "none.png")
    with pytest.raises(MissingFileError, match="holds no images"):
        ImageStore(tmp_path)
    with pytest.raises(OptionError, match="images must be files"):
        ImageStore(17)
    with pytest.raises(ShapeError, match=r"\(H, W\)"):
        ImageStore(np.zeros(5))
    with pytest.raises(OptionError, match="max_bytes must be at least 1"):
        ImageStore(max_bytes=0)
    (tmp_path / "half.png").write_bytes(encode_picture()[:400])
    with (
        Image.open(tmp_path / "half.png") as half,
        pytest.raises(ImageError, match="truncated"),
    ):
        ImageStore(half)


# --- uploads ---


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_upload_equals_image_loaded_from_file(image_format: str, tmp_path: Path) -> None:
    data = encode_picture(image_format)
    store = ImageStore()
    added = store.add(data, f"cat.{image_format}")
    assert store[added.id] == added
    (tmp_path / f"cat.{image_format.lower()}").write_bytes(data)
    np.testing.assert_array_equal(
        load_images(added.source, preprocess="none"),
        load_images(tmp_path / f"cat.{image_format.lower()}", preprocess="none"),
    )


def make_transparent_picture() -> Image.Image:
    image = make_picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.info["transparency"] = 3
    return image


@pytest.mark.parametrize(
    ("make", "image_format"),
    [
        (lambda: make_picture().convert("L"), "PNG"),
        (lambda: make_picture().convert("1"), "PNG"),
        (lambda: make_picture().convert("LA"), "PNG"),
        (lambda: make_picture().convert("RGBA"), "WEBP"),
        (lambda: make_picture().convert("CMYK"), "JPEG"),
        (lambda: Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG"),
        (make_transparent_picture, "PNG"),
    ],
)
def test_upload_keeps_image_mode(
    make: Callable[[], Image.Image], image_format: str, tmp_path: Path
) -> None:
    image = make()
    data = encode_picture(image_format, image, **({"transparency": 3} if image.mode == "P" else {}))
    (tmp_path / f"a.{image_format.lower()}").write_bytes(data)
    np.testing.assert_array_equal(
        load_images(ImageStore().add(data, "a").source, preprocess="none"),
        load_images(tmp_path / f"a.{image_format.lower()}", preprocess="none"),
    )


def test_identical_uploads_are_stored_once() -> None:
    store = ImageStore()
    first = store.add(encode_picture(), "first")
    second = store.add(encode_picture(), "second")
    assert (first, len(store)) == (second, 1)
    assert second.name == "first"
    other = store.add(encode_picture(image=make_picture(seed=1)), "first")
    assert other.id != first.id


def test_only_uploads_can_be_removed(folder: Path) -> None:
    store = ImageStore(folder)
    given_images = store.list_images(0, 99)
    added = store.add(encode_picture(), "added")
    assert added.uploaded
    assert not any(image.uploaded for image in given_images)
    store.remove(added.id)
    assert store.list_images(0, 99) == given_images
    with pytest.raises(NotFoundError, match="may have been removed"):
        store.remove(added.id)
    with pytest.raises(OptionError, match=f"{given_images[0].name} cannot be removed"):
        store.remove(given_images[0].id)
    assert store.list_images(0, 99) == given_images
    assert store.add(encode_picture(), "again").id == added.id


def test_max_pixels_is_inclusive() -> None:
    store = ImageStore(max_pixels=24 * 32)
    assert store.add(encode_picture(image=make_picture(24, 32)), "at").uploaded
    assert store.add(encode_picture(image=make_picture(24, 31)), "below").uploaded
    with pytest.raises(TooLargeError, match=r"the limit is 768"):
        store.add(encode_picture(image=make_picture(769, 1)), "above")
    assert ImageStore(max_pixels=89_478_485).max_pixels == 89_478_485
    with pytest.raises(OptionError, match="max_pixels must be at most 89478485"):
        ImageStore(max_pixels=89_478_486)


def test_oldest_upload_is_removed_first() -> None:
    store = ImageStore(max_uploads=2)
    added = [
        store.add(encode_picture(image=make_picture(seed=seed)), f"{seed}") for seed in range(3)
    ]
    assert [image.name for image in store.list_images(0, 9)] == ["1", "2"]
    with pytest.raises(NotFoundError, match="may have been removed"):
        store[added[0].id]
    store.add(encode_picture(image=make_picture(seed=1)), "1")  # uploaded again: now the newest
    store.add(encode_picture(image=make_picture(seed=3)), "3")
    assert [image.name for image in store.list_images(0, 9)] == ["1", "3"]


def test_memory_of_uploads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actgrid.web.images._MAX_UPLOAD_MEMORY", 3 * 24 * 32 * 3)
    store = ImageStore()
    for seed in range(5):
        store.add(encode_picture(image=make_picture(seed=seed)), f"{seed}")
    assert [image.name for image in store.list_images(0, 9)] == ["2", "3", "4"]
    store.add(
        encode_picture(image=make_picture(200, 100)), "alone"
    )  # the newest upload stays even if it exceeds the limit
    assert [image.name for image in store.list_images(0, 9)] == ["alone"]


def test_exif_orientation_is_applied() -> None:
    image = make_picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    source = ImageStore().add(encode_picture("PNG", image, exif=exif), "turned").source
    np.testing.assert_array_equal(np.asarray(source), np.rot90(np.asarray(image), -1))
    assert not source.getexif()


def test_metadata_of_uploads_is_removed() -> None:
    data = encode_picture("JPEG", comment=b"x" * 1000, icc_profile=b"y" * 1000)
    assert ImageStore().add(data, "a").source.info == {}


def test_large_uploads_are_reduced() -> None:
    flat = Image.new("RGB", (4200, 30), (200, 100, 50))
    for image_format in ("PNG", "JPEG"):
        source = ImageStore().add(encode_picture(image_format, flat), "wide").source
        assert source.width == 2048
        assert source.height in (14, 15)
        assert np.abs(np.asarray(source).astype(int) - (200, 100, 50)).max() <= 2
    palette = encode_picture("PNG", flat.convert("P"))
    assert ImageStore().add(palette, "wide").source.mode == "RGB"
    wide = Image.fromarray(np.full((3, 4200), 40_000, np.uint16))
    source = ImageStore().add(encode_picture("PNG", wide), "wide").source
    assert np.asarray(source).max() == 40_000


@pytest.mark.parametrize(
    ("name", "sanitized"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("a\nb\0c\x1b[31m\u202e\ud800.png", "abc[31m.png"),
        ("chat été 猫.png", "chat été 猫.png"),
        ("x" * 500, "x" * 200),
        ("\r\n", "image"),
        ("", "image"),
    ],
)
def test_names_of_uploads_are_sanitized(name: str, sanitized: str) -> None:
    assert ImageStore().add(encode_picture(), name).name == sanitized


def test_uploads_can_be_disabled() -> None:
    with pytest.raises(OptionError, match="uploads are not accepted"):
        ImageStore(max_uploads=0).add(encode_picture(), "a")


def test_add_is_thread_safe() -> None:
    store = ImageStore(max_uploads=5)
    data = [encode_picture(image=make_picture(seed=seed)) for seed in range(10)]
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(store.add, data * 4, ["a"] * 40))
    assert len({image.id for image in added}) == 10
    assert len(store) == 5
    assert [store[image.id] for image in store.list_images(0, 9)] == store.list_images(0, 9)


# --- invalid uploads ---


def make_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(
    width: int, height: int, *chunks: bytes, pixels: bytes = zlib.compress(bytes(72))
) -> bytes:
    """Return a PNG file with extra chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    all_chunks = [
        make_chunk(b"IHDR", header),
        *chunks,
        make_chunk(b"IDAT", pixels),
        make_chunk(b"IEND"),
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *all_chunks])


def compress_zeros(count: int) -> bytes:
    """Return a number of zero bytes, deflated to a thousandth of their size."""
    return zlib.compress(bytes(count), 9)


def encode_half(image_format: str) -> bytes:
    data = encode_picture(image_format)
    return data[: len(data) // 2]


def make_bmp(width: int, height: int, compression: int, data: bytes, colours: int = 256) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, colours, 0
    )
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + header + bytes(1024) + data


def make_gif(prefix: bytes) -> bytes:
    """Return a GIF with bytes before its first frame."""
    data = encode_picture("GIF", make_picture().convert("L"))
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + prefix + data[start:]


def make_jpeg_with_scans(count: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan `count` times."""
    data = encode_picture("JPEG", Image.new("RGB", (640, 480)), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def make_webp_canvas() -> bytes:
    size = (16383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


TOO_LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "too many bytes": (lambda: bytes(33 * MEGABYTE), "the limit is 33554432"),
    "too many pixels": (lambda: make_png(8000, 7000), "8000 x 7000 pixels; the limit is 50000000"),
    "very many pixels": (lambda: make_png(100_000, 100_000), "more than 50000000 pixels"),
    "a deflated bomb": (
        lambda: make_png(9000, 9000, pixels=compress_zeros(64 * MEGABYTE)),
        "9000 x 9000",
    ),
    "a GIF's frame": (
        lambda: make_gif(b",\0\0\0\0" + struct.pack("<HHB", 65535, 65535, 0) + b"\x08\0"),
        "more than 50000000 pixels",
    ),
    "a BMP upside down": (lambda: make_bmp(1, -(2**31), 0, b""), "more than 50000000 pixels"),
}

INVALID: dict[str, tuple[Callable[[], bytes], str]] = (
    {
        "nothing": (lambda: b"", "empty"),
        "text": (lambda: b"hello", "no PNG, JPEG"),
        "a script": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no PNG, JPEG"),
        "a PDF": (lambda: b"%PDF-1.7\n", "no PNG, JPEG"),
        "an SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no PNG, JPEG"),
        "an ICO": (lambda: encode_picture("ICO"), "no PNG, JPEG"),
        "a TIFF": (lambda: encode_picture("TIFF"), "no PNG, JPEG"),
        "a PPM": (lambda: encode_picture("PPM"), "no PNG, JPEG"),
        "a PNG's signature": (lambda: b"\x89PNG\r\n\x1a\n", "no PNG, JPEG"),
        "no pixels": (lambda: make_png(8, 8, pixels=b""), "broken"),
        "no width": (lambda: make_png(0, 8), "no PNG"),
        "a WebP's canvas": (make_webp_canvas, "50000000|broken"),  # depends on the decoder
        "a giant text": (
            lambda: make_png(8, 8, make_chunk(b"zTXt", b"a\0\0" + compress_zeros(90 * MEGABYTE))),
            "large",
        ),
        "a giant profile": (
            lambda: make_png(8, 8, make_chunk(b"iCCP", b"a\0\0" + compress_zeros(90 * MEGABYTE))),
            "large",
        ),
        "tiny chunks": (
            lambda: make_png(8, 8, make_chunk(b"tEXt", b"a\0b") * 200_000),
            "small pieces",
        ),
        "tiny pixels": (lambda: make_png(8, 8, make_chunk(b"IDAT") * 200_000), "small pieces"),
        "tiny comments": (lambda: make_gif(b"!\xfe" + b"\x01a" * 500_000 + b"\0"), "small pieces"),
        "tiny extensions": (lambda: make_gif(b"!\x01\x01a\0" * 500_000), "small pieces"),
        "tiny segments": (
            lambda: b"\xff\xd8" + b"\xff\xfe\0\x03a" * 500_000 + encode_picture("JPEG")[2:],
            "small pieces",
        ),
        "tiny runs": (lambda: make_bmp(7000, 7000, 1, b"\x01\0" * 500_000), "small pieces"),
        "many scans": (lambda: make_jpeg_with_scans(50), "too many scans"),
        "many segments after the first scan": (
            lambda: encode_picture("JPEG")[:-2] + b"\xff\xfe\0\x03a" * 3000 + b"\xff\xd9",
            "too many scans",
        ),
        "a BMP's palette": (lambda: make_bmp(4, 4, 0, bytes(16), 2**31), "broken"),
        "a WebP's header": (lambda: encode_picture("WEBP")[:20], "broken"),
    }
    | {
        f"half a {image_format}": (functools.partial(encode_half, image_format), "broken")
        for image_format in ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    }
)


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_too_large_uploads_are_rejected_before_decoding(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(image: Any) -> Any:
        raise AssertionError("the image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    make, message = TOO_LARGE[kind]
    store = ImageStore()
    with pytest.raises(TooLargeError, match=message):
        store.add(make(), "bomb")
    assert len(store) == 0


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_uploads_are_rejected(kind: str) -> None:
    make, message = INVALID[kind]
    store = ImageStore()
    with pytest.raises(ImageError, match=message) as raised:
        store.add(make(), "wrong")
    assert isinstance(raised.value, ActgridError)
    assert len(store) == 0


def test_text_chunk_is_removed() -> None:
    source = ImageStore().add(make_png(8, 8, make_chunk(b"tEXt", b"Title\0A cat")), "cat").source
    assert (source.size, source.info) == ((8, 8), {})


def test_data_after_a_jpeg_is_ignored() -> None:
    # Phones append videos, which may contain the bytes of segment markers.
    data = encode_picture("JPEG") + b"\xff\xda" * 10_000
    assert ImageStore().add(data, "photo").source.size == (32, 24)


def test_progressive_jpeg_is_accepted() -> None:
    assert ImageStore().add(make_jpeg_with_scans(1), "photo").source.size == (640, 480)


# --- thumbnails ---


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp"])
def test_thumbnail_of_a_file(suffix: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), (200, 100, 50))
    image.save(tmp_path / f"a.{suffix}")
    small = Image.open(io.BytesIO(make_thumbnail(tmp_path / f"a.{suffix}")))
    assert (small.format, small.size) == ("JPEG", (128, 64))
    assert np.abs(np.asarray(small).astype(int) - (200, 100, 50)).max() < 8


def test_thumbnails_of_arrays_and_pillow_images() -> None:
    for source in (
        np.full((300, 30), 99.0),
        make_picture(300, 30),
        np.zeros((300, 30, 4), np.uint8),
    ):
        assert Image.open(io.BytesIO(make_thumbnail(source))).size == (13, 128)
    assert Image.open(io.BytesIO(make_thumbnail(make_picture(9, 7)))).size == (
        7,
        9,
    )  # never enlarged


def test_thumbnail_of_invalid_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png"):
        make_thumbnail(tmp_path / "a.png")
    (tmp_path / "half.png").write_bytes(encode_picture()[:400])
    with pytest.raises(ImageError, match=r"half.png is truncated"):
        make_thumbnail(tmp_path / "half.png")
    # The message does not contain the folder.
    with pytest.raises(
        ImageError, match=r"^missing.png cannot be read: No such file or directory$"
    ):
        make_thumbnail(tmp_path / "missing.png")
    (tmp_path / "bomb.png").write_bytes(make_png(100_000, 100_000))
    with pytest.raises(TooLargeError, match=r"bomb\.png"):
        make_thumbnail(tmp_path / "bomb.png")


def test_scaled_size_considers_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    make_picture(100, 400).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as turned:
        assert compute_scaled_size(turned, 200) == (200, 50)
    assert compute_scaled_size(read_image(tmp_path / "turned.jpg"), 200) == (200, 50)
    assert compute_scaled_size(make_picture(100, 400), 200) == (50, 200)
    assert compute_scaled_size(np.zeros((3, 1000)), 100) == (1, 100)
    assert compute_scaled_size(np.zeros((30, 20, 3)), 100) == (30, 20)
