"""The demo model's data and its oracle."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from caching.recipe.recipe import recipe
from jobs.demo.items import write_prompts
from jobs.demo.losses import epsilon_and_variance
from jobs.demo.oracle import look
from jobs.demo.scenes import (
    BACKGROUNDS,
    CLASSES,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    Scene,
    all_scenes,
    draw,
    sample_scenes,
    scene_of,
)
from jobs.demo.train import Training, main
from jobs.demo.train_transformer import Course, Dataset
from jobs.demo.trainee import Changes
from jobs.models.demos import DEMOS
from jobs.models.facts import read_facts
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.request.guidance import sampling_by_default
from jobs.request.prompts import Defaults, read_items


def test_the_oracle_sees_what_is_drawn():
    for number, scene in enumerate(sample_scenes(24, 5, held_out=True)):
        seen = look(draw(scene, number, num_frames=9))
        assert seen.matches(scene), (scene, seen)


def test_the_oracle_sees_through_noise():
    for number, scene in enumerate(sample_scenes(8, 6, held_out=False)):
        video = draw(scene, number, num_frames=9)
        noisy = video + 0.05 * torch.randn(video.shape, generator=torch.Generator().manual_seed(number))
        assert look(noisy.clamp(0, 1)).matches(scene)


def test_the_oracle_sees_what_moves_before_a_panning_background():
    for number, scene in enumerate(sample_scenes(24, 7, held_out=True)):
        assert look(draw(scene, number, num_frames=9, panning=True)).matches(scene), scene


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_panning_moves_the_background_alone_and_not_a_plain_one(background):
    scene = Scene(shape="circle", colour="red", direction="left", size="small", background=background)
    still, panned = (draw(scene, 0, num_frames=9, panning=panning) for panning in (False, True))
    assert torch.equal(still[0], panned[0])
    changed = (still != panned).any(-1)[-1]
    shape = (still[-1] == torch.tensor(COLOURS["red"])).all(-1)
    assert shape.any() and not changed[shape].any()
    assert changed.any() == (background != "plain")


def test_the_oracle_is_not_fooled():
    scene = Scene(shape="circle", colour="red", direction="left", size="large", background="plain")
    video = draw(scene, 0, num_frames=9)
    assert look(video.flip(0)).direction == "right"
    assert look(video[:1].repeat(9, 1, 1, 1)).direction is None
    assert look(video.flip(-1)).colour == "blue"
    assert look(torch.full((9, 128, 128, 3), 0.3)).shape is None


def test_one_triple_in_five_is_held_out_and_every_pair_is_still_seen():
    triples = {(scene.shape, scene.colour, scene.direction): scene.held_out for scene in all_scenes()}
    assert len(triples) == 4 * 8 * 4
    assert 0.15 < sum(triples.values()) / len(triples) < 0.25
    seen = [triple for triple, held_out in triples.items() if not held_out]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        pairs = Counter((triple[first], triple[second]) for triple in seen)
        assert len(pairs) == len({t[first] for t in seen}) * len({t[second] for t in seen})


def test_captions_name_their_scene():
    scenes = all_scenes()
    assert len(scenes) == len(SHAPES) * len(COLOURS) * len(DIRECTIONS) * len(SIZES) * len(BACKGROUNDS)
    assert len({scene.caption for scene in scenes}) == len(scenes)
    assert all(scene_of(scene.caption) == scene for scene in scenes[::37])
    assert scene_of("a cat walks on grass") is None


@pytest.mark.parametrize("scene", all_scenes()[::97])
def test_a_shape_stays_inside_the_frame(scene):
    video = draw(scene, 3, num_frames=9)
    colour = torch.tensor(COLOURS[scene.colour])
    painted = ((video - colour).abs().amax(-1) < 0.02).flatten(1).sum(1)
    assert painted.min() > 0.8 * painted.max()


@pytest.mark.parametrize(("model", "most_bytes"), [("demo", 40e6), ("demo-wan", 15e6), ("demo-dit", 10e6)])
def test_a_shipped_model_fits_in_a_repository(model, most_bytes):
    files = [path for path in DEMOS[model].rglob("*") if path.is_file()]
    assert files
    assert sum(path.stat().st_size for path in files) <= most_bytes
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".yaml"}


def test_a_part_of_the_captions_is_dropped():
    """Without it there would be nothing to guide away from."""
    text, nothing = torch.ones(3, 2, 4), torch.zeros(1, 2, 4)
    data = Dataset(
        latents=torch.zeros(3, 1, 2, 1, 1),
        caption_of=torch.arange(3),
        text=(text,),
        still_text=(2 * text,),
        no_text=(nothing,),
        caption_drop=0.25,
    )
    generator = torch.Generator().manual_seed(0)
    for draw_some, said in ((data.videos, 1), (data.stills, 2)):
        seen = draw_some(4000, generator)[1][:, 0, 0]
        assert set(seen.tolist()) == {0, said}
        assert (seen == 0).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("model", DEMOS)
def test_an_unchanged_design_is_that_of_the_shipped_files(model):
    trainee = Training(model=model).trainee
    with torch.device("meta"):
        built = json.loads(trainee.build_transformer().to_json_string())
    of_versions = ("_diffusers_version", "_name_or_path")
    shipped = json.loads((DEMOS[model] / "transformer" / "config.json").read_text())
    assert {name: built[name] for name in shipped if name not in of_versions}.items() <= shipped.items()
    scheduler = json.loads((DEMOS[model] / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler.get("flow_shift", scheduler.get("shift", 1.0)) == trainee.design.shift
    assert trainee.defaults == read_facts(model).defaults


@pytest.mark.parametrize(("model", "blocks"), [("demo", (1, 3)), ("demo-wan", (3,)), ("demo-dit", (3,))])
def test_a_design_is_changed_where_it_is_said(model, blocks):
    num_frames = 1 if model == "demo-dit" else 17
    changes = Changes(heads=2, head_width=32, blocks=blocks, shift=3.0, side=96, num_frames=num_frames)
    trainee = Training(model=model, design=changes).trainee
    with torch.device("meta"):
        config = trainee.build_transformer().config
    assert (config["num_attention_heads"], config["attention_head_dim"]) == (2, 32)
    assert [config[name] for name in ("num_layers", "num_single_layers") if name in config] == list(blocks)
    assert (trainee.defaults.height, trainee.defaults.width, trainee.defaults.num_frames) == (96, 96, num_frames)
    assert trainee.design.shift == 3.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (Changes(side=100), "side 100"),
        (Changes(num_frames=16), "num_frames 16"),
        (Changes(head_width=33), "head_width 33"),
        (Changes(blocks=(6,)), "2 kinds"),
    ],
)
def test_a_design_that_does_not_fit_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        _ = Training(design=changes).trainee


def test_a_model_of_images_makes_no_videos():
    with pytest.raises(ValueError, match="num_frames 9 must be 1"):
        _ = Training(model="demo-dit", design=Changes(num_frames=9)).trainee


def test_a_true_epsilon_with_the_variance_of_the_posterior_costs_nothing():
    """The bound teaches the variance alone: an epsilon that is off is told so by its own error."""
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    signal, level = DDIMScheduler().alphas_cumprod, torch.tensor([0.001, 0.3, 0.6, 0.999])

    def loss(epsilon, part):
        return epsilon_and_variance(lambda *_: torch.cat([epsilon, part], 1), clean, noise, level, signal)

    least = torch.full_like(noise, -1.0)
    assert loss(noise, least) == pytest.approx(0, abs=1e-6)
    assert loss(noise, -least) > 0
    off, part = (noise + 0.1).requires_grad_(), least.clone().requires_grad_()
    loss(off, part).backward()
    assert torch.allclose(off.grad, 2 * 0.1 / noise.numel() * torch.ones_like(noise), rtol=1e-3)
    assert (part.grad < 0).all(), "a mean that is off asks for a greater variance"


def test_the_oracle_sees_the_class_of_a_single_image():
    scenes = {f"{scene.colour} {scene.shape}": scene for scene in all_scenes()}
    assert set(scenes) == set(CLASSES)
    for number, (name, scene) in enumerate(scenes.items()):
        seen = look(draw(scene, number, num_frames=1, height=64, width=64))
        assert seen.is_of(name), (name, seen)
        assert not seen.is_of("red circle" if name != "red circle" else "red cross")
    assert seen.is_of("a cat walks on grass") is None


@pytest.mark.parametrize(
    ("name", "seed", "num_seen", "number"), [("calibration", 500_000, 16, 112), ("unseen", 700_000, 0, 64)]
)
def test_written_prompts_are_of_training_only_where_weights_are_fitted_to_them(name, seed, num_seen, number, tmp_path):
    write_prompts(tmp_path / "model")
    defaults = Defaults(height=96, width=96, num_frames=25, steps=50)
    items = read_items(tmp_path / f"model-{name}.jsonl", defaults)
    held_out = {scene.caption for scene in all_scenes() if scene.held_out}
    assert [item.seed for item in items] == list(range(seed, seed + number))
    assert [item.prompt in held_out for item in items] == [index >= num_seen for index in range(number)]


def test_each_class_has_its_turn_among_written_prompts(tmp_path):
    write_prompts(tmp_path / "model", classes=True)
    lines = (tmp_path / "model-unseen.jsonl").read_text().splitlines()
    assert Counter(json.loads(line)["prompt"] for line in lines) == dict.fromkeys(CLASSES, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", DEMOS)
def test_training_goes_on_from_the_shipped_weights(model, tmp_path):
    """A few steps on a few videos, with the shipped VAE; the result is a pipeline that samples."""
    shutil.copytree(DEMOS[model] / "vae", tmp_path / "work" / "vae")
    course = Course(steps=4, batch=2, still_batch=4, still_part=0.5, videos_among_stills=0.5)
    given = {"out": tmp_path / "out", "work": tmp_path / "work", "start": DEMOS[model]}
    main(Training(model=model, videos=4, course=course, **given))
    report = json.loads((tmp_path / "work" / "training.json").read_text())
    assert 0 < report["final_loss"] < 1
    facts = read_facts(str(tmp_path / "out"))
    assert facts.defaults == read_facts(model).defaults
    renderer = Renderer(
        load_pipeline(facts.source, dtype="float32", device="cpu"), template=facts.defaults.prompt_template
    )
    renderer.use(recipe("full"))
    one_frame = model == "demo-dit"
    sampling = Sampling(seed=0, height=64, width=64, num_frames=1 if one_frame else 9, steps=2, guidance=1.0)
    prompt = renderer.encode(CLASSES[0] if one_frame else all_scenes()[0].caption)
    assert renderer.denoise(prompt, sampling).isfinite().all()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "blocks"), [("demo", (1, 1)), ("demo-wan", (1,))])
def test_another_model_is_trained_on_a_shipped_vae(model, blocks, tmp_path):
    """A few steps; what comes of it is rendered by its own defaults, and measured on its own prompts."""
    design = Changes(heads=2, head_width=32, blocks=blocks, shift=3.0, side=64, num_frames=9)
    course = Course(steps=4, batch=2, still_batch=4, still_part=0.5, videos_among_stills=0.5)
    given = {"out": tmp_path / "out", "work": tmp_path / "work", "vae": DEMOS[model]}
    main(Training(model=model, videos=4, panning=True, seed=1, design=design, course=course, **given))
    assert not (tmp_path / "work" / "vae").exists()
    facts = read_facts(str(tmp_path / "out"))
    assert (facts.heads, facts.width) == (2, 64)
    assert facts.num_tokens(facts.defaults.height, facts.defaults.width, facts.defaults.num_frames) == 3 * 4 * 4
    pipeline = load_pipeline(facts.source, dtype="float32", device="cpu")
    assert 3.0 in (pipeline.scheduler.config.get("shift"), pipeline.scheduler.config.get("flow_shift"))
    renderer = Renderer(pipeline, template=facts.defaults.prompt_template)
    renderer.use(recipe("full"))
    sampling = replace(sampling_by_default(facts), steps=2)
    item, *_ = read_items(tmp_path / "out-unseen.jsonl", Defaults(height=64, width=64, num_frames=9, steps=2))
    prompt = renderer.encode(item.prompt, facts.family.negative_prompt(sampling))
    assert renderer.decode(renderer.denoise(prompt, sampling)).shape == (9, 64, 64, 3)
