"""Prompts that are added while drivers are at work, are killed, and have ended: each is rendered once."""

from collections import Counter

import pytest

from jobs.store.additions import Additions
from jobs.store.open import open_storage
from tests.jobs.survival.harness import Driver, check_no_debris, checksums, is_rendering, told, until

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
def test_what_is_added_before_and_after_the_driver_is_killed_is_rendered_once(start, reference, tmp_path):
    out = tmp_path / "out"

    def add(*prompts: str) -> str:
        file = tmp_path / "more.txt"
        file.write_text("\n".join(prompts))
        adder = Driver("add", out, file, log=tmp_path / "add.log")
        assert adder.wait() == 0, adder.told
        return adder.told

    first = start()
    until(lambda: is_rendering(out), "the first video")
    assert "takes it up within seconds" in add("a cat walks", "grass")
    until(lambda: "added: 0004 to 0005 (6 in all)" in first.told, "the additions to be taken up")
    first.kill()
    assert "no driver is at work" in add("a cat")
    second = Driver("retry", out, log=tmp_path / "retry.log")
    until(lambda: told(out, "start")[-1]["id"] == "0006" or len(told(out, "done")) > 3, "most of it")
    Additions(open_storage(out)).withdraw("0004")
    add("walks")
    assert second.wait() == 0, second.told
    rendered = checksums(out)
    assert {item: rendered[item] for item in reference} == reference
    assert set(rendered) - {"0004"} == {f"{number:04d}" for number in (0, 1, 2, 3, 5, 6, 7)}
    done = Counter(line["id"] for line in told(out, "done"))
    assert set(done.values()) == {1}
    check_no_debris(out)


@pytest.mark.slow
def test_a_driver_that_stays_renders_what_comes_until_it_is_cancelled(start, tmp_path):
    out = tmp_path / "out"
    driver = start("--stay")
    until(lambda: len(told(out, "done")) == 4, "all videos")
    (tmp_path / "more.txt").write_text("a cat")
    assert Driver("add", out, tmp_path / "more.txt", log=tmp_path / "add.log").wait() == 0
    until(lambda: len(told(out, "done")) == 5, "what was added")
    assert len(told(out, "gang_ready")) == 1
    assert Driver("cancel", out, log=tmp_path / "cancel.log").wait() == 0
    assert driver.wait() == 143, driver.told
