"""Read the score of a class from an output with any number of positions."""

from __future__ import annotations

from typing import Any

from actgrid.errors import ShapeError, TargetError
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import flatten_with_paths
from actgrid.models.logits import find_logits
from actgrid.option_checks import check_integer

__all__ = ["check_class", "get_logits", "get_single_output", "read_class_scores"]


def get_logits(output: Any) -> Any:
    """Return the logits of a model's output, or the output itself.

    A target function receives the output of the model: probabilities if the model ends in a softmax
    or sigmoid. Their gradients vanish where the model is certain, and the probability of one class
    depends on the logits of all classes. `actgrid.explain` therefore uses logits for class targets.
    This function does the same in a target function.

    Parameters
    ----------
    output : tensor
        An output of the model, as a target function receives it.

    Returns
    -------
    tensor
        The values before the final softmax or sigmoid, in the shape of the output. If the model
        does not end in a softmax or sigmoid, or the function is called outside of a compiled
        function, the output.

    Examples
    --------
    >>> import keras
    >>> segmenter = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, padding="same", activation="softmax"),
    ... ])
    >>> def score_left_half(output):
    ...     return keras.ops.mean(actgrid.targets.get_logits(output)[:, :, :4, 2], (1, 2))
    >>> image = np.random.default_rng(0).random((1, 8, 8, 3))
    >>> heatmap = actgrid.explain(segmenter, image, "saliency", score_left_half)
    >>> bool(heatmap.values[0, :, 5:].any())  # the kernel has 3 x 3 pixels
    False
    """
    logits = _find_logits(output)
    return output if logits is None else logits.tensor


def _find_logits(output: Any) -> Any:
    """Return `find_logits` of a symbolic tensor; None for values, which have no graph."""
    return find_logits(output) if tensorflow().is_symbolic_tensor(output) else None


def check_class(class_: Any) -> int | None:
    """Check the option `class_` and return it as an int; None stays None.

    Raises
    ------
    OptionError
        If the class is not an integer of 0 or more.
    """
    return None if class_ is None else check_integer("class_", class_, 0)


def get_single_output(outputs: Any, target_name: str) -> Any:
    """Return the only tensor of a model's outputs.

    Raises
    ------
    TargetError
        If there are several outputs.
    """
    leaves = list(flatten_with_paths(outputs))
    if len(leaves) == 1:
        return leaves[0][1]
    names = ["/".join(map(str, path)) for path, _ in leaves]
    raise TargetError(
        f"{target_name} needs one output of the model: got the outputs {', '.join(names)}; choose "
        f"the output, such as target={{{names[0]!r}: {target_name}(...)}}"
    )


def read_class_scores(output: Any, class_: int | None, use_logits: bool) -> Any:
    """Return the scores of a class, or of all classes, at each position.

    Parameters
    ----------
    output
        (N, ..., K) tensor.
    class_
        Index of the class; None: all classes.
    use_logits
        Whether logits are read in place of the probabilities of a final softmax or sigmoid.

    Returns
    -------
    tensor
        (N, ..., 1) float32, or (N, ..., K) for all classes.

    Raises
    ------
    TargetError
        If there is no such class.
    ShapeError
        If the number of classes is not known.
    """
    tf = tensorflow()
    count = output.shape[-1]
    if count is None:
        raise ShapeError(
            f"the output must have a known number of classes: got {tuple(output.shape)}"
        )
    logits = _find_logits(output)
    scores = tf.cast(logits.tensor if logits is not None and use_logits else output, tf.float32)
    if class_ is None:
        return scores
    # As in `explain`, a single sigmoid stands for two classes.
    is_binary = count == 1 and logits is not None and logits.activation == "sigmoid"
    if is_binary and class_ < 2:
        return scores if class_ == 1 else -scores if use_logits else 1 - scores
    if class_ >= count or is_binary:
        classes = 2 if is_binary else count
        raise TargetError(
            f"there is no class {class_}: the output, {tuple(output.shape)}, has {classes} "
            f"class{'' if classes == 1 else 'es'}, 0 to {classes - 1}"
        )
    return scores[..., class_ : class_ + 1]
