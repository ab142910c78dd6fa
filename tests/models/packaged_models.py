"""Real exported models, which a package contains."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

_PACKAGE = "basic-pitch"
_VERSION = "0.4.0"
_FOLDER = Path("basic_pitch", "saved_models", "icassp_2022")


def find_basic_pitch(tmp_path: Path) -> Path:
    """Return the folder of a network that finds the notes in sound, in several formats.

    It contains `nmp.tflite`, `nmp.onnx` and the SavedModel `nmp`. The package is downloaded into
    `tmp_path` if it is not installed, and the test is skipped if this fails.
    """
    spec = find_spec(_FOLDER.parts[0])
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent.joinpath(*_FOLDER.parts[1:])
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries=0"]
    wheel_options = ["--only-binary=:all:", "--timeout=10", f"--dest={tmp_path}"]
    try:
        subprocess.run(
            [*command, *wheel_options, f"{_PACKAGE}=={_VERSION}"],
            check=True,
            capture_output=True,
            timeout=60,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(f"the package {_PACKAGE} cannot be downloaded")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    return tmp_path / _FOLDER
