"""What is said of a batch before anything starts: it can be rendered, but maybe not as it was meant."""

import re
from collections.abc import Sequence
from pathlib import Path

from jobs.models.facts import ModelFacts
from jobs.models.prompt_length import cut_tokens
from jobs.request.prompts import Item

QUOTED = re.compile(r"""(["'“‘]).*["'”’],?""")
MOST_LINES = 10
IN_8_BITS = (
    "--weights fp8 saves memory and costs fidelity: others have measured LPIPS 0.2 to 0.5 between such videos and "
    "those in bfloat16; resca benchmark --weights fp8 shows what it does to yours"
)


def notices(lines: Sequence[Item], path: Path, facts: ModelFacts, *, fp8: bool = False) -> list[str]:
    """A sentence for each thing that somebody may want to change in the lines of a prompt file. Raises BadInput.

    `fp8` says that weights are asked for in 8 bits, whose price is told where there are any lines.
    """
    return [*_quoted(lines, path), *_cut(lines, path, facts), *([IN_8_BITS] if fp8 and lines else [])]


def _quoted(lines: Sequence[Item], path: Path) -> list[str]:
    """Of text files alone: the quotes of tables and JSON are no part of their prompts."""
    if path.suffix.lower() != ".txt":
        return []
    places = [_place(line, path) for line in lines if QUOTED.fullmatch(line.prompt)]
    return [f"quotes around a prompt are kept as part of it: {path}, {_listed(places)}"] if places else []


def _cut(lines: Sequence[Item], path: Path, facts: ModelFacts) -> list[str]:
    template = facts.defaults.prompt_template
    cut = cut_tokens(facts.directory, facts.family, template, [line.prompt for line in lines])
    places = [f"{_place(line, path)} by {cut[line.prompt]} tokens" for line in lines if line.prompt in cut]
    verb = "prompt is" if len(places) == 1 else "prompts are"
    told = f"{len(places)} {verb} longer than the model reads, and cut off at the end: {path}, {_listed(places)}"
    return [told] if places else []


def _place(line: Item, path: Path) -> str:
    return line.where.removeprefix(f"{path}, ")


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - MOST_LINES} more" if len(places) > MOST_LINES else ""
    return ", ".join(places[:MOST_LINES]) + more
