"""`suggest`, `rescale` and the schedules behind them."""

import dataclasses
import math

import numpy as np
import pytest

from elltwo.errors import InputError
from elltwo.weight_decay.schedules import SCHEDULES, learning_rates, peak_rate, total_shrinkage
from elltwo.weight_decay.timescale import rescale, suggest

EPOCHS = {"tau_epochs": 4, "lr": 0.01, "n": 1000, "batch_size": 50}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 3])
def test_schedules_rise_to_the_peak_and_fall_as_stated(name, warmup):
    rates = learning_rates(0.2, name, 13, warmup=warmup)
    share = np.arange(13 - warmup) / (12 - warmup)
    falls = {"constant": 1 + 0 * share, "linear": 1 - share, "cosine": np.cos(np.pi * share / 2) ** 2}
    np.testing.assert_allclose(rates[warmup:], 0.2 * falls[name], atol=1e-15)
    np.testing.assert_allclose(rates[:warmup], 0.2 * np.arange(1, warmup + 1) / max(warmup, 1))
    assert rates.max() == peak_rate(0.2, name, None) == 0.2


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_final_is_the_share_of_the_peak_that_the_schedule_falls_to(name):
    for steps, warmup in ((2, 0), (5, 0), (5, 3), (10_000, 100)):
        rates = learning_rates(0.2, name, steps, warmup=warmup, final=0.1)
        assert rates[-1] == pytest.approx(0.02, rel=1e-12)
        assert rates[warmup] == 0.2
    assert learning_rates(0.2, name, 1, final=0.1) == [0.2]


def test_a_sequence_and_a_callable_hold_the_rates_themselves():
    given = [0.1, 0.3, 0.2]
    np.testing.assert_array_equal(learning_rates(None, given), given)
    np.testing.assert_array_equal(learning_rates(None, lambda step: given[step], 3), given)
    assert given == [0.1, 0.3, 0.2]


def test_total_shrinkage_is_what_decay_alone_leaves():
    w, rates = 1.0, learning_rates(0.5, "cosine", 50, warmup=5)
    for rate in rates:
        w -= rate * 0.1 * w
    assert total_shrinkage(0.1, rates) == pytest.approx(w, rel=1e-12)
    assert total_shrinkage(1e-4, rates) == pytest.approx(math.exp(-1e-4 * rates.sum()), rel=1e-4)


def test_the_averaging_time_comes_back():
    advice = suggest(**EPOCHS)
    assert 1 / (0.01 * advice.value) == pytest.approx(4 * 1000 / 50)
    assert (advice.averaging_steps, advice.averaging_epochs) == (80, 4)
    assert advice.shrinkage is None


def test_the_weights_are_the_average_of_updates_that_the_rule_says():
    """After many steps, the share of the last τ updates in w is 1 − 1/e."""
    advice = suggest(**(EPOCHS | {"tau_epochs": 40}))
    factor = 1 - 0.01 * advice.value
    ages = factor ** np.arange(100_000)
    recent = ages[: round(advice.averaging_steps)].sum() / ages.sum()
    assert recent == pytest.approx(1 - math.exp(-1), rel=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_mean_rate_gives_every_schedule_the_same_total_shrinkage(name):
    advice = suggest(**EPOCHS, schedule=name, steps=4000, warmup=100, rate="mean")
    assert math.log(advice.shrinkage) == pytest.approx(-4000 / 80, rel=0.02)


@pytest.mark.parametrize("given", [[0.1, *9 * [0.01]], "linear"])
def test_the_mean_rate_is_the_mean_over_all_steps(given):
    """Over T steps Σlr·wd = T/τ: the total decay, summed up by hand."""
    lr, shape, rates = None, {}, given
    if given == "linear":
        lr, shape = 0.1, {"steps": 10, "warmup": 4}
        rates = [0.1 * k / 4 for k in (1, 2, 3, 4)] + [0.1 * (1 - k / 5) for k in range(6)]
    advice = suggest(tau_epochs=2, lr=lr, n=100, batch_size=10, schedule=given, rate="mean", **shape)
    assert sum(rates) * advice.value == pytest.approx(10 / 20, rel=1e-12)


def test_the_peak_rate_ignores_the_shape_of_the_schedule():
    values = {suggest(**EPOCHS, schedule=name, steps=4000).value for name in SCHEDULES}
    assert len(values) == 1
    rates = learning_rates(0.01, "cosine", 4000)
    given = suggest(**(EPOCHS | {"lr": None}), schedule=rates)
    assert {given.value} == values


def test_tokens_follow_the_power_law():
    advice = suggest(tokens=2e9, parameters=1e8, lr=2e-3, batch_size=5e5, schedule="linear")
    steps = 2e9 / 5e5
    assert advice.averaging_steps == pytest.approx(1.084 * 20**-0.527 * steps)
    assert advice.value == pytest.approx(1 / (2e-3 * advice.averaging_steps))
    same = suggest(tokens=2e9, parameters=1e8, lr=2e-3, steps=4000, schedule="linear")
    assert same.value == advice.value
    assert "2505.13738" in advice.sources[0]


def test_an_averaging_time_outside_the_useful_range_is_said_to_be():
    assert "useful range" not in suggest(**EPOCHS, steps=200).why
    assert "useful range" in suggest(**(EPOCHS | {"tau_epochs": 0.5})).why
    assert "10 epochs" in suggest(**(EPOCHS | {"tau_epochs": 11}), steps=200).why


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"batch_size": (50, 200)}, 4),
        ({"n": (1000, 4000)}, 1 / 4),
        ({"lr": (0.01, 0.02)}, 1 / 2),
        ({"batch_size": (50, 200), "lr": (0.01, 0.04)}, 1),
        ({"width": (256, 1024)}, 4),
        ({"width": (256, 1024), "width_rule": "sqrt"}, 2),
    ],
)
def test_rescaling_follows_the_stated_rule(change, factor):
    assert rescale(0.1, **change).value == pytest.approx(0.1 * factor)


