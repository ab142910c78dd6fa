from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

import actgrid
from actgrid.errors import OutputError
from actgrid.models import LayerInfo
from actgrid.pipeline import draw_images

Array = npt.NDArray[Any]

FILES = [Path(f"{name}.jpg") for name in "abcdef"]
PATIENCE = 20  # seconds, for what happens at once unless it never does


class FakeExtractor:
    """Two layers for a batch of images: the images themselves, and twice that."""

    def __init__(self, before: Callable[[int], None] = lambda call: None) -> None:
        self.model = SimpleNamespace(name="fake")
        self.layers = {
            path: LayerInfo(path, "Conv2D", (None, 4, 4, 3), "float32", "channels_last", 0, None)
            for path in ("one", "two")
        }
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.batches: list[int] = []
        self._before = before

    def __call__(self, x: Array) -> dict[str, Array]:
        self._before(len(self.batches))
        self.batches.append(len(x))
        activations = {"one": x * 1, "two": x * 2}
        self.alive.update(map(Held, activations.values()))
        return activations


class Held:
    """Dies with an array, which a WeakSet cannot hold: arrays have no hash."""

    def __init__(self, array: Array) -> None:
        weakref.finalize(array, lambda held: held, self)


def load(file: Path) -> Array:
    return np.random.default_rng(ord(file.stem[0])).normal(size=(1, 4, 4, 3)).astype(np.float32)


def draw(extractor: FakeExtractor, output: Path, **options: Any) -> Any:
    given: dict[str, Any] = {"files": FILES, "load": load, **options}
    return draw_images(cast(actgrid.Extractor, extractor), output=output, **given)


def collect(images: Any, seen: list[str]) -> None:
    for file, _, _ in images:
        seen.append(file.stem)


def drawing_threads() -> list[str]:
    names = ("actgrid-draw", "actgrid-load")
    return [one.name for one in threading.enumerate() if one.name.startswith(names)]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_images_come_in_order_with_their_files(
    tmp_path: Path, batch_size: int, threads: int
) -> None:
    extractor = FakeExtractor()
    seen = []
    for file, folder, layers in draw(extractor, tmp_path, batch_size=batch_size, threads=threads):
        seen.append(file)
        assert folder == tmp_path / file.stem
        assert sorted(path.name for path in folder.iterdir()) == [
            "00_one.png",
            "01_two.png",
            "stats.json",
        ]
        np.testing.assert_allclose(layers[1].stats.mean, 2 * load(file).mean((0, 1, 2)), 1e-5)
    assert seen == FILES
    assert extractor.batches == ([1] * 6 if batch_size == 1 else [4, 2])
    assert not drawing_threads()


def test_an_image_is_drawn_while_the_model_runs_on_the_next(tmp_path: Path) -> None:
    def wait_for_the_last(call: int) -> None:
        if call:
            last = tmp_path / FILES[call - 1].stem
            for _ in range(PATIENCE * 100):
                if (last / "01_two.png").exists():
                    return
                threading.Event().wait(0.01)
            pytest.fail("the last image is not drawn while the model runs")

    assert len(list(draw(FakeExtractor(wait_for_the_last), tmp_path))) == len(FILES)


def test_the_next_image_is_loaded_while_the_model_runs(tmp_path: Path) -> None:
    loaded = [threading.Event() for _ in FILES]

    def note(file: Path) -> Array:
        loaded[FILES.index(file)].set()
        return load(file)

    def wait_for_the_next(call: int) -> None:
        if call + 1 < len(FILES):
            assert loaded[call + 1].wait(PATIENCE)

    assert len(list(draw(FakeExtractor(wait_for_the_next), tmp_path, load=note))) == len(FILES)


def test_there_are_never_the_activations_of_more_than_two_batches(tmp_path: Path) -> None:
    alive: list[int] = []
    extractor = FakeExtractor(lambda call: alive.append(len(extractor.alive)))
    files = [Path(f"{number}.jpg") for number in range(30)]
    for _ in draw(extractor, tmp_path, files=files, threads=1):
        pass
    # Before each run those of the last one, at most: two layers.
    assert len(alive) == 30
    assert max(alive) <= 2


def test_images_before_one_that_cannot_be_loaded_are_drawn(tmp_path: Path) -> None:
    def fail(file: Path) -> Array:
        if file.stem == "d":
            raise actgrid.errors.MissingFileError("no such file: d.jpg")
        return load(file)

    seen: list[str] = []
    with pytest.raises(FileNotFoundError, match=r"d\.jpg"):
        collect(draw(FakeExtractor(), tmp_path, load=fail), seen)
    assert seen == ["a", "b", "c"]
    assert not drawing_threads()


def test_a_file_that_cannot_be_written_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"in the way")
    seen: list[str] = []
    with pytest.raises(OutputError, match="cannot make the folder"):
        collect(draw(FakeExtractor(), tmp_path), seen)
    assert seen == ["a", "b"]
    assert not drawing_threads()


def test_whoever_stops_listening_stops_the_threads(tmp_path: Path) -> None:
    extractor = FakeExtractor()
    images = draw(extractor, tmp_path)
    next(images)
    images.close()
    assert not drawing_threads()
    assert len(extractor.batches) <= 2
