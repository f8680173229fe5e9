"""What a request asks for, checked as the lines of a prompt file are, before it has an id."""

from jobs.driver.batch_plan import batch_settings
from jobs.driver.lines import as_item, check_lines
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts, read_facts
from jobs.models.family import Json
from jobs.options.batch import BatchOptions, RenderOptions
from jobs.request.checks import defaults_for
from jobs.request.prompts import read_item
from jobs.request.recipes import methods_of
from jobs.serve.body import WHERE
from jobs.serve.rendering import render_options
from jobs.store.items import RenderItem
from jobs.store.medium import VIDEO
from jobs.store.open import open_storage


class Checker:
    """Makes items of the fields of requests, for a batch with these options. Raises BadInput for a model of images."""

    def __init__(self, options: RenderOptions, facts: ModelFacts) -> None:
        if facts.family.medium is not VIDEO:
            raise BadInput(f"model {facts.name} makes images, and what is served is an API of videos; use resca render")
        self._options, self._facts = options, facts
        self._defaults = defaults_for(facts, options.video)
        self._settings = batch_settings(options, facts, open_storage(options.out), [])

    @property
    def model(self) -> str:
        """As requests may call it."""
        return self._facts.name

    @property
    def fps(self) -> int:
        """Frames a second of a video that says nothing of it."""
        assert self._defaults.fps is not None
        return self._defaults.fps

    def check_default(self) -> None:
        """Raises BadInput if a video that is asked for by its prompt alone could not be rendered."""
        self("default", {"prompt": "a video"})

    def __call__(self, item_id: str, fields: Json) -> RenderItem:
        """Raises BadInput."""
        line = read_item(fields, item_id, self._defaults, where=WHERE)
        methods_of([line], self._facts.plans, cross_attention=self._facts.family.cross_attention)
        check_lines([line], self._facts, self._options, self._settings)
        return as_item(line)


def checker_of(options: BatchOptions) -> Checker:
    """For a batch with these options. Raises BadInput, and InfrastructureError where the model cannot be had."""
    facts = read_facts(options.model, own_code=options.trust_remote_code, variant=options.video.variant)
    return Checker(render_options(options), facts)
