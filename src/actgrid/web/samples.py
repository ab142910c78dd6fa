"""Samples of the viewer that are no images: sequences, volumes, tables and texts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.explained_tensors import ValueLayout
from actgrid.errors import ActgridError, OptionError
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.inputs import prepare_inputs
from actgrid.models.sample_files import Samples, find_sample_files, read_samples
from actgrid.models.sample_inputs import SampleKind, find_sample_kind
from actgrid.models.texts import encode_texts, is_text
from actgrid.rendering import make_attribution

__all__ = [
    "Sample",
    "SampleReader",
    "draw_sample",
    "make_excerpt",
    "make_reader",
]

Array = npt.NDArray[Any]

# Uploads are untrusted: only formats that cannot claim more memory than the file has.
_UPLOAD_SUFFIXES: dict[SampleKind, tuple[str, ...]] = {
    "sequence": (".npy", ".wav", ".csv", ".tsv"),
    "table": (".npy", ".csv", ".tsv"),
    "text": (".npy", ".txt"),
    "volume": (".npy",),
}
# Height and width in pixels of the part of a text that a thumbnail shows.
_EXCERPT_SIDE = 200
# Number of letters of a text in its name.
_MAX_NAME_LENGTH = 60


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample of a model that takes other data than images.

    Parameters
    ----------
    name
        Name that the page shows.
    kind
        Kind of the sample, see `find_sample_kind`.
    x
        Input of the model, a batch of one sample.
    channels_first
        Whether the channels are the axis after the batch.
    features
        Names of the columns of a table; None if they are not known.
    text
        The text, if it is known.
    tokens
        Value of the option `tokens` of `actgrid.explain`.
    """

    name: str
    kind: str
    x: Array = field(repr=False)
    channels_first: bool = False
    features: tuple[str, ...] | None = None
    text: str | None = None
    tokens: Any = field(default=None, repr=False)

    @property
    def names(self) -> Any:
        """The option `tokens` of `actgrid.explain`, which names columns or tokens."""
        return self.features if self.kind == "table" else self.tokens


class SampleReader:
    """Reads the samples of a model from files, arrays and uploads.

    Parameters
    ----------
    model
        The model.
    kind
        Kind of its samples, see `find_sample_kind`.
    tokens
        Value of the option `tokens` of `actgrid.explain`.
    size, preprocess, fit
        For the frames of videos, see `actgrid.load_images`.
    """

    def __init__(
        self,
        model: Any,
        kind: SampleKind,
        tokens: Any = None,
        size: Any = None,
        preprocess: Any = "auto",
        fit: str = "crop",
    ) -> None:
        self._model, self.kind, self._tokens = model, kind, tokens
        self._options: dict[str, Any] = {"size": size, "preprocess": preprocess, "fit": fit}
        self.suffixes = _UPLOAD_SUFFIXES[kind]

    def iterate(self, sources: Any) -> Iterator[Sample]:
        """Yield the samples of files, folders, globs, arrays and texts, or a list of these.

        Raises
        ------
        OptionError
            If a source has another type. Also a ValueError.
        ActgridError
            Errors of `read_samples`.
        """
        if self.kind == "text" and is_text(sources, self._model, self._tokens):
            sources = [sources] if isinstance(sources, str) else sources
            batch = np.asarray(encode_texts(sources, self._model, self._tokens))
            names = tuple(
                text if len(text) <= _MAX_NAME_LENGTH else f"{text[:_MAX_NAME_LENGTH]}…"
                for text in sources
            )
            yield from self._split(Samples(batch, names, texts=tuple(sources)))
        elif isinstance(sources, (str, os.PathLike)):
            for path in find_sample_files(Path(sources), self.kind):
                yield from self._split(self._read(path))
        elif hasattr(sources, "__array__"):
            batch = np.asarray(prepare_inputs(self._model, sources, single=True))
            names = (
                ("sample",)
                if len(batch) == 1
                else tuple(f"sample {index}" for index in range(len(batch)))
            )
            yield from self._split(Samples(batch, names))
        elif isinstance(sources, Iterable):
            for source in sources:
                yield from self.iterate(source)
        else:
            raise OptionError(
                f"samples must be files, folders, globs, arrays or texts, not {sources!r}"
            )

    def decode(self, data: bytes, name: str) -> Sample:
        """Return the first sample of an uploaded file.

        Raises
        ------
        OptionError
            If the suffix is not accepted. Also a ValueError.
        ActgridError
            Errors of `read_samples`.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in self.suffixes:
            raise OptionError(
                f"the file must have one of the suffixes {', '.join(self.suffixes)}, not {suffix!r}"
            )
        with tempfile.TemporaryDirectory(prefix="actgrid-") as folder:
            path = Path(folder, f"sample{suffix}")
            path.write_bytes(data)
            try:
                return next(self._split(self._read(path)))
            except ActgridError as error:  # clients must not learn the folders of the server
                raise type(error)(str(error).replace(str(path), "the file")) from None

    def _read(self, path: Path) -> Samples:
        return read_samples(path, self._model, tokens=self._tokens, **self._options)

    def _split(self, samples: Samples) -> Iterator[Sample]:
        is_spatial = self.kind in ("sequence", "volume")
        channels_first = is_spatial and find_input_data_format(self._model) == "channels_first"
        for index, name in enumerate(samples.names):
            yield Sample(
                name,
                self.kind,
                np.asarray(samples.batch)[index : index + 1],
                channels_first,
                samples.features,
                None if samples.texts is None else samples.texts[index],
                self._tokens,
            )


def make_reader(model: Any, options: Mapping[str, Any]) -> SampleReader | None:
    """Return the reader of a model's samples; None for a model that takes images.

    Parameters
    ----------
    model
        The model.
    options
        Options of the viewer, of which `tokens`, `size`, `preprocess` and `fit` are used.
    """
    kind = find_sample_kind(model, options["tokens"])
    if kind is None or kind == "image":
        return None
    names = ("tokens", "size", "preprocess", "fit")
    return SampleReader(model, kind, **{name: options[name] for name in names})


def draw_sample(sample: Sample) -> npt.NDArray[np.uint8]:
    """Return a picture of a sample: a plot, cuts of a volume, bars or text.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    if sample.kind == "text":
        text = sample.text or " ".join(map(str, np.ravel(sample.x)))
        names = text.split() or [""]
        drawn = make_attribution(np.zeros((1, len(names))), ("token",), names=[names])
    else:
        values = sample.x.astype(np.float32)
        layout = ValueLayout(values.ndim, sample.channels_first)
        sides = values.shape[layout.spatial_slice]
        if layout.channel_axis is not None:
            values = layout.to_channels_last(values)
        names_of_columns = None if sample.features is None else [sample.features]
        drawn = make_attribution(
            np.zeros((1, *sides), np.float32), layout.names, inputs=values, names=names_of_columns
        )
    picture: npt.NDArray[np.uint8] = drawn.draw_inputs().pictures[0]
    return picture


def make_excerpt(sample: Sample) -> npt.NDArray[np.uint8]:
    """Return the picture of a sample for a thumbnail: only the first words of a text."""
    picture = draw_sample(sample)
    if sample.kind != "text":
        return picture
    excerpt = np.full((_EXCERPT_SIDE, _EXCERPT_SIDE, 3), 255, np.uint8)
    part = picture[:_EXCERPT_SIDE, :_EXCERPT_SIDE]
    excerpt[: part.shape[0], : part.shape[1]] = part
    return excerpt
