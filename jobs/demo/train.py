"""Train the demo model from nothing and save it as a diffusers pipeline.

python -m jobs.demo.train --out jobs/demo/model
"""

import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

from jobs.demo import MODEL_DIRECTORY
from jobs.demo.architecture import build_pipeline, build_transformer
from jobs.demo.scenes import Scene, sample_scenes, scene_of, vocabulary
from jobs.demo.train_transformer import (
    TEMPLATE,
    Course,
    Dataset,
    encode_captions,
    encode_videos,
    train_transformer,
)
from jobs.demo.train_vae import train_vae

GENERATION = {"height": 128, "width": 128, "num_frames": 41, "fps": 12, "steps": 50, "dtype": "float32"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the shipped weights were trained with."""

    out: Path = MODEL_DIRECTORY
    """Where the pipeline is written."""
    work: Path = Path("out/training")
    """Where finished stages are kept; a rerun goes on after them."""
    videos: int = 1400
    """Training videos, drawn and encoded once."""
    course: Course = field(default_factory=lambda: Course(steps=6000))
    start: Path | None = None
    """A pipeline whose transformer is trained further."""
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(training: Training) -> None:
    """Train the VAE, encode the videos, train the transformer, save the pipeline."""
    torch.manual_seed(training.seed)
    device, started = torch.device(training.device), time.monotonic()
    training.work.mkdir(parents=True, exist_ok=True)
    vae = _vae(training, device)
    scenes = sample_scenes(training.videos, training.seed, held_out=False)
    latents = _latents(training, vae, scenes, device)
    vae.register_to_config(scaling_factor=float(1 / latents.float().std()), _name_or_path="")
    pipeline = build_pipeline(vocabulary(), vae, _transformer(training))
    transformer, losses = train_transformer(
        pipeline.transformer.to(device),
        _dataset(pipeline, latents * vae.config["scaling_factor"], scenes),
        training.course,
    )
    pipeline.transformer = transformer
    save(pipeline, training.out)
    report = {
        **{key: str(value) for key, value in asdict(training).items()},
        "final_loss": sum(losses[-100:]) / len(losses[-100:]),
        "seconds_since_start": time.monotonic() - started,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    (training.work / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def save(pipeline: HunyuanVideoPipeline, directory: Path) -> None:
    """Save a pipeline with half-precision weights, and the sizes that it was made for."""
    pipeline.to("cpu", torch.float16).save_pretrained(directory, safe_serialization=True)
    defaults = {**GENERATION, "prompt_template": TEMPLATE}
    (directory / "resca.json").write_text(json.dumps(defaults, indent=2) + "\n")


def _dataset(pipeline: HunyuanVideoPipeline, latents: torch.Tensor, scenes: list[Scene]) -> Dataset:
    captions = sorted({scene.caption for scene in scenes})
    stills = [scene.still_caption for caption in captions if (scene := scene_of(caption))]
    return Dataset(
        latents=latents,
        caption_of=torch.tensor([captions.index(scene.caption) for scene in scenes]),
        text=encode_captions(pipeline, captions),
        still_text=encode_captions(pipeline, stills),
    )


def _vae(training: Training, device: torch.device) -> AutoencoderKLHunyuanVideo:
    stage = training.work / "vae"
    if not stage.exists():
        vae, error = train_vae(device=device, seed=training.seed)
        print(f"vae: L1 error {error:.4f}")
        vae.save_pretrained(stage)
    vae = AutoencoderKLHunyuanVideo.from_pretrained(stage)
    torch.nn.Module.to(vae, device)
    return vae.eval()


def _transformer(training: Training) -> HunyuanVideoTransformer3DModel:
    if training.start is None:
        return build_transformer()
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(training.start / "transformer").float()
    transformer.register_to_config(_name_or_path="")
    return transformer


def _latents(
    training: Training, vae: AutoencoderKLHunyuanVideo, scenes: list[Scene], device: torch.device
) -> torch.Tensor:
    stage = training.work / f"latents-{training.videos}-{training.seed}.pt"
    if not stage.exists():
        torch.save(encode_videos(vae, scenes, training.seed, device), stage)
    return torch.load(stage, weights_only=True)


if __name__ == "__main__":
    main(tyro.cli(Training))
