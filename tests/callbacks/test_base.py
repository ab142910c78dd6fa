"""When callbacks observe the model, how they write, and which data they take."""

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
from actgrid.callbacks.base import SinkCallback
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


class RecordingCallback(SinkCallback):
    """Callback that records its calls and steps in `events`."""

    def __init__(self, every: Any = "epoch") -> None:
        sinks = [RecordingSink(self)]
        super().__init__({"every": every, "log_dir": None, "folder": None, "sinks": sinks})
        self.events: list[Any] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.error: Exception | None = None

    def _prepare(self, model: Any) -> None:
        self.events.append("prepare")

    def _observe(self, step: int | None) -> Any:
        return self.model.count_params()

    def _draw(self, observation: Any) -> Any:
        return observation

    def _open_outputs(self) -> None:
        self.events.append("open")
        super()._open_outputs()

    def _send(self, sink: Any, step: int, content: Any) -> None:
        sink.scalar("parameters", content, step)

    def list_steps(self) -> list[int]:
        return [event for event in self.events if isinstance(event, int)]


class RecordingSink:
    def __init__(self, recorder: RecordingCallback) -> None:
        self.recorder = recorder

        self.steps: list[int] = []

    def images(self, tag: str, pngs: Any, step: int) -> None:
        raise AssertionError("there are no pictures")

    histogram = images

    def scalar(self, tag: str, value: float, step: int) -> None:
        assert self.recorder.may_write.wait(30)
        if self.recorder.error:
            raise self.recorder.error
        self.steps.append(step)

    def flush(self) -> None:
        self.recorder.events += self.steps
        self.steps.clear()

    def close(self) -> None:
        self.recorder.events.append("close")


def test_every_epoch_is_a_step(cnn: Any, x: Any, y: Any) -> None:
    recorder, model = RecordingCallback(), cnn()
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    assert recorder.list_steps() == [0, 1, 2]
    model.fit(x, y, batch_size=4, initial_epoch=3, epochs=5, verbose=0, callbacks=[recorder])
    assert recorder.list_steps() == [0, 1, 2, 3, 4]
    assert recorder.events.count("prepare") == 1


def test_batches_are_counted_across_epochs_and_trainings(cnn: Any, x: Any, y: Any) -> None:
    recorder, model = RecordingCallback(2), cnn()
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[recorder])  # 9 batches
    assert recorder.list_steps() == [2, 4, 6, 8]
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[recorder])
    assert recorder.list_steps() == [2, 4, 6, 8, 10, 12]


def test_steps_per_execution(cnn: Any, x: Any, y: Any) -> None:
    recorder, model = RecordingCallback(3), cnn()
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=2)
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[recorder])  # 2 x 6 batches
    # Steps are at the end of an execution. Keras 3.10 passes its first batch, not its last.
    assert recorder.list_steps() in ([4, 6, 10, 12], [3, 6, 10])


def test_epoch_callbacks_have_no_batch_method() -> None:
    def has_batch_method(callback: Any) -> bool:
        return not hasattr(callback.on_train_batch_end, "_is_default")

    assert has_batch_method(RecordingCallback(5))
    assert not has_batch_method(RecordingCallback("epoch"))


def test_invalid_every_is_rejected() -> None:
    with pytest.raises(OptionError, match="'epoch' or a number of batches, not 'batch'"):
        RecordingCallback("batch")
    for every in (0, -1, 1.5, None):
        with pytest.raises(OptionError, match="every must be"):
            RecordingCallback(every)


def test_custom_training_loop(cnn: Any, x: Any, y: Any) -> None:
    model = cnn()
    with RecordingCallback() as recorder:
        with pytest.raises(ModelError, match="set_model"):
            recorder(0)
        recorder.set_model(model)
        for step in (3, 5):
            model.train_on_batch(x, y)
            recorder(step)
        with pytest.raises(OptionError, match="step must be"):
            recorder(-1)
    assert recorder.events == ["prepare", "open", 3, 5, "close"]
    recorder(9)
    recorder.close()
    recorder.close()
    assert recorder.events[5:] == ["open", 9, "close"]
    recorder.set_model(cnn())
    recorder(1)
    recorder.set_model(model)  # closes the outputs of the other model
    assert recorder.events[8:] == ["prepare", "open", 1, "close"]


