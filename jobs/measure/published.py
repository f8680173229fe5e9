"""What papers say that methods cost on full-size models, and why ours may differ."""

from collections.abc import Iterator, Sequence

from caching.recipe.recipe import Recipe
from jobs.measure.papers.registry import TABLES
from jobs.measure.papers.tables import Figure


def published(model: str, method: Recipe) -> float | None:
    """The paper's TFLOPs for a setting, if it has one: the one that it names, or the one that gives its figure."""
    figures = [figure for figure in _figures(model) if figure.steps is None]
    named = [figure.value for figure in figures if figure.stated == method]
    return next(iter([*named, *(figure.value for figure in figures if figure.found == method)]), None)


def notes_on(model: str, methods: Sequence[Recipe]) -> list[str]:
    """What must be known to compare these methods' figures with those of their papers."""
    names = {method.name for method in methods}
    notes = [
        f"{figure.label}: {figure.reason}"
        for figure in _figures(model)
        if figure.reason and names & {each.name for each in (figure.stated, figure.found) if each}
    ]
    return list(dict.fromkeys(notes))


def _figures(model: str) -> Iterator[Figure]:
    for table in TABLES:
        if table.model == model and table.unit == "TFLOPs":
            yield from table.figures
