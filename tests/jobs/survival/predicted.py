"""What the simulation predicts of a batch under faults, by the first items and loads of an undisturbed one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster.cpus import usable_cpus
from cluster.failure import Budgets
from cluster.heartbeat import POLLS_OF_A_SILENCE
from cluster.placement import GangSpec
from jobs.predict.scenario import Scenario, Strike
from jobs.store.lock import SETTLE_S
from tests.jobs.survival.harness import ledger
from tests.jobs.survival.nodes import HEARTBEAT_S, Fault

FIRST = 5  # items of each gang that are looked at
START_SILENCE_S = 60.0  # as long may a rank that starts be silent
# A rank's death shows at once, that of its node when Ray does not reach the rank any more.
NODE_NOTICE_S = 2.5


@dataclass(frozen=True, kw_only=True)
class Known:
    """Of an undisturbed batch: seconds until its driver began, and those of a core that a start and an item took."""

    start_s: float
    load_s: float
    item_s: float
    cores: int

    def strikes(self, faults: Sequence[Fault], started: float) -> list[Strike]:
        """Faults as the simulation knows them; times count from the start of the first driver."""
        return [self._strike(fault, fault.t - started) for fault in faults]

    def _strike(self, fault: Fault, at_s: float) -> Strike:
        match fault.kind:
            case "rank killed":
                return Strike(at_s=at_s, what="rank", node=fault.node)
            case "rank stopped":
                # It may have answered a moment ago: half of the time between two polls comes on top.
                polled = 1 + 0.5 / POLLS_OF_A_SILENCE
                notice_s, at_start_s = polled * HEARTBEAT_S, polled * START_SILENCE_S
                return Strike(at_s=at_s, what="rank", node=fault.node, notice_s=notice_s, notice_at_start_s=at_start_s)
            case "node killed":
                return Strike(at_s=at_s, what="node", node=fault.node, notice_s=NODE_NOTICE_S, away_s=fault.away_s)
            case _:
                return Strike(at_s=at_s, what="driver", away_s=self.start_s + SETTLE_S)


def calibrated(out: Path, started: float, cores: int | None = None) -> Known:
    """By the ledger of a batch whose driver was started at that time: its loads, and the first items of each gang."""
    return by_lines(ledger(out), started, cores or usable_cpus())


def by_lines(lines: Sequence[Mapping[str, Any]], started: float, cores: int) -> Known:
    """A gang's first item counts as long as the next ones; what it took longer counts as its start."""
    begun = next(line["t"] for line in lines if line["e"] == "begin")
    done: defaultdict[int, list[float]] = defaultdict(list)
    for line in lines:
        if line["e"] == "done" and len(done[line["g"]]) < FIRST:
            done[line["g"]].append(line["t"])
    item_s = fmean((times[-1] - times[0]) / (len(times) - 1) for times in done.values())
    load_s = fmean(times[0] for times in done.values()) - begun - item_s
    share = min(1.0, cores / len(done))
    return Known(start_s=begun - started, load_s=load_s * share, item_s=item_s * share, cores=cores)


def scenario_of(known: Known, *, items: int, gangs: int, strikes: Sequence[Strike], checkpoint_part: float) -> Scenario:
    """A batch from the start of its first driver on. A state is kept each time such a part of an item is done."""
    return Scenario(
        spec=GangSpec(),
        gangs=gangs,
        nodes=[{"CPU": 1.0}] * gangs,
        seconds=[known.item_s] * items,
        load_s=known.load_s,
        spread=0.0,
        budgets=Budgets(gang_losses=1000),
        checkpoint_s=checkpoint_part * known.item_s,
        strikes=[Strike(at_s=0.0, what="driver", away_s=known.start_s), *strikes],
        cores=known.cores,
    )
