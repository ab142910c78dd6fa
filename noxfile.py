"""Sessions for developers: `nox -l` lists them."""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, formatting and the docstrings of public names."""
    session.install(".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "tests/docstrings.py")
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
def sanitize(session: nox.Session) -> None:
    """Run the core's tests with GCC's sanitizers: memory, undefined behaviour, data races."""
    session.install("cmake", "ninja", "pytest", "hypothesis", "ml_dtypes")
    settings = (
        "cmake.define.ACTGRID_SANITIZE=address,undefined",
        "cmake.build-type=RelWithDebInfo",
    )
    session.install(".", *(f"--config-settings={setting}" for setting in settings))
    # Python is linked with neither: the sanitizer must come first, and finds C++'s exceptions then.
    libraries = [
        str(session.run("c++", f"-print-file-name={name}", external=True, silent=True)).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    session.run(
        *("pytest", "tests/rendering", "tests/encoding"),
        # The sanitizer's report is to be seen, and not another one before it.
        *("--capture=sys", "-p", "no:faulthandler"),
        # The core alone: neither numba nor matplotlib is there. No fork: the sanitizer's allocator
        # stays locked in a child if another thread held its lock (the C++ tests fork).
        *("-k", "not (numba or every_backend or missing_backend or fork)"),
        "--ignore=tests/rendering/test_colormaps.py",
        *session.posargs,
        env={
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has until the end
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",  # where the sanitizer sees both ends of every object
        },
    )
    build = session.create_tmp()
    options = ["-DACTGRID_BINDINGS=OFF", "-DACTGRID_TESTS=ON", "-DACTGRID_SANITIZE=thread"]
    session.run("cmake", "-S", ".", "-B", build, "-G", "Ninja", *options)
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure against other ways of drawing."""
    session.install(".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)
