"""`resca submit PROMPTS --out URL`: render on a cluster from another machine, through Ray's job interface."""

from pathlib import Path

from jobs.commands.job import Job, check_model, check_place, flags_of, send
from jobs.driver.on_end import check_form
from jobs.driver.progress import JSONL
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions, SubmitOptions
from jobs.request.checks import check_numbers
from jobs.request.prompts import Defaults, items_of
from jobs.request.recipes import SUFFIXES, read_recipe
from jobs.request.source import read_source, source_path


def run(options: SubmitOptions) -> int:
    """Returns the job's own exit code when it is followed. Raises BadInput and InfrastructureError."""
    check_numbers(options)
    if options.on_end is not None:
        check_form(options.on_end)
    _check_prompts(options)
    _check_reachable_later(options)
    return send(job_of(options), options.dashboard, follows=options.follow, tells_programs=options.progress == JSONL)


def job_of(options: SubmitOptions) -> Job:
    """The rendering as a job; local files that the options name go along."""
    source = source_path(options.prompts, options.lines)
    files = {f"prompts{source.suffix}": source, **_recipes(options)}
    own = RenderOptions(out=options.out)
    words = ["render", *([next(iter(files))] if options.prompts else []), "--address", "auto", "--yes"]
    words += flags_of(options, own, files, leave_out=("prompts", "address", "yes", "json"))
    return Job(words=words, files=files, model=options.model, out=options.out)


def _check_prompts(options: SubmitOptions) -> None:
    """Raises BadInput for prompts that cannot be read; what the model makes of them is seen where that is."""
    anything = Defaults(height=1, width=1, num_frames=1, steps=1)
    source = read_source(options.prompts, options.lines, anything.fps)
    if not items_of(source.lines, source.path, anything) and not options.stay:
        raise BadInput(f"{source.path} has no prompts; write one a line")


def _check_reachable_later(options: SubmitOptions) -> None:
    """What the cluster will look for must be there, too, and what goes with the job must be here."""
    if options.json or options.address:
        raise BadInput("--json and --address are for render; the job attaches to the cluster that it is submitted to")
    for recipe in _recipes(options).values():
        read_recipe(recipe)
    check_model(options.model)
    check_place("--out", options.out)


def _recipes(options: SubmitOptions) -> dict[str, Path]:
    """Files with recipes, by their names in the job."""
    files = {}
    if plan := options.cache.plan:
        files[f"plan{plan.suffix}"] = plan
    if options.method.endswith(SUFFIXES):
        recipe = Path(options.method)
        files[f"recipe{recipe.suffix}"] = recipe
    return files
