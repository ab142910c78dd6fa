"""Print the results of commands as tables, or convert them to JSON."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from actgrid.attribution import Maximization
    from actgrid.bench import Timing
    from actgrid.evaluation import Evaluation
    from actgrid.figures import DrawnLayer, DrawnWeight
    from actgrid.models import LayerInfo
    from actgrid.models.preprocessing import Preprocessing
    from actgrid.rendering import (
        AttentionMap,
        Attribution,
        Diagram,
        LogitLens,
        ResidualStream,
    )
    from actgrid.statistics import ModelComparison

__all__ = [
    "MAX_RECORDS",
    "PACKAGES",
    "attention_as_dict",
    "attribution_as_dict",
    "diagram_as_dict",
    "drawn_layers_as_dict",
    "evaluation_as_dict",
    "find_slower_cases",
    "lens_as_dict",
    "maximization_as_dict",
    "preprocessing_as_dict",
    "print_attention",
    "print_attribution",
    "print_comparison",
    "print_diagram",
    "print_evaluation",
    "print_facts",
    "print_infos",
    "print_layers",
    "print_lens",
    "print_maximization",
    "print_methods",
    "print_metrics",
    "print_output_folder",
    "print_preprocessing",
    "print_records",
    "print_stream",
    "print_timings",
    "print_top",
    "print_weights",
    "stream_as_dict",
    "timings_as_dict",
    "weights_as_dict",
]

PACKAGES = ("tensorflow", "keras", "numpy", "numba", "pillow", "isal", "cmap")


# Number of ranked layers or channels that are printed; --json prints all.
MAX_RECORDS = 20


def _make_console() -> Console:
    # In a pipe, rows are not wrapped, for grep and awk.
    width = None if sys.stdout.isatty() else 10_000
    # Brackets in layer paths are not markup.
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _make_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _format_shape(shape: tuple[int | None, ...]) -> str:
    return " x ".join("?" if side is None else str(side) for side in shape)


def print_layers(drawn: list[DrawnLayer]) -> None:
    """Print a table of drawn layers: shape, channels, dead channels, milliseconds."""
    table = _make_table(
        "layer", "type", "shape", "channels", "dead", "ms", right=("channels", "dead", "ms")
    )
    for layer in drawn:
        table.add_row(
            layer.info.path,
            layer.info.type,
            _format_shape(layer.shape),
            str(layer.channels),
            str(layer.dead_count),
            f"{layer.milliseconds:.2f}",
        )
    _make_console().print(table)


def print_preprocessing(preprocessing: Preprocessing | None) -> None:
    """Print one line: how pixels are scaled for a model, and the reason; nothing for None."""
    if preprocessing is None:
        return
    advice = "; change it with --preprocess" if preprocessing.is_assumed else ""
    print(f"preprocessing: {preprocessing.describe()}{advice}")


def preprocessing_as_dict(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    """Return the name, reason and certainty of a preprocessing as a dict for JSON.

    None: the samples are passed to the model unchanged.
    """
    if preprocessing is None:
        return None
    return {
        "name": preprocessing.name,
        "reason": preprocessing.reason,
        "assumed": preprocessing.is_assumed,
    }


def print_weights(folder: Path, weights: list[DrawnWeight]) -> None:
    """Print a table of drawn weights, their number, and the folder of the pictures."""
    table = _make_table("weight", "type", "shape", "min", "max", "ms", right=("min", "max", "ms"))
    for weight in weights:
        numbers = (f"{weight.min:.3g}", f"{weight.max:.3g}", f"{weight.milliseconds:.2f}")
        table.add_row(weight.path, weight.type, _format_shape(weight.shape), *numbers)
    _make_console().print(table)
    print(f"\n{len(weights)} weight{'s' if len(weights) != 1 else ''}: {folder.resolve()}")


def weights_as_dict(folder: Path, weights: list[DrawnWeight]) -> dict[str, Any]:
    """Return the folder and a record of each drawn weight as a dict for JSON."""
    rows = [
        asdict(weight) | {"milliseconds": round(weight.milliseconds, 3), "file": weight.file.name}
        for weight in weights
    ]
    return {"folder": str(folder), "weights": rows}


def print_maximization(file: Path, maximization: Maximization) -> None:
    """Print a table of maximized channels and activations, and the picture's path."""
    numbers = ("channel", "initial", "activation")
    table = _make_table(*numbers, right=numbers)
    for channel, initial, activation in _activation_rows(maximization):
        table.add_row(str(channel), f"{initial:.3f}", f"{activation:.3f}")
    _make_console().print(table)
    count = len(maximization)
    channels = f"{count} channel{'s' if count != 1 else ''}"
    print(f"\n{maximization.layer}, {channels}: {file.resolve()}")


