"""The error that an extrapolation is expected to make."""

from dataclasses import replace
from math import inf

import pytest
import torch

from caching.engine import Engine
from caching.group import LocalGroup
from caching.predict.correction import ExtrapolationError, Nodes
from caching.predict.taylor import TaylorPredictor
from caching.recipe.recipe import Recipe, Taylor
from caching.recipe.schedule import ErrorEstimate
from tests.caching.test_engine import TIMES, run


def quadratic(time):
    """An extrapolation of order 1 through t_0 and t_1 errs by `2 (t - t_0) (t - t_1)`."""
    return torch.full((1, 4, 3), 3.0 + 2 * time**2)


def test_the_error_of_a_quadratic_is_foretold_exactly():
    nodes, taylor = Nodes(order=1), TaylorPredictor(order=1)
    error = ExtrapolationError(nodes)
    for time in (1.0, 0.8):
        assert error.at(0.5) == inf
        taylor.observe(time, quadratic(time))
        nodes.add(time)
    error.measure(0.5, taylor.predict(0.5), quadratic(0.5), LocalGroup())
    true = (taylor.predict(0.6) - quadratic(0.6)).norm() / quadratic(0.5).norm()
    assert error.at(0.6) == pytest.approx(float(true), rel=1e-4)


def test_a_tighter_tolerance_takes_more_dense_steps(transformer, sample, inputs):
    counts = []
    for tolerance in (1e-9, 0.02, 1e9):
        engine = Engine(transformer, Recipe(name="x", schedule=ErrorEstimate(tolerance=tolerance)))
        run(engine, sample, inputs)
        counts.append(engine.dense_steps)
        engine.detach()
    assert counts[0] == len(TIMES)
    assert counts[0] >= counts[1] >= counts[2] == 4  # the first three, from which the error is known, and the last


def test_what_the_error_chose_can_be_repeated(transformer, sample, inputs):
    engine = Engine(transformer, Recipe(name="x", schedule=ErrorEstimate(tolerance=1e9)))
    expected = run(engine, sample, inputs)
    settled = engine.settled
    engine.detach()
    assert all(map(torch.equal, run(Engine(transformer, settled), sample, inputs), expected))


def test_errors_are_estimated_of_extrapolations_alone():
    base = Recipe(name="x", schedule=ErrorEstimate())
    for wrong in ({"feature": "module"}, {"predictor": Taylor(order=0)}):
        with pytest.raises(ValueError, match="extrapolation"):
            replace(base, **wrong)
