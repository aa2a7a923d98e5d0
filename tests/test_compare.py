"""`elltwo.compare` and `elltwo compare`: nested cross-validation, honest encoding, what the text claims."""

import json
import re

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import log_loss, mean_poisson_deviance, mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from elltwo import comparing
from elltwo.comparing import CONTESTANTS, compare, contestants, race, results, rows, text, verdict
from elltwo.errors import InputError, Status
from elltwo.folds import DealtFolds, TimeFolds
from elltwo.interfaces.cli.main import cli
from elltwo.losses import as_loss
from elltwo.selection import LOO, RULES
from elltwo.summary import WIDTH

SMALL = ("mean", "unpenalised", "ridge-loo")


def table(X, y, **more):
    return {f"x{j}": X[:, j] for j in range(X.shape[1])} | {"y": y} | more


def linear(n, theta, noise, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, len(theta)))
    return X, X @ np.asarray(theta, dtype=float) + noise * rng.normal(size=n)


@pytest.fixture
def few(monkeypatch):
    """Compare few contestants, to save time."""
    only(monkeypatch, *SMALL)


def only(monkeypatch, *keys):
    monkeypatch.setattr(comparing, "CONTESTANTS", tuple(c for c in CONTESTANTS if c.key in keys))


# ------------------------------------------------------------------------------ against scikit-learn


def loo_ridge(alphas):
    """Return a model with alpha by brute-force leave-one-out, the scales of all training rows held."""

    def fit(X, y):
        scale = X.std(axis=0)

        def score(alpha):
            errors = []
            for i in range(len(y)):
                keep = np.arange(len(y)) != i
                model = Ridge(alpha).fit(X[keep] / scale, y[keep])
                errors.append((y[i] - model.predict(X[[i]] / scale)[0]) ** 2)
            return np.mean(errors)

        best = min(alphas, key=score)
        model = Ridge(best).fit(X / scale, y)
        return lambda Z: model.predict(Z / scale)

    return fit


def test_errors_are_those_of_a_nested_cross_validation_by_hand(monkeypatch):
    X, y = linear(36, [1.0, -0.5, 0.0, 0.3], 1.0, 0)
    alphas = [0.5, 3.0, 20.0, 100.0]
    one = contestants.Contestant("ridge-loo", "ridge", "Ridge, LOO", "ridge", "loo")
    kept = (*(c for c in CONTESTANTS if c.key in ("mean", "unpenalised")), one)
    monkeypatch.setattr(comparing, "CONTESTANTS", kept)
    monkeypatch.setattr(
        comparing.race, "as_rule", lambda _: comparing.race.as_rule.__globals__["LOO"](alphas)
    )
    monkeypatch.setattr(comparing.race, "as_rule", lambda name: LOO(alphas))
    found = compare(table(X, y), "y", folds=4, seed=3)
    fits = {
        "mean": lambda A, b: lambda Z: np.full(len(Z), b.mean()),
        "unpenalised": lambda A, b: Ridge(1e-10).fit(A, b).predict,
        "ridge-loo": loo_ridge(alphas),
    }
    pairs = list(DealtFolds(4, 3).split(X))
    assert found.fold_rows == tuple(len(test) for _, test in pairs)
    for key, fit in fits.items():
        errors = [mean_squared_error(y[b], fit(X[a], y[a])(X[b])) for a, b in pairs]
        np.testing.assert_allclose(found[key].fold_errors, errors, rtol=1e-8)
        share = np.array(found.fold_rows) / len(y)
        np.testing.assert_allclose(found[key].error, share @ errors, rtol=1e-8)
    with pytest.raises(KeyError, match="did not take part"):
        found["ridge-gcv"]


@pytest.mark.parametrize("rule", ["loo", "gcv", "kfold", "reml", "aic", "bic"])
def test_every_rule_predicts_as_sklearn_does_at_the_same_alpha(rule, monkeypatch):
    """The alphas chosen in the training sets, put into scikit-learn's Ridge, give the same errors."""
    X, y = linear(60, np.linspace(1, -1, 8), 1.5, 1)
    key = f"ridge-{rule}"
    only(monkeypatch, "mean", key)
    alphas = []
    fit_as_before = comparing.race.Wanted.fit

    def remember(*arguments):
        fit = fit_as_before(*arguments)
        alphas.append(float(fit.alpha[0]))
        return fit

    monkeypatch.setattr(comparing.race.Wanted, "fit", remember)
    row = compare(table(X, y), "y", folds=5)[key]
    errors = [
        mean_squared_error(y[b], make_pipeline(StandardScaler(), Ridge(alpha)).fit(X[a], y[a]).predict(X[b]))
        for alpha, (a, b) in zip(alphas, DealtFolds(5, 0).split(X), strict=True)
    ]
    np.testing.assert_allclose(row.fold_errors, errors, rtol=1e-9)
    assert row.alpha == np.median(alphas)


