"""Tests of commands: option definitions, help, usage errors, completion."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
import typer
from PIL import Image

import actgrid
from actgrid import options as definitions
from actgrid.cli import app as app_module
from actgrid.cli import commands
from actgrid.cli.app import app, find_commands
from actgrid.cli.command import Command, Options, command
from actgrid.models.image_sources import find_images
from actgrid.option_groups import UNSET, Option, get_options
from actgrid.option_types import Flag, Number

Run = Callable[..., Any]

COMMANDS: dict[str, Command] = dict(find_commands())
# Command -> Python function with the same defaults.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ablate": actgrid.ablate_channels,
    "attention": actgrid.extract_attention,
    "compare": actgrid.compare_methods,
    "compare-models": actgrid.compare_models,
    "concepts": actgrid.find_concepts,
    "diagram": actgrid.diagram,
    "evaluate": actgrid.evaluate,
    "explain": actgrid.explain,
    "export": actgrid.export_site,
    "layers": actgrid.list_layers,
    "maximize": actgrid.maximize,
    "measure": actgrid.measure_images,
    "patch-activations": actgrid.patch_activations,
    "render": actgrid.render_images,
    "render-weights": actgrid.render_weights,
    "residual-stream": actgrid.compute_logit_lens,
    "serve": actgrid.serve,
    "tcav": actgrid.measure_concept_sensitivity,
}
GENERAL = definitions.GeneralOptions
NEEDED = inspect.Parameter.empty
GROUPS = [group for group in vars(definitions).values() if hasattr(group, "__total__")]


def get_click_command(name: str) -> Any:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def get_option_parameters(name: str) -> dict[str, Any]:
    """Return the options in the parser of a command: name -> parameter."""
    parameters = get_click_command(name).params
    return {
        parameter.name: parameter
        for parameter in parameters
        if parameter.param_type_name == "option"
    }


def list_definitions(command: Command) -> Iterator[tuple[str, Option]]:
    """Yield (name, definition) for each option of a command."""
    yield from get_options(GENERAL).items()
    for panel in command.panels:
        yield from panel.options.items()


# --- agreement with the definitions


def test_list_of_commands() -> None:
    assert list(COMMANDS) == [
        *("ablate", "attention", "bench", "compare", "compare-models", "concepts", "demo"),
        *("diagram", "evaluate", "explain", "export", "info", "layers", "maximize", "measure"),
        *("patch-activations", "render", "render-weights", "residual-stream", "serve", "tcav"),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_definition(name: str) -> None:
    parameters = get_option_parameters(name)
    pairs = list(list_definitions(COMMANDS[name]))
    assert set(parameters) == {option for option, _ in pairs}
    for option_name, option in pairs:
        groups = [
            get_options(group)[option_name] for group in GROUPS if option_name in get_options(group)
        ]
        matches = [
            group for group in groups if (group.type, group.help) == (option.type, option.help)
        ]
        assert matches, option_name
        parameter = parameters[option_name]
        assert parameter.opts[0] == "--" + option_name.replace("_", "-")
        assert parameter.help.startswith(option.help)
        assert parameter.required == (option.default is NEEDED)
        assert parameter.default is None  # the definition, and not click, supplies the default
        shown = re.search(r"\(default: (.+)\)$", parameter.help)
        default = option.default
        if default is None and option.none:
            assert shown is not None
            assert shown[1] == option.none
        elif isinstance(option.type, Flag) or default in (NEEDED, UNSET, None, ()):
            assert shown is None
        else:
            assert shown is not None
            assert option.type.read(option_name, shown[1]) == default


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_those_of_the_python_function(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    compared = 0
    for option_name, option in list_definitions(COMMANDS[name]):
        if option_name not in parameters or option_name == "output":
            continue
        known = parameters[option_name].default
        if known is not NEEDED:
            assert option.default == known, option_name
            compared += 1
    assert compared > 1 or name == "layers"


def test_every_option_of_a_python_function_is_on_the_command_line() -> None:
    """Only `progress` is missing: a command shows a bar unless it is quiet."""
    missing = {}
    for name, function in FUNCTIONS.items():
        known = set(inspect.signature(function).parameters)
        missing[name] = known - set(get_option_parameters(name)) - {"model", "images", "progress"}
    assert missing == {
        "ablate": {"x"},
        "attention": {"x"},
        "compare": {"x", "methods", "metrics", "pixels"},
        "compare-models": {"a", "b"},
        "concepts": set(),
        "diagram": {"x", "sample"},
        "evaluate": {"x", "attributions", "metrics"},
        "explain": {"x", "image_input", "pixels"},
        "export": set(),
        "layers": {"x"},
        "maximize": set(),
        "measure": set(),
        "patch-activations": {"x", "source"},
        "render": set(),
        "render-weights": set(),
        "residual-stream": {"x"},
        "serve": {"ready"},
        "tcav": {"concept_images", "random_images"},
    }


class ExtraOptions(TypedDict, total=False):
    """Options for brightness."""

    gamma_value: Annotated[float, Option(Number(0, 9), 2.2, "Exponent of the levels.")]


@command(ExtraOptions)
def extra(options: Options) -> None:
    """Print the value of an option."""
    print(json.dumps(options.select(ExtraOptions)))


def test_new_definition_adds_an_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "find_commands", lambda: [("extra", extra), ("other", extra)])
    monkeypatch.setattr(sys.modules["actgrid.cli.main"], "app", app_module.make_app())
    printed = " ".join(run("extra", "--help").out.split())
    assert "Options for brightness" in printed
    assert re.search(r"--gamma-value NUMBER Exponent of the levels. \(default: 2.2\)", printed)
    assert run("extra").events == [{"gamma_value": 2.2}]
    assert run("extra", "--gamma-value", "3").events == [{"gamma_value": 3.0}]
    for wrong in ("x", "10"):
        result = run("extra", "--gamma-value", wrong)
        result.assert_one_clear_line("--gamma-value must be a number from 0 to 9, not ")


def test_new_file_adds_a_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "count_layers.py").write_text(
        "from actgrid.cli.arguments import Model\n"
        "from actgrid.cli.command import Options, command\n"
        "from actgrid.options import StatisticsOptions\n"
        "@command(StatisticsOptions)\n"
        "def count_layers(model: Model, options: Options) -> None:\n"
        "    '''Count.'''\n"
        "    print(model, options['top'])\n"
    )
    monkeypatch.setattr("actgrid.cli.commands.__path__", [*commands.__path__, str(tmp_path)])
    assert "count-layers" in dict(find_commands())
    monkeypatch.setattr(sys.modules["actgrid.cli.main"], "app", app_module.make_app())
    assert run("count-layers", "demo", "--top", 4).out == "demo 4\n"
    assert "count-layers" in run("--help").out
    sys.modules.pop("actgrid.cli.commands.count_layers")


def test_images_follow_the_model() -> None:
    arguments = {
        name: [
            parameter.name
            for parameter in get_click_command(name).params
            if parameter.param_type_name == "argument"
        ]
        for name in COMMANDS
    }
    assert arguments == {
        "ablate": ["model", "images"],
        "attention": ["model", "source"],
        "bench": [],
        "compare": ["model", "images"],
        "compare-models": ["model", "other_model", "images"],
        "concepts": ["model", "images"],
        "demo": [],
        "diagram": ["model", "image"],
        "evaluate": ["model", "images"],
        "explain": ["model", "images"],
        "export": ["model", "images"],
        "info": [],
        "layers": ["model"],
        "maximize": ["model"],
        "measure": ["model", "images"],
        "patch-activations": ["model", "sample", "source"],
        "render": ["model", "images"],
        "render-weights": ["model"],
        "residual-stream": ["model", "source"],
        "serve": ["model", "images"],
        "tcav": ["model", "images"],
    }


# --- conventions of command lines


@pytest.mark.parametrize("arguments", [["-V"], ["--version"], ["render", "-V"], ["bench", "-V"]])
def test_version_option_before_and_after_command(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.code, result.out, result.err) == (0, f"actgrid {actgrid.__version__}\n", "")


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_fits_into_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before = [] if name is None else [name]
    result = run(*before, "-h")
    assert (result.code, result.err) == (0, "")
    assert result.out == run(*before, "--help").out
    lines = result.out.splitlines()
    assert max(map(len, lines)) == 80
    assert "…" not in result.out  # no text is truncated
    if name is not None:
        titles = [panel.title for panel in COMMANDS[name].panels]
        found = re.findall(r"^╭─ (.+?) ─", result.out, re.M)
        assert [title for title in found if title in titles] == list(dict.fromkeys(titles))


def test_help_without_colours_and_with_closed_pipe(start: Callable[..., Any]) -> None:
    plain = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "", "COLUMNS": "80", "TERM": "xterm"}
    with start("render", "--help", env=plain) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    with start("render", "--help") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["render", "--zom", "2"], ["--zom (did you mean --zoom?)", "(see actgrid render --help)"]),
        (["serve", "m", "--image", "x"], ["unknown option --image", "see actgrid serve"]),
        (["--jsno"], ["unknown option --jsno", "(see actgrid --help)"]),
        (["measure"], ["Missing argument 'MODEL'", "(see actgrid measure --help)"]),
        (["render", "m", "i"], ["'--output' / '-o'", "(see actgrid render --help)"]),
        (["render", "m", "i", "-o"], ["requires an argument", "(see actgrid render --help)"]),
        (["stats", "m"], ["unknown command 'stats'", "(see actgrid --help)"]),
        (["maximise", "m"], ["'maximise' (did you mean maximize"]),
        (["layers", "m", "more"], ["more", "(see actgrid layers --help)"]),
    ],
)
def test_usage_errors_list_close_matches_and_help_command(
    run: Run, arguments: list[str], words: list[str]
) -> None:
    run(*arguments).assert_one_clear_line(*words)


def test_quiet_prints_only_errors_and_json(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    for arguments in (["-q", "layers", model_file], ["layers", model_file, "--quiet"]):
        result = run(*arguments)
        assert (result.code, result.out, result.err) == (0, "", "")
    printed = json.loads(run("layers", model_file, "-q", "--json").out)
    assert [layer["path"] for layer in printed][:2] == ["conv", "relu"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    command = ["render", model_file, photo, tmp_path / "in", "-o", tmp_path / "out"]
    result = run(*command, "-q")
    result.assert_one_clear_line(f"1 of 2 images failed: {tmp_path / 'out'}", code=1)
    assert result.out == ""
    assert (tmp_path / "out" / "cat" / "stats.json").exists()
    run("-q", "layers", "none.keras").assert_one_clear_line("no model file none.keras")


def test_verbose_prints_log_messages(
    run: Run, model_file: Path, photo: Path, tmp_path: Path
) -> None:
    command = ["measure", model_file, photo, "-o", tmp_path / "out"]
    assert run(*command).err == ""
    for general in (["-v", *command, "--resume"], [*command, "--resume", "--verbose"]):
        result = run(*general)
        assert result.code == 0
        assert result.err == f"actgrid: {tmp_path / 'out'}: 1 images are already recorded\n"
    assert run(*command, "--overwrite").err == ""


# --- the embedded photo


def test_demo_is_the_embedded_photo(run: Run, model_file: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("render", "measure")):
        out = tmp_path / str(number)
        result = run(name, model_file, "demo", "-o", out)
        assert (result.code, result.err) == (0, ""), result
        (record,) = (json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines())
        assert Path(record["image"]).parts[-2:] == ("demo", "cat.jpg")
    (printed,) = run("explain", model_file, "demo", "-o", tmp_path, "--json").events
    assert Path(printed["file"]).name == "cat_gradcam.png"
    run("diagram", model_file, "demo", "-o", tmp_path / "demo.png")
    run(
        "diagram",
        model_file,
        find_images("demo")[0],
        "-o",
        tmp_path / "d.png",
    )
    assert (tmp_path / "demo.png").read_bytes() == (tmp_path / "d.png").read_bytes()


def test_word_demo_takes_precedence_over_file(
    run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "demo" / "own.png")
    for images, names in (("demo", ["cat"]), ("./demo", ["own"])):
        assert run("render", model_file, images, "-o", "out", "--overwrite").code == 0
        assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == names
    assert "./demo for a file or folder called demo" in " ".join(
        run("render", "--help").out.replace("│", "").split()
    )


# --- completion


def complete_words(*words: str) -> list[str]:
    environment = {
        **os.environ,
        "_ACTGRID_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["actgrid", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", "import actgrid.cli; actgrid.cli.main([])"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ren"], ["render", "render-weights"]),
        (["render", "--batch"], ["--batch-size"]),
        (["render", "--scope", "l"], ["layer"]),
        (["render", "--order", "m"], ["mean", "max"]),
        (["explain", "--method", "gradc"], ["gradcam", "gradcam++"]),
        (
            ["explain", "--style", ""],
            ["overlay", "contours", "map", "slices", "animation", "bars"],
        ),
        (["export", "--method", "occ"], ["occlusion"]),
        (["render", "--cmap", "viri"], ["viridis"]),
    ],
)
def test_shells_complete_commands_options_and_words(words: list[str], found: list[str]) -> None:
    assert complete_words(*words) == found


def test_the_completion_of_a_shell_can_be_shown() -> None:
    code = f"{sys.executable} -c 'import actgrid.cli; actgrid.cli.main()' --show-completion; true"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert "_ACTGRID_COMPLETE=complete_bash" in done.stdout


def test_completion_can_be_installed(tmp_path: Path) -> None:
    code = (
        f"{sys.executable} -c 'import actgrid.cli; actgrid.cli.main()' --install-completion; true"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=home)
    assert done.stderr == ""
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_ACTGRID_COMPLETE=complete_bash" in script.read_text()
    assert script.name in (tmp_path / ".bashrc").read_text()


# --- the documentation

ROOT = Path(__file__).parents[2]
# tests/test_options.py checks docs/options.md, which also lists options of Python alone.
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "options.md"}),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_and_options_exist(document: Path) -> None:
    text = document.read_text().replace("\\\n", " ")
    for name, rest in re.findall(r"\bactgrid ([a-z-]+)([^`\n#]*)", text):
        flags = re.findall(r"(?<!\S)(--[a-z-]+)", rest)
        if not flags and name not in COMMANDS:
            continue  # prose
        assert name in COMMANDS, (name, rest)
        parameters = get_click_command(name).params
        known = {
            flag
            for parameter in parameters
            for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(flags) <= known | {"--help"}, (name, rest)
    for flag in set(re.findall(r"`(--[a-z-]+)", text)) - {"--help"}:
        assert any(
            flag in (*parameter.opts, *parameter.secondary_opts)
            for name in COMMANDS
            for parameter in get_click_command(name).params
        ), flag
