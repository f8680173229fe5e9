"""The Grafana dashboard against what BatchMetrics exports; the names are asked of the code."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from ray.util.metrics import Counter, Gauge, Histogram, Metric

from jobs.driver.metrics import BatchMetrics

DASHBOARD = json.loads((Path(__file__).parents[2] / "ray_configs/grafana.json").read_text())
PANELS = DASHBOARD["panels"]
SUFFIXES = {Counter: ["_total"], Gauge: [""], Histogram: ["_bucket", "_sum", "_count"]}


def exported():
    """Prometheus' names of each metric."""
    metrics = [value for value in vars(BatchMetrics(total=1, batch="out")).values() if isinstance(value, Metric)]
    return {m.info["name"]: {f"ray_{m.info['name']}{suffix}" for suffix in SUFFIXES[type(m)]} for m in metrics}


def expressions(panel):
    return [target["expr"] for target in panel["targets"]]


def names_in(panel):
    return {name for expression in expressions(panel) for name in re.findall(r"\bray_\w+", expression)}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_only_what_is_exported(panel):
    known = set().union(*exported().values())
    assert names_in(panel) and names_in(panel) <= known


def test_every_metric_is_shown():
    shown = set().union(*map(names_in, PANELS))
    assert [name for name, variants in exported().items() if not variants & shown] == []


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_the_chosen_batches_only(panel):
    for expression in expressions(panel):
        assert expression.count('{batch=~"$batch"}') == len(re.findall(r"\bray_\w+", expression))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_data_source_and_groups_only_by_labels_that_exist(panel):
    labels = {
        key
        for value in vars(BatchMetrics(total=1, batch="out")).values()
        if isinstance(value, Metric)
        for key in value.info["tag_keys"]
    }
    grouped = {
        label for e in expressions(panel) for group in re.findall(r"by \(([^)]*)\)", e) for label in group.split(", ")
    }
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert grouped <= labels | {"le"}


def test_every_variable_that_is_used_is_defined():
    defined = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    used = {name for panel in PANELS for e in expressions(panel) for name in re.findall(r"\$(\w+)", e)}
    assert defined["datasource"] == "datasource"
    assert used == defined.keys() - {"datasource"}


def test_panels_and_queries_have_ids_of_their_own_and_no_panel_covers_another():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(len({t["refId"] for t in panel["targets"]}) == len(panel["targets"]) for panel in PANELS)
    assert not [(a["title"], b["title"]) for a, b in combinations(PANELS, 2) if overlap(a["gridPos"], b["gridPos"])]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def overlap(a, b):
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )
