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
import math
import textwrap
import time as clock
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import stdtrit

from elltwo.data.base import Source
from elltwo.data.checks import all_finite
from elltwo.data.classes import ClassTarget
from elltwo.data.encode import Encoder
from elltwo.data.memory import MemorySource
from elltwo.data.offsets import Offsets
from elltwo.data.reading import ArrowTable, Table
from elltwo.data.table import TableSource, open_table
from elltwo.errors import InputError, Status, did_you_mean
from elltwo.fitting import StratifiedFolds, _features
from elltwo.folds import DealtFolds, TimeFolds, plan_folds
from elltwo.models import (
    MODELS,
    Wanted,
    check_offsets,
    look,
    loss_of,
    named_family,
    refuse_empty,
)
from elltwo.results import Fit
from elltwo.selection import RULES, KFold, as_rule
from elltwo.solvers.null import best_intercept, curvature_at, null_intercept
from elltwo.summary import WIDTH, printable

__all__ = ["CONTESTANTS", "MOST_ELEMENTS", "Claim", "Comparison", "Contestant", "Row", "compare"]

Array = npt.NDArray[Any]

#: Largest table, in encoded rows × features, that is held in memory.
MOST_ELEMENTS = 200_000_000
#: Outer folds unless asked otherwise, and folds of the rule "kfold" inside each training set.
FOLDS, INNER_FOLDS = 10, 5
#: Probability with which a claim about one difference is allowed to be wrong, by Student's t.
ERROR_RATE = 0.05
#: Two models are called equally good where even the far limit of their difference is below this share.
NEGLIGIBLE = 0.02
#: A list of features is short if it leaves out at least this share of them.
SHORTER = 0.25


