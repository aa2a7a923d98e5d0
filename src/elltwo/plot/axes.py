"""What the pictures share: the axis of alphas with df above it, the marks of the choice, and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError, MissingPackageError, did_you_mean, name_some
from elltwo.results import Fit
from elltwo.summary import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

NAME_WIDTH = 28
MARK = "#b2182b"
QUIET = "0.55"
#: Ticks on the axis of effective degrees of freedom.
DF_TICKS = 7


def require_matplotlib() -> None:
    """Raise MissingPackageError unless matplotlib can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "Plots need matplotlib, which is not installed. Install it with: pip install 'elltwo[plot]'"
        ) from error


def fit_of(model: Any) -> Fit:
    """Return the fit of a `Fit` or a fitted estimator; InputError for anything else."""
    fit = getattr(model, "fit_", model)
    if not isinstance(fit, Fit):
        raise InputError(
            f"A plot needs a Fit or a fitted estimator of elltwo; got {type(model).__name__}. "
            "Call its fit method first, or pass what elltwo.fit or elltwo.load returned."
        )
    return fit


def tried(fit: Fit) -> Array:
    """Return the order that sorts the alphas tried; InputError if none were."""
    if fit.path.score is None:
        raise InputError(
            "This fit was given its alpha, so there is no path of alphas to draw. Choose alpha by a rule, "
            "for example 'loo', or by LOO(alphas=…) for alphas of your own."
        )
    return np.argsort(fit.path.alphas, kind="stable")


def target_index(fit: Fit, target: str | int | None) -> int | None:
    """Return the position of a target given by name or position; None stands for all."""
    names = fit.target_names
    if target is None or target in range(len(names)):
        return None if target is None else int(target)
    if target in names:
        return names.index(str(target))
    raise InputError(
        f"target={target!r} is not a target of this fit.{did_you_mean(str(target), names)} "
        f"Its targets are {name_some(names)}."
    )


def label(name: str) -> str:
    """Return a name as a label on one line: cut if it is long, and without meaning to matplotlib.

    >>> label("_id"), label("a name of more than twenty-eight letters")
    (' _id', 'a name of more…eight letters')
    """
    text = printable(name, NAME_WIDTH).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes given, or those of a new figure of pyplot."""
    require_matplotlib()
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(7.5, 4.5), layout="constrained")[1]


def alpha_axis(ax: Axes, fit: Fit) -> None:
    """Make the x-axis logarithmic in alpha (with a place for 0 if it was tried) and put df above it."""
    order = tried(fit)
    alphas, df = fit.path.alphas[order], fit.path.df[order]
    _scale(ax, alphas)
    ax.set_xlabel("penalty α (sum scale)")
    if np.isnan(df).all():  # a loaded path whose df had not been computed
        return
    top = ax.twiny()
    _scale(top, alphas)
    ax.callbacks.connect("xlim_changed", lambda changed: top.set_xlim(changed.get_xlim()))
    ticks = _spread(alphas)
    top.set_xticks(alphas[ticks], [_short_df(value) for value in df[ticks]])
    top.minorticks_off()
    top.set_xlabel("effective degrees of freedom", color=QUIET, fontsize="small")
    top.tick_params(axis="x", colors=QUIET, labelsize="small", length=3)
    for axes in (ax, top):
        axes.spines[["right", "top"]].set_visible(False)
    ax.figure.sca(ax)  # the twin would be pyplot's current axes otherwise


def _scale(ax: Axes, alphas: Array) -> None:
    """Set a logarithmic scale and its limits; between 0 and the smallest positive alpha it is linear."""
    largest = float(alphas[-1])
    if alphas[0] > 0:
        margin = (largest / float(alphas[0])) ** 0.03 if largest > alphas[0] else 2.0
        ax.set_xscale("log")
        ax.set_xlim(float(alphas[0]) / margin, largest * margin)
    elif largest > 0:
        smallest = float(alphas[alphas > 0][0])
        ax.set_xscale("symlog", linthresh=smallest)
        ax.set_xlim(-0.3 * smallest, 1.3 * largest)
    else:
        ax.set_xlim(-1.0, 1.0)


def _spread(alphas: Array) -> Array:
    """Return positions of a few alphas, about evenly spaced on the logarithmic axis."""
    place = np.log10(np.maximum(alphas, alphas[alphas > 0].min(initial=1.0) / 10))
    wanted = np.linspace(place[0], place[-1], DF_TICKS)
    return np.unique(np.abs(place[:, None] - wanted).argmin(axis=0))


def _short_df(value: float) -> str:
    """Write df briefly.

    >>> [_short_df(value) for value in (9.98, 489.11, 0.31, 0.0049)]
    ['10', '489', '0.31', '0']
    """
    return f"{value:.0f}" if value >= 100 else f"{round(value, 2):.2g}" if value < 10 else f"{value:.3g}"


def side_legend(ax: Axes) -> None:
    """Put the legend beside the axes, where it hides nothing."""
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def mark_alpha(ax: Axes, fit: Fit, t: int) -> None:
    """Draw the vertical line of a target's chosen alpha."""
    alpha, df = float(fit.alpha[t]), float(fit.df[t])
    ax.axvline(
        alpha, color=MARK, linestyle="--", linewidth=1.2, label=f"chosen: α = {alpha:.4g},\n  df = {df:.3g}"
    )
