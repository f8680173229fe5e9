"""`resca benchmark`, for real, on a tiny pipeline."""

import json
import signal
from dataclasses import replace

import imageio.v3 as imageio
import pytest
import torch

from caching.recipe.recipe import RECIPES
from jobs.__main__ import main
from jobs.measure.benchmark import read_benchmark
from jobs.measure.contest import Contest
from jobs.measure.contestants import PeerContestant
from jobs.measure.peers import PEERS, Peer
from jobs.models.hunyuan_video import HunyuanVideo
from jobs.models.wan import Wan
from jobs.options.command_line import parse
from jobs.rank.renderer import Renderer, Sampling
from tests.jobs import tiny_wan
from tests.jobs.tiny_images import save_tiny_image_model
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline, save_tiny_pipeline
from tests.jobs.tiny_wan import build_tiny_wan

pytestmark = pytest.mark.timeout(300)
# On random weights: one never finds two steps alike, and the other takes 13 steps of its own.
NEVER_SKIPS = {"diffusers-first-block", "unipc-13", "dpm-solver++-13"}
SAMPLING = Sampling(seed=3, steps=12, guidance=6.0, **SIZE)


@pytest.fixture(scope="module")
def renderer():
    return Renderer(build_tiny_pipeline())


@pytest.fixture(scope="module")
def prompt(renderer):
    return renderer.encode("a cat walks on grass")


