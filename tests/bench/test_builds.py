from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from actgrid.bench import Build, check_builds, get_this_build, open_build, start_worker
from actgrid.bench.builds import choose_processor
from actgrid.errors import BackendError, MissingFileError, OptionError

Copied = Callable[..., Path]

METADATA = "Metadata-Version: 2.1\nName: {0}\nVersion: 9.9\n"
TAGS = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
# A build backend without dependencies: it packs the files of its folder.
BACKEND = """
import zipfile
from pathlib import Path

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(Path(folder, "actgrid-9.9-py3-none-any.whl"), "w") as wheel:
        for file in [*Path("actgrid").rglob("*.*"), *Path("actgrid-9.9.dist-info").iterdir()]:
            wheel.write(file)
    return wheel.filename.rsplit("/", 1)[-1]
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def read_build_facts(build: Build) -> Any:
    with start_worker(build) as worker:
        return worker.describe()


def make_checkout(folder: Path, name: str = "actgrid") -> Path:
    info = folder / f"{name}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name))
    (info / "WHEEL").write_text(TAGS)
    (info / "RECORD").write_text("")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


def make_wheel(folder: Path, name: str = "actgrid") -> Path:
    wheel = folder.parent / f"{name}-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return wheel


def test_this_build_is_the_tested_package() -> None:
    facts = read_build_facts(get_this_build())
    assert Path(facts["folder"]) == get_this_build().folder
    assert facts["python"] == sys.version.split()[0]


def test_build_from_folder_of_package(copy_build: Copied) -> None:
    folder = copy_build("other", "__init__.py", "__version__ = '9.9'\n")
    with open_build(folder) as build:
        facts = read_build_facts(build)
    assert (facts["folder"], facts["version"]) == (str(folder), "9.9")
    assert facts["backend"] == read_build_facts(get_this_build())["backend"]


def test_wheel_and_checkout_are_installed_temporarily(copy_build: Copied, tmp_path: Path) -> None:
    checkout = make_checkout(copy_build("checkout"))
    # The installed package is imported, not the source folder.
    (checkout / "src").mkdir()
    (checkout / "actgrid").rename(checkout / "src" / "actgrid")
    (checkout / "backend.py").write_text(
        BACKEND.replace('"actgrid"', '"src/actgrid"', 1).replace(
            "wheel.write(file)", 'wheel.write(file, str(file).removeprefix("src/"))'
        )
    )
    wheel = copy_build("wheel")
    for path in (checkout, make_wheel(make_checkout(wheel))):
        with open_build(path) as build:
            facts = read_build_facts(build)
            assert build.folder is not None
            assert Path(facts["folder"]) == build.folder.resolve()
            assert facts["version"] == "9.9"
        assert not build.folder.exists()


def test_build_from_environment_and_interpreter(copy_build: Copied, tmp_path: Path) -> None:
    other = copy_build("other", "__init__.py", "__version__ = '9.9'\n")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "others.pth").write_text("\n".join([str(other), *filter(None, sys.path)]))
    for path in (environment, environment / "bin" / "python"):
        with open_build(path) as build:
            assert build.python == str(environment / "bin" / "python")
            assert read_build_facts(build)["folder"] == str(other)


def test_path_that_is_no_build_is_rejected(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingFileError, match="none: no such file or folder; expected a wheel, a"),
        open_build(tmp_path / "none"),
    ):
        pass
    with (
        pytest.raises(OptionError, match="is not a build of actgrid; expected a wheel, a checkout"),
        open_build(tmp_path),
    ):
        pass


def test_failed_installation_reports_reason(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text("def build_wheel(*_): raise OSError('no compiler')")
    wheel = tmp_path / "actgrid-9.9-py3-none-any.whl"
    wheel.write_bytes(b"")
    for path, message in {
        tmp_path: "OSError: no compiler",
        wheel: "ERROR: Wheel .* is invalid",
    }.items():
        with (
            pytest.raises(OptionError, match=f"{path.name} cannot be installed: {message}"),
            open_build(path),
        ):
            pass


def test_wheel_of_another_package_is_rejected(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wheel = make_wheel(make_checkout(other, "othergrid"), "othergrid")
    with pytest.raises(OptionError, match="is a package other than actgrid"), open_build(wheel):
        pass


def test_failed_import_of_build_reports_reason(copy_build: Copied) -> None:
    other = copy_build("other", "__init__.py", "raise RuntimeError('bent')\n")
    with pytest.raises(OptionError, match=r"other cannot be timed: RuntimeError: bent"):
        read_build_facts(Build(sys.executable, other))


def test_interpreter_without_actgrid_is_rejected(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(OptionError, match="cannot be timed: ModuleNotFoundError: No module"):
        read_build_facts(Build(str(tmp_path / "bare" / "bin" / "python")))


def test_package_that_shadows_build_is_rejected(copy_build: Copied) -> None:
    hiding = copy_build("hiding")
    code = f"__file__ = {str(hiding / 'actgrid' / '__init__.py')!r}\n"
    other = copy_build("other", "__init__.py", code)
    with pytest.raises(OptionError, match=r"other cannot be imported: .*hiding takes precedence"):
        read_build_facts(Build(sys.executable, other))


def test_cases_that_other_build_lacks_are_listed(copy_build: Copied) -> None:
    code = "\ndel palette\n"
    with open_build(copy_build("other", "rendering/__init__.py", code)) as other:
        assert check_builds(other, get_this_build(), ["encode", "percentiles"]) == {
            "encode": "ImportError: cannot import name 'palette' from 'actgrid.rendering' "
            f"({other.folder}/actgrid/rendering/__init__.py)"
        }
        with pytest.raises(OptionError, match="cannot run any of the cases: ImportError"):
            check_builds(other, get_this_build(), ["encode"])
        with pytest.raises(BackendError, match="cannot import name 'palette'"):
            check_builds(get_this_build(), other, ["encode"])


@pytest.mark.skipif(
    read_build_facts(get_this_build())["backend"] != "native", reason="the C++ core was not built"
)
def test_builds_that_draw_differently_are_not_compared(copy_build: Copied) -> None:
    folder = copy_build("other")
    for core in (folder / "actgrid").glob("_core.*"):
        core.unlink()
    with pytest.raises(
        OptionError, match=r"backend of the other build is num.*, of this build native"
    ):
        check_builds(Build(sys.executable, folder), get_this_build(), ["encode"])


@pytest.mark.skipif(sys.platform != "linux", reason="processes cannot be bound")
def test_processes_of_a_round_share_a_processor() -> None:
    assert {choose_processor() for _ in range(200)} == os.sched_getaffinity(0)
    processor = min(os.sched_getaffinity(0))
    with start_worker(get_this_build(), processor) as worker:
        assert os.sched_getaffinity(worker.process.pid) == {processor}
        worker.describe()
        assert 1e-6 < worker.time("measure, 7 px") < 0.1


def test_ended_worker_process_is_reported() -> None:
    with start_worker(get_this_build()) as worker:
        worker.describe()
        worker.process.kill()
        for _ in range(2):
            with pytest.raises(OptionError, match="cannot be timed: exit code -9"):
                worker.time("encode")


def test_worker_processes_are_ended() -> None:
    with ExitStack() as opened:
        worker = opened.enter_context(start_worker(get_this_build()))
        worker.describe()
        assert worker.process.poll() is None
    assert worker.process.returncode == -9


def test_measure_finds_doubled_work_only(copy_build: Copied) -> None:
    """Compare this build with a build that encodes each PNG file twice."""
    code = (
        "\n_encode_once = encode_png\n"
        "def encode_png(*arguments, **options):\n"
        "    _encode_once(*arguments, **options)\n"
        "    return _encode_once(*arguments, **options)\n"
    )
    slow = copy_build("slow", "encoding/__init__.py", code)
    command = [sys.executable, "-m", "actgrid", "bench", "--quick", "--json", "--against"]
    done = subprocess.run(
        [*command, str(get_this_build().folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(slow), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert report["slower"] == ["encode"]
    assert report["skipped"] == {}
    assert 1.7 < report["cases"]["encode"]["ratio"] < 2.3
    assert len(report["cases"]) == 21
