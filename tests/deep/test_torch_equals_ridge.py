"""A linear layer trained to convergence with weight decay is a ridge regression; with AdamW it is not."""

import functools

import numpy as np
import pytest
import scipy.optimize
import torch

from elltwo.weight_decay.conversion import decay
from linear_layer import curvature, regression, relative_error, ridge

WD = 0.4


def _layer(X, y):
    torch.manual_seed(0)
    layer = torch.nn.Linear(X.shape[1], y.shape[1]).double()
    groups = [{"params": [layer.weight]}, {"params": [layer.bias], "weight_decay": 0.0}]
    return layer, groups, torch.from_numpy(X), torch.from_numpy(y)


def _weights(layer):
    return layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()


def _train(layer, optimizer, rows, wanted, loss, steps, lr=None, shrink=None):
    """Run full-batch steps; lr(step) sets the learning rate, shrink(lr) is a hand-written decoupled decay."""
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr(step) if lr else group["lr"]
        optimizer.zero_grad()
        loss(layer(rows), wanted).backward()
        if shrink:
            layer.weight.data *= shrink(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return _weights(layer)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.8}, {"momentum": 0.8, "nesterov": True}, {"momentum": 0.8, "dampening": 0.3}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_sgd_with_weight_decay_ends_at_the_closed_form(options, reduction, targets):
    X, y = regression(targets=targets)
    layer, groups, rows, wanted = _layer(X, y)
    lr = 0.5 / (curvature(X, targets, reduction) + WD)
    optimizer = torch.optim.SGD(groups, lr=lr, weight_decay=WD, **options)
    found = _train(layer, optimizer, rows, wanted, torch.nn.MSELoss(reduction=reduction), 500)
    averaged = targets if reduction == "mean" else 1
    alpha = decay(WD, "coupled", "ridge", n=len(X), n_targets=averaged, reduction=reduction)
    assert alpha.exact
    assert relative_error(found, ridge(X, y, alpha.value)) < 1e-8


@pytest.mark.parametrize(
    ("n", "p", "rank"), [(6, 6, 6), (5, 9, 5), (30, 6, 2)], ids=["square", "wide", "flat"]
)
def test_sgd_ends_at_the_closed_form_for_every_shape_of_data(n, p, rank):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, p)) / np.sqrt(p)
    y = rng.normal(size=(n, 1))
    layer, groups, rows, wanted = _layer(X, y)
    optimizer = torch.optim.SGD(groups, lr=1 / (curvature(X) + WD), momentum=0.9, weight_decay=WD)
    found = _train(layer, optimizer, rows, wanted, torch.nn.MSELoss(), 800)
    alpha = decay(WD, "coupled", "ridge", n=n)
    assert relative_error(found, ridge(X, y, alpha.value)) < 1e-8


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_lbfgs_with_the_penalty_in_the_loss_ends_at_the_closed_form(reduction):
    X, y = regression(targets=2)
    layer, _, rows, wanted = _layer(X, y)
    mse = torch.nn.MSELoss(reduction=reduction)
    optimizer = torch.optim.LBFGS(
        layer.parameters(),
        line_search_fn="strong_wolfe",
        max_iter=100,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
    )

    def closure():
        optimizer.zero_grad()
        value = mse(layer(rows), wanted) + WD / 2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    averaged = 2 if reduction == "mean" else 1
    alpha = decay(
        WD, "coupled", "ridge", optimizer="LBFGS", n=len(X), n_targets=averaged, reduction=reduction
    )
    assert relative_error(_weights(layer), ridge(X, y, alpha.value)) < 1e-6


@pytest.mark.parametrize("options", [{}, {"dampening": 0.3}, {"nesterov": True}], ids=lambda o: "-".join(o))
def test_decoupled_decay_beside_momentum_ends_at_the_converted_alpha(options):
    X, y = regression()
    layer, groups, rows, wanted = _layer(X, y)
    lr = 0.2 / (curvature(X) + WD)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.8, weight_decay=0.0, **options)
    loss = torch.nn.MSELoss()
    found = _train(layer, optimizer, rows, wanted, loss, 1500, shrink=lambda rate: 1 - rate * WD)
    damped = {"dampening": options.get("dampening", 0.0)}
    alpha = decay(WD, "decoupled", "ridge", momentum=0.8, n=len(X), **damped)
    assert alpha.exact
    assert relative_error(found, ridge(X, y, alpha.value)) < 1e-8
    plain = decay(WD, "decoupled", "ridge", n=len(X))
    assert relative_error(found, ridge(X, y, plain.value)) > 1e-2


