"""Results of callbacks in a run of Weights & Biases."""

from __future__ import annotations

import importlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.callbacks import ActivationGrids, ChannelHealth
from actgrid.errors import OptionError


def run_step(callback: Any) -> None:
    callback(0)
    callback.close()


class Run:
    """Stand-in for a run, which records the calls of its methods."""

    __module__ = "wandb.sdk.wandb_run"

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str]] = []
        self.error: Exception | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        if self.error:
            raise self.error
        self.logged.append(values)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the package by a stand-in, whose media objects are their data."""
    module: Any = ModuleType("wandb")
    module.run = None
    module.Image = np.asarray
    module.Histogram = lambda values: sorted(values)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_each_step_is_logged_at_once_over_its_own_axis(package: Any, cnn: Any, x: Any) -> None:
    package.run, model = Run(), cnn()
    grids = actgrid.render_model(model, x[:1], ["conv", "pool"])
    with ActivationGrids(x[:1], ["conv", "pool"], sinks="wandb") as callback:
        callback.set_model(model)
        callback(4)
        callback(2)
    assert [values["actgrid/step"] for values in package.run.logged] == [4, 2]
    for values in package.run.logged:
        assert values.keys() == {"conv", "pool", "actgrid/step"}
        for path in ("conv", "pool"):
            (levels,) = values[path]
            np.testing.assert_array_equal(levels, grids[path].levels)
    assert package.run.metrics == [("conv", "actgrid/step"), ("pool", "actgrid/step")]


def test_histograms_have_the_finite_values(package: Any) -> None:
    from actgrid.callbacks.wandb_sink import WandbSink

    run = Run()
    sink = WandbSink(run)
    sink.histogram("mean", np.array([[2.0, np.nan], [-1.0, np.inf]]), 1)
    sink.histogram("none", [np.nan], 1)
    sink.scalar("dead", 3, 1)
    sink.flush()
    sink.flush()
    assert run.logged == [{"mean": [-1.0, 2.0], "dead": 3, "actgrid/step": 1}]


def test_a_run_is_an_output(package: Any, cnn: Any, x: Any) -> None:
    run = Run()
    with ChannelHealth(x, "conv", sinks=[run]) as health:
        health.set_model(cnn())
        health(0)
    (values,) = run.logged
    assert values["conv/dead_channels"] == health.history["conv/dead_channels"][0]
    assert sorted(values) == [
        "actgrid/step",
        "conv/dead_channels",
        "conv/mean",
        "conv/mean_zero_fraction",
        "conv/nonfinite",
        "conv/std",
        "conv/zero_fraction",
    ]


def test_without_an_active_run_training_does_not_begin(package: Any, cnn: Any, x: Any) -> None:
    health = ChannelHealth(x, sinks="wandb")
    health.set_model(cnn())
    with pytest.raises(OptionError, match=r"needs an active run: call wandb.init\(\) first"):
        health.on_train_begin()


def test_errors_of_the_package_become_a_warning(package: Any, cnn: Any, x: Any) -> None:
    run = Run()
    run.error = ConnectionError("no network\nmore lines")
    health = ChannelHealth(x, "conv", sinks=run)
    health.set_model(cnn())
    message = "ChannelHealth: cannot log to Weights & Biases: no network; training continues"
    with pytest.warns(RuntimeWarning, match=message):
        run_step(health)
    assert health.steps == [0]


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of the file of an offline run, in the log format of LevelDB."""
    data, position, record = path.read_bytes(), 7, b""
    block = 32768
    while position + 7 <= len(data):
        if block - position % block < 7:  # a header does not cross blocks
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield record
            record = b""


def test_an_offline_run_has_the_pictures_and_numbers(
    cnn: Any, x: Any, y: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb_internal_pb2 = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = wandb.init(project="test", dir=tmp_path)
    grids = ActivationGrids(x[:2], "conv", sinks="wandb")
    health = ChannelHealth(x, "conv", sinks=run)
    cnn().fit(x, y, epochs=3, verbose=0, callbacks=[grids, health])
    run.finish()
    (file,) = tmp_path.rglob("run-*.wandb")
    history: dict[str, dict[int, Any]] = {}
    for data in read_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            for name, value in values.items():
                history.setdefault(name, {})[values["actgrid/step"]] = value
    for name, numbers in health.history.items():
        np.testing.assert_allclose([history[name][step] for step in range(3)], numbers)
    assert history["conv/mean/_type"] == dict.fromkeys(range(3), "histogram")
    expected = actgrid.render_model(health.model, x[:2], "conv", sample=1)["conv"]
    with Image.open(file.parent / "files" / history["conv/filenames"][2][1]) as picture:
        np.testing.assert_array_equal(picture.convert("RGB"), expected.to_rgb())
