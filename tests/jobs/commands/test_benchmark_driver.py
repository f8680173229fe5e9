"""`resca benchmark driver` on a real Ray, with ranks in processes of their own and many in one."""

import json

import pytest

from jobs.__main__ import main


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("ranks_per_process", "processes"), [("1", 4), ("8", 1)])
def test_a_driver_of_two_gangs_is_measured(tmp_path, ranks_per_process, processes):
    words = ["--gangs", "2", "--ranks", "2", "--ranks-per-process", ranks_per_process]
    times = ["--item-seconds", "1", "--seconds", "3"]
    assert main(["benchmark", "driver", *words, *times, "--json", str(tmp_path / "rows.json")]) == 0
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert (row["gangs"], row["ranks"], row["processes"]) == (2, 4, processes)
    assert row["items"] >= 2 and row["share"] > 0 and 0 < row["next_item_s"] <= row["longest_s"]
