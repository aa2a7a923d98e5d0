"""The inverse of the penalised Hessian, H⁻¹ = (G + αP̃)⁻¹, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.array import ROUNDOFF, solve_upper
from elltwo.errors import InputError, name_some
from elltwo.inference.rows import Rows
from elltwo.penalties import QuadraticForm
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: Condition number of the column-scaled Hessian beyond which its inverse has no digits left.
MOST_CONDITION = 1e-2 / ROUNDOFF


@dataclass(frozen=True, eq=False)
class Inverse:
    """H⁻¹ and H⁻¹GH⁻¹ about the centre, with tr H⁻¹G."""

    inverse: Array
    model: Array
    trace: float


def invert_targets(
    problem: Problem, gathered: list[Rows], form: QuadraticForm, alphas: Array, varies: Array
) -> list[Inverse]:
    """Return the inverse for each target; one is made for targets that share Gram and alpha.

    The coefficients of features that do not vary (p,) are 0 for sure: their rows and columns are 0.
    """
    P, own = _penalty(problem, form), _coordinates(problem, varies)
    made: dict[tuple[int, float], Inverse] = {}
    result = []
    for rows, alpha in zip(gathered, alphas.tolist(), strict=True):
        key = (id(rows.gram), alpha)
        if key not in made:
            E = np.zeros((len(P), len(own)))
            E[own] = _inverse_root((rows.gram + alpha * P)[np.ix_(own, own)], problem, alpha, own)
            made[key] = _shrunk(E, rows.gram, E)
        result.append(made[key])
    return result


def invert_joint(
    problem: Problem, rows: Rows, form: QuadraticForm, alpha: float, K: int, varies: Array
) -> Inverse:
    """Return the inverse for K classes, whose information says nothing on what they have in common.

    θₖ = Σₐ Cₖₐ·uₐ + s, with C orthonormal contrasts (CᵀC = I, Cᵀ1 = 0), parts the Hessian into G + αP̃ for
    the contrasts and αP̃ for the common part s/√K. Where s is not penalised it is fixed (Σₖ bₖ = 0).
    `varies` as for `invert_targets`.
    """
    P, q = _penalty(problem, form), len(rows.gram) // K
    own = _coordinates(problem, varies)
    C = np.linalg.qr(np.column_stack([np.ones(K), np.eye(K)[:, : K - 1]]))[0][:, 1:]
    S = np.kron(C, np.eye(q)[:, own])
    G = S.T @ rows.gram @ S
    G = (G + G.T) / 2
    E = _inverse_root(G + alpha * np.kron(np.eye(K - 1), P[np.ix_(own, own)]), problem, alpha, own)
    found = _shrunk(E, G, S @ E)
    strength = np.where(varies, alpha * form.d, 0.0) if form.rotation is None else alpha * form.d
    known = np.where(strength > 0, 1.0 / np.where(strength > 0, strength, 1.0), 0.0)
    common = QuadraticForm(known, form.rotation).matrix()
    if problem.fit_intercept:  # b is fixed, and so b + centreᵀs moves with s
        L = np.vstack([np.eye(len(known)), rows.centre])
        common = L @ common @ L.T
    inverse = found.inverse + np.kron(np.full((K, K), 1.0 / K), common)
    return Inverse(inverse, found.model, found.trace)


def _coordinates(problem: Problem, varies: Array) -> Array:
    """Return the positions of the features that vary, and of the intercept, if there is one."""
    return np.flatnonzero(np.append(varies, True) if problem.fit_intercept else varies)


def _penalty(problem: Problem, form: QuadraticForm) -> Array:
    """Return P̃: P with a zero row and column for the intercept, if there is one."""
    P = form.matrix()
    return np.pad(P, (0, 1)) if problem.fit_intercept else P


def _shrunk(E: Array, gram: Array, out: Array) -> Inverse:
    """Return H⁻¹ = EEᵀ and what follows from it; `out` is E in the coordinates of the result."""
    F = E.T @ gram @ E
    return Inverse(out @ out.T, out @ F @ out.T, float(np.trace(F)))


def _inverse_root(H: Array, problem: Problem, alpha: float, own: Array) -> Array:
    """Return E with EEᵀ = H⁻¹, by a Cholesky factorisation of H with its columns scaled to diagonal 1.

    `own` says which coefficients the coordinates of H are (of each class, one after the other).
    """
    size = np.sqrt(np.maximum(H.diagonal(), 0.0))
    scale = np.where(size > 0, size, 1.0)
    scaled = H / scale / scale[:, None]
    try:
        upper = np.linalg.cholesky(scaled).T
        root = solve_upper(upper, np.eye(len(H)))
        inverse = root @ root.T
        condition = np.abs(scaled).sum(axis=0).max() * np.abs(inverse).sum(axis=0).max()
        if condition < MOST_CONDITION:
            return np.asarray(root / scale[:, None])
    except np.linalg.LinAlgError:
        pass
    vector = np.abs(np.linalg.eigh(scaled)[1][:, 0])
    involved = own[np.unique(np.flatnonzero(vector > 0.1 * vector.max()) % len(own))]
    names = [*problem.source.feature_names, "(intercept)"]
    raise InputError(
        f"at alpha={alpha:.5g} the rows do not determine every coefficient, so there is no standard error: "
        f"see {name_some([names[j] for j in involved])}, constant or a combination of other columns. Drop "
        "columns, or raise alpha."
    )
