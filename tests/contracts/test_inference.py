"""Uncertainty equals statsmodels, dense formulas, exact arithmetic and simulation."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import sparse, stats

from elltwo.data.memory import MemorySource
from elltwo.errors import InputError
from elltwo.fitting import fit_source
from elltwo.inference import KINDS, infer
from elltwo.losses import (
    Binomial,
    Gamma,
    Gaussian,
    Huber,
    Multinomial,
    NegativeBinomial,
    Poisson,
    SquaredHinge,
    Tweedie,
)
from elltwo.penalties import Diagonal, Identity, Matrix, Standardized
from elltwo.problem import Problem
from shapes import weights_kind

N, P = 80, 3
GLMS = {
    "gaussian": Gaussian(),
    "binomial": Binomial(),
    "poisson": Poisson(),
    "gamma": Gamma(),
    "tweedie": Tweedie(1.4),
    "negative-binomial": NegativeBinomial(0.7),
}
every_glm = pytest.mark.parametrize("family", GLMS)


class Pieces(MemorySource):
    """The same rows in blocks of seven, as float32 or float64 copies."""

    in_memory = False

    def blocks(self) -> Any:
        for block in super().blocks():
            for i in range(0, len(block.y), 7):
                rows = slice(i, i + 7)
                yield type(block)(
                    block.X[rows].copy(),
                    block.y[rows],
                    None if block.weights is None else block.weights[rows],
                    block.start + i,
                    None if block.offset is None else block.offset[rows],
                )


def draw(family: str, rng: np.random.Generator, eta: Any) -> Any:
    mu = GLMS[family].mean(eta)
    if family == "gaussian":
        return mu + rng.normal(size=len(mu))
    if family == "binomial":
        return rng.binomial(1, mu).astype(float)
    if family in ("poisson", "tweedie"):
        return rng.poisson(mu).astype(float) * (1.3 if family == "tweedie" else 1.0)
    if family == "gamma":
        return rng.gamma(3.0, mu / 3.0)
    return rng.poisson(mu * rng.gamma(1 / 0.7, 0.7, size=len(mu))).astype(float)


def rows(family: str, n: int = N) -> tuple[Any, Any]:
    rng = np.random.default_rng([7, list(GLMS).index(family)])
    X = rng.normal(size=(n, P)) @ (np.eye(P) + 0.4) + np.array([0.5, 0.0, 3.0])
    return X, draw(family, rng, 0.4 * X[:, 0] - 0.3 * X[:, 1] + 0.1 * (X[:, 2] - 3))


def minimise(problem: Problem, X: Any, Y: Any, w: Any, offset: Any, alpha: float, P_: Any, prior: Any) -> Any:
    """Return (θ, b) for one target by dense Newton steps with halving; the oracle's own solver."""
    loss = problem.loss
    D = np.column_stack([X, np.ones(len(X))]) if problem.fit_intercept else X
    q, p = D.shape[1], X.shape[1]
    big = np.zeros((q, q))
    big[:p, :p] = alpha * P_
    zero = np.zeros(q)
    zero[:p] = prior

    def value(beta: Any) -> float:
        return float(w @ loss.value(Y, D @ beta + offset) + (beta - zero) @ big @ (beta - zero) / 2)

    beta = zero.copy()
    for _ in range(100):
        g, h = loss.derivatives(Y, D @ beta + offset)
        gradient = D.T @ (w * g) + big @ (beta - zero)
        step = np.linalg.solve((D.T * (w * h)) @ D + big, gradient)
        size = 1.0
        while value(beta - size * step) > value(beta) + 1e-12 * abs(value(beta)) and size > 1e-8:
            size /= 2
        beta = beta - size * step
        if np.abs(step).max() < 1e-13:
            break
    return beta[:p], beta[p] if problem.fit_intercept else 0.0


def fitted(problem: Problem, alpha: float) -> tuple[Any, Any]:
    """Return the minimum of a problem for one target in memory."""
    source = problem.source
    assert isinstance(source, MemorySource)
    block = next(iter(MemorySource.blocks(source)))
    X, y = np.asarray(block.X, dtype=float), block.y[:, 0]
    w = np.ones(len(y)) if block.weights is None else block.weights
    offset = np.zeros(len(y)) if block.offset is None else block.offset[:, 0]
    scale = np.sqrt(np.average((X - np.average(X, axis=0, weights=w)) ** 2, axis=0, weights=w))
    prior = np.zeros(X.shape[1]) if problem.prior is None else problem.prior
    theta, b = minimise(problem, X, y, w, offset, alpha, problem.form(scale).matrix(), prior)
    return theta[:, None], np.array([b])


def everything(result: Any) -> list[Any]:
    return [
        result.df,
        result.residual_df,
        result.dispersion,
        *result.bias,
        *(result.covariance(kind) for kind in KINDS),
        *(part for kind in KINDS for part in result.standard_errors(kind)),
    ]


def assert_same(a: Any, b: Any, rtol: float = 1e-9) -> None:
    for mine, other in zip(everything(a), everything(b), strict=True):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=1e-12)


# ---------------------------------------------------------------------------------------- statsmodels


