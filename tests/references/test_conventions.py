"""Every conversion against the optimum that the tool itself finds."""

import doctest
import subprocess
import sys
from itertools import product
from pathlib import Path

import glmnet_values as glmnet
import numpy as np
import pytest
from scipy.optimize import minimize

from elltwo.conventions import DIALECTS, LOSS_NAMES, convert
from elltwo.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "conventions.md"
N, P = 40, 3
FORMS = [(dialect.name, loss) for dialect in DIALECTS for loss in dialect.forms]


def data(loss):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(N, P)) * [1.0, 2.0, 0.5]
    eta = 0.5 + X @ [0.8, -0.4, 1.0]
    draw = {
        "gaussian": lambda: 5 + 3 * eta + rng.normal(size=N),
        "logistic": lambda: (rng.uniform(size=N) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": lambda: rng.poisson(np.exp(eta / 2)).astype(float),
    }
    return X, draw[loss]()


def optimum(X, y, alpha, loss="gaussian", w=None, intercept=True, scales=1.0):
    """Return (b, θ) minimising Σw·½dev + (α/2)·Σ(scaleⱼθⱼ)²: closed form, or Newton steps to rounding."""
    w = np.ones(len(y)) if w is None else np.asarray(w)
    A = np.column_stack([np.full(len(y), float(intercept)), X])
    penalty = alpha * np.diag(np.r_[0.0, np.ones(X.shape[1]) * scales] ** 2)
    penalty[0, 0] = 0.0 if intercept else 1.0  # without an intercept, its column is zero
    if loss == "gaussian":
        return np.linalg.solve(A.T @ (w[:, None] * A) + penalty, A.T @ (w * y))
    theta = np.zeros(A.shape[1])
    for _ in range(50):
        eta = A @ theta
        mu = 1 / (1 + np.exp(-eta)) if loss == "logistic" else np.exp(eta)
        curvature = mu * (1 - mu) if loss == "logistic" else mu
        gradient = A.T @ (w * (mu - y)) + penalty @ theta
        theta = theta - np.linalg.solve(A.T @ ((w * curvature)[:, None] * A) + penalty, gradient)
    assert np.abs(gradient).max() < 1e-10
    return theta


HALF_DEVIANCE = {
    "gaussian": lambda y, eta: (y - eta) ** 2 / 2,
    "logistic": lambda y, eta: np.log(1 + np.exp(eta)) - y * eta,
    "poisson": lambda y, eta: np.exp(eta) - y * eta,
}


def minimum(objective, X, y):
    """Minimise objective(η, θ) numerically, with gradients by the complex step (Squire & Trapp 1998)."""
    A = np.column_stack([np.ones(len(y)), X])

    def value(theta):
        return objective(A @ theta, theta[1:])

    def gradient(theta):
        return np.array([value(theta + 1e-30j * unit).imag / 1e-30 for unit in np.eye(len(theta))])

    start = np.zeros(A.shape[1])
    found = minimize(lambda t: value(t).real, start, jac=gradient, method="BFGS", options={"gtol": 1e-10})
    assert np.abs(gradient(found.x)).max() < 1e-7
    return found.x


# What the documentation of the tools that are not run here says they minimise, as functions of
# the value v, the half deviance h of each row, θ and the standard deviation s of the target.
# Keras: https://keras.io/api/layers/regularizers/ (l2 * reduce_sum(square(x))), and
#   https://keras.io/api/losses/ (mean of squared differences; mean of the cross-entropies;
#   mean(y_pred - y_true * log(y_pred))).
# Spark: https://spark.apache.org/docs/latest/ml-advanced.html, "Weighted least squares", with the
#   label's population standard deviation for delta; LogisticRegression: the mean log-loss plus
#   regParam/2 times the squared norm, https://spark.apache.org/docs/latest/mllib-linear-methods.html
STATED = {
    ("sum", "*"): lambda v, h, theta, s: h.sum() + v / 2 * theta @ theta,
    ("mean", "*"): lambda v, h, theta, s: (2 * h).mean() + v * theta @ theta,
    ("half-mean", "*"): lambda v, h, theta, s: h.mean() + v / 2 * theta @ theta,
    ("keras", "gaussian"): lambda v, h, theta, s: (2 * h).mean() + v * theta @ theta,
    ("keras", "logistic"): lambda v, h, theta, s: h.mean() + v * theta @ theta,
    ("keras", "poisson"): lambda v, h, theta, s: h.mean() + v * theta @ theta,
    ("spark", "gaussian"): lambda v, h, theta, s: h.mean() + v / s * (theta @ theta) / 2,
    ("spark", "logistic"): lambda v, h, theta, s: h.mean() + v / 2 * theta @ theta,
}


def stated(dialect, loss):
    objective = STATED.get((dialect, loss)) or STATED.get((dialect, "*"))
    if objective is None:
        return None

    def fit(X, y, value):
        half = HALF_DEVIANCE[loss]
        return minimum(lambda eta, theta: objective(value, half(y, eta), theta, np.std(y)), X, y)

    return fit


def of_sklearn(model):
    return np.r_[model.intercept_, np.ravel(model.coef_)]


def sklearn_ridge(X, y, alpha):
    from sklearn.linear_model import Ridge

    return of_sklearn(Ridge(alpha).fit(X, y))


def sklearn_poisson(X, y, alpha, w=None):
    from sklearn.linear_model import PoissonRegressor

    model = PoissonRegressor(alpha=alpha, solver="newton-cholesky", tol=1e-12)
    return of_sklearn(model.fit(X, y, sample_weight=w))


def sklearn_logistic(X, y, C):
    from sklearn.linear_model import LogisticRegression

    return of_sklearn(LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12).fit(X, y))


