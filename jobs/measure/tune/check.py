"""What a plan is worth on prompts that had no part in it, beside what it promises."""

from pathlib import Path

from rich.console import Console

from caching.recipe.recipe import Recipe
from caching.recipe.schedule import even_places
from jobs.errors import BadInput
from jobs.measure.sampling.gangs import executor_for
from jobs.measure.sampling.judge import sampled_in_full, unseen_items
from jobs.measure.tune.held_out import HeldOut, auto_at, promise_of
from jobs.measure.tune.places import through
from jobs.measure.tune.plan_file import write_plan
from jobs.models.facts import read_facts
from jobs.options.measure import TuneOptions
from jobs.request.guidance import guides_for
from jobs.request.recipes import read_recipe, read_tuned
from jobs.request.tuned import Promise, Tuned, circumstances, compare
from jobs.store.files import check_file

TYPICAL = 32  # prompts


def check(plan: Path, options: TuneOptions, console: Console) -> None:
    """Measure, say how it compares, and write the plan with what was found if --out says where. Raises BadInput."""
    if options.target or options.budget_dense or options.num:
        raise BadInput("--check fits nothing: leave out --target, --budget-dense and --num")
    if options.out:
        check_file(options.out, "--out")
    method, before = read_recipe(plan), read_tuned(plan)
    facts = read_facts(options.model, variant=options.video.variant)
    items = unseen_items(options, facts, TYPICAL if options.held_out is None else options.held_out)
    if len(items) < 2:
        raise BadInput("--check takes two prompts or more")
    about = circumstances(facts, items, guides_for(facts, options.video), options.video.dtype)
    untried = compare(before, plan.stem, about) if before else None
    num_dense = _num_dense(method, about.steps)
    with executor_for(facts, options.video, options.on, console) as executor:
        (judge,) = sampled_in_full(executor, [items], console)
        auto = auto_at(through(even_places(about.steps, num_dense), judge.takeovers), about.steps)
        found, untuned = map(promise_of, HeldOut(judge, console).measure(method, auto))
    for line in [*([untried] if untried else []), *_sentences(plan.stem, found, untuned, before)]:
        console.print(line, soft_wrap=True)
    if options.out:
        number = before.calibrated_on if before else 0
        write_plan(options.out, method, Tuned(**dict(about), calibrated_on=number, promise=found, auto=untuned))


def _num_dense(method: Recipe, steps: int) -> int:
    try:
        return sum(method.dense_plan(steps))
    except ValueError as error:
        raise BadInput(str(error)) from error


def _sentences(name: str, found: Promise, untuned: Promise, before: Tuned | None) -> list[str]:
    """What there is to say, a sentence a line."""
    lines = [f"{name}: {found}", f"auto, untuned, with as many dense steps: {untuned}"]
    if before:
        lines.append(f"promised: {before.promise}")
        if found.mean_db + found.give_or_take_db < before.promise.mean_db - before.promise.give_or_take_db:
            lines.append("these prompts are harder than those that it was promised on: tune with prompts like these")
    if found.mean_db < untuned.mean_db:
        lines.append("untuned auto is better on these prompts: render with it, or tune anew")
    return lines
