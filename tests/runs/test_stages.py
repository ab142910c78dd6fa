from __future__ import annotations

import itertools
import json
import tarfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

import actgrid
from actgrid.errors import DeviceError, MissingFileError, ModelError, OutputError, ShapeError
from actgrid.models import LayerInfo
from actgrid.options import DrawingOptions
from actgrid.runs.manifest import Record
from actgrid.runs.processing import STAGES, FinishedShard, ProcessingOptions, StageMeter
from actgrid.runs.sinks import FolderSink, TarSink
from actgrid.runs.sources import Item
from actgrid.runs.stages import process_images
from actgrid.runs.stores import open_store
from actgrid.statistics.dataset import DatasetStats

Array = npt.NDArray[Any]

PATIENCE = 20  # seconds until a test fails that would otherwise wait for ever
DRAWING: DrawingOptions = {"format": "png"}
FILES = ["00_one.png", "01_two.png", "stats.json"]


class FakeExtractor:
    """An extractor of two layers: the images themselves, and twice the images."""

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
        self.alive.update(map(TrackedArray, activations.values()))
        return activations


class TrackedArray:
    """An object with the lifetime of an array; a WeakSet cannot contain arrays."""

    def __init__(self, array: Array) -> None:
        weakref.finalize(array, lambda tracked: tracked, self)


def make_item(index: int) -> Item:
    return Item(index, f"{index}.jpg", f"{index:03}", Path(f"{index}.jpg"), None)


def load(image: Item) -> Array:
    return np.random.default_rng(image.index).normal(size=(1, 4, 4, 3)).astype(np.float32)


def run(
    output: Path,
    count: int = 6,
    extractor: FakeExtractor | None = None,
    load: Callable[[Item], Array] = load,
    tar: bool = False,
    start: int = 0,
    recorded: dict[int, bool] | None = None,
    meter: StageMeter | None = None,
    **work: Any,
) -> Iterator[Record | FinishedShard]:
    job = ProcessingOptions(**{"drawing": DRAWING, **work})
    store = open_store(output)
    with TarSink(store, job.shard_size) if tar else FolderSink(store) as sink:
        yield from process_images(
            cast(actgrid.Extractor, extractor or FakeExtractor()),
            map(make_item, range(start, count)),
            load,
            sink,
            job,
            recorded=recorded,
            meter=meter,
        )


def select_records(events: Iterator[Record | FinishedShard]) -> list[Record]:
    return [event for event in events if isinstance(event, Record)]


def read_content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def list_threads() -> list[str]:
    stages = ("actgrid-inputs", "actgrid-load", "actgrid-draw", "actgrid-write")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(stages)]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_records_are_in_order_with_files(tmp_path: Path, batch_size: int, threads: int) -> None:
    extractor = FakeExtractor()
    seen = []
    for event in run(tmp_path, extractor=extractor, batch_size=batch_size, threads=threads):
        if isinstance(event, FinishedShard):
            assert event == FinishedShard(0, None)
            continue
        seen.append(event.index)
        assert event.files == [f"{event.index:03}/{file}" for file in FILES]
        assert all((tmp_path / file).exists() for file in event.files)
        assert (event.image, event.status, event.error) == (f"{event.index}.jpg", "done", None)
        stats = json.loads((tmp_path / event.files[2]).read_bytes())
        assert stats["image"] == event.image
        mean = load(make_item(event.index)).mean((0, 1, 2))
        np.testing.assert_allclose(stats["layers"][1]["mean"], 2 * mean, 1e-5)
    assert seen == list(range(6))
    assert extractor.batches == ([1] * 6 if batch_size == 1 else [4, 2])
    assert not list_threads()


def test_drawing_overlaps_with_the_next_batch(tmp_path: Path) -> None:
    def wait_for_the_last(call: int) -> None:
        if call:
            for _ in range(PATIENCE * 100):
                if (tmp_path / f"{call - 1:03}" / "01_two.png").exists():
                    return
                threading.Event().wait(0.01)
            pytest.fail("the last image is not drawn while the model runs")

    assert len(select_records(run(tmp_path, extractor=FakeExtractor(wait_for_the_last)))) == 6