def sklearn_elasticnet(X, y, alpha, w=None):
    from sklearn.linear_model import ElasticNet

    model = ElasticNet(alpha=alpha, l1_ratio=0, tol=1e-15, max_iter=10_000)
    return of_sklearn(model.fit(X, y, sample_weight=w))


def statsmodels_ols(X, y, alpha, w=None):
    import statsmodels.api as sm

    w = np.ones(len(y)) if w is None else w
    centred_X, centred_y = (
        v - np.average(v, axis=0, weights=w) for v in (X, y)
    )  # so no constant to penalise
    theta = sm.WLS(centred_y, centred_X, weights=w).fit_regularized(alpha=alpha, L1_wt=0).params
    return np.r_[np.average(y - X @ theta, weights=w), theta]


def statsmodels_glm(loss):
    def fit(X, y, alpha, w=None):
        import statsmodels.api as sm

        family = {"logistic": sm.families.Binomial, "poisson": sm.families.Poisson}[loss]()
        model = sm.GLM(y, np.column_stack([np.ones(len(y)), X]), family=family, freq_weights=w)
        return model.fit_regularized(alpha=np.r_[0.0, np.full(P, alpha)], L1_wt=0).params

    return fit


def torch_sgd(loss):
    def fit(X, y, weight_decay, w=None):
        import torch

        X, y = torch.tensor(X), torch.tensor(y).reshape(len(y), -1)
        torch.manual_seed(0)
        layer = torch.nn.Linear(X.shape[1], y.shape[1], dtype=torch.float64)
        mean_loss = {
            "gaussian": torch.nn.MSELoss(),
            "logistic": torch.nn.BCEWithLogitsLoss(weight=None if w is None else torch.tensor(w)[:, None]),
            "poisson": torch.nn.PoissonNLLLoss(log_input=True),
        }[loss]
        groups = [
            {"params": [layer.weight], "weight_decay": weight_decay},
            {"params": [layer.bias], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.8)
        for _ in range(2_000):
            optimiser.zero_grad()
            mean_loss(layer(X), y).backward()
            optimiser.step()
        return torch.column_stack([layer.bias, layer.weight]).detach().numpy().squeeze()

    return fit


# (dialect, loss): how to fit, a value, and the error that the tool's stopping rule leaves:
# its gradient tolerance over the smallest curvature, which the penalty keeps above the value.
TOOLS = {
    ("sklearn", "gaussian"): (sklearn_ridge, 6.0, 1e-11),
    ("sklearn", "poisson"): (sklearn_poisson, 0.2, 1e-9),
    ("C", "logistic"): (sklearn_logistic, 0.15, 1e-9),
    ("sklearn-elasticnet", "gaussian"): (sklearn_elasticnet, 0.3, 1e-9),
    ("statsmodels", "gaussian"): (statsmodels_ols, 0.3, 1e-11),
    ("statsmodels", "logistic"): (statsmodels_glm("logistic"), 0.2, 1e-5 / 0.1),
    ("statsmodels", "poisson"): (statsmodels_glm("poisson"), 0.2, 1e-5 / 0.1),
    ("torch", "gaussian"): (torch_sgd("gaussian"), 0.2, 1e-11),
    ("torch", "logistic"): (torch_sgd("logistic"), 0.2, 1e-11),
    ("torch", "poisson"): (torch_sgd("poisson"), 0.2, 1e-11),
} | {form: (stated(*form), 0.1, 1e-6) for form in FORMS if stated(*form)}

GLMNET_FORMS = {("glmnet", case.loss) for case in glmnet.CASES}


def test_every_form_is_verified():
    assert set(TOOLS) | GLMNET_FORMS == set(FORMS)


@pytest.mark.filterwarnings("ignore:.*l1_reg=0:UserWarning")
@pytest.mark.parametrize(("dialect", "loss"), TOOLS, ids=str)
def test_the_tool_has_the_same_optimum(dialect, loss):
    fit, value, error = TOOLS[dialect, loss]
    X, y = data(loss)
    alpha = convert(value, from_=dialect, to="sum", n=N, loss=loss, y_std=np.std(y))
    expected = optimum(X, y, alpha, loss)
    np.testing.assert_allclose(fit(X, y, value), expected, rtol=0, atol=error)
    # the penalty matters here, so a wrong factor would be seen
    assert np.abs(expected - optimum(X, y, alpha / 2, loss)).max() > 1e-3


@pytest.mark.filterwarnings("ignore:.*l1_reg=0:UserWarning")
@pytest.mark.parametrize(
    ("dialect", "loss", "fit", "n_is"),
    [
        ("sklearn-elasticnet", "gaussian", sklearn_elasticnet, "sum"),
        ("statsmodels", "gaussian", statsmodels_ols, "sum"),
        ("sklearn", "poisson", sklearn_poisson, "sum"),
        ("statsmodels", "logistic", statsmodels_glm("logistic"), "rows"),
        ("torch", "logistic", torch_sgd("logistic"), "rows"),
    ],
)
def test_n_of_weighted_rows(dialect, loss, fit, n_is):
    _, value, error = TOOLS[dialect, loss]
    X, y = data(loss)
    w = np.random.default_rng(1).uniform(0.5, 3, N)
    n = {"sum": w.sum(), "rows": N}[n_is]
    alpha = convert(value, from_=dialect, to="sum", n=n, loss=loss)
    np.testing.assert_allclose(fit(X, y, value, w), optimum(X, y, alpha, loss, w), rtol=0, atol=error)


def glmnet_data(case):
    X = np.reshape(glmnet.X, (-1, 3))
    w = np.array(glmnet.WEIGHTS) if case.weighted else np.ones(len(X))
    return X, np.array(glmnet.Y[case.loss], dtype=float), w


@pytest.mark.parametrize("case", glmnet.CASES, ids=lambda case: case.name)
def test_glmnet_has_the_same_optimum(case):
    X, y, w = glmnet_data(case)
    centre = np.average(y, weights=w) if case.intercept else 0.0
    y_std = np.sqrt(np.average((y - centre) ** 2, weights=w))
    scales = np.sqrt(np.average((X - w @ X / w.sum()) ** 2, axis=0, weights=w)) if case.standardize else 1.0
    alpha = convert(case.lam, from_="glmnet", to="sum", n=w.sum(), loss=case.loss, y_std=y_std)
    expected = optimum(X, y, alpha, case.loss, w, case.intercept, scales)
    np.testing.assert_allclose(case.coef, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", glmnet.UNSCALED, ids=lambda case: case.name)
def test_these_glmnet_families_speak_half_mean(case):
    X, y, _ = glmnet_data(case)
    alpha = convert(case.lam, from_="half-mean", to="sum", n=len(X))
    np.testing.assert_allclose(case.coef, optimum(X, y, alpha), rtol=1e-9)


@pytest.mark.parametrize("dialect", ["keras", "torch"])
def test_mean_losses_also_average_over_targets(dialect):
    X, y = data("gaussian")
    Y = np.column_stack([y, y[::-1], X @ [1, 2, 3]])
    value = 0.2
    alpha = convert(value, from_=dialect, to="sum", n=N, n_targets=3)
    if dialect == "torch":
        found = torch_sgd("gaussian")(X, Y, value)
    else:
        columns = [
            minimum(lambda eta, theta, y=y: np.sum((y - eta) ** 2) / (N * 3) + value * theta @ theta, X, y)
            for y in Y.T
        ]
        found = np.array(columns)
    np.testing.assert_allclose(found, [optimum(X, y, alpha) for y in Y.T], atol=1e-6)


def test_spark_generalized_linear_regression_advice():
    # Spark's IterativelyReweightedLeastSquares, step by step: each working problem is
    # ½Σω(z − η)²/Σω + (regParam/2)‖θ‖².
    X, y = data("poisson")
    A = np.column_stack([np.ones(N), X])
    reg_param = 0.2
    theta = np.r_[np.log(y.mean()), np.zeros(P)]
    for _ in range(100):
        mu = np.exp(A @ theta)
        z, omega = A @ theta + (y - mu) / mu, mu
        penalty = reg_param * np.diag([0.0, *np.ones(P)])
        theta = np.linalg.solve(
            A.T @ (omega[:, None] * A) / omega.sum() + penalty, A.T @ (omega * z) / omega.sum()
        )
    alpha = convert(reg_param, from_="half-mean", to="sum", n=y.sum(), loss="poisson")
    np.testing.assert_allclose(theta, optimum(X, y, alpha, "poisson"), rtol=1e-9)


def test_the_one_dimensional_case():
    # X = 1, no intercept: MSE + λθ² has θ = y/(1 + λ)
    alpha = convert(0.25, from_="mean", to="sum", n=1)
    theta = optimum(np.ones((1, 1)), np.array([10.0]), alpha, intercept=False)[1]
    assert theta == pytest.approx(10 / 1.25, rel=1e-15)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_there_and_back(loss):
    known = [name for name, of in FORMS if of == loss]
    values = np.array([[1e-12, 0.3], [7.0, 1e15]])
    facts = {"n": 123.0, "loss": loss, "y_std": 4.5, "n_targets": 2}
    for one, other in product(known, known):
        there = convert(values, from_=one, to=other, **facts)
        assert there.shape == values.shape
        np.testing.assert_allclose(convert(there, from_=other, to=one, **facts), values, rtol=1e-14)


def test_zero_and_infinity():
    facts = {"loss": "binomial", "n": 10}
    assert convert(0.0, from_="sum", to="C", **facts) == np.inf
    assert convert(np.inf, from_="C", to="keras", **facts) == 0.0
    assert convert(0.0, from_="C", to="glmnet", **facts) == np.inf
    assert convert(np.inf, from_="glmnet", to="C", **facts) == 0.0
    np.testing.assert_array_equal(
        convert([0.0, 2.0, np.inf], from_="C", to="sum", **facts), [np.inf, 0.5, 0.0]
    )


def test_a_scalar_stays_a_float():
    for value in (3, 3.0, np.float32(3), np.array(3)):
        assert type(convert(value, from_="sum", to="mean", n=2)) is float
    assert convert(np.arange(3), from_="sum", to="mean", n=2).dtype == np.float64


def test_binomial_is_logistic():
    assert convert(2.0, from_="C", to="sum", loss="binomial") == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"from_": "skleran"},
            r"from_='skleran' is not a dialect. Did you mean 'sklearn'\? Known",
        ),
        ({"to": "kera"}, r"to='kera' is not a dialect. Did you mean 'keras'\?"),
        ({"loss": "gausian"}, r"loss='gausian' is not known. Did you mean 'gaussian'\?"),
        ({"loss": "logistic", "from_": "sklearn"}, r"'sklearn' .*no parameter for loss='logistic'.*use 'C'"),
        ({"to": "C"}, r"'C' .*no parameter for loss='gaussian'.*use 'sklearn'"),
        ({"to": "spark", "loss": "poisson"}, r"no parameter for loss='poisson'.*use 'half-mean' with n=Σy"),
        ({"n": None}, r"'mean' needs n, .*α = n·λ. Pass n\."),
        ({"to": "glmnet"}, r"'glmnet' needs y_std, .*np\.std\(y\): α = n·λ/y_std\. Pass y_std\."),
        ({"n": 0}, r"n is 0; it must be a finite number above 0"),
        ({"n": np.nan}, r"n is nan; it must be"),
        ({"n": "many"}, r"n='many' is not a number"),
        ({"y_std": -1.0}, r"y_std is -1; it must be"),
        ({"n_targets": 1.5}, r"n_targets is 1\.5; it must be a whole number"),
        ({"value": -2.0}, r"value is -2; the λ of 'mean' must be at least 0"),
        ({"value": [[1.0], [np.nan]]}, r"value\[1, 0\] is nan; the λ of 'mean'"),
        ({"value": "a lot"}, r"value='a lot' is not a number"),
    ],
)
def test_bad_input(change, message):
    call = {"value": 1.0, "from_": "mean", "to": "sum", "n": 10} | change
    with pytest.raises(InputError, match=message):
        convert(call.pop("value"), **call)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_missing_loss_says_what_to_use(dialect):
    assert set(dialect.forms) | set(dialect.instead) == set(LOSS_NAMES)
    assert not set(dialect.forms) & set(dialect.instead)


def table_row(dialect, loss):
    form = dialect.forms[loss]
    cells = (f'`"{dialect.name}"`', dialect.tool, loss, form.objective, form.formula(dialect.parameter))
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_documented(dialect):
    page = DOCS.read_text(encoding="utf-8").splitlines()
    for loss in dialect.forms:
        row = table_row(dialect, loss)
        assert row in page, f"docs/conventions.md lacks this line:\n{row}"
    assert f'"{dialect.name}"' in convert.__doc__


def test_documented_examples_run():
    assert doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8").failed == 0


def test_needs_numpy_only():
    code = "import sys, elltwo.conventions; print({'scipy', 'sklearn', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
