"""A batch's events, as a real Ray shows them to Prometheus."""

import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from cluster.events import Event, GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.driver.metrics import BatchMetrics
from tests.ray_configs.ports import free_ports

pytestmark = pytest.mark.timeout(120)
SIDECAR = {"dense_steps": 9, "sparse_steps": 41, "seconds": {"encode": 0.2, "denoise": 30, "decode": 3, "write": 0.7}}
JOBS = [Job(index=index, item=None) for index in range(4)]
STORY: tuple[Event, ...] = (
    GangEvent(kind="gang_starting", gang=0),
    GangEvent(kind="gang_ready", gang=0),
    GangEvent(kind="gang_ready", gang=1),
    ItemRunning(kind="item_started", gang=0, job=JOBS[0]),
    ItemRunning(kind="item_progress", gang=0, job=JOBS[0], fraction=0.5),
    ItemDone(gang=0, job=JOBS[0], result=SIDECAR),
    ItemDone(gang=1, job=JOBS[1], result=SIDECAR | {"sparse_steps": 0}),
    GangEvent(kind="gang_lost", gang=1, job=JOBS[2], error="Rank 0 was lost"),
    ItemFailed(kind="item_retried", gang=1, job=JOBS[2], error="lost", failure=FailureKind.INFRASTRUCTURE),
    ItemFailed(kind="item_retried", gang=0, job=JOBS[3], error="poison", failure=FailureKind.ITEM),
    ItemFailed(kind="item_failed", gang=0, job=JOBS[3], error="poison", failure=FailureKind.ITEM),
    GangEvent(kind="gang_ready", gang=1),
    GangEvent(kind="gang_closed", gang=0, error="its node is drained"),
)
ONE, OTHER = "s3://bucket/one", "/videos/other"
Samples = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[BatchMetrics, str]]:
    """The metrics of a batch after the story, and the node's endpoint."""
    [port] = free_ports(1)
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80_000_000,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    try:
        metrics = BatchMetrics(total=10, batch=ONE)
        for event in STORY:
            metrics.note(event)
        metrics.tick()
        other = BatchMetrics(total=3, batch=OTHER)
        other.note(STORY[1])
        other.note(STORY[5])
        other.tick()
        yield metrics, f"http://127.0.0.1:{port}/metrics"
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def samples(told: tuple[BatchMetrics, str]) -> Samples:
    """What the endpoint shows, by name and (one) label."""
    return scrape(told[1], lambda seen: seen.get(("resca_queue_length", "")) == 7)


def scrape(url: str, is_complete: Callable[[Samples], bool], patience_s: float = 60, batch: str = ONE) -> Samples:
    """What is said of a batch."""
    deadline = time.monotonic() + patience_s
    seen: Samples = {}
    while not is_complete(seen) and time.monotonic() < deadline:
        time.sleep(0.5)
        try:
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        except OSError:  # The node's agent is still starting.
            continue
        families = [f for f in text_string_to_metric_families(text) if f.name.startswith("ray_resca")]
        samples = [sample for family in families for sample in family.samples]
        seen = {name_and_label(sample): sample.value for sample in samples if sample.labels["batch"] == batch}
    return seen


def name_and_label(sample) -> tuple[str, str]:
    labels = [sample.labels[key] for key in ("kind", "stage", "le") if key in sample.labels]
    return sample.name.removeprefix("ray_"), " ".join(labels)


def test_videos_are_counted_by_how_they_ended(samples):
    assert samples["resca_videos_done_total", ""] == 2
    assert samples["resca_videos_failed_total", ""] == 1


def test_retries_are_counted_by_whose_fault_they_were(samples):
    assert samples["resca_videos_retried_total", "item"] == 1
    assert samples["resca_videos_retried_total", "infrastructure"] == 1


def test_seconds_are_sorted_by_stage(samples):
    assert {stage: samples["resca_seconds_spent_total", stage] for stage in SIDECAR["seconds"]} == pytest.approx(
        {stage: 2 * seconds for stage, seconds in SIDECAR["seconds"].items()}
    )
    assert samples["resca_stage_seconds_count", "denoise"] == 2
    assert samples["resca_stage_seconds_bucket", "denoise 25.0"] == 0
    assert samples["resca_stage_seconds_bucket", "denoise 50.0"] == 2


def test_steps_are_counted_apart(samples):
    assert samples["resca_steps_total", "dense"] == 18
    assert samples["resca_steps_total", "sparse"] == 41


def test_what_is_left_is_the_batch_without_what_was_done_or_given_up(samples):
    assert samples["resca_queue_length", ""] == 7


def test_a_gang_that_is_ready_again_after_a_loss_is_a_rebuild_and_a_closed_one_is_gone(samples):
    assert samples["resca_gang_rebuilds_total", ""] == 1
    assert samples["resca_gangs_running", ""] == 1


@pytest.mark.slow
def test_gauges_are_shown_as_long_as_the_batch_ticks(told, samples):
    """Ray forgets a gauge that is not set again: this one's video takes longer than that."""
    metrics, url = told
    gauges = {("resca_queue_length", ""), ("resca_gangs_running", "")}
    scrape(url, lambda seen: bool(seen) and not gauges & seen.keys())
    metrics.tick()
    assert gauges <= scrape(url, lambda seen: gauges <= seen.keys()).keys()


def test_two_batches_of_one_cluster_are_told_apart_by_their_label(told, samples):
    other = scrape(told[1], lambda seen: seen.get(("resca_queue_length", "")) == 2, batch=OTHER)
    assert other["resca_videos_done_total", ""] == 1 and other["resca_gangs_running", ""] == 1
    assert other["resca_seconds_spent_total", "denoise"] == pytest.approx(30)
    assert samples["resca_videos_done_total", ""] == 2
