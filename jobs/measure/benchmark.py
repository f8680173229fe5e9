"""Methods compared on the same prompts and seeds, in one process, interleaved."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

from caching.recipe.recipe import RECIPES, Multistep, Recipe, Taylor
from caching.recipe.schedule import Interval
from jobs.demo import PROMPTS_FILE
from jobs.demo.items import benchmark_items
from jobs.errors import BadInput
from jobs.measure.contest import Contest, Tally
from jobs.measure.contestants import Contestant, PeerContestant, RecipeContestant
from jobs.models.demos import DEMOS
from jobs.models.directory import transformers_of
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.measure import BenchmarkOptions
from jobs.request.checks import MOST_MEASURED, check_attention, check_count, check_prompts, defaults_for
from jobs.request.prompts import Item, read_items
from jobs.request.recipes import read_recipe, resolve_method
from jobs.store.items import FP8
from parallel.kernels import Choice
from parallel.local_attention import obstacle

if TYPE_CHECKING:
    from jobs.measure.peers import Peer

SHOWN = 4  # videos on a report's page


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What was asked: methods, attention kernels for full sampling, the items that each renders, and the model.

    `left_out` are methods that `all` stands for, but not on this model. With `fp8` each method is a second contestant
    with weights in 8 bits.
    """

    facts: ModelFacts
    items: list[Item]
    methods: list[Recipe]
    left_out: list[str]
    kernels: list[str]
    fp8: bool


@dataclass(kw_only=True)
class Played:
    """What came of it: a tally a contestant, of `num` items; for a report also the videos of the first few prompts."""

    tallies: list[Tally]
    num: int = 0
    shown: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def read_benchmark(options: BenchmarkOptions) -> BenchmarkRequest:
    """Raises BadInput for a number, model, prompt, method or attention kernel that does not work."""
    check_count("num", options.num, MOST_MEASURED)
    facts = read_facts(options.model, variant=options.video.variant)
    items = _items(options, facts)
    methods, kernels = _methods(options, facts, items), _kernels(options, facts)
    left_out = [name for name in RECIPES if options.wants_all and name not in {method.name for method in methods}]
    return BenchmarkRequest(
        facts=facts, items=items, methods=methods, left_out=left_out, kernels=kernels, fp8=options.weights == FP8
    )


def play(request: BenchmarkRequest, options: BenchmarkOptions, console: Console) -> Played:
    """Render every item with every contestant, or those before Ctrl-C."""
    if request.left_out:
        console.print(f"without {', '.join(request.left_out)}, which {request.facts.name} has no attention for")
    played = Played(tallies=[Tally(each) for each in _contestants(request, options, console)])
    contest = Contest(request.facts, options.video, fp8=request.fp8)
    contest.warm_up(played.tallies, request.items[0])
    try:
        for item in request.items:
            videos = contest.play_all(played.tallies, item)
            if options.report and played.num < SHOWN:
                played.shown[f"{item.prompt} (seed {item.seed})"] = videos
            played.num += 1
            _report(console, played, len(request.items))
    except KeyboardInterrupt:
        if not played.num:
            raise
        console.print(
            f"stopped: figures are of {played.num} of {len(request.items)} {request.facts.family.medium.name}s"
        )
        for tally in played.tallies:
            tally.keep(played.num)
    return played


def _contestants(request: BenchmarkRequest, options: BenchmarkOptions, console: Console) -> list[Contestant]:
    """Our methods, also in 8 bits, full sampling by other kernels, and if asked for the peers that are installed."""
    full = RECIPES["full"]
    contestants: list[Contestant] = [
        *(RecipeContestant(method, _warm_up_recipe(method)) for method in request.methods),
        *(RecipeContestant(method, _warm_up_recipe(method), fp8=True) for method in request.methods if request.fp8),
        *(RecipeContestant(full, full, attention=kernel) for kernel in request.kernels),
    ]
    if not (options.peers or options.only_peers):
        return contestants
    from jobs.measure.peers import PEERS

    num_transformers = len(transformers_of(request.facts.directory, request.facts.family))
    peers = [peer for peer in _asked(PEERS, options) if peer.fits(request.facts.family, num_transformers)]
    for package in sorted({str(peer.needs) for peer in peers if not peer.available}):
        console.print(f"without {package}, which is not installed", soft_wrap=True)
    return [*contestants, *(PeerContestant(peer) for peer in peers if peer.available)]


