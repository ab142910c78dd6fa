"""`actgrid render` of many images and `actgrid measure`."""

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
from actgrid.runs.work import STAGES

# What the command says of a model that does not tell how it wants pixels.
ASSUMED = "preprocessing: unit (assumed: pixels divided by 255); --preprocess says otherwise"

Run = Callable[..., Any]
Start = Callable[..., Any]


def write_images(folder: Path, *names: str, side: int = 20) -> list[Path]:
    """Write an image of noise, each time the same, for each name."""
    for seed, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return [folder / name for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of seven images of two classes, two of which are none."""
    names = [f"{'cat' if index < 4 else 'dog'}/{index}.png" for index in range(7)]
    files = write_images(tmp_path / "in", *names)
    files[1].write_bytes(b"no image")
    files[5].write_bytes(files[4].read_bytes()[:200])
    return tmp_path / "in"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine good images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, *(f"{index}.png" for index in range(9)))
    return folder


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_bytes().splitlines()]


def about(output: Path) -> Any:
    return json.loads((output / "run.json").read_bytes())


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def content(folder: Path) -> dict[str, Any]:
    """Return every file of a run, the manifest without the times that images took."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in files(folder)}
    found["manifest.jsonl"] = [{**one, "milliseconds": 0} for one in records(folder)]
    return found


# --- images that fail


def test_a_folder_with_broken_images_is_drawn_and_says_how_many_failed(
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
    found = records(out)
    assert [one["status"] == "failed" for one in found] == [False, True, *[False] * 3, True, False]
    assert found[1]["error"] == lines[1].split(": failed: ")[1]
    assert "truncated or broken" in found[5]["error"]
    assert (found[1]["files"], found[1]["dead"]) == ([], {})
    assert [one["label"] for one in found] == ["cat"] * 4 + ["dog"] * 3
    # Every file is in the manifest, and whole.
    listed = [file for one in found for file in one["files"]]
    assert files(out) == sorted([*listed, "manifest.jsonl", "run.json"])
    assert listed[-4:] == [
        f"dog/6/{name}" for name in ("00_conv.png", "01_relu.png", "02_pool.png", "stats.json")
    ]
    for one in found:
        for file in one["files"][:-1]:
            with Image.open(out / file) as picture:
                picture.load()
        if one["files"]:
            stats = json.loads((out / one["files"][-1]).read_bytes())["layers"]
            assert one["dead"] == {layer["path"]: len(layer["dead"]) for layer in stats}
            assert one["milliseconds"] > 0


def test_a_single_broken_file_is_one_clear_line(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run("render", model_file, folder / "cat" / "1.png", "-o", out)
    result.assert_one_clear_line("1.png is not an image that Pillow can read")
    assert result.out == ""
    assert not files(out)
    result = run("measure", model_file, folder / "dog" / "5.png", "-o", out)
    result.assert_one_clear_line("5.png is truncated or broken")
    assert not files(out)


def test_on_error_says_whether_to_go_on(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    arguments = ["render", model_file, folder, "-o", tmp_path / "raise"]
    result = run(*arguments, "--on-error", "raise")
    result.assert_one_clear_line("1.png is not an image")
    assert [one["image"] for one in records(tmp_path / "raise")] == [str(folder / "cat" / "0.png")]
    # It is no option of the pictures: what was stopped so goes on without it.
    result = run(*arguments, "--resume")
    assert result.code == 1
    assert result.out.splitlines()[-1].startswith("7 images (1 before), 2 failed: ")
    single = ["render", model_file, folder / "cat" / "1.png", "-o", tmp_path / "skip"]
    result = run(*single, "--on-error", "skip")
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"1 image, 1 failed: {tmp_path / 'skip'}"
    (record,) = records(tmp_path / "skip")
    assert record["status"] == "failed"


def test_failures_are_told_to_the_logger_and_not_on_standard_error(
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
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told[0] == ("DEBUG", f"{folder / 'cat/0.png'} is done")
    assert told[1][0] == "WARNING"
    assert re.fullmatch(rf"{folder}/cat/1.png failed: .* is not an image .*", told[1][1])
    assert [level for level, _ in told].count("WARNING") == 2
    assert told[7] == ("INFO", f"{tmp_path / 'out'}: 7 images are done already")
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
    found = records(tmp_path / "out")
    names = ["8", *"012345678", "1", "2", "3", "0", "none"]
    assert [Path(one["image"]).stem for one in found] == names
    assert [one["label"] for one in found] == [None] * 12 + ["three", None, "lost"]
    assert found[-1]["error"] == f"there is no image {tmp_path / 'none.png'}"
    # Each has a folder of its own; those of one image hold the same.
    folders = [Path(one["files"][0]).parts[0] for one in found[:-1]]
    assert len(set(folders)) == 14
    assert folders[:4] == ["8", "0", "1", "2"]
    assert (folders[9], folders[12]) == ("8-2", "3-2")
    first, second = (tmp_path / "out" / name / "00_relu.png" for name in ("8", "8-2"))
    assert first.read_bytes() == second.read_bytes()


def test_an_output_inside_the_folder_of_images_holds_none_of_them(
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


def test_events_are_json_a_line_each(
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
    told = [
        {name: value for name, value in event.items() if name != "event"}
        for event in events
        if event["event"] == "image"
    ]
    assert told == records(out)
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
    # Each image takes 0.3 s by this clock, which is read once a line, and once more for figures.
    monkeypatch.setattr("actgrid.cli.running.time.perf_counter", lambda: 0.15 * next(clock))
    result = run("render", model_file, folder, "-o", tmp_path / "out", "--json", "--threads", 1)
    kinds = [event["event"] for event in result.events]
    assert kinds[:3] == ["start", "image", "progress"]
    assert kinds.count("image") == 7
    assert 2 <= kinds.count("progress") < 7
    assert kinds[-1] == "end"


# --- folders that are not empty


def test_a_run_in_another_process_is_not_disturbed(
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
    assert len(records(out)) == 40
    assert run(*arguments, "--resume").code == 0


def test_files_that_a_run_did_not_write_stay(
    run: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "cat").mkdir(parents=True)
    (out / "cat" / "notes.txt").write_text("mine")
    arguments = ["render", model_file, images, "-o", out, "--layers"]
    assert run(*arguments, "conv").code == 0
    run(*arguments, "relu").assert_one_clear_line("finished run", "--overwrite")
    assert run(*arguments, "relu", "--overwrite").code == 0
    assert not [name for name in files(out) if "conv" in name]
    assert (out / "cat" / "notes.txt").read_text() == "mine"


# --- sinks and statistics


def test_tars_and_statistics_in_one_pass(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    sink = ["--sink", "tar", "--shard-size", 3, "--batch-size", 2]
    result = run("render", model_file, folder, "-o", out, *sink, "--statistics", "--top", 2)
    assert result.code == 1
    assert files(out) == [
        *("manifest.jsonl", "report.html", "run.json"),
        *(f"shard-{number:06}.tar" for number in range(3)),
        *("stats.npz", "summary.json"),
        *("top/00_conv.png", "top/01_relu.png", "top/02_pool.png"),
    ]
    names = []
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names += [f"{shard.name}/{name}" for name in tar.getnames()]
    assert names == [file for one in records(out) for file in one["files"]]
    assert names[:4] == [
        "shard-000000.tar/cat/0.00_conv.png",
        "shard-000000.tar/cat/0.01_relu.png",
        "shard-000000.tar/cat/0.02_pool.png",
        "shard-000000.tar/cat/0.json",
    ]
    # They are the files of the other sink, and the statistics those taken alone.
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


def test_measure_of_one_image_tell_where_they_are(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    result = run("measure", model_file, folder / "cat" / "0.png", "-o", tmp_path / "out")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == f"1 image, 0 failed: {tmp_path / 'out'}"


def test_measure_writes_all_that_is_found(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--layers", "relu", "--layers", "head", "--top", 2, "--top-channels", 3]
    result = run("measure", model_file, folder, "-o", out, *options)
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"7 images, 2 failed: {out}"
    assert re.fullmatch(r".*/0\.png: 2 layers, 9 channels, \d dead", result.out.splitlines()[0])
    assert files(out) == [
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
    assert all(one["files"] == [] for one in records(out))
    assert set(records(out)[0]["dead"]) == {"relu", "head"}
    assert about(out)["options"]["draw"] is None
    assert about(out)["options"]["top"] == 2
    # A tile and two images for each of three channels, or of all of them.
    with Image.open(out / "top" / "00_relu.png") as sheet:
        three = sheet.height
    run("measure", model_file, folder, "-o", out, *options[:-1], "all", "--overwrite")
    with Image.open(out / "top" / "00_relu.png") as sheet:
        alive = int((~statistics.layers["relu"].dead).sum())
        assert sheet.height / three == pytest.approx(alive / 3, abs=0.05)


def test_the_report_opens_and_shows_what_the_summary_says(
    run: Run, model_file: Path, images: Path, tmp_path: Path, opened: Run
) -> None:
    assert run("measure", model_file, images, "-o", tmp_path).code == 0
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    with opened(tmp_path / "report.html") as page:
        assert page.locator("h1").inner_text() == "small: channels over 9 images"
        rows = page.locator("tr[data-layer]")
        told = [rows.nth(row).locator("td, th").all_inner_texts() for row in range(rows.count())]
        titles = page.locator("table:has(tr[data-layer]) thead th").all_inner_texts()
        dead = titles.index("dead")
        assert [(row[0].strip(), int(row[dead])) for row in told] == [
            ("all layers", summary["totals"]["dead"]),
            *((layer["path"], layer["dead"]) for layer in summary["layers"]),
        ]
        page.click("tr[data-layer='0'] button")
        # A tile and nine images for each of the channels.
        assert page.locator("#pictures img").count() == 5 * (1 + 9)


def test_statistics_of_images_that_all_failed_are_of_none(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    broken = [folder / "cat" / "1.png", folder / "dog" / "5.png"]
    result = run("measure", model_file, *broken, "-o", out, "--on-error", "skip")
    assert (result.code, result.err) == (1, "")
    assert result.out.splitlines()[-1] == f"2 images, 2 failed: {out}"
    assert json.loads((out / "summary.json").read_bytes())["images"] == 0


# --- resuming


def test_an_unfinished_run_is_neither_lost_nor_mixed_with_another(
    run: Run, model_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["render", model_file, folder, "-o", out, "--layers", "relu"]
    run(*arguments, "--on-error", "raise").assert_one_clear_line("1.png")
    before = content(out)
    run(*arguments).assert_one_clear_line("unfinished run", "resume", "overwrite")
    run(*arguments, "--resume", "--overwrite").assert_one_clear_line("not both")
    other = run(*arguments, "--resume", "--cmap", "magma", "--batch-size", 3, "--layers", "conv")
    other.assert_one_clear_line(
        f"the run in {out} cannot be resumed, it differs: ",
        'layers was ["relu"], is ["conv","relu"]',
        'options.draw.cmap was "viridis", is "magma"',
        "options.batch_size was 8, is 3",
    )
    stats = run("measure", model_file, folder, "-o", out, "--layers", "relu", "--resume")
    stats.assert_one_clear_line("options.top was null, is 9")
    run("render", "demo", folder, "-o", out, "--resume").assert_one_clear_line(
        'model.name was "small", is "efficientnet_lite0"', "model.fingerprint was"
    )
    assert content(out) == before
    assert run(*arguments, "--overwrite", "--cmap", "magma").code == 1
    assert about(out)["options"]["draw"]["cmap"] == "magma"
    assert about(out)["finished"]
    # To resume a finished one changes nothing; nor is it lost by mistake.
    before = content(out)
    assert run(*arguments, "--cmap", "magma", "--resume").code == 1
    run(*arguments).assert_one_clear_line(f"{out} holds a finished run of 7 images", "--overwrite")
    assert content(out) == before
    assert run(*arguments, "--overwrite").code == 1
    assert about(out)["options"]["draw"]["cmap"] == "viridis"


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with which many images take long enough to be interrupted, on any machine."""
    keras.utils.set_random_seed(2)
    convolutions = [keras.layers.Conv2D(32, 5, activation="relu") for _ in range(6)]
    path: Path = tmp_path_factory.mktemp("slow") / "slow.keras"
    keras.Sequential([keras.Input((64, 64, 3)), *convolutions]).save(path)
    return path


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_interrupted_it_says_how_far_it_came_and_how_to_go_on(
    run: Run, start: Start, slow_model: Path, tmp_path: Path, sink: str
) -> None:
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(60)))
    arguments = ["render", slow_model, tmp_path / "in", "--sink", sink, "--statistics", "--top", 2]
    arguments += ["--batch-size", 2, "--shard-size", 6, "--layers", 0, "--layers", 5]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    with start(*arguments, "-o", parts) as stopped:
        first = stopped.stdout.readline()
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate()
    assert stopped.returncode == 130, err
    done = len(records(parts))
    assert err == f"actgrid: interrupted: {done} of 60 images are recorded, --resume goes on\n"
    assert 1 <= done < 60
    assert first.startswith(f"{tmp_path / 'in' / '000.png'}: 2 layers, 64 channels, ")
    assert out.count("\n") <= done
    # Nothing is half written, and every file that is recorded is there.
    assert not list(parts.rglob("*.part"))
    for one in records(parts):
        for file in one["files"]:
            name, _, entry = file.partition(".tar/")
            if entry:
                with tarfile.open(parts / f"{name}.tar") as tar:
                    assert entry in tar.getnames()
            else:
                assert (parts / file).exists()
    assert not about(parts)["finished"]
    resumed = run(*arguments, "-o", parts, "--resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.out.splitlines()[-1] == f"60 images ({done} before), 0 failed: {parts}"
    assert run(*arguments, "-o", whole).code == 0
    assert content(parts) == content(whole)


def test_interrupted_while_it_writes_the_report_it_goes_on_there(
    run: Run, model_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    arguments = ["measure", model_file, images, "-o", tmp_path / "out"]
    with monkeypatch.context() as patched:
        patched.setattr("actgrid.runs.runs.write_findings", interrupt)
        run(*arguments).assert_one_clear_line(
            "interrupted: 9 of 9 images are recorded, --resume goes on", code=130
        )
    assert "report.html" not in files(tmp_path / "out")
    result = run(*arguments, "--resume")
    assert (result.code, result.out.splitlines()[0]) == (0, "")
    assert result.out.splitlines()[2].startswith("9 images (9 before), 0 failed: ")
    run(*arguments[:-1], tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_reader_that_leaves_early_leaves_what_can_be_resumed(
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
    assert 1 <= len(records(out)) < 100
    result = run(*arguments, "--resume")
    assert result.out.splitlines()[-1].startswith("100 images (")


def test_a_full_disk_is_one_line_that_says_how_to_go_on(
    run: Run, process: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    arguments = ["render", model_file, images, "--sink", "tar", "--shard-size", 4]
    assert run(*arguments, "-o", tmp_path / "whole").code == 0
    size = (tmp_path / "whole" / "shard-000002.tar").stat().st_size

    # The last shard, of one image, would fit; the first, of four, does not.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    out = tmp_path / "out"
    result = process(*arguments, "-o", out, first=limit)
    result.assert_one_clear_line(
        f"cannot write {out / 'shard-000000.tar'}: File too large; ",
        "0 of 9 images are recorded, --resume goes on",
    )
    assert not files(out)
    assert run(*arguments, "-o", out, "--resume").code == 0
    assert content(out) == content(tmp_path / "whole")


# Takes from a process what lets the administrator write anywhere.
OBEY_PERMISSIONS = """
import ctypes
capset = ctypes.CDLL(None).capset
version_3 = 0x20080522
assert capset((ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()) == 0
"""


def test_permission_lost_is_one_line_that_says_how_to_go_on(
    run: Run, start: Start, slow_model: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "in", *(f"{index:03}.png" for index in range(60)))
    arguments = ["render", slow_model, tmp_path / "in", "--batch-size", 2, "--layers", 0]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    with start(*arguments, "-o", parts, first=OBEY_PERMISSIONS) as stopped:
        stopped.stdout.readline()
        parts.chmod(0o500)
        _, err = stopped.communicate()
        parts.chmod(0o700)
    assert stopped.returncode == 2, err
    done = len(records(parts))
    assert re.fullmatch(
        rf"actgrid: cannot make the folder {parts}/0\d\d: Permission denied; {done} of 60 images "
        r"are recorded, --resume goes on\n",
        err,
    )
    assert 1 <= done < 60
    assert run(*arguments, "-o", parts, "--resume").code == 0
    assert run(*arguments, "-o", whole).code == 0
    assert content(parts) == content(whole)


def test_a_place_that_cannot_be_written_is_one_line(
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
        (["--resume", "--overwrite"], ["resumed or overwritten, not both"]),
        (["--fit", "squeeze"], ["crop, pad, stretch"]),
        (["--size", "9x9"], ["takes an input of"]),
        (["--preprocess", "vgg"], ["VGG16"]),
        (["--layers", "convv"], ["did you mean conv"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_value_is_one_line_and_nothing_is_written(
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
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out")


def test_a_sink_that_is_none_is_told(
    run: Run, model_file: Path, images: Path, tmp_path: Path
) -> None:
    result = run("render", model_file, images, "-o", tmp_path / "out", "--sink", "tars")
    result.assert_one_clear_line(
        "--sink must be one of folders, tar, not 'tars'", "did you mean tar"
    )


def test_inputs_that_are_none_are_told(run: Run, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    for command in ("render", "measure"):
        for inputs, words in (
            ("none.jpg", "there is no image none.jpg"),
            (tmp_path / "*.jpg", "there is no image"),
            (tmp_path / "empty", "empty holds no images"),
            (tmp_path / "list.txt", "list.txt names no images"),
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


# --- the bar


def on_terminal(start: Start, *arguments: object, out: Any, columns: int) -> tuple[int, str]:
    """Run the command with standard error on a terminal, and return what that shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = start(*arguments, stdout=out, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:
        pass  # the end, on Linux
    os.close(ours)
    code: int = process.wait()
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_shows_a_bar_and_a_pipe_gets_the_lines(
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
    assert "0:00:00" in shown  # the time left is whole, however narrow the terminal
    assert re.search(r"\d\.\d images/s", shown)
    for stage in STAGES:
        assert re.search(rf"{stage}\s+\d\.\d", shown)
    assert "0.png" not in shown
    printed = lines.read_text().splitlines()
    assert len(printed) == 10
    assert printed[-1] == f"7 images, 2 failed: {tmp_path / 'out'}"