def maximization_as_dict(file: Path, maximization: Maximization) -> dict[str, Any]:
    """Return the result of an activation maximization as a dict for JSON.

    The dict contains the layer, the path of the picture, and the initial and final activation of
    each channel.
    """
    channels = [
        {"channel": channel, "initial_activation": initial, "activation": activation}
        for channel, initial, activation in _activation_rows(maximization)
    ]
    return {"layer": maximization.layer, "file": str(file), "channels": channels}


def _activation_rows(maximization: Maximization) -> Iterator[tuple[int, float, float]]:
    """Yield (channel, initial activation, final activation) of maximized channels."""
    columns = (
        maximization.channels,
        maximization.initial_activations,
        maximization.activations,
    )
    for channel, initial, activation in zip(*columns, strict=True):
        yield int(channel), float(initial), float(activation)


def print_records(file: Path, summary: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of the texts and numbers of records, a summary, and the picture's path."""
    names = [name for name, value in records[0].items() if not isinstance(value, list)]
    numbers = tuple(name for name in names if not isinstance(records[0][name], str))
    table = _make_table(*names, right=numbers)
    for record in records:
        values = [record[name] for name in names]
        table.add_row(
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)
        )
    _make_console().print(table)
    print(f"\n{summary}: {file.resolve()}")


def print_comparison(comparison: ModelComparison, sort_by: str) -> None:
    """Print the layers of a model comparison that differ most, and the channels that do."""
    layers = comparison.summary()["layers"]
    worst = sorted(layers, key=lambda layer: -_sort_number(layer["relative_difference"]))
    numbers = ("cka", "relative_difference", "correlation", "died", "revived")
    table = _make_table("layer", *(name.replace("_", " ") for name in numbers), right=numbers)
    for layer in worst[:MAX_RECORDS]:
        table.add_row(layer["layer"], *(f"{layer[name]:.4g}" for name in numbers))
    _make_console().print(table)
    columns = ("channel", "difference", "relative difference", "correlation")
    table = _make_table("layer", *columns, right=columns)
    for record in comparison.list_channels(sort_by)[:MAX_RECORDS]:
        values = (record[name.replace(" ", "_")] for name in columns[1:])
        table.add_row(
            record["layer"], str(record["channel"]), *(f"{value:.4g}" for value in values)
        )
    _make_console().print(table)


def _sort_number(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def print_diagram(file: Path, diagram: Diagram) -> None:
    """Print the boxes in a diagram of a model by layer type, and the picture's path."""
    counts = Counter(box.type for box in diagram.boxes)
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"\n{len(diagram)} boxes: {file.resolve()}")


def diagram_as_dict(file: Path, diagram: Diagram) -> dict[str, Any]:
    """Return the path and the boxes of a diagram of a model as a dict for JSON."""
    boxes = [
        {"name": box.name, "type": box.type, "shape": list(box.shape)} for box in diagram.boxes
    ]
    return {"file": str(file), "boxes": boxes}


