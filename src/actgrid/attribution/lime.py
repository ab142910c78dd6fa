"""LIME: explain a score by a linear model of segments of the input."""

from __future__ import annotations

from typing import Any

import numpy as np

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.method import method
from actgrid.attribution.packages import import_optional
from actgrid.attribution.perturbation import CONSTANT_SCORE, score_masked_images
from actgrid.attribution.segmentation import average_segments, make_segment_masks, segment_batch
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer

__all__ = ["lime"]


@method(
    "lime",
    "Ribeiro 2016, https://arxiv.org/abs/1602.04938",
    packages=["scikit-learn", "scikit-image"],
)
def lime(
    batch: ExplainedBatch,
    *,
    samples: int = 1000,
    segments: Any = 64,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    features: int = 5,
    baseline: Any = None,
    seed: int = 0,
) -> BatchAttribution:
    """Hide random segments and fit a linear model to the scores; map its weights."""
    samples = check_integer("samples", samples, 2)
    linear_model = import_optional("sklearn.linear_model", "scikit-learn", "lime")
    segment_maps, counts = segment_batch(batch, segments, "lime")

    # (N, samples, segments): 1 for visible segments. The first sample is the full input.
    visible = np.zeros((len(batch), samples, max(counts)), np.float32)
    for image_visible, count in zip(visible, counts, strict=True):
        image_visible[:, :count] = np.random.default_rng(seed).integers(0, 2, (samples, count))
        image_visible[0] = 1
    if baseline is None:
        if batch.layout.channel_axis is None or max(counts) == segment_maps[0].size:
            baseline = "mean"  # a segment of one position has its own value as mean
        else:
            values = batch.layout.to_channels_last(np.asarray(batch.values))
            means = [average_segments(*pair) for pair in zip(values, segment_maps, strict=True)]
            baseline = batch.layout.from_channels_last(np.stack(means))
    tf = tensorflow()
    target_scores = batch.compute_scores()
    tables = tf.constant(visible), tf.constant(segment_maps)
    scores = score_masked_images(
        batch.with_classes_of(target_scores), make_segment_masks, samples, baseline, *tables
    )

    details: dict[str, list[Any]] = {
        name: [] for name in ("weights", "intercept", "r_squared", "mask")
    }
    for segment_map, image_visible, count, image_scores in zip(
        segment_maps, visible, counts, scores, strict=True
    ):
        predictors = image_visible[:, :count]
        # Cosine distance from the full input.
        distance = 1 - np.sqrt(predictors.mean(1))
        kernel = np.sqrt(np.exp(-(distance**2) / kernel_width**2))
        ridge_model = linear_model.Ridge(alpha=ridge)
        ridge_model.fit(predictors, image_scores, sample_weight=kernel)
        largest = np.argsort(-ridge_model.coef_, kind="stable")[:features]
        r_squared = ridge_model.score(predictors, image_scores, sample_weight=kernel)
        details["weights"].append(np.float32(ridge_model.coef_))
        details["intercept"].append(float(ridge_model.intercept_))
        details["r_squared"].append(float(r_squared))
        details["mask"].append(np.isin(segment_map, largest[ridge_model.coef_[largest] > 0]))
    maps = np.stack(
        [
            weights[segment_map]
            for weights, segment_map in zip(details["weights"], segment_maps, strict=True)
        ]
    )
    return BatchAttribution(
        maps,
        target_scores,
        signed=True,
        details={"segments": list(segment_maps), **details},
        zero_reasons=(CONSTANT_SCORE,) * len(maps),
    )
