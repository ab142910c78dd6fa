"""Results of callbacks in a run of MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
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
    """Stand-in for a run."""

    __module__ = "mlflow.entities.run"

    def __init__(self, run_id: str) -> None:
        self.info = SimpleNamespace(run_id=run_id)


class Client:
    """Stand-in for the client, which records the calls of its methods."""

    def __init__(self) -> None:
        self.images: list[tuple[Any, ...]] = []
        self.batches: list[tuple[str, list[Any]]] = []
        self.error: Exception | None = None

    def log_image(self, run_id: str, image: Any, key: str, step: int) -> None:
        self.images.append((run_id, np.asarray(image), key, step))

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        if self.error:
            raise self.error
        self.batches.append((run_id, [(key, value, step) for key, value, _, step in metrics]))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Replace the package by a stand-in without an active run, and return its client."""
    module, client = ModuleType("mlflow"), Client()
    module.MlflowClient = lambda: client  # type: ignore[attr-defined]
    module.active_run = lambda: None  # type: ignore[attr-defined]
    metric = lambda *values: values  # noqa: E731
    module.entities = SimpleNamespace(Metric=metric)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return client


def test_each_sample_is_an_image(client: Client, cnn: Any, x: Any) -> None:
    model = cnn()
    with ActivationGrids(x[:2], "conv", sinks=Run("a")) as grids:
        grids.set_model(model)
        grids(7)
    assert [(run, key, step) for run, _, key, step in client.images] == [
        ("a", "conv/0", 7),
        ("a", "conv/1", 7),
    ]
    for sample, (_, levels, _, _) in enumerate(client.images):
        (grid,) = actgrid.render_model(model, x[:2], "conv", sample=sample).values()
        np.testing.assert_array_equal(levels, grid.levels)


def test_names_have_only_characters_that_mlflow_accepts(client: Client) -> None:
    from actgrid.callbacks.mlflow_sink import MlflowSink

    sink = MlflowSink(Run("a"))
    sink.images("block/conv:1[0]", [actgrid.render(np.ones((4, 4, 1))).to_png()], 0)
    sink.scalar("block/conv:1[0]/größe", 1.0, 0)
    sink.flush()
    assert [key for _, _, key, _ in client.images] == ["block/conv_1_0_"]
    assert client.batches == [("a", [("block/conv_1_0_/gr__e", 1.0, 0)])]


def test_numbers_of_a_step_are_one_batch_with_percentiles(client: Client) -> None:
    from actgrid.callbacks.mlflow_sink import MlflowSink

    sink = MlflowSink(Run("b"))
    sink.scalar("conv/dead", 2, 5)
    sink.histogram("conv/mean", [3.0, np.nan, 1.0, -np.inf, 2.5], 5)
    sink.histogram("none", [np.nan], 5)
    sink.flush()
    sink.flush()
    metrics = [("conv/dead", 2.0, 5)]
    metrics += [("conv/mean/min", 1.0, 5), ("conv/mean/median", 2.5, 5), ("conv/mean/max", 3.0, 5)]
    assert client.batches == [("b", metrics)]


def test_a_request_has_at_most_a_thousand_metrics(client: Client) -> None:
    from actgrid.callbacks.mlflow_sink import MlflowSink

    sink = MlflowSink(Run("c"))
    for index in range(2300):
        sink.scalar(f"m{index}", index, 0)
    sink.flush()
    assert [len(metrics) for _, metrics in client.batches] == [1000, 1000, 300]
    assert client.batches[2][1][-1] == ("m2299", 2299.0, 0)


def test_without_an_active_run_training_does_not_begin(client: Client, cnn: Any, x: Any) -> None:
    health = ChannelHealth(x, sinks="mlflow")
    health.set_model(cnn())
    with pytest.raises(OptionError, match=r"needs an active run: call mlflow.start_run\(\) first"):
        health.on_train_begin()


def test_errors_of_the_package_become_a_warning(client: Client, cnn: Any, x: Any) -> None:
    client.error = RuntimeError("")
    health = ChannelHealth(x, "conv", sinks=Run("d"))
    health.set_model(cnn())
    with pytest.warns(RuntimeWarning, match="ChannelHealth: cannot log to MLflow: RuntimeError;"):
        run_step(health)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_local_store_has_the_pictures_and_numbers(
    cnn: Any, x: Any, y: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tmp_path.as_uri())
    grids = ActivationGrids(x[:1], "conv", sinks="mlflow")
    try:
        with mlflow.start_run(experiment_id=mlflow.create_experiment("training")) as run:
            health = ChannelHealth(x, "conv", sinks=run)
            cnn().fit(x, y, epochs=3, verbose=0, callbacks=[grids, health])
        client = mlflow.MlflowClient()
        for name, numbers in health.history.items():
            metrics = client.get_metric_history(run.info.run_id, name)
            assert [(metric.step, metric.value) for metric in metrics] == list(enumerate(numbers))
        steps = {}
        for entry in client.list_artifacts(run.info.run_id, "images"):
            name, _, step, *_ = Path(entry.path).name.split("+")
            if entry.path.endswith(".png"):
                steps[name, int(step)] = entry.path
        assert sorted(steps) == [("conv", 0), ("conv", 1), ("conv", 2)]
        (file,) = tmp_path.rglob(Path(steps["conv", 2]).name)
    finally:
        mlflow.set_tracking_uri(before)
    expected = actgrid.render_model(health.model, x[:1], "conv")["conv"]
    with Image.open(file) as picture:
        np.testing.assert_array_equal(picture.convert("RGB"), expected.to_rgb())
