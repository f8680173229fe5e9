"""The rivals of a fitted plan: their arithmetic, and for real on a tiny pipeline."""

from itertools import combinations, pairwise
from math import inf

import pytest
import torch

from caching.predict.multistep import Evidence, combine
from caching.predict.taylor import TaylorPredictor
from caching.recipe.recipe import REUSE, Multistep, Recipe
from caching.recipe.schedule import Places, even_places
from jobs.measure.tune.rivals.budcache import anneal, budcache
from jobs.measure.tune.rivals.dpcache import cheapest_path, stage_costs
from jobs.measure.tune.rivals.l2p import l2p, teacher_forced
from jobs.measure.tune.rivals.registry import RIVALS
from jobs.measure.tune.rollout import Rollouts
from tests.jobs.measure.tune.tiny_judge import make_judge

pytestmark = pytest.mark.timeout(300)
STEPS = 8
LEVELS = [1.0, 0.95, 0.85, 0.7, 0.5, 0.35, 0.1, 0.0]  # of 7 steps


def own_fits(velocities, nodes, end):
    """L2P as published: the weights of each step of a stage, fitted to its own velocity."""
    dense = [[each[node] for node in nodes] for each in velocities]
    reuse = (*[0.0] * (len(nodes) - 1), 1.0)
    return [
        Evidence.total(
            [Evidence.of(own, each[step], reuse) for own, each in zip(dense, velocities, strict=True)]
        ).weights
        for step in range(nodes[-1], end)
    ]


def test_one_fit_to_the_mean_velocity_is_the_mean_of_the_fits_of_all_steps():
    velocities = [torch.randn(7, 4, 2, 3, 3) for _ in range(2)]
    rows = torch.tensor(own_fits(velocities, (0, 2, 3), 7))
    spans = torch.tensor([after - before for before, after in pairwise(LEVELS[3:])])
    expected = (spans / spans.sum()) @ rows
    assert teacher_forced(velocities, LEVELS, (0, 2, 3), 7) == pytest.approx(expected.tolist(), abs=1e-5)


def test_weights_of_a_linear_toy_are_found_exactly():
    """Steps 4 to 6 are sums of the dense steps 0, 2 and 3, by known weights."""
    true = torch.tensor([[0.1, -0.4, 1.3], [0.3, -1.0, 1.7], [-0.2, 0.5, 0.6]])
    velocities = []
    for _ in range(2):
        each = torch.randn(7, 4, 2, 3, 3)
        each[4:] = torch.tensordot(true, each[[0, 2, 3]], dims=1)
        velocities.append(each)
    lengths = torch.tensor([LEVELS[3] - LEVELS[4], LEVELS[4] - LEVELS[5], LEVELS[5] - LEVELS[6], LEVELS[6]])
    rows = torch.cat([torch.tensor([[0.0, 0.0, 1.0]]), true])
    expected = (lengths / lengths.sum()) @ rows
    assert teacher_forced(velocities, LEVELS, (0, 2, 3), 7) == pytest.approx(expected.tolist(), abs=1e-3)


def total(costs, places):
    """What a path costs, stage by stage."""
    before = (0, *places)
    return sum(float(costs[h, i, j]) for h, i, j in zip(before, places, (*places[1:], costs.shape[0]), strict=False))


def random_costs(num_steps):
    costs = torch.full((num_steps, num_steps, num_steps + 1), inf, dtype=torch.float64)
    for h, i, j in combinations(range(num_steps + 1), 3):
        costs[h, i, j] = torch.rand(1).item()
    costs[0, 0, 1:] = torch.rand(num_steps)
    return costs


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7])
def test_the_path_is_the_cheapest_of_all(budget):
    costs = random_costs(7)
    paths = [(0, *others) for others in combinations(range(1, 7), budget - 1)]
    assert cheapest_path(costs, budget) == min(paths, key=lambda places: total(costs, places))


@pytest.mark.parametrize("budget", [0, 8])
def test_impossible_budgets_are_refused(budget):
    with pytest.raises(ValueError, match="between 1 and 7 of 7 steps"):
        cheapest_path(random_costs(7), budget)


