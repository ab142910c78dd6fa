"""Tests of the architecture: order of packages, imports, and public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docstrings import get_module_name

import actgrid

PACKAGE = Path(actgrid.__file__).parent
# A package may import earlier packages; no other package may import the last ones, the user
# interfaces.
PACKAGES = [
    *("errors", "option_checks", "option_types", "option_groups", "options", "progress"),
    *("encoding", "rendering", "models"),
    *(
        "targets",
        "attribution",
        "interventions",
        "evaluation",
        "figures",
        "statistics",
        "concepts",
        "runs",
    ),
    *("demo", "bench"),
]
INTERFACES = ["callbacks", "compat", "web", "cli"]


def find_imported_packages(path: Path) -> Iterator[str]:
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
def test_packages_import_only_earlier_packages(path: Path) -> None:
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if package in ("__init__", "__main__"):
        return
    assert package in PACKAGES + INTERFACES
    allowed = {package, "_core"} | set(
        PACKAGES if package in INTERFACES else PACKAGES[: PACKAGES.index(package)]
    )
    assert set(find_imported_packages(path)) <= allowed


def find_imported_modules(path: Path, known: set[str]) -> set[str]:
    """Return the modules of actgrid that a file imports, also within functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        # Imports for type checkers alone cannot be circular at run time.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            # An imported name can be a module of a package, or defined in its __init__.
            found |= {
                name if (name := f"{node.module}.{each.name}") in known else node.module
                for each in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names} & known
    return found - {"actgrid"}


def test_no_circular_imports() -> None:
    paths = {get_module_name(path): path for path in PACKAGE.rglob("*.py")}
    imports = {name: find_imported_modules(path, set(paths)) for name, path in paths.items()}
    # Remove modules whose imports are all removed; a circle remains.
    while done := {name for name, others in imports.items() if not others & set(imports)}:
        for name in done:
            del imports[name]
    assert not imports, f"these files import each other, or others that do: {sorted(imports)}"


def test_no_package_has_the_name_of_a_public_function() -> None:
    assert not set(actgrid.__all__) & {path.stem for path in PACKAGE.iterdir()}


def test_every_public_name_can_be_imported() -> None:
    for name in actgrid.__all__:
        assert getattr(actgrid, name).__doc__
    assert set(actgrid.__all__) <= set(dir(actgrid))
    assert actgrid.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'rendr'"):
        actgrid.rendr  # noqa: B018


def find_modules_loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"tensorflow", "keras", "numba", "matplotlib", "fastapi", "uvicorn"}


def test_import_loads_no_heavy_package() -> None:
    assert not find_modules_loaded_by("import actgrid") & (HEAVY | {"numpy", "PIL"})


def test_rendering_an_array_loads_no_heavy_package() -> None:
    code = "import actgrid, numpy as np; actgrid.render(np.ones((4, 4, 3))).to_png()"
    assert not find_modules_loaded_by(code) & HEAVY


def find_modules_loaded_by_command(*arguments: str) -> set[str]:
    return find_modules_loaded_by(
        f"import actgrid.cli\ntry: actgrid.cli.main({list(arguments)})\nexcept SystemExit: pass"
    )


@pytest.mark.parametrize("command", ["render", "explain", "serve"])
def test_help_loads_no_heavy_package(command: str) -> None:
    assert not find_modules_loaded_by_command(command, "--help") & (HEAVY | {"numpy"})


def test_list_of_methods_loads_no_heavy_package() -> None:
    assert not find_modules_loaded_by_command("explain", "--list") & (
        HEAVY | {"sklearn", "skimage"}
    )
