"""Write src/actgrid/models/architectures.txt anew: python -m tests.models.application_digests.

Needed where Keras changes a network, or gets another one. It takes some minutes and 4 GiB.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

import actgrid
from actgrid.models.architectures import DEMO, kernel_lines
from actgrid.models.frameworks import applications

FILE = Path(actgrid.__file__).parent / "models" / "architectures.txt"

# The widths that ImageNet weights exist for, and other variants.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "MobileNet": [{"alpha": alpha} for alpha in (0.25, 0.5, 0.75, 1.0)],
    "MobileNetV2": [{"alpha": alpha} for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)],
    "MobileNetV3Large": [{"alpha": 0.75}, {}, {"minimalistic": True}],
    "MobileNetV3Small": [{"alpha": 0.75}, {}, {"minimalistic": True}],
}


def digest_lines(name: str) -> Iterator[str]:
    """Yield a line for each variant of an application: its kernels without and with the head."""
    for options in VARIANTS.get(name, [{}]):
        make = getattr(keras.applications, name)
        whole = make(weights=None, **options)
        size = whole.input_shape[1:]
        kernels = list(kernel_lines(whole))
        base = make(weights=None, include_top=False, input_shape=size, **options)
        count = len(list(kernel_lines(base)))
        assert kernels[:count] == list(kernel_lines(base))
        yield _line(name, kernels, count)
        del whole, base
        keras.backend.clear_session()
        gc.collect()


def demo_line() -> str:
    """Return the line of the embedded model, whose head is one layer."""
    kernels = list(kernel_lines(actgrid.demo.model()))
    return _line(DEMO, kernels, len(kernels) - 1)


def _line(name: str, kernels: Sequence[str], count: int) -> str:
    fields = [
        f"{len(part)} {hashlib.sha256(''.join(part).encode()).hexdigest()[:16]}"
        for part in (kernels[:count], kernels)
    ]
    return " ".join([name, *fields])


if __name__ == "__main__":
    lines = [line for name in applications() for line in digest_lines(name)]
    FILE.write_text("\n".join(sorted([*lines, demo_line()])) + "\n", "utf-8")
