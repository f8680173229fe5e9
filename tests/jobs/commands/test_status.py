"""`plan` and `status`: what is said of a batch without starting anything."""

import io
import threading
import time

import pytest
from rich.console import Console

from jobs.__main__ import main
from jobs.commands.watch import watch
from jobs.console import duration
from jobs.driver.batch_plan import make_plan
from jobs.options.batch import RenderOptions
from jobs.store.known import Done
from jobs.store.ledger import Ledger
from jobs.store.lock import DriverLock, read_holder
from jobs.store.open import open_storage
from jobs.store.storage import Storage
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import done_line, finish, item, publish, settings


@pytest.fixture
def batch(tmp_path, monkeypatch) -> Storage:
    """Four videos: one done, one running, one given up, one not begun; the driver is this process, or was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_model(tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12)
    (tmp_path / "p.txt").write_text("red\ngreen\nblue\nblack\n")
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="out", model="model"))
    items = plan.items
    storage = open_storage("out")
    ledger, sidecar = Ledger(storage), publish(plan.settings, items[0])
    stored = storage.stored(f"{items[0].name}.mp4")
    assert stored is not None
    ledger.add("begin", total=4, todo=4, method="resca", model="model", gangs=1)
    ledger.add("done", n=1, g=0, **Done.of_sidecar(sidecar, items[0].name, stored.stamp).for_ledger())
    ledger.add("start", id="0001", n=1, g=0)
    ledger.add("fail", id="0002", n=2, why="item", error="ValueError: no <such> colour")
    ledger.flush()
    return storage


def test_status_tells_counts_failures_and_the_driver(batch, capsys):
    assert main(["status", "out"]) == 3
    told = capsys.readouterr().out
    assert "1 done, 1 running, 0 retrying, 1 waiting, 1 failed" in told
    assert "failed 0002: ValueError: no <such> colour" in told and "no driver at work" in told
    with DriverLock(batch):
        main(["status", "out"])
    assert "driver: process" in capsys.readouterr().out


def test_status_tells_how_long_the_driver_expects_to_be_at_work(batch, capsys):
    with DriverLock(batch, lease_s=0.4) as lock:
        lock.left_s = 4321.0
        while (holder := read_holder(batch)) is None or holder.left_s is None:
            time.sleep(0.05)
        main(["status", "out"])
        assert f"the other 2 take about {duration(4321.0)}" in capsys.readouterr().out
    main(["status", "out"])
    assert duration(4321.0) not in capsys.readouterr().out


def test_status_counts_damaged_lines(batch, capsys, tmp_path):
    (tmp_path / "out" / "ledger" / "000002.jsonl").write_text("[]\n" + "[" * 200_000 + "\n")
    assert main(["status", "out"]) == 3
    told = capsys.readouterr().out
    assert "2 damaged lines in the ledger, left out" in told and "1 done, 1 running" in told


def test_status_names_a_directory_in_the_place_of_the_lock(batch, capsys, tmp_path):
    (tmp_path / "out" / "driver.lock").mkdir()
    assert main(["status", "out"]) == 2
    assert "driver.lock cannot be read: Is a directory" in capsys.readouterr().err


def test_status_tells_what_was_left_and_why(tmp_path, capsys):
    ledger = Ledger(open_storage(tmp_path))
    ledger.add("begin", total=4, todo=4, method="resca", model="model", gangs=1)
    for number in range(4):
        ledger.add("left", id=f"000{number}", n=0, why="start", error="no module named flash")
    ledger.add("end", how="unfinished")
    ledger.flush()
    assert main(["status", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "0 done, 0 running, 0 retrying, 4 waiting" in told and "the last one ended: unfinished" in told
    assert "left waiting, 4 videos: no module named flash" in told


def gang_line(storage: Storage, kind: str, **facts: object) -> None:
    ledger = Ledger(storage)
    ledger.add(kind, g=0, **facts)
    ledger.flush()


def test_status_tells_what_gangs_have_held_and_what_it_costs(batch, capsys):
    gang_line(batch, "gang_ready", hosts=["here", "here"], held=7200.0)
    gang_line(batch, "gang_closed")
    main(["status", "out"])
    assert "4 rank-hours\n" in capsys.readouterr().out
    main(["status", "out", "--price", "2.5"])
    assert "4 rank-hours, cost 10.00\n" in capsys.readouterr().out


def test_status_tells_what_a_running_batch_is_expected_to_take(batch, capsys):
    gang_line(batch, "gang_ready", hosts=["here"], held=7200.0)
    with DriverLock(batch, lease_s=0.4) as lock:
        lock.left_s = 3600.0
        while (holder := read_holder(batch)) is None or holder.left_s is None:
            time.sleep(0.05)
        main(["status", "out", "--price", "10"])
    assert "2 of about 3 rank-hours, cost 20.0" in (told := capsys.readouterr().out) and "of about 30.0" in told


def test_the_pace_that_status_tells_does_not_count_the_start(tmp_path, capsys):
    ledger, now = Ledger(open_storage(tmp_path)), time.time()
    ledger.add("begin", total=10, t=round(now - 4000, 3))
    ledger.add("gang_ready", g=0, hosts=["here"], t=round(now - 400, 3))
    for number in range(4):
        ledger.add("done", **done_line(f"000{number}", t=round(now - 300 + 100 * number, 3)))
    ledger.flush()
    main(["status", str(tmp_path)])
    told = capsys.readouterr().out
    assert "36 videos an hour" in told and f"the other 6 take about {duration(600)}" in told


def test_verify_tells_of_lost_posters_which_are_no_damage(tmp_path, capsys):
    finish(settings(tmp_path), item())
    ledger = Ledger(open_storage(tmp_path))
    ledger.add("begin", total=1)
    ledger.flush()
    assert main(["status", str(tmp_path), "--verify"]) == 0
    assert "poster" not in capsys.readouterr().out
    (tmp_path / item().poster).unlink()
    assert main(["status", str(tmp_path), "--verify"]) == 0
    assert "1 poster missing; the gallery shows what they were made of" in capsys.readouterr().out


def test_watch_writes_what_is_new_and_ends_with_the_batch(batch, capsys):
    def finish_soon(lock: DriverLock) -> None:
        time.sleep(0.5)
        gang_line(batch, "fail", id="0001", error="no")
        time.sleep(0.5)
        lock.__exit__()

    with DriverLock(batch, lease_s=0.4) as lock:
        thread = threading.Thread(target=finish_soon, args=[lock])
        thread.start()
        assert main(["status", "out", "--watch", "0.1"]) == 3
        thread.join()
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in told[:2]] == [
        "1 done, 1 running, 0 retrying, 1 waiting, 1 failed",
        "1 done, 0 running, 0 retrying, 1 waiting, 2 failed",
    ]
    assert told[2].startswith("4 videos with model") and told[3].startswith("no driver at work")


def test_a_watch_of_a_batch_that_has_ended_is_one_look(batch, capsys):
    assert main(["status", "--watch", "out"]) == 3
    assert capsys.readouterr().out.count("1 done, 1 running") == 1


def test_ctrl_c_ends_a_watch_and_says_nothing(batch, capsys, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.commands.watch.time.sleep", interrupt)
    with DriverLock(batch):
        assert main(["status", "out", "--watch"]) == 130
        assert read_holder(batch) is not None
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_watch_is_drawn_again_in_its_place(batch):
    console = Console(file=io.StringIO(), width=120, force_terminal=True, markup=False, _environ={"TERM": "xterm"})
    looks = iter([False, False, True])
    watch(lambda: next(looks), bool, console, lambda over: ["one", f"over: {over}"], str, 0.01)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.index("over: False") < text.index("\x1b[1A") < text.index("over: True")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9"])
def test_nobody_can_wait_for_that(batch, capsys, seconds):
    assert main(["status", "out", "--watch", seconds]) == 2
    assert "--watch takes 0.1 to 86400 seconds" in capsys.readouterr().err


def driver(storage: Storage, how: str | None) -> threading.Thread:
    """Its last seconds: it looks for requests to stop no more, and ends by itself, or sees one and stops."""

    def work() -> None:
        with DriverLock(storage):
            is_driving.set()
            while not storage.stored("cancel"):
                time.sleep(0.02)
            if how == "stopped":
                storage.remove("cancel")
            ledger = Ledger(storage)
            ledger.add("end", how=how)
            ledger.flush()

    is_driving = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert is_driving.wait(30)
    return thread


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "how, told", [("done", "it had come to its end by itself before it was stopped: done"), ("stopped", "stopped; ")]
)
def test_cancel_tells_how_the_driver_ended_and_leaves_nothing(batch, capsys, tmp_path, how, told):
    thread = driver(batch, how)
    assert main(["cancel", "out"]) == 0
    thread.join(30)
    assert told in capsys.readouterr().out and not (tmp_path / "out" / "cancel").exists()


@pytest.mark.timeout(60)
def test_a_user_without_a_name_can_cancel(batch, monkeypatch):
    monkeypatch.setattr("getpass.getuser", no_name)
    thread = driver(batch, "stopped")
    assert main(["cancel", "out"]) == 0
    thread.join(30)


def no_name() -> str:
    raise KeyError("getpwuid(): uid not found: 1234")


def test_status_verifies_what_lies_there(batch, capsys, tmp_path):
    video = next((tmp_path / "out" / "videos").glob("*.mp4"))
    video.write_bytes(video.read_bytes()[:-1])
    main(["status", "out", "--verify"])
    assert f"damaged or missing: videos/{video.name}" in capsys.readouterr().out


def test_commands_on_a_directory_without_a_batch_are_one_sentence(tmp_path, capsys):
    for command, what in (("status", "holds no batch"), ("retry", "holds no batch"), ("cancel", "no driver works on")):
        assert main([command, str(tmp_path / "nothing")]) == 2
        error = capsys.readouterr().err
        assert what in error and len(error.splitlines()) == 1
    assert not (tmp_path / "nothing").exists()


def test_a_plan_says_what_is_left_on_what_and_for_how_long(batch, capsys):
    assert main(["plan", "p.txt", "--out", "out", "--model", "model"]) == 0
    told = capsys.readouterr().out
    assert "1 finished, 1 given up, 2 to render" in told and "1 gang of ulysses 1 x ring 1" in told
    assert "64x64x5" in told and "from 1 video finished here, on cpu" in told
    assert "cost" not in told
    assert main(["plan", "p.txt", "--out", "out", "--model", "model", "--price", "3600"]) == 0
    assert "0.0014 rank-hours, cost 5.00 (from 1 video" in capsys.readouterr().out
    assert main(["plan", "p.txt", "--out", "new", "--model", "model"]) == 0
    assert "how long is not known" in capsys.readouterr().out


@pytest.mark.parametrize(
    "seconds, told",
    [(1.4, "1 s"), (90, "90 s"), (7000, "117 min"), (9000, "2.5 hours"), (100_000, "28 hours"), (864_000, "10 days")],
)
def test_durations_are_told_in_their_unit(seconds, told):
    assert duration(seconds) == told
