"""LIME: a linear model of what each superpixel does to the score."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import Attribution, ExplainedBatch
from actgrid.attribution.method import method
from actgrid.attribution.perturbation import UNCHANGED, masked_scores
from actgrid.errors import MissingDependencyError, ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import integer_option

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
) -> Attribution:
    """Hide random superpixels and fit the scores by a linear model: the weight of each."""
    samples = integer_option("samples", samples, 2)
    linear_model = _library("sklearn.linear_model", "scikit-learn")
    pixels = np.asarray(batch.image)
    if batch.reader.channels_first:
        pixels = np.moveaxis(pixels, 1, -1)
    labels = _superpixels(pixels, segments)
    counts = [int(one.max()) + 1 for one in labels]

    # Whether each superpixel is seen. The first sample is the image itself.
    seen = np.zeros((len(pixels), samples, max(counts)), np.float32)
    for one, count in zip(seen, counts, strict=True):
        one[:, :count] = np.random.default_rng(seed).integers(0, 2, (samples, count))
        one[0] = 1
    if baseline is None:
        baseline = np.stack([_mean_colours(*pair) for pair in zip(pixels, labels, strict=True)])
        if batch.reader.channels_first:
            baseline = np.moveaxis(baseline, -1, 1)
    tf = tensorflow()
    target_scores = batch.read()
    tables = tf.constant(seen), tf.constant(labels)
    scores = masked_scores(
        batch.with_classes_of(target_scores), _seen_parts, samples, baseline, *tables
    )

    details: dict[str, list[Any]] = {
        name: [] for name in ("weights", "intercept", "r_squared", "mask")
    }
    for one, shown, count, target in zip(labels, seen, counts, scores, strict=True):
        known = shown[:, :count]
        # Cosine distance from the image itself.
        distance = 1 - np.sqrt(known.mean(1))
        kernel = np.sqrt(np.exp(-(distance**2) / kernel_width**2))
        fitted = linear_model.Ridge(alpha=ridge).fit(known, target, sample_weight=kernel)
        best = np.argsort(-fitted.coef_, kind="stable")[:features]
        details["weights"].append(np.float32(fitted.coef_))
        details["intercept"].append(float(fitted.intercept_))
        details["r_squared"].append(float(fitted.score(known, target, sample_weight=kernel)))
        details["mask"].append(np.isin(one, best[fitted.coef_[best] > 0]))
    values = np.stack(
        [weights[one] for weights, one in zip(details["weights"], labels, strict=True)]
    )
    return Attribution(
        values,
        target_scores,
        signed=True,
        details={"segments": list(labels), **details},
        zero_reasons=(UNCHANGED,) * len(values),
    )


def _seen_parts(image: Any, sample: Any, sides: Any, seen: Any, labels: Any) -> Any:
    tf = tensorflow()
    rows = tf.shape(labels)[1] * tf.shape(labels)[2]
    flat = tf.reshape(tf.gather(labels, image), (-1, rows))
    shown = tf.gather_nd(seen, tf.stack([image, sample], 1))
    masks = tf.gather(shown, flat, batch_dims=1)
    return tf.reshape(masks, (-1, sides[0], sides[1]))


def _superpixels(pixels: Array, segments: Any) -> npt.NDArray[np.int32]:
    """Return the number of the superpixel of each pixel, (N, H, W), from 0 on in each image."""
    if callable(segments):
        found = np.stack([np.asarray(segments(one)) for one in pixels])
    elif np.ndim(segments) >= 2:
        found = np.asarray(segments)
        found = found[None] if found.ndim == 2 else found
    else:
        count = integer_option("segments", segments, 2)
        found = np.stack([_slic(one, count) for one in pixels])
    if found.shape != pixels.shape[:3] or found.dtype.kind not in "iu":
        raise ShapeError(
            f"segments must be the number of each pixel's superpixel, {pixels.shape[:3]} "
            f"integers, not {found.shape} of {found.dtype}"
        )
    # Numbered without gaps.
    return np.stack(
        [np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in found]
    ).astype(np.int32)


def _slic(pixels: Array, count: int) -> Array:
    segmentation = _library("skimage.segmentation", "scikit-image")
    span = float(np.ptp(pixels)) or 1.0
    colour = pixels.shape[-1] == 3
    found: Array = segmentation.slic(
        (pixels - pixels.min()) / span,
        n_segments=count,
        compactness=10 if colour else 0.1,  # Lab goes up to 100
        convert2lab=colour,
        channel_axis=-1,
        start_label=0,
    )
    return found


def _mean_colours(pixels: Array, labels: Array) -> Array:
    """Return an image in which each superpixel has its mean colour."""
    flat = labels.ravel()
    sums = [np.bincount(flat, pixels[..., c].ravel()) for c in range(pixels.shape[-1])]
    means = np.stack(sums, -1) / np.bincount(flat)[:, None]
    colours: Array = means.astype(np.float32)[labels]
    return colours


def check_packages() -> None:
    """Raise MissingDependencyError unless what lime needs is there; load none of it."""
    for module, package in (("sklearn", "scikit-learn"), ("skimage", "scikit-image")):
        if find_spec(module) is None:
            raise _missing(package, f"No module named {module!r}")


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package, error) from error


def _missing(package: str, why: object) -> MissingDependencyError:
    return MissingDependencyError(
        f"lime needs {package} ({why}); to get it, pip install 'actgrid[explain]'"
    )
