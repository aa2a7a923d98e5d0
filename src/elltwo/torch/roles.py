"""What each parameter of a PyTorch model is, by its role in the module that holds it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from elltwo.errors import InputError
from elltwo.weight_decay.roles import Use, called_so, marked, role_by_class, role_by_shape, type_name

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_ATTENTION = dict.fromkeys(_PROJECTIONS, "weight") | dict.fromkeys(
    ("in_proj_bias", "bias_k", "bias_v"), "bias"
)

SLOTS: tuple[tuple[tuple[type[nn.Module], ...], Mapping[str, str]], ...] = (
    ((nn.Linear, nn.Bilinear, *_CONVOLUTIONS), {"weight": "weight", "bias": "bias"}),
    ((nn.MultiheadAttention,), _ATTENTION),
    (_NORMS, {"weight": "norm", "bias": "norm"}),
    ((nn.Embedding, nn.EmbeddingBag), {"weight": "embedding"}),
    ((nn.PReLU,), {"weight": "vector"}),
)
"""Types of module, and the role of each parameter that they hold; their subclasses are of the same kind."""
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)

_NORM_OF_WEIGHT = "weight_norm: the norms of the weight's slices, so ‖g‖² = ‖W‖²"
_DIRECTION = "weight_norm: only its direction counts"
_FIXED = {
    parametrizations._SpectralNorm: "divided by its spectral norm: only its direction counts",
    parametrizations._Orthogonal: "orthogonal: the weight's norm is fixed",
}


def find_uses(model: nn.Module) -> list[list[Use]]:
    """Return the uses of each parameter, the parameters in the order of `model.parameters()`.

    Raises InputError if `model` is no module, or one whose parameters do not exist yet or lost their modules.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
    found: dict[int, list[Use]] = {}
    for use in _walk(model):
        found.setdefault(id(use.parameter), []).append(use)
    return list(found.values())


def _walk(model: nn.Module) -> Iterator[Use]:
    modules = dict(model.named_modules(remove_duplicate=False))
    exempt = _exempted(modules)
    for path, module in modules.items():
        _refuse_scripted(module, path)
        for slot, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            _refuse_unmade(parameter, module, path)
            name = _plain(f"{path}.{slot}" if path else slot, modules)
            holder, place = module, path.split(".") if path else []
            if isinstance(module, ParametrizationList):
                *place, _, of = place
                holder = modules[".".join(place)]
                role, why = _role_parametrised(holder, of, module, slot, parameter)
                slot = of
            else:
                role, why = _role(module, slot, parameter)
            computed = ".".join([*place, _hooked(holder, slot)])
            said = marked(parameter) or _listed((name, _plain(computed, modules)), exempt)
            if said:
                role, why = "exempt", said
            within = tuple(modules[".".join(place[:depth])] for depth in range(len(place)))
            yield Use(name, holder, slot, parameter, role, why, within)


#: Methods by which a model lists names, or parts of names, that are not for decay (timm; Swin has both).
_LISTS = ("no_weight_decay", "no_weight_decay_keywords")


def _exempted(modules: Mapping[str, nn.Module]) -> list[tuple[str, str, str]]:
    """Return what the modules list, as (name, "", reason) or (start of a name, keyword, reason)."""
    found = []
    for path, module in modules.items():
        if _is_wrapper(module):
            continue  # a compiled one passes on what its module lists
        for method in _LISTS:
            listed = getattr(module, method, ())
            names = listed() if callable(listed) else listed
            if names is None or isinstance(names, bool):
                continue  # a setting of the module's own
            if isinstance(names, str) or not isinstance(names, Collection) or not _all_text(names):
                raise InputError(
                    f"{_where(module, path)}: {method} must give a set or list of names of parameters, not "
                    f"{names!r:.60}."
                )
            start, why = f"{path}." if path else "", f"in {method} of {type_name(module)}"
            if method == _LISTS[0]:
                for name in names:  # as the tree has it now, or as it was before parts of it were wrapped
                    whole = {_plain(start + name, modules), _plain(start, modules) + name}
                    found += [(each, "", why) for each in whole]
            else:
                found += [(_plain(start, modules), name, why) for name in names]
    return found


def _all_text(names: Collection[object]) -> bool:
    return all(isinstance(name, str) for name in names)


def _listed(names: Sequence[str], exempt: Sequence[tuple[str, str, str]]) -> str:
    """Return the reason if a module lists one of a parameter's names, "" if none does."""
    for start, keyword, why in exempt:
        for name in names:
            if keyword in name.removeprefix(start) if name.startswith(start) and keyword else name == start:
                return why
    return ""


def _hooked(module: nn.Module, slot: str) -> str:
    """Return the name of the weight that a forward hook computes from a slot, else the slot."""
    for hook in module._forward_pre_hooks.values():
        name = getattr(hook, "_tensor_name", getattr(hook, "name", None))
        if slot in (f"{name}_g", f"{name}_v", f"{name}_orig"):
            return str(name)
    return slot


