"""What the fullest rank of a gang needs of its GPU, counted without weights on the meta device, and what would fit."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caching.flops import BY_TOKEN
from caching.models import family
from caching.peak import peak_loop_bytes
from caching.recipe.recipe import RECIPES, Recipe
from jobs.models.directory import INDEX, brings_its_class, models_of, read_family, read_json, transformers_of
from jobs.models.numbers import Numbers
from jobs.predict.memory import GIB, RESERVE_BYTES
from jobs.rank.components import CannotStream, build
from jobs.rank.load import called_alone
from jobs.rank.quantise import quantise
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout, divisors
from parallel.sharding import gathered_bytes, held_bytes


@dataclass(frozen=True, kw_only=True)
class Models:
    """What of a pipeline has weights; it may be on the meta device."""

    transformers: Sequence[nn.Module]
    text_encoders: Sequence[nn.Module]
    vae: nn.Module
    text_tokens: int
    """The most that a pass looks at."""
    levels_by_token: bool = False
    """Whether they are told the noise level of each token."""

    @cached_property
    def in_fp8(self) -> "Models":
        """The same, with the weights of transformer and text encoders in 8 bits."""
        transformers, text_encoders = deepcopy((list(self.transformers), list(self.text_encoders)))
        for model in (*transformers, *text_encoders):
            quantise(model)
        return replace(self, transformers=transformers, text_encoders=text_encoders)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides how much a rank needs."""

    method: Recipe
    height: int
    width: int
    num_frames: int
    num_steps: int
    layout: Layout
    shard_weights: bool = False
    offload: bool = False
    fp8: bool = False
    """Whether the weights of transformer and text encoders are kept in 8 bits."""
    num_passes: int = 1
    """Of each step: 2 where a negative prompt guides."""

    @property
    def size(self) -> str:
        return f"{self.height}x{self.width}x{self.num_frames}"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes on the fullest rank, rank 0, at its fullest moment."""

    weights: int
    """Transformers, text encoders and VAE, as far as they are there during the loop, and what is gathered of them."""
    loop: int
    """Activations and cache."""
    encoding: int
    """Beside the loop: all weights that are there while a prompt is encoded."""

    @property
    def total(self) -> int:
        """The most of all moments, with what is left to others."""
        return max(self.weights + self.loop, self.encoding) + RESERVE_BYTES

    def __str__(self) -> str:
        return (
            f"{self.total / GIB:.1f} GiB (weights {self.weights / GIB:.1f}, "
            f"activations and cache {self.loop / GIB:.1f}, reserve {RESERVE_BYTES / GIB:.1f})"
        )


def models_at(directory: Path, dtype: torch.dtype) -> Models | None:
    """The models of a pipeline's directory without values; None where only their own code knows how large they are."""
    family = read_family(directory, str(directory))
    names = transformers_of(directory, family)
    if any(brings_its_class(directory / name) for name in models_of(directory, family)):
        return None
    of_vae = str(dtype).removeprefix("torch.")
    try:
        with torch.device("meta"):
            transformers = [build(directory / name, dtype) for name in names]
            texts = [build(directory / name, dtype) for name in family.text_encoders]
            vae = build(directory / "vae", getattr(torch, family.vae_dtypes.get(of_vae, of_vae)))
    except (CannotStream, ValueError):  # or a configuration of a class that is not known here
        return None
    return Models(
        transformers=transformers,
        vae=vae,
        text_encoders=texts,
        text_tokens=family.text_tokens,
        levels_by_token=family.levels_by_token(read_json(directory / INDEX)),
    )


