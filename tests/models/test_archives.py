"""Tests of `actgrid.models.archives`."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from actgrid import load_model
from actgrid.errors import FormatError, ModelError
from actgrid.models.archives import check_archive

MEGABYTE = 1 << 20


def write_zip(path: Path, compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return path


def write_hdf5(path: Path, fill: Callable[[Any], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def make_hdf5_bytes(fill: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def declare_huge_shape(file: Any) -> None:
    """Declare a dataset of 4 TB without storing data."""
    file.create_dataset("a/b/weights", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def add_external_link(file: Any) -> None:
    file["a/other"] = h5py.ExternalLink("/etc/passwd", "/")


def add_external_data(file: Any) -> None:
    file.create_dataset("weights", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def add_virtual_data(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (4,))
    file.create_virtual_dataset("weights", layout)


BAD_HDF5 = {
    "huge shape": (declare_huge_shape, r"HDF5 datasets declare 4,398,046,511,104 bytes"),
    "external link": (add_external_link, "leads to another file"),
    "external data": (add_external_data, "stored in another file"),
    "virtual data": (add_virtual_data, "stored in another file"),
}


@pytest.mark.parametrize("name", BAD_HDF5)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unsafe_hdf5_raises(tmp_path: Path, name: str, compression: int) -> None:
    fill, message = BAD_HDF5[name]
    with pytest.raises(FormatError, match=message):
        check_archive(write_hdf5(tmp_path / "model.h5", fill))
    # The same data at an offset where HDF5 may start, and as the weights in an archive.
    data = make_hdf5_bytes(fill)
    (tmp_path / "behind.h5").write_bytes(b"\0" * 1024 + data)
    with h5py.File(tmp_path / "behind.h5") as file:
        assert list(file)
    with pytest.raises(FormatError, match=message):
        check_archive(tmp_path / "behind.h5")
    path = write_zip(tmp_path / "m.keras", compression, config__json=b"{}", model__weights__h5=data)
    with pytest.raises(FormatError, match=message):
        check_archive(path)


def test_cyclic_hdf5_links_are_followed_once(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        group = file.create_group("a/b")
        group["back"] = file["a"]
        group["soft"] = h5py.SoftLink("/nowhere")
        group["data"] = np.zeros(1000)
        # Many names of one dataset refer to the same data.
        for index in range(100):
            group[str(index)] = group["data"]

    check_archive(write_hdf5(tmp_path / "model.h5", fill))


def test_zip_bomb_raises(tmp_path: Path) -> None:
    zeros = bytes(200 * MEGABYTE)
    with pytest.raises(FormatError, match=r"declare 209,715,200 bytes of data in a file of 20"):
        check_archive(write_zip(tmp_path / "one.keras", model__weights__h5=zeros))
    # Many members together, and a nested archive.
    parts = {f"part{index}": zeros[: 10 * MEGABYTE] for index in range(20)}
    with pytest.raises(FormatError, match="its members declare"):
        check_archive(write_zip(tmp_path / "many.keras", zipfile.ZIP_DEFLATED, **parts))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", zeros)
    with pytest.raises(FormatError, match="its members declare"):
        check_archive(write_zip(tmp_path / "nested.keras", model__weights__npz=inner.getvalue()))


def test_genuine_files_are_accepted(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pruned = rng.random(MEGABYTE, np.float32) * (rng.random(MEGABYTE) > 0.9)
    weights = make_hdf5_bytes(
        lambda file: file.create_dataset("w", data=pruned, compression="gzip")
    )
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{compression}.keras"
        check_archive(write_zip(path, compression, model__weights__h5=weights))
    (tmp_path / "text").write_text("neither")
    check_archive(tmp_path / "text")


def write_config_bomb(path: Path) -> Path:
    """Write a model whose configuration inflates from 1 MB to 1 GB."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if name != "config.json":
                archive.writestr(name, data)
        with archive.open("config.json", "w") as file:
            file.write(b'{"a": "')
            for _ in range(1000):
                file.write(b" " * MEGABYTE)
            file.write(b'"}')
    return path


def test_config_bomb_raises_before_reading(tmp_path: Path) -> None:
    path = write_config_bomb(tmp_path / "model.keras")
    assert path.stat().st_size < 2 * MEGABYTE
    before = measure_peak_memory()
    with pytest.raises(ModelError, match=r"model\.keras is refused: its members declare"):
        load_model(path)
    assert measure_peak_memory() - before < 50 * MEGABYTE


def test_oversized_config_raises_in_large_archive(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    config = json.dumps({"a": "x" * 40 * MEGABYTE}).encode()
    write_zip(path, config__json=config, random=os.urandom(3 * MEGABYTE))
    with pytest.raises(ModelError, match=r"config\.json declares 41,943,049 bytes; expected"):
        load_model(path)


def measure_peak_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_weights_files_are_checked(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "vgg.weights.h5", declare_huge_shape)
    with pytest.raises(ModelError, match=r"keras:MobileNet with weights .*HDF5 datasets declare"):
        load_model("keras:MobileNet", weights=path)


def test_deeply_nested_config_raises(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "model.keras", config__json=b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(ModelError, match="is not a Keras model file"):
        load_model(path)
