"""The command line: `resca render PROMPTS --out DIR`, and more verbs (also `python -m jobs ...`)."""

import contextlib
import io
import sys
from collections.abc import Sequence
from itertools import dropwhile, takewhile
from typing import Annotated

import tyro

from jobs.errors import BAD_INPUT, INTERRUPTED, JobError
from jobs.gpu.options import GpuOptions
from jobs.options import (
    AnalyzeOptions,
    BenchmarkOptions,
    CommOptions,
    FlopsOptions,
    MemoryOptions,
    RenderOptions,
    ScalingOptions,
    TuneOptions,
)

Command = (
    Annotated[RenderOptions, tyro.conf.subcommand("render")]
    | Annotated[BenchmarkOptions, tyro.conf.subcommand("benchmark")]
    | Annotated[GpuOptions, tyro.conf.subcommand("benchmark gpu")]
    | Annotated[FlopsOptions, tyro.conf.subcommand("flops")]
    | Annotated[CommOptions, tyro.conf.subcommand("comm")]
    | Annotated[MemoryOptions, tyro.conf.subcommand("memory")]
    | Annotated[ScalingOptions, tyro.conf.subcommand("scaling")]
    | Annotated[TuneOptions, tyro.conf.subcommand("tune")]
    | Annotated[AnalyzeOptions, tyro.conf.subcommand("analyze")]
)

Options = (
    RenderOptions
    | BenchmarkOptions
    | GpuOptions
    | FlopsOptions
    | CommOptions
    | MemoryOptions
    | ScalingOptions
    | TuneOptions
    | AnalyzeOptions
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 2 bad input, 3 partial, 33 infrastructure, 130 or 143 stopped."""
    try:
        return _run(parse(arguments))
    except JobError as error:
        print(f"resca: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line. Leaves with SystemExit: 0 after --help, 2 after one sentence on what is wrong."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(Command, prog="resca", args=_words(arguments), description=__doc__)  # type: ignore[arg-type]
    except SystemExit as stop:
        if stop.code == BAD_INPUT:
            print(f"resca: {_sentence(complaint.getvalue())}", file=sys.stderr)
        raise


def _words(arguments: Sequence[str] | None) -> list[str]:
    """The command line, with the two words of `benchmark gpu` as the name of one command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return ["benchmark gpu", *words[2:]] if words[:2] == ["benchmark", "gpu"] else words


def _sentence(box: str) -> str:
    """The first paragraph of tyro's framed complaint on one line, without the help texts that it indents."""
    lines = [line.strip("│").removesuffix("│")[1:].rstrip() for line in box.splitlines()[1:]]
    paragraph = takewhile(lambda line: line and not _is_rule(line), dropwhile(_is_rule, lines))
    words = " ".join(line.strip() for line in paragraph if not line.startswith(" " * 8))
    return f"{words.removesuffix('.').replace('{None}|', '')}; for the options see resca --help."


def _is_rule(line: str) -> bool:
    """Whether a line is drawn; terminals without UTF-8 get dashes."""
    return bool(line) and not line.strip(" ─-")


def _run(options: Options) -> int:
    match options:
        case RenderOptions():
            from jobs.render import run
        case BenchmarkOptions():
            from jobs.benchmark import run
        case GpuOptions():
            from jobs.gpu.benchmark import run
        case FlopsOptions():
            from jobs.flops import run
        case CommOptions():
            from jobs.comm import run
        case MemoryOptions():
            from jobs.memory import run
        case ScalingOptions():
            from jobs.scaling import run
        case TuneOptions():
            from jobs.tune import run
        case AnalyzeOptions():
            from jobs.analyze import run
    return run(options)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
