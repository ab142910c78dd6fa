"""Testing with concept activation vectors (TCAV)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, ScoreReader
from actgrid.concepts.concept_sensitivity import ConceptSensitivity
from actgrid.concepts.layer_outputs import (
    compute_activations,
    find_layers,
    import_package,
    prepare_images,
    replace_output,
)
from actgrid.errors import OptionError
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo
from actgrid.models.types import LayersLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import takes_options
from actgrid.options import ConceptSensitivityOptions

__all__ = ["compute_gradients", "fit_vector", "measure_concept_sensitivity"]

Array = npt.NDArray[Any]

# Minimum number of images of a concept; the random images must be twice as many.
_MIN_IMAGES = 4
# Fraction of the images that a classifier is tested on.
_TEST_FRACTION = 1 / 3
# Inverse strength of the L2 penalty of the classifiers, for activations of mean squared norm 1.
_PENALTY = 10.0


@takes_options(ConceptSensitivityOptions, batch_size=32)
def measure_concept_sensitivity(
    model: ModelLike,
    images: ModelInput,
    concept_images: Mapping[str, ModelInput],
    random_images: ModelInput,
    layers: LayersLike = None,
    target: TargetLike = None,
    **options: Unpack[ConceptSensitivityOptions],
) -> ConceptSensitivity:
    """Measure how often a class score increases towards concepts that images define (TCAV).

    A concept activation vector is the normal of a linear classifier, which separates the
    activations of the concept's images in a layer from those of random images. The TCAV score is
    the fraction of the images of a class whose score has a positive directional derivative along
    the vector.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    images : array_like, dict, list or image sources
        Images of the class, as `actgrid.explain` takes them.
    concept_images : mapping of str to array_like, dict, list or image sources
        Images of each concept by its name, at least 4 of each.
    random_images : array_like, dict, list or image sources
        Images without the concepts, at least 8; twice as many as of a concept are best.
    layers : str, int, type, callable or sequence of these, optional
        One or several layers, see `actgrid.Extractor`. None: the last layer with positions, as in
        Grad-CAM.
    target : int, str, callable, list or dict, optional
        The class, as in `actgrid.explain`. None: for each image the class that the model predicts.
    **options
        See `actgrid.options.ConceptSensitivityOptions`.

    Returns
    -------
    ConceptSensitivity
        TCAV scores, p-values and accuracies of the classifiers; also a bar chart.

    Raises
    ------
    OptionError
        If an option is invalid, or there are too few images. Also a ValueError.
    TargetError
        If the model has no such class or output. Also a ValueError.
    LayerError
        If a layer does not exist, or the score does not depend on it. Also a KeyError.
    ShapeError
        If the inputs are not images. Also a ValueError.
    MissingDependencyError
        If scikit-learn is not installed: ``pip install 'actgrid[explain]'``. Also an ImportError.

    Notes
    -----
    Each of the `repeats` vectors is trained on two thirds of the concept's images and as many
    images of a random half of the random images, and tested on the remaining third. The scores are
    compared with those of vectors between two random halves of the random images. A score without
    a significant difference says nothing about the class. The vectors share images, so that the
    p-values are too small if there are few images. A low accuracy of the classifiers means that the
    layer does not encode the concept linearly.

    References
    ----------
    Kim et al., Interpretability Beyond Feature Attribution: Quantitative Testing with Concept
    Activation Vectors (TCAV), 2018, https://arxiv.org/abs/1711.11279.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(4, activation="softmax"),
    ... ])
    >>> random = np.random.default_rng(0).random((24, 16, 16, 3), np.float32)
    >>> red = random[:8] * [1, 0.2, 0.2]
    >>> sensitivity = actgrid.measure_concept_sensitivity(
    ...     model, random[8:12], {"red": red}, random[12:], "conv", target=2, repeats=4
    ... )
    >>> sensitivity.scores.shape
    (1, 1, 4)
    >>> sensitivity.save("sensitivity.png")
    """
    import_package("sklearn.linear_model")
    if not isinstance(concept_images, Mapping) or not concept_images:
        raise OptionError(
            "concept_images must be a dict of concept name to images: got "
            f"{type(concept_images).__name__}"
        )
    request_options: dict[str, Any] = {
        name: options[name] for name in ("labels", "image_input", "batch_size")
    }
    classified = prepare_images(model, images, target, **request_options).batch
    del request_options["labels"]
    batches = {
        name: prepare_images(classified.model, value, **request_options).batch
        for name, value in {"": random_images, **concept_images}.items()
    }
    random_batch = batches.pop("")
    _check_count("random_images", len(random_batch), 2 * _MIN_IMAGES)
    for name, batch in batches.items():
        _check_count(f"concept_images[{name!r}]", len(batch), _MIN_IMAGES)
    infos = find_layers(classified, layers)
    results = [
        _measure_layer(classified, batches, random_batch, info, options["repeats"], options["seed"])
        for info in infos
    ]
    scores, random_scores, accuracies = (np.array(parts) for parts in zip(*results, strict=True))
    p_values = [
        [_test(concept_scores, random) for concept_scores in layer_scores]
        for layer_scores, random in zip(scores, random_scores, strict=True)
    ]
    return ConceptSensitivity(
        tuple(batches),
        tuple(info.path for info in infos),
        np.moveaxis(scores, 0, 1),
        random_scores,
        np.moveaxis(accuracies, 0, 1),
        np.array(p_values).T,
    )


def _check_count(name: str, count: int, minimum: int) -> None:
    if count < minimum:
        raise OptionError(f"{name} must have at least {minimum} images: got {count}")


def _measure_layer(
    batch: ExplainedBatch,
    concept_batches: Mapping[str, ExplainedBatch],
    random_batch: ExplainedBatch,
    info: LayerInfo,
    repeats: int,
    seed: int,
) -> tuple[Array, Array, Array]:
    """Return scores (K, R), random scores (R,) and accuracies (K, R) for one layer."""
    gradients = compute_gradients(batch, info)
    random = _flatten(compute_activations(random_batch, info))
    scale = np.sqrt((random**2).sum(axis=1).mean()) or 1.0
    rng = np.random.default_rng(seed)

    def measure(positives: Array | None) -> tuple[float, float]:
        order = rng.permutation(len(random))
        half = len(random) // 2
        first = random[order[:half]] if positives is None else positives
        vector, accuracy = fit_vector(first / scale, random[order[half:]] / scale, rng)
        return float((gradients @ vector > 0).mean()), accuracy

    random_scores = np.array([measure(None)[0] for _ in range(repeats)])
    scores, accuracies = [], []
    for concept_batch in concept_batches.values():
        activations = _flatten(compute_activations(concept_batch, info))
        pairs = np.array([measure(activations) for _ in range(repeats)])
        scores.append(pairs[:, 0])
        accuracies.append(pairs[:, 1])
    return np.array(scores), random_scores, np.array(accuracies)


def fit_vector(
    positives: Array, negatives: Array, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], float]:
    """Fit a linear classifier of activations to random parts of two sets of equal size.

    Parameters
    ----------
    positives, negatives
        (N, D) and (M, D) activations; of the larger set a random part is used.
    rng
        Generator of the random numbers.

    Returns
    -------
    tuple
        The normal (D,) of the classifier, of length 1, which points to the positives; and the
        accuracy of the classifier on a third of the activations that it was not trained on.
    """
    linear_model = import_package("sklearn.linear_model")
    count = min(len(positives), len(negatives))
    tests = max(1, round(count * _TEST_FRACTION))
    parts = [rows[rng.permutation(len(rows))[:count]] for rows in (positives, negatives)]
    training = np.concatenate([rows[tests:] for rows in parts]).astype(np.float64)
    # The normal is a sum of training rows: the classifier is fitted in the space of the rows, which
    # has far fewer dimensions than the activations.
    variances, directions = np.linalg.eigh(training @ training.T)
    kept = variances > variances[-1] * 1e-10
    lengths, directions = np.sqrt(variances[kept]), directions[:, kept]
    classifier = linear_model.LogisticRegression(C=_PENALTY, max_iter=1000)
    classifier.fit(directions * lengths, np.repeat([1, 0], count - tests))
    normal = training.T @ (directions @ (classifier.coef_[0] / lengths))
    scores = np.concatenate([rows[:tests] for rows in parts]) @ normal + classifier.intercept_
    accuracy = float(((scores > 0) == np.repeat([True, False], tests)).mean())
    vector: npt.NDArray[np.float32] = (normal / (np.linalg.norm(normal) or 1.0)).astype(np.float32)
    return vector, accuracy


@dataclass(frozen=True)
class _ScoreGradients:
    """Function that returns the gradients of the scores with respect to the explained tensor."""

    reader: ScoreReader

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> Any:
        run = self.reader.run(model, inputs, target_classes)
        return tensorflow().gradients(run.target_scores.scores, run.explained[0])[0]


def compute_gradients(batch: ExplainedBatch, info: LayerInfo) -> npt.NDArray[np.float32]:
    """Return the gradients (N, D) of the scores with respect to a layer's flattened output.

    The output is flattened with the channels as its last axis.
    """
    activations = np.moveaxis(compute_activations(batch, info), -1, info.channel_axis)
    replaced = replace_output(batch, info, tensorflow().constant(activations))
    function = compile_function(batch.model, _ScoreGradients(replaced.reader))
    gradients = [function(part.inputs, part.target_classes).numpy() for part in replaced.split()]
    return _flatten(np.moveaxis(np.concatenate(gradients), info.channel_axis, -1))


def _flatten(values: Array) -> npt.NDArray[np.float32]:
    return values.reshape(len(values), -1)


def _test(scores: Array, random_scores: Array) -> float:
    """Return the p-value of Welch's t-test that scores and random scores have one mean."""
    samples = scores, random_scores
    if not any(sample.std() for sample in samples):
        return float(scores[0] == random_scores[0])
    # The function of the samples warns if all scores of a concept are equal, which is common.
    moments = [(sample.mean(), sample.std(ddof=1), len(sample)) for sample in samples]
    test = import_package("scipy.stats").ttest_ind_from_stats
    return float(test(*moments[0], *moments[1], equal_var=False).pvalue)
