"""`resca render PROMPTS --out DIR`: check everything, then render on Ray whatever is not finished yet."""

from cluster.events import Outcome
from cluster.failure import FailureKind
from jobs.console import count, make_console, write_rows
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.drive import render_what_is_left, wrap_up
from jobs.driver.ending import telling
from jobs.driver.progress import JSONL
from jobs.driver.view import VideoRow, done_row, failed_row, print_table
from jobs.errors import BAD_INPUT, DONE, INFRASTRUCTURE, PARTIAL
from jobs.options.batch import RenderOptions
from jobs.store.items import RenderItem, Sidecar
from jobs.store.known import Done


def run(options: RenderOptions) -> int:
    """Render a batch. Returns 0 if every video is there, 3 if some failed, 33 if machines failed and a rerun may help.

    Raises:
        BadInput: before anything is written; what is wrong with the request, in one sentence.
        InfrastructureError: no Ray cluster can be reached, or it is lost.
    """
    console = make_console(stderr=options.progress == JSONL)
    with telling(options) as told:
        plan = make_plan(options)
        console.print("\n".join([_headline(plan), *plan.notices]), soft_wrap=True)
        told.begin(plan)
        if plan.todo or options.stay:
            plan, outcomes = render_what_is_left(plan, console, told, stays=lambda: options.stay)
        else:
            plan, outcomes = wrap_up(plan, console), []
        rows = _rows(plan, outcomes)
        print_table(console, rows, plan.noun, f"{plan.storage}/videos", told.spent_words)
        if options.json:
            write_rows(options.json, rows)
        code = exit_code(outcomes, plan)
        told.end(code)
        return code


def exit_code(outcomes: list[Outcome], plan: Plan) -> int:
    """0 without failures; 33 if a rerun would render more; 2 if the model cannot be loaded; 3 if videos were given up.

    A video is given up when it or the machines under it have failed too often; only `retry` takes that up again.
    """
    failed = [(outcome.failure, outcome.was_left) for outcome in outcomes if outcome.failure]
    left = {kind for kind, was_left in failed if was_left or kind.policy.is_left}
    if left:
        return BAD_INPUT if left == {FailureKind.START} else INFRASTRUCTURE
    return PARTIAL if failed or plan.known.given_up else DONE


def _headline(plan: Plan) -> str:
    again = f", {len(plan.known.finished)} finished before" if plan.known.finished else ""
    given_up = f", {len(plan.known.given_up)} given up before (resca retry)" if plan.known.given_up else ""
    return f"{count(len(plan.items), plan.noun)} with {plan.facts.name}, {plan.method_words}{again}{given_up}"


def _rows(plan: Plan, outcomes: list[Outcome]) -> list[VideoRow]:
    """One row an item, in the order of the prompt file."""
    rendered = {outcome.item.id: outcome for outcome in outcomes}
    return [_row(plan, item, rendered) for item in plan.items]


def _row(plan: Plan, item: RenderItem, rendered: dict[str, Outcome]) -> VideoRow:
    known, method, where = plan.known, plan.method_of(item).name, plan.storage.where(plan.settings.file(item))
    if item.id in known.finished:
        return done_row(item, method, where, known.finished[item.id], "finished before")
    if item.id in known.given_up:
        return failed_row(item, method, known.given_up[item.id], "given up before")
    outcome = rendered[item.id]
    if outcome.failure:
        return failed_row(item, method, outcome.error, "failed")
    done = Done.of_sidecar(Sidecar.model_validate(outcome.result), item.name)
    return done_row(item, method, where, done, "rendered")
