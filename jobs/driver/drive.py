"""One batch from a checked plan to its end: on Ray, under the lock of its directory, with everything written down."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from rich.console import Console

from cluster.events import Event, Outcome
from cluster.nodes import HeadLost
from cluster.placement import GangSpec
from jobs.console import count, duration
from jobs.driver.arrivals import Arrivals, Follower
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.cancellation import NAME as CANCEL
from jobs.driver.cancellation import CancelWatch
from jobs.driver.ending import Told
from jobs.driver.eta import Eta
from jobs.driver.expected import Expected, estimate, expected_of
from jobs.driver.gpu_memory import check_gpu_memory
from jobs.driver.loops import loops_of
from jobs.driver.ranks import Ranks, ranks_of
from jobs.driver.ray import running_ray
from jobs.driver.recorder import Recorder
from jobs.driver.remembered import export_names, remember
from jobs.driver.standing import Standing, standing_of
from jobs.driver.view import BatchView
from jobs.driver.warm import check_stays
from jobs.errors import INFRASTRUCTURE, BadInput, InfrastructureError
from jobs.request.gangs import cluster_nodes, gang_spec, nodes_as_given, num_gangs
from jobs.store.items import ATTEMPTS, CHECKPOINTS, JOB, RenderItem
from jobs.store.known import remove_video
from jobs.store.ledger import FOLDER as LEDGER
from jobs.store.lock import NAME as LOCK
from jobs.store.lock import DriverLock, LockLost
from jobs.store.logs import driver_log, prune
from jobs.store.medium import VIDEO
from jobs.store.rehearsal import FOLDERS, REHEARSAL, check_folders
from parallel.layout import Layout

LONG_S = 3600.0  # what takes longer is asked for


def place_of(plan: Plan) -> tuple[Layout, GangSpec]:
    """The layout and the gangs of a plan on the running Ray. Raises BadInput if there is too little for one."""
    return gang_spec(
        plan.options,
        model=plan.facts,
        tokens=plan.least_tokens,
        methods=plan.methods,
        num_passes=plan.least_passes,
    )


def render_what_is_left(
    plan: Plan, console: Console, told: Told, *, stays: Callable[[], bool] = lambda: False
) -> tuple[Plan, list[Outcome]]:
    """Render what is left and what is added meanwhile; everything that was started is gone when this returns or raises.

    While it `stays`, it waits for more when nothing is left. The plan comes back, too, with what was added and without
    what was withdrawn; and as another driver may have been at work until this one got the lock.
    """
    options = plan.options
    check_stays(options)
    with running_ray(options.address, leaving=told.end):
        layout, spec = place_of(plan)
        if "auto" in (options.cfg, options.ulysses, options.ring):
            console.print(f"layout: {layout.words}")
        if spec.num_gpus_per_rank and plan.todo:
            check_gpu_memory(plan, layout, cluster_nodes(options))
        expected = expected_of(plan, layout, on_gpus=spec.num_gpus_per_rank > 0)
        _ask(plan, expected, console, spec)
        with plan.storage.trouble(), DriverLock(plan.storage) as lock:
            plan = _up_to_date(plan, lock)
            standing = standing_of(plan, Eta(plan.todo, expected), on_gpus=spec.num_gpus_per_rank > 0)
            told.follow(plan, standing)
            checks = [lock.check, CancelWatch(plan.storage).check, told.tick]
            ranks = ranks_of(plan, layout, spec)
            try:
                with recording(plan, lock, standing) as recorder:
                    return run_on(ranks, plan, standing, console, recorder, lock, checks, told.show, [told], stays)
            except HeadLost as error:
                _leave_at_once(str(error), lock, told)
            except (KeyboardInterrupt, SystemExit) as error:  # What is still to be tidied up may take too long.
                told.end_by(error)
                raise


def _up_to_date(plan: Plan, lock: DriverLock) -> Plan:
    """The plan, made anew if another driver has been at work since."""
    is_outdated = lock.took_over or plan.storage.folder(LEDGER) != plan.known.ledger
    return make_plan(plan.options) if is_outdated else plan


def wrap_up(plan: Plan, console: Console) -> Plan:
    """What a driver that was killed at the very end has left to do: its last words, the gallery, its debris.

    The names for an export, too, are remembered where they are new.
    """
    storage = plan.storage
    known = plan.known_of_batch
    is_unfinished = (
        known.unrecorded or known.superseded or plan.debris or storage.stored(LOCK) or storage.folders(ATTEMPTS)
    )
    if not (is_unfinished or _names_exports_anew(plan)):
        return plan
    try:
        check_folders(storage)
        with storage.trouble(), DriverLock(storage) as lock:
            plan = _up_to_date(plan, lock)
            with recording(plan, lock, standing_of(plan)):
                return plan
    except BadInput as reason:  # Another driver is about to do it, or nobody can: the videos are there all the same.
        console.print(f"left as it is: {reason}", soft_wrap=True)
        return plan


def _names_exports_anew(plan: Plan) -> bool:
    asked = {(item.id, item.prompt): item.export_as for item in plan.items if item.export_as}
    return bool(asked) and not asked.items() <= export_names(plan.storage).items()


@contextmanager
def recording(plan: Plan, lock: DriverLock, standing: Standing) -> Iterator[Recorder]:
    """What is written before, during and after the batch."""
    storage, how, is_ours = plan.storage, "stopped", True
    with driver_log(storage):
        _clear(plan)
        prune(storage)
        remember(plan)
        known, title = plan.known_of_batch, plan.facts.name
        recorder = Recorder(storage, plan.settings, plan.batch, known, title=title, words=lambda: standing.words)
        _begin(recorder, plan, standing)
        try:
            yield recorder
            how = "done"
        except LockLost:
            is_ours = False
            raise
        except HeadLost as error:
            logging.getLogger(__name__).error(str(error))
            raise
        finally:
            standing.end()
            if is_ours:
                recorder.close(how)
                with suppress(OSError):  # Else the next driver does it.
                    storage.remove(ATTEMPTS)
                    storage.remove(CANCEL)  # It has come too late.
                    storage.sweep(FOLDERS)


def _clear(plan: Plan) -> None:
    """Remove what killed ranks have left, and what was replaced; no other driver is at work here."""
    storage, known = plan.storage, plan.known_of_batch
    storage.remove(ATTEMPTS)
    storage.remove(REHEARSAL)
    for finished in storage.folders(CHECKPOINTS) & known.finished.keys():
        storage.remove(f"{CHECKPOINTS}/{finished}")
    for name in (*known.superseded, *plan.debris):
        remove_video(storage, name)


def run_on(
    ranks: Ranks,
    plan: Plan,
    standing: Standing,
    console: Console,
    recorder: Recorder,
    lock: DriverLock,
    checks: Sequence[Callable[[], None]],
    listen: Callable[[Event], None] = lambda event: None,
    followers: Sequence[Follower] = (),
    stays: Callable[[], bool] = lambda: False,
) -> tuple[Plan, list[Outcome]]:
    """Render what is left and what comes, and show and record it; the plan comes back as that has changed it.

    `checks` and `listen`, at each event, end it by what they raise; `followers` are told of what comes and goes.
    """
    from cluster.batch import Budgets, InfeasibleGang, run_batch
    from cluster.remote import RemoteWorker

    options = plan.options

    def tick() -> None:
        for check in checks:
            check()
        recorder.tick()
        lock.left_s, lock.progress = standing.left_s, standing.progress

    with BatchView(console, standing) as view:

        def note(event: Event) -> None:
            for each in (standing.note, view.show, recorder.note, listen):
                each(event)

        all_followers = [standing, view, recorder, *followers]
        arrivals = Arrivals(plan, lock, ranks.layout, view, recorder, all_followers, stays)
        try:
            outcomes = run_batch(
                spec=ranks.spec,
                gangs=ranks.gangs,
                workload=ranks.workload,
                items=plan.todo,
                cost_of=loops_of(plan).work,
                shape_of=_compiled_for if options.video.compile else lambda item: None,
                priority_of=lambda item: item.priority or 0,
                source=arrivals,
                budgets=Budgets(item_failures=options.tries, gang_losses=options.lost_gangs),
                on_event=note,
                on_tick=tick,
                may_grow_to=nodes_as_given(options),
                start_worker=ranks.start_worker or RemoteWorker,
                keep=ranks.keep,
            )
        except InfeasibleGang as error:  # It did fit a moment ago.
            raise InfrastructureError(str(error)) from error
        except (KeyboardInterrupt, SystemExit):
            done, all_of_them = standing.num_done, count(standing.todo, plan.noun)
            console.print(f"stopped after {done} of {all_of_them}; run it again for the rest")
            raise
    return arrivals.at_the_end(outcomes)


def _begin(recorder: Recorder, plan: Plan, standing: Standing) -> None:
    recorder.begin(
        total=len(plan.batch),
        added=plan.num_added or None,
        todo=len(plan.todo),
        stays=plan.options.stay,
        method=", ".join(plan.method_names),
        model=plan.facts.name,
        medium=None if plan.facts.family.medium is VIDEO else plan.noun,
        gangs=plan.options.gangs,
        retry=plan.options.retry or None,
        gpus=standing.usage.on_gpus,
        price=plan.options.price,
        job=os.environ.get(JOB),
    )


def _ask(plan: Plan, expected: Expected, console: Console, spec: GangSpec) -> None:
    """Says what is expected, and asks before what is long; on a terminal only, as nobody could answer elsewhere."""
    options = plan.options
    left = estimate(plan, expected, gangs=num_gangs(options, spec, cluster_nodes(options)))
    if left is None or not plan.todo:
        return
    sentence = f"about {duration(left.wall_s)} for {count(len(plan.todo), plan.noun)} ({left.basis})"
    console.print(sentence, soft_wrap=True)
    if left.wall_s < LONG_S or options.yes or not (console.is_terminal and sys.stdin.isatty()):
        return
    try:
        answer = console.input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise BadInput("not started")


def _compiled_for(item: RenderItem) -> tuple[int, int, int, str | None]:
    return item.height, item.width, item.num_frames, item.method


def _leave_at_once(reason: str, lock: DriverLock, told: Told) -> NoReturn:
    """Ends the process without Ray's own teardown, which would wait for a head that is gone."""
    lock.__exit__()
    print(f"resca: {reason} Run it again on a new cluster for the rest.", file=sys.stderr, flush=True)
    told.end(INFRASTRUCTURE, reason, hurried=True)  # Ray itself ends the process soon.
    sys.stdout.flush()
    os._exit(INFRASTRUCTURE)
