"""Full sampling of a few prompts, and how near a method comes to it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caching.recipe.recipe import Recipe
from caching.site import Timed, untimed
from jobs.demo.items import CALIBRATION_SEED, drawn_items
from jobs.errors import BadInput
from jobs.measure.contest import Contest
from jobs.measure.fidelity import psnr_db
from jobs.models.demos import DEMOS
from jobs.models.facts import ModelFacts
from jobs.options.measure import AnalyzeOptions, TuneOptions
from jobs.rank.renderer import Prompt
from jobs.request.checks import MOST_MEASURED, check_count, defaults_for
from jobs.request.prompts import Item, read_items


@dataclass
class Judge:
    """Samples the calibration prompts with any recipe and compares with full sampling; counts what it spends.

    `trajectories` are the latents of full sampling, of each prompt `[T + 1, C, F, H, W]`.
    """

    contest: Contest
    items: list[Item]
    track: Callable[[list[Item]], Iterable[Item]] = iter
    """Sees the items that are sampled in full, one by one."""
    prompts: list[Prompt] = field(default_factory=list)
    trajectories: list[Tensor] = field(default_factory=list)
    dense_steps: int = 0

    def __post_init__(self) -> None:
        self.prompts = [self.contest.encode(item) for item in self.items]
        for item, prompt in zip(self.track(self.items), self.prompts, strict=True):
            self.trajectories.append(self.contest.renderer.trajectory(prompt, self.contest.sampling(item)))
            self.dense_steps += item.steps

    @property
    def references(self) -> list[Tensor]:
        """Final latents of each prompt in full sampling `[1, C, F, H, W]`."""
        return [trajectory[-1:] for trajectory in self.trajectories]

    def sample(self, method: Recipe, *, timed: Timed = untimed) -> list[Tensor]:
        """Final latents of every calibration prompt; `timed` is told of the parts of each step."""
        engine, latents = self.contest.renderer.use(method, timed=timed), []
        for item, prompt in zip(self.items, self.prompts, strict=True):
            latents.append(self.contest.renderer.denoise(prompt, self.contest.sampling(item)))
            self.dense_steps += engine.dense_steps
        return latents

    def latent_db(self, method: Recipe) -> list[float]:
        """PSNR of each prompt's latents; the peak is the reference's range."""
        pairs = zip(self.sample(method), self.references, strict=True)
        return [latent_psnr_db(mine.cpu(), full) for mine, full in pairs]

    def video_db(self, method: Recipe) -> list[float]:
        """PSNR of each prompt's decoded video."""
        return self.decoded_db(self.sample(method))

    def decoded_db(self, latents: list[Tensor]) -> list[float]:
        """PSNR of each prompt's video, decoded from these latents."""
        decode, device = self.contest.renderer.decode, self.contest.renderer.device
        pairs = zip(latents, self.references, strict=True)
        return [psnr_db(decode(mine.to(device)), decode(full.to(device))) for mine, full in pairs]


def calibration_items(
    options: TuneOptions | AnalyzeOptions, facts: ModelFacts, number: int, held_out: int = 0
) -> list[Item]:
    """The prompts to measure on: the user's, or for a demo model some of its training captions.

    Behind them are `held_out` others, for the demo models of captions that training never saw. There may be fewer in
    all.
    """
    check_count("num", number, MOST_MEASURED)
    check_count("held-out", held_out, MOST_MEASURED, least=0)
    defaults = defaults_for(facts, options.video)
    if options.prompts is not None:
        items = read_items(options.prompts, defaults)[: number + held_out]
    elif options.model in DEMOS:
        items = [
            *drawn_items(number, defaults, first_seed=CALIBRATION_SEED, held_out=False),
            *drawn_items(held_out, defaults, first_seed=CALIBRATION_SEED + MOST_MEASURED, held_out=True),
        ]
    else:
        raise BadInput(f"give --prompts FILE with prompts typical of what you render with {options.model}")
    for item in items:
        facts.check_size(item.height, item.width, item.num_frames)
    if len({item.steps for item in items}) > 1:
        raise BadInput("calibration prompts must all have the same number of steps")
    return items


def latent_psnr_db(mine: Tensor, full: Tensor) -> float:
    """PSNR of latents; the peak is the range of `full`."""
    error = (mine - full).square().mean()
    return 100.0 if error == 0 else float(10 * torch.log10((full.max() - full.min()) ** 2 / error))
