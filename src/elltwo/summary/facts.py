"""What a fit has to say, as plain JSON values."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from elltwo.errors import Status
from elltwo.summary.layout import NAME, printable, quoted

if TYPE_CHECKING:
    from elltwo.results import Fit

#: What a fit is called, by the name of its loss; {} takes the loss's parameters.
_HEADINGS = {
    "gaussian": "Ridge (L2) regression",
    "binomial": "Logistic regression (L2)",
    "multinomial": "Multinomial logistic regression (L2)",
    "poisson": "Poisson regression (L2)",
    "gamma": "Gamma regression (L2)",
    "tweedie": "Tweedie regression (L2, power {power:g})",
    "negative-binomial": "Negative binomial regression (L2, dispersion {dispersion:g})",
    "huber": "Robust regression (L2, Huber's loss, ε = {epsilon:g})",
    "squared-hinge": "Support vector classification (squared hinge, L2)",
    "squared-epsilon-insensitive": "Support vector regression (squared, L2, ε = {epsilon:g})",
}
#: What e^θ is for a loss: the key in the dictionary, the head of the column, and what it multiplies.
RATIOS = {
    "binomial": ("odds_ratio", "Odds ratio", "the odds"),
    "poisson": ("rate_ratio", "Rate ratio", "the expected count"),
    "negative-binomial": ("rate_ratio", "Rate ratio", "the expected count"),
    "gamma": ("mean_ratio", "Mean ratio", "the expected value"),
    "tweedie": ("mean_ratio", "Mean ratio", "the expected value"),
}


def as_dict(fit: Fit) -> dict[str, Any]:
    """Return everything that `as_text` shows, for every feature and target, as plain JSON values.

    Numbers that do not exist (the R² of a held-out sample under GCV, the residual standard error of
    a model with as many effective parameters as observations) are None; there is no NaN or infinity.

    Parameters
    ----------
    fit : Fit
        A fitted model.

    Returns
    -------
    dict
        ``family`` (the name of the loss), ``parameters`` of the loss, ``title``, ``classes`` (None for
        numbers), ``event`` (of two classes), ``offset``, ``quality`` (see `elltwo.quality`), ``objective``,
        ``rows``, ``rows_dropped``, ``observations``, ``sum_weights``, ``weights`` ("none", "analytic" or
        "frequency"), ``weights_column``, ``standardize``,
        ``fit_intercept``; ``kernel``: None, or what `KernelFit.basis` says; ``rule``,
        ``rule_text``; ``alphas``: smallest, largest and number of those tried;
        ``edge``: "low", "high" or "both" where the optimum is not inside them, else None; ``columns`` of the
        table with name and kind (None for a model of arrays); ``features`` with name, mean and sd;
        ``targets``, each with name, mean, sd, alpha (sum scale), lambda (mean scale, α/Σw), score, df, r2,
        r2_cv, for squared error rss, cv_mse, residual_standard_error and else deviance, null_deviance,
        cv_deviance, then residual_df, intercept and ``coefficients`` by decreasing size of the standardised
        one: feature, coef, standardized, and for a logit or log link e^coef and e^standardized as
        odds_ratio, rate_ratio or mean_ratio, and with _sd; ``certificate``; ``solver``, ``solver_reason``;
        ``status`` with name and message. A fit with inference also has in ``inference`` kind, level, meaning,
        dispersion, dispersion_estimated and residual_df, one for each target or one for all classes, and in
        every coefficient std_error, low and high (also _low and _high of the ratio, and intercept_std_error,
        intercept_low and intercept_high of the target); without any penalty also statistic and p_value.
    """
    certificate = fit.certificate
    features = zip(fit.feature_names, fit.feature_means, fit.feature_scales, strict=True)
    return {
        "family": fit.loss.name,
        "parameters": dataclasses.asdict(fit.loss),
        "title": _title(fit),
        "classes": None if fit.classes is None else list(fit.classes),
        "event": fit.classes[1] if fit.classes is not None and fit.coef.shape[1] == 1 else None,
        "offset": _offset(fit),
        "quality": None if fit.quality is None else dict(fit.quality),
        "objective": fit.objective,
        "rows": int(fit.n_rows),
        "rows_dropped": int(fit.rows_dropped),
        "observations": _number(fit.n_observations),
        "sum_weights": _number(fit.sum_weights),
        "weights": fit.weights,
        "weights_column": fit.weights_column,
        "standardize": bool(fit.standardize),
        "fit_intercept": bool(fit.fit_intercept),
        "kernel": fit.basis(),
        "rule": fit.rule,
        "rule_text": fit.rule_text,
        "alphas": _alphas(fit),
        "edge": _edge(fit),
        "columns": _columns(fit),
        "features": [{"name": n, "mean": _number(m), "sd": _number(s)} for n, m, s in features],
        "targets": [_target(fit, t) for t in range(len(fit.target_names))],
        "certificate": {
            "residual": _number(certificate.residual),
            "measured_on": certificate.measured_on,
            "condition": _number(certificate.condition),
            "digits": _number(certificate.digits),
            "refinements": int(certificate.refinements),
            "gap": None if certificate.gap is None else _number(certificate.gap),
        },
        "solver": fit.solver,
        "solver_reason": fit.solver_reason,
        "inference": _inference(fit),
        "status": [{"name": s.name, "message": s.value} for s in fit.status],
    }


def _target(fit: Fit, t: int) -> dict[str, Any]:
    s = 0 if fit.loss.coupled else t  # classes that share one deviance
    intercepts = fit.fit_intercept * (len(fit.target_names) - 1 if fit.loss.coupled else 1)
    uncertain = None if fit.inference is None else _uncertain(fit, t)
    residual_df = fit.n_observations - float(fit.df[t]) - intercepts
    # fewer than a millionth of an observation left over is rounding, not information about the noise
    saturated = residual_df <= 1e-6 * fit.n_observations
    score = fit.path.score
    if score is not None:
        score = score[fit.path.chosen[t]]
        score = score[t] if np.ndim(score) else score
    cv = None if fit.cv_deviance is None else _number(fit.cv_deviance[s])
    if fit.loss.name == "gaussian":
        error = None if saturated else _number(math.sqrt(fit.deviance[s] / residual_df))
        size = {"rss": _number(fit.deviance[s]), "cv_mse": cv, "residual_standard_error": error}
    else:
        null = _number(fit.null_deviance[s])
        size = {"deviance": _number(fit.deviance[s]), "null_deviance": null, "cv_deviance": cv}
    return {
        "name": fit.target_names[t],
        "mean": _number(fit.target_means[t]),
        "sd": _number(fit.target_scales[t]),
        "alpha": _number(fit.alpha[t]),
        "lambda": _number(fit.lambda_[t]),
        "score": None if score is None else _number(score),
        "df": _number(fit.df[t]),
        "r2": _number(fit.r2[s]),
        "r2_cv": None if fit.r2_cv is None else _number(fit.r2_cv[s]),
        **size,
        "residual_df": _number(max(residual_df, 0.0)),
        "intercept": _number(fit.intercept[t]),
        **({} if uncertain is None else {f"intercept_{k}": _number(v[-1]) for k, v in uncertain.items()}),
        "coefficients": _coefficients(fit, t, uncertain),
    }


def _inference(fit: Fit) -> dict[str, Any] | None:
    """Say what the standard errors are; None without any."""
    found = fit.inference
    if found is None:
        return None
    return {
        "kind": found.kind,
        "level": found.level,
        "meaning": found.meaning(),
        "dispersion": [_number(phi) for phi in found.dispersion],
        "dispersion_estimated": bool(found.estimated),
        "residual_df": [_number(max(df, 0.0)) for df in found.residual_df],
    }


def _uncertain(fit: Fit, t: int) -> dict[str, Any]:
    """Return what inference says on one target: arrays of the features, and of the intercept at the end."""
    found = fit.inference
    se, interval = found.standard_errors(), found.intervals()
    result = {
        "std_error": np.append(se.coef[:, t], se.intercept[t]),
        "low": np.append(interval.coef[:, t, 0], interval.intercept[t, 0]),
        "high": np.append(interval.coef[:, t, 1], interval.intercept[t, 1]),
    }
    if not (found.alpha > 0).any():  # with a penalty, 0 is not where the estimate would be centred
        p = found.p_values()
        with np.errstate(divide="ignore", invalid="ignore"):
            result["statistic"] = np.append(fit.coef[:, t], fit.intercept[t]) / result["std_error"]
        result["p_value"] = np.append(p.coef[:, t], p.intercept[t])
    return result


def _coefficients(fit: Fit, t: int, uncertain: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Describe the coefficients of a target by decreasing importance; none where they are not of features."""
    if fit.basis() is not None:
        return []
    return [
        _coefficient(fit, j, t, uncertain) for j in by_importance(np.abs(fit.coef[:, t] * fit.feature_scales))
    ]


