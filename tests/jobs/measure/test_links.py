"""Real gangs over links between two namespaces: what is probed of them, and that predictions are made."""

import json

import pytest

from jobs.options.shared import VideoOptions
from tests.jobs.measure.links import LINKS, Links, main
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_share_videos_over_links_that_are_as_slow_as_they_are_said_to_be(tmp_path):
    model = save_tiny_pipeline(tmp_path / "model")
    video = VideoOptions(steps=4, true_cfg_scale=2.0, negative_prompt="grass", **SIZE)
    links = Links(model=str(model), method="full", rounds=1, num=1, report=tmp_path / "report", video=video)
    assert main(links) == 0
    for name, rate in LINKS.items():
        folder = tmp_path / "report" / name.replace("/", " per ")
        rows, probes = (json.loads((folder / f"{kind}.json").read_text()) for kind in ("rows", "links"))
        assert [row["case"] for row in rows] == ["1x1", "2x1", "1x2", "cfg2"]
        assert all(row["videos"] and row["predicted"] > 0 for row in rows[1:])
        assert [row["calls"] for row in probes[1:]] == ["all_to_all", "all_gather", "all_gather"]
        assert all(row["call_ms"] / 1e3 >= rate.delay_s for row in probes[1:])
