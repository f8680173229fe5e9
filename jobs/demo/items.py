"""What demo models can be asked for, as items: captions that they were trained on or never saw, or classes."""

import json
from pathlib import Path

from jobs.demo import PROMPTS_FILE
from jobs.demo.scenes import CLASSES, sample_scenes
from jobs.models.facts import ModelFacts
from jobs.request.prompts import Defaults, Item, read_items

CALIBRATION_SEED, UNSEEN_SEED = 500_000, 700_000
TO_FIT, TO_PROMISE, TO_MEASURE = 16, 96, 64  # prompts beside a model that is trained
CLASS_STRIDE = 9  # one shape and one colour on


def drawn_items(count: int, facts: ModelFacts, defaults: Defaults, *, first_seed: int, held_out: bool) -> list[Item]:
    """`count` captions drawn from the training set, or from combinations that are held out of it; or classes."""
    prompts = drawn_prompts(count, first_seed, held_out=held_out, classes=takes_classes(facts))
    return [
        Item(
            id=f"{number:04d}",
            prompt=prompt,
            seed=first_seed + number,
            height=defaults.height,
            width=defaults.width,
            num_frames=defaults.num_frames,
            steps=defaults.steps,
            where="demo",
        )
        for number, prompt in enumerate(prompts)
    ]


def drawn_prompts(count: int, seed: int, *, held_out: bool, classes: bool) -> list[str]:
    """Captions by a seed; or all classes in turn, none of which is held out, in an order that mixes shapes."""
    if classes:
        return [CLASSES[CLASS_STRIDE * number % len(CLASSES)] for number in range(count)]
    return [scene.caption for scene in sample_scenes(count, seed, held_out=held_out)]


def benchmark_items(count: int, facts: ModelFacts, defaults: Defaults) -> list[Item]:
    """The prompts shipped with the demo model, and if that is not enough, captions that are held out; or classes."""
    shipped = [] if takes_classes(facts) else read_items(PROMPTS_FILE, defaults)[:count]
    return [*shipped, *drawn_items(count - len(shipped), facts, defaults, first_seed=UNSEEN_SEED, held_out=True)]


def takes_classes(facts: ModelFacts) -> bool:
    """Whether a demo model's prompts are names of classes: it has nothing that would read a caption."""
    return not facts.family.text_encoders


def write_prompts(model: Path, *, classes: bool = False) -> None:
    """Prompt files beside a model's directory, to tune it with and to measure it on.

    Only those that weights are fitted to are captions of its training: what is promised is measured on others, as what
    is rendered will be.
    """
    seen = drawn_prompts(TO_FIT, CALIBRATION_SEED, held_out=False, classes=classes)
    promising = drawn_prompts(TO_PROMISE, CALIBRATION_SEED + TO_FIT, held_out=True, classes=classes)
    unseen = drawn_prompts(TO_MEASURE, UNSEEN_SEED, held_out=True, classes=classes)
    for name, seed, prompts in (("calibration", CALIBRATION_SEED, seen + promising), ("unseen", UNSEEN_SEED, unseen)):
        lines = [json.dumps({"prompt": prompt, "seed": seed + index}) for index, prompt in enumerate(prompts)]
        model.with_name(f"{model.name}-{name}.jsonl").write_text("\n".join(lines) + "\n")
