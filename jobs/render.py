"""`resca render PROMPTS --out DIR`: check everything, then render on Ray whatever is not finished yet."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from caching.recipe import Recipe
from jobs.errors import DONE, INFRASTRUCTURE, PARTIAL, BadInput, InfrastructureError
from jobs.facts import ModelFacts, read_facts
from jobs.gangs import gang_spec, layout_as_given
from jobs.options import RenderOptions, VideoOptions
from jobs.outputs import RenderItem, Sidecar, check_names, check_writable, finished
from jobs.progress import BatchView, count, done_row, failed_row, make_console, print_table, write_rows
from jobs.prompts import Defaults, Item, read_items
from jobs.recipes import resolve_method
from parallel.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked batch: every item, and the sidecars of those that are finished already."""

    options: RenderOptions
    facts: ModelFacts
    method: Recipe
    items: list[RenderItem]
    finished: dict[str, Sidecar]

    @property
    def todo(self) -> list[RenderItem]:
        """The items to render."""
        return [item for item in self.items if item.id not in self.finished]

    def num_tokens(self, item: RenderItem) -> int:
        """The latent tokens of an item."""
        return self.facts.num_tokens(item.height, item.width, item.num_frames)


def run(options: RenderOptions) -> int:
    """Render a batch. Returns 0 if every video is there, 3 if some failed, 33 if machines failed and a rerun may help.

    Raises:
        BadInput: before anything is written; what is wrong with the request, in one sentence.
        InfrastructureError: no Ray cluster can be reached.
    """
    plan = make_plan(options)
    console = make_console()
    console.print(_headline(plan), soft_wrap=True)
    outcomes = _render(plan, console) if plan.todo else []
    rows = _rows(plan, outcomes)
    print_table(console, rows, options.out / "videos")
    if options.json:
        write_rows(options.json, rows)
    return exit_code(outcomes)


def make_plan(options: RenderOptions) -> Plan:
    """Read and check all that can be known without a model or Ray. Leaves no trace. Raises BadInput."""
    check_numbers(options)
    facts = read_facts(options.model)
    method = resolve_method(options.method, options.cache, facts.plans)
    lines = read_items(options.prompts, defaults_for(facts, options.video))[: options.limit]
    _check_sizes(lines, facts, options, method)
    items = [_render_item(line, facts, method, options) for line in lines]
    check_names(items)
    done = {item.id: sidecar for item in items if (sidecar := finished(item))}
    plan = Plan(options=options, facts=facts, method=method, items=items, finished=done)
    _check_places(plan)
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
    _check_counts(options, ("ulysses", "ring", "gangs", "deadline", "limit"))
    if options.sp_engine == "deepspeed" and not find_spec("deepspeed"):
        raise BadInput("--sp-engine deepspeed needs a package: pip install 'resca-render[deepspeed]'")


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


def exit_code(outcomes: list[Any]) -> int:
    """0 without failures; 33 if all of them were machines' (a rerun may help); 3 otherwise."""
    failures = {outcome.failure.value for outcome in outcomes if outcome.failure}
    if not failures:
        return DONE
    return PARTIAL if "item" in failures else INFRASTRUCTURE


def _check_sizes(lines: list[Item], facts: ModelFacts, options: RenderOptions, method: Recipe) -> None:
    layout = layout_as_given(options)
    for line in lines:
        size = line.height, line.width, line.num_frames
        try:
            facts.check_size(*size)
            layout.check(heads=facts.heads, tokens=facts.num_tokens(*size))
            method.schedule.start(method.schedule.num_steps(line.steps))
            _check_clusters(method, facts.num_tokens(*size), layout.world_size)
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


def _render_item(line: Item, facts: ModelFacts, method: Recipe, options: RenderOptions) -> RenderItem:
    video = options.video
    return RenderItem(
        **line.model_dump(exclude={"where"}),
        fps=video.fps or facts.defaults.fps,
        guidance=guidance_for(facts, video),
        model=facts.source,
        revision=facts.revision,
        method=method.describe(),
        dtype=facts.dtype if video.dtype == "auto" else video.dtype,
        gangs=options.gangs,
        out=str(options.out.absolute()),
        save_latents=options.save_latents,
    )


def _check_places(plan: Plan) -> None:
    """A batch that is finished may lie where nothing can be written."""
    if plan.todo:
        check_writable(plan.options.out / "videos", "output directory")
    if path := plan.options.json:
        if path.is_dir():
            raise BadInput(f"--json {path} is a directory; name a file")
        check_writable(path.parent, "the directory of --json")


def _headline(plan: Plan) -> str:
    again = f", {len(plan.finished)} finished before" if plan.finished else ""
    return f"{count(len(plan.items), 'video')} with {plan.facts.name}, method {plan.options.method}{again}"


def _render(plan: Plan, console: Console) -> list[Any]:
    """Render what is left; everything that was started is gone when this returns or raises."""
    from cluster.batch import run_batch

    options = plan.options
    with running_ray(options.address):
        layout, spec = gang_spec(
            options, heads=plan.facts.heads, tokens=min(map(plan.num_tokens, plan.todo)), method=plan.method
        )
        if "auto" in (options.ulysses, options.ring):
            console.print(f"layout: ulysses {layout.ulysses} x ring {layout.ring}")
        workload = workload_of(plan, layout)
        items = [item.model_dump(mode="json") for item in plan.todo]
        _make_directory(options.out / "videos")
        with BatchView(console, len(items)) as view:
            try:
                return run_batch(spec=spec, gangs=options.gangs, workload=workload, items=items, on_event=view.show)
            except (KeyboardInterrupt, SystemExit):
                console.print(
                    f"stopped after {view.num_done} of {count(view.total, 'video')}; run it again for the rest"
                )
                raise


def workload_of(plan: Plan, layout: Layout) -> Any:
    """What each rank of a gang builds."""
    from jobs.session import RenderWorkload

    options = plan.options
    return RenderWorkload(
        model=plan.facts.source,
        revision=plan.facts.revision,
        prompt_template=plan.facts.defaults.prompt_template,
        dtype=plan.items[0].dtype,
        layout=layout,
        engine=options.sp_engine,
        recipe=plan.method,
        compiled=options.video.compile,
        deadline_s=options.deadline,
        shard_weights=options.shard_weights,
        offload=options.offload,
    )


@contextmanager
def running_ray(address: str | None) -> Iterator[None]:
    """A running Ray; its errors at the start, in this package's terms."""
    from cluster.runtime import ClusterUnavailable, ray_runtime

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_runtime(address))
        except ClusterUnavailable as error:
            raise InfrastructureError(str(error)) from error
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"output directory {path} cannot be written: {error.strerror}") from error


def _rows(plan: Plan, outcomes: list[Any]) -> list[dict[str, Any]]:
    """One row an item, in the order of the prompt file."""
    rendered = {outcome.item["id"]: outcome for outcome in outcomes}
    return [_row(item, plan.finished.get(item.id), rendered.get(item.id)) for item in plan.items]


def _row(item: RenderItem, before: Sidecar | None, outcome: Any) -> dict[str, Any]:
    if before is not None:
        return done_row(item, before, "finished before")
    if outcome.failure:
        return failed_row(item, outcome.error)
    return done_row(item, Sidecar.model_validate(outcome.result), "rendered")