def test_training_waits_if_three_steps_are_pending(cnn: Any) -> None:
    recorder = RecordingCallback()
    recorder.set_model(cnn())
    recorder.may_write.clear()
    recorder(0)
    recorder(1)
    third = threading.Thread(target=recorder, args=(2,))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    assert recorder.list_steps() == []
    recorder.may_write.set()
    third.join(30)
    assert not third.is_alive()
    recorder.close()
    assert recorder.list_steps() == [0, 1, 2]


def test_output_error_warns_once_and_training_continues(cnn: Any, x: Any, y: Any) -> None:
    recorder, model = RecordingCallback(), cnn()
    recorder.error = OutputError("cannot write picture: no space left")
    with pytest.warns(RuntimeWarning, match="RecordingCallback: cannot write picture") as records:
        model.fit(x, y, epochs=3, verbose=0, callbacks=[recorder])
    assert len(records) == 1
    assert recorder.list_steps() == []
    recorder.error = None
    model.fit(x, y, epochs=1, verbose=0, callbacks=[recorder])
    assert recorder.list_steps() == [0]


def test_other_errors_end_training(cnn: Any, x: Any, y: Any) -> None:
    recorder = RecordingCallback()
    recorder.error = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        cnn().fit(x, y, epochs=9, verbose=0, callbacks=[recorder])
    assert recorder.list_steps() == []


def test_callback_can_be_used_after_failed_training(
    cnn: Any, x: Any, y: Any, tmp_path: Path
) -> None:
    class Interrupt(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    grids, model = ActivationGrids(x[:1], "conv", folder=tmp_path), cnn()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=4, verbose=0, callbacks=[grids, Interrupt()])
    model.fit(x, y, initial_epoch=5, epochs=6, verbose=0, callbacks=[grids])
    files = sorted(path.name for path in (tmp_path / "00_conv").iterdir())
    assert files == ["000000.png", "000001.png", "000005.png"]


