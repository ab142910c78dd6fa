"""Sessions for developers: `nox -l` lists them."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and formatting."""
    session.install(".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    sources = sorted(str(path) for path in Path("cpp").rglob("*.[ch]pp"))
    session.run("clang-format", "--dry-run", "--Werror", *sources)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests with the newest TensorFlow."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest TensorFlow, Keras and NumPy."""
    session.install(".[test]", "tensorflow==2.16.*", "keras==3.10.*", "numpy==1.26.*")
    session.run("pytest", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure against other ways of drawing, and against the figures that were kept."""
    session.install(".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)
    session.run("actgrid", "bench", "--against", "benchmarks/baseline.json")
