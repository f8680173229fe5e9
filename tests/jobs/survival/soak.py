"""A chaos soak: ranks, nodes and the driver are killed at random while a batch runs; nothing may be lost or done twice.

make soak    # python -m tests.jobs.survival.soak --items 200 --gangs 3 --minutes 10
"""

import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from ray.cluster_utils import Cluster

from tests.jobs.survival.conftest import NODE, check_nothing_is_held
from tests.jobs.survival.harness import (
    SETTINGS,
    Driver,
    check_no_debris,
    check_no_rank_lives,
    checksums,
    ranks,
    send,
    told,
)
from tests.jobs.tiny_model import save_tiny_pipeline

WORDS = ["a", "cat", "walks", "on", "grass"]


@dataclass(kw_only=True)
class Soak:
    """One soak, and what it has done so far."""

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
    faults: tyro.conf.Suppress[Counter[str]] = field(default_factory=Counter)


def main(soak: Soak) -> int:
    with tempfile.TemporaryDirectory(prefix="resca-soak-") as folder:
        place = Path(folder)
        model = save_tiny_pipeline(place / "model")
        _write_prompts(soak, place / "prompts.txt")
        calm_s = _calm(soak, model, place)
        print(f"undisturbed: {calm_s:.0f} s", flush=True)
        storms = _storms(soak, model, place)
    figures = {
        "items": soak.items,
        "gangs": soak.gangs,
        "faults": dict(soak.faults),
        "undisturbed_s": round(calm_s),
        "batches": storms,
    }
    print(json.dumps(figures, indent=2))
    if soak.report:
        soak.report.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _write_prompts(soak: Soak, path: Path) -> None:
    chance = random.Random(soak.seed)
    path.write_text("\n".join(" ".join(chance.choices(WORDS, k=4)) for _ in range(soak.items)))


def _cluster(soak: Soak) -> Cluster:
    head = {**NODE, "num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(soak.gangs):
        cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return cluster


def _driver(soak: Soak, model: Path, place: Path, out: str, address: str, number: int = 0) -> Driver:
    words: list[Any] = [place / "prompts.txt", "--out", place / out, "--model", model, "--steps", soak.steps, *SETTINGS]
    words += ["--method", "resca", "--clusters", 8, "--gangs", "auto", "--address", address]
    words += ["--heartbeat", 8, "--checkpoint-every", 10]
    # Chaos is not the videos' fault, however often it strikes.
    return Driver("render", *words, "--lost-gangs", 1000, "--tries", 3, log=place / f"{out}-{number}.log")


def _calm(soak: Soak, model: Path, place: Path) -> float:
    cluster = _cluster(soak)
    try:
        started = time.monotonic()
        driver = _driver(soak, model, place, "calm", cluster.address)
        assert driver.wait(3600) == 0, driver.told
        return time.monotonic() - started
    finally:
        cluster.shutdown()


def _storms(soak: Soak, model: Path, place: Path) -> list[dict[str, Any]]:
    """The batch again and again, from the start, until the minutes are over; faults all the time."""
    cluster, chance, batches = _cluster(soak), random.Random(soak.seed), []
    ends = time.monotonic() + 60 * soak.minutes
    try:
        while time.monotonic() < ends:
            out = f"stormy-{len(batches)}"
            took_s = _storm(soak, model, place, out, cluster, chance, ends)
            batches.append(_check(soak, place / "calm", place / out) | {"seconds": round(took_s)})
        check_nothing_is_held(cluster.address)
        return batches
    finally:
        cluster.shutdown()


def _storm(
    soak: Soak, model: Path, place: Path, out: str, cluster: Cluster, chance: random.Random, ends: float
) -> float:
    """Seconds until everything was there. A driver that was killed is started again."""
    started, number = time.monotonic(), 0
    driver = _driver(soak, model, place, out, cluster.address)
    while driver.process.poll() is None or driver.process.returncode != 0:
        if driver.process.poll() is not None:
            number += 1
            driver = _driver(soak, model, place, out, cluster.address, number)
        if time.monotonic() > ends:
            driver.process.wait(3600)
            continue
        time.sleep(chance.uniform(*soak.every_s))
        _strike(soak, cluster, driver, chance)
        done = len({line["id"] for line in told(place / out, "done")})
        print(f"{out}, {time.monotonic() - started:.0f} s: {done} of {soak.items}; {dict(soak.faults)}", flush=True)
    took_s = time.monotonic() - started
    check_no_rank_lives(driver, *(node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes))
    return took_s


def _strike(soak: Soak, cluster: Cluster, driver: Driver, chance: random.Random) -> None:
    """One fault: most often a rank, sometimes stopped and not killed, a node with its successor, or the driver."""
    nodes = list(cluster.worker_nodes)
    fault = chance.choices(["rank killed", "rank stopped", "node killed", "driver killed"], [6, 2, 2, 2])[0]
    victims = [rank for node in nodes for rank in ranks(node.all_processes["raylet"][0].process.pid)]
    if fault.startswith("rank") and victims:
        send(chance.choice(victims), signal.SIGKILL if fault == "rank killed" else signal.SIGSTOP)
    elif fault == "node killed":
        cluster.remove_node(chance.choice(nodes), allow_graceful=False)
        cluster.add_node(**NODE)
    elif fault == "driver killed" and driver.process.poll() is None:
        driver.kill()
    else:
        return
    soak.faults[fault] += 1


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
        "done": len(stormy),
        "done_twice": sum(count - 1 for count in done.values()),
        "lost": soak.items - len(stormy),
    }


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, description=__doc__)))
