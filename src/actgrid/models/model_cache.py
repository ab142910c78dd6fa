"""Cache values with the model that they were computed from, until the model changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from functools import lru_cache
from operator import is_
from typing import Any, TypeVar

from actgrid.models.frameworks import keras

__all__ = [
    "INTERCEPTION",
    "BoundedCache",
    "accept_model_state",
    "cache_with_model",
    "check_model_state",
    "get_model_cache",
]

Value = TypeVar("Value")

# Number of values cached for a model. A target function that is created anew for each call, such as
# a lambda, adds a value each time.
_MAX_VALUES = 32
_ATTRIBUTE = "_actgrid_cache"
# Attributes that Keras changes when a model is compiled, trained, evaluated or saved, and that have
# no effect on the outputs of layers.
_TRAINING_ATTRIBUTES = frozenset(
    [
        *("_compile_config", "_compile_loss", "_compile_metrics", "_compiled_trainable_state"),
        *("_eval_epoch_iterator", "_jit_compile", "_loss_tracker", "_metrics", "_run_eagerly"),
        *("compiled", "history", "loss", "optimizer", "steps_per_execution"),
        *("predict_function", "stop_evaluating", "stop_predicting", "stop_training"),
        *("test_function", "train_function", _ATTRIBUTE),
    ]
)
# Attribute that marks a function as the temporary replacement of a layer's method.
INTERCEPTION = "_is_actgrid_interception"
# Objects of these packages have no attributes that users change to change a model, except layers.
_LIBRARIES = frozenset(["builtins", "keras", "numpy", "tensorflow"])


class BoundedCache(OrderedDict[Hashable, Any]):
    """Cache of the most recently used values, which copies of its owner do not share."""

    def __reduce__(self) -> tuple[type[BoundedCache], tuple[()]]:
        return type(self), ()

    def get_or_compute(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of a key, which is computed if it is not cached."""
        value: Value
        if key in self:
            value = self[key]
        else:
            value = self.setdefault(key, compute())
            if len(self) > _MAX_VALUES:
                self.popitem(last=False)
        self.move_to_end(key)
        return value


class _ModelCache(BoundedCache):
    """Cache of values computed from a model, with the state of the model at that time."""

    state: _ModelState | None = None


def cache_with_model(model: Any, key: Hashable, compute: Callable[[], Value]) -> Value:
    """Return a value that is computed once from a model and cached with the model.

    The cache is emptied when layers are added, removed or replaced, or when an attribute of a layer
    changes. Values of weights may change: compiled functions read the current values. At most 32
    values are cached for a model.

    Parameters
    ----------
    model
        A Keras model, or a network of another kind. Changes of such a network are not noticed.
    key
        Values of equal keys are equal.
    compute
        Function that returns the value, if it is not cached.

    Returns
    -------
    object
        The value.
    """
    cache = get_model_cache(model)
    check_model_state(model)
    return cache.get_or_compute(key, compute)


def get_model_cache(model: Any) -> _ModelCache:
    """Return the cache of a model, the most recently used value at the end."""
    # The cache is an attribute of the model: a value may refer to the model, as target functions
    # do, so a module-level cache would keep the model alive. `vars` bypasses Keras's attribute
    # tracking.
    cache: _ModelCache = vars(model).setdefault(_ATTRIBUTE, _ModelCache())
    return cache


def check_model_state(model: Any) -> None:
    """Empty the cache of a model that has changed since its values were computed."""
    cache: _ModelCache | None = vars(model).get(_ATTRIBUTE)
    if cache is not None and not (cache.state is not None and cache.state.matches()):
        cache.clear()
        cache.state = _ModelState(model)


def accept_model_state(model: Any) -> None:
    """Keep the values cached with a model although its code changed attributes.

    Must be called after the model was built or traced: the code of a model may store values, such
    as attention scores, in attributes.
    """
    cache: _ModelCache | None = vars(model).get(_ATTRIBUTE)
    if cache is not None and cache.state is not None and not cache.state.matches():
        cache.state = _ModelState(model)


class _ModelState:
    """Identities of the attributes of a Keras model and its layers at one time.

    Lists, dicts and objects of the user's own classes in attributes are included. The contents of
    arrays are not.
    """

    def __init__(self, model: Any) -> None:
        # Attribute dicts, and live views of containers, with copies of their contents. The copies
        # keep the objects alive, so that no new object can have the identity of an old object.
        self._namespaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Collection[Any], tuple[Any, ...]]] = []
        self._data_format = keras().config.image_data_format()
        operation_class = keras().Operation
        if not isinstance(model, operation_class):
            return
        internal_names = _get_internal_names()
        visited: set[int] = set()
        pending: list[Any] = [model]
        while pending:
            value = pending.pop()
            if id(value) in visited:
                continue
            visited.add(id(value))
            if isinstance(value, (list, tuple, dict, set)):
                view = value.values() if isinstance(value, dict) else value
                if not isinstance(value, tuple):
                    self._containers.append((view, tuple(view)))
                pending += view
            elif isinstance(value, operation_class) or _is_custom(value):
                namespace = vars(value)
                self._namespaces.append((namespace, dict(namespace)))
                pending += [
                    item
                    for name, item in _select_relevant(namespace).items()
                    if name not in internal_names
                ]

    def matches(self) -> bool:
        """Return whether the model still has the same layers with the same attributes."""
        return (
            all(
                _are_same(namespace.values(), copy.values()) or _is_equivalent(namespace, copy)
                for namespace, copy in self._namespaces
            )
            and all(_are_same(view, copy) for view, copy in self._containers)
            and keras().config.image_data_format() == self._data_format
        )


@lru_cache(maxsize=1)
def _get_internal_names() -> frozenset[str]:
    """Return the names of lists and dicts that every layer has, such as its uses in models."""
    # With a name, because Keras counts the names that it chooses.
    return frozenset(vars(keras().layers.Layer(name="layer"))) - {"_layers"}


def _select_relevant(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a model that may affect the outputs of its layers."""
    return {
        name: value
        for name, value in namespace.items()
        if name not in _TRAINING_ATTRIBUTES
        and not name.startswith("_self_")  # the checkpoint dependencies of TensorFlow
        and not getattr(value, INTERCEPTION, False)
    }


def _is_equivalent(namespace: dict[str, Any], copy: dict[str, Any]) -> bool:
    """Return whether only attributes without effect differ; then update the copy."""
    relevant, relevant_copy = _select_relevant(namespace), _select_relevant(copy)
    if relevant.keys() != relevant_copy.keys() or not all(
        value is relevant_copy[name] for name, value in relevant.items()
    ):
        return False
    copy.clear()
    copy.update(namespace)
    return True


def _are_same(values: Collection[Any], others: Collection[Any]) -> bool:
    return len(values) == len(others) and all(map(is_, values, others))


def _is_custom(value: object) -> bool:
    """Return whether an object has attributes that a user may change to change a model."""
    package = str(getattr(type(value), "__module__", "")).partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, type) and package not in _LIBRARIES