def test_rescaling_is_suggesting_at_the_same_averaging_time():
    first = suggest(**EPOCHS)
    second = suggest(tau_epochs=4, lr=0.003, n=7000, batch_size=200)
    moved = rescale(first.value, lr=(0.01, 0.003), n=(1000, 7000), batch_size=(50, 200))
    assert moved.value == pytest.approx(second.value)


def test_rescaling_tokens_is_suggesting_under_the_power_law():
    small = {"tokens": 2e9, "parameters": 1e8, "batch_size": 5e5}
    large = {"tokens": 9e10, "parameters": 1e9, "batch_size": 1e6}
    moved = rescale(
        suggest(**small, lr=2e-3).value,
        **{name: (small[name], large[name]) for name in small},
        lr=(2e-3, 1e-3),
    )
    assert moved.value == pytest.approx(suggest(**large, lr=1e-3).value, rel=1e-9)


def test_linear_width_keeps_the_product_with_the_learning_rate():
    wide = rescale(0.1, width=(256, 1024))
    assert wide.value * (0.01 * 256 / 1024) == pytest.approx(0.1 * 0.01)
    assert "two papers differ" in wide.sure


@pytest.mark.parametrize(
    "advice",
    [
        suggest(**EPOCHS, steps=400),
        suggest(tokens=1e9, parameters=1e8, lr=1e-3, steps=100),
        rescale(0.1, batch_size=(1, 2), width=(1, 2)),
    ],
    ids=["epochs", "tokens", "rescale"],
)
def test_advice_is_a_frozen_number_with_its_sources(advice):
    assert float(advice) == advice.value
    with pytest.raises(dataclasses.FrozenInstanceError):
        advice.value = 1.0
    text = str(advice)
    assert all(len(line) <= 100 for line in text.splitlines())
    for part in ("weight decay ", "formula:", "why:", "sure:", "source:", "arXiv:"):
        assert part in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_epochs": None}, "Give either tau_epochs"),
        ({"tokens": 1e9}, "Give either tau_epochs"),
        ({"tau_epochs": 0}, "tau_epochs is 0"),
        ({"n": None}, "needs n and batch_size"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"lr": None}, "lr"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"rate": "median"}, "rate='median'"),
        ({"rate": "mean"}, "give steps"),
        ({"warmup": 5}, "give steps"),
        ({"warmup": 5, "steps": 5}, "leaves no step"),
        ({"final": 2.0, "steps": 5, "schedule": "linear"}, "final=2.0"),
        ({"final": 0.1, "steps": 5}, "no meaning"),
        ({"schedule": [0.1, 0.2]}, "leave out lr"),
        ({"schedule": [0.1, -0.2], "lr": None}, "at least 0"),
        ({"schedule": [], "lr": None}, "at least 0"),
        ({"schedule": [0.1, 0.2], "lr": None, "steps": 3}, "leave out steps"),
        ({"schedule": lambda step: 0.1, "lr": None}, "steps=None"),
        ({"tau_epochs": None, "tokens": 1e9, "steps": 10, "batch_size": None}, "needs parameters"),
        ({"tau_epochs": None, "tokens": 1e9, "parameters": 1e8, "batch_size": None}, "needs steps"),
        ({"tau_epochs": None, "tokens": 1e9, "parameters": 1e8, "steps": 7}, "Leave one of the two out"),
        ({"tau_epochs": None, "tokens": 5e4, "parameters": 1e4, "steps": 1100}, "1000 steps, and steps=1100"),
        ({"tau_epochs": None, "tokens": 5e4, "parameters": 1e4, "steps": 900}, "1000 steps, and steps=900"),
        ({"tau_epochs": None, "tokens": 1e9, "parameters": 1e8, "rate": "mean"}, "peak learning rate"),
    ],
)
def test_suggest_errors_name_the_argument(change, message):
    with pytest.raises(InputError, match=message):
        suggest(**(EPOCHS | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "Nothing changes"),
        ({"n": 1000}, "pair"),
        ({"n": (0, 1)}, r"n\[0\] is 0"),
        ({"lr": (1, math.inf)}, r"lr\[1\] is inf"),
        ({"width": (1, 2), "lr": (1, 2)}, "not both"),
        ({"width": (1, 2), "width_rule": "cubic"}, "width_rule='cubic'"),
        ({"n": (1, 2), "width_rule": "sqrt"}, "give width"),
        ({"n": (1, 2), "tokens": (1, 2)}, "one kind"),
        ({"value": 0, "n": (1, 2)}, "value is 0"),
    ],
)
def test_rescale_errors_name_the_argument(change, message):
    with pytest.raises(InputError, match=message):
        rescale(**({"value": 0.1} | change))
