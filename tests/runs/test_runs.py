from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from actgrid.errors import ImageError, LayerError, OptionError, OutputError, RunError
from actgrid.runs.manifest import Record
from actgrid.runs.runs import Run
from actgrid.runs.stores import open_store
from actgrid.statistics.dataset import DatasetStats

DRAWING: dict[str, Any] = {"format": "png"}


def make_network(seed: int = 1, side: int | None = 12) -> Any:
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((side, side, 3)),
        keras.layers.Conv2D(5, 3, activation="relu", name="conv"),
        keras.layers.MaxPooling2D(name="pool"),
        keras.layers.Conv2D(7, 3, strides=2, activation="relu", name="last"),
    ]
    return keras.Sequential(layers, name="small")


@pytest.fixture(scope="module")
def model() -> Any:
    return make_network()


def write_photos(folder: Path, count: int, side: int = 20) -> Path:
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (side, side + index % 3, 3))
        file = folder / f"class{index % 2}" / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 11)


def read_content(folder: Path) -> dict[str, Any]:
    """Read all files of a run; durations are removed from the manifest."""
    contents: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name == "manifest.jsonl":
            lines = map(json.loads, path.read_bytes().splitlines())
            contents[name] = [{**line, "milliseconds": 0} for line in lines]
        elif path.is_file():
            contents[name] = path.read_bytes()
    return contents


def stop_early(run: Run, after: int) -> None:
    """Stop a run after some images, like Ctrl-C."""
    records = iter(run)
    for _ in range(after):
        next(records)
    records.close()  # type: ignore[attr-defined]


def make_options(**more: Any) -> dict[str, Any]:
    return {"drawing": DRAWING, "batch_size": 2, "shard_size": 4, **more}


# --- output files