def _coefficient(fit: Fit, j: int, t: int, uncertain: dict[str, Any] | None) -> dict[str, Any]:
    coef, standard = fit.coef[j, t], fit.coef[j, t] * fit.feature_scales[j]
    row = {"feature": fit.feature_names[j], "coef": _number(coef), "standardized": _number(standard)}
    own = {} if uncertain is None else {key: values[j] for key, values in uncertain.items()}
    row |= {key: _number(value) for key, value in own.items()}
    if fit.loss.name not in RATIOS:
        return row
    key = RATIOS[fit.loss.name][0]
    with np.errstate(over="ignore"):
        row |= {key: _number(np.exp(coef)), f"{key}_sd": _number(np.exp(standard))}
        return row | {f"{key}_{end}": _number(np.exp(own[end])) for end in ("low", "high") if own}


def _heading(fit: Fit) -> str:
    """Name the model."""
    known = _HEADINGS.get(fit.loss.name, f"L2-regularised regression ({fit.loss.name} loss)")
    if fit.basis() is not None:
        known = known.replace("Ridge (L2) regression", "ridge regression (L2)")
        return f"Kernel {known if known.startswith('Poisson') else known[0].lower() + known[1:]}"
    return known if fit.model == "Ridge (L2)" else f"{fit.model} regression"


