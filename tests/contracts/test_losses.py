"""Losses against deviances of others, in the extremes, and as names and files."""

from __future__ import annotations

import json
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import log_loss, mean_gamma_deviance, mean_poisson_deviance, mean_tweedie_deviance

from elltwo.errors import InputError, ModelFileError
from elltwo.losses import (
    FAMILIES,
    LOSSES,
    Binomial,
    Gamma,
    Gaussian,
    Huber,
    Multinomial,
    NegativeBinomial,
    Poisson,
    SquaredEpsilonInsensitive,
    SquaredHinge,
    Tweedie,
    as_loss,
    loss_from_dict,
    loss_to_dict,
)
from elltwo.testing import check_loss

Array = np.ndarray
RNG = np.random.default_rng(20)
ETA = RNG.normal(size=400)
EPS = np.finfo(float).eps

OTHER_PARAMETERS = [
    Tweedie(1),
    Tweedie(1.01),
    Tweedie(1.8),
    Tweedie(2),
    NegativeBinomial(0.01),
    NegativeBinomial(30),
    SquaredEpsilonInsensitive(0),
    SquaredEpsilonInsensitive(0.6),
    Huber(0.6),
]


@pytest.mark.parametrize("loss", OTHER_PARAMETERS, ids=repr)
def test_other_parameters_conform(loss: Any) -> None:
    check_loss(loss)


# ------------------------------------------------------------------------------- against the peers' deviances


def mean_half(loss: Any, y: Array) -> float:
    return float(loss.value(y, ETA).mean())


def test_deviances_of_scikit_learn() -> None:
    counts, amounts = RNG.poisson(np.exp(ETA)).astype(float), RNG.gamma(2, np.exp(ETA))
    mu = np.exp(ETA)
    near = {"rel": 1e-13}
    assert mean_half(Poisson(), counts) == pytest.approx(mean_poisson_deviance(counts, mu) / 2, **near)
    assert mean_half(Gamma(), amounts) == pytest.approx(mean_gamma_deviance(amounts, mu) / 2, **near)
    for power in (1.0, 1.1, 1.5, 1.9):
        y = amounts * (counts > 0)
        want = mean_tweedie_deviance(y, mu, power=power) / 2
        assert mean_half(Tweedie(power), y) == pytest.approx(want, **near)
    want = mean_tweedie_deviance(amounts, mu, power=2) / 2
    assert mean_half(Tweedie(2), amounts) == pytest.approx(want, **near)
    wins = (counts > 1).astype(float)
    assert mean_half(Binomial(), wins) == pytest.approx(log_loss(wins, special.expit(ETA)), **near)


@pytest.mark.parametrize("dispersion", [0.05, 1.0, 4.0])
def test_deviances_of_statsmodels(dispersion: float) -> None:
    import statsmodels.api as sm

    counts = RNG.poisson(np.exp(ETA)).astype(float)
    family = sm.families.NegativeBinomial(alpha=dispersion)
    want = family.deviance(counts, np.exp(ETA)) / 2
    found = NegativeBinomial(dispersion).value(counts, ETA).sum()
    assert found == pytest.approx(want, rel=1e-12)
    shares = RNG.uniform(size=ETA.size)
    want = sm.families.Binomial().deviance(shares, special.expit(ETA)) / 2
    assert Binomial().value(shares, ETA).sum() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("K", [2, 3, 40])
def test_multinomial_is_the_log_loss(K: int) -> None:
    eta, classes = 3 * RNG.normal(size=(200, K)), RNG.integers(K, size=200)
    y = np.eye(K)[classes]
    p = special.softmax(eta, axis=1)
    loss = Multinomial()
    assert loss.value(y, eta).mean() == pytest.approx(log_loss(classes, p, labels=range(K)), rel=1e-13)
    np.testing.assert_allclose(loss.mean(eta), p, rtol=1e-13)
    gradient, curvature = loss.derivatives(y, eta)
    np.testing.assert_allclose(gradient, p - y, atol=4 * EPS)
    np.testing.assert_allclose(curvature, p * (1 - p), atol=4 * EPS)
    shares = RNG.dirichlet(np.ones(K), size=200)
    np.testing.assert_allclose(loss.value(shares, eta), special.rel_entr(shares, p).sum(1), rtol=1e-11)


