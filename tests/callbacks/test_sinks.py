"""The option `sinks` of callbacks: custom sinks, names of packages, and errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actgrid
from actgrid.callbacks import ActivationGrids, ChannelHealth, Explanations
from actgrid.errors import MissingDependencyError, OptionError, OutputError


class ListSink:
    """Sink that lists what it receives."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def images(self, tag: str, pngs: Any, step: int) -> None:
        self.calls.append(("images", tag, [bytes(png) for png in pngs], step))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.calls.append(("scalar", tag, value, step))

    def histogram(self, tag: str, values: Any, step: int) -> None:
        self.calls.append(("histogram", tag, np.asarray(values), step))

    def flush(self) -> None:
        if self.error:
            raise self.error
        self.calls.append(("flush",))

    def close(self) -> None:
        self.calls.append(("close",))


def run_steps(callback: Any, *steps: int) -> None:
    for step in steps:
        callback(step)
    callback.close()


def test_a_sink_receives_the_grids_of_each_step(cnn: Any, x: Any) -> None:
    sink, model = ListSink(), cnn()
    pngs = [
        actgrid.render_model(model, x[:2], "conv", sample=sample)["conv"].to_png()
        for sample in (0, 1)
    ]
    with ActivationGrids(x[:2], "conv", sinks=sink) as grids:
        grids.set_model(model)
        grids(3)
        grids(5)
    assert sink.calls == [
        ("images", "conv", pngs, 3),
        ("flush",),
        ("images", "conv", pngs, 5),
        ("flush",),
        ("close",),
    ]


def test_several_sinks_and_a_second_training_receive_all_steps(cnn: Any, x: Any) -> None:
    first, second = ListSink(), ListSink()
    health = ChannelHealth(x, "conv", sinks=[first, second])
    health.set_model(cnn())
    for step in (0, 1):
        health(step)
        health.close()
    assert [call[0] for call in first.calls] == 2 * (
        [*(3 * ["scalar"]), *(3 * ["histogram"]), "flush", "close"]
    )
    assert [call[:2] for call in first.calls] == [call[:2] for call in second.calls]
    values = {call[1]: call[2] for call in second.calls if len(call) == 4}
    assert values["conv/dead_channels"] == health.history["conv/dead_channels"][-1]
    activations = actgrid.Extractor(health.model, "conv")(x)["conv"]
    np.testing.assert_allclose(values["conv/mean"], activations.mean((0, 1, 2)), rtol=1e-5)


def test_a_sink_that_fails_becomes_one_warning_and_others_go_on(cnn: Any, x: Any) -> None:
    broken, sink = ListSink(), ListSink()
    broken.error = OutputError("cannot log: no network")
    grids = ActivationGrids(x[:1], "conv", sinks=(broken, sink))
    grids.set_model(cnn())
    with pytest.warns(RuntimeWarning, match="ActivationGrids: cannot log: no network") as records:
        run_steps(grids, 0, 1)
    assert len(records) == 1
    assert [call[-1] for call in sink.calls if call[0] == "images"] == [0, 1]


def test_pictures_need_an_output(x: Any) -> None:
    for make in (lambda: ActivationGrids(x), lambda: Explanations(x, sinks=[])):
        with pytest.raises(OptionError, match="log_dir, folder and sinks are all None: pass"):
            make()


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ("wandbb", r"not 'wandbb' \(did you mean wandb\?\)"),
        (["mlfow"], r"not 'mlfow' \(did you mean mlflow\?\)"),
        (3, "int lacks the methods images, scalar, histogram, flush, close of a sink"),
    ],
)
def test_other_values_are_rejected(x: Any, sinks: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ChannelHealth(x, sinks=sinks)


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(
    x: Any, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"sinks='{package}' needs the package .*pip install 'actgrid\[{package}\]'"
    with pytest.raises(MissingDependencyError, match=message):
        ActivationGrids(x, folder=tmp_path / "grids", sinks=package)
    assert not (tmp_path / "grids").exists()