class MemoryPlanner:
    """What settings of one model need."""

    def __init__(self, models: Models, numbers: Numbers, dtype: torch.dtype) -> None:
        self.models, self.numbers, self.dtype = models, numbers, dtype
        self._loops: dict[Setting, int] = {}

    def need(self, setting: Setting) -> Need:
        """Raises ValueError for a method that cannot share a video among so many ranks."""
        weights, encoding = self._weights(setting)
        # Where weights are does not matter, nor how they are kept: what one is made into is small beside activations.
        loop_setting = replace(setting, shard_weights=False, offload=False, fp8=False)
        if loop_setting not in self._loops:
            self._loops[loop_setting] = self._loop(loop_setting)
        return Need(weights=weights, loop=self._loops[loop_setting], encoding=encoding)

    def fits(self, setting: Setting, gpu_bytes: float) -> bool:
        """Whether a setting is possible, and the fullest rank has room on such a GPU."""
        if max(self._weights(setting)) + RESERVE_BYTES > gpu_bytes:
            return False  # without looking at the loop, which takes longer
        try:
            return self.need(setting).total <= gpu_bytes
        except ValueError:
            return False

    def remedy(self, setting: Setting, gpu_bytes: float, slots: int) -> str | None:
        """The options of the cheapest change with which a setting fits; None if there is none.

        `slots` are the ranks that a node has room for.
        """
        changes = _changes(setting, self.numbers.heads, slots)
        return next((words for words, changed in changes if self.fits(changed, gpu_bytes)), None)

    def most_frames(self, setting: Setting, gpu_bytes: float) -> int:
        """The most frames that fit at this height and width; 0 if none do."""
        need, numbers = self.need(setting), self.numbers
        room = gpu_bytes - RESERVE_BYTES - need.weights
        latent_frames = (setting.num_frames - numbers.first_frames) // numbers.frames + 1
        most = int(latent_frames * room / need.loop)  # what the loop needs grows with the tokens,
        for fewer in (most, most - 1):  # but for a little that the text does
            num_frames = numbers.first_frames + (fewer - 1) * numbers.frames
            if fewer > 0 and self.fits(replace(setting, num_frames=num_frames), gpu_bytes):
                return num_frames
        return 0

    def refusal(self, setting: Setting, gpu_bytes: float, slots: int) -> str | None:
        """One sentence on what does not fit, and on what would; None if the setting does."""
        need = self.need(setting)
        if need.total <= gpu_bytes:
            return None
        remedy = self.remedy(setting, gpu_bytes, slots)
        return (
            f"method {setting.method.name} at {setting.size} needs {need} on a GPU of {gpu_bytes / GIB:.1f} GiB: "
            f"{f'{remedy} would fit' if remedy else 'no other choice would fit'}{self._shorter(setting, gpu_bytes)}"
        )

    def _shorter(self, setting: Setting, gpu_bytes: float) -> str:
        """What would fit at this height and width, where a model makes several lengths."""
        if self.numbers.num_frames is not None:
            return ""
        most = self.most_frames(setting, gpu_bytes)
        smaller = f"at {setting.height}x{setting.width} at most {most} frames fit" if most else "no length fits"
        return f"; as it is, {smaller}"

    def _loop(self, setting: Setting) -> int:
        """Of one transformer: the next one begins without what the one before it has kept."""
        transformer = self.models.transformers[0]
        config: Any = transformer.config
        return peak_loop_bytes(
            {**config, "_class_name": family(transformer), BY_TOKEN: self.models.levels_by_token},
            setting.method,
            grid=self.numbers.grid(setting.height, setting.width, setting.num_frames),
            num_text_tokens=(self.models.text_tokens,) * setting.num_passes,
            num_steps=setting.num_steps,
            dtype=self.dtype,
            group=ImaginedGroup(setting.layout),
        )

    def _weights(self, setting: Setting) -> tuple[int, int]:
        """Those on rank 0 during the loop, and while a prompt is encoded."""
        ranks = setting.layout.world_size if setting.shard_weights else 1
        models = self.models.in_fp8 if setting.fp8 else self.models
        transformers, texts = models.transformers, models.text_encoders
        wholes = [called_alone(each) for each in transformers]
        pairs = list(zip(transformers, wholes, strict=True))
        gathered = max(
            [gathered_bytes(each, ranks, whole=whole) for each, whole in pairs]
            + [gathered_bytes(each, ranks) for each in texts]
        )
        held = [held_bytes(each, ranks, whole=whole) for each, whole in pairs]
        text, vae = sum(held_bytes(each, ranks) for each in texts), held_bytes(models.vae)
        if not setting.offload:
            everything = sum(held) + gathered + text + vae
            return everything, everything
        stays = sum(held) if len(held) == 1 else 0  # several wait, too
        return max(held) + gathered, stays + gathered + text


def _changes(setting: Setting, heads: int, slots: int) -> Iterator[tuple[str, Setting]]:
    """What could be asked for instead, the cheapest first, and last what costs fidelity: weights in 8 bits."""
    others = list(_other_places(setting, heads, slots))
    yield from others
    if not setting.fp8:
        for words, changed in [("", setting), *others]:
            yield f"{words} --weights fp8".strip(), replace(changed, fp8=True)


def _other_places(setting: Setting, heads: int, slots: int) -> Iterator[tuple[str, Setting]]:
    """Other places for weights, more ranks, another method."""
    kept = [("", setting), ("--offload", replace(setting, offload=True))]
    if setting.layout.world_size > 1:
        kept.append(("--shard-weights", replace(setting, shard_weights=True)))
        kept.append(("--offload --shard-weights", replace(setting, offload=True, shard_weights=True)))
    yield from kept[1:]
    for ulysses in divisors(heads):
        if setting.layout.ulysses < ulysses <= slots // setting.layout.ring:
            more = replace(setting, layout=Layout(ulysses=ulysses, ring=setting.layout.ring))
            yield f"--ulysses {ulysses}", more
            yield f"--ulysses {ulysses} --offload", replace(more, offload=True)
    if setting.method.name != "auto":
        for words, changed in kept:
            yield f"--method auto {words}".strip(), replace(changed, method=RECIPES["auto"])