def test_two_classes_are_the_binomial() -> None:
    y = (RNG.uniform(size=ETA.size) < 0.4).astype(float)
    two, half = np.stack([1 - y, y], axis=1), np.stack([-ETA / 2, ETA / 2], axis=1)
    np.testing.assert_allclose(Multinomial().value(two, half), Binomial().value(y, ETA), rtol=1e-13)
    gradient, curvature = Binomial().derivatives(y, ETA)
    np.testing.assert_allclose(Multinomial().gradient(two, half)[:, 1], gradient, atol=4 * EPS)
    np.testing.assert_allclose(Multinomial().curvature(two, half)[:, 1], curvature, atol=4 * EPS)


def test_margin_and_robust_losses_are_written_out() -> None:
    y, r = np.where(ETA > 0.3, 1.0, -1.0), 3 * RNG.normal(size=ETA.size)
    np.testing.assert_allclose(SquaredHinge().value(y, r), np.maximum(0, 1 - y * r) ** 2 / 2)
    loss = SquaredEpsilonInsensitive(0.7)
    np.testing.assert_allclose(loss.value(ETA, ETA + r), np.maximum(0, abs(r) - 0.7) ** 2 / 2, atol=1e-14)
    np.testing.assert_allclose(Huber(1.5).value(ETA, ETA + r), special.huber(1.5, r), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(Gaussian().value(ETA, ETA + r), r**2 / 2, rtol=1e-12, atol=1e-14)


def test_curvature_at_a_kink() -> None:
    one = np.ones(1)
    assert SquaredHinge().curvature(one, one) == 0
    assert SquaredEpsilonInsensitive(0.5).curvature(one, one + 0.5) == 0
    assert Huber(0.5).curvature(one, one + 0.5) == 1


# ------------------------------------------------------------------------------------ digits, against mpmath

# e^±250 beside 1, and its square, take more than 200 digits.
mpmath.mp.dps = 300


def exact(loss: Any, y: float, eta: float) -> tuple[Any, Any, Any, Any]:
    """Return value, gradient, curvature, in 300 digits, and the size of the terms that the value cancels."""
    y, eta = mpmath.mpf(y), mpmath.mpf(eta)
    mu = mpmath.exp(eta)
    if loss.name == "binomial":
        p = 1 / (1 + mpmath.exp(-eta))
        value = sum(mpmath.mpf(0) if a == 0 else a * mpmath.log(a / b) for a, b in ((y, p), (1 - y, 1 - p)))
        return value, p - y, p * (1 - p), 1 if 0 < y < 1 else value
    if loss.name == "negative-binomial":
        k = mpmath.mpf(loss.dispersion)
        value = (y + 1 / k) * mpmath.log((1 + k * mu) / (1 + k * y))
        value += y * mpmath.log(y / mu) if y else 0
        scale = value + y * abs(mpmath.log(mu / y)) if y else value
        return value, (mu - y) / (1 + k * mu), mu * (1 + k * y) / (1 + k * mu) ** 2, scale
    p = mpmath.mpf({"poisson": 1, "gamma": 2}.get(loss.name) or loss.power)
    gradient, curvature = (
        mu ** (2 - p) - y * mu ** (1 - p),
        (2 - p) * mu ** (2 - p) + (p - 1) * y * mu ** (1 - p),
    )
    if p == 1:
        value = mu - y + (y * mpmath.log(y / mu) if y else 0)
    elif p == 2:
        value = y / mu - 1 - mpmath.log(y / mu)
    else:
        value = y ** (2 - p) / ((1 - p) * (2 - p)) - y * mu ** (1 - p) / (1 - p) + mu ** (2 - p) / (2 - p)
    return value, gradient, curvature, value + (y ** (2 - p) * abs(mpmath.log(mu / y)) if y else 0)


LOG_LOSSES = [Poisson(), Gamma(), Tweedie(1.2), Tweedie(1.5), NegativeBinomial(0.3), NegativeBinomial(1e-6)]


@pytest.mark.parametrize("loss", [Binomial(), *LOG_LOSSES], ids=repr)
def test_digits(loss: Any) -> None:
    targets = [0.0, 1.0, 0.3, 1e-9] if loss.name == "binomial" else [0.0, 1e-3, 1.0, 7.0, 1e9]
    for y in targets:
        if loss.name == "gamma" and y == 0:
            continue
        near = math.log(y) + 1e-4 if y else 1.0
        for eta in (-250.0, -40.0, -3.0, 0.0, 0.7, 12.0, 40.0, 250.0, near):
            value, gradient, curvature, scale = exact(loss, y, eta)
            at = np.array([y]), np.array([eta])
            # An error of η by half a unit in the last place counts: exp takes it |η|-fold.
            digits = 8 * EPS * (1 + abs(eta))
            slope = abs(float(gradient)) * digits
            assert abs(loss.value(*at)[0] - value) <= digits * float(abs(scale)) + slope + 1e-300
            largest = float(abs(gradient) + curvature + (y if loss.name in ("poisson", "binomial") else 0))
            assert abs(loss.gradient(*at)[0] - gradient) <= digits * largest + EPS
            assert loss.curvature(*at)[0] == pytest.approx(float(curvature), rel=digits)


# --------------------------------------------------------------------------------------------- extreme η

EXTREME = np.array(
    [-1e308, -1e4, -800.0, -700.0, -300.5, -300.0, 0.0, 300.0, 300.5, 700.0, 800.0, 1e4, 1e308]
)


@pytest.mark.parametrize("y", [0.0, 0.4, 1.0])
def test_binomial_in_the_extremes(y: float) -> None:
    loss = Binomial()
    with np.errstate(all="raise", under="ignore"):
        gradient, curvature = loss.derivatives(np.full(13, y), EXTREME)
        value, mean = loss.value(np.full(13, y), EXTREME), loss.mean(EXTREME)
    for found in (value, gradient, curvature, mean):
        assert np.isfinite(found).all()
    assert (np.diff(gradient) >= 0).all()
    assert ((curvature >= 0) & (curvature <= 0.25) & (value >= 0)).all()
    assert gradient[0] == pytest.approx(-y, abs=1e-100)
    assert gradient[-1] == 1 - y
    assert value[2] == pytest.approx(800 * y + (special.entr(y) + special.entr(1 - y)) * -1)


def test_multinomial_in_the_extremes() -> None:
    loss = Multinomial()
    eta = np.array([[800.0, -800.0, 0.0], [-800.0, -800.0, -800.0], [1e308, 0.0, -1e300], [5e4, 5e4, -5e4]])
    for y in np.eye(3):
        with np.errstate(all="raise", under="ignore"):
            gradient, curvature = loss.derivatives(y, eta)
            value = loss.value(y, eta)
        p = np.array([[1, 0, 0], [1 / 3] * 3, [1, 0, 0], [0.5, 0.5, 0]])
        np.testing.assert_allclose(gradient, p - y, atol=EPS)
        np.testing.assert_allclose(curvature, p * (1 - p), atol=EPS)
        assert np.isfinite(value).all()
        assert (value >= 0).all()
    assert loss.value(np.eye(3)[1], eta[0]) == 1600


@pytest.mark.parametrize("loss", LOG_LOSSES, ids=repr)
@pytest.mark.parametrize("y", [0.0, 1.0, 1e12])
def test_log_links_in_the_extremes(loss: Any, y: float) -> None:
    if loss.name == "gamma":
        y = y or 1e-12
    eta = np.concatenate([np.linspace(-900, 900, 721), [-301, -299.99, 299.99, 301]])
    eta.sort()
    Y = np.full(eta.size, y)
    with np.errstate(all="raise", under="ignore"):
        value, (gradient, curvature) = loss.value(Y, eta), loss.derivatives(Y, eta)
        mean = loss.mean(eta)
    for found in (value, gradient, curvature, mean):
        assert np.isfinite(found).all()
    assert (curvature >= 0).all()
    assert (np.diff(mean) >= 0).all()
    # Convex: the gradient never falls, and the value falls before the minimum and rises after it.
    assert (np.diff(gradient) >= -4 * EPS * np.abs(gradient[1:])).all()
    best = math.log(y) if y else -np.inf
    rounding = 8 * EPS * np.maximum(value[1:], value[:-1])
    assert (np.diff(value)[eta[1:] <= best] <= rounding[eta[1:] <= best]).all()
    assert (np.diff(value)[eta[:-1] >= best] >= -rounding[eta[:-1] >= best]).all()
    # Past the bound the value goes on along its tangent, but not below 0.
    outside = np.abs(eta) > 301
    bound = np.sign(eta) * 300
    tangent = loss.value(Y, bound) + loss.gradient(Y, bound) * (eta - bound)
    np.testing.assert_allclose(value[outside], np.maximum(tangent[outside], 0), rtol=1e-12)


def test_nan_goes_through() -> None:
    for loss in (Gaussian(), Binomial(), *LOG_LOSSES, Huber()):
        with np.errstate(invalid="ignore"):
            assert np.isnan(loss.value(np.ones(2), np.array([np.nan, 1.0]))).tolist() == [True, False]


# ------------------------------------------------------------------------------------------ shapes and dtypes


def targets_of(loss: Any, shape: tuple[int, ...]) -> Array:
    if loss.coupled:
        return RNG.dirichlet(np.ones(shape[-1]), size=shape[:-1])
    if loss.name == "squared-hinge":
        return RNG.choice([-1.0, 1.0], size=shape)
    return RNG.uniform(0.1, 1, size=shape)


@pytest.mark.parametrize("loss", [cls() for cls in LOSSES], ids=repr)
def test_one_target_at_many_alphas(loss: Any) -> None:
    y, eta = targets_of(loss, (7, 1, 3)), RNG.normal(size=(7, 5, 3))
    for array in (y, eta):
        array.flags.writeable = False
    for name in ("value", "gradient", "curvature"):
        found = getattr(loss, name)(y, eta)
        want = np.stack([getattr(loss, name)(y[:, 0], eta[:, a]) for a in range(5)], axis=1)
        np.testing.assert_allclose(found, want, rtol=1e-13, atol=4 * EPS)
    # y may also be the larger one.
    one = eta[:, :1]
    many = np.tile(y, (1, 5, 1))
    for found in (loss.gradient(many, one), loss.curvature(many, one)):
        assert found.shape == (7, 5, 3)
        assert found.flags.writeable


@pytest.mark.parametrize("loss", [cls() for cls in LOSSES], ids=repr)
def test_layouts_and_integers(loss: Any) -> None:
    y, eta = targets_of(loss, (6, 3)), np.asfortranarray(RNG.normal(size=(6, 3)))
    want = loss.derivatives(y, eta)
    for found in (
        loss.derivatives(np.asfortranarray(y), eta.copy("C")),
        loss.derivatives(y[::-1], eta[::-1]),
    ):
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(np.sort(a, axis=0), np.sort(b, axis=0), rtol=1e-13, atol=4 * EPS)
    whole = np.eye(3, dtype=np.int32) if loss.coupled else np.ones((3, 3), dtype=np.int32)
    eta = np.arange(9).reshape(3, 3) - 4
    np.testing.assert_array_equal(loss.value(whole, eta), loss.value(whole.astype(float), eta.astype(float)))
    assert loss.value(whole[:0], eta[:0]).shape == ((0,) if loss.coupled else (0, 3))


# ---------------------------------------------------------------------------------------- the null model


@pytest.mark.parametrize(
    "family", ["gaussian", "binomial", "poisson", "gamma", "tweedie", "negative-binomial"]
)
def test_null_is_the_best_constant(family: str) -> None:
    loss = as_loss(family)
    y, w = targets_of(loss, (40,)), RNG.uniform(0, 2, size=40)
    best = optimize.minimize_scalar(lambda eta: float(w @ loss.value(y, np.full(40, eta))), tol=1e-12).x
    assert loss.null(np.array([w @ y / w.sum()]))[0] == pytest.approx(best, abs=1e-6)


def test_null_of_squared_hinge_is_the_best_constant() -> None:
    y = np.repeat([-1.0, 1.0], [13, 5])
    best = optimize.minimize_scalar(lambda eta: float(SquaredHinge().value(y, eta).sum()), tol=1e-12).x
    assert SquaredHinge().null(np.array([y.mean()]))[0] == pytest.approx(best, abs=1e-6)


def test_null_at_the_edge() -> None:
    ends = np.array([0.0, 1.0])
    np.testing.assert_allclose(Binomial().null(ends), [-27.63, 27.63], atol=0.01)
    np.testing.assert_allclose(Poisson().null(ends), [-27.63, 0], atol=0.01)
    null = Multinomial().null(np.array([0.25, 0.75, 0.0]))
    assert np.isfinite(null).all()
    assert null.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(Multinomial().mean(null), [0.25, 0.75, 0], atol=1e-11)


# ---------------------------------------------------------------------------------------------- unfit targets


@pytest.mark.parametrize(
    ("loss", "bad", "needs"),
    [
        (Gaussian(), np.inf, "gaussian needs finite numbers"),
        (Binomial(), 2, "binomial needs 0 ≤ y ≤ 1. Code the two classes as 0 and 1"),
        (Binomial(), 1.0000000001, "binomial needs 0 ≤ y ≤ 1"),
        (Binomial(), -0.1, "binomial needs 0 ≤ y ≤ 1"),
        (Poisson(), -1, "poisson needs y ≥ 0"),
        (Gamma(), 0, "gamma needs y > 0 and finite.*tweedie"),
        (Tweedie(), -1, "tweedie needs y ≥ 0"),
        (Tweedie(2), 0, "tweedie of power 2 needs y > 0"),
        (NegativeBinomial(), -2, "negative-binomial needs y ≥ 0"),
        (SquaredHinge(), 0, "needs y = −1 or 1. Code the two classes"),
        (Huber(), np.nan, "huber needs finite"),
        (SquaredEpsilonInsensitive(), np.nan, "needs finite"),
    ],
)
def test_unfit_target(loss: Any, bad: float, needs: str) -> None:
    y = np.ones((20, 2))
    loss.check(y, "visits")
    y[16, 1] = bad
    with pytest.raises(InputError, match=rf"^target 'visits' has the value {bad} in row 17; .*{needs}"):
        loss.check(y, "visits")
    y[18, 0] = bad
    with pytest.raises(InputError, match=r"in row 1,017 \(2 such values here\)"):
        loss.check(y, "visits", 1000)


def test_unfit_classes() -> None:
    loss, y = Multinomial(), np.eye(3)[RNG.integers(3, size=20)]
    loss.check(y, "species")
    loss.check(np.full((4, 3), 1 / 3), "species")
    y[4] = [0.5, 0.25, 0.5]
    with pytest.raises(
        InputError, match=r"'species' has class proportions that sum to 1\.25 in row 5; .*one-hot"
    ):
        loss.check(y, "species")
    y[4] = [2, 0, 0]
    with pytest.raises(InputError, match="'species' has the value 2 in row 5; multinomial needs 0 ≤ y ≤ 1"):
        loss.check(y, "species")
    for shape in ((6,), (6, 1)):
        with pytest.raises(InputError, match="one column for each of two or more classes"):
            loss.check(np.ones(shape), "species")


# -------------------------------------------------------------------------------- names, parameters, files


def test_names() -> None:
    assert set(FAMILIES) == {
        "gaussian",
        "binomial",
        "multinomial",
        "poisson",
        "gamma",
        "tweedie",
        "negative-binomial",
    }
    for cls in LOSSES:
        assert as_loss(cls.name) == cls()
        assert as_loss(loss := cls()) is loss
    assert as_loss("huber", epsilon=2) == Huber(2.0)
    assert as_loss("negative-binomial", dispersion=np.float64(0.5)) == NegativeBinomial(0.5)


@pytest.mark.parametrize(
    ("family", "parameters", "message"),
    [
        ("Poison", {}, "family='Poison' is not known. Did you mean 'poisson'"),
        ("logistic", {}, "Did you mean 'binomial'"),
        ("negative_binomial", {}, "Did you mean 'negative-binomial'"),
        ("zzz", {}, "not known. Known: 'gaussian', 'binomial'"),
        (3, {}, "family must be a name or a loss object; got 3"),
        (Poisson, {}, "family must be a name or a loss object"),
        (Tweedie(), {"power": 1.2}, "is an object, .* 'power' cannot be given beside it"),
        ("tweedie", {"pover": 1.2}, "no parameter 'pover'; its parameters are 'power'. Did you mean 'power'"),
        ("poisson", {"power": 1.2}, "no parameter 'power'; it takes none"),
        ("tweedie", {"power": 2.5}, "power=2.5 must be a number from 1"),
        ("tweedie", {"power": "1.5"}, "power='1.5' must be"),
        ("tweedie", {"power": True}, "power=True must be"),
        ("tweedie", {"power": np.nan}, "power=nan must be"),
        ("negative-binomial", {"dispersion": 0}, "dispersion=0 must be"),
        ("negative-binomial", {"dispersion": np.inf}, "dispersion=inf must be"),
        ("huber", {"epsilon": 0}, "epsilon=0 must be a finite number > 0"),
        ("squared-epsilon-insensitive", {"epsilon": -1}, "epsilon=-1 must be a finite number ≥ 0"),
    ],
)
def test_unknown_names_and_parameters(family: Any, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_loss(family, **parameters)


@pytest.mark.parametrize("loss", [*(cls() for cls in LOSSES), *OTHER_PARAMETERS], ids=repr)
def test_round_trip_through_json(loss: Any) -> None:
    assert loss_from_dict(json.loads(json.dumps(loss_to_dict(loss)))) == loss


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"name": "beta"}, "loss 'beta', which this version of elltwo does not know"),
        ({"name": "tweedie"}, "lacks 'power'"),
        ({"name": "tweedie", "power": 3}, "power=3 must be"),
        ({"name": "tweedie", "power": None}, "power=None must be"),
        ({"name": "poisson", "power": 1}, "no parameter 'power'"),
        ({"name": "poisson", "family": 1}, "cannot be used"),
        ({"name": ["poisson"]}, "must be an object with a name"),
        ({}, "must be an object with a name"),
        ("poisson", "must be an object with a name"),
    ],
)
def test_unusable_model_file(saved: Any, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        loss_from_dict(saved)


def test_loss_of_others_is_not_saved() -> None:
    class Mine(Gaussian):
        pass

    assert isinstance(as_loss(Mine()), Mine)
    with pytest.raises(InputError, match="Mine is not a loss of elltwo"):
        loss_to_dict(Mine())
