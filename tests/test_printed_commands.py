"""What the READMEs and ray_configs print works as printed: commands, options, targets, modules, paths and links."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from inspect import get_annotations
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from pydantic import TypeAdapter

from caching.recipe.recipe import RECIPES, Recipe, recipe
from jobs.commands.export_vbench import DIMENSIONS, PROMPTS, VIDEOS
from jobs.commands.plan import run
from jobs.errors import DONE, BadInput
from jobs.measure.scaling.compare import read_cases, render_options
from jobs.models.demos import DEMOS
from jobs.options.batch import PlanOptions, RenderOptions
from jobs.options.capacity import CapacityOptions
from jobs.options.command_line import COMMANDS, parse
from jobs.options.measure import ComparedOptions
from jobs.options.scaling import ScalingOptions
from jobs.predict.plan import make_rows, read_question
from jobs.request.gangs import nodes_as_given
from jobs.request.recipes import resolve_method
from parallel.layout import Layout
from tests.jobs.models.test_facts import INDEX, make_model

ROOT = Path(__file__).parents[1]
PACKAGES = ("caching", "parallel", "cluster", "jobs")
READMES = [
    ROOT / "README.md",
    *(ROOT / folder / "README.md" for folder in (*PACKAGES, "ray_configs")),
    *(directory / "README.md" for directory in DEMOS.values()),
]
SCRIPTS = sorted(path for path in (ROOT / "ray_configs").iterdir() if path.suffix in (".sh", ".yaml"))
FILES = [*READMES, *SCRIPTS]
PLANS = {path.stem: path for path in (DEMOS["demo"] / "plans").iterdir()}

FENCED, INDENTED, SPAN = re.compile(r"^```.*?^```", re.M | re.S), re.compile(r"^ {4}.*$", re.M), re.compile("`([^`]+)`")
COMMENT, CONTINUED, FOLDED = re.compile(r"^# ?", re.M), re.compile(r"\s*\\\n\s*"), r">-\n((?: {4}.*\n)+)"
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")

# A sentence may name a verb without what it needs to be told.
MENTION = re.compile(rf"`resca (?:{'|'.join(COMMANDS)})`")
# A command ends with its line, or with what encloses it. In a script, what is said of `resca` may be no command.
RESCA = re.compile(r"(?<![\w,.-])resca ([a-z][^\n`;|]*)")
RESCA_IN_SCRIPTS = re.compile(rf"(?<![\w,.-])resca ((?:{'|'.join(COMMANDS)})(?=[ \n`])[^\n`;|]*)")
MODULE_OF_RESCA = re.compile(r"python -m jobs ([a-z][^\n`;|]*)")
BATCH_SCRIPT = re.compile(r"sbatch [^\n`]*slurm\.sh (\S*prompts\.\S+) (\S+)([^\n`]*)")
SCALING_SCRIPT = re.compile(r"sbatch [^\n`]*slurm\.sh (scaling [^\n`]*)")
VBENCH = re.compile(r"vbench evaluate ([^\n]*)")
MAKE, MODULE = (
    re.compile(r"\bmake ((?:[a-z][\w-]*|[A-Z]\w*=\S+)(?: [A-Z]\w*=\S+)*)"),
    re.compile(r"python -m (jobs\.[\w.]+)([^\n`]*)"),
)
EXTRAS = re.compile(r"pip install [^\n]*?\[([\w,]+)\]")
REPOSITORY_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*PACKAGES, 'ray_configs', 'tests'))})/[\w./-]*\w")


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_in(path: Path) -> list[str]:
    """Everything that a file prints as code: lines of blocks, and spans inside sentences."""
    text = MENTION.sub("", path.read_text())
    if path in SCRIPTS:
        text = re.sub(FOLDED, lambda scalar: " ".join(scalar[1].split()) + "\n", text)
        return [CONTINUED.sub(" ", COMMENT.sub("", text))]
    text = CONTINUED.sub(" ", FENCED.sub("", text))
    return INDENTED.findall(text) + [" ".join(span.split()) for span in SPAN.findall(INDENTED.sub("", text))]


def commands_in(path: Path) -> list[str]:
    """What follows `resca` in every command of a file; what is submitted to Slurm, as slurm.sh passes it on."""
    patterns = (RESCA_IN_SCRIPTS if path in SCRIPTS else RESCA, MODULE_OF_RESCA)
    found = [command.strip() for code in code_in(path) for pattern in patterns for command in pattern.findall(code)]
    batches = [batch for code in code_in(path) for batch in BATCH_SCRIPT.findall(code)]
    slurm = [f"render {prompts} --out {out}{options}" for prompts, out, options in batches]
    slurm += [command for code in code_in(path) for command in SCALING_SCRIPT.findall(code)]
    return [command for command in found if '"$@"' not in command] + slurm  # slurm.sh's own call is not printed


def printed(pattern: re.Pattern[str]) -> list[Any]:
    """What the READMEs print of a kind, each once."""
    found = {name: path for path in READMES for code in code_in(path) for name in pattern.findall(code)}
    return [
        pytest.param(*([name] if isinstance(name, str) else name), id=f"{place(path)}: {name}")
        for name, path in found.items()
    ]


def is_complete(command: str) -> bool:
    return parsed(command) is not None


def parsed(command: str) -> object:
    """The options of a command; None for what the command line does not take."""
    try:
        return parse(words(command))
    except SystemExit:
        return None


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


ALL = [pytest.param(path, command, id=f"{place(path)}: {command}") for path in FILES for command in commands_in(path)]
BATCHES = [param for param in ALL if isinstance(parsed(str(param.values[1])), RenderOptions)]
QUESTIONS = [param for param in ALL if isinstance(parsed(str(param.values[1])), CapacityOptions)]
LAYOUTS = [param for param in ALL if isinstance(parsed(str(param.values[1])), ScalingOptions)]


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_command_is_found_in_every_file(path):
    assert commands_in(path) or (path in READMES and any(map(MODULE.search, code_in(path))))


def test_what_does_not_work_is_found():
    assert is_complete("status videos") and is_complete("benchmark gpu --report out/gpu")
    assert not any(map(is_complete, ["rendr prompts.txt", "render prompts.txt --out videos --ulises 2", "status"]))


@pytest.mark.parametrize("path, command", ALL)
def test_the_command_line_takes_every_command(path, command):
    assert is_complete(command)


@pytest.mark.parametrize("path, command", BATCHES)
def test_batches_can_be_planned(path, command, tmp_path):
    (tmp_path / "prompts.txt").write_text("a large red circle moving right on a plain background\n")
    model = make_model(tmp_path / "model", {"num_attention_heads": 24})
    if "FLUX" in command:
        classes = {"transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
        (model / "model_index.json").write_text(json.dumps({**INDEX, "_class_name": "FluxPipeline", **classes}))
    try:
        assert run(planned_here(command, tmp_path)) == DONE
    except BadInput as refusal:
        pytest.fail(f"{command}: {refusal}")


@pytest.mark.parametrize("path, command", QUESTIONS)
def test_what_so_many_gpus_would_render_can_be_predicted(path, command):
    assert make_rows(read_question(parse(words(command))))


@pytest.mark.parametrize("path, command", LAYOUTS)
def test_layouts_that_are_measured_can_be_read(path, command):
    options = parsed(command)
    assert isinstance(options, ScalingOptions) and len(read_cases(options)) > 1
    nodes_as_given(render_options(options, Layout(), options.out))


def planned_here(command: str, folder: Path) -> PlanOptions:
    """The options of a command, with files and nodes of this machine in place of the reader's."""
    given = parse(words(command))
    options = PlanOptions(**{field.name: getattr(given, field.name) for field in fields(RenderOptions)})
    several = {options.ulysses, options.ring, options.gangs} != {1}
    if options.lines.table:
        (folder / "table.csv").write_text("animal,place\na cat,a garden\n")
    return replace(
        options,
        prompts=options.prompts and folder / "prompts.txt",
        lines=replace(options.lines, table=options.lines.table and folder / "table.csv"),
        out=str(folder / "videos"),
        model=options.model if options.model in DEMOS else str(folder / "model"),
        cache=replace(options.cache, plan=options.cache.plan and PLANS["auto-9"]),
        nodes=options.nodes or ("8xCPU=192,GPU=8" if several else None),
        address=None,
    )


