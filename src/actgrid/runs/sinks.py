"""Sinks, which write the files of images: a folder for each image, or tar shards."""

from __future__ import annotations

import io
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from actgrid.runs.sources import Item
from actgrid.runs.stores import Store

__all__ = ["FolderSink", "Sink", "TarSink", "format_shard_name"]

Self = TypeVar("Self", bound="Sink")

# File name of a layer's picture, see `number_files`.
_PICTURE = re.compile(r"\d{2,}_.+\.\w+")


class Sink(ABC):
    """Base class of output writers (sinks), which write the pictures of images.

    A sink is a context manager. After an error, no partly written file remains. All methods can
    raise OutputError.

    Attributes
    ----------
    writes_whole_shards
        Whether the files of an image appear only when its whole shard is complete.
    """

    writes_whole_shards: bool

    @abstractmethod
    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Write an output file of an image, such as a picture of a layer.

        A sink may buffer the file until `finish` is called for the image. Threads may call this
        method for images in any order.
        """

    @abstractmethod
    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Finish writing the files of an image; return their names in the output folder.

        Called by one thread, in the order of the images.
        """

    @abstractmethod
    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Remove the files of an image that cannot be processed."""

    @abstractmethod
    def close_shard(self, number: int) -> None:
        """Finish writing a shard, after `finish` or `drop` was called for all its images."""

    def __enter__(self: Self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...


class FolderSink(Sink):
    """Writes the files of each image at once, to a folder with the name of its key.

    Parameters
    ----------
    store
        Store of the files.
    remove_others
        Whether to remove pictures of an earlier run from the folder of an image.
    """

    writes_whole_shards = False

    def __init__(self, store: Store, remove_others: bool = False) -> None:
        self._store = store
        self._remove_others = remove_others

    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Write a file of an image to the output folder."""
        self._store.write(f"{item.key}/{file}", *pieces)

    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Return the names of an image's files, and remove incomplete files."""
        self._clean(item, files)
        return [f"{item.key}/{file}" for file in files]

    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Remove the named files of an image, if they exist."""
        self._clean(item, files)
        for file in files:
            self._store.remove(f"{item.key}/{file}")

    def _clean(self, item: Item, files: Sequence[str]) -> None:
        self._store.clean([item.key])
        if self._remove_others:
            names = self._store.list_names(f"{item.key}/")
            for name in set(names) - {f"{item.key}/{file}" for file in files}:
                if _PICTURE.fullmatch(name.rpartition("/")[2]):
                    self._store.remove(name)

    def close_shard(self, number: int) -> None:
        """Wait until all files of the shard are on the storage device."""
        self._store.sync()

    def __exit__(self, *error: object) -> None: ...


class TarSink(Sink):
    """Writes tar shards in the WebDataset format: consecutive entries for each image.

    Image ``dog/001`` has the entries ``dog/001.NN_layer.png`` and ``dog/001.json`` (its
    ``stats.json``). The bytes depend only on the images. The files of an image are buffered until
    the image is finished. A shard without images is an empty tar file.

    Parameters
    ----------
    store
        Store of the files.
    images_per_shard
        Number of images in a shard, including failed images.

    References
    ----------
    https://github.com/webdataset/webdataset
    """

    writes_whole_shards = True

    def __init__(self, store: Store, images_per_shard: int = 100) -> None:
        self._store = store
        self._images_per_shard = images_per_shard
        self._buffers: dict[int, dict[str, bytes]] = {}
        self._tar: tarfile.TarFile | None = None
        self._open_files = ExitStack()  # the tar archive and its file

    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Buffer a file of an image until the image is finished."""
        self._buffers.setdefault(item.index, {})[file] = b"".join(pieces)

    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Write an image's files to the tar file; return their names ``shard.tar/entry``."""
        number = item.index // self._images_per_shard
        contents = self._buffers.pop(item.index, {})
        names = []
        with self._open_shard(number) as tar:
            for file in files:
                entry = tarfile.TarInfo(f"{item.key}.{'json' if file == 'stats.json' else file}")
                entry.size = len(contents[file])
                tar.addfile(entry, io.BytesIO(contents[file]))
                names.append(f"{format_shard_name(number)}/{entry.name}")
        return names

    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Discard the buffered files of an image."""
        self._buffers.pop(item.index, None)

    def close_shard(self, number: int) -> None:
        """Finish writing the tar file of a shard, which then appears under its name."""
        with self._open_shard(number):
            self._tar = None
        self._open_files.close()
        self._store.sync()

    def __exit__(self, *error: object) -> None:
        self._open_files.__exit__(*error)  # type: ignore[arg-type]

    @contextmanager
    def _open_shard(self, number: int) -> Iterator[tarfile.TarFile]:
        """Open the tar file of a shard for writing; after an error, remove the file."""
        with self._open_files.pop_all() as stack:
            if self._tar is None:
                file = stack.enter_context(self._store.open_for_writing(format_shard_name(number)))
                self._tar = stack.enter_context(tarfile.TarFile(fileobj=file, mode="w"))
            yield self._tar
            self._open_files = stack.pop_all()


def format_shard_name(number: int) -> str:
    """Return the file name of a tar shard, such as ``shard-000003.tar``."""
    return f"shard-{number:06}.tar"
