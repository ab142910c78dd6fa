"""Tests of reading samples from files: arrays, audio, tables, volumes, videos and texts."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import pywt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import (
    ActgridError,
    FormatError,
    ImageError,
    MissingDependencyError,
    MissingFileError,
    OptionError,
    ShapeError,
    TooLargeError,
)
from actgrid.models import InputInfo, file_checks
from actgrid.models.sample_files import Samples, find_sample_files, is_sample_file, read_samples
from actgrid.models.sample_inputs import find_sample_kind
from actgrid.models.vocabularies import Tokenizer, read_vocabulary

Array = npt.NDArray[Any]

NIBABEL_DATA = Path(nibabel.__file__).parent / "tests" / "data"


def make_model(*shape: int | None, dtype: str = "float32") -> Any:
    """Return a model with inputs of this shape."""
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layers.Identity()(inputs))


def get_array(samples: Samples) -> Array:
    """Return the batch of samples that are no dict."""
    assert not isinstance(samples.batch, dict)
    return samples.batch


# Models are not changed by reading, so that the tests share them.
SEQUENCE_MODEL = make_model(None, 1)
TABLE_MODEL = make_model(3)
VOLUME_MODEL = make_model(None, None, None, 1)
VIDEO_MODEL = make_model(4, 6, 8, 3)
TOKEN_MODEL = make_model(5, dtype="int32")
TEXT_MODEL = make_model(dtype="string")


class Unknown:
    """Network that does not tell its inputs."""

    name = "unknown"
    inputs: tuple[InputInfo, ...] = ()
    outputs = ("out",)

    def list_layers(self, x: Any = None) -> list[Any]:
        return []

    def run(self, x: Any, paths: Any) -> dict[str, Any]:
        return {}

    def fingerprint(self) -> str:
        return "unknown"


# --- Kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "tokens", "expected"),
    [
        ((8, 8, 3), "float32", None, "image"),
        ((100, 2), "float32", None, "sequence"),
        ((7,), "float32", None, "table"),
        ((), "float32", None, "table"),
        ((20,), "int32", None, "table"),
        ((20,), "int32", ["a"], "text"),
        ((20,), "float32", ["a"], "text"),
        ((20, 4), "float32", ["a"], "sequence"),
        ((), "string", None, "text"),
        ((1,), "string", None, "text"),
        ((4, 8, 8, 1), "float32", None, "volume"),
        ((2, 4, 8, 8, 1), "float32", None, None),
    ],
)
def test_kind_of_samples(shape: Any, dtype: str, tokens: Any, expected: str | None) -> None:
    assert find_sample_kind(make_model(*shape, dtype=dtype), tokens) == expected


def test_kind_of_several_inputs_and_of_unknown_inputs() -> None:
    inputs = [keras.Input((3,)), keras.Input((2, 4, 4, 1)), keras.Input((4, 4, 1))]
    assert find_sample_kind(keras.Model(inputs, layers.Identity()(inputs[0]))) == "image"
    assert find_sample_kind(keras.Sequential([layers.Dense(2)])) is None
    assert find_sample_kind(Unknown()) is None


def test_files_of_samples(tmp_path: Path) -> None:
    names = ["a.npy", "a.NPZ", "a.wav", "a.csv", "a.tsv", "a.nii", "a.nii.gz"]
    assert all(is_sample_file(name) for name in names)
    volume_names = ["a.tif", "a.tiff", "a.gif", "a.webp"]
    assert not any(is_sample_file(name, "image") for name in volume_names)
    assert all(is_sample_file(name, "volume") for name in volume_names)
    assert is_sample_file("a.txt", "text")
    assert not is_sample_file("a.txt")
    assert not is_sample_file("a.jpg", "volume")
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (0, 100)]
    frames[0].save(tmp_path / "still.png")
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert not is_sample_file(tmp_path / "still.png", "volume")
    assert is_sample_file(tmp_path / "moving.png", "volume")
    assert not is_sample_file(tmp_path / "moving.png", "image")
    assert not is_sample_file(tmp_path / "missing.png", "volume")


# --- Arrays ------------------------------------------------------------------------------------


@given(
    array=npst.arrays(
        st.sampled_from(["u1", ">i2", "<i8", "f2", ">f4", "f8", "?"]),
        npst.array_shapes(min_dims=2, max_dims=2, max_side=5),
    ),
    is_sample=st.booleans(),
    has_channels=st.booleans(),
)
def test_arrays(
    array: Array, is_sample: bool, has_channels: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    expected = array[..., None]
    if is_sample:
        array, expected = array[0], expected[:1]
    # (N, 1) of one axis less is a sample (T, 1), as the model declares.
    is_ambiguous = not is_sample and not has_channels and array.shape[1] == 1
    np.save(path, array[..., None] if has_channels else array)
    samples = read_samples(path, SEQUENCE_MODEL)
    batch = get_array(samples)
    np.testing.assert_array_equal(batch, array[None] if is_ambiguous else expected)
    assert batch.dtype == array.dtype.newbyteorder("=")
    assert len(samples.names) == len(batch)
    assert samples.names[0] == ("a.npy" if len(batch) == 1 else "a[0].npy")


def test_array_of_channels_first_model_and_fortran_order(tmp_path: Path) -> None:
    inputs = keras.Input((1, 4, 5, 6))
    layer = layers.MaxPooling3D(1, data_format="channels_first")
    model = keras.Model(inputs, layer(inputs))
    volumes = np.asfortranarray(np.random.default_rng(0).normal(size=(2, 4, 5, 6)))
    np.save(tmp_path / "v.npy", volumes)
    batch = get_array(read_samples(tmp_path / "v.npy", model))
    np.testing.assert_array_equal(batch, volumes[:, None])
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(
        tmp_path / "v.tif", save_all=True, append_images=[Image.new("L", (6, 5), 9)] * 3
    )
    assert get_array(read_samples(tmp_path / "v.tif", model)).shape == (1, 1, 4, 5, 6)


def test_npz_of_one_array_and_of_several_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    table = np.arange(6.0).reshape(2, 3)
    np.savez_compressed(path, any_name=table)
    np.testing.assert_array_equal(get_array(read_samples(path, TABLE_MODEL)), table)
    image, age = keras.Input((4, 4, 1), name="image"), keras.Input((1,), name="age")
    model = keras.Model([image, age], layers.Dense(1)(layers.Flatten()(image)) + age)
    np.savez(path, image=np.ones((2, 4, 4)), age=np.array([[30], [40]]))
    samples = read_samples(path, model)
    assert isinstance(samples.batch, dict)
    assert samples.batch["image"].shape == (2, 4, 4, 1)
    assert samples.names == ("a[0].npz", "a[1].npz")
    assert model.predict(samples.batch, verbose=0).shape == (2, 1)
    np.savez(path, image=np.ones((4, 4)), age=np.array([30]))
    assert read_samples(path, model).names == ("a.npz",)
    np.savez(path, image=np.ones((2, 4, 4)), age=np.ones((3, 1)))
    with pytest.raises(ShapeError, match="different lengths"):
        read_samples(path, model)
    np.savez(path, image=np.ones((2, 4, 4)), agee=np.ones((2, 1)))
    with pytest.raises(ShapeError, match="did you mean age"):
        read_samples(path, model)
    np.savez(path, image=np.ones((2, 4, 4)))
    with pytest.raises(ShapeError, match="'age'"):
        read_samples(path, model)
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(ShapeError, match=r"2 inputs \('image', 'age'\): expected a .npz"):
        read_samples(tmp_path / "a.csv", model)


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 90, 3)))
    with pytest.raises(ShapeError, match=r"\(2, 90, 3\).*\(N, T=100, C=3\).*\(T=100, C=3\)"):
        read_samples(path, make_model(100, 3))
    np.save(path, np.ones((0, 3)))
    with pytest.raises(FormatError, match="empty array"):
        read_samples(path, TABLE_MODEL)
    np.save(path, np.array(["a", "b"]))
    with pytest.raises(FormatError, match="expected numbers"):
        read_samples(path, TABLE_MODEL)
    assert get_array(read_samples(path, TEXT_MODEL)).tolist() == ["a", "b"]


def test_unknown_model_gets_arrays_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    assert get_array(read_samples(tmp_path / "a.npy", Unknown())).shape == (2, 3, 4)
    (tmp_path / "a.csv").write_text("1,2\n3,4\n5,6\n")
    assert get_array(read_samples(tmp_path / "a.csv", Unknown())).shape == (3, 2)
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.ones(3))
    batch = read_samples(tmp_path / "a.npz", Unknown()).batch
    assert isinstance(batch, dict)
    assert set(batch) == {"x", "y"}


# --- Audio -------------------------------------------------------------------------------------


def write_wave(path: Path, values: Array, width: int) -> None:
    """Write integers (T, channels), of this many bytes each, with the module wave."""
    with wave.open(str(path), "wb") as file:
        file.setparams((values.shape[1], width, 8000, len(values), "NONE", ""))
        offset = 128 if width == 1 else 0
        file.writeframes(
            b"".join(
                int(value + offset).to_bytes(width, "little", signed=width > 1)
                for value in values.ravel()
            )
        )


@given(data=st.data(), width=st.sampled_from([1, 2, 3, 4]), channels=st.integers(1, 3))
def test_audio_of_integers(
    data: st.DataObject, width: int, channels: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limit = 1 << (8 * width - 1)
    integers = st.integers(-limit, limit - 1)
    rows = data.draw(
        st.lists(st.lists(integers, min_size=channels, max_size=channels), min_size=1, max_size=9)
    )
    values = np.array(rows, np.int64)
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    write_wave(path, values, width)
    expected = values / limit
    batch = get_array(read_samples(path, make_model(None, channels)))
    expected_batch = expected if channels > 1 else expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(batch[0], expected_batch, rtol=1e-6, atol=1e-9)
    assert batch.dtype == np.float32
    mono = get_array(read_samples(path, SEQUENCE_MODEL))
    np.testing.assert_allclose(mono[0, :, 0], expected.mean(axis=1), rtol=1e-5, atol=1e-6)


def make_riff(tag: int, channels: int, bits: int, data: bytes, extension: bytes = b"") -> bytes:
    """Return a .wav file with an odd chunk before its data."""
    size = channels * bits // 8
    header = struct.pack("<HHIIHH", tag, channels, 8000, 8000 * size, size, bits) + extension
    chunks = [(b"fmt ", header), (b"LIST", b"odd"), (b"data", data)]
    body = b"".join(
        name + struct.pack("<I", len(chunk)) + chunk + b"\0" * (len(chunk) % 2)
        for name, chunk in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def test_audio_of_floats_and_extensible_format(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    values = np.array([[0.5, -0.25], [1.5, 0]], np.float32)
    stereo_model = make_model(None, 2)
    for bits in (32, 64):
        path.write_bytes(make_riff(3, 2, bits, values.astype(f"<f{bits // 8}").tobytes()))
        np.testing.assert_array_equal(get_array(read_samples(path, stereo_model))[0], values)
    guid = bytes.fromhex("0000 1000 8000 00AA00389B71")
    extension = struct.pack("<HHIH", 22, 16, 3, 1) + guid
    path.write_bytes(make_riff(0xFFFE, 2, 16, struct.pack("<4h", 1, 2, 3, 4), extension))
    expected = np.array([[1, 2], [3, 4]]) / 32768
    np.testing.assert_array_equal(get_array(read_samples(path, stereo_model))[0], expected)
    content = make_riff(1, 1, 16, struct.pack("<2h", 1, 2))
    # Programs that write to a pipe do not know the length.
    path.write_bytes(content[:-8] + b"\xff\xff\xff\xff" + content[-4:] + b"\0")
    assert get_array(read_samples(path, SEQUENCE_MODEL)).shape == (1, 2, 1)


def test_audio_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wave(path, np.arange(20).reshape(10, 2), 2)
    assert get_array(read_samples(path, make_model(10))).shape == (1, 10)
    assert get_array(read_samples(path, make_model(None, None))).shape == (1, 10, 2)
    assert get_array(read_samples(path, Unknown())).shape == (1, 10, 2)
    with pytest.raises(ShapeError, match=r"a.wav has 2 channels; the model takes 3"):
        read_samples(path, make_model(None, 3))
    with pytest.raises(ShapeError, match=r"\(T=10, C=2\); the model takes \(T=16, C=2\)"):
        read_samples(path, make_model(16, 2))
    with pytest.raises(ShapeError, match="holds audio; the model takes images"):
        read_samples(path, make_model(8, 8, 3))


# --- Tables ------------------------------------------------------------------------------------


def test_electrocardiogram(tmp_path: Path) -> None:
    ecg = pywt.data.ecg()
    path = tmp_path / "ecg.csv"
    np.savetxt(path, ecg, fmt="%d", header="millivolts", comments="")
    samples = read_samples(path, make_model(1024, 1))
    np.testing.assert_array_equal(get_array(samples)[0, :, 0], ecg)
    assert samples.names == ("ecg.csv",)
    assert samples.features == ("millivolts",)
    with pytest.raises(ShapeError, match=r"\(T=1024, C=1\); the model takes \(T=1000, C=1\)"):
        read_samples(path, make_model(1000, 1))


@given(
    values=npst.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.just(3)),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
    has_header=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_tables(
    values: Array,
    delimiter: str,
    has_header: bool,
    newline: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("tables") / ("a.tsv" if delimiter == "\t" else "a.csv")
    header = ["age", '"height, cm"', "sex"] if has_header else None
    rows = [*([header] if header else []), *[map(repr, map(float, row)) for row in values]]
    text = newline.join(delimiter.join(row) for row in rows) + newline * 2
    path.write_text(text, encoding="utf-8-sig", newline="")
    samples = read_samples(path, TABLE_MODEL)
    np.testing.assert_array_equal(get_array(samples), values.astype(np.float32))
    assert samples.features == (("age", "height, cm", "sex") if has_header else None)
    assert len(samples.names) == len(values)
    sequence = get_array(read_samples(path, make_model(None, 3)))
    np.testing.assert_array_equal(sequence, values[None].astype(np.float32))


def test_tables_of_indices_and_of_single_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1,2,3,0,0\n16777217,5,6,7,8\n")
    for tokens in (None, ["", "a"]):
        batch = get_array(read_samples(path, TOKEN_MODEL, tokens=tokens))
        assert batch.dtype == np.int32
        assert batch[1, 0] == 16777217  # which float32 cannot hold
    path.write_text("1.5,2,3,0,0\n")
    with pytest.raises(FormatError, match=r"value 1.5: the model takes integers of int32"):
        read_samples(path, TOKEN_MODEL)
    path.write_text("1\n2\n")
    assert get_array(read_samples(path, make_model())).tolist() == [1, 2]
    path.write_text("1,2\n2,3\n")
    with pytest.raises(ShapeError, match=r"a.csv holds samples of the shape \(2\)"):
        read_samples(path, make_model())
    with pytest.raises(ShapeError, match="the model takes texts"):
        read_samples(path, TEXT_MODEL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"age,height\n1,2\n3,\n", r"line 3, column 2 \('height'\): got an empty cell"),
        (b"1,2\n3,nan\n", "line 2, column 2: got 'nan'"),
        (b"1,2\n3,inf\n", "line 2, column 2: got 'inf'"),
        (b"1;2\n1,5;2\n", "line 2, column 1: got '1,5'; expected a finite number such as 1.5"),
        (b"1,red\n2,3\n", "line 1, column 2: got 'red'"),
        (b"1,2\n3\n", "line 2: got 1 cells; expected 2"),
        (b"a,b\n", "no rows of numbers"),
        (b"\n \n", "no rows of numbers"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a text in UTF-8"),
        (b"1,2\0\n", "binary file"),
        (b'1,"2\n3', "truncated or broken"),
    ],
)
def test_broken_tables(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_samples(path, make_model(None))


def test_table_with_numbered_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",a,b,c\n0,1,2,3\n")
    with pytest.raises(ShapeError, match=r"\(C=4\); the model takes \(C=3\); the first column"):
        read_samples(path, TABLE_MODEL)


# --- Volumes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_tiff_of_gray_pages(dtype: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 60000, (5, 6, 7)).astype(dtype)
    pages = [Image.fromarray(page) for page in values]
    path = tmp_path / "stack.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_deflate")
    samples = read_samples(path, VOLUME_MODEL)
    np.testing.assert_array_equal(get_array(samples)[0, ..., 0], values.astype(np.float32))
    assert samples.names == ("stack.tif",)
    with pytest.raises(ShapeError, match=r"\(D=5, H=6, W=7, C=1\); .* \(D=4, H=6, W=8, C=3\)"):
        read_samples(path, VIDEO_MODEL)


def test_tiff_of_colours_and_of_different_pages(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3)).astype(np.uint8)
    pages = [Image.fromarray(page) for page in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(get_array(read_samples(path, VIDEO_MODEL))[0], values)
    pages[0].save(path, save_all=True, append_images=[pages[1].resize((3, 3))])
    with pytest.raises(ShapeError, match="pages of different shapes"):
        read_samples(path, make_model(None, None, None, 3))
    with pytest.raises(ShapeError, match="holds a volume; the model takes sequences"):
        read_samples(path, SEQUENCE_MODEL)


def make_nifti(values: Array, affine: Array) -> Any:
    return nibabel.Nifti1Image(values, affine)  # type: ignore[no-untyped-call]


def test_anatomical_volume() -> None:
    path = NIBABEL_DATA / "anatomical.nii"
    volume = get_array(read_samples(path, VOLUME_MODEL))
    assert volume.shape == (1, 33, 41, 25, 1)
    assert volume.dtype == np.float32
    # Read the raw file, in which the first axis varies fastest.
    content = path.read_bytes()
    (offset,) = struct.unpack_from(">f", content, 108)
    raw = np.frombuffer(content, ">i2", 33 * 41 * 25, int(offset)).reshape(25, 41, 33)
    np.testing.assert_array_equal(volume[0, ..., 0], raw.T)


def test_fourth_axis_of_a_volume() -> None:
    path = NIBABEL_DATA / "example4d.nii.gz"
    image: Any = nibabel.load(path)
    *sides, count = image.shape
    several = read_samples(path, VOLUME_MODEL)
    assert get_array(several).shape == (count, *sides, 1)
    assert several.names == tuple(f"example4d[{index}].nii.gz" for index in range(count))
    channels = get_array(read_samples(path, make_model(None, None, None, count)))
    assert channels.shape == (1, *sides, count)
    np.testing.assert_array_equal(channels[0, ..., 1], get_array(several)[1, ..., 0])
    with pytest.raises(ShapeError, match=f"C={count}.*C=5"):
        read_samples(path, make_model(None, None, None, 5))


def test_nifti_needs_nibabel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'actgrid\[volumes\]'"):
        read_samples(NIBABEL_DATA / "anatomical.nii", VOLUME_MODEL)


def test_nifti_of_other_data(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(make_nifti(np.ones((2, 3, 4), np.complex64), np.eye(4)), path)
    with pytest.raises(FormatError, match="dtype complex64: expected"):
        read_samples(path, VOLUME_MODEL)
    nibabel.save(make_nifti(np.ones((2, 3), np.float32), np.eye(4)), path)
    with pytest.raises(ShapeError, match=r"\(2, 3\): expected \(x, y, z\)"):
        read_samples(path, VOLUME_MODEL)
    with pytest.raises(FormatError, match="expected a NIfTI file"):
        read_samples(NIBABEL_DATA / "row_major.dconn.nii", VOLUME_MODEL)


# --- Videos ------------------------------------------------------------------------------------

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250)]


def make_frames(count: int, size: tuple[int, int] = (8, 6)) -> list[Image.Image]:
    """Return frames, each of a single colour with a white pixel at its corner."""
    frames = [Image.new("RGB", size, COLOURS[index]) for index in range(count)]
    for frame in frames:
        frame.putpixel((0, 0), (255, 255, 255))
    return frames


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations(suffix: str, tmp_path: Path) -> None:
    frames = make_frames(4)
    path = tmp_path / f"video{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    samples = read_samples(path, VIDEO_MODEL)
    expected = np.stack([np.asarray(frame) for frame in frames]) / np.float32(255)
    np.testing.assert_allclose(get_array(samples)[0], expected, atol=1e-6)
    assert samples.names == (path.name,)
    raw = get_array(read_samples(path, VIDEO_MODEL, preprocess="none"))
    np.testing.assert_allclose(raw[0], expected * 255, atol=1e-4)
    gray = get_array(read_samples(path, VOLUME_MODEL, preprocess="none"))
    luma = [np.asarray(frame.convert("L")) for frame in frames]
    np.testing.assert_array_equal(gray[0, ..., 0], luma)


def test_picture_before_an_animation_is_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "video.png"
    cover, *frames = make_frames(5)
    cover.save(path, save_all=True, append_images=frames, default_image=True)
    batch = get_array(read_samples(path, VIDEO_MODEL, preprocess="none"))
    np.testing.assert_array_equal(batch[0], [np.asarray(frame) for frame in frames])


def test_number_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "video.gif"
    frames = make_frames(6)
    frames[0].save(path, save_all=True, append_images=frames[1:])
    samples = read_samples(path, VIDEO_MODEL, preprocess="none")
    assert samples.names == ("video.gif (4 of 6 frames)",)
    batch = get_array(samples)
    colours = [tuple(frame[3, 3].astype(int)) for frame in batch[0]]
    assert colours == [COLOURS[index] for index in (0, 2, 3, 5)]
    frames[0].save(path, save_all=True, append_images=frames[1:3])
    with pytest.raises(ShapeError, match="3 frames; the model takes 4"):
        read_samples(path, VIDEO_MODEL)
    assert get_array(read_samples(path, make_model(None, None, None, 3))).shape[1] == 3


def test_folder_of_frames(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "notes.txt").write_text("no frame")
    frames = make_frames(4, (16, 12))
    for number, frame in zip((1, 2, 9, 10), frames, strict=True):
        frame.save(folder / f"frame{number}.png")
    assert is_sample_file(folder, "volume")
    assert not is_sample_file(folder, "image")
    batch = get_array(read_samples(folder, VIDEO_MODEL, preprocess="none"))
    assert batch.shape == (1, 4, 6, 8, 3)
    colours = [tuple(frame[3, 3].astype(int)) for frame in batch[0]]
    assert colours == COLOURS[:4]
    free_model = make_model(None, None, None, 3)
    assert get_array(read_samples(folder, free_model)).shape == (1, 4, 12, 16, 3)
    assert get_array(read_samples(folder, free_model, size=5)).shape == (1, 4, 5, 5, 3)
    padded = get_array(read_samples(folder, free_model, size=8, fit="pad", preprocess="none"))
    assert not padded[0, :, 0].any()
    Image.new("RGB", (4, 4)).save(folder / "frame11.png")
    with pytest.raises(ShapeError, match="different sizes"):
        read_samples(folder, free_model)
    (folder / "frame11.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"frame11\.png is not an image"):
        read_samples(folder, free_model)
    with pytest.raises(ShapeError, match="holds a video; the model takes sequences"):
        read_samples(folder, SEQUENCE_MODEL)
    with pytest.raises(ShapeError, match="2 channels: expected 1, 3 or 4"):
        read_samples(folder, make_model(None, None, None, 2))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_sample_file(empty, "volume")
    with pytest.raises(FormatError, match="no image files"):
        read_samples(empty, VIDEO_MODEL)


# --- Texts -------------------------------------------------------------------------------------


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "reviews.txt"
    path.write_text("\ufeffA good film!\r\n\r\n  Café, bad. \n", encoding="utf-8")
    samples = read_samples(path, TEXT_MODEL)
    assert get_array(samples).tolist() == [b"A good film!", "Café, bad.".encode()]
    assert samples.names == ("reviews[0].txt", "reviews[1].txt")
    column = get_array(read_samples(path, make_model(1, dtype="string")))
    assert column.shape == (2, 1)
    vocabulary = ["", "[UNK]", "good", "bad", "film"]
    expected = [[1, 2, 4, 0, 0], [1, 3, 0, 0, 0]]
    vectorization = layers.TextVectorization(vocabulary=vocabulary)
    for tokens in (vocabulary, Tokenizer(vocabulary), vectorization):
        batch = get_array(read_samples(path, TOKEN_MODEL, tokens=tokens))
        assert batch.tolist() == expected
        assert batch.dtype == np.int32
    with pytest.raises(OptionError, match=r"reviews.txt: .*give tokens"):
        read_samples(path, TOKEN_MODEL)
    with pytest.raises(ShapeError, match="holds texts; the model takes images"):
        read_samples(path, make_model(4, 4, 3), tokens=vocabulary)
    path.write_text("\n\n")
    with pytest.raises(FormatError, match="no text"):
        read_samples(path, TEXT_MODEL)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a text in UTF-8"):
        read_samples(path, TEXT_MODEL)


@given(words=st.lists(st.sampled_from(["good", "bad", "film", "unseen"]), min_size=1, max_size=6))
def test_tokenizer_keeps_the_indices_of_the_vocabulary(words: list[str]) -> None:
    vocabulary = ["[PAD]", "bad", "film", "[unused]", "[UNK]", "good"]
    indices = Tokenizer(vocabulary)(" ".join(words).upper() + "!").to_list()
    known = {"bad": 1, "film": 2, "good": 5}
    assert indices == [[known.get(word, 4) for word in words]]


def test_tokenizer_of_upper_case_and_without_unknown_token() -> None:
    tokenizer = Tokenizer(["<pad>", "Film", "film"])
    assert tokenizer(["Film film."]).to_list() == [[1, 2]]
    assert tokenizer.get_vocabulary() == ["<pad>", "Film", "film"]
    with pytest.raises(OptionError, match=r"'a good film' has words outside"):
        tokenizer(["Film", "a good film"])
    with pytest.raises(OptionError, match="a token is repeated"):
        Tokenizer(["a", "a"])


def test_vocabularies(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_bytes("\r\n[UNK]\r\ngood\r\nä\r\n".encode())
    assert read_vocabulary(path) == ["", "[UNK]", "good", "ä"]
    path = tmp_path / "tokens.json"
    for content in (
        ["a", "b", "c"],
        {"b": 1, "a": 0, "c": 2},
        {"1": "b", "0": "a", "2": "c"},
        {"model": {"vocab": {"c": 2, "b": 1, "a": 0}}},
        {"model": {"vocab": [["a", 0.0], ["b", -1.5], ["c", -2.5]]}},
    ):
        path.write_text(json.dumps(content))
        assert read_vocabulary(path) == ["a", "b", "c"]
    path.write_text('{"a": 1, "b": 3}')
    assert read_vocabulary(path) == ["[0]", "a", "[2]", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"a\nb\na\n", "repeats the token 'a': got the indices 0 and 2"),
        ("t.txt", b"\n", "no tokens"),
        ("t.txt", b"", "is empty"),
        ("t.txt", b"\xff", "not a text in UTF-8"),
        ("t.json", b"[1, 2]", "no vocabulary"),
        ("t.json", b'{"a": 99999999999}', "no vocabulary"),
        ("t.json", b'{"a": -1}', "no vocabulary"),
        ("t.json", b'{"a": 1, "b": 1}', "same index"),
        ("t.json", b'{"a": "b"}', "truncated or broken"),
        ("t.json", b"[" * 100_000, "truncated or broken"),
        ("t.json", b'{"a":', "truncated or broken"),
    ],
)
def test_broken_vocabularies(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_vocabulary(tmp_path / name)


# --- Broken files ------------------------------------------------------------------------------

MODELS = {
    ".npy": TABLE_MODEL,
    ".npz": TABLE_MODEL,
    ".wav": SEQUENCE_MODEL,
    ".csv": TABLE_MODEL,
    ".nii": VOLUME_MODEL,
    ".nii.gz": VOLUME_MODEL,
    ".tif": VOLUME_MODEL,
    ".gif": VOLUME_MODEL,
    ".webp": VOLUME_MODEL,
    ".png": VOLUME_MODEL,
    ".txt": TEXT_MODEL,
}


def make_file(suffix: str, path: Path) -> None:
    """Write a valid file of this suffix."""
    values = np.random.default_rng(0).integers(0, 255, (4, 30, 30)).astype(np.uint8)
    if suffix == ".npy":
        np.save(path, np.ones((50, 3)))
    elif suffix == ".npz":
        np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 3)))
    elif suffix == ".wav":
        write_wave(path, np.arange(100)[:, None], 2)
    elif suffix in (".nii", ".nii.gz"):
        nibabel.save(make_nifti(values, np.eye(4)), path)
    elif suffix in (".tif", ".gif", ".webp", ".png"):
        pages = [Image.fromarray(page) for page in values]
        pages[0].save(path, save_all=True, append_images=pages[1:])


@pytest.mark.parametrize("suffix", sorted(set(MODELS) - {".csv", ".txt"}))
def test_truncated_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    make_file(suffix, path)
    read_samples(path, MODELS[suffix])
    content = path.read_bytes()
    for size in (len(content) * 3 // 4, len(content) // 2, 30, 3):
        path.write_bytes(content[:size])
        with pytest.raises((FormatError, ImageError), match=f"a{suffix}"):
            read_samples(path, MODELS[suffix])


@pytest.mark.parametrize("suffix", MODELS)
def test_empty_missing_and_other_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    model = MODELS[suffix]
    with pytest.raises(MissingFileError, match="there is no file"):
        read_samples(path, model)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="is empty"):
        read_samples(path, model)
    path.write_bytes(b"\xff\0\x80noise" * 99)
    with pytest.raises((FormatError, ImageError)):
        read_samples(path, model)
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match=r"is a folder|no image files"):
        read_samples(path, model)


@given(data=st.data(), suffix=st.sampled_from([".npy", ".npz", ".wav", ".nii", ".tif", ".gif"]))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_only_errors_of_actgrid(
    data: st.DataObject, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"a{suffix}"
    make_file(suffix, path)
    content = bytearray(path.read_bytes())
    # Most fields are in the header.
    last = min(len(content), 400) - 1
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        samples = read_samples(path, MODELS[suffix])
    except ActgridError:
        return
    assert len(get_array(samples)) == len(samples.names)


def make_npy_header(shape: tuple[int, ...]) -> bytes:
    """Return a .npy file that declares this shape and has no data."""
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def write_large_npy(path: Path) -> None:
    path.write_bytes(make_npy_header((1 << 40, 3)))


def write_large_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", make_npy_header((1 << 40, 3)))


def write_pickle(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def write_text_entry(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no array")


def write_large_nifti(path: Path) -> None:
    image = make_nifti(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    header = bytearray(image.to_bytes())
    struct.pack_into("<4h", header, 40, 3, 1000, 1000, 1000)
    path.write_bytes(gzip.compress(header) if path.suffix == ".gz" else header)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", write_large_npy, "truncated"),
        ("a.npz", write_large_npz, "truncated"),
        ("a.npy", write_pickle, "dtype object: expected numbers"),
        ("a.npz", write_text_entry, "'readme.txt', which is no array"),
        ("a.nii", write_large_nifti, "truncated"),
        ("a.nii.gz", write_large_nifti, "truncated"),
        ("a.xyz", lambda path: path.write_bytes(b"x"), "unknown suffix"),
    ],
)
def test_files_that_claim_large_or_other_data(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(FormatError, match=message):
        read_samples(tmp_path / name, MODELS.get(Path(name).suffix, VOLUME_MODEL))


@pytest.mark.parametrize("suffix", [".npz", ".wav", ".nii.gz", ".tif", ".gif"])
def test_limit_of_the_size(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    make_file(suffix, path)
    size = {".npz": 1300, ".wav": 300}.get(suffix, 14_000)
    monkeypatch.setattr(file_checks, "MAX_BYTES", size)
    with pytest.raises(TooLargeError, match="too large"):
        read_samples(path, MODELS[suffix])


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.wav", "a.csv", ".hidden.csv", "photo.jpg", "scan.nii", "deep/c.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.name for path in find_sample_files(tmp_path, "sequence")]
    assert names == ["a.csv", "b.wav", "c.npy"]
    assert find_sample_files(tmp_path / "b.wav", "sequence") == [tmp_path / "b.wav"]
    assert find_sample_files(str(tmp_path / "*.csv"), "sequence") == [tmp_path / "a.csv"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="has no files of texts"):
        find_sample_files(tmp_path / "empty", "text")
    with pytest.raises(MissingFileError, match=r"missing\.wav"):
        find_sample_files(tmp_path / "missing.wav", "sequence")


def test_functions_take_files_in_place_of_arrays(tmp_path: Path) -> None:
    signals = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
    for index, signal in enumerate(signals):
        np.save(tmp_path / f"{index}.npy", signal)
    body = [layers.Conv1D(3, 5, name="conv"), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((30, 1)), *body])
    cases: list[Any] = [tmp_path, [tmp_path / "0.npy", str(tmp_path / "1.npy")]]
    for sources in cases:
        by_files = actgrid.explain(model, sources, "saliency", target=0)
        by_arrays = actgrid.explain(model, signals[..., None], "saliency", target=0)
        np.testing.assert_array_equal(by_files.values, by_arrays.values)
    grids = actgrid.render_model(model, tmp_path / "1.npy")
    expected = actgrid.render_model(model, signals[1:, :, None])
    np.testing.assert_array_equal(grids["conv"].levels, expected["conv"].levels)
    (tmp_path / "table.csv").write_text("age,income\n1,2\n")
    table_model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    table = actgrid.explain(table_model, tmp_path / "table.csv", "saliency", target=0)
    assert table.names == (("age", "income"),)
    np.save(tmp_path / "0.npy", np.zeros(40))
    free_model = keras.Sequential([keras.Input((None, 1)), *body])
    with pytest.raises(ShapeError, match="different shapes cannot form a batch"):
        actgrid.explain(free_model, [tmp_path / "0.npy", tmp_path / "1.npy"], "saliency")
