"""What is to be fitted: rows, loss, alpha or the rule that chooses it, and how to solve; checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.memory import MemorySource
from elltwo.data.random_features import MappedSource
from elltwo.errors import InputError, did_you_mean
from elltwo.folds import FoldPlan
from elltwo.losses import Gaussian, Loss
from elltwo.margins import Margins
from elltwo.problem import Problem
from elltwo.selection import Rule
from elltwo.solvers.centers import WAYS, count_rows, take_rows
from elltwo.solvers.kernel_fit import standardized

Array = npt.NDArray[Any]

SOLVERS = ("auto", "exact", "cg", "cholesky", "nystrom")
#: Most rows whose kernel matrix is diagonalised, and most whose kernel matrix is held.
MOST_DIAGONALISED, MOST_HELD = 20_000, 40_000
#: Most rows that "auto" gives to Newton's method in as many dimensions, for losses other than squared error.
MOST_NEWTON = 1_000
#: Where conjugate gradients stop: ‖y − b − (K + αW⁻¹)a‖/‖y − ȳ‖, and the normal equations of Nyström.
TOL, NYSTROM_TOL = 2e-15, 1e-10
#: Centres that are taken unless their number is given: so many times √n, within these bounds, for squared
#: error and for other losses, whose every step costs what squared error costs once.
PER_ROOT, SQUARED_CENTERS, LOSS_CENTERS = 5.0, (100, 2_000), (200, 500)


@dataclass(frozen=True)
class Described:
    """Weighted means and population standard deviations of the columns and targets, and how many rows."""

    means: Array
    scales: Array
    target_means: Array
    target_scales: Array
    weight: float
    rows: int


@dataclass(frozen=True, eq=False)
class KernelTask:
    """What is to be fitted, and how.

    Attributes
    ----------
    source : Source
        The rows x, in memory or not.
    rule, fixed : Rule or None, array (T,) or None
        What chooses alpha, or alpha itself on the scale of `alpha_scale`.
    loss : Loss
    n_centers : int or None
        Of Nyström.
    centers : {"uniform", "leverage"}
        How they are chosen.
    standardize : bool
        Whether the kernel sees (x − mean)/sd in place of x.
    given_plan : FoldPlan or None
        Folds in place of the rule's own.
    per_decade : float
        Alphas for each power of ten of the automatic grid, for losses other than squared error.
    watch : callable or None
        Looks at held-out rows: see `elltwo.engine.fit_source`.
    """

    source: Source
    rule: Rule | None
    fixed: Array | None
    loss: Loss = field(default_factory=Gaussian)
    fit_intercept: bool = True
    per_target: bool = False
    alpha_scale: str = "sum"
    solver: str = "auto"
    n_centers: int | None = None
    centers: str = "uniform"
    tol: float | None = None
    seed: int = 0
    standardize: bool = False
    given_plan: FoldPlan | None = None
    per_decade: float = 3.0
    watch: Any = None

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            hint = did_you_mean(str(self.solver), SOLVERS)
            raise InputError(f"solver {self.solver!r} is not known.{hint} Choose from: {', '.join(SOLVERS)}.")
        if self.alpha_scale not in ("sum", "mean"):
            raise InputError(f"alpha_scale must be 'sum' or 'mean'; got {self.alpha_scale!r}.")
        if self.centers not in WAYS:
            hint = did_you_mean(str(self.centers), WAYS)
            raise InputError(f"centers must be 'uniform' or 'leverage'; got {self.centers!r}.{hint}")
        m, tol = self.n_centers, self.tol
        if m is not None and (isinstance(m, bool) or not isinstance(m, (int, np.integer)) or m < 1):
            raise InputError(f"n_centers must be a whole number of at least 1; got {m!r}.")
        if self.solver != "nystrom":
            for name, given in (("n_centers", m is not None), ("centers", self.centers != "uniform")):
                if given:
                    raise InputError(f"{name} needs solver='nystrom'; solver is {self.solver!r}.")
        elif m is not None and m > self.n:
            raise InputError(f"n_centers must be a whole number from 1 to the {self.n} rows; got {m!r}.")
        if tol is not None and not (isinstance(tol, (int, float, np.number)) and 0 < tol < 1):
            raise InputError(f"tol must be a number between 0 and 1; got {tol!r}.")
        direct = self.solver in ("exact", "cholesky") or (self.solver == "auto" and self.rule is not None)
        if tol is not None and direct and self.squared:
            raise InputError(f"tol is where iterations stop, and solver={self.solver!r} has none here.")
        if self.loss.coupled and self.fixed is not None and len(np.unique(self.fixed)) > 1:
            raise InputError(
                "alpha has a value for each class, but the classes are one model; give one number."
            )

    @property
    def squared(self) -> bool:
        """Whether the loss is squared error."""
        return isinstance(self.loss, Gaussian)

    @cached_property
    def n(self) -> int:
        """Number of rows."""
        return count_rows(self.source)

    @property
    def alpha(self) -> Array:
        """The given alphas on the sum scale, (T,)."""
        assert self.fixed is not None
        return self.fixed * (self.about.weight if self.alpha_scale == "mean" else 1.0)

    @cached_property
    def plan(self) -> FoldPlan | None:
        """The folds that the rule needs."""
        if self.given_plan is not None or self.rule is None:
            return self.given_plan
        return self.rule.plan(self.source)

    @cached_property
    def about(self) -> Described:
        """What one pass over the rows says of their columns."""
        return describe(self.source)

    @cached_property
    def scaled(self) -> Source:
        """The rows as the kernel sees them."""
        if not self.standardize:
            return self.source
        means, scales = self.about.means, self.about.scales
        return MappedSource(self.source, lambda X: standardized(X, means, scales), self.source.feature_names)

    @cached_property
    def held(self) -> MemorySource:
        """The rows as the kernel sees them, in memory as float64."""
        source = self.scaled
        plain = isinstance(source, MemorySource) and isinstance(source.X, np.ndarray)
        if plain and source.X.dtype == np.float64:  # type: ignore[attr-defined]
            return source  # type: ignore[return-value]
        return take_rows(source, np.arange(self.n))

    def sample(self, rows: int) -> Array:
        """Return about so many rows as the kernel sees them, evenly spread, or all that are in memory."""
        if isinstance(self.source, MemorySource) or self.n <= rows:
            return np.asarray(self.held.X)
        return np.asarray(take_rows(self.scaled, np.arange(0, self.n, -(-self.n // rows))).X)

    @property
    def method(self) -> tuple[str, str]:
        """The solver and the reason."""
        if not self.squared:
            return self._method_of_loss()
        n, solver, why = self.n, self.solver, "asked for"
        if solver == "auto":
            direct = self.rule is not None or bool(np.any(self.alpha == 0))
            most = MOST_DIAGONALISED if direct else MOST_HELD
            if n > most:
                return "nystrom", f"{n:,} rows are more than the {most:,} of an exact solution"
            if self.rule is not None:
                return "exact", "one factorisation of the kernel matrix serves every alpha"
            return ("exact", "alpha = 0 needs the rank of the kernel matrix") if direct else ("dual", "")
        if solver in ("cg", "cholesky") and (self.rule is not None or np.any(self.alpha == 0)):
            raise InputError(
                f"solver={solver!r} solves for one positive alpha; a rule, or alpha = 0, needs 'exact'."
            )
        self._check_size(solver)
        return solver, why

    def _method_of_loss(self) -> tuple[str, str]:
        if self.solver in ("cg", "cholesky"):
            raise InputError(
                f"solver={self.solver!r} is for squared error; for {self.loss.name} loss choose from: auto, "
                "exact, nystrom."
            )
        if self.solver != "auto":
            self._check_size(self.solver)
            return self.solver, "asked for"
        if self.n > MOST_NEWTON:
            return "nystrom", f"{self.n:,} rows are more than the {MOST_NEWTON:,} of an exact solution"
        return "exact", "Newton's method in the kernel matrix's own coordinates"

    def _check_size(self, solver: str) -> None:
        most = MOST_DIAGONALISED if solver == "exact" else MOST_HELD
        if solver != "nystrom" and self.n > most:
            what = "diagonalise" if solver == "exact" else "hold"
            raise InputError(
                f"{self.n:,} rows are too many to {what} their kernel matrix (the limit is {most:,}). "
                "Use solver='nystrom', which needs a few thousand centres only."
            )

    @property
    def count_of_centers(self) -> int:
        """Centres of Nyström."""
        if self.n_centers is not None:
            return self.n_centers
        least, most = SQUARED_CENTERS if self.squared else LOSS_CENTERS
        return min(self.n, most, max(least, int(np.ceil(PER_ROOT * np.sqrt(self.n)))))

    @property
    def objective(self) -> str:
        """The minimised objective in words."""
        ridge = Problem(self.source, fit_intercept=self.fit_intercept, loss=self.loss).objective()
        errors, rest = ridge.split(" + alpha * ", 1)
        return f"{errors} + alpha * squared norm of f in the kernel's space; {rest.split('; ', 1)[1]}"


def describe(source: Source) -> Described:
    """Return means, spreads and counts of the rows, in one pass.

    Raises
    ------
    InputError
        If a value is not finite, or there are no rows.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        parts = [Margins.of(block.X, block.y, block.weights) for block in source.blocks()]
        if not parts:
            raise InputError("the data have no rows.")
        all_rows = reduce(Margins.merge, parts)
        if not (np.isfinite(all_rows.xx).all() and np.isfinite(all_rows.yy).all()):
            raise source.why_not_finite()
    return Described(
        all_rows.x_mean,
        all_rows.x_scale,
        all_rows.y_mean,
        all_rows.y_scale,
        all_rows.weight,
        all_rows.rows,
    )
