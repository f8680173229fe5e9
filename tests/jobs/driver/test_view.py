"""What a person sees while a batch runs, and the table at the end."""

import io
import json

from rich.console import Console

from caching.recipe.recipe import RECIPES
from cluster.events import Event, GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.console import make_console, print_rows, write_rows
from jobs.driver.eta import Eta
from jobs.driver.expected import Expected
from jobs.driver.loops import Loops
from jobs.driver.standing import Standing
from jobs.driver.view import BatchView, done_row, failed_row, print_table
from jobs.models.facts import read_facts
from jobs.predict.gpus import profile
from jobs.store.items import RenderItem
from jobs.store.known import Done
from jobs.store.usage import Usage
from parallel.layout import Layout
from tests.jobs.store.example import item, publish, settings


def plain() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False, markup=False)


def events(one: RenderItem, result: dict) -> list[Event]:
    other = one.model_copy(update={"id": "[bold]"})
    first, second = [Job(index=0, item=one, attempts=attempts) for attempts in (1, 2)]
    poison = Job(index=1, item=other, attempts=1)
    return [
        GangEvent(kind="gang_starting", gang=0),
        GangEvent(kind="gang_ready", gang=0, hosts=("10.0.0.1", "10.0.0.1")),
        ItemRunning(kind="item_started", gang=0, job=first),
        ItemRunning(kind="item_progress", gang=0, job=first, fraction=0.5),
        GangEvent(kind="gang_lost", gang=0, job=first, error="Rank 1 was lost"),
        GangEvent(kind="gang_ready", gang=0, hosts=("10.0.0.1",), was_warm=True),
        ItemRunning(kind="item_started", gang=0, job=second),
        ItemDone(gang=0, job=second, result=result),
        ItemFailed(kind="item_failed", gang=0, job=poison, error="ValueError: no", failure=FailureKind.ITEM),
    ]


def show(console: Console, standing: Standing, events: list[Event]) -> None:
    with BatchView(console, standing) as view:
        for event in events:
            standing.note(event)
            view.show(event)


def test_plain_lines_tell_the_story_of_a_batch(tmp_path):
    one, result = item(), publish(settings(tmp_path), item()).model_dump(mode="json")
    console = plain()
    show(console, Standing(2, noun="video", usage=Usage()), events(one, result))
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "gang 0: starting",
        "gang 0: ready, 2 ranks on 10.0.0.1",
        "0000: a red ball",
        "gang 0: lost: Rank 1 was lost",
        "gang 0: taken warm, 1 rank on 10.0.0.1",
        "0000: a red ball (attempt 2)",
        "0000: done in 2.5 s (1 of 2)",
        "[bold]: failed: ValueError: no",
    ]


def test_the_time_left_is_told_where_something_tells_it(tmp_path):
    one, result = item(), publish(settings(tmp_path), item()).model_dump(mode="json")
    more = [item(id=f"{index:04d}") for index in range(1, 4)]
    loops = Loops(facts=read_facts("demo"), method_of=lambda one: RECIPES["full"], num_passes=lambda one: 1)
    console, now = plain(), 0.0
    eta = Eta([one, *more], Expected(loops, Layout(), profile("cpu", "pcie", "tcp100")), clock=lambda: now)
    standing = Standing(4, noun="video", usage=Usage(), eta=eta, clock=lambda: now)
    job = Job(index=0, item=one)
    now = 100.0  # of which the start has taken its part
    show(console, standing, [GangEvent(kind="gang_ready", gang=0, hosts=("here",), held_s=90.0)])
    show(console, standing, [ItemRunning(kind="item_started", gang=0, job=job)])
    now = 103.0
    show(console, standing, [ItemDone(gang=0, job=job, result=result)])
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0000: done in 2.5 s (1 of 4, 1,200 videos an hour, about 9 s left)" in told


def test_bar_on_a_terminal_keeps_what_matters_above_it(tmp_path):
    one, result = item(), publish(settings(tmp_path), item()).model_dump(mode="json")
    console = Console(file=io.StringIO(), width=120, force_terminal=True, markup=False, _environ={"TERM": "xterm"})
    show(console, Standing(2, noun="video", usage=Usage()), events(one, result))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2/2" in text and "done in" in text and "failed: ValueError" in text
    assert "gang 0: starting" not in text


def rows_of(directory, sidecar) -> list[dict]:
    """A video that is there, and one that is not."""
    one = item()
    done = done_row(one, "full", f"{directory}/{one.name}.mp4", Done.of_sidecar(sidecar, one.name), "rendered")
    return [done, failed_row(item(id="0001"), "full", "[ValueError] no", "failed")]


def test_table_of_a_big_batch_shows_what_failed_and_counts_the_rest(tmp_path):
    done, failed = rows_of(tmp_path, publish(settings(tmp_path), item()))
    console = plain()
    print_table(console, [done] * 2000 + [failed], "video", str(tmp_path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0001" in text and "in all: 2000 rendered, 1 failed" in text and len(text.splitlines()) < 200


def test_table_has_steps_seconds_and_ratio_and_says_where_the_files_are(tmp_path):
    sidecar = publish(settings(tmp_path), item()).model_copy(update={"dense_steps": 1, "sparse_steps": 3, "flops": 2.0})
    console = plain()
    print_table(console, rows_of(tmp_path, sidecar), "video", str(tmp_path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("0000-a-red-ball-s0.mp4", "1/3", "2.5", "4.00x", "failed: [ValueError] no", f"videos: {tmp_path}"):
        assert part in text


def test_the_table_names_methods_where_there_are_several(tmp_path):
    done, failed = rows_of(tmp_path, publish(settings(tmp_path), item()))
    for rows, names in (([done, failed], []), ([done, {**failed, "method": "auto"}], ["method", "full", "auto"])):
        console = plain()
        print_table(console, rows, "video", str(tmp_path))
        table = console.file.getvalue().rpartition("videos: ")[0]  # type: ignore[attr-defined]
        assert [name for name in ("method", "full", "auto") if f" {name} " in table] == names


def test_any_rows_print_as_a_table_without_what_is_nested():
    console = plain()
    print_rows(console, [{"method": "full", "seconds": 1.23456, "psnr_db": None, "recipe": {"name": "full"}}])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "method" in text and "1.235" in text and "recipe" not in text


def test_rows_read_back_as_json(tmp_path):
    rows = rows_of(tmp_path, publish(settings(tmp_path), item()))
    write_rows(tmp_path / "new" / "rows.json", rows)
    back = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert back == rows
    assert {"method", "dense_steps", "sparse_steps", "seconds", "tflops", "flops_ratio"} <= set(back[0])


def test_standard_output_in_a_pipe_has_room_for_file_names(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert make_console().width >= 120


def test_what_would_steer_a_terminal_is_shown_and_not_sent(capsys):
    console = make_console()
    console.print("\x1b[31ma red ball\x07 für \u4f60")
    assert capsys.readouterr().out == "\ufffd[31ma red ball\ufffd für \u4f60\n"
