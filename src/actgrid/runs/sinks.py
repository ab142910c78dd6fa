"""How the files of images are laid out: a folder for each image, or tar shards."""

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

__all__ = ["FolderSink", "Sink", "TarSink", "shard_name"]

Self = TypeVar("Self", bound="Sink")

# The name of a layer's picture in the folder of an image, see `numbered_files`.
_PICTURE = re.compile(r"\d{2,}_.+\.\w+")


class Sink(ABC):
    """Takes the files of images, in a ``with`` block, which an error leaves with none half written.

    All of its methods raise OutputError.

    Attributes
    ----------
    whole_shards
        Whether images of a shard are complete only when the shard is.
    """

    whole_shards: bool

    @abstractmethod
    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Take a file of an image, from any thread, in any order."""

    @abstractmethod
    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Return the names in the store of the files of an image, which have all been put.

        Called image after image, by one thread.
        """

    @abstractmethod
    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Let nothing stay of the files of an image that failed, which nobody puts any more."""

    @abstractmethod
    def close_shard(self, number: int) -> None:
        """Complete a shard all of whose images have been finished or dropped."""

    def __enter__(self: Self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...


class FolderSink(Sink):
    """A folder for each image, called by its key: files are written as they come.

    Parameters
    ----------
    store
        Where.
    remove_others
        Whether pictures that an earlier run left in an image's folder are removed.
    """

    whole_shards = False

    def __init__(self, store: Store, remove_others: bool = False) -> None:
        self._store = store
        self._remove_others = remove_others

    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Write a file."""
        self._store.write(f"{item.key}/{file}", *pieces)

    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Return their names, and remove what a process left that was killed at this image."""
        self._clean(item, files)
        return [f"{item.key}/{file}" for file in files]

    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Remove those that are there, and no others."""
        self._clean(item, files)
        for file in files:
            self._store.remove(f"{item.key}/{file}")

    def _clean(self, item: Item, files: Sequence[str]) -> None:
        self._store.clean([item.key])
        if self._remove_others:
            names = self._store.names(f"{item.key}/")
            for name in set(names) - {f"{item.key}/{file}" for file in files}:
                if _PICTURE.fullmatch(name.rpartition("/")[2]):
                    self._store.remove(name)

    def close_shard(self, number: int) -> None:
        """Wait until its files are on the device."""
        self._store.sync()

    def __exit__(self, *error: object) -> None: ...


class TarSink(Sink):
    """Tar files as WebDataset reads them: the entries of an image follow each other.

    Image ``dog/001`` has the entries ``dog/001.NN_layer.png`` and, for its ``stats.json``,
    ``dog/001.json``. Bytes depend on the images only. Those of an image are held until it is
    finished. A shard without images is an empty tar.

    Parameters
    ----------
    store
        Where.
    images_per_shard
        How many inputs, those that fail too, make a shard.

    References
    ----------
    https://github.com/webdataset/webdataset
    """

    whole_shards = True

    def __init__(self, store: Store, images_per_shard: int = 100) -> None:
        self._store = store
        self._images_per_shard = images_per_shard
        self._held: dict[int, dict[str, bytes]] = {}
        self._tar: tarfile.TarFile | None = None
        self._open = ExitStack()  # the tar, and the file that it is written to

    def put(self, item: Item, file: str, pieces: Sequence[bytes]) -> None:
        """Hold a file."""
        self._held.setdefault(item.index, {})[file] = b"".join(pieces)

    def finish(self, item: Item, files: Sequence[str]) -> list[str]:
        """Write the entries and return their names, below that of the tar."""
        number = item.index // self._images_per_shard
        held = self._held.pop(item.index, {})
        names = []
        with self._shard(number) as tar:
            for file in files:
                entry = tarfile.TarInfo(f"{item.key}.{'json' if file == 'stats.json' else file}")
                entry.size = len(held[file])
                tar.addfile(entry, io.BytesIO(held[file]))
                names.append(f"{shard_name(number)}/{entry.name}")
        return names

    def drop(self, item: Item, files: Sequence[str]) -> None:
        """Forget what is held."""
        self._held.pop(item.index, None)

    def close_shard(self, number: int) -> None:
        """Let the tar appear under its name."""
        with self._shard(number):
            self._tar = None
        self._open.close()
        self._store.sync()

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)  # type: ignore[arg-type]

    @contextmanager
    def _shard(self, number: int) -> Iterator[tarfile.TarFile]:
        """Yield the tar of a shard; if it cannot be written, nothing of it stays."""
        with self._open.pop_all() as opened:
            if self._tar is None:
                file = opened.enter_context(self._store.writing(shard_name(number)))
                self._tar = opened.enter_context(tarfile.TarFile(fileobj=file, mode="w"))
            yield self._tar
            self._open = opened.pop_all()


def shard_name(number: int) -> str:
    """Return the name of the tar of a shard."""
    return f"shard-{number:06}.tar"
