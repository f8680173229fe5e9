"""What can be known of a request before a model is loaded: numbers, sizes, clusters, layouts."""

import math
from functools import cache
from importlib.util import find_spec

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts
from jobs.options.batch import RenderOptions
from jobs.options.shared import VideoOptions
from jobs.request.gangs import layout_as_given, nodes_as_given
from jobs.request.prompts import Defaults, Item


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


def check_sizes(lines: list[Item], facts: ModelFacts, options: RenderOptions, method: Recipe) -> None:
    """Raises BadInput, naming the line, for a video that the model, the layout or the method cannot do."""
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
    clusters = tokens.num_clusters
    if clusters > num_tokens // tokens.shards * tokens.shards:
        raise BadInput(f"{clusters} clusters are too many for a video of {num_tokens} tokens")
