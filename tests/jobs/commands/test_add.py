"""`resca add` and `resca withdraw`: everything is checked first, then on disk; whoever renders it next finds it."""

import json
from pathlib import Path
from threading import Timer

import pytest

from jobs.__main__ import main, parse
from jobs.driver.adding import who_renders
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.recorder import Recorder
from jobs.driver.remembered import export_names, remember
from jobs.options.batch import RenderOptions
from jobs.store.additions import Additions
from jobs.store.known import Known
from jobs.store.ledger import read_lines, read_state
from jobs.store.lock import DriverLock
from jobs.store.open import open_storage
from tests.jobs.store.example import finish

pytestmark = pytest.mark.timeout(60)


def plan_of(*words: str) -> Plan:
    options = parse(["render", "good.txt", "--out", "out", "--model", "model", *words])
    assert isinstance(options, RenderOptions)
    return make_plan(options)


@pytest.fixture
def out(place: Path) -> Path:
    """A batch of two prompts that a driver has begun and left."""
    begin(plan_of())
    return place / "out"


def begin(plan: Plan) -> None:
    remember(plan)
    recorder = Recorder(plan.storage, plan.settings, plan.batch, Known(), title="x")
    recorder.begin(total=len(plan.batch), todo=0, added=plan.num_added or None, model="model", method="auto")
    recorder.close("stopped")