def print_attention(folder: Path, maps: Mapping[str, AttentionMap]) -> None:
    """Print a table of attention scores by layer, and the folder of the pictures."""
    numbers = ("heads", "queries", "keys", "largest")
    table = _make_table("attention", *numbers, right=numbers)
    for path, attention_map in maps.items():
        sides = map(str, attention_map.values.shape)
        table.add_row(path, *sides, f"{attention_map.values.max():.3f}")
    _make_console().print(table)
    print(f"\n{len(maps)} layer{'s' if len(maps) != 1 else ''}: {folder.resolve()}")


def attention_as_dict(
    folder: Path, maps: Mapping[str, AttentionMap], files: Sequence[str]
) -> dict[str, Any]:
    """Return the folder and a record of the attention of each layer as a dict for JSON."""
    layers = []
    for file, (path, attention_map) in zip(files, maps.items(), strict=True):
        heads, queries, keys = attention_map.values.shape
        layers.append(
            {"path": path, "heads": heads, "queries": queries, "keys": keys, "file": file}
        )
    return {"folder": str(folder), "layers": layers}


def print_stream(file: Path, stream: ResidualStream) -> None:
    """Print a table of mean norms and angles by state, and the path of the picture."""
    table = _make_table("state", "norm", "degrees", right=("norm", "degrees"))
    norms, angles = stream.norms.mean(1).tolist(), stream.angles.mean(1).tolist()
    for state, norm, angle in zip(stream.states, norms, angles, strict=True):
        table.add_row(state, f"{norm:.3f}", "" if math.isnan(angle) else f"{angle:.1f}")
    _make_console().print(table)
    print(f"\n{len(stream)} states: {file.resolve()}")


def stream_as_dict(file: Path, stream: ResidualStream) -> dict[str, Any]:
    """Return the path of the picture, the norms and the angles as a dict for JSON."""
    return {
        "file": str(file),
        "states": list(stream.states),
        "tokens": list(stream.tokens),
        "norms": stream.norms.tolist(),
        "angles": [
            [None if math.isnan(angle) else angle for angle in row]
            for row in stream.angles.tolist()
        ],
    }


def print_lens(file: Path, lens: LogitLens) -> None:
    """Print a table of the prediction at the last token by state, and the picture's path."""
    table = _make_table("state", "prediction", "probability", right=("probability",))
    for state, labels, values in zip(lens.states, lens.labels, lens.probabilities, strict=True):
        table.add_row(state, labels[-1][0], f"{values[-1, 0]:.3f}")
    _make_console().print(table)
    print(f"\n{len(lens)} states: {file.resolve()}")


def lens_as_dict(file: Path, lens: LogitLens) -> dict[str, Any]:
    """Return the path of the picture, and the predictions of each state as a dict for JSON."""
    return {
        "file": str(file),
        "states": list(lens.states),
        "tokens": list(lens.tokens),
        "predictions": [[list(cell) for cell in row] for row in lens.labels],
        "probabilities": lens.probabilities.tolist(),
    }


def print_infos(infos: list[LayerInfo]) -> None:
    """Print a table of the layers of a model: index, path, type, shape and others."""
    numbers = ("index", "channels", "parameters")
    table = _make_table(
        "index", "layer", "type", "shape", "channels", "dtype", "parameters", right=numbers
    )
    for info in infos:
        table.add_row(
            "" if info.index is None else str(info.index),
            info.path,
            info.type,
            _format_shape(info.shape),
            "" if info.channels is None else str(info.channels),
            info.dtype,
            f"{info.parameters:,}",
        )
    _make_console().print(table)


def print_top(top: list[tuple[str, float]]) -> None:
    """Print a table of the most probable classes of an image, with probabilities."""
    table = _make_table("probability", "class", right=("probability",))
    for name, probability in top:
        table.add_row(f"{probability:.3f}", name)
    console = _make_console()
    console.print()
    console.print(table)


