"""One driver an output directory."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInput
from jobs.store.faults import Unreadable
from jobs.store.lock import NAME, DriverLock, LockLost, read_holder
from jobs.store.open import open_storage
from jobs.store.partial import process_space
from jobs.store.storage import Storage

pytestmark = pytest.mark.timeout(60)
LEASE_S = 2.0


def test_a_second_driver_is_refused_and_told_who_has_it(tmp_path):
    with DriverLock(open_storage(tmp_path), lease_s=LEASE_S):
        with pytest.raises(BadInput, match=r"another driver works on .*process .*resca cancel"):
            DriverLock(open_storage(tmp_path), lease_s=LEASE_S).__enter__()
        assert read_holder(open_storage(tmp_path))
    assert read_holder(open_storage(tmp_path)) is None
    with DriverLock(open_storage(tmp_path)):
        pass


def test_of_several_that_race_one_gets_it(tmp_path):
    start, won, lost = threading.Barrier(6), [], []

    def race() -> None:
        lock = DriverLock(open_storage(tmp_path), lease_s=LEASE_S)
        start.wait()
        try:
            won.append(lock.__enter__())
        except BadInput:
            lost.append(lock)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    won[0].__exit__()


def test_a_killed_driver_of_this_machine_loses_it_at_once(tmp_path):
    code = (
        "import os, sys; from jobs.store.lock import DriverLock; from jobs.store.open import open_storage\n"
        "DriverLock(open_storage(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3], timeout=60)
    assert killed.returncode == -9
    assert (tmp_path / NAME).exists()
    with DriverLock(open_storage(tmp_path), lease_s=1e6):
        pass


def test_a_driver_elsewhere_loses_it_when_it_has_been_silent_for_its_lease(tmp_path):
    far = {"token": "x", "host": "far", "pid": 1, "space": "another boot", "beats": 3}
    open_storage(tmp_path).write(NAME, json.dumps(far).encode())
    with DriverLock(open_storage(tmp_path), lease_s=0.5) as lock:
        lock.check()


def leave_a_dead_drivers_lock(storage: Storage) -> None:
    dead = {"token": "x", "host": "here", "pid": 2**22 + 1, "space": process_space()}
    storage.write(NAME, json.dumps(dead).encode())


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_one_that_stalls_after_it_judged_a_lock_dead_leaves_alone_whose_it_is_by_then(request, tmp_path, kind):
    place = tmp_path if kind == "directory" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    storage, stalling = open_storage(place), open_storage(place)
    is_stalled, may_go_on, refused = threading.Event(), threading.Event(), []

    def stall(verb: Callable[..., Any]) -> Callable[..., Any]:
        def stalled(*arguments: Any) -> Any:
            is_stalled.set()
            may_go_on.wait(30)
            return verb(*arguments)

        return stalled

    for verb in ("remove", "compare_and_swap"):
        if hasattr(stalling, verb):
            setattr(stalling, verb, stall(getattr(stalling, verb)))

    def take_over() -> None:
        try:
            DriverLock(stalling).__enter__()
        except BadInput as error:
            refused.append(str(error))

    leave_a_dead_drivers_lock(storage)
    slow = threading.Thread(target=take_over)
    slow.start()
    assert is_stalled.wait(30)
    with DriverLock(storage, lease_s=2) as lock:
        mine = read_holder(storage)
        may_go_on.set()
        slow.join(30)
        now = read_holder(storage)
        assert mine and now and now.token == mine.token
        assert len(refused) == 1 and "another driver works on" in refused[0]
        lock.check()
    assert read_holder(storage) is None


def test_a_driver_that_ends_late_does_not_remove_anothers_lock(tmp_path):
    storage = open_storage(tmp_path)
    lock = DriverLock(storage).__enter__()
    storage.write(NAME, json.dumps({"token": "other", "host": "far", "pid": 1, "space": "elsewhere"}).encode())
    lock.__exit__()
    holder = read_holder(storage)
    assert holder is not None and holder.token == "other"


def test_a_driver_whose_directory_is_removed_says_so(tmp_path):
    storage = open_storage(tmp_path / "out")
    with DriverLock(storage, lease_s=0.4) as lock:
        shutil.rmtree(tmp_path / "out")
        lock._thread.join(20)
        with pytest.raises(LockLost, match=f"{tmp_path}/out, or driver.lock in it, was removed while this driver"):
            lock.check()


def test_a_lock_that_is_moved_aside_for_a_moment_is_not_lost(tmp_path):
    storage = open_storage(tmp_path)
    with DriverLock(storage, lease_s=0.4) as lock:
        for _ in range(8):
            text = storage.read(NAME)
            storage.remove(NAME)
            time.sleep(0.1)
            storage.create(NAME, text)
            time.sleep(0.1)
        assert lock._thread.is_alive()
        lock.check()


def test_a_driver_that_was_taken_for_dead_notices(tmp_path):
    storage = open_storage(tmp_path)
    lock = DriverLock(storage, lease_s=0.4)
    with lock:
        holder = read_holder(storage)
        assert holder is not None
        storage.write(NAME, json.dumps({**vars(holder), "token": "another"}).encode())
        lock._thread.join(20)
        with pytest.raises(LockLost, match="another driver has taken over"):
            lock.check()
    assert read_holder(storage)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"token": "x"}', '{"token": 1, "host": [], "pid": "/.."}'])
def test_a_damaged_lock_is_somebodys(tmp_path, text):
    open_storage(tmp_path).write(NAME, text.encode())
    holder = read_holder(open_storage(tmp_path))
    assert holder is not None and (holder.token, holder.host) == ("", "unknown")


def test_a_directory_in_its_place_is_named_and_left_alone(tmp_path):
    (tmp_path / NAME / "mine").mkdir(parents=True)
    with pytest.raises(Unreadable, match=r"driver.lock cannot be read: Is a directory"):
        DriverLock(open_storage(tmp_path)).__enter__()
    assert (tmp_path / NAME / "mine").exists()