def _role(module: nn.Module, slot: str, parameter: torch.Tensor) -> tuple[str, str]:
    """Return role and reason of a parameter that a module holds under the name `slot`."""
    hooked = _role_hooked(module, slot, parameter)
    if hooked:
        return hooked
    for types, roles in SLOTS:
        if isinstance(module, types) and slot in roles:
            return roles[slot], _of(roles[slot], module)
    if isinstance(module, _RECURRENT) and slot in _registered(module):
        role = "weight" if parameter.ndim > 1 else "bias"
        return role, _of(role, module)
    if next(module.children(), None) is None:
        called = role_by_class(module, nn.Module, [p.shape for p in module.parameters(recurse=False)])
        if called:
            return called, called_so(module, called)
    return role_by_shape(parameter.shape, type_name(module))


def _registered(module: nn.Module) -> Sequence[str]:
    """Return the names of the parameters that a recurrent layer has from its base class."""
    if isinstance(module, nn.RNNBase):
        return module._flat_weights_names
    return "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def _of(role: str, module: nn.Module) -> str:
    return f"{ {'norm': 'gain or shift', 'vector': 'slope'}.get(role, role) } of {_public_type(module)}"


def _public_type(module: nn.Module) -> str:
    """Return the name of the class of `torch.nn` that the module is, or derives from."""
    names = (cls.__name__ for cls in type(module).__mro__ if getattr(nn, cls.__name__, None) is cls)
    return str(next(names))


def _role_parametrised(
    holder: nn.Module, slot: str, chain: ParametrizationList, original: str, parameter: torch.Tensor
) -> tuple[str, str]:
    """Return role and reason of what `torch.nn.utils.parametrize` computes the holder's slot from."""
    for kind, reason in _FIXED.items():
        if any(isinstance(step, kind) for step in chain):
            return _unless_exempt(*_role(holder, slot, parameter), "normalised", reason)
    if isinstance(chain[0], parametrizations._WeightNorm):
        return _weight_norm_part(holder, slot, chain.get_parameter("original1"), original == "original0")
    role, why = _role(holder, slot, parameter)
    return role, f"{why}, parametrised"


def _weight_norm_part(
    holder: nn.Module, slot: str, direction: torch.Tensor, is_norm: bool
) -> tuple[str, str]:
    """Return role and reason of the norms g, or of the direction v, of a weight W = g·v/‖v‖."""
    role, why = _role(holder, slot, direction)
    if is_norm:
        return _unless_exempt(role, why, "weight", _NORM_OF_WEIGHT)
    return _unless_exempt(role, why, "normalised", _DIRECTION)


def _unless_exempt(role: str, why: str, new: str, reason: str) -> tuple[str, str]:
    """Keep the role of a slot that would not be decayed without the parametrisation either."""
    return (role, why) if role in ("bias", "norm", "embedding") else (new, reason)


def _role_hooked(module: nn.Module, slot: str, parameter: torch.Tensor) -> tuple[str, str] | None:
    """Return role and reason where a forward hook, the old way to parametrise, computes the weight."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and slot in (f"{hook.name}_g", f"{hook.name}_v"):
            direction = module.get_parameter(f"{hook.name}_v")
            return _weight_norm_part(module, hook.name, direction, slot == f"{hook.name}_g")
        if isinstance(hook, SpectralNorm) and slot == f"{hook.name}_orig":
            role, why = _role(module, hook.name, parameter)
            return _unless_exempt(role, why, "normalised", _FIXED[parametrizations._SpectralNorm])
        if isinstance(hook, prune.BasePruningMethod) and slot == f"{hook._tensor_name}_orig":
            role, why = _role(module, hook._tensor_name, parameter)
            return role, f"{why}, pruned"
    return None


def _plain(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Return the name without what `torch.compile` and parallel wrappers put into it."""
    parts = name.split(".")
    kept = [
        part
        for depth, part in enumerate(parts)
        if not (".".join(parts[:depth]) in modules and _is_wrapper(modules[".".join(parts[:depth])]))
    ]
    return ".".join(kept)


def _is_wrapper(module: nn.Module) -> bool:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return True
    dynamo = sys.modules.get("torch._dynamo")  # not loaded: nothing is compiled, and loading it takes seconds
    return dynamo is not None and isinstance(module, dynamo.OptimizedModule)


def _refuse_scripted(module: nn.Module, path: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{_where(module, path)} is compiled by TorchScript, which loses the types that weight decay is "
            "decided by. Pass the model as it was before torch.jit.script or torch.jit.trace."
        )


def _refuse_unmade(parameter: torch.Tensor, module: nn.Module, path: str) -> None:
    if is_lazy(parameter):
        raise InputError(
            f"{_where(module, path)} is lazy: its parameters have no shape yet. Run one batch through the "
            "model first."
        )
    if getattr(parameter, "_is_flat_param", False):
        raise InputError(
            f"{_where(module, path)} holds its parameters in one flat vector (FullyShardedDataParallel), so "
            "weights and biases cannot be told apart. Shard the model with fully_shard, which keeps "
            "them apart."
        )


def _where(module: nn.Module, path: str) -> str:
    return f"The module '{path}' ({type_name(module)})" if path else f"The model ({type_name(module)})"
