"""Tests of `actgrid render` with many images and of `actgrid measure`."""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import pty
import re
import signal
import struct
import tarfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.runs.processing import STAGES

# The printed line about preprocessing, for a model without known preprocessing.
ASSUMED = "preprocessing: unit (assumed: pixels divided by 255); change it with --preprocess"

Run = Callable[..., Any]
Start = Callable[..., Any]


def write_images(folder: Path, *names: str, side: int = 20) -> list[Path]:
    """Write a reproducible noise image for each name."""
    for seed, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return [folder / name for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of seven files in two class folders; two files are not images."""
    names = [f"{'cat' if index < 4 else 'dog'}/{index}.png" for index in range(7)]
    files = write_images(tmp_path / "in", *names)
    files[1].write_bytes(b"no image")
    files[5].write_bytes(files[4].read_bytes()[:200])
    return tmp_path / "in"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine valid images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, *(f"{index}.png" for index in range(9)))
    return folder


def read_records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_bytes().splitlines()]


def read_run_file(output: Path) -> Any:
    return json.loads((output / "run.json").read_bytes())


def list_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def read_content(folder: Path) -> dict[str, Any]:
    """Read all files of a run; durations are removed from the manifest."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in list_files(folder)}
    found["manifest.jsonl"] = [{**record, "milliseconds": 0} for record in read_records(folder)]
    return found


# --- images that fail


def test_render_of_folder_reports_number_of_broken_images(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("render", model_file, folder, "-o", out)
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[-1] == f"7 images, 2 failed: {out}"
    assert lines[0].startswith(f"{folder / 'cat/0.png'}: 3 layers, 15 channels, ")
    assert lines[0].endswith(f" dead: {out / 'cat/0'}")
    assert lines[1] == (
        f"{folder / 'cat/1.png'}: failed: {folder / 'cat/1.png'} is not an image that Pillow can "
        "read"
    )
    assert [line.split(": ")[0] for line in lines[:7]] == [
        str(folder / ("cat" if index < 4 else "dog") / f"{index}.png") for index in range(7)
    ]
    found = read_records(out)
    assert [record["status"] == "failed" for record in found] == [
        False,
        True,
        *[False] * 3,
        True,
        False,
    ]
    assert found[1]["error"] == lines[1].split(": failed: ")[1]
    assert "truncated or broken" in found[5]["error"]
    assert (found[1]["files"], found[1]["dead"]) == ([], {})
    assert [record["label"] for record in found] == ["cat"] * 4 + ["dog"] * 3
    # The manifest lists every file, and every file is complete.
    listed = [file for record in found for file in record["files"]]
    assert list_files(out) == sorted([*listed, "manifest.jsonl", "run.json"])
    assert listed[-4:] == [
        f"dog/6/{name}" for name in ("00_conv.png", "01_relu.png", "02_pool.png", "stats.json")
    ]
    for record in found:
        for file in record["files"][:-1]:
            with Image.open(out / file) as picture:
                picture.load()
        if record["files"]:
            stats = json.loads((out / record["files"][-1]).read_bytes())["layers"]
            assert record["dead"] == {layer["path"]: len(layer["dead"]) for layer in stats}
            assert record["milliseconds"] > 0


def test_single_broken_file_prints_one_line(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("render", model_file, folder / "cat" / "1.png", "-o", out)
    result.assert_one_clear_line("1.png is not an image that Pillow can read")
    assert result.out == ""
    assert not list_files(out)
    result = run("measure", model_file, folder / "dog" / "5.png", "-o", out)
    result.assert_one_clear_line("5.png is truncated or broken")
    assert not list_files(out)


def test_on_error_skips_or_stops(run: Run, model_file: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["render", model_file, folder, "-o", tmp_path / "raise"]
    result = run(*arguments, "--on-error", "raise")
    result.assert_one_clear_line("1.png is not an image")
    assert [record["image"] for record in read_records(tmp_path / "raise")] == [
        str(folder / "cat" / "0.png")
    ]
    # on_error does not affect the pictures: a run may resume with another value.
    result = run(*arguments, "--resume")
    assert result.code == 1
    assert result.out.splitlines()[-1].startswith("7 images (1 before), 2 failed: ")
    single = ["render", model_file, folder / "cat" / "1.png", "-o", tmp_path / "skip"]
    result = run(*single, "--on-error", "skip")
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"1 image, 1 failed: {tmp_path / 'skip'}"
    (record,) = read_records(tmp_path / "skip")
    assert record["status"] == "failed"


def test_failures_are_logged_and_not_printed(
    run: Run,
    model_file: Path,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "actgrid"):
        result = run("render", model_file, folder, "-o", tmp_path / "out")
        assert result.err == ""
        run("render", model_file, folder, "-o", tmp_path / "out", "--resume")
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert messages[0] == ("DEBUG", f"{folder / 'cat/0.png'} is done")
    assert messages[1][0] == "WARNING"
    assert re.fullmatch(rf"{folder}/cat/1.png failed: .* is not an image .*", messages[1][1])
    assert [level for level, _ in messages].count("WARNING") == 2
    assert messages[7] == ("INFO", f"{tmp_path / 'out'}: 7 images are already recorded")
    assert all(record.name.startswith("actgrid.") for record in caplog.records)


# --- inputs


def test_images_come_from_files_folders_globs_and_lists(
    run: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images / '3.png'}\tthree\n\n{images / '0.png'}\nnone.png\tlost\n")
    inputs = [images / "8.png", images, f"{images}/[12].png", listed]
    result = run("render", model_file, *inputs, "-o", tmp_path / "out", "--layers", "relu")
    assert result.code == 1
    found = read_records(tmp_path / "out")
    names = ["8", *"012345678", "1", "2", "3", "0", "none"]
    assert [Path(record["image"]).stem for record in found] == names
    assert [record["label"] for record in found] == [None] * 12 + ["three", None, "lost"]
    assert found[-1]["error"] == f"there is no image {tmp_path / 'none.png'}"
    # Each image has its own folder; folders of equal images have equal contents.
    folders = [Path(record["files"][0]).parts[0] for record in found[:-1]]
    assert len(set(folders)) == 14
    assert folders[:4] == ["8", "0", "1", "2"]
    assert (folders[9], folders[12]) == ("8-2", "3-2")
    first, second = (tmp_path / "out" / name / "00_relu.png" for name in ("8", "8-2"))
    assert first.read_bytes() == second.read_bytes()


def test_output_folder_inside_image_folder_is_not_read(
    run: Run, model_file: Path, tmp_path: Path
) -> None:
    write_images(tmp_path, "a.png", "b.png")
    arguments = ["render", model_file, tmp_path, "-o", tmp_path / "out"]
    assert run(*arguments).code == 0
    result = run(*arguments, "--resume")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"\n{ASSUMED}\n2 images (2 before), 0 failed: {tmp_path / 'out'}\n"
    assert run(*arguments, "--overwrite").out.count("\n") == 5
    result = run("render", model_file, tmp_path, "-o", tmp_path)
    result.assert_one_clear_line("is the folder of the images")


# --- events


def test_events_are_json_lines(
    run: Run,
    model_file: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actgrid.cli.running._PROGRESS_SECONDS", 0.0)
    out = tmp_path / "out"
    result = run("render", model_file, folder, "-o", out, "--json", "--batch-size", 2)
    assert (result.code, result.err) == (1, "")
    kinds = [event.pop("event") for event in result.events]
    events = [json.loads(line) for line in result.out.splitlines()]
    assert kinds == ["start", *["image", "progress"] * 7, "end"]
    prepared = events[0].pop("preprocessing")
    assert (prepared["name"], prepared["assumed"]) == ("unit", True)
    assert events[0] == {"event": "start", "output": str(out), "images": 7, "recorded": 0}
    printed = [
        {name: value for name, value in event.items() if name != "event"}
        for event in events
        if event["event"] == "image"
    ]
    assert printed == read_records(out)
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["recorded"] for event in progress] == list(range(1, 8))
    for event in progress:
        assert set(event) == {"event", "recorded", "images_per_second", "seconds_left", "loads"}
        assert event["images_per_second"] > 0
        assert set(event["loads"]) == set(STAGES)
    assert progress[0]["seconds_left"] > 0
    assert progress[-1]["seconds_left"] == 0
    end = events[-1]
    assert set(end["loads"]) == set(STAGES)
    assert all(load > 0 for load in end.pop("loads").values())
    assert end.pop("seconds") > 0
    assert end == {"event": "end", "output": str(out), "images": 7, "failed": 2}
    again = run("render", model_file, folder, "-o", out, "--json", "--batch-size", 2, "--resume")
    assert again.code == 1
    assert [event["event"] for event in again.events] == ["start", "end"]
    assert again.events[0]["recorded"] == 7
    assert again.events[1]["failed"] == 2


def test_progress_events_come_once_a_second(
    run: Run, model_file: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    # The clock advances 0.3 s an image: it is read once a line, and once more for figures.
    monkeypatch.setattr("actgrid.cli.running.time.perf_counter", lambda: 0.15 * next(clock))
    result = run("render", model_file, folder, "-o", tmp_path / "out", "--json", "--threads", 1)
    kinds = [event["event"] for event in result.events]
    assert kinds[:3] == ["start", "image", "progress"]
    assert kinds.count("image") == 7
    assert 2 <= kinds.count("progress") < 7
    assert kinds[-1] == "end"


# --- existing output folders


def test_run_of_another_process_is_not_disturbed(
    run: Run, start: Callable[..., Any], slow_model: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(40)))
    out = tmp_path / "out"
    arguments = ["render", slow_model, tmp_path / "in", "-o", out]
    with start(*arguments) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        for more in ([], ["--resume"], ["--overwrite"]):
            result = run(*arguments, *more)
            result.assert_one_clear_line(f"another run is writing to {out}", "choose another")
        process.send_signal(signal.SIGCONT)
        _, problem = process.communicate()
        assert (process.returncode, problem) == (0, "")
    assert len(read_records(out)) == 40
    assert run(*arguments, "--resume").code == 0


def test_overwrite_keeps_files_of_other_origin(
    run: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "cat").mkdir(parents=True)
    (out / "cat" / "notes.txt").write_text("mine")
    arguments = ["render", model_file, images, "-o", out, "--layers"]
    assert run(*arguments, "conv").code == 0
    run(*arguments, "relu").assert_one_clear_line("finished run", "--overwrite")
    assert run(*arguments, "relu", "--overwrite").code == 0
    assert not [name for name in list_files(out) if "conv" in name]
    assert (out / "cat" / "notes.txt").read_text() == "mine"


# --- sinks and statistics


def test_tars_and_statistics_in_one_pass(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    sink = ["--sink", "tar", "--shard-size", 3, "--batch-size", 2]
    result = run("render", model_file, folder, "-o", out, *sink, "--statistics", "--top", 2)
    assert result.code == 1
    assert list_files(out) == [
        *("manifest.jsonl", "report.html", "run.json"),
        *(f"shard-{number:06}.tar" for number in range(3)),
        *("stats.npz", "summary.json"),
        *("top/00_conv.png", "top/01_relu.png", "top/02_pool.png"),
    ]
    names = []
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names += [f"{shard.name}/{name}" for name in tar.getnames()]
    assert names == [file for record in read_records(out) for file in record["files"]]
    assert names[:4] == [
        "shard-000000.tar/cat/0.00_conv.png",
        "shard-000000.tar/cat/0.01_relu.png",
        "shard-000000.tar/cat/0.02_pool.png",
        "shard-000000.tar/cat/0.json",
    ]
    # Files equal those of the other sink, and statistics those of a separate run.
    run("render", model_file, folder, "-o", tmp_path / "folders")
    with tarfile.open(out / "shard-000000.tar") as tar:
        entry = tar.extractfile("cat/0.01_relu.png")
        assert entry is not None
        assert entry.read() == (tmp_path / "folders" / "cat" / "0" / "01_relu.png").read_bytes()
    assert run("measure", model_file, folder, "-o", alone, "--top", 2, *sink[2:]).code == 1
    first, second = (actgrid.DatasetStats.load(place / "stats.npz") for place in (out, alone))
    for path, layer in first.layers.items():
        np.testing.assert_allclose(layer.mean, second.layers[path].mean, 1e-6)
        np.testing.assert_array_equal(layer.top_index, second.layers[path].top_index)


def test_measure_of_one_image_prints_output_folder(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    result = run("measure", model_file, folder / "cat" / "0.png", "-o", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == f"1 image, 0 failed: {tmp_path / 'out'}"


def test_measure_writes_all_results(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--layers", "relu", "--layers", "head", "--top", 2, "--top-channels", 3]
    result = run("measure", model_file, folder, "-o", out, *options)
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"7 images, 2 failed: {out}"
    assert re.fullmatch(r".*/0\.png: 2 layers, 9 channels, \d dead", result.out.splitlines()[0])
    assert list_files(out) == [
        *("manifest.jsonl", "report.html", "run.json", "stats.npz", "summary.json"),
        *("top/00_relu.png", "top/01_head.png"),
    ]
    statistics = actgrid.DatasetStats.load(out / "stats.npz")
    assert (statistics.images, statistics.top) == (5, 2)
    summary = json.loads((out / "summary.json").read_bytes())
    assert summary["images"] == 5
    for layer in summary["layers"]:
        assert (
            layer["dead_channels"] == np.flatnonzero(statistics.layers[layer["path"]].dead).tolist()
        )
    assert all(record["files"] == [] for record in read_records(out))
    assert set(read_records(out)[0]["dead"]) == {"relu", "head"}
    assert read_run_file(out)["options"]["draw"] is None
    assert read_run_file(out)["options"]["top"] == 2
    # A tile and two images for each of the three or all channels.
    with Image.open(out / "top" / "00_relu.png") as sheet:
        three = sheet.height
    run("measure", model_file, folder, "-o", out, *options[:-1], "all", "--overwrite")
    with Image.open(out / "top" / "00_relu.png") as sheet:
        alive = int((~statistics.layers["relu"].dead).sum())
        assert sheet.height / three == pytest.approx(alive / 3, abs=0.05)


def test_report_shows_figures_of_summary(
    run: Run, model_file: Path, images: Path, tmp_path: Path, opened: Run
) -> None:
    assert run("measure", model_file, images, "-o", tmp_path).code == 0
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    with opened(tmp_path / "report.html") as page:
        assert page.locator("h1").inner_text() == "small: channels over 9 images"
        rows = page.locator("tr[data-layer]")
        texts = [rows.nth(row).locator("td, th").all_inner_texts() for row in range(rows.count())]
        titles = page.locator("table:has(tr[data-layer]) thead th").all_inner_texts()
        dead = titles.index("dead")
        assert [(row[0].strip(), int(row[dead])) for row in texts] == [
            ("all layers", summary["totals"]["dead"]),
            *((layer["path"], layer["dead"]) for layer in summary["layers"]),
        ]
        page.click("tr[data-layer='0'] button")
        # A tile and nine images for each channel.
        assert page.locator("#pictures img").count() == 5 * (1 + 9)


def test_statistics_count_no_images_if_all_failed(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    broken = [folder / "cat" / "1.png", folder / "dog" / "5.png"]
    result = run("measure", model_file, *broken, "-o", out, "--on-error", "skip")
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"2 images, 2 failed: {out}"
    assert json.loads((out / "summary.json").read_bytes())["images"] == 0


# --- resuming


def test_unfinished_run_is_neither_overwritten_nor_mixed(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["render", model_file, folder, "-o", out, "--layers", "relu"]
    run(*arguments, "--on-error", "raise").assert_one_clear_line("1.png")
    before = read_content(out)
    run(*arguments).assert_one_clear_line("unfinished run", "resume", "overwrite")
    run(*arguments, "--resume", "--overwrite").assert_one_clear_line("exclude each other")
    other = run(*arguments, "--resume", "--cmap", "magma", "--batch-size", 3, "--layers", "conv")
    other.assert_one_clear_line(
        f"the run in {out} cannot be resumed with different settings: ",
        'layers was ["relu"], is ["conv","relu"]',
        'options.draw.cmap was "viridis", is "magma"',
        "options.batch_size was 8, is 3",
    )
    stats = run("measure", model_file, folder, "-o", out, "--layers", "relu", "--resume")
    stats.assert_one_clear_line("options.top was null, is 9")
    run("render", "demo", folder, "-o", out, "--resume").assert_one_clear_line(
        'model.name was "small", is "efficientnet_lite0"', "model.fingerprint was"
    )
    assert read_content(out) == before
    assert run(*arguments, "--overwrite", "--cmap", "magma").code == 1
    assert read_run_file(out)["options"]["draw"]["cmap"] == "magma"
    assert read_run_file(out)["finished"]
    # Resuming a finished run changes nothing; without an option it is not replaced.
    before = read_content(out)
    assert run(*arguments, "--cmap", "magma", "--resume").code == 1
    run(*arguments).assert_one_clear_line(
        f"{out} contains a finished run of 7 images", "--overwrite"
    )
    assert read_content(out) == before
    assert run(*arguments, "--overwrite").code == 1
    assert read_run_file(out)["options"]["draw"]["cmap"] == "viridis"


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model slow enough that a run can be interrupted on any machine."""
    keras.utils.set_random_seed(2)
    convolutions = [keras.layers.Conv2D(32, 5, activation="relu") for _ in range(6)]
    path: Path = tmp_path_factory.mktemp("slow") / "slow.keras"
    keras.Sequential([keras.Input((64, 64, 3)), *convolutions]).save(path)
    return path


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_interrupted_run_reports_progress_and_how_to_continue(
    run: Run, start: Start, slow_model: Path, tmp_path: Path, sink: str
) -> None:
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(60)))
    arguments = ["render", slow_model, tmp_path / "in", "--sink", sink, "--statistics", "--top", 2]
    arguments += ["--batch-size", 2, "--shard-size", 6, "--layers", 0, "--layers", 5]
    interrupted, complete = tmp_path / "interrupted", tmp_path / "complete"
    with start(*arguments, "-o", interrupted) as stopped:
        first = stopped.stdout.readline()
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate()
    assert stopped.returncode == 130, err
    done = len(read_records(interrupted))
    assert (
        err == f"actgrid: interrupted: {done} of 60 images are recorded; continue with --resume\n"
    )
    assert 1 <= done < 60
    assert first.startswith(f"{tmp_path / 'in' / '000.png'}: 2 layers, 64 channels, ")
    assert out.count("\n") <= done
    # No file is partial, and every recorded file exists.
    assert not list(interrupted.rglob("*.part"))
    for record in read_records(interrupted):
        for file in record["files"]:
            name, _, entry = file.partition(".tar/")
            if entry:
                with tarfile.open(interrupted / f"{name}.tar") as tar:
                    assert entry in tar.getnames()
            else:
                assert (interrupted / file).exists()
    assert not read_run_file(interrupted)["finished"]
    resumed = run(*arguments, "-o", interrupted, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.out.splitlines()[-1] == f"60 images ({done} before), 0 failed: {interrupted}"
    assert run(*arguments, "-o", complete).code == 0
    assert read_content(interrupted) == read_content(complete)


def test_run_interrupted_during_report_resumes_there(
    run: Run, model_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    arguments = ["measure", model_file, images, "-o", tmp_path / "out"]
    with monkeypatch.context() as patched:
        patched.setattr("actgrid.runs.runs.write_results", interrupt)
        run(*arguments).assert_one_clear_line(
            "interrupted: 9 of 9 images are recorded; continue with --resume", code=130
        )
    assert "report.html" not in list_files(tmp_path / "out")
    result = run(*arguments, "--resume")
    assert (result.code, result.out.splitlines()[0]) == (0, "")
    assert result.out.splitlines()[2].startswith("9 images (9 before), 0 failed: ")
    run(*arguments[:-1], tmp_path / "complete")
    assert read_content(tmp_path / "out") == read_content(tmp_path / "complete")


def test_run_with_closed_output_pipe_can_be_resumed(
    run: Run, start: Start, model_file: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(100)))
    arguments = ["render", model_file, tmp_path / "in", "-o", out, "--batch-size", 1]
    with start(*arguments) as left:
        left.stdout.readline()
        left.stdout.close()
        assert left.stderr.read() == ""
    assert left.returncode == 1
    assert 1 <= len(read_records(out)) < 100
    result = run(*arguments, "--resume")
    assert result.out.splitlines()[-1].startswith("100 images (")


def test_full_disk_prints_how_to_continue(
    run: Run, process: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    arguments = ["render", model_file, images, "--sink", "tar", "--shard-size", 4]
    assert run(*arguments, "-o", tmp_path / "complete").code == 0
    size = (tmp_path / "complete" / "shard-000002.tar").stat().st_size

    # The limit is smaller than the first shard (four images).
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    out = tmp_path / "out"
    result = process(*arguments, "-o", out, first=limit)
    result.assert_one_clear_line(
        f"cannot write {out / 'shard-000000.tar'}: File too large; ",
        "0 of 9 images are recorded; continue with --resume",
    )
    assert not list_files(out)
    assert run(*arguments, "-o", out, "--resume").code == 0
    assert read_content(out) == read_content(tmp_path / "complete")


# Drops the capability by which root ignores file permissions.
OBEY_PERMISSIONS = """
import ctypes
capset = ctypes.CDLL(None).capset
version_3 = 0x20080522
assert capset((ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()) == 0
"""


def test_lost_permission_prints_how_to_continue(
    run: Run, start: Start, slow_model: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(60)))
    arguments = ["render", slow_model, tmp_path / "in", "--batch-size", 2, "--layers", 0]
    interrupted, complete = tmp_path / "interrupted", tmp_path / "complete"
    with start(*arguments, "-o", interrupted, first=OBEY_PERMISSIONS) as stopped:
        stopped.stdout.readline()
        interrupted.chmod(0o500)
        _, err = stopped.communicate()
        interrupted.chmod(0o700)
    assert stopped.returncode == 2, err
    done = len(read_records(interrupted))
    assert re.fullmatch(
        rf"actgrid: cannot make the folder {interrupted}/0\d\d: Permission denied; {done} of 60 "
        r"images are recorded; continue with --resume\n",
        err,
    )
    assert 1 <= done < 60
    assert run(*arguments, "-o", interrupted, "--resume").code == 0
    assert run(*arguments, "-o", complete).code == 0
    assert read_content(interrupted) == read_content(complete)


def test_unwritable_output_prints_one_line(
    run: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for command in ("render", "measure"):
        result = run(command, model_file, images, "-o", tmp_path / "file")
        result.assert_one_clear_line(f"cannot make the folder {tmp_path / 'file'}: File exists")
        result = run(command, model_file, images, "-o", "nowhere://x")
        result.assert_one_clear_line("nowhere://x cannot be opened")


# --- options


@pytest.mark.parametrize("command", ["render", "measure"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--on-error", "ignore"], ["--on-error must be one of skip, raise, not 'ignore'"]),
        (["--batch-size", "0"], ["--batch-size must be at least 1, not 0"]),
        (["--batch-size", "many"], ["--batch-size", "integer"]),
        (["--shard-size", "0"], ["--shard-size must be at least 1, not 0"]),
        (["--shard-size", "1.5"], ["--shard-size"]),
        (["--threads", "0"], ["--threads must be at least 1, not 0"]),
        (["--top", "0", "--statistics"], ["--top must be at least 1, not 0"]),
        (["--top-channels", "-1"], ["--top-channels"]),
        (["--engine", "spark"], ["--engine must be one of local, ray, not 'spark'"]),
        (["--resume", "--overwrite"], ["exclude each other"]),
        (["--fit", "squeeze"], ["crop, pad, stretch"]),
        (["--size", "9x9"], ["takes an input of"]),
        (["--preprocess", "vgg"], ["VGG16"]),
        (["--layers", "convv"], ["did you mean conv"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_value_prints_one_line_and_writes_nothing(
    run: Run,
    model_file: Path,
    images: Path,
    tmp_path: Path,
    command: str,
    options: list[str],
    words: list[str],
) -> None:
    if command == "measure" and "--statistics" in options:
        options = options[:-1]
    result = run(command, model_file, images, "-o", tmp_path / "out", *options)
    result.assert_one_clear_line(*words)
    assert result.out == ""
    assert not (tmp_path / "out").exists() or not list_files(tmp_path / "out")


def test_unknown_sink_is_rejected(run: Run, model_file: Path, images: Path, tmp_path: Path) -> None:
    result = run("render", model_file, images, "-o", tmp_path / "out", "--sink", "tars")
    result.assert_one_clear_line(
        "--sink must be one of folders, tar, not 'tars'", "did you mean tar"
    )


def test_missing_inputs_are_rejected(run: Run, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    for command in ("render", "measure"):
        for inputs, words in (
            ("none.jpg", "there is no image none.jpg"),
            (tmp_path / "*.jpg", "there is no image"),
            (tmp_path / "empty", "empty holds no images"),
            (tmp_path / "list.txt", "list.txt contains no images"),
        ):
            result = run(command, model_file, inputs, "-o", tmp_path / "out")
            result.assert_one_clear_line(words)
            assert not (tmp_path / "out").exists()


def test_help_names_every_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    common = ["--output", "--layers", "--top", "--top-channels", "--preprocess", "--size", "--fit"]
    common += ["--weights", "--no-safe-mode", "--threads", "--batch-size", "--shard-size"]
    common += ["--on-error", "--resume", "--overwrite", "--engine", "--actors", "--num-gpus"]
    common += ["--address", "--json"]
    drawing = ["--normalize", "--scope", "--columns", "--padding", "--zoom", "--background"]
    drawing += ["--order", "--cmap", "--format", "--compression", "--token-grid", "--sink"]
    drawing += ["--statistics", "--backend"]
    for command, options in (("render", common + drawing), ("measure", common)):
        result = run(command, "--help")
        assert result.code == 0
        named = set(re.findall(r"--[a-z-]+", result.out))
        assert named >= set(options)
        assert "manifest.jsonl" in result.out
        assert re.search(r"exit\s+code is 1 if images failed", result.out)


# --- progress bar


def on_terminal(start: Start, *arguments: object, out: Any, columns: int) -> tuple[int, str]:
    """Run a command with standard error on a terminal, and return its output there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = start(*arguments, stdout=out, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:
        pass  # Linux reports the end of a terminal as an error
    os.close(ours)
    code: int = process.wait()
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_progress_bar_is_shown_only_on_terminal(
    start: Start, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    arguments = ["render", model_file, folder, "--layers", "relu", "--batch-size", 1]
    with lines.open("wb") as file:
        code, shown = on_terminal(start, *arguments, "-o", tmp_path / "out", out=file, columns=80)
    assert code == 1
    assert "drawing" in shown
    assert "100%" in shown
    assert "7/7" in shown
    assert "0:00:00" in shown  # the remaining time is not truncated on a narrow terminal
    assert re.search(r"\d\.\d images/s", shown)
    for stage in STAGES:
        assert re.search(rf"{stage}\s+\d\.\d", shown)
    assert "0.png" not in shown
    printed = lines.read_text().splitlines()
    assert len(printed) == 10
    assert printed[-1] == f"7 images, 2 failed: {tmp_path / 'out'}"
