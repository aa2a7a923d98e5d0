"""`DecayMonitor` measures what decay does in every optimiser, and says what is wrong, once."""

import copy
import math
import random
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from elltwo.errors import InputError, MissingPackageError
from elltwo.plot.decay import decay_figure
from elltwo.torch import DecayMonitor, explain, param_groups
from elltwo.weight_decay.measure import expected_rotation
from elltwo.weight_decay.optimizers import OPTIMIZERS
from elltwo.weight_decay.records import COLUMNS, DecayRecord
from elltwo.weight_decay.warnings import WeightDecayWarning

LR, WD = 0.02, 0.3
DECOUPLED = {"decoupled_weight_decay": True}
CASES = [
    (entry.name, DECOUPLED if entry.setting else {}, entry.kind)
    for entry in OPTIMIZERS
    if entry.framework == "torch" and entry.kind in ("coupled", "decoupled")
]
COUPLED = [(name, more) for name, more, kind in CASES if kind == "coupled"]


def network(*, seed=0, width=6, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = nn.Linear(5, width, bias=False), nn.Tanh(), nn.Linear(width, 3, bias=False)
    return nn.Sequential(*layers).to(dtype)


def data(seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(20, 5, generator=generator, dtype=torch.float64).to(dtype)


def gradient(model, X):
    model.zero_grad()
    model(X).sub(1.0).square().mean().backward()


def train(model, optimizer, steps, X=None):
    X = data(dtype=next(model.parameters()).dtype) if X is None else X
    for _ in range(steps):
        gradient(model, X)
        optimizer.step()


def make(name, parameters, *, weight_decay=WD, **more):
    return getattr(torch.optim, name)(parameters, lr=LR, weight_decay=weight_decay, **more)


# ---------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize(("name", "more"), [(n, m) for n, m, kind in CASES if kind == "decoupled"])
def test_decoupled_decay_is_lr_times_weight_decay(name, more):
    model = network()
    optimizer = make(name, model.parameters(), **more)
    with DecayMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 4)
    columns = monitor.record.columns
    np.testing.assert_allclose(columns["decay"], LR * WD, rtol=1e-6)
    np.testing.assert_allclose(columns["decay_norm"], LR * WD * np.array(columns["weight_norm"]), rtol=1e-6)


@pytest.mark.parametrize(("name", "more"), COUPLED)
def test_coupled_decay_is_what_the_penalty_in_the_gradient_makes_of_the_step(name, more):
    """Brute force: after three plain steps, one with weight_decay against one with wd·w in the gradient."""
    model, X = network(), data()
    optimizer = make(name, model.parameters(), **more)
    monitor = DecayMonitor(model, optimizer, every=3)
    train(model, optimizer, 3, X)
    state, weights = copy.deepcopy([optimizer.state_dict(), model.state_dict()])
    after = []
    for penalty in (WD, 0.0):
        twin = network()
        twin.load_state_dict(weights)
        other = make(name, twin.parameters(), weight_decay=0.0, **more)
        other.load_state_dict(copy.deepcopy(state))
        for group in other.param_groups:
            group["weight_decay"] = 0.0
        gradient(twin, X)
        for p in twin.parameters():
            p.grad += penalty * p.detach()
        other.step()
        after.append(dict(twin.named_parameters()))
    train(model, optimizer, 1, X)
    for layer, w in weights.items():
        change = (after[1][layer] - after[0][layer]).detach()
        rows = monitor.record.of(layer)
        assert rows["step"].tolist() == [0, 3]
        assert rows["decay"][1] == pytest.approx(float((w * change).sum() / (w * w).sum()), rel=1e-6)
        assert rows["decay_norm"][1] == pytest.approx(float(change.norm()), rel=1e-6)
        assert rows["update_norm"][1] == pytest.approx(float((after[0][layer].detach() - w).norm()), rel=1e-9)


@pytest.mark.parametrize(("name", "more"), [(n, m) for n, m, _ in CASES])
def test_the_first_step_is_that_of_the_table(name, more):
    model, X = network(), data()
    before = {k: v.clone().numpy() for k, v in model.state_dict().items()}
    gradient(model, X)
    gradients = {k: p.grad.clone().numpy() for k, p in model.named_parameters()}
    optimizer = make(name, model.parameters(), **more)
    monitor = DecayMonitor(model, optimizer, every=1)
    train(model, optimizer, 3, X)
    setting = "decoupled_weight_decay=True" if more else ""
    entry = next(e for e in OPTIMIZERS if (e.framework, e.name, e.setting) == ("torch", name, setting))
    for layer, w in before.items():
        stated = entry.first_decay(w, gradients[layer], lr=LR, weight_decay=WD)
        assert monitor.record.of(layer)["decay"][0] == pytest.approx(
            np.sum(w * stated) / np.sum(w * w), rel=1e-5, abs=1e-6 * LR * WD
        )


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_gain_of_momentum_is_the_total_over_the_first_part(nesterov):
    """Without gradients, SGD's weights shrink by what decay alone does: 1/(1 − μ) of a step's rate in all."""
    momentum, weight_decay = 0.8, 1e-3
    w = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=0.1, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)
    monitor = DecayMonitor(nn.ParameterList([w]), optimizer, every=1)
    for _ in range(400):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    monitor.detach()
    assert monitor.record.total("0") == pytest.approx(0.1 * weight_decay / (1 - momentum) * 400, rel=1e-9)
    assert -math.log(w[0, 0].item()) == pytest.approx(monitor.record.total("0"), rel=0.02)


