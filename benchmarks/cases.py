"""All claims about speed and memory, one function each; those about ridge regression are written here.

Each compares with a peer, or with the hardware's own limit, in the same process and run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import elasticnet
import kernels
import likelihoods
from outcome import Outcome
from timing import best_of, seconds


def problem(n: int, p: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal(p) + rng.standard_normal(n)


ALPHAS = np.logspace(-3, 5, 100)


def loo() -> Outcome:
    """50,000 × 300, 100 alphas by leave-one-out, against scikit-learn's RidgeCV(alphas)."""
    from sklearn.linear_model import RidgeCV

    from elltwo import LOO, Ridge

    X, y = problem(50_000, 300)
    (ours,) = best_of([lambda: Ridge(LOO(alphas=ALPHAS)).fit(X, y)], 7)
    theirs = seconds(lambda: RidgeCV(ALPHAS).fit(X, y))
    return Outcome(theirs / ours, 40, True, f"{ours:.2f} s against {theirs:.1f} s")


def kfold() -> Outcome:
    """50,000 × 300, 100 alphas by 5-fold, against scikit-learn's RidgeCV(alphas[::10], cv=5)."""
    from sklearn.linear_model import RidgeCV

    from elltwo import KFold, Ridge

    X, y = problem(50_000, 300)
    (ours,) = best_of([lambda: Ridge(KFold(5, alphas=ALPHAS)).fit(X, y)], 7)
    theirs = seconds(lambda: RidgeCV(ALPHAS[::10], cv=5).fit(X, y))
    return Outcome(theirs / ours, 80, True, f"{ours:.2f} s against {theirs:.1f} s")


def gram() -> Outcome:
    """200,000 × 300, one fixed alpha, against the time of X.T @ X."""
    from elltwo import Ridge

    X, y = problem(200_000, 300)
    ours, limit = best_of([lambda: Ridge(1.0).fit(X, y), lambda: X.T @ X], 9)
    return Outcome(ours / limit, 1.3, False, f"{ours:.3f} s against {limit:.3f} s")


def memory() -> Outcome:
    """Peak extra memory of a tall fit (LOO), as a share of X, 200,000 × 300."""
    import tracemalloc

    from elltwo import Ridge

    X, y = problem(200_000, 300)
    Ridge().fit(X[:1000], y[:1000])
    tracemalloc.start()
    Ridge().fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    return Outcome(peak / X.nbytes, 0.1, False, f"{peak / 2**20:.0f} MiB beside {X.nbytes / 2**20:.0f} MiB")


def imports() -> Outcome:
    """`import elltwo` against `import sklearn.linear_model`."""

    def run(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    empty, ours, theirs = best_of([run("pass"), run("import elltwo"), run("import sklearn.linear_model")], 7)
    ours, theirs = ours - empty, theirs - empty
    return Outcome(ours / theirs, 0.25, False, f"{ours * 1e3:.0f} ms against {theirs * 1e3:.0f} ms")


def parquet() -> Outcome:
    """10 million × 31 float32 Parquet: `elltwo fit --select kfold` against Polars' mean of all columns.

    Both are whole commands, start of Python included.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.parquet"
        subprocess.run([sys.executable, "-c", _WRITE, str(path)], check=True)
        elltwo = [sys.executable, "-m", "elltwo", "fit", str(path), "--target", "y", "--select", "kfold"]
        polars = [sys.executable, "-c", _POLARS, str(path)]
        quiet = subprocess.DEVNULL
        ours, theirs = best_of(
            [lambda c=c: subprocess.run(c, check=True, stdout=quiet, stderr=quiet) for c in (elltwo, polars)],
            5,
        )
        peak = _peak_memory(elltwo)
    return Outcome(
        ours / theirs, 2.5, False, f"{ours:.2f} s against {theirs:.2f} s; peak memory {peak:.2f} GB"
    )


_WRITE = """
import sys, numpy as np, pyarrow as pa, pyarrow.parquet as pq
rng = np.random.default_rng(0)
beta, names, writer = rng.standard_normal(30, dtype="f4"), [f"x{j}" for j in range(30)] + ["y"], None
for _ in range(10):
    X = rng.standard_normal((1_000_000, 30), dtype="f4")
    y = X @ beta + rng.standard_normal(1_000_000, dtype="f4")
    table = pa.table([*map(pa.array, X.T.copy()), pa.array(y)], names=names)
    writer = writer or pq.ParquetWriter(sys.argv[1], table.schema)
    writer.write_table(table)
writer.close()
"""
_POLARS = "import sys, polars as pl; print(pl.scan_parquet(sys.argv[1]).select(pl.all().mean()).collect())"


def _peak_memory(command: list[str]) -> float:
    """Return the peak resident memory of a command in GB."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return usage.ru_maxrss / 1e6


CASES: tuple[Callable[[], Outcome], ...] = (
    *(loo, kfold, gram, memory, imports, parquet),
    *likelihoods.CASES,
    *kernels.CASES,
    *elasticnet.CASES,
)
