"""The seconds of a video through Ray, and in a plain torchrun process, in turns."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from jobs.demo import PROMPTS_FILE
from jobs.errors import InfrastructureError
from jobs.options.measure import OverheadOptions
from jobs.request.checks import MOST_MEASURED, check_count
from jobs.store.ledger import read_lines
from jobs.store.open import open_storage

LONGEST_TURN_S = 3600
Row = dict[str, str | float]


def compare_ways(options: OverheadOptions, console: Console) -> list[Row]:
    """One row a way. The first video of each turn pays for first times and does not count."""
    check_count("num", options.num, MOST_MEASURED, least=3)
    check_count("rounds", options.rounds, MOST_MEASURED)
    ways: dict[str, Callable[[Path, OverheadOptions], list[float]]] = {"torchrun": _plain, "ray": _ray}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, render in ways.items():
            with tempfile.TemporaryDirectory(prefix="resca-") as folder:
                done_s = render(Path(folder), options)
            seconds[name] += [after - before for before, after in pairwise(done_s)]
            console.print(f"round {number + 1}, {name}: {statistics.median(seconds[name]):.3f} s a video")
    return make_rows(seconds)


def make_rows(seconds: dict[str, list[float]]) -> list[Row]:
    """Medians and means, and what Ray adds to them."""
    plain = seconds["torchrun"]
    return [
        {
            "way": name,
            "videos": len(values),
            "median_s": round(statistics.median(values), 4),
            "mean_s": round(statistics.mean(values), 4),
            "spread": f"{min(values):.3g} to {max(values):.3g}",
            "overhead_median": round(statistics.median(values) / statistics.median(plain) - 1, 4),
            "overhead_mean": round(statistics.mean(values) / statistics.mean(plain) - 1, 4),
        }
        for name, values in seconds.items()
    ]


def _plain(folder: Path, options: OverheadOptions) -> list[float]:
    times = folder / "times.json"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "jobs.measure.plain"]
    _call([*words, str(_prompts(folder, options)), str(folder / "out"), str(times), *_settings(options)])
    return json.loads(times.read_text())


def _ray(folder: Path, options: OverheadOptions) -> list[float]:
    words = ["-m", "jobs", "render", str(_prompts(folder, options)), "--out", str(folder / "out")]
    _call([*words, *_settings(options)])
    return [line["t"] for line in read_lines(open_storage(folder / "out")) if line["e"] == "done"]


def _settings(options: OverheadOptions) -> list[str]:
    words = ["--model", options.model, "--method", options.method, "--num-frames", str(options.num_frames)]
    return words + (["--cpus-per-rank", str(options.cpus_per_rank)] if options.cpus_per_rank else [])


def _prompts(folder: Path, options: OverheadOptions) -> Path:
    """As many as asked for, the same again and again: all of them take the same work."""
    first = (options.prompts or PROMPTS_FILE).read_text(encoding="utf-8").splitlines()[0]
    path = folder / "prompts.txt"
    path.write_text(f"{first}\n" * options.num, encoding="utf-8")
    return path


def _call(words: list[str]) -> None:
    environment = {**os.environ, "RAY_ADDRESS": ""}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=LONGEST_TURN_S
    )
    if done.returncode:
        raise InfrastructureError(f"{' '.join(words[:4])} failed: {done.stderr.strip().splitlines()[-1]}")
