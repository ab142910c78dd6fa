"""The images that can be looked at, and what strangers may send."""

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
from actgrid.web.images import ImageStore, read_image, sides_within, thumbnail

MEGABYTE = 1 << 20


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def encoded(form: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "dogs").mkdir(parents=True)
    for seed, name in enumerate(["b.png", "a.jpg", "dogs/rex.bmp"]):
        picture(seed=seed).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


# --- what is given ---


@pytest.mark.parametrize("images", ["", [""]])
def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Any
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="the path of an image is empty"):
        ImageStore(images)


def test_lists_a_folder_in_order(folder: Path) -> None:
    store = ImageStore(folder)
    listed = store.listed(0, 10)
    assert [image.name for image in listed] == ["a.jpg", "b.png", "dogs/rex.bmp"]
    assert len(store) == 3
    for image in listed:
        assert store[image.id] is image
        assert len(image.id) == 16
        assert set(image.id) <= set("0123456789abcdef")
    # Ids are those of the names: the same the next time, wherever the folder is.
    moved = folder.rename(folder.parent / "elsewhere")
    assert [image.id for image in ImageStore(moved).listed(0, 10)] == [one.id for one in listed]


def test_lists_a_part(folder: Path) -> None:
    store = ImageStore(folder)
    upload = store.add(encoded(), "new")
    names = ["a.jpg", "b.png", "dogs/rex.bmp", "new"]
    for offset in range(6):
        for limit in range(6):
            found = [image.name for image in store.listed(offset, limit)]
            assert found == names[offset : offset + limit]
    assert store.listed(3, 1) == [upload]


def test_opens_no_file_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        (tmp_path / f"{number:03}.png").touch()

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    store = ImageStore(tmp_path)
    assert len(store) == 500
    assert store.listed(499, 5)[0].name == "499.png"


def test_takes_what_load_images_takes(folder: Path) -> None:
    array = np.zeros((2, 4, 5, 3), np.uint8)
    sources = [folder / "a.jpg", str(folder / "*.png"), picture(), array, array[0]]
    store = ImageStore(sources)
    names = [image.name for image in store.listed(0, 10)]
    assert names == ["a.jpg", "b.png", "image", "image (2)", "image (3)", "image (4)"]
    for image in store.listed(0, 10):
        assert load_images(image.source).shape[3] == 3
    assert [image.name for image in ImageStore(Image.open(folder / "b.png")).listed(0, 1)] == [
        "b.png"
    ]


def test_names_are_unique_and_files_are_there_once(folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    picture(seed=9).save(other / "a.jpg")
    store = ImageStore([folder, other, folder / "a.jpg", folder])
    listed = store.listed(0, 10)
    assert [image.name for image in listed] == ["a.jpg", "b.png", "dogs/rex.bmp", "a.jpg (2)"]
    assert listed[3].source == other / "a.jpg"


def test_an_empty_store_has_nothing() -> None:
    store = ImageStore()
    assert (len(store), store.listed(0, 10)) == (0, [])


@pytest.mark.parametrize("image", ["", "../../etc/passwd", "a.jpg", "0" * 16])
def test_what_is_no_id_is_not_found(folder: Path, image: str) -> None:
    with pytest.raises(NotFoundError, match="no such image"):
        ImageStore(folder)[image]


def test_finds_images_by_name_and_by_path(folder: Path) -> None:
    store = ImageStore(folder)
    for name in ("dogs/rex.bmp", "photos/dogs/rex.bmp", str(folder / "dogs" / "rex.bmp")):
        found = store.find(name)
        assert found is not None
        assert found.name == "dogs/rex.bmp"
    assert store.find("000017") is None
    assert store.find("") is None


def test_what_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is no image"):
        ImageStore(tmp_path / "none.png")
    with pytest.raises(MissingFileError, match="holds no images"):
        ImageStore(tmp_path)
    with pytest.raises(OptionError, match="images are files"):
        ImageStore(17)
    with pytest.raises(ShapeError, match=r"\(H, W\)"):
        ImageStore(np.zeros(5))
    with pytest.raises(OptionError, match="most_bytes must be at least 1"):
        ImageStore(most_bytes=0)
    (tmp_path / "half.png").write_bytes(encoded()[:400])
    with (
        Image.open(tmp_path / "half.png") as half,
        pytest.raises(ImageError, match="truncated"),
    ):
        ImageStore(half)


# --- what is uploaded ---


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_an_upload_is_the_image_that_the_file_would_be(form: str, tmp_path: Path) -> None:
    data = encoded(form)
    store = ImageStore()
    added = store.add(data, f"cat.{form}")
    assert store[added.id] == added
    (tmp_path / f"cat.{form.lower()}").write_bytes(data)
    np.testing.assert_array_equal(
        load_images(added.source, preprocess="none"),
        load_images(tmp_path / f"cat.{form.lower()}", preprocess="none"),
    )


def transparent() -> Image.Image:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.info["transparency"] = 3
    return image


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda: picture().convert("L"), "PNG"),
        (lambda: picture().convert("1"), "PNG"),
        (lambda: picture().convert("LA"), "PNG"),
        (lambda: picture().convert("RGBA"), "WEBP"),
        (lambda: picture().convert("CMYK"), "JPEG"),
        (lambda: Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100), "PNG"),
        (transparent, "PNG"),
    ],
)
def test_modes_are_kept(make: Callable[[], Image.Image], form: str, tmp_path: Path) -> None:
    image = make()
    data = encoded(form, image, **({"transparency": 3} if image.mode == "P" else {}))
    (tmp_path / f"a.{form.lower()}").write_bytes(data)
    np.testing.assert_array_equal(
        load_images(ImageStore().add(data, "a").source, preprocess="none"),
        load_images(tmp_path / f"a.{form.lower()}", preprocess="none"),
    )