def print_output_folder(folder: Path, layers: list[DrawnLayer]) -> None:
    """Print the totals of drawn layers and channels, and the folder of the pictures."""
    channels = sum(layer.channels for layer in layers)
    dead = sum(layer.dead_count for layer in layers)
    count = f"{len(layers)} layer{'s' if len(layers) != 1 else ''}"
    print(f"\n{count}, {channels:,} channels, {dead:,} dead: {folder.resolve()}")


def drawn_layers_as_dict(image: str, folder: Path, drawn: list[DrawnLayer]) -> dict[str, Any]:
    """Return the folder and a record of each drawn layer as a dict for JSON."""
    layers = [
        layer.describe() | {"dead": layer.dead_count, "milliseconds": round(layer.milliseconds, 3)}
        for layer in drawn
    ]
    return {"image": image, "folder": str(folder), "layers": layers}


def print_methods(as_json: bool) -> None:
    """Print a table of the attribution methods, or JSON that also lists their options."""
    from actgrid.attribution.methods import get_methods

    if as_json:
        methods = [
            {
                "method": name,
                "needs": method.needs or ("batch",),
                "summary": method.summary,
                "source": method.source,
                "options": method.options,
            }
            for name, method in get_methods().items()
        ]
        print(json.dumps(methods))
        return
    table = _make_table("method", "needs", "summary", "source")
    for name, method in get_methods().items():
        table.add_row(name, ", ".join(method.needs) or "batch", method.summary, method.source)
    _make_console().print(table)


def print_metrics(as_json: bool) -> None:
    """Print a table of the metrics of attribution maps, or JSON that also lists their options."""
    from actgrid.evaluation.metrics import get_metrics

    metrics = get_metrics().values()
    if as_json:
        fields = ("direction", "needs", "summary", "source", "options")
        rows = [
            {"metric": metric.name} | {field: getattr(metric, field) for field in fields}
            for metric in metrics
        ]
        print(json.dumps(rows))
        return
    table = _make_table("metric", "better", "needs", "summary", "source")
    for metric in metrics:
        needs = ", ".join(metric.needs) or "maps"
        table.add_row(metric.name, metric.direction, needs, metric.summary, metric.source)
    _make_console().print(table)


def print_evaluation(evaluation: Evaluation, picture: Path | None) -> None:
    """Print a table of the mean of each metric for each attribution, best attribution first."""
    from actgrid.evaluation.metrics import get_metrics

    names = list(evaluation.values)
    titles = tuple(f"{name} ({get_metrics()[name].direction})" for name in names)
    table = _make_table("attribution", *titles, right=titles)
    for attribution in evaluation.ranking:
        row = evaluation.names.index(attribution)
        values = (f"{evaluation.means[name][row]:.4g}" for name in names)
        table.add_row(attribution, *values)
    _make_console().print(table)
    count = len(evaluation.images)
    print(f"mean over {count} map{'s' if count != 1 else ''}")
    if picture is not None:
        print(picture)


def evaluation_as_dict(evaluation: Evaluation, picture: Path | None) -> dict[str, Any]:
    """Return the values of an evaluation as a dict for JSON, with a row for each map."""
    rows = [
        {
            "attribution": name,
            "image": int(image),
            "target": evaluation.targets[index],
            **{
                metric: None if math.isnan(values[row, index]) else float(values[row, index])
                for metric, values in evaluation.values.items()
            },
        }
        for row, name in enumerate(evaluation.names)
        for index, image in enumerate(evaluation.images)
    ]
    return {
        "ranking": evaluation.ranking,
        "rows": rows,
        "file": None if picture is None else str(picture),
    }


def print_attribution(file: Path, attribution: Attribution, picture: Path) -> None:
    """Print the method, target and picture path of an attribution in one line."""
    from actgrid.evaluation.comparison import format_targets
    from actgrid.rendering import TextAttribution

    (target,) = format_targets(attribution)
    print(f"{file.name}: {attribution.method}: {target}: {picture}")
    if sys.stdout.isatty() and isinstance(attribution, TextAttribution):
        print(attribution.to_ansi())


