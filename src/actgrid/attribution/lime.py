"""LIME: explain a score by a linear model of segments of the input."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.method import method
from actgrid.attribution.perturbation import CONSTANT_SCORE, score_masked_images
from actgrid.errors import MissingDependencyError, ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer

__all__ = ["check_packages", "lime"]

Array = npt.NDArray[Any]


@method("lime", "Ribeiro 2016, https://arxiv.org/abs/1602.04938")
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
    linear_model = _import_optional("sklearn.linear_model", "scikit-learn")
    values = batch.layout.to_channels_last(np.asarray(batch.values))
    is_table = batch.layout.channel_axis is None
    if is_table and np.ndim(segments) == 0 and not callable(segments):
        segments = np.tile(np.arange(values.shape[1]), (len(values), 1))  # features are no parts
    segment_maps = _segment(values, segments)
    counts = [int(segment_map.max()) + 1 for segment_map in segment_maps]

    # (N, samples, segments): 1 for visible segments. The first sample is the full input.
    visible = np.zeros((len(values), samples, max(counts)), np.float32)
    for image_visible, count in zip(visible, counts, strict=True):
        image_visible[:, :count] = np.random.default_rng(seed).integers(0, 2, (samples, count))
        image_visible[0] = 1
    if baseline is None:
        if is_table or max(counts) == segment_maps[0].size:
            baseline = "mean"  # a segment of one position has its own value as mean
        else:
            means = [_average_segments(*pair) for pair in zip(values, segment_maps, strict=True)]
            baseline = batch.layout.from_channels_last(np.stack(means))
    tf = tensorflow()
    target_scores = batch.compute_scores()
    tables = tf.constant(visible), tf.constant(segment_maps)
    scores = score_masked_images(
        batch.with_classes_of(target_scores), _make_segment_masks, samples, baseline, *tables
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


def _make_segment_masks(
    image: Any, sample: Any, sides: Any, visible: Any, segment_maps: Any
) -> Any:
    """Return masks (rows, *sides): 1 in visible segments and 0 in hidden segments."""
    tf = tensorflow()
    flat = tf.reshape(tf.gather(segment_maps, image), (-1, tf.reduce_prod(sides)))
    sample_visible = tf.gather_nd(visible, tf.stack([image, sample], 1))
    masks = tf.gather(sample_visible, flat, batch_dims=1)
    return tf.reshape(masks, tf.concat([[-1], sides], 0))


def _segment(values: Array, segments: Any) -> npt.NDArray[np.int32]:
    """Return the segment index of each position, (N, *sides), without gaps from 0.

    Parameters
    ----------
    values
        (N, *sides, C).
    segments
        Value of the option: a number, a function of one sample, or segment indices.
    """
    sides = values.shape[1:-1]
    if callable(segments):
        segment_maps = np.stack([np.asarray(segments(sample)) for sample in values])
    elif np.ndim(segments):
        segment_maps = np.asarray(segments)
        segment_maps = segment_maps[None] if segment_maps.ndim == len(sides) else segment_maps
    else:
        count = check_integer("segments", segments, 2)
        if len(sides) == 2:
            segment_maps = np.stack([_run_slic(image, count) for image in values])
        else:
            segment_maps = np.stack([_divide_into_blocks(sides, count)] * len(values))
    if segment_maps.shape != values.shape[:-1] or segment_maps.dtype.kind not in "iu":
        raise ShapeError(
            f"segments must be the segment of each position, {values.shape[:-1]} integers: "
            f"got {segment_maps.shape} of {segment_maps.dtype}"
        )
    return np.stack(
        [
            np.unique(segment_map, return_inverse=True)[1].reshape(segment_map.shape)
            for segment_map in segment_maps
        ]
    ).astype(np.int32)


def _divide_into_blocks(sides: tuple[int, ...], count: int) -> Array:
    """Divide positions into about `count` blocks of nearly equal sides; return their indices.

    A sequence is divided into `count` parts, or into its positions if these are fewer.
    """
    length = (np.prod(sides) / count) ** (1 / len(sides))
    block_counts = [min(side, max(1, round(side / length))) for side in sides]
    indices = [
        np.arange(side) * blocks // side for side, blocks in zip(sides, block_counts, strict=True)
    ]
    grid = np.meshgrid(*indices, indexing="ij")
    blocks: Array = np.ravel_multi_index(grid, block_counts)
    return blocks


def _run_slic(pixels: Array, count: int) -> Array:
    """Divide an image (H, W, C) into superpixels by SLIC; return their indices, (H, W)."""
    segmentation = _import_optional("skimage.segmentation", "scikit-image")
    span = float(np.ptp(pixels)) or 1.0
    is_colour = pixels.shape[-1] == 3
    segment_map: Array = segmentation.slic(
        (pixels - pixels.min()) / span,
        n_segments=count,
        compactness=10 if is_colour else 0.1,  # L in Lab reaches 100, gray values 1
        convert2lab=is_colour,
        channel_axis=-1,
        start_label=0,
    )
    return segment_map


def _average_segments(values: Array, segment_map: Array) -> Array:
    """Return a sample, (*sides, C), in which each segment has its mean values."""
    flat = segment_map.ravel()
    sums = [np.bincount(flat, values[..., c].ravel()) for c in range(values.shape[-1])]
    means = np.stack(sums, -1) / np.bincount(flat)[:, None]
    averages: Array = means.astype(np.float32)[segment_map]
    return averages


def check_packages() -> None:
    """Raise MissingDependencyError unless the packages of lime are installed."""
    for module, package in (("sklearn", "scikit-learn"), ("skimage", "scikit-image")):
        if find_spec(module) is None:
            raise _make_error(package, f"No module named {module!r}")


def _import_optional(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _make_error(package, error) from error


def _make_error(package: str, reason: object) -> MissingDependencyError:
    return MissingDependencyError(
        f"lime needs {package} ({reason}); to get it, pip install 'actgrid[explain]'"
    )