@pytest.mark.slow
def test_rows_of_methods_and_peers(tmp_path):
    model, table = save_tiny_pipeline(tmp_path / "model"), tmp_path / "rows.json"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = ["--model", str(model), "--prompts", str(prompts), "--num", "2", "--steps", "12", *size]
    arguments += ["--peers", "--attention", "math", "--weights", "fp8"]
    assert main(["benchmark", "--methods", "full,resca", *arguments, "--json", str(table)]) == 0
    rows = {row["method"]: row for row in json.loads(table.read_text())}
    ours = {"full", "resca", "full, math attention", "full, fp8 weights", "resca, fp8 weights"}
    assert set(rows) == ours | {peer.name for peer in PEERS if peer.available and peer.fits(HunyuanVideo())}
    assert rows["full"]["psnr_db"] is None and rows["full"]["flops_ratio"] == 1
    assert (rows["resca"]["dense_steps"], rows["resca"]["sparse_steps"]) == (2, 10)
    assert rows["full, math attention"]["psnr_db"] > 60 > rows["full, fp8 weights"]["psnr_db"] > 20
    assert rows["unipc-9"]["flops_ratio"] == pytest.approx(12 / 9, rel=0.02)
    assert all(row["num"] == 2 and row["seconds"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("methods", "steps"), [("full,toca,steps", 4), pytest.param("all", 12, marks=pytest.mark.slow)]
)
def test_rows_of_a_model_of_images(methods, steps, tmp_path, capsys):
    """The demo's: classes are its prompts, which the oracle judges by one frame; solvers are rivals of epsilon, too."""
    peers = ["unipc-9", "dpm-solver++-9"]
    asked = ["--model", "demo-dit", "--methods", methods, "--num", "1", "--only-peers", ",".join(peers)]
    assert main(["benchmark", *asked, "--steps", str(steps), "--report", str(tmp_path / "report")]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "report" / "rows.json").read_text())}
    of_images = [name for name, method in RECIPES.items() if not method.needs_cross_attention]
    assert list(rows) == [*(of_images if methods == "all" else methods.split(",")), *peers]
    assert rows["toca"]["flops_ratio"] > 1.2 and rows["full"]["psnr_db"] is None
    assert all(row["psnr_db"] > 5 for name, row in rows.items() if name != "full")
    assert all(row["oracle"] in (0, 1) for row in rows.values())
    assert ("without t-gate" in capsys.readouterr().out) is (methods == "all")
    assert imageio.imread(tmp_path / "report" / "frames-0.png").shape[1:] == (64, 3)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--model demo-dit --prompts {prompts}", "line 1: 'a cat' is no class of this model"),
        ("--model {latte} --methods full,resca", "method resca lets each token attend to all others"),
        ("--model {latte} --methods full,magic", "unknown method 'magic'"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_anything_is_loaded(line, why, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    latte = save_tiny_image_model(tmp_path / "latte", "latte")
    given = line.format(prompts=tmp_path / "prompts.txt", latte=latte).split()
    assert main(["benchmark", "--num", "1", *given]) == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_all_leaves_out_what_tokens_in_space_and_time_have_not(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    options = parse(["benchmark", "--methods", "all", "--num", "1", "--prompts", str(tmp_path / "prompts.txt")])
    model = str(save_tiny_image_model(tmp_path / "latte", "latte"))
    asked = read_benchmark(replace(options, model=model))
    assert {"resca", "tomesd", "chipmunk"} <= set(asked.left_out)
    assert "t-gate" in {method.name for method in asked.methods}


@pytest.fixture
def hears_interrupts():
    """Shells start background jobs deaf to SIGINT, and what they start inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupted_run_reports_the_videos_it_has_finished(tmp_path, monkeypatch, capsys):
    model, prompts = save_tiny_pipeline(tmp_path / "model"), tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    whole = Contest.play

    def play(contest, tally, item, *rest):
        frames = whole(contest, tally, item, *rest)
        if item.seed >= 1000 and tally.is_full:  # the second video, half done
            signal.raise_signal(signal.SIGINT)
        return frames

    monkeypatch.setattr(Contest, "play", play)
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = ["--model", str(model), "--prompts", str(prompts), "--num", "3", "--steps", "4", *size]
    arguments += ["--weights", "fp8", "--report", str(tmp_path / "report")]
    assert main(["benchmark", "--methods", "full,fora", *arguments]) == 130
    assert "1 of 3 videos" in capsys.readouterr().out
    rows = json.loads((tmp_path / "report" / "rows.json").read_text())
    names = ["full", "fora", "full, fp8 weights", "fora, fp8 weights"]
    assert [(row["method"], row["num"]) for row in rows] == [(name, 1) for name in names]
    assert rows[2]["psnr_db"] < 100 and rows[0]["psnr_db"] is None


@pytest.mark.parametrize("kind", ["2.1", pytest.param("2.2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.available], ids=lambda peer: peer.name)
def test_a_peer_leaves_a_guided_pipeline_as_it_was(peer, kind):
    """With two passes a step, of one transformer and of two that take turns."""
    if not peer.fits(Wan(), 2 if kind == "2.2" else 1):
        pytest.skip(f"{peer.name} is not for such models")
    guided = Renderer(build_tiny_wan(kind))
    prompt, sampling = guided.encode("a cat walks", ""), Sampling(seed=3, steps=12, guidance=5.0, **tiny_wan.SIZE)
    full = guided.denoise_without_engine(prompt, sampling, sampling.steps)
    run = PeerContestant(peer).run(guided, prompt, sampling)
    assert run.latents.isfinite().all() and (run.flops < run.flops_full or peer.name in NEVER_SKIPS)
    assert torch.equal(guided.denoise_without_engine(prompt, sampling, sampling.steps), full)


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.fits(HunyuanVideo())], ids=lambda peer: peer.name)
def test_a_peer_leaves_the_pipeline_as_it_was(renderer, prompt, peer):
    if not peer.available:
        pytest.skip(f"{peer.needs} is not installed")

    def plain():
        renderer.release()
        return renderer.denoise_without_engine(prompt, SAMPLING, SAMPLING.steps)

    before = plain()
    assert PeerContestant(peer).run(renderer, prompt, SAMPLING).latents.isfinite().all()
    assert torch.equal(plain(), before)


def test_flops_of_a_peer_that_does_nothing_are_those_of_full_sampling(renderer, prompt):
    run = PeerContestant(Peer(name="nothing", attach=lambda pipeline, steps: lambda: None)).run(
        renderer, prompt, SAMPLING
    )
    assert run.flops == pytest.approx(run.flops_full, rel=0.01)


def test_a_peer_that_there_is_not_is_refused_before_anything_is_loaded(capsys):
    assert main(["benchmark", "--methods", "full", "--num", "1", "--only-peers", "unipc-9,unipc-8"]) == 2
    assert "no peer is called 'unipc-8'; there are unipc-9" in capsys.readouterr().err
