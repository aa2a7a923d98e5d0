"""Conformance of a penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.penalties import Penalty, QuadraticForm
from elltwo.testing.comparing import ROUNDING, close, equal, read_only, require

Array = npt.NDArray[Any]


def check_penalty(penalty: Penalty, p: int) -> None:
    """Check a penalty for p features: (α/2)·θᵀPθ with P made for the scales of the columns.

    For equal scales, very unequal ones and a constant column (scale 0), P is symmetric and positive
    semi-definite, and the form's `d`, `rotation`, `apply`, `matrix` and `root` describe the same P.
    A number of features is either refused by `check`, or served.

    Parameters
    ----------
    penalty : Penalty
        With `form(scales)` and `check(p)`.
    p : int
        A number of features that the penalty fits.

    Raises
    ------
    AssertionError

    Examples
    --------
    A penalty on the differences between neighbouring coefficients:

    >>> import numpy as np
    >>> from elltwo.penalties import Matrix
    >>> class Smooth:
    ...     def form(self, scales):
    ...         D = np.diff(np.eye(len(scales)), axis=0)
    ...         return Matrix.of(D.T @ D).form(scales)
    ...     def check(self, p):
    ...         pass
    >>> check_penalty(Smooth(), p=4)
    """
    try:
        penalty.check(p)
    except InputError as error:
        raise AssertionError(f"check({p}) refuses the {p} features it was given: {error}") from error
    scales = {
        "equal scales": np.ones(p),
        "unequal scales": 10.0 ** np.linspace(-6, 6, p),
        "a constant column": np.r_[np.zeros(1), np.linspace(1, 2, p - 1)],
    }
    for name, s in scales.items():
        _check_form(penalty, read_only(s), f"form for {name}")
    for other in (p - 1, p + 1):
        _check_refusal(penalty, other)


def _check_form(penalty: Penalty, scales: Array, where: str) -> None:
    p = len(scales)
    form = penalty.form(scales)
    require(isinstance(form, QuadraticForm), f"{where}: {type(form).__name__} is not a QuadraticForm.")
    require(form.d.shape == (p,), f"{where}: d has shape {form.d.shape}; it must be ({p},).")
    good = np.isfinite(form.d).all() and (form.d >= 0).all()
    require(good, f"{where}: d must be finite and ≥ 0; it is {form.d}.")
    if form.rotation is not None:
        close(f"{where}: rotationᵀ·rotation", form.rotation.T @ form.rotation, np.eye(p))
    P, B = form.matrix(), form.root()
    size = max(float(np.abs(P).max()), np.finfo(np.float64).tiny)
    close(f"{where}: matrix()/max against its transpose", P / size, P.T / size)
    smallest = float(np.linalg.eigvalsh(P / size)[0])
    require(smallest >= -ROUNDING, f"{where}: matrix() has the negative eigenvalue {smallest * size:g}.")
    close(f"{where}: root()ᵀ·root()/max", B.T @ B / size, P / size)
    rank = int(np.count_nonzero(form.d))
    require(len(B) == rank, f"{where}: root() has {len(B)} rows; one per positive d is {rank}.")
    theta = read_only(np.cos(np.arange(3.0 * p)).reshape(p, 3))
    close(f"{where}: apply(θ)/max, θ (p, T)", form.apply(theta) / size, P @ theta / size)
    close(f"{where}: apply(θ)/max, θ (p,)", form.apply(theta[:, 0]) / size, P @ theta[:, 0] / size)
    equal(f"{where}: d, asked for again", penalty.form(scales).d, form.d)


def _check_refusal(penalty: Penalty, p: int) -> None:
    try:
        penalty.check(p)
    except InputError:
        return
    found = penalty.form(np.ones(p)).d.shape
    message = (
        f"check({p}) accepts {p} features, but form gives d of shape {found}; check must raise InputError."
    )
    require(found == (p,), message)
