"""A vision transformer on MNIST: attention, rollout, residual stream, logit lens.

The network has two blocks of four heads, 49 patches of 4 x 4 pixels and 19,658 parameters.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

import actgrid
from common import load_digits, read_options


@keras.saving.register_keras_serializable("vit_mnist")
class ClassToken(layers.Layer):  # type: ignore[misc]
    """Add a trained class token before the patches, and a position embedding to all tokens."""

    def build(self, shape: Any) -> None:
        """Create the weights."""
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="positions")

    def call(self, patches: Any) -> Any:
        """Return the class token and the patches, with their positions."""
        token = ops.tile(self.token, (ops.shape(patches)[0], 1, 1))
        return ops.concatenate([token, patches], 1) + self.positions

    def compute_output_shape(self, shape: Any) -> Any:
        """Return the shape, which has one token more."""
        return shape[0], shape[1] + 1, shape[2]


def make_network(depth: int = 2, width: int = 32, heads: int = 4) -> Any:
    """Return the untrained network."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(width, 4, 4, name="patches")(image)
    x = layers.Reshape((49, width), name="tokens")(x)
    x = ClassToken(name="class_token")(x)
    for block in range(depth):
        normal = layers.LayerNormalization(name=f"block{block}_norm1")(x)
        attention = layers.MultiHeadAttention(heads, width // heads, name=f"block{block}_attention")
        x = layers.Add(name=f"block{block}_add1")([x, attention(normal, normal)])
        normal = layers.LayerNormalization(name=f"block{block}_norm2")(x)
        hidden = layers.Dense(2 * width, "gelu", name=f"block{block}_dense1")(normal)
        hidden = layers.Dense(width, name=f"block{block}_dense2")(hidden)
        x = layers.Add(name=f"block{block}_add2")([x, hidden])
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(image, layers.Dense(10, "softmax", name="digits")(x[:, 0]), name="vit")


def main() -> None:
    output, quick, _ = read_options(__doc__, "vit_mnist")
    keras.utils.set_random_seed(0)
    (x, y), (tests, truth) = load_digits(quick)
    model = make_network()
    print(f"{model.count_params():,} parameters")
    model.compile(
        keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x, y, epochs=1 if quick else 3, batch_size=128, verbose=2)
    accuracy = model.evaluate(tests, truth, verbose=0)[1]
    print(f"accuracy on {len(tests)} test images: {accuracy:.1%}")
    model.save(output / "vit.keras")

    digits = np.stack([tests[truth == digit][0] for digit in range(10)])
    for path, attention in actgrid.extract_attention(model, digits, sample=7).items():
        name = actgrid.figures.make_safe_name(path)
        attention.save(output / f"{name}.png")
        attention.attend_from("class").save(output / f"{name}_class.png")
    methods = ["attention_rollout", "attention_relevance", "gradcam", "attnlrp"]
    actgrid.compare_methods(model, digits, methods).save(output / "methods.png")
    actgrid.measure_residual_stream(model, digits, sample=7).save(output / "residual_stream.png")
    actgrid.compute_logit_lens(model, digits, sample=7).save(output / "logit_lens.png")
    print(f"pictures: {output}")


if __name__ == "__main__":
    main()
