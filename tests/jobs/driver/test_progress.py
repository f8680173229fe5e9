"""What programs are told: lines as they are written down, whatever happens, and the end last."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from cluster.events import Event, GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.__main__ import main
from jobs.commands.follow import Split
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.ending import Told, telling
from jobs.driver.on_end import SECRET
from jobs.driver.progress import HOW, LINE, AnyLine, How
from jobs.driver.standing import standing_of
from jobs.errors import BadInput, InfrastructureError
from jobs.options.batch import RenderOptions
from jobs.store.open import open_storage
from tests.jobs.schema import typed, written
from tests.jobs.store.example import finish, publish

README = Path(__file__).parents[3] / "jobs" / "README.md"
pytestmark = pytest.mark.timeout(120)


def planned(place: Path, **options: object) -> Plan:
    return make_plan(RenderOptions(prompts=place / "good.txt", out="out", model="model", **options))  # type: ignore[arg-type]


def lines_of(text: str) -> list[dict]:
    """Each of which is of the schema."""
    for line in text.splitlines():
        LINE.validate_json(line)
    return [json.loads(line) for line in text.splitlines()]


def test_the_readme_has_the_schema_of_all_lines():
    kinds = typed(get_args(AnyLine))
    found = {kind: fields for kind, fields in written(README).items() if kind in kinds}
    assert found == kinds


def test_the_readme_has_all_ways_to_end():
    [said] = re.findall(r"`how` string \(([\w, ]+)\)", README.read_text())
    assert said.split(", ") == list(get_args(How)) and set(HOW.values()) == set(get_args(How))


def story(plan: Plan) -> list[Event]:
    first, second = (Job(index=index, item=one, attempts=1) for index, one in enumerate(plan.todo))
    result = publish(plan.settings, plan.todo[0]).model_dump(mode="json")
    lost = FailureKind.INFRASTRUCTURE
    return [
        GangEvent(kind="gang_starting", gang=0),
        GangEvent(kind="gang_waiting", gang=0, error="no room"),
        GangEvent(kind="gang_ready", gang=0, hosts=("here",), held_s=3.0),
        ItemRunning(kind="item_started", gang=0, job=first),
        ItemRunning(kind="item_progress", gang=0, job=first, fraction=0.5),
        ItemFailed(kind="item_retried", gang=0, job=first, error="lost", failure=lost),
        ItemDone(gang=0, job=first, result=result),
        ItemFailed(kind="item_failed", gang=0, job=second, error="bad\nluck", failure=FailureKind.ITEM),
        ItemFailed(kind="item_failed", job=second, error="no gang", failure=FailureKind.START),
        GangEvent(kind="gang_closed", gang=0, error="drained"),
    ]


def test_a_batch_is_told_event_by_event_with_its_progress_and_its_end(place, capsys):
    plan = planned(place, price=2.0)
    told, standing = Told(RenderOptions(prompts=Path("p"), out="out", progress="jsonl")), standing_of(plan)
    told.begin(plan)
    told.follow(plan, standing)
    for event in story(plan):
        standing.note(event)
        told.show(event)
        told.tick()
    told.end(3)
    told.end(0)
    lines = lines_of(capsys.readouterr().out)
    assert [line["e"] for line in lines if line["e"] not in ("progress", "gang")] == ["begin", *["item"] * 5, "end"]
    begin, end = lines[0], lines[-1]
    assert (begin["total"], begin["todo"], begin["done"], begin["price"]) == (2, 2, 0, 2.0)
    items = [(line["id"], line["status"]) for line in lines if line["e"] == "item"]
    assert items == [
        ("0000", "running"), ("0000", "retrying"), ("0000", "done"), ("0001", "failed"), ("0001", "waiting")
    ]  # fmt: skip
    [done] = [line for line in lines if line.get("status") == "done"]
    assert done["video"] == str(place / "out" / f"{plan.todo[0].name}.mp4") and done["seconds"] == 2.5
    assert [line["status"] for line in lines if line["e"] == "gang"] == ["starting", "waiting", "ready", "closed"]
    assert lines[-2]["e"] == "progress" and lines[-2]["done"] == 1 and lines[-2]["failed"] == 1
    assert (end["how"], end["exit_code"], end["done"]) == ("partial", 3, 1)
    assert end["cost"] == pytest.approx(2 * end["hours"], abs=2e-4) and end["hours"] >= 3 / 3600 - 1e-4


def test_a_finished_batch_begins_and_ends_and_people_read_on_standard_error(place, capsys):
    for one in planned(place).items:
        finish(planned(place).settings, one)
    assert main(["render", "good.txt", "--out", "out", "--model", "model", "--progress", "jsonl"]) == 0
    captured = capsys.readouterr()
    assert [line["e"] for line in lines_of(captured.out)] == ["begin", "progress", "end"]
    assert "2 videos with model" in captured.err and "finished before" in captured.err


def test_what_is_refused_ends_with_a_line_and_tells_nobody_else(place, capsys):
    command = f"touch {place / 'told'}"
    asked = ["nothing.txt", "--out", "out", "--model", "model", "--progress", "jsonl", "--on-end", command]
    assert main(["render", *asked]) == 2
    [end] = lines_of(capsys.readouterr().out)
    assert end["how"] == "refused" and end["exit_code"] == 2 and "nothing.txt" in end["error"]
    assert not (place / "told").exists()


ENDS = {
    "an error of machines": (InfrastructureError("the network is gone"), "infrastructure", 33),
    "an error that nobody foresaw": (ZeroDivisionError("by zero"), "unforeseen", 1),
    "Ctrl-C": (KeyboardInterrupt(), "stopped", 130),
    "SIGTERM": (SystemExit(143), "stopped", 143),
}


@pytest.mark.parametrize("way", ENDS)
def test_the_end_is_told_whichever_way_it_comes(place, capsys, way):
    error, how, code = ENDS[way]
    options = RenderOptions(
        prompts=place / "good.txt",
        out="out",
        model="model",
        progress="jsonl",
        on_end="sh -c 'cat > told.json; echo $RESCA_HOW > how'",
    )
    with pytest.raises(type(error)), telling(options) as told:
        told.begin(make_plan(options))
        raise error
    end = lines_of(capsys.readouterr().out)[-1]
    assert (end["how"], end["exit_code"], end["waiting"]) == (how, code, 2)
    assert json.loads((place / "told.json").read_text()) == {k: v for k, v in end.items() if k not in ("e", "t")}
    assert (place / "how").read_text() == f"{how}\n"


def test_a_notice_that_fails_is_a_sentence_and_changes_nothing(place, capsys):
    for one in planned(place).items:
        finish(planned(place).settings, one)
    asked = ["render", "good.txt", "--out", "out", "--model", "model", "--on-end", "sh -c 'exit 9'"]
    assert main(asked) == 0
    assert capsys.readouterr().err == "resca: the command of --on-end (sh) ended with 9\n"


def test_nothing_of_a_notice_is_remembered_or_printed(place, capsys, monkeypatch):
    monkeypatch.setenv(SECRET, "s3cret-key")
    monkeypatch.setenv("HOOK", "s3cret-path")
    for one in planned(place).items:
        finish(planned(place).settings, one)
    asked = ["render", "good.txt", "--out", "out", "--model", "model"]
    assert main([*asked, "--on-end", "http://127.0.0.1:9/$HOOK?also=s3cret-query"]) == 0
    captured = capsys.readouterr()
    assert "--on-end: http://127.0.0.1:9: it could not be reached" in captured.err
    files = [path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()]
    assert not [text for text in (captured.out, captured.err, *map(str, files)) if "s3cret" in text]


def test_the_price_is_remembered_and_another_one_takes_its_place(place, capsys):
    for one in planned(place).items:
        finish(planned(place).settings, one)
    render = ["render", "good.txt", "--out", "out", "--model", "model"]
    open_storage("out").write("attempts/x/y", b"")  # so that there is something to do
    assert main([*render, "--price", "2.5"]) == 0
    assert json.loads((place / "out" / "batch.json").read_text())["price"] == 2.5
    assert planned(place).known.usage.price == 2.5
    open_storage("out").write("attempts/x/y", b"")
    assert main([*render, "--price", "4"]) == 0
    assert planned(place).known.usage.price == 4.0


@pytest.mark.parametrize("price", ["-1", "nan", "inf"])
def test_what_an_hour_cannot_cost_is_refused(place, capsys, price):
    assert main(["render", "good.txt", "--out", "out", "--model", "model", f"--price={price}"]) == 2
    assert "--price must be a number of at least 0" in capsys.readouterr().err
    assert main(["status", "out", f"--price={price}"]) == 2
    assert not (place / "out").exists()


def test_lines_of_a_job_are_taken_out_of_its_log_piece_by_piece(capsys):
    line = '{"e":"gang","t":1.0,"gang":0,"status":"ready"}'
    text = f'0000: a red ball\n{line}\n{{"e":"gang"}}\n{{"e":"else","t":1.0}}\n{line}\nresca: done\n'
    split = Split()
    for start in range(0, len(text), 7):
        split(text[start : start + 7])
    captured = capsys.readouterr()
    assert captured.out == f"{line}\n{line}\n"
    assert captured.err == '0000: a red ball\n{"e":"gang"}\n{"e":"else","t":1.0}\nresca: done\n'


def test_a_notice_that_cannot_be_is_refused_before_anything_is_written(place, capsys):
    with pytest.raises(BadInput), telling(RenderOptions(prompts=place / "good.txt", out="out", on_end="")):
        raise AssertionError("it has begun")
    assert main(["plan", "good.txt", "--out", "out", "--model", "model", "--on-end", "https://"]) == 2
    assert "--on-end is no URL" in capsys.readouterr().err
