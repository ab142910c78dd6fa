"""Target functions of `actgrid.explain` for outputs with positions, boxes or images.

Each function of this package returns a target for ``actgrid.explain(model, x, target=...)``: a
function of the model's output that computes one score for each sample. Targets with equal arguments
are equal, so that an explanation with an equal target does not compile the model again.
"""

from actgrid.targets.class_scores import get_logits
from actgrid.targets.detections import detection
from actgrid.targets.next_tokens import next_token
from actgrid.targets.reconstructions import reconstruction
from actgrid.targets.regions import mean_over_time, region

__all__ = ["detection", "get_logits", "mean_over_time", "next_token", "reconstruction", "region"]