def attribution_as_dict(file: Path, attribution: Attribution, picture: Path) -> dict[str, Any]:
    """Return facts about the attribution of a sample as a dict for JSON.

    Among them are the method, the target, its score, and the path of the picture.
    """
    target, score = attribution.target, attribution.score
    return {
        "image": str(file),
        "method": attribution.method,
        "layer": attribution.layer,
        "output": attribution.details["output"][0] if "output" in attribution.details else None,
        "target": None if target is None else int(target[0]),
        "name": None if attribution.labels is None else attribution.labels[0],
        "score": None if score is None else float(score[0]),
        "is_logit": attribution.is_logit,
        "file": str(picture),
    }


def print_facts(facts: dict[str, Any]) -> None:
    """Print facts about the installation: versions, backends, processor and devices."""
    cpu, devices = facts["cpu"], facts["devices"]
    rows = {name: version or "not installed" for name, version in facts["versions"].items()}
    for name, state in facts["backends"].items():
        note = " (used by auto)" if name == facts["auto"] else ""
        rows[f"backend {name}"] = state + note
    rows["processor"] = cpu["machine"]
    if cpu["simd"]:
        rows["processor"] += f": native uses {cpu['simd']} of {', '.join(cpu['simd_variants'])}"
    rows["devices"] = devices if isinstance(devices, str) else ", ".join(devices)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


def find_slower_cases(timings: Mapping[str, Timing], tolerance: float | None) -> list[str] | None:
    """Return the names of the benchmark cases that became slower.

    Parameters
    ----------
    timings
        Case -> `Timing`.
    tolerance
        Relative increase of the time from which a case is slower. None: nothing to compare.

    Returns
    -------
    list of str or None
        None: `tolerance` is None.
    """
    if tolerance is None:
        return None
    return [name for name, timing in timings.items() if timing.ratio > 1 + tolerance]


def print_timings(
    timings: Mapping[str, Timing], skipped: Mapping[str, str], tolerance: float | None
) -> None:
    """Print a table of benchmark timings.

    Parameters
    ----------
    timings
        Case -> `Timing`.
    skipped
        Case that did not run -> reason.
    tolerance
        Relative increase of the time from which a case is marked as slower. None: the timings have
        nothing to be compared with.
    """
    slower = find_slower_cases(timings, tolerance)
    if slower is None:
        numbers = ("ms", "over yardstick", "+-")
        table = _make_table("case", *numbers, right=numbers)
        for name, timing in timings.items():
            ratio, error = f"{timing.ratio:.3f}", f"{timing.error:.1%}"
            table.add_row(name, f"{timing.now:.3f}", ratio, error)
        _make_console().print(table)
        return
    right = ("ms before", "ms now", "change", "+-")
    table = _make_table("case", *right, "", right=right)
    for name, timing in timings.items():
        milliseconds = f"{timing.before:.3f}", f"{timing.now:.3f}"
        change, error = f"{timing.ratio - 1:+.1%}", f"{timing.error:.1%}"
        table.add_row(name, *milliseconds, change, error, "slower" if name in slower else "")
    _make_console().print(table)
    print()
    for name, problem in skipped.items():
        print(f"skipped, because the other build cannot run it: {name} ({problem})")
    print(f"slower by more than {tolerance:.0%}: {'; '.join(slower) or 'nothing'}")


def timings_as_dict(
    timings: Mapping[str, Timing], skipped: Mapping[str, str], tolerance: float | None
) -> dict[str, Any]:
    """Return benchmark timings as a dict for JSON.

    With a tolerance, the dict also lists the cases that became slower or did not run.
    """
    cases = {"cases": {name: asdict(timing) for name, timing in timings.items()}}
    slower = find_slower_cases(timings, tolerance)
    return cases if slower is None else cases | {"slower": slower, "skipped": dict(skipped)}
