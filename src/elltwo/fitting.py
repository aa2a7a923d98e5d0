"""Where users come in: `fit` for tables of any kind, `load` for saved models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from elltwo.data.base import Source
from elltwo.data.encode import Encoder, choose_features
from elltwo.data.table import TableSource, open_table
from elltwo.engine import fit_moments, fit_source
from elltwo.errors import InputError, did_you_mean
from elltwo.folds import DealtFolds, TimeFolds
from elltwo.modelfile import read
from elltwo.results import Fit
from elltwo.selection import KFold, as_rule

__all__ = ["FAMILIES", "fit", "fit_moments", "fit_source", "load"]

#: Families that `fit` can fit.
FAMILIES = ("gaussian",)


def fit(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    weights: str | None = None,
    family: str = "gaussian",
    select: Any = None,
    alpha: Any = None,
    folds: int | None = None,
    group: str | None = None,
    time: str | None = None,
    one_se: bool = False,
    alpha_per_target: bool = False,
    standardize: bool = True,
    missing: str = "error",
    solver: str = "auto",
    tol: float = 1e-10,
    sql: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Fit:
    """Fit a tuned, certified ridge model to a table.

    Minimises Σ wᵢ(yᵢ − b − xᵢᵀθ)² + α·θᵀPθ with P = diag(sⱼ²) if `standardize`, else the identity.
    The table is read block by block and never loaded as a whole.

    Parameters
    ----------
    data : path, glob, DataFrame, DuckDB relation, database file, SQL query or Source
        CSV, Parquet, JSON lines; pandas, Polars, Arrow.
    target : str or sequence of str
        Column(s) to predict.
    features, drop : sequences of str, optional
        Columns to use (default: all that have no other role), and columns to leave out.
    weights : str, optional
        Column of row weights: an integer column is counts, any other number type is precisions.
    family : {"gaussian"}
        Distribution of the target.
    select : str or rule, optional
        How alpha is chosen: "loo" (the default), "gcv", "kfold", "reml", "aic", "bic", or a rule object.
    alpha : float, optional
        Use this alpha (sum scale) instead of choosing one.
    folds : int, optional
        Number of folds of "kfold" (5 unless given); implies select="kfold".
    group : str, optional
        Column whose equal values stay in the same fold; implies select="kfold".
    time : str, optional
        Column to order rows by; each fold is predicted from its past only. Implies select="kfold".
    one_se : bool
        Take the largest alpha within one standard error of the best (LOO and K-fold).
    alpha_per_target : bool
        Choose an alpha for each target; otherwise one that minimises the mean of their scores.
    standardize : bool
        Penalise the coefficients of standardised features.
    missing : {"error", "mean", "drop"}
        What to do about missing values.
    solver, tol
        As in `elltwo.Ridge`.
    sql : str, optional
        Query to run on the data first.
    seed : int
        Decides how rows are dealt to folds.
    progress : callable, optional
        Called with (rows read, rows in all or None).

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        For data or arguments that cannot be used; the message says which, why and what to do.

    Examples
    --------
    >>> import elltwo
    >>> table = {"x": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [2.1, 3.9, 6.2, 7.8, 10.1]}
    >>> fitted = elltwo.fit(table, "y")
    >>> fitted.predict({"x": [6.0]}).round(1)
    array([12.])
    """
    if family not in FAMILIES:
        hint = did_you_mean(family, FAMILIES)
        raise InputError(f"family '{family}' is not available.{hint} Available: {', '.join(FAMILIES)}.")
    for name, flag in (
        ("one_se", one_se),
        ("standardize", standardize),
        ("alpha_per_target", alpha_per_target),
    ):
        if not isinstance(flag, bool):
            raise InputError(f"{name} must be True or False; got {flag!r}.")
    rule = _rule(select, alpha, folds, group, time, one_se, seed)
    options: dict[str, Any] = {
        "alpha_per_target": alpha_per_target,
        "standardize": standardize,
        "solver": solver,
        "tol": tol,
    }
    if isinstance(data, Source):
        _refuse_table_options(target=target, features=features, drop=drop, weights=weights, sql=sql)
        return _checked(fit_source(data, rule, **options))
    if target is None:
        raise InputError("target is missing: name the column to predict.")
    table = open_table(data, sql=sql)
    key = group if group is not None else time
    columns = choose_features(table, target=target, features=features, drop=drop, weights=weights, key=key)
    encoder = Encoder.fit(table, columns, missing=missing, weights=weights)
    source = TableSource(table, encoder, target, weights=weights, key=key, progress=progress)
    return _checked(fit_source(source, rule, **options)).with_encoder(encoder, source.rows_dropped)


def _rule(
    select: Any, alpha: Any, folds: int | None, group: str | None, time: str | None, one_se: bool, seed: int
) -> Any:
    """Return the rule, or the number alpha, that these arguments ask for; refuse those that contradict."""
    asks_folds = {"folds": folds, "group": group, "time": time}
    given = [name for name, value in asks_folds.items() if value is not None]
    if alpha is not None:
        if select is not None or given or one_se:
            other = "select" if select is not None else (given or ["one_se"])[0]
            raise InputError(
                f"alpha fixes the penalty, so {other} has nothing to choose. Give one of the two."
            )
        return alpha
    if select is not None and not isinstance(select, str):
        if given or one_se:
            raise InputError(f"{(given or ['one_se'])[0]} belongs in the rule object given as select.")
        return select
    name = select or ("kfold" if given else "loo")
    if given and name != "kfold":
        raise InputError(f"{given[0]} needs folds, but select is '{name}'. Use select='kfold'.")
    if name == "kfold":
        if group is not None and time is not None:
            raise InputError("group and time cannot be combined. Give one of the two.")
        return KFold(cv=_splitter(5 if folds is None else folds, group, time, seed), one_se=one_se)
    rule = as_rule(name)
    if one_se:
        if name != "loo":
            raise InputError(f"one_se needs a standard error, which '{name}' has not. Use 'loo' or 'kfold'.")
        return type(rule)(one_se=True)  # type: ignore[call-arg]
    return rule


def _splitter(folds: int, group: str | None, time: str | None, seed: int) -> Any:
    """Return the splitter of rows into folds."""
    if not isinstance(folds, int) or folds < 2:
        raise InputError(f"folds must be a whole number of at least 2; got {folds!r}. Use 5 or 10.")
    if group is not None:
        from sklearn.model_selection import GroupKFold

        return GroupKFold(folds)
    return TimeFolds(folds) if time is not None else DealtFolds(folds, seed)


def _refuse_table_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"{name} has no meaning for a Source, which brings its own columns. Leave it out."
            )


def _checked(fitted: Fit) -> Fit:
    """Refuse a model of a target that does not vary."""
    for name, scale, mean in zip(fitted.target_names, fitted.target_scales, fitted.target_means, strict=True):
        if scale == 0:
            raise InputError(
                f"target '{name}' has the same value ({mean:g}) in all {fitted.n_rows} rows, "
                "so there is nothing to explain. Check the column, or the rows that were selected."
            )
    return fitted


def load(path: Any) -> Fit:
    """Return the `Fit` that `Fit.save` or `elltwo fit -o` wrote; it predicts identically. Runs no code.

    Raises
    ------
    ModelFileError
        If the file is truncated, is not an elltwo model, or was written by a newer version.
    """
    arrays, metadata = read(path)
    state = metadata.get("encoder")
    return Fit.from_state(arrays, metadata, None if state is None else Encoder.from_dict(state))
