"""The same videos rendered by one rank and by several, in turns, and what they take."""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cluster.batch import run_batch
from cluster.events import Event
from cluster.placement import GangSpec
from cluster.ranks import RankContext
from jobs.demo import PROMPTS_FILE
from jobs.driver.batch_plan import make_plan
from jobs.driver.drive import workload_of
from jobs.driver.ray import running_ray
from jobs.errors import BadInput, InfrastructureError
from jobs.options.batch import RenderOptions
from jobs.options.measure import ScalingOptions
from jobs.rank.workload import RenderWorkload
from jobs.request.checks import MOST_MEASURED, check_count
from jobs.request.gangs import spec_of
from jobs.store.files import check_writable
from jobs.store.logs import logging_to
from parallel.layout import Layout

if TYPE_CHECKING:
    from jobs.rank.session import RenderSession

Row = dict[str, str | float]
STAGES = ("encode", "denoise", "decode", "write")
NAME = re.compile(r"cfg(?P<alone>\d+)|(?:cfg(?P<cfg>\d+)x)?(?P<ulysses>\d+)x(?P<ring>\d+)")


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A workload whose CPU ranks each keep to one core; on GPUs it is the workload itself."""

    workload: RenderWorkload

    def prepare(self, context: RankContext) -> None:
        self.workload.prepare(context)

    def __call__(self, context: RankContext) -> "RenderSession":
        if context.device == "cpu":
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[context.local_rank % len(cores)]})
        return self.workload(context)


@dataclass(frozen=True, kw_only=True)
class LayoutTimes:
    """What was measured of one layout: seconds of each video, and of its stages."""

    layout: Layout
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    @property
    def name(self) -> str:
        """As `--layouts` has it."""
        cfg, of_a_pass = f"cfg{self.layout.cfg}", f"{self.layout.ulysses}x{self.layout.ring}"
        if self.layout.cfg == 1:
            return of_a_pass
        return cfg if self.layout.sequence_size == 1 else f"{cfg}x{of_a_pass}"

    @property
    def median_s(self) -> float:
        """Of a video."""
        return statistics.median(self.seconds)

    def listener(self) -> Callable[[Event], None]:
        """What takes note of a turn's events. The first video, which pays for first times, does not count."""
        started: dict[int, float] = {}

        def note(event: Event) -> None:
            if event.kind == "item_started" and event.index is not None:
                started[event.index] = time.perf_counter()
            elif event.kind == "item_failed":
                raise InfrastructureError(f"{self.name}: {event.error}")
            elif event.kind == "item_done" and event.index:
                self.seconds.append(time.perf_counter() - started[event.index])
                for stage in STAGES:
                    self.stages[stage].append(event.result["seconds"][stage])

        return note


def compare_layouts(options: ScalingOptions, console: Console) -> list[Row]:
    """One row a layout. Raises BadInput before anything is started, InfrastructureError if ranks are lost."""
    for name in ("rounds", "num"):
        check_count(name, getattr(options, name), MOST_MEASURED)
    measured = [LayoutTimes(layout=layout) for layout in read_layouts(options.layouts)]
    for times in measured:
        _check(options, times)
    check_writable(options.out, "the directory of --out")
    with logging_to(options.out / "scaling.jsonl"), running_ray(options.address):  # what ranks fail with
        specs = [spec_of(times.layout) for times in measured]
        for number in range(options.rounds):
            for times, spec in zip(measured, specs, strict=True):
                _play(options, times, spec)
                told = f"round {number + 1} of {options.rounds}, {times.name}: {times.median_s:.3g} s a video"
                console.print(told, soft_wrap=True)
    return [_row(times, measured[0]) for times in measured]


def _check(options: ScalingOptions, times: LayoutTimes) -> None:
    """Raises BadInput for a layout that is not possible; each has to be, before the first begins."""
    plan = make_plan(_render_options(options, replace(times.layout, cfg=1), options.out))
    if times.layout.cfg > plan.least_passes:
        raise BadInput(
            f"layout {times.name} gives each of two passes its own ranks, and {plan.facts.name} renders these videos "
            "with one pass a step, without guidance by a second one"
        )


def _play(options: ScalingOptions, times: LayoutTimes, spec: GangSpec) -> None:
    """Render the videos by a gang of its own."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as folder:
        plan = make_plan(_render_options(options, times.layout, Path(folder)))
        workload = Pinned(workload=workload_of(plan, times.layout))
        run_batch(spec=spec, gangs=1, workload=workload, items=plan.items, on_event=times.listener())


def _row(times: LayoutTimes, first: LayoutTimes) -> Row:
    """Medians, and how they compare with the first layout's."""
    ranks, speedup = times.layout.world_size, first.median_s / times.median_s
    return {
        "layout": times.name,
        "ranks": ranks,
        "videos": len(times.seconds),
        "seconds": round(times.median_s, 3),
        "spread": f"{min(times.seconds):.3g} to {max(times.seconds):.3g}",
        **{stage: round(statistics.median(values), 3) for stage, values in times.stages.items()},
        "videos_per_hour": round(3600 / times.median_s, 1),
        "speedup": round(speedup, 3),
        "efficiency": round(speedup * first.layout.world_size / ranks, 3),
    }


def read_layouts(names: str) -> list[Layout]:
    """Those of `--layouts`. Raises BadInput for what is none."""
    try:
        return [_read_layout(name) for name in names.split(",")]
    except ValueError as error:
        raise BadInput(
            f"--layouts takes ULYSSESxRING, cfg2xULYSSESxRING or cfg2, separated by commas, not {names}"
        ) from error


def _read_layout(name: str) -> Layout:
    """ValueError for what is none."""
    if (found := NAME.fullmatch(name.strip())) is None:
        raise ValueError(name)
    return Layout(
        cfg=int(found["alone"] or found["cfg"] or 1), ulysses=int(found["ulysses"] or 1), ring=int(found["ring"] or 1)
    )


def _render_options(options: ScalingOptions, layout: Layout, out: Path) -> RenderOptions:
    return RenderOptions(
        prompts=options.prompts or PROMPTS_FILE,
        out=str(out),
        model=options.model,
        method=options.method,
        video=options.video,
        cfg=2 if layout.cfg == 2 else 1,
        ulysses=layout.ulysses,
        ring=layout.ring,
        limit=options.num + 1,
    )