def add(place: Path, *lines: dict, name: str = "more.jsonl") -> list[str]:
    """The words of a command that adds these lines."""
    (place / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return ["add", "out", name]


def test_what_is_added_is_numbered_on_and_part_of_the_batch(place, out, capsys):
    assert main(add(place, {"prompt": "a cat"}, {"prompt": "a dog", "id": "dog", "priority": 3, "fps": 4})) == 0
    told = capsys.readouterr().out
    assert "2 prompts: 0002, dog" in told and "no driver is at work; resca retry" in told
    assert [(item.id, item.seed) for item in plan_of().items] == [("0000", 0), ("0001", 1), ("0002", 2), ("dog", 3)]
    dog = plan_of().items[-1]
    assert (dog.priority, dog.steps, dog.height, plan_of().settings.asked(dog)["fps"]) == (3, 12, 64, 4)
    assert dict(read_state(open_storage(out)).counts()) == {"waiting": 4}
    begin(plan_of())
    assert dict(read_state(open_storage(out)).counts()) == {"waiting": 4}
    assert main(["status", "out"]) == 0
    assert "4 videos" in capsys.readouterr().out
    assert [item.id for item in plan_of("--limit", "1").items] == ["0000", "0002", "dog"]
    assert ("dog", "a dog") in export_names(open_storage(out))


def test_the_same_lines_again_add_nothing(place, out, capsys):
    words = add(place, {"prompt": "a dog", "id": "dog"}, {"prompt": "a cow", "id": "cow", "seed": 9})
    assert main(words) == main(words) == 0
    assert "2 of them there already" in capsys.readouterr().out
    assert [line["id"] for line in read_lines(open_storage(out)) if line["e"] == "add"] == ["dog", "cow"]


def test_numbers_of_the_file_itself_are_nobody_elses(place, out):
    assert main(add(place, {"prompt": "a", "id": "0002"}, {"prompt": "b"})) == 0
    assert [item.id for item in plan_of().items[2:]] == ["0002", "0004"]


BAD = {
    "height": ({"prompt": "b", "height": 60}, "more.jsonl, line 2: height 60, width 64"),
    "method": ({"prompt": "b", "method": "rescue"}, "more.jsonl, line 2: unknown method 'rescue'"),
    "guidance": ({"prompt": "b", "negative_prompt": "c"}, "line 2: a negative prompt does nothing unless"),
    "field": ({"prompt": "b", "colour": 1}, "more.jsonl, line 2: unknown field 'colour'"),
    "id": ({"prompt": "b", "id": "0001"}, "id '0001' is that of another item of the batch, which has another prompt"),
    "case": ({"prompt": "b", "id": "A"}, "more.jsonl, line 2: duplicate id 'A'; it was first used in more.jsonl, li"),
    "output": ({"prompt": "b", "output": "../b"}, "line 2: output '../b' is not safe in a file name; use up to 100"),
    "twice": ({"prompt": "b", "output": "MINE"}, "line 2: duplicate output 'MINE'; it was first used in more.jsonl"),
    "suffix": ({"prompt": "b", "output": "b.mov"}, "line 2: output 'b.mov' should end in .mp4 or have no suffix"),
    "fps": ({"prompt": "b", "fps": 0}, "line 2: fps 0: Input should be greater than or equal to 1"),
    "priority": ({"prompt": "b", "priority": 1.5}, "line 2: priority 1.5: Input should be a valid integer"),
}


@pytest.mark.parametrize("what", BAD)
def test_nothing_is_added_where_one_line_is_bad(place, out, capsys, what):
    line, complaint = BAD[what]
    assert main(add(place, {"prompt": "a", "id": "a", "output": "mine"}, line)) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err and len(captured.err.splitlines()) == 1
    assert not list((out / "ledger").glob("add-*"))


def test_without_a_batch_or_prompts_nothing_is_added(place, capsys):
    assert main(["add", "nowhere", "good.txt"]) == 2
    assert "nowhere holds no batch: there is no batch.json" in capsys.readouterr().err
    begin(plan_of())
    for words, complaint in (
        (["add", "out"], "name a file of prompts, or a --template with its --table"),
        (["add", "out", "gone.txt"], "prompt file gone.txt does not exist"),
        (
            ["add", "out", "good.txt", "--images-per-prompt", "2"],
            "makes videos; leave out --images-per-prompt, or give --seeds",
        ),
    ):
        assert main(words) == 2
        assert complaint in capsys.readouterr().err


def test_a_line_of_the_prompt_file_may_not_take_an_id_that_was_added(place, out, capsys):
    assert main(add(place, {"prompt": "a cat"})) == 0
    (place / "good.txt").write_text("a red ball\na blue cube\na green cone\n")
    assert main(["render", "good.txt", "--out", "out", "--model", "model"]) == 2
    assert "good.txt, line 3: id '0002' is that of another item that was added" in capsys.readouterr().err
    (place / "good.txt").write_text("a red ball\na blue cube\na cat\n")
    assert [item.prompt for item in plan_of().items] == ["a red ball", "a blue cube", "a cat"]


def test_what_is_withdrawn_is_not_rendered_and_its_files_go(place, out, capsys):
    assert main(add(place, {"prompt": "a cat"}, {"prompt": "a dog"})) == 0
    plan = plan_of()
    begin(plan)  # which remembers them with its own prompts
    finish(plan.settings, plan.items[2])
    assert main(["withdraw", "out", "0002", "nobody"]) == 2
    assert "'nobody' was not added to" in capsys.readouterr().err
    assert main(["withdraw", "out", "0002"]) == 0
    assert [item.id for item in plan_of().items] == ["0000", "0001", "0003"]
    retried = parse(["render", "out/prompts.jsonl", "--out", "out", "--model", "model"])
    assert [item.id for item in make_plan(retried).items] == ["0000", "0001", "0003"]
    assert list(plan_of().debris) == [plan.items[2].name]
    assert dict(read_state(open_storage(out)).counts()) == {"waiting": 3}
    assert main(add(place, {"prompt": "a cow"})) == 0
    assert plan_of().items[-1].id == "0004"


def test_the_adder_is_told_who_renders_it(place, out, capsys):
    storage = open_storage(out)
    with DriverLock(storage) as lock:
        assert main(add(place, {"prompt": "a cat"})) == 0
        assert "the driver (process " in capsys.readouterr().out
        lock.say_ending(True)
        assert who_renders(storage, patience_s=0.1) is None
        Timer(0.3, lock.say_ending, [False]).start()
        assert who_renders(storage, patience_s=20) is not None
        lock.say_ending(True)
        Timer(0.3, lock.__exit__).start()
        assert who_renders(storage, patience_s=20) is None


@pytest.mark.slow
def test_a_batch_at_a_url_is_added_to(place, bucket, monkeypatch):
    monkeypatch.setattr("jobs.store.additions.SETTLE_S", 0.01)
    url = f"{bucket}/batch"
    options = parse(["render", "good.txt", "--out", url, "--model", "model"])
    assert isinstance(options, RenderOptions)
    begin(make_plan(options))
    [_, _, file] = add(place, {"prompt": "a cat"})
    assert main(["add", url, file]) == 0
    additions = Additions(open_storage(url))
    additions.refresh()
    assert [item.id for item in additions.items] == ["0002"]
    assert [item.id for item in make_plan(options).items] == ["0000", "0001", "0002"]
