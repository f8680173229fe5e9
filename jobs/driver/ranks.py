"""What a batch runs on: its gangs, and what each of their ranks builds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.keep_warm import KeepWarm
from cluster.placement import GangSpec
from cluster.session import Workload
from jobs.driver.batch_plan import Plan
from jobs.driver.warm import keep_warm
from jobs.rank.workload import RenderWorkload
from jobs.request.gangs import gangs_to_ask_for
from jobs.store.items import RenderItem
from parallel.layout import Layout

if TYPE_CHECKING:
    from cluster.remote import StartWorker


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """What a batch runs on: gangs (None for as many as there is room for), and what each rank builds.

    `start_worker` starts a rank, where that is not done as ever; `keep` says that gangs outlive the batch, and how.
    """

    spec: GangSpec
    gangs: int | None
    layout: Layout
    workload: Workload[RenderItem, Mapping[str, object] | None]
    start_worker: "StartWorker | None" = None
    keep: KeepWarm | None = None


def ranks_of(plan: Plan, layout: Layout, spec: GangSpec) -> Ranks:
    """As a plan's options ask for them."""
    options, workload = plan.options, workload_of(plan, layout)
    keep = keep_warm(options, workload, spec)
    return Ranks(spec=spec, gangs=gangs_to_ask_for(options, spec), layout=layout, workload=workload, keep=keep)


def workload_of(plan: Plan, layout: Layout) -> RenderWorkload:
    """What each rank of a gang builds."""
    options = plan.options
    return RenderWorkload(
        settings=plan.settings,
        prompt_template=plan.facts.defaults.prompt_template,
        layout=layout,
        engine=options.sp_engine,
        compiled=options.video.compile,
        deadline_s=options.deadline,
        shard_weights=options.shard_weights,
        offload=options.offload,
        own_code=options.trust_remote_code,
        checkpoint_every=options.checkpoint_every,
    )
