"""`resca render PROMPTS --out DIR`: check everything, then render on Ray whatever is not finished yet."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from cluster.nodes import HeadLost
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.cancellation import CancelWatch
from jobs.driver.cost import LONG_S, calibrate, estimate, work
from jobs.driver.recorder import Recorder
from jobs.driver.remembered import remember
from jobs.driver.view import BatchView, count, done_row, duration, failed_row, make_console, print_table, write_rows
from jobs.errors import BAD_INPUT, DONE, INFRASTRUCTURE, PARTIAL, BadInput, InfrastructureError
from jobs.options.batch import RenderOptions
from jobs.rank.workload import RenderWorkload
from jobs.request.gangs import cluster_nodes, gang_spec, gangs_to_ask_for, nodes_as_given, num_gangs
from jobs.store.items import ATTEMPTS, CHECKPOINTS, JOB, RenderItem, Sidecar
from jobs.store.known import Done
from jobs.store.ledger import FOLDER as LEDGER
from jobs.store.lock import NAME as LOCK
from jobs.store.lock import DriverLock, LockLost
from jobs.store.logs import logging_to, prune
from parallel.layout import Layout


def run(options: RenderOptions) -> int:
    """Render a batch. Returns 0 if every video is there, 3 if some failed, 33 if machines failed and a rerun may help.

    Raises:
        BadInput: before anything is written; what is wrong with the request, in one sentence.
        InfrastructureError: no Ray cluster can be reached, or it is lost.
    """
    plan, console = make_plan(options), make_console()
    console.print(_headline(plan), soft_wrap=True)
    plan, outcomes = _render(plan, console) if plan.todo else (_wrap_up(plan, console), [])
    rows = _rows(plan, outcomes)
    print_table(console, rows, f"{plan.storage}/videos")
    if options.json:
        write_rows(options.json, rows)
    return exit_code(outcomes, plan)


def exit_code(outcomes: list[Any], plan: Plan) -> int:
    """0 without failures; 33 if a rerun would render more; 2 if the model cannot be loaded; 3 if videos were given up.

    A video is given up when it or the machines under it have failed too often; only `retry` takes that up again.
    """
    failed = [outcome for outcome in outcomes if outcome.failure]
    left = {each.failure.value for each in failed if each.was_left or each.failure.value in ("start", "storage")}
    if left:
        return BAD_INPUT if left == {"start"} else INFRASTRUCTURE
    return PARTIAL if failed or plan.known.given_up else DONE


def _headline(plan: Plan) -> str:
    again = f", {len(plan.known.finished)} finished before" if plan.known.finished else ""
    given_up = f", {len(plan.known.given_up)} given up before (resca retry)" if plan.known.given_up else ""
    return f"{count(len(plan.items), 'video')} with {plan.facts.name}, method {plan.options.method}{again}{given_up}"


def _render(plan: Plan, console: Console) -> tuple[Plan, list[Any]]:
    """Render what is left; everything that was started is gone when this returns or raises.

    The plan comes back, too, as another driver may have been at work until this one got the lock.
    """
    options = plan.options
    with running_ray(options.address):
        layout, spec = gang_spec(
            options, heads=plan.facts.heads, tokens=min(map(plan.num_tokens, plan.todo)), method=plan.method
        )
        if "auto" in (options.ulysses, options.ring):
            console.print(f"layout: ulysses {layout.ulysses} x ring {layout.ring}")
        _ask(plan, console, spec)
        with plan.storage.trouble(), DriverLock(plan.storage) as lock:
            plan = _up_to_date(plan, lock)
            checks = [lock.check, CancelWatch(plan.storage).check]
            with _recording(plan, lock) as recorder:
                return plan, _run_batch(plan, console, recorder, checks, layout, spec)


def _up_to_date(plan: Plan, lock: DriverLock) -> Plan:
    """The plan, made anew if another driver has been at work since."""
    is_outdated = lock.took_over or plan.storage.folder(LEDGER) != plan.known.ledger
    return make_plan(plan.options) if is_outdated else plan


def _wrap_up(plan: Plan, console: Console) -> Plan:
    """What a driver that was killed at the very end has left to do: its last words, the gallery, its debris."""
    storage = plan.storage
    if not (plan.known.untold or storage.stored(LOCK) or storage.folders(ATTEMPTS)):
        return plan
    try:
        storage.check_writable()
        with storage.trouble(), DriverLock(storage) as lock:
            plan = _up_to_date(plan, lock)
            with _recording(plan, lock):
                return plan
    except BadInput as reason:  # Another driver is about to do it, or nobody can: the videos are there all the same.
        console.print(f"left as it is: {reason}", soft_wrap=True)
        return plan


@contextmanager
def _recording(plan: Plan, lock: DriverLock) -> Iterator[Recorder]:
    """What is written before, during and after the batch."""
    storage, how, is_ours = plan.storage, "stopped", True
    with _driver_log(plan):
        _clear(plan)
        prune(storage)
        remember(plan)
        recorder = Recorder(storage, plan.items, plan.known, title=plan.facts.name)
        recorder.begin(**_first_words(plan))
        try:
            yield recorder
            how = "done"
        except LockLost:
            is_ours = False
            raise
        except HeadLost as error:
            _leave_at_once(str(error), recorder, lock)
        finally:
            if is_ours:
                recorder.close(how)
                storage.remove(ATTEMPTS)


def _clear(plan: Plan) -> None:
    """Remove what killed ranks have left; no other driver is at work here."""
    storage = plan.storage
    storage.remove(ATTEMPTS)
    for finished in storage.folders(CHECKPOINTS) & plan.known.finished.keys():
        storage.remove(f"{CHECKPOINTS}/{finished}")


def _run_batch(
    plan: Plan, console: Console, recorder: Recorder, checks: list[Any], layout: Layout, spec: Any
) -> list[Any]:
    from cluster.batch import Budgets, InfeasibleGang, run_batch

    options = plan.options

    def tick() -> None:
        for check in checks:
            check()
        recorder.tick()

    with BatchView(console, len(plan.todo)) as view:

        def note(event: Any) -> None:
            view.show(event)
            recorder.note(event)

        try:
            return run_batch(
                spec=spec,
                gangs=gangs_to_ask_for(options, spec),
                workload=workload_of(plan, layout),
                items=plan.todo,
                cost_of=lambda item: work(plan.facts, item),
                shape_of=_shape if options.video.compile else lambda item: None,
                budgets=Budgets(item_failures=options.tries, gang_losses=options.lost_gangs),
                on_event=note,
                on_tick=tick,
                may_grow_to=nodes_as_given(options),
            )
        except InfeasibleGang as error:  # It did fit a moment ago.
            raise InfrastructureError(str(error)) from error
        except (KeyboardInterrupt, SystemExit):
            done, all_of_them = view.num_done, count(view.total, "video")
            console.print(f"stopped after {done} of {all_of_them}; run it again for the rest")
            raise


def _first_words(plan: Plan) -> dict[str, Any]:
    options = plan.options
    return {
        "total": len(plan.items),
        "todo": len(plan.todo),
        "method": options.method,
        "model": plan.facts.name,
        "gangs": options.gangs,
        "retry": options.retry or None,
        "job": os.environ.get(JOB),
    }


def _ask(plan: Plan, console: Console, spec: Any) -> None:
    """Says what is expected, and asks before what is long; on a terminal only, as nobody could answer elsewhere."""
    options = plan.options
    model = calibrate(plan.facts, plan.items, plan.known.finished)
    if model is None:
        return
    gangs = num_gangs(options, spec, cluster_nodes(options))
    expected = estimate(plan.facts, plan.todo, model, num_ranks=spec.world_size, num_gangs=gangs)
    sentence = f"about {duration(expected.wall_s)} for {count(len(plan.todo), 'video')} ({expected.basis})"
    console.print(sentence, soft_wrap=True)
    if expected.wall_s < LONG_S or options.yes or not (console.is_terminal and sys.stdin.isatty()):
        return
    if console.input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise BadInput("not started")


def _shape(item: RenderItem) -> tuple[int, int, int]:
    return item.height, item.width, item.num_frames


def _driver_log(plan: Plan) -> Any:
    directory = plan.storage.directory
    return logging_to(directory / "logs" / "driver.jsonl") if directory else ExitStack()


def _leave_at_once(reason: str, recorder: Recorder, lock: DriverLock) -> None:
    """Ends the process without Ray's own teardown, which would wait for a head that is gone."""
    recorder.close("stopped")
    lock.__exit__()
    logging.getLogger(__name__).error(reason)
    print(f"resca: {reason} Run it again on a new cluster for the rest.", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(INFRASTRUCTURE)


def workload_of(plan: Plan, layout: Layout) -> RenderWorkload:
    """What each rank of a gang builds."""
    options = plan.options
    return RenderWorkload(
        model=plan.facts.source,
        revision=plan.facts.revision,
        prompt_template=plan.facts.defaults.prompt_template,
        dtype=plan.items[0].dtype,
        layout=layout,
        engine=options.sp_engine,
        recipe=plan.method,
        compiled=options.video.compile,
        deadline_s=options.deadline,
        shard_weights=options.shard_weights,
        offload=options.offload,
        own_code=options.trust_remote_code,
        checkpoint_every=options.checkpoint_every,
    )


@contextmanager
def running_ray(address: str | None) -> Iterator[None]:
    """A running Ray; its errors at the start, in this package's terms."""
    from cluster.runtime import ClusterUnavailable, ray_runtime

    with ExitStack() as stack:
        try:
            stack.enter_context(ray_runtime(address))
        except ClusterUnavailable as error:
            raise InfrastructureError(str(error)) from error
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield


def _rows(plan: Plan, outcomes: list[Any]) -> list[dict[str, Any]]:
    """One row an item, in the order of the prompt file."""
    rendered = {outcome.item.id: outcome for outcome in outcomes}
    return [_row(plan, item, rendered.get(item.id)) for item in plan.items]


def _row(plan: Plan, item: RenderItem, outcome: Any) -> dict[str, Any]:
    known, where = plan.known, plan.storage.where(item.video)
    if item.id in known.finished:
        return done_row(item, where, known.finished[item.id], "finished before")
    if item.id in known.given_up:
        return failed_row(item, known.given_up[item.id], "given up before")
    if outcome.failure:
        return failed_row(item, outcome.error, "failed")
    done = Done.of_sidecar(Sidecar.model_validate(outcome.result), item.name)
    return done_row(item, where, done, "rendered")
