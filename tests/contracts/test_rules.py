"""Every rule against brute force: explicit refits, the hat matrix, the restricted likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import model_selection as splitters

import oracles
from elltwo import AIC, BIC, GCV, LOO, REML, KFold, Status
from elltwo import run as runs
from elltwo.fitting import fit_source
from elltwo.results import Fit
from elltwo.solvers import auto
from oracles import Model
from shapes import SHAPES, VARIATIONS, alphas_for, dealt, generator, options, problem, source

RULES: dict[str, Callable[..., Any]] = {"loo": LOO, "gcv": GCV, "reml": REML, "aic": AIC, "bic": BIC}

every_variation = pytest.mark.parametrize("variation", VARIATIONS)

# The shapes and variations are dealt to the rules, so that every two of these meet somewhere.
DEALT = dealt(SHAPES, VARIATIONS, (*RULES, "df", "path"))


def problems_dealt_to(rule: str) -> pytest.MarkDecorator:
    """Parametrise a test by the shapes and variations that fall to a rule."""
    return pytest.mark.parametrize(("shape_name", "variation"), [(s, v) for s, v, r in DEALT if r == rule])


def run(model: Model, rule: Any, **more: Any) -> Fit:
    return fit_source(source(model), rule, **options(model), **more)


def assert_scores(fit: Fit, alphas: np.ndarray, want: np.ndarray, rtol: np.ndarray, atol: Any = 0.0) -> None:
    """Compare a path's scores with the oracle's alpha by alpha; the first bad alpha is named."""
    np.testing.assert_array_equal(fit.path.alphas, alphas)
    assert fit.path.score is not None
    error = np.abs(fit.path.score - want)
    allowed = rtol * np.abs(want) + atol
    bad = np.flatnonzero(~(error <= allowed))
    assert not len(bad), "; ".join(
        f"alpha {alphas[i]:.3g}: {float(fit.path.score[i]):.17g} instead of {float(want[i]):.17g} "
        f"(error {float(error[i]):.1e}, allowed {float(allowed[i]):.1e})"
        for i in bad
    )


def fit_tolerance(model: Model, alphas: np.ndarray, floor: float) -> np.ndarray:
    """max(floor, SAFETY·u·κ) for each alpha, shape (A,)."""
    return np.array([oracles.tolerance(model, alpha, floor) for alpha in alphas])


@problems_dealt_to("loo")
def test_loo_is_refitting_without_each_row(shape_name: str, variation: str) -> None:
    """To 1e-10, or the rounding SAFETY·u of a leverage relative to what is left, 1 − h."""
    model = problem(shape_name, variation)
    alphas = alphas_for(model)
    want = oracles.loo(model, alphas).mean(axis=1)
    left = 1 - np.diagonal(oracles.hat_matrix(model, alphas), axis1=1, axis2=2)[:, model.w > 0].max(axis=1)
    rtol = np.maximum(fit_tolerance(model, alphas, 1e-10), oracles.SAFETY * oracles.UNIT / left.astype(float))
    assert_scores(run(model, LOO(alphas=alphas)), alphas, want, rtol)


@pytest.mark.parametrize("variation", ["plain", "weighted", "counted", "standardised", "no_intercept"])
@pytest.mark.parametrize("shape_name", ["tall", "multi_target", "one_column", "badly_scaled", "offset"])
def test_loo_without_penalty_is_least_squares_refitted(shape_name: str, variation: str) -> None:
    model = problem(shape_name, variation)
    if shape_name == "badly_scaled":
        # Badly scaled columns are well conditioned once they are scaled: κ is about 3.
        assert oracles.condition(model, 0.0) < 10
    alphas = np.array([0.0])
    want = oracles.loo(model, alphas).mean(axis=1)
    assert_scores(run(model, LOO(alphas=alphas)), alphas, want, fit_tolerance(model, alphas, 1e-10))


SPLITTERS: dict[str, Callable[[Model], Any]] = {
    "KFold": lambda model: splitters.KFold(4),
    "KFold_shuffled": lambda model: splitters.KFold(3, shuffle=True, random_state=1),
    "ShuffleSplit": lambda model: splitters.ShuffleSplit(4, test_size=0.3, random_state=2),
    "RepeatedKFold": lambda model: splitters.RepeatedKFold(n_splits=3, n_repeats=2, random_state=3),
    "TimeSeriesSplit": lambda model: splitters.TimeSeriesSplit(3),
    "LeavePOut": lambda model: list(splitters.LeavePOut(2).split(model.X))[:30],
    "GroupKFold": lambda model: list(
        splitters.GroupKFold(3).split(model.X, model.y, generator("groups").permutation(len(model.X)) % 5)
    ),
}


def splits_of(cv: Any, model: Model) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return list(cv.split(model.X)) if hasattr(cv, "split") else cv


def check_kfold(model: Model, cv: Any) -> None:
    """K-fold to 1e-9, or the rounding of the worst-conditioned training set."""
    splits = splits_of(cv, model)
    alphas = alphas_for(model)
    want = oracles.kfold(model, splits, alphas).mean(axis=1)
    rtol = np.max([fit_tolerance(model.rows(train), alphas, 1e-9) for train, _ in splits], axis=0)
    assert_scores(run(model, KFold(cv=cv, alphas=alphas)), alphas, want, rtol)


@pytest.mark.parametrize(
    ("variation", "splitter", "shape_name"), dealt(VARIATIONS, list(SPLITTERS), ["tall", "wide"])
)
def test_kfold_is_refitting_on_each_training_set(shape_name: str, variation: str, splitter: str) -> None:
    model = problem(shape_name, variation)
    check_kfold(model, SPLITTERS[splitter](model))


@pytest.mark.parametrize(
    ("shape_name", "shuffled", "variation"),
    dealt(
        [s for s in SHAPES if s not in ("tall", "wide", "three_by_four")],
        [True, False],
        ["plain", "standardised", "counted", "no_intercept", "everything"],
    ),
)
def test_kfold_of_every_shape(shape_name: str, shuffled: bool, variation: str) -> None:
    model = problem(shape_name, variation)
    check_kfold(model, splitters.KFold(4, shuffle=shuffled, random_state=0 if shuffled else None))


@every_variation
def test_integer_cv_is_that_many_consecutive_parts(variation: str) -> None:
    model = problem("tall", variation)
    alphas = alphas_for(model)
    want = oracles.kfold(model, splitters.KFold(4).split(model.X), alphas).mean(axis=1)
    assert_scores(run(model, KFold(cv=4, alphas=alphas)), alphas, want, fit_tolerance(model, alphas, 1e-9))


def test_as_many_folds_as_rows_is_leave_one_out() -> None:
    model = problem("tall", "plain")
    alphas = alphas_for(model)
    want = oracles.loo(model, alphas).mean(axis=1)
    assert_scores(run(model, KFold(cv=len(model.X), alphas=alphas)), alphas, want, np.full(len(alphas), 1e-9))


def criterion_tolerance(model: Model, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relative error of RSS and of n − tr H that rounding explains, each of shape (A,).

    Residuals carry an error of u·κ·‖y − Xθ₀‖, so RSS has twice that relative to ‖r‖; 1 − tr H/n
    loses what it cancels.
    """
    prior = np.zeros(model.X.shape[1]) if model.prior is None else model.prior
    shifted = model.y - (model.X @ prior)[:, None]
    mean = model.w @ shifted / model.w.sum() if model.fit_intercept else 0.0
    total = model.w @ (shifted - mean) ** 2
    ratio = np.sqrt((total / oracles.rss(model, alphas)).astype(float)).max(axis=1)
    left = model.observations - oracles.effective_df(model, alphas) - int(model.fit_intercept)
    return (
        fit_tolerance(model, alphas, 1e-12) * ratio,
        oracles.SAFETY * oracles.UNIT * model.observations / np.abs(left.astype(float)),
    )


