"""The command line: `resca render PROMPTS --out DIR`, and more verbs (also `python -m jobs ...`)."""

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from jobs.errors import BAD_INPUT
from jobs.options import batch
from jobs.options import measure as options
from jobs.options.capacity import CapacityOptions
from jobs.options.gpu import GpuOptions
from jobs.options.scaling import ScalingOptions, SubmitScalingOptions
from jobs.options.serve import ServeDriverOptions, ServeOptions

# Each command: what it may be told, and the module whose `run` takes it. Modules are imported when they are needed.
COMMANDS: dict[str, tuple[type, str]] = {
    "render": (batch.RenderOptions, "jobs.commands.render"),
    "plan": (batch.PlanOptions, "jobs.commands.plan"),
    "plan --gpus": (CapacityOptions, "jobs.commands.plan_gpus"),
    "submit": (batch.SubmitOptions, "jobs.commands.submit"),
    "submit scaling": (SubmitScalingOptions, "jobs.commands.submit_scaling"),
    "add": (batch.AddOptions, "jobs.commands.add"),
    "withdraw": (batch.WithdrawOptions, "jobs.commands.withdraw"),
    "status": (batch.StatusOptions, "jobs.commands.status"),
    "retry": (batch.RetryOptions, "jobs.commands.retry"),
    "logs": (batch.LogsOptions, "jobs.commands.logs"),
    "cancel": (batch.CancelOptions, "jobs.commands.cancel"),
    "export vbench": (batch.VBenchOptions, "jobs.commands.export_vbench"),
    "export geneval": (batch.GenEvalOptions, "jobs.commands.export_geneval"),
    "export drawbench": (batch.DrawBenchOptions, "jobs.commands.export_drawbench"),
    "export fid": (batch.FidOptions, "jobs.commands.export_fid"),
    "serve": (ServeOptions, "jobs.commands.serve"),
    "serve driver": (ServeDriverOptions, "jobs.commands.serve_driver"),
    "doctor": (batch.DoctorOptions, "jobs.doctor"),
    "benchmark": (options.BenchmarkOptions, "jobs.commands.benchmark"),
    "benchmark gpu": (GpuOptions, "jobs.commands.benchmark_gpu"),
    "benchmark overhead": (options.OverheadOptions, "jobs.commands.overhead"),
    "benchmark driver": (options.DriverOptions, "jobs.commands.benchmark_driver"),
    "flops": (options.FlopsOptions, "jobs.commands.flops"),
    "comm": (options.CommOptions, "jobs.commands.comm"),
    "memory": (options.MemoryOptions, "jobs.commands.memory"),
    "scaling": (ScalingOptions, "jobs.commands.scaling"),
    "tune": (options.TuneOptions, "jobs.commands.tune"),
    "analyze": (options.AnalyzeOptions, "jobs.commands.analyze"),
}

WATCH_S = "5"
NUMBER = re.compile(r"[-+]?[\d.]+(?:e[-+]?\d+)?|nan|inf", re.IGNORECASE)

PLACES = ConstructorRegistry()


@PLACES.primitive_rule
def _place(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """How words become paths, and strings, which may name one: shells leave the ~ of --out=~/videos as it is."""
    of = {each for each in get_args(kind.type) or (kind.type,) if each is not type(None)}
    if of not in ({Path}, {str}):
        return None
    [place] = of

    def read(words: list[str]) -> Path | str:
        from jobs.store.open import home_expanded

        if place is Path and not words[0].strip():
            raise ValueError("the name of a file or directory is empty")
        return place(home_expanded(words[0]))

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=place.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, place),
        str_from_instance=lambda value: [str(value)],
    )


def parse(arguments: Sequence[str] | None = None) -> Any:
    """Read the command line. Leaves with SystemExit: 0 after --help, 2 after one sentence on what is wrong."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            words = _words(arguments)
            return tyro.cli(_command(), prog="resca", args=words, description=__doc__, registry=PLACES)
    except SystemExit as stop:
        if stop.code == BAD_INPUT:
            print(f"resca: {_sentence(complaint.getvalue())}", file=sys.stderr)
        raise


def _command() -> Any:
    return Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in COMMANDS.items())]  # noqa: UP007


def _words(arguments: Sequence[str] | None) -> list[str]:
    """The command line, with the two words of `benchmark gpu` and its like as the name of one command.

    `plan` has two: with prompts, and with `--gpus` anywhere behind it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["plan"] and any(word.partition("=")[0] == "--gpus" for word in words):
        return ["plan --gpus", *words[1:]]
    if words[:1] == ["status"]:
        return _with_seconds(words)
    both = " ".join(words[:2])
    return [both, *words[2:]] if both in COMMANDS else words


def _with_seconds(words: list[str]) -> list[str]:
    """A `--watch` that no number follows means the usual one."""
    if "--watch" not in words:
        return words
    behind = words.index("--watch") + 1
    return (
        words if NUMBER.fullmatch("".join(words[behind : behind + 1])) else [*words[:behind], WATCH_S, *words[behind:]]
    )


def _sentence(box: str) -> str:
    """The first paragraph of tyro's framed complaint on one line, without the help texts that it indents."""
    lines = [line.strip("│").removesuffix("│")[1:].rstrip() for line in box.splitlines()[1:]]
    paragraph = takewhile(lambda line: line and not _is_rule(line), dropwhile(_is_rule, lines))
    words = " ".join(line.strip() for line in paragraph if not line.startswith(" " * 8))
    return f"{words.removesuffix('.').replace('{None}|', '')}; for the options see resca --help."


def _is_rule(line: str) -> bool:
    """Whether a line is drawn; terminals without UTF-8 get dashes."""
    return bool(line) and not line.strip(" ─-")
