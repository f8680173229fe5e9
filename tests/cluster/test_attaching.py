"""Addresses are judged before Ray is asked, and what Ray says is put into one sentence."""

import re

import pytest
import ray
from ray._private.utils import check_version_info

from cluster.attaching import check_address, is_loopback, why_not


def test_the_address_of_a_dashboard_leads_to_submit(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ValueError, match="is that of a dashboard") as refused:
        check_address("http://127.0.0.1:8265")
    assert str(refused.value).startswith("RAY_ADDRESS=http://127.0.0.1:8265 ")
    assert "resca submit --dashboard http://127.0.0.1:8265" in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        *("somewhere", "host:", ":6379", "host:99999", "host:port", "host:+5", "host:٣", "host:6379/"),
        *("tcp://host:6379", "me@host:6379", "a b:6379", " host:6379", "..:6379", f"{'x' * 64}:6379"),
        *("127.1:6379", "127.0.0.999:6379", "::1:6379", "[::1:6379", "[127.0.0.1]:6379"),
    ],
)
def test_a_malformed_address_is_quoted(monkeypatch, address: str):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=re.escape(f"'{address}' is malformed; give host:port or auto")):
        check_address(address)


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "[::1]:6379", "head:1", "my_head-0.ray.svc.cluster.local.:6379"])
def test_an_address_of_every_kind_is_taken(address: str):
    check_address(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:6379", True),
        ("localhost:1", True),
        ("[::1]:6379", True),
        ("10.0.0.1:6379", False),
        ("head:1", False),
    ],
)
def test_loopback_is_told_from_other_addresses(address: str, expected: bool):
    assert is_loopback(address) is expected


def test_another_version_is_named_with_ours():
    with pytest.raises(RuntimeError) as mismatch:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "this machine")
    said = why_not("10.0.0.1:6379", mismatch.value)
    assert said.startswith("The Ray cluster at 10.0.0.1:6379 cannot be used: version mismatch, it has Ray 2.9.0 and ")
    assert f"Python 3.9.1, this machine Ray {ray.__version__} and Python" in said
    assert said.endswith("install the same on both.") and "\n" not in said
    wrapped = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    wrapped.__cause__ = mismatch.value
    assert why_not("10.0.0.1:6379", wrapped) == said
