"""`resca analyze`, for real: the plots and tables of a tiny pipeline, and what must hold of them."""

import csv

import imageio.v3 as imageio
import pytest
import torch

from caching.recipe.tokens import SCORES
from jobs.__main__ import main
from jobs.errors import BAD_INPUT
from jobs.measure.analysis import clusters, scale
from jobs.measure.analysis.clusters import distances_within
from jobs.measure.analysis.study import residuals
from jobs.measure.analysis.trajectories import project
from tests.jobs.tiny_images import save_tiny_image_model
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline

pytestmark = pytest.mark.timeout(300)
NAMES = ("residuals", "trajectories", "errors", "latency", "stability")


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """All analyses but the ablations, whose clusters are too many for so few tokens."""
    directory = tmp_path_factory.mktemp("analysis")
    model = save_tiny_pipeline(directory / "model")
    (directory / "prompts.txt").write_text("a cat walks on grass\ngrass\n")
    larger = {**SIZE, "width": 64}
    size = [str(word) for name, value in larger.items() for word in (f"--{name.replace('_', '-')}", value)]
    given = ["--out", directory / "out", "--prompts", directory / "prompts.txt", "--model", model]
    assert main(["analyze", *map(str, given), "--only", ",".join(NAMES), "--steps", "20", *size]) == 0
    return directory / "out"


@pytest.mark.parametrize("name", NAMES)
def test_each_gives_a_plot_and_a_table(analysis, name):
    assert imageio.imread(analysis / f"{name}.png").std() > 5
    assert len(table(analysis / f"{name}.csv")) >= 5


def test_clusters_hold_residuals_that_are_more_alike(analysis):
    rows = {(row["clustering"], row["order"]): float(row["mean"]) for row in table(analysis / "residuals.csv")}
    assert rows["none", "1"] == pytest.approx(1)
    assert rows["trajectory", "1"] < 1
    assert rows["features", "0"] < 1


def test_errors_begin_with_the_first_sparse_step(analysis):
    for row in table(analysis / "errors.csv"):
        assert (float(row["error"]) == 0) is (int(row["step"]) <= 1)


def test_tokens_of_an_image_are_chosen_by_each_end_of_each_score(tmp_path, monkeypatch):
    """Both passes of its model are one batch, so that each step is seen once."""
    monkeypatch.setattr(clusters, "NUM_CLUSTERS", 4)  # of 16 tokens
    (tmp_path / "prompts.txt").write_text("cock\nTinca tinca\n")
    model = save_tiny_image_model(tmp_path / "model", "dit")
    given = ["--model", model, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out", "--steps", 14]
    assert main(["analyze", *map(str, given), "--only", "scores,residuals"]) == 0
    rows = table(tmp_path / "out" / "scores.csv")
    ends = [(row["score"], row["extreme"]) for row in rows]
    assert ends == [(score, end) for score in SCORES for end in ("max", "min") if (score, end) != ("random", "min")]
    assert float(rows[0]["gain_db"]) == 0
    assert len({row["psnr_db"] for row in rows}) > 5, "they choose different tokens"
    assert imageio.imread(tmp_path / "out" / "scores.png").std() > 5
    pairs = {int(row["pairs"]) for row in table(tmp_path / "out" / "residuals.csv") if row["clustering"] == "none"}
    assert pairs == {2 * 16 * 15 // 2}, "of two prompts, one step each"


def test_clustering_is_measured_by_the_number_of_tokens(monkeypatch):
    monkeypatch.setattr(scale, "LARGEST", 4096)
    monkeypatch.setattr(scale, "WIDTH", 64)
    rows = scale.analyse().rows
    assert [row["tokens"] for row in rows] == [512, 1024, 2048, 4096]
    assert all(row["seconds"] > 0 for row in rows)
    assert scale.fit_exponent([(1, 3), (2, 12), (4, 48)]) == pytest.approx(2)


def test_the_implicit_update_never_amplifies(analysis):
    for row in table(analysis / "stability.csv"):
        z = float(row["z"])
        assert float(row["explicit"]) == pytest.approx(1 + z)
        assert float(row["implicit"]) == pytest.approx(1 / (1 - z))


def test_the_parts_of_the_latency_are_all_there(analysis):
    assert all(float(row["seconds"]) > 0 for row in table(analysis / "latency.csv"))


def test_residuals_of_an_order_vanish_for_polynomials_below_it():
    times = torch.arange(6.0)[:, None, None]
    assert residuals(times**2, 3).abs().max() == 0
    assert residuals(times**2, 2).unique().tolist() == [2]


def test_distances_are_those_of_pairs_of_one_cluster():
    values = torch.tensor([[0.0], [1.0], [5.0], [7.0]])
    assert sorted(distances_within(values, torch.tensor([0, 0, 1, 1])).tolist()) == [1, 2]


def test_a_plane_keeps_all_of_its_variance():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(10, 3, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    coordinates, kept = project(plane)
    assert coordinates.shape == (10, 3, 3)
    assert kept == pytest.approx(1, abs=1e-4)


def test_an_unknown_analysis_is_one_sentence(capsys):
    assert main(["analyze", "--only", "magic"]) == BAD_INPUT
    assert "unknown analysis 'magic'; known: residuals" in capsys.readouterr().err