def peer(family: str, X: Any, y: Any, **options: Any) -> Any:
    import statsmodels.api as sm

    families = {
        "gaussian": sm.families.Gaussian(),
        "binomial": sm.families.Binomial(),
        "poisson": sm.families.Poisson(),
        "gamma": sm.families.Gamma(sm.families.links.Log()),
        "tweedie": sm.families.Tweedie(var_power=1.4, link=sm.families.links.Log()),
        "negative-binomial": sm.families.NegativeBinomial(alpha=0.7),
    }
    return sm.GLM(y, np.column_stack([X, np.ones(len(X))]), families[family], **options)


@pytest.mark.parametrize("weights", [None, "counts", "precisions"])
@every_glm
def test_without_penalty_equal_to_statsmodels(family: str, weights: str | None) -> None:
    X, y = rows(family)
    rng = np.random.default_rng(3)
    offset = 0.2 * rng.normal(size=N)
    w: Any = None
    options: dict[str, Any] = {"offset": offset}
    if weights == "counts":
        w = options["freq_weights"] = rng.integers(1, 4, size=N)
    elif weights == "precisions":
        w = options["var_weights"] = rng.uniform(0.5, 2.0, size=N)
    problem = Problem(MemorySource(X, y, w, weights_are=weights_kind(w), offset=offset), loss=GLMS[family])
    theta, b = fitted(problem, 0.0)
    model = peer(family, X, y, **options)
    # Its IRLS reports the expected information, its sandwich and its Newton the observed one.
    expected = infer(problem, theta, b, 0.0, information="expected")
    irls = model.fit(tol=1e-14, maxiter=200)
    np.testing.assert_allclose(np.append(theta, b), irls.params, rtol=1e-7, atol=1e-9)
    se = expected.standard_errors("model")
    np.testing.assert_allclose(np.append(se.coef, se.intercept), irls.bse, rtol=1e-7)
    np.testing.assert_allclose(expected.dispersion, irls.scale, rtol=1e-7)
    se = infer(problem, theta, b, 0.0).standard_errors("sandwich")
    robust = model.fit(tol=1e-14, maxiter=200, cov_type="HC0")
    if weights is None or weights == "counts":
        np.testing.assert_allclose(np.append(se.coef, se.intercept), robust.bse, rtol=1e-7)
    if weights is None and family == "gamma":
        newton = model.fit(method="newton", tol=1e-14, maxiter=200, start_params=irls.params)
        observed = infer(problem, theta, b, 0.0).standard_errors("model")
        np.testing.assert_allclose(observed.coef[:, 0], newton.bse[:P], rtol=1e-7)
    # Intervals and p-values use t where the dispersion is estimated, as use_t does there.
    use_t = model.fit(tol=1e-14, maxiter=200, use_t=expected.estimated)
    interval = expected.intervals(0.9, "model")
    np.testing.assert_allclose(
        np.vstack([interval.coef[:, 0], interval.intercept]), use_t.conf_int(0.1), rtol=1e-6, atol=1e-8
    )
    p = expected.p_values("model")
    np.testing.assert_allclose(np.append(p.coef, p.intercept), use_t.pvalues, rtol=1e-5, atol=1e-10)


def test_quasi_equals_pearson_scale_of_statsmodels() -> None:
    X, y = rows("poisson")
    problem = Problem(MemorySource(X, y), loss=Poisson())
    theta, b = fitted(problem, 0.0)
    result = infer(problem, theta, b, 0.0, quasi=True)
    other = peer("poisson", X, y).fit(scale="X2", tol=1e-14)
    assert result.estimated
    np.testing.assert_allclose(result.standard_errors("model").coef[:, 0], other.bse[:P], rtol=1e-7)


# ------------------------------------------------------------------------------------- dense formulas


def dense(problem: Problem, theta: Any, b: Any, alpha: float) -> dict[str, Any]:
    """Return covariances and the rest from n × q matrices, written out."""
    source, loss = problem.source, problem.loss
    assert isinstance(source, MemorySource)
    X, y = np.asarray(source.X, dtype=float), source.y[:, 0]
    w = np.ones(len(y)) if source.weights is None else source.weights
    offset = 0.0 if source.given_offset is None else source.given_offset[:, 0]
    D = np.column_stack([X, np.ones(len(X))]) if problem.fit_intercept else X
    eta = X @ theta[:, 0] + b[0] + offset
    g, h = loss.gradient(y, eta), loss.curvature(y, eta)
    scale = np.sqrt(np.average((X - np.average(X, axis=0, weights=w)) ** 2, axis=0, weights=w))
    penalty = np.zeros((D.shape[1],) * 2)
    penalty[: X.shape[1], : X.shape[1]] = alpha * problem.form(scale).matrix()
    G = (D.T * (w * h)) @ D
    H = np.linalg.inv(G + penalty)
    M = (D.T * (w * g**2 if source.counts else w**2 * g**2)) @ D
    hat = H @ G
    n = w.sum() if source.counts else np.count_nonzero(w)
    residual_df = n - np.trace(hat)
    mu = loss.mean(eta)
    variance = {
        "gaussian": np.ones_like(mu),
        "gamma": mu**2,
        "tweedie": mu ** getattr(loss, "power", 1.0),
    }.get(loss.name)
    phi = 1.0 if variance is None else w @ ((y - mu) ** 2 / variance) / residual_df
    delta = np.zeros(D.shape[1])
    delta[: X.shape[1]] = theta[:, 0] - (0 if problem.prior is None else problem.prior)
    return {
        "bayes": phi * H,
        "model": phi * H @ G @ H,
        "sandwich": H @ M @ H,
        "df": np.trace(hat) - problem.fit_intercept,
        "residual_df": residual_df,
        "dispersion": phi,
        "bias": -H @ penalty @ delta,
    }