def test_the_same_bytes_are_the_same_image() -> None:
    store = ImageStore()
    one, other = store.add(encoded(), "one"), store.add(encoded(), "other")
    assert (one, len(store)) == (other, 1)
    assert other.name == "one"
    assert store.add(encoded(image=picture(seed=1)), "one").id != one.id


def test_only_uploads_are_removed(folder: Path) -> None:
    store = ImageStore(folder)
    given = store.listed(0, 99)
    added = store.add(encoded(), "added")
    assert added.uploaded
    assert not any(image.uploaded for image in given)
    store.remove(added.id)
    assert store.listed(0, 99) == given
    with pytest.raises(NotFoundError, match="may have been removed"):
        store.remove(added.id)
    with pytest.raises(OptionError, match=f"{given[0].name} cannot be removed"):
        store.remove(given[0].id)
    assert store.listed(0, 99) == given
    assert store.add(encoded(), "again").id == added.id


def test_an_upload_may_have_all_the_pixels_of_the_limit() -> None:
    store = ImageStore(most_pixels=24 * 32)
    assert store.add(encoded(image=picture(24, 32)), "at").uploaded
    assert store.add(encoded(image=picture(24, 31)), "below").uploaded
    with pytest.raises(TooLargeError, match=r"at most 768 are taken"):
        store.add(encoded(image=picture(769, 1)), "above")
    assert ImageStore(most_pixels=89_478_485).most_pixels == 89_478_485
    with pytest.raises(OptionError, match="most_pixels must be at most 89478485"):
        ImageStore(most_pixels=89_478_486)


def test_the_oldest_upload_is_forgotten_first() -> None:
    store = ImageStore(most_uploads=2)
    added = [store.add(encoded(image=picture(seed=seed)), f"{seed}") for seed in range(3)]
    assert [image.name for image in store.listed(0, 9)] == ["1", "2"]
    with pytest.raises(NotFoundError, match="forgotten"):
        store[added[0].id]
    store.add(encoded(image=picture(seed=1)), "1")  # again: now it is the newest
    store.add(encoded(image=picture(seed=3)), "3")
    assert [image.name for image in store.listed(0, 9)] == ["1", "3"]


def test_uploads_take_so_much_memory_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actgrid.web.images._MOST_KEPT", 3 * 24 * 32 * 3)
    store = ImageStore()
    for seed in range(5):
        store.add(encoded(image=picture(seed=seed)), f"{seed}")
    assert [image.name for image in store.listed(0, 9)] == ["2", "3", "4"]
    store.add(encoded(image=picture(200, 100)), "alone")  # more than all may take: it stays
    assert [image.name for image in store.listed(0, 9)] == ["alone"]


def test_a_turned_photo_is_turned_back() -> None:
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    source = ImageStore().add(encoded("PNG", image, exif=exif), "turned").source
    np.testing.assert_array_equal(np.asarray(source), np.rot90(np.asarray(image), -1))
    assert not source.getexif()


def test_nothing_but_pixels_is_kept() -> None:
    data = encoded("JPEG", comment=b"x" * 1000, icc_profile=b"y" * 1000)
    assert ImageStore().add(data, "a").source.info == {}


