from __future__ import annotations

import copy
import signal
import subprocess
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from actgrid.callbacks import ActivationGrids, ChannelHealth, Explanations, TrainingMovie
from actgrid.callbacks.base import TrainingCallback
from actgrid.errors import (
    ActgridError,
    DtypeError,
    LayerError,
    MissingFileError,
    ModelError,
    OptionError,
    OutputError,
    ShapeError,
)


class Watcher(TrainingCallback):
    """Looks at the number of weights, and keeps what becomes of it."""

    def __init__(self, every: Any = "epoch") -> None:
        super().__init__(every)
        self.events: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.problem: Exception | None = None

    def _prepare(self, model: Any) -> None:
        self.events.append("prepare")

    def _look(self, step: int | None) -> Any:
        return self.model.count_params()

    def _draw(self, seen: Any) -> Any:
        return seen

    def _open(self) -> Any:
        self.events.append("open")
        return [Kept(self)]

    def steps(self) -> list[int]:
        return [event for event in self.events if isinstance(event, int)]


class Kept:
    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def write(self, step: int, drawn: Any) -> None:
        assert self.watcher.gate.wait(30)
        if self.watcher.problem:
            raise self.watcher.problem
        self.watcher.events.append(step)

    def close(self) -> None:
        self.watcher.events.append("close")


def test_every_epoch_is_a_step(cnn: Any, x: Any, y: Any) -> None:
    watcher, model = Watcher(), cnn()
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[watcher])
    assert watcher.steps() == [0, 1, 2]
    model.fit(x, y, batch_size=4, initial_epoch=3, epochs=5, verbose=0, callbacks=[watcher])
    assert watcher.steps() == [0, 1, 2, 3, 4]
    assert watcher.events.count("prepare") == 1


def test_batches_are_counted_over_epochs_and_trainings(cnn: Any, x: Any, y: Any) -> None:
    watcher, model = Watcher(2), cnn()
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[watcher])  # 9 batches
    assert watcher.steps() == [2, 4, 6, 8]
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[watcher])
    assert watcher.steps() == [2, 4, 6, 8, 10, 12]


def test_several_batches_in_one_execution(cnn: Any, x: Any, y: Any) -> None:
    watcher, model = Watcher(3), cnn()
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=2)
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[watcher])  # 2 x 6 batches
    # At the end of an execution, of which Keras 3.10 tells the first batch, not the last.
    assert watcher.steps() in ([4, 6, 10, 12], [3, 6, 10])


def test_keras_need_not_wait_for_each_batch() -> None:
    def waits(callback: Any) -> bool:
        return not hasattr(callback.on_train_batch_end, "_is_default")

    assert waits(Watcher(5))
    assert not waits(Watcher("epoch"))


def test_what_every_can_be() -> None:
    with pytest.raises(OptionError, match="'epoch' or a number of batches, not 'batch'"):
        Watcher("batch")
    for every in (0, -1, 1.5, None):
        with pytest.raises(OptionError, match="every must be"):
            Watcher(every)


def test_by_hand(cnn: Any, x: Any, y: Any) -> None:
    model = cnn()
    with Watcher() as watcher:
        with pytest.raises(ModelError, match="set_model"):
            watcher(0)
        watcher.set_model(model)
        for step in (3, 5):
            model.train_on_batch(x, y)
            watcher(step)
        with pytest.raises(OptionError, match="step must be"):
            watcher(-1)
    assert watcher.events == ["prepare", "open", 3, 5, "close"]
    watcher(9)
    watcher.close()
    watcher.close()
    assert watcher.events[5:] == ["open", 9, "close"]
    watcher.set_model(cnn())
    watcher(1)
    watcher.set_model(model)  # which lets go of the other
    assert watcher.events[8:] == ["prepare", "open", 1, "close"]


def test_training_waits_when_three_steps_are_to_be_written(cnn: Any) -> None:
    watcher = Watcher()
    watcher.set_model(cnn())
    watcher.gate.clear()
    watcher(0)
    watcher(1)
    third = threading.Thread(target=watcher, args=(2,))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    assert watcher.steps() == []
    watcher.gate.set()
    third.join(30)
    assert not third.is_alive()
    watcher.close()
    assert watcher.steps() == [0, 1, 2]


def test_what_cannot_be_written_is_told_once_and_training_goes_on(cnn: Any, x: Any, y: Any) -> None:
    watcher, model = Watcher(), cnn()
    watcher.problem = OutputError("cannot write picture: no space left")
    with pytest.warns(RuntimeWarning, match="Watcher: cannot write picture: no space") as told:
        model.fit(x, y, epochs=3, verbose=0, callbacks=[watcher])
    assert len(told) == 1
    assert watcher.steps() == []
    watcher.problem = None
    model.fit(x, y, epochs=1, verbose=0, callbacks=[watcher])
    assert watcher.steps() == [0]