def variant(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(11)
    root = rng.normal(size=(P, P))
    return {
        "plain": {},
        "no intercept": {"fit_intercept": False},
        "prior": {"prior": np.array([0.3, -0.2, 0.1])},
        "standardised": {"penalty": Standardized(Identity())},
        "multipliers": {"penalty": Diagonal.of([0.0, 1.0, 3.0])},
        "matrix": {"penalty": Matrix.of(root.T @ root), "prior": np.array([0.1, 0.1, -0.1])},
    }[name]


@pytest.mark.parametrize("weights", [None, "counts", "precisions"])
@pytest.mark.parametrize("name", ["plain", "no intercept", "prior", "standardised", "multipliers", "matrix"])
@every_glm
def test_penalised_equal_to_dense_formulas(family: str, name: str, weights: str | None) -> None:
    X, y = rows(family)
    rng = np.random.default_rng(5)
    w = {
        None: None,
        "counts": rng.integers(0, 4, size=N),
        "precisions": rng.uniform(0.1, 2.0, size=N),
    }[weights]
    offset = 0.2 * rng.normal(size=N)
    problem = Problem(
        MemorySource(X, y, w, weights_are=weights_kind(w), offset=offset), loss=GLMS[family], **variant(name)
    )
    alpha = 2.5
    theta, b = fitted(problem, alpha)
    result = infer(problem, theta, b, alpha)
    want = dense(problem, theta, b, alpha)
    for kind in KINDS:
        np.testing.assert_allclose(result.covariance(kind)[0], want[kind], rtol=1e-8, atol=1e-12)
        se, root = result.standard_errors(kind), np.sqrt(want[kind].diagonal())
        np.testing.assert_allclose(se.coef[:, 0], root[:P], rtol=1e-9)
        np.testing.assert_allclose(se.intercept, root[P] if len(root) > P else 0.0, rtol=1e-8)
    np.testing.assert_allclose(result.df, want["df"], rtol=1e-9)
    np.testing.assert_allclose(result.residual_df, want["residual_df"], rtol=1e-10)
    np.testing.assert_allclose(result.dispersion, want["dispersion"], rtol=1e-9)
    bias = np.append(result.bias.coef[:, 0], result.bias.intercept if problem.fit_intercept else [])
    np.testing.assert_allclose(bias, want["bias"], rtol=1e-8, atol=1e-12)


def test_large_means_cost_no_digits() -> None:
    """Against 60-digit arithmetic, with a feature at 1e7 ± 1."""
    rng = np.random.default_rng(2)
    X = np.column_stack([1e7 + rng.integers(-4, 5, size=30) / 4, rng.integers(-8, 9, size=30) / 8])
    y = rng.integers(0, 5, size=30).astype(float)
    problem = Problem(MemorySource(X, y), loss=Poisson())
    # The minimum about the mean is easy; moved back, η is right to 1e-9, which changes no weight more.
    easy = Problem(MemorySource(X - [1e7, 0], y), loss=Poisson())
    theta, b = fitted(easy, 0.5)
    result = infer(problem, theta, b - 1e7 * theta[0], 0.5)
    with mpmath.workdps(60):
        H = mpmath.zeros(3)
        for x, fit in zip(X, np.exp((X - [1e7, 0]) @ theta[:, 0] + b), strict=True):
            z = mpmath.matrix([mpmath.mpf(x[0]), mpmath.mpf(x[1]), mpmath.mpf(1)])
            H += mpmath.mpf(fit) * z * z.T
        H[0, 0] += mpmath.mpf(0.5)
        H[1, 1] += mpmath.mpf(0.5)
        inverse = H**-1
        want = [float(mpmath.sqrt(inverse[i, i])) for i in range(3)]
        new = mpmath.matrix([mpmath.mpf(1e7 + 0.5), mpmath.mpf(0.25), 1])
        at_new = float(mpmath.sqrt((new.T * inverse * new)[0]))
    se = result.standard_errors()
    np.testing.assert_allclose([*se.coef[:, 0], *se.intercept], want, rtol=1e-8)
    prediction = result.predict(np.array([[1e7 + 0.5, 0.25]]))
    np.testing.assert_allclose(prediction.link_se, at_new, rtol=1e-8)


def test_units_of_the_features_do_not_matter() -> None:
    X, y = rows("binomial")
    units = np.array([1e-9, 1.0, 1e9])
    plain = Problem(MemorySource(X, y), loss=Binomial())
    scaled = Problem(MemorySource(X * units, y), loss=Binomial())
    theta, b = fitted(plain, 0.0)
    a = infer(plain, theta, b, 0.0)
    other = infer(scaled, theta / units[:, None], b, 0.0)
    for kind in KINDS:
        mine = other.standard_errors(kind)
        np.testing.assert_allclose(mine.coef[:, 0] * units, a.standard_errors(kind).coef[:, 0], rtol=1e-9)
        np.testing.assert_allclose(mine.intercept, a.standard_errors(kind).intercept, rtol=1e-9)


def test_bayesian_interval_is_the_ridge_posterior() -> None:
    """y ~ N(b + Xθ, σ²/w), θ ~ N(θ₀, σ²/α P⁻¹), b flat: conditioned by the joint normal of (θ, b, y)."""
    X, y = rows("gaussian")
    rng = np.random.default_rng(8)
    w, prior, alpha, sigma2 = rng.uniform(0.5, 2, size=N), np.array([0.5, 0.0, -0.5]), 3.0, 1.7
    problem = Problem(MemorySource(X, y, w), prior=prior)
    theta, b = fitted(problem, alpha)
    result = infer(problem, theta, b, alpha, dispersion=sigma2)
    # A flat intercept as generalised least squares: b̂ under V = Cov(y), then θ by Gaussian conditioning.
    V = sigma2 * np.diag(1 / w) + sigma2 / alpha * X @ X.T
    inverse = np.linalg.inv(V)
    one = np.ones(N)
    var_b = 1 / (one @ inverse @ one)
    mean_b = var_b * (one @ inverse @ (y - X @ prior))
    gain = sigma2 / alpha * X.T @ inverse
    mean = prior + gain @ (y - X @ prior - mean_b)
    covariance = sigma2 / alpha * np.eye(P) - gain @ X * sigma2 / alpha
    covariance += var_b * np.outer(gain @ one, gain @ one)
    interval = result.intervals(0.8)
    reach = stats.norm.ppf(0.9)
    sd = np.sqrt(covariance.diagonal())
    np.testing.assert_allclose(
        interval.coef[:, 0], np.stack([mean - reach * sd, mean + reach * sd], axis=1), rtol=1e-9
    )
    np.testing.assert_allclose(
        interval.intercept[0], mean_b + reach * np.sqrt(var_b) * np.array([-1, 1]), rtol=1e-9
    )
    probability = 2 * stats.norm.cdf(-np.abs(mean) / sd)
    np.testing.assert_allclose(result.p_values().coef[:, 0], probability, rtol=1e-7)


# ------------------------------------------------------------------------------- metamorphic relations


@every_glm
def test_counts_are_repetitions(family: str) -> None:
    X, y = rows(family)
    counts = np.random.default_rng(4).integers(0, 4, size=N)
    offset = np.linspace(-0.3, 0.3, N)
    one = Problem(MemorySource(X, y, counts, weights_are="frequency", offset=offset), loss=GLMS[family])
    times = np.repeat(np.arange(N), counts)
    other = Problem(MemorySource(X[times], y[times], offset=offset[times]), loss=GLMS[family])
    theta, b = fitted(one, 1.0)
    assert_same(infer(one, theta, b, 1.0, quasi=True), infer(other, theta, b, 1.0, quasi=True))


@pytest.mark.parametrize("form", ["pieces", "sparse", "fortran", "float32"])
@every_glm
def test_streams_and_formats_are_memory(family: str, form: str) -> None:
    X, y = rows(family)
    X = X.astype(np.float32).astype(float)
    options: dict[str, Any] = {"weights": np.linspace(0.5, 2, N), "offset": np.linspace(-0.3, 0.3, N)}
    whole = Problem(MemorySource(X, y, **options), loss=GLMS[family], penalty=Standardized(Identity()))
    source = {
        "pieces": lambda: Pieces(X, y, **options),
        "sparse": lambda: MemorySource(sparse.csr_matrix(X), y, **options),
        "fortran": lambda: MemorySource(np.asfortranarray(X), y, **options),
        "float32": lambda: Pieces(X.astype(np.float32), y, **options),
    }[form]()
    other = Problem(source, loss=GLMS[family], penalty=Standardized(Identity()))
    theta, b = fitted(whole, 1.0)
    before = X.copy()
    assert_same(infer(whole, theta, b, 1.0), infer(other, theta, b, 1.0))
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_several_targets_are_as_many_models(family: str) -> None:
    X, y = rows(family)
    rng = np.random.default_rng(6)
    Y = np.column_stack([y, rng.permutation(y), rng.permutation(y)])
    alpha = np.array([1.0, 1.0, 30.0])
    single = [Problem(MemorySource(X, Y[:, t]), loss=GLMS[family]) for t in range(3)]
    found = [fitted(problem, a) for problem, a in zip(single, alpha, strict=True)]
    theta, b = np.hstack([f[0] for f in found]), np.hstack([f[1] for f in found])
    joint = infer(Problem(MemorySource(X, Y), loss=GLMS[family]), theta, b, alpha)
    own = [infer(single[t], *found[t], alpha[t]) for t in range(3)]
    new = np.random.default_rng(1).normal(size=(5, P))
    for kind in KINDS:
        np.testing.assert_allclose(
            joint.standard_errors(kind).coef,
            np.hstack([o.standard_errors(kind).coef for o in own]),
            rtol=1e-10,
        )
        np.testing.assert_allclose(
            joint.predict(new, kind=kind).link_interval,
            np.concatenate([o.predict(new, kind=kind).link_interval for o in own], axis=1),
            rtol=1e-9,
        )
    np.testing.assert_allclose(joint.df, np.hstack([o.df for o in own]), rtol=1e-10)
    np.testing.assert_allclose(joint.bias.coef, np.hstack([o.bias.coef for o in own]), rtol=1e-8)
    assert len(joint.as_table()) == 3 * (P + 1)


def test_agrees_with_the_fit_of_the_package() -> None:
    X, y = rows("gamma", 300)
    source = MemorySource(X, y)
    fit = fit_source(source, 2.0, loss=Gamma(), standardize=True)
    problem = Problem(source, loss=Gamma(), penalty=Standardized(Identity()))
    result = infer(problem, fit.coef, fit.intercept, fit.alpha)
    np.testing.assert_allclose(result.df, fit.df, rtol=1e-8)


# ------------------------------------------------------------------------------------------ prediction


@pytest.mark.parametrize("kind", KINDS)
@every_glm
def test_predictions_equal_the_dense_formula(family: str, kind: str) -> None:
    X, y = rows(family)
    problem = Problem(MemorySource(X, y), loss=GLMS[family])
    theta, b = fitted(problem, 2.0)
    result = infer(problem, theta, b, 2.0)
    new, offset = X[:9] + 0.1, np.linspace(-1, 1, 9)
    found = result.predict(new, offset, level=0.9, kind=kind)
    V = dense(problem, theta, b, 2.0)[kind]
    D = np.column_stack([new, np.ones(9)])
    eta, se = D @ np.append(theta, b) + offset, np.sqrt(np.einsum("ij,jk,ik->i", D, V, D))
    reach = stats.t.ppf(0.95, result.residual_df) if result.estimated else stats.norm.ppf(0.95)
    np.testing.assert_allclose(found.link[:, 0], eta, rtol=1e-10)
    np.testing.assert_allclose(found.link_se[:, 0], se, rtol=1e-8)
    link = np.stack([eta - reach * se, eta + reach * se], axis=1)
    np.testing.assert_allclose(found.link_interval[:, 0], link, rtol=1e-8)
    back = {"binomial": lambda e: 1 / (1 + np.exp(-e)), "gaussian": lambda e: e}.get(family, np.exp)
    np.testing.assert_allclose(found.mean[:, 0], back(eta), rtol=1e-9)
    np.testing.assert_allclose(found.mean_interval[:, 0], back(link), rtol=1e-8)
    if family == "gaussian":
        wide = reach * np.sqrt(se**2 + result.dispersion)
        assert found.new_interval is not None
        np.testing.assert_allclose(
            found.new_interval[:, 0], np.stack([eta - wide, eta + wide], axis=1), rtol=1e-8
        )
    else:
        assert found.new_interval is None
    for other in (sparse.csr_matrix(new), new.astype(np.float32).astype(float), new.tolist()):
        np.testing.assert_allclose(
            result.predict(other, offset, level=0.9, kind=kind).link_se, found.link_se, rtol=1e-5
        )


def test_no_rows_to_predict() -> None:
    X, y = rows("gaussian")
    problem = Problem(MemorySource(X, y))
    assert infer(problem, *fitted(problem, 1.0), 1.0).predict(np.zeros((0, P))).mean.shape == (0, 1)


# ------------------------------------------------------------------------------------------ simulation


def test_coverage_of_sandwich_and_bayes_in_repeated_samples() -> None:
    """400 logistic samples of 150 rows, α = 2: binomial error of a coverage of 0.95 is 0.011.

    The sandwich covers the expectation of the penalised estimate. Its spread equals the spread over samples
    to the error of a standard deviation of 400 values (4 %), and the estimates average bias is near −H⁻¹αPθ.
    """
    rng = np.random.default_rng(20)
    truth, alpha, n, repeats = np.array([1.0, -0.5, 0.0]), 2.0, 150, 400
    X = rng.normal(size=(n, P))
    mu = 1 / (1 + np.exp(-(X @ truth + 0.3)))
    found, errors, sandwich, bayes, bias = [], [], [], [], []
    for _ in range(repeats):
        problem = Problem(MemorySource(X, rng.binomial(1, mu).astype(float)), loss=Binomial())
        theta, b = fitted(problem, alpha)
        result = infer(problem, theta, b, alpha)
        found.append(theta[:, 0])
        errors.append(result.standard_errors("sandwich").coef[:, 0])
        sandwich.append(result.intervals(kind="sandwich").coef[:, 0])
        bayes.append(result.intervals(kind="bayes").coef[:, 0])
        bias.append(result.bias.coef[:, 0])
    estimates, spans, credible = np.array(found), np.array(sandwich), np.array(bayes)
    expectation = estimates.mean(axis=0)
    covered = ((spans[:, :, 0] <= expectation) & (expectation <= spans[:, :, 1])).mean(axis=0)
    assert (np.abs(covered - 0.95) < 0.035).all()
    np.testing.assert_allclose(np.mean(errors, axis=0), estimates.std(axis=0), rtol=0.12)
    across = ((credible[:, :, 0] <= truth) & (truth <= credible[:, :, 1])).mean()
    assert 0.92 < across < 0.985
    drawn = expectation - truth  # the penalty's pull, and maximum likelihood's own bias of the other sign
    assert drawn[0] < 0 < drawn[1]
    assert np.mean(bias, axis=0)[0] < 0 < np.mean(bias, axis=0)[1]


def test_sandwich_is_robust_to_unequal_variances_and_model_is_not() -> None:
    rng = np.random.default_rng(21)
    x = rng.normal(size=(200, 1))
    found, robust, model = [], [], []
    for _ in range(300):
        y = 1 + 0.5 * x[:, 0] + np.abs(x[:, 0]) * rng.normal(size=200)
        problem = Problem(MemorySource(x, y))
        theta, b = fitted(problem, 20.0)
        result = infer(problem, theta, b, 20.0)
        found.append(theta[0, 0])
        robust.append(result.standard_errors("sandwich").coef[0, 0])
        model.append(result.standard_errors("model").coef[0, 0])
    assert abs(np.mean(robust) / np.std(found) - 1) < 0.15
    assert np.mean(model) / np.std(found) < 0.75


# ------------------------------------------------------------------------------------------- classes


def classes(K: int = 3, n: int = 60) -> tuple[Any, Any]:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(n, 2)) + np.array([1.0, -2.0])
    eta = X @ rng.normal(size=(2, K)) + rng.normal(size=K)
    p = np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True)
    return X, np.stack([rng.multinomial(1, row) for row in p]).astype(float)