@pytest.mark.parametrize("ending", ["raises", "is interrupted"])
def test_pending_steps_are_written_when_the_process_ends(
    ending: str, tmp_path: Path, start_python: Any
) -> None:
    script = f"""
        import signal, sys, time
        import keras, numpy as np
        from actgrid.callbacks import ActivationGrids, ChannelHealth
        from actgrid.runs.events import EventWriter

        # A shell that runs tests in the background ignores SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        flush = EventWriter.flush
        def slow_flush(self):  # so that steps are pending when training ends
            time.sleep(0.4)
            flush(self)
        EventWriter.flush = slow_flush

        class End(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 2:
                    print("now", flush=True)
                    if {ending == "raises"}:
                        raise RuntimeError("training went wrong")
                    time.sleep(30)

        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv"),
                                  keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        x, y = np.ones((4, 8, 8, 3)), np.ones((4, 1))
        folder = sys.argv[1]
        callbacks = [ActivationGrids(x, log_dir=folder + "/grids", folder=folder),
                     ChannelHealth(x, log_dir=folder + "/health")]
        model.fit(x, y, epochs=9, verbose=0, callbacks=[*callbacks, End()])
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with start_python("-c", textwrap.dedent(script), tmp_path, **pipes) as process:
        assert process.stdout.readline() == "now\n"
        if ending == "is interrupted":
            process.send_signal(signal.SIGINT)
        output = process.stderr.read()
        assert process.wait(60) != 0
    expected = {"raises": "training went wrong", "is interrupted": "KeyboardInterrupt"}
    assert expected[ending] in output.splitlines()[-1]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = {}
    for run, tag in (("grids", "conv"), ("health", "conv/dead_channels")):
        events = EventAccumulator(str(tmp_path / run)).Reload()
        steps[run] = [event.step for event in events.Tensors(tag)]
    assert steps == {"grids": [0, 1, 2], "health": [0, 1, 2]}
    assert len(list((tmp_path / "00_conv").iterdir())) == 3 * 4


def test_callback_can_be_copied(cnn: Any, x: Any, y: Any) -> None:
    """Tuners copy callbacks for each trial."""
    health = copy.deepcopy(ChannelHealth(x, "conv", every=2))
    cnn().fit(x, y, batch_size=4, verbose=0, callbacks=[health])
    assert health.steps == [2]


def test_errors_are_raised_before_the_first_epoch(cnn: Any, x: Any, y: Any, tmp_path: Path) -> None:
    model = cnn()
    before = model.get_weights()
    callback: Any
    for callback, error, message in (
        (ChannelHealth(x, "covn"), LayerError, "did you mean conv"),
        (ActivationGrids(x[0], folder=tmp_path), ValueError, "add a batch axis"),
    ):
        with pytest.raises(error, match=message):
            model.fit(x, y, epochs=1, verbose=0, callbacks=[callback])
    for initial, current in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(initial, current)


CallbackMaker = Callable[..., Any]


def list_makers(folder: Path) -> dict[str, CallbackMaker]:
    """Return a function for each callback that creates it from data and options."""
    return {
        "ActivationGrids": partial(ActivationGrids, folder=folder / "grids"),
        "ChannelHealth": ChannelHealth,
        "Explanations": partial(Explanations, folder=folder / "maps"),
        "TrainingMovie": partial(TrainingMovie, layers="conv", folder=folder / "movie"),
    }


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.zeros((0, 8, 8, 3)), ShapeError, r"must not be empty: got shape \(0, 8, 8, 3\)"),
        (["nowhere.jpg"], MissingFileError, "nowhere.jpg"),
        (iter([np.zeros((2, 8, 8, 3))]), OptionError, "iterator"),
        ((x for x in [1]), OptionError, "iterator"),
        (object(), DtypeError, "arrays of numbers"),
    ],
    ids=["empty", "missing file", "iterator", "generator", "object"],
)
def test_invalid_data_are_rejected_by_every_callback(
    data: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    for make in list_makers(tmp_path).values():
        with pytest.raises(error, match=message):
            make(data)


def make_datasets(x: Any, y: Any) -> dict[str, Any]:
    """Return the first five samples as every kind of dataset that `fit` takes."""
    make_dataset = tf.data.Dataset.from_tensor_slices
    samples = make_dataset((x[:5], y[:5]))

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return x[:5][3 * index : 3 * index + 3], y[:5][3 * index : 3 * index + 3]

    return {
        "inputs": make_dataset(x[:5]).batch(2),
        "inputs and targets": samples.batch(2),
        "sample weights": make_dataset((x[:5], y[:5], np.ones(5))).batch(3).prefetch(1),
        "single batch": samples.batch(5),
        "samples": samples,
        "unknown size": samples.batch(2).filter(lambda *_: True),
        "PyDataset": Batches(),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("inputs", "inputs and targets", "sample weights", "single batch", "samples"),
        *("unknown size", "PyDataset"),
    ],
)
def test_datasets_give_the_results_of_their_arrays(
    cnn: Any, x: Any, y: Any, tmp_path: Path, kind: str
) -> None:
    model = cnn()

    def write_files(data: Any, folder: Path) -> dict[str, bytes]:
        for name, make in list_makers(folder).items():
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

    expected = write_files(x[:5], tmp_path / "arrays")
    assert len(expected) > 15
    assert write_files(make_datasets(x, y)[kind], tmp_path / "dataset") == expected


def test_datasets_of_several_inputs(tmp_path: Path) -> None:
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
        (
            tf.data.Dataset.from_tensors(np.zeros((1, 8, 8, 3))).repeat(),
            r"infinite dataset.*take\(n\)",
        ),
        (tf.data.Dataset.from_tensors(np.zeros((5001, 1, 1, 1))).repeat(2), "more than 10,000"),
        (tf.data.Dataset.from_tensors(np.zeros((1, 8, 8, 3))).take(0), "empty dataset"),
    ],
    ids=["infinite", "huge", "empty"],
)
def test_invalid_datasets_are_rejected(dataset: Any, message: str, tmp_path: Path) -> None:
    for make in list_makers(tmp_path).values():
        with pytest.raises(ActgridError, match=message):
            make(dataset)


def test_invalid_options_are_rejected(x: Any, tmp_path: Path) -> None:
    for make in (
        partial(ActivationGrids, x, folder=tmp_path),
        partial(TrainingMovie, x, "conv", folder=tmp_path),
    ):
        for options, message in (
            ({"cmap": "no map"}, "no map"),
            ({"normalize": "standart"}, "standart"),
            ({"zoom": 0}, "zoom must be at least 1"),
            ({"order": "men"}, "did you mean mean"),
            ({"colums": 3}, "unknown option 'colums' .did you mean columns"),
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


def test_folders_that_cannot_be_created_are_rejected(x: Any, tmp_path: Path) -> None:
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
