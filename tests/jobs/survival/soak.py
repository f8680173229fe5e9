"""A chaos soak: ranks, nodes and the driver are killed at random while a batch runs; nothing may be lost or done twice.

make soak    # python -m tests.jobs.survival.soak --items 200 --gangs 3 --minutes 10

Beside the seconds of a batch stand those that the simulation predicts of it, by the first items and loads of the
undisturbed one, and by what was struck when.
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from jobs.predict.scenario import Strike
from jobs.predict.simulation import simulate
from tests.jobs.survival.conftest import check_nothing_is_held
from tests.jobs.survival.harness import (
    SETTINGS,
    Driver,
    check_no_debris,
    check_no_rank_lives,
    checksums,
    told,
)
from tests.jobs.survival.nodes import HEARTBEAT_S, Fault, Nodes
from tests.jobs.survival.predicted import Known, calibrated, scenario_of
from tests.jobs.tiny_model import save_tiny_pipeline

WORDS = ["a", "cat", "walks", "on", "grass"]
CHECKPOINT_STEPS = 10


@dataclass(kw_only=True)
class Soak:
    """One soak."""

    items: int = 200
    gangs: int = 3
    minutes: float = 10
    """For so long there are faults; the batch that is under way then is finished without."""
    every_s: tuple[float, float] = (3, 9)
    """Seconds between two faults, at least and at most."""
    steps: int = 200
    """Denoising steps of a video; decides how long one takes."""
    seed: int = 0
    report: tyro.conf.OmitArgPrefixes[Path] | None = None
    """Also write the figures to this JSON file."""


def main(soak: Soak) -> int:
    with tempfile.TemporaryDirectory(prefix="resca-soak-") as folder:
        place = Path(folder)
        model = save_tiny_pipeline(place / "model")
        _write_prompts(soak, place / "prompts.txt")
        known, calm = _calm(soak, model, place)
        print(f"undisturbed: {calm}", flush=True)
        faults, storms = _storms(soak, model, place, known)
    figures = {
        "items": soak.items,
        "gangs": soak.gangs,
        "known": {name: round(value, 2) for name, value in asdict(known).items()},
        "undisturbed": calm,
        "faults": faults,
        "batches": storms,
    }
    print(json.dumps(figures, indent=2))
    if soak.report:
        soak.report.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _write_prompts(soak: Soak, path: Path) -> None:
    chance = random.Random(soak.seed)
    path.write_text("\n".join(" ".join(chance.choices(WORDS, k=4)) for _ in range(soak.items)))


def _driver(soak: Soak, model: Path, place: Path, out: str, address: str, number: int = 0) -> Driver:
    words: list[Any] = [place / "prompts.txt", "--out", place / out, "--model", model, "--steps", soak.steps, *SETTINGS]
    words += ["--method", "resca", "--clusters", 8, "--gangs", "auto", "--address", address]
    words += ["--heartbeat", HEARTBEAT_S, "--checkpoint-every", CHECKPOINT_STEPS]
    # Chaos is not the videos' fault, however often it strikes.
    return Driver("render", *words, "--lost-gangs", 1000, "--tries", 3, log=place / f"{out}-{number}.log")


def _calm(soak: Soak, model: Path, place: Path) -> tuple[Known, dict[str, int]]:
    """What is known of the machine by its first items, and the seconds of the whole batch."""
    with Nodes(soak.gangs) as nodes:
        started = time.time()
        driver = _driver(soak, model, place, "calm", nodes.address)
        assert driver.wait(3600) == 0, driver.told
    known = calibrated(place / "calm", started)
    return known, _seconds(soak, known, place / "calm", started, [])


def _seconds(soak: Soak, known: Known, out: Path, started: float, strikes: list[Strike]) -> dict[str, int]:
    """Until the last item was finished, measured and predicted."""
    scenario = scenario_of(
        known, items=soak.items, gangs=soak.gangs, strikes=strikes, checkpoint_part=CHECKPOINT_STEPS / soak.steps
    )
    tally = simulate(scenario)
    assert tally.finished == soak.items
    last_s = max(line["t"] for line in told(out, "done"))
    return {"seconds": round(last_s - started), "predicted": round(tally.seconds)}


def _storms(soak: Soak, model: Path, place: Path, known: Known) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """The batch again and again, from the start, until the minutes are over; faults all the time."""
    faults, batches, ends = list[Fault](), [], time.time() + 60 * soak.minutes
    chance = random.Random(soak.seed)
    with Nodes(soak.gangs) as nodes:
        while time.time() < ends:
            out, started = f"stormy-{len(batches)}", time.time()
            struck = _storm(soak, model, place, out, nodes, chance, ends)
            took = _seconds(soak, known, place / out, started, known.strikes(struck, started))
            batches.append(_check(soak, place / "calm", place / out) | took)
            faults += struck
        check_nothing_is_held(nodes.address)
    return _counts(faults), batches


def _counts(faults: Sequence[Fault]) -> dict[str, int]:
    return dict(Counter(fault.kind for fault in faults))


def _storm(
    soak: Soak, model: Path, place: Path, out: str, nodes: Nodes, chance: random.Random, ends: float
) -> list[Fault]:
    """What was struck until everything was there. A driver that was killed is started again."""
    started, number, faults = time.time(), 0, []
    driver = _driver(soak, model, place, out, nodes.address)
    while driver.process.poll() is None or driver.process.returncode != 0:
        if driver.process.poll() is not None:
            number += 1
            driver = _driver(soak, model, place, out, nodes.address, number)
        if time.time() > ends:
            driver.process.wait(3600)
            continue
        time.sleep(chance.uniform(*soak.every_s))
        if fault := nodes.strike(driver, chance):
            faults.append(fault)
        done = len({line["id"] for line in told(place / out, "done")})
        print(f"{out}, {time.time() - started:.0f} s: {done} of {soak.items}; {_counts(faults)}", flush=True)
    check_no_rank_lives(driver, *nodes.raylets)
    return faults


def _check(soak: Soak, calm_out: Path, out: Path) -> dict[str, Any]:
    """Raises AssertionError if anything was lost, done twice, or is not as in the undisturbed run."""
    calm, stormy = checksums(calm_out), checksums(out)
    assert len(calm) == soak.items and stormy == calm
    check_no_debris(out)
    done = Counter(line["id"] for line in told(out, "done"))
    # What a driver had no time to tell, because it was killed behind a video's publication, the next one tells.
    assert done == Counter(stormy.keys()) and not told(out, "fail")
    return {
        "drivers": len(told(out, "begin")),
        "starts": len(told(out, "start")),
        "losses": len(told(out, "gang_lost")),
        "done": len(stormy),
        "done_twice": sum(count - 1 for count in done.values()),
        "lost": soak.items - len(stormy),
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, description=__doc__)))