@problems_dealt_to("gcv")
def test_gcv_is_the_hat_matrix(shape_name: str, variation: str) -> None:
    model = problem(shape_name, variation)
    alphas = alphas_for(model, low=-4)
    rss_error, trace_error = criterion_tolerance(model, alphas)
    want = oracles.gcv(model, alphas).mean(axis=1)
    assert_scores(
        run(model, GCV(alphas=alphas)), alphas, want, np.maximum(1e-10, 2 * (rss_error + trace_error))
    )


@pytest.mark.parametrize(("shape_name", "variation", "rule"), [d for d in DEALT if d[2] in ("aic", "bic")])
def test_information_criteria_are_the_hat_matrix(shape_name: str, variation: str, rule: str) -> None:
    model = problem(shape_name, variation)
    alphas = alphas_for(model, low=-4)
    rss_error, _ = criterion_tolerance(model, alphas)
    want = oracles.CRITERIA[rule](model, alphas).mean(axis=1)
    atol = model.observations * np.maximum(1e-10, 2 * rss_error)
    assert_scores(run(model, RULES[rule](alphas=alphas)), alphas, want, np.full(len(alphas), 1e-10), atol)


@problems_dealt_to("reml")
def test_reml_is_the_restricted_likelihood(shape_name: str, variation: str) -> None:
    """Up to a constant, so differences to the largest alpha's score are compared."""
    model = problem(shape_name, variation)
    alphas = alphas_for(model, low=-4)
    rss_error, _ = criterion_tolerance(model, alphas)
    want = oracles.reml(model, alphas).mean(axis=1)
    fit = run(model, REML(alphas=alphas))
    assert fit.path.score is not None
    shifted = replace_score(fit, fit.path.score - fit.path.score[-1])
    atol = model.observations * np.maximum(1e-10, 2 * rss_error)
    assert_scores(shifted, alphas, want - want[-1], np.full(len(alphas), 1e-10), atol)


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("shape_name", ["tall", "multi_target"])
def test_the_spectral_solver_passes_the_same_tests(
    shape_name: str, variation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few rows are otherwise given to an SVD of the rows themselves."""
    monkeypatch.setattr(auto, "FEW_ROWS", 0)
    monkeypatch.setattr(runs, "CHEAP_WORK", 0)
    model = problem(shape_name, variation)
    assert run(model, LOO(alphas=alphas_for(model))).solver == "spectral"
    test_loo_is_refitting_without_each_row(shape_name, variation)
    test_gcv_is_the_hat_matrix(shape_name, variation)
    test_reml_is_the_restricted_likelihood(shape_name, variation)
    for rule in ("aic", "bic"):
        test_information_criteria_are_the_hat_matrix(shape_name, variation, rule)
    check_kfold(model, splitters.KFold(4))
    test_df_is_the_trace_of_the_hat_matrix(shape_name, variation)
    test_path_coefficients_are_those_of_each_alpha(shape_name, variation)


def replace_score(fit: Fit, score: np.ndarray) -> Fit:
    return replace(fit, path=replace(fit.path, score=score))


@problems_dealt_to("df")
def test_df_is_the_trace_of_the_hat_matrix(shape_name: str, variation: str) -> None:
    model = problem(shape_name, variation)
    alphas = alphas_for(model)
    want = oracles.effective_df(model, alphas).astype(float)
    fit = run(model, GCV(alphas=alphas))
    atol = len(model.X) * fit_tolerance(model, alphas, 1e-12)
    assert (np.abs(fit.path.df - want) <= atol).all(), (fit.path.df, want, atol)


@problems_dealt_to("path")
def test_path_coefficients_are_those_of_each_alpha(shape_name: str, variation: str) -> None:
    model = problem(shape_name, variation)
    alphas = alphas_for(model, low=-4)
    path = run(model, GCV(alphas=alphas)).path
    T = model.y.shape[1]
    for i, alpha in enumerate(alphas):
        coef, intercept = oracles.solve(model, alpha)
        found = path.coef[i].reshape(-1, T)
        tolerance = oracles.tolerance(model, alpha, 1e-9)
        assert oracles.coefficient_error(model, alpha, found, coef) <= tolerance
        assert oracles.intercept_error(model, found, path.intercept[i].reshape(T), intercept) <= tolerance


@pytest.mark.parametrize("rule", [*RULES, "kfold"])
def test_one_alpha_per_target_is_each_target_alone(rule: str) -> None:
    model = problem("multi_target", "weighted")
    alphas = alphas_for(model, count=9)
    make = {**RULES, "kfold": lambda alphas: KFold(cv=splitters.KFold(3), alphas=alphas)}[rule]
    fit = run(model, make(alphas=alphas), alpha_per_target=True)
    assert fit.path.score is not None
    assert fit.path.score.shape == (len(alphas), 3)
    for t in range(3):
        alone = run(replace(model, y=model.y[:, [t]]), make(alphas=alphas))
        np.testing.assert_allclose(fit.path.score[:, t], alone.path.score, rtol=1e-10)
        assert fit.alpha[t] == alone.alpha[0]
        np.testing.assert_allclose(fit.coef[:, t], alone.coef[:, 0], rtol=1e-9)


@pytest.mark.parametrize(
    ("named", "turn", "rule"),
    dealt(
        [
            ("tall", "plain"),
            ("tall", "standardised"),
            ("wide", "plain"),
            ("near_collinear", "weighted"),
            ("rank_deficient", "counted"),
            ("badly_scaled", "standardised"),
            ("one_hot_and_constant", "penalised"),
            ("multi_target", "prior"),
            ("four_by_ten", "plain"),
        ],
        range(2),
        [*RULES, "kfold"],
    ),
)
def test_chosen_alpha_beats_two_hundred_alphas_around_it(
    named: tuple[str, str], turn: int, rule: str
) -> None:
    """The automatic grid is refined to the optimum: nothing within a decade of it scores better."""
    model = problem(*named)
    splits = list(splitters.KFold(4).split(model.X))
    fit = run(model, KFold(cv=splits) if rule == "kfold" else RULES[rule]())
    alpha = fit.alpha[0]
    around = alpha * np.logspace(-1, 1, 200)
    around = around[(around >= fit.path.alphas[0]) & (around <= fit.path.alphas[-1])]

    def brute(alphas: np.ndarray) -> np.ndarray:
        score = (
            oracles.kfold(model, splits, alphas) if rule == "kfold" else oracles.CRITERIA[rule](model, alphas)
        )
        return score.mean(axis=1).astype(float)

    best = brute(around).min()
    assert brute(np.array([alpha]))[0] <= best + 1e-8 * abs(best)


def signal(noise: float) -> Model:
    """A problem whose best alpha is interior: weak signal in some of 8 columns."""
    rng = generator("signal")
    X = rng.normal(size=(60, 8))
    return Model(X, X[:, :3].sum(axis=1, keepdims=True) + noise * rng.normal(size=(60, 1)))


@pytest.mark.parametrize("rule", [*RULES, "kfold"])
def test_optimum_on_the_edge_is_reported(rule: str) -> None:
    model = signal(noise=2.0)
    make = {**RULES, "kfold": lambda alphas: KFold(cv=splitters.KFold(5), alphas=alphas)}[rule]
    inside = run(model, make(alphas=None))
    assert not {Status.EDGE_LOW, Status.EDGE_HIGH} & set(inside.status)
    best = inside.alpha[0]
    below = run(model, make(alphas=best * np.array([1e-5, 1e-4, 1e-3])))
    assert Status.EDGE_HIGH in below.status
    assert Status.EDGE_LOW not in below.status
    assert below.alpha[0] == best * 1e-3
    above = run(model, make(alphas=best * np.array([1e3, 1e4, 1e5])))
    assert Status.EDGE_LOW in above.status
    assert Status.EDGE_HIGH not in above.status
    assert above.alpha[0] == best * 1e3
    around = run(model, make(alphas=best * np.array([1e-5, 1.0, 1e5])))
    assert not {Status.EDGE_LOW, Status.EDGE_HIGH} & set(around.status)
    assert around.alpha[0] == best


@pytest.mark.parametrize("make", [LOO, lambda **o: KFold(cv=splitters.KFold(5), **o)], ids=["loo", "kfold"])
@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
def test_one_standard_error_rule_takes_more_penalty_and_loses_at_most_one_error(
    make: Any, noise: float
) -> None:
    model = signal(noise)
    alphas = alphas_for(model, low=-4, high=3, count=60)
    best, one_se = run(model, make(alphas=alphas)), run(model, make(alphas=alphas, one_se=True))
    assert one_se.alpha[0] >= best.alpha[0]
    path = one_se.path
    assert path.score is not None
    assert path.score_se is not None
    at_best, chosen = int(np.argmin(path.score)), int(path.chosen[0])
    limit = path.score[at_best] + path.score_se[at_best]
    assert path.score[chosen] <= limit
    assert path.alphas[chosen] == one_se.alpha[0]
    # It is the largest such alpha of the grid.
    assert (path.score[chosen + 1 :] > limit).all()
    assert path.score_se[at_best] > 0


@every_variation
def test_standard_error_of_leave_one_out(variation: str) -> None:
    """sqrt(Σ wᵢ²(eᵢ² − mean)²)/Σw, that of a weighted mean; copies of a row count one by one."""
    model = problem("tall", variation)
    alphas = alphas_for(model, low=-3)
    squares = oracles.loo_residuals(model, alphas)[:, :, 0] ** 2
    deviation = (squares - oracles.loo(model, alphas)[:, 0]) ** 2
    spread = np.sqrt((model.w if model.counts else model.w**2) @ deviation) / model.w.sum()
    se = run(model, LOO(alphas=alphas)).path.score_se
    # With n or n − 1 in the denominator: nothing depends on which.
    assert (se >= spread * (1 - 1e-9)).all()
    assert (se <= spread * np.sqrt(model.observations / (model.observations - 1)) * (1 + 1e-9)).all()


@pytest.mark.parametrize("variation", ["plain", "standardised"])
def test_standard_error_of_kfold(variation: str) -> None:
    """The spread of the folds' mean squared errors over √K, for folds of equal weight."""
    model = problem("tall", variation)
    alphas = alphas_for(model, low=-3)
    splits = list(splitters.KFold(5).split(model.X))
    folds = np.array([oracles.kfold(model, [split], alphas)[:, 0] for split in splits]).astype(float)
    se = run(model, KFold(cv=splits, alphas=alphas)).path.score_se
    assert (se >= folds.std(axis=0) / np.sqrt(5) * (1 - 1e-9)).all()
    assert (se <= folds.std(axis=0, ddof=1) / np.sqrt(5) * (1 + 1e-9)).all()


def test_one_standard_error_rule_really_differs() -> None:
    model = signal(noise=2.0)
    assert run(model, LOO(one_se=True)).alpha[0] > 1.2 * run(model, LOO()).alpha[0]


@pytest.mark.parametrize("rule", [*RULES, "kfold"])
def test_grid_may_come_unsorted_or_repeated(rule: str) -> None:
    """The path keeps the order it is given; the choice does not depend on it."""
    model = problem("tall", "plain")
    alphas = alphas_for(model, count=8)
    make = {**RULES, "kfold": lambda alphas: KFold(cv=splitters.KFold(4), alphas=alphas)}[rule]
    a, b = run(model, make(alphas=alphas)), run(model, make(alphas=list(alphas[::-1])))
    assert a.alpha[0] == b.alpha[0]
    np.testing.assert_array_equal(b.path.alphas, alphas[::-1])
    np.testing.assert_allclose(a.path.score, b.path.score[::-1], rtol=1e-13)


@pytest.mark.parametrize("rule", [*RULES, "kfold"])
@pytest.mark.parametrize("alphas", [[-1.0, 1.0], [float("nan")], [float("inf")], [], [[1.0, 2.0]], ["a"]])
def test_grid_that_makes_no_sense_is_refused(rule: str, alphas: Any) -> None:
    model = problem("tall", "plain")
    with pytest.raises(ValueError, match="alpha"):
        run(model, {**RULES, "kfold": KFold}[rule](alphas=alphas))
