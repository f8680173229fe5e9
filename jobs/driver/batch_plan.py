"""A checked batch: what is asked for, what is there already, and what is left to render."""

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec

from caching.recipe.recipe import Recipe
from cluster.heap import uncollected
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.batch import RenderOptions
from jobs.options.measure import VideoOptions
from jobs.request.gangs import layout_as_given, nodes_as_given
from jobs.request.prompts import Defaults, Item, read_items
from jobs.request.recipes import resolve_method
from jobs.store.items import RenderItem, check_names
from jobs.store.known import Known, difference, survey
from jobs.store.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked batch: every item, and what is known of those that were rendered or given up before."""

    options: RenderOptions
    facts: ModelFacts
    method: Recipe
    storage: Storage
    items: list[RenderItem]
    known: Known

    @cached_property
    def todo(self) -> list[RenderItem]:
        """The items to render."""
        known = self.known
        return [item for item in self.items if item.id not in known.finished and item.id not in known.given_up]

    def num_tokens(self, item: RenderItem) -> int:
        """The latent tokens of an item."""
        return self.facts.num_tokens(item.height, item.width, item.num_frames)


@uncollected()
def make_plan(options: RenderOptions) -> Plan:
    """Read and check all that can be known without a model or Ray. Leaves no trace. Raises BadInput."""
    check_numbers(options)
    facts, storage = read_facts(options.model, own_code=options.trust_remote_code), Storage(options.out)
    method = resolve_method(options.method, options.cache, facts.plans)
    lines = read_items(options.prompts, defaults_for(facts, options.video))[: options.limit]
    _check_sizes(lines, facts, options, method)
    items = _render_items(lines, facts, method, options, storage)
    check_names(items)
    known = survey(storage, items, verify=options.verify)
    if known.changed and not options.replace:
        raise BadInput(_refusal(storage, items, known))
    plan = Plan(
        options=options,
        facts=facts,
        method=method,
        storage=storage,
        items=items,
        known=replace(known, given_up={}) if options.retry else known,
    )
    if plan.todo:  # A batch that is finished may lie where nothing can be written.
        storage.check_writable()
    return plan


def defaults_for(facts: ModelFacts, video: VideoOptions) -> Defaults:
    """What a prompt without its own settings takes: the command line's, else the model's. Raises BadInput."""
    check_video(video)
    return Defaults(
        height=video.height or facts.defaults.height,
        width=video.width or facts.defaults.width,
        num_frames=video.num_frames or facts.defaults.num_frames,
        steps=video.steps or facts.defaults.steps,
        seed=video.seed,
        fps=video.fps or facts.defaults.fps,
    )


def guidance_for(facts: ModelFacts, video: VideoOptions) -> float:
    """The guidance scale, the model's own if none is given. Raises BadInput for a model that has no such input."""
    if video.guidance is None:
        return facts.defaults.guidance
    if not facts.guidance_embeds:
        raise BadInput(f"model {facts.name} has no guidance embedding; leave out --guidance")
    return video.guidance


def check_numbers(options: RenderOptions) -> None:
    """Raises BadInput for a number that no video or layout can have."""
    check_video(options.video)
    nodes_as_given(options)
    _check_counts(options, ("ulysses", "ring", "gangs", "deadline", "heartbeat", "limit"))
    _check_counts(options, ("tries", "lost_gangs", "cpus_per_rank", "checkpoint_every"))
    if options.sp_engine == "deepspeed" and not find_spec("deepspeed"):
        raise BadInput("--sp-engine deepspeed needs a package: pip install -e '.[deepspeed]'")


def check_video(video: VideoOptions) -> None:
    """Raises BadInput for a number that no video can have."""
    _check_counts(video, ("steps", "height", "width", "num_frames", "fps"))
    if not 0 <= video.seed < 2**62:
        raise BadInput(f"--seed must be between 0 and 2**62, not {video.seed}")
    if video.guidance is not None and not (math.isfinite(video.guidance) and video.guidance >= 0):
        raise BadInput(f"--guidance must be a number of at least 0, not {video.guidance}")


def _check_counts(options: RenderOptions | VideoOptions, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(options, name)
        if isinstance(value, int) and value < 1:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, not {value}")


def _check_sizes(lines: list[Item], facts: ModelFacts, options: RenderOptions, method: Recipe) -> None:
    layout = layout_as_given(options)

    @cache
    def check(height: int, width: int, num_frames: int, steps: int) -> None:
        facts.check_size(height, width, num_frames)
        num_tokens = facts.num_tokens(height, width, num_frames)
        layout.check(heads=facts.heads, tokens=num_tokens)
        method.schedule.start(method.schedule.num_steps(steps))
        _check_clusters(method, num_tokens, layout.world_size)

    for line in lines:
        try:
            check(line.height, line.width, line.num_frames, line.steps)
        except ValueError as error:
            raise BadInput(f"{line.where}: {error}") from error


def _check_clusters(method: Recipe, num_tokens: int, world_size: int) -> None:
    tokens = method.tokens
    if tokens is None:
        return
    if tokens.shards < world_size:
        hint = f"; a recipe file may say tokens: {{shards: {world_size}}}" if tokens.shards > 1 else ""
        raise BadInput(f"method {method.name} runs on at most {tokens.shards} ranks a gang, not on {world_size}{hint}")
    clusters = getattr(tokens, "clusters", 0)
    if clusters > num_tokens // tokens.shards * tokens.shards:
        raise BadInput(f"{clusters} clusters are too many for a video of {num_tokens} tokens")


def _render_items(
    lines: list[Item], facts: ModelFacts, method: Recipe, options: RenderOptions, storage: Storage
) -> list[RenderItem]:
    video = options.video
    common = {
        "fps": video.fps or facts.defaults.fps,
        "guidance": guidance_for(facts, video),
        "model": facts.source,
        "revision": facts.revision,
        "method": method.describe(),
        "dtype": facts.dtype if video.dtype == "auto" else video.dtype,
        "out": str(storage),
        "save_latents": options.save_latents,
    }
    return [RenderItem(**line.model_dump(exclude={"where"}), **common) for line in lines]


def _refusal(storage: Storage, items: list[RenderItem], known: Known) -> str:
    """That, and how, the first of the items that lie there with other settings differs."""
    first = next(item for item in items if item.id in known.changed)
    there = known.changed[first.id]
    others = f", and so were {len(known.changed) - 1} more" if len(known.changed) > 1 else ""
    return (
        f"{there.name}.mp4 in {storage} was rendered with other settings "
        f"({difference(storage, first, there)}){others}; choose another --out, or render anew with --replace"
    )