@pytest.mark.parametrize("path, command", ALL)
def test_methods_that_are_compared_exist(path, command):
    given = parse(words(command))
    if isinstance(given, ComparedOptions) and given.methods:
        for name in given.method_names():
            resolve_method(name, given.cache_for(name), PLANS, cross_attention=True)


@pytest.mark.parametrize("path", [path for path in READMES if path.parent not in DEMOS.values()], ids=place)
def test_options_that_a_sentence_names_exist(path):
    known = {option for kind, _ in COMMANDS.values() for option in option_names(kind)}
    named = {name for code in code_in(path) if code.startswith("--") for name in re.findall(r"--[a-z][a-z0-9-]*", code)}
    assert named <= known


def option_names(kind: Any) -> Iterator[str]:
    for field in fields(kind):
        factory: Any = field.default_factory
        if is_dataclass(factory):
            yield from option_names(factory)
        yield "--" + field.name.replace("_", "-")


@pytest.mark.parametrize("words", printed(MAKE))
def test_make_has_every_target_and_variable(words):
    makefile = (ROOT / "Makefile").read_text()
    targets, variables = (re.findall(pattern, makefile, re.M) for pattern in (r"^([a-z-]+):", r"^(\w+) [?:]?="))
    for word in words.split():
        assert word in targets or word.partition("=")[0] in variables


