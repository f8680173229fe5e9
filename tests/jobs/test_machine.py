"""What a report says of the machine."""

import torch

from jobs.machine import describe_run


def test_a_run_can_be_repeated_from_what_it_says():
    about = describe_run(["benchmark", "--methods", "full,a b"])
    assert about["command"] == "python -m jobs benchmark --methods 'full,a b'"
    assert f"torch {torch.__version__}" in about["versions"]
    assert "cores" in about["machine"] and "GiB" in about["machine"]
