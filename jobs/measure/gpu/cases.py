"""What is measured, in which order: what matters most comes first, for time may run out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.measure.gpu.model import BENCHMARKED, SIZES, Video, read_video
from jobs.models.family import MOST
from jobs.options.gpu import GpuOptions
from jobs.options.shared import MethodOptions
from jobs.request.recipes import SUFFIXES, resolve_method
from parallel.kernels import KERNELS, Choice

CORE = ("full", "resca", "auto")  # measured at every size
COMPILED = ("full", "resca")  # measured both ways
MOST_MINUTES = 10_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table: a method, or a peer, in one setting."""

    name: str
    video: Video
    recipe: Recipe | None = None  # None for a peer
    compiled: bool = False
    attention: str = "default"

    @property
    def kernel(self) -> Choice:
        """By what dense steps attend."""
        return Choice() if self.attention == "default" else Choice(name=self.attention)

    @property
    def title(self) -> str:
        """For lines of progress."""
        kernel = f", {self.attention} attention" if self.attention != "default" else ""
        return f"{self.video.name} {self.name}{', compiled' if self.compiled else ''}{kernel}"


def read_cases(options: GpuOptions) -> list[Case]:
    """Raises BadInput for a method, size, kernel, peer or number that does not work."""
    _check(options)
    model = BENCHMARKED[options.model]
    videos = [read_video(size, model) for size in _names(options.sizes or SIZES[options.model], "sizes")]
    methods = [_method(name, options.steps) for name in _names(options.methods, "methods")]
    methods.sort(key=lambda method: method.name != "full")
    core = [method for method in methods if method.name in CORE]
    others = [method for method in methods if method.name not in CORE]
    again = [method for method in methods if method.name in COMPILED and options.compile == "both"]
    first, compiled = videos[0], options.compile == "on"
    return [
        *(_method_at(video, method, compiled=compiled) for video in videos for method in core),
        *(_method_at(first, method, compiled=compiled) for method in others),
        *(_method_at(first, method, attention=kernel) for method in core[:1] for kernel in _kernels(options)),
        *(_method_at(first, method, compiled=True) for method in again),
        *(Case(name=name, video=first) for name in _peers(options)),
    ]


def _method_at(video: Video, method: Recipe, *, compiled: bool = False, attention: str = "default") -> Case:
    return Case(name=method.name, video=video, recipe=method, compiled=compiled, attention=attention)


def _method(name: str, num_steps: int) -> Recipe:
    """The method of that name, or recipe file, or NAME:FEATURE."""
    if name.endswith(SUFFIXES):
        method = resolve_method(name, MethodOptions())
    else:
        plain, _, feature = name.partition(":")
        method = replace(resolve_method(plain, MethodOptions(feature=feature or None)), name=name)
    try:
        method.dense_plan(num_steps)
    except ValueError as error:
        raise BadInput(str(error)) from error
    return method


def _kernels(options: GpuOptions) -> list[str]:
    return _known(_names(options.attention, "attention"), list(KERNELS), "attention kernel")


def _peers(options: GpuOptions) -> list[str]:
    from jobs.measure.gpu.rivals import RIVALS

    return _known(_names(options.peers, "peers"), list(RIVALS), "peer")


def _known(names: list[str], known: Sequence[str], what: str) -> list[str]:
    """The names, none of them if that is the only one. Raises BadInput for one that is not known."""
    if names == ["none"]:
        return []
    for name in names:
        if name not in known:
            raise BadInput(f"unknown {what} {name}; known: {', '.join(known)}, or none")
    return names


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadInput(f"--{option} names nothing; give some, separated by commas")
    return list(dict.fromkeys(names))


def _check(options: GpuOptions) -> None:
    for name, most in (("steps", MOST["steps"]), ("repeats", MOST["steps"]), ("minutes", MOST_MINUTES)):
        if not getattr(options, name) > 0:
            raise BadInput(f"--{name} must be above 0, not {getattr(options, name)}")
        if getattr(options, name) > most:
            raise BadInput(f"--{name} must be at most {most}, not {getattr(options, name)}")
