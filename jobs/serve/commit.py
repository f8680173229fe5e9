"""Many answers that wait for one write: what comes while storage is busy is written together, the next time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Line = TypeVar("Line")
Result = TypeVar("Result")
MOST_AT_ONCE = 1000  # of one write, so that the last of many does not wait for all of them to be sent


class GroupCommit(Generic[Line, Result]):
    """`write` makes lines durable, all or none, and gives a result for each. To be used on one event loop."""

    def __init__(self, write: Callable[[Sequence[Line]], Awaitable[Sequence[Result]]]) -> None:
        self._write = write
        self._waiting: list[tuple[Line, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def add(self, line: Line) -> Result:
        """Returns once the line is durable. Raises what `write` raises; then it was not written."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                await self._commit(group)
        finally:
            self._task = None

    async def _commit(self, group: list[tuple[Line, "asyncio.Future[Result]"]]) -> None:
        waiting = [result for _, result in group]
        try:
            results = await self._write([line for line, _ in group])
        except Exception as error:  # Whatever it is, nobody may wait for ever: each raises it in its own name.
            for each in waiting:
                if not each.done():
                    each.set_exception(error)
            return
        for each, result in zip(waiting, results, strict=True):
            if not each.done():  # Who does not wait any more has been cancelled.
                each.set_result(result)
