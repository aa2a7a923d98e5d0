"""`infer`: from a problem and its minimum to standard errors, in one pass over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from elltwo.errors import InputError
from elltwo.inference.checks import (
    INFORMATION,
    check_choice,
    check_loss,
    check_memory,
    check_minimum,
    check_model,
)
from elltwo.inference.inverse import invert_joint, invert_targets
from elltwo.inference.result import Inference, PerCoefficient, Spread
from elltwo.inference.rows import gather_joint, gather_targets
from elltwo.problem import Problem

Array = npt.NDArray[Any]

#: A share of n below which residual degrees of freedom are rounding.
SATURATED = 1e-6


def infer(
    problem: Problem,
    coef: Any,
    intercept: Any,
    alpha: Any,
    *,
    quasi: bool = False,
    dispersion: float | None = None,
    information: str = "observed",
) -> Inference:
    """Return standard errors, intervals and predictions of a fitted model, from one pass over its rows.

    Parameters
    ----------
    problem : Problem
        The objective that was minimised.
    coef, intercept : arrays, shapes (p, T) or (p,), and (T,) or a number
        Its minimum, on the original scale of the features.
    alpha : float or array, shape (T,)
        The penalty, on the sum scale.
    quasi : bool
        Estimate φ also for the binomial, multinomial, Poisson and negative binomial, which have φ = 1. It
        says nothing for single 0/1 observations: it is for proportions of trials, and for counts.
    dispersion : float, optional
        A known φ > 0.
    information : {"observed", "expected"}
        Whether h is the curvature of the loss at y, or its expectation over y, which is the curvature at
        y = μ. They differ for the Gamma, Tweedie and negative binomial, whose log link is not canonical:
        there R's glm and statsmodels' IRLS report the expected.

    Returns
    -------
    Inference

    Raises
    ------
    InputError
        If the loss is no likelihood; if shapes do not match; if (coef, intercept) is not the minimum at this
        alpha; if some coefficients are not determined; if nothing is left over to estimate φ from; for more
        than 2000 coefficients of classes, whose joint covariance is not made; or if the matrices of p × p
        for each target would take more than 8 GiB.

    Notes
    -----
    The penalised estimate is biased: its expectation differs from the truth by −H⁻¹αP(θ − θ₀), of which
    `Inference.bias` is an estimate. No interval is wider for it, save that "bayes" counts it on average over
    the prior. alpha is taken as given: that it was chosen on the same rows is not in the uncertainty.

    Examples
    --------
    >>> from elltwo.data.memory import MemorySource
    >>> from elltwo.losses import Poisson
    >>> X, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([2.0, 4.0, 5.0, 7.0])
    >>> problem = Problem(MemorySource(X, y), loss=Poisson())
    >>> result = infer(problem, np.log([2.0]), np.log(3.0), 0.0)
    >>> result.standard_errors("model").coef.round(4), round(float((1 / 6 + 1 / 12) ** 0.5), 4)
    (array([[0.5]]), 0.5)
    >>> print(result.summary())  # doctest: +ELLIPSIS
    y: poisson, log link, α = 0 (sum scale)
    ...
    """
    loss = problem.loss
    check_loss(loss)
    check_choice("information", information, INFORMATION)
    theta, b, alphas = check_model(problem, coef, intercept, alpha)
    check_memory(problem)
    if dispersion is not None:
        if quasi:
            raise InputError("give quasi=True or a dispersion, not both: quasi estimates it.")
        if not 0 < dispersion < np.inf:
            raise InputError(f"dispersion must be a finite number > 0; got {dispersion!r}.")
    # A family says how many parameters besides the mean it has; one that does not say is taken to have φ.
    estimated = dispersion is None and (quasi or getattr(loss, "dispersions", 1) > 0)
    own = problem.reduce(theta, b)
    gather = gather_joint if loss.coupled else gather_targets
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # what is not finite is looked for at the end of the pass
        gathered, scales, n = gather(problem, *own, information, estimated)
    form = problem.form(scales)
    varies = (scales > 0) | (not problem.fit_intercept) | (form.rotation is not None)
    if loss.coupled:
        inverses = [invert_joint(problem, gathered[0], form, float(alphas[0]), theta.shape[1], varies)]
        n *= theta.shape[1] - 1
    else:
        inverses = invert_targets(problem, gathered, form, alphas, varies)
    per = theta.shape[1] // len(gathered)
    residual_df = np.array([n - f.trace for f in inverses])
    if dispersion is not None:
        phi = np.full(len(gathered), float(dispersion))
    elif estimated:
        if (residual_df <= SATURATED * n).any():
            raise InputError(
                "there are as many effective parameters as observations, so nothing is left over to estimate "
                "the dispersion from. Raise alpha, or give dispersion=."
            )
        phi = np.array([r.pearson for r in gathered]) / residual_df
    else:
        phi = np.ones(len(gathered))
    bias = []
    for s, (rows, found) in enumerate(zip(gathered, inverses, strict=True)):
        pull = alphas[s] * form.apply(own[0][:, s * per : (s + 1) * per])
        if problem.fit_intercept:
            pull = np.vstack([pull, np.zeros(per)])
        pull = pull.T.ravel()
        check_minimum(rows, found, pull, float(phi[s]), float(alphas[s]))
        bias.append((-found.inverse @ pull).reshape(per, -1).T)
    stacked = np.hstack(bias)
    p = len(theta)
    moved = (
        stacked[p] - np.hstack([r.centre @ part[:p] for r, part in zip(gathered, bias, strict=True)])
        if problem.fit_intercept
        else np.zeros(theta.shape[1])
    )
    free = problem.fit_intercept * max(1, per - 1)
    return Inference(
        coef=theta,
        intercept=b,
        alpha=alphas,
        df=np.array([f.trace - free for f in inverses]),
        residual_df=residual_df,
        dispersion=phi,
        estimated=estimated,
        bias=PerCoefficient(stacked[:p], moved),
        n_observations=n / max(1, per - 1),
        loss=loss,
        fit_intercept=problem.fit_intercept,
        feature_names=tuple(problem.source.feature_names),
        target_names=tuple(problem.source.target_names),
        centres=tuple(r.centre for r in gathered),
        _spreads={
            "bayes": Spread(tuple(f.inverse for f in inverses), phi),
            "model": Spread(tuple(f.model for f in inverses), phi),
            "sandwich": Spread(
                tuple(f.inverse @ r.meat @ f.inverse for r, f in zip(gathered, inverses, strict=True)),
                np.ones(len(gathered)),
            ),
        },
    )
