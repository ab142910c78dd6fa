"""Architecture of EfficientNet-Lite0 (https://arxiv.org/abs/1905.11946)."""

from __future__ import annotations

from typing import Any

__all__ = ["build_model"]

# Number of blocks, kernel size, stride of the first block, expansion factor, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build_model() -> Any:
    """Build EfficientNet-Lite0 as a Keras model with random weights.

    The Lite variants use ReLU6 and no squeeze-and-excite, so that they run on any accelerator.

    Returns
    -------
    keras.Model
        The model, without its weights of ImageNet.
    """
    from keras import Input, Model, layers

    def add_convolution(x: Any, name: str, filters: int, kernel: int, stride: int = 1) -> Any:
        x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)

    def add_relu6(x: Any, name: str) -> Any:
        return layers.ReLU(6, name=f"{name}_relu")(x)

    def add_block(
        inputs: Any, name: str, kernel: int, stride: int, expansion: int, filters: int
    ) -> Any:
        channels = inputs.shape[-1]
        x = inputs
        if expansion > 1:
            x = add_convolution(x, f"{name}_expand", channels * expansion, 1)
            x = add_relu6(x, f"{name}_expand")
        x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_dw_conv")(
            x
        )
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_dw_bn")(x)
        x = add_relu6(x, f"{name}_dw")
        x = add_convolution(x, f"{name}_project", filters, 1)
        if stride == 1 and channels == filters:
            x = layers.Add(name=f"{name}_add")([inputs, x])
        return x

    inputs = Input((224, 224, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(inputs)
    x = add_relu6(add_convolution(x, "stem", 32, 3, 2), "stem")
    number = 0
    for repeats, kernel, stride, expansion, filters in _STAGES:
        for repeat in range(repeats):
            is_first = repeat == 0
            x = add_block(
                x, f"block{number}", kernel, stride if is_first else 1, expansion, filters
            )
            number += 1
    x = add_relu6(add_convolution(x, "head", 1280, 1), "head")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return Model(inputs, x, name="efficientnet_lite0")
