"""From a prompt file to videos, with the real command on a real local Ray."""

import json
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.utils.parametrize import is_parametrized

from caching.recipe.recipe import recipe
from cluster.ranks import RankContext
from cluster.runtime import ray_runtime
from jobs.__main__ import main
from jobs.errors import BadInput
from jobs.models.facts import read_facts
from jobs.models.wan import NEGATIVE_PROMPT
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.rank.workload import RenderWorkload
from jobs.store.faults import StorageError
from jobs.store.mp4 import probe
from parallel.layout import Layout
from tests.jobs.store.example import item, settings
from tests.jobs.tiny_hunyuan_video_15 import SIZE as SIZE_OF_15
from tests.jobs.tiny_hunyuan_video_15 import save_tiny_hunyuan_video_15
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline
from tests.jobs.tiny_wan import SIZES, save_tiny_wan

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One for all, which commands use and leave running."""
    with ray_runtime():
        yield


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


def render(prompts, out, model, *options):
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    return main(["render", str(prompts), "--out", str(out), "--model", str(model), "--steps", "8", *size, *options])


OPTIONS = ("--method", "resca", "--interval", "3", "--clusters", "8", "--fps", "8", "--save-latents")


def two_prompts(folder):
    prompts = folder / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a cat walks on grass", "id": "cat"}\n{"prompt": "grass", "seed": 5, "method": "full"}\n'
    )
    return prompts


def test_a_pipeline_of_other_sizes_renders(tiny_model, tmp_path):
    table, videos = tmp_path / "rows.json", tmp_path / "out" / "videos"
    assert render(two_prompts(tmp_path), tmp_path / "out", tiny_model, *OPTIONS, "--json", str(table)) == 0
    assert sorted(path.name for path in videos.glob("*.mp4")) == [
        "0001-grass-s5.mp4",
        "cat-a-cat-walks-on-grass-s0.mp4",
    ]
    assert not [path for path in videos.iterdir() if path.name.startswith(".")]
    facts = probe(videos / "0001-grass-s5.mp4")
    assert (facts.num_frames, facts.width, facts.height, facts.codec) == (13, 48, 32, "h264")
    check_sidecar(json.loads((videos / "cat-a-cat-walks-on-grass-s0.json").read_text()))
    assert [row["dense_steps"] for row in json.loads(table.read_text())] == [3, 8]
    in_full = json.loads((videos / "0001-grass-s5.json").read_text())
    assert (in_full["method"]["name"], in_full["sparse_steps"], in_full["flops"] / in_full["flops_full"]) == (
        "full",
        0,
        1,
    )
    latents = load_file(videos / "0001-grass-s5.safetensors")["latents"]
    assert latents.shape == (1, 16, 4, 4, 6) and torch.isfinite(latents).all()


@pytest.mark.slow
def test_a_rerun_renders_only_what_is_missing(tiny_model, tmp_path):
    prompts, out, videos = two_prompts(tmp_path), tmp_path / "out", tmp_path / "out" / "videos"
    assert render(prompts, out, tiny_model, *OPTIONS) == 0
    latents = load_file(videos / "0001-grass-s5.safetensors")["latents"]
    before = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    (videos / "0001-grass-s5.mp4").write_bytes(b"torn")
    assert render(prompts, out, tiny_model, *OPTIONS) == 0
    after = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {
        f"0001-grass-s5.{kind}" for kind in ("mp4", "webp", "json", "safetensors")
    }
    assert torch.equal(load_file(videos / "0001-grass-s5.safetensors")["latents"], latents)


def check_sidecar(sidecar):
    assert (sidecar["dense_steps"], sidecar["sparse_steps"]) == (3, 5)
    assert 3 / 8 < sidecar["flops"] / sidecar["flops_full"] < 1
    assert set(sidecar["seconds"]) == {"encode", "denoise", "decode", "write"}
    assert sidecar["method"]["tokens"]["clusters"] == 8
    assert sidecar["cut_tokens"] == 0
    assert set(sidecar["versions"]) == {"torch", "diffusers", "transformers", "xfuser", "ray"}


@pytest.mark.slow
def test_split_weights_render_the_latents_of_one_process(tiny_model, tmp_path):
    """`resca render --shard-weights --offload`."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat walks on grass\n")
    options = ["--method", "taylorseer", "--ulysses", "2", "--save-latents", "--shard-weights", "--offload"]
    assert render(prompts, tmp_path / "out", tiny_model, *options) == 0
    (path,) = (tmp_path / "out" / "videos").glob("*.safetensors")
    latents = load_file(path)["latents"]

    renderer = Renderer(load_pipeline(str(tiny_model), dtype="float32", device="cpu"))
    renderer.use(recipe("taylorseer"))
    expected = renderer.denoise(
        renderer.encode("a cat walks on grass"), Sampling(seed=0, **SIZE, steps=8, guidance=6.0)
    )
    assert (latents - expected).norm() / expected.norm() < 1e-5


