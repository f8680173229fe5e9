"""Full-size models without their weights: what can be asked of them on the meta device."""

from dataclasses import dataclass, replace

import torch

from caching.engine import Engine
from caching.flops import Cost, count, run_on_meta
from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.models.family import MOST
from jobs.models.full_size import FULL_SIZE, PRESETS, Size
from jobs.options.measure import FullSizeOptions
from jobs.request.checks import check_count
from jobs.request.recipes import resolve_method
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout

DTYPE = torch.bfloat16


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: a model, a token grid, methods, steps, and the ranks that share a video."""

    model: str
    size: Size
    grid: tuple[int, int, int]
    methods: list[Recipe]
    num_steps: int
    layout: Layout

    @property
    def at_papers_size(self) -> bool:
        """Whether this is what the model's papers measure."""
        size = self.size
        return self.num_steps == size.num_steps and self.grid == size.grid(size.height, size.width, size.num_frames)

    def count(self, method: Recipe, num_steps: int | None = None) -> Cost:
        """What a method's denoising loop costs, of so many steps if not of those that were asked for."""
        num_steps = num_steps or self.num_steps
        return count(
            self.size.config,
            method,
            grid=self.grid,
            num_text_tokens=self.size.text_tokens,
            num_steps=num_steps,
            dtype=DTYPE,
            changes=self._changes(method, num_steps),
        )

    def send(self, method: Recipe) -> tuple[Engine, ImaginedGroup]:
        """A method's denoising loop on one rank; the group's counter holds what it sent.

        Raises ValueError for a method that works on one rank only.
        """
        group = ImaginedGroup(self.layout)
        engine = run_on_meta(
            self.size.config,
            method,
            grid=self.grid,
            num_text_tokens=self.size.text_tokens,
            num_steps=self.num_steps,
            dtype=DTYPE,
            group=group,
            changes=self._changes(method, self.num_steps),
        )
        return engine, group

    def _changes(self, method: Recipe, num_steps: int) -> tuple[int, ...]:
        """When a second model takes over in a method's loop, which may have fewer steps than full sampling."""
        boundary = self.size.boundary
        return boundary.changes(method.schedule.num_steps(num_steps)) if boundary else ()


def read_request(options: FullSizeOptions) -> Request:
    """Raises BadInput for a model, size, method, number of steps or layout that does not work."""
    options = _with_preset(options)
    if options.model not in FULL_SIZE:
        raise BadInput(f"unknown model {options.model}; known: {', '.join(FULL_SIZE)}")
    size = FULL_SIZE[options.model]
    grid = size.grid(options.height or size.height, options.width or size.width, options.num_frames or size.num_frames)
    cross = size.cross_attention
    names = options.method_names(cross_attention=cross)
    methods = [resolve_method(name, options.cache_for(name), cross_attention=cross) for name in names]
    check_count("steps", options.steps, MOST["steps"])
    try:
        layout = Layout(cfg=options.cfg, ulysses=options.ulysses, ring=options.ring)
        layout.check(heads=size.config.get("num_attention_heads", 24), tokens=grid[0] * grid[1] * grid[2])
    except ValueError as error:
        raise BadInput(str(error)) from error
    if layout.cfg > 1 and size.negative_text_tokens is None:
        raise BadInput(
            f"--cfg {layout.cfg} gives each pass of guidance its own ranks, and {options.model} has one pass"
        )
    return Request(model=options.model, size=size, grid=grid, methods=methods, num_steps=options.steps, layout=layout)


def _with_preset(options: FullSizeOptions) -> FullSizeOptions:
    """The options with those that their preset sets. Raises BadInput for one unknown, or where others were given."""
    if options.preset is None:
        return options
    if options.preset not in PRESETS:
        raise BadInput(f"unknown preset {options.preset}; known: {', '.join(PRESETS)}")
    for name, value in PRESETS[options.preset].items():
        if (given := getattr(options, name)) not in (getattr(FullSizeOptions, name), value):
            option = f"--{name.replace('_', '-')}"
            raise BadInput(f"--preset {options.preset} has {option} {value}, not {given}; leave it out")
    return replace(options, **PRESETS[options.preset])