@pytest.mark.parametrize("module, arguments", printed(MODULE))
def test_modules_take_their_arguments(module, arguments):
    (options, *_) = get_annotations(import_module(module).main).values()
    tyro.cli(options, args=words(arguments))


@pytest.mark.parametrize("path", [path for path in FILES if EXTRAS.search(path.read_text())], ids=place)
def test_extras_exist(path):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in EXTRAS.findall(path.read_text()):
        assert set(extras.split(",")) <= declared.keys()


@pytest.mark.parametrize("command", printed(VBENCH))
def test_vbench_is_given_what_export_has_written(command):
    given = shlex.split(command)
    options = dict(zip(given[::2], given[1::2], strict=True))
    assert options["--dimension"] in DIMENSIONS and options["--mode"] == "custom_input"
    assert (Path(options["--videos_path"]).name, Path(options["--prompt_file"]).name) == (VIDEOS, PROMPTS)


@pytest.mark.parametrize("path", FILES, ids=place)
def test_paths_of_the_repository_exist(path):
    named = {name for code in code_in(path) for name in REPOSITORY_PATH.findall(code)}
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", READMES, ids=place)
def test_links_lead_somewhere(path):
    for target, heading in LINK.findall(SPAN.sub("", FENCED.sub("", path.read_text()))):
        if not target.startswith("https://"):
            file = path.parent / target if target else path
            assert file.exists(), f"{target} does not exist"
            assert not heading or heading in headings(file), f"{target} has no heading {heading}"


def headings(path: Path) -> set[str]:
    """The anchors of a Markdown file, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_table_of_methods_gives_the_options_that_they_have_and_their_defaults():
    rows = re.findall(r"^\| (`.+?) \| .* \|(.*)\|$", (ROOT / "caching/README.md").read_text(), re.M)
    table = {name: options for names, options in rows for name in SPAN.findall(names) if name in RECIPES}
    assert {"full", "resca", "auto"} <= table.keys()
    for name, options in table.items():
        given = dict(re.findall(r"`--(\w+) (\S+)`", options))
        assert given.keys() == RECIPES[name].options.keys(), name
        assert recipe(name, **{option: number(value) for option, value in given.items()}) == RECIPES[name]


def number(text: str) -> float | str:
    return int(text) if text.isdigit() else float(text) if re.fullmatch(r"[\d.]+", text) else text


def test_recipe_files_are_recipes():
    blocks = re.findall(r"^((?: {4}.*\n)+)", (ROOT / "caching/README.md").read_text(), re.M)
    files = [yaml.safe_load(block) for block in blocks if block.startswith("    name:")]
    assert files
    for file in files:
        TypeAdapter(Recipe).validate_python(file)


def test_the_front_door_is_short():
    assert len((ROOT / "README.md").read_text()) <= 9_000
