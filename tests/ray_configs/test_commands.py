"""The commands that README.md and ray_configs print: what they ask for, `resca plan` takes without a complaint."""

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from jobs.__main__ import parse
from jobs.commands.plan import run
from jobs.errors import DONE, BadInput
from jobs.options.batch import PlanOptions, RenderOptions
from tests.jobs.models.test_facts import make_model

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted(path for path in (ROOT / "ray_configs").iterdir() if path.suffix != ".json")]
FITTED_PLAN = ROOT / "jobs/demo/model/plans/auto-9.yaml"
# Each ends with its line, or with what encloses it.
COMMAND = re.compile(r"resca (?:render|plan|submit) \S*prompts\.\S+ [^\n`;|]+")
BATCH_SCRIPT = re.compile(r"sbatch [^\n`]*slurm\.sh (\S*prompts\.\S+) (\S+)([^\n`]*)")
COMMENT, CONTINUED, FOLDED = re.compile(r"^# ?", re.MULTILINE), re.compile(r"\s*\\\n\s*"), r">-\n((?: {4}.*\n)+)"


def printed_in(path: Path) -> list[str]:
    """Every command of a file on one line; what is submitted to Slurm, as slurm.sh passes it on."""
    text = CONTINUED.sub(" ", COMMENT.sub("", path.read_text()))
    text = re.sub(FOLDED, lambda scalar: " ".join(scalar[1].split()) + "\n", text)
    batches = [f"resca render {prompts} --out {out}{options}" for prompts, out, options in BATCH_SCRIPT.findall(text)]
    return COMMAND.findall(text) + batches


def planned_here(command: str, folder: Path) -> PlanOptions:
    """The options of a command, with files and nodes of this machine in place of the reader's."""
    given = parse(shlex.split(command)[1:])
    options = PlanOptions(**{field.name: getattr(given, field.name) for field in fields(RenderOptions)})
    several = {options.ulysses, options.ring, options.gangs} != {1}
    return replace(
        options,
        prompts=folder / "prompts.txt",
        out=str(folder / "videos"),
        model=options.model if options.model == "demo" else str(folder / "model"),
        cache=replace(options.cache, plan=options.cache.plan and FITTED_PLAN),
        nodes=options.nodes or ("8xCPU=192,GPU=8" if several else None),
        address=None,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_printed_commands_are_accepted(path, tmp_path):
    (tmp_path / "prompts.txt").write_text("a large red circle moving right on a plain background\n")
    make_model(tmp_path / "model", {"num_attention_heads": 24})
    commands = printed_in(path)
    assert commands, "no command was found"
    for command in commands:
        try:
            assert run(planned_here(command, tmp_path)) == DONE
        except BadInput as refusal:
            pytest.fail(f"{command}: {refusal}")
