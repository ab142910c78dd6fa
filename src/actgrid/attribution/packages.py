"""Optional packages of attribution methods: find and import them."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from actgrid.attribution.method import Method
from actgrid.errors import MissingDependencyError

__all__ = ["check_packages", "has_packages", "import_optional"]

# Module that each package provides, by the name of the package.
_MODULES = {"scikit-image": "skimage", "scikit-learn": "sklearn", "scipy": "scipy"}


def has_packages(method: Method) -> bool:
    """Return whether all packages of a method are installed."""
    return all(find_spec(_MODULES[package]) is not None for package in method.packages)


def check_packages(method: Method) -> None:
    """Raise MissingDependencyError unless all packages of a method are installed."""
    for package in method.packages:
        module = _MODULES[package]
        if find_spec(module) is None:
            raise _make_error(method.name, package, f"No module named {module!r}")


def import_optional(module: str, package: str, method: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module
        Full name of the module.
    package
        Name of the package, for the error.
    method
        Name of the method that needs the package, for the error.

    Raises
    ------
    MissingDependencyError
        If the module cannot be imported. Also an ImportError.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _make_error(method, package, error) from error


def _make_error(method: str, package: str, reason: object) -> MissingDependencyError:
    return MissingDependencyError(
        f"{method} needs {package} ({reason}); to get it, pip install 'actgrid[explain]'"
    )