# ------------------------------------------------------------------------------------ contestants


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes
    ----------
    key : str
        Its name in JSON.
    kind : str
        What the last paragraph calls it: contestants of a kind differ in how alpha is chosen.
    label : str
        Its name in the table.
    model : str or None
        One of `elltwo.fitting.MODELS`; None for the mean.
    rule : str or float or None
        The rule that chooses alpha, or alpha itself.
    """

    key: str
    kind: str
    label: str
    model: str | None
    rule: str | float | None = None

    def takes(self, family: str, loss: Any) -> bool:
        """Return whether the model is made for the family, and the rule for its loss."""
        if self.model is None:
            return True
        squared = loss.name == "gaussian"
        return family in MODELS[self.model].losses and (squared or self.rule not in SQUARED_ONLY)


#: Rules that are defined for squared error alone, and those that need a likelihood.
SQUARED_ONLY = ("gcv", "reml")
#: Everything that is compared; a line more is a contestant more.
CONTESTANTS = (
    Contestant("mean", "the mean", "Mean (no features)", None),
    Contestant("unpenalised", "the unpenalised fit", "No penalty (α = 0)", "ridge", 0.0),
    Contestant("ridge-loo", "ridge", "Ridge, leave-one-out", "ridge", "loo"),
    Contestant("ridge-gcv", "ridge", "Ridge, GCV", "ridge", "gcv"),
    Contestant("ridge-kfold", "ridge", "Ridge, k-fold", "ridge", "kfold"),
    Contestant("ridge-reml", "ridge", "Ridge, REML", "ridge", "reml"),
    Contestant("ridge-aic", "ridge", "Ridge, AIC", "ridge", "aic"),
    Contestant("ridge-bic", "ridge", "Ridge, BIC", "ridge", "bic"),
    Contestant("elasticnet", "the elastic net", "Elastic net, k-fold", "elasticnet", "kfold"),
    Contestant("lasso", "the lasso", "Lasso, k-fold", "lasso", "kfold"),
)
#: Speaks for all of ridge, so that no rule is picked for having been lucky; with groups or times the other.
SPOKESMAN = {"dealt": "ridge-loo", "group": "ridge-kfold", "time": "ridge-kfold"}
assert {c.rule for c in CONTESTANTS if isinstance(c.rule, str)} == {rule.name for rule in RULES}


# ------------------------------------------------------------------------------------ results


@dataclass(frozen=True)
class Row:
    """What a contestant achieved.

    Attributes
    ----------
    key, kind, label : str
        See `Contestant`.
    fold_errors : tuple of float, length K
        Weighted mean deviance (squared error) of the held-out rows of each fold.
    error, se : float
        Over all held-out rows, and its standard error over folds.
    explained : float or None
        1 − error / error of the mean: the share of the deviance that the features explain out of sample;
        None where the mean makes no error.
    behind, behind_se : float
        How much larger the error is than that of the best, on the same folds, and its standard error.
    within : bool
        Whether the error is within one standard error (of the best one's) of the best.
    nonzero, df, alpha : float
        Medians over folds of the number of features with a coefficient other than 0, of the effective
        degrees of freedom, and of alpha (sum scale of the training rows); alpha is None for the mean.
    seconds : float
        Time of all fits.
    """

    key: str
    kind: str
    label: str
    fold_errors: tuple[float, ...]
    error: float
    se: float
    explained: float | None
    behind: float
    behind_se: float
    within: bool
    nonzero: float
    df: float
    alpha: float | None
    seconds: float


@dataclass(frozen=True)
class Claim:
    """A paired difference on the same folds that a sentence rests on.

    Attributes
    ----------
    model, versus : str
        Keys of the two contestants.
    difference, se : float
        Error of `model` less that of `versus`, and its standard error over folds.
    limit : float
        What |difference| has to exceed to be called clear: se times the quantile of Student's t, of the
        95 % level divided by the number of differences that the sentence looks at (Bonferroni).
    negligible : bool
        Whether |difference| + limit is below 2 % of the error of `versus`.
    """

    model: str
    versus: str
    difference: float
    se: float
    limit: float
    negligible: bool

    @property
    def better(self) -> bool:
        """Whether `model` is clearly better."""
        return self.difference < -self.limit

    @property
    def worse(self) -> bool:
        """Whether `model` is clearly worse."""
        return self.difference > self.limit


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; printing it shows the table.

    Attributes
    ----------
    rows : tuple of Row
        The contestants, smallest error first.
    prefer : str
        Key of the contestant that the text recommends.
    text : str
        The recommendation in words.
    claims : tuple of Claim
        The paired differences behind it.
    left_out : tuple of (label, reason)
        Contestants that could not take part.
    notes : tuple of str
        What else the reader should know.
    target, family : str
        What is predicted, and its family.
    family_reason : str
        Why the family was taken, where that was not said.
    parameters : dict
        Those of the loss.
    classes : tuple or None
        Labels of the classes.
    n_rows, rows_dropped, rows_predicted : int
        Rows used, rows left out for a missing value or weight 0, and rows that were held out in some fold
        (with `time` the first stretch is not).
    n_features, n_columns : int
        Encoded features of all rows, and the columns they come from.
    split : {"dealt", "group", "time"}
        What the folds keep together or in order.
    key : str or None
        The group or time column.
    fold_rows : tuple of int, length K
        Held-out rows of each fold.
    inner_folds : int
        Folds of the rule "kfold" inside a training set.
    weights : {"none", "counts", "precisions"}
        What the weights mean.
    standardize : bool
    missing : str
    seed : int
    """

    rows: tuple[Row, ...]
    prefer: str
    text: str
    claims: tuple[Claim, ...]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    target: str
    family: str
    family_reason: str
    parameters: dict[str, Any]
    classes: tuple[Any, ...] | None
    n_rows: int
    rows_dropped: int
    rows_predicted: int
    n_features: int
    n_columns: int
    split: str
    key: str | None
    fold_rows: tuple[int, ...]
    inner_folds: int
    weights: str
    standardize: bool
    missing: str
    seed: int

    @property
    def measure(self) -> str:
        """What the error is: "squared error", "deviance" (twice the log-loss for labels) or "loss"."""
        return {"gaussian": "squared error", "huber": "loss"}.get(self.family, "deviance")

    def __getitem__(self, key: str) -> Row:
        """Return the row of a contestant; KeyError if there is none of that key."""
        for row in self.rows:
            if row.key == key:
                return row
        keys = [row.key for row in self.rows]
        raise KeyError(f"{key!r} did not take part.{did_you_mean(key, keys)} There are {', '.join(keys)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values; the rows are called ``models``, and NaN or inf None."""
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("rows", "claims", "left_out", "n_rows", "n_features", "n_columns")
        }
        models = []
        for row in self.rows:
            model = dataclasses.asdict(row)
            if self.family == "gaussian":
                model["rmse"] = math.sqrt(row.error)
            models.append(model)
        claims = [
            dataclasses.asdict(claim) | {"better": claim.better, "worse": claim.worse}
            for claim in self.claims
        ]
        left_out = [{"label": label, "reason": reason} for label, reason in self.left_out]
        counts = {"rows": self.n_rows, "features": self.n_features, "columns": self.n_columns}
        more = {"measure": self.measure, "models": models, "claims": claims, "left_out": left_out}
        return _plain(facts | counts | more)  # type: ignore[no-any-return]

    def summary(self) -> str:
        """Return the table and the recommendation as plain text, at most 96 columns wide."""
        parts = [_wrapped(_heading(self)), _table(self), _wrapped(_legend(self)), _wrapped(self.text)]
        out = [f"Not in the table: {label}. {reason}" for label, reason in self.left_out]
        if more := [*out, *(f"Note: {note}" for note in self.notes)]:
            parts.append("\n".join(_wrapped(line) for line in more))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.summary()


# ------------------------------------------------------------------------------------ the entry


def compare(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    weights: str | None = None,
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

    The mean, the fit without a penalty, ridge with alpha chosen by each rule that applies, and for squared
    error the elastic net (equal shares) and the lasso with alpha chosen by k-fold, predict the rows of each
    outer fold from the others. Levels of text, means of missing values, scales and alpha are found anew in
    every training set, so nothing of a held-out row is known to the model that predicts it.

    Parameters
    ----------
    data : path, glob, DataFrame, DuckDB relation, database file or SQL query
        As in `elltwo.fit`, but small enough to be held in memory: at most 2e8 encoded numbers (rows ×
        features).
    target : str
        Column to predict.
    features, drop, weights, family, power, dispersion, epsilon, offset, exposure, positive, missing, sql
        As in `elltwo.fit`. Rows of weight 0 are left out.
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
    >>> import elltwo
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 60))
    >>> found = elltwo.compare({"a": x[0], "b": x[1], "y": 3 * x[0] + 0.1 * x[1]}, "y", folds=5)
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
    column = _one_target(target)
    offsets = Offsets(offset, exposure)
    parameters = {"power": power, "dispersion": dispersion, "epsilon": epsilon}
    wanted = Wanted("ridge", named_family(family, "ridge"), parameters, None, positive, offsets)
    split = _Split.of(folds, group, time, seed)
    table = open_table(data, sql=sql)
    columns = _features(table, column, features, drop, weights, split.key, offsets)
    found = look(table, [column], wanted)
    loss = loss_of(wanted, found, [column])
    check_offsets(offsets, loss, found)
    encoder = Encoder.fit(table, columns, missing=missing, weights=weights)
    others = [name for name in (weights, split.key) if name is not None]
    held = _hold(table, [*columns, column, *offsets.columns, *others], len(encoder.feature_names))
    roles = _Roles(column, columns, weights, split.key, found.classes, offsets, missing)
    data_set = _DataSet.of(held, roles, encoder, None if loss.name == "gaussian" else loss.check)
    race = _Race(data_set, wanted, loss, split, standardize)
    outcome = race.run([c for c in CONTESTANTS if c.takes(found.family, loss)], progress)
    rows = _ranked(outcome.entries, outcome.weights)
    judge = _Judge({row.key: row for row in rows}, outcome, split.how, loss.name, len(encoder.feature_names))
    prefer, text = judge.verdict()
    labels = {c.key: _label(c, loss) for c in CONTESTANTS}
    return Comparison(
        rows=tuple(replace(row, label=labels[row.key]) for row in rows),
        prefer=prefer,
        text=text,
        claims=tuple(judge.claims),
        left_out=tuple((labels[key], reason) for key, reason in outcome.left_out.items()),
        notes=tuple(outcome.notes),
        target=column,
        family=found.family,
        family_reason=found.reason,
        parameters=dataclasses.asdict(loss),
        classes=None if found.classes is None else found.classes.classes,
        n_rows=len(data_set.y),
        rows_dropped=held.num_rows - len(data_set.y),
        rows_predicted=outcome.predicted,
        n_features=len(encoder.feature_names),
        n_columns=len(columns),
        split=split.how,
        key=split.key,
        fold_rows=tuple(outcome.fold_rows),
        inner_folds=outcome.inner_folds,
        weights="none" if weights is None else "counts" if data_set.counts else "precisions",
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


def _label(contestant: Contestant, loss: Any) -> str:
    """Return the name for the table, which says so where leave-one-out is approximate."""
    squared = loss.name == "gaussian"
    if contestant.rule == "loo" and not squared:
        return "Ridge, approximate LOO"
    return "Least squares (α = 0)" if contestant.key == "unpenalised" and squared else contestant.label


# ------------------------------------------------------------------------------------ the rows


@dataclass(frozen=True)
class _Roles:
    """Which column is what."""

    target: str
    features: tuple[str, ...]
    weights: str | None
    key: str | None
    classes: ClassTarget | None
    offsets: Offsets
    missing: str

    def source(
        self, table: Table, encoder: Encoder, *, key: str | None = None, check: Any = None
    ) -> TableSource:
        """Return the rows of a table, encoded."""
        return TableSource(
            table,
            encoder,
            self.target,
            weights=self.weights,
            key=key,
            classes=self.classes,
            offsets=self.offsets,
            check=check,
        )


def _hold(table: Table, columns: Sequence[str], width: int) -> ArrowTable:
    """Return the columns of a table in memory; refuse one that is too large."""
    columns = list(dict.fromkeys(columns))
    schema = pa.schema([table.schema.field(name) for name in columns])
    batches, rows = [], 0
    for batch in table.batches(columns):
        rows += batch.num_rows
        if rows * width > MOST_ELEMENTS:
            total = f"{table.n_rows:,}" if table.n_rows is not None else f"more than {rows - 1:,}"
            raise InputError(
                f"{table.name} has {total} rows and {width:,} encoded features, and compare holds at most "
                f"{MOST_ELEMENTS:,} numbers (rows × features) in memory. Compare on some of the rows, with "
                '--sql (sql=) "SELECT * FROM data USING SAMPLE 100000 ROWS", or on fewer columns '
                "(--features, --drop)."
            )
        batches.append(batch if batch.schema.equals(schema) else _cast(batch, schema, table.name))
    return ArrowTable(table.name, pa.Table.from_batches(batches, schema))


def _cast(batch: Any, schema: Any, name: str) -> Any:
    try:
        return batch.cast(schema)
    except pa.ArrowException as error:
        raise InputError(
            f"{name} changes the type of a column on the way ({error}). Convert the column with a query "
            "(--sql, sql=)."
        ) from error


@dataclass(frozen=True)
class _DataSet:
    """The rows that take part: as a table, with their targets, weights and groups or times."""

    table: Any
    name: str
    roles: _Roles
    y: Array
    weights: Array
    counts: bool
    keys: Array | None

    @classmethod
    def of(cls, held: ArrowTable, roles: _Roles, encoder: Encoder, check: Any) -> _DataSet:
        """Read all rows once, so that what is wrong is said with the row numbers of the user's table.

        The encoder is that of all rows; here it only finds which rows lack a value.
        """
        number = "row"
        while number in held.columns:
            number += "_"
        numbered = held.table.append_column(number, pa.array(np.arange(held.n_rows or 0)))
        source = roles.source(ArrowTable(held.name, numbered), encoder, key=number, check=check)
        y, w = [], []
        for block in source.blocks():
            if not (all_finite(block.X) and all_finite(block.y)):
                raise source.why_not_finite()
            y.append(block.y)
            w.append(np.ones(len(block.y)) if block.weights is None else block.weights.copy())
        targets, weights = np.concatenate(y), np.concatenate(w)
        rows = source.keys()
        assert rows is not None
        used = weights > 0
        rows, targets, weights = rows.astype(np.int64)[used], targets[used], weights[used]
        if roles.classes is not None:
            here = np.bincount(roles.classes.codes(targets), minlength=len(roles.classes.classes))
            refuse_empty(here, roles.classes)
        elif (targets == targets[0]).all():
            raise InputError(
                f"target '{roles.target}' has the same value ({targets[0, 0]:g}) in all {len(targets)} rows, "
                "so there is nothing to explain. Check the column, or the rows that were selected."
            )
        table = held.table.take(pa.array(rows))
        keys = None
        if roles.key is not None:
            keys = roles.source(ArrowTable(held.name, table), encoder, key=roles.key).keys()
        return cls(table, held.name, roles, targets, weights, source.counts, keys)

    @property
    def codes(self) -> Array | None:
        """The class of every row, (n,), or None."""
        return None if self.roles.classes is None else self.roles.classes.codes(self.y)

    def part(self, rows: Array) -> ArrowTable:
        """Return some rows as a table."""
        return ArrowTable(self.name, self.table.take(pa.array(rows)))

    def encoded(self, rows: Array, encoder: Encoder) -> MemorySource:
        """Return some rows as numbers."""
        blocks = list(self.roles.source(self.part(rows), encoder).blocks())
        weights = None if blocks[0].weights is None else np.concatenate([b.weights for b in blocks])  # type: ignore[misc]
        if weights is not None and self.counts:
            weights = weights.astype(np.int64)
        return MemorySource(
            np.concatenate([b.X for b in blocks]),
            np.concatenate([b.y for b in blocks]),
            weights,
            feature_names=encoder.feature_names,
            target_names=(self.roles.target,)
            if self.roles.classes is None
            else self.roles.classes.target_names,
            keys=None if self.keys is None else self.keys[rows],
            offset=None if blocks[0].offset is None else np.concatenate([b.offset for b in blocks]),  # type: ignore[misc]
        )


# ------------------------------------------------------------------------------------ the folds


@dataclass(frozen=True)
class _Split:
    """How rows are dealt to folds, outer and inner."""

    folds: int
    how: str
    key: str | None
    seed: int

    @classmethod
    def of(cls, folds: Any, group: Any, time: Any, seed: Any) -> _Split:
        """Refuse what contradicts."""
        if not isinstance(folds, (int, np.integer)) or isinstance(folds, bool) or folds < 2:
            raise InputError(f"folds must be a whole number of at least 2; got {folds!r}. Use 5 or 10.")
        if group is not None and time is not None:
            raise InputError("group and time cannot be combined. Give one of the two.")
        how = "group" if group is not None else "time" if time is not None else "dealt"
        if seed is not None and how != "dealt":
            raise InputError(f"seed deals rows at random, and {how} says which fold they go to. Keep one.")
        seed = 0 if seed is None else seed
        DealtFolds(2, seed)  # checks the seed
        return cls(int(folds), how, group if group is not None else time, int(seed))

    def splitter(self, folds: int, codes: Array | None) -> Any:
        """Return the splitter of rows of these classes (n,) into so many folds."""
        if self.how == "group":
            from sklearn.model_selection import GroupKFold

            return GroupKFold(folds)
        if self.how == "time":
            return TimeFolds(folds)
        return DealtFolds(folds, self.seed) if codes is None else StratifiedFolds.of(codes, folds, self.seed)

    def outer(self, data: _DataSet) -> list[tuple[Array, Array]]:
        """Return the outer folds as (training rows, held-out rows); refuse folds that cannot be fitted."""
        codes = data.codes
        dummy = MemorySource(np.zeros((len(data.y), 1)), data.y, keys=data.keys)
        splitter = self.splitter(self.folds, codes)
        plan_folds(splitter, dummy)
        pairs = list(splitter.split(dummy.X, dummy.y, data.keys))
        if codes is not None:
            assert data.roles.classes is not None
            for k, (train, _) in enumerate(pairs):
                rows = np.bincount(codes[train], minlength=len(data.roles.classes.classes))
                if rows.min() < 2:
                    _refuse_rare(data.roles.classes, rows, k, self.how)
        return pairs

    def inner(self, train: MemorySource, codes: Array | None) -> KFold | str:
        """Return the rule "kfold" for a training set, or why it cannot be used there."""
        keys = train.keys()
        most = len(train.y)
        if keys is not None:
            most = len(np.unique(keys)) - (self.how == "time")
        folds = min(INNER_FOLDS, most)
        if folds < 2:
            return f"k-fold needs at least {2 + (self.how == 'time')} different values of '{self.key}'"
        splitter = self.splitter(folds, codes)
        if codes is not None and self.how != "dealt":
            for inside, _ in splitter.split(train.X, train.y, keys):
                if len(np.unique(codes[inside])) < len(np.unique(codes)):
                    return "some training set inside it has no row of one of the labels"
        return KFold(splitter)


def _refuse_rare(target: ClassTarget, rows: Array, fold: int, how: str) -> None:
    label, few = target.classes[int(np.argmin(rows))], int(rows.min())
    many = {0: "no row", 1: "one row"}[few]
    way = (
        "Group rare labels, or leave them out, with a query (--sql, sql=)"
        if how == "dealt"
        else "Use fewer folds, or another column for --group or --time"
    )
    raise InputError(
        f"The training rows of fold {fold + 1} have {many} of the label {label!r} of target "
        f"'{target.column}'; at least 2 are needed to choose alpha there. {way}."
    )


# ------------------------------------------------------------------------------------ the race


@dataclass
class _Entry:
    """What a contestant has done so far, a number per fold."""

    contestant: Contestant
    errors: list[float] = dataclasses.field(default_factory=list)
    nonzero: list[float] = dataclasses.field(default_factory=list)
    df: list[float] = dataclasses.field(default_factory=list)
    alpha: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Outcome:
    """The entries that reached the end, why others did not, and the folds."""

    entries: list[_Entry]
    left_out: dict[str, str]
    weights: Array
    fold_rows: list[int]
    predicted: int
    inner_folds: int
    notes: list[str]


@dataclass(frozen=True)
class _Race:
    """All contestants on all folds."""

    data: _DataSet
    wanted: Wanted
    loss: Any
    split: _Split
    standardize: bool

    def run(
        self, contestants: list[Contestant], progress: Callable[[int, int | None], None] | None
    ) -> _Outcome:
        """Fit and score every contestant on every fold."""
        pairs = self.split.outer(self.data)
        entries = {c.key: _Entry(c) for c in contestants}
        left_out: dict[str, str] = {}
        first_error: InputError | None = None
        loose: dict[str, int] = {}
        unseen, done, inner_folds = 0, 0, INNER_FOLDS
        total = len(contestants) * sum(len(train) for train, _ in pairs)
        for k, (train, test) in enumerate(pairs):
            encoder, source, held = self._encode(k, train, test)
            unseen += _unseen(encoder, self.data.part(test))
            codes = None if self.data.codes is None else self.data.codes[train]
            kfold = self.split.inner(source, codes)
            if isinstance(kfold, KFold):
                inner_folds = min(inner_folds, kfold.cv.get_n_splits())
            for key, entry in entries.items():
                if key not in left_out:
                    try:
                        reason = self._try(entry, source, held, kfold)
                    except InputError as error:
                        reason, first_error = str(error), first_error or error
                    if reason.startswith("!"):
                        loose[key] = loose.get(key, 0) + 1
                    elif reason:
                        left_out[key] = f"In fold {k + 1} of {len(pairs)}: {reason}"
                done += len(train)
                if progress is not None:
                    progress(done, total)
        kept = [entry for key, entry in entries.items() if key not in left_out]
        if len(kept) == 1 and first_error is not None:
            raise first_error
        return _Outcome(
            kept,
            left_out,
            np.array([self.data.weights[test].sum() for _, test in pairs]),
            [len(test) for _, test in pairs],
            len(np.unique(np.concatenate([test for _, test in pairs]))),
            inner_folds,
            self._notes(unseen, {k: n for k, n in loose.items() if k not in left_out}, len(pairs)),
        )

    def _encode(self, k: int, train: Array, test: Array) -> tuple[Encoder, MemorySource, MemorySource]:
        """Return the encoder of the training rows of fold k, and both parts encoded by it."""
        roles = self.data.roles
        try:
            encoder = Encoder.fit(
                self.data.part(train), roles.features, missing=roles.missing, weights=roles.weights
            )
            return encoder, self.data.encoded(train, encoder), self.data.encoded(test, encoder)
        except InputError as error:
            raise InputError(f"In the training rows of fold {k + 1}: {error}") from error

    def _try(self, entry: _Entry, train: MemorySource, held: MemorySource, kfold: KFold | str) -> str:
        """Fit, score and record a contestant; return why it cannot take part, or a remark after "!"."""
        contestant = entry.contestant
        began = clock.perf_counter()
        if contestant.model is None:
            eta = np.broadcast_to(_mean(self.loss, train), held.y.shape)
            eta = eta if held.given_offset is None else eta + held.given_offset
            nonzero, df, remark = 0, 0.0, ""
            entry.seconds += clock.perf_counter() - began
        else:
            rule = contestant.rule
            if rule == "kfold":
                if isinstance(kfold, str):
                    return kfold
                rule = kfold
            elif isinstance(rule, str):
                rule = as_rule(rule)
            options = {"alpha_per_target": False, "standardize": self.standardize, "tol": 1e-10}
            fit = replace(self.wanted, model=contestant.model).fit(train, rule, self.loss, options)
            entry.seconds += clock.perf_counter() - began
            if rule == 0.0 and (reason := _undetermined(fit)):
                return reason
            remark = "!" if Status.NOT_CONVERGED in fit.status else ""
            eta = fit.decision(held.X, offset=held.given_offset)
            nonzero, df = int((fit.coef != 0).any(axis=1).sum()), float(np.sum(fit.df))
            if self.loss.coupled:
                df = float(fit.df[0])
            entry.alpha.append(float(fit.alpha[0]))
        deviance = 2 * self.loss.value(held.y, eta)
        deviance = deviance if self.loss.coupled else deviance[:, 0]
        w = np.ones(len(deviance)) if held.weights is None else held.weights
        error = float(w @ deviance / w.sum())
        if not math.isfinite(error):
            return "its predictions of the held-out rows are too far off to be measured"
        entry.errors.append(error)
        entry.nonzero.append(nonzero)
        entry.df.append(df)
        return remark

    def _notes(self, unseen: int, loose: dict[str, int], folds: int) -> list[str]:
        notes = []
        if unseen:
            notes.append(
                f"{unseen:,} text value{'s' * (unseen > 1)} of held-out rows did not occur in their training "
                "rows and counted as none of the known ones."
            )
        labels = {c.key: _label(c, self.loss) for c in CONTESTANTS}
        for key, n in loose.items():
            notes.append(f"{labels[key]}: the optimum was not fully reached in {n} of {folds} folds.")
        return notes


def _mean(loss: Any, train: MemorySource) -> Array:
    """Return the best η without features, (T,)."""
    w = np.ones(len(train.y)) if train.weights is None else train.weights
    start = null_intercept(loss, w @ train.y / w.sum(), True)

    def measure(b: Array) -> tuple[Array, Array]:
        eta = np.broadcast_to(b, train.y.shape)
        eta = eta if train.given_offset is None else eta + train.given_offset
        return curvature_at(loss, train.y, eta, w)

    return best_intercept(loss, start, measure)


def _undetermined(fit: Fit) -> str:
    """Return why a fit without a penalty is not determined by its rows, or nothing."""
    if Status.SEPARATED in fit.status:
        return "the features part the classes without an error, so without a penalty there is no optimum."
    df, n = float(np.max(fit.df)), fit.n_rows
    if df > n - 2 + 1e-6:
        return (
            f"{len(fit.feature_names):,} features on {n:,} training rows leave no degrees of freedom, so that "
            "without a penalty every row is fitted exactly, in more than one way or by noise."
        )
    if Status.NOT_CONVERGED in fit.status:
        return "without a penalty no optimum was reached."
    return ""


def _unseen(encoder: Encoder, held: ArrowTable) -> int:
    """Return how many text values of held-out rows the encoder does not know."""
    texts = [column for column in encoder.columns if column.kind == "string"]
    levels = held.levels([column.name for column in texts])
    return sum(
        n for column in texts for level, n in levels[column.name].items() if level not in set(column.levels)
    )


# ------------------------------------------------------------------------------------ scores


def _mean_se(errors: Any, weights: Array) -> tuple[float, float]:
    """Return the weighted mean over folds and its standard error, the ratio estimator's.

    Cochran (1977), "Sampling Techniques", section 6.4.

    >>> _mean_se([1.0, 2.0, 3.0], np.ones(3))
    (2.0, 0.577...)
    """
    errors, share = np.asarray(errors), weights / weights.sum()
    mean, k = float(share @ errors), len(weights)
    return mean, float(np.sqrt(k / (k - 1) * np.sum((share * (errors - mean)) ** 2)))


def _ranked(entries: list[_Entry], weights: Array) -> list[Row]:
    """Return the rows, smallest error first; among equals the order of `CONTESTANTS` decides."""
    scores = [_mean_se(entry.errors, weights) for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: scores[i][0])
    best, (lowest, slack) = entries[order[0]], scores[order[0]]
    null = next(
        score[0] for entry, score in zip(entries, scores, strict=True) if entry.contestant.model is None
    )
    rows = []
    for i in order:
        entry, (error, se) = entries[i], scores[i]
        behind, behind_se = _mean_se(np.subtract(entry.errors, best.errors), weights)
        rows.append(
            Row(
                key=entry.contestant.key,
                kind=entry.contestant.kind,
                label=entry.contestant.label,
                fold_errors=tuple(entry.errors),
                error=error,
                se=se,
                explained=1 - error / null if null > 0 else None,
                behind=behind,
                behind_se=behind_se,
                within=error <= lowest + slack,
                nonzero=float(np.median(entry.nonzero)),
                df=float(np.median(entry.df)),
                alpha=float(np.median(entry.alpha)) if entry.alpha else None,
                seconds=entry.seconds,
            )
        )
    return rows
