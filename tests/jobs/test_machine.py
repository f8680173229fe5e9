"""What a report says of the machine."""

import os

import torch

from jobs.commands import plan
from jobs.machine import describe_run


def test_a_run_can_be_repeated_from_what_it_says():
    about = describe_run(["benchmark", "--methods", "full,a b"])
    assert about["command"] == "python -m jobs benchmark --methods 'full,a b'"
    assert f"torch {torch.__version__}" in about["versions"]
    assert "cores" in about["machine"] and "GiB" in about["machine"]


def test_plan_counts_the_cpus_that_it_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert plan._this_machine()["CPU"] == 1
