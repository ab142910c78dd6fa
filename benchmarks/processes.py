"""What takes a process of its own: peak memory, and the time to start."""

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

# Of VGG16's 18 layers, one image.
_BATCH = 60.3
# Images to explain, 32 at once, and the size of one in MB.
_FEW, _MANY = 64, 640
_IMAGE = 224 * 224 * 3 * 4 / 1e6


def main() -> None:
    """Run what is named on the command line, and print this process's peak memory in bytes."""
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
    print(_memory("VmHWM"))


def _print_memory(images: int) -> None:
    if images % 100 == 0:
        print(images, _memory("VmRSS") // 10**6, "MB")


def _memory(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise ImportError("this system does not tell a process's memory")


def peak_memory(case: str, *arguments: str) -> Callable[[], float]:
    if not Path("/proc/self/status").exists():
        raise ImportError("only Linux tells a process's peak memory")
    command = [sys.executable, "-m", "benchmarks.processes", case, *arguments]

    def run() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1]) / 1e6

    return run


def started(*arguments: str) -> Run:
    return partial(
        subprocess.run, [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True
    )


def batches(ours: float, theirs: float) -> float:
    return (ours - theirs) / _BATCH


MEMORY = Group(
    "peak memory of a process, VGG16, 20 images",
    {
        "forward pass alone": partial(peak_memory, "forward"),
        "actgrid, image to files": partial(peak_memory, "actgrid"),
    },
    (
        Target(
            "memory above forward alone",
            "actgrid, image to files",
            "forward pass alone",
            1.5,
            how=batches,
            unit="batches",
        ),
    ),
    unit="MB",
    most_rounds=3,
)


def inputs(many: float, few: float) -> float:
    return (many - few) / ((_MANY - _FEW) * _IMAGE)


EXPLAIN_MEMORY = Group(
    "peak memory of a process, gradcam, 32 images at once",
    {
        f"{_FEW} images": partial(peak_memory, "explain few"),
        f"{_MANY} images": partial(peak_memory, "explain many"),
    },
    (
        # The array, TensorFlow's copy, and the pictures beneath the maps, a quarter of it.
        Target(
            "memory of more images over their size",
            f"{_MANY} images",
            f"{_FEW} images",
            3,
            how=inputs,
        ),
    ),
    unit="MB",
    most_rounds=1,
)

IMAGES_MEMORY = Group(
    "peak memory of a process, drawing and statistics of 33 layers, 8 images at once",
    {
        "200 images": partial(peak_memory, "images", "200"),
        "2,000 images": partial(peak_memory, "images", "2000"),
    },
    (Target("memory of 2,000 images over that of 200", "2,000 images", "200 images", 1.1),),
    unit="MB",
    most_rounds=1,
)

START = Group(
    "start of a process",
    {
        "python -c pass": partial(started, "-c", "pass"),
        "python -c 'import actgrid'": partial(started, "-c", "import actgrid"),
        "actgrid --help": partial(started, "-m", "actgrid", "--help"),
    },
    (
        Target(
            "import above pass",
            "python -c 'import actgrid'",
            "python -c pass",
            150,
            how=operator.sub,
            unit="ms",
        ),
        Target(
            "--help above pass",
            "actgrid --help",
            "python -c pass",
            300,
            how=operator.sub,
            unit="ms",
        ),
    ),
)

DEMO = Group(
    "cold start",
    {"actgrid demo": lambda: started("-m", "actgrid", "demo", "-o", str(folder() / "demo"))},
    most_rounds=3,
)

if __name__ == "__main__":
    main()