def test_a_large_upload_is_made_smaller() -> None:
    flat = Image.new("RGB", (4200, 30), (200, 100, 50))
    for form in ("PNG", "JPEG"):
        source = ImageStore().add(encoded(form, flat), "wide").source
        assert source.width == 2048
        assert source.height in (14, 15)
        assert np.abs(np.asarray(source).astype(int) - (200, 100, 50)).max() <= 2
    palette = encoded("PNG", flat.convert("P"))
    assert ImageStore().add(palette, "wide").source.mode == "RGB"
    wide = Image.fromarray(np.full((3, 4200), 40_000, np.uint16))
    source = ImageStore().add(encoded("PNG", wide), "wide").source
    assert np.asarray(source).max() == 40_000


@pytest.mark.parametrize(
    ("name", "shown"),
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
def test_names_are_only_shown(name: str, shown: str) -> None:
    assert ImageStore().add(encoded(), name).name == shown


def test_uploads_may_be_refused_altogether() -> None:
    with pytest.raises(OptionError, match="no images can be added"):
        ImageStore(most_uploads=0).add(encoded(), "a")


def test_uploads_may_come_from_several_threads() -> None:
    store = ImageStore(most_uploads=5)
    data = [encoded(image=picture(seed=seed)) for seed in range(10)]
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(store.add, data * 4, ["a"] * 40))
    assert len({image.id for image in added}) == 10
    assert len(store) == 5
    assert [store[image.id] for image in store.listed(0, 9)] == store.listed(0, 9)


# --- what strangers may send ---


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, pixels: bytes = zlib.compress(bytes(72))) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), chunk(b"IEND")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks])


def zeros(count: int) -> bytes:
    """As many zeros, deflated: a thousandth of their size."""
    return zlib.compress(bytes(count), 9)


def half(form: str) -> bytes:
    data = encoded(form)
    return data[: len(data) // 2]


def bmp(width: int, height: int, compression: int, data: bytes, colours: int = 256) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, colours, 0
    )
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + header + bytes(1024) + data


def gif(before: bytes) -> bytes:
    """A GIF with something before its picture."""
    data = encoded("GIF", picture().convert("L"))
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + before + data[start:]


