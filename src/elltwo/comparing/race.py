"""The nested cross-validation: every contestant fitted and scored on every outer fold."""

from __future__ import annotations

import dataclasses
import math
import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.comparing.contestants import Contestant, label_of
from elltwo.comparing.results import Row, mean_se
from elltwo.comparing.rows import DataSet
from elltwo.comparing.split import INNER_FOLDS, Split
from elltwo.data.encode import Encoder
from elltwo.data.memory import MemorySource
from elltwo.data.reading import ArrowTable
from elltwo.errors import InputError, Status
from elltwo.models import Wanted
from elltwo.results import Fit
from elltwo.selection import KFold, as_rule
from elltwo.solvers.null import best_intercept, curvature_at, null_intercept

Array = npt.NDArray[Any]


@dataclass
class Entry:
    """What a contestant has done so far, a number per fold."""

    contestant: Contestant
    errors: list[float] = dataclasses.field(default_factory=list)
    nonzero: list[float] = dataclasses.field(default_factory=list)
    df: list[float] = dataclasses.field(default_factory=list)
    alpha: list[float] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    not_reached: int = 0
    at_edge: int = 0


@dataclass(frozen=True)
class Outcome:
    """The entries that reached the end, why others did not, and the folds."""

    entries: list[Entry]
    left_out: dict[str, str]
    weights: Array
    fold_rows: list[int]
    predicted: int
    inner_folds: int
    notes: list[str]


@dataclass(frozen=True)
class Race:
    """All contestants on all folds."""

    data: DataSet
    wanted: Wanted
    loss: Any
    split: Split
    standardize: bool

    def run(
        self, contestants: list[Contestant], progress: Callable[[int, int | None], None] | None
    ) -> Outcome:
        """Fit and score every contestant on every fold."""
        pairs = self.split.outer(self.data)
        entries = {c.key: Entry(c) for c in contestants}
        left_out: dict[str, str] = {}
        first_error: InputError | None = None
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
                    if reason:
                        left_out[key] = f"In fold {k + 1} of {len(pairs)}: {reason}"
                done += len(train)
                if progress is not None:
                    progress(done, total)
        kept = [entry for key, entry in entries.items() if key not in left_out]
        if len(kept) == 1 and first_error is not None:
            raise first_error
        return Outcome(
            kept,
            left_out,
            np.array([self.data.weights[test].sum() for _, test in pairs]),
            [len(test) for _, test in pairs],
            len(np.unique(np.concatenate([test for _, test in pairs]))),
            inner_folds,
            self._notes(unseen, kept, len(pairs)),
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

    def _try(self, entry: Entry, train: MemorySource, held: MemorySource, kfold: KFold | str) -> str:
        """Fit, score and record a contestant; return why it cannot take part, or nothing."""
        contestant = entry.contestant
        began = clock.perf_counter()
        if contestant.model is None:
            eta = np.broadcast_to(_mean(self.loss, train), held.y.shape)
            eta = eta if held.given_offset is None else eta + held.given_offset
            nonzero, df = 0, 0.0
            entry.seconds += clock.perf_counter() - began
        else:
            rule: Any = contestant.rule
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
            entry.not_reached += Status.NOT_CONVERGED in fit.status
            entry.at_edge += Status.EDGE_LOW in fit.status
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
        return ""

    def _notes(self, unseen: int, entries: list[Entry], folds: int) -> list[str]:
        notes = []
        if unseen:
            notes.append(
                f"{unseen:,} text value{'s' * (unseen > 1)} of held-out rows did not occur in their training "
                "rows and counted as none of the known ones."
            )
        for entry in entries:
            label = label_of(entry.contestant, self.loss)
            if entry.not_reached:
                notes.append(
                    f"{label}: the optimum was not fully reached in {entry.not_reached} of {folds} folds."
                )
            # Ridge's grid goes down to next to no penalty; that of an L1 penalty ends where it is costly.
            if entry.at_edge and entry.contestant.model in ("elasticnet", "lasso"):
                notes.append(
                    f"{label}: in {entry.at_edge} of {folds} folds the smallest alpha of the grid was "
                    "chosen, and smaller ones may predict better."
                )
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
            f"{len(fit.feature_names):,} features on {n:,} training rows leave no degrees of freedom: "
            "without a penalty every row is fitted exactly, noise included."
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


def ranked(entries: list[Entry], weights: Array) -> list[Row]:
    """Return the rows, smallest error first; among equals the order of `CONTESTANTS` decides."""
    scores = [mean_se(entry.errors, weights) for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: scores[i][0])
    best, (lowest, slack) = entries[order[0]], scores[order[0]]
    null = next(
        score[0] for entry, score in zip(entries, scores, strict=True) if entry.contestant.model is None
    )
    rows = []
    for i in order:
        entry, (error, se) = entries[i], scores[i]
        behind, behind_se = mean_se(np.subtract(entry.errors, best.errors), weights)
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
