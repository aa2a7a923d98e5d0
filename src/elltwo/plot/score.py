"""The score of a rule against alpha: where the optimum lies, how flat it is, and whether it is inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, Status
from elltwo.plot.axes import (
    MARK,
    QUIET,
    alpha_axis,
    axes_or_new,
    fit_of,
    label,
    mark_alpha,
    side_legend,
    target_index,
    tried,
)
from elltwo.results import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

#: Up to so many targets, each has a colour and a line in the legend.
NAMED_TARGETS = 10
#: From this ratio of the largest to the smallest score on, the score's axis is logarithmic.
WIDE = 1e3

SCORES = {
    "gcv": "generalised cross-validation score",
    "reml": "−2 × restricted log-likelihood, up to a constant",
    "aic": "AIC",
    "bic": "BIC",
}
HELD_OUT = {"loo": "leave-one-out", "kfold": "cross-validation"}


@dataclass(frozen=True)
class Curve:
    """One score along the sorted alphas, shape (A,), with its standard error and the chosen index."""

    name: str
    target: int
    score: Array
    se: Array | None
    chosen: int


def plot_path(model: Any, ax: Axes | None = None, *, target: str | int | None = None) -> Axes:
    """Draw the score of the rule that chose alpha against alpha.

    Shown are the score of every alpha tried (smaller is better), the band of one standard error where the
    rule has one, the chosen alpha, the lowest score if the one-standard-error rule chose another, and
    the edge of the alphas if the optimum lies on it. The axis above gives the effective degrees of freedom.

    Parameters
    ----------
    model : Fit or fitted estimator
        Its alpha must have been chosen by a rule.
    ax : matplotlib Axes, optional
        Where to draw; a new figure if None.
    target : str or int, optional
        The target to draw, where each has an alpha of its own. All of them if None: their scores are
        then each moved and scaled to run from 0 (best) to 1 (worst), without bands.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        If there is no path, since alpha was given, or `target` is not a target with an alpha of its own.
    MissingPackageError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from elltwo import Ridge
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> model = Ridge().fit(X, X @ [1.0, 2.0, 3.0, 4.0] + X[:, 0] ** 2)
    >>> ax = plot_path(model, Figure().subplots())
    >>> ax.get_xlabel()
    'penalty α (sum scale)'
    """
    fit = fit_of(model)
    curves = _curves(fit, target)
    ax = axes_or_new(ax)
    if len(curves) == 1:
        _draw_one(ax, fit, curves[0])
    else:
        _draw_many(ax, fit, curves)
    alpha_axis(ax, fit)
    _draw_edges(ax, fit, curves)
    side_legend(ax)
    return ax


def _curves(fit: Fit, target: str | int | None) -> list[Curve]:
    """Return one curve for all targets together, or one for each that has an alpha of its own."""
    order, path, wanted = tried(fit), fit.path, target_index(fit, target)
    assert path.score is not None
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if path.score.ndim == 1:
        if wanted is not None and len(fit.target_names) > 1:
            raise InputError("One alpha was chosen for all targets by their mean score; leave out target.")
        se = None if path.score_se is None else path.score_se[order]
        return [Curve(fit.target_names[0], 0, _finite(path.score[order]), se, int(rank[path.chosen[0]]))]
    return [
        Curve(
            name,
            t,
            _finite(path.score[order, t]),
            None if path.score_se is None else path.score_se[order, t],
            int(rank[path.chosen[t]]),
        )
        for t, name in enumerate(fit.target_names)
        if wanted in (None, t)
    ]


def _finite(score: Array) -> Array:
    return np.where(np.isfinite(score), score, np.nan)


def _draw_one(ax: Axes, fit: Fit, curve: Curve) -> None:
    alphas = np.sort(fit.path.alphas)
    ax.plot(alphas, curve.score, color="C0", marker=".", markersize=4, linewidth=1.5, label=_score_name(fit))
    if curve.se is not None:
        low, high = curve.score - curve.se, curve.score + curve.se
        ax.fill_between(alphas, low, high, color="C0", alpha=0.15, linewidth=0, label="± 1 standard error")
    mark_alpha(ax, fit, curve.target)
    ax.plot(alphas[curve.chosen], curve.score[curve.chosen], marker="o", color=MARK, linestyle="none")
    best = int(np.nanargmin(curve.score))
    if curve.score[best] < curve.score[curve.chosen]:
        name = f"lowest score: α = {alphas[best]:.4g}"
        ax.axvline(alphas[best], color=QUIET, linestyle=":", linewidth=1.2, label=name)
    ax.set_ylabel(_axis_name(fit))
    ax.set_title(_title(fit, curve), fontsize="medium")
    lowest, highest = np.nanmin(curve.score), np.nanmax(curve.score)
    if lowest > 0 and highest > WIDE * lowest:
        ax.set_yscale("log", nonpositive="clip")


def _draw_many(ax: Axes, fit: Fit, curves: list[Curve]) -> None:
    alphas = np.sort(fit.path.alphas)
    named = len(curves) <= NAMED_TARGETS
    for i, curve in enumerate(curves):
        low, high = np.nanmin(curve.score), np.nanmax(curve.score)
        score = (curve.score - low) / (high - low if high > low else 1.0)
        colour = f"C{i}" if named else "C0"
        name = f"{label(curve.name)}: α = {alphas[curve.chosen]:.4g}" if named else f"{len(curves)} targets"
        line = ax.plot(
            alphas, score, color=colour, linewidth=1.3 if named else 0.6, alpha=1.0 if named else 0.4
        )
        line[0].set_label(name if named or i == 0 else f"_{i}")
        ax.plot(
            alphas[curve.chosen],
            score[curve.chosen],
            marker="o",
            color=colour,
            markersize=5,
            linestyle="none",
        )
    ax.set_ylabel("score of each target, from its best (0) to its worst (1)")
    ax.set_title(f"An alpha for each target by {_score_name(fit)}", fontsize="medium")


def _draw_edges(ax: Axes, fit: Fit, curves: list[Curve]) -> None:
    """Mark the end of the alphas that the optimum of a curve lies on."""
    chosen = {curve.chosen for curve in curves}
    last = len(fit.path.alphas) - 1
    ends = {0: (Status.EDGE_LOW, "smallest"), last: (Status.EDGE_HIGH, "largest")}
    for index, (status, word) in ends.items():
        if status in fit.status and index in chosen:
            alpha = float(np.sort(fit.path.alphas)[index])
            ax.axvline(alpha, color=MARK, linewidth=6, alpha=0.2, label=f"edge: the {word} α tried")


def _title(fit: Fit, curve: Curve) -> str:
    together = fit.path.score is not None and fit.path.score.ndim == 1 and len(fit.target_names) > 1
    kind = "targets" if fit.classes is None else "classes"
    what = f"{len(fit.target_names)} {kind} together" if together else label(curve.name)
    return f"Choosing the penalty for {what}"


def _score_name(fit: Fit) -> str:
    return HELD_OUT.get(fit.rule, fit.rule.upper())


def _axis_name(fit: Fit) -> str:
    if fit.rule in SCORES:
        return SCORES[fit.rule]
    if fit.cv_deviance is None:
        return "score (smaller is better)"
    margin = fit.loss.link == "margin" or fit.loss.name in ("huber", "squared-epsilon-insensitive")
    what = "squared error" if fit.loss.name == "gaussian" else "loss" if margin else "deviance"
    return f"mean {what}, held-out rows"
