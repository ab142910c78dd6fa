"""What the commands print."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from actgrid.attribution import Maximization
from actgrid.attribution.comparison import target_texts
from actgrid.attribution.methods import all_methods
from actgrid.bench import Figure
from actgrid.figures import DrawnLayer, DrawnWeight
from actgrid.models import LayerInfo
from actgrid.models.preprocessing import Preprocessing
from actgrid.rendering import Diagram, Heatmap

__all__ = [
    "PACKAGES",
    "as_dict",
    "diagram_as_dict",
    "figures_as_dict",
    "heatmap_as_dict",
    "maximization_as_dict",
    "preprocessing_as_dict",
    "print_diagram",
    "print_facts",
    "print_figures",
    "print_heatmap",
    "print_infos",
    "print_layers",
    "print_maximization",
    "print_methods",
    "print_place",
    "print_preprocessing",
    "print_top",
    "print_weights",
    "slower_cases",
    "weights_as_dict",
]

PACKAGES = ("tensorflow", "keras", "numpy", "numba", "pillow", "isal", "cmap")


def _console() -> Console:
    # In a pipe there is no width to fit into: rows stay whole for grep and awk.
    width = None if sys.stdout.isatty() else 10_000
    # Layer paths may hold brackets, which are no markup.
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if side is None else str(side) for side in shape)


def print_layers(drawn: list[DrawnLayer]) -> None:
    """Print a table of drawn layers."""
    table = _table(
        "layer", "type", "shape", "channels", "dead", "ms", right=("channels", "dead", "ms")
    )
    for layer in drawn:
        table.add_row(
            layer.info.path,
            layer.info.type,
            _shape(layer.shape),
            str(layer.channels),
            str(layer.dead),
            f"{layer.milliseconds:.2f}",
        )
    _console().print(table)


def print_preprocessing(found: Preprocessing) -> None:
    """Print what is done to pixels before the model gets them, and why."""
    advice = "; --preprocess says otherwise" if found.is_assumed else ""
    print(f"preprocessing: {found.describe()}{advice}")


def preprocessing_as_dict(found: Preprocessing) -> dict[str, Any]:
    """Return what is done to pixels before the model gets them, for JSON."""
    return {"name": found.name, "reason": found.reason, "assumed": found.is_assumed}


def print_weights(folder: Path, drawn: list[DrawnWeight]) -> None:
    """Print a table of drawn weights, and where the pictures are."""
    table = _table("weight", "type", "shape", "min", "max", "ms", right=("min", "max", "ms"))
    for one in drawn:
        numbers = (f"{one.min:.3g}", f"{one.max:.3g}", f"{one.milliseconds:.2f}")
        table.add_row(one.path, one.type, _shape(one.shape), *numbers)
    _console().print(table)
    print(f"\n{len(drawn)} weight{'s' if len(drawn) != 1 else ''}: {folder.resolve()}")


def weights_as_dict(folder: Path, drawn: list[DrawnWeight]) -> dict[str, Any]:
    """Return which weights were drawn, for JSON."""
    rounded = [asdict(one) | {"milliseconds": round(one.milliseconds, 3)} for one in drawn]
    return {"folder": str(folder), "weights": [one | {"file": one["file"].name} for one in rounded]}


def print_maximization(file: Path, found: Maximization) -> None:
    """Print a table of channels and what they were brought to, and where the picture is."""
    numbers = ("channel", "initial", "activation")
    table = _table(*numbers, right=numbers)
    rows = zip(found.channels, found.initial_activations, found.activations, strict=True)
    for channel, initial, activation in rows:
        table.add_row(str(channel), f"{initial:.3f}", f"{activation:.3f}")
    _console().print(table)
    print(
        f"\n{found.layer}, {len(found)} channel{'s' if len(found) != 1 else ''}: {file.resolve()}"
    )


def maximization_as_dict(file: Path, found: Maximization) -> dict[str, Any]:
    """Return what channels were brought to, for JSON."""
    channels = [
        {
            "channel": int(channel),
            "initial_activation": float(initial),
            "activation": float(activation),
        }
        for channel, initial, activation in zip(
            found.channels, found.initial_activations, found.activations, strict=True
        )
    ]
    return {"layer": found.layer, "file": str(file), "channels": channels}


def print_diagram(file: Path, drawn: Diagram) -> None:
    """Print how many boxes of which types there are, and where the picture is."""
    counts = Counter(box.type for box in drawn.boxes)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"\n{len(drawn)} boxes: {file.resolve()}")


def diagram_as_dict(file: Path, drawn: Diagram) -> dict[str, Any]:
    """Return the boxes of a diagram, for JSON."""
    boxes = [{"name": box.name, "type": box.type, "shape": list(box.shape)} for box in drawn.boxes]
    return {"file": str(file), "boxes": boxes}


def print_infos(infos: list[LayerInfo]) -> None:
    """Print a table of a model's layers."""
    numbers = ("index", "channels", "parameters")
    table = _table(
        "index", "layer", "type", "shape", "channels", "dtype", "parameters", right=numbers
    )
    for info in infos:
        table.add_row(
            "" if info.index is None else str(info.index),
            info.path,
            info.type,
            _shape(info.shape),
            "" if info.channels is None else str(info.channels),
            info.dtype,
            f"{info.parameters:,}",
        )
    _console().print(table)