def test_a_video_that_its_storage_refuses_is_kept_and_published_without_rendering_again(tiny_model, tmp_path):
    session, one, videos = session_of(tiny_model, tmp_path), item(**SIZE), tmp_path / "out" / "videos"
    denoise, rendered = session.renderer.denoise, []

    def denoise_and_lose_the_storage(*args):
        rendered.append(denoise(*args))
        videos.rename(tmp_path / "elsewhere")
        videos.symlink_to("/proc/tty")
        return rendered[-1]

    session.renderer.denoise = denoise_and_lose_the_storage
    for attempt in (1, 2):
        with pytest.raises(StorageError, match="cannot be written"):
            session.run(one, attempt)
    with pytest.raises(StorageError, match="cannot be written"):
        session.run(item(id="other", **SIZE), 1)
    videos.unlink()
    (tmp_path / "elsewhere").rename(videos)
    sidecar = session.run(one, 3)
    assert len(rendered) == 1 and not list((tmp_path / "out" / "attempts").iterdir())
    assert sidecar == json.loads((tmp_path / "out" / one.sidecar).read_text())
    assert (sidecar["dense_steps"], sidecar["seconds"]["denoise"] > 0) == (4, True)
    assert probe(tmp_path / "out" / f"{one.name}.mp4").num_frames == SIZE["num_frames"]
    assert '"kept"' in (tmp_path / "out" / "logs" / "0000.3.jsonl").read_text()


def test_an_attention_kernel_that_does_not_work_here_is_named_before_the_model_is_read(tmp_path):
    batch = settings(tmp_path, model="nowhere", attention="cudnn")
    workload = RenderWorkload(settings=batch, prompt_template=None, layout=Layout())
    with pytest.raises(BadInput, match="--attention cudnn: cudnn attention does not work on cpu in float32"):
        workload(RankContext(rank=0, world_size=1, local_rank=0, device="cpu"))


def test_an_attention_kernel_that_was_named_stands_in_the_sidecar(tiny_model, tmp_path):
    session = session_of(tiny_model, tmp_path, attention="math")
    assert session.group.attention.kernels.kernel(torch.zeros(1)) == "math"
    assert session.run(item(**SIZE), 1)["attention"] == "math"


def test_weights_in_8_bits_are_loaded_and_stand_in_the_sidecar(tiny_model, tmp_path):
    session = session_of(tiny_model, tmp_path, weights="fp8")
    kept = [part for part in session.renderer.pipeline.transformer.modules() if is_parametrized(part, "weight")]
    assert kept and session.run(item(**SIZE), 1)["weights"] == "fp8"


def test_each_video_is_sampled_by_its_own_method(tiny_model, tmp_path):
    """The recipe is changed for the second and back for the third; the last two are of one."""
    methods = {name: recipe(name, interval=3) for name in ("auto", "fora")}
    session = session_of(tiny_model, tmp_path, methods=methods, save_latents=True)
    names = [None, "auto", None, "fora", "fora"]
    items = [item(id=str(number), steps=8, method=name, **SIZE) for number, name in enumerate(names)]
    runs = [(session.run(one, 1), session.engine) for one in items]
    sidecars, engines = zip(*runs, strict=True)
    assert engines[3] is engines[4] and len(set(engines)) == 4
    assert [each["method"]["name"] for each in sidecars] == ["full", "auto", "full", "fora", "fora"]
    assert [each["dense_steps"] for each in sidecars] == [8, 3, 8, 3, 3] and session.engine.recipe == methods["fora"]
    whole, auto, again, fora, twice = (load_file(tmp_path / "out" / one.latents)["latents"] for one in items)
    assert torch.equal(whole, again) and torch.equal(fora, twice)
    alone = session_of(tiny_model, tmp_path / "alone", method=methods["auto"], save_latents=True)
    alone.run(item(steps=8, **SIZE), 1)
    assert torch.equal(load_file(tmp_path / "alone" / "out" / item().latents)["latents"], auto)
    assert not torch.equal(whole, auto) and not torch.equal(auto, fora)


