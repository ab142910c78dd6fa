"""The folders keep to their order: data flows one way, and each room loads only what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import actgrid

PACKAGE = Path(actgrid.__file__).parent
# A room may import those before it; of the faces, at the end, nobody may import any.
ROOMS = [
    *("errors", "option_checks", "option_types", "option_groups", "options", "progress"),
    *("encoding", "rendering", "models"),
    *("attribution", "figures", "statistics", "runs", "demo", "bench"),
]
FACES = ["callbacks", "compat", "web", "cli"]


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "actgrid":
                yield from [parts[1]] if len(parts) > 1 else [name.name for name in node.names]
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("actgrid."):
                    yield name.name.split(".")[1]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_rooms_import_only_rooms_before_them(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    assert room in ROOMS + FACES
    allowed = {room, "_core"} | set(ROOMS if room in FACES else ROOMS[: ROOMS.index(room)])
    assert set(imported_rooms(path)) <= allowed


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Return the modules of the package that a file imports, also within functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        # What only type checkers read makes no circle.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            # A name may be a module of the package, or come from its __init__.
            found |= {
                name if (name := f"{node.module}.{each.name}") in known else node.module
                for each in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names} & known
    return found - {"actgrid"}


def test_no_files_import_each_other() -> None:
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    imports = {name: imported_modules(path, set(paths)) for name, path in paths.items()}
    # A module that imports none but those that are done is done.
    while done := {name for name, others in imports.items() if not others & set(imports)}:
        for name in done:
            del imports[name]
    assert not imports, f"these files import each other, or others that do: {sorted(imports)}"


def test_no_room_is_named_like_a_public_function() -> None:
    assert not set(actgrid.__all__) & {path.stem for path in PACKAGE.iterdir()}


def test_every_public_name_can_be_had() -> None:
    for name in actgrid.__all__:
        assert getattr(actgrid, name).__doc__
    assert set(actgrid.__all__) <= set(dir(actgrid))
    assert actgrid.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'rendr'"):
        actgrid.rendr  # noqa: B018


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"tensorflow", "keras", "numba", "matplotlib", "fastapi", "uvicorn"}


def test_importing_loads_nothing_heavy() -> None:
    assert not loaded_after("import actgrid") & (HEAVY | {"numpy", "PIL"})


def test_rendering_an_array_loads_nothing_heavy() -> None:
    code = "import actgrid, numpy as np; actgrid.render(np.ones((4, 4, 3))).to_png()"
    assert not loaded_after(code) & HEAVY


def loaded_after_command(*arguments: str) -> set[str]:
    return loaded_after(
        f"import actgrid.cli\ntry: actgrid.cli.main({list(arguments)})\nexcept SystemExit: pass"
    )


@pytest.mark.parametrize("command", ["render", "explain", "serve"])
def test_the_commands_help_loads_nothing_heavy(command: str) -> None:
    assert not loaded_after_command(command, "--help") & (HEAVY | {"numpy"})


def test_the_list_of_methods_loads_nothing_heavy() -> None:
    assert not loaded_after_command("explain", "--list") & (HEAVY | {"sklearn", "skimage"})
