"""`exact_head` for PyTorch, and `Ridge` on tensors: against the estimators on the extracted features."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from elltwo import AIC, GCV, LOO, InputError, KFold, LogisticRegression, Ridge, RidgeClassifier, Status
from elltwo.data import tensors
from elltwo.data.tensors import TensorSource
from elltwo.engine import fit_source
from elltwo.folds import DealtFolds, StratifiedFolds
from elltwo.selection import SCORINGS
from elltwo.testing import check_source
from elltwo.torch import exact_head
from shapes import dealt

RULES = ("loo", "gcv", "reml", "aic", "bic", 3.0)


def network(p=10, width=16, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    parts = torch.nn.Linear(p, width), torch.nn.Tanh(), torch.nn.Dropout(0.5)
    return torch.nn.Sequential(*parts).to(dtype)


def rows(n=400, p=10, T=3, dtype=torch.float64, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, p, generator=g, dtype=dtype)
    return x, x[:, :T] + 0.5 * torch.randn(n, T, generator=g, dtype=dtype)


def loader(*columns, batch_size=64, **options):
    return DataLoader(TensorDataset(*columns), batch_size=batch_size, **options)


def features(net, x):
    before = net.training
    values = net.eval()(x).detach().flatten(1).double().numpy()
    net.train(before)
    return values


def agree(result, coef, intercept, tolerance=1e-10):
    weight = np.atleast_2d(coef)
    scale = np.abs(weight).max()
    np.testing.assert_allclose(result.weight, weight, rtol=0, atol=tolerance * scale)
    bias = np.broadcast_to(np.ravel(intercept), result.bias.shape)
    np.testing.assert_allclose(result.bias, bias, rtol=0, atol=10 * tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("targets", [1, 3])
def test_regression_is_ridge_on_the_features(rule, dtype, targets):
    net, (x, y) = network(dtype=dtype), rows(T=targets, dtype=dtype)
    result = exact_head(net, loader(x, y), alpha=rule)
    model = Ridge(rule).fit(features(net, x), y.numpy())
    agree(result, model.coef_, model.intercept_)
    np.testing.assert_allclose(result.alpha, np.broadcast_to(model.alpha_, targets), rtol=1e-8)
    assert result.passes == (2 if rule == "loo" else 1)
    assert result.head.weight.dtype == dtype
    assert result.task == "regression"
    with torch.no_grad():
        fitted = result.head(net.eval()(x)).double().numpy()
    expected = model.predict(features(net, x)).reshape(fitted.shape)
    np.testing.assert_allclose(fitted, expected, atol=1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_by_squared_error_are_ridge_classifier(rule, classes):
    net, (x, y) = network(dtype=torch.float32), rows(dtype=torch.float32)
    labels = y[:, :classes].argmax(1)
    result = exact_head(net, loader(x, labels), alpha=rule)
    model = RidgeClassifier(rule).fit(features(net, x), labels.numpy())
    coef, bias = model.coef_, model.intercept_
    if classes == 2:
        coef, bias = np.vstack([-coef, coef]), np.concatenate([-bias, bias])
    agree(result, coef, bias)
    assert result.classes == tuple(range(classes))
    assert result.fit.classes == result.classes
    with torch.no_grad():
        predicted = result.head(net.eval()(x)).argmax(1).numpy()
    np.testing.assert_array_equal(predicted, model.predict(features(net, x)))


@pytest.mark.parametrize("rule", [LOO(np.logspace(-1, 2, 5)), AIC(np.logspace(-1, 2, 5)), 3.0])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_log_loss_is_logistic_regression(rule, classes, dtype):
    net, (x, y) = network(width=6, dtype=dtype), rows(n=200, dtype=dtype)
    labels = y[:, :classes].argmax(1)
    result = exact_head(net, loader(x, labels), alpha=rule, loss="logistic")
    model = LogisticRegression(rule).fit(features(net, x), labels.numpy())
    half = np.array([[-0.5], [0.5]])
    coef = half * model.coef_ if classes == 2 else model.coef_
    agree(result, coef, (half * model.intercept_).ravel() if classes == 2 else model.intercept_)
    assert result.passes == 1
    with torch.no_grad():
        p = torch.softmax(result.head(net.eval()(x)).double(), 1).numpy()
    np.testing.assert_allclose(p, model.predict_proba(features(net, x)), atol=1e-5)


@pytest.mark.parametrize("rule", [*RULES[:-1], KFold(3), KFold(3, scoring="neg_mean_absolute_error")])
def test_an_output_without_rows_of_its_class_has_no_say(rule):
    net, (x, y) = network(), rows()
    found = [
        exact_head(net, loader(x, y.argmax(1)), alpha=rule, head=torch.nn.Linear(16, units).double())
        for units in (3, 5)
    ]
    assert found[1].alpha[0] == pytest.approx(found[0].alpha[0], rel=1e-9)
    np.testing.assert_allclose(found[1].weight[:3], found[0].weight, rtol=1e-9, atol=1e-12)
    assert "without a say: 'class 3', 'class 4'" in found[1].fit.rule_text


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_two_classes_on_one_output(loss):
    net, (x, y) = network(), rows(n=150)
    labels = (y[:, 0] > 0).double()
    head = torch.nn.Linear(16, 1, dtype=torch.float64)
    result = exact_head(net, loader(x, labels), alpha=2.0, head=head, loss=loss, task="classification")
    model = (RidgeClassifier if loss == "squared" else LogisticRegression)(2.0)
    model.fit(features(net, x), labels.numpy())
    agree(result, model.coef_, model.intercept_)


def test_folds_are_dealt_and_of_classes_stratified():
    net, (x, y) = network(), rows()
    F, labels = features(net, x), y.argmax(1)
    dealt = exact_head(net, loader(x, y), alpha="kfold")
    assert dealt.passes == 1
    agree(dealt, *(lambda m: (m.coef_, m.intercept_))(Ridge(KFold(DealtFolds(5))).fit(F, y.numpy())))
    for loss, estimator in (("squared", RidgeClassifier), ("logistic", LogisticRegression)):
        alphas = np.logspace(-1, 1, 3)
        result = exact_head(net, loader(x, labels), alpha=KFold(4, alphas), loss=loss)
        folds = StratifiedFolds.of(labels.numpy(), 4, 0)
        split = [(np.flatnonzero(folds.fold != k), np.flatnonzero(folds.fold == k)) for k in range(4)]
        model = estimator(KFold(split, alphas)).fit(F, labels.numpy())
        agree(result, model.coef_, model.intercept_)
        assert result.passes == 1


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_scorings_are_those_of_the_classifiers(loss, classes):
    net, (x, y) = network(width=4).eval(), rows(n=100)
    labels = y[:, :classes].argmax(1)
    estimator = RidgeClassifier if loss == "squared" else LogisticRegression
    for scoring in SCORINGS:
        rule = KFold(3, [0.1, 10.0], scoring=scoring)
        if scoring not in estimator.SCORINGS:
            with pytest.raises(InputError, match=f"scoring='{scoring}' has no meaning for {classes} classes"):
                exact_head(net, loader(x, labels), alpha=rule, loss=loss)
            continue
        folds = StratifiedFolds.of(labels.numpy(), 3, 0)
        split = [(np.flatnonzero(folds.fold != k), np.flatnonzero(folds.fold == k)) for k in range(3)]
        model = estimator(KFold(split, [0.1, 10.0], scoring=scoring)).fit(features(net, x), labels.numpy())
        result = exact_head(net, loader(x, labels), alpha=rule, loss=loss)
        np.testing.assert_allclose(result.fit.path.score, model.path_.score, rtol=1e-8)


def test_a_splitter_of_positions_is_used_as_it_is():
    net, (x, y) = network(), rows()
    split = [(np.arange(100, 400), np.arange(100)), (np.arange(0, 300), np.arange(300, 400))]
    model = Ridge(KFold(split)).fit(features(net, x), y.numpy())
    agree(exact_head(net, loader(x, y), alpha=KFold(split)), model.coef_, model.intercept_)


OPTIONS = (
    {"standardize": True},
    {"fit_intercept": False},
    {"penalty": np.arange(16.0)},
    {"alpha_per_target": True},
    {"alpha_scale": "mean", "alpha": 0.01},
)


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_those_of_ridge(options):
    net, (x, y) = network(), rows()
    model = Ridge(**options).fit(features(net, x), y.numpy())
    agree(exact_head(net, loader(x, y), **options), model.coef_, model.intercept_)


@pytest.mark.parametrize("kind", ["frequency", "analytic"])
@pytest.mark.parametrize("rule", ["loo", "gcv", "kfold", 2.0])
def test_weights_are_the_third_of_a_batch(kind, rule):
    net, (x, y) = network(), rows()
    g = torch.Generator().manual_seed(5)
    w = torch.randint(0, 4, (400,), generator=g) if kind == "frequency" else torch.rand(400, generator=g)
    model = Ridge(rule, random_state=0, weights_are=kind)
    model.fit(features(net, x), y.numpy(), sample_weight=w.numpy())
    result = exact_head(net, loader(x, y, w), alpha=rule, weights_are=kind)
    agree(result, model.coef_, model.intercept_)
    assert result.fit.weights == kind
    assert result.fit.n_observations == model.fit_.n_observations
    labels = y.argmax(1)
    logistic = LogisticRegression(2.0).fit(features(net, x), labels.numpy(), sample_weight=w.numpy())
    agree(
        exact_head(net, loader(x, labels, w), alpha=2.0, loss="logistic"), logistic.coef_, logistic.intercept_
    )


@pytest.mark.parametrize("shape", ["wide", "square", "dead", "shifted", "scaled"])
@pytest.mark.parametrize("rule", [LOO(np.logspace(-2, 3, 6)), GCV(np.logspace(-2, 3, 6)), 0.5])
def test_features_of_every_shape(shape, rule):
    n = {"wide": 300, "square": 320}.get(shape, 700)
    net, (x, y) = network(width={"wide": 500, "square": 320}.get(shape, 30)), rows(n=n)
    change = {
        "dead": lambda f: torch.cat([f, 0 * f[:, :4] + 0.3, f[:, :2]], 1),
        "shifted": lambda f: f + 1e4,
        "scaled": lambda f: f * torch.logspace(-3, 3, 30, dtype=f.dtype),
    }.get(shape, lambda f: f)
    full = lambda inputs: change(net.eval()(inputs)).detach()  # noqa: E731
    model = Ridge(rule).fit(full(x).numpy(), y.numpy())
    result = exact_head(full, loader(x, y), alpha=rule)
    agree(result, model.coef_, model.intercept_, 1e-6 if shape == "shifted" else 1e-8)


def test_features_are_flattened_and_given_heads_are_written_in_place():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU())
    x, y = torch.randn(200, 1, 6, 6), torch.randn(200, 2)
    head = torch.nn.Linear(48, 2)
    weight = head.weight
    result = exact_head(net, loader(x, y), alpha=10.0, head=head)
    model = Ridge(10.0).fit(features(net, x), y.numpy())
    agree(result, model.coef_, model.intercept_)
    assert result.head is head
    assert head.weight is weight
    np.testing.assert_allclose(weight.detach().numpy(), model.coef_, rtol=1e-5, atol=1e-7)
    assert weight.requires_grad


def test_half_precision_features_are_multiplied_in_double():
    net, (x, y) = network(dtype=torch.float32), rows(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = exact_head(net, loader(x, y), alpha=1.0)
        half = net.eval()(x)
    assert half.dtype == torch.bfloat16
    model = Ridge(1.0).fit(half.detach().double().numpy(), y.double().numpy())
    agree(result, model.coef_, model.intercept_)
    stored = exact_head(lambda v: net(v).half(), loader(x, y.argmax(1)), alpha=1.0, loss="logistic")
    model = LogisticRegression(1.0).fit(net(x).half().detach().double().numpy(), y.argmax(1).numpy())
    agree(stored, model.coef_, model.intercept_)


def test_modes_gradients_and_random_states_are_left_alone():
    net, (x, y) = network(), rows()
    net.train()
    net[1].eval()
    g = torch.Generator().manual_seed(3)
    data = loader(x, y, shuffle=True, generator=g)
    states = torch.get_rng_state(), g.get_state()
    exact_head(net, data)
    assert [part.training for part in net.modules()] == [True, True, False, True]
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], g.get_state())
    assert all(p.grad is None for p in net.parameters())
    assert torch.is_grad_enabled()
    with pytest.raises(InputError):
        exact_head(net, loader(x, y * torch.nan))
    assert [part.training for part in net.modules()] == [True, True, False, True]


@pytest.mark.parametrize("generator", [None, 7])
def test_a_shuffled_loader_gives_one_order(generator):
    net, (x, y) = network(), rows()
    g = None if generator is None else torch.Generator().manual_seed(generator)
    one = exact_head(net, loader(x, y, shuffle=True, generator=g), alpha="loo")
    model = Ridge().fit(features(net, x), y.numpy())
    agree(one, model.coef_, model.intercept_)
    torch.manual_seed(123)
    twice = [exact_head(net, loader(x, y, shuffle=True, generator=g), alpha="kfold") for _ in range(2)]
    np.testing.assert_array_equal(twice[0].weight, twice[1].weight)
    drawn = DataLoader(TensorDataset(x, y), 50, sampler=WeightedRandomSampler(torch.rand(400), 300))
    assert exact_head(net, drawn).fit.n_rows == 300


class Noisy(Dataset):
    """Rows with noise of NumPy's generator, which no state of torch's repeats."""

    def __init__(self, x, y):
        self.x, self.y, self.rng = x, y, np.random.default_rng(0)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + self.rng.normal(), self.y[i]


class Reordered:
    """Batches in another order in each pass, but for the first."""

    def __init__(self, x, y):
        self.parts, self.passes = list(zip(x.split(50), y.split(50), strict=True)), 0

    def __iter__(self):
        self.passes += 1
        first, *rest = self.parts
        return iter([first, *(rest if self.passes % 2 else rest[::-1])])


def test_passes_that_differ_are_noticed():
    net, (x, y) = network(), rows()
    with pytest.raises(InputError, match=r"features of the first batch differ.*augmentation.*'gcv'"):
        exact_head(net, DataLoader(Noisy(x, y), 64))
    with pytest.raises(InputError, match="targets or their order differ"):
        exact_head(net, Reordered(x, y))
    assert exact_head(net, Reordered(x, y), alpha="gcv").passes == 1


def test_random_augmentation_by_torch_is_repeated():
    class Jittered(Noisy):
        def __getitem__(self, i):
            return self.x[i] + torch.randn(10, dtype=torch.float64), self.y[i]

    net, (x, y) = network(), rows()
    assert exact_head(net, DataLoader(Jittered(x, y), 64)).passes == 2


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_features_are_never_held_at_once(loss):
    net, (x, y) = network(width=40).eval(), rows(n=600)
    alive, most = set(), 0

    def watched(inputs):
        nonlocal most
        out = net(inputs)
        key = object()
        alive.add(key)
        weakref.finalize(out.untyped_storage(), alive.discard, key)
        most = max(most, len(alive))
        return out

    data = loader(x, y.argmax(1) if loss == "logistic" else y, batch_size=20)
    alpha = 1.0 if loss == "logistic" else "loo"
    result = exact_head(watched, data, alpha=alpha, loss=loss)
    gc.collect()
    assert result.fit.n_rows == 600
    assert most <= 5  # of 30 batches: the first, those in use at each step of the line, and the next one


def test_dict_batches_and_several_inputs():
    x, y = rows()
    both = [
        {"a": x[i : i + 50, :5], "b": x[i : i + 50, 5:], "y": y[i : i + 50], "n": "text"}
        for i in range(0, 400, 50)
    ]
    result = exact_head(lambda a, b: torch.cat([a, b], 1), both, keys=(("a", "b"), "y"), alpha=1.0)
    model = Ridge(1.0).fit(x.numpy(), y.numpy())
    agree(result, model.coef_, model.intercept_)
    with pytest.raises(InputError, match=r"dicts with the keys 'a', 'b', 'y', 'n'.*keys="):
        exact_head(lambda a: a, both)
    with pytest.raises(InputError, match=r"keys names 'z', but a batch has 'a', 'b'"):
        exact_head(lambda a: a, both, keys=("z", "y"))
    with pytest.raises(InputError, match="keys were given, but a batch is a list"):
        exact_head(lambda a: a, loader(x, y), keys=("a", "y"))


def test_arrays_and_lists_of_batches():
    net, (x, y) = network(), rows()
    batches = [(x[i : i + 90].numpy(), y[i : i + 90].numpy()) for i in range(0, 400, 90)]
    model = Ridge().fit(features(net, x), y.numpy())
    agree(exact_head(net, batches), model.coef_, model.intercept_)


def test_one_hot_labels_are_labels():
    net, (x, y) = network(), rows()
    labels = y.argmax(1)
    one_hot = functional.one_hot(labels, 3)
    a = exact_head(net, loader(x, labels), alpha=1.0)
    b = exact_head(net, loader(x, one_hot.float()), alpha=1.0, task="classification")
    c = exact_head(net, loader(x, labels[:, None]), alpha=1.0)
    np.testing.assert_array_equal(a.weight, b.weight)
    np.testing.assert_array_equal(a.weight, c.weight)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_one_hot_rows_of_whole_numbers_are_classes_and_other_columns_are_not(kind):
    net, (x, y) = network(), rows()
    one_hot = functional.one_hot(y.argmax(1), 3).to(kind)
    result = exact_head(net, loader(x, one_hot), alpha=1.0)
    assert result.classes == (0, 1, 2)
    np.testing.assert_array_equal(result.weight, exact_head(net, loader(x, y.argmax(1)), alpha=1.0).weight)
    several = (y > 0).to(kind)
    assert exact_head(net, loader(x, several), alpha=1.0).task == "regression"
    assert exact_head(net, loader(x, one_hot), alpha=1.0, task="regression").task == "regression"
    assert exact_head(net, loader(x, one_hot.double()), alpha=1.0).task == "regression"
    assert exact_head(net, loader(x, y.argmax(1).double()), alpha=1.0).task == "regression"


@pytest.mark.parametrize(
    ("label", "head", "message"),
    [
        (0, 1, r"all rows of positive weight are of class 0"),
        (1, 1, r"all rows of positive weight are of class 1"),
        (1, 2, r"all rows of positive weight are of class 1"),
        (2, 3, r"all rows of positive weight are of class 2"),
    ],
)
def test_one_class_has_no_log_loss(label, head, message):
    net, (x, _) = network(), rows()
    layer = torch.nn.Linear(16, head, dtype=torch.float64)
    before = layer.weight.clone()
    with pytest.raises(InputError, match=message):
        exact_head(net, loader(x, torch.full((400,), label)), loss="logistic", head=layer)
    assert torch.equal(layer.weight, before)


def test_classes_without_rows_have_no_logit():
    net, (x, y) = network(), rows()
    with pytest.raises(InputError, match=r"class 0 has no row.*0 … 3.*Number the classes from 0"):
        exact_head(net, loader(x, y.argmax(1) + 1), loss="logistic")
    weights = (y.argmax(1) != 2).double()
    with pytest.raises(InputError, match=r"class 2 has no row"):
        exact_head(net, loader(x, y.argmax(1), weights), loss="logistic")


def test_a_head_that_shares_weights_with_the_backbone_is_refused():
    embedding = torch.nn.Embedding(5, 4)
    tied = torch.nn.Linear(4, 5)
    tied.weight = embedding.weight
    part = torch.nn.Linear(4, 3)
    part.weight = torch.nn.Parameter(embedding.weight.detach()[1:4])
    x = torch.arange(100) % 5
    before = embedding.weight.clone()
    for head in (tied, part):
        with pytest.raises(InputError, match=r"'weight' of head is shared with .*'0.weight' of the backbone"):
            exact_head(torch.nn.Sequential(embedding), loader(x, x % head.out_features), head=head)
    assert torch.equal(embedding.weight, before)
    table = torch.nn.Module()
    table.register_buffer("table", embedding.weight.detach())  # computed with, and no parameter
    table.forward = lambda rows: table.table[rows]
    with pytest.raises(InputError, match="'weight' of head is shared with 'table' of the backbone"):
        exact_head(table, loader(x, x % 5), head=tied)
    apart = torch.randn(9, 4)  # one piece of memory, and no number of it in both
    embedding.weight = torch.nn.Parameter(apart[:5])
    part.weight = torch.nn.Parameter(apart[5:8])
    exact_head(torch.nn.Sequential(embedding), loader(x, x % 3), head=part)


def test_batch_statistics_of_the_same_batches_are_the_same_features():
    """What the page says is not noticed: a function that leaves a batch normalisation in training mode."""
    torch.manual_seed(0)
    norm, (x, y) = torch.nn.BatchNorm1d(10, dtype=torch.float64), rows()
    assert exact_head(lambda x: norm(x), loader(x, y)).passes == 2
    assert norm.training


def test_a_class_without_rows_keeps_its_place():
    net, (x, y) = network(), rows()
    labels = 2 * (y[:, 0] > 0).long()
    result = exact_head(net, loader(x, labels), alpha=1.0)
    assert result.classes == (0, 1, 2)
    assert set(result.head(net.eval()(x)).argmax(1).tolist()) == {0, 2}
    np.testing.assert_allclose(result.weight[1], 0.0, atol=1e-14)


X, Y = rows()
LABELS = Y.argmax(1)
BAD = [
    ([], {}, "no batches"),
    (iter([(X, Y)]), {}, "can be read only once"),
    (TensorDataset(X, Y), {}, "gives single rows.*DataLoader"),
    (3, {}, "is a int; batches are read by iterating"),
    ([(X,)], {}, "tuple of length 1"),
    ([X], {}, "a batch is a Tensor"),
    ([(X, Y)], {"head": torch.nn.Linear(16, 2)}, r"2 output\(s\), but the targets have 3"),
    ([(X, Y)], {"head": torch.nn.Linear(15, 3)}, "takes 15 .* to 3 .*, but the backbone gives 16"),
    ([(X, LABELS)], {"head": torch.nn.Linear(16, 2)}, r"label 2 in row \d+ of batch 0 is too large"),
    ([(X, LABELS - 1)], {}, r"label in row \d+ of batch 0 is -1"),
    ([(X, LABELS), (X, LABELS + 0.5)], {"task": "classification"}, r"label in row 0 of batch 1 is \d\.5"),
    ([(X, 0 * LABELS)], {}, "all labels are 0"),
    ([(X, Y)], {"loss": "logistic"}, "row 0 of batch 0 is not one-hot"),
    ([(X, Y)], {"loss": "logistic", "task": "regression"}, "tells classes apart"),
    ([(X, Y)], {"task": "regresion"}, "Did you mean 'regression'"),
    ([(X, Y), (X, Y[:, :2])], {}, r"batch 1 has 2 target\(s\) per row; the first batch has 3"),
    ([(X, Y), (X, Y / 0)], {}, "target in row 0 of batch 1 is NaN"),
    ([(X, Y), (X, Y[:5])], {}, r"batch 1 has features of shape \(400, 16\) for 5 target"),
    ([(X, Y), (X, Y, Y[:, 0])], {}, "batch 1 has weights, but the first has none"),
    ([(X, Y, Y[:, 0])], {}, "the weight of row"),
    (
        [(X, Y, torch.ones(400)), (X, Y, torch.full((400,), 0.5))],
        {"weights_are": "frequency"},
        r"needs whole numbers.*row 0 of batch 1 has weight 0\.5",
    ),
    ([(X, Y)], {"weights_are": "counts"}, "weights_are must be 'analytic'"),
    ([(X, Y, Y)], {}, r"batch 0 has weights of shape \(400, 3\)"),
    ([(X, Y)], {"head": torch.nn.Conv1d(1, 1, 1)}, "head is a Conv1d"),
    ([(X, Y)], {"head": torch.nn.LazyLinear(3)}, "head is lazy"),
    ([(X, Y)], {"head": weight_norm(torch.nn.Linear(16, 3))}, "parametrisation"),
    ([(X, Y)], {"head": torch.nn.Linear(16, 3, bias=False), "fit_intercept": True}, "no bias to hold it"),
    ([(X, Y)], {"head": torch.nn.Linear(16, 3), "dtype": torch.float64}, "is for a new layer"),
    ([(X, Y)], {"keys": "xy"}, "must be"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "message"), BAD, ids=[m for *_, m in BAD])
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_bad_input_is_refused(data, options, message):
    before = [None if p is None else p.clone() for p in _own(options.get("head"))]
    with pytest.raises(InputError, match=message):
        exact_head(network(), data, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, _own(options.get("head")), strict=True))


def _own(head):
    return list(head.parameters()) if isinstance(head, torch.nn.Linear) and head.in_features else []


def test_features_that_are_not_finite_are_named():
    def broken(v):
        f = network().eval()(v).detach()
        f[v[:, 0] == X[77, 0]] = torch.inf
        return f

    for options in ({"alpha": "gcv"}, {"loss": "logistic"}):
        data = loader(X, LABELS if "loss" in options else Y)
        with pytest.raises(
            InputError, match=r"16 NaN or infinite value\(s\) in batch 1, first in its row 13"
        ):
            exact_head(broken, data, **options)


def test_backbones_that_give_no_features():
    net = network()
    with pytest.raises(InputError, match="gives a tuple for batch 0"):
        exact_head(lambda v: (v, v), loader(X, Y))
    with pytest.raises(InputError, match=r"shape \(64,\) for batch 0"):
        exact_head(lambda v: v[:, 0], loader(X, Y))
    with pytest.raises(InputError, match="head is a part of the backbone"):
        exact_head(net, loader(X, Y), head=net[0])


def test_weights_too_large_for_the_head_are_not_written():
    head = torch.nn.Linear(10, 3, dtype=torch.float16)
    before = head.weight.clone()
    with pytest.raises(InputError, match=r"too large for a layer in float16 \(at most 6\.55e\+04\)"):
        exact_head(lambda v: v * 1e-7, [(X, Y)], head=head, alpha=0.0)
    assert torch.equal(before, head.weight)


def test_no_bias():
    net = network()
    head = torch.nn.Linear(16, 3, bias=False, dtype=torch.float64)
    model = Ridge(fit_intercept=False).fit(features(net, X), Y.numpy())
    agree(exact_head(net, loader(X, Y), head=head), model.coef_, [0, 0, 0])
    kept = torch.nn.Linear(16, 3, dtype=torch.float64)
    assert not exact_head(net, loader(X, Y), head=kept, fit_intercept=False).head.bias.any()
    assert exact_head(net, loader(X, Y), fit_intercept=False).head.bias is None


def test_summary_tells_alpha_and_passes():
    result = exact_head(network(), loader(X, Y))
    assert "leave-one-out" in result.summary()
    assert result.summary().endswith("The network ran over all batches 2 times.")
    assert result.fit.certificate.digits > 10
    assert Status.MOMENTS_ONLY in result.fit.status
    assert "ran over all batches once" in exact_head(network(), loader(X, Y), alpha=1.0).summary()


# Ridge on tensors.

KINDS = {
    "plain": lambda x: x,
    "float32": lambda x: x.float(),
    "bfloat16": lambda x: x.bfloat16(),
    "gradients": lambda x: x.clone().requires_grad_(),
    "strided": lambda x: torch.cat([x, x], 1)[:, ::2],
    "transposed": lambda x: x.T.contiguous().T,
    "integers": lambda x: (10 * x).long(),
}


@pytest.mark.parametrize(
    ("kind", "rule", "where"),
    dealt(
        list(KINDS),
        ["loo", "kfold", "gcv", "reml", 2.0, LOO(one_se=True), LOO(scoring="r2")],
        ["cpu", "device"],
    ),
)
def test_ridge_takes_tensors(kind, rule, where, monkeypatch):
    tensor, y = KINDS[kind](X), Y
    array = tensor.detach().double().numpy()
    w = torch.rand(400, generator=torch.Generator().manual_seed(0))
    if where == "device":  # the code for a GPU, on tensors of the CPU
        monkeypatch.setattr(tensors, "HOST", ())
    for weights, are in ((None, "analytic"), (w, "analytic"), ((3 * w).long(), "frequency")):
        given = None if weights is None else weights.numpy()
        want = Ridge(rule, random_state=0, weights_are=are).fit(array, y.numpy(), sample_weight=given)
        got = Ridge(rule, random_state=0, weights_are=are).fit(tensor, y, sample_weight=weights)
        np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-8 * np.abs(want.coef_).max())
        np.testing.assert_allclose(got.predict(tensor), want.predict(array), atol=1e-7)
        assert got.n_features_in_ == 10
    one = Ridge(rule).fit(tensor, y[:, 0])
    assert one.coef_.shape == (10,)
    assert one.predict(tensor).shape == (400,)
    assert got.score(tensor, y.numpy()) == pytest.approx(want.score(array, y.numpy()), abs=1e-10)


def test_other_estimators_take_tensors_of_the_cpu():
    x = X.bfloat16().requires_grad_()
    want = LogisticRegression(1.0).fit(x.detach().float().numpy(), LABELS.numpy())
    got = LogisticRegression(1.0).fit(x, LABELS, sample_weight=torch.ones(400, requires_grad=True))
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-9)
    np.testing.assert_array_equal(got.predict(x), want.predict(x.detach().float().numpy()))


@pytest.mark.parametrize("shape", [(60, 10), (30, 50), (300, 310), (12, 12)])
@pytest.mark.parametrize("rule", ["loo", "kfold", "gcv", 2.0])
def test_few_and_wide_tensors_and_features(shape, rule, monkeypatch):
    x, y = rows(*shape)
    want = Ridge(rule, random_state=0).fit(x.numpy(), y.numpy())
    agree(exact_head(lambda v: v, loader(x, y), alpha=rule), want.coef_, want.intercept_, 1e-8)
    monkeypatch.setattr(tensors, "HOST", ())
    got = Ridge(rule, random_state=0).fit(x, y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-8 * np.abs(want.coef_).max())


def test_products_of_tensors_are_made_where_they_are(monkeypatch):
    monkeypatch.setattr(tensors, "HOST", ())
    monkeypatch.setattr(TensorSource, "blocks", lambda self: pytest.fail("rows came to the host"))
    model = Ridge().fit(X, Y)
    assert model.fit_.solver == "spectral"
    np.testing.assert_allclose(model.coef_, Ridge().fit(X.numpy(), Y.numpy()).coef_, rtol=1e-9)


def test_prior_of_tensors(monkeypatch):
    want = Ridge(prior=np.ones(10)).fit(X.numpy() + 100, Y.numpy())
    monkeypatch.setattr(tensors, "HOST", ())
    got = Ridge(prior=np.ones(10)).fit(X + 100, Y)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=0, atol=1e-9)


def test_tensors_that_cannot_be_used(monkeypatch):
    monkeypatch.setattr(tensors, "HOST", ())
    with pytest.raises(
        InputError, match=r"tensor on cpu, where RidgeClassifier does not compute. Give X.cpu"
    ):
        RidgeClassifier().fit(X, LABELS)
    with pytest.raises(InputError, match="400 rows but y has shape"):
        Ridge().fit(X, Y[:5])
    with pytest.raises(InputError, match=r"NaN or infinity: 1 value\(s\) in column\(s\) 'x3'"):
        Ridge().fit(torch.where(torch.arange(4000).view(400, 10) == 13, torch.nan, X), Y)
    with pytest.raises(InputError, match="y contains 3 value"):
        Ridge().fit(X, torch.where(torch.arange(400)[:, None] == 13, torch.nan, Y))
    with pytest.raises(InputError, match=r"X has shape \(400, 4\); the model has 10"):
        Ridge().fit(X, Y).predict(X[:, :4])


def test_batches_of_tensors_by_partial_fit(monkeypatch):
    want = (
        Ridge("gcv")
        .partial_fit(X[:200].numpy(), Y[:200].numpy())
        .partial_fit(X[200:].numpy(), Y[200:].numpy())
    )
    monkeypatch.setattr(tensors, "HOST", ())
    got = Ridge("gcv").partial_fit(X[:200], Y[:200]).partial_fit(X[200:], Y[200:])
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-9)


@pytest.mark.parametrize("kind", ["analytic", "frequency"])
def test_folds_of_weight_zero_count_for_nothing(kind):
    weights = np.ones(400)
    weights[100:180] = 0
    split = [(np.r_[0:100, 180:300], np.r_[100:180]), (np.r_[0:180], np.r_[180:400])]
    for cv in (KFold(5), KFold(split)):
        want = Ridge(cv, weights_are=kind).fit(X.numpy(), Y.numpy(), sample_weight=weights)
        got = fit_source(TensorSource(X, Y, weights, weights_are=kind), cv)
        np.testing.assert_allclose(got.coef.T, want.coef_, rtol=1e-9)


def test_tensor_source_keeps_the_contract():
    w = torch.rand(400)
    check_source(TensorSource(X.float(), Y, w), X.float().numpy(), Y.numpy(), w.numpy())


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e5])
@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_moments_of_tensors_keep_their_digits(scale, shift):
    x = X * scale + shift * scale
    reference = Ridge(0.0, solver="orthogonal").fit((X * scale).numpy() + shift * scale, Y.numpy())
    fit = fit_source(TensorSource(x, Y), 0.0)
    lost = 1e-12 * max(1.0, shift)
    np.testing.assert_allclose(fit.coef.T, reference.coef_, rtol=0, atol=lost * np.abs(reference.coef_).max())


# Against a head that is trained.


def _trained(F, y, loss, settings, epochs=200):
    """Return heads trained by AdamW with each (lr, weight decay) on the same batches of 128 rows."""
    torch.manual_seed(0)
    heads = [torch.nn.Linear(F.shape[1], 10) for _ in settings]
    groups = [
        {"params": h.parameters(), "lr": lr, "weight_decay": wd}
        for h, (lr, wd) in zip(heads, settings, strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, foreach=True)
    for _ in range(epochs):
        for b in torch.randperm(len(F)).split(128):
            optimizer.zero_grad()
            torch.stack([loss(h(F[b]), y[b]) for h in heads]).sum().backward()
            optimizer.step()
    return heads


@pytest.mark.parametrize("kind", ["squared", "logistic"])
def test_no_worse_than_200_epochs_of_a_tuned_head(kind):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, held_out = order[:600], order[600:]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU()).requires_grad_(False)
    F = net(x)

    def loss(eta, labels):
        if kind == "logistic":
            return functional.cross_entropy(eta, labels)
        return ((eta - 2.0 * functional.one_hot(labels, 10) + 1) ** 2).mean()

    settings = [(lr, wd) for lr in (3e-3, 1e-2) for wd in (1e-3, 1e-1)]
    tuning, checked = train[:480], train[480:]
    with torch.no_grad():
        scores = [loss(h(F[checked]), y[checked]) for h in _tuned(F, y, loss, tuning, settings)]
    (best,) = _tuned(F, y, loss, train, [settings[int(torch.stack(scores).argmin())]])
    alpha = "loo" if kind == "squared" else LOO(np.logspace(-2, 1, 4))
    head = exact_head(net, loader(x[train], y[train]), alpha=alpha, loss=kind).head
    with torch.no_grad():
        assert loss(head(F[held_out]), y[held_out]) <= loss(best(F[held_out]), y[held_out])


def _tuned(F, y, loss, rows, settings):
    with torch.enable_grad():
        return _trained(F[rows], y[rows], loss, settings)
