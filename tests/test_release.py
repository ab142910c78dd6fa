"""Tests that the files of a release agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SESSIONS = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE))


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def test_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    (newest, date), *_ = re.findall(r"^## (\d\S+) - (\S+)$", changelog, re.MULTILINE)
    assert newest == version
    assert str(citation["date-released"]) == date


def test_supported_versions_of_python_agree() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == versions[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"
    wheels = {name.removesuffix("-*") for name in PROJECT["tool"]["cibuildwheel"]["build"]}
    assert wheels == {f"cp{version.replace('.', '')}" for version in versions} | {"cp314t"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_existing_sessions(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["jobs"]
    for name in re.findall(r"nox -s ([a-z]+)", path.read_text("utf-8")):
        assert name in SESSIONS
    for job in workflow["jobs"].values():
        used = job.get("uses")
        assert used is None or (ROOT / used).exists()


def test_core_tests_of_the_wheel_exist() -> None:
    lines = (ROOT / "tests" / "core.txt").read_text().split("\n")
    paths = [line.removeprefix("--ignore=") for line in lines if "tests/" in line]
    assert len(paths) >= 2
    assert all((ROOT / path).exists() for path in paths)
    assert "@tests/core.txt" in PROJECT["tool"]["cibuildwheel"]["test-command"]


def test_files_name_no_package_registry() -> None:
    registries = ["py" + "pi.org", "registry.npm" + "js", "deb" + "ian.org", "anaconda" + ".org"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    paths = [ROOT / name for name in listed.stdout.split("\n") if name]
    if not paths:
        pytest.skip("the tests run without the repository")
    for path in paths:
        if path.is_file():
            content = path.read_bytes()
            assert not any(name.encode() in content for name in registries), path