def joint_minimum(X: Any, Y: Any, w: Any, alpha: float, multipliers: Any, prior: Any) -> Any:
    """Return (θ, b) of the symmetric softmax by Newton steps on a numerically exact Hessian, Σb = 0."""
    n, p, K = len(X), X.shape[1], Y.shape[1]
    D = np.column_stack([X, np.ones(n)])
    penalty = np.kron(np.eye(K), np.diag(np.append(alpha * multipliers, 0.0)))
    zero = np.tile(np.append(prior, 0.0), K)
    beta = zero.copy()
    for _ in range(60):
        gradient, G = joint_parts(D, Y, w, beta)
        gradient = gradient + penalty @ (beta - zero)
        beta = beta - np.linalg.pinv(G + penalty, rcond=1e-12) @ gradient
    matrix = beta.reshape(K, p + 1).T
    return matrix[:p], matrix[p]


def joint_parts(D: Any, Y: Any, w: Any, beta: Any) -> Any:
    K = Y.shape[1]
    eta = D @ beta.reshape(K, -1).T
    P_ = np.exp(eta - eta.max(axis=1, keepdims=True))
    P_ /= P_.sum(axis=1, keepdims=True)
    gradient = ((P_ - Y) * w[:, None]).T @ D
    S = P_[:, :, None] * (np.eye(K) - P_[:, None, :])
    G = np.einsum("i,ikl,ia,ib->kalb", w, S, D, D).reshape(len(beta), len(beta))
    return gradient.ravel(), G


