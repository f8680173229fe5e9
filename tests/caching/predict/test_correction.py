"""The correction at dense steps, on equations whose solutions are known."""

import pytest
import torch

from caching.predict.correction import Correction, Nodes
from caching.predict.taylor import TaylorPredictor


def integrate(velocity, order, gain, steps=40, every=5):
    """Euler steps from 1 to 0 of x' = velocity(t), with sparse steps extrapolated; returns x(0) for x(1) = 0."""
    times = [1 - step / steps for step in range(steps)]
    nodes, predictor, x = Nodes(order), TaylorPredictor(order), 0.0
    correction = Correction(nodes, gain)
    for step, time in enumerate(times):
        span = -1 / steps
        if step % every == 0:
            true = torch.tensor([[[velocity(time)]]], dtype=torch.float64)
            answer = true
            if correction.due:
                answer = true + correction.weight(time) / span * (true - predictor.predict(time))
            nodes.add(time)
            correction.clear()
            predictor.observe(time, true)
        else:
            correction.sparse(time, span)
            answer = predictor.predict(time)
        x += span * answer.item()
    return x


@pytest.mark.parametrize("order", [0, 1])
def test_an_error_of_the_next_order_is_made_good_exactly(order):
    """With a velocity of degree order + 1 all that is left is what the steps after the last dense one add."""

    def velocity(time):
        return (1 - time) ** (order + 1)

    exact = integrate(velocity, order, gain=0.0, every=1)
    plain = abs(integrate(velocity, order, gain=0.0, every=5) - exact)
    corrected = abs(integrate(velocity, order, gain=1.0, every=5) - exact)
    assert corrected < 0.35 * plain


def test_nothing_is_due_without_sparse_steps_or_gain():
    correction = Correction(Nodes(1), 0.5)
    correction.clear()
    assert not correction.due
    correction.sparse(0.9, -0.1)
    assert correction.due
    silent = Correction(Nodes(1), 0.0)
    silent.sparse(0.9, -0.1)
    assert not silent.due


def test_the_weight_of_reuse_over_even_steps():
    """Order 0, four steps from the dense one at 1: the error grows as 0, 1, 2, 3 quarters of what is found at 0.6."""
    nodes = Nodes(0)
    nodes.add(1.0)
    correction = Correction(nodes, 1.0)
    for time in (0.9, 0.8, 0.7):
        correction.sparse(time, -0.1)
    assert correction.weight(0.6) == pytest.approx(-0.1 * (1 + 2 + 3) / 4)
