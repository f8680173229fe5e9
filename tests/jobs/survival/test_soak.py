"""A small soak, and what the simulation is told of one."""

import json

import pytest

from jobs.predict.simulation import simulate
from tests.jobs.survival.nodes import Fault
from tests.jobs.survival.predicted import Known, by_lines, scenario_of
from tests.jobs.survival.soak import Soak, main

STARTED = 1_000.0
KNOWN = Known(start_s=3.0, load_s=8.0, item_s=2.0, cores=2)


def done(gang: int, *times: float) -> list[dict[str, object]]:
    return [{"e": "done", "g": gang, "t": STARTED + t} for t in times]


def test_a_machine_is_known_by_first_items_and_loads():
    """Three gangs on two cores: each gets two thirds of one. Later items, here slower, are not looked at."""
    first = [13.0 + 3.0 * number for number in range(5)]
    lines = [{"e": "begin", "t": STARTED + 3.0}, *[line for gang in range(3) for line in done(gang, *first, 99.0)]]
    known = by_lines(lines, STARTED, cores=2)
    assert (known.start_s, known.cores) == (3.0, 2)
    assert (known.load_s, known.item_s) == (pytest.approx((13 - 3 - 3) * 2 / 3), pytest.approx(3 * 2 / 3))


def test_an_undisturbed_batch_is_arithmetic():
    tally = simulate(scenario_of(KNOWN, items=30, gangs=3, strikes=[], checkpoint_part=0.05))
    assert tally.seconds == pytest.approx(3 + (3 * 8 + 30 * 2) / 2)


def test_faults_cost_what_is_done_anew():
    """A driver that is killed once all gangs are up costs the start of another one, and of its gangs."""
    killed = [Fault(kind="driver killed", node=0, t=STARTED + 20)]
    stopped = [Fault(kind="rank stopped", node=2, t=STARTED + 20)]
    calm, without_driver, without_rank = (
        simulate(scenario_of(KNOWN, items=30, gangs=3, strikes=strikes, checkpoint_part=0.05)).seconds
        for strikes in ([], KNOWN.strikes(killed, STARTED), KNOWN.strikes(stopped, STARTED))
    )
    assert without_driver == pytest.approx(calm + 3 + 1 + 3 * 8 / 2, abs=0.2)
    assert calm + 8 / 2 - 0.1 <= without_rank <= calm + 8 / 2 + 2  # the others have the cores meanwhile


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_soak_loses_nothing_and_is_predicted(tmp_path):
    report = tmp_path / "report.json"
    assert main(Soak(items=30, gangs=2, minutes=0.8, steps=100, report=report)) == 0
    figures = json.loads(report.read_text())
    assert figures["faults"] and min(figures["known"].values()) > 0
    for batch in (figures["undisturbed"], *figures["batches"]):
        assert batch["seconds"] > 0 and batch["predicted"] > 0
    assert all((batch["done"], batch["lost"], batch["done_twice"]) == (30, 0, 0) for batch in figures["batches"])
