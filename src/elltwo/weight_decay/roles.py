"""Which parameters of a network an L2 penalty is for: their roles, the user's rules, and the table of both.

A framework's own file says what a parameter *is* (its role in the module that holds it); this one decides
what follows from that. A shared parameter has several uses and is listed once.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elltwo.errors import InputError, did_you_mean
from elltwo.summary.layout import printable, width_of

ROLES: Mapping[str, bool] = {
    "weight": True,
    "bias": False,
    "norm": False,
    "embedding": False,
    "vector": False,
    "normalised": False,
    "exempt": False,
}
"""Roles, and whether their parameters are decayed where no rule says otherwise.

weight: matrix or kernel of a linear map. bias: what is added to a linear map. norm: gain and shift of a
normalisation. embedding: a looked-up or added table, whose rare rows would shrink without ever being used.
vector: scale, slope or other parameter that is no matrix. normalised: a weight whose size something else
sets, so that decaying it does not shrink the function. exempt: what the model itself says is not for decay.
"""


@dataclass(frozen=True)
class Use:
    """One place where a parameter is used, which is what a predicate among the rules is given.

    Attributes
    ----------
    name : str
        Path of the parameter in the model.
    module : object
        The module or layer that holds it.
    slot : str
        What that module calls it: "weight", "in_proj_bias", …; "" if it has no name for it.
    parameter : object
        The parameter itself.
    role : str
        One of `ROLES`.
    why : str
        What the role was seen from.
    within : tuple
        The modules that `module` is part of, the outermost first.
    """

    name: str
    module: Any
    slot: str
    parameter: Any
    role: str
    why: str
    within: tuple[Any, ...] = ()


Rules = Mapping[type | str | Callable[[Use], bool], bool | float]
"""Exceptions to the roles: what they are for (a type, a role, a predicate of `Use`), and times how much."""


@dataclass(frozen=True)
class ParameterRow:
    """One parameter in the table of `explain`.

    Attributes
    ----------
    names : tuple of str
        Every name that the parameter has in the model; several if it is shared.
    shape : tuple of int
    module : str
        Types of the modules that hold it.
    role : str
        The role that decided, one of `ROLES`.
    times : float
        What the weight decay or l2 is multiplied with for this parameter: 1, 0, or what a rule says.
    frozen : bool
        Not trained at present, so it is in no group and in no penalty.
    why : str
        The reason in a few words.
    kept : str
        A regulariser that the parameter has had before and keeps although it is not chosen here; "" if none.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    module: str
    role: str
    times: float
    frozen: bool
    why: str
    kept: str = ""

    @property
    def decayed(self) -> bool:
        """Whether the parameter is trained and shrunk."""
        return (self.times > 0 or bool(self.kept)) and not self.frozen

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterTable:
    """What is decayed, what is not, and why; `print` shows it as text.

    Attributes
    ----------
    rows : tuple of ParameterRow
        One for each parameter, in the model's own order.
    """

    rows: tuple[ParameterRow, ...]

    @property
    def decayed(self) -> int:
        """Number of parameter entries that are shrunk."""
        return sum(row.size for row in self.rows if row.decayed)

    @property
    def undecayed(self) -> int:
        """Number of parameter entries that are trained and not shrunk."""
        return sum(row.size for row in self.rows if not row.decayed and not row.frozen)

    @property
    def frozen(self) -> int:
        """Number of parameter entries that are not trained."""
        return sum(row.size for row in self.rows if row.frozen)

    def to_dict(self) -> dict[str, Any]:
        """Return rows and totals as plain values."""
        rows = [asdict(row) | {"decayed": row.decayed, "size": row.size} for row in self.rows]
        return {"rows": rows, "decayed": self.decayed, "undecayed": self.undecayed, "frozen": self.frozen}

    def __str__(self) -> str:
        heads = ["Parameter", "Shape", "Module", "Role", "Decay", "Why"]
        lines = _align([heads, *map(_cells, self.rows)])
        rule = "-" * max(map(width_of, lines))
        totals = (
            f"{self.decayed:,} decayed, {self.undecayed:,} not decayed, {self.frozen:,} frozen "
            f"(entries of {len(self.rows):,} parameters)."
        )
        return "\n".join([lines[0], rule, *lines[1:], rule, totals])

    __repr__ = __str__


def _cells(row: ParameterRow) -> list[str]:
    decay = {0.0: "no", 1.0: "yes"}.get(row.times, f"× {row.times:g}")
    decay = "frozen" if row.frozen else "kept" if row.kept else decay
    shape = " × ".join(map(str, row.shape)) or "scalar"
    return [
        ", ".join(printable(name, 72) for name in row.names),
        shape,
        printable(row.module, 36),
        row.role,
        decay,
        f"{row.why}; keeps {row.kept} from before" if row.kept else row.why,
    ]


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Pad text columns to their widest cell."""
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell + " " * (w - width_of(cell)) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def check_rules(rules: Rules | None, module: type) -> Rules:
    """Return the rules; raises InputError for one that cannot be used.

    Parameters
    ----------
    rules : mapping or None
        Keys: a subclass of `module`, a role, or a predicate of `Use`. Values: True, False, or a finite number
        ≥ 0 that multiplies the weight decay.
    module : type
        Base class of the framework's modules.
    """
    if rules is None:
        return {}
    if not isinstance(rules, Mapping):
        raise InputError(
            f"rules must be a mapping such as {{'embedding': True}}, not {type(rules).__name__}."
        )
    for match, times in rules.items():
        _check_match(match, module)
        if not isinstance(times, bool):
            check_strength(times, f"The value of the rule for {_named(match)}")
    return rules


def _check_match(match: Any, module: type) -> None:
    if isinstance(match, str):
        if match not in ROLES:
            raise InputError(
                f"rules: '{match}' is no role; the roles are {', '.join(ROLES)}.{did_you_mean(match, ROLES)} "
                "Parameters are not chosen by name: use a module's type, or a function of a use."
            )
    elif isinstance(match, type):
        if not issubclass(match, module):
            raise InputError(f"rules: {match.__name__} is no subclass of {module.__name__}.")
    elif not callable(match):
        raise InputError(
            f"rules: a key must be a module's type, a role or a function, not {type(match).__name__}."
        )


def check_strength(value: Any, what: str) -> float:
    """Return a finite number ≥ 0 as a float; raises InputError, which names it, for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} must be a number, not {type(value).__name__}.")
    strength = float(value)
    if not 0 <= strength < math.inf:
        raise InputError(f"{what} must be finite and not negative, not {value}.")
    return strength