def _title(fit: Fit) -> str:
    """Name the model and its target in one line."""
    title = _heading(fit).format(**dataclasses.asdict(fit.loss))
    if fit.classes is None:
        names = [printable(name, NAME) for name in fit.target_names]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more targets" if len(names) > 3 else "")
        return f"{title} of {'the proportion ' * (fit.loss.name == 'binomial')}{shown}"
    target = (fit.quality or {}).get("target", fit.target_names[0] if len(fit.target_names) == 1 else None)
    of = "" if target is None else f" of {printable(target, NAME)}"
    labels = [quoted(label) for label in fit.classes]
    if fit.coef.shape[1] == 1:
        against = f"{labels[1]} against {labels[0]}"
        return f"{title}{of}: " + (f"event {labels[1]}" if fit.loss.link == "logit" else against)
    each = "" if fit.loss.coupled else ", each against the rest"
    return f"{title}{of}: {len(labels)} classes{each}"


def _offset(fit: Fit) -> dict[str, str] | None:
    """Name the columns of the offset; None without any."""
    return None if fit.encoder is None else fit.encoder.to_dict().get("offsets")


def by_importance(size: Any) -> list[int]:
    """Return the features by decreasing size."""
    return [int(j) for j in np.argsort(-size, kind="stable")]


def _columns(fit: Fit) -> list[dict[str, str]] | None:
    """Name the table's columns behind the features; None for a model of arrays."""
    if fit.encoder is None:
        return None
    return [{"name": c["name"], "kind": c["kind"]} for c in fit.encoder.to_dict()["columns"]]


def _alphas(fit: Fit) -> dict[str, Any] | None:
    if fit.path.score is None:
        return None
    alphas = fit.path.alphas
    return {"smallest": _number(alphas.min()), "largest": _number(alphas.max()), "number": len(alphas)}


def _edge(fit: Fit) -> str | None:
    low, high = Status.EDGE_LOW in fit.status, Status.EDGE_HIGH in fit.status
    return "both" if low and high else "low" if low else "high" if high else None


def _number(value: Any) -> float | int | None:
    """Return a plain number, an int where that is exact for a count, or None for NaN and infinity."""
    value = float(value)
    return value if math.isfinite(value) else None
