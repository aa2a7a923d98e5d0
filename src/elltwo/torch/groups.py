"""Parameter groups for an optimiser: what is decayed, what is not, and a table that says why."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from elltwo.torch.roles import find_uses
from elltwo.weight_decay.roles import ParameterRow, ParameterTable, Rules, check_rules, check_strength, settle


def param_groups(
    model: nn.Module, weight_decay: float, *, rules: Rules | None = None
) -> list[dict[str, Any]]:
    """Return the model's parameters as groups for a torch optimiser: those to decay, and the others.

    Which parameters are decayed follows from the type of the module that holds them, from their role in it
    and from what the model itself says, and never from a guess by their name. Weights of linear maps are
    (linear, bilinear, convolution, attention, recurrent, matrices of modules of unknown type such as
    adapters); biases, normalisations, embeddings, and scales or other vectors are not. A shared parameter is
    decayed if one of its uses is. Of a weight under `weight_norm` the norms are decayed, since ‖g‖² = ‖W‖²,
    and its direction is not.

    A model exempts parameters by `_no_weight_decay = True` on them (Mamba), by `_optim` with a weight_decay
    of 0 (S4), or by methods `no_weight_decay()` and `no_weight_decay_keywords()` that give names, or parts of
    names, seen from the module that has the method (timm, Swin). They have the role "exempt".

    Parameters
    ----------
    model : torch.nn.Module
        Compiled, wrapped in (Distributed)DataParallel, with frozen or shared parts, as it may be. Lazy
        modules must have seen a batch.
    weight_decay : float
        Finite and ≥ 0; what the optimiser makes of it is its own matter: SGD and Adam add weight_decay·w to
        the gradient of a mean loss, which is the penalty (weight_decay/2)‖w‖².
    rules : mapping, optional
        Exceptions. A key is a subclass of `torch.nn.Module`, a role ("weight", "bias", "norm", "embedding",
        "vector", "normalised", "exempt") or a function of one use of a parameter (with attributes name,
        module, slot, parameter, role, within). A value is True, False or a number that multiplies
        `weight_decay`. A type stands for all that such a module holds itself; for what its submodules hold
        the number multiplies what they have without a rule, so that False exempts them too. The first rule
        that matches decides.

    Returns
    -------
    list of dict
        The group with `weight_decay`, the group with 0.0 (either may be empty), and one more for each other
        factor among the rules. Parameters are in the order of `model.parameters()`, each in one group;
        frozen ones (requires_grad=False) are in none.

    Raises
    ------
    InputError
        For arguments that cannot be used, for a `no_weight_decay()` that gives no names, for lazy modules
        without parameters yet, for TorchScript modules and for flattened parameters, whose roles cannot be
        seen.

    Examples
    --------
    >>> from torch import nn, optim
    >>> from elltwo.torch import param_groups
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimiser = optim.AdamW(param_groups(model, 0.01), lr=1e-3)
    >>> [(len(g["params"]), g["weight_decay"]) for g in optimiser.param_groups]
    [(2, 0.01), (4, 0.0)]
    >>> embedded = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
    >>> groups = param_groups(embedded, 0.01, rules={nn.Embedding: 0.1})
    >>> [(len(g["params"]), g["weight_decay"]) for g in groups]
    [(1, 0.01), (1, 0.0), (1, 0.001)]
    >>> embedded[1].weight._no_weight_decay = True
    >>> [len(g["params"]) for g in param_groups(embedded, 0.01)]
    [0, 3]
    """
    weight_decay = check_strength(weight_decay, "weight_decay")
    groups: dict[float, list[torch.Tensor]] = {1.0: [], 0.0: []}
    for parameter, times in select(model, rules):
        groups.setdefault(times, []).append(parameter)
    return [{"params": found, "weight_decay": times * weight_decay} for times, found in groups.items()]


def select(model: nn.Module, rules: Rules | None) -> list[tuple[torch.Tensor, float]]:
    """Return each trained parameter with the factor of its decay."""
    return [(parameter, row.times) for parameter, row in _settled(model, rules) if not row.frozen]


def _settled(model: nn.Module, rules: Rules | None) -> list[tuple[torch.Tensor, ParameterRow]]:
    rules = check_rules(rules, nn.Module)
    found = [(uses[0].parameter, uses) for uses in find_uses(model)]
    return [(p, settle(uses, rules, shape=p.shape, frozen=not p.requires_grad)) for p, uses in found]


def explain(model: nn.Module, *, rules: Rules | None = None) -> ParameterTable:
    """Return a table of the model's parameters: shape, role, decayed or not, and why.

    It is the table that `param_groups`, `l2_penalty` and `L2Penalty` go by.

    Parameters
    ----------
    model : torch.nn.Module
        As in `param_groups`.
    rules : mapping, optional
        As in `param_groups`.

    Returns
    -------
    ParameterTable
        Printed as text; `.rows` has one entry for each parameter, with all its names; `.decayed`,
        `.undecayed` and `.frozen` are numbers of entries; `.to_dict()` has plain values.

    Raises
    ------
    InputError
        As `param_groups`.

    Examples
    --------
    >>> from torch import nn
    >>> from elltwo.torch import explain
    >>> print(explain(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))))
    Parameter  Shape  Module     Role    Decay  Why
    ----------------------------------------------------------------------
    0.weight   8 × 4  Linear     weight  yes    weight of Linear
    0.bias     8      Linear     bias    no     bias of Linear
    1.weight   8      LayerNorm  norm    no     gain or shift of LayerNorm
    1.bias     8      LayerNorm  norm    no     gain or shift of LayerNorm
    ----------------------------------------------------------------------
    32 decayed, 24 not decayed, 0 frozen (entries of 4 parameters).
    """
    return ParameterTable(tuple(row for _, row in _settled(model, rules)))
