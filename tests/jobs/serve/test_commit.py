"""Many that wait share one write, and each hears what became of its own line."""

import asyncio
from collections.abc import Sequence

import pytest

from jobs.serve.commit import GroupCommit


class Disk:
    """Writes slowly, and refuses lines that say so."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []

    async def write(self, lines: Sequence[str]) -> list[str]:
        await asyncio.sleep(0.01)
        if "refused" in lines:
            raise OSError("full")
        self.writes.append(list(lines))
        return [line.upper() for line in lines]


def test_what_comes_while_one_write_is_under_way_is_written_by_the_next():
    async def everybody() -> list[str]:
        commit = GroupCommit(disk.write)
        return await asyncio.gather(*(commit.add(line) for line in lines))

    disk, lines = Disk(), [f"line {number}" for number in range(500)]
    assert asyncio.run(everybody()) == [line.upper() for line in lines]
    assert [line for write in disk.writes for line in write] == lines
    assert len(disk.writes) <= 2


def test_a_write_that_is_refused_is_told_to_those_who_waited_for_it_and_the_next_one_is_tried():
    async def one_after_the_other() -> str:
        commit = GroupCommit(disk.write)
        refused = await asyncio.gather(commit.add("refused"), commit.add("beside"), return_exceptions=True)
        assert [type(each) for each in refused] == [OSError, OSError]
        return await commit.add("next")

    disk = Disk()
    assert asyncio.run(one_after_the_other()) == "NEXT"
    assert disk.writes == [["next"]]


def test_who_does_not_wait_any_more_takes_nobody_with_it():
    async def one_leaves() -> str:
        commit = GroupCommit(disk.write)
        leaving, staying = asyncio.create_task(commit.add("leaves")), asyncio.create_task(commit.add("stays"))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return await staying

    disk = Disk()
    assert asyncio.run(one_leaves()) == "STAYS"
    assert disk.writes == [["leaves", "stays"]]
