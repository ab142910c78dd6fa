"""Generate src/actgrid/models/architectures.txt.

Usage: python -m tests.models.application_digests. Run it when Keras changes or adds an application.
It takes some minutes and 4 GiB.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

import actgrid
from actgrid.models.architectures import DEMO, describe_kernels
from actgrid.models.frameworks import list_applications

FILE = Path(actgrid.__file__).parent / "models" / "architectures.txt"

# Widths for which ImageNet weights exist, and other variants.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "MobileNet": [{"alpha": alpha} for alpha in (0.25, 0.5, 0.75, 1.0)],
    "MobileNetV2": [{"alpha": alpha} for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)],
    "MobileNetV3Large": [{"alpha": 0.75}, {}, {"minimalistic": True}],
    "MobileNetV3Small": [{"alpha": 0.75}, {}, {"minimalistic": True}],
}


def iterate_digest_lines(name: str) -> Iterator[str]:
    """Yield a line for each variant of an application."""
    for options in VARIANTS.get(name, [{}]):
        application = getattr(keras.applications, name)
        complete_model = application(weights=None, **options)
        input_shape = complete_model.input_shape[1:]
        kernels = list(describe_kernels(complete_model))
        base_model = application(
            weights=None, include_top=False, input_shape=input_shape, **options
        )
        count = len(list(describe_kernels(base_model)))
        assert kernels[:count] == list(describe_kernels(base_model))
        yield _format_line(name, kernels, count)
        del complete_model, base_model
        keras.backend.clear_session()
        gc.collect()


def make_demo_line() -> str:
    """Return the line of the embedded model, whose head is one layer."""
    kernels = list(describe_kernels(actgrid.demo.model()))
    return _format_line(DEMO, kernels, len(kernels) - 1)


def _format_line(name: str, kernels: Sequence[str], count: int) -> str:
    fields = [
        f"{len(part)} {hashlib.sha256(''.join(part).encode()).hexdigest()[:16]}"
        for part in (kernels[:count], kernels)
    ]
    return " ".join([name, *fields])


if __name__ == "__main__":
    lines = [line for name in list_applications() for line in iterate_digest_lines(name)]
    FILE.write_text("\n".join(sorted([*lines, make_demo_line()])) + "\n", "utf-8")