def test_run_writes_pictures_manifest_and_description(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    run = Run(model, photos, "*o*l*", output=tmp_path, **make_options(top=2))
    records = list(run)
    assert [record.index for record in records] == list(range(11))
    assert list(map(json.loads, (tmp_path / "manifest.jsonl").read_bytes().splitlines())) == [
        json.loads(record.to_line()) for record in records
    ]
    first = records[0]
    assert first.image == str(photos / "class0" / "000.png")
    assert first.label == "class0"
    assert first.files == ["class0/000/00_pool.png", "class0/000/stats.json"]
    assert list(first.dead) == ["pool"]
    assert first.milliseconds > 0
    assert json.loads((tmp_path / first.files[-1]).read_bytes())["label"] == "class0"
    assert not json.loads((tmp_path / "run.json").read_bytes())["finished"]
    run.finish()
    about = json.loads((tmp_path / "run.json").read_bytes())
    assert about["finished"]
    assert about["layers"] == ["pool"]
    assert about["model"]["name"] == "small"
    assert about["options"]["draw"]["normalize"] == "standard"
    assert about["options"]["batch_size"] == 2
    assert about["inputs"]["images"] == 11
    assert about["versions"]["keras"] == keras.__version__
    summary = run.summary()
    assert (summary.images, summary.failed) == (11, 0)
    assert summary.statistics is not None
    assert summary.statistics.images == 11
    assert DatasetStats.load(tmp_path / "stats.npz").images == 11


def test_bytes_do_not_depend_on_threads_or_batches_in_flight(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    for threads in (1, 3):
        list(
            Run(
                model,
                photos,
                output=tmp_path / f"{threads}",
                threads=threads,
                **make_options(top=2),
            )
        )
    assert read_content(tmp_path / "1") == read_content(tmp_path / "3")


def test_statistics_are_equal_with_and_without_drawing(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    for name, drawing in (("alone", None), ("beside", DRAWING)):
        list(Run(model, photos, output=tmp_path / name, **make_options(top=2, drawing=drawing)))
    assert not list((tmp_path / "alone").glob("class*"))
    alone, beside = (
        DatasetStats.load(tmp_path / name / "stats.npz") for name in ("alone", "beside")
    )
    for path, layer in beside.layers.items():
        np.testing.assert_allclose(alone.layers[path].mean, layer.mean, 1e-6)
        np.testing.assert_array_equal(alone.layers[path].top_index, layer.top_index)
        np.testing.assert_array_equal(alone.layers[path].top_position, layer.top_position)


def test_datasets_and_arrays_as_inputs(tmp_path: Path, model: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(5))).batch(2)
    for name, inputs in (("dataset", dataset), ("array", images), ("stream", iter(images))):
        run = Run(model, inputs, output=tmp_path / name, **make_options())
        records = list(run)
        assert [record.image for record in records] == [f"{index:06}" for index in range(5)]
        assert [record.label for record in records] == (
            list("01234") if name == "dataset" else [None] * 5
        )
        assert run.total == (5 if name == "array" else None)
    pictures = [path for path in read_content(tmp_path / "array") if path.endswith(".png")]
    for name in ("dataset", "stream"):
        contents = read_content(tmp_path / name)
        assert all(contents[path] == read_content(tmp_path / "array")[path] for path in pictures)
    assert len(pictures) == 15


def test_prepared_arrays_are_unchanged(tmp_path: Path, model: Any) -> None:
    images = np.random.default_rng(0).normal(size=(3, 12, 12, 3))
    run = Run(model, images, "conv", output=tmp_path, top=1, preprocess="prepared", batch_size=2)
    list(run)
    expected = keras.Model(model.inputs, model.layers[0].output).predict(images, verbose=0)
    statistics = run.summary().statistics
    assert statistics is not None
    np.testing.assert_allclose(statistics.layers["conv"].max, expected.max((0, 1, 2)), 1e-5)


def test_layers_of_model_of_any_size(tmp_path: Path, photos: Path) -> None:
    list(
        Run(
            make_network(side=None),
            photos,
            ["conv", keras.layers.Conv2D],
            output=tmp_path,
            **make_options(),
        )
    )
    about = json.loads((tmp_path / "run.json").read_bytes())
    assert about["layers"] == ["conv", "Conv2D"]


def test_fixed_batch_size_of_model_is_used(tmp_path: Path, photos: Path) -> None:
    convolution = keras.layers.Conv2D(2, 3)
    fixed_model = keras.Sequential([keras.Input(batch_shape=(1, 12, 12, 3)), convolution])
    records = list(Run(fixed_model, photos, output=tmp_path, **make_options()))
    assert not any(record.failed for record in records)
    assert json.loads((tmp_path / "run.json").read_bytes())["options"]["batch_size"] == 1


def test_an_image_called_top_keeps_its_pictures(tmp_path: Path, model: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for name in ("top.png", "z.png"):
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    run = Run(model, tmp_path / "in", output=tmp_path / "out", **make_options(top=1))
    records = list(run)
    run.finish()
    # Equal images have equal pictures; no sheet has overwritten them.
    first, last = records[0].files[:-1], records[1].files[:-1]
    assert len(first) == len(last) == 3
    for first_file, second_file in zip(first, last, strict=True):
        assert (tmp_path / "out" / first_file).read_bytes() == (
            tmp_path / "out" / second_file
        ).read_bytes()
    assert len(list((tmp_path / "out" / "top").iterdir())) == 3


def test_a_run_inside_the_folder_of_its_images_is_resumed(tmp_path: Path, model: Any) -> None:
    folder = write_photos(tmp_path, 5)
    stop_early(Run(model, folder, output=folder / "out", **make_options()), 2)
    run = Run(model, folder, output=folder / "out", **make_options(resume=True))
    assert run.total == 5
    list(run)
    assert run.summary().images == 5
    assert len(list(Run(model, folder, output=folder / "out", **make_options(overwrite=True)))) == 5
    with pytest.raises(OptionError, match="is the folder of the images"):
        Run(model, folder, output=folder, **make_options())


def test_shorter_run_removes_shards_of_longer_run(tmp_path: Path, model: Any, photos: Path) -> None:
    list(Run(model, photos, output=tmp_path, **make_options(sink="tar")))
    assert len(list(tmp_path.glob("shard-*.tar"))) == 3
    list(Run(model, photos / "class0", output=tmp_path, **make_options(sink="tar", overwrite=True)))
    assert sorted(path.name for path in tmp_path.glob("shard-*.tar")) == [
        "shard-000000.tar",
        "shard-000001.tar",
    ]


def test_run_of_empty_iterator(tmp_path: Path, model: Any) -> None:
    list(Run(model, np.zeros((2, 12, 12, 3)), output=tmp_path, **make_options(top=1)))
    empty = tf.data.Dataset.from_tensor_slices(np.zeros((3, 12, 12, 3))).filter(lambda x: False)
    run = Run(model, empty, output=tmp_path, **make_options(top=1, overwrite=True))
    assert list(run) == []
    run.finish()
    assert run.summary().images == 0
    # No file of the earlier run remains that would seem to belong to this run.
    assert not (tmp_path / "manifest.jsonl").exists()
    assert not (tmp_path / "stats.npz").exists()
    assert json.loads((tmp_path / "summary.json").read_bytes())["images"] == 0


class GeneratedImages:
    """A sequence of images that are generated on access."""

    def __init__(self, count: int, side: int) -> None:
        self._count, self._side = count, side

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        pixels = np.full((self._side, self._side, 3), index % 251, np.uint8)
        pixels[index % self._side] = 255
        return pixels


def get_resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("drawing", [None, DRAWING])
def test_memory_is_independent_of_number_of_images(tmp_path: Path, drawing: Any) -> None:
    keras.utils.set_random_seed(1)
    conv = keras.layers.Conv2D(16, 3, activation="relu", name="conv")
    wide = keras.Sequential([keras.Input((48, 48, 3)), conv])
    # The activations of all images together would take 270 MB (135 kB each).
    used = []
    run = Run(
        wide, GeneratedImages(2000, 48), output=tmp_path, drawing=drawing, top=2, batch_size=8
    )
    for record in run:
        assert not record.failed
        if record.index % 50 == 0:
            used.append(get_resident_megabytes())
    assert len(used) == 40
    assert max(used[20:]) - max(used[:10]) < 30


# --- resuming


@pytest.mark.parametrize("sink", ["folders", "tar"])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 7, 10, 11])
def test_a_stopped_run_is_resumed_to_the_same_bytes(
    tmp_path: Path, model: Any, photos: Path, sink: str, after: int
) -> None:
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    list(Run(model, photos, output=complete, **make_options(sink=sink, top=2)))
    stop_early(Run(model, photos, output=interrupted, **make_options(sink=sink, top=2)), after)
    kept = {
        name: path.stat().st_mtime_ns
        for name in read_content(interrupted)
        if (path := interrupted / name)
    }
    if after:
        assert not json.loads((interrupted / "run.json").read_bytes())["finished"]
    run = Run(model, photos, output=interrupted, **make_options(sink=sink, top=2, resume=True))
    before = run.recorded
    assert before >= after
    assert [record.index for record in run] == list(range(before, 11))
    assert read_content(interrupted) == read_content(complete)
    if sink == "folders":
        # Files of recorded images are not written again.
        done = [record["files"] for record in read_content(interrupted)["manifest.jsonl"][:before]]
        for file in (file for files in done for file in files):
            assert (interrupted / file).stat().st_mtime_ns == kept[file]


def test_resume_of_finished_or_missing_run(tmp_path: Path, model: Any, photos: Path) -> None:
    assert len(list(Run(model, photos, output=tmp_path, **make_options(top=1, resume=True)))) == 11
    before = read_content(tmp_path)
    run = Run(model, photos, output=tmp_path, **make_options(top=1, resume=True))
    assert list(run) == []
    assert run.summary().images == 11
    assert read_content(tmp_path) == before


def test_incomplete_line_and_temporary_files_are_ignored(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    list(Run(model, photos, output=complete, **make_options()))
    stop_early(Run(model, photos, output=interrupted, **make_options()), 5)
    with (interrupted / "manifest.jsonl").open("ab") as file:
        file.write(b'{"index":5,"image":"x')
    leftover = "." + "0" * 32 + ".part"
    (interrupted / leftover).write_bytes(b"half")
    (interrupted / "class1" / "005").mkdir(parents=True, exist_ok=True)
    (interrupted / "class1" / "005" / leftover).write_bytes(b"half")
    list(Run(model, photos, output=interrupted, **make_options(resume=True)))
    assert read_content(interrupted) == read_content(complete)


def test_statistics_beyond_the_manifest_are_measured_again(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    list(Run(model, photos, output=complete, **make_options(top=2)))
    manifest = (complete / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    for kept in (0, 2, 9):
        list(Run(model, photos, output=interrupted, **make_options(top=2, overwrite=True)))
        # A crash of the machine can lose the end of one file and keep another.
        (interrupted / "manifest.jsonl").write_bytes(b"".join(manifest[:kept]))
        list(Run(model, photos, output=interrupted, **make_options(top=2, resume=True)))
        assert read_content(interrupted) == read_content(complete)


def test_failing_engine_keeps_earlier_run(tmp_path: Path, model: Any, photos: Path) -> None:
    def engine(*arguments: Any, begin: Any, **options: Any) -> Iterator[Any]:
        if reached:
            begin()
            assert set(read_content(tmp_path)) == {"run.json"}  # workers on other machines read it
        raise OptionError("no such cluster")
        yield

    list(Run(model, photos, output=tmp_path, **make_options()))
    before, reached = read_content(tmp_path), False
    for reached in (False, True):
        with pytest.raises(OptionError, match="no such cluster"):
            list(Run(model, photos, output=tmp_path, **make_options(engine=engine, overwrite=True)))
        assert (read_content(tmp_path) == before) is not reached


def test_overwrite_removes_temporary_files(tmp_path: Path, model: Any, photos: Path) -> None:
    complete, other = tmp_path / "complete", tmp_path / "other"
    list(Run(model, photos, output=complete, **make_options(sink="tar")))
    stop_early(Run(model, photos, output=other, **make_options(sink="tar")), 5)
    (other / ("." + "0" * 32 + ".part")).write_bytes(b"half")
    list(Run(model, photos, output=other, **make_options(sink="tar", overwrite=True)))
    assert read_content(other) == read_content(complete)


def test_temporary_sheets_are_removed(tmp_path: Path, model: Any, photos: Path) -> None:
    run = Run(model, photos, output=tmp_path, **make_options(top=1))
    list(run)
    run.finish(1)
    expected = read_content(tmp_path)
    (tmp_path / "top" / ("." + "0" * 32 + ".part")).write_bytes(b"half")
    run = Run(model, photos, output=tmp_path, **make_options(top=1, resume=True))
    assert list(run) == []
    run.finish(1)
    assert read_content(tmp_path) == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 3}, "options.batch_size was 2, is 3"),
        ({"drawing": {**DRAWING, "cmap": "gray"}}, 'options.draw.cmap was "viridis", is "gray"'),
        ({"top": 3}, "options.top was null, is 3"),
        ({"layers": "pool"}, 'layers was ["conv","pool","last"], is ["pool"]'),
        ({"fit": "pad"}, 'options.fit was "crop", is "pad"'),
    ],
)
def test_resume_with_different_options_is_rejected(
    tmp_path: Path, model: Any, photos: Path, changed: dict[str, Any], message: str
) -> None:
    stop_early(Run(model, photos, output=tmp_path, **make_options()), 2)
    before = read_content(tmp_path)
    with pytest.raises(RunError, match="cannot be resumed with different settings") as problem:
        Run(model, photos, output=tmp_path, **{**make_options(resume=True), **changed})
    assert message in str(problem.value)
    assert read_content(tmp_path) == before


