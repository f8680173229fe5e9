"""What a driver takes for itself, by the number of its gangs: processor, memory, and how long a free gang waits."""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console

from cluster.events import Event
from cluster.placement import GangSpec
from cluster.remote import StartWorker
from jobs.console import PlainConsole
from jobs.demo import PROMPTS_FILE
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.cancellation import CancelWatch
from jobs.driver.drive import recording, run_on
from jobs.driver.eta import Eta
from jobs.driver.expected import expected_of
from jobs.driver.ranks import Ranks
from jobs.driver.ray import running_ray
from jobs.driver.standing import standing_of
from jobs.errors import BadInput, InfrastructureError
from jobs.measure.idle import Alone, Crowds, IdleWorkload
from jobs.options.batch import RenderOptions
from jobs.options.measure import DriverOptions
from jobs.request.checks import MOST_MEASURED, check_count
from jobs.store.items import SIDECAR_VERSION, Seconds, Sidecar, World
from jobs.store.lock import DriverLock
from parallel.layout import Layout

MOST_GANGS, MOST_RANKS = 4096, 65_536
Row = dict[str, str | float]


class Enough(Exception):
    """What was to be measured is."""


@dataclass(kw_only=True)
class Meter:
    """Follows a batch that would go on for longer: once all gangs run, `check` measures and then raises Enough.

    Each gang's first item is over after `warm_up_s`. Of the processor is taken what all threads of this process took.
    """

    gangs: int
    warm_up_s: float
    window_s: float
    begun_s: float = field(default_factory=time.monotonic)
    begun_cpu_s: float = field(default_factory=time.process_time)
    ready: set[int] = field(default_factory=set)
    start_s: float | None = None
    """Until all gangs were ready, with `start_cpu_s` of the processor."""
    start_cpu_s: float = 0.0
    opened: tuple[float, float] | None = None
    """When the window began, and what had been taken of the processor."""
    closed_s: float = 0.0
    share: float = 0.0
    memory_bytes: int = 0
    idle_s: list[float] = field(default_factory=list)
    """From the end of an item on rank 0 to the beginning of the next one there, in the window."""

    def note(self, event: Event) -> None:
        """Raises InfrastructureError for what must not happen."""
        if event.kind == "gang_ready":
            self.ready.add(event.gang)
            if len(self.ready) == self.gangs:
                self.start_s = time.monotonic() - self.begun_s
                self.start_cpu_s = time.process_time() - self.begun_cpu_s
        elif event.kind == "gang_lost" or event.kind == "item_failed":
            raise InfrastructureError(f"{event.kind.replace('_', ' ')}: {event.error}")
        elif event.kind == "item_done" and self.opened:
            self.idle_s.append(event.result["idle_s"])

    def check(self) -> None:
        """At each tick; it asks for the processor's time twice only, which takes a millisecond with so many threads."""
        now = time.monotonic()
        if self.start_s is None or now < self.begun_s + self.start_s + self.warm_up_s:
            return
        if self.opened is None:
            self.opened = now, time.process_time()
        opened_s, opened_cpu_s = self.opened
        if now > opened_s + self.window_s:
            self.share = (time.process_time() - opened_cpu_s) / (now - opened_s)
            self.closed_s, self.memory_bytes = now, psutil.Process().memory_info().rss
            raise Enough

    def row(self, options: DriverOptions, end_s: float) -> Row:
        """`end_s` is what it took to stop all gangs."""
        idle_s = sorted(self.idle_s)
        return {
            "gangs": self.gangs,
            "ranks": self.gangs * options.ranks,
            "processes": -(-self.gangs * options.ranks // options.ranks_per_process),
            "items": len(idle_s),
            "share": round(self.share, 4),
            "next_item_s": round(statistics.median(idle_s), 4),
            "one_in_ten_s": round(idle_s[len(idle_s) * 9 // 10], 4),
            "longest_s": round(idle_s[-1], 4),
            "memory_mb": round(self.memory_bytes / 1e6),
            "start_s": round(self.start_s or 0.0, 1),
            "start_cpu_s": round(self.start_cpu_s, 2),
            "end_s": round(end_s, 2),
        }


def measure_driver(options: DriverOptions, console: Console) -> list[Row]:
    """One row a number of gangs. Raises BadInput before anything is started, InfrastructureError if ranks are lost."""
    rows: list[Row] = []
    for gangs in _numbers(options):
        rows.append(_measure(options, gangs))
        console.print(f"{gangs} gangs: {rows[-1]['share']:.1%} of a core", soft_wrap=True)
    return rows


def _numbers(options: DriverOptions) -> list[int]:
    for name in ("ranks", "ranks_per_process"):
        check_count(name, getattr(options, name), MOST_RANKS)
    check_count("item_seconds", options.item_seconds, MOST_MEASURED)
    check_count("seconds", options.seconds, MOST_MEASURED, least=2 * options.item_seconds)
    try:
        numbers = [int(word) for word in options.gangs.split(",")]
    except ValueError as error:
        raise BadInput(f"--gangs takes numbers, separated by commas, not {options.gangs}") from error
    for number in numbers:
        check_count("gangs", number, MOST_GANGS)
    return numbers


def _measure(options: DriverOptions, gangs: int) -> Row:
    num_ranks = gangs * options.ranks
    with tempfile.TemporaryDirectory(prefix="resca-") as folder, running_ray("local", num_cpus=num_ranks):
        plan = _plan(options, gangs, Path(folder))
        is_crowded = options.ranks_per_process > 1
        start_worker = Crowds(num_ranks, options.ranks_per_process) if is_crowded else Alone
        meter = Meter(gangs=gangs, warm_up_s=options.item_seconds, window_s=options.seconds)
        try:
            _drive(plan, meter, options, start_worker)
        except Enough:
            return meter.row(options, time.monotonic() - meter.closed_s)
    raise InfrastructureError("the batch came to its end before it was measured")


def _drive(plan: Plan, meter: Meter, options: DriverOptions, start_worker: StartWorker) -> None:
    """The whole driver as `resca render` has it, but for ranks that only pass the time."""
    layout = Layout(ring=options.ranks)
    workload = IdleWorkload(item_s=options.item_seconds, sidecar=_sidecar(plan, layout))
    ranks = Ranks(
        spec=GangSpec(world_size=options.ranks),
        gangs=meter.gangs,
        layout=layout,
        workload=workload,
        start_worker=start_worker,
    )
    standing = standing_of(plan, Eta(plan.todo, expected_of(plan, layout, on_gpus=False)))
    with (
        open(os.devnull, "w") as nowhere,
        DriverLock(plan.storage) as lock,
        recording(plan, lock, standing) as recorder,
    ):
        console = PlainConsole(file=nowhere, force_terminal=options.terminal)
        checks = [lock.check, CancelWatch(plan.storage).check, meter.check]
        run_on(ranks, plan, standing, console, recorder, lock, checks, listen=meter.note)


def _plan(options: DriverOptions, gangs: int, folder: Path) -> Plan:
    """Of more videos than gangs get done in that time."""
    num = int(gangs * (4 + 2.5 * options.seconds / options.item_seconds))
    prompt = PROMPTS_FILE.read_text(encoding="utf-8").splitlines()[0]
    prompts = folder / "prompts.txt"
    prompts.write_text(f"{prompt}\n" * num, encoding="utf-8")
    return make_plan(RenderOptions(prompts=prompts, out=str(folder / "out")))


def _sidecar(plan: Plan, layout: Layout) -> dict[str, object]:
    """What a rank says of a video that it has not rendered."""
    item, settings = plan.todo[0], plan.settings
    return Sidecar(
        version=SIDECAR_VERSION,
        **{name: value for name, value in settings.asked(item).items() if name in Sidecar.model_fields},
        dense_steps=9,
        sparse_steps=41,
        flops=1.0,
        flops_full=5.0,
        seconds=Seconds(encode=0.1, denoise=2.0, decode=0.3, write=0.1),
        layout=World(ulysses=layout.ulysses, ring=layout.ring, world_size=layout.world_size),
        device="none",
        versions={},
        sha256="0" * 64,
        bytes=1,
        fingerprint=settings.fingerprint(item),
    ).model_dump(mode="json")
