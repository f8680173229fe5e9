"""A paper's table of costs: what it says of each method, and the settings that are counted for it."""

from dataclasses import dataclass, replace
from typing import Literal

from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.schedule import Broadcast, Interval
from caching.recipe.tokens import SelectedTokens

Turns = Literal["all", "odd", "even"]

Unit = Literal["TFLOPs", "ratio", "latency"]
# Of what a table is compared by: TFLOPs; full sampling's over a method's, where the model is another one; or the same
# beside a ratio of seconds, which it need not be equal to.


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of a table: a published figure, and what is counted for it."""

    label: str  # as the table has it
    value: float | None = None  # in the unit of its table; None where the paper gives a setting alone
    stated: Recipe | None = None  # the setting that the paper names, if it does
    found: Recipe | None = None  # the setting that gives the figure, where none is named, or another one
    steps: int | None = None  # of full sampling, where there are fewer than the table's
    reason: str = ""  # why the counts differ, or how the setting was found


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a paper, of one model."""

    paper: str
    number: str
    model: str  # as `resca flops --model` calls it
    unit: Unit = "TFLOPs"
    num_steps: int = 50
    remark: str = ""
    figures: tuple[Figure, ...]


def every(name: str, interval: int, *, first: int = 1, **options: float | str) -> Recipe:
    """A method with a dense step in each `interval`, after the `first` steps, which are all dense."""
    return replace(recipe(name, **options), schedule=Interval(every=interval, first=first))


def broadcast(space: int, time: int, text: int) -> Recipe:
    """PAB with these intervals, in half of 30 steps: the first 2 and the last 13 are dense (noise of 93% to 45%)."""
    return replace(RECIPES["pab"], schedule=Broadcast(every=space, time=time, text=text, first=2, last=13))


def selected(interval: int, *, first: int, turns: Turns) -> Recipe:
    """DuCa, with the sparse steps in which tokens are computed."""
    return replace(every("duca", interval, first=first), tokens=SelectedTokens(turns=turns))


def fewer(label: str, value: float, steps: int) -> Figure:
    """Full sampling with so many steps."""
    return Figure(label=label, value=value, stated=RECIPES["full"], steps=steps)
