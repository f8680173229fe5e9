"""Where the lines of a batch come from: a prompt file, or a template over a table."""

from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BadInput
from jobs.options.shared import PromptOptions
from jobs.request.prompt_lines import Given
from jobs.request.prompts import FIELDS, read_lines
from jobs.request.template import read_template


@dataclass(frozen=True, kw_only=True)
class Source:
    """Lines as they are given, and the file that they are of."""

    path: Path
    lines: list[Given]


def read_source(prompts: Path | None, options: PromptOptions, fps: int | None) -> Source:
    """The lines that were asked for. Raises BadInput, naming the file, and the line if there is one."""
    path = source_path(prompts, options)
    if options.template is None:
        lines = read_lines(path, fps)
    else:
        lines = list(read_template(options.template, path, frozenset(FIELDS)))
    return Source(path=path, lines=lines)


def source_path(prompts: Path | None, options: PromptOptions) -> Path:
    """The prompt file, or the table of the template. Raises BadInput if it is not clear which."""
    if (options.template is None) != (options.table is None):
        missing, there = ("--table", "--template") if options.table is None else ("--template", "--table")
        raise BadInput(f"{there} needs a {missing}, whose columns the template names")
    if options.table and prompts:
        raise BadInput(f"--template and --table take the place of a prompt file; leave out {prompts}, or them")
    if path := options.table or prompts:
        return path
    raise BadInput("name a file of prompts, or a --template with its --table")
