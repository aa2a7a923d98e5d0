"""NIST's certified regressions at α = 0: the promised digits, and a certificate that knows how many."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from nist import NIST, NistSet

from elltwo import Ridge
from elltwo.data.memory import MemorySource
from elltwo.fitting import fit_source
from elltwo.results import Fit
from oracles import correct_digits, ridge_exact

by_name = pytest.mark.parametrize("data", NIST, ids=lambda data: data.name)


def _fit(data: NistSet) -> Fit:
    return fit_source(MemorySource(data.features, data.target), 0.0, fit_intercept=data.fit_intercept)


def _coefficients(fit: Fit, data: NistSet) -> list[float]:
    return [*(fit.intercept if data.fit_intercept else ()), *fit.coef[:, 0]]


def _exact(a: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(v)) for v in column] for column in a.T]


@by_name
def test_published_numbers_reproduce_the_certified_values(data: NistSet) -> None:
    """The exact decimals, solved without rounding, give all 15 published digits, bar their own rounding."""
    exact = ridge_exact(data.columns, data.y, fit_intercept=data.fit_intercept)
    assert correct_digits([float(v) for v in exact], data.exact_coefficients) >= 14


@by_name
def test_promised_digits_survive_rounding_of_the_data(data: NistSet) -> None:
    """The floor can be met: the float64 data, solved without rounding, agree that well with the decimals."""
    exact = ridge_exact(
        _exact(data.features), _exact(data.target[:, None])[0], fit_intercept=data.fit_intercept
    )
    assert correct_digits([float(v) for v in exact], data.exact_coefficients) >= data.floor


@by_name
def test_digits(data: NistSet) -> None:
    fit = _fit(data)
    digits = correct_digits(_coefficients(fit, data), data.exact_coefficients)
    assert digits >= data.floor, f"{digits:.2f} correct digits, {data.floor} promised ({fit.solver})"


@by_name
def test_certificate_knows_its_digits(data: NistSet) -> None:
    fit = _fit(data)
    digits = correct_digits(_coefficients(fit, data), data.exact_coefficients)
    claimed = min(fit.certificate.digits, 15.0)
    assert abs(claimed - digits) <= 1, f"claimed {claimed:.2f}, true {digits:.2f} ({fit.solver})"


@by_name
def test_estimator_gives_the_same_numbers(data: NistSet) -> None:
    fit = _fit(data)
    model = Ridge(alpha=0.0, fit_intercept=data.fit_intercept).fit(data.features, data.target)
    np.testing.assert_array_equal(model.coef_, fit.coef[:, 0])
    assert model.intercept_ == (fit.intercept[0] if data.fit_intercept else 0.0)


@by_name
@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_digits_do_not_depend_on_the_order_of_rows_or_columns(data: NistSet, order: str) -> None:
    rng = np.random.default_rng(3)
    n, p = data.features.shape
    rows, columns = (np.arange(n)[::-1], np.arange(p)[::-1])
    if order == "shuffled":
        rows, columns = rng.permutation(n), rng.permutation(p)
    source = MemorySource(np.asfortranarray(data.features[rows][:, columns]), data.target[rows])
    fit = fit_source(source, 0.0, fit_intercept=data.fit_intercept)
    coef = np.empty(p)
    coef[columns] = fit.coef[:, 0]
    found = [*(fit.intercept if data.fit_intercept else ()), *coef]
    assert correct_digits(found, data.exact_coefficients) >= data.floor
