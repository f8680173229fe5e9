import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from caching.predict.taylor import TaylorPredictor
from caching.proxies.simulation import ProxySimulation, taylor_factors


def observe(function, times, order):
    predictor = TaylorPredictor(order)
    for time in times:
        predictor.observe(time, torch.full((1, 1, 1), function(time), dtype=torch.float64))
    return predictor


def test_order_0_repeats_the_last_value():
    assert observe(math.sin, [0.0, 0.3], 0).predict(0.5).item() == math.sin(0.3)


def test_order_1_is_exact_on_a_line_with_uneven_steps():
    predictor = observe(lambda time: 3 * time - 1, [0.9, 0.7, 0.4], 1)
    assert predictor.predict(0.1).item() == pytest.approx(-0.7)


def test_a_higher_order_is_closer_on_a_smooth_curve():
    errors = [
        abs(observe(math.exp, [0.9, 0.8, 0.7], order).predict(0.65).item() - math.exp(0.65)) for order in (0, 1, 2)
    ]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_part_is_extrapolated_like_the_whole(order):
    predictor = TaylorPredictor(order)
    for time in (0.9, 0.7, 0.4):
        predictor.observe(time, torch.randn(1, 5, 3))
    part = (slice(None), torch.tensor([4, 1]))
    assert torch.equal(predictor.predict(0.1, part), predictor.predict(0.1)[part])


def simulate(rate, num_steps, span, implicit):
    """Driven tokens under `y' = rate * y`; their proxy is truly denoised, by a backward Euler step of its own."""
    value = torch.ones(1, 2, 1, dtype=torch.float64)
    simulation = ProxySimulation.begin(
        [value, rate * value], 0.0, torch.tensor([0]), torch.tensor([0, 0]), gain=1.0, implicit=implicit
    )
    proxy = 1.0
    for step in range(1, num_steps + 1):
        proxy = proxy / (1 - span * rate)
        driven = simulation.advance(step * span, torch.full((1, 1, 1), proxy, dtype=torch.float64))
    return driven[0, :, 0]


@pytest.mark.parametrize("rate", [-0.5, -3.0, -40.0])
def test_implicit_order_1_is_backward_euler_on_the_linear_test_equation(rate):
    span, num_steps = 0.2, 12
    expected = torch.full((2,), (1 - span * rate) ** -num_steps, dtype=torch.float64)
    assert_close(simulate(rate, num_steps, span, implicit=True), expected)


def test_implicit_order_1_is_bounded_where_explicit_order_1_blows_up():
    """Section B.8: for h * |rate| = 8 the amplification factors are 1/9 and -7."""
    span, rate, explicit, implicit = 0.2, -40.0, 1.0, 1.0
    for _ in range(12):
        explicit = explicit + span * rate * explicit
        slope = rate * implicit / (1 - span * rate)  # the derivative at the new point
        implicit += taylor_factors(span, 1, implicit=True)[0] * slope
    assert abs(explicit) > 1e9
    assert abs(implicit) < 1e-9
    assert simulate(rate, 12, span, implicit=True).abs().max() < 1.0


def test_implicit_order_2_is_third_order_accurate():
    errors = []
    for span in (0.1, 0.05):
        first, second = taylor_factors(span, 2, implicit=True)
        errors.append(abs(1.0 + (first + second) * math.exp(span) - math.exp(span)))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("implicit", [True, False])
def test_gain_0_ignores_the_proxies(order, implicit):
    """Without lessons a token follows its own expansion, and a proxy its computed value."""
    derivatives = [torch.tensor([[[value], [2 * value]]]) for value in (1.0, -0.5)][: order + 1]
    simulation = ProxySimulation.begin(derivatives, 1.0, torch.tensor([1]), torch.tensor([0, 0]), 0.0, implicit)
    predictor = TaylorPredictor(order)
    predictor.derivatives, predictor.time = derivatives, 1.0
    for time in (0.8, 0.5):
        truth = torch.randn(1, 1, 1)
        simulated = simulation.advance(time, truth)
    assert_close(simulated[:, :1], predictor.predict(time)[:, :1])
    assert torch.equal(simulated[:, 1:], truth)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize(("order", "gain"), [(0, 0.3), (0, 1.0), (1, 0.3), (1, 1.0), (2, 1.0)])
def test_a_proxy_keeps_its_true_value(order, implicit, gain):
    derivatives = [torch.randn(1, 5, 3) for _ in range(order + 1)]
    places = torch.tensor([4, 2])
    simulation = ProxySimulation.begin(derivatives, 1.0, places, torch.tensor([1, 0, 1, 0, 0]), gain, implicit)
    for time in (0.9, 0.75):
        truth = torch.randn(1, 2, 3)
        assert torch.equal(simulation.advance(time, truth)[:, places], truth)
    if order:
        assert not torch.equal(simulation.advance(0.7)[:, places], truth)


def residuals_of(truths, times, derivatives):
    """The residuals of a proxy at each time, by Eq. S4 as it stands."""
    known, rows = derivatives, []
    for (before, time), truth in zip(pairwise(times), truths, strict=True):
        new = [truth]
        for m in range(len(derivatives) - 1):
            new.append((new[m] - known[m]) / (time - before))
        rows.append(new)
        known = new
    return rows


@pytest.mark.parametrize("order", [1, 2])
def test_driven_tokens_follow_equation_s9_as_it_stands(order):
    """Token by token and step by step: residuals move by the proxy's, and the token by an implicit Taylor step."""
    torch.manual_seed(0)
    derivatives = [torch.randn(1, 3, 2, dtype=torch.float64) for _ in range(order + 1)]
    times, proxy_of = [1.0, 0.9, 0.75, 0.7], torch.tensor([0, 0, 0])
    truths = [torch.randn(1, 1, 2, dtype=torch.float64) for _ in times[1:]]
    simulation = ProxySimulation.begin(derivatives, 1.0, torch.tensor([2]), proxy_of, 1.0, implicit=True)
    last = [each[:, 2:] for each in derivatives]
    value, *residuals = (each[:, :2] for each in derivatives)
    rows = residuals_of(truths, times, last)
    for (before, time), truth, now in zip(pairwise(times), truths, rows, strict=True):
        residuals = [old + new - then for old, new, then in zip(residuals, now[1:], last[1:], strict=True)]
        for m, residual in enumerate(residuals, 1):
            value = value - (before - time) ** m / math.factorial(m) * residual
        last = now
        assert_close(simulation.advance(time, truth)[:, :2], value)
