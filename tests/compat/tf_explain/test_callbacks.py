"""The callbacks of tf-explain, whose event files are read by TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image

from actgrid.compat.tf_explain import callbacks, core
from actgrid.errors import OptionError, OutputError


def read_pictures(folder: Path) -> dict[str, list[tuple[int, Image.Image]]]:
    """Return (step, picture) of all events in the only subfolder of a folder, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (inner,) = folder.iterdir()
    events = EventAccumulator(str(inner), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [
            (event.step, Image.open(io.BytesIO(event.tensor_proto.string_val[2])))
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


@pytest.mark.parametrize(
    ("name", "arguments", "tag", "shape"),
    [
        (
            "ActivationsVisualization",
            {"layers_name": ["conv"]},
            "Activations Visualization",
            (32, 32),
        ),
        ("VanillaGradients", {"class_index": 1}, "VanillaGradients", (24, 24)),
        ("GradientsInputs", {"class_index": 1}, "GradientsInputs", (24, 24)),
        ("IntegratedGradients", {"class_index": 1, "n_steps": 5}, "IntegratedGradients", (24, 24)),
        ("SmoothGrad", {"class_index": 1, "num_samples": 2}, "SmoothGrad", (24, 24)),
        ("GradCAM", {"class_index": 1, "layer_name": "conv"}, "Grad CAM", (24, 24, 3)),
        (
            "OcclusionSensitivity",
            {"class_index": 1, "patch_size": 6},
            "Occlusion Sensitivity",
            (24, 24, 3),
        ),
    ],
)
def test_picture_is_written_after_each_epoch(
    name: str,
    arguments: dict[str, Any],
    tag: str,
    shape: tuple[int, ...],
    network: Any,
    images: npt.NDArray[np.float32],
    tmp_path: Path,
) -> None:
    model = keras.models.clone_model(network)
    model.compile("sgd", "categorical_crossentropy")
    targets = np.eye(5)[[0, 1, 2]]
    callback = getattr(callbacks, f"{name}Callback")(
        validation_data=(images, targets), output_dir=tmp_path / "logs", **arguments
    )
    model.fit(images, targets, epochs=2, verbose=0, callbacks=[callback])
    ((written_tag, steps),) = read_pictures(tmp_path / "logs").items()
    assert written_tag == tag
    assert [step for step, _ in steps] == [0, 1]
    assert np.asarray(steps[0][1]).shape == shape
    if name != "SmoothGrad":  # the noise is random
        method = "ExtractActivations" if name.startswith("Activations") else name
        expected = getattr(core, method)().explain((images, None), model, *arguments.values())
        np.testing.assert_array_equal(np.asarray(steps[1][1]), expected)


def test_default_log_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.zeros((1, 4, 4, 3)), None
    callbacks.GradientsInputsCallback(data, 0)
    callbacks.SmoothGradCallback(data, 0)
    names = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert names == ["gradients_inputs", "smoothgrad"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write events"):
        callbacks.GradCAMCallback(data, 0, output_dir=tmp_path / "file")


# The example on MNIST, with random images.
TRAINING = """
import numpy as np
import tensorflow as tf
from actgrid.compat import tf_explain

INPUT_SHAPE = (28, 28, 1)
rng = np.random.default_rng(0)
train_images = rng.random((8, 28, 28, 1)).astype('float32')
train_labels = tf.keras.utils.to_categorical(np.arange(8), num_classes=10)

img_input = tf.keras.Input(INPUT_SHAPE)
x = tf.keras.layers.Conv2D(filters=4, kernel_size=(3, 3), activation='relu')(img_input)
x = tf.keras.layers.Conv2D(
    filters=6, kernel_size=(3, 3), activation='relu', name='target_layer')(x)
x = tf.keras.layers.MaxPool2D(pool_size=(2, 2))(x)
x = tf.keras.layers.Dropout(0.25)(x)
x = tf.keras.layers.Flatten()(x)
x = tf.keras.layers.Dense(16, activation='relu')(x)
x = tf.keras.layers.Dense(10, activation='softmax')(x)
model = tf.keras.Model(img_input, x)
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])

validation_class_zero = (train_images[:5], None)
callbacks = [
    tf_explain.callbacks.GradCAMCallback(
        validation_class_zero, class_index=0, layer_name='target_layer',
    ),
    tf_explain.callbacks.ActivationsVisualizationCallback(
        validation_class_zero, layers_name=['target_layer']
    ),
    tf_explain.callbacks.SmoothGradCallback(
        validation_class_zero, class_index=0, num_samples=15, noise=1.0
    ),
    tf_explain.callbacks.IntegratedGradientsCallback(
        validation_class_zero, class_index=0, n_steps=10
    ),
    tf_explain.callbacks.VanillaGradientsCallback(validation_class_zero, class_index=0),
    tf_explain.callbacks.GradientsInputsCallback(validation_class_zero, class_index=0),
]
model.fit(train_images, train_labels, epochs=2, callbacks=callbacks)
"""


def test_example_of_training(run_script: Callable[..., str], tmp_path: Path) -> None:
    run_script(TRAINING)
    folders = sorted((tmp_path / "logs").iterdir())
    sizes = {}
    for folder in folders:
        ((_, steps),) = read_pictures(folder).items()
        sizes[folder.name] = steps[1][1].size
    assert sizes == {
        "activations_visualizations": (144, 144),
        "grad_cam": (84, 84),
        "gradients_inputs": (84, 84),
        "integrated_gradients": (84, 84),
        "smoothgrad": (84, 84),
        "vanilla_gradients": (84, 84),
    }


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (tf.data.Dataset.from_tensors((np.zeros((1, 4, 4, 3)), [0])), "_TensorDataset"),
        (np.zeros((2, 4, 4, 3)), "ndarray"),
        ((np.zeros((0, 4, 4, 3)), None), r"images of shape \(0, 4, 4, 3\)"),
        ((np.zeros((4, 4, 3)), None), r"images of shape \(4, 4, 3\)"),
        ((["cat.jpg"], None), r"images of shape \(1,\) and dtype <U7"),
    ],
)
def test_invalid_data_are_rejected(data: Any, description: str, tmp_path: Path) -> None:
    for name in callbacks.__all__:
        callback_class: Any = getattr(callbacks, name)
        options: dict[str, Any] = {"output_dir": tmp_path / "logs", "class_index": 0}
        if name == "ActivationsVisualizationCallback":
            options["layers_name"] = [options.pop("class_index")]
        if name == "OcclusionSensitivityCallback":
            options["patch_size"] = 2
        with pytest.raises(OptionError, match=rf"validation_data must be .*got {description}"):
            callback_class(data, **options)
    assert not (tmp_path / "logs").exists()