@pytest.mark.parametrize("multipliers", [[1.0, 1.0], [0.0, 2.0]], ids=str)
def test_multinomial_against_a_numerical_hessian(multipliers: list[float]) -> None:
    """Central differences of the gradient, pseudo-inverted where nothing fixes a sum over classes."""
    X, Y = classes()
    alpha, m, prior = 1.5, np.array(multipliers), np.array([0.2, -0.1])
    w = np.random.default_rng(1).integers(0, 3, size=len(X))
    theta, b = joint_minimum(X, Y, w.astype(float), alpha, m, prior)
    problem = Problem(
        MemorySource(X, Y, w, weights_are="frequency"),
        loss=Multinomial(),
        penalty=Diagonal.of(multipliers),
        prior=prior,
    )
    result = infer(problem, theta, b, alpha)
    loss, D, (p, K) = Multinomial(), np.column_stack([X, np.ones(len(X))]), theta.shape
    beta = np.vstack([theta, b]).T.ravel()

    def gradient(at: Any) -> Any:
        return (loss.gradient(Y, D @ at.reshape(K, p + 1).T) * w[:, None]).T @ D

    step = 1e-5
    G = np.stack(
        [
            (gradient(beta + step * e) - gradient(beta - step * e)).ravel() / (2 * step)
            for e in np.eye(len(beta))
        ]
    )
    penalty = np.kron(np.eye(K), np.diag(np.append(alpha * m, 0.0)))
    H = np.linalg.pinv((G + G.T) / 2 + penalty, rcond=1e-7)
    slope = loss.gradient(Y, D @ beta.reshape(K, p + 1).T)
    M = np.einsum("i,ik,il,ia,ib->kalb", w.astype(float), slope, slope, D, D).reshape(len(beta), -1)
    np.testing.assert_allclose(result.covariance("bayes")[0], H, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(result.covariance("model")[0], H @ G @ H, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(result.covariance("sandwich")[0], H @ M @ H, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(result.df, np.trace(H @ G) - (K - 1), rtol=1e-6)
    delta = np.tile(np.append(prior, 0.0), K)
    bias = (-H @ penalty @ (beta - delta)).reshape(K, p + 1).T
    np.testing.assert_allclose(np.vstack(result.bias), bias, rtol=1e-6, atol=1e-7)
    for kind in KINDS:
        root = np.sqrt(result.covariance(kind)[0].diagonal()).reshape(K, p + 1).T
        np.testing.assert_allclose(np.vstack(result.standard_errors(kind)), root, rtol=1e-9, atol=1e-12)


def test_two_classes_are_the_binomial() -> None:
    """With η₁ − η₀ = η and ½(α₂)‖θ₁‖² + ½(α₂)‖θ₀‖² = ½(α₂/2)‖θ‖², the binomial has half the alpha."""
    X, y = rows("binomial")
    one = Problem(MemorySource(X, y), loss=Binomial())
    theta, b = fitted(one, 1.0)
    single = infer(one, theta, b, 1.0)
    two = Problem(MemorySource(X, np.column_stack([1 - y, y])), loss=Multinomial())
    both = infer(two, np.hstack([-theta, theta]) / 2, np.array([-b[0], b[0]]) / 2, 2.0)
    np.testing.assert_allclose(both.df, single.df, rtol=1e-9)
    np.testing.assert_allclose(both.residual_df, single.residual_df, rtol=1e-9)
    for kind in KINDS:
        a, c = single.predict(X[:6], kind=kind), both.predict(X[:6], kind=kind)
        np.testing.assert_allclose(c.link[:, 1], a.link[:, 0], rtol=1e-9)
        np.testing.assert_allclose(c.link_se[:, 1], a.link_se[:, 0], rtol=1e-9)
        np.testing.assert_allclose(c.mean[:, 1], a.mean[:, 0], rtol=1e-9)
        np.testing.assert_allclose(c.mean_interval[:, 1], a.mean_interval[:, 0], rtol=1e-8)
        np.testing.assert_allclose(1 - c.mean_interval[:, 0, ::-1], c.mean_interval[:, 1], rtol=1e-8)


def test_streamed_classes_are_memory_and_precisions_count_as_rows() -> None:
    X, Y = classes()
    w = np.full(len(X), 2.0)
    theta, b = joint_minimum(X, Y, w, 1.0, np.ones(2), np.zeros(2))
    memory = infer(Problem(MemorySource(X, Y, w), loss=Multinomial()), theta, b, 1.0)
    stream = infer(Problem(Pieces(X, Y, w), loss=Multinomial()), theta, b, 1.0)
    assert_same(memory, stream)
    frequencies = MemorySource(X, Y, w, weights_are="frequency")
    counts = infer(Problem(frequencies, loss=Multinomial()), theta, b, 1.0, quasi=True)
    assert (memory.n_observations, counts.n_observations) == (len(X), 2 * len(X))
    np.testing.assert_allclose(
        memory.covariance("sandwich"), 2 * counts.covariance("sandwich"), rtol=1e-8, atol=1e-12
    )


def test_too_many_classes_times_features_are_refused() -> None:
    X, Y = np.zeros((3, 501)), np.eye(4)[:3]
    problem = Problem(MemorySource(X, Y), loss=Multinomial())
    with pytest.raises(InputError, match="4 classes and 501 features has 2,004 rows"):
        infer(problem, np.zeros((501, 4)), np.zeros(4), 1.0)


def test_matrices_that_do_not_fit_into_memory_are_refused() -> None:
    problem = Problem(MemorySource(np.zeros((2, 14_000), dtype=np.float32), np.zeros(2)))
    with pytest.raises(InputError, match=r"14,000 features for 1 target\(s\) need about 9 GiB"):
        infer(problem, np.zeros(14_000), 0.0, 1.0)


# ----------------------------------------------------------------------------------------- what it says


def test_table_and_summary_show_odds_ratios_with_intervals() -> None:
    X, y = rows("binomial")
    source = MemorySource(X, y, feature_names=("age", "dose", "weight"))
    problem = Problem(source, loss=Binomial())
    result = infer(problem, *fitted(problem, 1.0), 1.0)
    table = result.as_table(0.9, "model")
    assert [row["feature"] for row in table] == ["age", "dose", "weight", "(intercept)"]
    interval = result.intervals(0.9, "model").coef
    assert table[1]["ratio_low"] == pytest.approx(np.exp(interval[1, 0, 0]))
    assert table[1]["ratio"] == pytest.approx(np.exp(result.coef[1, 0]))
    text = result.summary(0.9, "model")
    lines = text.splitlines()
    assert "binomial, logit link, α = 1 (sum scale)" in text
    assert "Odds ratio" in text
    assert "90 % from" in text
    assert "bias is not in them" in text
    assert max(map(len, lines)) <= 110
    assert len({len(line) for line in lines[-5:]}) == 1  # columns line up
    assert lines[-1].startswith("(intercept)")
    assert "more features" in result.summary(most=1)
    assert "ratio" not in infer_gaussian().as_table()[0]


def infer_gaussian() -> Any:
    X, y = rows("gaussian")
    problem = Problem(MemorySource(X, y))
    return infer(problem, *fitted(problem, 1.0), 1.0)


# --------------------------------------------------------------------------------------------- refusals


def test_tests_are_refused_under_a_penalty() -> None:
    result = infer_gaussian()
    assert result.p_values().coef.shape == (P, 1)
    for kind in ("model", "sandwich"):
        with pytest.raises(InputError, match="only without a penalty"):
            result.p_values(kind)


@pytest.mark.parametrize("loss", [SquaredHinge(), Huber()])
def test_a_loss_without_likelihood_is_refused(loss: Any) -> None:
    problem = Problem(MemorySource([[0.0], [1.0]], [1.0, -1.0]), loss=loss)
    with pytest.raises(InputError, match="not the deviance of a distribution"):
        infer(problem, [0.0], 0.0, 1.0)


def test_another_alpha_than_the_fitted_one_is_noticed() -> None:
    X, y = rows("poisson")
    problem = Problem(MemorySource(X, y), loss=Poisson())
    theta, b = fitted(problem, 50.0)
    with pytest.raises(InputError, match=r"do not minimise this problem at alpha=0\.625"):
        infer(problem, theta, b, 50.0 / N)
    infer(problem, theta * (1 + 1e-6), b, 50.0)


def test_a_perfect_fit_is_no_error() -> None:
    X, _ = rows("gaussian")
    y = 1e6 + X @ [1.0, 2.0, 3.0]
    result = infer(Problem(MemorySource(X, y)), [1.0, 2.0, 3.0], 1e6, 0.0)
    assert (result.standard_errors().coef < 1e-8).all()


def test_undetermined_coefficients_are_named() -> None:
    X, y = rows("gaussian")
    X = np.column_stack([X, X[:, 1]])
    source = MemorySource(X, y, feature_names=("a", "b", "c", "d"))
    theta, b = fitted(Problem(MemorySource(X[:, :3], y)), 0.0)
    with pytest.raises(InputError, match=r"do not determine every coefficient.*'b', 'd', constant or"):
        infer(Problem(source), np.append(theta[:, 0], 0.0), b, 0.0)
    problem = Problem(source)
    at = fitted(problem, 2.0)
    result = infer(problem, *at, 2.0)
    want = dense(problem, *at, 2.0)
    np.testing.assert_allclose(result.covariance("bayes")[0], want["bayes"], rtol=1e-7, atol=1e-10)


def test_no_observations_left_over() -> None:
    X, y = np.eye(3)[:, :2], np.array([1.0, 2.0, 4.0])
    problem = Problem(MemorySource(X, y))
    with pytest.raises(InputError, match="nothing is left over to estimate"):
        infer(problem, [-3.0, -2.0], 4.0, 0.0)
    assert infer(problem, [-3.0, -2.0], 4.0, 0.0, dispersion=2.0).dispersion[0] == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coef": np.zeros(4)}, r"coef has shape \(4, 1\)"),
        ({"coef": "x"}, "must be numbers"),
        ({"coef": np.full(P, np.nan)}, "must be finite"),
        ({"intercept": np.zeros(2)}, "intercept has shape"),
        ({"alpha": -1.0}, "≥ 0"),
        ({"alpha": np.ones(2)}, "alpha has shape"),
        ({"information": "fisher"}, "information='fisher' is not known"),
        ({"dispersion": 0.0}, "dispersion must be"),
        ({"dispersion": 1.0, "quasi": True}, "not both"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    X, y = rows("gaussian")
    problem = Problem(MemorySource(X, y))
    arguments = {"coef": np.zeros(P), "intercept": 0.0, "alpha": 1.0} | change
    with pytest.raises(InputError, match=message):
        infer(problem, **arguments)


def test_an_intercept_that_is_not_fitted_is_zero_for_sure() -> None:
    X, y = rows("gaussian")
    problem = Problem(MemorySource(X, y), fit_intercept=False)
    result = infer(problem, *fitted(problem, 1.0), 1.0)
    assert result.standard_errors().intercept == [0.0]
    assert result.p_values().intercept == [1.0]
    assert "(intercept)" not in result.summary()


def test_an_intercept_that_is_not_fitted_is_refused() -> None:
    X, y = rows("gaussian")
    with pytest.raises(InputError, match="no intercept"):
        infer(Problem(MemorySource(X, y), fit_intercept=False), np.zeros(P), 1.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_values_that_are_not_finite_are_named(family: str, value: float) -> None:
    X, y = rows(family)
    X[3, 1] = value
    with pytest.raises(InputError, match="'x1'"):
        infer(Problem(MemorySource(X, y), loss=GLMS[family]), np.ones(P), 0.0, 1.0)


def test_what_methods_are_asked_for_is_checked() -> None:
    result = infer_gaussian()
    for level in (0, 1, 95, True, "95"):
        with pytest.raises(InputError, match="level must be"):
            result.intervals(level)
    for call in (result.standard_errors, result.covariance, result.intervals, result.p_values):
        with pytest.raises(InputError, match=r"kind='baies' is not known.*Did you mean 'bayes'"):
            call(kind="baies")
    with pytest.raises(InputError, match="one column per feature"):
        result.predict(np.zeros((2, P + 1)))
    with pytest.raises(InputError, match="'x2'"):
        result.predict([[0.0, 1.0, np.nan]])
    with pytest.raises(InputError, match="offset has shape"):
        result.predict(np.zeros((2, P)), offset=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="offset is NaN or infinite in row 2"):
        result.predict(np.zeros((2, P)), offset=[1.0, np.nan])
