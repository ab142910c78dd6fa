"""Base class of the callbacks: schedule, and writing of results to sinks."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from actgrid.callbacks.sinks import Outputs, Sink
from actgrid.errors import ModelError, OptionError, OutputError
from actgrid.models.frameworks import keras
from actgrid.option_checks import check_integer

__all__ = ["SinkCallback", "TrainingCallback"]

# Number of steps that may wait to be written. Each holds observations such as activations.
_MAX_PENDING = 2


class _TaskThread:
    """Thread that runs tasks in the order of their submission; it is no daemon."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "actgrid-callback")
        self._tasks: deque[Future[None]] = deque()

    def submit(self, task: Callable[..., None], *arguments: Any) -> None:
        """Submit a task, a function and its arguments, to the thread.

        The method blocks while more than two tasks are pending.

        Raises
        ------
        Exception
            If an earlier task raised an exception.
        """
        self._tasks.append(self._pool.submit(task, *arguments))
        while len(self._tasks) > _MAX_PENDING:
            self._tasks.popleft().result()

    def close(self, last: Callable[[], None]) -> None:
        """Submit a last task and wait until the thread has run all tasks.

        Raises
        ------
        Exception
            The first exception that a task raised.
        """
        self._tasks.append(self._pool.submit(last))
        self._pool.shutdown()
        for task in self._tasks:
            task.result()


_Callback = TypeVar("_Callback", bound="TrainingCallback")


class TrainingCallback(keras().callbacks.Callback, ABC):  # type: ignore[misc]
    """Base class of callbacks that observe a model at regular steps of its training.

    The model is observed between two batches by the training thread. Another thread draws, encodes
    and writes the observations in order while training continues. If three steps are pending,
    training waits.

    Parameters
    ----------
    every : str or int
        ``"epoch"``, or the number of batches between two steps.
    """

    def __init__(self, every: str | int) -> None:
        super().__init__()
        self._every = None if every == "epoch" else _check_batches(every)
        if self._every is not None:
            # Set only if necessary: for callbacks with this method, Keras waits for the loss of
            # every batch.
            self.on_train_batch_end = self._after_batch
        self._batch_count = self._batches_before_epoch = 0
        self._observed_model: Any = None
        self._task_thread: _TaskThread | None = None
        self._has_warned = False

    def set_model(self, model: Any) -> None:
        """Set the model that the callback observes; Keras calls this before training."""
        if model is not self.model:
            self.close()
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check before training that the callback can observe the model; open the outputs."""
        self.close()  # outputs that a failed training left open
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the number of training batches before this epoch."""
        self._batches_before_epoch = self._batch_count

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Observe the model and submit the results for writing, if `every` is ``"epoch"``."""
        if self._every is None:
            self(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait until the results of all steps are written, and close the outputs."""
        self.close()

    def _after_batch(self, batch: int, logs: Any = None) -> None:
        assert self._every is not None
        before, self._batch_count = self._batch_count, self._batches_before_epoch + batch + 1
        # With `steps_per_execution`, Keras calls this method once for several batches.
        if self._batch_count // self._every > before // self._every:
            self(self._batch_count)

    def __call__(self, step: int) -> None:
        """Observe the model of the callback now, in a custom training loop.

        Parameters
        ----------
        step : int
            Number of the step in file names and TensorBoard, 0 or more.

        Raises
        ------
        ModelError
            If no model was set by ``callback.set_model(model)``. Also a ValueError.
        """
        step = check_integer("step", step, 0)
        if self._task_thread is None:
            self._begin()
        assert self._task_thread is not None
        self._task_thread.submit(self._record, step, self._observe(step))

    def close(self) -> None:
        """Wait until the results of all steps are written, and close the outputs.

        ``model.fit`` calls this method at its end. The next step opens the outputs again.
        """
        task_thread, self._task_thread = self._task_thread, None
        if task_thread is not None:
            # The writing thread closes the files: an interrupt here could otherwise close a file
            # that is being written.
            task_thread.close(self._close_outputs)

    def __enter__(self: _Callback) -> _Callback:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        model = self.model
        if model is None:
            raise ModelError("the callback has no model: call callback.set_model(model) first")
        if model is not self._observed_model:
            self._prepare(model)
            # A trial run raises errors before the first epoch instead of after it.
            self._draw(self._observe(None))
            self._observed_model = model
        self._open_outputs()
        self._task_thread = _TaskThread()
        self._has_warned = False

    def _record(self, step: int, observation: Any) -> None:
        self._write(step, self._draw(observation))

    def _open_outputs(self) -> None:
        """Open the outputs when training begins."""

    def _close_outputs(self) -> None:
        """Close the outputs at the end of a training."""

    def _attempt(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call a method of an output; convert an OutputError to a warning.

        Training continues after the error. Only the first error is reported.
        """
        try:
            write(*arguments)
        except OutputError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"{type(self).__name__}: {error}; training continues, and further failures "
                    "are not reported",
                    RuntimeWarning,
                    stacklevel=2,
                )

    @abstractmethod
    def _prepare(self, model: Any) -> None:
        """Prepare the callback for a model that it has not observed before."""

    @abstractmethod
    def _observe(self, step: int | None) -> Any:
        """Return the values that the callback records of the model at a step.

        Parameters
        ----------
        step
            Number of the step. None: the trial run before training.

        Returns
        -------
        object
            An observation that later training does not change, such as arrays.
        """

    @abstractmethod
    def _draw(self, observation: Any) -> Any:
        """Convert an observation of the model to the content that the outputs write.

        Parameters
        ----------
        observation
            Result of `_observe`.
        """

    @abstractmethod
    def _write(self, step: int, content: Any) -> None:
        """Write the content of a step to the outputs.

        Parameters
        ----------
        content
            Result of `_draw`.
        """


class SinkCallback(TrainingCallback):
    """Base class of callbacks that write to sinks.

    Parameters
    ----------
    options : mapping
        Options of the schedule and the outputs, see `actgrid.options.WatchOptions`.

    Raises
    ------
    OptionError
        If a value of `sinks` is no sink.
    OutputError
        If a folder cannot be created.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options["every"])
        self._outputs = Outputs.from_options(options)
        self._sinks: Sequence[Sink] = ()

    def _open_outputs(self) -> None:
        self._sinks = self._outputs.open()

    def _close_outputs(self) -> None:
        for sink in self._sinks:
            self._attempt(sink.close)

    def _write(self, step: int, content: Any) -> None:
        for sink in self._sinks:
            self._attempt(self._write_step, sink, step, content)

    def _write_step(self, sink: Sink, step: int, content: Any) -> None:
        self._send(sink, step, content)
        sink.flush()

    @abstractmethod
    def _send(self, sink: Sink, step: int, content: Any) -> None:
        """Pass the content of a step to a sink.

        Parameters
        ----------
        content
            Result of `_draw`.

        Raises
        ------
        OutputError
            If the sink cannot receive the content.
        """


def _check_batches(every: object) -> int:
    if isinstance(every, str):
        raise OptionError(f"every must be 'epoch' or a number of batches, not {every!r}")
    return check_integer("every", every, 1)
