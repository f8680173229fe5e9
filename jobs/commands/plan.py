"""`resca plan PROMPTS --out DIR`: what `render` with the same options would do, on what, and for how long."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TypedDict

from rich.console import Console

from cluster.cpus import usable_cpus
from cluster.environment import ray_address
from cluster.placement import living_nodes
from jobs.console import count, duration, make_console, print_rows, write_rows
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.expected import Estimate, Expected, estimate, expected_of
from jobs.driver.gpu_memory import check_gpu_memory
from jobs.driver.on_end import check_form
from jobs.driver.ray import running_ray
from jobs.errors import DONE
from jobs.options.batch import PlanOptions
from jobs.request.gangs import Node, gang_spec, nodes_as_given, num_gangs
from jobs.store.items import RenderItem


class SizeRow(TypedDict):
    """What is left of one size and method; `seconds` are those of one video, where that is known, the mean of all."""

    size: str
    method: str
    steps: int
    tokens: int
    videos: int
    seconds: float | None


def run(options: PlanOptions) -> int:
    """Print the plan. Raises BadInput for what `render` would refuse, InfrastructureError if no cluster answers."""
    if options.on_end is not None:
        check_form(options.on_end)
    plan, console = make_plan(options), make_console()
    known = f"{len(plan.known.finished)} finished, {len(plan.known.given_up)} given up, {len(plan.todo)} to render"
    headline = f"{count(len(plan.items), plan.noun)} with {plan.facts.name}, {plan.method_words}: {known}"
    console.print("\n".join([headline, *plan.notices]), soft_wrap=True)
    if not plan.todo:
        return DONE
    nodes, where = _nodes(options)
    layout, spec = gang_spec(
        options,
        model=plan.facts,
        tokens=plan.least_tokens,
        methods=plan.methods,
        num_passes=plan.least_passes,
        nodes=nodes,
    )
    gangs, on_gpus = num_gangs(options, spec, nodes), spec.num_gpus_per_rank > 0
    expected = expected_of(plan, layout, on_gpus=on_gpus)
    each = " and ".join(f"{amount:g} {name}" for name, amount in spec.rank.items() if amount)
    console.print(
        f"on {where}: {count(gangs, 'gang')} of {layout.words}, {each} a rank",
        soft_wrap=True,
    )
    if spec.num_gpus_per_rank and (need := check_gpu_memory(plan, layout, nodes)):
        console.print(need, soft_wrap=True)
    rows = _rows(plan, expected)
    print_rows(console, rows)
    price = plan.known.usage.price if options.price is None else options.price
    _print_estimate(console, estimate(plan, expected, gangs=gangs), layout.world_size, on_gpus=on_gpus, price=price)
    if options.json:
        write_rows(options.json, rows)
    return DONE


def _rows(plan: Plan, expected: Expected) -> list[SizeRow]:
    """One row a size and method, the commonest first."""
    sizes: dict[tuple[str, str, int], list[RenderItem]] = defaultdict(list)
    for item in plan.todo:
        size, method = f"{item.height}x{item.width}x{item.num_frames}", plan.method_of(item).name
        sizes[size, method, item.steps].append(item)
    return [
        {
            "size": size,
            "method": method,
            "steps": steps,
            "tokens": plan.num_tokens(items[0]),
            "videos": len(items),
            "seconds": _mean_seconds(items, expected),
        }
        for (size, method, steps), items in sorted(sizes.items(), key=lambda pair: -len(pair[1]))
    ]


def _mean_seconds(items: list[RenderItem], expected: Expected) -> float | None:
    if not expected.num_finished:
        return None
    return round(fmean(expected.seconds(expected.kind_of(item)) for item in items), 2)


def _print_estimate(
    console: Console, left: Estimate | None, num_ranks: int, *, on_gpus: bool, price: float | None
) -> None:
    if left is None:
        console.print("how long is not known: nothing of this batch is finished; render some with --limit 3 first")
        return
    unit, hours = "GPU-hours" if on_gpus else "rank-hours", left.gang_s * num_ranks / 3600
    cost = "" if price is None else f", cost {hours * price:,.2f}"
    console.print(f"about {duration(left.wall_s)}, {hours:.2g} {unit}{cost} ({left.basis})", soft_wrap=True)


def _nodes(options: PlanOptions) -> tuple[Sequence[Node], str]:
    """What was given, or the cluster at the address has; without one this machine."""
    if nodes := nodes_as_given(options):
        return nodes, count(len(nodes), "node")
    address = ray_address(options.address)
    if address is None:
        return [_this_machine()], "this machine"
    with running_ray(address):
        nodes = living_nodes()
    return nodes, f"the cluster at {address} ({count(len(nodes), 'node')})"


def _this_machine() -> dict[str, float]:
    import torch

    return {"CPU": float(usable_cpus()), "GPU": float(torch.cuda.device_count())}
