"""What all callbacks share: when they look at the model, and who writes what they saw."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from actgrid.errors import ModelError, OptionError, OutputError
from actgrid.models.frameworks import keras
from actgrid.option_checks import integer_option

__all__ = ["Sink", "TrainingCallback"]

# Steps that may wait to be written. Each holds what was seen, such as activations.
_MOST_WAITING = 2


class Sink(Protocol):
    """Where what was drawn goes, step by step; used by one thread."""

    def write(self, step: int, drawn: Any) -> None:
        """Write what was drawn of a step, to be found by others at once.

        Raises
        ------
        OutputError
            If it cannot be written.
        """

    def close(self) -> None:
        """Let go of files."""


class _Background:
    """Does tasks in order on one thread, for which the interpreter waits before it ends."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "actgrid-callback")
        self._tasks: deque[Future[None]] = deque()

    def submit(self, task: Callable[..., None], *arguments: Any) -> None:
        """Have a task done; wait while many others are to be done before it."""
        self._tasks.append(self._pool.submit(task, *arguments))
        while len(self._tasks) > _MOST_WAITING:
            self._tasks.popleft().result()

    def close(self, last: Callable[[], None]) -> None:
        """Wait until all is done, and one more task at last; raise what a task has raised."""
        self._tasks.append(self._pool.submit(last))
        self._pool.shutdown()
        for task in self._tasks:
            task.result()


_Callback = TypeVar("_Callback", bound="TrainingCallback")


class TrainingCallback(keras().callbacks.Callback, ABC):  # type: ignore[misc]
    """Looks at a model now and then while it is trained, and has what it saw written aside.

    The model is looked at between two batches, by the thread that trains it. Drawing, encoding
    and writing happen on another one, in order, while training goes on; when that falls behind,
    training waits.

    Parameters
    ----------
    every
        ``"epoch"``, or a number of batches.
    """

    def __init__(self, every: str | int) -> None:
        super().__init__()
        self._every = None if every == "epoch" else _batches(every)
        if self._every is not None:
            # Only here: for one who has this method, Keras waits for the loss of every batch.
            self.on_train_batch_end = self._after_batch
        self._seen = self._seen_before = 0  # batches: in all, and before this epoch
        self._watched: Any = None
        self._sinks: Sequence[Sink] = ()
        self._background: _Background | None = None
        self._warned = False

    def set_model(self, model: Any) -> None:
        """Choose the model to look at, as Keras does when training begins."""
        if model is not self.model:
            self.close()
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that the model can be drawn, before it is trained."""
        self.close()  # what a training that raised has left open
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count batches on from here."""
        self._seen_before = self._seen

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the model, if that is to be done every epoch."""
        if self._every is None:
            self(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait until everything is written."""
        self.close()

    def _after_batch(self, batch: int, logs: Any = None) -> None:
        assert self._every is not None
        before, self._seen = self._seen, self._seen_before + batch + 1
        # Several batches may be one execution, between which there is nothing to be seen.
        if self._seen // self._every > before // self._every:
            self(self._seen)

    def __call__(self, step: int) -> None:
        """Look at the model now: what Keras does every epoch, for a loop of one's own.

        Parameters
        ----------
        step
            What it is filed under.

        Raises
        ------
        ModelError
            If no model was given, by ``callback.set_model(model)``. Also a ValueError.
        """
        step = integer_option("step", step, 0)
        if self._background is None:
            self._begin()
        assert self._background is not None
        self._background.submit(self._record, step, self._look(step))

    def close(self) -> None:
        """Wait until everything is written, and close the files. They are opened again if need be.

        Training by ``model.fit`` ends with this.
        """
        background, self._background = self._background, None
        if background is not None:
            # By the thread that writes, or an interrupt here would take its files away.
            background.close(self._close_sinks)

    def __enter__(self: _Callback) -> _Callback:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        model = self.model
        if model is None:
            raise ModelError("no model to look at: callback.set_model(model) gives one")
        if model is not self._watched:
            self._prepare(model)
            # What cannot be drawn is to be known before the first epoch, not after it.
            self._draw(self._look(None))
            self._watched = model
        self._sinks = self._open()
        self._background = _Background()
        self._warned = False

    def _record(self, step: int, seen: Any) -> None:
        drawn = self._draw(seen)
        for sink in self._sinks:
            self._attempt(sink.write, step, drawn)

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            self._attempt(sink.close)

    def _attempt(self, write: Callable[..., None], *arguments: Any) -> None:
        """Write; where that fails, training is worth more than its pictures."""
        try:
            write(*arguments)
        except OutputError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{type(self).__name__}: {error}; training goes on, and further failures "
                    "are not told",
                    RuntimeWarning,
                    stacklevel=2,
                )

    @abstractmethod
    def _prepare(self, model: Any) -> None:
        """Prepare for a model that was not looked at before."""

    @abstractmethod
    def _look(self, step: int | None) -> Any:
        """Return what the model does now, which later training does not change.

        Parameters
        ----------
        step
            None before training.
        """

    @abstractmethod
    def _draw(self, seen: Any) -> Any:
        """Return what was seen as the sinks take it."""

    @abstractmethod
    def _open(self) -> Sequence[Sink]:
        """Return where it goes, ready to be written."""


def _batches(every: object) -> int:
    if isinstance(every, str):
        raise OptionError(f"every must be 'epoch' or a number of batches, not {every!r}")
    return integer_option("every", every, 1)
