"""What a gang is made of: how its ranks share a video, and what each of them gets."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from caching.recipe.recipe import Recipe
from cluster.devices import VISIBLE_GPUS
from cluster.placement import GangSpec, living_nodes, room, shortfall
from jobs.errors import BadInput
from jobs.models.numbers import Numbers
from jobs.options.batch import RenderOptions
from jobs.request.passes import most_ranks_beside_proxies
from parallel.kernels import Choice
from parallel.layout import Layout, choose

Node = Mapping[str, float]
# What a process reads when it starts; a rank is told of its variables later.
TOO_LATE = ("RAY_", "LD_", "PYTHON", "MALLOC_")
NODES = re.compile(r"([1-9]\d*)x(\w+=\d+(?:,\w+=\d+)*)")  # 4xCPU=96,GPU=8
MOST_NODES = MOST_SLOTS = 4096
LEAST_TOKENS = 256  # of a rank, where the layout is chosen: with fewer it mostly waits for the others


def layout_as_given(options: RenderOptions) -> Layout:
    """The degrees that were given, 1 for what is to be chosen. Raises BadInput for what no cluster can do."""
    layout = Layout(cfg=_given(options.cfg) or 1, ulysses=_given(options.ulysses) or 1, ring=_given(options.ring) or 1)
    if options.sp_engine == "deepspeed" and (layout.ring > 1 or options.ring == "auto"):
        raise BadInput(f"--sp-engine deepspeed has no Ring: --ring must be 1, not {options.ring}")
    if options.sp_engine == "deepspeed" and options.cfg != 1:
        raise BadInput(f"--sp-engine deepspeed takes all ranks for the tokens: --cfg must be 1, not {options.cfg}")
    return layout


def choice_as_given(options: RenderOptions) -> Choice:
    """The attention kernel. Raises BadInput for one that there is not, or that cannot do the layout."""
    try:
        choice = Choice.read(options.attention)
        choice.check(ring=options.ring != 1)
    except ValueError as error:
        raise BadInput(f"--attention {options.attention}: {error}") from error
    return choice


def gang_spec(
    options: RenderOptions,
    *,
    model: Numbers,
    tokens: int,
    methods: Collection[Recipe],
    num_passes: int = 1,
    nodes: Sequence[Node] | None = None,
) -> tuple[Layout, GangSpec]:
    """The layout, and what each rank gets: a GPU if the cluster has any, and the CPUs asked for, or an equal share.

    `tokens` are those of the smallest video, `methods` those of all videos, `num_passes` the fewest that a step of any
    has. `nodes` are the resources of each node, by default as `cluster_nodes` says. Raises BadInput if that is too
    little.
    """
    nodes = nodes or cluster_nodes(options)
    device = "GPU" if _have_gpus(nodes) else "CPU"
    if device == "CPU" and not choice_as_given(options).on_cpu:
        raise BadInput(f"--attention {options.attention} is a kernel for GPUs, of which there is none")
    most = min(most_ranks(tokens, method) for method in methods) if model.attends_to_all else 1
    if device == "GPU":
        beside_proxies = min(most_ranks_beside_proxies(method, model, tokens) for method in methods)
        most = int(max(1, min(most, beside_proxies)))
    slots = [int(node.get(device, 0)) for node in nodes]
    layout = _layout(options, _cfg(options, methods, num_passes, slots), model.heads, most, slots)
    spec = replace(
        smallest_spec(layout, nodes),
        start_timeout_s=options.start_timeout,
        collective_timeout_s=options.deadline,
        silence_s=float(options.heartbeat),
        env=environment_as_given(options),
    )
    return layout, _with_cpus(spec, options.cpus_per_rank, num_gangs(options, spec, nodes), nodes)


def cluster_nodes(options: RenderOptions) -> Sequence[Node]:
    """The resources of each node that the cluster may grow to, if that was given, else of each that Ray has."""
    return nodes_as_given(options) or living_nodes()


def nodes_as_given(options: RenderOptions) -> list[Node]:
    """What `--nodes` promises; nothing without it. Raises BadInput for what cannot be read."""
    if options.nodes is None:
        return []
    given = NODES.fullmatch(options.nodes)
    if given is None:
        raise BadInput(f"--nodes {options.nodes} should be a number of equal nodes, such as 4xCPU=96,GPU=8")
    resources = {name: float(amount) for name, _, amount in (pair.partition("=") for pair in given[2].split(","))}
    if int(given[1]) > MOST_NODES or max(resources.get("CPU", 0), resources.get("GPU", 0)) > MOST_SLOTS:
        raise BadInput(f"--nodes {options.nodes} is more than {MOST_NODES} nodes of {MOST_SLOTS} CPUs or GPUs each")
    return [resources] * int(given[1])


def environment_as_given(options: RenderOptions) -> dict[str, str]:
    """What `--env` sets in every rank. Raises BadInput for what is no assignment, or would have no effect."""
    return dict(map(_assignment, options.env))


def _assignment(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name.isidentifier()):
        raise BadInput(f"--env {text} should be NAME=VALUE, such as NCCL_IB_HCA=mlx5")
    if name == VISIBLE_GPUS:
        raise BadInput(f"--env {name} would give all ranks of a node the same GPUs: Ray gives each rank its own")
    if name.startswith(TOO_LATE):
        raise BadInput(f"--env {name} would be set after it is read: set it where Ray is started, on each node")
    return name, value


def num_gangs(options: RenderOptions, spec: GangSpec, nodes: Sequence[Node]) -> int:
    """As many as were asked for, or as there is room for on the nodes; at least 1."""
    return max(1, room(spec, nodes)) if options.gangs == "auto" else options.gangs


def gangs_to_ask_for(options: RenderOptions, spec: GangSpec) -> int | None:
    """How many gangs are asked for from the beginning; None for as many as the cluster has room for at each moment.

    An autoscaler starts only nodes that something waits for.
    """
    promised = nodes_as_given(options)
    return None if options.gangs == "auto" and not promised else num_gangs(options, spec, promised)


def smallest_spec(layout: Layout, nodes: Sequence[Node]) -> GangSpec:
    """A GPU a rank if the cluster has any, and one CPU; a Ulysses group shares a node."""
    gpus = 1 if _have_gpus(nodes) else 0
    return GangSpec(world_size=layout.world_size, together=layout.ulysses, num_gpus_per_rank=gpus)


def spec_of(layout: Layout, gangs: int = 1, promised: Sequence[Node] = ()) -> GangSpec:
    """The smallest on the running cluster, or on what it may grow to. Raises BadInput for too little for the gangs."""
    nodes = promised or living_nodes()
    spec = smallest_spec(layout, nodes)
    if missing := shortfall(spec, gangs, nodes):
        raise BadInput(missing)
    return spec


def _have_gpus(nodes: Sequence[Node]) -> bool:
    return any(node.get("GPU", 0) for node in nodes)


def _cfg(options: RenderOptions, methods: Collection[Recipe], num_passes: int, slots: list[int]) -> int:
    """Of automatic degrees the first: nothing else halves a video's time for so little that is sent.

    The last, where sparse steps have one pass, which both parts of the ranks would compute.
    """
    if options.cfg != "auto":
        return options.cfg
    has_one_pass = any(method.one_pass_when_sparse for method in methods)
    if has_one_pass and "auto" in (options.ulysses, options.ring, options.gangs):
        return 1
    ranks = (_given(options.ulysses) or 1) * (_given(options.ring) or 1) * _least_gangs(options)
    return num_passes if sum(slots) >= num_passes * ranks else 1


def _least_gangs(options: RenderOptions) -> int:
    return 1 if options.gangs == "auto" else options.gangs


def _layout(options: RenderOptions, cfg: int, heads: int, most: int, slots: list[int]) -> Layout:
    given = {"ulysses": _given(options.ulysses), "ring": _given(options.ring)}
    if all(given.values()):
        return replace(layout_as_given(options), cfg=cfg)
    try:
        of_a_pass = choose(heads=heads, slots=slots, most=most, gangs=_least_gangs(options) * cfg, **given)
        return replace(of_a_pass, cfg=cfg)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _given(degree: int | Literal["auto"]) -> int | None:
    return None if degree == "auto" else degree


def most_ranks(tokens: int, method: Recipe) -> int:
    """As many as can share a video, for the number of its tokens and for the method."""
    return max(1, min(tokens // LEAST_TOKENS, method.shards or tokens))


def _with_cpus(spec: GangSpec, asked: int | Literal["auto"], gangs: int, nodes: Sequence[Node]) -> GangSpec:
    """With as many CPUs a rank as were asked for, or as all gangs can have."""
    most = max(1, int(max(node.get("CPU", 0) for node in nodes)))
    missing = None
    for cpus in range(most, 0, -1) if asked == "auto" else [asked]:
        spec = replace(spec, num_cpus_per_rank=cpus)
        missing = shortfall(spec, gangs, nodes)
        if missing is None:
            return spec
    raise BadInput(missing)
