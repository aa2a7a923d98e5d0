"""The L2 penalty on an existing Keras model, and a table of the weights that it is for."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import keras

from elltwo.errors import InputError, name_some
from elltwo.keras.roles import find_uses, is_own
from elltwo.weight_decay.roles import (
    ParameterRow,
    ParameterTable,
    Rules,
    Use,
    check_rules,
    check_strength,
    settle,
)


def explain(model: Any, *, rules: Rules | None = None) -> ParameterTable:
    """Return a table of the model's weights: shape, role, penalised or not, and why.

    Which weights are penalised follows from the type of the layer that holds them and from their role in it:
    kernels of any kind and matrices of layers of unknown type are; biases, normalisations, embeddings, scales
    and other vectors are not, nor is a weight with an attribute `_no_weight_decay = True`. A shared layer is
    listed once.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Built: functional, sequential, subclassed, nested.
    rules : mapping, optional
        Exceptions. A key is a subclass of `keras.layers.Layer`, a role ("weight", "bias", "norm",
        "embedding", "vector", "normalised", "exempt") or a function of one use of a weight (with attributes
        name, module, slot, parameter, role, within). A value is True, False or a number that multiplies the
        penalty. A type stands for all that such a layer holds itself; for what its sublayers hold the number
        multiplies what they have without a rule. The first rule that matches decides.

    Returns
    -------
    ParameterTable
        Printed as text; `.rows` has one entry for each weight; `.decayed`, `.undecayed` and `.frozen` are
        numbers of entries; `.to_dict()` has plain values.

    Raises
    ------
    InputError
        For arguments that cannot be used, and for layers that are not built.

    Examples
    --------
    >>> import keras
    >>> from elltwo.keras import explain
    >>> inputs = keras.Input((4,))
    >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
    >>> print(explain(keras.Model(inputs, keras.layers.LayerNormalization(name="norm")(hidden))))
    Parameter      Shape  Module              Role    Decay  Why
    ------------------------------------------------------------------------------------
    hidden/kernel  4 × 8  Dense               weight  yes    kernel of Dense
    hidden/bias    8      Dense               bias    no     bias of Dense
    norm/gamma     8      LayerNormalization  norm    no     gain of LayerNormalization
    norm/beta      8      LayerNormalization  norm    no     shift of LayerNormalization
    ------------------------------------------------------------------------------------
    32 decayed, 24 not decayed, 0 frozen (entries of 4 parameters).
    """
    return _table(find_uses(model), rules)


def apply_l2(model: Any, l2: float, *, rules: Rules | None = None, replace: bool = False) -> ParameterTable:
    """Add l2·ΣW² over the model's kernels to its loss, as `kernel_regularizer` does at construction.

        loss = mean loss + l2·Σ_W ΣW²

    The gradient of the penalty is 2·l2·W: it is PyTorch's weight_decay = 2·l2, and with a mean squared error
    (over n rows and T outputs) it is ridge regression with α = n·T·l2. Coupled: the optimiser sees it as part
    of the loss, other than the `weight_decay` of Keras' own optimisers.

    The model is changed in place: its weights get `keras.regularizers.L2`, and so do the attributes of Keras'
    own layers that their configuration is read from. So a saved model of such layers has the penalty when it
    is loaded; a weight that a layer of your own makes does not, unless its `get_config` says so: call
    `apply_l2` again after loading. A second call with the same l2 changes nothing. Frozen weights get it
    too, and are penalised from when they are trained. A model that has been compiled stays so.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        Built, and the one to be trained: a compiled training step of another model that contains it is not
        renewed.
    l2 : float
        Finite and ≥ 0, on the scale of a mean loss; 0 takes any `keras.regularizers.L2` off.
    rules : mapping, optional
        Exceptions, as in `explain`; a number multiplies `l2`.
    replace : bool
        Whether another regulariser may be replaced. Those of weights that are not penalised here are kept.

    Returns
    -------
    ParameterTable
        As of `explain`, and what the model now has: with l2 = 0 the weights chosen are not penalised, and
        others that keep a regulariser from before are shown with it (`ParameterRow.kept`).

    Raises
    ------
    InputError
        As `explain`; if no weight is penalised; and, before anything is changed, if one of the weights has
        another regulariser already.

    Examples
    --------
    >>> import keras
    >>> from elltwo.keras import apply_l2
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> table = apply_l2(model, 0.01)
    >>> round(float(keras.ops.convert_to_numpy(model.losses[0])), 6)
    0.04
    """
    l2 = check_strength(l2, "l2")
    found = find_uses(model)
    table = _table(found, rules)
    chosen = [(uses, row.times * l2) for uses, row in zip(found, table.rows, strict=True) if row.times > 0]
    if not chosen:
        raise InputError(
            "The model has no weight to penalise: all are biases, norms, embeddings or vectors. "
            "print(elltwo.keras.explain(model)) says which; rules= makes exceptions."
        )
    if not replace:
        _refuse_others(chosen)
    for uses, strength in chosen:
        _set(uses, keras.regularizers.L2(strength) if strength > 0 else None)
    _tell_composites(model)
    for step in ("train_function", "test_function"):
        if hasattr(model, step):
            setattr(model, step, None)  # traced without the penalty, and made anew when next needed
    rows = (_row_now(row, uses, l2) for row, uses in zip(table.rows, found, strict=True))
    return ParameterTable(tuple(rows))


def _row_now(row: ParameterRow, uses: list[Use], l2: float) -> ParameterRow:
    """Return the row as the model is after `apply_l2`."""
    if row.times > 0:
        return row if l2 > 0 else changed(row, times=0.0, why=f"{row.why}, but l2 is 0")
    regularizer = uses[0].parameter.regularizer
    return row if regularizer is None else changed(row, kept=_described(regularizer))


def _described(regularizer: Any) -> str:
    config = regularizer.get_config() if isinstance(regularizer, keras.regularizers.Regularizer) else {}
    told = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in config.items()}
    numbers = ", ".join(f"{key}={value}" for key, value in told.items())
    name = getattr(regularizer, "__name__", type(regularizer).__name__)
    return f"{name}({numbers})" if numbers else name


def _table(found: list[list[Use]], rules: Rules | None) -> ParameterTable:
    rules = check_rules(rules, keras.layers.Layer)
    rows = (
        settle(uses, rules, shape=uses[0].parameter.shape, frozen=not uses[0].parameter.trainable)
        for uses in found
    )
    return ParameterTable(tuple(rows))


def _refuse_others(chosen: list[tuple[list[Use], float]]) -> None:
    others = [uses[0].name for uses, l2 in chosen if not _is_free(uses[0].parameter.regularizer, l2)]
    if others:
        raise InputError(
            f"{name_some(others)} already {'has' if len(others) == 1 else 'have'} another regulariser. "
            "Pass replace=True to put this penalty in its place, or leave it out by rules=."
        )


def _is_free(regularizer: Any, l2: float) -> bool:
    """Whether there is no regulariser yet, or the same one, or an L2 penalty that is to be taken off."""
    if l2 == 0 and type(regularizer) is keras.regularizers.L2:
        return True
    return regularizer is None or _config(regularizer) == _config(keras.regularizers.L2(l2))


def _config(regularizer: Any) -> Any:
    return None if regularizer is None else keras.regularizers.serialize(regularizer)


def _set(uses: list[Use], regularizer: Any) -> None:
    """Give one weight its regulariser, and tell the layers that hold it."""
    uses[0].parameter.regularizer = regularizer
    for use in uses:
        attribute = _attribute(use)
        if attribute:
            setattr(use.module, attribute, regularizer)


def _attribute(use: Use) -> str | None:
    """Return the layer's attribute that Keras saves this weight's regulariser from."""
    if not is_own(use.module):
        return None
    names = [f"{use.slot.removesuffix('_kernel')}_regularizer"]
    if use.slot == "kernel":
        names.append("depthwise_regularizer")
    return next((name for name in names if hasattr(use.module, name)), None)


def _tell_composites(model: Any) -> None:
    """Tell attention layers, which save one regulariser for all their sublayers."""
    attention = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    for layer in model._flatten_layers():
        if isinstance(layer, attention):
            for name in ("kernel_regularizer", "bias_regularizer"):
                inner = [i for i in layer._flatten_layers(include_self=False) if hasattr(i, name)]
                configs = [_config(getattr(i, name)) for i in inner]
                if configs and all(config == configs[0] for config in configs):
                    own = name if hasattr(layer, name) else f"_{name}"
                    setattr(layer, own, getattr(inner[0], name))
