"""Sessions for developers: `nox -l` lists them."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]

# With actgrid and its required dependencies, all that the tests of tests/core.txt need.
CORE_TEST_PACKAGES = ("pytest>=8.2", "hypothesis", "ml_dtypes")


@nox.session
def lint(session: nox.Session) -> None:
    """Run the checks of .pre-commit-config.yaml on all files."""
    session.install(".[dev]")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests with the newest releases of the dependencies."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml permits."""
    # Old releases of TensorBoard need pkg_resources.
    session.install("--resolution=lowest-direct", ".[test]", "setuptools>=70,<81")
    # Old releases use interfaces that later releases of their own dependencies deprecate.
    session.run("pytest", "-W", "default", *session.posargs)


@nox.session(venv_backend="uv")
def newest(session: nox.Session) -> None:
    """Run the tests with the newest versions of the dependencies, including pre-releases."""
    session.install("--prerelease=allow", "--upgrade", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the sdist and from it the wheel, and test the core of the installed wheel."""
    session.install("build", "twine", *CORE_TEST_PACKAGES)
    folder = Path(session.create_tmp())
    for old in folder.iterdir():
        old.unlink()
    session.run("python", "-m", "build", "--outdir", str(folder))
    session.run("twine", "check", "--strict", *map(str, folder.iterdir()))
    (built,) = map(str, folder.glob("*.whl"))
    if sys.platform == "linux":
        session.install("auditwheel")
        session.run("auditwheel", "show", built)
    # Without a compiler, as on the machines of users.
    session.install("--force-reinstall", built, env={"CXX": "no-compiler"})
    session.run("pytest", "@tests/core.txt", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in docs/_build/html."""
    session.install(".[docs]")
    site = Path("docs/_build/html")
    session.run(
        "sphinx-build", "--fail-on-warning", "--keep-going", "-b", "html", "docs", str(site)
    )
    session.run("python", "docs/check_site.py", str(site))


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run the core's tests with GCC's sanitizers: memory, undefined behaviour, data races."""
    session.install("cmake", "ninja", *CORE_TEST_PACKAGES)
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
        *("pytest", "@tests/core.txt"),
        # The sanitizer's report is to be seen, and not another one before it.
        *("--capture=sys", "-p", "no:faulthandler"),
        # The sanitizer's allocator stays locked in a child process if another thread held its lock
        # (the C++ tests fork).
        "--deselect=tests/rendering/test_backends.py::test_forked_child_renders",
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
