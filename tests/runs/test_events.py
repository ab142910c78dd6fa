"""Tests of event files, which TensorBoard's reader reads."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.runs.events import EventWriter


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_images_contain_the_given_png_bytes(tmp_path: Path) -> None:
    grids = [actgrid.render(np.random.default_rng(seed).random((5, 7, 3))) for seed in (0, 1)]
    pngs = [grid.to_png() for grid in grids]
    events = EventWriter(tmp_path / "logs")
    events.images("a/layer", pngs, step=3)
    events.close()

    (event,) = read(tmp_path / "logs").Tensors("a/layer")
    width, height, *accumulator = event.tensor_proto.string_val
    assert event.step == 3
    assert accumulator == pngs
    assert (int(height), int(width)) == grids[0].levels.shape
    assert Image.open(io.BytesIO(accumulator[1])).mode == "P"


def test_scalars_and_histograms(tmp_path: Path) -> None:
    from tensorboard.util import tensor_util

    events = EventWriter(tmp_path)
    for step, value in enumerate((0.5, np.nan)):
        events.scalar("dead", value, step)
    events.histogram("means", [0, 1, 1, 3, np.inf, np.nan], 0)
    events.histogram("constant", [2.0, 2.0], 0)
    events.histogram("none", [], 0)
    events.histogram("diverged", [1e20, 1e20 * (1 + 1e-15)], 0)
    events.flush()

    accumulator = read(tmp_path)
    values = [tensor_util.make_ndarray(event.tensor_proto) for event in accumulator.Tensors("dead")]
    np.testing.assert_array_equal(values, [0.5, np.nan])
    counts = {}
    for tag in ("means", "constant", "none", "diverged"):
        (event,) = accumulator.Tensors(tag)
        buckets = tensor_util.make_ndarray(event.tensor_proto)
        assert buckets.shape == (30, 3)
        counts[tag] = buckets[:, 2]
    assert counts["means"][[0, 10, 29]].tolist() == [1, 2, 1]
    assert [event.sum() for event in counts.values()] == [4, 2, 0, 2]
    plugins = [
        accumulator.SummaryMetadata(tag).plugin_data.plugin_name for tag in ("dead", "means")
    ]
    assert plugins == ["scalars", "histograms"]
    events.close()


def test_unwritable_folder_raises_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(actgrid.ActgridError, match=r"cannot write events to .*file"):
        EventWriter(tmp_path / "file" / "logs")


def test_full_disk_is_reported_and_later_summaries_are_readable(tmp_path: Path) -> None:
    """TensorFlow itself ignores the error and leaves an incomplete record."""
    resource = pytest.importorskip("resource")
    png = actgrid.render(np.random.default_rng(0).random((40, 40, 16))).to_png()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = {
        3: 3.5,
        5: 0.5,
    }  # file size limits in units of a picture: within a record, and at its start
    events, refused = EventWriter(tmp_path), {}
    for step in range(8):
        max_records = int(limits[step] * len(png)) if step in limits else soft
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_records, hard))
        try:
            events.images("layer", [png], step)
            events.flush()
        except actgrid.ActgridError as error:
            refused[step] = str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    events.close()
    assert list(refused) == [3, 5]
    assert all("No space left" in reason for reason in refused.values())
    accumulator = read(tmp_path).Tensors("layer")
    assert [event.step for event in accumulator] == [0, 1, 2, 4, 6, 7]
    assert {event.tensor_proto.string_val[2] for event in accumulator} == {png}


def test_removed_folder_is_created_again(tmp_path: Path) -> None:
    events = EventWriter(tmp_path / "logs")
    events.scalar("loss", 1, 0)
    events.flush()
    shutil.rmtree(tmp_path / "logs")
    events.scalar("loss", 2, 1)
    with pytest.raises(actgrid.ActgridError, match="cannot write events"):
        events.flush()
    events.scalar("loss", 3, 2)
    events.close()
    assert [event.step for event in read(tmp_path / "logs").Tensors("loss")] == [2]