def _named(match: Any) -> str:
    return f"'{match}'" if isinstance(match, str) else getattr(match, "__name__", repr(match))


def settle(uses: Sequence[Use], rules: Rules, *, shape: Iterable[int], frozen: bool) -> ParameterRow:
    """Decide about one parameter from all its uses.

    The first rule that matches one of the uses decides; without one, the parameter is decayed if the role of
    one of its uses is, unless another use sets its size or the model exempts it.
    """
    times, use, why = _by_rule(uses, rules) or _by_role(uses)
    names = tuple(dict.fromkeys(u.name for u in uses))
    types = ", ".join(dict.fromkeys(type_name(u.module) for u in uses))
    return ParameterRow(names, tuple(int(k) for k in shape), types, use.role, times, frozen, why)


def _by_rule(uses: Sequence[Use], rules: Rules) -> tuple[float, Use, str] | None:
    for match, times in rules.items():
        for use in uses:
            if _matches(match, use):
                return float(times), use, f"rule for {_named(match)}"
            if isinstance(match, type) and any(isinstance(outer, match) for outer in use.within):
                return float(times) * ROLES[use.role], use, f"{use.why}, in {_named(match)} (rule)"
    return None


def _matches(match: Any, use: Use) -> bool:
    if isinstance(match, str):
        return use.role == match
    if isinstance(match, type):
        return isinstance(use.module, match)
    return bool(match(use))


def _by_role(uses: Sequence[Use]) -> tuple[float, Use, str]:
    fixed = next((u for u in uses if u.role in ("normalised", "exempt")), None)
    use = fixed or next((u for u in uses if ROLES[u.role]), uses[0])
    others = [u.role for u in uses if u.role != use.role]
    shared = "; also used as " + ", ".join(dict.fromkeys(others)) if others else ""
    return float(ROLES[use.role]), use, use.why + shared


def marked(parameter: Any) -> str:
    """Return how a parameter itself says that it is not for decay, "" if it does not.

    Mamba sets `_no_weight_decay = True` on it, S4 `_optim = {"weight_decay": 0.0}`. Other numbers in
    `_optim` are settings for an optimiser and not read.

    >>> class A_log: _no_weight_decay = True
    >>> marked(A_log)
    'marked _no_weight_decay'
    """
    if getattr(parameter, "_no_weight_decay", False):
        return "marked _no_weight_decay"
    own = getattr(parameter, "_optim", None)
    none = isinstance(own, dict) and own.get("weight_decay") == 0
    return "its _optim sets weight_decay to 0" if none else ""


def type_name(module: Any) -> str:
    """Return the name of a module's type, as its author wrote it."""
    return type(module).__name__


_CALLED = {
    "norm": re.compile(r"Norm(ali[sz]ation)?(\d[dD]?)?$"),
    "embedding": re.compile(r"Embeddings?(\d[dD]?)?$"),
}


def role_by_class(module: Any, base: type, shapes: Iterable[Sequence[int]]) -> str | None:
    """Return "norm" or "embedding" for a module of unknown type that is one, else None.

    Its class, or one that it derives from, must be called so ("RMSNorm", "LayerNorm2d", "PositionEmbedding"),
    and all parameters that it holds must have one shape, as gain and shift of a normalisation have and a
    linear map with its bias has not. This only matters for parameters with several axes: one with a single
    axis is no matrix anyhow.

    >>> class RMSNorm: pass
    >>> role_by_class(RMSNorm(), object, [(8, 5, 5), (8, 5, 5)])
    'norm'
    """
    if len(set(map(tuple, shapes))) != 1:
        return None
    ours = [cls.__name__ for cls in type(module).__mro__ if issubclass(cls, base) and cls is not base]
    return next((role for role, name in _CALLED.items() if any(map(name.search, ours))), None)


def called_so(module: Any, role: str) -> str:
    """Return the reason that goes with `role_by_class`."""
    return f"{type_name(module)} is called {'a norm' if role == 'norm' else 'an embedding'}"


def role_by_shape(shape: Sequence[int], kind: str) -> tuple[str, str]:
    """Return the role of a parameter whose module's type says nothing about it, and the reason.

    >>> [role_by_shape(s, "Adapter")[0] for s in [(8, 64), (64,), (96, 1, 1), (1, 197, 64)]]
    ['weight', 'vector', 'vector', 'embedding']
    """
    if len(shape) < 2:
        return "vector", "a scalar" if not shape else "one axis: not a matrix"
    if len(shape) > 2 and shape[0] == 1:
        return "embedding", "first axis of length 1: the same for each row of a batch"
    if len(shape) > 2 and sum(length > 1 for length in shape) <= 1:
        return "vector", "one axis longer than 1: not a matrix"
    return "weight", f"matrix of {kind}"
