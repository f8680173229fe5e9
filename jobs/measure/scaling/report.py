"""What was measured beside what is predicted: rows, and a directory with them, the links, and curves of efficiency."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.measure.report import write_csv
from jobs.measure.scaling.predicted import Predicted
from jobs.measure.scaling.times import STAGES, Case, Times
from jobs.predict.measured import combined, fit
from jobs.store.files import write_text
from parallel.collectives import Collective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, str | float | None]
COLLECTIVES: tuple[Collective, ...] = ("all_to_all", "all_gather")
BLOCKS = {"strong": "one video, more ranks", "weak": "more gangs"}


def make_rows(times: Sequence[Times], predicted: Mapping[Case, Predicted]) -> list[Row]:
    """One a case, in blocks: strong scaling of one video over ranks, and weak scaling over gangs."""
    first = times[0]
    strong = [_row("strong", each, first, predicted) for each in times if each.case.gangs == 1]
    several = [each for each in times if each.case.gangs > 1]
    return strong + [_row("weak", each, first, predicted) for each in ([first, *several] if several else [])]


def _row(block: str, times: Times, first: Times, predicted: Mapping[Case, Predicted]) -> Row:
    """Medians, how they compare with the first case's, and what was predicted."""
    case, expected = times.case, predicted.get(times.case)
    speedup = times.videos_per_hour / first.videos_per_hour
    return {
        "block": block,
        "case": case.name,
        "gangs": case.gangs,
        "ranks": case.ranks,
        "videos": len(times.videos),
        "seconds": round(times.median_s, 3),
        "spread": f"{min(times.seconds):.3g} to {max(times.seconds):.3g}",
        "predicted": None if expected is None else round(expected.seconds, 3),
        "low": None if expected is None else round(expected.low, 3),
        "high": None if expected is None else round(expected.high, 3),
        "off": None if expected is None else round(expected.seconds / times.median_s - 1, 3),
        **{stage: round(times.stage_s(stage), 3) for stage in STAGES},
        "videos_per_hour": round(times.videos_per_hour, 1),
        "speedup": round(speedup, 3),
        "efficiency": round(speedup * first.case.ranks / case.ranks, 3),
    }


def link_rows(times: Sequence[Times]) -> list[Row]:
    """What probes say of each case: its ranks together, and the calls between them, with what was fitted to these."""
    rows: list[Row] = []
    for each in times:
        if not each.probes:
            continue
        probe = combined(each.probes)
        row: Row = {"case": each.case.name, "together": round(probe.together, 3)}
        for collective in COLLECTIVES:
            if own := [call for call in probe.calls if call.collective == collective]:
                bytes_per_s, call_s = fit(own)
                taken = ", ".join(f"{call.bytes_sent} B: {1e3 * call.seconds:.3g} ms" for call in own)
                row |= {"calls": collective, "MB/s": round(bytes_per_s / 1e6, 1), "call_ms": round(1e3 * call_s, 3)}
                row |= {"measured": taken}
        rows.append(row)
    return rows


def parts_rows(predicted: Mapping[Case, Predicted]) -> list[Row]:
    """What predicted seconds are made of."""
    return [
        {"case": case.name, **{name: round(value, 4) for name, value in vars(each.parts).items()}}
        for case, each in predicted.items()
    ]


def write_report(
    directory: Path, times: Sequence[Times], predicted: Mapping[Case, Predicted], about: Mapping[str, str]
) -> None:
    """Rows (JSON, CSV), probes, parts, the seconds of each video, and curves (PNG, SVG)."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = make_rows(times, predicted)
    kept = {
        "rows": rows,
        "links": link_rows(times),
        "parts": parts_rows(predicted),
        "seconds": {each.case.name: [round(value, 4) for value in each.seconds] for each in times},
        "about": about,
    }
    for name, value in kept.items():
        write_text(directory / f"{name}.json", json.dumps(value, indent=2) + "\n")
    write_csv(directory / "rows.csv", rows)
    plot(directory, rows)


def plot(directory: Path, rows: Sequence[Row]) -> None:
    """Seconds of a video and efficiency by ranks, measured and predicted, a block a row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    blocks = list(dict.fromkeys(str(row["block"]) for row in rows))
    figure, axes = pyplot.subplots(len(blocks), 2, figsize=(11, 4.2 * len(blocks)), layout="constrained", squeeze=False)
    for pair, block in zip(axes, blocks, strict=True):
        of_block = [row for row in rows if row["block"] == block]
        _draw(pair[0], of_block, "seconds", "predicted")
        _draw(pair[1], _with_efficiency(of_block), "efficiency", "predicted_efficiency")
        for axis, what in zip(pair, ("seconds of a video", "efficiency"), strict=True):
            axis.set_title(f"{what}: {BLOCKS[block]}")
            axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    for kind in ("png", "svg"):
        figure.savefig(directory / f"curves.{kind}", dpi=110)
    pyplot.close(figure)


def _with_efficiency(rows: Sequence[Row]) -> list[Row]:
    """With the efficiency that predicted seconds would have."""
    found = []
    for row in rows:
        efficiency, seconds, predicted = row["efficiency"], row["seconds"], row["predicted"]
        assert isinstance(efficiency, float | int) and isinstance(seconds, float | int)
        expected = None if not isinstance(predicted, float | int) else efficiency * seconds / predicted
        found.append({**row, "predicted_efficiency": expected})
    return found


def _draw(axis: "Axes", rows: Sequence[Row], measured: str, predicted: str) -> None:
    """Beside each other, as layouts of as many ranks would lie upon each other."""
    names = [str(row["case"]) for row in rows]
    for key, marker, shift in ((measured, "o", -0.06), (predicted, "D", 0.06)):
        points = [
            (place + shift, value) for place, row in enumerate(rows) if isinstance(value := row[key], float | int)
        ]
        label = "measured" if key == measured else "predicted"
        axis.plot(*zip(*points, strict=True), marker, label=label, ms=6) if points else None
    axis.set_xticks(range(len(names)), names, rotation=20)
    axis.set_xlim(-0.5, len(names) - 0.5)