def test_lasso_predicts_as_sklearn_does_at_the_same_alpha(monkeypatch):
    X, y = linear(60, [2, 1, 0, 0, 0, 0], 1.0, 2)
    only(monkeypatch, "mean", "lasso")
    alphas = []
    before = comparing.race.Wanted.fit

    def remember(*arguments):
        fit = before(*arguments)
        alphas.append(float(fit.alpha[0]))
        return fit

    monkeypatch.setattr(comparing.race.Wanted, "fit", remember)
    row = compare(table(X, y), "y", folds=3)["lasso"]
    for k, (a, b) in enumerate(DealtFolds(3, 0).split(X)):
        model = make_pipeline(StandardScaler(), Lasso(alphas[k] / len(a), tol=1e-12)).fit(X[a], y[a])
        np.testing.assert_allclose(
            row.fold_errors[k], mean_squared_error(y[b], model.predict(X[b])), rtol=1e-6
        )


def test_deviances_of_families_are_scikit_learns(few):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(120, 3))
    eta = X @ [0.8, -0.5, 0.2]
    label = np.where(rng.uniform(size=120) < 1 / (1 + np.exp(-eta)), "yes", "no")
    found = compare(table(X, label), "y", family="binomial", folds=3)
    fold = comparing.split.StratifiedFolds.of((label == "yes").astype(int), 3, 0).fold
    errors = []
    for k in range(3):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(X[fold != k], label[fold != k])
        errors.append(2 * log_loss(label[fold == k], model.predict_proba(X[fold == k])))
    np.testing.assert_allclose(found["unpenalised"].fold_errors, errors, rtol=1e-6)
    assert found.classes == ("no", "yes")
    count = rng.poisson(np.exp(eta))
    found = compare(table(X, count), "y", family="poisson", folds=3)
    errors = [
        mean_poisson_deviance(
            count[b], PoissonRegressor(alpha=0, tol=1e-10, max_iter=1000).fit(X[a], count[a]).predict(X[b])
        )
        for a, b in DealtFolds(3, 0).split(X)
    ]
    np.testing.assert_allclose(found["unpenalised"].fold_errors, errors, rtol=1e-6)


def test_rules_of_squared_error_are_not_used_for_other_families():
    keys = {c.key for c in CONTESTANTS if c.takes("gamma", as_loss("gamma"))}
    sparse = {"elasticnet", "lasso"}
    assert keys == {"mean", "unpenalised", "ridge-loo", "ridge-kfold", "ridge-aic", "ridge-bic"} | sparse
    keys = {c.key for c in CONTESTANTS if c.takes("huber", as_loss("huber", epsilon=1.0))}
    assert keys == {"mean", "unpenalised", "ridge-loo", "ridge-kfold"} | sparse
    keys = {c.key for c in CONTESTANTS if c.takes("multinomial", as_loss("multinomial"))}
    assert not keys & sparse
    assert all(c.takes("gaussian", as_loss("gaussian")) for c in CONTESTANTS)


def test_standard_errors_and_what_is_explained(few):
    X, y = linear(50, [1, 1], 1.0, 4)
    found = compare(table(X, y), "y", folds=5)
    best = found.rows[0]
    for row in found.rows:
        errors = np.array(row.fold_errors)
        np.testing.assert_allclose(row.se, errors.std(ddof=1) / np.sqrt(5), rtol=1e-12)
        gap = errors - best.fold_errors
        np.testing.assert_allclose(row.behind, gap.mean(), atol=1e-14)
        np.testing.assert_allclose(row.behind_se, gap.std(ddof=1) / np.sqrt(5), atol=1e-14)
        np.testing.assert_allclose(row.explained, 1 - row.error / found["mean"].error, rtol=1e-12)
        assert row.within == (row.error <= best.error + best.se)
    assert [row.error for row in found.rows] == sorted(row.error for row in found.rows)


