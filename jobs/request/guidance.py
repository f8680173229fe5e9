"""How videos are guided: by the command line, by lines of a prompt file, else by what the model has as its own."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from jobs.errors import BadInput
from jobs.models.facts import ModelFacts
from jobs.models.family import GUIDES, Family, Sampling
from jobs.options.shared import VideoOptions
from jobs.request.prompts import Item
from jobs.store.items import BatchSettings, RenderItem

SAMPLED = {field.name for field in fields(Sampling)}
# What a model lacks that does not take one of `GUIDES`.
WITHOUT = {
    "guidance": "guidance scale",
    "guidance_2": "second transformer to guide",
    "true_cfg_scale": "guidance beside a scale that is embedded or its own",
    "negative_prompt": "guidance by a negative prompt",
}

Guides = Mapping[str, Any]  # by the names in `GUIDES`


def guides_for(facts: ModelFacts, video: VideoOptions) -> Guides:
    """As was asked, else the model's own. Raises BadInput for what the model does not take."""
    asked = {name: getattr(video, name) for name in GUIDES if getattr(video, name) is not None}
    for name in asked:
        _check_taken(facts, name, f"--{name.replace('_', '-')}")
    return {name: asked.get(name, getattr(facts.defaults, name)) for name in GUIDES}


def guides_of(settings: BatchSettings) -> Guides:
    """Those of a batch."""
    return settings.model_dump(include=set(GUIDES))


def sampling_of(item: Item | RenderItem, guides: Guides) -> Sampling:
    """What an item asks for; where it says nothing of it, it is guided as all are."""
    return Sampling(**{**guides, **item.model_dump(include=SAMPLED, exclude_none=True)})


def sampling_by_default(facts: ModelFacts) -> Sampling:
    """What is sampled where nothing was said."""
    return Sampling(seed=0, **{name: getattr(facts.defaults, name) for name in SAMPLED - {"seed"}})


def num_passes(family: Family, sampling: Sampling) -> int:
    """Of each step."""
    return 1 if family.negative_prompt(sampling) is None else 2


def check_guided(lines: Iterable[Item], facts: ModelFacts, video: VideoOptions) -> None:
    """Raises BadInput, naming the line, for guidance that the model does not take, or that would do nothing."""
    guides = guides_for(facts, video)
    for line in lines:
        try:
            _check_line(line, facts, guides, for_all=video.negative_prompt is not None)
        except BadInput as error:
            raise BadInput(f"{line.where}: {error}") from error


def _check_line(line: Item, facts: ModelFacts, guides: Guides, *, for_all: bool) -> None:
    for name in ("guidance", "negative_prompt"):
        if getattr(line, name) is not None:
            _check_taken(facts, name, f"its {name}")
    is_asked = for_all or line.negative_prompt is not None
    if is_asked and facts.family.negative_prompt(sampling_of(line, guides)) is None:
        scale = "true_cfg_scale" if "true_cfg_scale" in facts.guides else "guidance"
        raise BadInput(f"a negative prompt does nothing unless {scale} is above 1")


def _check_taken(facts: ModelFacts, name: str, said: str) -> None:
    if name not in facts.guides:
        raise BadInput(f"model {facts.name} has no {WITHOUT[name]}; leave out {said}")