def scans(count: int) -> bytes:
    """A progressive JPEG with its last scan so often."""
    data = encoded("JPEG", Image.new("RGB", (640, 480)), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + b"\xff\xd9"


def webp_canvas() -> bytes:
    size = (16383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


TOO_LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "too many bytes": (lambda: bytes(33 * MEGABYTE), "at most 33554432"),
    "too many pixels": (lambda: png(8000, 7000), "8000 x 7000 pixels; at most 50000000"),
    "very many pixels": (lambda: png(100_000, 100_000), "more than 50000000 pixels"),
    "a deflated bomb": (
        lambda: png(9000, 9000, pixels=zeros(64 * MEGABYTE)),
        "9000 x 9000",
    ),
    "a GIF's frame": (
        lambda: gif(b",\0\0\0\0" + struct.pack("<HHB", 65535, 65535, 0) + b"\x08\0"),
        "more than 50000000 pixels",
    ),
    "a BMP upside down": (lambda: bmp(1, -(2**31), 0, b""), "more than 50000000 pixels"),
}

WRONG: dict[str, tuple[Callable[[], bytes], str]] = (
    {
        "nothing": (lambda: b"", "empty"),
        "text": (lambda: b"hello", "no PNG, JPEG"),
        "a script": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no PNG, JPEG"),
        "a PDF": (lambda: b"%PDF-1.7\n", "no PNG, JPEG"),
        "an SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no PNG, JPEG"),
        "an ICO": (lambda: encoded("ICO"), "no PNG, JPEG"),
        "a TIFF": (lambda: encoded("TIFF"), "no PNG, JPEG"),
        "a PPM": (lambda: encoded("PPM"), "no PNG, JPEG"),
        "a PNG's signature": (lambda: b"\x89PNG\r\n\x1a\n", "no PNG, JPEG"),
        "no pixels": (lambda: png(8, 8, pixels=b""), "broken"),
        "no width": (lambda: png(0, 8), "no PNG"),
        "a WebP's canvas": (webp_canvas, "50000000|broken"),  # which not every decoder begins with
        "a giant text": (
            lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + zeros(90 * MEGABYTE))),
            "large",
        ),
        "a giant profile": (
            lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + zeros(90 * MEGABYTE))),
            "large",
        ),
        "tiny chunks": (lambda: png(8, 8, chunk(b"tEXt", b"a\0b") * 200_000), "small pieces"),
        "tiny pixels": (lambda: png(8, 8, chunk(b"IDAT") * 200_000), "small pieces"),
        "tiny comments": (lambda: gif(b"!\xfe" + b"\x01a" * 500_000 + b"\0"), "small pieces"),
        "tiny extensions": (lambda: gif(b"!\x01\x01a\0" * 500_000), "small pieces"),
        "tiny segments": (
            lambda: b"\xff\xd8" + b"\xff\xfe\0\x03a" * 500_000 + encoded("JPEG")[2:],
            "small pieces",
        ),
        "tiny runs": (lambda: bmp(7000, 7000, 1, b"\x01\0" * 500_000), "small pieces"),
        "many scans": (lambda: scans(50), "too many scans"),
        "many segments after the first scan": (
            lambda: encoded("JPEG")[:-2] + b"\xff\xfe\0\x03a" * 3000 + b"\xff\xd9",
            "too many scans",
        ),
        "a BMP's palette": (lambda: bmp(4, 4, 0, bytes(16), 2**31), "broken"),
        "a WebP's header": (lambda: encoded("WEBP")[:20], "broken"),
    }
    | {
        f"half a {form}": (functools.partial(half, form), "broken")
        for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP")
    }
)


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(image: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    make, message = TOO_LARGE[kind]
    store = ImageStore()
    with pytest.raises(TooLargeError, match=message):
        store.add(make(), "bomb")
    assert len(store) == 0


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_refused(kind: str) -> None:
    make, message = WRONG[kind]
    store = ImageStore()
    with pytest.raises(ImageError, match=message) as raised:
        store.add(make(), "wrong")
    assert isinstance(raised.value, ActgridError)
    assert len(store) == 0


def test_a_text_beside_the_pixels_does_no_harm() -> None:
    source = ImageStore().add(png(8, 8, chunk(b"tEXt", b"Title\0A cat")), "cat").source
    assert (source.size, source.info) == ((8, 8), {})


def test_a_film_behind_a_photo_does_no_harm() -> None:
    # As phones append: with what looks like segments.
    data = encoded("JPEG") + b"\xff\xda" * 10_000
    assert ImageStore().add(data, "photo").source.size == (32, 24)


def test_a_progressive_photo_is_taken() -> None:
    assert ImageStore().add(scans(1), "photo").source.size == (640, 480)


# --- small pictures ---


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "gif", "bmp"])
def test_thumbnails_are_small_and_like_the_image(form: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), (200, 100, 50))
    image.save(tmp_path / f"a.{form}")
    small = Image.open(io.BytesIO(thumbnail(tmp_path / f"a.{form}")))
    assert (small.format, small.size) == ("JPEG", (128, 64))
    assert np.abs(np.asarray(small).astype(int) - (200, 100, 50)).max() < 8


def test_thumbnails_are_of_arrays_and_pictures_too() -> None:
    for source in (np.full((300, 30), 99.0), picture(300, 30), np.zeros((300, 30, 4), np.uint8)):
        assert Image.open(io.BytesIO(thumbnail(source))).size == (13, 128)
    assert Image.open(io.BytesIO(thumbnail(picture(9, 7)))).size == (7, 9)  # never enlarged


def test_a_thumbnail_of_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png"):
        thumbnail(tmp_path / "a.png")
    (tmp_path / "half.png").write_bytes(encoded()[:400])
    with pytest.raises(ImageError, match=r"half.png is truncated"):
        thumbnail(tmp_path / "half.png")
    # Where it was is nobody's business.
    with pytest.raises(ImageError, match=r"^gone.png cannot be read: No such file or directory$"):
        thumbnail(tmp_path / "gone.png")
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(TooLargeError, match=r"bomb\.png"):
        thumbnail(tmp_path / "bomb.png")


def test_sides_are_scaled_and_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture(100, 400).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as turned:
        assert sides_within(turned, 200) == (200, 50)
    assert sides_within(read_image(tmp_path / "turned.jpg"), 200) == (200, 50)
    assert sides_within(picture(100, 400), 200) == (50, 200)
    assert sides_within(np.zeros((3, 1000)), 100) == (1, 100)
    assert sides_within(np.zeros((30, 20, 3)), 100) == (30, 20)
