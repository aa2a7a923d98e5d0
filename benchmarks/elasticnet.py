"""Speed of the lasso path against R's glmnet, at a duality gap that is compared too.

Needs Rscript with the package glmnet (Debian and Ubuntu: r-cran-glmnet).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from outcome import Outcome, Unmeasured
from timing import best_of

N, P, ALPHAS = 2_000, 10_000, 100


def lasso_path() -> Outcome:
    """2,000 × 10,000 dense, 100 alphas from α_max to α_max/100, against glmnet at its default threshold.

    The detail gives the largest relative duality gap of each path; ours must be 100 times smaller. (With the
    default tolerance it is at rounding level, for about a third more time.)
    """
    from elltwo.data.memory import MemorySource
    from elltwo.problem import Problem
    from elltwo.solvers.coordinate import CoordinateSolver

    if not _has_glmnet():
        raise Unmeasured("R with glmnet is not installed")
    rng = np.random.default_rng(0)
    X = np.asfortranarray(rng.standard_normal((N, P)))
    theta = np.where(np.arange(P) % 100 == 0, rng.standard_normal(P), 0.0)
    y = X @ theta + 5 * rng.standard_normal(N)
    centred = y - y.mean()
    top = float(np.abs((X - X.mean(axis=0)).T @ centred).max())
    alphas = top * np.geomspace(1, 1e-2, ALPHAS)

    def ours() -> Any:
        problem, solver = Problem(MemorySource(X, y)), CoordinateSolver(1.0, tol=2e-5)
        (rows,) = solver.gather(problem)
        state = solver.state(rows, problem.form(rows.x_scale), True)
        return state.coef(alphas)[:, :, 0]

    (mine,) = best_of([ours], 3)
    theirs, coef = _glmnet(X, y, alphas / N)
    gaps = [_gap(X, y, alphas, c) for c in (ours(), coef)]
    if not gaps[0] * 100 <= gaps[1]:
        raise AssertionError(f"our gap {gaps[0]:.1e} is not 100 times smaller than {gaps[1]:.1e}")
    detail = f"{mine:.2f} s (gap {gaps[0]:.0e}) against {theirs:.2f} s (gap {gaps[1]:.0e})"
    return Outcome(mine / theirs, 1.0, False, detail)


def _has_glmnet() -> bool:
    if shutil.which("Rscript") is None:
        return False
    found = ["Rscript", "-e", 'quit(status = !requireNamespace("glmnet", quietly = TRUE))']
    return subprocess.run(found, check=False, capture_output=True).returncode == 0


def _glmnet(X: Any, y: Any, lam: Any) -> tuple[float, Any]:
    """Return the best of three times of glmnet, and its coefficients (A, p)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, values in (("X", X.ravel(order="F")), ("y", y), ("lambda", lam)):
            values.tofile(Path(folder) / name)
        command = ["Rscript", "-e", _R, folder, str(N), str(P), str(ALPHAS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        coef = np.fromfile(Path(folder) / "beta").reshape(ALPHAS, P)
    return float(done.stdout.split()[-1]), coef


_R = """
suppressMessages(library(glmnet)); a <- commandArgs(TRUE); setwd(a[1]); n <- as.integer(a[2:4])
X <- matrix(readBin("X", "double", n[1] * n[2]), n[1]); y <- readBin("y", "double", n[1])
lambda <- readBin("lambda", "double", n[3]); best <- Inf
for (i in 1:3) {
  t <- system.time(f <- glmnet(X, y, lambda = lambda, standardize = FALSE, type.gaussian = "naive"))[3]
  best <- min(best, t)
}
writeBin(as.vector(as.matrix(f$beta)), "beta"); cat(best)
"""


def _gap(X: Any, y: Any, alphas: Any, coef: Any) -> float:
    """Return the largest duality gap over the path, as a share of ½Σ(y − ȳ)², from the definition."""
    Z, e = X - X.mean(axis=0), y - y.mean()
    R = e[:, None] - Z @ coef.T
    C = Z.T @ R
    kappa = np.minimum(1.0, alphas / np.abs(C).max(axis=0))
    primal = 0.5 * (R**2).sum(axis=0) + alphas * np.abs(coef).sum(axis=1)
    dual = 0.5 * e @ e - 0.5 * ((e[:, None] - kappa * R) ** 2).sum(axis=0)
    return float((primal - dual).max() / (0.5 * e @ e))


CASES = (lasso_path,)
