"""LIME: explain a score by a linear model of its superpixels."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import Attribution, ExplainedBatch
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
) -> Attribution:
    """Hide random superpixels and fit a linear model to the scores; map its weights."""
    samples = check_integer("samples", samples, 2)
    linear_model = _import_optional("sklearn.linear_model", "scikit-learn")
    pixels = np.asarray(batch.image)
    if batch.reader.channels_first:
        pixels = np.moveaxis(pixels, 1, -1)
    segment_maps = _segment_images(pixels, segments)
    counts = [int(segment_map.max()) + 1 for segment_map in segment_maps]

    # (N, samples, superpixels): 1 for visible superpixels. The first sample is the full image.
    visible = np.zeros((len(pixels), samples, max(counts)), np.float32)
    for image_visible, count in zip(visible, counts, strict=True):
        image_visible[:, :count] = np.random.default_rng(seed).integers(0, 2, (samples, count))
        image_visible[0] = 1
    if baseline is None:
        baseline = np.stack(
            [_average_colours(*pair) for pair in zip(pixels, segment_maps, strict=True)]
        )
        if batch.reader.channels_first:
            baseline = np.moveaxis(baseline, -1, 1)
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
        # Cosine distance from the full image.
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
    values = np.stack(
        [
            weights[segment_map]
            for weights, segment_map in zip(details["weights"], segment_maps, strict=True)
        ]
    )
    return Attribution(
        values,
        target_scores,
        signed=True,
        details={"segments": list(segment_maps), **details},
        zero_reasons=(CONSTANT_SCORE,) * len(values),
    )


def _make_segment_masks(
    image: Any, sample: Any, sides: Any, visible: Any, segment_maps: Any
) -> Any:
    """Return masks (rows, H, W): 1 at visible superpixels and 0 at hidden superpixels."""
    tf = tensorflow()
    pixel_count = tf.shape(segment_maps)[1] * tf.shape(segment_maps)[2]
    flat = tf.reshape(tf.gather(segment_maps, image), (-1, pixel_count))
    sample_visible = tf.gather_nd(visible, tf.stack([image, sample], 1))
    masks = tf.gather(sample_visible, flat, batch_dims=1)
    return tf.reshape(masks, (-1, sides[0], sides[1]))


def _segment_images(pixels: Array, segments: Any) -> npt.NDArray[np.int32]:
    """Return the superpixel index of each pixel, (N, H, W), without gaps from 0."""
    if callable(segments):
        segment_maps = np.stack([np.asarray(segments(image)) for image in pixels])
    elif np.ndim(segments) >= 2:
        segment_maps = np.asarray(segments)
        segment_maps = segment_maps[None] if segment_maps.ndim == 2 else segment_maps
    else:
        count = check_integer("segments", segments, 2)
        segment_maps = np.stack([_run_slic(image, count) for image in pixels])
    if segment_maps.shape != pixels.shape[:3] or segment_maps.dtype.kind not in "iu":
        raise ShapeError(
            f"segments must be the superpixel index of each pixel, {pixels.shape[:3]} integers: "
            f"got {segment_maps.shape} of {segment_maps.dtype}"
        )
    return np.stack(
        [
            np.unique(segment_map, return_inverse=True)[1].reshape(segment_map.shape)
            for segment_map in segment_maps
        ]
    ).astype(np.int32)


def _run_slic(pixels: Array, count: int) -> Array:
    """Return the superpixel index of each pixel of an image, (H, W), by SLIC."""
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


def _average_colours(pixels: Array, segment_map: Array) -> Array:
    """Return an image, (H, W, C), in which each superpixel has its mean colour."""
    flat = segment_map.ravel()
    sums = [np.bincount(flat, pixels[..., c].ravel()) for c in range(pixels.shape[-1])]
    means = np.stack(sums, -1) / np.bincount(flat)[:, None]
    colours: Array = means.astype(np.float32)[segment_map]
    return colours


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