def print_top(top: list[tuple[str, float]]) -> None:
    """Print the likeliest classes."""
    table = _table("probability", "class", right=("probability",))
    for name, probability in top:
        table.add_row(f"{probability:.3f}", name)
    console = _console()
    console.print()
    console.print(table)


def _total(drawn: list[DrawnLayer]) -> str:
    channels = sum(layer.channels for layer in drawn)
    dead = sum(layer.dead for layer in drawn)
    layers = f"{len(drawn)} layer{'s' if len(drawn) != 1 else ''}"
    return f"{layers}, {channels:,} channels, {dead:,} dead"


def print_place(folder: Path, drawn: list[DrawnLayer]) -> None:
    """Print where the pictures of an image are."""
    print(f"\n{_total(drawn)}: {folder.resolve()}")


def as_dict(image: str, folder: Path, drawn: list[DrawnLayer]) -> dict[str, Any]:
    """Return what was drawn of an image, for JSON."""
    layers = [
        layer.describe() | {"dead": layer.dead, "milliseconds": round(layer.milliseconds, 3)}
        for layer in drawn
    ]
    return {"image": image, "folder": str(folder), "layers": layers}


def print_methods(as_json: bool) -> None:
    """Print a table of the methods that explain images, or JSON with their options too."""
    if as_json:
        methods = [
            {
                "method": name,
                "needs": method.needs or ("batch",),
                "summary": method.summary,
                "source": method.source,
                "options": method.options,
            }
            for name, method in all_methods().items()
        ]
        print(json.dumps(methods))
        return
    table = _table("method", "needs", "summary", "source")
    for name, method in all_methods().items():
        table.add_row(name, ", ".join(method.needs) or "batch", method.summary, method.source)
    _console().print(table)


def print_heatmap(file: Path, heatmap: Heatmap, picture: Path) -> None:
    """Print one line for an image that was explained."""
    (target,) = target_texts(heatmap)
    print(f"{file.name}: {heatmap.method}: {target}: {picture}")


def heatmap_as_dict(file: Path, heatmap: Heatmap, picture: Path) -> dict[str, Any]:
    """Return how an image was explained, for JSON."""
    target, score = heatmap.target, heatmap.score
    return {
        "image": str(file),
        "method": heatmap.method,
        "layer": heatmap.layer,
        "output": heatmap.details["output"][0] if "output" in heatmap.details else None,
        "target": None if target is None else int(target[0]),
        "name": None if heatmap.labels is None else heatmap.labels[0],
        "score": None if score is None else float(score[0]),
        "is_logit": heatmap.is_logit,
        "file": str(picture),
    }


def print_facts(facts: dict[str, Any]) -> None:
    """Print the facts that `actgrid info` gathers."""
    cpu, devices = facts["cpu"], facts["devices"]
    rows = {name: version or "not installed" for name, version in facts["versions"].items()}
    for name, state in facts["backends"].items():
        used = " (used by auto)" if name == facts["auto"] else ""
        rows[f"backend {name}"] = state + used
    rows["processor"] = cpu["machine"]
    if cpu["simd"]:
        rows["processor"] += f": native uses {cpu['simd']} of {', '.join(cpu['simd_variants'])}"
    rows["devices"] = devices if isinstance(devices, str) else ", ".join(devices)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


def slower_cases(figures: Mapping[str, Figure], tolerance: float | None) -> list[str] | None:
    """Return the cases that are slower than before by more than a tolerance; None without one."""
    if tolerance is None:
        return None
    return [name for name, figure in figures.items() if figure.ratio > 1 + tolerance]


def print_figures(
    figures: Mapping[str, Figure], left_out: Mapping[str, str], tolerance: float | None
) -> None:
    """Print a table of figures, and a verdict where there is a tolerance."""
    slower = slower_cases(figures, tolerance)
    if slower is None:
        numbers = ("ms", "over yardstick", "+-")
        table = _table("case", *numbers, right=numbers)
        for name, figure in figures.items():
            ratio, error = f"{figure.ratio:.3f}", f"{figure.error:.1%}"
            table.add_row(name, f"{figure.now:.3f}", ratio, error)
        _console().print(table)
        return
    right = ("ms before", "ms now", "change", "+-")
    table = _table("case", *right, "", right=right)
    for name, figure in figures.items():
        milliseconds = f"{figure.before:.3f}", f"{figure.now:.3f}"
        change, error = f"{figure.ratio - 1:+.1%}", f"{figure.error:.1%}"
        table.add_row(name, *milliseconds, change, error, "slower" if name in slower else "")
    _console().print(table)
    print()
    for name, problem in left_out.items():
        print(f"left out, the other build cannot run it: {name} ({problem})")
    print(f"slower by more than {tolerance:.0%}: {'; '.join(slower) or 'nothing'}")


def figures_as_dict(
    figures: Mapping[str, Figure], left_out: Mapping[str, str], tolerance: float | None
) -> dict[str, Any]:
    """Return figures and a verdict, for JSON."""
    cases = {"cases": {name: asdict(figure) for name, figure in figures.items()}}
    slower = slower_cases(figures, tolerance)
    return cases if slower is None else cases | {"slower": slower, "left_out": dict(left_out)}