def test_loading_overlaps_with_the_model(tmp_path: Path) -> None:
    loaded = [threading.Event() for _ in range(6)]

    def note(image: Item) -> Array:
        loaded[image.index].set()
        return load(image)

    def wait_for_the_next(call: int) -> None:
        if call + 1 < len(loaded):
            assert loaded[call + 1].wait(PATIENCE)

    assert (
        len(select_records(run(tmp_path, extractor=FakeExtractor(wait_for_the_next), load=note)))
        == 6
    )


def test_prefetching_is_limited(tmp_path: Path) -> None:
    loaded: list[int] = []
    ahead: list[int] = []

    def note(image: Item) -> Array:
        loaded.append(image.index)
        return load(image)

    extractor = FakeExtractor(lambda call: ahead.append(len(loaded) - call))
    list(run(tmp_path, 60, extractor, note, threads=1))
    # One batch runs, one left the queue, two are in the queue, one waits to enter.
    assert max(ahead) <= 5


def test_at_most_two_batches_of_activations_are_in_memory(tmp_path: Path) -> None:
    alive: list[int] = []
    extractor = FakeExtractor(lambda call: alive.append(len(extractor.alive)))
    list(run(tmp_path, 30, extractor, threads=1, top=2))
    # Before each run, at most the two layers of the previous batch exist.
    assert len(alive) == 30
    assert max(alive) <= 2


def test_bytes_do_not_depend_on_threads_or_timing(tmp_path: Path) -> None:
    def slow_at_random(image: Item) -> Array:
        threading.Event().wait(np.random.default_rng().uniform(0, 0.01))
        return load(image)

    for name, threads in (("one", 1), ("four", 4)):
        for tar in (False, True):
            folder = tmp_path / name / str(tar)
            options: dict[str, Any] = {"threads": threads, "shard_size": 3, "batch_size": 2}
            list(run(folder, 10, load=slow_at_random, tar=tar, **options))
    assert read_content(tmp_path / "one") == read_content(tmp_path / "four")
    assert "True/shard-000003.tar" in read_content(tmp_path / "one")


# --- images that fail


def fail_at(*indices: int) -> Callable[[Item], Array]:
    def fail(image: Item) -> Array:
        if image.index in indices:
            raise MissingFileError(f"no such file: {image.name}")
        return load(image)

    return fail


def test_images_before_a_load_error_are_drawn(tmp_path: Path) -> None:
    seen: list[int] = []
    events = run(tmp_path, load=fail_at(3))
    with pytest.raises(FileNotFoundError, match=r"3\.jpg"):
        seen.extend(event.index for event in events if isinstance(event, Record))
    assert seen == [0, 1, 2]
    assert not list_threads()


@pytest.mark.parametrize("tar", [False, True])
def test_load_error_is_recorded_and_skipped(tmp_path: Path, tar: bool) -> None:
    extractor = FakeExtractor()
    recorded_images = select_records(
        run(tmp_path, 6, extractor, fail_at(1, 5), tar, batch_size=2, skip_errors=True)
    )
    assert [record.status for record in recorded_images] == [
        "done",
        "failed",
        "done",
        "done",
        "done",
        "failed",
    ]
    assert recorded_images[1].error == "no such file: 1.jpg"
    assert recorded_images[1].files == []
    # The failed image does not count in its batch.
    assert extractor.batches == [2, 2]
    if not tar:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000", "002", "003", "004"]


def test_all_images_may_fail(tmp_path: Path) -> None:
    events = list(run(tmp_path, 3, load=fail_at(0, 1, 2), skip_errors=True, shard_size=2, top=1))
    assert [type(event) for event in events] == [
        Record,
        Record,
        FinishedShard,
        Record,
        FinishedShard,
    ]
    assert all(event.failed for event in events if isinstance(event, Record))


def test_image_that_the_model_rejects_fails_alone(tmp_path: Path) -> None:
    class Refusing(FakeExtractor):
        def __call__(self, x: Array) -> dict[str, Array]:
            if (x == load(make_item(3))).all((1, 2, 3)).any():
                raise ModelError("not this one")
            return super().__call__(x)

    extractor = Refusing()
    recorded_images = select_records(run(tmp_path, 6, extractor, batch_size=3, skip_errors=True))
    assert [record.index for record in recorded_images if record.failed] == [3]
    assert "not this one" in (recorded_images[3].error or "")
    assert extractor.batches == [3, 1, 1]


