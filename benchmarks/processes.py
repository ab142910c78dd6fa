"""Benchmarks of whole processes: peak memory and start-up time."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from actgrid.bench import Prepare, Run
from benchmarks.suite import Group, Target
from benchmarks.workload import folder

__all__ = ["DEMO", "EXPLAIN_MEMORY", "IMAGES_MEMORY", "MEMORY", "START"]

# Activations of one image in MB.
_ACTIVATIONS_MB = 60.3
# Numbers of images to explain in batches of 32, and the size of an image in MB.
_FEW, _MANY = 64, 640
_IMAGE_MB = 224 * 224 * 3 * 4 / 1e6


def main() -> None:
    """Run the case that the command line names, and print the peak memory in bytes."""
    from benchmarks import explain, files, throughput

    cases: dict[str, Prepare] = {
        "forward": files.forward_photos,
        "actgrid": files.draw_photos,
        "explain few": partial(explain.explain_images, _FEW),
        "explain many": partial(explain.explain_images, _MANY),
        "images": lambda: partial(
            throughput.run_images,
            *("demo", "*_relu", int(sys.argv[2])),
            _print_memory,
            drawing={"format": "png"},
            top=9,
        ),
    }
    cases[sys.argv[1]]()()
    print(_read_memory("VmHWM"))


def _print_memory(images: int) -> None:
    if images % 100 == 0:
        print(images, _read_memory("VmRSS") // 10**6, "MB")


def _read_memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ImportError("this system does not report the memory of a process")


def prepare_peak_memory(case: str, *arguments: str) -> Callable[[], float]:
    if not Path("/proc/self/status").exists():
        raise ImportError("only Linux reports the peak memory of a process")
    command = [sys.executable, "-m", "benchmarks.processes", case, *arguments]

    def run() -> float:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(process.stdout.split()[-1]) / 1e6

    return run


def prepare_process(*arguments: str) -> Run:
    return partial(
        subprocess.run, [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True
    )


def count_extra_batches(ours: float, reference: float) -> float:
    return (ours - reference) / _ACTIVATIONS_MB


MEMORY = Group(
    "peak memory of a process, VGG16, 20 images",
    {
        "forward pass alone": partial(prepare_peak_memory, "forward"),
        "actgrid, image to files": partial(prepare_peak_memory, "actgrid"),
    },
    (
        Target(
            "memory above forward alone",
            "actgrid, image to files",
            "forward pass alone",
            1.5,
            compare=count_extra_batches,
            unit="batches",
        ),
    ),
    unit="MB",
)


def memory_per_input(many: float, few: float) -> float:
    return (many - few) / ((_MANY - _FEW) * _IMAGE_MB)


EXPLAIN_MEMORY = Group(
    "peak memory of a process, gradcam, 32 images at once",
    {
        f"{_FEW} images": partial(prepare_peak_memory, "explain few"),
        f"{_MANY} images": partial(prepare_peak_memory, "explain many"),
    },
    (
        # The array, the copy of TensorFlow, and the photos under the maps (a quarter).
        Target(
            "memory of more images over their size",
            f"{_MANY} images",
            f"{_FEW} images",
            3,
            compare=memory_per_input,
        ),
    ),
    unit="MB",
)

IMAGES_MEMORY = Group(
    "peak memory of a process, drawing and statistics of 33 layers, 8 images at once",
    {
        "100 images": partial(prepare_peak_memory, "images", "100"),
        "500 images": partial(prepare_peak_memory, "images", "500"),
    },
    (Target("memory of 500 images over that of 100", "500 images", "100 images", 1.1),),
    unit="MB",
)

START = Group(
    "start of a process",
    {
        "python -c pass": partial(prepare_process, "-c", "pass"),
        "python -c 'import actgrid'": partial(prepare_process, "-c", "import actgrid"),
        "actgrid --help": partial(prepare_process, "-m", "actgrid", "--help"),
    },
    (
        Target(
            "import above pass",
            "python -c 'import actgrid'",
            "python -c pass",
            150,
            compare=operator.sub,
            unit="ms",
        ),
        Target(
            "--help above pass",
            "actgrid --help",
            "python -c pass",
            300,
            compare=operator.sub,
            unit="ms",
        ),
    ),
)

DEMO = Group(
    "cold start",
    {
        "actgrid demo": lambda: prepare_process(
            "-m", "actgrid", "demo", "-o", str(folder() / "demo")
        )
    },
)

if __name__ == "__main__":
    main()