@pytest.mark.parametrize("more", [{"foreach": True}, {"fused": True}, {"foreach": False, "amsgrad": True}])
def test_every_implementation_of_adamw_is_measured_and_left_alone(more):
    """A watched run ends with the same weights, bit for bit, as one that is not watched."""
    watched, alone = network(), network()
    optimizer = make("AdamW", watched.parameters(), **more)
    with DecayMonitor(watched, optimizer, every=2) as monitor:
        train(watched, optimizer, 7)
    train(alone, make("AdamW", alone.parameters(), **more), 7)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert monitor.record.of("0.weight")["step"].tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(monitor.record.columns["decay"], LR * WD, rtol=1e-6)


def test_norms_and_angle_are_those_of_the_step():
    model, X = network(), data()
    before = model[0].weight.detach().clone()
    optimizer = make("AdamW", model.parameters())
    with DecayMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 1, X)
        g = model[0].weight.grad.clone()
    after, rows = model[0].weight.detach(), monitor.record.of("0.weight")
    cosine = float((before * after).sum() / before.norm() / after.norm())
    stated = {
        "weight_norm": float(before.norm()),
        "gradient_norm": float(g.norm()),
        "update_norm": float((after - before).norm()),
        "radial": float((before * g).sum() / before.norm() / g.norm()),
        "rotation": math.acos(cosine),
        "size": before.numel(),
        "lr": LR,
        "weight_decay": WD,
    }
    for name, value in stated.items():
        assert rows[name][0] == pytest.approx(value, rel=1e-7), name


def test_a_closure_is_evaluated_once_a_step_and_measured():
    model, X, calls = network(), data(), []
    optimizer = make("SGD", model.parameters(), momentum=0.9)

    def closure():
        calls.append(1)
        gradient(model, X)
        return 0.0

    with DecayMonitor(model, optimizer, every=1) as monitor:
        for _ in range(3):
            optimizer.step(closure)
    assert len(calls) == 3
    np.testing.assert_allclose(monitor.record.columns["decay"], LR * WD, rtol=1e-6)


def test_lbfgs_has_no_decay_of_its_own():
    model, X = network(), data()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure():
        gradient(model, X)
        return model(X).sub(1.0).square().mean()

    with DecayMonitor(model, optimizer, every=1) as monitor:
        optimizer.step(closure)
    assert set(monitor.record.columns["weight_decay"]) == {0.0}
    assert monitor.messages == []


# ------------------------------------------------------------------------- steps made, and totals


