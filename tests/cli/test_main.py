"""Tests of all commands: arguments, errors, interruption, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import actgrid

Result = Any  # the class in conftest.py, which tests cannot import
Run = Callable[..., Result]


# --- search path of modules, empty and huge arguments ---

HOSTILE = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch(); raise SystemExit(9)"
LIBRARIES = ("h5py", "keras", "numpy", "orjson", "PIL", "rich", "tensorflow", "typer", "json")


def test_modules_in_the_current_folder_never_replace_libraries(tmp_path: Path) -> None:
    """Only the module that a model specification names is imported from the folder."""
    for name in LIBRARIES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "own_nets.py").write_text(
        "import keras\n\ndef make():\n    return keras.Sequential([keras.Input((4,), name='x'), "
        "keras.layers.Dense(2, name='own')])\n"
    )
    command = [sys.executable, "-m", "actgrid", "layers", "own_nets:make", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [layer["path"] for layer in json.loads(done.stdout)] == ["own"]
    assert not list(tmp_path.glob("*.ran"))


def test_a_model_file_leaves_the_module_path_alone(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    assert run("layers", model_file).code == 0
    assert sys.path == before
    run("layers", "nets_of_nobody:make").assert_one_clear_line("no module 'nets_of_nobody'")
    assert sys.path == [*before, str(tmp_path)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "{model}", "{photo}", "-o", ""],
        ["render", "{model}", "{photo}", "--output="],
        ["render", "{model}", "", "-o", "out"],
        ["render", "{model}", "{photo}", "", "-o", "out"],
        ["render", "", "{photo}", "-o", "out"],
        ["measure", "{model}", "{photo}", "--output", ""],
        ["explain", "{model}", "{photo}", "-o", ""],
        ["explain", "{model}", "{photo}", "-o", "out", "--labels", ""],
        ["diagram", "{model}", "-o", ""],
        ["diagram", "{model}", "", "-o", "a.png"],
        ["render-weights", "{model}", "--output="],
        ["maximize", "{model}", "--layer", "conv", "-o", ""],
        ["export", "{model}", "{photo}", "-o", ""],
        ["export", "{model}", "{photo}", "-o", "site", "--statistics", ""],
        ["serve", "{model}", ""],
        ["serve", "{model}", "--token="],
        ["demo", "-o", ""],
        ["bench", "--save", ""],
    ],
    ids=" ".join,
)
def test_empty_argument_is_rejected(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    (tmp_path / "image.jpg").write_bytes(photo.read_bytes())
    monkeypatch.chdir(tmp_path)
    places = {"model": model_file, "photo": photo}
    result = run(*(argument.format(**places) for argument in arguments))
    result.assert_one_clear_line("is empty: is a shell variable not set?")
    assert [file.name for file in tmp_path.iterdir()] == ["image.jpg"]


@pytest.mark.parametrize("number", ["1000000", "1000000000", "1" + "0" * 30])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "{model}", "{photo}", "-o", "{out}", "--zoom"], "--zoom must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--padding"], "--padding must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--background"], "--background must be "),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order"], "channel"),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size"], "size must be "),
        (["measure", "{model}", "{photo}", "-o", "{out}", "--top"], "--top must be "),
        (["explain", "{model}", "{photo}", "-o", "{out}", "--size"], "size must be "),
        (["explain", "{model}", "{photo}", "-o", "{out}", "--target"], "no class"),
        (["diagram", "{model}", "-o", "{out}.png", "--side"], "--side must be "),
        (["render-weights", "{model}", "-o", "{out}", "--zoom"], "--zoom must be "),
        (
            ["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--padding"],
            "--padding must be ",
        ),
        (["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--channels"], "channel"),
        (["maximize", "{model}", "--layer", "conv", "-o", "{out}.png", "--size"], "size must be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_huge_numbers_are_rejected_in_one_line(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    number: str,
) -> None:
    out = tmp_path / "out"
    places = {"model": model_file, "photo": photo, "out": out}
    result = run(*(argument.format(**places) for argument in arguments), number)
    result.assert_one_clear_line(words)
    assert "shows where" not in result.err
    assert not out.exists() or not [file for file in out.rglob("*") if file.is_file()]


def test_picture_of_unsupported_size_is_rejected(run: Run, photo: Path, tmp_path: Path) -> None:
    wide = ["render", "demo", photo, "-o", tmp_path / "out", "--layers", "stem_conv"]
    result = run(*wide, "--zoom", 1024)
    result.assert_one_clear_line("a picture of 693,248 x 693,248 pixels is too large")


# --- help and usage ---


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in ("demo", "layers", "info", "render", "explain", "bench"):
        assert re.search(rf"\b{command}\b", result.out)
        assert run(command, "--help").code == 0
    text = re.sub(r"[^a-z]+", " ", run("render", "--help").out)
    assert "default every layer with a spatial output" in text
    bare = run()
    assert (bare.code, bare.err) == (0, "")
    assert bare.out.strip() == result.out.strip()


def test_version(run: Run) -> None:
    assert run("--version").out == f"actgrid {actgrid.__version__}\n"


def test_closed_output_pipe_is_not_an_error(start: Callable[..., Any]) -> None:
    with start("layers", "demo") as process:
        # The remaining output exceeds the buffer of a pipe, or is written later.
        assert process.stdout.read(5) == "index"
        process.stdout.close()
        assert process.stderr.read() == ""


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rendr"], ["unknown command 'rendr' (did you mean render", "see actgrid --help"]),
        (["render", "{model}", "{photo}"], ["Missing option", "--output"]),
        (["render", "{model}", "-o", "{out}"], ["Missing argument"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--zoom", "x"], ["--zoom"]),
        (["layers", "nope.keras"], ["no model file nope.keras"]),
        (["layers", "keras:VGG61"], ["no model 'VGG61'", "VGG16"]),
        (["layers", "demoo"], ["'demoo' is not a model", "did you mean demo"]),
        (["layers", "nowhere:build"], ["no module 'nowhere'"]),
        (["layers", "{photo}"], ["cat.jpg is not a Keras model file"]),
        (["render", "{model}", "no.jpg", "-o", "{out}"], ["no image no.jpg"]),
        (["render", "{model}", "{model}", "-o", "{out}"], ["small.keras is not an image"]),
        (["render", "{model}", "{cut}", "-o", "{out}"], ["cut.jpg is truncated"]),
        (
            ["render", "{model}", "{photo}", "-o", "{out}", "--layers", "convv"],
            ["'convv'", "did you mean conv"],
        ),
        (
            ["render", "{model}", "{photo}", "-o", "{out}", "--layers", "9"],
            ["got 9; the model has"],
        ),
        (["render", "{model}", "{photo}", "-o", "{out}", "--cmap", "virids"], ["viridis"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--normalize", "z"], ["minmax"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--scope", "all"], ["'all'"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "-1"], ["--order"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "99"], ["channel 99"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--order", "5-3,1"], ["5-3,1"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "0x0"], ["--size"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--compression", "z"], ["fast, small"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--format", "exe"], ["'exe'"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "big"], ["--size", "HxW"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--size", "9x9"], ["takes an input of"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--preprocess", "vgg"], ["VGG16"]),
        (["render", "{model}", "{photo}", "-o", "{out}", "--backend", "gpu"], ["'gpu'"]),
        (
            ["render", "{model}", "{photo}", "-o", "{out}", "--backend", "tensorflow"],
            ["auto, native, numba, numpy, not 'tensorflow'"],
        ),
        (["render", "{model}", "{photo}", "-o", "{out}", "--batch-size", "0"], ["at least 1"]),
        (["render", "{model}", "{photo}", "-o", "{photo}/out"], ["cannot make the folder"]),
        (["demo", "-o", "/sys/actgrid"], ["cannot make the folder /sys/actgrid"]),
        (["render", "keras:VGG16", "{photo}", "-o", "{out}", "--weights", "w.h5"], ["w.h5"]),
        (["layers", "{lambda}"], ["Lambda", "--no-safe-mode"]),
        (["explain"], ["MODEL, IMAGE and --output are required", "--list"]),
        (["explain", "{model}", "{photo}"], ["--output"]),
        (["explain", "{model}", "{cut}", "-o", "{out}"], ["cut.jpg is truncated"]),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--target", "4"],
            ["no class 4", "0 to 3"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--target", "cat"],
            ["names of the model's classes are not known", "labels"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--labels", "{cut}.txt"],
            ["labels must name the model's 4 classes, not 1"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--layer", "convv"],
            ["'convv'", "did you mean conv"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--layer", "flat"],
            ["no height and width"],
        ),
        (
            ["explain", "{model}", "{photo}", "-o", "{out}", "--method", "cam"],
            ["global average"],
        ),
        (
            [
                "explain",
                "{model}",
                "{photo}",
                "-o",
                "{out}",
                "--method",
                "rise",
                "--keep-probability",
                "2",
            ],
            ["--keep-probability must be a number from 0 to 1"],
        ),
        (
            ["explain", "demo", "{photo}", "-o", "{out}", "--target", "Egyptian dog"],
            ["'Egyptian dog'", "Egyptian cat"],
        ),
        (["bench", "--against", "none.json"], ["no file none.json", "see actgrid bench --save"]),
        (["bench", "--against", "none"], ["none: no such file or folder", "a wheel, a checkout"]),
        (["bench", "--against", "{photo}"], ["cat.jpg is not a build of actgrid", "a wheel, a"]),
        (["bench", "--against", "x.json", "--save", "y.json"], ["--save", "--against", "one of"]),
        (["bench", "--save", "{photo}/x.json"], ["cannot make the folder"]),
        (["bench", "--tolerance", "-1"], ["--tolerance must be a number of at least 0, not -1"]),
        (["bench", "--tolerance", "nan"], ["--tolerance", "nan"]),
        (["bench", "--rounds", "0"], ["--rounds"]),
        (["layers", "os:rename"], ["os:rename requires 2 arguments", "a function that takes no"]),
        (["layers", "builtins:exit"], ["builtins:exit raised SystemExit"]),
        (["layers", "{cut}"], ["cut.jpg is not a Keras model file", "neither a zip archive"]),
        (["render", "{model}", "{photo}", "-o", "ftp://localhost:1/x"], ["ftp://localhost:1/x"]),
        (["render", "{model}", "{photo}", "-o", "nowhere://x"], ["Protocol not known: nowhere"]),
        (["render", "{model}", "http://localhost/a.png", "-o", "{out}"], ["there is no image"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_arguments_print_one_line_and_write_no_file(
    run: Run,
    model_file: Path,
    photo: Path,
    tmp_path: Path,
    arguments: list[str],
    words: list[str],
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:5000])
    (tmp_path / "cut.jpg.txt").write_text("cat\n")
    code = tmp_path / "lambda.keras"
    if "{lambda}" in arguments:
        keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(code)
    out = tmp_path / "out"
    places = {"model": model_file, "photo": photo, "cut": cut, "out": out, "lambda": code}
    result = run(*(argument.format(**places) for argument in arguments))
    result.assert_one_clear_line(*words)
    assert not out.exists() or not [file for file in out.rglob("*") if file.is_file()]


def test_lambda_model_loads_without_safe_mode(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lambda.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    assert run("layers", path, "--no-safe-mode").code == 0


def test_full_disk_prints_one_line_and_leaves_no_partial_file(
    process: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    arguments = ["render", model_file, photo, "-o", tmp_path / "out"]
    small = process(*arguments, "--layers", "pool", first=limit)
    assert small.code == 0, small
    assert {path.name for path in (tmp_path / "out" / "cat").iterdir()} == {
        "00_pool.png",
        "stats.json",
    }
    large = ["--layers", "conv", "--zoom", 40, "--overwrite"]
    result = process(*arguments, *large, first=limit)
    result.assert_one_clear_line("cannot write", "00_conv.png", "File too large")
    assert not (tmp_path / "out" / "cat").exists()


def test_unexpected_error_prints_one_line_and_verbose_prints_traceback(
    run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("so\nsorry")

    monkeypatch.setattr("actgrid.models.list_layers", fail)
    result = run("layers", model_file)
    result.assert_one_clear_line("RuntimeError: so sorry", "actgrid -v shows where")
    for traced in (run("-v", "layers", model_file), run("layers", model_file, "--verbose")):
        assert "Traceback" in traced.err
        assert traced.err.endswith("RuntimeError: so sorry (actgrid -v shows where)\n")


def test_interrupt_prints_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("actgrid.rendering.find_backend_problems", interrupt)
    result = run("info")
    assert result.code == 130
    assert result.err == "actgrid: interrupted\n"