def test_claims_are_paired_differences_with_students_limits(few):
    X, y = linear(60, [1, 0, 0], 1.0, 5)
    found = compare(table(X, y), "y", folds=6)
    claim = next(c for c in found.claims if (c.model, c.versus) == ("ridge-loo", "mean"))
    gap = np.subtract(found["ridge-loo"].fold_errors, found["mean"].fold_errors)
    np.testing.assert_allclose(claim.difference, gap.mean(), rtol=1e-12)
    np.testing.assert_allclose(claim.limit, claim.se * stats.t(5).ppf(0.975), rtol=1e-9)
    assert claim.better == (claim.difference < -claim.limit)


def test_frequencies_are_repeated_rows(few):
    X, y = linear(40, [1, 1], 1.0, 6)
    n = np.random.default_rng(6).integers(0, 4, 40)
    found = compare(table(X, y, n=n), "y", weights="n", weights_are="frequency", folds=4)
    X, y, n = X[n > 0], y[n > 0], n[n > 0]
    assert (found.n_rows, found.rows_dropped, found.weights) == (len(n), 40 - len(n), "frequency")
    errors = []
    for a, b in DealtFolds(4, 0).split(X):
        train, test = np.repeat(a, n[a]), np.repeat(b, n[b])
        errors.append(mean_squared_error(y[test], Ridge(1e-10).fit(X[train], y[train]).predict(X[test])))
    np.testing.assert_allclose(found["unpenalised"].fold_errors, errors, rtol=1e-8)
    analytic = compare(table(X, y, n=n), "y", weights="n", folds=4)
    assert analytic["unpenalised"].error == pytest.approx(found["unpenalised"].error, rel=1e-9)
    assert analytic["ridge-loo"].alpha != found["ridge-loo"].alpha
    assert (analytic.weights, analytic.notes) == ("analytic", (*found.notes, Status.WHOLE_WEIGHTS.value))


def test_weighted_errors_by_hand(few):
    X, y = linear(40, [1, 1], 1.0, 7)
    w = np.random.default_rng(7).uniform(0.5, 3, 40)
    found = compare(table(X, y, w=w), "y", weights="w", folds=4)
    pairs = list(DealtFolds(4, 0).split(X))
    errors = [np.average((y[b] - np.average(y[a], weights=w[a])) ** 2, weights=w[b]) for a, b in pairs]
    share = np.array([w[b].sum() for _, b in pairs]) / w.sum()
    np.testing.assert_allclose(found["mean"].fold_errors, errors, rtol=1e-12)
    error = share @ errors
    np.testing.assert_allclose(found["mean"].error, error, rtol=1e-12)
    se = np.sqrt(4 / 3 * np.sum(share**2 * (np.array(errors) - error) ** 2))
    np.testing.assert_allclose(found["mean"].se, se, rtol=1e-12)
    errors = [
        np.average((y[b] - Ridge(1e-10).fit(X[a], y[a], w[a]).predict(X[b])) ** 2, weights=w[b])
        for a, b in pairs
    ]
    np.testing.assert_allclose(found["unpenalised"].fold_errors, errors, rtol=1e-8)


# ------------------------------------------------------------------------------ no leakage


