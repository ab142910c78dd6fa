from __future__ import annotations

from pathlib import Path

import pytest

from actgrid.errors import MissingFileError, OptionError
from actgrid.models.labels import read_labels


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