def test_unusable_model_stops_the_run(tmp_path: Path) -> None:
    """Otherwise all images would be recorded as failed."""

    class Impossible(FakeExtractor):
        def __call__(self, x: Array) -> dict[str, Array]:
            raise DeviceError("no such convolution here")

    with pytest.raises(DeviceError, match="no such convolution here"):
        list(run(tmp_path, 6, Impossible(), batch_size=3, skip_errors=True))
    assert list(tmp_path.iterdir()) == []
    assert not list_threads()


def test_drawing_error_removes_files_of_image(tmp_path: Path) -> None:
    def load_empty(image: Item) -> Array:
        array = load(image)
        return array[:, :0] if image.index == 1 else array

    recorded_images = select_records(run(tmp_path, 3, load=load_empty, skip_errors=True))
    assert [record.failed for record in recorded_images] == [False, True, False]
    assert "empty" in (recorded_images[1].error or "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000", "002"]


def test_images_of_different_sizes_are_in_different_batches(tmp_path: Path) -> None:
    def load_resized(image: Item) -> Array:
        return load(image)[:, : 2 if image.index in (1, 2) else 4]

    extractor = FakeExtractor()
    assert len(select_records(run(tmp_path, 6, extractor, load_resized, batch_size=3))) == 6
    assert extractor.batches == [1, 2, 3]


def test_write_error_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "002").write_bytes(b"in the way")
    seen: list[int] = []
    events = run(tmp_path, skip_errors=True)
    with pytest.raises(OutputError, match="cannot make the folder"):
        seen.extend(event.index for event in events if isinstance(event, Record))
    assert seen == [0, 1]
    assert not list_threads()


def test_error_of_input_iterator_is_raised_after_earlier_images(tmp_path: Path) -> None:
    def inputs() -> Iterator[Item]:
        yield from map(make_item, range(3))
        raise RuntimeError("the stream broke off")

    extractor = cast(actgrid.Extractor, FakeExtractor())
    sink = FolderSink(open_store(tmp_path))
    events = process_images(
        extractor, inputs(), load, sink, ProcessingOptions(DRAWING, skip_errors=True)
    )
    seen: list[int] = []
    with pytest.raises(RuntimeError, match="broke off"):
        seen.extend(event.index for event in events if isinstance(event, Record))
    assert seen == [0, 1, 2]
    assert not list_threads()


def test_closing_the_iterator_stops_the_threads(tmp_path: Path) -> None:
    extractor = FakeExtractor()
    events = run(tmp_path, 100, extractor)
    next(events)
    cast(Any, events).close()
    assert not list_threads()
    assert len(extractor.batches) <= 2


# --- shards


def test_batches_do_not_cross_shards(tmp_path: Path) -> None:
    extractor = FakeExtractor()
    events = list(run(tmp_path, 7, extractor, shard_size=3, batch_size=2))
    order = [event.number if isinstance(event, FinishedShard) else -1 for event in events]
    assert order == [-1, -1, -1, 0, -1, -1, -1, 1, -1, 2]
    assert extractor.batches == [2, 1, 2, 1, 1]


def test_records_of_tar_shard_are_yielded_when_complete(tmp_path: Path) -> None:
    for event in run(tmp_path, 5, tar=True, shard_size=3):
        if isinstance(event, Record):
            shard = tmp_path / f"shard-{event.index // 3:06}.tar"
            assert shard.exists()
            assert event.files[0] == f"{shard.name}/{event.index:03}.00_one.png"


# --- statistics


def measure_images(images: list[int]) -> DatasetStats:
    stats = DatasetStats(top=2)
    layers = FakeExtractor().layers
    for index in images:
        x = load(make_item(index))
        stats.update({"one": x, "two": x * 2}, layers, [f"{index}.jpg"], start=index)
    return stats


def assert_same(recorded_images: DatasetStats | None, expected: DatasetStats) -> None:
    assert recorded_images is not None
    assert recorded_images.images == expected.images
    for path, layer in expected.layers.items():
        mine = recorded_images.layers[path]
        np.testing.assert_allclose(mine.mean, layer.mean, 1e-6)
        np.testing.assert_allclose(mine.std, layer.std, 1e-6)
        for name in (
            "count",
            "min",
            "max",
            "top_max",
            "top_index",
            "top_position",
            "activating_images",
        ):
            np.testing.assert_array_equal(getattr(mine, name), getattr(layer, name))


