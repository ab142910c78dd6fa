"""All groups of benchmarks: name on the command line -> Group."""

from __future__ import annotations

from benchmarks.attention import ATTENTION
from benchmarks.callbacks import CALLBACKS
from benchmarks.calls import CALLS
from benchmarks.encode import ENCODING
from benchmarks.evaluate import EVALUATE
from benchmarks.explain import EXPLAIN
from benchmarks.exports import EXPORTS
from benchmarks.files import FILES, PEERS
from benchmarks.growth import GROWTH
from benchmarks.kernel import BANDWIDTH, DTYPES, KERNEL, LAYOUTS, SIZES
from benchmarks.models import ABLATION, COMPARISON
from benchmarks.overlay import OVERLAY
from benchmarks.processes import DEMO, EXPLAIN_MEMORY, IMAGES_MEMORY, MEMORY, START
from benchmarks.stages import STAGES
from benchmarks.suite import Group
from benchmarks.throughput import RAY, THROUGHPUT
from benchmarks.viewer import VIEWER

__all__ = ["GROUPS"]

GROUPS: dict[str, Group] = {
    "kernel": KERNEL,
    "sizes": SIZES,
    "bandwidth": BANDWIDTH,
    "dtypes": DTYPES,
    "layouts": LAYOUTS,
    **ENCODING,
    "overlay": OVERLAY,
    "stages": STAGES,
    "files": FILES,
    "peers": PEERS,
    **GROWTH,
    **CALLS,
    "explain": EXPLAIN,
    "evaluate": EVALUATE,
    "attention": ATTENTION,
    "comparison": COMPARISON,
    "ablation": ABLATION,
    "exports": EXPORTS,
    **THROUGHPUT,
    "ray": RAY,
    "callbacks": CALLBACKS,
    "viewer": VIEWER,
    "memory": MEMORY,
    "images-memory": IMAGES_MEMORY,
    "explain-memory": EXPLAIN_MEMORY,
    "start": START,
    "demo": DEMO,
}
