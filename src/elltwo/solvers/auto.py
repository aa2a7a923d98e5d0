"""Which solver serves which problem, as one table that can be read and is used as it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elltwo.errors import InputError, did_you_mean
from elltwo.problem import Problem
from elltwo.solvers.cholesky import CholeskySolver
from elltwo.solvers.coupled import MOST_ORDER as MOST_COUPLED
from elltwo.solvers.dual import DualSolver
from elltwo.solvers.gradient import GradientSolver
from elltwo.solvers.newton import NewtonSolver
from elltwo.solvers.newton_cg import NewtonCGSolver
from elltwo.solvers.orthogonal import OrthogonalSolver
from elltwo.solvers.reduced import ReducedSolver
from elltwo.solvers.sgd import SGDSolver
from elltwo.solvers.spectral import SpectralSolver

#: Every solver of the package, by name.
SOLVERS = (
    SpectralSolver(),
    CholeskySolver(),
    OrthogonalSolver(),
    DualSolver(),
    NewtonSolver(),
    ReducedSolver(),
    NewtonCGSolver(),
    GradientSolver(),
    SGDSolver(),
)

#: A wide problem on disk is read into memory for the dual up to this size.
DUAL_BYTES = 1 << 30
#: Most bytes of a matrix of inner products, or of wide rows made dense.
MOST_BYTES = 16 << 30
#: Largest order of a matrix that is diagonalised.
MOST_ORDER = 20_000
#: Sparse rows with more features than this are never made dense.
SPARSE_FEATURES = 2_000
#: Below this, a path is computed in the space of the rows whatever the number of features.
FEW_ROWS = 256
#: The orthogonal method when there are more features than rows: an SVD of the rows themselves.
WIDE_ORTHOGONAL = DualSolver(name="orthogonal", exact=True)


@dataclass(frozen=True)
class Look:
    """What the table looks at: rows, features, whether one alpha is asked for, where the rows are.

    `classes` is the number of classes that share a softmax, else 0.
    """

    n: int | None
    p: int
    one_alpha: bool
    in_memory: bool
    squared: bool = True
    sparse: bool = False
    classes: int = 0

    @property
    def huge(self) -> bool:
        """Whether the rows are sparse and their features too many for a p × p matrix to pay."""
        return self.sparse and self.p > (
            MOST_ORDER if self.squared and not self.one_alpha else SPARSE_FEATURES
        )

    @property
    def wide(self) -> bool:
        """Whether there are at least as many features as rows, and the rows fit in memory."""
        if self.n is None or self.n > min(self.p, MOST_ORDER):
            return False
        return self.in_memory or 8 * self.n * self.p <= DUAL_BYTES

    @property
    def many_classes(self) -> bool:
        """Whether the matrix of all classes is too large to be factorised, in the space of the rows too."""
        inner = min(self.n or self.p, self.p) if self.wide else self.p
        return self.classes * (inner + 1) > MOST_COUPLED

    @property
    def few(self) -> bool:
        """Whether the rows are so few that their full n × n space costs nothing."""
        return not self.one_alpha and self.n is not None and self.n <= FEW_ROWS


@dataclass(frozen=True)
class Choice:
    """One line of the table."""

    when: str
    applies: Callable[[Look], bool]
    solver: Any
    why: str


AUTO = (
    Choice(
        "sparse rows with many features",
        lambda p: p.huge,
        NewtonCGSolver(),
        "sparse rows with many features: conjugate gradients keep them sparse",
    ),
    Choice(
        "many classes times features",
        lambda p: p.many_classes,
        NewtonCGSolver(),
        "many classes times features: conjugate gradients need no matrix of them",
    ),
    Choice(
        "another loss than squared error, no more rows than features",
        lambda p: not p.squared and p.wide,
        ReducedSolver(),
        "no more rows than features: Newton's method in the space of the rows",
    ),
    Choice(
        "another loss than squared error",
        lambda p: not p.squared,
        NewtonSolver(),
        "Newton's method on weighted moments, all alphas at once",
    ),
    Choice(
        "no more rows than features",
        lambda p: p.wide,
        DualSolver(),
        "no more rows than features: n x n is smaller",
    ),
    Choice("few rows", lambda p: p.few, WIDE_ORTHOGONAL, "few rows: an SVD of the rows keeps every digit"),
    Choice(
        "one alpha", lambda p: p.one_alpha, CholeskySolver(), "one alpha needs one Cholesky factorisation"
    ),
    Choice("many alphas", lambda _: True, SpectralSolver(), "one eigendecomposition serves every alpha"),
)
_ANY_LOSS = tuple(
    solver.name
    for solver in (NewtonSolver(), ReducedSolver(), NewtonCGSolver(), GradientSolver(), SGDSolver())
)
_ONLY = tuple(solver.name for solver in SOLVERS)
#: Solvers that make no matrix from which the leverages of leave-one-out could be had.
WITHOUT_LEVERAGES = tuple(solver.name for solver in (NewtonCGSolver(), GradientSolver(), SGDSolver()))
#: What limits the rounds of a solver that iterates on squared error.
ROUNDS = {GradientSolver: "max_passes", SGDSolver: "epochs", NewtonCGSolver: "max_steps"}
#: What takes over when u·κ̂² says that squaring the data would cost too many digits.
ORTHOGONAL = "the normal equations would lose digits (condition {condition:.1e})"


def choose(problem: Problem, requested: str, *, one_alpha: bool) -> tuple[Any, str]:
    """Return the solver and the reason, for "auto" or a solver's name.

    Raises
    ------
    InputError
        If no solver has that name, or the solver cannot serve the problem.
    """
    source = problem.source
    sparse = hasattr(getattr(source, "X", None), "tocsr")
    classes = source.n_targets if problem.loss.coupled else 0
    look = Look(
        source.n_rows, source.n_features, one_alpha, source.in_memory, problem.squared, sparse, classes
    )
    if not (look.huge or look.many_classes or requested == NewtonCGSolver.name):
        _check_memory(source.n_rows, source.n_features)
    if requested in _ONLY and not problem.squared and requested not in _ANY_LOSS:
        raise InputError(
            f"solver '{requested}' is for squared error; for {problem.loss.name} loss choose from: "
            f"auto, {', '.join(_ANY_LOSS)}."
        )
    if requested == "auto":
        choice = next(c for c in AUTO if c.applies(look))
        solver, why = choice.solver, choice.why
    else:
        solver, why = _named(requested, look), "asked for"
    _check_order(solver, look)
    return solver, why


def limited(solver: Any, max_iter: int | None) -> Any:
    """Return the solver with at most so many rounds for each alpha; one that does not iterate as it is."""
    if max_iter is None:
        return solver
    if isinstance(max_iter, bool) or not isinstance(max_iter, (int, np.integer)) or max_iter < 1:
        raise InputError(f"max_iter must be None or a whole number of at least 1; got {max_iter!r}.")
    field = ROUNDS.get(type(solver))
    return solver if field is None else replace(solver, **{field: int(max_iter)})


def leaves_one_out(problem: Problem) -> bool:
    """Return whether the solver that "auto" takes for a path has leave-one-out."""
    return choose(problem, "auto", one_alpha=False)[0].name not in WITHOUT_LEVERAGES


def _named(requested: str, look: Look) -> Any:
    """Return the solver of that name; "orthogonal" works on the rows themselves when they are few."""
    by_name = {s.name: s for s in SOLVERS}
    if requested not in by_name:
        known = ", ".join(["auto", *by_name])
        raise InputError(
            f"solver {requested!r} is not known.{did_you_mean(str(requested), by_name)} Choose from: {known}."
        )
    return WIDE_ORTHOGONAL if requested == "orthogonal" and look.wide else by_name[requested]


def _check_order(solver: Any, look: Look) -> None:
    """Refuse to diagonalise a matrix so large that it would take hours."""
    of_rows = isinstance(solver, DualSolver)
    order = look.n if of_rows else look.p
    free = not isinstance(solver, (SpectralSolver, OrthogonalSolver, DualSolver)) or isinstance(
        solver, CholeskySolver
    )
    if order is not None and order > MOST_ORDER and not free:
        raise InputError(
            f"solver '{solver.name}' would diagonalise a matrix of order {order:,} (the number of "
            f"{'rows' if of_rows else 'features'}), and the limit is {MOST_ORDER:,}. "
            "Give one alpha (Cholesky needs no diagonalisation), or use fewer features."
        )


def _check_memory(n: int | None, p: int) -> None:
    """Refuse a problem whose smaller matrix of inner products, or whose dense rows, cannot be held."""
    needed = 8 * p * p if n is None else 8 * p * min(n, p)
    if needed > MOST_BYTES:
        rows = "" if n is None else f"{n:,} rows and "
        raise InputError(
            f"{rows}{p:,} features need {needed / 2**30:.0f} GiB for a matrix of their inner products; "
            f"the limit is {MOST_BYTES / 2**30:.0f} GiB. Use fewer features (or levels of text columns)."
        )


def escalate(problem: Problem, solver: Any, condition: float) -> tuple[Any, str]:
    """Return the orthogonal twin of a solver that works with squares, and the reason."""
    reason = ORTHOGONAL.format(condition=condition**0.5)
    n = problem.source.n_rows
    wide = isinstance(solver, DualSolver) or (n is not None and n < problem.source.n_features)
    return (WIDE_ORTHOGONAL if wide else OrthogonalSolver()), reason