def _asked(peers: "list[Peer]", options: BenchmarkOptions) -> "list[Peer]":
    """Those of `--only-peers`, or all. Raises BadInput for a name that none has."""
    if options.only_peers is None:
        return peers
    names = [name.strip() for name in options.only_peers.split(",")]
    known = {peer.name: peer for peer in peers}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"no peer is called {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _warm_up_recipe(method: Recipe) -> Recipe:
    """The method with dense and sparse steps in few steps."""
    predictor = Taylor() if isinstance(method.predictor, Multistep) else method.predictor
    return replace(method, schedule=Interval(every=4), predictor=predictor)


def _methods(options: BenchmarkOptions, facts: ModelFacts, items: list[Item]) -> list[Recipe]:
    """The methods that were asked for; all includes the plans beside the model, if made for so many steps."""
    cross = facts.family.cross_attention
    methods = [
        resolve_method(name, options.cache_for(name), facts.plans, cross_attention=cross)
        for name in options.method_names(cross_attention=cross, attends_to_all=facts.attends_to_all)
    ]
    for method in methods:
        check_attention(facts, method)
        if complaint := _complaint(method, items):
            raise BadInput(complaint)
    if not options.wants_all:
        return methods
    plans = [read_recipe(facts.plans[name]) for name in sorted(facts.plans, key=lambda name: (len(name), name))]
    return [*methods, *(plan for plan in plans if not _complaint(plan, items))]


def _kernels(options: BenchmarkOptions, facts: ModelFacts) -> list[str]:
    """The attention kernels that were asked for. Raises BadInput for one that does not work on this machine."""
    names = [name.strip() for name in options.attention.split(",") if name.strip() not in ("", "none")]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, facts.dtype if options.video.dtype == "auto" else options.video.dtype)
    for name in names:
        try:
            without = obstacle(Choice.read(name), device, dtype)
        except ValueError as error:
            raise BadInput(f"--attention {options.attention}: {error}") from error
        if without:
            raise BadInput(f"--attention {options.attention}: {without}")
    return list(dict.fromkeys(names))


def _complaint(method: Recipe, items: list[Item]) -> str | None:
    """Why a method cannot sample one of the items, if it cannot."""
    for item in items:
        try:
            method.schedule.start(method.schedule.num_steps(item.steps))
        except ValueError as error:
            return f"{item.where}: {error}"
    return None


def _items(options: BenchmarkOptions, facts: ModelFacts) -> list[Item]:
    """The prompts, repeated with further seeds until there are enough; the demo model has some for any number."""
    defaults = defaults_for(facts, options.video)
    if options.prompts is None and options.model in DEMOS:
        lines = benchmark_items(options.num, facts, defaults)
    else:
        lines = read_items(options.prompts or PROMPTS_FILE, defaults)
    check_prompts(lines, facts)
    for line in lines:
        facts.check_size(line.height, line.width, line.num_frames)
    repeats = -(-options.num // len(lines))
    many = [line.model_copy(update={"seed": line.seed + 1000 * r}) for r in range(repeats) for line in lines]
    return many[: options.num]


def _report(console: Console, played: Played, total: int) -> None:
    latest = ", ".join(f"{tally.contestant.name} {tally.seconds[-1]:.2f} s" for tally in played.tallies)
    console.print(f"{played.num}/{total}: {latest}", soft_wrap=True)