def test_a_stage_costs_what_its_sparse_steps_miss():
    velocities, times = [torch.randn(6, 2, 1, 3, 3) for _ in range(3)], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    def missed(nodes, step):
        predictor, errors = TaylorPredictor(1), []
        for each in velocities:
            predictor.forget()
            for node in nodes:
                predictor.observe(times[node], each[node])
            errors.append((predictor.predict(times[step]) - each[step]).square().mean().sqrt())
        return float(sum(errors)) / len(errors)

    costs = stage_costs(velocities, times)
    for h, i, j in ((0, 1, 2), (0, 1, 6), (1, 3, 6), (0, 4, 6)):
        expected = sum(missed((h, i), step) for step in range(i + 1, j))
        assert float(costs[h, i, j]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert float(costs[0, 0, 4]) == pytest.approx(sum(missed((0,), step) for step in (1, 2, 3)), rel=1e-4)
    assert torch.isinf(costs[2, 2, 4]) and torch.isinf(costs[0, 3, 3]) and torch.isinf(costs[3, 1, 5])


def test_on_a_line_only_the_first_stage_costs_anything():
    line = torch.arange(6.0).view(6, 1, 1, 1, 1) * torch.randn(1, 2, 1, 3, 3)
    costs = stage_costs([line], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert cheapest_path(costs, 2) == (0, 1)
    assert total(costs, (0, 1)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_annealing_ends_no_worse_than_it_began_and_asks_no_more_often_than_allowed(seed):
    asked = []

    def score(places):
        asked.append(places)
        return -sum(abs(place - goal) for place, goal in zip(places, (0, 3, 4, 11), strict=True))

    places, found = anneal((0, 5, 10, 15), 20, score, max_scores=60, seed=seed)
    assert len(asked) == 60
    assert found == max(map(score, asked[:60])) > score((0, 5, 10, 15))
    assert found == score(places)
    for each in asked:
        assert each[0] == 0 and len(each) == 4 and list(each) == sorted(set(each)) and each[-1] < 20


def test_annealing_leaves_a_schedule_without_others_as_it_is():
    for places, steps in (((0,), 5), ((0, 1, 2), 3)):
        assert anneal(places, steps, lambda _: 1.0, max_scores=4) == (places, 1.0)


@pytest.fixture(scope="module", params=["hunyuan_video", "wan"])
def rollouts(request, tmp_path_factory):
    """Of a model of one pass with Euler's steps, and of one of two with UniPC's."""
    return Rollouts(make_judge(request.param, tmp_path_factory.mktemp("model"), steps=STEPS))


def test_full_velocities_lead_along_full_sampling(rollouts):
    spent = rollouts.judge.dense_steps
    for velocities, path in zip(rollouts.full_velocities, rollouts.judge.trajectories, strict=True):
        solver, latents = rollouts.solver.fork(), path[:1]
        for step, velocity in enumerate(velocities.split(1)):
            latents = solver.advance(latents, velocity, to=step + 1)
            torch.testing.assert_close(latents, path[step + 1 : step + 2], rtol=1e-3, atol=1e-4)
    assert rollouts.full_velocities is rollouts.full_velocities
    assert rollouts.judge.dense_steps - spent in (0, 2 * STEPS)  # asked for once


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_spends_its_budget_from_the_first_step_on(rollouts, name):
    judge, spent = rollouts.judge, rollouts.judge.dense_steps
    method = RIVALS[name].search(rollouts, 2)
    assert judge.dense_steps - spent <= len(judge.items) * RIVALS[name].cost(STEPS, 2)
    assert method.name == f"{name}-2"
    assert isinstance(method.schedule, Places)
    assert method.schedule.steps == STEPS and sum(method.dense_plan(STEPS)) == 2
    assert method.schedule.dense[0] == 0
    assert all(latents.isfinite().all() for latents in judge.sample(method))


def test_budcache_ends_no_farther_from_full_sampling_than_reuse_at_even_places(rollouts):
    even = Recipe(name="x", schedule=Places(dense=even_places(rollouts.steps, 2)), predictor=REUSE)
    found, before = (sum(rollouts.judge.latent_db(each)) for each in (budcache(rollouts, 2), even))
    assert found > before - 0.01


@pytest.mark.parametrize("rollouts", ["hunyuan_video"], indirect=True)
def test_a_row_a_stage_samples_what_weights_of_each_step_would(rollouts):
    """Under Euler's steps."""
    method = l2p(rollouts, 3)
    assert isinstance(method.schedule, Places) and isinstance(method.predictor, Multistep)
    places, velocities = method.schedule.dense, []
    latents, solver = rollouts.judge.trajectories[0][:1], rollouts.solver.fork()
    for number, end in enumerate((*places[1:], STEPS), 1):
        velocities += rollouts.judge.velocities([(0, latents)], places[number - 1])
        rows = own_fits(rollouts.full_velocities, places[:number], end)
        for step, row in enumerate(rows, places[number - 1]):
            latents = solver.advance(latents, combine(row, velocities), to=step + 1)
    torch.testing.assert_close(rollouts.judge.sample(method)[0], latents, rtol=1e-3, atol=1e-4)