def test_any_other_error_leaves_training(cnn: Any, x: Any, y: Any) -> None:
    watcher = Watcher()
    watcher.problem = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        cnn().fit(x, y, epochs=9, verbose=0, callbacks=[watcher])
    assert watcher.steps() == []


def test_a_training_that_raised_is_followed_by_another(
    cnn: Any, x: Any, y: Any, tmp_path: Path
) -> None:
    class Mistake(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    grids, model = ActivationGrids(x[:1], "conv", folder=tmp_path), cnn()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=4, verbose=0, callbacks=[grids, Mistake()])
    model.fit(x, y, initial_epoch=5, epochs=6, verbose=0, callbacks=[grids])
    files = sorted(path.name for path in (tmp_path / "00_conv").iterdir())
    assert files == ["000000.png", "000001.png", "000005.png"]


@pytest.mark.parametrize("how", ["raises", "is interrupted"])
def test_nothing_is_lost_when_a_process_ends_in_training(
    how: str, tmp_path: Path, start_python: Any
) -> None:
    script = f"""
        import signal, sys, time
        import keras, numpy as np
        from actgrid.callbacks import ActivationGrids, ChannelHealth
        from actgrid.runs.events import EventWriter

        # A shell that runs tests in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        flush = EventWriter.flush
        def slow(self):  # so that steps are waiting when training ends
            time.sleep(0.4)
            flush(self)
        EventWriter.flush = slow

        class End(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 2:
                    print("now", flush=True)
                    if {how == "raises"}:
                        raise RuntimeError("training went wrong")
                    time.sleep(30)

        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv"),
                                  keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x, y = np.ones((4, 8, 8, 3)), np.ones((4, 1))
        folder = sys.argv[1]
        watching = [ActivationGrids(x, log_dir=folder + "/grids", folder=folder),
                    ChannelHealth(x, log_dir=folder + "/health")]
        model.fit(x, y, epochs=9, verbose=0, callbacks=[*watching, End()])
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with start_python("-c", textwrap.dedent(script), tmp_path, **pipes) as process:
        assert process.stdout.readline() == "now\n"
        if how == "is interrupted":
            process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(60) != 0
    wanted = {"raises": "training went wrong", "is interrupted": "KeyboardInterrupt"}
    assert wanted[how] in told.splitlines()[-1]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = {}
    for run, tag in (("grids", "conv"), ("health", "conv/dead_channels")):
        events = EventAccumulator(str(tmp_path / run)).Reload()
        steps[run] = [event.step for event in events.Tensors(tag)]
    assert steps == {"grids": [0, 1, 2], "health": [0, 1, 2]}
    assert len(list((tmp_path / "00_conv").iterdir())) == 3 * 4


def test_a_callback_can_be_copied_before_it_is_used(cnn: Any, x: Any, y: Any) -> None:
    """As tuners do, for each trial."""
    health = copy.deepcopy(ChannelHealth(x, "conv", every=2))
    cnn().fit(x, y, batch_size=4, verbose=0, callbacks=[health])
    assert health.steps == [2]


def test_a_mistake_is_known_before_the_first_epoch(
    cnn: Any, x: Any, y: Any, tmp_path: Path
) -> None:
    model = cnn()
    before = model.get_weights()
    callback: Any
    for callback, error, message in (
        (ChannelHealth(x, "covn"), LayerError, "did you mean conv"),
        (ActivationGrids(x[0], folder=tmp_path), ValueError, "add a batch axis"),
    ):
        with pytest.raises(error, match=message):
            model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    for weights, same in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, same)


Make = Callable[..., Any]


def makers(folder: Path) -> dict[str, Make]:
    """Return what makes each callback of given data and options."""
    return {
        "ActivationGrids": partial(ActivationGrids, folder=folder / "grids"),
        "ChannelHealth": ChannelHealth,
        "Explanations": partial(Explanations, folder=folder / "maps"),
        "TrainingMovie": partial(TrainingMovie, layers="conv", folder=folder / "movie"),
    }


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.zeros((0, 8, 8, 3)), ShapeError, r"\(0, 8, 8, 3\) are empty"),
        (["nowhere.jpg"], MissingFileError, "nowhere.jpg"),
        (iter([np.zeros((2, 8, 8, 3))]), OptionError, "iterator"),
        ((x for x in [1]), OptionError, "iterator"),
        (object(), DtypeError, "arrays of numbers"),
    ],
    ids=["empty", "missing file", "iterator", "generator", "object"],
)
def test_data_that_cannot_be_used_are_refused_by_every_callback_at_once(
    data: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    for make in makers(tmp_path).values():
        with pytest.raises(error, match=message):
            make(data)


def datasets(x: Any, y: Any) -> dict[str, Any]:
    """Return the first five samples in every kind of dataset that `fit` takes."""
    slices = tf.data.Dataset.from_tensor_slices
    several = slices((x[:5], y[:5]))

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return x[:5][3 * index : 3 * index + 3], y[:5][3 * index : 3 * index + 3]

    return {
        "inputs": slices(x[:5]).batch(2),
        "inputs and targets": several.batch(2),
        "and weights": slices((x[:5], y[:5], np.ones(5))).batch(3).prefetch(1),
        "one batch": several.batch(5),
        "samples": several,
        "of unknown size": several.batch(2).filter(lambda *_: True),
        "PyDataset": Batches(),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("inputs", "inputs and targets", "and weights", "one batch", "samples"),
        *("of unknown size", "PyDataset"),
    ],
)
def test_a_dataset_is_used_like_the_arrays_that_it_holds(
    cnn: Any, x: Any, y: Any, tmp_path: Path, kind: str
) -> None:
    model = cnn()

    def written(data: Any, folder: Path) -> dict[str, bytes]:
        for name, make in makers(folder).items():
            with make(data) as callback:
                callback.set_model(model)
                callback(0)
                if name == "ChannelHealth":
                    (folder / "history").write_text(str(callback.history))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    expected = written(x[:5], tmp_path / "arrays")
    assert len(expected) > 15
    assert written(datasets(x, y)[kind], tmp_path / "dataset") == expected


def test_datasets_of_several_inputs_are_used(tmp_path: Path) -> None:
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((4,), name="right")
    joined = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(left)), right])
    model = keras.Model({"left": left, "right": right}, layers.Dense(2, name="out")(joined))
    rng = np.random.default_rng(1)
    x = {"left": rng.random((4, 8, 8, 3), np.float32), "right": rng.random((4, 4), np.float32)}
    histories = []
    for data in (x, tf.data.Dataset.from_tensor_slices((x, np.zeros(4))).batch(3)):
        health = ChannelHealth(data, "*")
        health.set_model(model)
        health(0)
        health.close()
        histories.append(health.history)
    assert histories[0] == histories[1]
    assert "out/dead_channels" in histories[0]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (tf.data.Dataset.from_tensors(np.zeros((1, 8, 8, 3))).repeat(), r"never ends.*take\(n\)"),
        (tf.data.Dataset.from_tensors(np.zeros((5001, 1, 1, 1))).repeat(2), "more than 10,000"),
        (tf.data.Dataset.from_tensors(np.zeros((1, 8, 8, 3))).take(0), "empty dataset"),
    ],
    ids=["infinite", "huge", "empty"],
)
def test_datasets_that_cannot_be_used_are_refused_at_once(
    dataset: Any, message: str, tmp_path: Path
) -> None:
    for make in makers(tmp_path).values():
        with pytest.raises(ActgridError, match=message):
            make(dataset)


def test_options_that_cannot_be_used_are_refused_at_once(x: Any, tmp_path: Path) -> None:
    for make in (
        partial(ActivationGrids, x, folder=tmp_path),
        partial(TrainingMovie, x, "conv", folder=tmp_path),
    ):
        for options, message in (
            ({"cmap": "no map"}, "no map"),
            ({"normalize": "standart"}, "standart"),
            ({"zoom": 0}, "zoom must be at least 1"),
            ({"order": "men"}, "did you mean mean"),
            ({"colums": 3}, "no option 'colums' .did you mean columns"),
        ):
            with pytest.raises(OptionError, match=message):
                make(**options)
    with pytest.raises(OptionError, match="batch_size"):
        Explanations(x, folder=tmp_path, batch_size=0)
    for make in (
        partial(ActivationGrids, x, folder=tmp_path),
        partial(ChannelHealth, x),
        partial(TrainingMovie, x, folder=tmp_path),
    ):
        with pytest.raises(OptionError, match="layers"):
            make(layers=3.5)  # type: ignore[arg-type]


def test_folders_that_cannot_be_made_are_refused_at_once(x: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (
        partial(ActivationGrids, x, log_dir=tmp_path / "file" / "logs"),
        partial(ActivationGrids, x, folder=tmp_path / "file"),
        partial(ChannelHealth, x, log_dir=tmp_path / "file"),
        partial(Explanations, x, folder=tmp_path / "file" / "maps"),
        partial(TrainingMovie, x, "conv", folder=tmp_path / "file"),
        partial(ActivationGrids, x, folder=""),
        partial(ChannelHealth, x, log_dir=""),
        partial(TrainingMovie, x, "conv", folder=""),
    ):
        with pytest.raises(OutputError, match=r"file|empty"):
            make()
