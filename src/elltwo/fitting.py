"""Where users come in: `fit` for tables of any kind, `load` for saved models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.data.base import Source
from elltwo.data.classes import ClassTarget
from elltwo.data.encode import Encoder, choose_features
from elltwo.data.offsets import OffsetEncoder, Offsets, encoder_from_dict
from elltwo.data.reading import ArrowTable
from elltwo.data.readings import settle
from elltwo.data.table import Table, TableSource, open_table
from elltwo.data.weights import check_weights_are
from elltwo.engine import fit_moments, fit_source
from elltwo.errors import InputError, ModelFileError, Status, enough_memory
from elltwo.folds import DealtFolds, StratifiedFolds, TimeFolds
from elltwo.inference.stored import from_state
from elltwo.kernel_fitting import KernelFit
from elltwo.kernel_fitting.tables import KernelChoice
from elltwo.modelfile import read
from elltwo.models import (
    CLASSES,
    FAMILIES,
    MODELS,
    USUAL,
    Found,
    Wanted,
    check_offsets,
    check_scoring,
    look,
    loss_of,
    named_family,
    named_model,
    refuse_empty,
    weighted,
)
from elltwo.problem import Problem
from elltwo.quality import HeldOutQuality, measure, too_many
from elltwo.results import Fit
from elltwo.selection import LOO, KFold, as_rule
from elltwo.solvers.auto import leaves_one_out
from elltwo.uncertainty import check_inference, check_likelihood, with_inference

__all__ = ["FAMILIES", "MODELS", "fit", "fit_moments", "fit_source", "load"]

Array = npt.NDArray[Any]


#: A table is kept in memory up to so many bytes for losses whose optimum takes many passes over the rows.
KEPT_BYTES = 1 << 28


@enough_memory()
def fit(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    parse: Sequence[str] | None = None,
    weights: str | None = None,
    weights_are: str = "analytic",
    family: str | None = None,
    model: str = "ridge",
    power: float | None = None,
    dispersion: float | None = None,
    epsilon: float | None = None,
    offset: str | None = None,
    exposure: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    positive: Any = None,
    select: Any = None,
    alpha: Any = None,
    folds: int | None = None,
    group: str | None = None,
    time: str | None = None,
    one_se: bool = False,
    scoring: Any = None,
    alpha_per_target: bool = False,
    standardize: bool = True,
    kernel: Any = None,
    kernel_params: Mapping[str, Any] | None = None,
    n_centers: int | None = None,
    centers: str | None = None,
    missing: str = "error",
    solver: str = "auto",
    tol: float = 1e-10,
    sql: str | None = None,
    seed: int = 0,
    inference: str | None = None,
    level: float = 0.95,
    progress: Callable[[int, int | None], None] | None = None,
) -> Fit:
    """Fit a tuned, certified L2-regularised model to a table.

    Minimises Σ wᵢ·dev(yᵢ, ηᵢ) + α·θᵀPθ with η = b + Xθ + offset, and P = diag(sⱼ²) if `standardize`, else the
    identity. dev is the unit deviance of the family, for "gaussian" the squared error.
    The table is read block by block, and kept in memory only if it is small (256 MB) and the family's optimum
    takes many passes, as that of every family but "gaussian" does.

    Parameters
    ----------
    data : path, glob, DataFrame, DuckDB relation, database file, SQL query or Source
        CSV, Parquet, JSON lines; pandas, Polars, Arrow.
    target : str or sequence of str
        Column(s) to predict. For the families of classes it holds labels: text, booleans, whole numbers or
        dates.
    features, drop : sequences of str, optional
        Columns to use (default: all that have no other role), and columns to leave out.
    parse : sequence of str, optional
        Columns of text to read as numbers or dates, such as "12.5%", "(1,200.50)" or "31.12.2024"; they are
        refused where the way they are written leaves a doubt. The model reads new text in the same way.
    weights : str, optional
        Column of row weights, numbers ≥ 0.
    weights_are : {"analytic", "frequency"}
        What they are. "analytic": a row of weight w is one observation of w times the precision (1/variance),
        and leave-one-out leaves it out whole. "frequency": a row of weight w stands for w equal observations,
        so that n = Σw and leave-one-out leaves out one of them; the weights are then whole numbers. The
        summary says which.
    family : str, optional
        Distribution of the target: "gaussian" (the default for numbers), "binomial" (two labels, or
        proportions; the default for two labels that are text or booleans),
        "multinomial" (labels), "poisson", "gamma", "tweedie", "negative-binomial", or "huber" for outliers.
        "auto" takes "binomial" for two labels (text, booleans, 0 and 1), "multinomial" for more than two
        texts, and else "gaussian"; the summary says what it took, and why.
    model : {"ridge", "svm", "elasticnet", "lasso", "kernel"}
        "svm" is the support vector machine with squared loss. Its family is "binomial", "multinomial" (one
        class against the rest), "gaussian", or "auto", which is its default. "kernel" puts functions of a
        kernel's space in place of θ, for any family, and P is the norm of that space. "elasticnet" and
        "lasso" have an L1 penalty, for any family but "multinomial".
    power : float, optional
        Of "tweedie": the variance is μ^power, 1 ≤ power ≤ 2 (default 1.5).
    dispersion : float, optional
        Of "negative-binomial": the variance is μ + dispersion·μ² (default 1).
    epsilon : float, optional
        Of "huber" and "svm" of numbers, in units of the target: from which error on it counts in proportion
        (huber), up to which it counts nothing (svm). It has to be given.
    offset : str, optional
        Column that is added to η; it must be there at prediction too.
    exposure : str, optional
        Column whose logarithm is added to η, so that rates are modelled; for families with the log link.
    class_weight : "balanced" or mapping, optional
        Factor for the weights of the rows of each label; "balanced" gives every class the same weight in all.
        The product is a precision: frequencies as `weights` are refused beside it.
    positive : label, optional
        Of "binomial": the label that is the event; otherwise the second of the sorted two.
    select : str or rule, optional
        How alpha is chosen: "loo" (the default), "kfold" (the default of "elasticnet" and "lasso"), "gcv",
        "reml", "aic", "bic", or a rule object.
    alpha : float, optional
        Use this alpha (sum scale) instead of choosing one.
    folds : int, optional
        Number of folds of "kfold" (5 unless given); implies select="kfold". Classes are spread evenly over
        them.
    group : str, optional
        Column whose equal values stay in the same fold; implies select="kfold".
    time : str, optional
        Column to order rows by; each fold is predicted from its past only. Implies select="kfold".
    one_se : bool
        Take the largest alpha within one standard error of the best (LOO and K-fold).
    scoring : str or callable, optional
        What "loo" and "kfold" score held-out rows by, larger is better ("roc_auc", "accuracy", …; see
        `elltwo.KFold`); the deviance if None.
    alpha_per_target : bool
        Choose an alpha for each target; otherwise one that minimises the mean of their scores.
    standardize : bool
        Penalise the coefficients of standardised features.
    kernel : str, kernel object or callable, optional
        Of model "kernel": "rbf" (the default), "laplacian", "matern", "polynomial", "linear", as in
        `elltwo.KernelRidge`.
    kernel_params : mapping, optional
        Its parameters. The width (`gamma`, of "matern" `length_scale`) of "rbf", "laplacian" and "matern" is
        tuned by the same rule as alpha unless it is given; with a fixed alpha it is that of the median
        distance.
    n_centers : int, optional
        Of model "kernel": fit functions of so many of the rows, an approximation (Nyström). Without it that
        happens only where there are too many rows for an exact solution; the summary says so.
    centers : {"uniform", "leverage"}, optional
        How these rows are chosen.
    missing : {"error", "mean", "drop"}
        What to do about missing values.
    solver, tol
        As in `elltwo.Ridge`.
    sql : str, optional
        Query to run on the data first.
    seed : int
        Decides how rows are dealt to folds.
    inference : {"bayes", "model", "sandwich"}, optional
        Also find standard errors and intervals of this kind, in one more pass over the rows: `Fit.inference`,
        `Fit.predict_interval`, and columns of the summary. `elltwo.Inference` says what each kind means.
    level : float
        Of the intervals.
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

    >>> table = {"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "paid": ["no", "no", "yes", "no", "yes", "yes"]}
    >>> fitted = elltwo.fit(table, "paid", family="binomial", alpha=1.0)
    >>> fitted.classes, fitted.predict({"x": [0.0, 9.0]}), fitted.predict_proba({"x": [3.5]}).round(2)
    (('no', 'yes'), array(['no', 'yes'], dtype='<U3'), array([[0.5, 0.5]]))
    """
    check_weights_are(weights_are, weights, class_weight)
    for name, flag in (
        ("one_se", one_se),
        ("standardize", standardize),
        ("alpha_per_target", alpha_per_target),
    ):
        if not isinstance(flag, bool):
            raise InputError(f"{name} must be True or False; got {flag!r}.")
    wanted = Wanted(
        model=named_model(model),
        family=named_family(family, model),
        parameters={"power": power, "dispersion": dispersion, "epsilon": epsilon},
        class_weight=class_weight,
        positive=positive,
        offsets=Offsets(offset, exposure),
    )
    usual = MODELS[wanted.model].rule
    rule = _rule(select, alpha, folds, group, time, one_se, seed, scoring, usual)
    by_default = select is None and model == "ridge" and solver == "auto"
    check_inference(inference, level, model)
    choice = KernelChoice(kernel, kernel_params, n_centers, centers)
    choice.check(model)
    options: dict[str, Any] = {
        "alpha_per_target": alpha_per_target,
        "standardize": standardize,
        "solver": solver,
        "tol": tol,
        **({"kernel": choice, "seed": seed} if model == "kernel" else {}),
    }
    if isinstance(data, Source):
        _refuse_table_options(
            target=target, features=features, drop=drop, parse=parse, weights=weights, sql=sql, offset=offset,
            exposure=exposure, class_weight=class_weight, positive=positive,
        )  # fmt: skip
        if wanted.family == "auto":
            raise InputError("family='auto' looks at a column, and a Source holds numbers. Name the family.")
        found = Found("gaussian" if wanted.family == USUAL else wanted.family, "")
        loss = loss_of(wanted, found, data.target_names)
        check_scoring(scoring, loss)
        check_likelihood(inference, loss)
        own = _possible(rule, data, loss, seed) if by_default else rule
        fitted = _checked(wanted.fit(data, own, loss, options), None, None)
        if own is not rule:
            fitted = replace(fitted, status=(Status.LOO_UNAVAILABLE, *fitted.status))
        return with_inference(fitted, data, inference, level)
    if target is None:
        raise InputError("target is missing: name the column to predict.")
    table = open_table(data, sql=sql)
    key = group if group is not None else time
    columns = features_of(table, target, features, drop, weights, key, wanted.offsets)
    table = with_texts_read(table, target, columns, wanted, parse, weights=weights, time=time)
    found = look(table, [target] if isinstance(target, str) else list(target), wanted)
    encoder = Encoder.fit(table, columns, missing=missing, weights=weights)
    read = table
    loss = loss_of(wanted, found, [target] if isinstance(target, str) else target)
    check_offsets(wanted.offsets, loss, found)
    check_scoring(scoring, loss)
    check_likelihood(inference, loss)
    if loss.name != "gaussian" or model == "kernel":
        named = [target] if isinstance(target, str) else target
        others = [name for name in (weights, key) if name is not None]
        table = _kept(table, [*columns, *named, *wanted.offsets.columns, *others])

    def source_of(classes: ClassTarget | None) -> TableSource:
        return TableSource(
            table,
            encoder,
            target,
            weights=weights,
            weights_are=weights_are,
            key=key,
            classes=classes,
            offsets=wanted.offsets,
            check=None if loss.name == "gaussian" else loss.check,
            progress=progress,
        )

    classes, held_out = found.classes, None
    source = source_of(classes)
    wished = rule
    if by_default:
        rule = _possible(rule, source, loss, seed)
    if classes is not None:
        if class_weight is not None:
            classes = weighted(found, classes, class_weight, source, free=missing == "error")
            source = source_of(classes)
        rule = _spread(rule, source, classes, seed)
        held_out = HeldOutQuality(classes, source.counts)
        watches = model == "kernel" or MODELS[wanted.model].fit is fit_source
        if watches and not too_many(source, source.n_rows):
            options["watch"] = held_out
    fitted = _checked(wanted.fit(source, rule, loss, options), source, classes)
    fitted = with_inference(fitted, source, inference, level)
    if isinstance(wished, LOO) and isinstance(rule, KFold):
        fitted = replace(fitted, status=(Status.LOO_UNAVAILABLE, *fitted.status))
    if wanted.offsets.columns:
        encoder = OffsetEncoder.of(encoder, wanted.offsets)
    fitted = replace(fitted.with_encoder(encoder, source.rows_dropped), weights_column=weights)
    fitted = _with_quality(
        fitted,
        source,
        found.reason and f"{found.family}, because {found.reason}",
        classes,
        scoring,
        read.notes,
    )
    if held_out is not None:
        quality = {**(fitted.quality or {}), "held_out": held_out.facts(fitted.rule)}
        fitted = replace(fitted, quality=quality)
    return fitted


# ------------------------------------------------------------------------------------ offsets and features


def features_of(
    table: Any, target: Any, features: Any, drop: Any, weights: str | None, key: str | None, offsets: Offsets
) -> tuple[str, ...]:
    """Return the columns to use as features; those of the offset are none."""
    for role, name in offsets.to_dict().items():
        if not isinstance(name, str):
            raise InputError(f"{role} must be the name of a column; got {name!r}.")
        table.require([name], f"{role} column")
        others = [target] if isinstance(target, str) else target
        named = [features] if isinstance(features, str) else features or ()
        for what, taken in (("the target", others), ("the weights", [weights]), ("a feature", named)):
            if name in taken:
                raise InputError(
                    f"Column '{name}' is the {role}, so it cannot be {what} too. Leave it out of one."
                )
    dropped = [drop] if isinstance(drop, str) else drop
    if offsets.columns:
        dropped = list(dict.fromkeys([*(dropped or ()), *offsets.columns]))
    return choose_features(table, target=target, features=features, drop=dropped, weights=weights, key=key)


def with_texts_read(
    table: Table,
    target: Any,
    features: Sequence[str],
    wanted: Wanted,
    parse: Sequence[str] | None,
    *,
    weights: str | None,
    time: str | None,
) -> Table:
    """Return the table with its text read as numbers or dates where it is that; see `settle`."""
    parse = [parse] if isinstance(parse, str) else list(parse or ())
    table.require(parse, "column to parse")
    targets = [target] if isinstance(target, str) else list(target)
    # Labels stay as they are written; where no family says what the target is, its text may be either.
    free = targets if wanted.family in ("auto", USUAL) else []
    numbers = [] if free or wanted.family in CLASSES else targets
    known = [name for name in (weights, *wanted.offsets.columns) if name is not None]
    times = [] if time is None else [time]
    return settle(table, [*features, *free], numbers=[*numbers, *known], times=times, parse=parse)


# ------------------------------------------------------------------------------------ rules and folds


def _rule(
    select: Any,
    alpha: Any,
    folds: int | None,
    group: str | None,
    time: str | None,
    one_se: bool,
    seed: int,
    scoring: Any,
    usual: str,
) -> Any:
    """Return the rule, or the number alpha, that these arguments ask for; refuse those that contradict."""
    asks_folds = {"folds": folds, "group": group, "time": time}
    given = [name for name, value in asks_folds.items() if value is not None]
    scored = [] if scoring is None else ["scoring"]
    if alpha is not None:
        if select is not None or given or one_se or scored:
            other = "select" if select is not None else [*given, *scored, "one_se"][0]
            raise InputError(
                f"alpha fixes the penalty, so {other} has nothing to choose. Give one of the two."
            )
        return alpha
    if select is not None and not isinstance(select, str):
        if given or one_se or scored:
            raise InputError(f"{[*given, *scored, 'one_se'][0]} belongs in the rule object given as select.")
        return select
    name = select or ("kfold" if given else usual)
    if given and name != "kfold":
        raise InputError(f"{given[0]} needs folds, but select is '{name}'. Use select='kfold'.")
    if name == "kfold":
        if group is not None and time is not None:
            raise InputError("group and time cannot be combined. Give one of the two.")
        cv = _splitter(5 if folds is None else folds, group, time, seed)
        return KFold(cv=cv, one_se=one_se, scoring=scoring)
    rule = as_rule(name)
    if one_se or scored:
        if name != "loo":
            what = "one_se needs a standard error" if one_se else "scoring needs held-out rows"
            raise InputError(f"{what}, which '{name}' has not. Use 'loo' or 'kfold'.")
        return type(rule)(one_se=one_se, scoring=scoring)  # type: ignore[call-arg]
    return rule


def _possible(rule: Any, source: Source, loss: Any, seed: int) -> Any:
    """Return K-fold in place of leave-one-out if the source has no leave-one-out, else the rule."""
    if not isinstance(rule, LOO) or leaves_one_out(Problem(source, loss=loss)):
        return rule
    return KFold(_splitter(5, None, None, seed), rule.alphas, rule.one_se, rule.scoring)


def _splitter(folds: int, group: str | None, time: str | None, seed: int) -> Any:
    """Return the splitter of rows into folds."""
    if not isinstance(folds, int) or folds < 2:
        raise InputError(f"folds must be a whole number of at least 2; got {folds!r}. Use 5 or 10.")
    if group is not None:
        from sklearn.model_selection import GroupKFold

        return GroupKFold(folds)
    return TimeFolds(folds) if time is not None else DealtFolds(folds, seed)


def _spread(rule: Any, source: TableSource, target: ClassTarget, seed: int) -> Any:
    """Return the rule with folds that every class takes part in; refuse where some training set lacks one."""
    if not isinstance(rule, KFold):
        return rule
    codes = np.concatenate([target.codes(block.y) for block in source.blocks()])
    classes, column = target.classes, target.column
    if type(rule.cv) is DealtFolds:
        rows = np.bincount(codes, minlength=len(classes))
        if (rows == 1).any():
            label = classes[int(np.argmax(rows == 1))]
            raise InputError(
                f"The label {label!r} of target '{column}' has one row, so the fold that holds it would be "
                "predicted by a model that never saw it. Use select='loo' (--select loo), or leave out or "
                "group rare labels with a query (--sql, sql=)."
            )
        return replace(rule, cv=StratifiedFolds.of(codes, rule.cv.n_splits, seed))
    if hasattr(rule.cv, "split"):
        try:
            splits = list(rule.cv.split(np.zeros((len(codes), 1)), codes, source.keys()))
        except ValueError:
            return rule  # what is wrong is said where the folds are made
        for k, (train, _) in enumerate(splits):
            if len(lacking := np.setdiff1d(np.arange(len(classes)), codes[train])):
                raise InputError(
                    f"The training rows of fold {k + 1} have no row of the label {classes[lacking[0]]!r} of "
                    f"target '{column}', so their model could not predict it. Use fewer folds, another "
                    "column for --group or --time, or select='loo' (--select loo)."
                )
    return rule


# ------------------------------------------------------------------------------------ what comes out


def _with_quality(
    fitted: Fit,
    source: TableSource,
    reason: str,
    target: ClassTarget | None,
    scoring: Any,
    notes: Sequence[str],
) -> Fit:
    """Return the fit with its classes, and with what is known about the target and its predictions."""
    facts: dict[str, Any] = {}
    if reason:
        facts["family_reason"] = reason
    if notes:
        facts["notes"] = list(notes)
    if scoring is not None:
        facts["scoring"] = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "a function")
    if target is not None:
        fitted = replace(fitted, classes=target.classes)
        facts["target"] = target.column
        if target.weights is not None:
            facts["class_weights"] = list(target.weights)
        facts |= measure(fitted, source, target, source.class_rows)
    return replace(fitted, quality=facts or None)


def _kept(table: Table, columns: Sequence[str]) -> Table:
    """Return the columns of a table in memory if they are few bytes, else the table."""
    import pyarrow as pa

    columns = list(dict.fromkeys(columns))
    schema = pa.schema([table.schema.field(name) for name in columns])
    if table.in_memory:
        return table
    batches, size = [], 0
    for batch in table.batches(columns):
        size += batch.nbytes
        if size > KEPT_BYTES or not batch.schema.equals(schema):
            return table
        batches.append(batch)
    if not size:
        return table
    return ArrowTable(table.name, pa.Table.from_batches(batches, schema))


def _refuse_table_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"{name} has no meaning for a Source, which brings its own columns. Leave it out."
            )


def _checked(fitted: Fit, source: TableSource | None, target: ClassTarget | None) -> Fit:
    """Refuse a model of a target that does not vary."""
    if target is not None:
        assert source is not None
        refuse_empty(source.class_rows, target)
        return fitted
    for name, scale, mean in zip(fitted.target_names, fitted.target_scales, fitted.target_means, strict=True):
        if scale == 0:
            raise InputError(
                f"target '{name}' has the same value ({mean:g}) in all {fitted.n_rows} rows, "
                "so there is nothing to explain. Check the column, or the rows that were selected."
            )
    return fitted


@enough_memory()
def load(path: Any) -> Fit:
    """Return the `Fit` that `Fit.save` or `elltwo fit -o` wrote; it predicts identically. Runs no code.

    Raises
    ------
    ModelFileError
        If the file is truncated, is not an elltwo model, or was written by a newer version.
    """
    arrays, metadata = read(path)
    try:
        fitted = _built(arrays, metadata)
        _refuse_damaged(fitted)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"'{path}' is damaged, or something else than elltwo made it ({error!r}). Fit the model again, "
            "or get an undamaged copy."
        ) from error
    return fitted


def _built(arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> Fit:
    state, plain = metadata.get("encoder"), metadata.get("inference")
    kind = KernelFit if "kernel" in metadata else Fit
    fitted = kind.from_state(arrays, metadata, None if state is None else encoder_from_dict(state))
    return fitted if plain is None else replace(fitted, inference=from_state(fitted, arrays, plain))


def _refuse_damaged(fitted: Fit) -> None:
    """Raise an error if the parts of a fit do not fit together: its names, its path, its summary."""
    names = fitted.feature_names
    if not all(isinstance(name, str) for name in (*names, *fitted.target_names)):
        raise ValueError("names are not text")
    if fitted.encoder is not None and tuple(fitted.encoder.feature_names) != names:
        raise ValueError("the columns do not give the features")
    if fitted.path.chosen.shape != (len(fitted.target_names),):
        raise ValueError("no alpha is chosen for each target")
    fitted.summary()
    fitted.to_dict()
