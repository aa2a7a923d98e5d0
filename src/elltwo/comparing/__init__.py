"""`compare`: which kind of model, and which way of choosing alpha, predicts these data best, and how surely.

Nested cross-validation (Stone 1974, "Cross-validatory choice and assessment of statistical predictions"): in
each outer fold every contestant, its encoding and its alpha are chosen from the training rows alone, and all
of them predict the same held-out rows.

Symbols: K outer folds, W_k the summed weights of the held-out rows of fold k, W = Σ W_k, and e_k a
contestant's weighted mean deviance there (for squared error the mean squared error). Then

    error = Σ W_k e_k / W        se² = K/(K − 1) · Σ (W_k/W)² (e_k − error)²

which is sd(e)/√K for folds of equal weight. Differences of two contestants are treated alike, fold by fold,
so that what makes a fold hard for both cancels. Training sets overlap, for which reason no estimate of se is
without bias (Bengio and Grandvalet 2004, "No unbiased estimator of the variance of K-fold cross-validation");
claims are therefore made beyond the 95 % limits of Student's t with K − 1 degrees of freedom only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from elltwo.comparing.contestants import CONTESTANTS, Contestant, label_of
from elltwo.comparing.race import Race, ranked
from elltwo.comparing.results import Claim, Comparison, Row
from elltwo.comparing.rows import MOST_ELEMENTS, DataSet, Roles, hold
from elltwo.comparing.split import FOLDS, Split
from elltwo.comparing.verdict import Judge
from elltwo.data.base import Source
from elltwo.data.encode import Encoder
from elltwo.data.offsets import Offsets
from elltwo.data.table import open_table
from elltwo.data.weights import check_weights_are
from elltwo.errors import InputError
from elltwo.fitting import features_of, with_texts_read
from elltwo.models import Wanted, check_offsets, look, loss_of, named_family

__all__ = ["CONTESTANTS", "MOST_ELEMENTS", "Claim", "Comparison", "Contestant", "Row", "compare"]


def compare(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    parse: Sequence[str] | None = None,
    weights: str | None = None,
    weights_are: str = "analytic",
    family: str | None = None,
    power: float | None = None,
    dispersion: float | None = None,
    epsilon: float | None = None,
    offset: str | None = None,
    exposure: str | None = None,
    positive: Any = None,
    folds: int = FOLDS,
    group: str | None = None,
    time: str | None = None,
    standardize: bool = True,
    missing: str = "error",
    sql: str | None = None,
    seed: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Comparison:
    """Compare models for a table on the same held-out rows, and say which to prefer.

    The mean, the fit without a penalty, ridge with alpha chosen by each rule that applies, and (but for the
    multinomial) the elastic net (equal shares) and the lasso with alpha chosen by k-fold, predict the rows of
    each outer fold from the others. Levels of text, means of missing values, scales and alpha are found anew
    in every training set, so nothing of a held-out row is known to the model that predicts it.

    Parameters
    ----------
    data : path, glob, DataFrame, DuckDB relation, database file or SQL query
        As in `elltwo.fit`, but small enough to be held in memory: at most 2e8 encoded numbers (rows ×
        features).
    target : str
        Column to predict.
    features, drop, parse, weights, weights_are, family, power, dispersion, epsilon, offset, exposure
        As in `elltwo.fit`. Rows of weight 0 are left out.
    positive, missing, sql
        As in `elltwo.fit`.
    folds : int
        Number of outer folds. Classes are spread evenly over them.
    group : str, optional
        Column whose equal values stay in the same fold, outer and inner.
    time : str, optional
        Column to order rows by; each fold is predicted from its past only, outer and inner.
    standardize : bool
        Penalise the coefficients of standardised features.
    seed : int, optional
        Decides how rows are dealt to folds (default 0); without `group` and `time` only.
    progress : callable, optional
        Called with (rows fitted so far, rows in all), summed over models and folds.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        For data or arguments that cannot be used; the message says which, why and what to do.

    Examples
    --------
    >>> import numpy as np
    >>> from elltwo.comparing import compare
    >>> x = np.random.default_rng(0).normal(size=(2, 60))
    >>> found = compare({"a": x[0], "b": x[1], "y": 3 * x[0] + 0.1 * x[1]}, "y", folds=5)
    >>> found["mean"].explained, round(found["ridge-loo"].explained, 2)
    (0.0, 1.0)
    """
    if not isinstance(standardize, bool):
        raise InputError(f"standardize must be True or False; got {standardize!r}.")
    if isinstance(data, Source):
        raise InputError(
            "compare needs a table, whose encoding it can repeat in every fold, and got a Source. Pass a "
            "path, a DataFrame or a mapping of columns."
        )
    check_weights_are(weights_are, weights)
    column = _one_target(target)
    offsets = Offsets(offset, exposure)
    parameters = {"power": power, "dispersion": dispersion, "epsilon": epsilon}
    wanted = Wanted("ridge", named_family(family, "ridge"), parameters, None, positive, offsets)
    split = Split.of(folds, group, time, seed)
    table = open_table(data, sql=sql)
    columns = features_of(table, column, features, drop, weights, split.key, offsets)
    table = with_texts_read(table, column, columns, wanted, parse, weights=weights, time=time)
    found = look(table, [column], wanted)
    loss = loss_of(wanted, found, [column])
    check_offsets(offsets, loss, found)
    encoder = Encoder.fit(table, columns, missing=missing, weights=weights)
    others = [name for name in (weights, split.key) if name is not None]
    held = hold(table, [*columns, column, *offsets.columns, *others], len(encoder.feature_names))
    roles = Roles(column, columns, weights, weights_are, split.key, found.classes, offsets, missing)
    data_set = DataSet.of(held, roles, encoder, None if loss.name == "gaussian" else loss.check)
    race = Race(data_set, wanted, loss, split, standardize)
    outcome = race.run([c for c in CONTESTANTS if c.takes(found.family, loss)], progress)
    rows = ranked(outcome.entries, outcome.weights)
    judge = Judge({row.key: row for row in rows}, outcome, split.how, loss.name, len(encoder.feature_names))
    prefer, text = judge.verdict()
    labels = {c.key: label_of(c, loss) for c in CONTESTANTS}
    return Comparison(
        rows=tuple(replace(row, label=labels[row.key]) for row in rows),
        prefer=prefer,
        text=text,
        claims=tuple(judge.claims),
        left_out=tuple((labels[key], reason) for key, reason in outcome.left_out.items()),
        notes=(*table.notes, *outcome.notes, *(note.value for note in data_set.notes)),
        target=column,
        family=found.family,
        family_reason=found.reason,
        parameters=dataclasses.asdict(loss),
        classes=None if found.classes is None else found.classes.classes,
        n_rows=len(data_set.y),
        rows_dropped=held.table.num_rows - len(data_set.y),
        rows_predicted=outcome.predicted,
        n_features=len(encoder.feature_names),
        n_columns=len(columns),
        split=split.how,
        key=split.key,
        fold_rows=tuple(outcome.fold_rows),
        inner_folds=outcome.inner_folds,
        weights=data_set.meaning,
        standardize=standardize,
        missing=missing,
        seed=split.seed,
    )


def _one_target(target: Any) -> str:
    names = [target] if isinstance(target, str) else list(target or ())
    if not names:
        raise InputError("target is missing: name the column to predict.")
    if len(names) > 1 or not isinstance(names[0], str):
        raise InputError(
            f"target must be the name of one column; got {target!r}. Models are compared for one target at "
            "a time."
        )
    return names[0]
