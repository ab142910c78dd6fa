"""The samples of a run from files of sequences, tables, volumes, videos and texts."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from actgrid.errors import ActgridError, OptionError
from actgrid.figures.files import make_safe_name, make_unique_names
from actgrid.models.sample_files import (
    Samples,
    find_sample_files,
    is_sample_file,
    may_be_sample_file,
    read_samples,
)
from actgrid.models.sample_inputs import find_sample_kind
from actgrid.runs.sources import Item, Items, find_items

__all__ = ["SampleItems", "find_run_items", "iterate_samples"]


class SampleItems(Items):
    """The `Items` of files that `read_samples` reads, one item for each sample.

    The item of a file that cannot be read has its error as its source.

    Parameters
    ----------
    paths
        The files, or folders of frames.
    read
        Reads the samples of a file.
    are_named_files
        Whether the files were given by their own paths.

    Attributes
    ----------
    features
        Names of the columns of the table that was read last; None if they are not known.
    """

    features: tuple[str, ...] | None = None

    def __init__(
        self, paths: list[Path], read: Callable[[Path], Samples], are_named_files: bool
    ) -> None:
        self._paths, self._read = paths, read
        self.are_named_files = are_named_files
        keys = (make_safe_name(path.name.partition(".")[0]) for path in paths)
        self._keys = make_unique_names(keys, ("manifest", "top"))

    def start(self, index: int = 0) -> Iterator[Item]:
        """Yield the samples from an index on."""
        number = 0
        for path, key in zip(self._paths, self._keys, strict=True):
            try:
                samples = self._read(path)
            except ActgridError as error:
                if number >= index:
                    yield Item(number, str(path), key, error)
                number += 1
                continue
            self.features = samples.features
            count = len(samples.names)
            for row, name in enumerate(samples.names):
                if number >= index:
                    source = _select_row(samples.batch, row)
                    sample_key = key if count == 1 else f"{key}/{row:06}"
                    yield Item(number, str(path.with_name(name)), sample_key, source)
                number += 1

    def digest(self) -> str:
        """Return a hash of the paths and keys of all files."""
        digest = hashlib.sha256()
        for path, key in zip(self._paths, self._keys, strict=True):
            digest.update(orjson.dumps([str(path), key]))
        return digest.hexdigest()


def find_run_items(
    inputs: Any, output: Path | None, get_model: Callable[[], Any], options: Mapping[str, Any]
) -> Items:
    """Find the images or other samples of a run.

    Parameters
    ----------
    inputs
        See `find_items`; or files, folders or globs of samples, see `read_samples`.
    output
        Folder of the output files, which is not searched.
    get_model
        Function that returns the model. It is called only if files may be no images.
    options
        Options of a run, of which `size`, `preprocess`, `fit` and `tokens` are used.

    Returns
    -------
    Items
        `SampleItems` if the files are samples for the model.

    Raises
    ------
    OptionError
        If files of images and of arrays are mixed. Also a ValueError.
    ActgridError
        Errors of `find_items`, `find_sample_files` and `get_model`.
    """
    sources = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(sources, (list, tuple)) or not _may_have_samples(sources):
        return find_items(inputs, output)
    model = get_model()
    kind = find_sample_kind(model, options["tokens"])
    has_images = kind in (None, "image")
    if has_images and not any(is_sample_file(source, kind) for source in sources):
        return find_items(inputs, output)
    paths = [
        path
        for source in sources
        for path in find_sample_files(source, kind)
        if output is None or path == Path(source) or not path.is_relative_to(output)
    ]
    if has_images and not all(is_sample_file(path, kind) for path in paths):
        raise OptionError("images and files of arrays cannot be in one run: start a run for each")
    names = ("size", "preprocess", "fit", "tokens")

    def read(path: Path) -> Samples:
        return read_samples(path, model, **{name: options[name] for name in names})

    return SampleItems(paths, read, paths == [Path(source) for source in sources])


def iterate_samples(items: Items) -> Iterator[tuple[Path, Any]]:
    """Yield the name of each sample, as a path, and the sample as a batch of one.

    Raises
    ------
    ActgridError
        If a file cannot be read.
    """
    for item in items.start():
        source = item.source
        if isinstance(source, ActgridError):
            raise source
        if isinstance(source, Mapping):
            yield Path(item.name), {name: array[None] for name, array in source.items()}
        else:
            yield Path(item.name), source[None]


def _may_have_samples(sources: Sequence[Any]) -> bool:
    """Return whether sources may be samples of a model that takes no images."""
    paths = [source for source in sources if isinstance(source, (str, os.PathLike))]
    if any(
        may_be_sample_file(path) or glob.has_magic(os.fspath(path)) or Path(path).is_dir()
        for path in paths
    ):
        return True
    # Animations can have the suffix of pictures; only the first file is opened.
    return bool(paths) and is_sample_file(paths[0], "volume")


def _select_row(batch: Any, row: int) -> Any:
    if isinstance(batch, Mapping):
        return {name: array[row] for name, array in batch.items()}
    return batch[row]
