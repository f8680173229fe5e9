"""What can be known of a request before a model is loaded: numbers, sizes, clusters, layouts."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.models.directory import INDEX, read_json
from jobs.models.facts import ModelFacts
from jobs.models.family import MOST, SCALES
from jobs.options.batch import RenderOptions
from jobs.options.shared import VideoOptions
from jobs.request.choice import part_as_given, seeds_as_given
from jobs.request.gangs import choice_as_given, environment_as_given, layout_as_given, nodes_as_given
from jobs.request.prompts import Defaults, Item
from jobs.store.items import BatchSettings
from jobs.store.medium import IMAGE
from parallel.layout import Layout

# Far above what any cluster has. Seconds have to fit into what waits for them, and tries into their backoff.
MOST_OF_OPTIONS = {
    **{"ulysses": 4096, "ring": 4096, "gangs": 100_000, "cpus_per_rank": 4096},
    **{"start_timeout": 10_000_000, "deadline": 10_000_000, "heartbeat": 10_000_000},
    **{"tries": 1000, "lost_gangs": 1000},
    **{"images_per_prompt": 10_000},
    **{"limit": 1_000_000_000, "checkpoint_every": 1_000_000_000},
}
# What is taken for a suffix of an output, where others are parts of its name.
OF_OTHERS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".webp", ".json", ".safetensors")
MOST_MEASURED = 100_000  # videos, or rounds of them
LONGEST_WARM_MIN = 10_080  # a week
LEAST_PRIORITY, MOST_PRIORITY = 0.01, 100.0


def defaults_for(facts: ModelFacts, video: VideoOptions) -> Defaults:
    """What a prompt without its own settings takes: the command line's, else the model's. Raises BadInput."""
    check_video(video)
    _check_lasts(facts, video)
    return Defaults(
        height=video.height or facts.defaults.height,
        width=video.width or facts.defaults.width,
        num_frames=video.num_frames or facts.defaults.num_frames,
        steps=video.steps or facts.defaults.steps,
        seed=video.seed,
        fps=video.fps or facts.defaults.fps,
    )


def _check_lasts(facts: ModelFacts, video: VideoOptions) -> None:
    """Raises BadInput for what is asked of a video alone, where images are made."""
    asked = [name for name in ("num_frames", "fps") if getattr(video, name) is not None]
    if asked and facts.family.medium is IMAGE:
        option = f"--{asked[0].replace('_', '-')}"
        raise BadInput(f"model {facts.name} makes images, each of one frame; leave out {option}")


def check_files(lines: Iterable[Item], facts: ModelFacts) -> None:
    """Raises BadInput, naming the line, for what files of this model do not have: frames a second, another suffix."""
    medium = facts.family.medium
    for line in lines:
        if line.fps is not None and medium is IMAGE:
            raise BadInput(f"{line.where}: model {facts.name} makes images, each of one frame; leave out its fps")
        if line.output and line.output.lower().endswith(OF_OTHERS) and not line.output.endswith(f".{medium.suffix}"):
            ends = f"end in .{medium.suffix} or have no suffix"
            raise BadInput(
                f"{line.where}: output {line.output!r} should {ends}: model {facts.name} makes {medium.name}s"
            )


def copies_of(facts: ModelFacts, images_per_prompt: int | None) -> int:
    """How often each prompt is rendered. Raises BadInput where that is asked for of videos."""
    if images_per_prompt is not None and facts.family.medium is not IMAGE:
        raise BadInput(f"model {facts.name} makes videos; leave out --images-per-prompt, or give --seeds")
    return images_per_prompt or 1


def check_numbers(options: RenderOptions) -> None:
    """Raises BadInput for a number that no video or layout can have."""
    check_video(options.video)
    nodes_as_given(options)
    environment_as_given(options)
    _check_counts(options, MOST_OF_OPTIONS)
    check_price(options.price)
    choice_as_given(options)
    seeds_as_given(options.lines.seeds)
    if options.sample is not None:
        part_as_given(options.sample)
    _check_sharing(options)
    if options.sp_engine == "deepspeed" and not find_spec("deepspeed"):
        raise BadInput("--sp-engine deepspeed needs a package: pip install -e '.[deepspeed]'")


def check_price(price: float | None) -> None:
    """Raises BadInput for what an hour cannot cost."""
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise BadInput(f"--price must be a number of at least 0, not {price}")


def _check_sharing(options: RenderOptions) -> None:
    minutes, priority = options.keep_warm, options.priority
    if minutes is not None and not 0 < minutes <= LONGEST_WARM_MIN:
        raise BadInput(f"--keep-warm must be above 0 and at most {LONGEST_WARM_MIN} minutes, not {minutes:g}")
    if not LEAST_PRIORITY <= priority <= MOST_PRIORITY:
        raise BadInput(f"--priority must be between {LEAST_PRIORITY} and {MOST_PRIORITY:g}, not {priority:g}")
    if priority != 1 and minutes is None:
        raise BadInput("--priority is among batches that share gangs: it needs --keep-warm")


def check_video(video: VideoOptions) -> None:
    """Raises BadInput for a number that no video can have."""
    _check_counts(video, MOST)
    if not 0 <= video.seed < 2**62:
        raise BadInput(f"--seed must be between 0 and 2**62, not {video.seed}")
    for name in SCALES:
        scale = getattr(video, name)
        if scale is not None and not (math.isfinite(scale) and scale >= 0):
            raise BadInput(f"--{name.replace('_', '-')} must be a number of at least 0, not {scale}")


def check_count(name: str, value: int, most: int, least: int = 1) -> None:
    """Raises BadInput, naming the option, for a value below `least` or above `most`."""
    option = f"--{name.replace('_', '-')}"
    if value < least:
        raise BadInput(f"{option} must be at least {least}, not {value}")
    if value > most:
        raise BadInput(f"{option} must be at most {most}, not {value}")


def _check_counts(options: RenderOptions | VideoOptions, most: Mapping[str, int]) -> None:
    for name in most:
        if isinstance(value := getattr(options, name), int):
            check_count(name, value, most[name])


def check_sizes(
    lines: list[Item],
    facts: ModelFacts,
    options: RenderOptions,
    settings: BatchSettings,
    layout: Layout | None = None,
) -> None:
    """Raises BadInput, naming the line, for a video that the model, the layout or its method cannot do.

    The layout is that of the options, unless another one was found for them.
    """
    layout = layout or layout_as_given(options)

    @cache
    def check(height: int, width: int, num_frames: int, steps: int, name: str | None) -> None:
        method = settings.recipe(name)
        facts.check_size(height, width, num_frames)
        num_tokens = facts.num_tokens(height, width, num_frames)
        layout.check(heads=facts.heads, tokens=num_tokens)
        method.schedule.start(method.schedule.num_steps(steps))
        _check_ranks(facts, layout)
        check_attention(facts, method)
        _check_clusters(method, num_tokens, layout.sequence_size)

    for line in lines:
        try:
            check(line.height, line.width, line.num_frames, line.steps, line.method)
        except ValueError as error:
            raise BadInput(f"{line.where}: {error}") from error


def check_prompts(lines: Iterable[Item], facts: ModelFacts) -> None:
    """Raises BadInput, naming the line, for a prompt that the model cannot be asked for."""
    index = read_json(facts.directory / INDEX)
    for line in lines:
        if obstacle := facts.family.prompt_obstacle(index, line.prompt):
            raise BadInput(f"{line.where}: {obstacle}")


def check_attention(facts: ModelFacts, method: Recipe) -> None:
    """Raises BadInput for what needs tokens that attend to all others, of a model whose do not."""
    if method.attends_anew and not facts.attends_to_all:
        raise BadInput(f"method {method.name} lets each token attend to all others, which {facts.name} does not")


def _check_ranks(facts: ModelFacts, layout: Layout) -> None:
    """Raises BadInput for several ranks that share the tokens of a model whose do not attend to all others."""
    if layout.sequence_size > 1 and not facts.attends_to_all:
        raise BadInput(
            f"tokens of {facts.name} attend in space and in time by turns, on one rank, not on {layout.sequence_size}; "
            "--cfg 2 gives each pass of guidance a rank"
        )


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
