"""The tables of the papers, counted: what each setting costs here."""

from dataclasses import dataclass

from rich.console import Console

from caching.recipe.recipe import RECIPES, Recipe
from jobs.console import under_way
from jobs.measure.full_size import Request
from jobs.measure.papers.tables import Figure, Table
from jobs.models.full_size import FULL_SIZE
from parallel.layout import Layout

NEAR = 0.03  # of a published figure, within which a count meets it


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A figure with what is counted for it, in the unit of its table."""

    figure: Figure
    stated: float | None
    found: float | None

    @property
    def best(self) -> float | None:
        """The count of the setting that gives the figure; of the one that the paper names, if no other does."""
        return self.found if self.found is not None else self.stated

    def deviation(self, count: float | None) -> float | None:
        """Of a count from the published figure, relative to it."""
        return None if count is None or self.figure.value is None else count / self.figure.value - 1

    @property
    def meets(self) -> bool | None:
        """Whether it is near; None where nothing is published or counted."""
        deviation = self.deviation(self.best)
        return None if deviation is None else abs(deviation) <= NEAR


def count_table(table: Table, console: Console) -> list[Counted]:
    """Each figure of a table; `console` is told how far it is."""
    counter = Counter(table)
    rows = []
    for figure in table.figures:
        with under_way(console, f"counting {table.paper}, {table.number}: {figure.label}"):
            rows.append(
                Counted(
                    figure=figure,
                    stated=counter.value(figure.stated, figure.steps),
                    found=counter.value(figure.found, figure.steps),
                )
            )
    return rows


class Counter:
    """Counts settings at the size of a table."""

    def __init__(self, table: Table) -> None:
        size = FULL_SIZE[table.model]
        grid = size.grid(size.height, size.width, size.num_frames)
        self.table = table
        self.request = Request(
            model=table.model, size=size, grid=grid, methods=[], num_steps=table.num_steps, layout=Layout()
        )
        self.one = self.request.count(RECIPES["full"], num_steps=1).flops

    def value(self, method: Recipe | None, steps: int | None) -> float | None:
        """What a setting costs in the unit of the table."""
        if method is None:
            return None
        steps = steps or self.table.num_steps
        full = method.name == "full"
        flops = steps * self.one if full else self.request.count(method, num_steps=steps).flops
        return flops / 1e12 if self.table.unit == "TFLOPs" else self.table.num_steps * self.one / flops
