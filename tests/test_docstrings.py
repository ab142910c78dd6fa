"""Tests that the examples in docstrings run and print the shown output."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.docstrings import list_module_names

import actgrid

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def find_examples(module_name: str) -> Iterator[doctest.DocTest]:
    """Yield the examples of a module, including decorated functions and methods."""
    module = importlib.import_module(module_name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    # A docstring assumes that its reader has imported actgrid, and NumPy as np.
    names = {**vars(module), "actgrid": actgrid, "np": np}
    yield doctest.DocTestParser().get_doctest(
        module.__doc__ or "", dict(names), module_name, module.__file__, 0
    )
    for name, value in vars(module).items():
        is_documented = inspect.isclass(value) or callable(value)
        if is_documented and getattr(value, "__module__", "") == module_name:
            yield from finder.find(value, f"{module_name}.{name}", module=False, globs=dict(names))


@pytest.mark.parametrize("module_name", sorted(list_module_names()))
def test_examples_in_docstrings(
    module_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for examples in find_examples(module_name):
        runner.run(examples, out=report.append)
    assert not runner.failures, "".join(report)
