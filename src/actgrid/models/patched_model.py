"""Keras models that share the layers of another model, with changed layer outputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any

from actgrid.errors import CapabilityError, ModelError, ShapeError
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.image_sources import are_images
from actgrid.models.images import load_images
from actgrid.models.inputs import iterate_batches, prepare_inputs
from actgrid.models.model_cache import get_model_cache
from actgrid.models.output_edits import EDITS, OutputEdit, get_output_edits, join_edits
from actgrid.models.tracing import copy_input_specs, is_tracing, trace_model

__all__ = ["make_patched_model"]

_COMPILED_FUNCTIONS = ("predict_function", "test_function", "train_function")
_BATCH_SIZE = "_actgrid_batch_size"


class _PatchedMethods:
    """Methods of a patched model that replace those of its Keras class."""

    def __call__(self: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """Run the model with its changed layer outputs.

        Parameters
        ----------
        inputs
            As for the unchanged model; or image files or Pillow images, which
            `actgrid.load_images` prepares.
        *arguments
            None for a call by users.
        **options
            `training`, as for the unchanged model.

        Returns
        -------
        tensor or structure of tensors
            The outputs of the model.
        """
        tf = tensorflow()
        if is_tracing(self):
            return super().__call__(inputs, *arguments, **options)  # type: ignore[misc]
        if not isinstance(inputs, (str, bytes)) and any(
            isinstance(tensor, keras().KerasTensor) for tensor in tf.nest.flatten(inputs)
        ):
            raise CapabilityError(
                "a patched model cannot be a layer of another model: patch the outer model"
            )
        training = bool(options.pop("training", False))
        if arguments or any(value is not None for value in options.values()):
            names = ", ".join(options) or "positional arguments"
            raise CapabilityError(
                f"a patched model takes the inputs and training=: got also {names}"
            )
        if not tf.executing_eagerly():
            return _run_patched(training, self, inputs)
        if are_images(inputs):
            inputs = load_images(inputs, model=self)
        return _run_in_batches(self, prepare_inputs(self, inputs), training)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the compiled functions of the model."""
        get_model_cache(self).clear()
        for name in _COMPILED_FUNCTIONS:
            vars(self).pop(name, None)
            vars(self)[name] = None

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise CapabilityError(
            "a patched model cannot be saved: save the unchanged model, and patch it again"
        )

    save = export = get_config = __reduce__ = __reduce_ex__ = _refuse


def make_patched_model(model: Any, edits: Mapping[str, OutputEdit], batch_size: int) -> Any:
    """Return a Keras model that shares the layers of a model and changes their outputs.

    Parameters
    ----------
    model
        A built Keras model, which is not changed.
    edits
        Layer path -> change of the output of this layer call. The changes of a patched model are
        kept, and come first.
    batch_size
        Maximum number of samples in one run of a call.

    Returns
    -------
    keras.Model
        A model of a subclass of the class of `model`, with the same layers and weights.

    Raises
    ------
    ModelError
        If the model is not built.
    """
    if not model.built:
        raise ModelError(f"the model {model.name!r} is not built: call it once, then patch it")
    cls = type(model)
    if issubclass(cls, _PatchedMethods):
        _, cls = cls.__bases__
    edits = join_edits(get_output_edits(model), edits)
    patched_class = type(f"Patched{cls.__name__}", (_PatchedMethods, cls), {})
    patched: Any = object.__new__(patched_class)
    # The attributes are copied without Keras's tracking, which would add the layers again.
    attributes = {name: value for name, value in vars(model).items() if "_actgrid" not in name}
    attributes |= dict.fromkeys(_COMPILED_FUNCTIONS)
    vars(patched).update(attributes, **{EDITS: edits, _BATCH_SIZE: batch_size})
    copy_input_specs(model, patched)
    return patched


def _run_patched(training: bool, model: Any, inputs: Any) -> Any:
    return trace_model(model, inputs, training, updates_state=True).results


_RUN = {training: partial(_run_patched, training) for training in (False, True)}


def _run_in_batches(model: Any, inputs: Any, training: bool) -> Any:
    """Run the compiled function of a patched model; return outputs of all samples."""
    function = compile_function(model, _RUN[training])
    results = [function(part) for part in iterate_batches(inputs, vars(model)[_BATCH_SIZE])]
    if not results:
        raise ShapeError("the input has no samples: expected at least one")
    if len(results) == 1:
        return results[0]
    tf = tensorflow()
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *results)
