"""Base class of callbacks that write pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from actgrid.callbacks.base import SinkCallback
from actgrid.callbacks.sinks import Sink
from actgrid.errors import OptionError

__all__ = ["PictureCallback"]

# PNG files by tag, such as a layer path: one file for each sample.
Pictures = Mapping[str, Sequence[bytes]]


class PictureCallback(SinkCallback):
    """Base class of callbacks that write PNG pictures by tag, one for each sample.

    Parameters
    ----------
    options : mapping
        Options of the schedule and the outputs, see `actgrid.options.WatchOptions`.

    Raises
    ------
    OptionError
        If there is no output, or a value of `sinks` is no sink.
    OutputError
        If a folder cannot be created.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if not self._outputs:
            raise OptionError(
                "log_dir, folder and sinks are all None: pass log_dir (for TensorBoard), folder, "
                "or sinks"
            )

    @abstractmethod
    def _draw(self, observation: Any) -> Pictures: ...

    def _send(self, sink: Sink, step: int, content: Any) -> None:
        for tag, pngs in content.items():
            sink.images(tag, pngs, step)
