"""200 clients that submit 2,000 videos at once: how long an answer takes, what memory it takes, and that none is lost.

make load    # python -m tests.jobs.serve.load
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import tyro

from jobs.store.ledger import read_lines
from jobs.store.open import open_storage
from tests.jobs.serve.harness import DOOR, TOKEN, Service
from tests.jobs.tiny_model import save_tiny_pipeline

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much, and where the figures go."""

    clients: int = 200
    videos: int = 2000
    report: tyro.conf.OmitArgPrefixes[Path] | None = None
    """Also write the figures to this JSON file."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """To one submission."""

    status: int
    seconds: float
    id: str | None


def main(load: Load) -> int:
    with tempfile.TemporaryDirectory(prefix="resca-load-") as folder:
        place = Path(folder)
        model = save_tiny_pipeline(place / "model")
        service = Service(place / "out", model, "--queue", 2 * load.videos, log=place / "log")
        door = service.part(DOOR)
        before, cpu_s = door.memory_info().rss, sum(door.cpu_times()[:2])
        with most_memory(door) as most:
            started = time.monotonic()
            answers = asyncio.run(submit(service.url, load))
            seconds = time.monotonic() - started
        figures = figures_of(answers, seconds) | memory_of(before, most[0], door)
        figures["door_cpu_s"] = round(sum(door.cpu_times()[:2]) - cpu_s, 2)
        figures["writes"] = len(list((place / "out" / "ledger").glob("add-*")))
        figures["lost"] = len(lost(answers, place / "out", asyncio.run(listed(service.url))))
        service.resca.kill()
        figures["lost_after_kill"] = len(lost(answers, place / "out"))
    print(json.dumps(figures, indent=2))
    if load.report:
        load.report.write_text(json.dumps(figures, indent=2) + "\n")
    return (
        0
        if not figures["lost"] and not figures["lost_after_kill"] and figures["statuses"] == {"200": load.videos}
        else 1
    )


async def submit(url: str, load: Load) -> list[Answer]:
    """All of them, one after the other by each client, on a connection that it keeps."""
    numbers = iter(range(load.videos))

    async def client(session: aiohttp.ClientSession) -> list[Answer]:
        return [await one(session, number) for number in numbers]

    connector = aiohttp.TCPConnector(limit=load.clients)
    async with aiohttp.ClientSession(url, headers=AUTHORIZATION, connector=connector) as session:
        each = await asyncio.gather(*(client(session) for _ in range(load.clients)))
    return [answer for answers in each for answer in answers]


async def one(session: aiohttp.ClientSession, number: int) -> Answer:
    started = time.monotonic()
    async with session.post("/v1/videos", json={"prompt": f"a cat walks on grass number {number}"}) as answer:
        body = await answer.json()
        return Answer(status=answer.status, seconds=time.monotonic() - started, id=body.get("id"))


async def listed(url: str) -> set[str]:
    """The ids that the service lists."""
    ids: set[str] = set()
    async with aiohttp.ClientSession(url, headers=AUTHORIZATION) as session:
        after = ""
        while True:
            async with session.get(f"/v1/videos?limit=100&order=asc{after}") as answer:
                page = await answer.json()
            ids |= {each["id"] for each in page["data"]}
            if not page["has_more"]:
                return ids
            after = f"&after={page['last_id']}"


def lost(answers: list[Answer], out: Path, shown: set[str] | None = None) -> set[str]:
    """The ids that were given and that neither the ledger nor, if it is asked, the service has."""
    given = {answer.id for answer in answers if answer.id}
    ledger = {line["id"] for line in read_lines(open_storage(out)) if line["e"] == "add"}
    return given - ledger | (given - shown if shown is not None else set())


@contextmanager
def most_memory(process: psutil.Process) -> Iterator[list[int]]:
    """The most bytes that a process is seen to hold in the block."""
    most, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def figures_of(answers: list[Answer], seconds: float) -> dict[str, Any]:
    times = sorted(answer.seconds for answer in answers)
    return {
        "statuses": {str(status): number for status, number in Counter(each.status for each in answers).items()},
        "seconds": round(seconds, 2),
        "videos_a_second": round(len(answers) / seconds),
        **{f"p{part}_s": round(times[min(len(times) - 1, len(times) * part // 100)], 3) for part in (50, 90, 99)},
        "longest_s": round(times[-1], 3),
    }


def memory_of(before: int, most: int, door: psutil.Process) -> dict[str, int]:
    """Of the door, in MiB."""
    return {"mib_before": before >> 20, "mib_most": most >> 20, "mib_after": door.memory_info().rss >> 20}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Load, description=__doc__)))
