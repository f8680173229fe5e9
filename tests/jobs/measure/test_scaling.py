"""What `resca scaling` makes of what it has measured."""

import json
from pathlib import Path

import pytest

from cluster.events import ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.driver.batch_plan import Plan
from jobs.errors import BadInput, InfrastructureError
from jobs.measure.scaling.compare import check_layout
from jobs.measure.scaling.predicted import predict, setup_of
from jobs.measure.scaling.report import link_rows, make_rows, write_report
from jobs.measure.scaling.session import ENCODER
from jobs.measure.scaling.times import Case, Listener, Times, Video
from jobs.options.scaling import ScalingOptions
from jobs.options.shared import VideoOptions
from jobs.predict.gpus import profile
from jobs.predict.measured import Probe, probed
from jobs.predict.seconds import seconds_of
from jobs.store.items import RenderItem
from parallel.collectives import CallTime
from parallel.layout import Layout

ONE = Case(layout=Layout())
TWO = Case(layout=Layout(ulysses=2))
GANGS = Case(layout=Layout(), gangs=2)
CPU = profile("cpu", "pcie", "tcp100")
BESIDE_S, ENCODER_S = 0.02, 0.05
CALLS = tuple(
    CallTime(collective="all_to_all", bytes_sent=size, seconds=2e-3 + size / 1e8) for size in (10_000, 100_000)
)


def plan_of(folder: Path, method: str = "full") -> Plan:
    video = VideoOptions(steps=10, true_cfg_scale=4.0, negative_prompt="blurred")
    return check_layout(ScalingOptions(out=str(folder / "out"), num=2, method=method, video=video), ONE.layout)


def probe(together: float = 1.0, calls: tuple[CallTime, ...] = ()) -> Probe:
    rates = {name: getattr(CPU.rates, name) for name in ("linear_flops_per_s", "attention_flops_per_s")}
    return Probe(memory_bytes_per_s=5e9, together=together, calls=calls, **rates)


def video_of(plan: Plan, item: RenderItem, case: Case, own: Probe, together: float = 1.0) -> Video:
    """As on a machine whose steps take half as long as taken to be, and where the encoder shares the rank's core."""
    machine = CPU.with_quantities("a machine", step_s=CPU.quantities["step_s"].scaled(0.5))
    machine = machine.with_quantities("a machine", decode_flops_per_s=CPU.quantities["decode_flops_per_s"].scaled(1e-5))
    parts = seconds_of(setup_of(plan, item, case.layout), probed(machine, own, case.layout, together))
    stages = {"encode": parts.encode, "denoise": parts.loop, "decode": parts.decode + ENCODER_S, "write": 0.0}
    return Video(item=item, seconds=sum(stages.values()) + BESIDE_S, stages=stages, encoder=ENCODER_S)


def measured(plan: Plan) -> list[Times]:
    """One rank, Ulysses over a link, and two gangs; two ranks at the same time are a tenth slower."""
    smaller = [item.model_copy(update={"num_frames": 21}) for item in plan.items]
    one, two, gangs = Times(case=ONE), Times(case=TWO), Times(case=GANGS)
    one.probes.append(probe())
    two.probes.append(probe(1.1, CALLS))
    one.videos.extend(video_of(plan, item, ONE, probe()) for item in plan.items)
    one.small.extend(video_of(plan, item, ONE, probe()) for item in smaller)
    two.videos.extend(video_of(plan, item, TWO, two.probes[0], 1.1) for item in plan.items)
    gangs.videos.extend(video_of(plan, item, ONE, probe(), 1.1) for item in plan.items)
    return [one, two, gangs]


def test_each_case_is_predicted_by_the_first_and_by_probes(tmp_path):
    plan = plan_of(tmp_path)
    times = measured(plan)
    found = predict(plan, times, on_gpus=False)
    assert list(found) == [TWO, GANGS]
    for each in times[1:]:
        assert found[each.case].seconds == pytest.approx(each.median_s, rel=0.03)
        assert found[each.case].low < found[each.case].seconds < found[each.case].high


def test_what_is_not_predicted_is_refused(tmp_path):
    plan = plan_of(tmp_path, "toca")
    with pytest.raises(BadInput, match="what its sparse steps take is not predicted"):
        predict(plan, measured(plan), on_gpus=False)


def test_rows_are_of_two_blocks(tmp_path):
    plan = plan_of(tmp_path)
    times = measured(plan)
    rows = make_rows(times, predict(plan, times, on_gpus=False))
    assert [(row["block"], row["case"], row["ranks"]) for row in rows] == [
        ("strong", "1x1", 1),
        ("strong", "2x1", 2),
        ("weak", "1x1", 1),
        ("weak", "2 gangs of 1x1", 2),
    ]
    assert rows[0]["predicted"] is None and rows[1]["off"] == pytest.approx(0, abs=0.03)
    one, gangs = times[0].median_s, times[2].median_s
    assert rows[3]["speedup"] == pytest.approx(2 * one / gangs, abs=1e-3)
    assert rows[3]["efficiency"] == pytest.approx(one / gangs, abs=1e-3)


def test_links_are_told_by_what_was_fitted_to_their_calls(tmp_path):
    one, two = link_rows(measured(plan_of(tmp_path)))
    assert "calls" not in one
    assert (two["calls"], two["MB/s"], two["call_ms"]) == ("all_to_all", 100.0, 2.0)


def test_a_report_has_rows_links_parts_and_curves(tmp_path):
    plan = plan_of(tmp_path)
    times = measured(plan)
    predicted = predict(plan, times, on_gpus=False)
    write_report(tmp_path / "report", times, predicted, {"command": "a test"})
    read = {path.name: path.read_text() for path in (tmp_path / "report").glob("*.json")}
    assert json.loads(read["rows.json"]) == make_rows(times, predicted)
    assert [row["case"] for row in json.loads(read["parts.json"])] == ["2x1", "2 gangs of 1x1"]
    assert json.loads(read["seconds.json"])["2x1"] == pytest.approx(times[1].seconds, abs=1e-4)
    assert json.loads(read["about.json"]) == {"command": "a test"} and json.loads(read["links.json"])
    assert (tmp_path / "report" / "rows.csv").read_text().count("\n") == 5
    assert (tmp_path / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_videos_count_for_nothing(tmp_path):
    item, now = plan_of(tmp_path).items[0], iter([0.0, 10.0, 12.0])
    listener, videos = Listener("1x1", clock=lambda: next(now)), []
    stages = {"encode": 0.1, "denoise": 1.0, "decode": 0.5, "write": 0.1}
    for index in range(2):
        job = Job(index=index, item=item)
        listener(ItemRunning(kind="item_started", job=job, gang=0))
        listener.into = videos if index else None
        listener(ItemDone(job=job, gang=0, result={"seconds": stages, ENCODER: 0.05}))
    assert listener.gangs == {0}
    assert [(video.seconds, video.encoder) for video in videos] == [(2.0, 0.05)]
    with pytest.raises(InfrastructureError, match="1x1: gone"):
        listener(ItemFailed(kind="item_failed", job=job, error="gone", failure=FailureKind.ITEM))