def test_resume_with_different_weights_or_images_is_rejected(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    stop_early(Run(model, photos, output=tmp_path, **make_options()), 2)
    with pytest.raises(RunError, match=r"model\.fingerprint was"):
        Run(make_network(seed=2), photos, output=tmp_path, **make_options(resume=True))
    with pytest.raises(RunError, match=r"inputs\.images was 11, is 6; names, labels"):
        Run(model, photos / "class0", output=tmp_path, **make_options(resume=True))


def test_unfinished_run_is_not_replaced_without_option(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    stop_early(Run(model, photos, output=tmp_path, **make_options()), 3)
    before = read_content(tmp_path)
    with pytest.raises(RunError, match=r"unfinished run of \d+ images"):
        Run(model, photos, output=tmp_path, **make_options())
    assert read_content(tmp_path) == before
    assert len(list(Run(model, photos, output=tmp_path, **make_options(overwrite=True)))) == 11
    # The same holds for a finished run.
    before = read_content(tmp_path)
    with pytest.raises(
        RunError, match=r"contains a finished run of 11 images: overwrite=True \(--over"
    ):
        Run(model, photos / "class0", output=tmp_path, **make_options())
    assert read_content(tmp_path) == before
    assert (
        len(list(Run(model, photos / "class0", output=tmp_path, **make_options(overwrite=True))))
        == 6
    )
    assert len(read_content(tmp_path)["manifest.jsonl"]) == 6


@pytest.mark.parametrize("sink", ["folders", "tar"])
@pytest.mark.parametrize("before", ["finished", "stopped"])
def test_overwrite_removes_files_of_earlier_run(
    tmp_path: Path, model: Any, photos: Path, sink: str, before: str
) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    later = make_options(layers="last", sink=sink, top=None, drawing={**DRAWING, "format": "webp"})
    list(Run(model, photos / "class1", output=expected, **later))
    run = Run(model, photos, output=out, **make_options(sink=sink, top=2))
    if before == "finished":
        list(run)
        run.finish()
    else:
        stop_early(run, 7)
        # Temporary files of images that were being drawn.
        for name in ("class1/009", "001"):
            (out / name).mkdir(parents=True, exist_ok=True)
            (out / name / "01_pool.png").write_bytes(b"of the run that was stopped")
    del run
    (out / "notes.txt").write_text("mine")
    (out / "001").mkdir(exist_ok=True)
    (out / "001" / "notes.txt").write_text("mine")
    list(Run(model, photos / "class1", output=out, **later, overwrite=True))
    contents = read_content(out)
    assert contents.pop("notes.txt") == contents.pop("001/notes.txt") == b"mine"
    if before == "stopped" and sink == "folders":
        # Temporary files of images that this run does not contain.
        assert contents.pop("class1/009/01_pool.png") == b"of the run that was stopped"
    if sink == "tar":
        contents = {
            name: data for name, data in contents.items() if not name.endswith("01_pool.png")
        }
    assert contents == read_content(expected)


def test_manifest_paths_outside_of_output_are_not_removed(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept.png"
    kept.write_bytes(b"not of this run")
    list(Run(model, photos, output=out, **make_options()))
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_bytes().splitlines()]
    lines[0]["files"] = ["../kept.png", str(kept), "class0/../../kept.png"]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    list(Run(model, photos, output=out, **make_options(overwrite=True)))
    assert kept.read_bytes() == b"not of this run"


# --- concurrent runs


def test_concurrent_runs_in_one_folder_are_rejected(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    list(Run(model, photos, output=expected, **make_options()))
    first = Run(model, photos, output=out, **make_options())
    records = iter(first)
    next(records)
    for more in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match=r"another run is writing to .*out: wait until"):
            Run(model, photos, output=out, **make_options(**more))
    assert len(list(records)) == 10
    assert read_content(out) == read_content(expected)
    # The run has ended, but the object still exists.
    assert list(Run(model, photos, output=out, **make_options(resume=True))) == []


def test_ended_run_unlocks_its_folder(
    tmp_path: Path, model: Any, photos: Path, start_python: Callable[..., Any]
) -> None:
    with pytest.raises(LayerError) as failed:  # its traceback references the run
        Run(model, photos, output=tmp_path, **make_options(layers="nope"))
    with Run(model, photos, output=tmp_path, **make_options(top=1)) as run:
        list(run)  # without finish
    file = tmp_path / "model.keras"
    model.save(file)
    out = tmp_path / "out"
    with start_python("-c", WORK, file, photos, out, "folders") as process:
        while not count_lines(out / "manifest.jsonl") and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    list(Run(model, photos, output=out, **make_options(top=2, resume=True)))
    assert failed.value


# --- power failure


def test_records_of_synced_shards_survive_power_failure(
    tmp_path: Path, model: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test keeps only files that existed at the last synchronization."""
    expected, out = tmp_path / "expected", tmp_path / "out"
    list(Run(model, photos, output=expected, **make_options(top=2)))
    durable: list[Path] = []

    def sync(folder: Path) -> None:
        assert folder == out
        durable.append(shutil.copytree(out, tmp_path / f"device{len(durable)}"))

    monkeypatch.setattr("actgrid.runs.stores.sync_file_system", sync)
    list(Run(model, photos, output=out, **make_options(top=2)))
    monkeypatch.undo()
    recorded = [count_lines(folder / "manifest.jsonl") for folder in durable]
    assert {4, 8, 11} <= set(recorded)
    for folder, count in zip(durable, recorded, strict=True):
        contents = read_content(folder)
        for record in contents.get("manifest.jsonl", []):
            assert all(contents[file] for file in record["files"])
        run = Run(model, photos, output=folder, **make_options(top=2, resume=True))
        assert run.recorded == count
        list(run)
        assert read_content(folder) == read_content(expected)


@pytest.mark.parametrize("loss", ["missing", "empty", "truncated", "zeros"])
@pytest.mark.parametrize("file", ["01_pool.png", "stats.json"])
@pytest.mark.parametrize("after", [7, 8])  # shards have four images
def test_files_lost_in_power_failure_are_written_again(
    tmp_path: Path, model: Any, photos: Path, loss: str, file: str, after: int
) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    list(Run(model, photos, output=expected, **make_options()))
    stop_early(Run(model, photos, output=out, **make_options()), after)
    manifest = read_content(out)["manifest.jsonl"]
    assert len(manifest) == after
    lost = out / Path(manifest[5]["files"][0]).parent / file
    size = lost.stat().st_size
    if loss == "missing":
        lost.unlink()
    else:
        data = {"empty": b"", "truncated": lost.read_bytes()[: size // 2], "zeros": bytes(size)}
        lost.write_bytes(data[loss])
    run = Run(model, photos, output=out, **make_options(resume=True))
    assert run.recorded == 5
    assert [record.index for record in run] == list(range(5, 11))
    assert read_content(out) == read_content(expected)


def test_foreign_files_are_reported(tmp_path: Path, model: Any, photos: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(RunError, match=r"run\.json is not a file of actgrid"):
        Run(model, photos, output=tmp_path, **make_options())
    (tmp_path / "run.json").unlink()
    stop_early(Run(model, photos, output=tmp_path, **make_options()), 2)
    (tmp_path / "manifest.jsonl").write_text('{"some": "json"}\n')
    with pytest.raises(RunError, match=r"manifest\.jsonl is not a manifest of actgrid"):
        Run(model, photos, output=tmp_path, **make_options(resume=True))


def test_run_at_url_is_resumed(model: Any, photos: Path, tmp_path: Path) -> None:
    list(Run(model, photos, output=tmp_path, **make_options(top=2)))
    url = f"memory://runs/{tmp_path.name}"
    stop_early(Run(model, photos, output=url, **make_options(top=2)), 6)
    store = open_store(url)
    assert store.list_names("manifest") == []  # remote records are written per shard
    assert store.list_names("manifest/") == ["manifest/000000.jsonl"]
    run = Run(model, photos, output=url, **make_options(top=2, resume=True))
    assert run.recorded == 4
    list(run)
    assert store.list_names("manifest/") == []
    for name, expected in read_content(tmp_path).items():
        contents = store.read(name)
        if name == "manifest.jsonl":
            lines = map(json.loads, (contents or b"").splitlines())
            assert [{**line, "milliseconds": 0} for line in lines] == expected
        else:
            assert contents == expected, name


# --- images that fail


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    folder = write_photos(tmp_path / "broken", 6)
    (folder / "class0" / "002.png").write_bytes(b"no image")
    (folder / "class1" / "003.png").write_bytes((folder / "class1" / "001.png").read_bytes()[:99])
    return folder


def test_broken_images_in_folder_are_skipped(tmp_path: Path, model: Any, broken: Path) -> None:
    with Run(model, broken, output=tmp_path / "out", **make_options(top=1)) as run:
        records = list(run)
    failed = [record for record in records if record.failed]
    assert [Path(record.image).name for record in failed] == ["002.png", "003.png"]
    assert "not an image" in (failed[0].error or "")
    assert "truncated or broken" in (failed[1].error or "")
    assert run.summary().failed == 2
    assert run.summary().statistics.images == 4  # type: ignore[union-attr]
    # Failed images are also recorded.
    again = Run(model, broken, output=tmp_path / "out", **make_options(top=1, resume=True))
    assert again.summary().failed == 2


def test_single_broken_file_raises_unless_skipped(tmp_path: Path, model: Any, broken: Path) -> None:
    files = [broken / "class0" / "000.png", broken / "class0" / "002.png"]
    run = Run(model, files, output=tmp_path / "out", **make_options())
    seen: list[Record] = []
    with pytest.raises(ImageError, match="not an image"):
        seen.extend(run)
    assert not (tmp_path / "out" / "run.json").exists() or seen
    assert (
        len(list(Run(model, files, output=tmp_path / "skip", on_error="skip", **make_options())))
        == 2
    )
    with pytest.raises(ImageError):
        list(Run(model, broken, output=tmp_path / "raise", on_error="raise", **make_options()))


def test_overwrite_removes_earlier_run_before_first_picture(
    tmp_path: Path, model: Any, photos: Path, broken: Path
) -> None:
    list(Run(model, photos, output=tmp_path / "out", **make_options()))
    again = make_options(overwrite=True)
    # New pictures may have overwritten recorded ones when the run stops.
    with pytest.raises(ImageError):
        list(Run(model, [broken / "class0" / "002.png"], output=tmp_path / "out", **again))
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert not json.loads((tmp_path / "out" / "run.json").read_bytes())["finished"]


def test_run_stopped_by_full_disk_can_be_resumed(tmp_path: Path, model: Any, photos: Path) -> None:
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    list(Run(model, photos, output=complete, **make_options(sink="tar")))
    size = (complete / "shard-000000.tar").stat().st_size
    run = Run(model, photos, output=interrupted, **make_options(sink="tar"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*shard-000000"):
            list(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(interrupted.glob("shard*"))
    list(Run(model, photos, output=interrupted, **make_options(sink="tar", resume=True)))
    assert read_content(interrupted) == read_content(complete)


# --- options


def test_errors_are_raised_before_anything_is_written(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    output = tmp_path / "out"
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (OptionError, {"sink": "zip"}),
        (OptionError, {"on_error": "ignore"}),
        (OptionError, {"batch_size": 0}),
        (OptionError, {"shard_size": 0}),
        (OptionError, {"threads": 0}),
        (OptionError, {"top": 0}),
        (OptionError, {"resume": True, "overwrite": True}),
        (OptionError, {"drawing": {"cmap": "nope"}}),
        (OptionError, {"drawing": {"colour": "red"}}),
        (LayerError, {"layers": "nope"}),
    ]
    for kind, changed in wrong:
        with pytest.raises(kind):
            Run(model, photos, output=output, **{**make_options(), **changed})
    assert not output.exists() or not list(output.iterdir())


# --- killed processes


WORK = """
import sys
from pathlib import Path
import keras
from actgrid.runs.runs import Run

file, photos, output, sink = sys.argv[1:]
model = keras.models.load_model(file, compile=False)
options = {"drawing": {"format": "png"}, "batch_size": 2, "shard_size": 4, "top": 2}
for _ in Run(model, photos, output=Path(output), sink=sink, resume=True, **options):
    pass
"""


def count_lines(manifest: Path) -> int:
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("sink", "kills"), [("folders", 12), ("tar", 4)])
def test_run_killed_at_random_moments_resumes_to_same_bytes(
    tmp_path: Path, start_python: Callable[..., Any], sink: str, kills: int
) -> None:
    write_photos(tmp_path / "photos", 300, side=70)
    keras.utils.set_random_seed(1)
    convolutions = [keras.layers.Conv2D(16, 3, activation="relu") for _ in range(8)]
    file = tmp_path / "model.keras"
    keras.Sequential([keras.Input((64, 64, 3)), *convolutions]).save(file)
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    start = partial(start_python, "-c", WORK, file, tmp_path / "photos")
    assert start(complete, sink).wait() == 0

    seed = random.SystemRandom().randrange(1000)
    print("seed", seed)  # shown if the test fails
    chance = random.Random(seed)
    for _ in range(kills):
        before = count_lines(interrupted / "manifest.jsonl")
        process = start(interrupted, sink)
        expected = before + chance.randrange(6)
        while count_lines(interrupted / "manifest.jsonl") < expected and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.1))
        assert process.poll() is None, "it was done before it was killed so often"
        process.kill()
        process.wait()
    assert start(interrupted, sink).wait() == 0
    assert read_content(interrupted) == read_content(complete)