@pytest.mark.parametrize("drawing", [DRAWING, None])
def test_a_shard_has_the_statistics_of_its_images(
    tmp_path: Path, drawing: dict[str, Any] | None
) -> None:
    options: dict[str, Any] = {"drawing": drawing, "top": 2, "batch_size": 2, "shard_size": 4}
    shards = [
        event
        for event in run(tmp_path, 7, load=fail_at(2), skip_errors=True, **options)
        if isinstance(event, FinishedShard)
    ]
    first, second = (shard.statistics for shard in shards)
    assert first is not None
    assert second is not None
    assert_same(first, measure_images([0, 1, 3]))
    # Images below the thresholds of the first shard are not in the second's top.
    assert second.images == 3
    first.merge(second)
    assert_same(first, measure_images([0, 1, 3, 4, 5, 6]))
    assert (tmp_path / "000").exists() == (drawing is not None)


# --- images that an earlier run has recorded


@pytest.mark.parametrize("top", [None, 2])
def test_recorded_images_are_measured_and_not_written_again(
    tmp_path: Path, top: int | None
) -> None:
    extractor = FakeExtractor()
    recorded = {0: False, 1: True, 2: False, 3: False}
    options: dict[str, Any] = {"batch_size": 2, "top": top, "skip_errors": True}
    events = list(run(tmp_path, 6, extractor, fail_at(1), recorded=recorded, **options))
    assert [event.index for event in events if isinstance(event, Record)] == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["004", "005"]
    # Images 0 and 2 form a batch; without statistics, the batch is not needed.
    assert extractor.batches == ([2, 2, 1] if top else [2, 1])
    if top:
        (shard,) = (event for event in events if isinstance(event, FinishedShard))
        assert_same(shard.statistics, measure_images([0, 2, 3, 4, 5]))


@pytest.mark.parametrize("tar", [False, True])
def test_rejected_images_do_not_change_batches(tmp_path: Path, tar: bool) -> None:
    class Refusing(FakeExtractor):
        def __call__(self, x: Array) -> dict[str, Array]:
            if x.shape[1] < 4:
                raise ShapeError("too small")
            return super().__call__(x)

    def load_resized(image: Item) -> Array:
        return load(image)[:, : 2 if image.index == 2 else 4]

    options: dict[str, Any] = {"batch_size": 4, "top": 2, "skip_errors": True}
    once, again = Refusing(), Refusing()
    list(run(tmp_path, 5, once, load_resized, **options))
    recorded = {0: False, 1: False, 2: True}
    recorded_images = select_records(
        run(tmp_path, 5, again, load_resized, tar, recorded=recorded, **options)
    )
    assert [record.index for record in recorded_images] == [3, 4]
    assert again.batches == once.batches == [2, 2]


@pytest.mark.parametrize("tar", [False, True])
def test_recorded_failures_stay_failed(tmp_path: Path, tar: bool) -> None:
    events = list(run(tmp_path, 4, recorded={0: True, 1: False}, tar=tar, top=2))
    assert [record.index for record in select_records(iter(events))] == [2, 3]
    (shard,) = (event for event in events if isinstance(event, FinishedShard))
    assert_same(shard.statistics, measure_images([1, 2, 3]))
    assert not (tmp_path / "000").exists()
    if tar:
        with tarfile.open(tmp_path / "shard-000000.tar") as opened:
            assert {name.partition(".")[0] for name in opened.getnames()} == {"001", "002", "003"}


def test_tar_shard_is_written_again_completely(tmp_path: Path) -> None:
    list(run(tmp_path / "once", 5, tar=True, shard_size=3))
    again = select_records(run(tmp_path / "again", 5, tar=True, shard_size=3, recorded={0: False}))
    assert [record.index for record in again] == [1, 2, 3, 4]
    assert read_content(tmp_path / "once") == read_content(tmp_path / "again")


# --- meter


def test_meter_counts_images_and_stage_seconds(tmp_path: Path) -> None:
    meter = StageMeter()
    list(run(tmp_path, 6, meter=meter))
    assert meter.images == 6
    assert tuple(meter.seconds) == STAGES
    assert all(seconds > 0 for seconds in meter.seconds.values())


def test_meter_adds_seconds_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("actgrid.runs.stages.time.perf_counter", lambda: next(clock))
    meter = StageMeter()
    for _ in range(3):
        with meter.time_stage("draw"):
            pass
    with pytest.raises(ZeroDivisionError), meter.time_stage("load"):
        raise ZeroDivisionError
    assert meter.seconds == {"load": 1, "model": 0, "draw": 3, "write": 0}
