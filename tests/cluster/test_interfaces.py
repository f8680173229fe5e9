"""An interface that the environment names wrongly is named, on the host where it is missing."""

import pytest

from cluster.interfaces import use_interface_of, wrong_choice


@pytest.mark.parametrize("variable", ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"])
def test_one_that_is_not_there_is_refused_by_name(monkeypatch, variable: str):
    monkeypatch.setenv(variable, "ib77")
    with pytest.raises(ValueError, match=rf"On 10\.0\.0\.5, {variable}=ib77 names no interface; there are .*lo"):
        use_interface_of("10.0.0.5")


@pytest.mark.parametrize("choice", ["lo", "=lo", "^ib", "ib77,lo", ""])
def test_one_that_is_there_is_taken(monkeypatch, choice: str):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", choice)
    assert wrong_choice("GLOO_SOCKET_IFNAME") is None
