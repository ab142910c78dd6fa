from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from actgrid import load_model
from actgrid.errors import MissingFileError, OptionError, TargetError
from actgrid.models.labels import imagenet_labels, labels_of, read_labels


@pytest.mark.parametrize(
    "text", ["ant\nbee fly\n\ngâteau", "\ufeffant\r\n bee fly \r\n\r\ngâteau\r\n\r\n"]
)
def test_a_file_names_a_class_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode())
    assert read_labels(path) == ("ant", "bee fly", "", "gâteau")


def test_what_is_no_file_of_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no file .*none\.txt"):
        read_labels(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(OptionError, match=r"empty\.txt names no class"):
        read_labels(tmp_path / "empty.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "bytes.txt", tmp_path):
        with pytest.raises(OptionError, match="cannot be read as names of classes"):
            read_labels(path)


def classifier(count: int, name: str = "own") -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(count)], name=name)


def test_imagenets_names_are_those_of_networks_that_are_imagenets() -> None:
    assert labels_of(load_model("demo"), 1000) == imagenet_labels()
    mobilenet = keras.applications.MobileNet(weights=None, alpha=0.25)
    assert labels_of(mobilenet, 1000) == imagenet_labels()
    copy = keras.models.clone_model(mobilenet)
    copy.name = "renamed"
    assert labels_of(copy, 1000) == imagenet_labels()


def test_a_thousand_classes_of_another_network_have_no_names() -> None:
    assert labels_of(classifier(1000), 1000) is None
    assert labels_of(classifier(1000, "mobilenet"), 1000) is None
    base = keras.applications.MobileNet(weights=None, alpha=0.25, include_top=False, pooling="avg")
    assert labels_of(keras.Sequential([base, layers.Dense(1000)]), 1000) is None


def test_imagenets_names_can_be_asked_for(tmp_path: Path) -> None:
    assert labels_of(classifier(1000), 1000, "imagenet") == imagenet_labels()
    assert read_labels(Path("imagenet")) == imagenet_labels()
    with pytest.raises(TargetError, match="must name the model's 10 classes, not 1000"):
        labels_of(classifier(10), 10, "imagenet")
    with pytest.raises(MissingFileError, match="there is no file cifar"):
        labels_of(classifier(10), 10, "cifar")
    with pytest.raises(TargetError, match="a list of names, a text file or 'imagenet', not "):
        labels_of(classifier(10), 10, {})  # type: ignore[arg-type]
