"""`resca scaling` on a real local Ray, and what it refuses."""

import json

import pytest
from ray.cluster_utils import Cluster

from jobs.__main__ import main
from jobs.measure.scaling.compare import read_layouts
from jobs.measure.scaling.times import Case
from parallel.layout import Layout
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_layouts_render_the_same_videos_in_turns(tmp_path):
    model = save_tiny_pipeline(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("a cat walks on grass\na cat\ngrass\n")
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = ["--model", str(model), "--prompts", str(tmp_path / "prompts.txt"), "--steps", "4", *size]
    places = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
    turns = ["--layouts", "1x1,1x2", "--gangs", "2", "--rounds", "1", "--num", "2", "--method", "full"]
    assert main(["scaling", *arguments, *places, *turns, "--report", str(tmp_path / "report")]) == 0
    one, two, again, gangs = json.loads((tmp_path / "rows.json").read_text())
    assert (one["case"], one["ranks"], one["videos"], one["speedup"], one["efficiency"]) == ("1x1", 1, 2, 1, 1)
    assert (two["case"], two["ranks"], two["videos"]) == ("1x2", 2, 2)
    assert (gangs["case"], gangs["ranks"], gangs["videos"]) == ("2 gangs of 1x1", 2, 4)
    assert two["speedup"] == pytest.approx(one["seconds"] / two["seconds"], rel=0.01, abs=0.001)
    assert two["efficiency"] == pytest.approx(two["speedup"] / 2, rel=0.01, abs=0.001)
    assert again["predicted"] is None and two["predicted"] > 0 and gangs["predicted"] > 0
    links = json.loads((tmp_path / "report" / "links.json").read_text())
    assert [(row["case"], row.get("calls")) for row in links] == [("1x1", None), ("1x2", "all_gather")]
    assert list((tmp_path / "out").iterdir()) == []  # the videos are not kept


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ranks_of_three_nodes_share_videos_and_gangs_have_a_node_each(tmp_path):
    model = save_tiny_pipeline(tmp_path / "model")
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        asked = ["--model", str(model), "--steps", "4", *size, "--method", "full", "--rounds", "1", "--num", "1"]
        asked += ["--layouts", "1x1,1x2,1x3", "--gangs", "3", "--address", cluster.address]
        places = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
        assert main(["scaling", *asked, *places, "--report", str(tmp_path / "report")]) == 0
    finally:
        cluster.shutdown()
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["case"], row["ranks"]) for row in rows] == [
        ("1x1", 1), ("1x2", 2), ("1x3", 3), ("1x1", 1), ("3 gangs of 1x1", 3),
    ]  # fmt: skip
    assert all(row["predicted"] > 0 for row in rows if row["case"] != "1x1")
    links = json.loads((tmp_path / "report" / "links.json").read_text())
    assert [(row["case"], row.get("calls")) for row in links] == [
        ("1x1", None), ("1x2", "all_gather"), ("1x3", "all_gather"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--layouts two", "--layouts takes ULYSSESxRING"),
        ("--layouts cfg3", "--layouts takes ULYSSESxRING"),
        ("--layouts cfg2x2", "--layouts takes ULYSSESxRING"),
        ("--layouts 1x1,cfg2x2x1", "layout cfg2x2x1 gives each of two passes its own ranks"),
        ("--layouts 1x1,0x1", "--layouts takes ULYSSESxRING"),
        ("--layouts 3x1", "does not divide the model's 4 attention heads"),
        ("--gangs two", "--gangs takes numbers separated by commas"),
        ("--gangs 0", "--gangs must be at least 1, not 0"),
        ("--nodes many", "--nodes many should be a number of equal nodes"),
        ("--nodes 2xCPU=1 --gangs 3", "2 nodes"),
        ("--rounds 0", "--rounds must be at least 1, not 0"),
        ("--method nonsense", "unknown method"),
    ],
)
def test_bad_input_is_one_sentence(options, complaint, tmp_path, capsys):
    assert main(["scaling", "--out", str(tmp_path / "out"), *options.split()]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_layouts_have_names():
    """Guidance in parallel comes first, and may stand alone."""
    layouts = read_layouts("2x1,cfg2,cfg2x1x3,cfg1x4x2")
    assert layouts == [Layout(ulysses=2), Layout(cfg=2), Layout(cfg=2, ring=3), Layout(ulysses=4, ring=2)]
    assert [Case(layout=each).name for each in layouts] == ["2x1", "cfg2", "cfg2x1x3", "4x2"]