@pytest.mark.parametrize(("steps", "total"), [(1, 0.001), (10, 0.01), (11, 0.011), (21, 0.021)])
def test_the_total_is_over_the_steps_that_were_made(steps, total, tmp_path):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    monitor = DecayMonitor(model, optimizer, every=10)
    train(model, optimizer, steps)
    assert monitor.record.steps == {0: steps}
    assert monitor.record.total("0.weight") == pytest.approx(total, rel=1e-6)
    monitor.to_csv(tmp_path / "decay.csv")
    other = DecayMonitor(model, optimizer, every=10)
    other.load_state_dict(monitor.state_dict())
    for record in (DecayRecord.from_csv(tmp_path / "decay.csv"), other.record):
        assert record.steps == {0: steps}
        assert record.total("0.weight") == pytest.approx(total, rel=1e-6)


def test_the_total_with_a_schedule_and_two_optimisers():
    """Each sample's decay holds up to the next sample of its own optimiser."""
    model = network()
    first, second = make("AdamW", model[0].parameters()), make("SGD", model[2].parameters())
    monitor = DecayMonitor(model, [first, second], every=3)
    for step in range(8):
        gradient(model, data())
        first.param_groups[0]["lr"] = LR / (step + 1)
        first.step()
        if step % 2 == 0:
            second.step()
    expected = LR * WD * (3 + 3 / 4 + 2 / 7)
    assert monitor.record.total("0.weight") == pytest.approx(expected, rel=1e-6)
    assert monitor.record.total("2.weight") == pytest.approx(4 * LR * WD, rel=1e-6)


def test_an_optimiser_that_counts_anew_takes_nothing_away():
    model = network()
    optimizer = make("AdamW", model.parameters())
    monitor = DecayMonitor(model, optimizer, every=1)
    train(model, optimizer, 3)
    monitor._steps = [0]
    train(model, optimizer, 2)
    assert monitor.record.total("0.weight") == pytest.approx(5 * LR * WD, rel=1e-6)


def test_a_short_run_without_effect_is_told():
    """Three steps of 3e-4 make 0.0009, where ten would make 0.003."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.03)
    with pytest.warns(WeightDecayWarning, match=r"adds up to 0.0009"), DecayMonitor(model, optimizer):
        train(model, optimizer, 3)


# ------------------------------------------------------------- optimisers that are not made again


class Wrapping(torch.optim.Optimizer):
    """Leaves the step to another optimiser of the same parameters, as Lookahead does."""

    def __init__(self, parameters, hold):
        super().__init__(parameters, {"lr": LR, "weight_decay": WD})
        self.inner = hold(torch.optim.AdamW(self.param_groups))

    def step(self, closure=None):
        inner = self.inner
        if isinstance(inner, (list, tuple)):
            inner = inner[0]
        elif isinstance(inner, dict):
            inner = inner["base"]
        elif isinstance(inner, Holder):
            inner = inner.base
        inner.step() if isinstance(inner, torch.optim.Optimizer) else inner()


class Holder:
    def __init__(self, base):
        self.base = base


class Counting(torch.optim.SGD):
    """Keeps a tensor, or a list, that it changes in place and that its step depends on."""

    def __init__(self, parameters, count):
        super().__init__(parameters, lr=LR, weight_decay=WD)
        self.count = count

    def step(self, closure=None):
        self.count[0] += 1
        self.param_groups[0]["lr"] = LR / float(self.count[0])
        return super().step(closure)


class Noisy(torch.optim.SGD):
    """Draws from the global generators at each step."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            p.add_(torch.randn_like(p), alpha=0.01 * random.random() * np.random.random())  # noqa: NPY002


class NeedsClosure(torch.optim.SGD):
    """Evaluates the loss itself, as SAM does."""

    def step(self, closure=None):
        assert closure is not None, "a closure is needed"
        closure()
        return super().step()


def run(make_optimizer, *, watch, steps=6, closure=False):
    """Return the weights at the end, and the monitor."""
    model = network()
    optimizer = make_optimizer(model.parameters())
    monitor = DecayMonitor(model, optimizer, every=2) if watch else None
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    for _ in range(steps):
        gradient(model, data())
        optimizer.step(*[lambda: None] * closure)
    return [p.detach() for p in model.parameters()], monitor


