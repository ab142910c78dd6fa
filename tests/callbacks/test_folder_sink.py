"""Files of pictures and numbers of callbacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actgrid.callbacks import ChannelHealth
from actgrid.callbacks.folder_sink import FolderSink
from actgrid.errors import OutputError


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_numbers_are_appended_as_json_lines(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path / "out")
    for step in (0, 3):
        sink.scalar("conv/dead", step + 1, step)
        sink.scalar("conv/zeros", float("nan"), step)
        sink.histogram("conv/mean", np.array([[0.5, np.inf]]), step)
        sink.flush()
    sink.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "histograms.jsonl",
        "scalars.jsonl",
    ]
    assert read_lines(tmp_path / "out" / "scalars.jsonl") == [
        {"step": 0, "tag": "conv/dead", "value": 1},
        {"step": 0, "tag": "conv/zeros", "value": None},
        {"step": 3, "tag": "conv/dead", "value": 4},
        {"step": 3, "tag": "conv/zeros", "value": None},
    ]
    assert read_lines(tmp_path / "out" / "histograms.jsonl") == [
        {"step": step, "tag": "conv/mean", "values": [0.5, None]} for step in (0, 3)
    ]


def test_pictures_are_numbered_by_tag_sample_and_step(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    for step in (0, 12):
        sink.images("block/conv", [b"a", b"b"], step)
        sink.images("relu", [b"c%d" % step], step)
        sink.flush()
    files = {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.png")
    }
    assert files == {
        "00_block_conv/0_000000.png": b"a",
        "00_block_conv/0_000012.png": b"a",
        "00_block_conv/1_000000.png": b"b",
        "00_block_conv/1_000012.png": b"b",
        "01_relu/000000.png": b"c0",
        "01_relu/000012.png": b"c12",
    }


def test_a_file_that_cannot_be_written_raises_an_error_once(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    (tmp_path / "scalars.jsonl").mkdir()
    sink.scalar("a", 1.0, 0)
    with pytest.raises(OutputError, match=r"cannot write .*scalars\.jsonl"):
        sink.flush()
    (tmp_path / "scalars.jsonl").rmdir()
    sink.scalar("a", 2.0, 1)
    sink.flush()
    assert read_lines(tmp_path / "scalars.jsonl") == [{"step": 1, "tag": "a", "value": 2.0}]


def test_channel_health_writes_its_history_to_a_folder(
    cnn: Any, x: Any, y: Any, tmp_path: Path
) -> None:
    health = ChannelHealth(x, "conv", folder=tmp_path)
    cnn().fit(x, y, epochs=3, verbose=0, callbacks=[health])
    history: dict[str, list[float]] = {}
    for line in read_lines(tmp_path / "scalars.jsonl"):
        history.setdefault(line["tag"], []).append(line["value"])
    assert history == health.history
    assert len(history["conv/dead_channels"]) == 3
