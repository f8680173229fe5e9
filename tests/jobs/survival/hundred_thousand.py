"""A batch of a hundred thousand prompts: seconds of `plan`, of the first dispatch and of `status`, and the memory.

make scale    # python -m tests.jobs.survival.hundred_thousand
"""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from jobs.store.known import Done
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from tests.jobs.store.example import item, settings, sidecar_of
from tests.jobs.survival.harness import SETTINGS, Driver, told, until
from tests.jobs.tiny_model import save_tiny_pipeline


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many prompts, and where the figures go."""

    prompts: int = 100_000
    report: tyro.conf.OmitArgPrefixes[Path] | None = None
    """Also write the figures to this JSON file."""


def main(scale: Scale) -> int:
    with tempfile.TemporaryDirectory(prefix="resca-scale-") as folder:
        place = Path(folder)
        model, prompts = save_tiny_pipeline(place / "model"), place / "prompts.txt"
        prompts.write_text("".join(f"a cat walks on grass number {number}\n" for number in range(scale.prompts)))
        words = [prompts, "--out", place / "out", "--model", model, "--steps", 20, *SETTINGS]
        words += ["--method", "resca", "--clusters", 8]
        figures: dict[str, Any] = {"prompts": scale.prompts}
        figures["plan_s"], figures["plan_mib"] = _timed(Driver("plan", *words, log=place / "plan.log"))
        figures |= _dispatch(Driver("render", *words, log=place / "render.log"), place / "out")
        _finish(place / "out", scale.prompts)
        figures["status_s"], figures["status_mib"] = _timed(Driver("status", place / "out", log=place / "status.log"))
        print((place / "status.log").read_text())
    print(json.dumps(figures, indent=2))
    if scale.report:
        scale.report.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _timed(driver: Driver) -> tuple[float, int]:
    """Seconds until it ends, and the most memory it was seen to hold, in MiB."""
    started, most = time.monotonic(), 0
    process = psutil.Process(driver.process.pid)
    while driver.process.poll() is None:
        try:
            most = max(most, process.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.02)
    took_s = time.monotonic() - started
    assert driver.wait() == 0, driver.told
    return round(took_s, 2), most >> 20


def _dispatch(driver: Driver, out: Path) -> dict[str, Any]:
    """Until the first video has been given to a gang; then some videos more, and the end."""
    started, most = time.monotonic(), 0
    process = psutil.Process(driver.process.pid)

    def seen(kind: str, number: int) -> bool:
        nonlocal most
        most = max(most, process.memory_info().rss)
        return len(told(out, kind)) >= number

    until(lambda: seen("start", 1), "the first dispatch", patience_s=300)
    figures: dict[str, Any] = {"first_dispatch_s": round(time.monotonic() - started, 2)}
    until(lambda: seen("done", 20), "twenty videos", patience_s=300)
    driver.process.terminate()
    assert driver.wait() == 143, driver.told
    return figures | {"driver_mib": most >> 20}


def _finish(out: Path, number: int) -> None:
    """The ledger as it is when all have been started and are done: status reads nothing else."""
    ledger, about, batch = Ledger(open_storage(out)), {"n": 1, "g": 0}, settings(out)
    ledger.add("begin", total=number, todo=number, method="resca", model="tiny", gangs=1)
    for index in range(number):
        one = item(id=f"{index:04d}", prompt=f"a cat walks on grass number {index}", seed=index)
        ledger.add("start", id=one.id, **about)
        sidecar = sidecar_of(batch, one, num_bytes=5000)
        ledger.add("done", **about, **Done.of_sidecar(sidecar, one.name, "1" * 19).for_ledger())
    ledger.flush()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Scale, description=__doc__)))