@pytest.mark.parametrize(
    ("make_optimizer", "held"),
    [
        (lambda p: Wrapping(p, lambda base: base), "'inner' holds a AdamW"),
        (lambda p: Wrapping(p, lambda base: [base]), "'inner' holds a AdamW"),
        (lambda p: Wrapping(p, lambda base: {"base": base}), "'inner' holds a AdamW"),
        (lambda p: Wrapping(p, Holder), "'inner' holds a AdamW"),
        (lambda p: Wrapping(p, lambda base: base.step), "'inner' holds a AdamW"),
        (lambda p: Counting(p, torch.zeros(1)), "'count' holds a Tensor"),
        (lambda p: Counting(p, np.zeros(1)), "'count' holds a ndarray"),
    ],
)
def test_an_optimiser_that_a_copy_would_change_is_not_made_again(make_optimizer, held):
    alone, _ = run(make_optimizer, watch=False)
    with pytest.warns(WeightDecayWarning, match=f"not measured .* its attribute {held}"):
        watched, monitor = run(make_optimizer, watch=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert np.isnan(monitor.record.columns["decay"]).all()
    assert np.isfinite(monitor.record.columns["update_norm"]).all()
    assert len(monitor.messages) == 1


@pytest.mark.parametrize("make_optimizer", [Noisy, lambda p: Counting(p, [0])])
def test_numbers_drawn_and_plain_lists_are_left_alone(make_optimizer):
    def noisy(parameters):
        optimizer = make_optimizer(parameters)
        optimizer.param_groups[0].update(lr=LR, weight_decay=WD)
        return optimizer

    alone, _ = run(noisy, watch=False)
    after = torch.rand(1), random.random(), np.random.random()  # noqa: NPY002
    watched, monitor = run(noisy, watch=True)
    assert after == (torch.rand(1), random.random(), np.random.random())  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    rates = [LR / (s + 1) if make_optimizer is not Noisy else LR for s in monitor.record.columns["step"]]
    np.testing.assert_allclose(monitor.record.columns["decay"], np.array(rates) * WD, rtol=1e-6)
    assert monitor.messages == []


class Inheriting(torch.optim.SGD):
    """Its step calls that of SGD, and PyTorch calls the hooks for both; it can be made to fail."""

    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("out of memory")
        return super().step(closure)


def test_a_step_within_a_step_counts_once():
    model = network()
    make("SGD", model.parameters())  # only now has SGD.step hooks
    optimizer = Inheriting(model.parameters(), lr=LR, weight_decay=WD)
    monitor = DecayMonitor(model, optimizer, every=2)
    train(model, optimizer, 3)
    optimizer.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        train(model, optimizer, 1)
    optimizer.fails = False
    train(model, optimizer, 2)
    assert monitor.record.of("0.weight")["step"].tolist() == [0, 2, 4]
    assert monitor.record.steps == {0: 5}
    np.testing.assert_allclose(monitor.record.columns["decay"], LR * WD, rtol=1e-6)


def test_a_step_that_needs_a_closure_goes_on_unmeasured():
    def closing(parameters):
        return NeedsClosure(parameters, lr=LR, weight_decay=WD)

    alone, _ = run(closing, watch=False, closure=True)
    with pytest.warns(WeightDecayWarning, match="a copy of it failed .AssertionError: a closure is needed"):
        watched, monitor = run(closing, watch=True, closure=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert np.isnan(monitor.record.columns["decay"]).all()
    assert len(monitor.messages) == 1


def test_an_attribute_that_cannot_be_copied_goes_on_unmeasured():
    def locked(parameters):
        optimizer = torch.optim.SGD(parameters, lr=LR, weight_decay=WD)
        optimizer.lock = threading.Lock()
        return optimizer

    with pytest.warns(WeightDecayWarning, match="its state cannot be copied .TypeError"):
        _, monitor = run(locked, watch=True)
    assert np.isnan(monitor.record.columns["decay"]).all()


class NoHooks(torch.optim.Optimizer):
    def __init__(self, inner):
        self.inner = inner

    def step(self, closure=None):
        self.inner.step()


@pytest.mark.parametrize("wrap", [NoHooks, Holder, lambda o: [NoHooks(o)], lambda o: [Holder(o)]])
def test_an_optimiser_without_hooks_is_refused(wrap):
    model = network()
    with pytest.raises(InputError, match="if it wraps an optimiser, give that one"):
        DecayMonitor(model, wrap(make("SGD", model.parameters())))


# --------------------------------------------------------------------- how training is set up


def compiled(model):
    return torch.compile(model, backend="eager")


class Parallel(nn.parallel.DistributedDataParallel):
    """What of DistributedDataParallel can be had without a group of processes."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module

    def forward(self, x):
        return self.module(x)


@pytest.mark.parametrize("wrap", [nn.DataParallel, Parallel, compiled, lambda m: Parallel(compiled(m))])
def test_wrapped_models_have_the_names_and_warnings_of_plain_ones(wrap):
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    wrapped = wrap(model)
    optimizer = make("AdamW", wrapped.parameters())
    with pytest.warns(
        WeightDecayWarning, match=r"biases and normalisations \('0.bias', '1.bias', '1.weight'"
    ):
        monitor = DecayMonitor(wrapped, optimizer)
    train(model, optimizer, 1)
    assert monitor.record.layers() == [name for row in explain(wrapped).rows for name in row.names]


def test_groups_added_later_are_judged_at_the_next_sampled_step():
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).double()
    optimizer = make("AdamW", [model[0].weight])
    monitor = DecayMonitor(model, optimizer, every=2)
    train(model, optimizer, 1)
    optimizer.add_param_group({"params": [model[0].bias]})
    train(model, optimizer, 1)
    assert monitor.messages == []
    with pytest.warns(WeightDecayWarning, match=r"is on for biases \('0.bias'\)"):
        train(model, optimizer, 1)
    optimizer.add_param_group({"params": [model[1].bias]})
    with pytest.warns(WeightDecayWarning, match=r"is on for biases \('1.bias'\)"):
        train(model, optimizer, 2)
    train(model, optimizer, 4)
    assert len(monitor.messages) == 2


def test_groups_frozen_parameters_and_schedules():
    model, X = network(), data()
    model.append(nn.Linear(3, 2).double())
    model[2].weight.requires_grad_(False)
    groups = [
        {"params": [model[0].weight, model[2].weight], "weight_decay": WD},
        {"params": [model[3].weight], "lr": 0.05, "weight_decay": 0.1},
        {"params": [model[3].bias]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with DecayMonitor(model, optimizer, every=1) as monitor:
        for _ in range(3):
            train(model, optimizer, 1, X)
            schedule.step()
    halves = np.array([1.0, 0.5, 0.25])
    record = monitor.record
    assert record.layers() == ["0.weight", "3.weight", "3.bias"]
    np.testing.assert_allclose(record.of("0.weight")["decay"], LR * WD * halves, rtol=1e-6)
    np.testing.assert_allclose(record.of("3.weight")["decay"], 0.05 * 0.1 * halves, rtol=1e-6)
    assert record.of("3.bias")["decay"].tolist() == [0, 0, 0]
    assert monitor.messages == []


def test_several_optimisers_are_told_apart():
    model, X = network(), data()
    optimizers = [make("SGD", model[0].parameters()), make("Adagrad", model[2].parameters())]
    with DecayMonitor(model, optimizers, every=1) as monitor:
        for _ in range(2):
            gradient(model, X)
            for optimizer in optimizers:
                optimizer.step()
    assert monitor.record.columns["layer"] == ["0.weight", "2.weight"] * 2
    assert monitor.record.columns["optimizer"] == [0, 1, 0, 1]
    assert monitor.record.columns["step"] == [0, 0, 1, 1]


def test_gradient_accumulation_counts_steps_and_not_batches():
    model, X = network(), data()
    optimizer = make("AdamW", model.parameters())
    with DecayMonitor(model, optimizer, every=1) as monitor:
        for batch in range(6):
            model(X).sub(1.0).square().mean().div(3).backward()
            if batch % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.record.of("0.weight")["step"].tolist() == [0, 1]


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_grad_scaler_skips_do_not_count(fused):
    model, X = network(dtype=torch.float32), data(dtype=torch.float32)
    optimizer = make("AdamW", model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with DecayMonitor(model, optimizer, every=1) as monitor:
        for step in range(4):
            optimizer.zero_grad()
            loss = model(X).sub(1.0).square().mean()
            scaler.scale(loss * (math.inf if step == 1 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    rows = monitor.record.of("0.weight")
    assert rows["step"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(rows["decay"], LR * WD, rtol=1e-4)
    assert rows["gradient_norm"].max() < 10


def test_a_resumed_run_has_the_record_of_one_that_was_not_interrupted(tmp_path):
    whole = network()
    optimizer = make("Adam", whole.parameters())
    with DecayMonitor(whole, optimizer, every=2) as uninterrupted:
        train(whole, optimizer, 9)

    model = network()
    optimizer = make("Adam", model.parameters())
    first = DecayMonitor(model, optimizer, every=2)
    train(model, optimizer, 5)
    first.detach(judge=False)
    torch.save([model.state_dict(), optimizer.state_dict(), first.state_dict()], tmp_path / "checkpoint.pt")

    weights, state, kept = torch.load(tmp_path / "checkpoint.pt")
    model = network(seed=9)
    model.load_state_dict(weights)
    optimizer = make("Adam", model.parameters())
    optimizer.load_state_dict(state)
    with DecayMonitor(model, optimizer, every=2) as second:
        second.load_state_dict(kept)
        train(model, optimizer, 4)
    pd.testing.assert_frame_equal(
        pd.DataFrame(second.record.columns), pd.DataFrame(uninterrupted.record.columns), rtol=1e-12
    )


def test_detached_it_leaves_the_optimiser_alone():
    model = network()
    optimizer = make("AdamW", model.parameters())
    monitor = DecayMonitor(model, optimizer, every=1)
    train(model, optimizer, 1)
    monitor.detach()
    monitor.detach()
    train(model, optimizer, 2)
    assert len(monitor.record) == 2
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


# -------------------------------------------------------------------------------- equilibrium


class Normalised(nn.Module):
    """A layer whose norm does not matter, by a function that no module stands for, and one whose does."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(20, 16, bias=False), nn.Linear(16, 4, bias=False)

    def forward(self, x):
        return self.outer(torch.nn.functional.layer_norm(self.inner(x), (16,), eps=1e-12))


@pytest.mark.parametrize(
    ("name", "more", "formula"),
    [
        ("SGD", {}, math.sqrt(2 * LR * WD)),
        ("SGD", {"momentum": 0.9}, math.sqrt(2 * LR * WD / 1.9)),
        ("AdamW", {"betas": (0.9, 0.99)}, math.sqrt(2 * LR * WD * 0.1 / 1.9)),
        ("AdamW", {"betas": (0.0, 0.99)}, math.sqrt(2 * LR * WD)),
    ],
)
def test_weights_before_a_normalisation_turn_as_estimated(name, more, formula):
    """With gradients of random direction: layer norm of random inputs, towards random targets."""
    torch.manual_seed(0)
    model = Normalised()
    generator = torch.Generator().manual_seed(3)
    optimizer = make(name, model.parameters(), **more)
    with DecayMonitor(model, optimizer, every=10) as monitor:
        for _ in range(600):
            optimizer.zero_grad()
            X = torch.randn(32, 20, generator=generator)
            (torch.randn(32, 4, generator=generator) * model(X)).sum(dim=1).mean().backward()
            optimizer.step()
    record = monitor.record
    assert record.normalised("inner.weight")
    assert not record.normalised("outer.weight")
    measured, expected = record.equilibrium()["inner.weight"]
    assert expected == pytest.approx(formula, rel=1e-3)
    assert measured == pytest.approx(expected, rel=0.15)


def test_coupled_adam_has_no_estimate():
    torch.manual_seed(0)
    model = Normalised()
    optimizer = make("Adam", model.parameters())
    with DecayMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 5, torch.randn(32, 20))
    assert monitor.record.equilibrium() == {}
    assert math.isnan(expected_rotation(0.0, 0.9))


# ----------------------------------------------------------------------------------- warnings


def watched(model, optimizer, steps, planned=None):
    with DecayMonitor(model, optimizer, every=1, steps=planned) as monitor:
        train(model, optimizer, steps)
    return monitor.messages


def test_a_sound_run_says_nothing():
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    optimizer = torch.optim.AdamW(param_groups(model, WD), lr=LR)
    assert watched(model, optimizer, 20, planned=20) == []


def test_decayed_biases_and_norms_are_named():
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    with pytest.warns(
        WeightDecayWarning, match=r"biases and normalisations \('0.bias', '1.bias', '1.weight'"
    ):
        messages = watched(model, make("AdamW", model.parameters()), 4)
    assert len(messages) == 1


class IgnoresGroups(torch.optim.SGD):
    """An optimiser with a weight_decay in its groups that no step reads."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])


class NotReplayable(torch.optim.SGD):
    """An optimiser whose step depends on what is neither in its groups nor in its state."""

    calls = 0

    def step(self, closure=None):
        NotReplayable.calls += 1
        for group in self.param_groups:
            group["lr"] = LR * NotReplayable.calls
        return super().step(closure)


def test_an_optimiser_that_ignores_decay_is_named_once():
    model = network()
    with pytest.warns(WeightDecayWarning, match=r"IgnoresGroups subtracts nothing .* from '0.weight', '2.w"):
        messages = watched(model, IgnoresGroups(model.parameters(), lr=LR, weight_decay=WD), 8)
    assert len(messages) == 1


def test_decay_lost_to_rounding_is_told():
    """1 − lr·wd = 1 − 1e-4 is 1 in bfloat16, which has 8 bits."""
    model = network(dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    with pytest.warns(WeightDecayWarning, match="lost to rounding"):
        assert len(watched(model, optimizer, 4)) == 1


def test_a_step_that_cannot_be_made_again_is_not_measured():
    model = network()
    with pytest.warns(WeightDecayWarning, match="NotReplayable came out differently"):
        messages = watched(model, NotReplayable(model.parameters(), lr=LR, weight_decay=WD), 4)
    assert len(messages) == 1


def test_decay_that_adds_up_to_nothing_is_told_at_the_end_or_early():
    model = network()
    optimizer = make("AdamW", model.parameters(), weight_decay=1e-3)
    with pytest.warns(WeightDecayWarning, match=r"adds up to 0.0002 over this run"):
        assert len(watched(model, optimizer, 10)) == 1
    optimizer = make("AdamW", model.parameters(), weight_decay=1e-3)
    monitor = DecayMonitor(model, optimizer, every=1, steps=40)
    train(model, optimizer, 3)
    with pytest.warns(WeightDecayWarning, match=r"adds up to 0.0008 over this run"):
        train(model, optimizer, 1)
    monitor.detach()
    assert len(monitor.messages) == 1
    monitor = DecayMonitor(model, optimizer, every=1, steps=1000)
    train(model, optimizer, 200)
    assert monitor.messages == []


def test_decay_of_a_whole_weight_in_a_step_is_told():
    model = network()
    with pytest.warns(WeightDecayWarning, match=r"takes away 1 times the weight of '0.weight'"):
        assert len(watched(model, make("AdamW", model.parameters(), weight_decay=1 / LR), 2)) == 1


def test_weights_that_fade_away_are_told():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=3.0)
    with pytest.warns(WeightDecayWarning, match=r"norm of '0.weight' has fallen below 1%"):
        assert len(watched(model, optimizer, 60)) == 1


def test_zero_weights_and_zero_rates_are_no_fault():
    model = network()
    nn.init.zeros_(model[2].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, weight_decay=WD)
    monitor = DecayMonitor(model, optimizer, every=1)
    train(model, optimizer, 5)
    assert monitor.messages == []
    assert np.isnan(monitor.record.of("2.weight")["decay"]).all()


# ------------------------------------------------------------------------- file, picture, board


def test_the_csv_file_keeps_every_digit(tmp_path):
    model = network()
    optimizer = make("Adam", model.parameters())
    with DecayMonitor(model, optimizer, every=3) as monitor:
        train(model, optimizer, 7)
    monitor.to_csv(tmp_path / "decay.csv")
    again = DecayRecord.from_csv(tmp_path / "decay.csv")
    assert again.every == 3
    pd.testing.assert_frame_equal(
        pd.DataFrame(again.columns), pd.DataFrame(monitor.record.columns), check_exact=True
    )
    table = pd.read_csv(tmp_path / "decay.csv")
    assert list(table) == [*COLUMNS, "steps"]
    assert table["steps"].tolist() == [3, 3, 3, 3, 1, 1]
    assert again.total("0.weight") == monitor.record.total("0.weight")
    assert table["l2_decay"].isna().all()


def test_another_csv_file_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is not a record of weight decay"):
        DecayRecord.from_csv(tmp_path / "other.csv")


def test_the_picture_has_a_line_for_each_layer(tmp_path):
    torch.manual_seed(0)
    model = Normalised()
    optimizer = make("AdamW", model.parameters())
    with DecayMonitor(model, optimizer, every=1) as monitor:
        train(model, optimizer, 6, torch.randn(32, 20))
    figure = monitor.plot(tmp_path / "decay.png")
    assert (tmp_path / "decay.png").read_bytes()[1:4] == b"PNG"
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["inner.weight", "outer.weight", "dashed: expected at equilibrium (estimate)"]
    with pytest.raises(InputError, match="ends in one of png"):
        monitor.plot(tmp_path / "decay.txt")


def test_each_panel_draws_what_its_title_says():
    columns = {"step": [0, 10], "layer": ["head"] * 2, "size": [4] * 2}
    numbers = {
        "weight_norm": [4.0, 3.0],
        "gradient_norm": [0.5, 0.25],
        "decay": [0.01, 0.02],
        "l2_decay": [0.03, 0.04],
        "rotation": [0.2, 0.1],
        "expected_rotation": [np.nan, np.nan],
    }
    drawn = {ax.get_title(): ax.lines[0].get_ydata().tolist() for ax in decay_figure(columns | numbers).axes}
    assert drawn == {
        "weight norm ‖w‖": [4.0, 3.0],
        "gradient norm ‖g‖": [0.5, 0.25],
        "share of w taken away per step": [0.04, 0.06],
        "angle turned per step (radians)": [0.2, 0.1],
    }


def test_decay_of_what_the_model_exempts_is_warned_of():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    model[0].weight._no_weight_decay = True
    with pytest.warns(WeightDecayWarning, match=r"parameters that the model itself exempts \('0.weight'\)"):
        DecayMonitor(model, torch.optim.AdamW(model.parameters(), weight_decay=0.1))


def test_nothing_to_draw_is_an_error():
    model = network()
    with pytest.raises(InputError, match="no step was sampled"):
        DecayMonitor(model, make("SGD", model.parameters())).plot()


class Board:
    def __init__(self):
        self.scalars, self.flushed = [], False

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, value, step))

    def flush(self):
        self.flushed = True


def test_a_writer_gets_every_number():
    model, board = network(), Board()
    optimizer = make("AdamW", model.parameters())
    with DecayMonitor(model, optimizer, every=2, writer=board) as monitor:
        train(model, optimizer, 3)
    rows = monitor.record.of("0.weight")
    assert [(v, s) for tag, v, s in board.scalars if tag == "decay/0.weight"] == list(
        zip(rows["decay"], rows["step"], strict=True)
    )
    assert board.flushed


def test_a_folder_without_tensorboard_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.summary", None)
    model = network()
    with pytest.raises(MissingPackageError, match="pip install tensorboard"):
        DecayMonitor(model, make("SGD", model.parameters()), writer=tmp_path)


@pytest.mark.parametrize("bad", [{"every": 0}, {"every": 1.5}, {"every": True}, {"steps": -1}])
def test_numbers_of_steps_are_checked(bad):
    model = network()
    with pytest.raises(InputError, match=next(iter(bad))):
        DecayMonitor(model, make("SGD", model.parameters()), **bad)


def test_there_must_be_optimisers_and_those_of_the_state():
    model = network()
    with pytest.raises(InputError, match=r"needs a torch\.optim\.Optimizer"):
        DecayMonitor(model, [])
    monitor = DecayMonitor(model, make("SGD", model.parameters()))
    with pytest.raises(InputError, match="This state is of 2 optimisers"):
        monitor.load_state_dict({"steps": [1, 2]})
    with pytest.raises(InputError, match="no layer 'head'"):
        monitor.record.of("head")
