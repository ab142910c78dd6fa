"""Check the docstrings of public names with numpydoc.

Run as a script, this file prints what numpydoc finds.

Usage: python tests/docstrings.py [PREFIX ...], with prefixes such as ``actgrid.models``. Without a
prefix, all public names are checked.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import actgrid

SOURCE = Path(actgrid.__file__).parent
# numpydoc's optional sections, which are written only where they help: an extended summary, and
# "See Also".
OPTIONAL_SECTIONS = {"ES01", "SA01"}
# The example of a class shows its methods and properties; an error is not made by users.
NO_EXAMPLE = "EX01"


def get_module_name(path: Path) -> str:
    """Return the dotted name of the module or package of actgrid that a file defines."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def list_module_names() -> Iterator[str]:
    """Yield the dotted names of all modules of actgrid, sorted by path."""
    for path in sorted(SOURCE.rglob("*.py")):
        if path.stem != "__main__":
            yield get_module_name(path)


def list_package_names() -> Iterator[str]:
    """Yield the dotted names of all public packages of actgrid, sorted."""
    for path in sorted(SOURCE.rglob("__init__.py")):
        name = get_module_name(path)
        if "._" not in name:
            yield name


def list_public_objects() -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, object) for each public function and class.

    A name that several packages export is yielded once, under the first of them.
    """
    seen = set()
    for package_name in list_package_names():
        package = importlib.import_module(package_name)
        for name in getattr(package, "__all__", ()):
            value = getattr(package, name)
            if callable(value) and value.__module__.startswith("actgrid") and value not in seen:
                seen.add(value)
                yield f"{package_name}.{name}", value


def list_public_members(value: type) -> Iterator[str]:
    """Yield the names of the public methods and properties of a class."""
    for name, member in vars(value).items():
        is_method = inspect.isfunction(member) or isinstance(
            member, (property, classmethod, staticmethod)
        )
        if is_method and not name.startswith("_"):
            yield name


def find_faults(prefixes: tuple[str, ...] = ("actgrid",)) -> Iterator[str]:
    """Yield a line for each fault that numpydoc finds in docstrings of public names."""
    # numpydoc comes with actgrid[dev] alone.
    from numpydoc.validate import validate

    for name, value in list_public_objects():
        if not name.startswith(prefixes):
            continue
        is_error = inspect.isclass(value) and issubclass(value, Exception)
        ignored = OPTIONAL_SECTIONS | ({NO_EXAMPLE} if is_error else set())
        members = list_public_members(value) if inspect.isclass(value) else ()
        names = {name: ignored} | {
            f"{name}.{member}": OPTIONAL_SECTIONS | {NO_EXAMPLE} for member in members
        }
        for documented, codes in names.items():
            for code, message in validate(documented)["errors"]:
                if code not in codes:
                    yield f"{documented}: {code} {message}"


def main() -> int:
    """Print the faults of docstrings; return 1 if there are any."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = list(find_faults(tuple(sys.argv[1:]) or ("actgrid",)))
    print("\n".join(found) or "numpydoc finds no fault in the docstrings of public names")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
