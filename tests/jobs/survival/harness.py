"""A driver as users run it, in a process of its own, and what a test does to it and asks of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from cluster.cpus import usable_cpus
from cluster.ranks import RankContext
from jobs.driver.batch_plan import make_plan
from jobs.driver.ranks import workload_of
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.store.files import sha256
from jobs.store.mp4 import probe
from jobs.store.open import open_storage
from parallel.layout import Layout
from tests.jobs.tiny_model import SIZE

ROOT = Path(__file__).parents[3]
PROMPTS = ("a cat walks", "grass", "a cat on grass", "walks on grass")
QUICK_STEPS, STEPS = 60, 1500  # of a tiny model: no time to do anything to a video, and some seconds
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
SETTINGS = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]


class Driver:
    """`resca VERB ...` with a tiny model; what it prints goes to a file."""

    def __init__(self, verb: str, *words: object, log: Path, environment: dict[str, str] | None = None):
        self.log = log
        command = [sys.executable, "-m", "jobs", verb, *map(str, words)]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **own, **(environment or {})}
            )

    def wait(self, timeout_s: float = 150) -> int:
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def told(self) -> str:
        return self.log.read_text(errors="replace")


def words(model: Path, out: Path | str, steps: int, folder: Path) -> list[str]:
    """What to ask `resca render` for: four videos of the tiny model. The prompt file is put in the folder."""
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    asked = [prompts, "--out", out, "--model", model, "--steps", steps, *SETTINGS, "--method", "resca", "--clusters", 8]
    return [str(word) for word in asked]


def render(model: Path, out: Path | str, steps: int, *options: object, log: Path, **settings: Any) -> Driver:
    """Four videos of the tiny model, by a driver."""
    return Driver("render", *words(model, out, steps, log.parent), *options, log=log, **settings)


def render_here(model: Path, out: Path, steps: int) -> None:
    """The same in this process, without a driver, a gang or Ray; with the threads of a rank that has the machine."""
    options = parse(["render", *words(model, out, steps, out.parent)])
    assert isinstance(options, RenderOptions)
    plan, threads = make_plan(options), torch.get_num_threads()
    torch.set_num_threads(usable_cpus())
    try:
        session = workload_of(plan, Layout())(RankContext(rank=0, world_size=1, local_rank=0, device="cpu"))
        for item in plan.todo:
            session.run(item, 1)
        session.close()
    finally:
        torch.set_num_threads(threads)


def until(holds: Callable[[], Any], what: str, patience_s: float = 90) -> Any:
    """Waits for something to hold, and gives it."""
    deadline = time.monotonic() + patience_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
        time.sleep(0.05)
    return value


def ledger(out: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; the last may be on its way."""
    lines = [line for path in sorted((out / "ledger").glob("*.jsonl")) for line in path.read_bytes().split(b"\n")]
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def told(out: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in ledger(out) if line["e"] == kind]


def is_rendering(out: Path) -> bool:
    """Whether a video has been under way for a moment."""
    return any((out / "attempts").glob("*"))


def ranks(parent: int) -> list[psutil.Process]:
    """The ranks of gangs among the descendants of a process: a driver with its own Ray, or a raylet."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def checksums(out: Path) -> dict[str, str]:
    """Of every video there is, as its sidecar says and its bytes confirm."""
    found = {}
    for path in (out / "videos").glob("*.json"):
        sidecar = json.loads(path.read_text())
        video = path.with_suffix(".mp4")
        assert sha256(video) == sidecar["sha256"]
        assert probe(video).num_frames == sidecar["num_frames"]
        found[sidecar["id"]] = sidecar["sha256"]
    return found


def check_nothing_is_lost(out: Path, reference: dict[str, str]) -> None:
    """Every video is there as in an undisturbed run, was finished once, and nothing half-made is left."""
    assert checksums(out) == reference
    assert Counter(line["id"] for line in told(out, "done")) == Counter(reference.keys())
    check_no_debris(out)


def check_no_debris(out: Path) -> None:
    """No file that is not whole, no attempt's folder, no lock."""
    names = [path.relative_to(out).as_posix() for path in out.rglob("*")]
    assert not [name for name in names if name.endswith((".part", ".tmp")) or "attempts/" in name]
    assert open_storage(out).stored("driver.lock") is None


def check_no_rank_lives(driver: Driver, *parents: int) -> None:
    """Neither below the driver nor below the raylets given."""
    assert not psutil.pid_exists(driver.process.pid)
    for parent in parents:
        until(lambda parent=parent: not ranks(parent), "the ranks to go")


def send(process: psutil.Process, signal_number: signal.Signals) -> None:
    os.kill(process.pid, signal_number)
