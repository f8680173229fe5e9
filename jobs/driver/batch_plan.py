"""A checked batch: what is asked for, what is there already, and what is left to render."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from caching.recipe.recipe import Recipe
from caching.recipe.schedule import Broadcast, Even, Interval
from cluster.heap import uncollected
from jobs.driver.lines import as_item, batch_lines, check_lines, check_passes
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.batch import RenderOptions
from jobs.request.checks import check_numbers, defaults_for
from jobs.request.guidance import Guides, guides_for, guides_of, num_passes, sampling_of
from jobs.request.notices import notices
from jobs.request.prompts import Item
from jobs.request.recipes import methods_of, methods_to_name, read_tuned, recipe_file, resolve_method
from jobs.request.tuned import circumstances, compare
from jobs.store.items import FP8, BatchSettings, RenderItem, check_names
from jobs.store.known import Known, difference, survey
from jobs.store.open import open_storage
from jobs.store.rehearsal import check_encoder, check_folders
from jobs.store.storage import Storage
from parallel.kernels import AUTO


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked batch: what this run is about, and what is known of what was rendered or given up before.

    `batch` are the items of this run and, where `--limit` makes it a part, those others that the directory remembers;
    `num_added` of them came when it was there already.
    """

    options: RenderOptions
    facts: ModelFacts
    settings: BatchSettings
    storage: Storage
    items: list[RenderItem]
    known: Known
    batch: list[RenderItem]
    known_of_batch: Known
    num_added: int = 0
    debris: Sequence[str] = ()
    """The names of files of what was withdrawn."""
    notices: Sequence[str] = ()
    """What is said of the prompts before anything starts."""

    @cached_property
    def todo(self) -> list[RenderItem]:
        """The items to render."""
        known = self.known
        return [item for item in self.items if item.id not in known.finished and item.id not in known.given_up]

    @cached_property
    def method_names(self) -> list[str]:
        """The methods of the items, each once: as was asked, and where lines name their own, those."""
        return list(dict.fromkeys(item.method or self.options.method for item in self.items)) or [self.options.method]

    @property
    def method_words(self) -> str:
        """As a sentence names them."""
        return f"{'methods' if len(self.method_names) > 1 else 'method'} {', '.join(self.method_names)}"

    @property
    def noun(self) -> str:
        """What one of the items is called."""
        return self.facts.family.medium.name

    def method_of(self, item: RenderItem) -> Recipe:
        """What an item is rendered by."""
        return self.settings.recipe(item.method)

    def num_tokens(self, item: RenderItem) -> int:
        """The latent tokens of an item."""
        return self.facts.num_tokens(item.height, item.width, item.num_frames)

    def num_passes(self, item: RenderItem) -> int:
        """The passes of each step of an item."""
        return num_passes(self.facts.family, sampling_of(item, self.guides))

    @cached_property
    def guides(self) -> Guides:
        """How items are guided that say nothing of it."""
        return guides_of(self.settings)

    @property
    def least_passes(self) -> int:
        """The fewest that a step of any video to render has."""
        return min(map(self.num_passes, self.todo), default=1)

    @property
    def least_tokens(self) -> int:
        """Those of the smallest video to render; of one as it is by default, where there is none yet."""
        like = defaults_for(self.facts, self.options.video)
        default = self.facts.num_tokens(like.height, like.width, like.num_frames)
        return min(map(self.num_tokens, self.todo), default=default)

    @property
    def todo_by_method(self) -> list[list[RenderItem]]:
        """The items to render, those of each method together."""
        by_method: defaultdict[str | None, list[RenderItem]] = defaultdict(list)
        for item in self.todo:
            by_method[item.method].append(item)
        return list(by_method.values())

    @property
    def methods(self) -> list[Recipe]:
        """Those of the videos to render; the batch's, where there is none yet."""
        return [self.method_of(items[0]) for items in self.todo_by_method] or [self.settings.method]


@uncollected()
def make_plan(options: RenderOptions) -> Plan:
    """Read and check all that can be known without a model or Ray. Leaves no trace.

    Raises:
        BadInput: what is wrong with the request.
        MachineError: what the model makes cannot be written on this machine.
    """
    check_numbers(options)
    facts = read_facts(options.model, own_code=options.trust_remote_code, variant=options.video.variant)
    storage = open_storage(options.out)
    lines = batch_lines(options, facts, storage)
    settings = batch_settings(options, facts, storage, lines.all)
    check_lines(lines.run, facts, options, settings)
    untried = _untried(options, facts, settings, lines.run)
    batch = [as_item(line) for line in lines.all]
    items = batch[: len(lines.run)]
    check_names(items)
    known_of_batch = _as_asked(options, _survey(options, facts, storage, settings, batch))
    known = known_of_batch.of(items)
    if known.changed and not options.replace:
        raise BadInput(_refusal(storage, settings, items, known))
    plan = Plan(
        options=options,
        facts=facts,
        settings=settings,
        storage=storage,
        items=items,
        known=known,
        batch=batch,
        known_of_batch=known_of_batch,
        num_added=lines.num_added,
        debris=_debris(lines.withdrawn, batch, storage),
    )
    todo = {item.id for item in plan.todo}
    left = [line for line in lines.run if line.id in todo]
    if options.cfg == 2:
        check_passes(left, facts, settings, parts=2)
    if plan.todo or options.stay:  # A batch that is finished may lie where nothing can be written.
        check_folders(storage)
        check_encoder(facts.family.medium)
    told = notices(left, lines.path, facts, fp8=settings.weights == FP8)
    return replace(plan, notices=[*untried, *told] if left else told)


