"""What is said of a model that cannot be had from the hub."""

import huggingface_hub.constants
import pytest

from jobs.errors import BadInput, InfrastructureError
from jobs.models.facts import read_facts


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """A hub that does not answer, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


def test_a_hub_that_does_not_answer_is_named_with_the_cache():
    with pytest.raises(
        InfrastructureError, match=r"owner/name is no directory here and not in .*cache, and the hub does"
    ):
        read_facts("owner/name")


def test_a_mistyped_path_is_bad_input(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(BadInput, match=r"there is no model directory models/typo, though models is there"):
        read_facts("models/typo")
