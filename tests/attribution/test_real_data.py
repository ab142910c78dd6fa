"""Attributions on real data: an electrocardiogram, English texts, and a scan of a head.

Small networks learn a task whose answer is known, and the attributions must point to it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

import actgrid
from actgrid.rendering import TextAttribution, VolumeAttribution

Array = npt.NDArray[Any]

_WINDOW = 96


@pytest.fixture(scope="module")
def heartbeats() -> tuple[Any, Array, Array]:
    """Train a 1-D CNN to find heartbeats in windows of the electrocardiogram of PyWavelets.

    Returns the model, the windows that contain a heartbeat, (N, 96, 1), and the step of the peak.
    """
    pywt = pytest.importorskip("pywt")
    keras.utils.set_random_seed(0)
    signal = pywt.data.ecg().astype(np.float32)
    signal = (signal - signal.mean()) / signal.std()
    windows = np.stack([signal[start : start + _WINDOW] for start in range(0, 1024 - _WINDOW, 4)])
    has_beat = windows[:, 12:-12].max(1) > 3
    is_clear = has_beat | (windows.max(1) < 1.5)  # without beats at the borders
    x, y = windows[is_clear, :, None], has_beat[is_clear].astype(np.int32)
    model = keras.Sequential(
        [
            keras.Input((_WINDOW, 1)),
            layers.Conv1D(8, 7, activation="relu", name="first"),
            layers.Conv1D(8, 7, activation="relu", name="last"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=15, verbose=0, batch_size=16)
    assert model.evaluate(x, y, verbose=0)[1] > 0.97
    beats = x[y == 1][::6]
    return model, beats, beats[:, 12:-12, 0].argmax(1) + 12


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients", "occlusion"])
def test_heartbeats_are_found_in_an_electrocardiogram(
    heartbeats: tuple[Any, Array, Array], method: str
) -> None:
    model, beats, peaks = heartbeats
    result = actgrid.explain(model, beats, method, target=1)
    assert result.axes == ("time",)
    steps = np.argmax(result.values, 1) * (_WINDOW / result.values.shape[1])
    # Most windows are decided by the steps around their beat, of about 20 steps.
    assert np.mean(np.abs(steps - peaks) < 16) > 0.8
    if method == "integrated_gradients":
        scores = np.asarray(model(beats))[:, 1] - np.asarray(model(np.zeros_like(beats)))[:, 1]
        np.testing.assert_allclose(result.values.sum(1), scores, rtol=1e-3, atol=1e-3)


def read_sentences() -> tuple[list[str], Array]:
    """Return sentences of the Python manual, which is a module of Python, and their class.

    Class 1 are sentences with a word of the family of "exception".
    """
    from pydoc_data.topics import topics

    text = " ".join(topics.values())
    sentences = [
        " ".join(re.findall(r"[a-z]+", sentence.lower()))
        for sentence in re.split(r"(?<=[.:])\s+", text)
    ]
    chosen = sorted({sentence for sentence in sentences if 6 <= len(sentence.split()) <= 24})
    labels = np.array([bool(re.search(r"\bexception", sentence)) for sentence in chosen])
    positive = np.flatnonzero(labels)
    negative = np.flatnonzero(~labels)[:: max(1, (~labels).sum() // (3 * len(positive)))]
    rows = np.sort(np.concatenate([positive, negative]))
    return [chosen[row] for row in rows], labels[rows].astype(np.int32)


@pytest.fixture(scope="module")
def sentences() -> tuple[Any, list[str], Array]:
    """Train a text classifier on sentences of the Python manual."""
    keras.utils.set_random_seed(1)
    texts, labels = read_sentences()
    assert labels.sum() > 50
    vectorization = layers.TextVectorization(max_tokens=2000, output_sequence_length=24)
    vectorization.adapt(texts)
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            vectorization,
            layers.Embedding(2000, 8, name="embedding"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss, metrics=["accuracy"])
    x = tf.constant(texts)[:, None]
    model.fit(x, labels, epochs=25, verbose=0, batch_size=64)
    assert model.evaluate(x, labels, verbose=0)[1] > 0.95
    return model, texts, labels


def test_words_that_decide_the_class_of_a_sentence(sentences: tuple[Any, list[str], Array]) -> None:
    model, texts, labels = sentences
    chosen = [text for text, label in zip(texts, labels, strict=True) if label][:40]
    result = actgrid.explain(model, chosen, "integrated_gradients", target=1)
    assert isinstance(result, TextAttribution)
    assert result.names is not None
    best = [
        names[int(np.argmax(values))]
        for names, values in zip(result.names, result.values, strict=True)
    ]
    assert np.mean([word.startswith("exception") for word in best]) > 0.8
    # The contribution of an embedding to the mean is known exactly: the model is linear.
    embedding = model.get_layer("embedding").get_weights()[0]
    weights = model.layers[-1].get_weights()[0][:, 1]
    indices = np.asarray(model.layers[0](tf.constant(chosen)[:, None]))
    np.testing.assert_allclose(result.values, embedding[indices] @ weights / 24, atol=1e-4)


def test_marked_block_of_a_scan_is_found() -> None:
    """A 3-D CNN that detects a bright block, put into parts of the scan in nibabel's tests."""
    nibabel = pytest.importorskip("nibabel")
    keras.utils.set_random_seed(2)
    path = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
    scan = np.asarray(nibabel.load(path).get_fdata(dtype=np.float32))
    scan = (scan - scan.mean()) / scan.std()
    rng = np.random.default_rng(0)
    x = np.empty((160, 12, 12, 12, 1), np.float32)
    y = np.arange(160) % 2
    places = rng.integers(0, 9, (160, 3))
    for sample, label, place in zip(x, y, places, strict=True):
        start = [rng.integers(0, side - 11) for side in scan.shape]
        sample[..., 0] = scan[tuple(slice(first, first + 12) for first in start)]
        if label:
            sample[tuple(slice(first, first + 3) for first in place)] += 4
    model = keras.Sequential(
        [
            keras.Input((12, 12, 12, 1)),
            layers.Conv3D(6, 3, activation="relu", name="conv"),
            layers.GlobalMaxPooling3D(),
            layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=20, verbose=0, batch_size=16)
    assert model.evaluate(x, y, verbose=0)[1] > 0.95
    marked, centres = x[y == 1][:12], places[y == 1][:12] + 1
    cases: dict[str, Any] = {"gradcam": {}, "occlusion": {"patch": 3, "stride": 2}}
    for method, options in cases.items():
        result = actgrid.explain(model, marked, method, target=1, **options)
        assert isinstance(result, VolumeAttribution)
        sides = result.values.shape[1:]
        largest = np.argmax(result.values.reshape(12, -1), 1)
        found = (np.stack(np.unravel_index(largest, sides), 1) + 0.5) * 12 / np.array(sides)
        assert np.mean(np.abs(found - centres - 0.5).max(1) <= 2.5) > 0.8
