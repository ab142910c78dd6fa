"""Print one table: every way of drawing VGG16's activations, measured in one run."""

from __future__ import annotations

import argparse
import io
import os
import platform
import warnings
from collections.abc import Callable, Collection
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

import actgrid
from actgrid.rendering import BACKENDS
from benchmarks.measuring import Case, medians, peak_memory
from benchmarks.workload import COLUMNS, Activations, textbook, vgg16


def drawing_cases(activations: Activations) -> dict[str, Case]:
    def draw(backend: str, threads: int) -> list[actgrid.Grid]:
        return [
            actgrid.render(x, columns=COLUMNS, padding=0, backend=backend, threads=threads)
            for x in activations.values()
        ]

    def book() -> Callable[[], object]:
        copies = [x.copy() for x in activations.values()]  # it overwrites them
        return lambda: [textbook(x) for x in copies]

    def case(backend: str, threads: int) -> Case:
        return lambda: partial(draw, backend, threads)

    cases: dict[str, Case] = {"textbook loop": book}
    for backend in reversed(BACKENDS):
        cases[f"{backend}, 1 thread"] = case(backend, 1)
    cases["native, 2 threads"] = case("native", 2)
    return cases


def pillow_png(grid: actgrid.Grid, **options: int) -> bytes:
    buffer = io.BytesIO()
    grid.to_image().save(buffer, "PNG", **options)
    return buffer.getvalue()


def encoding_cases(grids: Collection[actgrid.Grid]) -> dict[str, Case]:
    return {
        "Pillow PNG, default": lambda: lambda: [pillow_png(grid) for grid in grids],
        "Pillow PNG, level 1": lambda: (
            lambda: [pillow_png(grid, compress_level=1) for grid in grids]
        ),
        "actgrid PNG": lambda: lambda: [grid.to_png() for grid in grids],
    }


def add_rows(table: Table, seconds: dict[str, float], yardstick: str) -> None:
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{seconds[yardstick] / value:.1f}x")
    table.add_section()


def print_memory(console: Console, activations: Activations) -> None:
    largest = max(activations.values(), key=lambda x: x.size)
    for backend in BACKENDS:
        draw = partial(actgrid.render, largest, columns=COLUMNS, padding=0, backend=backend)
        canvas = draw().levels.nbytes
        peak = peak_memory(draw)
        if peak is not None:
            console.print(
                f"peak memory above the input, {backend}: {peak / 1e6:.1f} MB, "
                f"{peak / canvas:.2f} canvases"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each case (default: 9)")
    rounds = parser.parse_args().rounds

    warnings.simplefilter("ignore", RuntimeWarning)  # the textbook loop divides by zero
    extractor, batch, activations = vgg16()
    grids = actgrid.render_model(extractor, batch, columns=COLUMNS, padding=0)
    channels = sum(x.shape[-1] for x in activations.values())
    megabytes = sum(x.nbytes for x in activations.values()) / 1e6
    table = Table(
        "", "ms", "speed-up", title=f"VGG16, 18 layers, {channels:,} channels, {megabytes:.1f} MB"
    )
    forward: Case = lambda: partial(extractor, batch)  # noqa: E731
    drawn = medians({"forward pass": forward} | drawing_cases(activations), rounds)
    add_rows(table, drawn, "textbook loop")
    add_rows(table, medians(encoding_cases(grids.values()), rounds), "Pillow PNG, default")
    console = Console()
    console.print(table)
    ours = sum(len(grid.to_png()) for grid in grids.values())
    theirs = sum(len(pillow_png(grid)) for grid in grids.values())
    console.print(f"PNG size against Pillow's default: {ours / theirs:.2f}")
    print_memory(console, activations)
    console.print(f"{platform.machine()}, {os.cpu_count()} processors, {rounds} rounds, medians")


if __name__ == "__main__":
    main()
