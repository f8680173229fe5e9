"""Whether the largest video of each method fits on the GPUs that it will have, said before anything starts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.environment import ray_address
from cluster.gpus import least_memory, least_memory_here
from jobs.driver.batch_plan import Plan
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions
from jobs.request.gangs import Node, nodes_as_given
from jobs.store.items import FP8, RenderItem
from parallel.layout import Layout

if TYPE_CHECKING:
    from jobs.rank.memory import Setting


def check_gpu_memory(plan: Plan, layout: Layout, nodes: Sequence[Node]) -> str | None:
    """What each GPU needs, in a sentence; None for a model of which that is not known.

    Raises BadInput, naming what would fit, if the GPUs of these nodes have less.
    """
    import torch

    from jobs.rank.memory import MemoryPlanner, models_at

    dtype = getattr(torch, plan.settings.dtype)
    models = models_at(plan.facts.directory, dtype)
    if models is None:
        return None
    planner = MemoryPlanner(models, plan.facts, dtype)
    gpu_bytes, slots = _least_gpu_bytes(plan.options, nodes), max(int(node.get("GPU", 0)) for node in nodes)
    settings = [_setting_of_largest(items, plan, layout) for items in plan.todo_by_method]
    for setting in settings:
        if gpu_bytes and (refusal := planner.refusal(setting, gpu_bytes, slots)):
            raise BadInput(refusal)
    most = max(settings, key=lambda setting: planner.need(setting).total)
    return f"{most.size} needs {planner.need(most)} on each GPU"


def _setting_of_largest(items: Sequence[RenderItem], plan: Plan, layout: Layout) -> "Setting":
    """Of items of one method."""
    from jobs.rank.memory import Setting

    largest = max(items, key=plan.num_tokens)
    return Setting(
        method=plan.method_of(largest),
        height=largest.height,
        width=largest.width,
        num_frames=largest.num_frames,
        num_steps=largest.steps,
        layout=layout,
        shard_weights=plan.options.shard_weights,
        offload=plan.options.offload,
        fp8=plan.settings.weights == FP8,
        num_passes=max(map(plan.num_passes, items)),
    )


def _least_gpu_bytes(options: RenderOptions, nodes: Sequence[Node]) -> float | None:
    """The memory of the smallest GPU; None where that is not known, as of nodes that do not run yet."""
    if nodes_as_given(options):
        return None
    return least_memory(nodes) if ray_address(options.address) else least_memory_here()