def test_weight_decay_on_the_bias_too_is_another_problem():
    X, y = regression()
    layer, _, rows, wanted = _layer(X, y)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5 / (curvature(X) + WD), weight_decay=WD)
    found = _train(layer, optimizer, rows, wanted, torch.nn.MSELoss(), 500)
    alpha = decay(WD, "coupled", "ridge", n=len(X)).value
    assert relative_error(found, ridge(X, y, alpha)) > 1e-2


def test_adams_coupled_decay_ends_at_the_closed_form_as_the_learning_rate_falls():
    X, y = regression()
    layer, groups, rows, wanted = _layer(X, y)
    optimizer = torch.optim.Adam(groups, lr=0.05, weight_decay=WD, betas=(0.9, 0.99))
    rate = lambda step: 0.05 * 0.99 ** max(step - 400, 0)  # noqa: E731
    found = _train(layer, optimizer, rows, wanted, torch.nn.MSELoss(), 1500, lr=rate)
    alpha = decay(WD, "coupled", "ridge", optimizer="torch.Adam", n=len(X))
    assert alpha.exact
    assert relative_error(found, ridge(X, y, alpha.value)) < 1e-5


@functools.cache
def _adamw(size, steps):
    X, y = regression(size=size)
    layer, groups, rows, wanted = _layer(X, y)
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=WD, betas=(0.9, 0.99))
    return _train(
        layer, optimizer, rows, wanted, torch.nn.MSELoss(), steps, lr=lambda t: 0.05 / (1 + t / 100)
    )


def _least_squares_in_a_box(X, y, bound):
    bounds = np.r_[np.full(X.shape[1], bound), np.inf]
    design = np.column_stack([X, np.ones(len(X))])
    solved = scipy.optimize.lsq_linear(design, y[:, 0], (-bounds, bounds), tol=1e-12).x
    return solved[:-1, None], solved[-1:]


@pytest.mark.parametrize("size", [0.5, 4.0], ids=["inside", "at-the-bounds"])
def test_adamw_ends_elsewhere_however_long_it_trains(size):
    X, y = regression(size=size)
    nominal = decay(WD, "decoupled", "ridge", optimizer="AdamW", n=len(X))
    assert not nominal.exact
    closed = ridge(X, y, nominal.value)
    errors = [relative_error(_adamw(size, steps), closed) for steps in (300, 1500)]
    assert min(errors) > 0.05
    assert errors[1] > 0.9 * errors[0]


@pytest.mark.parametrize("size", [0.5, 4.0], ids=["inside", "at-the-bounds"])
def test_adamw_ends_at_least_squares_with_every_weight_within_one_over_wd(size):
    X, y = regression(size=size)
    box = _least_squares_in_a_box(X, y, 1 / WD)
    assert (np.abs(box[0]).max() < 0.9 / WD) == (size < 1)
    assert relative_error(_adamw(size, 4000), box) < 0.01


def test_no_alpha_at_all_gives_what_adamw_ends_at():
    X, y = regression(size=4.0)
    found = _adamw(4.0, 4000)
    errors = [relative_error(found, ridge(X, y, alpha)) for alpha in np.logspace(-4, 4, 200)]
    assert min(errors) > 0.05


@pytest.mark.parametrize("batch", [5, 8, 40])
def test_summed_batches_are_balanced_at_the_converted_alpha(batch):
    X, y = regression()
    alpha = decay(WD, "coupled", "ridge", reduction="sum", batch_size=batch, n=len(X)).value
    coef, intercept = ridge(X, y, alpha)
    residual = X @ coef + intercept - y
    batches = [slice(start, start + batch) for start in range(0, len(X), batch)]
    gradient = sum(2 * X[part].T @ residual[part] + WD * coef for part in batches)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