def test_a_session_that_takes_up_another_batch_renders_what_a_new_one_would(tiny_model, tmp_path):
    """Its method, its output and all else that it asks for; nothing is loaded again."""
    asked = {"method": recipe("taylorseer", interval=3), "fps": 4, "save_latents": True}
    one, alone = item(steps=8, **SIZE), session_of(tiny_model, tmp_path / "alone", **asked)
    session = session_of(tiny_model, tmp_path / "first", method=recipe("resca", interval=3, clusters=8))
    session.run(one, 1)
    pipeline, transformer = session.renderer.pipeline, session.renderer.pipeline.transformer
    session.take_up(workload_of(tiny_model, tmp_path / "second", **asked))
    sidecars = session.run(one, 1), alone.run(one, 1)
    assert session.renderer.pipeline is pipeline and pipeline.transformer is transformer
    assert len({sidecar["sha256"] for sidecar in sidecars}) == len({each["fingerprint"] for each in sidecars}) == 1
    of_second, of_alone = (load_file(tmp_path / name / "out" / one.latents) for name in ("second", "alone"))
    assert torch.equal(of_second["latents"], of_alone["latents"])
    assert not (tmp_path / "first" / "out" / one.latents).exists()


def workload_of(model, folder, **changes):
    batch = settings(folder / "out", model=str(model), revision=read_facts(str(model)).revision, **changes)
    return RenderWorkload(settings=batch, prompt_template=None, layout=Layout())


def session_of(model, folder, **changes):
    """On one rank, without Ray."""
    workload = workload_of(model, folder, **changes)
    return workload(RankContext(rank=0, world_size=1, local_rank=0, device="cpu"))


OF_ITS_OWN = {"guidance": 2, "negative_prompt": "blurry"}


def render_twice(folder, model, size, *options):
    """`resca render` of two prompts, one guided in its own way, and again with nothing left to do; gives sidecars."""
    prompts, videos, (height, width, frames) = folder / "prompts.jsonl", folder / "out" / "videos", size.values()
    prompts.write_text(f'{{"prompt": "a cat walks on grass"}}\n{json.dumps({"prompt": "grass", **OF_ITS_OWN})}\n')
    asked = ["--steps", "9", "--height", height, "--width", width, "--num-frames", frames, "--checkpoint-every", "1"]
    asked += ["--method", "taylorseer", "--interval", "3", "--offload", *options]
    command = ["render", str(prompts), "--out", str(folder / "out"), "--model", str(model), *map(str, asked)]
    assert main(command) == 0
    facts = probe(videos / "0001-grass-s1.mp4")
    assert (facts.num_frames, facts.width, facts.height, facts.codec) == (frames, width, height, "h264")
    before = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    assert main(command) == 0
    assert {path.name: path.stat().st_mtime_ns for path in videos.iterdir()} == before
    first, second = (json.loads(path.read_text()) for path in sorted(videos.glob("*.json")))
    assert {name: second[name] for name in OF_ITS_OWN} == OF_ITS_OWN
    assert first["dense_steps"] / 9 <= first["flops"] / first["flops_full"] < 0.6
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "degree"),
    [("2.1", "--ulysses=1"), ("2.2", "--ulysses=2"), ("2.2", "--cfg=2"), ("ti2v", "--ulysses=1"), ("ti2v", "--cfg=2")],
)
def test_wan_renders(tmp_path, kind, degree):
    first, _ = render_twice(tmp_path, save_tiny_wan(tmp_path / "model", kind), SIZES[kind], degree)
    assert (first["guidance"], first["negative_prompt"]) == (4 if kind == "2.2" else 5, NEGATIVE_PROMPT)
    assert first["guidance_2"] == (3 if kind == "2.2" else None)
    assert first["dense_steps"] == (4 if kind == "2.2" else 3)  # that in which the second transformer takes over, too


@pytest.mark.slow
@pytest.mark.parametrize("degree", ["--ulysses=1", "--ulysses=2", "--cfg=2"])
def test_hunyuan_video_15_renders(tmp_path, degree):
    model = save_tiny_hunyuan_video_15(tmp_path / "model")
    first, _ = render_twice(tmp_path, model, SIZE_OF_15, degree)
    assert (first["guidance"], first["negative_prompt"], first["dense_steps"]) == (6, None, 3)


def test_guidance_for_a_model_without_guidance_embedding_is_bad_input(tmp_path, capsys):
    from jobs.demo import PROMPTS_FILE

    assert main(["render", str(PROMPTS_FILE), "--out", str(tmp_path / "out"), "--guidance", "3"]) == 2
    assert "guidance" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
