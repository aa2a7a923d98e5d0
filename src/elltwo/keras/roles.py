"""What each weight of a Keras model is, by its role in the layer that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from elltwo.errors import InputError
from elltwo.weight_decay.roles import Use, called_so, marked, role_by_class, role_by_shape, type_name

SLOTS: dict[str, tuple[str, str]] = {
    "kernel": ("weight", "kernel"),
    "recurrent_kernel": ("weight", "recurrent kernel"),
    "depthwise_kernel": ("weight", "depthwise kernel"),
    "pointwise_kernel": ("weight", "pointwise kernel"),
    "reverse_embeddings": ("weight", "output matrix"),
    "bias": ("bias", "bias"),
    "gamma": ("norm", "gain"),
    "beta": ("norm", "shift"),
    "scale": ("vector", "scale"),
    "embeddings": ("embedding", "embedding"),
    "alpha": ("vector", "slope"),
}
"""What Keras' own layers call their weights: the role of each, and its name in a table."""


def find_uses(model: Any) -> list[list[Use]]:
    """Return the uses of each weight, the weights in the order of `model.weights`.

    Statistics that no optimiser trains, such as the moving mean of batch normalisation, are left out. Raises
    InputError if `model` is no layer, or one whose weights do not exist yet.
    """
    if not isinstance(model, keras.layers.Layer):
        raise InputError(f"model must be a Keras model or layer, not {type(model).__name__}.")
    found: dict[int, list[Use]] = {id(variable): [] for variable in model.weights}
    layers = list(_layers(model, ()))
    for layer, _ in sorted(
        layers, key=lambda pair: -len(pair[1])
    ):  # name the innermost one that is not built
        _refuse_unbuilt(layer)
    for layer, within in layers:
        for variable in layer._trainable_variables:  # frozen ones too, and not those of sublayers
            found.setdefault(id(variable), []).append(_use(layer, variable, within))
    return [uses for uses in found.values() if uses]


def _layers(layer: Any, within: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each layer with the layers that it is part of, the outermost first."""
    yield layer, within
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if inner is not layer and not any(inner is outer for outer in within):
            yield from _layers(inner, (*within, layer))


def _use(layer: Any, variable: Any, within: tuple[Any, ...]) -> Use:
    slot = slot_of(layer, variable)
    said = marked(variable) or marked(variable.value)  # the value is a parameter in a wrapped torch module
    role, why = ("exempt", said) if said else _role(layer, slot, variable)
    return Use(variable.path, layer, slot, variable, role, why, within)


def slot_of(layer: Any, variable: Any) -> str:
    """Return what a layer calls one of its own weights, or "" if it has no name for it."""
    held = (name for name, value in vars(layer).items() if value is variable)
    return next(held, "").lstrip("_")


def is_own(layer: Any) -> bool:
    """Whether a layer is one of Keras' own, or derives from one."""
    return any(cls.__module__.partition(".")[0] == "keras" for cls in _classes(layer))


def _classes(layer: Any) -> list[type]:
    """Return the layer's classes, without those that any layer or model derives from."""
    general = (keras.layers.Layer, keras.Model, keras.Sequential, keras.layers.Wrapper)
    return [cls for cls in type(layer).__mro__ if issubclass(cls, keras.layers.Layer) and cls not in general]


def _role(layer: Any, slot: str, variable: Any) -> tuple[str, str]:
    """Return role and reason of a weight that a layer holds under the name `slot`."""
    if isinstance(layer, keras.layers.SpectralNormalization):
        return "normalised", "divided by its spectral norm at each step"
    if is_own(layer) and slot in SLOTS:
        if slot == "embeddings" and getattr(layer, "tie_weights", False):
            return "weight", f"output matrix of {type_name(layer)}, shared with its embedding"
        role, what = SLOTS[slot]
        if isinstance(layer, keras.layers.RMSNormalization):
            role, what = SLOTS["gamma"]
        return role, f"{what} of {type_name(layer)}"
    if not layer._flatten_layers(include_self=False, recursive=False):
        called = role_by_class(layer, keras.layers.Layer, [v.shape for v in layer._trainable_variables])
        if called:
            return called, called_so(layer, called)
    return role_by_shape(variable.shape, type_name(layer))


def _refuse_unbuilt(layer: Any) -> None:
    if not layer.built and _makes_weights(layer):
        raise InputError(
            f"The layer '{layer.name}' ({type_name(layer)}) is not built: its weights do not exist yet. Call "
            "the model on one batch, or its build method, first."
        )


def _makes_weights(layer: Any) -> bool:
    """Whether building a layer will give it weights of its own."""
    if is_own(layer):
        return any(name.endswith("_regularizer") for name in vars(layer) if "activity" not in name)
    return type(layer).build is not keras.layers.Layer.build
