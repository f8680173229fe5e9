"""Prompts that are added while drivers are at work, are killed, and have ended: each is rendered once."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.store.additions import Additions
from jobs.store.open import open_storage
from tests.jobs.survival.harness import Driver, check_no_debris, checksums, is_rendering, told, until

pytestmark = [pytest.mark.timeout(570), pytest.mark.slow]
PATIENCE_S = 200.0


@pytest.fixture
def steps() -> int:
    """Of a video: a second or two."""
    return 120


@pytest.fixture
def retry(tmp_path) -> Iterator[Callable[[], Driver]]:
    """Starts a driver that does not outlive the test."""
    drivers = []

    def retry() -> Driver:
        drivers.append(Driver("retry", tmp_path / "out", log=tmp_path / "retry.log"))
        return drivers[-1]

    yield retry
    for driver in drivers:
        if driver.process.poll() is None:
            driver.kill()


def soon(holds: Callable[[], Any], what: str) -> Any:
    return until(holds, what, patience_s=PATIENCE_S)


def add(out: Path, *prompts: str) -> str:
    file = out.parent / "more.txt"
    file.write_text("\n".join(prompts))
    adder = Driver("add", out, file, log=out.parent / "add.log")
    assert adder.wait(PATIENCE_S) == 0, adder.told
    return adder.told


def test_what_is_added_before_and_after_the_driver_is_killed_is_rendered_once(start, retry, tmp_path):
    out = tmp_path / "out"
    first = start()
    soon(lambda: is_rendering(out), "the first video")
    assert "takes it up within seconds" in add(out, "a cat walks", "grass")
    soon(lambda: "added: 0004 to 0005 (6 in all)" in first.told, "the additions to be taken up")
    first.kill()
    assert "no driver is at work" in add(out, "a cat")
    second = retry()
    soon(lambda: len(told(out, "begin")) == 2 and is_rendering(out), "the second driver")
    Additions(open_storage(out)).withdraw("0004")
    add(out, "walks")
    assert second.wait(PATIENCE_S) == 0, second.told
    assert set(checksums(out)) == {f"{number:04d}" for number in (0, 1, 2, 3, 5, 6, 7)}
    assert set(Counter(line["id"] for line in told(out, "done")).values()) == {1}
    assert [told(out, "begin")[-1][name] for name in ("total", "added")] == [7, 3]
    check_no_debris(out)


def test_a_driver_that_stays_renders_what_comes_until_it_is_cancelled(start, tmp_path):
    out = tmp_path / "out"
    driver = start("--stay")
    soon(lambda: len(told(out, "done")) == 4, "all videos")
    add(out, "a cat")
    soon(lambda: len(told(out, "done")) == 5, "what was added")
    assert len(told(out, "gang_ready")) == 1
    assert Driver("cancel", out, log=tmp_path / "cancel.log").wait(PATIENCE_S) == 0
    assert driver.wait(PATIENCE_S) == 143, driver.told
