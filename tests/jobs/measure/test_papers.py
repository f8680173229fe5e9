"""The tables of the papers: what is counted for each figure, and the page that shows it."""

import json
from io import StringIO

import pytest
from rich.console import Console

from caching.recipe.recipe import RECIPES, recipe
from jobs.__main__ import main
from jobs.measure.full_size import FULL_SIZE
from jobs.measure.papers.count import Counted, count_table
from jobs.measure.papers.page import described, row, summary, write_tables
from jobs.measure.papers.registry import TABLES
from jobs.measure.papers.tables import Figure, Table, every, fewer, selected

JUDGED = [table for table in TABLES if table.unit != "latency"]
SMALL = Table(
    paper="a paper",
    number="Table <1>",
    model="dit",
    figures=(
        Figure(label="DDIM-50 steps", value=23.74, stated=RECIPES["full"]),
        fewer("half", 11.87, 25),
        Figure(label="<b>", value=20.0, stated=RECIPES["full"], reason="a < b"),
    ),
)


def counted(table: Table) -> list[Counted]:
    return count_table(table, Console(file=StringIO()))


@pytest.mark.slow
@pytest.mark.parametrize("table", JUDGED, ids=lambda table: f"{table.paper} {table.number}")
def test_each_figure_is_met_or_the_reason_stands_beside_it(table):
    for each in counted(table):
        assert each.meets is not False or each.figure.reason, row(table, each)


@pytest.mark.slow
def test_merging_saves_less_than_resca():
    """As in ResCa's Table S3, which has seconds."""
    [table] = [table for table in TABLES if table.number == "Table S3"]
    full, *others = [each.best for each in counted(table)]
    assert full == pytest.approx(1.0) and None not in others
    assert others[-1] == max(others)


def test_full_sampling_of_dit_is_the_papers_figure_and_fewer_steps_are_too():
    assert [each.meets for each in counted(SMALL)] == [True, True, False]


def test_a_setting_that_is_not_named_is_found_beside_one_that_is():
    figure = Figure(label="x", value=100.0)
    both = Counted(figure=figure, stated=80.0, found=101.0)
    assert both.best == 101.0 and both.meets and both.deviation(both.stated) == pytest.approx(-0.2)
    assert Counted(figure=figure, stated=80.0, found=None).meets is False
    assert Counted(figure=Figure(label="x"), stated=80.0, found=None).meets is None


def test_a_ratio_is_of_full_sampling_over_the_method():
    by_ratio = Table(paper="p", number="n", model="dit", unit="ratio", figures=(fewer("half", 2.0, 25),))
    [half] = counted(by_ratio)
    assert half.stated == pytest.approx(2.0) and half.meets


def test_a_setting_in_words():
    assert described(every("toca", 4, first=3)) == "toca, N = 4, first 3 dense, R = 90%"
    assert described(selected(3, first=1, turns="even")) == "duca, N = 3, R = 90%, tokens in even steps"
    assert described(recipe("resca", interval=7, clusters=16)) == "resca, N = 7, O = 1, K = 16"
    assert described(RECIPES["full"], 25) == "full, 25 steps"
    assert described(None) == ""


def test_the_page_has_every_row_and_executes_nothing(tmp_path):
    tables = [(SMALL, counted(SMALL))]
    write_tables(tmp_path, tables, {"command": "a < b"})
    page = (tmp_path / "index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page and "Table &lt;1&gt;" in page
    assert page.count("class=near") == 2 and page.count("class=far") == 1
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [each["label"] for each in rows] == ["DDIM-50 steps", "half", "<b>"]
    assert rows[0]["published"] == 23.74 and abs(rows[0]["deviation"]) < 0.001
    assert (tmp_path / "rows.csv").read_text().count("\n") == 4
    assert summary(tables) == "2 of 3 published figures are met within 3%; 1 are not, 0 of them without a reason"


def test_every_setting_can_be_asked_of_its_model():
    for table in TABLES:
        size = FULL_SIZE[table.model]
        for figure in table.figures:
            assert figure.stated or figure.found, figure.label
            for method in (figure.stated, figure.found):
                assert method is None or size.cross_attention or not method.needs_cross_attention


def test_a_report_is_of_the_papers(tmp_path, capsys):
    assert main(["flops", "--report", str(tmp_path / "r")]) == 2
    assert "give --all-papers, too" in capsys.readouterr().err
