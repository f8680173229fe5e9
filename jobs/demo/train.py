"""Train a demo model from nothing and save it as a diffusers pipeline.

python -m jobs.demo.train --model demo-wan --out out/demo-wan

Others than the shipped ones, on a shipped VAE:
python -m jobs.demo.train --vae jobs/demo/model --design.heads 3 --design.blocks 2 4 --design.side 96 --out out/other
"""

import json
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from diffusers import DiffusionPipeline, ModelMixin

from jobs.demo.dit import DiTDemo
from jobs.demo.hunyuan_video import HunyuanVideoDemo
from jobs.demo.items import write_prompts
from jobs.demo.scenes import Scene, sample_scenes, scene_of, vocabulary
from jobs.demo.train_transformer import Course, Dataset, encode_videos, train_transformer
from jobs.demo.train_vae import train_vae
from jobs.demo.trainee import AnyVae, Changes, Trainee
from jobs.demo.wan import WanDemo
from jobs.models.family import GenerationDefaults

TRAINEES: dict[str, HunyuanVideoDemo | WanDemo | DiTDemo] = {
    "demo": HunyuanVideoDemo(),
    "demo-wan": WanDemo(),
    "demo-dit": DiTDemo(),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the shipped weights were trained with, and what other models differ in."""

    model: Literal["demo", "demo-wan", "demo-dit"] = "demo"
    """Which of the three."""
    out: Path | None = None
    """Where the pipeline is written, and prompts for it beside it; by default over the shipped one."""
    work: Path = Path("out/training")
    """Where finished stages are kept; a rerun goes on after them."""
    videos: int = 1400
    """Training videos or images, drawn and encoded once."""
    panning: bool = False
    """Behind the shapes backgrounds move, too."""
    large: bool = False
    """Only the large ones of the shapes."""
    design: Changes = field(default_factory=Changes)
    course: Course = field(default_factory=lambda: Course(steps=6000))
    start: Path | None = None
    """A pipeline whose transformer is trained further."""
    vae: Path | None = None
    """A pipeline whose VAE is taken instead of training one."""
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def trainee(self) -> Trainee[Any, Any, Any]:
        """The model as its training sees it. Raises ValueError for a design that does not fit."""
        shipped = TRAINEES[self.model]
        return replace(shipped, design=self.design.of(shipped.design))


def main(training: Training) -> None:
    """Train the VAE, encode the videos, train the transformer, save the pipeline."""
    torch.manual_seed(training.seed)
    trainee, device, started = training.trainee, torch.device(training.device), time.monotonic()
    training.work.mkdir(parents=True, exist_ok=True)
    vae = _vae(training, device)
    scenes = sample_scenes(training.videos, training.seed, held_out=False)
    scenes = [scene for scene in scenes if scene.size == "large" or not training.large]
    latents = trainee.scale(vae, _latents(training, vae, scenes, device))
    pipeline = trainee.build_pipeline(vocabulary(), vae, _transformer(training))
    transformer, losses = train_transformer(
        trainee, pipeline.transformer.to(device), _dataset(trainee, pipeline, latents, scenes), training.course
    )
    pipeline.transformer = transformer
    save(pipeline, training.out or trainee.directory, trainee.defaults)
    if training.out:
        write_prompts(training.out, classes=trainee.takes_classes)
    report = {
        **{key: str(value) for key, value in asdict(training).items()},
        "final_loss": sum(losses[-100:]) / len(losses[-100:]),
        "seconds_since_start": time.monotonic() - started,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    (training.work / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def save(pipeline: DiffusionPipeline, directory: Path, defaults: GenerationDefaults) -> None:
    """Save a pipeline with half-precision weights, and the sizes that it was made for."""
    pipeline.to("cpu", torch.float16).save_pretrained(directory, safe_serialization=True)
    (directory / "resca.json").write_text(json.dumps(defaults.model_dump(exclude_unset=True), indent=2) + "\n")


@torch.no_grad()
def _dataset(
    trainee: Trainee[Any, Any, Any], pipeline: DiffusionPipeline, latents: torch.Tensor, scenes: list[Scene]
) -> Dataset:
    captions = sorted({scene.caption for scene in scenes})
    stills = [scene.still_caption for caption in captions if (scene := scene_of(caption))]
    return Dataset(
        latents=latents,
        caption_of=torch.tensor([captions.index(scene.caption) for scene in scenes]),
        text=trainee.encode_captions(pipeline, captions),
        still_text=trainee.encode_captions(pipeline, stills),
        no_text=trainee.encode_captions(pipeline, [""]) if trainee.caption_drop else (),
        caption_drop=trainee.caption_drop,
    )


def _vae(training: Training, device: torch.device) -> AnyVae:
    stage = training.work / "vae"
    if training.vae:
        stage = training.vae / "vae"
    elif not stage.exists():
        new = training.trainee.build_vae()
        vae, error = train_vae(new, training.trainee.stages, device=device, seed=training.seed)
        print(f"vae: L1 error {error:.4f}")
        vae.save_pretrained(stage)
    vae = training.trainee.load_vae(stage)
    torch.nn.Module.to(vae, device)
    return vae.eval()


def _transformer(training: Training) -> ModelMixin:
    if training.start is None:
        return training.trainee.build_transformer()
    transformer = training.trainee.load_transformer(training.start / "transformer").float()
    transformer.register_to_config(_name_or_path="")
    return transformer


def _latents(training: Training, vae: AnyVae, scenes: list[Scene], device: torch.device) -> torch.Tensor:
    design = training.trainee.design
    size = f"{design.side}x{design.num_frames}" + "-panning" * training.panning + "-large" * training.large
    stage = training.work / f"latents-{training.videos}-{training.seed}-{size}.pt"
    if not stage.exists():
        latents = encode_videos(vae, scenes, training.seed, design=design, panning=training.panning, device=device)
        torch.save(latents, stage)
    return torch.load(stage, weights_only=True)


if __name__ == "__main__":
    main(tyro.cli(Training))