def test_means_and_levels_are_those_of_the_training_rows(few):
    """Missing values of a held-out row take the training mean, and a new level counts as none."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=30), rng.normal(size=30)
    fold = DealtFolds(3, 0).deal(0, 30)
    holes = x.copy()
    holes[::4] = np.nan
    town = np.where(fold == 0, "only-there", rng.choice(["a", "b"], 30))
    data = {"x": holes, "town": town, "y": y}
    found = compare(data, "y", missing="mean", folds=3)
    assert any("10 text values of held-out rows" in note for note in found.notes)
    errors = []
    for k in range(3):
        a, b = fold != k, fold == k
        levels = np.unique(town[a])
        X = np.column_stack([np.where(np.isnan(holes), np.nanmean(holes[a]), holes), town[:, None] == levels])
        centre = X[a].mean(axis=0)
        theta = np.linalg.pinv(X[a] - centre) @ (y[a] - y[a].mean())
        # the smallest coefficients on the standardised scale, as the penalty is
        scale = (X[a] - centre).std(axis=0)
        theta = np.linalg.pinv((X[a] - centre) / scale) @ (y[a] - y[a].mean()) / scale
        errors.append(np.mean((y[b] - y[a].mean() - (X[b] - centre) @ theta) ** 2))
    np.testing.assert_allclose(found["unpenalised"].fold_errors, errors, rtol=1e-8)


def test_levels_of_single_rows_do_not_leak(few):
    """A text column with a level for each row explains the training rows and nothing else."""
    rng = np.random.default_rng(9)
    names = [f"row {i}" for i in range(40)]
    found = compare({"name": names, "x": rng.normal(size=40), "y": rng.normal(size=40)}, "y", folds=5)
    assert found.prefer == "mean"
    assert found["ridge-loo"].explained < 0.2
    assert "unpenalised" not in [row.key for row in found.rows]


def test_alpha_is_chosen_from_the_training_rows_alone(few):
    """What is done to the held-out rows of a fold leaves the models of that fold as they are."""
    X, y = linear(40, [1, 0.5, 0], 1.0, 10)
    fold = DealtFolds(4, 0).deal(0, 40)
    other = y.copy()
    other[fold == 2] = other[fold == 2] + 1000.0
    fits = [compare(table(X, target), "y", folds=4) for target in (y, other)]
    shift = 1000.0
    for key in SMALL:
        before, after = (found[key].fold_errors[2] for found in fits)
        # The residuals all moved by 1000, so their mean follows from the two errors if no model changed.
        residual = (after - before - shift**2) / (2 * shift)
        model_error = before - residual**2
        assert abs(residual) < 2
        assert model_error >= -1e-6


def test_groups_stay_together_and_time_goes_forward(few):
    rng = np.random.default_rng(11)
    group = np.repeat(np.arange(12), 6)
    level = rng.normal(size=12)[group]
    X = np.column_stack([level + 0.01 * rng.normal(size=72), rng.normal(size=72)])
    y = rng.normal(size=12)[group] + 0.1 * rng.normal(size=72)
    apart = compare(table(X, y, g=[f"g{i}" for i in group]), "y", group="g", folds=6)
    assert apart.split == "group"
    assert apart["ridge-loo"].explained < 0.3
    X, y = linear(60, [1, 1], 1.0, 12)
    when = np.random.default_rng(12).permutation(60)
    found = compare(table(X, y, when=when), "y", time="when", folds=4)
    pairs = list(TimeFolds(4).split(X, groups=when))
    errors = [np.mean((y[b] - y[a].mean()) ** 2) for a, b in pairs]
    np.testing.assert_allclose(found["mean"].fold_errors, errors, rtol=1e-12)
    assert found.rows_predicted == sum(len(b) for _, b in pairs) < found.n_rows
    assert "each predicted from its past by 'when'" in " ".join(found.summary().split())


# ------------------------------------------------------------------------------ the text


def test_noise_is_called_noise(monkeypatch):
    only(monkeypatch, *SMALL, "ridge-kfold", "lasso")
    X, y = linear(100, [0] * 8, 1.0, 13)
    found = compare(table(X, y), "y", folds=5)
    assert found.prefer == "mean"
    assert found.text.startswith("No model predicts clearly better than the mean")


def test_few_strong_features_make_a_short_list(monkeypatch):
    only(monkeypatch, *SMALL, "lasso")
    X, y = linear(100, [3, -2, 2] + [0] * 47, 1.0, 14)
    found = compare(table(X, y), "y", folds=5)
    assert found.prefer == "lasso"
    assert found["lasso"].nonzero < 20
    assert "The lasso predicts clearly better than ridge" in found.text
    assert "The penalty pays" in found.text


def test_many_small_effects_ask_for_ridge(monkeypatch):
    only(monkeypatch, *SMALL, "lasso", "ridge-bic")
    X, y = linear(80, 0.3 * np.random.default_rng(15).normal(size=50), 1.5, 15)
    found = compare(table(X, y), "y", folds=8)
    assert found.prefer == "ridge-loo"
    assert "The penalty pays: without it the error is higher than ridge's by" in found.text
    assert found["ridge-loo"].error < found["lasso"].error < found["unpenalised"].error
    assert re.search(r"The lasso keeps \d+ of 50 features", found.text)


def test_much_data_and_few_features_need_no_penalty():
    X, y = linear(1000, [1, 1, -1], 1.0, 16)
    found = compare(table(X, y), "y", folds=5)
    assert "The unpenalised fit is as good here: its error is within 0.1 % of ridge's." in found.text
    assert "How ridge's alpha is chosen makes no" in found.text
    assert "The lasso keeps 3 of 3 features, so it makes no short list" in found.text


def test_collinear_features(monkeypatch):
    only(monkeypatch, *SMALL, "ridge-reml")
    rng = np.random.default_rng(17)
    z = rng.normal(size=(60, 1))
    X = z + 0.02 * rng.normal(size=(60, 20))
    found = compare(table(X, z[:, 0] + 0.5 * rng.normal(size=60)), "y", folds=5)
    assert "The penalty pays" in found.text
    assert found["ridge-reml"].df < 6
    assert "explains" in found.text


def test_more_features_than_rows_leave_the_unpenalised_fit_out(few):
    X, y = linear(60, [1.0] * 50, 0.5, 18)
    found = compare(table(X, y), "y", folds=3)
    ((label, reason),) = found.left_out
    assert label == "Least squares"
    assert "50 features on 40 training rows leave no degrees of freedom" in reason
    assert "Without a penalty the fit is not determined (see below)" in found.text
    assert "Not in the table: Least squares. In fold 1 of 3:" in found.summary()


def test_separated_classes_leave_the_unpenalised_fit_out(few):
    X, _ = linear(60, [1, 1], 1.0, 19)
    found = compare(table(X, np.where(X[:, 0] > 0, "up", "down")), "y", family="binomial", folds=3)
    ((label, reason),) = found.left_out
    assert label == "No penalty"
    assert "part the classes without an error" in reason


def judged(**errors):
    """Return what is preferred, and why, for given errors of the folds."""
    entries = [
        race.Entry(c, list(errors[c.key.replace("-", "_")]), [1.0], [1.0], [1.0])
        for c in CONTESTANTS
        if c.key.replace("-", "_") in errors
    ]
    weights = np.ones(5)
    outcome = race.Outcome(entries, {}, weights, [1] * 5, 5, 5, [])
    found = {row.key: row for row in race.ranked(entries, weights)}
    return verdict.Judge(found, outcome, "dealt", "gaussian", 10).verdict()


def test_a_lucky_rule_is_not_preferred():
    mean = [10.0, 11, 9, 12, 8]
    unclear, clear = [9.0, 10.5, 8, 7, 8.1], [9.0, 10, 8, 11, 7.1]
    prefer, words = judged(mean=mean, ridge_loo=unclear, ridge_aic=clear)
    assert prefer == "ridge-loo"
    assert "That is clear only with alpha by AIC, its error lower than the mean's by" in words


def test_a_clearly_better_rule_or_kind_is_preferred():
    mean, ridge = [10.0, 11, 9, 12, 8], [5.0, 5.5, 4.5, 6, 4]
    better = [4.0, 4.6, 3.5, 5.1, 3]
    assert judged(mean=mean, ridge_loo=ridge, ridge_reml=better)[0] == "ridge-reml"
    prefer, words = judged(mean=mean, ridge_loo=ridge, unpenalised=better)
    assert prefer == "unpenalised"
    assert "The penalty does not pay here: without it the error is lower than ridge's by" in words
    prefer, words = judged(mean=mean, ridge_loo=ridge, lasso=ridge, elasticnet=better)
    assert prefer == "elasticnet"
    assert "The elastic net keeps 1 of 10 features, and its error is lower than ridge's by" in words
    assert "The lasso keeps 1 of 10 features at no loss" in words
    prefer, words = judged(mean=mean, ridge_loo=better, lasso=ridge)
    assert prefer == "ridge-loo"
    assert "The lasso keeps 1 of 10 features at a price" in words
    assert judged(mean=mean)[0] == "mean"


def test_every_number_in_the_text_is_a_claim(monkeypatch):
    """Each "by difference ± its standard error" of the text is one of the paired differences."""
    only(monkeypatch, *SMALL, "lasso", "ridge-bic", "ridge-reml")
    X, y = linear(90, [1, 0.5] + [0] * 10, 1.0, 20)
    found = compare(table(X, y), "y", folds=5)
    said = re.findall(r"by ([\d,.]+) ± ([\d,.]+[\d])", found.text)
    assert said
    pairs = [(abs(c.difference), c.se) for c in found.claims]
    for difference, se in said:
        size = float(difference.replace(",", ""))
        unit = 10.0 ** -len(difference.partition(".")[2])
        assert any(abs(size - d) <= unit and abs(float(se.replace(",", "")) - s) <= unit for d, s in pairs), (
            f"{difference} ± {se}"
        )


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e9])
def test_the_table_is_no_wider_than_a_terminal(scale, few):
    X, y = linear(60, [1, 0.2, 0], 1.0, 21)
    found = compare(table(X, scale * y), "y", folds=4)
    assert max(map(len, found.summary().splitlines())) <= WIDTH
    assert str(found) == found.summary()
    lines = found.summary().splitlines()
    assert sum(line.startswith("* ") and "±" in line for line in lines) == 1


def test_rules_and_contestants_agree():
    assert {c.rule for c in CONTESTANTS if isinstance(c.rule, str)} == {rule.name for rule in RULES}
    assert len({c.key for c in CONTESTANTS}) == len(CONTESTANTS)
    assert set(contestants.SPOKESMAN.values()) <= {c.key for c in CONTESTANTS}
    assert set(contestants.RULE_WORDS) == {rule.name for rule in RULES}


def test_progress_counts_rows(few):
    X, y = linear(30, [1, 1], 1.0, 22)
    seen = []
    compare(table(X, y), "y", folds=3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3 * 60, 3 * 60)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_inputs_are_left_alone(few):
    X, y = linear(30, [1, 1], 1.0, 23)
    frame = pl.DataFrame(table(X, y))
    before = frame.clone()
    compare(frame, "y", folds=3)
    assert frame.equals(before)


# ------------------------------------------------------------------------------ the command


@pytest.fixture
def path(tmp_path):
    X, y = linear(60, [1, 0.5, 0], 1.0, 24)
    rng = np.random.default_rng(24)
    data = table(X, y, town=rng.choice(["Bonn", "Ulm"], 60), shop=np.arange(60) % 9, day=np.arange(60))
    pl.DataFrame(data).write_csv(tmp_path / "sales.csv")
    return tmp_path / "sales.csv"


def run(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="elltwo")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def test_the_command_prints_what_the_function_returns(path, few):
    options = ["--folds", "4", "--drop", "shop,day", "--seed", "2", "--no-standardize"]
    shown = run("compare", path, "-t", "y", *options).stdout
    found = compare(str(path), "y", folds=4, drop=["shop", "day"], seed=2, standardize=False)
    times = re.compile(r" +[\d.]+ s$", re.MULTILINE)
    assert times.sub("", shown.rstrip()) == times.sub("", found.summary())
    facts = json.loads(run("compare", path, "-t", "y", *options, "--json").stdout)
    assert [m["key"] for m in facts["models"]] == [row.key for row in found.rows]
    assert facts["prefer"] == found.prefer
    assert facts["rows"] == 60
    assert facts["features"] == 5
    assert facts["standardize"] is False
    for model, row in zip(facts["models"], found.rows, strict=True):
        assert model["fold_errors"] == list(row.fold_errors)
        assert model["rmse"] == np.sqrt(row.error)


def test_a_csv_and_a_frame_give_the_same_numbers(path, few):
    one = compare(str(path), "y", folds=4, drop=["day"])
    other = compare(pl.read_csv(path), "y", folds=4, drop=["day"])
    assert [row.fold_errors for row in one.rows] == [row.fold_errors for row in other.rows]


def test_families_by_the_command(path, few):
    facts = json.loads(
        run(
            "compare", path, "-t", "town", "--family", "auto", "--folds", "3", "--drop", "day,shop", "--json"
        ).stdout
    )
    assert (facts["family"], facts["measure"], facts["classes"]) == ("binomial", "deviance", ["Bonn", "Ulm"])
    assert {m["label"] for m in facts["models"]} == {"Mean alone", "No penalty", "Ridge, approx. LOO"}
    assert "because target 'town' holds two labels" in " ".join(
        run(
            "compare", path, "-t", "town", "--family", "auto", "--folds", "3", "--drop", "day,shop"
        ).stdout.split()
    )


def test_the_command_shows_no_option_that_it_lacks():
    shown = run("compare", "--help").stdout
    for option in ("--family", "--group", "--time", "--missing", "--json", "--exposure"):
        assert option in shown
    for option in ("--model", "--class-weight", "--alpha", "--output"):
        assert option not in shown
    assert "compare" in run("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-t", "z"], "The target 'z' is not a column"),
        (["-t", "town", "--family", "gaussian"], "must hold numbers for the family 'gaussian'"),
        (["-t", "y", "--folds", "1"], "folds must be a whole number of at least 2"),
        (["-t", "y", "--folds", "70"], "70 folds need at least 70 rows"),
        (["-t", "y", "--group", "shop", "--folds", "10"], "Use at most 9 folds"),
        (["-t", "y", "--group", "shop", "--time", "day"], "deal rows to folds in different ways"),
        (["-t", "y", "--group", "shop", "--seed", "1"], "deal rows to folds in different ways"),
        (["-t", "y", "--seed", "-1"], "seed must be a whole number of at least 0"),
        (["-t", "y", "--family", "gama"], "Did you mean"),
        (["-t", "y", "--family", "poisson", "--drop", "day"], "target 'y' has the value"),
        (["-t", "y", "--power", "1.5"], "power (--power) is for"),
        (["-t", "y", "--model", "lasso"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(path, arguments, words, few):
    assert words in refused("compare", path, *arguments)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"x0": [None] + [1.0] * 29}, {}, "There are missing values in 'x0' (1 row)"),
        ({"x0": [np.inf] + [1.0] * 29}, {}, "infinite values in 'x0'"),
        ({"y": [2.0] * 30}, {}, "has the same value (2) in all 30 rows"),
        ({"y": ["a"] * 28 + ["b"] * 2}, {"family": "binomial", "folds": 2}, "of the label 'b'"),
        ({"w": [-1.0] + [1.0] * 29}, {"weights": "w"}, "must be finite and not negative"),
        ({}, {"target": ["y", "x1"]}, "one target at a time"),
        ({}, {"target": None}, "target is missing"),
        ({}, {"standardize": 1}, "standardize must be True or False"),
        ({}, {"missing": "guess"}, "missing='guess' is not a policy"),
        ({}, {"time": "x0", "seed": 1}, "Keep one"),
        ({}, {"offset": "y"}, "cannot be the target too"),
    ],
)
def test_bad_data_are_refused(change, options, words, few):
    X, y = linear(30, [1, 1], 1.0, 25)
    data = table(X, y) | change
    with pytest.raises(InputError, match=re.escape(words)):
        compare(data, **({"target": "y", "folds": 3} | options))


def test_a_source_is_refused():
    from elltwo.data.memory import MemorySource

    with pytest.raises(InputError, match="needs a table"):
        compare(MemorySource([[1.0], [2.0]], [1.0, 2.0]))


def test_a_table_too_large_is_refused(path, monkeypatch):
    monkeypatch.setattr(rows, "MOST_ELEMENTS", 300)
    message = refused("compare", path, "-t", "y")
    assert "7 encoded features, and compare holds at most 300 numbers" in message
    assert "USING SAMPLE" in message


def test_a_fold_without_values_is_named(few):
    fold = DealtFolds(3, 0).deal(0, 30)
    X, y = linear(30, [1, 1], 1.0, 26)
    X[fold != 1, 0] = np.nan
    with pytest.raises(InputError, match="In the training rows of fold 2: 'x0' has no value"):
        compare(table(X, y), "y", missing="mean", folds=3)


def test_offsets_reach_the_mean_and_the_models(few):
    rng = np.random.default_rng(27)
    days = rng.uniform(1, 50, 200)
    x = rng.normal(size=200)
    count = rng.poisson(days * np.exp(0.3 * x - 2))
    found = compare({"x": x, "days": days, "n": count}, "n", family="poisson", exposure="days", folds=4)
    errors = [
        mean_poisson_deviance(count[b], days[b] * count[a].sum() / days[a].sum())
        for a, b in DealtFolds(4, 0).split(days)
    ]
    np.testing.assert_allclose(found["mean"].fold_errors, errors, rtol=1e-9)
    assert found["ridge-loo"].explained > 0.05


def test_numbers_in_plain_json():
    assert results.plain({"a": (np.float64(1.5), float("nan")), "b": np.int64(2)}) == {
        "a": [1.5, None],
        "b": 2,
    }
    assert text.percent(0.5) == "50.0 %"
