"""What a model takes."""

from __future__ import annotations

from typing import Any

from actgrid.models.frameworks import keras, tensorflow

__all__ = ["input_specs"]


def input_specs(model: Any) -> Any:
    """Return a structure of TensorSpecs with a free batch axis; None if the model does not know.

    A Functional or Sequential model knows its inputs, any other what it was first called with.
    """
    tf = tensorflow()
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and getattr(model, "inputs", None):
        structure = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    if structure is not None:
        return tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), structure)
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes or len(shapes) != 1:
        return None
    (shape,) = shapes.values()
    return _from_shapes(shape)


def _from_shapes(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _from_shapes(one) for name, one in shape.items()}
    if all(side is None or isinstance(side, int) for side in shape):
        return tensorflow().TensorSpec((None, *shape[1:]), keras().config.floatx())
    return [_from_shapes(one) for one in shape]
