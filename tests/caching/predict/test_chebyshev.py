"""A polynomial through all dense outputs, by ridge regression."""

import pytest
import torch
from torch.testing import assert_close

from caching.engine import Engine
from caching.predict.chebyshev import ChebyshevPredictor
from caching.recipe.recipe import RECIPES, Chebyshev, Recipe
from caching.recipe.schedule import Interval, Places
from tests.caching.test_engine import TIMES, run


def observed(function, times, degree, ridge, span=(0.0, 1.0)):
    predictor = ChebyshevPredictor(degree, ridge, span)
    for time in times:
        predictor.observe(time, function(time))
    return predictor


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_without_a_ridge_a_polynomial_of_its_degree_is_forecast_exactly(degree):
    coefficients = torch.randn(degree + 1, 1, 5, 3)

    def polynomial(time):
        return sum((coefficient * time**power for power, coefficient in enumerate(coefficients)), torch.zeros(1, 5, 3))

    times = [1.0, 0.93, 0.8, 0.72, 0.6]
    predictor = observed(polynomial, times, degree, 1e-12)
    for time in (0.5, 0.31):
        assert_close(predictor.predict(time), polynomial(time), atol=1e-3, rtol=1e-3)


def test_it_is_the_ridge_regression_on_chebyshevs_polynomials():
    """Against the normal equations written out, on steps of 10, with more coefficients than values."""
    times, ridge, values = [0.0, 1.0, 4.0], 0.1, torch.randn(3, 1, 4, 2, dtype=torch.float64)
    predictor = observed(lambda time: values[times.index(time)], times, 4, ridge, span=(0.0, 10.0))

    def row(time):
        tau = torch.tensor(2 * time / 10 - 1, dtype=torch.float64)
        return torch.stack([torch.cos(power * torch.acos(tau)) for power in range(5)])

    basis = torch.stack([row(time) for time in times])
    normal = basis.T @ basis + ridge * torch.eye(5, dtype=torch.float64)
    coefficients = torch.linalg.solve(normal, basis.T @ values.flatten(1))
    assert_close(predictor.predict(7.0).flatten(), row(7.0) @ coefficients, atol=1e-5, rtol=1e-5)


def test_a_ridge_draws_towards_nothing():
    sizes = [abs(observed(lambda _: torch.ones(1), [0.9, 0.6], 4, ridge).predict(0.3).item()) for ridge in (0.1, 1e6)]
    assert sizes[1] < 1e-4 < sizes[0]


def test_dense_steps_are_the_model_and_sparse_ones_are_forecast_through_all_of_them(transformer, sample, inputs):
    method = Recipe(name="x", schedule=Places(dense=(0, 2, 3)), predictor=Chebyshev(degree=2, ridge=0.05))
    engine = Engine(transformer, method)
    velocities = run(engine, sample, inputs)
    assert engine.dense_steps == 3 and engine.peak_cache_bytes == 3 * velocities[0].nbytes
    dense = {float(step): velocities[step] for step in (0, 2, 3)}
    forecast = observed(dense.__getitem__, dense, 2, 0.05, span=(0.0, len(TIMES))).predict(5.0)
    assert_close(velocities[5], forecast)
    engine.detach()


@pytest.mark.parametrize("setting", [{"feature": "stack"}, {"tokens": RECIPES["tomesd"].tokens}], ids=str)
def test_it_moves_the_output_alone(setting):
    with pytest.raises(ValueError, match="the predictor chebyshev moves the feature output, without tokens"):
        Recipe(name="x", schedule=Interval(), predictor=Chebyshev(), **setting)


@pytest.mark.parametrize("setting", [{"degree": -1}, {"ridge": 0.0}], ids=str)
def test_impossible_polynomials_are_refused(setting):
    with pytest.raises(ValueError, match="degree must be at least 0 and ridge above 0"):
        Chebyshev(**setting)
