"""Captions of the demo model as items to render: some it was trained on, and some it never saw."""

import json
from pathlib import Path

from jobs.demo import PROMPTS_FILE
from jobs.demo.scenes import sample_scenes
from jobs.request.prompts import Defaults, Item, read_items

CALIBRATION_SEED, UNSEEN_SEED = 500_000, 700_000
NUM_WRITTEN = 64


def drawn_items(count: int, defaults: Defaults, *, first_seed: int, held_out: bool) -> list[Item]:
    """`count` captions drawn from the training set, or from combinations that are held out of it."""
    scenes = sample_scenes(count, first_seed, held_out=held_out)
    return [
        Item(
            id=f"{number:04d}",
            prompt=scene.caption,
            seed=first_seed + number,
            height=defaults.height,
            width=defaults.width,
            num_frames=defaults.num_frames,
            steps=defaults.steps,
            where="demo",
        )
        for number, scene in enumerate(scenes)
    ]


def benchmark_items(count: int, defaults: Defaults) -> list[Item]:
    """The prompts shipped with the demo model, and if that is not enough, captions that are held out."""
    shipped = read_items(PROMPTS_FILE, defaults)[:count]
    return [*shipped, *drawn_items(count - len(shipped), defaults, first_seed=UNSEEN_SEED, held_out=True)]


def write_prompts(model: Path) -> None:
    """Prompt files beside a model's directory, to tune it with and to measure it on: captions seen and held out."""
    for name, seed, held_out in (("calibration", CALIBRATION_SEED, False), ("unseen", UNSEEN_SEED, True)):
        scenes = sample_scenes(NUM_WRITTEN, seed, held_out=held_out)
        lines = [json.dumps({"prompt": scene.caption, "seed": seed + index}) for index, scene in enumerate(scenes)]
        model.with_name(f"{model.name}-{name}.jsonl").write_text("\n".join(lines) + "\n")
