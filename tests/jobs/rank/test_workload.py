"""What each node fetches of a model before its ranks load it."""

import huggingface_hub.constants
import pytest
from diffusers import DiffusionPipeline

from cluster.failure import FailureKind, classify
from cluster.ranks import RankContext
from jobs.errors import BadInput, InfrastructureError
from jobs.measure.scaling.session import Measured
from jobs.rank.workload import RenderWorkload
from parallel.layout import Layout
from tests.jobs.store.example import settings
from tests.jobs.tiny_model import save_tiny_pipeline

TEXT = {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}


def workload_of(model, folder, **options):
    batch = settings(folder / "out", model=str(model), revision="abc")
    return RenderWorkload(settings=batch, prompt_template=None, layout=Layout(ulysses=8, ring=2), **options)


def first_of_a_node(rank):
    return RankContext(rank=rank, world_size=16, local_rank=0, device="cpu")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What is asked of the hub: of which model, and without what."""
    calls = []

    def download(cls, source, **options):
        calls.append((source, options["revision"], TEXT & set(options)))
        return str(tmp_path)

    monkeypatch.setattr(DiffusionPipeline, "download", classmethod(download))
    return calls


def test_text_encoders_are_fetched_only_where_they_run(asked, tmp_path):
    workload = workload_of("owner/name", tmp_path)
    for rank in (0, 8):
        workload.prepare(first_of_a_node(rank))
    assert asked == [("owner/name", "abc", set()), ("owner/name", "abc", TEXT)]


def test_split_text_encoders_are_fetched_everywhere(asked, tmp_path):
    Measured(workload=workload_of("owner/name", tmp_path, shard_weights=True)).prepare(first_of_a_node(8))
    assert asked == [("owner/name", "abc", set())]


def test_nothing_is_asked_for_a_directory_or_the_demo_model(asked, tmp_path):
    for model in (save_tiny_pipeline(tmp_path / "model"), "demo"):
        workload_of(model, tmp_path).prepare(first_of_a_node(0))
    assert asked == []


def test_a_hub_that_is_away_is_of_the_machines_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InfrastructureError, match="HF_HUB_OFFLINE keeps the hub from being asked") as refused:
        workload_of("owner/name", tmp_path).prepare(first_of_a_node(0))
    assert classify(refused.value) is FailureKind.INFRASTRUCTURE


def test_a_directory_that_is_not_on_this_node_is_named(tmp_path):
    with pytest.raises(
        BadInput, match=r"there is no model directory .*/away on this machine: give one that every node"
    ):
        workload_of(tmp_path / "away", tmp_path).prepare(first_of_a_node(0))