def _debris(withdrawn: list[RenderItem], batch: list[RenderItem], storage: Storage) -> list[str]:
    """What lies there of items that were withdrawn, under names that no other item has."""
    if not withdrawn:
        return []
    names, files = {item.name for item in batch}, storage.folder("videos")
    return [item.name for item in withdrawn if item.name not in names and item.sidecar.partition("/")[2] in files]


def _untried(options: RenderOptions, facts: ModelFacts, settings: BatchSettings, lines: list[Item]) -> list[str]:
    """Where a tuned method is asked for what it was not tried on. Raises BadInput for what it was not made for."""
    told = []
    for own in dict.fromkeys(line.method for line in lines):
        file = facts.plans.get(own) if own else recipe_file(options.method, options.cache, facts.plans)
        if file and (tuned := read_tuned(file)):
            asked = [line for line in lines if line.method == own]
            now = circumstances(facts, asked, guides_of(settings), settings.dtype)
            told.append(compare(tuned, own or file.stem, now))
    return [each for each in told if each]


def _as_asked(options: RenderOptions, known: Known) -> Known:
    """What was given up is taken up again with `--retry`, and what is outdated goes with `--replace` only."""
    return replace(
        known,
        given_up={} if options.retry else known.given_up,
        outdated=known.outdated if options.replace else {},
    )


def _survey(
    options: RenderOptions, facts: ModelFacts, storage: Storage, settings: BatchSettings, items: list[RenderItem]
) -> Known:
    """What is there; a video that an earlier version has rendered with the same model counts as finished."""
    known = survey(storage, settings, items, verify=options.verify)
    then = _as_earlier_versions_said(settings, facts, {item.steps for item in items}) if known.changed else []
    return survey(storage, settings, items, verify=options.verify, then=then) if then else known


def _as_earlier_versions_said(settings: BatchSettings, facts: ModelFacts, steps: set[int]) -> list[BatchSettings]:
    """The same request in their words.

    The VAE had the model's number format, a local model another revision; even dense steps were intervals, which counts
    where `steps` are such that both are the same, and so were those of PAB, where attention is of one kind.
    """
    in_intervals = {
        "method": _in_intervals(settings.method, steps, facts),
        "methods": {name: _in_intervals(method, steps, facts) for name, method in settings.methods.items()},
    }
    then = [
        BatchSettings(**{**dict(settings), "vae_dtype": vae_dtype, "revision": revision, **methods})
        for vae_dtype in (settings.vae_dtype, None)
        for revision in (settings.revision, facts.earlier_revision or settings.revision)
        for methods in ({}, in_intervals)
    ]
    return [each for each in then if each != settings]


def _in_intervals(method: Recipe, steps: set[int], facts: ModelFacts) -> Recipe:
    """The method with plain intervals instead of its own, if that changes nothing."""
    schedule = method.schedule
    if isinstance(schedule, Broadcast) and facts.attends_to_all:
        return replace(method, schedule=Interval(every=schedule.every, first=schedule.first, last=schedule.last))
    if not isinstance(schedule, Even):
        return method
    other = replace(method, schedule=Interval(every=schedule.every))
    return other if all(other.dense_plan(number) == method.dense_plan(number) for number in steps) else method


def batch_settings(options: RenderOptions, facts: ModelFacts, storage: Storage, lines: list[Item]) -> BatchSettings:
    """What is asked of all videos, with the model's own defaults where nothing was said. Raises BadInput."""
    video = options.video
    dtype = facts.dtype if video.dtype == "auto" else video.dtype
    cross = facts.family.cross_attention
    named = methods_of(lines, facts.plans, cross_attention=cross)
    return BatchSettings(
        model=facts.source,
        revision=facts.revision,
        variant=facts.variant,
        attention=None if options.attention == AUTO else options.attention,
        weights=FP8 if options.weights == FP8 else None,
        method=resolve_method(options.method, options.cache, facts.plans, cross_attention=cross),
        methods={**methods_to_name(facts.plans, cross_attention=cross), **named},
        dtype=dtype,
        vae_dtype=facts.vae_dtype(dtype),
        medium=facts.family.medium.name,
        fps=video.fps or facts.defaults.fps,
        **guides_for(facts, video),
        out=str(storage),
        save_latents=options.save_latents,
    )


def _refusal(storage: Storage, settings: BatchSettings, items: list[RenderItem], known: Known) -> str:
    """That, and how, the first of the items that lie there with other settings differs."""
    first = next(item for item in items if item.id in known.changed)
    there = known.changed[first.id]
    others = f", and so were {len(known.changed) - 1} more" if len(known.changed) > 1 else ""
    return (
        f"{there.file} in {storage} was rendered with other settings "
        f"({difference(storage, settings, first, there)}){others}; choose another --out, or render anew with --replace"
    )
