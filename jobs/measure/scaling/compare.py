"""The same videos rendered by one rank and by several, and by several gangs, in turns, and what they take."""

import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console

from cluster.placement import GangSpec
from cluster.pool import Pool, open_pool
from jobs.demo import PROMPTS_FILE
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.ranks import workload_of
from jobs.driver.ray import running_ray
from jobs.errors import BadInput
from jobs.measure.scaling.predicted import setup_of
from jobs.measure.scaling.session import Asked, Found, Measured
from jobs.measure.scaling.times import Case, Listener, Times, layout_name
from jobs.options.batch import RenderOptions
from jobs.options.scaling import ScalingOptions
from jobs.predict.measured import ProbeRequest
from jobs.request.checks import MOST_MEASURED, check_count
from jobs.request.gangs import Node, nodes_as_given, spec_of
from jobs.store.items import RenderItem
from jobs.store.logs import logging_to
from jobs.store.open import open_storage
from jobs.store.storage import Storage
from parallel.layout import Layout

LOG = "scaling.jsonl"
NAME = re.compile(r"cfg(?P<alone>\d+)|(?:cfg(?P<cfg>\d+)x)?(?P<ulysses>\d+)x(?P<ring>\d+)")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was measured, case by case, and of what videos; the others are compared with the first case."""

    plan: Plan
    times: Sequence[Times]
    on_gpus: bool


def compare_layouts(options: ScalingOptions, console: Console) -> Comparison:
    """Raises BadInput before anything is started, InfrastructureError if ranks are lost."""
    for name in ("rounds", "num"):
        check_count(name, getattr(options, name), MOST_MEASURED)
    measured = [Times(case=case) for case in read_cases(options)]
    plans = [check_layout(options, times.case.layout) for times in measured]
    storage, promised = open_storage(options.out), nodes_as_given(plans[0].options)
    storage.check_writable()
    log = storage.log_path(LOG) or Path(tempfile.gettempdir(), f"resca-{LOG}")
    if promised:  # else a running Ray is asked
        _specs(measured, promised)
    with logging_to(log), running_ray(options.address):  # what ranks fail with
        specs = _specs(measured, promised)
        for number in range(options.rounds):
            for times, spec in zip(measured, specs, strict=True):
                with _folder(storage) as out:
                    _play(options, out, times, spec, is_first=times is measured[0])
                told = f"round {number + 1} of {options.rounds}, {times.case.name}: {times.median_s:.3g} s a video"
                console.print(told, soft_wrap=True)
    return Comparison(plan=plans[0], times=measured, on_gpus=specs[0].num_gpus_per_rank > 0)


def _specs(measured: Sequence[Times], promised: Sequence[Node]) -> list[GangSpec]:
    """Of each case. Raises BadInput for too few nodes."""
    return [spec_of(times.case.layout, times.case.gangs, promised) for times in measured]


def read_cases(options: ScalingOptions) -> list[Case]:
    """Layouts with one gang each, and numbers of gangs of the first. Raises BadInput for what is neither."""
    layouts = read_layouts(options.layouts)
    numbers = [number for number in read_gangs(options.gangs) if number > 1]
    return [Case(layout=layout) for layout in layouts] + [Case(layout=layouts[0], gangs=number) for number in numbers]


def read_gangs(numbers: str | None) -> list[int]:
    """Those of `--gangs`. Raises BadInput for what is no number, or below 1."""
    try:
        found = [int(number) for number in numbers.split(",")] if numbers else []
    except ValueError as error:
        raise BadInput(f"--gangs takes numbers separated by commas, such as 1,2,4, not {numbers}") from error
    for number in found:
        check_count("gangs", number, MOST_MEASURED)
    return found


def check_layout(options: ScalingOptions, layout: Layout) -> Plan:
    """What it would render. Raises BadInput if that is not possible, as is asked before the first begins."""
    plan = make_plan(render_options(options, replace(layout, cfg=1), options.out))
    if layout.cfg > plan.least_passes:
        raise BadInput(
            f"layout {layout_name(layout)} gives each of two passes its own ranks, and {plan.facts.name} renders these "
            "videos with one pass a step, without guidance by a second one"
        )
    return plan


@contextmanager
def _folder(storage: Storage) -> Iterator[str]:
    """For the videos of a turn, which are not kept."""
    name = f"turn-{secrets.token_hex(4)}"
    try:
        yield storage.where(name)
    finally:
        storage.remove(name)


def _play(options: ScalingOptions, out: str, times: Times, spec: GangSpec, *, is_first: bool) -> None:
    """One turn: gangs of their own, probes, and the videos."""
    case = times.case
    plan = make_plan(render_options(options, case.layout, out))
    workload, listener = Measured(workload=workload_of(plan, case.layout)), Listener(case.name)
    may_grow_to = nodes_as_given(plan.options)
    with open_pool(spec=spec, gangs=case.gangs, workload=workload, on_event=listener, may_grow_to=may_grow_to) as pool:
        warm_up(pool, listener, plan, case.gangs)
        measure(pool, listener, plan, times, num=options.num, with_small=is_first)


def warm_up(pool: Pool[Asked, Found], listener: Listener, plan: Plan, gangs: int) -> None:
    """Until each gang has rendered a video, which does not count."""
    while len(listener.gangs) < gangs:
        pool.run(plan.items[:1] * (gangs - len(listener.gangs)))


def measure(
    pool: Pool[Asked, Found], listener: Listener, plan: Plan, times: Times, *, num: int, with_small: bool
) -> None:
    """So many videos of each gang between two probes, and smaller ones where rates are to be told from fixed costs."""
    case, others = times.case, plan.items[1:] or plan.items
    request = ProbeRequest.of(setup_of(plan, plan.items[0], case.layout), plan.settings.dtype)
    probes = [request] if case.gangs == 1 else []
    listener.probes = times.probes
    pool.run(probes)
    items = list(islice(cycle(others), num * case.gangs))
    listener.into = times.videos
    pool.run(items)
    if with_small and (small := [smaller for item in items if (smaller := _smaller(plan, item))]):
        listener.into = times.small
        pool.run(small)
    listener.into = None
    pool.run(probes)


def _smaller(plan: Plan, item: RenderItem) -> RenderItem | None:
    """With about half of the frames; None where there are too few."""
    _, _, frames = plan.facts.nearest(item.height, item.width, item.num_frames // 2)
    return item.model_copy(update={"num_frames": frames}) if 0 < frames < item.num_frames else None


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


def render_options(options: ScalingOptions, layout: Layout, out: str) -> RenderOptions:
    """As `render` would take them."""
    return RenderOptions(
        prompts=options.prompts or PROMPTS_FILE,
        out=out,
        model=options.model,
        method=options.method,
        video=options.video,
        cfg=2 if layout.cfg == 2 else 1,
        ulysses=layout.ulysses,
        ring=layout.ring,
        nodes=options.nodes,
        limit=options.num + 1,
    )
