"""Tests of `actgrid.models.labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from actgrid import load_model
from actgrid.errors import MissingFileError, OptionError, TargetError
from actgrid.models.labels import load_imagenet_labels, read_labels, resolve_labels


@pytest.mark.parametrize(
    "text", ["ant\nbee fly\n\ngâteau", "\ufeffant\r\n bee fly \r\n\r\ngâteau\r\n\r\n"]
)
def test_read_labels_reads_one_class_per_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode())
    assert read_labels(path) == ("ant", "bee fly", "", "gâteau")


def test_read_labels_rejects_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no file .*none\.txt"):
        read_labels(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(OptionError, match=r"empty\.txt is empty"):
        read_labels(tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "bytes.txt", tmp_path):
        with pytest.raises(OptionError, match="cannot be read as names of classes"):
            read_labels(path)


def make_classifier(count: int, name: str = "own") -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(count)], name=name)


def test_complete_applications_have_imagenet_labels() -> None:
    assert resolve_labels(load_model("demo"), 1000) == load_imagenet_labels()
    mobilenet = keras.applications.MobileNet(weights=None, alpha=0.25)
    assert resolve_labels(mobilenet, 1000) == load_imagenet_labels()
    copy = keras.models.clone_model(mobilenet)
    copy.name = "renamed"
    assert resolve_labels(copy, 1000) == load_imagenet_labels()


def test_other_models_with_1000_classes_have_no_labels() -> None:
    assert resolve_labels(make_classifier(1000), 1000) is None
    assert resolve_labels(make_classifier(1000, "mobilenet"), 1000) is None
    base = keras.applications.MobileNet(weights=None, alpha=0.25, include_top=False, pooling="avg")
    assert resolve_labels(keras.Sequential([base, layers.Dense(1000)]), 1000) is None


def test_imagenet_labels_by_name(tmp_path: Path) -> None:
    assert resolve_labels(make_classifier(1000), 1000, "imagenet") == load_imagenet_labels()
    assert read_labels(Path("imagenet")) == load_imagenet_labels()
    with pytest.raises(TargetError, match="must name the model's 10 classes, not 1000"):
        resolve_labels(make_classifier(10), 10, "imagenet")
    with pytest.raises(MissingFileError, match="there is no file cifar"):
        resolve_labels(make_classifier(10), 10, "cifar")
    with pytest.raises(TargetError, match="a list of names, a text file or 'imagenet', not "):
        resolve_labels(make_classifier(10), 10, {})  # type: ignore[arg-type]
