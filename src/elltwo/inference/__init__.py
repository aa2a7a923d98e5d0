"""Uncertainty of L2-penalised generalised linear models: standard errors, intervals, predictions.

At the optimum of Σ wᵢ·½dev(yᵢ, ηᵢ) + (α/2)(θ − θ₀)ᵀP(θ − θ₀), with x̃ = (x, 1) the row with the intercept's
column, P̃ = P with a zero row and column for the intercept, and φ the dispersion:

    G = Σ wᵢ·hᵢ·x̃ᵢx̃ᵢᵀ         the information of the rows, hᵢ = ℓ''(yᵢ, ηᵢ)
    H = G + αP̃                 the Hessian of the objective
    M = Σ wᵢ²·ℓ'ᵢ²·x̃ᵢx̃ᵢᵀ       the spread of the scores (Σ wᵢ·ℓ'ᵢ²·x̃ᵢx̃ᵢᵀ where weights are frequencies)

    "bayes"      φ·H⁻¹           covariance of the posterior, under the prior θ ~ N(θ₀, φ(αP)⁻¹)
    "model"      φ·H⁻¹GH⁻¹       covariance of the estimate over samples of y, if the model holds
    "sandwich"   H⁻¹MH⁻¹         the same without trust in the model's variances

One pass over the rows gathers G, M, the score and Pearson's statistic; only matrices of p + 1 columns are
kept. Everything is computed about the (weighted) means of the features, so that large means cost no digits.

See Wood (2017), "Generalized Additive Models", 2nd ed., section 6.10, for the first two, and White (1982),
"Maximum likelihood estimation of misspecified models", Econometrica 50(1), for the third.
"""

from elltwo.inference.checks import INFORMATION, KINDS, MOST_BYTES, MOST_JOINT
from elltwo.inference.estimate import infer
from elltwo.inference.prediction import Predictions
from elltwo.inference.result import Inference, PerCoefficient

__all__ = [
    "INFORMATION", "KINDS", "MOST_BYTES", "MOST_JOINT", "Inference", "PerCoefficient", "Predictions", "infer",
]  # fmt: skip
