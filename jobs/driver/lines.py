"""The lines of a batch: those of its prompt file and what was added to it; and whether each of them can be rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BadInput
from jobs.models.facts import ModelFacts
from jobs.options.batch import AddOptions, RenderOptions
from jobs.request.checks import check_files, check_prompts, check_sizes, copies_of, defaults_for
from jobs.request.choice import chosen, seeds_as_given
from jobs.request.guidance import check_guided, guides_of, num_passes, sampling_of
from jobs.request.prompts import Item, Numbering, item_of, items_of
from jobs.request.source import read_source
from jobs.store.additions import Additions, remembered_items
from jobs.store.items import BatchSettings, RenderItem
from jobs.store.storage import Storage
from parallel.layout import Layout


@dataclass(frozen=True, kw_only=True)
class BatchLines:
    """The lines that this run is about, and those others that the directory remembers.

    `path` is the file that they are of, but for what was added, `num_added` of them; `withdrawn` is none of them.
    """

    path: Path
    run: list[Item]
    others: list[Item]
    num_added: int
    withdrawn: list[RenderItem]

    @property
    def all(self) -> list[Item]:
        """The batch."""
        return [*self.run, *self.others]


def batch_lines(options: RenderOptions, facts: ModelFacts, storage: Storage) -> BatchLines:
    """Those that were asked for, all or some of them, with what was added to the batch and not withdrawn.

    Raises BadInput for what is wrong with them, as for a line whose id belongs to another item that was added.
    """
    defaults, numbering = defaults_for(facts, options.video), numbering_for(facts, options)
    if numbering.seeds and options.video.seed:
        raise BadInput("--seed is that of the first prompt, and --seeds those of each; leave out one of them")
    source = read_source(options.prompts, options.lines, defaults.fps)
    lines = items_of(source.lines, source.path, defaults, numbering)
    additions = Additions(storage)
    additions.refresh()
    if not lines and not additions.items and not options.stay:
        raise BadInput(f"{source.path} has no prompts; write one a line")
    added = _added(lines, additions.items, replaces=options.replace)
    run = chosen(lines, group=numbering.group, limit=options.limit, sample=options.sample, seed=options.sample_seed)
    others = _remembered(lines, run, storage)
    withdrawn = additions.withdrawn
    run, others = ([*_without(withdrawn, run), *added], _without(withdrawn, others))
    ids = {line.id for line in (*run, *others)} if additions.items else set()
    return BatchLines(
        path=source.path,
        run=run,
        others=others,
        num_added=sum(item.id in ids for item in additions.items),
        withdrawn=list(withdrawn.values()),
    )


def numbering_for(facts: ModelFacts, options: RenderOptions | AddOptions) -> Numbering:
    """How many items each line has. Raises BadInput for what does not go together, or not with the model."""
    seeds = seeds_as_given(options.lines.seeds)
    if seeds and options.images_per_prompt:
        raise BadInput("--seeds and --images-per-prompt both say how often each prompt is rendered; leave out one")
    return Numbering(copies=copies_of(facts, options.images_per_prompt), seeds=seeds)


def _without(withdrawn: Mapping[str, RenderItem], lines: list[Item]) -> list[Item]:
    """Those that are not exactly what was withdrawn; a line of the file that has only its id is another item."""
    return [line for line in lines if line.id not in withdrawn or withdrawn[line.id] != as_item(line)]


def _remembered(lines: list[Item], run: list[Item], storage: Storage) -> list[Item]:
    """Of the lines that this run is not about those that an earlier one was."""
    if len(run) == len(lines):
        return []
    ids, remembered = {line.id for line in run}, {item.id for item in remembered_items(storage)}
    return [line for line in lines if line.id in remembered and line.id not in ids]


def _added(lines: Sequence[Item], items: Sequence[RenderItem], *, replaces: bool) -> list[Item]:
    """What the file has no lines of; where it has another one of an id, that is an error unless it replaces."""
    own = {line.id.casefold(): line for line in lines} if items else {}
    added = []
    for item in items:
        line = own.get(item.id.casefold())
        if line is None:
            added.append(as_line(item))
        elif as_item(line) != item and not replaces:
            raise BadInput(
                f"{line.where}: id {line.id!r} is that of another item that was added to the batch, "
                f"{item.prompt[:60]!r}; give the line another id, or put it in that one's place with --replace"
            )
    return added


def as_item(line: Item) -> RenderItem:
    """What is rendered of a line."""
    return RenderItem(**line.model_dump(exclude={"where"}))


def as_line(item: RenderItem) -> Item:
    """What was added, as a line. Raises BadInput for what no line can say."""
    return item_of(f"{item.id} (added)", item.model_dump())


def check_lines(
    lines: list[Item],
    facts: ModelFacts,
    options: RenderOptions,
    settings: BatchSettings,
    layout: Layout | None = None,
) -> None:
    """Raises BadInput, naming the line, for what the model, the layout or its method cannot do.

    The layout is that of the options, or one that was found for them.
    """
    check_sizes(lines, facts, options, settings, layout)
    check_guided(lines, facts, options.video)
    check_prompts(lines, facts)
    check_files(lines, facts)


def check_passes(lines: Sequence[Item], facts: ModelFacts, settings: BatchSettings, *, parts: int) -> None:
    """Raises BadInput for a line of one pass, where two `parts` of the ranks are to have one each."""
    guides = guides_of(settings)
    alone = next((line for line in lines if num_passes(facts.family, sampling_of(line, guides)) < parts), None)
    if alone:
        raise BadInput(
            f"--cfg 2 gives each of two passes its own ranks, and video {alone.id} is not guided by a second one"
        )
