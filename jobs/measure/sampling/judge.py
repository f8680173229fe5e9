"""Full sampling of a few prompts, and how near a method comes to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from caching.recipe.recipe import Recipe
from jobs.demo.items import CALIBRATION_SEED, benchmark_items, drawn_items
from jobs.errors import BadInput
from jobs.measure.sampling.executor import Executor, Heard, unheard
from jobs.measure.sampling.task import Fidelity, Sample, SolverOf, Takeovers, Trajectory, Velocity
from jobs.models.demos import DEMOS
from jobs.models.facts import ModelFacts
from jobs.options.measure import AnalyzeOptions, TuneOptions
from jobs.rank.solver import Solver
from jobs.request.checks import MOST_MEASURED, check_count, check_prompts, defaults_for
from jobs.request.prompts import Defaults, Item, read_items


@dataclass
class Judge:
    """Samples the calibration prompts with any recipe and compares with full sampling; counts what it spends.

    `trajectories` are the latents of full sampling, of each prompt `[T + 1, C, F, H, W]`.
    """

    executor: Executor
    items: list[Item]
    heard: Heard[Tensor] = unheard
    """Told of each item that was sampled in full."""
    trajectories: list[Tensor] = field(default_factory=list)
    dense_steps: int = 0

    def __post_init__(self) -> None:
        self.trajectories = self.executor.map([Trajectory(item=item) for item in self.items], self.heard)
        self.dense_steps += sum(item.steps for item in self.items)

    @property
    def references(self) -> list[Tensor]:
        """Final latents of each prompt in full sampling `[1, C, F, H, W]`."""
        return [trajectory[-1:] for trajectory in self.trajectories]

    @cached_property
    def solver(self) -> Solver:
        """The scheduler's own steps."""
        (solver,) = self.executor.map([SolverOf(item=self.items[0])])
        return solver

    @cached_property
    def takeovers(self) -> tuple[int, ...]:
        """The steps at which a next transformer takes over; they are dense, and what was said before counts no more."""
        (steps,) = self.executor.map([Takeovers(item=self.items[0])])
        return steps

    @property
    def levels(self) -> list[float]:
        """The noise level of each step, and 0 at the end."""
        return [*self.solver.scheduler.sigmas[:-1].tolist(), 0.0]

    def velocities(self, asked: Sequence[tuple[int, Tensor]], step: int) -> list[Tensor]:
        """What the model says before a step of latents `[1, C, F, H, W]`, each of the prompt of some number."""
        scheduler = self.solver.scheduler
        level = float(scheduler.timesteps[step]) / scheduler.config.num_train_timesteps
        self.dense_steps += len(asked)
        return self.executor.map(
            [Velocity(item=self.items[number], latents=latents, level=level) for number, latents in asked]
        )

    def sample(self, method: Recipe, heard: Heard[Tensor] = unheard) -> list[Tensor]:
        """Final latents of every calibration prompt."""
        self.dense_steps += sum(sum(method.dense_plan(item.steps)) for item in self.items)
        return self.executor.map([Sample(item=item, method=method) for item in self.items], heard)

    def latent_db(self, method: Recipe) -> list[float]:
        """PSNR of each prompt's latents; the peak is the reference's range."""
        return self.compare(self.sample(method))

    def compare(self, latents: Sequence[Tensor]) -> list[float]:
        """PSNR of each prompt's latents, as `latent_db`, of latents that are at hand."""
        return [latent_psnr_db(mine, full) for mine, full in zip(latents, self.references, strict=True)]

    def decoded_db(self, *latents: list[Tensor], heard: Heard[list[float]] = unheard) -> list[list[float]]:
        """PSNR of each prompt's video, decoded from latents of several kinds; by kind.

        Full sampling is decoded once for all of them. `heard` is told each prompt's.
        """
        tasks = [
            Fidelity(latents=tuple(mine), reference=full) for *mine, full in zip(*latents, self.references, strict=True)
        ]
        return [list(values) for values in zip(*self.executor.map(tasks, heard), strict=True)]


def sampled_in_full(executor: Executor, parts: Sequence[list[Item]], console: Console) -> list[Judge]:
    """A judge of each part of the prompts; shows how far their full samplings are."""
    with Progress(console=console) as bar:
        sampled = bar.add_task("sampling in full", total=sum(map(len, parts)))
        return [Judge(executor, items, lambda *_: bar.advance(sampled)) for items in parts]


def calibration_items(
    options: TuneOptions | AnalyzeOptions, facts: ModelFacts, number: int, held_out: int = 0
) -> list[Item]:
    """The prompts to measure on: the user's, or for a demo model some of its training captions.

    Behind them are `held_out` others, for the demo models of captions that training never saw. There may be fewer in
    all.
    """
    check_count("num", number, MOST_MEASURED)
    check_count("held-out", held_out, MOST_MEASURED, least=0)
    return _items(
        options,
        facts,
        number + held_out,
        lambda defaults: [
            *drawn_items(number, facts, defaults, first_seed=CALIBRATION_SEED, held_out=False),
            *drawn_items(held_out, facts, defaults, first_seed=CALIBRATION_SEED + MOST_MEASURED, held_out=True),
        ],
    )


def unseen_items(options: TuneOptions, facts: ModelFacts, number: int) -> list[Item]:
    """Prompts to see what a plan is worth: the user's, or for a demo model some that no tuning takes."""
    check_count("held-out", number, MOST_MEASURED)
    return _items(options, facts, number, lambda defaults: benchmark_items(number, facts, defaults))


def _items(
    options: TuneOptions | AnalyzeOptions,
    facts: ModelFacts,
    number: int,
    of_demo: Callable[[Defaults], list[Item]],
) -> list[Item]:
    """The first of the user's prompts, or those of a demo model."""
    defaults = defaults_for(facts, options.video)
    if options.prompts is not None:
        items = read_items(options.prompts, defaults)[:number]
    elif options.model in DEMOS:
        items = of_demo(defaults)
    else:
        raise BadInput(f"give --prompts FILE with prompts typical of what you render with {options.model}")
    check_prompts(items, facts)
    for item in items:
        facts.check_size(item.height, item.width, item.num_frames)
    if len({item.steps for item in items}) > 1:
        raise BadInput("calibration prompts must all have the same number of steps")
    return items


def latent_psnr_db(mine: Tensor, full: Tensor) -> float:
    """PSNR of latents; the peak is the range of `full`."""
    error = (mine - full).square().mean()
    return 100.0 if error == 0 else float(10 * torch.log10((full.max() - full.min()) ** 2 / error))
